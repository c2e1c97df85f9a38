//! Patient sessions: start, retrieve, list.

use std::time::Duration;

use crate::api::cursor::{cursor_after, read_cursor};
use crate::api::etag::object;
use crate::api::idempotency::Once;
use crate::api::input::{Fields, Null};
use crate::api::wire::{ListPage, WireAttempt, WireSession};
use crate::api::{Api, ApiRequest, ok, sources};
use crate::http::{Answer, ConnectPage, Problem, Route};
use crate::id::{Id as _, PatientSessionId, SourceId};
use crate::store::StoreError;
use crate::workspaces::{
    NewPatient, NewSession, PatientSession, SessionError, SessionMode, SessionStatus, Sessions,
    patient_id_problem,
};

const KNOWN: [&str; 9] = [
    "patient_id",
    "return_url",
    "patient_email",
    "patient_name",
    "connection_id",
    "recommended_connection_ids",
    "return_button_label",
    "expires_in",
    "metadata",
];

/// `POST /patient-sessions`
pub async fn create(api: &Api, request: &ApiRequest) -> Result<Answer, Problem> {
    let once = Once::asked(api, request, &[b"init-patient-session"])?;
    if let Some(answer) = once.answered(api).await? {
        return Ok(answer);
    }
    let fields = Fields::parse(&request.body, Some(&KNOWN))?;
    let patient_id = fields.required_text("patient_id", 200)?;
    if let Some(problem) = patient_id_problem(&patient_id) {
        return Err(Problem::invalid("patient_id", format!("`patient_id` {problem}.")));
    }
    let new = NewSession {
        return_url: fields.required_return_url("return_url")?,
        mode: mode(api, request, &fields)?,
        return_button_label: fields.text("return_button_label", 60, Null::Refused)?,
        metadata: fields.object("metadata")?.unwrap_or_default(),
        lifetime: fields.number("expires_in", 60, 86_400)?.map_or(api.session_lifetime, Duration::from_secs),
        patient: NewPatient {
            patient_id,
            email: fields.email("patient_email", Null::Refused)?,
            name: fields.text_or_empty("patient_name", 200, Null::Refused)?,
            metadata: None,
        },
    };
    let (own, workspace) = (api.clone(), request.caller.workspace);
    once.carry_out(api, move |change| {
        let session = own.sessions.create_in(change, workspace, new)?;
        let patient = session.patient;
        Ok((wire(&own, session, Vec::new()), Some(patient)))
    })
    .await
}

fn mode(api: &Api, request: &ApiRequest, fields: &Fields) -> Result<SessionMode, Problem> {
    let direct = fields.text("connection_id", 2048, Null::Refused)?;
    let recommended = fields.texts("recommended_connection_ids")?;
    let find = |param: &str, text: &str| -> Result<SourceId, Problem> {
        let found = sources::find(api, request.caller.environment, text);
        found.map(|source| source.id).ok_or_else(|| Problem::not_found("This connection").about(param))
    };
    match (direct, recommended) {
        (Some(_), Some(_)) => Err(Problem::invalid(
            "recommended_connection_ids",
            "`connection_id` and `recommended_connection_ids` exclude each other.",
        )),
        (Some(direct), None) => Ok(SessionMode::Direct(find("connection_id", &direct)?)),
        (None, recommended) => {
            let texts = recommended.unwrap_or_default();
            let found = texts.iter().map(|text| find("recommended_connection_ids", text));
            Ok(SessionMode::Picker(found.collect::<Result<_, _>>()?))
        }
    }
}

/// `GET /patient-sessions/{id}`
pub async fn retrieve(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let missing = || Problem::not_found("This patient session");
    let id = PatientSessionId::parse(id).map_err(|_| missing())?;
    let workspace = request.caller.workspace;
    let read = api.store.read(move |view| {
        let Some(session) = Sessions::of_workspace(view, workspace, id)? else { return Ok(None) };
        let attempts = WireAttempt::of_session(view, &session)?;
        Ok::<_, StoreError>(Some((session, attempts)))
    });
    let (session, attempts) = read.await?.ok_or_else(missing)?;
    Ok(object(request, &wire(api, session, attempts)))
}

/// `GET /patients/{id}/patient-sessions`
pub async fn list(api: &Api, request: &ApiRequest, patient_id: &str) -> Result<Answer, Problem> {
    let limit = request.query.page_size("limit", 10)?;
    let status = match request.query.get("status") {
        None => None,
        Some("open") => Some(SessionStatus::Open),
        Some("complete") => Some(SessionStatus::Complete),
        Some("expired") => Some(SessionStatus::Expired),
        Some(_) => return Err(Problem::invalid("status", "`status` must be open, complete or expired.")),
    };
    let workspace = request.caller.workspace.to_bytes();
    let filter = format!("{status:?}");
    let scope: [&[u8]; 4] = [b"sessions", &workspace, patient_id.as_bytes(), filter.as_bytes()];
    let vault = api.store.vault();
    let after: Option<PatientSessionId> = read_cursor(vault, &scope, request.query.get("starting_after"))?;
    let found = api.sessions.list(request.caller.workspace, patient_id, status, after, limit + 1).await;
    let mut found = found.map_err(|error| match error {
        SessionError::NoPatient => Problem::not_found("This patient"),
        SessionError::Store(error) => error.into(),
    })?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| cursor_after(vault, &scope, last.id));
    let read = api.store.read(move |view| {
        let with_attempts = found.into_iter().map(|session| {
            let attempts = WireAttempt::of_session(view, &session)?;
            Ok::<_, StoreError>((session, attempts))
        });
        with_attempts.collect::<Result<Vec<_>, _>>()
    });
    let data = read.await?.into_iter().map(|(session, attempts)| wire(api, session, attempts));
    Ok(ok(&ListPage::new(data.collect(), next)))
}

fn wire(api: &Api, session: PatientSession, attempts: Vec<WireAttempt>) -> WireSession {
    let link = Route::Connect(session.token.clone(), ConnectPage::Start);
    let url = format!("{}{}", api.public_url.origin(), link.path());
    WireSession::new(session, url, attempts, api.clock.now())
}
