//! Whether a hospital lets us in: some vendors' hospitals each switch an app on themselves, after somebody asks them.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

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
        matches!(self, Self::Active | Self::Verified)
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

/// Whether a registration at this vendor is good at every hospital at once. Where each hospital must switch it on, a
/// patient who is sent there before meets an error page.
pub fn opens_everywhere(vendor: &str) -> bool {
    !matches!(vendor, "cerner" | "cerner-provider" | "meditech" | "generic")
}
