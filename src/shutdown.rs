//! One signal that everything stops by, and a count of the background tasks that have not stopped yet.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Clones share one signal and one task count.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stopping: Arc<watch::Sender<bool>>,
    running: Arc<watch::Sender<usize>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { stopping: Arc::new(watch::Sender::new(false)), running: Arc::new(watch::Sender::new(0)) }
    }
}

impl Shutdown {
    /// Asks everything to stop. Calling it again changes nothing.
    pub fn trigger(&self) {
        self.stopping.send_replace(true);
    }

    /// Stops when `other` does.
    pub fn follow(&self, other: &Self) {
        let (own, other) = (self.clone(), other.clone());
        self.spawn(async move {
            tokio::select! {
                () = other.triggered() => own.trigger(),
                () = own.triggered() => {}
            }
        });
    }

    /// Whether a stop was asked for.
    pub fn is_triggered(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns once a stop was asked for.
    pub async fn triggered(&self) {
        let mut receiver = self.stopping.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = receiver.wait_for(|stopping| *stopping).await;
    }

    /// Starts a background task that [`Shutdown::drained`] waits for. The task must itself heed
    /// [`Shutdown::triggered`] or end by itself.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that spawns, so that no task is left uncounted"
    )]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let counted = Counted::new(&self.running);
        tokio::spawn(async move {
            let _counted = counted;
            task.await;
        });
    }

    /// Waits until every task has ended, at most `limit`; says whether all did.
    pub async fn drained(&self, limit: Duration) -> bool {
        let mut receiver = self.running.subscribe();
        tokio::time::timeout(limit, receiver.wait_for(|running| *running == 0)).await.is_ok()
    }

    /// How many tasks are running.
    pub fn running(&self) -> usize {
        *self.running.borrow()
    }
}

/// Counts a task down when it ends, also when it ends by a panic.
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(running: &Arc<watch::Sender<usize>>) -> Self {
        running.send_modify(|count| *count += 1);
        Self(Arc::clone(running))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_waits_for_tasks_that_heed_it() {
        let shutdown = Shutdown::default();
        let seen = shutdown.clone();
        shutdown.spawn(async move { seen.triggered().await });
        assert_eq!(shutdown.running(), 1);
        shutdown.trigger();
        assert!(shutdown.drained(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn one_that_follows_stops_too_and_does_not_stop_the_other() {
        let (first, second) = (Shutdown::default(), Shutdown::default());
        second.follow(&first);
        first.trigger();
        second.triggered().await;
        let third = Shutdown::default();
        let fourth = Shutdown::default();
        third.follow(&fourth);
        third.trigger();
        assert!(third.drained(Duration::from_secs(5)).await && !fourth.is_triggered());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_ever() {
        let shutdown = Shutdown::default();
        shutdown.spawn(std::future::pending());
        shutdown.trigger();
        assert!(!shutdown.drained(Duration::from_secs(5)).await);
    }
}
