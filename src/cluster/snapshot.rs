//! Snapshots as they are on the engine: a line of text about the log, then the chat's state.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::entry::{Content, ENGINE, Entry, node_number};
use super::position::Origin;
use crate::chat::NodeNumber;

/// The most bytes that a snapshot may have.
pub const MAX_SNAPSHOT_BYTES: usize = 64 * 1024 * 1024;
/// The first word, with the number of this format.
const MAGIC: &str = "tinychat-snapshot-1";

/// How far a node has applied the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    pub id: u64,
    pub time: u64,
    /// Of the last entry.
    pub origin: Option<Origin>,
    /// The last sequence number of each node that has appended something and has not ended.
    pub sequences: BTreeMap<NodeNumber, u64>,
    /// The highest number of a node that has appended something or has ended. It is not given to another node.
    pub highest_node: NodeNumber,
}

impl Applied {
    pub fn apply(&mut self, entry: &Entry) {
        (self.id, self.time, self.origin) = (entry.id, entry.time, Some(entry.origin()));
        match entry.content {
            Content::Data { node, sequence, .. } => {
                self.sequences.insert(node, sequence);
                self.highest_node = self.highest_node.max(node);
            }
            Content::NodeDown(node) => {
                self.sequences.remove(&node);
                self.highest_node = self.highest_node.max(node);
            }
            Content::Tick => {}
        }
    }
}

/// The chat after an entry of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub epoch: String,
    pub applied: Applied,
    pub chat: Vec<u8>,
}

impl Snapshot {
    pub fn encode(epoch: &str, applied: &Applied, chat: &[u8]) -> Vec<u8> {
        let Applied { id, time, origin, sequences, highest_node } = applied;
        let origin = origin.unwrap_or(Origin { node: ENGINE, sequence: 0, time: 0 });
        let mut head =
            format!("{MAGIC} {epoch} {id} {time} {highest_node} {}:{}", origin.node, origin.sequence);
        for (node, sequence) in sequences {
            // Writing to a string cannot fail.
            let _ = write!(head, " {node}:{sequence}");
        }
        head.push('\n');
        [head.as_bytes(), chat].concat()
    }

    /// `None`: this is not a snapshot of a known format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|&byte| byte == b'\n')?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut words = head.strip_prefix(MAGIC)?.strip_prefix(' ')?.split(' ');
        let (epoch, id, time) = (words.next()?.to_owned(), words.next()?, words.next()?.parse().ok()?);
        let highest_node = node_number(words.next()?.parse().ok()?)?;
        let (node, sequence) = pair(words.next()?)?;
        let applied = Applied {
            highest_node,
            id: id.parse().ok()?,
            time,
            origin: (id != "0").then_some(Origin { node, sequence, time }),
            sequences: words.map(pair).collect::<Option<_>>()?,
        };
        Some(Self { epoch, applied, chat: bytes[end + 1..].into() })
    }
}

fn pair(word: &str) -> Option<(NodeNumber, u64)> {
    let (node, sequence) = word.split_once(':')?;
    Some((node_number(node.parse().ok()?)?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_survives_encoding() {
        let node = |number| NodeNumber::new(number).unwrap();
        let mut applied = Applied::default();
        for (id, content) in [
            Content::Data { node: node(2), sequence: 7, data: Vec::new() },
            Content::Data { node: node(3), sequence: 1, data: Vec::new() },
            Content::Data { node: node(3), sequence: 2, data: Vec::new() },
            Content::NodeDown(node(2)),
            Content::Tick,
        ]
        .into_iter()
        .enumerate()
        {
            applied.apply(&Entry { id: id as u64 + 1, time: 1000, content });
        }
        assert_eq!((applied.id, &applied.sequences), (5, &BTreeMap::from([(node(3), 2)])));
        assert_eq!(applied.highest_node, node(3));
        for (applied, chat) in [(applied, &b"a\nb"[..]), (Applied::default(), b"")] {
            let decoded = Snapshot::decode(&Snapshot::encode("0f", &applied, chat)).unwrap();
            assert_eq!(decoded, Snapshot { epoch: "0f".into(), applied, chat: chat.into() });
        }
    }

    #[test]
    fn something_else_is_not_a_snapshot() {
        for text in [
            "",
            "\n",
            "tinychat-snapshot-2 0f 1 1 3 0:0\n",
            "tinychat-snapshot-1 0f 1 1 3 0:0",
            "tinychat-snapshot-1 0f 1 1 3\n",
            "tinychat-snapshot-1 0f x 1 3 0:0\n",
            "tinychat-snapshot-1 0f 1 1 3 0:0 3\n",
            "tinychat-snapshot-1 0f 1 1 0:0 3:1\n",
            "tinychat-snapshot-1 0f 1 1 3 16777216:1\n",
        ] {
            assert_eq!(Snapshot::decode(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Snapshot::decode(b"\xFF\n"), None);
    }
}
