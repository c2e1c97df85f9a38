//! Giving back the space of what was removed. redb uses freed pages again, but its file never shrinks by itself, and until a
//! freed page is used again the sealed bytes of what was there are still in it.

use std::sync::Arc;

use redb::{Database, Durability};

use crate::store::{Inner, Store, StoreError};

/// What compacting did to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Its length before, in bytes.
    pub before: u64,
    /// And after.
    pub after: u64,
}

impl Store {
    /// Moves what is kept together and cuts the rest of the file off. Nothing else may use the store: this is its only
    /// handle, and its last.
    pub fn compact(self) -> Result<Compacted, StoreError> {
        let in_use = || StoreError::Storage("it is in use".to_owned());
        let Inner { database, committer, path, .. } = Arc::try_unwrap(self.0).map_err(|_| in_use())?;
        // Its thread has the database until it has ended.
        drop(committer);
        let mut database = Arc::try_unwrap(database).map_err(|_| in_use())?;
        let length =
            || std::fs::metadata(&path).map(|about| about.len()).map_err(|error| StoreError::storage(&error));
        let before = length()?;
        while database.compact().map_err(|error| StoreError::storage(&error))? {}
        settle(&database).map_err(|error| StoreError::storage(&error))?;
        drop(database);
        Ok(Compacted { before, after: length()? })
    }
}

/// Opening after a crash is quick only when the last commit provided for it, which those of compacting do not.
fn settle(database: &Database) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(transaction.commit()?)
}
