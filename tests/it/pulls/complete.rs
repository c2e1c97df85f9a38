//! What a hospital holds, arrives: byte for byte, at servers of different vendors, and whatever is wrong with them is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use chartgate::records::{PullState, TypeState};
use chartgate::sandbox::Personality;
use chartgate::sandbox::population::{Population, Resource};
use chartgate::smart::RESOURCE_TYPES;
use chartgate::smart::vendors::VendorProfile;
use serde_json::json;

use super::{connect_with, pull, state, texts};
use crate::support::{Setup, TestApp, test_data};

/// A resource as the hospital sends it: links to its attachments are absolute there.
fn sent(app: &TestApp, resource: &Resource) -> String {
    let absolute = format!("\"url\":\"{}/Binary/", app.hospital.base);
    resource.json.replace("\"url\":\"Binary/", &absolute).replace("\"url\": \"Binary/", &absolute)
}

async fn arrive_byte_for_byte(app: &TestApp, shows: fn(&Resource) -> bool) {
    for user in app.hospital.users() {
        app.connected(&user.username, &user.username).await;
        let pull = pull(app, &user.username).await;
        let kept = texts(app, &user.username).await;
        let population = app.hospital.sandbox.population();
        for name in RESOURCE_TYPES {
            let all = population.of(&user.patient, name).iter().filter(|resource| shows(resource));
            let expected: BTreeMap<String, String> =
                all.map(|resource| (format!("{name}/{}", resource.id), sent(app, resource))).collect();
            let got: BTreeMap<&String, &String> =
                kept.iter().filter(|(key, _)| key.starts_with(&format!("{name}/"))).collect();
            assert_eq!(got.len(), expected.len(), "{name} of {}", user.patient);
            assert_eq!(pull.report(name).map(|report| report.count), Some(expected.len()), "{name}");
            // The Patient gets the app's own id, which another test looks at.
            let same = expected.iter().all(|(key, text)| got.get(key) == Some(&text));
            assert!(name == "Patient" || same, "{name} of {}: word for word", user.patient);
        }
        for report in pull.types.iter().filter(|report| report.state.is_trouble()) {
            // Some published documents name files on servers of others.
            let elsewhere = report.note.as_deref().is_some_and(|note| note.contains("another server"));
            assert!(report.resource_type == "Binary" && elsewhere, "{}: {report:?}", user.patient);
        }
        assert_ne!(pull.state, PullState::Failed, "{}: {pull:?}", user.patient);
    }
}

async fn at(personality: Personality, vendor: &'static str, population: Arc<Population>) -> TestApp {
    let smart_version = VendorProfile::named(vendor).expect("a profile").smart_version;
    TestApp::with(Setup {
        personality,
        vendor,
        smart_version,
        population: Some(population),
        ..Setup::default()
    })
    .await
}

fn published(folder: &str) -> Option<Arc<Population>> {
    let (population, _) = Population::load(&test_data()?.join(folder)).expect("the data loads");
    Some(population.into())
}

/// Epic shows Observations by category only, and one published file has a few under a category that nobody knows.
fn known_category(resource: &Resource) -> bool {
    resource.resource_type != "Observation"
        || !resource.category_codes.iter().any(|code| code == "vital-sign")
}

#[tokio::test]
async fn published_patients_arrive_byte_for_byte_from_oracle_health() {
    for folder in ["patients/served", "patients/bundles"] {
        let Some(population) = published(folder) else { return };
        let app = at(Personality::CernerPatient, "cerner", population).await;
        arrive_byte_for_byte(&app, |_| true).await;
    }
}

#[tokio::test]
async fn published_patients_arrive_byte_for_byte_from_epic() {
    let Some(population) = published("patients/served") else { return };
    arrive_byte_for_byte(&at(Personality::Epic, "epic", population).await, known_category).await;
}

#[tokio::test]
async fn published_patients_arrive_byte_for_byte_from_eclinicalworks() {
    let Some(population) = published("patients/served") else { return };
    let app = at(Personality::Eclinicalworks, "eclinicalworks", population).await;
    arrive_byte_for_byte(&app, |_| true).await;
}

#[tokio::test]
async fn made_up_patients_arrive_byte_for_byte_from_every_server_that_patients_use() {
    for (personality, vendor) in [
        (Personality::CernerPatient, "cerner"),
        (Personality::Epic, "epic"),
        (Personality::Eclinicalworks, "eclinicalworks"),
        (Personality::Generic, "generic"),
    ] {
        let population = Population::synthetic(&chartgate::crypto::Random::seeded(1), None);
        arrive_byte_for_byte(&at(personality, vendor, population.into()).await, |_| true).await;
    }
}

/// With each switch on in turn, for one type or for all: everything is there, or the report names what is not.
#[tokio::test]
async fn with_every_fault_the_result_is_complete_or_what_is_missing_is_named() {
    let usual = TestApp::start().await;
    let whole = connect_with(&usual, json!({})).await;
    assert_eq!(whole.state, PullState::Succeeded);
    let faults = [401, 403, 429, 500, 503].map(|status| json!(status)).into_iter();
    let faults = faults.chain(["html", "empty", "half-json", "huge", "redirect"].map(|word| json!(word)));
    let of_types = faults.flat_map(|fault| {
        let once = json!({"fhir": {"*": {"status": fault, "times": 1}}});
        [json!({"fhir": {"Observation": {"status": fault}}}), once]
    });
    let of_pages = [
        json!({"next_elsewhere": true}),
        json!({"next_loop": true}),
        json!({"repeated_ids": true}),
        json!({"suppressed_outcome_entry": true}),
        json!({"empty_page_with_next": true}),
        json!({"pages_lapse_after": 0}),
        json!({"fhir": {"Goal": {"status": 429, "times": 1}}, "retry_after": {"seconds": 1}}),
        json!({"narrow_scopes": ["Patient", "Observation"]}),
        json!({"no_refresh_token": true}),
        json!({"expires_in": 20}),
    ];
    for fault in of_types.chain(of_pages) {
        let app = TestApp::start().await;
        let pull = connect_with(&app, fault.clone()).await;
        for report in &whole.types {
            let got = pull.report(&report.resource_type);
            let complete = got.is_some_and(|got| got.count == report.count && got.state == TypeState::Ok);
            let by_reference = !RESOURCE_TYPES.contains(&report.resource_type.as_str());
            let named = got.is_some_and(|got| {
                let why = got.note.is_some() || got.withheld > 0 || got.state == TypeState::NotShared;
                got.state != TypeState::Ok && why
            });
            // Attachments of documents that did not come are named with their documents.
            let documents = ["DocumentReference", "DiagnosticReport"];
            let follows = by_reference && documents.iter().any(|name| state(&pull, name) != TypeState::Ok);
            assert!(complete || named || follows, "{fault}: {} {got:?}", report.resource_type);
        }
        assert_eq!(app.hospital.count("elsewhere.").await, 0, "{fault}: nothing was followed elsewhere");
    }
}
