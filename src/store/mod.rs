//! The store: one redb file, every value sealed, one committer thread. The only user of redb; what a value means is
//! for the rooms below to know.
//!
//! A read is a closure over a consistent snapshot, run off the async threads by one of a few readers. A write is a
//! closure run by the committer thread, which puts all writes that are waiting into one durable transaction (group
//! commit, without a timer: batches form by themselves while the disk is busy). A write that fails takes only its own
//! changes back.

mod backup;
mod backups;
mod change;
mod committer;
mod compact;
mod keyring;
mod master_key;
mod migrate;
mod open;
mod readers;
mod rotation;
mod tables;
mod value;
mod vault;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _};

pub use backup::{BackupError, BackupProgress, BackupReport};
pub use backups::{BackupSchedule, BackupState, Backups};
pub use change::Change;
pub use compact::Compacted;
pub use keyring::MasterChange;
pub use master_key::{HeldKeyFile, KeyFileError, MasterKeyFile};
pub use open::{MasterKey, OpenError, Opening};
pub use rotation::{DataKeyRotation, KeyChangeError, Progress, RotationStage, Step};
pub use tables::Table;
pub use value::Value;
pub(crate) use value::json_value;
pub use vault::{Sealed, Vault};
pub use view::{Mark, Order, Range, Reader, View};

use committer::Committer;
use readers::Readers;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk, or what is on it. After a failed commit nothing more is written until the program is restarted.
    #[error("the store could not be read or written: {0}")]
    Storage(String),
    /// A value is there but cannot be opened or understood.
    #[error("a value in table `{0}` is damaged or was sealed for another place")]
    Damaged(&'static str),
    /// The committer has stopped, because the program is stopping or a write panicked it.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    fn storage(error: &impl std::fmt::Display) -> Self {
        Self::Storage(error.to_string())
    }
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    database: Arc<Database>,
    vault: Arc<Vault>,
    committer: Committer,
    readers: Readers,
    path: PathBuf,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Store({})", self.0.path.display())
    }
}

impl Store {
    fn new(database: Database, vault: Vault, path: PathBuf) -> Result<Self, StoreError> {
        let database = Arc::new(database);
        let vault = Arc::new(vault);
        let committer = Committer::start(Arc::clone(&database), Arc::clone(&vault))?;
        Ok(Self(Arc::new(Inner { database, vault, committer, readers: Readers::new(), path })))
    }

    /// Runs `read` over one consistent snapshot, off the async threads.
    pub async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: FnOnce(&View<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let done = self.0.readers.run(move || Self(inner).read_now(read)).await;
        done.unwrap_or_else(|| Err(StoreError::Closed.into()))
    }

    /// [`Store::read`] on the calling thread: for start-up, benches and commands, and for a row or two that are in memory.
    pub fn read_now<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: FnOnce(&View<'_>) -> Result<T, E>,
        E: From<StoreError>,
    {
        let transaction = self.0.database.begin_read().map_err(|error| StoreError::storage(&error))?;
        read(&View::new(&transaction, &self.0.vault))
    }

    /// Runs `write` in a durable transaction and returns after it is on disk. When `write` fails, nothing of it is kept.
    pub async fn write<T, E, F>(&self, write: F) -> Result<T, E>
    where
        F: FnOnce(&mut Change<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.0.committer.submit(write).await
    }

    /// The keys that seal values, for callers that seal in bulk before they write.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.0.vault
    }

    /// Where the store's file is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether writes are still accepted; `false` after a commit failed.
    pub fn is_writable(&self) -> bool {
        self.0.committer.is_writable()
    }

    /// How many durable commits there were: benches and tests count them.
    pub fn commits(&self) -> u64 {
        self.0.committer.commits()
    }
}

#[cfg(test)]
mod backup_tests;
#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod tests;
