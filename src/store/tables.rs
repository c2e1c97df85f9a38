//! Every table there is, in one place. A name carries its version; a new format is a new table and a migration.

use std::marker::PhantomData;

use redb::TableDefinition;

/// A table of sealed values of type `V` under opaque byte keys.
pub struct Table<V> {
    name: &'static str,
    value: PhantomData<fn() -> V>,
}

impl<V> Table<V> {
    /// Declares a table. Keys must tell nothing: ids of ours, or digests made by [`crate::store::Vault::digest`].
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: PhantomData }
    }

    /// The name on disk, which is part of what seals its values.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Table<V> {}

impl<V> std::fmt::Debug for Table<V> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)
    }
}

/// On disk every table maps bytes to bytes, so that redb's own types never matter to an upgrade.
pub(super) const fn definition(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

/// The one table that is not sealed: schema version, wrapped keys, and how far a change of keys is.
pub(super) const META: TableDefinition<'_, &'static [u8], &'static [u8]> = definition(META_NAME);
pub(super) const META_NAME: &str = "meta.v1";
