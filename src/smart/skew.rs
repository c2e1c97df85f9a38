//! How far EHRs' clocks are from ours, measured from the `Date` of their answers. Assertions are refused when clocks
//! differ by minutes, and nobody sees why; so each host's difference is shown, and assertions carry its time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use url::Url;

use crate::clock::{Clock, Timestamp};
use crate::outbound::Reply;

/// A difference of this much is a warning: ours or theirs is not set by a time server.
pub const NOTABLE: Duration = Duration::from_secs(30);
/// Beyond this a `Date` is a fault of the server, not a clock to follow. Clocks that are off by whole hours are the commonest
/// of all: somebody has set them to local time.
const MOST: Duration = Duration::from_hours(26);
/// An answer that took longer says too little about when its `Date` was written.
const LONGEST_WAY: Duration = Duration::from_secs(5);
/// A box talks to hundreds of hosts.
const MOST_HOSTS: usize = 4_096;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Skew {
    /// How many milliseconds the host's clock is ahead of ours; negative when it is behind. Good to about a second, since
    /// `Date` has whole seconds (RFC 9110 section 5.6.7).
    pub ahead_millis: i64,
    /// When that was measured, by our clock, in milliseconds since 1970.
    pub measured_at: Timestamp,
}

/// The latest measurement of each host. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ClockSkews(Arc<Mutex<HashMap<String, Skew>>>);

impl ClockSkews {
    /// Measures by an answer to a request that was sent to `url` at `sent`.
    pub fn measure(&self, url: &Url, sent: Timestamp, clock: &Clock, reply: &Reply) {
        let now = clock.now();
        let Some(theirs) = reply.header("date").and_then(|text| httpdate::parse_http_date(text).ok()) else {
            return;
        };
        let Some(host) = host_of(url).filter(|_| now.since(sent) <= LONGEST_WAY) else { return };
        let Ok(since) = theirs.duration_since(std::time::UNIX_EPOCH) else { return };
        let theirs = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let ours = i64::midpoint(sent.millis(), now.millis());
        // The second that `Date` names had begun when it was written: on average half a second before.
        let ahead = theirs.saturating_add(500).saturating_sub(ours);
        // Less than what can be measured is no difference.
        let ahead_millis = if ahead.abs() <= 1_500 { 0 } else { ahead };
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = known.get(&host).copied();
        if before.is_none() && known.len() >= MOST_HOSTS {
            return;
        }
        let notable = |skew: i64| u128::from(skew.unsigned_abs()) >= NOTABLE.as_millis();
        if notable(ahead_millis) && !before.is_some_and(|before| notable(before.ahead_millis)) {
            tracing::warn!(
                host,
                seconds_ahead = ahead_millis / 1000,
                "the clock of a host differs from ours"
            );
        }
        known.insert(host, Skew { ahead_millis, measured_at: now });
    }

    /// The latest measurement of the host of `url`.
    pub fn of(&self, url: &Url) -> Option<Skew> {
        let known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(&host_of(url)?).copied()
    }

    /// What time it is at the host of `url`, as far as is known; ours when nothing is, or when the difference is absurd.
    pub fn time_at(&self, url: &Url, clock: &Clock) -> Timestamp {
        let now = clock.now();
        let ahead = self.of(url).map_or(0, |skew| skew.ahead_millis);
        let believable = u128::from(ahead.unsigned_abs()) <= MOST.as_millis();
        if believable { Timestamp::from_millis(now.millis().saturating_add(ahead)) } else { now }
    }
}

fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hyper::StatusCode;
    use hyper::header::{DATE, HeaderMap, HeaderValue};

    fn dated(text: &str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_str(text).expect("a header"));
        Reply { status: StatusCode::OK, headers, body: Bytes::new() }
    }

    fn measured(date: &str) -> (ClockSkews, Url, Clock) {
        let clock = Clock::manual(Timestamp::parse("2026-11-02T08:00:00Z").expect("a time"));
        let url = Url::parse("https://ehr.example/token").expect("a url");
        let skews = ClockSkews::default();
        skews.measure(&url, clock.now(), &clock, &dated(date));
        (skews, url, clock)
    }

    #[test]
    fn a_hosts_time_is_known_from_its_answers() {
        let check = |date: &str, seconds: i64| {
            let (skews, url, clock) = measured(date);
            let ahead = skews.time_at(&url, &clock).millis() - clock.now().millis();
            assert_eq!(ahead, seconds * 1000, "{date}");
        };
        check("Mon, 02 Nov 2026 08:00:00 GMT", 0);
        check("Mon, 02 Nov 2026 08:00:01 GMT", 0);
        check("Mon, 02 Nov 2026 07:59:59 GMT", 0);
        let (skews, url, _) = measured("Mon, 02 Nov 2026 08:02:00 GMT");
        assert_eq!(skews.of(&url).map(|skew| skew.ahead_millis), Some(120_500));
        let (skews, url, _) = measured("Mon, 02 Nov 2026 07:58:00 GMT");
        assert_eq!(skews.of(&url).map(|skew| skew.ahead_millis), Some(-119_500));
        let (skews, url, clock) = measured("soon");
        assert_eq!((skews.of(&url), skews.time_at(&url, &clock)), (None, clock.now()));
    }

    #[test]
    fn an_absurd_date_is_shown_but_not_followed() {
        let (skews, url, clock) = measured("Thu, 01 Jan 1970 00:00:00 GMT");
        assert!(skews.of(&url).is_some_and(|skew| skew.ahead_millis < 0));
        assert_eq!(skews.time_at(&url, &clock), clock.now());
    }

    #[test]
    fn a_slow_answer_measures_nothing() {
        let (skews, url, clock) = measured("soon");
        let sent = clock.now();
        clock.advance(Duration::from_secs(20));
        skews.measure(&url, sent, &clock, &dated("Mon, 02 Nov 2026 09:00:00 GMT"));
        assert_eq!(skews.of(&url), None);
    }
}
