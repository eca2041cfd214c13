//! What whoever runs the server sees of it: the log, the metrics, systemd; and the wall clock.

pub mod clock;
pub mod logging;
pub mod metrics;
pub mod systemd;
