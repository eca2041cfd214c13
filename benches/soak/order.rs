//! What members must have received: the same lines in the same order, each once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A line that all members get; a `public` message does not go to its sender.
#[derive(Debug, Hash)]
pub enum Line {
    Joined(String),
    Left(String),
    /// `number` counts the messages of one membership from 0.
    Public {
        from: String,
        number: u64,
    },
}

/// All lines in the order in which the recorder has received them. It is the first member, sends nothing and stays.
#[derive(Default)]
pub struct Order {
    lines: Vec<Entry>,
    /// Where each name joined, first join first.
    joins: HashMap<String, Vec<usize>>,
    /// The members, and the number of the next message of each.
    members: HashMap<String, u64>,
    /// How many messages were sent by members that have closed their connections properly.
    closed: HashMap<String, u64>,
    pub messages: u64,
}

struct Entry {
    hash: u64,
    /// The hash of the sender's name.
    from: Option<u64>,
}

impl Order {
    /// Adds a line, and checks that it follows from those before.
    pub fn push(&mut self, line: &Line) -> Result<(), String> {
        let mut from = None;
        match line {
            Line::Joined(name) => {
                if self.members.insert(name.clone(), 0).is_some() {
                    return Err(format!("{name} joined twice"));
                }
                self.joins.entry(name.clone()).or_default().push(self.lines.len());
            }
            Line::Left(name) => {
                let sent = self
                    .members
                    .remove(name)
                    .ok_or_else(|| format!("{name} left, but was not in the room"))?;
                if let Some(expected) = self.closed.remove(name)
                    && expected != sent
                {
                    return Err(format!(
                        "{name} sent {expected} messages, and {sent} arrived before it left"
                    ));
                }
            }
            Line::Public { from: name, number } => {
                let next = self
                    .members
                    .get_mut(name)
                    .ok_or_else(|| format!("{name} sent a message, but is not in the room"))?;
                if number != next {
                    return Err(format!("message {number} of {name} arrived instead of {next}"));
                }
                *next += 1;
                self.messages += 1;
                from = Some(hash(name));
            }
        }
        self.lines.push(Entry { hash: hash(line), from });
        Ok(())
    }

    /// A member ends its connection properly, and has sent this many messages: all must arrive before it leaves.
    pub fn closes(&mut self, name: &str, sent: u64) {
        self.closed.insert(name.to_owned(), sent);
    }

    pub fn has_members(&self, names: &HashSet<String>) -> bool {
        self.members.len() == names.len() && names.iter().all(|name| self.members.contains_key(name))
    }

    pub fn members(&self) -> impl Iterator<Item = &String> {
        self.members.keys()
    }

    /// How many messages of this member have arrived.
    pub fn arrived(&self, name: &str) -> u64 {
        self.members.get(name).copied().unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }
}

/// What one membership has received, compared with the order.
pub struct Track {
    name: String,
    /// How often this name had joined before.
    joins_before: usize,
    /// The next line of the order; `None`: the own `joined` line is not in it yet.
    position: Option<usize>,
    /// Received lines that are not compared yet, because the recorder has not received as much.
    waiting: VecDeque<Line>,
}

impl Track {
    pub fn new(name: &str, joins_before: usize) -> Self {
        Self { name: name.into(), joins_before, position: None, waiting: VecDeque::new() }
    }

    pub fn received(&mut self, line: Line) {
        self.waiting.push_back(line);
    }

    /// Compares as much as the order has by now. Returns whether that is everything that was received.
    pub fn check(&mut self, order: &Order) -> Result<bool, String> {
        while !self.waiting.is_empty() {
            let (Some(position), Some(line)) = (self.next(order), self.waiting.front()) else {
                return Ok(false);
            };
            let Some(entry) = order.lines.get(position) else { return Ok(false) };
            if entry.hash != hash(line) {
                return Err(format!(
                    "{} received {line:?} at position {position}, where the recorder received something else: \
                     a line is lost, duplicated or out of order",
                    self.name
                ));
            }
            self.position = Some(position + 1);
            self.waiting.pop_front();
        }
        Ok(true)
    }

    /// Whether a member that stayed has received everything to the end of the order.
    pub fn is_complete(&mut self, order: &Order) -> bool {
        self.waiting.is_empty() && self.next(order) == Some(order.lines.len())
    }

    /// The position of the next line that this member must receive, which is not one of its own.
    fn next(&mut self, order: &Order) -> Option<usize> {
        let own = hash(&self.name);
        let mut position = match self.position {
            Some(position) => position,
            None => *order.joins.get(&self.name)?.get(self.joins_before)?,
        };
        while order.lines.get(position).is_some_and(|entry| entry.from == Some(own)) {
            position += 1;
        }
        self.position = Some(position);
        Some(position)
    }
}

impl fmt::Display for Track {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
