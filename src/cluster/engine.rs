//! One connection to the engine. After an I/O error it must not be used again: a late answer would be taken for that of
//! the next call.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use redis::{Cmd, Connection, ErrorKind, IntoConnectionInfo, RedisError, Value, cmd};
use thiserror::Error;

use super::scripts::Script;
use super::tuning::CONNECT_TIMEOUT;
use crate::config::ClusterSettings;

/// The oldest version with the features of scripts and streams that are used here.
const MIN_VERSION: (u32, u32) = (7, 0);

/// Where the engine is, and the names of the keys there.
pub struct Link {
    client: redis::Client,
    address: String,
    is_tls: bool,
    /// Whether a connection has ever been made, which shows that its settings are right.
    has_connected: AtomicBool,
    keys: [String; 6],
}

pub struct Engine {
    connection: Connection,
    keys: [String; 6],
    hashes: [Option<String>; Script::COUNT],
    pub info: EngineInfo,
}

/// What the engine says about itself.
#[derive(Debug, PartialEq)]
pub struct EngineInfo {
    /// Its `run_id`, which changes when it is restarted.
    pub run: String,
    /// Whether a restart keeps what it holds.
    pub is_persistent: bool,
}

/// Why a call to the engine has failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Trying again would not help: a setting of this server or of the engine is wrong.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached, or does not write at the moment.
    #[error("{0}")]
    Unavailable(String),
    /// A signal arrived before the answer, such as SIGCONT after SIGSTOP.
    #[error("a call was interrupted")]
    Interrupted,
    /// There is another chat, or none.
    #[error("the chat has been replaced or removed")]
    Epoch,
    /// It was restarted, and may have lost what it had acknowledged.
    #[error("it was restarted")]
    Restarted,
    /// Entries of this node that it has read are missing.
    #[error("entries of this server are missing")]
    Gap,
    /// This node has been ended.
    #[error("the other servers consider this one dead")]
    Fenced,
    #[error("there is no chat yet")]
    Empty,
    /// The chat uses this format.
    #[error("the chat uses format {0}")]
    Format(u32),
    /// The chat was written by another program.
    #[error(
        "its snapshot of the chat cannot be read: set another CLUSTER_NAME, or delete the keys of this one"
    )]
    Unreadable,
}

impl EngineError {
    /// The engine has given an unexpected answer.
    pub fn malformed(call: &str) -> Self {
        Self::Unavailable(format!("the answer to {call} cannot be read"))
    }
}

impl From<RedisError> for EngineError {
    fn from(error: RedisError) -> Self {
        let detail = error.detail().unwrap_or_default();
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
                Self::Refused("the user or the password in CLUSTER_URL is wrong".into())
            }
            (_, Some("NOAUTH")) => {
                Self::Refused("it requires a password: set CLUSTER_URL=redis://:PASSWORD@HOST".into())
            }
            (_, Some("NOPERM")) => {
                Self::Refused(format!("the user in CLUSTER_URL lacks a permission: {detail}"))
            }
            (_, Some("MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN")) => Self::Refused(CLUSTER_MODE.into()),
            (_, Some("NUMBERS")) => {
                Self::Refused("2^24 servers have joined this chat: set another CLUSTER_NAME".into())
            }
            (_, Some("EPOCH")) => Self::Epoch,
            (_, Some("RESTARTED")) => Self::Restarted,
            (_, Some("GAP")) => Self::Gap,
            (_, Some("FENCED")) => Self::Fenced,
            (_, Some("EMPTY")) => Self::Empty,
            (_, Some("FORMAT")) => match detail.trim().parse() {
                Ok(format) => Self::Format(format),
                Err(_) => Self::malformed("join"),
            },
            _ if is_interrupted(&error) => Self::Interrupted,
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// The Redis client does not retry a system call that a signal has interrupted. It wraps the cause twice.
fn is_interrupted(error: &RedisError) -> bool {
    let cause =
        error.source().and_then(|cause| cause.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>());
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::Interrupted)
}

const CLUSTER_MODE: &str =
    "it is in cluster mode, which is not supported: use a server without it, or replicas with failover";

impl Link {
    /// # Errors
    /// The URL cannot be used.
    pub fn new(settings: &ClusterSettings) -> Result<Self, EngineError> {
        let info = settings.url.expose().into_connection_info()?;
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let client = redis::Client::open(info.set_tcp_settings(tcp))?;
        let name = settings.name.as_str();
        let keys =
            ["log", "meta", "leases", "snapshot", "claims", "history"].map(|key| format!("{name}:{key}"));
        Ok(Self {
            client,
            address: settings.url.address().into(),
            is_tls: settings.url.is_tls(),
            has_connected: AtomicBool::new(false),
            keys,
        })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects, and checks what kind of server it is.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] or [`EngineError::Refused`].
    pub fn connect(&self, timeout: Duration) -> Result<Engine, EngineError> {
        let connected = self.client.get_connection_with_timeout(CONNECT_TIMEOUT);
        let mut connection = connected.map_err(|error| self.with_tls_hint(error))?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        let info: Value = cmd("INFO").query(&mut connection)?;
        let info = text(&info).ok_or_else(|| EngineError::malformed("INFO"))?;
        let info = check_info(info)?;
        self.has_connected.store(true, Relaxed);
        Ok(Engine { connection, keys: self.keys.clone(), hashes: Default::default(), info })
    }

    /// A port with TLS drops a connection without it, and one without TLS does not answer a handshake.
    fn with_tls_hint(&self, error: RedisError) -> EngineError {
        let is_silent =
            error.is_timeout() || (error.is_connection_dropped() && !error.is_connection_refusal());
        let is_silent = is_silent && !self.has_connected.load(Relaxed);
        match EngineError::from(error) {
            EngineError::Unavailable(reason) if is_silent && self.is_tls => EngineError::Unavailable(
                format!("{reason}; if the port has no TLS, set CLUSTER_URL=redis://…"),
            ),
            EngineError::Unavailable(reason) if is_silent => {
                EngineError::Unavailable(format!("{reason}; if the port has TLS, set CLUSTER_URL=rediss://…"))
            }
            error => error,
        }
    }
}

impl Engine {
    /// Runs a script.
    pub fn run(&mut self, script: Script, arguments: &[&[u8]]) -> Result<Value, EngineError> {
        // A restarted engine has lost its scripts.
        for _ in 0..2 {
            let hash = self.load(script)?;
            let mut call = cmd("EVALSHA");
            call.arg(hash).arg(self.keys.len()).arg(&self.keys);
            for &argument in arguments {
                call.arg(argument);
            }
            match call.query(&mut self.connection) {
                Err(error) if error.code() == Some("NOSCRIPT") => self.hashes[script as usize] = None,
                answer => return Ok(answer?),
            }
        }
        Err(EngineError::Unavailable("it does not keep scripts".into()))
    }

    /// Runs a script that returns numbers.
    pub fn numbers<const N: usize>(
        &mut self,
        script: Script,
        arguments: &[&[u8]],
    ) -> Result<[u64; N], EngineError> {
        let numbers = match self.run(script, arguments)? {
            Value::Array(values) => values.iter().map(number).collect::<Option<Vec<u64>>>(),
            value => number(&value).map(|number| vec![number]),
        };
        numbers
            .and_then(|numbers| numbers.try_into().ok())
            .ok_or_else(|| EngineError::malformed(&format!("{script:?}")))
    }

    /// The entries after a position, as `XREAD` returns them.
    pub fn read(&mut self, after: &str, block: Duration, count: usize) -> Result<Value, EngineError> {
        let block = u64::try_from(block.as_millis()).unwrap_or(u64::MAX);
        let mut call = cmd("XREAD");
        call.arg("BLOCK").arg(block).arg("COUNT").arg(count).arg("STREAMS").arg(&self.keys[0]).arg(after);
        self.query(&call)
    }

    /// The epoch, its mark and the last id. `None`: there is no chat.
    pub fn chat(&mut self) -> Result<Option<(String, u64, u64)>, EngineError> {
        let malformed = || EngineError::malformed("HMGET");
        let mut call = cmd("HMGET");
        call.arg(&self.keys[1]).arg(&["epoch", "mark", "id"]);
        let Value::Array(values) = self.query(&call)? else { return Err(malformed()) };
        let [epoch, mark, id] = <[Value; 3]>::try_from(values).map_err(|_| malformed())?;
        if epoch == Value::Nil {
            return Ok(None);
        }
        let chat = text(&epoch).zip(number(&mark)).zip(number(&id));
        chat.map(|((epoch, mark), id)| Some((epoch.into(), mark, id))).ok_or_else(malformed)
    }

    pub fn snapshot(&mut self) -> Result<Vec<u8>, EngineError> {
        match self.query(cmd("GET").arg(self.keys[3].clone()))? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(EngineError::Empty),
        }
    }

    fn query(&mut self, call: &Cmd) -> Result<Value, EngineError> {
        Ok(call.query(&mut self.connection)?)
    }

    fn load(&mut self, script: Script) -> Result<String, EngineError> {
        if let Some(hash) = &self.hashes[script as usize] {
            return Ok(hash.clone());
        }
        let answer = self.query(cmd("SCRIPT").arg("LOAD").arg(script.source()))?;
        let hash = text(&answer).ok_or_else(|| EngineError::malformed("SCRIPT LOAD"))?;
        Ok(self.hashes[script as usize].insert(hash.into()).clone())
    }
}

/// The text in an answer.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// The number in an answer, which may be written as text.
pub fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => (*number).try_into().ok(),
        value => text(value)?.parse().ok(),
    }
}

/// Checks what the engine says about itself.
fn check_info(info: &str) -> Result<EngineInfo, EngineError> {
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let refused = |reason: String| Err(EngineError::Refused(reason));
    let version = field("redis_version").ok_or_else(|| EngineError::malformed("INFO"))?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < MIN_VERSION {
        let (major, minor) = MIN_VERSION;
        return refused(format!("its version is {version}: use Redis or Valkey {major}.{minor} or newer"));
    }
    if field("cluster_enabled") == Some("1") {
        return refused(CLUSTER_MODE.into());
    }
    if field("maxmemory_policy").is_some_and(|policy| policy.starts_with("allkeys")) {
        return refused(
            "it may evict the chat when its memory is full: set maxmemory-policy noeviction".into(),
        );
    }
    if field("role").is_some_and(|role| role != "master") {
        return Err(EngineError::Unavailable("it is a replica, which cannot write".into()));
    }
    let run = field("run_id").ok_or_else(|| EngineError::malformed("INFO"))?;
    Ok(EngineInfo { run: run.into(), is_persistent: field("aof_enabled") == Some("1") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_suitable_server_is_accepted() {
        let good = "# Server\r\nredis_version:7.0.15\r\nrun_id:0f\r\ncluster_enabled:0\r\n\
                    maxmemory_policy:noeviction\r\nrole:master\r\naof_enabled:1\r\n";
        assert_eq!(check_info(good).unwrap(), EngineInfo { run: "0f".into(), is_persistent: true });
        assert!(!check_info(&good.replace("aof_enabled:1", "aof_enabled:0")).unwrap().is_persistent);
        assert!(check_info(&good.replace("7.0.15", "10.1.0")).is_ok());
        assert!(check_info(&good.replace("noeviction", "volatile-lru")).is_ok());
        for (from, to, reason) in [
            ("7.0.15", "6.2.14", "its version is 6.2.14"),
            ("7.0.15", "unknown", "its version is unknown"),
            ("cluster_enabled:0", "cluster_enabled:1", "cluster mode"),
            ("noeviction", "allkeys-lru", "noeviction"),
        ] {
            let error = check_info(&good.replace(from, to)).unwrap_err();
            assert!(matches!(&error, EngineError::Refused(text) if text.contains(reason)), "{error}");
        }
        for unavailable in
            [good.replace("role:master", "role:slave"), good.replace("run_id", "other_id"), String::new()]
        {
            assert!(matches!(check_info(&unavailable), Err(EngineError::Unavailable(_))));
        }
    }

    /// It was once given whenever the engine was restarted.
    #[test]
    fn the_hint_about_tls_is_given_until_a_connection_was_made() {
        for (url, hint) in [
            ("redis://localhost:1", "connection reset; if the port has TLS, set CLUSTER_URL=rediss://"),
            ("rediss://localhost:1", "connection reset; if the port has no TLS, set CLUSTER_URL=redis://"),
        ] {
            let (url, name) = (url.parse().unwrap(), "tinychat".parse().unwrap());
            let link = Link::new(&ClusterSettings { url, name, node: None }).unwrap();
            let hinted = |kind| link.with_tls_hint(io::Error::from(kind).into()).to_string();
            let (reset, refused) = (io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused);
            assert!(hinted(reset).contains(hint), "{}", hinted(reset));
            assert!(!hinted(refused).contains("TLS"), "nothing listens there");
            link.has_connected.store(true, Relaxed);
            assert!(!hinted(reset).contains("TLS"));
        }
    }

    #[test]
    fn an_interrupted_call_is_not_an_outage() {
        let error = |kind| EngineError::from(RedisError::from(io::Error::from(kind)));
        assert!(matches!(error(io::ErrorKind::Interrupted), EngineError::Interrupted));
        assert!(matches!(error(io::ErrorKind::WouldBlock), EngineError::Unavailable(_)));
    }

    #[test]
    fn numbers_may_be_text() {
        assert_eq!(number(&Value::Int(7)), Some(7));
        assert_eq!(number(&Value::BulkString(b"7".into())), Some(7));
        for value in
            [Value::Int(-1), Value::Nil, Value::BulkString(b"x".into()), Value::BulkString(b"\xFF".into())]
        {
            assert_eq!(number(&value), None);
        }
    }
}
