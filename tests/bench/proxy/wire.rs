//! A load generator over TLS, HTTP/1.1 or HTTP/2, of kept connections only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chartgate::shutdown::Shutdown;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::support::{Stopwatch, float};

/// A bearer key, and whom to trust.
#[derive(Clone)]
pub struct Key {
    pub text: String,
    pub roots: Arc<rustls::ClientConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// One cell: so many requests open at once for so long. In HTTP/2 sixteen share a connection.
#[derive(Clone, Copy)]
pub struct Load<'l> {
    pub protocol: Protocol,
    pub connections: usize,
    pub span: Duration,
    pub extra: &'l [(&'static str, &'static str)],
}

pub fn trusting(authority: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the usual versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Clone)]
enum Sender {
    Http1(Arc<tokio::sync::Mutex<http1::SendRequest<Full<Bytes>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn open(address: SocketAddr, key: &Key, protocol: Protocol) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let mut config = (*key.roots).clone();
        let name: &[u8] = if protocol == Protocol::Http1 { b"http/1.1" } else { b"h2" };
        config.alpn_protocols = vec![name.to_vec()];
        let server = ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await.ok()?;
        let tasks = Shutdown::default();
        if protocol == Protocol::Http1 {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            tasks.spawn(async move { drop(connection.await) });
            return Some(Self::Http1(Arc::new(tokio::sync::Mutex::new(sender))));
        }
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(2 << 20).initial_connection_window_size(16 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.ok()?;
        tasks.spawn(async move { drop(connection.await) });
        Some(Self::Http2(sender))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Asks and reads to the end; bytes of the body.
    async fn read(&mut self, request: Request<Full<Bytes>>) -> u64 {
        let mut answer = self.send(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let mut bytes = 0;
        while let Some(frame) = answer.body_mut().frame().await {
            bytes += frame.expect("a whole body").data_ref().map_or(0, Bytes::len) as u64;
        }
        bytes
    }
}

fn request(
    address: SocketAddr,
    path: &str,
    key: &Key,
    protocol: Protocol,
    extra: &[(&str, &str)],
) -> Request<Full<Bytes>> {
    let authorization = format!("Bearer {}", key.text);
    let mut request = Request::builder().header("authorization", authorization);
    request = match protocol {
        Protocol::Http1 => request.uri(path).header("host", address.to_string()),
        Protocol::Http2 => request.uri(format!("https://{address}{path}")),
    };
    for (name, value) in extra {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

/// Runs one cell; requests answered, and seconds.
pub async fn run(address: SocketAddr, path: &str, key: &Key, load: &Load<'_>, bytes: usize) -> (u64, f64) {
    let shared = if load.protocol == Protocol::Http2 { 16.min(load.connections) } else { 1 };
    let mut senders = Vec::new();
    for _ in 0..load.connections.div_ceil(shared) {
        let sender = Sender::open(address, key, load.protocol).await.expect("a connection");
        senders.extend(std::iter::repeat_n(sender, shared));
    }
    let asked = request(address, path, key, load.protocol, load.extra);
    let watch = Stopwatch::start();
    let end = Instant::now() + load.span;
    let mut tasks = JoinSet::new();
    for mut sender in senders {
        let asked = asked.clone();
        tasks.spawn(async move {
            let mut count = 0;
            while Instant::now() < end {
                let read = sender.read(asked.clone()).await;
                assert!(read >= bytes as u64 * 9 / 10, "{read} bytes");
                count += 1;
            }
            count
        });
    }
    let count = tasks.join_all().await.into_iter().sum();
    (count, watch.seconds())
}

/// Asks at a fixed rate over HTTP/1.1; microseconds of each, from the moment it was due.
pub async fn paced(
    address: SocketAddr,
    path: &str,
    key: &Key,
    connections: u32,
    rate: u32,
    span: Duration,
) -> Vec<f64> {
    let every = Duration::from_secs(1) * connections / rate;
    let mut tasks = JoinSet::new();
    let start = Instant::now() + Duration::from_millis(300);
    for number in 0..connections {
        let mut sender = Sender::open(address, key, Protocol::Http1).await.expect("a connection");
        let asked = request(address, path, key, Protocol::Http1, &[]);
        tasks.spawn(async move {
            sender.read(asked.clone()).await;
            let mut due = start + every * number / connections;
            let mut times = Vec::new();
            while due < start + span {
                tokio::time::sleep_until(due).await;
                // The timer itself wakes up to a millisecond late; that is not the proxy's.
                let begun = Instant::now();
                sender.read(asked.clone()).await;
                times.push(float(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)) / 1000.0);
                due += every;
            }
            times
        });
    }
    tasks.join_all().await.concat()
}

/// Reads one long answer and throws it away; its bytes.
pub async fn drain(address: SocketAddr, path: &str, key: &Key) -> u64 {
    let mut sender = Sender::open(address, key, Protocol::Http1).await.expect("a connection");
    sender.read(request(address, path, key, Protocol::Http1, &[])).await
}

pub struct Answer {
    pub body: Bytes,
    headers: HeaderMap,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// One request on a connection of its own.
pub async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    key: &Key,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut asked =
        request(address, path, key, Protocol::Http1, headers).map(|_| Full::from(body.to_owned()));
    *asked.method_mut() = method.parse().expect("a method");
    let mut sender = Sender::open(address, key, Protocol::Http1).await.expect("a connection");
    let (head, body) = sender.send(asked).await.expect("an answer").into_parts();
    Answer { body: body.collect().await.expect("a body").to_bytes(), headers: head.headers }
}

/// Waits until a server answers 200.
pub async fn wait_for(address: SocketAddr, path: &str, key: &Key) {
    for _ in 0..600 {
        if let Some(mut sender) = Sender::open(address, key, Protocol::Http1).await
            && let Ok(answer) = sender.send(request(address, path, key, Protocol::Http1, &[])).await
            && answer.status() == 200
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{address} does not answer");
}
