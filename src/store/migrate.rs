//! Old stores become new ones: one step a version, each in its own transaction, each safe to run twice.

use redb::{Database, Durability, ReadableDatabase, TableError, WriteTransaction};

use crate::store::StoreError;
use crate::store::Vault;
use crate::store::keyring::Keyring;
use crate::store::tables::META;

/// The version this program writes.
pub(super) const SCHEMA: u32 = 1;

/// One step from the version before to the next.
pub(super) type Step = fn(&WriteTransaction, &Vault) -> Result<(), StoreError>;

/// Step `n` leads from version `n + 1` to `n + 2`. Version 1 is the first there was.
pub(super) const STEPS: &[Step] = &[];

pub(super) const SCHEMA_KEY: &[u8] = b"schema";
pub(super) const KEYRING_KEY: &[u8] = b"keyring";

/// What the store says of itself before anything in it can be opened.
pub(super) struct Meta {
    pub(super) schema: u32,
    pub(super) keyring: Keyring,
}

/// Reads the store's own description; `None` for a store in which nothing was ever written.
pub(super) fn read_meta(database: &impl ReadableDatabase) -> Result<Option<Meta>, StoreError> {
    let transaction = database.begin_read().map_err(|error| StoreError::storage(&error))?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(StoreError::storage(&error)),
    };
    let read = |key: &[u8]| -> Result<Option<Vec<u8>>, StoreError> {
        let found = table.get(key).map_err(|error| StoreError::storage(&error))?;
        Ok(found.map(|guard| guard.value().to_vec()))
    };
    let damaged = || StoreError::Damaged("meta.v1");
    let (Some(schema), Some(keyring)) = (read(SCHEMA_KEY)?, read(KEYRING_KEY)?) else {
        return Err(damaged());
    };
    Ok(Some(Meta {
        schema: serde_json::from_slice(&schema).map_err(|_| damaged())?,
        keyring: serde_json::from_slice(&keyring).map_err(|_| damaged())?,
    }))
}

/// Writes the description of a new store.
pub(super) fn write_meta(database: &Database, schema: u32, keyring: &Keyring) -> Result<(), StoreError> {
    in_transaction(database, |transaction| {
        let mut table = transaction.open_table(META).map_err(|error| StoreError::storage(&error))?;
        let keyring = serde_json::to_vec(keyring).expect("a key ring is plain strings");
        table.insert(KEYRING_KEY, keyring.as_slice()).map_err(|error| StoreError::storage(&error))?;
        set_schema(&mut table, schema)
    })
}

/// Runs the steps that a store of version `from` still needs.
pub(super) fn migrate(
    database: &Database,
    vault: &Vault,
    from: u32,
    steps: &[Step],
) -> Result<(), StoreError> {
    let first = from.saturating_sub(1);
    for (index, step) in (first..).zip(steps.iter().skip(first as usize)) {
        in_transaction(database, |transaction| {
            step(transaction, vault)?;
            let mut table = transaction.open_table(META).map_err(|error| StoreError::storage(&error))?;
            set_schema(&mut table, index + 2)
        })?;
    }
    Ok(())
}

fn set_schema(table: &mut redb::Table<'_, &[u8], &[u8]>, schema: u32) -> Result<(), StoreError> {
    table
        .insert(SCHEMA_KEY, schema.to_string().as_bytes())
        .map(drop)
        .map_err(|error| StoreError::storage(&error))
}

fn in_transaction(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(|error| StoreError::storage(&error))?;
    transaction.set_durability(Durability::Immediate).map_err(|error| StoreError::storage(&error))?;
    transaction.set_quick_repair(true);
    work(&transaction)?;
    transaction.commit().map_err(|error| StoreError::storage(&error))
}
