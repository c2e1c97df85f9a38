//! Reading records again while access holds: an index by time of who is due, so that nobody looks at all connections.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::grants::{Connection, ConnectionStatus, PULLS_WANTED, PullWanted};
use crate::id::{ConnectionId, Id as _};
use crate::records::pulls::report::Pull;
use crate::records::pulls::{Paused, Pulls, finish, is_paused};
use crate::store::{Change, Range, Reader as _, StoreError, Table};

/// Nothing, by time and connection. The last pull of a connection says which place is its own.
const PULLS_DUE: Table<()> = Table::new("pulls_due.v1");

/// Wishes of the schedule at a time: who asks for a pull waits for these at most.
const AT_ONCE: usize = 16;
/// A place at a source that is held is looked at again after so long.
const WHILE_HELD: Duration = Duration::from_mins(10);
/// When nothing was heard of an earlier time, and after a store error.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_mins(10);
/// Connections of one moment come due over this share of the interval.
const SPREAD: u32 = 10;

/// When a connection's records are to be read again, after a pull at `now`. Some come earlier by a share of their own, so
/// that a busy hour does not repeat itself.
pub(super) fn next(every: Duration, connection: ConnectionId, now: Timestamp) -> Option<Timestamp> {
    if every.is_zero() {
        return None;
    }
    // The last bytes of an id are random.
    let share = f64::from(connection.to_bytes()[15]) / 255.0;
    Some(now.after(every.saturating_sub((every / SPREAD).mul_f64(share))))
}

/// Gives a connection its place by its last pull, as part of the write of that pull's end.
pub(super) fn set(change: &mut Change<'_>, last: &Pull) {
    if let Some(at) = last.next_at {
        change.put(PULLS_DUE, &key(at, last.connection), &());
    }
}

/// Takes the place of a pull away.
pub(super) fn clear(change: &mut Change<'_>, last: &Pull) {
    if let Some(at) = last.next_at {
        change.remove(PULLS_DUE, &key(at, last.connection));
    }
}

impl Pulls {
    pub(super) fn start_schedule(&self) {
        let pulls = self.clone();
        self.0.shutdown.spawn(async move {
            while !pulls.0.shutdown.is_triggered() {
                let latest = pulls.0.clock.now().after(LOOK_AT_LEAST_EVERY);
                let look = match pulls.want_what_is_due().await {
                    Ok(next) => next.map_or(latest, |next| next.min(latest)),
                    Err(cause) => {
                        tracing::error!(%cause, "the list of pulls that are due could not be read or written");
                        latest
                    }
                };
                tokio::select! {
                    () = pulls.0.shutdown.triggered() => {}
                    () = pulls.0.due_changed.notified() => {}
                    // A clock that was ahead and is set right must not make a wait of minutes one of months.
                    _ = tokio::time::timeout(LOOK_AT_LEAST_EVERY, pulls.0.clock.reached(look)) => {}
                }
            }
        });
    }

    /// Has the schedule look again.
    pub(super) fn look_at_schedule(&self) {
        self.0.due_changed.notify_one();
    }

    /// Wants a pull for everyone whose time has come; when the next comes.
    async fn want_what_is_due(&self) -> Result<Option<Timestamp>, StoreError> {
        loop {
            let now = self.0.clock.now();
            // Nothing is due later than this by its own right: such a place was taken while the clock was ahead.
            let horizon = now.after(self.0.settings.every + LOOK_AT_LEAST_EVERY);
            let paused = self.paused().await?;
            let (places, next) = self
                .0
                .store
                .read(move |view| {
                    let wishes = view.rows(PULLS_WANTED, &Range::of(b""))?;
                    let room =
                        AT_ONCE.saturating_sub(wishes.iter().filter(|(_, wish)| wish.by_schedule).count());
                    if room == 0 {
                        return Ok::<_, StoreError>((Vec::new(), None));
                    }
                    let first = view.keys(PULLS_DUE, &Range::of(b"").limit(room))?;
                    let last = view.keys(PULLS_DUE, &Range::of(b"").descending().limit(room))?;
                    let next =
                        first.iter().filter_map(|key| parse(key)).map(|(at, _)| at).find(|at| *at > now);
                    let due = first.into_iter().filter(|key| parse(key).is_none_or(|(at, _)| at <= now));
                    let ahead = last.into_iter().filter(|key| parse(key).is_some_and(|(at, _)| at > horizon));
                    Ok((due.chain(ahead).take(room).collect::<Vec<_>>(), next))
                })
                .await?;
            if places.is_empty() || self.0.shutdown.is_triggered() {
                return Ok(next);
            }
            let written = self.0.store.write(move |change| {
                for place in &places {
                    change.remove(PULLS_DUE, place);
                    if let Some((at, connection)) = parse(place) {
                        want(change, connection, at, now, &paused)?;
                    }
                }
                Ok::<_, StoreError>(())
            });
            written.await?;
            self.0.grants.look_for_wishes();
        }
    }
}

/// Wants a pull, if the connection has access and the place is its own; later, if its source is held.
fn want(
    change: &mut Change<'_>,
    connection: ConnectionId,
    at: Timestamp,
    now: Timestamp,
    paused: &Paused,
) -> Result<(), StoreError> {
    let known = Connection::find(change, connection)?;
    let known = known.filter(|known| known.status == ConnectionStatus::Active);
    let last = finish::latest(change, connection)?.filter(|last| last.next_at == Some(at));
    let (Some(known), Some(mut last)) = (known, last) else { return Ok(()) };
    if is_paused(paused, known.source) {
        last.next_at = Some(now.after(WHILE_HELD));
        set(change, &last);
        finish::put(change, &last);
    } else if !change.has(PULLS_WANTED, &connection.to_bytes())? {
        let wish = PullWanted { since: now, by_schedule: true };
        change.put(PULLS_WANTED, &connection.to_bytes(), &wish);
    }
    Ok(())
}

fn key(at: Timestamp, connection: ConnectionId) -> Vec<u8> {
    let millis = u64::try_from(at.millis()).unwrap_or(0);
    [&millis.to_be_bytes()[..], &connection.to_bytes()].concat()
}

fn parse(key: &[u8]) -> Option<(Timestamp, ConnectionId)> {
    let (millis, id) = key.split_first_chunk::<8>()?;
    let millis = i64::try_from(u64::from_be_bytes(*millis)).ok()?;
    Some((Timestamp::from_millis(millis), ConnectionId::from_bytes(id.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_moment_come_due_one_after_the_other_within_a_tenth() {
        let now = Timestamp::from_seconds(1_000_000);
        let day = Duration::from_hours(24);
        let with = |last: u8| {
            let mut bytes = [7; 16];
            bytes[15] = last;
            ConnectionId::from_bytes(bytes)
        };
        assert_eq!(next(day, with(0), now), Some(now.after(day)));
        assert_eq!(next(day, with(255), now), Some(now.after(day / 10 * 9)));
        assert_eq!(next(Duration::ZERO, with(0), now), None);
        assert_eq!(parse(&key(now, with(9))), Some((now, with(9))));
    }
}
