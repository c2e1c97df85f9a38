//! Patient sessions: one browser journey of one patient, behind an unguessable link.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use url::Url;

use crate::clock::{Clock, Timestamp};
use crate::crypto::Random;
use crate::id::{ConnectionId, Id as _, PatientKey, PatientSessionId, SourceId, WorkspaceId};
use crate::secret::secret_type;
use crate::store::{Change, Range, Reader, Store, StoreError, Table, Vault, json_value};
use crate::workspaces::{NewPatient, Patient, Patients, patients};

const SESSIONS: Table<PatientSession> = Table::new("sessions.v1");
const SESSION_TOKENS: Table<[u8; 16]> = Table::new("session_tokens.v1");
const SESSIONS_BY_PATIENT: Table<()> = Table::new("sessions_by_patient.v1");
/// The attempts of a session, under session id and connection id; the value is when each ended.
pub const SESSION_ATTEMPTS: Table<Timestamp> = Table::new("session_attempts.v1");
json_value!(Timestamp);

secret_type!(
    /// The token in a session's link. Who has it may connect a hospital for this patient until the session ends.
    SessionToken
);

/// How the patient finds the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionMode {
    /// The app has chosen.
    Direct(SourceId),
    /// The patient searches; these come first.
    Picker(Vec<SourceId>),
}

/// Where the journey is. It says nothing about its success: that is a connection's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// Can be used.
    Open,
    /// The patient is done.
    Complete,
    /// Its time is over.
    Expired,
}

/// One browser journey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatientSession {
    /// Its id.
    pub id: PatientSessionId,
    /// Whose.
    pub workspace: WorkspaceId,
    /// Whose journey.
    pub patient: PatientKey,
    /// The caller's id of the patient.
    pub patient_id: String,
    /// The link's token.
    pub token: SessionToken,
    /// Direct or picker.
    pub mode: SessionMode,
    /// Where the patient goes afterwards, as sent by the app.
    pub return_url: String,
    /// What the button back says.
    pub return_button_label: Option<String>,
    /// Whatever the app wants back.
    pub metadata: Map<String, Json>,
    /// From when on the link is dead.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the patient finished.
    pub completed_at: Option<Timestamp>,
}
json_value!(PatientSession);

impl PatientSession {
    /// The status now; a session past its time is expired at once, whether or not anything swept it.
    pub fn status(&self, now: Timestamp) -> SessionStatus {
        match self.completed_at {
            Some(_) => SessionStatus::Complete,
            None if self.expires_at <= now => SessionStatus::Expired,
            None => SessionStatus::Open,
        }
    }
}

/// What the app asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSession {
    /// The patient, made when absent.
    pub patient: NewPatient,
    /// Direct or picker.
    pub mode: SessionMode,
    /// Where to go afterwards.
    pub return_url: String,
    /// What the button back says.
    pub return_button_label: Option<String>,
    /// Whatever the app wants back.
    pub metadata: Map<String, Json>,
    /// How long the link lives.
    pub lifetime: Duration,
}

/// Whether a browser may be sent to an address: absolute, http(s) with a host or an app's own scheme, but nothing that a
/// browser would run or show from within.
pub fn is_return_address(text: &str) -> bool {
    const RUNS: [&str; 7] = ["javascript", "data", "vbscript", "file", "blob", "about", "view-source"];
    let odd = |letter: char| letter.is_control() || letter.is_whitespace();
    Url::parse(text).is_ok_and(|url| {
        !RUNS.contains(&url.scheme())
            && !text.contains(odd)
            && (!matches!(url.scheme(), "http" | "https") || url.host().is_some())
    })
}

/// Why a session's list could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// There is no such patient in this workspace.
    #[error("no such patient in this workspace")]
    NoPatient,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The sessions of all workspaces.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: Store,
    clock: Clock,
    random: Random,
    patients: Patients,
}

impl Sessions {
    /// Over a store.
    pub fn new(store: Store, clock: Clock, random: Random) -> Self {
        let patients = Patients::new(store.clone(), clock.clone(), random.clone());
        Self { store, clock, random, patients }
    }

    /// Starts a session, and makes or updates its patient.
    pub async fn create(
        &self,
        workspace: WorkspaceId,
        new: NewSession,
    ) -> Result<PatientSession, StoreError> {
        let sessions = self.clone();
        self.store.write(move |change| sessions.create_in(change, workspace, new)).await
    }

    /// [`Sessions::create`] as part of another write.
    pub fn create_in(
        &self,
        change: &mut Change<'_>,
        workspace: WorkspaceId,
        new: NewSession,
    ) -> Result<PatientSession, StoreError> {
        let now = self.clock.now();
        let patient = self.patients.mention(change, workspace, new.patient)?;
        let session = PatientSession {
            id: self.random.id(now),
            workspace,
            patient: patient.key,
            patient_id: patient.patient_id,
            token: SessionToken::new(self.random.hex::<16>()),
            mode: new.mode,
            return_url: new.return_url,
            return_button_label: new.return_button_label,
            metadata: new.metadata,
            expires_at: now.after(new.lifetime),
            created_at: now,
            completed_at: None,
        };
        let id = session.id.to_bytes();
        let token_key = token_key(change.vault(), &session.token);
        change.put(SESSION_TOKENS, &token_key, &id);
        change.put(SESSIONS_BY_PATIENT, &[session.patient.to_bytes(), id].concat(), &());
        put(change, &session);
        Ok(session)
    }

    /// The session of this id, if it is the workspace's.
    pub fn of_workspace(
        reader: &impl Reader,
        workspace: WorkspaceId,
        id: PatientSessionId,
    ) -> Result<Option<PatientSession>, StoreError> {
        Ok(by_id(reader, id)?.filter(|session| session.workspace == workspace))
    }

    /// The session of this id, whoever's it is: for arrivals, which know it from their own sealed attempt.
    pub async fn by_id(&self, id: PatientSessionId) -> Result<Option<PatientSession>, StoreError> {
        self.store.read(move |view| by_id(view, id)).await
    }

    /// The session behind a link.
    pub async fn by_token(&self, token: SessionToken) -> Result<Option<PatientSession>, StoreError> {
        self.store
            .read(move |view| {
                let Some(id) = view.get(SESSION_TOKENS, &token_key(view.vault(), &token))? else {
                    return Ok(None);
                };
                view.get(SESSIONS, &id)
            })
            .await
    }

    /// A patient's sessions, newest first, after the session `after`.
    pub async fn list(
        &self,
        workspace: WorkspaceId,
        patient_id: &str,
        status: Option<SessionStatus>,
        after: Option<PatientSessionId>,
        limit: usize,
    ) -> Result<Vec<PatientSession>, SessionError> {
        let (patient_id, now) = (patient_id.to_owned(), self.clock.now());
        self.store
            .read(move |view| {
                let patient = patients::find(view, workspace, &patient_id)?.ok_or(SessionError::NoPatient)?;
                let prefix = patient.key.to_bytes();
                let beyond = after.map(|after| [prefix, after.to_bytes()].concat());
                let mut found: Vec<PatientSession> = Vec::new();
                for key in view.keys(SESSIONS_BY_PATIENT, &Range::of(&prefix).descending().beyond(beyond))? {
                    if found.len() == limit {
                        break;
                    }
                    let session = view.get(SESSIONS, &key[16..])?;
                    found.extend(session.filter(|row| status.is_none_or(|wanted| row.status(now) == wanted)));
                }
                Ok(found)
            })
            .await
    }

    /// The connections tried in a session, oldest first, each with the time of the attempt.
    pub fn attempts(
        reader: &impl Reader,
        id: PatientSessionId,
    ) -> Result<Vec<(ConnectionId, Timestamp)>, StoreError> {
        let prefix = id.to_bytes();
        let rows = reader.rows(SESSION_ATTEMPTS, &Range::of(&prefix))?;
        let attempts = rows.into_iter().filter_map(|(key, at)| {
            let connection: [u8; 16] = key[16..].try_into().ok()?;
            Some((ConnectionId::from_bytes(connection), at))
        });
        let mut attempts: Vec<(ConnectionId, Timestamp)> = attempts.collect();
        // A reconnected connection keeps its old id, so ids do not tell the order of attempts.
        attempts.sort_by_key(|(connection, at)| (*at, *connection));
        Ok(attempts)
    }

    /// Removes a patient's sessions, as part of the patient's erasure.
    pub fn remove_all(change: &mut Change<'_>, patient: &Patient) -> Result<(), StoreError> {
        let prefix = patient.key.to_bytes();
        for key in change.keys(SESSIONS_BY_PATIENT, &Range::of(&prefix))? {
            if let Some(session) = change.get(SESSIONS, &key[16..])? {
                let token_key = token_key(change.vault(), &session.token);
                change.remove(SESSION_TOKENS, &token_key);
                change.remove_all(SESSION_ATTEMPTS, &session.id.to_bytes())?;
                change.remove(SESSIONS, &session.id.to_bytes());
            }
            change.remove(SESSIONS_BY_PATIENT, &key);
        }
        Ok(())
    }
}

/// The session of this id, as part of another read or write.
pub(crate) fn by_id(
    reader: &impl Reader,
    id: PatientSessionId,
) -> Result<Option<PatientSession>, StoreError> {
    reader.get(SESSIONS, &id.to_bytes())
}

/// Marks a journey as finished, as part of another write.
pub(crate) fn complete(
    change: &mut Change<'_>,
    id: PatientSessionId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(mut session) = by_id(change, id)? else { return Ok(false) };
    if session.status(now) != SessionStatus::Open {
        return Ok(false);
    }
    session.completed_at = Some(now);
    put(change, &session);
    Ok(true)
}

fn put(change: &mut Change<'_>, session: &PatientSession) {
    change.put(SESSIONS, &session.id.to_bytes(), session);
}

fn token_key(vault: &Vault, token: &SessionToken) -> [u8; 16] {
    vault.digest(&[b"session-token", token.expose().as_bytes()])
}
