//! The password throttle: after five wrong passwords from one address within a minute, no password from there is compared
//! for a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Network;

/// How many wrong passwords block an address.
const MAX_WRONG: usize = 5;
/// How long a wrong password counts, and how long an address is blocked after the last of [`MAX_WRONG`].
const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses are tracked. Beyond that, the one whose last wrong password is the oldest is dropped.
const MAX_ADDRESSES: usize = 10_000;

#[derive(Default)]
pub struct PasswordThrottle {
    wrong: HashMap<Network, Attempts>,
}

/// When one address sent wrong passwords, the oldest first.
#[derive(Default)]
struct Attempts {
    times: Vec<Instant>,
}

impl PasswordThrottle {
    /// How long this address is still blocked; `None`: it is not.
    pub fn wait(&self, address: Network, now: Instant) -> Option<Duration> {
        let last =
            self.wrong.get(&address).filter(|attempts| attempts.times.len() >= MAX_WRONG)?.times.last()?;
        let left = (*last + WINDOW).saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Records a wrong password. If the address was blocked while the password was compared, the block stays as it is.
    pub fn record_wrong(&mut self, address: Network, now: Instant) {
        if self.wait(address, now).is_some() {
            return;
        }
        if self.wrong.len() >= MAX_ADDRESSES && !self.wrong.contains_key(&address) {
            self.evict(now);
        }
        let times = &mut self.wrong.entry(address).or_default().times;
        if times.len() >= MAX_WRONG {
            // The block is over.
            times.clear();
        }
        times.retain(|&time| now < time + WINDOW);
        times.push(now);
    }

    /// How many addresses have sent wrong passwords.
    #[cfg(test)]
    pub fn addresses(&self) -> usize {
        self.wrong.len()
    }

    fn evict(&mut self, now: Instant) {
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
    use std::net::Ipv4Addr;

    use super::*;

    fn network(number: u32) -> Network {
        std::net::IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    #[test]
    fn five_wrong_passwords_within_a_minute_block_the_address_for_a_minute() {
        let (start, eve, bob) = (Instant::now(), network(1), network(2));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut throttle = PasswordThrottle::default();
        for second in 0..5 {
            assert_eq!(throttle.wait(eve, at(second)), None);
            throttle.record_wrong(eve, at(second));
        }
        assert_eq!(throttle.wait(eve, at(4)), Some(WINDOW));
        assert_eq!(throttle.wait(eve, at(63)), Some(Duration::from_secs(1)));
        assert_eq!(throttle.wait(bob, at(5)), None);
        assert_eq!(throttle.wait(eve, at(64)), None);
        throttle.record_wrong(eve, at(64));
        assert_eq!(throttle.wait(eve, at(64)), None);
    }

    /// A hash that took its time once ended the block that faster comparisons had caused in the meantime.
    #[test]
    fn a_late_wrong_password_does_not_end_a_block() {
        let (start, eve) = (Instant::now(), network(1));
        let mut throttle = PasswordThrottle::default();
        (0..6).for_each(|_| throttle.record_wrong(eve, start));
        throttle.record_wrong(eve, start + WINDOW / 2);
        assert_eq!(throttle.wait(eve, start + WINDOW / 2), Some(WINDOW / 2));
    }

    #[test]
    fn five_wrong_passwords_over_more_than_a_minute_block_nothing() {
        let (start, eve) = (Instant::now(), network(1));
        let mut throttle = PasswordThrottle::default();
        for attempt in 0..20 {
            let now = start + Duration::from_secs(attempt * 15);
            assert_eq!(throttle.wait(eve, now), None);
            throttle.record_wrong(eve, now);
        }
    }

    #[test]
    fn the_number_of_tracked_addresses_is_limited() {
        let now = Instant::now();
        let mut throttle = PasswordThrottle::default();
        for number in 0..MAX_ADDRESSES as u32 + 10 {
            throttle.record_wrong(network(number), now);
        }
        assert_eq!(throttle.wrong.len(), MAX_ADDRESSES);
    }
}
