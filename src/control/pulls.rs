//! Commands about pulls: the completeness report of a connection, reading now, and holding.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{Refused, find_source};
use crate::app::Parts;
use crate::id::{ConnectionId, Id as _, SourceId};
use crate::records::{Pull, TypeReport};

/// What can be asked about pulls.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum PullsCommand {
    /// Tells what the latest pull of a connection brought, and what it could not get.
    Report {
        /// `conn_…`
        connection: String,
    },
    /// Reads a connection's records now.
    Now {
        /// `conn_…`
        connection: String,
    },
    /// Holds pulls from a source, or from all.
    Pause {
        /// `fhirsrc_…` or the base URL.
        source: Option<String>,
    },
    /// Lets them go on.
    Resume {
        /// `fhirsrc_…` or the base URL.
        source: Option<String>,
    },
}

/// Carries a command out.
pub(super) async fn execute(parts: &Parts, command: PullsCommand) -> Result<Json, Refused> {
    let pulls = parts.records.pulls();
    match command {
        PullsCommand::Report { connection } => report(parts, &connection).await,
        PullsCommand::Now { connection } => {
            let id = known(parts, &connection).await?;
            if !pulls.want(id).await? {
                return Err(Refused(format!(
                    "`{connection}` has no access any more, so nothing can be read; the patient must connect again"
                )));
            }
            Ok(json!({ "connection": connection, "state": "wanted" }))
        }
        PullsCommand::Pause { source } => {
            let source = chosen(parts, source)?;
            pulls.pause(source).await?;
            Ok(json!({ "source": name(parts, source), "state": "held" }))
        }
        PullsCommand::Resume { source } => {
            let source = chosen(parts, source)?;
            if pulls.resume(source).await? {
                return Ok(json!({ "source": name(parts, source), "state": "goes on" }));
            }
            let held = pulls.paused().await?;
            let held: Vec<String> = held.keys().map(|source| name(parts, *source)).collect();
            let held = if held.is_empty() {
                "nothing is".to_owned()
            } else {
                format!("held are: {}", held.join(", "))
            };
            Err(Refused(format!("pulls from {} are not held; {held}", name(parts, source))))
        }
    }
}

async fn known(parts: &Parts, connection: &str) -> Result<ConnectionId, Refused> {
    let none = || Refused(format!("there is no connection `{connection}`; an id looks like conn_01K…"));
    let id = ConnectionId::parse(connection).map_err(|_| none())?;
    parts.grants.connection(id).await?.map(|_| id).ok_or_else(none)
}

fn chosen(parts: &Parts, source: Option<String>) -> Result<Option<SourceId>, Refused> {
    source.map(|text| find_source(parts, &text).map(|source| source.id)).transpose()
}

fn name(parts: &Parts, source: Option<SourceId>) -> String {
    let Some(id) = source else { return "all sources".to_owned() };
    parts.directory.source(id).map_or_else(|| id.to_string(), |source| source.name.clone())
}

async fn report(parts: &Parts, connection: &str) -> Result<Json, Refused> {
    let id = known(parts, connection).await?;
    let pulls = parts.records.pulls();
    let Some(latest) = pulls.latest(id).await? else {
        return Err(Refused(format!("nothing was read for `{connection}` yet")));
    };
    let held = pulls.paused().await?;
    let held = held.get(&None).or_else(|| held.get(&Some(latest.source)));
    let earlier = pulls.ended(id).await?;
    let earlier = earlier.iter().filter(|pull| pull.id != latest.id).map(|pull| {
        let count: usize = pull.types.iter().map(|report| report.count).sum();
        json!({
            "started_at": pull.started_at.to_string(), "state": pull.state, "records": count, "changed": pull.stored,
            "not_complete": pull.incomplete().map(|report| report.resource_type.as_str()).collect::<Vec<_>>().join(" "),
        })
    });
    Ok(json!({
        "connection": connection, "source": name(parts, Some(latest.source)), "pull": latest.id.to_string(),
        "state": latest.state, "held_since": held.map(ToString::to_string),
        "started_at": latest.started_at.to_string(),
        "finished_at": latest.finished_at.map(|at| at.to_string()),
        "changed": latest.stored, "compared_at": latest.compared_at.map(|at| at.to_string()),
        "next_at": latest.next_at.map(|at| at.to_string()),
        "types": types(&latest), "earlier": earlier.collect::<Vec<_>>(),
    }))
}

fn types(pull: &Pull) -> Vec<Json> {
    let row = |report: &TypeReport| {
        let note = if report.fell_to_none() {
            let before = report.before.unwrap_or_default();
            Some(format!("there were {before} last time, and the server shows none now"))
        } else {
            report.note.clone()
        };
        json!({
            "type": report.resource_type, "state": report.state, "count": report.count, "before": report.before,
            "withheld": report.withheld, "unreadable": report.unreadable, "missing": report.missing,
            "vanished": report.vanished, "oldest": report.oldest, "newest": report.newest, "note": note,
        })
    };
    pull.types.iter().map(row).collect()
}
