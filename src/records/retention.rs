//! Records of connections that ended long ago go by themselves, when the operator says after how long.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::grants::{Connection, ConnectionStatus};
use crate::id::ConnectionId;
use crate::records::{Records, stored};
use crate::shutdown::Shutdown;
use crate::store::StoreError;

/// How often all connections are looked at. No index is kept for it: a look at a million of them takes seconds.
const EVERY: Duration = Duration::from_hours(6);
/// Connections looked at in one read.
const LOOKED_AT: usize = 1000;
/// Records erased in one write, so that nobody waits for long behind it.
const ERASED: usize = 64;

impl Records {
    /// Erases the records of connections that have ended `keep` ago, now and every few hours.
    pub fn start_retention(&self, keep: Duration, shutdown: &Shutdown) {
        let (records, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                let looking = async {
                    match records.erase_ended(keep).await {
                        Ok(0) => {}
                        Ok(erased) => {
                            tracing::info!(erased, "records of connections that ended long ago were erased");
                        }
                        Err(error) => {
                            tracing::warn!(%error, "records that are due could not be erased");
                        }
                    }
                    tokio::time::sleep(EVERY).await;
                };
                tokio::select! {
                    () = stop.triggered() => return,
                    () = looking => {}
                }
            }
        });
    }

    /// Erases what is due, and says how many records that were.
    pub async fn erase_ended(&self, keep: Duration) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let (mut after, mut erased) = (None, 0);
        loop {
            let looked_at = self.store.read(move |view| {
                let all = Connection::after(view, after, LOOKED_AT)?;
                let last = all.last().filter(|_| all.len() == LOOKED_AT).map(|connection| connection.id);
                let mut due = Vec::new();
                for connection in all {
                    if is_due(&connection, keep, now) && stored::has_any(view, connection.id)? {
                        due.push(connection.id);
                    }
                }
                Ok::<_, StoreError>((due, last))
            });
            let (due, last) = looked_at.await?;
            for connection in due {
                erased += self.erase_of(connection, keep, now).await?;
            }
            if last.is_none() {
                return Ok(erased);
            }
            after = last;
        }
    }

    async fn erase_of(&self, id: ConnectionId, keep: Duration, now: Timestamp) -> Result<usize, StoreError> {
        let mut erased = 0;
        loop {
            let written = self.store.write(move |change| {
                // The patient may have connected again meanwhile.
                match Connection::find(change, id)?.filter(|connection| is_due(connection, keep, now)) {
                    Some(connection) => stored::erase_some(change, connection.patient, id, ERASED),
                    None => Ok(0),
                }
            });
            let count = written.await?;
            erased += count;
            if count < ERASED {
                return Ok(erased);
            }
        }
    }
}

/// A connection that has ended changes no more, so its last change is its end.
fn is_due(connection: &Connection, keep: Duration, now: Timestamp) -> bool {
    connection.status != ConnectionStatus::Active && connection.updated_at.after(keep) <= now
}
