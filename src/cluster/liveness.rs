//! Whether what was written is read back. A connection may seem healthy and still belong to a server that has been cut
//! off from the other nodes, such as a master that was replaced.

use std::time::{Duration, Instant};

/// Tracks whether written entries are read back in time.
pub struct Liveness {
    max_pause: Duration,
    /// An id that was written and has not been read, and since when nothing has been read.
    awaited: Option<(u64, Instant)>,
    /// The last id that was read.
    read: u64,
    is_stuck: bool,
}

impl Liveness {
    pub fn new(max_pause: Duration) -> Self {
        Self { max_pause, awaited: None, read: 0, is_stuck: false }
    }

    /// The connection that writes has seen that the log ends with this id.
    pub fn written(&mut self, id: u64, read: u64, now: Instant) {
        self.read(read, now);
        self.is_stuck &= id > read;
        // One at a time: while one is awaited, later ones wait for the next beat.
        if id > read && self.awaited.is_none() {
            self.awaited = Some((id, now));
        }
    }

    /// All up to this id have been read.
    pub fn read(&mut self, read: u64, now: Instant) {
        if read == self.read {
            return;
        }
        self.read = read;
        match &mut self.awaited {
            Some((id, _)) if *id <= read => (self.awaited, self.is_stuck) = (None, false),
            // A node that has much to read may take longer.
            Some((_, since)) => *since = now,
            None => {}
        }
    }

    /// Entries are being delivered, so no more can be read yet.
    pub fn delivering(&mut self, now: Instant) {
        if let Some((_, since)) = &mut self.awaited {
            *since = now;
        }
    }

    pub fn is_overdue(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.awaited.map(|(_, since)| since + self.max_pause)
    }

    /// Written entries are overdue, and the connections are opened again.
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

    const PAUSE: Duration = Duration::from_secs(5);

    #[test]
    fn what_is_written_must_be_read_in_time() {
        let (mut liveness, start) = (Liveness::new(PAUSE), Instant::now());
        liveness.written(7, 7, start);
        assert!(!liveness.is_overdue(start + 2 * PAUSE));
        liveness.written(9, 7, start);
        liveness.written(11, 7, start + PAUSE / 2);
        assert!(!liveness.is_overdue(start + PAUSE - Duration::from_millis(1)));
        assert!(liveness.is_overdue(start + PAUSE));
        liveness.read(9, start + PAUSE);
        assert!(!liveness.is_overdue(start + PAUSE));
        liveness.written(11, 9, start + PAUSE);
        assert!(liveness.is_overdue(start + 2 * PAUSE));
        liveness.reconnected();
        assert_eq!(liveness.deadline(), None);
    }

    /// A node that was far behind once connected again and again, and fell behind further.
    #[test]
    fn a_node_that_is_far_behind_is_not_stuck() {
        let (mut liveness, start) = (Liveness::new(PAUSE), Instant::now());
        liveness.written(100, 1, start);
        let mut now = start;
        for read in 2..100 {
            now += PAUSE / 2;
            liveness.read(read, now);
            assert!(!liveness.is_overdue(now), "{read}");
        }
        assert!(liveness.is_overdue(now + PAUSE));
        liveness.delivering(now + PAUSE);
        assert!(!liveness.is_overdue(now + PAUSE));
    }

    #[test]
    fn it_is_stuck_until_something_written_is_read() {
        let (mut liveness, now) = (Liveness::new(PAUSE), Instant::now());
        let reads: [fn(&mut Liveness, Instant); 2] =
            [|liveness, now| liveness.read(9, now), |liveness, now| liveness.written(9, 9, now)];
        for read in reads {
            liveness.written(9, 7, now);
            liveness.stuck();
            assert!(liveness.is_stuck() && liveness.deadline().is_none());
            liveness.written(9, 7, now);
            liveness.read(8, now);
            liveness.reconnected();
            assert!(liveness.is_stuck());
            liveness.written(9, 8, now);
            read(&mut liveness, now);
            assert!(!liveness.is_stuck());
        }
    }
}
