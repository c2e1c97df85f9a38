//! A TCP or TLS stream that notes in its connection's pulse when bytes come and when the kernel takes none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::server::pulse::{Pulse, later};

/// How long a closed socket still reads what a client goes on sending, so that it can read our last answer.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Socket<S> {
    stream: S,
    pulse: Arc<Pulse>,
    /// What the pulse was last told.
    blocked: bool,
    /// The client has ended its side.
    ended: bool,
    farewell: Option<Farewell>,
}

struct Farewell {
    until: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(super) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, blocked: false, ended: false, farewell: None }
    }

    fn note<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() != self.blocked {
            self.blocked = written.is_pending();
            self.pulse.set_blocked(self.blocked);
        }
        written
    }

    /// Reads and forgets until the client ends its side or the time is over.
    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let farewell = self.farewell.get_or_insert_with(|| {
            let until = later(Instant::now(), FAREWELL);
            Farewell { until, alarm: Box::pin(tokio::time::sleep_until(until)) }
        });
        let mut scratch = [0; 4096];
        // The clock is asked too, because a client that never pauses would keep the alarm from being asked.
        while Instant::now() < farewell.until {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return farewell.alarm.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.pulse.bytes_came();
        } else {
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            let closed = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.note(closed))?;
            if self.ended || !self.pulse.has_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_farewell(context).map(Ok)
    }
}
