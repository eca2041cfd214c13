//! What clients may use of the server: how many connections, and how fast they may connect, join and send.

mod client_network;
mod meter;
mod network_quota;
mod permits;
mod rates;
mod token_bucket;

pub use client_network::Network;
pub use meter::Meter;
pub use permits::{LimitExceeded, Permit, Permits};
pub use rates::{Rates, SendLimit};
