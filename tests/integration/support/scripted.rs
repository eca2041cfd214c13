//! A server whose side of each WebSocket the test speaks itself: what the page does is tested without what the server
//! would have to do first.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::net::Shutdown as ListenerShutdown;
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};

use super::client::TIMEOUT;
use super::server::{TestServer, Transport};

/// More than the head of a browser's request.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Serves the chat page of a real server, and hands each WebSocket to the test.
pub struct ScriptedServer {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    sockets: Receiver<TcpStream>,
    accepting: Option<JoinHandle<()>>,
    _page: TestServer,
}

impl ScriptedServer {
    pub fn start() -> Self {
        let page = TestServer::start(Transport::Ws);
        let page_address = page.address;
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let (sender, sockets) = channel();
        let accepting = thread::spawn({
            let listener = listener.clone();
            move || {
                while let Ok((client, _)) = listener.accept() {
                    let sender = sender.clone();
                    // Not joined: browsers open connections that they do not use.
                    thread::spawn(move || serve(client, page_address, &sender));
                }
            }
        });
        let address = listener.local_addr().unwrap();
        Self { address, listener, sockets, accepting: Some(accepting), _page: page }
    }

    pub fn url(&self) -> String {
        format!("http://localhost:{}/", self.address.port())
    }

    /// Waits for the next WebSocket.
    pub fn accept(&self) -> Peer {
        Peer::new(self.sockets.recv_timeout(TIMEOUT).expect("the page connects"))
    }

    /// Asserts that the page has not connected again.
    pub fn assert_no_connection(&self) {
        assert!(self.sockets.try_recv().is_err(), "the page has connected");
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        // Ends `accept`.
        let _ = rustix::net::shutdown(&*self.listener, ListenerShutdown::Both);
        let result = self.accepting.take().unwrap().join();
        if !thread::panicking() {
            result.unwrap();
        }
    }
}

/// Passes a request for a file to the server that has the page, and a WebSocket to the test.
fn serve(mut client: TcpStream, page: SocketAddr, sockets: &Sender<TcpStream>) {
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.set_nodelay(true).unwrap();
    let Some(head) = peek_head(&client) else { return };
    if head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n") {
        if let Ok(socket) = tungstenite::accept(client) {
            // The test may be over.
            let _ = sockets.send(socket.into_inner());
        }
        return;
    }
    let Ok(mut server) = TcpStream::connect(page) else { return };
    let mut request = vec![0; head.len()];
    let _ = client
        .read_exact(&mut request)
        .and_then(|()| server.write_all(&request))
        .and_then(|()| std::io::copy(&mut server, &mut client));
    let _ = client.shutdown(Shutdown::Both);
}

/// The head of the request, which stays in the socket. `None`: the browser has closed the connection, or not used it.
fn peek_head(client: &TcpStream) -> Option<String> {
    let mut buffer = vec![0; MAX_HEAD_BYTES];
    let mut seen = 0;
    loop {
        let length = match client.peek(&mut buffer) {
            Ok(0) => return None,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        let head = String::from_utf8_lossy(&buffer[..length]);
        if let Some(end) = head.find("\r\n\r\n") {
            return Some(head[..end + 4].to_owned());
        }
        // `peek` returns at once while there is only what was seen before.
        if length == seen {
            thread::yield_now();
        }
        seen = length;
    }
}

/// The server's side of a WebSocket.
pub struct Peer {
    tcp: TcpStream,
    writer: Arc<Mutex<WebSocket<TcpStream>>>,
    messages: Receiver<Value>,
    reading: JoinHandle<()>,
}

impl Peer {
    /// `tcp`: after the handshake.
    fn new(tcp: TcpStream) -> Self {
        // A page with a form may be silent for long.
        tcp.set_read_timeout(None).unwrap();
        let socket = || WebSocket::from_raw_socket(tcp.try_clone().unwrap(), Role::Server, None);
        let writer = Arc::new(Mutex::new(socket()));
        let (sender, messages) = channel();
        let reading = thread::spawn({
            let (reader, writer, tcp) = (socket(), writer.clone(), tcp.try_clone().unwrap());
            move || {
                read(reader, &writer, &sender);
                let _ = tcp.shutdown(Shutdown::Both);
            }
        });
        Self { tcp, writer, messages, reading }
    }

    pub fn send(&self, message: Value) {
        lock(&self.writer).send(Message::text(message.to_string())).unwrap();
    }

    pub fn error(&self, content: &str) {
        self.send(
            json!({"type": "error", "username": "System", "content": content, "timestamp": "12:00:00"}),
        );
    }

    pub fn ack(&self, txn_id: &Value, id: u64) {
        self.send(json!({
            "type": "ack", "txn_id": txn_id, "id": id, "time": "2026-01-01T12:00:00.000Z", "timestamp": "12:00:00",
        }));
    }

    pub fn deleted(&self, id: u64) {
        self.send(json!({"type": "deleted", "id": id, "timestamp": "12:00:00"}));
    }

    /// Answers a `join` or a `history`. The newest id is 100.
    pub fn history(&self, messages: &[Value], more: bool) {
        self.send(json!({
            "type": "history", "messages": messages, "id": 100, "more": more, "epoch": "one", "recovered": true,
            "session": "the session", "timestamp": "12:00:00",
        }));
    }

    /// The next message from the page.
    pub fn next(&self) -> Value {
        self.messages.recv_timeout(TIMEOUT).expect("the page sends a message")
    }

    /// The next message, which must be a `join`.
    pub fn next_join(&self) -> Value {
        let join = self.next();
        assert_eq!(join["type"], "join", "{join}");
        join
    }

    /// Lets the page in as the last of these members.
    pub fn admit(&self, members: &[&str], commands: &Value) {
        self.admit_with(members, commands, &[], false);
    }

    /// The same with messages in the answer.
    pub fn admit_with(&self, members: &[&str], commands: &Value, messages: &[Value], more: bool) {
        let list: Vec<Value> = members
            .iter()
            .map(|name| json!({"username": name, "is_mod": false, "is_timed_out": false}))
            .collect();
        self.send(json!({"type": "user_list", "content": list, "timestamp": "12:00:00"}));
        self.send(json!({"type": "command_list", "content": commands, "timestamp": "12:00:00"}));
        self.history(messages, more);
    }

    /// Closes the connection, and waits until the page has answered.
    pub fn close(self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        lock(&self.writer).close(Some(frame)).unwrap();
        self.reading.join().unwrap();
    }

    /// Ends the connection without a close.
    pub fn cut(self) {
        let _ = self.tcp.shutdown(Shutdown::Both);
        self.reading.join().unwrap();
    }
}

/// Passes on what the page sends until the connection ends, and answers its probes, which come at any time.
fn read(mut reader: WebSocket<TcpStream>, writer: &Mutex<WebSocket<TcpStream>>, messages: &Sender<Value>) {
    while let Ok(message) = reader.read() {
        let Message::Text(text) = message else { return };
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["type"] == "history" && message["limit"] == 0 {
            let answer = json!({
                "type": "history", "messages": [], "id": 100, "more": false, "epoch": "one", "timestamp": "12:00:00",
            });
            let _ = lock(writer).send(Message::text(answer.to_string()));
        } else {
            let _ = messages.send(message);
        }
    }
}

fn lock(writer: &Mutex<WebSocket<TcpStream>>) -> MutexGuard<'_, WebSocket<TcpStream>> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message in the history.
pub fn public(id: u64, username: &str, content: &str) -> Value {
    json!({
        "type": "public", "username": username, "content": content, "timestamp": "12:00:00", "id": id,
        "time": "2026-01-01T12:00:00.000Z",
    })
}

/// A line about moderation, which is in the history as well.
pub fn system(id: u64, content: &str) -> Value {
    json!({
        "type": "system", "username": "System", "content": content, "timestamp": "12:00:00", "id": id,
        "time": "2026-01-01T12:00:00.000Z",
    })
}
