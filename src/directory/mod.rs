//! Where a patient can connect: sources, our registrations at their vendors, and the names of a hundred thousand places
//! that lead to them. Knows nothing of tokens.
//!
//! Everything a page or a search needs is held in memory; the store has the truth. This process is the only writer.
//! Importing and searching never call an address that a list names.

mod activation;
mod catalogue;
mod ehr_clients;
mod entries;
pub mod import;
mod index;
mod lists;
mod pieces;
mod places;
mod refresh;
mod requests;
mod sources;
mod text;
mod vendors;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use crate::clock::Clock;
use crate::config::Environment;
use crate::crypto::Random;
use crate::id::{EhrClientId, Id as _, SourceId};
use crate::smart::FhirBaseUrl;
use crate::smart::vendors::VendorProfile;
use crate::store::{Change, Range, Reader, Store, StoreError};

pub use activation::{Activation, ActivationState, ActivationStep, opens_everywhere};
pub use catalogue::{Found, IndexReport, Offer, Place};
pub use ehr_clients::{EhrClient, LaunchTarget, NewEhrClient};
pub use entries::{DirectoryEntry, EntryKind, Portal};
pub use index::web_host;
pub use lists::{DirectoryList, ImportRefused, ImportReport, ImportRequest};
pub use pieces::{ImportProgress, ImportStage, Upload};
pub use refresh::{FetchRefused, FetchRequest, Fetched, FreshList};
pub use requests::{
    Closed, LONGEST_EMAIL, LONGEST_NAME, LONGEST_WEBSITE, MissingPlace, PlaceField, RequestRefused,
    SourceRequest, SourceRequests, forget_patient,
};
pub use sources::{NewSource, Source, reach_of};
pub use text::fold;
pub use vendors::{own_site, usual_portal};

use catalogue::Shelves;
use ehr_clients::EHR_CLIENTS;
use sources::{SOURCES, source_id};

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
    /// There is no such source.
    #[error("there is no source `{0}`")]
    NoSource(SourceId),
    /// A list was not imported.
    #[error(transparent)]
    Import(Box<ImportRefused>),
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
    shelves: Arc<Shelves>,
    /// One import at a time.
    importing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Rises with every change, for what is derived from it.
    version: u64,
    sources: HashMap<SourceId, Arc<Source>>,
    /// More than one only when several registrations are used at the same server.
    by_url: HashMap<(Environment, String), Vec<SourceId>>,
    clients: HashMap<EhrClientId, Arc<EhrClient>>,
}

impl Known {
    fn add_source(&mut self, source: Source) {
        self.version += 1;
        let there = self.by_url.entry((source.environment, source.base.to_string())).or_default();
        if !there.contains(&source.id) {
            there.push(source.id);
        }
        self.sources.insert(source.id, Arc::new(source));
    }

    fn at(&self, environment: Environment, base: &FhirBaseUrl) -> impl Iterator<Item = &Arc<Source>> {
        let there = self.by_url.get(&(environment, base.to_string()));
        there.into_iter().flatten().filter_map(|id| self.sources.get(id))
    }

    /// Of the sources at one address the one for patients: a registration that opens an app in the EHR is the second
    /// choice.
    fn for_patients(&self, environment: Environment, base: &FhirBaseUrl) -> Option<&Arc<Source>> {
        self.at(environment, base).min_by_key(|source| {
            let client = self.clients.get(&source.ehr_client);
            (client.is_none_or(|client| client.launch.is_some()), source.id)
        })
    }

    fn is_offered(&self, source: &Source) -> bool {
        let clinicians = VendorProfile::named(&source.vendor).is_some_and(|profile| profile.for_clinicians);
        let chosen = self.for_patients(source.environment, &source.base);
        !clinicians && chosen.is_some_and(|chosen| chosen.id == source.id)
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
        Ok(Self {
            store,
            clock,
            random,
            known: Arc::new(RwLock::new(known)),
            shelves: Arc::default(),
            importing: Arc::default(),
        })
    }

    /// Adds a source. Its discovery is the caller's business, before this.
    pub async fn add_source(&self, new: NewSource) -> Result<Arc<Source>, DirectoryError> {
        let client = self
            .client_named(&new.ehr_client)
            .ok_or_else(|| DirectoryError::NoEhrClient(new.ehr_client.clone()))?;
        if let Some(existing) = self.same_source(&client, &new.base) {
            return Err(DirectoryError::SourceExists(existing.id));
        }
        if client.environment != new.environment {
            return Err(DirectoryError::OtherEnvironment(new.ehr_client));
        }
        // A second registration at one address, and one that opens an app in the EHR, has an id of its own.
        let derived = source_id(new.environment, &new.base.to_string());
        let free = client.launch.is_none() && !self.read_known().sources.contains_key(&derived);
        let id = if free { derived } else { self.random.id(self.clock.now()) };
        let source = Source::from_new(id, self.clock.now(), &client, new);
        self.keep_source(source).await
    }

    /// Adds the source, or brings the one with this base URL up to date: for what the configuration file lists.
    pub async fn ensure_source(&self, new: NewSource) -> Result<Arc<Source>, DirectoryError> {
        let client = self
            .client_named(&new.ehr_client)
            .ok_or_else(|| DirectoryError::NoEhrClient(new.ehr_client.clone()))?;
        let Some(existing) = self.same_source(&client, &new.base) else {
            return self.add_source(new).await;
        };
        if client.environment != new.environment {
            return Err(DirectoryError::OtherEnvironment(new.ehr_client));
        }
        let listed = Source::from_new(existing.id, existing.created_at, &client, new);
        let source = Source { activation: existing.activation.clone(), ..listed };
        if *existing == source { Ok(existing) } else { self.keep_source(source).await }
    }

    /// The source that these words mean. At one address there is one for patients, whatever registration it uses, and one
    /// more for each registration that opens an app in the EHR.
    fn same_source(&self, client: &EhrClient, base: &FhirBaseUrl) -> Option<Arc<Source>> {
        let known = self.read_known();
        let opens_no_app = |source: &&Arc<Source>| {
            known.clients.get(&source.ehr_client).is_none_or(|other| other.launch.is_none())
        };
        let own = known.at(client.environment, base).find(|source| source.ehr_client == client.id);
        let patients = || known.at(client.environment, base).find(opens_no_app);
        own.or_else(|| client.launch.is_none().then(patients).flatten()).cloned()
    }

    async fn keep_source(&self, source: Source) -> Result<Arc<Source>, DirectoryError> {
        let (directory, kept) = (self.clone(), source.clone());
        self.store
            .write(move |change| {
                directory.put_source(change, kept);
                Ok::<_, StoreError>(())
            })
            .await?;
        Ok(Arc::new(source))
    }

    /// Puts a source, and knows it so from the commit on: changes reach memory in the order in which they are on disk.
    fn put_source(&self, change: &mut Change<'_>, source: Source) {
        change.put(SOURCES, &source.id.to_bytes(), &source);
        let directory = self.clone();
        change.after_commit(move || directory.write_known().add_source(source));
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
        let mut known = self.write_known();
        known.version += 1;
        known.clients.insert(shared.id, Arc::clone(&shared));
        drop(known);
        Ok(shared)
    }

    /// The source with this FHIR base URL that uses this registration.
    pub fn source_of(&self, client: &EhrClient, base: &FhirBaseUrl) -> Option<Arc<Source>> {
        self.read_known().at(client.environment, base).find(|source| source.ehr_client == client.id).cloned()
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
