//! Answers that a vendor published as examples, and odd resources of the HL7 test cases, served to the puller: what is the
//! patient's is kept word for word, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chartgate::records::TypeState;
use chartgate::sandbox::population::Population;
use chartgate::smart::RESOURCE_TYPES;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{pull_again, texts};
use crate::support::{Setup, TestApp, test_data};

/// One prepared answer, and what should come of it.
struct Answer {
    file: String,
    body: String,
    /// The patient whose record it is about.
    patient: String,
    /// The type that it is the answer to a search for.
    resource_type: &'static str,
    /// What is the patient's, by type and id, word for word.
    kept: BTreeMap<String, String>,
    withheld: usize,
    unreadable: usize,
    strange: bool,
    is_page: bool,
    leads_on: bool,
}

fn owner(resource: &Value) -> Option<String> {
    if resource["resourceType"] == "Patient" {
        return resource["id"].as_str().map(str::to_owned);
    }
    ["subject", "patient", "beneficiary"].iter().find_map(|name| {
        let reference = resource[name]["reference"].as_str()?;
        let (kind, id) = reference.rsplit_once('/')?;
        (kind == "Patient" || kind.ends_with("/Patient")).then(|| id.to_owned())
    })
}

#[derive(serde::Deserialize)]
struct Page<'p> {
    #[serde(borrow, default)]
    entry: Vec<Entry<'p>>,
}

#[derive(serde::Deserialize)]
struct Entry<'p> {
    #[serde(borrow)]
    resource: Option<&'p RawValue>,
    search: Option<Value>,
}

fn read(file: &Path, wrapped: bool) -> Answer {
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let mut body = std::fs::read_to_string(file).expect("a text");
    let mut whole: Value = serde_json::from_str(&body).unwrap_or_default();
    if wrapped && whole["resourceType"] != "Bundle" {
        body = format!(r#"{{"resourceType":"Bundle","type":"searchset","entry":[{{"resource":{body}}}]}}"#);
        whole = serde_json::from_str(&body).expect("JSON");
    }
    let is_page = whole["resourceType"] == "Bundle";
    let entries: Vec<&Value> = match whole["entry"].as_array() {
        Some(entries) if is_page => entries.iter().map(|entry| &entry["resource"]).collect(),
        _ => vec![&whole],
    };
    let patient = entries.iter().find_map(|resource| owner(resource)).unwrap_or_else(|| "nobody".to_owned());
    let searched = |resource: &&Value| {
        let kind = resource["resourceType"].as_str()?;
        RESOURCE_TYPES.into_iter().find(|known| *known == kind && kind != "Patient")
    };
    let resource_type = entries.iter().find_map(searched).unwrap_or("Observation");
    let mut answer = Answer {
        file: name,
        patient,
        resource_type,
        kept: BTreeMap::new(),
        withheld: 0,
        unreadable: 0,
        strange: false,
        is_page,
        leads_on: whole["link"].as_array().into_iter().flatten().any(|link| link["relation"] == "next"),
        body,
    };
    if is_page {
        answer.expect_entries();
    }
    answer
}

impl Answer {
    fn expect_entries(&mut self) {
        let page: Page<'_> = serde_json::from_str(&self.body).expect("a page");
        for entry in page.entry {
            let Some(raw) = entry.resource else { continue };
            let resource: Value = serde_json::from_str(raw.get()).expect("JSON");
            let kind = resource["resourceType"].as_str().unwrap_or_default();
            let mode = entry.search.as_ref().and_then(|search| search["mode"].as_str());
            if kind == "OperationOutcome" || mode == Some("outcome") {
                self.withheld += 1;
                continue;
            }
            let Some(id) = resource["id"].as_str() else {
                self.unreadable += 1;
                continue;
            };
            let strange = owner(&resource).is_some_and(|owner| owner != self.patient);
            self.strange |= strange;
            if !strange && (kind == self.resource_type || mode == Some("include")) {
                self.kept.insert(format!("{kind}/{id}"), raw.get().to_owned());
            }
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "json") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Serves each answer in turn to a pull of the patient whom it is about.
async fn serve(answers: &[Answer]) {
    let patients: BTreeSet<&str> = answers.iter().map(|answer| answer.patient.as_str()).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let lines: Vec<String> = patients
        .iter()
        .map(|id| json!({"resourceType": "Patient", "id": id, "name": [{"text": "Somebody"}]}).to_string())
        .collect();
    std::fs::write(folder.path().join("patients.ndjson"), lines.join("\n")).expect("written");
    let (population, _) = Population::load(folder.path()).expect("it loads");
    let app = TestApp::with(Setup { population: Some(Arc::new(population)), ..Setup::default() }).await;
    for user in app.hospital.users() {
        app.connected(&user.patient, &user.username).await;
        let mut expected = BTreeMap::new();
        for answer in answers.iter().filter(|answer| answer.patient == user.patient) {
            app.hospital.answers(answer.resource_type, answer.body.clone());
            let pull = pull_again(&app, &user.patient).await;
            app.hospital.answers.lock().expect("no panic inside").clear();
            let report = pull.report(answer.resource_type).expect("a report");
            let named = (answer.withheld, answer.unreadable);
            assert_eq!((report.withheld, report.unreadable), named, "{}: {report:?}", answer.file);
            let clean = named == (0, 0) && !answer.strange && !answer.leads_on && answer.is_page;
            assert_eq!(report.state == TypeState::Ok, clean, "{}: {report:?}", answer.file);
            assert!(clean || report.note.is_some() || named != (0, 0), "{}: {report:?}", answer.file);
            expected.extend(answer.kept.clone());
        }
        let mut kept = texts(&app, &user.patient).await;
        kept.retain(|name, _| !name.starts_with("Patient/"));
        let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&kept), names(&expected), "{}", user.patient);
        for (name, text) in &expected {
            // White space between tokens is not kept on lines of their own.
            let same = |text: &str| serde_json::from_str::<Value>(text).expect("JSON").to_string();
            assert_eq!(same(&kept[name]), same(text), "{name}");
        }
    }
    assert_eq!(app.hospital.count("elsewhere.").await, 0);
}

#[tokio::test]
async fn a_vendors_published_answers_are_kept_or_refused_as_they_should_be() {
    let Some(data) = test_data() else { return };
    let answers: Vec<Answer> =
        files(&data.join("patients/cerner-examples")).iter().map(|file| read(file, false)).collect();
    assert_eq!(answers.len(), 124);
    assert!(
        answers.iter().filter(|answer| !answer.kept.is_empty()).count() > 60,
        "most are pages of records"
    );
    assert!(answers.iter().any(|answer| answer.leads_on) && answers.iter().any(|answer| !answer.is_page));
    serve(&answers).await;
}

#[tokio::test]
async fn odd_resources_are_kept_word_for_word_or_counted() {
    let Some(data) = test_data() else { return };
    let answers: Vec<Answer> =
        files(&data.join("patients/edge")).iter().map(|file| read(file, true)).collect();
    assert_eq!(answers.len(), 10);
    serve(&answers).await;
}
