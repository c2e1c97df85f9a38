//! What the API has beyond the contract, without breaking it: requests carried out once, entity tags, exports.

use std::time::Duration;

use chartgate::id::Id as _;
use chartgate::records::{ExportError, ExportQuery};
use chartgate::store::{Range, Reader as _, StoreError, Table};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{common, key_of_a_stranger, refused};
use crate::support::{Page, Setup, TestApp, send, send_for_bytes};

async fn post(app: &TestApp, key: &str, path: &str, once: &str, body: &Value) -> Page {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("idempotency-key", once)];
    send("POST", &format!("{}{path}", app.origin), &headers, &body.to_string()).await
}

fn session_of(patient: &str) -> Value {
    json!({"patient_id": patient, "return_url": "https://shop.example/back"})
}

#[tokio::test]
async fn a_creation_sent_twice_is_carried_out_once_and_answered_twice() {
    let app = TestApp::start().await;
    for (path, body) in
        [("/patients", json!({"patient_id": "amy-7"})), ("/patient-sessions", session_of("ben"))]
    {
        let key = format!("key of {path} \"x\"");
        let first = post(&app, &app.key, path, &key, &body).await;
        app.clock.advance(Duration::from_hours(23));
        let second = post(&app, &app.key, path, &key, &body).await;
        common(&second);
        assert_eq!((second.status, &second.text), (200, &first.text), "{path}");
        assert_eq!(
            (first.header("idempotency-replayed"), second.header("idempotency-replayed")),
            (None, Some("true"))
        );
        for other in
            [json!({"patient_id": "else", "return_url": "https://a.example/"}), json!({}), Value::Null]
        {
            refused(
                &post(&app, &app.key, path, &key, &other).await,
                409,
                "resource_conflict",
                Some("Idempotency-Key"),
            );
        }
        app.clock.advance(Duration::from_hours(1));
        let third = post(&app, &app.key, path, &key, &body).await;
        assert_eq!(third.header("idempotency-replayed"), None, "after a day the key is free");
        assert_ne!(third.text, first.text);
    }
    let body = session_of("elsewhere");
    let taken = post(&app, &app.key, "/patient-sessions", "key of /patients \"x\"", &body).await;
    assert_eq!(taken.status, 200, "its day is over");
    let taken = post(&app, &app.key, "/patients", "key of /patients \"x\"", &body).await;
    refused(&taken, 409, "resource_conflict", Some("Idempotency-Key"));
    app.api("DELETE", "/patients/elsewhere", Value::Null).await.ok();
    let listed = app.api("GET", "/patients", Value::Null).await.ok();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));
    let sessions = app.api("GET", "/patients/ben/patient-sessions", Value::Null).await.ok();
    assert_eq!(sessions["data"].as_array().map(Vec::len), Some(2), "the first, and the one after a day");
}

#[tokio::test]
async fn of_many_at_once_one_is_carried_out() {
    let app = TestApp::start().await;
    let body = session_of("amy-7");
    let all = join_all((0..40).map(|_| post(&app, &app.key, "/patient-sessions", "at once", &body))).await;
    let ids: Vec<Value> = all.iter().map(|page| page.ok()["id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(all.iter().filter(|page| page.header("idempotency-replayed").is_none()).count(), 1);
    let sessions = app.api("GET", "/patients/amy-7/patient-sessions", Value::Null).await.ok();
    assert_eq!(sessions["data"].as_array().map(Vec::len), Some(1));
    // The same of a creation that others want, too: one makes it, its repetitions are told so, the rest are refused.
    let body = json!({"patient_id": "contested"});
    let calls = (0..20).map(|number| {
        let (app, body) = (&app, &body);
        async move { post(app, &app.key, "/patients", &format!("of {}", number % 2), body).await.status }
    });
    let statuses = join_all(calls).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 10, "{statuses:?}");
}

#[tokio::test]
async fn a_refused_request_may_be_sent_again_and_workspaces_share_no_keys() {
    let app = TestApp::start().await;
    let wrong = json!({"patient_id": "amy-7", "email": "no"});
    refused(&post(&app, &app.key, "/patients", "k", &wrong).await, 400, "invalid_data", Some("email"));
    let body = json!({"patient_id": "amy-7", "email": "amy@x.example"});
    let made = post(&app, &app.key, "/patients", "k", &body).await.ok();
    let stranger = key_of_a_stranger(&app).await;
    app.clock.advance(Duration::from_secs(1));
    let theirs = post(&app, &stranger, "/patients", "k", &body).await;
    assert_eq!(theirs.header("idempotency-replayed"), None);
    assert_ne!(theirs.ok()["created_at"], made["created_at"]);
    for wrong in ["", &"x".repeat(256), "\u{e9}"] {
        let page = post(&app, &app.key, "/patients", wrong, &json!({"patient_id": "b"})).await;
        refused(&page, 400, "invalid_data", Some("Idempotency-Key"));
    }
    assert_eq!(app.api("GET", "/patients/b", Value::Null).await.status, 404);
}

#[tokio::test]
async fn an_answer_is_kept_over_a_restart_but_not_over_an_erasure() {
    let mut app = TestApp::start().await;
    let body = json!({"patient_id": "amy-7", "name": "Amy MARKERNAME"});
    let made = post(&app, &app.key, "/patients", "k", &body).await.text;
    app.restart().await;
    assert_eq!(post(&app, &app.key, "/patients", "k", &body).await.text, made);
    app.api("DELETE", "/patients/amy-7", Value::Null).await.ok();
    let again = post(&app, &app.key, "/patients", "k", &body).await;
    refused(&again, 409, "resource_conflict", Some("Idempotency-Key"));
    assert!(!again.text.contains("MARKERNAME"));
    assert_eq!(
        app.api("GET", "/patients/amy-7", Value::Null).await.status,
        404,
        "a late repetition makes nobody"
    );
    let by_patient: Table<[u8; 16]> = Table::new("replays_by_patient.v1");
    let left = app.app().parts().store.read(move |view| view.keys(by_patient, &Range::of(b"")));
    let left: Result<Vec<Vec<u8>>, StoreError> = left.await;
    assert_eq!(left.expect("read").len(), 0);
}

#[tokio::test]
async fn whoever_has_an_object_already_is_told_so() {
    let app = TestApp::start().await;
    let (_, session) = app.session("amy-7").await;
    let authorization = format!("Bearer {}", app.key);
    let get = async |path: &str, tag: &str| {
        let headers = [("authorization", authorization.as_str()), ("if-none-match", tag)];
        send("GET", &format!("{}{path}", app.origin), &headers, "").await
    };
    let mut tags = Vec::new();
    for path in [
        "/patients/amy-7".to_owned(),
        format!("/connections/{}", app.source),
        format!("/patient-sessions/{session}"),
    ] {
        let page = get(&path, "\"other\"").await;
        let tag = page.header("etag").expect("a tag").to_owned();
        assert!(page.status == 200 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        for known in [&tag, &format!("W/{tag}"), &format!("\"a\", {tag}"), "*"] {
            let page = get(&path, known).await;
            common(&page);
            assert_eq!(
                (page.status, page.text.as_str(), page.header("etag")),
                (304, "", Some(tag.as_str())),
                "{path}"
            );
            assert_eq!(page.header("content-type"), None);
            assert!(page.header("ratelimit").is_some());
        }
        tags.push((path, tag));
    }
    let body = json!({"patient_id": "amy-7", "name": "Another"});
    app.api("PUT", "/patients/amy-7", body).await.ok();
    let page = get(&tags[0].0, &tags[0].1).await;
    assert_eq!((page.status, page.header("etag") == Some(&tags[0].1)), (200, false), "it has changed");
    app.clock.advance(Duration::from_hours(25));
    assert_eq!(get(&tags[2].0, &tags[2].1).await.status, 200, "an expired session is another text");
    refused(&get("/patients/nobody", "*").await, 404, "resource_not_found", None);
    assert!(chartgate::id::PatientSessionId::parse(&session).is_ok());
}

/// An export's lines.
async fn export(app: &TestApp, query: &str) -> Vec<Value> {
    let page = app.api("GET", &format!("/patients/amy-7/records/export{query}"), Value::Null).await;
    common(&page);
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("application/x-ndjson")),
        "{}",
        page.text
    );
    assert!(page.text.is_empty() || page.text.ends_with('\n'));
    page.text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[tokio::test]
async fn an_export_is_every_record_on_a_line_of_its_own() {
    let app = TestApp::with(Setup { size: Some(3000), ..Setup::default() }).await;
    let user = app.hospital.users().last().expect("the large one").username.clone();
    app.connected("amy-7", &user).await;
    let all = app.records("amy-7", "").await;
    assert!(all.len() > 2000, "more than one piece: {}", all.len());
    // Not `assert_eq`: nobody wants to read two charts.
    assert!(export(&app, "").await == all, "as the records are listed");
    let two = "type=Condition,Patient";
    assert!(export(&app, &format!("?{two}")).await == app.records("amy-7", two).await);
    assert_eq!(export(&app, "?type=Spaceship").await.len(), 0);
    let later = app.clock.now().after(Duration::from_mins(1));
    assert_eq!(export(&app, &format!("?since={later}")).await.len(), 0);
    assert_eq!(export(&app, "?since=2026-11-01").await.len(), all.len());
    let texts = app.api("GET", "/patients/amy-7/records/export?type=Observation", Value::Null).await.text;
    let person = app.hospital.users().last().expect("there").patient.clone();
    for original in app.hospital.sandbox.population().of(&person, "Observation").iter().take(50) {
        assert!(texts.contains(&*original.json), "{} keeps its text", original.id);
    }
    for (query, param) in [("type=x", "type"), ("since=x", "since"), ("gzip=x", "gzip")] {
        let page = app.api("GET", &format!("/patients/amy-7/records/export?{query}"), Value::Null).await;
        refused(&page, 400, "invalid_data", Some(param));
    }
    let page = app.api("GET", "/patients/nobody/records/export", Value::Null).await;
    refused(&page, 404, "resource_not_found", None);

    // The packed forms hold the same.
    let plain = app.api("GET", "/patients/amy-7/records/export", Value::Null).await.text;
    let authorization = format!("Bearer {}", app.key);
    for (query, accept, media, coding) in [
        ("", "gzip, br", "application/x-ndjson", Some("gzip")),
        ("?gzip", "identity", "application/gzip", None),
        ("?gzip=true", "gzip", "application/gzip", None),
        ("?gzip=false", "gzip", "application/x-ndjson", None),
    ] {
        let headers = [("authorization", authorization.as_str()), ("accept-encoding", accept)];
        let url = format!("{}/patients/amy-7/records/export{query}", app.origin);
        let (head, bytes) = send_for_bytes("GET", &url, &headers, "").await;
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!((header("content-type"), header("content-encoding")), (Some(media), coding), "{query}");
        assert_eq!(header("vary"), Some("accept-encoding"));
        let text = if media == "application/gzip" || coding.is_some() {
            assert!(bytes.len() < plain.len() / 3, "{} of {}", bytes.len(), plain.len());
            std::io::read_to_string(flate2::read::GzDecoder::new(&bytes[..])).expect("gzip")
        } else {
            String::from_utf8(bytes.to_vec()).expect("text")
        };
        assert!(text == plain, "{query}");
    }
}

#[tokio::test]
async fn an_export_of_a_patient_who_is_erased_meanwhile_breaks_off() {
    let app = TestApp::with(Setup { size: Some(3000), ..Setup::default() }).await;
    let user = app.hospital.users().last().expect("the large one").username.clone();
    app.connected("amy-7", &user).await;
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    let patients =
        chartgate::workspaces::Patients::new(parts.store.clone(), parts.clock.clone(), parts.random.clone());
    let patient = patients.find(workspace.id, "amy-7").await.expect("read").expect("there");
    let mut export = parts.records.export(patient.clone(), ExportQuery::default());
    assert!(export.next().await.expect("read").is_some_and(|piece| !piece.is_empty()));
    app.api("DELETE", "/patients/amy-7", Value::Null).await.ok();
    assert!(
        matches!(export.next().await, Err(ExportError::Erased)),
        "what came so far must not pass for everything"
    );
    let mut export = parts.records.export(patient, ExportQuery::default());
    assert!(matches!(export.next().await, Err(ExportError::Erased)));
}
