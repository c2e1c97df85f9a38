//! Writing: what one write has changed so far, laid over the transaction it will become part of.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use redb::{ReadableTable as _, WriteTransaction};

use crate::store::tables::{META_NAME, definition};
use crate::store::vault::Unreadable;
use crate::store::view::{TakeRow, as_slice};
use crate::store::{Order, Range, Reader, Sealed, StoreError, Table, Value, Vault};

type BytesTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// The tables of one transaction, each opened once.
pub(super) struct OpenTables<'t> {
    transaction: &'t WriteTransaction,
    open: RefCell<BTreeMap<String, BytesTable<'t>>>,
}

impl<'t> OpenTables<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, open: RefCell::default() }
    }

    fn with<T>(
        &self,
        name: &str,
        work: impl FnOnce(&mut BytesTable<'t>) -> Result<T, redb::StorageError>,
    ) -> Result<T, StoreError> {
        let mut open = self.open.borrow_mut();
        if !open.contains_key(name) {
            let table =
                self.transaction.open_table(definition(name)).map_err(|error| StoreError::storage(&error))?;
            open.insert(name.to_owned(), table);
        }
        let table = open.get_mut(name).expect("opened above");
        work(table).map_err(|error| StoreError::storage(&error))
    }
}

/// The tables of a transaction without its lifetime, which no caller of a write has a name for.
pub(super) trait RawTables {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    fn range(
        &self,
        table: &str,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        limit: usize,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError>;
    fn set(&self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError>;
}

impl RawTables for OpenTables<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(table, |table| Ok(table.get(key)?.map(|guard| guard.value().to_vec())))
    }

    fn range(
        &self,
        table: &str,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        limit: usize,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        self.with(table, |table| {
            let mut rows = BTreeMap::new();
            let mut stored = table.range::<&[u8]>(bounds)?;
            for _ in 0..limit {
                let row = if order == Order::Ascending { stored.next() } else { stored.next_back() };
                let Some(row) = row else { break };
                let (key, value) = row?;
                rows.insert(key.value().to_vec(), value.value().to_vec());
            }
            Ok(rows)
        })
    }

    fn set(&self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        self.with(table, |table| match value {
            Some(value) => table.insert(key, value).map(drop),
            None => table.remove(key).map(drop),
        })
    }
}

/// A row by table and key.
type RowName = (Cow<'static, str>, Vec<u8>);

/// One write's view of the store: reads see what this write has put and removed.
///
/// Nothing reaches the transaction before the write has succeeded, so a write that fails leaves no trace in the
/// batch it shares with others.
pub struct Change<'c> {
    tables: &'c dyn RawTables,
    vault: &'c Vault,
    changed: BTreeMap<RowName, Option<Vec<u8>>>,
    afterwards: Vec<Afterwards>,
}

/// What sealing rows anew has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Renewed {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) unreadable: u64,
}

/// What is done once a write is on disk.
pub(super) type Afterwards = Box<dyn FnOnce() + Send>;

impl<'c> Change<'c> {
    pub(super) fn new(tables: &'c dyn RawTables, vault: &'c Vault) -> Self {
        Self { tables, vault, changed: BTreeMap::new(), afterwards: Vec::new() }
    }

    /// Has `then` run once this write is on disk, and not at all when it does not get there: how background work is
    /// woken for what was written. It runs on the committer's thread, so it only signals.
    pub fn after_commit(&mut self, then: impl FnOnce() + Send + 'static) {
        self.afterwards.push(Box::new(then));
    }

    /// Puts a value under a key, over whatever was there.
    pub fn put<V: Value>(&mut self, table: Table<V>, key: &[u8], value: &V) {
        let sealed = self.vault.seal(table, key, value);
        self.put_sealed(table, key, sealed);
    }

    /// Puts a value that [`Vault::seal`] sealed for this table and key.
    pub fn put_sealed<V: Value>(&mut self, table: Table<V>, key: &[u8], sealed: Sealed) {
        self.changed.insert((table.name().into(), key.to_vec()), Some(sealed.0));
    }

    /// Removes what is under a key; nothing there is no error.
    pub fn remove<V: Value>(&mut self, table: Table<V>, key: &[u8]) {
        self.changed.insert((table.name().into(), key.to_vec()), None);
    }

    /// Removes everything whose key begins with `prefix`; says how many rows that were.
    pub fn remove_all<V: Value>(&mut self, table: Table<V>, prefix: &[u8]) -> Result<usize, StoreError> {
        let keys = self.keys(table, &Range::of(prefix))?;
        for key in &keys {
            self.remove(table, key);
        }
        Ok(keys.len())
    }

    /// Puts a row of the store's own description, which is not sealed.
    pub(super) fn put_meta(&mut self, key: &[u8], value: Vec<u8>) {
        self.changed.insert((META_NAME.into(), key.to_vec()), Some(value));
    }

    /// Seals these rows, named by table and key, with the current data key, as they stand now.
    pub(super) fn renew(&mut self, rows: &[(String, Vec<u8>)]) -> Result<Renewed, StoreError> {
        let mut renewed = Renewed::default();
        for (table, key) in rows {
            // Read inside the write: what another write has put since the key was found is what is sealed.
            let Some(sealed) = self.tables.get(table, key)? else { continue };
            match self.vault.renew(table, key, &sealed) {
                Ok(None) => {}
                Ok(Some(new)) => {
                    renewed.rows += 1;
                    renewed.bytes += new.len() as u64;
                    self.changed.insert((table.clone().into(), key.clone()), Some(new));
                }
                Err(Unreadable) => renewed.unreadable += 1,
            }
        }
        Ok(renewed)
    }

    /// Brings values that were sealed before the data key changed under the current one, so that once the key has
    /// changed nothing more is written under an old one.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        for ((table, key), value) in &mut self.changed {
            let Some(sealed) = value else { continue };
            if *table == META_NAME {
                continue;
            }
            match self.vault.renew(table, key, sealed) {
                Ok(None) => {}
                Ok(Some(new)) => *sealed = new,
                Err(Unreadable) => {
                    return Err(StoreError::Storage(
                        "a value was sealed by a data key that is gone".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Hands the changes to the transaction; says whether there were any, and what is to be done afterwards.
    pub(super) fn apply(self) -> Result<(bool, Vec<Afterwards>), StoreError> {
        let any = !self.changed.is_empty();
        for ((table, key), value) in self.changed {
            self.tables.set(&table, &key, value.as_deref())?;
        }
        Ok((any, self.afterwards))
    }
}

impl Reader for Change<'_> {
    fn raw(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(changed) = self.changed.get(&(table.into(), key.to_vec())) {
            return Ok(changed.clone());
        }
        self.tables.get(table, key)
    }

    fn raw_rows(
        &self,
        table: &'static str,
        range: &Range<'_>,
        take: &mut TakeRow<'_>,
    ) -> Result<(), StoreError> {
        let Some((low, high)) = range.bounds() else { return Ok(()) };
        let inside = |key: &[u8]| RangeBounds::<[u8]>::contains(&(as_slice(&low), as_slice(&high)), key);
        // What this write changed inside the range; removals included, since they hide rows of the table.
        let mut changed: BTreeMap<&[u8], Option<&[u8]>> = self
            .changed
            .iter()
            .filter(|((name, key), _)| *name == table && inside(key))
            .map(|((_, key), value)| (key.as_slice(), value.as_deref()))
            .collect();
        // A write reads short ranges (one patient's, one session's), so its rows are gathered before they are handed out.
        let limit = range.most().saturating_add(changed.len());
        let mut rows = self.tables.range(table, (as_slice(&low), as_slice(&high)), range.order(), limit)?;
        while let Some((key, value)) = changed.pop_first() {
            match value {
                Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                None => rows.remove(key),
            };
        }
        let mut wanted = range.most();
        while wanted > 0 {
            let row = if range.order() == Order::Ascending { rows.pop_first() } else { rows.pop_last() };
            let Some((key, value)) = row else { break };
            wanted -= 1;
            if !take(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    fn vault(&self) -> &Vault {
        self.vault
    }
}
