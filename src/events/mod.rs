//! What happened and who should know: incidents behind the reference codes that patients and staff are shown, the history
//! of each connection, and the outbox of webhooks. It stands above the rooms that cause events, because a change and its
//! events are one transaction.

mod accesses;
mod delivery;
mod endpoints;
pub mod history;
mod incidents;
mod kinds;
mod lanes;
mod outbox;
mod retention;
mod signature;
mod webhooks;

pub use accesses::{AccessEntry, Accesses, Interaction, Place, Subject, TrailFull};
pub use delivery::{DELAYS, Keep, RedeliverError};
pub use endpoints::{EarlierSecret, EndpointStatus, SigningSecret, WebhookEndpoint};
pub use incidents::{INCIDENTS, Incident};
pub use kinds::{EventKind, Wanted};
pub use outbox::{Event, EventRecord, Fact, Outbox, forget_patient};
pub use webhooks::{EndpointPatch, NewEndpoint, WebhookError, WebhookSettings, Webhooks};

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
