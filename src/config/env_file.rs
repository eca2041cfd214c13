//! Reads a `.env` file the way the original TinyChat does.
//!
//! The original uses python-dotenv, which takes an unquoted value literally: `MOD_PASSWORD=pa$$ word\` sets exactly
//! that. dotenvy follows the shell, and would change or reject such a value. So every value is first put into quotes
//! that dotenvy takes literally, and dotenvy handles the rest (`export`, quotes, `${NAME}`, multi-line values).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::Lines;

use super::reported_value::{mentions_password, names_secret};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a `.env` file, or a line of it, cannot be used. Messages give a line's number, never its text, which may be
/// a secret.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error("{path}: cannot be read ({source}); fix or remove it, or start TinyChat in another folder")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: is not text; save it as UTF-8")]
    NotText { path: PathBuf },
    #[error("{path}: line {line} is not NAME=value; fix it, or start it with #")]
    Line { path: PathBuf, line: usize },
}

/// The content of a `.env` file.
#[derive(Default)]
pub struct EnvFile {
    text: String,
    /// The variables. The last line for a name wins.
    values: HashMap<String, String>,
    /// The values of all lines whose names are those of secrets or mention a password, even if a later line replaces
    /// them.
    passwords: Vec<String>,
    /// Everything that could not be read.
    pub errors: Vec<EnvFileError>,
}

impl EnvFile {
    /// Reads a file. A missing file counts as empty.
    pub fn read(path: &Path) -> Self {
        match read_bytes(path) {
            Ok(bytes) => Self::from_bytes(path, &bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::default(),
            Err(source) => Self::unreadable(EnvFileError::Read { path: path.into(), source }),
        }
    }

    /// Parses the content of the file at `path`.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Self {
        let Some(text) = decode(bytes) else {
            return Self::unreadable(EnvFileError::NotText { path: path.into() });
        };
        let (pairs, bad_lines) = parse(&text);
        let passwords = pairs.iter().filter(|(name, _)| mentions_password(name) || names_secret(name));
        let passwords = passwords.map(|(_, value)| value.clone()).collect();
        let error = |line| EnvFileError::Line { path: path.into(), line };
        let errors = bad_lines.into_iter().map(error).collect();
        Self { text, values: pairs.into_iter().collect(), passwords, errors }
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// What no error may show: the passwords, and the values of these variables that contain a `${NAME}`.
    pub fn confidential<'a>(&'a self, names: impl Iterator<Item = &'a str>) -> Vec<String> {
        // A value in which a `${NAME}` was replaced seldom occurs literally in the file.
        let replaced = names.filter_map(|name| self.value(name)).filter(|&value| !self.text.contains(value));
        self.passwords.iter().cloned().chain(replaced.map(str::to_owned)).collect()
    }

    fn unreadable(error: EnvFileError) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would block until something writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Decodes UTF-8, or UTF-16 with a byte order mark, which `echo USE_SSL=true > .env` writes in PowerShell.
fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<_, _>>().ok()
    };
    match bytes {
        [0xFF, 0xFE, ..] => utf16(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => utf16(u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, text @ ..] => String::from_utf8(text.to_vec()).ok(),
        text => String::from_utf8(text.to_vec()).ok(),
    }
}

/// Returns the variables in order, and the numbers of the lines that set none.
fn parse(text: &str) -> (Vec<(String, String)>, Vec<usize>) {
    let quoted = quote_values(text);
    let mut values = Vec::new();
    let mut bad: Vec<usize> = Vec::new();
    for item in dotenvy::from_read_iter(quoted.as_bytes()) {
        match item {
            Ok(pair) => values.push(pair),
            Err(dotenvy::Error::LineParse(part, _)) => {
                let part = part.lines().next().unwrap_or_default();
                // dotenvy reports the text of the line, not its number: search after the previous bad line.
                let previous = bad.last().copied().unwrap_or(0);
                let matches = |line: &str| !line.trim_start().starts_with('#') && line.contains(part);
                let offset = quoted.lines().skip(previous).position(matches).unwrap_or(0);
                bad.push(previous + offset + 1);
            }
            Err(_) => bad.push(1),
        }
    }
    (values, bad)
}

/// Puts every unquoted value into double quotes, and escapes each `$` that does not start a `${NAME}` to replace.
fn quote_values(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() * 2);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match line.split_once('=') {
            Some((name, value)) if !line.trim_start().starts_with('#') => {
                quoted.push_str(name);
                quoted.push('=');
                push_quoted(&mut quoted, value.trim_start(), names_secret(name), &mut lines);
            }
            _ => quoted.push_str(line),
        }
        quoted.push('\n');
    }
    quoted
}

/// Appends one value in quotes, with the lines that follow if it is a multi-line value. `secret`: it may contain other
/// secrets.
fn push_quoted(quoted: &mut String, value: &str, secret: bool, following: &mut Lines) {
    let opens_name = |text: &str| text.starts_with("${") && (secret || !opens_secret(text));
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) if !closes(&value[1..], quote) => {
            quoted.push_str(value);
            for line in following {
                quoted.push('\n');
                quoted.push_str(line);
                if closes(line, quote) {
                    break;
                }
            }
        }
        Some('"') => push_escaped(quoted, value, |c| c == '$', opens_name),
        Some('\'') => quoted.push_str(value),
        _ => {
            quoted.push('"');
            push_escaped(quoted, without_comment(value), |c| "\\\"$".contains(c), opens_name);
            quoted.push('"');
        }
    }
}

/// Whether the text after an opening quote contains the closing one.
fn closes(text: &str, quote: char) -> bool {
    let mut escaped = false;
    text.chars().any(|character| {
        let closing = character == quote && !escaped;
        escaped = character == '\\' && !escaped;
        closing
    })
}

/// Strips a comment. It starts at a `#` after white space, so `pass#word` has none.
fn without_comment(value: &str) -> &str {
    let comment = value
        .char_indices()
        .find(|&(at, c)| c == '#' && (at == 0 || value[..at].ends_with(char::is_whitespace)));
    comment.map_or(value, |(at, _)| &value[..at]).trim_end()
}

/// Whether the text starts with a `${NAME}` that mentions a password or is the name of a secret. Errors and the log
/// would show it as part of another setting.
fn opens_secret(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|rest| rest.split_once('}'))
        .is_some_and(|(name, _)| mentions_password(name) || names_secret(name))
}

fn push_escaped(
    quoted: &mut String,
    value: &str,
    special: impl Fn(char) -> bool,
    opens_name: impl Fn(&str) -> bool,
) {
    let mut escaped = false;
    for (at, character) in value.char_indices() {
        if special(character) && !opens_name(&value[at..]) && !escaped {
            quoted.push('\\');
        }
        // In a value that was quoted already, a backslash escapes the next character.
        escaped = character == '\\' && !escaped && !special('\\');
        quoted.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> String {
        let (values, bad) = parse(text);
        assert_eq!(bad, [0; 0], "{text:?}");
        let last = values.into_iter().rfind(|(name, _)| name == "A");
        last.unwrap_or_else(|| panic!("no A in {text:?}")).1
    }

    #[test]
    fn values_without_quotes_are_literal() {
        for (text, expected) in [
            ("A=b", "b"),
            ("  A =  b  ", "b"),
            ("export A=b", "b"),
            ("A=two words", "two words"),
            ("A=pa$$word", "pa$$word"),
            ("A=$HOME", "$HOME"),
            (r"A=back\slash\", r"back\slash\"),
            ("A=it's", "it's"),
            (r#"A=say "hi""#, r#"say "hi""#),
            ("A=b # comment", "b"),
            ("A=b#no comment", "b#no comment"),
            ("A=#only a comment", ""),
            ("A=", ""),
            ("A=a=b==", "a=b=="),
            ("A=1\nA=2", "2"),
            ("A=b\r\nB=c\r\n", "b"),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn quoted_values_are_taken_without_their_quotes() {
        for (text, expected) in [
            ("A='b c'", "b c"),
            ("A='pa$$word' # comment", "pa$$word"),
            ("A=\"pa$$word\"", "pa$$word"),
            (r#"A="a \"quoted\" word""#, r#"a "quoted" word"#),
            (r#"A="a\\b""#, r"a\b"),
            (r#"A="\$5""#, "$5"),
            ("A=\"two\nlines\"\nB=c", "two\nlines"),
            ("B=\"x\nA=y\nz\"\nA=w", "w"),
            ("B=1\nA=${B}2", "12"),
            // A password is not replaced in settings that are shown.
            ("MOD_PASSWORD=b\nA=x${MOD_PASSWORD}", "x${MOD_PASSWORD}"),
            ("MOD_PASSWORD=b\nA=\"${MOD_PASSWORD}\"", "${MOD_PASSWORD}"),
            ("A=b\nMOD_PASSWORD=${A}c\nMOD_PASSWORD=${MOD_PASSWORD}d", "b"),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn bad_lines_are_reported_by_number() {
        let (values, bad) = parse("# 1B=2 hunter2\nA=1\nhunter2\n\n1B=2\nC='x' y\nD=4\nhunter2");
        assert_eq!(bad, [3, 5, 6, 8]);
        assert_eq!(values.len(), 2);
    }

    #[test]
    fn utf_16_and_byte_order_marks_are_decoded() {
        let text = "A=ü\r\n";
        let utf16: Vec<u16> = text.encode_utf16().collect();
        let little = utf16.iter().flat_map(|unit| unit.to_le_bytes());
        let big = utf16.iter().flat_map(|unit| unit.to_be_bytes());
        assert_eq!(decode(&[b"\xFF\xFE".to_vec(), little.collect()].concat()).unwrap(), text);
        assert_eq!(decode(&[b"\xFE\xFF".to_vec(), big.collect()].concat()).unwrap(), text);
        assert_eq!(decode(&[b"\xEF\xBB\xBF", text.as_bytes()].concat()).unwrap(), text);
        assert_eq!(decode(b"A=\xFC"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_file_causes_a_panic(bytes: Vec<u8>) {
            if let Some(text) = decode(&bytes) {
                parse(&text);
            }
        }

        #[test]
        fn a_password_of_printable_ascii_is_read_unchanged(password in "[!$-&(-~]([ -~]{0,30}[!-~])?") {
            proptest::prop_assume!(!password.contains(" #") && !password.contains("${"));
            let (values, _) = parse(&format!("A={password}\n"));
            proptest::prop_assert_eq!(values, [("A".to_owned(), password)]);
        }
    }
}
