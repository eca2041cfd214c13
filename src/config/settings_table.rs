//! The table of all settings: names, defaults, kinds of value and help texts.

/// One row of the table. Tests compare `.env.example`, `--help` and the docs with it.
pub struct Setting {
    /// The environment variable. The flag's name is derived from it.
    pub name: &'static str,
    /// `None`: unset.
    pub default: Option<&'static str>,
    pub kind: ValueKind,
    /// One line for `--help`.
    pub help: &'static str,
}

/// What a setting's value stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueKind {
    Address,
    Port,
    Password,
    /// `true` or `false`.
    Switch,
    File,
    LogLevel,
    Count,
    Bytes,
    Seconds,
    /// Comma-separated.
    List,
    /// May contain a password.
    SecretUrl,
    /// Letters, digits and `-_.`.
    Name,
}

impl ValueKind {
    /// Whether values are never shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Password | SecretUrl)
    }
}

use ValueKind::{
    Address, Bytes, Count, File, List, LogLevel, Name, Password, Port, Seconds, SecretUrl, Switch,
};

/// Every setting, in the order in which `--help`, `.env.example` and the docs list them.
pub const SETTINGS: [Setting; 31] = [
    row("HOST", Some("127.0.0.1"), Address, "Address to listen on (IPv4, IPv6 or a host name)"),
    row("PORT", Some("8765"), Port, "Port to listen on; 0 lets the system choose"),
    row(
        "MOD_PASSWORD",
        None,
        Password,
        "Password for /login, or its hash; unset: /login makes nobody a moderator",
    ),
    row("JOIN_PASSWORD", None, Password, "Password for joining, or its hash; unset: anyone may join"),
    row("WEB_UI", Some("true"), Switch, "Serve the chat page to browsers"),
    row("USE_SSL", Some("false"), Switch, "Serve wss:// instead of ws://"),
    row("SSL_CERT_PATH", Some("./certs/server.crt"), File, "Certificate with its chain, PEM"),
    row("SSL_KEY_PATH", Some("./certs/server.key"), File, "Private key, PEM"),
    row("SSL_REQUIRED", Some("false"), Switch, "Never fall back to plaintext"),
    row("LOG_LEVEL", Some("info"), LogLevel, "off, error, warn, info, debug or trace"),
    row("DATABASE_PATH", Some("./tinychat.db"), File, "The store; off: nothing is written to disk"),
    row("HISTORY_MESSAGES", Some("10000"), Count, "Newest messages kept for the history; 0: none"),
    row("HISTORY_DAYS", Some("30"), Count, "Days that messages are kept; 0: forever"),
    row(
        "RESUME_SECONDS",
        Some("30"),
        Seconds,
        "How long a member whose connection was lost stays in the room; 0: not at all",
    ),
    row("MAX_CONNECTIONS", Some("4096"), Count, "Maximum number of connections"),
    row(
        "MAX_CONNECTIONS_PER_IP",
        Some("64"),
        Count,
        "Maximum number of connections from one address; 0: no limit; loopback is exempt",
    ),
    row(
        "CONNECT_RATE",
        Some("20"),
        Count,
        "Sustained connections per second from one address; more wait; 0: no limit; loopback is exempt",
    ),
    row(
        "JOIN_RATE",
        Some("1"),
        Count,
        "Sustained joins per second from one address; more wait; 0: no limit; loopback is exempt",
    ),
    row("MESSAGE_RATE", Some("5"), Count, "Sustained messages per second from one client; 0: no limit"),
    row("MESSAGE_BURST", Some("20"), Count, "Messages a client may send at once before the rate applies"),
    row(
        "MAX_SENDERS_PER_IP",
        Some("8"),
        Count,
        "One address may send as much as this many connections; 0: no limit; loopback is exempt",
    ),
    row("MAX_MESSAGE_BYTES", Some("16384"), Bytes, "Longest message accepted from a client"),
    row("SEND_QUEUE_BYTES", Some("1048576"), Bytes, "Maximum number of bytes queued for one slow client"),
    row(
        "HANDSHAKE_TIMEOUT",
        Some("10"),
        Seconds,
        "Time limit for TLS and the upgrade together, and for each message",
    ),
    row("PING_INTERVAL", Some("30"), Seconds, "Silence before a client is pinged"),
    row("ALLOWED_ORIGINS", None, List, "Origins that may connect, comma-separated; unset: any"),
    row("TRUSTED_PROXIES", None, List, "Networks (CIDR) whose X-Forwarded-For is trusted, comma-separated"),
    row("METRICS_ALLOW", None, List, "Networks (CIDR) that may read /metrics, in addition to loopback"),
    row("CLUSTER_URL", None, SecretUrl, "Redis or Valkey server through which several servers form one chat"),
    row("CLUSTER_NAME", Some("tinychat"), Name, "Name of the chat, if CLUSTER_URL has several"),
    row("NODE_NAME", None, Name, "Name of this server; unset: the host name and a random suffix"),
];

const fn row(
    name: &'static str,
    default: Option<&'static str>,
    kind: ValueKind,
    help: &'static str,
) -> Setting {
    Setting { name, default, kind, help }
}
