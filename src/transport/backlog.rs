//! The bytes that wait to be sent to one client. Limits their number (`SEND_QUEUE_BYTES`) and how long the client may
//! accept none.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::stream::Outgoing;
use crate::ops::metrics::CutOffReason;

/// A client that accepts nothing for this long while bytes wait for it is cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Slices of a tape that are shorter than this, in bytes, are copied when they must wait: each would keep a whole tape
/// in memory.
const COPY_BELOW: usize = 4096;
/// How many slices go to the system in one write.
const MAX_SLICES: usize = 64;

/// The frames for one client that the system has not accepted yet.
pub struct Backlog {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// The most that may wait, in bytes.
    limit: usize,
    /// When the client last accepted bytes, or when they began to wait; `None` while nothing waits.
    stalled_since: Option<Instant>,
}

/// Whether a client has accepted everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flush {
    Complete,
    /// Some bytes are left for another flush.
    Pending {
        /// Whether the client has accepted some this time, so that an early retry is worthwhile.
        progress: bool,
    },
}

/// Why nothing more can be sent to a client.
#[derive(Debug, Error)]
pub enum SendError {
    #[error("{waiting} bytes are waiting, more than SEND_QUEUE_BYTES")]
    BacklogFull { waiting: usize },
    #[error("it has accepted nothing for {} seconds", STALL_TIMEOUT.as_secs())]
    Stalled,
    #[error("disconnected ({0})")]
    Disconnected(#[source] io::Error),
}

enum Chunk {
    /// A slice of a tape, by reference.
    Shared(Bytes),
    /// Short slices, copied together.
    Copied(BytesMut),
}

impl SendError {
    /// The reason for the metrics; `None`: the client has disconnected, so it is not cut off.
    pub fn cut_off_reason(&self) -> Option<CutOffReason> {
        match self {
            Self::BacklogFull { .. } => Some(CutOffReason::BacklogFull),
            Self::Stalled => Some(CutOffReason::Stalled),
            Self::Disconnected(_) => None,
        }
    }
}

impl Backlog {
    pub fn new(limit: usize) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, limit, stalled_since: None }
    }

    /// Whether the last flush left bytes.
    pub fn is_pending(&self) -> bool {
        self.stalled_since.is_some()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a frame that is about to be flushed.
    pub fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.chunks.push_back(Chunk::Shared(frame));
    }

    /// Adds frames behind those that wait for a retry, without trying to send them now.
    ///
    /// # Errors
    /// The client must be cut off.
    pub fn append(&mut self, frames: &[Bytes], now: Instant) -> Result<Flush, SendError> {
        for frame in frames {
            self.bytes += frame.len();
            self.keep(frame.clone());
        }
        self.check(now)?;
        Ok(Flush::Pending { progress: false })
    }

    /// Sends what waits, as far as the client accepts it now.
    ///
    /// # Errors
    /// The client must be cut off, or has disconnected.
    pub fn flush(&mut self, stream: &mut impl Outgoing, now: Instant) -> Result<Flush, SendError> {
        let accepted_before = stream.accepted();
        match self.write(stream) {
            Ok(()) => {
                self.stalled_since = None;
                // Release what the backlog allocated while the client was slow.
                self.chunks.shrink_to(MAX_SLICES);
                return Ok(Flush::Complete);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(SendError::Disconnected(error)),
        }
        for chunk in std::mem::take(&mut self.chunks) {
            match chunk {
                Chunk::Shared(frame) => self.keep(frame),
                copied => self.chunks.push_back(copied),
            }
        }
        let progress = stream.accepted() > accepted_before;
        if progress || self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
        self.check(now)?;
        Ok(Flush::Pending { progress })
    }

    /// Queues a frame for a retry.
    fn keep(&mut self, frame: Bytes) {
        if frame.len() >= COPY_BELOW {
            self.chunks.push_back(Chunk::Shared(frame));
        } else if let Some(Chunk::Copied(copied)) = self.chunks.back_mut() {
            copied.extend_from_slice(&frame);
        } else {
            self.chunks.push_back(Chunk::Copied(BytesMut::from(&frame[..])));
        }
    }

    fn check(&self, now: Instant) -> Result<(), SendError> {
        if self.bytes > self.limit {
            return Err(SendError::BacklogFull { waiting: self.bytes });
        }
        match self.stalled_since {
            Some(since) if now.saturating_duration_since(since) >= STALL_TIMEOUT => Err(SendError::Stalled),
            _ => Ok(()),
        }
    }

    fn write(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while !self.chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.chunks.len().min(MAX_SLICES);
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk.bytes());
            }
            let written = stream.write_vectored(&slices[..count])?;
            if written == 0 && self.bytes > 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.remove(written);
        }
        stream.flush()
    }

    /// Removes bytes from the front, and empty chunks with them.
    fn remove(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = self.chunks.front_mut() {
            let length = first.bytes().len();
            if length > count {
                return first.advance(count);
            }
            count -= length;
            self.chunks.pop_front();
        }
    }
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(frame) => frame,
            Self::Copied(copied) => copied,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Shared(frame) => frame.advance(count),
            Self::Copied(copied) => copied.advance(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts `capacity` bytes and then blocks.
    struct SlowClient {
        capacity: usize,
        accepted: Vec<u8>,
    }

    impl SlowClient {
        fn new(capacity: usize) -> Self {
            Self { capacity, accepted: Vec::new() }
        }
    }

    impl Write for SlowClient {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let accepted = bytes.len().min(self.capacity);
            if accepted == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.capacity -= accepted;
            self.accepted.extend_from_slice(&bytes[..accepted]);
            Ok(accepted)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Outgoing for SlowClient {
        fn accepted(&self) -> u64 {
            self.accepted.len() as u64
        }
    }

    #[test]
    fn pending_bytes_are_sent_in_order() {
        let now = Instant::now();
        let mut client = SlowClient::new(4);
        let mut backlog = Backlog::new(100);
        for frame in ["abc", "", "def", "g"] {
            backlog.push(Bytes::from_static(frame.as_bytes()));
        }
        assert_eq!(backlog.flush(&mut client, now).unwrap(), Flush::Pending { progress: true });
        assert_eq!((client.accepted.as_slice(), backlog.bytes), (&b"abcd"[..], 3));
        client.capacity = 100;
        backlog.append(&[Bytes::from_static(b"h")], now).unwrap();
        assert_eq!(backlog.flush(&mut client, now).unwrap(), Flush::Complete);
        assert_eq!((client.accepted.as_slice(), backlog.bytes), (&b"abcdefgh"[..], 0));
    }

    #[test]
    fn a_backlog_over_its_limit_is_an_error() {
        let now = Instant::now();
        let mut client = SlowClient::new(1);
        let mut backlog = Backlog::new(4);
        backlog.push(Bytes::from_static(b"12345"));
        assert!(matches!(backlog.flush(&mut client, now), Ok(Flush::Pending { .. })));
        backlog.push(Bytes::from_static(b"6"));
        assert!(matches!(backlog.flush(&mut client, now), Err(SendError::BacklogFull { waiting: 5 })));
        let appended = backlog.append(&[Bytes::from_static(b"7")], now);
        assert!(matches!(appended, Err(SendError::BacklogFull { waiting: 6 })));
    }

    #[test]
    fn short_pending_slices_do_not_keep_their_tape_in_memory() {
        let mut client = SlowClient::new(0);
        let mut backlog = Backlog::new(1_000_000);
        let tape = Bytes::from(vec![b'x'; 100_000]);
        for at in 0..1000 {
            backlog.push(tape.slice(at..at + 70));
            assert!(matches!(backlog.flush(&mut client, Instant::now()), Ok(Flush::Pending { .. })));
        }
        assert!(tape.is_unique(), "a slice still refers to the tape");
        assert_eq!((backlog.chunks.len(), backlog.bytes), (1, 70_000));
        backlog.push(tape.slice(..50_000));
        assert!(backlog.flush(&mut client, Instant::now()).is_ok());
        assert_eq!(backlog.chunks.len(), 2, "a long slice is not copied");
    }

    #[test]
    fn a_client_that_accepts_nothing_for_thirty_seconds_has_stalled() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut client = SlowClient::new(0);
        let mut backlog = Backlog::new(100);
        backlog.push(Bytes::from_static(b"123"));
        assert!(matches!(backlog.flush(&mut client, start), Ok(Flush::Pending { .. })));
        client.capacity = 1;
        assert!(matches!(backlog.flush(&mut client, after(29)), Ok(Flush::Pending { .. })));
        assert!(matches!(backlog.flush(&mut client, after(58)), Ok(Flush::Pending { .. })));
        assert!(matches!(backlog.flush(&mut client, after(59)), Err(SendError::Stalled)));
    }
}
