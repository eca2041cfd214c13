//! A chat client over ws or wss. It waits for each message, and fails the test if none arrives.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
/// Close code of a connection whose place another connection has taken.
pub const REPLACED: CloseCode = CloseCode::Library(4001);

pub struct Client {
    pub socket: WebSocket<ClientStream>,
    /// The newest `user_list`: names, followed by ` mod`, ` timed out` and ` away` where they apply.
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
        Self::new(tungstenite::client(request, stream).expect("the upgrade succeeds").0)
    }

    pub fn new(socket: WebSocket<ClientStream>) -> Self {
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

    /// Joins with these options, and returns the `history` that answers them. A new member then gets its own
    /// `joined`.
    pub fn join_asking(&mut self, name: &str, options: Value) -> Value {
        let mut join = options;
        join["type"] = "join".into();
        join["username"] = name.into();
        self.send(join);
        let commands = self.next_event();
        assert_eq!(commands["type"], "command_list", "{commands}");
        self.next_history()
    }

    /// Requests a page of the history.
    pub fn page(&mut self, options: Value) -> Value {
        let mut request = options;
        request["type"] = "history".into();
        self.send(request);
        self.next_history()
    }

    fn next_history(&mut self) -> Value {
        let answer = self.next_event();
        assert_eq!(answer["type"], "history", "{answer}");
        answer
    }

    pub fn public(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content}));
    }

    /// Sends a public message whose `txn_id` is its content.
    pub fn public_with_txn_id(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content, "txn_id": content}));
    }

    pub fn command(&mut self, content: &str) {
        self.send(json!({"type": "command", "content": content}));
    }

    /// The next message that is not a `user_list`, as a [`line`].
    pub fn next_line(&mut self) -> String {
        line(&self.next_event())
    }

    /// The next message that is not a `user_list`: lists may arrive at any time, and are kept in `users`.
    pub fn next_event(&mut self) -> Value {
        serde_json::from_str(&self.next_event_text()).unwrap()
    }

    /// The text of the next message that is not a `user_list`.
    pub fn next_event_text(&mut self) -> String {
        loop {
            let text = self.next_text();
            if self.receive(&text)["type"] != "user_list" {
                return text;
            }
        }
    }

    /// The next message of any type.
    pub fn next_message(&mut self) -> Value {
        let text = self.next_text();
        self.receive(&text)
    }

    fn receive(&mut self, text: &str) -> Value {
        let message: Value = serde_json::from_str(text).unwrap();
        if message["type"] == "user_list" {
            self.users = message["content"].as_array().unwrap().iter().map(user).collect();
            self.lists += 1;
        }
        message
    }

    /// The text of the next message. Panics after [`TIMEOUT`], whatever pings arrive.
    pub fn next_text(&mut self) -> String {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < TIMEOUT, "no message arrives");
            match self.socket.read() {
                Ok(Message::Text(text)) => return text.to_string(),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                // A read with a timeout is not resumed after a signal (signal(7)).
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
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

    /// Closes the connection with a closing handshake, without a code.
    pub fn leave(self) {
        self.close(None);
    }

    /// Closes the connection with a closing handshake and this code.
    pub fn close(mut self, code: Option<CloseCode>) {
        let frame = code.map(|code| CloseFrame { code, reason: "".into() });
        self.socket.close(frame).unwrap();
        while self.socket.read().is_ok() {}
    }
}

/// A message as `Ann: hello` if it is public, `Ann to Bob: hello` if it is private, `ack: TXN_ID` if it is that, and
/// otherwise with its type, as in `system: Ann joined.`
pub fn line(message: &Value) -> String {
    let field = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("{message} has no {name}"));
    match field("type") {
        "public" => format!("{}: {}", field("username"), field("content")),
        "private" => format!("{} to {}: {}", field("from"), field("to"), field("content")),
        "ack" => format!("ack: {}", field("txn_id")),
        kind => format!("{kind}: {}", field("content")),
    }
}

pub fn id(message: &Value) -> u64 {
    message["id"].as_u64().unwrap_or_else(|| panic!("{message} has no id"))
}

/// The messages of a `history`, as [`line`]s.
pub fn lines(history: &Value) -> Vec<String> {
    history["messages"].as_array().unwrap().iter().map(line).collect()
}

/// The message's text with the names of those fields whose values differ between runs in place of the values:
/// `"id":ID`.
pub fn masked(text: &str) -> String {
    let message: Value = serde_json::from_str(text).unwrap();
    let mut masked = text.to_owned();
    for part in message["messages"].as_array().into_iter().flatten().chain([&message]) {
        for field in ["timestamp", "id", "time", "epoch", "session"] {
            let Some(value) = part.get(field) else { continue };
            let shape: String =
                value.to_string().chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            match field {
                "timestamp" => assert_eq!(shape, r#""00:00:00""#),
                "time" => assert_eq!(shape, r#""0000-00-00T00:00:00.000Z""#),
                "id" => assert!(value.as_u64().is_some_and(|id| id < 1 << 53), "{value}"),
                _ => assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{value}"),
            }
            // With what ends the value, so that 1 is not found in 12.
            for end in [',', '}'] {
                let shown = format!("\"{field}\":{value}{end}");
                masked = masked.replace(&shown, &format!("\"{field}\":{}{end}", field.to_uppercase()));
            }
        }
    }
    masked
}

fn user(entry: &Value) -> String {
    let mark = |field: &Value, mark| if field.as_bool().unwrap() { mark } else { "" };
    format!(
        "{}{}{}{}",
        entry["username"].as_str().unwrap(),
        mark(&entry["is_mod"], " mod"),
        mark(&entry["is_timed_out"], " timed out"),
        entry.get("is_away").map_or("", |away| mark(away, " away")),
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
