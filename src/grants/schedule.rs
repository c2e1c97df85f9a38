//! The schedule: grants that nobody uses are refreshed before the EHR drops them, refused ones are tried again, and those
//! that cannot be refreshed are ended when they run out. It walks the index of what is due, never all grants, so a box
//! that was off for a day, or whose clock was set, begins with whatever is due by then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::clock::Timestamp;
use crate::events::history::RefreshedBy;
use crate::grants::custody::{AccessError, CLOCK_TOLERANCE, Freshness, Wish};
use crate::grants::grant::{self, GRANTS, Grant, readable};
use crate::grants::refresh::{first_due, read_both};
use crate::grants::refusals::is_about_us;
use crate::grants::{Connection, ConnectionStatus, Grants, due, lock};
use crate::id::{ConnectionId, Id as _};
use crate::smart::TokenFailure;
use crate::store::{Reader as _, StoreError};

/// Grants looked at in one go.
const BATCH: usize = 1024;
/// Refreshes under way at once: of the whole schedule, and at one token endpoint. While signatures are what takes longest,
/// about half of them are at the hospital and the others are being signed or written.
const AT_ONCE: usize = 128;
const AT_ONCE_AT_AN_ENDPOINT: usize = 64;
/// A token endpoint that does not answer is left alone for so long, with all of its grants.
const REST_OF_AN_ENDPOINT: Duration = Duration::from_mins(5);
/// What was not begun after this time is left for a later batch, so that a slow hospital with many grants does not stand
/// before all others.
const BATCH_TIME: Duration = Duration::from_mins(2);
/// No grant is due later than this: tokens live a year at most.
const HORIZON: Duration = Duration::from_hours(400 * 24);
/// A grant that cannot be read is looked at again after so long.
const ASIDE: Duration = Duration::from_hours(24);
/// After a store error, and when nothing was heard of an earlier time.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_mins(10);

/// Token endpoints that are left alone, and until when.
type Resting = Mutex<HashMap<String, Timestamp>>;

/// One grant whose place has come.
struct Due {
    at: Timestamp,
    id: ConnectionId,
    connection: Option<Connection>,
    grant: Option<Grant>,
    /// What stands behind the place is damaged.
    damaged: bool,
}

/// What is to be done with it.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    /// Nothing stands behind the place.
    Clear,
    /// It was used meanwhile.
    Move(Timestamp),
    /// It cannot be read.
    PutAside,
    /// It ran out and cannot be renewed.
    RunOut,
    /// It is to be used.
    Refresh,
}

impl Grants {
    /// Starts the schedule; it ends with the signal to stop.
    pub fn start_schedule(&self) {
        let grants = self.clone();
        self.0.shutdown.spawn(async move { grants.run_schedule().await });
    }

    /// Has the schedule look again: something is due earlier than it knows.
    pub(super) fn look_at_schedule(&self) {
        self.0.due_changed.notify_one();
    }

    /// How long a connection's grant may stand unused.
    pub(super) fn keep_alive_of(&self, connection: &Connection) -> Duration {
        let profile = self.0.directory.source(connection.source).map(|source| source.server().profile);
        // Half of what the EHR allows leaves as much time again to find out what is wrong.
        let allowed = profile.and_then(|profile| profile.refresh_idle_limit).map(|limit| limit / 2);
        let interval = allowed.map_or(self.0.keep_alive, |allowed| allowed.min(self.0.keep_alive));
        due::spread(interval, connection.id)
    }

    async fn run_schedule(&self) {
        let shutdown = &self.0.shutdown;
        while !shutdown.is_triggered() {
            let look = match self.attend().await {
                Ok(next) => {
                    let latest = self.0.clock.now().after(LOOK_AT_LEAST_EVERY);
                    next.map_or(latest, |next| next.min(latest))
                }
                Err(cause) => {
                    tracing::error!(%cause, "the schedule could not read or write the store; it tries again");
                    self.0.clock.now().after(LOOK_AGAIN)
                }
            };
            tokio::select! {
                () = shutdown.triggered() => {}
                () = self.0.due_changed.notified() => {}
                // A clock that was ahead and is set right must not make a wait of minutes one of months.
                _ = tokio::time::timeout(LOOK_AT_LEAST_EVERY, self.0.clock.reached(look)) => {}
            }
        }
    }

    /// Does what is due; when the next is. Public for tests and benches, which have no patience for the clock.
    pub async fn attend(&self) -> Result<Option<Timestamp>, StoreError> {
        let resting: Resting = Mutex::default();
        loop {
            // What hospitals would answer could not be kept.
            if !self.0.store.is_writable() {
                return Err(StoreError::Storage("writes have failed".to_owned()));
            }
            self.give_back_held().await?;
            let now = self.0.clock.now();
            let (batch, next) = self.0.store.read(move |view| read_due(view, now)).await?;
            if batch.is_empty() || self.0.shutdown.is_triggered() {
                return Ok(next);
            }
            self.attend_to(batch, now, &resting).await?;
        }
    }

    async fn attend_to(&self, batch: Vec<Due>, now: Timestamp, resting: &Resting) -> Result<(), StoreError> {
        let places: Vec<(Timestamp, ConnectionId)> = batch.iter().map(|due| (due.at, due.id)).collect();
        let (mut moves, mut aside) = (HashMap::new(), HashSet::new());
        let mut by_endpoint: HashMap<String, VecDeque<ConnectionId>> = HashMap::new();
        for due in &batch {
            match self.task(due, now) {
                Task::Clear => {}
                Task::PutAside => {
                    aside.insert(due.id);
                }
                Task::Move(to) => {
                    moves.insert(due.id, to);
                }
                Task::RunOut => {
                    let ended = self.run_out(due.id).await;
                    if let Err(AccessError::Store(cause)) = ended {
                        return Err(cause);
                    }
                }
                Task::Refresh => {
                    let endpoint =
                        due.grant.as_ref().map(|grant| grant.token_server.endpoint.url().to_string());
                    by_endpoint.entry(endpoint.unwrap_or_default()).or_default().push_back(due.id);
                }
            }
        }
        // From here on: what has run out took its time, too.
        let until = self.0.clock.now().after(BATCH_TIME);
        self.refresh_in_turns(by_endpoint, resting, until).await?;
        self.move_on(places, moves, aside, now).await
    }

    fn task(&self, due: &Due, now: Timestamp) -> Task {
        if due.damaged {
            return Task::PutAside;
        }
        let (Some(connection), Some(grant)) = (&due.connection, &due.grant) else { return Task::Clear };
        if grant.due_at != Some(due.at) || connection.status != ConnectionStatus::Active {
            return Task::Clear;
        }
        // Of what was received while the clock was ahead nothing is known but that it should be used.
        let undated = grant.received_at > now.after(CLOCK_TOLERANCE);
        if let Some(refusals) = &grant.refusals {
            let next = refusals.next_try();
            return if next > now && !undated { Task::Move(next) } else { Task::Refresh };
        }
        let wanted = first_due(grant, self.keep_alive_of(connection));
        if wanted > now && grant.failures == 0 && !undated {
            return Task::Move(wanted);
        }
        if grant.refresh_token.is_some() { Task::Refresh } else { Task::RunOut }
    }

    /// Refreshes, the earliest first and a few at once at each token endpoint, so that one in trouble holds up its own grants
    /// only.
    async fn refresh_in_turns(
        &self,
        mut by_endpoint: HashMap<String, VecDeque<ConnectionId>>,
        resting: &Resting,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let turns: HashMap<String, Semaphore> = by_endpoint
            .keys()
            .map(|endpoint| (endpoint.clone(), Semaphore::new(AT_ONCE_AT_AN_ENDPOINT)))
            .collect();
        let all_turns = Semaphore::new(AT_ONCE);
        // One of each in turn: an endpoint with many does not stand before the others.
        let mut order = Vec::new();
        while !by_endpoint.is_empty() {
            by_endpoint.retain(|endpoint, ids| {
                order.extend(ids.pop_front().map(|id| (endpoint.clone(), id)));
                !ids.is_empty()
            });
        }
        let (turns, all_turns) = (&turns, &all_turns);
        let refreshes = order.into_iter().map(|(endpoint, id)| {
            async move {
                // Who waits for its endpoint takes no place from the others.
                let _turn = match turns.get(&endpoint) {
                    Some(turns) => turns.acquire().await.ok(),
                    None => None,
                };
                let _place = all_turns.acquire().await.ok();
                let now = self.0.clock.now();
                let rests = lock(resting).get(&endpoint).is_some_and(|until| now < *until);
                if rests || now >= until || self.0.shutdown.is_triggered() {
                    return Ok(());
                }
                let wish = Wish { by: RefreshedBy::Schedule, rejected: None, freshness: Freshness::New };
                match self.renewed(id, wish).await {
                    Err(AccessError::NotNow(failure)) if failure.is_trouble() || refuses_us(&failure) => {
                        lock(resting).insert(endpoint, now.after(REST_OF_AN_ENDPOINT));
                        Ok(())
                    }
                    Err(AccessError::Store(cause)) => Err(cause),
                    _ => Ok(()),
                }
            }
        });
        // All of a batch wait at once, each at its own endpoint.
        let mut running: FuturesUnordered<_> = refreshes.collect();
        while let Some(done) = running.next().await {
            done?;
        }
        Ok(())
    }

    /// Whatever still stands at the place it had is moved on, so that the schedule never turns on the spot.
    async fn move_on(
        &self,
        places: Vec<(Timestamp, ConnectionId)>,
        moves: HashMap<ConnectionId, Timestamp>,
        aside: HashSet<ConnectionId>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.0.shutdown.is_triggered() {
            return Ok(());
        }
        self.0
            .store
            .write(move |change| {
                for (at, id) in places {
                    // A refresh has moved its grant on already.
                    if !due::stands(change, id, at)? {
                        continue;
                    }
                    if aside.contains(&id) {
                        due::put_aside(change, id, at, now.after(ASIDE));
                        continue;
                    }
                    let grant = readable(change.get(GRANTS, &id.to_bytes()))?;
                    match grant.filter(|grant| grant.due_at == Some(at)) {
                        Some(mut grant) => {
                            let later = now.after(due::spread(REST_OF_AN_ENDPOINT * 2, id));
                            due::set(change, id, &mut grant, moves.get(&id).copied().unwrap_or(later));
                            grant::put(change, id, &grant);
                        }
                        None => due::clear_place(change, id, at),
                    }
                }
                Ok::<_, StoreError>(())
            })
            .await
    }
}

/// What is due by `now`, and when the first that is not will be.
fn read_due(
    view: &crate::store::View<'_>,
    now: Timestamp,
) -> Result<(Vec<Due>, Option<Timestamp>), StoreError> {
    let read = |(at, id)| match read_both(view, id) {
        Ok((connection, grant)) => Ok(Due { at, id, connection, grant, damaged: false }),
        // One row that cannot be read must not stand before all the others.
        Err(StoreError::Damaged(table)) => {
            tracing::error!(table, connection = %id, "a row of custody cannot be read; it is put aside for a day");
            Ok(Due { at, id, connection: None, grant: None, damaged: true })
        }
        Err(other) => Err(other),
    };
    let mut batch = Vec::new();
    for place in due::beyond(view, now.after(HORIZON), BATCH)? {
        batch.push(read(place)?);
    }
    for place in due::first(view, BATCH)? {
        if place.0 > now {
            return Ok((batch, Some(place.0)));
        }
        batch.push(read(place)?);
    }
    Ok((batch, None))
}

/// Whether a hospital refuses us and not one patient's grant: then it refuses the next one, too.
fn refuses_us(failure: &TokenFailure) -> bool {
    match failure {
        TokenFailure::Refused { error, status } => {
            is_about_us(error.known_code().unwrap_or_default(), *status)
        }
        TokenFailure::NotOAuth { .. }
        | TokenFailure::Unusable(_)
        | TokenFailure::NoAnswer(_)
        | TokenFailure::Signing(_) => false,
    }
}
