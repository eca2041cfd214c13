//! A chat client over ws or wss. It waits for each message, and fails the test if none arrives.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned, WantsVerifier};
use serde_json::{Value, json};
use socket2::SockRef;
use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use super::certificates::localhost;
use super::server::Transport;

/// How long a test waits before it fails. Only a hang takes this long, however busy the machine is.
pub const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Client {
    pub socket: WebSocket<ClientStream>,
    /// The newest `user_list`: names, followed by ` mod` and ` timed out` where they apply.
    pub users: Vec<String>,
    /// How many `user_list`s were received.
    pub lists: usize,
}

impl Client {
    pub fn connect(address: SocketAddr, transport: Transport) -> Self {
        let scheme = if transport == Transport::Wss { "wss" } else { "ws" };
        let url = format!("{scheme}://localhost:{}/", address.port());
        Self::upgrade(ClientStream::connect(address, transport), url)
    }

    /// Connects over wss, trusts only this certificate, and expects the server to have this name.
    pub fn trusting(certificate: &Path, name: &str, address: SocketAddr) -> Self {
        let name = name.to_owned().try_into().expect("a host name or an address");
        let stream = ClientStream::tls(address, trust_only(certificate), name);
        Self::upgrade(stream, format!("wss://localhost:{}/", address.port()))
    }

    pub fn upgrade(stream: ClientStream, request: impl IntoClientRequest) -> Self {
        let (socket, _) = tungstenite::client(request, stream).expect("the upgrade succeeds");
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

    /// Joins, and reads what a new member is sent.
    pub fn join_and_wait(&mut self, name: &str) {
        self.join(name);
        assert_eq!(self.next_event()["type"], "command_list");
        assert_eq!(self.next_event()["content"], format!("{name} joined."));
    }

    pub fn public(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content}));
    }

    pub fn command(&mut self, content: &str) {
        self.send(json!({"type": "command", "content": content}));
    }

    /// The next message as `Ann: hello` if it is public, `Ann to Bob: hello` if it is private, and otherwise
    /// with its type, as in `system: Ann joined.`
    pub fn next_line(&mut self) -> String {
        let message = self.next_event();
        let field = |name: &str| message[name].as_str().unwrap();
        let content = field("content");
        match field("type") {
            "public" => format!("{}: {content}", field("username")),
            "private" => format!("{} to {}: {content}", field("from"), field("to")),
            kind => format!("{kind}: {content}"),
        }
    }

    /// The next message that is not a `user_list`: lists may arrive at any time, and are kept in `users`.
    pub fn next_event(&mut self) -> Value {
        loop {
            let message = self.next_message();
            if message["type"] != "user_list" {
                return message;
            }
        }
    }

    /// The next message of any type.
    pub fn next_message(&mut self) -> Value {
        let message: Value = serde_json::from_str(&self.next_text()).unwrap();
        if message["type"] == "user_list" {
            self.users = message["content"].as_array().unwrap().iter().map(user).collect();
            self.lists += 1;
        }
        message
    }

    /// The text of the next message.
    pub fn next_text(&mut self) -> String {
        loop {
            match self.socket.read().expect("a message arrives") {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a text message, got {other:?}"),
            }
        }
    }

    /// Waits for a `user_list` of these users, in this order.
    pub fn wait_for_users(&mut self, users: &[&str]) {
        while self.users != users {
            self.next_message();
        }
    }

    /// Asserts that only lists were received up to now: the next message must be the answer to a command.
    pub fn assert_nothing_received(&mut self) {
        self.command("/help help");
        let line = self.next_line();
        assert!(line.starts_with("system: /help"), "received {line}");
    }

    /// Reads to the end of the connection, and returns the close code; `None`: there was no close frame.
    pub fn close_code(&mut self) -> Option<CloseCode> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => {
                    // Reading on completes the closing handshake. No message may follow.
                    let next = self.socket.read();
                    let is_message =
                        matches!(next, Ok(_) | Err(Error::Protocol(ProtocolError::ReceivedAfterClosing)));
                    assert!(!is_message, "{next:?} came after the close frame");
                    return Some(frame.map_or(CloseCode::Status, |CloseFrame { code, .. }| code));
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the connection stays open")
                }
                Err(_) => return None,
            }
        }
    }

    /// Closes the connection with a closing handshake.
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

/// A client's end of a connection, plain or through TLS.
pub enum ClientStream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl ClientStream {
    pub fn connect(address: SocketAddr, transport: Transport) -> Self {
        Self::over(connect(address), transport)
    }

    /// A connection over this socket.
    pub fn over(socket: TcpStream, transport: Transport) -> Self {
        match transport {
            Transport::Ws => Self::Plain(socket),
            Transport::Wss => {
                let config = trust_only(&localhost().cert);
                let connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
                Self::Tls(Box::new(StreamOwned::new(connection, socket)))
            }
        }
    }

    pub fn tls(address: SocketAddr, config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
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

/// A raw connection. Reads and writes fail with `WouldBlock` after [`TIMEOUT`].
pub fn connect(address: SocketAddr) -> TcpStream {
    prepared(TcpStream::connect(address).unwrap())
}

/// The same over which the server can send little that is not read: with small buffers and short segments, the two
/// systems hold some 50 KB in place of megabytes.
pub fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, 2048).unwrap();
    SockRef::from(&socket).set_tcp_mss(536).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    prepared(socket.into())
}

fn prepared(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(TIMEOUT)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// The start of a TLS configuration, which still needs to know which certificates to trust.
pub fn tls_config() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap()
}

fn trust_only(certificate: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    Arc::new(tls_config().with_root_certificates(roots).with_no_client_auth())
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
