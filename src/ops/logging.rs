//! Writes the log to standard error, from a thread with a bounded queue: logging never blocks the chat. For the lines
//! themselves see `log_format`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::WriteLogger;

use super::log_format;

/// How many lines below `warn` may wait to be written. Lines beyond that are dropped and counted.
const QUEUE_LINES: usize = 1024;
/// How many lines of `warn` and above may wait, in addition to those.
const QUEUE_WARNINGS: usize = 256;
/// How long a flush waits for the queue, and then for the last line.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Starts the log for the whole process, and logs panics as well. A second call changes nothing.
///
/// `log::logger().flush()` waits until everything is written, for one second at most.
pub fn start(level: LevelFilter) {
    let (queue, waiting) = queue(&DROPPED);
    let writer = thread::Builder::new().name("log".into()).spawn(move || write_lines(&waiting));
    if let Err(error) = writer {
        let _ = writeln!(io::stderr(), "The log is off: no thread can be started ({error})");
        return;
    }
    if log::set_boxed_logger(Box::new(ChatLog::new(level, &Arc::new(queue)))).is_ok() {
        log::set_max_level(level);
        std::panic::set_hook(Box::new(|panic| log::error!("Internal error: {panic}")));
    }
}

/// How many lines were dropped since the start, by level.
pub fn dropped_lines() -> impl Iterator<Item = (&'static str, u64)> {
    ["error", "warn", "info", "debug", "trace"]
        .into_iter()
        .zip(DROPPED.each_ref().map(|count| count.load(Relaxed)))
}

/// By level. Global, because the logger is.
static DROPPED: DroppedLines = [const { AtomicU64::new(0) }; LEVELS];

type DroppedLines = [AtomicU64; LEVELS];

const LEVELS: usize = Level::Trace as usize;

struct ChatLog {
    /// By level: simplelog does not pass the level on.
    lines: [Box<WriteLogger<LineWriter>>; LEVELS],
}

impl ChatLog {
    fn new(max_level: LevelFilter, queue: &Arc<Queue>) -> Self {
        let writer = |level| LineWriter { level, incomplete: Vec::new(), queue: queue.clone() };
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        let lines = levels.map(writer);
        Self { lines: lines.map(|lines| WriteLogger::new(max_level, log_format::simplelog_config(), lines)) }
    }

    fn lines(&self, level: Level) -> &WriteLogger<LineWriter> {
        &self.lines[index(level)]
    }
}

/// The position of a level in an array by level.
fn index(level: Level) -> usize {
    level as usize - Level::Error as usize
}

impl Log for ChatLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Only this crate: tungstenite traces every frame, and what people say must not be logged at any level.
        metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
            && self.lines(metadata.level()).enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let target = log_format::target(record.level());
            // Formatted before simplelog takes its lock, so that a panic in here can be logged.
            let message = log_format::message(record.args());
            self.lines(record.level()).log(
                &Record::builder()
                    .level(record.level())
                    .target(&target)
                    .args(format_args!("{message}"))
                    .build(),
            );
        }
    }

    fn flush(&self) {
        self.lines(Level::Error).flush();
    }
}

enum Entry {
    Line(Share, Vec<u8>),
    /// Dropped once everything before it is written.
    Flush(Sender<()>),
}

/// Each kind of line has a share of the queue that no other kind can use, so that a flood of one kind displaces no
/// other. All are in one queue, which keeps their order.
#[derive(Clone, Copy)]
enum Share {
    /// `warn` and above.
    Warnings,
    Others,
    /// How many lines were dropped.
    Report,
}

/// How many lines each share of the queue holds at most.
const SHARES: [usize; 3] = [QUEUE_WARNINGS, QUEUE_LINES, 1];

/// The sending end of the queue. Adding a line never blocks.
struct Queue {
    sender: Sender<Entry>,
    waiting: Arc<Waiting>,
    /// The lines dropped since the last report.
    unreported: AtomicU64,
    dropped: &'static DroppedLines,
}

/// The receiving end of the queue.
struct QueuedLines {
    receiver: Receiver<Entry>,
    waiting: Arc<Waiting>,
}

/// How many lines of each share are waiting.
#[derive(Default)]
struct Waiting([AtomicUsize; SHARES.len()]);

fn queue(dropped: &'static DroppedLines) -> (Queue, QueuedLines) {
    // One more for a flush.
    let (sender, receiver) = bounded(SHARES.iter().sum::<usize>() + 1);
    let waiting = Arc::new(Waiting::default());
    let lines = QueuedLines { receiver, waiting: waiting.clone() };
    (Queue { sender, waiting, unreported: AtomicU64::new(0), dropped }, lines)
}

impl Queue {
    fn push(&self, level: Level, line: Vec<u8>) {
        self.report_dropped();
        let share = if level <= Level::Warn { Share::Warnings } else { Share::Others };
        if !(self.waiting.reserve(share) && self.send(share, line)) {
            self.dropped[index(level)].fetch_add(1, Relaxed);
            self.unreported.fetch_add(1, Relaxed);
        }
    }

    /// Queues a line that says how many were dropped, unless the previous one is still waiting.
    fn report_dropped(&self) {
        if self.unreported.load(Relaxed) == 0 || !self.waiting.reserve(Share::Report) {
            return;
        }
        let dropped = self.unreported.swap(0, Relaxed);
        let text = format_args!("{dropped} lines were dropped here: the log was not read fast enough");
        if !self.send(Share::Report, log_format::line(Level::Warn, text).into()) {
            self.unreported.fetch_add(dropped, Relaxed);
        }
    }

    /// Queues a line for which there is a reservation. Only flushes can have filled the queue.
    fn send(&self, share: Share, line: Vec<u8>) -> bool {
        let is_sent = self.sender.try_send(Entry::Line(share, line)).is_ok();
        if !is_sent {
            self.waiting.release(share);
        }
        is_sent
    }

    fn flush(&self) {
        self.report_dropped();
        let (flushed, wait) = bounded(0);
        if self.sender.send_timeout(Entry::Flush(flushed), FLUSH_TIMEOUT).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Waiting {
    /// Whether one more line of this share may wait. It then counts as waiting.
    fn reserve(&self, share: Share) -> bool {
        let one_more = |waiting| (waiting < SHARES[share as usize]).then_some(waiting + 1);
        self.0[share as usize].fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    fn release(&self, share: Share) {
        self.0[share as usize].fetch_sub(1, Relaxed);
    }
}

impl QueuedLines {
    /// Waits for the next entry. `None`: there will be none.
    fn take(&self) -> Option<Entry> {
        let entry = self.receiver.recv().ok()?;
        if let Entry::Line(share, _) = entry {
            self.waiting.release(share);
        }
        Some(entry)
    }
}

/// Queues what simplelog writes, line by line.
struct LineWriter {
    level: Level,
    incomplete: Vec<u8>,
    queue: Arc<Queue>,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.incomplete.extend_from_slice(bytes);
        if self.incomplete.ends_with(b"\n") {
            self.queue.push(self.level, std::mem::take(&mut self.incomplete));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queue.flush();
        Ok(())
    }
}

/// Blocks while standard error does, for example on a stopped terminal.
fn write_lines(lines: &QueuedLines) {
    while let Some(entry) = lines.take() {
        match entry {
            // If this fails, there is nowhere to report it.
            Entry::Line(_, line) => drop(io::stderr().write_all(&line)),
            Entry::Flush(flushed) => drop(flushed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Queue {
        fn log(&self, level: Level, text: &str) {
            self.push(level, text.into());
        }
    }

    impl QueuedLines {
        /// The next `count` lines, which are waiting.
        fn take_lines(&self, count: usize) -> Vec<String> {
            assert!(self.receiver.len() >= count, "{} lines are waiting", self.receiver.len());
            let lines = (0..count).map(|_| match self.take() {
                Some(Entry::Line(_, line)) => String::from_utf8(line).unwrap(),
                _ => "no line".into(),
            });
            lines.collect()
        }
    }

    fn counts(dropped: &DroppedLines) -> [u64; LEVELS] {
        dropped.each_ref().map(|count| count.load(Relaxed))
    }

    #[test]
    fn lines_beyond_the_queue_are_dropped_and_counted() {
        static DROPPED: DroppedLines = [const { AtomicU64::new(0) }; LEVELS];
        let (queue, lines) = queue(&DROPPED);
        for number in 0..QUEUE_LINES + 3 {
            let level = if number % 2 == 0 { Level::Info } else { Level::Debug };
            queue.log(level, &format!("line {number}"));
        }
        let report = |count| {
            format!(
                " [WARN]: [chat_server] {count} lines were dropped here: the log was not read fast enough\n"
            )
        };
        let first = lines.take_lines(QUEUE_LINES + 1);
        assert_eq!((&*first[0], &*first[QUEUE_LINES - 1]), ("line 0", "line 1023"));
        // At most one report is waiting.
        assert!(first[QUEUE_LINES].ends_with(&report(1)), "{first:?}");
        queue.log(Level::Info, "after");
        let rest = lines.take_lines(2);
        assert!(rest[0].ends_with(&report(2)) && rest[1] == "after", "{rest:?}");
        assert_eq!(counts(&DROPPED), [0, 0, 2, 1, 0]);
    }

    #[test]
    fn a_flood_of_info_lines_displaces_no_warning() {
        static DROPPED: DroppedLines = [const { AtomicU64::new(0) }; LEVELS];
        let (queue, lines) = queue(&DROPPED);
        let flood = |lines: usize| (0..lines).for_each(|_| queue.log(Level::Info, "info"));
        flood(100);
        queue.log(Level::Warn, "early");
        flood(20_000);
        for number in 0..QUEUE_WARNINGS - 1 {
            queue.log(if number % 2 == 0 { Level::Warn } else { Level::Error }, "late");
            flood(10);
        }
        assert_eq!(counts(&DROPPED)[..2], [0, 0]);
        // In chronological order, with one report among them.
        let waiting = lines.take_lines(QUEUE_LINES + QUEUE_WARNINGS + 1);
        let early = waiting.iter().position(|line| line == "early");
        let late = waiting.iter().position(|line| line == "late");
        assert_eq!((early, late), (Some(100), Some(QUEUE_LINES + 2)));
        assert_eq!(waiting.iter().filter(|line| *line == "late").count(), QUEUE_WARNINGS - 1);
        // The number of waiting warnings is limited as well.
        (0..2 * QUEUE_WARNINGS).for_each(|_| queue.log(Level::Warn, "warning"));
        assert_eq!(counts(&DROPPED)[1], QUEUE_WARNINGS as u64);
    }
}
