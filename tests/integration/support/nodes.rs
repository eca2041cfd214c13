//! Servers that form one chat, each a process, behind a proxy of its own to the engine.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;

use super::client::{Client, ClientStream};
use super::engine::Engine;
use super::http::request_kept;
use super::program::{Folder, Process};
use super::proxy::Proxy;
use super::server::Transport;

/// The running servers, as a load balancer would know them.
#[derive(Clone, Default)]
pub struct Servers(Arc<Mutex<Vec<SocketAddr>>>);

impl Servers {
    /// The server at this place in the list, which wraps around.
    pub fn get(&self, at: usize) -> Option<SocketAddr> {
        let servers = self.0.lock().unwrap();
        servers.get(at.checked_rem(servers.len())?).copied()
    }

    pub fn add(&self, address: SocketAddr) {
        self.0.lock().unwrap().push(address);
    }

    /// New connections are not made to this server any more.
    pub fn remove(&self, address: SocketAddr) {
        self.0.lock().unwrap().retain(|&server| server != address);
    }
}

/// A server of a chat on several.
pub struct Node {
    pub name: String,
    /// `None`: it has ended.
    process: Option<Process>,
    /// Between the server and the engine.
    pub proxy: Proxy,
    folder: Folder,
    settings: Vec<(String, String)>,
    servers: Servers,
}

/// Starts this many servers of the engine's chat, with these settings besides the usual ones of the tests.
pub fn start(engine: &Engine, count: usize, settings: &[(&str, &str)]) -> (Vec<Node>, Servers) {
    let servers = Servers::default();
    let mut nodes: Vec<Node> =
        (1..=count).map(|number| Node::prepare(engine, number, settings, servers.clone())).collect();
    // The first one waits for others that may have a newer chat, so they are started together.
    nodes.iter_mut().for_each(Node::start_without_waiting);
    nodes.iter_mut().for_each(Node::wait_until_running);
    (nodes, servers)
}

impl Node {
    /// The server with this number, which is not started yet.
    pub fn prepare(engine: &Engine, number: usize, settings: &[(&str, &str)], servers: Servers) -> Self {
        let proxy = Proxy::start((Ipv4Addr::LOCALHOST, engine.port).into());
        let (name, url) = (format!("node-{number}"), engine.url_at(proxy.address.port()));
        let usual = [
            ("CLUSTER_URL", &*url),
            ("NODE_NAME", &name),
            ("PORT", "0"),
            ("DATABASE_PATH", "off"),
            ("MOD_PASSWORD", "secret"),
            ("MESSAGE_RATE", "0"),
            // Clients that do not read while others act send no pongs.
            ("PING_INTERVAL", "3600"),
        ];
        let settings = [&usual, settings].concat();
        let settings = settings.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        Self { name, process: None, proxy, folder: Folder::new(), settings, servers }
    }

    pub fn start_without_waiting(&mut self) {
        let settings: Vec<(&str, &str)> =
            self.settings.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.process = Some(self.folder.tinychat(&[]).envs(&settings).start_without_waiting());
    }

    pub fn wait_until_running(&mut self) {
        self.running().wait_until_running();
        self.servers.add(self.address());
    }

    pub fn address(&self) -> SocketAddr {
        self.process.as_ref().expect("it is running").address
    }

    /// A client that is connected and has not joined.
    pub fn connect(&self) -> Client {
        Client::connect(self.address(), Transport::Ws)
    }

    /// A client that has joined.
    pub fn join(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.join_and_wait(name);
        client
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it is running").signal(signal);
    }

    pub fn wait_for_line(&mut self, text: &str) -> String {
        self.running().wait_for_line(text)
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.servers.remove(self.address());
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Stops it with SIGTERM, and asserts that it exits with 0.
    pub fn stop(&mut self) {
        self.servers.remove(self.address());
        self.signal(Signal::TERM);
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{log}");
    }

    /// Stops it, and starts it again with the same settings and store.
    pub fn restart(&mut self) {
        self.stop();
        self.start_without_waiting();
        self.wait_until_running();
    }

    /// Waits until it has exited, and returns the whole log.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        self.process.take().expect("it is running").wait()
    }

    /// The status of `/healthz`.
    pub fn health(&self) -> u16 {
        let response = self.get("/healthz");
        response.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The response to a request for this path.
    pub fn get(&self, path: &str) -> String {
        let mut stream = ClientStream::connect(self.address(), Transport::Ws);
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        request_kept(&mut stream, &request)
    }

    /// How many stores it has set aside.
    pub fn backups(&self) -> usize {
        let files = self.folder.files(".");
        files.iter().filter(|name| name.to_string_lossy().contains("-backup")).count()
    }

    /// The messages in its store, the oldest first.
    pub fn stored(&self) -> Vec<Value> {
        self.exported("tinychat.db")
    }

    /// The messages in the only store that it has set aside.
    pub fn backed_up(&self) -> Vec<Value> {
        let files = self.folder.files(".");
        let backup = files.iter().find_map(|name| name.to_str().filter(|name| name.contains("-backup")));
        self.exported(backup.unwrap())
    }

    fn exported(&self, store: &str) -> Vec<Value> {
        let export = self.folder.tinychat(&["export"]).env("DATABASE_PATH", store).run().stdout;
        export.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("it is running")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(process) = &mut self.process
        {
            eprintln!("--- the log of {}:\n{}", self.name, process.log());
        }
    }
}
