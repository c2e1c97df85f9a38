//! Which text patients read when a connection did not come about. The words themselves are with the pages, so that all of
//! a patient's texts are in one place for translation.

use serde::{Deserialize, Serialize};

/// Which text.
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
    /// A reconnect came back with another person's record.
    OtherPerson,
    /// Our own fault.
    OurFault,
    /// Nothing better is known.
    DidNotWork,
}

impl PatientText {
    /// Every key.
    pub const ALL: [Self; 15] = [
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
        Self::OtherPerson,
        Self::OurFault,
        Self::DidNotWork,
    ];
}
