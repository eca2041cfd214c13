//! Who is behind a proxy (`TRUSTED_PROXIES`, `X-Forwarded-For`).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The client's address: the peer's own, unless that is a trusted proxy. Then the list of `X-Forwarded-For` is
/// read from the right, for only what trusted proxies have added to it can be believed; an entry that is no
/// address ends it.
pub fn client_address<'a>(
    peer: IpAddr,
    trusted: &[IpNet],
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let mut client = peer;
    let mut hops = forwarded_for.flat_map(|line| line.split(|&byte| byte == b',')).rev();
    while trusted.iter().any(|net| net.contains(&client)) {
        match hops.next().and_then(parse) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// An address as proxies write it: alone, with a port, or in brackets.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trusted_proxies_say_is_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        for (peer, headers, expected) in [
            ("9.9.9.9", vec!["1.1.1.1"], "9.9.9.9"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", vec!["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", vec!["6.6.6.6", "1.1.1.1 , 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", vec!["10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", vec!["1.1.1.1, nonsense"], "10.0.0.1"),
            ("10.0.0.1", vec!["1.1.1.1:4711"], "1.1.1.1"),
            ("10.0.0.1", vec!["[2001:dead::1]:443"], "2001:dead::1"),
            ("10.0.0.1", vec!["::ffff:1.1.1.1"], "1.1.1.1"),
            ("2001:db8::1", vec!["2001:dead::1"], "2001:dead::1"),
            // Bytes that are no text must not hide what the proxy has added.
            ("10.0.0.1", vec!["é, 1.1.1.1"], "1.1.1.1"),
        ] {
            let lines = headers.iter().map(|line| line.as_bytes());
            let client = client_address(peer.parse().unwrap(), &trusted, lines);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(header: Vec<u8>) {
            client_address("10.0.0.1".parse().unwrap(), &["0.0.0.0/0".parse().unwrap()], [&header[..]].into_iter());
        }
    }
}
