//! The life of a grant over days and months: kept alive, suspended, ended, given back; and what is told of it.

use std::time::Duration;

use chartgate::control::{self, Command};
use chartgate::crypto::KeyType;
use chartgate::events::history::RefreshedBy;
use chartgate::grants::{AccessError, ConnectionStatus};
use chartgate::id::ConnectionId;
use serde_json::{Value, json};

use super::connected;
use crate::support::{Setup, TestApp};

const DAY: Duration = Duration::from_hours(24);

/// An appliance that waits one second for an answer.
async fn impatient() -> TestApp {
    let settings = vec![("outbound.timeout", "1s"), ("outbound.connect_timeout", "1s")];
    TestApp::with(Setup { settings, ..Setup::default() }).await
}

/// Waits until `done` says so; the schedule works in the background.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let wait = async {
        while !done().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn refreshes(app: &TestApp) -> u64 {
    app.hospital.count("token.refresh_token.").await
}

async fn ledger(app: &TestApp, id: ConnectionId) -> Value {
    let command = Command::Ledger { connection: id.to_string() };
    control::execute(app.app().parts(), command).await.expect("a ledger")
}

async fn kinds(app: &TestApp, id: ConnectionId) -> Vec<String> {
    let ledger = ledger(app, id).await;
    let entries = ledger["entries"].as_array().expect("a list").iter();
    entries.map(|entry| entry["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// Does what is due now, and waits for the schedule that runs by itself, too.
async fn attend(app: &TestApp) {
    app.app().parts().grants.attend().await.expect("the store works");
}

#[tokio::test]
async fn a_grant_that_nobody_uses_outlives_the_hospitals_idle_limit() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    for month in 1..=6 {
        app.clock.advance(DAY * 26);
        until("kept alive", || async { ledger(&app, id).await["grant"]["refreshes"] == month }).await;
    }
    let told = ledger(&app, id).await;
    assert_eq!(refreshes(&app).await, 6, "{told}");
    assert_eq!(told["entries"][0]["by"], "schedule", "{told}");
    app.app().parts().grants.access(id, RefreshedBy::Proxy).await.expect("it still works");
}

#[tokio::test]
async fn a_grant_that_is_used_is_not_refreshed_by_the_schedule_as_well() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    app.clock.advance(DAY * 20);
    app.app().parts().grants.access(id, RefreshedBy::Proxy).await.expect("a token");
    assert_eq!(refreshes(&app).await, 1);
    app.clock.advance(DAY * 6);
    attend(&app).await;
    assert_eq!(refreshes(&app).await, 1, "it was used six days ago");
    app.clock.advance(DAY * 20);
    until("due again", || async { refreshes(&app).await == 2 }).await;
}

#[tokio::test]
async fn a_box_that_was_off_for_weeks_catches_up() {
    let mut app = TestApp::start().await;
    let id = connected(&app).await;
    app.app().parts().shutdown.trigger();
    app.clock.advance(DAY * 60);
    app.restart().await;
    until("caught up", || async { refreshes(&app).await == 1 }).await;
    // A clock that was wrong and is set right again neither stops the schedule nor makes it turn on the spot.
    app.clock.set_back(DAY * 50);
    attend(&app).await;
    assert_eq!(refreshes(&app).await, 1);
    app.clock.advance(DAY * 80);
    until("due again", || async { refreshes(&app).await == 2 }).await;
    app.app().parts().grants.access(id, RefreshedBy::Proxy).await.expect("it still works");
}

#[tokio::test]
async fn access_that_cannot_be_renewed_ends_when_it_runs_out_without_anybody_asking() {
    let app = TestApp::start().await;
    app.hospital.faults(json!({"no_refresh_token": true})).await;
    let id = connected(&app).await;
    app.clock.advance(Duration::from_secs(571));
    until("expired", || async { app.connection("amy-7").await["status"] == "expired" }).await;
    let told = ledger(&app, id).await;
    assert_eq!(
        (&told["entries"][0]["kind"], &told["entries"][0]["why"]),
        (&json!("ended"), &json!("ran_out"))
    );
    assert!(told["grant"].is_null(), "tokens are gone: {told}");
}

#[tokio::test]
async fn refusals_in_other_words_end_a_grant_only_after_days() {
    for (error, status) in [("invalid_grant", 403), ("invalid_request", 400)] {
        let app = TestApp::start().await;
        let id = connected(&app).await;
        app.hospital.faults(json!({"suspended": {"*": {"error": error, "status": status}}})).await;
        app.clock.advance(Duration::from_secs(571));
        let grants = app.app().parts().grants.clone();
        let first = grants.access(id, RefreshedBy::Proxy).await;
        assert!(matches!(first, Err(AccessError::NotNow(_))), "{first:?}");
        let second = grants.access(id, RefreshedBy::Proxy).await;
        assert!(
            second.is_err() && refreshes(&app).await == 1,
            "who asks at once is told at once: {second:?}"
        );
        app.clock.advance(Duration::from_secs(30));
        let third = grants.access(id, RefreshedBy::Proxy).await;
        assert!(third.is_err() && refreshes(&app).await == 1, "it is left alone for a minute: {third:?}");
        for _ in 0..10 {
            app.clock.advance(Duration::from_hours(7));
            attend(&app).await;
        }
        assert_eq!(app.connection("amy-7").await["status"], "active", "two days and a half are not enough");
        assert_eq!(ledger(&app, id).await["grant"]["suspended"]["status"], status);
        for _ in 0..10 {
            app.clock.advance(Duration::from_hours(7));
            attend(&app).await;
        }
        until("ended", || async { app.connection("amy-7").await["status"] == "refresh_failed" }).await;
        let kinds = kinds(&app, id).await;
        assert_eq!(kinds.first().map(String::as_str), Some("ended"), "{kinds:?}");
        assert!(kinds.iter().any(|kind| kind == "suspended"), "{kinds:?}");
        let tries = refreshes(&app).await;
        assert!((6..=8).contains(&tries), "a few spaced tries: {tries}");
    }
}

#[tokio::test]
async fn a_suspended_grant_lives_on_when_the_hospital_relents() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    app.hospital.faults(json!({"suspended": {"*": {"error": "invalid_client", "status": 401}}})).await;
    app.clock.advance(Duration::from_secs(571));
    let refused = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
    assert!(matches!(refused, Err(AccessError::NotNow(_))), "{refused:?}");
    let calendar = Command::Calendar { days: 90 };
    let lapses = control::execute(app.app().parts(), calendar).await.expect("a calendar");
    assert_eq!(lapses[0]["what"], "suspended_grant", "{lapses}");
    app.hospital.well().await;
    // Nobody asks: the schedule finds out.
    app.clock.advance(Duration::from_mins(2));
    until("used again", || async { refreshes(&app).await == 2 }).await;
    until("no longer suspended", || async { ledger(&app, id).await["grant"]["suspended"].is_null() }).await;
    app.app().parts().grants.access(id, RefreshedBy::Proxy).await.expect("a token");
    assert_eq!(app.connection("amy-7").await["status"], "active");
}

#[tokio::test]
async fn a_new_signing_key_is_tried_at_once_on_a_refused_grant() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    app.hospital.faults(json!({"suspended": {"*": {"error": "invalid_client", "status": 401}}})).await;
    app.clock.advance(Duration::from_secs(571));
    let grants = app.app().parts().grants.clone();
    for _ in 0..4 {
        let _ = grants.access(id, RefreshedBy::Proxy).await;
        app.clock.advance(Duration::from_hours(2));
    }
    let asked = refreshes(&app).await;
    let suspended = grants.access(id, RefreshedBy::Proxy).await;
    assert!(
        matches!(suspended, Err(AccessError::Suspended { .. } | AccessError::NotNow(_))),
        "{suspended:?}"
    );
    assert_eq!(refreshes(&app).await, asked, "it is left alone for hours by now");
    let keys = &app.app().parts().signing_keys;
    keys.rotate(&[KeyType::Rsa2048]).await.expect("published");
    keys.activate(None, true).await.expect("switched");
    app.hospital.well().await;
    grants.access(id, RefreshedBy::Proxy).await.expect("tried at once with the new key");
    assert_eq!(refreshes(&app).await, asked + 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_costs_the_grant_only_where_the_hospital_is_strict() {
    for (grace, lives) in [(None, false), (Some(3600), true)] {
        let app = impatient().await;
        let id = connected(&app).await;
        app.clock.advance(Duration::from_secs(571));
        // Carried out at the hospital, and the answer never comes.
        app.hospital
            .faults(json!({"token_endpoint": "timeout-after-rotation", "superseded_grace_seconds": grace}))
            .await;
        let lost = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
        assert!(matches!(lost, Err(AccessError::NotNow(_))), "{lost:?}");
        assert!(ledger(&app, id).await["grant"]["unanswered_since"].is_string());
        assert_eq!(app.connection("amy-7").await["status"], "active", "a lost answer is no refusal");
        app.hospital.faults(json!({"token_endpoint": null})).await;
        app.clock.advance(Duration::from_secs(61));
        let again = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
        assert_eq!(again.is_ok(), lives, "{again:?}");
        let status = if lives { "active" } else { "refresh_failed" };
        assert_eq!(app.connection("amy-7").await["status"], status);
        if !lives {
            let kinds = kinds(&app, id).await;
            assert_eq!(&kinds[..2], ["ended", "refresh_failed"], "the ledger tells of the lost answer");
        }
    }
}

#[tokio::test]
async fn a_hospital_in_trouble_is_asked_at_most_once_a_minute() {
    for fault in ["429", "503", "html", "empty", "timeout-after-rotation"] {
        let app = impatient().await;
        let id = connected(&app).await;
        app.hospital.faults(json!({"token_endpoint": fault, "superseded_grace_seconds": 3600})).await;
        app.clock.advance(Duration::from_secs(571));
        let grants = app.app().parts().grants.clone();
        for second in 0..60 {
            assert!(grants.access(id, RefreshedBy::Proxy).await.is_err(), "{fault} {second}");
            app.clock.advance(Duration::from_secs(1));
        }
        assert_eq!(refreshes(&app).await, 1, "{fault}");
        app.hospital.faults(json!({"token_endpoint": null})).await;
        app.clock.advance(Duration::from_secs(2));
        grants.access(id, RefreshedBy::Proxy).await.unwrap_or_else(|error| panic!("{fault}: {error}"));
    }
}

#[tokio::test]
async fn retry_after_is_heeded() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    app.hospital.faults(json!({"token_endpoint": "429", "retry_after": {"seconds": 600}})).await;
    app.clock.advance(Duration::from_secs(571));
    let grants = app.app().parts().grants.clone();
    assert!(grants.access(id, RefreshedBy::Proxy).await.is_err());
    app.hospital.well().await;
    app.clock.advance(Duration::from_secs(590));
    assert!(grants.access(id, RefreshedBy::Proxy).await.is_err());
    assert_eq!(refreshes(&app).await, 1);
    app.clock.advance(Duration::from_secs(11));
    grants.access(id, RefreshedBy::Proxy).await.expect("a token");
}

#[tokio::test]
async fn lifetimes_in_every_spelling_are_refreshed_in_time() {
    for expires_in in [json!("missing"), json!("float"), json!("string"), json!(300.52), json!(20)] {
        let app = TestApp::start().await;
        app.hospital.faults(json!({"expires_in": expires_in})).await;
        let id = connected(&app).await;
        for round in 1..=3 {
            app.clock.advance(Duration::from_secs(620));
            let access = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
            access.unwrap_or_else(|error| panic!("{expires_in} {round}: {error}"));
            assert_eq!(refreshes(&app).await, round, "{expires_in}");
        }
    }
}

#[tokio::test]
async fn a_pull_has_its_next_token_fetched_while_the_present_one_works() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    let grants = app.app().parts().grants.clone();
    let old = grants.access(id, RefreshedBy::Pull).await.expect("a token").token;
    app.clock.advance(Duration::from_secs(400));
    let proxy = grants.access(id, RefreshedBy::Proxy).await.expect("a token").token;
    assert!(proxy == old && refreshes(&app).await == 0, "who reads once needs no new token yet");
    let pull = grants.access(id, RefreshedBy::Pull).await.expect("a token").token;
    assert_eq!(pull, old, "nobody waits");
    until("fetched ahead", || async { refreshes(&app).await == 1 }).await;
    until("handed out", || {
        let (grants, old) = (grants.clone(), old.clone());
        async move { grants.access(id, RefreshedBy::Pull).await.expect("a token").token != old }
    })
    .await;
    assert_eq!(refreshes(&app).await, 1);
}

#[tokio::test]
async fn clocks_that_differ_cost_no_connection_and_are_shown() {
    for skew in [-60, 60, -900, 900] {
        let app = TestApp::start().await;
        app.hospital.faults(json!({"clock_skew_seconds": skew})).await;
        let id = connected(&app).await;
        app.clock.advance(Duration::from_secs(571));
        let access = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
        access.unwrap_or_else(|error| panic!("{skew}: {error}"));
        let command = Command::SourceCheck { source: app.source.to_string() };
        let checked = control::execute(app.app().parts(), command).await.expect("a source");
        let shown = checked["discovery"]["clock_ahead_seconds"].as_i64().expect("a number");
        assert!((shown - skew).abs() <= 2, "{skew}: {shown}");
    }
}

#[tokio::test]
async fn the_ledger_says_honestly_what_came_of_giving_a_grant_back() {
    for (fault, outcome) in
        [(None, "done"), (Some("absent"), "no_endpoint"), (Some("unsupported_token_type"), "failed")]
    {
        let app = TestApp::start().await;
        if fault == Some("absent") {
            app.hospital.faults(json!({"revocation_endpoint": fault})).await;
        }
        let id = connected(&app).await;
        app.hospital.faults(json!({"revocation_endpoint": fault})).await;
        let path = format!("/patients/amy-7/connections/{id}");
        let answer = app.api("DELETE", &path, Value::Null).await.ok();
        assert_eq!(answer["disconnected"], true);
        until("noted", || async { kinds(&app, id).await[0] == "revoked" }).await;
        let told = ledger(&app, id).await;
        assert_eq!(told["entries"][0]["outcome"], outcome, "{told}");
        assert_eq!(told["entries"][1]["kind"], "disconnected", "{told}");
        assert!(told["grant"].is_null(), "{told}");
        let refused = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
        assert!(
            matches!(refused, Err(AccessError::NotActive(ConnectionStatus::Disconnected))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn the_calendar_tells_what_lapses_next() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    let create = Command::ApiKeyCreate {
        workspace: "sandbox".to_owned(),
        name: "short-lived".to_owned(),
        expires_in_days: Some(10),
        scopes: Vec::new(),
        fhir_types: Vec::new(),
    };
    control::execute(app.app().parts(), create).await.expect("a key");
    let lapses =
        control::execute(app.app().parts(), Command::Calendar { days: 90 }).await.expect("a calendar");
    let what: Vec<&str> =
        lapses.as_array().expect("a list").iter().filter_map(|line| line["what"].as_str()).collect();
    assert_eq!(what, ["api_key", "grant"], "{lapses}");
    assert_eq!(lapses[1]["name"], id.to_string());
    let days = lapses[1]["in_days"].as_u64().expect("a number");
    assert!((23..=25).contains(&days), "{lapses}");
    let text = lapses[1]["then"].as_str().expect("a text");
    assert!(text.contains("2027-01-31"), "Oracle Health drops what was not used for 90 days: {text}");
    let soon = control::execute(app.app().parts(), Command::Calendar { days: 5 }).await.expect("a calendar");
    assert_eq!(soon, json!([]));
}

#[tokio::test]
async fn access_that_cannot_be_renewed_is_good_to_its_end_whoever_asks() {
    let app = TestApp::start().await;
    app.hospital.faults(json!({"no_refresh_token": true})).await;
    let id = connected(&app).await;
    let grants = app.app().parts().grants.clone();
    let token = grants.access(id, RefreshedBy::Pull).await.expect("a token").token;
    // Where others would be renewed: ahead for a pull, and at four fifths of its life.
    for seconds in [350, 120, 90] {
        app.clock.advance(Duration::from_secs(seconds));
        for by in [RefreshedBy::Pull, RefreshedBy::Proxy] {
            let access = grants.access(id, by).await.expect("it works for a while yet");
            assert_eq!(access.token, token);
        }
        attend(&app).await;
        let rejected = grants.renew(id, &token, RefreshedBy::Proxy).await;
        assert!(
            matches!(rejected, Err(AccessError::Rejected)),
            "a 401 is no token endpoint's word: {rejected:?}"
        );
    }
    assert_eq!(app.connection("amy-7").await["status"], "active");
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_is_set_right_costs_nothing() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    let grants = app.app().parts().grants.clone();
    let mut ahead = grants.access(id, RefreshedBy::Proxy).await.expect("a token").token;
    for _ in 0..10 {
        app.clock.advance(DAY * 60);
        ahead = grants.access(id, RefreshedBy::Proxy).await.expect("a token").token;
    }
    app.clock.set_back(DAY * 600);
    let asked = refreshes(&app).await;
    let access = grants.access(id, RefreshedBy::Proxy).await.expect("a token");
    assert_ne!(access.token, ahead, "nobody knows how old that one is");
    assert_eq!(refreshes(&app).await, asked + 1);
    let due = ledger(&app, id).await["grant"]["due_at"].as_str().expect("a time").to_owned();
    assert!(due.as_str() < "2027", "it is due in weeks, not in years: {due}");
    app.clock.advance(DAY * 26);
    // The schedule that runs by itself may have gone to sleep before the clock was set right, for ten minutes at most.
    attend(&app).await;
    assert_eq!(refreshes(&app).await, asked + 2, "kept alive");
}

#[tokio::test]
async fn a_hospital_that_fails_at_renewal_does_not_take_away_what_still_works() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    let grants = app.app().parts().grants.clone();
    let token = grants.access(id, RefreshedBy::Proxy).await.expect("a token").token;
    app.hospital.faults(json!({"token_endpoint": "503"})).await;
    app.clock.advance(Duration::from_secs(500));
    let access =
        grants.access(id, RefreshedBy::Proxy).await.expect("the old one, which works for a minute yet");
    assert_eq!((access.token, refreshes(&app).await), (token, 1));
    app.clock.advance(Duration::from_secs(66));
    assert!(grants.access(id, RefreshedBy::Proxy).await.is_err(), "now it has ended");
}

#[tokio::test]
async fn an_answer_of_a_gateway_is_not_the_hospitals_word() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    app.hospital.faults(json!({"suspended": {"*": {"error": "Forbidden", "status": 403}}})).await;
    for _ in 0..40 {
        app.clock.advance(Duration::from_hours(12));
        let refused = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
        assert!(matches!(refused, Err(AccessError::NotNow(_))), "{refused:?}");
    }
    assert_eq!(app.connection("amy-7").await["status"], "active");
    app.hospital.well().await;
    app.clock.advance(Duration::from_hours(1));
    app.app().parts().grants.access(id, RefreshedBy::Proxy).await.expect("it works again");
}
