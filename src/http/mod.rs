//! HTTP on the chat's port: the upgrade to WebSocket, the chat page, and monitoring.

mod forwarded;
pub mod page;
mod request;
mod status;

pub use forwarded::client_address;
pub use request::{Answer, asks_for_websocket, lines, parse, upgrade};
pub use status::Eyes;
