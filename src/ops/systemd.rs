//! What systemd is told (sd_notify(3)); without systemd nothing is.

use std::time::Duration;

use log::debug;
use sd_notify::NotifyState;

/// Clients can connect.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The certificate is being loaded anew; [`ready`] says when that is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The hub is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear that, if it does: twice in the time after which it would restart the server.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!("systemd was not told: {error}");
    }
}
