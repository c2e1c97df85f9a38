//! Access tokens for whoever needs one.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::grants::grant::{self, GRANTS, Grant};
use crate::grants::{Connection, ConnectionStatus, Grants, lock};
use crate::id::{ConnectionId, Id as _, PatientKey, SourceId};
use crate::outbound::Reach;
use crate::smart::token_response::{AccessToken, RefreshToken};
use crate::smart::vendors::VendorProfile;
use crate::smart::{EhrPatientId, FhirBaseUrl, TokenFailure};
use crate::store::{Reader as _, StoreError};

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
    /// servers that rotate refresh tokens end the whole grant when an old one is used twice.
    async fn renewed(
        &self,
        connection: ConnectionId,
        rejected: Option<&AccessToken>,
    ) -> Result<Access, AccessError> {
        let gate = Arc::clone(lock(&self.0.gates).entry(connection).or_default());
        let inside = gate.lock().await;
        if let Some(access) = self.in_memory(connection, rejected) {
            return Ok(access);
        }
        let (grants, rejected) = (self.clone(), rejected.cloned());
        let (tell, told) = tokio::sync::oneshot::channel();
        // Like an exchange, a refresh is not given up because its caller went away: the answer may hold a rotated token.
        self.0.shutdown.spawn(async move {
            let _ = tell.send(grants.refresh(connection, rejected).await);
        });
        let renewed = told.await.unwrap_or(Err(AccessError::Store(StoreError::Closed)));
        drop(inside);
        renewed
    }

    async fn refresh(&self, id: ConnectionId, rejected: Option<AccessToken>) -> Result<Access, AccessError> {
        let (connection, stored) = self
            .0
            .store
            .read(move |view| {
                let connection = Connection::find(view, id)?;
                Ok::<_, StoreError>((connection, view.get(GRANTS, &id.to_bytes())?))
            })
            .await?;
        let connection = connection.ok_or(AccessError::Missing)?;
        if connection.status != ConnectionStatus::Active {
            return Err(AccessError::NotActive(connection.status));
        }
        let grant = stored.ok_or(AccessError::NotActive(ConnectionStatus::Expired))?;
        let now = self.0.clock.now();
        // A grant that is in the store but not in memory is the usual case after a restart.
        if rejected.as_ref() != Some(&grant.access_token) && now < good_until(&grant) {
            return self.remember_as(&connection, &grant);
        }
        if rejected.is_some() && now.since(grant.received_at) < LEAST_BETWEEN.min(life(&grant)) {
            return Err(AccessError::Rejected);
        }
        let Some(refresh_token) = grant.refresh_token.clone() else {
            self.end(connection, ConnectionStatus::Expired).await?;
            return Err(AccessError::NotActive(ConnectionStatus::Expired));
        };
        let (server, (_, registration)) = self.parties(connection.source).ok_or(AccessError::Missing)?;
        let answer =
            self.0.tokens.refresh(&grant.token_server, &registration, server.reach, &refresh_token).await;
        let tokens = match answer {
            Ok(tokens) => tokens,
            Err(failure) => {
                tracing::warn!(connection = %id, cause = %failure, "refresh failed");
                if is_final(&failure) {
                    self.end(connection, ConnectionStatus::RefreshFailed).await?;
                    return Err(AccessError::NotActive(ConnectionStatus::RefreshFailed));
                }
                return Err(AccessError::NotNow(failure));
            }
        };
        let received_at = self.0.clock.now();
        let renewed = Grant {
            access_token: tokens.access_token,
            received_at,
            expires_at: received_at.after(tokens.expires_in),
            superseded: tokens.refresh_token.as_ref().map(|_| refresh_token),
            // Present replaces, absent keeps.
            refresh_token: tokens.refresh_token.or(grant.refresh_token),
            token_server: grant.token_server,
        };
        let row = renewed.clone();
        // Invariant: the rotated refresh token is on disk before the access token that came with it is used.
        self.0
            .store
            .write(move |change| {
                // The connection may have been ended while the EHR was asked; then the new tokens are dropped too.
                let active =
                    Connection::find(change, id)?.filter(|found| found.status == ConnectionStatus::Active);
                if active.is_none() {
                    return Err(AccessError::NotActive(ConnectionStatus::Disconnected));
                }
                grant::put(change, id, &row);
                Ok(())
            })
            .await?;
        self.remember_as(&connection, &renewed)
    }

    async fn end(&self, connection: Connection, status: ConnectionStatus) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        lock(&self.0.fresh).remove(&connection.id);
        self.0
            .store
            .write(move |change| {
                grant::end(change, &connection, status, now);
                Ok::<_, StoreError>(())
            })
            .await
    }

    /// Ends a connection at the app's wish; says whether the patient had it. Tokens are wiped at once, and given back to
    /// the EHR afterwards where it takes them.
    pub async fn disconnect(&self, patient: PatientKey, id: ConnectionId) -> Result<bool, StoreError> {
        let now = self.0.clock.now();
        let ended = self
            .0
            .store
            .write(move |change| {
                let found = Connection::find(change, id)?.filter(|connection| connection.patient == patient);
                let Some(connection) = found else { return Ok(None) };
                let grant = change.get(GRANTS, &id.to_bytes())?;
                if connection.status != ConnectionStatus::Failed {
                    grant::end(change, &connection, ConnectionStatus::Disconnected, now);
                }
                Ok::<_, StoreError>(Some((connection, grant)))
            })
            .await?;
        let Some((connection, grant)) = ended else { return Ok(false) };
        lock(&self.0.fresh).remove(&id);
        if let Some(grant) = grant {
            self.give_back(connection.source, grant);
        }
        Ok(true)
    }

    fn give_back(&self, source: SourceId, grant: Grant) {
        let Some((server, (_, registration))) = self.parties(source) else { return };
        let token: Option<RefreshToken> = grant.refresh_token.clone();
        let Some(token) = token else { return };
        let tokens = self.0.tokens.clone();
        self.0.shutdown.spawn(async move {
            match tokens.revoke(&grant.token_server, &registration, server.reach, &token).await {
                Ok(true) => tracing::info!(%source, "grant revoked at the hospital"),
                Ok(false) => tracing::info!(%source, "the hospital has no revocation endpoint; the tokens were wiped here"),
                Err(cause) => tracing::warn!(%source, %cause, "the hospital did not revoke; the tokens were wiped here"),
            }
        });
    }

    /// Forgets tokens in memory, after their connections were erased.
    pub fn forget(&self, connections: &[ConnectionId]) {
        let mut fresh = lock(&self.0.fresh);
        for connection in connections {
            fresh.remove(connection);
        }
    }

    fn remember_as(&self, connection: &Connection, grant: &Grant) -> Result<Access, AccessError> {
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
        let fresh = Fresh { access: access.clone(), good_until: good_until(grant) };
        let mut known = lock(&self.0.fresh);
        if known.len() >= MOST_IN_MEMORY {
            let now = self.0.clock.now();
            known.retain(|_, token| now < token.good_until);
        }
        if known.len() < MOST_IN_MEMORY {
            known.insert(connection.id, fresh);
        }
        Ok(access)
    }
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
