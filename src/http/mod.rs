//! HTTP on the chat's port: the upgrade to WebSocket, the chat page, and monitoring.

mod forwarded;
mod origin;
mod page;
mod rejection;
mod request;
mod response;
mod router;
mod monitoring;
mod upgrade;

pub use forwarded::{ClientAddress, TrustedProxies};
pub use monitoring::{ClusterSource, HEALTH_HEADER, Monitoring};
pub use rejection::Rejection;
pub use request::{MAX_HEAD_BYTES, parse};
pub use response::{Response, close_after, encode, is_last};
pub use router::{Route, Router};
