//! Access tokens for whoever needs one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::grants::grant::{self, GRANTS, Grant};
use crate::grants::{Connection, ConnectionStatus, Grants, lock};
use crate::id::{ConnectionId, EhrClientId, Id as _, PatientKey, SourceId};
use crate::outbound::Reach;
use crate::smart::token_response::{AccessToken, RefreshToken};
use crate::smart::vendors::VendorProfile;
use crate::smart::{EhrPatientId, FhirBaseUrl, TokenFailure};
use crate::store::{Reader, StoreError};

/// Refresh this long before expiry at least: one slow answer and a clock off by half a minute.
const LEAST_MARGIN: Duration = Duration::from_mins(1);
/// Some servers throttle more frequent refreshing of one grant; a token that is rejected sooner than this is not the
/// token's fault.
const LEAST_BETWEEN: Duration = Duration::from_mins(1);

/// An access token with what it is good for.
#[derive(Debug, Clone)]
pub struct Access {
    /// The token.
    pub token: AccessToken,
    /// It may be sent here and below, and nowhere else.
    pub base: FhirBaseUrl,
    /// How far the call may go.
    pub reach: Reach,
    /// How this vendor's searches work.
    pub profile: &'static VendorProfile,
    /// Whose record it opens.
    pub ehr_patient: EhrPatientId,
    /// Where.
    pub source: SourceId,
}

/// Why there is no access token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccessError {
    /// No such connection, or its source is gone.
    #[error("there is no such connection")]
    Missing,
    /// The connection is over; the patient must connect again.
    #[error("the connection is not active")]
    NotActive(ConnectionStatus),
    /// The EHR's token endpoint gave none this time; the grant may still be good.
    #[error("the hospital did not renew the access: {0}")]
    NotNow(TokenFailure),
    /// The EHR rejects a token that it gave a moment ago.
    #[error("the hospital rejects a token that it has just given")]
    Rejected,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How long a token endpoint in trouble is left alone, the first time and at most.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_mins(1);

/// Where the refreshes of one connection pass, one at a time.
#[derive(Debug, Default)]
pub(super) struct Gate {
    turn: Arc<tokio::sync::Mutex<()>>,
    tries: AtomicU64,
    failed: Mutex<Option<Failed>>,
}

/// The last try, when it failed for now.
#[derive(Debug)]
struct Failed {
    error: AccessError,
    times: u32,
    not_before: Timestamp,
}

/// A token in memory.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    access: Access,
    good_until: Timestamp,
}

impl Grants {
    /// An access token that works for a while yet: from memory, or after a refresh.
    pub async fn access(&self, connection: ConnectionId) -> Result<Access, AccessError> {
        match self.in_memory(connection, None) {
            Some(access) => Ok(access),
            None => self.renewed(connection, None).await,
        }
    }

    /// Another access token than the one the EHR has just rejected with 401.
    pub async fn renew(
        &self,
        connection: ConnectionId,
        rejected: &AccessToken,
    ) -> Result<Access, AccessError> {
        match self.in_memory(connection, Some(rejected)) {
            Some(access) => Ok(access),
            None => self.renewed(connection, Some(rejected)).await,
        }
    }

    fn in_memory(&self, connection: ConnectionId, rejected: Option<&AccessToken>) -> Option<Access> {
        let fresh = lock(&self.0.fresh);
        let found = fresh.get(&connection)?;
        let usable = self.0.clock.now() < found.good_until && rejected != Some(&found.access.token);
        usable.then(|| found.access.clone())
    }

    /// Invariant: at most one refresh of a connection is in flight. Everyone passes its gate, and looks again inside:
    /// servers that rotate refresh tokens end the whole grant when an old one is used twice. Who waited while a refresh
    /// failed is told of that failure, and a server in trouble is left alone for a while.
    async fn renewed(
        &self,
        connection: ConnectionId,
        rejected: Option<&AccessToken>,
    ) -> Result<Access, AccessError> {
        let gate = Arc::clone(lock(&self.0.gates).entry(connection).or_default());
        let began = gate.tries.load(Ordering::Acquire);
        let (grants, rejected) = (self.clone(), rejected.cloned());
        let (tell, told) = oneshot::channel();
        // A refresh is not given up because its caller went away: the answer may hold a rotated token. So the task, not the
        // caller, holds the gate.
        self.0.shutdown.spawn(async move {
            let turn = Arc::clone(&gate.turn).lock_owned().await;
            let renewed = grants.renew_inside(connection, rejected, &gate, began).await;
            drop(turn);
            let _ = tell.send(renewed);
            grants.leave(connection, &gate);
        });
        told.await.unwrap_or(Err(AccessError::Store(StoreError::Closed)))
    }

    async fn renew_inside(
        &self,
        connection: ConnectionId,
        rejected: Option<AccessToken>,
        gate: &Gate,
        began: u64,
    ) -> Result<Access, AccessError> {
        if let Some(access) = self.in_memory(connection, rejected.as_ref()) {
            return Ok(access);
        }
        let now = self.0.clock.now();
        if let Some(last) = lock(&gate.failed).as_ref()
            && (gate.tries.load(Ordering::Acquire) != began || now < last.not_before)
        {
            return Err(last.error.clone());
        }
        let outcome = self.refresh(connection, rejected).await;
        gate.tries.fetch_add(1, Ordering::AcqRel);
        let mut failed = lock(&gate.failed);
        *failed = match &outcome {
            Err(error @ AccessError::NotNow(_)) => {
                let times = failed.as_ref().map_or(0, |last| last.times + 1);
                let rest = (FIRST_REST * 2_u32.saturating_pow(times)).min(LONGEST_REST);
                Some(Failed { error: error.clone(), times, not_before: self.0.clock.now().after(rest) })
            }
            _ => None,
        };
        outcome
    }

    /// Forgets a gate that nobody else waits at and that has nothing to remember.
    fn leave(&self, connection: ConnectionId, gate: &Arc<Gate>) {
        let mut gates = lock(&self.0.gates);
        let unused = Arc::strong_count(gate) == 2 && lock(&gate.failed).is_none();
        if unused {
            gates.remove(&connection);
        }
    }

    async fn refresh(&self, id: ConnectionId, rejected: Option<AccessToken>) -> Result<Access, AccessError> {
        let generation = self.0.ended.load(Ordering::Acquire);
        let (connection, stored) = self.0.store.read(move |view| read_both(view, id)).await?;
        let connection = connection.ok_or(AccessError::Missing)?;
        if connection.status != ConnectionStatus::Active {
            return Err(AccessError::NotActive(connection.status));
        }
        let grant = stored.ok_or(AccessError::NotActive(ConnectionStatus::Expired))?;
        let now = self.0.clock.now();
        // A grant that is in the store but not in memory is the usual case after a restart.
        if rejected.as_ref() != Some(&grant.access_token) && now < good_until(&grant) {
            return self.remember_as(&connection, &grant, generation);
        }
        if rejected.is_some() && now.since(grant.received_at) < LEAST_BETWEEN.min(life(&grant)) {
            return Err(AccessError::Rejected);
        }
        let Some(refresh_token) = grant.refresh_token.clone() else {
            return self.end(id, None, ConnectionStatus::Expired).await;
        };
        let (server, registration) =
            self.parties(connection.source, connection.ehr_client).ok_or(AccessError::Missing)?;
        let answer =
            self.0.tokens.refresh(&grant.token_server, &registration, server.reach, &refresh_token).await;
        let tokens = match answer {
            Ok(tokens) => tokens,
            Err(failure) => {
                tracing::warn!(connection = %id, cause = %failure, "refresh failed");
                if is_final(&failure) {
                    return self.end(id, Some(refresh_token), ConnectionStatus::RefreshFailed).await;
                }
                return Err(AccessError::NotNow(failure));
            }
        };
        let other = tokens.patient.is_some() && tokens.patient != connection.ehr_patient;
        let received_at = self.0.clock.now();
        let renewed = Grant {
            access_token: tokens.access_token,
            received_at,
            expires_at: received_at.after(tokens.expires_in),
            superseded: tokens.refresh_token.as_ref().map(|_| refresh_token.clone()),
            // Present replaces, absent keeps.
            refresh_token: tokens.refresh_token.or(grant.refresh_token),
            token_server: grant.token_server,
        };
        if other {
            tracing::error!(connection = %id, "a refresh came back for another patient's record; the connection was ended");
            self.give_back(connection.source, connection.ehr_client, renewed);
            return self.end(id, Some(refresh_token), ConnectionStatus::RefreshFailed).await;
        }
        let row = renewed.clone();
        // Invariant: the rotated refresh token is on disk before the access token that came with it is used.
        let kept = self
            .0
            .store
            .write(move |change| {
                // The connection may have been ended, or made anew, while the EHR was asked. Only the grant that was
                // refreshed is replaced.
                let (connection, stored) = read_both(change, id)?;
                let active = connection.filter(|found| found.status == ConnectionStatus::Active);
                let same = stored
                    .as_ref()
                    .is_some_and(|stored| stored.refresh_token.as_ref() == Some(&refresh_token));
                match active {
                    Some(_) if same => {
                        grant::put(change, id, &row);
                        Ok::<_, StoreError>(Replaced::Yes)
                    }
                    Some(connection) => Ok(Replaced::ByNewer(Box::new(connection), stored.map(Box::new))),
                    None => Ok(Replaced::Ended),
                }
            })
            .await?;
        match kept {
            Replaced::Yes => self.remember_as(&connection, &renewed, generation),
            Replaced::ByNewer(connection, Some(newer)) => {
                self.give_back(connection.source, connection.ehr_client, renewed);
                self.remember_as(&connection, &newer, generation)
            }
            Replaced::ByNewer(_, None) | Replaced::Ended => {
                self.give_back(connection.source, connection.ehr_client, renewed);
                Err(AccessError::NotActive(ConnectionStatus::Disconnected))
            }
        }
    }

    /// Ends a connection, if it still stands on the refresh token that was refused (or on none), and says so.
    async fn end(
        &self,
        id: ConnectionId,
        refused: Option<RefreshToken>,
        status: ConnectionStatus,
    ) -> Result<Access, AccessError> {
        let now = self.0.clock.now();
        let announcements = self.0.announcements.clone();
        let found = self
            .0
            .store
            .write(move |change| {
                let (connection, stored) = read_both(change, id)?;
                let Some(connection) = connection else { return Ok(None) };
                let same = stored.is_none_or(|stored| stored.refresh_token == refused);
                if connection.status == ConnectionStatus::Active && same {
                    grant::end(change, &announcements, &connection, status, now)?;
                    return Ok(Some(status));
                }
                Ok::<_, StoreError>(Some(connection.status))
            })
            .await?;
        self.forget(&[id]);
        match found {
            None => Err(AccessError::Missing),
            // Connected anew meanwhile: the next one who asks gets the new token.
            Some(ConnectionStatus::Active) => Err(AccessError::Rejected),
            Some(status) => Err(AccessError::NotActive(status)),
        }
    }

    /// Ends a connection at the app's wish; says whether the patient had it. Tokens are wiped at once, and given back to
    /// the EHR afterwards where it takes them.
    pub async fn disconnect(&self, patient: PatientKey, id: ConnectionId) -> Result<bool, StoreError> {
        let now = self.0.clock.now();
        let announcements = self.0.announcements.clone();
        let ended = self
            .0
            .store
            .write(move |change| {
                let (connection, grant) = read_both(change, id)?;
                let Some(connection) = connection.filter(|connection| connection.patient == patient) else {
                    return Ok(None);
                };
                if connection.status != ConnectionStatus::Failed {
                    let status = ConnectionStatus::Disconnected;
                    grant::end(change, &announcements, &connection, status, now)?;
                }
                Ok::<_, StoreError>(Some((connection, grant)))
            })
            .await?;
        let Some((connection, grant)) = ended else { return Ok(false) };
        self.forget(&[id]);
        if let Some(grant) = grant {
            self.give_back(connection.source, connection.ehr_client, grant);
        }
        Ok(true)
    }

    /// Tells the hospital that a grant is not wanted any more, in the background, where it takes such word.
    pub(super) fn give_back(&self, source: SourceId, ehr_client: EhrClientId, grant: Grant) {
        let Some((server, registration)) = self.parties(source, ehr_client) else { return };
        let Some(token) = grant.refresh_token else { return };
        let tokens = self.0.tokens.clone();
        self.0.shutdown.spawn(async move {
            match tokens.revoke(&grant.token_server, &registration, server.reach, &token).await {
                Ok(true) => tracing::info!(%source, "grant revoked at the hospital"),
                Ok(false) => tracing::info!(%source, "the hospital has no revocation endpoint; the tokens were wiped here"),
                Err(cause) => tracing::warn!(%source, %cause, "the hospital did not revoke; the tokens were wiped here"),
            }
        });
    }

    /// Forgets erased connections in memory, and gives their grants back.
    pub fn erased(&self, erased: Vec<(Connection, Option<Grant>)>) {
        let ids: Vec<ConnectionId> = erased.iter().map(|(connection, _)| connection.id).collect();
        self.forget(&ids);
        for (connection, grant) in erased {
            if let Some(grant) = grant {
                self.give_back(connection.source, connection.ehr_client, grant);
            }
        }
    }

    /// Forgets tokens in memory. A refresh that is under way will not put its token back.
    pub(super) fn forget(&self, connections: &[ConnectionId]) {
        let mut fresh = lock(&self.0.fresh);
        self.0.ended.fetch_add(1, Ordering::AcqRel);
        for connection in connections {
            fresh.remove(connection);
        }
    }

    /// An access for a grant, kept in memory unless some connection was ended since `generation` was read: then the next
    /// caller looks into the store first.
    fn remember_as(
        &self,
        connection: &Connection,
        grant: &Grant,
        generation: u64,
    ) -> Result<Access, AccessError> {
        let source = self.0.directory.source(connection.source).ok_or(AccessError::Missing)?;
        let server = source.server();
        let access = Access {
            token: grant.access_token.clone(),
            base: server.base,
            reach: server.reach,
            profile: server.profile,
            ehr_patient: connection.ehr_patient.clone().ok_or(AccessError::Missing)?,
            source: connection.source,
        };
        let mut known = lock(&self.0.fresh);
        if known.len() >= MOST_IN_MEMORY {
            let now = self.0.clock.now();
            known.retain(|_, token| now < token.good_until);
        }
        if known.len() < MOST_IN_MEMORY && self.0.ended.load(Ordering::Acquire) == generation {
            known.insert(connection.id, Fresh { access: access.clone(), good_until: good_until(grant) });
        }
        Ok(access)
    }
}

/// What became of a refreshed grant.
enum Replaced {
    Yes,
    /// The patient connected anew meanwhile; that grant stands.
    ByNewer(Box<Connection>, Option<Box<Grant>>),
    Ended,
}

fn read_both(
    reader: &impl Reader,
    id: ConnectionId,
) -> Result<(Option<Connection>, Option<Grant>), StoreError> {
    Ok((Connection::find(reader, id)?, reader.get(GRANTS, &id.to_bytes())?))
}

/// Tokens in memory at most: 100,000 of 1 KB are 100 MB, and a box that busy has them.
const MOST_IN_MEMORY: usize = 100_000;

fn life(grant: &Grant) -> Duration {
    grant.expires_at.since(grant.received_at)
}

/// A token is used until shortly before it ends: a fifth of its life, at least a minute, at most half of it.
fn good_until(grant: &Grant) -> Timestamp {
    let life = life(grant);
    grant.expires_at.before((life / 5).max(LEAST_MARGIN).min(life / 2))
}

/// Whether the EHR itself has ended the grant. Anything else leaves it as it is: a time-out, a gateway, a full queue, a
/// registration problem of ours.
fn is_final(failure: &TokenFailure) -> bool {
    match failure {
        TokenFailure::Refused { error, .. } => error.oauth_code.as_deref() == Some("invalid_grant"),
        TokenFailure::NotOAuth { .. }
        | TokenFailure::Unusable(_)
        | TokenFailure::NoAnswer(_)
        | TokenFailure::Signing(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant_of(seconds: u64) -> Grant {
        let json = format!(
            r#"{{"access_token":"a","received_at":0,"expires_at":{},"refresh_token":null,"superseded":null,
            "token_server":{{"endpoint":"https://a.example/t","audience":"x","algorithm":"RS384","send_client_id":true,"revocation":null}}}}"#,
            seconds * 1000
        );
        serde_json::from_str(&json).expect("a grant")
    }

    #[test]
    fn a_token_is_renewed_while_it_still_works() {
        let check = |life: u64, until: i64| {
            assert_eq!(good_until(&grant_of(life)), Timestamp::from_seconds(until), "{life}");
        };
        check(570, 456);
        check(3600, 2880);
        check(100, 50);
        check(10, 5);
    }
}
