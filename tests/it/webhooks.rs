//! Webhooks: the eight operations, what is told and when, and how it is delivered.

mod delivery;
mod endpoints;
mod facts;
mod redelivery;

use std::time::Duration;

use chartgate::events::EventRecord;
use chartgate::id::{Id as _, WebhookEndpointId, WorkspaceId};
use serde_json::{Value, json};

use crate::support::{Page, Receiver, TestApp, send};

/// Makes an endpoint for some kinds of events; its id and secret.
async fn endpoint(app: &TestApp, url: &str, events: &[&str]) -> (String, String) {
    let body = json!({ "url": url, "events": events });
    let made = app.api("POST", "/webhooks", body).await.ok();
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    (text("id"), text("secret"))
}

/// A journey without a hospital: a picker session whose patient is done at once. The session's id.
async fn done(app: &TestApp, patient: &str) -> String {
    let (link, id) = app.session(patient).await;
    let page = crate::support::Browser::default().post(&format!("{link}/done"), &[]).await;
    assert_eq!(page.status, 303, "{}", page.text);
    id
}

async fn workspace(app: &TestApp) -> WorkspaceId {
    app.app().parts().workspaces.named("sandbox").await.expect("read").expect("there").id
}

/// What is known of an endpoint's events, newest first; read past the API, which counts its callers.
async fn records(app: &TestApp, endpoint: &str) -> Vec<EventRecord> {
    let id = WebhookEndpointId::parse(endpoint).expect("an id");
    let found = app.app().parts().webhooks.events(workspace(app).await, id, None, None, 1_000).await;
    found.expect("read").expect("the endpoint is there")
}

/// Waits until an endpoint's events are as they should be.
async fn until(app: &TestApp, endpoint: &str, good: impl Fn(&[EventRecord]) -> bool) -> Vec<EventRecord> {
    let wait = async {
        loop {
            let found = records(app, endpoint).await;
            if good(&found) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_mins(1), wait).await.ok();
    let seen = records(app, endpoint).await;
    found.unwrap_or_else(|| panic!("it does not come to this: {seen:?}"))
}

/// An endpoint at a new receiver that wants everything.
async fn told_everything(app: &TestApp) -> (Receiver, String, String) {
    let receiver = Receiver::start().await;
    let (id, secret) = endpoint(app, &receiver.url, &["*"]).await;
    (receiver, id, secret)
}

/// A POST without a body under an `Idempotency-Key`.
async fn once(app: &TestApp, path: &str, key: &str) -> Page {
    let authorization = format!("Bearer {}", app.key);
    let headers = [("authorization", authorization.as_str()), ("idempotency-key", key)];
    send("POST", &format!("{}{path}", app.origin), &headers, "").await
}

async fn status_of(app: &TestApp, endpoint: &str) -> Value {
    app.api("GET", &format!("/webhooks/{endpoint}"), Value::Null).await.ok()["status"].clone()
}
