//! How an error shows a setting's value. A broken line may contain two settings, one of them a password, so not every
//! value is shown.

use std::fmt;

use super::settings_table::{SETTINGS, Setting};
use crate::ops::is_escaped;

/// A value as an error shows it after the setting's name: `="value"`, or why it is not shown.
#[derive(Debug, PartialEq)]
pub enum ReportedValue {
    Shown(String),
    NotShown(Reason),
}

/// Why a value is not shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    ControlCharacters,
    /// It contains `=`, mentions a password, or names a setting that is secret.
    MayHoldAnotherSetting,
    Confidential,
}

impl ReportedValue {
    /// `confidential`: the passwords, and other text that must not be shown.
    pub fn new(value: &str, confidential: &[String]) -> Self {
        if has_control_characters(value) {
            Self::NotShown(Reason::ControlCharacters)
        } else if value.contains('=') || mentions_password(value) || names_secret(value) {
            Self::NotShown(Reason::MayHoldAnotherSetting)
        } else if confidential.iter().any(|text| !text.trim().is_empty() && value.contains(text.trim())) {
            Self::NotShown(Reason::Confidential)
        } else {
            Self::Shown(value.into())
        }
    }
}

impl fmt::Display for ReportedValue {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let reason = match self {
            Self::Shown(value) => return write!(formatter, "={value:?}"),
            Self::NotShown(Reason::ControlCharacters) => "it contains control characters",
            Self::NotShown(Reason::MayHoldAnotherSetting) => "it may hold a second setting",
            Self::NotShown(Reason::Confidential) => "it contains a password or a ${NAME}",
        };
        write!(formatter, " (its value is not shown, because {reason})")
    }
}

/// Whether a text contains characters that could separate two lines, or hide something in one.
pub fn has_control_characters(text: &str) -> bool {
    // Zero-width characters and the byte order mark come from copied text.
    text.chars().any(|c| is_escaped(c) || matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}'))
}

/// Whether a text contains the name of a setting that is secret.
pub fn names_secret(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    secrets().any(|setting| text.contains(setting.name))
}

/// Whether a text contains `pass`, in any case, as the names of most passwords do.
pub fn mentions_password(text: &str) -> bool {
    text.to_ascii_lowercase().contains("pass")
}

/// The settings that are secret.
pub fn secrets() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.kind.is_secret())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_values_are_shown() {
        let confidential = ["hunter2 ".into(), String::new()];
        let shown = |value: &str| ReportedValue::new(value, &confidential);
        for value in ["", " 8765 ", "chat.example.com", "größer", "10.0.0.0/33", "hunter"] {
            assert_eq!(shown(value), ReportedValue::Shown(value.into()));
        }
        for separator in
            "\0\r\n\t\u{b}\u{c}\u{1b}\u{7f}\u{85}\u{200b}\u{2028}\u{2029}\u{202e}\u{feff}".chars()
        {
            let reason = Reason::ControlCharacters;
            assert_eq!(shown(&format!("1{separator}2")), ReportedValue::NotShown(reason), "{separator:?}");
        }
        for value in ["8765MOD_PASSWORD=x", "8765 LOG_LEVEL=info", "8765 Password: x", "1MOD_PASSWORDx"] {
            assert_eq!(shown(value), ReportedValue::NotShown(Reason::MayHoldAnotherSetting), "{value}");
        }
        assert_eq!(shown("8765hunter2"), ReportedValue::NotShown(Reason::Confidential));
    }
}
