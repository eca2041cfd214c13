//! The moderators' password, as `/login` compares it.

use subtle::ConstantTimeEq;

/// The password that makes a member a moderator. It does not implement `Debug`, so that it cannot be logged.
pub struct ModPassword(String);

impl ModPassword {
    /// The password, without white space around it.
    pub fn new(password: &str) -> Self {
        Self(password.trim().to_owned())
    }

    /// Compares in constant time if the lengths are equal, so that the time reveals at most the password's length.
    pub fn matches(&self, attempt: &str) -> bool {
        self.0.as_bytes().ct_eq(attempt.trim().as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_password_is_ignored() {
        let password = ModPassword::new(" hunter2 ");
        assert!(password.matches("hunter2") && password.matches(" hunter2\t"));
        for wrong in ["", "hunter", "hunter22", "Hunter2", "hunter 2"] {
            assert!(!password.matches(wrong), "{wrong}");
        }
    }
}
