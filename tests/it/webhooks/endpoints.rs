//! Operations 15 to 20: endpoints.

use std::time::Duration;

use chartgate::config::Environment;
use chartgate::events::EventKind;
use chartgate::id::{Id as _, WebhookEndpointId};
use chartgate::workspaces::NewApiKeyTerms;
use serde_json::{Value, json};

use super::{done, endpoint, once, records, told_everything, until};
use crate::support::TestApp;

const KEYS: [&str; 10] = [
    "id",
    "resource_type",
    "url",
    "events",
    "status",
    "description",
    "metadata",
    "api_version",
    "created_at",
    "updated_at",
];

fn has_exactly(object: &Value, keys: &[&str]) {
    let mut found: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut wanted = keys.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{object}");
}

pub async fn key_of(app: &TestApp, workspace: &str, environment: Environment) -> String {
    let parts = app.app().parts();
    let workspace = parts.workspaces.ensure(workspace, environment).await.expect("made");
    let made = parts.api_keys.create(&workspace, "test", NewApiKeyTerms::default()).await.expect("a key");
    made.text.expose().to_owned()
}

#[tokio::test]
async fn an_endpoint_has_the_contracts_form_and_shows_its_secret_only_when_it_is_new() {
    let app = TestApp::start().await;
    let body = json!({
        "url": "https://app.example/hooks", "events": ["*"], "description": "orders",
        "metadata": {"team": "north"}, "something": "else",
    });
    let made = app.api("POST", "/webhooks", body).await.ok();
    has_exactly(&made, &[&KEYS[..], &["secret"]].concat());
    let id = made["id"].as_str().expect("an id");
    assert!(id.starts_with("wh_") && id.len() == 29, "{id}");
    let secret = made["secret"].as_str().expect("a secret");
    assert!(secret.starts_with("whsec_"), "{secret}");
    assert_eq!((&made["resource_type"], &made["status"]), (&json!("webhook_endpoint"), &json!("active")));
    assert_eq!((&made["events"], &made["api_version"]), (&json!(["*"]), &json!("2026-04-25")));
    assert_eq!((&made["metadata"], &made["description"]), (&json!({"team": "north"}), &json!("orders")));
    assert_eq!(made["created_at"], "2026-11-02T08:00:00.000Z");

    let path = format!("/webhooks/{id}");
    let found = app.api("GET", &path, Value::Null).await.ok();
    has_exactly(&found, &KEYS);
    for (method, path, body) in [
        ("GET", "/webhooks".to_owned(), Value::Null),
        ("PATCH", path.clone(), Value::Null),
        ("PATCH", path.clone(), json!({"description": "other"})),
        ("GET", format!("{path}/events"), Value::Null),
    ] {
        let answer = app.api(method, &path, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(!answer.text.contains("whsec_"), "{method} {path}: {}", answer.text);
    }
    app.clock.advance(Duration::from_secs(5));
    let rotated = app.api("POST", &format!("{path}/rotate-secret"), Value::Null).await.ok();
    has_exactly(&rotated, &[&KEYS[..], &["secret"]].concat());
    assert_ne!(rotated["secret"], made["secret"]);
    assert_eq!(rotated["updated_at"], "2026-11-02T08:00:05.000Z");

    let gone = app.api("DELETE", &path, Value::Null).await.ok();
    assert_eq!(gone, json!({"id": id, "resource_type": "webhook_endpoint", "deleted": true}));
    for method in ["GET", "DELETE", "PATCH"] {
        assert_eq!(app.api(method, &path, Value::Null).await.status, 404, "{method}");
    }
}

#[tokio::test]
async fn defaults_are_the_contracts() {
    let app = TestApp::start().await;
    let body = json!({ "url": "https://app.example/hooks", "events": ["records.sync.failed"] });
    let made = app.api("POST", "/webhooks", body).await.ok();
    assert_eq!((&made["description"], &made["metadata"]), (&Value::Null, &json!({})));
}

#[tokio::test]
async fn what_is_no_endpoint_is_refused_with_the_field_that_is_wrong() {
    let app = TestApp::start().await;
    let many: serde_json::Map<String, Value> = (0..51).map(|number| (number.to_string(), json!(1))).collect();
    let good = json!({ "url": "https://app.example/hooks", "events": ["*"] });
    let (id, _) = endpoint(&app, "https://app.example/hooks", &["*"]).await;
    for (field, value) in [
        ("url", json!("http://app.example/hooks")),
        ("url", json!("ftp://localhost/")),
        ("url", json!("/hooks")),
        ("url", json!("")),
        ("url", Value::Null),
        ("url", json!(7)),
        ("url", json!("https://user:word@app.example/")),
        ("url", json!("https://10.0.0.7/hooks")),
        ("url", json!("https://169.254.169.254/latest")),
        ("url", json!("https://[fd00::1]/")),
        ("url", json!(format!("https://app.example/{}", "x".repeat(2050)))),
        ("events", json!([])),
        ("events", json!("*")),
        ("events", json!(["records"])),
        ("events", json!(["*", "*", "*", "*", "*", "*"])),
        ("events", json!([7])),
        ("events", Value::Null),
        ("description", json!("x".repeat(501))),
        ("metadata", json!([])),
        ("metadata", Value::Null),
        ("metadata", Value::Object(many)),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        let refused = app.api("POST", "/webhooks", body).await;
        assert_eq!(refused.error(), (400, "invalid_data".to_owned()), "{field}: {value}");
        assert_eq!(refused.json()["error"]["param"], field, "{value}");
        let refused = app.api("PATCH", &format!("/webhooks/{id}"), json!({ field: value })).await;
        assert_eq!(refused.error(), (400, "invalid_data".to_owned()), "{field}: {value}");
        assert_eq!(refused.json()["error"]["param"], field, "{value}");
    }
    for missing in ["url", "events"] {
        let mut body = good.clone();
        body.as_object_mut().expect("an object").remove(missing);
        let refused = app.api("POST", "/webhooks", body).await;
        assert_eq!(refused.error(), (400, "bad_request".to_owned()), "{missing}");
        assert_eq!(refused.json()["error"]["param"], missing);
    }
    let refused = app.api("PATCH", &format!("/webhooks/{id}"), json!({"status": "paused"})).await;
    assert_eq!(refused.json()["error"]["param"], "status");
    let listed = app.api("GET", "/webhooks", Value::Null).await.ok();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "nothing was made or changed");
    assert_eq!(listed["data"][0]["updated_at"], listed["data"][0]["created_at"]);
}

#[tokio::test]
async fn plain_http_is_for_this_machine_and_a_sandbox_workspace_only() {
    let app = TestApp::start().await;
    let live = key_of(&app, "live", Environment::Live).await;
    for url in ["http://localhost:8080/hooks", "http://127.0.0.1:8080/", "http://[::1]:8080/"] {
        let body = json!({ "url": url, "events": ["*"] });
        assert_eq!(app.api("POST", "/webhooks", body.clone()).await.status, 200, "{url}");
        let refused = app.api_as(&live, "POST", "/webhooks", body).await;
        assert_eq!(refused.json()["error"]["param"], "url", "{url}");
    }
    for url in ["https://localhost/hooks", "https://127.0.0.1/hooks", "https://192.168.1.7/"] {
        let body = json!({ "url": url, "events": ["*"] });
        let refused = app.api_as(&live, "POST", "/webhooks", body).await;
        assert_eq!(refused.error(), (400, "invalid_data".to_owned()), "{url}");
    }
    let body = json!({ "url": "https://app.example/hooks", "events": ["*"] });
    assert_eq!(app.api_as(&live, "POST", "/webhooks", body).await.status, 200);
}

#[tokio::test]
async fn private_receivers_are_called_only_in_networks_that_are_listed() {
    let settings = vec![("webhook.allow_private", "10.1.3.0/24"), ("outbound.allow_private", "10.9.0.0/16")];
    let app = TestApp::with(crate::support::Setup { settings, ..Default::default() }).await;
    let live = key_of(&app, "live", Environment::Live).await;
    for (url, status) in
        [("https://10.1.3.7/hooks", 200), ("https://10.1.4.7/hooks", 400), ("https://10.9.0.7/hooks", 400)]
    {
        let body = json!({ "url": url, "events": ["*"] });
        assert_eq!(app.api_as(&live, "POST", "/webhooks", body).await.status, status, "{url}");
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let app = TestApp::start().await;
    let body = json!({
        "url": "https://app.example/hooks", "events": ["*"], "description": "orders", "metadata": {"a": 1, "b": 2},
    });
    let made = app.api("POST", "/webhooks", body).await.ok();
    let path = format!("/webhooks/{}", made["id"].as_str().expect("an id"));
    let mut expected = made.clone();
    expected.as_object_mut().expect("an object").remove("secret");
    assert_eq!(app.api("PATCH", &path, Value::Null).await.ok(), expected, "an empty patch");
    assert_eq!(app.api("PATCH", &path, json!({})).await.ok(), expected, "an empty object");
    app.clock.advance(Duration::from_secs(7));
    expected["updated_at"] = json!("2026-11-02T08:00:07.000Z");
    for (field, value) in [
        ("description", Value::Null),
        ("metadata", json!({"c": 3})),
        ("events", json!(["records.sync.completed", "records.sync.failed"])),
        ("status", json!("disabled")),
        ("url", json!("https://other.example/")),
        ("status", json!("active")),
    ] {
        expected[field] = value.clone();
        assert_eq!(app.api("PATCH", &path, json!({ field: value })).await.ok(), expected, "{field}");
    }
}

#[tokio::test]
async fn endpoints_are_listed_newest_first_page_by_page_and_by_status() {
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for number in 0..7 {
        app.clock.advance(Duration::from_secs(1));
        let (id, _) = endpoint(&app, &format!("https://app.example/{number}"), &["*"]).await;
        if number % 2 == 1 {
            app.api("PATCH", &format!("/webhooks/{id}"), json!({"status": "disabled"})).await.ok();
        }
        ids.insert(0, id);
    }
    for (filter, expected) in [
        ("", ids.clone()),
        ("&status=active", ids.iter().step_by(2).cloned().collect()),
        ("&status=disabled", ids.iter().skip(1).step_by(2).cloned().collect()),
    ] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app.api("GET", &format!("/webhooks?limit=2{filter}{cursor}"), Value::Null).await.ok();
            has_exactly(&page, &["resource_type", "data", "has_more", "next_cursor"]);
            let rows = page["data"].as_array().expect("a list");
            found.extend(rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()));
            assert_eq!(page["has_more"], json!(page["next_cursor"].is_string()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&starting_after={next}");
        }
        assert_eq!(found, expected, "{filter}");
    }
    for query in ["limit=0", "limit=101", "status=paused", "starting_after=x"] {
        assert_eq!(app.api("GET", &format!("/webhooks?{query}"), Value::Null).await.status, 400, "{query}");
    }
    let page = app.api("GET", "/webhooks?limit=2", Value::Null).await.ok();
    let cursor = page["next_cursor"].as_str().expect("more");
    let other = format!("/webhooks?limit=2&status=active&starting_after={cursor}");
    assert_eq!(app.api("GET", &other, Value::Null).await.status, 400, "a cursor is for its own filters");
}

#[tokio::test]
async fn a_rotation_sent_twice_under_one_key_makes_one_secret() {
    let app = TestApp::start().await;
    let (id, made) = endpoint(&app, "https://app.example/hooks", &["*"]).await;
    let (other, _) = endpoint(&app, "https://app.example/hooks", &["*"]).await;
    let path = format!("/webhooks/{id}/rotate-secret");
    let both = futures_util::future::join_all((0..2).map(|_| once(&app, &path, "k"))).await;
    let (first, second) = (both[0].ok(), both[1].ok());
    assert_eq!(first, second, "the repetition is told the secret that counts");
    let replayed = both.iter().filter(|page| page.header("idempotency-replayed") == Some("true"));
    assert_eq!(replayed.count(), 1);
    assert_ne!(first["secret"], json!(made));
    let stored = app.app().parts().webhooks.find(super::workspace(&app).await, id_of(&id)).await;
    let stored = stored.expect("read").expect("there");
    assert_eq!(json!(stored.secret.expose()), first["secret"]);
    let elsewhere = once(&app, &format!("/webhooks/{other}/rotate-secret"), "k").await;
    assert_eq!(elsewhere.error(), (409, "resource_conflict".to_owned()), "the key belongs to one request");
    assert_ne!(once(&app, &path, "another").await.ok()["secret"], first["secret"]);
    assert_eq!(once(&app, "/webhooks/wh_x/rotate-secret", "z").await.status, 404);
}

fn id_of(text: &str) -> WebhookEndpointId {
    WebhookEndpointId::parse(text).expect("an id")
}

#[tokio::test]
async fn every_kind_that_is_accepted_is_in_the_description_and_no_other_is() {
    let app = TestApp::start().await;
    let document = crate::support::send("GET", &format!("{}/openapi.json", app.origin), &[], "").await.ok();
    for name in ["NewWebhookEndpoint", "WebhookEndpointChange"] {
        let items = &document["components"]["schemas"][name]["properties"]["events"]["items"];
        let mut kinds: Vec<&str> =
            items["enum"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert_eq!(kinds.len(), EventKind::ALL.len() + 1, "{kinds:?}");
        for kind in &kinds {
            let (id, _) = endpoint(&app, "https://app.example/hooks", &[kind]).await;
            let patched = app.api("PATCH", &format!("/webhooks/{id}"), json!({"events": [kind]})).await.ok();
            assert_eq!(patched["events"], json!([kind]));
            app.api("DELETE", &format!("/webhooks/{id}"), Value::Null).await.ok();
        }
        kinds.retain(|kind| !kind.starts_with("chartgate."));
        kinds.sort_unstable();
        let contract = [
            "*",
            "connection.token_refresh_failed",
            "patient_session.completed",
            "records.sync.completed",
            "records.sync.failed",
        ];
        assert_eq!(kinds, contract);
    }
    for unknown in ["patient_session.complete", "chartgate.*", "records.*", "", "*.completed"] {
        let body = json!({"url": "https://app.example/hooks", "events": [unknown]});
        let refused = app.api("POST", "/webhooks", body).await;
        assert_eq!(refused.error(), (400, "invalid_data".to_owned()), "{unknown}");
        assert_eq!(refused.json()["error"]["param"], "events");
    }
}

#[tokio::test]
async fn a_workspace_has_a_bounded_number_of_endpoints() {
    let app = TestApp::start().await;
    for _ in 0..50 {
        endpoint(&app, "https://app.example/hooks", &["*"]).await;
    }
    let body = json!({ "url": "https://app.example/hooks", "events": ["*"] });
    assert_eq!(app.api("POST", "/webhooks", body).await.error(), (409, "resource_conflict".to_owned()));
}

#[tokio::test]
async fn another_workspace_finds_no_endpoint_and_no_event() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    done(&app, "amy-7").await;
    let event = receiver.next().await.id();
    let stranger = key_of(&app, "stranger", Environment::Sandbox).await;
    for (method, path) in [
        ("GET", format!("/webhooks/{id}")),
        ("PATCH", format!("/webhooks/{id}")),
        ("DELETE", format!("/webhooks/{id}")),
        ("POST", format!("/webhooks/{id}/rotate-secret")),
        ("GET", format!("/webhooks/{id}/events")),
        ("POST", format!("/events/{event}/redeliver")),
    ] {
        let answer = app.api_as(&stranger, method, &path, Value::Null).await;
        assert_eq!(answer.error(), (404, "resource_not_found".to_owned()), "{method} {path}");
    }
    assert_eq!(app.api_as(&stranger, "GET", "/webhooks", Value::Null).await.ok()["data"], json!([]));
    // The same things of the own workspace, so that the addresses above are known to be right.
    app.api("POST", &format!("/webhooks/{id}/rotate-secret"), Value::Null).await.ok();
    app.api("POST", &format!("/events/{event}/redeliver"), Value::Null).await.ok();
    receiver.next().await;
    // And what happens in one is not told in the other.
    let body = json!({ "url": receiver.url, "events": ["*"] });
    app.api_as(&stranger, "POST", "/webhooks", body).await.ok();
    done(&app, "ben-3").await;
    receiver.next().await;
    until(&app, &id, |events| events.iter().all(|record| record.event.delivered_at.is_some())).await;
    assert!(receiver.is_quiet().await, "one event for one endpoint");
}

#[tokio::test]
async fn a_deleted_endpoint_takes_its_events_with_it() {
    let app = TestApp::start().await;
    let (receiver, id, _) = told_everything(&app).await;
    for patient in ["amy-7", "ben-3", "eve-1"] {
        done(&app, patient).await;
        receiver.next().await;
    }
    let event = records(&app, &id).await[0].event.id;
    app.api("DELETE", &format!("/webhooks/{id}"), Value::Null).await.ok();
    let path = format!("/events/{event}/redeliver");
    assert_eq!(app.api("POST", &path, Value::Null).await.status, 404);
    app.app().parts().webhooks.tidy().await.expect("tidied");
    assert_eq!(rows_of_events(&app).await, 0, "nothing is left on disk");
}

/// How many rows the tables of events hold.
pub async fn rows_of_events(app: &TestApp) -> usize {
    use chartgate::store::{Range, Reader as _, StoreError, Table};
    let count = app.app().parts().store.read(|view| {
        let mut count = 0;
        for name in
            ["events.v1", "event_data.v1", "events_by_endpoint.v1", "events_by_patient.v1", "events_due.v1"]
        {
            count += view.keys(Table::<()>::new(name), &Range::of(b""))?.len();
        }
        Ok::<_, StoreError>(count)
    });
    count.await.expect("read")
}
