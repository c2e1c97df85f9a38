//! What happened and who should know: incidents behind the reference codes that patients and staff are shown, the history
//! of each connection, and the outbox of webhooks. It stands above the rooms that cause events, because a change and its
//! events are one transaction.

mod endpoints;
pub mod history;
mod incidents;
mod kinds;
mod outbox;
mod webhooks;

pub use endpoints::{EarlierSecret, EndpointStatus, SigningSecret, WebhookEndpoint};
pub use incidents::{INCIDENTS, Incident};
pub use kinds::{EventKind, Wanted};
pub use outbox::{Event, Fact, Outbox, forget_patient};
pub use webhooks::{EndpointPatch, NewEndpoint, WebhookError, Webhooks};
