//! The part of the log that a node reads, and whether what is read continues it.

use super::entry::Entry;
use super::position::{Break, Next, Position, StreamId};

/// How many reads in a row may return nothing although the log has more, before this node needs a snapshot.
const MAX_EMPTY_READS: u32 = 3;

pub struct Following {
    pub epoch: String,
    pub position: Position,
    empty_reads: u32,
}

impl Following {
    pub fn new(epoch: String, position: Position) -> Self {
        Self { epoch, position, empty_reads: 0 }
    }

    /// Takes entries that were read. Returns those that are new, and why reading cannot continue after them.
    pub fn take(&mut self, read: Vec<(StreamId, Entry)>) -> (Vec<Entry>, Option<Break>) {
        self.empty_reads = 0;
        let mut entries = Vec::with_capacity(read.len());
        for (id, entry) in read {
            match self.position.accept(id, entry.origin()) {
                Ok(Next::New) => entries.push(entry),
                Ok(Next::Known) => {}
                Err(cause) => return (entries, Some(cause)),
            }
        }
        (entries, None)
    }

    /// Nothing was read: is that the end of this chat's log? `chat`: the epoch on the engine, its mark and the last id.
    /// Returns the last id.
    ///
    /// # Errors
    /// The log should have more, or is another one.
    pub fn check_end(&mut self, chat: Option<(String, u64, u64)>) -> Result<u64, Break> {
        let Some((epoch, mark, id)) = chat else {
            return Err(Break::Lost("the chat has been removed"));
        };
        if epoch != self.epoch || mark != self.position.mark {
            return Err(Break::Lost("the chat has been replaced"));
        }
        self.position.check_end(id)?;
        // An entry may have been added just now.
        self.empty_reads = if id > self.position.id { self.empty_reads + 1 } else { 0 };
        if self.empty_reads >= MAX_EMPTY_READS { Err(Break::Behind) } else { Ok(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: u64 = 77;

    /// Entries may be trimmed without anything new to read, as after a node was stopped for long.
    #[test]
    fn a_log_that_has_more_but_returns_nothing_was_trimmed() {
        let mut following = Following::new("0f".into(), Position::new(MARK, 4, None));
        let chat = |epoch: &str, mark, id| Some((epoch.to_owned(), mark, id));
        for _ in 0..9 {
            assert_eq!(following.check_end(chat("0f", MARK, 4)), Ok(4));
        }
        for _ in 1..MAX_EMPTY_READS {
            assert_eq!(following.check_end(chat("0f", MARK, 5)), Ok(5));
        }
        assert_eq!(following.check_end(chat("0f", MARK, 5)), Err(Break::Behind));
        for lost in [None, chat("0e", MARK, 4), chat("0f", MARK + 1, 4), chat("0f", MARK, 3)] {
            assert!(matches!(following.check_end(lost), Err(Break::Lost(_))));
        }
    }
}
