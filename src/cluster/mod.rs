//! One chat on several servers (nodes), through a log that they share on a Redis or Valkey server, the engine.
//!
//! Each node appends what its clients cause to the log. All nodes read the log, and apply its entries in the same
//! order. Here, entries and snapshots are bytes: the caller defines their contents.
//!
//! The history on the engine has all messages that are kept, without whispers, so that every node can answer with it.
//! All nodes collect the changes of the history as they apply entries, and any of them may write them ([`kept`]):
//! usually the one with the lowest number does, or the next one if too many are waiting.
//!
//! [`join`] blocks until this node has the chat. After that, two threads with a connection each talk to the engine: one
//! writes and one reads. Neither the caller of a [`SharedLog`] nor a thread waits for the other side: appended entries
//! stay in a bounded queue until they have been read back. These threads deliver [`Event`]s, and may be blocked while
//! they do.
//!
//! The keys on the engine, for the name `tinychat` (only `scripts/` writes to them):
//! - `tinychat:log`: a stream. An id is `<id>-<mark>`, where the mark is a random number that belongs to the epoch, so
//!   that entries of another epoch are recognised even if their ids continue. The fields are `n` (node), `q` (its
//!   sequence number), `t` (time in ms) and `d` (data). Node 0 is the engine: `T` lets time pass, `D7` ends node 7.
//! - `tinychat:meta`: a hash with the epoch, its mark, the last `id`, the last `time`, the id of the `snapshot`, the
//!   newest `format` in use, the highest node number (`nodes`), the engine's run in which it was assigned (`numbers`),
//!   the `run` for which it is known that nothing was lost, and of each node its name, format and last sequence number.
//!   Of the history: the id up to which it is written (`kept`), its last 100 `deletions`, the id of the last entry before
//!   them that has deleted a message (`forgotten`), when a node last `merged` its store, and whether it is `complete`.
//! - `tinychat:history`: a sorted set of the messages that are kept, by id. A stream would take less memory, but after
//!   the engine was filled, older messages have to be added.
//! - `tinychat:leases`: a sorted set of the nodes, by the time at which they count as dead.
//! - `tinychat:snapshot`: the chat's state at an id. What follows it is in the log.
//! - `tinychat:claims`: what each node has, while the engine is empty or was restarted.
//!
//! No key has an expiry: after a pause of the engine, all nodes would seem to be dead.

mod availability;
mod backoff;
mod engine;
mod entry;
mod following;
mod history;
mod kept;
mod liveness;
mod log;
#[cfg(test)]
pub mod model;
mod node;
mod outbox;
mod position;
mod reader;
mod scripts;
mod snapshot;
mod start;
mod status;
#[cfg(test)]
mod tests;
mod tuning;
mod writer;

pub use self::log::SharedLog;
pub use entry::{Content, Entry};
pub use history::{History, HistoryPage, HistoryQuery};
pub use kept::Change;
#[cfg(test)]
pub use node::State;
pub use node::{Event, Formats, Joined, NodeSettings, OwnState, Rank};
pub use start::{ClusterError, join};
pub use status::Status;
pub use tuning::{PAGE_RETRY, Tuning};
