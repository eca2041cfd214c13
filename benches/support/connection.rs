//! One client: a non-blocking WebSocket, with or without TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::SockRef;

use super::Result;
use super::child::Child;
use super::frames::{self, CLOSE, FIN, MASK, PING, PONG};

/// The segment size of Ethernet, in bytes.
const SEGMENT_BYTES: u32 = 1448;

/// How a client differs from one with the system's defaults.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// The address in `X-Forwarded-For`.
    pub forwarded_for: Option<&'a str>,
    /// In bytes. If it is small, what is not read soon waits in the server. Segments are then as small as on Ethernet:
    /// with those of loopback, the server's kernel would buffer more than a megabyte.
    pub receive_buffer: Option<usize>,
}

pub struct Connection {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What the socket, or TLS, has not accepted yet.
    outgoing: Outgoing,
    incoming: Vec<u8>,
    /// Whether frames follow in `incoming`.
    upgraded: bool,
}

impl Connection {
    /// Connects, and sends the upgrade request. Frames can be queued at once.
    pub fn open(server: &Child, options: Options) -> Result<Self> {
        let mut connection = Self::raw(server, options)?;
        let (head, end) = frames::UPGRADE.split_at(frames::UPGRADE.len() - 2);
        connection.queue(head);
        if let Some(address) = options.forwarded_for {
            connection.queue(format!("X-Forwarded-For: {address}\r\n").as_bytes());
        }
        connection.queue(end);
        Ok(connection)
    }

    /// Connects, and sends nothing but, if the server has a certificate, TLS.
    pub fn raw(server: &Child, options: Options) -> Result<Self> {
        let tls = server.tls.as_ref().map(client_connection).transpose()?;
        Ok(Self {
            socket: connect(server, options)?,
            tls: tls.map(Box::new),
            outgoing: Outgoing::default(),
            incoming: Vec::new(),
            upgraded: false,
        })
    }

    /// Connects, and sends nothing, not even TLS.
    pub fn without_tls(server: &Child) -> Result<Self> {
        let socket = connect(server, Options::default())?;
        Ok(Self { socket, tls: None, outgoing: Outgoing::default(), incoming: Vec::new(), upgraded: false })
    }

    pub fn queue(&mut self, bytes: &[u8]) {
        self.outgoing.bytes.extend_from_slice(bytes);
    }

    /// Queues a text message.
    pub fn queue_text(&mut self, text: &str) {
        self.queue(&frames::masked(text));
    }

    /// Sends what was queued, as far as the socket accepts it. Returns whether that is everything.
    pub fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            let written = write_some(&mut self.socket, self.outgoing.rest())?;
            self.outgoing.remove(written);
            return Ok(self.outgoing.is_empty());
        };
        loop {
            if !self.outgoing.is_empty() {
                // `Ok(0)`: its buffer is full.
                let written = tls.writer().write(self.outgoing.rest())?;
                self.outgoing.remove(written);
            }
            while tls.wants_write() {
                match tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if is_pending(&error) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            if self.outgoing.is_empty() || tls.is_handshaking() {
                return Ok(self.outgoing.is_empty());
            }
        }
    }

    /// Reads once, at most what `buffer` holds. Returns how much that was: 0 if there is nothing now.
    ///
    /// # Errors
    /// `UnexpectedEof`: the server has closed the connection.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let read = read_some(&mut self.socket, buffer)?;
            self.incoming.extend_from_slice(&buffer[..read]);
            return Ok(read);
        };
        match tls.read_tls(&mut self.socket) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if is_pending(&error) => return Ok(0),
            Err(error) => return Err(error),
        }
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let start = self.incoming.len();
        self.incoming.resize(start + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut self.incoming[start..])?;
        Ok(self.incoming.len() - start)
    }

    /// Handles each complete message that was received. Pings are answered.
    ///
    /// # Errors
    /// The server has refused the upgrade.
    pub fn messages(&mut self, mut handle: impl FnMut(u8, &[u8])) -> io::Result<()> {
        if !self.upgraded {
            let Some(end) = self.incoming.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(());
            };
            if !self.incoming.starts_with(b"HTTP/1.1 101") {
                return Err(io::Error::other(String::from_utf8_lossy(&self.incoming).into_owned()));
            }
            self.incoming.drain(..end + 4);
            self.upgraded = true;
        }
        let mut parsed = 0;
        while let Some(length) = frames::frame_length(&self.incoming[parsed..]) {
            let frame = &self.incoming[parsed..parsed + length];
            let (opcode, payload) = (frame[0] & 0xF, &frame[frames::head_length(frame)..]);
            if opcode == PING {
                self.outgoing.bytes.extend(frames::frame_of(FIN | PONG, payload, Some(MASK)));
            }
            handle(opcode, payload);
            parsed += length;
        }
        self.incoming.drain(..parsed);
        Ok(())
    }

    /// Discards what was received. Returns whether there was anything.
    pub fn discard(&mut self) -> bool {
        !mem::take(&mut self.incoming).is_empty()
    }

    pub fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// Starts the closing handshake.
    pub fn queue_close(&mut self) {
        self.queue(&frames::frame_of(FIN | CLOSE, &1000_u16.to_be_bytes(), Some(MASK)));
    }

    /// Ends the sending side and leaves the other one open.
    pub fn half_close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = self.flush();
        }
        // If it is closed already, there is nothing to end.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Closes with an RST, like a client whose process was killed behind a full buffer.
    pub fn reset(self) {
        // If this fails, the close is an orderly one.
        let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }
}

#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// How many of these bytes are sent.
    sent: usize,
}

impl Outgoing {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    fn remove(&mut self, count: usize) {
        self.sent += count;
        if self.is_empty() {
            (self.bytes, self.sent) = (Vec::new(), 0);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub fn client_connection(config: &Arc<ClientConfig>) -> Result<ClientConnection> {
    Ok(ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?)
}

/// A socket that is non-blocking from the start: while the server accepts no connection, only this one waits.
fn connect(server: &Child, options: Options) -> Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    if let Some(bytes) = options.receive_buffer {
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
        SockRef::from(&socket).set_tcp_mss(SEGMENT_BYTES)?;
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &server.address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if is_pending(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

fn read_some(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match socket.read(buffer) {
        Ok(0) if !buffer.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) if is_pending(&error) => Ok(0),
        read => read,
    }
}

/// Whether to try again later: the socket is not connected yet, has nothing to read, or accepts nothing.
fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}
