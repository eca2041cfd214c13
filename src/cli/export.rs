//! `tinychat export`: prints the kept messages as JSON lines.

use std::io::{BufWriter, stdout};
use std::process::ExitCode;

use clap::Command;

use super::{flags, read_store};
use crate::config::Settings;
use crate::store;

pub const NAME: &str = "export";

pub fn command() -> Command {
    Command::new(NAME)
        .about("Print the kept messages as JSON lines, oldest first, whether or not the server is running")
        .args(flags::all())
}

pub fn run(settings: &Settings) -> ExitCode {
    read_store(NAME, settings, |path| store::export(path, &mut BufWriter::new(stdout().lock())))
}
