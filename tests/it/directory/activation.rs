//! Whether a hospital lets us in: what is noted by hand, by a patient who gets through, and by asking its server.

use chartgate::config::Environment;
use chartgate::control::directory::{DirectoryCommand, execute};
use chartgate::directory::{Activation, ActivationState};
use serde_json::{Value, json};

use crate::support::{Browser, TestApp};

fn activation(app: &TestApp) -> Activation {
    app.app().parts().directory.source(app.source).expect("there").activation.clone()
}

async fn note(app: &TestApp, state: ActivationState, note: &str) {
    let directory = &app.app().parts().directory;
    let noted = directory.activate(Environment::Sandbox, app.source, Some(state), Some(note.to_owned()));
    noted.await.expect("noted");
}

async fn probe(app: &TestApp) -> Value {
    let command = DirectoryCommand::Probe { source: app.source.to_string() };
    execute(app.app().parts(), command).await.expect("probed")
}

#[tokio::test]
async fn the_first_patient_who_gets_through_verifies_a_source_and_the_second_changes_nothing() {
    let mut app = TestApp::start().await;
    note(&app, ActivationState::Active, "they say it is on").await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let verified = activation(&app);
    assert_eq!(verified.state, ActivationState::Verified);
    assert_eq!(verified.steps.last().and_then(|step| step.note.as_deref()), Some("a patient connected"));
    app.connected("ben-3", &user).await;
    assert_eq!(activation(&app), verified);
    app.restart().await;
    assert_eq!(activation(&app), verified, "it is on disk");
}

#[tokio::test]
async fn an_attempt_that_fails_verifies_nothing() {
    let app = TestApp::start().await;
    let before = activation(&app);
    app.hospital.faults(json!({"token_error": {"error": "invalid_client"}})).await;
    let (link, _) = app.session("amy-7").await;
    app.journey(&mut Browser::default(), &link).await;
    assert_eq!(activation(&app), before);
}

#[tokio::test]
async fn a_patient_reads_why_a_place_is_not_open_yet() {
    let app = TestApp::start().await;
    let (link, _) = app.session("amy-7").await;
    for (state, text) in [
        (ActivationState::NotAsked, "still has to switch this on"),
        (ActivationState::Asked, "was asked to switch this on"),
        (ActivationState::Refused, "cannot connect to it so far"),
    ] {
        note(&app, state, "x").await;
        for query in ["", "?q=hospital"] {
            let page = Browser::default().get(&format!("{link}{query}")).await.text;
            assert!(page.contains("card-off") && page.contains(text), "{query} {text}: {page}");
            assert!(!page.contains(&format!("/to/{}", app.source)), "it is no link");
        }
    }
    note(&app, ActivationState::Active, "x").await;
    let page = Browser::default().get(&link).await.text;
    assert!(page.contains(&format!("/to/{}", app.source)), "{page}");
}

#[tokio::test]
async fn asking_the_server_tells_whether_it_lets_us_in_and_who_must_act() {
    let app = TestApp::start().await;
    note(&app, ActivationState::Asked, "wrote to IT").await;
    app.hospital.faults(json!({"authorize_error": "unauthorized_client"})).await;
    let refused = probe(&app).await;
    assert_eq!((&refused["outcome"], &refused["activation"]), (&json!("refused"), &json!("asked")));
    assert!(refused["what"].to_string().contains("unauthorized-client-for-tenant"), "{refused}");
    assert_eq!(refused["who_acts"], "hospital IT");
    app.hospital.faults(json!({"authorize_error": "page"})).await;
    assert_eq!(probe(&app).await["outcome"], "refused", "an error page is no sign-in page");
    app.hospital.well().await;
    let before = app.hospital.log("authorize").await.len();
    let good = probe(&app).await;
    assert_eq!((&good["outcome"], &good["activation"]), (&json!("let-in"), &json!("verified")));
    assert!(app.hospital.log("authorize").await.len() <= before + 1);
    let steps = activation(&app).steps;
    let states: Vec<ActivationState> = steps.iter().map(|step| step.state).collect();
    let expected =
        [ActivationState::Asked, ActivationState::Asked, ActivationState::Asked, ActivationState::Verified];
    assert_eq!(states, expected, "{steps:?}");
    assert!(steps[1].note.as_deref().is_some_and(|note| note.starts_with("probe: refused")), "{steps:?}");
    assert_eq!(app.hospital.count("token.").await, 0, "nothing was exchanged");
}

#[tokio::test]
async fn the_packet_has_what_hospital_it_compares_and_the_scopes_that_would_be_asked_for() {
    let app = TestApp::start().await;
    let command =
        DirectoryCommand::Packet { source: app.source.to_string(), contact: Some("it@north.example".into()) };
    let packet = execute(app.app().parts(), command).await.expect("made");
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    let location = url::Url::parse(&browser.location().expect("to the hospital")).expect("a url");
    let asked = location.query_pairs().find(|(name, _)| name == "scope").expect("scopes").1.into_owned();
    for form in ["text", "html"] {
        let page = packet[form].as_str().expect("text");
        for needed in [
            &format!("{}/api/auth/smart/callback", app.origin),
            &format!("{}/api/auth/.well-known/jwks", app.origin),
            "11111111-2222-3333-4444-555555555555",
            "North Clinic",
            "it@north.example",
            "2026-11-02",
        ] {
            assert!(page.contains(needed), "{needed} is not in the {form}: {page}");
        }
        for scope in asked.split(' ') {
            assert!(page.contains(scope), "{scope} is not in the {form}");
        }
    }
}
