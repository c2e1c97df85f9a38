//! Records: what is read from an EHR after a patient agreed, and what is kept of it. Knows no routes.

mod bundle;
mod plans;
mod pulls;
mod queries;
mod stored;
mod text;

use crate::clock::Clock;
use crate::crypto::Random;
use crate::grants::Grants;
use crate::outbound::Outbound;
use crate::shutdown::Shutdown;
use crate::store::Store;

pub use pulls::{Pull, PullSettings, PullState, Pulls, TypeReport, TypeState};
pub use queries::{CursorError, Page, PageQuery, PageRecord, Position};
pub use stored::{StoredRecord, erase};

/// The record store and the puller that fills it. Clones share both.
#[derive(Debug, Clone)]
pub struct Records {
    store: Store,
    clock: Clock,
    pulls: Pulls,
}

impl Records {
    /// Over a store; `shutdown` stops running pulls, which go on at the next start.
    pub fn new(
        store: Store,
        clock: Clock,
        random: Random,
        outbound: Outbound,
        grants: Grants,
        settings: PullSettings,
        shutdown: Shutdown,
    ) -> Self {
        let pulls = Pulls::new(store.clone(), clock.clone(), random, outbound, grants, settings, shutdown);
        Self { store, clock, pulls }
    }

    /// The puller.
    pub fn pulls(&self) -> &Pulls {
        &self.pulls
    }
}
