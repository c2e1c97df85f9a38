//! What an app learns, who may ask, and for how long.

use std::time::Duration;

use chartgate::config::Environment;
use chartgate::directory::{LaunchTarget, NewEhrClient, NewSource};
use chartgate::events::history::RefreshedBy;
use chartgate::grants::LaunchOutcome;
use chartgate::id::ConnectionId;
use chartgate::smart::FhirBaseUrl;
use chartgate::smart::server::Overrides;
use chartgate::workspaces::NewApiKeyTerms;
use serde_json::{Value, json};

use super::{context, kept, launch, opened, setup};
use crate::support::{Browser, TestApp};

async fn key_of(app: &TestApp, workspace: &str, environment: Environment) -> String {
    let parts = app.app().parts();
    let workspace = parts.workspaces.ensure(workspace, environment).await.expect("made");
    let key = parts.api_keys.create(&workspace, "test", NewApiKeyTerms::default()).await.expect("a key");
    key.text.expose().to_owned()
}

/// The connection that a launch gave.
async fn connection_of(app: &TestApp, handle: &str) -> ConnectionId {
    let kept = kept(app, handle).await.expect("a context");
    let LaunchOutcome::Opened(opened) = kept.outcome else { panic!("it was opened") };
    opened.connection.expect("a connection")
}

#[tokio::test]
async fn a_clinician_opens_the_app_in_a_chart_and_the_app_learns_who_and_whose() {
    let app = TestApp::with(setup()).await;
    let patient = app.hospital.users()[2].patient.clone();
    let address = opened(&app, "clinician-2", &patient).await;
    let given = url::Url::parse(&address).expect("an address");
    let value =
        given.query_pairs().find(|(name, _)| name == "launch").expect("a launch value").1.into_owned();

    let mut browser = Browser::default();
    let first = browser.get(&address).await;
    assert_eq!((first.status, first.header("referrer-policy")), (303, Some("no-referrer")));
    let asked = url::Url::parse(&browser.location().expect("a redirect")).expect("an address");
    let asked: std::collections::HashMap<String, String> = asked.query_pairs().into_owned().collect();
    assert_eq!(
        (asked["launch"].as_str(), asked["aud"].as_str()),
        (value.as_str(), app.hospital.base.as_str())
    );
    let scopes: Vec<&str> = asked["scope"].split(' ').collect();
    assert_eq!(scopes[..4], ["openid", "fhirUser", "launch", "online_access"]);
    assert!(scopes.contains(&"patient/Observation.read"));
    assert!(!asked["scope"].contains("launch/patient") && !asked["scope"].contains("offline_access"));
    assert_eq!((asked["code_challenge_method"].as_str(), asked["code_challenge"].len()), ("S256", 43));

    let handle = super::handle(&browser.until("https://app.example/").await);
    let found = context(&app, &handle).await;
    assert_eq!(found["id"], handle.as_str());
    assert_eq!((&found["resource_type"], &found["status"]), (&json!("launch_context"), &json!("ready")));
    assert_eq!(found["patient"], format!("Patient/{patient}"));
    assert_eq!(found["fhir_user"], "Practitioner/4122602");
    assert!(found["encounter"].as_str().expect("a visit").starts_with("Encounter/"), "{found}");
    assert_eq!(found["fhir_source"], app.source.to_string());
    assert_eq!(found["fhir_base_url"], app.hospital.base);
    assert_eq!(found["created_at"], "2026-11-02T08:00:00.000Z");
    assert_eq!(found["expires_at"], "2026-11-02T16:00:00.000Z");
    assert!(found["scope"].as_str().expect("scopes").contains("patient/Observation.read"));
    assert_eq!(found["need_patient_banner"], false);
    assert_eq!(found["tenant"], app.hospital.base.rsplit('/').next().expect("a tenant"));
    assert_eq!(found["smart_style_url"], "https://style.sandbox-hospital.example/smart-v1.json");
    // The contract's ten keys are there, and no token is anywhere.
    let text = found.to_string();
    for secret in ["token", "Bearer", "eyJ"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(context(&app, &handle).await, found, "it can be asked again");

    let log = crate::support::logged();
    for unsaid in [value.as_str(), handle.as_str(), asked["state"].as_str()] {
        assert!(!log.contains(unsaid), "what opens a chart is in no log");
    }

    // Nothing of the chart is kept, and it is nobody's patient.
    app.pulls_done().await;
    assert_eq!(app.hospital.count("fhir.").await, 0);
    assert_eq!(app.api("GET", "/patients", Value::Null).await.ok()["data"], json!([]));
    // The access is in custody like any other, for this chart only.
    let access = app
        .app()
        .parts()
        .grants
        .access(connection_of(&app, &handle).await, RefreshedBy::Proxy)
        .await
        .expect("an access");
    assert_eq!(access.ehr_patient.as_str(), patient);
    assert_eq!(access.base.to_string(), app.hospital.base);
}

#[tokio::test]
async fn the_chart_can_be_read_live_for_as_long_as_the_context_lives_and_no_other_can() {
    let app = TestApp::with(setup()).await;
    let (patient, other) = (app.hospital.users()[2].patient.clone(), app.hospital.users()[1].patient.clone());
    let handle = launch(&app, &mut Browser::default(), &patient).await;
    let found = context(&app, &handle).await;
    let proxy = found["fhir_proxy_url"].as_str().expect("an address").to_owned();
    let path = proxy.strip_prefix(&app.origin).expect("ours").to_owned();
    let read = app.api("GET", &format!("{path}/Patient/{patient}"), Value::Null).await.ok();
    assert_eq!(read["id"], patient.as_str());
    let visit = found["encounter"].as_str().expect("a visit");
    assert_eq!(app.api("GET", &format!("{path}/{visit}"), Value::Null).await.status, 200);
    let elsewhere = app.api("GET", &format!("{path}/Patient/{other}"), Value::Null).await;
    assert!(elsewhere.status >= 400 && !elsewhere.text.contains("birthDate"), "{}", elsewhere.text);
    let stranger = key_of(&app, "stranger", Environment::Sandbox).await;
    let refused = app.api_as(&stranger, "GET", &format!("{path}/Patient/{patient}"), Value::Null).await;
    assert_eq!(refused.status, 404, "{}", refused.text);
    assert_eq!(app.api("GET", "/patients", Value::Null).await.ok()["data"], json!([]));

    app.clock.advance(Duration::from_hours(8));
    app.app().parts().grants.erase_old_contexts().await.expect("erased");
    let late = app.api("GET", &format!("{path}/Patient/{patient}"), Value::Null).await;
    assert!(matches!(late.status, 401 | 404), "{} {}", late.status, late.text);
}

#[tokio::test]
async fn a_patient_opens_the_app_in_the_portal() {
    let app = TestApp::with(setup()).await;
    let user = app.hospital.users()[1].clone();
    app.hospital.agrees(&user.username).await;
    let wanted = json!({"client_id": crate::support::CLIENT_ID, "username": user.username});
    let address =
        app.hospital.control("POST", "launch", &wanted).await["url"].as_str().expect("url").to_owned();
    let mut browser = Browser::default();
    browser.get(&address).await;
    let found = context(&app, &super::handle(&browser.until("https://app.example/").await)).await;
    let reference = format!("Patient/{}", user.patient);
    assert_eq!((&found["patient"], &found["fhir_user"]), (&json!(reference), &json!(reference)));
    assert_eq!(found["encounter"], Value::Null);
}

#[tokio::test]
async fn two_charts_one_after_the_other_in_one_browser_stay_apart() {
    let app = TestApp::with(setup()).await;
    let users = app.hospital.users();
    let mut browser = Browser::default();
    // Both are on the way at the same time, and come back in the other order.
    let first = opened(&app, "clinician-1", &users[0].patient).await;
    let second = opened(&app, "clinician-1", &users[1].patient).await;
    browser.get(&first).await;
    let first_back = browser.until("/api/auth/smart/callback").await;
    browser.get(&second).await;
    let second_back = browser.until("/api/auth/smart/callback").await;
    browser.get(&second_back).await;
    let of_second = super::handle(&browser.location().expect("on to the app"));
    browser.get(&first_back).await;
    let of_first = super::handle(&browser.location().expect("on to the app"));
    assert_ne!(of_first, of_second);
    for (handle, user) in [(&of_first, &users[0]), (&of_second, &users[1])] {
        assert_eq!(context(&app, handle).await["patient"], format!("Patient/{}", user.patient));
        let connection = connection_of(&app, handle).await;
        let access =
            app.app().parts().grants.access(connection, RefreshedBy::Proxy).await.expect("an access");
        assert_eq!(access.ehr_patient.as_str(), user.patient);
    }
    let third = launch(&app, &mut browser, &users[0].patient).await;
    assert_ne!(third, of_first, "each launch has its own context");
}

#[tokio::test]
async fn a_launch_without_a_chart_gives_a_context_and_keeps_no_access() {
    let app = TestApp::with(setup()).await;
    app.hospital.faults(json!({"drop_patient": true})).await;
    let handle = launch(&app, &mut Browser::default(), &app.hospital.users()[0].patient.clone()).await;
    let found = context(&app, &handle).await;
    assert_eq!((&found["patient"], &found["fhir_user"]), (&Value::Null, &json!("Practitioner/4122601")));
    let kept = kept(&app, &handle).await.expect("a context");
    assert!(matches!(&kept.outcome, LaunchOutcome::Opened(opened) if opened.connection.is_none()));
}

#[tokio::test]
async fn only_the_workspace_that_owns_the_launch_finds_its_context() {
    let app = TestApp::with(setup()).await;
    let handle = launch(&app, &mut Browser::default(), &app.hospital.users()[0].patient.clone()).await;
    let path = format!("/launch-contexts/{handle}");
    assert_eq!(app.api("GET", &path, Value::Null).await.status, 200);
    assert_eq!(app.api("GET", &path.to_uppercase().to_lowercase(), Value::Null).await.status, 200);
    for key in
        [key_of(&app, "stranger", Environment::Sandbox).await, key_of(&app, "live", Environment::Live).await]
    {
        let answer = app.api_as(&key, "GET", &path, Value::Null).await;
        assert_eq!(answer.error(), (404, "resource_not_found".to_owned()));
    }
    for other in ["7f2c1e9a-0000-4000-8000-000000000000", "x", "%00", &handle.replace('-', ""), "conn_1"] {
        let answer = app.api("GET", &format!("/launch-contexts/{other}"), Value::Null).await;
        assert_eq!(answer.error(), (404, "resource_not_found".to_owned()), "{other}");
    }
    let nobody = crate::support::send("GET", &format!("{}{path}", app.origin), &[], "").await;
    assert_eq!(nobody.status, 401);
}

#[tokio::test]
async fn with_several_workspaces_a_launch_belongs_to_the_named_one_or_to_nobody() {
    let app = TestApp::with(setup()).await;
    let patient = app.hospital.users()[0].patient.clone();
    let other = key_of(&app, "second-app", Environment::Sandbox).await;
    // Nobody has said whose the launches are.
    let page = Browser::default().get(&opened(&app, "clinician-1", &patient).await).await;
    assert_eq!(page.status, 403, "{}", page.text);
    assert!(page.text.contains("cannot be opened yet") && page.text.contains("clinic"), "{}", page.text);
    assert!(page.header("location").is_none());

    let parts = app.app().parts();
    let client = parts.directory.client_named("hospital").expect("there");
    let target = |workspace: &str| {
        let url = "https://app.example/start?tab=1".to_owned();
        Some(LaunchTarget { url, workspace: Some(workspace.to_owned()) })
    };
    let client = |launch| NewEhrClient {
        name: client.name.clone(),
        vendor: client.vendor.clone(),
        environment: client.environment,
        client_id: client.client_id.clone(),
        auth: client.auth,
        client_secret: client.client_secret.clone(),
        signing_algorithm: client.signing_algorithm,
        smart_version: client.smart_version,
        scopes: client.scopes.clone(),
        launch,
    };
    parts.directory.ensure_client(client(target("second-app"))).await.expect("changed");
    let handle = launch(&app, &mut Browser::default(), &patient).await;
    let path = format!("/launch-contexts/{handle}");
    assert_eq!(app.api_as(&other, "GET", &path, Value::Null).await.status, 200);
    assert_eq!(app.api("GET", &path, Value::Null).await.status, 404);
    // A workspace of the other environment owns nothing of this one.
    for name in ["live", "nobody"] {
        parts.directory.ensure_client(client(target(name))).await.expect("changed");
        let page = Browser::default().get(&opened(&app, "clinician-1", &patient).await).await;
        assert_eq!(page.status, 403, "{name}");
    }
}

#[tokio::test]
async fn a_context_ends_after_its_time_with_the_access_that_came_with_it() {
    let app = TestApp::with(setup()).await;
    let handle = launch(&app, &mut Browser::default(), &app.hospital.users()[0].patient.clone()).await;
    let connection = connection_of(&app, &handle).await;
    let grants = &app.app().parts().grants;
    app.clock.advance(Duration::from_hours(8) - Duration::from_secs(1));
    context(&app, &handle).await;
    grants.access(connection, RefreshedBy::Proxy).await.expect("renewed as long as the context lives");
    grants.erase_old_contexts().await.expect("nothing to do");
    assert!(grants.connection(connection).await.expect("read").is_some());

    app.clock.advance(Duration::from_secs(1));
    let path = format!("/launch-contexts/{handle}");
    assert_eq!(app.api("GET", &path, Value::Null).await.status, 404, "also before it is erased");
    grants.erase_old_contexts().await.expect("erased");
    assert!(grants.connection(connection).await.expect("read").is_none());
    assert!(grants.access(connection, RefreshedBy::Proxy).await.is_err());
    let told = async {
        while app.hospital.count("revoke.ok").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("the hospital is told");
    assert_eq!(app.api("GET", &path, Value::Null).await.status, 404);
    // A launch after that is as good as the first.
    let again = launch(&app, &mut Browser::default(), &app.hospital.users()[0].patient.clone()).await;
    context(&app, &again).await;
}

#[tokio::test]
async fn the_hospital_ends_the_access_and_nobody_is_told_of_a_patient() {
    let app = TestApp::with(setup()).await;
    let body = json!({ "url": "https://hooks.example/", "events": ["*"] });
    let endpoint = app.api("POST", "/webhooks", body).await.ok();
    let handle = launch(&app, &mut Browser::default(), &app.hospital.users()[0].patient.clone()).await;
    let connection = connection_of(&app, &handle).await;
    assert!(app.app().parts().grants.upcoming(50).await.expect("read").is_empty(), "nothing is scheduled");
    app.hospital.control("POST", "revoke", &json!({})).await;
    app.clock.advance(Duration::from_hours(1));
    assert!(app.app().parts().grants.access(connection, RefreshedBy::Proxy).await.is_err());
    let told = format!("/webhooks/{}/events", endpoint["id"].as_str().expect("an id"));
    assert_eq!(app.api("GET", &told, Value::Null).await.ok()["data"], json!([]));
    // Who opened the app, and where, stays known.
    assert_eq!(context(&app, &handle).await["fhir_user"], "Practitioner/4122601");
}

#[tokio::test]
async fn a_restart_on_the_way_and_one_afterwards_lose_nothing() {
    let mut app = TestApp::with(setup()).await;
    let patient = app.hospital.users()[0].patient.clone();
    let mut browser = Browser::default();
    browser.get(&opened(&app, "clinician-1", &patient).await).await;
    app.restart().await;
    let handle = super::handle(&browser.until("https://app.example/").await);
    app.restart().await;
    assert_eq!(context(&app, &handle).await["patient"], format!("Patient/{patient}"));
    let connection = connection_of(&app, &handle).await;
    app.app().parts().grants.access(connection, RefreshedBy::Proxy).await.expect("an access");
}

#[tokio::test]
async fn patients_and_clinicians_at_one_address_use_their_own_registrations() {
    let app = TestApp::with(setup()).await;
    let directory = &app.app().parts().directory;
    let of = |name: &str, launch: Option<LaunchTarget>| NewEhrClient {
        name: name.to_owned(),
        vendor: "generic".to_owned(),
        environment: Environment::Sandbox,
        client_id: name.to_owned(),
        auth: chartgate::config::AuthMethod::PrivateKeyJwt,
        client_secret: None,
        signing_algorithm: None,
        smart_version: chartgate::config::SmartVersion::V1,
        scopes: None,
        launch,
    };
    let source = |name: &str, client: &str| NewSource {
        environment: Environment::Sandbox,
        name: name.to_owned(),
        base: FhirBaseUrl::parse("https://both.example/r4").expect("a base"),
        ehr_client: client.to_owned(),
        city: None,
        state: None,
        logo_url: None,
        portal_url: None,
        overrides: Overrides::default(),
    };
    let target = LaunchTarget { url: "https://app.example/".to_owned(), workspace: None };
    directory.add_client(of("charts", Some(target))).await.expect("added");
    directory.add_client(of("patients", None)).await.expect("added");
    let charts = directory.ensure_source(source("Both, charts", "charts")).await.expect("added");
    let patients = directory.ensure_source(source("Both", "patients")).await.expect("added");
    assert_ne!(charts.id, patients.id);
    assert!(directory.add_source(source("Both", "patients")).await.is_err(), "once for patients");
    assert!(directory.add_source(source("Both", "charts")).await.is_err(), "and once for charts");
    let found = directory.catalogue(Environment::Sandbox, "both", &|_| true);
    assert_eq!(found, [patients.id], "patients are shown theirs only");
    let base = FhirBaseUrl::parse("https://both.example/r4").expect("a base");
    assert_eq!(directory.source_at(Environment::Sandbox, &base).expect("there").id, patients.id);
    // Another registration for patients takes the place of the first, under the same id.
    directory.add_client(of("patients-anew", None)).await.expect("added");
    let moved = directory.ensure_source(source("Both", "patients-anew")).await.expect("changed");
    assert_eq!(moved.id, patients.id);
    // A server that is for clinicians is never offered to patients.
    assert!(directory.catalogue(Environment::Sandbox, "mercy", &|_| true).is_empty());
}
