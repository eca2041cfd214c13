//! The settings as the server uses them, and where they are read from.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use super::env_file;
use super::error::{ConfigError, ConfigErrors};
use super::parser::Parser;
use super::settings_table::{SETTINGS, Setting};
use super::values::{Host, Network, Origin, Secret};

/// How often the certificate's files are checked for changes. Each check is a few system calls.
pub const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// All settings, parsed. [`SETTINGS`] is the table that users see.
#[derive(Clone, Debug)]
pub struct Settings {
    pub host: Host,
    /// 0: the system chooses.
    pub port: u16,
    /// `None`: nobody can become a moderator.
    pub mod_password: Option<Secret>,
    /// Whether the chat page is served.
    pub web_ui: bool,
    /// `None`: plain `ws://`.
    pub tls: Option<TlsFiles>,
    pub log_level: LevelFilter,
    pub limits: Limits,
    /// `None`: any origin may connect.
    pub allowed_origins: Option<Vec<Origin>>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may read the metrics, in addition to loopback.
    pub metrics_allow: Vec<IpNet>,
}

/// Limits for each client, and for all clients together.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    /// `None`: no limit per address.
    pub connections_per_ip: Option<usize>,
    /// `None`: no limit.
    pub message_rate: Option<MessageRate>,
    /// The longest message from a client, in bytes.
    pub message_bytes: usize,
    /// The most that may be queued for one slow client, in bytes.
    pub send_queue_bytes: usize,
    /// For TLS and the WebSocket upgrade together.
    pub handshake_timeout: Duration,
    /// How long a client may be silent before it is sent a ping, and then how long it has to answer.
    pub ping_interval: Duration,
}

/// How many messages one connection may send.
#[derive(Clone, Copy, Debug)]
pub struct MessageRate {
    /// Sustained.
    pub per_second: NonZeroU32,
    /// At once, before the rate applies.
    pub burst: NonZeroU32,
}

/// The certificate's files, and how they are used.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Whether a missing file prevents startup instead of a fallback to plaintext.
    pub required: bool,
    /// How often the files are checked for changes: [`CERTIFICATE_CHECK_INTERVAL`], except in tests.
    pub check_interval: Duration,
}

impl Settings {
    /// Reads the settings. Flags take precedence over the environment, and the environment over the file `.env` in
    /// the working directory.
    ///
    /// `flag` returns the value of the flag for a setting, by the setting's name, if that flag was given.
    ///
    /// # Errors
    /// All values that cannot be used, and all lines of `.env` that cannot be parsed.
    pub fn load(flag: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigErrors> {
        let (mut file, file_errors) = env_file::read(Path::new(".env"));
        let mut errors: Vec<ConfigError> = file_errors.into_iter().map(ConfigError::from).collect();
        let mut values = HashMap::new();
        for Setting { name, .. } in SETTINGS {
            let value = match flag(name).or_else(|| std::env::var_os(name)) {
                Some(value) => {
                    value.into_string().map_err(|_| errors.push(ConfigError::NotUtf8 { name })).ok()
                }
                None => file.remove(name),
            };
            values.extend(value.map(|value| (name, value)));
        }
        match Self::from_pairs(values.iter().map(|(name, value)| (*name, value.as_str()))) {
            Ok(settings) if errors.is_empty() => Ok(settings),
            Ok(_) => Err(ConfigErrors(errors)),
            Err(ConfigErrors(invalid)) => {
                errors.extend(invalid);
                Err(ConfigErrors(errors))
            }
        }
    }

    /// Parses settings from pairs of name and value. A setting that is not among them has its default.
    ///
    /// # Errors
    /// All values that cannot be used.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ConfigErrors> {
        let mut parse = Parser::new(pairs);
        let use_ssl = parse.switch("USE_SSL");
        let tls = TlsFiles {
            cert: parse.path("SSL_CERT_PATH"),
            key: parse.path("SSL_KEY_PATH"),
            required: parse.switch("SSL_REQUIRED"),
            check_interval: CERTIFICATE_CHECK_INTERVAL,
        };
        if tls.required && !use_ssl {
            parse.errors.push(ConfigError::TlsRequiredButOff);
        }
        let per_second = parse.count("MESSAGE_RATE", 0..=1_000_000);
        let burst = parse.count("MESSAGE_BURST", 1..=1_000_000);
        let message_rate = NonZeroU32::new(per_second).zip(NonZeroU32::new(burst));
        let settings = Self {
            host: parse.parsed("HOST").unwrap_or(Host::Address(Ipv4Addr::LOCALHOST.into())),
            port: parse.count("PORT", 0..=u16::MAX.into()) as u16,
            mod_password: parse.secret("MOD_PASSWORD"),
            web_ui: parse.switch("WEB_UI"),
            tls: use_ssl.then_some(tls),
            log_level: parse.log_level("LOG_LEVEL"),
            limits: Limits {
                connections: parse.count("MAX_CONNECTIONS", 1..=1_000_000) as usize,
                connections_per_ip: match parse.count("MAX_CONNECTIONS_PER_IP", 0..=1_000_000) {
                    0 => None,
                    limit => Some(limit as usize),
                },
                message_rate: message_rate.map(|(per_second, burst)| MessageRate { per_second, burst }),
                message_bytes: parse.count("MAX_MESSAGE_BYTES", 64..=16 * 1024 * 1024) as usize,
                send_queue_bytes: parse.count("SEND_QUEUE_BYTES", 1024..=1024 * 1024 * 1024) as usize,
                handshake_timeout: parse.seconds("HANDSHAKE_TIMEOUT", 1..=3600),
                ping_interval: parse.seconds("PING_INTERVAL", 1..=3600),
            },
            allowed_origins: parse.list("ALLOWED_ORIGINS"),
            trusted_proxies: networks(parse.list("TRUSTED_PROXIES")),
            metrics_allow: networks(parse.list("METRICS_ALLOW")),
        };
        if parse.errors.is_empty() { Ok(settings) } else { Err(ConfigErrors(parse.errors)) }
    }
}

fn networks(list: Option<Vec<Network>>) -> Vec<IpNet> {
    list.unwrap_or_default().into_iter().map(|Network(net)| net).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(pairs: &[(&str, &str)]) -> String {
        Settings::from_pairs(pairs.iter().copied()).expect_err("the settings are invalid").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_docs() {
        let settings = Settings::from_pairs([]).unwrap();
        assert_eq!(settings.host, Host::Address(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(settings.port, 8765);
        assert!(
            settings.mod_password.is_none() && settings.tls.is_none() && settings.allowed_origins.is_none()
        );
        assert!(settings.web_ui);
        assert_eq!(settings.log_level, LevelFilter::Info);
        assert_eq!(settings.limits.connections, 4096);
        assert_eq!(settings.limits.connections_per_ip, Some(64));
        assert_eq!(
            settings.limits.message_rate.map(|rate| (rate.per_second.get(), rate.burst.get())),
            Some((5, 20))
        );
        assert_eq!(settings.limits.message_bytes, 16384);
        assert_eq!(settings.limits.send_queue_bytes, 1048576);
        assert_eq!(settings.limits.handshake_timeout, Duration::from_secs(10));
        assert_eq!(settings.limits.ping_interval, Duration::from_secs(30));
        assert!(settings.trusted_proxies.is_empty());
    }

    #[test]
    fn switches_accept_several_spellings_in_any_case() {
        for (text, expected) in
            [("True", true), ("ON", true), ("1", true), ("yes", true), ("No", false), ("0", false)]
        {
            let settings = Settings::from_pairs([("USE_SSL", text)]).unwrap();
            assert_eq!(settings.tls.is_some(), expected, "{text}");
        }
    }

    #[test]
    fn all_errors_are_reported_together() {
        let report = errors(&[
            ("HOST", "http://example.com"),
            ("PORT", "65536"),
            ("USE_SSL", "perhaps"),
            ("LOG_LEVEL", "loud"),
            ("MAX_CONNECTIONS", "0"),
            ("MESSAGE_RATE", "-1"),
            ("MESSAGE_BURST", ""),
            ("ALLOWED_ORIGINS", "chat.example.com"),
            ("TRUSTED_PROXIES", "10.0.0.0/33"),
            ("SSL_CERT_PATH", ""),
        ]);
        assert_eq!(report.lines().count(), 11, "{report}");
        assert!(
            report.contains("PORT=\"65536\" cannot be used: it must be a whole number from 0 to 65535"),
            "{report}"
        );
        assert!(report.contains("USE_SSL=\"perhaps\""), "{report}");
    }

    #[test]
    fn a_value_cannot_forge_a_line_of_the_report() {
        let report = errors(&[("PORT", "1\nPORT=2\u{1b}")]);
        assert_eq!(report.lines().count(), 2, "{report}");
    }

    #[test]
    fn secrets_are_never_shown() {
        assert!(errors(&[("MOD_PASSWORD", "  ")]).contains("not shown"));
        let settings = Settings::from_pairs([("MOD_PASSWORD", " hunter2 ")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(settings.mod_password.unwrap().expose(), "hunter2");
    }

    #[test]
    fn plaintext_is_an_error_where_tls_is_required() {
        assert!(errors(&[("SSL_REQUIRED", "true")]).contains("set USE_SSL=true"));
    }
}
