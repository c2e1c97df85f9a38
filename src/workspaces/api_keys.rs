//! API keys: shown once, stored as a digest, checked in memory after the first use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::config::Environment;
use crate::crypto::{Random, sha256};
use crate::id::{ApiKeyId, Id as _, WorkspaceId};
use crate::secret::Secret;
use crate::shutdown::Shutdown;
use crate::store::{Range, Reader, Store, StoreError, Table, json_value};
use crate::workspaces::Workspace;
use crate::workspaces::key_scope::{KeyScope, KeyScopes};
use crate::workspaces::resource_type::{KeyTypes, ResourceType};

const API_KEYS: Table<ApiKey> = Table::new("api_keys.v1");
const API_KEYS_BY_WORKSPACE: Table<[u8; 32]> = Table::new("api_keys_by_workspace.v1");
/// When a key was last used, under workspace and key id. Apart from the key, so that noting a use never writes over a
/// revocation.
const API_KEY_USES: Table<Timestamp> = Table::new("api_key_uses.v1");
/// A key's use is written at most so often; in between it is in memory.
const USE_NOTED_EVERY: Duration = Duration::from_mins(1);
/// What keys were made for before they carried a version of their own.
const FIRST_VERSION: &str = "2026-04-25";

/// What is known of a key; the key itself is not stored. A high-entropy key needs no password hash: its SHA-256 is
/// the row's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// For people and for revoking.
    pub id: ApiKeyId,
    /// Whose data it opens.
    pub workspace: WorkspaceId,
    /// The workspace's environment, which is also in the key's own prefix.
    pub environment: Environment,
    /// What its owner called it.
    pub name: String,
    /// The first characters, so that a key can be recognised in a list.
    pub hint: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused, if it ends.
    pub expires_at: Option<Timestamp>,
    /// Since when it is revoked.
    pub revoked_at: Option<Timestamp>,
    /// What it may do; without a list, everything.
    #[serde(default)]
    pub scopes: Option<Vec<KeyScope>>,
    /// Which resource types it may read, live or stored; without a list, all.
    #[serde(default)]
    pub fhir_types: Option<Vec<ResourceType>>,
    /// The version of the API for requests that name none.
    #[serde(default = "first_version")]
    pub api_version: String,
}
json_value!(ApiKey);

fn first_version() -> String {
    FIRST_VERSION.to_owned()
}

impl ApiKey {
    /// What has become of it.
    pub fn state(&self, now: Timestamp) -> ApiKeyState {
        if self.revoked_at.is_some() {
            ApiKeyState::Revoked
        } else if self.expires_at.is_some_and(|end| end <= now) {
            ApiKeyState::Expired
        } else {
            ApiKeyState::Active
        }
    }
}

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiKeyState {
    /// It can.
    Active,
    /// Somebody ended it.
    Revoked,
    /// Its time is over.
    Expired,
}

/// What is asked of a new key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewApiKeyTerms {
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// What it may do; without a list, everything.
    pub scopes: Option<Vec<KeyScope>>,
    /// Which resource types it may read, live or stored; without a list, all.
    pub fhir_types: Option<Vec<ResourceType>>,
}

/// A key just made: the only moment when its text is known.
#[derive(Debug)]
pub struct NewApiKey {
    /// What is stored.
    pub key: ApiKey,
    /// `mb_sk_live_…` or `mb_sk_sbx_…`.
    pub text: Secret,
}

/// Who a request with a good key speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The workspace whose data the caller sees, and no other.
    pub workspace: WorkspaceId,
    /// Its environment.
    pub environment: Environment,
    /// The key used.
    pub key: ApiKeyId,
    /// What the key may do.
    pub scopes: KeyScopes,
    /// Which resource types it may read.
    pub fhir_types: KeyTypes,
}

/// Why a key was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyRefusal {
    /// No such key, or a revoked one.
    #[error("the API key is unknown or revoked")]
    Unknown,
    /// The key has ended.
    #[error("the API key has expired")]
    Expired,
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A key in memory.
#[derive(Debug)]
struct Known {
    key: ApiKey,
    /// Milliseconds since 1970; zero when it was not used by this process.
    used_at: AtomicI64,
    /// The use that was last written.
    noted_at: AtomicI64,
}

/// The keys of all workspaces.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    store: Store,
    clock: Clock,
    random: Random,
    shutdown: Shutdown,
    /// Keys seen in use, by digest. Only real keys get in, so it cannot grow past their number; this process is the
    /// only writer of keys and updates it with every change.
    known: Arc<RwLock<HashMap<[u8; 32], Arc<Known>>>>,
}

impl ApiKeys {
    /// Over a store.
    pub fn new(store: Store, clock: Clock, random: Random, shutdown: Shutdown) -> Self {
        Self { store, clock, random, shutdown, known: Arc::default() }
    }

    /// Makes a key for a workspace.
    pub async fn create(
        &self,
        workspace: &Workspace,
        name: &str,
        terms: NewApiKeyTerms,
    ) -> Result<NewApiKey, StoreError> {
        let prefix = match workspace.environment {
            Environment::Live => "mb_sk_live_",
            Environment::Sandbox => "mb_sk_sbx_",
        };
        let text = format!("{prefix}{}", self.random.hex::<24>());
        let now = self.clock.now();
        let scopes = terms.scopes.map(|mut scopes| {
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        });
        let key = ApiKey {
            id: self.random.id(now),
            workspace: workspace.id,
            environment: workspace.environment,
            name: name.to_owned(),
            hint: format!("{}…", &text[..prefix.len() + 4]),
            created_at: now,
            expires_at: terms.expires_at,
            revoked_at: None,
            scopes,
            fhir_types: terms.fhir_types,
            api_version: first_version(),
        };
        let (row, digest) = (key.clone(), sha256(text.as_bytes()));
        self.store
            .write(move |change| {
                change.put(API_KEYS, &digest, &row);
                change.put(API_KEYS_BY_WORKSPACE, &index_key(&row), &digest);
                Ok::<_, StoreError>(())
            })
            .await?;
        Ok(NewApiKey { key, text: Secret::new(text) })
    }

    /// Who speaks with this key, when it has been in use since the start: no look into the store, so it costs the same
    /// for every text.
    pub fn recognise(&self, presented: &str) -> Option<Result<Caller, KeyRefusal>> {
        let known = self.in_memory(&sha256(presented.as_bytes()))?;
        Some(self.admit(&known))
    }

    /// Who speaks with this key.
    pub async fn authenticate(&self, presented: &str) -> Result<Caller, KeyRefusal> {
        let digest = sha256(presented.as_bytes());
        let known = if let Some(known) = self.in_memory(&digest) {
            known
        } else {
            let found = self.store.read(move |view| {
                let Some(key) = view.get(API_KEYS, &digest)? else { return Ok(None) };
                let used = view.get(API_KEY_USES, &index_key(&key))?;
                Ok::<_, KeyRefusal>(Some((key, used)))
            });
            let (key, used) = found.await?.ok_or(KeyRefusal::Unknown)?;
            self.learn(digest, key, used)
        };
        self.admit(&known)
    }

    fn admit(&self, known: &Arc<Known>) -> Result<Caller, KeyRefusal> {
        let (key, now) = (&known.key, self.clock.now());
        match key.state(now) {
            ApiKeyState::Active => {}
            ApiKeyState::Revoked => return Err(KeyRefusal::Unknown),
            ApiKeyState::Expired => return Err(KeyRefusal::Expired),
        }
        self.note_use(known, now);
        Ok(Caller {
            workspace: key.workspace,
            environment: key.environment,
            key: key.id,
            scopes: KeyScopes::of(key.scopes.as_deref()),
            fhir_types: KeyTypes::of(key.fhir_types.as_deref()),
        })
    }

    /// Remembers a use in memory, and now and then on disk. Losing the last minute of it in a crash harms nobody.
    fn note_use(&self, known: &Arc<Known>, now: Timestamp) {
        known.used_at.fetch_max(now.millis(), Ordering::Relaxed);
        let noted = known.noted_at.load(Ordering::Relaxed);
        let due = now.since(Timestamp::from_millis(noted)) >= USE_NOTED_EVERY;
        // Of several requests at once, one writes.
        let mine = due
            && known
                .noted_at
                .compare_exchange(noted, now.millis(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            let (store, row) = (self.store.clone(), index_key(&known.key));
            self.shutdown.spawn(async move {
                let noted = store
                    .write(move |change| {
                        change.put(API_KEY_USES, &row, &now);
                        Ok::<_, StoreError>(())
                    })
                    .await;
                if let Err(error) = noted {
                    tracing::warn!(%error, "the use of an API key was not noted");
                }
            });
        }
    }

    /// The keys of a workspace, newest first, each with the time of its last use.
    pub async fn list(&self, workspace: WorkspaceId) -> Result<Vec<(ApiKey, Option<Timestamp>)>, StoreError> {
        let rows = self
            .store
            .read(move |view| {
                let prefix = workspace.to_bytes();
                let index = view.rows(API_KEYS_BY_WORKSPACE, &Range::of(&prefix).descending())?;
                let mut rows = Vec::with_capacity(index.len());
                for (row, digest) in index {
                    if let Some(key) = view.get(API_KEYS, &digest)? {
                        rows.push((digest, key, view.get(API_KEY_USES, &row)?));
                    }
                }
                Ok::<_, StoreError>(rows)
            })
            .await?;
        let latest = |(digest, key, written): ([u8; 32], ApiKey, Option<Timestamp>)| {
            let in_memory = self.in_memory(&digest).map(|known| known.used_at.load(Ordering::Relaxed));
            let in_memory = in_memory.filter(|millis| *millis > 0).map(Timestamp::from_millis);
            (key, written.max(in_memory))
        };
        Ok(rows.into_iter().map(latest).collect())
    }

    /// Revokes a key at once; says whether there was such a key.
    pub async fn revoke(&self, workspace: WorkspaceId, id: ApiKeyId) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let revoked = self
            .store
            .write(move |change| {
                let index = [workspace.to_bytes(), id.to_bytes()].concat();
                let Some(digest) = change.get(API_KEYS_BY_WORKSPACE, &index)? else { return Ok(None) };
                let mut key = change.get(API_KEYS, &digest)?.ok_or(StoreError::Damaged("api_keys.v1"))?;
                key.revoked_at.get_or_insert(now);
                change.put(API_KEYS, &digest, &key);
                Ok::<_, StoreError>(Some((digest, key)))
            })
            .await?;
        let Some((digest, key)) = revoked else { return Ok(false) };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let used = known.get(&digest).map_or(0, |known| known.used_at.load(Ordering::Relaxed));
        known.insert(digest, Arc::new(Known::new(key, used)));
        Ok(true)
    }

    fn in_memory(&self, digest: &[u8; 32]) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Remembers what was read, unless something newer is remembered: between the read and here the key may have been
    /// revoked, and what the revocation left must stand.
    fn learn(&self, digest: [u8; 32], key: ApiKey, used: Option<Timestamp>) -> Arc<Known> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let used = used.map_or(0, Timestamp::millis);
        Arc::clone(known.entry(digest).or_insert_with(|| Arc::new(Known::new(key, used))))
    }
}

impl Known {
    fn new(key: ApiKey, used_at: i64) -> Self {
        Self { key, used_at: AtomicI64::new(used_at), noted_at: AtomicI64::new(used_at) }
    }
}

fn index_key(key: &ApiKey) -> Vec<u8> {
    [key.workspace.to_bytes(), key.id.to_bytes()].concat()
}
