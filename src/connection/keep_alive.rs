//! The ping timer (`PING_INTERVAL`): a client that is silent for one interval is sent a ping, and has another to
//! answer.

use std::time::{Duration, Instant};

pub struct KeepAlive {
    interval: Duration,
    last_received: Instant,
    /// When the unanswered ping was sent; `None`: there is none.
    pinged: Option<Instant>,
}

#[derive(Debug, PartialEq)]
pub enum Due {
    Nothing,
    Ping,
    /// The client has not answered the ping.
    Disconnect,
}

impl KeepAlive {
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, last_received: now, pinged: None }
    }

    /// Records that bytes have arrived from the client, a pong or anything else.
    pub fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.pinged = None;
    }

    /// When to call [`Self::due`] next.
    pub fn next_deadline(&self) -> Instant {
        self.pinged.unwrap_or(self.last_received) + self.interval
    }

    /// What is due now. A [`Due::Ping`] counts as sent.
    pub fn due(&mut self, now: Instant) -> Due {
        if now < self.next_deadline() {
            return Due::Nothing;
        }
        match self.pinged {
            Some(_) => Due::Disconnect,
            None => {
                self.pinged = Some(now);
                Due::Ping
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_is_pinged_and_then_disconnected() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut keep_alive = KeepAlive::new(Duration::from_secs(30), start);
        assert_eq!(keep_alive.due(at(29)), Due::Nothing);
        keep_alive.received(at(29));
        assert_eq!(keep_alive.due(at(58)), Due::Nothing);
        assert_eq!(keep_alive.due(at(59)), Due::Ping);
        assert_eq!((keep_alive.due(at(88)), keep_alive.next_deadline()), (Due::Nothing, at(89)));
        keep_alive.received(at(88));
        assert_eq!(keep_alive.due(at(118)), Due::Ping);
        assert_eq!(keep_alive.due(at(148)), Due::Disconnect);
    }
}
