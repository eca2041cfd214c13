//! A `.env` file, read as the original's users wrote it.
//!
//! The original read its file with python-dotenv, which takes a value without quotes literally:
//! `MOD_PASSWORD=pa$$ word\` is just that. dotenvy reads like a shell and would make something else of it, or
//! refuse it. So each line is put into quotes that dotenvy takes literally, and dotenvy does the rest
//! (`export`, quotes, `${NAME}`, values over several lines).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Larger files are no settings, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The variables of a `.env` file (the last line for a name wins), and what could not be read in it. A file
/// that does not exist holds nothing. Problems name the line, never its text, which may be a secret.
pub fn read(path: &Path) -> (HashMap<String, String>, Vec<String>) {
    let name = path.display();
    let unread = |problem: String| (HashMap::new(), vec![format!("{name}: {problem}")]);
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Default::default(),
        Err(error) => {
            return unread(format!("cannot be read ({error}); mend or remove it, or start elsewhere"));
        }
    };
    match decode(&bytes) {
        Some(text) => {
            let (values, lines) = parse(&text);
            let problem =
                |line| format!("{name}: line {line} is not NAME=value; mend it, or begin it with #");
            (values, lines.into_iter().map(problem).collect())
        }
        None => unread("is not text; save it as UTF-8".into()),
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// UTF-8, or UTF-16 with a byte order mark, which is what `echo USE_SSL=true > .env` makes in PowerShell.
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

/// The values, and the numbers of the lines that are none.
fn parse(text: &str) -> (HashMap<String, String>, Vec<usize>) {
    let quoted = quote_values(text);
    let mut values = HashMap::new();
    let mut bad: Vec<usize> = Vec::new();
    for item in dotenvy::from_read_iter(quoted.as_bytes()) {
        match item {
            Ok((name, value)) => {
                values.insert(name, value);
            }
            Err(dotenvy::Error::LineParse(part, _)) => {
                let part = part.lines().next().unwrap_or_default();
                // dotenvy tells the text and not the line: it is looked for behind the last one.
                let passed = bad.last().copied().unwrap_or(0);
                let is_it = |line: &str| !line.trim_start().starts_with('#') && line.contains(part);
                let line = quoted.lines().skip(passed).position(is_it).unwrap_or(0);
                bad.push(passed + line + 1);
            }
            Err(_) => bad.push(1),
        }
    }
    (values, bad)
}

/// The text with every value that stands on one line in double quotes, and each `$` that does not begin a
/// `${NAME}` escaped.
fn quote_values(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() * 2);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match line.split_once('=') {
            Some((name, value)) if !line.trim_start().starts_with('#') => {
                let value = value.trim_start();
                quoted.push_str(name);
                quoted.push('=');
                match value.chars().next() {
                    Some(quote @ ('"' | '\'')) if !closes(&value[1..], quote) => {
                        // A value over several lines ends with the line that closes its quote.
                        quoted.push_str(value);
                        for line in lines.by_ref() {
                            quoted.push('\n');
                            quoted.push_str(line);
                            if closes(line, quote) {
                                break;
                            }
                        }
                    }
                    Some('"') => push_escaped(&mut quoted, value, |c| c == '$'),
                    Some('\'') => quoted.push_str(value),
                    _ => {
                        quoted.push('"');
                        push_escaped(&mut quoted, without_comment(value), |c| "\\\"$".contains(c));
                        quoted.push('"');
                    }
                }
            }
            _ => quoted.push_str(line),
        }
        quoted.push('\n');
    }
    quoted
}

/// Whether the text, which stands behind an opening quote, has the closing one.
fn closes(text: &str, quote: char) -> bool {
    let mut escaped = false;
    text.chars().any(|character| {
        let closing = character == quote && !escaped;
        escaped = character == '\\' && !escaped;
        closing
    })
}

/// A comment begins at a `#` after white space; `pass#word` has none.
fn without_comment(value: &str) -> &str {
    let comment = value
        .char_indices()
        .find(|&(at, c)| c == '#' && (at == 0 || value[..at].ends_with(char::is_whitespace)));
    comment.map_or(value, |(at, _)| &value[..at]).trim_end()
}

fn push_escaped(quoted: &mut String, value: &str, special: impl Fn(char) -> bool) {
    let mut escaped = false;
    for (at, character) in value.char_indices() {
        let opens_name = character == '$' && value[at..].starts_with("${");
        if special(character) && !opens_name && !escaped {
            quoted.push('\\');
        }
        // Inside quotes that were there already, a backslash has its say over what follows.
        escaped = character == '\\' && !escaped && !special('\\');
        quoted.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> String {
        let (mut values, bad) = parse(text);
        assert_eq!(bad, [0; 0], "{text:?}");
        values.remove("A").unwrap_or_else(|| panic!("no A in {text:?}"))
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
    fn quoted_values_keep_what_is_between_the_quotes() {
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
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_that_are_no_setting_are_named_by_number_only() {
        let (values, bad) = parse("# 1B=2 hunter2\nA=1\nhunter2\n\n1B=2\nC='x' y\nD=4\nhunter2");
        assert_eq!(bad, [3, 5, 6, 8]);
        assert_eq!(values.len(), 2);
    }

    #[test]
    fn files_from_other_editors() {
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
        fn whatever_the_file_holds_it_is_read_without_a_panic(bytes: Vec<u8>) {
            if let Some(text) = decode(&bytes) {
                parse(&text);
            }
        }

        #[test]
        fn a_password_of_printable_ascii_survives(password in "[!$-&(-~]([ -~]{0,30}[!-~])?") {
            proptest::prop_assume!(!password.contains(" #") && !password.contains("${"));
            let (values, _) = parse(&format!("A={password}\n"));
            proptest::prop_assert_eq!(&values["A"], &password);
        }
    }
}
