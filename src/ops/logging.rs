//! Writes the log to standard error, from a thread with a bounded queue: logging never blocks the chat. For the lines
//! themselves see `log_format`.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::WriteLogger;

use super::log_format;

/// How many lines may wait to be written. Lines beyond that are dropped and counted.
const QUEUE_LINES: usize = 1024;
/// How long a flush waits for the queue, and then for the last line.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Starts the log for the whole process, and logs panics as well. A second call changes nothing.
///
/// `log::logger().flush()` waits until everything is written, for one second at most.
pub fn start(level: LevelFilter) {
    let (sender, receiver) = bounded(QUEUE_LINES);
    let writer = thread::Builder::new().name("log".into()).spawn(move || write_lines(&receiver));
    if let Err(error) = writer {
        let _ = writeln!(io::stderr(), "The log is off: no thread can be started ({error})");
        return;
    }
    let lines = WriteLogger::new(level, log_format::simplelog_config(), LineQueue::new(sender));
    if log::set_boxed_logger(Box::new(ChatLog { lines })).is_ok() {
        log::set_max_level(level);
        std::panic::set_hook(Box::new(|panic| log::error!("Internal error: {panic}")));
    }
}

struct ChatLog {
    lines: Box<WriteLogger<LineQueue>>,
}

impl Log for ChatLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Only this crate: tungstenite traces every frame, and chat messages must not be logged at any level.
        metadata.target().starts_with(env!("CARGO_CRATE_NAME")) && self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let target = log_format::target(record.level());
            // Formatted before simplelog takes its lock, so that a panic in here can be logged.
            let message = log_format::message(record.args());
            self.lines.log(
                &Record::builder()
                    .level(record.level())
                    .target(&target)
                    .args(format_args!("{message}"))
                    .build(),
            );
        }
    }

    fn flush(&self) {
        self.lines.flush();
    }
}

enum Entry {
    Line(Vec<u8>),
    /// Dropped once everything before it is written.
    Flush(Sender<()>),
}

/// Splits simplelog's output into lines and queues them.
struct LineQueue {
    incomplete: Vec<u8>,
    sender: Sender<Entry>,
    /// How many lines were dropped since the last one that was queued.
    dropped: usize,
}

impl LineQueue {
    fn new(sender: Sender<Entry>) -> Self {
        Self { incomplete: Vec::new(), sender, dropped: 0 }
    }

    fn push(&mut self, line: Vec<u8>) {
        if self.dropped > 0 {
            let text =
                format_args!("{} lines were dropped here: the log was not read fast enough", self.dropped);
            if self.try_send(log_format::line(Level::Warn, text).into()) {
                self.dropped = 0;
            }
        }
        if !self.try_send(line) {
            self.dropped += 1;
        }
    }

    fn try_send(&self, line: Vec<u8>) -> bool {
        self.sender.try_send(Entry::Line(line)).is_ok()
    }
}

impl Write for LineQueue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.incomplete.extend_from_slice(bytes);
        if self.incomplete.ends_with(b"\n") {
            let line = std::mem::take(&mut self.incomplete);
            self.push(line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (flushed, wait) = bounded(0);
        if self.sender.send_timeout(Entry::Flush(flushed), FLUSH_TIMEOUT).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIMEOUT);
        }
        Ok(())
    }
}

/// Blocks while standard error does, for example on a stopped terminal.
fn write_lines(entries: &Receiver<Entry>) {
    for entry in entries {
        match entry {
            // If this fails, there is nowhere to report it.
            Entry::Line(line) => drop(io::stderr().write_all(&line)),
            Entry::Flush(flushed) => drop(flushed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_queue_are_dropped_and_counted() {
        let (sender, receiver) = bounded(2);
        let mut lines = LineQueue::new(sender);
        for number in 0..5 {
            write!(lines, "line {number}").unwrap();
            writeln!(lines).unwrap();
        }
        let next = || match receiver.try_recv() {
            Ok(Entry::Line(line)) => String::from_utf8(line).unwrap(),
            _ => "nothing".into(),
        };
        assert_eq!((next(), next(), next()), ("line 0\n".into(), "line 1\n".into(), "nothing".into()));
        writeln!(lines, "line 5").unwrap();
        let warning = " [WARN]: [chat_server] 3 lines were dropped here: the log was not read fast enough\n";
        assert!(next().ends_with(warning));
        assert_eq!(next(), "line 5\n");
    }
}
