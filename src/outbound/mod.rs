//! Calls to the outside: the only user of reqwest, and of hyper's client for what is passed on as it arrives. Every call
//! has a limit of time and of size, follows no redirect, and goes only to addresses that the guard allows, checked on
//! what the name resolved to.

mod address;
mod connector;
mod names;
mod resolver;
mod stream;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::{Host, Url};

use crate::clock::Timestamp;

pub use address::{AddressGuard, Network, Reach};
pub use stream::{MOST_OF_A_HEAD, StreamCall};

use resolver::{GuardedResolver, NotFound, PrivateOnly};
use stream::StreamClient;

use names::Names;

/// Why a call brought no answer. What the other side *answered*, whatever its status, is a [`Reply`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum OutboundError {
    /// The address is not one we may call.
    #[error("the address of `{0}` is private or local, and not on the list of allowed networks")]
    AddressRefused(String),
    /// The URL is not one for HTTP over TLS (or, towards loopback in a sandbox, HTTP).
    #[error("not a URL that may be called: {0}")]
    BadUrl(&'static str),
    /// The name does not resolve.
    #[error("the name `{0}` does not resolve")]
    UnknownHost(String),
    /// Nothing listens there, or the network is down.
    #[error("`{0}` could not be reached")]
    Unreachable(String),
    /// The certificate is not acceptable.
    #[error("`{0}` has no acceptable TLS certificate")]
    Untrusted(String),
    /// No complete answer within the limit. The request may have been carried out.
    #[error("`{0}` did not answer in time")]
    TimedOut(String),
    /// The answer is larger than its limit.
    #[error("`{0}` answered with more than {1} bytes")]
    TooLarge(String, usize),
    /// The answer broke off or was no HTTP. The request may have been carried out.
    #[error("the answer of `{0}` broke off")]
    Broken(String),
}

impl OutboundError {
    /// Whether the request may have been carried out although no answer came: decides about retries.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::TooLarge(..) | Self::Broken(_))
    }
}

/// A request to make.
#[derive(Debug)]
pub struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
    limit: usize,
    beyond: Beyond,
    timeout: Option<Duration>,
}

/// What an answer longer than its limit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// It is of no use.
    Refused,
    /// Its beginning is enough, and so is its status when the rest does not come.
    LeftOut,
}

impl Call {
    /// A GET. The URL goes out byte for byte as its text is, so that opaque `next` links stay as they came.
    pub fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: None,
            limit: 1 << 20,
            beyond: Beyond::Refused,
            timeout: None,
        }
    }

    /// A POST of JSON text, byte for byte.
    pub fn json(url: Url, text: impl Into<Bytes>) -> Self {
        let mut call = Self { method: Method::POST, body: Some(text.into()), ..Self::get(url) };
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        call
    }

    /// A POST of a form (RFC 6749 appendix B).
    pub fn form(url: Url, fields: &[(&str, &str)]) -> Self {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let mut call = Self { method: Method::POST, body: Some(form.finish().into()), ..Self::get(url) };
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        call
    }

    /// Which media type is wanted.
    #[must_use]
    pub fn accept(mut self, media: &'static str) -> Self {
        self.headers.insert(ACCEPT, HeaderValue::from_static(media));
        self
    }

    /// `Authorization: {scheme} {credentials}`, kept out of debug output.
    #[must_use]
    pub fn authorization(mut self, scheme: &str, credentials: &str) -> Self {
        // A token that is no legal header value cannot be sent; the server will say 401, which is handled.
        if let Ok(mut value) = HeaderValue::from_str(&format!("{scheme} {credentials}")) {
            value.set_sensitive(true);
            self.headers.insert(AUTHORIZATION, value);
        }
        self
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The most bytes of answer to take; the default is 1 MiB.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Takes the first bytes of the answer and leaves the rest, for who wants to know little more than the status.
    #[must_use]
    pub fn first(mut self, bytes: usize) -> Self {
        self.beyond = Beyond::LeftOut;
        self.at_most(bytes)
    }

    /// The longest time until the whole answer is there; the default comes from the configuration.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body, within the call's limit.
    pub body: Bytes,
}

impl Reply {
    /// A header's text, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long `Retry-After` asks to wait: seconds, or a date (RFC 9110 section 10.2.3). A date is compared with the
    /// server's own `Date`, if it sent one, so that a clock that is wrong there or here does not matter.
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let asked = self.header("retry-after")?.trim();
        if let Ok(seconds) = asked.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let theirs = self.header("date").and_then(Timestamp::parse_http_date).unwrap_or(now);
        Timestamp::parse_http_date(asked).map(|until| until.since(theirs))
    }
}

/// An answer whose body comes piece by piece, for what is too large to be held.
pub struct Incoming {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; a piece that fails is the last. How much of it is taken is the reader's business.
    pub pieces: Pin<Box<dyn Stream<Item = Result<Bytes, OutboundError>> + Send>>,
}

/// Settings of all calls.
#[derive(Debug, Clone)]
pub struct OutboundSettings {
    /// The longest time for one call, answer included.
    pub timeout: Duration,
    /// The longest time to a connection.
    pub connect_timeout: Duration,
    /// Private networks that may be called.
    pub allowed_networks: Vec<Network>,
    /// More certificate authorities, in PEM.
    pub extra_authorities: Option<Vec<u8>>,
}

impl Default for OutboundSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            allowed_networks: Vec::new(),
            extra_authorities: None,
        }
    }
}

/// A caller that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OutboundSetupError {
    /// The extra CA bundle holds no certificate.
    #[error("the extra CA bundle holds no readable certificate in PEM form")]
    Authorities,
    /// The HTTP client could not be built.
    #[error("the HTTP client could not be set up: {0}")]
    Client(String),
}

/// Makes calls. Clones share connections.
#[derive(Debug, Clone)]
pub struct Outbound {
    live: reqwest::Client,
    sandbox: reqwest::Client,
    live_streams: StreamClient,
    sandbox_streams: StreamClient,
    guard: AddressGuard,
    names: Names,
    timeout: Duration,
}

impl Outbound {
    /// Builds the clients: one that never reaches loopback, one for the sandbox environment that may.
    pub fn new(settings: &OutboundSettings) -> Result<Self, OutboundSetupError> {
        let guard = AddressGuard::new(settings.allowed_networks.clone());
        let tls = tls_config(settings.extra_authorities.as_deref())?;
        let names = Names::default();
        let resolver = |reach| GuardedResolver { guard: guard.clone(), names: names.clone(), reach };
        let client = |reach| build_client(&tls, resolver(reach), settings);
        let streams = |reach| stream::build(&tls, resolver(reach), settings.connect_timeout);
        Ok(Self {
            live: client(Reach::Public)?,
            sandbox: client(Reach::Loopback)?,
            live_streams: streams(Reach::Public),
            sandbox_streams: streams(Reach::Loopback),
            timeout: settings.timeout,
            guard,
            names,
        })
    }

    /// The name by which this address was called last; `None` for one that was not called by name.
    pub fn name_at(&self, address: IpAddr) -> Option<String> {
        self.names.at(address)
    }

    /// Makes the call. `reach` says whether loopback is allowed, which only the sandbox environment may say.
    pub async fn send(&self, call: Call, reach: Reach) -> Result<Reply, OutboundError> {
        let (limit, beyond) = (call.limit, call.beyond);
        let (reply, host) = self.begin(call, reach).await?;
        let (status, headers) = (reply.status(), reply.headers().clone());
        let too_large = || OutboundError::TooLarge(host.clone(), limit);
        let cut = beyond == Beyond::LeftOut;
        if !cut && reply.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        let mut chunks = reply.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Err(_) if cut => break,
                chunk => chunk.map_err(|error| classify(&error, &host))?,
            };
            let room = limit - body.len();
            if chunk.len() > room {
                if !cut {
                    return Err(too_large());
                }
                body.extend_from_slice(&chunk[..room]);
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, headers, body: body.freeze() })
    }

    /// Makes the call and returns when the answer begins.
    pub async fn open(&self, call: Call, reach: Reach) -> Result<Incoming, OutboundError> {
        let (reply, host) = self.begin(call, reach).await?;
        let (status, headers) = (reply.status(), reply.headers().clone());
        let pieces = reply.bytes_stream().map(move |piece| piece.map_err(|error| classify(&error, &host)));
        Ok(Incoming { status, headers, pieces: Box::pin(pieces) })
    }

    async fn begin(&self, call: Call, reach: Reach) -> Result<(reqwest::Response, String), OutboundError> {
        let host = self.check(&call.url, reach)?;
        let client = if reach == Reach::Loopback { &self.sandbox } else { &self.live };
        let mut request = client
            .request(call.method, call.url)
            .headers(call.headers)
            .timeout(call.timeout.unwrap_or(self.timeout));
        if let Some(body) = call.body {
            request = request.body(body);
        }
        let reply = request.send().await.map_err(|error| classify(&error, &host))?;
        Ok((reply, host))
    }

    /// Whether a URL may be called at all, as far as that can be told without asking the network.
    pub fn may_call(&self, url: &Url, reach: Reach) -> Result<(), OutboundError> {
        self.check(url, reach).map(drop)
    }

    /// The checks that need no network; the name of the host for error texts.
    fn check(&self, url: &Url, reach: Reach) -> Result<String, OutboundError> {
        let host = url.host().ok_or(OutboundError::BadUrl("it names no host"))?;
        let literal = match host {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        };
        // The resolver below is not asked about literal addresses, so they are checked here.
        if literal.is_some_and(|address| !self.guard.allows(address, reach)) {
            return Err(OutboundError::AddressRefused(host.to_string()));
        }
        let plain_allowed = reach == Reach::Loopback && is_loopback_host(&host);
        if url.scheme() != "https" && !(url.scheme() == "http" && plain_allowed) {
            return Err(OutboundError::BadUrl("it is not https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutboundError::BadUrl("it carries a user name"));
        }
        Ok(host.to_string())
    }
}

/// Whether a host can only mean this machine.
pub fn is_loopback_host(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

fn tls_config(extra_authorities: Option<&[u8]>) -> Result<rustls::ClientConfig, OutboundSetupError> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = extra_authorities {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| OutboundSetupError::Authorities)?;
            roots.add(certificate).map_err(|_| OutboundSetupError::Authorities)?;
        }
        if roots.len() == before {
            return Err(OutboundSetupError::Authorities);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OutboundSetupError::Client(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[expect(clippy::disallowed_methods, reason = "the one place where the client is built, with its limits")]
fn build_client(
    tls: &rustls::ClientConfig,
    resolver: GuardedResolver,
    settings: &OutboundSettings,
) -> Result<reqwest::Client, OutboundSetupError> {
    let mut headers = HeaderMap::new();
    // Some vendors' firewalls refuse clients without a plain product name.
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("chartgate/", env!("CARGO_PKG_VERSION"))));
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .dns_resolver(Arc::new(resolver))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .default_headers(headers)
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(50))
        .http2_max_header_list_size(64 * 1024)
        .build()
        .map_err(|error| OutboundSetupError::Client(error.to_string()))
}

/// What went wrong, without reqwest's own text, which repeats the URL with its query.
fn classify(error: &reqwest::Error, host: &str) -> OutboundError {
    let host = host.to_owned();
    if error.is_timeout() {
        return OutboundError::TimedOut(host);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut untrusted = false;
    while let Some(inner) = cause {
        if inner.is::<PrivateOnly>() {
            return OutboundError::AddressRefused(host);
        }
        if inner.is::<NotFound>() {
            return OutboundError::UnknownHost(host);
        }
        untrusted |= is_certificate_error(inner);
        cause = inner.source();
    }
    match (untrusted, error.is_connect()) {
        (true, _) => OutboundError::Untrusted(host),
        (false, true) => OutboundError::Unreachable(host),
        (false, false) => OutboundError::Broken(host),
    }
}

fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = wrapped
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .or_else(|| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound() -> Outbound {
        Outbound::new(&OutboundSettings::default()).expect("a client")
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_servers_own_clock() {
        let now = Timestamp::parse("2026-11-02T08:00:00Z").expect("a time");
        let asked = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            Reply { status: StatusCode::OK, headers: headers.collect(), body: Bytes::new() }.retry_after(now)
        };
        let date = ("retry-after", "Mon, 02 Nov 2026 08:02:00 GMT");
        assert_eq!(asked(&[("retry-after", " 120 ")]), Some(Duration::from_mins(2)));
        assert_eq!(asked(&[date]), Some(Duration::from_mins(2)));
        assert_eq!(asked(&[date, ("date", "Mon, 02 Nov 2026 08:01:50 GMT")]), Some(Duration::from_secs(10)));
        assert_eq!(asked(&[date, ("date", "Mon, 02 Nov 2026 09:00:00 GMT")]), Some(Duration::ZERO));
        assert_eq!(asked(&[("retry-after", "soon")]), None);
        assert_eq!(asked(&[]), None);
    }

    #[tokio::test]
    async fn private_addresses_and_plain_http_are_refused_before_any_connection() {
        let outbound = outbound();
        for url in [
            "https://10.0.0.1/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://169.254.169.254/latest",
            "https://[::ffff:192.168.1.1]/",
            "https://localhost/",
        ] {
            let call = Call::get(Url::parse(url).expect("a url"));
            let error = outbound.send(call, Reach::Public).await.expect_err("refused");
            assert!(matches!(error, OutboundError::AddressRefused(_)), "{url}: {error}");
        }
        for url in ["http://example.com/", "http://10.0.0.1/", "ftp://localhost/"] {
            let call = Call::get(Url::parse(url).expect("a url"));
            let error = outbound.send(call, Reach::Loopback).await.expect_err("refused");
            assert!(
                matches!(error, OutboundError::BadUrl(_) | OutboundError::AddressRefused(_)),
                "{url}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn an_error_never_repeats_the_url() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let url = Url::parse(&format!("http://127.0.0.1:{port}/cb?code=MARKER")).expect("a url");
        let error = outbound().send(Call::get(url), Reach::Loopback).await.expect_err("nobody listens");
        assert!(matches!(error, OutboundError::Unreachable(_)), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("MARKER"));
    }
}
