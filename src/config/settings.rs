//! The settings of SPEC.md part 3: environment, `.env` and flags, turned once into types that cannot be wrong.
//!
//! All mistakes are collected and reported together, each with the setting, its value and what is allowed.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ArgMatches};
use ipnet::IpNet;
use log::LevelFilter;

use super::env_file;

/// What the server is told. See [`SETTINGS`] for the table that users see.
#[derive(Clone, Debug)]
pub struct Settings {
    pub host: Host,
    /// 0 lets the system choose.
    pub port: u16,
    /// `None`: nobody can become moderator.
    pub mod_password: Option<Secret>,
    /// Whether browsers are given the chat page.
    pub web_ui: bool,
    /// `None`: plain `ws://`.
    pub tls: Option<TlsFiles>,
    pub log_level: LevelFilter,
    pub limits: Limits,
    /// `None`: any origin may connect.
    pub allowed_origins: Option<Vec<Origin>>,
    pub trusted_proxies: Vec<IpNet>,
    /// Who may read the metrics, beside loopback.
    pub metrics_allow: Vec<IpNet>,
}

/// The bounds that clients meet.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    /// `None`: no bound for one address.
    pub connections_per_ip: Option<usize>,
    /// `None`: as many as they like.
    pub message_rate: Option<MessageRate>,
    pub message_bytes: usize,
    pub send_queue_bytes: usize,
    pub handshake_timeout: Duration,
    pub ping_interval: Duration,
}

/// How many messages one connection may send.
#[derive(Clone, Copy, Debug)]
pub struct MessageRate {
    /// In the long run.
    pub per_second: NonZeroU32,
    /// At once before that.
    pub burst: NonZeroU32,
}

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Whether a missing file stops the start instead of falling back to plaintext.
    pub required: bool,
}

/// One row of the settings table; `.env.example`, `--help` and the README are held to it.
pub struct Setting {
    pub name: &'static str,
    /// `None`: unset.
    pub default: Option<&'static str>,
    /// What stands for the value in `--help`.
    placeholder: &'static str,
    help: &'static str,
}

/// Every setting, in the order in which users are shown them.
pub const SETTINGS: [Setting; 20] = [
    setting("HOST", Some("127.0.0.1"), "ADDRESS", "Address to listen on (IPv4, IPv6 or a name)"),
    setting("PORT", Some("8765"), "PORT", "Port; 0 lets the system choose"),
    setting("MOD_PASSWORD", None, "PASSWORD", "What /login asks for; unset: nobody can become moderator"),
    setting("WEB_UI", Some("true"), "BOOL", "Serve the chat page to browsers"),
    setting("USE_SSL", Some("false"), "BOOL", "Serve wss:// instead of ws://"),
    setting("SSL_CERT_PATH", Some("./certs/server.crt"), "FILE", "Certificate with its chain, PEM"),
    setting("SSL_KEY_PATH", Some("./certs/server.key"), "FILE", "Private key, PEM"),
    setting("SSL_REQUIRED", Some("false"), "BOOL", "Never fall back to plaintext"),
    setting("LOG_LEVEL", Some("info"), "LEVEL", "off, error, warn, info, debug or trace"),
    setting("MAX_CONNECTIONS", Some("4096"), "COUNT", "Connections at once"),
    setting(
        "MAX_CONNECTIONS_PER_IP",
        Some("64"),
        "COUNT",
        "From one address; 0: no bound; loopback is exempt",
    ),
    setting(
        "MESSAGE_RATE",
        Some("5"),
        "COUNT",
        "Messages a second from one client in the long run; 0: no bound",
    ),
    setting("MESSAGE_BURST", Some("20"), "COUNT", "Messages it may send at once before that"),
    setting("MAX_MESSAGE_BYTES", Some("16384"), "BYTES", "Longest message accepted from a client"),
    setting("SEND_QUEUE_BYTES", Some("1048576"), "BYTES", "Bytes that may wait for one slow client"),
    setting("HANDSHAKE_TIMEOUT", Some("10"), "SECONDS", "For TLS and the upgrade in all"),
    setting("PING_INTERVAL", Some("30"), "SECONDS", "Of silence before a ping"),
    setting("ALLOWED_ORIGINS", None, "LIST", "Origins that may connect, comma-separated; unset: any"),
    setting("TRUSTED_PROXIES", None, "LIST", "CIDRs whose X-Forwarded-For is believed"),
    setting("METRICS_ALLOW", None, "LIST", "CIDRs that may read /metrics, beside loopback"),
];

const fn setting(
    name: &'static str,
    default: Option<&'static str>,
    placeholder: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, default, placeholder, help }
}

impl Setting {
    /// `--max-connections` for `MAX_CONNECTIONS`, without the dashes.
    pub fn flag(&self) -> String {
        self.name.to_lowercase().replace('_', "-")
    }

    /// The setting as a command line flag. A switch may stand alone: `--use-ssl`.
    fn arg(&self) -> Arg {
        let default = self.default.map_or("unset".into(), |default| format!("default {default}"));
        let arg = Arg::new(self.name)
            .long(self.flag())
            .value_name(self.placeholder)
            .value_parser(clap::value_parser!(std::ffi::OsString))
            .help(format!("{} [{}, {default}]", self.help, self.name));
        match self.placeholder {
            "BOOL" => arg.num_args(0..=1).default_missing_value("true"),
            "PASSWORD" => arg.allow_hyphen_values(true),
            _ => arg,
        }
    }
}

/// The settings as flags, for the command line.
pub fn flags() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(Setting::arg)
}

impl Settings {
    /// Reads the flags, the environment and `.env` in the working directory; the first to name a setting wins.
    ///
    /// # Errors
    /// Everything that cannot be used, at once.
    pub fn load(flags: &ArgMatches) -> Result<Self, Mistakes> {
        let (file, problems) = env_file::read(Path::new(".env"));
        let mut given = HashMap::new();
        let mut mistakes = Mistakes(problems);
        for Setting { name, .. } in SETTINGS {
            let outside = flags.get_one(name).cloned().or_else(|| std::env::var_os(name));
            match outside.map(|value| value.into_string()) {
                Some(Ok(value)) => {
                    given.insert(name, value);
                }
                Some(Err(_)) => mistakes.0.push(format!("{name}: the value is not UTF-8 text; set it anew")),
                None => given.extend(file.get(name).map(|value| (name, value.clone()))),
            }
        }
        Self::parse(given, mistakes)
    }

    /// The settings from pairs of name and value alone; what is not given has its default.
    ///
    /// # Errors
    /// Everything that cannot be used, at once.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Mistakes> {
        let given = pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        Self::parse(given, Mistakes(Vec::new()))
    }

    fn parse(given: HashMap<&str, String>, mistakes: Mistakes) -> Result<Self, Mistakes> {
        let mut read = Reader { given, mistakes };
        let use_ssl = read.switch("USE_SSL");
        let required = read.switch("SSL_REQUIRED");
        let files = TlsFiles { cert: read.path("SSL_CERT_PATH"), key: read.path("SSL_KEY_PATH"), required };
        if required && !use_ssl {
            let problem =
                "SSL_REQUIRED=true forbids plaintext, but USE_SSL is false: set USE_SSL=true as well";
            read.mistakes.0.push(problem.into());
        }
        let per_second = read.count("MESSAGE_RATE", 0..=1_000_000);
        let burst = read.count("MESSAGE_BURST", 1..=1_000_000);
        let message_rate = NonZeroU32::new(per_second).zip(NonZeroU32::new(burst));
        let settings = Self {
            host: read.parsed("HOST").unwrap_or(Host::Address(Ipv4Addr::LOCALHOST.into())),
            port: read.count("PORT", 0..=u16::MAX.into()) as u16,
            mod_password: read.password("MOD_PASSWORD"),
            web_ui: read.switch("WEB_UI"),
            tls: use_ssl.then_some(files),
            log_level: read.level("LOG_LEVEL"),
            limits: Limits {
                connections: read.count("MAX_CONNECTIONS", 1..=1_000_000) as usize,
                connections_per_ip: match read.count("MAX_CONNECTIONS_PER_IP", 0..=1_000_000) {
                    0 => None,
                    bound => Some(bound as usize),
                },
                message_rate: message_rate.map(|(per_second, burst)| MessageRate { per_second, burst }),
                message_bytes: read.count("MAX_MESSAGE_BYTES", 64..=16 * 1024 * 1024) as usize,
                send_queue_bytes: read.count("SEND_QUEUE_BYTES", 1024..=1024 * 1024 * 1024) as usize,
                handshake_timeout: read.seconds("HANDSHAKE_TIMEOUT", 1..=3600),
                ping_interval: read.seconds("PING_INTERVAL", 1..=3600),
            },
            allowed_origins: read.list("ALLOWED_ORIGINS"),
            trusted_proxies: read.networks("TRUSTED_PROXIES"),
            metrics_allow: read.networks("METRICS_ALLOW"),
        };
        if read.mistakes.0.is_empty() { Ok(settings) } else { Err(read.mistakes) }
    }
}

/// What is wrong with the settings, a line each.
#[derive(Debug)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        writeln!(formatter, "TinyChat cannot start with these settings:")?;
        self.0.iter().try_for_each(|mistake| writeln!(formatter, "  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// Takes the given values apart, and notes what cannot be used.
struct Reader<'a> {
    given: HashMap<&'a str, String>,
    mistakes: Mistakes,
}

impl Reader<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let setting =
            SETTINGS.iter().find(|setting| setting.name == name).expect("settings are read by their row");
        self.given.get(name).cloned().or_else(|| setting.default.map(str::to_owned))
    }

    /// Like [`Self::value`], for settings that may be unset; nothing between the quotes is unset, too.
    fn optional(&self, name: &str) -> Option<String> {
        self.value(name).filter(|value| !value.is_empty())
    }

    fn refuse(&mut self, name: &str, value: &str, allowed: &str) {
        self.mistakes.0.push(format!("{name}={value:?} cannot be used: it must be {allowed}"));
    }

    fn count(&mut self, name: &str, allowed: RangeInclusive<u32>) -> u32 {
        let value = self.value(name).unwrap_or_default();
        value.trim().parse().ok().filter(|count| allowed.contains(count)).unwrap_or_else(|| {
            self.refuse(
                name,
                &value,
                &format!("a whole number from {} to {}", allowed.start(), allowed.end()),
            );
            *allowed.start()
        })
    }

    fn seconds(&mut self, name: &str, allowed: RangeInclusive<u32>) -> Duration {
        Duration::from_secs(self.count(name, allowed).into())
    }

    fn switch(&mut self, name: &str) -> bool {
        let value = self.value(name).unwrap_or_default();
        match value.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                self.refuse(name, &value, "true or false (also 1/0, yes/no, on/off)");
                false
            }
        }
    }

    fn level(&mut self, name: &str) -> LevelFilter {
        let value = self.value(name).unwrap_or_default();
        value.trim().parse().unwrap_or_else(|_| {
            self.refuse(name, &value, "off, error, warn, info, debug or trace");
            LevelFilter::Info
        })
    }

    fn path(&mut self, name: &str) -> PathBuf {
        let value = self.value(name).unwrap_or_default();
        if value.trim().is_empty() || value.contains('\0') {
            self.refuse(name, &value, "the path of a file");
        }
        value.into()
    }

    fn parsed<T: FromStr<Err = &'static str>>(&mut self, name: &str) -> Option<T> {
        let value = self.value(name).unwrap_or_default();
        value.trim().parse().map_err(|allowed| self.refuse(name, &value, allowed)).ok()
    }

    fn password(&mut self, name: &str) -> Option<Secret> {
        let value = self.optional(name)?;
        if value.trim().is_empty() {
            self.mistakes
                .0
                .push(format!("{name} (its value is not shown) cannot be used: it must not be blank"));
        }
        Some(Secret(value.trim().into()))
    }

    fn networks(&mut self, name: &str) -> Vec<IpNet> {
        self.list(name).unwrap_or_default().into_iter().map(|Cidr(net)| net).collect()
    }

    fn list<T: FromStr<Err = &'static str>>(&mut self, name: &str) -> Option<Vec<T>> {
        let value = self.optional(name)?;
        let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items: Result<Vec<T>, _> = items.map(str::parse).collect();
        match items {
            Ok(items) if !items.is_empty() => Some(items),
            Ok(_) => {
                self.refuse(name, &value, "a comma-separated list, or not set at all");
                None
            }
            Err(allowed) => {
                self.refuse(name, &value, allowed);
                None
            }
        }
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq)]
pub enum Host {
    Address(IpAddr),
    /// A name that the system resolves at the start.
    Name(String),
}

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        let is_name = !text.is_empty()
            && text.len() <= 253
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
            && !text.chars().all(|c| c.is_ascii_digit() || c == '.');
        let allowed = "an IPv4 or IPv6 address or a host name, without scheme and port";
        if is_name { Ok(Self::Name(text.into())) } else { Err(allowed) }
    }
}

impl fmt::Display for Host {
    /// As it stands in a URL.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(formatter, "{address}"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

/// A password, without blanks around it. Its `Debug` output does not show it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The password itself. Never print it or log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("Secret(not shown)")
    }
}

/// A web page's origin (RFC 6454): `https://chat.example.com`, or `null`.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin(String);

impl Origin {
    /// Whether a request's `Origin` header names this origin.
    pub fn is(&self, header: &[u8]) -> bool {
        header.eq_ignore_ascii_case(self.0.as_bytes())
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix('/').unwrap_or(text);
        // Browsers leave out a scheme's own port.
        let default_port = if text.starts_with("https://") { ":443" } else { ":80" };
        let text = text.strip_suffix(default_port).unwrap_or(text);
        let authority = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, rest)| rest);
        let is_origin = text == "null"
            || authority.is_some_and(|rest| {
                !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !"/?#@*".contains(c))
            });
        let allowed = "origins like https://chat.example.com, comma-separated, without a path";
        if is_origin { Ok(Self(text.to_ascii_lowercase())) } else { Err(allowed) }
    }
}

/// `10.0.0.0/8`, or an address alone.
struct Cidr(IpNet);

impl FromStr for Cidr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Self).map_err(|_| "networks like 10.0.0.0/8 or addresses, comma-separated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(pairs: &[(&str, &str)]) -> String {
        Settings::from_pairs(pairs.iter().copied()).expect_err("a mistake").to_string()
    }

    #[test]
    fn defaults_are_the_table_of_the_specification() {
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
    fn switches_are_read_in_any_case_and_custom() {
        for (text, expected) in
            [("True", true), ("ON", true), ("1", true), ("yes", true), ("No", false), ("0", false)]
        {
            let settings = Settings::from_pairs([("USE_SSL", text)]).unwrap();
            assert_eq!(settings.tls.is_some(), expected, "{text}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let report = mistakes(&[
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
        let report = mistakes(&[("PORT", "1\nPORT=2\u{1b}")]);
        assert_eq!(report.lines().count(), 2, "{report}");
    }

    #[test]
    fn secrets_are_never_shown() {
        assert!(mistakes(&[("MOD_PASSWORD", "  ")]).contains("not shown"));
        let settings = Settings::from_pairs([("MOD_PASSWORD", " hunter2 ")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(settings.mod_password.unwrap().expose(), "hunter2");
    }

    #[test]
    fn hosts() {
        for good in ["0.0.0.0", "::", "[::1]", "localhost", "chat.example.com"] {
            assert!(good.parse::<Host>().is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:80", "ws://x", "300.1.1.1", "a b"] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
        assert_eq!("::1".parse::<Host>().unwrap().to_string(), "[::1]");
    }

    #[test]
    fn plaintext_is_not_served_where_tls_is_required() {
        assert!(mistakes(&[("SSL_REQUIRED", "true")]).contains("set USE_SSL=true"));
    }
}
