//! The settings as the server uses them, and where they are read from.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use super::cluster::ClusterSettings;
use super::env_file::EnvFile;
use super::error::{ConfigError, ConfigErrors};
use super::parser::Parser;
use super::password::Password;
use super::settings_table::{SETTINGS, Setting};
use super::values::{Host, Network, Origin};

/// How often the certificate's files are checked for changes. Each check is a few system calls.
pub const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// All settings, parsed. [`SETTINGS`] is the table that users see.
#[derive(Clone, Debug)]
pub struct Settings {
    pub host: Host,
    /// 0: the system chooses.
    pub port: u16,
    /// `None`: nobody can become a moderator.
    pub mod_password: Option<Password>,
    /// What a join needs; `None`: nothing.
    pub join_password: Option<Password>,
    /// Whether the chat page is served.
    pub web_ui: bool,
    /// `None`: plain `ws://`.
    pub tls: Option<TlsFiles>,
    pub log_level: LevelFilter,
    pub database: DatabasePath,
    pub history: HistorySettings,
    /// How long a member that lost its connection stays in the room. Zero: not at all.
    pub resume_timeout: Duration,
    pub limits: Limits,
    /// `None`: any origin may connect.
    pub allowed_origins: Option<Vec<Origin>>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may read the metrics, in addition to loopback.
    pub metrics_allow: Vec<IpNet>,
    /// `None`: the server runs by itself.
    pub cluster: Option<ClusterSettings>,
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq)]
pub enum DatabasePath {
    /// Nothing is written to disk.
    Off,
    /// `DATABASE_PATH` is not set. If the store cannot be created there, the server runs without it.
    Default(PathBuf),
    Explicit(PathBuf),
}

impl DatabasePath {
    /// `None`: `off`.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Default(path) | Self::Explicit(path) => Some(path),
        }
    }
}

/// How much of what was said is kept.
#[derive(Clone, Copy, Debug)]
pub struct HistorySettings {
    /// 0: nothing is kept.
    pub messages: usize,
    /// `None`: messages are kept forever.
    pub max_age: Option<Duration>,
}

/// Limits for each client, and for all clients together.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    /// `None`: no limit per address.
    pub connections_per_ip: Option<usize>,
    /// Sustained connections per second from one address. `None`: no limit.
    pub connect_rate: Option<NonZeroU32>,
    /// Sustained joins per second from one address. `None`: no limit.
    pub join_rate: Option<NonZeroU32>,
    /// `None`: no limit.
    pub message_rate: Option<MessageRate>,
    /// All connections from one address together may send as much as this many. `None`: no limit.
    pub senders_per_ip: Option<NonZeroU32>,
    /// The longest message from a client.
    pub message_bytes: usize,
    /// The most that may be queued for one slow client, in bytes.
    pub send_queue_bytes: usize,
    /// For TLS and the WebSocket upgrade together, and for each message.
    pub handshake_timeout: Duration,
    /// How long a client may be silent before it is sent a ping, and then how long it has to answer.
    pub ping_interval: Duration,
}

/// How many messages one connection may send. A message counts once for each KiB or part of a KiB.
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
        let file = EnvFile::read(Path::new(".env"));
        Self::from_sources(|name| flag(name).or_else(|| std::env::var_os(name)), file)
    }

    /// Reads the settings from the content of a `.env` file alone.
    #[cfg(any(fuzzing, test))]
    pub fn from_env_file(bytes: &[u8]) -> Result<Self, ConfigErrors> {
        Self::from_sources(|_| None, EnvFile::from_bytes(Path::new(".env"), bytes))
    }

    /// `given` takes precedence over the file.
    fn from_sources(
        given: impl Fn(&str) -> Option<OsString>,
        mut file: EnvFile,
    ) -> Result<Self, ConfigErrors> {
        let mut errors: Vec<ConfigError> = file.errors.drain(..).map(ConfigError::from).collect();
        let mut values = HashMap::new();
        for Setting { name, .. } in SETTINGS {
            let value = match given(name) {
                Some(value) => {
                    value.into_string().map_err(|_| errors.push(ConfigError::NotUtf8 { name })).ok()
                }
                None => file.value(name).map(str::to_owned),
            };
            values.extend(value.map(|value| (name, value)));
        }
        let confidential = file.confidential(SETTINGS.iter().map(|setting| setting.name));
        let pairs = values.iter().map(|(name, value)| (*name, value.as_str()));
        match Self::parse(Parser::new(pairs, confidential)) {
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
        Self::parse(Parser::new(pairs, Vec::new()))
    }

    fn parse(mut parse: Parser) -> Result<Self, ConfigErrors> {
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
        let cluster_name = parse.parsed("CLUSTER_NAME");
        let node = parse.parsed_if_set("NODE_NAME");
        let url = parse.parsed_if_set("CLUSTER_URL");
        if url.is_some() && !cfg!(feature = "cluster") {
            parse.errors.push(ConfigError::ClusterNotBuilt);
        }
        let settings = Self {
            host: parse.parsed("HOST").unwrap_or(Host::Address(Ipv4Addr::LOCALHOST.into())),
            port: parse.count("PORT", 0..=u16::MAX.into()) as u16,
            mod_password: parse.password("MOD_PASSWORD"),
            join_password: parse.password("JOIN_PASSWORD"),
            web_ui: parse.switch("WEB_UI"),
            tls: use_ssl.then_some(tls),
            log_level: parse.log_level("LOG_LEVEL"),
            database: parse.database_path("DATABASE_PATH"),
            history: HistorySettings {
                messages: parse.count("HISTORY_MESSAGES", 0..=1_000_000) as usize,
                max_age: match parse.count("HISTORY_DAYS", 0..=36_500) {
                    0 => None,
                    days => Some(days * DAY),
                },
            },
            resume_timeout: parse.seconds("RESUME_SECONDS", 0..=86_400),
            limits: Limits {
                connections: parse.count("MAX_CONNECTIONS", 1..=1_000_000) as usize,
                connections_per_ip: match parse.count("MAX_CONNECTIONS_PER_IP", 0..=1_000_000) {
                    0 => None,
                    limit => Some(limit as usize),
                },
                connect_rate: NonZeroU32::new(parse.count("CONNECT_RATE", 0..=1_000_000)),
                join_rate: NonZeroU32::new(parse.count("JOIN_RATE", 0..=1_000_000)),
                senders_per_ip: NonZeroU32::new(parse.count("MAX_SENDERS_PER_IP", 0..=1_000_000)),
                message_rate: message_rate.map(|(per_second, burst)| MessageRate { per_second, burst }),
                message_bytes: parse.count("MAX_MESSAGE_BYTES", 64..=16 * 1024 * 1024) as usize,
                send_queue_bytes: parse.count("SEND_QUEUE_BYTES", 1024..=1024 * 1024 * 1024) as usize,
                handshake_timeout: parse.seconds("HANDSHAKE_TIMEOUT", 1..=3600),
                ping_interval: parse.seconds("PING_INTERVAL", 1..=3600),
            },
            allowed_origins: parse.list("ALLOWED_ORIGINS"),
            trusted_proxies: networks(parse.list("TRUSTED_PROXIES")),
            metrics_allow: networks(parse.list("METRICS_ALLOW")),
            cluster: url.zip(cluster_name).map(|(url, name)| ClusterSettings { url, name, node }),
        };
        if parse.errors.is_empty() { Ok(settings) } else { Err(ConfigErrors(parse.errors)) }
    }
}

fn networks(list: Option<Vec<Network>>) -> Vec<IpNet> {
    list.unwrap_or_default().into_iter().map(|Network(net)| net).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn the_store_is_a_file_or_off() {
        for (text, expected) in [
            (None, DatabasePath::Default("./tinychat.db".into())),
            (Some("./tinychat.db"), DatabasePath::Explicit("./tinychat.db".into())),
            (Some("/srv/my chat.db"), DatabasePath::Explicit("/srv/my chat.db".into())),
            (Some("OFF "), DatabasePath::Off),
        ] {
            let settings = Settings::from_pairs(text.map(|text| ("DATABASE_PATH", text))).unwrap();
            assert_eq!(settings.database, expected);
        }
        assert!(errors(&[("DATABASE_PATH", "")]).contains("the path of a file, or off"));
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
        for name in ["MOD_PASSWORD", "JOIN_PASSWORD"] {
            assert!(errors(&[(name, "  ")]).contains("not shown"));
            let report = errors(&[(name, "pbkdf2-sha256:600000:hunter2")]);
            assert!(report.contains(&format!("{name} (its value is not shown) cannot be used")), "{report}");
            assert!(report.contains("tinychat hash-password") && !report.contains("hunter2"), "{report}");
            let settings = Settings::from_pairs([(name, " hunter2 ")]).unwrap();
            assert!(!format!("{settings:?}").contains("hunter2"));
            let password = settings.mod_password.or(settings.join_password);
            assert!(matches!(password, Some(Password::Plain(secret)) if secret.expose() == "hunter2"));
        }
    }

    #[test]
    fn the_password_in_the_cluster_url_is_never_shown() {
        let (url, broken) = ("redis://:hunter2@localhost", "redis//:hunter2@localhost");
        let report = errors(&[("CLUSTER_URL", broken)]);
        assert!(report.contains("CLUSTER_URL (its value is not shown"), "{report}");
        assert!(report.contains("rediss://") && !report.contains("hunter2"), "{report}");
        for value in ["hunter2", url, "CLUSTER_URL redis:"] {
            let report = errors(&[("CLUSTER_URL", url), ("PORT", value), ("HOST", "a b")]);
            assert!(!report.contains("hunter2") && !report.contains("redis:"), "{report}");
        }
        let file = format!("CLUSTER_URL={url}\nUSE_SSL=1\nSSL_CERT_PATH=./${{CLUSTER_URL}}\nPORT=x");
        assert!(!shown(file.as_bytes()).contains("hunter2"));
    }

    #[test]
    fn a_cluster_has_a_url_and_a_name() {
        assert!(Settings::from_pairs([("CLUSTER_NAME", "other")]).unwrap().cluster.is_none());
        assert!(Settings::from_pairs([("CLUSTER_URL", "")]).unwrap().cluster.is_none());
        assert!(errors(&[("CLUSTER_NAME", "a b")]).contains("letters, digits"));
        let pairs = [("CLUSTER_URL", "redis://:hunter2@localhost"), ("NODE_NAME", "first")];
        if cfg!(feature = "cluster") {
            let cluster = Settings::from_pairs(pairs).unwrap().cluster.unwrap();
            assert_eq!(cluster.url.address(), "localhost:6379");
            assert_eq!((cluster.name.as_str(), cluster.node.unwrap().as_str()), ("tinychat", "first"));
        } else {
            let report = errors(&pairs);
            assert!(report.contains("--features cluster") && !report.contains("hunter2"), "{report}");
        }
    }

    fn from_file(bytes: &[u8]) -> Result<Settings, ConfigErrors> {
        Settings::from_sources(|_| None, EnvFile::from_bytes(Path::new(".env"), bytes))
    }

    /// What is shown of a `.env` file's settings: the errors or, in the log, the address and the certificate's files.
    fn shown(bytes: &[u8]) -> String {
        match from_file(bytes) {
            Err(errors) => errors.to_string(),
            Ok(Settings { host, tls, .. }) => format!("{host} {tls:?}"),
        }
    }

    #[test]
    fn a_list_without_items_is_reported_with_what_is_allowed() {
        for (name, allowed) in [
            ("METRICS_ALLOW", "networks like 10.0.0.0/8 or addresses, comma-separated"),
            ("TRUSTED_PROXIES", "networks like 10.0.0.0/8 or addresses, comma-separated"),
            ("ALLOWED_ORIGINS", "origins like https://chat.example.com, comma-separated, without a path"),
        ] {
            for value in [",", " , ", " "] {
                let report = errors(&[(name, value)]);
                let expected = format!("{name}={value:?} cannot be used: it must be {allowed}");
                assert!(report.contains(&expected), "{report}");
            }
        }
    }

    /// With a separator that does not end a line of `.env`, the next line's password was once shown as part of a value.
    #[test]
    fn a_broken_line_with_two_settings_is_not_shown() {
        for separator in ["\0", "\r", "\u{85}", "\u{b}", "\u{c}", "\u{2028}", "\u{1b}", " ", "", ",", ";"] {
            for name in ["PORT", "HOST", "SSL_CERT_PATH", "ALLOWED_ORIGINS", "METRICS_ALLOW", "USE_SSL"] {
                for line in [
                    format!("{name}=1{separator}MOD_PASSWORD=hunter2"),
                    format!("{name}=\"1{separator}MOD_PASSWORD=hunter2\""),
                ] {
                    let report = from_file(line.as_bytes()).expect_err(&line).to_string();
                    assert!(!report.contains("hunter2"), "{report}");
                    assert!(
                        report.contains(&format!("  {name} (its value is not shown, because it ")),
                        "{report}"
                    );
                }
            }
        }
        assert!(
            shown(b"PORT=\"1\nMOD_PASSWORD=hunter2\"").contains("because it contains control characters")
        );
    }

    #[test]
    fn a_password_in_another_value_is_not_shown() {
        for file in [
            "MOD_PASSWORD=hunter2\nPORT=${MOD_PASSWORD}",
            "MOD_PASSWORD=hunter2\nHOST=${MOD_PASSWORD}",
            "MOD_PASSWORD=hunter2\nUSE_SSL=1\nSSL_CERT_PATH=\"./${MOD_PASSWORD}\"",
            "X=hunter2\nMOD_PASSWORD=${X}\nPORT=${X}",
            "MOD_PASSWORD=hunter2\nPORT=${MOD_PASSWORD}\nMOD_PASSWORD=other",
            "MOD_PASSWORD=hunter2\nX=${MOD_PASSWORD}\nPORT='1'\"${MOD_PASSWORD}\"",
            "DB_PASS=hunter2\nPORT=${DB_PASS}",
            "MODPASSWORD=hunter2\nUSE_SSL=on\nSSL_KEY_PATH=${MODPASSWORD}",
            "A=hunt\nB=er2\nPORT=${A}${B}",
            "MOD_PASSWORD=hunter2\nPORT=hunter2",
        ] {
            assert!(!shown(file.as_bytes()).contains("hunter2"), "{file:?}: {}", shown(file.as_bytes()));
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(2000))]

        /// Lines in any order, damaged in two places.
        #[test]
        fn no_env_file_shows_a_password(
            order in proptest::sample::subsequence(&LINES[..], 1..LINES.len()).prop_shuffle(),
            password_at: proptest::sample::Index,
            line in "(export )?MOD_PASSWORD ?= ?[\"']?",
            end in "[\"']?( # note)?",
            edits in proptest::collection::vec((0..4u8, any::<proptest::sample::Index>(), 0..DAMAGE.len()), 0..3),
            encoding in 0..4u8,
        ) {
            let mut lines: Vec<String> = order.into_iter().map(str::to_owned).collect();
            lines.insert(password_at.index(lines.len() + 1), format!("{line}{MARKER}{end}"));
            let mut text: Vec<char> = lines.join("\n").chars().collect();
            for (edit, at, damage) in edits {
                let at = at.index(text.len());
                match edit {
                    0 => text.insert(at, DAMAGE[damage]),
                    1 => text[at] = DAMAGE[damage],
                    2 => drop(text.remove(at)),
                    _ => text.truncate(at.max(1)),
                }
            }
            let text = String::from_iter(text);
            let bytes = match encoding {
                0 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                1 => [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect(),
                _ => text.clone().into_bytes(),
            };
            let shown = shown(&bytes);
            // Damage within the marker leaves its halves.
            let (first, second) = MARKER.split_at(MARKER.len() / 2);
            proptest::prop_assert!(!shown.contains(first) && !shown.contains(second), "{text:?}: {shown}");
        }
    }

    const MARKER: &str = "Kq7wZr3bXv9t";
    const LINES: [&str; 10] = [
        "PORT=many",
        "HOST=${MOD_PASSWORD}",
        "LOG_LEVEL=\"${MOD_PASSWORD}\"",
        "PORT=\"${MOD_PASSWORD}",
        "USE_SSL=on",
        "WEB_UI='yes",
        "SSL_CERT_PATH=./certs/server.crt",
        "SSL_KEY_PATH=${MOD_PASSWORD}",
        "ALLOWED_ORIGINS=https://chat.example.com",
        "# a comment",
    ];
    const DAMAGE: [char; 22] = [
        '\0', '\r', '\n', '\t', ' ', '\u{b}', '\u{c}', '\u{85}', '\u{a0}', '\u{2028}', '\u{feff}', '"', '\'',
        '\\', '$', '{', '}', '=', '#', ';', 'x', '0',
    ];

    #[test]
    fn plaintext_is_an_error_where_tls_is_required() {
        assert!(errors(&[("SSL_REQUIRED", "true")]).contains("set USE_SSL=true"));
    }
}
