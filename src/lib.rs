//! TinyChat: a JSON chat room over WebSocket, for small self-hosted installs.
//!
//! The modules stand here as the rooms of a house: each imports only from those below it.

#![forbid(unsafe_code)]

pub mod check;
pub mod server;

mod admission;
mod certificate;
mod clock;
mod connection;
mod env_file;
mod forwarded;
mod http;
mod hub;
mod keep_alive;
mod link;
pub mod logging;
mod protocol;
mod rate;
mod room;
pub mod self_signed;
pub mod settings;
mod stream;
mod tape;
mod tls;
