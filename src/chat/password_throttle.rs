//! Who may try the moderators' password: five wrong ones from one address within a minute, and that address
//! waits for a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub const MAX_WRONG: usize = 5;
/// Within this time wrong passwords add up, and for this time an address waits after too many.
pub const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses are remembered. Past that the one whose last wrong password is oldest is forgotten.
pub const MAX_ADDRESSES: usize = 10_000;

#[derive(Default)]
pub struct Logins {
    wrong: HashMap<IpAddr, Attempts>,
}

/// The wrong passwords of one address, the oldest first.
#[derive(Default)]
struct Attempts {
    times: Vec<Instant>,
}

impl Logins {
    /// How long this address has to wait before it may try again.
    pub fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let last =
            self.wrong.get(&address).filter(|attempts| attempts.times.len() >= MAX_WRONG)?.times.last()?;
        let left = (*last + WINDOW).saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Notes a wrong password from an address that did not have to wait.
    pub fn note_wrong(&mut self, address: IpAddr, now: Instant) {
        if self.wrong.len() >= MAX_ADDRESSES && !self.wrong.contains_key(&address) {
            self.forget(now);
        }
        let times = &mut self.wrong.entry(address).or_default().times;
        if times.len() >= MAX_WRONG {
            // It has waited its minute, and begins anew.
            times.clear();
        }
        times.retain(|&time| now < time + WINDOW);
        times.push(now);
    }

    fn forget(&mut self, now: Instant) {
        self.wrong.retain(|_, attempts| attempts.times.last().is_some_and(|&last| now < last + WINDOW));
        if self.wrong.len() >= MAX_ADDRESSES {
            let oldest = self.wrong.iter().min_by_key(|(_, attempts)| attempts.times.last());
            if let Some(address) = oldest.map(|(&address, _)| address) {
                self.wrong.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_wrong_ones_within_a_minute_and_the_address_waits_a_minute() {
        let (start, eve, bob) = (Instant::now(), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut logins = Logins::default();
        for second in 0..5 {
            assert_eq!(logins.wait(eve, at(second)), None);
            logins.note_wrong(eve, at(second));
        }
        assert_eq!(logins.wait(eve, at(4)), Some(WINDOW));
        assert_eq!(logins.wait(eve, at(63)), Some(Duration::from_secs(1)));
        assert_eq!(logins.wait(bob, at(5)), None);
        assert_eq!(logins.wait(eve, at(64)), None);
        logins.note_wrong(eve, at(64));
        assert_eq!(logins.wait(eve, at(64)), None);
    }

    #[test]
    fn five_wrong_ones_over_more_than_a_minute_are_forgiven() {
        let (start, eve) = (Instant::now(), IpAddr::from([10, 0, 0, 1]));
        let mut logins = Logins::default();
        for attempt in 0..20 {
            let now = start + Duration::from_secs(attempt * 15);
            assert_eq!(logins.wait(eve, now), None);
            logins.note_wrong(eve, now);
        }
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let now = Instant::now();
        let mut logins = Logins::default();
        for number in 0..MAX_ADDRESSES as u32 + 10 {
            logins.note_wrong(IpAddr::from(number.to_be_bytes()), now);
        }
        assert_eq!(logins.wrong.len(), MAX_ADDRESSES);
    }
}
