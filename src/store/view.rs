//! Reading: a snapshot, and what reading looks like wherever it happens.

use std::cell::RefCell;
use std::ops::Bound;
use std::rc::Rc;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata as _, TableError, TableHandle as _};

use crate::store::tables::{META_NAME, definition};
use crate::store::{StoreError, Table, Value, Vault};

/// Is handed one sealed row after the other, and says whether it wants more.
pub type TakeRow<'f> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'f;

/// Lowest and highest key of a range.
type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Which way a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first: oldest first where keys are ids.
    Ascending,
    /// Largest key first.
    Descending,
}

/// The sealed bytes of a row, or that there was none. Each sealing has a nonce of its own, so a row whose bytes are the same
/// was not written since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(Option<Vec<u8>>);

/// A part of a table: all keys that begin with a prefix, optionally only those beyond a key.
#[derive(Debug, Clone)]
pub struct Range<'k> {
    prefix: &'k [u8],
    beyond: Option<Vec<u8>>,
    order: Order,
    limit: usize,
}

impl<'k> Range<'k> {
    /// All keys that begin with `prefix`.
    pub fn of(prefix: &'k [u8]) -> Self {
        Self { prefix, beyond: None, order: Order::Ascending, limit: usize::MAX }
    }

    /// Reads from the largest key down.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.order = Order::Descending;
        self
    }

    /// Leaves out everything up to and including this key, in the direction of reading.
    #[must_use]
    pub fn beyond(mut self, key: Option<Vec<u8>>) -> Self {
        self.beyond = key;
        self
    }

    /// At most this many.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    pub(super) fn order(&self) -> Order {
        self.order
    }

    pub(super) fn most(&self) -> usize {
        self.limit
    }

    /// The bounds as redb and `BTreeMap` understand them; `None` when nothing can be inside.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let mut low = Bound::Included(self.prefix.to_vec());
        let mut high = after_prefix(self.prefix);
        if let Some(key) = &self.beyond {
            let inside = key.as_slice() >= self.prefix && key.starts_with(self.prefix);
            match (self.order, inside) {
                (Order::Ascending, true) => low = Bound::Excluded(key.clone()),
                (Order::Descending, true) => high = Bound::Excluded(key.clone()),
                (Order::Ascending, false) if key.as_slice() > self.prefix => return None,
                (Order::Descending, false) if key.as_slice() < self.prefix => return None,
                (Order::Ascending | Order::Descending, false) => {}
            }
        }
        let empty = match (&low, &high) {
            (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high)) => low >= high,
            _ => false,
        };
        (!empty).then_some((low, high))
    }
}

/// The first key that no longer begins with `prefix`.
fn after_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < 255 {
            key.push(last + 1);
            return Bound::Excluded(key);
        }
    }
    Bound::Unbounded
}

/// Reading from a snapshot or from inside a write: the same words for both.
pub trait Reader {
    /// The sealed bytes under a key.
    fn raw(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// The sealed rows of a range, as long as `take` wants more.
    fn raw_rows(
        &self,
        table: &'static str,
        range: &Range<'_>,
        take: &mut TakeRow<'_>,
    ) -> Result<(), StoreError>;
    /// The keys to open values with.
    fn vault(&self) -> &Vault;

    /// The value under a key.
    fn get<V: Value>(&self, table: Table<V>, key: &[u8]) -> Result<Option<V>, StoreError>
    where
        Self: Sized,
    {
        let sealed = self.raw(table.name(), key)?;
        sealed.map(|sealed| self.vault().open(table, key, &sealed)).transpose()
    }

    /// What is under a key now, to be compared later without opening it.
    fn mark<V: Value>(&self, table: Table<V>, key: &[u8]) -> Result<Mark, StoreError>
    where
        Self: Sized,
    {
        Ok(Mark(self.raw(table.name(), key)?))
    }

    /// The value under a key with its mark.
    fn get_marked<V: Value>(&self, table: Table<V>, key: &[u8]) -> Result<(Option<V>, Mark), StoreError>
    where
        Self: Sized,
    {
        let mark = self.mark(table, key)?;
        let value = mark.0.as_ref().map(|sealed| self.vault().open(table, key, sealed)).transpose()?;
        Ok((value, mark))
    }

    /// Whether there is a value under a key.
    fn has<V: Value>(&self, table: Table<V>, key: &[u8]) -> Result<bool, StoreError>
    where
        Self: Sized,
    {
        Ok(self.raw(table.name(), key)?.is_some())
    }

    /// The rows of a range.
    fn rows<V: Value>(&self, table: Table<V>, range: &Range<'_>) -> Result<Vec<(Vec<u8>, V)>, StoreError>
    where
        Self: Sized,
    {
        let mut found = Vec::new();
        self.each(table, range, |key, value| {
            found.push((key.to_vec(), value));
            Ok(true)
        })?;
        Ok(found)
    }

    /// Hands the rows of a range to `take` one by one, until it answers `false`.
    fn each<V: Value>(
        &self,
        table: Table<V>,
        range: &Range<'_>,
        mut take: impl FnMut(&[u8], V) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError>
    where
        Self: Sized,
    {
        self.raw_rows(table.name(), range, &mut |key, sealed| {
            take(key, self.vault().open(table, key, sealed)?)
        })
    }

    /// The keys of a range; nothing is opened.
    fn keys<V: Value>(&self, table: Table<V>, range: &Range<'_>) -> Result<Vec<Vec<u8>>, StoreError>
    where
        Self: Sized,
    {
        let mut found = Vec::new();
        self.raw_rows(table.name(), range, &mut |key, _| {
            found.push(key.to_vec());
            Ok(true)
        })?;
        Ok(found)
    }
}

/// A table to read from; `None` for one that no write has made yet.
type Opened = Option<Rc<ReadOnlyTable<&'static [u8], &'static [u8]>>>;

/// A consistent snapshot.
pub struct View<'t> {
    transaction: &'t ReadTransaction,
    vault: &'t Vault,
    /// Each opened once: opening looks a table's name up on disk.
    open: RefCell<Vec<(&'static str, Opened)>>,
}

impl<'t> View<'t> {
    pub(super) fn new(transaction: &'t ReadTransaction, vault: &'t Vault) -> Self {
        Self { transaction, vault, open: RefCell::default() }
    }
}

impl View<'_> {
    /// A table that no write has made yet is an empty table.
    fn table(&self, name: &'static str) -> Result<Opened, StoreError> {
        if let Some((_, table)) = self.open.borrow().iter().find(|(known, _)| *known == name) {
            return Ok(table.clone());
        }
        let table = match self.transaction.open_table(definition(name)) {
            Ok(table) => Some(Rc::new(table)),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(StoreError::storage(&error)),
        };
        self.open.borrow_mut().push((name, table.clone()));
        Ok(table)
    }

    /// The names of all tables of sealed values.
    pub(super) fn tables(&self) -> Result<Vec<String>, StoreError> {
        let tables = self.transaction.list_tables().map_err(|error| StoreError::storage(&error))?;
        let names = tables.map(|table| table.name().to_owned()).filter(|name| name != META_NAME);
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// How many rows a table has.
    pub(super) fn count(&self, table: &str) -> Result<u64, StoreError> {
        let table = self.transaction.open_table(definition(table));
        let table = table.map_err(|error| StoreError::storage(&error))?;
        table.len().map_err(|error| StoreError::storage(&error))
    }

    /// Hands the sealed rows of a table beyond a key to `take`, as long as it wants more; says whether there were more.
    pub(super) fn scan(
        &self,
        table: &str,
        beyond: Option<&[u8]>,
        take: &mut TakeRow<'_>,
    ) -> Result<bool, StoreError> {
        let table = self.transaction.open_table(definition(table));
        let table = table.map_err(|error| StoreError::storage(&error))?;
        let bounds = (beyond.map_or(Bound::Unbounded, Bound::Excluded), Bound::<&[u8]>::Unbounded);
        let rows = table.range::<&[u8]>(bounds).map_err(|error| StoreError::storage(&error))?;
        for row in rows {
            let (key, value) = row.map_err(|error| StoreError::storage(&error))?;
            if !take(key.value(), value.value())? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Reader for View<'_> {
    fn raw(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(table) = self.table(table)? else { return Ok(None) };
        let found = table.get(key).map_err(|error| StoreError::storage(&error))?;
        Ok(found.map(|guard| guard.value().to_vec()))
    }

    fn raw_rows(
        &self,
        table: &'static str,
        range: &Range<'_>,
        take: &mut TakeRow<'_>,
    ) -> Result<(), StoreError> {
        let Some(table) = self.table(table)? else { return Ok(()) };
        let Some((low, high)) = range.bounds() else { return Ok(()) };
        let mut rows = table
            .range::<&[u8]>((as_slice(&low), as_slice(&high)))
            .map_err(|error| StoreError::storage(&error))?;
        for _ in 0..range.most() {
            let row = match range.order() {
                Order::Ascending => rows.next(),
                Order::Descending => rows.next_back(),
            };
            let Some(row) = row else { break };
            let (key, value) = row.map_err(|error| StoreError::storage(&error))?;
            if !take(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }

    fn vault(&self) -> &Vault {
        self.vault
    }
}

pub(super) fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key.as_slice()),
        Bound::Excluded(key) => Bound::Excluded(key.as_slice()),
        Bound::Unbounded => Bound::Unbounded,
    }
}
