//! Messages that are kept: as they are on the engine, and those that are still to be written there.

use std::collections::VecDeque;

use crate::chat::{KeptEntry, TxnId};

/// The most bytes that may wait. Beyond that, the oldest are dropped, and are missing from the history.
pub const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;
/// The most bytes that one call writes. Changes are written once there are this many, unless they are needed earlier.
pub const WRITE_BYTES: usize = 256 * 1024;
/// The most changes that one call writes.
const MAX_BATCH: usize = 500;
/// What a change takes in memory without its texts, in bytes.
const CHANGE_BYTES: usize = size_of::<Change>() + 32;
/// The number of the format, in front of each message.
const FORMAT: &str = "1";

/// `1 ID TIME LENGTH TXN_ID{"type":…}`: the length is that of the `txn_id`, in bytes.
pub fn encode(message: &KeptEntry) -> Vec<u8> {
    let KeptEntry { id, unix_millis, json, txn_id } = message;
    let txn_id = txn_id.as_ref().map_or("", TxnId::text);
    let head = format!("{FORMAT} {id} {unix_millis} {} {txn_id}", txn_id.len());
    [head.as_bytes(), json].concat()
}

/// `None`: this is not a message of a known format.
pub fn decode(bytes: &[u8]) -> Option<KeptEntry> {
    let mut parts = bytes.splitn(5, |&byte| byte == b' ');
    let mut word = || str::from_utf8(parts.next()?).ok();
    if word()? != FORMAT {
        return None;
    }
    let (id, unix_millis, length) =
        (word()?.parse().ok()?, word()?.parse().ok()?, word()?.parse::<usize>().ok()?);
    let (txn_id, json) = parts.next()?.split_at_checked(length)?;
    let txn_id = (length > 0).then(|| str::from_utf8(txn_id).map(TxnId::from_store)).transpose().ok()?;
    Some(KeptEntry { id, unix_millis, json: json.into(), txn_id })
}

/// What an entry of the log does to the messages that are kept.
#[derive(Clone, Debug)]
pub enum Change {
    Add(KeptEntry),
    /// `at`: the id of the entry that deletes the message `id`.
    Delete {
        at: u64,
        id: u64,
    },
}

impl Change {
    /// The id of the entry.
    fn at(&self) -> u64 {
        match self {
            Self::Add(message) => message.id,
            Self::Delete { at, .. } => *at,
        }
    }

    /// Whether it must not wait: a deleted message should not stay on the engine.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Self::Delete { .. })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Add(message) => {
                CHANGE_BYTES + message.json.len() + message.txn_id.as_ref().map_or(0, TxnId::bytes)
            }
            Self::Delete { .. } => CHANGE_BYTES,
        }
    }

    /// As `keep.lua` takes it.
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Add(message) => encode(message),
            Self::Delete { id, .. } => format!("D{id}").into_bytes(),
        }
    }
}

/// Changes in the order of their entries, until they are on the engine. All nodes have the same ones, and any of them
/// may write them: the engine skips those that it has.
#[derive(Debug)]
pub struct Waiting {
    /// All changes of the entries after this one are here, or on the engine.
    base: u64,
    changes: VecDeque<Change>,
    bytes: usize,
    /// The changes up to this entry are on the engine, as far as this node knows; 0: none.
    written: u64,
    /// Whether they are to be written at once.
    is_urgent: bool,
    /// Whether some were dropped. Then perhaps no node has them.
    pub has_gap: bool,
}

impl Waiting {
    /// `messages`: all with ids greater than `base`.
    pub fn new(base: u64, messages: Vec<KeptEntry>) -> Self {
        let changes: VecDeque<Change> = messages.into_iter().map(Change::Add).collect();
        let bytes = changes.iter().map(Change::bytes).sum();
        Self { base, changes, bytes, written: 0, is_urgent: false, has_gap: false }
    }

    pub fn base(&self) -> u64 {
        self.base
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether others had to be dropped to make room.
    pub fn push(&mut self, change: Change) -> bool {
        if change.at() <= self.written {
            return false;
        }
        self.is_urgent |= change.is_urgent();
        self.bytes += change.bytes();
        self.changes.push_back(change);
        let mut has_dropped = false;
        while self.bytes > MAX_WAITING_BYTES
            && let Some(dropped) = self.changes.pop_front()
        {
            self.bytes -= dropped.bytes();
            self.base = dropped.at();
            (self.has_gap, has_dropped) = (true, true);
        }
        has_dropped
    }

    /// Has all that wait written at once.
    pub fn write_at_once(&mut self) {
        self.is_urgent = !self.changes.is_empty();
    }

    /// Whether the engine has lost changes that were written, if it has only those up to this entry.
    pub fn has_lost(&self, id: u64) -> bool {
        id < self.written
    }

    /// The changes up to this entry are on the engine; 0: it was filled, and knows of none.
    pub fn written(&mut self, id: u64) {
        self.written = id;
        while self.changes.front().is_some_and(|change| change.at() <= id)
            && let Some(change) = self.changes.pop_front()
        {
            self.bytes -= change.bytes();
        }
        self.has_gap &= id < self.base;
        self.is_urgent &= !self.changes.is_empty();
        if id == 0 {
            self.is_urgent = self.base > 0 || !self.changes.is_empty();
        }
    }

    /// Whether this node is to write some now. `before`: how many nodes do so before this one.
    pub fn is_due(&self, before: u64) -> bool {
        let share =
            WRITE_BYTES.saturating_mul(usize::try_from(before).unwrap_or(usize::MAX).saturating_add(1));
        self.is_urgent || self.bytes >= share.min(MAX_WAITING_BYTES / 2)
    }

    /// Whether everything up to this entry is on the engine. A server that starts from the state after it then lacks
    /// nothing.
    pub fn is_written(&self, id: u64) -> bool {
        self.written >= self.base && self.changes.front().is_none_or(|change| change.at() > id)
    }

    /// The next ones to write, each with the id of its entry.
    pub fn batch(&self) -> Vec<(u64, Vec<u8>)> {
        let mut bytes = 0;
        let fits = |change: &&Change| {
            let is_first = bytes == 0;
            bytes += change.bytes();
            is_first || bytes <= WRITE_BYTES
        };
        let batch = self.changes.iter().take(MAX_BATCH).take_while(fits);
        batch.map(|change| (change.at(), change.encode())).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(id: u64, length: usize) -> KeptEntry {
        KeptEntry { id, unix_millis: 1000 + id, json: vec![b'x'; length].into(), txn_id: None }
    }

    fn ids(waiting: &Waiting) -> Vec<u64> {
        waiting.batch().into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_message_survives_encoding() {
        let json: &[u8] = br#"{"type":"public","content":"a b"}"#;
        for txn_id in [None, Some("7"), Some("a b {\n"), Some("é")] {
            let txn_id = txn_id.map(TxnId::from_store);
            let message = KeptEntry { id: 7, unix_millis: 1000, json: json.into(), txn_id };
            assert_eq!(decode(&encode(&message)), Some(message));
        }
        assert_eq!(encode(&message(7, 2)), b"1 7 1007 0 xx");
        for text in
            ["", "1", "2 7 1007 0 xx", "1 7 1007 3 xx", "1 7 1007 0", "1 x 1007 0 xx", "1 7 1007 -1 xx"]
        {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, numbers: [u64; 3], rest: Vec<u8>) {
            let _ = decode(&bytes);
            let head = format!("1 {} {} {} ", numbers[0], numbers[1], numbers[2]);
            let _ = decode(&[head.as_bytes(), &rest].concat());
        }
    }

    #[test]
    fn what_is_on_the_engine_need_not_be_written() {
        let mut waiting = Waiting::new(4, (5..8).map(|id| message(id, 10)).collect());
        assert!(!waiting.is_due(0) && !waiting.is_written(4));
        waiting.written(5);
        assert_eq!(ids(&waiting), [6, 7]);
        assert!(waiting.is_written(5) && !waiting.is_written(6));
        waiting.push(Change::Add(message(5, 10)));
        waiting.push(Change::Add(message(9, 10)));
        assert_eq!(ids(&waiting), [6, 7, 9]);
        waiting.written(9);
        assert_eq!((ids(&waiting).len(), waiting.bytes()), (0, 0));
        assert!(waiting.has_lost(8) && !waiting.has_lost(9));
        assert!(waiting.is_written(100));
        // The engine was filled: all that this node has in memory is to be written.
        let mut waiting = Waiting::new(4, Vec::new());
        waiting.written(0);
        assert!(waiting.is_due(9) && ids(&waiting).is_empty());
        waiting.written(4);
        assert!(!waiting.is_due(0) && waiting.is_written(4));
    }

    #[test]
    fn a_deletion_is_written_at_once() {
        let mut waiting = Waiting::new(0, vec![message(1, 10)]);
        waiting.push(Change::Delete { at: 2, id: 1 });
        assert!(waiting.is_due(9));
        assert_eq!(waiting.batch()[1], (2, b"D1".to_vec()));
        waiting.written(2);
        assert!(!waiting.is_due(0));
        waiting.write_at_once();
        assert!(!waiting.is_due(0), "there is nothing to write");
    }

    #[test]
    fn the_first_node_writes_before_the_others_and_in_batches() {
        let mut waiting = Waiting::new(0, Vec::new());
        for id in 1..=4 {
            waiting.push(Change::Add(message(id, WRITE_BYTES / 2)));
        }
        assert!(waiting.is_due(0) && !waiting.is_due(3));
        assert_eq!(ids(&waiting), [1]);
        let mut waiting = Waiting::new(0, (1..=2000).map(|id| message(id, 10)).collect());
        assert_eq!(ids(&waiting).len(), MAX_BATCH);
        waiting.push(Change::Add(message(2001, 2 * WRITE_BYTES)));
        waiting.written(2000);
        assert_eq!(ids(&waiting), [2001], "a long one is written alone");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Waiting::new(0, Vec::new());
        let count = (MAX_WAITING_BYTES / WRITE_BYTES) as u64;
        for id in 1..count {
            assert!(!waiting.push(Change::Add(message(id, WRITE_BYTES))));
        }
        assert!(waiting.push(Change::Add(message(count, WRITE_BYTES))));
        assert!(waiting.bytes() <= MAX_WAITING_BYTES && waiting.has_gap);
        assert_eq!((waiting.base(), ids(&waiting)), (1, vec![2]));
        waiting.written(2);
        assert!(!waiting.has_gap);
    }
}
