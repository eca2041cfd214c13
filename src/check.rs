//! `tinychat check`: what a start would find, without listening.

use std::fmt::Write;
use std::time::SystemTime;

use crate::certificate::Facts;
use crate::settings::{Settings, TlsFiles};
use crate::tls::{self, TlsError};

/// What was found, in lines for a person, and whether a start would succeed.
pub struct Report {
    pub lines: String,
    pub would_start: bool,
}

/// Looks at the settings, which are good, and at the certificate.
pub fn check(settings: &Settings, now: SystemTime) -> Report {
    let mut report = Report { lines: String::new(), would_start: true };
    report.line(format_args!("settings: good"));
    match &settings.tls {
        None => report.line(format_args!("TLS: off (USE_SSL=false), clients connect to ws://")),
        Some(files) => report.tls(files, now),
    }
    report
}

impl Report {
    fn tls(&mut self, files: &TlsFiles, now: SystemTime) {
        match tls::load(files) {
            Ok(identity) => {
                self.line(format_args!("certificate: {}", files.cert.display()));
                self.line(format_args!("private key: {}, belongs to the certificate", files.key.display()));
                match Facts::of(&identity.chain) {
                    Some(facts) => self.facts(&facts, now),
                    None => self.line(format_args!("warning: the certificate's text cannot be read here")),
                }
            }
            Err(errors) => {
                let missing = errors.iter().all(|error| matches!(error, TlsError::Missing { .. }));
                self.would_start = missing && !files.required;
                errors.iter().for_each(|error| self.line(format_args!("error: {error}")));
                if self.would_start {
                    self.line(format_args!("warning: a start would fall back to unencrypted ws://"));
                }
            }
        }
    }

    fn facts(&mut self, facts: &Facts, now: SystemTime) {
        let names = if facts.names.is_empty() { "none".into() } else { facts.names.join(", ") };
        self.line(format_args!("names: {names}"));
        let itself = if facts.self_signed { " (itself: self-signed)" } else { "" };
        self.line(format_args!("issuer: {}{itself}", facts.issuer));
        self.line(format_args!("days left: {}", facts.days_left(now)));
        self.line(format_args!("chain: {} certificate(s)", facts.chain_length));
        self.line(format_args!("key type: {}", facts.key_type));
    }

    fn line(&mut self, line: std::fmt::Arguments) {
        writeln!(self.lines, "{line}").expect("a String takes whatever is written to it");
    }
}
