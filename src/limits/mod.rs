//! What clients may use of the server: how many connections, how fast they may send, and how much of the log.

mod client_log;
mod client_network;
mod log_limit;
mod permits;
mod rate_limit;

pub use client_log::ClientLog;
pub use client_network::Network;
pub use permits::{LimitExceeded, Permit, Permits};
pub use rate_limit::RateLimit;
