//! Passwords as settings give them: as text, or as a hash (docs/operations.md).

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::values::Secret;

/// Rounds of PBKDF2-HMAC-SHA256 in a new hash, as the OWASP Password Storage Cheat Sheet recommends.
pub const NEW_HASH_ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("it is not 0");
/// The rounds that a hash may have.
const ITERATIONS: RangeInclusive<u32> = 1..=10_000_000;
/// The random bytes of a new hash.
pub const SALT_BYTES: usize = 16;
/// The salts that a hash may have, in bytes. RFC 8018, section 4.1, recommends at least 8.
const SALT_LENGTHS: RangeInclusive<usize> = 8..=64;
const HASH_BYTES: usize = 32;
/// What the text of a hash begins with. It contains no `$`, which shells and `.env` files expand.
const PREFIX: &str = "pbkdf2-sha256:";

/// A password to compare with.
#[derive(Clone, Debug)]
pub enum Password {
    Plain(Secret),
    Hash(PasswordHash),
}

impl Password {
    /// A text that begins like a hash is one. `Ok(None)`: the text is blank.
    ///
    /// # Errors
    /// It begins like a hash, and is none.
    pub fn parse(text: &str) -> Result<Option<Self>, MalformedHash> {
        match Secret::new(text) {
            Some(secret) if secret.expose().starts_with(PREFIX) => {
                PasswordHash::parse(secret.expose()).map(Self::Hash).map(Some)
            }
            secret => Ok(secret.map(Self::Plain)),
        }
    }
}

impl Secret {
    /// Compares in constant time if the lengths are equal, so that the time reveals at most the password's length.
    /// White space around the attempt is ignored.
    pub fn matches(&self, attempt: &str) -> bool {
        self.expose().as_bytes().ct_eq(attempt.trim().as_bytes()).into()
    }
}

/// A hash of a password: `pbkdf2-sha256:ITERATIONS:SALT:HASH`, with salt and hash in hexadecimal digits.
#[derive(Clone, PartialEq)]
pub struct PasswordHash {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: [u8; HASH_BYTES],
}

/// A text is not a [`PasswordHash`].
#[derive(Debug, PartialEq, Error)]
#[error("a hash as tinychat hash-password prints it: {PREFIX}ITERATIONS:SALT:HASH")]
pub struct MalformedHash;

impl PasswordHash {
    /// Hashes a password, without white space around it. This takes some tenths of a second for
    /// [`NEW_HASH_ITERATIONS`]. `salt`: from the system's generator.
    pub fn new(password: &str, salt: [u8; SALT_BYTES], iterations: NonZeroU32) -> Self {
        let mut hash = [0; HASH_BYTES];
        pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, &salt, password.trim().as_bytes(), &mut hash);
        Self { iterations, salt: salt.into(), hash }
    }

    /// # Errors
    /// The text is not a hash.
    pub fn parse(text: &str) -> Result<Self, MalformedHash> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(MalformedHash)?;
        let [iterations, salt, hash] =
            <[&str; 3]>::try_from(rest.split(':').collect::<Vec<_>>()).map_err(|_| MalformedHash)?;
        let is_number = iterations.bytes().all(|byte| byte.is_ascii_digit());
        let iterations = iterations.parse().ok().filter(|count| is_number && ITERATIONS.contains(count));
        let salt = from_hex(salt).filter(|salt| SALT_LENGTHS.contains(&salt.len()));
        let hash = from_hex(hash).and_then(|hash| hash.try_into().ok());
        Ok(Self {
            iterations: iterations.and_then(NonZeroU32::new).ok_or(MalformedHash)?,
            salt: salt.ok_or(MalformedHash)?,
            hash: hash.ok_or(MalformedHash)?,
        })
    }

    /// Hashes an attempt, without white space around it, and compares in constant time.
    pub fn matches(&self, attempt: &str) -> bool {
        let attempt = attempt.trim().as_bytes();
        pbkdf2::verify(PBKDF2_HMAC_SHA256, self.iterations, &self.salt, attempt, &self.hash).is_ok()
    }

    /// The hash alone. It differs from all others, because salts are random.
    pub fn bytes(&self) -> &[u8; HASH_BYTES] {
        &self.hash
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{PREFIX}{}:", self.iterations)?;
        self.salt.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
        formatter.write_str(":")?;
        self.hash.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Hides the hash: whoever has it can try passwords without a limit.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("PasswordHash(not shown)")
    }
}

/// `None`: the text does not consist of pairs of hexadecimal digits.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
    let pairs = text.as_bytes().chunks_exact(2);
    if pairs.remainder().is_empty() { pairs.map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7914, section 11; 32 of the 64 bytes, which PBKDF2 derives in blocks of 32.
    #[test]
    fn hashes_are_those_of_the_rfc() {
        for (password, salt, iterations, hash) in [
            ("passwd", "salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
            ("Password", "NaCl", 80_000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"),
        ] {
            let iterations = NonZeroU32::new(iterations).unwrap();
            let hash = from_hex(hash).unwrap().try_into().unwrap();
            let hash = PasswordHash { iterations, salt: salt.into(), hash };
            assert!(hash.matches(password) && !hash.matches("password"));
        }
    }

    #[test]
    fn a_hash_is_parsed_as_it_is_written() {
        let iterations = NonZeroU32::new(7).unwrap();
        let hash = PasswordHash::new(" two words\n", *b"sixteen bytes...", iterations);
        let text = hash.to_string();
        assert!(text.starts_with("pbkdf2-sha256:7:7369787465656e2062797465732e2e2e:"), "{text}");
        for text in [&text, &text.to_uppercase().replace("PBKDF2-SHA", "pbkdf2-sha"), &format!(" {text} ")] {
            assert_eq!(PasswordHash::parse(text), Ok(hash.clone()));
        }
        assert!(hash.matches("two words") && hash.matches("\ttwo words "));
        assert!(!hash.matches("two  words") && !hash.matches("") && !hash.matches(&text));
        assert!(matches!(Password::parse(&text), Ok(Some(Password::Hash(_)))));
    }

    #[test]
    fn a_malformed_hash_is_an_error() {
        let (salt, hash) = ("00".repeat(16), "11".repeat(32));
        assert!(PasswordHash::parse(&format!("pbkdf2-sha256:10000000:{salt}:{hash}")).is_ok());
        for text in [
            "pbkdf2-sha256:".into(),
            format!("pbkdf2-sha256:600000:{salt}"),
            format!("pbkdf2-sha256:600000:{salt}:{hash}:"),
            format!("pbkdf2-sha256:0:{salt}:{hash}"),
            format!("pbkdf2-sha256:10000001:{salt}:{hash}"),
            format!("pbkdf2-sha256:+1:{salt}:{hash}"),
            format!("pbkdf2-sha256::{salt}:{hash}"),
            format!("pbkdf2-sha256:99999999999:{salt}:{hash}"),
            format!("pbkdf2-sha256:1:{}:{hash}", "00".repeat(7)),
            format!("pbkdf2-sha256:1:{}:{hash}", "00".repeat(65)),
            format!("pbkdf2-sha256:1:{salt}0:{hash}"),
            format!("pbkdf2-sha256:1:{salt}:{hash}1"),
            format!("pbkdf2-sha256:1:{salt}:{}", "11".repeat(31)),
            format!("pbkdf2-sha256:1:{salt}:{}", "11".repeat(33)),
            format!("pbkdf2-sha256:1:{salt}:{}", "x1".repeat(32)),
            format!("pbkdf2-sha256:1:{salt}:{}ä", "11".repeat(31)),
        ] {
            assert_eq!(PasswordHash::parse(&text), Err(MalformedHash), "{text}");
            assert!(Password::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn white_space_around_a_password_is_ignored() {
        let Ok(Some(Password::Plain(password))) = Password::parse(" hunter2 ") else { panic!() };
        assert!(password.matches("hunter2") && password.matches(" hunter2\t"));
        for wrong in ["", "hunter", "hunter22", "Hunter2", "hunter 2"] {
            assert!(!password.matches(wrong), "{wrong}");
        }
        assert!(matches!(Password::parse(" \t"), Ok(None)));
    }

    #[test]
    fn neither_passwords_nor_hashes_are_shown() {
        let hash = PasswordHash::new("hunter2", [0; SALT_BYTES], NonZeroU32::MIN);
        let plain = Password::parse("hunter2").unwrap();
        let shown = format!("{:?} {plain:?}", Password::Hash(hash.clone()));
        assert!(!shown.contains("hunter2") && !shown.contains(&hash.to_string()[40..]), "{shown}");
    }
}
