//! English for launches from inside an EHR. The reader is a clinician in front of a chart, not a patient.

use crate::smart::ehr_error::PatientText;

use super::{LaunchTrouble, TroubleText, WhoActs};

/// Who acts, headline, what happened, what to do.
pub(super) fn failure(text: PatientText) -> (WhoActs, &'static str, &'static str, &'static str) {
    match text {
        PatientText::SaidNo | PatientText::SignInCancelled => (
            WhoActs::You,
            "The app was not opened",
            "Access was declined on the page of {hospital}. The app has read nothing.",
            "To use it, open it again from the chart and allow access.",
        ),
        PatientText::StartAgain | PatientText::BrowserLostSession | PatientText::SignInAgain => (
            WhoActs::You,
            "Please open the app again",
            "It took too long, or {hospital} lost track of your sign-in. The app has read nothing.",
            "Go back to the chart and open the app from there.",
        ),
        PatientText::NotSwitchedOn => (
            WhoActs::HospitalIt,
            "{hospital} did not let the app in",
            "The hospital has not switched this app on yet.",
            "Ask the hospital’s IT team to switch it on, and give them the reference below.",
        ),
        PatientText::HospitalRefused
        | PatientText::RecordNotAvailable
        | PatientText::NoRecordChosen
        | PatientText::NotShared
        | PatientText::OtherPerson => (
            WhoActs::HospitalIt,
            "{hospital} did not allow this",
            "Your account there may not be allowed to use this app, or not with this chart. The app has read nothing.",
            "Ask the hospital’s IT team, and give them the reference below.",
        ),
        PatientText::SetupProblem => (
            WhoActs::Clinic,
            "{hospital} did not let the app in",
            "Something in the set-up between {clinic} and the hospital does not fit.",
            "Tell {clinic} and read out the reference below. Opening the app again will not help until they have changed it.",
        ),
        PatientText::DidNotWork => (
            WhoActs::Clinic,
            "The app could not be opened",
            "What went wrong with {hospital} has been written down. The app has read nothing.",
            "Open it again from the chart. If it happens twice, read out the reference below to {clinic}.",
        ),
        PatientText::HospitalTrouble => (
            WhoActs::HospitalIt,
            "{hospital} is not answering",
            "Its system did not answer us, or had a problem of its own. The app has read nothing.",
            "Open the app again in a few minutes. If it goes on, tell the hospital’s IT team.",
        ),
        PatientText::OurFault => (
            WhoActs::Us,
            "Something went wrong on our side",
            "It was not you, and it was not {hospital}. What happened has been written down.",
            "Open the app again in a moment. If it goes on, read out the reference below to {clinic}.",
        ),
    }
}

/// The pages of a launch that leads nowhere.
pub(super) fn trouble(trouble: LaunchTrouble) -> TroubleText {
    let (who, title, what, why) = match trouble {
        LaunchTrouble::Unknown => (
            WhoActs::HospitalIt,
            "This address opens no app",
            "The hospital’s system opened an address that we do not know.",
            "Whoever set the app up there should compare its launch address, letter by letter, with the one the clinic gave.",
        ),
        LaunchTrouble::NotReady => (
            WhoActs::Clinic,
            "This app cannot be opened yet",
            "The clinic has not finished its set-up: which app to open, or whose it is, is missing.",
            "Tell the clinic and read out the reference below. Opening the app again will not help until they have changed it.",
        ),
        LaunchTrouble::Elsewhere => (
            WhoActs::Clinic,
            "We do not know this hospital",
            "The hospital’s system gave an address of its own that the clinic has not added.",
            "To keep records safe, nothing was sent there. Tell the clinic and read out the reference below: they can add it.",
        ),
        LaunchTrouble::Stale => (
            WhoActs::You,
            "Please open the app again",
            "This opening was used before, or it took too long.",
            "Each one works once, so that nobody else can use it. Go back to the chart and open the app from there.",
        ),
        LaunchTrouble::Lost => (
            WhoActs::HospitalIt,
            "The app cannot be opened inside this page",
            "Your browser keeps no cookies for what is shown inside another page, so we could not tell that it was you.",
            "Ask the hospital’s IT team to open the app in a window of its own, or to allow its cookies.",
        ),
        LaunchTrouble::Incomplete => (
            WhoActs::You,
            "Open the app from a chart",
            "This address works only when the hospital’s system opens it.",
            "Go to the chart and open the app from there. If you did, tell the hospital’s IT team that its system left something out.",
        ),
    };
    TroubleText { title, what, why, who: Some(who) }
}
