//! How many connections there may be at once, in total and from one address (`MAX_CONNECTIONS`,
//! `MAX_CONNECTIONS_PER_IP`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::client_network::Network;

/// How many connections over a limit are sent a response at the same time. Further ones are closed without one.
const MAX_REFUSALS: usize = 32;
/// How many connections are reserved for monitoring a full server.
const MAX_MONITORING: usize = 8;

/// Hands out the permits that connections hold.
///
/// The counts are shared behind a mutex because a connection through a proxy takes its permit on its own
/// thread, after its request has shown the client's address.
#[derive(Clone)]
pub struct Permits {
    max_connections: usize,
    max_per_network: Option<usize>,
    counts: Arc<Mutex<Counts>>,
}

/// Counts as one connection until it is dropped.
pub struct Permit {
    counts: Arc<Mutex<Counts>>,
    kind: Kind,
}

/// The limit that a connection would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum LimitExceeded {
    #[error("the server is full (MAX_CONNECTIONS): try again later")]
    Server,
    #[error("too many connections from your address (MAX_CONNECTIONS_PER_IP)")]
    Address,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    refusals: usize,
    monitoring: usize,
    per_network: HashMap<Network, usize>,
}

enum Kind {
    Connection,
    Network(Network),
    Refusal,
    Monitoring,
}

impl Permits {
    /// `max_per_network`: `None` for no limit.
    pub fn new(max_connections: usize, max_per_network: Option<usize>) -> Self {
        Self { max_connections, max_per_network, counts: Arc::default() }
    }

    /// A permit for one more connection to the server.
    pub fn connection(&self) -> Result<Permit, LimitExceeded> {
        let mut counts = lock(&self.counts);
        if counts.connections >= self.max_connections {
            return Err(LimitExceeded::Server);
        }
        counts.connections += 1;
        Ok(self.permit(Kind::Connection))
    }

    /// How many connections hold a permit.
    pub fn connections(&self) -> usize {
        lock(&self.counts).connections
    }

    /// A permit for one more connection from a peer's own address. Loopback needs none.
    pub fn peer(&self, address: IpAddr) -> Result<Option<Permit>, LimitExceeded> {
        if address.is_loopback() { Ok(None) } else { self.forwarded(address) }
    }

    /// A permit for one more connection from an address that a trusted proxy has reported. Loopback is not
    /// exempt here: what a proxy reports is never a local client.
    pub fn forwarded(&self, address: IpAddr) -> Result<Option<Permit>, LimitExceeded> {
        let Some(max) = self.max_per_network else { return Ok(None) };
        let network = Network::from(address);
        let mut counts = lock(&self.counts);
        let count = counts.per_network.entry(network).or_default();
        if *count >= max {
            return Err(LimitExceeded::Address);
        }
        *count += 1;
        Ok(Some(self.permit(Kind::Network(network))))
    }

    /// Whether more than half of the permits are in use, in total or for this address.
    pub fn are_scarce(&self, address: IpAddr) -> bool {
        let counts = lock(&self.counts);
        let of_network = counts.per_network.get(&Network::from(address)).copied().unwrap_or_default();
        counts.connections > self.max_connections / 2
            || self.max_per_network.is_some_and(|max| of_network > max / 2)
    }

    /// A permit to send a response to a connection over a limit. `None`: close it without a response.
    pub fn refusal(&self) -> Option<Permit> {
        let mut counts = lock(&self.counts);
        (counts.refusals < MAX_REFUSALS).then(|| {
            counts.refusals += 1;
            self.permit(Kind::Refusal)
        })
    }

    /// A reserved permit to monitor a server that is full.
    pub fn monitoring(&self) -> Option<Permit> {
        let mut counts = lock(&self.counts);
        (counts.monitoring < MAX_MONITORING).then(|| {
            counts.monitoring += 1;
            self.permit(Kind::Monitoring)
        })
    }

    fn permit(&self, kind: Kind) -> Permit {
        Permit { counts: self.counts.clone(), kind }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        match self.kind {
            Kind::Connection => counts.connections -= 1,
            Kind::Refusal => counts.refusals -= 1,
            Kind::Monitoring => counts.monitoring -= 1,
            Kind::Network(network) => {
                let left = counts.per_network.get_mut(&network).map_or(0, |count| {
                    *count -= 1;
                    *count
                });
                if left == 0 {
                    counts.per_network.remove(&network);
                }
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_is_available_again() {
        let permits = Permits::new(2, None);
        let first = permits.connection().ok().unwrap();
        let _second = permits.connection().ok().unwrap();
        assert_eq!(permits.connection().err(), Some(LimitExceeded::Server));
        assert_eq!(permits.connections(), 2);
        drop(first);
        assert!(permits.connection().is_ok());
    }

    #[test]
    fn each_network_has_its_own_limit() {
        let permits = Permits::new(100, Some(1));
        let forwarded = |address: &str| permits.forwarded(address.parse().unwrap());
        let held = forwarded("2001:db8::1").ok().unwrap();
        assert_eq!(forwarded("2001:db8::ffff:0:2").err(), Some(LimitExceeded::Address));
        let _other_network = forwarded("2001:db8:0:1::1").ok().unwrap();
        let _v4 = forwarded("10.0.0.1").ok().unwrap();
        assert_eq!(forwarded("::ffff:10.0.0.1").err(), Some(LimitExceeded::Address));
        drop(held);
        let _again = forwarded("2001:db8::2").ok().unwrap();
        assert_eq!(lock(&permits.counts).per_network.len(), 3);
    }

    #[test]
    fn loopback_needs_no_permit_but_a_forwarded_loopback_address_does() {
        let permits = Permits::new(100, Some(1));
        let loopback = IpAddr::from([127, 0, 0, 1]);
        for _ in 0..100 {
            assert!(permits.peer(loopback).ok().unwrap().is_none());
        }
        let _held = permits.forwarded(loopback).ok().unwrap();
        assert_eq!(permits.forwarded(loopback).err(), Some(LimitExceeded::Address));
    }

    #[test]
    fn refusals_and_monitoring_are_limited() {
        let permits = Permits::new(1, None);
        let refusals: Vec<_> = std::iter::from_fn(|| permits.refusal()).collect();
        assert_eq!(refusals.len(), MAX_REFUSALS);
        let monitoring: Vec<_> = std::iter::from_fn(|| permits.monitoring()).collect();
        assert_eq!(monitoring.len(), MAX_MONITORING, "refusals do not use up what is reserved");
    }

    proptest::proptest! {
        /// For any order of taking and dropping permits.
        #[test]
        fn counts_return_to_zero(steps in proptest::collection::vec((0..6_u8, 0..4_u8), 0..200)) {
            let permits = Permits::new(20, Some(3));
            let mut held = Vec::new();
            for (kind, client) in steps {
                let address = IpAddr::from([192, 0, 2, client]);
                let permit = match kind {
                    0 => permits.connection().ok(),
                    1 => permits.peer(address).ok().flatten(),
                    2 => permits.forwarded(address).ok().flatten(),
                    3 => permits.refusal(),
                    4 => permits.monitoring(),
                    _ if held.is_empty() => None,
                    _ => {
                        held.swap_remove(usize::from(client) % held.len());
                        None
                    }
                };
                held.extend(permit);
                let counts = lock(&permits.counts);
                proptest::prop_assert!(counts.connections <= 20);
                proptest::prop_assert!(counts.per_network.values().all(|count| (1..=3).contains(count)));
            }
            drop(held);
            let counts = lock(&permits.counts);
            let left = (counts.connections, counts.refusals, counts.monitoring, counts.per_network.len());
            proptest::prop_assert_eq!(left, (0, 0, 0, 0));
        }
    }
}
