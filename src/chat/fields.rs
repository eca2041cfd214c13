//! The fields of a client's message, from JSON to the values that `protocol.rs` interprets.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::protocol::MessageError;

/// The fields of a message from a client; others are ignored. Of a repeated field the last counts, as in most
/// parsers.
#[derive(Default)]
pub struct Fields<'a> {
    pub kind: Field<'a>,
    pub username: Field<'a>,
    pub to: Field<'a>,
    pub content: Field<'a>,
    pub txn_id: Field<'a>,
    pub password: Field<'a>,
    /// Boxed, because most messages have none of these.
    pub history: Option<Box<HistoryRequest<'a>>>,
}

/// The fields that ask for history.
#[derive(Default)]
pub struct HistoryRequest<'a> {
    pub history: Field<'a>,
    pub epoch: Field<'a>,
    pub since: Field<'a>,
    pub session: Field<'a>,
    pub before: Field<'a>,
    pub limit: Field<'a>,
}

/// The value of a field.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Field<'a> {
    #[default]
    Missing,
    Text(Cow<'a, str>),
    Integer(u64),
    /// Another type, named in the error message.
    Other(&'static str),
}

impl<'a> Field<'a> {
    /// The string.
    ///
    /// # Errors
    /// The field is missing or not a string.
    pub fn text(self, name: &'static str) -> Result<Cow<'a, str>, MessageError> {
        match self {
            Self::Missing => Err(MessageError::Missing(name)),
            Self::Text(text) => Ok(text),
            Self::Integer(_) => Err(MessageError::WrongType { field: name, found: "a number" }),
            Self::Other(found) => Err(MessageError::WrongType { field: name, found }),
        }
    }

    pub fn optional_text(self, name: &'static str) -> Result<Option<Cow<'a, str>>, MessageError> {
        if self == Self::Missing { Ok(None) } else { self.text(name).map(Some) }
    }

    pub fn not_blank(self, name: &'static str) -> Result<Cow<'a, str>, MessageError> {
        self.text(name)
            .and_then(|text| if text.trim().is_empty() { Err(MessageError::Blank(name)) } else { Ok(text) })
    }

    pub fn integer(self, name: &'static str, max: u64) -> Result<Option<u64>, MessageError> {
        match self {
            Self::Missing => Ok(None),
            Self::Integer(number) if number <= max => Ok(Some(number)),
            _ => Err(MessageError::NotAnInteger { field: name, max }),
        }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum FieldName {
    Type,
    Username,
    To,
    Content,
    TxnId,
    Password,
    History,
    Epoch,
    Since,
    Session,
    Before,
    Limit,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = entries.next_key()? {
            let history = &mut fields.history;
            let field = match name {
                FieldName::Type => &mut fields.kind,
                FieldName::Username => &mut fields.username,
                FieldName::To => &mut fields.to,
                FieldName::Content => &mut fields.content,
                FieldName::TxnId => &mut fields.txn_id,
                FieldName::Password => &mut fields.password,
                FieldName::History => &mut history.get_or_insert_default().history,
                FieldName::Epoch => &mut history.get_or_insert_default().epoch,
                FieldName::Since => &mut history.get_or_insert_default().since,
                FieldName::Session => &mut history.get_or_insert_default().session,
                FieldName::Before => &mut history.get_or_insert_default().before,
                FieldName::Limit => &mut history.get_or_insert_default().limit,
                FieldName::Other => {
                    entries.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = entries.next_value()?;
        }
        Ok(fields)
    }
}

impl<'de> Deserialize<'de> for Field<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Field<'de>, E> {
        Ok(Field::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field<'de>, E> {
        Ok(Field::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field<'de>, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field<'de>, E> {
        Ok(Field::Integer(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field<'de>, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field<'de>, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an object"))
    }
}
