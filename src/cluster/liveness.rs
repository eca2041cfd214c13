//! Whether what was written is read back. A connection may seem healthy and still belong to a server that has been cut
//! off from the other nodes, such as a master that was replaced.

use std::time::{Duration, Instant};

/// The oldest id that was written and has not been read.
pub struct Liveness {
    max_lag: Duration,
    awaited: Option<(u64, Instant)>,
    is_stuck: bool,
}

impl Liveness {
    pub fn new(max_lag: Duration) -> Self {
        Self { max_lag, awaited: None, is_stuck: false }
    }

    /// The log ends with this id, says the connection that writes.
    pub fn written(&mut self, id: u64, read: u64, now: Instant) {
        self.read(read);
        self.is_stuck &= id > read;
        // One at a time: while one is awaited, later ones wait for the next beat.
        if id > read && self.awaited.is_none() {
            self.awaited = Some((id, now));
        }
    }

    /// All up to this id have been read.
    pub fn read(&mut self, read: u64) {
        if self.awaited.is_some_and(|(id, _)| id <= read) {
            self.awaited = None;
            self.is_stuck = false;
        }
    }

    pub fn is_overdue(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.awaited.map(|(_, since)| since + self.max_lag)
    }

    /// What was written is overdue, and the connections are made anew.
    pub fn stuck(&mut self) {
        self.awaited = None;
        self.is_stuck = true;
    }

    /// Since then, nothing that was written has been read.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// The connection that writes may not have the same entries as before.
    pub fn reconnected(&mut self) {
        self.awaited = None;
    }

    /// There is another chat.
    pub fn restart(&mut self) {
        self.awaited = None;
        self.is_stuck = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_must_be_read_in_time() {
        let lag = Duration::from_secs(5);
        let (mut liveness, start) = (Liveness::new(lag), Instant::now());
        liveness.written(7, 7, start);
        assert!(!liveness.is_overdue(start + 2 * lag));
        liveness.written(9, 7, start);
        liveness.written(11, 8, start + lag / 2);
        assert!(!liveness.is_overdue(start + lag - Duration::from_millis(1)));
        assert!(liveness.is_overdue(start + lag));
        liveness.read(9);
        assert!(!liveness.is_overdue(start + lag));
        liveness.written(11, 9, start + lag);
        assert!(liveness.is_overdue(start + 2 * lag));
        liveness.reconnected();
        assert_eq!(liveness.deadline(), None);
    }

    #[test]
    fn it_is_stuck_until_something_written_is_read() {
        let (mut liveness, now) = (Liveness::new(Duration::from_secs(5)), Instant::now());
        for read in
            [Liveness::read, |liveness: &mut Liveness, read| liveness.written(9, read, Instant::now())]
        {
            liveness.written(9, 7, now);
            liveness.stuck();
            assert!(liveness.is_stuck() && liveness.deadline().is_none());
            liveness.written(9, 7, now);
            liveness.read(8);
            liveness.reconnected();
            assert!(liveness.is_stuck());
            liveness.written(9, 8, now);
            read(&mut liveness, 9);
            assert!(!liveness.is_stuck());
        }
    }
}
