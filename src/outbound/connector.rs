//! New connections for what is streamed: name, guard, TCP, TLS, each within the time for a connection.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::resolver::{GuardedResolver, ResolveError};
use super::{OutboundError, is_certificate_error};

/// What is read from a socket at once. TLS records are 16 KiB at most; without this each costs a system call.
const READ_BUFFER: usize = 64 * 1024;

/// Makes guarded connections.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) resolver: GuardedResolver,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) timeout: Duration,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = OutboundError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, OutboundError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OutboundError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().to_owned();
            let connecting = connector.connect(&uri, &host);
            let connected = tokio::time::timeout(connector.timeout, connecting).await;
            connected.unwrap_or(Err(OutboundError::Unreachable(host))).map(TokioIo::new)
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri, host: &str) -> Result<Wire, OutboundError> {
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = self.resolver.addresses(name, port).await.map_err(|error| match error {
            ResolveError::NotFound => OutboundError::UnknownHost(host.to_owned()),
            ResolveError::PrivateOnly => OutboundError::AddressRefused(host.to_owned()),
        })?;
        let unreachable = || OutboundError::Unreachable(host.to_owned());
        let stream = self.first(addresses).await.ok_or_else(unreachable)?;
        // A request is written whole, so waiting to fill packets would only delay it.
        stream.set_nodelay(true).map_err(|_| unreachable())?;
        let stream = BufReader::with_capacity(READ_BUFFER, stream);
        if !secure {
            return Ok(Wire::Plain(stream));
        }
        let server = ServerName::try_from(name.to_owned()).map_err(|_| unreachable())?;
        let shaken = TlsConnector::from(Arc::clone(&self.tls)).connect(server, stream).await;
        shaken.map(|stream| Wire::Tls(Box::new(stream))).map_err(|error| {
            if is_certificate_error(&error) {
                OutboundError::Untrusted(host.to_owned())
            } else {
                unreachable()
            }
        })
    }

    /// The first address that answers. Each gets its share of the time, so that one that swallows packets (IPv6 on many
    /// a hospital's network) does not use up that of the others.
    async fn first(&self, addresses: Vec<SocketAddr>) -> Option<TcpStream> {
        let share = self.timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        for address in addresses {
            if let Ok(Ok(stream)) = tokio::time::timeout(share, TcpStream::connect(address)).await {
                return Some(stream);
            }
        }
        None
    }
}

/// A connection, with or without TLS.
pub(super) enum Wire {
    Plain(BufReader<TcpStream>),
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            Self::Tls(_) | Self::Plain(_) => Connected::new(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
