//! How many live requests are at one source at a time. The puller has turns of its own: somebody waits for these.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::id::SourceId;

/// The turns of all sources.
#[derive(Debug)]
pub(super) struct Turns {
    at_once: usize,
    waiting: usize,
    patience: Duration,
    sources: Mutex<HashMap<SourceId, Arc<Source>>>,
}

#[derive(Debug)]
struct Source {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// No turn came, or too many wait for one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// One turn; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "held until dropped")] OwnedSemaphorePermit);

impl Turns {
    pub(super) fn new(at_once: usize, waiting: usize, patience: Duration) -> Self {
        Self { at_once, waiting, patience, sources: Mutex::default() }
    }

    /// A turn at a source, at once or after a wait that has an end.
    pub(super) async fn turn(&self, source: SourceId) -> Result<Turn, Busy> {
        let source = self.source(source);
        if let Ok(turn) = Arc::clone(&source.turns).try_acquire_owned() {
            return Ok(Turn(turn));
        }
        let _place = Place::take(&source, self.waiting).ok_or(Busy)?;
        let waiting = Arc::clone(&source.turns).acquire_owned();
        match tokio::time::timeout(self.patience, waiting).await {
            Ok(Ok(turn)) => Ok(Turn(turn)),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    fn source(&self, source: SourceId) -> Arc<Source> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            Arc::new(Source { turns: Arc::new(Semaphore::new(self.at_once)), waiting: AtomicUsize::new(0) })
        };
        Arc::clone(sources.entry(source).or_insert_with(fresh))
    }
}

/// A place in the queue, given up when it is dropped.
struct Place<'s>(&'s Source);

impl<'s> Place<'s> {
    fn take(source: &'s Source, most: usize) -> Option<Self> {
        let enter = |waiting| (waiting < most).then_some(waiting + 1);
        source.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).ok()?;
        Some(Self(source))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::Id as _;

    #[tokio::test(start_paused = true)]
    async fn a_source_has_so_many_turns_and_places_and_another_source_its_own() {
        let source = SourceId::from_parts(Timestamp::from_seconds(1), [1; 10]);
        let other = SourceId::from_parts(Timestamp::from_seconds(1), [2; 10]);
        let turns = Turns::new(1, 1, Duration::from_secs(10));
        let first = turns.turn(source).await.expect("a turn");
        let (waits, refused) = tokio::join!(turns.turn(source), async {
            let refused = turns.turn(source).await;
            assert!(turns.turn(other).await.is_ok(), "another source is free");
            drop(first);
            refused
        });
        assert_eq!(refused.err(), Some(Busy), "the queue is full");
        let held = waits.expect("the first one's turn");
        assert_eq!(turns.turn(source).await.err(), Some(Busy), "patience ends");
        drop(held);
        assert!(turns.turn(source).await.is_ok(), "no place was lost");
    }
}
