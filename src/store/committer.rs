//! The committer: one thread that turns waiting writes into durable transactions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot};

use crate::store::change::OpenTables;
use crate::store::{Change, StoreError, Vault};

/// How many writes may wait; a caller over that waits for a place.
const QUEUE: usize = 1024;
/// How many writes one transaction takes. Larger batches gain nothing: the bytes written become the limit.
const BATCH: usize = 256;

/// A write, and what tells its caller how it went.
type Job = Box<dyn FnOnce(&mut Change<'_>) -> Verdict + Send>;

struct Verdict {
    keep: bool,
    answer: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

pub(super) struct Committer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
}

impl Drop for Committer {
    /// Waits until the last write is on disk and the file is let go of, so that a next open is not refused.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A write may hold the last handle on the store; the committer cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[derive(Default)]
struct State {
    failed: AtomicBool,
    commits: AtomicU64,
}

impl Committer {
    pub(super) fn start(database: Arc<Database>, vault: Arc<Vault>) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || run(&database, &vault, jobs, &shared))
            .map_err(|error| StoreError::storage(&error))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), state })
    }

    pub(super) fn is_writable(&self) -> bool {
        !self.state.failed.load(Ordering::Acquire)
    }

    pub(super) fn commits(&self) -> u64 {
        self.state.commits.load(Ordering::Relaxed)
    }

    pub(super) async fn submit<T, E, F>(&self, write: F) -> Result<T, E>
    where
        F: FnOnce(&mut Change<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |change| {
            // A panic in one write must not take the committer, and with it every other write, down.
            let result = catch_unwind(AssertUnwindSafe(|| write(change)))
                .unwrap_or_else(|_| Err(StoreError::Storage("a write panicked".to_owned()).into()));
            Verdict {
                keep: result.is_ok(),
                answer: Box::new(move |committed: Result<(), StoreError>| {
                    let outcome = result.and_then(|value| committed.map(|()| value).map_err(E::from));
                    // The caller may have gone away; what it wrote stays written.
                    let _ = tell.send(outcome);
                }),
            }
        });
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(job).await.map_err(|_| StoreError::Closed)?;
        told.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }
}

/// Runs until every handle on the store is gone.
fn run(database: &Database, vault: &Vault, mut jobs: mpsc::Receiver<Job>, state: &State) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match jobs.try_recv() {
                Ok(job) => batch.push(job),
                Err(_) => break,
            }
        }
        let mut answers = Vec::with_capacity(batch.len());
        let outcome = catch_unwind(AssertUnwindSafe(|| commit(database, vault, batch, &mut answers, state)))
            .unwrap_or_else(|_| Err(StoreError::Storage("a commit panicked".to_owned())));
        if let Err(error) = &outcome {
            state.failed.store(true, Ordering::Release);
            tracing::error!(%error, "the store cannot be written; check the disk, then restart");
        }
        for (answer, own) in answers {
            answer(own.map_or_else(|| outcome.clone(), Err));
        }
    }
}

type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

fn commit(
    database: &Database,
    vault: &Vault,
    batch: Vec<Job>,
    answers: &mut Vec<(Answer, Option<StoreError>)>,
    state: &State,
) -> Result<(), StoreError> {
    let storage = |error: redb::Error| StoreError::storage(&error);
    let mut transaction = database.begin_write().map_err(|error| storage(error.into()))?;
    transaction.set_durability(Durability::Immediate).map_err(|error| storage(error.into()))?;
    // Without this, opening after a crash walks the whole file: seconds at a million rows. It helps only when the
    // last commit had it, so every commit has it.
    transaction.set_quick_repair(true);
    let mut changed = false;
    let mut failure = None;
    let mut afterwards = Vec::new();
    {
        let tables = OpenTables::new(&transaction);
        for job in batch {
            let mut change = Change::new(&tables, vault);
            let verdict = job(&mut change);
            let settled = if verdict.keep { change.settle() } else { Ok(()) };
            let keep = verdict.keep && settled.is_ok();
            answers.push((verdict.answer, settled.err()));
            if keep && failure.is_none() {
                match change.apply() {
                    Ok((any, then)) => {
                        changed |= any;
                        afterwards.extend(then);
                    }
                    Err(error) => failure = Some(error),
                }
            }
        }
    }
    if let Some(error) = failure {
        let _ = transaction.abort();
        return Err(error);
    }
    if changed {
        transaction.commit().map_err(|error| storage(error.into()))?;
        state.commits.fetch_add(1, Ordering::Relaxed);
    } else {
        transaction.abort().map_err(|error| storage(error.into()))?;
    }
    for then in afterwards {
        then();
    }
    Ok(())
}
