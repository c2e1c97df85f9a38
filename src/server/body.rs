//! A request's body, read within limits of time and size.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::BodyError;
use crate::server::Limits;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// More than the limit.
    #[error("the body is too large")]
    TooLarge,
    /// Not within its time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The connection broke.
    #[error("the body broke off")]
    Broken,
}

/// A body that ends with an error when its sender pauses too long or takes too long in all.
pub struct RequestBody {
    inner: Incoming,
    idle: Duration,
    pause: Pin<Box<Sleep>>,
    deadline: Pin<Box<Sleep>>,
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("RequestBody")
    }
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, limits: &Limits) -> Self {
        Self {
            inner,
            idle: limits.request_body_idle,
            pause: Box::pin(tokio::time::sleep(limits.request_body_idle)),
            deadline: Box::pin(tokio::time::sleep(limits.request_body_total)),
        }
    }

    /// The whole body, if it has at most `limit` bytes. A length announced over the limit is refused unread.
    pub async fn read_all(mut self, limit: usize) -> Result<Bytes, ReadError> {
        if self.size_hint().lower() > limit as u64 {
            return Err(ReadError::TooLarge);
        }
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let frame = frame.map_err(|error| match error.downcast_ref::<ReadError>() {
                Some(known) => *known,
                None => ReadError::Broken,
            })?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > limit {
                    return Err(ReadError::TooLarge);
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(frame) => {
                let idle = this.idle;
                this.pause.as_mut().reset(Instant::now() + idle);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let late = this.pause.as_mut().poll(context).is_ready()
                    || this.deadline.as_mut().poll(context).is_ready();
                if late { Poll::Ready(Some(Err(ReadError::TooSlow.into()))) } else { Poll::Pending }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
