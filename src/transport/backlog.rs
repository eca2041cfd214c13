//! What one slow client may cost: the bytes that wait for it (`SEND_QUEUE_BYTES`), and for how long.
//!
//! What is sent to many clients at once is one allocation that they share, a tape. A client that kept a small slice
//! of each tape would keep all tapes in memory, so what has to wait is copied, unless it is most of its tape. Each
//! chunk of a backlog keeps at most twice as many bytes in memory as it still has to send.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::copied::Copied;
use super::stream::Outgoing;
use crate::ops::metrics::CutOffReason;

/// A client that accepts nothing for this long while bytes wait for it is cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Shorter slices, in bytes, are copied together when they must wait, whatever they are slices of.
const COPY_BELOW: usize = 4096;
/// How many slices go to the system in one write.
const MAX_SLICES: usize = 64;

/// Frames for one client.
#[derive(Default)]
pub struct Output {
    pub slices: Vec<Slice>,
    /// Leading bytes that, with those waiting before them, do not count towards the limit, unless earlier uncounted
    /// bytes still wait: otherwise a client that requests answers and reads none could use unlimited memory.
    pub uncounted: usize,
}

/// Bytes that are part of a larger allocation.
#[derive(Clone)]
pub struct Slice {
    pub bytes: Bytes,
    /// The size of the allocation that `bytes` keeps in memory, in bytes.
    pub allocation: usize,
}

/// What is to be sent to a client and has not been accepted yet.
pub struct Backlog {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// How many of the first bytes do not count towards the limit.
    uncounted: usize,
    /// The most that may wait, in bytes.
    limit: usize,
    /// How many bytes the stream had accepted when this was last checked.
    accepted: u64,
    /// Since when bytes wait and the client has accepted none; `None` while nothing waits.
    stalled_since: Option<Instant>,
}

/// Whether a client has accepted everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flush {
    Complete,
    /// Some bytes are left for another flush.
    Pending {
        /// Whether the client has accepted some since the last flush. If so, retry soon.
        progress: bool,
        /// How many bytes wait.
        bytes: usize,
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
    Shared(Slice),
    /// Slices that were copied together.
    Copied(Copied),
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

impl Output {
    /// How many bytes are to be sent.
    pub fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.bytes.len()).sum()
    }
}

impl Backlog {
    /// `limit`: the most that may wait, in bytes.
    pub fn new(limit: usize) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, uncounted: 0, limit, accepted: 0, stalled_since: None }
    }

    /// Adds a frame that is about to be flushed.
    pub fn push(&mut self, frame: Bytes) {
        let allocation = frame.len();
        self.push_slice(Slice { bytes: frame, allocation });
    }

    /// Sends frames. Behind bytes that wait for a retry they wait as well: a slow client is not retried with each
    /// message, but always before it is cut off.
    ///
    /// # Errors
    /// The client must be cut off, or has disconnected.
    pub fn send(
        &mut self,
        output: &Output,
        stream: &mut impl Outgoing,
        now: Instant,
    ) -> Result<Flush, SendError> {
        if output.uncounted > 0 && self.uncounted == 0 {
            self.uncounted = self.bytes + output.uncounted;
        }
        if self.stalled_since.is_none() {
            output.slices.iter().for_each(|slice| self.push_slice(slice.clone()));
            return self.flush(stream, now);
        }
        for slice in output.slices.iter().filter(|slice| !slice.bytes.is_empty()) {
            self.bytes += slice.bytes.len();
            self.keep(slice);
        }
        if self.check(now).is_err() { self.flush(stream, now) } else { Ok(self.pending(false)) }
    }

    /// Sends what waits, as far as the client accepts it now.
    ///
    /// # Errors
    /// The client must be cut off, or has disconnected.
    pub fn flush(&mut self, stream: &mut impl Outgoing, now: Instant) -> Result<Flush, SendError> {
        let result = self.write(stream);
        // Bytes that TLS had encrypted may have been sent since the last flush, while the client was read from.
        let progress = stream.accepted() > self.accepted;
        self.accepted = stream.accepted();
        match result {
            Ok(()) => {
                self.stalled_since = None;
                // Release what the backlog allocated while the client was slow.
                self.chunks.shrink_to(MAX_SLICES);
                return Ok(Flush::Complete);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(SendError::Disconnected(error)),
        }
        self.compact();
        if progress || self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
        self.check(now)?;
        Ok(self.pending(progress))
    }

    fn push_slice(&mut self, slice: Slice) {
        if !slice.bytes.is_empty() {
            self.bytes += slice.bytes.len();
            self.chunks.push_back(Chunk::Shared(slice));
        }
    }

    /// Keeps a slice until a retry.
    fn keep(&mut self, slice: &Slice) {
        if slice.may_be_kept() {
            self.chunks.push_back(Chunk::Shared(slice.clone()));
        } else {
            self.copy(&slice.bytes);
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        match self.chunks.back_mut() {
            Some(Chunk::Copied(copied)) => copied.append(bytes),
            _ => self.chunks.push_back(Chunk::Copied(Copied::new(bytes))),
        }
    }

    /// Copies what would keep more in memory than it may.
    fn compact(&mut self) {
        if self.chunks.iter().all(Chunk::may_be_kept) {
            return;
        }
        for chunk in std::mem::take(&mut self.chunks) {
            if chunk.may_be_kept() {
                self.chunks.push_back(chunk);
            } else {
                self.copy(chunk.bytes());
            }
        }
    }

    fn pending(&self, progress: bool) -> Flush {
        Flush::Pending { progress, bytes: self.bytes }
    }

    fn check(&self, now: Instant) -> Result<(), SendError> {
        let waiting = self.bytes - self.uncounted;
        if waiting > self.limit {
            return Err(SendError::BacklogFull { waiting });
        }
        match self.stalled_since {
            Some(since) if now.saturating_duration_since(since) >= STALL_TIMEOUT => Err(SendError::Stalled),
            _ => Ok(()),
        }
    }

    fn write(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while let Some(first) = self.chunks.front() {
            let written = match self.chunks.len() {
                // The usual case, and cheaper than a vectored write.
                1 => stream.write(first.bytes())?,
                _ => self.write_slices(stream)?,
            };
            if written == 0 && self.bytes > 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.remove(written);
        }
        stream.flush()
    }

    fn write_slices(&self, stream: &mut impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = self.chunks.len().min(MAX_SLICES);
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk.bytes());
        }
        stream.write_vectored(&slices[..count])
    }

    /// Removes bytes from the front, and empty chunks with them.
    fn remove(&mut self, mut count: usize) {
        self.bytes -= count;
        self.uncounted = self.uncounted.saturating_sub(count);
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

impl Slice {
    /// Whether it may keep its allocation in memory while it waits.
    fn may_be_kept(&self) -> bool {
        self.bytes.len() >= COPY_BELOW && self.allocation <= 2 * self.bytes.len()
    }
}

impl Chunk {
    fn may_be_kept(&self) -> bool {
        match self {
            Self::Shared(slice) => slice.may_be_kept(),
            Self::Copied(copied) => copied.allocation() <= 2 * copied.bytes().len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(slice) => &slice.bytes,
            Self::Copied(copied) => copied.bytes(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Shared(slice) => slice.bytes.advance(count),
            Self::Copied(copied) => copied.advance(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// Accepts `capacity` bytes and then blocks.
    #[derive(Default)]
    struct SlowClient {
        capacity: usize,
        accepted: Vec<u8>,
        /// How many more bytes, encrypted before, were sent while the client was read from.
        drained: u64,
    }

    impl SlowClient {
        fn new(capacity: usize) -> Self {
            Self { capacity, ..Self::default() }
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
            self.accepted.len() as u64 + self.drained
        }
    }

    /// A frame by itself.
    fn output(frame: &'static str) -> Output {
        part_of(&Bytes::from_static(frame.as_bytes()), 0, frame.len())
    }

    /// Frames that are a part of a tape.
    fn part_of(tape: &Bytes, start: usize, length: usize) -> Output {
        let slice = Slice { bytes: tape.slice(start..start + length), allocation: tape.len() };
        Output { slices: vec![slice], uncounted: 0 }
    }

    fn is_pending(result: Result<Flush, SendError>) -> bool {
        matches!(result, Ok(Flush::Pending { .. }))
    }

    #[test]
    fn pending_bytes_are_sent_in_order() {
        let now = Instant::now();
        let mut client = SlowClient::new(4);
        let mut backlog = Backlog::new(100);
        for frame in ["abc", "", "def", "g"] {
            backlog.push(Bytes::from_static(frame.as_bytes()));
        }
        assert_eq!(backlog.flush(&mut client, now).unwrap(), Flush::Pending { progress: true, bytes: 3 });
        assert_eq!((client.accepted.as_slice(), backlog.bytes), (&b"abcd"[..], 3));
        client.capacity = 100;
        let sent = backlog.send(&output("h"), &mut client, now).unwrap();
        assert_eq!(sent, Flush::Pending { progress: false, bytes: 4 }, "it waits for the retry");
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
        let sent = backlog.send(&output("7"), &mut client, now);
        assert!(matches!(sent, Err(SendError::BacklogFull { waiting: 6 })));
    }

    /// A retry is due every 10 to 640 ms. A client may have accepted everything since the last.
    #[test]
    fn a_client_is_retried_before_it_is_cut_off() {
        let start = Instant::now();
        let mut client = SlowClient::new(0);
        let mut backlog = Backlog::new(4);
        assert!(is_pending(backlog.send(&output("1234"), &mut client, start)));
        client.capacity = 1;
        assert!(is_pending(backlog.send(&output("5"), &mut client, start)));
        assert_eq!(client.accepted, b"1");
        // The server was stopped for a while, and did not retry.
        client.capacity = 1;
        let resumed = start + Duration::from_secs(38);
        assert!(is_pending(backlog.send(&output(""), &mut client, resumed)));
        assert_eq!(client.accepted, b"12");
        let last = resumed + STALL_TIMEOUT;
        assert!(matches!(backlog.send(&output(""), &mut client, last), Err(SendError::Stalled)));
    }

    /// Short and long slices of a tape once kept all of it in memory: 1 GB, of which 8 MB were charged.
    #[test]
    fn a_slice_that_is_not_most_of_its_tape_does_not_keep_it_in_memory() {
        let now = Instant::now();
        let mut client = SlowClient::new(0);
        let mut backlog = Backlog::new(10_000_000);
        let tape = Bytes::from(vec![b'x'; 100_000]);
        for start in 0..1000 {
            assert!(is_pending(backlog.send(&part_of(&tape, start, 70), &mut client, now)));
            assert!(is_pending(backlog.send(&part_of(&tape, start, 5000), &mut client, now)));
        }
        assert!(tape.is_unique(), "a slice still refers to the tape");
        assert_eq!((backlog.chunks.len(), backlog.bytes), (1, 5_070_000));
        assert!(is_pending(backlog.send(&part_of(&tape, 0, 60_000), &mut client, now)));
        assert_eq!(backlog.chunks.len(), 2, "most of a tape is not copied");
        client.capacity = 5_070_000 + 20_000;
        assert!(is_pending(backlog.flush(&mut client, now)));
        assert!(tape.is_unique(), "the rest of a slice that was sent in part is copied");
        assert_eq!((backlog.chunks.len(), backlog.bytes), (1, 40_000));
    }

    /// A new member was once cut off by its own list, in a large room with a small `SEND_QUEUE_BYTES`.
    #[test]
    fn a_new_members_list_does_not_count_as_waiting() {
        let now = Instant::now();
        let mut client = SlowClient::new(2);
        let mut backlog = Backlog::new(4);
        assert!(is_pending(backlog.send(&output("error"), &mut client, now)));
        let list = Bytes::from_static(b"a long list, then");
        let joined = Output { uncounted: list.len() - 4, ..part_of(&list, 0, list.len()) };
        assert!(is_pending(backlog.send(&joined, &mut client, now)));
        assert_eq!(backlog.bytes - backlog.uncounted, 4);
        client.capacity = 5;
        assert!(is_pending(backlog.flush(&mut client, now)));
        let sent = backlog.send(&output("!"), &mut client, now);
        assert!(matches!(sent, Err(SendError::BacklogFull { waiting: 5 })), "{sent:?}");
        // Once the list has been sent, everything counts.
        client.capacity = 12;
        assert!(is_pending(backlog.flush(&mut client, now)));
        assert_eq!((backlog.bytes, backlog.uncounted), (4, 0));
        assert!(backlog.send(&output("!"), &mut client, now).is_err());
    }

    /// A client that asked for history again and again, and read nothing, would otherwise fill the memory.
    #[test]
    fn a_second_history_answer_counts_while_the_first_waits() {
        let now = Instant::now();
        let mut client = SlowClient::new(0);
        let mut backlog = Backlog::new(4);
        let bytes = Bytes::from_static(b"an answer");
        let answer = || Output { uncounted: bytes.len(), ..part_of(&bytes, 0, bytes.len()) };
        assert!(is_pending(backlog.send(&answer(), &mut client, now)));
        let sent = backlog.send(&answer(), &mut client, now);
        assert!(matches!(sent, Err(SendError::BacklogFull { waiting: 9 })), "{sent:?}");
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

    /// Bytes that TLS had encrypted were sent while the connection's thread read, and once did not count.
    #[test]
    fn bytes_sent_between_two_flushes_are_progress() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut client = SlowClient::new(0);
        let mut backlog = Backlog::new(100);
        assert!(is_pending(backlog.send(&output("123"), &mut client, start)));
        for seconds in [29, 58, 87] {
            client.drained += 1;
            let flush = backlog.flush(&mut client, after(seconds)).unwrap();
            assert_eq!(flush, Flush::Pending { progress: true, bytes: 3 });
        }
        assert!(matches!(backlog.flush(&mut client, after(117)), Err(SendError::Stalled)));
    }

    /// A client that reads 300 bytes per second, and is sent more than that.
    #[test]
    fn a_very_slow_reader_has_not_stalled() {
        let start = Instant::now();
        let mut client = SlowClient::new(0);
        let mut backlog = Backlog::new(1_000_000);
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            client.capacity += 300;
            let sent = backlog.send(&part_of(&Bytes::from(vec![b'x'; 1000]), 0, 1000), &mut client, now);
            assert!(sent.is_ok(), "{sent:?} after {second} s");
            if second % 20 == 0 {
                assert!(backlog.flush(&mut client, now).is_ok(), "after {second} s");
            }
        }
    }

    /// A tape whose bytes are counted while it is in memory.
    struct CountedTape {
        bytes: Vec<u8>,
        in_memory: Arc<AtomicUsize>,
    }

    impl CountedTape {
        fn create(bytes: Vec<u8>, in_memory: &Arc<AtomicUsize>) -> Bytes {
            in_memory.fetch_add(bytes.len(), Ordering::Relaxed);
            Bytes::from_owner(Self { bytes, in_memory: in_memory.clone() })
        }
    }

    impl AsRef<[u8]> for CountedTape {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    impl Drop for CountedTape {
        fn drop(&mut self) {
            self.in_memory.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A tape of this size, of which the client gets these parts, in percent.
        Send(usize, Vec<(usize, usize)>),
        /// The reply to a ping or a close.
        Push(usize),
        Flush,
        /// The client accepts this many more bytes.
        Accept(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let size = || prop_oneof![0..200_usize, 0..20_000_usize, 0..200_000_usize];
        prop_oneof![
            4 => (size(), proptest::collection::vec((0..100_usize, 0..100_usize), 1..4))
                .prop_map(|(size, parts)| Step::Send(size, parts)),
            1 => (0..130_usize).prop_map(Step::Push),
            2 => Just(Step::Flush),
            3 => size().prop_map(Step::Accept),
        ]
    }

    proptest! {
        #[test]
        fn a_backlog_keeps_at_most_twice_what_is_charged_and_loses_nothing(
            steps in proptest::collection::vec(step(), 1..80)
        ) {
            let now = Instant::now();
            let in_memory = Arc::new(AtomicUsize::new(0));
            let (mut client, mut backlog, mut sent) = (SlowClient::new(0), Backlog::new(usize::MAX), Vec::new());
            let mut number = 0_u8;
            for step in steps {
                match step {
                    Step::Accept(bytes) => client.capacity += bytes,
                    Step::Flush => drop(backlog.flush(&mut client, now).unwrap()),
                    Step::Push(length) => {
                        sent.extend(vec![b'p'; length]);
                        backlog.push(vec![b'p'; length].into());
                        backlog.flush(&mut client, now).unwrap();
                    }
                    Step::Send(size, parts) => {
                        let content = std::iter::repeat_with(|| { number = number.wrapping_add(1); number });
                        let tape = CountedTape::create(content.take(size).collect(), &in_memory);
                        let mut output = Output::default();
                        for (start, end) in parts {
                            let bytes = tape.slice(size * start.min(end) / 100..size * start.max(end) / 100);
                            sent.extend_from_slice(&bytes);
                            output.slices.push(Slice { bytes, allocation: tape.len() });
                        }
                        backlog.send(&output, &mut client, now).unwrap();
                    }
                }
                let copied = backlog.chunks.iter().filter_map(|chunk| match chunk {
                    Chunk::Copied(copied) => Some(copied.allocation()),
                    Chunk::Shared(_) => None,
                });
                let kept = in_memory.load(Ordering::Relaxed) + copied.sum::<usize>();
                prop_assert!(kept <= 2 * backlog.bytes, "{kept} bytes are kept for {}", backlog.bytes);
                prop_assert_eq!(client.accepted.len() + backlog.bytes, sent.len());
            }
            client.capacity = usize::MAX;
            prop_assert_eq!(backlog.flush(&mut client, now).unwrap(), Flush::Complete);
            prop_assert_eq!(client.accepted, sent);
            prop_assert_eq!(in_memory.load(Ordering::Relaxed), 0);
        }
    }
}
