//! How fast one server is asked, over all its patients: a few requests at once, so many a second in the long run, fewer
//! when it says that it is busy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::records::pulls::PullSettings;

/// A busy server is never asked more seldom than this, in requests a second: a pull has an end.
const SLOWEST: f64 = 0.2;
/// What an answer gives back of the speed that was taken away, as a share of the full one.
const RECOVERY: f64 = 0.02;

/// The servers, by origin. There are as many as there are sources.
#[derive(Debug)]
pub(super) struct Paces {
    settings: PullSettings,
    hosts: Mutex<HashMap<String, Arc<Pace>>>,
}

/// One server.
#[derive(Debug)]
pub(super) struct Pace {
    turns: Semaphore,
    pulls: Arc<Semaphore>,
    bucket: Mutex<Bucket>,
}

impl Paces {
    pub(super) fn new(settings: PullSettings) -> Self {
        Self { settings, hosts: Mutex::default() }
    }

    /// The pace of a server.
    pub(super) fn at(&self, origin: &str) -> Arc<Pace> {
        let mut hosts = self.hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = hosts.get(origin) {
            return Arc::clone(known);
        }
        let pace = Arc::new(Pace {
            turns: Semaphore::new(self.settings.parallel_per_source),
            pulls: Arc::new(Semaphore::new(self.settings.at_once_per_source)),
            bucket: Mutex::new(Bucket::full(self.settings.rate, self.settings.burst, Instant::now())),
        });
        hosts.insert(origin.to_owned(), Arc::clone(&pace));
        pace
    }
}

impl Pace {
    /// Waits until one more request may be sent; it is under way as long as the turn is held.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.turns.acquire().await.ok()?;
        loop {
            let wait = self.bucket().take(Instant::now());
            let Some(wait) = wait else { return Some(turn) };
            tokio::time::sleep(wait).await;
        }
    }

    /// A place among the pulls that read from the server at once, so that one that hangs holds no other up.
    pub(super) async fn pull(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pulls).acquire_owned().await.ok()
    }

    /// The server answered.
    pub(super) fn ease(&self) {
        self.bucket().ease();
    }

    /// The server is busy, and may have said for how long.
    pub(super) fn press(&self, rest: Option<Duration>) {
        self.bucket().press(rest, Instant::now());
    }

    fn bucket(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A token bucket whose rate gives way.
#[derive(Debug)]
struct Bucket {
    full_rate: f64,
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
    not_before: Option<Instant>,
}

impl Bucket {
    fn full(rate: u32, burst: u32, now: Instant) -> Self {
        let (rate, burst) = (f64::from(rate.max(1)), f64::from(burst.max(1)));
        Self { full_rate: rate, rate, burst, tokens: burst, at: now, not_before: None }
    }

    /// Takes a token; without one, how long to wait before asking again.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        if let Some(until) = self.not_before.filter(|until| *until > now) {
            return Some(until - now);
        }
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64(((1.0 - self.tokens) / self.rate).clamp(0.001, 60.0)))
    }

    fn ease(&mut self) {
        self.rate = (self.rate + self.full_rate * RECOVERY).min(self.full_rate);
    }

    fn press(&mut self, rest: Option<Duration>, now: Instant) {
        self.rate = (self.rate / 2.0).max(SLOWEST);
        self.tokens = self.tokens.min(1.0);
        if let Some(rest) = rest {
            let until = now + rest;
            self.not_before = Some(self.not_before.map_or(until, |known| known.max(until)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_burst_passes_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::full(10, 3, start);
        assert_eq!([1, 2, 3].map(|_| bucket.take(start)), [None; 3]);
        assert_eq!(bucket.take(start), Some(SECOND / 10));
        assert_eq!(bucket.take(start + SECOND / 10), None);
        assert!(bucket.take(start + SECOND / 10).is_some());
        // Idle time does not add up beyond the burst.
        let later = start + SECOND * 1000;
        assert_eq!([1, 2, 3].map(|_| bucket.take(later)), [None; 3]);
        assert!(bucket.take(later).is_some());
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_more_slowly_and_rests_as_long_as_it_says() {
        let start = Instant::now();
        let mut bucket = Bucket::full(10, 10, start);
        bucket.press(Some(SECOND * 30), start);
        assert_eq!(bucket.take(start), Some(SECOND * 30));
        assert_eq!(bucket.take(start + SECOND * 29), Some(SECOND));
        let up = start + SECOND * 30;
        assert_eq!(bucket.take(up), None);
        for _ in 0..20 {
            bucket.press(None, up);
        }
        bucket.tokens = 0.0;
        assert_eq!(bucket.take(up), Some(SECOND * 5), "slow, but not for ever");
        for _ in 0..60 {
            bucket.ease();
        }
        assert!((bucket.rate - 10.0).abs() < f64::EPSILON, "and fast again when it answers");
    }
}
