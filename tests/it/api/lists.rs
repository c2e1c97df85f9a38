//! Pages of lists: sizes, order and cursors.

use std::time::Duration;

use chartgate::config::Environment;
use chartgate::directory::NewSource;
use chartgate::smart::FhirBaseUrl;
use chartgate::smart::server::Overrides;
use serde_json::{Value, json};

use super::{get, key_of_a_stranger, refused, segment};
use crate::support::TestApp;

fn ids(list: &Value) -> Vec<String> {
    let rows = list["data"].as_array().expect("a list");
    rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

async fn make(app: &TestApp, number: usize) -> String {
    app.clock.advance(Duration::from_millis(1));
    let id = format!("p-{number:03}");
    let body = json!({"patient_id": id, "email": if number.is_multiple_of(2) { "even@x.example" } else { "odd@x.example" }});
    app.api("POST", "/patients", body).await.ok();
    id
}

#[tokio::test]
async fn pages_have_ten_rows_or_one_to_a_hundred() {
    let app = TestApp::start().await;
    for number in 0..101 {
        make(&app, number).await;
    }
    for (query, rows) in [("", 10), ("?limit=1", 1), ("?limit=100", 100), ("?limit=10&unknown=x", 10)] {
        let list = get(&app, &format!("/patients{query}")).await;
        assert_eq!((ids(&list).len(), &list["has_more"]), (rows, &json!(true)), "{query}");
    }
    app.session("p-000").await;
    for path in ["/patients", "/connections", "/patients/p-000/patient-sessions"] {
        for limit in ["0", "101", "-1", "1.5", "ten", "", "1e1", "18446744073709551616"] {
            let page = app.api("GET", &format!("{path}?limit={limit}"), Value::Null).await;
            refused(&page, 400, "invalid_data", Some("limit"));
        }
    }
    for count in ["0", "101", "x", ""] {
        let page = app.api("GET", &format!("/patients/p-000/records?count={count}"), Value::Null).await;
        refused(&page, 400, "invalid_data", Some("count"));
    }
    // Each is a word of its own list, and like any unknown word elsewhere.
    assert_eq!(ids(&get(&app, "/patients?count=1").await).len(), 10);
    get(&app, "/patients/p-000/records?limit=0").await;
}

#[tokio::test]
async fn a_list_is_read_once_each_newest_first_even_while_it_grows() {
    let app = TestApp::start().await;
    let mut made = Vec::new();
    for number in 0..25 {
        made.push(make(&app, number).await);
    }
    made.reverse();
    let mut read = Vec::new();
    let mut query = "limit=7".to_owned();
    for number in 100.. {
        let list = get(&app, &format!("/patients?{query}")).await;
        let again = get(&app, &format!("/patients?{query}")).await;
        assert_eq!(ids(&again)[..], ids(&list)[..], "the same cursor gives the same rows");
        read.extend(ids(&list));
        // What is added meanwhile comes before the first page and moves nothing.
        make(&app, number).await;
        match list["next_cursor"].as_str() {
            Some(cursor) => {
                assert!(
                    !cursor.contains("p-0")
                        && cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
                    "{cursor}"
                );
                query = format!("limit=7&starting_after={cursor}");
            }
            None => break,
        }
    }
    assert_eq!(read, made);
    // The row that a page ended with may go away.
    let first = get(&app, "/patients?limit=5&email=even@x.example").await;
    let last = ids(&first).pop().expect("a row");
    let cursor = first["next_cursor"].as_str().expect("more").to_owned();
    let path = format!("/patients?limit=100&email=even@x.example&starting_after={cursor}");
    let rest = get(&app, &path).await;
    app.api("DELETE", &format!("/patients/{last}"), Value::Null).await.ok();
    assert_eq!(get(&app, &path).await, rest);
    assert!(rest["data"].as_array().expect("a list").iter().all(|row| row["email"] == "even@x.example"));
}

#[tokio::test]
async fn an_exactly_full_last_page_says_that_nothing_follows() {
    let app = TestApp::start().await;
    for number in 0..10 {
        make(&app, number).await;
    }
    let list = get(&app, "/patients").await;
    assert_eq!(
        (ids(&list).len(), &list["has_more"], &list["next_cursor"]),
        (10, &json!(false), &Value::Null)
    );
    let list = get(&app, "/patients?limit=9").await;
    let rest = get(
        &app,
        &format!("/patients?limit=9&starting_after={}", list["next_cursor"].as_str().expect("more")),
    )
    .await;
    assert_eq!((ids(&rest), &rest["next_cursor"]), (vec!["p-000".to_owned()], &Value::Null));
}

#[tokio::test]
async fn filters_are_exact_and_together() {
    let app = TestApp::start().await;
    for number in 0..4 {
        make(&app, number).await;
    }
    for (query, expected) in [
        ("patient_id=p-001", &["p-001"][..]),
        ("patient_id=p-00", &[]),
        ("patient_id=P-001", &[]),
        ("patient_id=", &[]),
        ("email=odd@x.example", &["p-003", "p-001"]),
        ("email=odd", &[]),
        ("email=odd%40x.example&patient_id=p-001", &["p-001"]),
        ("email=even@x.example&patient_id=p-001", &[]),
    ] {
        assert_eq!(ids(&get(&app, &format!("/patients?{query}")).await), expected, "{query}");
    }
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_list_only() {
    let app = TestApp::start().await;
    for number in 0..6 {
        make(&app, number).await;
    }
    for _ in 0..2 {
        app.session("p-000").await;
        app.session("p-001").await;
    }
    for number in 0..3 {
        add_source(&app, &format!("Clinic {number}"), &format!("https://h{number}.example/r4")).await;
    }
    let stranger = key_of_a_stranger(&app).await;
    for number in 0..3 {
        let body = json!({"patient_id": format!("s-{number}")});
        app.api_as(&stranger, "POST", "/patients", body).await.ok();
    }
    let lists = [
        "/patients?limit=1",
        "/patients?limit=1&email=odd@x.example",
        "/patients?limit=1&email=even@x.example",
        "/patients/p-000/patient-sessions?limit=1",
        "/patients/p-000/patient-sessions?limit=1&status=open",
        "/patients/p-001/patient-sessions?limit=1",
        "/connections?limit=1",
        "/connections?limit=1&q=clinic",
        "/connections?limit=1&type=cerner",
    ];
    let mut cursors = Vec::new();
    for list in lists {
        let page = get(&app, list).await;
        cursors.push(page["next_cursor"].as_str().unwrap_or_else(|| panic!("{list}: {page}")).to_owned());
    }
    let foreign = app.api_as(&stranger, "GET", "/patients?limit=1", Value::Null).await.ok();
    let foreign = foreign["next_cursor"].as_str().expect("more").to_owned();
    for (list, own) in lists.iter().zip(&cursors) {
        get(&app, &format!("{list}&starting_after={own}")).await;
        let cut = own[..own.len() - 1].to_owned();
        let padded = format!("{own}A");
        let garbage =
            ["", "x", "p-000", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "%00", "ü", "Zm9v"].map(str::to_owned);
        let others =
            cursors.iter().filter(|cursor| *cursor != own).chain([&foreign, &cut, &padded]).chain(&garbage);
        for wrong in others {
            let wrong = if wrong.starts_with('%') { wrong.clone() } else { segment(wrong) };
            let page = app.api("GET", &format!("{list}&starting_after={wrong}"), Value::Null).await;
            refused(&page, 400, "invalid_data", Some("starting_after"));
        }
    }
}

async fn add_source(app: &TestApp, name: &str, base: &str) -> String {
    app.clock.advance(Duration::from_secs(1));
    let source = NewSource {
        environment: Environment::Sandbox,
        name: name.to_owned(),
        base: FhirBaseUrl::parse(base).expect("a base"),
        ehr_client: "hospital".to_owned(),
        city: None,
        state: None,
        logo_url: Some("https://h.example/logo.png".to_owned()),
        portal_url: Some("https://portal.example/".to_owned()),
        overrides: Overrides::default(),
    };
    app.app().parts().directory.add_source(source).await.expect("added").id.to_string()
}

#[tokio::test]
async fn sources_are_found_by_part_of_the_name_and_by_vendor() {
    let app = TestApp::start().await;
    let corazon = add_source(&app, "St. Corazón Clinic", "https://a.example/r4").await;
    let valley = add_source(&app, "Valley Health", "https://b.example/r4/Tenant").await;
    let mercy = app.source.to_string();
    let all = [valley.as_str(), &corazon, &mercy];
    for (query, expected) in [
        ("", &all[..]),
        ("?q=", &all),
        ("?q=VALLEY", &all[..1]),
        ("?q=all", &all[..1]),
        ("?q=corazon", &all[1..2]),
        ("?q=Coraz%C3%B3n%20clin", &all[1..2]),
        ("?q=erc", &all[2..]),
        ("?q=nothing+like+it", &[]),
        ("?type=cerner", &all),
        ("?type=epic", &[]),
        ("?type=Cerner", &[]),
        ("?type=cerner&q=valley", &all[..1]),
        ("?limit=2", &all[..2]),
    ] {
        assert_eq!(ids(&get(&app, &format!("/connections{query}")).await), expected, "{query}");
    }
    let one = get(&app, &format!("/connections/{}", segment("https://b.example/r4/Tenant"))).await;
    assert_eq!((&one["id"], &one["logo_url"]), (&json!(valley), &json!("https://h.example/logo.png")));
    assert_eq!(one["portal_url"], "https://portal.example/");
    let mut read = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = get(&app, &format!("/connections?limit=1{cursor}")).await;
        read.extend(ids(&page));
        // A source added meanwhile comes first and moves nothing.
        add_source(&app, "Later", &format!("https://later{}.example/r4", read.len())).await;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&starting_after={next}"),
            None => break,
        }
    }
    assert_eq!(read, all);
}
