//! Exports of the real program, through power cuts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::running::{text, with_hospital};

/// How often each record is in whole files.
fn exported(folder: &Path) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        for line in fs::read_to_string(&path).expect("a file").lines() {
            let row: Value = serde_json::from_str(line).expect("json");
            let resource = &row["resource"];
            let record = format!("{}/{}", text(resource, "resourceType"), text(resource, "id"));
            *found.entry((text(&row, "patient_id").to_owned(), record)).or_default() += 1;
        }
    }
    found
}

#[tokio::test]
async fn a_power_cut_in_the_middle_of_an_export_leaves_nothing_out_and_nothing_twice() {
    let (_hospital, document, place, caller) = with_hospital().await;
    let serving = place.serve();
    let mut expected = BTreeMap::new();
    for patient in ["amy-7", "ben-3", "cid-9"] {
        let (_, link) = caller.journey(patient, text(&document, "fhir_base_url")).await;
        for record in caller.complete(patient, &link).await {
            expected.insert((patient.to_owned(), record), 1);
        }
    }
    assert_eq!(serving.stop().code, Some(0));

    let folder = place.folder.path().join("out");
    fs::create_dir(&folder).expect("a folder");
    let config = fs::read_to_string(place.config()).expect("a file");
    let export = format!("[[export]]\nname = \"out\"\nworkspace = \"sandbox\"\ndirectory = {folder:?}\n");
    fs::write(place.config(), format!("{config}\n{export}")).expect("written");
    for _ in 0..4 {
        // The export begins with the program; the power goes as soon as something of it is there.
        let serving = place.serve();
        while fs::read_dir(&folder).expect("a folder").next().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(serving.kill().code, None, "ended by a signal");
        let whole = exported(&folder);
        assert!(whole.is_empty() || whole == expected, "a file has its name when it is whole");
    }
    // The rest without a running appliance.
    place.ask(&["export", "run", "out"]).ok();
    assert_eq!(exported(&folder), expected);
    assert_eq!(place.ask(&["export", "run", "out"]).ok(), Value::Null, "nothing has changed");
    let runs = place.ask(&["export", "runs", "out"]).ok();
    assert_eq!((&runs[0]["state"], &runs[0]["run"]), (&Value::from("succeeded"), &Value::from(1)));
    assert_eq!(runs[0]["records"].as_u64(), Some(expected.len() as u64));
    let full = place.run(&["export", "run", "out", "--full"]);
    assert!(full.code == Some(0) && full.out.contains("out-000002-full.ndjson"), "{full:?}");
    place.ask(&["export", "run", "warehouse"]).refused(1, &["`warehouse`", "[[export]]"]);
}
