//! Secrets that clients send, and the results of comparing passwords. They are compared before an entry is made, so
//! that no entry contains a password.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::format::is_default;
use super::session::SessionSecret;
use super::username::Username;

/// A password that a client has sent. It does not implement `Debug`, so that it cannot be logged.
pub struct Attempt(String);

impl Attempt {
    /// `None`: the text is blank.
    pub fn new(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| Self(text.to_owned()))
    }

    /// The password itself. Never print or log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The secrets of a message. A first message with a name can have both passwords.
#[derive(Default)]
pub struct Attempts {
    /// The `password` of a message that can join.
    pub join: Option<Attempt>,
    /// The argument of `/login`.
    pub login: Option<Attempt>,
    /// The `session` of a join.
    pub session: Option<SessionSecret>,
}

/// A named moderator: names that count as this one are reserved for whoever has its password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedModerator {
    pub name: Username,
    /// The hash of its password, as it is stored.
    pub hash: Arc<str>,
}

/// What the client's server requires, and the results of comparing the passwords of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Whether a join needs no password, because `JOIN_PASSWORD` is not set.
    #[serde(rename = "o", default, skip_serializing_if = "is_default")]
    pub is_open: bool,
    #[serde(rename = "j", default, skip_serializing_if = "is_default")]
    pub join: Verdict,
    #[serde(rename = "l", default, skip_serializing_if = "is_default")]
    pub login: Verdict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There was no password, or none that matters.
    #[default]
    NotCompared,
    /// It is the shared one: `JOIN_PASSWORD`, or `MOD_PASSWORD` for `/login`.
    Shared,
    /// It is the password of the named moderator with this name.
    Own,
    Wrong,
    /// There is nothing to compare it with: `MOD_PASSWORD` is not set.
    NotPossible,
    /// It was not compared: too many wrong passwords came from the address, which has to wait for this many seconds.
    Wait(u64),
}

impl Verdict {
    /// The error for a password that was refused.
    pub fn refusal(self) -> Option<String> {
        match self {
            Self::Wrong => Some("Wrong password.".into()),
            Self::NotPossible => Some("Nobody can become a moderator here: MOD_PASSWORD is not set.".into()),
            Self::Wait(seconds) => Some(format!("Too many wrong passwords: wait {seconds} seconds.")),
            Self::NotCompared | Self::Shared | Self::Own => None,
        }
    }
}

#[cfg(any(fuzzing, test))]
impl Attempts {
    /// Compares them with one password for everything, where anyone may join.
    pub fn compare(&self, password: &str) -> Access {
        let verdict = |attempt: &Option<Attempt>| match attempt {
            None => Verdict::NotCompared,
            Some(attempt) if attempt.expose() == password => Verdict::Shared,
            Some(_) => Verdict::Wrong,
        };
        Access { is_open: true, join: verdict(&self.join), login: verdict(&self.login) }
    }
}
