//! Attempts that come back: each is found in its own browser, and good once.

use serde::{Deserialize, Serialize};

use super::{ATTEMPT, CallbackQuery, LaunchAttempt, Launcher, Origin};
use crate::clock::Timestamp;
use crate::crypto::from_base64url;
use crate::id::{ConnectionId, LaunchContextId, PatientSessionId, WorkspaceId};
use crate::store::{Change, Range, Reader as _, StoreError, Table, Value as _, json_value};

/// Attempts that were used, by the digest of their state.
const USED: Table<UsedAttempt> = Table::new("used_attempts.v1");
/// The same by time, so that old ones can be cleared away.
const USED_BY_TIME: Table<()> = Table::new("used_attempts_by_time.v1");

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UsedAttempt {
    at: Timestamp,
    #[serde(flatten)]
    landing: Landing,
}
json_value!(UsedAttempt);

/// Where the outcome of an attempt is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Landing {
    /// A patient's.
    Session {
        /// The journey.
        session: PatientSessionId,
        /// The outcome, kept as a connection.
        connection: ConnectionId,
    },
    /// That of a launch from inside an EHR.
    Context {
        /// The owner.
        workspace: WorkspaceId,
        /// The outcome.
        context: LaunchContextId,
    },
}

impl Landing {
    /// The patient's journey, if it is one.
    pub fn session(&self) -> Option<PatientSessionId> {
        match self {
            Self::Session { session, .. } => Some(*session),
            Self::Context { .. } => None,
        }
    }
}

/// An attempt that came back for the first and only time.
#[derive(Debug, Clone)]
pub struct Returned {
    /// The attempt.
    pub attempt: LaunchAttempt,
    /// Where its outcome will be found.
    pub landing: Landing,
}

/// A browser that came back without a usable attempt. Nothing was sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum StaleReturn {
    /// No attempt of this browser has this state: another browser, cleared cookies, a forged callback.
    #[error("no launch attempt of this browser has the state of the callback")]
    Unknown,
    /// The attempt is older than attempts live.
    #[error("the launch attempt is too old")]
    TooOld(Origin),
    /// The attempt was used already: a second click, the back button, a reload.
    #[error("the launch attempt was used already")]
    Repeated(Landing),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Launcher {
    /// What names the attempt of a callback, before it is known whether there is one.
    pub fn attempt_key(&self, query: &CallbackQuery) -> Option<[u8; 16]> {
        query.state.as_ref().map(|state| self.place(state))
    }

    /// Finds the attempt that a callback belongs to among the browser's cookies, and uses it up, durably, before anything
    /// is sent. `cookies` are names without prefix and values.
    pub async fn take_back(
        &self,
        query: &CallbackQuery,
        cookies: &[(String, String)],
    ) -> Result<Returned, StaleReturn> {
        let state = query.state.as_ref().ok_or(StaleReturn::Unknown)?;
        let place = self.place(state);
        // The state is part of what seals a cookie, so only the cookie of this very attempt opens.
        let opened = cookies.iter().find_map(|(_, value)| {
            self.store.vault().open_detached(ATTEMPT, &place, &from_base64url(value)?).ok()
        });
        let attempt = opened.ok_or(StaleReturn::Unknown)?;
        let now = self.clock.now();
        if now.since(attempt.started_at) > self.attempt_lifetime() {
            return Err(StaleReturn::TooOld(attempt.origin));
        }
        let landing = match attempt.origin {
            Origin::ConnectPage { session } => Landing::Session { session, connection: self.random.id(now) },
            Origin::Ehr { workspace } => {
                Landing::Context { workspace, context: LaunchContextId::from_random(self.random.bytes()) }
            }
        };
        let used = UsedAttempt { at: now, landing };
        let oldest_kept = now.before(self.attempt_lifetime() * 2);
        self.store
            .write(move |change| {
                if let Some(first) = change.get(USED, &place)? {
                    return Err(StaleReturn::Repeated(first.landing));
                }
                clear_old(change, oldest_kept)?;
                change.put(USED, &place, &used);
                change.put(USED_BY_TIME, &time_key(used.at, &place), &());
                Ok(())
            })
            .await?;
        Ok(Returned { attempt, landing })
    }

    /// Notes where an attempt's outcome is kept, when it is not as foreseen, as part of that write.
    pub fn settle(
        &self,
        change: &mut Change<'_>,
        returned: &Returned,
        landing: Landing,
    ) -> Result<(), StoreError> {
        if returned.landing != landing {
            let place = self.place(&returned.attempt.state);
            if let Some(used) = change.get(USED, &place)? {
                change.put(USED, &place, &UsedAttempt { landing, ..used });
            }
        }
        Ok(())
    }
}

/// Clears a few entries that are too old to matter, with each new one, so that the table does not grow for ever.
fn clear_old(change: &mut Change<'_>, before: Timestamp) -> Result<(), StoreError> {
    for key in change.keys(USED_BY_TIME, &Range::of(b"").limit(8))? {
        let Some((time, place)) = key.split_at_checked(8) else { continue };
        let time = <[u8; 8]>::decode(time).map_or(0, u64::from_be_bytes);
        if time >= u64::try_from(before.millis()).unwrap_or(0) {
            break;
        }
        change.remove(USED, place);
        change.remove(USED_BY_TIME, &key);
    }
    Ok(())
}

fn time_key(at: Timestamp, place: &[u8; 16]) -> Vec<u8> {
    [&u64::try_from(at.millis()).unwrap_or(0).to_be_bytes()[..], place].concat()
}
