//! The log of SPEC.md part 3: a line an event on standard error,
//! `12:00:00 [INFO]: [chat_server] what happened`.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};

use super::clock::local_time;

/// How many lines wait for whoever reads the log. Past that they are lost, and counted: the chat waits for nobody.
const WAITING_LINES: usize = 1024;
/// How long the end of the program waits for the last lines to be taken.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// Starts the log for the whole process, and sends panics to it. A second call changes nothing.
/// `log::logger().flush()` waits until what was logged is written, but not for ever.
pub fn start(level: LevelFilter) {
    // simplelog prints `target: message` with these settings. The target carries the time and the level,
    // for its own format puts them in another order and keeps one UTC offset for ever.
    let plain = ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Error)
        .build();
    let (sender, waiting) = bounded(WAITING_LINES);
    let writer = thread::Builder::new().name("log".into()).spawn(move || write_lines(&waiting));
    if writer.is_err() {
        let _ = writeln!(io::stderr(), "There is no log: the system gives no thread");
        return;
    }
    let lines = WriteLogger::new(level, plain, Lines { begun: Vec::new(), waiting: sender, lost: 0 });
    if log::set_boxed_logger(Box::new(ChatLog { lines })).is_ok() {
        log::set_max_level(level);
        std::panic::set_hook(Box::new(|panic| log::error!("Internal error: {panic}")));
    }
}

struct ChatLog {
    lines: Box<WriteLogger<Lines>>,
}

impl Log for ChatLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // The libraries would write what people say (tungstenite traces every frame), which no level may show.
        metadata.target().starts_with(env!("CARGO_CRATE_NAME")) && self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let target = format!("{} [{}]", local_time(), record.level());
            // Formatted before simplelog takes its lock: what panics in here is logged, too.
            let message = Escaped(record.args()).to_string();
            self.lines.log(
                &Record::builder()
                    .level(record.level())
                    .target(&target)
                    .args(format_args!("[chat_server] {message}"))
                    .build(),
            );
        }
    }

    fn flush(&self) {
        self.lines.flush();
    }
}

/// Takes what simplelog writes, and hands it on by the line.
struct Lines {
    begun: Vec<u8>,
    waiting: Sender<Waiting>,
    /// How many lines found no place.
    lost: usize,
}

enum Waiting {
    Line(Vec<u8>),
    /// Everything before this is written when this sender is dropped.
    Flush(Sender<()>),
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        if self.begun.ends_with(b"\n") {
            let line = std::mem::take(&mut self.begun);
            if self.lost > 0 {
                let (time, lost) = (local_time(), self.lost);
                let told =
                    format!("{time} [WARN]: [chat_server] {lost} lines are missing here: nobody took them\n");
                if self.waiting.try_send(Waiting::Line(told.into())).is_ok() {
                    self.lost = 0;
                }
            }
            self.lost += usize::from(self.waiting.try_send(Waiting::Line(line)).is_err());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (written, wait) = bounded(0);
        if self.waiting.send_timeout(Waiting::Flush(written), FLUSH_PATIENCE).is_ok() {
            let _ = wait.recv_timeout(FLUSH_PATIENCE);
        }
        Ok(())
    }
}

/// Only this waits for whoever reads the log, be it a terminal that was stopped or a full disk.
fn write_lines(waiting: &Receiver<Waiting>) {
    for entry in waiting {
        match entry {
            // There is nowhere to say that it failed.
            Waiting::Line(line) => drop(io::stderr().write_all(&line)),
            Waiting::Flush(written) => drop(written),
        }
    }
}

/// Shows a text with its control characters (and what else a terminal may take for a new line or a change of
/// direction) escaped, so that a name cannot forge a line of the log.
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(Escaping(formatter), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    write!(self.0, "{}", character.escape_unicode())?;
                }
                control if control.is_control() => write!(self.0, "{}", control.escape_default())?,
                plain => self.0.write_char(plain)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_nobody_takes_are_counted_and_hold_nobody_up() {
        let (sender, waiting) = bounded(2);
        let mut lines = Lines { begun: Vec::new(), waiting: sender, lost: 0 };
        for number in 0..5 {
            write!(lines, "line {number}").unwrap();
            writeln!(lines).unwrap();
        }
        let next = || match waiting.try_recv() {
            Ok(Waiting::Line(line)) => String::from_utf8(line).unwrap(),
            _ => "nothing".into(),
        };
        assert_eq!((next(), next(), next()), ("line 0\n".into(), "line 1\n".into(), "nothing".into()));
        writeln!(lines, "line 5").unwrap();
        assert!(next().ends_with(" [WARN]: [chat_server] 3 lines are missing here: nobody took them\n"));
        assert_eq!(next(), "line 5\n");
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let forged = "bob\r\n12:00:00 [INFO]: [chat_server] eve\u{1b}[2K\u{2028}\u{202e}é";
        assert_eq!(
            Escaped(forged).to_string(),
            "bob\\r\\n12:00:00 [INFO]: [chat_server] eve\\u{1b}[2K\\u{2028}\\u{202e}é"
        );
    }
}
