//! How long to wait before the next attempt to connect.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// Shorter than the time for which a restarted engine waits for the nodes, see `scripts/restore.lua`.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits that double. Each is shortened at random by up to a half, so that nodes do not connect at the same moment.
#[derive(Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// `random`: any number.
    pub fn failed(&mut self, random: u8) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait - wait.mul_f64(f64::from(random) / f64::from(u8::MAX) / 2.0)
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.failed(0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000, 1000]);
        for _ in 0..1000 {
            let wait = backoff.failed(u8::MAX);
            assert!(wait >= LONGEST / 2 - Duration::from_millis(1) && wait <= LONGEST, "{wait:?}");
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(0), FIRST);
    }
}
