//! Patients: create, list, retrieve, replace, delete; and disconnecting one of their sources.

use serde_json::json;

use crate::api::cursor::{cursor_after, read_cursor};
use crate::api::etag::object;
use crate::api::idempotency::Once;
use crate::api::input::{Fields, Null};
use crate::api::wire::{ListPage, WirePatient, WirePatientDetail};
use crate::api::{Api, ApiRequest, ok};
use crate::grants::Connection;
use crate::http::{Answer, Problem, ProblemKind};
use crate::id::{ConnectionId, Id as _, PatientKey};
use crate::store::StoreError;
use crate::workspaces::{NewPatient, Patient, PatientError, PatientFilter, Patients, patient_id_problem};

impl From<PatientError> for Problem {
    fn from(error: PatientError) -> Self {
        match error {
            PatientError::Exists => {
                Self::new(ProblemKind::ExternalIdExists, "A patient with this `patient_id` exists already.")
                    .about("patient_id")
            }
            PatientError::Missing => missing(),
            PatientError::Store(error) => error.into(),
        }
    }
}

/// `POST /patients`
pub async fn create(api: &Api, request: &ApiRequest) -> Result<Answer, Problem> {
    let once = Once::asked(api, request, &[b"create-patient"])?;
    if let Some(answer) = once.answered(api).await? {
        return Ok(answer);
    }
    let new = read(&Fields::parse(&request.body, None)?, Null::Refused)?;
    let (patients, workspace) = (api.patients.clone(), request.caller.workspace);
    once.carry_out(api, move |change| {
        let patient = patients.create_in(change, workspace, new)?;
        let key = patient.key;
        Ok((WirePatient::from(patient), Some(key)))
    })
    .await
}

/// `PUT /patients/{id}`: a full replacement; what is left out is cleared.
pub async fn replace(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let new = read(&Fields::parse(&request.body, None)?, Null::MeansNone)?;
    if new.patient_id != id {
        return Err(Problem::invalid("patient_id", "`patient_id` must be the id in the address."));
    }
    let patient = api.patients.replace(request.caller.workspace, new).await?;
    Ok(ok(&WirePatient::from(patient)))
}

fn read(fields: &Fields, null: Null) -> Result<NewPatient, Problem> {
    let patient_id = fields.required_text("patient_id", 200)?;
    if let Some(problem) = patient_id_problem(&patient_id) {
        return Err(Problem::invalid("patient_id", format!("`patient_id` {problem}.")));
    }
    Ok(NewPatient {
        patient_id,
        email: fields.email("email", null)?,
        name: fields.text_or_empty("name", 200, null)?,
        metadata: fields.object("metadata")?,
    })
}

/// `GET /patients`
pub async fn list(api: &Api, request: &ApiRequest) -> Result<Answer, Problem> {
    let limit = request.query.page_size("limit", 10)?;
    let filter = PatientFilter {
        patient_id: request.query.get("patient_id").map(str::to_owned),
        email: request.query.get("email").map(str::to_owned),
    };
    let workspace = request.caller.workspace.to_bytes();
    let filters = format!("{filter:?}");
    let scope: [&[u8]; 3] = [b"patients", &workspace, filters.as_bytes()];
    let vault = api.store.vault();
    let after: Option<PatientKey> = read_cursor(vault, &scope, request.query.get("starting_after"))?;
    let mut found = api.patients.list(request.caller.workspace, filter, after, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| cursor_after(vault, &scope, last.key));
    Ok(ok(&ListPage::new(found.into_iter().map(WirePatient::from).collect(), next)))
}

/// `GET /patients/{id}`
pub async fn retrieve(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let (workspace, id) = (request.caller.workspace, id.to_owned());
    let read = api.store.read(move |view| {
        let Some(patient) = Patients::by_id(view, workspace, &id)? else { return Ok(None) };
        let connections = Connection::of_patient(view, patient.key)?;
        Ok::<_, StoreError>(Some((patient, connections)))
    });
    let (patient, connections) = read.await?.ok_or_else(missing)?;
    Ok(object(request, &WirePatientDetail::new(patient, connections)))
}

/// `DELETE /patients/{id}`: the patient, their sessions, connections, tokens and records.
pub async fn delete(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let patient = known(api, request, id).await?;
    api.records.erase_patient(patient).await?;
    Ok(ok(&json!({ "id": id, "resource_type": "patient", "deleted": true })))
}

/// `DELETE /patients/{id}/connections/{connection_id}`: the one place where the wire takes a `conn_…`.
pub async fn disconnect(
    api: &Api,
    request: &ApiRequest,
    id: &str,
    connection: &str,
) -> Result<Answer, Problem> {
    let patient = known(api, request, id).await?;
    let missing = || Problem::not_found("This connection");
    let connection = ConnectionId::parse(connection).map_err(|_| missing())?;
    if !api.grants.disconnect(patient.key, connection).await? {
        return Err(missing());
    }
    Ok(ok(&json!({ "id": connection.to_string(), "resource_type": "connection", "disconnected": true })))
}

/// The patient of this id in the caller's workspace.
pub async fn known(api: &Api, request: &ApiRequest, id: &str) -> Result<Patient, Problem> {
    let found: Result<Option<Patient>, StoreError> = api.patients.find(request.caller.workspace, id).await;
    found?.ok_or_else(missing)
}

pub(super) fn missing() -> Problem {
    Problem::not_found("This patient")
}
