//! Sockets: listening, TLS, limits on everything a client may take its time or space with, and an orderly stop.
//! Learns no URL.
//!
//! The HTTP version comes from ALPN; a plain connection speaks HTTP/1.1. (A builder that guesses the version from the
//! first bytes would wait for them without a limit.)

mod body;
mod connection;
mod stall;
mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::body::Body;
use crate::shutdown::Shutdown;

pub use body::{ReadError, RequestBody};
pub use tls::{SelfSigned, TlsError, Transport, self_signed, tls_config};

/// How long the accept loop rests after the operating system refused a connection (out of file descriptors, say).
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Connections waiting for `accept`.
const BACKLOG: u32 = 1024;

/// What one client may take of time and space.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For the TLS handshake.
    pub tls_handshake: Duration,
    /// From the connection to the end of the first request's head.
    pub request_head: Duration,
    /// Without a byte of a body that is being read.
    pub request_body_idle: Duration,
    /// For a whole body.
    pub request_body_total: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without the client taking a byte of an answer.
    pub write_stall: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (of IPv6, from one /64).
    pub connections_per_address: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Fields of a request's head.
    pub head_fields: usize,
    /// Streams at once on one HTTP/2 connection.
    pub h2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tls_handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            request_body_idle: Duration::from_secs(20),
            request_body_total: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            write_stall: Duration::from_secs(30),
            connections: 10_000,
            connections_per_address: 500,
            head_bytes: 32 * 1024,
            head_fields: 100,
            h2_streams: 64,
        }
    }
}

/// Who is on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Their address.
    pub address: SocketAddr,
    /// Whether the connection is TLS.
    pub encrypted: bool,
}

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error("port {} is taken by another process; stop that one, or choose another port", .0.port())]
    Taken(SocketAddr),
    /// Ports below 1024 need a privilege.
    #[error("port {} may not be used by this user; choose one above 1023, or give the service CAP_NET_BIND_SERVICE", .0.port())]
    Forbidden(SocketAddr),
    /// The machine does not have the address.
    #[error("this machine has no address {}; check the listener's `address`", .0.ip())]
    NotOurs(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, std::io::Error),
}

/// Listens on an address. Call it inside the runtime.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the old connections' time-outs.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => BindError::Taken(address),
        std::io::ErrorKind::PermissionDenied => BindError::Forbidden(address),
        std::io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
        _ => BindError::Other(address, error),
    })
}

/// Serves until the signal to stop: then accepts no more, lets running requests finish for at most `drain`, and cuts
/// what is left.
pub async fn serve<H, F>(
    listeners: Vec<TcpListener>,
    transport: Transport,
    limits: Limits,
    handler: H,
    shutdown: &Shutdown,
    drain: Duration,
) where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (cut, cutting) = watch::channel(false);
    let shared =
        Arc::new(Shared { places: Places::new(&limits), limits, transport, shutdown: shutdown.clone() });
    let accepting = listeners
        .into_iter()
        .map(|listener| accept(listener, Arc::clone(&shared), handler.clone(), cutting.clone()));
    futures_util::future::join_all(accepting).await;
    if tokio::time::timeout(drain, shared.places.all_free()).await.is_err() {
        tracing::warn!("some requests did not finish in time and were cut off");
    }
    cut.send_replace(true);
    // Cut connections end at once; their places say when.
    let _ = tokio::time::timeout(Duration::from_secs(1), shared.places.all_free()).await;
}

struct Shared {
    limits: Limits,
    transport: Transport,
    shutdown: Shutdown,
    places: Places,
}

async fn accept<H, F>(listener: TcpListener, shared: Arc<Shared>, handler: H, cutting: watch::Receiver<bool>)
where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.triggered() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Over the limit the newest is closed without a byte: a place for it would be one for an attacker.
                let Some(place) = shared.places.take(address.ip()) else { continue };
                let (task, handler) = (Arc::clone(&shared), handler.clone());
                let mut cutting = cutting.clone();
                shared.shutdown.spawn(async move {
                    tokio::select! {
                        () = attend(stream, address, &task, handler) => {}
                        _ = cutting.wait_for(|cut| *cut) => {}
                    }
                    drop(place);
                });
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// A client that has gone before it was accepted is no trouble; being out of file descriptors is.
fn concerns_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted)
}

async fn attend<H, F>(stream: TcpStream, address: SocketAddr, shared: &Shared, handler: H)
where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Answers are written whole; waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let limits = &shared.limits;
    let stream = stall::WriteStall::new(stream, limits.write_stall);
    match &shared.transport {
        Transport::Plain => {
            let peer = Peer { address, encrypted: false };
            connection::serve_h1(stream, peer, limits, &shared.shutdown, handler).await;
        }
        Transport::Tls(handle) => {
            let acceptor = tokio_rustls::TlsAcceptor::from(handle.current());
            let Ok(Ok(stream)) = tokio::time::timeout(limits.tls_handshake, acceptor.accept(stream)).await
            else {
                return;
            };
            let peer = Peer { address, encrypted: true };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                connection::serve_h2(stream, peer, limits, &shared.shutdown, handler).await;
            } else {
                connection::serve_h1(stream, peer, limits, &shared.shutdown, handler).await;
            }
        }
    }
}

/// Who may be connected at once.
struct Places {
    total: Arc<Semaphore>,
    each: usize,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    taken: watch::Sender<usize>,
}

/// One connection's place, free again when dropped.
struct Place {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    taken: watch::Sender<usize>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(limits: &Limits) -> Self {
        Self {
            total: Arc::new(Semaphore::new(limits.connections)),
            each: limits.connections_per_address,
            by_address: Arc::default(),
            taken: watch::Sender::new(0),
        }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let permit = Arc::clone(&self.total).try_acquire_owned().ok()?;
        let address = network_of(address);
        {
            let mut counts = self.by_address.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= self.each {
                return None;
            }
            *count += 1;
        }
        self.taken.send_modify(|taken| *taken += 1);
        let by_address = Arc::clone(&self.by_address);
        Some(Place { address, by_address, taken: self.taken.clone(), _permit: permit })
    }

    async fn all_free(&self) {
        let mut taken = self.taken.subscribe();
        let _ = taken.wait_for(|taken| *taken == 0).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.by_address.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
        drop(counts);
        self.taken.send_modify(|taken| *taken = taken.saturating_sub(1));
    }
}

/// One household or one attacker has a whole /64 of IPv6.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(wide) => match wide.to_ipv4_mapped() {
            Some(narrow) => narrow.into(),
            None => {
                let [a, b, c, d, ..] = wide.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_run_out_for_one_address_and_for_all() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let places = Places::new(&limits);
        let (one, other): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().expect("an address"), "2001:db8::1".parse().expect("an address"));
        let first = places.take(one).expect("free");
        let _second = places.take(one).expect("free");
        assert!(places.take(one).is_none(), "one address has two");
        let _third = places.take(other).expect("free");
        assert!(places.take("10.0.0.2".parse().expect("an address")).is_none(), "three in all");
        drop(first);
        assert!(places.take(one).is_some(), "a place is free again");
        assert_eq!(network_of(other), network_of("2001:db8::ffff".parse().expect("an address")));
    }

    #[test]
    fn only_a_fault_of_the_machine_makes_accepting_rest() {
        assert!(concerns_one_connection(&std::io::ErrorKind::ConnectionAborted.into()));
        assert!(!concerns_one_connection(&std::io::Error::from_raw_os_error(24)), "EMFILE");
    }
}
