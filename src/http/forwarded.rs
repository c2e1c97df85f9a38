//! Whose address a request really comes from, when proxies stand in front.

use std::net::IpAddr;

use hyper::HeaderMap;

use crate::config::Network;

/// The caller's address. `X-Forwarded-For` grows to the right, so it is read from there for as long as the one that wrote
/// it is a proxy of ours; what stands further left anybody can have made up.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_ours = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut address = peer.to_canonical();
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let hops = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        if !is_ours(address) {
            break;
        }
        let Some(before) = std::str::from_utf8(hop).ok().and_then(hop_address) else { break };
        address = before.to_canonical();
    }
    address
}

/// An address, as proxies write it: alone, with a port, or in brackets.
fn hop_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = || text.strip_prefix('[')?.split_once(']').map(|(inside, _)| inside);
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip());
    text.parse().ok().or_else(with_port).or_else(|| bare()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let trusted: Vec<Network> =
            ["127.0.0.1", "10.2.0.0/16"].iter().map(|text| text.parse().expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().expect("a value"));
        }
        let found = client_address(peer.parse().expect("an address"), &headers, &trusted);
        assert_eq!(found.to_string(), expected, "{peer} {forwarded:?}");
    }

    #[test]
    fn only_what_our_own_proxies_wrote_is_believed() {
        check("127.0.0.1", &["203.0.113.7"], "203.0.113.7");
        check("127.0.0.1", &["1.1.1.1, 203.0.113.7, 10.2.3.4"], "203.0.113.7");
        check("127.0.0.1", &["1.1.1.1", "203.0.113.7"], "203.0.113.7");
        check("198.51.100.1", &["203.0.113.7"], "198.51.100.1");
        check("127.0.0.1", &["203.0.113.7, nonsense"], "127.0.0.1");
        check("127.0.0.1", &["203.0.113.7:4711"], "203.0.113.7");
        check("127.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1");
        check("127.0.0.1", &["2001:db8::1"], "2001:db8::1");
        check("::ffff:127.0.0.1", &["203.0.113.7"], "203.0.113.7");
        check("127.0.0.1", &[], "127.0.0.1");
        check("10.2.0.1", &["10.2.0.2"], "10.2.0.2");
    }
}
