//! The history of a connection, as staff and apps read it: `GET /patients/{id}/auth-events`.

use std::time::Duration;

use chartgate::config::Environment;
use chartgate::workspaces::NewApiKeyTerms;
use serde_json::{Value, json};

use crate::support::{Browser, TestApp};

async fn read(app: &TestApp, path: &str) -> Vec<Value> {
    let page = app.api("GET", path, Value::Null).await.ok();
    page["data"].as_array().expect("a list").clone()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().expect("a kind")).collect()
}

#[tokio::test]
async fn every_step_of_a_launch_is_there_newest_first() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    let connection = app.connected("amy-7", &user).await;
    let events = read(&app, "/patients/amy-7/auth-events").await;
    assert_eq!(kinds(&events), ["issued", "returned", "redirected"]);
    let issued = &events[0];
    let keys: Vec<&str> = issued.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = [
        "at",
        "code",
        "connection",
        "correlation_id",
        "description",
        "details",
        "event",
        "reference",
        "resource_type",
        "source",
        "source_name",
    ];
    assert_eq!(keys, expected);
    assert_eq!((&issued["resource_type"], &issued["connection"]), (&json!("auth_event"), &json!(connection)));
    assert_eq!(
        (&issued["source_name"], &issued["source"]),
        (&json!("Mercy Hospital"), &json!(app.source.to_string()))
    );
    assert_eq!(issued["details"], json!({"refreshable": true}));
}

#[tokio::test]
async fn a_failure_has_the_code_and_the_reference_that_the_patient_was_shown() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    app.hospital.agrees(&user).await;
    let urn = "urn:cerner:error:authorization-server:oauth2:token:code-invalid-or-expired";
    app.hospital.faults(json!({"token_error": {"error": "invalid_grant", "urn": urn}})).await;
    let (link, _) = app.session("amy-7").await;
    let page = app.journey(&mut Browser::default(), &link).await;
    let events = read(&app, "/patients/amy-7/auth-events").await;
    assert_eq!(kinds(&events), ["failed", "returned", "redirected"]);
    let connection = app.connection("amy-7").await;
    assert_eq!(events[0]["reference"], json!(page.reference()));
    assert_eq!(events[0]["code"], connection["failure_code"]);
    assert!(events[0]["description"].as_str().is_some_and(|text| text.contains("Who acts")), "{}", events[0]);
    assert_eq!(events[1]["reference"], Value::Null);
}

#[tokio::test]
async fn it_is_read_page_by_page_of_one_connection_or_of_all_and_by_its_own_workspace() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    let connection = app.connected("amy-7", &user).await;
    app.hospital.control("POST", "auto-approve", &json!({"username": user, "deny": true})).await;
    for _ in 0..3 {
        app.clock.advance(Duration::from_secs(1));
        let (link, _) = app.session("amy-7").await;
        app.journey(&mut Browser::default(), &link).await;
    }
    let all = read(&app, "/patients/amy-7/auth-events?limit=100").await;
    assert_eq!(all.len(), 12);
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/patients/amy-7/auth-events?limit=5{cursor}");
        let page = app.api("GET", &path, Value::Null).await.ok();
        paged.extend(page["data"].as_array().expect("a list").clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&starting_after={next}");
    }
    assert_eq!(paged, all);
    let one = read(&app, &format!("/patients/amy-7/auth-events?connection={connection}")).await;
    assert_eq!(kinds(&one), ["issued", "returned", "redirected"]);

    app.session("ben-3").await;
    for (path, status) in [
        ("/patients/nobody/auth-events".to_owned(), 404),
        (format!("/patients/ben-3/auth-events?connection={connection}"), 404),
        ("/patients/amy-7/auth-events?connection=conn_x".to_owned(), 404),
        ("/patients/amy-7/auth-events?limit=0".to_owned(), 400),
        ("/patients/amy-7/auth-events?starting_after=x".to_owned(), 400),
    ] {
        assert_eq!(app.api("GET", &path, Value::Null).await.status, status, "{path}");
    }
    let parts = app.app().parts();
    let stranger = parts.workspaces.ensure("stranger", Environment::Sandbox).await.expect("made");
    let key = parts.api_keys.create(&stranger, "test", NewApiKeyTerms::default()).await.expect("a key");
    let answer = app.api_as(key.text.expose(), "GET", "/patients/amy-7/auth-events", Value::Null).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn it_is_erased_with_its_patient() {
    use chartgate::store::{Range, Reader as _, StoreError, Table};
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let rows = || async {
        let table: Table<()> = Table::new("connection_history.v1");
        let read = app.app().parts().store.read(move |view| view.keys(table, &Range::of(b"")));
        read.await.map_err(|error: StoreError| error).expect("read").len()
    };
    assert!(rows().await >= 3);
    app.api("DELETE", "/patients/amy-7", Value::Null).await.ok();
    assert_eq!(rows().await, 0);
}
