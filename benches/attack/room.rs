//! Members that only listen.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::{Connection, Options};
use crate::support::frames::TEXT;
use crate::support::poll::Poll;

const READ_BYTES: usize = 256 * 1024;
/// Waiting longer than this for members to join is an error.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Members that read everything at once.
pub struct Room {
    poll: Poll,
    members: Vec<Connection>,
    buffer: Vec<u8>,
}

pub fn join(name: &str) -> String {
    format!(r#"{{"type":"join","username":"{name}"}}"#)
}

/// Whether a message from the server is of this type, which is its first field.
pub fn is_type(message: &[u8], kind: &str) -> bool {
    message.strip_prefix(br#"{"type":""#).is_some_and(|rest| rest.starts_with(kind.as_bytes()))
}

/// The content of a `system` line. The names in it need no escapes.
pub fn system_line(message: &[u8]) -> Option<&str> {
    let rest = message.strip_prefix(br#"{"type":"system","username":"System","content":""#)?;
    let end = rest.iter().position(|&byte| byte == b'"')?;
    str::from_utf8(&rest[..end]).ok()
}

/// The list that a new member gets.
pub fn list(server: &Child, address: &str) -> Result<String> {
    let options = Options { forwarded_for: Some(address), ..Options::default() };
    let mut connection = Connection::open(server, options)?;
    connection.queue_text(&join("observer"));
    let mut buffer = vec![0; READ_BYTES];
    let mut list = None;
    let deadline = Instant::now() + JOIN_TIMEOUT;
    while Instant::now() < deadline {
        connection.flush()?;
        connection.receive(&mut buffer)?;
        connection.messages(|_, message| {
            if is_type(message, "user_list") {
                list = Some(String::from_utf8_lossy(message).into_owned());
            }
        })?;
        match list {
            Some(list) => return Ok(list),
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
    Err("a new member got no list in time".into())
}

impl Room {
    /// Members with these names that have joined.
    pub fn join(server: &Child, names: &[String], options: Options) -> Result<Self> {
        let poll = Poll::new()?;
        let mut members = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let mut member = Connection::open(server, options)?;
            member.queue_text(&join(name));
            poll.add(&member, number)?;
            members.push(member);
        }
        let mut room = Self { poll, members, buffer: vec![0; READ_BYTES] };
        // Every member gets its own list first.
        let mut has_joined = vec![false; names.len()];
        let deadline = Instant::now() + JOIN_TIMEOUT;
        while has_joined.contains(&false) {
            if Instant::now() > deadline {
                return Err("members did not join in time".into());
            }
            room.receive(Duration::from_millis(10), |number, message| {
                has_joined[number] |= is_type(message, "user_list");
            })?;
        }
        Ok(room)
    }

    /// Sends what waits, and handles what arrives within this time, with the number of its member.
    pub fn receive(&mut self, timeout: Duration, mut handle: impl FnMut(usize, &[u8])) -> Result<()> {
        for member in &mut self.members {
            member.flush()?;
        }
        for number in self.poll.ready(timeout)? {
            let member = &mut self.members[number];
            let disconnected = |error: io::Error| format!("member {number} was disconnected: {error}");
            member.receive(&mut self.buffer).map_err(disconnected)?;
            member.messages(|opcode, message| {
                if opcode == TEXT {
                    handle(number, message);
                }
            })?;
        }
        Ok(())
    }

    /// Receives until nothing has arrived for the time `quiet`.
    pub fn drain(&mut self, quiet: Duration) -> Result<()> {
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            self.receive(Duration::from_millis(10), |_, _| last = Instant::now())?;
        }
        Ok(())
    }

    pub fn member(&mut self, number: usize) -> &mut Connection {
        &mut self.members[number]
    }
}
