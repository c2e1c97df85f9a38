//! Every text a patient reads, in one place and keyed for translation. A sentence is always whole: a value goes into
//! a `{slot}` of it, and no sentence is put together from pieces, because other languages order them differently.

mod english;
mod english_launch;

pub use english::ENGLISH;

use maud::{Markup, PreEscaped, Render as _};

use crate::smart::ehr_error::PatientText;

/// One language's texts. A translation is another constant of this type, so a missing text does not compile.
#[derive(Debug)]
pub struct Words {
    /// BCP 47 tag for the `lang` attribute.
    pub lang: &'static str,
    // Every page.
    pub(in crate::web) skip: &'static str,
    pub(in crate::web) title: &'static str,
    pub(in crate::web) privacy: &'static str,
    pub(in crate::web) terms: &'static str,
    pub(in crate::web) new_tab: &'static str,
    pub(in crate::web) reference: &'static str,
    pub(in crate::web) reference_why: &'static str,
    pub(in crate::web) copy: &'static str,
    pub(in crate::web) copied: &'static str,
    pub(in crate::web) try_again: &'static str,
    pub(in crate::web) connect_another: &'static str,
    // Start and search.
    pub(in crate::web) start_title: &'static str,
    pub(in crate::web) start_lead: &'static str,
    pub(in crate::web) steps: [&'static str; 3],
    pub(in crate::web) steps_label: &'static str,
    pub(in crate::web) search_label: &'static str,
    pub(in crate::web) search_hint: &'static str,
    pub(in crate::web) search_button: &'static str,
    pub(in crate::web) search_silent: &'static str,
    pub(in crate::web) recommended: &'static str,
    pub(in crate::web) results: &'static str,
    pub(in crate::web) found_none: &'static str,
    pub(in crate::web) found_one: &'static str,
    pub(in crate::web) found_many: &'static str,
    pub(in crate::web) found_more: &'static str,
    pub(in crate::web) found_portal: &'static str,
    pub(in crate::web) not_listed: &'static str,
    pub(in crate::web) not_listed_hints: [&'static str; 3],
    pub(in crate::web) not_listed_tell: &'static str,
    pub(in crate::web) not_listed_link: &'static str,
    pub(in crate::web) card_portal: &'static str,
    pub(in crate::web) card_records: &'static str,
    pub(in crate::web) card_test: &'static str,
    pub(in crate::web) connected_title: &'static str,
    pub(in crate::web) small_print: &'static str,
    pub(in crate::web) print_what: (&'static str, &'static str),
    pub(in crate::web) print_long: (&'static str, &'static str),
    pub(in crate::web) print_stop: (&'static str, &'static str),
    // A place that is missing.
    pub(in crate::web) tell_title: &'static str,
    pub(in crate::web) tell_lead: &'static str,
    pub(in crate::web) tell_wrong: &'static str,
    pub(in crate::web) tell_enough: &'static str,
    pub(in crate::web) tell_busy: &'static str,
    pub(in crate::web) tell_optional: &'static str,
    pub(in crate::web) tell_name: Control,
    pub(in crate::web) tell_city: Control,
    pub(in crate::web) tell_website: Control,
    pub(in crate::web) tell_email: Control,
    pub(in crate::web) tell_send: &'static str,
    pub(in crate::web) tell_back: &'static str,
    pub(in crate::web) told_title: &'static str,
    pub(in crate::web) told_lead: &'static str,
    pub(in crate::web) told_wait: &'static str,
    pub(in crate::web) told_on: &'static str,
    // Leaving.
    pub(in crate::web) leaving_title: &'static str,
    pub(in crate::web) leaving_where: &'static str,
    pub(in crate::web) leaving_password: &'static str,
    pub(in crate::web) leaving_ticks: (&'static str, &'static str),
    pub(in crate::web) leaving_long: (&'static str, &'static str),
    pub(in crate::web) leaving_stop: (&'static str, &'static str),
    pub(in crate::web) leaving_button: &'static str,
    pub(in crate::web) leaving_back: &'static str,
    pub(in crate::web) again_no: &'static str,
    pub(in crate::web) again_gaps: &'static str,
    pub(in crate::web) again_failed: &'static str,
    pub(in crate::web) again_ended: &'static str,
    // Results.
    pub(in crate::web) connected: &'static str,
    pub(in crate::web) connected_close: &'static str,
    pub(in crate::web) patient_label: &'static str,
    pub(in crate::web) patient_pending: &'static str,
    pub(in crate::web) patient_unnamed: &'static str,
    pub(in crate::web) patient_wrong: &'static str,
    pub(in crate::web) progress_title: &'static str,
    pub(in crate::web) progress_none: &'static str,
    pub(in crate::web) progress_some: &'static str,
    pub(in crate::web) progress_done: &'static str,
    pub(in crate::web) progress_partly: &'static str,
    pub(in crate::web) progress_unread: &'static str,
    pub(in crate::web) progress_empty: &'static str,
    pub(in crate::web) progress_refresh: &'static str,
    pub(in crate::web) gaps: &'static str,
    pub(in crate::web) gaps_lead: &'static str,
    pub(in crate::web) gaps_list: &'static str,
    pub(in crate::web) gaps_fix: &'static str,
    pub(in crate::web) declined: &'static str,
    pub(in crate::web) declined_what: &'static str,
    pub(in crate::web) declined_next: &'static str,
    pub(in crate::web) who_acts: &'static str,
    pub(in crate::web) what_to_do: &'static str,
    pub(in crate::web) more_info: &'static str,
    // Done.
    pub(in crate::web) done_title: &'static str,
    pub(in crate::web) done_none_title: &'static str,
    pub(in crate::web) done_lead: &'static str,
    pub(in crate::web) done_none_lead: &'static str,
    pub(in crate::web) done_list: &'static str,
    pub(in crate::web) done_next: &'static str,
    pub(in crate::web) done_next_lines: [&'static str; 3],
    pub(in crate::web) done_close: &'static str,
    pub(in crate::web) start_again: &'static str,
    pub(in crate::web) row_connected: &'static str,
    pub(in crate::web) row_gaps: &'static str,
    pub(in crate::web) unnamed_hospital: &'static str,
    pub(in crate::web) return_label: &'static str,
    pub(in crate::web) done_label: &'static str,
    pub(in crate::web) practice_badge: &'static str,
    who: [&'static str; 4],
    not_yet: fn(NotYet) -> &'static str,
    failure: fn(PatientText) -> (WhoActs, &'static str, &'static str, &'static str),
    launch_failure: fn(PatientText) -> (WhoActs, &'static str, &'static str, &'static str),
    trouble: fn(Trouble) -> TroubleText,
    record_kind: fn(&str) -> &'static str,
}

/// The texts of a field of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    pub(in crate::web) label: &'static str,
    pub(in crate::web) hint: Option<&'static str>,
    pub(in crate::web) wrong: &'static str,
}

/// Who must do something before a failed thing can work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhoActs {
    /// The patient, now.
    You,
    /// The clinic that sent the link.
    Clinic,
    /// The hospital's IT team.
    HospitalIt,
    /// Whoever runs this appliance.
    Us,
}

/// Why a listed place cannot be chosen yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotYet {
    /// The hospital has not switched on access for this app.
    NotSwitchedOn,
    /// It was asked to.
    Asked,
    /// This clinic has no access to hospitals of its kind.
    NotOffered,
    /// Listed, but nobody has tried it out.
    NotChecked,
    /// It has stopped answering; we look again by ourselves.
    Silent,
}

/// What cannot be shown, for pages outside a sign-in's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The link's time is over.
    SessionExpired,
    /// No such link.
    SessionNotFound,
    /// The patient has pressed "done".
    SessionFinished,
    /// The way back from the hospital was used before, or is too old.
    StaleReturn,
    /// The way back arrived in a browser that did not begin the journey.
    OtherBrowser,
    /// The hospital does not answer.
    HospitalSilent,
    /// More was sent than we take.
    TooLarge,
    /// The request did not arrive in time.
    TooSlow,
    /// Too many requests.
    Busy,
    /// A launch from inside an EHR leads nowhere.
    Launch(LaunchTrouble),
    /// No such page.
    NotFound,
    /// The page exists, but not for this kind of request.
    WrongMethod,
    /// Our own fault.
    OurFault,
}

/// Why a launch from inside an EHR leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchTrouble {
    /// The EHR opens an app that is not there.
    Unknown,
    /// The clinic has not said which app to open, or whose it is.
    NotReady,
    /// The address was opened without what an EHR adds.
    Incomplete,
    /// The EHR is none of the sources.
    Elsewhere,
    /// The way back from the EHR was used before, or is too old.
    Stale,
    /// The EHR shows the app in a frame, and the browser keeps no cookies for it.
    Lost,
}

impl From<LaunchTrouble> for Trouble {
    fn from(trouble: LaunchTrouble) -> Self {
        Self::Launch(trouble)
    }
}

/// The text of a failed sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureText {
    /// One sentence without a full stop: the page's heading.
    pub headline: String,
    /// What happened, and why.
    pub what: String,
    /// Who must act.
    pub who: WhoActs,
    /// What the reader can do.
    pub next_step: String,
    /// Whether trying again can help before somebody else has acted; decides which button stands first.
    pub retry_helps: bool,
}

/// The text of a [`Trouble`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TroubleText {
    /// The heading.
    pub title: &'static str,
    /// What happened.
    pub what: &'static str,
    /// Why it is so, and what to do.
    pub why: &'static str,
    /// Who must act, when somebody must.
    pub who: Option<WhoActs>,
}

impl Words {
    /// The name of who must act.
    pub fn who(&self, who: WhoActs) -> &'static str {
        match who {
            WhoActs::You => self.who[0],
            WhoActs::Clinic => self.who[1],
            WhoActs::HospitalIt => self.who[2],
            WhoActs::Us => self.who[3],
        }
    }

    /// Why a place is greyed.
    pub fn not_yet(&self, why: NotYet) -> &'static str {
        (self.not_yet)(why)
    }

    /// The text of a failed sign-in.
    pub fn failure(&self, text: PatientText, hospital: &str, clinic: &str) -> FailureText {
        let (who, headline, what, next_step) = (self.failure)(text);
        let values = [("hospital", hospital), ("clinic", clinic)];
        FailureText {
            headline: fill(headline, &values),
            what: fill(what, &values),
            who,
            next_step: fill(next_step, &values),
            retry_helps: !matches!(text, PatientText::NotSwitchedOn | PatientText::SetupProblem),
        }
    }

    /// The text of a launch from inside an EHR that failed, for the clinician who opened the app.
    pub fn launch_failure(&self, text: PatientText, hospital: &str, clinic: &str) -> FailureText {
        let (who, headline, what, next_step) = (self.launch_failure)(text);
        let values = [("hospital", hospital), ("clinic", clinic)];
        FailureText {
            headline: fill(headline, &values),
            what: fill(what, &values),
            who,
            next_step: fill(next_step, &values),
            retry_helps: false,
        }
    }

    /// The text of a page that cannot be shown.
    pub fn trouble(&self, trouble: Trouble) -> TroubleText {
        (self.trouble)(trouble)
    }

    /// What a kind of record is called at home. Takes a resource type, or a category of `Observation` such as
    /// `laboratory`; what it does not know is "Other records", never a technical name.
    pub fn record_kind(&self, kind: &str) -> &'static str {
        (self.record_kind)(kind)
    }
}

/// Puts values into the `{slots}` of a text. A slot without a value stays as it is, which the tests of the pages see.
pub(in crate::web) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    walk(text, |piece| match piece {
        Piece::Text(text) => out.push_str(text),
        Piece::Slot(slot, whole) => {
            out.push_str(values.iter().find(|(name, _)| *name == slot).map_or(whole, |(_, value)| value));
        }
    });
    out
}

/// The same for markup: the text is escaped, the values are markup already.
pub(in crate::web) fn fill_markup(text: &str, values: &[(&str, Markup)]) -> Markup {
    let mut out = String::with_capacity(text.len() + 64);
    walk(text, |piece| match piece {
        Piece::Text(text) => text.render_to(&mut out),
        Piece::Slot(slot, whole) => match values.iter().find(|(name, _)| *name == slot) {
            Some((_, value)) => out.push_str(&value.0),
            None => whole.render_to(&mut out),
        },
    });
    PreEscaped(out)
}

enum Piece<'a> {
    Text(&'a str),
    /// The slot's name, and the name with its braces.
    Slot(&'a str, &'a str),
}

/// Goes over the template once, so that braces inside a value are never read as a slot.
fn walk<'a>(text: &'a str, mut each: impl FnMut(Piece<'a>)) {
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let Some(length) = rest[start..].find('}') else { break };
        each(Piece::Text(&rest[..start]));
        each(Piece::Slot(&rest[start + 1..start + length], &rest[start..=start + length]));
        rest = &rest[start + length + 1..];
    }
    each(Piece::Text(rest));
}

/// A count with its thousands set apart.
pub(in crate::web) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_read_as_a_template() {
        assert_eq!(fill("To {a} and {b}.", &[("a", "{b}"), ("b", "x")]), "To {b} and x.");
        assert_eq!(fill("open { brace", &[]), "open { brace");
        let markup = fill_markup("<{a}>", &[("a", PreEscaped("<b>x</b>".to_owned()))]);
        assert_eq!(markup.0, "&lt;<b>x</b>&gt;");
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (count, text) in [(0, "0"), (999, "999"), (1_127, "1,127"), (12_345_678, "12,345,678")] {
            assert_eq!(number(count), text);
        }
    }

    #[test]
    fn a_kind_of_record_never_shows_its_technical_name() {
        for kind in ["MedicationRequest", "DocumentReference", "AllergyIntolerance", "Basic", ""] {
            let words = ENGLISH.record_kind(kind);
            assert!(!words.is_empty() && words != kind, "{kind} is shown as {words}");
        }
    }
}
