//! When each grant wants attention next: an index by time, so that nobody ever has to look at all of them.
//!
//! A grant stands in it once. A refresh that somebody asks for leaves its place as it is, so that the common write stays
//! one row; whoever comes to the place later finds that the grant was used meanwhile, and moves it on.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::grants::grant::Grant;
use crate::id::{ConnectionId, Id as _};
use crate::store::{Change, Range, Reader, StoreError, Table};

/// Nothing, by time and connection id.
const GRANTS_DUE: Table<()> = Table::new("grants_due.v1");

/// Grants used at the same moment come due over this share of their interval, so that a busy day does not repeat itself
/// as a burst.
const SPREAD: u32 = 20;

/// Gives a grant its place, instead of the one it has. Part of the write that puts the grant.
pub(super) fn set(change: &mut Change<'_>, connection: ConnectionId, grant: &mut Grant, at: Timestamp) {
    clear(change, connection, grant);
    change.put(GRANTS_DUE, &key(at, connection), &());
    grant.due_at = Some(at);
}

/// Takes a grant's place away. Part of the write that removes the grant.
pub(super) fn clear(change: &mut Change<'_>, connection: ConnectionId, grant: &Grant) {
    if let Some(at) = grant.due_at {
        change.remove(GRANTS_DUE, &key(at, connection));
    }
}

/// Whether anything stands at a place.
pub(super) fn stands(
    reader: &impl Reader,
    connection: ConnectionId,
    at: Timestamp,
) -> Result<bool, StoreError> {
    reader.has(GRANTS_DUE, &key(at, connection))
}

/// Takes a place away that no grant of the connection claims.
pub(super) fn clear_place(change: &mut Change<'_>, connection: ConnectionId, at: Timestamp) {
    change.remove(GRANTS_DUE, &key(at, connection));
}

/// The first places, the earliest first.
pub(super) fn first(reader: &impl Reader, most: usize) -> Result<Vec<(Timestamp, ConnectionId)>, StoreError> {
    let keys = reader.keys(GRANTS_DUE, &Range::of(b"").limit(most))?;
    Ok(keys.iter().filter_map(|key| parse(key)).collect())
}

/// Places beyond `horizon`, where no grant can be by its own right: they were taken while the clock was far ahead.
pub(super) fn beyond(
    reader: &impl Reader,
    horizon: Timestamp,
    most: usize,
) -> Result<Vec<(Timestamp, ConnectionId)>, StoreError> {
    let keys = reader.keys(GRANTS_DUE, &Range::of(b"").descending().limit(most))?;
    Ok(keys.iter().filter_map(|key| parse(key)).filter(|(at, _)| *at > horizon).collect())
}

/// Gives a grant that cannot be read a place, so that it is looked at again, and holds up nobody.
pub(super) fn put_aside(change: &mut Change<'_>, connection: ConnectionId, from: Timestamp, to: Timestamp) {
    clear_place(change, connection, from);
    change.put(GRANTS_DUE, &key(to, connection), &());
}

/// A connection's own share of `interval`: the whole of it, less up to a twentieth.
pub(super) fn spread(interval: Duration, connection: ConnectionId) -> Duration {
    // The last bytes of an id are random.
    let share = f64::from(connection.to_bytes()[15]) / 255.0;
    interval.saturating_sub((interval / SPREAD).mul_f64(share))
}

fn key(at: Timestamp, connection: ConnectionId) -> Vec<u8> {
    let millis = u64::try_from(at.millis()).unwrap_or(0);
    [&millis.to_be_bytes()[..], &connection.to_bytes()].concat()
}

fn parse(key: &[u8]) -> Option<(Timestamp, ConnectionId)> {
    let (millis, id) = key.split_at_checked(8)?;
    let millis = i64::try_from(u64::from_be_bytes(millis.try_into().ok()?)).ok()?;
    Some((Timestamp::from_millis(millis), ConnectionId::from_bytes(id.try_into().ok()?)))
}
