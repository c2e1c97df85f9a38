//! Custody of what patients agreed to. Whoever needs an access token asks here, and after the first exchange only this
//! room talks to token endpoints. Knows no routes.

mod announcements;
mod arrivals;
mod connections;
mod custody;
mod due;
mod ehr_launches;
mod ending;
mod grant;
mod held;
mod launch_contexts;
mod ledger;
mod refresh;
mod refusals;
mod schedule;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use crate::clock::Clock;
use crate::crypto::Random;
use crate::directory::{Directory, Source};
use crate::id::ConnectionId;
use crate::shutdown::Shutdown;
use crate::smart::launch::Probe;
use crate::smart::scopes::ScopeSet;
use crate::smart::{FhirBaseUrl, LaunchFailure, Launcher, TokenClient};
use crate::store::{Store, StoreError};

pub use announcements::{Announcements, AttemptShape, SessionShape};
pub use connections::{Connection, ConnectionStatus, FailureNote};
pub use custody::{Access, AccessError};
pub use ehr_launches::EhrDeparture;
pub use grant::{Grant, PULLS_WANTED, PullWanted, Refreshed, Refreshes, remove_in};
pub use launch_contexts::{LaunchContext, LaunchOutcome, Opened};
pub use ledger::{Held, Ledger, LedgerEntry, Suspended, Upcoming};
pub use refresh::{AtStep, RefreshStep};
pub use refusals::Refusals;

use custody::{Fresh, Gate};
use ehr_launches::Departures;
use ending::GIVEN_BACK_AT_ONCE;

/// Connections and their grants. Clones share them.
#[derive(Clone)]
pub struct Grants(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    random: Random,
    directory: Directory,
    launcher: Launcher,
    tokens: TokenClient,
    announcements: Announcements,
    shutdown: Shutdown,
    /// Access tokens in use, so that the common case needs neither the store nor a key.
    fresh: Mutex<HashMap<ConnectionId, Fresh>>,
    /// One gate a connection: at most one refresh of it is in flight.
    gates: Mutex<HashMap<ConnectionId, Arc<Gate>>>,
    /// Counts ended connections, so that a token that comes late is not kept in memory.
    ended: AtomicU64,
    /// Launches that are being finished, by attempt, for a browser that comes twice.
    finishing: Mutex<HashMap<[u8; 16], watch::Receiver<bool>>>,
    /// Launches from inside EHRs that begin.
    departures: Mutex<Departures>,
    /// Tells the puller that a connection wants one.
    wanted: watch::Sender<u64>,
    /// How long a grant may stand unused.
    keep_alive: Duration,
    /// Tells the schedule that something is due earlier than it knows.
    due_changed: Notify,
    /// Launches whose grants are held on disk at present.
    held: Mutex<HashSet<ConnectionId>>,
    /// Turns at giving tokens back.
    giving_back: Semaphore,
    /// Told of each step of each refresh.
    at_step: OnceLock<AtStep>,
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Grants")
    }
}

impl Grants {
    /// Over the parts it uses. A grant that was not used for `keep_alive` is used by the schedule.
    #[expect(clippy::too_many_arguments, reason = "one argument a part, named once, in `app`")]
    pub fn new(
        store: Store,
        clock: Clock,
        random: Random,
        directory: Directory,
        launcher: Launcher,
        tokens: TokenClient,
        announcements: Announcements,
        shutdown: Shutdown,
        keep_alive: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            random,
            directory,
            launcher,
            tokens,
            announcements,
            shutdown,
            fresh: Mutex::default(),
            gates: Mutex::default(),
            ended: AtomicU64::new(0),
            finishing: Mutex::default(),
            departures: Mutex::default(),
            wanted: watch::Sender::new(0),
            keep_alive,
            due_changed: Notify::new(),
            held: Mutex::default(),
            giving_back: Semaphore::new(GIVEN_BACK_AT_ONCE),
            at_step: OnceLock::new(),
        }))
    }

    /// A connection by its id.
    pub async fn connection(&self, id: ConnectionId) -> Result<Option<Connection>, StoreError> {
        self.0.store.read(move |view| Connection::find(view, id)).await
    }

    /// Where a connection's records are read; `None` when its source is gone.
    pub fn base_of(&self, connection: &Connection) -> Option<FhirBaseUrl> {
        Some(self.0.directory.source(connection.source)?.server().base.clone())
    }

    /// What is told of connections, and the outbox it goes to.
    pub fn announcements(&self) -> &Announcements {
        &self.0.announcements
    }

    /// How long a launch attempt lives.
    pub fn attempt_lifetime(&self) -> Duration {
        self.0.launcher.attempt_lifetime()
    }

    /// The host where the patient of a source signs in, to be named before leaving; the FHIR host when discovery is not
    /// to be had.
    pub async fn sign_in_host(&self, source: &Source) -> String {
        let server = source.server();
        let found = self.0.launcher.discoverer().discover(&server).await;
        let host =
            found.ok().and_then(|found| found.authorization_endpoint.url().host_str().map(str::to_owned));
        host.unwrap_or_else(|| server.base.host().to_owned())
    }

    /// Asks a source's authorization server, without a patient, what it makes of our registration.
    pub async fn probe(&self, source: &Source) -> Result<Probe, LaunchFailure> {
        let parties = self.parties(source.id, source.ehr_client);
        let (server, registration) = parties.ok_or_else(LaunchFailure::source_gone)?;
        self.0.launcher.probe((source.id, &server), (source.ehr_client, &registration)).await
    }

    /// What a patient of a source would be asked to share, and whether the server's own list of scopes was to be had.
    pub async fn wanted_scopes(&self, source: &Source) -> Option<(ScopeSet, bool)> {
        let (server, registration) = self.parties(source.id, source.ehr_client)?;
        Some(self.0.launcher.wanted_scopes(&server, &registration).await)
    }

    /// Has the puller look at the list of wishes again.
    pub fn look_for_wishes(&self) {
        self.0.wanted.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes each time a connection wants its records pulled.
    pub fn pulls_wanted(&self) -> watch::Receiver<u64> {
        self.0.wanted.subscribe()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
