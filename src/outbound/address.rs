//! Which network addresses may be called. The outside names our destinations (directory lists, discovery documents,
//! webhook URLs), so an address inside the clinic's own network must never be reached by accident or by trick.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub use crate::config::Network;

/// How far a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses, and private networks that the operator listed.
    Public,
    /// The same and loopback: for the sandbox environment.
    Loopback,
}

/// Decides about addresses after resolution.
#[derive(Debug, Clone)]
pub struct AddressGuard {
    allowed: Arc<[Network]>,
}

impl AddressGuard {
    /// A guard that lets these private networks through.
    pub fn new(allowed: Vec<Network>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether the address may be called.
    pub fn allows(&self, address: IpAddr, reach: Reach) -> bool {
        let address = plain(address);
        if address.is_loopback() {
            return reach == Reach::Loopback || self.listed(address);
        }
        is_public(address) || self.listed(address)
    }

    fn listed(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(address))
    }
}

/// An IPv4 address in IPv6 clothes is judged as what it is.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(wide) = address else { return address };
    if let Some(narrow) = wide.to_ipv4_mapped() {
        return narrow.into();
    }
    let parts = wide.segments();
    let tail = Ipv4Addr::from((u32::from(parts[6]) << 16) | u32::from(parts[7]));
    match parts {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) carry the IPv4 address that is really reached.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => tail.into(),
        [0x2002, high, low, ..] => Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into(),
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The special-purpose registry of RFC 6890, IPv4.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)))
}

/// Only global unicast (`2000::/3`), less the special parts of it.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let global = parts[0] & 0xe000 == 0x2000;
    let documentation = parts[0] == 0x2001 && parts[1] == 0xdb8;
    let teredo_and_special = parts[0] == 0x2001 && parts[1] < 0x200;
    global && !documentation && !teredo_and_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass_unless_listed() {
        let network = "10.1.0.0/16".parse().expect("a network");
        let guard = AddressGuard::new(vec![network]);
        let check = |address: &str, reach, expected| {
            let parsed = address.parse().expect("an address");
            assert_eq!(guard.allows(parsed, reach), expected, "{address} {reach:?}");
        };
        for address in ["8.8.8.8", "2606:4700::1111", "10.1.2.3", "::ffff:10.1.2.3"] {
            check(address, Reach::Public, true);
        }
        for address in [
            "10.2.0.1",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            check(address, Reach::Public, false);
        }
        check("127.0.0.1", Reach::Loopback, true);
        check("::1", Reach::Loopback, true);
        check("192.168.0.1", Reach::Loopback, false);
    }
}
