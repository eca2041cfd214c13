//! `tinychat check`: what a start would find, without listening.

use std::fmt::Write;
use std::io::stdout;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Arg, ArgMatches, Command};
use rustls::pki_types::{CertificateDer, ServerName};

use super::{EXIT_FAILURE, flags, print};
use crate::config::{Settings, TlsFiles};
use crate::ops::Escaped;
use crate::tls::certificate::{self, Concern, Facts};
use crate::tls::{self, TlsError};

pub fn command() -> Command {
    Command::new("check")
        .about("Check the settings and the certificate as at startup, without listening")
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("NAME")
                .help("Also check that the certificate is valid for this host name or address"),
        )
        .args(flags::all())
}

pub fn run(settings: &Settings, matches: &ArgMatches) -> ExitCode {
    let name = matches.get_one::<String>("name").map(String::as_str);
    let report = check(settings, name, SystemTime::now());
    print(stdout(), &report.lines);
    if report.would_start { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

/// What was found, in lines for a person, and whether a start would succeed.
pub struct Report {
    pub lines: String,
    pub would_start: bool,
}

/// Looks at the settings, which are good, and at the certificate; also whether it is for this name, if one is given.
pub fn check(settings: &Settings, name: Option<&str>, now: SystemTime) -> Report {
    let mut report = Report { lines: String::new(), would_start: true };
    report.line(format_args!("settings: good"));
    match &settings.tls {
        None => report.line(format_args!("TLS: off (USE_SSL=false); clients connect to ws://")),
        Some(files) => report.tls(files, name, now),
    }
    report
}

impl Report {
    fn tls(&mut self, files: &TlsFiles, name: Option<&str>, now: SystemTime) {
        let identity = match tls::load(files) {
            Ok(identity) => identity,
            Err(errors) => return self.unusable(files, &errors),
        };
        self.line(format_args!("certificate: {}", files.cert.display()));
        self.line(format_args!("private key: {} (belongs to the certificate)", files.key.display()));
        let Some(facts) = Facts::of(&identity.chain) else {
            return self.line(format_args!("warning: what the certificate says cannot be read here"));
        };
        self.line(format_args!("names: {}", facts.names_shown()));
        self.line(format_args!("issuer: {}", facts.issuer_shown()));
        self.line(format_args!("days left: {}", facts.days_left(now)));
        self.line(format_args!("chain: {}", chain_shown(identity.chain.len())));
        self.line(format_args!("key type: {}", facts.key_type));
        let mut concerns = certificate::concerns(&identity.chain, &facts, now);
        concerns.extend(tls::key_concern(&files.key));
        concerns.extend(name.and_then(|name| name_concern(&identity.chain, name)));
        for concern in concerns {
            match concern {
                Concern::Warning(text) => self.line(format_args!("warning: {text}")),
                Concern::Error(text) => self.line(format_args!("error: {text}")),
            }
        }
    }

    fn unusable(&mut self, files: &TlsFiles, errors: &[TlsError]) {
        self.would_start = tls::may_fall_back(files, errors);
        errors.iter().for_each(|error| self.line(format_args!("error: {error}")));
        if self.would_start {
            self.line(format_args!("warning: a start would fall back to unencrypted ws://"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments) {
        writeln!(self.lines, "{}", Escaped(line)).expect("a String takes whatever is written to it");
    }
}

fn chain_shown(length: usize) -> String {
    match length {
        1 => "the certificate alone".into(),
        length => format!("the certificate and {} more", length - 1),
    }
}

fn name_concern(chain: &[CertificateDer], name: &str) -> Option<Concern> {
    let is_for = ServerName::try_from(name).is_ok_and(|name| certificate::is_for(chain, &name));
    let text = format!("the certificate is not for {name}: clients that connect to that name will refuse it");
    (!is_for).then_some(Concern::Warning(text))
}
