//! One refresh: what is sent, what its answer means, and in which order it is kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::crypto::base64url;
use crate::events::history::{self, EndedBecause, Entry, RefreshedBy};
use crate::grants::custody::{
    Access, AccessError, CLOCK_TOLERANCE, Freshness, LEAST_BETWEEN, Wish, good_until, renew_from,
};
use crate::grants::ending::{Ending, Whose};
use crate::grants::grant::{self, GRANTS, Grant, Refreshed, Refreshes, SUSPENDED};
use crate::grants::refusals::{Refusals, Verdict, verdict};
use crate::grants::{Connection, ConnectionStatus, Grants, due};
use crate::id::{ConnectionId, Id as _};
use crate::outbound::Reach;
use crate::smart::token_response::{RefreshToken, TokenResponse};
use crate::smart::{Registration, TokenFailure, Urgency};
use crate::store::{Change, Mark, Reader, StoreError, View};

/// After a failed scheduled refresh the grant comes due again after this, doubling up to the longest.
const FIRST_RETRY: Duration = Duration::from_mins(5);
const LONGEST_RETRY: Duration = Duration::from_hours(6);

/// The moments of a refresh at which losing power would matter, for tests that cut it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshStep {
    /// The EHR is about to be asked.
    Asking,
    /// Its answer is in memory, and nowhere else.
    Answered,
    /// It is on disk; nobody has been told.
    Kept,
}

/// Is told of each step of each refresh, and holds it up as long as it likes.
pub type AtStep = Arc<dyn Fn(RefreshStep, ConnectionId) + Send + Sync>;

impl Grants {
    /// Has `at_step` called at each step of each refresh. Once; later calls change nothing.
    pub fn watch_steps(&self, at_step: AtStep) {
        let _ = self.0.at_step.set(at_step);
    }

    fn step(&self, step: RefreshStep, connection: ConnectionId) {
        if let Some(at_step) = self.0.at_step.get() {
            at_step(step, connection);
        }
    }

    /// Looks into the store, and refreshes when the token there will not do either. Called inside the connection's gate.
    pub(super) async fn refresh(&self, id: ConnectionId, wish: &Wish) -> Result<Access, AccessError> {
        let generation = self.0.ended.load(Ordering::Acquire);
        let read = move |view: &View<'_>| {
            let (connection, as_connection) = Connection::find_marked(view, id)?;
            let (grant, as_grant) = view.get_marked(GRANTS, &id.to_bytes())?;
            Ok::<_, StoreError>((connection, grant, [as_connection, as_grant]))
        };
        let (connection, stored, marks) = if wish.by == RefreshedBy::Schedule {
            // It has read these rows for this batch, so they are most likely in memory: another thread would cost more than
            // reading does.
            self.0.store.read_now(read)?
        } else {
            self.0.store.read(read).await?
        };
        let connection = connection.ok_or(AccessError::Missing)?;
        if connection.status != ConnectionStatus::Active {
            return Err(AccessError::NotActive(connection.status));
        }
        let grant = stored.ok_or(AccessError::NotActive(ConnectionStatus::Expired))?;
        let now = self.0.clock.now();
        let until = match wish.freshness {
            Freshness::Works => good_until(&grant),
            Freshness::Young => renew_from(&grant),
            Freshness::New => grant.received_at.after(LEAST_BETWEEN.min(grant.life())),
        };
        // What was received while the clock was ahead has no known age: it is neither taken for fresh nor for too young.
        let dated = grant.received_at <= now.after(CLOCK_TOLERANCE);
        let rejected = wish.rejected.as_ref() == Some(&grant.access_token);
        // A grant that is in the store but not in memory is the usual case after a restart.
        if !rejected && dated && now < until {
            return self.remember_as(&connection, &grant, generation);
        }
        if rejected && dated && now.since(grant.received_at) < LEAST_BETWEEN.min(grant.life()) {
            return Err(AccessError::Rejected);
        }
        let Some(refresh_token) = grant.refresh_token.clone() else {
            return match (now < grant.expires_at, rejected) {
                (true, false) => self.remember_as(&connection, &grant, generation),
                // Nobody but the token's end ends such a grant.
                (true, true) => Err(AccessError::Rejected),
                (false, _) => self.run_out(id).await,
            };
        };
        // What the EHR would answer could not be kept, and its old token would be used up.
        if !self.0.store.is_writable() {
            return Err(StoreError::Storage("writes have failed; see the log".to_owned()).into());
        }
        let (server, registration) =
            self.parties(connection.source, connection.ehr_client).ok_or(AccessError::Missing)?;
        let proof = self.0.tokens.proof(&grant.token_server, &registration);
        let proof = base64url(&self.0.store.vault().digest(&[b"proof", proof.as_bytes()]));
        if let Some(refusals) = grant.refusals.as_ref().filter(|refusals| refusals.holds(&proof, now)) {
            return Err(AccessError::Suspended {
                code: refusals.code.clone(),
                next_try: refusals.next_try(),
            });
        }
        self.step(RefreshStep::Asking, id);
        // Hardly anybody waits for the schedule: only who needs this very grant just now.
        let urgency = if wish.by == RefreshedBy::Schedule { Urgency::InBulk } else { Urgency::AtOnce };
        let answer = self.ask(id, &grant, (&registration, server.reach), &refresh_token, urgency).await;
        self.step(RefreshStep::Answered, id);
        match answer {
            Ok((tokens, used)) => {
                let read = Read { connection, grant, marks, generation };
                self.keep_refreshed(read, (tokens, used), refresh_token, wish).await
            }
            Err(failure) => self.note_failed_refresh(id, refresh_token, failure, &proof).await,
        }
    }

    /// The token response, and the refresh token it was given for.
    async fn ask(
        &self,
        id: ConnectionId,
        grant: &Grant,
        (registration, reach): (&Registration, Reach),
        refresh_token: &RefreshToken,
        urgency: Urgency,
    ) -> Result<(TokenResponse, RefreshToken), TokenFailure> {
        let tokens = &self.0.tokens;
        let answer = tokens.refresh(&grant.token_server, registration, reach, refresh_token, urgency).await;
        let failure = match answer {
            Ok(answer) => return Ok((answer, refresh_token.clone())),
            Err(failure) => failure,
        };
        // The EHR does not know the token that it gave last and that was never used: a fault or a crash on its side may
        // have undone the exchange. By its own word the grant is over, so one try with the token before risks nothing.
        match &grant.superseded {
            // But not when the patient has connected anew meanwhile, or when there is no time to keep what would come.
            Some(superseded)
                if verdict(&failure) == Verdict::Ended && self.still_holds(id, refresh_token).await =>
            {
                match tokens
                    .refresh(&grant.token_server, registration, reach, superseded, Urgency::AtOnce)
                    .await
                {
                    Ok(answer) => Ok((answer, superseded.clone())),
                    Err(second) if verdict(&second) == Verdict::Nothing => Err(second),
                    Err(_) => Err(failure),
                }
            }
            _ => Err(failure),
        }
    }

    /// Whether the store still holds this refresh token, and there is time to put another in its place.
    async fn still_holds(&self, id: ConnectionId, refresh_token: &RefreshToken) -> bool {
        let stored = self.0.store.read(move |view| view.get(GRANTS, &id.to_bytes())).await;
        let same = |stored: Grant| stored.refresh_token.as_ref() == Some(refresh_token);
        !self.0.shutdown.is_triggered() && stored.ok().flatten().is_some_and(same)
    }

    async fn keep_refreshed(
        &self,
        read: Read,
        (tokens, used): (TokenResponse, RefreshToken),
        refreshed: RefreshToken,
        wish: &Wish,
    ) -> Result<Access, AccessError> {
        let Read { connection, grant, marks, generation } = read;
        let id = connection.id;
        let other = tokens.patient.is_some() && tokens.patient != connection.ehr_patient;
        let now = self.0.clock.now();
        let rotated = tokens.refresh_token.as_ref().is_some_and(|new| *new != used);
        let renewed = Grant {
            access_token: tokens.access_token,
            received_at: now,
            expires_at: now.after(tokens.expires_in),
            superseded: rotated.then(|| used.clone()),
            // Present replaces, absent keeps.
            refresh_token: Some(tokens.refresh_token.unwrap_or(used)),
            unanswered_since: None,
            refusals: None,
            failures: 0,
            ..grant.clone()
        };
        if other {
            tracing::error!(connection = %id, "a refresh came back for another patient's record; the connection was ended");
            self.give_back(connection.source, connection.ehr_client, renewed, Whose::Connection(id));
            let ending = Ending::of(EndedBecause::OtherPatient, ConnectionStatus::RefreshFailed);
            return self.end(id, Some(refreshed), ending).await;
        }
        let done = Refreshed { at: now, by: wish.by, rotated };
        let (row, interval) = (renewed.clone(), self.keep_alive_of(&connection));
        // Invariant: the rotated refresh token is on disk before the access token that came with it is used.
        let kept = self
            .0
            .store
            .write(move |change| {
                // The connection may have been ended, or made anew, while the EHR was asked. Only the grant that was
                // refreshed is replaced. Rows that nobody has written since need not be opened again.
                if marks == [Connection::mark(change, id)?, change.mark(GRANTS, &id.to_bytes())?] {
                    replace(change, id, row, &grant, done, interval);
                    return Ok::<_, StoreError>(Replaced::Yes);
                }
                let (connection, stored) = read_both(change, id)?;
                let active = connection.filter(|found| found.status == ConnectionStatus::Active);
                match (active, stored) {
                    (Some(_), Some(stored)) if stored.refresh_token.as_ref() == Some(&refreshed) => {
                        replace(change, id, row, &stored, done, interval);
                        Ok(Replaced::Yes)
                    }
                    (Some(connection), stored) => {
                        Ok(Replaced::ByNewer(Box::new(connection), stored.map(Box::new)))
                    }
                    (None, _) => Ok(Replaced::Ended),
                }
            })
            .await?;
        self.step(RefreshStep::Kept, id);
        match kept {
            Replaced::Yes => self.remember_as(&connection, &renewed, generation),
            // The older grant is let lapse: some EHRs revoke all that one patient gave one app, the newer one with it.
            Replaced::ByNewer(connection, Some(newer)) => self.remember_as(&connection, &newer, generation),
            Replaced::ByNewer(_, None) | Replaced::Ended => {
                self.give_back(connection.source, connection.ehr_client, renewed, Whose::Connection(id));
                Err(AccessError::NotActive(ConnectionStatus::Disconnected))
            }
        }
    }

    /// A refresh that gave no token: noted, and the grant ended when that is what it means.
    async fn note_failed_refresh(
        &self,
        id: ConnectionId,
        refused: RefreshToken,
        failure: TokenFailure,
        proof: &str,
    ) -> Result<Access, AccessError> {
        let words = Words::of(&failure);
        tracing::warn!(connection = %id, cause = %failure, correlation_id = words.correlation_id, "refresh failed");
        let meaning = verdict(&failure);
        if meaning == Verdict::Ended {
            return self.end(id, Some(refused), Ending::refused(&words)).await;
        }
        let (now, proof, reason) = (self.0.clock.now(), proof.to_owned(), failure.clone());
        let (token, said) = (refused.clone(), words.clone());
        let persists = self
            .0
            .store
            .write(move |change| {
                let stored = change.get(GRANTS, &id.to_bytes())?;
                let same = stored.filter(|stored| stored.refresh_token.as_ref() == Some(&token));
                let Some(mut grant) = same else { return Ok(false) };
                let mut entry = Entry::RefreshFailed {
                    code: said.code,
                    correlation_id: said.correlation_id.clone(),
                    last: false,
                };
                grant.failures = grant.failures.saturating_add(1);
                let mut retry = now.after(due::spread(retry_after(grant.failures), id));
                if meaning == Verdict::Doubtful {
                    let refusals = Refusals::after(grant.refusals.as_ref(), &reason, &proof, now);
                    if refusals.persist() {
                        return Ok(true);
                    }
                    if refusals.count == 1 {
                        entry = Entry::Suspended {
                            code: refusals.code.clone(),
                            correlation_id: said.correlation_id,
                        };
                        change.put(SUSPENDED, &id.to_bytes(), &());
                    }
                    retry = refusals.next_try();
                    grant.refusals = Some(refusals);
                }
                if may_have_happened(&reason) {
                    grant.unanswered_since.get_or_insert(now);
                }
                // A suspended grant is tried by the schedule, whoever asks meanwhile.
                if meaning == Verdict::Doubtful || grant.due_at.is_none_or(|due| due <= now) {
                    due::set(change, id, &mut grant, retry);
                }
                grant::put(change, id, &grant);
                history::note(change, id, now, entry, None)?;
                Ok::<_, StoreError>(false)
            })
            .await?;
        if persists {
            return self.end(id, Some(refused), Ending::refused(&words)).await;
        }
        if meaning == Verdict::Doubtful {
            self.look_at_schedule();
        }
        Err(AccessError::NotNow(failure))
    }
}

/// What is refreshed, as it was read.
struct Read {
    connection: Connection,
    grant: Grant,
    /// Of the two rows.
    marks: [Mark; 2],
    /// How many connections had been ended.
    generation: u64,
}

/// What became of a refreshed grant.
enum Replaced {
    Yes,
    /// The patient connected anew meanwhile; that grant stands.
    ByNewer(Box<Connection>, Option<Box<Grant>>),
    Ended,
}

/// Puts a refreshed grant in the place of the one it was refreshed from. One row, unless it was due or suspended.
fn replace(
    change: &mut Change<'_>,
    id: ConnectionId,
    mut row: Grant,
    stored: &Grant,
    done: Refreshed,
    interval: Duration,
) {
    row.refreshes = Refreshes::clone(&stored.refreshes);
    row.refreshes.add(done);
    row.due_at = stored.due_at;
    if stored.refusals.is_some() {
        change.remove(SUSPENDED, &id.to_bytes());
    }
    let next = done.at.after(interval);
    // A place beyond the next one was taken while the clock was ahead, or the interval longer.
    let misplaced = stored.due_at.is_none_or(|due| due <= done.at || due > next);
    if stored.refusals.is_some() || misplaced {
        due::set(change, id, &mut row, next);
    }
    grant::put(change, id, &row);
}

fn retry_after(failures: u32) -> Duration {
    (FIRST_RETRY * 2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(LONGEST_RETRY)
}

/// Whether the EHR may have carried out the refresh although no usable answer came.
fn may_have_happened(failure: &TokenFailure) -> bool {
    match failure {
        TokenFailure::NoAnswer(cause) => cause.may_have_happened(),
        TokenFailure::Unusable(_) => true,
        TokenFailure::Refused { .. } | TokenFailure::NotOAuth { .. } | TokenFailure::Signing(_) => false,
    }
}

/// A failure in words for the ledger: the EHR's own code, or one of ours.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub code: String,
    pub correlation_id: Option<String>,
}

impl Words {
    pub(super) fn of(failure: &TokenFailure) -> Self {
        let ours = |code: &str| Self { code: code.to_owned(), correlation_id: None };
        match failure {
            TokenFailure::Refused { error, status } => Self {
                code: error.known_code().map_or_else(|| format!("status_{status}"), str::to_owned),
                correlation_id: error.correlation_id.clone(),
            },
            TokenFailure::NotOAuth { status, .. } => ours(&format!("status_{status}")),
            TokenFailure::Unusable(_) => ours("unusable_answer"),
            TokenFailure::NoAnswer(cause) if cause.may_have_happened() => ours("no_answer"),
            TokenFailure::NoAnswer(_) => ours("not_reached"),
            TokenFailure::Signing(_) => ours("not_signed"),
        }
    }
}

pub(super) fn read_both(
    reader: &impl Reader,
    id: ConnectionId,
) -> Result<(Option<Connection>, Option<Grant>), StoreError> {
    Ok((Connection::find(reader, id)?, reader.get(GRANTS, &id.to_bytes())?))
}

/// When a grant that was used now wants attention next.
pub(super) fn first_due(grant: &Grant, interval: Duration) -> Timestamp {
    // Without a refresh token there is nothing to keep alive: it is over when its access token is.
    if grant.refresh_token.is_some() { grant.received_at.after(interval) } else { grant.expires_at }
}
