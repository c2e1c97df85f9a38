//! What one connection is doing, and since when: the facts its time limits are judged by.
//!
//! hyper has a timer for request heads only, and it also runs while a connection rests between requests. So the
//! socket, the request and the answer note here what they see, and one timer per connection asks for a verdict.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::server::Limits;

/// Which HTTP a connection speaks, decided by ALPN before its first byte is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Why a connection is cut without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The head of a request took too long.
    SlowHead,
    /// The client does not take what it asked for.
    WriteStall,
    /// It was told to go, has no request left, and did not go.
    Lingers,
}

/// What the driver of a connection does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is overdue; ask again then.
    WaitUntil(Instant),
    /// It rested long enough; tell it to end.
    Finish,
    /// It broke a limit; drop it.
    Cut(Cut),
}

/// One connection's state. The driver, the socket and every request of the connection share it.
#[derive(Debug)]
pub(super) struct Pulse {
    protocol: Protocol,
    request_head: Duration,
    idle: Duration,
    write_stall: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rest: Rest,
    /// Since when the kernel takes no byte from us.
    blocked: Option<Instant>,
    /// Since when the connection has been told to end.
    finishing: Option<Instant>,
    /// A request's body was dropped before its end.
    body_left: bool,
    flows: BTreeMap<u64, FlowState>,
    next_flow: u64,
}

/// What a connection without an open request is doing.
#[derive(Debug, Clone, Copy)]
enum Rest {
    /// A request is being awaited or has begun to arrive.
    Head { since: Instant, began: bool },
    /// The last request was answered.
    Idle { since: Instant },
}

/// One request from its head to the last byte of its answer.
#[derive(Debug, Clone, Copy)]
struct FlowState {
    /// The handler, or the source of the answer's body, is the one we wait for.
    at_source: bool,
    /// Bytes of the answer handed to hyper and not yet written.
    unsent: usize,
    /// The last time the client took something, or was first given something to take.
    moved: Instant,
}

impl Pulse {
    pub(super) fn new(protocol: Protocol, limits: &Limits) -> Arc<Self> {
        let state = State {
            rest: Rest::Head { since: Instant::now(), began: false },
            blocked: None,
            finishing: None,
            body_left: false,
            flows: BTreeMap::new(),
            next_flow: 0,
        };
        Arc::new(Self {
            protocol,
            request_head: limits.request_head,
            idle: limits.idle,
            write_stall: limits.write_stall,
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under this lock, and a half-made change would only shift a time limit.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came. In HTTP/2 they may be pings or window updates, which must not keep an idle connection open.
    pub(super) fn bytes_came(&self) {
        if self.protocol == Protocol::Http2 {
            return;
        }
        let mut state = self.lock();
        if !state.flows.is_empty() {
            return;
        }
        match &mut state.rest {
            Rest::Head { began, .. } => *began = true,
            rest @ Rest::Idle { .. } => *rest = Rest::Head { since: Instant::now(), began: true },
        }
    }

    /// The kernel takes no bytes from now on, or takes them again.
    pub(super) fn set_blocked(&self, blocked: bool) {
        let since = blocked.then(Instant::now);
        self.lock().blocked = since;
    }

    /// A request's body was dropped before its end.
    pub(super) fn leave_body(&self) {
        self.lock().body_left = true;
    }

    /// Whether the client may still be sending something that nobody will read. Closing such a socket makes the
    /// kernel send a reset, which can destroy an answer (413, 431) that the client has not read yet.
    pub(super) fn has_unread(&self) -> bool {
        let state = self.lock();
        self.protocol == Protocol::Http1
            && (state.body_left || matches!(state.rest, Rest::Head { began: true, .. }))
    }

    /// A request's head is complete.
    pub(super) fn open(self: &Arc<Self>) -> Arc<Flow> {
        let mut state = self.lock();
        let key = state.next_flow;
        state.next_flow += 1;
        state.body_left = false;
        state.flows.insert(key, FlowState { at_source: true, unsent: 0, moved: Instant::now() });
        drop(state);
        Arc::new(Flow { pulse: Arc::clone(self), key })
    }

    /// The connection has been told to end for another reason than a verdict.
    pub(super) fn set_finishing(&self) {
        let now = Instant::now();
        self.lock().finishing.get_or_insert(now);
    }

    /// Judges the connection at `now`. No limit can run out before the time that `WaitUntil` names.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let mut state = self.lock();
        // What begins after `now` ends at the earliest one shortest limit later, so that is when to look again.
        let mut next = later(now, self.request_head.min(self.idle).min(self.write_stall));
        let mut overdue = |deadline: Instant| {
            next = next.min(deadline);
            now >= deadline
        };
        let stuck = state.flows.values().filter(|flow| flow.waits_for_client()).map(|flow| flow.moved);
        for since in stuck.chain(state.blocked) {
            if overdue(later(since, self.write_stall)) {
                return Verdict::Cut(Cut::WriteStall);
            }
        }
        if state.flows.is_empty() {
            match (state.rest, state.finishing) {
                (Rest::Head { since, .. }, _) => {
                    if overdue(later(since, self.request_head)) {
                        return Verdict::Cut(Cut::SlowHead);
                    }
                }
                (Rest::Idle { since }, None) => {
                    if overdue(later(since, self.idle)) {
                        state.finishing = Some(now);
                        return Verdict::Finish;
                    }
                }
                (Rest::Idle { since }, Some(told)) => {
                    if overdue(later(since.max(told), self.write_stall)) {
                        return Verdict::Cut(Cut::Lingers);
                    }
                }
            }
        }
        Verdict::WaitUntil(next)
    }
}

impl FlowState {
    fn waits_for_client(&self) -> bool {
        self.unsent > 0 || !self.at_source
    }
}

/// A request's entry in the pulse. Its service future, its answer's body and every unsent part of that share it;
/// when the last of them is gone the request is over.
#[derive(Debug)]
pub(super) struct Flow {
    pulse: Arc<Pulse>,
    key: u64,
}

impl Flow {
    fn change(&self, change: impl FnOnce(&mut FlowState)) {
        if let Some(flow) = self.pulse.lock().flows.get_mut(&self.key) {
            change(flow);
        }
    }

    /// The handler has answered; the client is to take the answer.
    pub(super) fn answered(&self) {
        self.change(|flow| {
            flow.at_source = false;
            flow.moved = Instant::now();
        });
    }

    /// hyper asked for more of the body and there is none yet.
    pub(super) fn waits_for_source(&self) {
        self.change(|flow| flow.at_source = true);
    }

    /// Part of the body was handed to hyper.
    pub(super) fn handed(&self, bytes: usize) {
        self.change(|flow| {
            flow.at_source = false;
            flow.moved = Instant::now();
            flow.unsent += bytes;
        });
    }

    /// Part of what was handed over is written.
    pub(super) fn sent(&self, bytes: usize) {
        self.change(|flow| {
            flow.unsent = flow.unsent.saturating_sub(bytes);
            flow.moved = Instant::now();
        });
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let mut state = self.pulse.lock();
        state.flows.remove(&self.key);
        if state.flows.is_empty() {
            state.rest = Rest::Idle { since: Instant::now() };
        }
    }
}

/// `span` after `start`; for a span beyond the clock's range a time that is never reached.
pub(super) fn later(start: Instant, span: Duration) -> Instant {
    const NEVER: Duration = Duration::from_hours(365 * 24);
    start.checked_add(span).unwrap_or_else(|| start + NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits { request_head: SECOND * 2, idle: SECOND * 10, write_stall: SECOND * 5, ..Limits::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_timed_from_its_first_byte_and_not_byte_by_byte() {
        let pulse = Pulse::new(Protocol::Http1, &limits());
        let start = Instant::now();
        drop(pulse.open());
        tokio::time::advance(SECOND * 6).await;
        assert_eq!(pulse.verdict(Instant::now()), Verdict::WaitUntil(start + SECOND * 8));
        pulse.bytes_came();
        tokio::time::advance(SECOND).await;
        pulse.bytes_came();
        assert_eq!(pulse.verdict(Instant::now()), Verdict::WaitUntil(start + SECOND * 8));
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.verdict(Instant::now()), Verdict::Cut(Cut::SlowHead));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_handler_is_not_a_stalled_client() {
        let pulse = Pulse::new(Protocol::Http1, &limits());
        let flow = pulse.open();
        tokio::time::advance(SECOND * 100).await;
        assert!(matches!(pulse.verdict(Instant::now()), Verdict::WaitUntil(_)));
        flow.answered();
        flow.handed(10);
        flow.waits_for_source();
        tokio::time::advance(SECOND * 4).await;
        flow.sent(4);
        tokio::time::advance(SECOND * 4).await;
        assert!(matches!(pulse.verdict(Instant::now()), Verdict::WaitUntil(_)), "the client took four bytes");
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.verdict(Instant::now()), Verdict::Cut(Cut::WriteStall));
        flow.sent(6);
        tokio::time::advance(SECOND * 100).await;
        assert!(matches!(pulse.verdict(Instant::now()), Verdict::WaitUntil(_)), "the source is slow now");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_told_to_end_and_then_cut() {
        let pulse = Pulse::new(Protocol::Http2, &limits());
        drop(pulse.open());
        tokio::time::advance(SECOND * 9).await;
        pulse.bytes_came();
        tokio::time::advance(SECOND).await;
        assert_eq!(pulse.verdict(Instant::now()), Verdict::Finish);
        tokio::time::advance(SECOND * 5).await;
        assert_eq!(pulse.verdict(Instant::now()), Verdict::Cut(Cut::Lingers));
    }
}
