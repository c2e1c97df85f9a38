//! What is accepted and refused of patient sessions, and how they end.

use std::time::Duration;

use serde_json::{Value, json};

use super::{get, refused, segment};
use crate::support::{Browser, TestApp, logged};

fn body(more: Value) -> Value {
    let mut body = json!({"patient_id": "amy-7", "return_url": "https://shop.example/back"});
    let Value::Object(more) = more else { panic!("no object: {more}") };
    for (name, value) in more {
        body[name] = value;
    }
    body
}

#[tokio::test]
async fn each_wrong_field_of_a_new_session_is_named() {
    let app = TestApp::start().await;
    let source = app.source.to_string();
    for (more, param) in [
        (json!({"colour": "red"}), "colour"),
        (json!({"email": "a@b.example"}), "email"),
        (json!({"patient_id": ""}), "patient_id"),
        (json!({"patient_id": null}), "patient_id"),
        (json!({"patient_id": "evt_1"}), "patient_id"),
        (json!({"return_url": "/back"}), "return_url"),
        (json!({"return_url": "javascript:alert(1)"}), "return_url"),
        (json!({"return_url": null}), "return_url"),
        (json!({"patient_email": "x"}), "patient_email"),
        (json!({"patient_email": null}), "patient_email"),
        (json!({"patient_name": null}), "patient_name"),
        (json!({"connection_id": ""}), "connection_id"),
        (json!({"connection_id": null}), "connection_id"),
        (json!({"recommended_connection_ids": null}), "recommended_connection_ids"),
        (json!({"recommended_connection_ids": [""]}), "recommended_connection_ids"),
        (json!({"recommended_connection_ids": [1]}), "recommended_connection_ids"),
        (json!({"recommended_connection_ids": source}), "recommended_connection_ids"),
        (
            json!({"connection_id": source, "recommended_connection_ids": [source]}),
            "recommended_connection_ids",
        ),
        (json!({"connection_id": source, "recommended_connection_ids": []}), "recommended_connection_ids"),
        (json!({"return_button_label": ""}), "return_button_label"),
        (json!({"return_button_label": "x".repeat(61)}), "return_button_label"),
        (json!({"return_button_label": null}), "return_button_label"),
        (json!({"expires_in": 59}), "expires_in"),
        (json!({"expires_in": 86_401}), "expires_in"),
        (json!({"expires_in": -60}), "expires_in"),
        (json!({"expires_in": 60.5}), "expires_in"),
        (json!({"expires_in": "60"}), "expires_in"),
        (json!({"expires_in": null}), "expires_in"),
        (json!({"metadata": null}), "metadata"),
        (json!({"metadata": [1]}), "metadata"),
    ] {
        refused(&app.api("POST", "/patient-sessions", body(more)).await, 400, "invalid_data", Some(param));
    }
    for (missing, param) in [
        (json!({"return_url": "https://a.example/"}), "patient_id"),
        (json!({"patient_id": "amy-7"}), "return_url"),
    ] {
        refused(&app.api("POST", "/patient-sessions", missing).await, 400, "bad_request", Some(param));
    }
    for (more, param) in [
        (json!({"connection_id": "fhirsrc_01KB2V0A7M5P9C3Q6T8X2Z4WBD"}), "connection_id"),
        (json!({"connection_id": "https://nowhere.example/r4"}), "connection_id"),
        (json!({"connection_id": "conn_01KB2V0A7M5P9C3Q6T8X2Z4WBD"}), "connection_id"),
        (json!({"recommended_connection_ids": [source, "x"]}), "recommended_connection_ids"),
    ] {
        let page = app.api("POST", "/patient-sessions", body(more)).await;
        refused(&page, 404, "resource_not_found", Some(param));
    }
    refused(&app.api("GET", "/patients/amy-7", Value::Null).await, 404, "resource_not_found", None);
}

#[tokio::test]
async fn an_unknown_field_is_named_to_its_sender_and_to_nobody_else() {
    let app = TestApp::start().await;
    let name = "MARKER-of-a-field";
    refused(
        &app.api("POST", "/patient-sessions", body(json!({name: 1}))).await,
        400,
        "invalid_data",
        Some(name),
    );
    assert!(!logged().contains(name), "a name can be anything, so it is not logged");
    let long = "x".repeat(100_000);
    let page = app.api("POST", "/patient-sessions", body(json!({long: 1}))).await;
    refused(&page, 400, "invalid_data", Some(&"x".repeat(100)));
    assert!(page.text.len() < 1000, "{}", page.text.len());
}

#[tokio::test]
async fn the_bounds_themselves_are_accepted() {
    let app = TestApp::start().await;
    for (more, expected) in [
        (json!({"expires_in": 60}), json!({"expires_at": "2026-11-02T08:01:00.000Z"})),
        (json!({"expires_in": 86_400}), json!({"expires_at": "2026-11-03T08:00:00.000Z"})),
        (json!({"return_button_label": "x"}), json!({"return_button_label": "x"})),
        (json!({"return_button_label": "ü".repeat(60)}), json!({"return_button_label": "ü".repeat(60)})),
        (json!({"recommended_connection_ids": []}), json!({"recommended_connection_ids": []})),
        (json!({"patient_name": ""}), json!({"patient_id": "amy-7"})),
        (json!({"connection_id": app.hospital.base}), json!({"connection_id": app.source.to_string()})),
        (json!({"metadata": {"ü": [null]}}), json!({"metadata": {"ü": [null]}})),
    ] {
        let session = app.api("POST", "/patient-sessions", body(more)).await.ok();
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(session[name], *value);
        }
    }
}

#[tokio::test]
async fn a_session_makes_its_patient_and_never_clears_what_is_known() {
    let app = TestApp::start().await;
    let known = |patient: &Value| (patient["email"].clone(), patient["name"].clone());
    app.api("POST", "/patient-sessions", body(json!({"patient_email": "amy@x.example"}))).await.ok();
    assert_eq!(known(&get(&app, "/patients/amy-7").await), (json!("amy@x.example"), Value::Null));
    app.api("POST", "/patient-sessions", body(json!({"patient_name": "Amy"}))).await.ok();
    assert_eq!(known(&get(&app, "/patients/amy-7").await), (json!("amy@x.example"), json!("Amy")));
    app.api("POST", "/patient-sessions", body(json!({"patient_email": "new@x.example"}))).await.ok();
    assert_eq!(known(&get(&app, "/patients/amy-7").await), (json!("new@x.example"), json!("Amy")));
    let found = get(&app, "/patients?email=new@x.example").await;
    assert_eq!(found["data"][0]["id"], "amy-7");
    assert_eq!(get(&app, "/patients?email=amy@x.example").await["data"], json!([]));
    assert_eq!(get(&app, "/patients").await["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_session_is_expired_the_moment_its_time_is_over() {
    let app = TestApp::start().await;
    let make = async |seconds: u64| {
        app.clock.advance(Duration::from_secs(1));
        app.api("POST", "/patient-sessions", body(json!({"expires_in": seconds}))).await.ok()
    };
    let (short, long, done) = (make(60).await, make(600).await, make(60).await);
    let id = |session: &Value| session["id"].as_str().expect("an id").to_owned();
    let finished =
        Browser::default().post(&format!("{}/done", done["url"].as_str().expect("a link")), &[]).await;
    assert!(finished.status < 400, "{}", finished.text);
    let status = async |session: &Value| {
        get(&app, &format!("/patient-sessions/{}", id(session))).await["status"].clone()
    };
    let listed = async |filter: &str| -> Vec<String> {
        let list = get(&app, &format!("/patients/amy-7/patient-sessions?status={filter}")).await;
        let rows = list["data"].as_array().expect("a list").clone();
        rows.iter().inspect(|row| assert_eq!(row["status"], filter)).map(id).collect()
    };
    // `short` was made two seconds ago.
    app.clock.advance(Duration::from_millis(57_999));
    assert_eq!((status(&short).await, status(&done).await), (json!("open"), json!("complete")));
    assert_eq!(listed("open").await, [id(&long), id(&short)], "newest first");
    app.clock.advance(Duration::from_millis(1));
    assert_eq!((status(&short).await, status(&long).await), (json!("expired"), json!("open")));
    assert_eq!(listed("open").await, [id(&long)]);
    assert_eq!(listed("expired").await, [id(&short)]);
    app.clock.advance(Duration::from_hours(1));
    assert_eq!(listed("expired").await, [id(&long), id(&short)]);
    assert_eq!(listed("complete").await, [id(&done)], "what is complete never expires");
    assert!(listed("open").await.is_empty());
    for wrong in ["", "Open", "closed"] {
        let page =
            app.api("GET", &format!("/patients/amy-7/patient-sessions?status={wrong}"), Value::Null).await;
        refused(&page, 400, "invalid_data", Some("status"));
    }
}

#[tokio::test]
async fn unknown_sessions_and_the_sessions_of_unknown_patients_are_not_found() {
    let app = TestApp::start().await;
    let (_, known) = app.session("amy-7").await;
    for id in [
        "ps_",
        "x",
        "ps_01KB2V6YQ4D8N3ZT5W7R9E1HXM",
        &known.to_lowercase(),
        &segment(" "),
        &format!("{known}%00"),
    ] {
        let page = app.api("GET", &format!("/patient-sessions/{id}"), Value::Null).await;
        refused(&page, 404, "resource_not_found", None);
    }
    let page = app.api("GET", "/patients/nobody/patient-sessions", Value::Null).await;
    refused(&page, 404, "resource_not_found", None);
}
