//! How the server is operated: log, metrics, systemd, wall clock. See docs/operations.md.

pub mod clock;
mod log_format;
pub mod logging;
pub mod metrics;
pub mod random;
pub mod systemd;

pub use log_format::{Escaped, is_escaped};
