//! What records name is read once each: attachments, people, places, medicines, and who entered what; a token goes to its
//! own FHIR base only.

use std::sync::Arc;

use chartgate::records::{PullState, TypeState};
use chartgate::sandbox::population::Population;
use serde_json::{Value, json};

use super::{pull, pull_again, texts};
use crate::support::{Setup, TestApp};

fn population(resources: &[Value]) -> Arc<Population> {
    let folder = tempfile::tempdir().expect("a folder");
    let lines: Vec<String> = resources.iter().map(Value::to_string).collect();
    std::fs::write(folder.path().join("all.ndjson"), lines.join("\n")).expect("written");
    let (population, _) = Population::load(folder.path()).expect("it loads");
    population.into()
}

fn patient() -> Value {
    json!({"resourceType": "Patient", "id": "p", "name": [{"text": "Ada"}]})
}

/// A document with these attachments.
fn document(id: &str, attachments: &Value) -> Value {
    let content: Vec<Value> =
        attachments.as_array().expect("a list").iter().map(|one| json!({"attachment": one})).collect();
    json!({
        "resourceType": "DocumentReference", "id": id, "status": "current",
        "subject": {"reference": "Patient/p"}, "content": content,
    })
}

fn file(id: &str, content_type: &str, data: &str) -> Value {
    json!({
        "resourceType": "Binary", "id": id, "contentType": content_type, "data": data,
        "securityContext": {"reference": "Patient/p"},
    })
}

async fn hospital(resources: &[Value], more_scopes: &[&str]) -> TestApp {
    let types =
        "Patient Observation DocumentReference MedicationRequest Encounter Condition Binary Provenance";
    let usual = "openid fhirUser launch/patient offline_access".split(' ').map(str::to_owned);
    let scopes = usual.chain(types.split(' ').map(|name| format!("patient/{name}.read")));
    let scopes = scopes.chain(more_scopes.iter().map(|scope| (*scope).to_owned())).collect();
    let app = TestApp::with(Setup {
        population: Some(population(resources)),
        scopes: Some(scopes),
        ..Setup::default()
    })
    .await;
    app.connected("ada", &app.hospital.users()[0].username).await;
    app
}

#[tokio::test]
async fn attachments_are_read_in_their_own_form_and_never_from_elsewhere() {
    let app = hospital(
        &[
            patient(),
            document(
                "1",
                &json!([
                    {"contentType": "application/pdf", "url": "Binary/XR-1"},
                    {"contentType": "text/html", "url": "https://fhir-open.cerner.com/r4/T/Binary/TR-1"},
                    {"contentType": "application/pdf", "url": "https://files.example/Binary/7"},
                    {"contentType": "application/xml", "url": "https://fhir.cerner.com/T/Binary/$autogen-ccd-if?patient=p"},
                    {"contentType": "application/rtf", "url": "Binary/XR-1-as-rtf"},
                    {"contentType": "text/plain", "data": "aGk="},
                ]),
            ),
            document("2", &json!([{"contentType": "application/pdf", "url": "Binary/XR-1"}])),
            file("XR-1", "application/pdf", "JVBERg=="),
            file("TR-1", "text/html", "PHA+aGk8L3A+"),
            file("XR-1-as-rtf", "application/pdf", "JVBERg=="),
        ],
        &[],
    )
    .await;
    let first = pull(&app, "ada").await;
    let kept = texts(&app, "ada").await;
    let pdf = r#"{"resourceType":"Binary","id":"XR-1","contentType":"application/pdf","data":"JVBERg=="}"#;
    assert_eq!(kept.get("Binary/XR-1").map(String::as_str), Some(pdf));
    assert!(kept.contains_key("Binary/TR-1"), "written anew on the base, where it is: {:?}", kept.keys());
    assert!(kept["Binary/XR-1-as-rtf"].contains("securityContext"), "406, so it came as FHIR");
    let report = first.report("Binary").expect("a report");
    assert_eq!((report.count, report.missing), (3, 2), "{report:?}");
    assert_eq!(report.state, TypeState::Partial, "two of five are not kept, and that is said: {report:?}");
    let asked = app.hospital.log("fhir").await;
    let asked: Vec<&Value> =
        asked.iter().filter(|line| line["path"].to_string().contains("/Binary/")).collect();
    let forms: Vec<&str> = asked.iter().filter_map(|line| line["asked"]["accept"].as_str()).collect();
    assert_eq!(asked.len(), 4, "once each, and one a second time in another form: {asked:?}");
    assert!(forms.contains(&"application/pdf") && forms.contains(&"text/html"), "{forms:?}");

    // What is there and whose document has not changed is not read again.
    let second = pull_again(&app, "ada").await;
    let report = second.report("Binary").expect("a report");
    assert_eq!(report.count, 3, "{report:?}");
    assert_eq!(second.stored, 0, "{second:?}");
    let again = app.hospital.log("fhir").await;
    let again = again.iter().filter(|line| line["path"].to_string().contains("/Binary/")).count();
    assert_eq!(again, 4, "nothing was read a second time");
}

#[tokio::test]
async fn attachments_that_are_not_there_or_not_shared_are_named() {
    let gone = document("1", &json!([{"contentType": "application/pdf", "url": "Binary/lost"}]));
    let app = hospital(&[patient(), gone.clone()], &[]).await;
    let report = pull(&app, "ada").await;
    assert_eq!(report.state, PullState::Partial);
    let report = report.report("Binary").expect("a report");
    assert_eq!((report.count, report.missing, report.state), (0, 1, TypeState::Partial), "{report:?}");
    assert!(report.note.as_deref().is_some_and(|note| note.contains("404")), "{report:?}");

    let app = TestApp::with(Setup {
        population: Some(population(&[patient(), gone])),
        scopes: Some(
            [
                "openid",
                "fhirUser",
                "launch/patient",
                "patient/Patient.read",
                "patient/DocumentReference.read",
            ]
            .map(str::to_owned)
            .to_vec(),
        ),
        ..Setup::default()
    })
    .await;
    app.connected("ada", &app.hospital.users()[0].username).await;
    let pull = pull(&app, "ada").await;
    let report = pull.report("Binary").expect("a report");
    assert_eq!((report.missing, report.state), (1, TypeState::NotShared), "{report:?}");
    assert_eq!(pull.state, PullState::Succeeded, "all that was shared is there: {pull:?}");
    assert_eq!(app.hospital.count("fhir.Binary.").await, 0);
}

fn with_people() -> Vec<Value> {
    let order = |id: &str| {
        json!({
            "resourceType": "MedicationRequest", "id": id, "subject": {"reference": "Patient/p"}, "intent": "plan",
            "medicationReference": {"reference": "Medication/m"}, "requester": {"reference": "Practitioner/dr"},
            "recorder": {"reference": "Practitioner/left"},
        })
    };
    vec![
        patient(),
        order("1"),
        order("2"),
        json!({"resourceType": "Medication", "id": "m", "code": {"text": "Aspirin"}}),
        json!({"resourceType": "Practitioner", "id": "dr"}),
        json!({
            "resourceType": "Encounter", "id": "e", "status": "finished", "subject": {"reference": "Patient/p"},
            "location": [{"location": {"reference": "Location/l"}}],
        }),
        json!({"resourceType": "Location", "id": "l", "managingOrganization": {"reference": "Organization/o"}}),
        json!({"resourceType": "Organization", "id": "o"}),
        json!({
            "resourceType": "Provenance", "id": "who", "recorded": "2026-01-01T00:00:00Z",
            "target": [{"reference": "Patient/p"}, {"reference": "MedicationRequest/1"}, {"reference": "Encounter/e"}],
            "agent": [{"who": {"reference": "Practitioner/dr"}}],
        }),
    ]
}

#[tokio::test]
async fn what_is_referred_to_is_read_once_each_where_scopes_allow_it() {
    let shared =
        ["user/Practitioner.read", "user/Location.read", "user/Organization.read", "user/Medication.read"];
    let app = hospital(&with_people(), &shared).await;
    let first = pull(&app, "ada").await;
    let kept = texts(&app, "ada").await;
    for name in ["Medication/m", "Practitioner/dr", "Location/l", "Organization/o", "Provenance/who"] {
        assert!(kept.contains_key(name), "{name}: {:?}", kept.keys());
    }
    for name in ["Medication", "Practitioner", "Location", "Organization"] {
        let asked = app.hospital.count(&format!("fhir.{name}.")).await;
        assert_eq!(asked, if name == "Practitioner" { 2 } else { 1 }, "{name}");
    }
    let report = first.report("Practitioner").expect("a report");
    assert_eq!((report.count, report.missing, report.state), (1, 1, TypeState::Ok), "{report:?}");
    assert_eq!(first.report("Provenance").map(|report| report.count), Some(1));
    assert_eq!(first.state, PullState::Succeeded, "who has left is no gap: {first:?}");

    let app = hospital(&with_people(), &[]).await;
    let kept = texts(&app, "ada").await;
    assert!(kept.contains_key("MedicationRequest/2") && !kept.contains_key("Practitioner/dr"));
    assert_eq!(app.hospital.count("fhir.Practitioner.").await, 0, "not shared, so not asked for");
}

#[tokio::test]
async fn a_server_that_refuses_provenance_still_gives_the_rest() {
    let app = hospital(&with_people(), &[]).await;
    let before = app.hospital.count("fhir.MedicationRequest.").await;
    assert_eq!(before, 1, "one page, with who entered it");
    app.hospital.faults(json!({"fhir": {"MedicationRequest": {"status": 403, "times": 1}}})).await;
    let pull = pull_again(&app, "ada").await;
    let report = pull.report("MedicationRequest").expect("a report");
    assert_eq!((report.count, report.state), (2, TypeState::Ok), "{report:?}");
    assert_eq!(app.hospital.count("fhir.MedicationRequest.ok").await, 2);
    // Which way the server takes is remembered.
    pull_again(&app, "ada").await;
    let asked = app.hospital.log("fhir").await;
    let last =
        asked.iter().rfind(|line| line["path"].to_string().contains("MedicationRequest")).expect("a line");
    assert!(!last["asked"]["query"].to_string().contains("_revinclude"), "{last}");
}
