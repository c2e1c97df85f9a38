//! Records: what is read from an EHR after a patient agreed, and what is kept of it. Knows no routes.

mod bundle;
mod export;
mod fetch;
mod links;
mod pace;
mod packing;
mod plans;
mod pulls;
mod queries;
mod retention;
mod stored;
mod text;

use crate::clock::Clock;
use crate::crypto::Random;
use crate::directory;
use crate::events;
use crate::grants::{self, Connection, Grants};
use crate::outbound::Outbound;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};
use crate::workspaces::{Patient, Patients, Sessions, forget_patient};

pub use export::{Export, ExportError, ExportQuery, changed_after};
pub use pulls::{Pull, PullSettings, PullState, Pulls, TypeReport, TypeState};
pub use queries::{CursorError, Page, PageQuery, PageRecord, Position};
pub use stored::StoredRecord;
#[cfg(test)]
pub(crate) use stored::put_at;

/// The record store and the puller that fills it. Clones share both.
#[derive(Debug, Clone)]
pub struct Records {
    store: Store,
    clock: Clock,
    grants: Grants,
    pulls: Pulls,
}

impl Records {
    /// Over a store; `shutdown` stops running pulls, which go on at the next start.
    pub fn new(
        store: Store,
        clock: Clock,
        random: Random,
        outbound: Outbound,
        grants: Grants,
        settings: PullSettings,
        shutdown: Shutdown,
    ) -> Self {
        let pulls =
            Pulls::new(store.clone(), clock.clone(), random, outbound, grants.clone(), settings, shutdown);
        Self { store, clock, grants, pulls }
    }

    /// Erases a patient: records, pulls, grants, connections, events, sessions and the patient, in one transaction.
    pub async fn erase_patient(&self, patient: Patient) -> Result<(), StoreError> {
        let records = self.clone();
        // Whoever asked may go away: what is half done is done wholly, and hospitals are told.
        self.grants.to_the_end(async move { records.erase_now(patient).await }).await
    }

    async fn erase_now(&self, patient: Patient) -> Result<(), StoreError> {
        let key = patient.key;
        let erased = self
            .store
            .write(move |change| {
                let connections = grants::remove_in(change, key)?;
                stored::erase(change, key)?;
                for (connection, _) in &connections {
                    pulls::remove(change, connection.id)?;
                }
                events::forget_patient(change, key)?;
                directory::forget_patient(change, &patient)?;
                Sessions::remove_all(change, &patient)?;
                forget_patient(change, key)?;
                Patients::remove(change, &patient);
                Ok::<_, StoreError>(connections)
            })
            .await?;
        self.grants.erased(erased);
        Ok(())
    }

    /// The patient's name as the hospital gave it, for the patient's own page.
    pub async fn patient_name(&self, connection: &Connection) -> Result<Option<String>, StoreError> {
        let (id, ehr_patient) = (connection.id, connection.ehr_patient.clone());
        self.store
            .read(move |view| {
                let Some(ehr_patient) = ehr_patient else { return Ok(None) };
                let record = stored::find(view, id, "Patient", ehr_patient.as_str())?;
                Ok(record.and_then(|record| text::patient_name(&record.json)))
            })
            .await
    }

    /// The puller.
    pub fn pulls(&self) -> &Pulls {
        &self.pulls
    }
}
