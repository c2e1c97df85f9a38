//! Grants that have come and are not a connection's yet: on disk before they are used, and given back when nobody keeps them.

use std::time::Duration;

use chartgate::sandbox::Personality;
use chartgate::store::{Range, Reader as _, StoreError};
use serde_json::json;

use super::life::until;
use super::{Bytes, connected, raw};
use crate::support::{Browser, Setup, TestApp};

const HELD: &str = "held_grants.v1";

async fn held(app: &TestApp) -> Vec<(Vec<u8>, Bytes)> {
    let store = &app.app().parts().store;
    store
        .read(|view| view.rows(raw(HELD), &Range::of(b"")).map_err(|error: StoreError| error))
        .await
        .expect("read")
}

async fn given_back(app: &TestApp) -> u64 {
    app.hospital.count("revoke.ok").await
}

/// A hospital whose token response names no patient, so that its FHIR server is asked.
async fn silent_about_patients() -> TestApp {
    let settings = vec![("outbound.timeout", "1s"), ("outbound.connect_timeout", "1s")];
    let setup = Setup { personality: Personality::Generic, vendor: "generic", settings, ..Setup::default() };
    let app = TestApp::with(setup).await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    app
}

#[tokio::test]
async fn a_grant_is_on_disk_while_the_hospital_is_asked_whose_it_is() {
    let app = silent_about_patients().await;
    let silent =
        json!({"drop_patient": true, "drop_fhir_user": true, "fhir": {"Patient": {"status": "hang"}}});
    app.hospital.faults(silent).await;
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    let journey = app.journey(&mut browser, &link);
    let mut seen = Vec::new();
    let watching = until("the grant is put on disk", || async {
        let now = held(&app).await;
        !now.is_empty()
    });
    let (page, ()) = tokio::join!(journey, async {
        watching.await;
        seen = held(&app).await;
    });
    assert_eq!(app.connection("amy-7").await["failure_code"], "missing_patient_context", "{}", page.text);
    assert!(held(&app).await.is_empty(), "the launch is over");
    until("the grant is given back", || async { given_back(&app).await == 1 }).await;

    // As a crash before the end would have left it.
    let (key, row) = seen.pop().expect("seen above");
    let store = app.app().parts().store.clone();
    store
        .write(move |change| {
            change.put(raw(HELD), &key, &row);
            Ok::<_, StoreError>(())
        })
        .await
        .expect("written");
    app.clock.advance(Duration::from_mins(20));
    until("what the crash left is found", || async { held(&app).await.is_empty() }).await;
    until("and given back", || async { given_back(&app).await == 2 }).await;
}

#[tokio::test]
async fn a_grant_whose_patient_is_found_by_asking_is_kept_and_not_given_back() {
    let app = silent_about_patients().await;
    app.hospital.faults(json!({"drop_patient": true, "drop_fhir_user": true})).await;
    connected(&app).await;
    assert!(held(&app).await.is_empty());
    app.clock.advance(Duration::from_mins(20));
    assert_eq!(app.connection("amy-7").await["status"], "active");
    assert_eq!(given_back(&app).await, 0);
}

#[tokio::test]
async fn a_launch_that_fails_after_its_tokens_came_gives_them_back() {
    for fault in [
        json!({"wrong_id_token_audience": true}),
        json!({"wrong_nonce": true}),
        json!({"drop_patient": true, "drop_fhir_user": true}),
    ] {
        let app = TestApp::start().await;
        app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
        app.hospital.faults(fault.clone()).await;
        let (link, _) = app.session("amy-7").await;
        app.journey(&mut Browser::default(), &link).await;
        assert_eq!(app.connection("amy-7").await["status"], "failed", "{fault}");
        until("the grant is given back", || async { given_back(&app).await == 1 }).await;
    }
}

/// Some hospitals end everything that one patient gave one app when one grant of it is revoked.
#[tokio::test]
async fn a_failed_second_launch_does_not_touch_the_access_there_is() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    app.hospital.faults(json!({"wrong_id_token_audience": true})).await;
    let (link, _) = app.session("amy-7").await;
    app.journey(&mut Browser::default(), &link).await;
    app.hospital.well().await;
    app.api("DELETE", &format!("/patients/amy-7/connections/{id}"), serde_json::Value::Null).await.ok();
    until("the first grant is given back", || async { given_back(&app).await > 0 }).await;
    assert_eq!(given_back(&app).await, 1, "and not the second");
}

#[tokio::test]
async fn a_grant_without_a_refresh_token_is_given_back_too() {
    let app = TestApp::start().await;
    app.hospital.faults(json!({"no_refresh_token": true})).await;
    let id = connected(&app).await;
    app.api("DELETE", &format!("/patients/amy-7/connections/{id}"), serde_json::Value::Null).await.ok();
    until("the hospital is told", || async { given_back(&app).await == 1 }).await;
}
