//! The patient's pages up to the hospital's door, and the last one: start with search, leaving, done.

use maud::{Markup, html};

use super::words::{NotYet, Words, fill, fill_markup, number};
use crate::web::assets::icons;
use crate::web::look::{self, Branding, Shell, Sign, Width};

/// The first page.
#[derive(Debug, Clone)]
pub struct StartPage {
    /// `/c/{token}`: where every link of the journey begins.
    pub token_path: String,
    /// Whose page it is.
    pub branding: Branding,
    /// The search box and what stands under it.
    pub finder: Finder,
    /// What this patient has connected already.
    pub connected: Vec<ConnectedRow>,
    /// Whether "done" is offered.
    pub can_finish: bool,
    /// The app's own word for "done".
    pub done_label: String,
}

/// The search and its answer.
#[derive(Debug, Clone, Default)]
pub struct Finder {
    /// What was searched for; empty at first.
    pub query: String,
    /// What was found, best first. `None` when nothing was searched for.
    pub results: Option<Vec<SourceCard>>,
    /// Whether more was found than is shown.
    pub more: bool,
    /// Only a portal's name was searched for, which many places share.
    pub portal: Option<&'static str>,
    /// What is suggested before a search.
    pub recommended: Vec<SourceCard>,
}

/// A place that can be chosen.
#[derive(Debug, Clone)]
pub struct SourceCard {
    /// Goes into the address of the next page.
    pub source_id: String,
    /// What the patient calls it.
    pub name: String,
    /// City and state.
    pub place: Option<String>,
    /// The website patients sign in with.
    pub portal: Option<String>,
    /// Whose records these are, when the name alone does not say it.
    pub records_from: Option<String>,
    /// A path on this machine to our own copy of the logo.
    pub logo: Option<String>,
    /// Connected in this session already: marked, and may still be chosen to add what was left out.
    pub connected: bool,
    /// Not a real place: marked as a test.
    pub test: bool,
    /// Why it cannot be chosen yet.
    pub not_yet: Option<NotYet>,
}

/// A place that is connected already.
#[derive(Debug, Clone)]
pub struct ConnectedRow {
    /// Of the card that is marked as connected.
    pub source_id: String,
    /// Its name.
    pub name: String,
    /// Our own copy of its logo.
    pub logo: Option<String>,
    /// The state in one sentence.
    pub state_sentence: String,
    /// Whether the state asks for something.
    pub needs_attention: bool,
}

/// The page before the hospital's own.
#[derive(Debug, Clone)]
pub struct LeavingPage {
    /// `/c/{token}`.
    pub token_path: String,
    /// Sent with the form.
    pub source_id: String,
    /// The hospital's name.
    pub name: String,
    /// Our own copy of its logo.
    pub logo: Option<String>,
    /// The host the browser goes to, as the address bar will show it.
    pub sign_in_host: String,
    /// Whose page it is.
    pub branding: Branding,
    /// Why the patient is here again.
    pub retry: Option<Retry>,
}

/// Why a sign-in is done once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// The patient said no.
    SaidNo,
    /// Some things were not shared: their names as [`Words::record_kind`] gives them.
    Gaps(Vec<String>),
    /// It did not work.
    Failed,
    /// The hospital has ended our access.
    AccessEnded,
}

/// The last page.
#[derive(Debug, Clone)]
pub struct DonePage {
    /// The app's address to go back to, `http` or `https`.
    pub return_url: Option<String>,
    /// The app's own words for going back.
    pub return_label: String,
    /// Whose page it is.
    pub branding: Branding,
    /// The hospitals that are connected now.
    pub connected: Vec<String>,
}

/// The first page: what will happen, the search, what is connected, the small print.
pub fn start_page(page: &StartPage) -> Markup {
    let words = page.branding.words;
    let clinic = [("clinic", page.branding.clinic.as_str())];
    let fresh = page.finder.results.is_none() && page.connected.is_empty();
    let content = html! {
        div.head {
            h1 { (words.start_title) }
            @if fresh { p.lead { (fill(words.start_lead, &clinic)) } }
        }
        @if fresh {
            ol.steps aria-label=(words.steps_label) { @for step in &words.steps { li { (step) } } }
        }
        @if !page.connected.is_empty() {
            section.stack aria-labelledby="connected" {
                h2 #connected { (words.connected_title) }
                ul.list { @for row in &page.connected { (connected_row(row)) } }
                @if page.can_finish {
                    div.actions { (done_form(&page.token_path, &page.done_label, "button button-first")) }
                }
            }
        }
        div.search { form.finder method="get" action=(look::below(&page.token_path, &[])) role="search" data-finder
            data-silent=(words.search_silent)
        {
            label for="q" { (words.search_label) }
            p.finder-hint #hint { (words.search_hint) }
            div.field {
                input #q type="search" name="q" value=(page.finder.query) maxlength="120" autocomplete="off"
                    autocapitalize="words" spellcheck="false" enterkeyhint="search" aria-describedby="hint"
                    autofocus[page.connected.is_empty()];
                button type="submit" aria-label=(words.search_button) { (icons::search()) }
            }
        }
        (results_fragment(&page.token_path, &page.finder, &page.branding)) }
        section.stack.rule aria-labelledby="small-print" {
            h2 #small-print { (words.small_print) }
            dl.facts {
                @for (name, text) in [words.print_what, words.print_long, words.print_stop] {
                    div { dt { (name) } dd { (fill(text, &clinic)) } }
                }
            }
        }
    };
    shell(&page.branding, words.start_title, &content)
}

/// What stands under the search box; also the whole answer to a search the script makes (`?q=…&fragment=1`).
pub fn results_fragment(token_path: &str, finder: &Finder, branding: &Branding) -> Markup {
    let words = branding.words;
    let cards = finder.results.as_ref().unwrap_or(&finder.recommended);
    let name = if finder.results.is_some() { words.results } else { words.recommended };
    html! {
        div.region #results data-region {
            p.region-status role="status" data-status { (found(finder, words)) }
            div data-content {
                @if !cards.is_empty() {
                    div.group {
                        h2 #results-name .group-name .visually-hidden[finder.results.is_some()] { (name) }
                        ul.cards #results-list aria-labelledby="results-name" {
                            @for card in cards { li { (source_card(token_path, card, words)) } }
                        }
                    }
                }
                @if finder.results.is_some() { div.group { (not_listed(token_path, &finder.query, branding)) } }
            }
        }
    }
}

/// The answer in one sentence.
fn found(finder: &Finder, words: &Words) -> String {
    let Some(results) = &finder.results else { return String::new() };
    if let Some(portal) = finder.portal {
        return fill(words.found_portal, &[("portal", portal)]);
    }
    let count = number(u64::try_from(results.len()).unwrap_or(u64::MAX));
    let text = match results.len() {
        0 => words.found_none,
        1 => words.found_one,
        _ if finder.more => words.found_more,
        _ => words.found_many,
    };
    fill(text, &[("count", &count), ("query", &finder.query)])
}

fn not_listed(token_path: &str, query: &str, branding: &Branding) -> Markup {
    let words = branding.words;
    // What was typed stands in the form already.
    let typed: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("q", query).finish();
    html! {
        section.hints {
            h2 { (words.not_listed) }
            ul { @for hint in &words.not_listed_hints { li { (hint) } } }
            p { (fill(words.not_listed_tell, &[("clinic", &branding.clinic)])) }
            p {
                a.button.button-quiet href={ (look::below(token_path, &["not-listed"])) "?" (typed) } {
                    (words.not_listed_link)
                }
            }
        }
    }
}

fn source_card(token_path: &str, card: &SourceCard, words: &Words) -> Markup {
    let inside = html! {
        (look::tile(&card.name, card.logo.as_deref(), ""))
        span.card-text {
            span.card-name {
                span { (card.name) }
                @if card.test { span.badge { (words.card_test) } }
            }
            @if let Some(place) = &card.place { span.small.muted { (place) } }
            @if let Some(portal) = &card.portal {
                span.small.muted { (fill(words.card_portal, &[("portal", portal)])) }
            }
            @if let Some(origin) = &card.records_from {
                span.small.muted { (fill(words.card_records, &[("origin", origin)])) }
            }
            @if card.connected {
                span.row-state.text-ok { (icons::check()) span { (words.row_connected) } }
            }
            @if let Some(why) = card.not_yet {
                span.card-why { (icons::clock()) span { (words.not_yet(why)) } }
            }
        }
    };
    html! {
        @if card.not_yet.is_some() {
            div.card.card-off { (inside) }
        } @else {
            a.card href=(look::below(token_path, &["to", &card.source_id])) { (inside) (icons::forward()) }
        }
    }
}

fn connected_row(row: &ConnectedRow) -> Markup {
    let (class, icon) = if row.needs_attention {
        ("row-state text-attention", icons::attention())
    } else {
        ("row-state text-ok", icons::check())
    };
    html! {
        li {
            (look::tile(&row.name, row.logo.as_deref(), ""))
            span.row-text {
                span.row-name { (row.name) }
                span class=(class) { (icon) span { (row.state_sentence) } }
            }
        }
    }
}

/// The button that ends the visit. `class` is a constant of ours.
pub(super) fn done_form(token_path: &str, label: &str, class: &'static str) -> Markup {
    html! {
        form method="post" action=(look::below(token_path, &["done"])) data-once {
            button class=(class) type="submit" { (label) }
        }
    }
}

/// The page before the hospital's own: where the patient goes, and what to tick there.
pub fn leaving_page(page: &LeavingPage) -> Markup {
    let words = page.branding.words;
    let hospital = [("hospital", page.name.as_str())];
    let clinic = [("clinic", page.branding.clinic.as_str())];
    let title = fill(words.leaving_title, &hospital);
    let again = page.retry.as_ref().map(|retry| match retry {
        Retry::SaidNo => words.again_no.to_owned(),
        Retry::Gaps(missing) => fill(words.again_gaps, &[("missing", &missing.join(", "))]),
        Retry::Failed => words.again_failed.to_owned(),
        Retry::AccessEnded => words.again_ended.to_owned(),
    });
    let content = html! {
        div.going {
            (look::tile(&page.name, page.logo.as_deref(), "tile-large"))
            h1 { (title) }
            p.going-where {
                (fill_markup(words.leaving_where, &[("host", html! { code { (page.sign_in_host) } })]))
                " " (words.leaving_password)
            }
        }
        @if let Some(again) = again {
            p.notice.notice-note { (icons::note()) span { (again) } }
        }
        ul.know {
            @for (icon, (name, text)) in [
                (icons::ticked(), words.leaving_ticks),
                (icons::clock(), words.leaving_long),
                (icons::hand(), words.leaving_stop),
            ] {
                li { (icon) div { p.first { (name) } p { (fill(text, &clinic)) } } }
            }
        }
        // In reach of a thumb: on a small screen the button stays at the bottom while the page is read.
        div.actions.actions-reach {
            form method="post" action=(look::below(&page.token_path, &["launch"])) data-once {
                input type="hidden" name="source" value=(page.source_id);
                button.button.button-first type="submit" { (fill(words.leaving_button, &hospital)) }
            }
        }
        div.actions {
        }
        div.actions { a.button.button-plain href=(look::below(&page.token_path, &[])) { (words.leaving_back) } }
    };
    shell(&page.branding, &title, &content)
}

/// The last page: what happens next, and the way back to the app.
pub fn done_page(page: &DonePage) -> Markup {
    let words = page.branding.words;
    let clinic = [("clinic", page.branding.clinic.as_str())];
    let some = !page.connected.is_empty();
    let title = if some { words.done_title } else { words.done_none_title };
    let content = html! {
        div.outcome {
            (look::sign(if some { Sign::Ok } else { Sign::Note }))
            h1 { (title) }
            p { (fill(if some { words.done_lead } else { words.done_none_lead }, &clinic)) }
        }
        @if some {
            ul.list aria-label=(words.done_list) {
                @for name in &page.connected {
                    li { (look::tile(name, None, "")) span.row-name { (name) } }
                }
            }
        }
        @if let Some(href) = page.return_url.as_deref().and_then(look::return_address) {
            div.actions { a.button.button-first href=(href) rel="noreferrer" { (page.return_label) } }
        } @else {
            p.muted { (words.done_close) }
        }
        @if some {
            section.stack.rule aria-labelledby="next" {
                h2 #next { (words.done_next) }
                ul.bullets { @for line in &words.done_next_lines { li { (fill(line, &clinic)) } } }
            }
        }
    };
    shell(&page.branding, title, &content)
}

pub(super) fn shell(branding: &Branding, title: &str, content: &Markup) -> Markup {
    look::page(
        &Shell { title, branding: Some(branding), words: branding.words, width: Width::Narrow },
        content,
    )
}
