//! A run from its beginning to its end, from wherever it is.

use std::io;
use std::path::Path;

use crate::crypto::base64url;
use crate::exports::file::{Found, Unfinished};
use crate::exports::{
    Ahead, Export, ExportRun, Exports, MOST_RUNS, RUNS, RunState, export_key, latest, lock, marks, run_key,
};
use crate::id::{PatientKey, WorkspaceId};
use crate::records::{Export as Lines, ExportError, changed_after};
use crate::store::{Range, Reader as _, StoreError};
use crate::workspaces::{Patient, Patients};

/// Patients looked at in one read.
const PATIENTS: usize = 256;
/// So much of a run is brought to disk and noted together: what a crash makes to be done again.
const SPELL_BYTES: u64 = 32 << 20;
const SPELL_PATIENTS: usize = 512;

/// Why a run cannot go on for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The workspace is not one of the configuration.
    #[error("there is no workspace `{0}`; correct `workspace` of the export")]
    Workspace(String),
    /// The folder or the disk.
    #[error(
        "the folder cannot be written ({0}); check that it exists, that chartgate may write there, and that the disk has room"
    )]
    File(#[from] io::Error),
    /// Our own store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Patients of whom something is to be exported, each with the place to begin at.
struct Piece {
    patients: Vec<(Patient, u64)>,
    /// The last one looked at; `None` when there are no more.
    cursor: Option<PatientKey>,
}

/// A run at work.
struct Work<'e> {
    exports: &'e Exports,
    export: &'e Export,
    workspace: WorkspaceId,
    key: [u8; 16],
    run: ExportRun,
    file: Option<Unfinished>,
    /// What has been written since the last note.
    marks: Vec<(PatientKey, u64)>,
    ahead: Ahead,
}

impl Exports {
    /// Looks whether there is something to do, and does it.
    pub(super) async fn look(&self, export: &Export) -> Result<(), Trouble> {
        let workspace = self.workspace(export).await?;
        let workspace = workspace.ok_or_else(|| Trouble::Workspace(export.settings.workspace.clone()))?;
        let key = export_key(self.0.store.vault(), workspace, &export.settings.name);
        let Some(run) = self.unfinished(export, false).await? else { return Ok(()) };
        *lock(&export.ahead) = Ahead::default();
        let (marks, ahead) = (Vec::new(), Ahead::default());
        let mut work = Work { exports: self, export, workspace, key, run, file: None, marks, ahead };
        let done = work.complete().await;
        *lock(&export.ahead) = Ahead::default();
        if let Err(trouble) = &done {
            work.note_trouble(trouble).await?;
        }
        done
    }

    /// The run that is not over, or a new one if there is anything to export. The first one of an export is a full one.
    pub(super) async fn unfinished(
        &self,
        export: &Export,
        full: bool,
    ) -> Result<Option<ExportRun>, StoreError> {
        let Some(workspace) = self.workspace(export).await? else { return Ok(None) };
        let key = export_key(self.0.store.vault(), workspace, &export.settings.name);
        let _one_at_a_time = export.beginning.lock().await;
        let known = self.0.store.read(move |view| latest(view, key)).await?;
        if known.as_ref().is_some_and(|run| !run.is_over()) {
            return Ok(known);
        }
        let number = known.as_ref().map_or(1, |run| run.number + 1);
        let full = full || known.is_none();
        let kind = if full { "full" } else { "delta" };
        let packed = if export.settings.gzip { ".gz" } else { "" };
        let run = ExportRun {
            number,
            full,
            state: RunState::Running,
            started_at: self.0.clock.now(),
            finished_at: None,
            patients: 0,
            records: 0,
            bytes: 0,
            file: format!("{}-{number:06}-{kind}.ndjson{packed}", export.settings.name),
            expected: 0,
            failures: 0,
            trouble: None,
            attempt: 0,
            cursor: None,
        };
        let (mut run, mut cursor) = (run, None);
        loop {
            let piece = self.piece(workspace, key, &run, cursor, usize::MAX).await?;
            run.expected += piece.patients.len() as u64;
            cursor = piece.cursor;
            if cursor.is_none() {
                break;
            }
        }
        if run.expected == 0 {
            return Ok(None);
        }
        let row = run.clone();
        self.0
            .store
            .write(move |change| {
                change.put(RUNS, &run_key(key, row.number), &row);
                let all = change.keys(RUNS, &Range::of(&key))?;
                for old in all.iter().take(all.len().saturating_sub(MOST_RUNS)) {
                    change.remove(RUNS, old);
                }
                Ok::<_, StoreError>(())
            })
            .await?;
        Ok(Some(run))
    }

    /// The next patients of whom something has changed, `most` at most.
    async fn piece(
        &self,
        workspace: WorkspaceId,
        export: [u8; 16],
        run: &ExportRun,
        after: Option<PatientKey>,
        most: usize,
    ) -> Result<Piece, StoreError> {
        let run = run.clone();
        self.0
            .store
            .read(move |view| {
                let all = Patients::after(view, workspace, after, PATIENTS)?;
                let full = all.len() == PATIENTS;
                let mut piece = Piece { patients: Vec::new(), cursor: None };
                for patient in all {
                    let start = marks::start(view, export, patient.key, &run)?;
                    piece.cursor = Some(patient.key);
                    if changed_after(view, patient.key, start)? {
                        piece.patients.push((patient, start));
                        if piece.patients.len() == most {
                            return Ok(piece);
                        }
                    }
                }
                if !full {
                    piece.cursor = None;
                }
                Ok(piece)
            })
            .await
    }
}

impl Work<'_> {
    async fn complete(&mut self) -> Result<(), Trouble> {
        if self.run.state == RunState::Running {
            self.write_all().await?;
        }
        if let Some(file) = self.open().await? {
            off_thread(file, Unfinished::finish).await??;
        }
        self.run.state = RunState::Succeeded;
        self.run.finished_at = Some(self.exports.0.clock.now());
        self.put_run().await?;
        let run = &self.run;
        tracing::info!(
            export = self.export.settings.name,
            run = run.number,
            full = run.full,
            patients = run.patients,
            records = run.records,
            bytes = run.bytes,
            "exported"
        );
        Ok(())
    }

    /// The run's file, as far as it counts; `None` when it stands in its place. One that is gone is begun anew.
    async fn open(&mut self) -> Result<Option<Unfinished>, Trouble> {
        if let Some(file) = self.file.take() {
            return Ok(Some(file));
        }
        loop {
            let settings = &self.export.settings;
            let (folder, name) = (settings.directory.clone(), self.run.file.clone());
            // As it was begun, whatever the setting is by now.
            let (length, gzip) =
                (self.run.bytes, Path::new(&name).extension().is_some_and(|ending| ending == "gz"));
            let tag = base64url(&self.key[..4]);
            let opened = move || Unfinished::open(&folder, &name, &tag, length, gzip);
            let found = tokio::task::spawn_blocking(opened).await;
            match found.map_err(io::Error::other)?? {
                Found::Unfinished(file) => return Ok(Some(*file)),
                Found::InPlace if self.run.state == RunState::Finishing => return Ok(None),
                Found::InPlace | Found::Gone => {
                    let run = &mut self.run;
                    (run.patients, run.records, run.bytes, run.cursor) = (0, 0, 0, None);
                    run.attempt += 1;
                    let again = run.state == RunState::Finishing;
                    run.state = RunState::Running;
                    self.put_run().await?;
                    if again {
                        Box::pin(self.write_all()).await?;
                        return Ok(self.file.take());
                    }
                }
            }
        }
    }

    /// Patient after patient, from where the run is.
    async fn write_all(&mut self) -> Result<(), Trouble> {
        let Some(mut file) = self.open().await? else { return Ok(()) };
        loop {
            let cursor = self.run.cursor;
            let piece =
                self.exports.piece(self.workspace, self.key, &self.run, cursor, SPELL_PATIENTS).await?;
            for (patient, start) in piece.patients {
                let key = patient.key;
                file = self.write_patient(file, patient, start).await?;
                if self.ahead.bytes >= SPELL_BYTES || self.marks.len() >= SPELL_PATIENTS {
                    file = self.note(file, Some(key), RunState::Running).await?;
                }
            }
            let Some(cursor) = piece.cursor else { break };
            // What lies between needs no note of its own: looking at it again is cheap.
            self.run.cursor = Some(cursor);
        }
        let cursor = self.run.cursor;
        self.file = Some(self.note(file, cursor, RunState::Finishing).await?);
        Ok(())
    }

    async fn write_patient(
        &mut self,
        mut file: Unfinished,
        patient: Patient,
        start: u64,
    ) -> Result<Unfinished, Trouble> {
        let key = patient.key;
        let mut lines = Lines::after(self.exports.0.store.clone(), patient, start);
        let before = self.ahead;
        loop {
            match lines.next().await {
                Ok(Some(piece)) => {
                    let count = memchr::memchr_iter(b'\n', &piece).count() as u64;
                    self.ahead.records += count;
                    self.ahead.bytes += piece.len() as u64;
                    let written = off_thread(file, move |mut file| {
                        let written = file.write(&piece);
                        (file, written)
                    });
                    let (again, written) = written.await?;
                    written?;
                    file = again;
                }
                Ok(None) => break,
                Err(ExportError::Erased) => {
                    self.ahead = before;
                    let (again, cut) = off_thread(file, |mut file| {
                        let cut = file.leave_patient_out();
                        (file, cut)
                    })
                    .await?;
                    cut?;
                    return Ok(again);
                }
                Err(ExportError::Store(error)) => return Err(error.into()),
            }
            *lock(&self.export.ahead) = self.ahead;
        }
        let (file, ended) = off_thread(file, |mut file| {
            let ended = file.end_patient();
            (file, ended)
        })
        .await?;
        let length = ended?;
        self.ahead.patients += 1;
        // Packed files are shorter than what went in.
        self.ahead.bytes = length - self.run.bytes;
        *lock(&self.export.ahead) = self.ahead;
        if let Some(position) = lines.position() {
            self.marks.push((key, position));
        }
        Ok(file)
    }

    /// Brings what was written to disk, and then notes that it is there.
    async fn note(
        &mut self,
        file: Unfinished,
        cursor: Option<PatientKey>,
        state: RunState,
    ) -> Result<Unfinished, Trouble> {
        let (file, synced) = off_thread(file, |file| {
            let synced = file.sync();
            (file, synced)
        })
        .await?;
        synced?;
        let ahead = std::mem::take(&mut self.ahead);
        let run = &mut self.run;
        run.patients += ahead.patients;
        run.records += ahead.records;
        run.bytes += ahead.bytes;
        (run.cursor, run.state, run.failures) = (cursor, state, 0);
        run.trouble = None;
        self.put_run().await?;
        *lock(&self.export.ahead) = Ahead::default();
        Ok(file)
    }

    /// The run's row and the marks that belong to it, in one write.
    async fn put_run(&mut self) -> Result<(), StoreError> {
        let (key, run, marks) = (self.key, self.run.clone(), std::mem::take(&mut self.marks));
        self.exports
            .0
            .store
            .write(move |change| {
                for (patient, position) in marks {
                    marks::put(change, key, patient, &run, position)?;
                }
                change.put(RUNS, &run_key(key, run.number), &run);
                Ok::<_, StoreError>(())
            })
            .await
    }

    /// Notes why the run stands still. What it has counted since the last note does not count.
    async fn note_trouble(&self, trouble: &Trouble) -> Result<(), StoreError> {
        let (key, number, text) = (self.key, self.run.number, trouble.to_string());
        self.exports
            .0
            .store
            .write(move |change| {
                let Some(mut run) = change.get(RUNS, &run_key(key, number))? else { return Ok(()) };
                run.failures += 1;
                run.trouble = Some(text);
                change.put(RUNS, &run_key(key, number), &run);
                Ok::<_, StoreError>(())
            })
            .await
    }
}

/// Works with a file where waiting for the disk holds nobody up.
async fn off_thread<T: Send + 'static>(
    file: Unfinished,
    work: impl FnOnce(Unfinished) -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(move || work(file)).await.map_err(io::Error::other)
}
