//! Limits on clients: how many connections there may be, and how fast each may send.

mod client_network;
mod permits;
mod rate_limit;

pub use client_network::Network;
pub use permits::{LimitExceeded, Permit, Permits};
pub use rate_limit::RateLimit;
