//! Custody of tokens: one refresh for many callers, rotation, and what does and does not end a grant.

mod arriving;
mod damage;
mod life;

use std::time::Duration;

use chartgate::events::history::RefreshedBy;
use chartgate::grants::{AccessError, ConnectionStatus};
use chartgate::id::{ConnectionId, Id as _};
use chartgate::store::{Table, Value as StoredValue};
use serde_json::json;

use crate::support::TestApp;

/// A row as it is, whatever it holds.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl StoredValue for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.to_vec()))
    }
}

/// A table of such rows.
fn raw(name: &'static str) -> Table<Bytes> {
    Table::new(name)
}

async fn connected(app: &TestApp) -> ConnectionId {
    let user = app.hospital.users()[0].username.clone();
    let id = app.connected("amy-7", &user).await;
    ConnectionId::parse(&id).expect("an id")
}

#[tokio::test]
async fn five_hundred_callers_cause_one_refresh() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    app.clock.advance(Duration::from_secs(570));
    let grants = app.app().parts().grants.clone();
    let calls = futures_util::future::join_all((0..500).map(|_| grants.access(id, RefreshedBy::Proxy))).await;
    let tokens: Vec<String> =
        calls.into_iter().map(|access| access.expect("a token").token.expose().to_owned()).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(app.hospital.count("token.refresh_token.").await, 1);
}

#[tokio::test]
async fn rotated_and_kept_refresh_tokens_both_live_on_across_restarts() {
    for rotation in ["rotate", "keep"] {
        let mut app = TestApp::start().await;
        app.hospital.faults(json!({"refresh_rotation": rotation})).await;
        let id = connected(&app).await;
        for round in 1..=4 {
            app.clock.advance(Duration::from_secs(570));
            if round == 3 {
                app.restart().await;
            }
            app.app()
                .parts()
                .grants
                .access(id, RefreshedBy::Proxy)
                .await
                .unwrap_or_else(|error| panic!("{rotation} {round}: {error}"));
            assert_eq!(app.hospital.count("token.refresh_token.").await, round, "{rotation}");
        }
    }
}

#[tokio::test]
async fn only_the_hospitals_own_refusal_ends_a_grant() {
    for (faults, ends) in [
        (json!({"token_endpoint": "503"}), false),
        (json!({"token_endpoint": "429"}), false),
        (json!({"token_endpoint": "html"}), false),
        (json!({"token_endpoint": "empty"}), false),
        (json!({"token_error": {"error": "invalid_client"}}), false),
        (
            json!({"token_error": {"error": "invalid_grant", "urn": "oauth2:token:refresh-token:token-invalid"}}),
            true,
        ),
    ] {
        let app = TestApp::start().await;
        let id = connected(&app).await;
        app.clock.advance(Duration::from_secs(570));
        app.hospital.faults(faults.clone()).await;
        let refused = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
        app.hospital.well().await;
        let status = app.connection("amy-7").await["status"].clone();
        if ends {
            assert!(
                matches!(refused, Err(AccessError::NotActive(ConnectionStatus::RefreshFailed))),
                "{refused:?}"
            );
            assert_eq!(status, "refresh_failed");
        } else {
            assert!(matches!(refused, Err(AccessError::NotNow(_))), "{faults}: {refused:?}");
            assert_eq!(status, "active", "{faults}");
            app.clock.advance(Duration::from_secs(61));
            app.app()
                .parts()
                .grants
                .access(id, RefreshedBy::Proxy)
                .await
                .unwrap_or_else(|error| panic!("{faults}: {error}"));
        }
    }
}

#[tokio::test]
async fn a_rejected_token_is_renewed_once_for_all_who_were_rejected() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    let grants = app.app().parts().grants.clone();
    let old = grants.access(id, RefreshedBy::Proxy).await.expect("a token").token;
    app.clock.advance(Duration::from_mins(2));
    let calls =
        futures_util::future::join_all((0..20).map(|_| grants.renew(id, &old, RefreshedBy::Proxy))).await;
    let tokens: Vec<String> =
        calls.into_iter().map(|access| access.expect("a token").token.expose().to_owned()).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0] && token != old.expose()));
    assert_eq!(app.hospital.count("token.refresh_token.").await, 1);
}

#[tokio::test]
async fn a_disconnected_connection_has_no_token_and_is_given_back() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    let answer =
        app.api("DELETE", &format!("/patients/amy-7/connections/{id}"), serde_json::Value::Null).await.ok();
    assert_eq!(answer, json!({"id": id.to_string(), "resource_type": "connection", "disconnected": true}));
    let refused = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
    assert!(matches!(refused, Err(AccessError::NotActive(ConnectionStatus::Disconnected))), "{refused:?}");
    assert_eq!(app.connection("amy-7").await["status"], "disconnected");
    let given_back = async {
        while app.hospital.count("revoke.ok").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given_back).await.expect("the hospital is told");
    assert!(!app.records("amy-7", "").await.is_empty(), "what was read stays");
}

#[tokio::test]
async fn a_deleted_patient_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    let answer = app.api("DELETE", "/patients/amy-7", serde_json::Value::Null).await.ok();
    assert_eq!(answer, json!({"id": "amy-7", "resource_type": "patient", "deleted": true}));
    for path in ["/patients/amy-7", "/patients/amy-7/records", "/patients/amy-7/patient-sessions"] {
        assert_eq!(app.api("GET", path, serde_json::Value::Null).await.status, 404, "{path}");
    }
    assert_eq!(app.api("DELETE", "/patients/amy-7", serde_json::Value::Null).await.status, 404);
    assert!(matches!(
        app.app().parts().grants.access(id, RefreshedBy::Proxy).await,
        Err(AccessError::Missing)
    ));
    // A patient of the same id is a new patient.
    let (_, session) = app.session("amy-7").await;
    assert!(app.records("amy-7", "").await.is_empty());
    assert!(session.starts_with("ps_"));
}
