//! How many connections there may be, in all and from one address (`MAX_CONNECTIONS`, `MAX_CONNECTIONS_PER_IP`).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Limits;
use crate::ops::metrics::Refused;

/// How many of those beyond the limits are told so at once; more are closed without a word.
const MAX_REFUSALS: usize = 32;

/// Counts connections. A mutex and not the accepting thread owns the counts, for a connection that comes through
/// a proxy shows its address only in its own thread.
#[derive(Clone)]
pub struct Admission {
    connections: usize,
    connections_per_ip: Option<usize>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    refusals: usize,
    per_ip: HashMap<IpAddr, usize>,
}

/// A place that is held until this is dropped.
pub struct Place {
    counts: Arc<Mutex<Counts>>,
    held: Held,
}

enum Held {
    Connection,
    Refusal,
    Address(IpAddr),
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Full {
    Server,
    Address,
}

impl Admission {
    pub fn new(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            connections_per_ip: limits.connections_per_ip,
            counts: Arc::default(),
        }
    }

    /// A place on the server.
    ///
    /// # Errors
    /// It is full.
    pub fn connection(&self) -> Result<Place, Full> {
        let mut counts = lock(&self.counts);
        if counts.connections >= self.connections {
            return Err(Full::Server);
        }
        counts.connections += 1;
        Ok(self.place(Held::Connection))
    }

    /// How many there are.
    pub fn connections(&self) -> usize {
        lock(&self.counts).connections
    }

    /// A place for one more connection from this peer; loopback needs none.
    ///
    /// # Errors
    /// It has as many as it may.
    pub fn peer(&self, address: IpAddr) -> Result<Option<Place>, Full> {
        if address.is_loopback() { Ok(None) } else { self.address(address) }
    }

    /// A place for one more connection from an address that a proxy has told of, be it its own.
    ///
    /// # Errors
    /// It has as many as it may.
    pub fn address(&self, address: IpAddr) -> Result<Option<Place>, Full> {
        let Some(most) = self.connections_per_ip else { return Ok(None) };
        let network = network(address);
        let mut counts = lock(&self.counts);
        let count = counts.per_ip.entry(network).or_default();
        if *count >= most {
            return Err(Full::Address);
        }
        *count += 1;
        Ok(Some(self.place(Held::Address(network))))
    }

    /// A place among those who are told that there is none.
    pub fn refusal(&self) -> Option<Place> {
        let mut counts = lock(&self.counts);
        (counts.refusals < MAX_REFUSALS).then(|| {
            counts.refusals += 1;
            self.place(Held::Refusal)
        })
    }

    fn place(&self, held: Held) -> Place {
        Place { counts: self.counts.clone(), held }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        match self.held {
            Held::Connection => counts.connections -= 1,
            Held::Refusal => counts.refusals -= 1,
            Held::Address(network) => {
                let left = counts.per_ip.get_mut(&network).map_or(0, |count| {
                    *count -= 1;
                    *count
                });
                if left == 0 {
                    counts.per_ip.remove(&network);
                }
            }
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Server => "the server is full (MAX_CONNECTIONS): try again later",
            Self::Address => "too many connections from your address (MAX_CONNECTIONS_PER_IP)",
        })
    }
}

impl From<Full> for Refused {
    fn from(full: Full) -> Self {
        match full {
            Full::Server => Self::ServerFull,
            Full::Address => Self::AddressFull,
        }
    }
}

/// What counts as one address: it alone in IPv4, its /64 in IPv6, which one customer has whole.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn admission(connections: &str, per_ip: &str) -> Admission {
        let pairs = [("MAX_CONNECTIONS", connections), ("MAX_CONNECTIONS_PER_IP", per_ip)];
        Admission::new(&Settings::from_pairs(pairs).unwrap().limits)
    }

    #[test]
    fn a_place_is_free_again_when_its_holder_is_gone() {
        let admission = admission("2", "0");
        let first = admission.connection().ok().unwrap();
        let _second = admission.connection().ok().unwrap();
        assert_eq!(admission.connection().err(), Some(Full::Server));
        drop(first);
        assert!(admission.connection().is_ok());
    }

    #[test]
    fn an_address_has_its_own_bound() {
        let admission = admission("100", "1");
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let held = admission.address(address("2001:db8::1")).ok().unwrap();
        assert_eq!(admission.address(address("2001:db8::ffff:0:2")).err(), Some(Full::Address));
        let _neighbour = admission.address(address("2001:db8:0:1::1")).ok().unwrap();
        let _v4 = admission.address(address("10.0.0.1")).ok().unwrap();
        assert_eq!(admission.address(address("::ffff:10.0.0.1")).err(), Some(Full::Address));
        drop(held);
        let _again = admission.address(address("2001:db8::2")).ok().unwrap();
        assert_eq!(lock(&admission.counts).per_ip.len(), 3);
        for _ in 0..100 {
            assert!(admission.peer(address("127.0.0.1")).ok().unwrap().is_none(), "loopback is exempt");
        }
    }

    #[test]
    fn refusals_are_bounded() {
        let admission = admission("1", "0");
        let held: Vec<_> = std::iter::from_fn(|| admission.refusal()).collect();
        assert_eq!(held.len(), MAX_REFUSALS);
    }
}
