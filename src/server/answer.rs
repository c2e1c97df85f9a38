//! The body of an answer on its way out, counted so that a client that stops reading is noticed. In HTTP/2 the
//! socket may be writable while one stream's window is shut, so the bytes themselves report when they leave.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError};
use crate::server::pulse::Flow;

/// An answer's body that notes each part it hands over.
pub(super) struct Answer {
    body: Body,
    flow: Arc<Flow>,
}

impl Answer {
    pub(super) fn new(body: Body, flow: Arc<Flow>) -> Self {
        flow.answered();
        Self { body, flow }
    }
}

impl HttpBody for Answer {
    type Data = Part;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match polled {
            Poll::Pending => {
                self.flow.waits_for_source();
                Poll::Pending
            }
            Poll::Ready(frame) => Poll::Ready(
                frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| Part::new(bytes, &self.flow)))),
            ),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer that hyper holds until they are written.
pub(super) struct Part {
    bytes: Bytes,
    flow: Arc<Flow>,
}

impl Part {
    fn new(bytes: Bytes, flow: &Arc<Flow>) -> Self {
        flow.handed(bytes.len());
        Self { bytes, flow: Arc::clone(flow) }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.flow.sent(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.flow.sent(count);
        self.bytes.copy_to_bytes(count)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.flow.sent(self.bytes.len());
        }
    }
}
