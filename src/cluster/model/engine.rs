//! The engine with its scripts (`scripts/`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chat::NodeNumber;
use crate::cluster::engine::EngineError;
use crate::cluster::entry::{Content, ENGINE, Entry};
use crate::cluster::node::Rank;
use crate::cluster::position::{Origin, StreamId};
use crate::cluster::snapshot::Applied;
use crate::cluster::start::{Membership, Past};

/// In milliseconds, as for servers.
pub const BEAT: u64 = 2000;
const LEASE: u64 = 8000;
const PAUSE: u64 = 4000;
const CLAIM: u64 = 2000;
/// How many earlier states a restart can go back to.
const EARLIER: usize = 8;
const FORMAT: u32 = 1;

pub type Answer = Result<Reply, EngineError>;

/// A connection as the engine knows it.
pub type ConnectionNumber = u64;

#[derive(Default)]
pub struct Engine {
    /// In milliseconds since 1970.
    pub now: u64,
    /// Counts its restarts.
    pub run: u64,
    state: State,
    earlier: VecDeque<State>,
    requests: Vec<(ConnectionNumber, u64, Call)>,
    answers: BTreeMap<ConnectionNumber, Answer>,
    connections: ConnectionNumber,
    epochs: u64,
    /// How often it has lost entries.
    pub losses: usize,
    /// Of each decision about what the chat continues with: the newest id that a running node had.
    pub decisions: Vec<u64>,
}

/// What a restart may keep.
#[derive(Clone, Default)]
struct State {
    chat: Option<Chat>,
    claims: Claims,
}

#[derive(Clone, Default)]
struct Chat {
    epoch: String,
    run: u64,
    mark: u64,
    id: u64,
    time: u64,
    snapshot_id: u64,
    snapshot: Vec<u8>,
    /// The highest node number, and the run in which it was counted.
    numbers: u32,
    numbered: u64,
    beat: u64,
    /// With the last sequence number of each.
    nodes: BTreeMap<NodeNumber, Seat>,
    leases: BTreeMap<NodeNumber, u64>,
    log: VecDeque<Entry>,
}

#[derive(Clone, Default)]
struct Seat {
    sequence: u64,
    /// The epoch in which it had this number.
    kept: Option<String>,
}

#[derive(Clone, Default)]
struct Claims {
    since: u64,
    /// The epoch found, and the run.
    case: Option<(Option<String>, u64)>,
    ranks: BTreeMap<usize, Rank>,
    nodes: BTreeSet<NodeNumber>,
}

/// The epoch and the node.
pub type Head = (String, NodeNumber);

#[derive(Clone, Debug)]
pub enum Call {
    Append { head: Head, first: u64, data: Vec<Vec<u8>> },
    Beat { head: Head },
    Tick { head: Head, at: u64 },
    Leave { head: Head },
    Snapshot { head: Head, id: u64, replaced: u64, keep: u64, snapshot: Vec<u8> },
    Join { past: (NodeNumber, String, u64) },
    Restore { claim: Claim, fill: Option<Fill> },
    Chat,
    Load,
    Read { after: String, count: usize },
}

#[derive(Clone, Debug)]
pub struct Claim {
    pub found: Option<String>,
    pub claimant: usize,
    pub node: NodeNumber,
    pub rank: Rank,
    pub applied: Applied,
}

/// What the engine is filled with.
#[derive(Clone, Debug)]
pub struct Fill {
    pub epoch: String,
    pub past_epoch: String,
    pub snapshot: Vec<u8>,
}

#[derive(Debug)]
pub enum Reply {
    /// The last id and the time.
    Written(u64, u64),
    /// The last id, the snapshot's, and how many live nodes have a lower number.
    Beat {
        id: u64,
        snapshot: u64,
        before: u64,
    },
    Stored(bool),
    Joined(Membership),
    Restored(Verdict),
    /// The epoch, its mark and the last id.
    Chat(Option<(String, u64, u64)>),
    Loaded(Vec<u8>),
    Entries(Vec<(StreamId, Entry)>),
}

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Wait,
    Win,
    Done,
    Fine,
    Behind,
    Other,
}

impl Engine {
    pub fn new(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    pub fn connect(&mut self) -> ConnectionNumber {
        self.connections += 1;
        self.connections
    }

    pub fn send(&mut self, connection: ConnectionNumber, call: Call) {
        self.requests.push((connection, self.run, call));
    }

    /// The answer to what was sent on this connection, once there is one.
    pub fn answer(&mut self, connection: ConnectionNumber) -> Option<Answer> {
        self.answers.remove(&connection)
    }

    /// The connection is lost. What was sent on it may still arrive.
    pub fn cut(&mut self, connection: ConnectionNumber, arrives: bool) {
        self.answers.remove(&connection);
        self.requests.retain(|(other, ..)| *other != connection || arrives);
    }

    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Handles one of the requests.
    pub fn handle(&mut self, chosen: u64) {
        if self.requests.is_empty() {
            return;
        }
        let (connection, run, call) = self.requests.remove(chosen as usize % self.requests.len());
        if !matches!(call, Call::Read { .. } | Call::Chat | Call::Load) {
            self.earlier.push_back(self.state.clone());
            if self.earlier.len() > EARLIER {
                self.earlier.pop_front();
            }
        }
        let answer = self.run(run, call);
        self.answers.insert(connection, answer);
    }

    /// Starts again, with its state or with an earlier one. All connections are lost.
    pub fn restart(&mut self, steps_back: usize) {
        self.run += 1;
        self.requests.clear();
        self.answers.clear();
        if steps_back > 0 && !self.earlier.is_empty() {
            let at = self.earlier.len().saturating_sub(steps_back);
            let state = self.earlier[at].clone();
            self.replace(state);
        }
    }

    /// Loses everything, and stays connected.
    pub fn flush(&mut self) {
        self.replace(State::default());
    }

    fn replace(&mut self, state: State) {
        if let Some(chat) = &self.state.chat {
            let left = state.chat.as_ref().filter(|left| left.epoch == chat.epoch).map_or(0, |left| left.id);
            if left < chat.id {
                self.losses += 1;
            }
        }
        self.state = state;
        self.earlier.clear();
    }

    /// A text that no other epoch has.
    pub fn new_epoch(&mut self) -> String {
        self.epochs += 1;
        format!("{:016x}", self.epochs)
    }

    /// The epoch and the last id.
    pub fn end(&self) -> Option<(&str, u64)> {
        self.state.chat.as_ref().map(|chat| (chat.epoch.as_str(), chat.id))
    }

    fn run(&mut self, run: u64, call: Call) -> Answer {
        let (now, state) = (self.now, &mut self.state);
        Ok(match call {
            Call::Append { head, first, data } => {
                let chat = state.log_of_node(run, &head)?;
                let seen = chat.nodes[&head.1].sequence;
                if first > seen + 1 {
                    return Err(EngineError::Gap);
                }
                chat.advance(now);
                for (sequence, data) in (first..).zip(data).filter(|(sequence, _)| *sequence > seen) {
                    chat.add(Content::Data { node: head.1, sequence, data });
                    chat.nodes.entry(head.1).or_default().sequence = sequence;
                }
                Reply::Written(chat.id, chat.time)
            }
            Call::Beat { head } => {
                let chat = state.log_of_node(run, &head)?;
                if now < chat.beat || now - chat.beat > PAUSE {
                    chat.leases.values_mut().for_each(|lease| *lease = now + LEASE);
                }
                chat.leases.insert(head.1, now + LEASE);
                chat.beat = now;
                let over = |(&node, &lease): (&NodeNumber, &u64)| (lease < now).then_some(node);
                let ended: Vec<NodeNumber> = chat.leases.iter().filter_map(over).collect();
                if !ended.is_empty() {
                    chat.advance(now);
                    ended.into_iter().for_each(|node| chat.end_node(node));
                }
                let before = chat.leases.range(..head.1).count() as u64;
                Reply::Beat { id: chat.id, snapshot: chat.snapshot_id, before }
            }
            Call::Tick { head, at } => {
                let chat = state.log_of_node(run, &head)?;
                if chat.time < at && now >= at {
                    chat.advance(now);
                    chat.add(Content::Tick);
                }
                Reply::Written(chat.id, chat.time.max(now))
            }
            Call::Leave { head } => {
                let chat = state.log_of_node(run, &head)?;
                chat.advance(now);
                chat.end_node(head.1);
                Reply::Written(chat.id, chat.time)
            }
            Call::Snapshot { head, id, replaced, keep, snapshot } => {
                let chat = state.log_of_node(run, &head)?;
                let is_stored = chat.snapshot_id == replaced && id > chat.snapshot_id && id <= chat.id;
                if is_stored {
                    (chat.snapshot, chat.snapshot_id) = (snapshot, id);
                    chat.log.retain(|entry| entry.id >= keep.min(id));
                }
                Reply::Stored(is_stored)
            }
            Call::Join { past } => Reply::Joined(state.join(now, run, past)?),
            Call::Restore { claim, fill } => {
                Reply::Restored(state.restore(now, run, claim, fill, &mut self.decisions))
            }
            Call::Chat => {
                Reply::Chat(state.chat.as_ref().map(|chat| (chat.epoch.clone(), chat.mark, chat.id)))
            }
            Call::Load => Reply::Loaded(state.chat.as_ref().ok_or(EngineError::Empty)?.snapshot.clone()),
            Call::Read { after, count } => Reply::Entries(state.read(&after, count)),
        })
    }
}

impl State {
    fn log_of_node(&mut self, run: u64, (epoch, node): &Head) -> Result<&mut Chat, EngineError> {
        match &mut self.chat {
            Some(chat) if chat.epoch != *epoch => Err(EngineError::Epoch),
            Some(chat) if chat.run != run => Err(EngineError::Restarted),
            Some(chat) if !chat.nodes.contains_key(node) => Err(EngineError::Fenced),
            Some(chat) => Ok(chat),
            None => Err(EngineError::Epoch),
        }
    }

    fn join(
        &mut self,
        now: u64,
        run: u64,
        (past, epoch, done): (NodeNumber, String, u64),
    ) -> Result<Membership, EngineError> {
        let chat = self.chat.as_mut().ok_or(EngineError::Empty)?;
        let kept = chat.nodes.get_mut(&past).filter(|seat| !epoch.is_empty() && seat.kept == Some(epoch));
        let node = if let Some(seat) = kept {
            (seat.kept, seat.sequence) = (None, seat.sequence.max(done));
            past
        } else {
            if chat.numbered != run {
                let skipped = 16 * (1 + now / 1000 % 256) as u32;
                (chat.numbers, chat.numbered) = (chat.numbers + skipped, run);
            }
            chat.numbers += 1;
            if chat.numbers == u32::from(past) {
                chat.numbers += 1;
            }
            let node = NodeNumber::new(chat.numbers).expect("not so many");
            chat.nodes.insert(node, Seat::default());
            node
        };
        chat.leases.insert(node, now + LEASE);
        Ok(Membership {
            run: run.to_string(),
            node,
            epoch: chat.epoch.clone(),
            mark: chat.mark,
            log_id: chat.id,
            snapshot_id: chat.snapshot_id,
            format: FORMAT,
        })
    }

    fn restore(
        &mut self,
        now: u64,
        run: u64,
        claim: Claim,
        fill: Option<Fill>,
        decisions: &mut Vec<u64>,
    ) -> Verdict {
        let Claim { found, claimant, node, rank, applied } = claim;
        if self.chat.as_ref().map(|chat| &chat.epoch) != found.as_ref() {
            return Verdict::Other;
        }
        let mut has_all = false;
        if let Some(chat) = &self.chat {
            has_all = match chat.log.iter().find(|entry| entry.id == applied.id) {
                Some(entry) => {
                    entry.origin() == applied.origin.unwrap_or(Origin { node: ENGINE, sequence: 0, time: 0 })
                }
                None => chat.snapshot_id >= applied.id,
            };
            if chat.run == run {
                return if has_all { Verdict::Fine } else { Verdict::Other };
            }
        }
        let case = Some((found, run));
        let claims = &mut self.claims;
        if claims.case != case || now < claims.since || now - claims.since > 4 * CLAIM + 2000 {
            *claims = Claims { since: now, case, ..Claims::default() };
        }
        claims.ranks.insert(claimant, rank);
        claims.nodes.insert(node);
        let best = claims.ranks.values().max().copied().unwrap_or(rank);
        let winner = claims.ranks.iter().find(|(_, rank)| **rank == best).map(|(claimant, _)| *claimant);
        if winner != Some(claimant) {
            return Verdict::Wait;
        }
        let leases = self.chat.iter().flat_map(|chat| chat.leases.keys());
        let have_all_claimed = leases.into_iter().all(|node| claims.nodes.contains(node));
        let newest = if let Rank::Live(id) = best { id } else { 0 };
        if let Some(chat) = self.chat.as_mut().filter(|_| has_all && have_all_claimed) {
            decisions.push(newest);
            self.claims = Claims::default();
            chat.run = run;
            return Verdict::Fine;
        }
        let wait = match best {
            _ if !have_all_claimed => CLAIM * 4,
            Rank::Live(_) => CLAIM * 3 / 2,
            _ => CLAIM,
        };
        if now - claims.since < wait {
            return Verdict::Wait;
        }
        if has_all && self.chat.as_ref().is_some_and(|chat| applied.id < chat.id) {
            return Verdict::Behind;
        }
        let Some(Fill { epoch, past_epoch, snapshot }) = fill else { return Verdict::Win };
        decisions.push(newest);
        let numbers = self.chat.as_ref().map_or(0, |chat| chat.numbers);
        let Applied { id, time, sequences, highest_node, .. } = applied;
        let mark = u64::from_str_radix(&epoch, 16).expect("a number");
        let seat = |(node, sequence)| (node, Seat { sequence, kept: Some(past_epoch.clone()) });
        let chat = Chat {
            epoch,
            run,
            mark,
            id,
            time,
            snapshot_id: id,
            snapshot,
            numbers: numbers.max(highest_node.into()).max(node.into()),
            numbered: run,
            beat: now,
            leases: sequences.keys().map(|&node| (node, now + LEASE)).collect(),
            nodes: sequences.into_iter().map(seat).collect(),
            log: VecDeque::new(),
        };
        *self = Self { chat: Some(chat), claims: Claims::default() };
        Verdict::Done
    }

    fn read(&self, after: &str, count: usize) -> Vec<(StreamId, Entry)> {
        let Some(chat) = &self.chat else { return Vec::new() };
        let (id, mark) = after.split_once('-').expect("an id of a stream");
        let after: (u64, u64) = (id.parse().expect("a number"), mark.parse().expect("a number"));
        let entries = chat.log.iter().filter(|entry| (entry.id, chat.mark) > after);
        entries.take(count).map(|entry| (StreamId { id: entry.id, mark: chat.mark }, entry.clone())).collect()
    }
}

impl Chat {
    fn advance(&mut self, now: u64) {
        self.time = self.time.max(now);
    }

    fn add(&mut self, content: Content) {
        self.id += 1;
        self.log.push_back(Entry { id: self.id, time: self.time, content });
    }

    fn end_node(&mut self, node: NodeNumber) {
        self.add(Content::NodeDown(node));
        self.leases.remove(&node);
        self.nodes.remove(&node);
    }
}

impl Call {
    pub fn join(past: &Past) -> Self {
        Self::Join { past: (past.node, past.epoch.clone(), past.done) }
    }
}
