//! Commands about the directory. A list of a hundred megabytes does not fit the one line of a command: it follows the
//! line as bytes, so that the appliance needs no right to read the file.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Refused;
use crate::app::Parts;
use crate::config::Environment;
use crate::directory::import::ImportLimits;
use crate::directory::{
    ActivationState, ActivationStep, DirectoryList, FetchRequest, ImportProgress, ImportReport,
    ImportRequest, Place, Source, SourceRequest, Upload,
};
use crate::id::{Id as _, SourceId, SourceRequestId};
use crate::smart::FhirBaseUrl;
use crate::smart::launch::Probe;
use crate::web::packet::{Packet, PacketFacts};
use crate::workspaces::Workspace;

const ENVIRONMENTS: [Environment; 2] = [Environment::Live, Environment::Sandbox];
/// Bytes of one piece.
const PIECE: usize = 64 << 10;
/// Hits that `directory search` shows.
const HITS: usize = 20;
/// Requests of one workspace that are shown.
const MOST_REQUESTS: usize = 500;
/// Letters of a note.
const LONGEST_NOTE: usize = 500;

/// What can be asked about the directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum DirectoryCommand {
    /// Imports the list whose bytes follow.
    Import {
        /// Its name.
        list: String,
        /// Whose sources it names.
        environment: Environment,
        /// How many bytes follow.
        bytes: u64,
        /// An empty or much shorter list is meant.
        yes: bool,
    },
    /// Fetches a list and imports it.
    Fetch {
        /// Its name.
        list: String,
        /// Whose sources it names.
        environment: Environment,
        /// Where it is.
        url: String,
        /// An empty or much shorter list is meant.
        yes: bool,
    },
    /// Shows the imported lists.
    Lists,
    /// Searches as a patient does.
    Search {
        /// In this environment.
        environment: Environment,
        /// What was typed.
        words: String,
    },
    /// Removes a list.
    Remove {
        /// Its name.
        list: String,
        /// Its environment.
        environment: Environment,
    },
    /// Notes how far a source is, or tells it.
    Activate {
        /// `fhirsrc_…` or the base URL.
        source: String,
        /// The new state; without one and without a note, nothing changes.
        state: Option<ActivationState>,
        /// What to remember with it.
        note: Option<String>,
    },
    /// Asks a source's authorization server whether it lets us in.
    Probe {
        /// `fhirsrc_…` or the base URL.
        source: String,
    },
    /// Makes the page for hospital IT.
    Packet {
        /// `fhirsrc_…` or the base URL.
        source: String,
        /// Whom the hospital may write to or call.
        contact: Option<String>,
    },
    /// Shows what patients miss.
    Requests {
        /// Of this workspace only.
        workspace: Option<String>,
        /// Those that were dealt with, too.
        all: bool,
    },
    /// Notes that a request was dealt with.
    Close {
        /// `srcreq_…`
        request: String,
        /// What was done about it.
        note: Option<String>,
    },
}

/// Carries a command out, but for an import, which needs [`receive`].
pub async fn execute(parts: &Parts, command: DirectoryCommand) -> Result<Json, Refused> {
    match command {
        DirectoryCommand::Import { .. } => {
            Err(Refused("an import needs the list's bytes; this is a bug in chartgate".to_owned()))
        }
        DirectoryCommand::Fetch { list, environment, url, yes } => {
            let request = FetchRequest { list, environment, url, yes };
            let report = parts.directory.fetch(&parts.outbound, request).await;
            report.map(|report| json!(report)).map_err(|refused| Refused(refused.to_string()))
        }
        DirectoryCommand::Lists => {
            let lists = parts.directory.lists().await?;
            Ok(Json::Array(lists.iter().map(list_row).collect()))
        }
        DirectoryCommand::Search { environment, words } => {
            if !parts.directory.is_indexed(environment) {
                parts.directory.reindex(environment).await?;
            }
            let found = parts.directory.find(environment, &words, HITS);
            if let Some(portal) = found.portal {
                return Err(Refused(format!(
                    "many places use {portal}; type the name of the place or its town as well"
                )));
            }
            Ok(Json::Array(found.places.iter().map(place_row).collect()))
        }
        DirectoryCommand::Remove { list, environment } => {
            let removed = parts.directory.remove_list(environment, &list).await;
            if removed.map_err(|refused| Refused(refused.to_string()))? {
                Ok(json!({ "list": list, "state": "removed" }))
            } else {
                Err(Refused(format!("there is no list `{list}`; see `chartgate directory lists`")))
            }
        }
        DirectoryCommand::Activate { source, state, note } => {
            let source = find_source(parts, &source).await?;
            let note = note.map(|note| note.chars().take(LONGEST_NOTE).collect());
            let source = if state.is_none() && note.is_none() {
                source
            } else {
                let changed = parts.directory.activate(source.environment, source.id, state, note).await;
                changed.map_err(|refused| Refused(refused.to_string()))?
            };
            Ok(activation_row(&source))
        }
        DirectoryCommand::Probe { source } => probe(parts, &source).await,
        DirectoryCommand::Packet { source, contact } => packet(parts, &source, contact.as_deref()).await,
        DirectoryCommand::Requests { workspace, all } => {
            let mut rows = Vec::new();
            for owner in workspaces(parts, workspace.as_deref()).await? {
                let found = parts.source_requests.list(owner.id, all, None, MOST_REQUESTS).await?;
                rows.extend(found.iter().map(|request| request_row(&owner, request)));
            }
            Ok(Json::Array(rows))
        }
        DirectoryCommand::Close { request, note } => close(parts, &request, note).await,
    }
}

/// A source by id or base URL: one of ours, or a place of an imported list.
async fn find_source(parts: &Parts, text: &str) -> Result<Arc<Source>, Refused> {
    let find = || {
        let by_id = SourceId::parse(text).ok().and_then(|id| parts.directory.source(id));
        let by_url = || {
            let base = FhirBaseUrl::parse(text).ok()?;
            ENVIRONMENTS.into_iter().find_map(|environment| parts.directory.source_at(environment, &base))
        };
        by_id.or_else(by_url)
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    for environment in ENVIRONMENTS {
        if !parts.directory.is_indexed(environment) {
            parts.directory.reindex(environment).await?;
        }
    }
    find().ok_or_else(|| {
        Refused(format!(
            "there is no source `{text}`; see `chartgate source list`, or `chartgate directory search`"
        ))
    })
}

async fn probe(parts: &Parts, text: &str) -> Result<Json, Refused> {
    let source = find_source(parts, text).await?;
    let probed = parts.grants.probe(&source).await.map_err(|failure| Refused(failure.staff))?;
    let (outcome, what, who) = match probed {
        Probe::LetIn(host) => ("let-in", format!("patients come to a sign-in page at {host}"), None),
        Probe::Refused(failure) => ("refused", failure.staff, Some(failure.who.words())),
        Probe::Unclear(how) => ("unclear", how, None),
    };
    let state = (outcome == "let-in").then_some(ActivationState::Verified);
    let note: String = format!("probe: {outcome}: {what}").chars().take(LONGEST_NOTE).collect();
    let changed = parts.directory.activate(source.environment, source.id, state, Some(note)).await;
    let changed = changed.map_err(|refused| Refused(refused.to_string()))?;
    Ok(json!({
        "id": changed.id, "name": changed.name, "outcome": outcome, "what": what, "who_acts": who,
        "activation": changed.activation.state.word(),
    }))
}

async fn packet(parts: &Parts, text: &str, contact: Option<&str>) -> Result<Json, Refused> {
    let source = find_source(parts, text).await?;
    let client = parts.directory.client(source.ehr_client);
    let scopes = parts.grants.wanted_scopes(&source).await;
    let (Some(client), Some(scopes)) = (client, scopes) else {
        return Err(Refused(format!("the EHR client of `{}` is no longer there", source.name)));
    };
    let now = parts.clock.now().to_string();
    let packet = Packet::new(PacketFacts {
        source: &source,
        client: &client,
        scopes: &scopes,
        public_url: &parts.config.public_url,
        clinic: &parts.config.clinic_name,
        contact,
        today: now.get(..10).unwrap_or(&now),
    });
    Ok(json!({ "id": source.id, "name": source.name, "text": packet.text(), "html": packet.html() }))
}

async fn workspaces(parts: &Parts, only: Option<&str>) -> Result<Vec<Workspace>, Refused> {
    match only {
        Some(name) => Ok(vec![super::workspace_named(parts, name).await?]),
        None => Ok(parts.workspaces.all().await?),
    }
}

async fn close(parts: &Parts, request: &str, note: Option<String>) -> Result<Json, Refused> {
    let unknown = || Refused(format!("there is no request `{request}`; see `chartgate directory requests`"));
    let id = SourceRequestId::parse(request).map_err(|_| unknown())?;
    let note: Option<String> = note.map(|note| note.chars().take(LONGEST_NOTE).collect());
    for owner in parts.workspaces.all().await? {
        if let Some(closed) = parts.source_requests.close(owner.id, id, note.clone()).await? {
            return Ok(request_row(&owner, &closed));
        }
    }
    Err(unknown())
}

fn activation_row(source: &Source) -> Json {
    let step = |step: &ActivationStep| json!({ "state": step.state.word(), "at": step.at.to_string(), "note": step.note });
    json!({
        "id": source.id, "name": source.name, "activation": source.activation.state.word(),
        "steps": source.activation.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn request_row(owner: &Workspace, request: &SourceRequest) -> Json {
    let place = &request.place;
    json!({
        "id": request.id, "workspace": owner.name, "created_at": request.created_at.to_string(),
        "name": place.name, "city": place.city, "website": place.website, "email": place.email,
        "patient_id": request.patient_id,
        "closed_at": request.closed.as_ref().map(|closed| closed.at.to_string()),
        "note": request.closed.as_ref().and_then(|closed| closed.note.clone()),
    })
}

/// Imports the list whose bytes follow the command.
pub async fn receive(
    parts: &Parts,
    command: DirectoryCommand,
    bytes_from: impl AsyncRead + Unpin,
) -> Result<Json, Refused> {
    let DirectoryCommand::Import { list, environment, bytes, yes } = command else {
        return execute(parts, command).await;
    };
    let request = ImportRequest { list, environment, url: None, etag: None, yes };
    let pieces = futures_util::stream::unfold((bytes_from, bytes), |(mut from, left)| async move {
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        let count = match from.read(&mut piece).await {
            Ok(0) => return None,
            Ok(count) => count,
            Err(error) => return Some((Err(error), (from, 0))),
        };
        piece.truncate(count);
        Some((Ok::<_, io::Error>(Bytes::from(piece)), (from, left - count as u64)))
    });
    let pieces = Box::pin(pieces);
    let upload = Upload { pieces, announced: Some(bytes), progress: ImportProgress::default() };
    let imported = parts.directory.import_upload(request, upload, ImportLimits::default()).await;
    imported.map(|report| json!(report)).map_err(|refused| Refused(refused.to_string()))
}

/// Imports from a reader in this process.
pub async fn import(
    parts: &Parts,
    request: ImportRequest,
    reader: impl Read + Send + 'static,
) -> Result<ImportReport, Refused> {
    let imported = parts.directory.import(request, reader, ImportLimits::default()).await;
    imported.map_err(|refused| Refused(refused.to_string()))
}

fn list_row(list: &DirectoryList) -> Json {
    json!({
        "list": list.name, "environment": list.environment, "form": list.form.to_string(),
        "entries": list.entries, "gone": list.gone, "sources": list.sources,
        "imported_at": list.imported_at.to_string(), "checked_at": list.checked_at.to_string(),
        "url": list.url, "trouble": list.trouble,
    })
}

fn place_row(place: &Place) -> Json {
    let town = [place.city.as_deref(), place.state.as_deref(), place.postal_code.as_deref()];
    json!({
        "name": place.name, "place": town.into_iter().flatten().collect::<Vec<_>>().join(" "),
        "records_from": place.brand, "vendor": place.vendor, "offer": place.offer, "list": place.list,
        "source": place.source, "fhir_base_url": place.base,
    })
}
