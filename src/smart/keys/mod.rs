//! Our signing keys: made or brought along, published as JWKS, used, and in the end retired; and who fetches that JWKS.

mod bulk;
mod fetches;
mod life;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, oneshot};

use crate::clock::Clock;
use crate::crypto::{Algorithm, Jwks, KeyError, KeyPair, KeyType, Random, read_private_key};
use crate::secret::Secret;
use crate::shutdown::Shutdown;
use crate::store::{Change, Range, Reader, Store, StoreError};

pub use fetches::{Fetcher, JwksFetches};
pub use life::{KeyStage, RotationError, SigningKey};

use bulk::{Bulk, LetGo};
use life::{Ring, SIGNING_KEYS};

/// How long caches may keep our JWKS, in seconds: short enough for a rotation, long enough for a busy EHR.
pub const JWKS_LIFE: u32 = 900;

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
    shutdown: Shutdown,
    overlap: Duration,
    loaded: Arc<RwLock<Loaded>>,
    /// What is loaded must be what was written last, so changes go one after the other.
    changing: Arc<Mutex<()>>,
    /// Signing is the dearest thing this program does; more at once than there are cores only slows all of them.
    turns: Arc<Semaphore>,
    cores: usize,
    bulk: Bulk,
}

#[derive(Debug, Default)]
struct Loaded {
    current: Vec<Arc<KeyPair>>,
    jwks: Bytes,
    kids: Arc<[String]>,
    keys: Vec<SigningKey>,
}

impl SigningKeys {
    /// Reads the keys there are. `overlap` is how long EHRs may keep a JWKS: a key is published for as long before it
    /// signs and after it signed last.
    pub fn load(
        store: Store,
        clock: Clock,
        random: Random,
        shutdown: Shutdown,
        overlap: Duration,
    ) -> Result<Self, SigningError> {
        let loaded = read(&store)?;
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self {
            store,
            clock,
            random,
            shutdown,
            overlap,
            loaded: Arc::new(RwLock::new(loaded)),
            changing: Arc::default(),
            turns: Arc::new(Semaphore::new(cores)),
            cores,
            bulk: Bulk::default(),
        })
    }

    /// Makes a current key for each algorithm that has none: RSA 2048 for RS384, P-384 for ES384.
    pub async fn ensure(&self) -> Result<(), RotationError> {
        for (algorithm, kind) in [(Algorithm::Rs384, KeyType::Rsa2048), (Algorithm::Es384, KeyType::EcP384)] {
            if self.current(algorithm).is_ok() {
                continue;
            }
            let key = self.make(kind).await?;
            self.change(move |ring| {
                let kid = key.kid.clone();
                ring.add(key)?;
                ring.activate(Some(&kid), true)
            })
            .await?;
        }
        Ok(())
    }

    /// Makes keys and publishes them as the next ones; they do not sign yet. All or none.
    pub async fn rotate(&self, types: &[KeyType]) -> Result<Vec<SigningKey>, RotationError> {
        let mut made = Vec::new();
        for key_type in types {
            made.push(self.make(*key_type).await?);
        }
        self.change(move |ring| {
            let kids = made.iter().map(|key| key.kid.clone()).collect();
            made.into_iter().try_for_each(|key| ring.add(key))?;
            Ok(kids)
        })
        .await
    }

    /// Takes a key that was made elsewhere, with the name that EHRs know it by. It becomes the next one; `known`, when the
    /// EHRs have it already, makes it sign at once.
    pub async fn import(
        &self,
        pem: Secret,
        kid: Option<String>,
        known: bool,
    ) -> Result<SigningKey, RotationError> {
        let now = self.clock.now();
        let key = off_thread(move || {
            let (der, key_type) = read_private_key(pem.expose())?;
            SigningKey::new((&der, key_type), kid.as_deref(), true, now)
        })
        .await?;
        let changed = self.change(move |ring| {
            let kid = key.kid.clone();
            ring.add(key)?;
            if known { ring.activate(Some(&kid), true) } else { Ok(vec![kid]) }
        });
        changed.await?.into_iter().next().ok_or(RotationError::NoNext)
    }

    /// Lets next keys sign from now on, the named one or all, and the current ones retire. Refused as long as EHRs may
    /// still know only the old keys, unless `force` is set.
    pub async fn activate(&self, kid: Option<String>, force: bool) -> Result<Vec<SigningKey>, RotationError> {
        self.change(move |ring| ring.activate(kid.as_deref(), force)).await
    }

    /// Takes keys out of the JWKS and erases their private halves: the named one, or every retiring one whose time has
    /// come. Refused as long as something it signed may still be checked, unless `force` is set.
    pub async fn retire(&self, kid: Option<String>, force: bool) -> Result<Vec<SigningKey>, RotationError> {
        self.change(move |ring| ring.retire(kid.as_deref(), force)).await
    }

    /// Every key there is and was with the times of its stages, newest first; private halves are left out.
    pub fn list(&self) -> Vec<SigningKey> {
        self.read_loaded().keys.clone()
    }

    /// How long a key is published before it signs and after it signed last.
    pub fn overlap(&self) -> Duration {
        self.overlap
    }

    /// Our JWKS as JSON: every key that is not retired, public members only.
    pub fn jwks(&self) -> Bytes {
        self.read_loaded().jwks.clone()
    }

    /// The `kid`s in the JWKS.
    pub fn published(&self) -> Arc<[String]> {
        Arc::clone(&self.read_loaded().kids)
    }

    /// The key that signs with this algorithm now.
    pub fn current(&self, algorithm: Algorithm) -> Result<Arc<KeyPair>, SigningError> {
        current(&self.loaded, algorithm)
    }

    /// Runs `sign` with the current key on a blocking thread, when it is its turn.
    pub async fn sign<T, F>(&self, algorithm: Algorithm, sign: F) -> Result<T, SigningError>
    where
        F: FnOnce(&KeyPair) -> Result<T, KeyError> + Send + 'static,
        T: Send + 'static,
    {
        let _turn = self.turns.acquire().await.map_err(|_| StoreError::Closed)?;
        // Chosen when it is used, so that a key that was switched away from signs nothing more.
        let key = self.current(algorithm)?;
        off_thread(move || sign(&key).map_err(SigningError::from)).await
    }

    /// [`SigningKeys::sign`] for work that comes in hundreds and that nobody waits for: several such signatures are let go
    /// together, so that what follows them can be done together.
    pub async fn sign_in_bulk<T, F>(&self, algorithm: Algorithm, sign: F) -> Result<T, SigningError>
    where
        F: FnOnce(&KeyPair) -> Result<T, KeyError> + Send + 'static,
        T: Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let loaded = Arc::clone(&self.loaded);
        let job = move || -> LetGo {
            // Who has gone away needs no signature.
            let signed =
                (!tell.is_closed()).then(|| current(&loaded, algorithm).and_then(|key| Ok(sign(&key)?)));
            Box::new(move || {
                if let Some(signed) = signed {
                    let _ = tell.send(signed);
                }
            })
        };
        if let Some(signer) = self.bulk.add(Box::new(job), self.cores) {
            let (turns, runtime) = (Arc::clone(&self.turns), tokio::runtime::Handle::current());
            tokio::task::spawn_blocking(move || signer.sign(|| runtime.block_on(turns.acquire())));
        }
        told.await.unwrap_or(Err(SigningError::Key(KeyError::SigningFailed)))
    }

    async fn make(&self, kind: KeyType) -> Result<SigningKey, RotationError> {
        let (random, now) = (self.random.clone(), self.clock.now());
        off_thread(move || {
            let der = KeyPair::generate(kind, &random)?;
            SigningKey::new((&der, kind), None, false, now)
        })
        .await
    }

    /// Carries out one change over all keys in a transaction, then uses what came of it; the keys it names. Also when whoever
    /// asked for it goes away in between: what is on disk and what is published must not part.
    async fn change<F>(&self, change: F) -> Result<Vec<SigningKey>, RotationError>
    where
        F: FnOnce(&mut Ring) -> Result<Vec<String>, RotationError> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let keys = self.clone();
        self.shutdown.spawn(async move {
            let _ = tell.send(keys.change_now(change).await);
        });
        told.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    async fn change_now<F>(&self, change: F) -> Result<Vec<SigningKey>, RotationError>
    where
        F: FnOnce(&mut Ring) -> Result<Vec<String>, RotationError> + Send + 'static,
    {
        let _alone = self.changing.lock().await;
        let (now, overlap) = (self.clock.now(), self.overlap);
        let kids = self
            .store
            .write(move |transaction| {
                let before = rows(transaction)?;
                let mut ring = Ring { keys: before.clone(), now, overlap };
                let kids = change(&mut ring)?;
                for key in ring.keys.iter().filter(|key| !before.contains(key)) {
                    put(transaction, key);
                }
                Ok::<_, RotationError>(kids)
            })
            .await?;
        let loaded = read(&self.store)?;
        let named = kids.iter().filter_map(|kid| loaded.keys.iter().find(|key| key.kid == *kid).cloned());
        let named = named.collect();
        *self.loaded.write().unwrap_or_else(std::sync::PoisonError::into_inner) = loaded;
        Ok(named)
    }

    fn read_loaded(&self) -> std::sync::RwLockReadGuard<'_, Loaded> {
        self.loaded.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn rows(reader: &impl Reader) -> Result<Vec<SigningKey>, StoreError> {
    Ok(reader.rows(SIGNING_KEYS, &Range::of(b""))?.into_iter().map(|(_, key)| key).collect())
}

fn put(change: &mut Change<'_>, key: &SigningKey) {
    let row = change.vault().digest(&[b"kid", key.kid.as_bytes()]);
    change.put(SIGNING_KEYS, &row, key);
}

fn read(store: &Store) -> Result<Loaded, SigningError> {
    let mut keys = store.read_now(|view| rows(view))?;
    keys.sort_by(|one, other| (other.created_at, &other.kid).cmp(&(one.created_at, &one.kid)));
    let mut jwks = Jwks::default();
    let mut current = Vec::new();
    for key in keys.iter().filter(|key| key.is_published()) {
        let pair = key.pair()?;
        jwks.keys.push(pair.public_jwk());
        if key.stage == KeyStage::Current {
            current.push(Arc::new(pair));
        }
    }
    let kids = jwks.keys.iter().filter_map(|key| key.kid.clone()).collect();
    let jwks = serde_json::to_vec(&jwks).expect("public keys are plain strings").into();
    Ok(Loaded { current, jwks, kids, keys: keys.iter().map(SigningKey::described).collect() })
}

fn current(loaded: &RwLock<Loaded>, algorithm: Algorithm) -> Result<Arc<KeyPair>, SigningError> {
    let loaded = loaded.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = loaded.current.iter().find(|key| key.algorithm() == algorithm);
    found.cloned().ok_or(SigningError::NoKey(algorithm))
}

async fn off_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<KeyError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(KeyError::SigningFailed.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::{MasterKey, Opening};

    #[tokio::test]
    async fn keys_whose_maker_went_away_half_way_are_published_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let opening = Opening {
            path: folder.path().join("store.redb"),
            master_key: MasterKey::generate(&Random::seeded(1)),
            cache_bytes: 1 << 20,
            create: true,
        };
        let store = Store::open(&opening, Random::seeded(2)).expect("a store");
        let clock = Clock::manual(Timestamp::from_seconds(1_000));
        let shutdown = Shutdown::default();
        let overlap = Duration::from_hours(24);
        let keys = SigningKeys::load(store.clone(), clock, Random::system(), shutdown.clone(), overlap);
        let keys = keys.expect("read");
        let key = keys.make(KeyType::EcP256).await.expect("a key");
        let kid = key.kid.clone();
        {
            let mut adding = std::pin::pin!(keys.change(move |ring| {
                let kid = key.kid.clone();
                ring.add(key)?;
                Ok(vec![kid])
            }));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(adding.as_mut().poll(&mut context).is_pending(), "it waits for the disk");
        }
        assert!(shutdown.drained(Duration::from_mins(1)).await);
        // Whatever was waiting is on disk after this.
        store.write(|_| Ok::<_, StoreError>(())).await.expect("written");
        assert_eq!(read(&store).expect("read").keys.len(), 1, "on disk");
        assert_eq!(*keys.published(), [kid], "and published");
    }
}
