//! The keys under which everything is kept: a master key from outside wraps the data keys inside the store.
//!
//! A sealed value is: format (1 byte), data key id (4 bytes), nonce, ciphertext, tag. Table name, row key and data key
//! id are authenticated with it, so a value moved to another row does not open.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::{Random, SealingKey, base64url, from_base64url, hmac_sha256};
use crate::store::{StoreError, Table, Value};

const FORMAT: u8 = 1;
const WRAP_PLACE: &[u8] = b"chartgate keyring v1";

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
pub struct Vault {
    keys: BTreeMap<u32, SealingKey>,
    current: u32,
    digests: Zeroizing<[u8; 32]>,
    random: Random,
}

/// What the store keeps of the vault, each key wrapped by the master key.
#[derive(Serialize, Deserialize)]
pub(super) struct Keyring {
    current: u32,
    keys: BTreeMap<u32, String>,
    digests: String,
}

/// The master key does not open this store's key ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongMasterKey;

impl std::fmt::Debug for Vault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Vault(data key {} of {})", self.current, self.keys.len())
    }
}

impl Vault {
    /// New keys for a new store.
    pub(super) fn create(master: &SealingKey, random: Random) -> (Self, Keyring) {
        let data = Zeroizing::new(random.bytes::<32>());
        let digests = Zeroizing::new(random.bytes::<32>());
        let wrap = |key: &[u8; 32], name: &str| base64url(&master.seal(&place_of(name), key, &random));
        let keyring = Keyring {
            current: 1,
            keys: BTreeMap::from([(1, wrap(&data, "1"))]),
            digests: wrap(&digests, "digests"),
        };
        let keys = BTreeMap::from([(1, SealingKey::new(&data))]);
        (Self { keys, current: 1, digests, random }, keyring)
    }

    /// Unwraps the keys of an existing store.
    pub(super) fn unlock(
        master: &SealingKey,
        keyring: &Keyring,
        random: Random,
    ) -> Result<Self, WrongMasterKey> {
        let unwrap = |wrapped: &str, name: &str| -> Result<Zeroizing<[u8; 32]>, WrongMasterKey> {
            let sealed = from_base64url(wrapped).ok_or(WrongMasterKey)?;
            let plain = master.open(&place_of(name), &sealed).map_err(|_| WrongMasterKey)?;
            plain.as_slice().try_into().map(Zeroizing::new).map_err(|_| WrongMasterKey)
        };
        let mut keys = BTreeMap::new();
        for (id, wrapped) in &keyring.keys {
            keys.insert(*id, SealingKey::new(&*unwrap(wrapped, &id.to_string())?));
        }
        if !keys.contains_key(&keyring.current) {
            return Err(WrongMasterKey);
        }
        Ok(Self { keys, current: keyring.current, digests: unwrap(&keyring.digests, "digests")?, random })
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
        let mut out = Vec::with_capacity(5 + plain.len() + SealingKey::OVERHEAD);
        out.push(FORMAT);
        out.extend_from_slice(&self.current.to_be_bytes());
        let data_key = self.keys.get(&self.current).expect("the current key is always in the vault");
        data_key.seal_into(&mut out, &place(table.name(), key, self.current), &plain, &self.random);
        Sealed(out)
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

    /// Opens what [`Vault::seal`] made for this row.
    pub(super) fn open<V: Value>(&self, table: Table<V>, key: &[u8], sealed: &[u8]) -> Result<V, StoreError> {
        let damaged = || StoreError::Damaged(table.name());
        let (head, rest) = sealed.split_at_checked(5).ok_or_else(damaged)?;
        let id = u32::from_be_bytes(head[1..].try_into().map_err(|_| damaged())?);
        if head[0] != FORMAT {
            return Err(damaged());
        }
        let data_key = self.keys.get(&id).ok_or_else(damaged)?;
        let plain = data_key.open(&place(table.name(), key, id), rest).map_err(|_| damaged())?;
        V::decode(&plain).ok_or_else(damaged)
    }
}

fn place(table: &str, key: &[u8], data_key: u32) -> Vec<u8> {
    let mut place = Vec::with_capacity(table.len() + key.len() + 5);
    place.extend_from_slice(table.as_bytes());
    place.push(0);
    place.extend_from_slice(key);
    place.extend_from_slice(&data_key.to_be_bytes());
    place
}

fn place_of(name: &str) -> Vec<u8> {
    [WRAP_PLACE, b"/", name.as_bytes()].concat()
}
