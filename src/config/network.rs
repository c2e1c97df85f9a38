//! Networks in CIDR notation (RFC 4632, RFC 4291 2.3).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of IP addresses: `10.1.2.0/24`, `fd00::/8`; an address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// Not an address, or not an address and a prefix length.
    #[error("not a network")]
    Unreadable,
    /// `10.1.2.3/24`: either the address or the length is a mistake, and a wrong guess would open too much.
    #[error("a network whose address has bits set beyond its prefix")]
    HostBits,
}

impl Network {
    /// Whether an address lies in this network. An IPv4 address inside IPv6 (`::ffff:10.0.0.1`) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same(own.to_bits().into(), other.to_bits().into(), 32 - u32::from(self.prefix))
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                same(own.to_bits(), other.to_bits(), 128 - u32::from(self.prefix))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether every address of its family lies in it.
    pub fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

/// Compares two addresses without their lowest bits.
fn same(one: u128, other: u128, ignored: u32) -> bool {
    one.checked_shr(ignored).unwrap_or(0) == other.checked_shr(ignored).unwrap_or(0)
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork::Unreadable)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // `parse` alone would also take `+8`.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= width).ok_or(BadNetwork::Unreadable)?
            }
            Some(_) => return Err(BadNetwork::Unreadable),
            None => width,
        };
        let host_bits = u32::from(width - prefix);
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        if host_bits > 0 && bits.trailing_zeros() < host_bits {
            return Err(BadNetwork::HostBits);
        }
        // `contains` looks at IPv4 inside IPv6 as IPv4, so the network must be kept in the same form.
        Ok(match address.to_canonical() {
            IpAddr::V4(inner) if address.is_ipv6() && prefix >= 96 => {
                Self { address: inner.into(), prefix: prefix - 96 }
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Self { address, prefix },
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;

    fn try_from(text: String) -> Result<Self, BadNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(network: &str, inside: &[&str], outside: &[&str]) {
        let network: Network = network.parse().expect(network);
        for address in inside {
            assert!(network.contains(address.parse().expect(address)), "{address} is in {network}");
        }
        for address in outside {
            assert!(!network.contains(address.parse().expect(address)), "{address} is not in {network}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses_only() {
        check("10.1.2.0/24", &["10.1.2.0", "10.1.2.255", "::ffff:10.1.2.7"], &["10.1.3.0", "::1"]);
        check("127.0.0.1", &["127.0.0.1"], &["127.0.0.2"]);
        check("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::"]);
        check("fd00::/8", &["fd12::1"], &["fe80::1", "10.0.0.1"]);
        check("::/0", &["::1", "ffff::"], &["10.0.0.1"]);
        check("::ffff:10.0.0.0/104", &["10.200.0.1"], &["11.0.0.1"]);
        check("::1", &["::1"], &["::2"]);
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in
            ["", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "a/8", "10.0.0.0/8/8", "host"]
        {
            assert_eq!(text.parse::<Network>(), Err(BadNetwork::Unreadable), "{text}");
        }
        assert_eq!("10.1.2.3/24".parse::<Network>(), Err(BadNetwork::HostBits));
        assert_eq!("10.0.0.0/0".parse::<Network>(), Err(BadNetwork::HostBits));
    }

    #[test]
    fn the_store_keeps_a_network_as_text() {
        let network: Network = "10.0.0.0/8".parse().expect("a network");
        let stored = serde_json::to_string(&network).expect("text");
        assert_eq!(stored, "\"10.0.0.0/8\"");
        assert_eq!(serde_json::from_str::<Network>(&stored).expect("a network"), network);
    }
}
