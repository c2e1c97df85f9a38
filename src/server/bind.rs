//! Taking a port, and saying in plain words why it could not be taken.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait in the kernel for us to accept them; the kernel caps it (`net.core.somaxconn`).
const BACKLOG: u32 = 1024;

/// Why a port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program, or another listener of ours, has it. `[::]` takes the port for IPv4 as well.
    #[error("port {} of `{}` is already in use by another program", .0.port(), .0.ip())]
    PortTaken(SocketAddr),
    /// Ports below 1024 need a privilege.
    #[error(
        "this user may not listen on `{0}`; ports below 1024 need the capability `CAP_NET_BIND_SERVICE` \
         (`AmbientCapabilities=` in a systemd unit)"
    )]
    NotPermitted(SocketAddr),
    /// The address is not one of this machine's.
    #[error("this machine has no address `{}`", .0.ip())]
    NotOurs(SocketAddr),
    /// Anything else the kernel says.
    #[error("cannot listen on `{address}`")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Listens on `address`; port 0 takes any free port. Must be called inside the tokio runtime.
///
/// The port can be taken again at once after a restart (`SO_REUSEADDR`), but not while another program listens.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|error| explain(address, error))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's errors are many and an admin acts on these three"
)]
fn explain(address: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::PortTaken(address),
        io::ErrorKind::PermissionDenied => BindError::NotPermitted(address),
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
        _ => BindError::Other { address, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind(address("127.0.0.1:0")).expect("a free port");
        let taken = first.local_addr().expect("an address");
        let refused = bind(taken).expect_err("the port is taken");
        assert!(matches!(refused, BindError::PortTaken(_)), "{refused:?}");
        assert!(refused.to_string().contains(&taken.port().to_string()), "{refused}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named() {
        // RFC 5737: no machine has an address of this block.
        let refused = bind(address("192.0.2.1:0")).expect_err("not our address");
        assert_eq!(refused.to_string(), "this machine has no address `192.0.2.1`");
    }

    #[test]
    fn a_missing_privilege_says_which() {
        let refused = explain(address("0.0.0.0:443"), io::ErrorKind::PermissionDenied.into());
        assert!(refused.to_string().contains("CAP_NET_BIND_SERVICE"));
    }
}
