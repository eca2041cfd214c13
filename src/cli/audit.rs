//! `tinychat audit`: prints the audit log of moderation.

use std::io::{BufWriter, stdout};
use std::process::ExitCode;

use clap::Command;

use super::{flags, read_store};
use crate::config::Settings;
use crate::store;

pub const NAME: &str = "audit";

pub fn command() -> Command {
    Command::new(NAME)
        .about("Print the audit log of moderation, oldest first, whether or not the server is running")
        .args(flags::all())
}

pub fn run(settings: &Settings) -> ExitCode {
    read_store(NAME, settings, |path| store::audit(path, &mut BufWriter::new(stdout().lock())))
}
