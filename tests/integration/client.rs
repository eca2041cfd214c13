//! A chat client for tests, over ws or wss. It waits for what is to come and fails if nothing comes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use crate::server::{Transport, pair};

/// Only a hang takes this long: no test depends on it.
pub const HANG: Duration = Duration::from_secs(60);

pub struct Client {
    pub socket: WebSocket<ClientStream>,
    /// The last `user_list`, as names with marks.
    pub users: Vec<String>,
    /// How many lists have come.
    pub lists: usize,
}

impl Client {
    pub fn connect(address: SocketAddr, transport: Transport) -> Self {
        let scheme = if transport == Transport::Wss { "wss" } else { "ws" };
        Self::upgrade(ClientStream::connect(address, transport), &format!("{scheme}://localhost"), address)
    }

    /// A client over wss that trusts this certificate alone, and expects the server to have this name.
    pub fn trusting(certificate: &Path, name: &str, address: SocketAddr) -> Self {
        let name = name.to_owned().try_into().expect("a host name or an address");
        Self::upgrade(
            ClientStream::tls(address, client_config(certificate), name),
            "wss://localhost",
            address,
        )
    }

    fn upgrade(stream: ClientStream, url: &str, address: SocketAddr) -> Self {
        let (socket, _) =
            tungstenite::client(format!("{url}:{}/", address.port()), stream).expect("the upgrade");
        Self { socket, users: Vec::new(), lists: 0 }
    }

    pub fn send(&mut self, message: Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn join(&mut self, name: &str) {
        self.send(json!({"type": "join", "username": name}));
    }

    /// Joins, and takes what a newcomer gets.
    pub fn enter(&mut self, name: &str) {
        self.join(name);
        assert_eq!(self.next()["type"], "command_list");
        assert_eq!(self.next()["content"], format!("{name} joined."));
    }

    pub fn public(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content}));
    }

    pub fn command(&mut self, content: &str) {
        self.send(json!({"type": "command", "content": content}));
    }

    /// The next message that is not a `user_list`; the lists are kept.
    pub fn next(&mut self) -> Value {
        loop {
            let message = self.next_of_all();
            if message["type"] != "user_list" {
                return message;
            }
        }
    }

    /// The next message, be it a `user_list`.
    pub fn next_of_all(&mut self) -> Value {
        let text = self.next_text();
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["type"] == "user_list" {
            self.users = message["content"].as_array().unwrap().iter().map(user).collect();
            self.lists += 1;
        }
        message
    }

    /// The next message as it came.
    pub fn next_text(&mut self) -> String {
        loop {
            match self.socket.read().expect("a message") {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("a text message was to come, and not {other:?}"),
            }
        }
    }

    /// The next message's type and content, as `error: …`.
    pub fn hears(&mut self) -> String {
        let message = self.next();
        let (kind, content) = (message["type"].as_str().unwrap(), message["content"].as_str().unwrap());
        match kind {
            "public" => format!("{}: {content}", message["username"].as_str().unwrap()),
            "private" => {
                let (from, to) = (message["from"].as_str().unwrap(), message["to"].as_str().unwrap());
                format!("{from} to {to}: {content}")
            }
            _ => format!("{kind}: {content}"),
        }
    }

    /// Waits for a `user_list` of these, in this order.
    pub fn sees(&mut self, users: &[&str]) {
        while self.users != users {
            self.next_of_all();
        }
    }

    /// Asserts that nothing has come up to now but lists: the answer to a command is the next thing heard.
    pub fn hears_nothing(&mut self) {
        self.command("/help help");
        assert!(self.hears().starts_with("system: /help"), "something was heard");
    }

    /// Reads to the end, and returns the close code; `None`: it ended without one.
    pub fn close_code(&mut self) -> Option<CloseCode> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => {
                    // Reading on answers the closing handshake, and nothing follows it.
                    let after = self.socket.read();
                    let follows =
                        matches!(after, Ok(_) | Err(Error::Protocol(ProtocolError::ReceivedAfterClosing)));
                    assert!(!follows, "{after:?} came after the close frame");
                    return Some(frame.map_or(CloseCode::Status, |CloseFrame { code, .. }| code));
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => panic!("nothing came"),
                Err(_) => return None,
            }
        }
    }

    /// Leaves with a closing handshake.
    pub fn leave(mut self) {
        self.socket.close(None).unwrap();
        while self.socket.read().is_ok() {}
    }
}

fn user(entry: &Value) -> String {
    let mark = |field: &str, mark| if entry[field].as_bool().unwrap() { mark } else { "" };
    format!(
        "{}{}{}",
        entry["username"].as_str().unwrap(),
        mark("is_mod", " mod"),
        mark("is_timed_out", " timed out")
    )
}

/// A client's bytes, plain or through TLS.
pub enum ClientStream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl ClientStream {
    pub fn connect(address: SocketAddr, transport: Transport) -> Self {
        match transport {
            Transport::Ws => Self::Plain(connect(address)),
            Transport::Wss => {
                Self::tls(address, client_config(&pair().cert), "localhost".try_into().unwrap())
            }
        }
    }

    fn tls(address: SocketAddr, config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        let connection = ClientConnection::new(config, name).unwrap();
        Self::Tls(Box::new(StreamOwned::new(connection, connect(address))))
    }

    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket.set_write_timeout(Some(HANG)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Trusts this certificate alone.
fn client_config(certificate: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

impl Read for ClientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for ClientStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
