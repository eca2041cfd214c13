//! A node: what it is started with, and what happens to it.

use super::entry::Entry;
use super::snapshot::Applied;
use super::start::ClusterError;
use super::tuning::Tuning;
use crate::chat::NodeNumber;
use crate::config::ClusterSettings;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    pub cluster: ClusterSettings,
    pub formats: Formats,
    pub tuning: Tuning,
}

/// The formats of entries and snapshots that this program knows, each with its rules. Nodes whose programs know different ones run side by
/// side if they have one in common; then all of them write the newest common one.
#[derive(Clone, Copy, Debug)]
pub struct Formats {
    pub oldest: u32,
    pub newest: u32,
}

/// The chat as this node has it without the engine.
#[derive(Clone, Debug)]
pub struct OwnState {
    pub rank: Rank,
    /// The encoded state.
    pub chat: Vec<u8>,
}

/// Of several states, the one with the highest rank fills an empty engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Nothing,
    /// From a store: the last id.
    Stored(u64),
    /// Applied while the server ran: the last id.
    Live(u64),
}

impl Rank {
    pub fn id(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Stored(id) | Self::Live(id) => id,
        }
    }

    /// A text that sorts in the same order.
    pub fn text(self) -> String {
        let kind = match self {
            Self::Nothing => 0,
            Self::Stored(_) => 1,
            Self::Live(_) => 2,
        };
        format!("{kind}{:020}", self.id())
    }
}

/// This node is part of the chat.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Identifies this node. If it has changed, what clients of this node have appended under the old number does not
    /// count any more, and their connections must be closed.
    pub node: NodeNumber,
    pub epoch: String,
    /// The newest format that all nodes know: the one to write.
    pub format: u32,
    /// `None`: the state that this node has is the chat's.
    pub state: Option<State>,
    /// The id of the last entry in that state. The next entry has the next id.
    pub id: u64,
    /// The last sequence number of this node that the state contains. What it has appended up to there does not come
    /// back as an entry any more.
    pub sequence: u64,
    /// Once an entry with this id is applied, this node has everything that was said before it joined.
    pub log_id: u64,
    pub(super) applied: Applied,
}

impl Joined {
    /// Of the last entry in that state, in milliseconds since 1970.
    pub fn time(&self) -> u64 {
        self.applied.time
    }
}

/// The chat's state, from the engine.
#[derive(Clone, Debug)]
pub struct State {
    /// The encoded state, of any format that this program knows.
    pub chat: Vec<u8>,
}

/// What happens to a node. The threads that talk to the engine deliver events in the order in which they occur.
#[derive(Debug)]
pub enum Event {
    /// The next entries of the log.
    Entries(Vec<Entry>),
    /// For two seconds, the engine has not answered or has refused to write, or it has not been confirmed that it still
    /// has the chat.
    Unavailable,
    /// It answers again, and has the chat.
    Available,
    /// The engine was restarted, or has lost what it had acknowledged. Answer with
    /// [`SharedLog::offer`](super::SharedLog::offer). No entries come until it is known that nothing is lost, or until
    /// [`Joined`](Self::Joined).
    OfferDue,
    /// The others consider this node dead. What it has appended and not read back is lost: all connections must be
    /// closed. Entries continue to come, and [`Joined`](Self::Joined) will.
    Fenced,
    /// After [`OfferDue`](Self::OfferDue) or [`Fenced`](Self::Fenced), or if this node was so far behind that it needs
    /// a new state. Pass it to [`SharedLog::adopt`](super::SharedLog::adopt).
    Joined(Joined),
    /// All nodes know this format now: write it.
    Format(u32),
    /// The log has grown. Answer with [`SharedLog::snapshot`](super::SharedLog::snapshot).
    SnapshotDue,
    /// The engine was restarted, and has lost a part of the history that it had acknowledged. Answer with
    /// [`SharedLog::history`](super::SharedLog::history).
    HistoryDue,
    /// The chat can no longer be used, because this program cannot read it. Then this node ends.
    Unusable(ClusterError),
    /// The last event: this node has left after [`SharedLog::leave`](super::SharedLog::leave). `false`: not in time, so
    /// some entries may be missing.
    Left(bool),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_rank_sorts_as_the_rank() {
        let ranks = [
            Rank::Nothing,
            Rank::Stored(1),
            Rank::Stored(u64::MAX),
            Rank::Live(0),
            Rank::Live(9),
            Rank::Live(10),
        ];
        assert!(ranks.is_sorted());
        assert!(ranks.map(Rank::text).is_sorted());
    }
}
