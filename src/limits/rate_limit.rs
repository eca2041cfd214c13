//! How fast one connection may send (`MESSAGE_RATE`, `MESSAGE_BURST`): a token bucket.
//!
//! Nothing is dropped: the server reads no faster than the limit allows, and TCP applies backpressure.

use std::time::{Duration, Instant};

use crate::config::MessageRate;

pub struct RateLimit {
    /// `None`: no limit.
    allowed: Option<MessageRate>,
    /// How many messages may be read at once, as of `updated`. A charge may make it negative.
    tokens: f64,
    updated: Instant,
}

impl RateLimit {
    pub fn new(allowed: Option<MessageRate>, now: Instant) -> Self {
        let tokens = allowed.map_or(0.0, |allowed| allowed.burst.get().into());
        Self { allowed, tokens, updated: now }
    }

    /// When the next message may be read; `None`: now.
    pub fn wait_until(&mut self, now: Instant) -> Option<Instant> {
        let allowed = self.allowed?;
        let per_second = f64::from(allowed.per_second.get());
        let refill = now.saturating_duration_since(self.updated).as_secs_f64() * per_second;
        self.tokens = (self.tokens + refill).min(allowed.burst.get().into());
        self.updated = now;
        let missing = 1.0 - self.tokens;
        // A rounding error would cause a wait of zero length, again on each call.
        (missing > 1e-6).then(|| now + Duration::from_secs_f64(missing / per_second))
    }

    /// Charges for a message that was read, or for a fraction of one.
    pub fn charge(&mut self, messages: f64) {
        self.tokens -= messages;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_burst_is_allowed_at_once_and_then_the_rate() {
        let start = Instant::now();
        let [per_second, burst] = [5, 3].map(|count| NonZeroU32::new(count).unwrap());
        let mut limit = RateLimit::new(Some(MessageRate { per_second, burst }), start);
        let (mut now, mut read) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match limit.wait_until(now) {
                Some(until) => now = until,
                None => {
                    limit.charge(1.0);
                    read += 1;
                }
            }
            if now == start {
                assert!(read <= 3);
            }
        }
        assert!((52..=53).contains(&read), "{read}");
        assert_eq!(limit.wait_until(now + Duration::from_secs(60)), None);
        assert!(limit.tokens <= 3.0, "tokens are limited to one burst");
    }

    #[test]
    fn without_a_rate_there_is_no_wait() {
        let now = Instant::now();
        let mut limit = RateLimit::new(None, now);
        for _ in 0..1000 {
            assert_eq!(limit.wait_until(now), None);
            limit.charge(1.0);
        }
    }
}
