//! The body of a live answer on its way from the EHR to the app: passed on as it arrives, never faster than the app
//! takes it, within limits, and noted when it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::BodyError;
use crate::clock::{Clock, Timestamp};
use crate::events::{AccessEntry, Interaction, Place, Subject};
use crate::fhir::gunzip::Gunzip;
use crate::fhir::links::LinkStream;
use crate::fhir::turns::Turn;
use crate::id::{ApiKeyId, ConnectionId, WorkspaceId};

/// What one answer may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Between two pieces, while the app waits.
    pub(super) pause: Duration,
    /// From the head to the end, while the app waits.
    pub(super) whole: Duration,
    /// Bytes, also after unpacking.
    pub(super) bytes: u64,
}

/// Why an answer ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    #[error("the hospital paused too long")]
    Slow,
    #[error("the answer is too large")]
    Large,
    #[error("the hospital broke the answer off")]
    Broken,
    #[error("the answer's packing is damaged")]
    Packing,
}

/// One access: an entry in the record of accesses, and a line of the log. Who, which connection, what kind, how it went;
/// no id of the record, no query, no content.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) clock: Clock,
    pub(super) request: String,
    pub(super) key: ApiKeyId,
    pub(super) workspace: WorkspaceId,
    pub(super) connection: ConnectionId,
    pub(super) interaction: Interaction,
    pub(super) kind: &'static str,
    pub(super) since: Timestamp,
    /// Taken when the access is recorded.
    pub(super) place: Option<Place>,
}

impl Note {
    /// Records the access, before anything of the answer is passed on.
    pub(super) fn record(&mut self, status: u16) {
        let Some(place) = self.place.take() else { return };
        place.note(AccessEntry {
            at: self.since,
            key: self.key,
            workspace: self.workspace,
            subject: Subject::Connection(self.connection),
            interaction: self.interaction,
            kind: self.kind.into(),
            status,
        });
    }

    /// Writes the line, when the answer has ended.
    pub(super) fn log(&self, status: u16, bytes: u64, end: &str) {
        let took = self.clock.now().since(self.since).as_millis();
        tracing::info!(
            request = self.request.as_str(),
            key = %self.key,
            connection = %self.connection,
            kind = self.kind,
            status,
            bytes,
            ms = took,
            end,
            "read live"
        );
    }
}

/// What nginx writes for a caller that has left before the answer; nobody is sent it.
const LEFT: u16 = 499;

impl Drop for Note {
    /// The caller left while the EHR was asked: that is an access all the same.
    fn drop(&mut self) {
        if self.place.is_some() {
            self.record(LEFT);
            self.log(LEFT, 0, "the caller left");
        }
    }
}

/// The body.
#[derive(Debug)]
pub(super) struct Relay {
    source: Incoming,
    bounds: Bounds,
    gunzip: Option<Gunzip>,
    links: Option<LinkStream>,
    /// When the whole must be here; set at the first wait.
    deadline: Option<Instant>,
    waiting: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    received: u64,
    passed: u64,
    ended: bool,
    cut: Option<Cut>,
    status: u16,
    note: Note,
    _turn: Turn,
}

impl Relay {
    pub(super) fn new(source: Incoming, bounds: Bounds, status: u16, mut note: Note, turn: Turn) -> Self {
        note.record(status);
        Self {
            source,
            bounds,
            gunzip: None,
            links: None,
            deadline: None,
            waiting: false,
            alarm: None,
            received: 0,
            passed: 0,
            ended: false,
            cut: None,
            status,
            note,
            _turn: turn,
        }
    }

    /// Unpacks on the way.
    pub(super) fn unpacked(mut self) -> Self {
        self.gunzip = Some(Gunzip::new());
        self
    }

    /// Turns links on the way.
    pub(super) fn turned(mut self, links: LinkStream) -> Self {
        self.links = Some(links);
        self
    }

    fn is_plain(&self) -> bool {
        self.gunzip.is_none() && self.links.is_none()
    }

    /// The next piece to pass on, which may be empty; `None` at the end.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if let Some(gunzip) = &mut self.gunzip {
            match gunzip.pull() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(self.take(piece)?))),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(Cut::Packing))),
            }
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut self.source).poll_frame(context) {
            Poll::Pending => {
                ready!(self.poll_late(context));
                return Poll::Ready(Some(Err(Cut::Slow)));
            }
            Poll::Ready(frame) => frame,
        };
        self.waiting = false;
        match frame {
            Some(Ok(frame)) => {
                // Trailers are a hop's own business.
                let packed = frame.into_data().unwrap_or_default();
                let Some(gunzip) = &mut self.gunzip else { return Poll::Ready(Some(self.take(packed))) };
                gunzip.push(packed);
                Poll::Ready(Some(Ok(Bytes::new())))
            }
            Some(Err(_)) => Poll::Ready(Some(Err(Cut::Broken))),
            None => {
                self.ended = true;
                let rest = match self.gunzip.as_mut().map(Gunzip::finish) {
                    None => Bytes::new(),
                    Some(Ok(rest)) => rest,
                    Some(Err(_)) => return Poll::Ready(Some(Err(Cut::Packing))),
                };
                let rest = self.take(rest)?;
                let Some(links) = &mut self.links else { return Poll::Ready(Some(Ok(rest))) };
                let held = links.finish();
                let whole = if rest.is_empty() { held } else { [rest, held].concat().into() };
                Poll::Ready(Some(Ok(whole)))
            }
        }
    }

    fn take(&mut self, piece: Bytes) -> Result<Bytes, Cut> {
        self.received += piece.len() as u64;
        if self.received > self.bounds.bytes {
            return Err(Cut::Large);
        }
        Ok(match &mut self.links {
            Some(links) => links.push(piece),
            None => piece,
        })
    }

    /// Whether the EHR's time is up, now that there is nothing to read.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let deadline = *self.deadline.get_or_insert_with(|| now + self.bounds.whole);
        let patience = deadline.min(now + self.bounds.pause);
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

impl HttpBody for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match ready!(self.poll_piece(context)) {
                None => return Poll::Ready(None),
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.passed += piece.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Some(Err(cut)) => {
                    self.ended = true;
                    self.cut = Some(cut);
                    return Poll::Ready(Some(Err(cut.into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.gunzip.is_none() || self.is_plain() && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_plain() { self.source.size_hint() } else { SizeHint::default() }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let end = match self.cut {
            Some(Cut::Slow) => "too slow",
            Some(Cut::Large) => "too large",
            Some(Cut::Broken) => "broken off",
            Some(Cut::Packing) => "damaged",
            None if self.ended || self.source.is_end_stream() => "whole",
            None => "caller left",
        };
        self.note.log(self.status, self.passed, end);
    }
}
