//! `tinychat check`: checks the settings, the certificate and the store as at startup, without listening.

use std::fmt::{Arguments, Write};
use std::io::stdout;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Arg, ArgMatches, Command};

use super::{EXIT_FAILURE, flags, print};
use crate::config::{DatabasePath, Settings, TlsFiles};
use crate::ops::Escaped;
use crate::ops::clock;
use crate::store::{self, Inspection};
use crate::tls::{Diagnostic, Identity, TlsError, fallback_allowed};

pub fn command() -> Command {
    Command::new("check")
        .about("Check the settings, the certificate and the store as at startup, without listening")
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

/// The result of a check.
pub struct Report {
    /// Human-readable; each line ends with a line feed.
    pub lines: String,
    /// Whether the server would start.
    pub would_start: bool,
}

/// Checks the certificate and the store that the settings name, and whether the certificate is valid for `name` if one
/// is given.
pub fn check(settings: &Settings, name: Option<&str>, now: SystemTime) -> Report {
    let mut report = Report { lines: String::new(), would_start: true };
    report.line(format_args!("settings: good"));
    match &settings.tls {
        None => report.line(format_args!("TLS: off (USE_SSL=false); clients connect to ws://")),
        Some(files) => match Identity::load(files) {
            Ok(identity) => report.usable(files, &identity, name, now),
            Err(errors) => report.unusable(files, &errors),
        },
    }
    report.store(&settings.database);
    report
}

impl Report {
    fn usable(&mut self, files: &TlsFiles, identity: &Identity, name: Option<&str>, now: SystemTime) {
        self.line(format_args!("certificate: {}", files.cert.display()));
        self.line(format_args!("private key: {} (belongs to the certificate)", files.key.display()));
        if let Some(info) = &identity.info {
            self.line(format_args!("names: {}", info.display_names()));
            self.line(format_args!("issuer: {}", info.display_issuer()));
            self.line(format_args!("days left: {}", info.days_left(now)));
            self.line(format_args!("chain: {}", display_chain(identity.chain.len())));
            self.line(format_args!("key type: {}", info.key_type));
        }
        for diagnostic in identity.diagnostics(files, now) {
            self.diagnostic(&diagnostic);
        }
        if let Some(name) = name.filter(|name| !identity.is_valid_for(name)) {
            self.line(format_args!(
                "warning: the certificate is not for {name}: clients that connect to that name will refuse it"
            ));
        }
    }

    fn unusable(&mut self, files: &TlsFiles, errors: &[TlsError]) {
        self.would_start = fallback_allowed(files, errors);
        errors.iter().for_each(|error| self.line(format_args!("error: {error}")));
        if self.would_start {
            self.line(format_args!("warning: the server would fall back to unencrypted ws://"));
        }
    }

    fn store(&mut self, database: &DatabasePath) {
        let Some(path) = database.path() else {
            self.line(format_args!("store: off (DATABASE_PATH=off); nothing is written to disk"));
            return;
        };
        match store::inspect(path) {
            Ok(None) => self.line(format_args!("store: {} (does not exist yet)", path.display())),
            Ok(Some(inspection)) => self.usable_store(path, &inspection),
            Err(error) if error.is_folder_not_writable() && matches!(database, DatabasePath::Default(_)) => {
                self.line(format_args!("warning: {error}"));
                self.line(format_args!("warning: the server would run without a store, in memory"));
            }
            Err(error) => {
                self.would_start = false;
                self.line(format_args!("error: {error}"));
            }
        }
    }

    fn usable_store(&mut self, path: &Path, inspection: &Inspection) {
        let &Inspection { messages, bytes, version, times, in_use } = inspection;
        self.line(format_args!("store: {}", path.display()));
        if let Some(pid) = in_use {
            self.line(format_args!("in use: by the server with process id {pid}"));
        }
        self.line(format_args!("messages kept: {messages}"));
        if let Some((oldest, newest)) = times {
            self.line(format_args!("from: {}", clock::utc(oldest)));
            self.line(format_args!("to: {}", clock::utc(newest)));
        }
        self.line(format_args!("size: {} KiB", bytes.div_ceil(1024)));
        self.line(format_args!("integrity: good"));
        if version < store::schema_version() {
            self.line(format_args!(
                "schema: {version}; the server will upgrade it, and leave a copy beside it"
            ));
        }
    }

    fn diagnostic(&mut self, diagnostic: &Diagnostic) {
        match diagnostic {
            Diagnostic::Warning(text) => self.line(format_args!("warning: {text}")),
            Diagnostic::Error(text) => self.line(format_args!("error: {text}")),
        }
    }

    fn line(&mut self, line: Arguments) {
        writeln!(self.lines, "{}", Escaped(line)).expect("writing to a String cannot fail");
    }
}

fn display_chain(certificates: usize) -> String {
    match certificates {
        1 => "the certificate alone".into(),
        count => format!("the certificate and {} more", count - 1),
    }
}
