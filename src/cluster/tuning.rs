//! Time limits and sizes.

use std::time::Duration;

/// Time limit for connecting to each address of the engine.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for sending a command, and for its answer.
pub const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read waits for the next entry.
pub const BLOCK: Duration = Duration::from_millis(500);
/// Time limit for a read, including [`BLOCK`]. If it is exceeded, the engine has not answered for
/// [`UNAVAILABLE_AFTER`].
pub const READ_TIMEOUT: Duration = Duration::from_millis(2100);
/// After this time without an answer, users are told.
pub const UNAVAILABLE_AFTER: Duration = Duration::from_secs(2);
/// While an entry that was written has not been read back, others must be read within this time.
pub const MAX_READ_PAUSE: Duration = Duration::from_secs(5);
/// How far the log goes back before the last snapshot, unless another limit is reached.
pub const KEPT_TIME: Duration = Duration::from_secs(120);
/// Time limit for writing the queue when this node leaves.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// A new snapshot is due after this many bytes of entries.
pub const SNAPSHOT_BYTES: u64 = 8 * 1024 * 1024;
/// The most memory that entries before the last snapshot take on the engine, in bytes.
pub const KEPT_BYTES: u64 = 64 * 1024 * 1024;
/// The memory that an entry takes there besides its data, in bytes, as measured with Redis 7.0.
pub const ENTRY_BYTES: u64 = 60;
/// How often messages that are too old are removed from the history, if nothing is written.
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);
/// How long a request for a page may wait until the history has what it needs.
pub const PAGE_TIMEOUT: Duration = Duration::from_secs(3);
/// The time between two attempts.
pub const PAGE_RETRY: Duration = Duration::from_millis(20);
/// The least time between two log lines about the same problem.
pub const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Values that should be the same on all nodes. Tests use smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How often a node renews its lease.
    pub beat: Duration,
    /// After this time without a beat, a node counts as dead.
    pub lease: Duration,
    /// If no node has renewed its lease for this long, the engine was away, and no node counts as dead.
    pub pause: Duration,
    /// How long the nodes wait for the one with the newest state, before an empty engine is filled. After a restart of
    /// the engine, running nodes wait half as long again, and four times as long if one that has a lease is missing.
    pub claim: Duration,
    /// A new snapshot is due after this many entries, or 8 MiB of them,
    pub snapshot_entries: u64,
    /// but not before this time, because making one takes about 50 ms.
    pub snapshot_interval: Duration,
    /// After the engine was filled, nodes add messages from their stores to the history. It counts as complete if none
    /// does for this time.
    pub merge: Duration,
    /// The most entries that the log keeps before a snapshot, so that a node that is behind does not need the snapshot.
    pub kept_entries: u64,
}

impl Default for Tuning {
    /// A dead node is ended within 12 s: 8 s, and at most 2 s until the next beat of another node.
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(2),
            lease: Duration::from_secs(8),
            pause: Duration::from_secs(4),
            claim: Duration::from_secs(2),
            snapshot_entries: 10_000,
            snapshot_interval: Duration::from_secs(5),
            merge: Duration::from_secs(15),
            kept_entries: 200_000,
        }
    }
}
