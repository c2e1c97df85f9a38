//! Pulls: reading all of a connection's records, type by type, page by page.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::clock::{Clock, Timestamp};
use crate::crypto::{Random, sha256};
use crate::events::history::RefreshedBy;
use crate::events::{EventKind, Fact, Outbox};
use crate::grants::{Connection, ConnectionStatus, Grants, PULLS_WANTED};
use crate::id::{ConnectionId, Id as _, PatientKey, PullId, SourceId};
use crate::outbound::Outbound;
use crate::records::bundle::{Incoming, read_page, read_resource};
use crate::records::fetch::{FetchFailure, Fetcher};
use crate::records::plans::{Plan, fill, plan};
use crate::records::stored;
use crate::shutdown::Shutdown;
use crate::smart::RESOURCE_TYPES;
use crate::smart::scopes::{ResourceScope, ScopeSet};
use crate::store::{Change, Range, Reader as _, Store, StoreError, Table, json_value};
use crate::workspaces::Patients;

/// Pulls under connection and pull id.
const PULLS: Table<Pull> = Table::new("pulls.v1");

/// The longest chain of pages followed for one search: a loop that changes its address each time ends here.
const MOST_PAGES: usize = 10_000;
/// A page link longer than this is a mistake or an attack.
const LONGEST_LINK: usize = 8 * 1024;
/// Wishes looked at in one go.
const WISHES: usize = 1_000;

/// How a pull went so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// Waiting for its turn.
    Queued,
    /// Reading.
    Running,
    /// All that was shared has been read.
    Succeeded,
    /// Some of it could not be read; the types say what.
    Partial,
    /// Nothing could be read.
    Failed,
}

impl PullState {
    /// Whether anything is still to come.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Partial | Self::Failed)
    }
}

/// How one type went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeState {
    /// Not read yet.
    Waiting,
    /// Read to the end.
    Ok,
    /// Read, but not all of it.
    Partial,
    /// The patient, or the hospital, did not share it.
    NotShared,
    /// The server refused it although it was shared.
    Forbidden,
    /// The server does not have it.
    Unsupported,
    /// It could not be read.
    Failed,
}

impl TypeState {
    /// Whether something that was shared could not be read.
    fn is_trouble(self) -> bool {
        matches!(self, Self::Partial | Self::Forbidden | Self::Failed)
    }
}

/// One type of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeReport {
    /// The FHIR type.
    pub resource_type: String,
    /// How it went.
    pub state: TypeState,
    /// Different resources of the type that came.
    pub count: usize,
    /// Entries by which the server said that it held something back.
    pub withheld: usize,
    /// Entries that could not be read.
    pub unreadable: usize,
    /// Why it is not `Ok`, for staff. No clinical content.
    pub note: Option<String>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Its id.
    pub id: PullId,
    /// What it reads.
    pub connection: ConnectionId,
    /// Where from.
    pub source: SourceId,
    /// How it goes.
    pub state: PullState,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// New or changed resources so far, companions included.
    pub stored: usize,
    /// The types, in the order of the product's list.
    pub types: Vec<TypeReport>,
}
json_value!(Pull);

/// How long a pull that the store could not take waits to be begun again: a full disk must not become a storm of
/// requests at the hospital.
const AFTER_A_FAULT: Duration = Duration::from_mins(1);

/// Limits and patience of pulls.
#[derive(Debug, Clone)]
pub struct PullSettings {
    /// Requests at once to one source, over all its patients.
    pub parallel_per_source: usize,
    /// Pulls at once on this box.
    pub at_once: usize,
    /// The largest page read, in bytes.
    pub page_bytes: usize,
    /// The first wait after a 429, a 503 or no answer; each next one is twice as long.
    pub backoff: Duration,
    /// The longest wait.
    pub longest_backoff: Duration,
    /// How often one page is tried.
    pub attempts: u32,
}

impl Default for PullSettings {
    fn default() -> Self {
        Self {
            parallel_per_source: 4,
            at_once: 4,
            page_bytes: 50 << 20,
            backoff: Duration::from_secs(5),
            longest_backoff: Duration::from_mins(1),
            attempts: 5,
        }
    }
}

/// The puller. Clones share it.
#[derive(Clone)]
pub struct Pulls(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    random: Random,
    grants: Grants,
    fetcher: Fetcher,
    turns: Arc<Semaphore>,
    parallel: usize,
    shutdown: Shutdown,
    running: Mutex<HashMap<ConnectionId, Arc<Mutex<Pull>>>>,
}

impl std::fmt::Debug for Pulls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Pulls")
    }
}

impl Pulls {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        random: Random,
        outbound: Outbound,
        grants: Grants,
        settings: PullSettings,
        shutdown: Shutdown,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(settings.at_once));
        let parallel = settings.parallel_per_source;
        let fetcher = Fetcher::new(outbound, grants.clone(), random.clone(), settings);
        Self(Arc::new(Inner {
            store,
            clock,
            random,
            grants,
            fetcher,
            turns,
            parallel,
            shutdown,
            running: Mutex::default(),
        }))
    }

    /// Starts the task that runs wanted pulls, those of before a restart first.
    pub fn start(&self) {
        let pulls = self.clone();
        self.0.shutdown.spawn(async move {
            let mut wanted = pulls.0.grants.pulls_wanted();
            loop {
                wanted.mark_unchanged();
                if let Err(cause) = pulls.start_wanted().await {
                    tracing::error!(%cause, "the list of wanted pulls could not be read");
                }
                tokio::select! {
                    () = pulls.0.shutdown.triggered() => return,
                    changed = wanted.changed() => if changed.is_err() { return },
                }
            }
        });
    }

    async fn start_wanted(&self) -> Result<(), StoreError> {
        let keys = self.0.store.read(|view| view.keys(PULLS_WANTED, &Range::of(b"").limit(WISHES))).await?;
        for key in keys {
            let Ok(bytes) = <[u8; 16]>::try_from(key.as_slice()) else { continue };
            let id = ConnectionId::from_bytes(bytes);
            if self.running().contains_key(&id) {
                continue;
            }
            let connection = self.0.store.read(move |view| Connection::find(view, id)).await?;
            match connection.filter(|connection| connection.status == ConnectionStatus::Active) {
                Some(connection) => self.begin(connection),
                None => self.no_longer_wanted(id).await?,
            }
        }
        Ok(())
    }

    fn begin(&self, connection: Connection) {
        let now = self.0.clock.now();
        let granted = ScopeSet::parse(&connection.scopes.join(" "));
        let types = RESOURCE_TYPES.iter().map(|name| TypeReport {
            resource_type: (*name).to_owned(),
            state: if is_shared(&granted, name) { TypeState::Waiting } else { TypeState::NotShared },
            count: 0,
            withheld: 0,
            unreadable: 0,
            note: None,
        });
        let pull = Pull {
            id: self.0.random.id(now),
            connection: connection.id,
            source: connection.source,
            state: PullState::Queued,
            started_at: now,
            finished_at: None,
            stored: 0,
            types: types.collect(),
        };
        let pull = Arc::new(Mutex::new(pull));
        let id = connection.id;
        self.running().insert(id, Arc::clone(&pull));
        let run =
            Run { pulls: self.clone(), connection, pull, _running: Running { pulls: self.clone(), id } };
        let shutdown = self.0.shutdown.clone();
        self.0.shutdown.spawn(async move {
            tokio::select! {
                // A stopped pull stays wanted, and is begun again at the next start.
                () = shutdown.triggered() => {}
                () = run.to_the_end() => {}
            }
        });
    }

    async fn no_longer_wanted(&self, id: ConnectionId) -> Result<(), StoreError> {
        self.0
            .store
            .write(move |change| {
                change.remove(PULLS_WANTED, &id.to_bytes());
                Ok::<_, StoreError>(())
            })
            .await
    }

    /// How far a connection's latest pull is.
    pub async fn latest(&self, connection: ConnectionId) -> Result<Option<Pull>, StoreError> {
        let running = self.running().get(&connection).cloned();
        if let Some(running) = running {
            return Ok(Some(copy(&running)));
        }
        self.0
            .store
            .read(move |view| {
                let prefix = connection.to_bytes();
                let rows = view.rows(PULLS, &Range::of(&prefix).descending().limit(1))?;
                Ok(rows.into_iter().next().map(|(_, pull)| pull))
            })
            .await
    }

    /// Whether nothing is being pulled, for tests and for an orderly stop.
    pub fn is_idle(&self) -> bool {
        self.running().is_empty()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<ConnectionId, Arc<Mutex<Pull>>>> {
        self.0.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a webhook tells of a pull that has ended.
#[derive(Serialize)]
struct SyncShape {
    resource_type: &'static str,
    patient_id: String,
    connection_id: String,
    #[serde(flatten)]
    outcome: SyncOutcome,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SyncOutcome {
    Completed { total: usize, changed: usize, errors: usize, duration_ms: u64 },
    Failed { error_message: String },
}

/// Tells of the end of a pull, as part of the write of its end and before its own row is there: the first pull of a
/// connection always tells, a later one when it brought something or failed.
fn announce(
    change: &mut Change<'_>,
    outbox: &Outbox,
    connection: &Connection,
    pull: &Pull,
    now: Timestamp,
) -> Result<(), StoreError> {
    let first = change.keys(PULLS, &Range::of(&connection.id.to_bytes()).limit(1))?.is_empty();
    let failed = pull.state == PullState::Failed;
    if !failed && !first && pull.stored == 0 {
        return Ok(());
    }
    let Some(patient) = Patients::by_key(change, connection.workspace, connection.patient)? else {
        return Ok(());
    };
    let kind = if failed { EventKind::SyncFailed } else { EventKind::SyncCompleted };
    let fact = Fact { workspace: connection.workspace, patient: connection.patient, kind, at: now };
    outbox.emit(change, fact, |_| {
        let outcome = if failed {
            SyncOutcome::Failed { error_message: reason(&pull.types) }
        } else {
            SyncOutcome::Completed {
                total: pull.types.iter().map(|report| report.count).sum(),
                changed: pull.stored,
                errors: pull.types.iter().filter(|report| report.state.is_trouble()).count(),
                duration_ms: u64::try_from(now.since(pull.started_at).as_millis()).unwrap_or(u64::MAX),
            }
        };
        Ok(SyncShape {
            resource_type: "records_sync",
            patient_id: patient.patient_id,
            connection_id: pull.source.to_string(),
            outcome,
        })
    })
}

/// Why a pull brought nothing: what the first type that was asked for met.
fn reason(types: &[TypeReport]) -> String {
    let mut notes = types.iter().filter(|report| report.state.is_trouble()).filter_map(|report| {
        let note = report.note.as_deref()?;
        Some(format!("{}: {note}", report.resource_type))
    });
    notes.next().unwrap_or_else(|| "nothing that could be read was shared".to_owned())
}

/// Removes the pulls of a connection, as part of its patient's erasure.
pub(super) fn remove(change: &mut Change<'_>, connection: ConnectionId) -> Result<(), StoreError> {
    change.remove_all(PULLS, &connection.to_bytes()).map(drop)
}

/// Whether the granted scopes let a type be read at all.
fn is_shared(granted: &ScopeSet, resource_type: &str) -> bool {
    granted
        .resources()
        .any(|scope: &ResourceScope| scope.covers(resource_type) && !scope.permissions.is_empty())
}

fn copy(pull: &Mutex<Pull>) -> Pull {
    pull.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// One pull on its way.
struct Run {
    pulls: Pulls,
    connection: Connection,
    pull: Arc<Mutex<Pull>>,
    _running: Running,
}

/// A pull's place in the list of running ones; it is free again however the pull ends, and the list of wishes is looked
/// at once more, because another may have been made meanwhile.
struct Running {
    pulls: Pulls,
    id: ConnectionId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.pulls.running().remove(&self.id);
        self.pulls.0.grants.look_for_wishes();
    }
}

/// What stops a whole pull; everything else stops one type.
enum Stop {
    Access(String),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Run {
    async fn to_the_end(&self) {
        let Ok(turn) = self.pulls.0.turns.acquire().await else { return };
        self.change(|pull| pull.state = PullState::Running);
        let outcome = self.read_all().await;
        if let Err(Stop::Store(cause)) = &outcome {
            // Nothing more can be written: the pull stays wanted.
            tracing::error!(connection = %self.connection.id, %cause, "pull stopped");
            drop(turn);
            tokio::time::sleep(AFTER_A_FAULT).await;
            return;
        }
        if let Err(Stop::Access(note)) = outcome {
            self.change(|pull| {
                for report in pull.types.iter_mut().filter(|report| report.state == TypeState::Waiting) {
                    report.state = TypeState::Failed;
                    report.note = Some(note.clone());
                }
            });
        }
        let now = self.pulls.0.clock.now();
        self.change(|pull| {
            pull.state = verdict(&pull.types);
            pull.finished_at = Some(now);
        });
        let pull = copy(&self.pull);
        tracing::info!(connection = %pull.connection, state = ?pull.state, stored = pull.stored, "pull ended");
        let (id, begun) = (self.connection.id, pull.started_at);
        let outbox = self.pulls.0.grants.announcements().outbox().clone();
        let written = self
            .pulls
            .0
            .store
            .write(move |change| {
                // An erased connection keeps no pulls.
                if let Some(connection) = Connection::find(change, id)? {
                    announce(change, &outbox, &connection, &pull, now)?;
                    change.put(PULLS, &[id.to_bytes(), pull.id.to_bytes()].concat(), &pull);
                }
                // A wish of after the beginning is another pull's: the patient has shared more meanwhile.
                if change.get(PULLS_WANTED, &id.to_bytes())?.is_some_and(|wish| wish.since <= begun) {
                    change.remove(PULLS_WANTED, &id.to_bytes());
                }
                Ok::<_, StoreError>(())
            })
            .await;
        if let Err(cause) = written {
            tracing::error!(connection = %id, %cause, "the end of a pull could not be written");
            drop(turn);
            tokio::time::sleep(AFTER_A_FAULT).await;
        }
    }

    /// The Patient first: it tests token, base and patient id in one request. Then the rest, a few at once.
    async fn read_all(&self) -> Result<(), Stop> {
        let wanted: Vec<&str> = {
            let pull = copy(&self.pull);
            let waiting = pull.types.iter().filter(|report| report.state == TypeState::Waiting);
            RESOURCE_TYPES
                .into_iter()
                .filter(|name| waiting.clone().any(|report| report.resource_type == *name))
                .collect()
        };
        let (first, rest): (Vec<&str>, Vec<&str>) = wanted.into_iter().partition(|name| *name == "Patient");
        for name in first {
            self.read_type(name).await?;
        }
        let reads: Vec<_> = rest.into_iter().map(|name| self.read_type(name)).collect();
        let mut reading = futures_util::stream::iter(reads).buffer_unordered(self.pulls.0.parallel);
        while let Some(read) = reading.next().await {
            read?;
        }
        Ok(())
    }

    async fn read_type(&self, resource_type: &'static str) -> Result<(), Stop> {
        let access = self.pulls.0.grants.access(self.connection.id, RefreshedBy::Pull).await;
        let profile = access.map_err(|cause| Stop::Access(cause.to_string()))?.profile;
        let mut seen = Seen::default();
        let failure = match plan(profile, resource_type) {
            None => Some((TypeState::Unsupported, "no plan asks for this type".to_owned())),
            Some(Plan::ReadPatient) => self.read_patient(resource_type, &mut seen).await?,
            Some(Plan::Search { first, otherwise }) => {
                self.search_all(resource_type, first, otherwise, &mut seen).await?
            }
        };
        let count = seen.ids.len();
        let (state, note) = match failure {
            None if seen.strange > 0 => {
                tracing::error!(connection = %self.connection.id, resource_type, entries = seen.strange, "a server sent another patient's records; they were not kept");
                (
                    TypeState::Partial,
                    Some(format!("{} entries belong to another patient; they were not kept", seen.strange)),
                )
            }
            None if seen.withheld + seen.unreadable > 0 => (TypeState::Partial, None),
            None => (TypeState::Ok, None),
            Some((_, note)) if count > 0 => (TypeState::Partial, Some(note)),
            Some((state, note)) => (state, Some(note)),
        };
        self.change(|pull| {
            if let Some(report) = pull.types.iter_mut().find(|report| report.resource_type == resource_type) {
                *report = TypeReport {
                    resource_type: resource_type.to_owned(),
                    state,
                    count,
                    withheld: seen.withheld,
                    unreadable: seen.unreadable,
                    note,
                };
            }
        });
        Ok(())
    }

    async fn read_patient(
        &self,
        resource_type: &str,
        seen: &mut Seen,
    ) -> Result<Option<(TypeState, String)>, Stop> {
        let id = self.ehr_patient();
        let address = format!("{resource_type}/{}", fill("{p}", id));
        let body = match self.fetch(Where::Below(address)).await? {
            Ok(body) => body,
            Err(failure) => return Ok(Some(describe(&failure))),
        };
        match read_resource(&body, resource_type) {
            Ok(resource) if resource.id == id => {
                seen.add(&resource);
                self.keep(vec![resource]).await?;
                Ok(None)
            }
            // Whatever else this server sends cannot be trusted to be about the right person.
            Ok(_) => Err(Stop::Access(
                "the server answered with another patient's record; nothing of it was kept".to_owned(),
            )),
            Err(cause) => Ok(Some((TypeState::Failed, cause.to_string()))),
        }
    }

    /// All queries of a plan; when the server calls one of them bad, those that stand in for them.
    async fn search_all(
        &self,
        resource_type: &'static str,
        first: &[&str],
        otherwise: &[&str],
        seen: &mut Seen,
    ) -> Result<Option<(TypeState, String)>, Stop> {
        let mut worst = None;
        for query in first {
            match self.search(resource_type, query, seen).await? {
                None => {}
                Some(FetchFailure::BadQuery) if !otherwise.is_empty() => {
                    worst = None;
                    for query in otherwise {
                        if let Some(failure) = self.search(resource_type, query, seen).await? {
                            worst.get_or_insert(describe(&failure));
                        }
                    }
                    break;
                }
                Some(failure) => {
                    worst.get_or_insert(describe(&failure));
                }
            }
        }
        Ok(worst)
    }

    async fn search(
        &self,
        resource_type: &'static str,
        query: &str,
        seen: &mut Seen,
    ) -> Result<Option<FetchFailure>, Stop> {
        let mut next = Where::Below(format!("{resource_type}?{}", fill(query, self.ehr_patient())));
        let mut visited: HashSet<[u8; 32]> = HashSet::new();
        for _ in 0..MOST_PAGES {
            let body = match self.fetch(next).await? {
                Ok(body) => body,
                Err(failure) => return Ok(Some(failure)),
            };
            let page = match read_page(&body) {
                Ok(page) => page,
                Err(cause) => return Ok(Some(FetchFailure::Content(cause.to_string()))),
            };
            seen.withheld += page.withheld;
            seen.unreadable += page.unreadable;
            // One patient's record never lands on another's, whatever the server took our query for.
            let (resources, strange): (Vec<Incoming>, Vec<Incoming>) =
                page.resources.into_iter().partition(|resource| self.is_ours(resource, resource_type));
            seen.strange += strange.iter().filter(|resource| self.is_strangers(resource)).count();
            for resource in resources.iter().filter(|resource| !resource.companion) {
                seen.add(resource);
            }
            self.keep(resources).await?;
            let Some(link) = page.next else { return Ok(None) };
            if link.len() > LONGEST_LINK {
                return Ok(Some(FetchFailure::Content("the server's page link is too long".to_owned())));
            }
            if !visited.insert(sha256(link.as_bytes())) {
                return Ok(Some(FetchFailure::Content("the server's pages lead in a circle".to_owned())));
            }
            next = Where::Link(link);
        }
        Ok(Some(FetchFailure::Content("the server's pages do not end".to_owned())))
    }

    async fn fetch(&self, place: Where) -> Result<Result<bytes::Bytes, FetchFailure>, Stop> {
        let fetched = match &place {
            Where::Below(address) => self.pulls.0.fetcher.below(self.connection.id, address).await,
            Where::Link(link) => self.pulls.0.fetcher.link(self.connection.id, link).await,
        };
        match fetched {
            Err(FetchFailure::Access(cause)) => Err(Stop::Access(cause)),
            other => Ok(other),
        }
    }

    async fn keep(&self, resources: Vec<Incoming>) -> Result<(), Stop> {
        if resources.is_empty() {
            return Ok(());
        }
        let (id, now) = (self.connection.id, self.pulls.0.clock.now());
        let patient: PatientKey = self.connection.patient;
        let kept = self
            .pulls
            .0
            .store
            .write(move |change| {
                // What was erased or disconnected while a page was on its way is not filled again.
                let active = Connection::find(change, id)?
                    .is_some_and(|connection| connection.status == ConnectionStatus::Active);
                if active { stored::keep(change, patient, id, now, resources).map(Some) } else { Ok(None) }
            })
            .await?;
        let Some(kept) = kept else { return Err(Stop::Access("the connection has ended".to_owned())) };
        self.change(|pull| pull.stored += kept);
        Ok(())
    }

    /// Matches are of the type asked for, companions may be of any; neither names another patient as its own.
    fn is_ours(&self, resource: &Incoming, wanted: &str) -> bool {
        (resource.companion || resource.resource_type == wanted) && !self.is_strangers(resource)
    }

    fn is_strangers(&self, resource: &Incoming) -> bool {
        resource.owner.as_deref().is_some_and(|owner| owner != self.ehr_patient())
    }

    fn ehr_patient(&self) -> &str {
        self.connection.ehr_patient.as_ref().map_or("", crate::smart::EhrPatientId::as_str)
    }

    fn change(&self, with: impl FnOnce(&mut Pull)) {
        with(&mut self.pull.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

/// Where to read: below the base, or where a page says.
enum Where {
    Below(String),
    Link(String),
}

/// What came of one type.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    withheld: usize,
    unreadable: usize,
    /// Entries about another patient, which were not kept.
    strange: usize,
}

impl Seen {
    fn add(&mut self, resource: &Incoming) {
        self.ids.insert(resource.id.clone());
    }
}

fn describe(failure: &FetchFailure) -> (TypeState, String) {
    let state = match failure {
        FetchFailure::Forbidden => TypeState::Forbidden,
        FetchFailure::NotThere => TypeState::Unsupported,
        FetchFailure::BadQuery
        | FetchFailure::Access(_)
        | FetchFailure::Elsewhere
        | FetchFailure::Content(_)
        | FetchFailure::GaveUp(_) => TypeState::Failed,
    };
    (state, failure.to_string())
}

fn verdict(types: &[TypeReport]) -> PullState {
    let asked = || types.iter().filter(|report| report.state != TypeState::NotShared);
    let good = |report: &TypeReport| matches!(report.state, TypeState::Ok | TypeState::Unsupported);
    if asked().all(good) && asked().any(|report| report.state == TypeState::Ok) {
        PullState::Succeeded
    } else if asked().any(|report| matches!(report.state, TypeState::Ok | TypeState::Partial)) {
        PullState::Partial
    } else {
        PullState::Failed
    }
}
