//! One type of a pull: its searches one after the other, each page by page, and what is tried when one of them fails.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::crypto::sha256;
use crate::records::bundle::{Incoming, NotFhir, SearchPage, read_page, read_resource};
use crate::records::fetch::{FetchFailure, Where, Wish};
use crate::records::plans::{Ask, Plan, WITH_PROVENANCE, Way, escaped, fill, plan};
use crate::records::pulls::page::Came;
use crate::records::pulls::progress::{self, PageNote, Search, TypeProgress};
use crate::records::pulls::report::{TypeReport, TypeState};
use crate::records::pulls::run::{Stop, Turn};
use crate::store::StoreError;

/// The longest chain of pages followed for one type: a loop that changes its address each time ends here.
const MOST_PAGES: u32 = 10_000;
/// A page link longer than this is a mistake or an attack.
const LONGEST_LINK: usize = 8 * 1024;
/// Searches that may stand for one that the server fails at, and how often each is tried.
const MOST_HALVES: u32 = 96;
const TRIES_OF_A_HALF: u32 = 2;
/// What was updated within so short a time is not taken apart any more.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
/// What has changed is asked for from so long before on.
const OVERLAP: Duration = Duration::from_hours(24);
/// No FHIR R4 server has anything of before.
const FIRST_UPDATE: Timestamp = Timestamp::from_seconds(946_684_800);

/// A type on its way.
pub(super) struct Walk<'t> {
    turn: &'t Turn<'t>,
    resource_type: &'static str,
    plan: Option<Plan>,
    progress: TypeProgress,
    /// Digests of the names of what came, and of the links that were followed.
    seen: HashSet<[u8; 16]>,
    visited: HashSet<[u8; 16]>,
    /// The present page was read a second time, because it came broken.
    torn: bool,
}

impl<'t> Walk<'t> {
    /// Begins a type, or goes on with it.
    pub(super) fn new(
        turn: &'t Turn<'t>,
        resource_type: &'static str,
        known: Option<TypeProgress>,
        notes: &[PageNote],
    ) -> Self {
        let plan = plan(turn.access.profile, resource_type);
        let mut walk = Self {
            turn,
            resource_type,
            plan,
            progress: TypeProgress::new(TypeReport::new(resource_type, TypeState::Waiting)),
            seen: notes.iter().flat_map(|note| note.matches.iter().copied()).collect(),
            visited: notes.iter().map(|note| note.link).collect(),
            torn: false,
        };
        if let Some(known) = known {
            // Pages that are read a second time have the links of the first.
            if known.again {
                walk.visited.clear();
            }
            walk.progress = known;
        } else {
            walk.go_on_from_before();
            walk.take_way(walk.first_way());
        }
        walk
    }

    /// Reads what has changed only, where that is enough and the server can tell.
    fn go_on_from_before(&mut self) {
        let can_tell = !self.turn.begun.full && self.plan.is_some_and(|plan| plan.by_update);
        let earlier = self.turn.earlier.as_ref().and_then(|earlier| earlier.report(self.resource_type));
        let Some(earlier) = earlier.filter(|_| can_tell) else { return };
        // A day more: clocks differ, and some servers note a change some time after it.
        self.progress.report.changed_since = earlier.known_as_of.map(|at| at.before(OVERLAP));
        if self.progress.report.changed_since.is_some() {
            self.progress.report.count = earlier.count;
            self.progress.report.vanished = earlier.vanished;
            self.progress.report.oldest.clone_from(&earlier.oldest);
            self.progress.report.newest.clone_from(&earlier.newest);
        }
    }

    /// Reads everything after all.
    fn read_all(&mut self) {
        self.progress.report = TypeReport::new(self.resource_type, TypeState::Waiting);
        self.take_way(self.progress.way);
    }

    pub(super) fn is_of_the_patient(&self) -> bool {
        self.resource_type == "Patient"
    }

    /// Reads the type to its end, or until something stops the pull.
    pub(super) async fn go(mut self) -> Result<(), Stop> {
        match self.plan {
            None => self.trouble(TypeState::Unsupported, "no plan asks for this type"),
            Some(Plan { ask: Ask::ReadPatient, .. }) => self.read_patient().await?,
            Some(Plan { ask: Ask::Search { .. }, .. }) => {
                while let Some(search) = self.progress.todo.front().cloned() {
                    self.turn.may_go_on()?;
                    self.step(&search).await?;
                }
            }
        }
        // The last page's write has said so already, if there was one.
        if self.progress.done { Ok(()) } else { self.end().await }
    }

    async fn read_patient(&mut self) -> Result<(), Stop> {
        let id = self.turn.run.ehr_patient().to_owned();
        let place = Where::Below(format!("Patient/{}", escaped(&id)));
        let fetched = match self.turn.fetch(&place, self.turn.run.pulls.0.fetcher.page()).await? {
            Ok(fetched) => fetched,
            Err(failure) => {
                self.fail(&failure);
                return Ok(());
            }
        };
        match read_resource(&fetched.body, "Patient") {
            Ok(resource) if resource.id == id => {
                let page = SearchPage { resources: vec![resource], ..SearchPage::default() };
                self.take(page, [0; 16]).await
            }
            // Whatever else this server sends cannot be trusted to be about the right person.
            Ok(_) => Err(Stop::Access(
                "the server answered with another patient's record; nothing of it was kept".to_owned(),
            )),
            Err(cause) => {
                self.trouble(TypeState::Failed, cause.to_string());
                Ok(())
            }
        }
    }

    /// One page of a search, whatever comes of it.
    async fn step(&mut self, search: &Search) -> Result<(), Stop> {
        let place = match &self.progress.next {
            Some(link) => Where::Link(link.clone()),
            None => Where::Below(self.address(search)),
        };
        let link = digest(match &place {
            Where::Below(text) | Where::Link(text) => text,
        });
        let usual = self.turn.run.pulls.0.fetcher.page();
        let tries = if search.halved > 0 { TRIES_OF_A_HALF.min(usual.tries) } else { usual.tries };
        let fetched = match self.turn.fetch(&place, Wish { tries, ..usual }).await? {
            Ok(fetched) => fetched,
            Err(failure) => {
                self.failed(search, &failure);
                return Ok(());
            }
        };
        match read_page(&fetched.body) {
            Ok(page) => {
                self.torn = false;
                self.take(page, link).await
            }
            Err(NotFhir::NotJson) if !self.torn => {
                self.torn = true;
                Ok(())
            }
            Err(cause) => {
                self.torn = false;
                self.failed(search, &FetchFailure::Content(cause.to_string()));
                Ok(())
            }
        }
    }

    /// Keeps a page, and where to go on from there.
    async fn take(&mut self, page: SearchPage, link: [u8; 16]) -> Result<(), Stop> {
        let mut progress = self.progress.clone();
        progress.pages += 1;
        progress.report.withheld += page.withheld;
        progress.report.unreadable += page.unreadable;
        progress.next = None;
        self.visited.insert(link);
        match page.next {
            None => finish_search(&mut progress),
            Some(next) if next.len() > LONGEST_LINK => {
                finish_search(&mut progress);
                trouble(&mut progress.report, TypeState::Failed, "the server's page link is too long");
            }
            Some(next) if self.visited.contains(&digest(&next)) => {
                finish_search(&mut progress);
                trouble(&mut progress.report, TypeState::Failed, "the server's pages lead in a circle");
            }
            Some(_) if progress.pages >= MOST_PAGES => {
                progress.todo.clear();
                trouble(&mut progress.report, TypeState::Failed, "the server's pages do not end");
            }
            Some(next) => progress.next = Some(next),
        }
        // One patient's record never lands on another's, whatever the server took our query for.
        let (resources, others): (Vec<Incoming>, Vec<Incoming>) =
            page.resources.into_iter().partition(|resource| self.is_ours(resource));
        progress.strange += others.iter().filter(|resource| self.is_strangers(resource)).count();
        let came = Came::sort(self.turn, resources, link, &self.seen);
        for digest in &came.note.matches {
            self.seen.insert(*digest);
        }
        progress.report.count = match progress.report.changed_since {
            None => self.seen.len(),
            Some(_) => progress.report.count.max(self.seen.len()),
        };
        for day in &came.days {
            progress.report.note_day(Some(day));
        }
        if progress.todo.is_empty() {
            self.conclude(&mut progress);
        }
        let kept = came.keep(self.turn, &progress).await?;
        self.turn.show(&progress, kept);
        self.remember_way(&progress);
        self.progress = progress;
        Ok(())
    }

    /// The next thing to try, or the end of a search, after it failed.
    fn failed(&mut self, search: &Search, failure: &FetchFailure) {
        let later = self.progress.next.is_some();
        let ways = self.ways();
        let way = ways.get(self.progress.way).copied();
        match failure {
            // It knows no changes, and says so.
            FetchFailure::BadQuery if !later && self.progress.report.changed_since.is_some() => {
                self.read_all();
            }
            // Pages lapse; a search that is begun anew has new ones.
            FetchFailure::BadQuery | FetchFailure::NotThere if later && !self.progress.again => {
                self.progress.again = true;
                self.progress.next = None;
                self.visited.clear();
            }
            FetchFailure::BadQuery if !later && self.is_first(search, way) => {
                if self.progress.way + 1 < ways.len() {
                    self.take_way(self.progress.way + 1);
                } else {
                    self.fail(failure);
                    self.progress.todo.clear();
                }
            }
            // A category that a server does not know is one that it has nothing of.
            FetchFailure::BadQuery if !later => {
                let refused = search.query.split("category=").nth(1).and_then(|rest| rest.split('&').next());
                let what =
                    refused.map_or_else(|| "one search".to_owned(), |name| format!("the category {name}"));
                self.progress.report.because(format!("the server does not know {what}"));
                finish_search(&mut self.progress);
            }
            FetchFailure::Forbidden if !later && way.is_some_and(|way| way.provenance) => {
                let queries = way.map(|way| way.queries);
                let without =
                    ways.iter().position(|other| !other.provenance && Some(other.queries) == queries);
                self.take_way(without.unwrap_or(self.progress.way + 1));
            }
            FetchFailure::ServerError(_) if self.plan.is_some_and(|plan| plan.by_update) => {
                self.take_apart(search, failure);
            }
            FetchFailure::BadQuery
            | FetchFailure::NotThere
            | FetchFailure::Forbidden
            | FetchFailure::NotAcceptable
            | FetchFailure::Access(_)
            | FetchFailure::Elsewhere
            | FetchFailure::Content(_)
            | FetchFailure::ServerError(_)
            | FetchFailure::Rest(_)
            | FetchFailure::GaveUp(_) => {
                self.fail(failure);
                finish_search(&mut self.progress);
            }
        }
    }

    /// A server that fails at a search may do the halves of it: one record that it cannot give spoils its page for all
    /// others, and a page that is too large for it comes in pieces.
    fn take_apart(&mut self, search: &Search, failure: &FetchFailure) {
        let (from, to) = search.window.unwrap_or((FIRST_UPDATE, self.horizon()));
        let span = to.since(from);
        finish_search(&mut self.progress);
        // When both halves of the whole fail, it is not one record.
        if search.halved == 1 && std::mem::replace(&mut self.progress.half_failed, true) {
            self.fail(failure);
            return;
        }
        if span < SHORTEST_WINDOW * 2 || self.progress.halves >= MOST_HALVES {
            self.progress.report.unreadable += 1;
            self.progress.report.because(format!("it leaves out records that it cannot give: {failure}"));
            return;
        }
        self.progress.halves += 2;
        let middle = from.after(span / 2);
        let half = |window| Search { window: Some(window), halved: search.halved + 1, ..search.clone() };
        self.progress.todo.push_back(half((from, middle)));
        self.progress.todo.push_back(half((middle, to)));
    }

    /// Ends the type: on disk, and for who looks.
    async fn end(&mut self) -> Result<(), Stop> {
        let mut progress = self.progress.clone();
        self.conclude(&mut progress);
        let (id, written) = (self.turn.run.connection.id, progress.clone());
        self.turn
            .run
            .pulls
            .0
            .store
            .write(move |change| {
                // What ended meanwhile has forgotten its pull, and does not get one again.
                if progress::begun(change, id)?.is_some() {
                    progress::put_type(change, id, &written);
                }
                Ok::<_, StoreError>(())
            })
            .await?;
        self.turn.show(&progress, 0);
        self.progress = progress;
        Ok(())
    }

    /// The type's last word.
    fn conclude(&self, progress: &mut TypeProgress) {
        let report = &mut progress.report;
        if progress.strange > 0 {
            tracing::error!(
                connection = %self.turn.run.connection.id, resource_type = self.resource_type,
                entries = progress.strange, "a server sent another patient's records; they were not kept"
            );
            let note = format!("{} entries belong to another patient; they were not kept", progress.strange);
            if report.state == TypeState::Waiting {
                report.note = Some(note);
            }
        }
        let lacking = progress.strange + report.withheld + report.unreadable > 0;
        report.state = match report.state {
            TypeState::Waiting if lacking => TypeState::Partial,
            TypeState::Waiting => TypeState::Ok,
            _ if report.count > 0 => TypeState::Partial,
            TypeState::Ok
            | TypeState::Partial
            | TypeState::NotShared
            | TypeState::Forbidden
            | TypeState::Unsupported
            | TypeState::Failed => report.state,
        };
        progress.done = true;
    }

    fn fail(&mut self, failure: &FetchFailure) {
        let state = match failure {
            FetchFailure::Forbidden => TypeState::Forbidden,
            FetchFailure::NotThere => TypeState::Unsupported,
            FetchFailure::BadQuery
            | FetchFailure::NotAcceptable
            | FetchFailure::Access(_)
            | FetchFailure::Elsewhere
            | FetchFailure::Content(_)
            | FetchFailure::ServerError(_)
            | FetchFailure::Rest(_)
            | FetchFailure::GaveUp(_) => TypeState::Failed,
        };
        self.trouble(state, failure.to_string());
    }

    fn trouble(&mut self, state: TypeState, note: impl Into<String>) {
        trouble(&mut self.progress.report, state, note);
    }

    fn ways(&self) -> Vec<Way> {
        self.plan.map(|plan| plan.ways(self.turn.provenance_shared)).unwrap_or_default()
    }

    /// The way to begin with. What one patient's search was refused for may be that patient's own, so reading in full tries
    /// the widest again.
    fn first_way(&self) -> usize {
        let (ways, known) = (self.ways(), self.known_way());
        let narrow = |way: &Way| ways.first().is_some_and(|widest| widest.queries != way.queries);
        if self.turn.begun.full && ways.get(known).is_some_and(narrow) { 0 } else { known }
    }

    /// The way that the source took last time.
    fn known_way(&self) -> usize {
        let key = (self.turn.run.connection.source, self.resource_type, self.turn.provenance_shared);
        let ways = self.turn.run.pulls.0.ways.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ways.get(&key).copied().unwrap_or(0)
    }

    fn remember_way(&self, progress: &TypeProgress) {
        let key = (self.turn.run.connection.source, self.resource_type, self.turn.provenance_shared);
        let mut ways = self.turn.run.pulls.0.ways.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ways.insert(key, progress.way);
    }

    /// Begins the plan's way of this number.
    fn take_way(&mut self, number: usize) {
        let ways = self.ways();
        let Some(way) = ways.get(number).or(ways.first()) else { return };
        self.progress.way = number.min(ways.len() - 1);
        self.progress.next = None;
        self.progress.todo = searches(way, self.turn.run.ehr_patient());
        self.progress.report.narrowed = ways.first().is_some_and(|widest| widest.queries != way.queries);
        if let Some(since) = self.progress.report.changed_since {
            let window = Some((since, self.horizon()));
            self.progress.todo.iter_mut().for_each(|search| search.window = window);
        }
    }

    /// Nothing was updated later than this, also by a clock that is ahead.
    fn horizon(&self) -> Timestamp {
        self.turn.begun.at.after(OVERLAP)
    }

    fn is_first(&self, search: &Search, way: Option<Way>) -> bool {
        let first = way.and_then(|way| searches(&way, self.turn.run.ehr_patient()).pop_front());
        first.is_some_and(|first| first.query == search.query)
    }

    fn address(&self, search: &Search) -> String {
        let window = search.window.map(|(from, to)| {
            let (from, to) = (escaped(&from.to_string()), escaped(&to.to_string()));
            format!("&_lastUpdated=ge{from}&_lastUpdated=le{to}")
        });
        format!("{}?{}{}", self.resource_type, search.query, window.unwrap_or_default())
    }

    /// Matches are of the type asked for, companions may be of any; neither names another patient as its own.
    fn is_ours(&self, resource: &Incoming) -> bool {
        (resource.companion || resource.resource_type == self.resource_type) && !self.is_strangers(resource)
    }

    fn is_strangers(&self, resource: &Incoming) -> bool {
        resource.owner.as_deref().is_some_and(|owner| owner != self.turn.run.ehr_patient())
    }
}

fn searches(way: &Way, patient: &str) -> VecDeque<Search> {
    let query = |query: &&str| {
        let provenance = if way.provenance { WITH_PROVENANCE } else { "" };
        Search { query: format!("{}{provenance}", fill(query, patient)), window: None, halved: 0 }
    };
    way.queries.iter().map(query).collect()
}

/// Goes on to the next search.
fn finish_search(progress: &mut TypeProgress) {
    progress.todo.pop_front();
    progress.next = None;
    progress.again = false;
}

/// Notes the first trouble.
fn trouble(report: &mut TypeReport, state: TypeState, note: impl Into<String>) {
    if report.state == TypeState::Waiting {
        report.state = state;
        report.note = Some(note.into());
    }
}

fn digest(text: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&sha256(text.as_bytes())[..16]);
    out
}
