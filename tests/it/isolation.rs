//! Two workspaces never see each other, nothing of the sandbox meets anything live, and no secret or clinical text is
//! found where it should not be.

use chartgate::api::OPERATIONS;
use chartgate::config::{AuthMethod, Environment, SmartVersion};
use chartgate::directory::{NewEhrClient, NewSource};
use chartgate::events::history::RefreshedBy;
use chartgate::smart::FhirBaseUrl;
use chartgate::smart::server::Overrides;
use chartgate::workspaces::NewApiKeyTerms;
use serde_json::{Value, json};

use crate::support::{Browser, TestApp, logged};

async fn key_of(app: &TestApp, workspace: &str, environment: Environment) -> String {
    let parts = app.app().parts();
    let workspace = parts.workspaces.ensure(workspace, environment).await.expect("made");
    parts
        .api_keys
        .create(&workspace, "test", NewApiKeyTerms::default())
        .await
        .expect("a key")
        .text
        .expose()
        .to_owned()
}

#[tokio::test]
async fn another_workspace_finds_nothing_through_any_operation() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    let connection = app.connected("amy-7", &user).await;
    let (link, session) = app.session("amy-7").await;
    let stranger = key_of(&app, "stranger", Environment::Sandbox).await;
    for (method, path) in [
        ("GET", "/patients/amy-7".to_owned()),
        ("PUT", "/patients/amy-7".to_owned()),
        ("DELETE", "/patients/amy-7".to_owned()),
        ("GET", "/patients/amy-7/records".to_owned()),
        ("GET", "/patients/amy-7/patient-sessions".to_owned()),
        ("DELETE", format!("/patients/amy-7/connections/{connection}")),
        ("GET", format!("/patient-sessions/{session}")),
        ("GET", "/launch-contexts/7f2c1e9a-0000-4000-8000-000000000000".to_owned()),
    ] {
        let body = if method == "PUT" { json!({"patient_id": "amy-7"}) } else { Value::Null };
        let answer = app.api_as(&stranger, method, &path, body).await;
        assert_eq!(answer.error(), (404, "resource_not_found".to_owned()), "{method} {path}");
    }
    let listed = app.api_as(&stranger, "GET", "/patients?patient_id=amy-7", Value::Null).await.ok();
    assert_eq!(listed["data"], json!([]));
    // The same patient id in both is two patients.
    app.api_as(&stranger, "POST", "/patients", json!({"patient_id": "amy-7", "name": "Another"})).await.ok();
    let theirs = app.api_as(&stranger, "GET", "/patients/amy-7", Value::Null).await.ok();
    assert_eq!((&theirs["connections"], &theirs["name"]), (&json!([]), &json!("Another")));
    // A connection of one patient is not reachable through another patient either.
    let path = format!("/patients/amy-7/connections/{connection}");
    assert_eq!(app.api_as(&stranger, "DELETE", &path, Value::Null).await.status, 404);
    assert_eq!(app.connection("amy-7").await["status"], "active");
    let other_link = app.session("ben-3").await.0;
    let result = format!("{other_link}/result/{connection}");
    assert_eq!(Browser::default().get(&result).await.status, 404, "a result belongs to its own session");
    assert_eq!(Browser::default().get(&link).await.status, 200);
}

/// The same ids, sessions and endpoints in both workspaces; every operation of the table is asked for the other's things.
#[tokio::test]
async fn no_operation_of_the_table_shows_or_changes_what_is_anothers() {
    let app = TestApp::start().await;
    let receiver = json!({"url": "http://localhost:9/hooks", "events": ["*"]});
    let endpoint =
        app.api("POST", "/webhooks", receiver).await.ok()["id"].as_str().expect("an id").to_owned();
    let user = app.hospital.users()[0].username.clone();
    let connection = app.connected("amy-7", &user).await;
    let (_, session) = app.session("amy-7").await;
    let events = app.api("GET", &format!("/webhooks/{endpoint}/events"), Value::Null).await.ok();
    let event = events["data"][0]["id"].as_str().expect("an event").to_owned();
    let stranger = key_of(&app, "stranger", Environment::Sandbox).await;
    let own = json!({"patient_id": "amy-7", "return_url": "https://a.example/"});
    app.api_as(&stranger, "POST", "/patient-sessions", own).await.ok();

    let ours = async |path: &str| app.api("GET", path, Value::Null).await.text;
    let watched = [
        "/patients/amy-7".to_owned(),
        "/patients".to_owned(),
        "/patients/amy-7/records".to_owned(),
        "/patients/amy-7/patient-sessions".to_owned(),
        format!("/webhooks/{endpoint}"),
    ];
    let mut before = Vec::new();
    for path in &watched {
        before.push(ours(path).await);
    }
    for row in OPERATIONS.iter().filter(|row| row.scope.is_some()) {
        let id = match row.path.split('/').nth(1) {
            Some("patients") => "amy-7",
            Some("patient-sessions") => session.as_str(),
            Some("webhooks") => endpoint.as_str(),
            Some("events") => event.as_str(),
            // The catalogue belongs to everybody of the environment.
            Some("connections") => "fhirsrc_x",
            Some("launch-contexts") => "7f2c1e9a-0000-4000-8000-000000000000",
            Some("fhir") => "",
            other => panic!("{other:?} is new: say what another workspace would ask for"),
        };
        let path =
            row.path.replace("{id}", id).replace("{connection_id}", &connection).replace("{path}", "Patient");
        let body = match row.method.as_str() {
            "POST" => {
                json!({"patient_id": "zoe", "return_url": "https://a.example/", "url": "https://a.example/", "events": ["*"]})
            }
            "PUT" => json!({"patient_id": "amy-7", "name": "theirs"}),
            "PATCH" => json!({"description": "theirs"}),
            _ => Value::Null,
        };
        let body = if row.path == "/patient-sessions" {
            json!({"patient_id": "zoe", "return_url": "https://a.example/"})
        } else {
            body
        };
        let answer = app.api_as(&stranger, row.method.as_str(), &path, body).await;
        assert!(answer.status < 500, "{} {}", row.id, answer.text);
        for theirs in [&connection, &session, &endpoint, &event, &"resourceType\":\"Patient".to_owned()] {
            assert!(!answer.text.contains(theirs.as_str()), "{} shows {theirs}", row.id);
        }
        let named_only = !row.path.contains("/patients/{id}") || row.path.contains("{connection_id}");
        if named_only && row.path.contains('{') {
            assert!(
                [404, 400].contains(&answer.status),
                "{} answered {}: {}",
                row.id,
                answer.status,
                answer.text
            );
        }
    }
    for (path, before) in watched.iter().zip(&before) {
        assert!(&ours(path).await == before, "{path} was changed by a stranger");
    }
}

#[tokio::test]
async fn nothing_of_the_sandbox_meets_anything_live() {
    let app = TestApp::start().await;
    let live = key_of(&app, "live", Environment::Live).await;
    let listed = app.api_as(&live, "GET", "/connections", Value::Null).await.ok();
    assert_eq!(listed["data"], json!([]));
    let encoded: String = url::form_urlencoded::byte_serialize(app.hospital.base.as_bytes()).collect();
    for id in [app.source.to_string(), encoded] {
        assert_eq!(
            app.api_as(&live, "GET", &format!("/connections/{id}"), Value::Null).await.status,
            404,
            "{id}"
        );
        assert_eq!(app.api("GET", &format!("/connections/{id}"), Value::Null).await.status, 200, "{id}");
    }
    let body = json!({"patient_id": "amy-7", "return_url": "https://a.example/", "connection_id": app.source.to_string()});
    let refused = app.api_as(&live, "POST", "/patient-sessions", body).await;
    assert_eq!(refused.error(), (404, "resource_not_found".to_owned()));
    let body = json!({"patient_id": "amy-7", "return_url": "https://a.example/"});
    let session = app.api_as(&live, "POST", "/patient-sessions", body).await.ok();
    let link = session["url"].as_str().expect("a link").to_owned();
    let page = Browser::default().get(&format!("{link}?q=mercy")).await;
    assert!(!page.text.contains("Mercy Hospital"), "{}", page.text);
    let launch =
        Browser::default().post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    assert_eq!(launch.status, 404, "the source cannot be named either");

    let directory = &app.app().parts().directory;
    let source = NewSource {
        environment: Environment::Live,
        name: "x".to_owned(),
        base: FhirBaseUrl::parse("https://h.example/r4").expect("a base"),
        ehr_client: "hospital".to_owned(),
        city: None,
        state: None,
        logo_url: None,
        portal_url: None,
        overrides: Overrides::default(),
    };
    assert!(
        directory.add_source(source.clone()).await.is_err(),
        "a sandbox registration serves no live source"
    );
    let client = NewEhrClient {
        name: "live-one".to_owned(),
        vendor: "cerner".to_owned(),
        environment: Environment::Live,
        client_id: "x".to_owned(),
        auth: AuthMethod::PrivateKeyJwt,
        client_secret: None,
        signing_algorithm: None,
        smart_version: SmartVersion::V1,
        scopes: None,
        launch: None,
    };
    directory.add_client(client).await.expect("added");
    // A live source never reaches this machine, whatever its list said.
    let inside = FhirBaseUrl::parse("https://127.0.0.1:9/r4").expect("a base");
    let source = NewSource { base: inside, ehr_client: "live-one".to_owned(), ..source };
    let source = directory.add_source(source).await.expect("added");
    let found = app.app().parts().discoverer.discover_now(&source.server()).await;
    assert!(found.is_err_and(|error| error.to_string().contains("private or local")));
}

#[tokio::test]
async fn no_secret_and_nothing_clinical_is_in_the_log_or_on_disk_or_in_an_error() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    app.hospital.agrees(&user.username).await;
    let (link, _) = app.session("amy-7-MARKERID").await;
    let mut browser = Browser::default();
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    let authorize = url::Url::parse(&browser.location().expect("a redirect")).expect("a url");
    let callback = browser.until("/api/auth/smart/callback").await;
    browser.get(&callback).await;
    app.pulls_done().await;
    let value = |url: &str, name: &str| {
        let url = url::Url::parse(url).expect("a url");
        url.query_pairs()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
            .expect("there")
    };
    let grants = app.app().parts().grants.clone();
    let connection = app.connection("amy-7-MARKERID").await["id"].as_str().expect("an id").to_owned();
    let connection = chartgate::id::Id::parse(&connection).expect("an id");
    let first =
        grants.access(connection, RefreshedBy::Proxy).await.expect("a token").token.expose().to_owned();
    app.clock.advance(std::time::Duration::from_mins(10));
    let second =
        grants.access(connection, RefreshedBy::Proxy).await.expect("a token").token.expose().to_owned();

    // What must not be seen: by name, so that a failure says which it was.
    let mut markers = vec![
        ("session token", link.rsplit('/').next().expect("a token").to_owned()),
        ("state", value(authorize.as_str(), "state")),
        ("nonce", value(authorize.as_str(), "nonce")),
        ("code", value(&callback, "code")),
        ("access token", first),
        ("renewed access token", second),
        ("API key", app.key.clone()),
        ("patient id of the app", "amy-7-MARKERID".to_owned()),
    ];
    let name = app.hospital.sandbox.population().people[0].display.clone();
    markers.push(("patient name", name));

    // Feed them through every route, in every place a caller can put them.
    for (_, marker) in &markers {
        let encoded: String = url::form_urlencoded::byte_serialize(marker.as_bytes()).collect();
        for path in [
            format!("/c/{encoded}"),
            format!("/c/{encoded}/result/{encoded}"),
            format!(
                "/api/auth/smart/callback?code={encoded}&state={encoded}&error={encoded}&error_description={encoded}"
            ),
            format!("/patients/{encoded}?limit={encoded}"),
            format!("/patients/{encoded}/records?since={encoded}&starting_after={encoded}"),
            format!("/connections/{encoded}?q={encoded}"),
            format!("/nothing/{encoded}"),
        ] {
            Browser::default().get(&format!("{}{path}", app.origin)).await;
            app.api("GET", &path, Value::Null).await;
        }
        app.api("POST", "/patients", json!({ "patient_id": 7, "name": marker })).await;
        app.api("POST", "/patient-sessions", json!({ "nonsense": marker })).await;
        app.api_as(marker, "GET", "/patients", Value::Null).await;
    }
    let log = logged();
    assert!(log.contains("launch") || log.contains("answered"), "the log was recorded");
    let file = std::fs::read(app.folder.path().join("chartgate.redb")).expect("the store");
    let on_disk = |marker: &str| file.windows(marker.len()).any(|window| window == marker.as_bytes());
    for (what, marker) in &markers {
        assert!(!log.contains(marker.as_str()), "{what} in the log");
        assert!(!on_disk(marker), "{what} on disk in clear");
    }
    for clinical in ["Observation", "resourceType", "shop.example", "Mercy Hospital", "Bearer"] {
        assert!(!on_disk(clinical), "{clinical} on disk in clear");
    }
}

#[tokio::test]
async fn a_refusal_never_repeats_what_was_sent() {
    let app = TestApp::start().await;
    let marker = "MARKER7f3a";
    let body = json!({"patient_id": marker, "email": format!("{marker}@@"), "return_url": format!("javascript:{marker}")});
    for (method, path) in [("POST", "/patients"), ("POST", "/patient-sessions")] {
        let answer = app.api(method, path, body.clone()).await;
        assert_eq!(answer.status, 400);
        assert!(!answer.text.contains(marker), "{}", answer.text);
    }
    for path in [format!("/patients/{marker}"), format!("/{marker}"), format!("/connections/{marker}")] {
        let answer = app.api("GET", &path, Value::Null).await;
        assert!(!answer.text.contains(marker), "{}", answer.text);
    }
}
