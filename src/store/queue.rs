//! The queue from the hub to the store's thread. Nothing here blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use log::error;

use super::change::{Change, Followed};
use crate::chat::{Act, Action, Decision, KeptEntry, NamedModerator, TxnId};
use crate::ops::metrics::Counters;

/// The most that may wait to be stored, in bytes.
pub const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// The part of it that is not for messages, in bytes.
const RESERVED_BYTES: usize = 256 * 1024;
/// The most requests for pages that may wait. They have a queue of their own, because messages and decisions must not
/// wait for them, nor lack the room that they take.
pub const MAX_PAGE_REQUESTS: usize = 64;
/// What an item takes in memory without its texts, in bytes: itself, with spare room in the channel, and the headers of
/// its allocations.
const ITEM_BYTES: usize = 192;
/// After this time without a commit, the disk counts as stalled.
const STALL: Duration = Duration::from_secs(10);
/// The least time between two log lines about a disk that stalls or fails.
pub const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A request for messages that memory no longer holds.
#[derive(Clone, Debug)]
pub struct PageRequest<T> {
    /// Only messages with a smaller id.
    pub before: u64,
    /// At most how many.
    pub limit: usize,
    /// At most how much JSON, in bytes; a single message may be longer.
    pub max_bytes: usize,
    /// Comes back with the answer.
    pub tag: T,
}

/// How the hub reaches the store's thread. `T`: what comes back with a page.
///
/// Everything but the requests for pages is handled in the order in which it was passed. [`QUEUE_BYTES`] may wait, and
/// [`MAX_PAGE_REQUESTS`] requests for pages; what exceeds that is refused.
/// Once this is dropped, the thread writes what waits, and ends.
pub struct Queue<T> {
    items: Sender<Item>,
    pages: Sender<PageRequest<T>>,
    /// Wakes the thread while it waits for more messages to write at once.
    doorbell: Sender<()>,
    shared: Arc<QueueState>,
    stall_log: StallLog,
}

/// What the hub and the store's thread share.
#[derive(Default)]
pub struct QueueState {
    /// How often the thread has written something.
    commits: AtomicU64,
    counters: Arc<Counters>,
}

/// The thread's end of the queue.
pub struct Waiting<T> {
    pub items: Receiver<Item>,
    pub pages: Receiver<PageRequest<T>>,
    pub doorbell: Receiver<()>,
    pub shared: Arc<QueueState>,
}

pub enum Item {
    Message(KeptEntry),
    Act(Box<Act>),
    Decision(Box<Decision>),
    Change(Box<Change>),
    /// Ids up to this one may be assigned.
    Reserve(u64),
    ReloadModerators,
    /// The last id that was assigned.
    Close(u64),
}

/// A queue for the hub, and its other end. The bytes that wait and the messages that are lost are counted in
/// `counters`.
pub fn queue<T>(counters: Arc<Counters>) -> (Queue<T>, Waiting<T>) {
    let (sender, items) = unbounded();
    let (pages, page_requests) = bounded(MAX_PAGE_REQUESTS);
    let (doorbell, rung) = bounded(1);
    let shared = Arc::new(QueueState { counters, ..QueueState::default() });
    let queue =
        Queue { items: sender, pages, doorbell, shared: shared.clone(), stall_log: StallLog::default() };
    (queue, Waiting { items, pages: page_requests, doorbell: rung, shared })
}

impl<T> Queue<T> {
    /// Has a message stored, within some 100 ms. If too much waits, it is not stored, but counted.
    pub fn keep(&mut self, message: KeptEntry) {
        self.stall_log.check(&self.shared);
        if !self.push(Item::Message(message), QUEUE_BYTES - RESERVED_BYTES) {
            self.shared.counters.store_lost_message();
        }
    }

    /// Has a decision stored. It comes back as [`StoreEvent::Decided`](super::StoreEvent::Decided) once it is durable,
    /// or with `NotStored` if the disk has failed.
    ///
    /// # Errors
    /// Too much waits: it is not stored.
    pub fn decide(&mut self, decision: Box<Decision>) -> Result<(), Box<Decision>> {
        if !self.shared.add(Item::decision_bytes(&decision), QUEUE_BYTES) {
            return Err(decision);
        }
        self.send(Item::Decision(decision));
        self.ring();
        Ok(())
    }

    /// Has an act recorded, within some 100 ms. If too much waits, it is counted as a lost message.
    pub fn record(&mut self, act: Box<Act>) {
        if !self.push(Item::Act(act), QUEUE_BYTES) {
            self.shared.counters.store_lost_message();
        }
    }

    /// Makes the store match this chat, which other servers have as well. If too much waits, the oldest of its messages
    /// are not stored, but counted as lost.
    pub fn follow(&mut self, mut followed: Followed) {
        let room = (QUEUE_BYTES - RESERVED_BYTES).saturating_sub(self.shared.bytes());
        self.shared.counters.store_lost(followed.fit(room) as u64);
        self.change(Change::Follow(followed));
    }

    /// Adds messages of the shared history that the store lacks. Returns whether there was room: half of the queue is for
    /// other messages.
    pub fn copy(&mut self, messages: Vec<KeptEntry>) -> bool {
        self.push(Item::Change(Box::new(Change::Copy(messages))), QUEUE_BYTES / 2)
    }

    /// Stores another epoch, to which the contents of the store belong from now on. `is_shared`: other servers have the
    /// chat as well.
    pub fn set_epoch(&mut self, epoch: Arc<str>, is_shared: bool) {
        self.change(Change::Epoch { epoch, is_shared });
    }

    /// Stores these named moderators in place of the earlier ones. If too much waits, they are not.
    pub fn set_moderators(&mut self, moderators: Vec<NamedModerator>) {
        self.change(Change::Moderators(moderators));
    }

    /// Stores and records an act that has taken effect, within about 100 ms, if it is not stored yet. If too much
    /// waits, it is counted as a lost message.
    pub fn apply(&mut self, act: Box<Act>) {
        self.change(Change::Applied(act));
    }

    fn change(&mut self, change: Change) {
        let losses = change.losses();
        if !self.push(Item::Change(Box::new(change)), QUEUE_BYTES) {
            self.shared.counters.store_lost(losses as u64);
        }
    }

    /// Asks for messages. They come back as [`StoreEvent::Page`](super::StoreEvent::Page), with what was passed
    /// before, unless the store is closed first.
    ///
    /// # Errors
    /// [`MAX_PAGE_REQUESTS`] wait: there will be no answer.
    pub fn read_page(&mut self, request: PageRequest<T>) -> Result<(), PageRequest<T>> {
        self.pages.try_send(request).map_err(TrySendError::into_inner)?;
        self.ring();
        Ok(())
    }

    /// Has the ids up to this one reserved, so that no later start assigns them again. The thread reports that as
    /// [`StoreEvent::IdsReserved`](super::StoreEvent::IdsReserved); until then, an id after the earlier reservation
    /// could be assigned again after a crash. So ask long before the earlier one is used up.
    pub fn reserve(&mut self, up_to: u64) {
        // Without a bound: a few bytes, and seldom.
        self.send(Item::Reserve(up_to));
        self.ring();
    }

    /// Asks for the named moderators. They come back as [`StoreEvent::Moderators`](super::StoreEvent::Moderators).
    pub fn reload_moderators(&mut self) {
        self.send(Item::ReloadModerators);
        self.ring();
    }

    /// Ends the store's thread once everything is written. The next start continues after `last_id`.
    pub fn close(self, last_id: u64) {
        self.send(Item::Close(last_id));
    }

    /// Passes an item on. `false`: more than `limit` bytes would wait, and it is dropped.
    fn push(&self, item: Item, limit: usize) -> bool {
        let has_room = self.shared.add(item.bytes(), limit);
        if has_room {
            self.send(item);
        }
        has_room
    }

    /// If the thread has ended, by a panic, the item is dropped.
    fn send(&self, item: Item) {
        let _ = self.items.send(item);
    }

    fn ring(&self) {
        let _ = self.doorbell.try_send(());
    }
}

impl QueueState {
    /// Returns whether there was room.
    fn add(&self, bytes: usize, limit: usize) -> bool {
        // Only the hub adds.
        let has_room = self.bytes() + bytes <= limit;
        if has_room {
            self.counters.store_queue_add(bytes);
        }
        has_room
    }

    /// Makes room once an item is written.
    pub fn remove(&self, bytes: usize) {
        self.counters.store_queue_remove(bytes);
    }

    /// How many bytes wait. The counters of one process belong to one queue.
    pub fn bytes(&self) -> usize {
        self.counters.store_queue_bytes()
    }

    pub fn committed(&self) {
        self.commits.fetch_add(1, Relaxed);
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Item {
    /// What it takes in memory, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => Self::message_bytes(message),
            Self::Act(act) => Self::act_bytes(act),
            Self::Decision(decision) => Self::decision_bytes(decision),
            Self::Change(change) => change.bytes(),
            Self::Reserve(_) | Self::ReloadModerators | Self::Close(_) => 0,
        }
    }

    pub fn message_bytes(message: &KeptEntry) -> usize {
        ITEM_BYTES + Self::text_bytes(message)
    }

    pub fn text_bytes(message: &KeptEntry) -> usize {
        message.json.len() + message.txn_id.as_ref().map_or(0, TxnId::bytes)
    }

    pub fn act_bytes(act: &Act) -> usize {
        ITEM_BYTES + size_of::<Act>() + texts(&act.action)
    }

    pub fn decision_bytes(decision: &Decision) -> usize {
        ITEM_BYTES + size_of::<Decision>() + texts(&decision.act.action)
    }
}

fn texts(action: &Action) -> usize {
    match action {
        Action::Login | Action::TimeOut { .. } | Action::EndTimeOut { .. } | Action::Delete { .. } => 0,
        Action::Kick { reason, .. } => reason.len(),
        Action::Ban { ban } => ban.reason.len(),
        Action::Unban { target, bans } => target.len() + size_of_val(bans.as_slice()),
    }
}

/// Logs from the hub that the disk stalls: the store's thread cannot, because it waits for the disk.
#[derive(Default)]
struct StallLog {
    /// The thread's last commit that was seen, and when it was first seen.
    commits: u64,
    since: Option<Instant>,
    logged: Option<Instant>,
}

impl StallLog {
    fn check(&mut self, shared: &QueueState) {
        let waiting = shared.bytes();
        let commits = shared.commits.load(Relaxed);
        if waiting == 0 || commits != self.commits {
            (self.commits, self.since) = (commits, None);
            return;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let is_due = self.logged.is_none_or(|logged| now - logged >= LOG_INTERVAL);
        if now - since >= STALL && is_due {
            self.logged = Some(now);
            error!(
                "The store has written nothing for {} s, and {waiting} bytes wait: check the disk. Chat continues",
                (now - since).as_secs()
            );
        }
    }
}
