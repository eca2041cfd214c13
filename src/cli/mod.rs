//! The command line, to an exit status.

mod check;

use std::fmt::Display;
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use log::{Level, error, log_enabled};

use crate::config::{self, Settings};
use crate::ops::logging;
use crate::server::Server;
use crate::tls::self_signed::{self, GenerateError, MAX_DAYS};

pub use check::check;

/// The server could not start, or a command could not do its work.
const FAILED: u8 = 1;
/// The settings or the command line are wrong.
const BAD_SETTINGS: u8 = 2;

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    let matches = command_line().get_matches();
    match matches.subcommand() {
        Some(("generate-certs", matches)) => generate_certs(matches),
        Some((_, matches)) => with_settings(matches, |settings| {
            let name = matches.get_one::<String>("name").map(String::as_str);
            let report = check(settings, name, SystemTime::now());
            say(stdout(), &report.lines);
            if report.would_start { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }),
        None => with_settings(&matches, serve),
    }
}

fn with_settings(flags: &ArgMatches, work: impl FnOnce(&Settings) -> ExitCode) -> ExitCode {
    match Settings::load(flags) {
        Ok(settings) => work(&settings),
        Err(mistakes) => {
            say(stderr(), &mistakes);
            ExitCode::from(BAD_SETTINGS)
        }
    }
}

fn serve(settings: &Settings) -> ExitCode {
    logging::start(settings.log_level);
    let served = Server::bind(settings).map_err(|error| error.to_string()).and_then(|server| {
        let run = server.handle().register_signals().and_then(|()| server.run());
        run.map_err(|error| error.to_string())
    });
    let status = match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(reasons) => {
            for reason in reasons.lines() {
                // Even a log that is off must not hide why there is no server.
                if log_enabled!(Level::Error) {
                    error!("{reason}");
                } else {
                    say(stderr(), &format_args!("{reason}\n"));
                }
            }
            ExitCode::from(FAILED)
        }
    };
    log::logger().flush();
    status
}

/// Prints for a person, who may have gone: `tinychat check | head -n 1` is no error.
fn say(mut to: impl Write, what: &dyn Display) {
    let _ = write!(to, "{what}");
}

fn generate_certs(matches: &ArgMatches) -> ExitCode {
    let path = |name| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let request = self_signed::Request {
        cert: path("cert"),
        key: path("key"),
        days: matches.get_one("days").copied().unwrap_or_default(),
        host: matches.get_one("host").cloned().unwrap_or_default(),
        force: matches.get_flag("force"),
    };
    match self_signed::generate(&request) {
        Ok(()) => {
            say(stdout(), &request);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(stderr(), &format_args!("tinychat generate-certs: {error}\n"));
            let asked_wrongly = matches!(error, GenerateError::Host(_) | GenerateError::SameFile(_));
            ExitCode::from(if asked_wrongly { BAD_SETTINGS } else { FAILED })
        }
    }
}

fn command_line() -> Command {
    let path = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("PATH")
            .default_value(default)
            .help(help)
            .value_parser(value_parser!(PathBuf))
    };
    Command::new("tinychat")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A JSON chat room over WebSocket. Without a command it runs the server.")
        .after_help("Settings come from flags, the environment, and a .env file in the working directory, in this order.")
        .args(config::flags())
        .args_conflicts_with_subcommands(true)
        .subcommand(
            Command::new("generate-certs")
                .about("Make a self-signed certificate and key, for testing")
                .arg(path("cert", "./certs/server.crt", "Where the certificate goes"))
                .arg(path("key", "./certs/server.key", "Where the private key goes"))
                .arg(
                    Arg::new("days")
                        .long("days")
                        .value_name("N")
                        .default_value("365")
                        .value_parser(value_parser!(u32).range(1..=i64::from(MAX_DAYS)))
                        .help("How long it is valid"),
                )
                .arg(
                    Arg::new("host")
                        .long("host")
                        .value_name("NAME")
                        .default_value("localhost")
                        .help("Host name or address it is for, beside localhost, 127.0.0.1 and ::1"),
                )
                .arg(Arg::new("force").long("force").action(ArgAction::SetTrue).help("Replace files that are there")),
        )
        .subcommand(
            Command::new("check")
                .about("Check settings and certificate as a start would, without listening")
                .arg(
                    Arg::new("name")
                        .long("name")
                        .value_name("NAME")
                        .help("Also check that the certificate is for this host name or address"),
                )
                .args(config::flags()),
        )
}
