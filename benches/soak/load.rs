//! All clients of one server, and what must hold for them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::members::{Action, Member, Received, parse};
use crate::order::{Line, Order, Track};
use crate::random::Random;
use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::{Connection, Options};
use crate::support::frames::TEXT;
use crate::visitors::Visitor;

const TICK: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 64 * 1024;
/// The bytes that the kernel buffers for a slow reader.
const SLOW_RECEIVE_BUFFER: usize = 8 * 1024;
/// The time between two actions of a member, at most, in milliseconds: half of this on average.
const MAX_PAUSE: usize = 2000;
const VISITOR_INTERVAL: Duration = Duration::from_millis(100);
const JOIN_RETRY: Duration = Duration::from_millis(300);
/// A name must be free this long after its connection has ended: what was sent before is read for 10 s.
const NAME_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the last messages may take to arrive at the end, and then all members to leave.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// If nothing has arrived for this long, nothing is outstanding.
const QUIET: Duration = Duration::from_millis(500);
const RECORDER: &str = "recorder";

/// The totals of a run.
#[derive(Default)]
pub struct Summary {
    pub messages: u64,
    pub lines_checked: u64,
    pub whispers: u64,
    pub joins: u64,
    pub ends: u64,
    pub visitors: u64,
}

pub struct Load<'a> {
    server: &'a Child,
    random: Random,
    recorder: Connection,
    order: Order,
    /// The newest list.
    list: Vec<String>,
    last_received: Instant,
    slots: Vec<Slot>,
    visitors: Vec<Visitor>,
    next_visitor: Instant,
    /// Tracks of members that have left, which may be ahead of the order.
    ended: Vec<Track>,
    whispers: HashMap<u64, Whisper>,
    next_id: u64,
    buffer: Vec<u8>,
    summary: Summary,
}

/// A place for one client at a time.
struct Slot {
    number: usize,
    name: String,
    /// How often this name has joined.
    joins: usize,
    /// Counts the names.
    names: usize,
    member: Option<Member>,
    next_action: Instant,
    /// Since when this name has been refused.
    refused_since: Option<Instant>,
}

/// A whisper must be delivered to its recipient and echoed to its sender, each once.
struct Whisper {
    from: (u64, String),
    to: (u64, String),
    is_delivered: bool,
    is_echoed: bool,
}

impl<'a> Load<'a> {
    pub fn new(server: &'a Child, clients: usize, seed: u64) -> Result<Self> {
        let mut random = Random(seed);
        let mut recorder = Connection::open(server, Options::default())?;
        recorder.queue_text(&format!(r#"{{"type":"join","username":"{RECORDER}"}}"#));
        let now = Instant::now();
        let slots = (0..clients).map(|number| Slot {
            number,
            name: format!("m{number}.0"),
            joins: 0,
            names: 0,
            member: None,
            next_action: pause(now, &mut random),
            refused_since: None,
        });
        let slots = slots.collect();
        let mut load = Self {
            server,
            random,
            recorder,
            order: Order::default(),
            list: Vec::new(),
            last_received: now,
            slots,
            visitors: Vec::new(),
            next_visitor: now,
            ended: Vec::new(),
            whispers: HashMap::new(),
            next_id: 0,
            buffer: vec![0; READ_BYTES],
            summary: Summary::default(),
        };
        let deadline = now + SETTLE_TIMEOUT;
        while load.order.len() == 0 {
            load.record()?;
            within(deadline, || "the first member could not join".into())?;
            thread::sleep(TICK);
        }
        Ok(load)
    }

    /// Puts the server under load until `end`. Then all messages must arrive, and all members leave.
    pub fn run(mut self, end: Instant) -> Result<Summary> {
        while Instant::now() < end {
            self.step(true)?;
            thread::sleep(TICK);
        }
        self.settle()?;
        self.leave()?;
        self.summary.messages = self.order.messages;
        Ok(self.summary)
    }

    /// Waits until everything that was sent has arrived at all members.
    fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        for member in self.slots.iter_mut().filter_map(|slot| slot.member.as_mut()) {
            member.stalled_until = None;
        }
        loop {
            self.step(false)?;
            match self.unsettled() {
                None if self.last_received.elapsed() > QUIET => break,
                None => {}
                Some(missing) => within(deadline, || missing)?,
            }
            thread::sleep(TICK);
        }
        let members = || self.slots.iter().filter_map(|slot| slot.member.as_ref());
        let ids: HashSet<u64> = members().map(|member| member.id).collect();
        for (number, whisper) in &self.whispers {
            if !whisper.is_complete() && ids.contains(&whisper.from.0) && ids.contains(&whisper.to.0) {
                let (from, to) = (&whisper.from.1, &whisper.to.1);
                return Err(format!("whisper {number} from {from} to {to} is lost").into());
            }
        }
        Ok(())
    }

    /// What has not arrived yet.
    fn unsettled(&mut self) -> Option<String> {
        for member in self.slots.iter_mut().filter_map(|slot| slot.member.as_mut()) {
            let name = &member.name;
            if !member.joined {
                return Some(format!("{name} has not joined"));
            }
            if let Some(how) = member.closing {
                return Some(format!("the connection of {name} is not closed after {how:?}"));
            }
            if !member.track.is_complete(&self.order) {
                return Some(format!("{name} has not received everything"));
            }
            let (sent, arrived) = (member.sent, self.order.arrived(name));
            if sent != arrived {
                return Some(format!("{name} sent {sent} messages, and {arrived} arrived"));
            }
        }
        if let Some(track) = self.ended.first() {
            return Some(format!("{track} received what the recorder did not"));
        }
        self.stale_members()
    }

    /// Names in the room or in the list that no member has.
    fn stale_members(&self) -> Option<String> {
        let mut names: HashSet<String> = self
            .slots
            .iter()
            .filter_map(|slot| slot.member.as_ref())
            .map(|member| member.name.clone())
            .collect();
        names.insert(RECORDER.into());
        if !self.order.has_members(&names) {
            let mut others: Vec<&String> =
                self.order.members().filter(|&name| !names.contains(name)).collect();
            others.sort();
            return Some(format!("members without a connection, or the reverse: {others:?}"));
        }
        let listed: HashSet<&String> = self.list.iter().collect();
        if self.list.len() != names.len() || !names.iter().all(|name| listed.contains(name)) {
            return Some(format!("the list has {} members, and the room {}", self.list.len(), names.len()));
        }
        None
    }

    /// All members leave, each in its own way.
    fn leave(&mut self) -> Result<()> {
        for number in 0..self.slots.len() {
            if self.slots[number].member.is_some() {
                let ways = [Action::Reset, Action::Close, Action::HalfClose];
                let way = self.random.below(ways.len());
                self.close(number, ways[way]);
            }
        }
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            self.step(false)?;
            let open = self.slots.iter().filter(|slot| slot.member.is_some()).count();
            match self.stale_members() {
                _ if open > 0 => within(deadline, || format!("{open} connections were not closed"))?,
                Some(stale) => within(deadline, || stale)?,
                None if self.visitors.is_empty() => return Ok(()),
                None => {}
            }
            thread::sleep(TICK);
        }
    }

    /// Does what can be done without waiting. Unless `act` is set, no member joins or sends.
    fn step(&mut self, act: bool) -> Result<()> {
        let now = Instant::now();
        self.record()?;
        for number in 0..self.slots.len() {
            self.exchange(number, now)?;
            if act && now >= self.slots[number].next_action {
                self.slots[number].next_action = pause(now, &mut self.random);
                self.act(number)?;
            }
        }
        let mut pending = Vec::new();
        for mut track in self.ended.drain(..) {
            if !track.check(&self.order)? {
                pending.push(track);
            }
        }
        self.ended = pending;
        if act && now >= self.next_visitor {
            self.next_visitor = now + VISITOR_INTERVAL;
            self.visitors.push(Visitor::new(self.server, &mut self.random)?);
            self.summary.visitors += 1;
        }
        for mut visitor in std::mem::take(&mut self.visitors) {
            if visitor.step(now) {
                self.visitors.push(visitor);
            } else if self.random.below(2) == 0 {
                visitor.reset();
            }
        }
        Ok(())
    }

    /// Receives everything that has arrived for the recorder.
    fn record(&mut self) -> Result<()> {
        self.recorder.flush()?;
        while self.recorder.receive(&mut self.buffer).map_err(|error| format!("the recorder: {error}"))? > 0 {
        }
        let mut received = Vec::new();
        self.recorder.messages(|opcode, message| {
            if opcode == TEXT {
                received.push(parse(message, true));
            }
        })?;
        for message in received {
            match message? {
                Some(Received::Line(line)) => {
                    self.order.push(&line)?;
                    self.last_received = Instant::now();
                }
                Some(Received::List(list)) => self.list = list,
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends and receives for one slot, and checks what it receives.
    fn exchange(&mut self, number: usize, now: Instant) -> Result<()> {
        let slot = &mut self.slots[number];
        let Some(member) = &mut slot.member else { return Ok(()) };
        if member.retry_join.is_some_and(|at| now >= at) {
            member.retry_join = None;
            member.join();
        }
        let received = match member.exchange(now, &mut self.buffer) {
            Ok(received) => received,
            Err(error) if member.may_end && error.kind() != io::ErrorKind::Other => {
                return self.ended(number);
            }
            Err(error) => return Err(format!("{}: {error}, unexpectedly", member.name).into()),
        };
        for message in received {
            match message {
                Received::Line(line) => {
                    if matches!(&line, Line::Joined(name) if *name == member.name) {
                        member.joined = true;
                        slot.refused_since = None;
                        self.summary.joins += 1;
                    }
                    member.track.received(line);
                    self.summary.lines_checked += 1;
                }
                // The name is still taken by the previous connection.
                Received::Error if !member.joined => {
                    member.retry_join = Some(now + JOIN_RETRY);
                    if slot.refused_since.get_or_insert(now).elapsed() > NAME_TIMEOUT {
                        return Err(format!("the name {} is still taken", slot.name).into());
                    }
                }
                Received::Whisper(whisper) => {
                    let name = &member.name;
                    let is_expected =
                        self.whispers.get_mut(&whisper).is_some_and(|whisper| whisper.arrives(name));
                    if !is_expected {
                        return Err(format!("{name} received whisper {whisper} twice, or by mistake").into());
                    }
                    self.summary.whispers += 1;
                }
                Received::Error | Received::List(_) => {}
            }
        }
        member.track.check(&self.order)?;
        Ok(())
    }

    fn act(&mut self, number: usize) -> Result<()> {
        let Some(member) = &mut self.slots[number].member else { return self.connect(number) };
        if !member.joined || member.closing.is_some() || member.stalled_until.is_some() {
            return Ok(());
        }
        match Action::random(&mut self.random) {
            Action::Public => member.public(&mut self.random, false),
            Action::Fragmented => member.public(&mut self.random, true),
            Action::Whisper => self.whisper(number),
            Action::Help => member.command("/help"),
            Action::Invalid => member.invalid(&mut self.random),
            Action::Ping => member.ping(&mut self.random),
            Action::Stall => member.stall(&mut self.random),
            Action::StallUntilCutOff => member.stall_until_cut_off(),
            how => self.close(number, how),
        }
        Ok(())
    }

    fn connect(&mut self, number: usize) -> Result<()> {
        let is_slow = self.random.below(10) == 0;
        let receive_buffer = is_slow.then_some(SLOW_RECEIVE_BUFFER);
        let connection = Connection::open(self.server, Options { receive_buffer, ..Options::default() })?;
        let slot = &mut self.slots[number];
        self.next_id += 1;
        slot.member = Some(Member::new(connection, &slot.name, self.next_id, slot.joins, is_slow));
        Ok(())
    }

    fn whisper(&mut self, number: usize) {
        let to = self.random.below(self.slots.len());
        let Some(recipient) = self.slots[to].member.as_ref().filter(|member| member.joined && to != number)
        else {
            return;
        };
        let to = (recipient.id, recipient.name.clone());
        let Some(member) = &mut self.slots[number].member else { return };
        self.next_id += 1;
        member.command(&format!("/whisper {} w{}", to.1, self.next_id));
        let from = (member.id, member.name.clone());
        self.whispers.insert(self.next_id, Whisper { from, to, is_delivered: false, is_echoed: false });
    }

    /// A member ends its connection in this way.
    fn close(&mut self, number: usize, how: Action) {
        let slot = &mut self.slots[number];
        if matches!(how, Action::Reset) {
            if let Some(member) = slot.member.take() {
                self.leaves(number, member).reset();
            }
        } else if let Some(member) = &mut slot.member {
            self.order.closes(&member.name, member.sent);
            member.close(how, &mut self.random);
        }
    }

    /// The server has ended a connection, as it may.
    fn ended(&mut self, number: usize) -> Result<()> {
        if let Some(member) = self.slots[number].member.take() {
            self.leaves(number, member);
        }
        Ok(())
    }

    /// Removes a member. The next one in its slot has another name, or the same, which must soon be free.
    fn leaves(&mut self, number: usize, member: Member) -> Connection {
        let slot = &mut self.slots[number];
        if member.joined && self.random.below(2) == 0 {
            slot.joins += 1;
        } else {
            slot.names += 1;
            slot.joins = 0;
            slot.name = format!("m{}.{}", slot.number, slot.names);
        }
        slot.refused_since = None;
        self.whispers.retain(|_, whisper| !whisper.is_complete());
        self.ended.push(member.track);
        self.summary.ends += 1;
        member.connection
    }
}

impl Whisper {
    fn is_complete(&self) -> bool {
        self.is_delivered && self.is_echoed
    }

    /// Records that the member with this name has received it. `false`: not for the first time, or it is another's.
    fn arrives(&mut self, name: &str) -> bool {
        let flag = match name {
            name if name == self.to.1 => &mut self.is_delivered,
            name if name == self.from.1 => &mut self.is_echoed,
            _ => return false,
        };
        !std::mem::replace(flag, true)
    }
}

fn pause(now: Instant, random: &mut Random) -> Instant {
    now + Duration::from_millis(random.below(MAX_PAUSE) as u64)
}

fn within(deadline: Instant, missing: impl FnOnce() -> String) -> Result<()> {
    if Instant::now() < deadline { Ok(()) } else { Err(missing().into()) }
}
