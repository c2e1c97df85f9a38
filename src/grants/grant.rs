//! A grant: what a patient agreed to, with the tokens that stand for it. Sealed like everything in the store, and in a
//! row of its own, so that a refresh writes one small row and no index.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::events::history;
use crate::grants::{Announcements, Connection, ConnectionStatus};
use crate::id::{ConnectionId, Id as _, PatientKey};
use crate::smart::server::TokenServer;
use crate::smart::token_response::{AccessToken, RefreshToken};
use crate::store::{Change, Reader as _, StoreError, Table, json_value};

/// Grants by connection id.
pub(super) const GRANTS: Table<Grant> = Table::new("grants.v1");
/// Connections whose records are to be pulled, until a pull has ended.
pub const PULLS_WANTED: Table<PullWanted> = Table::new("pulls_wanted.v1");

/// The tokens of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Good for minutes.
    pub access_token: AccessToken,
    /// When the access token came.
    pub received_at: Timestamp,
    /// When it stops working, by the EHR's word.
    pub expires_at: Timestamp,
    /// Good for months; absent when the EHR gave none.
    pub refresh_token: Option<RefreshToken>,
    /// The one before, kept one generation.
    pub superseded: Option<RefreshToken>,
    /// Where to refresh, and nowhere else.
    pub token_server: TokenServer,
}
json_value!(Grant);

/// Why a pull is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullWanted {
    /// Since when.
    pub since: Timestamp,
}
json_value!(PullWanted);

/// Puts a grant, as part of a write.
pub(super) fn put(change: &mut Change<'_>, connection: ConnectionId, grant: &Grant) {
    change.put(GRANTS, &connection.to_bytes(), grant);
}

/// Ends a connection: its tokens are gone, its status says why, and who wants to know is told. Part of a write.
pub(super) fn end(
    change: &mut Change<'_>,
    announcements: &Announcements,
    connection: &Connection,
    status: ConnectionStatus,
    now: Timestamp,
) -> Result<(), StoreError> {
    change.remove(GRANTS, &connection.id.to_bytes());
    change.remove(PULLS_WANTED, &connection.id.to_bytes());
    let ended = Connection { status, updated_at: now, ..connection.clone() };
    ended.put(change);
    // What had ended before is not told twice.
    if connection.status == ConnectionStatus::Active {
        announcements.ended(change, &ended, now)
    } else {
        Ok(())
    }
}

/// Removes a patient's connections with their history, and grants, as part of the patient's erasure; what was removed, so that the hospitals
/// can be told.
pub fn remove_in(
    change: &mut Change<'_>,
    patient: PatientKey,
) -> Result<Vec<(Connection, Option<Grant>)>, StoreError> {
    let mut removed = Vec::new();
    for connection in Connection::of_patient(change, patient)? {
        let grant = change.get(GRANTS, &connection.id.to_bytes())?;
        change.remove(GRANTS, &connection.id.to_bytes());
        change.remove(PULLS_WANTED, &connection.id.to_bytes());
        connection.remove(change);
        history::remove(change, connection.id)?;
        removed.push((connection, grant));
    }
    Ok(removed)
}
