//! The log of SPEC.md part 3: a line an event on standard error,
//! `12:00:00 [INFO]: [chat_server] what happened`.

use std::fmt::{self, Write as _};
use std::io::{LineWriter, Stderr, stderr};

use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};

use crate::clock::local_time;

/// Starts the log for the whole process, and sends panics to it. A second call changes nothing.
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
    let lines = WriteLogger::new(level, plain, LineWriter::new(stderr()));
    if log::set_boxed_logger(Box::new(ChatLog { lines })).is_ok() {
        log::set_max_level(level);
        std::panic::set_hook(Box::new(|panic| log::error!("Internal error: {panic}")));
    }
}

struct ChatLog {
    lines: Box<WriteLogger<LineWriter<Stderr>>>,
}

impl Log for ChatLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // The libraries would write what people say (tungstenite traces every frame), which no level may show.
        metadata.target().starts_with(env!("CARGO_CRATE_NAME")) && self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let target = format!("{} [{}]", local_time(), record.level());
            let message = Escaped(record.args());
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
    fn control_characters_cannot_forge_a_line() {
        let forged = "bob\r\n12:00:00 [INFO]: [chat_server] eve\u{1b}[2K\u{2028}\u{202e}é";
        assert_eq!(
            Escaped(forged).to_string(),
            "bob\\r\\n12:00:00 [INFO]: [chat_server] eve\\u{1b}[2K\\u{2028}\\u{202e}é"
        );
    }
}
