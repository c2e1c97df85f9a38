//! How events are delivered: signed, again and again, and never at the cost of others.

use std::time::Duration;

use chartgate::events::{DELAYS, INCIDENTS};
use chartgate::store::{Range, Reader as _, StoreError};
use serde_json::{Value, json};

use super::{done, endpoint, records, status_of, told_everything, until};
use crate::support::{Delivery, Reaction, Receiver, TestApp, logged};

/// What the platform's verifier does: the first `v1` of the header against the whole secret.
fn is_signed_by(delivery: &Delivery, secret: &str) -> bool {
    let header = delivery.header("medblocks-signature");
    let part = |name: &str| {
        let mut parts = header.split(',').filter_map(|part| part.strip_prefix(name));
        parts.next().unwrap_or_else(|| panic!("no {name} in {header}")).to_owned()
    };
    let message = format!("{}.{}", part("t="), delivery.body);
    let digest = chartgate::crypto::hmac_sha256(secret.as_bytes(), message.as_bytes());
    part("v1=") == chartgate::crypto::lower_hex(&digest)
}

#[tokio::test]
async fn every_attempt_is_signed_anew_over_the_same_bytes() {
    let app = TestApp::start().await;
    let (receiver, id, secret) = told_everything(&app).await;
    receiver.reacts(Reaction::Status(503));
    done(&app, "amy-7").await;
    let first = receiver.next().await;
    until(&app, &id, |events| events[0].event.attempts == 1).await;
    receiver.reacts(Reaction::Status(204));
    app.clock.advance(Duration::from_mins(1));
    let second = receiver.next().await;
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("webhook-id"), first.id());
    let times: Vec<i64> = [&first, &second]
        .map(|delivery| delivery.header("webhook-timestamp").parse().expect("a number"))
        .to_vec();
    assert_eq!(times[1] - times[0], 60);
    for delivery in [&first, &second] {
        assert!(is_signed_by(delivery, &secret));
        assert!(
            delivery
                .header("medblocks-signature")
                .starts_with(&format!("t={},v1=", delivery.header("webhook-timestamp")))
        );
    }
}

#[tokio::test]
async fn a_new_secret_counts_at_once_and_the_old_one_a_day_longer_for_standard_webhooks_only() {
    let app = TestApp::start().await;
    let (receiver, id, old) = told_everything(&app).await;
    let rotated = app.api("POST", &format!("/webhooks/{id}/rotate-secret"), Value::Null).await.ok();
    let new = rotated["secret"].as_str().expect("a secret").to_owned();
    done(&app, "amy-7").await;
    let delivery = receiver.next().await;
    assert!(is_signed_by(&delivery, &new) && !is_signed_by(&delivery, &old));
    assert_eq!(delivery.header("medblocks-signature").matches("v1=").count(), 1);
    assert_eq!(delivery.header("webhook-signature").split(' ').count(), 2);
    app.clock.advance(Duration::from_hours(24));
    done(&app, "amy-7").await;
    assert_eq!(receiver.next().await.header("webhook-signature").split(' ').count(), 1);
}

#[tokio::test]
async fn nine_attempts_over_three_and_a_half_days_then_the_endpoint_is_disabled_and_it_is_said() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    receiver.reacts(Reaction::Says(500, "out of order".to_owned()));
    done(&app, "amy-7").await;
    for (tries, delay) in DELAYS.into_iter().enumerate() {
        app.clock.advance(delay);
        receiver.next().await;
        let tries = u32::try_from(tries).expect("small") + 1;
        let found = until(&app, &id, |events| events[0].event.attempts == tries).await;
        assert_eq!(found[0].event.next_attempt_at.is_some(), tries < 9, "{tries}");
        assert_eq!(found[0].event.last_body.as_deref(), Some("out of order"));
        assert_eq!(status_of(&app, &id).await, if tries < 9 { "active" } else { "disabled" });
    }
    let incidents = app.app().parts().store.read(|view| view.rows(INCIDENTS, &Range::of(b"")));
    let incidents = incidents.await.map_err(|error: StoreError| error).expect("read");
    let (_, incident) = incidents.iter().find(|(_, one)| one.code == "webhook_disabled").expect("noted");
    assert!(incident.staff.contains(&id) && incident.staff.contains("status 500"), "{}", incident.staff);
    assert!(logged().contains(&incident.reference.to_string()), "the log has the same reference");

    // Nothing is sent while it is disabled, and what happened meanwhile is sent when it is not.
    done(&app, "ben-3").await;
    let (other, _, _) = told_everything(&app).await;
    done(&app, "eve-1").await;
    other.next().await;
    assert!(receiver.is_quiet().await);
    receiver.reacts(Reaction::Status(200));
    app.api("PATCH", &format!("/webhooks/{id}"), json!({"status": "active"})).await.ok();
    let bodies = format!("{}{}", receiver.next().await.body, receiver.next().await.body);
    assert!(bodies.contains("ben-3") && bodies.contains("eve-1"));
    let found =
        until(&app, &id, |events| events.iter().filter(|one| one.event.delivered_at.is_some()).count() == 2);
    assert_eq!(found.await.len(), 3, "what was given up stays given up");
    assert!(receiver.is_quiet().await);
}

#[tokio::test]
async fn an_attempt_is_not_made_before_its_time() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    receiver.reacts(Reaction::Status(500));
    done(&app, "amy-7").await;
    receiver.next().await;
    until(&app, &id, |events| events[0].event.attempts == 1).await;
    app.clock.advance(Duration::from_secs(50));
    // A later event of the same endpoint goes out, and the earlier one stays where it is.
    done(&app, "ben-3").await;
    assert!(receiver.next().await.body.contains("ben-3"));
    until(&app, &id, |events| events[0].event.attempts == 1).await;
    assert!(receiver.is_quiet().await);
}

#[tokio::test]
async fn what_waits_is_delivered_after_a_restart_under_the_same_id() {
    let mut app = TestApp::start().await;
    let (receiver, id, secret) = told_everything(&app).await;
    receiver.reacts(Reaction::Status(500));
    done(&app, "amy-7").await;
    let first = receiver.next().await;
    until(&app, &id, |events| events[0].event.attempts == 1).await;
    app.restart().await;
    assert!(receiver.is_quiet().await);
    receiver.reacts(Reaction::Status(200));
    app.clock.advance(Duration::from_mins(1));
    let second = receiver.next().await;
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
    assert!(is_signed_by(&second, &secret));
    let found = until(&app, &id, |events| events[0].event.delivered_at.is_some()).await;
    assert_eq!((found.len(), found[0].event.attempts), (1, 2));
}

#[tokio::test]
async fn a_clock_that_was_ahead_delays_nothing_once_it_is_right() {
    let mut app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    receiver.reacts(Reaction::Status(500));
    app.clock.advance(Duration::from_hours(24 * 365));
    done(&app, "amy-7").await;
    receiver.next().await;
    until(&app, &id, |events| events[0].event.attempts == 1).await;
    app.clock.set_back(Duration::from_hours(24 * 365));
    receiver.reacts(Reaction::Status(200));
    app.restart().await;
    receiver.next().await;
    until(&app, &id, |events| events[0].event.delivered_at.is_some()).await;
}

#[tokio::test]
async fn redirects_are_not_followed_and_of_long_answers_the_beginning_is_kept() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    let elsewhere = Receiver::start().await;
    receiver.reacts(Reaction::Redirects(elsewhere.url.clone()));
    done(&app, "amy-7").await;
    let found = until(&app, &id, |events| events.first().is_some_and(|one| one.event.attempts == 1)).await;
    assert_eq!((found[0].event.last_status, found[0].event.delivered_at), (Some(307), None));
    assert!(elsewhere.is_quiet().await);
    // Letters of two bytes, so that the cut would fall into one.
    receiver.reacts(Reaction::Says(200, format!("x{}", "ä".repeat(3 << 20))));
    app.clock.advance(Duration::from_mins(1));
    let found = until(&app, &id, |events| events[0].event.delivered_at.is_some()).await;
    let body = found[0].event.last_body.clone().expect("a body");
    assert!(body.len() <= 4096 && body.len() > 4090 && body.starts_with("xää"), "{}", body.len());
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_a_failed_attempt_without_a_status() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    let url = receiver.url.clone();
    drop(receiver);
    done(&app, "amy-7").await;
    let found = until(&app, &id, |events| events.first().is_some_and(|one| one.event.attempts == 1)).await;
    let event = &found[0].event;
    assert_eq!((event.last_status, event.last_body.as_ref()), (None, None), "{url}");
    assert!(event.last_error.as_ref().is_some_and(|cause| cause.contains("reached")), "{event:?}");
}

#[tokio::test]
async fn a_receiver_has_five_seconds() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    receiver.reacts(Reaction::Hangs);
    // Timers stand still until they are moved: as long as something is always ready to run, they do not move by themselves.
    tokio::time::pause();
    let busy = async {
        loop {
            tokio::task::yield_now().await;
        }
    };
    let waited = async {
        done(&app, "amy-7").await;
        receiver.next().await;
        tokio::time::advance(Duration::from_millis(4_990)).await;
        for _ in 0..100 {
            assert_eq!(records(&app, &id).await[0].event.attempts, 0, "before its time is over");
        }
        tokio::time::advance(Duration::from_millis(20)).await;
        for _ in 0..100_000 {
            let found = records(&app, &id).await;
            if found[0].event.attempts == 1 {
                return found[0].event.clone();
            }
        }
        panic!("the attempt has not ended");
    };
    let event = tokio::select! {
        () = busy => unreachable!("it never ends"),
        event = waited => event,
    };
    assert_eq!((event.last_status, event.delivered_at), (None, None));
    assert!(event.last_error.as_ref().is_some_and(|cause| cause.contains("in time")), "{event:?}");
    let next = event.next_attempt_at.expect("it is tried again");
    assert_eq!(next.since(app.clock.now()), Duration::from_mins(1));
}

#[tokio::test]
async fn receivers_that_hang_do_not_keep_others_from_their_events() {
    let app = TestApp::start().await;
    let (dead, _, _) = told_everything(&app).await;
    dead.reacts(Reaction::Hangs);
    let (well, id, _) = told_everything(&app).await;
    for number in 0..20 {
        done(&app, &format!("patient-{number}")).await;
        well.next().await;
    }
    let found = until(&app, &id, |events| events.iter().all(|one| one.event.delivered_at.is_some())).await;
    assert_eq!(found.len(), 20);
    // The dead one has two at a time, however many wait.
    dead.next_kinds(2).await;
    // An attempt that was given up may be noticed late, so there can seem to be two more.
    assert!(dead.most_at_once() <= 4, "{}", dead.most_at_once());
}

#[tokio::test]
async fn old_events_go_and_what_is_still_to_be_tried_stays() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    done(&app, "amy-7").await;
    receiver.next().await;
    until(&app, &id, |events| events[0].event.delivered_at.is_some()).await;
    receiver.reacts(Reaction::Hangs);
    done(&app, "ben-3").await;
    receiver.next().await;
    app.clock.advance(Duration::from_hours(24 * 29));
    assert_eq!(app.app().parts().webhooks.tidy().await.ok(), Some(0));
    app.clock.advance(Duration::from_hours(24 * 2));
    app.app().parts().webhooks.tidy().await.expect("tidied");
    let left = until(&app, &id, |events| events.len() == 1).await;
    assert!(left[0].data.contains("ben-3"));
    // At a disabled endpoint nothing waits for ever.
    app.api("PATCH", &format!("/webhooks/{id}"), json!({"status": "disabled"})).await.ok();
    app.app().parts().webhooks.tidy().await.expect("tidied");
    assert_eq!(records(&app, &id).await.len(), 0);
}

#[tokio::test]
async fn a_changed_address_is_where_the_next_attempt_goes() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    receiver.reacts(Reaction::Status(500));
    done(&app, "amy-7").await;
    let first = receiver.next().await;
    until(&app, &id, |events| events[0].event.attempts == 1).await;
    let other = Receiver::start().await;
    app.api("PATCH", &format!("/webhooks/{id}"), json!({"url": other.url})).await.ok();
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(other.next().await.id(), first.id());
    assert!(receiver.is_quiet().await);
}

#[tokio::test]
async fn events_are_listed_by_whether_they_were_delivered_page_by_page() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    let mut expected = Vec::new();
    for number in 0..9 {
        let good = number % 3 != 0;
        receiver.reacts(Reaction::Status(if good { 200 } else { 500 }));
        done(&app, &format!("patient-{number}")).await;
        expected.insert(0, (receiver.next().await.id(), good));
        until(&app, &id, |events| events.iter().all(|one| one.event.attempts == 1)).await;
    }
    for (filter, wanted) in [("", None), ("&delivered=true", Some(true)), ("&delivered=false", Some(false))] {
        let of_these = expected.iter().filter(|(_, good)| wanted.is_none_or(|wanted| wanted == *good));
        let expected: Vec<&String> = of_these.map(|(id, _)| id).collect();
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/webhooks/{id}/events?limit=2{filter}{cursor}");
            let page = app.api("GET", &path, Value::Null).await.ok();
            let rows = page["data"].as_array().expect("a list");
            found.extend(rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&starting_after={next}");
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
    for query in ["delivered=yes", "limit=0", "starting_after=abc"] {
        let path = format!("/webhooks/{id}/events?{query}");
        assert_eq!(app.api("GET", &path, Value::Null).await.status, 400, "{query}");
    }
    let (_, other) = endpoint(&app, "https://app.example/", &["*"]).await;
    assert!(!other.is_empty());
}
