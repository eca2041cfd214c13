//! What one client was sent, checked as it arrives (docs/protocol.md; RFC 6455, section 5).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::client_bytes::TIMESTAMP;

/// The longest payload of a control frame, in bytes (RFC 6455, section 5.5).
const MAX_CONTROL: usize = 125;
/// The longest name, in characters.
const MAX_NAME_CHARS: usize = 32;

#[derive(Default)]
pub struct Transcript {
    /// The beginning of a frame.
    unparsed: Vec<u8>,
    is_closed: bool,
    /// The client's own name, once it is a member.
    name: Option<String>,
    /// The last list of members.
    user_list: Vec<Value>,
    /// The name with which the client tries to resume.
    resumes: Option<String>,
    /// The last answer with a session.
    answer: Option<Value>,
    /// The greatest id that the client has seen.
    last_id: u64,
    /// The ids of messages that were deleted since.
    deleted: HashSet<u64>,
}

impl Transcript {
    /// Adds the next bytes, which may end within a frame.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.unparsed.extend_from_slice(bytes);
        while let Some((opcode, payload, length)) = parse_frame(&self.unparsed) {
            let payload = payload.to_vec();
            self.unparsed.drain(..length);
            self.frame(opcode, &payload);
        }
    }

    /// The client tries to resume with this join.
    pub fn resume(&mut self, join: &Value) {
        self.resumes = join["username"].as_str().map(str::to_owned);
    }

    /// The join with which the client can resume.
    pub fn place(&self) -> Option<Value> {
        let answer = self.answer.as_ref()?;
        Some(json!({
            "type": "join",
            "username": self.name,
            "session": answer["session"],
            "epoch": answer["epoch"],
            "since": self.last_id,
        }))
    }

    pub fn is_member(&self) -> bool {
        self.name.is_some()
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub fn user_list(&self) -> &[Value] {
        &self.user_list
    }

    /// Asserts that no frame is incomplete.
    pub fn assert_complete(&self) {
        assert!(self.unparsed.is_empty(), "an incomplete frame: {:?}", self.unparsed);
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        assert!(!self.is_closed, "a frame after the close frame: {opcode} {payload:?}");
        match opcode {
            1 => self.message(&serde_json::from_slice(payload).expect("a message is JSON")),
            8 => {
                self.is_closed = true;
                assert_ne!(payload.len(), 1, "half a close code");
                if let Some(reason) = payload.get(2..) {
                    std::str::from_utf8(reason).expect("the reason is UTF-8");
                }
            }
            9 | 10 => {}
            _ => panic!("the server never sends opcode {opcode}"),
        }
    }

    fn message(&mut self, message: &Value) {
        assert_eq!(message["timestamp"], TIMESTAMP, "{message}");
        let text = |field: &str| message[field].as_str().unwrap_or_else(|| panic!("no {field} in {message}"));
        let kind = text("type");
        assert!(
            self.is_member() || matches!(kind, "error" | "user_list"),
            "for members only, and it has not joined: {message}"
        );
        if let Some(id) = message["id"].as_u64().filter(|_| !matches!(kind, "history" | "deleted")) {
            // A message follows its own ack.
            assert!(id >= self.last_id, "out of order: {message}");
            self.last_id = id;
        }
        match kind {
            "error" | "system" => {
                if !self.is_member() {
                    self.resumes = None;
                }
                assert_eq!(text("username"), "System");
                assert!(!text("content").is_empty());
            }
            "public" => {
                assert!(!text("content").trim().is_empty());
                check_name(text("username"));
                assert_ne!(Some(text("username")), self.name.as_deref(), "its own message came back");
            }
            "private" => {
                let [from, to] = [text("from"), text("to")];
                check_name(from);
                check_name(to);
                let name = self.name.as_deref();
                assert!(
                    name == Some(from) || name == Some(to),
                    "{name:?} got a message for others: {message}"
                );
                assert!(!text("content").trim().is_empty());
            }
            "user_list" => {
                self.user_list = message["content"].as_array().expect("the list is an array").clone();
                self.check_user_list();
            }
            "ack" => {
                assert!((1..=64).contains(&text("txn_id").chars().count()), "{message}");
                assert!(message["id"].is_u64() && message["time"].is_string(), "{message}");
            }
            "deleted" => {
                self.deleted.insert(message["id"].as_u64().expect("an id"));
            }
            "history" => self.check_history(message),
            "command_list" => assert!(message["content"]["/help"]["usage"].is_string(), "{message}"),
            _ => panic!("an unknown type: {message}"),
        }
    }

    fn check_history(&mut self, answer: &Value) {
        let id = answer["id"].as_u64().expect("the newest id");
        let messages = answer["messages"].as_array().expect("an array");
        assert!(messages.len() <= 200 && answer["more"].is_boolean() && answer["epoch"].is_string());
        let ids: Vec<u64> = messages.iter().map(|message| message["id"].as_u64().expect("an id")).collect();
        assert!(ids.is_sorted_by(|a, b| a < b) && ids.iter().all(|&other| other < id), "{ids:?}");
        assert!(ids.iter().all(|id| !self.deleted.contains(id)), "a deleted message came back: {answer}");
        for message in messages.iter().filter(|message| message["type"] == "private") {
            let names = [&message["from"], &message["to"]].map(|name| name.as_str().expect("a name"));
            assert!(names.contains(&self.name.as_deref().expect("a member")), "for others: {message}");
        }
        self.last_id = id;
        if answer["session"].is_string() {
            self.answer = Some(answer.clone());
        }
    }

    fn check_user_list(&mut self) {
        let names: Vec<&str> =
            self.user_list.iter().map(|user| user["username"].as_str().expect("a name")).collect();
        names.iter().for_each(|name| check_name(name));
        let unique: HashSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        assert_eq!(unique.len(), names.len(), "two members with one name: {names:?}");
        // The first list comes with the join, and members are listed in order of joining.
        let own = |name: &str| self.resumes.as_deref().filter(|resumed| *resumed == name);
        let name = names.iter().find_map(|&name| own(name)).or(names.last().copied()).map(str::to_owned);
        let name = self.name.get_or_insert_with(|| name.expect("a new member is in its own list"));
        assert!(names.contains(&name.as_str()), "{name} is not in its own list: {names:?}");
        for flag in ["is_mod", "is_timed_out"] {
            assert!(self.user_list.iter().all(|user| user[flag].is_boolean()), "{:?}", self.user_list);
        }
    }
}

fn check_name(name: &str) {
    assert!((1..=MAX_NAME_CHARS).contains(&name.chars().count()), "{name:?} is too long or too short");
    assert!(!name.chars().any(char::is_control) && name.trim() == name, "{name:?}");
    assert_ne!(name.to_lowercase(), "system");
}

/// The opcode and the payload of the first frame, and its length; `None`: it is incomplete.
fn parse_frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let opcode = first & 0x0F;
    assert_eq!(first & 0xF0, 0x80, "an incomplete message, or reserved bits");
    assert!(second & 0x80 == 0, "the server masks a frame");
    let (length, header) = match second {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
        length => (usize::from(length), 2),
    };
    let least = [0, 126, 65536][[2, 4, 10].iter().position(|&size| size == header)?];
    assert!(length >= least, "a length of {length} in a header of {header} bytes");
    assert!(opcode < 8 || length <= MAX_CONTROL, "a control frame of {length} bytes");
    Some((opcode, bytes.get(header..header + length)?, header + length))
}
