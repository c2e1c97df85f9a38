//! The way back from the hospital: four outcomes, four pages, and the part of two of them that goes on changing.

use maud::{Markup, html};

use super::pages::{done_form, shell};
use super::words::{FailureText, Words, fill, number};
use crate::web::assets::icons;
use crate::web::look::{self, Branding, Sign};

/// A page after the hospital's own.
#[derive(Debug, Clone)]
pub struct ResultPage {
    /// `/c/{token}`.
    pub token_path: String,
    /// Whose page it is.
    pub branding: Branding,
    /// For "try again".
    pub source_id: String,
    /// The hospital's name.
    pub hospital: String,
    /// The app's own word for "done".
    pub done_label: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a sign-in.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// All that was asked for is shared.
    Connected(Arrival),
    /// Connected, but some things were not shared: their names as [`Words::record_kind`] gives them.
    ConnectedWithGaps {
        /// What is arriving.
        arrival: Arrival,
        /// What was left out.
        missing: Vec<String>,
    },
    /// The patient said no.
    Declined,
    /// It did not work.
    Failed {
        /// What to say about it.
        text: FailureText,
        /// The code to read out.
        reference: String,
        /// The hospital's own page about it, `http` or `https`.
        more_info_url: Option<String>,
    },
}

/// A connection whose records arrive.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Goes into the address the script asks for progress.
    pub connection_id: String,
    /// The name as the hospital gave it.
    pub patient_name: Option<String>,
    /// How far it is.
    pub progress: Progress,
}

/// How far the first reading of the records is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Kind of record, as [`Words::record_kind`] names it, and how many have arrived.
    pub lines: Vec<(String, u64)>,
    /// Whether all have.
    pub finished: bool,
    /// What the hospital shares and could not be read this time.
    pub unread: Vec<String>,
}

/// The page for an outcome.
pub fn result_page(page: &ResultPage) -> Markup {
    let words = page.branding.words;
    let hospital = [("hospital", page.hospital.as_str())];
    let (title, content) = match &page.outcome {
        Outcome::Connected(arrival) => (fill(words.connected, &hospital), connected(page, arrival)),
        Outcome::ConnectedWithGaps { arrival, missing } => {
            (fill(words.gaps, &hospital), with_gaps(page, arrival, missing))
        }
        Outcome::Declined => (words.declined.to_owned(), declined(page)),
        Outcome::Failed { text, reference, more_info_url } => {
            (text.headline.clone(), failed(page, text, reference, more_info_url.as_deref()))
        }
    };
    shell(&page.branding, &title, &content)
}

fn connected(page: &ResultPage, arrival: &Arrival) -> Markup {
    let words = page.branding.words;
    html! {
        div.outcome {
            (look::sign(Sign::Ok))
            h1 { (fill(words.connected, &[("hospital", &page.hospital)])) }
            p { (words.connected_close) }
        }
        (whose(page, arrival))
        // Above the records: what is about to be pressed must not move while they arrive.
        div.actions {
            (done_form(&page.token_path, &page.done_label, "button button-first"))
            (another(page, "button button-plain"))
        }
        (arriving(page, arrival))
    }
}

fn with_gaps(page: &ResultPage, arrival: &Arrival, missing: &[String]) -> Markup {
    let words = page.branding.words;
    html! {
        div.outcome {
            (look::sign(Sign::Attention))
            h1 { (fill(words.gaps, &[("hospital", &page.hospital)])) }
            p { (words.gaps_lead) }
        }
        section.notice.notice-attention aria-labelledby="left-out" {
            div.stack {
                h2 #left-out { (words.gaps_list) }
                ul.gaps { @for name in missing { li { (name) } } }
                p.small { (words.gaps_fix) }
            }
        }
        (whose(page, arrival))
        div.actions {
            (again(page, "button button-first"))
            (done_form(&page.token_path, &page.done_label, "button button-quiet"))
            (another(page, "button button-plain"))
        }
        (arriving(page, arrival))
    }
}

fn declined(page: &ResultPage) -> Markup {
    let words = page.branding.words;
    html! {
        div.outcome {
            (look::sign(Sign::Note))
            h1 { (words.declined) }
            p { (fill(words.declined_what, &[("hospital", &page.hospital)])) }
            p.muted { (words.declined_next) }
        }
        div.actions {
            (again(page, "button button-first"))
            (done_form(&page.token_path, &page.done_label, "button button-quiet"))
            (another(page, "button button-plain"))
        }
    }
}

fn failed(page: &ResultPage, text: &FailureText, reference: &str, more_info_url: Option<&str>) -> Markup {
    let words = page.branding.words;
    html! {
        div.outcome {
            (look::sign(Sign::Stop))
            h1 { (text.headline) }
            p { (text.what) }
        }
        dl.panel.acts {
            div { dt { (words.who_acts) } dd.strong { (words.who(text.who)) } }
            div { dt { (words.what_to_do) } dd { (text.next_step) } }
        }
        div.actions {
            @if text.retry_helps {
                (again(page, "button button-first"))
                (done_form(&page.token_path, &page.done_label, "button button-quiet"))
                (another(page, "button button-plain"))
            } @else {
                (another(page, "button button-first"))
                (done_form(&page.token_path, &page.done_label, "button button-quiet"))
                (again(page, "button button-plain"))
            }
        }
        div.stack {
            div.panel { (look::reference(reference, words)) }
            @if let Some(href) = more_info_url.and_then(look::web_address) {
                p {
                    a.outside href=(href) target="_blank" rel="noopener noreferrer" {
                        span { (words.more_info) span.visually-hidden { " " (words.new_tab) } }
                        span.icon-small { (icons::outside()) }
                    }
                }
            }
        }
    }
}

/// Whose record it is, to be read before going on.
fn whose(page: &ResultPage, arrival: &Arrival) -> Markup {
    let words = page.branding.words;
    let name = name_or(arrival.patient_name.as_deref(), &arrival.progress, words);
    // It stands there before the name is known, so that the buttons below stay where they are when it comes.
    html! {
        section.panel data-whose {
            div {
                p.panel-label { (words.patient_label) }
                p.panel-value role="status" data-status { (name) }
            }
            p.small.muted { (fill(words.patient_wrong, &[("clinic", &page.branding.clinic)])) }
        }
    }
}

/// The patient's name, or why there is none.
fn name_or<'a>(name: Option<&'a str>, progress: &Progress, words: &'a Words) -> &'a str {
    name.unwrap_or(if progress.finished { words.patient_unnamed } else { words.patient_pending })
}

/// How far the reading of the records is.
fn arriving(page: &ResultPage, arrival: &Arrival) -> Markup {
    let words = page.branding.words;
    let poll = look::below(&page.token_path, &["progress", &arrival.connection_id]);
    html! {
        section.panel aria-labelledby="records" {
            div.panel-head {
                h2 #records { (words.progress_title) }
                @if !arrival.progress.finished {
                    a.outside href="" data-manual { span.icon-small { (icons::refresh()) } (words.progress_refresh) }
                }
            }
            (progress_region(&arrival.progress, arrival.patient_name.as_deref(), words, Some(&poll)))
        }
    }
}

/// The part of a result page that changes; also the whole answer to `{token_path}/progress/{connection_id}`. It carries
/// the patient's name, which stands elsewhere on the page.
pub fn progress_fragment(progress: &Progress, patient_name: Option<&str>, words: &Words) -> Markup {
    progress_region(progress, patient_name, words, None)
}

fn progress_region(
    progress: &Progress,
    patient_name: Option<&str>,
    words: &Words,
    poll: Option<&str>,
) -> Markup {
    let total = progress.lines.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    let text = match (progress.finished, total) {
        (false, 0) => words.progress_none,
        (false, _) => words.progress_some,
        (true, 0) if progress.unread.is_empty() => words.progress_empty,
        (true, _) if !progress.unread.is_empty() => words.progress_partly,
        (true, _) => words.progress_done,
    };
    html! {
        div.region.region-live data-region data-poll=[poll] data-patient=(name_or(patient_name, progress, words)) data-finished[progress.finished] {
            p.region-status role="status" data-status { (fill(text, &[("count", &number(total))])) }
            div.stack data-content {
                div.bar.bar-full[progress.finished] {}
                @if !progress.lines.is_empty() {
                    dl.counts {
                        @for (name, count) in &progress.lines { div { dt { (name) } dd { (number(*count)) } } }
                    }
                }
                @if progress.finished && !progress.unread.is_empty() {
                    p { (words.progress_unread) }
                    ul.gaps { @for name in &progress.unread { li { (name) } } }
                }
            }
        }
    }
}

fn again(page: &ResultPage, class: &'static str) -> Markup {
    let href = look::below(&page.token_path, &["to", &page.source_id]);
    html! { a class=(class) href=(href) { (page.branding.words.try_again) } }
}

fn another(page: &ResultPage, class: &'static str) -> Markup {
    let href = look::below(&page.token_path, &[]);
    html! { a class=(class) href=(href) { (page.branding.words.connect_another) } }
}
