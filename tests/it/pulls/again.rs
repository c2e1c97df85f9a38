//! Reading again: on a schedule while access holds, what has changed only where that is enough, and with a report that says
//! what is other than last time.

use std::sync::Arc;
use std::time::Duration;

use chartgate::id::{ConnectionId, Id as _};
use chartgate::records::{Pull, PullSettings, PullState, TypeState};
use chartgate::sandbox::Personality;
use serde_json::{Value, json};

use super::{pull, pull_again, texts};
use crate::support::{Browser, Receiver, Setup, TestApp};

const DAY: Duration = Duration::from_hours(24);

fn daily() -> PullSettings {
    PullSettings { every: DAY, ..Setup::default().pulls }
}

async fn connection(app: &TestApp, patient: &str) -> ConnectionId {
    let id = app.connection(patient).await["id"].as_str().expect("an id").to_owned();
    ConnectionId::parse(&id).expect("an id")
}

/// Waits until so many pulls have ended; the newest.
async fn pulls_ended(app: &TestApp, id: ConnectionId, count: usize) -> Pull {
    let wait = async {
        loop {
            let mut ended = app.app().parts().records.pulls().ended(id).await.expect("read");
            if ended.len() >= count {
                return ended.remove(0);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.expect("it is pulled again")
}

async fn queries(app: &TestApp, name: &str) -> Vec<String> {
    let log = app.hospital.log("fhir").await;
    let lines = log.iter().filter(|line| line["path"].to_string().contains(&format!("/{name}")));
    lines.map(|line| line["asked"]["query"].as_str().expect("a query").to_owned()).collect()
}

/// A page with these Observations.
fn page(ids: &[&str]) -> String {
    let entries: Vec<Value> = ids
        .iter()
        .map(|id| {
            json!({"resource": {
                "resourceType": "Observation", "id": id, "subject": {"reference": "Patient/p"},
                "effectiveDateTime": "2026-10-01",
            }})
        })
        .collect();
    json!({"resourceType": "Bundle", "type": "searchset", "entry": entries}).to_string()
}

/// One patient without records at a hospital of this vendor.
async fn hospital(personality: Personality, vendor: &'static str, pulls: PullSettings) -> TestApp {
    let folder = tempfile::tempdir().expect("a folder");
    let patient = json!({"resourceType": "Patient", "id": "p", "name": [{"text": "Ada"}]}).to_string();
    std::fs::write(folder.path().join("p.ndjson"), patient).expect("written");
    let (population, _) = chartgate::sandbox::population::Population::load(folder.path()).expect("it loads");
    TestApp::with(Setup {
        personality,
        vendor,
        pulls,
        population: Some(Arc::new(population)),
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn records_are_read_again_while_access_holds_and_not_longer() {
    let app = TestApp::with(Setup { pulls: daily(), ..Setup::default() }).await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let id = connection(&app, "amy-7").await;
    let first = pull(&app, "amy-7").await;
    let next = first.next_at.expect("a time");
    assert!(next > app.clock.now() && next <= app.clock.now().after(DAY), "{next}");
    app.clock.advance(DAY);
    let second = pulls_ended(&app, id, 2).await;
    assert_eq!(second.state, PullState::Succeeded, "{second:?}");
    assert_eq!(second.stored, 0, "nothing is new");
    for name in ["Observation", "Goal"] {
        let (before, after) = (first.report(name).expect("there"), second.report(name).expect("there"));
        assert_eq!((after.count, after.before), (before.count, Some(before.count)), "{name}");
    }
    // Only what has changed, where the server can tell; all of it where it cannot.
    let asked = queries(&app, "Observation").await;
    assert!(asked.last().is_some_and(|query| query.matches("_lastUpdated=").count() == 2), "{asked:?}");
    let asked = queries(&app, "Goal").await;
    assert!(asked.iter().all(|query| !query.contains("_lastUpdated")), "{asked:?}");

    let since = app.clock.now();
    app.api("DELETE", &format!("/patients/amy-7/connections/{id}"), Value::Null).await.ok();
    app.hospital.control("DELETE", "log", &Value::Null).await;
    app.clock.advance(DAY * 2);
    app.pulls_done().await;
    assert_eq!(app.hospital.count("fhir.").await, 0, "nothing after {since}");
}

#[tokio::test]
async fn once_a_month_everything_is_read_and_compared() {
    let app = hospital(Personality::CernerPatient, "cerner", daily()).await;
    app.hospital.answers("Observation", page(&["1", "2", "3"]));
    app.connected("ada", &app.hospital.users()[0].username).await;
    let id = connection(&app, "ada").await;
    // The server says only what has changed, and two of three have gone.
    app.hospital.answers("Observation", page(&["4"]));
    app.clock.advance(DAY);
    let second = pulls_ended(&app, id, 2).await;
    let report = second.report("Observation").expect("a report");
    assert_eq!((report.count, report.before, report.vanished), (4, Some(3), 0), "{report:?}");
    app.hospital.answers("Observation", page(&["3", "4"]));
    app.clock.advance(DAY * 30);
    let third = pulls_ended(&app, id, 3).await;
    let report = third.report("Observation").expect("a report");
    assert_eq!((report.count, report.before, report.vanished), (2, Some(4), 2), "{report:?}");
    assert_eq!(texts(&app, "ada").await.len(), 5, "what is gone there is marked, and kept here");
    // What comes back is gone no longer.
    app.hospital.answers("Observation", page(&["1", "3", "4"]));
    let fourth = pull_again(&app, "ada").await;
    let report = fourth.report("Observation").expect("a report");
    assert_eq!((report.count, report.vanished), (3, 1), "{report:?}");
}

#[tokio::test]
async fn a_type_that_fell_to_none_is_told_once() {
    let app = hospital(Personality::Generic, "generic", Setup::default().pulls).await;
    let receiver = Receiver::start().await;
    let endpoint = json!({"url": receiver.url, "events": ["chartgate.connection.gaps"]});
    app.api("POST", "/webhooks", endpoint).await.ok();
    app.hospital.answers("Observation", page(&["1", "2"]));
    app.connected("ada", &app.hospital.users()[0].username).await;
    app.hospital.answers("Observation", page(&[]));
    let second = pull_again(&app, "ada").await;
    let report = second.report("Observation").expect("a report");
    assert!(report.fell_to_none() && report.vanished == 2, "{report:?}");
    let told = receiver.next().await.json();
    let told = &told["data"]["object"];
    assert_eq!(told["missing"], json!(["Observation"]), "{told}");
    let types = told["records"]["types"].as_array().expect("a list");
    let row = types.iter().find(|row| row["type"] == "Observation").expect("a row");
    assert_eq!((&row["count"], &row["before"]), (&json!(0), &json!(2)), "{row}");
    assert_eq!(texts(&app, "ada").await.len(), 3, "they are kept");
    pull_again(&app, "ada").await;
    app.hospital.answers("Observation", "no JSON");
    pull_again(&app, "ada").await;
    let told = receiver.next().await.json();
    let types = told["data"]["object"]["records"]["types"].as_array().expect("a list");
    let row = types.iter().find(|row| row["type"] == "Observation").expect("a row");
    assert_eq!(row["state"], "failed", "the one that said the same again was not told: {row}");
}

#[tokio::test]
async fn the_patients_page_says_what_did_not_come_in_plain_words() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    app.hospital.faults(json!({"fhir": {"Immunization": {"status": 500}}})).await;
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    app.journey(&mut browser, &link).await;
    let done = pull(&app, "amy-7").await;
    assert_eq!(done.report("Immunization").map(|report| report.state), Some(TypeState::Failed));
    let id = connection(&app, "amy-7").await;
    let page = browser.get(&format!("{link}/progress/{id}")).await.text;
    assert!(page.contains("some are missing") && page.contains("Vaccines"), "{page}");
    assert!(!page.contains("All here") && !page.contains("500") && !page.contains("Immunization"), "{page}");
    app.hospital.well().await;
    pull_again(&app, "amy-7").await;
    let page = browser.get(&format!("{link}/progress/{id}")).await.text;
    assert!(page.contains("All here") && !page.contains("Vaccines</li>"), "{page}");
}

#[tokio::test]
async fn the_report_says_how_old_and_how_new_the_records_are() {
    let app = TestApp::start().await;
    app.connected("amy-7", &app.hospital.users()[0].username).await;
    let done = pull(&app, "amy-7").await;
    for name in
        ["Observation", "Encounter", "Procedure", "Immunization", "MedicationRequest", "DocumentReference"]
    {
        let report = done.report(name).expect("a report");
        let (oldest, newest) = (report.oldest.as_deref(), report.newest.as_deref());
        assert!(oldest.is_some() && oldest <= newest, "{report:?}");
    }
    assert_eq!(done.report("Patient").expect("a report").oldest, None, "a birthday is no date of a record");
}
