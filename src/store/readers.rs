//! Readers: reads run off the async threads, a few at a time, one after the other on each thread. A thread of its own for
//! each would have to be woken, which costs more than most reads do.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// A read waits this long behind others; then it gets another thread, so that long ones hold up nobody.
const PATIENCE: Duration = Duration::from_millis(2);

type Job = Box<dyn FnOnce() + Send>;

/// Runs reads on blocking threads. Clones share one queue.
#[derive(Clone)]
pub(super) struct Readers {
    queue: Arc<Mutex<Queue>>,
    /// Threads at work while no read has to wait for long.
    usual: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// Threads that take from the queue, or have been asked for.
    at_work: usize,
}

impl Readers {
    /// As many threads as there are cores.
    pub(super) fn new() -> Self {
        let usual = std::thread::available_parallelism().map_or(1, usize::from);
        Self { queue: Arc::default(), usual }
    }

    /// Runs `read` off the async threads; `None` when it panicked or the program is stopping.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, mut told) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever has gone away needs no answer.
            if !tell.is_closed() {
                let _ = tell.send(read());
            }
        });
        self.submit(job);
        if let Ok(done) = timeout(PATIENCE, &mut told).await {
            return done.ok();
        }
        self.help();
        told.await.ok()
    }

    fn submit(&self, job: Job) {
        let mut queue = lock(&self.queue);
        queue.waiting.push_back(job);
        if queue.at_work < self.usual {
            self.work(&mut queue);
        }
    }

    /// Another thread for what waits.
    fn help(&self) {
        let mut queue = lock(&self.queue);
        if !queue.waiting.is_empty() {
            self.work(&mut queue);
        }
    }

    /// One more thread takes from the queue until it is empty.
    fn work(&self, queue: &mut Queue) {
        queue.at_work += 1;
        let shared = Arc::clone(&self.queue);
        drop(spawn_blocking(move || {
            while let Some(job) = next(&shared) {
                // A panic in one read is that read's own.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        }));
    }
}

fn next(queue: &Mutex<Queue>) -> Option<Job> {
    let mut queue = lock(queue);
    let job = queue.waiting.pop_front();
    if job.is_none() {
        queue.at_work -= 1;
    }
    job
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn reads_that_take_long_hold_up_no_other() {
        let readers = Readers::new();
        let (let_go, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let long = readers.usual + 3;
        let holding = (0..long).map(|_| {
            let (readers, held) = (readers.clone(), Arc::clone(&held));
            async move { readers.run(move || held.lock().is_ok_and(|held| held.recv().is_ok())).await }
        });
        let short = async {
            for number in 0..50 {
                assert_eq!(readers.run(move || number).await, Some(number));
            }
            for _ in 0..long {
                let_go.send(()).expect("they wait");
            }
        };
        let (held, ()) = tokio::join!(join_all(holding), short);
        assert_eq!(held, vec![Some(true); long]);
        assert_eq!(readers.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn a_read_that_panics_takes_nothing_with_it() {
        let readers = Readers::new();
        let all = join_all((0..100).map(|number| {
            readers.run(move || {
                assert!(number % 3 != 0, "this one is wrong");
                number
            })
        }));
        let expected = (0..100).map(|number| (number % 3 != 0).then_some(number)).collect::<Vec<_>>();
        assert_eq!(all.await, expected);
        let queue = lock(&readers.queue);
        assert!(queue.waiting.is_empty());
    }

    /// The clock of the runtime stands still as long as a thread is at work, so nobody's patience ends.
    #[tokio::test(start_paused = true)]
    async fn many_at_once_share_few_threads() {
        let readers = Readers::new();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let read = |_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            readers.run(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
            })
        };
        join_all((0..1000).map(read)).await;
        let most = most.load(Ordering::SeqCst);
        assert!((1..=readers.usual).contains(&most), "{most} at once");
    }
}
