//! One connection from its first byte to its last: handshake, choice of HTTP version, limits, end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::body::{self, Body};
use crate::server::answer::Answer;
use crate::server::pulse::{Protocol, Pulse, Verdict};
use crate::server::request_body::RequestBody;
use crate::server::socket::Socket;
use crate::server::tls::ALPN_H2;
use crate::server::{Limits, Peer, Transport};
use crate::shutdown::Shutdown;

/// How many bytes of answers are buffered for a client that reads slowly, per stream in HTTP/2.
const SEND_BUFFER: usize = 64 * 1024;
/// How much of one request's body may wait unread in memory.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for all streams of one HTTP/2 connection together.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// How many streams a client may open and reset before we have looked at them (CVE-2023-44487).
const RESET_STREAMS: usize = 20;
/// How many streams we may have to reset for a client's protocol errors (CVE-2025-8671).
const OUR_RESET_STREAMS: usize = 128;
/// The number of header fields for which hyper needs no allocation.
const FIELDS_ON_STACK: usize = 100;
/// The least buffer that hyper's HTTP/1.1 accepts.
const LEAST_BUFFER: usize = 8192;

/// How far the server has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    /// Requests in flight end; nothing new begins.
    Draining,
    /// Time is up.
    Over,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Floor {
    pub(super) transport: Transport,
    pub(super) limits: Limits,
    pub(super) shutdown: Shutdown,
}

/// Serves one connection until it ends, breaks a limit, or the server is over.
pub(super) async fn run<H, F>(
    stream: TcpStream,
    peer: Peer,
    floor: Arc<Floor>,
    mut stage: watch::Receiver<Stage>,
    handler: H,
) where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Answers are written whole, so waiting to fill packets would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let tls = match &floor.transport {
        Transport::Plain => return http1(stream, peer, &floor, stage, handler).await,
        Transport::Tls(handle) => TlsAcceptor::from(handle.current()),
    };
    let handshake = tokio::time::timeout(floor.limits.tls_handshake, tls.accept(stream));
    let stream = tokio::select! {
        biased;
        // Nothing was asked yet, so nothing is lost.
        _ = stage.wait_for(|stage| *stage != Stage::Serving) => return,
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        },
    };
    if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
        http2(stream, peer, &floor, stage, handler).await;
    } else {
        http1(stream, peer, &floor, stage, handler).await;
    }
}

async fn http1<S, H, F>(stream: S, peer: Peer, floor: &Floor, stage: watch::Receiver<Stage>, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let limits = &floor.limits;
    let pulse = Pulse::new(Protocol::Http1, limits);
    let mut builder = http1::Builder::new();
    // hyper's own timer for heads would run while a connection rests too; the pulse tells the two apart.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(SEND_BUFFER).max(LEAST_BUFFER));
    if limits.head_fields != FIELDS_ON_STACK {
        builder.max_headers(limits.head_fields);
    }
    let io = TokioIo::new(Socket::new(stream, Arc::clone(&pulse)));
    let connection = builder.serve_connection(io, service(peer, limits, &pulse, handler));
    drive(connection, &pulse, stage).await;
}

async fn http2<S, H, F>(stream: S, peer: Peer, floor: &Floor, stage: watch::Receiver<Stage>, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let limits = &floor.limits;
    let pulse = Pulse::new(Protocol::Http2, limits);
    let mut builder = http2::Builder::new(Spawner(floor.shutdown.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(OUR_RESET_STREAMS)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // Finds clients that vanished while a handler works; resting connections are closed before they are asked.
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.write_stall);
    let io = TokioIo::new(Socket::new(stream, Arc::clone(&pulse)));
    let connection = builder.serve_connection(io, service(peer, limits, &pulse, handler));
    drive(connection, &pulse, stage).await;
}

/// Wraps the handler: limits on the request's body, the pulse around request and answer.
fn service<H, F>(
    peer: Peer,
    limits: &Limits,
    pulse: &Arc<Pulse>,
    handler: H,
) -> impl HttpService<
    Incoming,
    ResBody = Answer,
    Error = Infallible,
    Future: Future<Output = Result<Response<Answer>, Infallible>> + Send + 'static,
> + use<H, F>
where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let limits = limits.clone();
    let pulse = Arc::clone(pulse);
    service_fn(move |request: Request<Incoming>| {
        let flow = pulse.open();
        // HTTP/1.1 has refused this before; HTTP/2 knows only a limit in bytes.
        let answer = (request.headers().len() <= limits.head_fields).then(|| {
            handler(peer, request.map(|incoming| RequestBody::new(incoming, &limits, Arc::clone(&pulse))))
        });
        async move {
            let response = match answer {
                Some(answer) => answer.await,
                None => too_many_fields(),
            };
            Ok::<_, Infallible>(response.map(|body| Answer::new(body, flow)))
        }
    })
}

fn too_many_fields() -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response
}

/// Drives a connection and its limits.
async fn drive<C>(connection: C, pulse: &Pulse, mut stage: watch::Receiver<Stage>)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let mut look = pin!(tokio::time::sleep(Duration::ZERO));
    // A stop that came during the handshake counts as news.
    stage.mark_changed();
    loop {
        tokio::select! {
            // The limits first: a connection that always has something to do would keep them from being asked.
            biased;
            news = stage.changed() => {
                // Without a sender the server is gone, and so are we.
                let now = news.map_or(Stage::Over, |()| *stage.borrow_and_update());
                match now {
                    Stage::Serving => {}
                    Stage::Draining => {
                        connection.as_mut().graceful_shutdown();
                        pulse.set_finishing();
                    }
                    Stage::Over => return,
                }
            }
            () = look.as_mut() => match pulse.verdict(Instant::now()) {
                Verdict::WaitUntil(then) => look.as_mut().reset(then),
                Verdict::Finish => {
                    connection.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now());
                }
                Verdict::Cut(why) => return tracing::debug!(?why, "a connection was cut"),
            },
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
        }
    }
}

/// Runs the streams of HTTP/2 connections as counted tasks. When their connection is dropped they end by themselves.
#[derive(Clone)]
struct Spawner(Shutdown);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
