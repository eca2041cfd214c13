//! The thread that writes to the log, and renews this node's lease.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use log::{error, info, warn};

use super::backoff::Backoff;
use super::engine::{Engine, EngineError};
use super::entry::ENGINE;
use super::kept::{Change, MAX_WAITING_BYTES, Waiting};
use super::liveness::Liveness;
use super::node::{Event, OwnState};
use super::outbox::{BatchLimits, Outbox, Removed};
use super::position::Position;
use super::reader::ReaderCommand;
use super::scripts::Script;
use super::snapshot::{Applied, Snapshot};
use super::start::{
    Continuation, Found, Membership, Node, Past, Problems, come_back, decimal, join_chat, joined, load,
    millis, random_byte, refused,
};
use super::tuning::{
    ENTRY_BYTES, EXPIRY_INTERVAL, IO_TIMEOUT, KEPT_BYTES, KEPT_TIME, LEAVE_TIMEOUT, MAX_READ_PAUSE,
    SNAPSHOT_BYTES,
};
use crate::chat::{HistoryLimits, KeptEntry, NodeNumber};

/// How long the caller may take for a snapshot, before it is asked again.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is checked how far the log is read, while this thread waits for that.
const READ_CHECK: Duration = Duration::from_millis(20);
/// Above this round trip, the engine is far away.
const FAR: Duration = Duration::from_millis(100);

/// Requests and reports to the thread.
pub enum Command {
    /// By the caller, which has counted the entry as queued.
    Append {
        node: NodeNumber,
        data: Vec<u8>,
    },
    Tick(u64),
    Snapshot {
        epoch: String,
        id: u64,
        snapshot: Vec<u8>,
    },
    /// Write the history at once: a message was deleted, or a thread that reads it needs what is not written yet.
    WriteHistory,
    Offer(Offer),
    Leave,
    Stop,
    /// By the thread that reads: this node's entries up to this one are in the log.
    ReadBack {
        node: NodeNumber,
        sequence: u64,
    },
    /// A node with this node's number has been ended.
    Ended(NodeNumber),
    Lost(String),
    Behind,
    Paused,
    /// The engine may have been restarted.
    Reconnected,
}

/// What this node has of the history. It has a channel of its own, on which no thread waits: to wake one for each
/// message would cost more than everything else.
pub enum HistoryUpdate {
    /// A change by an entry.
    Change(Change),
    /// All that is in memory, and the last messages that were deleted.
    All { epoch: String, base: u64, messages: Vec<KeptEntry>, deleted: Vec<u64>, limits: HistoryLimits },
}

/// A state that an engine can be filled with.
#[derive(Clone)]
pub struct Offer {
    pub own: OwnState,
    pub applied: Applied,
}

pub struct Writer {
    node: Arc<Node>,
    commands: Receiver<Command>,
    updates: Receiver<HistoryUpdate>,
    reader: Sender<ReaderCommand>,
    membership: Membership,
    /// This node's last number, which it may no longer have.
    last_number: NodeNumber,
    engine: Option<Engine>,
    has_connected: bool,
    backoff: Backoff,
    problems: Problems,
    outbox: Outbox,
    liveness: Liveness,
    /// This node's entries up to this sequence number are in the log, up to this id: the id, the sequence number.
    acknowledged: Option<(u64, u64)>,
    next_beat: Instant,
    /// In milliseconds of the log's time.
    tick: Option<u64>,
    snapshots: Snapshots,
    /// `None`: the caller has not said yet what this node has of it.
    history: Option<HistoryChanges>,
    /// Whether it is to be written at once.
    has_to_write: bool,
    /// Whether the engine has lost a part of it that was written.
    has_lost_history: bool,
    /// What the thread that reads has reported.
    trouble: Option<Trouble>,
    has_paused: bool,
    offer: Option<Offer>,
    /// When it must have left.
    leaving: Option<Instant>,
    /// The engine may have done that already.
    has_asked_to_leave: bool,
    is_stopped: bool,
}

/// What is to be written to the history.
struct HistoryChanges {
    waiting: Waiting,
    limits: HistoryLimits,
    /// When messages that are too old were last removed.
    expired: Instant,
    /// Another node has to write before this one can. The next beat shows whether it has.
    is_held: bool,
    /// Messages that were deleted, which the engine may still have.
    deleted: Vec<u64>,
    /// The engine has lost a part of what was written: write at once.
    has_lost: bool,
}

/// When the chat's state is stored.
struct Snapshots {
    /// The number of bytes read when the last one was stored.
    bytes_at_last: u64,
    /// How many live nodes make one before this node does.
    before: u64,
    /// When the last one was noticed.
    last: Instant,
    asked: Option<Instant>,
    /// To be sent: its id, and the encoded snapshot.
    waiting: Option<(u64, Vec<u8>)>,
    /// Earlier ends of the log, and when it ended there.
    ends: VecDeque<(Instant, u64)>,
}

enum Trouble {
    Engine(EngineError),
    /// The engine may have lost what it had acknowledged.
    Restarted,
    /// What was acknowledged is missing.
    Lost(String),
    /// The thread that reads needs a snapshot.
    Behind,
    /// This node's number is not valid any more.
    Ended,
    /// What was written is not read.
    Stuck,
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Epoch | EngineError::Gap | EngineError::Empty => Self::Lost(error.to_string()),
            EngineError::Restarted => Self::Restarted,
            EngineError::Fenced => Self::Ended,
            error => Self::Engine(error),
        }
    }
}

impl Writer {
    pub fn new(
        node: Arc<Node>,
        membership: Membership,
        commands: Receiver<Command>,
        updates: Receiver<HistoryUpdate>,
        reader: Sender<ReaderCommand>,
    ) -> Self {
        let problems = Problems::new(node.link.address());
        Self {
            node,
            commands,
            updates,
            reader,
            last_number: membership.node,
            membership,
            engine: None,
            has_connected: false,
            backoff: Backoff::default(),
            problems,
            outbox: Outbox::new(),
            liveness: Liveness::new(MAX_READ_PAUSE),
            acknowledged: None,
            next_beat: Instant::now(),
            tick: None,
            snapshots: Snapshots {
                bytes_at_last: 0,
                before: 0,
                last: Instant::now(),
                asked: None,
                waiting: None,
                ends: VecDeque::new(),
            },
            history: None,
            has_to_write: false,
            has_lost_history: false,
            trouble: None,
            has_paused: false,
            offer: None,
            leaving: None,
            has_asked_to_leave: false,
            is_stopped: false,
        }
    }

    pub fn run(mut self) {
        let has_left = loop {
            let flow = match self.work() {
                Ok(flow) => flow,
                Err(trouble) => self.recover(trouble),
            };
            if let ControlFlow::Break(has_left) = flow {
                break has_left;
            }
            if self.is_over() {
                break false;
            }
        };
        // The threads end together.
        let _ = self.reader.send(ReaderCommand::Stop);
        (self.node.events)(Event::Left(has_left));
    }

    /// Does what is most urgent, or waits. Breaks with `true` once this node has left.
    fn work(&mut self) -> Result<ControlFlow<bool>, Trouble> {
        // In this order: entries are reported as read back before the id counts as read.
        let read = self.node.status.read_id();
        self.take_waiting();
        if let Some(trouble) = self.trouble.take() {
            return Err(trouble);
        }
        let now = Instant::now();
        self.liveness.read(read, now);
        if self.node.status.is_delivering() {
            self.liveness.delivering(now);
        }
        self.node.status.stuck(self.liveness.is_stuck());
        let was_read = self.acknowledged.take_if(|(id, _)| *id <= read);
        if self.liveness.is_overdue(now)
            || was_read.is_some_and(|(_, sequence)| self.outbox.done() < sequence)
        {
            return Err(Trouble::Stuck);
        }
        if now >= self.next_beat {
            self.beat()?;
        } else if self.history_is_due(now) {
            self.write_history(now)?;
        } else if let Some((id, snapshot)) = self.snapshots.waiting.take_if(|(id, _)| {
            // A node that starts from it needs the messages that it no longer contains.
            self.history.as_ref().is_none_or(|history| history.waiting.is_written(*id))
        }) {
            self.store_snapshot(id, &snapshot)?;
        } else if self.tick_wait().is_some_and(|wait| wait.is_zero()) {
            self.let_time_pass()?;
        } else if !self.outbox.is_all_sent() {
            self.append()?;
        } else if self.leaving.is_some() {
            self.leave()?;
            return Ok(ControlFlow::Break(true));
        } else {
            let tick = self.tick_wait().map(|wait| now + wait);
            let deadline = [Some(self.next_beat), tick, self.liveness.deadline()].into_iter().flatten().min();
            self.wait_until(deadline.unwrap_or(now));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn append(&mut self) -> Result<(), Trouble> {
        let is_far = self.node.status.figures().round_trip > FAR;
        let limits = if is_far { BatchLimits::FAR } else { BatchLimits::USUAL };
        // The call borrows what it sends.
        let outbox = std::mem::replace(&mut self.outbox, Outbox::new());
        let mut count = 0;
        let answer = outbox.batch(limits).map(|(first, batch)| {
            count = batch.len();
            let first = decimal(first);
            let arguments: Vec<&[u8]> = [first.as_bytes()].into_iter().chain(batch).collect();
            self.call(Script::Append, &arguments)
        });
        self.outbox = outbox;
        if let Some(answer) = answer {
            let [id, time] = answer?;
            self.outbox.sent(count);
            // One at a time, as in `Liveness`.
            self.acknowledged.get_or_insert((id, self.outbox.last_sent()));
            self.log_ends(id, time);
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<(), Trouble> {
        let tuning = self.node.tuning;
        let newest = decimal(self.node.formats.newest.into());
        let lease = millis(tuning.lease);
        let pause = millis(tuning.pause);
        let merge = millis(tuning.merge);
        let arguments = [lease.as_bytes(), pause.as_bytes(), newest.as_bytes(), merge.as_bytes()];
        // Before the call: after it, newer entries may have been read.
        let read = self.node.status.read_id();
        let [id, time, snapshot, before, format, kept] = self.call(Script::Beat, &arguments)?;
        let now = Instant::now();
        self.next_beat = now + tuning.beat;
        self.node.status.beat();
        self.problems.solved();
        if id < read {
            return Err(Trouble::Lost("the last entries are missing".into()));
        }
        self.log_ends(id, time);
        if u64::from(self.membership.format) != format {
            self.membership.format = format.try_into().unwrap_or(self.node.formats.newest);
            (self.node.events)(Event::Format(self.membership.format));
        }
        self.snapshots.before = before;
        if let Some(history) = &mut self.history {
            history.is_held = false;
        }
        self.history_is_written(kept);
        self.snapshots.ends.push_back((now, id));
        while self.snapshots.ends.get(1).is_some_and(|(at, _)| now - *at >= KEPT_TIME) {
            self.snapshots.ends.pop_front();
        }
        self.ask_for_snapshot(snapshot, now);
        Ok(())
    }

    fn let_time_pass(&mut self) -> Result<(), Trouble> {
        let Some(at) = self.tick else { return Ok(()) };
        let [id, time] = self.call(Script::Tick, &[decimal(at).as_bytes()])?;
        if time >= at {
            self.tick = None;
        }
        self.log_ends(id, time);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Trouble> {
        self.has_asked_to_leave = true;
        let [_, _] = self.call(Script::Leave, &[])?;
        // Then the thread that reads has delivered everything.
        while !self.is_over() && !matches!(self.trouble, Some(Trouble::Ended)) {
            self.wait_until(Instant::now() + LEAVE_TIMEOUT);
        }
        Ok(())
    }

    fn store_snapshot(&mut self, id: u64, snapshot: &[u8]) -> Result<(), Trouble> {
        let kept_from = match self.snapshots.ends.front() {
            Some((at, id)) if at.elapsed() >= KEPT_TIME => *id,
            _ => 0,
        };
        let bytes = self.node.status.read_bytes() - self.snapshots.bytes_at_last;
        let entry_bytes = ENTRY_BYTES + bytes / (id - self.membership.snapshot_id.min(id)).max(1);
        let kept_entries = self.node.tuning.kept_entries.min(KEPT_BYTES / entry_bytes);
        let keep = kept_from.max((id + 1).saturating_sub(kept_entries));
        let (id, replaced, keep) = (decimal(id), decimal(self.membership.snapshot_id), decimal(keep));
        let arguments = [id.as_bytes(), replaced.as_bytes(), keep.as_bytes(), snapshot];
        let [is_stored] = self.call(Script::Snapshot, &arguments)?;
        if is_stored == 1 {
            self.node.status.snapshot_bytes(snapshot.len());
            // The next beat returns its id.
            self.next_beat = Instant::now();
        }
        Ok(())
    }

    fn history_is_due(&self, now: Instant) -> bool {
        let Some(history) = &self.history else { return false };
        let HistoryChanges { waiting, limits, expired, is_held, has_lost, .. } = history;
        let before = self.snapshots.before;
        let has_aged = limits.age_millis.is_some() && before == 0 && now - *expired >= EXPIRY_INTERVAL;
        let is_needed = self.snapshots.waiting.as_ref().is_some_and(|(id, _)| !waiting.is_written(*id));
        !is_held && (waiting.is_due(before) || is_needed || has_aged || *has_lost)
    }

    fn write_history(&mut self, now: Instant) -> Result<(), Trouble> {
        let Some(HistoryChanges { waiting, limits, deleted, .. }) = &self.history else { return Ok(()) };
        let batch = waiting.batch();
        let age = limits.age_millis.map_or(String::new(), decimal);
        let (base, messages) = (decimal(waiting.base()), decimal(limits.messages as u64));
        let has_gap: &[u8] = if waiting.has_gap { b"1" } else { b"" };
        let numbers: Vec<String> =
            [deleted.len() as u64].iter().chain(deleted).copied().map(decimal).collect();
        let ids: Vec<String> = batch.iter().map(|(id, _)| decimal(*id)).collect();
        let mut arguments = vec![base.as_bytes(), has_gap, messages.as_bytes(), age.as_bytes()];
        arguments.extend(numbers.iter().map(String::as_bytes));
        for (id, (_, change)) in ids.iter().zip(&batch) {
            arguments.extend([id.as_bytes(), change]);
        }
        let last = batch.last().map_or(waiting.base(), |(id, _)| *id);
        let [kept] = self.call(Script::Keep, &arguments)?;
        if let Some(history) = &mut self.history {
            history.expired = now;
            history.is_held = kept < last;
            (history.deleted, history.has_lost) = (Vec::new(), false);
        }
        self.history_is_written(kept);
        Ok(())
    }

    /// `id`: up to which it is, according to the engine.
    fn history_is_written(&mut self, id: u64) {
        let Some(history) = &mut self.history else { return };
        if history.waiting.has_lost(id) {
            (self.history, self.has_lost_history) = (None, true);
            (self.node.events)(Event::HistoryDue);
        } else {
            history.waiting.written(id);
        }
    }

    fn update_history(&mut self, update: HistoryUpdate) {
        match (update, &mut self.history) {
            (HistoryUpdate::Change(change), Some(history)) => {
                if history.waiting.push(change) {
                    self.problems.report(&format!(
                        "the history is not written fast enough: more than {MAX_WAITING_BYTES} bytes wait, and the \
                         oldest messages are dropped and will be missing"
                    ));
                }
            }
            // It will be part of `All`.
            (HistoryUpdate::Change(_), None) => {}
            (HistoryUpdate::All { epoch, base, messages, deleted, limits }, history) => {
                if epoch == self.membership.epoch {
                    let (mut waiting, expired) = (Waiting::new(base, messages), Instant::now());
                    let has_lost = std::mem::take(&mut self.has_lost_history);
                    // All nodes have the same messages in memory: none has those that the engine has lost.
                    waiting.has_gap = has_lost;
                    let is_held = true;
                    *history = Some(HistoryChanges { waiting, limits, expired, is_held, deleted, has_lost });
                    // The answer says what is written.
                    self.next_beat = Instant::now();
                }
            }
        }
    }

    fn report_history(&self) {
        let bytes = self.history.as_ref().map_or(0, |history| history.waiting.bytes());
        self.node.status.history_bytes(bytes);
    }

    /// `stored`: the id of the last snapshot.
    fn ask_for_snapshot(&mut self, stored: u64, now: Instant) {
        let status = &self.node.status;
        status.snapshot(stored);
        if stored != self.membership.snapshot_id {
            self.membership.snapshot_id = stored;
            self.snapshots.bytes_at_last = status.read_bytes();
            self.snapshots.last = now;
            self.snapshots.asked = None;
        }
        let tuning = self.node.tuning;
        let factor = 1 + self.snapshots.before;
        let entries = status.read_id().saturating_sub(stored);
        let bytes = status.read_bytes() - self.snapshots.bytes_at_last;
        let is_due = (entries >= tuning.snapshot_entries * factor
            || (bytes >= SNAPSHOT_BYTES * factor && entries > 0))
            && now - self.snapshots.last >= tuning.snapshot_interval;
        if is_due && self.snapshots.asked.is_none_or(|asked| now - asked >= SNAPSHOT_TIMEOUT) {
            self.snapshots.asked = Some(now);
            (self.node.events)(Event::SnapshotDue);
        }
    }

    /// Runs a script that begins with the engine's run, the epoch and the node.
    fn call<const N: usize>(&mut self, script: Script, arguments: &[&[u8]]) -> Result<[u64; N], EngineError> {
        let node = decimal(self.membership.node.into());
        let status = self.node.status.clone();
        status.asks_to_write();
        let engine = connected(&mut self.engine, &mut self.has_connected, &self.node)?;
        let run = &self.membership.run;
        if engine.info.run != *run {
            // Others may have decided already that nothing is lost, but not for this node.
            status.answered_write();
            return Err(EngineError::Restarted);
        }
        let head = [run.as_bytes(), self.membership.epoch.as_bytes(), node.as_bytes()];
        let arguments: Vec<&[u8]> = head.into_iter().chain(arguments.iter().copied()).collect();
        let asked = Instant::now();
        let answer = engine.numbers(script, &arguments);
        if let Err(EngineError::Interrupted) = answer {
            status.interrupted_write();
        } else if !matches!(answer, Err(EngineError::Unavailable(_) | EngineError::Refused(_))) {
            status.answered_write();
            status.round_trip(asked.elapsed());
            self.backoff.succeeded();
        }
        answer
    }

    fn log_ends(&mut self, id: u64, time: u64) {
        let status = &self.node.status;
        status.log_ends(id);
        status.engine_clock(time);
        self.liveness.written(id, status.read_id(), Instant::now());
    }

    /// How long until the engine's clock reaches the moment that was asked for.
    fn tick_wait(&self) -> Option<Duration> {
        self.tick.map(|at| Duration::from_millis(at.saturating_sub(self.node.status.engine_millis())))
    }

    fn recover(&mut self, trouble: Trouble) -> ControlFlow<bool> {
        match trouble {
            Trouble::Engine(EngineError::Interrupted) => self.disconnect(),
            Trouble::Engine(error) => {
                self.problems.report(&error.to_string());
                self.disconnect();
                self.wait_to_retry();
            }
            Trouble::Stuck => {
                self.problems.report("what is written to it cannot be read; connecting again");
                self.disconnect();
                self.liveness.stuck();
                let _ = self.reader.send(ReaderCommand::Reconnect);
            }
            Trouble::Restarted => self.come_back(None),
            Trouble::Lost(reason) => self.come_back(Some(&reason)),
            Trouble::Behind => self.catch_up(),
            Trouble::Ended if self.has_asked_to_leave => return ControlFlow::Break(true),
            Trouble::Ended if self.leaving.is_some() => return ControlFlow::Break(false),
            Trouble::Ended => self.rejoin(),
        }
        ControlFlow::Continue(())
    }

    /// This node was considered dead: continues under another number.
    fn rejoin(&mut self) {
        warn!("The other servers consider this one dead: joining again, and closing all connections");
        // Whatever the caller appends under the old number is dropped.
        self.membership.node = ENGINE;
        self.node.status.removed(self.outbox.clear());
        (self.node.events)(Event::Fenced);
        while !self.is_over() {
            let joined_again = self.with_engine(|engine, writer| {
                let past = Past { node: writer.last_number, ..Past::default() };
                let membership = join_chat(engine, &writer.node, &past)?;
                let is_same = membership.epoch == writer.membership.epoch;
                if is_same { Ok(membership) } else { Err(EngineError::Epoch) }
            });
            match joined_again {
                Ok(membership) => {
                    self.last_number = membership.node;
                    self.node.status.rejoined(membership.node);
                    self.membership = membership.clone();
                    self.continue_at_once();
                    // The caller's own state continues to be that of the chat.
                    let applied = Applied { id: self.node.status.read_id(), ..Applied::default() };
                    (self.node.events)(Event::Joined(joined(&membership, Found::Own, applied)));
                    return;
                }
                Err(EngineError::Epoch | EngineError::Empty) => {
                    return self.come_back(Some("the chat has been replaced or removed"));
                }
                Err(error) => self.retry(&error),
            }
        }
    }

    /// The log continues after what this node has read, but the entries between were trimmed.
    fn catch_up(&mut self) {
        if !self.pause_reader() {
            return;
        }
        warn!("This server is too far behind the log: continuing from the last snapshot");
        while !self.is_over() {
            let epoch = self.membership.epoch.clone();
            match self.with_engine(|engine, _| load(engine, &epoch)) {
                Ok(snapshot) if snapshot.applied.id > self.node.status.read_id() => {
                    return self.adopt(self.membership.clone(), Found::Loaded(snapshot), Applied::default());
                }
                Ok(_) | Err(EngineError::Epoch | EngineError::Empty) => {
                    return self.come_back(Some("a part of the log is missing"));
                }
                Err(error) => self.retry(&error),
            }
        }
    }

    /// Continues if the engine has all that this node has applied. Otherwise fills it, or takes what another node has
    /// filled it with. `lost`: how this node knows that something is missing; `None`: the engine was restarted.
    fn come_back(&mut self, lost: Option<&str>) {
        if !self.pause_reader() {
            return;
        }
        let address = self.node.link.address();
        match lost {
            Some(reason) => error!("The Redis or Valkey server at {address} has lost the chat: {reason}"),
            None => info!(
                "The Redis or Valkey server at {address} was restarted: checking whether it still has the chat"
            ),
        }
        self.offer = None;
        let mut asked: Option<Instant> = None;
        while self.offer.is_none() && !self.is_over() {
            if asked.is_none_or(|asked| asked.elapsed() >= SNAPSHOT_TIMEOUT) {
                asked = Some(Instant::now());
                (self.node.events)(Event::OfferDue);
            }
            self.wait_until(Instant::now() + IO_TIMEOUT);
        }
        let Some(offer) = self.offer.take() else { return };
        let past = Past {
            node: self.last_number,
            epoch: self.membership.epoch.clone(),
            done: self.outbox.done(),
            format: Some(self.membership.format),
        };
        while !self.is_over() {
            let back = self.with_engine(|engine, writer| come_back(engine, &writer.node, &past, &offer));
            match back {
                Ok(Continuation::Unchanged { run, log_id }) => {
                    self.membership.run = run;
                    info!("Continuing the chat after entry {}", offer.applied.id);
                    self.continue_at_once();
                    if self.membership.node != ENGINE && log_id < self.membership.log_id {
                        // The caller waits for entries from before it joined, which are lost.
                        self.membership.log_id = log_id;
                        let joined = joined(&self.membership, Found::Own, offer.applied.clone());
                        (self.node.events)(Event::Joined(joined));
                    }
                    self.follow(&offer.applied);
                    // It was joining again when the chat seemed to have been replaced.
                    return if self.membership.node == ENGINE {
                        self.rejoin()
                    };
                }
                Ok(Continuation::Behind { log_id }) => {
                    // The next call leads back here.
                    self.follow(&offer.applied);
                    return self.wait_until_read(log_id);
                }
                Ok(Continuation::Joined(membership, found)) => {
                    return self.adopt(membership, found, offer.applied);
                }
                // Another node was faster.
                Err(EngineError::Epoch | EngineError::Empty) => {}
                Err(error) => self.retry(&error),
            }
        }
    }

    /// Waits until the log is read up to this entry, or until that seems to be impossible.
    fn wait_until_read(&mut self, id: u64) {
        let deadline = Instant::now() + IO_TIMEOUT;
        while self.node.status.read_id() < id && self.trouble.is_none() && !self.is_over() {
            let now = Instant::now();
            if now >= deadline {
                return;
            }
            self.wait_until(deadline.min(now + READ_CHECK));
        }
    }

    /// Continues with another state. `own`: what this node has applied.
    fn adopt(&mut self, membership: Membership, found: Found, own: Applied) {
        let applied = match &found {
            Found::Own => own,
            Found::Loaded(Snapshot { applied, chat, .. }) => {
                self.node.status.snapshot_bytes(chat.len());
                applied.clone()
            }
        };
        let joined = joined(&membership, found, applied.clone());
        let removed = self.outbox.adopt(membership.node == self.membership.node, joined.sequence);
        self.node.status.removed(removed);
        let log_id = membership.log_id.max(applied.id);
        self.node.status.joined(membership.node, log_id, applied.id, membership.snapshot_id);
        self.last_number = membership.node;
        self.membership = membership;
        (self.history, self.has_lost_history) = (None, false);
        // The caller asks again.
        self.tick = None;
        info!("Continuing the chat after entry {} as server number {}", applied.id, self.membership.node);
        self.continue_at_once();
        (self.node.events)(Event::Joined(joined));
        self.follow(&applied);
    }

    /// Has the thread that reads continue after what is applied.
    fn follow(&mut self, applied: &Applied) {
        let position = Position::new(self.membership.mark, applied.id, applied.origin);
        let follow = ReaderCommand::Follow { epoch: self.membership.epoch.clone(), position };
        let _ = self.reader.send(follow);
    }

    fn continue_at_once(&mut self) {
        self.outbox.rewind();
        self.liveness.restart();
        self.acknowledged = None;
        self.next_beat = Instant::now();
        self.snapshots.ends.clear();
        self.snapshots.asked = None;
        self.snapshots.waiting = None;
    }

    /// Returns once the other thread delivers nothing more. `false`: this node is to stop.
    fn pause_reader(&mut self) -> bool {
        self.has_paused = false;
        let _ = self.reader.send(ReaderCommand::Pause);
        while !self.has_paused && !self.is_over() {
            self.wait_until(Instant::now() + IO_TIMEOUT);
        }
        // What it has reported before is about the state that is left behind.
        self.trouble = None;
        self.has_paused
    }

    fn with_engine<T>(
        &mut self,
        call: impl FnOnce(&mut Engine, &Self) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        connected(&mut self.engine, &mut self.has_connected, &self.node)?;
        let Some(mut engine) = self.engine.take() else { return Err(EngineError::malformed("connect")) };
        let result = call(&mut engine, self);
        self.engine = Some(engine);
        result
    }

    /// Prepares for another attempt to join or to load the chat.
    fn retry(&mut self, error: &EngineError) {
        if let EngineError::Format(_) | EngineError::Unreadable = error {
            let Node { link, formats, events, .. } = &*self.node;
            events(Event::Unusable(refused(link.address(), *formats, error)));
            self.is_stopped = true;
            return;
        }
        if let EngineError::Interrupted = error {
            return self.disconnect();
        }
        self.problems.report(&error.to_string());
        self.disconnect();
        self.wait_to_retry();
    }

    fn disconnect(&mut self) {
        self.engine = None;
        self.outbox.rewind();
        self.liveness.reconnected();
        self.acknowledged = None;
    }

    fn wait_to_retry(&mut self) {
        let until = Instant::now() + self.backoff.failed(random_byte());
        while Instant::now() < until && !self.is_over() {
            self.wait_until(until);
        }
    }

    /// Takes what arrives until then, or the first of it.
    fn wait_until(&mut self, deadline: Instant) {
        let deadline = self.leaving.map_or(deadline, |leaving| deadline.min(leaving));
        if let Ok(command) = self.commands.recv_deadline(deadline) {
            self.take(command);
        }
        self.take_updates();
    }

    /// Call this after commands were taken: the changes before a snapshot were sent before it. Only [`Waiting`] has a
    /// bound, so this is necessary also while this node cannot join.
    fn take_updates(&mut self) {
        while let Ok(update) = self.updates.try_recv() {
            self.update_history(update);
        }
    }

    fn take_waiting(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.take(command);
        }
        self.take_updates();
        if std::mem::take(&mut self.has_to_write) {
            self.history.iter_mut().for_each(|history| history.waiting.write_at_once());
        }
        self.report_history();
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append { node, data } if node == self.membership.node => self.outbox.push(data),
            Command::Append { data, .. } => {
                self.node.status.removed(Removed { entries: 1, bytes: data.len() });
            }
            Command::Tick(at) => self.tick = Some(at),
            Command::Snapshot { epoch, id, snapshot } if epoch == self.membership.epoch => {
                self.snapshots.waiting = Some((id, snapshot));
            }
            Command::WriteHistory => self.has_to_write = true,
            Command::Offer(offer) => self.offer = Some(offer),
            Command::Leave => self.leaving = Some(Instant::now() + LEAVE_TIMEOUT),
            Command::Stop => self.is_stopped = true,
            Command::ReadBack { node, sequence } if node == self.membership.node => {
                let removed = self.outbox.read_back(sequence);
                self.node.status.removed(removed);
            }
            Command::Ended(node) if node == self.membership.node => self.trouble = Some(Trouble::Ended),
            // What they are about has been replaced.
            Command::Snapshot { .. } | Command::ReadBack { .. } | Command::Ended(_) => {}
            Command::Lost(reason) => self.trouble = Some(Trouble::Lost(reason)),
            Command::Behind => self.trouble = Some(Trouble::Behind),
            Command::Paused => self.has_paused = true,
            Command::Reconnected => self.next_beat = Instant::now(),
        }
    }

    fn is_over(&self) -> bool {
        self.is_stopped || self.leaving.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The connection, which is made if there is none.
fn connected<'a>(
    engine: &'a mut Option<Engine>,
    has_connected: &mut bool,
    node: &Node,
) -> Result<&'a mut Engine, EngineError> {
    if engine.is_none() {
        *engine = Some(node.link.connect(IO_TIMEOUT)?);
        if std::mem::replace(has_connected, true) {
            node.status.reconnected();
        }
    }
    engine.as_mut().ok_or_else(|| EngineError::malformed("connect"))
}
