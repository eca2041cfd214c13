//! `tinychat hash-password`: prints the hash of a password, for `MOD_PASSWORD` and `JOIN_PASSWORD`.

use std::io::{stderr, stdout};
use std::process::ExitCode;

use clap::Command;

use super::password_prompt::{PasswordError, read_password};
use super::{EXIT_FAILURE, print};
use crate::config::{NEW_HASH_ITERATIONS, PasswordHash};
use crate::ops::random::random;

pub const NAME: &str = "hash-password";

pub fn command() -> Command {
    Command::new(NAME)
        .about("Print the hash of a password, for MOD_PASSWORD and JOIN_PASSWORD")
        .long_about(
            "Print the hash of a password, for MOD_PASSWORD and JOIN_PASSWORD. The password is typed twice, or is \
             the first line of standard input.",
        )
}

pub fn run() -> ExitCode {
    match read_password(1).and_then(|password| new_hash(&password)) {
        Ok(hash) => {
            print(stdout(), &format_args!("{hash}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(stderr(), &format_args!("tinychat {NAME}: {error}\n"));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// A hash with a new salt.
pub fn new_hash(password: &str) -> Result<PasswordHash, PasswordError> {
    Ok(PasswordHash::new(password, random()?, NEW_HASH_ITERATIONS))
}
