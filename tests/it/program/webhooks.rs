//! Webhooks of the real program: through a power cut, and to receivers that other people's libraries verify.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::running::{text, with_hospital};
use super::support::Caller;
use crate::support::{Browser, Reaction, Receiver, send};

async fn endpoint(caller: &Caller, url: &str) -> Value {
    let body = json!({ "url": url, "events": ["patient_session.completed"] });
    caller.api("POST", "/webhooks", body).await.ok()
}

/// A picker session; its id and link.
async fn session(caller: &Caller, patient: &str) -> (String, String) {
    let body = json!({ "patient_id": patient, "return_url": "https://shop.example/back" });
    let session = caller.api("POST", "/patient-sessions", body).await.ok();
    (text(&session, "id").to_owned(), text(&session, "url").to_owned())
}

/// All events of an endpoint: which session each tells of.
async fn events(caller: &Caller, endpoint: &str) -> BTreeMap<String, String> {
    let page = caller.api("GET", &format!("/webhooks/{endpoint}/events?limit=100"), Value::Null).await.ok();
    assert_eq!(page["has_more"], false);
    let rows = page["data"].as_array().expect("a list");
    rows.iter()
        .map(|row| (text(row, "id").to_owned(), text(&row["data"]["object"], "id").to_owned()))
        .collect()
}

#[tokio::test]
async fn a_power_cut_between_changes_and_their_delivery_loses_no_event_and_invents_none() {
    const SESSIONS: usize = 12;
    let (_hospital, _document, place, caller) = with_hospital().await;
    let receiver = Receiver::start().await;
    let mut serving = place.serve();
    let made = endpoint(&caller, &receiver.url).await;
    let id = text(&made, "id").to_owned();
    let (mut sessions, mut delivered) = (BTreeSet::new(), BTreeMap::new());
    // Killed after none, some and nearly all of the patients have their answer, while the others are on their way.
    for answered in [0, 4, SESSIONS - 1] {
        receiver.reacts(Reaction::Hangs);
        let mut links = Vec::new();
        for number in 0..SESSIONS {
            let (session, link) = session(&caller, &format!("patient-{answered}-{number}")).await;
            sessions.insert(session);
            links.push(format!("{link}/done"));
        }
        let mut posting: FuturesUnordered<_> = links.iter().map(|link| send("POST", link, &[], "")).collect();
        for _ in 0..answered {
            assert_eq!(posting.next().await.map(|page| page.status), Some(303));
        }
        serving.kill();
        drop(posting);
        while let Some(told) = receiver.came().await {
            delivered.insert(told.id(), text(&told.json()["data"]["object"], "id").to_owned());
        }
        receiver.reacts(Reaction::Status(200));
        serving = place.serve();
        let mut complete = BTreeSet::new();
        for session in &sessions {
            let found = caller.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
            if found["status"] == "complete" {
                complete.insert(session.clone());
            }
        }
        assert!(complete.len() >= answered, "an answer was given for what is on disk");
        let known = events(&caller, &id).await;
        let told: BTreeSet<String> = known.values().cloned().collect();
        assert_eq!(told, complete, "one event for each journey that has ended, and none for another");
        assert_eq!(known.len(), complete.len(), "and only one");
        while delivered.len() < known.len() {
            let delivery = receiver.next().await;
            delivered.insert(delivery.id(), text(&delivery.json()["data"]["object"], "id").to_owned());
        }
        assert_eq!(delivered, known, "all of them arrive, and nothing else ever has");
    }
    assert_eq!(serving.stop().code, Some(0));
}

/// The receiver in Python, when this machine has one and the library; else it says so.
struct Python {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    url: String,
}

impl Python {
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn start(secret: &str) -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/receivers/receive.py");
        let own = concat!(env!("CARGO_TARGET_TMPDIR"), "/receivers/bin/python3");
        let python = if std::path::Path::new(own).exists() { own } else { "python3" };
        let started = Command::new(python).args([script, secret]).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = started else {
            eprintln!("skipped: there is no python3");
            return None;
        };
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let Some(Ok(port)) = lines.next() else {
            assert_eq!(child.wait().expect("an end").code(), Some(77), "it ends for one reason only");
            eprintln!("skipped: python3 has no `standardwebhooks`; .ci/run installs it");
            return None;
        };
        Some(Self { child, lines, url: format!("http://127.0.0.1:{port}/hooks") })
    }

    /// What it says of the next delivery.
    fn verdict(&mut self) -> String {
        self.lines.next().expect("it runs").expect("text")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn deliveries_are_verified_by_the_public_library_and_by_the_platforms_header() {
    let (_hospital, _document, place, caller) = with_hospital().await;
    let serving = place.serve();
    // The secret is known only once the endpoint is there, so it is made first and moved to the receiver then.
    let made = endpoint(&caller, "https://app.example/hooks").await;
    let id = text(&made, "id");
    let (path, secret) = (format!("/webhooks/{id}"), text(&made, "secret"));
    let Some(mut python) = Python::start(secret) else { return };
    caller.api("PATCH", &path, json!({ "url": python.url })).await.ok();
    let (_, link) = session(&caller, "amy-7").await;
    Browser::default().post(&format!("{link}/done"), &[]).await;
    let event = events(&caller, id).await.into_keys().next().expect("an event");
    assert_eq!(python.verdict(), format!("ok {event}"));

    // After a rotation, the library takes the old secret for a while yet; the platform's header is the new one's at once.
    let rotated = caller.api("POST", &format!("{path}/rotate-secret"), Value::Null).await.ok();
    caller.api("POST", &format!("/events/{event}/redeliver"), Value::Null).await.ok();
    assert_eq!(python.verdict(), "wrong: the platform's header");
    let mut renewed = Python::start(text(&rotated, "secret")).expect("it started before");
    caller.api("PATCH", &path, json!({ "url": renewed.url })).await.ok();
    let (_, link) = session(&caller, "ben-3").await;
    Browser::default().post(&format!("{link}/done"), &[]).await;
    assert!(renewed.verdict().starts_with("ok evt_"), "with the new secret both are good");
    assert_eq!(serving.stop().code, Some(0));
}
