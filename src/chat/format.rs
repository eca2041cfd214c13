//! Entries and snapshots as bytes, for other servers: JSON after the number of its format.
//!
//! Servers of two versions may run side by side, and must have the same state. So each of these is a new format:
//! - a change to what is encoded, even if it only adds a field;
//! - a change to what an entry does to the state of the room: to a rule, a limit, or the text of a message that is kept.
//!   Until all servers know the new format, they write the older one, whose entries keep the older rules.
//!
//! `tests/formats/` has examples of each format, which are compared with what is encoded today, and a transcript of
//! entries with the state that they lead to.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::entry::{ConnectionId, Input};
use super::room::Snapshot;

/// The format of entries and snapshots, and the rules that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Format(u32);

impl Format {
    /// The oldest that this server can write.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
    pub const OLDEST: Self = Self(1);
    /// The newest that it knows.
    pub const NEWEST: Self = Self(1);

    /// `None`: this server cannot write it.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
    pub fn new(number: u32) -> Option<Self> {
        (Self::OLDEST.0..=Self::NEWEST.0).contains(&number).then_some(Self(number))
    }

    #[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
    pub fn number(self) -> u32 {
        self.0
    }
}

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
    #[error("{what} format {format}; this server knows up to {}: upgrade it", Format::NEWEST.0)]
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
    pub fn encode(&self, format: Format) -> Result<Vec<u8>, FormatError> {
        encode(format, self).map_err(|_| FormatError::Local)
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
    pub fn encode(&self, format: Format) -> Result<Vec<u8>, FormatError> {
        encode(format, self)
            .map_err(|error| FormatError::Damaged { what: Self::NAME, reason: error.to_string() })
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

/// There is only one format so far. What an older one encodes in another way is decided here.
fn encode(format: Format, value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = format!("{} ", format.0).into_bytes();
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    let damaged = |reason: &str| FormatError::Damaged { what, reason: reason.to_owned() };
    let (format, json) = split_format(bytes).ok_or_else(|| damaged("it has no format"))?;
    if format > Format::NEWEST.0 {
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
