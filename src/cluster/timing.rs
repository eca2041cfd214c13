//! How long things may take.

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
/// What has been written must be read back within this time.
pub const MAX_LAG: Duration = Duration::from_secs(5);
/// How far back the log goes, at least, except for the limit in entries.
pub const KEPT_TIME: Duration = Duration::from_secs(120);
/// For what is queued when this node leaves.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The least time between two log lines about the same problem.
pub const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The times that nodes agree on. Tests use shorter ones.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often a node renews its lease.
    pub beat: Duration,
    /// After this time without a beat, a node counts as dead.
    pub lease: Duration,
    /// If no node has renewed its lease for this long, the engine was away, and no node counts as dead.
    pub pause: Duration,
    /// How long the nodes wait for the one with the newest state, before an empty engine is filled.
    pub claim: Duration,
}

impl Default for Timing {
    /// A dead node is ended within 12 s: 8 s, and at most 2 s until the next beat of another node.
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(2),
            lease: Duration::from_secs(8),
            pause: Duration::from_secs(4),
            claim: Duration::from_secs(2),
        }
    }
}
