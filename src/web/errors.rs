//! The page for what cannot be shown: what happened, who must act, one way on, and the code to read out.

use maud::{Markup, html};

use super::connect::words::{Trouble, WhoActs, Words};
use super::look::{self, Branding, Shell, Sign, Width};

/// A page that says why there is no other page.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    /// Whose page it is, when the session is known.
    pub branding: Option<Branding>,
    /// The language.
    pub words: &'static Words,
    /// The heading.
    pub title: String,
    /// What happened.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
    /// Who must act, when somebody must.
    pub who: Option<WhoActs>,
    /// The one way on.
    pub next: Option<WayOn>,
    /// The code of the log line and of the staff's text.
    pub reference: Option<String>,
}

/// A button that leads on.
#[derive(Debug, Clone)]
pub struct WayOn {
    /// A verb.
    pub label: String,
    /// A path of ours, or an `http` or `https` address; with anything else there is no button.
    pub href: String,
}

impl WayOn {
    /// Back to the beginning of a session that is still good.
    pub fn start_again(token_path: &str, words: &Words) -> Self {
        Self { label: words.start_again.to_owned(), href: token_path.to_owned() }
    }

    /// The same once more, where trying again can help.
    pub fn try_again(href: &str, words: &Words) -> Self {
        Self { label: words.try_again.to_owned(), href: href.to_owned() }
    }
}

impl ErrorPage {
    /// The page for a known trouble, without branding, way on and reference: set what you know.
    pub fn of(trouble: Trouble, words: &'static Words) -> Self {
        let text = words.trouble(trouble);
        Self {
            branding: None,
            words,
            title: text.title.to_owned(),
            what: text.what.to_owned(),
            why: text.why.to_owned(),
            who: text.who,
            next: None,
            reference: None,
        }
    }
}

/// The page.
pub fn error_page(page: &ErrorPage) -> Markup {
    let words = page.words;
    let kind = match page.who {
        None => Sign::Note,
        Some(WhoActs::You) => Sign::Attention,
        Some(WhoActs::Clinic | WhoActs::HospitalIt | WhoActs::Us) => Sign::Stop,
    };
    let next = page.next.as_ref().and_then(|next| Some((&next.label, look::link_target(&next.href)?)));
    let content = html! {
        div.outcome {
            (look::sign(kind))
            h1 { (page.title) }
            p { (page.what) }
            p.muted { (page.why) }
        }
        @if let Some((label, href)) = next {
            div.actions { a.button.button-first href=(href) { (label) } }
        }
        @if page.who.is_some() || page.reference.is_some() {
            div.panel.acts {
                @if let Some(who) = page.who {
                    div { p.panel-label { (words.who_acts) } p.panel-value { (words.who(who)) } }
                }
                @if let Some(code) = &page.reference { div.stack { (look::reference(code, words)) } }
            }
        }
    };
    look::page(
        &Shell { title: &page.title, branding: page.branding.as_ref(), words, width: Width::Narrow },
        &content,
    )
}
