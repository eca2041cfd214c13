//! How fast clients may connect, join and send (`CONNECT_RATE`, `JOIN_RATE`, `MESSAGE_RATE`, `MAX_SENDERS_PER_IP`).
//!
//! Nothing is dropped. A connection's thread waits until its client's quota covers what it is about to do, and TCP
//! applies backpressure.

use std::time::Instant;

use super::client_network::Network;
use super::network_quota::NetworkQuota;
use super::token_bucket::{Quota, TokenBucket};
use crate::config::Limits;

/// What the bursts of `CONNECT_RATE` and `JOIN_RATE` are based on if `MAX_CONNECTIONS_PER_IP` is 0.
const DEFAULT_CONNECTIONS_PER_IP: usize = 64;
/// The burst of `CONNECT_RATE`, as a multiple of `MAX_CONNECTIONS_PER_IP`: a page takes several requests.
const CONNECT_BURST_FACTOR: f64 = 4.0;

/// The quotas that all connections share.
pub struct Rates {
    pub connect: NetworkQuota,
    pub join: NetworkQuota,
    send: NetworkQuota,
    /// Of each connection.
    message: Option<Quota>,
}

impl Rates {
    pub fn new(limits: &Limits) -> Self {
        let burst = limits.connections_per_ip.unwrap_or(DEFAULT_CONNECTIONS_PER_IP) as f64;
        let message = limits
            .message_rate
            .map(|rate| Quota { per_second: rate.per_second.get().into(), burst: rate.burst.get().into() });
        let connect = limits
            .connect_rate
            .map(|rate| Quota { per_second: rate.get().into(), burst: CONNECT_BURST_FACTOR * burst });
        let join = limits.join_rate.map(|rate| Quota { per_second: rate.get().into(), burst });
        let send = message.zip(limits.senders_per_ip).map(|(quota, senders)| quota.times(senders.get()));
        Self {
            connect: NetworkQuota::new(connect),
            join: NetworkQuota::new(join),
            send: NetworkQuota::new(send),
            message,
        }
    }

    /// The limit of a new connection. `network`: `None` if the client's address is exempt.
    pub fn send_limit(&self, network: Option<Network>, now: Instant) -> SendLimit<'_> {
        let own = self.message.map(|quota| (quota, TokenBucket::full(quota, now)));
        SendLimit { own, network, shared: &self.send }
    }
}

/// How fast one connection may send: within its own quota, and within the quota that it shares with all connections
/// from its address.
pub struct SendLimit<'a> {
    own: Option<(Quota, TokenBucket)>,
    network: Option<Network>,
    shared: &'a NetworkQuota,
}

impl SendLimit<'_> {
    /// Charges for what was read, in messages, and returns when it may be handled; `None`: now.
    pub fn charge(&mut self, messages: f64, now: Instant) -> Option<Instant> {
        let own = self.own.as_mut().and_then(|(quota, bucket)| bucket.take(*quota, messages, now));
        let shared = self.network.and_then(|network| self.shared.take(network, messages, now));
        own.max(shared)
    }

    /// Returns a charge to the address, because the connection ends before it may handle what it has read.
    pub fn give_back(&self, messages: f64) {
        if let Some(network) = self.network {
            self.shared.give_back(network, messages);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Settings;

    fn rates(pairs: &[(&str, &str)]) -> Rates {
        Rates::new(&Settings::from_pairs(pairs.iter().copied()).unwrap().limits)
    }

    fn network() -> Network {
        IpAddr::from([192, 0, 2, 1]).into()
    }

    #[test]
    fn each_connection_has_the_message_rate() {
        let (now, rates) = (Instant::now(), rates(&[("MESSAGE_RATE", "5"), ("MESSAGE_BURST", "3")]));
        let mut limit = rates.send_limit(None, now);
        assert_eq!(limit.charge(3.0, now), None);
        assert_eq!(limit.charge(1.0, now), Some(now + Duration::from_millis(200)));
    }

    #[test]
    fn without_a_message_rate_nothing_waits() {
        let (now, rates) = (Instant::now(), rates(&[("MESSAGE_RATE", "0")]));
        let mut limit = rates.send_limit(Some(network()), now);
        assert!((0..1000).all(|_| limit.charge(16.0, now).is_none()));
    }

    #[test]
    fn the_bursts_of_connects_and_joins_follow_the_limit_per_address() {
        let now = Instant::now();
        for (per_ip, connects, joins) in [("64", 256.0, 64.0), ("2", 8.0, 2.0), ("0", 256.0, 64.0)] {
            let rates = rates(&[("MAX_CONNECTIONS_PER_IP", per_ip)]);
            assert_eq!(rates.connect.take(network(), connects, now), None, "{per_ip}");
            assert!(rates.connect.take(network(), 1.0, now).is_some(), "{per_ip}");
            assert_eq!(rates.join.take(network(), joins, now), None, "{per_ip}");
            assert!(rates.join.take(network(), 1.0, now).is_some(), "{per_ip}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A new connection in place of one of the others.
        Reconnect(usize),
        Send(usize, f64),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..64_usize).prop_map(Step::Reconnect),
            (0..64_usize, 1.0..16.0_f64).prop_map(|(connection, cost)| Step::Send(connection, cost)),
            (0..500_u64).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..300)
    }

    proptest! {
        /// One address once had 64 times the message rate, and a burst for each of its connections.
        #[test]
        fn reconnecting_gives_an_address_no_more_than_its_senders(steps in steps()) {
            let pairs = [("MESSAGE_RATE", "5"), ("MESSAGE_BURST", "20"), ("MAX_SENDERS_PER_IP", "8")];
            let (start, rates) = (Instant::now(), rates(&pairs));
            let mut now = start;
            let mut connections: Vec<SendLimit> =
                (0..64).map(|_| rates.send_limit(Some(network()), now)).collect();
            let mut handled = Vec::new();
            for step in steps {
                match step {
                    Step::Reconnect(at) => connections[at] = rates.send_limit(Some(network()), now),
                    Step::Send(at, cost) => {
                        handled.push((connections[at].charge(cost, now).unwrap_or(now), cost));
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
            }
            for &(end, _) in &handled {
                let sum: f64 = handled.iter().filter(|(at, _)| *at <= end).map(|(_, cost)| cost).sum();
                let allowed = 8.0 * (20.0 + 5.0 * (end - start).as_secs_f64());
                prop_assert!(sum <= allowed + 1e-3, "{sum} > {allowed}");
            }
        }
    }
}
