//! What happened and who should know: for now the incidents behind the reference codes that patients and staff are
//! shown. Webhooks, the authorization history and the audit trail will join them here, above the rooms that cause
//! events, because a change and its events are one transaction.

mod incidents;

pub use incidents::{INCIDENTS, Incident};
