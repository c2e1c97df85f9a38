//! One connection: its requests, and the clock that closes it when there are none.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::body::{Body, BodyError, empty};
use crate::server::{Limits, Peer, RequestBody};
use crate::shutdown::Shutdown;

/// Bytes of answers kept for one HTTP/2 stream that the client has not taken yet.
const H2_SEND_BUFFER: usize = 256 * 1024;
/// Streams that a client may open and reset before it is taken for a flood (CVE-2023-44487).
const H2_RESETS: usize = 20;
/// A silent HTTP/2 connection is asked for a sign of life this often.
const H2_PING: Duration = Duration::from_secs(20);

pub(super) async fn serve_h1<S, H, F>(stream: S, peer: Peer, limits: &Limits, shutdown: &Shutdown, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (service, requests) = count(peer, limits, handler);
    let mut builder = hyper::server::conn::http1::Builder::new();
    // Its own timer for heads also runs between requests, where a longer time is right; `quiet` below does both.
    builder.max_buf_size(limits.head_bytes.max(8192)).max_headers(limits.head_fields).half_close(false);
    let connection = builder.serve_connection(TokioIo::new(stream), service_fn(service));
    let mut connection = std::pin::pin!(connection);
    let mut quiet = std::pin::pin!(quiet(requests, limits));
    let mut stopping = std::pin::pin!(shutdown.triggered().fuse());
    let mut asked = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = quiet.as_mut() => return,
            () = stopping.as_mut(), if !asked => {
                asked = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

pub(super) async fn serve_h2<S, H, F>(stream: S, peer: Peer, limits: &Limits, shutdown: &Shutdown, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (service, requests) = count(peer, limits, handler);
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(H2_RESETS)
        .max_local_error_reset_streams(H2_RESETS)
        .max_send_buf_size(H2_SEND_BUFFER)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(limits.write_stall);
    let connection = builder.serve_connection(TokioIo::new(stream), service_fn(service));
    let mut connection = std::pin::pin!(connection);
    let mut quiet = std::pin::pin!(quiet(requests, limits));
    let mut stopping = std::pin::pin!(shutdown.triggered().fuse());
    let mut asked = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = quiet.as_mut() => return,
            () = stopping.as_mut(), if !asked => {
                asked = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Ends when the connection has had nothing to do for too long: no complete head soon after it was made, or none for
/// the idle time after an answer was sent.
async fn quiet(mut requests: watch::Receiver<usize>, limits: &Limits) {
    let mut allowed = limits.request_head;
    loop {
        if *requests.borrow_and_update() == 0 {
            tokio::select! {
                () = tokio::time::sleep(allowed) => return,
                changed = requests.changed() => if changed.is_err() { return },
            }
        } else {
            allowed = limits.idle;
            if requests.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Wraps the handler so that requests under way are counted, and a panic in one is an answer of 500 to it alone.
#[expect(clippy::type_complexity, reason = "a closure that only the two functions above name")]
fn count<H, F>(
    peer: Peer,
    limits: &Limits,
    handler: H,
) -> (
    impl Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Result<Response<Body>, BodyError>> + Send>> + Clone,
    watch::Receiver<usize>,
)
where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (running, requests) = watch::channel(0_usize);
    let running = Arc::new(running);
    let limits = limits.clone();
    let service = move |request: Request<Incoming>| {
        let counted = Counted::new(&running);
        let request = request.map(|body| RequestBody::new(body, &limits));
        let answering = AssertUnwindSafe(handler(peer, request)).catch_unwind();
        let answer: Pin<Box<dyn Future<Output = Result<Response<Body>, BodyError>> + Send>> =
            Box::pin(async move {
                let response = answering.await.unwrap_or_else(|_| {
                    tracing::error!("a request handler panicked");
                    let mut response = Response::new(empty());
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    response
                });
                // The request is under way until the last byte of its answer has been taken.
                Ok(response.map(|body| CountedBody { body, _counted: counted }.boxed_unsync()))
            });
        answer
    };
    (service, requests)
}

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

struct CountedBody {
    body: Body,
    _counted: Counted,
}

impl hyper::body::Body for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
