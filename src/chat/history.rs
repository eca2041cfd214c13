//! The newest messages, in order, as they were sent.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::format::is_default;
use super::name_key::NameKey;
use super::protocol::{MAX_PAGE_MESSAGES, TxnId, encode_with_txn_id};
#[cfg(feature = "cluster")]
use super::room::KeptEntry;
use super::roster::JoinOrder;

/// The most that is held in memory, in bytes.
pub const MAX_HISTORY_BYTES: usize = 4 * 1024 * 1024;
/// The longest array of messages in an answer, in bytes: the other fields fit into the rest of 256 KiB.
pub const MAX_PAGE_BYTES: usize = 255 * 1024;
/// How many of the last deletions are remembered, for clients that were not connected.
pub const MAX_DELETIONS: usize = 1000;
/// How many of them a page from the store may have missed.
const MAX_MISSED_DELETIONS: usize = 256;
/// What an entry takes in memory without its texts, in bytes: itself, with as much spare room in the queue, and its
/// allocations' headers.
const ENTRY_BYTES: usize = 2 * size_of::<HistoryEntry>() + 48;

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// How many of the entries are not whispers.
    public: usize,
    /// The id of the newest evicted message; 0: none was evicted.
    last_evicted: u64,
    /// Messages from before this time are too old, in milliseconds since 1970.
    oldest_millis: u64,
    /// Whether messages are kept elsewhere as well: in the store, or on the engine of several servers.
    is_stored: bool,
    /// The last ones, in order.
    deletions: VecDeque<Deletion>,
    /// Whether there may be messages that are older than those in memory.
    has_older: bool,
}

/// What the store has kept.
#[derive(Debug, Default)]
pub struct StoredHistory {
    /// The newest messages, the oldest first.
    pub entries: Vec<HistoryEntry>,
    /// The id of the newest message before these; `None`: there is none.
    pub newest_older: Option<u64>,
    /// The last deletions, in order.
    pub deletions: Vec<Deletion>,
}

/// What is held in memory, for a snapshot.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptHistory {
    /// The oldest first.
    entries: Vec<HistoryEntry>,
    last_evicted: u64,
    is_stored: bool,
    has_older: bool,
    /// In order.
    deletions: Vec<Deletion>,
}

/// A message was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// The id of the entry that has deleted it.
    pub at: u64,
    /// The message's.
    pub id: u64,
    /// Those of a whisper; `None`: the message was for all members.
    pub participants: Option<[JoinOrder; 2]>,
}

/// A page of which memory has only the newer part, or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct OlderPage {
    /// Messages before the one with this id are still missing.
    pub before: u64,
    /// How many of the newest of them.
    pub count: u16,
    /// How many bytes their JSON may have, with a comma after each. The first message of an answer may exceed this.
    pub bytes: usize,
    /// From memory, the newest first.
    newer: Vec<HistoryEntry>,
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryEntry {
    pub id: u64,
    #[serde(rename = "at")]
    pub unix_millis: u64,
    #[serde(with = "super::format::json_text")]
    pub json: Arc<[u8]>,
    /// The author's own id for the message, if it gave one, and its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<(TxnId, Arc<NameKey>)>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub visibility: Visibility,
    /// `None`: the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<JoinOrder>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    #[default]
    All,
    /// A whisper: its author, and the member that it is for.
    Participants(Arc<[Place; 2]>),
}

/// A member, from its join until it leaves. Its name may have other owners later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// `stored`: what the store has kept; `None`: there is no store.
    pub fn new(limits: HistoryLimits, stored: Option<StoredHistory>) -> Self {
        let mut history = Self {
            entries: VecDeque::new(),
            limits,
            bytes: 0,
            public: 0,
            last_evicted: 0,
            oldest_millis: 0,
            is_stored: stored.is_some(),
            deletions: VecDeque::new(),
            has_older: false,
        };
        let StoredHistory { entries, newest_older, deletions } = stored.unwrap_or_default();
        history.deletions = deletions.into();
        history.has_older = newest_older.is_some();
        history.last_evicted = newest_older.unwrap_or(0);
        entries.into_iter().for_each(|entry| history.push(entry));
        history
    }

    pub fn limits(&self) -> HistoryLimits {
        self.limits
    }

    pub fn kept(&self) -> KeptHistory {
        KeptHistory {
            entries: self.entries.iter().cloned().collect(),
            last_evicted: self.last_evicted,
            is_stored: self.is_stored,
            has_older: self.has_older,
            deletions: self.deletions.iter().copied().collect(),
        }
    }

    /// `None`: no history is like this.
    pub fn restored(limits: HistoryLimits, kept: KeptHistory) -> Option<Self> {
        let KeptHistory { entries, last_evicted, is_stored, has_older, deletions } = kept;
        is_in_order(&entries).then(|| Self {
            bytes: entries.iter().map(HistoryEntry::bytes).sum(),
            public: entries.iter().filter(|entry| entry.is_public()).count(),
            entries: entries.into(),
            limits,
            last_evicted,
            oldest_millis: 0,
            is_stored,
            deletions: deletions.into(),
            has_older,
        })
    }

    /// The messages to all members.
    #[cfg(feature = "cluster")]
    pub fn public(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.entries.iter().filter(|entry| entry.is_public())
    }

    /// The ids of the messages to all members that were deleted, in order.
    #[cfg(feature = "cluster")]
    pub fn deletions(&self) -> impl Iterator<Item = u64> {
        self.deletions.iter().filter(|deletion| deletion.participants.is_none()).map(|deletion| deletion.id)
    }

    /// All deletions by entries after the one with this id are remembered.
    #[cfg(feature = "cluster")]
    pub fn remembers_deletions_after(&self) -> u64 {
        let oldest = self.deletions.front().filter(|_| self.deletions.len() >= MAX_DELETIONS);
        oldest.map_or(0, |oldest| oldest.at)
    }

    /// The id of the newest message that memory no longer holds; 0: there is none.
    #[cfg(feature = "cluster")]
    pub fn last_evicted(&self) -> u64 {
        self.last_evicted
    }

    /// How many of the messages to all members that memory no longer holds are kept, at most.
    #[cfg(feature = "cluster")]
    pub fn beyond_memory(&self) -> usize {
        self.limits.messages.saturating_sub(self.public)
    }

    /// Whether messages are kept elsewhere as well.
    pub fn is_stored(&self) -> bool {
        self.is_stored && self.limits.messages > 0
    }

    /// Adds a message, and evicts those that exceed a limit.
    pub fn push(&mut self, entry: HistoryEntry) {
        let now = entry.unix_millis;
        self.bytes += entry.bytes();
        self.public += usize::from(entry.is_public());
        self.entries.push_back(entry);
        while self.entries.len() > self.limits.messages || self.bytes > MAX_HISTORY_BYTES {
            // Beyond the limit, the store deletes it as well.
            let is_kept = self.public <= self.limits.messages;
            let evicted = self.evict();
            self.has_older |= self.is_stored && is_kept && evicted.is_some_and(|entry| entry.is_public());
        }
        if self.public >= self.limits.messages {
            self.has_older = false;
        }
        self.evict_old(now);
    }

    /// Evicts the messages that are too old.
    pub fn evict_old(&mut self, now_unix_millis: u64) {
        let Some(age) = self.limits.age_millis else { return };
        self.oldest_millis = now_unix_millis.saturating_sub(age);
        while self.entries.front().is_some_and(|entry| self.is_old(entry)) {
            self.evict();
        }
    }

    fn is_old(&self, entry: &HistoryEntry) -> bool {
        entry.unix_millis < self.oldest_millis
    }

    /// At most `count` of the newest messages before the one with the id `before`, from memory alone.
    pub fn page(&self, viewer: &Place, before: Option<u64>, count: u16) -> Page {
        let end = before.map_or(self.entries.len(), |id| self.position(id));
        let (messages, _) = self.select(viewer, end, count);
        self.finish(messages, end, viewer)
    }

    /// The same, or what is missing for it, which the store has.
    pub fn page_with_older(
        &self,
        viewer: &Place,
        before: Option<u64>,
        count: u16,
    ) -> Result<Page, OlderPage> {
        let end = before.map_or(self.entries.len(), |id| self.position(id));
        let (messages, is_full) = self.select(viewer, end, count);
        if is_full || !self.has_older {
            return Ok(self.finish(messages, end, viewer));
        }
        let oldest = self.entries.front().map_or(u64::MAX, |entry| entry.id);
        let selected = messages.entries.len() as u16;
        Err(OlderPage {
            before: before.map_or(oldest, |before| before.min(oldest)),
            count: count - selected,
            bytes: MAX_PAGE_BYTES.saturating_sub(messages.bytes),
            newer: messages.entries.into_iter().cloned().collect(),
        })
    }

    /// Completes a page. `older`: what the store has for it, the newest first; `more`: whether it has more.
    pub fn complete(&self, viewer: &Place, page: &OlderPage, older: &[HistoryEntry], more: bool) -> Page {
        let mut messages = Selection::default();
        let mut is_cut = false;
        let kept = older.iter().filter(|entry| !self.is_old(entry));
        // The page may have been read before they were deleted.
        let missed = || self.deletions.iter().rev().take(MAX_MISSED_DELETIONS);
        let is_deleted = |id| missed().any(|deletion| deletion.id == id);
        for entry in page.newer.iter().chain(kept).filter(|entry| !is_deleted(entry.id)) {
            let size = entry.page_bytes(viewer);
            is_cut = !messages.has_room(size) && !messages.entries.is_empty();
            if is_cut {
                break;
            }
            messages.add(entry, size);
        }
        Page { json: messages.encode(viewer), more: more || is_cut }
    }

    /// The newest `count` messages before this index, as far as they fit into an answer, and whether no more fit or
    /// were wanted.
    fn select(&self, viewer: &Place, end: usize, count: u16) -> (Selection<'_>, bool) {
        let is_wanted = |entry: &&HistoryEntry| entry.is_visible_to(viewer) && !self.is_old(entry);
        let wanted = self.entries.range(..end).rev().filter(is_wanted);
        let mut messages = Selection::default();
        for entry in wanted.take(count.into()) {
            let size = entry.page_bytes(viewer);
            // A message that is longer than an answer is sent alone; otherwise paging would stop at it.
            if !messages.has_room(size) && !messages.entries.is_empty() {
                return (messages, true);
            }
            messages.add(entry, size);
        }
        let is_full = messages.entries.len() >= count.into();
        (messages, is_full)
    }

    /// The newest `count` messages, and in any case all of `unread` and, if there is room, what came after the first of
    /// them.
    pub fn page_with_unread(&self, viewer: &Place, count: u16, unread: &[HistoryEntry]) -> Page {
        let Some(first_unread) = unread.first() else { return self.page(viewer, None, count) };
        let mut messages = Selection::default();
        for entry in unread {
            messages.add(entry, entry.page_bytes(viewer));
        }
        let mut others = 0;
        for entry in self.entries.iter().rev().filter(|entry| entry.is_visible_to(viewer)) {
            if unread.binary_search_by_key(&entry.id, |unread| unread.id).is_ok() {
                continue;
            }
            let size = entry.page_bytes(viewer);
            let is_wanted = others < count || entry.id > first_unread.id;
            if !is_wanted || !messages.has_room(size) {
                break;
            }
            messages.add(entry, size);
            others += 1;
        }
        messages.entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
        self.finish(messages, self.entries.len(), viewer)
    }

    /// Everything after the message with this id. `None`: some of it is no longer kept, or it exceeds one answer, or an
    /// earlier owner of the name had whispers.
    pub fn since(&self, viewer: &Place, id: u64) -> Option<Page> {
        if id < self.last_evicted {
            return None;
        }
        let mut messages = Selection::default();
        for entry in self.entries.range(self.position(id + 1)..).rev() {
            if entry.is_of_an_earlier_place(viewer) {
                return None;
            }
            if entry.is_visible_to(viewer) {
                let size = entry.page_bytes(viewer);
                if !messages.has_room(size) {
                    return None;
                }
                messages.add(entry, size);
            }
        }
        Some(self.finish(messages, self.position(id + 1), viewer))
    }

    /// `end`: the index after the newest message that could have been selected; before the oldest that was, there may be
    /// more.
    fn finish(&self, messages: Selection, end: usize, viewer: &Place) -> Page {
        let start = messages.entries.last().map_or(end, |oldest| self.position(oldest.id).min(end));
        let more = self.has_older || self.entries.range(..start).any(|entry| entry.is_visible_to(viewer));
        Page { json: messages.encode(viewer), more }
    }

    pub fn get(&self, id: u64) -> Option<&HistoryEntry> {
        self.entries.get(self.position(id)).filter(|entry| entry.id == id)
    }

    /// Removes a message that was deleted, if it is in memory. It was not evicted: an answer without it is complete.
    pub fn remove(&mut self, id: u64) -> Option<HistoryEntry> {
        self.get(id)?;
        let entry = self.entries.remove(self.position(id))?;
        self.bytes -= entry.bytes();
        self.public -= usize::from(entry.is_public());
        Some(entry)
    }

    /// Whether a message that is not in memory may be kept elsewhere, as far as memory knows.
    pub fn may_be_stored(&self, id: u64) -> bool {
        self.has_older && id <= self.last_evicted && !self.was_deleted(id)
    }

    /// Whether it was one of the last deletions.
    pub fn was_deleted(&self, id: u64) -> bool {
        self.deletions.iter().any(|deletion| deletion.id == id)
    }

    /// Remembers that a message was deleted, in memory or elsewhere.
    pub fn deleted(&mut self, deletion: Deletion) {
        if self.deletions.len() == MAX_DELETIONS {
            self.deletions.pop_front();
        }
        self.deletions.push_back(deletion);
    }

    /// The messages up to this id that were deleted after it, as far as that is remembered.
    pub fn deleted_since(&self, viewer: &Place, id: u64) -> impl Iterator<Item = u64> {
        let may_know =
            |deletion: &Deletion| deletion.participants.is_none_or(|those| those.contains(&viewer.order));
        let first = self.deletions.partition_point(|deletion| deletion.at <= id);
        let later =
            self.deletions.range(first..).filter(move |deletion| deletion.id <= id && may_know(deletion));
        later.map(|deletion| deletion.id)
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

    fn evict(&mut self) -> Option<HistoryEntry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes();
        self.public -= usize::from(entry.is_public());
        self.last_evicted = entry.id;
        Some(entry)
    }

    /// The index of the first message whose id is at least this.
    fn position(&self, id: u64) -> usize {
        self.entries.partition_point(|entry| entry.id < id)
    }
}

/// Whether messages have increasing ids, which count from 1.
pub fn is_in_order(entries: &[HistoryEntry]) -> bool {
    entries.first().is_none_or(|first| first.id > 0) && entries.is_sorted_by(|one, other| one.id < other.id)
}

/// Messages for one answer, the newest first.
#[derive(Default)]
struct Selection<'a> {
    entries: Vec<&'a HistoryEntry>,
    bytes: usize,
}

impl<'a> Selection<'a> {
    /// Whether the answer has room for a message of this size, in bytes.
    fn has_room(&self, size: usize) -> bool {
        self.entries.len() < MAX_PAGE_MESSAGES.into() && self.bytes + size <= MAX_PAGE_BYTES
    }

    fn add(&mut self, entry: &'a HistoryEntry, size: usize) {
        self.bytes += size;
        self.entries.push(entry);
    }

    /// A JSON array, the oldest message first.
    fn encode(&self, viewer: &Place) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.bytes + 2);
        json.push(b'[');
        for (at, entry) in self.entries.iter().rev().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            entry.encode(viewer, &mut json);
        }
        json.push(b']');
        json
    }
}

impl HistoryEntry {
    /// For the store.
    #[cfg(feature = "cluster")]
    pub fn to_store(&self) -> KeptEntry {
        let Self { id, unix_millis, ref json, ref txn, .. } = *self;
        let txn_id = txn.as_ref().map(|(txn_id, _)| txn_id.clone());
        KeptEntry { id, unix_millis, json: json.clone(), txn_id }
    }

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

    /// The `txn_id`, if the message is the member's own. For public messages the author is identified by name, so that a
    /// client can find its messages after its place has ended.
    fn txn_id(&self, viewer: &Place) -> Option<&TxnId> {
        let (txn_id, author) = self.txn.as_ref()?;
        let is_own = match &self.visibility {
            Visibility::All => *author == viewer.name,
            Visibility::Participants(places) => places[0].order == viewer.order,
        };
        is_own.then_some(txn_id)
    }

    /// Whether it is for all members. Only such messages are in the store.
    fn is_public(&self) -> bool {
        matches!(self.visibility, Visibility::All)
    }

    /// Those of a whisper; `None`: the message is for all members.
    pub fn participants(&self) -> Option<[JoinOrder; 2]> {
        match &self.visibility {
            Visibility::All => None,
            Visibility::Participants(places) => Some(places.each_ref().map(|place| place.order)),
        }
    }

    pub fn is_visible_to(&self, viewer: &Place) -> bool {
        match &self.visibility {
            Visibility::All => true,
            Visibility::Participants(places) => places.iter().any(|place| place.order == viewer.order),
        }
    }

    /// Whether it is a whisper of an earlier owner of this name, possibly the same client.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, length: usize) -> HistoryEntry {
        let json = vec![b'x'; length].into();
        HistoryEntry { id, unix_millis: 0, json, txn: None, visibility: Visibility::All, author: None }
    }

    #[test]
    fn memory_holds_four_mebibytes() {
        let mut history = History::new(HistoryLimits { messages: 1_000_000, age_millis: None }, None);
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
    fn a_deleted_message_is_not_missing() {
        let mut history = History::new(HistoryLimits { messages: 3, age_millis: None }, None);
        (1..=3).for_each(|id| history.push(entry(id, 10)));
        assert_eq!(history.remove(1).map(|entry| entry.id), Some(1));
        assert!(history.remove(1).is_none() && history.remove(4).is_none());
        let viewer = Place { order: JoinOrder(0), name: Arc::default() };
        let page = history.since(&viewer, 0).unwrap();
        assert_eq!((page.json.len(), page.more), (2 * 10 + 3, false));
        history.push(entry(4, 10));
        assert!(history.since(&viewer, 0).is_some(), "nothing was evicted in its place");
        (2..=4).for_each(|id| drop(history.remove(id)));
        assert_eq!((history.len(), history.bytes(), history.last_evicted), (0, 0, 0));
    }

    /// Those of whispers once did not count, and a message whose deletion was forgotten could come back from a store.
    #[cfg(feature = "cluster")]
    #[test]
    fn a_history_knows_whether_it_has_forgotten_deletions() {
        let mut history = History::new(HistoryLimits::default(), None);
        for at in 1..=MAX_DELETIONS as u64 {
            assert_eq!(history.remembers_deletions_after(), 0);
            let place = JoinOrder(0);
            history.deleted(Deletion { at, id: at, participants: Some([place, place]) });
        }
        assert_eq!(history.remembers_deletions_after(), 1);
    }

    #[test]
    fn a_message_that_is_longer_than_an_answer_does_not_end_paging() {
        let mut history = History::new(HistoryLimits { messages: 10, age_millis: None }, None);
        for (id, length) in [(1, 10), (2, MAX_PAGE_BYTES + 1), (3, 10)] {
            history.push(entry(id, length));
        }
        let viewer = Place { order: JoinOrder(0), name: Arc::default() };
        for (before, length, more) in [(4, 10, true), (3, MAX_PAGE_BYTES + 1, true), (2, 10, false)] {
            let page = history.page(&viewer, Some(before), 200);
            assert_eq!((page.json.len(), page.more), (length + 2, more));
        }
        assert!(history.since(&viewer, 0).is_none());
    }
}
