//! Our signing keys: one current key an algorithm, all of them published as JWKS.

use std::sync::{Arc, RwLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::clock::{Clock, Timestamp};
use crate::crypto::{Algorithm, Jwks, KeyError, KeyPair, KeyType, Random, base64url, from_base64url};
use crate::secret::Secret;
use crate::store::{Range, Reader, Store, StoreError, Table, json_value};

/// Keys by the digest of their `kid`.
const SIGNING_KEYS: Table<SigningKey> = Table::new("signing_keys.v1");

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStage {
    /// Published, not yet used.
    Next,
    /// Signs.
    Current,
    /// Published for those who still check older signatures, no longer used.
    Retiring,
    /// No longer published.
    Retired,
}

/// A signing key as it is kept, sealed like everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// What it is.
    pub kind: KeyType,
    /// PKCS#8 DER in base64url.
    private_key: Secret,
    /// Where it is in its life.
    pub stage: KeyStage,
    /// When it was made.
    pub created_at: Timestamp,
}
json_value!(SigningKey);

/// Why a signature could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SigningError {
    /// There is no current key for the algorithm.
    #[error("there is no current signing key for {0:?}; make one with `chartgate init`")]
    NoKey(Algorithm),
    /// The key is damaged.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The keys of this box. Clones share them.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    store: Store,
    clock: Clock,
    random: Random,
    loaded: Arc<RwLock<Loaded>>,
    /// Signing is the dearest thing this program does; more at once than there are cores only slows all of them.
    turns: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Loaded {
    current: Vec<Arc<KeyPair>>,
    jwks: Bytes,
}

impl SigningKeys {
    /// Reads the keys there are.
    pub fn load(store: Store, clock: Clock, random: Random) -> Result<Self, SigningError> {
        let loaded = read(&store)?;
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self {
            store,
            clock,
            random,
            loaded: Arc::new(RwLock::new(loaded)),
            turns: Arc::new(Semaphore::new(cores)),
        })
    }

    /// Makes a current key for each algorithm that has none: RSA 2048 for RS384, P-384 for ES384.
    pub async fn ensure(&self) -> Result<(), SigningError> {
        for (algorithm, kind) in [(Algorithm::Rs384, KeyType::Rsa2048), (Algorithm::Es384, KeyType::EcP384)] {
            if self.current(algorithm).is_ok() {
                continue;
            }
            let random = self.random.clone();
            let der = off_thread(move || KeyPair::generate(kind, &random)).await?;
            let key = SigningKey {
                kid: KeyPair::from_pkcs8(&der)?.kid().to_owned(),
                kind,
                private_key: Secret::new(base64url(&der)),
                stage: KeyStage::Current,
                created_at: self.clock.now(),
            };
            self.store
                .write(move |change| {
                    let row = change.vault().digest(&[b"kid", key.kid.as_bytes()]);
                    change.put(SIGNING_KEYS, &row, &key);
                    Ok::<_, StoreError>(())
                })
                .await?;
            let loaded = read(&self.store)?;
            *self.loaded.write().unwrap_or_else(std::sync::PoisonError::into_inner) = loaded;
        }
        Ok(())
    }

    /// Our JWKS as JSON: every key that is not retired, public members only.
    pub fn jwks(&self) -> Bytes {
        self.read_loaded().jwks.clone()
    }

    /// The key that signs with this algorithm now.
    pub fn current(&self, algorithm: Algorithm) -> Result<Arc<KeyPair>, SigningError> {
        let loaded = self.read_loaded();
        let found = loaded.current.iter().find(|key| key.algorithm() == algorithm);
        found.cloned().ok_or(SigningError::NoKey(algorithm))
    }

    /// Runs `sign` with the current key on a blocking thread, when it is its turn.
    pub async fn sign<T, F>(&self, algorithm: Algorithm, sign: F) -> Result<T, SigningError>
    where
        F: FnOnce(&KeyPair) -> Result<T, KeyError> + Send + 'static,
        T: Send + 'static,
    {
        let key = self.current(algorithm)?;
        let _turn = self.turns.acquire().await.map_err(|_| StoreError::Closed)?;
        Ok(off_thread(move || sign(&key)).await?)
    }

    fn read_loaded(&self) -> std::sync::RwLockReadGuard<'_, Loaded> {
        self.loaded.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn read(store: &Store) -> Result<Loaded, SigningError> {
    let keys = store.read_now(|view| view.rows(SIGNING_KEYS, &Range::of(b"")))?;
    let mut published: Vec<SigningKey> =
        keys.into_iter().map(|(_, key)| key).filter(|key| key.stage != KeyStage::Retired).collect();
    published.sort_by_key(|key| std::cmp::Reverse(key.created_at));
    let mut jwks = Jwks::default();
    let mut current = Vec::new();
    for key in published {
        let der = from_base64url(key.private_key.expose()).ok_or(StoreError::Damaged("signing_keys.v1"))?;
        let pair = KeyPair::from_pkcs8(&der)?;
        jwks.keys.push(pair.public_jwk());
        if key.stage == KeyStage::Current {
            current.push(Arc::new(pair));
        }
    }
    let jwks = serde_json::to_vec(&jwks).expect("public keys are plain strings").into();
    Ok(Loaded { current, jwks })
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KeyError::SigningFailed))
}
