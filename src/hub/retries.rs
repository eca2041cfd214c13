//! When slow clients are retried, and how much waits for them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::chat::{ConnectionId, ConnectionMap};

/// How soon a slow client is retried. The delay doubles with each retry without progress.
const MIN_DELAY: Duration = Duration::from_millis(10);
const MAX_DELAY: Duration = Duration::from_millis(640);

/// The clients with a backlog, in the order in which they are retried: clients that are not due cost nothing.
#[derive(Default)]
pub struct Retries {
    clients: ConnectionMap<Retry>,
    by_time: BTreeSet<(Instant, ConnectionId)>,
    /// The sum over all clients.
    bytes: usize,
}

struct Retry {
    at: Instant,
    delay: Duration,
    /// The size of the backlog.
    bytes: usize,
}

impl Retries {
    pub fn contains(&self, id: ConnectionId) -> bool {
        self.clients.contains_key(&id)
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// The size of all backlogs, in bytes, as of the last attempt to send to each of these clients.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Schedules a retry after [`MIN_DELAY`], replacing any earlier schedule.
    pub fn retry_soon(&mut self, id: ConnectionId, bytes: usize, now: Instant) {
        self.remove(id);
        self.insert(id, Retry { at: now + MIN_DELAY, delay: MIN_DELAY, bytes });
    }

    /// Schedules a retry for a client that accepts nothing, unless one is scheduled already.
    pub fn retry(&mut self, id: ConnectionId, bytes: usize, now: Instant) {
        match self.clients.get_mut(&id) {
            Some(retry) => {
                self.bytes = self.bytes - retry.bytes + bytes;
                retry.bytes = bytes;
            }
            None => self.retry_soon(id, bytes, now),
        }
    }

    pub fn remove(&mut self, id: ConnectionId) {
        if let Some(retry) = self.clients.remove(&id) {
            self.by_time.remove(&(retry.at, id));
            self.bytes -= retry.bytes;
        }
    }

    /// When [`Self::next_due`] next returns a client.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// A client that is due. Its next retry is scheduled, after twice the delay.
    pub fn next_due(&mut self, now: Instant) -> Option<ConnectionId> {
        let &(_, id) = self.by_time.first().filter(|&&(at, _)| at <= now)?;
        let retry = self.clients.get(&id)?;
        let (delay, bytes) = ((retry.delay * 2).min(MAX_DELAY), retry.bytes);
        self.remove(id);
        self.insert(id, Retry { at: now + delay, delay, bytes });
        Some(id)
    }

    fn insert(&mut self, id: ConnectionId, retry: Retry) {
        self.by_time.insert((retry.at, id));
        self.bytes += retry.bytes;
        self.clients.insert(id, retry);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_delay_doubles_until_there_is_progress() {
        let start = Instant::now();
        let id = ConnectionId(1);
        let mut retries = Retries::default();
        retries.retry(id, 100, start);
        let mut delays = Vec::new();
        let mut now = start;
        for _ in 0..9 {
            let due = retries.next_deadline().unwrap();
            delays.push((due - now).as_millis());
            now = due;
            assert_eq!(retries.next_due(now), Some(id));
            assert_eq!(retries.next_due(now), None, "once per delay");
            retries.retry(id, 100, now);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
        retries.retry_soon(id, 100, now);
        assert_eq!(retries.next_deadline(), Some(now + MIN_DELAY));
        retries.remove(id);
        assert_eq!((retries.next_deadline(), retries.len(), retries.bytes()), (None, 0, 0));
    }

    proptest! {
        /// Every batch once checked every slow client. Compares with a model that does.
        #[test]
        fn clients_are_due_in_order_of_time(
            steps in proptest::collection::vec((0..4, 0..6_u64, 0..100_u64), 0..200)
        ) {
            let mut now = Instant::now();
            let mut retries = Retries::default();
            for (kind, id, number) in steps {
                let (id, bytes) = (ConnectionId(id), number as usize);
                match kind {
                    0 => retries.retry(id, bytes, now),
                    1 => retries.retry_soon(id, bytes, now),
                    2 => retries.remove(id),
                    _ => {
                        now += Duration::from_millis(number);
                        let mut due: Vec<_> =
                            retries.clients.iter().filter(|(_, retry)| retry.at <= now).map(|(&id, _)| id).collect();
                        let mut got: Vec<_> = std::iter::from_fn(|| retries.next_due(now)).collect();
                        due.sort();
                        got.sort();
                        prop_assert_eq!(got, due);
                    }
                }
                prop_assert_eq!(retries.next_deadline(), retries.clients.values().map(|retry| retry.at).min());
                prop_assert_eq!(retries.bytes(), retries.clients.values().map(|retry| retry.bytes).sum::<usize>());
                prop_assert_eq!(retries.by_time.len(), retries.len());
            }
        }
    }
}
