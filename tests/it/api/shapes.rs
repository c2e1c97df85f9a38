//! Every object of the contract: its members, their kinds, and what is null when.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{common, get, has_exactly, has_form, is_id, is_time};
use crate::support::{Browser, TestApp, send};

const PATIENT: [&str; 6] = ["id", "resource_type", "email", "name", "metadata", "created_at"];
const SESSION: [&str; 13] = [
    "id",
    "resource_type",
    "status",
    "url",
    "patient_id",
    "connection_id",
    "recommended_connection_ids",
    "return_url",
    "return_button_label",
    "connections",
    "expires_at",
    "created_at",
    "metadata",
];

fn is_page(list: &Value) -> &Vec<Value> {
    has_exactly(list, &["resource_type", "data", "has_more", "next_cursor"]);
    assert_eq!(list["resource_type"], "list");
    assert_eq!(list["has_more"].as_bool(), Some(list["next_cursor"].is_string()), "{list}");
    assert!(list["next_cursor"].is_string() || list["next_cursor"].is_null(), "{list}");
    list["data"].as_array().expect("a list")
}

fn is_session(session: &Value) {
    has_exactly(session, &SESSION);
    is_id(&session["id"], "ps_");
    assert_eq!(session["resource_type"], "patient_session");
    is_time(&session["expires_at"]);
    is_time(&session["created_at"]);
    assert!(session["metadata"].is_object() && session["connections"].is_array(), "{session}");
}

#[tokio::test]
async fn health_needs_no_key_and_has_two_members() {
    let app = TestApp::start().await;
    for headers in [&[][..], &[("authorization", "Bearer nonsense")], &[("version", "1999-01-01")]] {
        let page = send("GET", &format!("{}/health", app.origin), headers, "").await;
        common(&page);
        let health = page.ok();
        has_exactly(&health, &["ok", "server_time"]);
        assert_eq!(health["ok"], true);
        is_time(&health["server_time"]);
    }
}

#[tokio::test]
async fn a_patient_has_six_members_wherever_it_is_shown_and_nulls_where_nothing_is_known() {
    let app = TestApp::start().await;
    let bare =
        app.api("POST", "/patients", json!({"patient_id": "amy-7", "colour": "unknown keys do not matter"}));
    let bare = bare.await.ok();
    has_exactly(&bare, &PATIENT);
    assert_eq!(
        (&bare["id"], &bare["resource_type"], &bare["email"], &bare["name"], &bare["metadata"]),
        (&json!("amy-7"), &json!("patient"), &Value::Null, &Value::Null, &json!({}))
    );
    assert_eq!(bare["created_at"], "2026-11-02T08:00:00.000Z");
    is_time(&bare["created_at"]);
    let metadata = json!({"a": {"b": [1, 2.5, null, "ü"]}, "": false});
    let full = json!({"patient_id": "ben", "email": "ben@x.example", "name": "Ben", "metadata": metadata});
    let full = app.api("POST", "/patients", full).await.ok();
    has_exactly(&full, &PATIENT);
    assert_eq!(
        (&full["email"], &full["name"], &full["metadata"]),
        (&json!("ben@x.example"), &json!("Ben"), &metadata)
    );
    for patient in is_page(&get(&app, "/patients").await) {
        has_exactly(patient, &PATIENT);
    }
    let detail = get(&app, "/patients/ben").await;
    let mut keys = PATIENT.to_vec();
    keys.push("connections");
    has_exactly(&detail, &keys);
    assert_eq!((&detail["connections"], &detail["metadata"]), (&json!([]), &metadata));
    let replaced = app.api("PUT", "/patients/ben", json!({"patient_id": "ben"})).await.ok();
    has_exactly(&replaced, &PATIENT);
    let gone = app.api("DELETE", "/patients/ben", Value::Null).await;
    common(&gone);
    assert_eq!(gone.ok(), json!({"id": "ben", "resource_type": "patient", "deleted": true}));
}

#[tokio::test]
async fn connections_are_large_on_a_patient_and_small_in_a_session() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    app.hospital.agrees(&user).await;
    let (link, session_id) = app.session("amy-7").await;
    app.hospital.faults(json!({"token_error": {"error": "invalid_client"}})).await;
    app.journey(&mut Browser::default(), &link).await;
    app.hospital.well().await;
    app.clock.advance(std::time::Duration::from_secs(5));
    let connection = app.connected("amy-7", &user).await;

    let detail = get(&app, "/patients/amy-7").await;
    let connections = detail["connections"].as_array().expect("a list");
    assert_eq!(connections.len(), 2, "failed attempts included: {detail}");
    for connection in connections {
        has_exactly(
            connection,
            &[
                "id",
                "resource_type",
                "patient_session_id",
                "connection_id",
                "status",
                "scopes",
                "failure_code",
                "failure_at",
                "created_at",
                "updated_at",
            ],
        );
        is_id(&connection["id"], "conn_");
        is_id(&connection["patient_session_id"], "ps_");
        assert_eq!(connection["connection_id"], json!(app.source.to_string()), "the source's id");
        assert_eq!(connection["resource_type"], "connection");
        is_time(&connection["created_at"]);
        is_time(&connection["updated_at"]);
        assert!(
            connection["scopes"].as_array().expect("a list").iter().all(Value::is_string),
            "{connection}"
        );
    }
    let (new, old) = (&connections[0], &connections[1]);
    assert_eq!((&new["status"], &new["id"]), (&json!("active"), &json!(connection)), "newest first");
    assert_eq!((&new["failure_code"], &new["failure_at"]), (&Value::Null, &Value::Null));
    assert!(!new["scopes"].as_array().expect("a list").is_empty());
    assert_eq!((&old["status"], &old["patient_session_id"]), (&json!("failed"), &json!(session_id)));
    assert!(old["failure_code"].is_string(), "{old}");
    is_time(&old["failure_at"]);

    let small = ["id", "connection_id", "status", "failure_code", "failure_at", "created_at"];
    let failed = get(&app, &format!("/patient-sessions/{session_id}")).await;
    is_session(&failed);
    assert_eq!(failed["connections"].as_array().map(Vec::len), Some(1));
    let attempt = &failed["connections"][0];
    has_exactly(attempt, &small);
    assert_eq!((&attempt["id"], &attempt["status"]), (&Value::Null, &json!("failed")));
    assert_eq!(attempt["failure_code"], old["failure_code"]);
    is_time(&attempt["failure_at"]);
    is_time(&attempt["created_at"]);
    let good =
        get(&app, &format!("/patient-sessions/{}", new["patient_session_id"].as_str().expect("an id"))).await;
    let attempt = &good["connections"][0];
    has_exactly(attempt, &small);
    assert_eq!((&attempt["id"], &attempt["status"]), (&json!(connection), &json!("active")));
    assert_eq!((&attempt["failure_code"], &attempt["failure_at"]), (&Value::Null, &Value::Null));

    let path = format!("/patients/amy-7/connections/{connection}");
    let gone = app.api("DELETE", &path, Value::Null).await;
    common(&gone);
    assert_eq!(gone.ok(), json!({"id": connection, "resource_type": "connection", "disconnected": true}));
    assert_eq!(app.connection("amy-7").await["status"], "disconnected");
    for wrong in [app.source.to_string(), "conn_1".to_owned(), session_id] {
        let path = format!("/patients/amy-7/connections/{wrong}");
        super::refused(&app.api("DELETE", &path, Value::Null).await, 404, "resource_not_found", None);
    }
    let path = format!("/patients/nobody/connections/{connection}");
    super::refused(&app.api("DELETE", &path, Value::Null).await, 404, "resource_not_found", None);
}

#[tokio::test]
async fn a_session_has_thirteen_members_in_both_modes() {
    let app = TestApp::start().await;
    let source = app.source.to_string();
    let mut links = HashSet::new();
    let body = json!({"patient_id": "amy-7", "return_url": "https://shop.example/back?x=1"});
    let picker = app.api("POST", "/patient-sessions", body).await.ok();
    let body = json!({
        "patient_id": "amy-7", "return_url": "myapp://back", "connection_id": source,
        "return_button_label": "Back", "expires_in": 60, "metadata": {"cart": "k19"},
    });
    let direct = app.api("POST", "/patient-sessions", body).await.ok();
    let body = json!({
        "patient_id": "amy-7", "return_url": "https://shop.example",
        "recommended_connection_ids": [app.hospital.base, source],
    });
    let recommended = app.api("POST", "/patient-sessions", body).await.ok();
    for session in [&picker, &direct, &recommended] {
        is_session(session);
        assert_eq!((&session["status"], &session["patient_id"]), (&json!("open"), &json!("amy-7")));
        assert_eq!(session["connections"], json!([]));
        let url = session["url"].as_str().expect("a link");
        let token = url.strip_prefix(&format!("{}/c/", app.origin)).expect("below our own address");
        assert!(has_form(token, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), "{token}");
        assert!(links.insert(url.to_owned()), "each session has its own link");
        assert_eq!(
            get(&app, &format!("/patient-sessions/{}", session["id"].as_str().expect("an id"))).await,
            *session
        );
    }
    assert_eq!((&picker["connection_id"], &picker["return_button_label"]), (&Value::Null, &Value::Null));
    assert!(picker["recommended_connection_ids"].as_array().is_some_and(Vec::is_empty), "{picker}");
    assert_eq!(
        (&picker["metadata"], &picker["return_url"]),
        (&json!({}), &json!("https://shop.example/back?x=1"))
    );
    assert_eq!(picker["created_at"], "2026-11-02T08:00:00.000Z");
    assert_eq!(picker["expires_at"], "2026-11-02T08:30:00.000Z", "half an hour when nothing is said");
    assert_eq!(
        (&direct["connection_id"], &direct["recommended_connection_ids"]),
        (&json!(source), &Value::Null)
    );
    assert_eq!(
        (&direct["metadata"], &direct["return_button_label"]),
        (&json!({"cart": "k19"}), &json!("Back"))
    );
    assert_eq!(direct["expires_at"], "2026-11-02T08:01:00.000Z");
    assert_eq!(
        recommended["recommended_connection_ids"],
        json!([source, source]),
        "ids, however they were named"
    );
    assert_eq!(recommended["return_url"], "https://shop.example", "as it was sent");
    for session in is_page(&get(&app, "/patients/amy-7/patient-sessions").await) {
        is_session(session);
    }
}

#[tokio::test]
async fn a_source_has_seven_members_and_two_names() {
    let app = TestApp::start().await;
    let list = get(&app, "/connections").await;
    let source = &is_page(&list)[0];
    has_exactly(source, &["id", "resource_type", "name", "type", "fhir_base_url", "logo_url", "portal_url"]);
    is_id(&source["id"], "fhirsrc_");
    assert_eq!(
        (&source["resource_type"], &source["name"], &source["type"]),
        (&json!("fhir_source"), &json!("Mercy Hospital"), &json!("cerner"))
    );
    assert_eq!(source["fhir_base_url"], json!(app.hospital.base));
    assert_eq!((&source["logo_url"], &source["portal_url"]), (&Value::Null, &Value::Null));
    let base = &app.hospital.base;
    assert!(base.contains('/'));
    for name in [app.source.to_string(), super::segment(base), super::segment(&format!("{base}/"))] {
        assert_eq!(get(&app, &format!("/connections/{name}")).await, *source, "{name}");
    }
    for name in ["fhirsrc_01KB2V0A7M5P9C3Q6T8X2Z4WBD", "fhirsrc_", "https%3A%2F%2Fh.example%2Fr4", "x", "%20"]
    {
        let page = app.api("GET", &format!("/connections/{name}"), Value::Null).await;
        super::refused(&page, 404, "resource_not_found", None);
    }
    let unencoded = app.api("GET", &format!("/connections/{base}"), Value::Null).await;
    assert_eq!(unencoded.status, 404, "a base URL is one segment");
}

#[tokio::test]
async fn an_unknown_launch_context_is_not_found() {
    let app = TestApp::start().await;
    for id in ["7f2c1e9a-0000-4000-8000-000000000000", "x"] {
        let page = app.api("GET", &format!("/launch-contexts/{id}"), Value::Null).await;
        super::refused(&page, 404, "resource_not_found", None);
    }
}
