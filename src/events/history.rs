//! The history of a connection: every step of its launch and of its grant's life, each a small sealed row written in the
//! transaction of the step itself. Staff read it to see why a log-in failed or an access died; it holds no secret.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{ConnectionId, Id as _, ReferenceCode};
use crate::store::{Change, Range, Reader, StoreError, Table, json_value};

/// Notes under connection id and position.
const HISTORY: Table<Row> = Table::new("connection_history.v1");

/// The most notes kept of one connection: of one that is refreshed every ten minutes, three and a half days, and every
/// step that is not a refresh.
pub const MOST_NOTES: u64 = 500;
/// The oldest notes looked at to find one that may go: it happens with every refresh of a long history.
const LOOKED_AT: usize = 32;
/// What an EHR says is kept up to this many characters.
const LONGEST_WORD: usize = 120;

/// A step in the life of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// The browser left for the EHR. Noted when it is back: links that are only looked at cost no disk.
    Redirected,
    /// The browser came back.
    Returned,
    /// The attempt ended without a grant.
    Failed {
        /// Our stable code.
        code: String,
        /// The EHR's number for it.
        correlation_id: Option<String>,
    },
    /// The code was exchanged, and the patient's grant kept.
    Issued {
        /// Whether it can be refreshed.
        refreshable: bool,
    },
    /// The grant was refreshed.
    Refreshed {
        /// Who wanted it.
        by: RefreshedBy,
        /// Whether the EHR gave a new refresh token.
        rotated: bool,
    },
    /// A refresh did not succeed.
    RefreshFailed {
        /// The EHR's OAuth code, or a word of ours.
        code: String,
        /// The EHR's number for it.
        correlation_id: Option<String>,
        /// Whether that ended the grant.
        last: bool,
    },
    /// The grant is not used for now, but kept.
    Suspended {
        /// The EHR's OAuth code, or a word of ours.
        code: String,
        /// The EHR's number for it.
        correlation_id: Option<String>,
    },
    /// The grant is over, and not by the app's wish.
    Ended {
        /// Why.
        why: EndedBecause,
        /// The EHR's OAuth code, when it said one.
        code: Option<String>,
        /// The EHR's number for it.
        correlation_id: Option<String>,
    },
    /// The app ended the connection.
    Disconnected,
    /// The EHR was told that a grant is not wanted any more.
    Revoked {
        /// What came of it.
        outcome: Revocation,
    },
}

/// Who wanted a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshedBy {
    /// A pull of records.
    Pull,
    /// An app that reads live, through the proxy.
    Proxy,
    /// The schedule, so that an idle grant does not lapse.
    Schedule,
    /// A person.
    Operator,
}

/// Why a grant is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBecause {
    /// The EHR refused the refresh token.
    Refused,
    /// It ran out, and there was no refresh token.
    RanOut,
    /// A refresh came back for another patient's record.
    OtherPatient,
}

/// What came of giving a grant back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// The EHR took it back.
    Done,
    /// The EHR has no way to; the tokens were wiped here.
    NoEndpoint,
    /// The EHR did not answer, or refused; the tokens were wiped here.
    Failed,
}

/// A note as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    at: Timestamp,
    /// Counts a connection's notes, so that the bound needs no counting.
    number: u64,
    reference: Option<ReferenceCode>,
    entry: Entry,
}
json_value!(Row);

/// Where a note stands: rising for its connection, also when the clock is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Microseconds since 1970, made unique.
    pub micros: u64,
    /// Whose note; decides between connections of one moment.
    pub connection: ConnectionId,
}

/// A note as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it stands.
    pub position: Position,
    /// When it happened.
    pub at: Timestamp,
    /// The code that patient, staff and log share, when it is about a failure.
    pub reference: Option<ReferenceCode>,
    /// What happened.
    pub entry: Entry,
}

/// Notes what happened to a connection, as part of the write that made it happen. One small row; over the bound, the
/// oldest refresh makes room for it, so that beginnings and ends outlast the many refreshes between them.
pub fn note(
    change: &mut Change<'_>,
    connection: ConnectionId,
    at: Timestamp,
    entry: Entry,
    reference: Option<ReferenceCode>,
) -> Result<(), StoreError> {
    let prefix = connection.to_bytes();
    let newest = change.rows(HISTORY, &Range::of(&prefix).descending().limit(1))?.pop();
    let (last, number) = newest.map_or((0, 0), |(key, row)| (micros_of(&key), row.number));
    let micros = u64::try_from(at.millis()).unwrap_or(0).saturating_mul(1_000).max(last.saturating_add(1));
    if number >= MOST_NOTES {
        make_room(change, &prefix)?;
    }
    let row = Row { at, number: number + 1, reference, entry: entry.shortened() };
    change.put(HISTORY, &[prefix.as_slice(), &micros.to_be_bytes()].concat(), &row);
    Ok(())
}

fn make_room(change: &mut Change<'_>, prefix: &[u8]) -> Result<(), StoreError> {
    let (mut oldest, mut refresh) = (None, None);
    change.each(HISTORY, &Range::of(prefix).limit(LOOKED_AT), |key, row| {
        oldest.get_or_insert_with(|| key.to_vec());
        if matches!(row.entry, Entry::Refreshed { .. } | Entry::RefreshFailed { last: false, .. }) {
            refresh = Some(key.to_vec());
        }
        Ok(refresh.is_none())
    })?;
    if let Some(key) = refresh.or(oldest) {
        change.remove(HISTORY, &key);
    }
    Ok(())
}

/// A connection's notes, newest first, older than `before`.
pub fn of_connection(
    reader: &impl Reader,
    connection: ConnectionId,
    before: Option<Position>,
    limit: usize,
) -> Result<Vec<Note>, StoreError> {
    let prefix = connection.to_bytes();
    // Among notes of one moment the one of the larger connection id is the newer.
    let beyond = before.map(|before| {
        let micros = before.micros.saturating_add(u64::from(connection < before.connection));
        [prefix.as_slice(), &micros.to_be_bytes()].concat()
    });
    let rows = reader.rows(HISTORY, &Range::of(&prefix).descending().beyond(beyond).limit(limit))?;
    let notes = rows.into_iter().map(|(key, row)| Note {
        position: Position { micros: micros_of(&key), connection },
        at: row.at,
        reference: row.reference,
        entry: row.entry,
    });
    Ok(notes.collect())
}

/// The notes of several connections, newest first, older than `before`.
pub fn of_connections(
    reader: &impl Reader,
    connections: &[ConnectionId],
    before: Option<Position>,
    limit: usize,
) -> Result<Vec<Note>, StoreError> {
    let mut notes = Vec::new();
    for connection in connections {
        notes.extend(of_connection(reader, *connection, before, limit)?);
        // Never more in memory than one page and one connection's share of the next.
        notes.sort_by_key(|note| std::cmp::Reverse(note.position));
        notes.truncate(limit);
    }
    Ok(notes)
}

/// Erases a connection's history, as part of its patient's erasure.
pub fn remove(change: &mut Change<'_>, connection: ConnectionId) -> Result<(), StoreError> {
    change.remove_all(HISTORY, &connection.to_bytes()).map(drop)
}

fn micros_of(key: &[u8]) -> u64 {
    key.get(16..24).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

impl Entry {
    /// What came from outside is cut, so that no EHR decides how large a note is.
    fn shortened(mut self) -> Self {
        let cut = |text: &mut String| {
            if let Some((end, _)) = text.char_indices().nth(LONGEST_WORD) {
                text.truncate(end);
            }
        };
        match &mut self {
            Self::Failed { code, correlation_id }
            | Self::RefreshFailed { code, correlation_id, .. }
            | Self::Suspended { code, correlation_id } => {
                cut(code);
                correlation_id.as_mut().map(cut);
            }
            Self::Ended { code, correlation_id, .. } => {
                code.as_mut().map(cut);
                correlation_id.as_mut().map(cut);
            }
            Self::Redirected
            | Self::Returned
            | Self::Issued { .. }
            | Self::Refreshed { .. }
            | Self::Disconnected
            | Self::Revoked { .. } => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;
    use crate::store::{MasterKey, Opening, Store};

    struct Desk {
        store: Store,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let opening = Opening {
                path: folder.path().join("store.redb"),
                master_key: MasterKey::generate(&Random::seeded(1)),
                cache_bytes: 1 << 20,
                create: true,
            };
            Self { store: Store::open(&opening, Random::seeded(2)).expect("opens"), _folder: folder }
        }

        async fn note(&self, connection: ConnectionId, seconds: i64, entry: Entry) {
            let at = Timestamp::from_seconds(seconds);
            let noted = self.store.write(move |change| note(change, connection, at, entry, None)).await;
            noted.expect("noted");
        }

        fn read(&self, connections: &[ConnectionId], before: Option<Position>, limit: usize) -> Vec<Note> {
            self.store.read_now(|view| of_connections(view, connections, before, limit)).expect("read")
        }
    }

    fn connection(number: u8) -> ConnectionId {
        ConnectionId::from_bytes([number; 16])
    }

    const REFRESHED: Entry = Entry::Refreshed { by: RefreshedBy::Pull, rotated: true };

    #[tokio::test]
    async fn notes_keep_the_order_they_were_made_in_also_when_the_clock_is_set_back() {
        let desk = Desk::new();
        desk.note(connection(1), 100, Entry::Returned).await;
        desk.note(connection(1), 40, Entry::Issued { refreshable: true }).await;
        desk.note(connection(1), 40, Entry::Disconnected).await;
        let read = desk.read(&[connection(1)], None, 10);
        let entries: Vec<(Entry, i64)> =
            read.iter().map(|note| (note.entry.clone(), note.at.seconds())).collect();
        let expected =
            [(Entry::Disconnected, 40), (Entry::Issued { refreshable: true }, 40), (Entry::Returned, 100)];
        assert_eq!(entries, expected);
    }

    #[tokio::test]
    async fn pages_over_several_connections_repeat_and_leave_out_nothing() {
        let desk = Desk::new();
        let both = [connection(1), connection(2)];
        for second in 0..20 {
            // Two notes of one moment, one of each.
            desk.note(both[0], second, Entry::Returned).await;
            desk.note(both[1], second, Entry::Redirected).await;
        }
        let all = desk.read(&both, None, 100);
        assert_eq!(all.len(), 40);
        let mut paged = Vec::new();
        let mut before = None;
        loop {
            let page = desk.read(&both, before, 3);
            let Some(last) = page.last() else { break };
            before = Some(last.position);
            paged.extend(page);
        }
        assert_eq!(paged, all);
    }

    #[tokio::test]
    async fn a_connections_history_is_bounded_and_keeps_how_it_began() {
        let desk = Desk::new();
        desk.note(connection(1), 1, Entry::Issued { refreshable: true }).await;
        let refreshes = i64::try_from(MOST_NOTES).expect("small") + 20;
        for second in 0..refreshes {
            desk.note(connection(1), 10 + second, REFRESHED).await;
        }
        let notes = desk.read(&[connection(1)], None, 10_000);
        assert_eq!(notes.len(), usize::try_from(MOST_NOTES).expect("small"));
        assert_eq!(notes.last().map(|note| &note.entry), Some(&Entry::Issued { refreshable: true }));
        assert_eq!(notes[0].at.seconds(), 9 + refreshes, "the newest is there");
    }

    #[tokio::test]
    async fn a_connections_history_is_bounded_also_without_refreshes() {
        let desk = Desk::new();
        let many = i64::try_from(MOST_NOTES).expect("small") + 3;
        for second in 0..many {
            desk.note(connection(1), second, Entry::Returned).await;
        }
        let notes = desk.read(&[connection(1)], None, 10_000);
        assert_eq!(notes.len(), usize::try_from(MOST_NOTES).expect("small"));
        assert_eq!(notes.last().map(|note| note.at.seconds()), Some(3), "the oldest went");
    }

    #[tokio::test]
    async fn no_hospital_decides_how_large_a_note_is() {
        let desk = Desk::new();
        let long = "ä".repeat(5_000);
        let entry =
            Entry::Ended { why: EndedBecause::Refused, code: Some(long.clone()), correlation_id: Some(long) };
        desk.note(connection(1), 1, entry).await;
        let Some(Entry::Ended { code: Some(code), correlation_id: Some(id), .. }) =
            desk.read(&[connection(1)], None, 1).pop().map(|note| note.entry)
        else {
            panic!("the note is there");
        };
        assert_eq!((code.chars().count(), id.chars().count()), (LONGEST_WORD, LONGEST_WORD));
    }
}
