//! What all connections from one address may do together, including successive ones: token buckets that outlive
//! connections.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client_network::Network;
use super::token_bucket::{Quota, TokenBucket};

/// How many addresses have a bucket of their own, some 100 bytes each. Addresses beyond that share one.
const MAX_NETWORKS: usize = 16_384;
/// How often full buckets are removed: they are the same as new ones.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How often they are removed while there are [`MAX_NETWORKS`].
const SWEEP_INTERVAL_IF_FULL: Duration = Duration::from_secs(1);

/// One kind of action, limited per address.
pub struct NetworkQuota {
    /// `None`: no limit.
    quota: Option<Quota>,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    by_network: HashMap<Network, TokenBucket>,
    /// For addresses beyond [`MAX_NETWORKS`].
    shared: Option<TokenBucket>,
    last_sweep: Option<Instant>,
}

impl NetworkQuota {
    pub fn new(quota: Option<Quota>) -> Self {
        Self { quota, buckets: Mutex::default() }
    }

    /// Takes tokens from the bucket of an address, and returns when they are covered; `None`: they are covered now.
    pub fn take(&self, network: Network, cost: f64, now: Instant) -> Option<Instant> {
        let quota = self.quota?;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.sweep(quota, now);
        buckets.of(network, quota, now).take(quota, cost, now)
    }

    /// Returns tokens that were not used because their client has disconnected. If they stayed taken, a client that
    /// keeps disconnecting would block its address for hours.
    pub fn give_back(&self, network: Network, cost: f64) {
        if let Some(quota) = self.quota {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            buckets.give_back(network, quota, cost);
        }
    }
}

impl Buckets {
    fn of(&mut self, network: Network, quota: Quota, now: Instant) -> &mut TokenBucket {
        if self.by_network.len() >= MAX_NETWORKS && !self.by_network.contains_key(&network) {
            return self.shared.get_or_insert_with(|| TokenBucket::full(quota, now));
        }
        self.by_network.entry(network).or_insert_with(|| TokenBucket::full(quota, now))
    }

    /// A bucket that was removed in the meantime was full.
    fn give_back(&mut self, network: Network, quota: Quota, cost: f64) {
        let bucket = self.by_network.get_mut(&network).or(self.shared.as_mut());
        if let Some(bucket) = bucket {
            bucket.give_back(quota, cost);
        }
    }

    fn sweep(&mut self, quota: Quota, now: Instant) {
        let is_full = self.by_network.len() >= MAX_NETWORKS;
        let interval = if is_full { SWEEP_INTERVAL_IF_FULL } else { SWEEP_INTERVAL };
        if self.last_sweep.is_none_or(|at| at + interval <= now) {
            self.last_sweep = Some(now);
            self.by_network.retain(|_, bucket| !bucket.is_full(quota, now));
            self.by_network.shrink_to(2 * self.by_network.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const QUOTA: Quota = Quota { per_second: 1.0, burst: 2.0 };

    fn network(number: u32) -> Network {
        IpAddr::from(number.to_be_bytes()).into()
    }

    fn tracked(quota: &NetworkQuota) -> usize {
        quota.buckets.lock().unwrap().by_network.len()
    }

    #[test]
    fn each_address_has_a_bucket_of_its_own() {
        let now = Instant::now();
        let quota = NetworkQuota::new(Some(QUOTA));
        assert_eq!(quota.take(network(1), 2.0, now), None);
        assert_eq!(quota.take(network(1), 1.0, now), Some(now + Duration::from_secs(1)));
        assert_eq!(quota.take(network(2), 2.0, now), None);
        let neighbor: IpAddr = "2001:db8::1".parse().unwrap();
        let same_network: IpAddr = "2001:db8::2".parse().unwrap();
        assert_eq!(quota.take(neighbor.into(), 2.0, now), None);
        assert!(quota.take(same_network.into(), 1.0, now).is_some());
    }

    /// A flood of connections once left a debt that blocked its address for hours.
    #[test]
    fn clients_that_stop_waiting_leave_no_debt() {
        let now = Instant::now();
        let quota = NetworkQuota::new(Some(QUOTA));
        assert_eq!(quota.take(network(1), 2.0, now), None);
        for _ in 0..10_000 {
            assert_eq!(quota.take(network(1), 1.0, now), Some(now + Duration::from_secs(1)));
            quota.give_back(network(1), 1.0);
        }
    }

    #[test]
    fn without_a_quota_nothing_waits_and_nothing_is_kept() {
        let quota = NetworkQuota::new(None);
        assert_eq!(quota.take(network(1), 1e9, Instant::now()), None);
        assert_eq!(tracked(&quota), 0);
    }

    #[test]
    fn full_buckets_are_removed() {
        let now = Instant::now();
        let quota = NetworkQuota::new(Some(QUOTA));
        (0..1000).for_each(|number| {
            quota.take(network(number), 1.0, now);
        });
        quota.take(network(1), 60.0, now);
        assert_eq!(tracked(&quota), 1000);
        quota.take(network(2), 1.0, now + SWEEP_INTERVAL);
        assert_eq!(tracked(&quota), 2, "the one in debt and the newest");
    }

    #[test]
    fn addresses_beyond_the_limit_share_one_bucket() {
        let now = Instant::now();
        let quota = NetworkQuota::new(Some(QUOTA));
        let count = MAX_NETWORKS as u32;
        (0..count).for_each(|number| {
            quota.take(network(number), 1.0, now);
        });
        assert_eq!(quota.take(network(count), 2.0, now), None);
        assert!(quota.take(network(count + 1), 1.0, now).is_some());
        assert_eq!(quota.take(network(7), 1.0, now), None, "tracked addresses keep their own");
        assert_eq!(tracked(&quota), MAX_NETWORKS);
        // A network of 65,536 addresses could once occupy the table for 10 s with tokens that are back after one.
        assert_eq!(quota.take(network(count + 2), 1.0, now + SWEEP_INTERVAL_IF_FULL), None);
        assert_eq!(tracked(&quota), 2, "the one that took two, and the newest");
    }
}
