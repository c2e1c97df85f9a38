//! Connections: one patient's link to one source, whatever became of it. A failed attempt is kept as one, too.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{
    ConnectionId, EhrClientId, Id as _, LaunchContextId, PatientKey, PatientSessionId, ReferenceCode,
    SourceId, WorkspaceId,
};
use crate::smart::EhrPatientId;
use crate::smart::ehr_error::{FailureCode, PatientText, WhoActs};
use crate::store::{Change, Mark, Range, Reader, StoreError, Table, json_value};
use crate::workspaces::SESSION_ATTEMPTS;

const CONNECTIONS: Table<Connection> = Table::new("connections.v1");
const CONNECTIONS_BY_PATIENT: Table<()> = Table::new("connections_by_patient.v1");

/// What a connection is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionStatus {
    /// Authorized; data can flow.
    Active,
    /// The attempt did not succeed.
    Failed,
    /// Access ran out, and there was nothing to renew it with.
    Expired,
    /// The refresh token stopped working; the patient must sign in again.
    RefreshFailed,
    /// Access was given back.
    Disconnected,
}

/// What is remembered of a failure for the app and for the patient's page. Staff read the incident of the same reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureNote {
    /// The wire contract's code.
    pub code: FailureCode,
    /// When it failed.
    pub at: Timestamp,
    /// The code that patient, staff and log share.
    pub reference: ReferenceCode,
    /// What the patient reads.
    pub patient: PatientText,
    /// Who can do something.
    pub who: WhoActs,
    /// The EHR's own page about it.
    pub more_information: Option<String>,
}

/// One patient's link to one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Whose.
    pub workspace: WorkspaceId,
    /// Whose record.
    pub patient: PatientKey,
    /// Where the record is.
    pub source: SourceId,
    /// Our registration that was used.
    pub ehr_client: EhrClientId,
    /// The journey it came from.
    pub session: Option<PatientSessionId>,
    /// The launch from inside an EHR that it belongs to and ends with. Such a connection is of no patient of the app, and
    /// no records of it are kept.
    #[serde(default)]
    pub launch_context: Option<LaunchContextId>,
    /// What it is good for.
    pub status: ConnectionStatus,
    /// The EHR's id of the patient whose record it is. Never another's: see the invariant on reconnecting.
    pub ehr_patient: Option<EhrPatientId>,
    /// What was asked for.
    pub requested_scopes: Vec<String>,
    /// What was agreed to.
    pub scopes: Vec<String>,
    /// Why it failed, when it did.
    pub failure: Option<FailureNote>,
    /// Since when it exists.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}
json_value!(Connection);

impl Connection {
    /// Keeps the connection, as part of a write.
    pub fn put(&self, change: &mut Change<'_>) {
        change.put(CONNECTIONS, &self.id.to_bytes(), self);
        change.put(CONNECTIONS_BY_PATIENT, &by_patient(self.patient, self.id), &());
    }

    /// Notes in a session that this connection was tried in it.
    pub fn note_attempt(&self, change: &mut Change<'_>, session: PatientSessionId, at: Timestamp) {
        change.put(SESSION_ATTEMPTS, &[session.to_bytes(), self.id.to_bytes()].concat(), &at);
    }

    /// The connection of this id.
    pub fn find(reader: &impl Reader, id: ConnectionId) -> Result<Option<Self>, StoreError> {
        reader.get(CONNECTIONS, &id.to_bytes())
    }

    /// The connection of this id with its row's mark.
    pub(super) fn find_marked(
        reader: &impl Reader,
        id: ConnectionId,
    ) -> Result<(Option<Self>, Mark), StoreError> {
        reader.get_marked(CONNECTIONS, &id.to_bytes())
    }

    /// The mark of a connection's row.
    pub(super) fn mark(reader: &impl Reader, id: ConnectionId) -> Result<Mark, StoreError> {
        reader.mark(CONNECTIONS, &id.to_bytes())
    }

    /// All connections of a patient, failed ones included, newest first.
    pub fn of_patient(reader: &impl Reader, patient: PatientKey) -> Result<Vec<Self>, StoreError> {
        let prefix = patient.to_bytes();
        let mut found = Vec::new();
        for key in reader.keys(CONNECTIONS_BY_PATIENT, &Range::of(&prefix).descending())? {
            found.extend(reader.get(CONNECTIONS, &key[16..])?);
        }
        Ok(found)
    }

    /// Connections of everybody, after one of them, oldest first.
    pub fn after(
        reader: &impl Reader,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError> {
        let beyond = after.map(|after| after.to_bytes().to_vec());
        let rows = reader.rows(CONNECTIONS, &Range::of(b"").beyond(beyond).limit(limit))?;
        Ok(rows.into_iter().map(|(_, connection)| connection).collect())
    }

    /// Forgets the connection, as part of its patient's erasure.
    pub fn remove(&self, change: &mut Change<'_>) {
        change.remove(CONNECTIONS, &self.id.to_bytes());
        change.remove(CONNECTIONS_BY_PATIENT, &by_patient(self.patient, self.id));
    }
}

fn by_patient(patient: PatientKey, connection: ConnectionId) -> Vec<u8> {
    [patient.to_bytes(), connection.to_bytes()].concat()
}
