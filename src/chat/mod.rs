//! The chat's rules, as pure code: inputs in, effects out, without I/O, threads or a clock.

mod access;
mod acts;
mod ban_target;
mod bans;
mod command;
mod duration;
mod entry;
mod fields;
#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
mod format;
mod guests;
mod history;
mod list_budget;
mod marks;
mod name_key;
mod name_map;
mod protocol;
mod reserved;
mod away;
mod room;
mod roster;
mod session;
#[cfg(test)]
mod simulation;
mod target;
mod time_outs;
mod user_list;
mod username;

pub use access::{Access, Attempt, Attempts, NamedModerator, Verdict};
pub use acts::{Act, Action, Ban, Decision, Outcome, StoredTimeOut};
pub use away::AwayLimits;
pub use bans::Bans;
pub use entry::{
    Address, ChatTime, ConnectionId, ConnectionMap, Departure, Entry, EntryTime, Input, NodeNumber,
    OlderMessages, OlderRequest, StoreUnavailable,
};
#[cfg(feature = "cluster")]
pub use format::FormatError;
#[cfg(any(feature = "cluster", fuzzing, test))]
pub use format::{Format, Submission};
pub use guests::Guests;
pub use history::{Deletion, HistoryEntry, HistoryLimits, MAX_DELETIONS, StoredHistory, Visibility};
pub use list_budget::JoinPace;
#[cfg(test)]
pub use list_budget::ListBudget;
pub use name_key::NameKey;
pub use name_map::NameMap;
#[cfg(test)]
pub use protocol::HistoryAnswer;
pub use protocol::{Body, ClientMessage, KeptMessage, MessageError, ServerMessage, TxnId};
#[cfg(any(feature = "cluster", fuzzing, test))]
pub(crate) use room::Snapshot;
pub use room::{Audience, Effect, KeptEntry, PastEpoch, Room, RoomSettings, guest_error};
pub use session::{JoinSecrets, SessionDigest, SessionSecret};
#[cfg(all(test, feature = "cluster"))]
pub use simulation::{Random, simulate_seeds};
pub use time_outs::whole_seconds;
pub use user_list::UserLists;
pub use username::Username;
