//! `tinychat generate-certs`: creates a self-signed certificate and key for testing.

use std::io::{stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{EXIT_FAILURE, EXIT_USAGE, print};
use crate::tls::self_signed::{self, GenerateError, MAX_DAYS, Request};

pub const NAME: &str = "generate-certs";

pub fn command() -> Command {
    let path = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("PATH")
            .default_value(default)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    let days = Arg::new("days")
        .long("days")
        .value_name("N")
        .default_value("365")
        .value_parser(value_parser!(u32).range(1..=i64::from(MAX_DAYS)))
        .help("Days until the certificate expires");
    let host = Arg::new("host")
        .long("host")
        .value_name("NAME")
        .default_value("localhost")
        .help("Host name or address of the server, in addition to localhost, 127.0.0.1 and ::1");
    let force = Arg::new("force").long("force").action(ArgAction::SetTrue).help("Replace existing files");
    Command::new(NAME)
        .about("Create a self-signed certificate and key for testing")
        .arg(path("cert", "./certs/server.crt", "Where to write the certificate"))
        .arg(path("key", "./certs/server.key", "Where to write the private key"))
        .arg(days)
        .arg(host)
        .arg(force)
}

pub fn run(matches: &ArgMatches) -> ExitCode {
    let path = |name| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let request = Request {
        cert: path("cert"),
        key: path("key"),
        days: matches.get_one("days").copied().unwrap_or_default(),
        host: matches.get_one("host").cloned().unwrap_or_default(),
        force: matches.get_flag("force"),
    };
    match self_signed::generate(&request) {
        Ok(()) => {
            print(stdout(), &summary(&request));
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(stderr(), &format_args!("tinychat {NAME}: {error}\n"));
            let is_usage = matches!(error, GenerateError::Host(_) | GenerateError::SameFile(_));
            ExitCode::from(if is_usage { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

/// What was created, and the settings that use it.
fn summary(request: &Request) -> String {
    let Request { host, days, .. } = request;
    let (cert, key) = (request.cert.display(), request.key.display());
    format!(
        "Created a self-signed certificate for {host}, valid for {days} days:\n  \
           certificate: {cert}\n  \
           private key: {key} (readable only by you)\n\
         It is for testing: clients must be told to trust it. To use it, set:\n  \
           USE_SSL=true\n  \
           SSL_CERT_PATH={cert}\n  \
           SSL_KEY_PATH={key}\n"
    )
}
