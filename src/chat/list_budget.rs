//! How much user lists may cost: 16 MiB/s in total (docs/protocol.md), which limits how often a large room gets
//! them, and how fast it can be joined.
//!
//! Unused budget is saved, up to a limit. New members get their list at once, even if nothing is saved. Those lists
//! are paid from a credit, so that a few hundred joins at once do not delay the others' lists. What exceeds the
//! credit is a debt, repaid from half of what accrues: a loop of joins and leaves cannot keep the lists from everyone
//! else. While the debt is too large, joins have to wait.

use std::time::{Duration, Instant};

/// What all lists together may cost, in bytes per second.
pub const LIST_RATE: f64 = 16.0 * MIB;
/// The part of it that refills the credit for new members' lists, in bytes per second.
const CREDIT_RATE: f64 = 1.0 * MIB;
/// What accrues for all other lists, in bytes per second.
const ROUND_RATE: f64 = LIST_RATE - CREDIT_RATE;
/// What repays a debt, in bytes per second.
const REPAYMENT_RATE: f64 = ROUND_RATE / 2.0;
/// In bytes.
const MAX_CREDIT: f64 = 8.0 * MIB;
/// Joins wait while the debt is larger than this, in bytes.
const MAX_DEBT: f64 = 32.0 * MIB;
const MIB: f64 = 1024.0 * 1024.0;

/// How fast members may join.
#[derive(Clone, Copy, Debug, Default)]
pub struct JoinPace {
    /// When this was known; `None`: nobody has joined yet.
    as_of: Option<Instant>,
    /// The size of the list that the next new member gets, in bytes.
    list_bytes: f64,
    /// What lists to new members could cost then, in bytes; negative: joins have to wait.
    headroom: f64,
}

pub struct ListBudget {
    /// For lists to members, in bytes.
    saved: f64,
    /// For lists to new members, in bytes.
    credit: f64,
    /// In bytes.
    debt: f64,
    /// When the above were last updated; `None`: never.
    updated: Option<Instant>,
}

impl Default for ListBudget {
    fn default() -> Self {
        Self { saved: 0.0, credit: MAX_CREDIT, debt: 0.0, updated: None }
    }
}

impl ListBudget {
    /// Adds what has accrued since the last call. No more than `max` bytes are saved.
    pub fn accrue(&mut self, now: Instant, max: f64) {
        let elapsed = self.updated.map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let accrued = elapsed * ROUND_RATE;
        let repaid = self.debt.min(elapsed * REPAYMENT_RATE);
        self.debt -= repaid;
        self.saved = (self.saved + accrued - repaid).min(max);
        self.credit = (self.credit + elapsed * CREDIT_RATE).min(MAX_CREDIT);
        self.updated = Some(now);
    }

    /// In bytes.
    pub fn saved(&self) -> f64 {
        self.saved
    }

    /// Pays for lists to members.
    pub fn spend(&mut self, bytes: f64) {
        self.saved -= bytes;
    }

    /// Pays for a list to a new member.
    pub fn spend_on_new_member(&mut self, bytes: f64) {
        let from_credit = bytes.min(self.credit);
        self.credit -= from_credit;
        self.debt += bytes - from_credit;
    }

    /// When this many bytes will be saved; `None`: nothing has accrued yet.
    pub fn available_at(&self, bytes: f64) -> Option<Instant> {
        let missing = (bytes - self.saved).max(0.0);
        // Until the debt is repaid, each byte saved costs another.
        let accrual = missing + missing.min(self.debt);
        self.updated.map(|at| at + Duration::from_secs_f64(accrual / ROUND_RATE))
    }

    /// How fast members may join that are each sent a list of this many bytes.
    pub fn join_pace(&self, list_bytes: usize) -> JoinPace {
        let headroom = MAX_DEBT - self.debt + self.credit;
        JoinPace { as_of: self.updated, list_bytes: list_bytes as f64, headroom }
    }
}

impl JoinPace {
    /// When the next member may join if this many others have been admitted that are not members yet, whose entries in
    /// the list take `entry_bytes` together.
    pub fn resume_at(&self, admitted: usize, entry_bytes: usize, now: Instant) -> Instant {
        // The list of the first contains one of these entries, and that of the last all.
        let lists = admitted as f64 * (self.list_bytes + entry_bytes as f64 / 2.0);
        let elapsed = self.as_of.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let repaid = elapsed.as_secs_f64() * REPAYMENT_RATE;
        let headroom = (self.headroom + repaid).min(MAX_DEBT + MAX_CREDIT);
        now + Duration::from_secs_f64((lists - headroom).max(0.0) / REPAYMENT_RATE)
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
            budget.spend_on_new_member(MAX_CREDIT + debt);
            let at = budget.available_at(2e6).unwrap();
            budget.accrue(at, f64::MAX);
            assert!((budget.saved() - 2e6).abs() < 1.0, "{debt}: {}", budget.saved());
        }
    }

    #[test]
    fn savings_are_limited() {
        let start = Instant::now();
        let mut budget = ListBudget::default();
        budget.accrue(start, 1000.0);
        budget.accrue(start + Duration::from_secs(3600), 1000.0);
        assert_eq!((budget.saved(), budget.credit), (1000.0, MAX_CREDIT));
    }

    #[test]
    fn too_much_debt_stops_joins_until_it_is_repaid() {
        let start = Instant::now();
        let mut budget = ListBudget::default();
        budget.accrue(start, 1e6);
        let resume_at = |budget: &ListBudget, now| budget.join_pace(1000).resume_at(0, 0, now);
        budget.spend_on_new_member(MAX_CREDIT + MAX_DEBT);
        assert_eq!(resume_at(&budget, start), start);
        budget.spend_on_new_member(ROUND_RATE);
        let resume = start + Duration::from_secs(2);
        assert_eq!(resume_at(&budget, start), resume);
        assert_eq!(resume_at(&budget, start + Duration::from_secs(1)), resume);
        budget.accrue(resume, 1e6);
        assert_eq!(resume_at(&budget, resume), resume);
    }

    /// All joins that waited were once admitted at the same time: hundreds of megabytes of lists.
    #[test]
    fn members_that_join_at_once_are_admitted_one_after_the_other() {
        let start = Instant::now();
        let mut budget = ListBudget::default();
        budget.accrue(start, 1e6);
        let now = start + Duration::from_secs(600);
        let admitted = |number, list| {
            // A pause before does not admit more at once.
            let [early, late] =
                [start, now].map(|now| budget.join_pace(list).resume_at(number, 64 * number, now) - now);
            assert_eq!(early, late);
            late
        };
        let at_once = ((MAX_CREDIT + MAX_DEBT) / MIB) as usize;
        assert_eq!(admitted(at_once - 1, 1024 * 1024), Duration::ZERO);
        for number in at_once..1000 {
            let wait = admitted(number + 1, 1024 * 1024) - admitted(number, 1024 * 1024);
            assert!(wait.as_secs_f64() >= MIB / REPAYMENT_RATE - 1e-6, "{number}: {wait:?}");
        }
        assert_eq!(admitted(1000, 1000), Duration::ZERO, "the list of a room that fills is short at first");
        assert!(admitted(4000, 1000) > Duration::from_secs(50));
    }
}
