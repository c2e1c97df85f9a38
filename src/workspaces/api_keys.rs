//! API keys: shown once, stored as a digest, checked in memory after the first use.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::config::Environment;
use crate::crypto::{Random, sha256};
use crate::id::{ApiKeyId, Id as _, WorkspaceId};
use crate::secret::Secret;
use crate::store::{Range, Reader, Store, StoreError, Table, json_value};
use crate::workspaces::Workspace;

const API_KEYS: Table<ApiKey> = Table::new("api_keys.v1");
const API_KEYS_BY_WORKSPACE: Table<[u8; 32]> = Table::new("api_keys_by_workspace.v1");

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
}
json_value!(ApiKey);

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

/// The keys of all workspaces.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    store: Store,
    clock: Clock,
    random: Random,
    /// Keys seen in use, by digest. Only real keys get in, so it cannot grow past their number; this process is the
    /// only writer of keys and updates it with every change.
    known: Arc<RwLock<HashMap<[u8; 32], ApiKey>>>,
}

impl ApiKeys {
    /// Over a store.
    pub fn new(store: Store, clock: Clock, random: Random) -> Self {
        Self { store, clock, random, known: Arc::default() }
    }

    /// Makes a key for a workspace.
    pub async fn create(
        &self,
        workspace: &Workspace,
        name: &str,
        expires_at: Option<Timestamp>,
    ) -> Result<NewApiKey, StoreError> {
        let prefix = match workspace.environment {
            Environment::Live => "mb_sk_live_",
            Environment::Sandbox => "mb_sk_sbx_",
        };
        let text = format!("{prefix}{}", self.random.hex::<24>());
        let now = self.clock.now();
        let key = ApiKey {
            id: self.random.id(now),
            workspace: workspace.id,
            environment: workspace.environment,
            name: name.to_owned(),
            hint: format!("{}…", &text[..prefix.len() + 4]),
            created_at: now,
            expires_at,
            revoked_at: None,
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

    /// Who speaks with this key.
    pub async fn authenticate(&self, presented: &str) -> Result<Caller, KeyRefusal> {
        let digest = sha256(presented.as_bytes());
        let known =
            self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&digest).cloned();
        let key = if let Some(key) = known {
            key
        } else {
            let found: Option<ApiKey> =
                self.store.read(move |view| view.get(API_KEYS, &digest).map_err(KeyRefusal::from)).await?;
            let key = found.ok_or(KeyRefusal::Unknown)?;
            self.remember(digest, key.clone());
            key
        };
        if key.revoked_at.is_some() {
            return Err(KeyRefusal::Unknown);
        }
        if key.expires_at.is_some_and(|end| end <= self.clock.now()) {
            return Err(KeyRefusal::Expired);
        }
        Ok(Caller { workspace: key.workspace, environment: key.environment, key: key.id })
    }

    /// The keys of a workspace, newest first.
    pub async fn list(&self, workspace: WorkspaceId) -> Result<Vec<ApiKey>, StoreError> {
        self.store
            .read(move |view| {
                let prefix = workspace.to_bytes();
                let index = view.rows(API_KEYS_BY_WORKSPACE, &Range::of(&prefix).descending())?;
                index
                    .into_iter()
                    .filter_map(|(_, digest)| view.get(API_KEYS, &digest).transpose())
                    .collect::<Result<Vec<_>, _>>()
            })
            .await
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
        self.remember(digest, key);
        Ok(true)
    }

    fn remember(&self, digest: [u8; 32], key: ApiKey) {
        self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(digest, key);
    }
}

fn index_key(key: &ApiKey) -> Vec<u8> {
    [key.workspace.to_bytes(), key.id.to_bytes()].concat()
}
