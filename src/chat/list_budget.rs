//! What lists may cost: 16 MiB a second in all (SPEC.md), which in a large room is a list for everybody now and then.
//!
//! What is not spent is saved, up to a bound. Newcomers get their list at once, also when nothing is left to pay it
//! with; that is owed, and paid back from half of what is earned. The other half goes on to everybody else, or who
//! comes and goes for ever could keep them from their lists.

use std::time::{Duration, Instant};

/// In bytes.
pub const EARNED_PER_SECOND: f64 = 16.0 * 1024.0 * 1024.0;

#[derive(Default)]
pub struct Budget {
    saved: f64,
    owed: f64,
    /// When that was so; `None`: nothing was spent yet.
    at: Option<Instant>,
}

impl Budget {
    /// Adds what was earned since the last time; no more than this is saved, in bytes.
    pub fn earn(&mut self, now: Instant, most: f64) {
        let elapsed = self.at.map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let earned = elapsed * EARNED_PER_SECOND;
        let paid_back = self.owed.min(earned / 2.0);
        self.owed -= paid_back;
        self.saved = (self.saved + earned - paid_back).min(most);
        self.at = Some(now);
    }

    /// What is saved, in bytes.
    pub fn saved(&self) -> f64 {
        self.saved
    }

    pub fn spend(&mut self, bytes: f64) {
        self.saved -= bytes;
    }

    /// Notes what is to be paid later; what goes past the most that may be owed is forgiven.
    pub fn owe(&mut self, bytes: f64, most: f64) {
        self.owed = (self.owed + bytes).min(most.max(self.owed));
    }

    /// When so many bytes will be saved.
    pub fn when(&self, bytes: f64) -> Option<Instant> {
        let missing = (bytes - self.saved).max(0.0);
        // Until the debt is paid back, each byte saved takes another.
        let earned = missing + missing.min(self.owed);
        self.at.map(|at| at + Duration::from_secs_f64(earned / EARNED_PER_SECOND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_when_it_says_is_what_was_asked_for() {
        let start = Instant::now();
        for owed in [0.0, 1e6, 1e8] {
            let mut budget = Budget::default();
            budget.earn(start, 1e6);
            budget.spend(1e6);
            budget.owe(owed, f64::MAX);
            let when = budget.when(2e6).unwrap();
            budget.earn(when, f64::MAX);
            assert!((budget.saved() - 2e6).abs() < 1.0, "{owed}: {}", budget.saved());
        }
    }

    #[test]
    fn savings_and_debts_are_bounded() {
        let start = Instant::now();
        let mut budget = Budget::default();
        budget.earn(start, 1000.0);
        budget.earn(start + Duration::from_secs(3600), 1000.0);
        assert_eq!(budget.saved(), 1000.0);
        (0..1000).for_each(|_| budget.owe(1e6, 5e6));
        let second = Duration::from_secs_f64(2.0 * 5e6 / EARNED_PER_SECOND);
        budget.earn(start + Duration::from_secs(3600) + second, f64::MAX);
        assert!(budget.owed < 1.0, "{}", budget.owed);
    }
}
