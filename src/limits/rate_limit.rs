//! How fast one connection may send (`MESSAGE_RATE`, `MESSAGE_BURST`): a token bucket.
//!
//! Nothing is dropped. Who sends faster is read no faster, and TCP pushes back.

use std::time::{Duration, Instant};

use crate::config::MessageRate;

pub struct Rate {
    allowed: Option<MessageRate>,
    /// What the connection may still send at once, as of `at`.
    messages: f64,
    at: Instant,
}

impl Rate {
    pub fn new(allowed: Option<MessageRate>, now: Instant) -> Self {
        let messages = allowed.map_or(0.0, |allowed| allowed.burst.get().into());
        Self { allowed, messages, at: now }
    }

    /// When the next message may be read; `None`: now.
    pub fn wait_until(&mut self, now: Instant) -> Option<Instant> {
        let allowed = self.allowed?;
        let per_second = f64::from(allowed.per_second.get());
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        self.messages = (self.messages + gained).min(allowed.burst.get().into());
        self.at = now;
        let missing = 1.0 - self.messages;
        // A rounding error must not ask for a wait of nothing again and again.
        (missing > 1e-6).then(|| now + Duration::from_secs_f64(missing / per_second))
    }

    /// Counts a message that was read, or a part of one.
    pub fn count(&mut self, messages: f64) {
        self.messages -= messages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn rate(per_second: &str, burst: &str, now: Instant) -> Rate {
        let settings =
            Settings::from_pairs([("MESSAGE_RATE", per_second), ("MESSAGE_BURST", burst)]).unwrap();
        Rate::new(settings.limits.message_rate, now)
    }

    #[test]
    fn a_burst_at_once_and_then_the_rate() {
        let start = Instant::now();
        let mut rate = rate("5", "3", start);
        let (mut now, mut read) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match rate.wait_until(now) {
                Some(until) => now = until,
                None => {
                    rate.count(1.0);
                    read += 1;
                }
            }
            if now == start {
                assert!(read <= 3);
            }
        }
        assert!((52..=53).contains(&read), "{read}");
        assert_eq!(rate.wait_until(now + Duration::from_secs(60)), None);
        assert!(rate.messages <= 3.0, "a long silence saves up no more than a burst");
    }

    #[test]
    fn no_rate_no_wait() {
        let now = Instant::now();
        let mut rate = rate("0", "1", now);
        for _ in 0..1000 {
            assert_eq!(rate.wait_until(now), None);
            rate.count(1.0);
        }
    }
}
