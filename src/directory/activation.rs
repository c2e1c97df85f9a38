//! Whether a hospital lets us in: some vendors' hospitals each switch an app on themselves, after somebody asks them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::Environment;
use crate::directory::sources::SOURCES;
use crate::directory::{Directory, DirectoryError, Offer, Source};
use crate::id::{Id as _, SourceId};
use crate::store::{Change, Reader as _, StoreError};

/// Steps that are kept of one source.
const MOST_STEPS: usize = 50;

/// How far a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationState {
    /// Nobody has asked the hospital yet.
    NotAsked,
    /// Asked, and waiting.
    Asked,
    /// The hospital, or the operator, says it is on.
    Active,
    /// A patient or a check has got through.
    Verified,
    /// The hospital said no.
    Refused,
}

impl ActivationState {
    /// Every state, in its usual order.
    pub const ALL: [Self; 5] = [Self::NotAsked, Self::Asked, Self::Active, Self::Verified, Self::Refused];

    /// The word for it on the command line and in answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::Asked => "asked",
            Self::Active => "active",
            Self::Verified => "verified",
            Self::Refused => "refused",
        }
    }

    /// Whether patients may go there.
    pub fn is_open(self) -> bool {
        self.offer() == Offer::Open
    }

    /// What patients are shown.
    pub(super) fn offer(self) -> Offer {
        match self {
            Self::Active | Self::Verified => Offer::Open,
            Self::NotAsked => Offer::NotActivated,
            Self::Asked => Offer::Asked,
            Self::Refused => Offer::Refused,
        }
    }
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationStep {
    /// To this state.
    pub state: ActivationState,
    /// When.
    pub at: Timestamp,
    /// What the operator wrote about it.
    pub note: Option<String>,
}

/// A source's state and how it came there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Now.
    pub state: ActivationState,
    /// The newest last.
    #[serde(default)]
    pub steps: Vec<ActivationStep>,
}

/// What an operator adds by hand is meant to be used.
impl Default for Activation {
    fn default() -> Self {
        Self { state: ActivationState::Active, steps: Vec::new() }
    }
}

impl Activation {
    /// Of a source that nobody has dealt with.
    pub(super) fn untouched() -> Self {
        Self { state: ActivationState::NotAsked, steps: Vec::new() }
    }

    /// The next state.
    #[must_use]
    pub fn then(mut self, state: ActivationState, at: Timestamp, note: Option<String>) -> Self {
        self.state = state;
        self.steps.push(ActivationStep { state, at, note });
        let surplus = self.steps.len().saturating_sub(MOST_STEPS);
        self.steps.drain(..surplus);
        self
    }
}

impl Directory {
    /// Changes how far a source is, and notes it. Without a state, only the note is added.
    pub async fn activate(
        &self,
        environment: Environment,
        id: SourceId,
        state: Option<ActivationState>,
        note: Option<String>,
    ) -> Result<Arc<Source>, DirectoryError> {
        let source = self.choose(environment, id).await?.ok_or(DirectoryError::NoSource(id))?;
        let (directory, now, id) = (self.clone(), self.clock.now(), source.id);
        let changed = self.store.write(move |change| directory.step(change, id, state, now, note)).await?;
        changed.map(Arc::new).ok_or(DirectoryError::NoSource(id))
    }

    /// Notes that somebody got through to a source, as part of the write that keeps what came of it.
    pub fn verify_in(
        &self,
        change: &mut Change<'_>,
        id: SourceId,
        now: Timestamp,
        note: &str,
    ) -> Result<(), StoreError> {
        let new = |source: &Source| source.activation.state != ActivationState::Verified;
        // In memory first: after the first time there is nothing to do.
        let perhaps = self.read_known().sources.get(&id).is_some_and(|source| new(source));
        if perhaps && change.get(SOURCES, &id.to_bytes())?.is_some_and(|source| new(&source)) {
            self.step(change, id, Some(ActivationState::Verified), now, Some(note.to_owned()))?;
        }
        Ok(())
    }

    fn step(
        &self,
        change: &mut Change<'_>,
        id: SourceId,
        state: Option<ActivationState>,
        now: Timestamp,
        note: Option<String>,
    ) -> Result<Option<Source>, StoreError> {
        let Some(source) = change.get(SOURCES, &id.to_bytes())? else { return Ok(None) };
        let state = state.unwrap_or(source.activation.state);
        let source = Source { activation: source.activation.clone().then(state, now, note), ..source };
        self.put_source(change, source.clone());
        Ok(Some(source))
    }
}

/// Whether a registration at this vendor is good at every hospital at once. Where each hospital must switch it on, a
/// patient who is sent there before meets an error page.
pub fn opens_everywhere(vendor: &str) -> bool {
    !matches!(vendor, "cerner" | "cerner-provider" | "meditech" | "generic")
}
