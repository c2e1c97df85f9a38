//! The sandbox hospital's people: generated for a seed, or loaded from a folder.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use chartgate::crypto::Random;
use chartgate::sandbox::population::{LoadError, NotTaken, Population, RECORD_TYPES, Reason, Resource};
use serde_json::Value;

use crate::support::test_data;

fn synthetic(size: Option<usize>) -> Population {
    Population::synthetic(&Random::seeded(7), size)
}

/// Calls `seen` with each value of a member called `reference` or `url`.
fn links(value: &Value, seen: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| links(item, seen)),
        Value::Object(members) => {
            for (key, member) in members {
                match member.as_str() {
                    Some(text) if key == "reference" || key == "url" => seen(key, text),
                    _ => links(member, seen),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn json(resource: &Resource) -> Value {
    serde_json::from_str(&resource.json).expect("a resource is JSON")
}

#[test]
fn a_seed_gives_the_same_ten_people_whatever_else_is_asked_for() {
    let (first, second, with_eleventh) = (synthetic(None), synthetic(None), synthetic(Some(40)));
    assert_eq!(first.people.len(), 10);
    assert_eq!(first.resources(), second.resources());
    for patient_id in first.patient_ids() {
        for resource_type in RECORD_TYPES {
            assert_eq!(first.of(patient_id, resource_type), with_eleventh.of(patient_id, resource_type));
        }
    }
    assert_ne!(first.resources(), Population::synthetic(&Random::seeded(8), None).resources());
    let usernames: Vec<&str> = first.people.iter().map(|person| person.username.as_str()).collect();
    assert_eq!((usernames[0], usernames[9]), ("patient-1", "patient-10"));
}

#[test]
fn every_synthetic_reference_and_attachment_resolves_within_the_population() {
    let population = synthetic(Some(300));
    let mut checked = 0;
    for resource in population.resources() {
        links(&json(resource), &mut |key, link| {
            if key == "reference" || link.starts_with("Binary/") {
                let (resource_type, id) = link.split_once('/').expect("Type/id");
                let target = population.find(resource_type, id);
                assert!(target.is_some(), "{}/{}: {link}", resource.resource_type, resource.id);
                let owner = target.and_then(|target| target.patient_id.as_deref());
                let merged = resource.resource_type == "Patient";
                assert!(owner.is_none() || merged || owner == resource.patient_id.as_deref(), "{link}");
                checked += 1;
            }
        });
    }
    assert!(checked > 2_000, "{checked}");
}

#[test]
fn synthetic_ids_are_legal_and_unique_within_their_type() {
    let population = synthetic(Some(500));
    let mut seen = HashSet::new();
    for Resource { resource_type, id, .. } in population.resources() {
        assert!(seen.insert((resource_type, id)), "{resource_type}/{id}");
        assert!((1..=64).contains(&id.len()), "{id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')), "{id}");
    }
    let all: Vec<&str> = population.resources().iter().map(|resource| resource.id.as_str()).collect();
    for prefix in ["L-", "VS-", "SH-", "p", "M", "XR-", "TR-", "R-", "CARE.TEAM-"] {
        assert!(all.iter().any(|id| id.starts_with(prefix)), "{prefix}");
    }
}

#[test]
fn ordinary_people_have_records_of_ordinary_size_and_one_has_all_17_types() {
    let population = synthetic(None);
    let counts: Vec<usize> = population.patient_ids().map(|id| population.count(id)).collect();
    assert!(counts.iter().filter(|count| (30..=150).contains(*count)).count() >= 9, "{counts:?}");
    assert!(counts.iter().any(|count| *count <= 3), "one has almost nothing: {counts:?}");
    let has_all = |id: &str| RECORD_TYPES.iter().all(|of_type| !population.of(id, of_type).is_empty());
    assert!(has_all(&population.people[0].patient_id));
    for person in &population.people {
        assert_eq!(population.of(&person.patient_id, "Patient").len(), 1, "{}", person.display);
    }
}

#[test]
fn the_index_of_a_synthetic_resource_agrees_with_its_json() {
    // Written to a folder and loaded again, everything that is derived from the text must come out the same.
    let population = synthetic(Some(200));
    let folder = tempfile::tempdir().expect("a folder");
    let lines: Vec<&str> = population.resources().iter().map(|resource| &*resource.json).collect();
    fs::write(folder.path().join("all.ndjson"), lines.join("\n")).expect("written");
    let (loaded, report) = Population::load(folder.path()).expect("loaded");
    assert_eq!(loaded.resources(), population.resources());
    assert_eq!(report.files[0].not_taken, []);
    let mut names: Vec<&str> = loaded.people.iter().map(|person| person.display.as_str()).collect();
    for person in &population.people {
        assert!(names.contains(&person.display.as_str()), "{}", person.display);
    }
    // The record that was merged away comes back as somebody who could sign in, because its Patient is there.
    names.retain(|name| name.starts_with("Patient "));
    assert_eq!(names.len(), 1);
}

#[test]
fn decimals_keep_the_text_they_were_written_with() {
    let population = synthetic(None);
    for text in ["\"value\":7.0,", "\"value\":1.10,", "\"value\":0.50,", "\"value\":120.00,"] {
        let found = population.resources().iter().any(|resource| resource.json.contains(text));
        assert!(found, "{text}");
    }
}

#[test]
fn a_report_names_results_of_its_own_visit_and_visits_are_in_order_of_time() {
    let population = synthetic(None);
    let mut results = 0;
    for patient_id in population.patient_ids() {
        for report in population.of(patient_id, "DiagnosticReport").iter().map(json) {
            for result in report["result"].as_array().into_iter().flatten() {
                let id = result["reference"].as_str().and_then(|link| link.strip_prefix("Observation/"));
                let observation =
                    json(population.find("Observation", id.expect("an Observation")).expect("there"));
                assert_eq!(observation["encounter"], report["encounter"]);
                results += 1;
            }
        }
        let starts = population.of(patient_id, "Encounter").iter().map(json);
        let starts: Vec<String> =
            starts.filter_map(|visit| visit["period"]["start"].as_str().map(str::to_owned)).collect();
        assert!(starts.is_sorted(), "{starts:?}");
    }
    assert!(results > 50, "{results}");
    for condition in
        population.resources().iter().filter(|found| found.resource_type == "Condition").map(json)
    {
        let (onset, abatement) =
            (condition["onsetDateTime"].as_str(), condition["abatementDateTime"].as_str());
        assert!(abatement.is_none() || abatement > onset, "{condition}");
    }
}

#[test]
fn the_vendors_habits_are_there() {
    let population = synthetic(None);
    let of_type = |wanted: &str| -> Vec<Value> {
        let all = population.resources().iter().filter(|resource| resource.resource_type == wanted);
        all.map(json).collect()
    };
    let medicines = of_type("MedicationRequest");
    let plans = medicines.iter().filter(|medicine| medicine["intent"] == "plan").count();
    assert!(plans * 2 > medicines.len() && plans < medicines.len());
    assert!(medicines.iter().any(|medicine| medicine["reasonReference"].is_array()));
    assert!(of_type("CarePlan").iter().all(|plan| plan["category"][0]["coding"][0]["code"] == "assess-plan"));
    assert!(of_type("Encounter").iter().any(|visit| visit["period"].is_null()));
    assert!(of_type("Condition").iter().any(|condition| condition["clinicalStatus"].is_null()));
    assert!(of_type("Observation").iter().any(|result| !result["dataAbsentReason"].is_null()));
    assert!(of_type("Observation").iter().any(|result| result["status"] == "entered-in-error"));
    assert!(of_type("Patient").iter().any(|patient| patient["link"][0]["type"] == "replaced-by"));
    assert!(of_type("Condition")[0]["code"]["coding"][0]["userSelected"] == true);
    let contents: BTreeSet<String> = of_type("Binary")
        .iter()
        .filter_map(|binary| binary["contentType"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(contents.into_iter().collect::<Vec<_>>(), ["application/pdf", "text/html", "text/plain"]);
    assert!(population.resources().iter().all(|resource| json(resource)["meta"]["versionId"].is_string()));
}

#[test]
fn the_eleventh_patient_has_exactly_the_size_asked_for_and_every_type() {
    for size in [1, 17, 100, 4_000] {
        let population = synthetic(Some(size));
        assert_eq!(population.people.len(), 11);
        let patient_id = &population.people[10].patient_id;
        assert_eq!(population.count(patient_id), size);
        let types =
            RECORD_TYPES.iter().filter(|of_type| !population.of(patient_id, of_type).is_empty()).count();
        assert_eq!(types, size.min(17));
    }
    let population = synthetic(Some(1_000));
    let patient_id = &population.people[10].patient_id;
    assert!((550..=590).contains(&population.of(patient_id, "Observation").len()));
    assert_eq!(population.of(patient_id, "Encounter").len(), 90);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

const BUNDLE: &str = r#"{
  "resourceType": "Bundle", "type": "transaction",
  "entry": [
    { "fullUrl": "urn:uuid:aaaa", "resource": {
        "resourceType": "Patient", "id": "p1", "name": [ { "family": "Fake", "given": ["Ann", "B"] } ] } },
    { "fullUrl": "urn:uuid:bbbb", "resource": {
        "resourceType": "Observation", "category": [ { "coding": [ { "code": "laboratory" } ], "text": "Lab" } ],
        "subject": { "reference": "urn:uuid:aaaa" }, "valueQuantity": { "value": 7.0 },
        "meta": { "lastUpdated": "2021-05-06T07:08:09Z" }, "note": [ { "text": "see urn:uuid:aaaa" } ] } },
    { "fullUrl": "https://x.example/Condition/c", "resource": {
        "resourceType": "Condition", "id": "c", "subject": { "reference": "https://x.example/Patient/p1" } } },
    { "resource": { "resourceType": "Goal", "subject": { "reference": "urn:uuid:aaaa" } } },
    { "request": { "method": "DELETE", "url": "Goal/1" } },
    { "resource": { "resourceType": "Organization", "id": "o" } }
  ]
}"#;

#[test]
fn a_bundle_gets_ids_and_references_and_keeps_its_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.bundle.json.gz"), gzip(BUNDLE)).expect("written");
    fs::write(folder.path().join("notes.txt"), "not read").expect("written");
    let (population, report) = Population::load(folder.path()).expect("loaded");

    assert_eq!((population.people.len(), population.people[0].display.as_str()), (1, "Ann B Fake"));
    let observation = population.find("Observation", "bbbb").expect("its id came from the URL");
    assert_eq!(observation.patient_id.as_deref(), Some("p1"));
    assert_eq!(observation.category_codes, ["laboratory", "Lab"]);
    assert_eq!(observation.last_updated.to_string(), "2021-05-06T07:08:09.000Z");
    assert!(observation.json.starts_with(r#"{"id":"bbbb","resourceType":"Observation","#));
    assert!(
        observation.json.contains(r#""subject":{"reference":"Patient/p1"},"valueQuantity":{"value":7.0}"#)
    );
    assert!(observation.json.contains("see urn:uuid:aaaa") && !observation.json.contains('\n'));
    assert_eq!(population.of("p1", "Condition").len(), 1);
    assert!(population.find("Organization", "o").is_some_and(|found| found.patient_id.is_none()));
    assert_eq!(
        report.files[0].not_taken,
        [NotTaken { place: 4, reason: Reason::NoId }, NotTaken { place: 5, reason: Reason::EmptyEntry }]
    );
    assert_eq!((report.files[0].total(), report.files[0].records()), (4, 3));
}

#[test]
fn lines_are_served_as_they_are_and_what_is_no_resource_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let line =
        r#"{"resourceType": "Coverage", "id": "v", "beneficiary": {"reference": "Patient/p"},  "x": 1.10}"#;
    let lines =
        format!("{{\"resourceType\":\"Patient\",\"id\":\"p\"}}\n\n{line}\n[1]\n{{\"a\":1}}\n{line}\r\n");
    fs::write(folder.path().join("b.ndjson"), lines).expect("written");
    fs::write(
        folder.path().join("c.json"),
        "{ \"resourceType\": \"Goal\", \"id\": \"g\", \"subject\": { \"reference\": \"Patient/gone\" } }",
    )
    .expect("written");
    let mut progress = Vec::new();
    let (population, report) =
        Population::load_with(folder.path(), |file| progress.push(file.name.clone())).expect("loaded");

    assert_eq!(progress, ["b.ndjson", "c.json"]);
    assert_eq!(population.find("Coverage", "v").map(|coverage| &*coverage.json), Some(line));
    let left: Vec<(usize, Reason)> =
        report.files[0].not_taken.iter().map(|left| (left.place, left.reason)).collect();
    assert_eq!(left, [(4, Reason::NotAResource), (5, Reason::NotAResource), (6, Reason::Repeated)]);
    assert_eq!((report.orphans, report.taken()), (1, 3));
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let failure = || Population::load(path).expect_err("nothing can be loaded");
    assert!(matches!(Population::load(&path.join("none")), Err(LoadError::Folder { .. })));
    assert!(matches!(failure(), LoadError::NoFile { .. }));

    fs::write(path.join("a.ndjson"), "{\"resourceType\":\"Goal\",\"id\":\"g\"}\n").expect("written");
    assert!(matches!(failure(), LoadError::NoPatient { .. }));

    fs::write(path.join("b.ndjson"), "{\"resourceType\":\"Goal\",\"id\":\"h\"}\n{\"a\": MARKER}\n")
        .expect("written");
    let error = failure();
    assert!(matches!(error, LoadError::Json { line: 2, .. }), "{error}");
    assert!(error.to_string().contains("b.ndjson") && !error.to_string().contains("MARKER"));

    let whole = gzip(BUNDLE);
    fs::write(path.join("a.json.gz"), &whole[..whole.len() / 2]).expect("written");
    assert!(matches!(failure(), LoadError::File { .. }));
}

#[test]
fn published_synthetic_records_load_whole_as_bundles_and_as_lines() {
    let Some(data) = test_data() else { return };
    let load = |folder: &str| Population::load(&data.join("patients").join(folder)).expect("the data loads");
    let load_one = |file: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let name = Path::new(file).file_name().expect("a name");
        fs::copy(data.join("patients").join(file), folder.path().join(name)).expect("copied");
        Population::load(folder.path()).expect("the data loads")
    };

    let (served, report) = load_one("served/large-assembled.ndjson.gz");
    assert_eq!((report.files[0].total(), report.files[0].records()), (8_271, 8_223));
    assert_eq!(report.files[0].not_taken, []);
    assert_eq!((served.people.len(), served.count("large-1")), (1, 8_223));

    for (name, id, total) in [
        ("inferno-355", "355", 473),
        ("synthea-fletcher-hyatt", "c5ed5d78-5b3f-4a75-bdfb-5f318b068a20", 1_111),
        ("uscore-example", "example", 199),
    ] {
        let (lines, line_report) = load_one(&format!("served/{name}.ndjson.gz"));
        let (bundle, bundle_report) = load_one(&format!("bundles/{name}.bundle.json.gz"));
        assert_eq!((line_report.taken(), bundle_report.taken()), (total, total), "{name}");
        for resource_type in RECORD_TYPES {
            let ids = |population: &Population| -> BTreeSet<String> {
                population.of(id, resource_type).iter().map(|resource| resource.id.clone()).collect()
            };
            assert_eq!(ids(&lines), ids(&bundle), "{name} {resource_type}");
        }
        for resource in bundle.resources() {
            links(&json(resource), &mut |_, link| assert!(!link.starts_with("urn:uuid:"), "{link}"));
        }
    }

    let (all, report) = load("served");
    assert_eq!(report.files.len(), 7);
    assert!(all.patient_ids().any(|id| id == "355"));
}
