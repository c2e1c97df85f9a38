//! Commands about the directory. A list of a hundred megabytes does not fit the one line of a command: it follows the
//! line as bytes, so that the appliance needs no right to read the file.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;

use super::Refused;
use crate::app::Parts;
use crate::config::Environment;
use crate::directory::import::ImportLimits;
use crate::directory::{
    ActivationState, DirectoryList, FetchRequest, ImportReport, ImportRequest, PieceReader, Place,
};
use crate::id::{Id as _, SourceId};
use crate::smart::FhirBaseUrl;

/// Pieces that wait between the socket and the reader of the list.
const PIECES: usize = 4;
/// Bytes of one piece.
const PIECE: usize = 64 << 10;
/// The longest wait for the next piece.
const SILENCE: Duration = Duration::from_mins(1);
/// Hits that `directory search` shows.
const HITS: usize = 20;

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
    /// Notes how far a source is.
    Activate {
        /// `fhirsrc_…` or the base URL.
        source: String,
        /// The new state.
        state: ActivationState,
        /// What to remember with it.
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
            let found = find_source(parts, &source).ok_or_else(|| {
                Refused(format!("there is no source `{source}`; see `chartgate source list`"))
            })?;
            let (environment, id) = found;
            if !parts.directory.is_indexed(environment) {
                parts.directory.reindex(environment).await?;
            }
            let changed = parts.directory.activate(environment, id, state, note).await;
            let changed = changed.map_err(|refused| Refused(refused.to_string()))?;
            Ok(json!({
                "id": changed.id, "name": changed.name, "activation": changed.activation.state.word(),
                "steps": changed.activation.steps.len(),
            }))
        }
    }
}

fn find_source(parts: &Parts, text: &str) -> Option<(Environment, SourceId)> {
    let by_id = SourceId::parse(text).ok().and_then(|id| parts.directory.source(id));
    let by_url = || {
        let base = FhirBaseUrl::parse(text).ok()?;
        let both = [Environment::Live, Environment::Sandbox];
        both.into_iter().find_map(|environment| parts.directory.source_at(environment, &base))
    };
    by_id.or_else(by_url).map(|source| (source.environment, source.id))
}

/// Imports the list whose bytes follow the command.
pub async fn receive(
    parts: &Parts,
    command: DirectoryCommand,
    mut bytes_from: impl AsyncRead + Unpin,
) -> Result<Json, Refused> {
    let DirectoryCommand::Import { list, environment, bytes, yes } = command else {
        return execute(parts, command).await;
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    let request = ImportRequest { list, environment, url: None, etag: None, yes };
    let import = import(parts, request, PieceReader::new(receiver));
    let forward = async move {
        let mut left = bytes;
        while left > 0 {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            let got = match tokio::time::timeout(SILENCE, bytes_from.read(&mut piece)).await {
                Ok(Ok(count)) if count > 0 => count,
                // The sender went away: what came so far is not the list.
                _ => {
                    let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
                    return;
                }
            };
            left -= got as u64;
            piece.truncate(got);
            // A list that was refused early is not read on.
            if sender.send(Ok(Bytes::from(piece))).await.is_err() {
                return;
            }
        }
    };
    let (imported, ()) = tokio::join!(import, forward);
    imported.map(|report| json!(report))
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
