//! Entries: what connections cause, in order.
//!
//! The hub numbers entries, and the room applies them in that order. Nothing else changes the room. Clock readings and
//! random values come with an entry.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Add;
use std::time::Duration;

use super::access::Access;
use super::acts::{Decision, Outcome};
use super::history::{HistoryEntry, OlderPage, Place};
use super::protocol::{ClientMessage, MessageError, TxnId};
use super::session::SessionDigest;
use super::username::Username;
use crate::limits::Network;

/// A connection. No id is used twice while the server runs, and a later connection has a greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A map that is faster than one with the default hasher, which takes a third of the hub's own time in a burst.
pub type ConnectionMap<V> = HashMap<ConnectionId, V, BuildHasherDefault<ConnectionHasher>>;

/// Hashes the id of a connection. The server counts ids, so a client cannot choose ones that collide.
#[derive(Default)]
pub struct ConnectionHasher(u64);

impl Hasher for ConnectionHasher {
    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio: consecutive ids differ in their high and low bits.
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is hashed as one integer");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl ConnectionId {
    /// The server itself. The connections of clients count from 1.
    pub const SERVER: Self = Self(0);
}

/// An event on a connection, at its position in the order.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Greater than that of the entry before, and less than 2^53, so that it is exact in JavaScript.
    pub id: u64,
    pub time: &'a EntryTime,
    pub from: ConnectionId,
    pub input: Input,
}

/// When an entry was made.
#[derive(Clone, Debug)]
pub struct EntryTime {
    /// For deadlines.
    pub chat: ChatTime,
    /// The wall clock, in milliseconds since 1970.
    pub unix_millis: u64,
    /// Local time, `HH:MM:SS`.
    pub timestamp: String,
    /// RFC 3339 in UTC, with milliseconds.
    pub utc: String,
}

/// The chat's own time, in milliseconds. It never goes back, and does not jump with the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChatTime(pub u64);

impl ChatTime {
    /// How long it is from then until now. Zero if `then` is later.
    pub fn saturating_since(self, then: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(then.0))
    }
}

impl Add<Duration> for ChatTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

#[derive(Clone, Debug)]
pub enum Input {
    /// Opened. It is a guest until it joins.
    Connected(Address),
    /// `access`: what the passwords of the message have shown. `session`: a new one, for a client that asks to be able
    /// to resume.
    Message {
        message: Result<ClientMessage, MessageError>,
        access: Access,
        session: Option<SessionDigest>,
    },
    Disconnected(Departure),
    /// The store's answer to [`Effect::ReadOlder`](super::room::Effect::ReadOlder).
    Older(Box<OlderRequest>, Result<OlderMessages, StoreUnavailable>),
    /// What became of a decision, which now takes effect. From the connection that asked for it.
    Decided(Box<Decision>, Outcome),
    /// The named moderators have changed: these are all of them. From [`ConnectionId::SERVER`].
    Moderators(Vec<Username>),
    /// Time has passed, and nothing else has happened. From [`ConnectionId::SERVER`].
    Tick,
}

/// A member's request for messages that only the store has.
#[derive(Clone, Debug, PartialEq)]
pub struct OlderRequest {
    pub viewer: Place,
    pub txn_id: Option<TxnId>,
    pub page: OlderPage,
}

/// The newest messages for an [`OlderPage`].
#[derive(Clone, Debug)]
pub struct OlderMessages {
    /// The newest first.
    pub entries: Vec<HistoryEntry>,
    /// Whether the store has more.
    pub more: bool,
}

/// The store cannot be read, or too many requests wait for it.
#[derive(Clone, Copy, Debug)]
pub struct StoreUnavailable;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Address {
    pub network: Network,
    /// Whether limits per address do not apply to it.
    pub is_exempt: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Departure {
    /// The client closed it with code 1000.
    Left,
    /// In any other way. The client may resume if it asked in its join.
    Lost,
}
