//! Grants of launches that are not finished: when the FHIR server has to be asked whose record a grant opens, its access
//! token is used before there is a connection to keep it under. It is on disk before that, so that a crash in between
//! loses no refresh token: what is found later is given back to the EHR, because the patient has to start again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::grants::grant::{Grant, readable};
use crate::grants::{Connection, ConnectionStatus, Grants};
use crate::id::{ConnectionId, EhrClientId, Id as _, PatientSessionId, SourceId};
use crate::store::{Change, Range, Reader as _, StoreError, Table, json_value};
use crate::workspaces::sessions;

/// By the id that the connection will have.
const HELD: Table<HeldGrant> = Table::new("held_grants.v1");
/// No launch takes longer from its grant to its end: asking has a limit of time.
const LONGEST: Duration = Duration::from_mins(10);
/// Given back in one go.
const BATCH: usize = 256;

/// A grant that has come and is no connection's yet.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct HeldGrant {
    /// Whose journey brought it; none in a launch from inside an EHR.
    pub session: Option<PatientSessionId>,
    /// Whence.
    pub source: SourceId,
    /// Our registration there.
    pub ehr_client: EhrClientId,
    /// The tokens.
    pub grant: Grant,
}
json_value!(HeldGrant);

/// Takes a held grant away, as part of the write that decides about it.
pub(super) fn let_go(change: &mut Change<'_>, connection: ConnectionId) {
    change.remove(HELD, &connection.to_bytes());
}

impl Grants {
    /// Puts a grant on disk for as long as it is asked whose it is.
    pub(super) async fn hold(&self, connection: ConnectionId, held: HeldGrant) -> Result<(), StoreError> {
        let unwanted = held.clone();
        let kept = self.0.store.write(move |change| {
            change.put(HELD, &connection.to_bytes(), &held);
            Ok::<_, StoreError>(())
        });
        let kept = kept.await;
        if kept.is_err() {
            self.give_back_of_launch(unwanted).await;
        }
        kept
    }

    /// Gives a grant back that a launch has brought and that nobody keeps. Not when the patient is connected there: some EHRs
    /// would end that access, too.
    pub(super) async fn give_back_of_launch(&self, held: HeldGrant) {
        let HeldGrant { session, source, ehr_client, grant } = held;
        let connected = self.0.store.read(move |view| {
            let session = session.map(|session| sessions::by_id(view, session)).transpose()?.flatten();
            let Some(session) = session else { return Ok(false) };
            let all = Connection::of_patient(view, session.patient)?;
            let there = |one: &Connection| one.source == source && one.status == ConnectionStatus::Active;
            Ok::<_, StoreError>(all.iter().any(there))
        });
        // A store that cannot be read says nothing against it.
        if !connected.await.unwrap_or(false) {
            self.give_back(source, ehr_client, grant, None);
        }
    }

    /// Gives back what launches have left that were cut off.
    pub(super) async fn give_back_held(&self) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        let any = self
            .0
            .store
            .read(move |view| Ok::<_, StoreError>(!view.keys(HELD, &Range::of(b"").limit(1))?.is_empty()));
        if !any.await? {
            return Ok(());
        }
        let left = self.0.store.write(move |change| {
            let mut left = Vec::new();
            for key in change.keys(HELD, &Range::of(b"").limit(BATCH))? {
                let held: Option<HeldGrant> = readable(change.get(HELD, &key))?;
                // One from the far future came while the clock was wrong.
                let running = held.as_ref().is_some_and(|held| {
                    let received = held.grant.received_at;
                    now.since(received).max(received.since(now)) < LONGEST
                });
                if !running {
                    change.remove(HELD, &key);
                    left.extend(held);
                }
            }
            Ok::<_, StoreError>(left)
        });
        for held in left.await? {
            tracing::warn!(source = %held.source, "a launch was cut off after its tokens had come; they are given back");
            self.give_back_of_launch(held).await;
        }
        Ok(())
    }
}
