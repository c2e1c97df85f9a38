//! A grant: what a patient agreed to, with the tokens that stand for it. Sealed like everything in the store, and in a
//! row of its own, so that a refresh writes one small row and no index.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::events::history::{self, RefreshedBy};
use crate::grants::refusals::Refusals;
use crate::grants::{Announcements, Connection, ConnectionStatus, due};
use crate::id::{ConnectionId, Id as _, PatientKey};
use crate::smart::launch::Exchanged;
use crate::smart::server::TokenServer;
use crate::smart::token_response::{AccessToken, RefreshToken, TokenResponse};
use crate::store::{Change, Reader as _, StoreError, Table, json_value};

/// Grants by connection id.
pub(super) const GRANTS: Table<Grant> = Table::new("grants.v1");
/// Connections whose records are to be pulled, until a pull has ended.
pub const PULLS_WANTED: Table<PullWanted> = Table::new("pulls_wanted.v1");

/// Connections whose grants are refused at present, so that nobody has to look for them.
pub(super) const SUSPENDED: Table<()> = Table::new("grants_suspended.v1");

/// Refreshes remembered one by one. They live in the grant's own row, so that a refresh stays one write of one row.
const MOST_REFRESHES: usize = 12;

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
    /// The one before, until the present one has been used with success: good for one more try when the EHR does not know
    /// the present one.
    pub superseded: Option<RefreshToken>,
    /// Where to refresh, and nowhere else.
    pub token_server: TokenServer,
    /// Its place in the index of what is due.
    #[serde(default)]
    pub due_at: Option<Timestamp>,
    /// Since when an answer is missing to a refresh that may have been carried out.
    #[serde(default)]
    pub unanswered_since: Option<Timestamp>,
    /// What the EHR says against it at present, without having ended it.
    #[serde(default)]
    pub refusals: Option<Refusals>,
    /// Failed refreshes in a row.
    #[serde(default)]
    pub failures: u32,
    /// What became of it so far.
    #[serde(default)]
    pub refreshes: Refreshes,
}
json_value!(Grant);

/// The refreshes of a grant: all counted, the latest one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshes {
    /// How many there were.
    pub count: u64,
    /// How many of them gave a new refresh token.
    pub rotated: u64,
    /// The latest, the newest last.
    pub latest: VecDeque<Refreshed>,
}

/// One refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// When its answer came.
    pub at: Timestamp,
    /// Who wanted it.
    pub by: RefreshedBy,
    /// Whether it gave a new refresh token.
    pub rotated: bool,
}

impl Refreshes {
    pub(super) fn add(&mut self, refreshed: Refreshed) {
        self.count += 1;
        self.rotated += u64::from(refreshed.rotated);
        if self.latest.len() == MOST_REFRESHES {
            self.latest.pop_front();
        }
        self.latest.push_back(refreshed);
    }
}

impl Grant {
    /// What a launch has brought.
    pub(super) fn of(exchanged: &Exchanged) -> Self {
        Self::received(exchanged.tokens.clone(), exchanged.received_at, exchanged.token_server.clone())
    }

    /// A grant just received.
    pub(super) fn received(tokens: TokenResponse, received_at: Timestamp, token_server: TokenServer) -> Self {
        Self {
            access_token: tokens.access_token,
            received_at,
            expires_at: received_at.after(tokens.expires_in),
            refresh_token: tokens.refresh_token,
            superseded: None,
            token_server,
            due_at: None,
            unanswered_since: None,
            refusals: None,
            failures: 0,
            refreshes: Refreshes::default(),
        }
    }

    /// How long its access token lives in all.
    pub(super) fn life(&self) -> Duration {
        self.expires_at.since(self.received_at)
    }
}

/// Why a pull is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullWanted {
    /// Since when.
    pub since: Timestamp,
    /// Its time has come, and nobody asked for it: what has changed is enough.
    #[serde(default)]
    pub by_schedule: bool,
}
json_value!(PullWanted);

/// Puts a grant, as part of a write.
pub(super) fn put(change: &mut Change<'_>, connection: ConnectionId, grant: &Grant) {
    change.put(GRANTS, &connection.to_bytes(), grant);
}

/// A value that is damaged is as good as none; anything else that goes wrong stays an error.
pub(super) fn readable<T>(found: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Err(StoreError::Damaged(table)) => {
            tracing::error!(table, "a row of custody cannot be read; the rest goes on without it");
            Ok(None)
        }
        other => other,
    }
}

/// Removes a grant and everything that points at it, as part of a write.
pub(super) fn remove(change: &mut Change<'_>, connection: ConnectionId, grant: Option<&Grant>) {
    if let Some(grant) = grant {
        due::clear(change, connection, grant);
    }
    change.remove(SUSPENDED, &connection.to_bytes());
    change.remove(GRANTS, &connection.to_bytes());
}

/// Ends a connection: its tokens are gone, its status says why, and who wants to know is told. Part of a write.
pub(super) fn end(
    change: &mut Change<'_>,
    announcements: &Announcements,
    connection: &Connection,
    grant: Option<&Grant>,
    status: ConnectionStatus,
    now: Timestamp,
) -> Result<(), StoreError> {
    remove(change, connection.id, grant);
    change.remove(PULLS_WANTED, &connection.id.to_bytes());
    let ended = Connection { status, updated_at: now, ..connection.clone() };
    ended.put(change);
    // What had ended before is not told twice.
    // Nor is that of a launch from inside an EHR, which was never told of as a connection.
    if connection.status == ConnectionStatus::Active && connection.launch_context.is_none() {
        announcements.ended(change, &ended, now)
    } else {
        Ok(())
    }
}

/// Removes a patient's connections with their history, and grants, as part of the patient's erasure; what was removed, so
/// that the hospitals can be told.
pub fn remove_in(
    change: &mut Change<'_>,
    patient: PatientKey,
) -> Result<Vec<(Connection, Option<Grant>)>, StoreError> {
    let mut removed = Vec::new();
    for connection in Connection::of_patient(change, patient)? {
        // What cannot be read any more is erased all the same.
        let grant = readable(change.get(GRANTS, &connection.id.to_bytes()))?;
        remove(change, connection.id, grant.as_ref());
        change.remove(PULLS_WANTED, &connection.id.to_bytes());
        connection.remove(change);
        history::remove(change, connection.id)?;
        removed.push((connection, grant));
    }
    Ok(removed)
}
