//! A hospital that misbehaves while an app is opened: one reference, and a text for each who has to know.

use chartgate::control::{Command, execute};
use serde_json::{Value, json};

use super::{context, launch, opened, setup};
use crate::support::{Browser, Setup, TestApp, logged};

/// What staff find under a reference.
async fn incident(app: &TestApp, reference: &str) -> Value {
    let command = Command::Incident { reference: reference.to_owned() };
    execute(app.app().parts(), command).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn every_trouble_has_three_texts_and_one_reference() {
    let app = TestApp::with(setup()).await;
    let patient = app.hospital.users()[0].patient.clone();
    let token = |error: &str, urn: &str| json!({"token_error": {"error": error, "urn": urn}});
    for (faults, code, status, page, who, staff) in [
        (
            token("invalid_grant", "oauth2:token:code-invalid-or-expired"),
            "token_exchange_failed",
            403,
            "open the app again",
            "You",
            "code-invalid-or-expired",
        ),
        (
            token("invalid_client", "client-assertion:jwt-bearer:invalid-signature"),
            "token_exchange_failed",
            403,
            "did not let the app in",
            "clinic",
            "JWKS",
        ),
        (
            token("unauthorized_client", "oauth2:grant:unauthorized-client-for-tenant"),
            "oauth_callback_failed",
            403,
            "did not let the app in",
            "IT team",
            "activated",
        ),
        (
            json!({"authorize_error": "access_denied"}),
            "oauth_callback_failed",
            403,
            "did not allow this",
            "IT team",
            "`access_denied`",
        ),
        (
            json!({"authorize_error": "server_error"}),
            "source_unavailable",
            502,
            "not answering",
            "IT team",
            "`server_error`",
        ),
        (json!({"token_endpoint": "503"}), "source_unavailable", 502, "not answering", "IT team", "503"),
        (json!({"token_endpoint": "html"}), "source_unavailable", 502, "not answering", "IT team", "403"),
        (
            json!({"token_endpoint": "empty"}),
            "token_exchange_failed",
            403,
            "could not be opened",
            "clinic",
            "not a JSON object",
        ),
        (
            json!({"wrong_id_token_audience": true}),
            "oauth_callback_failed",
            403,
            "could not be opened",
            "clinic",
            "another client",
        ),
        (
            json!({"wrong_nonce": true}),
            "oauth_callback_failed",
            403,
            "could not be opened",
            "clinic",
            "another launch",
        ),
        (
            json!({"authorize_iss": "wrong"}),
            "oauth_callback_failed",
            403,
            "could not be opened",
            "clinic",
            "`iss`",
        ),
    ] {
        app.hospital.well().await;
        app.hospital.faults(faults.clone()).await;
        let mut browser = Browser::default();
        browser.get(&opened(&app, "clinician-1", &patient).await).await;
        let callback = browser.until("/api/auth/smart/callback").await;
        let shown = browser.get(&callback).await;
        assert_eq!(shown.status, status, "{faults}: {}", shown.text);
        assert!(shown.text.contains(page) && shown.text.contains(who), "{faults}: {}", shown.text);
        assert!(shown.text.contains("Mercy Hospital"), "{faults}: {}", shown.text);
        assert_eq!(shown.header("x-frame-options"), None, "it can be read where the app would have been");
        let reference = shown.reference();
        let found = incident(&app, &reference).await;
        let told = found["what_happened"].as_str().expect("text");
        assert!(told.contains(staff) && told.contains("Who acts"), "{faults}: {told}");
        assert_eq!(found["code"], code, "{faults}: {told}");
        let log = logged();
        let line = log.lines().find(|line| line.contains(&reference)).expect("a line in the log");
        assert!(line.contains(code), "{line}");
        let again = browser.get(&callback).await;
        assert_eq!(again.reference(), reference, "{faults}: a second look shows the same");
        app.clock.advance(std::time::Duration::from_secs(1));
    }
    // None of it is a context, and the next launch works.
    app.hospital.well().await;
    context(&app, &launch(&app, &mut Browser::default(), &patient).await).await;
}

#[tokio::test]
async fn a_hospital_that_does_not_answer_is_told_before_leaving_and_left_alone_for_a_moment() {
    let settings = vec![("outbound.timeout", "1s"), ("outbound.connect_timeout", "1s")];
    let app = TestApp::with(Setup { settings, ..setup() }).await;
    let patient = app.hospital.users()[0].patient.clone();
    app.hospital.faults(json!({"smart_configuration": "missing"})).await;
    let address = opened(&app, "clinician-1", &patient).await;
    let first = Browser::default().get(&address).await;
    assert_eq!(first.status, 502, "{}", first.text);
    assert!(first.text.contains("Mercy Hospital") && first.header("location").is_none(), "{}", first.text);
    let told = incident(&app, &first.reference()).await;
    assert!(told["what_happened"].as_str().expect("text").contains("FHIR base URL"), "{told}");
    let asked = app.hospital.count("discovery.").await;
    for _ in 0..20 {
        assert_eq!(Browser::default().get(&address).await.reference(), first.reference());
    }
    assert_eq!(app.hospital.count("discovery.").await, asked, "it is not asked for each of them");
    // After a moment it is asked again; the same trouble keeps its reference for a minute.
    app.clock.advance(std::time::Duration::from_secs(6));
    assert_eq!(Browser::default().get(&address).await.reference(), first.reference());
    assert!(app.hospital.count("discovery.").await > asked);
    app.clock.advance(std::time::Duration::from_mins(2));
    assert_ne!(Browser::default().get(&address).await.reference(), first.reference());
    app.hospital.well().await;
    app.clock.advance(std::time::Duration::from_secs(6));
    context(&app, &launch(&app, &mut Browser::default(), &patient).await).await;
}

#[tokio::test]
async fn a_flood_of_failures_is_not_written_down_without_end() {
    let app = TestApp::with(setup()).await;
    let iss: String = url::form_urlencoded::byte_serialize(app.hospital.base.as_bytes()).collect();
    let address = format!("{}/launch/hospital?iss={iss}&launch=x", app.origin);
    let (mut kept, mut last) = (0, String::new());
    for _ in 0..65 {
        let mut browser = Browser::default();
        browser.get(&address).await;
        let away = url::Url::parse(&browser.location().expect("a redirect")).expect("an address");
        let state = away.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
        let callback = format!("{}/api/auth/smart/callback?error=access_denied&state={state}", app.origin);
        let reference = browser.get(&callback).await.reference();
        match execute(app.app().parts(), Command::Incident { reference: reference.clone() }).await {
            Ok(_) => kept += 1,
            Err(_) => last = reference,
        }
    }
    assert_eq!(kept, 60);
    // What staff need of the others is in the log.
    let log = logged();
    let line = log.lines().find(|line| line.contains(&last)).expect("a line in the log");
    assert!(line.contains("access_denied") && line.contains("Who acts"), "{line}");
}
