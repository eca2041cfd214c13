//! Time-outs, during which a member can only read. A time-out belongs to a name, so leaving and joining again does
//! not end it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::ChatTime;
use super::name_key::NameKey;
use super::name_map::NameMap;
use super::protocol::MAX_ID;
use super::username::Username;

/// The longest time-out, in seconds: a year.
pub const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;
/// How many names can be timed out at once.
pub const MAX_TIMEOUTS: usize = 10_000;

#[derive(Default)]
pub struct Timeouts {
    by_name: NameMap<TimeOut>,
    in_order: BTreeMap<TimeOut, Username>,
    /// The number of the next time-out.
    next: u64,
}

/// When a time-out ends. The number distinguishes those that end at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeOut {
    ends: ChatTime,
    number: u64,
}

/// All time-outs, for a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeOutState {
    in_order: Vec<(TimeOut, Username)>,
    next: u64,
}

impl Timeouts {
    pub fn state(&self) -> TimeOutState {
        let in_order = self.in_order.iter().map(|(&time_out, name)| (time_out, name.clone()));
        TimeOutState { in_order: in_order.collect(), next: self.next }
    }

    /// `None`: no time-outs can have this state.
    pub fn restored(TimeOutState { in_order, next }: TimeOutState) -> Option<Self> {
        // The number of time-outs, and thus of entries.
        if next > MAX_ID {
            return None;
        }
        let mut timeouts = Self { next, ..Self::default() };
        for (time_out, name) in in_order {
            let is_last = timeouts.in_order.last_key_value().is_none_or(|(&last, _)| last < time_out);
            if !is_last || time_out.number >= next || timeouts.contains(name.key()) {
                return None;
            }
            timeouts.by_name.insert(name.key(), time_out);
            timeouts.in_order.insert(time_out, name);
        }
        Some(timeouts)
    }

    /// All time-outs, in the order of their ends.
    #[cfg(feature = "cluster")]
    pub fn iter(&self) -> impl Iterator<Item = (&Username, ChatTime)> {
        self.in_order.iter().map(|(time_out, name)| (name, time_out.ends))
    }

    /// Times out a name, replacing any earlier time-out. Check [`Self::has_room_for`] first.
    pub fn set(&mut self, name: &Username, ends: ChatTime) {
        self.end(name.key());
        let time_out = TimeOut { ends, number: self.next };
        self.next += 1;
        self.by_name.insert(name.key(), time_out);
        self.in_order.insert(time_out, name.clone());
    }

    /// `false`: there are [`MAX_TIMEOUTS`], and none of them is of this name.
    pub fn has_room_for(&self, name: &NameKey) -> bool {
        self.in_order.len() < MAX_TIMEOUTS || self.contains(name)
    }

    /// Ends the time-out of a name.
    pub fn end(&mut self, name: &NameKey) {
        // There are two if the name has the spelling of one and the skeleton of another.
        while let Some(time_out) = self.by_name.get(name) {
            self.remove(time_out);
        }
    }

    /// The name that was timed out which is the same as this one.
    pub fn name(&self, name: &NameKey) -> Option<&Username> {
        self.in_order.get(&self.by_name.get(name)?)
    }

    pub fn contains(&self, name: &NameKey) -> bool {
        self.by_name.get(name).is_some()
    }

    /// How long a name is still timed out, in seconds, rounded up; `None`: it is not.
    pub fn seconds_left(&self, name: &NameKey, now: ChatTime) -> Option<u64> {
        let left = self.by_name.get(name)?.ends.saturating_since(now);
        (!left.is_zero()).then(|| whole_seconds(left))
    }

    pub fn next_end(&self) -> Option<ChatTime> {
        self.in_order.first_key_value().map(|(time_out, _)| time_out.ends)
    }

    /// Removes a time-out that has ended, if there is one, and returns its name.
    pub fn pop_ended(&mut self, now: ChatTime) -> Option<Username> {
        let (&time_out, _) = self.in_order.first_key_value().filter(|(time_out, _)| time_out.ends <= now)?;
        self.remove(time_out)
    }

    fn remove(&mut self, time_out: TimeOut) -> Option<Username> {
        let name = self.in_order.remove(&time_out)?;
        self.by_name.remove(name.key());
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

    fn username(name: &str) -> Username {
        Username::parse(name).unwrap()
    }

    #[test]
    fn a_second_time_out_replaces_the_first() {
        let (start, bob) = (ChatTime(0), username("bob"));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timeouts = Timeouts::default();
        timeouts.set(&bob, at(60));
        timeouts.set(&bob, at(10));
        assert_eq!(timeouts.seconds_left(bob.key(), at(0)), Some(10));
        assert_eq!(timeouts.seconds_left(bob.key(), start + Duration::from_millis(9001)), Some(1));
        assert_eq!(timeouts.pop_ended(at(9)), None);
        assert_eq!(timeouts.next_end(), Some(at(10)));
        assert_eq!(timeouts.seconds_left(bob.key(), at(10)), None);
        assert_eq!(timeouts.pop_ended(at(10)), Some(bob));
        assert_eq!((timeouts.next_end(), timeouts.pop_ended(at(99))), (None, None));
    }

    /// A member that was timed out could once come back under a name that looked the same.
    #[test]
    fn a_time_out_applies_to_names_that_look_alike() {
        let start = ChatTime(0);
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut timeouts = Timeouts::default();
        timeouts.set(&username("Ian"), after(60));
        for name in ["ian", "lan", "Іаn"] {
            assert_eq!(timeouts.seconds_left(&NameKey::of(name), start), Some(60), "{name}");
        }
        assert!(!timeouts.contains(&NameKey::of("Lan")));
        timeouts.set(&username("Lan"), after(70));
        // The same name as both.
        timeouts.set(&username("lan"), after(5));
        assert_eq!(timeouts.seconds_left(&NameKey::of("Ian"), start), Some(5));
        assert_eq!(timeouts.seconds_left(&NameKey::of("Lan"), start), Some(5));
        assert_eq!(timeouts.pop_ended(after(5)), Some(username("lan")));
        assert_eq!((timeouts.next_end(), timeouts.pop_ended(after(99))), (None, None));
    }

    #[test]
    fn the_number_of_time_outs_is_limited() {
        let ends = ChatTime(0);
        let mut timeouts = Timeouts::default();
        for number in 0..MAX_TIMEOUTS {
            assert!(timeouts.has_room_for(&NameKey::of(&number.to_string())));
            timeouts.set(&username(&number.to_string()), ends);
        }
        assert!(!timeouts.has_room_for(&NameKey::of("one too many")));
        assert!(timeouts.has_room_for(&NameKey::of("0")));
    }
}
