//! The newest messages, in order, as they were sent.

use std::collections::VecDeque;
use std::sync::Arc;

use super::name_key::NameKey;
use super::protocol::{MAX_PAGE_MESSAGES, TxnId, encode_with_txn_id};
use super::roster::JoinOrder;

/// The most that is held in memory, in bytes.
pub const MAX_HISTORY_BYTES: usize = 4 * 1024 * 1024;
/// The longest array of messages in an answer, in bytes: the other fields fit into the rest of 256 KiB.
pub const MAX_PAGE_BYTES: usize = 255 * 1024;
/// What an entry takes in memory without its texts, in bytes: itself, with as much spare room in the queue, and its
/// allocations' headers.
const ENTRY_BYTES: usize = 2 * size_of::<HistoryEntry>() + 48;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    /// 0: nothing is kept.
    pub messages: usize,
    /// `None`: forever.
    pub age_millis: Option<u64>,
}

pub struct History {
    entries: VecDeque<HistoryEntry>,
    limits: HistoryLimits,
    bytes: usize,
    /// The id of the newest message that is no longer kept; 0: all are.
    last_evicted: u64,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    pub id: u64,
    pub unix_millis: u64,
    pub json: Arc<[u8]>,
    /// The author's own id for the message, if it gave one, and its name.
    pub txn: Option<(TxnId, Arc<NameKey>)>,
    pub visibility: Visibility,
}

#[derive(Clone, Debug)]
pub enum Visibility {
    All,
    /// A whisper: its author, and the member that it is for.
    Participants(Arc<[Place; 2]>),
}

/// A member, from its join until it leaves. Its name may have other owners later.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub order: JoinOrder,
    pub name: Arc<NameKey>,
}

/// Messages for one member.
#[derive(Debug)]
pub struct Page {
    /// A JSON array, the oldest message first.
    pub json: Vec<u8>,
    /// Whether there are older messages.
    pub more: bool,
}

impl History {
    pub fn new(limits: HistoryLimits) -> Self {
        Self { entries: VecDeque::new(), limits, bytes: 0, last_evicted: 0 }
    }

    /// Adds a message, and evicts those that exceed a limit.
    pub fn push(&mut self, entry: HistoryEntry) {
        let now = entry.unix_millis;
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > self.limits.messages || self.bytes > MAX_HISTORY_BYTES {
            self.evict();
        }
        self.evict_old(now);
    }

    /// Evicts the messages that are too old.
    pub fn evict_old(&mut self, now_unix_millis: u64) {
        let Some(age) = self.limits.age_millis else { return };
        let oldest = now_unix_millis.saturating_sub(age);
        while self.entries.front().is_some_and(|entry| entry.unix_millis < oldest) {
            self.evict();
        }
    }

    /// The newest messages before the one with this id, at most `count`. From `unread`, which are newer than whatever
    /// the client has received, the answer contains all.
    pub fn page(&self, viewer: &Place, before: Option<u64>, count: u16, unread: &[HistoryEntry]) -> Page {
        let end = match before {
            Some(id) => self.position(id),
            None => self.entries.len(),
        };
        let unread_from = unread.first().map_or(u64::MAX, |entry| entry.id);
        // Room for those that are unread but too far back to be reached.
        let mut reserved = unread.len();
        let mut reserved_bytes: usize = unread.iter().map(|entry| entry.page_bytes(viewer)).sum();
        let (mut messages, mut bytes) = (Vec::new(), 0);
        let mut start = end;
        for (at, entry) in self.entries.range(..end).enumerate().rev() {
            if !entry.is_visible_to(viewer) {
                continue;
            }
            let size = entry.page_bytes(viewer);
            let unread_before = unread.partition_point(|unread| unread.id < entry.id);
            let is_unread = unread.get(unread_before).is_some_and(|unread| unread.id == entry.id);
            if is_unread {
                reserved = unread_before;
                reserved_bytes = reserved_bytes.saturating_sub(size);
            }
            let is_wanted = messages.len() < usize::from(count) || entry.id >= unread_from;
            let fits = messages.len() + reserved < MAX_PAGE_MESSAGES.into()
                && bytes + size + reserved_bytes <= MAX_PAGE_BYTES;
            // A message that is longer than an answer has one to itself: otherwise paging would end here.
            if !is_wanted || !(fits || messages.is_empty() && reserved == 0) {
                break;
            }
            bytes += size;
            messages.push(entry);
            start = at;
        }
        let oldest = messages.last().map_or(u64::MAX, |entry| entry.id);
        messages.extend(unread.iter().rev().filter(|entry| entry.id < oldest));
        messages.reverse();
        Page { json: array(&messages, viewer), more: self.is_any_visible(start, viewer) }
    }

    /// Everything after the message with this id. `None`: some of it is no longer kept, or it exceeds one answer.
    pub fn since(&self, viewer: &Place, id: u64) -> Option<Page> {
        if id < self.last_evicted {
            return None;
        }
        let start = self.position(id + 1);
        let (mut messages, mut bytes) = (Vec::new(), 0);
        for entry in self.entries.range(start..) {
            if entry.is_of_an_earlier_place(viewer) {
                return None;
            }
            if entry.is_visible_to(viewer) {
                bytes += entry.page_bytes(viewer);
                messages.push(entry);
            }
        }
        if messages.len() > MAX_PAGE_MESSAGES.into() || bytes > MAX_PAGE_BYTES {
            return None;
        }
        Some(Page { json: array(&messages, viewer), more: self.is_any_visible(start, viewer) })
    }

    /// How much is held in memory, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn evict(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.bytes();
            self.last_evicted = entry.id;
        }
    }

    /// The index of the first message whose id is at least this.
    fn position(&self, id: u64) -> usize {
        self.entries.partition_point(|entry| entry.id < id)
    }

    fn is_any_visible(&self, end: usize, viewer: &Place) -> bool {
        self.entries.range(..end).any(|entry| entry.is_visible_to(viewer))
    }
}

impl HistoryEntry {
    /// What it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        let txn = self.txn.as_ref().map_or(0, |(id, name)| id.bytes() + name.bytes());
        let places = match &self.visibility {
            Visibility::All => 0,
            Visibility::Participants(places) => {
                size_of::<[Place; 2]>() + places.iter().map(|place| place.name.bytes()).sum::<usize>()
            }
        };
        ENTRY_BYTES + self.json.len() + txn + places
    }

    /// Appends the message as this member gets it.
    pub fn encode(&self, viewer: &Place, json: &mut Vec<u8>) {
        match self.txn_id(viewer) {
            None => json.extend_from_slice(&self.json),
            Some(txn_id) => encode_with_txn_id(&self.json, txn_id, json),
        }
    }

    /// The `txn_id`, if the message is the member's own. A client whose place has ended must learn which of its
    /// messages have arrived: of those to all, the author is who has its name.
    fn txn_id(&self, viewer: &Place) -> Option<&TxnId> {
        let (txn_id, author) = self.txn.as_ref()?;
        let is_own = match &self.visibility {
            Visibility::All => *author == viewer.name,
            Visibility::Participants(places) => places[0].order == viewer.order,
        };
        is_own.then_some(txn_id)
    }

    fn is_visible_to(&self, viewer: &Place) -> bool {
        match &self.visibility {
            Visibility::All => true,
            Visibility::Participants(places) => places.iter().any(|place| place.order == viewer.order),
        }
    }

    /// Whether it is a whisper of an earlier owner of the member's name, who may have been the same person.
    fn is_of_an_earlier_place(&self, viewer: &Place) -> bool {
        match &self.visibility {
            Visibility::All => false,
            Visibility::Participants(places) => {
                places.iter().any(|place| place.name == viewer.name && place.order != viewer.order)
            }
        }
    }

    /// Its size in an answer to this member, with a comma, in bytes.
    fn page_bytes(&self, viewer: &Place) -> usize {
        let txn = self.txn_id(viewer).map_or(0, |id| r#","txn_id":"""#.len() + id.json_bytes());
        self.json.len() + txn + 1
    }
}

fn array(messages: &[&HistoryEntry], viewer: &Place) -> Vec<u8> {
    let size = messages.iter().map(|entry| entry.page_bytes(viewer)).sum::<usize>();
    let mut json = Vec::with_capacity(size + 2);
    json.push(b'[');
    for (at, entry) in messages.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        entry.encode(viewer, &mut json);
    }
    json.push(b']');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, length: usize) -> HistoryEntry {
        let json = vec![b'x'; length].into();
        HistoryEntry { id, unix_millis: 0, json, txn: None, visibility: Visibility::All }
    }

    #[test]
    fn memory_holds_four_mebibytes() {
        let mut history = History::new(HistoryLimits { messages: 1_000_000, age_millis: None });
        for id in 1..100_000 {
            history.push(entry(id, 100));
        }
        assert!((MAX_HISTORY_BYTES - 1000..=MAX_HISTORY_BYTES).contains(&history.bytes()));
        let entries = history.entries.capacity() * size_of::<HistoryEntry>();
        // An allocation has a header, and its size is rounded.
        let json = history.len() * (100 + 16 + 16);
        assert!(entries + json <= MAX_HISTORY_BYTES, "{entries} + {json}");
        history.push(entry(100_000, MAX_HISTORY_BYTES));
        assert_eq!((history.len(), history.bytes(), history.last_evicted), (0, 0, 100_000));
    }

    #[test]
    fn a_message_that_is_longer_than_an_answer_does_not_end_paging() {
        let mut history = History::new(HistoryLimits { messages: 10, age_millis: None });
        for (id, length) in [(1, 10), (2, MAX_PAGE_BYTES + 1), (3, 10)] {
            history.push(entry(id, length));
        }
        let viewer = Place { order: JoinOrder(0), name: Arc::default() };
        for (before, length, more) in [(4, 10, true), (3, MAX_PAGE_BYTES + 1, true), (2, 10, false)] {
            let page = history.page(&viewer, Some(before), 200, &[]);
            assert_eq!((page.json.len(), page.more), (length + 2, more));
        }
        assert!(history.since(&viewer, 0).is_none());
    }
}
