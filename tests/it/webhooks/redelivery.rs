//! Operation 22: an event is sent again by hand.

use std::time::Duration;

use serde_json::{Value, json};

use super::{done, once, records, told_everything, until};
use crate::support::{Reaction, TestApp};

#[tokio::test]
async fn an_event_is_sent_again_under_the_same_id_and_the_answer_says_how_it_went() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    done(&app, "amy-7").await;
    let first = receiver.next().await;
    let found = until(&app, &id, |events| events[0].event.delivered_at.is_some()).await;
    let delivered_at = found[0].event.delivered_at.expect("delivered").to_string();
    app.clock.advance(Duration::from_secs(90));
    receiver.reacts(Reaction::Says(202, "thanks".to_owned()));
    let path = format!("/events/{}/redeliver", first.id());
    let sent = app.api("POST", &path, Value::Null).await.ok();
    let second = receiver.next().await;
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
    assert_ne!(first.header("medblocks-signature"), second.header("medblocks-signature"));
    assert_eq!((&sent["resource_type"], &sent["id"]), (&json!("event"), &json!(first.id())));
    assert_eq!((&sent["attempts"], &sent["delivered_at"]), (&json!(2), &json!(delivered_at)));
    assert_eq!((&sent["last_status_code"], &sent["last_response_body"]), (&json!(202), &json!("thanks")));
    assert_eq!(sent["last_redelivered_at"], json!(app.clock.now().to_string()));
}

#[tokio::test]
async fn once_a_minute_and_no_more() {
    let app = TestApp::start().await;
    let (receiver, _, _) = told_everything(&app).await;
    done(&app, "amy-7").await;
    let path = format!("/events/{}/redeliver", receiver.next().await.id());
    app.api("POST", &path, Value::Null).await.ok();
    app.clock.advance(Duration::from_millis(17_500));
    let refused = app.api("POST", &path, Value::Null).await;
    assert_eq!(refused.error(), (429, "throttled".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("43"));
    app.clock.advance(Duration::from_secs(43));
    app.api("POST", &path, Value::Null).await.ok();
    receiver.next_kinds(2).await;
    assert!(receiver.is_quiet().await, "the refused one sent nothing");
}

#[tokio::test]
async fn at_the_same_moment_only_one_of_two_is_sent() {
    let app = TestApp::start().await;
    let (receiver, _, _) = told_everything(&app).await;
    done(&app, "amy-7").await;
    let path = format!("/events/{}/redeliver", receiver.next().await.id());
    let both = futures_util::future::join_all((0..4).map(|_| app.api("POST", &path, Value::Null))).await;
    let mut statuses: Vec<u16> = both.iter().map(|page| page.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429, 429, 429]);
}

#[tokio::test]
async fn a_request_sent_twice_under_one_key_is_one_delivery() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    done(&app, "amy-7").await;
    let event = receiver.next().await.id();
    until(&app, &id, |events| events[0].event.delivered_at.is_some()).await;
    receiver.reacts(Reaction::Says(500, "out of order".to_owned()));
    let path = format!("/events/{event}/redeliver");
    let first = once(&app, &path, "k").await;
    assert_eq!((first.ok()["attempts"].clone(), first.header("idempotency-replayed")), (json!(2), None));
    receiver.next().await;
    // Also when the minute is over and another attempt would be allowed.
    for wait in [0, 61] {
        app.clock.advance(Duration::from_secs(wait));
        let again = once(&app, &path, "k").await;
        assert_eq!((again.status, &again.text), (200, &first.text), "what came of the attempt is told again");
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    assert!(receiver.is_quiet().await, "nothing was sent again");
    assert_eq!(once(&app, &path, "another").await.ok()["attempts"], json!(3));
    receiver.next().await;
    done(&app, "ben-3").await;
    let other = receiver.next().await.id();
    let elsewhere = once(&app, &format!("/events/{other}/redeliver"), "k").await;
    assert_eq!(elsewhere.error(), (409, "resource_conflict".to_owned()));
    // What is kept tells of a patient, and goes with it.
    app.api("DELETE", "/patients/amy-7", Value::Null).await.ok();
    let erased = once(&app, &path, "k").await;
    assert_eq!(erased.error(), (409, "resource_conflict".to_owned()));
}

#[tokio::test]
async fn a_refused_redelivery_keeps_no_answer() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    done(&app, "amy-7").await;
    let path = format!("/events/{}/redeliver", receiver.next().await.id());
    app.api("PATCH", &format!("/webhooks/{id}"), json!({"status": "disabled"})).await.ok();
    assert_eq!(once(&app, &path, "k").await.status, 409);
    app.api("PATCH", &format!("/webhooks/{id}"), json!({"status": "active"})).await.ok();
    assert_eq!(once(&app, &path, "k").await.status, 200);
    assert_eq!(once(&app, &path, "other").await.status, 429);
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(once(&app, &path, "other").await.header("idempotency-replayed"), None);
    receiver.next_kinds(2).await;
}

#[tokio::test]
async fn a_failure_by_hand_leaves_the_schedule_as_it_was() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    receiver.reacts(Reaction::Status(500));
    done(&app, "amy-7").await;
    let event = receiver.next().await.id();
    let before = until(&app, &id, |events| events[0].event.attempts == 1).await[0].event.next_attempt_at;
    let path = format!("/events/{event}/redeliver");
    let sent = app.api("POST", &path, Value::Null).await.ok();
    assert_eq!((&sent["attempts"], &sent["delivered_at"]), (&json!(2), &Value::Null));
    assert_eq!(sent["next_attempt_at"], json!(before.map(|at| at.to_string())));
    receiver.reacts(Reaction::Status(200));
    app.clock.advance(Duration::from_mins(1));
    let sent = app.api("POST", &path, Value::Null).await.ok();
    assert!(sent["delivered_at"].is_string(), "{sent}");
    assert_eq!(sent["next_attempt_at"], Value::Null);
    assert_eq!(records(&app, &id).await.len(), 1);
}

#[tokio::test]
async fn a_disabled_endpoint_is_sent_nothing_by_hand_either() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    done(&app, "amy-7").await;
    let path = format!("/events/{}/redeliver", receiver.next().await.id());
    app.api("PATCH", &format!("/webhooks/{id}"), json!({"status": "disabled"})).await.ok();
    assert_eq!(app.api("POST", &path, Value::Null).await.error(), (409, "resource_conflict".to_owned()));
    app.api("PATCH", &format!("/webhooks/{id}"), json!({"status": "active"})).await.ok();
    app.api("POST", &path, Value::Null).await.ok();
    for unknown in ["evt_01KB2VD3M6R8T0V2X4Z6B8D1FG", "evt_", "x"] {
        let path = format!("/events/{unknown}/redeliver");
        assert_eq!(app.api("POST", &path, Value::Null).await.error(), (404, "resource_not_found".to_owned()));
    }
}
