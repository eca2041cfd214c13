//! The chat, pure: no I/O, no threads, no clock. It takes one input after the other and returns effects.

mod command;
mod list_budget;
mod password;
mod password_throttle;
mod protocol;
mod room;
mod roster;
mod time_outs;
mod user_list;
mod username;

pub use password::ModPassword;
pub use protocol::{Body, ClientMessage, MessageError, ServerMessage};
pub use room::{Audience, ConnectionId, Effect, Input, Room};
