//! Sockets: listeners, TLS, HTTP/1.1 and HTTP/2, and a bound for everything a client can do with them.
//! Knows no URL and no status but the one for a head that is too large.
//!
//! A connection's way: accept, place of its address, slot, own task, TLS handshake within its limit, HTTP version
//! from ALPN, then hyper under the watch of a [`pulse`]. A listener without TLS speaks HTTP/1.1 only.

mod accept;
mod answer;
mod bind;
mod connection;
mod pulse;
mod request_body;
mod self_signed;
mod socket;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};

use crate::body::Body;
use crate::shutdown::Shutdown;

use accept::Addresses;
use connection::{Floor, Stage};

pub use bind::{BindError, bind};
pub use request_body::{ReadError, RequestBody};
pub use self_signed::{SelfSigned, self_signed};
pub use tls::{TlsError, TlsHandle, certificate_ends_at, tls_config};

/// How long dropped connections may take to let go of what they hold, after the drain is over.
const LET_GO: Duration = Duration::from_secs(1);

/// What one client, and all clients together, may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the end of the TLS handshake.
    pub tls_handshake: Duration,
    /// For the whole head of a request, from its first byte; for the first one from the connection's start.
    pub request_head: Duration,
    /// For one pause in a request's body.
    pub request_body_idle: Duration,
    /// For a request's whole body.
    pub request_body_total: Duration,
    /// For a connection that rests after an answer.
    pub idle: Duration,
    /// For a client that does not take any byte of what it asked for. In HTTP/2 one stuck stream ends the connection.
    pub write_stall: Duration,
    /// Open connections in all; more wait until one ends.
    pub connections: usize,
    /// Open connections of one IPv4 address or one IPv6 /64; more are closed without a byte.
    pub connections_per_address: usize,
    /// The head of one request, in bytes.
    pub head_bytes: usize,
    /// The header fields of one request.
    pub head_fields: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub h2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tls_handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            request_body_idle: Duration::from_secs(20),
            request_body_total: Duration::from_mins(1),
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

/// What lies between TCP and HTTP.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Nothing: loopback, or behind a proxy that has done the TLS.
    Plain,
    /// TLS with the settings of the handle, which may be replaced while serving.
    Tls(TlsHandle),
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Where it connects from; behind a reverse proxy that is the proxy.
    pub address: SocketAddr,
    /// Whether TLS lies between it and us.
    pub encrypted: bool,
}

/// Serves `handler` on all `listeners` until `shutdown` is triggered, then stops: no connection is accepted any
/// more, resting ones are closed, and requests in flight have `drain` to end before they are dropped.
///
/// A panic of the handler ends its connection in HTTP/1.1 and its stream in HTTP/2, nothing else. A handler has no
/// time limit here while it works; it is dropped when its client goes away.
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
    let all_slots = u32::try_from(limits.connections).unwrap_or(u32::MAX).clamp(1, 1_000_000);
    let slots = Arc::new(Semaphore::new(all_slots as usize));
    let addresses = Addresses::new(limits.connections_per_address);
    let floor = Arc::new(Floor { transport, limits, shutdown: shutdown.clone() });
    let (stage, seen) = watch::channel(Stage::Serving);

    join_all(
        listeners.into_iter().map(|listener| listen(listener, &floor, &slots, &addresses, &seen, &handler)),
    )
    .await;

    stage.send_replace(Stage::Draining);
    // A connection holds its slot to its end, so having all slots means that none is left.
    if tokio::time::timeout(drain, slots.acquire_many(all_slots)).await.is_err() {
        let left = all_slots as usize - slots.available_permits();
        tracing::warn!(connections = left, "the time for open requests is over; dropping them");
        stage.send_replace(Stage::Over);
        let _ = tokio::time::timeout(LET_GO, slots.acquire_many(all_slots)).await;
    }
}

/// Accepts on one listener until the shutdown, then closes it.
async fn listen<H, F>(
    listener: TcpListener,
    floor: &Arc<Floor>,
    slots: &Arc<Semaphore>,
    addresses: &Addresses,
    stage: &watch::Receiver<Stage>,
    handler: &H,
) where
    H: Fn(Peer, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let encrypted = matches!(floor.transport, Transport::Tls(_));
    let accepting = async {
        loop {
            let (stream, peer) = accept::next(&listener, encrypted).await;
            let Some(place) = addresses.enter(peer.address.ip()) else {
                tracing::debug!("one address has too many connections; its newest is closed");
                continue;
            };
            // The one we hold waits here, the others in the kernel's queue.
            let Some(slot) = slot(slots).await else { return };
            let task = connection::run(stream, peer, Arc::clone(floor), stage.clone(), handler.clone());
            floor.shutdown.spawn(async move {
                let _held = (place, slot);
                task.await;
            });
        }
    };
    tokio::select! {
        biased;
        () = floor.shutdown.triggered() => {}
        () = accepting => {}
    }
}

async fn slot(slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    match Arc::clone(slots).try_acquire_owned() {
        Ok(slot) => Some(slot),
        Err(TryAcquireError::NoPermits) => {
            tracing::warn!("all connections are taken; new ones wait");
            Arc::clone(slots).acquire_owned().await.ok()
        }
        Err(TryAcquireError::Closed) => None,
    }
}
