//! `demo`, `init` and `serve`: what runs, what stays on disk, and what is there again after any kind of end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use chartgate::clock::Clock;
use serde_json::{Value, json};

use super::support::{Caller, Place, Program, agrees, control, free_ports, run};
use crate::support::send;

pub const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";

pub fn text<'v>(document: &'v Value, key: &str) -> &'v str {
    document[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {document}"))
}

fn caller(document: &Value) -> Caller {
    Caller { base: text(document, "base_url").to_owned(), key: text(document, "api_key").to_owned() }
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{path}: {error}")).permissions().mode() & 0o777
}

async fn body(url: &str) -> String {
    let page = send("GET", url, &[], "").await;
    assert_eq!(page.status, 200, "{url}: {}", page.text);
    page.text
}

/// A running hospital, and a place that has it as its only source; the hospital's document and a key.
pub async fn with_hospital() -> (Program, Value, Place, Caller) {
    with_hospital_of(&[]).await
}

/// The same, with more arguments for the hospital.
async fn with_hospital_of(more: &[&str]) -> (Program, Value, Place, Caller) {
    let hospital = Program::start(&[&["sandbox", "--port", "0", "--json"], more].concat());
    let document = hospital.document();
    let place = Place::make();
    let client = json!({
        "client_id": CLIENT_ID,
        "redirect_uris": [place.url("/api/auth/smart/callback")],
        "jwks_uri": place.url("/api/auth/.well-known/jwks"),
    });
    control(&document, "POST", "clients", &client).await;
    agrees(&document).await;
    let add = ["ehr-client", "add", "--name", "hospital", "--vendor", "cerner", "--environment", "sandbox"];
    place.ask(&[&add[..], &["--client-id", CLIENT_ID]].concat()).ok();
    let base = text(&document, "fhir_base_url").to_owned();
    place
        .ask(&["source", "add", "--url", &base, "--name", "Mercy Hospital", "--ehr-client", "hospital"])
        .ok();
    let key = place.ask(&["api-key", "create", "--workspace", "sandbox", "--name", "test"]).ok();
    let caller = Caller { base: place.url(""), key: text(&key, "api_key").to_owned() };
    (hospital, document, place, caller)
}

#[tokio::test]
async fn the_demo_tells_everything_in_one_document_and_a_patient_gets_through() {
    let temporary = tempfile::tempdir().expect("a folder");
    let demo = Program::start_in(&temporary, &["demo", "--json", "--port", "0"]);
    let document = demo.document();
    let (caller, hospital) = (caller(&document), &document["sandbox"]);
    assert!(document["admin_url"].is_null(), "no address that leads nowhere: {document}");
    assert!(!text(hospital, "control_url").is_empty());
    assert!(hospital["users"].as_array().is_some_and(|users| !users.is_empty()), "{document}");
    let keys: Value = serde_json::from_str(&body(text(&document, "jwks_url")).await).expect("JSON");
    assert!(keys["keys"].as_array().is_some_and(|keys| !keys.is_empty()), "{keys}");
    assert_eq!(fs::read_dir(temporary.path()).expect("a folder").count(), 1, "its data is there");

    agrees(hospital).await;
    let source = text(hospital, "fhir_base_url");
    let (back, link) = caller.journey("amy-7", source).await;
    assert!(back.contains("success=true"), "{back}");
    assert_eq!(caller.connection("amy-7").await["status"], "active");
    assert!(caller.complete("amy-7", &link).await.len() > 15);

    let ended = demo.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json(), document, "nothing else was printed");
    assert_eq!(fs::read_dir(temporary.path()).expect("a folder").count(), 0, "its folder is gone");
}

#[tokio::test]
async fn a_demo_with_a_folder_finds_its_records_and_its_key_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, port) = (folder.path().join("demo"), free_ports().to_string());
    // A folder of the user's own, open to everybody as folders usually are.
    fs::create_dir(&data).expect("a folder");
    let arguments = ["demo", "--json", "--port", &port, "--data-dir", data.to_str().expect("text")];
    let demo = Program::start(&arguments);
    let first = demo.document();
    agrees(&first["sandbox"]).await;
    let (_, link) = caller(&first).journey("amy-7", text(&first["sandbox"], "fhir_base_url")).await;
    let records = caller(&first).complete("amy-7", &link).await;
    assert!(records.len() > 15, "{records:?}");
    assert_eq!(demo.stop().code, Some(0));

    let demo = Program::start(&arguments);
    let second = demo.document();
    for kept in ["api_key", "base_url", "jwks_url"] {
        assert_eq!(second[kept], first[kept], "{kept}");
    }
    for file in ["api.key", "master.key", "chartgate.redb"] {
        assert_eq!(mode(data.join(file).to_str().expect("text")), 0o600, "{file}");
    }
    assert_eq!(caller(&second).records("amy-7").await, records);
    assert_eq!(caller(&second).connection("amy-7").await["status"], "active");
    let sources = caller(&second).api("GET", "/connections", Value::Null).await.ok();
    assert_eq!(sources["data"].as_array().map(Vec::len), Some(1), "the same hospital: {sources}");
    assert_eq!(demo.stop().code, Some(0));
    assert!(data.is_dir(), "a folder that was named is kept");
}

#[tokio::test]
async fn a_demo_that_cannot_start_leaves_no_folder_behind() {
    let temporary = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let ended = Program::start_in(&temporary, &["demo", "--json", "--port", &port]).ended();
    ended.refused(1, &[&port]);
    assert_eq!(fs::read_dir(temporary.path()).expect("a folder").count(), 0);
}

#[test]
fn a_demo_that_is_stopped_at_once_leaves_no_folder_behind() {
    let temporary = tempfile::tempdir().expect("a folder");
    let there = || fs::read_dir(temporary.path()).expect("a folder").count();
    let demo = Program::start_in(&temporary, &["demo", "--json", "--port", "0"]);
    while there() == 0 && !demo.has_ended() {
        std::thread::yield_now();
    }
    let ended = demo.stop();
    assert_eq!((ended.code, there()), (Some(0), 0), "{ended:?}");
}

#[test]
fn serving_takes_as_many_open_files_as_it_may_have() {
    let place = Place::make();
    let serving = place.serve_with_open_files(300);
    serving.says("chartgate is serving");
    let limits = fs::read_to_string(format!("/proc/{}/limits", serving.id())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let mut words = line.split_whitespace().skip(3);
    let (soft, hard) = (words.next(), words.next());
    assert_eq!(soft, hard, "{line}");
    assert_eq!(soft, Some("300"));
    assert!(
        serving.said().contains("LimitNOFILE"),
        "300 are too few for 10,000 connections: {}",
        serving.said()
    );
    // The place where the control socket was made is gone, and the socket is its owner's only.
    assert!(!std::path::Path::new(&place.path("data/control.new")).exists());
    assert_eq!(mode(&place.path("data/control.sock")), 0o600);
    place.ask(&["source", "list"]).ok();
    assert_eq!(serving.stop().code, Some(0));
}

#[tokio::test]
async fn a_power_cut_right_after_the_patient_came_back_loses_nothing() {
    let (_hospital, document, place, caller) = with_hospital().await;
    let source = text(&document, "fhir_base_url");
    let serving = place.serve();
    let (_, link) = caller.journey("ben-3", source).await;
    let undisturbed = caller.complete("ben-3", &link).await;
    assert!(undisturbed.len() > 15, "{undisturbed:?}");

    let clock = Clock::machine();
    // No record arrives before the power goes, and the access token is over when it is back.
    let faults = json!({ "fhir": {"*": {"status": "hang"}}, "expires_in": 1 });
    control(&document, "POST", "faults", &faults).await;
    let (back, link) = caller.journey("amy-7", source).await;
    assert!(back.contains("success=true"), "{back}");
    let killed = serving.kill();
    assert_eq!(killed.code, None, "ended by a signal");
    let over = clock.now().after(Duration::from_secs(1));
    while clock.now() < over {
        control(&document, "DELETE", "faults", &Value::Null).await;
    }
    control(&document, "DELETE", "log", &Value::Null).await;

    let serving = place.serve();
    assert_eq!(caller.connection("amy-7").await["status"], "active");
    let resumed = caller.complete("amy-7", &link).await;
    assert_eq!(resumed, undisturbed, "the same person's records, all of them");
    let counters = control(&document, "GET", "counters", &Value::Null).await;
    assert!(counters["token.refresh_token.ok"].as_u64() >= Some(1), "the token was refreshed: {counters}");
    assert_eq!(caller.connection("amy-7").await["status"], "active");
    assert_eq!(serving.stop().code, Some(0));
}

#[tokio::test]
async fn power_cuts_in_the_middle_of_a_pull_give_nothing_twice_and_lose_nothing() {
    let (_hospital, document, place, caller) = with_hospital_of(&["--size", "3000"]).await;
    let source = text(&document, "fhir_base_url");
    let users = document["users"].as_array().expect("users");
    let long = json!({ "username": users.last().expect("the large one")["username"] });
    control(&document, "POST", "auto-approve", &long).await;
    let serving = place.serve();
    let (_, link) = caller.journey("ben-3", source).await;
    let undisturbed = caller.complete("ben-3", &link).await;
    assert!(undisturbed.len() >= 3_000, "{}", undisturbed.len());
    let answered = async || {
        let counters = control(&document, "GET", "counters", &Value::Null).await;
        let counters = counters.as_object().cloned().unwrap_or_default();
        let pages = counters
            .iter()
            .filter(|(name, _)| name.starts_with("fhir.") && name.split('.').next_back() == Some("ok"));
        pages.filter_map(|(_, count)| count.as_u64()).sum::<u64>()
    };
    let whole = answered().await;
    control(&document, "DELETE", "log", &Value::Null).await;

    let (_, link) = caller.journey("amy-7", source).await;
    let mut serving = serving;
    let mut cuts = 0;
    while cuts < 4 {
        // A few pages more than at the last cut, whichever they are.
        let reached = answered().await + whole / 6;
        while answered().await < reached {
            tokio::task::yield_now().await;
        }
        assert_eq!(serving.kill().code, None, "ended by a signal");
        cuts += 1;
        serving = place.serve();
    }
    let resumed = caller.complete("amy-7", &link).await;
    assert_eq!(resumed, undisturbed, "the same person's records, each once");
    let pages = answered().await;
    // What was on its way when the power went, at most four pages each time, and the Patient is read first.
    assert!(pages <= whole + cuts * 6, "{pages} pages instead of {whole}: it went on where it was");
    assert_eq!(serving.stop().code, Some(0));
}

#[tokio::test]
async fn what_a_pull_could_not_get_is_reported_and_reading_can_be_held() {
    let (_hospital, document, place, caller) = with_hospital().await;
    control(&document, "POST", "faults", &json!({ "fhir": {"Goal": {"status": 403}} })).await;
    let serving = place.serve();
    let (_, link) = caller.journey("amy-7", text(&document, "fhir_base_url")).await;
    caller.complete("amy-7", &link).await;
    let id = text(&caller.connection("amy-7").await, "id").to_owned();
    let report = place.ask(&["pulls", &id]).ok();
    assert_eq!(report["state"], "partial", "{report}");
    let types = report["types"].as_array().expect("a list");
    let row = |name: &str| types.iter().find(|row| row["type"] == name).expect("a row");
    assert_eq!(row("Goal")["state"], "forbidden", "{report}");
    assert!(row("Goal")["note"].as_str().is_some_and(|note| note.contains("403")), "{report}");
    assert!(row("Observation")["count"].as_u64() > Some(0) && row("Observation")["oldest"].is_string());
    assert!(report["next_at"].is_string(), "{report}");
    let words = place.run(&["pulls", &id]);
    assert!(words.out.contains("forbidden") && words.out.contains("Observation"), "{words:?}");

    assert_eq!(place.ask(&["pulls", "pause"]).ok()["state"], "held");
    assert_eq!(place.ask(&["pulls", "now", &id]).ok()["state"], "wanted");
    control(&document, "DELETE", "faults", &Value::Null).await;
    control(&document, "DELETE", "log", &Value::Null).await;
    assert!(place.ask(&["pulls", &id]).ok()["held_since"].is_string());
    let counters = control(&document, "GET", "counters", &Value::Null).await;
    assert!(
        counters.as_object().is_some_and(|all| all.keys().all(|name| !name.starts_with("fhir."))),
        "{counters}"
    );
    assert_eq!(place.ask(&["pulls", "resume"]).ok()["state"], "goes on");
    while place.ask(&["pulls", &id]).ok()["state"] != "succeeded" {}
    let report = place.ask(&["pulls", &id]).ok();
    assert_eq!(report["earlier"].as_array().map(Vec::len), Some(1), "{report}");
    place.ask(&["pulls", "resume"]).refused(1, &["not held"]);
    place.ask(&["pulls", "conn_nobody"]).refused(1, &["no connection"]);
    assert_eq!(serving.stop().code, Some(0));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_hospital_that_hangs_and_the_reading_goes_on_at_the_next_start() {
    let (_hospital, document, place, caller) = with_hospital().await;
    let serving = place.serve();
    control(&document, "POST", "faults", &json!({ "fhir": {"*": {"status": "hang"}} })).await;
    let (_, link) = caller.journey("amy-7", text(&document, "fhir_base_url")).await;
    let ended = serving.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.err.contains("unfinished"), "{ended:?}");
    control(&document, "DELETE", "faults", &Value::Null).await;
    let serving = place.serve();
    assert!(caller.complete("amy-7", &link).await.len() > 15);
    assert_eq!(serving.stop().code, Some(0));
}

#[tokio::test]
async fn init_makes_what_serve_needs_and_a_second_init_changes_nothing() {
    let place = Place::make();
    let (config, key) = (place.config(), place.path("etc/master.key"));
    assert_eq!(mode(&config), 0o640);
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(&place.path("data")), 0o700);
    assert_eq!(mode(&place.store()), 0o600);
    let read = |path: &str| fs::read_to_string(path).expect("a file");
    assert!(read(&config).contains(&format!("file = \"{key}\"")), "outside of the data folder, and named");
    let good = place.run(&["check-config"]);
    assert_eq!(good.code, Some(0), "{good:?}");

    let serving = place.serve();
    body(&place.url("/health")).await;
    let keys = body(&place.url("/api/auth/.well-known/jwks")).await;
    assert!(keys.contains("\"kid\""), "{keys}");
    assert_eq!(mode(&place.path("data/control.sock")), 0o600);
    assert_eq!(serving.stop().code, Some(0));

    let before = (read(&config), read(&key));
    let again = place.init();
    let made = again.ok();
    assert_eq!(text(&made, "jwks_uri"), place.url("/api/auth/.well-known/jwks"));
    assert_eq!(again.err.matches("it was there").count(), 2, "{again:?}");
    assert_eq!((read(&config), read(&key)), before);
    let serving = place.serve();
    assert_eq!(body(&place.url("/api/auth/.well-known/jwks")).await, keys, "the same keys");
    assert_eq!(serving.kill().code, None);
    let serving = place.serve();
    assert_eq!(body(&place.url("/api/auth/.well-known/jwks")).await, keys, "also after a power cut");
    drop(serving);
}

#[tokio::test]
async fn what_serve_says_holds_no_secret() {
    let (_hospital, document, place, caller) = with_hospital().await;
    let serving = place.serve();
    let source = text(&document, "fhir_base_url");
    let (_, link) = caller.journey("amy-7", source).await;
    caller.complete("amy-7", &link).await;
    caller.api("GET", &format!("/patients/amy-7?api_key={}", caller.key), Value::Null).await.ok();
    let stranger = Caller { base: place.url(""), key: "mb_sk_sbx_0123456789abcdef".to_owned() };
    assert_eq!(stranger.api("GET", "/patients", Value::Null).await.status, 401);
    let ended = serving.stop();
    assert_eq!(ended.out, "", "standard output is for answers");
    assert!(ended.err.contains("answered"), "it does log: {ended:?}");
    let token = link.rsplit('/').next().expect("a token");
    let master_key = fs::read_to_string(place.path("etc/master.key")).expect("a file");
    let secrets = [&caller.key, &stranger.key, token, master_key.trim(), "eyJ", "?code=", "Bearer "];
    for secret in secrets {
        assert!(!ended.err.contains(secret), "`{secret}` was said: {}", ended.err);
    }
}

#[test]
fn help_and_version_are_answers() {
    let version = run(&["--version"]);
    assert_eq!(
        (version.code, version.out.trim()),
        (Some(0), concat!("chartgate ", env!("CARGO_PKG_VERSION")))
    );
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in
        ["demo", "init", "serve", "sandbox", "check-config", "api-key", "source", "ehr-client", "keys"]
    {
        assert!(help.out.contains(command), "{command}");
    }
}
