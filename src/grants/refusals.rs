//! What an EHR's refusal of a refresh token means. `invalid_grant` with status 400 is its word that the grant is over.
//! Everything else servers were seen to answer a dead grant with (403 `invalid_grant`, 400 `invalid_request`, 401) they
//! also answer for other reasons: a gateway, a key set they could not read, a change in progress. So those end a grant
//! only when they are repeated over days, and when nothing of ours has changed meanwhile.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::grants::custody::CLOCK_TOLERANCE;
use crate::smart::TokenFailure;

/// After the first such refusal, the second, and so on, the grant is left alone for so long; the last one repeats.
const SPACING: [Duration; 5] = [
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(6),
    Duration::from_hours(24),
];
/// It takes this many refusals to end a grant.
const TRIES: u32 = 6;
/// Statuses with which an authorization server refuses. Others come from what stands in front of it, whatever the body
/// says: gateways and web frameworks have an `error` in theirs, too.
const SPOKEN_WITH: [u16; 4] = [200, 400, 401, 403];
/// And this long from the first to the last: a weekend, until somebody at the hospital is at work again.
const LEAST_TIME: Duration = Duration::from_hours(3 * 24);
/// When the EHR refuses us and not the patient's grant: all its patients would be lost by one mistake at the hospital.
const LEAST_TIME_FOR_US: Duration = Duration::from_hours(14 * 24);

/// Refusals in a row that have not ended a grant so far. The grant is suspended: kept, and tried now and then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// When the first came.
    pub since: Timestamp,
    /// When the latest came.
    pub latest: Timestamp,
    /// How many there were.
    pub count: u32,
    /// The latest's OAuth code.
    pub code: String,
    /// The latest's status.
    pub status: u16,
    /// The EHR's number for the latest.
    pub correlation_id: Option<String>,
    /// Digest of what we proved ourselves with at the first.
    proof: String,
}

/// What a failed refresh says about the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The EHR has ended it.
    Ended,
    /// The EHR refuses; that may be about something else.
    Doubtful,
    /// Nothing.
    Nothing,
}

/// What `failure` says about the grant it came for.
pub(super) fn verdict(failure: &TokenFailure) -> Verdict {
    match failure {
        TokenFailure::Refused { error, status } => {
            match error.known_code() {
                _ if !SPOKEN_WITH.contains(status) => Verdict::Nothing,
                // A refusal that came with 200 is the server's own word too, only badly wrapped.
                Some("invalid_grant") if matches!(status, 200 | 400) => Verdict::Ended,
                // The server says itself that it passes.
                Some("server_error" | "temporarily_unavailable") | None => Verdict::Nothing,
                Some(_) => Verdict::Doubtful,
            }
        }
        TokenFailure::NotOAuth { .. }
        | TokenFailure::Unusable(_)
        | TokenFailure::NoAnswer(_)
        | TokenFailure::Signing(_) => Verdict::Nothing,
    }
}

impl Refusals {
    /// The refusals after one more. Counting begins anew with another proof than the first (what we changed may have been the
    /// cause, or the cure), and when the EHR refuses the grant instead of us, or us instead of the grant.
    pub(super) fn after(earlier: Option<&Self>, failure: &TokenFailure, proof: &str, now: Timestamp) -> Self {
        let (code, status, correlation_id) = match failure {
            TokenFailure::Refused { error, status } => {
                (error.known_code().unwrap_or_default().to_owned(), *status, error.correlation_id.clone())
            }
            TokenFailure::NotOAuth { status, .. } => (String::new(), *status, None),
            TokenFailure::Unusable(_) | TokenFailure::NoAnswer(_) | TokenFailure::Signing(_) => {
                (String::new(), 0, None)
            }
        };
        let same_kind =
            |earlier: &&Self| is_about_us(&earlier.code, earlier.status) == is_about_us(&code, status);
        let earlier = earlier.filter(|earlier| earlier.proof == proof).filter(same_kind);
        Self {
            since: earlier.map_or(now, |earlier| earlier.since),
            latest: now,
            count: earlier.map_or(1, |earlier| earlier.count.saturating_add(1)),
            code,
            status,
            correlation_id,
            proof: proof.to_owned(),
        }
    }

    /// When the grant may be tried again.
    pub(super) fn next_try(&self) -> Timestamp {
        let place = usize::try_from(self.count.saturating_sub(1)).unwrap_or(usize::MAX);
        self.latest.after(SPACING[place.min(SPACING.len() - 1)])
    }

    /// Whether somebody who proves himself with `proof` has to wait: a change of ours is tried at once.
    pub(super) fn holds(&self, proof: &str, now: Timestamp) -> bool {
        // What came from the future came while the clock was wrong.
        self.proof == proof && now < self.next_try() && self.latest <= now.after(CLOCK_TOLERANCE)
    }

    /// Whether they have been repeated long enough to be believed.
    pub(super) fn persist(&self) -> bool {
        let least = if is_about_us(&self.code, self.status) { LEAST_TIME_FOR_US } else { LEAST_TIME };
        self.count >= TRIES && self.latest.since(self.since) >= least
    }
}

/// Whether a refusal is about our registration and not about one patient's grant.
pub(super) fn is_about_us(code: &str, status: u16) -> bool {
    let codes =
        ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "access_denied"];
    status == 401 || codes.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smart::ehr_error::EhrError;
    use crate::smart::token_response::OAuthError;

    fn refused(code: &str, status: u16) -> TokenFailure {
        let error = OAuthError::new(code, None, None).expect("an error");
        TokenFailure::Refused { error: Box::new(EhrError::from_oauth(&error)), status }
    }

    #[test]
    fn only_the_plain_word_of_the_server_ends_a_grant_at_once() {
        let check = |code: &str, status: u16, expected: Verdict| {
            assert_eq!(verdict(&refused(code, status)), expected, "{status} {code}");
        };
        check("invalid_grant", 400, Verdict::Ended);
        check("invalid_grant", 200, Verdict::Ended);
        check("invalid_grant", 403, Verdict::Doubtful);
        check("invalid_grant", 401, Verdict::Doubtful);
        check("invalid_request", 400, Verdict::Doubtful);
        check("invalid_client", 401, Verdict::Doubtful);
        check("unauthorized_client", 400, Verdict::Doubtful);
        check("temporarily_unavailable", 400, Verdict::Nothing);
        // What frameworks and gateways write into bodies of their own.
        check("Not Found", 404, Verdict::Nothing);
        check("Forbidden", 403, Verdict::Nothing);
        check("invalid_grant", 404, Verdict::Nothing);
        assert_eq!(verdict(&TokenFailure::NotOAuth { status: 403, retry_after: None }), Verdict::Nothing);
    }

    /// Refuses whenever a try is allowed, until the refusals persist; how many there were and how long it took.
    fn refuse_until_believed(code: &str, status: u16) -> (u32, Duration) {
        let mut now = Timestamp::from_seconds(1_000_000);
        let failure = refused(code, status);
        let mut refusals = Refusals::after(None, &failure, "us", now);
        while !refusals.persist() {
            assert!(refusals.holds("us", now), "it is left alone after each");
            assert!(!refusals.holds("us, changed", now), "a change of ours is tried at once");
            now = refusals.next_try();
            refusals = Refusals::after(Some(&refusals), &failure, "us", now);
        }
        (refusals.count, refusals.latest.since(refusals.since))
    }

    #[test]
    fn other_refusals_are_believed_when_they_are_repeated_over_days() {
        for (code, status) in [("invalid_grant", 403), ("invalid_request", 400)] {
            let (count, time) = refuse_until_believed(code, status);
            assert!((6..=8).contains(&count), "{code}: {count}");
            assert!(time >= LEAST_TIME && time < LEAST_TIME * 2, "{code}: {time:?}");
        }
        let (_, time) = refuse_until_believed("invalid_client", 401);
        assert!(time >= LEAST_TIME_FOR_US, "{time:?}");
    }

    #[test]
    fn days_of_refusing_us_do_not_count_against_the_grant() {
        let mut now = Timestamp::from_seconds(1_000_000);
        let mut refusals = Refusals::after(None, &refused("invalid_client", 401), "us", now);
        for _ in 0..12 {
            now = refusals.next_try();
            refusals = Refusals::after(Some(&refusals), &refused("invalid_client", 401), "us", now);
        }
        now = refusals.next_try();
        let other = Refusals::after(Some(&refusals), &refused("invalid_request", 400), "us", now);
        assert!(other.count == 1 && other.since == now && !other.persist());
    }

    #[test]
    fn a_change_of_ours_begins_the_count_anew() {
        let at = Timestamp::from_seconds;
        let failure = refused("invalid_client", 401);
        let first = Refusals::after(None, &failure, "old key", at(0));
        let second = Refusals::after(Some(&first), &failure, "old key", at(100));
        assert_eq!((second.count, second.since), (2, at(0)));
        let third = Refusals::after(Some(&second), &failure, "new key", at(200));
        assert_eq!((third.count, third.since), (1, at(200)));
    }
}
