//! What happened to a patient's connections: an operation of our own, beyond the contract.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::api::cursor::{read_place, sealed_place};
use crate::api::wire::ListPage;
use crate::api::{Api, ApiRequest, ok};
use crate::directory::Directory;
use crate::events::history::{self, Note, Position};
use crate::events::{INCIDENTS, Incident};
use crate::grants::Connection;
use crate::http::{Answer, Problem};
use crate::id::{ConnectionId, Id as _};
use crate::store::{Reader as _, StoreError};

/// `auth_event`
#[derive(Debug, Serialize)]
struct WireAuthEvent {
    resource_type: &'static str,
    /// `conn_…`; not called `connection_id`, which means a source in the contract.
    connection: String,
    /// `fhirsrc_…`
    source: String,
    source_name: Option<String>,
    event: String,
    at: String,
    code: Option<String>,
    correlation_id: Option<String>,
    description: Option<String>,
    reference: Option<String>,
    details: Map<String, Json>,
}

impl WireAuthEvent {
    fn new(note: &Note, connection: &Connection, incident: Option<Incident>, directory: &Directory) -> Self {
        let entry = serde_json::to_value(&note.entry).ok();
        let mut details = entry.as_ref().and_then(Json::as_object).cloned().unwrap_or_default();
        let mut text = |name: &str| match details.remove(name) {
            Some(Json::String(text)) => Some(text),
            _ => None,
        };
        Self {
            resource_type: "auth_event",
            connection: connection.id.to_string(),
            source: connection.source.to_string(),
            source_name: directory.source(connection.source).map(|source| source.name.clone()),
            event: text("kind").unwrap_or_default(),
            at: note.at.to_string(),
            code: text("code"),
            correlation_id: text("correlation_id"),
            description: incident.map(|incident| incident.staff),
            reference: note.reference.map(|reference| reference.to_string()),
            details,
        }
    }
}

/// `GET /patients/{id}/auth-events`: newest first, of all connections or of one.
pub async fn list(api: &Api, request: &ApiRequest, patient_id: &str) -> Result<Answer, Problem> {
    let limit = request.query.page_size("limit", 10)?;
    let missing = |_| Problem::not_found("This connection").about("connection");
    let only = request.query.get("connection").map(ConnectionId::parse).transpose().map_err(missing)?;
    let found = api.patients.find(request.caller.workspace, patient_id).await?;
    let patient = found.ok_or_else(|| Problem::not_found("This patient"))?;
    let key = patient.key.to_bytes();
    let filter = only.map(|connection| connection.to_string()).unwrap_or_default();
    let scope: [&[u8]; 3] = [b"auth-events", &key, filter.as_bytes()];
    let vault = api.store.vault();
    let before = read_place::<24>(vault, &scope, request.query.get("starting_after"))?.map(position);
    let read = api.store.read(move |view| {
        let mut connections = Connection::of_patient(view, patient.key)?;
        connections.retain(|connection| only.is_none_or(|only| connection.id == only));
        let ids: Vec<ConnectionId> = connections.iter().map(|connection| connection.id).collect();
        let mut found = Vec::new();
        for note in history::of_connections(view, &ids, before, limit + 1)? {
            let incident = match note.reference {
                Some(reference) => view.get(INCIDENTS, reference.as_bytes())?,
                None => None,
            };
            let connection = connections.iter().find(|known| known.id == note.position.connection);
            found.extend(connection.cloned().map(|connection| (note, connection, incident)));
        }
        Ok::<_, StoreError>((found, ids.is_empty()))
    });
    let (mut found, none) = read.await?;
    if none && only.is_some() {
        return Err(Problem::not_found("This connection").about("connection"));
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next =
        found.last().filter(|_| more).map(|(note, ..)| sealed_place(vault, &scope, &place(note.position)));
    let events = found
        .into_iter()
        .map(|(note, connection, incident)| WireAuthEvent::new(&note, &connection, incident, &api.directory));
    Ok(ok(&ListPage::new(events.collect(), next)))
}

fn place(position: Position) -> [u8; 24] {
    let mut place = [0; 24];
    place[..8].copy_from_slice(&position.micros.to_be_bytes());
    place[8..].copy_from_slice(&position.connection.to_bytes());
    place
}

fn position(place: [u8; 24]) -> Position {
    let (mut micros, mut connection) = ([0; 8], [0; 16]);
    micros.copy_from_slice(&place[..8]);
    connection.copy_from_slice(&place[8..]);
    Position { micros: u64::from_be_bytes(micros), connection: ConnectionId::from_bytes(connection) }
}
