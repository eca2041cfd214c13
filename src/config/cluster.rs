//! Settings for several servers that form one chat.

use std::fmt;
use std::str::FromStr;

use super::reported_value::names_secret;

/// The longest name of a chat or of a server, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The port of Redis and Valkey.
const DEFAULT_PORT: u16 = 6379;

/// Set by `CLUSTER_URL`, `CLUSTER_NAME` and `NODE_NAME`.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    pub url: EngineUrl,
    pub name: ClusterName,
    /// `None`: the server chooses one.
    pub node: Option<NodeName>,
}

/// The URL of a Redis or Valkey server, with user and password. Its `Debug` output shows only the address.
#[derive(Clone, PartialEq)]
pub struct EngineUrl {
    text: String,
    /// Host and port.
    address: String,
}

impl EngineUrl {
    /// The URL itself. Never print or log it: it may contain a password.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// `host:port`, for the log.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether connections use TLS.
    pub fn is_tls(&self) -> bool {
        self.text.starts_with("rediss:")
    }
}

impl FromStr for EngineUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = "a URL like redis://:password@localhost:6379 or rediss://user:password@host:6379/0, \
                       with a host name in ASCII and special characters in the password as %XX";
        let address = address(text).ok_or(allowed)?;
        #[cfg(feature = "cluster")]
        redis::IntoConnectionInfo::into_connection_info(text).map_err(|_| allowed)?;
        Ok(Self { text: text.into(), address })
    }
}

impl fmt::Debug for EngineUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "EngineUrl({}, password not shown)", self.address)
    }
}

/// Separates several chats on one Redis or Valkey server. All keys begin with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterName(String);

/// Identifies a server in the log and in the metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeName(String);

impl ClusterName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        name(text).map(Self)
    }
}

impl FromStr for NodeName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        name(text).map(Self)
    }
}

/// The user's password in a text that may be an [`EngineUrl`], as it is written there.
pub fn password_in(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

fn name(text: &str) -> Result<String, &'static str> {
    let is_name = (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !names_secret(text);
    if is_name {
        Ok(text.into())
    } else {
        Err("1 to 64 ASCII letters, digits, hyphens, underscores and periods")
    }
}

/// Host and port of `redis://[user][:password]@host[:port][/database]`.
fn address(url: &str) -> Option<String> {
    let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"))?;
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains(['?', '#']) {
        return None;
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host_and_port.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|&port| port > 0)?),
        _ => (host_and_port, DEFAULT_PORT),
    };
    let is_address = host.starts_with('[') && host.ends_with(']');
    let is_host = !host.is_empty() && (is_address || !host.contains([':', '[', ']']));
    (is_host && database.bytes().all(|byte| byte.is_ascii_digit())).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_and_a_host() {
        for (url, address) in [
            ("redis://localhost", "localhost:6379"),
            ("redis://:hunter2@localhost:7000", "localhost:7000"),
            ("rediss://ann:hunter2@cache.example.com/3", "cache.example.com:6379"),
            ("redis://ann:p%40ss@[::1]:7000/0", "[::1]:7000"),
            ("redis://10.0.0.1/", "10.0.0.1:6379"),
        ] {
            let parsed: EngineUrl = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((parsed.address(), parsed.is_tls()), (address, url.starts_with("rediss")));
            let shown = format!("{parsed:?}");
            assert!(shown.contains(address) && !shown.contains("hunter2"), "{shown}");
        }
        for url in [
            "",
            "localhost:6379",
            "http://localhost",
            "unix:///run/redis.sock",
            "redis://",
            "redis://:hunter2@",
            "redis://localhost:0",
            "redis://localhost:65536",
            "redis://localhost:many",
            "redis://localhost/first",
            "redis://localhost?protocol=resp3",
            "rediss://localhost/#insecure",
            "redis://größer.example",
            "redis://two words",
        ] {
            assert!(url.parse::<EngineUrl>().is_err(), "{url}");
        }
    }

    #[test]
    fn the_password_is_found() {
        for (url, password) in [
            ("redis://:hunter2@localhost", Some("hunter2")),
            ("rediss://ann:hunter@2@localhost", Some("hunter@2")),
            ("redis://ann@localhost", None),
            ("redis://localhost:7000", None),
            ("hunter2", None),
        ] {
            assert_eq!(password_in(url), password, "{url}");
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        for good in ["tinychat", "a", "Chat_2.example-1", &"a".repeat(MAX_NAME_BYTES)] {
            assert!(good.parse::<ClusterName>().is_ok() && good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a:b", "a*", "ü", "{a}", &"a".repeat(MAX_NAME_BYTES + 1)] {
            assert!(bad.parse::<ClusterName>().is_err() && bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }
}
