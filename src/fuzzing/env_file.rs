//! A `.env` file, and the errors that are shown for it.

use crate::config::Settings;

/// Stands for the password in the input, or for a line that sets it. It is not part of UTF-8.
const PASSWORD_BYTE: u8 = 0xF5;
const PASSWORD: &str = "Kq7wZr3bXv9t";
const ASSIGNMENT: &str = "MOD_PASSWORD=Kq7wZr3bXv9t";

/// The input is a file, which is checked twice: with each byte 0xF5 replaced by an assignment of the password, and by
/// the password alone, after a line that sets it.
pub fn env_file(bytes: &[u8]) {
    // If the input itself contains the password, it may be part of a value that is shown.
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
