//! One client's WebSocket and backlog behind a lock.
//!
//! The connection's thread reads; the hub sends, flushes and cuts off. tungstenite parses frames and answers
//! pings and closes. What it writes goes through the same [`Backlog`] as what the hub sends, so frames never
//! interleave.

use std::io::{self, ErrorKind, Read as _, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use thiserror::Error;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

use super::backlog::{Backlog, Flush, Output, SendError};
use super::frame_tracker::FrameTracker;
use super::poll::{Wait, linger, wait};
use super::stream::Stream;

/// The read buffer that each connection allocates, in bytes.
const READ_BUFFER_BYTES: usize = 512;
/// How much one [`Link::read`] reads at most, in bytes. It bounds how long a flood keeps the hub from the lock.
const MAX_READ_BYTES: usize = 32 * 1024;

pub struct Link {
    socket: Arc<TcpStream>,
    websocket: Mutex<WebSocket<Wire>>,
    cut_off: AtomicBool,
}

/// The result of [`Link::read`].
pub struct Read {
    pub received: Received,
    /// How many bytes were read from the socket, including TLS overhead.
    pub bytes: usize,
    /// The number of the message that has begun and is not complete, if there is one.
    pub incomplete: Option<u64>,
}

#[derive(Debug)]
pub enum Received {
    Text(Utf8Bytes),
    /// Its length, in bytes.
    Binary(usize),
    /// A ping or a pong.
    Control,
    /// Many bytes without a complete message; there may be more to read.
    Partial,
    /// No complete message, and nothing more to read now.
    Nothing {
        /// Whether part of a message has arrived, which shows that the client is connected.
        progress: bool,
    },
}

/// Why there is nothing more to read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// With the client's code; `None`: it gave none, or the server began the closing handshake.
    #[error("closed")]
    Closed(Option<CloseCode>),
    #[error("disconnected without a closing handshake")]
    Disconnected,
    /// The client violated the protocol or a limit. Close the connection with this code and reason.
    #[error("closed with {0}: {1}")]
    Violation(CloseCode, String),
    #[error("cut off: {0}")]
    CutOff(#[source] SendError),
}

impl Link {
    /// A link on an upgraded connection. `leftover` is what was read beyond the request head.
    ///
    /// `max_message`: the longest message from the client, in bytes. `max_backlog`: the most that may wait for
    /// the client, in bytes.
    pub fn new(stream: Stream, leftover: Vec<u8>, max_message: usize, max_backlog: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(max_backlog.max(1))
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let socket = stream.socket();
        let mut frames = FrameTracker::new();
        frames.observe(&leftover);
        let backlog = Backlog::new(max_backlog);
        let wire = Wire { stream, frames, backlog, allowance: MAX_READ_BYTES, close_code: None };
        let websocket = WebSocket::from_partially_read(wire, leftover, Role::Server, Some(config));
        Self { socket, websocket: Mutex::new(websocket), cut_off: AtomicBool::new(false) }
    }

    /// The socket, to wait on without the lock.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads one message. Repeat it until [`Received::Nothing`] before waiting for the socket: more may have
    /// been read already, decrypted or not.
    pub fn read(&self) -> Result<Read, ReadError> {
        let mut websocket = self.lock();
        let before = websocket.get_ref().stream.bytes_read();
        let received = Self::read_message(&mut websocket)?;
        let Wire { stream, frames, .. } = websocket.get_ref();
        let bytes = usize::try_from(stream.bytes_read() - before).unwrap_or(usize::MAX);
        Ok(Read { received, bytes, incomplete: frames.incomplete() })
    }

    fn read_message(websocket: &mut WebSocket<Wire>) -> Result<Received, ReadError> {
        websocket.get_mut().allowance = MAX_READ_BYTES;
        loop {
            match websocket.read() {
                Ok(Message::Text(text)) => return Ok(Received::Text(text)),
                Ok(Message::Binary(bytes)) => return Ok(Received::Binary(bytes.len())),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {
                    websocket.flush()?;
                    return Ok(Received::Control);
                }
                // The next read sends the reply and returns `ConnectionClosed`.
                Ok(Message::Close(frame)) => {
                    websocket.get_mut().close_code = frame.map(|frame| frame.code);
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(match websocket.get_ref().allowance {
                        0 => Received::Partial,
                        left => Received::Nothing { progress: left < MAX_READ_BYTES },
                    });
                }
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Err(ReadError::Closed(websocket.get_ref().close_code));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends complete frames, as far as the client accepts them now.
    ///
    /// # Errors
    /// The client must be cut off, or has disconnected.
    pub fn send(&self, output: &Output, now: Instant) -> Result<Flush, SendError> {
        let mut websocket = self.lock();
        if !websocket.can_write() {
            // Nothing may follow a close frame (RFC 6455, section 5.5.1).
            return websocket.get_mut().flush_backlog(now);
        }
        let Wire { stream, backlog, .. } = websocket.get_mut();
        backlog.send(output, stream, now)
    }

    /// Sends what waits, as far as the client accepts it now.
    ///
    /// # Errors
    /// The client must be cut off, or has disconnected.
    pub fn flush(&self, now: Instant) -> Result<Flush, SendError> {
        self.lock().get_mut().flush_backlog(now)
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// The client must be cut off, or has disconnected.
    pub fn ping(&self, now: Instant) -> Result<Flush, SendError> {
        self.control(now, |websocket| websocket.write(Message::Ping(Bytes::new())))
    }

    /// Starts the closing handshake.
    ///
    /// # Errors
    /// The client must be cut off, or has disconnected.
    pub fn close(&self, code: CloseCode, reason: &str, now: Instant) -> Result<Flush, SendError> {
        let frame = CloseFrame { code, reason: reason.into() };
        self.control(now, |websocket| websocket.close(Some(frame)))
    }

    /// Disconnects the client at once, which ends the read of the connection's thread. `true`: this was the first call.
    pub fn cut_off(&self) -> bool {
        // In this order: the shutdown wakes the connection's thread, which calls this as well when it ends.
        let is_first = !self.cut_off.swap(true, Ordering::Relaxed);
        let _ = self.socket.shutdown(Shutdown::Both);
        is_first
    }

    /// Whether [`Self::cut_off`] was called.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Sends what waits, closes the sending side, and lingers, all by `until`.
    pub fn finish(&self, until: Instant) {
        while let Ok(Flush::Pending { .. }) = self.flush(Instant::now()) {
            if !matches!(wait(&self.socket, Wait::Write, until), Ok(true)) {
                break;
            }
        }
        self.lock().get_mut().stream.finish();
        linger(&self.socket, until, |buffer| self.lock().get_mut().stream.read(buffer));
    }

    fn control(
        &self,
        now: Instant,
        write: impl FnOnce(&mut WebSocket<Wire>) -> Result<(), Error>,
    ) -> Result<Flush, SendError> {
        let mut websocket = self.lock();
        match write(&mut websocket) {
            // The connection is closing: no control frame may be sent.
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {}
            Err(Error::Io(error)) => return Err(send_error(error)),
            Err(error) => return Err(SendError::Disconnected(io::Error::other(error))),
        }
        websocket.get_mut().flush_backlog(now)
    }

    /// Ignores poisoning: a panic in a connection's thread must not cause another in the hub.
    fn lock(&self) -> MutexGuard<'_, WebSocket<Wire>> {
        self.websocket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => match send_error(error) {
                SendError::Disconnected(_) => Self::Disconnected,
                error => Self::CutOff(error),
            },
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Closed(None),
            Error::Capacity(_) => Self::Violation(CloseCode::Size, "message too long".into()),
            Error::Utf8(_) => Self::Violation(CloseCode::Invalid, "text that is not UTF-8".into()),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Disconnected,
            Error::Protocol(error) => Self::Violation(CloseCode::Protocol, error.to_string()),
            _ => Self::Disconnected,
        }
    }
}

impl From<SendError> for ReadError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Disconnected(_) => Self::Disconnected,
            error => Self::CutOff(error),
        }
    }
}

/// Unwraps a [`SendError`] that has passed through tungstenite inside an `io::Error`.
fn send_error(error: io::Error) -> SendError {
    error.downcast().unwrap_or_else(SendError::Disconnected)
}

/// The stream as tungstenite sees it: reads come from the socket, up to the allowance; writes go to the backlog.
struct Wire {
    stream: Stream,
    frames: FrameTracker,
    backlog: Backlog,
    /// How many bytes the current [`Link::read`] may still read.
    allowance: usize,
    /// That of the client's close frame.
    close_code: Option<CloseCode>,
}

impl Wire {
    fn flush_backlog(&mut self, now: Instant) -> Result<Flush, SendError> {
        self.backlog.flush(&mut self.stream, now)
    }
}

impl io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.allowance == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.stream.read(buffer)?;
        self.allowance = self.allowance.saturating_sub(read);
        self.frames.observe(&buffer[..read]);
        Ok(read)
    }
}

impl Write for Wire {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.backlog.push(Bytes::copy_from_slice(frame));
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.flush_backlog(Instant::now()) {
            Ok(_) => Ok(()),
            Err(SendError::Disconnected(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// The shutdown wakes the connection's thread. If that thread's call came first, the cut-off was once neither
    /// logged nor counted, which happened to 305 of 900.
    #[test]
    fn a_cut_off_comes_first_even_if_the_connections_thread_ends_at_once() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        for round in 0..1000 {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let link = Arc::new(Link::new(Stream::plain(Arc::new(socket)), Vec::new(), 1024, 1024));
            let reader = thread::spawn({
                let link = link.clone();
                move || {
                    link.ping(Instant::now()).unwrap();
                    while link.read().is_ok() {
                        let _ = wait(link.socket(), Wait::Read, Instant::now() + Duration::from_secs(60));
                    }
                    link.cut_off()
                }
            });
            // After the ping, the thread is about to wait.
            client.read_exact(&mut [0; 2]).unwrap();
            thread::yield_now();
            assert!(link.cut_off(), "in round {round}");
            assert!(!reader.join().unwrap(), "it is counted once");
        }
    }
}
