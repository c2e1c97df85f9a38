//! Reading records from servers that misbehave: what is there arrives, what is missing is named, and a token goes to its
//! own FHIR base only.

mod again;
mod answers;
mod complete;
mod named;
mod resumed;

use std::collections::BTreeMap;

use chartgate::id::{ConnectionId, Id as _};
use chartgate::records::{Pull, PullState, TypeState};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::{Browser, Setup, TestApp};

async fn pull(app: &TestApp, patient: &str) -> Pull {
    app.pulls_done().await;
    let id = app.connection(patient).await["id"].as_str().expect("an id").to_owned();
    let id = ConnectionId::parse(&id).expect("an id");
    app.app().parts().records.pulls().latest(id).await.expect("read").expect("a pull")
}

fn state(pull: &Pull, name: &str) -> TypeState {
    pull.types.iter().find(|report| report.resource_type == name).expect("a type").state
}

async fn connect_with(app: &TestApp, faults: Value) -> Pull {
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    app.hospital.faults(faults).await;
    let (link, _) = app.session("amy-7").await;
    let page = app.journey(&mut Browser::default(), &link).await;
    assert!(page.text.contains("Connected to"), "{}", page.text);
    pull(app, "amy-7").await
}

/// Another pull of the same connection.
async fn pull_again(app: &TestApp, patient: &str) -> Pull {
    let id = app.connection(patient).await["id"].as_str().expect("an id").to_owned();
    let id = ConnectionId::parse(&id).expect("an id");
    // Two wishes of one instant are one.
    app.clock.advance(std::time::Duration::from_secs(1));
    assert!(app.app().parts().records.pulls().want(id).await.expect("written"));
    pull(app, patient).await
}

/// The patient's records as they are sent: type and id, and the text.
async fn texts(app: &TestApp, patient: &str) -> BTreeMap<String, String> {
    let export = app.api("GET", &format!("/patients/{patient}/records/export"), Value::Null).await;
    let mut found = BTreeMap::new();
    for line in export.text.lines() {
        #[derive(serde::Deserialize)]
        struct Line<'l> {
            #[serde(borrow)]
            resource: &'l RawValue,
        }
        let line: Line<'_> = serde_json::from_str(line).expect("a line of JSON");
        let resource: Value = serde_json::from_str(line.resource.get()).expect("JSON");
        let name = format!(
            "{}/{}",
            resource["resourceType"].as_str().expect("a type"),
            resource["id"].as_str().expect("an id")
        );
        assert!(
            found.insert(name.clone(), line.resource.get().to_owned()).is_none(),
            "{name} is there twice"
        );
    }
    found
}

#[tokio::test]
async fn everything_the_hospital_has_arrives_count_for_count() {
    let app = TestApp::with(Setup { size: Some(700), ..Setup::default() }).await;
    let user = app.hospital.users().last().expect("the large one").clone();
    app.connected("large", &user.username).await;
    let pull = pull(&app, "large").await;
    assert_eq!(pull.state, PullState::Succeeded, "{pull:?}");
    let counted: usize = pull.types.iter().map(|report| report.count).sum();
    let records = app.records("large", "").await;
    assert_eq!(records.len(), counted);
    assert!(counted >= 700, "{counted}");
    let mut names: Vec<String> = records
        .iter()
        .map(|record| format!("{}/{}", record["resource"]["resourceType"], record["resource"]["id"]))
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), counted, "each resource once");
}

#[tokio::test]
async fn one_types_failure_ends_neither_the_pull_nor_the_others() {
    for (fault, expected) in [
        (json!(403), TypeState::Forbidden),
        (json!(429), TypeState::Failed),
        (json!(503), TypeState::Failed),
        (json!(500), TypeState::Failed),
        (json!(401), TypeState::Failed),
        (json!("html"), TypeState::Failed),
        (json!("empty"), TypeState::Failed),
        (json!("half-json"), TypeState::Failed),
        (json!("huge"), TypeState::Failed),
        (json!("redirect"), TypeState::Failed),
    ] {
        let app = TestApp::start().await;
        let pull = connect_with(&app, json!({"fhir": {"Condition": {"status": fault}}})).await;
        assert_eq!(state(&pull, "Condition"), expected, "{fault}: {pull:?}");
        assert_eq!(pull.state, PullState::Partial, "{fault}");
        assert_eq!(state(&pull, "Observation"), TypeState::Ok, "{fault}");
        let note = pull.types.iter().find_map(|report| report.note.clone()).expect("a note");
        assert!(!note.is_empty());
        assert_eq!(app.hospital.count("elsewhere.").await, 0, "{fault}: nothing was followed elsewhere");
    }
}

#[tokio::test]
async fn a_fault_that_passes_is_waited_for() {
    for fault in [json!(429), json!(503), json!(500), json!("html")] {
        let app = TestApp::start().await;
        let pull = connect_with(&app, json!({"fhir": {"Condition": {"status": fault, "times": 2}}})).await;
        assert_eq!(pull.state, PullState::Succeeded, "{fault}: {pull:?}");
    }
}

#[tokio::test]
async fn a_401_for_a_token_of_a_moment_ago_burns_no_refresh_token() {
    let app = TestApp::start().await;
    let pull = connect_with(&app, json!({"fhir": {"Goal": {"status": 401}}})).await;
    assert_eq!(state(&pull, "Goal"), TypeState::Failed, "{pull:?}");
    assert_eq!(pull.state, PullState::Partial);
    assert_eq!(app.hospital.count("token.refresh_token.").await, 0);
}

#[tokio::test]
async fn pages_that_lead_away_or_in_circles_are_not_followed() {
    let large = || Setup { size: Some(900), ..Setup::default() };
    for (fault, note) in [("next_elsewhere", "leads away"), ("next_loop", "circle")] {
        let app = TestApp::with(large()).await;
        let user = app.hospital.users().last().expect("the large one").username.clone();
        app.hospital.agrees(&user).await;
        app.hospital.faults(json!({fault: true})).await;
        let (link, _) = app.session("amy-7").await;
        app.journey(&mut Browser::default(), &link).await;
        let pull = pull(&app, "amy-7").await;
        let report = pull.types.iter().find(|report| report.resource_type == "Observation").expect("there");
        assert_eq!(report.state, TypeState::Partial, "{fault}: {report:?}");
        assert!(report.note.as_deref().is_some_and(|text| text.contains(note)), "{fault}: {report:?}");
        assert_eq!(app.hospital.count("elsewhere.").await, 0, "{fault}");
    }
}

#[tokio::test]
async fn odd_pages_cost_nothing() {
    for fault in ["repeated_ids", "empty_page_with_next"] {
        let app = TestApp::with(Setup { size: Some(900), ..Setup::default() }).await;
        let user = app.hospital.users().last().expect("the large one").username.clone();
        app.hospital.agrees(&user).await;
        app.hospital.faults(json!({fault: true})).await;
        let (link, _) = app.session("amy-7").await;
        app.journey(&mut Browser::default(), &link).await;
        let pull = pull(&app, "amy-7").await;
        assert_eq!(pull.state, PullState::Succeeded, "{fault}: {pull:?}");
        let counted: usize = pull.types.iter().map(|report| report.count).sum();
        assert_eq!(app.records("amy-7", "").await.len(), counted, "{fault}");
        assert!(counted >= 900, "{fault}: {counted}");
    }
    let app = TestApp::start().await;
    let pull = connect_with(&app, json!({"suppressed_outcome_entry": true})).await;
    let report = pull.types.iter().find(|report| report.resource_type == "Condition").expect("there");
    assert!(report.withheld > 0 && report.state == TypeState::Partial, "{report:?}");
    assert!(app.records("amy-7", "type=OperationOutcome").await.is_empty(), "an outcome is not a record");
}

#[tokio::test]
async fn long_pulls_outlive_their_ten_minute_tokens() {
    let app = TestApp::with(Setup { size: Some(900), ..Setup::default() }).await;
    let user = app.hospital.users().last().expect("the large one").username.clone();
    app.hospital.agrees(&user).await;
    app.hospital.faults(json!({"expires_in": 60})).await;
    let (link, _) = app.session("amy-7").await;
    app.journey(&mut Browser::default(), &link).await;
    // Tokens of a minute, and three seconds that pass with every request the hospital gets, for both sides.
    let ticking = async {
        let mut seen = 0;
        loop {
            let requests = app.hospital.count("fhir.").await;
            if requests > seen {
                app.clock.advance(std::time::Duration::from_secs(3));
            }
            seen = requests;
        }
    };
    let pull = tokio::select! {
        pull = pull(&app, "amy-7") => pull,
        () = ticking => unreachable!("it ticks for ever"),
    };
    assert_eq!(pull.state, PullState::Succeeded, "{pull:?}");
    assert!(app.hospital.count("token.refresh_token.").await >= 1, "tokens ran out on the way");
}

#[tokio::test]
async fn numbers_keep_their_text_and_reading_again_changes_nothing() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    app.connected("amy-7", &user.username).await;
    let page = app.api("GET", "/patients/amy-7/records?type=Observation", Value::Null).await;
    let resources = app.hospital.sandbox.population().of(&user.patient, "Observation").to_vec();
    let with_decimal = resources.iter().find(|resource| resource.json.contains(".0")).or(resources.first());
    let original = with_decimal.expect("an observation");
    let served = app.records("amy-7", "type=Observation").await.len();
    assert_eq!(served, resources.len());
    let all = std::iter::once(page.text).collect::<String>();
    assert!(all.contains(&*original.json), "the text of {} is as the hospital wrote it", original.id);

    let before = app.records("amy-7", "").await.len();
    let since = app.clock.now();
    app.connected("amy-7", &user.username).await;
    assert_eq!(app.records("amy-7", "").await.len(), before);
    let changed = app.records("amy-7", &format!("since={since}")).await;
    assert!(changed.is_empty(), "nothing changed, so nothing is new: {}", changed.len());
}

#[tokio::test]
async fn an_interrupted_pull_is_finished_after_a_restart() {
    let mut app = TestApp::with(Setup { size: Some(900), ..Setup::default() }).await;
    let user = app.hospital.users().last().expect("the large one").username.clone();
    app.hospital.agrees(&user).await;
    app.hospital.faults(json!({"fhir": {"Procedure": {"status": "hang"}}})).await;
    let (link, _) = app.session("amy-7").await;
    app.journey(&mut Browser::default(), &link).await;
    // Stopped in the middle of it: one type never answers.
    app.hospital.well().await;
    app.restart().await;
    let pull = pull(&app, "amy-7").await;
    assert_eq!(pull.state, PullState::Succeeded, "{pull:?}");
    let counted: usize = pull.types.iter().map(|report| report.count).sum();
    assert_eq!(app.records("amy-7", "").await.len(), counted);
}
