//! Who read whose records, for the operator.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::app::Parts;
use crate::control::{Refused, workspace_named};
use crate::events::Subject;
use crate::id::{ConnectionId, Id as _};

/// The most entries of one answer: as many as an answer over the socket has room for.
const MOST: usize = 2000;

/// Whose records.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessesOf {
    /// Those of a connection, read live: `conn_…`.
    Connection(String),
    /// What is kept of a patient.
    Patient {
        /// The workspace's name.
        workspace: String,
        /// The app's own id.
        patient_id: String,
    },
}

/// The latest accesses, newest first.
pub(super) async fn accesses(parts: &Parts, whose: AccessesOf, most: usize) -> Result<Json, Refused> {
    let subject = match whose {
        AccessesOf::Connection(text) => {
            let wrong = |_| Refused(format!("`{text}` is no connection's id, which looks like conn_01K…"));
            Subject::Connection(ConnectionId::parse(&text).map_err(wrong)?)
        }
        AccessesOf::Patient { workspace, patient_id } => {
            let workspace = workspace_named(parts, &workspace).await?;
            let found = parts.patients.find(workspace.id, &patient_id).await?;
            let none = || Refused(format!("the workspace `{}` has no such patient", workspace.name));
            Subject::Patient(found.ok_or_else(none)?.key)
        }
    };
    let entries = parts.accesses.of(subject, most.min(MOST)).await?;
    let rows = entries.into_iter().map(|entry| {
        json!({
            "at": entry.at.to_string(), "key": entry.key, "interaction": entry.interaction, "type": entry.kind,
            "status": entry.status,
        })
    });
    Ok(Json::Array(rows.collect()))
}
