//! Exports, for the operator: what there is, how far it is, and having one run now.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::app::Parts;
use crate::control::Refused;
use crate::exports::{ExportRefused, ExportRun};

/// The most runs of one answer.
const MOST: usize = 100;

/// What can be asked about exports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "exports", rename_all = "kebab-case")]
pub enum ExportsCommand {
    /// The exports of the configuration, each with its latest run.
    List,
    /// The runs of one, newest first.
    Runs {
        /// Its name.
        name: String,
        /// At most so many.
        most: usize,
    },
    /// Has one run now.
    Run {
        /// Its name.
        name: String,
        /// Everything, not only what has changed.
        full: bool,
    },
}

impl From<ExportRefused> for Refused {
    fn from(refused: ExportRefused) -> Self {
        Self(refused.to_string())
    }
}

pub(super) async fn execute(parts: &Parts, command: ExportsCommand) -> Result<Json, Refused> {
    match command {
        ExportsCommand::List => {
            let rows = parts.exports.list().await?.into_iter().map(|(export, run)| {
                json!({
                    "name": export.name, "workspace": export.workspace, "directory": export.directory,
                    "run": run.as_ref().map(|run| run.number), "state": run.as_ref().map(|run| run.state),
                    "finished_at": run.as_ref().and_then(|run| run.finished_at).map(|at| at.to_string()),
                    "trouble": run.as_ref().and_then(|run| run.trouble.clone()),
                })
            });
            Ok(Json::Array(rows.collect()))
        }
        ExportsCommand::Runs { name, most } => {
            let runs = parts.exports.runs(&name, most.min(MOST)).await?;
            Ok(Json::Array(runs.iter().map(row).collect()))
        }
        ExportsCommand::Run { name, full } => {
            let run = parts.exports.run(&name, full).await?;
            Ok(run.as_ref().map_or(Json::Null, row))
        }
    }
}

fn row(run: &ExportRun) -> Json {
    json!({
        "run": run.number, "full": run.full, "state": run.state, "started_at": run.started_at.to_string(),
        "finished_at": run.finished_at.map(|at| at.to_string()), "patients": run.patients, "expected": run.expected,
        "records": run.records, "bytes": run.bytes, "file": run.file, "failures": run.failures,
        "trouble": run.trouble,
    })
}
