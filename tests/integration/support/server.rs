//! A server in this process, which is stopped at the end of the test.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tinychat::config::{PasswordHash, SALT_BYTES, Settings};
use tinychat::server::{Handle, Server};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::Request;

use super::certificates::localhost;
use super::client::{Client, ClientStream, TIMEOUT, connect_narrow};
use super::program::Folder;

/// How clients reach the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transport {
    Ws,
    Wss,
}

pub struct TestServer {
    pub address: SocketAddr,
    pub transport: Transport,
    handle: Handle,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    /// Of its store; removed when the server has ended.
    _folder: Option<Folder>,
}

impl TestServer {
    /// Starts a server with the default settings, except that it has a free port, the moderators' password
    /// `secret`, no message rate, which tests would exceed, and no pings, which clients do not answer while others act.
    pub fn start(transport: Transport) -> Self {
        Self::with(transport, &[])
    }

    /// The same with some settings changed.
    pub fn with(transport: Transport, changed: &[(&str, &str)]) -> Self {
        Self::run(transport, Self::bind(transport, changed))
    }

    /// The same with a store that has these named moderators, each with a password.
    pub fn with_moderators(
        transport: Transport,
        changed: &[(&str, &str)],
        moderators: &[(&str, &str)],
    ) -> Self {
        let folder = Folder::new();
        moderators.iter().for_each(|(name, password)| add_moderator(&folder, name, password));
        let path = folder.path("tinychat.db");
        let changed = [changed, &[("DATABASE_PATH", path.to_str().unwrap())]].concat();
        let server = Self::bind(transport, &changed);
        let mut server = Self::run(transport, server);
        server._folder = Some(folder);
        server
    }

    fn bind(transport: Transport, changed: &[(&str, &str)]) -> Server {
        let mut pairs = vec![
            ("PORT", "0"),
            ("MOD_PASSWORD", "secret"),
            ("MESSAGE_RATE", "0"),
            ("PING_INTERVAL", "3600"),
            ("DATABASE_PATH", "off"),
        ];
        if transport == Transport::Wss {
            let files = localhost();
            let (cert, key) = (files.cert.to_str().unwrap(), files.key.to_str().unwrap());
            pairs.extend([("USE_SSL", "true"), ("SSL_CERT_PATH", cert), ("SSL_KEY_PATH", key)]);
        }
        pairs.extend(changed);
        Server::bind(&Settings::from_pairs(pairs).unwrap()).unwrap()
    }

    /// Starts a server with these settings that checks its certificate at this interval.
    pub fn with_check_interval(
        transport: Transport,
        settings: &[(&str, String)],
        interval: Duration,
    ) -> Self {
        let pairs = settings.iter().map(|(name, value)| (*name, value.as_str()));
        let pairs = pairs.chain([("PORT", "0"), ("DATABASE_PATH", "off")]);
        let mut settings = Settings::from_pairs(pairs.chain([("MESSAGE_RATE", "0")])).unwrap();
        settings.tls.as_mut().unwrap().check_interval = interval;
        Self::run(transport, Server::bind(&settings).unwrap())
    }

    fn run(transport: Transport, server: Server) -> Self {
        let (address, handle) = (server.address(), server.handle());
        let thread = std::thread::spawn(|| server.run());
        Self { address, transport, handle, thread: Some(thread), _folder: None }
    }

    /// A client that is connected and has not joined.
    pub fn connect(&self) -> Client {
        Client::connect(self.address, self.transport)
    }

    /// A client whose address is what a proxy reports. The server must trust proxies on loopback.
    pub fn connect_from(&self, address: &str) -> Client {
        Client::upgrade(ClientStream::connect(self.address, self.transport), self.request_from(address))
    }

    /// The same, as soon as the server admits it: the permit of an earlier connection may not have been released yet.
    pub fn connect_from_when_free(&self, address: &str) -> Client {
        let start = Instant::now();
        loop {
            let stream = ClientStream::connect(self.address, self.transport);
            if let Ok((socket, _)) = tungstenite::client(self.request_from(address), stream) {
                return Client::new(socket);
            }
            assert!(start.elapsed() < TIMEOUT, "the permit is not released");
        }
    }

    /// An upgrade request as a proxy passes it on for a client with this address.
    fn request_from(&self, address: &str) -> Request<()> {
        let mut request = format!("ws://localhost:{}/", self.address.port()).into_client_request().unwrap();
        request.headers_mut().insert("X-Forwarded-For", address.parse().unwrap());
        request
    }

    /// A client that is sent little before it reads: see [`connect_narrow`].
    pub fn connect_narrow(&self) -> Client {
        let stream = ClientStream::over(connect_narrow(self.address), self.transport);
        Client::upgrade(stream, format!("ws://localhost:{}/", self.address.port()))
    }

    /// A client that has joined, and has read what a new member is sent.
    pub fn join(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.join_and_wait(name);
        client
    }

    /// Makes the server reload its certificate before it accepts any connection made after this call.
    pub fn reload(&self) {
        self.handle.reload();
    }

    /// Makes the server stop, without waiting for it.
    pub fn stop(&self) {
        self.handle.stop();
    }
}

/// Adds a named moderator to the store in this folder.
fn add_moderator(folder: &Folder, name: &str, password: &str) {
    folder.write("input", password);
    let output = folder.tinychat_in_shell("exec \"$@\" < input", &["moderator", "add", name]).run();
    assert_eq!(output.status, Some(0), "{output:?}");
    let store = rusqlite::Connection::open(folder.path("tinychat.db")).unwrap();
    let hash = hash(password).to_string();
    assert_eq!(store.execute("UPDATE moderators SET hash = ?1 WHERE name = ?2", [&*hash, name]), Ok(1));
}

/// A hash of a password, with one round, so that tests are fast.
pub fn hash(password: &str) -> PasswordHash {
    let salt = [password.len() as u8; SALT_BYTES];
    PasswordHash::new(password, salt, NonZeroU32::MIN)
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.stop();
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}
