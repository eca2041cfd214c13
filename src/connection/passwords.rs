//! Compares passwords, on the threads of the connections that have sent them: a hash takes a while.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::warn;
use ring::hmac;

use crate::chat::{Access, Attempt, NameKey, Verdict, whole_seconds};
use crate::config::{Password, PasswordHash};
use crate::hub::{HubHandle, Peer};
use crate::limits::PasswordThrottle;
use crate::ops::metrics::Counters;
use crate::ops::random::random;

/// The most passwords that are remembered as right. Beyond that, all are forgotten.
const MAX_KNOWN: usize = 1000;

/// The passwords of the settings, and what has been compared with them.
pub struct Passwords {
    /// `MOD_PASSWORD`. `None`: `/login` makes nobody a moderator.
    login: Option<Password>,
    /// `JOIN_PASSWORD`. `None`: joins need none.
    join: Option<Password>,
    throttle: Mutex<PasswordThrottle>,
    /// Held while a password is hashed, so that passwords keep one core busy at most.
    hashing: Mutex<()>,
    known: Known,
    counters: Arc<Counters>,
}

/// The result of comparing a password.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Right,
    Wrong,
    /// The address has to wait for this many seconds.
    Wait(u64),
    /// The answer is no longer needed.
    Abandoned,
}

impl Passwords {
    /// # Errors
    /// The kernel has no getrandom(2).
    pub fn new(login: Option<Password>, join: Option<Password>, counters: Arc<Counters>) -> io::Result<Self> {
        let known = Known::new(random()?);
        Ok(Self { login, join, throttle: Mutex::default(), hashing: Mutex::default(), known, counters })
    }

    /// What is required of all messages, before a password is compared.
    pub fn requirements(&self) -> Access {
        let login = if self.login.is_none() { Verdict::NotPossible } else { Verdict::NotCompared };
        Access { is_open: self.join.is_none(), join: Verdict::NotCompared, login }
    }

    /// The verdict on the password of a join under this name. `is_needed`: whether the client still waits for it.
    pub fn join(
        &self,
        name: &NameKey,
        attempt: &Attempt,
        peer: &Peer,
        hub: &HubHandle,
        is_needed: impl Fn() -> bool,
    ) -> Verdict {
        let moderator = hub.moderator(name);
        let outcome = match (&moderator, &self.join) {
            (Some(moderator), _) => match &moderator.hash {
                Some(hash) => self.compare_with_hash(hash, attempt, peer, is_needed),
                None => self.compare_at_once(peer, || false),
            },
            (None, Some(password)) => self.compare(password, attempt, peer, is_needed),
            (None, None) => return Verdict::NotCompared,
        };
        match (outcome, moderator) {
            (Comparison::Right, Some(_)) => Verdict::Own,
            (Comparison::Right, None) => Verdict::Shared,
            (Comparison::Wait(seconds), _) => Verdict::Wait(seconds),
            (Comparison::Abandoned, _) => Verdict::NotCompared,
            (Comparison::Wrong, moderator) => {
                match moderator {
                    Some(moderator) => {
                        warn!("{peer}: wrong password for the name {}", moderator.name.shown());
                    }
                    None => warn!("{peer}: wrong password for joining"),
                }
                self.counters.wrong_join_password();
                Verdict::Wrong
            }
        }
    }

    /// The verdict on the password of `/login`.
    pub fn login(&self, attempt: &Attempt, peer: &Peer, is_needed: impl Fn() -> bool) -> Verdict {
        let Some(password) = &self.login else { return Verdict::NotPossible };
        match self.compare(password, attempt, peer, is_needed) {
            Comparison::Right => Verdict::Shared,
            Comparison::Wait(seconds) => Verdict::Wait(seconds),
            Comparison::Abandoned => Verdict::NotCompared,
            Comparison::Wrong => {
                warn!("{peer}: wrong moderator password");
                self.counters.wrong_password();
                Verdict::Wrong
            }
        }
    }

    fn compare(
        &self,
        password: &Password,
        attempt: &Attempt,
        peer: &Peer,
        is_needed: impl Fn() -> bool,
    ) -> Comparison {
        match password {
            Password::Hash(hash) => self.compare_with_hash(hash, attempt, peer, is_needed),
            Password::Plain(password) => self.compare_at_once(peer, || password.matches(attempt.expose())),
        }
    }

    /// For a comparison that takes no time.
    fn compare_at_once(&self, peer: &Peer, is_right: impl FnOnce() -> bool) -> Comparison {
        // Locked until a wrong one is recorded, so that several connections together have no more attempts.
        let mut throttle = self.throttle();
        if let Some(wait) = wait(&throttle, peer) {
            return wait;
        }
        if is_right() {
            return Comparison::Right;
        }
        throttle.record_wrong(peer.network, Instant::now());
        Comparison::Wrong
    }

    fn compare_with_hash(
        &self,
        hash: &PasswordHash,
        attempt: &Attempt,
        peer: &Peer,
        is_needed: impl Fn() -> bool,
    ) -> Comparison {
        if let Some(wait) = wait(&self.throttle(), peer) {
            return wait;
        }
        // After an interruption, all members reconnect at once. Hashing for each of them would take minutes, and clients
        // that guess would delay them further.
        if self.known.is_right(hash, attempt) {
            return Comparison::Right;
        }
        let _turn = lock(&self.hashing);
        // Others may have used up the attempts of this address, or the same password may have been right for them.
        if let Some(wait) = wait(&self.throttle(), peer) {
            return wait;
        }
        if self.known.is_right(hash, attempt) {
            return Comparison::Right;
        }
        if !is_needed() {
            return Comparison::Abandoned;
        }
        if hash.matches(attempt.expose()) {
            self.known.add(hash, attempt);
            return Comparison::Right;
        }
        self.throttle().record_wrong(peer.network, Instant::now());
        Comparison::Wrong
    }

    /// While this is held, no password is hashed.
    #[cfg(test)]
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        lock(&self.hashing)
    }

    fn throttle(&self) -> MutexGuard<'_, PasswordThrottle> {
        lock(&self.throttle)
    }
}

fn wait(throttle: &PasswordThrottle, peer: &Peer) -> Option<Comparison> {
    throttle.wait(peer.network, Instant::now()).map(|left| Comparison::Wait(whole_seconds(left)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The passwords that were right for a hash: as MACs under a key that only this process has.
struct Known {
    key: hmac::Key,
    by_hash: Mutex<HashMap<[u8; 32], hmac::Tag>>,
}

impl Known {
    fn new(key: [u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), by_hash: Mutex::default() }
    }

    /// Compares in constant time.
    fn is_right(&self, hash: &PasswordHash, attempt: &Attempt) -> bool {
        let Some(tag) = lock(&self.by_hash).get(hash.bytes()).copied() else { return false };
        hmac::verify(&self.key, attempt.expose().trim().as_bytes(), tag.as_ref()).is_ok()
    }

    fn add(&self, hash: &PasswordHash, attempt: &Attempt) {
        let tag = hmac::sign(&self.key, attempt.expose().trim().as_bytes());
        let mut by_hash = lock(&self.by_hash);
        if by_hash.len() >= MAX_KNOWN {
            by_hash.clear();
        }
        by_hash.insert(*hash.bytes(), tag);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::IpAddr;
    use std::num::NonZeroU32;
    use std::thread;

    use super::*;
    use crate::chat::{NamedModerator, Username};
    use crate::hub::SharedState;

    fn peer(address: [u8; 4]) -> Peer {
        let network = IpAddr::from(address).into();
        Peer { name: "a client".into(), network, charged: Some(network) }
    }

    fn hash(password: &str) -> PasswordHash {
        let salt = [password.len() as u8; 16];
        PasswordHash::new(password, salt, NonZeroU32::new(1000).unwrap())
    }

    fn attempt(text: &str) -> Attempt {
        Attempt::new(text).unwrap()
    }

    /// `secret` and `open sesame`, as text and as hashes.
    fn all() -> [Passwords; 2] {
        let plain = |text| Password::parse(text).unwrap();
        let hashed = |text| Some(Password::Hash(hash(text)));
        [
            Passwords::new(plain("secret"), plain("open sesame"), Arc::default()).unwrap(),
            Passwords::new(hashed("secret"), hashed("open sesame"), Arc::default()).unwrap(),
        ]
    }

    fn hub(moderators: &[(&str, &str)]) -> HubHandle {
        let state = SharedState::default();
        let moderator = |&(name, password): &_| {
            let name = Username::parse(name).unwrap();
            NamedModerator { name, hash: hash(password).to_string().into() }
        };
        state.set_moderators(&moderators.iter().map(moderator).collect::<Vec<_>>());
        HubHandle::new(crossbeam_channel::bounded(1).0, state).0
    }

    #[test]
    fn each_name_has_its_password() {
        let hub = hub(&[("Meg", "only meg"), ("Max", "only max")]);
        for passwords in all() {
            let join = |name, text| {
                // Each from an address of its own.
                let peer = peer([192, 0, 2, passwords.throttle().addresses() as u8]);
                passwords.join(&NameKey::of(name), &attempt(text), &peer, &hub, || true)
            };
            assert_eq!(join("Bob", " open sesame\t"), Verdict::Shared);
            assert_eq!(join("Meg", "only meg"), Verdict::Own);
            assert_eq!(join("Mеg", "only meg"), Verdict::Own, "with a Cyrillic е");
            for (name, text) in [
                ("Bob", "secret"),
                ("Bob", "Open sesame"),
                ("Bob", "only meg"),
                ("Meg", "open sesame"),
                ("Meg", "secret"),
                ("Meg", "only max"),
                ("MAX", "only meg"),
            ] {
                assert_eq!(join(name, text), Verdict::Wrong, "{name}: {text}");
            }
            let eve = peer([198, 51, 100, 1]);
            assert_eq!(passwords.login(&attempt("secret"), &eve, || true), Verdict::Shared);
            assert_eq!(passwords.login(&attempt("only meg"), &eve, || true), Verdict::Wrong);
        }
    }

    #[test]
    fn without_a_password_to_compare_with_nothing_is_compared() {
        let passwords = Passwords::new(None, None, Arc::default()).unwrap();
        let (hub, eve) = (hub(&[("Meg", "only meg")]), peer([192, 0, 2, 1]));
        for _ in 0..10 {
            let verdict = passwords.join(&NameKey::of("Bob"), &attempt("guess"), &eve, &hub, || true);
            assert_eq!(verdict, Verdict::NotCompared);
            assert_eq!(passwords.login(&attempt("guess"), &eve, || true), Verdict::NotPossible);
        }
        assert_eq!(passwords.throttle().addresses(), 0);
    }

    #[test]
    fn nobody_can_join_as_a_moderator_whose_password_is_damaged() {
        let [_, passwords] = all();
        let (state, name) = (SharedState::default(), Username::parse("Meg").unwrap());
        state.set_moderators(&[NamedModerator { name, hash: "pbkdf2-sha256:".into() }]);
        let hub = HubHandle::new(crossbeam_channel::bounded(1).0, state).0;
        let eve = peer([192, 0, 2, 1]);
        let join = |text| passwords.join(&NameKey::of("Meg"), &attempt(text), &eve, &hub, || true);
        for text in ["open sesame", "secret", "pbkdf2-sha256:", "x", "y"] {
            assert_eq!(join(text), Verdict::Wrong, "{text}");
        }
        assert!(matches!(join("z"), Verdict::Wait(1..=60)));
    }

    /// Each of them finds that the address does not have to wait, before the first is wrong.
    #[test]
    fn many_attempts_at_once_have_no_more_than_one_after_the_other() {
        for passwords in all() {
            let (hub, eve) = (hub(&[]), peer([192, 0, 2, 1]));
            let turn = lock(&passwords.hashing);
            let verdicts: Vec<Verdict> = thread::scope(|scope| {
                let attempt = |number| {
                    let text = attempt(&format!("guess {number}"));
                    match number % 2 {
                        0 => passwords.join(&NameKey::of("Bob"), &text, &eve, &hub, || true),
                        _ => passwords.login(&text, &eve, || true),
                    }
                };
                let threads: Vec<_> = (0..64).map(|number| scope.spawn(move || attempt(number))).collect();
                drop(turn);
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let wrong = verdicts.iter().filter(|&&verdict| verdict == Verdict::Wrong).count();
            let waiting = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Wait(1..=60))).count();
            assert_eq!((wrong, waiting), (5, 59));
            // Now also for the right one.
            let verdict = passwords.login(&attempt("secret"), &eve, || true);
            assert!(matches!(verdict, Verdict::Wait(1..=60)), "{verdict:?}");
            let verdict = passwords.login(&attempt("secret"), &peer([192, 0, 2, 2]), || true);
            assert_eq!(verdict, Verdict::Shared);
        }
    }

    #[test]
    fn what_has_been_right_waits_for_no_other_client() {
        let [_, passwords] = all();
        let (hub, bob) = (hub(&[("Meg", "only meg")]), peer([192, 0, 2, 1]));
        let join = |name, text| passwords.join(&NameKey::of(name), &attempt(text), &bob, &hub, || true);
        assert_eq!((join("Bob", "open sesame"), join("Meg", "only meg")), (Verdict::Shared, Verdict::Own));
        let turn = lock(&passwords.hashing);
        assert_eq!((join("Bob", " open sesame"), join("Meg", "only meg")), (Verdict::Shared, Verdict::Own));
        drop(turn);
        assert_eq!((join("Meg", "open sesame"), join("Bob", "only meg")), (Verdict::Wrong, Verdict::Wrong));
    }

    #[test]
    fn only_so_many_right_passwords_are_known() {
        let known = Known::new([7; 32]);
        let hashes = (0..=MAX_KNOWN).map(|number| PasswordHash::new("x", salt(number), NonZeroU32::MIN));
        let hashes: Vec<PasswordHash> = hashes.collect();
        hashes.iter().for_each(|hash| known.add(hash, &attempt("x")));
        assert!(lock(&known.by_hash).len() <= MAX_KNOWN);
        assert!(known.is_right(&hashes[MAX_KNOWN], &attempt("x")));
        assert!(!known.is_right(&hashes[MAX_KNOWN], &attempt("y")));
        assert!(!known.is_right(&hashes[0], &attempt("x")), "it was forgotten");
    }

    fn salt(number: usize) -> [u8; 16] {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn a_client_that_no_longer_waits_for_the_answer_costs_no_hash() {
        let [_, passwords] = all();
        let (eve, asked) = (peer([192, 0, 2, 1]), Cell::new(0));
        let is_needed = || {
            asked.set(asked.get() + 1);
            false
        };
        assert_eq!(passwords.login(&attempt("guess"), &eve, is_needed), Verdict::NotCompared);
        assert_eq!((asked.get(), passwords.throttle().addresses()), (1, 0));
    }
}
