//! A pull that is cut off goes on at the page where it was; one that is held goes on when it may; and a record that the
//! server cannot give costs only itself.

use std::time::Duration;

use chartgate::records::{PullSettings, PullState, TypeState};
use serde_json::json;

use super::{connect_with, pull, pull_again, state, texts};
use crate::support::{Browser, Setup, TestApp};

/// A launch of the patient with many records that ends with the first pages on their way.
async fn long(app: &TestApp, faults: serde_json::Value) {
    let user = app.hospital.users().last().expect("the large one").username.clone();
    app.hospital.agrees(&user).await;
    app.hospital.faults(faults).await;
    let (link, _) = app.session("amy-7").await;
    app.journey(&mut Browser::default(), &link).await;
}

/// Waits until the hospital has answered so many requests for a type.
async fn answered(app: &TestApp, name: &str, count: u64) {
    let wait = async {
        while app.hospital.count(&format!("fhir.{name}.ok")).await < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.expect("it is asked");
}

#[tokio::test]
async fn after_a_restart_no_page_that_is_kept_is_read_again() {
    let mut app = TestApp::with(Setup { size: Some(2_000), ..Setup::default() }).await;
    long(&app, json!({"fhir": {"Procedure": {"status": "hang"}}})).await;
    answered(&app, "Observation", 3).await;
    app.stop().await;
    let asked = |log: Vec<serde_json::Value>| -> Vec<String> {
        let lines = log.into_iter().filter(|line| line["path"].to_string().contains("/Observation"));
        lines.map(|line| line["asked"]["query"].as_str().expect("a query").to_owned()).collect()
    };
    let before = asked(app.hospital.log("fhir").await);
    app.hospital.well().await;
    app.hospital.control("DELETE", "log", &serde_json::Value::Null).await;
    app.restart().await;
    let pull = pull(&app, "amy-7").await;
    assert_eq!(pull.state, PullState::Succeeded, "{pull:?}");
    let after = asked(app.hospital.log("fhir").await);
    let again: Vec<&String> = after.iter().filter(|query| before.contains(query)).collect();
    assert!(again.len() <= 1, "only the page that was on its way: {again:?}");
    assert!(!after.contains(&before[0]), "not from the beginning");
    let counted: usize = pull.types.iter().map(|report| report.count).sum();
    assert_eq!(texts(&app, "amy-7").await.len(), counted);
    assert!(counted >= 2_000, "{counted}");
}

#[tokio::test]
async fn pages_that_lapsed_are_read_from_the_beginning_once() {
    for lapse in [0, 2] {
        let app = TestApp::with(Setup { size: Some(2_000), ..Setup::default() }).await;
        long(&app, json!({"pages_lapse_after": lapse})).await;
        let pull = pull(&app, "amy-7").await;
        assert_eq!(pull.state, PullState::Succeeded, "{pull:?}");
        let counted: usize = pull.types.iter().map(|report| report.count).sum();
        assert_eq!(texts(&app, "amy-7").await.len(), counted);
        assert!(counted >= 2_000, "{counted}");
    }
}

#[tokio::test]
async fn a_record_that_the_server_cannot_give_costs_no_other() {
    let app = TestApp::with(Setup { size: Some(900), ..Setup::default() }).await;
    let user = app.hospital.users().last().expect("the large one").clone();
    let population = app.hospital.sandbox.population();
    let all = population.of(&user.patient, "Observation");
    let bad = &all[all.len() / 3];
    long(&app, json!({"inexpressible": format!("Observation/{}", bad.id)})).await;
    let pull = pull(&app, "amy-7").await;
    let report = pull.report("Observation").expect("a report");
    // Those of the same second cannot be told apart by time.
    let twins = all.iter().filter(|one| one.last_updated.since(bad.last_updated) < Duration::from_secs(2));
    let twins = twins.filter(|one| bad.last_updated.since(one.last_updated) < Duration::from_secs(2)).count();
    assert!(report.count >= all.len() - twins, "{} of {} ({twins}): {report:?}", report.count, all.len());
    assert!(report.count < all.len());
    assert_eq!(report.state, TypeState::Partial, "{report:?}");
    assert!(report.unreadable > 0 && report.note.is_some(), "{report:?}");
    assert_eq!(state(&pull, "Condition"), TypeState::Ok);
}

#[tokio::test]
async fn a_pull_that_is_held_keeps_its_place_and_goes_on_when_it_may() {
    let app = TestApp::with(Setup { size: Some(900), ..Setup::default() }).await;
    let pulls = app.app().parts().records.pulls().clone();
    pulls.pause(None).await.expect("written");
    long(&app, json!({})).await;
    assert_eq!(app.hospital.count("fhir.").await, 0, "nothing is read");
    assert_eq!(pulls.paused().await.expect("read").len(), 1);
    assert!(pulls.resume(None).await.expect("written"));
    assert!(!pulls.resume(None).await.expect("written"), "it was held no longer");
    assert_eq!(pull(&app, "amy-7").await.state, PullState::Succeeded);

    // One source only, in the middle of it, and over a restart.
    let mut app = app;
    let source = app.source;
    app.hospital.faults(json!({"fhir": {"Procedure": {"status": "hang"}}})).await;
    let before = app.hospital.count("fhir.Observation.ok").await;
    let id =
        pulls.latest(pull(&app, "amy-7").await.connection).await.expect("read").expect("a pull").connection;
    app.clock.advance(Duration::from_secs(1));
    pulls.want(id).await.expect("written");
    answered(&app, "Observation", before + 1).await;
    pulls.pause(Some(source)).await.expect("written");
    // It holds the store.
    drop(pulls);
    app.restart().await;
    app.hospital.well().await;
    let pulls = app.app().parts().records.pulls().clone();
    let held = pulls.paused().await.expect("read");
    assert!(held.contains_key(&Some(source)), "{held:?}");
    assert!(pulls.resume(Some(source)).await.expect("written"));
    let done = pull(&app, "amy-7").await;
    assert_eq!(done.state, PullState::Succeeded, "{done:?}");
}

#[tokio::test]
async fn a_pull_lets_others_have_its_turn_and_misses_nothing() {
    // One page a turn.
    let pulls = PullSettings { turn: Duration::ZERO, at_once: 1, ..Setup::default().pulls };
    let app = TestApp::with(Setup { size: Some(900), pulls, ..Setup::default() }).await;
    long(&app, json!({})).await;
    let done = pull(&app, "amy-7").await;
    assert_eq!(done.state, PullState::Succeeded, "{done:?}");
    let counted: usize = done.types.iter().map(|report| report.count).sum();
    assert_eq!(texts(&app, "amy-7").await.len(), counted);
}

#[tokio::test]
async fn a_hospital_that_hangs_costs_a_pull_its_time_and_no_more() {
    let pulls = PullSettings { longest: Duration::from_millis(300), ..Setup::default().pulls };
    let app = TestApp::with(Setup { pulls, ..Setup::default() }).await;
    let pull = connect_with(&app, json!({"fhir": {"Goal": {"status": "hang"}}})).await;
    assert!(matches!(pull.state, PullState::Partial | PullState::Failed), "{pull:?}");
    let report = pull.report("Goal").expect("a report");
    assert_eq!(report.state, TypeState::Failed, "{report:?}");
    assert!(report.note.as_deref().is_some_and(|note| note.contains("too long")), "{report:?}");
    // Another try has all of it.
    app.hospital.well().await;
    assert_ne!(state(&pull_again(&app, "amy-7").await, "Patient"), TypeState::NotShared);
}

#[tokio::test]
async fn a_server_that_asks_for_a_rest_gets_it() {
    let app = TestApp::start().await;
    let faults = json!({"fhir": {"Goal": {"status": 429, "times": 2}}, "retry_after": {"seconds": 3600}});
    let pull = connect_with(&app, faults).await;
    assert_eq!(pull.state, PullState::Succeeded, "{pull:?}");
    assert_eq!(app.hospital.count("fhir.Goal.fault").await, 2);
}
