//! The wire protocol (docs/protocol.md): every message is one text frame that holds one JSON object with a string
//! `type`.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::ser::Serializer;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use super::access::{Attempt, Attempts};
use super::command::{self, Command};
use super::entry::EntryTime;
use super::fields::{Field, Fields, HistoryRequest};
use super::name_key::NameKey;
use super::roster::Role;
use super::session::{SessionDigest, SessionSecret};
use super::target;
use super::user_list;
use super::username::Username;

/// The `username` of messages from the server. Nobody can join under it.
pub const SYSTEM: &str = "System";
/// How many characters of a client's text an error message quotes.
const MAX_QUOTED_CHARS: usize = 40;
/// The most messages in one `history` answer.
pub const MAX_PAGE_MESSAGES: u16 = 200;
/// The page size of a `history` request without `limit`.
const DEFAULT_PAGE_MESSAGES: u16 = 50;
/// The longest `txn_id`, in characters.
const MAX_TXN_ID_CHARS: usize = 64;
/// The greatest id: integers up to this are exact in JavaScript.
pub const MAX_ID: u64 = (1 << 53) - 1;

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientMessage {
    /// The name to join with, or why this message cannot join; `None`: it has no name. It is ignored once the
    /// connection has joined.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Result<Username, String>>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub txn_id: Option<TxnId>,
    /// The message itself, or what is wrong with it: a first message with a name joins even if its body is invalid.
    #[serde(rename = "b")]
    pub body: Result<Body, MessageError>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Body {
    /// `None`: the client asks for no history and cannot resume.
    Join(Option<Box<JoinOptions>>),
    #[serde(rename = "p")]
    Public {
        #[serde(rename = "c")]
        content: String,
    },
    Private {
        to: Recipient,
        content: String,
    },
    /// A command, or the error for its text.
    Command(Result<Command, String>),
    /// The newest `limit` messages, or those before the one with the id `before`.
    History {
        before: Option<u64>,
        limit: u16,
    },
}

impl Body {
    /// Whether it changes nothing: only its answer matters.
    pub fn is_question(&self) -> bool {
        match self {
            Self::History { .. } => true,
            Self::Command(Ok(command)) => {
                matches!(command, Command::Help(_) | Command::Bans | Command::Info(_))
            }
            Self::Command(Err(_)) | Self::Join(_) | Self::Public { .. } | Self::Private { .. } => false,
        }
    }
}

/// What a client asks for when it joins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinOptions {
    /// How many of the newest messages.
    pub history: u16,
    /// Instead of these, everything after this position.
    pub since: Option<Position>,
    /// The place to resume.
    pub session: Option<SessionDigest>,
}

/// The last message that a client has received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub epoch: String,
    pub id: u64,
}

/// A client's id for one of its messages: 1 to [`MAX_TXN_ID_CHARS`] characters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TxnId(Arc<str>);

/// The `to` of a private message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// `None`: the text is too long to be a name.
    pub key: Option<NameKey>,
    /// What the error quotes if nobody has this name.
    pub name: String,
}

impl TxnId {
    /// One that was parsed when its message was sent.
    pub fn from_store(text: &str) -> Self {
        Self(text.into())
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// At most how many bytes it takes in JSON, without its quotation marks.
    pub fn json_bytes(&self) -> usize {
        let escaped = |byte| match byte {
            b'"' | b'\\' => 2,
            0..b' ' => 6,
            _ => 1,
        };
        self.0.bytes().map(escaped).sum()
    }
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// A [`KeptMessage`], encoded.
    Kept(Arc<[u8]>),
    System {
        content: String,
    },
    Error {
        content: String,
        txn_id: Option<TxnId>,
    },
    UserList {
        content: Vec<User>,
    },
    CommandList {
        content: &'static [CommandUsage],
    },
    Ack {
        txn_id: TxnId,
        id: u64,
        utc: String,
    },
    /// A message was deleted, and clients should remove it.
    Deleted {
        id: u64,
    },
    History(Box<HistoryAnswer>),
}

/// A message that has a position in the order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeptMessage<'a> {
    Public { username: &'a str, content: &'a str },
    Private { from: &'a str, to: &'a str, content: &'a str },
    System { content: &'a str },
}

/// The answer to a request for history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryAnswer {
    /// A JSON array of messages, the oldest first.
    pub messages: Vec<u8>,
    /// The newest id.
    pub id: u64,
    /// Whether there are older messages.
    pub more: bool,
    pub epoch: Arc<str>,
    /// Whether `messages` is everything after the position that the client gave; `None`: it gave none.
    pub recovered: Option<bool>,
    /// Only in the answer to a join.
    pub session: Option<SessionDigest>,
    /// Added to the answer to a join by the server that the client is connected to.
    pub join: Option<JoinAnswer>,
}

/// What a client is told only when it joins.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinAnswer {
    pub session: SessionSecret,
    /// The longest message that its server accepts.
    pub max_message_bytes: usize,
}

/// An entry of the `user_list`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct User {
    pub username: Arc<str>,
    pub is_mod: bool,
    pub is_timed_out: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_away: bool,
}

/// An entry of the `command_list`.
#[derive(Debug, PartialEq)]
pub struct CommandUsage {
    /// With its slash.
    pub name: &'static str,
    pub usage: &'static str,
    /// One line on what it does, for `/help`.
    pub about: &'static str,
    /// Who may use it.
    pub role: Role,
}

impl ServerMessage {
    /// Appends the message as JSON, its fields in the order of docs/protocol.md.
    pub fn encode(&self, timestamp: &str, json: &mut Vec<u8>) {
        let line =
            |kind, content, txn_id| SystemOrErrorJson { kind, username: SYSTEM, content, timestamp, txn_id };
        match self {
            Self::Kept(encoded) => json.extend_from_slice(encoded),
            Self::System { content } => write(json, &line("system", content, None)),
            Self::Error { content, txn_id } => write(json, &line("error", content, txn_id.as_ref())),
            Self::UserList { content } => write(json, &ListJson { kind: "user_list", content, timestamp }),
            Self::CommandList { content } => {
                write(json, &ListJson { kind: "command_list", content: &CommandList(content), timestamp });
            }
            Self::Ack { txn_id, id, utc } => {
                write(json, &AckJson { kind: "ack", txn_id, id: *id, time: utc, timestamp });
            }
            Self::Deleted { id } => write(json, &DeletedJson { kind: "deleted", id: *id, timestamp }),
            Self::History(answer) => answer.encode(timestamp, json),
        }
    }
}

impl KeptMessage<'_> {
    /// Appends the message as JSON, its fields in the order of docs/protocol.md. Encoding only the texts that may need
    /// escapes takes a third of the time of `derive(Serialize)`.
    pub fn encode(&self, id: u64, time: &EntryTime, json: &mut Vec<u8>) {
        let mut field = |before: &str, text: &str| {
            json.extend_from_slice(before.as_bytes());
            write(json, text);
        };
        match *self {
            Self::Public { username, content } => {
                field(r#"{"type":"public","username":"#, username);
                field(r#","content":"#, content);
            }
            Self::System { content } => {
                field(r#"{"type":"system","username":"#, SYSTEM);
                field(r#","content":"#, content);
            }
            Self::Private { from, to, content } => {
                field(r#"{"type":"private","from":"#, from);
                field(r#","to":"#, to);
                field(r#","content":"#, content);
            }
        }
        for part in [r#","timestamp":""#, &time.timestamp, r#"","id":"#] {
            json.extend_from_slice(part.as_bytes());
        }
        write(json, &id);
        for part in [r#","time":""#, &time.utc, r#""}"#] {
            json.extend_from_slice(part.as_bytes());
        }
    }
}

/// Appends a kept message as its author gets it, with the `txn_id` that the author gave it.
pub fn encode_with_txn_id(message: &[u8], txn_id: &TxnId, json: &mut Vec<u8>) {
    json.extend_from_slice(message.strip_suffix(b"}").unwrap_or(message));
    json.extend_from_slice(b",\"txn_id\":");
    write(json, txn_id);
    json.push(b'}');
}

impl HistoryAnswer {
    fn encode(&self, timestamp: &str, json: &mut Vec<u8>) {
        json.extend_from_slice(b"{\"type\":\"history\",\"messages\":");
        json.extend_from_slice(&self.messages);
        let rest = json.len();
        let &Self { id, more, ref epoch, recovered, ref join, .. } = self;
        let session = join.as_ref().map(|join| join.session.to_string());
        let max_message_bytes = join.as_ref().map(|join| join.max_message_bytes);
        write(json, &HistoryJson { id, more, epoch, recovered, session, max_message_bytes, timestamp });
        // The other fields continue the object.
        json[rest] = b',';
    }
}

fn write(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(json, value)
        .expect("strings, numbers and booleans always serialize, and writing to a Vec cannot fail");
}

#[derive(Serialize)]
struct SystemOrErrorJson<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    username: &'a str,
    content: &'a str,
    timestamp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn_id: Option<&'a TxnId>,
}

#[derive(Serialize)]
struct ListJson<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    content: &'a T,
    timestamp: &'a str,
}

#[derive(Serialize)]
struct AckJson<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    txn_id: &'a TxnId,
    id: u64,
    time: &'a str,
    timestamp: &'a str,
}

#[derive(Serialize)]
struct DeletedJson<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: u64,
    timestamp: &'a str,
}

/// The fields of a `history` answer after its messages.
#[derive(Serialize)]
struct HistoryJson<'a> {
    id: u64,
    more: bool,
    epoch: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_message_bytes: Option<usize>,
    timestamp: &'a str,
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

    /// The session and the name of a join that asks to resume.
    pub fn resume_request(&self) -> Option<(SessionDigest, &Username)> {
        let Ok(Body::Join(Some(options))) = &self.body else { return None };
        Some((options.session?, self.username.as_ref()?.as_ref().ok()?))
    }

    /// Parses one message, without its secrets.
    ///
    /// # Errors
    /// It is not a JSON object with a string `type`.
    #[cfg(test)]
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        Self::parse_with_secrets(text).0
    }

    /// Parses one message. Its secrets are no part of it, because no entry may contain them.
    pub fn parse_with_secrets(text: &str) -> (Result<Self, MessageError>, Attempts) {
        let mut attempts = Attempts::default();
        (Self::parse_into(text, &mut attempts), attempts)
    }

    fn parse_into(text: &str, attempts: &mut Attempts) -> Result<Self, MessageError> {
        if !text.trim_start().starts_with('{') {
            let is_json = serde_json::from_str::<IgnoredAny>(text);
            return Err(is_json
                .err()
                .map_or(MessageError::NotAnObject, |error| MessageError::NotJson(error.to_string())));
        }
        let Fields { kind, username, to, content, txn_id, password, history } =
            serde_json::from_str(text).map_err(|error| MessageError::NotJson(error.to_string()))?;
        let kind = kind.text("type")?;
        let mut username = self::username(username);
        let body = match &*kind {
            "join" => join_options(*history.unwrap_or_default(), attempts).map(Body::Join),
            "public" => content.not_blank("content").map(|content| Body::Public { content: content.into() }),
            "private" => private(to, content),
            "command" => content.not_blank("content").map(|content| {
                attempts.login = command::login_password(&content).and_then(Attempt::new);
                Body::Command(Command::parse(&content))
            }),
            "history" => self::history(*history.unwrap_or_default()),
            _ => Err(MessageError::UnknownType(kind.clone().into())),
        };
        let (txn_id, body) = match self::txn_id(txn_id) {
            Ok(txn_id) => (txn_id, body),
            Err(reason) => (None, body.and(Err(reason))),
        };
        if kind == "join"
            && let Err(reason) = &body
        {
            // The connection stays a guest, and may send another join.
            username = username.map(|name| name.and(Err(reason.to_string())));
        }
        match password.optional_text("password") {
            Ok(password) => attempts.join = password.and_then(|password| Attempt::new(&password)),
            // Like the name, it matters only to those that have not joined.
            Err(reason) => username = username.map(|name| name.and(Err(reason.to_string()))),
        }
        Ok(Self { username, txn_id, body })
    }
}

fn private(to: Field, content: Field) -> Result<Body, MessageError> {
    let to = to.not_blank("to")?;
    let content = content.not_blank("content")?.into();
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

fn txn_id(field: Field) -> Result<Option<TxnId>, MessageError> {
    if field == Field::Missing {
        return Ok(None);
    }
    let text = field.text("txn_id")?;
    let is_allowed = !text.is_empty() && text.chars().nth(MAX_TXN_ID_CHARS).is_none();
    if is_allowed { Ok(Some(TxnId((&*text).into()))) } else { Err(MessageError::TxnIdLength) }
}

/// `None`: the client asks for nothing.
fn join_options(
    request: HistoryRequest,
    attempts: &mut Attempts,
) -> Result<Option<Box<JoinOptions>>, MessageError> {
    let HistoryRequest { history, epoch, since, session, .. } = request;
    let asks = [&history, &epoch, &since, &session].into_iter().any(|field| *field != Field::Missing);
    if !asks {
        return Ok(None);
    }
    let history = page_size(history, "history")?.unwrap_or(0);
    attempts.session = session.optional_text("session")?.and_then(|text| SessionSecret::parse(&text));
    let session = attempts.session.map(|session| session.digest());
    let epoch = epoch.optional_text("epoch")?;
    let since = match since.integer("since", MAX_ID)? {
        None => None,
        Some(id) => Some(Position { epoch: epoch.ok_or(MessageError::Missing("epoch"))?.into(), id }),
    };
    Ok(Some(Box::new(JoinOptions { history, since, session })))
}

fn history(request: HistoryRequest) -> Result<Body, MessageError> {
    let before = request.before.integer("before", MAX_ID)?;
    let limit = page_size(request.limit, "limit")?.unwrap_or(DEFAULT_PAGE_MESSAGES);
    Ok(Body::History { before, limit })
}

fn page_size(field: Field, name: &'static str) -> Result<Option<u16>, MessageError> {
    let number = field.integer(name, MAX_PAGE_MESSAGES.into())?;
    Ok(number.map(|number| number.try_into().unwrap_or(MAX_PAGE_MESSAGES)))
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
    #[error("Unknown type \"{}\": use join, public, private, command or history.", shortened(.0))]
    UnknownType(String),
    #[error("The field \"{0}\" is missing.")]
    Missing(&'static str),
    #[error("The field \"{0}\" must not be blank.")]
    Blank(&'static str),
    #[error("The field \"{field}\" must be a string, but is {found}.")]
    WrongType { field: &'static str, found: &'static str },
    #[error("The field \"{field}\" must be an integer from 0 to {max}.")]
    NotAnInteger { field: &'static str, max: u64 },
    #[error("Your place in the room has just ended: join again.")]
    PlaceEnded,
    #[error("The field \"txn_id\" must have 1 to {MAX_TXN_ID_CHARS} characters.")]
    TxnIdLength,
    /// One from an entry, which contains only its text.
    #[error("{0}")]
    Text(String),
}

impl Serialize for MessageError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::Text)
    }
}

/// Shortens a client's text for an error message.
pub fn shortened(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::chat::entry::ChatTime;

    fn encoded(message: ServerMessage) -> String {
        let mut json = Vec::new();
        message.encode("12:00:00", &mut json);
        String::from_utf8(json).unwrap()
    }

    fn kept(message: KeptMessage) -> Arc<[u8]> {
        let (timestamp, utc) = ("12:00:00".into(), "2026-11-28T12:00:00.123Z".into());
        let time = EntryTime { chat: ChatTime(0), unix_millis: 0, timestamp, utc };
        let mut json = Vec::new();
        message.encode(1042, &time, &mut json);
        json.into()
    }

    #[test]
    fn server_messages_have_their_fields_in_order() {
        let name: Arc<str> = "Bob".into();
        let content = "hi \"there\"";
        let txn_id = || TxnId("a\"b".into());
        let answer = HistoryAnswer {
            messages: b"[{}]".to_vec(),
            id: 1050,
            more: true,
            epoch: "e1".into(),
            recovered: None,
            session: None,
            join: None,
        };
        let recovered = HistoryAnswer {
            recovered: Some(false),
            join: SessionSecret::parse(&"0a".repeat(16))
                .map(|session| JoinAnswer { session, max_message_bytes: 16384 }),
            ..answer.clone()
        };
        for (message, expected) in [
            (
                ServerMessage::Kept(kept(KeptMessage::Public { username: &name, content })),
                r#"{"type":"public","username":"Bob","content":"hi \"there\"","timestamp":"12:00:00","id":1042,"time":"2026-11-28T12:00:00.123Z"}"#,
            ),
            (
                ServerMessage::Kept(kept(KeptMessage::Private { from: &name, to: "Eve", content })),
                r#"{"type":"private","from":"Bob","to":"Eve","content":"hi \"there\"","timestamp":"12:00:00","id":1042,"time":"2026-11-28T12:00:00.123Z"}"#,
            ),
            (
                ServerMessage::Kept(kept(KeptMessage::System { content })),
                r#"{"type":"system","username":"System","content":"hi \"there\"","timestamp":"12:00:00","id":1042,"time":"2026-11-28T12:00:00.123Z"}"#,
            ),
            (
                ServerMessage::System { content: content.into() },
                r#"{"type":"system","username":"System","content":"hi \"there\"","timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::Error { content: content.into(), txn_id: None },
                r#"{"type":"error","username":"System","content":"hi \"there\"","timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::Error { content: content.into(), txn_id: Some(txn_id()) },
                r#"{"type":"error","username":"System","content":"hi \"there\"","timestamp":"12:00:00","txn_id":"a\"b"}"#,
            ),
            (
                ServerMessage::UserList {
                    content: [false, true]
                        .map(|is_away| User {
                            username: name.clone(),
                            is_mod: true,
                            is_timed_out: false,
                            is_away,
                        })
                        .into(),
                },
                r#"{"type":"user_list","content":[{"username":"Bob","is_mod":true,"is_timed_out":false},{"username":"Bob","is_mod":true,"is_timed_out":false,"is_away":true}],"timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::CommandList {
                    content: &[CommandUsage {
                        name: "/help",
                        usage: "/help [command]",
                        about: "Helps.",
                        role: Role::Member,
                    }],
                },
                r#"{"type":"command_list","content":{"/help":{"usage":"/help [command]"}},"timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::Ack { txn_id: txn_id(), id: 7, utc: "2026-11-28T12:00:00.123Z".into() },
                r#"{"type":"ack","txn_id":"a\"b","id":7,"time":"2026-11-28T12:00:00.123Z","timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::History(answer.into()),
                r#"{"type":"history","messages":[{}],"id":1050,"more":true,"epoch":"e1","timestamp":"12:00:00"}"#,
            ),
            (
                ServerMessage::History(recovered.into()),
                r#"{"type":"history","messages":[{}],"id":1050,"more":true,"epoch":"e1","recovered":false,"session":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","max_message_bytes":16384,"timestamp":"12:00:00"}"#,
            ),
        ] {
            assert_eq!(encoded(message), expected);
        }
    }

    #[test]
    fn the_author_gets_its_txn_id_with_its_message() {
        let mut json = Vec::new();
        let txn_id = TxnId("\u{1}\"ä".into());
        encode_with_txn_id(&kept(KeptMessage::System { content: "hi" }), &txn_id, &mut json);
        let message: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&message["id"], &message["txn_id"]), (&json!(1042), &json!("\u{1}\"ä")));
        assert_eq!(serde_json::to_vec(&txn_id).unwrap().len(), txn_id.json_bytes() + 2);
    }

    #[test]
    fn what_a_client_asks_for_when_it_joins_is_parsed() {
        let options = |fields: &str| {
            let text = format!(r#"{{"type":"join","username":"Bob"{fields}}}"#);
            match ClientMessage::parse(&text).unwrap() {
                ClientMessage { username: Some(Ok(_)), body: Ok(Body::Join(options)), .. } => Ok(options),
                ClientMessage { username: Some(Err(error)), .. } => Err(error),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(options(r#","limit":5,"before":6"#), Ok(None));
        let asks = |history, since, session| Ok(Some(JoinOptions { history, since, session }.into()));
        assert_eq!(options(r#","history":200"#), asks(200, None, None));
        assert_eq!(options(r#","epoch":"e1""#), asks(0, None, None));
        let position = Position { epoch: "e1".into(), id: MAX_ID };
        assert_eq!(options(r#","since":9007199254740991,"epoch":"e1""#), asks(0, Some(position), None));
        let text = "0A".repeat(16);
        assert_eq!(
            options(&format!(r#","session":"{text}""#)),
            asks(0, None, SessionSecret::parse(&text).map(|it| it.digest()))
        );
        assert_eq!(options(r#","session":"unknown""#), asks(0, None, None));
        let page = "The field \"history\" must be an integer from 0 to 200.";
        let id = "The field \"since\" must be an integer from 0 to 9007199254740991.";
        for (fields, error) in [
            (r#","history":201"#, page),
            (r#","history":-1"#, page),
            (r#","history":1.5"#, page),
            (r#","history":"9""#, page),
            (r#","history":null"#, page),
            (r#","epoch":"e1","since":9007199254740992"#, id),
            (r#","epoch":"e1","since":[]"#, id),
            (r#","since":5"#, "The field \"epoch\" is missing."),
            (r#","epoch":5"#, "The field \"epoch\" must be a string, but is a number."),
            (r#","history":1,"txn_id":"""#, "The field \"txn_id\" must have 1 to 64 characters."),
            (r#","session":{}"#, "The field \"session\" must be a string, but is an object."),
        ] {
            assert_eq!(options(fields), Err(error.to_owned()), "{fields}");
        }
    }

    #[test]
    fn requests_for_history_and_txn_ids_are_parsed() {
        let parse = |text: &str| ClientMessage::parse(text).unwrap();
        let body = |text| parse(text).body;
        assert_eq!(body(r#"{"type":"history"}"#), Ok(Body::History { before: None, limit: 50 }));
        assert_eq!(
            body(r#"{"type":"history","limit":0,"before":7}"#),
            Ok(Body::History { before: Some(7), limit: 0 })
        );
        assert!(body(r#"{"type":"history","limit":201}"#).is_err());
        assert!(body(r#"{"type":"history","before":"7"}"#).is_err());
        let with =
            |txn_id: Value| parse(&json!({"type": "public", "content": "hi", "txn_id": txn_id}).to_string());
        for length in [1, MAX_TXN_ID_CHARS] {
            let txn_id = "ä".repeat(length);
            assert_eq!(with(json!(txn_id)).txn_id, Some(TxnId(txn_id.into())));
        }
        for (txn_id, error) in [
            (json!(""), MessageError::TxnIdLength),
            (json!("ä".repeat(MAX_TXN_ID_CHARS + 1)), MessageError::TxnIdLength),
            (json!(5), MessageError::WrongType { field: "txn_id", found: "a number" }),
        ] {
            let message = with(txn_id);
            assert_eq!((message.txn_id, message.body), (None, Err(error)));
        }
        // The error for its content carries its id.
        let blank = parse(r#"{"type":"public","content":" ","txn_id":"a"}"#);
        assert_eq!(
            (blank.txn_id, blank.body),
            (Some(TxnId("a".into())), Err(MessageError::Blank("content")))
        );
    }

    #[test]
    fn client_messages_are_parsed() {
        let parse = |value: Value| ClientMessage::parse(&value.to_string()).unwrap();
        let bob = Some(Ok(Username::parse("Bob").unwrap()));
        assert_eq!(
            parse(json!({"type": "join", "username": "Bob", "timestamp": 5, "more": [{}]})),
            ClientMessage { username: bob.clone(), txn_id: None, body: Ok(Body::Join(None)) }
        );
        assert_eq!(
            parse(json!({"type": "public", "content": " hi "})),
            ClientMessage { username: None, txn_id: None, body: Ok(Body::Public { content: " hi ".into() }) }
        );
        assert_eq!(
            ClientMessage::parse(r#"{"type": "public", "type": "join", "username": 1, "username": "Bob"}"#),
            Ok(ClientMessage { username: bob, txn_id: None, body: Ok(Body::Join(None)) })
        );
        let number = "The field \"username\" must be a string, but is a number.";
        assert_eq!(
            parse(json!({"type": "command", "username": 7, "content": "/help"})),
            ClientMessage {
                username: Some(Err(number.into())),
                txn_id: None,
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
        fn no_object_causes_a_panic(kind in "join|public|private|command|history|x", name: Option<String>, content: Option<String>) {
            let _ = ClientMessage::parse(&json!({"type": kind, "username": name, "to": name, "content": content}).to_string());
        }

        #[test]
        fn content_arrives_unchanged(name in ".{1,40}", content: String) {
            let message = KeptMessage::Public { username: &name, content: &content };
            let read: Value = serde_json::from_slice(&kept(message)).unwrap();
            prop_assert_eq!(&read["username"], &name);
            prop_assert_eq!(&read["content"], &content);
        }
    }
}
