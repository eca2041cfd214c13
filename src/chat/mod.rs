//! The chat's rules, as pure code: inputs in, effects out, without I/O, threads or a clock.

mod command;
mod entry;
mod fields;
mod history;
mod list_budget;
mod marks;
mod name_key;
mod name_map;
mod password;
mod password_throttle;
mod protocol;
mod reserved;
mod away;
mod room;
mod roster;
#[cfg(test)]
mod simulation;
mod target;
mod time_outs;
mod user_list;
mod username;

pub use away::AwayLimits;
pub use entry::{Address, ConnectionId, ConnectionMap, Departure, Entry, EntryTime, Input, SessionSecret};
pub use history::HistoryLimits;
pub use list_budget::JoinPace;
#[cfg(test)]
pub use list_budget::ListBudget;
pub use name_key::NameKey;
pub use password::ModPassword;
#[cfg(test)]
pub use protocol::HistoryAnswer;
pub use protocol::{Body, ClientMessage, MessageError, ServerMessage};
pub use room::{Audience, Effect, Room, RoomSettings};
