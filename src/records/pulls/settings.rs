//! Limits and patience of pulls.

use std::time::Duration;

/// Limits and patience of pulls.
#[derive(Debug, Clone)]
pub struct PullSettings {
    /// Records are read again so long after the last time; zero: never by themselves.
    pub every: Duration,
    /// After so long they are all read again and compared, also where a server can tell what has changed: none tells
    /// everything, and none tells what is gone.
    pub compare_every: Duration,
    /// Requests at once to one server, over all its patients.
    pub parallel_per_source: usize,
    /// Requests a second to one server in the long run, and so many at once without waiting.
    pub rate: u32,
    /// See `rate`.
    pub burst: u32,
    /// Pulls at once on this box, and from one server: the rest wait their turn.
    pub at_once: usize,
    /// See `at_once`.
    pub at_once_per_source: usize,
    /// After so long a pull lets others have its turn, and goes on when it is its own again.
    pub turn: Duration,
    /// The longest a pull may have a turn in all. What is not read by then is reported.
    pub longest: Duration,
    /// The largest page read, in bytes.
    pub page_bytes: usize,
    /// The largest attachment read, in bytes.
    pub attachment_bytes: usize,
    /// Attachments and resources read by reference in one pull.
    pub most_references: usize,
    /// The first wait after a 429, a 503 or no answer; each next one is twice as long.
    pub backoff: Duration,
    /// The longest wait between two tries.
    pub longest_backoff: Duration,
    /// The longest that a server which asks for it is left alone.
    pub longest_rest: Duration,
    /// How often one page is tried.
    pub attempts: u32,
}

impl Default for PullSettings {
    fn default() -> Self {
        Self {
            every: Duration::from_hours(24),
            compare_every: Duration::from_hours(30 * 24),
            parallel_per_source: 4,
            rate: 20,
            burst: 400,
            at_once: 8,
            at_once_per_source: 2,
            turn: Duration::from_mins(1),
            longest: Duration::from_hours(2),
            page_bytes: 50 << 20,
            attachment_bytes: 20 << 20,
            most_references: 5_000,
            backoff: Duration::from_secs(5),
            longest_backoff: Duration::from_mins(1),
            longest_rest: Duration::from_hours(1),
            attempts: 5,
        }
    }
}
