//! The wire protocol (docs/protocol.md): every message is one text frame that holds one JSON object with a string
//! `type`.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::command::Command;
use super::name_key::NameKey;
use super::target;
use super::user_list;
use super::username::Username;

/// The `username` of messages from the server. Nobody can join under it.
pub const SYSTEM: &str = "System";
/// How many characters of a client's text an error message quotes.
const MAX_QUOTED_CHARS: usize = 40;

/// A message from a client.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientMessage {
    /// The name to join with, or what is wrong with it; `None`: the message has none. It is ignored once the
    /// connection has joined.
    pub username: Option<Result<Username, String>>,
    /// The message itself, or what is wrong with it: a first message with a name joins even if its body is invalid.
    pub body: Result<Body, MessageError>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Join,
    Public {
        content: String,
    },
    Private {
        to: Recipient,
        content: String,
    },
    /// A command, or the error for its text.
    Command(Result<Command, String>),
}

/// The `to` of a private message.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipient {
    /// `None`: the text is too long to be a name.
    pub key: Option<NameKey>,
    /// What the error quotes if nobody has this name.
    pub name: String,
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    Public { username: Arc<str>, content: String },
    Private { from: Arc<str>, to: Arc<str>, content: String },
    System { content: String },
    Error { content: String },
    UserList { content: Vec<User> },
    CommandList { content: &'static [CommandUsage] },
}

/// An entry of the `user_list`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct User {
    pub username: Arc<str>,
    pub is_mod: bool,
    pub is_timed_out: bool,
}

/// An entry of the `command_list`.
#[derive(Debug, PartialEq)]
pub struct CommandUsage {
    /// With its slash.
    pub name: &'static str,
    pub usage: &'static str,
    /// One line on what it does, for `/help`.
    pub about: &'static str,
}

impl ServerMessage {
    /// Appends the message as JSON, its fields in the order of docs/protocol.md.
    pub fn encode(&self, timestamp: &str, json: &mut Vec<u8>) {
        let stamped = Stamped { message: self, timestamp };
        serde_json::to_writer(json, &stamped)
            .expect("strings and booleans always serialize, and writing to a Vec cannot fail");
    }
}

struct Stamped<'a> {
    message: &'a ServerMessage,
    timestamp: &'a str,
}

impl Serialize for Stamped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        match self.message {
            ServerMessage::Public { username, content } => {
                object.serialize_entry("type", "public")?;
                object.serialize_entry("username", username)?;
                object.serialize_entry("content", content)?;
            }
            ServerMessage::Private { from, to, content } => {
                object.serialize_entry("type", "private")?;
                object.serialize_entry("from", from)?;
                object.serialize_entry("to", to)?;
                object.serialize_entry("content", content)?;
            }
            ServerMessage::System { content } => {
                object.serialize_entry("type", "system")?;
                object.serialize_entry("username", SYSTEM)?;
                object.serialize_entry("content", content)?;
            }
            ServerMessage::Error { content } => {
                object.serialize_entry("type", "error")?;
                object.serialize_entry("username", SYSTEM)?;
                object.serialize_entry("content", content)?;
            }
            ServerMessage::UserList { content } => {
                object.serialize_entry("type", "user_list")?;
                object.serialize_entry("content", content)?;
            }
            ServerMessage::CommandList { content } => {
                object.serialize_entry("type", "command_list")?;
                object.serialize_entry("content", &CommandList(content))?;
            }
        }
        object.serialize_entry("timestamp", self.timestamp)?;
        object.end()
    }
}

/// An object from command name to `{usage}`.
struct CommandList(&'static [CommandUsage]);

impl Serialize for CommandList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Usage {
            usage: &'static str,
        }
        serializer.collect_map(self.0.iter().map(|&CommandUsage { name, usage, .. }| (name, Usage { usage })))
    }
}

impl ClientMessage {
    /// The size of the sender's entry in the user list, in bytes, if it can join with this message; `None`: it cannot.
    pub fn list_entry_bytes(&self) -> Option<usize> {
        let name = self.username.as_ref()?.as_ref().ok()?;
        Some(user_list::entry_bytes(name))
    }

    /// Parses one message.
    ///
    /// # Errors
    /// It is not a JSON object with a string `type`.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        if !text.trim_start().starts_with('{') {
            let is_json = serde_json::from_str::<IgnoredAny>(text);
            return Err(is_json
                .err()
                .map_or(MessageError::NotAnObject, |error| MessageError::NotJson(error.to_string())));
        }
        let message: Fields =
            serde_json::from_str(text).map_err(|error| MessageError::NotJson(error.to_string()))?;
        let kind = message.kind.text("type")?;
        let body = match kind.as_str() {
            "join" => Ok(Body::Join),
            "public" => message.content.not_blank("content").map(|content| Body::Public { content }),
            "private" => private(message.to, message.content),
            "command" => {
                message.content.not_blank("content").map(|content| Body::Command(Command::parse(&content)))
            }
            _ => Err(MessageError::UnknownType(kind)),
        };
        Ok(Self { username: username(message.username), body })
    }
}

fn private(to: Field, content: Field) -> Result<Body, MessageError> {
    let to = to.not_blank("to")?;
    let content = content.not_blank("content")?;
    let name = to.trim().chars().take(Username::MAX_CHARS).collect();
    Ok(Body::Private { to: Recipient { key: target::key(&to), name }, content })
}

fn username(field: Field) -> Option<Result<Username, String>> {
    let name = match field {
        Field::Missing => return None,
        field => field.text("username").map_err(|error| error.to_string()),
    };
    Some(name.and_then(|name| Username::parse(&name).map_err(|error| error.to_string())))
}

/// The fields of a message from a client; others are ignored. Of a repeated field the last counts, as in most
/// parsers.
#[derive(Default)]
struct Fields {
    kind: Field,
    username: Field,
    to: Field,
    content: Field,
}

/// A field that should hold a string.
#[derive(Clone, Debug, Default, PartialEq)]
enum Field {
    #[default]
    Missing,
    Text(String),
    /// Another type, named in the error message.
    Other(&'static str),
}

impl Field {
    /// The string.
    ///
    /// # Errors
    /// The field is missing or not a string.
    fn text(self, name: &'static str) -> Result<String, MessageError> {
        match self {
            Self::Missing => Err(MessageError::Missing(name)),
            Self::Text(text) => Ok(text),
            Self::Other(found) => Err(MessageError::WrongType { field: name, found }),
        }
    }

    fn not_blank(self, name: &'static str) -> Result<String, MessageError> {
        self.text(name)
            .and_then(|text| if text.trim().is_empty() { Err(MessageError::Blank(name)) } else { Ok(text) })
    }
}

/// Why a message is answered with an `error`.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum MessageError {
    #[error("Binary frames are not supported: send JSON in a text frame.")]
    Binary,
    #[error(r#"Join first: send {{"type": "join", "username": "your name"}}."#)]
    NotJoined,
    /// With the parser's message.
    #[error("This is not JSON: {0}.")]
    NotJson(String),
    #[error("A message must be a JSON object.")]
    NotAnObject,
    #[error("Unknown type \"{}\": use join, public, private or command.", shortened(.0))]
    UnknownType(String),
    #[error("The field \"{0}\" is missing.")]
    Missing(&'static str),
    #[error("The field \"{0}\" must not be blank.")]
    Blank(&'static str),
    #[error("The field \"{field}\" must be a string, but is {found}.")]
    WrongType { field: &'static str, found: &'static str },
}

/// Shortens a client's text for an error message.
pub fn shortened(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum FieldName {
    Type,
    Username,
    To,
    Content,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = entries.next_key()? {
            match name {
                FieldName::Type => fields.kind = entries.next_value()?,
                FieldName::Username => fields.username = entries.next_value()?,
                FieldName::To => fields.to = entries.next_value()?,
                FieldName::Content => fields.content = entries.next_value()?,
                FieldName::Other => entries.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(fields)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(Field::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn encoded(message: ServerMessage) -> String {
        let mut json = Vec::new();
        message.encode("12:00:00", &mut json);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn server_messages_have_their_fields_in_order() {
        let name: Arc<str> = "Bob".into();
        let content = "hi \"there\"".to_owned();
        for (message, expected) in [
            (
                ServerMessage::Public { username: name.clone(), content: content.clone() },
                r#"{"type":"public","username":"Bob","content":"hi \"there\"","timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::Private { from: name.clone(), to: "Eve".into(), content: content.clone() },
                r#"{"type":"private","from":"Bob","to":"Eve","content":"hi \"there\"","timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::System { content: content.clone() },
                r#"{"type":"system","username":"System","content":"hi \"there\"","timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::Error { content },
                r#"{"type":"error","username":"System","content":"hi \"there\"","timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::UserList {
                    content: vec![User { username: name, is_mod: true, is_timed_out: false }],
                },
                r#"{"type":"user_list","content":[{"username":"Bob","is_mod":true,"is_timed_out":false}],"timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::CommandList {
                    content: &[CommandUsage { name: "/help", usage: "/help [command]", about: "Helps." }],
                },
                r#"{"type":"command_list","content":{"/help":{"usage":"/help [command]"}},"timestamp":"12:00:00"}"#,
            ),
        ] {
            assert_eq!(encoded(message), expected);
        }
    }

    #[test]
    fn client_messages_are_parsed() {
        let parse = |value: Value| ClientMessage::parse(&value.to_string()).unwrap();
        let bob = Some(Ok(Username::parse("Bob").unwrap()));
        assert_eq!(
            parse(json!({"type": "join", "username": "Bob", "timestamp": 5, "more": [{}]})),
            ClientMessage { username: bob.clone(), body: Ok(Body::Join) }
        );
        assert_eq!(
            parse(json!({"type": "public", "content": " hi "})),
            ClientMessage { username: None, body: Ok(Body::Public { content: " hi ".into() }) }
        );
        assert_eq!(
            ClientMessage::parse(r#"{"type": "public", "type": "join", "username": 1, "username": "Bob"}"#),
            Ok(ClientMessage { username: bob, body: Ok(Body::Join) })
        );
        let number = "The field \"username\" must be a string, but is a number.";
        assert_eq!(
            parse(json!({"type": "command", "username": 7, "content": "/help"})),
            ClientMessage {
                username: Some(Err(number.into())),
                body: Ok(Body::Command(Command::parse("/help")))
            }
        );
        let to = Recipient { key: Some(NameKey::of("Bob Lee")), name: "Bob Lee".into() };
        assert_eq!(
            parse(json!({"type": "private", "to": " Bob Lee ", "content": "hi"})).body,
            Ok(Body::Private { to, content: "hi".into() })
        );
    }

    #[test]
    fn every_error_says_what_was_wrong() {
        for (text, expected) in [
            ("hello", "This is not JSON"),
            ("", "This is not JSON"),
            ("{", "This is not JSON"),
            (r#"{"type":"join"} {}"#, "This is not JSON"),
            (r#"{"type":"\ud800"}"#, "This is not JSON"),
            ("[]", "must be a JSON object"),
            (r#"["public","Bob","hi"]"#, "must be a JSON object"),
            ("null", "must be a JSON object"),
            ("{}", "\"type\" is missing"),
            (r#"{"type":5}"#, "\"type\" must be a string, but is a number"),
            (r#"{"type":"shout"}"#, "Unknown type \"shout\""),
            (r#"{"type":"public"}"#, "\"content\" is missing"),
            (r#"{"type":"public","content":null}"#, "\"content\" must be a string, but is null"),
            (r#"{"type":"public","content":["a"]}"#, "but is an array"),
            (r#"{"type":"public","content":{"a":[1]}}"#, "but is an object"),
            (r#"{"type":"command","content":true}"#, "but is a boolean"),
            (r#"{"type":"private","content":"hi"}"#, "\"to\" is missing"),
            (r#"{"type":"private","to":" ","content":"hi"}"#, "\"to\" must not be blank"),
            (r#"{"type":"private","to":5,"content":"hi"}"#, "\"to\" must be a string, but is a number"),
            (r#"{"type":"private","to":"Bob"}"#, "\"content\" is missing"),
            (r#"{"type":"public","content":" \t "}"#, "must not be blank"),
        ] {
            let error =
                ClientMessage::parse(text).and_then(|message| message.body).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let deep = format!("{{\"type\":\"join\",\"x\":{}", "[".repeat(16_000));
        assert!(matches!(ClientMessage::parse(&deep), Err(MessageError::NotJson(_))));
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text: String) {
            let _ = ClientMessage::parse(&text);
        }

        #[test]
        fn no_object_causes_a_panic(kind in "join|public|private|command|x", name: Option<String>, content: Option<String>) {
            let _ = ClientMessage::parse(&json!({"type": kind, "username": name, "to": name, "content": content}).to_string());
        }

        #[test]
        fn content_arrives_unchanged(name in ".{1,40}", content: String) {
            let message = ServerMessage::Public { username: name.as_str().into(), content: content.clone() };
            let json = encoded(message);
            let read: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read["username"], &name);
            prop_assert_eq!(&read["content"], &content);
        }
    }
}
