//! Patients, as their app knows them: the caller's own id, an e-mail address, a name and free metadata.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::clock::{Clock, Timestamp};
use crate::crypto::Random;
use crate::id::{Id as _, PatientKey, WorkspaceId};
use crate::store::{Change, Range, Reader, Store, StoreError, Table, Vault, json_value};

const PATIENTS: Table<Patient> = Table::new("patients.v1");
const PATIENT_IDS: Table<[u8; 16]> = Table::new("patient_ids.v1");
const PATIENT_EMAILS: Table<()> = Table::new("patient_emails.v1");

/// One patient of one workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Patient {
    /// Our own number, under which everything of this patient is kept.
    pub key: PatientKey,
    /// Whose patient.
    pub workspace: WorkspaceId,
    /// The caller's `patient_id`, free text of up to 200 characters.
    pub patient_id: String,
    /// E-mail address.
    pub email: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Whatever the app wants to remember.
    pub metadata: Map<String, Json>,
    /// When the patient was first mentioned.
    pub created_at: Timestamp,
}
json_value!(Patient);

/// What the app says of a patient.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewPatient {
    /// The caller's id.
    pub patient_id: String,
    /// E-mail address.
    pub email: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Metadata; absent means none.
    pub metadata: Option<Map<String, Json>>,
}

/// Which patients to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatientFilter {
    /// Exactly this id.
    pub patient_id: Option<String>,
    /// Exactly this address.
    pub email: Option<String>,
}

/// Why a patient was not made or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PatientError {
    /// There is one with this id already.
    #[error("a patient with this patient_id exists already")]
    Exists,
    /// There is none with this id in the workspace.
    #[error("no such patient in this workspace")]
    Missing,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a `patient_id`, if anything. Ids that look like ours are refused, since the two would be mixed up.
pub fn patient_id_problem(id: &str) -> Option<&'static str> {
    const RESERVED: [&str; 5] = ["ps_", "conn_", "fhirsrc_", "wh_", "evt_"];
    if id.is_empty() {
        return Some("must not be empty");
    }
    if id.chars().count() > 200 {
        return Some("must have at most 200 characters");
    }
    if RESERVED.iter().any(|prefix| id.starts_with(prefix)) {
        return Some("must not begin with ps_, conn_, fhirsrc_, wh_ or evt_");
    }
    if id.chars().any(char::is_control) {
        return Some("must not contain control characters");
    }
    None
}

/// The patients of all workspaces.
#[derive(Debug, Clone)]
pub struct Patients {
    store: Store,
    clock: Clock,
    random: Random,
}

impl Patients {
    /// Over a store.
    pub fn new(store: Store, clock: Clock, random: Random) -> Self {
        Self { store, clock, random }
    }

    /// Adds a patient.
    pub async fn create(&self, workspace: WorkspaceId, new: NewPatient) -> Result<Patient, PatientError> {
        let patients = self.clone();
        self.store.write(move |change| patients.create_in(change, workspace, new)).await
    }

    /// [`Patients::create`] as part of another write.
    pub fn create_in(
        &self,
        change: &mut Change<'_>,
        workspace: WorkspaceId,
        new: NewPatient,
    ) -> Result<Patient, PatientError> {
        if find_key(change, workspace, &new.patient_id)?.is_some() {
            return Err(PatientError::Exists);
        }
        let patient = self.fresh(workspace, new);
        put(change, &patient);
        Ok(patient)
    }

    /// Replaces what is known of a patient. Id, key and time of creation stay.
    pub async fn replace(&self, workspace: WorkspaceId, new: NewPatient) -> Result<Patient, PatientError> {
        self.store
            .write(move |change| {
                let old = find(change, workspace, &new.patient_id)?.ok_or(PatientError::Missing)?;
                forget_email(change, &old);
                let patient = Patient {
                    email: new.email,
                    name: new.name,
                    metadata: new.metadata.unwrap_or_default(),
                    ..old
                };
                put(change, &patient);
                Ok(patient)
            })
            .await
    }

    /// The patient of this id.
    pub async fn find(
        &self,
        workspace: WorkspaceId,
        patient_id: &str,
    ) -> Result<Option<Patient>, StoreError> {
        let patient_id = patient_id.to_owned();
        self.store.read(move |view| find(view, workspace, &patient_id)).await
    }

    /// Patients, newest first, after the one with the key `after`.
    pub async fn list(
        &self,
        workspace: WorkspaceId,
        filter: PatientFilter,
        after: Option<PatientKey>,
        limit: usize,
    ) -> Result<Vec<Patient>, StoreError> {
        self.store
            .read(move |view| {
                if let Some(id) = &filter.patient_id {
                    let found = find(view, workspace, id)?.filter(|patient| {
                        filter.email.as_ref().is_none_or(|email| patient.email.as_ref() == Some(email))
                            && after.is_none_or(|after| patient.key < after)
                    });
                    return Ok(found.into_iter().take(limit).collect());
                }
                let prefix = match &filter.email {
                    Some(email) => email_prefix(view.vault(), workspace, email),
                    None => workspace.to_bytes(),
                };
                let beyond = after.map(|after| [prefix, after.to_bytes()].concat());
                let range = Range::of(&prefix).descending().beyond(beyond).limit(limit);
                if filter.email.is_none() {
                    let rows = view.rows(PATIENTS, &range)?;
                    return Ok(rows.into_iter().map(|(_, patient)| patient).collect());
                }
                let mut found = Vec::new();
                for key in view.keys(PATIENT_EMAILS, &range)? {
                    let row = [workspace.to_bytes().as_slice(), &key[16..]].concat();
                    found.extend(view.get(PATIENTS, &row)?);
                }
                Ok(found)
            })
            .await
    }

    /// A patient as a session mentions one: made when absent, otherwise e-mail and name stored or updated, never cleared.
    pub(super) fn mention(
        &self,
        change: &mut Change<'_>,
        workspace: WorkspaceId,
        new: NewPatient,
    ) -> Result<Patient, StoreError> {
        let Some(old) = find(change, workspace, &new.patient_id)? else {
            let patient = self.fresh(workspace, new);
            put(change, &patient);
            return Ok(patient);
        };
        let patient = Patient {
            email: new.email.or_else(|| old.email.clone()),
            name: new.name.or_else(|| old.name.clone()),
            ..old.clone()
        };
        if patient != old {
            forget_email(change, &old);
            put(change, &patient);
        }
        Ok(patient)
    }

    /// Takes a patient out, as part of the write that also removes what hangs off it.
    pub fn remove(change: &mut Change<'_>, patient: &Patient) {
        forget_email(change, patient);
        let id_key = id_key(change.vault(), patient.workspace, &patient.patient_id);
        change.remove(PATIENT_IDS, &id_key);
        change.remove(PATIENTS, &row_key(patient.workspace, patient.key));
    }

    /// The patient of this id, as part of another read.
    pub fn by_id(
        reader: &impl Reader,
        workspace: WorkspaceId,
        patient_id: &str,
    ) -> Result<Option<Patient>, StoreError> {
        find(reader, workspace, patient_id)
    }

    /// The patient behind a key, as part of another read.
    pub fn by_key(
        reader: &impl Reader,
        workspace: WorkspaceId,
        key: PatientKey,
    ) -> Result<Option<Patient>, StoreError> {
        reader.get(PATIENTS, &row_key(workspace, key))
    }

    /// Patients of a workspace, oldest first, after one of them, as part of another read.
    pub fn after(
        reader: &impl Reader,
        workspace: WorkspaceId,
        after: Option<PatientKey>,
        limit: usize,
    ) -> Result<Vec<Patient>, StoreError> {
        let prefix = workspace.to_bytes();
        let beyond = after.map(|after| row_key(workspace, after));
        let rows = reader.rows(PATIENTS, &Range::of(&prefix).beyond(beyond).limit(limit))?;
        Ok(rows.into_iter().map(|(_, patient)| patient).collect())
    }

    fn fresh(&self, workspace: WorkspaceId, new: NewPatient) -> Patient {
        let now = self.clock.now();
        Patient {
            key: self.random.id(now),
            workspace,
            patient_id: new.patient_id,
            email: new.email,
            name: new.name,
            metadata: new.metadata.unwrap_or_default(),
            created_at: now,
        }
    }
}

fn row_key(workspace: WorkspaceId, key: PatientKey) -> Vec<u8> {
    [workspace.to_bytes(), key.to_bytes()].concat()
}

fn id_key(vault: &Vault, workspace: WorkspaceId, patient_id: &str) -> [u8; 16] {
    vault.digest(&[b"patient-id", &workspace.to_bytes(), patient_id.as_bytes()])
}

fn email_prefix(vault: &Vault, workspace: WorkspaceId, email: &str) -> [u8; 16] {
    vault.digest(&[b"patient-email", &workspace.to_bytes(), email.as_bytes()])
}

fn find_key(
    reader: &impl Reader,
    workspace: WorkspaceId,
    patient_id: &str,
) -> Result<Option<[u8; 16]>, StoreError> {
    reader.get(PATIENT_IDS, &id_key(reader.vault(), workspace, patient_id))
}

/// The patient of this id, as part of another read or write.
pub(crate) fn find(
    reader: &impl Reader,
    workspace: WorkspaceId,
    patient_id: &str,
) -> Result<Option<Patient>, StoreError> {
    let Some(key) = find_key(reader, workspace, patient_id)? else { return Ok(None) };
    reader.get(PATIENTS, &[workspace.to_bytes(), key].concat())
}

fn put(change: &mut Change<'_>, patient: &Patient) {
    let id_key = id_key(change.vault(), patient.workspace, &patient.patient_id);
    change.put(PATIENT_IDS, &id_key, &patient.key.to_bytes());
    change.put(PATIENTS, &row_key(patient.workspace, patient.key), patient);
    if let Some(email) = &patient.email {
        let prefix = email_prefix(change.vault(), patient.workspace, email);
        change.put(PATIENT_EMAILS, &[prefix, patient.key.to_bytes()].concat(), &());
    }
}

fn forget_email(change: &mut Change<'_>, patient: &Patient) {
    if let Some(email) = &patient.email {
        let prefix = email_prefix(change.vault(), patient.workspace, email);
        change.remove(PATIENT_EMAILS, &[prefix, patient.key.to_bytes()].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patient_ids_are_free_text_within_bounds() {
        for good in ["amy-7", "a/b @%", "Ärztin", &"x".repeat(200)] {
            assert_eq!(patient_id_problem(good), None, "{good}");
        }
        for bad in ["", "ps_1", "evt_", "a\nb", &"x".repeat(201)] {
            assert!(patient_id_problem(bad).is_some(), "{bad:?}");
        }
    }
}
