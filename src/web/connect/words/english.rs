//! English, and the pattern for other languages.

use crate::smart::ehr_error::PatientText;

use super::{Control, NotYet, Trouble, TroubleText, WhoActs, Words, english_launch as launch};

/// English.
pub const ENGLISH: Words = Words {
    lang: "en",
    skip: "Skip to the content",
    title: "{page} · {clinic}",
    privacy: "Privacy",
    terms: "Terms",
    new_tab: "(opens in a new tab)",
    reference: "Reference",
    reference_why: "Read this code out if you ask for help. It tells us exactly what happened.",
    copy: "Copy",
    copied: "Copied",
    try_again: "Try again",
    connect_another: "Connect another hospital",
    start_title: "Connect your health records",
    start_lead: "{clinic} asks for a copy of your records from the places that have cared for you.",
    steps: [
        "Find your hospital or clinic below.",
        "Sign in on its own website. We never see your password.",
        "Come back here. Your records follow.",
    ],
    steps_label: "How it works",
    search_label: "Find your hospital or clinic",
    search_hint: "Name, city, or the website where you see your results",
    search_button: "Search",
    search_silent: "The search is not answering. Press the search button to try again.",
    recommended: "Suggested for you",
    results: "Hospitals and clinics",
    found_none: "Nothing found for “{query}”.",
    found_one: "1 place found.",
    found_many: "{count} places found.",
    found_portal: "Many hospitals use {portal}. Type the name of yours as well, or its town.",
    found_more: "The first {count} places are shown. Type more of the name to narrow them down.",
    not_listed: "Not listed?",
    not_listed_hints: [
        "Try fewer letters, or only the city.",
        "Try the name of the website where you see your results, such as MyChart.",
        "Try the name of the larger group your hospital belongs to.",
    ],
    not_listed_tell: "Still nothing? Tell us which place it is, and {clinic} can ask to have it added.",
    not_listed_link: "Tell us about it",
    card_portal: "Sign in with {portal}",
    card_records: "Records come from {origin}",
    card_test: "Test",
    connected_title: "Connected so far",
    small_print: "Good to know",
    print_what: (
        "What is read",
        "Your health record: visits, results, medicines, allergies, vaccines, conditions, notes and your contact details.",
    ),
    print_long: ("For how long", "Until you stop it, or the hospital’s own time limit ends it."),
    print_stop: ("How to stop", "At any time, on the hospital’s website or by asking {clinic}."),
    tell_title: "Which place is missing?",
    tell_lead: "{clinic} reads what you write here and can ask to have the place added. It is sent to nobody else.",
    tell_wrong: "Please look at what is marked below. Nothing was sent yet.",
    tell_enough: "You have told us about several places already, and {clinic} has them all. Please tell them about any other in person.",
    tell_busy: "Many people are writing just now, and this was not sent. Please try again in an hour, or tell {clinic} in person.",
    tell_optional: "(optional)",
    tell_name: Control {
        label: "Name of the hospital or clinic",
        hint: None,
        wrong: "Write its name, in at most 120 letters.",
    },
    tell_city: Control {
        label: "City and state",
        hint: None,
        wrong: "Write the city and state only, in at most 120 letters.",
    },
    tell_website: Control {
        label: "Website where you see your results",
        hint: Some("Such as mychart.hospital.org"),
        wrong: "Write a web address such as mychart.hospital.org, or leave this empty.",
    },
    tell_email: Control {
        label: "Your e-mail address",
        hint: Some("Only so that you can be told when it is there"),
        wrong: "Write an address such as name@example.org, or leave this empty.",
    },
    tell_send: "Send",
    tell_back: "Back to the search",
    told_title: "Thank you. We have written it down",
    told_lead: "{clinic} sees it now and can ask the hospital.",
    told_wait: "This can take days or weeks, because the hospital has to agree. You need not wait here.",
    told_on: "Search for another place",
    leaving_title: "You are going to {hospital}",
    leaving_where: "You sign in on the hospital’s own page, at {host}.",
    leaving_password: "Your password stays there. We never see it.",
    leaving_ticks: (
        "Leave all boxes ticked",
        "The hospital may ask what to share. Without “Demographics” (your name and date of birth) nothing can be read.",
    ),
    leaving_long: (
        "Access lasts until you stop it",
        "Some hospitals end it after a time of their own, or let you choose how long.",
    ),
    leaving_stop: (
        "You can stop it at any time",
        "On the hospital’s website, in the list of connected apps, or by asking {clinic}.",
    ),
    leaving_button: "Continue to {hospital}",
    leaving_back: "Choose another hospital",
    again_no: "Last time you chose not to share. You can choose again now.",
    again_gaps: "Last time some things were left out: {missing}. Leave their boxes ticked to share them.",
    again_failed: "Last time it did not work. Nothing was lost, and you can try again now.",
    again_ended: "The hospital has ended our access. Sign in once more and your records go on arriving.",
    connected: "Connected to {hospital}",
    connected_close: "You can close this page. Your records keep arriving without it.",
    patient_label: "The hospital knows you as",
    patient_pending: "One moment…",
    patient_unnamed: "No name was given",
    patient_wrong: "Is this not you? Tell {clinic} before you go on.",
    progress_title: "Your records",
    progress_none: "Records are on their way. The first ones usually arrive within a minute.",
    progress_some: "Records are arriving: {count} so far.",
    progress_done: "All here: {count} records.",
    progress_partly: "So far {count} records have arrived, and some are missing.",
    progress_unread: "The hospital’s system did not give us all of these. We try again by ourselves; you need not do anything.",
    progress_empty: "The hospital has no records to share yet. New ones will follow.",
    progress_refresh: "Refresh",
    gaps: "Connected to {hospital}, with gaps",
    gaps_lead: "Some of your record was not shared. Everything else is arriving.",
    gaps_list: "Left out",
    gaps_fix: "To add them, try again and leave all boxes ticked. What you have shared already stays shared.",
    declined: "Nothing was shared",
    declined_what: "You chose not to share your records from {hospital}. That is all right: nothing was read.",
    declined_next: "You can try again, connect another hospital, or leave it at that.",
    who_acts: "Who needs to act",
    what_to_do: "What to do",
    more_info: "More information from the hospital",
    done_title: "All done. Thank you",
    done_none_title: "You have left without connecting",
    done_lead: "{clinic} now receives your records from here:",
    done_none_lead: "No hospital is connected, and nothing was read. You can come back whenever you like.",
    done_list: "Connected",
    done_next: "What happens next",
    done_next_lines: [
        "Records go on arriving for a while. Large ones can take an hour.",
        "You do not need to stay here or sign in again.",
        "To stop it, use the hospital’s website or ask {clinic}.",
    ],
    done_close: "You can close this page now.",
    start_again: "Start again",
    row_connected: "Connected",
    row_gaps: "Connected, but some things were not shared",
    unnamed_hospital: "The hospital",
    return_label: "Go back",
    done_label: "I am done",
    practice_badge: "Practice data",
    who: ["You", "Your clinic", "The hospital’s IT team", "The team behind this page"],
    not_yet,
    failure,
    launch_failure: launch::failure,
    trouble,
    record_kind,
};

fn not_yet(why: NotYet) -> &'static str {
    match why {
        NotYet::NotSwitchedOn => "Not open yet: the hospital still has to switch this on.",
        NotYet::Asked => "Not open yet: the hospital was asked to switch this on.",
        NotYet::NotOffered => "Not open yet: this clinic cannot connect to it so far.",
        NotYet::NotChecked => "Not open yet: we are still trying it out.",
        NotYet::Silent => "Not answering just now. Please try again later.",
    }
}

/// Who must act, the heading, what happened, and what to do.
fn failure(text: PatientText) -> (WhoActs, &'static str, &'static str, &'static str) {
    match text {
        PatientText::SaidNo => (WhoActs::You, ENGLISH.declined, ENGLISH.declined_what, ENGLISH.declined_next),
        PatientText::SignInCancelled => (
            WhoActs::You,
            "You did not finish signing in",
            "The sign-in at {hospital} was left before it was done. Nothing was shared.",
            "Try again when you are ready.",
        ),
        PatientText::StartAgain => (
            WhoActs::You,
            "That took too long",
            "The sign-in at {hospital} was open for too long, or was used already, so it was closed for your safety.",
            "Try again. You may have to sign in once more.",
        ),
        PatientText::BrowserLostSession => (
            WhoActs::You,
            "{hospital} lost track of your sign-in",
            "This happens when cookies are blocked or its page was left open for long. Nothing was shared.",
            "Allow cookies, close other pages of {hospital}, and try again.",
        ),
        PatientText::NotSwitchedOn => (
            WhoActs::HospitalIt,
            "{hospital} did not let us in",
            "They have not switched on access for this app yet. You did nothing wrong.",
            "Tell {clinic} that you tried, and read out the reference below. They can ask the hospital.",
        ),
        PatientText::HospitalRefused => (
            WhoActs::HospitalIt,
            "{hospital} did not allow this",
            "They may not have an online record for you yet, or do not allow it for this account. Nothing was shared.",
            "Ask {hospital}, or tell {clinic} the reference below.",
        ),
        PatientText::RecordNotAvailable => (
            WhoActs::You,
            "{hospital} could not open this record for you",
            "The account you signed in with has no access to it. Nothing was shared.",
            "Try again and choose another person, or ask {hospital} for access.",
        ),
        PatientText::NoRecordChosen => (
            WhoActs::Clinic,
            "We found no record to connect",
            "You signed in at {hospital}, but it did not say whose record to share.",
            "Try again and choose a person if you are asked. If you are not asked, tell {clinic} the reference below.",
        ),
        PatientText::SetupProblem => (
            WhoActs::Clinic,
            "{hospital} did not let us in",
            "Something in the set-up between {clinic} and the hospital does not fit. You did nothing wrong.",
            "Tell {clinic} and read out the reference below. Trying again will not help until they have changed it.",
        ),
        PatientText::HospitalTrouble => (
            WhoActs::HospitalIt,
            "{hospital} is not answering",
            "Their website did not answer, or had a problem of its own. Nothing was shared.",
            "Try again in a few minutes. If it goes on, tell {clinic}.",
        ),
        PatientText::SignInAgain => (
            WhoActs::You,
            "{hospital} needs you to sign in again",
            "Your permission ran out, or was withdrawn there.",
            "Connect again to keep your records up to date.",
        ),
        PatientText::NotShared => (
            WhoActs::You,
            "{hospital} did not share this",
            "Some kinds of records were left out.",
            "Try again and leave all boxes ticked.",
        ),
        PatientText::OtherPerson => (
            WhoActs::Clinic,
            "This is another person’s record",
            "The sign-in at {hospital} led to a different person than before. To keep records apart, we stopped and read nothing.",
            "If it was a mistake, try again with the right sign-in. Otherwise talk to {clinic}.",
        ),
        PatientText::OurFault => (
            WhoActs::Us,
            "Something went wrong on our side",
            "It was not you, and it was not {hospital}. What happened has been written down.",
            "Try again in a moment. If it goes on, read out the reference below to {clinic}.",
        ),
        PatientText::DidNotWork => (
            WhoActs::Clinic,
            "The connection to {hospital} did not work",
            "What went wrong has been written down. Nothing was shared.",
            "Try again. If it happens twice, read out the reference below to {clinic}.",
        ),
    }
}

fn trouble(trouble: Trouble) -> TroubleText {
    let (who, title, what, why) = match trouble {
        Trouble::SessionExpired => (
            Some(WhoActs::You),
            "This link has expired",
            "For your safety it works for a short time only.",
            "Ask for a new link where you got this one. Hospitals you have connected stay connected.",
        ),
        Trouble::SessionNotFound => (
            Some(WhoActs::You),
            "We do not know this link",
            "It may be cut off, or it may have been deleted.",
            "Open it again from the message you got, or copy the whole address. If that does not help, ask for a new link.",
        ),
        Trouble::SessionFinished => (
            None,
            "You are done here already",
            "You finished this visit, so the page is closed.",
            "Hospitals you have connected stay connected. To add another, ask for a new link.",
        ),
        Trouble::StaleReturn => (
            Some(WhoActs::You),
            "Please start again",
            "This sign-in was used before, or it took too long.",
            "Each sign-in works once, so that nobody else can use it. Nothing was shared.",
        ),
        Trouble::OtherBrowser => (
            Some(WhoActs::You),
            "Please start again in one browser",
            "This sign-in began in another browser, or it was used already.",
            "So that nobody can use it in your place, it works once and ends where it began. Open your link again: what you have connected stays connected.",
        ),
        Trouble::HospitalSilent => (
            Some(WhoActs::HospitalIt),
            "The hospital is not answering",
            "Its website did not answer us in time.",
            "Nothing was lost. Try again in a few minutes.",
        ),
        Trouble::TooLarge => (
            Some(WhoActs::You),
            "That was too much at once",
            "More was sent than this page can take.",
            "Go back, and try again with less.",
        ),
        Trouble::TooSlow => (
            Some(WhoActs::You),
            "That took too long",
            "Your browser’s message did not arrive in time.",
            "Check your connection to the internet, and try again.",
        ),
        Trouble::Busy => (
            Some(WhoActs::You),
            "Please wait a moment",
            "There were too many requests in a short time.",
            "Wait a minute, then load the page again.",
        ),
        Trouble::Launch(trouble) => return launch::trouble(trouble),
        Trouble::NotFound => (
            Some(WhoActs::You),
            "There is no page here",
            "The address may be mistyped, or the page may have moved.",
            "Check the address, or open the link in your message again.",
        ),
        Trouble::WrongMethod => (
            Some(WhoActs::You),
            "This page cannot be used that way",
            "The address is right, but it was opened in a way it does not support.",
            "Go back, and use the buttons on the page.",
        ),
        Trouble::OurFault => (
            Some(WhoActs::Us),
            "Something went wrong on our side",
            "It was not your fault. What happened has been written down.",
            "Try again in a moment. If it goes on, ask for help and read out the reference.",
        ),
    };
    TroubleText { title, what, why, who }
}

fn record_kind(kind: &str) -> &'static str {
    match kind {
        "AllergyIntolerance" => "Allergies",
        "Appointment" | "Schedule" | "Slot" => "Appointments",
        "CarePlan" => "Care plans",
        "Binary" => "Files of documents",
        "CareTeam" => "Your care team",
        "Practitioner" | "PractitionerRole" => "Doctors and staff",
        "Claim" | "Coverage" | "ExplanationOfBenefit" | "InsurancePlan" => "Insurance",
        "Condition" => "Conditions",
        "Device" => "Implants and devices",
        "DiagnosticReport" => "Reports",
        "DocumentReference" | "Media" => "Documents and notes",
        "Encounter" => "Visits",
        "FamilyMemberHistory" => "Family history",
        "Goal" => "Goals",
        "Immunization" => "Vaccines",
        "Location" => "Places of care",
        "Organization" => "Clinics and hospitals",
        "Provenance" => "Where records come from",
        "Medication" => "Details of medicines",
        "MedicationAdministration" | "MedicationDispense" | "MedicationRequest" | "MedicationStatement" => {
            "Medicines"
        }
        "Observation" => "Results and measurements",
        "laboratory" => "Lab results",
        "vital-signs" => "Vital signs",
        "social-history" => "Lifestyle",
        "survey" | "QuestionnaireResponse" => "Questionnaires",
        "Patient" => "Your name and contact details",
        "Procedure" => "Procedures",
        "RelatedPerson" => "Family and contacts",
        "ServiceRequest" => "Orders",
        "Specimen" => "Samples",
        _ => "Other records",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smart::RESOURCE_TYPES;

    #[test]
    fn no_two_kinds_that_are_listed_have_the_same_name() {
        let besides = ["Binary", "Location", "Medication", "Organization", "Practitioner", "Provenance"];
        let kinds = RESOURCE_TYPES.iter().copied().chain(besides);
        let mut names: Vec<&str> = kinds.map(record_kind).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(!names.contains(&"Other records"));
    }
}
