//! Who or what a ban is for: a user, an address or a network.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::name_key::NameKey;
use super::target::{self, Target};
use super::username::Username;
use crate::limits::Network;

/// The widest networks that can be banned, as prefix lengths in bits.
const MIN_IPV4_PREFIX: u8 = 16;
const MIN_IPV6_PREFIX: u8 = 32;

/// The target of `/ban`, with the rest of its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BanTarget {
    Network {
        #[serde(with = "super::format::text")]
        network: IpNet,
        rest: String,
    },
    User {
        target: Target,
        quoted: Option<QuotedName>,
    },
}

/// A name in quotes, which need not be that of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedName {
    pub name: Result<Username, String>,
    pub rest: String,
}

impl BanTarget {
    /// # Errors
    /// It is a network that cannot be banned. A message for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        if let Some(network) = parse_network(word) {
            return network.map(|network| Self::Network { network, rest: rest.trim().to_owned() });
        }
        let quoted = target::split_quoted(text).map(|(name, rest)| QuotedName {
            name: Username::parse(&name).map_err(|error| error.to_string()),
            rest: rest.trim().to_owned(),
        });
        Ok(Self::User { target: Target::parse(text), quoted })
    }
}

/// The target of `/unban` or `/unto`, to which nothing else belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BannedTarget {
    Network(#[serde(with = "super::format::text")] IpNet),
    Name(NamedTarget),
}

/// A name that is a command's only argument, in quotes or not. It need not be that of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedTarget {
    /// `None`: the text is too long to be a name.
    pub key: Option<NameKey>,
    /// What an error quotes.
    pub name: String,
}

impl BannedTarget {
    /// # Errors
    /// It is a network that cannot be banned. A message for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        match parse_network(text.trim()) {
            Some(network) => network.map(Self::Network),
            None => Ok(Self::Name(NamedTarget::parse(text))),
        }
    }
}

impl NamedTarget {
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let quoted = target::split_quoted(text).filter(|(_, rest)| rest.is_empty());
        let name = quoted.map_or(text.to_owned(), |(name, _)| name);
        let key = target::key(&name);
        Self { key, name: name.chars().take(Username::MAX_CHARS).collect() }
    }
}

/// An address or a network in CIDR form, as a network that can be banned: an IPv4-mapped one as IPv4, and an IPv6 network
/// that is narrower than a /64 as its /64. `None`: the word is neither.
///
/// # Errors
/// A message for the user.
fn parse_network(word: &str) -> Option<Result<IpNet, String>> {
    let network = match word.split_once('/') {
        None => IpNet::from(word.parse::<IpAddr>().ok()?),
        Some((address, prefix)) => {
            let address: IpAddr = address.parse().ok()?;
            let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix.parse().ok().filter(|_| is_number);
            match prefix.and_then(|prefix| IpNet::new(address, prefix).ok()) {
                Some(network) => network,
                None => return Some(Err(format!("{word} is not a network: its prefix length is wrong."))),
            }
        }
    };
    let network = normal(network);
    let min_prefix = if network.addr().is_ipv4() { MIN_IPV4_PREFIX } else { MIN_IPV6_PREFIX };
    Some(if network.prefix_len() < min_prefix {
        Err(format!(
            "{network} is too wide: at most a /{MIN_IPV4_PREFIX}, or a /{MIN_IPV6_PREFIX} for IPv6, can be banned."
        ))
    } else {
        Ok(network)
    })
}

fn normal(network: IpNet) -> IpNet {
    match network {
        IpNet::V4(_) => network.trunc(),
        IpNet::V6(network) => match mapped(network) {
            Some((address, prefix)) => Ipv4Net::new_assert(address, prefix).trunc().into(),
            None => {
                let prefix = network.prefix_len().min(Network::IPV6_PREFIX);
                Ipv6Net::new_assert(network.addr(), prefix).trunc().into()
            }
        },
    }
}

/// An IPv4-mapped network as IPv4: its address, and a prefix length of at most 32 bits.
fn mapped(network: Ipv6Net) -> Option<(Ipv4Addr, u8)> {
    let prefix = network.prefix_len().checked_sub(96)?;
    Some((network.addr().to_ipv4_mapped()?, prefix))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_normalized() {
        for (word, expected) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("192.0.2.7/16", "192.0.0.0/16"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::1/128", "2001:db8::/64"),
            ("2001:db8:0:7:1::/65", "2001:db8:0:7::/64"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("2001:DB8:1:2::/48", "2001:db8:1::/48"),
            ("2001:db8:1:2::/32", "2001:db8::/32"),
        ] {
            assert_eq!(parse_network(word), Some(Ok(expected.parse().unwrap())), "{word}");
        }
    }

    #[test]
    fn wide_and_invalid_networks_are_errors() {
        for word in
            ["192.0.0.0/15", "0.0.0.0/0", "2001::/31", "::/0", "::ffff:192.0.2.7/111", "::ffff:0.0.0.0/96"]
        {
            let error = parse_network(word).unwrap().unwrap_err();
            assert!(
                error.ends_with("is too wide: at most a /16, or a /32 for IPv6, can be banned."),
                "{error}"
            );
        }
        for word in ["192.0.2.7/33", "192.0.2.7/", "192.0.2.7/+8", "192.0.2.7/x", "::1/129", "::1/999"] {
            let error = parse_network(word).unwrap().unwrap_err();
            assert_eq!(error, format!("{word} is not a network: its prefix length is wrong."));
        }
        for word in
            ["", "Bob", "1", "192.0.2", "192.0.2.256", "Bob/24", "/24", "1:2", "192.0.2.7:80", "[::1]"]
        {
            assert_eq!(parse_network(word), None, "{word}");
        }
    }

    #[test]
    fn a_name_in_quotes_is_a_name_even_if_it_looks_like_an_address() {
        let parsed = BanTarget::parse("\"192.0.2.7\" 1d  bad  name ");
        let Ok(BanTarget::User { quoted: Some(QuotedName { name: Ok(name), rest }), .. }) = parsed else {
            panic!("{parsed:?}")
        };
        assert_eq!((&**name.shown(), &*rest), ("192.0.2.7", "1d  bad  name"));
        let parsed = BanTarget::parse("192.0.2.7  1d");
        let network = "192.0.2.7/32".parse().unwrap();
        assert_eq!(parsed, Ok(BanTarget::Network { network, rest: "1d".into() }));
        assert!(matches!(BanTarget::parse("Bob 1d"), Ok(BanTarget::User { quoted: None, .. })));
        let Ok(BanTarget::User { quoted: Some(quoted), .. }) = BanTarget::parse("\"System\"") else {
            panic!()
        };
        assert!(quoted.name.unwrap_err().contains("reserved"));
        for text in ["Bob Lee", "\"Bob Lee\"", "  Bob Lee "] {
            assert_eq!(
                NamedTarget::parse(text),
                NamedTarget { key: Some(NameKey::of("Bob Lee")), name: "Bob Lee".into() }
            );
        }
        assert_eq!(NamedTarget::parse(&"x".repeat(1000)).key, None);
    }

    proptest! {
        /// Any two ways to write an address, and any address in the same /64, are one network.
        #[test]
        fn the_addresses_of_a_client_are_one_network(bits: u128, host: u64, prefix in 64..=128_u8) {
            let neighbor = Ipv6Addr::from_bits(bits >> 64 << 64 | u128::from(host));
            let address = Ipv6Addr::from_bits(bits);
            let network = IpNet::from(Network::from(IpAddr::from(neighbor)));
            if address.to_ipv4_mapped().is_none() && neighbor.to_ipv4_mapped().is_none() {
                prop_assert_eq!(parse_network(&format!("{address}/{prefix}")), Some(Ok(network)));
                prop_assert_eq!(parse_network(&address.to_string()), Some(Ok(network)));
            }
        }

        #[test]
        fn a_mapped_network_is_the_same_as_its_ipv4_form(bits: u32, prefix in 16..=32_u8) {
            let address = Ipv4Addr::from_bits(bits);
            let network = parse_network(&format!("{address}/{prefix}"));
            prop_assert_eq!(&network, &parse_network(&format!("::ffff:{address}/{}", prefix + 96)));
            let network = network.unwrap().unwrap();
            prop_assert!(network.contains(&IpNet::from(Network::from(IpAddr::from(address)))));
            prop_assert_eq!(network, network.trunc());
        }

        #[test]
        fn no_text_causes_a_panic(text in "[0-9a-f:./ \"]{0,30}|\\PC{0,30}") {
            if let Ok(BanTarget::Network { network, .. }) = BanTarget::parse(&text) {
                let widest = if network.addr().is_ipv4() { MIN_IPV4_PREFIX } else { MIN_IPV6_PREFIX };
                prop_assert!(network.prefix_len() >= widest);
            }
            let _ = BannedTarget::parse(&text);
        }
    }
}
