//! Entries and snapshots as bytes, for other servers: JSON after the number of its format.
//!
//! Servers of two versions may run side by side, so a change to what is encoded is a new format, even if it only adds a
//! field. `tests/formats/` has examples of each format, which are compared with what is encoded today.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::entry::{ConnectionId, Input};
use super::room::Snapshot;

/// The format of entries and snapshots that this server writes.
pub const FORMAT: u32 = 1;

/// An entry without its place in the order, which the log gives it.
///
/// A message has fields with short names, because there are many:
/// `1 {"from":7,"offset":3600,"input":{"m":{"m":{"Ok":{"b":{"Ok":{"p":{"c":"hello"}}}}},"a":{"o":true}}}}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    pub from: ConnectionId,
    /// How far the local time of the server that it comes from is ahead of UTC, in seconds.
    #[serde(rename = "offset")]
    pub offset_seconds: i32,
    pub input: Input,
}

/// Why bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FormatError {
    #[error("{what} format {format}; this server knows up to {FORMAT}: upgrade it")]
    Unknown { what: &'static str, format: u32 },
    #[error("a damaged {what}: {reason}")]
    Damaged { what: &'static str, reason: String },
    #[error("an input that concerns only this server")]
    Local,
}

impl Submission {
    const NAME: &'static str = "entry";

    /// # Errors
    /// The input concerns only this server.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        encode(self).map_err(|_| FormatError::Local)
    }

    /// # Errors
    /// The format is a newer one, or this is no entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode(Self::NAME, bytes)
    }
}

impl Snapshot {
    const NAME: &'static str = "snapshot";

    /// # Errors
    /// A kept message is not text, which cannot happen.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        encode(self).map_err(|error| FormatError::Damaged { what: Self::NAME, reason: error.to_string() })
    }

    /// # Errors
    /// The format is a newer one, or this is no snapshot.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode(Self::NAME, bytes)
    }

    /// The error for a snapshot that contradicts itself.
    pub fn damaged(reason: &str) -> FormatError {
        FormatError::Damaged { what: Self::NAME, reason: reason.to_owned() }
    }
}

fn encode(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = format!("{FORMAT} ").into_bytes();
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    let damaged = |reason: &str| FormatError::Damaged { what, reason: reason.to_owned() };
    let (format, json) = split_format(bytes).ok_or_else(|| damaged("it has no format"))?;
    if format > FORMAT {
        return Err(FormatError::Unknown { what, format });
    }
    if format == 0 {
        return Err(damaged("there is no format 0"));
    }
    serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))
}

/// The number at the beginning, and what follows the space after it.
fn split_format(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let format = str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    Some((format, bytes[digits..].strip_prefix(b" ")?))
}

/// For fields that are left out.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A value as its text.
pub(super) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The same for an optional value.
pub(super) mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<impl Display>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// The same for a list.
pub(super) mod texts {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(values: &[impl Display], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

/// An encoded message as a string.
pub(super) mod json_text {
    use std::sync::Arc;

    use serde::ser::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(json: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(str::from_utf8(json).map_err(S::Error::custom)?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        String::deserialize(deserializer).map(|text| text.into_bytes().into())
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
