//! A Redis server of Debian (`redis-server`), and what happens to it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::Value;
use rustix::process::Signal;

use super::client::TIMEOUT;
use super::port::ReservedPort;
use super::program::{Folder, KillOnDrop};

/// For one call of a test. A paused engine answers none.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The process is killed at the end of the test.
pub struct Engine {
    process: KillOnDrop,
    arguments: Vec<String>,
    password: Option<String>,
    pub port: u16,
    /// Keeps the port for a restart.
    _port: ReservedPort,
    folder: Folder,
}

impl Engine {
    /// Starts one that keeps its data when it is restarted. `None`: there is no `redis-server`, so the test is skipped.
    /// It fails instead if `TINYCHAT_ENGINE_TESTS` is `required`.
    pub fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// The same with some of its settings changed, as arguments (`--requirepass`, `secret`).
    pub fn with(settings: &[&str]) -> Option<Self> {
        if !is_installed() {
            let setting = std::env::var("TINYCHAT_ENGINE_TESTS").unwrap_or_default();
            assert_ne!(setting, "required", "redis-server is not installed");
            eprintln!("skipped: redis-server is not installed (apt-get install redis-server)");
            return None;
        }
        let position = settings.iter().position(|&setting| setting == "--requirepass");
        let password = position.map(|at| settings[at + 1].to_owned());
        let (reserved, folder) = (ReservedPort::new(), Folder::new());
        let port = reserved.number;
        let (port_text, path) = (port.to_string(), folder.path("."));
        let usual = ["--port", &port_text, "--bind", "127.0.0.1", "--dir", path.to_str().unwrap()];
        // With "everysec", it may acknowledge writes up to two seconds before the operating system gets them.
        let storage = ["--save", "", "--appendonly", "yes", "--appendfsync", "no", "--daemonize", "no"];
        let arguments = [&usual[..], &storage, settings].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let process = spawn(&arguments);
        let mut engine = Self { process, arguments, password, port, _port: reserved, folder };
        assert!(engine.wait_until_ready(), "redis-server does not start");
        Some(engine)
    }

    /// What `CLUSTER_URL` would be without a proxy.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same at another port, that of a proxy.
    pub fn url_at(&self, port: u16) -> String {
        let password = self.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        format!("redis://{password}127.0.0.1:{port}")
    }

    pub fn call(&self, words: &[&str]) -> Value {
        self.try_call(words).unwrap()
    }

    fn try_call(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(CALL_TIMEOUT)?;
        connection.set_read_timeout(Some(CALL_TIMEOUT))?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts it again after [`Engine::kill`], on the same port.
    pub fn restart(&mut self) {
        self.process = spawn(&self.arguments);
        assert!(self.wait_until_ready(), "redis-server does not start again");
    }

    /// Removes what it has stored, while it is not running.
    pub fn delete_data(&self) {
        std::fs::remove_dir_all(self.folder.path("appendonlydir")).unwrap();
    }

    /// Removes the last bytes that it has stored, while it is not running.
    pub fn lose_tail(&self, bytes: u64) {
        let folder = self.folder.path("appendonlydir");
        let files = self.folder.files("appendonlydir").into_iter();
        let incremental = files.filter(|name| name.to_string_lossy().ends_with(".incr.aof"));
        let newest = incremental.max().expect("it stores what it is told");
        let file = std::fs::OpenOptions::new().write(true).open(folder.join(newest)).unwrap();
        file.set_len(file.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
    }

    /// All that was ever written to it, as it has stored it.
    pub fn stored(&self) -> Vec<u8> {
        let files = self.folder.files("appendonlydir").into_iter();
        let paths = files.map(|name| self.folder.path("appendonlydir").join(name));
        paths.flat_map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// It does nothing from now on, and its connections stay open.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// `false`: it has exited.
    fn wait_until_ready(&mut self) -> bool {
        let mut is_running = true;
        until("redis-server is ready", || {
            is_running = self.process.0.try_wait().unwrap().is_none();
            !is_running || self.try_call(&["PING"]).is_ok()
        });
        is_running
    }
}

/// Waits for something that another process does. There is no event for it.
pub fn until(what: &str, mut is_done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < TIMEOUT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join("redis-server").is_file())
}

fn spawn(arguments: &[String]) -> KillOnDrop {
    let mut command = Command::new("redis-server");
    let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    KillOnDrop(command.spawn().unwrap())
}
