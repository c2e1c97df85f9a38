//! Owners and what they own: workspaces, their API keys, their patients and the patients' browser journeys.
//! Knows nothing of tokens or records.
//!
//! Every key on disk begins with the workspace or with an id that was found through it, so a caller of one workspace
//! has no way to name what belongs to another.

mod api_keys;
mod key_scope;
mod patients;
mod replays;
mod resource_type;
pub(crate) mod sessions;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::config::Environment;
use crate::crypto::Random;
use crate::id::{Id as _, WorkspaceId};
use crate::store::{Range, Reader, Store, StoreError, Table, json_value};

pub use api_keys::{ApiKey, ApiKeyState, ApiKeys, Caller, KeyRefusal, NewApiKey, NewApiKeyTerms};
pub use key_scope::{KeyScope, KeyScopes, UnknownKeyScope};
pub use patients::{NewPatient, Patient, PatientError, PatientFilter, Patients, patient_id_problem};
pub use replays::{OnceError, OnceOnly, REPLAY_LIFE, forget_patient};
pub use resource_type::{KeyTypes, ResourceType, UnknownResourceType};
pub use sessions::{
    NewSession, PatientSession, SESSION_ATTEMPTS, SessionError, SessionMode, SessionStatus, SessionToken,
    Sessions, is_return_address,
};

const WORKSPACES: Table<Workspace> = Table::new("workspaces.v1");
const WORKSPACE_NAMES: Table<[u8; 16]> = Table::new("workspace_names.v1");

/// An owner of patients, keys and records. Two workspaces never see each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name, unique on this box.
    pub name: String,
    /// Live or sandbox; nothing of one meets anything of the other.
    pub environment: Environment,
    /// When it was made.
    pub created_at: Timestamp,
}
json_value!(Workspace);

/// The workspaces of this box.
#[derive(Debug, Clone)]
pub struct Workspaces {
    store: Store,
    clock: Clock,
    random: Random,
}

impl Workspaces {
    /// Over a store.
    pub fn new(store: Store, clock: Clock, random: Random) -> Self {
        Self { store, clock, random }
    }

    /// Makes the workspace of this name, or finds it. An existing one keeps its environment.
    pub async fn ensure(&self, name: &str, environment: Environment) -> Result<Workspace, StoreError> {
        let fresh = Workspace {
            id: self.random.id(self.clock.now()),
            name: name.to_owned(),
            environment,
            created_at: self.clock.now(),
        };
        let vault = Arc::clone(self.store.vault());
        self.store
            .write(move |change| {
                let name_key = vault.digest(&[b"workspace", fresh.name.as_bytes()]);
                if let Some(id) = change.get(WORKSPACE_NAMES, &name_key)? {
                    return change.get(WORKSPACES, &id)?.ok_or(StoreError::Damaged("workspaces.v1"));
                }
                change.put(WORKSPACE_NAMES, &name_key, &fresh.id.to_bytes());
                change.put(WORKSPACES, &fresh.id.to_bytes(), &fresh);
                Ok(fresh)
            })
            .await
    }

    /// The workspace of this name.
    pub async fn named(&self, name: &str) -> Result<Option<Workspace>, StoreError> {
        let key = self.store.vault().digest(&[b"workspace", name.as_bytes()]);
        self.store
            .read(move |view| {
                let Some(id) = view.get(WORKSPACE_NAMES, &key)? else { return Ok(None) };
                view.get(WORKSPACES, &id)
            })
            .await
    }

    /// The workspace of this id.
    pub async fn find(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        self.store.read(move |view| view.get(WORKSPACES, &id.to_bytes())).await
    }

    /// Who owns the launches that begin inside an EHR: the named workspace, or the only one of the environment. `None`
    /// when nobody can say.
    pub async fn owner_of_launches(
        &self,
        environment: Environment,
        name: Option<&str>,
    ) -> Result<Option<Workspace>, StoreError> {
        if let Some(name) = name {
            return Ok(self.named(name).await?.filter(|found| found.environment == environment));
        }
        let mut fitting = self.all().await?;
        fitting.retain(|workspace| workspace.environment == environment);
        Ok(if fitting.len() == 1 { fitting.pop() } else { None })
    }

    /// All of them, oldest first; a box has a handful.
    pub async fn all(&self) -> Result<Vec<Workspace>, StoreError> {
        let rows = self.store.read(|view| view.rows(WORKSPACES, &Range::of(b""))).await?;
        Ok(rows.into_iter().map(|(_, workspace)| workspace).collect())
    }
}
