//! The chat's rules, as pure code: inputs in, effects out, without I/O, threads or a clock.

mod command;
mod list_budget;
mod marks;
mod name_key;
mod name_map;
mod password;
mod password_throttle;
mod protocol;
mod reserved;
mod room;
mod roster;
mod target;
mod time_outs;
mod user_list;
mod username;

pub use list_budget::JoinPace;
#[cfg(test)]
pub use list_budget::ListBudget;
pub use password::ModPassword;
pub use protocol::{Body, ClientMessage, MessageError, ServerMessage};
pub use room::{Audience, ConnectionId, Effect, Input, Room};
