//! Where a patient can connect: sources, and our registrations at their vendors. Knows nothing of tokens.
//!
//! Everything a page or a search needs is held in memory; the store has the truth. This process is the only writer.

mod ehr_clients;
mod search;
mod sources;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use crate::clock::Clock;
use crate::config::Environment;
use crate::crypto::Random;
use crate::id::{EhrClientId, Id as _, SourceId};
use crate::smart::FhirBaseUrl;
use crate::store::{Range, Reader, Store, StoreError};

pub use ehr_clients::{EhrClient, NewEhrClient};
pub use search::fold;
pub use sources::{NewSource, Source, reach_of};

use ehr_clients::EHR_CLIENTS;
use sources::SOURCES;

/// Why a source or a registration was not added.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DirectoryError {
    /// There is a source with this base URL in this environment already.
    #[error("there is a source with this FHIR base URL already: {0}")]
    SourceExists(SourceId),
    /// There is an EHR client with this name already.
    #[error("there is an EHR client named `{0}` already")]
    EhrClientExists(String),
    /// The named EHR client is not there.
    #[error("there is no EHR client named `{0}`; add it with `chartgate ehr-client add`")]
    NoEhrClient(String),
    /// A sandbox registration cannot serve a live source, nor the reverse.
    #[error("the EHR client `{0}` belongs to the other environment")]
    OtherEnvironment(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sources and registrations. Clones share them.
#[derive(Debug, Clone)]
pub struct Directory {
    store: Store,
    clock: Clock,
    random: Random,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    sources: HashMap<SourceId, Arc<Source>>,
    by_url: HashMap<(Environment, String), SourceId>,
    clients: HashMap<EhrClientId, Arc<EhrClient>>,
}

impl Known {
    fn add_source(&mut self, source: Source) {
        self.by_url.insert((source.environment, source.base.to_string()), source.id);
        self.sources.insert(source.id, Arc::new(source));
    }
}

impl Directory {
    /// Reads what there is; called once, before the server listens. A box has a few hundred sources that it uses.
    pub fn load(store: Store, clock: Clock, random: Random) -> Result<Self, StoreError> {
        let known = store.read_now(|view| {
            let mut known = Known::default();
            view.each(SOURCES, &Range::of(b""), |_, source| {
                known.add_source(source);
                Ok(true)
            })?;
            view.each(EHR_CLIENTS, &Range::of(b""), |_, client| {
                known.clients.insert(client.id, Arc::new(client));
                Ok(true)
            })?;
            Ok::<_, StoreError>(known)
        })?;
        Ok(Self { store, clock, random, known: Arc::new(RwLock::new(known)) })
    }

    /// Adds a source. Its discovery is the caller's business, before this.
    pub async fn add_source(&self, new: NewSource) -> Result<Arc<Source>, DirectoryError> {
        if let Some(existing) = self.source_at(new.environment, &new.base) {
            return Err(DirectoryError::SourceExists(existing.id));
        }
        let client = self
            .client_named(&new.ehr_client)
            .ok_or_else(|| DirectoryError::NoEhrClient(new.ehr_client.clone()))?;
        if client.environment != new.environment {
            return Err(DirectoryError::OtherEnvironment(new.ehr_client));
        }
        let source = Source::from_new(self.random.id(self.clock.now()), self.clock.now(), &client, new);
        self.keep_source(source).await
    }

    /// Adds the source, or brings the one with this base URL up to date: for what the configuration file lists.
    pub async fn ensure_source(&self, new: NewSource) -> Result<Arc<Source>, DirectoryError> {
        let Some(existing) = self.source_at(new.environment, &new.base) else {
            return self.add_source(new).await;
        };
        let client = self
            .client_named(&new.ehr_client)
            .ok_or_else(|| DirectoryError::NoEhrClient(new.ehr_client.clone()))?;
        if client.environment != new.environment {
            return Err(DirectoryError::OtherEnvironment(new.ehr_client));
        }
        let source = Source::from_new(existing.id, existing.created_at, &client, new);
        if *existing == source { Ok(existing) } else { self.keep_source(source).await }
    }

    async fn keep_source(&self, source: Source) -> Result<Arc<Source>, DirectoryError> {
        let row = source.clone();
        self.store
            .write(move |change| {
                change.put(SOURCES, &row.id.to_bytes(), &row);
                Ok::<_, StoreError>(())
            })
            .await?;
        let shared = Arc::new(source.clone());
        self.write_known().add_source(source);
        Ok(shared)
    }

    /// Adds a registration.
    pub async fn add_client(&self, new: NewEhrClient) -> Result<Arc<EhrClient>, DirectoryError> {
        if self.client_named(&new.name).is_some() {
            return Err(DirectoryError::EhrClientExists(new.name));
        }
        self.ensure_client(new).await
    }

    /// Adds the registration, or brings the one with this name up to date.
    pub async fn ensure_client(&self, new: NewEhrClient) -> Result<Arc<EhrClient>, DirectoryError> {
        let existing = self.client_named(&new.name);
        let (id, since) = match &existing {
            Some(client) => (client.id, client.created_at),
            None => (self.random.id(self.clock.now()), self.clock.now()),
        };
        let client = EhrClient::from_new(id, since, new);
        if let Some(existing) = existing.filter(|existing| **existing == client) {
            return Ok(existing);
        }
        let row = client.clone();
        self.store
            .write(move |change| {
                change.put(EHR_CLIENTS, &row.id.to_bytes(), &row);
                Ok::<_, StoreError>(())
            })
            .await?;
        let shared = Arc::new(client);
        self.write_known().clients.insert(shared.id, Arc::clone(&shared));
        Ok(shared)
    }

    /// A source by its id.
    pub fn source(&self, id: SourceId) -> Option<Arc<Source>> {
        self.read_known().sources.get(&id).cloned()
    }

    /// A source by its id, if it belongs to the environment.
    pub fn source_in(&self, environment: Environment, id: SourceId) -> Option<Arc<Source>> {
        self.source(id).filter(|source| source.environment == environment)
    }

    /// A source by its FHIR base URL.
    pub fn source_at(&self, environment: Environment, base: &FhirBaseUrl) -> Option<Arc<Source>> {
        let known = self.read_known();
        known.by_url.get(&(environment, base.to_string())).and_then(|id| known.sources.get(id)).cloned()
    }

    /// A registration by its id.
    pub fn client(&self, id: EhrClientId) -> Option<Arc<EhrClient>> {
        self.read_known().clients.get(&id).cloned()
    }

    /// A registration by its name.
    pub fn client_named(&self, name: &str) -> Option<Arc<EhrClient>> {
        self.read_known().clients.values().find(|client| client.name == name).cloned()
    }

    /// All registrations, by name.
    pub fn clients(&self) -> Vec<Arc<EhrClient>> {
        let mut all: Vec<_> = self.read_known().clients.values().cloned().collect();
        all.sort_by(|left, right| left.name.cmp(&right.name));
        all
    }

    /// The sources of an environment that match every word of `query`, the best first; all of them, newest first, when
    /// nothing is asked.
    pub fn search(&self, environment: Environment, query: &str) -> Vec<Arc<Source>> {
        let mut sources: Vec<Arc<Source>> = {
            let known = self.read_known();
            known.sources.values().filter(|source| source.environment == environment).cloned().collect()
        };
        sources.sort_by_key(|source| std::cmp::Reverse(source.id));
        search::rank(sources, query)
    }

    /// Whether there are places to connect, and none of them is a real one.
    pub fn only_practice(&self) -> bool {
        let known = self.read_known();
        let mut all = known.sources.values();
        !known.sources.is_empty() && all.all(|source| source.environment == Environment::Sandbox)
    }

    fn read_known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_known(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
