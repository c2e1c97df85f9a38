//! Exports: what is kept of a workspace's patients, brought to where the clinic's other systems read it: everything first,
//! then what has changed since. Knows no routes.
//!
//! An export makes *runs*, one after the other. A run is never given up: after a crash, a full disk or a folder that is not
//! there it goes on where it was on disk, until its file stands in its place, whole. So each run begins where the one before
//! ended, and no record is missing or there twice.

mod file;
mod marks;
mod run;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::config::ExportSettings;
use crate::id::{Id as _, PatientKey, WorkspaceId};
use crate::shutdown::Shutdown;
use crate::store::{Range, Reader, Store, StoreError, Table, Vault, json_value};
use crate::workspaces::Workspaces;

/// Runs under the export and their number; the first is 1.
const RUNS: Table<ExportRun> = Table::new("export_runs.v1");
/// Runs that are remembered of each export.
const MOST_RUNS: usize = 100;
/// After a run that could not go on, doubled each time.
const FIRST_REST: Duration = Duration::from_mins(1);
const LONGEST_REST: Duration = Duration::from_hours(1);

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Patient after patient.
    Running,
    /// Everything is written; the file is brought to its place.
    Finishing,
    /// The file stands in its place.
    Succeeded,
}

/// One run of an export, as it is known on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRun {
    /// Which one.
    pub number: u64,
    /// Everything, or what has changed since the run before.
    pub full: bool,
    /// How far.
    pub state: RunState,
    /// When it began.
    pub started_at: Timestamp,
    /// When its file was in its place.
    pub finished_at: Option<Timestamp>,
    /// Patients of whom something was to be exported when it began.
    #[serde(default)]
    pub expected: u64,
    /// Patients whose records are in the file.
    pub patients: u64,
    /// Records in the file.
    pub records: u64,
    /// The file's length.
    pub bytes: u64,
    /// The file's name.
    pub file: String,
    /// How often it could not go on, in a row.
    pub failures: u32,
    /// Why it could not go on, the last time.
    pub trouble: Option<String>,
    /// How often it was begun anew because its unfinished file was gone.
    attempt: u32,
    /// The last patient that was looked at.
    cursor: Option<PatientKey>,
}
json_value!(ExportRun);

impl ExportRun {
    /// Whether anything is still to come.
    pub fn is_over(&self) -> bool {
        self.state == RunState::Succeeded
    }
}

/// Why an export did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExportRefused {
    /// No such export.
    #[error("there is no export `{0}`; they are listed as [[export]] in the configuration")]
    Unknown(String),
    /// A full run was asked for and another one is not over.
    #[error("run {0} is not over; wait for its end (`chartgate export runs`), then ask for a full one")]
    Busy(u64),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The exports of the configuration. Clones share them.
#[derive(Debug, Clone)]
pub struct Exports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    workspaces: Workspaces,
    shutdown: Shutdown,
    exports: Vec<Export>,
}

/// One export and who works at it.
#[derive(Debug)]
struct Export {
    settings: ExportSettings,
    wake: Notify,
    /// Held by whoever begins a run.
    beginning: tokio::sync::Mutex<()>,
    /// Whether its task is running.
    at_work: Mutex<bool>,
    /// Patients, records and bytes of the run under way that are not on disk for certain yet.
    ahead: Mutex<Ahead>,
}

/// What a run has done since it was written down last.
#[derive(Debug, Clone, Copy, Default)]
struct Ahead {
    patients: u64,
    records: u64,
    bytes: u64,
}

impl Exports {
    /// Over the parts it uses.
    pub fn new(
        store: Store,
        clock: Clock,
        workspaces: Workspaces,
        settings: Vec<ExportSettings>,
        shutdown: Shutdown,
    ) -> Self {
        let exports = settings.into_iter().map(|settings| Export {
            settings,
            wake: Notify::new(),
            beginning: tokio::sync::Mutex::default(),
            at_work: Mutex::default(),
            ahead: Mutex::default(),
        });
        let exports = exports.collect();
        Self(Arc::new(Inner { store, clock, workspaces, shutdown, exports }))
    }

    /// Starts looking for what has changed, now and every so often.
    pub fn start(&self) {
        for index in 0..self.0.exports.len() {
            self.work(index);
        }
    }

    /// The exports, each with its latest run.
    pub async fn list(&self) -> Result<Vec<(ExportSettings, Option<ExportRun>)>, StoreError> {
        let mut all = Vec::with_capacity(self.0.exports.len());
        for export in &self.0.exports {
            all.push((export.settings.clone(), self.latest_runs(export, 1).await?.pop()));
        }
        Ok(all)
    }

    /// The latest runs of an export, newest first. The one under way is shown with what it has done in memory.
    pub async fn runs(&self, name: &str, most: usize) -> Result<Vec<ExportRun>, ExportRefused> {
        let export = &self.0.exports[self.named(name)?];
        let mut runs = self.latest_runs(export, most).await?;
        if let Some(run) = runs.first_mut().filter(|run| run.state == RunState::Running) {
            let ahead = *lock(&export.ahead);
            run.patients += ahead.patients;
            run.records += ahead.records;
            run.bytes += ahead.bytes;
        }
        Ok(runs)
    }

    /// Has an export run now. The run that is under way, or begins; `None` when nothing has changed.
    pub async fn run(&self, name: &str, full: bool) -> Result<Option<ExportRun>, ExportRefused> {
        let index = self.named(name)?;
        let export = &self.0.exports[index];
        let run = self.unfinished(export, full).await?;
        if let Some(run) = run.as_ref().filter(|run| full && !run.full) {
            return Err(ExportRefused::Busy(run.number));
        }
        export.wake.notify_one();
        self.work(index);
        Ok(run)
    }

    fn named(&self, name: &str) -> Result<usize, ExportRefused> {
        let found = self.0.exports.iter().position(|export| export.settings.name == name);
        found.ok_or_else(|| ExportRefused::Unknown(name.to_owned()))
    }

    async fn workspace(&self, export: &Export) -> Result<Option<WorkspaceId>, StoreError> {
        let found = self.0.workspaces.named(&export.settings.workspace).await?;
        Ok(found.map(|workspace| workspace.id))
    }

    async fn latest_runs(&self, export: &Export, most: usize) -> Result<Vec<ExportRun>, StoreError> {
        let Some(workspace) = self.workspace(export).await? else { return Ok(Vec::new()) };
        let name = export.settings.name.clone();
        self.0
            .store
            .read(move |view| {
                let prefix = export_key(view.vault(), workspace, &name);
                let rows = view.rows(RUNS, &Range::of(&prefix).descending().limit(most))?;
                Ok(rows.into_iter().map(|(_, run)| run).collect())
            })
            .await
    }

    /// Starts the task of an export, unless it is running.
    fn work(&self, index: usize) {
        let mut at_work = lock(&self.0.exports[index].at_work);
        if std::mem::replace(&mut *at_work, true) {
            return;
        }
        let exports = self.clone();
        self.0.shutdown.spawn(async move {
            let shutdown = exports.0.shutdown.clone();
            tokio::select! {
                // A run that is cut off goes on at the next start.
                () = shutdown.triggered() => {}
                () = exports.keep_going(index) => {}
            }
        });
    }

    async fn keep_going(&self, index: usize) {
        let export = &self.0.exports[index];
        let mut rest = FIRST_REST;
        loop {
            let pause = match self.look(export).await {
                Ok(()) => {
                    rest = FIRST_REST;
                    export.settings.every
                }
                Err(trouble) => {
                    tracing::warn!(export = export.settings.name, %trouble, "an export could not go on");
                    let next = (rest * 2).min(LONGEST_REST);
                    std::mem::replace(&mut rest, next)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = export.wake.notified() => {}
            }
        }
    }
}

/// The name of an export in row keys.
fn export_key(vault: &Vault, workspace: WorkspaceId, name: &str) -> [u8; 16] {
    vault.digest(&[b"export", &workspace.to_bytes(), name.as_bytes()])
}

fn run_key(export: [u8; 16], number: u64) -> Vec<u8> {
    [&export[..], &number.to_be_bytes()].concat()
}

fn latest(reader: &impl Reader, export: [u8; 16]) -> Result<Option<ExportRun>, StoreError> {
    let rows = reader.rows(RUNS, &Range::of(&export).descending().limit(1))?;
    Ok(rows.into_iter().next().map(|(_, run)| run))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
