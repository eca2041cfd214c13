//! HTTP on the chat's port: the upgrade to WebSocket, the chat page, and monitoring.

mod forwarded;
mod page;
mod rejection;
mod request;
mod response;
mod router;
mod status;
mod upgrade;

pub use forwarded::{ClientAddress, TrustedProxies};
pub use rejection::Rejection;
pub use request::parse;
pub use response::{Response, encode};
pub use router::{Route, Router};
pub use status::Monitoring;
