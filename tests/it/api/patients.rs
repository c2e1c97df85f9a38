//! What is accepted and refused of patients.

use serde_json::{Value, json};

use super::{get, raw, refused, segment};
use crate::support::TestApp;

#[tokio::test]
async fn each_wrong_field_of_a_new_patient_is_named() {
    let app = TestApp::start().await;
    for (body, code, param) in [
        (json!({}), "bad_request", "patient_id"),
        (json!({"patient_id": null}), "invalid_data", "patient_id"),
        (json!({"patient_id": ""}), "invalid_data", "patient_id"),
        (json!({"patient_id": 7}), "invalid_data", "patient_id"),
        (json!({"patient_id": "x".repeat(201)}), "invalid_data", "patient_id"),
        (json!({"patient_id": "ps_1"}), "invalid_data", "patient_id"),
        (json!({"patient_id": "conn_1"}), "invalid_data", "patient_id"),
        (json!({"patient_id": "fhirsrc_1"}), "invalid_data", "patient_id"),
        (json!({"patient_id": "wh_1"}), "invalid_data", "patient_id"),
        (json!({"patient_id": "evt_1"}), "invalid_data", "patient_id"),
        (json!({"patient_id": "a", "email": null}), "invalid_data", "email"),
        (json!({"patient_id": "a", "email": ""}), "invalid_data", "email"),
        (json!({"patient_id": "a", "email": "amy"}), "invalid_data", "email"),
        (json!({"patient_id": "a", "email": ["a@b.example"]}), "invalid_data", "email"),
        (json!({"patient_id": "a", "name": null}), "invalid_data", "name"),
        (json!({"patient_id": "a", "name": 1}), "invalid_data", "name"),
        (json!({"patient_id": "a", "name": "x".repeat(201)}), "invalid_data", "name"),
        (json!({"patient_id": "a", "metadata": null}), "invalid_data", "metadata"),
        (json!({"patient_id": "a", "metadata": []}), "invalid_data", "metadata"),
        (json!({"patient_id": "a", "metadata": "x"}), "invalid_data", "metadata"),
    ] {
        refused(&app.api("POST", "/patients", body).await, 400, code, Some(param));
    }
    assert_eq!(get(&app, "/patients").await["data"], json!([]), "nothing was kept");
    let widest = json!({"patient_id": "ü".repeat(200), "name": "ü".repeat(200), "email": "a@b.example"});
    app.api("POST", "/patients", widest).await.ok();
    let empty = app.api("POST", "/patients", json!({"patient_id": "a", "name": ""})).await.ok();
    assert_eq!(empty["name"], "", "a name has a longest length and no shortest");
}

#[tokio::test]
async fn bodies_that_are_no_json_objects_are_bad_requests() {
    let app = TestApp::start().await;
    app.api("POST", "/patients", json!({"patient_id": "amy-7"})).await.ok();
    for (method, path) in [("POST", "/patients"), ("PUT", "/patients/amy-7"), ("POST", "/patient-sessions")] {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in [
            "",
            "{",
            "null",
            "[]",
            "7",
            "\"x\"",
            "{\"patient_id\":\"a\"} x",
            "{\"a\":\"\\ud800\"}",
            "\0",
            &deep,
        ] {
            refused(&raw(&app, method, path, body).await, 400, "bad_request", None);
        }
    }
}

#[tokio::test]
async fn a_patient_id_is_taken_once() {
    let app = TestApp::start().await;
    let body = json!({"patient_id": "amy-7", "name": "Amy"});
    app.api("POST", "/patients", body.clone()).await.ok();
    let again = app.api("POST", "/patients", json!({"patient_id": "amy-7", "name": "Other"})).await;
    refused(&again, 409, "external_id_already_exists", Some("patient_id"));
    assert_eq!(get(&app, "/patients/amy-7").await["name"], "Amy");
    app.api("POST", "/patients", json!({"patient_id": "AMY-7"})).await.ok();
    app.api("DELETE", "/patients/amy-7", Value::Null).await.ok();
    refused(&app.api("DELETE", "/patients/amy-7", Value::Null).await, 404, "resource_not_found", None);
    app.api("POST", "/patients", body).await.ok();
}

#[tokio::test]
async fn put_replaces_everything_but_id_time_and_connections() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let before = get(&app, "/patients/amy-7").await;
    app.clock.advance(std::time::Duration::from_mins(1));
    let full = json!({"patient_id": "amy-7", "email": "amy@x.example", "name": "Amy", "metadata": {"a": 1}});
    let put = |body: Value| app.api("PUT", "/patients/amy-7", body);
    let after = put(full.clone()).await.ok();
    assert_eq!((&after["email"], &after["metadata"]), (&json!("amy@x.example"), &json!({"a": 1})));
    assert_eq!(after["created_at"], before["created_at"]);
    assert_eq!(get(&app, "/patients/amy-7").await["connections"], before["connections"]);
    for clearing in
        [json!({"patient_id": "amy-7"}), json!({"patient_id": "amy-7", "email": null, "name": null})]
    {
        put(full.clone()).await.ok();
        let cleared = put(clearing).await.ok();
        assert_eq!(
            (&cleared["email"], &cleared["name"], &cleared["metadata"]),
            (&Value::Null, &Value::Null, &json!({}))
        );
    }
    assert_eq!(
        get(&app, "/patients?email=amy@x.example").await["data"],
        json!([]),
        "the old address is forgotten"
    );
    put(json!({"patient_id": "amy-7", "unknown": true})).await.ok();
    refused(&put(json!({"patient_id": "ben"})).await, 400, "invalid_data", Some("patient_id"));
    refused(&put(json!({"name": "Amy"})).await, 400, "bad_request", Some("patient_id"));
    refused(
        &put(json!({"patient_id": "amy-7", "metadata": null})).await,
        400,
        "invalid_data",
        Some("metadata"),
    );
    refused(&put(json!({"patient_id": "amy-7", "email": "x"})).await, 400, "invalid_data", Some("email"));
    let unknown = app.api("PUT", "/patients/ben", json!({"patient_id": "ben"})).await;
    refused(&unknown, 404, "resource_not_found", None);
    refused(&app.api("GET", "/patients/ben", Value::Null).await, 404, "resource_not_found", None);
}

#[tokio::test]
async fn odd_ids_are_found_under_every_path() {
    let app = TestApp::start().await;
    for id in [
        "a b",
        "a/b",
        "/",
        "a@b.example",
        "100%",
        "50%25",
        "a%2Fb",
        "Ärztin-7",
        "患者",
        "a+b",
        "?x=1#y",
        "..",
        ".",
        "\"q\"",
        "{x}|\\^`",
        " ",
        "records",
        "patient-sessions",
        "a,b;c=d&e",
    ] {
        let encoded = segment(id);
        let created = app.api("POST", "/patients", json!({"patient_id": id, "name": "x"})).await.ok();
        assert_eq!(created["id"], json!(id));
        assert_eq!(get(&app, &format!("/patients/{encoded}")).await["id"], json!(id));
        let put = app.api("PUT", &format!("/patients/{encoded}"), json!({"patient_id": id})).await.ok();
        assert_eq!(put["id"], json!(id));
        let listed = get(&app, &format!("/patients?patient_id={encoded}")).await;
        assert_eq!(listed["data"][0]["id"], json!(id));
        app.session(id).await;
        let sessions = get(&app, &format!("/patients/{encoded}/patient-sessions")).await;
        assert_eq!(sessions["data"][0]["patient_id"], json!(id));
        let records = get(&app, &format!("/patients/{encoded}/records")).await;
        assert_eq!(records["patient_id"], json!(id));
        let twice = segment(&encoded);
        if twice != encoded {
            let page = app.api("GET", &format!("/patients/{twice}"), Value::Null).await;
            refused(&page, 404, "resource_not_found", None);
        }
        let gone = app.api("DELETE", &format!("/patients/{encoded}"), Value::Null).await.ok();
        assert_eq!(gone, json!({"id": id, "resource_type": "patient", "deleted": true}));
    }
}

#[tokio::test]
async fn metadata_comes_back_as_deep_as_it_was_accepted() {
    let app = TestApp::start().await;
    let mut accepted = 0;
    for depth in (1..200).step_by(7).chain(120..130) {
        let id = format!("deep-{depth}-{accepted}");
        let nested = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let body = format!("{{\"patient_id\":\"{id}\",\"metadata\":{nested}}}");
        let page = raw(&app, "POST", "/patients", &body).await;
        if page.status == 200 {
            accepted += 1;
            let read = app.api("GET", &format!("/patients/{id}"), Value::Null).await;
            assert!(read.text.contains(&nested), "{}", read.text);
        } else {
            refused(&page, 400, "bad_request", None);
        }
        let body = format!(
            "{{\"patient_id\":\"{id}\",\"return_url\":\"https://a.example/\",\"metadata\":{nested}}}"
        );
        let page = raw(&app, "POST", "/patient-sessions", &body).await;
        if page.status == 200 {
            let listed = app.api("GET", &format!("/patients/{id}/patient-sessions"), Value::Null).await;
            assert!(listed.status == 200 && listed.text.contains(&nested), "{}", listed.text);
        }
    }
    assert!(accepted > 10);
}
