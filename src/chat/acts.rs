//! What moderators do, and the bans and time-outs that follow from it. What they may do is in `room_moderation`.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::entry::ConnectionId;
use super::protocol::TxnId;
use super::username::Username;
use crate::limits::Network;

/// A change that must be stored before anyone is told of it. The hub has it stored, and passes it back to the room as
/// an entry of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    pub act: Act,
    /// Who is told the result.
    pub connection: ConnectionId,
    pub txn_id: Option<TxnId>,
}

/// What became of a decision in the store.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is stored, and survives a power cut; or nothing is stored, because `DATABASE_PATH` is `off`.
    Stored,
    /// There is no such message.
    NotFound,
    /// The disk has failed, or has not answered in time. The decision takes effect until the next restart. A message to
    /// be deleted is in memory, or may be in the store.
    NotStored,
}

/// An act of moderation, as it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// The wall clock, in milliseconds since 1970.
    pub unix_millis: u64,
    /// The moderator's name.
    pub by: Arc<str>,
    /// The moderator's address.
    pub address: Network,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// `/login` with the right password.
    Login,
    /// `until`: in milliseconds since 1970.
    TimeOut {
        name: Username,
        until: u64,
    },
    EndTimeOut {
        name: Username,
    },
    Kick {
        name: Username,
        reason: String,
    },
    Ban {
        ban: Ban,
    },
    /// `target`: as the moderator wrote it. `bans`: their ids.
    Unban {
        target: String,
        bans: Vec<u64>,
    },
    /// `is_own`: by its author, which is not recorded.
    Delete {
        id: u64,
        is_own: bool,
    },
}

/// A ban of a name, a network or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// The id of the entry that asked for it.
    pub id: u64,
    pub name: Option<Username>,
    /// An IPv4 network, or an IPv6 network of /64 or wider. Never IPv4-mapped.
    #[serde(with = "super::format::optional_text")]
    pub network: Option<IpNet>,
    /// The moderator's name.
    pub by: Arc<str>,
    /// When it was set, in milliseconds since 1970.
    pub since: u64,
    /// `None`: it never ends.
    pub until: Option<u64>,
    /// Empty: none was given.
    pub reason: String,
}

/// A time-out, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTimeOut {
    pub name: Username,
    /// In milliseconds since 1970.
    pub until: u64,
}
