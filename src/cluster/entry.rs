//! Entries of the log, as the engine returns them.

use redis::Value;

use super::engine::{EngineError, number, text};
use super::position::{Origin, StreamId};
use crate::chat::NodeNumber;

/// In place of a node's number. Nodes are counted from 1.
pub const ENGINE: NodeNumber = NodeNumber::LOCAL;

/// `None`: no node has this number, because it would not fit into the ids of connections.
pub fn node_number(number: u64) -> Option<NodeNumber> {
    NodeNumber::new(number.try_into().ok()?)
}

/// An entry of the log. All nodes get the same ones, in the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// One more than that of the entry before.
    pub id: u64,
    /// By the engine's clock, in milliseconds since 1970. Not less than that of the entry before.
    pub time: u64,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// What a node has appended.
    Data {
        node: NodeNumber,
        /// As returned by [`SharedLog::append`](super::SharedLog::append) on that node.
        sequence: u64,
        data: Vec<u8>,
    },
    /// A node has left or died. No entry of it follows.
    NodeDown(NodeNumber),
    /// Time has passed, see [`SharedLog::tick`](super::SharedLog::tick).
    Tick,
}

impl Entry {
    pub fn origin(&self) -> Origin {
        match self.content {
            Content::Data { node, sequence, .. } => Origin { node, sequence, time: self.time },
            Content::NodeDown(_) | Content::Tick => Origin { node: ENGINE, sequence: 0, time: self.time },
        }
    }
}

/// Parses the answer to `XREAD` for one stream.
pub fn parse_entries(answer: Value) -> Result<Vec<(StreamId, Entry)>, EngineError> {
    let malformed = || EngineError::malformed("XREAD");
    let mut streams = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams,
        _ => return Err(malformed()),
    };
    let Some(Value::Array(mut stream)) = streams.pop() else { return Err(malformed()) };
    let Some(Value::Array(entries)) = stream.pop() else { return Err(malformed()) };
    entries.into_iter().map(|entry| parse_entry(entry).ok_or_else(malformed)).collect()
}

fn parse_entry(entry: Value) -> Option<(StreamId, Entry)> {
    let Value::Array(entry) = entry else { return None };
    let [id, Value::Array(fields)] = <[Value; 2]>::try_from(entry).ok()? else { return None };
    let (id, mark) = text(&id)?.split_once('-')?;
    let id = StreamId { id: id.parse().ok()?, mark: mark.parse().ok()? };
    // `n`, node, `q`, sequence, `t`, time, `d`, data.
    let [_, node, _, sequence, _, time, _, data] = <[Value; 8]>::try_from(fields).ok()?;
    let (node, sequence, time) = (node_number(number(&node)?)?, number(&sequence)?, number(&time)?);
    let Value::BulkString(data) = data else { return None };
    let content = match (node, data.as_slice()) {
        (ENGINE, b"T") => Content::Tick,
        (ENGINE, [b'D', node @ ..]) => {
            let node = node_number(std::str::from_utf8(node).ok()?.parse().ok()?)?;
            Content::NodeDown(Some(node).filter(|node| *node != ENGINE)?)
        }
        (ENGINE, _) => return None,
        _ => Content::Data { node, sequence, data },
    };
    Some((id, Entry { id: id.id, time, content }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn answer(id: &str, fields: [&str; 4]) -> Value {
        let [node, sequence, time, data] = fields;
        let fields = ["n", node, "q", sequence, "t", time, "d", data].map(bulk);
        let entry = Value::Array(vec![bulk(id), Value::Array(fields.into())]);
        Value::Array(vec![Value::Array(vec![bulk("tinychat:log"), Value::Array(vec![entry])])])
    }

    #[test]
    fn entries_are_from_nodes_or_from_the_engine() {
        let parse = |fields| parse_entries(answer("5-77", fields)).ok().map(|mut entries| entries.remove(0));
        let entry = |content| Some((StreamId { id: 5, mark: 77 }, Entry { id: 5, time: 1000, content }));
        let node = |number| NodeNumber::new(number).unwrap();
        let data = Content::Data { node: node(3), sequence: 9, data: b"D7".into() };
        assert_eq!(parse(["3", "9", "1000", "D7"]), entry(data));
        assert_eq!(parse(["0", "0", "1000", "D7"]), entry(Content::NodeDown(node(7))));
        assert_eq!(parse(["0", "0", "1000", "T"]), entry(Content::Tick));
        for malformed in [
            ["0", "0", "1000", "X"],
            ["0", "0", "1000", "Dx"],
            ["x", "9", "1000", ""],
            ["-1", "9", "1000", ""],
            ["3", "9", "", ""],
            // Connections of such a server once seemed to belong to the server that has read this.
            ["16777216", "9", "1000", ""],
            ["0", "0", "1000", "D16777216"],
            ["0", "0", "1000", "D0"],
        ] {
            assert_eq!(parse(malformed), None, "{malformed:?}");
        }
    }

    #[test]
    fn a_malformed_answer_is_an_error() {
        assert_eq!(parse_entries(Value::Nil).ok(), Some(Vec::new()));
        for value in [
            Value::Okay,
            Value::Int(3),
            Value::Array(vec![]),
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![Value::Array(vec![])]),
            Value::Array(vec![Value::Array(vec![Value::Nil, Value::Array(vec![Value::Nil])])]),
            answer("5", ["3", "9", "1000", ""]),
            answer("5-x", ["3", "9", "1000", ""]),
        ] {
            assert!(parse_entries(value.clone()).is_err(), "{value:?}");
        }
    }
}
