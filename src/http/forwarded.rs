//! The client behind a trusted proxy (`TRUSTED_PROXIES`, `X-Forwarded-For`).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tungstenite::handshake::server::Request;

use super::request;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies whose `X-Forwarded-For` is trusted.
pub struct TrustedProxies(Vec<IpNet>);

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClientAddress {
    /// The peer is the client.
    Peer(IpAddr),
    /// The client that a trusted proxy forwards the request for.
    Forwarded(IpAddr),
    /// The address of a trusted proxy whose `X-Forwarded-For` names no client.
    Unknown(IpAddr),
}

impl ClientAddress {
    /// The client's address, or the proxy's where the client's is unknown.
    pub fn ip(self) -> IpAddr {
        match self {
            Self::Peer(address) | Self::Forwarded(address) | Self::Unknown(address) => address,
        }
    }
}

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `address` is a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client that a request comes from. `peer` is the canonical address of the other end of the connection.
    pub fn client(&self, peer: IpAddr, request: &Request) -> ClientAddress {
        if !self.contains(peer) || !request.headers().contains_key(FORWARDED_FOR) {
            return ClientAddress::Peer(peer);
        }
        match self.forwarded_for(peer, request::items(request, FORWARDED_FOR)) {
            address if address == peer => ClientAddress::Unknown(peer),
            address => ClientAddress::Forwarded(address),
        }
    }

    /// Reads the list from the right, because only entries that trusted proxies have appended can be trusted. Stops at
    /// an entry that is not an address.
    fn forwarded_for<'a>(&self, peer: IpAddr, items: impl DoubleEndedIterator<Item = &'a [u8]>) -> IpAddr {
        let mut client = peer;
        let mut items = items.rev();
        while self.contains(client) {
            match items.next().and_then(parse) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// An address as proxies write it: alone, with a port, or in brackets.
fn parse(item: &[u8]) -> Option<IpAddr> {
    let item = std::str::from_utf8(item).ok()?;
    let bare = item.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(item);
    let address = bare.parse().or_else(|_| item.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use ClientAddress::{Forwarded, Peer, Unknown};
    use tungstenite::http::HeaderValue;

    use super::*;

    fn request(lines: &[&[u8]]) -> Request {
        let mut request = Request::new(());
        for line in lines {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                request.headers_mut().append(FORWARDED_FOR, value);
            }
        }
        request
    }

    #[test]
    fn x_forwarded_for_is_read_from_trusted_proxies_only() {
        let proxies =
            TrustedProxies(["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec());
        for (peer, lines, kind, expected) in [
            ("9.9.9.9", vec!["1.1.1.1"], Peer as fn(IpAddr) -> ClientAddress, "9.9.9.9"),
            ("10.0.0.1", vec![], Peer, "10.0.0.1"),
            ("10.0.0.1", vec!["1.1.1.1"], Forwarded, "1.1.1.1"),
            ("10.0.0.1", vec!["6.6.6.6, 1.1.1.1, 10.0.0.2"], Forwarded, "1.1.1.1"),
            ("10.0.0.1", vec!["6.6.6.6", "1.1.1.1 , 10.0.0.2"], Forwarded, "1.1.1.1"),
            ("10.0.0.1", vec!["10.0.0.3"], Forwarded, "10.0.0.3"),
            ("10.0.0.1", vec!["1.1.1.1, nonsense"], Unknown, "10.0.0.1"),
            ("10.0.0.1", vec![""], Unknown, "10.0.0.1"),
            ("10.0.0.1", vec!["1.1.1.1:4711"], Forwarded, "1.1.1.1"),
            ("10.0.0.1", vec!["[2001:dead::1]:443"], Forwarded, "2001:dead::1"),
            ("10.0.0.1", vec!["::ffff:1.1.1.1"], Forwarded, "1.1.1.1"),
            ("2001:db8::1", vec!["2001:dead::1"], Forwarded, "2001:dead::1"),
            // Bytes that are not text must not hide what the proxy has appended.
            ("10.0.0.1", vec!["é, 1.1.1.1"], Forwarded, "1.1.1.1"),
        ] {
            let bytes: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            let client = proxies.client(peer.parse().unwrap(), &request(&bytes));
            assert_eq!(client, kind(expected.parse().unwrap()), "{peer} {lines:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_causes_a_panic(header: Vec<u8>) {
            let proxies = TrustedProxies(vec!["0.0.0.0/0".parse().unwrap()]);
            proxies.client("10.0.0.1".parse().unwrap(), &request(&[&header]));
        }
    }
}
