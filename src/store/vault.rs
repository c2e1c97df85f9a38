//! The keys under which everything is kept: a master key from outside wraps the data keys inside the store.
//!
//! A sealed value is: format (1 byte), data key id (4 bytes), nonce, ciphertext, tag. Table name, row key and data key
//! id are authenticated with it, so a value moved to another row does not open.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use zeroize::Zeroizing;

use crate::crypto::{Random, SealingKey, hmac_sha256};
use crate::store::keyring::{RawKey, Unwrapped};
use crate::store::{StoreError, Table, Value};

const FORMAT: u8 = 1;

/// A sealed value, ready to be written under the key it was sealed for.
#[derive(Debug, Clone)]
pub struct Sealed(pub(super) Vec<u8>);

impl Sealed {
    /// The bytes, for a place outside the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its size on disk, in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

/// Data keys in use, and the key of the row digests.
///
/// Data keys can change while the program runs; each call uses the ones of its moment. What is sealed for a place outside
/// the store opens as long as its key is kept: see [`crate::store::DataKeyRotation`].
pub struct Vault {
    keys: RwLock<DataKeys>,
    digests: RawKey,
    random: Random,
}

struct DataKeys {
    by_id: BTreeMap<u32, SealingKey>,
    current: u32,
}

/// A sealed value that none of the keys opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

impl std::fmt::Debug for Vault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.keys();
        write!(out, "Vault(data key {} of {})", keys.current, keys.by_id.len())
    }
}

impl Vault {
    /// Takes unwrapped keys into use.
    pub(super) fn new(keys: &Unwrapped, current: u32, random: Random) -> Self {
        let data = DataKeys { by_id: sealing_keys(keys), current };
        Self { keys: RwLock::new(data), digests: keys.digests.clone(), random }
    }

    /// Uses these data keys from now on. They must be in the key ring on disk already: a value sealed by a key that a
    /// crash forgets is lost.
    pub(super) fn change_keys(&self, keys: &Unwrapped, current: u32) {
        let data = DataKeys { by_id: sealing_keys(keys), current };
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = data;
    }

    /// Forgets every data key but the current one.
    pub(super) fn forget_old_keys(&self) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let current = keys.current;
        keys.by_id.retain(|id, _| *id == current);
    }

    /// Whether there are data keys besides the current one.
    pub(super) fn has_old_keys(&self) -> bool {
        self.keys().by_id.len() > 1
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    /// The data key that seals now.
    pub(super) fn current_key(&self) -> u32 {
        self.keys().current
    }

    fn keys(&self) -> RwLockReadGuard<'_, DataKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row key that tells nothing: a keyed digest of `parts`, each with its length, so that `("ab","c")` and
    /// `("a","bc")` differ. Stable for the life of the store.
    pub fn digest(&self, parts: &[&[u8]]) -> [u8; 16] {
        let full = self.long_digest(parts);
        let mut out = [0; 16];
        out.copy_from_slice(&full[..16]);
        out
    }

    /// [`Vault::digest`] in full length.
    pub fn long_digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut message = Vec::new();
        for part in parts {
            message.extend_from_slice(&(part.len() as u64).to_be_bytes());
            message.extend_from_slice(part);
        }
        hmac_sha256(&*self.digests, &message)
    }

    /// Seals a value for its row. Used by writes themselves, and before them by whoever writes many.
    pub fn seal<V: Value>(&self, table: Table<V>, key: &[u8], value: &V) -> Sealed {
        let mut plain = Zeroizing::new(Vec::new());
        value.encode(&mut plain);
        Sealed(self.keys().seal(table.name(), key, &plain, &self.random))
    }

    /// The value under the current data key; `None` when it is so already.
    pub(super) fn renew(
        &self,
        table: &str,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, Unreadable> {
        let keys = self.keys();
        if key_id(sealed) == Some(keys.current) {
            return Ok(None);
        }
        let plain = keys.open(table, key, sealed).ok_or(Unreadable)?;
        Ok(Some(keys.seal(table, key, &plain, &self.random)))
    }

    /// Opens what [`Vault::seal`] made for a place outside the store, such as a cookie.
    pub fn open_detached<V: Value>(
        &self,
        table: Table<V>,
        place: &[u8],
        sealed: &[u8],
    ) -> Result<V, StoreError> {
        self.open(table, place, sealed)
    }

    /// Whether a sealed value opens as that of a row.
    pub(super) fn opens(&self, table: &str, key: &[u8], sealed: &[u8]) -> bool {
        self.keys().open(table, key, sealed).is_some()
    }

    /// Opens what [`Vault::seal`] made for this row.
    pub(super) fn open<V: Value>(&self, table: Table<V>, key: &[u8], sealed: &[u8]) -> Result<V, StoreError> {
        let damaged = || StoreError::Damaged(table.name());
        let plain = self.keys().open(table.name(), key, sealed).ok_or_else(damaged)?;
        V::decode(&plain).ok_or_else(damaged)
    }
}

impl DataKeys {
    fn seal(&self, table: &str, key: &[u8], plain: &[u8], random: &Random) -> Vec<u8> {
        let mut out = Vec::with_capacity(5 + plain.len() + SealingKey::OVERHEAD);
        out.push(FORMAT);
        out.extend_from_slice(&self.current.to_be_bytes());
        let data_key = self.by_id.get(&self.current).expect("the current key is always in the vault");
        data_key.seal_into(&mut out, &place(table, key, self.current), plain, random);
        out
    }

    fn open(&self, table: &str, key: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let id = key_id(sealed)?;
        self.by_id.get(&id)?.open(&place(table, key, id), &sealed[5..]).ok()
    }
}

/// Which data key sealed a value; `None` for what is no sealed value.
pub(super) fn key_id(sealed: &[u8]) -> Option<u32> {
    let (head, _) = sealed.split_at_checked(5)?;
    (head[0] == FORMAT).then(|| u32::from_be_bytes([head[1], head[2], head[3], head[4]]))
}

fn sealing_keys(keys: &Unwrapped) -> BTreeMap<u32, SealingKey> {
    keys.data.iter().map(|(id, key)| (*id, SealingKey::new(key))).collect()
}

fn place(table: &str, key: &[u8], data_key: u32) -> Vec<u8> {
    let mut place = Vec::with_capacity(table.len() + key.len() + 5);
    place.extend_from_slice(table.as_bytes());
    place.push(0);
    place.extend_from_slice(key);
    place.extend_from_slice(&data_key.to_be_bytes());
    place
}
