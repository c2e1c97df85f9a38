//! Launches from inside an EHR, from the chart to the app and to what the app may ask.

mod contexts;
mod hostile;
mod troubles;

use chartgate::directory::LaunchTarget;
use chartgate::grants::LaunchContext;
use chartgate::id::LaunchContextId;
use serde_json::{Value, json};

use crate::support::{Browser, CLIENT_ID, Setup, TestApp};

/// An appliance whose hospital opens an app.
pub fn setup() -> Setup {
    let launch = LaunchTarget { url: "https://app.example/start?tab=1".to_owned(), workspace: None };
    Setup { vendor: "cerner-provider", launch: Some(launch), ..Setup::default() }
}

/// A clinician opens the app in a patient's chart: where the hospital sends the browser.
async fn opened(app: &TestApp, clinician: &str, patient: &str) -> String {
    let wanted = json!({"client_id": CLIENT_ID, "clinician": clinician, "patient": patient});
    let opened = app.hospital.control("POST", "launch", &wanted).await;
    opened["url"].as_str().expect("an address").to_owned()
}

/// The handle in the address of the app.
fn handle(address: &str) -> String {
    let address = url::Url::parse(address).expect("an address");
    let query: Vec<(String, String)> = address.query_pairs().into_owned().collect();
    assert_eq!(
        (address.as_str().split('?').next(), query[0].0.as_str(), query[0].1.as_str(), query[1].0.as_str()),
        (Some("https://app.example/start"), "tab", "1", "mb_launch")
    );
    assert_eq!(query.len(), 2, "{address}");
    query[1].1.clone()
}

/// From the chart to the app: the handle it gets.
pub async fn launch(app: &TestApp, browser: &mut Browser, patient: &str) -> String {
    let address = opened(app, "clinician-1", patient).await;
    browser.get(&address).await;
    handle(&browser.until("https://app.example/").await)
}

async fn context(app: &TestApp, handle: &str) -> Value {
    app.api("GET", &format!("/launch-contexts/{handle}"), Value::Null).await.ok()
}

/// The same as it is inside.
async fn kept(app: &TestApp, handle: &str) -> Option<LaunchContext> {
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    let id = LaunchContextId::parse(handle).expect("a handle");
    parts.grants.launch_context(workspace.id, id).await.expect("read")
}
