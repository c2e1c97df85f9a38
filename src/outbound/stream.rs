//! Calls whose answer is passed on as it arrives. hyper's own client, because reqwest costs a fifth more on this path;
//! nobody else uses it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::Connector;
use super::resolver::GuardedResolver;
use super::{Outbound, OutboundError, Reach};

/// The largest head of an answer, and the most that is read from a connection at once.
pub const MOST_OF_A_HEAD: usize = 64 * 1024;
/// Idle connections are closed before common servers close theirs (50 to 60 s), so that few requests meet a closed one.
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Idle connections kept to one host.
const POOL_SIZE: usize = 256;
/// How much of one answer may wait unread in memory, in HTTP/2; enough for 40 Mbit/s over 100 ms.
const STREAM_WINDOW: u32 = 512 * 1024;
/// The same for all answers of one connection together.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// A connection on which nothing came for this long is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

pub(super) type StreamClient = Client<Connector, Full<Bytes>>;

/// A request whose answer is streamed. Only for what may be asked twice: a request that died with a connection the
/// server had closed is sent again, once.
#[derive(Debug, Clone)]
pub struct StreamCall {
    /// GET, HEAD, or a POST that only reads.
    pub method: Method,
    /// Where to, byte for byte.
    pub uri: Uri,
    /// What to say. `User-Agent` and `Host` are added.
    pub headers: HeaderMap,
    /// Small enough to be held for the second try.
    pub body: Bytes,
    /// The longest time until the answer's head.
    pub within: Duration,
}

impl StreamCall {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(concat!("chartgate/", env!("CARGO_PKG_VERSION"))));
        request
    }
}

pub(super) fn build(
    tls: &rustls::ClientConfig,
    resolver: GuardedResolver,
    timeout: Duration,
) -> StreamClient {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = Connector { resolver, tls: Arc::new(tls), timeout };
    // The tasks that drive connections are not counted by `Shutdown`: a resting connection must not delay a stop.
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE)
        .http1_max_buf_size(MOST_OF_A_HEAD)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(u32::try_from(MOST_OF_A_HEAD).unwrap_or(u32::MAX))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE)
        .build(connector)
}

impl Outbound {
    /// Makes the call; the answer's body is read by the caller, who bounds its size and its pauses. A redirect is an
    /// answer like any other, and is not followed.
    pub async fn stream(&self, call: StreamCall, reach: Reach) -> Result<Response<Incoming>, OutboundError> {
        let host = self.check_uri(&call.uri, reach)?;
        let client = if reach == Reach::Loopback { &self.sandbox_streams } else { &self.live_streams };
        let asking = async {
            match client.request(call.request()).await {
                Err(error) if may_ask_again(&error) => client.request(call.request()).await,
                answer => answer,
            }
        };
        match tokio::time::timeout(call.within, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(classify(&error, host)),
            Err(_) => Err(OutboundError::TimedOut(host.to_owned())),
        }
    }

    /// The checks that need no network, as for other calls; the host, for error texts.
    fn check_uri<'u>(&self, uri: &'u Uri, reach: Reach) -> Result<&'u str, OutboundError> {
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or(OutboundError::BadUrl("it names no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(OutboundError::BadUrl("it carries a user name"));
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        if literal.is_some_and(|address| !self.guard.allows(address, reach)) {
            return Err(OutboundError::AddressRefused(host.to_owned()));
        }
        let loopback = match literal {
            Some(address) => address.is_loopback(),
            None => host == "localhost" || host.ends_with(".localhost"),
        };
        match uri.scheme_str() {
            Some("https") => Ok(host),
            Some("http") if reach == Reach::Loopback && loopback => Ok(host),
            _ => Err(OutboundError::BadUrl("it is not https")),
        }
    }
}

/// A kept connection that the server closed just then. What it did not answer at all may be asked once more.
fn may_ask_again(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<hyper::Error>() {
            return http.is_incomplete_message() || http.is_closed() || http.is_canceled();
        }
        cause = inner.source();
    }
    false
}

/// What went wrong, without the client's own text.
fn classify(error: &Error, host: &str) -> OutboundError {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(known) = inner.downcast_ref::<OutboundError>() {
            return known.clone();
        }
        cause = inner.source();
    }
    if error.is_connect() {
        OutboundError::Unreachable(host.to_owned())
    } else {
        OutboundError::Broken(host.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::outbound::OutboundSettings;
    use crate::shutdown::Shutdown;

    fn call(uri: &str) -> StreamCall {
        StreamCall {
            method: Method::GET,
            uri: uri.parse().expect("a uri"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            within: Duration::from_secs(10),
        }
    }

    /// A server behind TLS that speaks HTTP/2; its address, its authority, and how many connections it has had.
    async fn http2_server(bytes: usize) -> (String, Vec<u8>, Arc<AtomicUsize>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("the usual versions").with_no_client_auth();
        let mut config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a server");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        Shutdown::default().spawn(async move {
            let tasks = Shutdown::default();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                tasks.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(move |request: Request<Incoming>| async move {
                        let authorized =
                            request.headers().get("authorization").is_some_and(|one| one == "Bearer x");
                        let length = if authorized { bytes } else { 0 };
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(vec![
                            7;
                            length
                        ]))))
                    });
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        (base, made.cert.pem().into_bytes(), connections)
    }

    #[tokio::test]
    async fn a_server_that_speaks_http2_is_asked_in_it_over_one_connection() {
        let (base, authority, connections) = http2_server(3 << 20).await;
        let settings = OutboundSettings { extra_authorities: Some(authority), ..OutboundSettings::default() };
        let outbound = Outbound::new(&settings).expect("a client");
        let ask = async |number: usize| {
            let mut call = call(&format!("{base}/Binary/{number}"));
            call.headers.insert("authorization", HeaderValue::from_static("Bearer x"));
            let answer = outbound.stream(call, Reach::Loopback).await.expect("an answer");
            assert_eq!(answer.version(), hyper::Version::HTTP_2);
            answer.into_body().collect().await.expect("a whole body").to_bytes().len()
        };
        assert_eq!(ask(0).await, 3 << 20);
        let many = futures_util::future::join_all((1..20).map(ask)).await;
        assert_eq!(many, [3 << 20; 19]);
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_stream_goes_where_any_other_call_goes_and_nowhere_else() {
        let outbound = Outbound::new(&OutboundSettings::default()).expect("a client");
        for (uri, reach) in [
            ("https://10.0.0.1/", Reach::Public),
            ("https://127.0.0.1/", Reach::Public),
            ("https://[::1]/", Reach::Public),
            ("https://169.254.169.254/latest", Reach::Public),
            ("https://[::ffff:192.168.1.1]/", Reach::Public),
            ("https://localhost/", Reach::Public),
            ("https://10.0.0.1/", Reach::Loopback),
        ] {
            let error = outbound.stream(call(uri), reach).await.expect_err("refused");
            assert!(matches!(error, OutboundError::AddressRefused(_)), "{uri}: {error}");
        }
        for uri in [
            "http://example.com/",
            "ftp://localhost/",
            "/Patient",
            "http://localhost.example/",
            "https://me@localhost/",
            "https://me:pw@example.com/",
        ] {
            let error = outbound.stream(call(uri), Reach::Loopback).await.expect_err("refused");
            assert!(matches!(error, OutboundError::BadUrl(_)), "{uri}: {error}");
        }
    }
}
