//! The types of single values: hosts, passwords, origins, networks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::reported_value::names_secret;

/// The longest host name, in bytes (RFC 1035, section 3.1, without the root label).
const MAX_HOST_NAME_BYTES: usize = 253;

/// Where to listen.
#[derive(Clone, Debug, PartialEq)]
pub enum Host {
    Address(IpAddr),
    /// A name that is resolved at startup.
    Name(String),
}

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        let is_name = !text.is_empty()
            && text.len() <= MAX_HOST_NAME_BYTES
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
            && !text.chars().all(|c| c.is_ascii_digit() || c == '.')
            && !names_secret(text);
        if is_name {
            Ok(Self::Name(text.into()))
        } else {
            Err("an IPv4 or IPv6 address or a host name, without scheme and port")
        }
    }
}

impl fmt::Display for Host {
    /// As in a URL: an IPv6 address is in brackets.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(formatter, "{address}"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

/// A password, trimmed and not empty. Its `Debug` output does not show it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// `None` if the text is blank.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// The password itself. Never print or log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("Secret(not shown)")
    }
}

/// The origin of a web page (RFC 6454): `https://chat.example.com`, or `null`.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin(String);

impl Origin {
    /// Whether the value of a request's `Origin` header is this origin.
    pub fn is(&self, header: &[u8]) -> bool {
        header.eq_ignore_ascii_case(self.0.as_bytes())
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix('/').unwrap_or(text);
        // Browsers leave out the scheme's default port.
        let default_port = if text.starts_with("https://") { ":443" } else { ":80" };
        let text = text.strip_suffix(default_port).unwrap_or(text);
        let authority = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, rest)| rest);
        let is_origin = text == "null"
            || authority.is_some_and(|rest| {
                !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !"/?#@*".contains(c))
            });
        if is_origin {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("origins like https://chat.example.com, comma-separated, without a path")
        }
    }
}

/// The prefix of the IPv4-mapped IPv6 addresses, `::ffff:0:0/96` (RFC 4291, section 2.5.5.2), in bits.
const MAPPED_PREFIX: u8 = 96;

/// A network like `10.0.0.0/8`, or a single address, in canonical form: without host bits, and as IPv4 if it was
/// written as IPv4-mapped IPv6. The addresses that it is compared with are canonical, too.
#[derive(Debug)]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: IpNet = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| "networks like 10.0.0.0/8 or addresses, comma-separated")?;
        let net = match (net, net.addr().to_canonical()) {
            (IpNet::V6(mapped), IpAddr::V4(address)) => mapped
                .prefix_len()
                .checked_sub(MAPPED_PREFIX)
                .and_then(|prefix| Ipv4Net::new(address, prefix).ok())
                .ok_or("networks; an IPv4-mapped one like ::ffff:10.0.0.0/104 has a prefix of 96 to 128")?
                .into(),
            (net, _) => net,
        };
        Ok(Self(net.trunc()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name() {
        for good in ["0.0.0.0", "::", "[::1]", "localhost", "chat.example.com"] {
            assert!(good.parse::<Host>().is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:80", "ws://x", "300.1.1.1", "a b", &"a".repeat(MAX_HOST_NAME_BYTES + 1)] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
        assert_eq!("::1".parse::<Host>().unwrap().to_string(), "[::1]");
    }

    /// `::ffff:127.0.0.0/104` once matched nothing, because peers' addresses are compared as IPv4.
    #[test]
    fn an_ipv4_mapped_network_is_the_ipv4_network() {
        for (text, expected) in [
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::FFFF:a00:0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/128", "192.0.2.7/32"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().0.to_string(), expected, "{text}");
        }
        for text in ["::ffff:10.0.0.0/95", "::ffff:10.0.0.0/0"] {
            assert!(text.parse::<Network>().unwrap_err().contains("96 to 128"), "{text}");
        }
        for text in ["::ffff:10.0.0.0/129", "10.0.0.0/33", "10.0.0", ""] {
            assert!(text.parse::<Network>().unwrap_err().contains("10.0.0.0/8"), "{text}");
        }
    }
}
