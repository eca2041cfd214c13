//! The log's line format: `12:00:00 [INFO]: [chat_server] what happened`.

use std::fmt::{self, Write};

use log::{Level, LevelFilter};
use simplelog::{Config, ConfigBuilder};

use super::clock::local_time;

/// A configuration in which simplelog prints `target: message` and nothing else. Its own format has the time and the
/// level in another order, and never updates its UTC offset, so [`target`] includes both instead.
pub fn simplelog_config() -> Config {
    ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Error)
        .build()
}

/// The part before the first `: `.
pub fn target(level: Level) -> String {
    format!("{} [{level}]", local_time())
}

/// The part after the first `: `.
pub fn message(text: impl fmt::Display) -> String {
    format!("[chat_server] {}", Escaped(text))
}

/// A whole line.
pub fn line(level: Level, text: impl fmt::Display) -> String {
    format!("{}: {}\n", target(level), message(text))
}

/// Displays a text with control characters escaped, as well as characters that a terminal may take for a line break or
/// a change of direction, so that a name cannot forge a log line.
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(Escaping(formatter), "{}", self.0)
    }
}

/// Whether [`Escaped`] escapes this character.
pub fn is_escaped(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())?;
            } else if is_escaped(character) {
                write!(self.0, "{}", character.escape_unicode())?;
            } else {
                self.0.write_char(character)?;
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
