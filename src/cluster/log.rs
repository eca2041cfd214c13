//! The shared log, for the one thread that appends to it and applies its entries.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::Sender;
use log::error;

use super::entry::Entry;
use super::kept::Change;
use super::node::{Joined, OwnState, Rank};
use super::outbox::{MAX_QUEUE_BYTES, MAX_QUEUE_ENTRIES};
use super::snapshot::{Applied, MAX_SNAPSHOT_BYTES, Snapshot};
use super::status::Status;
use super::writer::{Command, HistoryUpdate, Offer};
use crate::chat::{HistoryLimits, KeptEntry, NodeNumber};

/// Appends to the log, and knows how far this node has applied it. No method waits for the engine.
pub struct SharedLog {
    commands: Sender<Command>,
    history: Sender<HistoryUpdate>,
    status: Arc<Status>,
    node: NodeNumber,
    epoch: String,
    next_sequence: u64,
    applied: Applied,
}

impl SharedLog {
    pub fn new(
        commands: Sender<Command>,
        history: Sender<HistoryUpdate>,
        status: Arc<Status>,
        joined: &Joined,
    ) -> Self {
        Self {
            commands,
            history,
            status,
            node: joined.node,
            epoch: joined.epoch.clone(),
            next_sequence: 1,
            applied: joined.applied.clone(),
        }
    }

    /// Whether the queue is below [`MAX_QUEUE_BYTES`] and [`MAX_QUEUE_ENTRIES`].
    pub fn has_room(&self) -> bool {
        let waiting = self.status.queue();
        waiting.entries < MAX_QUEUE_ENTRIES && waiting.bytes < MAX_QUEUE_BYTES
    }

    /// Appends an entry, and returns the sequence number that it will have. It comes back as an
    /// [`Entry`] of this node, once, unless this node's number changes before.
    ///
    /// While there is [no room](Self::has_room), the caller must hold back new entries. Those that are in flight can
    /// still be appended.
    pub fn append(&mut self, data: Vec<u8>) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.status.queued(data.len());
        self.send(Command::Append { node: self.node, data });
        sequence
    }

    /// Asks for an entry with this time or a later one, once the engine's clock has reached it. Replaces an earlier
    /// request.
    pub fn tick(&self, at_millis: u64) {
        self.send(Command::Tick(at_millis));
    }

    /// Must be called for each entry, once it is applied.
    pub fn applied(&mut self, entry: &Entry) {
        self.applied.apply(entry);
        self.status.applied(entry.id);
    }

    /// Must be called for each change that an entry makes to the history, in order.
    pub fn keep(&self, change: Change) {
        let is_urgent = change.is_urgent();
        // As with the commands: if the thread has ended, nothing more can be done.
        let _ = self.history.send(HistoryUpdate::Change(change));
        if is_urgent {
            self.send(Command::WriteHistory);
        }
    }

    /// Says what this node has in memory of the history: all messages with ids greater than `base`, and the ids of those
    /// that were deleted last. Must be called at the start, and after [`Event::Joined`](super::Event::Joined) and
    /// [`Event::HistoryDue`](super::Event::HistoryDue).
    pub fn history(&self, base: u64, messages: Vec<KeptEntry>, deleted: Vec<u64>, limits: HistoryLimits) {
        let epoch = self.epoch.clone();
        let _ = self.history.send(HistoryUpdate::All { epoch, base, messages, deleted, limits });
        self.send(Command::WriteHistory);
    }

    /// Stores the chat's state after the last entry that was [applied](Self::applied). The answer to
    /// [`Event::SnapshotDue`](super::Event::SnapshotDue). `encode` runs on a thread of its own, and returns `None` if
    /// there is nothing to store.
    pub fn snapshot(&self, encode: impl FnOnce() -> Option<Vec<u8>> + Send + 'static) {
        let (epoch, applied, commands) = (self.epoch.clone(), self.applied.clone(), self.commands.clone());
        in_background(move || {
            let Some(chat) = encode() else { return };
            if chat.len() > MAX_SNAPSHOT_BYTES {
                error!(
                    "The chat's state is {} bytes, and cannot be stored: the limit is {MAX_SNAPSHOT_BYTES}",
                    chat.len()
                );
                return;
            }
            let snapshot = Snapshot::encode(&epoch, &applied, &chat);
            // If the thread has ended, nothing more can be stored.
            let _ = commands.send(Command::Snapshot { epoch, id: applied.id, snapshot });
        });
    }

    /// Offers the chat's state after the last entry that was [applied](Self::applied), to fill the engine with. The
    /// answer to [`Event::OfferDue`](super::Event::OfferDue). `encode`: as for [`Self::snapshot`].
    pub fn offer(&self, encode: impl FnOnce() -> Option<Vec<u8>> + Send + 'static) {
        let (applied, commands) = (self.applied.clone(), self.commands.clone());
        in_background(move || {
            let Some(chat) = encode() else { return };
            let own = OwnState { rank: Rank::Live(applied.id), chat };
            let _ = commands.send(Command::Offer(Offer { own, applied }));
        });
    }

    /// Continues with what an [`Event::Joined`](super::Event::Joined) says.
    pub fn adopt(&mut self, joined: &Joined) {
        if joined.node != self.node {
            self.next_sequence = 1;
        }
        self.node = joined.node;
        self.epoch.clone_from(&joined.epoch);
        if joined.state.is_some() {
            self.applied.clone_from(&joined.applied);
            self.status.applied(self.applied.id);
        }
    }

    /// Writes what was appended, and leaves the chat: the other nodes see [`NodeDown`](super::Content::NodeDown).
    /// [`Event::Left`](super::Event::Left) follows. Entries continue to come until then.
    pub fn leave(&self) {
        self.send(Command::Leave);
    }

    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// If the thread has ended, nothing more can be done.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

fn in_background(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name("snapshot".into()).spawn(work) {
        error!("The chat's state cannot be stored: the system cannot create a thread ({error})");
    }
}

/// Ends the threads. Without [`leave`](SharedLog::leave), the other nodes consider this one dead once its lease has
/// expired.
impl Drop for SharedLog {
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}

#[cfg(test)]
impl SharedLog {
    /// The epoch, and how far this node has applied its log.
    pub fn position(&self) -> (&str, &Applied) {
        (&self.epoch, &self.applied)
    }

    /// A node of an empty chat, and a log without threads: nothing comes of what it is asked.
    pub fn detached() -> (Joined, Self) {
        let applied = Applied::default();
        let joined = Joined {
            node: NodeNumber::new(1).unwrap(),
            epoch: "0f".into(),
            format: 1,
            state: None,
            id: 0,
            sequence: 0,
            log_id: 0,
            applied,
        };
        let (commands, history) = (crossbeam_channel::unbounded().0, crossbeam_channel::unbounded().0);
        let log = Self::new(commands, history, Arc::new(Status::new("a")), &joined);
        (joined, log)
    }
}
