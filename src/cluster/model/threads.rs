//! The threads of a node, which write to the log and read it (`writer.rs`, `reader.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::engine::{Answer, BEAT, Call, Claim, ConnectionNumber, Engine, Fill, Reply, Verdict};
use crate::chat::NodeNumber;
use crate::cluster::engine::EngineError;
use crate::cluster::entry::{Content, ENGINE, Entry};
use crate::cluster::following::Following;
use crate::cluster::log::SharedLog;
use crate::cluster::node::{Event, Joined, OwnState, Rank};
use crate::cluster::outbox::{BatchLimits, Outbox, Removed};
use crate::cluster::position::{Break, Position};
use crate::cluster::snapshot::{Applied, Snapshot};
use crate::cluster::start::{Found, Membership, Past, joined};
use crate::cluster::status::Status;
use crate::cluster::writer::{Command, Offer};

/// A new snapshot is due after this many entries.
const SNAPSHOT_ENTRIES: u64 = 12;
/// How many entries the log keeps before a snapshot.
const KEPT_ENTRIES: u64 = 4;
/// How long a node tries to leave, in milliseconds.
const LEAVE_TIMEOUT: u64 = 3000;
/// How many entries are written and read at once.
const WRITTEN: BatchLimits = BatchLimits { entries: 3, bytes: 4096 };
const READ: usize = 4;

pub struct Threads {
    claimant: usize,
    status: Arc<Status>,
    sender: Sender<Command>,
    commands: Receiver<Command>,
    /// What has happened, in order.
    pub events: VecDeque<Event>,
    /// The answer to the first join.
    started: Option<(Joined, SharedLog)>,
    membership: Membership,
    last_number: NodeNumber,
    outbox: Outbox,
    acknowledged: Option<(u64, u64)>,
    next_beat: u64,
    tick: Option<u64>,
    snapshot: Option<(u64, Vec<u8>)>,
    has_asked_for_snapshot: bool,
    trouble: Option<Trouble>,
    offer: Option<Offer>,
    /// When it must have left.
    leaving: Option<u64>,
    has_asked_to_leave: bool,
    /// What it has asked for is done, and has to be read.
    has_left: bool,
    doing: Doing,
    writer: Line,
    reader: Line,
    following: Option<Following>,
}

/// A connection to the engine, on which at most one call waits for its answer.
#[derive(Default)]
struct Line {
    connection: Option<ConnectionNumber>,
    run: u64,
    asked: Option<Asked>,
}

/// What an answer needs.
#[derive(Clone, Copy, Default)]
struct Asked {
    /// How many entries were written.
    count: usize,
    /// The last id that had been read.
    read: u64,
    leaves: bool,
}

/// What the thread that writes does.
enum Doing {
    Working,
    /// Ended by the others, and joins again.
    Rejoining,
    CatchingUp,
    AwaitingOffer,
    Entering(Box<Entering>),
    Ended,
}

/// Joining, for the first time or after the engine was restarted or has lost the chat.
struct Entering {
    past: Past,
    offer: Offer,
    is_first: bool,
    step: Step,
    /// The epoch with which this node has filled the engine.
    filled: Option<String>,
}

enum Step {
    Look,
    Restore { found: Option<String>, epoch: String, has_won: bool },
    Join,
    Load(Membership),
}

#[derive(Debug)]
enum Trouble {
    Engine,
    Restarted,
    Lost,
    Behind,
    Ended,
    Stuck,
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Epoch | EngineError::Gap | EngineError::Empty => Self::Lost,
            EngineError::Restarted => Self::Restarted,
            EngineError::Fenced => Self::Ended,
            _ => Self::Engine,
        }
    }
}

impl Threads {
    /// A node that joins. `claimant`: a number of its own.
    pub fn start(claimant: usize, own: OwnState) -> Self {
        let (sender, commands) = unbounded();
        let applied = Applied { id: own.rank.id(), ..Applied::default() };
        let membership = Membership {
            run: String::new(),
            node: ENGINE,
            epoch: String::new(),
            mark: 0,
            log_id: 0,
            snapshot_id: 0,
            format: 1,
        };
        Self {
            claimant,
            status: Arc::new(Status::new("a node")),
            sender,
            commands,
            events: VecDeque::new(),
            started: None,
            membership,
            last_number: ENGINE,
            outbox: Outbox::new(),
            acknowledged: None,
            next_beat: 0,
            tick: None,
            snapshot: None,
            has_asked_for_snapshot: false,
            trouble: None,
            offer: None,
            leaving: None,
            has_asked_to_leave: false,
            has_left: false,
            doing: Doing::Entering(Box::new(Entering {
                past: Past::default(),
                offer: Offer { own, applied },
                is_first: true,
                step: Step::Join,
                filled: None,
            })),
            writer: Line::default(),
            reader: Line::default(),
            following: None,
        }
    }

    /// The chat, once this node has joined for the first time.
    pub fn started(&mut self) -> Option<(Joined, SharedLog)> {
        self.started.take()
    }

    /// The answer to [`Event::OfferDue`].
    pub fn offer(&self, applied: &Applied, chat: Vec<u8>) {
        let own = OwnState { rank: Rank::Live(applied.id), chat };
        self.command(Command::Offer(Offer { own, applied: applied.clone() }));
    }

    /// The answer to [`Event::SnapshotDue`].
    pub fn snapshot(&self, epoch: &str, applied: &Applied, chat: &[u8]) {
        let snapshot = Snapshot::encode(epoch, applied, chat);
        self.command(Command::Snapshot { epoch: epoch.into(), id: applied.id, snapshot });
    }

    /// Whether nothing is left to be written or read.
    pub fn is_quiet(&self, engine: &Engine) -> bool {
        let is_at_end = self
            .following
            .as_ref()
            .is_some_and(|following| engine.end() == Some((following.epoch.as_str(), following.position.id)));
        matches!(self.doing, Doing::Working)
            && self.trouble.is_none()
            && self.commands.is_empty()
            && self.events.is_empty()
            && self.outbox.done() == self.outbox.last_sent()
            && self.outbox.is_all_sent()
            && is_at_end
    }

    /// Both connections are lost. `arrives`: what was sent on them reaches the engine later.
    pub fn cut(&mut self, engine: &mut Engine, arrives: bool) {
        self.lose_writer(engine, arrives);
        self.lose_reader(engine, arrives);
    }

    pub fn cut_writer(&mut self, engine: &mut Engine, arrives: bool) {
        self.lose_writer(engine, arrives);
    }

    /// One of the threads does something.
    pub fn step(&mut self, engine: &mut Engine, reads: bool) {
        if reads {
            self.read(engine);
        } else {
            self.write(engine);
        }
    }

    fn write(&mut self, engine: &mut Engine) {
        if self.writer.connection.is_some() && self.writer.run != engine.run {
            self.lose_writer(engine, false);
        }
        if let Some(asked) = self.writer.asked {
            let answer = self.writer.connection.and_then(|connection| engine.answer(connection));
            if let Some(answer) = answer {
                self.writer.asked = None;
                self.answered(engine, answer, asked);
            }
            return;
        }
        self.take_waiting(engine.now);
        if self.leaving.is_some_and(|leaving| engine.now >= leaving) && !matches!(self.doing, Doing::Ended) {
            self.events.push_back(Event::Left(false));
            self.doing = Doing::Ended;
        }
        match &mut self.doing {
            Doing::Working => self.work(engine),
            Doing::Rejoining => self.ask(engine, Asked::default(), |threads, _| {
                Call::join(&Past { node: threads.last_number, ..Past::default() })
            }),
            Doing::CatchingUp => self.ask(engine, Asked::default(), |_, _| Call::Load),
            Doing::AwaitingOffer => {
                if let Some(offer) = self.offer.take() {
                    let past = Past {
                        node: self.last_number,
                        epoch: self.membership.epoch.clone(),
                        done: self.outbox.done(),
                        format: Some(self.membership.format),
                    };
                    let (step, filled) = (Step::Look, None);
                    let entering = Entering { past, offer, is_first: false, step, filled };
                    self.doing = Doing::Entering(entering.into());
                }
            }
            Doing::Entering(entering) => {
                let call = entering.call(self.claimant);
                self.ask(engine, Asked::default(), |_, _| call);
            }
            Doing::Ended => {}
        }
    }

    fn work(&mut self, engine: &mut Engine) {
        if let Some(trouble) = self.trouble.take() {
            return self.recover(engine, trouble);
        }
        if self.has_left {
            return;
        }
        if self.membership.run != engine.run.to_string() {
            return self.recover(engine, Trouble::Restarted);
        }
        let read = self.status.read_id();
        let was_read = self.acknowledged.take_if(|(id, _)| *id <= read);
        if was_read.is_some_and(|(_, sequence)| self.outbox.done() < sequence) {
            return self.recover(engine, Trouble::Stuck);
        }
        let asked = Asked { read, ..Asked::default() };
        let head = (self.membership.epoch.clone(), self.membership.node);
        if engine.now >= self.next_beat {
            self.ask(engine, asked, |_, _| Call::Beat { head });
        } else if let Some((id, snapshot)) = self.snapshot.take() {
            let (replaced, keep) = (self.membership.snapshot_id, (id + 1).saturating_sub(KEPT_ENTRIES));
            self.ask(engine, asked, |_, _| Call::Snapshot { head, id, replaced, keep, snapshot });
        } else if let Some(at) = self.tick.filter(|at| *at <= engine.now) {
            self.ask(engine, asked, |_, _| Call::Tick { head, at });
        } else if let Some((first, batch)) = self.outbox.batch(WRITTEN) {
            let data: Vec<Vec<u8>> = batch.into_iter().map(<[u8]>::to_vec).collect();
            let asked = Asked { count: data.len(), ..asked };
            self.ask(engine, asked, |_, _| Call::Append { head, first, data });
        } else if self.leaving.is_some() {
            self.has_asked_to_leave = true;
            let asked = Asked { leaves: true, ..asked };
            self.ask(engine, asked, |_, _| Call::Leave { head });
        }
    }

    /// Sends a call, after connecting if there is no connection.
    fn ask(&mut self, engine: &mut Engine, asked: Asked, call: impl FnOnce(&Self, &Engine) -> Call) {
        let call = call(self, engine);
        self.writer.send(engine, call);
        self.writer.asked = Some(asked);
    }

    fn answered(&mut self, engine: &mut Engine, answer: Answer, asked: Asked) {
        match std::mem::replace(&mut self.doing, Doing::Working) {
            Doing::Working => match answer {
                Ok(reply) => self.worked(reply, asked, engine.now),
                Err(error) => self.recover(engine, error.into()),
            },
            Doing::Rejoining => match answer {
                Ok(Reply::Joined(membership)) if membership.epoch == self.membership.epoch => {
                    self.last_number = membership.node;
                    self.status.rejoined(membership.node);
                    self.membership = membership.clone();
                    self.continue_at_once();
                    let applied = Applied { id: self.status.read_id(), ..Applied::default() };
                    self.events.push_back(Event::Joined(joined(&membership, Found::Own, applied)));
                }
                _ => self.come_back(engine),
            },
            Doing::CatchingUp => {
                let loaded = answer.ok().map(|reply| snapshot(reply, &self.membership.epoch));
                match loaded.flatten().filter(|snapshot| snapshot.applied.id > self.status.read_id()) {
                    Some(snapshot) => {
                        self.adopt(self.membership.clone(), Found::Loaded(snapshot), Applied::default());
                    }
                    None => self.come_back(engine),
                }
            }
            Doing::Entering(entering) => self.entered(engine, entering, answer),
            doing @ (Doing::AwaitingOffer | Doing::Ended) => self.doing = doing,
        }
    }

    fn worked(&mut self, reply: Reply, asked: Asked, now: u64) {
        match reply {
            Reply::Written(..) if asked.leaves => self.has_left = true,
            Reply::Written(id, _) if asked.count > 0 => {
                self.outbox.sent(asked.count);
                self.acknowledged.get_or_insert((id, self.outbox.last_sent()));
            }
            Reply::Written(_, time) => self.tick = self.tick.filter(|at| time < *at),
            Reply::Beat { id, .. } if id < asked.read => self.trouble = Some(Trouble::Lost),
            Reply::Beat { snapshot, before, .. } => {
                self.next_beat = now + BEAT;
                if self.membership.snapshot_id != snapshot {
                    self.membership.snapshot_id = snapshot;
                    self.has_asked_for_snapshot = false;
                }
                let entries = self.status.read_id().saturating_sub(snapshot);
                if entries >= SNAPSHOT_ENTRIES * (1 + before) && !self.has_asked_for_snapshot {
                    self.has_asked_for_snapshot = true;
                    self.events.push_back(Event::SnapshotDue);
                }
            }
            Reply::Stored(is_stored) if is_stored => self.next_beat = now,
            Reply::Stored(_) => self.has_asked_for_snapshot = false,
            reply => panic!("{reply:?} is no answer to that"),
        }
    }

    fn entered(&mut self, engine: &mut Engine, mut entering: Box<Entering>, answer: Answer) {
        let start = if entering.is_first { Step::Join } else { Step::Look };
        let reply = match answer {
            Ok(reply) => reply,
            Err(EngineError::Empty) if entering.is_first && matches!(entering.step, Step::Join) => {
                entering.step = Step::restore(engine, None);
                self.doing = Doing::Entering(entering);
                return;
            }
            Err(_) => {
                (entering.step, entering.filled) = (start, None);
                self.doing = Doing::Entering(entering);
                return;
            }
        };
        let step = std::mem::replace(&mut entering.step, Step::Look);
        entering.step = match (step, reply) {
            (Step::Look, Reply::Chat(chat)) => {
                let found = chat.map(|(epoch, ..)| epoch);
                let is_lost = found.as_ref().is_none_or(|epoch| *epoch == entering.past.epoch);
                if is_lost { Step::restore(engine, found) } else { Step::Join }
            }
            (Step::Restore { found, epoch, .. }, Reply::Restored(verdict)) => match verdict {
                Verdict::Wait => Step::Restore { found, epoch, has_won: false },
                Verdict::Win => Step::Restore { found, epoch, has_won: true },
                Verdict::Done => {
                    entering.filled = Some(epoch);
                    Step::Join
                }
                Verdict::Fine if !entering.is_first => {
                    self.membership.run = self.writer.run.to_string();
                    self.continue_at_once();
                    self.follow(&entering.offer.applied);
                    if self.membership.node == ENGINE {
                        self.rejoin();
                    }
                    return;
                }
                Verdict::Behind => return self.follow(&entering.offer.applied),
                Verdict::Fine | Verdict::Other => Step::Join,
            },
            (Step::Join, Reply::Joined(membership)) => {
                if entering.filled.as_ref() == Some(&membership.epoch) {
                    return self.enter(membership, Found::Own, entering);
                }
                Step::Load(membership)
            }
            (Step::Load(membership), reply) => match snapshot(reply, &membership.epoch) {
                Some(snapshot) => return self.enter(membership, Found::Loaded(snapshot), entering),
                None => start,
            },
            (_, reply) => panic!("{reply:?} is no answer to that"),
        };
        self.doing = Doing::Entering(entering);
    }

    fn enter(&mut self, membership: Membership, found: Found, entering: Box<Entering>) {
        if !entering.is_first {
            return self.adopt(membership, found, entering.offer.applied);
        }
        let applied = match &found {
            Found::Own => entering.offer.applied,
            Found::Loaded(snapshot) => snapshot.applied.clone(),
        };
        let joined = joined(&membership, found, applied.clone());
        self.status.joined(membership.node, membership.log_id, applied.id, membership.snapshot_id);
        // The history that the engine keeps is not simulated.
        let log = SharedLog::new(self.sender.clone(), unbounded().0, self.status.clone(), &joined);
        (self.last_number, self.membership) = (membership.node, membership);
        self.started = Some((joined, log));
        self.follow(&applied);
    }

    fn recover(&mut self, engine: &mut Engine, trouble: Trouble) {
        match trouble {
            Trouble::Engine => self.lose_writer(engine, false),
            Trouble::Stuck => self.cut(engine, false),
            Trouble::Restarted | Trouble::Lost => self.come_back(engine),
            Trouble::Behind => {
                self.pause_reader(engine);
                self.doing = Doing::CatchingUp;
            }
            Trouble::Ended if self.leaving.is_some() => {
                self.events.push_back(Event::Left(self.has_asked_to_leave));
                self.doing = Doing::Ended;
            }
            Trouble::Ended => self.rejoin(),
        }
    }

    fn rejoin(&mut self) {
        self.membership.node = ENGINE;
        self.removed_all();
        self.events.push_back(Event::Fenced);
        self.doing = Doing::Rejoining;
    }

    fn come_back(&mut self, engine: &mut Engine) {
        self.pause_reader(engine);
        self.offer = None;
        self.events.push_back(Event::OfferDue);
        self.doing = Doing::AwaitingOffer;
    }

    fn adopt(&mut self, membership: Membership, found: Found, own: Applied) {
        let applied = match &found {
            Found::Own => own,
            Found::Loaded(snapshot) => snapshot.applied.clone(),
        };
        let joined = joined(&membership, found, applied.clone());
        let removed = self.outbox.adopt(membership.node == self.membership.node, joined.sequence);
        self.status.removed(removed);
        let log_id = membership.log_id.max(applied.id);
        self.status.joined(membership.node, log_id, applied.id, membership.snapshot_id);
        (self.last_number, self.membership) = (membership.node, membership);
        self.tick = None;
        self.continue_at_once();
        self.events.push_back(Event::Joined(joined));
        self.follow(&applied);
    }

    fn follow(&mut self, applied: &Applied) {
        let position = Position::new(self.membership.mark, applied.id, applied.origin);
        self.following = Some(Following::new(self.membership.epoch.clone(), position));
        self.reader = Line::default();
    }

    fn continue_at_once(&mut self) {
        self.outbox.rewind();
        (self.acknowledged, self.snapshot, self.has_asked_for_snapshot) = (None, None, false);
        self.next_beat = 0;
    }

    fn pause_reader(&mut self, engine: &mut Engine) {
        self.lose_reader(engine, false);
        self.following = None;
        self.take_waiting(engine.now);
        self.trouble = None;
    }

    fn lose_writer(&mut self, engine: &mut Engine, arrives: bool) {
        self.writer.lose(engine, arrives);
        self.outbox.rewind();
        self.acknowledged = None;
        if let Doing::Entering(entering) = &mut self.doing {
            entering.step = if entering.is_first { Step::Join } else { Step::Look };
            entering.filled = None;
        }
    }

    fn lose_reader(&mut self, engine: &mut Engine, arrives: bool) {
        self.reader.lose(engine, arrives);
        self.following.iter_mut().for_each(|following| following.position.reconnected());
    }

    fn removed_all(&mut self) {
        let removed = self.outbox.clear();
        self.status.removed(removed);
    }

    fn take_waiting(&mut self, now: u64) {
        while let Ok(command) = self.commands.try_recv() {
            let own = self.membership.node;
            match command {
                Command::Append { node, data } if node == own => self.outbox.push(data),
                Command::Append { data, .. } => {
                    self.status.removed(Removed { entries: 1, bytes: data.len() });
                }
                Command::Tick(at) => self.tick = Some(at),
                Command::Snapshot { epoch, id, snapshot } if epoch == self.membership.epoch => {
                    self.snapshot = Some((id, snapshot));
                }
                Command::Offer(offer) => self.offer = Some(offer),
                Command::Leave => self.leaving = Some(now + LEAVE_TIMEOUT),
                Command::ReadBack { node, sequence } if node == own => {
                    let removed = self.outbox.read_back(sequence);
                    self.status.removed(removed);
                }
                Command::Ended(node) if node == own => self.trouble = Some(Trouble::Ended),
                Command::Lost(_) => self.trouble = Some(Trouble::Lost),
                Command::Behind => self.trouble = Some(Trouble::Behind),
                Command::Reconnected => self.next_beat = 0,
                _ => {}
            }
        }
    }

    fn read(&mut self, engine: &mut Engine) {
        if self.reader.connection.is_some() && self.reader.run != engine.run {
            self.lose_reader(engine, false);
            self.command(Command::Reconnected);
        }
        let Some(following) = &mut self.following else { return };
        if self.reader.asked.is_none() {
            let after = following.position.read_after();
            self.reader.send(engine, Call::Read { after, count: READ });
            self.reader.asked = Some(Asked::default());
            return;
        }
        let answer = self.reader.connection.and_then(|connection| engine.answer(connection));
        let Some(answer) = answer else { return };
        self.reader.asked = None;
        let cause = match answer {
            Ok(Reply::Entries(read)) if read.is_empty() => {
                self.reader.send(engine, Call::Chat);
                self.reader.asked = Some(Asked::default());
                return;
            }
            Ok(Reply::Chat(chat)) => following.check_end(chat).err(),
            Ok(Reply::Entries(read)) => {
                let (entries, cause) = following.take(read);
                self.deliver(entries);
                cause
            }
            answer => panic!("{answer:?} is no answer to that"),
        };
        if let Some(cause) = cause {
            self.following = None;
            self.command(match cause {
                Break::Lost(reason) => Command::Lost(reason.into()),
                Break::Behind => Command::Behind,
            });
        }
    }

    fn deliver(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last() else { return };
        self.status.read(last.id, 0);
        let own = self.last_number;
        let mut has_ended = false;
        for entry in &entries {
            match entry.content {
                Content::Data { node, sequence, .. } if node == own => {
                    self.command(Command::ReadBack { node, sequence });
                }
                Content::NodeDown(node) => has_ended |= node == own,
                Content::Data { .. } | Content::Tick => {}
            }
        }
        self.events.push_back(Event::Entries(entries));
        if has_ended {
            self.command(Command::Ended(own));
        }
    }

    fn command(&self, command: Command) {
        self.sender.send(command).expect("the receiver is here");
    }
}

impl Entering {
    fn call(&self, claimant: usize) -> Call {
        match &self.step {
            Step::Look => Call::Chat,
            Step::Restore { found, epoch, has_won } => {
                let Offer { own, applied } = &self.offer;
                let claim = Claim {
                    found: found.clone(),
                    claimant,
                    node: self.past.node,
                    rank: own.rank,
                    applied: applied.clone(),
                };
                let fill = has_won.then(|| Fill {
                    epoch: epoch.clone(),
                    past_epoch: self.past.epoch.clone(),
                    snapshot: Snapshot::encode(epoch, applied, &own.chat),
                });
                Call::Restore { claim, fill }
            }
            Step::Join => Call::join(&self.past),
            Step::Load(_) => Call::Load,
        }
    }
}

impl Step {
    fn restore(engine: &mut Engine, found: Option<String>) -> Self {
        Self::Restore { found, epoch: engine.new_epoch(), has_won: false }
    }
}

impl Line {
    fn send(&mut self, engine: &mut Engine, call: Call) {
        let connection = *self.connection.get_or_insert_with(|| {
            self.run = engine.run;
            engine.connect()
        });
        engine.send(connection, call);
    }

    fn lose(&mut self, engine: &mut Engine, arrives: bool) {
        if let Some(connection) = self.connection.take() {
            engine.cut(connection, arrives);
        }
        self.asked = None;
    }
}

/// The snapshot of an epoch, if it is one.
fn snapshot(reply: Reply, epoch: &str) -> Option<Snapshot> {
    let Reply::Loaded(bytes) = reply else { panic!("{reply:?} is no snapshot") };
    let snapshot = Snapshot::decode(&bytes).expect("a node has encoded it");
    (snapshot.epoch == epoch).then_some(snapshot)
}
