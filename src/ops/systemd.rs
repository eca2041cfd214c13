//! Notifies systemd (sd_notify(3)). Without systemd, these functions do nothing.

use std::time::Duration;

use log::debug;
use sd_notify::NotifyState;

/// Reports that clients can connect, or that a reload is complete.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// How much longer [`extend_start_timeout`] lets the start take, at least. Longer than the `TimeoutStartSec` that
/// systemd has by default.
pub const START_TIMEOUT_EXTENSION: Duration = Duration::from_secs(120);

/// Reports that the start takes longer: without [`ready`] or another call within [`START_TIMEOUT_EXTENSION`], systemd
/// stops the server.
#[allow(dead_code, reason = "only with the feature cluster")]
pub fn extend_start_timeout() {
    let micros = START_TIMEOUT_EXTENSION.as_micros().try_into().unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Reports that the certificate is being reloaded. Call [`ready`] afterwards.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Reports that the hub is healthy. Without this for a watchdog timeout, systemd restarts the server.
pub fn watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// How often to call [`watchdog`]: twice per watchdog timeout. `None` if the service has no watchdog.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!("systemd was not notified: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of microseconds has 32 bits.
    #[test]
    fn systemd_is_asked_for_all_of_the_time() {
        let micros = u32::try_from(START_TIMEOUT_EXTENSION.as_micros()).unwrap();
        let state = NotifyState::ExtendTimeoutUsec(micros);
        assert_eq!(state.to_string(), "EXTEND_TIMEOUT_USEC=120000000");
    }
}
