//! Departures and arrivals: a patient leaves for a hospital, and comes back with a grant or with a reason.

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::clock::Timestamp;
use crate::events::Incident;
use crate::events::history::{self, Entry};
use crate::grants::ending::{Whose, keep_refreshes};
use crate::grants::grant::{self, Grant, PULLS_WANTED, PullWanted};
use crate::grants::held::{self, HeldGrant};
use crate::grants::refresh::{first_due, read_both};
use crate::grants::{Announcements, Connection, ConnectionStatus, FailureNote, Grants, due, lock};
use crate::id::{ConnectionId, EhrClientId, Id as _, PatientSessionId, SourceId};
use crate::smart::ehr_error::{FailureCode, PatientText, WhoActs};
use crate::smart::launch::{Exchanged, Unfinished};
use crate::smart::scopes::ScopeSet;
use crate::smart::{
    CallbackQuery, Departure, EhrPatientId, EhrServer, Landing, LaunchFailure, Launcher, Origin,
    Registration, Returned, StaleReturn,
};
use crate::store::{Change, StoreError};
use crate::workspaces::{PatientSession, SessionMode, Sessions, sessions};

/// How long a browser that came twice waits for the outcome of the first time.
const PATIENCE: Duration = Duration::from_mins(1);
/// A departure that fails again within this time is the same failure.
const SAME_FAILURE: Duration = Duration::from_mins(1);

/// What an outcome is about.
struct About<'a> {
    session: PatientSessionId,
    source: SourceId,
    ehr_client: EhrClientId,
    requested: &'a str,
    started_at: Timestamp,
    /// When the browser was back; nothing when it did not get away.
    returned_at: Option<Timestamp>,
}

impl About<'_> {
    /// The way to the EHR and back, for the history of the connection it led to.
    fn way(&self) -> Vec<(Timestamp, Entry)> {
        let back = self.returned_at.map(|at| [(self.started_at, Entry::Redirected), (at, Entry::Returned)]);
        back.into_iter().flatten().collect()
    }
}

impl Grants {
    /// Prepares a patient's departure to a source. When that fails, the failure is kept, and its connection id returned.
    pub async fn begin(
        &self,
        session: &PatientSession,
        source: SourceId,
    ) -> Result<Result<Departure, ConnectionId>, StoreError> {
        let ehr_client = self.0.directory.source(source).map(|source| source.ehr_client);
        let parties = ehr_client.and_then(|client| Some((client, self.parties(source, client)?)));
        let Some((ehr_client, (server, registration))) = parties else {
            let failure = LaunchFailure::source_gone();
            return Ok(Err(self.note_departure_failure(session, source, None, failure).await?));
        };
        let origin = Origin::ConnectPage { session: session.id };
        let (source_side, our_side) = ((source, &server), (ehr_client, &registration));
        match self.0.launcher.begin(origin, None, source_side, our_side).await {
            Ok(departure) => Ok(Ok(departure)),
            Err(failure) => {
                Ok(Err(self.note_departure_failure(session, source, Some(ehr_client), failure).await?))
            }
        }
    }

    /// Takes a browser back from a hospital, finishes the launch and keeps its outcome.
    pub async fn callback(
        &self,
        query: CallbackQuery,
        cookies: &[(String, String)],
    ) -> Result<Landing, StaleReturn> {
        let Some(key) = self.0.launcher.attempt_key(&query) else { return Err(StaleReturn::Unknown) };
        let (finished, waiting) = watch::channel(false);
        let earlier = {
            let mut finishing = lock(&self.0.finishing);
            let earlier = finishing.get(&key).cloned();
            if earlier.is_none() {
                finishing.insert(key, waiting);
            }
            earlier
        };
        let first = earlier.is_none();
        if let Some(mut earlier) = earlier {
            // A second click, while the first is being finished: its outcome is this one's too.
            let _ = tokio::time::timeout(PATIENCE, earlier.wait_for(|finished| *finished)).await;
        }
        let (tell, told) = oneshot::channel();
        let (grants, cookies) = (self.clone(), cookies.to_vec());
        // It goes on when the browser does not wait for it: neither the code nor its tokens may be lost half-way.
        self.0.shutdown.spawn(async move {
            let landed = match grants.0.launcher.take_back(&query, &cookies).await {
                Ok(returned) => grants.land(returned, query).await.map_err(StaleReturn::from),
                Err(StaleReturn::Repeated(landing)) => Ok(landing),
                Err(stale) => Err(stale),
            };
            if first {
                lock(&grants.0.finishing).remove(&key);
            }
            finished.send_replace(true);
            let _ = tell.send(landed);
        });
        told.await.unwrap_or(Err(StaleReturn::Store(StoreError::Closed)))
    }

    /// Ends a picker's journey at the patient's wish; says whether this call did it.
    pub async fn done(&self, session: PatientSessionId) -> Result<bool, StoreError> {
        let (now, announcements) = (self.0.clock.now(), self.0.announcements.clone());
        self.0
            .store
            .write(move |change| {
                let Some(known) = sessions::by_id(change, session)? else { return Ok(false) };
                let completed = sessions::complete(change, session, now)?;
                if completed {
                    announcements.session_completed(change, &known, now)?;
                }
                Ok::<_, StoreError>(completed)
            })
            .await
    }

    async fn land(&self, returned: Returned, query: CallbackQuery) -> Result<Landing, StoreError> {
        let attempt = &returned.attempt;
        let returned_at = Some(self.0.clock.now());
        let _holding = match returned.landing {
            Landing::Session { connection, .. } => Some(self.holding(connection)),
            Landing::Context { .. } => None,
        };
        let outcome = self.finish(&returned, query).await?;
        let (session, id) = match returned.landing {
            Landing::Session { session, connection } => (session, connection),
            Landing::Context { workspace, context } => {
                self.keep_context(workspace, context, attempt, outcome).await?;
                return Ok(returned.landing);
            }
        };
        let about = About {
            session,
            source: attempt.source,
            ehr_client: attempt.ehr_client,
            requested: &attempt.requested,
            started_at: attempt.started_at,
            returned_at,
        };
        let connection = match outcome {
            Ok(exchanged) => {
                if let Some(patient) = exchanged.patient.clone() {
                    self.keep(&about, &returned, (id, patient), exchanged).await?
                } else {
                    let grant = Grant::of(&exchanged);
                    let unwanted = HeldGrant {
                        session: Some(session),
                        source: about.source,
                        ehr_client: about.ehr_client,
                        grant,
                    };
                    self.give_back_of_launch(unwanted);
                    let failure = LaunchFailure::no_patient(&exchanged.warnings);
                    self.keep_failure(&about, id, failure, Ends::Journey).await?
                }
            }
            Err(failure) => self.keep_failure(&about, id, failure, Ends::Journey).await?,
        };
        Ok(Landing::Session { session, connection })
    }

    /// Finishes a launch as far as the hospital is asked; what came of it is to be kept next.
    async fn finish(
        &self,
        returned: &Returned,
        query: CallbackQuery,
    ) -> Result<Result<Exchanged, LaunchFailure>, StoreError> {
        let attempt = &returned.attempt;
        let (source, ehr_client) = (attempt.source, attempt.ehr_client);
        let Some((server, registration)) = self.parties(source, ehr_client) else {
            return Ok(Err(LaunchFailure::source_gone()));
        };
        let mut exchanged = match self.0.launcher.finish(attempt, query, &server, &registration).await {
            Ok(exchanged) => exchanged,
            Err(Unfinished { failure, unwanted }) => {
                if let Some(unwanted) = unwanted {
                    let grant = Grant::received(unwanted.tokens, unwanted.received_at, unwanted.token_server);
                    let session = returned.landing.session();
                    self.give_back_of_launch(HeldGrant { session, source, ehr_client, grant });
                }
                return Ok(Err(failure));
            }
        };
        let asking = (exchanged.question.take(), returned.landing);
        if let (Some(question), Landing::Session { session, connection }) = asking {
            let grant = Grant::of(&exchanged);
            self.hold(connection, HeldGrant { session: Some(session), source, ehr_client, grant }).await?;
            match self.0.launcher.ask_for_patient(&server, &exchanged, &question).await {
                Ok(patient) => exchanged.patient = Some(patient),
                Err(reason) => exchanged.warnings.push(reason),
            }
        }
        Ok(Ok(exchanged))
    }

    /// Connection, grant, what the session notes of it and the wish for a pull: one transaction.
    async fn keep(
        &self,
        about: &About<'_>,
        returned: &Returned,
        (id, ehr_patient): (ConnectionId, EhrPatientId),
        exchanged: Exchanged,
    ) -> Result<ConnectionId, StoreError> {
        let now = self.0.clock.now();
        for warning in &exchanged.warnings {
            tracing::warn!(source = %about.source, warning, "launch finished with a warning");
        }
        let requested: Vec<String> = texts(&ScopeSet::parse(about.requested));
        let scopes = exchanged.tokens.scope.as_ref().map_or_else(|| requested.clone(), texts);
        let grant = Grant::of(&exchanged);
        let (session_id, source, ehr_client) = (about.session, about.source, about.ehr_client);
        let returned = returned.clone();
        let (launcher, unwanted): (Launcher, Grant) = (self.0.launcher.clone(), grant.clone());
        let (way, announcements) = (about.way(), self.0.announcements.clone());
        let (grants, directory) = (self.clone(), self.0.directory.clone());
        let kept = self
            .0
            .store
            .write(move |change| {
                held::let_go(change, id);
                let Some(session) = sessions::by_id(change, session_id)? else {
                    return Ok(Kept::NoSession);
                };
                let earlier = Connection::of_patient(change, session.patient)?;
                let mut known =
                    earlier.into_iter().filter(|other| other.source == source && other.ehr_patient.is_some());
                // One patient's record never lands on another's: who comes back as somebody else is stopped.
                let mut same = None;
                for other in known.by_ref() {
                    if other.ehr_patient.as_ref() != Some(&ehr_patient) {
                        return Ok(Kept::OtherPatient);
                    }
                    if other.status != ConnectionStatus::Disconnected && same.is_none() {
                        same = Some(other);
                    }
                }
                let connection = Connection {
                    id: same.as_ref().map_or(id, |same| same.id),
                    workspace: session.workspace,
                    patient: session.patient,
                    source,
                    ehr_client,
                    session: Some(session_id),
                    launch_context: None,
                    status: ConnectionStatus::Active,
                    ehr_patient: Some(ehr_patient),
                    requested_scopes: requested,
                    scopes,
                    failure: None,
                    created_at: same.as_ref().map_or(now, |same| same.created_at),
                    updated_at: now,
                };
                connection.put(change);
                connection.note_attempt(change, session_id, now);
                let landing = Landing::Session { session: session_id, connection: connection.id };
                launcher.settle(change, &returned, landing)?;
                let issued = Entry::Issued { refreshable: grant.refresh_token.is_some() };
                issue(change, connection.id, grant, grants.keep_alive_of(&connection))?;
                change.put(
                    PULLS_WANTED,
                    &connection.id.to_bytes(),
                    &PullWanted { since: now, by_schedule: false },
                );
                for (at, entry) in way.into_iter().chain([(now, issued)]) {
                    history::note(change, connection.id, at, entry, None)?;
                }
                directory.verify_in(change, source, now, "a patient connected")?;
                announcements.connected(change, &connection, now)?;
                finish_direct(change, &announcements, &session, now)?;
                Ok::<_, StoreError>(Kept::As(connection.id))
            })
            .await;
        let kept = match kept {
            Err(cause @ StoreError::Damaged(_)) => {
                // A row of the patient that cannot be read; the store itself is well, and nothing was written.
                self.give_back(source, ehr_client, unwanted, Whose::Launch(Some(session_id)));
                return Err(cause);
            }
            kept => kept?,
        };
        match kept {
            Kept::As(connection) => {
                self.forget(&[connection]);
                self.look_for_wishes();
                self.look_at_schedule();
                Ok(connection)
            }
            Kept::OtherPatient => {
                self.give_back(source, ehr_client, unwanted, Whose::Launch(Some(session_id)));
                self.keep_failure(about, id, other_patient(), Ends::Journey).await
            }
            Kept::NoSession => {
                self.give_back(source, ehr_client, unwanted, Whose::Nobody);
                let staff = "The patient was deleted while signing in; the access that came was not kept. \
                             Who acts: nobody.";
                let failure =
                    LaunchFailure::ours(FailureCode::SessionExpired, WhoActs::Nobody, staff.to_owned());
                self.keep_failure(about, id, failure, Ends::Journey).await
            }
        }
    }

    async fn note_departure_failure(
        &self,
        session: &PatientSession,
        source: SourceId,
        ehr_client: Option<EhrClientId>,
        failure: LaunchFailure,
    ) -> Result<ConnectionId, StoreError> {
        let now = self.0.clock.now();
        if let Some(noted) = self.noted_just_now(session.id, source).await? {
            return Ok(noted);
        }
        let ehr_client = ehr_client.unwrap_or_else(|| EhrClientId::from_bytes([0; 16]));
        let about = About {
            session: session.id,
            source,
            ehr_client,
            requested: "",
            started_at: now,
            returned_at: None,
        };
        // Whoever looks at a link, a mail scanner too, must not end the journey because the hospital is down.
        self.keep_failure(&about, self.0.random.id(now), failure, Ends::Nothing).await
    }

    /// The same failure of a moment ago in this session: who looks at a link again and again adds nothing to the store.
    async fn noted_just_now(
        &self,
        session: PatientSessionId,
        source: SourceId,
    ) -> Result<Option<ConnectionId>, StoreError> {
        let since = self.0.clock.now().before(SAME_FAILURE);
        self.0
            .store
            .read(move |view| {
                for (connection, _) in Sessions::attempts(view, session)?.into_iter().rev().take(8) {
                    let found = Connection::find(view, connection)?.filter(|found| found.source == source);
                    let failure = found.and_then(|found| found.failure);
                    if failure.is_some_and(|failure| {
                        failure.code == FailureCode::SourceUnavailable && failure.at >= since
                    }) {
                        return Ok(Some(connection));
                    }
                }
                Ok(None)
            })
            .await
    }

    /// A failed attempt is kept too: as a connection for the app, as an incident for staff, and as one line in the log.
    async fn keep_failure(
        &self,
        about: &About<'_>,
        id: ConnectionId,
        failure: LaunchFailure,
        ends: Ends,
    ) -> Result<ConnectionId, StoreError> {
        let now = self.0.clock.now();
        let reference = self.0.random.reference();
        tracing::warn!(
            reference = %reference,
            source = %about.source,
            code = failure.code.as_str(),
            correlation_id = failure.correlation_id,
            seconds_away = now.since(about.started_at).as_secs(),
            "launch failed"
        );
        let (session_id, source, ehr_client) = (about.session, about.source, about.ehr_client);
        let requested = texts(&ScopeSet::parse(about.requested));
        let (way, announcements) = (about.way(), self.0.announcements.clone());
        self.0
            .store
            .write(move |change| {
                held::let_go(change, id);
                let mut incident = Incident {
                    reference,
                    at: now,
                    workspace: None,
                    source: Some(source),
                    code: failure.code.as_str().to_owned(),
                    staff: failure.staff,
                    who_acts: failure.who.words().to_owned(),
                    correlation_id: failure.correlation_id,
                };
                if let Some(session) = sessions::by_id(change, session_id)? {
                    incident.workspace = Some(session.workspace);
                    let connection = Connection {
                        id,
                        workspace: session.workspace,
                        patient: session.patient,
                        source,
                        ehr_client,
                        session: Some(session_id),
                        launch_context: None,
                        status: ConnectionStatus::Failed,
                        ehr_patient: None,
                        requested_scopes: requested,
                        scopes: Vec::new(),
                        failure: Some(FailureNote {
                            code: failure.code,
                            at: now,
                            reference,
                            patient: failure.patient,
                            who: failure.who,
                            more_information: failure.more_information,
                        }),
                        created_at: now,
                        updated_at: now,
                    };
                    connection.put(change);
                    connection.note_attempt(change, session_id, now);
                    let failed = Entry::Failed {
                        code: incident.code.clone(),
                        correlation_id: incident.correlation_id.clone(),
                    };
                    for (at, entry) in way {
                        history::note(change, id, at, entry, None)?;
                    }
                    history::note(change, id, now, failed, Some(reference))?;
                    announcements.failed(change, &connection, now)?;
                    if ends == Ends::Journey {
                        finish_direct(change, &announcements, &session, now)?;
                    }
                }
                incident.put(change);
                Ok::<_, StoreError>(id)
            })
            .await
    }
}

/// What a failure ends, in direct mode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Journey,
    Nothing,
}

enum Kept {
    As(ConnectionId),
    OtherPatient,
    NoSession,
}

/// Puts a new grant in the place of whatever the connection had.
fn issue(
    change: &mut Change<'_>,
    id: ConnectionId,
    mut grant: Grant,
    interval: Duration,
) -> Result<(), StoreError> {
    let (_, replaced) = read_both(change, id)?;
    keep_refreshes(change, id, replaced.as_ref())?;
    grant::remove(change, id, replaced.as_ref());
    let due = first_due(&grant, interval);
    due::set(change, id, &mut grant, due);
    grant::put(change, id, &grant);
    Ok(())
}

/// In direct mode the return from the hospital ends the journey, however it went.
fn finish_direct(
    change: &mut Change<'_>,
    announcements: &Announcements,
    session: &PatientSession,
    now: Timestamp,
) -> Result<(), StoreError> {
    if matches!(session.mode, SessionMode::Direct(_)) && sessions::complete(change, session.id, now)? {
        announcements.session_completed(change, session, now)?;
    }
    Ok(())
}

fn texts(scopes: &ScopeSet) -> Vec<String> {
    scopes.iter().map(|scope| scope.as_str().to_owned()).collect()
}

fn other_patient() -> LaunchFailure {
    let staff = "This patient is connected to the source already, with another record there. The new access was not \
                 kept, so that two people's records cannot be mixed. Who acts: you (the clinic): find out which record \
                 is the right one; if the first was wrong, delete the patient here and start again.";
    LaunchFailure {
        patient: PatientText::OtherPerson,
        ..LaunchFailure::ours(FailureCode::OauthCallbackFailed, WhoActs::Clinic, staff.to_owned())
    }
}

impl Grants {
    /// The two sides of a launch: the source's server, and the registration that is used there. Always the registration
    /// the launch began with: another one's secret has no business at a token endpoint that was chosen before.
    pub(super) fn parties(
        &self,
        source: SourceId,
        ehr_client: EhrClientId,
    ) -> Option<(EhrServer, Registration)> {
        let source = self.0.directory.source(source)?;
        let client = self.0.directory.client(ehr_client)?;
        Some((source.server(), client.registration()))
    }
}
