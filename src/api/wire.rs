//! The shapes of the platform contract, version 2026-04-25: names, order and nullability as there. Every nullable field
//! is always present.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use crate::directory::Source;
use crate::grants::{Connection, ConnectionStatus};
use crate::smart::FailureCode;
use crate::workspaces::Patient;

pub use crate::grants::{AttemptShape as WireAttempt, SessionShape as WireSession};

/// The version of the contract that is spoken here.
pub const API_VERSION: &str = "2026-04-25";

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct ListPage<T> {
    resource_type: &'static str,
    data: Vec<T>,
    has_more: bool,
    next_cursor: Option<String>,
}

impl<T> ListPage<T> {
    /// `next_cursor` is there exactly when something follows.
    pub fn new(data: Vec<T>, next_cursor: Option<String>) -> Self {
        Self { resource_type: "list", data, has_more: next_cursor.is_some(), next_cursor }
    }
}

/// `patient`
#[derive(Debug, Serialize)]
pub struct WirePatient {
    id: String,
    resource_type: &'static str,
    email: Option<String>,
    name: Option<String>,
    metadata: Map<String, Json>,
    created_at: String,
}

impl From<Patient> for WirePatient {
    fn from(patient: Patient) -> Self {
        Self {
            id: patient.patient_id,
            resource_type: "patient",
            email: patient.email,
            name: patient.name,
            metadata: patient.metadata,
            created_at: patient.created_at.to_string(),
        }
    }
}

/// `patient` with its connections: `GET /patients/{id}` only.
#[derive(Debug, Serialize)]
pub struct WirePatientDetail {
    #[serde(flatten)]
    patient: WirePatient,
    connections: Vec<WireConnection>,
}

impl WirePatientDetail {
    /// Connections newest first, failed attempts included.
    pub fn new(patient: Patient, connections: Vec<Connection>) -> Self {
        Self {
            patient: patient.into(),
            connections: connections.into_iter().map(WireConnection::from).collect(),
        }
    }
}

/// `connection`: the large shape, on a patient.
#[derive(Debug, Serialize)]
pub struct WireConnection {
    id: String,
    resource_type: &'static str,
    patient_session_id: Option<String>,
    connection_id: String,
    status: ConnectionStatus,
    scopes: Vec<String>,
    failure_code: Option<FailureCode>,
    failure_at: Option<String>,
    created_at: String,
    updated_at: String,
}

impl From<Connection> for WireConnection {
    fn from(connection: Connection) -> Self {
        Self {
            id: connection.id.to_string(),
            resource_type: "connection",
            patient_session_id: connection.session.map(|session| session.to_string()),
            connection_id: connection.source.to_string(),
            status: connection.status,
            scopes: connection.scopes,
            failure_code: connection.failure.as_ref().map(|failure| failure.code),
            failure_at: connection.failure.as_ref().map(|failure| failure.at.to_string()),
            created_at: connection.created_at.to_string(),
            updated_at: connection.updated_at.to_string(),
        }
    }
}

/// `fhir_source`
#[derive(Debug, Serialize)]
pub struct WireSource {
    id: String,
    resource_type: &'static str,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    fhir_base_url: String,
    logo_url: Option<String>,
    portal_url: Option<String>,
}

impl From<&Source> for WireSource {
    fn from(source: &Source) -> Self {
        Self {
            id: source.id.to_string(),
            resource_type: "fhir_source",
            name: source.name.clone(),
            kind: wire_vendor(&source.vendor).map(str::to_owned),
            fhir_base_url: source.base.to_string(),
            logo_url: source.logo_url.clone(),
            portal_url: source.portal_url.clone(),
        }
    }
}

/// The contract names vendors, not our profiles: `cerner-provider` is `cerner` there, and unknown is null.
pub fn wire_vendor(vendor: &str) -> Option<&str> {
    match vendor {
        "generic" => None,
        "cerner-provider" => Some("cerner"),
        "athenahealth" => Some("athena"),
        vendor => Some(vendor),
    }
}

/// One record: the FHIR resource as it came, and where from.
#[derive(Debug, Serialize)]
pub struct WireRecord {
    /// `fhirsrc_…`
    pub source: Option<String>,
    /// The resource's own text, so that numbers keep theirs.
    pub resource: Box<RawValue>,
}

/// A page of records.
#[derive(Debug, Serialize)]
pub struct WireRecords {
    resource_type: &'static str,
    patient_id: String,
    data: Vec<WireRecord>,
    has_more: bool,
    next_cursor: Option<String>,
    previous_cursor: Option<String>,
}

impl WireRecords {
    /// Cursors are there exactly when something lies in their direction.
    pub fn new(
        patient_id: String,
        data: Vec<WireRecord>,
        next_cursor: Option<String>,
        previous_cursor: Option<String>,
    ) -> Self {
        Self {
            resource_type: "list",
            patient_id,
            data,
            has_more: next_cursor.is_some(),
            next_cursor,
            previous_cursor,
        }
    }
}
