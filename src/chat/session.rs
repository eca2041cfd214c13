//! Sessions: the secrets with which clients take over their places in the room.
//!
//! The room and its entries have only digests of them. The secret itself stays with the server that the client is
//! connected to, until the join is answered.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};

use super::protocol::{JoinAnswer, ServerMessage};
use super::room::Effect;

/// The secret with which a client takes over its place in the room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionSecret([u8; Self::BYTES]);

/// What identifies a session without allowing anyone to resume it: the first half of the secret's SHA-256. The secret
/// is random, so it needs no salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionDigest([u8; Self::BYTES]);

impl SessionSecret {
    pub const BYTES: usize = 16;

    /// `random`: from the system's generator.
    pub fn new(random: [u8; Self::BYTES]) -> Self {
        Self(random)
    }

    /// `None`: it is not 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    pub fn digest(&self) -> SessionDigest {
        let hash = digest::digest(&digest::SHA256, &self.0);
        let mut digest = [0; SessionDigest::BYTES];
        digest.copy_from_slice(&hash.as_ref()[..SessionDigest::BYTES]);
        SessionDigest(digest)
    }
}

impl SessionDigest {
    pub const BYTES: usize = 16;
}

impl From<SessionDigest> for String {
    fn from(SessionDigest(bytes): SessionDigest) -> Self {
        hex(bytes)
    }
}

impl TryFrom<String> for SessionDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        parse_hex(&text).map(Self).ok_or("a session is not 32 hexadecimal digits")
    }
}

impl fmt::Display for SessionSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&hex(self.0))
    }
}

/// Hides the secret.
impl fmt::Debug for SessionSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("SessionSecret")
    }
}

fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_hex.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(number.to_be_bytes())
}

/// The secrets that the answer to a join may contain.
#[derive(Clone, Copy, Debug, Default)]
pub struct JoinSecrets {
    /// The one that the client has sent.
    pub sent: Option<SessionSecret>,
    /// The one that was generated for it.
    pub new: Option<SessionSecret>,
}

impl JoinSecrets {
    /// Adds what only the client's own server has to the answer to its join.
    pub fn complete(&self, effects: &mut [Effect], max_message_bytes: usize) {
        for effect in effects {
            let Effect::Send(_, ServerMessage::History(answer)) = effect else { continue };
            let secrets = [self.sent, self.new].into_iter().flatten();
            let session = secrets.into_iter().find(|secret| answer.session == Some(secret.digest()));
            answer.join = session.map(|session| JoinAnswer { session, max_message_bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_parsed_as_it_is_written() {
        let session = SessionSecret::new(*b"\0\x01sixteen bytes.");
        assert_eq!(SessionSecret::parse(&session.to_string()), Some(session));
        for text in ["", "1", "+0000000000000000000000000000001", "ä", &"0".repeat(31), &"0".repeat(33)] {
            assert_eq!(SessionSecret::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_digest_is_the_first_half_of_the_sha_256() {
        // printf '\0%.0s' {1..16} | sha256sum
        let expected = 0x374708fff7719dd5979ec875d56cd228_u128.to_be_bytes();
        assert_eq!(SessionSecret::new([0; SessionSecret::BYTES]).digest(), SessionDigest(expected));
    }
}
