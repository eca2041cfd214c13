//! Parses the text of each setting and collects the errors.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use super::cluster::password_in;
use super::error::ConfigError;
use super::password::Password;
use super::reported_value::{ReportedValue, has_control_characters, names_secret, secrets};
use super::settings::DatabasePath;
use super::settings_table::SETTINGS;

/// Parses settings by name. A value that cannot be used is recorded in `errors`, and a placeholder is returned in
/// its place, so that one pass finds every error.
pub struct Parser<'a> {
    /// The values that were set. The others have their defaults.
    values: HashMap<&'a str, &'a str>,
    /// What no error may show.
    confidential: Vec<String>,
    pub errors: Vec<ConfigError>,
}

impl<'a> Parser<'a> {
    /// `confidential`: what no error may show, in addition to the passwords among the values.
    pub fn new(values: impl IntoIterator<Item = (&'a str, &'a str)>, mut confidential: Vec<String>) -> Self {
        let values: HashMap<_, _> = values.into_iter().collect();
        let passwords = secrets().filter_map(|setting| values.get(setting.name));
        for &password in passwords {
            confidential.push(password.to_owned());
            confidential.extend(password_in(password).map(str::to_owned));
        }
        Self { values, confidential, errors: Vec::new() }
    }

    /// `true`, `1`, `yes`, `on` or their opposites, in any case.
    pub fn switch(&mut self, name: &'static str) -> bool {
        let value = self.value(name);
        match value.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                self.invalid(name, value, "true or false (also 1/0, yes/no, on/off)");
                false
            }
        }
    }

    pub fn count(&mut self, name: &'static str, allowed: RangeInclusive<u32>) -> u32 {
        let value = self.value(name);
        match value.trim().parse() {
            Ok(count) if allowed.contains(&count) => count,
            _ => {
                let (min, max) = (allowed.start(), allowed.end());
                self.invalid(name, value, format!("a whole number from {min} to {max}"));
                *min
            }
        }
    }

    pub fn seconds(&mut self, name: &'static str, allowed: RangeInclusive<u32>) -> Duration {
        Duration::from_secs(self.count(name, allowed).into())
    }

    pub fn log_level(&mut self, name: &'static str) -> LevelFilter {
        let value = self.value(name);
        value.trim().parse().unwrap_or_else(|_| {
            self.invalid(name, value, "off, error, warn, info, debug or trace");
            LevelFilter::Info
        })
    }

    pub fn path(&mut self, name: &'static str) -> PathBuf {
        let value = self.value(name);
        // The log shows paths.
        if value.trim().is_empty() || has_control_characters(value) || names_secret(value) {
            self.invalid(name, value, "the path of a file, without control characters");
        }
        value.into()
    }

    pub fn database_path(&mut self, name: &'static str) -> DatabasePath {
        let is_set = self.values.contains_key(name);
        let value = self.value(name);
        if value.trim().eq_ignore_ascii_case("off") {
            return DatabasePath::Off;
        }
        if value.trim().is_empty() || has_control_characters(value) || names_secret(value) {
            self.invalid(name, value, "the path of a file, or off, without control characters");
        }
        if is_set { DatabasePath::Explicit(value.into()) } else { DatabasePath::Default(value.into()) }
    }

    /// Any type whose error says what is allowed.
    pub fn parsed<T: FromStr<Err = &'static str>>(&mut self, name: &'static str) -> Option<T> {
        let value = self.value(name);
        value.trim().parse().map_err(|allowed: &str| self.invalid(name, value, allowed)).ok()
    }

    /// The same for a setting without a default. An empty value is the same as none.
    pub fn parsed_if_set<T: FromStr<Err = &'static str>>(&mut self, name: &'static str) -> Option<T> {
        self.optional(name)?;
        self.parsed(name)
    }

    /// A password, trimmed, or its hash. An empty value is the same as none.
    pub fn password(&mut self, name: &'static str) -> Option<Password> {
        let parsed = Password::parse(self.optional(name)?);
        match parsed {
            Ok(None) => self.errors.push(ConfigError::BlankSecret { name }),
            Err(hash) => self.errors.push(ConfigError::MalformedHash { name, hash }),
            Ok(password) => return password,
        }
        None
    }

    /// A comma-separated list. An empty value is the same as none.
    pub fn list<T: FromStr<Err = &'static str>>(&mut self, name: &'static str) -> Option<Vec<T>> {
        let value = self.optional(name)?;
        let mut items: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        if items.is_empty() {
            // No item may be empty, and the error says what an item may be.
            items.push("");
        }
        match items.into_iter().map(str::parse).collect() {
            Ok(items) => Some(items),
            Err(allowed) => {
                self.invalid(name, value, allowed);
                None
            }
        }
    }

    /// The value that was set, or else the default; empty for a setting without a default.
    fn value(&self, name: &str) -> &'a str {
        let setting =
            SETTINGS.iter().find(|setting| setting.name == name).expect("the setting is in the table");
        self.values.get(name).copied().or(setting.default).unwrap_or_default()
    }

    fn optional(&self, name: &str) -> Option<&'a str> {
        Some(self.value(name)).filter(|value| !value.is_empty())
    }

    fn invalid(&mut self, name: &'static str, value: &str, allowed: impl Into<String>) {
        let value = ReportedValue::new(value, &self.confidential);
        self.errors.push(ConfigError::Invalid { name, value, allowed: allowed.into() });
    }
}
