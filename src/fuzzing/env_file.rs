//! A `.env` file, and the errors that are shown for it.

use crate::config::Settings;

/// Stands for the password in the input, or for a line that sets it. It is not part of UTF-8.
const PASSWORD_BYTE: u8 = 0xF5;
const PASSWORD: &str = "Kq7wZr3bXv9t";
const ASSIGNMENT: &str = "MOD_PASSWORD=Kq7wZr3bXv9t";

/// The input is the file, in which the byte 0xF5 stands for a password: first only where it is set, in whatever is left
/// of its line; then anywhere in a file that sets it elsewhere.
pub fn env_file(bytes: &[u8]) {
    // A value that no line calls a password is shown like any other.
    if !bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()) {
        check(&with(bytes, ASSIGNMENT));
    }
    check(&[ASSIGNMENT.as_bytes(), b"\n", &with(bytes, PASSWORD)].concat());
}

fn with(bytes: &[u8], text: &str) -> Vec<u8> {
    bytes.split(|&byte| byte == PASSWORD_BYTE).collect::<Vec<_>>().join(text.as_bytes())
}

fn check(file: &[u8]) {
    let Err(errors) = Settings::from_env_file(file) else { return };
    let report = errors.to_string();
    let file = String::from_utf8_lossy(file);
    assert!(!report.contains(PASSWORD), "{file:?}: {report}");
    assert_eq!(report.lines().count(), 1 + errors.0.len(), "{file:?}: {report:?}");
    assert!(report.lines().all(|line| !line.chars().any(char::is_control)), "{file:?}: {report:?}");
}
