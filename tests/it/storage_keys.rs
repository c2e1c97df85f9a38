//! Changing the keys of the store under patients who are signing in and apps that read.

use std::time::Duration;

use chartgate::store::{DataKeyRotation, RotationStage};
use serde_json::Value;

use crate::support::{Browser, TestApp};

async fn until(rotation: &DataKeyRotation, stage: RotationStage) {
    let reached = async {
        while rotation.progress().await.expect("progress").stage != stage {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), reached).await.expect("it goes on by itself");
}

#[tokio::test]
async fn a_sign_in_that_began_before_the_data_key_changed_succeeds_and_records_stay_as_they_are() {
    let mut app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let before = app.records("amy-7", "").await;
    assert!(before.len() > 15);
    let link = app.session("ben-3").await.0;
    let mut browser = Browser::default();
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;

    let rotation = app.app().parts().data_keys.clone();
    rotation.begin(&app.master_key).await.expect("begun");
    until(&rotation, RotationStage::KeepingOldKey).await;
    // The link and the cookie are from before.
    let page = browser.follow().await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(app.connection("ben-3").await["status"], "active");
    assert_eq!(app.records("amy-7", "").await, before);

    app.clock.advance(Duration::from_hours(1));
    until(&rotation, RotationStage::Idle).await;
    assert_eq!(app.records("amy-7", "").await, before);
    drop(rotation);
    app.restart().await;
    assert_eq!(app.records("amy-7", "").await, before);
    app.api("GET", "/patients/amy-7", Value::Null).await.ok();
    app.connected("cleo-1", &user).await;
}
