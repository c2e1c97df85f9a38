//! Custody over a store that cannot be written, or with a row in it that cannot be read.

use std::time::Duration;

use chartgate::events::history::RefreshedBy;
use chartgate::grants::{AccessError, ConnectionStatus};
use chartgate::id::{ConnectionId, Id as _};
use chartgate::store::StoreError;

use super::life::until;
use super::{Bytes, connected, raw};
use crate::support::TestApp;

/// What the hospital would answer could not be kept, and its old refresh token would be used up.
#[tokio::test]
async fn nobody_is_asked_for_what_could_not_be_kept() {
    let app = TestApp::start().await;
    let id = connected(&app).await;
    let parts = app.app().parts();
    // A commit that fails is the last one.
    let failed = parts.store.write(|change| {
        change.put(raw("test.v1"), b"key", &Bytes(Vec::new()));
        change.after_commit(|| panic!("as if the disk had failed"));
        Ok::<_, StoreError>(())
    });
    assert!(failed.await.is_err() && !parts.store.is_writable());
    app.clock.advance(Duration::from_secs(570));
    for by in [RefreshedBy::Proxy, RefreshedBy::Pull, RefreshedBy::Schedule] {
        let refused = parts.grants.access(id, by).await;
        assert!(matches!(refused, Err(AccessError::Store(_))), "{by:?}: {refused:?}");
    }
    app.clock.advance(Duration::from_hours(24 * 26));
    assert!(parts.grants.attend().await.is_err());
    assert_eq!(app.hospital.count("token.refresh_token.").await, 0);
}

#[tokio::test]
async fn a_grant_that_cannot_be_read_is_put_aside_and_stands_before_nobody() {
    let app = TestApp::start().await;
    let users = app.hospital.users();
    let [damaged, sound] = ["amy-7", "ben-3"].map(str::to_owned);
    let first = app.connected(&damaged, &users[0].username).await;
    let second = app.connected(&sound, &users[1].username).await;
    let id = |text: &str| ConnectionId::parse(text).expect("an id");
    let (first, second) = (id(&first), id(&second));
    let parts = app.app().parts();
    let written = parts.store.write(move |change| {
        change.put(raw("grants.v1"), &first.to_bytes(), &Bytes(b"not a grant".to_vec()));
        Ok::<_, StoreError>(())
    });
    written.await.expect("written");
    for month in 1..=2 {
        app.clock.advance(Duration::from_hours(24 * 26));
        until("the sound one is kept alive", || async {
            app.hospital.count("token.refresh_token.").await == month
        })
        .await;
    }
    assert_eq!(
        parts.grants.connection(second).await.expect("read").expect("there").status,
        ConnectionStatus::Active
    );
    let refused = parts.grants.access(first, RefreshedBy::Proxy).await;
    assert!(matches!(refused, Err(AccessError::Store(StoreError::Damaged(_)))), "{refused:?}");
    let next = parts.grants.attend().await.expect("the store works").expect("something is due some day");
    assert!(next > app.clock.now(), "it is looked at again, and not at once");
}
