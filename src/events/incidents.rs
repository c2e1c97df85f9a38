//! Incidents: one failure, told three ways. The patient reads plain words and a reference code; staff look the code up
//! and read this record; the log line carries the same code and the technical cause.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{ReferenceCode, SourceId, WorkspaceId};
use crate::store::{Change, Table, json_value};

/// Incidents by reference code.
pub const INCIDENTS: Table<Incident> = Table::new("incidents.v1");

/// What staff read about a failure. Holds no secret, no token and nothing clinical.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The code the patient was shown.
    pub reference: ReferenceCode,
    /// When it happened.
    pub at: Timestamp,
    /// Whose patient met it, when that is known.
    pub workspace: Option<WorkspaceId>,
    /// Which source it was about.
    pub source: Option<SourceId>,
    /// The failure's stable code, as the API reports it.
    pub code: String,
    /// What happened and why, with the protocol's own words.
    pub staff: String,
    /// Who has to act: the patient, the clinic, the hospital's IT team, or us.
    pub who_acts: String,
    /// The EHR's own number for it, to quote to its support.
    pub correlation_id: Option<String>,
}
json_value!(Incident);

impl Incident {
    /// Keeps the incident, as part of a write.
    pub fn put(&self, change: &mut Change<'_>) {
        change.put(INCIDENTS, self.reference.as_bytes(), self);
    }
}
