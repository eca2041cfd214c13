//! The bandwidth for user lists: 16 MiB/s in total (docs/protocol.md), which limits how often a large room gets
//! them.
//!
//! Unused budget is saved, up to a limit. New members get their list at once even if nothing is saved. That adds to a
//! debt, which is repaid from half of what accrues, so that a loop of joins and leaves cannot stop the lists to all
//! other members.

use std::time::{Duration, Instant};

/// The budget that accrues, in bytes per second.
pub const LIST_RATE: f64 = 16.0 * 1024.0 * 1024.0;

#[derive(Default)]
pub struct ListBudget {
    /// In bytes.
    saved: f64,
    /// In bytes.
    debt: f64,
    /// When `saved` and `debt` were last updated; `None`: never.
    updated: Option<Instant>,
}

impl ListBudget {
    /// Adds what has accrued since the last call. No more than `max` bytes are saved.
    pub fn accrue(&mut self, now: Instant, max: f64) {
        let elapsed = self.updated.map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let accrued = elapsed * LIST_RATE;
        let repaid = self.debt.min(accrued / 2.0);
        self.debt -= repaid;
        self.saved = (self.saved + accrued - repaid).min(max);
        self.updated = Some(now);
    }

    /// In bytes.
    pub fn saved(&self) -> f64 {
        self.saved
    }

    pub fn spend(&mut self, bytes: f64) {
        self.saved -= bytes;
    }

    /// Adds a debt. It does not grow beyond `max` bytes.
    pub fn owe(&mut self, bytes: f64, max: f64) {
        self.debt = (self.debt + bytes).min(max.max(self.debt));
    }

    /// When this many bytes will be saved; `None`: nothing has accrued yet.
    pub fn available_at(&self, bytes: f64) -> Option<Instant> {
        let missing = (bytes - self.saved).max(0.0);
        // Until the debt is repaid, each byte saved costs another.
        let accrual = missing + missing.min(self.debt);
        self.updated.map(|at| at + Duration::from_secs_f64(accrual / LIST_RATE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_available_when_predicted() {
        let start = Instant::now();
        for debt in [0.0, 1e6, 1e8] {
            let mut budget = ListBudget::default();
            budget.accrue(start, 1e6);
            budget.spend(1e6);
            budget.owe(debt, f64::MAX);
            let at = budget.available_at(2e6).unwrap();
            budget.accrue(at, f64::MAX);
            assert!((budget.saved() - 2e6).abs() < 1.0, "{debt}: {}", budget.saved());
        }
    }

    #[test]
    fn savings_and_debt_are_limited() {
        let start = Instant::now();
        let mut budget = ListBudget::default();
        budget.accrue(start, 1000.0);
        budget.accrue(start + Duration::from_secs(3600), 1000.0);
        assert_eq!(budget.saved(), 1000.0);
        (0..1000).for_each(|_| budget.owe(1e6, 5e6));
        let repayment = Duration::from_secs_f64(2.0 * 5e6 / LIST_RATE);
        budget.accrue(start + Duration::from_secs(3600) + repayment, f64::MAX);
        assert!(budget.debt < 1.0, "{}", budget.debt);
    }
}
