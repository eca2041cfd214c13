//! The hub's side of the store: requests to it, and the decisions that are not durable yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "cluster")]
use crossbeam_channel::Sender;

use crate::chat::{
    Act, ConnectionId, Decision, Deletion, HistoryEntry, KeptEntry, NameKey, NamedModerator, OlderMessages,
    OlderRequest, Outcome, StoreUnavailable, StoredHistory, Visibility,
};
use crate::store::{self, Followed, PageRequest, RESERVED_IDS, StoreEvent, StoredMessage, StoredPage};

/// How long the store has to make a decision durable. After that, the decision takes effect without being stored.
const DECISION_TIMEOUT: Duration = Duration::from_secs(5);
/// The most messages that are copied at once between the store and the history of several servers.
#[cfg(feature = "cluster")]
pub const COPIED_MESSAGES: usize = 500;
/// The same in bytes; a single message may be longer.
#[cfg(feature = "cluster")]
pub const COPIED_BYTES: usize = 256 * 1024;

/// Who asked the store for messages.
pub enum Tag {
    /// A member on this connection.
    Older(ConnectionId, Box<OlderRequest>),
    /// The thread that copies the history of several servers. `applied`: the id of the last entry. `deleted`: messages
    /// that may still be in the store.
    #[cfg(feature = "cluster")]
    Copy { applied: u64, deleted: Vec<u64>, reply: Sender<StoredRows> },
}

/// Messages of the store, the newest first.
#[cfg(feature = "cluster")]
pub struct StoredRows {
    pub messages: Vec<KeptEntry>,
    /// There are older ones, which have smaller ids than this.
    pub before: Option<u64>,
    /// The id of the last entry that was applied.
    pub applied: u64,
}

pub type Queue = store::Queue<Tag>;

/// What the store reports to the hub.
pub enum Report {
    Decided(Box<Decision>, Outcome),
    Older(ConnectionId, Box<OlderRequest>, Result<OlderMessages, StoreUnavailable>),
    /// Whether the history of several servers has the message that a decision deletes. `None`: it cannot be read.
    #[cfg(feature = "cluster")]
    Found(Box<Decision>, Option<bool>),
    Moderators(Vec<NamedModerator>),
    IdsReserved(u64),
}

impl Report {
    /// Call this on the store's thread: to compute the keys of a page's names would delay the hub. `None`: it is not
    /// for the hub.
    pub fn of_store(event: StoreEvent<Tag>) -> Option<Self> {
        Some(match event {
            StoreEvent::Decided(decision, outcome) => Self::Decided(decision, outcome),
            StoreEvent::Page(Tag::Older(connection, request), page) => {
                Self::Older(connection, request, page.map(older_messages).ok_or(StoreUnavailable))
            }
            #[cfg(feature = "cluster")]
            StoreEvent::Page(Tag::Copy { applied, deleted, reply }, page) => {
                if let Some(StoredPage { messages, has_older: more }) = page {
                    let before = messages.first().filter(|_| more).map(|oldest| oldest.id);
                    let messages = messages.into_iter().rev().map(StoredMessage::into_kept);
                    let messages = messages.filter(|message| !deleted.contains(&message.id)).collect();
                    // The thread may have ended.
                    let _ = reply.send(StoredRows { messages, before, applied });
                }
                return None;
            }
            StoreEvent::Moderators(moderators) => Self::Moderators(moderators),
            StoreEvent::IdsReserved(id) => Self::IdsReserved(id),
        })
    }
}

/// The hub's access to the store. By default there is none.
#[derive(Default)]
pub struct Storage {
    queue: Option<Queue>,
    /// Ids up to this one are reserved.
    reserved_id: u64,
    /// Whether more are being reserved.
    is_reserving: bool,
    /// Decisions that are not durable yet, and when they take effect without being stored, in this order.
    waiting: VecDeque<(Instant, Box<Decision>)>,
}

impl Storage {
    /// `reserved_id`: ids up to this one are reserved.
    pub fn new(queue: Queue, reserved_id: u64) -> Self {
        Self { queue: Some(queue), reserved_id, ..Self::default() }
    }

    pub fn keep(&mut self, entry: &KeptEntry) {
        if let Some(queue) = &mut self.queue {
            queue.keep(entry.clone());
        }
    }

    pub fn record(&mut self, act: Box<Act>) {
        if let Some(queue) = &mut self.queue {
            queue.record(act);
        }
    }

    /// Whether nothing is stored.
    pub fn is_off(&self) -> bool {
        self.queue.is_none()
    }

    /// Has a decision stored. The store answers with [`Report::Decided`].
    ///
    /// # Errors
    /// Too much waits for the store.
    pub fn decide(&mut self, decision: Box<Decision>, now: Instant) -> Result<(), Box<Decision>> {
        let Some(queue) = &mut self.queue else { return Err(decision) };
        queue.decide(decision.clone())?;
        self.waiting.push_back((now + DECISION_TIMEOUT, decision));
        Ok(())
    }

    /// The store has answered. `false`: the decision has already taken effect.
    pub fn decided(&mut self, decision: &Decision) -> bool {
        let position = self.waiting.iter().position(|(_, waiting)| **waiting == *decision);
        position.and_then(|position| self.waiting.remove(position)).is_some()
    }

    /// When to call [`Self::pop_overdue`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|&(deadline, _)| deadline)
    }

    /// A decision for which the store has taken too long.
    pub fn pop_overdue(&mut self, now: Instant) -> Option<Box<Decision>> {
        self.next_deadline().filter(|&deadline| deadline <= now)?;
        self.waiting.pop_front().map(|(_, decision)| decision)
    }

    /// Asks for messages.
    ///
    /// # Errors
    /// Too much waits for the store.
    pub fn read_older(
        &mut self,
        connection: ConnectionId,
        request: &OlderRequest,
    ) -> Result<(), StoreUnavailable> {
        let queue = self.queue.as_mut().ok_or(StoreUnavailable)?;
        let page = &request.page;
        queue
            .read_page(PageRequest {
                before: page.before,
                limit: page.count.into(),
                max_bytes: page.bytes,
                tag: Tag::Older(connection, request.clone().into()),
            })
            .map_err(|_| StoreUnavailable)
    }

    /// Has more ids reserved when half of them are assigned.
    pub fn assigned(&mut self, id: u64) {
        let Some(queue) = &mut self.queue else { return };
        if !self.is_reserving && id + RESERVED_IDS / 2 > self.reserved_id {
            self.is_reserving = true;
            queue.reserve(id + RESERVED_IDS);
        }
    }

    pub fn reserved(&mut self, id: u64) {
        (self.reserved_id, self.is_reserving) = (id, false);
    }

    pub fn reload_moderators(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.reload_moderators();
        }
    }

    /// Ends the store's thread once everything is written.
    pub fn close(&mut self, last_id: u64) {
        if let Some(queue) = self.queue.take() {
            queue.close(last_id);
        }
    }
}

#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
impl Storage {
    /// Whether a decision is being stored.
    pub fn is_deciding(&self, decision: &Decision) -> bool {
        self.waiting.iter().any(|(_, waiting)| **waiting == *decision)
    }

    /// Makes the store match this chat, which other servers have as well.
    pub fn follow(&mut self, followed: impl FnOnce() -> Followed) {
        if let Some(queue) = &mut self.queue {
            queue.follow(followed());
        }
    }

    /// Adds messages that the store lacks. Returns whether there was room for them.
    pub fn copy(&mut self, messages: Vec<KeptEntry>) -> bool {
        self.queue.as_mut().is_some_and(|queue| queue.copy(messages))
    }

    /// Reads messages for the history of several servers. If too many requests wait, `reply` is dropped.
    #[cfg(feature = "cluster")]
    pub fn read_rows(&mut self, before: u64, applied: u64, deleted: Vec<u64>, reply: Sender<StoredRows>) {
        if let Some(queue) = &mut self.queue {
            let (limit, max_bytes) = (COPIED_MESSAGES, COPIED_BYTES);
            let tag = Tag::Copy { applied, deleted, reply };
            let _ = queue.read_page(PageRequest { before, limit, max_bytes, tag });
        }
    }

    /// Stores these named moderators in place of the earlier ones.
    pub fn set_moderators(&mut self, moderators: Vec<NamedModerator>) {
        if let Some(queue) = &mut self.queue {
            queue.set_moderators(moderators);
        }
    }

    /// Stores and records an act that has taken effect, if it is not stored yet: a decision of another server, or an
    /// act from an entry that may have been applied before this server was restarted.
    pub fn apply(&mut self, act: &Act) {
        if let Some(queue) = &mut self.queue {
            queue.apply(Box::new(act.clone()));
        }
    }
}

/// Call this on a thread other than the hub's.
#[cfg(feature = "cluster")]
pub fn kept_messages(messages: Vec<KeptEntry>, more: bool) -> OlderMessages {
    let messages = messages.into_iter().filter_map(StoredMessage::from_kept);
    OlderMessages { entries: messages.map(history_entry).collect(), more }
}

fn older_messages(page: StoredPage) -> OlderMessages {
    let StoredPage { messages, has_older } = page;
    OlderMessages { entries: messages.into_iter().rev().map(history_entry).collect(), more: has_older }
}

/// What the room continues with. `last_id`: of the last entry before the start.
pub fn stored_history(
    messages: Vec<StoredMessage>,
    newest_older: Option<u64>,
    deleted: &[u64],
    last_id: u64,
) -> StoredHistory {
    // As if they took place next: their places in the order are not stored.
    let deletion = |&id: &u64| Deletion { at: last_id + 1, id, participants: None };
    StoredHistory {
        entries: messages.into_iter().map(history_entry).collect(),
        newest_older,
        deletions: deleted.iter().map(deletion).collect(),
    }
}

fn history_entry(message: StoredMessage) -> HistoryEntry {
    let StoredMessage { id, unix_millis, json, author, txn_id } = message;
    let author = author.as_deref().map(|author| Arc::new(NameKey::of(author)));
    let txn = txn_id.zip(author);
    HistoryEntry { id, unix_millis, json, txn, visibility: Visibility::All, author: None }
}
