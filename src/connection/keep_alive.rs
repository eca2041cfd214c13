//! Whether a client is still there (`PING_INTERVAL`): after so long a silence it is pinged, and after as long
//! again it is gone.

use std::time::{Duration, Instant};

pub struct KeepAlive {
    interval: Duration,
    heard: Instant,
    pinged: Option<Instant>,
}

/// What is due.
#[derive(Debug, PartialEq)]
pub enum Due {
    Nothing,
    Ping,
    Gone,
}

impl KeepAlive {
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, heard: now, pinged: None }
    }

    /// The client said something, be it a pong.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// When to ask [`Self::due`] again.
    pub fn next(&self) -> Instant {
        self.pinged.unwrap_or(self.heard) + self.interval
    }

    pub fn due(&mut self, now: Instant) -> Due {
        if now < self.next() {
            return Due::Nothing;
        }
        match self.pinged {
            Some(_) => Due::Gone,
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
    fn silence_a_ping_and_the_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut keep_alive = KeepAlive::new(Duration::from_secs(30), start);
        assert_eq!(keep_alive.due(at(29)), Due::Nothing);
        keep_alive.heard(at(29));
        assert_eq!(keep_alive.due(at(58)), Due::Nothing);
        assert_eq!(keep_alive.due(at(59)), Due::Ping);
        assert_eq!((keep_alive.due(at(88)), keep_alive.next()), (Due::Nothing, at(89)));
        keep_alive.heard(at(88));
        assert_eq!(keep_alive.due(at(118)), Due::Ping);
        assert_eq!(keep_alive.due(at(148)), Due::Gone);
    }
}
