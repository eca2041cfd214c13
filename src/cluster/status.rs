//! What monitoring shows of a node. The threads write it, and any thread may read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::outbox::Removed;
use crate::chat::NodeNumber;
use crate::ops::clock;
use crate::ops::metrics::ClusterStats;

/// Figures that change all the time.
pub struct Status {
    /// Times are in milliseconds since then, at least 1. 0: never.
    start: Instant,
    /// Of this node.
    name: Arc<str>,
    node: AtomicU32,
    queue_entries: AtomicUsize,
    queue_bytes: AtomicUsize,
    log_id: AtomicU64,
    read_id: AtomicU64,
    /// All that was read, in bytes of data.
    read_bytes: AtomicU64,
    applied_id: AtomicU64,
    snapshot_id: AtomicU64,
    snapshot_bytes: AtomicUsize,
    history_bytes: AtomicUsize,
    reconnects: AtomicU64,
    round_trip_micros: AtomicU64,
    beat_at: AtomicU64,
    write_answered_at: AtomicU64,
    read_answered_at: AtomicU64,
    /// When the oldest call to write was made that has no answer.
    write_waits_since: AtomicU64,
    /// Since then, what this node writes has not been read back.
    stuck_since: AtomicU64,
    is_delivering: AtomicBool,
    /// By how much the engine's clock is ahead of this machine's, in milliseconds.
    clock_offset: AtomicI64,
}

impl Status {
    /// `name`: of this node.
    pub(super) fn new(name: &str) -> Self {
        Self {
            start: Instant::now(),
            name: name.into(),
            node: AtomicU32::default(),
            queue_entries: AtomicUsize::default(),
            queue_bytes: AtomicUsize::default(),
            log_id: AtomicU64::default(),
            read_id: AtomicU64::default(),
            read_bytes: AtomicU64::default(),
            applied_id: AtomicU64::default(),
            snapshot_id: AtomicU64::default(),
            snapshot_bytes: AtomicUsize::default(),
            history_bytes: AtomicUsize::default(),
            reconnects: AtomicU64::default(),
            round_trip_micros: AtomicU64::default(),
            beat_at: AtomicU64::default(),
            write_answered_at: AtomicU64::default(),
            read_answered_at: AtomicU64::default(),
            write_waits_since: AtomicU64::default(),
            stuck_since: AtomicU64::default(),
            is_delivering: AtomicBool::default(),
            clock_offset: AtomicI64::default(),
        }
    }

    /// The figures of this moment.
    pub fn figures(&self) -> ClusterStats {
        let now = self.now();
        let since = |time: &AtomicU64| Duration::from_millis(now.saturating_sub(time.load(Relaxed)));
        let stuck = self.stuck_since().map_or(Duration::ZERO, |since| since.elapsed());
        let log_id = self.log_id.load(Relaxed).max(self.read_id());
        ClusterStats {
            name: self.name.clone(),
            node: self.node.load(Relaxed),
            lag_entries: log_id.saturating_sub(self.applied_id.load(Relaxed)),
            queue_entries: self.queue_entries.load(Relaxed),
            queue_bytes: self.queue_bytes.load(Relaxed),
            lease_age: since(&self.beat_at),
            snapshot_bytes: self.snapshot_bytes.load(Relaxed),
            history_bytes: self.history_bytes.load(Relaxed),
            snapshot_age_entries: log_id.saturating_sub(self.snapshot_id.load(Relaxed)),
            reconnects: self.reconnects.load(Relaxed),
            round_trip: Duration::from_micros(self.round_trip_micros.load(Relaxed)),
            silence: since(&self.write_answered_at).max(since(&self.read_answered_at)).max(stuck),
        }
    }

    /// Whether the engine answers: no call has waited for longer than this.
    pub fn responds_within(&self, timeout: Duration) -> bool {
        // The connection that reads always waits for an answer. The other one often has nothing to ask.
        let read = self.now().saturating_sub(self.read_answered_at.load(Relaxed));
        let waits = self.write_waits_since().into_iter().chain(self.stuck_since());
        Duration::from_millis(read) < timeout && waits.map(|since| since.elapsed()).all(|wait| wait < timeout)
    }

    /// The engine's clock, in milliseconds since 1970, as this node estimates it.
    pub fn engine_millis(&self) -> u64 {
        clock::unix_millis().saturating_add_signed(self.clock_offset.load(Relaxed))
    }

    pub(super) fn joined(&self, node: NodeNumber, log_id: u64, applied_id: u64, snapshot_id: u64) {
        self.node.store(node.into(), Relaxed);
        self.log_id.store(log_id, Relaxed);
        self.read_id.store(applied_id, Relaxed);
        self.applied_id.store(applied_id, Relaxed);
        self.snapshot_id.store(snapshot_id, Relaxed);
        self.beat_at.store(self.now(), Relaxed);
        self.answered_write();
        self.answered_read();
    }

    /// The same for another number of this node, which continues reading.
    pub(super) fn rejoined(&self, node: NodeNumber) {
        self.node.store(node.into(), Relaxed);
        self.beat();
        self.answered_write();
    }

    pub(super) fn queued(&self, bytes: usize) {
        self.queue_entries.fetch_add(1, Relaxed);
        self.queue_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn removed(&self, removed: Removed) {
        self.queue_entries.fetch_sub(removed.entries, Relaxed);
        self.queue_bytes.fetch_sub(removed.bytes, Relaxed);
    }

    #[cfg(test)]
    pub fn empty_queue(&self) {
        self.removed(self.queue());
    }

    pub(super) fn queue(&self) -> Removed {
        Removed { entries: self.queue_entries.load(Relaxed), bytes: self.queue_bytes.load(Relaxed) }
    }

    pub(super) fn read(&self, id: u64, bytes: usize) {
        self.read_id.store(id, Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn read_id(&self) -> u64 {
        self.read_id.load(Relaxed)
    }

    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Relaxed)
    }

    pub(super) fn applied(&self, id: u64) {
        self.applied_id.store(id, Relaxed);
    }

    /// The log ends with this id, or a later one.
    pub(super) fn log_ends(&self, id: u64) {
        self.log_id.store(id, Relaxed);
    }

    pub(super) fn snapshot(&self, id: u64) {
        self.snapshot_id.store(id, Relaxed);
    }

    pub(super) fn snapshot_bytes(&self, bytes: usize) {
        self.snapshot_bytes.store(bytes, Relaxed);
    }

    /// What waits to be written to the history.
    pub(super) fn history_bytes(&self, bytes: usize) {
        self.history_bytes.store(bytes, Relaxed);
    }

    pub(super) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Relaxed);
    }

    pub(super) fn beat(&self) {
        self.beat_at.store(self.now(), Relaxed);
    }

    /// Whether this node has renewed its lease since then.
    pub(super) fn has_beaten_since(&self, moment: Instant) -> bool {
        let moment = moment.saturating_duration_since(self.start).as_millis();
        u128::from(self.beat_at.load(Relaxed)) >= moment
    }

    /// A call is made that writes.
    pub(super) fn asks_to_write(&self) {
        let _ = self.write_waits_since.compare_exchange(0, self.now(), Relaxed, Relaxed);
    }

    /// The call will be repeated.
    pub(super) fn interrupted_write(&self) {
        self.write_waits_since.store(0, Relaxed);
    }

    pub(super) fn answered_write(&self) {
        self.write_waits_since.store(0, Relaxed);
        self.write_answered_at.store(self.now(), Relaxed);
    }

    pub(super) fn round_trip(&self, took: Duration) {
        self.round_trip_micros.store(took.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn write_waits_since(&self) -> Option<Instant> {
        self.instant(&self.write_waits_since)
    }

    pub(super) fn stuck(&self, is_stuck: bool) {
        if is_stuck {
            let _ = self.stuck_since.compare_exchange(0, self.now(), Relaxed, Relaxed);
        } else {
            self.stuck_since.store(0, Relaxed);
        }
    }

    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.instant(&self.stuck_since)
    }

    pub(super) fn answered_read(&self) {
        self.read_answered_at.store(self.now(), Relaxed);
    }

    pub(super) fn delivering(&self, is_delivering: bool) {
        self.is_delivering.store(is_delivering, Relaxed);
    }

    pub(super) fn is_delivering(&self) -> bool {
        self.is_delivering.load(Relaxed)
    }

    pub(super) fn engine_clock(&self, millis: u64) {
        let offset = millis.cast_signed().wrapping_sub(clock::unix_millis().cast_signed());
        self.clock_offset.store(offset, Relaxed);
    }

    fn instant(&self, time: &AtomicU64) -> Option<Instant> {
        match time.load(Relaxed) {
            0 => None,
            millis => Some(self.start + Duration::from_millis(millis)),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(100);

    /// A server that had written nothing for a second once did not leave the chat.
    #[test]
    fn an_engine_that_is_asked_nothing_responds() {
        let mut status = Status::new("a");
        let pass = |status: &mut Status| status.start -= 2 * TIMEOUT;
        status.joined(NodeNumber::LOCAL, 0, 0, 0);
        assert!(status.responds_within(TIMEOUT));
        pass(&mut status);
        assert!(!status.responds_within(TIMEOUT), "nothing could be read");
        status.answered_read();
        assert!(status.responds_within(TIMEOUT), "nothing was written");
        status.asks_to_write();
        assert!(status.responds_within(TIMEOUT));
        pass(&mut status);
        status.answered_read();
        assert!(!status.responds_within(TIMEOUT), "nothing could be written");
        status.answered_write();
        assert!(status.responds_within(TIMEOUT));
        status.stuck(true);
        pass(&mut status);
        status.answered_read();
        assert!(!status.responds_within(TIMEOUT), "what was written cannot be read");
    }
}
