//! A token bucket that can be in debt: a caller that takes more tokens than there are waits until they have accrued.

use std::time::{Duration, Instant};

/// How many tokens accrue per second, and how many are saved at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    pub per_second: f64,
    pub burst: f64,
}

impl Quota {
    /// What `count` holders of this quota have together.
    pub fn times(self, count: u32) -> Self {
        let count = f64::from(count);
        Self { per_second: self.per_second * count, burst: self.burst * count }
    }
}

#[derive(Debug)]
pub struct TokenBucket {
    /// Negative while callers wait.
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    pub fn full(quota: Quota, now: Instant) -> Self {
        Self { tokens: quota.burst, updated: now }
    }

    /// Takes tokens, and returns when they are covered; `None`: they are covered now. The tokens are taken in any
    /// case, so of several callers the last waits longest.
    pub fn take(&mut self, quota: Quota, cost: f64, now: Instant) -> Option<Instant> {
        self.refill(quota, now);
        self.tokens -= cost;
        // A rounding error must not cause a wait of zero length.
        (self.tokens < -1e-6).then(|| now + Duration::from_secs_f64(-self.tokens / quota.per_second))
    }

    /// Returns tokens that were not used because their caller has stopped waiting.
    pub fn give_back(&mut self, quota: Quota, cost: f64) {
        self.tokens = (self.tokens + cost).min(quota.burst);
    }

    /// Whether the bucket is the same as a new one.
    pub fn is_full(&mut self, quota: Quota, now: Instant) -> bool {
        self.refill(quota, now);
        self.tokens >= quota.burst
    }

    fn refill(&mut self, quota: Quota, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.tokens = (self.tokens + elapsed * quota.per_second).min(quota.burst);
        self.updated = self.updated.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUOTA: Quota = Quota { per_second: 5.0, burst: 3.0 };

    #[test]
    fn a_burst_is_covered_at_once_and_then_the_rate_applies() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(QUOTA, start);
        for _ in 0..3 {
            assert_eq!(bucket.take(QUOTA, 1.0, start), None);
        }
        let after = |millis| Some(start + Duration::from_millis(millis));
        assert_eq!(bucket.take(QUOTA, 1.0, start), after(200));
        assert_eq!(bucket.take(QUOTA, 2.0, start), after(600));
        assert!(!bucket.is_full(QUOTA, start + Duration::from_millis(1100)));
        assert!(bucket.is_full(QUOTA, start + Duration::from_millis(1201)));
    }

    #[test]
    fn more_than_a_burst_waits_until_it_has_accrued() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(QUOTA, start);
        assert_eq!(bucket.take(QUOTA, 16.0, start), Some(start + Duration::from_millis(2600)));
    }

    proptest! {
        /// At any time, no more is covered than the burst and what has accrued.
        #[test]
        fn no_more_is_covered_than_the_quota_allows(
            takes in proptest::collection::vec((0..2000_u64, 0.0..20.0_f64, any::<bool>()), 1..50),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::full(QUOTA, start);
            let mut now = start;
            let mut covered = Vec::new();
            for (pause, cost, stops_waiting) in takes {
                now += Duration::from_millis(pause);
                match bucket.take(QUOTA, cost, now) {
                    Some(_) if stops_waiting => bucket.give_back(QUOTA, cost),
                    until => covered.push((until.unwrap_or(now), cost)),
                }
            }
            for &(end, _) in &covered {
                let sum: f64 = covered.iter().filter(|(at, _)| *at <= end).map(|(_, cost)| cost).sum();
                let allowed = QUOTA.burst + (end - start).as_secs_f64() * QUOTA.per_second;
                prop_assert!(sum <= allowed + 1e-3, "{sum} > {allowed}");
            }
        }
    }
}
