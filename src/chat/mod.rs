//! The chat, pure: no I/O, no threads, no clock. It is given one input after the other and says what follows.

mod command;
mod list_budget;
mod password;
mod password_throttle;
mod protocol;
mod room;
mod roster;
mod timeout;
mod username;

pub use password::ModPassword;
pub use protocol::{Body, ClientMessage, Fault, ServerMessage};
pub use room::{Audience, ConnectionId, Effect, Input, Room};
