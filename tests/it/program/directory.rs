//! Lists, requests and packets, through the socket of a running appliance and on a store that nobody serves.

use serde_json::{Value, json};

use super::running::{text, with_hospital};
use super::support::{Ended, Place};
use crate::support::{Browser, ListServer};

const SANDBOX: [&str; 2] = ["--environment", "sandbox"];

fn rows(count: usize) -> String {
    let rows: Vec<Value> = (0..count)
        .map(|number| json!({"name": format!("Practice {number}"), "url": format!("https://h{number}.example/r4")}))
        .collect();
    Value::from(rows).to_string()
}

fn import(place: &Place, from: &str, more: &[&str]) -> Ended {
    place.ask(&[&["directory", "import", from, "--list", "vendor"], &SANDBOX[..], more].concat())
}

fn found(place: &Place, words: &str) -> Vec<String> {
    let found = place.ask(&[&["directory", "search", words], &SANDBOX[..]].concat()).ok();
    let rows = found.as_array().expect("a list").clone();
    rows.iter().map(|row| text(row, "name").to_owned()).collect()
}

#[test]
fn a_file_is_imported_into_the_running_appliance_and_searched_at_once() {
    let place = Place::make();
    let file = place.path("vendor.json");
    for running in [true, false] {
        let serving = running.then(|| place.serve());
        let count = if running { 30 } else { 40 };
        std::fs::write(&file, rows(count)).expect("written");
        let report = import(&place, &file, &[]).ok();
        assert_eq!((&report["entries"], &report["unchanged"]), (&json!(count), &json!(false)), "{report}");
        let again = import(&place, &file, &[]).ok();
        assert_eq!((&again["unchanged"], &again["added"]), (&json!(true), &json!(0)), "{again}");
        assert_eq!(found(&place, "practice 29")[0], "Practice 29");
        let people = place.run(&[&["directory", "import", &file, "--list", "vendor"], &SANDBOX[..]].concat());
        assert!(people.out.contains("vendor: nothing has changed"), "{people:?}");

        std::fs::write(&file, rows(5)).expect("written");
        import(&place, &file, &[]).refused(1, &["cut short", "--yes"]);
        std::fs::write(&file, &rows(30)[..500]).expect("written");
        import(&place, &file, &[]).refused(1, &["cut short on its way"]);
        std::fs::write(&file, "<html>").expect("written");
        import(&place, &file, &[]).refused(1, &["web page"]);
        let lists = place.ask(&["directory", "lists"]).ok();
        assert_eq!((&lists[0]["list"], &lists[0]["entries"]), (&json!("vendor"), &json!(count)));
        if let Some(serving) = serving {
            assert!(!serving.said().contains("ERROR"), "{}", serving.said());
            assert_eq!(serving.stop().code, Some(0));
        }
    }
    import(&place, &place.path("nothing.json"), &[]).refused(1, &["nothing.json", "cannot be read"]);
    place.ask(&[&["directory", "remove", "vendor"], &SANDBOX[..]].concat()).ok();
    assert!(found(&place, "practice 29").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_fetched_from_its_address_and_only_when_it_is_new() {
    let server = ListServer::start(&rows(30), Some("\"v1\"")).await;
    let place = Place::make();
    let serving = place.serve();
    let report = import(&place, &server.url, &[]).ok();
    assert_eq!(report["entries"], 30);
    let again = import(&place, &server.url, &[]).ok();
    assert_eq!((&again["unchanged"], server.asked(), server.sent()), (&json!(true), 2, 1));
    // Another mark, the same content.
    server.serve(&rows(30), Some("\"v2\""));
    let same = import(&place, &server.url, &[]).ok();
    assert_eq!((&same["unchanged"], server.sent()), (&json!(true), 2));
    server.serve(&rows(31), None);
    assert_eq!(import(&place, &server.url, &[]).ok()["added"], 1);
    assert_eq!(found(&place, "practice 30")[0], "Practice 30");
    // A live list is never on this machine.
    let live = ["directory", "import", &server.url, "--list", "vendor"];
    place.ask(&live).refused(1, &["private or local"]);
    assert_eq!(serving.stop().code, Some(0));
    assert_eq!(import(&place, &server.url, &[]).ok()["unchanged"], true, "also when nothing runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_the_configuration_is_fetched_at_the_start_and_not_at_the_next() {
    let server = ListServer::start(&rows(30), None).await;
    let place = Place::make();
    let file = std::fs::read_to_string(place.config()).expect("a file");
    let list = format!(
        "\n[[directory_list]]\nname = \"vendor\"\nurl = \"{}\"\nenvironment = \"sandbox\"\n",
        server.url
    );
    std::fs::write(place.config(), file + &list).expect("written");
    let serving = place.serve();
    serving.says("list refreshed");
    assert_eq!(found(&place, "practice 29")[0], "Practice 29");
    assert_eq!(serving.stop().code, Some(0));
    let serving = place.serve();
    serving.says("directory is searchable");
    assert_eq!(found(&place, "practice 29")[0], "Practice 29");
    assert_eq!(serving.stop().code, Some(0));
    assert_eq!(server.asked(), 1, "a week has not passed");
}

#[tokio::test]
async fn staff_see_what_patients_miss_and_note_what_became_of_it() {
    let (_hospital, _document, place, caller) = with_hospital().await;
    let serving = place.serve();
    let body = json!({"patient_id": "amy-7", "return_url": "https://shop.example/back"});
    let session = caller.api("POST", "/patient-sessions", body).await.ok();
    let form = format!("{}/not-listed", text(&session, "url"));
    let mut browser = Browser::default();
    browser.post(&form, &[("name", "Zzyzx \u{1b}[31mClinic"), ("city", "Baker, CA")]).await;
    let list = place.ask(&["directory", "requests"]).ok();
    assert_eq!((&list[0]["name"], &list[0]["city"]), (&json!("Zzyzx [31mClinic"), &json!("Baker, CA")));
    assert_eq!((&list[0]["patient_id"], &list[0]["workspace"]), (&json!("amy-7"), &json!("sandbox")));
    let people = place.run(&["directory", "requests", "--workspace", "sandbox"]);
    assert!(people.out.contains("Zzyzx") && !people.out.contains('\u{1b}'), "{people:?}");
    assert_eq!(place.ask(&["directory", "requests", "--workspace", "live"]).ok(), json!([]));
    place.ask(&["directory", "requests", "--workspace", "x"]).refused(1, &["`x`", "sandbox"]);
    assert!(!serving.said().contains("Zzyzx"), "{}", serving.said());
    let id = text(&list[0], "id").to_owned();
    assert_eq!(serving.stop().code, Some(0));
    let closed = place.ask(&["directory", "close", &id, "--note", "added"]).ok();
    assert_eq!((&closed["note"], closed["closed_at"].is_null()), (&json!("added"), false));
    assert_eq!(place.ask(&["directory", "requests"]).ok(), json!([]));
    assert_eq!(place.ask(&["directory", "requests", "--all"]).ok()[0]["id"], id.as_str());
    place.ask(&["directory", "close", "srcreq_nonsense"]).refused(1, &["directory requests"]);
}

#[tokio::test]
async fn a_hospital_is_asked_switched_on_and_verified_by_command() {
    let (hospital, document, place, _) = with_hospital().await;
    let base = text(&document, "fhir_base_url");
    for running in [true, false] {
        let serving = running.then(|| place.serve());
        let asked = place.ask(&["source", "activation", base, "asked", "--note", "to Dr. Who"]).ok();
        assert_eq!(asked["activation"], "asked");
        let people = place.run(&["source", "activation", base]);
        assert!(people.out.contains("asked") && people.out.contains("to Dr. Who"), "{people:?}");
        assert_eq!(place.ask(&["source", "list"]).ok()[0]["activation"], "asked");
        let probed = place.ask(&["source", "probe", base]).ok();
        assert_eq!((&probed["outcome"], &probed["activation"]), (&json!("let-in"), &json!("verified")));

        let text_page = place.run(&["source", "packet", base, "--contact", "it@north.example"]);
        assert!(text_page.code == Some(0) && text_page.out.starts_with("Switching on"), "{text_page:?}");
        assert!(text_page.out.contains(&place.url("/api/auth/smart/callback")), "{text_page:?}");
        assert!(text_page.err.contains("source activation fhirsrc_"), "{text_page:?}");
        let file = place.path("packet.html");
        let html = place.run(&["source", "packet", base, "--html", "--out", &file]);
        assert!(html.code == Some(0) && html.out.is_empty(), "{html:?}");
        let page = std::fs::read_to_string(&file).expect("written");
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("Mercy Hospital"), "{page}");
        place.run(&["source", "packet", base, "--html", "--text"]).refused(2, &["--text"]);
        drop(serving);
    }
    drop(hospital);
    let silent = place.ask(&["source", "probe", base]);
    assert_eq!(silent.code, Some(1), "{silent:?}");
    place.ask(&["source", "probe", "https://unknown.example/r4"]).refused(1, &["https://unknown.example/r4"]);
    place.ask(&["source", "packet", base]).ok();
}
