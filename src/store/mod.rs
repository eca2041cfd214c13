//! The store: the history, bans, time-outs, named moderators and the audit log, in one SQLite file
//! (docs/operations.md).
//!
//! [`open`] takes the lock, checks the file and loads what the room needs. Afterwards, only the store's thread uses the
//! file. The hub passes it what must be stored through a [`Queue`], which never blocks; the thread answers with
//! [`StoreEvent`]s, and may block until the hub takes them.

mod change;
mod contents;
mod database;
mod error;
mod files;
mod lock;
mod messages;
mod moderation;
pub mod moderators;
mod queue;
mod reading;
mod schedule;
mod schema;
mod set_aside;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::chat::{Ban, NamedModerator, StoredTimeOut};
use crate::ops::clock;
use crate::ops::metrics::Counters;
use crate::ops::random::random;
use database::Database;
use lock::Lock;
use moderation::{meta, set_meta};

pub use change::Followed;
pub use error::StoreError;
pub use lock::server_pid;
pub use messages::{StoredMessage, StoredPage};
pub use queue::{PageRequest, Queue};
pub use reading::{Inspection, audit, export, inspect, schema_version};
#[allow(unused_imports, reason = "only with the feature cluster")]
pub use set_aside::set_aside;
pub use writer::{Running, StoreEvent, Writer};

/// The most JSON that is loaded at the start, in bytes.
const MAX_LOADED_BYTES: usize = 4 * 1024 * 1024;
/// How many ids are reserved at once.
pub const RESERVED_IDS: u64 = 1 << 24;

/// In the table `meta`: how long the server keeps messages, in milliseconds.
const MAX_AGE_KEY: &str = "max_age";
/// In the table `meta`, if other servers have the chat as well.
const SHARED_KEY: &str = "shared";

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// 0: no messages.
    pub messages: usize,
    /// `None`: forever.
    pub max_age: Option<Duration>,
}

impl StoreLimits {
    /// Messages with an earlier time are too old. `clock`: the wall clock. Both are in milliseconds since 1970.
    fn oldest_kept(self, clock: u64) -> u64 {
        self.max_age.map_or(0, |age| clock.saturating_sub(age.as_millis().try_into().unwrap_or(u64::MAX)))
    }
}

/// An open store. `T`: what comes back with a page.
pub struct Opened<T> {
    pub state: StoredState,
    pub queue: Queue<T>,
    pub writer: Writer<T>,
}

/// What the room continues with.
#[derive(Debug)]
pub struct StoredState {
    /// Identifies the sequence of ids.
    pub epoch: String,
    /// Whether other servers have the chat as well, and continue its sequence of ids.
    pub is_shared: bool,
    /// The next id is the one after it.
    pub last_id: u64,
    /// Ids up to this one may be assigned: see [`Queue::reserve`].
    pub reserved_id: u64,
    /// The newest messages, the oldest first, up to 4 MiB of JSON.
    pub messages: Vec<StoredMessage>,
    /// The id of the newest message that is older than these; `None`: there is none.
    pub newest_older: Option<u64>,
    /// The last messages that were deleted, in order.
    pub deleted: Vec<u64>,
    /// The bans that have not ended.
    pub bans: Vec<Ban>,
    /// The time-outs that have not ended.
    pub time_outs: Vec<StoredTimeOut>,
    pub moderators: Vec<NamedModerator>,
}

#[allow(dead_code, reason = "only with the feature cluster")]
impl StoredState {
    /// The id of the newest that is kept. Of several stores of one chat, the one with the greatest is the newest: after
    /// a crash, [`Self::last_id`] only says which ids may have been assigned.
    pub fn newest_id(&self) -> u64 {
        let messages = self.messages.last().map(|message| message.id);
        let bans = self.bans.iter().map(|ban| ban.id);
        messages.into_iter().chain(bans).chain(self.deleted.iter().copied()).max().unwrap_or(0)
    }
}

/// Opens the store, creates it if there is none, and reserves the next [`RESERVED_IDS`] ids.
///
/// # Errors
/// It cannot be used: see [`StoreError`].
pub fn open<T: Send + 'static>(
    path: &Path,
    limits: StoreLimits,
    counters: Arc<Counters>,
) -> Result<Opened<T>, StoreError> {
    let path = &files::resolve(path)?;
    // Before the lock's file is created beside a file that is not ours.
    files::is_new(path)?;
    let lock = Lock::take(path)?;
    let mut database = Database::open(path)?;
    let new_epoch = random().map_err(|error| StoreError::io(path, error))?;
    let loaded = database.write(true, |connection| load(connection, limits, new_epoch));
    let state = loaded.map_err(|error| StoreError::sqlite(path, error))?;
    let (queue, waiting) = queue::queue(counters);
    let writer = Writer::new(database, lock, limits, waiting, state.reserved_id);
    Ok(Opened { state, queue, writer })
}

/// `new_epoch`: for a store that has none.
fn load(connection: &Connection, limits: StoreLimits, new_epoch: [u8; 8]) -> rusqlite::Result<StoredState> {
    let epoch = match meta(connection, "epoch")? {
        Some(epoch) => epoch,
        None => {
            let epoch = format!("{:016x}", u64::from_be_bytes(new_epoch));
            set_meta(connection, "epoch", &epoch)?;
            epoch
        }
    };
    let now = clock::unix_millis();
    let oldest_kept = limits.oldest_kept(now);
    // For `export`.
    let max_age = limits.max_age.map_or(u64::MAX, |age| age.as_millis().try_into().unwrap_or(u64::MAX));
    set_meta(connection, MAX_AGE_KEY, &max_age.to_string())?;
    let page = messages::page(connection, u64::MAX, oldest_kept, limits.messages, MAX_LOADED_BYTES)?;
    let newest = page.messages.last().map_or(0, |message| message.id);
    let newest_older = match page.messages.first() {
        Some(oldest) if page.has_older => messages::newest_before(connection, oldest.id, oldest_kept)?,
        _ => None,
    };
    let reserved = meta(connection, "reserved_id")?.and_then(|id| id.parse().ok()).unwrap_or(0);
    let last_id = newest.max(reserved);
    let reserved_id = last_id + RESERVED_IDS;
    set_meta(connection, "reserved_id", &reserved_id.to_string())?;
    Ok(StoredState {
        epoch,
        is_shared: meta(connection, SHARED_KEY)?.is_some(),
        last_id,
        reserved_id,
        messages: page.messages,
        newest_older,
        deleted: moderation::deleted(connection)?,
        bans: moderation::bans(connection, now)?,
        time_outs: moderation::time_outs(connection, now)?,
        moderators: moderators::all(connection)?,
    })
}

/// A number as SQLite stores it. Ids and times are far below the limit.
fn int(value: u64) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
