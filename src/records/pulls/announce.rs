//! What webhooks tell of a pull that has ended.

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::clock::Timestamp;
use crate::events::{EventKind, Fact};
use crate::grants::{Announcements, Connection};
use crate::id::Id as _;
use crate::records::pulls::PULLS;
use crate::records::pulls::report::{Pull, PullState, TypeReport};
use crate::store::{Change, Range, Reader as _, StoreError};
use crate::workspaces::Patients;

#[derive(Serialize)]
struct SyncShape {
    resource_type: &'static str,
    patient_id: String,
    connection_id: String,
    #[serde(flatten)]
    outcome: SyncOutcome,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SyncOutcome {
    Completed { total: usize, changed: usize, errors: usize, duration_ms: u64 },
    Failed { error_message: String },
}

/// Tells of the end of a pull, as part of the write of its end and before its own row is there: the first pull of a
/// connection always tells, a later one when it brought something or failed.
pub(super) fn ended(
    change: &mut Change<'_>,
    announcements: &Announcements,
    connection: &Connection,
    pull: &Pull,
    earlier: Option<&Pull>,
    now: Timestamp,
) -> Result<(), StoreError> {
    if gaps(pull) != earlier.map_or_else(Vec::new, gaps) && !gaps(pull).is_empty() {
        announcements.incomplete(change, connection, gaps(pull), report(pull), now)?;
    }
    let first = change.keys(PULLS, &Range::of(&connection.id.to_bytes()).limit(1))?.is_empty();
    let failed = pull.state == PullState::Failed;
    if !failed && !first && pull.stored == 0 {
        return Ok(());
    }
    let Some(patient) = Patients::by_key(change, connection.workspace, connection.patient)? else {
        return Ok(());
    };
    let kind = if failed { EventKind::SyncFailed } else { EventKind::SyncCompleted };
    let fact = Fact { workspace: connection.workspace, patient: connection.patient, kind, at: now };
    announcements.outbox().emit(change, fact, |_| {
        let outcome = if failed {
            SyncOutcome::Failed { error_message: pull.reason() }
        } else {
            SyncOutcome::Completed {
                total: pull.types.iter().map(|report| report.count).sum(),
                changed: pull.stored,
                errors: pull.types.iter().filter(|report| report.state.is_trouble()).count(),
                duration_ms: u64::try_from(now.since(pull.started_at).as_millis()).unwrap_or(u64::MAX),
            }
        };
        Ok(SyncShape {
            resource_type: "records_sync",
            patient_id: patient.patient_id,
            connection_id: pull.source.to_string(),
            outcome,
        })
    })
}

/// The types that are not all there, or of which nothing is left.
fn gaps(pull: &Pull) -> Vec<String> {
    let lacking = |report: &&TypeReport| report.state.is_trouble() || report.fell_to_none();
    pull.types.iter().filter(lacking).map(|report| report.resource_type.clone()).collect()
}

/// The completeness report as it is told.
fn report(pull: &Pull) -> Json {
    let types = pull.types.iter().map(|report| {
        json!({
            "type": report.resource_type, "state": report.state, "count": report.count, "before": report.before,
            "withheld": report.withheld, "unreadable": report.unreadable, "missing": report.missing,
            "vanished": report.vanished, "note": report.note,
        })
    });
    json!({
        "pull_id": pull.id.to_string(), "state": pull.state, "changed": pull.stored,
        "types": types.collect::<Vec<_>>(),
    })
}
