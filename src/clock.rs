//! Time as an argument: the machine's clock, or one that a test (or the sandbox hospital's control address) moves.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// An instant of UTC, in whole milliseconds since 1970. On the wire always `2026-11-02T08:12:45.000Z`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since 1970, as JWT claims carry them.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Reads an RFC 3339 date-time (`2026-11-02T08:00:00Z`, any offset), or a bare date, meant as midnight UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let instant = if text.len() == 10 {
            format!("{text}T00:00:00Z").parse::<jiff::Timestamp>()
        } else {
            text.parse::<jiff::Timestamp>()
        };
        instant.ok().map(|instant| Self(instant.as_millisecond()))
    }

    /// Reads the date of an HTTP header, such as `Mon, 02 Nov 2026 08:00:00 GMT` (RFC 9110 section 5.6.7; its obsolete
    /// forms are not read).
    pub fn parse_http_date(text: &str) -> Option<Self> {
        let instant = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim());
        instant.ok().map(|instant| Self(instant.as_millisecond()))
    }

    /// As an HTTP header carries it, in whole seconds; empty beyond the years that have four digits.
    pub fn http_date(self) -> String {
        let instant = jiff::Timestamp::from_millisecond(self.0).ok();
        let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
        instant.and_then(|instant| printer.timestamp_to_rfc9110_string(&instant).ok()).unwrap_or_default()
    }

    /// This instant plus `span`.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(span)))
    }

    /// This instant minus `span`.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis_of(span)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis_of(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Serializes an instant as text, for people and for scripts; by itself it is a number, for the store.
pub fn as_text<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// The same for an instant that may be missing.
pub fn as_text_or_null<S: serde::Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(out, "{instant:.3}"),
            Err(_) => write!(out, "{}ms", self.0),
        }
    }
}

/// A machine that was asleep, or whose clock was set, notices within this time: timers count time awake only.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A source of "now". Clones share one time.
#[derive(Debug, Clone)]
pub struct Clock {
    base: Base,
    shift_millis: Arc<AtomicI64>,
    moved: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
enum Base {
    Machine,
    Fixed(i64),
}

impl Clock {
    /// The machine's clock.
    pub fn machine() -> Self {
        Self { base: Base::Machine, shift_millis: Arc::default(), moved: Arc::default() }
    }

    /// Stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self { base: Base::Fixed(start.0), shift_millis: Arc::default(), moved: Arc::default() }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let base = match self.base {
            Base::Fixed(millis) => millis,
            Base::Machine => machine_millis(),
        };
        Timestamp(base.saturating_add(self.shift_millis.load(Ordering::Relaxed)))
    }

    /// Moves this clock, and every clone of it, forward.
    pub fn advance(&self, span: Duration) {
        self.shift_millis.fetch_add(millis_of(span), Ordering::Relaxed);
        self.moved.notify_waiters();
    }

    /// Moves this clock, and every clone of it, back: what an administrator who corrects a clock does to a program.
    pub fn set_back(&self, span: Duration) {
        self.shift_millis.fetch_sub(millis_of(span), Ordering::Relaxed);
        self.moved.notify_waiters();
    }

    /// Returns once this clock shows `at` or later, also when it jumps there.
    pub async fn reached(&self, at: Timestamp) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // From here on no movement is missed, also one between the look and the wait.
            moved.as_mut().enable();
            let left = at.since(self.now());
            if left.is_zero() {
                return;
            }
            match self.base {
                Base::Fixed(_) => moved.await,
                Base::Machine => {
                    let _ = tokio::time::timeout(left.min(LOOK_AGAIN), moved).await;
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
fn machine_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn http_dates_are_written_and_read_back() {
        let instant = Timestamp::parse("2026-11-02T08:12:45Z").expect("a date-time");
        assert_eq!(instant.http_date(), "Mon, 02 Nov 2026 08:12:45 GMT");
        assert_eq!(Timestamp::parse_http_date(&instant.http_date()), Some(instant));
        assert_eq!(Timestamp::parse_http_date("120"), None);
        assert_eq!(Timestamp::from_millis(i64::MAX).http_date(), "");
    }

    #[test]
    fn timestamps_have_the_form_of_the_wire_contract() {
        let stamp = Timestamp::parse("2026-11-02T08:12:45Z").expect("a date-time");
        assert_eq!(stamp.to_string(), "2026-11-02T08:12:45.000Z");
        assert_eq!(
            Timestamp::parse("2026-11-02").map(|date| date.to_string()).as_deref(),
            Some("2026-11-02T00:00:00.000Z")
        );
        assert_eq!(
            Timestamp::parse("2026-11-02T09:12:45.5+01:00"),
            Some(stamp.after(Duration::from_millis(500)))
        );
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[tokio::test]
    async fn who_waits_for_a_time_is_woken_by_a_clock_that_is_moved() {
        let clock = Clock::manual(Timestamp::from_seconds(1_000));
        let waiting = clock.reached(Timestamp::from_seconds(1_010));
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_secs(9));
        assert!(waiting.as_mut().now_or_never().is_none());
        clock.set_back(Duration::from_secs(5));
        clock.advance(Duration::from_secs(6));
        waiting.await;
        clock.reached(Timestamp::from_seconds(1)).await;
    }

    #[test]
    fn a_manual_clock_moves_only_when_told_and_for_all_its_clones() {
        let clock = Clock::manual(Timestamp::from_seconds(1_000));
        let clone = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(clone.now(), Timestamp::from_seconds(1_005));
    }
}
