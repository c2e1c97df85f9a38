//! How a grant ends: by the EHR's word, by running out, by the app's wish, or with its patient. Tokens are wiped first and
//! given back to the EHR afterwards, and the history says honestly what came of that.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::events::history::{self, EndedBecause, Entry, Revocation};
use crate::grants::custody::{Access, AccessError};
use crate::grants::grant::{self, Grant};
use crate::grants::refresh::{Words, read_both};
use crate::grants::{Connection, ConnectionStatus, Grants, lock};
use crate::id::{ConnectionId, EhrClientId, PatientKey, PatientSessionId, SourceId};
use crate::smart::token_response::RefreshToken;
use crate::smart::{TokenFailure, Unwanted};
use crate::store::{Change, StoreError};

/// Between the tries to give a grant back. The token is in memory only, so there is no later try than these.
const REVOKE_AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Tokens given back at once: ends come in crowds, and nobody waits for this.
pub(super) const GIVEN_BACK_AT_ONCE: usize = 16;

/// Whose grant is given back.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    /// A connection's, whose history says what came of it.
    Connection(ConnectionId),
    /// A launch's that nobody keeps, of this journey. Not when its patient is connected there: some EHRs would end that
    /// access, too.
    Launch(Option<PatientSessionId>),
    /// Nobody's any more.
    Nobody,
}

/// Why and as what a connection ends.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    status: ConnectionStatus,
    why: EndedBecause,
    code: Option<String>,
    correlation_id: Option<String>,
}

impl Ending {
    pub(super) fn of(why: EndedBecause, status: ConnectionStatus) -> Self {
        Self { status, why, code: None, correlation_id: None }
    }

    /// The EHR refused the refresh token.
    pub(super) fn refused(words: &Words) -> Self {
        Self {
            code: Some(words.code.clone()),
            correlation_id: words.correlation_id.clone(),
            ..Self::of(EndedBecause::Refused, ConnectionStatus::RefreshFailed)
        }
    }
}

impl Grants {
    /// Ends a connection whose access ran out and that has no refresh token.
    pub(super) async fn run_out(&self, id: ConnectionId) -> Result<Access, AccessError> {
        self.end(id, None, Ending::of(EndedBecause::RanOut, ConnectionStatus::Expired)).await
    }

    /// Ends a connection, if it still stands on the refresh token that was refused (or on none), and says so. Status,
    /// wiped tokens and history are one transaction.
    pub(super) async fn end(
        &self,
        id: ConnectionId,
        refused: Option<RefreshToken>,
        ending: Ending,
    ) -> Result<Access, AccessError> {
        let now = self.0.clock.now();
        let announcements = self.0.announcements.clone();
        let found = self
            .0
            .store
            .write(move |change| {
                let (connection, stored) = read_both(change, id)?;
                let Some(connection) = connection else { return Ok(None) };
                // What ran out is ended only when it has: the patient may have connected anew, again without a refresh token.
                let same = stored.as_ref().is_none_or(|stored| {
                    let over = ending.why != EndedBecause::RanOut || stored.expires_at <= now;
                    stored.refresh_token == refused && over
                });
                if connection.status == ConnectionStatus::Active && same {
                    keep_refreshes(change, id, stored.as_ref())?;
                    grant::end(change, &announcements, &connection, stored.as_ref(), ending.status, now)?;
                    let entry = Entry::Ended {
                        why: ending.why,
                        code: ending.code,
                        correlation_id: ending.correlation_id,
                    };
                    history::note(change, id, now, entry, None)?;
                    return Ok(Some(ending.status));
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
        let grants = self.clone();
        self.to_the_end(async move { grants.disconnect_now(patient, id).await }).await
    }

    /// Runs work that must not stop half-way because its caller goes away.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, told) = oneshot::channel();
        self.0.shutdown.spawn(async move {
            let _ = tell.send(work.await);
        });
        told.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn disconnect_now(&self, patient: PatientKey, id: ConnectionId) -> Result<bool, StoreError> {
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
                let over =
                    matches!(connection.status, ConnectionStatus::Failed | ConnectionStatus::Disconnected);
                if !over {
                    keep_refreshes(change, id, grant.as_ref())?;
                    grant::end(
                        change,
                        &announcements,
                        &connection,
                        grant.as_ref(),
                        ConnectionStatus::Disconnected,
                        now,
                    )?;
                    history::note(change, id, now, Entry::Disconnected, None)?;
                }
                Ok::<_, StoreError>(Some((connection, grant)))
            })
            .await?;
        let Some((connection, grant)) = ended else { return Ok(false) };
        self.forget(&[id]);
        if let Some(grant) = grant {
            self.give_back(connection.source, connection.ehr_client, grant, Whose::Connection(id));
        }
        Ok(true)
    }

    /// Tells the hospital that a grant is not wanted any more, in the background, where it takes such word.
    pub(super) fn give_back(&self, source: SourceId, ehr_client: EhrClientId, grant: Grant, whose: Whose) {
        if grant.refresh_token.is_none() && grant.expires_at <= self.0.clock.now() {
            // There is nothing left that could be used.
            return;
        }
        let grants = self.clone();
        self.0.shutdown.spawn(async move {
            let Some(outcome) = grants.revoke(source, ehr_client, &grant, &whose).await else { return };
            tracing::info!(%source, ?outcome, "a grant was given back");
            if let Whose::Connection(id) = whose {
                grants.note_revocation(id, outcome).await;
            }
        });
    }

    /// What came of it; nothing when it must not be done.
    async fn revoke(
        &self,
        source: SourceId,
        ehr_client: EhrClientId,
        grant: &Grant,
        whose: &Whose,
    ) -> Option<Revocation> {
        let Some((server, registration)) = self.parties(source, ehr_client) else {
            return Some(Revocation::Failed);
        };
        let token = match &grant.refresh_token {
            Some(token) => Unwanted::Refresh(token),
            None => Unwanted::Access(&grant.access_token),
        };
        let mut waits = REVOKE_AGAIN_AFTER.into_iter();
        loop {
            // Asked before each try: the patient may have come back meanwhile.
            if let Whose::Launch(session) = whose
                && self.is_connected_there(*session, source, ehr_client, grant).await
            {
                return None;
            }
            let told = {
                let _turn = self.0.giving_back.acquire().await;
                self.0.tokens.revoke(&grant.token_server, &registration, server.reach, token).await
            };
            match told {
                Ok(true) => return Some(Revocation::Done),
                Ok(false) => return Some(Revocation::NoEndpoint),
                Err(cause) => {
                    tracing::warn!(%source, %cause, "the hospital did not revoke; the tokens were wiped here");
                    let again = waits.next().filter(|_| passes(&cause));
                    let Some(wait) = again.filter(|_| !self.0.shutdown.is_triggered()) else {
                        return Some(Revocation::Failed);
                    };
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.0.shutdown.triggered() => {}
                    }
                }
            }
        }
    }

    async fn note_revocation(&self, id: ConnectionId, outcome: Revocation) {
        let now = self.0.clock.now();
        let noted = self.0.store.write(move |change| {
            // An erased connection has no history to add to.
            if Connection::find(change, id)?.is_some() {
                history::note(change, id, now, Entry::Revoked { outcome }, None)?;
            }
            Ok::<_, StoreError>(())
        });
        if let Err(cause) = noted.await {
            tracing::error!(connection = %id, %cause, "the outcome of a revocation could not be noted");
        }
    }

    /// Forgets erased connections in memory, and gives their grants back.
    pub fn erased(&self, erased: Vec<(Connection, Option<Grant>)>) {
        let ids: Vec<ConnectionId> = erased.iter().map(|(connection, _)| connection.id).collect();
        self.forget(&ids);
        for (connection, grant) in erased {
            if let Some(grant) = grant {
                self.give_back(connection.source, connection.ehr_client, grant, Whose::Nobody);
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
}

/// The refreshes that the grant's row remembers outlast it in the history.
pub(super) fn keep_refreshes(
    change: &mut Change<'_>,
    id: ConnectionId,
    grant: Option<&Grant>,
) -> Result<(), StoreError> {
    for refreshed in grant.iter().flat_map(|grant| &grant.refreshes.latest) {
        let entry = Entry::Refreshed { by: refreshed.by, rotated: refreshed.rotated };
        history::note(change, id, refreshed.at, entry, None)?;
    }
    Ok(())
}

/// Whether another try may fare better.
fn passes(failure: &TokenFailure) -> bool {
    match failure {
        TokenFailure::NoAnswer(_) => true,
        TokenFailure::NotOAuth { status, .. } => *status == 429 || *status >= 500,
        TokenFailure::Refused { .. } | TokenFailure::Unusable(_) | TokenFailure::Signing(_) => false,
    }
}
