//! Changing the keys of a store that is in use.
//!
//! A new master key wraps the key ring again: one transaction. A new data key is added to the ring first and seals from
//! the moment it is on disk; then every row is sealed anew in the background, a few at a time, each read inside the write
//! that seals it. The old key leaves the ring when a whole pass has found no row of it, and not before what was sealed for
//! places outside the store (cookies of launches) has ended. How far a pass has come is in `meta.v1`, so a stop or a
//! crash at any moment only means going on from there. The digest key stays for ever: rows are found by it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::clock::{Clock, Timestamp};
use crate::shutdown::Shutdown;
use crate::store::keyring::{Keyring, MasterChange, UnwrapError};
use crate::store::migrate::KEYRING_KEY;
use crate::store::tables::META_NAME;
use crate::store::vault::key_id;
use crate::store::{Change, MasterKey, Reader, Store, StoreError, View};

/// How many rows, and about how many bytes, one write seals anew: little enough that other writes hardly wait for it.
const MOST_ROWS: usize = 256;
const MOST_BYTES: usize = 1 << 20;
/// How many rows one look goes over, so that no snapshot stays open for long.
const MOST_LOOKED: u64 = 4096;
/// How long the old key stays at least after the proof, for reads over snapshots from before the last rows were sealed anew.
const READS_END: Duration = Duration::from_mins(15);
/// After the store could not be read or written.
const REST: Duration = Duration::from_mins(1);

const MARK_KEY: &[u8] = b"renewal";

/// Why a key was not changed. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyChangeError {
    /// The given master key is not the one that opens this store.
    #[error(
        "the master key given does not open this store as it is now; nothing was changed; check whether it was changed \
         before and the new one has not been put in its place"
    )]
    WrongMasterKey,
    /// The new key is the old one.
    #[error("the new master key is the old one; nothing was changed")]
    SameKey,
    /// One at a time.
    #[error("the data key is being changed already")]
    UnderWay,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<UnwrapError> for KeyChangeError {
    fn from(error: UnwrapError) -> Self {
        match error {
            UnwrapError::WrongMasterKey => Self::WrongMasterKey,
            UnwrapError::Damaged => Self::Store(StoreError::Damaged(META_NAME)),
        }
    }
}

impl Store {
    /// Whether this master key opens the key ring as it is on disk now.
    pub async fn opens_with(&self, key: &MasterKey) -> Result<bool, StoreError> {
        let master = key.sealing_key();
        self.read(move |view| match ring(view)?.unwrap(&master) {
            Ok(_) => Ok(true),
            Err(UnwrapError::WrongMasterKey) => Ok(false),
            Err(UnwrapError::Damaged) => Err(StoreError::Damaged(META_NAME)),
        })
        .await
    }

    /// Wraps the key ring with another master key, durably; says how many keys that were. Values stay as they are, and so
    /// do the keys in memory: nothing that runs notices.
    pub async fn change_master_key(
        &self,
        old: &MasterKey,
        new: &MasterKey,
        change: MasterChange,
    ) -> Result<usize, KeyChangeError> {
        if old == new {
            return Err(KeyChangeError::SameKey);
        }
        let (old, new) = (old.sealing_key(), new.sealing_key());
        self.write(move |transaction| {
            let random = transaction.vault().random().clone();
            let ring = ring(transaction)?.rewrapped(&old, &new, change, &random)?;
            put_ring(transaction, &ring);
            Ok(ring.data_keys() + 1)
        })
        .await
    }
}

/// Changes the data key, and seals everything anew. Clones share the work.
#[derive(Debug, Clone)]
pub struct DataKeyRotation {
    store: Store,
    clock: Clock,
    shutdown: Shutdown,
    /// How long something sealed for a place outside the store must open.
    keep: Duration,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the pass is; its lock lets one step happen at a time.
    walk: AsyncMutex<Option<Walk>>,
    progress: Mutex<Option<Progress>>,
    wake: Notify,
    started: AtomicBool,
}

/// A pass over all rows, as this process knows it.
#[derive(Debug, Clone)]
struct Walk {
    mark: Mark,
    /// Whether rows of an old key were met in this pass, or may have been by an earlier process: then it proves nothing.
    found: bool,
}

/// How far the work is, on disk. It goes with the key that it brings everything to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Mark {
    key: u32,
    pass: u32,
    place: Place,
    /// Rows of this pass that were looked at, and all rows when the work began.
    passed: u64,
    total: u64,
    /// Rows sealed anew in all passes, and their bytes.
    renewed: u64,
    bytes: u64,
    /// Rows of this pass that no key opens.
    unreadable: u64,
    stuck: bool,
    /// A whole pass has met nothing of an old key.
    proven: bool,
    started_at: Option<Timestamp>,
    old_key_until: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

/// After which row of which table to go on; tables in the order of their names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Place {
    table: String,
    beyond: Option<Vec<u8>>,
}

/// Where a change of the data key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationStage {
    /// Nothing to do.
    Idle,
    /// Rows are sealed anew.
    Renewing,
    /// A pass looks whether any row was missed.
    Checking,
    /// Every row is under the new key; the old one is kept for what was sealed outside the store.
    KeepingOldKey,
    /// Rows that no key opens are in the way of dropping the old key.
    Stuck,
}

/// How far a change of the data key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub stage: RotationStage,
    /// Rows of this pass that were looked at, and how many there were when it began.
    pub passed: u64,
    /// All rows when the change began.
    pub total: u64,
    /// Rows sealed anew so far, and their bytes.
    pub renewed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows that no key opens.
    pub unreadable: u64,
    /// Begun.
    pub started_at: Option<Timestamp>,
    /// Ended, the old key dropped.
    pub finished_at: Option<Timestamp>,
    /// Until when the old key is kept at least.
    pub old_key_until: Option<Timestamp>,
}

/// What a step has left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More.
    More,
    /// Nothing before this time.
    Wait(Timestamp),
    /// Nothing.
    Idle,
}

impl DataKeyRotation {
    /// `keep` is the longest time after which something sealed for a place outside the store must still open.
    pub fn new(store: Store, clock: Clock, shutdown: Shutdown, keep: Duration) -> Self {
        Self { store, clock, shutdown, keep, state: Arc::default() }
    }

    /// Makes a new data key, durably, which seals from then on. The rest is done in steps.
    pub async fn begin(&self, master: &MasterKey) -> Result<(), KeyChangeError> {
        let mut walk = self.state.walk.lock().await;
        let (master, now) = (master.sealing_key(), self.clock.now());
        let total = self.store.read(all_rows).await?;
        let (vault, state) = (Arc::clone(self.store.vault()), Arc::clone(&self.state));
        let begun = self.store.write(move |change| {
            let ring = ring(change)?;
            let random = change.vault().random().clone();
            let new = ring.with_new_key(&master, now, &random)?;
            if ring.data_keys() > 1 {
                return Err(KeyChangeError::UnderWay);
            }
            let (ring, keys) = new;
            put_ring(change, &ring);
            let mark = Mark { key: ring.current, total, started_at: Some(now), ..Mark::default() };
            put_mark(change, &mark);
            // On the committer's thread, so no write is sealed by the new key before it is on disk, and none by the
            // old one after this; and the work begins even when whoever asked for it has gone away.
            change.after_commit(move || {
                vault.change_keys(&keys, ring.current);
                state.forget_progress();
                state.wake.notify_one();
            });
            Ok(())
        });
        let begun = begun.await;
        if matches!(begun, Err(KeyChangeError::UnderWay)) {
            // Whatever stopped it may be mended.
            let mut known = self.known(walk.take()).await?;
            known.mark.stuck = false;
            self.state.show(&known);
            *walk = Some(known);
            self.state.wake.notify_one();
        }
        begun
    }

    /// Goes on in the background until the stop, now and whenever there is something to do. Calling it again changes
    /// nothing.
    pub fn start(&self) {
        if self.state.started.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        self.shutdown.spawn(async move {
            while !this.shutdown.is_triggered() {
                let wait = match this.step().await {
                    Ok(Step::More) => continue,
                    Ok(Step::Wait(until)) => Some(until),
                    Ok(Step::Idle) => None,
                    Err(error) => {
                        tracing::warn!(%error, "rows could not be sealed anew; tried again in a minute");
                        Some(this.clock.now().after(REST))
                    }
                };
                let waited = async {
                    match wait {
                        Some(until) => this.clock.reached(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = waited => {}
                    () = this.state.wake.notified() => {}
                    () = this.shutdown.triggered() => {}
                }
            }
        });
    }

    /// Does a bounded piece of the work.
    pub async fn step(&self) -> Result<Step, StoreError> {
        let mut walk = self.state.walk.lock().await;
        if !self.store.vault().has_old_keys() {
            *walk = None;
            self.state.forget_progress();
            return Ok(Step::Idle);
        }
        let resumed = walk.is_none();
        let mut now = self.known(walk.clone()).await?;
        let step = if resumed && now.mark.stuck {
            // An earlier process has met rows that no key opens; going over everything again would find them again.
            tracing::warn!(
                rows = now.mark.unreadable,
                "the old data key is kept for rows that no key opens; `chartgate keys rotate-data` looks again"
            );
            Step::Idle
        } else if now.mark.proven {
            self.finish(&mut now).await?
        } else {
            self.go_on(&mut now).await?
        };
        // A step that fails leaves everything as it was, and is done again.
        self.state.show(&now);
        *walk = Some(now);
        Ok(step)
    }

    /// Where the work on the current data key is. What is known of an earlier key proves nothing for this one.
    async fn known(&self, walk: Option<Walk>) -> Result<Walk, StoreError> {
        let current = self.store.vault().current_key();
        match walk.filter(|walk| walk.mark.key == current) {
            Some(known) => Ok(known),
            None => self.resume().await,
        }
    }

    /// How far it is.
    pub async fn progress(&self) -> Result<Progress, StoreError> {
        let known = self.state.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(known) => Ok(known),
            None => self.store.read(|view| Ok(described(&mark_in(view)?.unwrap_or_default()))).await,
        }
    }

    /// How many rows a change of the data key would seal anew, and their bytes.
    pub async fn survey(&self) -> Result<(u64, u64), StoreError> {
        let (mut rows, mut bytes, mut place) = (0, 0, Place::default());
        loop {
            let from = place.clone();
            let looked = self.store.read(move |view| {
                let mut size = 0;
                let looked = look(view, from, |_, _, sealed| {
                    size += sealed.len() as u64;
                    true
                })?;
                Ok::<_, StoreError>((looked, size))
            });
            let (looked, size) = looked.await?;
            rows += looked.rows;
            bytes += size;
            place = looked.place;
            if looked.end {
                return Ok((rows, bytes));
            }
        }
    }

    /// Where an earlier process has left off.
    async fn resume(&self) -> Result<Walk, StoreError> {
        let (key, now) = (self.store.vault().current_key(), self.clock.now());
        let read = self.store.read(move |view| {
            if let Some(mark) = mark_in(view)?.filter(|mark| mark.key == key) {
                // A pass that this process has not seen from its beginning proves nothing.
                return Ok(Walk { found: !mark.place.table.is_empty(), mark });
            }
            let total = all_rows(view)?;
            let mark = Mark { key, total, started_at: Some(now), ..Mark::default() };
            Ok::<_, StoreError>(Walk { mark, found: false })
        });
        read.await
    }

    /// Looks at the next rows, and seals anew those that need it.
    async fn go_on(&self, walk: &mut Walk) -> Result<Step, StoreError> {
        let (key, from) = (walk.mark.key, walk.mark.place.clone());
        let looked = self.store.read(move |view| {
            let (mut old, mut bytes) = (Vec::new(), 0);
            let looked = look(view, from, |table, row, sealed| {
                if key_id(sealed) != Some(key) {
                    old.push((table.to_owned(), row.to_vec()));
                    bytes += sealed.len();
                }
                old.len() < MOST_ROWS && bytes < MOST_BYTES
            })?;
            Ok::<_, StoreError>((looked, old))
        });
        let (looked, old) = looked.await?;
        if walk.mark.place.table.is_empty() {
            walk.mark.unreadable = 0;
        }
        walk.mark.place = looked.place;
        walk.mark.passed += looked.rows;
        walk.mark.stuck = false;
        if !old.is_empty() {
            let mut mark = walk.mark.clone();
            let written = self.store.write(move |change| {
                let renewed = change.renew(&old)?;
                mark.renewed += renewed.rows;
                mark.bytes += renewed.bytes;
                mark.unreadable += renewed.unreadable;
                put_mark(change, &mark);
                Ok::<_, StoreError>((mark, renewed.rows > 0))
            });
            let (mark, found) = written.await?;
            walk.mark = mark;
            walk.found |= found;
        }
        if !looked.end {
            return Ok(Step::More);
        }
        if walk.found || walk.mark.unreadable > 0 {
            let stuck = !walk.found;
            if stuck {
                tracing::error!(
                    rows = walk.mark.unreadable,
                    "no key opens these rows, so the old data key is kept; they were damaged before, a backup may have them"
                );
            }
            walk.found = false;
            walk.mark = Mark {
                pass: walk.mark.pass + 1,
                place: Place::default(),
                passed: 0,
                stuck,
                ..walk.mark.clone()
            };
            if !stuck {
                return Ok(Step::More);
            }
            // So that the next process knows it, too.
            let mark = walk.mark.clone();
            let noted = self.store.write(move |change| {
                put_mark(change, &mark);
                Ok::<_, StoreError>(())
            });
            noted.await?;
            return Ok(Step::Idle);
        }
        let now = self.clock.now();
        let mut mark = Mark { proven: true, ..walk.mark.clone() };
        let keep = self.keep;
        let written = self.store.write(move |change| {
            let since = ring(change)?.current_since.unwrap_or(now);
            mark.old_key_until = Some(since.after(keep).max(now.after(READS_END)));
            put_mark(change, &mark);
            Ok::<_, StoreError>(mark)
        });
        walk.mark = written.await?;
        Ok(Step::More)
    }

    /// Drops the old key, when its time has come.
    async fn finish(&self, walk: &mut Walk) -> Result<Step, StoreError> {
        let now = self.clock.now();
        if let Some(until) = walk.mark.old_key_until.filter(|until| *until > now) {
            return Ok(Step::Wait(until));
        }
        let mark = Mark { finished_at: Some(now), ..walk.mark.clone() };
        let (kept, vault) = (mark.clone(), Arc::clone(self.store.vault()));
        let written = self.store.write(move |change| {
            let ring = ring(change)?;
            if ring.current != mark.key {
                // The proof is for another key.
                return Ok(false);
            }
            put_ring(change, &ring.without_old_keys());
            put_mark(change, &mark);
            change.after_commit(move || vault.forget_old_keys());
            Ok::<_, StoreError>(true)
        });
        if !written.await? {
            return Ok(Step::More);
        }
        walk.mark = kept;
        tracing::info!("everything is sealed by the new data key; the old one was dropped");
        Ok(Step::Idle)
    }
}

impl State {
    fn show(&self, walk: &Walk) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(described(&walk.mark));
    }

    fn forget_progress(&self) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What a look over rows has seen.
struct Looked {
    place: Place,
    rows: u64,
    end: bool,
}

/// Goes over rows from a place on, over the borders of tables, as long as `take` wants more, at most [`MOST_LOOKED`].
fn look(
    view: &View<'_>,
    mut place: Place,
    mut take: impl FnMut(&str, &[u8], &[u8]) -> bool,
) -> Result<Looked, StoreError> {
    let mut rows = 0;
    for table in view.tables()? {
        if table < place.table {
            continue;
        }
        if table != place.table {
            place = Place { table: table.clone(), beyond: None };
        }
        let beyond = place.beyond.clone();
        let more = view.scan(&table, beyond.as_deref(), &mut |key, sealed| {
            rows += 1;
            place.beyond = Some(key.to_vec());
            Ok(take(&table, key, sealed) && rows < MOST_LOOKED)
        })?;
        if more {
            return Ok(Looked { place, rows, end: false });
        }
    }
    Ok(Looked { place, rows, end: true })
}

fn all_rows(view: &View<'_>) -> Result<u64, StoreError> {
    view.tables()?.iter().map(|table| view.count(table)).sum()
}

fn described(mark: &Mark) -> Progress {
    let stage = if mark.key == 0 || mark.finished_at.is_some() {
        RotationStage::Idle
    } else if mark.proven {
        RotationStage::KeepingOldKey
    } else if mark.stuck {
        RotationStage::Stuck
    } else if mark.pass == 0 {
        RotationStage::Renewing
    } else {
        RotationStage::Checking
    };
    Progress {
        stage,
        passed: mark.passed,
        total: mark.total,
        renewed: mark.renewed,
        bytes: mark.bytes,
        unreadable: mark.unreadable,
        started_at: mark.started_at,
        old_key_until: mark.old_key_until.filter(|_| stage == RotationStage::KeepingOldKey),
        finished_at: mark.finished_at,
    }
}

fn ring(reader: &impl Reader) -> Result<Keyring, StoreError> {
    let found = reader.raw(META_NAME, KEYRING_KEY)?;
    let found = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    found.ok_or(StoreError::Damaged(META_NAME))
}

fn put_ring(change: &mut Change<'_>, ring: &Keyring) {
    change.put_meta(KEYRING_KEY, serde_json::to_vec(ring).expect("a key ring is plain strings"));
}

fn mark_in(view: &View<'_>) -> Result<Option<Mark>, StoreError> {
    let found = view.raw(META_NAME, MARK_KEY)?;
    // A mark of another version is no mark: the work begins anew, which does no harm.
    Ok(found.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn put_mark(change: &mut Change<'_>, mark: &Mark) {
    change.put_meta(MARK_KEY, serde_json::to_vec(mark).expect("a mark is plain numbers and names"));
}
