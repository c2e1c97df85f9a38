//! Every common error a patient or staff can meet: a page in plain words with who must act, a text for staff, and a log
//! line, all under one reference code.

use chartgate::control::{Command, execute};
use serde_json::{Value, json};

use crate::support::{Browser, Setup, TestApp, logged};

/// Words of the protocol, which patients never read.
const JARGON: [&str; 8] = ["oauth", "token", "scope", "fhir", "endpoint", "authorization", "jwt", "urn:"];

/// The text of a page without its markup.
fn visible(html: &str) -> String {
    let body = html.split("<body").nth(1).unwrap_or(html);
    let mut text = String::new();
    let mut inside = false;
    for letter in body.chars() {
        match letter {
            '<' => inside = true,
            '>' => inside = false,
            letter if !inside => text.push(letter),
            _ => {}
        }
    }
    text
}

struct Trouble {
    /// What the hospital does.
    faults: Value,
    /// The wire contract's code.
    code: &'static str,
    /// Words on the patient's page.
    page: &'static str,
    /// Who has to act, on the patient's page.
    who: &'static str,
    /// Words of the staff's text.
    staff: &'static [&'static str],
}

fn trouble(
    faults: Value,
    code: &'static str,
    page: &'static str,
    who: &'static str,
    staff: &'static [&'static str],
) -> Trouble {
    Trouble { faults, code, page, who, staff }
}

#[tokio::test]
async fn every_trouble_has_three_texts_and_one_reference() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    app.hospital.agrees(&user.username).await;
    let token = |error: &str, urn: &str| json!({"token_error": {"error": error, "urn": urn}});
    let exchange = "token_exchange_failed";
    let troubles = [
        trouble(
            token("invalid_grant", "oauth2:token:code-invalid-or-expired"),
            exchange,
            "took too long",
            "You",
            &["`invalid_grant`", "oauth2:token:code-invalid-or-expired"],
        ),
        trouble(
            token("invalid_scope", "oauth2:token:empty-scopes"),
            exchange,
            "did not let us in",
            "clinic",
            &["`invalid_scope`", "empty-scopes"],
        ),
        trouble(
            token("invalid_client", "client-assertion:jwt-bearer:invalid-signature"),
            exchange,
            "did not let us in",
            "clinic",
            &["`invalid_client`", "JWKS"],
        ),
        trouble(
            token("unauthorized_client", "oauth2:grant:unauthorized-client-for-tenant"),
            "oauth_callback_failed",
            "did not let us in",
            "IT team",
            &["unauthorized-client-for-tenant", "activated"],
        ),
        trouble(
            token("invalid_grant", "oauth2:token:something-new"),
            exchange,
            "",
            "",
            &["oauth2:token:something-new"],
        ),
        trouble(
            json!({"authorize_error": "unauthorized_client"}),
            "oauth_callback_failed",
            "",
            "",
            &["`unauthorized_client`"],
        ),
        trouble(
            json!({"authorize_error": "invalid_scope"}),
            "source_unavailable",
            "",
            "",
            &["`invalid_scope`"],
        ),
        trouble(
            json!({"authorize_error": "server_error"}),
            "source_unavailable",
            "not answering",
            "IT team",
            &["`server_error`"],
        ),
        trouble(
            json!({"authorize_error": "temporarily_unavailable"}),
            "source_unavailable",
            "not answering",
            "IT team",
            &["`temporarily_unavailable`"],
        ),
        trouble(
            json!({"drop_patient": true, "drop_fhir_user": true}),
            "missing_patient_context",
            "no record",
            "clinic",
            &["fhirUser"],
        ),
        trouble(json!({"token_endpoint": "503"}), "source_unavailable", "not answering", "IT team", &["503"]),
        trouble(json!({"token_endpoint": "429"}), "source_unavailable", "not answering", "IT team", &["429"]),
        trouble(
            json!({"token_endpoint": "html"}),
            "source_unavailable",
            "not answering",
            "IT team",
            &["403"],
        ),
        trouble(
            json!({"token_endpoint": "empty"}),
            exchange,
            "did not work",
            "clinic",
            &["not a JSON object"],
        ),
        trouble(
            json!({"token_endpoint": "redirect"}),
            "source_unavailable",
            "not answering",
            "IT team",
            &["307"],
        ),
        trouble(
            json!({"wrong_id_token_audience": true}),
            "oauth_callback_failed",
            "did not work",
            "clinic",
            &["another client"],
        ),
        trouble(
            json!({"wrong_id_token_issuer": true}),
            "oauth_callback_failed",
            "did not work",
            "clinic",
            &["another issuer"],
        ),
        trouble(
            json!({"wrong_nonce": true}),
            "oauth_callback_failed",
            "did not work",
            "clinic",
            &["another launch"],
        ),
        trouble(
            json!({"authorize_iss": "wrong"}),
            "oauth_callback_failed",
            "did not work",
            "clinic",
            &["`iss`"],
        ),
    ];
    for Trouble { faults, code, page, who, staff } in troubles {
        app.hospital.well().await;
        app.hospital.faults(faults.clone()).await;
        // Each case is a patient of its own, and discovery is read anew where it is spoilt.
        let (link, _) = app.session("amy-7").await;
        let shown = app.journey(&mut Browser::default(), &link).await;
        let text = visible(&shown.text);
        assert_eq!(shown.status, 200, "{faults}: {text}");
        assert!(text.contains(page) && text.contains(who), "{faults}: `{page}`, `{who}` in: {text}");
        let reference = shown.reference();
        // Its letters are drawn by lot, and now and then spell something.
        let words = text.replace(&reference, "").to_lowercase();
        for word in JARGON {
            assert!(!words.contains(word), "{faults}: `{word}` in: {text}");
        }
        let command = Command::Incident { reference: reference.clone() };
        let incident =
            execute(app.app().parts(), command).await.unwrap_or_else(|error| panic!("{faults}: {error}"));
        let told = incident["what_happened"].as_str().expect("text");
        for word in staff {
            assert!(told.contains(word), "{faults}: `{word}` in: {told}");
        }
        assert!(told.contains("Who acts"), "{faults}: {told}");
        assert_eq!(incident["code"], code, "{faults}: {told}");
        let log = logged();
        let written = log
            .lines()
            .find(|line| line.contains(&reference))
            .unwrap_or_else(|| panic!("{reference} in the log"));
        assert!(written.contains(code), "{written}");
        let connection = app.connection("amy-7").await;
        assert_eq!(
            (&connection["status"], &connection["failure_code"]),
            (&json!("failed"), &json!(code)),
            "{faults}"
        );
        app.clock.advance(std::time::Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_hospital_without_discovery_is_told_before_leaving() {
    for (faults, code, words) in [
        (json!({"smart_configuration": "missing"}), "source_unavailable", "did not let us in"),
        (json!({"smart_configuration": "html"}), "", ""),
        (json!({"smart_configuration": "half-json"}), "", ""),
        (json!({"smart_configuration": "huge"}), "", ""),
    ] {
        let app = TestApp::start().await;
        app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
        app.hospital.faults(faults.clone()).await;
        let (link, _) = app.session("amy-7").await;
        let page = app.journey(&mut Browser::default(), &link).await;
        if code.is_empty() {
            // The CapabilityStatement still says where to go.
            assert!(page.text.contains("Connected to"), "{faults}: {}", page.text);
        } else {
            assert!(page.text.contains(words), "{faults}: {}", page.text);
            assert_eq!(app.connection("amy-7").await["failure_code"], code);
        }
    }
    for faults in [
        json!({"smart_configuration": "relative-urls"}),
        json!({"smart_configuration": "no-pkce"}),
        json!({"capability_statement_only": true}),
    ] {
        let app = TestApp::start().await;
        app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
        app.hospital.faults(faults.clone()).await;
        let (link, _) = app.session("amy-7").await;
        let page = app.journey(&mut Browser::default(), &link).await;
        assert!(page.text.contains("Connected to"), "{faults}: {}", page.text);
    }
}

#[tokio::test]
async fn a_silent_hospital_costs_a_bounded_time() {
    let settings = vec![("outbound.timeout", "1s"), ("outbound.connect_timeout", "1s")];
    let app = TestApp::with(Setup { settings, ..Setup::default() }).await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    for faults in [json!({"smart_configuration": "hang"}), json!({"token_endpoint": "hang"})] {
        app.hospital.well().await;
        app.hospital.faults(faults.clone()).await;
        let (link, _) = app.session("amy-7").await;
        let page = app.journey(&mut Browser::default(), &link).await;
        assert!(page.text.contains("not answering"), "{faults}: {}", page.text);
        assert_eq!(app.connection("amy-7").await["failure_code"], "source_unavailable", "{faults}");
        app.clock.advance(std::time::Duration::from_hours(2));
    }
}

#[tokio::test]
async fn a_wrong_redirect_uri_or_client_stays_at_the_hospital_with_its_own_page() {
    // Nothing comes back to us, because a hospital redirects nowhere before it knows where to: its page has to do.
    let app = TestApp::with(Setup {
        client: |client| chartgate::sandbox::RegisteredClient {
            redirect_uris: vec!["https://other.example/cb".to_owned()],
            ..client
        },
        ..Setup::default()
    })
    .await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    let (link, session) = app.session("amy-7").await;
    let page = app.journey(&mut Browser::default(), &link).await;
    assert!(
        page.url.contains("/authorize") && page.text.contains("redirect-uri-not-registered"),
        "{}",
        page.text
    );
    let stored = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
    assert_eq!((&stored["status"], &stored["connections"]), (&json!("open"), &json!([])));
}

#[tokio::test]
async fn a_key_that_is_published_late_costs_a_warning_and_no_connection() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    app.hospital.faults(json!({"id_token_unpublished_kid": 50})).await;
    let (link, _) = app.session("amy-7").await;
    let page = app.journey(&mut Browser::default(), &link).await;
    assert!(page.text.contains("Connected to"), "{}", page.text);
    // Without `patient` beside it the token's claims would have been needed.
    app.hospital.faults(json!({"drop_patient": true})).await;
    let (link, _) = app.session("ben-3").await;
    app.journey(&mut Browser::default(), &link).await;
    assert_eq!(app.connection("ben-3").await["failure_code"], "missing_patient_context");
}

#[tokio::test]
async fn the_patient_is_found_by_fhir_user_when_the_token_names_none() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    app.hospital.faults(json!({"drop_patient": true})).await;
    app.connected("amy-7", &user.username).await;
    let records = app.records("amy-7", "type=Patient").await;
    assert_eq!(records[0]["resource"]["id"], user.patient.as_str());
}

#[tokio::test]
async fn what_was_not_shared_is_named_and_the_rest_arrives() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    let choice = json!({"username": user, "deny_scopes": ["Observation", "Immunization"]});
    app.hospital.control("POST", "auto-approve", &choice).await;
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    let page = app.journey(&mut browser, &link).await;
    let text = visible(&page.text);
    assert!(
        text.contains("with gaps") && text.contains("Vaccines") && text.contains("Results and measurements"),
        "{text}"
    );
    app.pulls_done().await;
    assert!(app.records("amy-7", "type=Observation,Immunization").await.is_empty());
    assert!(!app.records("amy-7", "type=Condition").await.is_empty());
    let scopes = app.connection("amy-7").await["scopes"].to_string();
    assert!(!scopes.contains("Observation") && scopes.contains("Condition"), "{scopes}");
    assert_eq!(app.hospital.count("fhir.Observation.").await, 0, "what was not shared is not even asked for");

    // Trying again with all boxes ticked closes the gaps on the same connection.
    app.hospital.agrees(&user).await;
    let page = app.journey(&mut browser, &link).await;
    assert!(!visible(&page.text).contains("with gaps"), "{}", visible(&page.text));
    app.pulls_done().await;
    assert!(!app.records("amy-7", "type=Observation").await.is_empty());
}

#[tokio::test]
async fn unknown_finished_and_expired_links_say_so() {
    let app = TestApp::start().await;
    let unknown = Browser::default().get(&format!("{}/c/00000000000000000000000000000000", app.origin)).await;
    assert_eq!(unknown.status, 404);
    let (link, _) = app.session("amy-7").await;
    app.clock.advance(std::time::Duration::from_mins(31));
    let expired = Browser::default().get(&link).await;
    assert!(expired.status == 410 && expired.text.contains("expired"), "{}", expired.text);
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    browser.post(&format!("{link}/done"), &[]).await;
    let launch = browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    assert_eq!(launch.status, 410);
    let page = browser.get(&link).await;
    assert_eq!(page.status, 303, "a finished session shows how it ended");
}
