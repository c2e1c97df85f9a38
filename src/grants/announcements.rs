//! What is told of journeys and connections: the shapes that the API and webhooks share, and the events themselves. Each
//! event is written in the transaction that it tells of.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::clock::Timestamp;
use crate::events::{EventKind, Fact, Outbox};
use crate::grants::{Connection, ConnectionStatus};
use crate::smart::FailureCode;
use crate::smart::scopes::{Access, ScopeSet, compare};
use crate::store::{Change, Reader, StoreError};
use crate::workspaces::{
    PatientSession, Patients, SessionMode, SessionStatus, SessionToken, Sessions, sessions,
};

/// The address of a session's link, which another room knows how to build.
type SessionLink = Arc<dyn Fn(&SessionToken) -> String + Send + Sync>;

/// Writes events about journeys and connections. Clones share one outbox.
#[derive(Clone)]
pub struct Announcements {
    outbox: Outbox,
    link: SessionLink,
}

impl fmt::Debug for Announcements {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Announcements")
    }
}

/// An attempt to connect, as a session shows it: the small shape of the contract.
#[derive(Debug, Serialize)]
pub struct AttemptShape {
    id: Option<String>,
    connection_id: String,
    status: ConnectionStatus,
    failure_code: Option<FailureCode>,
    failure_at: Option<String>,
    created_at: String,
}

impl AttemptShape {
    /// A failed attempt has no connection id here.
    pub fn new(connection: &Connection, at: Timestamp) -> Self {
        let failed = connection.status == ConnectionStatus::Failed;
        Self {
            id: (!failed).then(|| connection.id.to_string()),
            connection_id: connection.source.to_string(),
            status: connection.status,
            failure_code: connection.failure.as_ref().map(|failure| failure.code),
            failure_at: connection.failure.as_ref().map(|failure| failure.at.to_string()),
            created_at: at.to_string(),
        }
    }

    /// What was tried in a session, oldest first.
    pub fn of_session(reader: &impl Reader, session: &PatientSession) -> Result<Vec<Self>, StoreError> {
        let mut attempts = Vec::new();
        for (connection, at) in Sessions::attempts(reader, session.id)? {
            let connection = Connection::find(reader, connection)?;
            attempts.extend(connection.map(|connection| Self::new(&connection, at)));
        }
        Ok(attempts)
    }
}

/// `patient_session` of the contract.
#[derive(Debug, Serialize)]
pub struct SessionShape {
    id: String,
    resource_type: &'static str,
    status: SessionStatus,
    url: String,
    patient_id: String,
    connection_id: Option<String>,
    recommended_connection_ids: Option<Vec<String>>,
    return_url: String,
    return_button_label: Option<String>,
    connections: Vec<AttemptShape>,
    expires_at: String,
    created_at: String,
    metadata: Map<String, Json>,
}

impl SessionShape {
    /// A session as it is now.
    pub fn new(session: PatientSession, url: String, attempts: Vec<AttemptShape>, now: Timestamp) -> Self {
        let status = session.status(now);
        let (connection_id, recommended) = match session.mode {
            SessionMode::Direct(source) => (Some(source.to_string()), None),
            SessionMode::Picker(sources) => (None, Some(sources.iter().map(ToString::to_string).collect())),
        };
        Self {
            id: session.id.to_string(),
            resource_type: "patient_session",
            status,
            url,
            patient_id: session.patient_id,
            connection_id,
            recommended_connection_ids: recommended,
            return_url: session.return_url,
            return_button_label: session.return_button_label,
            connections: attempts,
            expires_at: session.expires_at.to_string(),
            created_at: session.created_at.to_string(),
            metadata: session.metadata,
        }
    }
}

/// A connection as events show it: the small shape, with the patient it belongs to.
#[derive(Debug, Serialize)]
struct ConnectionShape {
    #[serde(flatten)]
    attempt: AttemptShape,
    patient_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<Json>,
}

impl ConnectionShape {
    fn new(reader: &impl Reader, connection: &Connection) -> Result<Self, StoreError> {
        let patient = Patients::by_key(reader, connection.workspace, connection.patient)?;
        Ok(Self {
            attempt: AttemptShape::new(connection, connection.created_at),
            patient_id: patient.map(|patient| patient.patient_id),
            missing: None,
            records: None,
        })
    }
}

impl Announcements {
    /// Into an outbox; `link` builds the address of a session's link.
    pub fn new(outbox: Outbox, link: impl Fn(&SessionToken) -> String + Send + Sync + 'static) -> Self {
        Self { outbox, link: Arc::new(link) }
    }

    /// The outbox, for what other rooms have to tell.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// A journey has ended. Its attempts must be written before.
    pub(super) fn session_completed(
        &self,
        change: &mut Change<'_>,
        session: &PatientSession,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let fact = Fact {
            workspace: session.workspace,
            patient: session.patient,
            kind: EventKind::SessionCompleted,
            at: now,
        };
        self.outbox.emit(change, fact, |change| {
            let session = sessions::by_id(change, session.id)?.unwrap_or_else(|| session.clone());
            let attempts = AttemptShape::of_session(change, &session)?;
            let url = (self.link)(&session.token);
            Ok(SessionShape::new(session, url, attempts, now))
        })
    }

    /// A patient connected a source; what was asked for and not shared is told apart.
    pub(super) fn connected(
        &self,
        change: &mut Change<'_>,
        connection: &Connection,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let active = fact(connection, EventKind::ConnectionActive, now);
        self.outbox.emit(change, active, |change| ConnectionShape::new(change, connection))?;
        let missing = missing(connection);
        if missing.is_empty() {
            return Ok(());
        }
        self.outbox.emit(change, fact(connection, EventKind::ConnectionGaps, now), |change| {
            Ok(ConnectionShape { missing: Some(missing), ..ConnectionShape::new(change, connection)? })
        })
    }

    /// Records of a connection could not all be read: of which types, and what is known of them.
    pub fn incomplete(
        &self,
        change: &mut Change<'_>,
        connection: &Connection,
        missing: Vec<String>,
        records: Json,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.outbox.emit(change, fact(connection, EventKind::ConnectionGaps, now), |change| {
            let shape = ConnectionShape::new(change, connection)?;
            Ok(ConnectionShape { missing: Some(missing), records: Some(records), ..shape })
        })
    }

    /// An attempt to connect a source failed.
    pub(super) fn failed(
        &self,
        change: &mut Change<'_>,
        connection: &Connection,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let fact = fact(connection, EventKind::ConnectionFailed, now);
        self.outbox.emit(change, fact, |change| ConnectionShape::new(change, connection))
    }

    /// An active connection is over; it already has the status that says why. One of an EHR launch is of no patient, and ends
    /// with every visit: that is no news.
    pub(super) fn ended(
        &self,
        change: &mut Change<'_>,
        connection: &Connection,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if connection.launch_context.is_some() {
            return Ok(());
        }
        if connection.status == ConnectionStatus::RefreshFailed {
            self.outbox.emit(change, fact(connection, EventKind::TokenRefreshFailed, now), |change| {
                let mut shape = ConnectionShape::new(change, connection)?;
                shape.attempt.failure_code = Some(FailureCode::TokenExchangeFailed);
                shape.attempt.failure_at = Some(now.to_string());
                Ok(shape)
            })?;
        }
        let fact = fact(connection, EventKind::ConnectionEnded, now);
        self.outbox.emit(change, fact, |change| ConnectionShape::new(change, connection))
    }
}

fn fact(connection: &Connection, kind: EventKind, at: Timestamp) -> Fact {
    Fact { workspace: connection.workspace, patient: connection.patient, kind, at }
}

/// The types that were asked for and not shared.
fn missing(connection: &Connection) -> Vec<String> {
    let requested = ScopeSet::parse(&connection.requested_scopes.join(" "));
    let granted = ScopeSet::parse(&connection.scopes.join(" "));
    let types = compare(&requested, Some(&granted)).types;
    let missing = types.into_iter().filter(|entry| entry.access != Access::Granted);
    missing.map(|entry| entry.resource_type).collect()
}
