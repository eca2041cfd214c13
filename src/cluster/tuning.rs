//! How long things may take, and how much is kept.

use std::time::Duration;

/// For connecting to the engine, to each of its addresses.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For sending a command, and for its answer.
pub const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read waits for the next entry.
pub const BLOCK: Duration = Duration::from_millis(500);
/// For a read, including [`BLOCK`]: when it is over, the engine has not answered for [`UNAVAILABLE_AFTER`].
pub const READ_TIMEOUT: Duration = Duration::from_millis(2100);
/// After this time without an answer, users are told.
pub const UNAVAILABLE_AFTER: Duration = Duration::from_secs(2);
/// While something that has been written is not read, something else must be read within this time.
pub const MAX_READ_PAUSE: Duration = Duration::from_secs(5);
/// How far back the log goes before the last snapshot, unless that is too much.
pub const KEPT_TIME: Duration = Duration::from_secs(120);
/// For what is queued when this node leaves.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// A new snapshot is due after this many bytes of entries.
pub const SNAPSHOT_BYTES: u64 = 8 * 1024 * 1024;
/// The most that the log keeps before a snapshot takes in the engine's memory, in bytes.
pub const KEPT_BYTES: u64 = 64 * 1024 * 1024;
/// What an entry takes there beside its data, in bytes, as measured with Redis 7.0.
pub const ENTRY_BYTES: u64 = 60;
/// The least time between two log lines about the same problem.
pub const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What nodes should agree on. Tests use smaller values.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How often a node renews its lease.
    pub beat: Duration,
    /// After this time without a beat, a node counts as dead.
    pub lease: Duration,
    /// If no node has renewed its lease for this long, the engine was away, and no node counts as dead.
    pub pause: Duration,
    /// How long the nodes wait for the one with the newest state, before an empty engine is filled.
    pub claim: Duration,
    /// A new snapshot is due after so many entries, or 8 MiB of them,
    pub snapshot_entries: u64,
    /// but not before this time, because making one costs some 50 ms.
    pub snapshot_interval: Duration,
    /// The most entries that the log keeps before a snapshot, so that a node which is behind does not need one.
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
            kept_entries: 200_000,
        }
    }
}
