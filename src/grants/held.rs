//! Grants of launches that are not finished: when the FHIR server has to be asked whose record a grant opens, its access
//! token is used before there is a connection to keep it under. It is on disk before that, so that a crash in between
//! loses no refresh token: what is found by the next start is given back to the EHR, because the patient starts again.

use serde::{Deserialize, Serialize};

use crate::grants::ending::Whose;
use crate::grants::grant::{GRANTS, Grant, readable};
use crate::grants::{Connection, ConnectionStatus, Grants, lock};
use crate::id::{ConnectionId, EhrClientId, Id as _, PatientSessionId, SourceId};
use crate::store::{Change, Range, Reader as _, StoreError, Table, json_value};
use crate::workspaces::sessions;

/// By the id that the connection will have.
const HELD: Table<HeldGrant> = Table::new("held_grants.v1");
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

/// A launch that is being finished: what it holds is nobody else's to give back.
pub(super) struct Holding {
    grants: Grants,
    connection: ConnectionId,
}

impl Drop for Holding {
    fn drop(&mut self) {
        lock(&self.grants.0.held).remove(&self.connection);
    }
}

impl Grants {
    /// Says that a launch may hold a grant, until it is over.
    pub(super) fn holding(&self, connection: ConnectionId) -> Holding {
        lock(&self.0.held).insert(connection);
        Holding { grants: self.clone(), connection }
    }

    /// Puts a grant on disk for as long as it is asked whose it is.
    pub(super) async fn hold(&self, connection: ConnectionId, held: HeldGrant) -> Result<(), StoreError> {
        self.0
            .store
            .write(move |change| {
                change.put(HELD, &connection.to_bytes(), &held);
                Ok::<_, StoreError>(())
            })
            .await
    }

    /// Gives a grant back that a launch has brought and that nobody keeps.
    pub(super) fn give_back_of_launch(&self, held: HeldGrant) {
        self.give_back(held.source, held.ehr_client, held.grant, Whose::Launch(held.session));
    }

    /// Whether the patient of a journey is connected at a source, or by another way at the same token endpoint.
    pub(super) async fn is_connected_there(
        &self,
        session: Option<PatientSessionId>,
        source: SourceId,
        ehr_client: EhrClientId,
        grant: &Grant,
    ) -> bool {
        let endpoint = grant.token_server.endpoint.clone();
        let connected = self.0.store.read(move |view| {
            let session = session.map(|session| sessions::by_id(view, session)).transpose()?.flatten();
            let Some(session) = session else { return Ok(false) };
            for one in Connection::of_patient(view, session.patient)? {
                if one.status != ConnectionStatus::Active {
                    continue;
                }
                let its = view.get(GRANTS, &one.id.to_bytes())?;
                let same_endpoint = its.is_some_and(|its| its.token_server.endpoint == endpoint);
                if one.source == source || (one.ehr_client == ehr_client && same_endpoint) {
                    return Ok(true);
                }
            }
            Ok::<_, StoreError>(false)
        });
        // A grant that nobody holds lapses by itself; one that is in use must not be ended for not knowing.
        connected.await.unwrap_or(true)
    }

    /// Gives back what launches have left that were cut off: whatever is held by none that runs, since no other process has
    /// this store.
    pub(super) async fn give_back_held(&self) -> Result<(), StoreError> {
        let any = self
            .0
            .store
            .read(move |view| Ok::<_, StoreError>(!view.keys(HELD, &Range::of(b"").limit(1))?.is_empty()));
        if !any.await? {
            return Ok(());
        }
        let grants = self.clone();
        let left = self.0.store.write(move |change| {
            let mut left = Vec::new();
            for key in change.keys(HELD, &Range::of(b"").limit(BATCH))? {
                let running = key.as_slice().try_into().map(ConnectionId::from_bytes);
                if running.is_ok_and(|id| lock(&grants.0.held).contains(&id)) {
                    continue;
                }
                left.extend(readable(change.get(HELD, &key))?);
                change.remove(HELD, &key);
            }
            Ok::<_, StoreError>(left)
        });
        for held in left.await? {
            tracing::warn!(source = %held.source, "a launch was cut off after its tokens had come; they are given back");
            self.give_back_of_launch(held);
        }
        Ok(())
    }
}
