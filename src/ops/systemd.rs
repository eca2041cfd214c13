//! Notifies systemd (sd_notify(3)). Without systemd, these functions do nothing.

use std::time::Duration;

use log::debug;
use sd_notify::NotifyState;

/// Reports that clients can connect, or that a reload is complete.
pub fn ready() {
    notify(&[NotifyState::Ready]);
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
