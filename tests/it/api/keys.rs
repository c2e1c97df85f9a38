//! What keys may do, how often, and what becomes of them.

use std::time::Duration;

use chartgate::api::OPERATIONS;
use chartgate::workspaces::{ApiKeyState, KeyScope, NewApiKeyTerms, ResourceType};
use serde_json::{Value, json};

use super::{common, refused};
use crate::support::{Page, Setup, TestApp, send};

async fn key(app: &TestApp, scopes: Option<Vec<KeyScope>>) -> String {
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    let terms = NewApiKeyTerms { scopes, ..NewApiKeyTerms::default() };
    parts.api_keys.create(&workspace, "narrow", terms).await.expect("a key").text.expose().to_owned()
}

async fn from(app: &TestApp, key: &str, forwarded: &str) -> Page {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("x-forwarded-for", forwarded)];
    send("GET", &format!("{}/patients", app.origin), &headers, "").await
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_nothing_else() {
    let app = TestApp::start().await;
    for scope in KeyScope::ALL {
        let narrow = key(&app, Some(vec![scope])).await;
        for row in OPERATIONS.iter().filter(|row| row.scope.is_some()) {
            let path = row.path.replace("{id}", "nobody").replace("{connection_id}", "conn_x");
            let page = app.api_as(&narrow, row.method.as_str(), &path, Value::Null).await;
            if row.scope == Some(scope) {
                assert_ne!(page.status, 403, "{scope} {}", row.id);
            } else {
                if row.path.starts_with("/fhir/") {
                    // The live proxy says it as FHIR does.
                    let outcome = page.json();
                    assert_eq!((page.status, &outcome["resourceType"]), (403, &"OperationOutcome".into()));
                } else {
                    refused(&page, 403, "insufficient_scope", None);
                }
                assert!(page.text.contains(row.scope.expect("some").as_str()), "it names what is missing");
            }
        }
    }
    let nothing = key(&app, Some(Vec::new())).await;
    refused(&app.api_as(&nothing, "GET", "/patients", Value::Null).await, 403, "insufficient_scope", None);
    assert_eq!(app.api_as(&key(&app, None).await, "GET", "/patients", Value::Null).await.status, 200);
}

#[tokio::test]
async fn a_key_for_some_types_sees_no_others_in_what_is_stored() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    let only = async |names: &[&str]| {
        let types = names.iter().map(|name| ResourceType::parse(name).expect("a type")).collect();
        let terms = NewApiKeyTerms { fhir_types: Some(types), ..NewApiKeyTerms::default() };
        parts.api_keys.create(&workspace, "some", terms).await.expect("a key").text.expose().to_owned()
    };
    let some = only(&["Condition", "Immunization"]).await;
    let call = async |key: &str, path: &str| {
        app.api_as(key, "GET", &format!("/patients/amy-7/records{path}"), Value::Null).await
    };
    for path in ["?type=Observation", "?type=Condition,Patient", "/export?type=Observation"] {
        refused(&call(&some, path).await, 403, "insufficient_scope", None);
    }
    let page = call(&some, "").await.ok();
    let rows = page["data"].as_array().expect("a list");
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["resource"]["resourceType"].as_str()).collect();
    assert!(kinds.contains(&"Condition") && !kinds.is_empty(), "{kinds:?}");
    assert!(kinds.iter().all(|kind| ["Condition", "Immunization"].contains(kind)), "{kinds:?}");
    let lines = call(&some, "/export").await.text;
    assert_eq!(lines.lines().count(), kinds.len());
    assert_eq!(call(&some, "?type=Condition").await.status, 200);
    let none = only(&[]).await;
    for path in ["", "/export"] {
        refused(&call(&none, path).await, 403, "insufficient_scope", None);
    }
}

#[tokio::test]
async fn a_revoked_key_is_dead_at_once_and_an_ended_one_at_its_end() {
    let app = TestApp::start().await;
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    let end = app.clock.now().after(Duration::from_hours(24));
    let terms = NewApiKeyTerms { expires_at: Some(end), ..NewApiKeyTerms::default() };
    let ending = parts.api_keys.create(&workspace, "ending", terms).await.expect("a key");
    let revoked =
        parts.api_keys.create(&workspace, "revoked", NewApiKeyTerms::default()).await.expect("a key");
    let call = async |key: &str| app.api_as(key, "GET", "/patients", Value::Null).await;
    for key in [&ending, &revoked] {
        assert_eq!(call(key.text.expose()).await.status, 200, "in memory from here on");
    }
    assert!(parts.api_keys.revoke(workspace.id, revoked.key.id).await.expect("written"));
    refused(&call(revoked.text.expose()).await, 401, "invalid_api_key", None);
    app.clock.advance(Duration::from_hours(24) - Duration::from_millis(1));
    assert_eq!(call(ending.text.expose()).await.status, 200);
    app.clock.advance(Duration::from_millis(1));
    refused(&call(ending.text.expose()).await, 401, "expired_api_key", None);
    let listed = parts.api_keys.list(workspace.id).await.expect("read");
    let state = |name: &str| {
        let (key, _) = listed.iter().find(|(key, _)| key.name == name).expect("there");
        key.state(app.clock.now())
    };
    assert_eq!(state("ending"), ApiKeyState::Expired);
    assert_eq!(state("revoked"), ApiKeyState::Revoked);
    assert_eq!(state("test"), ApiKeyState::Active);
}

#[tokio::test]
async fn a_revocation_that_meets_a_request_wins() {
    let app = TestApp::start().await;
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    for round in 0..20 {
        let new = parts.api_keys.create(&workspace, "short", NewApiKeyTerms::default()).await.expect("a key");
        let text = new.text.expose();
        // The key is read from the store and revoked at the same time; whichever comes first, it is dead afterwards.
        let (_, revoked) =
            tokio::join!(parts.api_keys.authenticate(text), parts.api_keys.revoke(workspace.id, new.key.id));
        assert!(revoked.expect("written"));
        assert!(parts.api_keys.authenticate(text).await.is_err(), "round {round}");
    }
}

#[tokio::test]
async fn the_last_use_is_known_and_costs_one_write_a_minute() {
    let mut app = TestApp::start().await;
    let last = async |app: &TestApp| {
        let parts = app.app().parts();
        let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
        parts.api_keys.list(workspace.id).await.expect("read")[0].1
    };
    assert_eq!(last(&app).await, None);
    app.api("GET", "/patients", Value::Null).await.ok();
    assert_eq!(last(&app).await, Some(app.clock.now()));
    let settled = async |app: &TestApp| {
        // The write is behind the answer; one more write is behind it.
        app.api("POST", "/patients", json!({"patient_id": app.clock.now().to_string()})).await.ok();
        app.app().parts().store.commits()
    };
    let before = settled(&app).await;
    for second in 1..=59 {
        app.clock.advance(Duration::from_secs(1));
        app.api("GET", "/patients", Value::Null).await.ok();
        assert_eq!(last(&app).await, Some(app.clock.now()), "{second}: in memory");
    }
    assert_eq!(settled(&app).await, before + 1, "only the patient of `settled` itself");
    app.clock.advance(Duration::from_secs(1));
    app.api("GET", "/patients", Value::Null).await.ok();
    let noted = app.clock.now();
    app.restart().await;
    assert_eq!(last(&app).await, Some(noted), "a minute after the first it is written again");
}

#[tokio::test]
async fn every_answer_says_what_is_left_and_too_many_are_told_when_to_come_back() {
    let settings = vec![("api.rate", "2"), ("api.burst", "5")];
    let app = TestApp::with(Setup { settings, ..Setup::default() }).await;
    let call = async |path: &str| app.api("GET", path, Value::Null).await;
    for (left, path) in
        (0..5).rev().zip(["/patients", "/patients/nobody", "/patients?limit=0", "/patients", "/connections"])
    {
        let page = call(path).await;
        assert_ne!(page.status, 429);
        assert_eq!(page.header("ratelimit-policy"), Some("\"key\";q=5;w=3"), "{path}");
        assert!(
            page.header("ratelimit").is_some_and(|it| it.starts_with(&format!("\"key\";r={left};t="))),
            "{path}"
        );
    }
    let page = call("/patients").await;
    refused(&page, 429, "throttled", None);
    assert_eq!(page.header("retry-after"), Some("1"), "whole seconds, at least one");
    assert_eq!(page.header("ratelimit"), Some("\"key\";r=0;t=3"));
    assert_eq!(
        app.api_as(&key(&app, None).await, "GET", "/patients", Value::Null).await.status,
        200,
        "another key"
    );
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(call("/patients").await.status, 200);
    assert_eq!(call("/patients").await.status, 200);
    assert_eq!(call("/patients").await.status, 429);
    assert_eq!(send("GET", &format!("{}/health", app.origin), &[], "").await.status, 200, "it needs no key");
}

#[tokio::test]
async fn whoever_guesses_keys_has_to_wait_and_nobody_else() {
    let settings = vec![("api.wrong_keys", "3"), ("listen.public.trusted_proxies", "127.0.0.1")];
    let app = TestApp::with(Setup { settings, ..Setup::default() }).await;
    let fresh = key(&app, None).await;
    assert_eq!(from(&app, &app.key, "203.0.113.7").await.status, 200);
    for _ in 0..3 {
        refused(&from(&app, "mb_sk_sbx_guess", "203.0.113.7").await, 401, "invalid_api_key", None);
    }
    let page = from(&app, "mb_sk_sbx_guess", "198.51.100.1, 203.0.113.7").await;
    refused(&page, 429, "throttled", None);
    assert_eq!(page.header("retry-after"), Some("20"), "three a minute");
    common(&page);
    assert_eq!(from(&app, &fresh, "203.0.113.7").await.status, 429, "not even a good guess is told");
    assert_eq!(from(&app, &app.key, "203.0.113.7").await.status, 200, "a key in use goes on working");
    refused(&from(&app, "mb_sk_sbx_guess", "203.0.113.8").await, 401, "invalid_api_key", None);
    app.clock.advance(Duration::from_secs(20));
    assert_eq!(from(&app, &fresh, "203.0.113.7").await.status, 200);
}
