//! What lapses next, and what became of one grant: the questions of whoever keeps the box alive.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::app::Parts;
use crate::clock::Timestamp;
use crate::control::Refused;
use crate::grants::Upcoming;
use crate::id::{ConnectionId, Id as _, SourceId};
use crate::server::certificate_ends_at;
use crate::smart::keys::KeyStage;

/// Grants shown: the next ones; a busy box has one due every minute.
const MOST_GRANTS: usize = 50;
/// Keys are replaced yearly by custom; nothing enforces it.
const YEAR: Duration = Duration::from_hours(365 * 24);
const DAY: Duration = Duration::from_hours(24);

/// One line of the calendar.
struct Line {
    at: Timestamp,
    what: &'static str,
    name: String,
    then: String,
}

/// Everything that lapses within so many days: the TLS certificate, API keys, signing keys, and the grants that come due
/// next or that a hospital refuses.
pub(super) async fn calendar(parts: &Parts, days: u32) -> Result<Json, Refused> {
    let now = parts.clock.now();
    let until = now.after(DAY * days);
    let mut lines = Vec::new();
    if let Some(files) = &parts.config.listen.public.tls {
        let pem = tokio::fs::read(&files.certificate).await;
        if let Some(at) = pem.ok().and_then(|pem| certificate_ends_at(&pem)) {
            let then = "browsers and EHRs refuse to connect; replace the file before".to_owned();
            lines.push(Line {
                at,
                what: "tls_certificate",
                name: files.certificate.display().to_string(),
                then,
            });
        }
    }
    for workspace in &parts.config.workspaces {
        let Some(known) = parts.workspaces.named(&workspace.name).await? else { continue };
        for (key, _) in parts.api_keys.list(known.id).await? {
            if let Some(at) = key.expires_at.filter(|at| *at > now && key.revoked_at.is_none()) {
                let then = format!(
                    "the app that uses it is refused; make another with `api-key create`: {}",
                    key.name
                );
                lines.push(Line { at, what: "api_key", name: key.id.to_string(), then });
            }
        }
    }
    for key in parts.signing_keys.list() {
        let (at, then) = match key.next_step_at(parts.signing_keys.overlap()) {
            Some(at) => {
                (at, format!("it is `{}` and may take its next step; see `keys list`", key.stage.name()))
            }
            None if key.stage == KeyStage::Current => {
                let then = "it has signed for a year; `keys rotate` publishes the next one".to_owned();
                (key.stage_since().after(YEAR), then)
            }
            None => continue,
        };
        lines.push(Line { at, what: "signing_key", name: key.kid.clone(), then });
    }
    for grant in parts.grants.suspended(MOST_GRANTS).await? {
        lines.push(suspended(parts, &grant));
    }
    for grant in parts.grants.upcoming(MOST_GRANTS).await? {
        if grant.suspended.is_none() {
            lines.push(due(parts, &grant));
        }
    }
    lines.sort_by_key(|line| line.at);
    let rows = lines.into_iter().filter(|line| line.at <= until).map(|line| {
        json!({
            "at": line.at.to_string(), "in_days": line.at.since(now).as_secs() / DAY.as_secs(),
            "what": line.what, "name": line.name, "then": line.then,
        })
    });
    Ok(Json::Array(rows.collect()))
}

fn suspended(parts: &Parts, grant: &Upcoming) -> Line {
    let code = grant.suspended.as_ref().map_or("", |suspended| suspended.code.as_str());
    let then = format!("{} refuses it (`{code}`) and is asked again", place(parts, grant.source));
    Line { at: grant.at, what: "suspended_grant", name: grant.connection.to_string(), then }
}

fn due(parts: &Parts, grant: &Upcoming) -> Line {
    let place = place(parts, grant.source);
    let then = match (grant.refreshable, grant.lapses_at) {
        (true, lapses) if grant.failures > 0 => {
            let dropped = lapses.map_or_else(String::new, |at| format!("; the hospital drops it at {at}"));
            format!("renewing it at {place} has failed {} times; it is tried again{dropped}", grant.failures)
        }
        (false, _) => format!("access at {place} ends; it cannot be renewed, the patient must connect again"),
        (true, Some(lapses)) => format!("renewed at {place}, which drops it at {lapses} if it is not used"),
        (true, None) => format!("renewed at {place}"),
    };
    Line { at: grant.at, what: "grant", name: grant.connection.to_string(), then }
}

fn place(parts: &Parts, source: SourceId) -> String {
    parts.directory.source(source).map_or_else(|| source.to_string(), |source| source.name.clone())
}

/// The ledger of a connection's grant.
pub(super) async fn ledger(parts: &Parts, connection: &str) -> Result<Json, Refused> {
    let none = || Refused(format!("there is no connection `{connection}`; an id looks like conn_01K…"));
    let id = ConnectionId::parse(connection).map_err(|_| none())?;
    let ledger = parts.grants.ledger(id).await?.ok_or_else(none)?;
    serde_json::to_value(&ledger).map_err(|cause| Refused(cause.to_string()))
}
