//! What one client does, and what it has received.

use std::io;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::order::{Line, Track};
use crate::random::Random;
use crate::support::connection::Connection;
use crate::support::frames::{self, FIN, MASK, PING, TEXT};

/// What a slow reader reads at once, in bytes, and how often: some 400 KiB/s.
const SLOW_READ_BYTES: usize = 8 * 1024;
const SLOW_READ_INTERVAL: Duration = Duration::from_millis(20);
/// How many times a member reads at most before it is the next member's turn.
const MAX_READS: usize = 64;
/// How long a stall may last without the server cutting the client off, in milliseconds (`PING_INTERVAL`).
const MAX_STALL: usize = 6000;
/// Longer than the server tolerates (`PING_INTERVAL`, or 30 s without accepting anything).
const ENDLESS_STALL: Duration = Duration::from_secs(45);
/// Over `MAX_MESSAGE_BYTES`.
const TOO_LONG: usize = 20_000;

const INVALID: [&str; 6] =
    ["", "{", "[1,2]", r#"{"type":7}"#, r#"{"type":"dance"}"#, r#"{"type":"public","content":null}"#];

pub struct Member {
    pub connection: Connection,
    pub track: Track,
    pub name: String,
    /// Another membership has another number.
    pub id: u64,
    pub joined: bool,
    /// How many public messages it has sent.
    pub sent: u64,
    is_slow: bool,
    next_read: Instant,
    pub stalled_until: Option<Instant>,
    /// Whether the server may end this connection.
    pub may_end: bool,
    /// How it ends its connection. It sends nothing after that.
    pub closing: Option<Action>,
    /// When to try again to join, because the name was taken.
    pub retry_join: Option<Instant>,
}

/// What a client receives, as far as it matters here.
pub enum Received {
    Line(Line),
    /// The number of a whisper.
    Whisper(u64),
    Error,
    List(Vec<String>),
}

/// What a member does next.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Public,
    Fragmented,
    Whisper,
    Help,
    Invalid,
    Ping,
    Stall,
    StallUntilCutOff,
    Reset,
    Close,
    HalfClose,
    GarbageFrame,
    TooLong,
}

impl Action {
    pub fn random(random: &mut Random) -> Self {
        match random.below(1000) {
            0..700 => Self::Public,
            700..800 => Self::Whisper,
            800..820 => Self::Help,
            820..840 => Self::Invalid,
            840..860 => Self::Ping,
            860..890 => Self::Fragmented,
            890..930 => Self::Stall,
            930..935 => Self::StallUntilCutOff,
            935..955 => Self::Reset,
            955..970 => Self::Close,
            970..980 => Self::HalfClose,
            980..990 => Self::GarbageFrame,
            _ => Self::TooLong,
        }
    }
}

impl Member {
    pub fn new(connection: Connection, name: &str, id: u64, joins_before: usize, is_slow: bool) -> Self {
        let mut member = Self {
            connection,
            track: Track::new(name, joins_before),
            name: name.into(),
            id,
            joined: false,
            sent: 0,
            is_slow,
            next_read: Instant::now(),
            stalled_until: None,
            may_end: false,
            closing: None,
            retry_join: None,
        };
        member.join();
        member
    }

    pub fn join(&mut self) {
        self.connection.queue_text(&format!(r#"{{"type":"join","username":"{}"}}"#, self.name));
    }

    /// Sends what waits, and reads unless it is stalled.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn exchange(&mut self, now: Instant, buffer: &mut [u8]) -> io::Result<Vec<Received>> {
        let mut received = Vec::new();
        self.connection.flush()?;
        if self.stalled_until.is_some_and(|until| now < until) || now < self.next_read {
            return Ok(received);
        }
        self.stalled_until = None;
        let (size, reads) = if self.is_slow { (SLOW_READ_BYTES, 1) } else { (buffer.len(), MAX_READS) };
        if self.is_slow {
            self.next_read = now + SLOW_READ_INTERVAL;
        }
        let mut end = Ok(());
        for _ in 0..reads {
            match self.connection.receive(&mut buffer[..size]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    end = Err(error);
                    break;
                }
            }
        }
        let mut unknown = None;
        self.connection.messages(|opcode, message| {
            if opcode == TEXT {
                match parse(message, false) {
                    Ok(Some(message)) => received.push(message),
                    Ok(None) => {}
                    Err(error) => unknown = Some(error),
                }
            }
        })?;
        match (unknown, end) {
            (Some(error), _) => Err(io::Error::other(error)),
            // What arrived with the end is handled first; the next read returns the error again.
            (None, Err(error)) if received.is_empty() => Err(error),
            (None, _) => Ok(received),
        }
    }

    pub fn public(&mut self, random: &mut Random, fragmented: bool) {
        let length = if random.below(20) == 0 { random.below(8000) } else { random.below(200) };
        let (number, padding) = (self.sent, "x".repeat(length));
        let text = format!(r#"{{"type":"public","content":"{number} {padding}"}}"#);
        self.sent += 1;
        if !fragmented {
            return self.connection.queue_text(&text);
        }
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        self.connection.queue(&frames::frame_of(TEXT, first, Some(MASK)));
        self.ping(random);
        self.connection.queue(&frames::frame_of(frames::CONTINUATION, b"", Some(MASK)));
        self.connection.queue(&frames::frame_of(FIN | frames::CONTINUATION, second, Some(MASK)));
    }

    pub fn command(&mut self, text: &str) {
        self.connection.queue_text(&format!(r#"{{"type":"command","content":"{text}"}}"#));
    }

    pub fn invalid(&mut self, random: &mut Random) {
        self.connection.queue_text(INVALID[random.below(INVALID.len())]);
    }

    pub fn ping(&mut self, random: &mut Random) {
        let payload = random.bytes(8);
        self.connection.queue(&frames::frame_of(FIN | PING, &payload, Some(MASK)));
    }

    pub fn stall(&mut self, random: &mut Random) {
        self.stalled_until = Some(Instant::now() + Duration::from_millis(random.below(MAX_STALL) as u64));
    }

    pub fn stall_until_cut_off(&mut self) {
        self.stalled_until = Some(Instant::now() + ENDLESS_STALL);
        self.may_end = true;
    }

    /// After this, the server may end the connection, once it has handled everything before.
    pub fn close(&mut self, how: Action, random: &mut Random) {
        (self.may_end, self.closing) = (true, Some(how));
        match how {
            Action::GarbageFrame => {
                let payload = random.bytes(40);
                // Reserved bits, a reserved opcode, a fragmented ping, and a frame without a mask.
                let (first, mask) =
                    [(0xF1, Some(MASK)), (0x83, Some(MASK)), (PING, Some(MASK)), (FIN | TEXT, None)]
                        [random.below(4)];
                self.connection.queue(&frames::frame_of(first, &payload, mask));
            }
            Action::TooLong => self.connection.queue_text(&"x".repeat(TOO_LONG)),
            Action::HalfClose => self.connection.half_close(),
            _ => self.connection.queue_close(),
        }
    }
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    username: Option<String>,
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    List(Vec<User>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct User {
    username: String,
}

/// A message from the server; `None`: one that does not matter here.
pub fn parse(message: &[u8], with_lists: bool) -> Result<Option<Received>, String> {
    if !with_lists && message.starts_with(br#"{"type":"user_list""#) {
        return Ok(None);
    }
    let invalid = || format!("an unexpected message: {}", String::from_utf8_lossy(message));
    let message: Message = serde_json::from_slice(message).map_err(|_| invalid())?;
    let received = match (message.kind.as_str(), message.content, message.username) {
        ("public", Content::Text(content), Some(from)) => {
            let number = content.split(' ').next().and_then(|number| number.parse().ok());
            Received::Line(Line::Public { from, number: number.ok_or_else(invalid)? })
        }
        ("private", Content::Text(content), _) => {
            let number = content.strip_prefix('w').and_then(|number| number.parse().ok());
            Received::Whisper(number.ok_or_else(invalid)?)
        }
        ("system", Content::Text(content), _) => match content.rsplit_once(' ') {
            Some((name, "joined.")) => Received::Line(Line::Joined(name.into())),
            Some((name, "left.")) => Received::Line(Line::Left(name.into())),
            _ => return Ok(None),
        },
        ("error", Content::Text(_), _) => Received::Error,
        ("user_list", Content::List(users), _) => {
            Received::List(users.into_iter().map(|user| user.username).collect())
        }
        ("command_list", Content::Other(_), _) => return Ok(None),
        _ => return Err(invalid()),
    };
    Ok(Some(received))
}
