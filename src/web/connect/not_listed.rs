//! The page for a place that is missing: a form, and the thanks for it.

use maud::{Markup, html};

use super::pages::shell;
use super::words::{Control, fill};
use crate::directory::{LONGEST_EMAIL, LONGEST_NAME, LONGEST_WEBSITE, PlaceField};
use crate::web::assets::icons;
use crate::web::look::{self, Branding, Sign};

/// The form, empty or as it was sent.
#[derive(Debug, Clone)]
pub struct NotListedPage {
    /// `/c/{token}`.
    pub token_path: String,
    /// Whose page it is.
    pub branding: Branding,
    /// Name, city, website and e-mail address, as they were typed.
    pub typed: [String; 4],
    /// What cannot be taken so.
    pub wrong: Vec<PlaceField>,
    /// Why nothing was taken although it was well written.
    pub refused: Option<NotTaken>,
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// This patient has written enough.
    Enough,
    /// Too many write at once.
    Busy,
}

/// The form.
pub fn not_listed_page(page: &NotListedPage) -> Markup {
    let words = page.branding.words;
    let clinic = [("clinic", page.branding.clinic.as_str())];
    let notice = match page.refused {
        Some(NotTaken::Enough) => Some(words.tell_enough),
        Some(NotTaken::Busy) => Some(words.tell_busy),
        None if !page.wrong.is_empty() => Some(words.tell_wrong),
        None => None,
    };
    let [name, city, website, email] = &page.typed;
    let content = html! {
        div.head {
            h1 { (words.tell_title) }
            p.lead { (fill(words.tell_lead, &clinic)) }
        }
        @if let Some(notice) = notice {
            p.notice.notice-attention role="alert" { (icons::attention()) span { (fill(notice, &clinic)) } }
        }
        form.form method="post" action=(look::below(&page.token_path, &["not-listed"])) data-once {
            (control(page, PlaceField::Name, &words.tell_name, ("name", "text", "off", LONGEST_NAME), name))
            (control(page, PlaceField::City, &words.tell_city, ("city", "text", "off", LONGEST_NAME), city))
            (control(page, PlaceField::Website, &words.tell_website, ("website", "url", "off", LONGEST_WEBSITE), website))
            (control(page, PlaceField::Email, &words.tell_email, ("email", "email", "email", LONGEST_EMAIL), email))
            div.actions {
                button.button.button-first type="submit" { (words.tell_send) }
                a.button.button-plain href=(look::below(&page.token_path, &[])) { (words.tell_back) }
            }
        }
    };
    shell(&page.branding, words.tell_title, &content)
}

/// One field: name in the form, kind of keyboard, what a browser may fill in, and the longest text.
fn control(
    page: &NotListedPage,
    field: PlaceField,
    texts: &Control,
    (name, kind, fills, longest): (&'static str, &'static str, &'static str, usize),
    value: &str,
) -> Markup {
    let wrong = page.wrong.contains(&field);
    let first = page.wrong.first().map_or(field == PlaceField::Name, |first| *first == field);
    let hint = texts.hint.map(|hint| (format!("{name}-hint"), hint));
    let about: Vec<String> =
        hint.iter().map(|(id, _)| id.clone()).chain(wrong.then(|| format!("{name}-wrong"))).collect();
    let about = (!about.is_empty()).then(|| about.join(" "));
    html! {
        div.control {
            label for=(name) {
                (texts.label)
                @if field != PlaceField::Name { " " span.muted { (page.branding.words.tell_optional) } }
            }
            @if let Some((id, hint)) = &hint { p.small.muted id=(id) { (hint) } }
            // The address is checked here, in words of ours; browsers would use theirs.
            input id=(name) name=(name) type="text" inputmode=(kind) value=(value) maxlength=(longest)
                autocomplete=(fills) required[field == PlaceField::Name] autofocus[first]
                aria-invalid=[wrong.then_some("true")] aria-describedby=[about];
            @if wrong {
                p.control-wrong id={ (name) "-wrong" } { (icons::attention()) span { (texts.wrong) } }
            }
        }
    }
}

/// The thanks.
pub fn told_page(token_path: &str, branding: &Branding) -> Markup {
    let words = branding.words;
    let content = html! {
        div.outcome {
            (look::sign(Sign::Ok))
            h1 { (words.told_title) }
            p { (fill(words.told_lead, &[("clinic", &branding.clinic)])) }
            p.muted { (words.told_wait) }
        }
        div.actions {
            a.button.button-first href=(look::below(token_path, &[])) { (words.told_on) }
        }
    };
    shell(branding, words.told_title, &content)
}
