//! Through the proxy, the sandbox hospital in each of its personalities looks as it looks directly.

use std::collections::BTreeSet;
use std::time::Duration;

use chartgate::config::Environment;
use chartgate::control::{self, AccessesOf, Command};
use chartgate::sandbox::{Personality, RegisteredClient, SmartVersion};
use chartgate::smart::server::Overrides;
use chartgate::smart::vendors::VendorProfile;
use chartgate::workspaces::{KeyScope, NewApiKeyTerms, ResourceType};
use serde_json::{Value, json};

use super::ehr::{Live, live, send};
use crate::support::{Hospital, Setup, TestApp, logged};

/// The vendor profile of the same habits.
fn vendor_of(personality: Personality) -> &'static str {
    let name = personality.name().trim_end_matches("-patient");
    VendorProfile::named(name).map_or("generic", |profile| profile.name)
}

/// MEDITECH's sandbox refuses `aud`; the profile knows it by its name only.
fn no_aud(_: &Hospital) -> Overrides {
    Overrides { send_aud: Some(false), ..Overrides::default() }
}

async fn get(app: &TestApp, url: &str) -> Live {
    live(app, "GET", url, &[], "").await.whole().await
}

/// Ids of all entries over all pages, following `next` as a client does.
async fn pages(app: &TestApp, first: String) -> (BTreeSet<String>, usize) {
    let (mut ids, mut count, mut next) = (BTreeSet::new(), 0, Some(first));
    while let Some(url) = next {
        assert!(url.starts_with(&app.origin), "{url} leads away from the proxy");
        let page = get(app, &url).await;
        assert_eq!(page.status, 200, "{url}: {}", page.text());
        assert!(!page.text().contains(&app.hospital.base), "an address of the hospital is left");
        let page = page.json();
        count += 1;
        for entry in page["entry"].as_array().into_iter().flatten() {
            let (full, resource) = (entry["fullUrl"].as_str().expect("a url"), &entry["resource"]);
            assert!(full.starts_with(&app.origin), "{full}");
            ids.insert(resource["id"].as_str().expect("an id").to_owned());
        }
        let links = page["link"].as_array().expect("links");
        let link = links.iter().find(|link| link["relation"] == "next");
        next = link.map(|link| link["url"].as_str().expect("a url").to_owned());
    }
    (ids, count)
}

#[tokio::test]
async fn a_client_reads_the_patient_and_all_pages_in_every_personality() {
    // Medicare has no laboratory results to page through.
    for personality in Personality::ALL.into_iter().filter(|one| *one != Personality::Bluebutton) {
        let profile = VendorProfile::named(vendor_of(personality)).expect("a profile");
        let app = TestApp::with(Setup {
            personality,
            vendor: profile.name,
            auth: profile.auth,
            smart_version: profile.smart_version,
            overrides: if personality == Personality::Meditech { no_aud } else { |_| Overrides::default() },
            client: |client| RegisteredClient { smart_version: SmartVersion::V1, ..client },
            size: Some(600),
            ..Setup::default()
        })
        .await;
        let user = app.hospital.users().pop().expect("a patient");
        let connection = app.connected("amy-7", &user.username).await;
        let base = format!("{}/fhir/{connection}", app.origin);
        let population = app.hospital.sandbox.population();
        let patient = &user.patient;

        let read = get(&app, &format!("{base}/Patient/{patient}")).await;
        assert_eq!(read.status, 200, "{personality:?}: {}", read.text());
        assert_eq!(read.json()["id"], *patient);
        let direct = population.find("Patient", patient).expect("the patient");
        assert_eq!(read.text(), &*direct.json, "byte for byte: it has no link");
        assert_eq!(read.header("content-type"), Some("application/fhir+json"));
        assert!(read.header("etag").is_some_and(|tag| tag.starts_with("W/")));

        let first = format!("{base}/Observation?patient={patient}&category=laboratory&_count=20");
        let (ids, count) = pages(&app, first).await;
        let expected: BTreeSet<String> = population
            .of(patient, "Observation")
            .iter()
            .filter(|one| one.category_codes.iter().any(|code| code == "laboratory"))
            .map(|one| one.id.clone())
            .collect();
        assert_eq!(ids, expected, "{personality:?}");
        assert!(count > 3, "{personality:?}: {count} pages");

        let form = format!("patient={patient}&category=vital-signs&_count=20");
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let searched =
            live(&app, "POST", &format!("{base}/Observation/_search"), &kind, &form).await.whole().await;
        assert_eq!(searched.status, 200, "{personality:?}: {}", searched.text());
        assert!(searched.json()["entry"].as_array().is_some_and(|entries| !entries.is_empty()));

        let missing = get(&app, &format!("{base}/Patient/nobody")).await;
        assert_eq!((missing.status, &missing.json()["issue"][0]["code"]), (404, &json!("not-found")));
        let odd = get(&app, &format!("{base}/Condition?nonsense=1")).await;
        assert_eq!(
            (odd.status, &odd.json()["resourceType"]),
            (400, &json!("OperationOutcome")),
            "the EHR's own words"
        );
    }
}

#[tokio::test]
async fn attachments_come_in_the_type_that_is_asked_for_and_from_the_links_that_were_given() {
    let app = TestApp::start().await;
    let users = app.hospital.users();
    let population = app.hospital.sandbox.population();
    let with_documents = |patient: &str| {
        population.of(patient, "DocumentReference").iter().any(|one| one.json.contains("Binary/"))
    };
    let user = users.iter().find(|user| with_documents(&user.patient)).expect("a patient with documents");
    let connection = app.connected("amy-7", &user.username).await;
    let base = format!("{}/fhir/{connection}", app.origin);
    let found = get(&app, &format!("{base}/DocumentReference?patient={}", user.patient)).await.json();
    let attachments = found["entry"].as_array().expect("entries").iter();
    let attachments: Vec<Value> = attachments
        .flat_map(|entry| entry["resource"]["content"].as_array().cloned().unwrap_or_default())
        .map(|content| content["attachment"].clone())
        .filter(|attachment| attachment["url"].is_string())
        .collect();
    let attachment = attachments.first().expect("an attachment");
    let (url, kind) =
        (attachment["url"].as_str().expect("a url"), attachment["contentType"].as_str().expect("a type"));
    assert!(url.starts_with(&format!("{base}/Binary/")), "{url}");
    let raw = live(&app, "GET", url, &[("accept", kind)], "").await.whole().await;
    assert_eq!((raw.status, raw.header("content-type")), (200, Some(kind)));
    assert!(!raw.body.is_empty());
    assert_eq!(
        get(&app, url).await.body,
        raw.body,
        "an attachment has its own type when nothing is asked for"
    );
    let resource = live(&app, "GET", url, &[("accept", "application/fhir+json")], "").await.whole().await;
    assert_eq!(resource.json()["resourceType"], "Binary");
    let refused = live(&app, "GET", url, &[("accept", "image/png")], "").await.whole().await;
    assert_eq!((refused.status, refused.body.len()), (406, 0), "the EHR's own refusal, empty as it is");
}

#[tokio::test]
async fn a_rejected_token_is_replaced_out_of_sight_and_an_ended_connection_says_what_to_do() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    let connection = app.connected("amy-7", &user.username).await;
    let url = format!("{}/fhir/{connection}/Patient/{}", app.origin, user.patient);
    app.clock.advance(Duration::from_mins(2));
    let before = app.hospital.count("token.refresh_token.ok").await;
    app.hospital.faults(json!({"fhir": {"Patient": {"status": 401, "times": 1}}})).await;
    assert_eq!(get(&app, &url).await.status, 200);
    assert_eq!(app.hospital.count("token.refresh_token.ok").await, before + 1);

    // A token that just came is not the reason, so no refresh token is spent on it.
    app.hospital.faults(json!({"fhir": {"Patient": {"status": 401}}})).await;
    assert_eq!(get(&app, &url).await.refusal(), (502, "access-rejected".to_owned()));
    app.hospital.well().await;
    assert_eq!(get(&app, &url).await.status, 200);

    // Errors of the EHR's own pass as they are.
    for (status, shape) in [(403, "forbidden"), (429, "throttled"), (500, "required"), (503, "transient")] {
        app.hospital.faults(json!({"fhir": {"Patient": {"status": status, "times": 1}}})).await;
        let answer = get(&app, &url).await;
        assert_eq!((answer.status, &answer.json()["issue"][0]["code"]), (status, &json!(shape)));
        assert_eq!(answer.header("www-authenticate"), None);
    }
    app.hospital.well().await;

    let path = format!("/patients/amy-7/connections/{connection}");
    app.api("DELETE", &path, Value::Null).await.ok();
    let ended = get(&app, &url).await;
    assert_eq!(ended.refusal(), (403, "connection-not-active".to_owned()));
    assert!(ended.text().contains("POST /patient-sessions"), "{}", ended.text());
    app.api("DELETE", "/patients/amy-7", Value::Null).await.ok();
    assert_eq!(get(&app, &url).await.refusal(), (404, "unknown-connection".to_owned()));
}

#[tokio::test]
async fn a_hospital_that_does_not_renew_is_told_apart_from_an_ended_connection() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    let connection = app.connected("amy-7", &user.username).await;
    let url = format!("{}/fhir/{connection}/Patient/{}", app.origin, user.patient);
    app.clock.advance(Duration::from_mins(10));
    app.hospital.faults(json!({"token_endpoint": "503"})).await;
    let later = get(&app, &url).await;
    assert_eq!(later.refusal(), (503, "access-not-renewed".to_owned()));
    assert_eq!(later.header("retry-after"), Some("10"));
    app.hospital.faults(json!({"token_endpoint": null, "token_error": {"error": "invalid_grant"}})).await;
    app.clock.advance(Duration::from_mins(10));
    assert_eq!(get(&app, &url).await.refusal(), (403, "connection-not-active".to_owned()));
}

#[tokio::test]
async fn only_the_keys_own_workspace_is_there() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    let connection = app.connected("amy-7", &user.username).await;
    let url = format!("{}/fhir/{connection}/Patient/{}", app.origin, user.patient);
    let parts = app.app().parts();
    for (name, environment) in [("stranger", Environment::Sandbox), ("live", Environment::Live)] {
        let workspace = parts.workspaces.ensure(name, environment).await.expect("made");
        let key = parts.api_keys.create(&workspace, "test", NewApiKeyTerms::default()).await.expect("a key");
        let key = format!("Bearer {}", key.text.expose());
        for path in ["", "/metadata", "/.well-known/smart-configuration", "/Nothing"] {
            let url = format!("{}/fhir/{connection}{path}", app.origin);
            let answer = send("GET", &url, &[("authorization", &key)], "").await.whole().await;
            assert_eq!(answer.refusal(), (404, "unknown-connection".to_owned()), "{name} {path}");
        }
    }
    for id in ["conn_01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense", "%2e%2e", ""] {
        let answer = get(&app, &format!("{}/fhir/{id}/Patient/1", app.origin)).await;
        assert_eq!(answer.refusal(), (404, "unknown-connection".to_owned()), "{id}");
    }
    for headers in
        [vec![], vec![("authorization", "Bearer mb_sk_sbx_wrong")], vec![("authorization", "Basic eDp5")]]
    {
        let answer = send("GET", &url, &headers, "").await.whole().await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
        answer.refusal();
    }
}

#[tokio::test]
async fn a_key_reads_what_it_was_made_for_and_nothing_else() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    let connection = app.connected("amy-7", &user.username).await;
    let (base, patient) = (format!("{}/fhir/{connection}", app.origin), &user.patient);
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    let with = async |terms: NewApiKeyTerms| {
        let key = parts.api_keys.create(&workspace, "test", terms).await.expect("a key");
        format!("Bearer {}", key.text.expose())
    };
    let types = ["Observation", "Patient"].map(|name| ResourceType::parse(name).expect("a type"));
    let some = with(NewApiKeyTerms { fhir_types: Some(types.to_vec()), ..NewApiKeyTerms::default() }).await;
    let other = Some(vec![KeyScope::PatientsRead]);
    let other = with(NewApiKeyTerms { scopes: other, ..NewApiKeyTerms::default() }).await;
    let of_patient = format!("patient={patient}&category=laboratory");
    for (path, expected) in [
        (format!("/Patient/{patient}"), None),
        (format!("/Observation?{of_patient}"), None),
        (format!("/Condition?patient={patient}"), Some("type-not-allowed")),
        ("/Binary/1".to_owned(), Some("type-not-allowed")),
        (format!("/Observation?{of_patient}&_revinclude=Provenance:target"), Some("types-not-allowed")),
        (
            format!("/Observation?{of_patient}&%5Finclude:iterate=Observation:encounter"),
            Some("types-not-allowed"),
        ),
        (format!("/Observation?{of_patient};_include=Observation:encounter"), Some("types-not-allowed")),
        (format!("/Patient/{patient}/Condition"), Some("types-not-allowed")),
        (format!("/Patient/{patient}/$everything"), Some("types-not-allowed")),
        ("?_type=Condition".to_owned(), Some("types-not-allowed")),
    ] {
        let url = format!("{base}{path}");
        let answer = send("GET", &url, &[("authorization", &some)], "").await.whole().await;
        match expected {
            None => assert_eq!(answer.status, 200, "{path}: {}", answer.text()),
            Some(code) => assert_eq!(answer.refusal(), (403, code.to_owned()), "{path}"),
        }
        let answer = send("GET", &url, &[("authorization", &other)], "").await.whole().await;
        assert_eq!(answer.refusal().0, 403, "a key without `fhir:read`: {path}");
    }
    let search = [("authorization", &*some), ("content-type", "application/x-www-form-urlencoded")];
    let form = format!("{of_patient}&_revinclude=Provenance:target");
    let url = format!("{base}/Observation/_search");
    let answer = send("POST", &url, &search, &form).await.whole().await;
    assert_eq!(answer.refusal(), (403, "types-not-allowed".to_owned()));
    let metadata = format!("{base}/metadata");
    let statement = send("GET", &metadata, &[("authorization", &some)], "").await.whole().await.json();
    let names: Vec<&Value> =
        statement["rest"][0]["resource"].as_array().expect("types").iter().map(|one| &one["type"]).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn what_the_server_says_of_itself_is_true_of_the_proxy() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    let connection = app.connected("amy-7", &user.username).await;
    let base = format!("{}/fhir/{connection}", app.origin);
    let statement = get(&app, &format!("{base}/metadata")).await;
    assert_eq!((statement.status, statement.header("content-type")), (200, Some("application/fhir+json")));
    let json = statement.json();
    assert_eq!(json["implementation"]["url"], base);
    assert_eq!(json["fhirVersion"], "4.0.1");
    let types = json["rest"][0]["resource"].as_array().expect("types");
    assert!(types.iter().any(|one| one["type"] == "Observation"));
    let security = json["rest"][0]["security"].to_string();
    assert!(!security.contains("oauth") && security.contains("API key"), "{security}");
    assert!(!statement.text().contains("/authorize"), "no way to a sign-in that is not ours to give");
    let smart = get(&app, &format!("{base}/.well-known/smart-configuration")).await;
    assert_eq!(smart.refusal(), (404, "no-smart-launch".to_owned()));
}

#[tokio::test]
async fn only_listed_pages_may_ask_from_a_browser() {
    let closed = TestApp::start().await;
    let setup = Setup { settings: vec![("fhir.cors_origins", "https://app.example")], ..Setup::default() };
    let open = TestApp::with(setup).await;
    for (app, origin, allowed) in [
        (&closed, "https://app.example", false),
        (&open, "https://app.example", true),
        (&open, "https://app.example.evil.example", false),
        (&open, "null", false),
        (&open, "http://app.example", false),
    ] {
        let url = format!("{}/fhir/conn_01ARZ3NDEKTSV4RRFFQ69G5FAV/Patient/1", app.origin);
        let asked = [("origin", origin), ("access-control-request-method", "GET")];
        let preflight = send("OPTIONS", &url, &asked, "").await.whole().await;
        let answer = live(app, "GET", &url, &[("origin", origin)], "").await.whole().await;
        let expected = allowed.then_some(origin);
        assert_eq!(preflight.header("access-control-allow-origin"), expected, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), expected, "{origin}");
        assert_eq!(preflight.header("access-control-allow-headers").is_some(), allowed);
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test]
async fn every_access_is_noted_once_and_without_what_was_read() {
    let mut app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    let connection = app.connected("amy-7", &user.username).await;
    let base = format!("{}/fhir/{connection}", app.origin);
    let lines = || {
        let log = logged();
        let lines = log.lines().filter(|line| line.contains("read live") && line.contains(&connection));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let read = get(&app, &format!("{base}/Patient/{}", user.patient)).await;
    get(&app, &format!("{base}/Observation?patient={}&category=MARKER9d&_count=1", user.patient)).await;
    get(&app, &format!("{base}/MARKER9d/x")).await;
    get(&app, &format!("{base}/Goal/MARKER9d")).await;
    let noted = lines();
    assert_eq!(noted.len(), 4, "{noted:#?}");
    for (line, kind) in noted.iter().zip(["Patient", "Observation", "none", "Goal"]) {
        assert!(line.contains(&format!("kind=\"{kind}\"")), "{line}");
        assert!(!line.contains("MARKER9d") && !line.contains(&*user.patient), "{line}");
    }
    assert!(
        noted[0].contains(&format!("bytes={}", read.body.len())) && noted[0].contains("whole"),
        "{}",
        noted[0]
    );
    app.api("GET", "/patients/amy-7/records?type=Goal,Condition", Value::Null).await.ok();
    app.api("GET", "/patients/amy-7/records/export", Value::Null).await;
    // A stop waits until what was noted is on disk.
    app.restart().await;
    let told = async |subject| {
        let command = Command::Accesses { subject, most: 10 };
        let told = control::execute(app.app().parts(), command).await.expect("told");
        let rows = told.as_array().expect("a list").iter().rev();
        let word = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let rows = rows.map(|row| (word(row, "interaction"), word(row, "type"), row["status"].as_u64()));
        (rows.collect::<Vec<_>>(), told.to_string())
    };
    let row = |interaction: &str, kind: &str, status| (interaction.to_owned(), kind.to_owned(), Some(status));
    let (live, text) = told(AccessesOf::Connection(connection.clone())).await;
    let expected = [
        row("read", "Patient", 200),
        row("search", "Observation", 200),
        row("other", "none", 404),
        row("read", "Goal", 404),
    ];
    assert_eq!(live, expected);
    assert!(!text.contains("MARKER9d") && !text.contains(&*user.patient), "{text}");
    let patient = AccessesOf::Patient { workspace: "sandbox".to_owned(), patient_id: "amy-7".to_owned() };
    let (kept, _) = told(patient).await;
    assert_eq!(kept, [row("page", "Condition,Goal", 200), row("export", "*", 200)]);
}

#[tokio::test]
async fn an_access_whose_caller_leaves_before_the_answer_is_noted_too() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    let connection = app.connected("amy-7", &user.username).await;
    app.hospital.faults(json!({"fhir": {"Goal": {"status": "hang"}}})).await;
    let url = format!("{}/fhir/{connection}/Goal?patient={}", app.origin, user.patient);
    let noted = || {
        let of = |line: &&str| line.contains("the caller left") && line.contains(&connection);
        logged().lines().filter(of).count()
    };
    {
        let asking = get(&app, &url);
        let asked = async {
            let before = app.hospital.log("fhir").await.len();
            while app.hospital.log("fhir").await.len() == before {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = asking => panic!("the hospital hangs: {}", answer.status),
            () = asked => {}
        }
    }
    let written = async {
        while noted() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("noted");
    let told = async {
        loop {
            let command = Command::Accesses { subject: AccessesOf::Connection(connection.clone()), most: 10 };
            let told = control::execute(app.app().parts(), command).await.expect("told");
            if let Some(row) = told.as_array().and_then(|rows| rows.first()) {
                return row.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let row = tokio::time::timeout(Duration::from_secs(20), told).await.expect("on disk");
    assert_eq!((&row["type"], &row["status"]), (&json!("Goal"), &json!(499)));
}
