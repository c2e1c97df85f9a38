//! Access tokens for whoever needs one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::events::history::RefreshedBy;
use crate::grants::grant::Grant;
use crate::grants::{Connection, ConnectionStatus, Grants, lock};
use crate::id::{ConnectionId, SourceId};
use crate::outbound::Reach;
use crate::smart::token_response::AccessToken;
use crate::smart::vendors::VendorProfile;
use crate::smart::{EhrPatientId, FhirBaseUrl, TokenFailure};
use crate::store::StoreError;

/// Refresh this long before expiry at least: one slow answer and a clock off by half a minute.
const LEAST_MARGIN: Duration = Duration::from_mins(1);
/// Some servers throttle more frequent refreshing of one grant; a token that is rejected sooner than this is not the
/// token's fault.
pub(super) const LEAST_BETWEEN: Duration = Duration::from_mins(1);
/// What was received this much later than now was received while the clock was wrong: nothing is known of its age.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_mins(2);
/// A token that a failed refresh leaves over is handed out until so shortly before its end.
const LAST_MOMENT: Duration = Duration::from_secs(5);

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
    /// The EHR has refused several times, but not in the words that end a grant. It is asked again now and then.
    #[error("the hospital refuses to renew the access (`{code}`); it is asked again at {next_try}")]
    Suspended {
        /// What it says.
        code: String,
        /// When it is asked again.
        next_try: Timestamp,
    },
    /// The EHR rejects a token that it gave a moment ago.
    #[error("the hospital rejects a token that it has just given")]
    Rejected,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How long a token endpoint that could not be reached is left alone, the first time and at most.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_mins(1);
/// The longest `Retry-After` that is heeded; a hospital that says "tomorrow" is asked again sooner.
const LONGEST_ASKED_REST: Duration = Duration::from_hours(1);

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
    received_at: Timestamp,
    expires_at: Timestamp,
    good_until: Timestamp,
    /// From here on somebody who needs it for long has it renewed while it still works.
    renew_from: Timestamp,
    /// Whether that has been begun.
    renewing: bool,
}

/// What somebody wants of a grant.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// Who.
    pub by: RefreshedBy,
    /// Another token than this one.
    pub rejected: Option<AccessToken>,
    /// A token that is good for this much of its life yet.
    pub freshness: Freshness,
}

/// How fresh a token has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It works for a while yet.
    Works,
    /// It was received a short part of its life ago.
    Young,
    /// It has just been received: the grant itself is what is to be used.
    New,
}

impl Grants {
    /// An access token that works for a while yet: from memory, or after a refresh.
    pub async fn access(&self, connection: ConnectionId, by: RefreshedBy) -> Result<Access, AccessError> {
        match self.in_memory(connection, by) {
            Some(access) => Ok(access),
            None => self.renewed(connection, Wish { by, rejected: None, freshness: Freshness::Works }).await,
        }
    }

    /// Another access token than the one the EHR has just rejected with 401.
    pub async fn renew(
        &self,
        connection: ConnectionId,
        rejected: &AccessToken,
        by: RefreshedBy,
    ) -> Result<Access, AccessError> {
        let wish = Wish { by, rejected: Some(rejected.clone()), freshness: Freshness::Works };
        match self.remembered(connection, &wish) {
            Some(access) => Ok(access),
            None => self.renewed(connection, wish).await,
        }
    }

    /// The common case. A pull needs tokens for long: it has the next one fetched while this one still works, so that no
    /// page waits for it.
    fn in_memory(&self, connection: ConnectionId, by: RefreshedBy) -> Option<Access> {
        let now = self.0.clock.now();
        let mut known = lock(&self.0.fresh);
        let found = known.get_mut(&connection).filter(|found| found.is_good(now, found.good_until))?;
        let access = found.access.clone();
        if by == RefreshedBy::Pull && now >= found.renew_from && !found.renewing {
            found.renewing = true;
            drop(known);
            let grants = self.clone();
            self.0.shutdown.spawn(async move {
                let wish = Wish { by, rejected: None, freshness: Freshness::Young };
                // Whoever needs the token when this one has ended tries again, and is told.
                let _ = grants.renewed(connection, wish).await;
            });
        }
        Some(access)
    }

    fn remembered(&self, connection: ConnectionId, wish: &Wish) -> Option<Access> {
        let known = lock(&self.0.fresh);
        let found = known.get(&connection)?;
        let until = match wish.freshness {
            Freshness::Works => found.good_until,
            Freshness::Young => found.renew_from,
            Freshness::New => return None,
        };
        let usable =
            found.is_good(self.0.clock.now(), until) && wish.rejected.as_ref() != Some(&found.access.token);
        usable.then(|| found.access.clone())
    }

    /// The token in memory, although it is time for another, as long as it works at all: for whoever asked when no other
    /// was to be had.
    fn left_over(&self, connection: ConnectionId, wish: &Wish) -> Option<Access> {
        let known = lock(&self.0.fresh);
        let found = known.get(&connection)?;
        let usable = wish.freshness == Freshness::Works
            && wish.rejected.is_none()
            && found.is_good(self.0.clock.now(), found.expires_at.before(LAST_MOMENT));
        usable.then(|| found.access.clone())
    }

    /// Invariant: at most one refresh of a connection is in flight. Everyone passes its gate, and looks again inside:
    /// servers that rotate refresh tokens end the whole grant when an old one is used twice. Who waited while a refresh
    /// failed is told of that failure, and a server in trouble is left alone for a while.
    pub(super) async fn renewed(&self, connection: ConnectionId, wish: Wish) -> Result<Access, AccessError> {
        let gate = Arc::clone(lock(&self.0.gates).entry(connection).or_default());
        let began = gate.tries.load(Ordering::Acquire);
        let grants = self.clone();
        let (tell, told) = oneshot::channel();
        // A refresh is not given up because its caller went away: the answer may hold a rotated token. So the task, not the
        // caller, holds the gate.
        self.0.shutdown.spawn(async move {
            let turn = Arc::clone(&gate.turn).lock_owned().await;
            let renewed = grants.renew_inside(connection, &wish, &gate, began).await;
            drop(turn);
            let _ = tell.send(renewed);
            grants.leave(connection, &gate);
        });
        told.await.unwrap_or(Err(AccessError::Store(StoreError::Closed)))
    }

    async fn renew_inside(
        &self,
        connection: ConnectionId,
        wish: &Wish,
        gate: &Gate,
        began: u64,
    ) -> Result<Access, AccessError> {
        if let Some(access) = self.remembered(connection, wish) {
            return Ok(access);
        }
        let now = self.0.clock.now();
        if let Some(last) = lock(&gate.failed).as_ref() {
            // A clock that was set back must not make a rest of minutes one of months.
            let rests = now < last.not_before && last.not_before <= now.after(LONGEST_ASKED_REST);
            if gate.tries.load(Ordering::Acquire) != began || rests {
                return self.left_over(connection, wish).ok_or_else(|| last.error.clone());
            }
        }
        let outcome = self.refresh(connection, wish).await;
        gate.tries.fetch_add(1, Ordering::AcqRel);
        let mut failed = lock(&gate.failed);
        let times = failed.as_ref().map_or(0, |last| last.times.saturating_add(1));
        let rest = match &outcome {
            Err(AccessError::NotNow(failure)) => Some(rest(failure, times)),
            // Whoever waits must not ask the EHR again for what cannot be kept.
            Err(AccessError::Store(_)) => Some(FIRST_REST),
            Err(
                AccessError::Missing
                | AccessError::NotActive(_)
                | AccessError::Suspended { .. }
                | AccessError::Rejected,
            )
            | Ok(_) => None,
        };
        *failed = match (&outcome, rest) {
            (Err(error), Some(rest)) => {
                Some(Failed { error: error.clone(), times, not_before: self.0.clock.now().after(rest) })
            }
            _ => None,
        };
        match outcome {
            Err(error @ (AccessError::NotNow(_) | AccessError::Suspended { .. })) => {
                self.left_over(connection, wish).ok_or(error)
            }
            other => other,
        }
    }

    /// Forgets a gate that nobody else waits at and that has nothing to remember.
    fn leave(&self, connection: ConnectionId, gate: &Arc<Gate>) {
        let mut gates = lock(&self.0.gates);
        let unused = Arc::strong_count(gate) == 2 && lock(&gate.failed).is_none();
        if unused {
            gates.remove(&connection);
        }
        if gates.len() >= MOST_GATES {
            let now = self.0.clock.now();
            let over = |gate: &Gate| lock(&gate.failed).as_ref().is_none_or(|last| last.not_before <= now);
            gates.retain(|_, gate| Arc::strong_count(gate) > 1 || !over(gate));
        }
    }

    /// An access for a grant, kept in memory unless some connection was ended since `generation` was read: then the next
    /// caller looks into the store first.
    pub(super) fn remember_as(
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
        if known.len() >= MOST_IN_MEMORY && !known.contains_key(&connection.id) {
            make_room(&mut known, self.0.clock.now());
        }
        if self.0.ended.load(Ordering::Acquire) == generation {
            let fresh = Fresh {
                access: access.clone(),
                received_at: grant.received_at,
                expires_at: grant.expires_at,
                good_until: good_until(grant),
                renew_from: renew_from(grant),
                renewing: false,
            };
            known.insert(connection.id, fresh);
        }
        Ok(access)
    }
}

impl Fresh {
    /// Whether it can be used up to `until`; not when it came from the future, because then nobody knows its age.
    fn is_good(&self, now: Timestamp, until: Timestamp) -> bool {
        now < until && self.received_at <= now.after(CLOCK_TOLERANCE)
    }
}

/// Tokens in memory at most: 100,000 of 1 KB are 100 MB, and a box that busy has them.
const MOST_IN_MEMORY: usize = 100_000;
/// Makes room for a sixteenth of that at once, so that it is made seldom: whoever needs a token that is let go finds it in
/// the store.
fn make_room(known: &mut HashMap<ConnectionId, Fresh>, now: Timestamp) {
    known.retain(|_, token| token.is_good(now, token.good_until));
    let mut surplus = known.len().saturating_sub(MOST_IN_MEMORY / 16 * 15);
    known.retain(|_, _| {
        let goes = surplus > 0;
        surplus -= usize::from(goes);
        !goes
    });
}

/// Gates that remember a failure; over this, those whose rest is over are forgotten.
const MOST_GATES: usize = 10_000;

/// A token is used until shortly before it ends: a fifth of its life, at least a minute, at most half of it. But a grant
/// is not refreshed more than once a minute, unless its tokens live shorter than that. A token that cannot be replaced is
/// used to its end.
pub(super) fn good_until(grant: &Grant) -> Timestamp {
    if grant.refresh_token.is_none() {
        return grant.expires_at;
    }
    let life = grant.life();
    let used = life.saturating_sub((life / 5).max(LEAST_MARGIN).min(life / 2));
    grant.received_at.after(if life > LEAST_BETWEEN { used.max(LEAST_BETWEEN) } else { used })
}

/// From here on the next token is fetched ahead for who will need it.
pub(super) fn renew_from(grant: &Grant) -> Timestamp {
    if grant.refresh_token.is_none() {
        return grant.expires_at;
    }
    let ahead = grant.received_at.after((grant.life() / 5 * 3).max(LEAST_BETWEEN));
    ahead.min(good_until(grant))
}

/// How long the token endpoint is left alone after a failure. A refresh that may have been carried out counts as one.
fn rest(failure: &TokenFailure, times: u32) -> Duration {
    let growing = (FIRST_REST * 2_u32.saturating_pow(times)).min(LONGEST_REST);
    match failure {
        TokenFailure::NotOAuth { retry_after: Some(asked), .. } => {
            (*asked).clamp(LEAST_BETWEEN, LONGEST_ASKED_REST)
        }
        TokenFailure::NoAnswer(cause) if !cause.may_have_happened() => growing,
        TokenFailure::Signing(_) => growing,
        TokenFailure::Refused { .. }
        | TokenFailure::NotOAuth { .. }
        | TokenFailure::Unusable(_)
        | TokenFailure::NoAnswer(_) => growing.max(LEAST_BETWEEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant_of(seconds: u64) -> Grant {
        let json = format!(
            r#"{{"access_token":"a","received_at":0,"expires_at":{},"refresh_token":"r","superseded":null,
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
        check(119, 60);
        check(61, 60);
        check(60, 30);
        check(10, 5);
    }

    #[test]
    fn a_long_pull_gets_its_next_token_while_the_present_one_works() {
        let check = |life: u64, from: i64| {
            let grant = grant_of(life);
            assert_eq!(renew_from(&grant), Timestamp::from_seconds(from), "{life}");
            assert!(renew_from(&grant) <= good_until(&grant));
        };
        check(570, 342);
        check(3600, 2160);
        check(90, 60);
        check(10, 5);
    }
}
