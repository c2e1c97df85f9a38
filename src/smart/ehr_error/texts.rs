//! What patients read when a connection did not come about. No jargon; what happened, why, what to do. The page adds the
//! reference code and the button.

use serde::{Deserialize, Serialize};

/// Which text. The words live here only, keyed so that they can be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatientText {
    /// They pressed "deny".
    SaidNo,
    /// They left the sign-in page.
    SignInCancelled,
    /// Too late, or used already.
    StartAgain,
    /// The browser lost the hospital's session.
    BrowserLostSession,
    /// The hospital has not activated the clinic's app.
    NotSwitchedOn,
    /// The hospital's policy refused.
    HospitalRefused,
    /// Signed in, but not allowed to this record.
    RecordNotAvailable,
    /// Nothing says whose record it is.
    NoRecordChosen,
    /// The clinic has to repair something.
    SetupProblem,
    /// The hospital's system has a problem.
    HospitalTrouble,
    /// The permission is over.
    SignInAgain,
    /// Some records are not shared.
    NotShared,
    /// Nothing better is known.
    DidNotWork,
}

/// Two texts for a page. `{hospital}` stands for the hospital's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatientMessage {
    /// The state in one sentence.
    pub title: &'static str,
    /// Why, and what to do.
    pub body: &'static str,
}

impl PatientMessage {
    /// Both texts with the hospital's name in them. The name is not escaped here.
    pub fn with_hospital(self, name: &str) -> (String, String) {
        (self.title.replace("{hospital}", name), self.body.replace("{hospital}", name))
    }
}

impl PatientText {
    /// Every key.
    pub const ALL: [Self; 13] = [
        Self::SaidNo,
        Self::SignInCancelled,
        Self::StartAgain,
        Self::BrowserLostSession,
        Self::NotSwitchedOn,
        Self::HospitalRefused,
        Self::RecordNotAvailable,
        Self::NoRecordChosen,
        Self::SetupProblem,
        Self::HospitalTrouble,
        Self::SignInAgain,
        Self::NotShared,
        Self::DidNotWork,
    ];

    /// The English words.
    pub const fn message(self) -> PatientMessage {
        let (title, body) = match self {
            Self::SaidNo => (
                "You chose not to connect {hospital}.",
                "Nothing was shared. If you change your mind, you can try again, or choose another hospital.",
            ),
            Self::SignInCancelled => (
                "You did not finish signing in at {hospital}.",
                "Nothing was shared. Try again when you are ready.",
            ),
            Self::StartAgain => (
                "This took too long, or was already used.",
                "For your safety each attempt works once and only for a while. Please start again; nothing was shared.",
            ),
            Self::BrowserLostSession => (
                "{hospital} lost track of your sign-in.",
                "This happens when cookies are blocked or the page was left open for long. \
                 Allow cookies, close other sign-in pages of {hospital}, and try again.",
            ),
            Self::NotSwitchedOn => (
                "{hospital} did not let us in.",
                "They have not switched on access for this app yet. Your clinic can ask them; we have told the clinic.",
            ),
            Self::HospitalRefused => (
                "{hospital} did not allow this connection.",
                "They may not have an online record for you yet, or do not allow it for this account. \
                 Please ask {hospital}, or your clinic, and tell them the reference below.",
            ),
            Self::RecordNotAvailable => (
                "{hospital} could not open this record for you.",
                "The account you signed in with has no access to it. \
                 Try again and choose another person, or ask {hospital} for access.",
            ),
            Self::NoRecordChosen => (
                "{hospital} did not say whose record to share.",
                "Please try again and choose a person when {hospital} asks. If it does not ask, tell your clinic the \
                 reference below.",
            ),
            Self::SetupProblem => (
                "The connection to {hospital} is not set up correctly.",
                "This is not your fault, and trying again will not help yet. We have told your clinic; they can repair it.",
            ),
            Self::HospitalTrouble => (
                "{hospital} has a problem just now.",
                "Their system did not answer as it should. Please try again in a few minutes.",
            ),
            Self::SignInAgain => (
                "{hospital} needs you to sign in again.",
                "Your permission ran out or was withdrawn there. Connect again to keep your records up to date.",
            ),
            Self::NotShared => (
                "{hospital} did not share everything.",
                "Some kinds of records were left out. You can connect again and choose to share them.",
            ),
            Self::DidNotWork => (
                "The connection to {hospital} did not work.",
                "We have noted what went wrong. Please try again; if it happens twice, tell your clinic the reference below.",
            ),
        };
        PatientMessage { title, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patients_read_whole_sentences_without_jargon() {
        for key in PatientText::ALL {
            let (title, body) = key.message().with_hospital("Mercy Hospital");
            for text in [&title, &body] {
                assert!(text.ends_with('.') && !text.contains(['{', '}']) && !text.contains("  "), "{text}");
                for word in
                    ["oauth", "token", "scope", "fhir", "endpoint", "authoriz", "smart", "client", "server"]
                {
                    assert!(!text.to_lowercase().contains(word), "{word} in: {text}");
                }
            }
        }
    }
}
