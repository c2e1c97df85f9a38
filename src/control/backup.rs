//! The commands about backups.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::app::Parts;
use crate::control::Refused;
use crate::store::BackupState;

/// Begins a backup; how far it is can be asked.
pub(super) fn begin(parts: &Parts, to: Option<PathBuf>) -> Result<Json, Refused> {
    if to.as_ref().is_some_and(|to| !to.is_absolute()) {
        return Err(Refused("the file of a backup is named with its whole path".to_owned()));
    }
    match parts.backups.begin(to) {
        Some(_) => Ok(state(parts)),
        None => Err(Refused("a backup is being made already; see `chartgate backup --status`".to_owned())),
    }
}

/// How far the latest one is.
pub(super) fn state(parts: &Parts) -> Json {
    match parts.backups.state() {
        BackupState::None => {
            json!({ "state": "none", "newest": parts.backups.newest().map(|at| at.to_string()) })
        }
        BackupState::Running { to, rows, total, checking } => {
            let state = if checking { "checking" } else { "writing" };
            json!({ "state": state, "file": to, "rows": rows, "total": total })
        }
        BackupState::Made { to, report } => json!({
            "state": "made", "file": to, "made_at": report.made_at.to_string(), "rows": report.rows, "bytes": report.bytes,
        }),
        BackupState::Failed { to, why } => json!({ "state": "failed", "file": to, "why": why }),
    }
}
