//! Taking connections: one place each for a failed accept, the limit of all connections and the limit per address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::server::Peer;

/// How long to wait after an accept that failed for want of files or memory, so that others can give some back.
const BREATH: Duration = Duration::from_millis(100);

/// The next connection; failures are waited out, so this ends only when it has one.
pub(super) async fn next(listener: &TcpListener, encrypted: bool) -> (TcpStream, Peer) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (stream, Peer { address, encrypted }),
            Err(error) => {
                let pause = pause_after(&error);
                if pause > Duration::ZERO {
                    tracing::warn!(%error, "a connection could not be accepted; trying again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// How long to wait after a failed accept. Linux reports through `accept` what befell a connection while it waited
/// in the queue; the next one may be well. Everything else is the machine's trouble and would fail again at once.
fn pause_after(error: &io::Error) -> Duration {
    let of_that_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    );
    if of_that_connection { Duration::ZERO } else { BREATH }
}

/// Counts the open connections of each client.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    limit: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, open: Arc::default() }
    }

    /// A place among those of `address`, kept until dropped; none when it has all it may have.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let client = client_of(address);
        let mut open = self.lock();
        let count = open.entry(client).or_default();
        // An entry made here is never left at zero: the limit is at least one.
        if *count >= self.limit.max(1) {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Addresses,
    client: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.lock();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// Who counts as one client: an IPv4 address, or the /64 that one IPv6 customer has at least (RFC 6177).
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_files_or_memory_is_given_time_and_a_lost_connection_is_not() {
        // Linux: EMFILE 24, ENFILE 23, ENOBUFS 105, ENOMEM 12; ECONNABORTED 103, EINTR 4, EHOSTUNREACH 113.
        for number in [24, 23, 105, 12] {
            assert_eq!(pause_after(&io::Error::from_raw_os_error(number)), BREATH, "{number}");
        }
        for number in [103, 4, 113] {
            assert_eq!(pause_after(&io::Error::from_raw_os_error(number)), Duration::ZERO, "{number}");
        }
    }

    #[test]
    fn one_client_cannot_take_the_place_of_another() {
        let addresses = Addresses::new(2);
        let enter = |address: &str| addresses.enter(address.parse().expect("an address"));
        let first = enter("192.0.2.1");
        let second = enter("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some());
        drop(second);
        assert!(enter("192.0.2.1").is_some());

        let neighbours = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(neighbours.0.is_some() && neighbours.1.is_some());
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::3").is_some());

        drop((first, neighbours));
        assert!(addresses.lock().is_empty(), "nothing is kept of clients that left");
    }
}
