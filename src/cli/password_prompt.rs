//! Reads a new password: typed twice without echo, or one line of standard input.

use std::io::{self, ErrorKind, IsTerminal, Read, Write, stderr, stdin};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use thiserror::Error;

/// The longest password, in bytes, without white space around it.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// The longest line that is read, in bytes.
const MAX_LINE_BYTES: usize = 4 * MAX_PASSWORD_BYTES;

/// Why there is no password.
#[derive(Debug, Error)]
pub enum PasswordError {
    #[error("no password was given")]
    Blank,
    #[error("the password is too short: use at least {0} characters")]
    TooShort(usize),
    #[error("the password is too long: use at most {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    #[error("the password is not UTF-8 text")]
    NotText,
    #[error("the password contains a control character, such as that of an arrow key: type it again")]
    ControlCharacter,
    #[error("the two passwords are not the same")]
    Different,
    #[error("interrupted")]
    Interrupted,
    #[error("the password cannot be read ({0})")]
    Read(#[from] io::Error),
}

/// Reads a password of at least so many characters, without white space around it.
///
/// # Errors
/// See [`PasswordError`].
pub fn read_password(min_chars: usize) -> Result<String, PasswordError> {
    if !stdin().is_terminal() {
        return checked(read_line(stdin().lock())?, min_chars);
    }
    let terminal = Terminal::open()?;
    let password = checked(terminal.ask("Password: ")?, min_chars)?;
    let again = terminal.ask("The same again: ")?;
    if String::from_utf8(again).is_ok_and(|again| again.trim() == password) {
        Ok(password)
    } else {
        Err(PasswordError::Different)
    }
}

/// Reads up to a line feed or the end, byte by byte, so that the next line can be read as well.
fn read_line(mut from: impl Read) -> Result<Vec<u8>, PasswordError> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => return Ok(line),
            Ok(_) if byte == *b"\n" => return Ok(line),
            Ok(_) if line.len() >= MAX_LINE_BYTES => return Err(PasswordError::TooLong),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn checked(line: Vec<u8>, min_chars: usize) -> Result<String, PasswordError> {
    let line = String::from_utf8(line).map_err(|_| PasswordError::NotText)?;
    let password = line.trim();
    if password.is_empty() {
        Err(PasswordError::Blank)
    } else if password.chars().count() < min_chars {
        Err(PasswordError::TooShort(min_chars))
    } else if password.len() > MAX_PASSWORD_BYTES {
        Err(PasswordError::TooLong)
    } else if password.chars().any(char::is_control) {
        Err(PasswordError::ControlCharacter)
    } else {
        Ok(password.to_owned())
    }
}

/// The terminal. Until this is dropped, it shows nothing of what is typed.
struct Terminal {
    before: Termios,
    /// Readable after a signal that would end the program and leave the terminal without echo.
    signals: UnixStream,
}

impl Terminal {
    fn open() -> io::Result<Self> {
        let (writer, signals) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        let before = tcgetattr(stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // What was typed before has been echoed: it is discarded.
        tcsetattr(stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self { before, signals })
    }

    /// Reads one line, after this prompt on standard error.
    fn ask(&self, prompt: &str) -> Result<Vec<u8>, PasswordError> {
        write!(stderr(), "{prompt}")?;
        let line = self.wait_for_line().and_then(|()| read_line(stdin().lock()));
        // The line feed was not echoed either.
        writeln!(stderr())?;
        line
    }

    fn wait_for_line(&self) -> Result<(), PasswordError> {
        let stdin = stdin();
        loop {
            let mut sources = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut sources, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
                Ok(_) if !sources[1].revents().is_empty() => return Err(PasswordError::Interrupted),
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_read() {
        for (input, line) in [("a b\nc", "a b"), ("a", "a"), ("", ""), ("\n", ""), ("a\r\n", "a\r")] {
            assert_eq!(read_line(input.as_bytes()).unwrap(), line.as_bytes());
        }
        let longest = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(read_line(longest.as_bytes()).unwrap().len(), MAX_LINE_BYTES);
        let too_long = read_line("x".repeat(MAX_LINE_BYTES + 1).as_bytes());
        assert!(matches!(too_long, Err(PasswordError::TooLong)));
    }

    #[test]
    fn passwords_are_trimmed_and_checked() {
        let check = |text: &str| checked(text.into(), 2).map_err(|error| error.to_string());
        assert_eq!(check(" two words \r"), Ok("two words".into()));
        assert_eq!(check("äö"), Ok("äö".into()));
        assert!(check(&"x".repeat(MAX_PASSWORD_BYTES)).is_ok());
        for (text, error) in [
            (" ", "no password"),
            ("ä", "at least 2 characters"),
            (&"x".repeat(MAX_PASSWORD_BYTES + 1), "at most 1024 bytes"),
            ("hunter\u{1b}[D2", "control character"),
        ] {
            let found = check(text).expect_err(text);
            assert!(found.contains(error) && !found.contains("hunter"), "{found}");
        }
        assert!(matches!(checked(vec![b'a', 0xFF], 1), Err(PasswordError::NotText)));
    }
}
