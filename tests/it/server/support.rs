//! A server on free loopback ports and clients that can misbehave.

use std::fmt::Debug;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use chartgate::body::{Body, BodyError, empty, full};
use chartgate::clock::Clock;
use chartgate::server::{
    Limits, Peer, ReadError, RequestBody, SelfSigned, TlsHandle, Transport, bind, self_signed, serve,
    tls_config,
};
use chartgate::shutdown::Shutdown;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A limit under test; the others are far away, so that only this one can be what closed a connection.
pub const SOON: Duration = Duration::from_millis(200);
/// Longer than any test needs.
const PATIENCE: Duration = Duration::from_secs(20);
const FAR: Duration = Duration::from_mins(10);

pub fn patient() -> Limits {
    Limits {
        tls_handshake: FAR,
        request_head: FAR,
        request_body_idle: FAR,
        request_body_total: FAR,
        idle: FAR,
        write_stall: FAR,
        ..Limits::default()
    }
}

/// Waits for what must happen.
pub async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, happens).await.unwrap_or_else(|_| panic!("did not happen: {what}"))
}

pub struct Running {
    pub address: SocketAddr,
    pub second: SocketAddr,
    pub shutdown: Shutdown,
    /// The client's own tasks.
    background: Shutdown,
    authority: Option<String>,
    /// How many handlers, or bodies that they made, are alive.
    pub alive: watch::Sender<usize>,
    ended: watch::Sender<bool>,
}

/// Counts one handler or body for as long as it lives.
struct Alive(watch::Sender<usize>);

impl Alive {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Bytes without end.
struct Endless(#[expect(dead_code, reason = "held to be counted")] Alive);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

async fn answer(peer: Peer, request: Request<RequestBody>, alive: watch::Sender<usize>) -> Response<Body> {
    let held = Alive::new(&alive);
    match request.uri().path() {
        "/peer" => Response::new(full(format!("{} {}", peer.encrypted, peer.address.ip()))),
        "/read" => match request.into_body().read_all(1000).await {
            Ok(body) => Response::new(full(format!("read {}", body.len()))),
            Err(error) => {
                let mut response = Response::new(full(format!("{error:?}")));
                *response.status_mut() = match error {
                    ReadError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    ReadError::TooSlow => StatusCode::REQUEST_TIMEOUT,
                    ReadError::Broken => StatusCode::BAD_REQUEST,
                };
                response
            }
        },
        "/endless" => Response::new(Endless(held).boxed_unsync()),
        "/short" => Response::new(full(vec![b'y'; 1000])),
        "/empty" => Response::new(empty()),
        "/hang" => pending().await,
        "/gate" => {
            // Open once somebody else asks for `/open`, which makes two alive.
            let mut count = alive.subscribe();
            let _ = count.wait_for(|count| *count >= 2).await;
            Response::new(full("through"))
        }
        "/panic" => panic!("a handler's panic, wanted by the test"),
        _ => Response::new(full("hello")),
    }
}

impl Running {
    pub async fn plain(limits: Limits) -> Self {
        Self::start(Transport::Plain, None, limits, FAR).await
    }

    pub async fn tls(limits: Limits) -> Self {
        Self::tls_with_drain(limits, FAR).await
    }

    pub async fn plain_with_drain(limits: Limits, drain: Duration) -> Self {
        Self::start(Transport::Plain, None, limits, drain).await
    }

    pub async fn tls_with_drain(limits: Limits, drain: Duration) -> Self {
        let SelfSigned { certificate_pem, key_pem, authority_pem } =
            self_signed(&["localhost", "127.0.0.1"], &Clock::machine()).expect("a certificate");
        let config = tls_config(certificate_pem.as_bytes(), key_pem.expose().as_bytes()).expect("a config");
        Self::start(Transport::Tls(TlsHandle::new(config)), Some(authority_pem), limits, drain).await
    }

    #[expect(clippy::unused_async, reason = "binding needs the runtime")]
    async fn start(transport: Transport, authority: Option<String>, limits: Limits, drain: Duration) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let listeners = vec![bind(any).expect("a port"), bind(any).expect("a port")];
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().expect("bound")).collect();
        let shutdown = Shutdown::default();
        let background = Shutdown::default();
        let alive = watch::Sender::new(0);
        let ended = watch::Sender::new(false);
        let (stop, done, count) = (shutdown.clone(), ended.clone(), alive.clone());
        background.spawn(async move {
            let handler = move |peer, request| answer(peer, request, count.clone());
            serve(listeners, transport, limits, handler, &stop, drain).await;
            done.send_replace(true);
        });
        Self { address: addresses[0], second: addresses[1], shutdown, background, authority, alive, ended }
    }

    /// The server has returned.
    pub async fn ended(&self) {
        within("the server's end", self.ended.subscribe().wait_for(|ended| *ended)).await.expect("held");
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Exactly so many handlers or endless bodies are alive.
    pub async fn alive(&self, wanted: usize) {
        let what = format!("{wanted} handlers alive");
        within(&what, self.alive.subscribe().wait_for(|count| *count == wanted)).await.expect("held");
    }

    pub async fn tcp(&self) -> TcpStream {
        // A small buffer, so that an answer nobody reads soon has nowhere to go.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 * 1024).expect("a size");
        within("a connection", socket.connect(self.address)).await.expect("connected")
    }

    pub fn client_config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = self.authority.as_ref().expect("a TLS server");
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    pub async fn tls_stream(&self, alpn: &[&str]) -> TlsStream<TcpStream> {
        self.tls_stream_with(self.client_config(alpn)).await
    }

    pub async fn tls_stream_with(&self, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").expect("a name");
        let shaken = TlsConnector::from(config).connect(name, self.tcp().await);
        within("a handshake", shaken).await.expect("shaken")
    }

    /// A well-behaved HTTP/2 client that pings all the time and whose streams have a window of 4 KiB.
    pub async fn h2(&self) -> http2::SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(self.tls_stream(&["h2"]).await);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(4096);
        builder.timer(TokioTimer::new()).keep_alive_interval(SOON / 10).keep_alive_while_idle(true);
        let (client, connection) = within("HTTP/2", builder.handshake(stream)).await.expect("HTTP/2");
        self.background.spawn(async move {
            // How it ends is seen by its requests.
            let _ = connection.await;
        });
        client
    }
}

pub fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).expect("a request")
}

pub async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: impl AsRef<[u8]>) {
    within("a write", stream.write_all(bytes.as_ref())).await.expect("written");
    within("a flush", stream.flush()).await.expect("flushed");
}

/// All that comes until the server closes; a cut without a farewell counts as an end.
pub async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let _cut = within("the server closes", stream.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// One HTTP/1.1 answer, read up to the text it ends with.
pub async fn until_text(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        let read = within(end, stream.read_buf(&mut all)).await.expect("readable");
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&all));
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Sends `byte` again and again with short pauses; returns once the server has closed.
pub async fn drip<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> String {
    let mut all = Vec::new();
    within("the server closes", async {
        loop {
            if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
                break;
            }
            // Waiting for the server's close is what paces the drip.
            if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(SOON / 10, stream.read_buf(&mut all)).await {
                break;
            }
        }
    })
    .await;
    String::from_utf8_lossy(&all).into_owned()
}

pub fn check_closed_without_a_byte(answer: &str, who: impl Debug) {
    assert_eq!(answer, "", "{who:?}");
}
