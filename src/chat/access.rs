//! Passwords that clients send, and the results of comparing them. They are compared before an entry is made, so that
//! no entry contains a password.

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

/// The passwords of a message. A first message with a name can have both.
#[derive(Default)]
pub struct Attempts {
    /// The `password` of a message that can join.
    pub join: Option<Attempt>,
    /// The argument of `/login`.
    pub login: Option<Attempt>,
}

/// The results of comparing the passwords of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Access {
    pub join: Verdict,
    pub login: Verdict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Verdict {
    /// There was no password, or none that matters.
    #[default]
    NotCompared,
    /// It is the shared one: `JOIN_PASSWORD`, or `MOD_PASSWORD` for `/login`.
    Shared,
    /// It is the password of the named moderator with this name.
    Own,
    Wrong,
    /// It was not compared: too many wrong passwords came from the address, which has to wait for this many seconds.
    Wait(u64),
}

impl Verdict {
    /// The error for a password that was refused.
    pub fn refusal(self) -> Option<String> {
        match self {
            Self::Wrong => Some("Wrong password.".into()),
            Self::Wait(seconds) => Some(format!("Too many wrong passwords: wait {seconds} seconds.")),
            Self::NotCompared | Self::Shared | Self::Own => None,
        }
    }
}

#[cfg(any(fuzzing, test))]
impl Attempts {
    /// Compares them with one password for everything.
    pub fn compare(&self, password: &str) -> Access {
        let verdict = |attempt: &Option<Attempt>| match attempt {
            None => Verdict::NotCompared,
            Some(attempt) if attempt.expose() == password => Verdict::Shared,
            Some(_) => Verdict::Wrong,
        };
        Access { join: verdict(&self.join), login: verdict(&self.login) }
    }
}
