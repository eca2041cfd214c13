//! What clients may use of the server: how many connections, how fast they may connect, join and send, and how much
//! of the log.

mod client_log;
mod client_network;
mod log_limit;
mod meter;
mod network_quota;
mod password_throttle;
mod permits;
mod rates;
mod token_bucket;

pub use client_log::ClientLog;
pub use client_network::Network;
pub use log_limit::REPORT_INTERVAL;
pub use meter::Meter;
pub use password_throttle::PasswordThrottle;
pub use permits::{LimitExceeded, Permit, Permits};
pub use rates::{Rates, SendLimit};
