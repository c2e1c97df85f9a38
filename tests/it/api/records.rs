//! Reading records back, both ways.

use std::time::Duration;

use serde_json::{Value, json};

use super::{get, has_exactly, refused};
use crate::support::TestApp;

const PAGE: [&str; 6] = ["resource_type", "patient_id", "data", "has_more", "next_cursor", "previous_cursor"];

fn rows(page: &Value) -> Vec<Value> {
    has_exactly(page, &PAGE);
    assert_eq!((&page["resource_type"], &page["patient_id"]), (&json!("list"), &json!("amy-7")));
    assert_eq!(page["has_more"].as_bool(), Some(page["next_cursor"].is_string()));
    for cursor in [&page["next_cursor"], &page["previous_cursor"]] {
        let twelve = |text: &str| {
            text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        assert!(cursor.is_null() || cursor.as_str().is_some_and(twelve), "{cursor}");
    }
    page["data"].as_array().expect("a list").clone()
}

async fn connected() -> TestApp {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    app
}

#[tokio::test]
async fn every_row_is_a_source_and_a_resource_as_the_hospital_has_it() {
    let app = connected().await;
    let page = app.api("GET", "/patients/amy-7/records", Value::Null).await;
    super::common(&page);
    let first = page.ok();
    for row in rows(&first) {
        has_exactly(&row, &["source", "resource"]);
        assert_eq!(row["source"], json!(app.source.to_string()));
        assert!(row["resource"]["resourceType"].is_string() && row["resource"]["id"].is_string(), "{row}");
    }
    assert_eq!(first["previous_cursor"], Value::Null, "nothing comes before the first page");
    let user = app.hospital.users()[0].clone();
    let mut decimals = 0;
    for name in ["Observation", "Condition", "MedicationRequest"] {
        let texts = app.api("GET", &format!("/patients/amy-7/records?type={name}"), Value::Null).await.text;
        for original in app.hospital.sandbox.population().of(&user.patient, name) {
            assert!(texts.contains(&*original.json), "{name} {} keeps its text", original.id);
            decimals += usize::from(original.json.contains(".0"));
        }
    }
    assert!(decimals > 0, "a number whose text could be lost was among them");
}

#[tokio::test]
async fn the_callers_id_is_appended_to_patients_and_to_nothing_else() {
    let app = connected().await;
    let marked = app.records("amy-7", "type=Patient").await;
    assert_eq!(marked.len(), 1);
    let mut resource = marked[0]["resource"].clone();
    let own = resource["identifier"].as_array_mut().expect("a list").pop().expect("one");
    assert_eq!(own, json!({"system": "urn:medblocks:patient-id", "value": "amy-7"}));
    let user = app.hospital.users()[0].clone();
    let original =
        app.hospital.sandbox.population().of(&user.patient, "Patient").first().expect("there").json.clone();
    let mut original: Value = serde_json::from_str(&original).expect("json");
    if original.get("identifier").is_none() {
        original["identifier"] = json!([]);
    }
    assert_eq!(resource, original, "the hospital's own identifiers stay");
    for row in app.records("amy-7", "").await {
        let marked = row.to_string().contains("urn:medblocks:patient-id");
        assert_eq!(marked, row["resource"]["resourceType"] == "Patient", "{row}");
    }
}

#[tokio::test]
async fn types_choose_and_may_be_spelled_in_any_order() {
    let app = connected().await;
    let all = app.records("amy-7", "").await;
    let of = |names: &[&str]| -> Vec<Value> {
        let kind =
            |row: &&Value| names.contains(&row["resource"]["resourceType"].as_str().unwrap_or_default());
        all.iter().filter(kind).cloned().collect()
    };
    assert!(of(&["Observation"]).len() > 1 && of(&["Condition"]).len() > 1);
    assert_eq!(app.records("amy-7", "type=Observation&count=2").await, of(&["Observation"]));
    let both = of(&["Observation", "Condition"]);
    for spelling in ["Observation,Condition", "Condition,Observation", "Condition%2C%20Observation"] {
        assert_eq!(app.records("amy-7", &format!("type={spelling}&count=3")).await, both, "{spelling}");
    }
    let page = get(&app, "/patients/amy-7/records?type=Condition,Observation&count=1").await;
    let next = page["next_cursor"].as_str().expect("more").to_owned();
    get(&app, &format!("/patients/amy-7/records?type=Observation,Condition&count=1&starting_after={next}"))
        .await;
    assert_eq!(app.records("amy-7", "type=Spaceship").await, Vec::<Value>::new());
    for wrong in ["", "observation", "Observation,", "Observation;Condition", "../Patient", "%00"] {
        let page = app.api("GET", &format!("/patients/amy-7/records?type={wrong}"), Value::Null).await;
        refused(&page, 400, "invalid_data", Some("type"));
    }
}

#[tokio::test]
async fn since_is_the_time_at_which_the_store_noticed() {
    let app = connected().await;
    let all = app.records("amy-7", "").await.len();
    let noticed = app.clock.now();
    let before = noticed.before(Duration::from_millis(1));
    for (since, expected) in [
        (noticed.to_string(), 0),
        (before.to_string(), all),
        (before.to_string().replace('Z', "%2B00:00"), all),
        ("2026-11-02".to_owned(), all),
        ("2026-11-03".to_owned(), 0),
        ("1900-01-01".to_owned(), all),
        ("9999-12-30T00:00:00Z".to_owned(), 0),
    ] {
        assert_eq!(app.records("amy-7", &format!("since={since}&count=9")).await.len(), expected, "{since}");
    }
    for wrong in ["", "yesterday", "2026-13-01", "2026-11-02T25:00:00Z", "1793607165", "2026-11-02T08:00:00"]
    {
        let page = app.api("GET", &format!("/patients/amy-7/records?since={wrong}"), Value::Null).await;
        refused(&page, 400, "invalid_data", Some("since"));
    }
}

#[tokio::test]
async fn forward_to_the_end_and_back_to_the_start_are_the_same_rows() {
    let app = connected().await;
    for filter in
        ["", "&type=Observation", "&since=2026-11-01", "&type=Observation,Condition&since=2026-11-01"]
    {
        let all = rows(&get(&app, &format!("/patients/amy-7/records?count=100{filter}")).await);
        for count in [1, 3, 7] {
            let path = format!("/patients/amy-7/records?count={count}{filter}");
            let mut pages = vec![get(&app, &path).await];
            while let Some(next) =
                pages.last().and_then(|page| page["next_cursor"].as_str()).map(str::to_owned)
            {
                if pages.len() * count >= all.len() && all.len() == 100 {
                    break;
                }
                pages.push(get(&app, &format!("{path}&starting_after={next}")).await);
            }
            assert_eq!(pages[0]["previous_cursor"], Value::Null);
            assert!(pages[1..].iter().all(|page| page["previous_cursor"].is_string()));
            let forward: Vec<Value> = pages.iter().flat_map(rows).collect();
            assert_eq!(
                forward[..all.len().min(forward.len())],
                all[..all.len().min(forward.len())],
                "{path}"
            );
            let mut at = pages.pop().expect("a last page");
            let mut backward = rows(&at);
            while let Some(previous) = at["previous_cursor"].as_str().map(str::to_owned) {
                let before = get(&app, &format!("{path}&ending_before={previous}")).await;
                let found = rows(&before);
                assert!(!found.is_empty() && found.len() <= count, "{path}");
                // And forward again from there: the page we came from.
                let next = before["next_cursor"].as_str().expect("something follows");
                assert_eq!(
                    rows(&get(&app, &format!("{path}&starting_after={next}")).await)[..],
                    rows(&at)[..]
                );
                backward.splice(0..0, found);
                at = before;
            }
            assert_eq!(backward, forward, "{path}");
        }
    }
}

#[tokio::test]
async fn cursors_live_for_seven_days_and_for_their_own_list() {
    let app = connected().await;
    let path = "/patients/amy-7/records?count=2";
    let first = get(&app, path).await;
    let next = first["next_cursor"].as_str().expect("more").to_owned();
    let second = get(&app, &format!("{path}&starting_after={next}")).await;
    let previous = second["previous_cursor"].as_str().expect("something before").to_owned();
    let wrong = |path: String, param: &'static str| {
        let app = &app;
        async move { refused(&app.api("GET", &path, Value::Null).await, 400, "invalid_data", Some(param)) }
    };
    wrong(format!("{path}&starting_after={next}&ending_before={previous}"), "ending_before").await;
    for other in ["&type=Observation", "&since=2026-11-01"] {
        wrong(format!("{path}{other}&starting_after={next}"), "starting_after").await;
        wrong(format!("{path}{other}&ending_before={previous}"), "ending_before").await;
    }
    for garbage in ["", "x", "AAAAAAAAAAAA", "AAAAAAAAAAA", "AAAAAAAAAAAAA", "%C3%BC", "%00", "q7Zt0Lw2XcA="]
    {
        wrong(format!("{path}&starting_after={garbage}"), "starting_after").await;
        wrong(format!("{path}&ending_before={garbage}"), "ending_before").await;
    }
    app.session("ben").await;
    wrong(format!("/patients/ben/records?count=2&starting_after={next}"), "starting_after").await;
    // Another page size is no other filter.
    get(&app, &format!("/patients/amy-7/records?count=50&starting_after={next}")).await;
    let stranger = super::key_of_a_stranger(&app).await;
    app.api_as(&stranger, "POST", "/patients", json!({"patient_id": "amy-7"})).await.ok();
    let foreign = app.api_as(&stranger, "GET", &format!("{path}&starting_after={next}"), Value::Null).await;
    refused(&foreign, 400, "invalid_data", Some("starting_after"));

    app.clock.advance(Duration::from_hours(7 * 24) - Duration::from_secs(1));
    assert_eq!(rows(&get(&app, &format!("{path}&starting_after={next}")).await), rows(&second));
    assert_eq!(rows(&get(&app, &format!("{path}&ending_before={previous}")).await), rows(&first));
    app.clock.advance(Duration::from_hours(24 * 9));
    wrong(format!("{path}&starting_after={next}"), "starting_after").await;
    wrong(format!("{path}&ending_before={previous}"), "ending_before").await;
}

#[tokio::test]
async fn a_patient_without_records_has_an_empty_page() {
    let app = TestApp::start().await;
    app.api("POST", "/patients", json!({"patient_id": "amy-7"})).await.ok();
    let expected = json!({
        "resource_type": "list", "patient_id": "amy-7", "data": [], "has_more": false,
        "next_cursor": null, "previous_cursor": null,
    });
    for query in ["", "?type=Observation", "?since=2026-11-01", "?count=1"] {
        assert_eq!(get(&app, &format!("/patients/amy-7/records{query}")).await, expected);
    }
    let page = app.api("GET", "/patients/nobody/records", Value::Null).await;
    refused(&page, 404, "resource_not_found", None);
}
