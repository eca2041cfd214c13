//! One client's WebSocket and backlog behind its lock.
//!
//! The connection's thread reads, the hub sends, flushes and cuts off. tungstenite reads and answers pings and
//! closes; what it writes goes through the same [`Backlog`] as what the hub sends, so frames never interleave.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

use super::stream::{Stream, Transport, Wait, discard, wait};
use crate::config::Limits;
use crate::ops::metrics::CutOffBy;

/// A client that takes nothing for this long while bytes wait for it is cut off.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// What is allocated for each connection to read into, in bytes.
const READ_BUFFER_BYTES: usize = 4096;
/// What is read in one go, in bytes, before the hub may have the connection: a flood must not keep it waiting.
pub const PORTION: usize = 32 * 1024;
/// Shorter slices of a tape are copied when they must wait: they would keep a much longer tape in memory.
const COPY_BELOW: usize = 4096;
/// How many slices go to the system in one write.
const MAX_SLICES: usize = 64;

pub struct Link {
    socket: Arc<TcpStream>,
    websocket: Mutex<WebSocket<Wire>>,
    cut: AtomicBool,
}

/// What a read brought.
#[derive(Debug)]
pub enum Received {
    /// Nothing whole, and nothing more for now; but perhaps a part.
    Nothing {
        heard: bool,
    },
    /// Nothing whole, but there may be more: others may have the connection first. Also see [`PORTION`].
    More,
    Text(Utf8Bytes),
    Binary,
    Control,
}

/// Why there is nothing more to read.
#[derive(Debug)]
pub enum Ended {
    /// The closing handshake is done.
    Closed,
    /// The client went without one.
    Gone,
    /// The client broke the rules, for which the code and the reason tell it.
    Broke(CloseCode, String),
    CutOff(CutOff),
}

/// Why a client is to be cut off, or is gone.
#[derive(Debug)]
pub enum CutOff {
    QueueFull { waiting: usize },
    Stuck,
    Gone(io::Error),
}

/// Whether a client has taken all that was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sent {
    All,
    /// Something waits, and wants [`Link::flush`] again; the sooner if the client takes something.
    Waiting {
        taking: bool,
    },
}

impl Link {
    /// A link on an upgraded connection, of which these bytes have been read already.
    pub fn new(stream: Stream, socket: Arc<TcpStream>, read: Vec<u8>, limits: &Limits) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(limits.send_queue_bytes.max(1))
            .max_message_size(Some(limits.message_bytes))
            .max_frame_size(Some(limits.message_bytes));
        let wire = Wire { stream, backlog: Backlog::new(limits.send_queue_bytes), allowance: PORTION };
        let websocket = WebSocket::from_partially_read(wire, read, Role::Server, Some(config));
        Self { socket, websocket: Mutex::new(websocket), cut: AtomicBool::new(false) }
    }

    /// What to wait on, without the lock.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads one message. To be repeated until there is [`Received::Nothing`] before waiting, for more may be
    /// here already, decrypted or not. A part of a message is a sign of life, too.
    ///
    /// # Errors
    /// Why there is nothing more to read.
    pub fn read(&self) -> Result<Received, Ended> {
        let mut websocket = self.lock();
        websocket.get_mut().allowance = PORTION;
        loop {
            return match websocket.read() {
                Err(Error::Io(error)) if is_blocked(&error) => match websocket.get_ref().allowance {
                    0 => Ok(Received::More),
                    left => Ok(Received::Nothing { heard: left < PORTION }),
                },
                Ok(Message::Text(text)) => Ok(Received::Text(text)),
                Ok(Message::Binary(_)) => Ok(Received::Binary),
                // The answer goes out with the next read.
                Ok(Message::Close(_)) => continue,
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {
                    websocket.flush().map(|()| Received::Control).map_err(ended)
                }
                Err(error) => Err(ended(error)),
            };
        }
    }

    /// Sends finished frames, as far as the client takes them now.
    ///
    /// # Errors
    /// The client is to be cut off, or gone.
    pub fn send(&self, frames: &[Bytes], now: Instant) -> Result<Sent, CutOff> {
        let mut websocket = self.lock();
        if !websocket.can_write() {
            // Nothing may follow a close frame (RFC 6455, section 5.5.1).
            return websocket.get_mut().flush_now(now);
        }
        let Wire { stream, backlog, .. } = websocket.get_mut();
        if backlog.is_waiting() {
            // Whoever is slow is offered it all again at its time, and not with each message.
            frames.iter().for_each(|frame| backlog.wait(frame.clone()));
            return backlog.within_bounds(now);
        }
        frames.iter().for_each(|frame| backlog.push(frame.clone()));
        backlog.flush(stream, now)
    }

    /// Sends what waits, as far as the client takes it now.
    ///
    /// # Errors
    /// The client is to be cut off, or gone.
    pub fn flush(&self, now: Instant) -> Result<Sent, CutOff> {
        self.lock().get_mut().flush_now(now)
    }

    /// The bytes that wait for the client.
    pub fn queued_bytes(&self) -> usize {
        self.lock().get_ref().backlog.bytes
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// The client is to be cut off, or gone.
    pub fn ping(&self, now: Instant) -> Result<Sent, CutOff> {
        self.control(now, |websocket| websocket.write(Message::Ping(Bytes::new())))
    }

    /// Begins the closing handshake.
    ///
    /// # Errors
    /// The client is to be cut off, or gone.
    pub fn close(&self, code: CloseCode, reason: &str, now: Instant) -> Result<Sent, CutOff> {
        let frame = CloseFrame { code, reason: reason.into() };
        self.control(now, |websocket| websocket.close(Some(frame)))
    }

    /// Ends the connection at once; its thread will notice. `true`: nobody has done so before.
    pub fn cut(&self) -> bool {
        let _ = self.socket.shutdown(Shutdown::Both);
        !self.cut.swap(true, Ordering::Relaxed)
    }

    /// Whether the connection was ended by [`Self::cut`], so that what it still says need not be waited for.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Ends the connection politely: sends what waits, says goodbye, and takes what the client still sends (or
    /// the system would throw away what the client has not read yet), all within the time given.
    pub fn finish(&self, until: Instant) {
        while let Ok(Sent::Waiting { .. }) = self.flush(Instant::now()) {
            if !matches!(wait(&self.socket, Wait::Write, until), Ok(true)) {
                break;
            }
        }
        self.lock().get_mut().stream.finish();
        discard(&self.socket, until, |buffer| self.lock().get_mut().stream.read(buffer));
    }

    fn control(
        &self,
        now: Instant,
        write: impl FnOnce(&mut WebSocket<Wire>) -> Result<(), Error>,
    ) -> Result<Sent, CutOff> {
        let mut websocket = self.lock();
        match write(&mut websocket) {
            // A connection that is closing already is told nothing more.
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {}
            Err(Error::Io(error)) => return Err(cut_off(error)),
            Err(error) => return Err(CutOff::Gone(io::Error::other(error))),
        }
        websocket.get_mut().flush_now(now)
    }

    /// A thread that panicked with the lock has lost its client, not the hub's way past it.
    fn lock(&self) -> MutexGuard<'_, WebSocket<Wire>> {
        self.websocket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error of tungstenite's means for the connection.
fn ended(error: Error) -> Ended {
    match error {
        Error::Io(error) => cut_off(error).into(),
        Error::ConnectionClosed | Error::AlreadyClosed => Ended::Closed,
        Error::Capacity(_) => Ended::Broke(CloseCode::Size, "message too long".into()),
        Error::Utf8(_) => Ended::Broke(CloseCode::Invalid, "text that is not UTF-8".into()),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Gone,
        Error::Protocol(error) => Ended::Broke(CloseCode::Protocol, error.to_string()),
        _ => Ended::Gone,
    }
}

impl From<CutOff> for Ended {
    fn from(cut_off: CutOff) -> Self {
        match cut_off {
            CutOff::Gone(_) => Self::Gone,
            cut_off => Self::CutOff(cut_off),
        }
    }
}

fn is_blocked(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

/// What an error of the wire's means, which may be one of the backlog's own inside.
fn cut_off(error: io::Error) -> CutOff {
    error.downcast().unwrap_or_else(CutOff::Gone)
}

impl std::error::Error for CutOff {}

impl From<&CutOff> for CutOffBy {
    fn from(cut_off: &CutOff) -> Self {
        match cut_off {
            CutOff::QueueFull { .. } => Self::QueueFull,
            CutOff::Stuck | CutOff::Gone(_) => Self::Stuck,
        }
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::QueueFull { waiting } => {
                write!(formatter, "{waiting} bytes wait for it, more than SEND_QUEUE_BYTES")
            }
            Self::Stuck => write!(formatter, "it has taken nothing for {} seconds", STUCK_AFTER.as_secs()),
            Self::Gone(error) => write!(formatter, "it is gone ({error})"),
        }
    }
}

/// The stream as tungstenite sees it: reads come from the socket, in portions; writes go to the backlog.
struct Wire {
    stream: Stream,
    backlog: Backlog,
    /// The bytes that may still be read in this go.
    allowance: usize,
}

impl Wire {
    fn flush_now(&mut self, now: Instant) -> Result<Sent, CutOff> {
        self.backlog.flush(&mut self.stream, now)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.allowance == 0 {
            // There may well be more, which `Link::read` tells its caller.
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.stream.read(buffer)?;
        self.allowance = self.allowance.saturating_sub(read);
        Ok(read)
    }
}

impl Write for Wire {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.backlog.push(Bytes::copy_from_slice(frame));
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.flush_now(Instant::now()) {
            Ok(_) => Ok(()),
            Err(CutOff::Gone(error)) => Err(error),
            Err(cut_off) => Err(io::Error::other(cut_off)),
        }
    }
}

/// What is to be sent to a client, and what of it waits.
struct Backlog {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// The most that may wait, in bytes.
    limit: usize,
    /// Since when it waits and the client has taken nothing.
    stuck_since: Option<Instant>,
}

enum Chunk {
    /// A slice of a tape: a reference, not a copy.
    Shared(Bytes),
    /// Short slices, copied together.
    Own(BytesMut),
}

impl Backlog {
    fn new(limit: usize) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, limit, stuck_since: None }
    }

    fn is_waiting(&self) -> bool {
        self.stuck_since.is_some()
    }

    /// Adds what is about to be sent.
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.chunks.push_back(Chunk::Shared(frame));
    }

    /// Adds what has to wait.
    fn wait(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.keep(frame);
    }

    fn keep(&mut self, frame: Bytes) {
        if frame.len() >= COPY_BELOW {
            return self.chunks.push_back(Chunk::Shared(frame));
        }
        match self.chunks.back_mut() {
            Some(Chunk::Own(own)) => own.extend_from_slice(&frame),
            _ => self.chunks.push_back(Chunk::Own(BytesMut::from(&frame[..]))),
        }
    }

    fn flush(&mut self, stream: &mut impl Transport, now: Instant) -> Result<Sent, CutOff> {
        let before = stream.taken();
        match self.write(stream) {
            Ok(()) => {
                self.stuck_since = None;
                // What a slow time has made large is given back.
                self.chunks.shrink_to(MAX_SLICES);
                return Ok(Sent::All);
            }
            Err(error) if is_blocked(&error) => {}
            Err(error) => return Err(CutOff::Gone(error)),
        }
        for chunk in std::mem::take(&mut self.chunks) {
            match chunk {
                Chunk::Shared(frame) => self.keep(frame),
                own => self.chunks.push_back(own),
            }
        }
        let taking = stream.taken() > before;
        if taking || self.stuck_since.is_none() {
            self.stuck_since = Some(now);
        }
        self.within_bounds(now).map(|_| Sent::Waiting { taking })
    }

    fn within_bounds(&self, now: Instant) -> Result<Sent, CutOff> {
        if self.bytes > self.limit {
            return Err(CutOff::QueueFull { waiting: self.bytes });
        }
        match self.stuck_since {
            Some(since) if now.saturating_duration_since(since) >= STUCK_AFTER => Err(CutOff::Stuck),
            _ => Ok(Sent::Waiting { taking: false }),
        }
    }

    fn write(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while !self.chunks.is_empty() {
            let mut portion = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.chunks.len().min(MAX_SLICES);
            for (slot, chunk) in portion.iter_mut().zip(&self.chunks) {
                *slot = IoSlice::new(chunk.bytes());
            }
            let mut written = stream.write_vectored(&portion[..count])?;
            if written == 0 && self.bytes > 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.bytes -= written;
            while let Some(first) = self.chunks.front_mut().filter(|first| first.bytes().len() <= written) {
                written -= first.bytes().len();
                self.chunks.pop_front();
            }
            if let Some(first) = self.chunks.front_mut() {
                first.advance(written);
            }
        }
        stream.flush()
    }
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(frame) => frame,
            Self::Own(own) => own,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Shared(frame) => frame.advance(count),
            Self::Own(own) => own.advance(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes and then blocks.
    struct Slow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Transport for Slow {
        fn taken(&self) -> u64 {
            self.taken.len() as u64
        }
    }

    #[test]
    fn what_waits_is_sent_in_order_when_the_client_takes_it() {
        let now = Instant::now();
        let mut slow = Slow { room: 4, taken: Vec::new() };
        let mut backlog = Backlog::new(100);
        for frame in ["abc", "", "def", "g"] {
            backlog.push(Bytes::from_static(frame.as_bytes()));
        }
        assert_eq!(backlog.flush(&mut slow, now).unwrap(), Sent::Waiting { taking: true });
        assert_eq!((slow.taken.as_slice(), backlog.bytes), (&b"abcd"[..], 3));
        slow.room = 100;
        backlog.push(Bytes::from_static(b"h"));
        assert_eq!(backlog.flush(&mut slow, now).unwrap(), Sent::All);
        assert_eq!((slow.taken.as_slice(), backlog.bytes), (&b"abcdefgh"[..], 0));
    }

    #[test]
    fn a_queue_past_its_bound_is_cut_off() {
        let mut slow = Slow { room: 1, taken: Vec::new() };
        let mut backlog = Backlog::new(4);
        backlog.push(Bytes::from_static(b"12345"));
        assert!(matches!(backlog.flush(&mut slow, Instant::now()), Ok(Sent::Waiting { .. })));
        backlog.push(Bytes::from_static(b"6"));
        assert!(matches!(backlog.flush(&mut slow, Instant::now()), Err(CutOff::QueueFull { waiting: 5 })));
    }

    /// A short slice of a long tape would keep all of it, for a client whose own bound is far away.
    #[test]
    fn what_waits_long_keeps_no_long_tape() {
        let mut slow = Slow { room: 0, taken: Vec::new() };
        let mut backlog = Backlog::new(1_000_000);
        let tape = Bytes::from(vec![b'x'; 100_000]);
        for at in 0..1000 {
            backlog.push(tape.slice(at..at + 70));
            assert!(matches!(backlog.flush(&mut slow, Instant::now()), Ok(Sent::Waiting { .. })));
        }
        assert!(tape.is_unique(), "nothing refers to it");
        assert_eq!((backlog.chunks.len(), backlog.bytes), (1, 70_000));
        backlog.push(tape.slice(..50_000));
        assert!(backlog.flush(&mut slow, Instant::now()).is_ok());
        assert_eq!(backlog.chunks.len(), 2, "a long slice is not copied");
    }

    #[test]
    fn a_client_that_takes_nothing_for_thirty_seconds_is_cut_off() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut slow = Slow { room: 0, taken: Vec::new() };
        let mut backlog = Backlog::new(100);
        backlog.push(Bytes::from_static(b"123"));
        assert!(matches!(backlog.flush(&mut slow, start), Ok(Sent::Waiting { .. })));
        slow.room = 1;
        assert!(matches!(backlog.flush(&mut slow, after(29)), Ok(Sent::Waiting { .. })));
        assert!(matches!(backlog.flush(&mut slow, after(58)), Ok(Sent::Waiting { .. })));
        assert!(matches!(backlog.flush(&mut slow, after(59)), Err(CutOff::Stuck)));
    }
}
