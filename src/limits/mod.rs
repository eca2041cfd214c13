//! What clients may use of the server: how many connections, and how fast they may send.

mod client_network;
mod permits;
mod rate_limit;

pub use client_network::Network;
pub use permits::{LimitExceeded, Permit, Permits};
pub use rate_limit::RateLimit;
