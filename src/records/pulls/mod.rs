//! Pulls: reading all of a connection's records, type by type, page by page. Here is who reads when: wishes, turns and
//! pauses.

mod announce;
mod companions;
mod finish;
mod page;
mod progress;
mod report;
mod run;
mod schedule;
mod settings;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, Semaphore};

use crate::clock::{Clock, Timestamp};
use crate::crypto::Random;
use crate::grants::{Connection, ConnectionStatus, Grants, PULLS_WANTED, PullWanted};
use crate::id::{ConnectionId, Id as _, SourceId};
use crate::outbound::Outbound;
use crate::records::fetch::Fetcher;
use crate::shutdown::Shutdown;
use crate::store::{Change, Range, Reader as _, Store, StoreError, Table};

pub use report::{Pull, PullState, TypeReport, TypeState};
pub use settings::PullSettings;

use run::Run;

/// Pulls that have ended, by connection and pull id.
const PULLS: Table<Pull> = Table::new("pulls.v1");
/// Sources from which nothing is pulled for now, and since when; an empty key means all.
const PULLS_PAUSED: Table<Timestamp> = Table::new("pulls_paused.v1");

/// What is held, and since when; `None` stands for all sources.
type Paused = BTreeMap<Option<SourceId>, Timestamp>;

/// Wishes looked at in one go, and pulls under way or waiting at once.
const WISHES: usize = 1_000;

/// The puller. Clones share it.
#[derive(Clone)]
pub struct Pulls(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    random: Random,
    grants: Grants,
    fetcher: Fetcher,
    settings: PullSettings,
    turns: Arc<Semaphore>,
    shutdown: Shutdown,
    /// Tells the schedule that something is due earlier than it knows.
    due_changed: Notify,
    running: Mutex<HashMap<ConnectionId, Arc<Mutex<Pull>>>>,
    /// Which of a plan's ways a source took last, by source and type: the others need not be tried again.
    ways: Mutex<HashMap<(SourceId, &'static str, bool), usize>>,
    /// What `pulls_paused.v1` has; `None` as long as it was not read.
    paused: Mutex<Option<Paused>>,
}

impl std::fmt::Debug for Pulls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Pulls")
    }
}

impl Pulls {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        random: Random,
        outbound: Outbound,
        grants: Grants,
        settings: PullSettings,
        shutdown: Shutdown,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(settings.at_once));
        let fetcher = Fetcher::new(outbound, grants.clone(), clock.clone(), random.clone(), settings.clone());
        Self(Arc::new(Inner {
            store,
            clock,
            random,
            grants,
            fetcher,
            settings,
            turns,
            shutdown,
            due_changed: Notify::new(),
            running: Mutex::default(),
            ways: Mutex::default(),
            paused: Mutex::default(),
        }))
    }

    /// Starts the tasks that run wanted pulls, those of before a restart first, and that want them again in time.
    pub fn start(&self) {
        self.start_schedule();
        let pulls = self.clone();
        self.0.shutdown.spawn(async move {
            let mut wanted = pulls.0.grants.pulls_wanted();
            loop {
                wanted.mark_unchanged();
                if let Err(cause) = pulls.start_wanted().await {
                    tracing::error!(%cause, "the list of wanted pulls could not be read");
                }
                tokio::select! {
                    () = pulls.0.shutdown.triggered() => return,
                    changed = wanted.changed() => if changed.is_err() { return },
                }
            }
        });
    }

    /// Begins what is wanted and not under way: what somebody waits for first, and of that the oldest.
    async fn start_wanted(&self) -> Result<(), StoreError> {
        let paused = self.paused().await?;
        let rows = self.0.store.read(|view| view.rows(PULLS_WANTED, &Range::of(b""))).await?;
        let mut wishes: Vec<(bool, Timestamp, ConnectionId)> = rows
            .into_iter()
            .filter_map(|(key, wish): (Vec<u8>, PullWanted)| {
                let id = ConnectionId::from_bytes(key.as_slice().try_into().ok()?);
                Some((wish.by_schedule, wish.since, id))
            })
            .collect();
        wishes.sort_unstable();
        for (.., id) in wishes {
            let under_way = self.running().len();
            if self.running().contains_key(&id) {
                continue;
            }
            // The next one that ends has the list looked at again.
            if under_way >= WISHES {
                break;
            }
            let connection = self.0.store.read(move |view| Connection::find(view, id)).await?;
            match connection.filter(|connection| connection.status == ConnectionStatus::Active) {
                Some(connection) if is_paused(&paused, connection.source) => {}
                Some(connection) => self.begin(connection),
                None => self.no_longer_wanted(id).await?,
            }
        }
        Ok(())
    }

    fn begin(&self, connection: Connection) {
        let (id, now) = (connection.id, self.0.clock.now());
        let pull = Arc::new(Mutex::new(Pull {
            id: self.0.random.id(now),
            connection: id,
            source: connection.source,
            state: PullState::Queued,
            started_at: now,
            finished_at: None,
            stored: 0,
            types: run::first_reports(&connection),
            compared_at: None,
            next_at: None,
        }));
        self.running().insert(id, Arc::clone(&pull));
        let run = Run::new(self.clone(), connection, pull);
        let shutdown = self.0.shutdown.clone();
        self.0.shutdown.spawn(async move {
            tokio::select! {
                // A stopped pull stays wanted, and goes on at the next start.
                () = shutdown.triggered() => {}
                () = run.go() => {}
            }
        });
    }

    async fn no_longer_wanted(&self, id: ConnectionId) -> Result<(), StoreError> {
        let forgotten = self.0.store.write(move |change| {
            change.remove(PULLS_WANTED, &id.to_bytes());
            progress::clear(change, id)
        });
        forgotten.await
    }

    /// How far a connection's latest pull is.
    pub async fn latest(&self, connection: ConnectionId) -> Result<Option<Pull>, StoreError> {
        let running = self.running().get(&connection).cloned();
        if let Some(running) = running {
            return Ok(Some(copy(&running)));
        }
        self.0.store.read(move |view| finish::latest(view, connection)).await
    }

    /// A connection's pulls that have ended, the newest first.
    pub async fn ended(&self, connection: ConnectionId) -> Result<Vec<Pull>, StoreError> {
        let rows =
            self.0.store.read(move |view| view.rows(PULLS, &Range::of(&connection.to_bytes()).descending()));
        Ok(rows.await?.into_iter().map(|(_, pull)| pull).collect())
    }

    /// Has a connection's records read, now and not only when the time has come. `false` when it has no access.
    pub async fn want(&self, connection: ConnectionId) -> Result<bool, StoreError> {
        let now = self.0.clock.now();
        let wanted = self
            .0
            .store
            .write(move |change| {
                let active = Connection::find(change, connection)?.is_some_and(|known| {
                    known.status == ConnectionStatus::Active && known.launch_context.is_none()
                });
                if active {
                    let wish = PullWanted { since: now, by_schedule: false };
                    change.put(PULLS_WANTED, &connection.to_bytes(), &wish);
                }
                Ok::<_, StoreError>(active)
            })
            .await?;
        self.0.grants.look_for_wishes();
        Ok(wanted)
    }

    /// Holds pulls from one source, or from all, until they are resumed; what is under way stops at its next page, and
    /// keeps its place.
    pub async fn pause(&self, source: Option<SourceId>) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        let key = pause_key(source);
        self.0
            .store
            .write(move |change| {
                change.put(PULLS_PAUSED, &key, &now);
                Ok::<_, StoreError>(())
            })
            .await?;
        self.paused().await?;
        self.with_paused(|paused| paused.insert(source, now));
        Ok(())
    }

    /// Lets them go on. `false` when they were not held.
    pub async fn resume(&self, source: Option<SourceId>) -> Result<bool, StoreError> {
        let key = pause_key(source);
        let held = self
            .0
            .store
            .write(move |change| {
                let held = change.has(PULLS_PAUSED, &key)?;
                change.remove(PULLS_PAUSED, &key);
                Ok::<_, StoreError>(held)
            })
            .await?;
        self.with_paused(|paused| paused.remove(&source));
        self.0.grants.look_for_wishes();
        self.look_at_schedule();
        Ok(held)
    }

    /// What is held, and since when; `None` stands for all sources.
    pub async fn paused(&self) -> Result<Paused, StoreError> {
        if let Some(known) = self.lock_paused().clone() {
            return Ok(known);
        }
        let rows = self.0.store.read(|view| view.rows(PULLS_PAUSED, &Range::of(b""))).await?;
        let paused: Paused = rows
            .into_iter()
            .map(|(key, since)| (<[u8; 16]>::try_from(key.as_slice()).ok().map(SourceId::from_bytes), since))
            .collect();
        *self.lock_paused() = Some(paused.clone());
        Ok(paused)
    }

    /// Whether nothing may be read from a source for now, as far as this process knows.
    fn is_held(&self, source: SourceId) -> bool {
        self.lock_paused().as_ref().is_some_and(|paused| is_paused(paused, source))
    }

    fn with_paused<T>(&self, change: impl FnOnce(&mut Paused) -> T) {
        if let Some(paused) = self.lock_paused().as_mut() {
            change(paused);
        }
    }

    fn lock_paused(&self) -> std::sync::MutexGuard<'_, Option<Paused>> {
        self.0.paused.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether nothing is being pulled, for tests and for an orderly stop.
    pub fn is_idle(&self) -> bool {
        self.running().is_empty()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<ConnectionId, Arc<Mutex<Pull>>>> {
        self.0.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn is_paused(paused: &Paused, source: SourceId) -> bool {
    paused.contains_key(&None) || paused.contains_key(&Some(source))
}

fn pause_key(source: Option<SourceId>) -> Vec<u8> {
    source.map(|source| source.to_bytes().to_vec()).unwrap_or_default()
}

/// Removes the pulls of a connection, as part of its patient's erasure.
pub(super) fn remove(change: &mut Change<'_>, connection: ConnectionId) -> Result<(), StoreError> {
    progress::clear(change, connection)?;
    if let Some(last) = finish::latest(change, connection)? {
        schedule::clear(change, &last);
    }
    change.remove_all(PULLS, &connection.to_bytes()).map(drop)
}

fn copy(pull: &Mutex<Pull>) -> Pull {
    pull.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}
