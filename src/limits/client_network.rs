//! The unit to which limits per address apply.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// An IPv4 address, or the /64 of an IPv6 address: a provider assigns at least a /64 to each customer
/// (RFC 6177, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "IpAddr", into = "IpAddr")]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }
}

impl From<Network> for IpAddr {
    fn from(network: Network) -> Self {
        network.0
    }
}

impl Network {
    /// The prefix length of an IPv6 network, in bits.
    pub const IPV6_PREFIX: u8 = 64;
}

impl From<Network> for IpNet {
    fn from(network: Network) -> Self {
        match network.0 {
            IpAddr::V4(address) => Ipv4Net::from(address).into(),
            IpAddr::V6(address) => Ipv6Net::new_assert(address, Network::IPV6_PREFIX).into(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(formatter, "{address}"),
            IpAddr::V6(address) => write!(formatter, "{address}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_per_ipv4_address_and_per_ipv6_64() {
        let network = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
        assert_eq!(network("10.0.0.1").to_string(), "10.0.0.1");
        assert_eq!(network("2001:db8::1").to_string(), "2001:db8::/64");
        for (address, net) in [("10.0.0.1", "10.0.0.1/32"), ("2001:db8::1", "2001:db8::/64")] {
            assert_eq!(IpNet::from(network(address)), net.parse().unwrap());
        }
    }
}
