//! How far this node has read the log, and whether what it reads next continues it.

use crate::chat::NodeNumber;

/// The id of an entry in the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamId {
    pub id: u64,
    pub mark: u64,
}

/// Which entry has an id: who appended it, and when. If the engine has lost entries, nodes write theirs again, maybe in
/// another order, so that one may get the id that it had before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Origin {
    pub node: NodeNumber,
    pub sequence: u64,
    /// In milliseconds since 1970.
    pub time: u64,
}

/// The last entry that was read.
#[derive(Clone, Debug)]
pub struct Position {
    pub mark: u64,
    pub id: u64,
    /// `None`: it was not read, but comes from a snapshot.
    pub origin: Option<Origin>,
    /// After a connection was lost, the last entry is read once more: it may be another one now.
    expects_last: bool,
}

/// What an entry is.
#[derive(Debug, PartialEq)]
pub enum Next {
    New,
    /// The last one, read again.
    Known,
}

/// Why reading cannot continue.
#[derive(Debug, PartialEq)]
pub enum Break {
    /// The engine has lost what it had acknowledged.
    Lost(&'static str),
    /// The next entries have been trimmed: this node needs a snapshot.
    Behind,
}

impl Position {
    pub fn new(mark: u64, id: u64, origin: Option<Origin>) -> Self {
        Self { mark, id, origin, expects_last: origin.is_some() }
    }

    pub fn reconnected(&mut self) {
        self.expects_last = self.origin.is_some();
    }

    /// Entries with a greater id are to be read.
    pub fn read_after(&self) -> String {
        if self.expects_last {
            format!("{}-{}", self.id.saturating_sub(1), u64::MAX)
        } else {
            format!("{}-{}", self.id, self.mark)
        }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// It does not follow the last one.
    pub fn accept(&mut self, next: StreamId, origin: Origin) -> Result<Next, Break> {
        if next.mark != self.mark {
            return Err(Break::Lost("an entry belongs to another epoch"));
        }
        let expects_last = std::mem::take(&mut self.expects_last);
        if expects_last && next.id == self.id {
            let is_known = self.origin == Some(origin);
            return if is_known {
                Ok(Next::Known)
            } else {
                Err(Break::Lost("the last entry is another one"))
            };
        }
        if next.id != self.id + 1 {
            return Err(Break::Behind);
        }
        (self.id, self.origin) = (next.id, Some(origin));
        Ok(Next::New)
    }

    /// There is nothing to read, and the log ends with this id.
    ///
    /// # Errors
    /// The log should have more.
    pub fn check_end(&self, last: u64) -> Result<(), Break> {
        if last < self.id { Err(Break::Lost("the last entries are missing")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: u64 = 77;

    fn accept(position: &mut Position, id: u64, mark: u64, origin: (u32, u64)) -> Result<Next, Break> {
        position.accept(
            StreamId { id, mark },
            Origin { node: NodeNumber::new(origin.0).unwrap(), sequence: origin.1, time: 1000 },
        )
    }

    #[test]
    fn entries_are_contiguous() {
        let mut position = Position::new(MARK, 4, None);
        assert_eq!(position.read_after(), "4-77");
        assert_eq!(accept(&mut position, 5, MARK, (1, 1)), Ok(Next::New));
        assert_eq!(accept(&mut position, 5, MARK, (1, 1)), Err(Break::Behind));
        assert_eq!(accept(&mut position, 7, MARK, (1, 2)), Err(Break::Behind));
        assert!(matches!(accept(&mut position, 6, MARK + 1, (1, 2)), Err(Break::Lost(_))));
        assert_eq!(accept(&mut position, 6, MARK, (1, 2)), Ok(Next::New));
        assert_eq!(position.check_end(6), Ok(()));
        assert!(matches!(position.check_end(5), Err(Break::Lost(_))));
    }

    #[test]
    fn after_a_lost_connection_the_last_entry_is_compared() {
        let read = || {
            let mut position = Position::new(MARK, 4, None);
            accept(&mut position, 5, MARK, (1, 1)).unwrap();
            position.reconnected();
            assert_eq!(position.read_after(), format!("4-{}", u64::MAX));
            position
        };
        let mut position = read();
        assert_eq!(accept(&mut position, 5, MARK, (1, 1)), Ok(Next::Known));
        assert_eq!(position.read_after(), "5-77");
        assert_eq!(accept(&mut position, 6, MARK, (2, 1)), Ok(Next::New));
        assert!(matches!(accept(&mut read(), 5, MARK, (2, 2)), Err(Break::Lost(_))));
        // The same entry was written again, after the engine had lost it.
        let later = Origin { node: NodeNumber::new(1).unwrap(), sequence: 1, time: 1001 };
        assert!(matches!(read().accept(StreamId { id: 5, mark: MARK }, later), Err(Break::Lost(_))));
        // The last one has been trimmed.
        assert_eq!(accept(&mut read(), 6, MARK, (2, 1)), Ok(Next::New));
        assert_eq!(accept(&mut read(), 8, MARK, (2, 1)), Err(Break::Behind));
    }
}
