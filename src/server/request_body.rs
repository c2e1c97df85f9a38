//! The body of a request, read within time limits and, when it is read whole, within a size.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::BodyError;
use crate::server::Limits;
use crate::server::pulse::{Pulse, later};

/// Why a request's body could not be read. The connection is of no further use after one of these; hyper closes it
/// once the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is, or says it will be, longer than the limit given.
    #[error("the request's body is too large")]
    TooLarge,
    /// The sender paused too long, or took too long in all.
    #[error("the request's body came too slowly")]
    TooSlow,
    /// The sender went away, or broke the framing.
    #[error("the request's body was cut off or malformed")]
    Broken,
}

/// The body of a request. As an [`HttpBody`] its errors are [`ReadError`]s in a box.
///
/// Only time spent waiting for the sender counts: a handler that pauses between reads costs the sender nothing of
/// `request_body_idle`. `request_body_total` runs from the first wait.
pub struct RequestBody {
    incoming: Incoming,
    pulse: Arc<Pulse>,
    idle: Duration,
    total: Duration,
    /// When the body must have come in whole; set at the first wait.
    deadline: Option<Instant>,
    waiting: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, limits: &Limits, pulse: Arc<Pulse>) -> Self {
        let ended = incoming.is_end_stream();
        Self {
            incoming,
            pulse,
            idle: limits.request_body_idle,
            total: limits.request_body_total,
            deadline: None,
            waiting: false,
            alarm: None,
            ended,
        }
    }

    /// Reads the whole body, at most `limit` bytes. A `Content-Length` beyond the limit fails before anything is
    /// read, so a client that sent `Expect: 100-continue` is spared the sending. Trailers are dropped.
    pub async fn read_all(mut self, limit: usize) -> Result<Bytes, ReadError> {
        let announced = usize::try_from(self.incoming.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > limit {
            return Err(ReadError::TooLarge);
        }
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let frame = frame.map_err(|error| error.downcast().map_or(ReadError::Broken, |error| *error))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len().max(all.len()).saturating_add(data.len()) > limit {
                return Err(ReadError::TooLarge);
            }
            // Most bodies come in one piece, which is then passed on without a copy.
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                // Memory grows with what came, not with what was announced.
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    /// Whether the sender's time is up, now that there is nothing to read.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let deadline = *self.deadline.get_or_insert_with(|| later(now, self.total));
        let patience = deadline.min(later(now, self.idle));
        let alarm = match &mut self.alarm {
            None => self.alarm.insert(Box::pin(tokio::time::sleep_until(patience))),
            Some(alarm) => {
                if !self.waiting {
                    alarm.as_mut().reset(patience);
                }
                alarm
            }
        };
        self.waiting = true;
        alarm.as_mut().poll(context)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Pending => self.poll_late(context).map(|()| Some(Err(BodyError::from(ReadError::TooSlow)))),
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = false;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BodyError::from(ReadError::Broken)))),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !self.incoming.is_end_stream() {
            self.pulse.leave_body();
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RequestBody").finish_non_exhaustive()
    }
}
