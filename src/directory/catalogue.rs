//! What can be found: the sources that were added or chosen here, and the places of the imported lists, searched
//! together. A place of a list has its source's id before there is such a source; choosing it makes the source.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use serde::Serialize;

use crate::clock::Timestamp;
use crate::config::Environment;
use crate::directory::activation::{Activation, opens_everywhere};
use crate::directory::entries::{DirectoryEntry, EntryKind, Portal, each, plain};
use crate::directory::index::{Builder, HIDDEN_FROM_PATIENTS, Hit, Index, Query, Shown};
use crate::directory::lists::{BLOCKS, LISTS};
use crate::directory::sources::source_id;
use crate::directory::text::fold;
use crate::directory::{Directory, DirectoryError, Known, NewSource, Source};
use crate::id::{EhrClientId, Id as _, SourceId};
use crate::smart::FhirBaseUrl;
use crate::smart::server::Overrides;
use crate::store::{Range, Reader as _, StoreError};

/// Hits of one search that are looked at for a list of sources.
const MOST_SOURCES: usize = 500;

/// The score of what is found by letters inside a word: after everything else.
const BY_PART: i32 = 80;

/// Whether a patient can connect at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offer {
    /// Yes.
    Open,
    /// The hospital has not switched us on.
    NotActivated,
    /// The hospital was asked to switch us on.
    Asked,
    /// The hospital said no.
    Refused,
    /// We have no registration at its vendor.
    NoRegistration,
}

/// Something a patient may mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Where it leads.
    pub source: SourceId,
    /// Its name.
    pub name: String,
    /// Town.
    pub city: Option<String>,
    /// State.
    pub state: Option<String>,
    /// Postal code.
    pub postal_code: Option<String>,
    /// What its portal is called.
    pub portal: Option<String>,
    /// The brand its records come from, where that is another name.
    pub brand: Option<String>,
    /// A picture: https, or a small raster picture as `data:` URL.
    pub logo: Option<String>,
    /// The vendor: a profile's name, or a word for others.
    pub vendor: String,
    /// The FHIR base URL.
    pub base: String,
    /// The list it is from; none for a source of ours.
    pub list: Option<String>,
    /// Whether a patient can connect there.
    pub offer: Offer,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The best first.
    pub places: Vec<Place>,
    /// There are more.
    pub more: bool,
    /// Only a portal's name was typed, which hundreds of places share: ask for the place's own name.
    pub portal: Option<&'static str>,
}

/// What an index takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IndexReport {
    /// Entries in it.
    pub entries: usize,
    /// Servers they lead to.
    pub sources: usize,
    /// Bytes.
    pub bytes: usize,
}

/// An index with the ids of its sources.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    index: Index,
    /// Sorted by id.
    ids: Vec<(SourceId, u32)>,
    imported_at: Timestamp,
}

/// The shelves of both environments: of the imported lists, and of our own sources.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    lists: [RwLock<Arc<Shelf>>; 2],
    /// Whether the lists were read since the start.
    indexed: [AtomicBool; 2],
    own: [RwLock<Option<OwnShelf>>; 2],
    offers: [RwLock<Option<Arc<Offers>>>; 2],
}

/// Our own sources as of a version of what is known.
type OwnShelf = (u64, Arc<Shelf>);

/// Whether each source of a shelf can be connected to, as of a version of what is known.
#[derive(Debug)]
struct Offers {
    version: u64,
    stock: Arc<Shelf>,
    of: Vec<Offer>,
}

fn slot(environment: Environment) -> usize {
    match environment {
        Environment::Live => 0,
        Environment::Sandbox => 1,
    }
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

fn replace<T>(lock: &RwLock<T>, value: T) {
    *lock.write().unwrap_or_else(std::sync::PoisonError::into_inner) = value;
}

impl Shelf {
    fn new(index: Index, environment: Environment, imported_at: Timestamp) -> Self {
        let numbers = 0..u32::try_from(index.sources().len()).unwrap_or(u32::MAX);
        let mut ids: Vec<(SourceId, u32)> =
            numbers.map(|number| (source_id(environment, index.base(number)), number)).collect();
        ids.sort_unstable();
        Self { index, ids, imported_at }
    }

    fn source(&self, id: SourceId) -> Option<u32> {
        let at = self.ids.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        Some(self.ids[at].1)
    }
}

impl Directory {
    /// Reads the imported lists and makes them searchable, off the async threads; what was searchable stays so until
    /// then.
    pub async fn reindex(&self, environment: Environment) -> Result<IndexReport, StoreError> {
        let stock = self
            .store
            .read(move |view| {
                let mut builder = Builder::new();
                let mut newest = Timestamp::default();
                for (key, list) in view.rows(LISTS, &Range::of(b""))? {
                    if list.environment != environment {
                        continue;
                    }
                    newest = newest.max(list.imported_at);
                    builder.list(&list.name, list.rank());
                    view.each(BLOCKS, &Range::of(&list.blocks_prefix(&key)), |_, block| {
                        let damaged = StoreError::Damaged(BLOCKS.name());
                        let plain = block.unpack().ok_or_else(|| damaged.clone())?;
                        each(&plain, |entry| builder.add(&entry)).ok_or(damaged)?;
                        Ok(true)
                    })?;
                }
                Ok::<_, StoreError>(Shelf::new(builder.finish(), environment, newest))
            })
            .await?;
        let report = IndexReport {
            entries: stock.index.len(),
            sources: stock.ids.len(),
            bytes: stock.index.size() + stock.ids.capacity() * size_of::<(SourceId, u32)>(),
        };
        replace(&self.shelves.lists[slot(environment)], Arc::new(stock));
        self.shelves.indexed[slot(environment)].store(true, Ordering::Release);
        Ok(report)
    }

    /// Whether the imported lists can be searched yet: a moment after the start they can.
    pub fn is_indexed(&self, environment: Environment) -> bool {
        self.shelves.indexed[slot(environment)].load(Ordering::Acquire)
    }

    /// A source by its id: one of ours, or a place of a list at whose vendor we are registered.
    pub fn source(&self, id: SourceId) -> Option<Arc<Source>> {
        let known = self.read_known();
        if let Some(source) = known.sources.get(&id) {
            return Some(Arc::clone(source));
        }
        let both = [Environment::Live, Environment::Sandbox];
        both.into_iter().find_map(|environment| self.listed(&known, environment, id))
    }

    /// A source by its id, if it belongs to the environment.
    pub fn source_in(&self, environment: Environment, id: SourceId) -> Option<Arc<Source>> {
        self.source(id).filter(|source| source.environment == environment)
    }

    /// A source by its FHIR base URL; the one for patients, where several registrations are used at one server.
    pub fn source_at(&self, environment: Environment, base: &FhirBaseUrl) -> Option<Arc<Source>> {
        let known = self.read_known();
        if let Some(source) = known.for_patients(environment, base) {
            return Some(Arc::clone(source));
        }
        self.listed(&known, environment, source_id(environment, &base.to_string()))
    }

    /// Our own sources that patients can choose, newest first.
    pub fn for_patients(&self, environment: Environment) -> Vec<Arc<Source>> {
        let mut own = self.sources(environment);
        let known = self.read_known();
        own.retain(|source| known.is_offered(source));
        own
    }

    /// All our own sources of an environment, newest first.
    pub fn sources(&self, environment: Environment) -> Vec<Arc<Source>> {
        let known = self.read_known();
        let mut own: Vec<Arc<Source>> =
            known.sources.values().filter(|source| source.environment == environment).cloned().collect();
        own.sort_by_key(|source| std::cmp::Reverse((source.created_at, source.id)));
        own
    }

    /// Makes a place of a list a source of ours, because somebody goes there; what is one already stays as it is.
    pub async fn choose(
        &self,
        environment: Environment,
        id: SourceId,
    ) -> Result<Option<Arc<Source>>, DirectoryError> {
        let Some(source) = self.source_in(environment, id) else { return Ok(None) };
        if self.read_known().sources.contains_key(&source.id) {
            return Ok(Some(source));
        }
        let source = Source { created_at: self.clock.now(), ..(*source).clone() };
        self.keep_source(source).await.map(Some)
    }

    /// Whether a patient can connect at a source.
    pub fn offer_of(&self, source: &Source) -> Offer {
        source.activation.state.offer()
    }

    /// A source that would be made of a place of a list.
    fn listed(&self, known: &Known, environment: Environment, id: SourceId) -> Option<Arc<Source>> {
        let stock = read(&self.shelves.lists[slot(environment)]);
        let number = stock.source(id)?;
        let base = FhirBaseUrl::parse(stock.index.base(number)).ok()?;
        // Under another id, which it had before.
        if let Some(source) = known.for_patients(environment, &base) {
            return Some(Arc::clone(source));
        }
        let found = &stock.index.sources()[number as usize];
        let client = registration(known, environment, found.vendor)?;
        let client = known.clients.get(&client)?;
        let shown = stock.index.shown(found.doc);
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // A facility speaks for a server only by its brand's name.
        let named_by_brand = shown.facility && !shown.brand.is_empty();
        let new = NewSource {
            environment,
            name: if named_by_brand { shown.brand } else { shown.name }.to_owned(),
            base,
            ehr_client: client.name.clone(),
            city: text(shown.city).filter(|_| !named_by_brand),
            state: text(shown.state).filter(|_| !named_by_brand),
            logo_url: text(shown.logo).filter(|logo| logo.starts_with("https://")),
            portal_url: text(shown.portal_url),
            overrides: Overrides::default(),
        };
        let source = Source::from_new(id, stock.imported_at, client, new);
        let activation =
            if opens_everywhere(found.vendor) { Activation::default() } else { Activation::untouched() };
        Some(Arc::new(Source { activation, ..source }))
    }

    /// What a patient may mean by a text: the best places first, at most `want`.
    pub fn find(&self, environment: Environment, text: &str, want: usize) -> Found {
        self.find_where(environment, text, want, &|_| true)
    }

    /// The sources that can be connected to and match, the best first. When nothing is asked, all of them: our own, newest
    /// first, then those of the lists in the order of their ids, largest first. `fits` is asked about vendors.
    pub fn catalogue(
        &self,
        environment: Environment,
        text: &str,
        fits: &dyn Fn(&str) -> bool,
    ) -> Vec<SourceId> {
        if text.trim().is_empty() {
            let own = self.for_patients(environment);
            let ours: HashSet<SourceId> = own.iter().map(|source| source.id).collect();
            let offers = self.offers(environment);
            let listed = offers.stock.ids.iter().rev().filter(|(id, number)| {
                offers.of[*number as usize] == Offer::Open
                    && fits(offers.stock.index.sources()[*number as usize].vendor)
                    && !ours.contains(id)
            });
            let open = |source: &&Arc<Source>| source.activation.state.is_open() && fits(&source.vendor);
            let own = own.iter().filter(open).map(|source| source.id);
            return own.chain(listed.map(|(id, _)| *id)).collect();
        }
        let found = self.find_where(environment, text, MOST_SOURCES, &|offer| offer == Offer::Open);
        let mut seen = HashSet::new();
        let fitting = found.places.into_iter().filter(|place| fits(&place.vendor));
        fitting.map(|place| place.source).filter(|id| seen.insert(*id)).collect()
    }

    fn find_where(
        &self,
        environment: Environment,
        text: &str,
        want: usize,
        wanted: &dyn Fn(Offer) -> bool,
    ) -> Found {
        let query = Query::parse(text);
        if query.is_empty() {
            return Found::default();
        }
        let own = self.own_shelf(environment);
        let offers = self.offers(environment);
        let lists = &offers.stock;
        let ours = |index: &Index, doc: u32| index.flags(doc) & HIDDEN_FROM_PATIENTS == 0;
        let hits = own.index.search(&query, want + 1, &|doc| ours(&own.index, doc), &|_| false);
        let mut own_hits: Vec<(u32, i32)> = hits.into_iter().map(|hit| (hit.doc, hit.score)).collect();
        // The wire contract finds a source by any part of its name; of our few that is no work.
        let part = fold(text);
        let part = part.trim();
        for doc in (0..own.index.len()).filter_map(|doc| u32::try_from(doc).ok()) {
            let inside = !part.is_empty() && fold(own.index.shown(doc).name).contains(part);
            if inside && !own_hits.iter().any(|(known, _)| *known == doc) {
                own_hits.push((doc, BY_PART));
            }
        }
        let shown =
            |doc: u32| ours(&lists.index, doc) && wanted(offers.of[lists.index.source_of(doc) as usize]);
        let later = |source: u32| offers.of[source as usize] != Offer::Open;
        let list_hits = lists.index.search(&query, want + 1, &shown, &later);
        let portal = query.portal.filter(|_| query.is_only_a_portal()).map(|(written, _)| written);
        self.merge(environment, (&own, own_hits), (&offers, list_hits), want, portal, wanted)
    }

    fn merge(
        &self,
        environment: Environment,
        (own, own_hits): (&Shelf, Vec<(u32, i32)>),
        (offers, list_hits): (&Offers, Vec<Hit>),
        want: usize,
        portal: Option<&'static str>,
        wanted: &dyn Fn(Offer) -> bool,
    ) -> Found {
        let known = self.read_known();
        let mut ranked: Vec<(i32, Place)> = Vec::new();
        let mut ours: HashMap<String, String> = HashMap::new();
        for (doc, score) in own_hits {
            let shown = own.index.shown(doc);
            let Some(source) = own_at(&known, environment, shown.base) else { continue };
            let offer = source.activation.state.offer();
            if wanted(offer) {
                ours.insert(shown.base.to_owned(), fold(shown.name));
                // What the operator added is meant first.
                let found = Place { vendor: source.vendor.clone(), ..place(&shown, source.id, offer, None) };
                ranked.push((score - 5, found));
            }
        }
        for hit in list_hits {
            let shown = offers.stock.index.shown(hit.doc);
            // The list's own name for a source of ours is the same card again; its facilities are not.
            let same = ours.get(shown.base).is_some_and(|name| !shown.facility || fold(shown.name) == *name);
            if same {
                continue;
            }
            let own = own_at(&known, environment, shown.base);
            let id = own.map_or_else(|| source_id(environment, shown.base), |source| source.id);
            let offer = offers.of[offers.stock.index.source_of(hit.doc) as usize];
            ranked.push((hit.score, place(&shown, id, offer, Some(shown.list.to_owned()))));
        }
        ranked.sort_by_key(|(score, _)| *score);
        let more = ranked.len() > want;
        let places = ranked.into_iter().take(want).map(|(_, place)| place).collect();
        Found { places, more, portal }
    }

    /// The index over our own sources, made anew when they have changed: there are a few hundred at most.
    fn own_shelf(&self, environment: Environment) -> Arc<Shelf> {
        let lock = &self.shelves.own[slot(environment)];
        let version = self.read_known().version;
        if let Some((_, stock)) = read(lock).filter(|(made, _)| *made == version) {
            return stock;
        }
        let entries: Vec<DirectoryEntry> =
            self.for_patients(environment).iter().map(|source| entry_of(source)).collect();
        let mut builder = Builder::new();
        builder.list("", i64::MAX);
        let bytes = plain(&entries);
        // Our own bytes, written a line ago.
        let read_back = each(&bytes, |entry| builder.add(&entry));
        debug_assert!(read_back.is_some());
        let stock = Arc::new(Shelf::new(builder.finish(), environment, Timestamp::default()));
        replace(lock, Some((version, Arc::clone(&stock))));
        stock
    }

    /// Which sources of the lists can be connected to, made anew when lists, sources or registrations have changed.
    fn offers(&self, environment: Environment) -> Arc<Offers> {
        let lock = &self.shelves.offers[slot(environment)];
        let stock = read(&self.shelves.lists[slot(environment)]);
        let known = self.read_known();
        let made = read(lock);
        if let Some(made) =
            made.filter(|made| made.version == known.version && Arc::ptr_eq(&made.stock, &stock))
        {
            return made;
        }
        let mut by_vendor: HashMap<&str, Offer> = HashMap::new();
        let mut of: Vec<Offer> = Vec::with_capacity(stock.index.sources().len());
        for source in stock.index.sources() {
            let offer = by_vendor.entry(source.vendor).or_insert_with(|| {
                match registration(&known, environment, source.vendor) {
                    None => Offer::NoRegistration,
                    Some(_) if opens_everywhere(source.vendor) => Offer::Open,
                    Some(_) => Offer::NotActivated,
                }
            });
            of.push(*offer);
        }
        let own = known.sources.values().filter(|source| source.environment == environment);
        for source in own.filter(|source| known.is_offered(source)) {
            if let Some(number) = stock.source(source_id(environment, &source.base.to_string())) {
                of[number as usize] = source.activation.state.offer();
            }
        }
        let offers = Arc::new(Offers { version: known.version, stock, of });
        replace(lock, Some(Arc::clone(&offers)));
        offers
    }
}

/// Our registration at a vendor; the oldest, when there are several. One at a server of no known vendor is good for
/// that server only.
fn registration(known: &Known, environment: Environment, vendor: &str) -> Option<EhrClientId> {
    let fits =
        known.clients.values().filter(|client| client.environment == environment && client.vendor == vendor);
    fits.filter(|client| client.vendor != "generic" && client.launch.is_none())
        .map(|client| (client.created_at, client.id))
        .min()
        .map(|(_, id)| id)
}

fn own_at<'k>(known: &'k Known, environment: Environment, base: &str) -> Option<&'k Arc<Source>> {
    known.for_patients(environment, &FhirBaseUrl::parse(base).ok()?)
}

fn entry_of(source: &Source) -> DirectoryEntry {
    let portal = source.portal_url.clone().map(|url| Portal { name: String::new(), url });
    DirectoryEntry {
        key: source.id.to_bytes(),
        kind: EntryKind::Brand,
        name: source.name.clone(),
        unnamed: false,
        hidden: false,
        aliases: Vec::new(),
        portals: portal.into_iter().collect(),
        city: source.city.clone().unwrap_or_default(),
        state: source.state.clone().unwrap_or_default(),
        postal_code: String::new(),
        logo: source.logo_url.clone().unwrap_or_default(),
        external_id: String::new(),
        brand: String::new(),
        base: source.base.to_string(),
        gone_since: None,
    }
}

fn place(shown: &Shown<'_>, source: SourceId, offer: Offer, list: Option<String>) -> Place {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Place {
        source,
        name: shown.name.to_owned(),
        city: text(shown.city),
        state: text(shown.state),
        postal_code: text(shown.postal_code),
        portal: text(shown.portal).filter(|portal| portal != shown.name),
        brand: text(shown.brand).filter(|brand| brand != shown.name),
        logo: text(shown.logo),
        vendor: shown.vendor.to_owned(),
        base: shown.base.to_owned(),
        list,
        offer,
    }
}
