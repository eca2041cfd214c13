//! The command line: from arguments to an exit status.

mod audit;
mod check;
mod export;
mod flags;
mod generate_certs;
mod hash_password;
mod health;
mod moderator;
mod password_prompt;

use std::fmt::Display;
use std::io::{self, Write, stderr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};
use log::{Level, error, log_enabled};
use signal_hook::consts::SIGXFSZ;

use crate::config::{Settings, mentions_password, names_secret};
use crate::ops::logging;
use crate::server::{Handle, Server, StartError};
use crate::store::StoreError;

pub use check::{Report, check};

/// The exit status when the server cannot start, or a command fails.
const EXIT_FAILURE: u8 = 1;
/// The exit status for wrong settings or a wrong command line. clap uses the same.
const EXIT_USAGE: u8 = 2;

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    report_file_size_limit();
    let matches = command().try_get_matches().unwrap_or_else(|error| exit_with(&error));
    match matches.subcommand() {
        Some((generate_certs::NAME, matches)) => generate_certs::run(matches),
        Some((export::NAME, matches)) => with_settings(matches, export::run),
        Some((audit::NAME, matches)) => with_settings(matches, audit::run),
        Some((health::NAME, matches)) => with_settings(matches, health::run),
        Some((hash_password::NAME, _)) => hash_password::run(),
        Some((moderator::NAME, matches)) => match matches.subcommand() {
            Some((name, matches)) => {
                with_settings(matches, |settings| moderator::run(settings, name, matches))
            }
            None => ExitCode::from(EXIT_USAGE),
        },
        Some((_, matches)) => with_settings(matches, |settings| check::run(settings, matches)),
        None => with_settings(&matches, serve),
    }
}

/// The whole command line. The manual pages and the completions are generated from it.
pub fn command() -> Command {
    Command::new("tinychat")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A JSON chat room over WebSocket. Without a command, runs the server.")
        .after_help(
            "Flags take precedence over environment variables, and those over a .env file in the working directory.",
        )
        .args(flags::all())
        .args_conflicts_with_subcommands(true)
        .subcommand(generate_certs::command())
        .subcommand(check::command())
        .subcommand(health::command())
        .subcommand(export::command())
        .subcommand(audit::command())
        .subcommand(hash_password::command())
        .subcommand(moderator::command())
}

/// Makes exceeding the limit on file sizes (`ulimit -f`) an error of write(2), as on a full disk: by default, SIGXFSZ
/// ends the process.
fn report_file_size_limit() {
    // The flag is not read: it is enough that the signal is caught.
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        print(stderr(), &format_args!("SIGXFSZ cannot be caught ({error})\n"));
    }
}

/// Exits as clap does, but repeats no words of a command line that mentions a secret: if a password with a space was
/// not quoted, clap reports part of it as an unknown argument.
fn exit_with(error: &clap::Error) -> ! {
    let repeats_words = matches!(
        error.kind(),
        ErrorKind::UnknownArgument
            | ErrorKind::InvalidSubcommand
            | ErrorKind::ArgumentConflict
            | ErrorKind::InvalidValue
            | ErrorKind::ValueValidation
    );
    let mentions_secret = |word: &str| mentions_password(word) || names_secret(&word.replace('-', "_"));
    if !repeats_words || !std::env::args_os().any(|word| mentions_secret(&word.to_string_lossy())) {
        error.exit()
    }
    print(
        stderr(),
        &"error: this command line cannot be used, and is not shown, because it may contain a password\n\n\
          Put quotes around a password with spaces, or set MOD_PASSWORD in .env.\n\n\
          For more information, try '--help'.\n",
    );
    std::process::exit(EXIT_USAGE.into())
}

fn with_settings(matches: &ArgMatches, run: impl FnOnce(&Settings) -> ExitCode) -> ExitCode {
    match Settings::load(|name| flags::value(matches, name)) {
        Ok(settings) => run(&settings),
        Err(errors) => {
            print(stderr(), &errors);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Runs a command that prints something from the store.
fn read_store(
    command: &str,
    settings: &Settings,
    read: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> ExitCode {
    let failed = |reason: &dyn Display| {
        print(stderr(), &format_args!("tinychat {command}: {reason}\n"));
        ExitCode::from(EXIT_FAILURE)
    };
    let Some(path) = settings.database.path() else {
        return failed(&"nothing is stored, because DATABASE_PATH is off");
    };
    match read(path) {
        // A closed pipe, as in `tinychat export | head`, is not a failure.
        Err(StoreError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed(&error),
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn serve(settings: &Settings) -> ExitCode {
    logging::start(settings.log_level);
    let result = match Server::bind_stoppable(settings, Handle::register_signals) {
        Ok(server) => server.run().map_err(|error| error.to_string()),
        Err(StartError::Stopped) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    let status = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            errors.lines().for_each(report);
            ExitCode::from(EXIT_FAILURE)
        }
    };
    log::logger().flush();
    status
}

/// Logs an error that ends the program, or prints it if `LOG_LEVEL` is `off`.
fn report(error: &str) {
    if log_enabled!(Level::Error) {
        error!("{error}");
    } else {
        print(stderr(), &format_args!("{error}\n"));
    }
}

/// Prints, and ignores errors: a closed pipe, as in `tinychat check | head -n 1`, is not a failure.
fn print(mut to: impl Write, text: &dyn Display) {
    let _ = write!(to, "{text}");
}
