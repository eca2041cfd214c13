//! A server for one test, in this process, which ends with the test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tinychat::config::Settings;
use tinychat::server::{Handle, Server};
use tinychat::tls::self_signed;

use crate::client::Client;

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
}

impl TestServer {
    /// Starts a server with its defaults, but on a port of its own, with the password `secret`, and without a
    /// rate, which tests are faster than.
    pub fn start(transport: Transport) -> Self {
        Self::with(transport, &[])
    }

    /// The same with some settings changed.
    pub fn with(transport: Transport, changed: &[(&str, &str)]) -> Self {
        let pair = pair();
        let (cert, key) = (pair.cert.to_str().unwrap(), pair.key.to_str().unwrap());
        let mut pairs = vec![("PORT", "0"), ("MOD_PASSWORD", "secret"), ("MESSAGE_RATE", "0")];
        if transport == Transport::Wss {
            pairs.extend([("USE_SSL", "true"), ("SSL_CERT_PATH", cert), ("SSL_KEY_PATH", key)]);
        }
        pairs.extend(changed);
        Self::run(transport, Server::bind(&Settings::from_pairs(pairs).unwrap()).unwrap())
    }

    /// Starts a server with these settings that checks its certificate at this interval.
    pub fn with_check_interval(
        transport: Transport,
        settings: &[(&str, String)],
        interval: Duration,
    ) -> Self {
        let pairs = settings.iter().map(|(name, value)| (*name, value.as_str())).chain([("PORT", "0")]);
        let mut settings = Settings::from_pairs(pairs.chain([("MESSAGE_RATE", "0")])).unwrap();
        settings.tls.as_mut().unwrap().check_interval = interval;
        Self::run(transport, Server::bind(&settings).unwrap())
    }

    fn run(transport: Transport, server: Server) -> Self {
        let (address, handle) = (server.address(), server.handle());
        let thread = std::thread::spawn(|| server.run());
        Self { address, transport, handle, thread: Some(thread) }
    }

    /// A client that is connected and has not joined.
    pub fn connect(&self) -> Client {
        Client::connect(self.address, self.transport)
    }

    /// A client that has joined, and has got what a newcomer gets.
    pub fn join(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.enter(name);
        client
    }

    /// Has it load its certificate anew, before any connection that is made after this.
    pub fn reload(&self) {
        self.handle.reload();
    }

    /// Asks the server to stop, without waiting for it.
    pub fn stop(&self) {
        self.handle.stop();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// A self-signed pair for `localhost`, made once for all tests.
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
    _folder: TempDir,
}

pub fn pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
        let request = self_signed::Request {
            cert: cert.clone(),
            key: key.clone(),
            days: 30,
            host: "localhost".into(),
            force: false,
        };
        self_signed::generate(&request).unwrap();
        Pair { cert, key, _folder: folder }
    })
}
