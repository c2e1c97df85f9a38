//! Signatures that nobody waits for: made one after the other, and let go together. What follows a refresh's signature is a
//! request and a durable write; when many refreshes reach the write at the same time, they share a commit. Signing takes
//! longer than either, so without this they would arrive there one by one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// So many are let go even when more are to be made: a token endpoint is not to be asked by hundreds at the same moment.
pub(super) const TOGETHER: usize = 32;

/// Makes a signature; what it returns hands that over.
type Job = Box<dyn FnOnce() -> LetGo + Send>;
pub(super) type LetGo = Box<dyn FnOnce() + Send>;

/// Where they wait to be made, and where they gather. Nothing waits for a timer: the last signer that finds nothing more
/// to do lets go what there is.
#[derive(Clone, Default)]
pub(super) struct Bulk(Arc<Mutex<Gathering>>);

#[derive(Default)]
struct Gathering {
    jobs: VecDeque<Job>,
    held: Vec<LetGo>,
    signers: usize,
}

impl std::fmt::Debug for Bulk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Bulk")
    }
}

/// One of those who make them. However it ends, it is no longer counted.
pub(super) struct Signer {
    bulk: Bulk,
    done: bool,
}

impl Bulk {
    /// Adds a signature; a signer, of which there are `most`, when the caller has to start another.
    pub(super) fn add(&self, job: Job, most: usize) -> Option<Signer> {
        let mut gathering = self.lock();
        gathering.jobs.push_back(job);
        let wanted = gathering.signers < most;
        gathering.signers += usize::from(wanted);
        wanted.then(|| Signer { bulk: self.clone(), done: false })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Gathering> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Signer {
    /// Makes signatures until there is nothing more to do. `turn` waits until another may be made, and is held meanwhile.
    pub(super) fn sign<T>(mut self, turn: impl Fn() -> T) {
        while let Some(job) = self.next() {
            let turn = turn();
            let made = catch_unwind(AssertUnwindSafe(job));
            drop(turn);
            for let_go in self.made(made.ok()) {
                let_go();
            }
        }
    }

    /// The next one to be made. Without any this signer is done, and the last signer lets go what has gathered.
    fn next(&mut self) -> Option<Job> {
        let mut gathering = self.bulk.lock();
        let job = gathering.jobs.pop_front();
        if job.is_none() {
            // Under the same lock: who adds one from here on starts a new signer.
            self.done = true;
            let ready = gathering.leave();
            drop(gathering);
            for let_go in ready {
                let_go();
            }
        }
        job
    }

    fn made(&self, let_go: Option<LetGo>) -> Vec<LetGo> {
        let mut gathering = self.bulk.lock();
        gathering.held.extend(let_go);
        if gathering.held.len() >= TOGETHER { std::mem::take(&mut gathering.held) } else { Vec::new() }
    }
}

impl Gathering {
    /// One signer less; what is to be let go when it was the last.
    fn leave(&mut self) -> Vec<LetGo> {
        self.signers = self.signers.saturating_sub(1);
        if self.signers == 0 { std::mem::take(&mut self.held) } else { Vec::new() }
    }
}

impl Drop for Signer {
    /// A signer that could not be started, or was cut off. When there is no other, those who wait are told so by the loss of
    /// their jobs.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut gathering = self.bulk.lock();
        let ready = gathering.leave();
        let lost = if gathering.signers == 0 { std::mem::take(&mut gathering.jobs) } else { VecDeque::new() };
        drop(gathering);
        drop(lost);
        for let_go in ready {
            let_go();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Signatures, counted when they are made and when they are let go.
    #[derive(Default, Clone)]
    struct Counts {
        made: Arc<AtomicUsize>,
        gone: Arc<AtomicUsize>,
    }

    impl Counts {
        fn job(&self) -> Job {
            let counts = self.clone();
            Box::new(move || {
                counts.made.fetch_add(1, Ordering::Relaxed);
                Box::new(move || {
                    counts.gone.fetch_add(1, Ordering::Relaxed);
                })
            })
        }

        fn both(&self) -> (usize, usize) {
            (self.made.load(Ordering::Relaxed), self.gone.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn they_are_let_go_when_all_are_made() {
        let (bulk, counts) = (Bulk::default(), Counts::default());
        let signer = bulk.add(counts.job(), 1).expect("the first needs a signer");
        assert!(bulk.add(counts.job(), 1).is_none(), "the second finds one");
        let seen = Mutex::new(Vec::new());
        signer.sign(|| seen.lock().expect("no panic").push(counts.both()));
        assert_eq!(*seen.lock().expect("no panic"), [(0, 0), (1, 0)], "the first waits for the second");
        assert_eq!(counts.both(), (2, 2));
        assert!(bulk.add(counts.job(), 1).is_some(), "the signer has gone");
    }

    #[test]
    fn many_are_let_go_also_when_more_are_to_be_made() {
        let (bulk, counts) = (Bulk::default(), Counts::default());
        let signer = bulk.add(counts.job(), 1).expect("a signer");
        for _ in 0..TOGETHER {
            assert!(bulk.add(counts.job(), 1).is_none());
        }
        let most_held = Mutex::new(0);
        signer.sign(|| {
            let (made, gone) = counts.both();
            let mut most = most_held.lock().expect("no panic");
            *most = (*most).max(made - gone);
        });
        assert_eq!(*most_held.lock().expect("no panic"), TOGETHER - 1);
        assert_eq!(counts.both(), (TOGETHER + 1, TOGETHER + 1));
    }

    #[test]
    fn the_last_of_several_signers_lets_go() {
        let (bulk, counts) = (Bulk::default(), Counts::default());
        let first = bulk.add(counts.job(), 2).expect("a signer");
        let second = Mutex::new(bulk.add(counts.job(), 2));
        // While the first signer is at work, the second makes the other one and finds nothing more.
        first.sign(|| {
            if let Some(second) = second.lock().expect("no panic").take() {
                second.sign(|| ());
                assert_eq!(counts.both(), (1, 0), "it waits for the one that is being made");
            }
        });
        assert_eq!(counts.both(), (2, 2));
    }

    #[test]
    fn one_that_panics_keeps_nobody_waiting() {
        let (bulk, counts) = (Bulk::default(), Counts::default());
        let signer = bulk.add(counts.job(), 1).expect("a signer");
        bulk.add(Box::new(|| panic!("a signature that cannot be made")), 1);
        signer.sign(|| ());
        assert_eq!(counts.both(), (1, 1));
        assert!(bulk.add(counts.job(), 1).is_some(), "the signer has gone");
    }

    #[test]
    fn a_signer_that_is_never_started_keeps_nobody_waiting() {
        let (bulk, counts) = (Bulk::default(), Counts::default());
        let job = Arc::new(());
        let held = Arc::clone(&job);
        let never = bulk.add(
            Box::new(move || {
                drop(held);
                Box::new(|| ())
            }),
            1,
        );
        drop(never);
        assert_eq!(Arc::strong_count(&job), 1, "whoever waits for it is told");
        let signer = bulk.add(counts.job(), 1).expect("the next one gets a signer of its own");
        signer.sign(|| ());
        assert_eq!(counts.both(), (1, 1));
    }
}
