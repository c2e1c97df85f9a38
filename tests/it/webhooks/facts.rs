//! What is told, when, and in which words.

use std::time::Duration;

use serde_json::{Value, json};

use super::endpoints::rows_of_events;
use super::{done, endpoint, records, told_everything, until};
use crate::support::{Browser, Reaction, Receiver, TestApp};

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_finished_journey_is_told_with_the_session_as_the_api_shows_it() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    let session = done(&app, "amy-7").await;
    let delivery = receiver.next().await;
    assert_eq!(delivery.path, "/hooks");
    assert_eq!(delivery.header("content-type"), "application/json");
    let body = delivery.json();
    assert_eq!(keys(&body), ["api_version", "created_at", "data", "id", "object", "type"]);
    assert_eq!((&body["object"], &body["type"]), (&json!("event"), &json!("patient_session.completed")));
    assert_eq!(body["api_version"], "2026-04-25");
    assert_eq!(keys(&body["data"]), ["object"]);
    let shown = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
    assert_eq!(body["data"]["object"], shown);
    assert_eq!(shown["status"], "complete");

    let listed = app.api("GET", &format!("/webhooks/{id}/events"), Value::Null).await.ok();
    let record = &listed["data"][0];
    let expected = [
        "api_version",
        "attempts",
        "created_at",
        "data",
        "delivered_at",
        "id",
        "last_redelivered_at",
        "last_response_body",
        "last_status_code",
        "next_attempt_at",
        "resource_type",
        "type",
        "webhook_endpoint_id",
    ];
    assert_eq!(keys(record), expected);
    assert_eq!((&record["id"], &record["data"]), (&body["id"], &body["data"]));
    assert_eq!((&record["resource_type"], &record["webhook_endpoint_id"]), (&json!("event"), &json!(id)));
}

#[tokio::test]
async fn a_journey_is_told_once_however_often_its_patient_is_done() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    let (link, _) = app.session("amy-7").await;
    for _ in 0..3 {
        Browser::default().post(&format!("{link}/done"), &[]).await;
    }
    receiver.next().await;
    assert_eq!(records(&app, &id).await.len(), 1);
}

#[tokio::test]
async fn a_direct_journey_is_told_when_the_hospital_sends_the_patient_back_well_or_not() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    endpoint(&app, &receiver.url, &["patient_session.completed"]).await;
    let user = app.hospital.users()[0].username.clone();
    app.hospital.agrees(&user).await;
    let (link, session) = app.direct("amy-7").await;
    let mut browser = Browser::default();
    browser.get(&link).await;
    browser.until("shop.example").await;
    let told = receiver.next().await.json()["data"]["object"].clone();
    assert_eq!((&told["id"], &told["connections"][0]["status"]), (&json!(session), &json!("active")));
    assert!(told["connections"][0]["id"].as_str().is_some_and(|id| id.starts_with("conn_")));

    app.hospital.control("POST", "auto-approve", &json!({"username": user, "deny": true})).await;
    let (link, session) = app.direct("ben-3").await;
    let mut browser = Browser::default();
    browser.get(&link).await;
    browser.until("shop.example").await;
    let told = receiver.next().await.json()["data"]["object"].clone();
    let attempt = &told["connections"][0];
    assert_eq!((&told["id"], &told["status"]), (&json!(session), &json!("complete")));
    assert_eq!((&attempt["id"], &attempt["status"]), (&Value::Null, &json!("failed")));
    assert_eq!(attempt["failure_code"], "user_denied");
}

#[tokio::test]
async fn a_pull_that_brought_records_is_told_and_the_death_of_a_refresh_token_too() {
    let app = TestApp::start().await;
    let (receiver, _, _) = told_everything(&app).await;
    let user = app.hospital.users()[0].username.clone();
    let connection = app.connected("amy-7", &user).await;
    let told = receiver.next().await;
    assert_eq!(told.kind(), "records.sync.completed", "a picker's journey has not ended yet");
    let object = &told.json()["data"]["object"];
    let expected =
        ["changed", "connection_id", "duration_ms", "errors", "patient_id", "resource_type", "total"];
    assert_eq!(keys(object), expected);
    assert_eq!((&object["patient_id"], &object["errors"]), (&json!("amy-7"), &json!(0)));
    assert_eq!(object["connection_id"], json!(app.source.to_string()));
    assert!(object["total"].as_u64() > Some(15), "{object}");

    app.clock.advance(Duration::from_secs(570));
    app.hospital.faults(json!({"token_error": {"error": "invalid_grant"}})).await;
    let id = chartgate::id::Id::parse(&connection).expect("an id");
    app.app()
        .parts()
        .grants
        .access(id, chartgate::events::history::RefreshedBy::Proxy)
        .await
        .expect_err("the hospital refuses");
    let told = receiver.next().await;
    assert_eq!(told.kind(), "connection.token_refresh_failed");
    let object = &told.json()["data"]["object"];
    let expected =
        ["connection_id", "created_at", "failure_at", "failure_code", "id", "patient_id", "status"];
    assert_eq!(keys(object), expected);
    assert_eq!((&object["id"], &object["status"]), (&json!(connection), &json!("refresh_failed")));
    assert_eq!(
        (&object["connection_id"], &object["patient_id"]),
        (&json!(app.source.to_string()), &json!("amy-7"))
    );
}

#[tokio::test]
async fn a_pull_that_brought_nothing_is_told_as_failed() {
    let app = TestApp::start().await;
    let (receiver, _, _) = told_everything(&app).await;
    app.hospital.faults(json!({"fhir": {"*": {"status": 500}}})).await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let told = receiver.next().await;
    assert_eq!(told.kind(), "records.sync.failed");
    let object = &told.json()["data"]["object"];
    assert_eq!(keys(object), ["connection_id", "error_message", "patient_id", "resource_type"]);
    assert!(object["error_message"].as_str().is_some_and(|text| text.len() > 10), "{object}");
}

#[tokio::test]
async fn kinds_of_our_own_are_told_to_who_asks_for_them_by_name_only() {
    let app = TestApp::start().await;
    let (everything, all, _) = told_everything(&app).await;
    let receiver = Receiver::start().await;
    let own = ["chartgate.connection.active", "chartgate.connection.failed", "chartgate.connection.ended"];
    endpoint(&app, &receiver.url, &own).await;
    let user = app.hospital.users()[0].username.clone();
    let connection = app.connected("amy-7", &user).await;
    let told = receiver.next().await;
    assert_eq!(told.kind(), own[0]);
    let object = told.json()["data"]["object"].clone();
    assert_eq!((&object["id"], &object["patient_id"]), (&json!(connection), &json!("amy-7")));
    app.api("DELETE", &format!("/patients/amy-7/connections/{connection}"), Value::Null).await.ok();
    app.api("DELETE", &format!("/patients/amy-7/connections/{connection}"), Value::Null).await.ok();
    let told = receiver.next().await;
    assert_eq!(
        (told.kind().as_str(), &told.json()["data"]["object"]["status"]),
        (own[2], &json!("disconnected"))
    );
    app.hospital.faults(json!({"token_error": {"error": "invalid_client"}})).await;
    let (link, _) = app.session("ben-3").await;
    app.journey(&mut Browser::default(), &link).await;
    assert_eq!(receiver.next().await.kind(), own[1], "and the end was told once");
    assert_eq!(everything.next().await.kind(), "records.sync.completed");
    assert_eq!(records(&app, &all).await.len(), 1, "a star means the contract's kinds");
}

#[tokio::test]
async fn five_kinds_of_the_contract_leave_room_for_ours() {
    let app = TestApp::start().await;
    let contract = [
        "*",
        "patient_session.completed",
        "connection.token_refresh_failed",
        "records.sync.completed",
        "records.sync.failed",
    ];
    let ours = ["chartgate.connection.active", "chartgate.connection.gaps"];
    endpoint(&app, "https://app.example/", &[&contract[..], &ours].concat()).await;
}

#[tokio::test]
async fn what_is_missing_from_a_connection_is_told_by_name() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    endpoint(&app, &receiver.url, &["chartgate.connection.gaps"]).await;
    app.hospital.faults(json!({"narrow_scopes": ["Patient", "Condition"]})).await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let told = receiver.next().await.json()["data"]["object"].clone();
    let missing = told["missing"].as_array().expect("a list");
    assert!(missing.contains(&json!("Observation")) && !missing.contains(&json!("Condition")), "{told}");
}

#[tokio::test]
async fn an_erased_patient_is_not_told_of_any_more() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    receiver.reacts(Reaction::Status(500));
    done(&app, "amy-7").await;
    done(&app, "ben-3").await;
    until(&app, &id, |events| events.iter().all(|record| record.event.attempts == 1)).await;
    let before = rows_of_events(&app).await;
    app.api("DELETE", "/patients/amy-7", Value::Null).await.ok();
    let left = records(&app, &id).await;
    assert_eq!(left.len(), 1);
    assert!(left[0].data.contains("ben-3"));
    assert_eq!(rows_of_events(&app).await, before / 2);
    receiver.next_kinds(2).await;
    receiver.reacts(Reaction::Status(200));
    app.clock.advance(Duration::from_mins(1));
    assert!(receiver.next().await.body.contains("ben-3"));
    until(&app, &id, |events| events[0].event.delivered_at.is_some()).await;
    assert!(receiver.is_quiet().await);
}
