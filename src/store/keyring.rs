//! What the store keeps of its keys: data keys and the digest key, each wrapped by the master key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::crypto::{Random, SealingKey, base64url, from_base64url};

const WRAP_PLACE: &[u8] = b"chartgate keyring v1";

/// 32 bytes of key, wiped from memory when dropped.
pub(super) type RawKey = Zeroizing<[u8; 32]>;

/// The key ring as it stands in `meta.v1`.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Keyring {
    /// The data key that seals new values.
    pub(super) current: u32,
    /// Data keys by id; more than one while values are sealed anew.
    keys: BTreeMap<u32, String>,
    /// The key of the row digests. It stays for the life of the store, because rows are found by those digests.
    digests: String,
    /// Since when the current data key is the current one; `None` in a store that never changed it.
    #[serde(default)]
    pub(super) current_since: Option<Timestamp>,
    /// The last change of the master key.
    #[serde(default)]
    pub(super) master: Option<MasterChange>,
}

/// What is told to somebody whose master key does not open the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterChange {
    /// When the master key was changed last.
    pub at: Timestamp,
    /// Where the new one was written to.
    pub written_to: String,
}

/// Why a key ring was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnwrapError {
    /// No key of the ring opens with this master key.
    WrongMasterKey,
    /// The ring does not hold together, whatever the master key.
    Damaged,
}

/// The keys of a ring, unwrapped.
pub(super) struct Unwrapped {
    pub(super) data: BTreeMap<u32, RawKey>,
    pub(super) digests: RawKey,
}

impl Keyring {
    /// New keys for a new store.
    pub(super) fn create(master: &SealingKey, random: &Random) -> (Self, Unwrapped) {
        let keys = Unwrapped {
            data: BTreeMap::from([(1, Zeroizing::new(random.bytes()))]),
            digests: Zeroizing::new(random.bytes()),
        };
        (Self::wrap(&keys, 1, master, random), keys)
    }

    fn wrap(keys: &Unwrapped, current: u32, master: &SealingKey, random: &Random) -> Self {
        let wrap =
            |key: &RawKey, name: &str| base64url(&master.seal(&place_of(name), key.as_slice(), random));
        Self {
            current,
            keys: keys.data.iter().map(|(id, key)| (*id, wrap(key, &id.to_string()))).collect(),
            digests: wrap(&keys.digests, "digests"),
            current_since: None,
            master: None,
        }
    }

    /// Opens every key of the ring.
    pub(super) fn unwrap(&self, master: &SealingKey) -> Result<Unwrapped, UnwrapError> {
        let mut opened = 0;
        let mut unwrap = |wrapped: &str, name: &str| -> Result<Option<RawKey>, UnwrapError> {
            let sealed = from_base64url(wrapped).ok_or(UnwrapError::Damaged)?;
            let Ok(plain) = master.open(&place_of(name), &sealed) else { return Ok(None) };
            opened += 1;
            plain.as_slice().try_into().map(|key| Some(Zeroizing::new(key))).map_err(|_| UnwrapError::Damaged)
        };
        let digests = unwrap(&self.digests, "digests")?;
        let mut data = BTreeMap::new();
        for (id, wrapped) in &self.keys {
            data.insert(*id, unwrap(wrapped, &id.to_string())?);
        }
        let whole: Option<BTreeMap<u32, RawKey>> =
            data.into_iter().map(|(id, key)| Some((id, key?))).collect();
        match (whole, digests) {
            (Some(data), Some(digests)) if data.contains_key(&self.current) => {
                Ok(Unwrapped { data, digests })
            }
            // The right master key opens all of them, a wrong one none.
            _ if opened == 0 => Err(UnwrapError::WrongMasterKey),
            _ => Err(UnwrapError::Damaged),
        }
    }

    /// The same keys under another master key.
    pub(super) fn rewrapped(
        &self,
        old: &SealingKey,
        new: &SealingKey,
        change: MasterChange,
        random: &Random,
    ) -> Result<Self, UnwrapError> {
        let wrapped = Self::wrap(&self.unwrap(old)?, self.current, new, random);
        Ok(Self { current_since: self.current_since, master: Some(change), ..wrapped })
    }

    /// The ring with one more data key, which becomes the current one.
    pub(super) fn with_new_key(
        &self,
        master: &SealingKey,
        now: Timestamp,
        random: &Random,
    ) -> Result<(Self, Unwrapped), UnwrapError> {
        let mut keys = self.unwrap(master)?;
        // Ids are never used twice: the current one is always the highest.
        let id = self.current + 1;
        keys.data.insert(id, Zeroizing::new(random.bytes()));
        let wrapped = Self::wrap(&keys, id, master, random);
        Ok((Self { current_since: Some(now), master: self.master.clone(), ..wrapped }, keys))
    }

    /// The ring without the data keys before the current one.
    pub(super) fn without_old_keys(mut self) -> Self {
        self.keys.retain(|id, _| *id == self.current);
        self
    }

    /// How many data keys there are.
    pub(super) fn data_keys(&self) -> usize {
        self.keys.len()
    }
}

fn place_of(name: &str) -> Vec<u8> {
    [WRAP_PLACE, b"/", name.as_bytes()].concat()
}
