//! When the store's thread commits, syncs, checkpoints and retries. Pure: the times come with the calls.

use std::time::{Duration, Instant};

/// How long messages are collected for one commit.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// The longest that a message waits for its sync.
const SYNC_DELAY: Duration = Duration::from_millis(1500);
/// The least time between two syncs, except that a checkpoint makes two in a row.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// The most time between a commit and the checkpoint that moves it into the database file.
const CHECKPOINT_DELAY: Duration = Duration::from_secs(30);
/// How long a checkpoint that a reader has prevented waits.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(3);
/// The least time between two deletions of messages that are too old, while nothing else is written.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(30);
/// Delay before the first retry of a failed commit. It doubles with each failure, up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Schedule {
    /// When what waits is committed.
    commit_at: Option<Instant>,
    /// Since when something has not been synced.
    unsynced_since: Option<Instant>,
    /// Whether the hub waits for a sync.
    is_urgent: bool,
    /// The end of the last sync, or a second after it if that was a checkpoint.
    synced_at: Option<Instant>,
    checkpoint_at: Option<Instant>,
    expire_at: Option<Instant>,
    expired_at: Option<Instant>,
    /// `Some`: the last commit has failed.
    retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    delay: Duration,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Due {
    /// To commit what waits, and to delete what exceeds a limit.
    Commit,
    /// The same, and a sync.
    Sync,
    Checkpoint,
}

impl Schedule {
    /// Something has to be committed.
    pub fn added(&mut self, now: Instant) {
        self.commit_at.get_or_insert(now + COMMIT_INTERVAL);
        self.unsynced_since.get_or_insert(now);
    }

    /// The hub waits until what was added is synced.
    pub fn urgent(&mut self, now: Instant) {
        self.added(now);
        self.is_urgent = true;
    }

    /// There is more to delete than one commit has deleted.
    pub fn more_to_delete(&mut self, now: Instant) {
        self.commit_at.get_or_insert(now + COMMIT_INTERVAL);
    }

    /// `expires_in`: until the oldest message is too old; `None`: never.
    pub fn committed(&mut self, now: Instant, is_synced: bool, expires_in: Option<Duration>) {
        self.commit_at = None;
        self.retry = None;
        self.checkpoint_at.get_or_insert(now + CHECKPOINT_DELAY);
        self.expired_at = Some(now);
        self.expires_in(now, expires_in);
        if is_synced {
            (self.unsynced_since, self.is_urgent) = (None, false);
            self.synced_at = Some(now);
        }
    }

    /// When the oldest message will be too old.
    pub fn expires_in(&mut self, now: Instant, expires_in: Option<Duration>) {
        let earliest = self.expired_at.map_or(now, |at| at + EXPIRY_INTERVAL);
        self.expire_at = expires_in.and_then(|delay| now.checked_add(delay)).map(|at| at.max(earliest));
    }

    /// The log has grown: a checkpoint is due at once.
    pub fn log_is_long(&mut self, now: Instant) {
        self.checkpoint_at = Some(now);
    }

    /// `is_complete`: it was not prevented by a reader.
    pub fn checkpointed(&mut self, now: Instant, is_complete: bool) {
        self.checkpoint_at = (!is_complete).then_some(now + CHECKPOINT_RETRY);
        // It has synced the log and the database.
        self.synced_at = Some(now + SYNC_INTERVAL);
    }

    /// A commit or a checkpoint has failed.
    pub fn failed(&mut self, now: Instant) {
        let delay = self.retry.map_or(FIRST_RETRY, |retry| (retry.delay * 2).min(LAST_RETRY));
        self.retry = Some(Retry { at: now + delay, delay });
        // The hub has been told, and no longer waits.
        self.is_urgent = false;
        // What was committed before may have been lost with it.
        self.commit_at.get_or_insert(now);
        self.unsynced_since.get_or_insert(now);
    }

    /// What is due.
    pub fn due(&self, now: Instant) -> Option<Due> {
        // The checkpoint comes first: otherwise decisions in quick succession could put it off forever.
        [
            (self.checkpoint_due(), Due::Checkpoint),
            (self.sync_at(), Due::Sync),
            (self.commit_due(), Due::Commit),
        ]
        .into_iter()
        .find_map(|(at, due)| at.filter(|&at| at <= now).map(|_| due))
    }

    /// When something is due; `None`: nothing, until something is added.
    pub fn next(&self) -> Option<Instant> {
        [self.sync_at(), self.commit_due(), self.checkpoint_due()].into_iter().flatten().min()
    }

    fn sync_at(&self) -> Option<Instant> {
        let since = self.unsynced_since?;
        let latest = since + SYNC_DELAY;
        let at = match self.synced_at {
            _ if !self.is_urgent => latest,
            None => since,
            Some(synced) => latest.min(since.max(synced + SYNC_INTERVAL)),
        };
        Some(self.not_before_retry(at))
    }

    fn commit_due(&self) -> Option<Instant> {
        let at = [self.commit_at, self.expire_at].into_iter().flatten().min()?;
        Some(self.not_before_retry(at))
    }

    fn checkpoint_due(&self) -> Option<Instant> {
        let at = self.checkpoint_at?;
        Some(self.not_before_retry(self.synced_at.map_or(at, |synced| at.max(synced + SYNC_INTERVAL))))
    }

    fn not_before_retry(&self, at: Instant) -> Instant {
        self.retry.map_or(at, |retry| at.max(retry.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Does what is due until the time `until`, and returns what, and how many milliseconds after `start`.
    fn run(schedule: &mut Schedule, start: Instant, until: Duration) -> Vec<(Due, u128)> {
        let mut done = Vec::new();
        while let Some(at) = schedule.next().filter(|&at| at <= start + until) {
            let due = schedule.due(at).unwrap();
            done.push((due, (at - start).as_millis()));
            match due {
                Due::Commit => schedule.committed(at, false, None),
                Due::Sync => schedule.committed(at, true, None),
                Due::Checkpoint => schedule.checkpointed(at, true),
            }
        }
        done
    }

    #[test]
    fn a_message_is_committed_synced_and_moved_and_then_nothing_is_due() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        assert_eq!(schedule.next(), None);
        schedule.added(start);
        let done = run(&mut schedule, start, 1000 * SECOND);
        assert_eq!(done, [(Due::Commit, 100), (Due::Sync, 1500), (Due::Checkpoint, 30_100)]);
        assert_eq!(schedule.next(), None);
    }

    /// However messages and decisions arrive, there is at most one sync per second, not counting those of the
    /// checkpoints: two, and another with the first commit after it. Nothing waits longer than two seconds.
    #[test]
    fn syncs_are_rare_and_never_late() {
        for (messages, decisions) in [(10, 0), (130, 0), (700, 0), (10, 50), (3000, 900), (0, 100)] {
            let (mut schedule, start) = (Schedule::default(), Instant::now());
            let (mut syncs, mut checkpoints, mut unsynced) = (Vec::new(), Vec::new(), None::<u64>);
            for millis in 0..180_000_u64 {
                let now = start + Duration::from_millis(millis);
                if messages > 0 && millis % messages == 0 {
                    schedule.added(now);
                    unsynced.get_or_insert(millis);
                }
                if decisions > 0 && millis % decisions == 0 {
                    schedule.urgent(now);
                    unsynced.get_or_insert(millis);
                }
                while let Some(due) = schedule.due(now) {
                    match due {
                        Due::Commit => schedule.committed(now, false, None),
                        Due::Sync => {
                            schedule.committed(now, true, None);
                            syncs.push(millis);
                            unsynced = None;
                        }
                        Due::Checkpoint => {
                            schedule.checkpointed(now, true);
                            checkpoints.push(millis);
                        }
                    }
                }
                let waits = unsynced.map_or(0, |since| millis - since);
                assert!(waits <= 2000, "{messages} {decisions}: {waits} ms");
            }
            assert!(syncs.len() > 67, "{messages} {decisions}");
            assert!(syncs.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{messages} {decisions}");
            assert!((5..=6).contains(&checkpoints.len()), "{messages} {decisions}: {checkpoints:?}");
            assert!(checkpoints.windows(2).all(|pair| pair[1] - pair[0] >= 30_000), "{messages} {decisions}");
        }
    }

    #[test]
    fn a_decision_waits_at_most_a_second() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.urgent(start);
        assert_eq!(schedule.due(start), Some(Due::Sync));
        schedule.committed(start, true, None);
        schedule.urgent(start + SECOND / 2);
        assert_eq!(run(&mut schedule, start, 2 * SECOND), [(Due::Commit, 600), (Due::Sync, 1000)]);
    }

    #[test]
    fn a_failure_is_tried_again_less_and_less_often() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.urgent(start);
        let mut at = start;
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            schedule.failed(at);
            assert!(schedule.retry.is_some());
            assert_eq!(schedule.next(), Some(at + expected * SECOND));
            at += expected * SECOND;
            assert!(matches!(schedule.due(at), Some(Due::Commit | Due::Sync)));
        }
        schedule.committed(at, true, None);
        assert!(schedule.retry.is_none());
    }

    #[test]
    fn old_messages_are_deleted_in_groups() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.committed(start, true, Some(SECOND));
        assert_eq!(schedule.next(), Some(start + EXPIRY_INTERVAL));
        schedule.committed(start, true, Some(3600 * SECOND));
        schedule.checkpointed(start, true);
        assert_eq!(schedule.next(), Some(start + 3600 * SECOND));
        schedule.committed(start, true, Some(Duration::MAX));
        schedule.checkpointed(start, true);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_checkpoint_that_readers_prevent_is_repeated() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.committed(start, true, None);
        schedule.checkpointed(start + CHECKPOINT_DELAY, false);
        assert_eq!(schedule.next(), Some(start + CHECKPOINT_DELAY + CHECKPOINT_RETRY));
    }
}
