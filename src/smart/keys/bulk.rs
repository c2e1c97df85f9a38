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

impl Bulk {
    /// Adds a signature; says whether the caller has to start another signer, of which there are `most` at once.
    pub(super) fn add(&self, job: Job, most: usize) -> bool {
        let mut gathering = self.lock();
        gathering.jobs.push_back(job);
        let wanted = gathering.signers < most;
        gathering.signers += usize::from(wanted);
        wanted
    }

    /// Makes signatures until there is nothing more to do; the work of one signer. `turn` waits until another may be made,
    /// and is held meanwhile.
    pub(super) fn sign<T>(&self, turn: impl Fn() -> T) {
        loop {
            let (ready, last) = match self.next() {
                Ok(job) => {
                    let turn = turn();
                    let made = catch_unwind(AssertUnwindSafe(job));
                    drop(turn);
                    (self.made(made.ok()), false)
                }
                Err(gathered) => (gathered, true),
            };
            for let_go in ready {
                let_go();
            }
            if last {
                return;
            }
        }
    }

    /// The next one to be made; without any this signer is done, and the last signer takes what has gathered.
    fn next(&self) -> Result<Job, Vec<LetGo>> {
        let mut gathering = self.lock();
        if let Some(job) = gathering.jobs.pop_front() {
            return Ok(job);
        }
        gathering.signers -= 1;
        let last = gathering.signers == 0;
        Err(if last { std::mem::take(&mut gathering.held) } else { Vec::new() })
    }

    fn made(&self, let_go: Option<LetGo>) -> Vec<LetGo> {
        let mut gathering = self.lock();
        gathering.held.extend(let_go);
        if gathering.held.len() >= TOGETHER { std::mem::take(&mut gathering.held) } else { Vec::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Gathering> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
        assert!(bulk.add(counts.job(), 1), "the first needs a signer");
        assert!(!bulk.add(counts.job(), 1), "the second finds one");
        let seen = Mutex::new(Vec::new());
        bulk.sign(|| seen.lock().expect("no panic").push(counts.both()));
        assert_eq!(*seen.lock().expect("no panic"), [(0, 0), (1, 0)], "the first waits for the second");
        assert_eq!(counts.both(), (2, 2));
        assert!(bulk.add(counts.job(), 1), "the signer has gone");
    }

    #[test]
    fn many_are_let_go_also_when_more_are_to_be_made() {
        let (bulk, counts) = (Bulk::default(), Counts::default());
        for _ in 0..=TOGETHER {
            bulk.add(counts.job(), 1);
        }
        let most_held = Mutex::new(0);
        bulk.sign(|| {
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
        assert!(bulk.add(counts.job(), 2) && bulk.add(counts.job(), 2));
        let other = bulk.clone();
        // While the first signer is at work, the second makes the other one and finds nothing more.
        bulk.sign(|| {
            if counts.both() == (0, 0) {
                other.sign(|| ());
                assert_eq!(counts.both(), (1, 0), "it waits for the one that is being made");
            }
        });
        assert_eq!(counts.both(), (2, 2));
    }

    #[test]
    fn one_that_panics_keeps_nobody_waiting() {
        let (bulk, counts) = (Bulk::default(), Counts::default());
        bulk.add(counts.job(), 1);
        bulk.add(Box::new(|| panic!("a signature that cannot be made")), 1);
        bulk.sign(|| ());
        assert_eq!(counts.both(), (1, 1));
        assert!(bulk.add(counts.job(), 1), "the signer has gone");
    }
}
