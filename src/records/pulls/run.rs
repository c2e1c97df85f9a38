//! One pull from its first turn to its end: what is read in which order, and what stops it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::events::history::RefreshedBy;
use crate::grants::{Access, Connection, PULLS_WANTED};
use crate::id::{ConnectionId, Id as _};
use crate::records::fetch::{FetchFailure, Fetched, Where, Wish};
use crate::records::plans::REFERENCED;
use crate::records::pulls::progress::{self, Begun, PageNote, TypeProgress};
use crate::records::pulls::report::{Pull, PullState, TypeReport, TypeState};
use crate::records::pulls::walk::Walk;
use crate::records::pulls::{Pulls, copy, finish};
use crate::records::stored::RECORDS_GONE;
use crate::smart::RESOURCE_TYPES;
use crate::smart::scopes::{Permissions, ScopeSet};
use crate::store::{Range, Reader as _, StoreError};

/// How long a pull that the store could not take waits to be begun again: a full disk must not become a storm of
/// requests at the hospital.
const AFTER_A_FAULT: Duration = Duration::from_mins(1);
/// How often a server may ask to be left alone during one pull.
const MOST_RESTS: u32 = 12;

/// One pull on its way.
pub(super) struct Run {
    pub pulls: Pulls,
    pub connection: Connection,
    pub pull: Arc<Mutex<Pull>>,
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
pub(super) enum Stop {
    /// There is no access.
    Access(String),
    /// Nothing more can be written.
    Store(StoreError),
    /// Others are to have the turn.
    Turn,
    /// It has had all the time that a pull may have.
    TooLong,
    /// The server is to be left alone.
    Rest(Duration),
    /// The operator holds it.
    Held,
    /// The connection was erased.
    Gone,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What one turn of a pull knows.
pub(super) struct Turn<'r> {
    pub run: &'r Run,
    pub begun: Begun,
    /// The pull before, if there was one.
    pub earlier: Option<Pull>,
    pub access: Access,
    /// When others are to have the turn.
    pub until: Instant,
    /// Pages begun.
    pub steps: AtomicUsize,
    /// Some records of the connection are marked as gone.
    pub marked: bool,
    /// The types that may be read by reference.
    pub referenced: Vec<&'static str>,
    pub attachments_shared: bool,
    pub provenance_shared: bool,
    /// Things noted to be read by reference.
    pub wanted: AtomicUsize,
    /// What came along with others so far, by type.
    pub companions: Mutex<HashMap<String, HashSet<[u8; 16]>>>,
    /// Types whose references the server refuses.
    pub refused: Mutex<BTreeSet<String>>,
}

/// The reports of a pull that has read nothing yet.
pub(super) fn first_reports(connection: &Connection) -> Vec<TypeReport> {
    let granted = granted(connection);
    let state = |name: &str| {
        if may(&granted, name, Permissions::NONE) { TypeState::Waiting } else { TypeState::NotShared }
    };
    RESOURCE_TYPES.iter().map(|name| TypeReport::new(name, state(name))).collect()
}

fn granted(connection: &Connection) -> ScopeSet {
    ScopeSet::parse(&connection.scopes.join(" "))
}

/// Reads a few at once, to the end of all of them: who is on the way to a page arrives there, also when the turn of the others
/// is over. Anything else that stops one stops all.
pub(super) async fn all_of(
    reads: Vec<impl Future<Output = Result<(), Stop>>>,
    parallel: usize,
) -> Result<(), Stop> {
    let mut reading = futures_util::stream::iter(reads).buffer_unordered(parallel);
    let mut stopped = Ok(());
    while let Some(read) = reading.next().await {
        match read {
            Err(Stop::Turn) => stopped = Err(Stop::Turn),
            Err(stop) => return Err(stop),
            Ok(()) => {}
        }
    }
    stopped
}

/// Whether the granted scopes let a type be read at all, and with these permissions.
fn may(granted: &ScopeSet, resource_type: &str, permissions: Permissions) -> bool {
    granted.resources().any(|scope| {
        scope.covers(resource_type)
            && !scope.permissions.is_empty()
            && scope.permissions.contains(permissions)
    })
}

impl Run {
    pub(super) fn new(pulls: Pulls, connection: Connection, pull: Arc<Mutex<Pull>>) -> Self {
        let running = Running { pulls: pulls.clone(), id: connection.id };
        Self { pulls, connection, pull, _running: running }
    }

    /// Reads in turns until there is nothing left, or no use.
    pub(super) async fn go(self) {
        let (mut spent, mut rests) = (Duration::ZERO, 0);
        loop {
            let Some(outcome) = self.take_turn(&mut spent).await else { return };
            let ending = match outcome {
                Ok(()) => None,
                Err(Stop::Access(why)) => Some(why),
                Err(Stop::TooLong) => {
                    Some("the server took too long over everything; what was read is kept".to_owned())
                }
                Err(Stop::Turn) => continue,
                Err(Stop::Rest(pause)) if rests < MOST_RESTS => {
                    rests += 1;
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Err(Stop::Rest(_)) => Some("the server asked again and again to be left alone".to_owned()),
                Err(Stop::Held) => {
                    tracing::info!(connection = %self.connection.id, "pull held");
                    return;
                }
                Err(Stop::Gone) => return,
                Err(Stop::Store(cause)) => return self.after_a_fault(&cause).await,
            };
            if let Err(cause) = self.finish(ending).await {
                self.after_a_fault(&cause).await;
            }
            return;
        }
    }

    /// Waits for a turn and reads as long as it lasts. `None` when the program stops.
    async fn take_turn(&self, spent: &mut Duration) -> Option<Result<(), Stop>> {
        let settings = &self.pulls.0.settings;
        // The server's place first: pulls that wait for a server that hangs hold up nobody else.
        let _place = self.pulls.0.fetcher.pace(&self.origin()).pull().await?;
        let _turn = self.pulls.0.turns.acquire().await.ok()?;
        self.change(|pull| pull.state = PullState::Running);
        let since = Instant::now();
        let left = settings.longest.saturating_sub(*spent);
        let outcome = tokio::time::timeout(left, self.one_turn(since + settings.turn)).await;
        *spent += since.elapsed();
        Some(outcome.unwrap_or(Err(Stop::TooLong)))
    }

    /// Nothing more can be written: the pull stays wanted.
    async fn after_a_fault(&self, cause: &StoreError) {
        tracing::error!(connection = %self.connection.id, %cause, "pull stopped");
        tokio::time::sleep(AFTER_A_FAULT).await;
    }

    fn origin(&self) -> String {
        self.pulls
            .0
            .grants
            .base_of(&self.connection)
            .map_or_else(String::new, |base| base.origin().to_owned())
    }

    /// Reads on from where the pull is, the Patient first: it tests token, base and patient id in one request. Then the
    /// rest, a few at once; then what they named.
    async fn one_turn(&self, until: Instant) -> Result<(), Stop> {
        let id = self.connection.id;
        let (begun, earlier) = self.begin().await?;
        let access = self.pulls.0.grants.access(id, RefreshedBy::Pull).await;
        let access = access.map_err(|cause| Stop::Access(cause.to_string()))?;
        let (known, marked, wanted) = self
            .pulls
            .0
            .store
            .read(move |view| {
                let marked = !view.keys(RECORDS_GONE, &Range::of(&id.to_bytes()).limit(1))?.is_empty();
                let wanted = progress::wanted_count(view, id)?;
                Ok::<_, StoreError>((progress::known(view, id)?, marked, wanted))
            })
            .await?;
        let granted = granted(&self.connection);
        // `patient/*` is about the patient's own records; many servers refuse these types under it.
        let named = |name: &str| {
            let mut scopes = granted.resources().filter(|scope| scope.resource_type == name);
            scopes.any(|scope| scope.permissions.contains(Permissions::READ))
        };
        let referenced = REFERENCED.into_iter().filter(|name| named(name));
        let turn = Turn {
            run: self,
            begun,
            earlier,
            access,
            until,
            steps: AtomicUsize::new(0),
            marked,
            referenced: referenced.collect(),
            attachments_shared: may(&granted, "Binary", Permissions::READ),
            provenance_shared: may(&granted, "Provenance", Permissions::NONE),
            wanted: AtomicUsize::new(wanted),
            companions: Mutex::default(),
            refused: Mutex::default(),
        };
        self.change(|pull| {
            (pull.id, pull.started_at, pull.stored) = (begun.pull, begun.at, begun.stored);
            for progress in known.types.iter().filter(|progress| progress.done || progress.report.count > 0) {
                pull.put_report(progress.report.clone());
            }
        });
        let mut notes: HashMap<[u8; 16], Vec<PageNote>> = HashMap::new();
        for (digest, note) in known.pages {
            notes.entry(digest).or_default().push(note);
        }
        turn.remember_companions(&notes);
        let mut walks = Vec::new();
        for name in RESOURCE_TYPES {
            let progress = known.types.iter().find(|progress| progress.report.resource_type == name);
            let shared = may(&granted, name, Permissions::NONE);
            let digest = progress::type_digest(self.pulls.0.store.vault(), name);
            let of_type = notes.get(&digest).map_or(&[][..], Vec::as_slice);
            if shared && progress.is_none_or(|progress| !progress.done) {
                walks.push(Walk::new(&turn, name, progress.cloned(), of_type));
            }
        }
        let (first, rest): (Vec<_>, Vec<_>) = walks.into_iter().partition(Walk::is_of_the_patient);
        for walk in first {
            walk.go().await?;
        }
        let reads: Vec<_> = rest.into_iter().map(Walk::go).collect();
        all_of(reads, self.pulls.0.settings.parallel_per_source).await?;
        turn.read_wanted().await
    }

    /// The beginning on disk, that of before or a new one, and the pull before it.
    async fn begin(&self) -> Result<(Begun, Option<Pull>), StoreError> {
        let (id, now) = (self.connection.id, self.pulls.0.clock.now());
        let (known, earlier, wish) = self
            .pulls
            .0
            .store
            .read(move |view| {
                let wish = view.get(PULLS_WANTED, &id.to_bytes())?;
                Ok::<_, StoreError>((progress::begun(view, id)?, finish::latest(view, id)?, wish))
            })
            .await?;
        if let Some(begun) = known {
            return Ok((begun, earlier));
        }
        // Who asks for a pull, the patient who connects again above all, gets all of it.
        let asked = wish.is_none_or(|wish| !wish.by_schedule);
        let compared = earlier.as_ref().and_then(|earlier| earlier.compared_at);
        let long_ago = compared.is_none_or(|at| now.since(at) >= self.pulls.0.settings.compare_every);
        let begun = Begun { pull: copy(&self.pull).id, at: now, full: asked || long_ago, stored: 0 };
        self.pulls
            .0
            .store
            .write(move |change| {
                progress::begin(change, id, &begun);
                Ok::<_, StoreError>(())
            })
            .await?;
        Ok((begun, earlier))
    }

    pub(super) fn ehr_patient(&self) -> &str {
        self.connection.ehr_patient.as_ref().map_or("", crate::smart::EhrPatientId::as_str)
    }

    pub(super) fn change(&self, with: impl FnOnce(&mut Pull)) {
        with(&mut self.pull.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Turn<'_> {
    /// Whether the turn may go on with another page. However short it is, it has one.
    pub(super) fn may_go_on(&self) -> Result<(), Stop> {
        if self.run.pulls.is_held(self.run.connection.source) {
            return Err(Stop::Held);
        }
        let first = self.steps.fetch_add(1, Ordering::Relaxed) == 0;
        if first || Instant::now() < self.until { Ok(()) } else { Err(Stop::Turn) }
    }

    /// Reads; what ends the whole pull is an outer error.
    pub(super) async fn fetch(
        &self,
        place: &Where,
        wish: Wish<'_>,
    ) -> Result<Result<Fetched, FetchFailure>, Stop> {
        match self.run.pulls.0.fetcher.read(self.run.connection.id, place, wish).await {
            Err(FetchFailure::Access(cause)) => Err(Stop::Access(cause)),
            Err(FetchFailure::Rest(pause)) => Err(Stop::Rest(pause)),
            other => Ok(other),
        }
    }

    fn remember_companions(&self, notes: &HashMap<[u8; 16], Vec<PageNote>>) {
        let mut companions = self.companions();
        let all = notes.values().flatten();
        let digests = all.flat_map(|note| note.companions.iter().copied());
        // Searches bring Provenance along and nothing else.
        companions.entry("Provenance".to_owned()).or_default().extend(digests);
    }

    pub(super) fn companions(&self) -> std::sync::MutexGuard<'_, HashMap<String, HashSet<[u8; 16]>>> {
        self.companions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many more things may be noted to be read by reference.
    pub(super) fn room(&self) -> usize {
        let most = self.run.pulls.0.settings.most_references;
        most.saturating_sub(self.wanted.load(Ordering::Relaxed))
    }

    /// Shows how far a type is, to who looks while the pull is under way.
    pub(super) fn show(&self, progress: &TypeProgress, kept: usize) {
        self.run.change(|pull| {
            pull.put_report(progress.report.clone());
            pull.stored += kept;
        });
    }
}
