//! What this node has appended and not yet read back.

use std::collections::VecDeque;

/// The most bytes that may wait to be written and read back.
pub const MAX_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// The most entries that may wait.
pub const MAX_QUEUE_ENTRIES: usize = 20_000;

/// The most bytes that one call writes. The larger of these blocks the engine for about 3 ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchLimits {
    pub entries: usize,
    /// A single entry may be larger.
    pub bytes: usize,
}

impl BatchLimits {
    pub const USUAL: Self = Self { entries: 500, bytes: 256 * 1024 };
    /// For an engine with a long round trip, where calls are few.
    pub const FAR: Self = Self { entries: 2000, bytes: 1024 * 1024 };
}

/// Entries in the order of their sequence numbers, which are contiguous. The first ones may have been sent; all are
/// kept until they are read back.
pub struct Outbox {
    entries: VecDeque<Vec<u8>>,
    /// The sequence number of the first entry or, if there is none, of the next.
    first: u64,
    /// How many have been sent.
    sent: usize,
}

/// What has left an [`Outbox`].
#[derive(Debug, Default, PartialEq)]
pub struct Removed {
    pub entries: usize,
    pub bytes: usize,
}

impl Outbox {
    pub fn new() -> Self {
        Self { entries: VecDeque::new(), first: 1, sent: 0 }
    }

    pub fn push(&mut self, data: Vec<u8>) {
        self.entries.push_back(data);
    }

    /// The last sequence number that need not be sent again.
    pub fn done(&self) -> u64 {
        self.first - 1
    }

    pub fn is_all_sent(&self) -> bool {
        self.sent == self.entries.len()
    }

    /// The last sequence number that has been sent.
    pub fn last_sent(&self) -> u64 {
        self.done() + self.sent as u64
    }

    /// The sequence number of the next entry to send, and the entries from there.
    pub fn batch(&self, limits: BatchLimits) -> Option<(u64, Vec<&[u8]>)> {
        let mut bytes = 0;
        let batch: Vec<&[u8]> = self
            .entries
            .range(self.sent..)
            .take(limits.entries)
            .map(Vec::as_slice)
            .enumerate()
            .take_while(|(index, entry)| {
                bytes += entry.len();
                *index == 0 || bytes <= limits.bytes
            })
            .map(|(_, entry)| entry)
            .collect();
        (!batch.is_empty()).then_some((self.first + self.sent as u64, batch))
    }

    pub fn sent(&mut self, entries: usize) {
        self.sent = (self.sent + entries).min(self.entries.len());
    }

    /// Everything that is left is to be sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Removes the entries up to this sequence number.
    pub fn read_back(&mut self, sequence: u64) -> Removed {
        let mut removed = Removed::default();
        while self.first <= sequence
            && let Some(entry) = self.entries.pop_front()
        {
            self.first += 1;
            removed.entries += 1;
            removed.bytes += entry.len();
        }
        self.sent = self.sent.saturating_sub(removed.entries);
        removed
    }

    /// Continues in a chat that contains this node's entries up to a sequence number, if it is under the same number.
    pub fn adopt(&mut self, is_same_node: bool, sequence: u64) -> Removed {
        if is_same_node { self.read_back(sequence) } else { self.clear() }
    }

    /// Removes everything. The next entry has the sequence number 1, under another node number.
    pub fn clear(&mut self) -> Removed {
        let removed = self.read_back(u64::MAX);
        self.first = 1;
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits { entries: 3, bytes: 10 };

    fn outbox(sizes: &[usize]) -> Outbox {
        let mut outbox = Outbox::new();
        sizes.iter().for_each(|&size| outbox.push(vec![0; size]));
        outbox
    }

    fn batch(outbox: &Outbox) -> Option<(u64, Vec<usize>)> {
        outbox
            .batch(LIMITS)
            .map(|(first, entries)| (first, entries.iter().map(|entry| entry.len()).collect()))
    }

    #[test]
    fn a_batch_is_limited_in_entries_and_bytes() {
        let mut outbox = outbox(&[1, 1, 1, 1, 20, 6, 5]);
        for (first, expected) in [(1, vec![1, 1, 1]), (4, vec![1]), (5, vec![20]), (6, vec![6]), (7, vec![5])]
        {
            assert_eq!(batch(&outbox), Some((first, expected.clone())));
            outbox.sent(expected.len());
        }
        assert_eq!(batch(&outbox), None);
        assert!(outbox.is_all_sent());
        assert_eq!(outbox.last_sent(), 7);
    }

    #[test]
    fn what_was_not_read_back_is_sent_again() {
        let mut outbox = outbox(&[1, 2, 3]);
        outbox.sent(3);
        assert_eq!(outbox.read_back(1), Removed { entries: 1, bytes: 1 });
        assert_eq!(batch(&outbox), None);
        outbox.rewind();
        assert_eq!(batch(&outbox), Some((2, vec![2, 3])));
        // It had been written before the connection was lost.
        assert_eq!(outbox.read_back(2), Removed { entries: 1, bytes: 2 });
        assert_eq!((batch(&outbox), outbox.done()), (Some((3, vec![3])), 2));
        assert_eq!(outbox.read_back(9), Removed { entries: 1, bytes: 3 });
        outbox.push(vec![0; 4]);
        assert_eq!(batch(&outbox), Some((4, vec![4])));
        assert_eq!(outbox.clear(), Removed { entries: 1, bytes: 4 });
        outbox.push(vec![0; 5]);
        assert_eq!(batch(&outbox), Some((1, vec![5])));
    }
}
