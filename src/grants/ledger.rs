//! What became of a grant and why, and which grants want attention next: for staff, without secrets.

use serde::Serialize;

use crate::clock::{Timestamp, as_text, as_text_or_null};
use crate::events::history::{self, Entry};
use crate::grants::grant::{GRANTS, Grant, SUSPENDED, readable};
use crate::grants::refresh::read_both;
use crate::grants::{Connection, ConnectionStatus, Grants, Refusals, due};
use crate::id::{ConnectionId, Id as _, SourceId};
use crate::store::{Range, Reader as _, StoreError};

/// A connection's grant as staff may see it.
#[derive(Debug, Clone, Serialize)]
pub struct Ledger {
    /// The connection.
    pub connection: ConnectionId,
    /// Where.
    pub source: SourceId,
    /// What it is good for.
    pub status: ConnectionStatus,
    /// Since when it exists.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
    /// What is kept at present; `None` after the end.
    pub grant: Option<Held>,
    /// Everything that happened, the newest first.
    pub entries: Vec<LedgerEntry>,
}

/// A grant that is kept.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// When the present access token came.
    #[serde(serialize_with = "as_text")]
    pub received_at: Timestamp,
    /// When that one ends.
    #[serde(serialize_with = "as_text")]
    pub expires_at: Timestamp,
    /// Whether there is a refresh token.
    pub refreshable: bool,
    /// When the schedule looks at it next.
    #[serde(serialize_with = "as_text_or_null")]
    pub due_at: Option<Timestamp>,
    /// How often it was refreshed.
    pub refreshes: u64,
    /// How many of those gave a new refresh token.
    pub rotations: u64,
    /// Failed refreshes in a row.
    pub failures: u32,
    /// Since when an answer is missing to a refresh that the hospital may have carried out.
    #[serde(serialize_with = "as_text_or_null")]
    pub unanswered_since: Option<Timestamp>,
    /// What the hospital says against it at present.
    pub suspended: Option<Suspended>,
}

/// Refusals that have not ended a grant.
#[derive(Debug, Clone, Serialize)]
pub struct Suspended {
    /// When the first came.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
    /// How many there were.
    pub refusals: u32,
    /// The hospital's code.
    pub code: String,
    /// The status it came with.
    pub status: u16,
    /// The hospital's own number for it.
    pub correlation_id: Option<String>,
    /// When it is asked again.
    #[serde(serialize_with = "as_text")]
    pub next_try: Timestamp,
}

/// One line of a ledger.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerEntry {
    /// When.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// The code that patient, staff and log share.
    pub reference: Option<String>,
    /// What.
    #[serde(flatten)]
    pub entry: Entry,
}

/// A grant that is due at some time.
#[derive(Debug, Clone, Serialize)]
pub struct Upcoming {
    /// When the schedule looks at it.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// The connection.
    pub connection: ConnectionId,
    /// Where.
    pub source: SourceId,
    /// Whether it will be renewed; otherwise it ends then.
    pub refreshable: bool,
    /// When the hospital drops it unless it is used before, where that is known.
    #[serde(serialize_with = "as_text_or_null")]
    pub lapses_at: Option<Timestamp>,
    /// Failed refreshes in a row.
    pub failures: u32,
    /// What the hospital says against it at present.
    pub suspended: Option<Suspended>,
}

impl From<&Refusals> for Suspended {
    fn from(refusals: &Refusals) -> Self {
        Self {
            since: refusals.since,
            refusals: refusals.count,
            code: refusals.code.clone(),
            status: refusals.status,
            correlation_id: refusals.correlation_id.clone(),
            next_try: refusals.next_try(),
        }
    }
}

impl From<&Grant> for Held {
    fn from(grant: &Grant) -> Self {
        Self {
            received_at: grant.received_at,
            expires_at: grant.expires_at,
            refreshable: grant.refresh_token.is_some(),
            due_at: grant.due_at,
            refreshes: grant.refreshes.count,
            rotations: grant.refreshes.rotated,
            failures: grant.failures,
            unanswered_since: grant.unanswered_since,
            suspended: grant.refusals.as_ref().map(Suspended::from),
        }
    }
}

impl Grants {
    /// A connection's ledger; `None` when there is no such connection.
    pub async fn ledger(&self, id: ConnectionId) -> Result<Option<Ledger>, StoreError> {
        self.0
            .store
            .read(move |view| {
                let (Some(connection), grant) = read_both(view, id)? else { return Ok(None) };
                let notes = history::of_connection(view, id, None, usize::MAX)?;
                let earlier = notes.into_iter().map(|note| LedgerEntry {
                    at: note.at,
                    reference: note.reference.map(|reference| reference.to_string()),
                    entry: note.entry,
                });
                // The latest refreshes are in the grant's own row as long as it stands.
                let latest =
                    grant.iter().flat_map(|grant| &grant.refreshes.latest).rev().map(|one| LedgerEntry {
                        at: one.at,
                        reference: None,
                        entry: Entry::Refreshed { by: one.by, rotated: one.rotated },
                    });
                let mut entries: Vec<LedgerEntry> = latest.chain(earlier).collect();
                entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
                Ok(Some(Ledger {
                    connection: id,
                    source: connection.source,
                    status: connection.status,
                    since: connection.created_at,
                    grant: grant.as_ref().map(Held::from),
                    entries,
                }))
            })
            .await
    }

    /// The grants that the schedule looks at next.
    pub async fn upcoming(&self, most: usize) -> Result<Vec<Upcoming>, StoreError> {
        let rows = self
            .0
            .store
            .read(move |view| {
                let mut rows = Vec::new();
                for (at, id) in due::first(view, most)? {
                    rows.extend(readable(read_both(view, id).map(Some))?.map(|both| (at, both)));
                }
                Ok::<_, StoreError>(rows)
            })
            .await?;
        let both = rows.into_iter().filter_map(|(at, (connection, grant))| Some((at, connection?, grant?)));
        Ok(both.map(|(at, connection, grant)| self.upcoming_of(at, &connection, &grant)).collect())
    }

    /// The grants that hospitals refuse at present, without having ended them.
    pub async fn suspended(&self, most: usize) -> Result<Vec<Upcoming>, StoreError> {
        let rows = self
            .0
            .store
            .read(move |view| {
                let mut rows = Vec::new();
                for key in view.keys(SUSPENDED, &Range::of(b"").limit(most))? {
                    let connection = key.as_slice().try_into().map(ConnectionId::from_bytes);
                    let found =
                        connection.ok().map(|id| readable(Connection::find(view, id))).transpose()?.flatten();
                    rows.push((found, readable(view.get(GRANTS, &key))?));
                }
                Ok::<_, StoreError>(rows)
            })
            .await?;
        let both = rows
            .into_iter()
            .filter_map(|(connection, grant): (_, Option<Grant>)| Some((connection?, grant?)));
        Ok(both
            .map(|(connection, grant)| {
                self.upcoming_of(grant.due_at.unwrap_or(grant.expires_at), &connection, &grant)
            })
            .collect())
    }

    fn upcoming_of(&self, at: Timestamp, connection: &Connection, grant: &Grant) -> Upcoming {
        let limit = self.0.directory.source(connection.source).and_then(|source| {
            source.server().profile.refresh_idle_limit.filter(|_| grant.refresh_token.is_some())
        });
        Upcoming {
            at,
            connection: connection.id,
            source: connection.source,
            refreshable: grant.refresh_token.is_some(),
            failures: grant.failures,
            lapses_at: limit.map(|limit| grant.received_at.after(limit)),
            suspended: grant.refusals.as_ref().map(Suspended::from),
        }
    }
}
