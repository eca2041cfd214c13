//! Time-outs, during which a member can only read. A time-out belongs to a name, so leaving and joining again does
//! not end it.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::username::NameKey;

/// The longest time-out, in seconds: a year.
pub const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;
/// How many names can be timed out at once.
pub const MAX_TIMEOUTS: usize = 10_000;

#[derive(Default)]
pub struct Timeouts {
    ends: HashMap<NameKey, Instant>,
    /// The same, in order of their ends.
    by_end: BTreeSet<(Instant, NameKey)>,
}

impl Timeouts {
    /// Times out a name, replacing any earlier time-out. `false`: there are [`MAX_TIMEOUTS`] already.
    pub fn set(&mut self, name: &NameKey, ends: Instant) -> bool {
        if self.ends.len() >= MAX_TIMEOUTS && !self.contains(name) {
            return false;
        }
        if let Some(before) = self.ends.insert(name.clone(), ends) {
            self.by_end.remove(&(before, name.clone()));
        }
        self.by_end.insert((ends, name.clone()))
    }

    pub fn contains(&self, name: &NameKey) -> bool {
        self.ends.contains_key(name)
    }

    /// How long a name is still timed out, in seconds, rounded up; `None`: it is not.
    pub fn seconds_left(&self, name: &NameKey, now: Instant) -> Option<u64> {
        let left = self.ends.get(name)?.saturating_duration_since(now);
        (!left.is_zero()).then(|| whole_seconds(left))
    }

    pub fn next_end(&self) -> Option<Instant> {
        self.by_end.first().map(|&(ends, _)| ends)
    }

    /// Removes a time-out that has ended, if there is one, and returns its name.
    pub fn pop_ended(&mut self, now: Instant) -> Option<NameKey> {
        let (_, name) = self.by_end.first().filter(|&&(ends, _)| ends <= now)?.clone();
        self.by_end.pop_first();
        self.ends.remove(&name);
        Some(name)
    }
}

/// A duration in seconds, rounded up.
pub fn whole_seconds(left: Duration) -> u64 {
    left.as_nanos().div_ceil(1_000_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_time_out_replaces_the_first() {
        let (start, bob) = (Instant::now(), NameKey::of("bob"));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timeouts = Timeouts::default();
        timeouts.set(&bob, at(60));
        timeouts.set(&bob, at(10));
        assert_eq!(timeouts.seconds_left(&bob, at(0)), Some(10));
        assert_eq!(timeouts.seconds_left(&bob, start + Duration::from_millis(9001)), Some(1));
        assert_eq!(timeouts.pop_ended(at(9)), None);
        assert_eq!(timeouts.next_end(), Some(at(10)));
        assert_eq!(timeouts.seconds_left(&bob, at(10)), None);
        assert_eq!(timeouts.pop_ended(at(10)), Some(bob));
        assert_eq!((timeouts.next_end(), timeouts.pop_ended(at(99))), (None, None));
    }

    #[test]
    fn the_number_of_time_outs_is_limited() {
        let ends = Instant::now();
        let mut timeouts = Timeouts::default();
        for number in 0..MAX_TIMEOUTS {
            assert!(timeouts.set(&NameKey::of(&number.to_string()), ends));
        }
        assert!(!timeouts.set(&NameKey::of("one too many"), ends));
        assert!(timeouts.set(&NameKey::of("0"), ends + Duration::from_secs(1)));
    }
}
