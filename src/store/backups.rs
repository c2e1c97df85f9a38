//! Making backups while the program runs: one at a time, on a wish or on a schedule, with the old ones cleared away.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::shutdown::Shutdown;
use crate::store::{BackupError, BackupProgress, BackupReport, Store};

/// How often it is looked whether a backup is due.
const LOOK_EVERY: Duration = Duration::from_mins(10);
/// After one that failed.
const AGAIN_AFTER: Duration = Duration::from_hours(1);
const BEGINNING: &str = "chartgate-";
const ENDING: &str = ".backup";

/// Backups that are made by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSchedule {
    /// How long after the one before; not by themselves when there is nothing.
    pub every: Option<Duration>,
    /// So many are kept; older ones of this program's naming are removed after a new one was made.
    pub keep: usize,
}

/// How far the latest backup is, or what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupState {
    /// None was made since the program started.
    None,
    /// It is being made.
    Running {
        /// The file it will be.
        to: PathBuf,
        /// Rows done.
        rows: u64,
        /// Rows in all.
        total: u64,
        /// Whether what was written is being read again.
        checking: bool,
    },
    /// It is made.
    Made {
        /// The file.
        to: PathBuf,
        /// What is in it.
        report: BackupReport,
    },
    /// It could not be made, for this reason.
    Failed {
        /// The file it would have been.
        to: PathBuf,
        /// Why.
        why: String,
    },
}

/// The backups of a running program. Clones share the state.
#[derive(Debug, Clone)]
pub struct Backups {
    store: Store,
    clock: Clock,
    shutdown: Shutdown,
    folder: PathBuf,
    schedule: BackupSchedule,
    latest: Arc<Mutex<Latest>>,
}

#[derive(Debug, Default)]
enum Latest {
    #[default]
    None,
    Running(PathBuf, Arc<BackupProgress>),
    Ended(PathBuf, Result<BackupReport, String>),
}

impl Backups {
    /// Over a store; backups go to `folder` unless another place is named.
    pub fn new(
        store: Store,
        clock: Clock,
        shutdown: Shutdown,
        folder: PathBuf,
        schedule: BackupSchedule,
    ) -> Self {
        Self { store, clock, shutdown, folder, schedule, latest: Arc::default() }
    }

    /// Begins a backup, in the folder when no file is named; `None` when one is being made already.
    pub fn begin(&self, to: Option<PathBuf>) -> Option<PathBuf> {
        let to = to.unwrap_or_else(|| self.folder.join(self.usual_name()));
        let progress = Arc::new(BackupProgress::default());
        {
            let mut latest = self.lock();
            if matches!(*latest, Latest::Running(..)) {
                return None;
            }
            *latest = Latest::Running(to.clone(), Arc::clone(&progress));
        }
        let (this, path) = (self.clone(), to.clone());
        self.shutdown.spawn(async move {
            let stopping = this.shutdown.clone();
            let made = {
                let (this, path, progress) = (this.clone(), path.clone(), Arc::clone(&progress));
                tokio::task::spawn_blocking(move || this.make(&path, &progress))
            };
            tokio::pin!(made);
            let made = tokio::select! {
                made = &mut made => made,
                () = stopping.triggered() => {
                    progress.stop();
                    made.await
                }
            };
            let made = made.unwrap_or_else(|_| Err("it broke off; the log has the reason".to_owned()));
            match &made {
                Ok(report) => tracing::info!(
                    file = %path.display(), rows = report.rows, bytes = report.bytes, "a backup was made and read again"
                ),
                Err(why) => tracing::error!(file = %path.display(), why, "a backup could not be made"),
            }
            *this.lock() = Latest::Ended(path, made);
        });
        Some(to)
    }

    fn make(&self, to: &Path, progress: &BackupProgress) -> Result<BackupReport, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        if to.starts_with(&self.folder) {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
            made.map_err(|cause| format!("the folder `{}` cannot be made: {cause}", self.folder.display()))?;
        }
        let report =
            self.store.back_up(to, self.clock.now(), progress).map_err(|error: BackupError| said(&error))?;
        if to.starts_with(&self.folder) {
            self.clear_old();
        }
        Ok(report)
    }

    /// How far the latest one is.
    pub fn state(&self) -> BackupState {
        match &*self.lock() {
            Latest::None => BackupState::None,
            Latest::Running(to, progress) => {
                let (rows, total, _, checking) = progress.seen();
                BackupState::Running { to: to.clone(), rows, total, checking }
            }
            Latest::Ended(to, Ok(report)) => BackupState::Made { to: to.clone(), report: *report },
            Latest::Ended(to, Err(why)) => BackupState::Failed { to: to.clone(), why: why.clone() },
        }
    }

    /// The newest backup in the folder: when it was made, by its name.
    pub fn newest(&self) -> Option<Timestamp> {
        // One from the future was made while the clock was wrong, and says nothing.
        let now = self.clock.now();
        self.usual_ones().into_iter().map(|(at, _)| at).rfind(|at| *at <= now)
    }

    /// Starts the schedule, if there is one; it ends with the signal to stop.
    pub fn start(&self) {
        let Some(every) = self.schedule.every else { return };
        let this = self.clone();
        self.shutdown.spawn(async move {
            let mut not_before = Timestamp::from_millis(0);
            while !this.shutdown.is_triggered() {
                let now = this.clock.now();
                if this.newest().is_none_or(|newest| now.since(newest) >= every) && now >= not_before {
                    this.begin(None);
                    not_before = now.after(AGAIN_AFTER.min(every));
                }
                tokio::select! {
                    () = this.shutdown.triggered() => {}
                    () = this.clock.reached(now.after(LOOK_EVERY)) => {}
                }
            }
        });
    }

    /// `chartgate-20261127T080000Z.backup`
    fn usual_name(&self) -> String {
        let text = self.clock.now().to_string();
        let seconds = text.split('.').next().unwrap_or_default().trim_end_matches('Z');
        let plain: String = seconds.chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
        format!("{BEGINNING}{plain}Z{ENDING}")
    }

    /// Backups in the folder by the name this program gives them, oldest first.
    fn usual_ones(&self) -> Vec<(Timestamp, PathBuf)> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<(Timestamp, PathBuf)> =
            entries.filter_map(|entry| Some((made_at(entry.file_name().to_str()?)?, entry.path()))).collect();
        found.sort();
        found
    }

    /// Clears old ones away, and what a power cut has left of one that was being made.
    fn clear_old(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let whole = path.file_stem().and_then(|name| name.to_str()).and_then(made_at);
            if whole.is_some() && path.extension().is_some_and(|ending| ending == "partial") {
                // The one that was just made has its name by now, and there is no other.
                let _ = std::fs::remove_file(&path);
            }
        }
        // One from the future takes the place of none of the others, and is left for a person to look at.
        let now = self.clock.now();
        let all: Vec<_> = self.usual_ones().into_iter().filter(|(at, _)| *at <= now).collect();
        let surplus = all.len().saturating_sub(self.schedule.keep.max(1));
        for (_, path) in &all[..surplus] {
            match std::fs::remove_file(path) {
                Ok(()) => tracing::info!(file = %path.display(), "an old backup was removed"),
                Err(cause) => {
                    tracing::warn!(file = %path.display(), %cause, "an old backup cannot be removed");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a backup of this name was made.
fn made_at(name: &str) -> Option<Timestamp> {
    let text = name.strip_prefix(BEGINNING)?.strip_suffix(ENDING)?;
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    if date.len() != 8 || time.len() != 6 || !date.is_ascii() || !time.is_ascii() {
        return None;
    }
    let (year, month, day) = (&date[..4], &date[4..6], &date[6..]);
    let (hour, minute, second) = (&time[..2], &time[2..4], &time[4..]);
    Timestamp::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;
    use crate::store::{MasterKey, Opening};

    fn backups(folder: &Path, clock: &Clock, keep: usize, every: Option<Duration>) -> Backups {
        let opening = Opening {
            path: folder.join("store.redb"),
            master_key: MasterKey::generate(&Random::seeded(1)),
            cache_bytes: 1 << 20,
            create: true,
        };
        let store = Store::open(&opening, Random::seeded(2)).expect("a store");
        let schedule = BackupSchedule { every, keep };
        Backups::new(store, clock.clone(), Shutdown::default(), folder.join("backups"), schedule)
    }

    async fn ended(backups: &Backups) -> BackupState {
        let ended = async {
            while matches!(backups.state(), BackupState::None | BackupState::Running { .. }) {
                tokio::task::yield_now().await;
            }
            backups.state()
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("an end")
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_newest_are_kept_and_strangers_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(Timestamp::parse("2026-11-27T08:00:00Z").expect("a time"));
        let backups = backups(folder.path(), &clock, 2, None);
        let place = folder.path().join("backups");
        for day in 0..4 {
            backups.begin(None).expect("none is being made");
            assert!(matches!(ended(&backups).await, BackupState::Made { .. }), "{day}");
            if day == 0 {
                std::fs::write(place.join("chartgate-notes.backup"), "mine").expect("written");
                let left = place.join("chartgate-20261126T080000Z.backup.partial");
                std::fs::write(left, "cut off").expect("written");
            }
            clock.advance(Duration::from_hours(24));
        }
        assert_eq!(
            names(&place),
            [
                "chartgate-20261129T080000Z.backup",
                "chartgate-20261130T080000Z.backup",
                "chartgate-notes.backup"
            ]
        );
        assert_eq!(backups.newest(), Timestamp::parse("2026-11-30T08:00:00Z"));
        let elsewhere = folder.path().join("mine.backup");
        backups.begin(Some(elsewhere.clone()));
        assert!(matches!(ended(&backups).await, BackupState::Made { to, .. } if to == elsewhere));
        backups.begin(Some(elsewhere));
        assert!(matches!(ended(&backups).await, BackupState::Failed { why, .. } if why.contains("already")));
    }

    #[tokio::test]
    async fn one_is_made_when_it_is_due_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(Timestamp::parse("2026-11-27T08:00:00Z").expect("a time"));
        let backups = backups(folder.path(), &clock, 7, Some(Duration::from_hours(24)));
        let place = folder.path().join("backups");
        let count = |wanted: usize| {
            let place = place.clone();
            async move {
                let there = async {
                    while names(&place).iter().filter(|name| name.ends_with(ENDING)).count() != wanted {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(30), there).await.expect("as many as wanted");
            }
        };
        backups.start();
        count(1).await;
        ended(&backups).await;
        clock.advance(Duration::from_hours(23));
        clock.advance(Duration::from_hours(2));
        count(2).await;
        assert_eq!(names(&place)[1], "chartgate-20261128T090000Z.backup", "a day after, not sooner");
        backups.shutdown.trigger();
    }
}
