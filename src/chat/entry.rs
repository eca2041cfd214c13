//! Entries: what connections cause, in order.
//!
//! The hub numbers entries, and the room applies them in that order. Nothing else changes the room. Clock readings and
//! random values come with an entry.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::{Access, NamedModerator};
use super::acts::{Decision, Outcome};
use super::format::is_default;
use super::history::{HistoryEntry, OlderPage, Place};
use super::protocol::{ClientMessage, MessageError, TxnId};
use super::session::SessionDigest;
use crate::limits::Network;

/// A server of the chat, from its start to its end. No number is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct NodeNumber(u32);

impl TryFrom<u32> for NodeNumber {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("the number of a server is too great")
    }
}

impl From<NodeNumber> for u32 {
    fn from(node: NodeNumber) -> Self {
        node.0
    }
}

impl From<NodeNumber> for u64 {
    fn from(node: NodeNumber) -> Self {
        node.0.into()
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl NodeNumber {
    /// A server that runs by itself, to which all connections belong.
    pub const LOCAL: Self = Self(0);
    /// The greatest number.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
    pub const MAX: u32 = (1 << 24) - 1;

    /// `None`: the number is greater than [`Self::MAX`].
    #[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// Whether a connection belongs to this server.
    pub fn has(self, connection: ConnectionId) -> bool {
        self == Self::LOCAL || connection.node() == self
    }
}

/// A connection. No id is used twice, and a later connection of the same server has a greater one.
///
/// The upper 24 bits are the server's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionId(pub u64);

/// A map that is faster than one with the default hasher, which takes a third of the hub's own time in a burst.
pub type ConnectionMap<V> = HashMap<ConnectionId, V, BuildHasherDefault<ConnectionHasher>>;

/// Hashes the id of a connection. Servers count their connections, so a client cannot choose ids that collide.
#[derive(Default)]
pub struct ConnectionHasher(u64);

impl Hasher for ConnectionHasher {
    fn write_u64(&mut self, id: u64) {
        // Equal numbers of different servers differ in their low bits as well.
        let server = id >> ConnectionId::NUMBER_BITS;
        let number = id.wrapping_add(server.wrapping_mul(0x9E37_79B9));
        // 2^64 divided by the golden ratio: consecutive ids differ in their high and low bits.
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is hashed as one integer");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl ConnectionId {
    /// No connection: for entries that a server itself causes.
    pub const SERVER: Self = Self(0);
    /// Bits of the number that a server gives a connection: enough for 35,000 connections per second for a year.
    const NUMBER_BITS: u32 = 40;

    /// `number`: counts the server's connections from 1.
    pub fn new(node: NodeNumber, number: u64) -> Self {
        Self(u64::from(node.0) << Self::NUMBER_BITS | number & ((1 << Self::NUMBER_BITS) - 1))
    }

    /// Counts the connections of its server.
    pub fn number(self) -> u64 {
        self.0 & ((1 << Self::NUMBER_BITS) - 1)
    }

    /// The server that it belongs to.
    pub fn node(self) -> NodeNumber {
        NodeNumber((self.0 >> Self::NUMBER_BITS) as u32)
    }

    /// Whether it was opened after another one. The times are needed only for connections of different servers.
    pub fn is_newer(self, opened: ChatTime, other: Self, other_opened: ChatTime) -> bool {
        if self.node() == other.node() { self > other } else { opened > other_opened }
    }
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
    /// Local time of the server that the entry comes from, `HH:MM:SS`.
    pub timestamp: String,
    /// RFC 3339 in UTC, with milliseconds.
    pub utc: String,
}

/// The chat's own time, in milliseconds. It never goes back, and does not jump with the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatTime(pub u64);

impl ChatTime {
    /// The time since `then`. Zero if `then` is later.
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

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// `access`: what the passwords of the message have shown. `session`: a new one, for a client that asks to be able
    /// to resume. `guest`: of a connection that has not joined, as far as its server knows.
    #[serde(rename = "m")]
    Message {
        #[serde(rename = "m")]
        message: Result<ClientMessage, MessageError>,
        #[serde(rename = "a", default, skip_serializing_if = "is_default")]
        access: Access,
        #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionDigest>,
        #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
        guest: Option<Box<Guest>>,
    },
    /// From a connection that has sent a message.
    Disconnected(Departure),
    /// The store's answer to [`Effect::ReadOlder`](super::room::Effect::ReadOlder). It concerns only the server that
    /// has asked.
    #[serde(skip)]
    Older(Box<OlderRequest>, Result<OlderMessages, StoreUnavailable>),
    /// What became of a decision, which now takes effect. From the connection that asked for it.
    Decided(Box<Decision>, Outcome),
    /// The named moderators have changed: these are all of them. From [`ConnectionId::SERVER`].
    Moderators(Vec<NamedModerator>),
    /// Time has passed, and nothing else has happened. From [`ConnectionId::SERVER`].
    Tick,
    /// A server has ended, and all of its connections are lost. From [`ConnectionId::SERVER`].
    #[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
    NodeDown(NodeNumber),
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    pub network: Network,
    /// Whether limits per address do not apply to it.
    pub is_exempt: bool,
}

/// A connection that has not joined.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    pub address: Address,
    /// When it was opened.
    pub opened: ChatTime,
    /// Whether it may join only by resuming, because it has not waited for its turn.
    pub only_resumes: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Departure {
    /// The client closed it with code 1000.
    Left,
    /// In any other way. The client may resume if it asked in its join.
    Lost,
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    fn id(node: u32, number: u64) -> ConnectionId {
        ConnectionId::new(NodeNumber::new(node).unwrap(), number)
    }

    #[test]
    fn an_id_contains_the_number_of_its_server() {
        let greatest = (1 << ConnectionId::NUMBER_BITS) - 1;
        for (node, number) in [(0, 1), (1, 1), (7, greatest), (NodeNumber::MAX, greatest)] {
            let id = id(node, number);
            assert_eq!(id.node(), NodeNumber(node));
            assert_eq!(id.0 & greatest, number);
        }
        assert_eq!(ConnectionId::new(NodeNumber::LOCAL, 7), ConnectionId(7));
        assert_eq!(NodeNumber::new(NodeNumber::MAX + 1), None);
        assert!(NodeNumber::LOCAL.has(id(3, 1)) && NodeNumber(3).has(id(3, 1)));
        assert!(!NodeNumber(3).has(id(4, 1)) && !NodeNumber(3).has(ConnectionId::SERVER));
    }

    #[test]
    fn which_connection_is_newer() {
        let [early, late] = [1000, 2000].map(ChatTime);
        for (one, opened, other, other_opened, expected) in [
            (id(1, 2), early, id(1, 1), late, true),
            (id(1, 1), late, id(1, 2), early, false),
            (id(1, 9), early, id(2, 1), late, false),
            (id(1, 1), late, id(2, 9), early, true),
            (id(1, 1), early, id(2, 1), early, false),
            (id(2, 1), early, id(1, 1), early, false),
        ] {
            assert_eq!(one.is_newer(opened, other, other_opened), expected, "{one:?} {other:?}");
        }
    }

    /// The numbers of each server's connections start with 1.
    #[test]
    fn connections_of_different_servers_do_not_collide() {
        const BUCKETS: u64 = 4096;
        let hasher = BuildHasherDefault::<ConnectionHasher>::default();
        let mut buckets = vec![0; BUCKETS as usize];
        for (node, number) in (1..4).flat_map(|node| (1..=1000).map(move |number| (node, number))) {
            buckets[(hasher.hash_one(id(node, number)) % BUCKETS) as usize] += 1;
        }
        assert!(*buckets.iter().max().unwrap() <= 6, "{:?}", buckets.iter().max());
        assert!(buckets.iter().filter(|&&ids| ids > 0).count() > 1900);
    }
}
