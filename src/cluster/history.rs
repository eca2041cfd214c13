//! The history on the engine, for threads that may wait for it.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::Sender;
use log::warn;
use redis::Value;

use super::engine::{Engine, EngineError, number};
use super::kept::{decode, encode};
use super::scripts::Script;
use super::start::{Node, decimal};
use super::tuning::{IO_TIMEOUT, PAGE_RETRY, PAGE_TIMEOUT};
use super::writer::Command;
use crate::chat::{KeptEntry, StoreUnavailable};

/// Reads and completes the history, with a connection of its own.
pub struct History {
    node: Arc<Node>,
    writer: Sender<Command>,
    engine: Option<Engine>,
}

/// A request for messages that nodes no longer have in memory.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Of the chat that they belong to.
    pub epoch: Arc<str>,
    /// Only messages with a smaller id.
    pub before: u64,
    /// The newest message that nodes no longer have in memory. The history must be written up to this one.
    pub last_evicted: u64,
    /// How many of the messages up to that one are kept.
    pub kept: usize,
    /// At most how many.
    pub count: usize,
    /// At most how many bytes; a single message may be longer.
    pub bytes: usize,
    /// Older messages are left out, in milliseconds. `None`: none are too old.
    pub max_age: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryPage {
    /// The newest first.
    pub messages: Vec<KeptEntry>,
    /// Whether there are older ones.
    pub more: bool,
    /// Whether the history had everything that is kept. `false`: a node may be adding older messages from its store.
    pub is_complete: bool,
}

impl History {
    pub(super) fn new(node: Arc<Node>, writer: Sender<Command>) -> Self {
        Self { node, writer, engine: None }
    }

    /// The same with a connection of its own.
    pub fn another(&self) -> Self {
        Self::new(self.node.clone(), self.writer.clone())
    }

    /// Reads a page that does not end early because the history is incomplete. `None`: the history does not have it yet;
    /// try again after [`PAGE_RETRY`].
    ///
    /// # Errors
    /// The engine does not answer, or the history did not have the page within [`PAGE_TIMEOUT`] after it was `asked` for.
    pub fn page(
        &mut self,
        query: &HistoryQuery,
        asked: Instant,
    ) -> Result<Option<HistoryPage>, StoreUnavailable> {
        self.try_read(query, asked + PAGE_TIMEOUT, |page| page.more || page.is_complete)
    }

    /// Reads a page that may end early. `None`: that was not possible within [`PAGE_TIMEOUT`].
    pub fn page_so_far(&mut self, query: &HistoryQuery) -> Option<HistoryPage> {
        let deadline = Instant::now() + PAGE_TIMEOUT;
        loop {
            match self.try_read(query, deadline, |_| true) {
                Ok(None) => thread::sleep(PAGE_RETRY),
                Ok(page) => return page,
                Err(StoreUnavailable) => return None,
            }
        }
    }

    /// Adds messages that the history lacks, unless they were deleted since they were read. `applied`: the last entry that
    /// was applied then. `is_last`: with them, the history is complete. `false`: that was not possible; read the messages
    /// again before the next attempt.
    pub fn merge(&mut self, epoch: &str, applied: u64, messages: &[KeptEntry], is_last: bool) -> bool {
        let pairs: Vec<(String, Vec<u8>)> =
            messages.iter().map(|message| (decimal(message.id), encode(message))).collect();
        let applied = decimal(applied);
        let mut arguments = vec![epoch.as_bytes(), applied.as_bytes(), if is_last { b"1" } else { b"" }];
        for (id, message) in &pairs {
            arguments.extend([id.as_bytes(), message]);
        }
        let merged = self.with_engine(|engine| engine.numbers::<1>(Script::Merge, &arguments));
        matches!(merged, Ok([1]))
    }

    fn try_read(
        &mut self,
        query: &HistoryQuery,
        deadline: Instant,
        is_enough: impl Fn(&HistoryPage) -> bool,
    ) -> Result<Option<HistoryPage>, StoreUnavailable> {
        // Others may have waited for an engine that does not respond.
        if self.engine.is_none() && Instant::now() >= deadline {
            return Err(StoreUnavailable);
        }
        match self.read(query) {
            Ok((written, page)) if written >= query.last_evicted && is_enough(&page) => {
                return Ok(Some(page));
            }
            Ok((written, _)) if written < query.last_evicted => {
                // If the thread has ended, nothing will be written.
                let _ = self.writer.send(Command::WriteHistory);
            }
            // The chat was replaced just now, or the history is about to be completed.
            Ok(_) | Err(EngineError::Epoch) => {}
            Err(_) => return Err(StoreUnavailable),
        }
        if Instant::now() < deadline { Ok(None) } else { Err(StoreUnavailable) }
    }

    /// The id up to which the history is written, and the page.
    fn read(&mut self, query: &HistoryQuery) -> Result<(u64, HistoryPage), EngineError> {
        let HistoryQuery { before, last_evicted, kept, count, bytes, .. } = *query;
        let numbers = [before, count as u64, bytes as u64, last_evicted, kept as u64].map(decimal);
        let arguments: Vec<&[u8]> =
            [query.epoch.as_bytes()].into_iter().chain(numbers.iter().map(String::as_bytes)).collect();
        let answer = self.with_engine(|engine| engine.run(Script::Page, &arguments))?;
        let oldest = query.max_age.map_or(0, |age| self.node.status.engine_millis().saturating_sub(age));
        parse_page(answer, oldest).ok_or_else(|| EngineError::malformed("page"))
    }

    fn with_engine<T>(
        &mut self,
        call: impl FnOnce(&mut Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => self.node.link.connect(IO_TIMEOUT)?,
        };
        let result = call(&mut engine);
        // Otherwise a late answer would be taken for that of the next call.
        let is_unusable = matches!(
            result,
            Err(EngineError::Unavailable(_) | EngineError::Refused(_) | EngineError::Interrupted)
        );
        if !is_unusable {
            self.engine = Some(engine);
        }
        result
    }
}

/// `oldest`: messages with an earlier time are left out.
fn parse_page(answer: Value, oldest: u64) -> Option<(u64, HistoryPage)> {
    let Value::Array(values) = answer else { return None };
    let (head, found) = values.split_at_checked(3)?;
    let written = number(&head[0])?;
    let mut page = HistoryPage {
        messages: Vec::new(),
        more: number(&head[2])? == 1,
        is_complete: number(&head[1])? == 1,
    };
    for value in found {
        let Value::BulkString(bytes) = value else { return None };
        match decode(bytes) {
            // Those before it are as old.
            Some(message) if message.unix_millis < oldest => page.more = false,
            Some(message) => page.messages.push(message),
            None => warn!("A message of the history on the Redis or Valkey server cannot be read"),
        }
    }
    Some((written, page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_are_too_old_are_left_out() {
        let message = |id| KeptEntry { id, unix_millis: 1000 + id, json: b"{}"[..].into(), txn_id: None };
        let answer = |more| {
            let head = [9, 1, more].map(Value::Int);
            let messages = [3, 2].map(|id| Value::BulkString(encode(&message(id))));
            Value::Array(head.into_iter().chain(messages).collect())
        };
        let (written, page) = parse_page(answer(1), 0).unwrap();
        let expected = HistoryPage { messages: vec![message(3), message(2)], more: true, is_complete: true };
        assert_eq!((written, page), (9, expected));
        let (_, page) = parse_page(answer(1), 1003).unwrap();
        assert_eq!((page.messages, page.more), (vec![message(3)], false));
        for damaged in [Value::Nil, Value::Array(vec![Value::Int(1)])] {
            assert_eq!(parse_page(damaged, 0), None);
        }
    }
}
