//! A chat of several servers: the hub's entries go to the log that they share, and take effect once they come back.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{error, warn};

use super::entry_clock::Now;
use super::order::{Order, Own};
use super::shared_history::SharedHistory;
use super::{DRAIN_TIMEOUT, Event, Hub, HubHandle};
use crate::chat::{
    Action, Audience, ChatTime, ConnectionId, Departure, Effect, Entry, Format, FormatError, Input,
    NodeNumber, Outcome, Room, ServerMessage, Snapshot, Submission, UserLists,
};
use crate::cluster::{self, Change, Content, Joined, SharedLog};
use crate::store::Followed;

/// What members are told when the engine does not respond, and when it does again.
const INTERRUPTED: &str =
    "The servers of this chat cannot reach each other. Your messages will be delivered once they can.";
const RESTORED: &str = "The servers of this chat can reach each other again.";

/// If the engine has not answered for this long, a server that stops does not try to leave the chat.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many events with entries wait for the hub. More would delay events of this server's clients, and take memory.
const MAX_ENTRY_EVENTS: usize = 4;

/// What the log's threads tell the hub.
pub enum LogEvent {
    Entries(Vec<SharedEntry>, Slot),
    /// With the chat's state, unless it is the one that the hub has.
    Joined(Box<(Joined, Option<Snapshot>)>),
    Unavailable,
    Available,
    OfferDue,
    Fenced,
    SnapshotDue,
    HistoryDue,
    /// Write this from now on.
    Format(Format),
    Left {
        in_time: bool,
    },
    /// The chat on the engine cannot be used by this server, which has to end.
    Failed(io::Error),
}

/// Passes on what the log's threads tell the hub.
pub struct LogFeed {
    slots: Sender<()>,
    taken: Receiver<()>,
}

/// One of [`MAX_ENTRY_EVENTS`]. Dropping it makes room for another event.
pub struct Slot(Receiver<()>);

/// An entry of the log.
pub struct SharedEntry {
    entry: cluster::Entry,
    /// `None`: it is from the engine, or cannot be decoded.
    submission: Option<Submission>,
}

impl Default for LogFeed {
    fn default() -> Self {
        let (slots, taken) = bounded(MAX_ENTRY_EVENTS);
        Self { slots, taken }
    }
}

impl LogFeed {
    /// Call this on the log's threads: decoding entries would delay the hub. While many entries wait, this blocks.
    pub fn send(&self, hub: &HubHandle, event: cluster::Event) {
        if let Some(event) = LogEvent::decode(event, || self.slot()) {
            // If the hub has ended, nobody waits for the event.
            let _ = hub.send(Event::Log(Box::new(event)));
        }
    }

    fn slot(&self) -> Slot {
        // This cannot fail: `self` has the receiver.
        let _ = self.slots.send(());
        Slot(self.taken.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

impl LogEvent {
    /// `None`: the hub has nothing to do.
    fn decode(event: cluster::Event, slot: impl FnOnce() -> Slot) -> Option<Self> {
        Some(match event {
            cluster::Event::Entries(entries) => {
                match entries.into_iter().map(SharedEntry::decode).collect() {
                    Ok(entries) => Self::Entries(entries, slot()),
                    Err(error) => Self::failed(&error),
                }
            }
            cluster::Event::Joined(joined) => {
                match joined.state.as_ref().map(|state| Snapshot::decode(&state.chat)).transpose() {
                    Ok(state) => Self::Joined(Box::new((joined, state))),
                    Err(error) => Self::failed(&error),
                }
            }
            cluster::Event::Unavailable => Self::Unavailable,
            cluster::Event::Available => Self::Available,
            cluster::Event::OfferDue => Self::OfferDue,
            cluster::Event::Fenced => Self::Fenced,
            cluster::Event::SnapshotDue => Self::SnapshotDue,
            cluster::Event::HistoryDue => Self::HistoryDue,
            cluster::Event::Left(in_time) => Self::Left { in_time },
            cluster::Event::Unusable(error) => Self::Failed(io::Error::other(error)),
            cluster::Event::Format(number) => Self::Format(format(number)),
        })
    }

    /// How many events of clients take as long.
    pub fn weight(&self) -> usize {
        match self {
            Self::Entries(entries, _) => entries.len(),
            _ => 1,
        }
    }

    fn failed(error: &FormatError) -> Self {
        Self::Failed(io::Error::other(unusable(error)))
    }
}

/// Why the chat on the engine cannot be used, and what to do.
pub fn unusable(error: &FormatError) -> String {
    let remedy = match error {
        FormatError::Damaged { .. } => {
            ". Delete its keys (CLUSTER_NAME:*) on the Redis or Valkey server: a server that still runs, or the newest \
             store, fills it again"
        }
        FormatError::Unknown { .. } | FormatError::Local => "",
    };
    format!("The chat of CLUSTER_URL cannot be used: {error}{remedy}")
}

impl SharedEntry {
    /// # Errors
    /// The format is a newer one, which other servers may know.
    fn decode(mut entry: cluster::Entry) -> Result<Self, FormatError> {
        let Content::Data { node, data, .. } = &mut entry.content else {
            return Ok(Self { entry, submission: None });
        };
        let submission = match Submission::decode(data) {
            Ok(submission) => Some(submission),
            Err(error @ FormatError::Unknown { .. }) => return Err(error),
            Err(error) => {
                error!("Entry {} of the chat's log is skipped: {error}", entry.id);
                None
            }
        };
        // All servers skip the same ones.
        let submission = submission
            .filter(|submission| node.has(submission.from) || submission.from == ConnectionId::SERVER);
        data.clear();
        Ok(Self { entry, submission })
    }
}

/// The order of a chat of several servers.
pub struct SharedOrder {
    pub(super) log: SharedLog,
    pub(super) history: SharedHistory,
    node: NodeNumber,
    /// The one to write.
    format: Format,
    /// This server's entries that were not read back, in their order.
    waiting: VecDeque<(u64, Own)>,
    /// Of the last entry that was applied.
    last_id: u64,
    last_time: ChatTime,
    /// When the log was last asked for an entry.
    tick: Option<ChatTime>,
    /// Notified once the hub has applied everything from before this server joined, up to this id.
    ready: Option<(u64, Sender<()>)>,
    phase: Phase,
}

/// Whether entries of this server count.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Joined,
    /// The others consider this server dead. It has no clients until it has joined again.
    Fenced,
    Leaving,
    Left,
}

impl SharedOrder {
    /// `ready`: notified once everything from before this server joined is applied.
    pub fn new(log: SharedLog, history: SharedHistory, joined: &Joined, ready: Sender<()>) -> Self {
        let mut order = Self {
            node: joined.node,
            format: format(joined.format),
            log,
            history,
            waiting: VecDeque::new(),
            last_id: joined.id,
            last_time: ChatTime(joined.time()),
            tick: None,
            ready: Some((joined.log_id, ready)),
            phase: Phase::Joined,
        };
        order.report_ready();
        order
    }

    pub fn append(&mut self, from: ConnectionId, offset_seconds: i32, input: Input, own: Own) {
        match (Submission { from, offset_seconds, input }).encode(self.format) {
            Ok(entry) => self.waiting.push_back((self.log.append(entry), own)),
            Err(error) => error!("An entry cannot be encoded: {error}"),
        }
    }

    /// Whether what comes from this connection counts: it was opened since this server joined, and the server still
    /// has its place.
    pub fn accepts(&self, connection: ConnectionId) -> bool {
        self.phase == Phase::Joined && (self.node.has(connection) || connection == ConnectionId::SERVER)
    }

    /// The engine's clock, as this server knows it.
    pub fn engine_time(&self) -> ChatTime {
        ChatTime(self.log.status().engine_millis())
    }

    pub fn node(&self) -> NodeNumber {
        self.node
    }

    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    pub fn last_time(&self) -> ChatTime {
        self.last_time
    }

    /// `false`: the engine does not respond, so the others will consider this server dead.
    pub fn leave(&mut self) -> bool {
        if self.log.status().responds_within(LEAVE_TIMEOUT) && self.phase == Phase::Joined {
            self.log.leave();
            self.phase = Phase::Leaving;
        }
        self.is_leaving()
    }

    pub fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }

    /// Whether clients have to wait before they send more.
    fn is_full(&self) -> bool {
        !self.log.has_room()
    }

    /// Asks for an entry when the room needs one.
    fn request_tick(&mut self, deadline: Option<ChatTime>) {
        if let Some(deadline) = deadline.filter(|_| deadline != self.tick) {
            self.log.tick(deadline.0);
        }
        self.tick = deadline;
    }

    /// Takes the next entry of the log. Returns what it does and, if it is this server's own, what was kept for it.
    fn take(&mut self, entry: SharedEntry) -> (cluster::Entry, Submission, Own) {
        let SharedEntry { entry, submission } = entry;
        let own = match entry.content {
            Content::Data { node, sequence, .. } if node == self.node => self.returned(sequence),
            _ => Own::default(),
        };
        let submission = submission.unwrap_or_else(|| {
            let input = match entry.content {
                Content::NodeDown(node) => Input::NodeDown(node),
                Content::Data { .. } | Content::Tick => Input::Tick,
            };
            Submission { from: ConnectionId::SERVER, offset_seconds: 0, input }
        });
        self.applied(&entry);
        (entry, submission, own)
    }

    /// Continues as an [`cluster::Event::Joined`] says. `has_state`: the hub continues with another state. Returns
    /// whether this server's clients keep their connections.
    fn adopt(&mut self, joined: &Joined, has_state: bool) -> bool {
        let node = joined.node;
        let keeps_clients = node == self.node && !has_state && self.phase == Phase::Joined;
        self.log.adopt(joined);
        (self.node, self.format, self.tick) = (node, format(joined.format), None);
        if self.phase == Phase::Fenced {
            self.phase = Phase::Joined;
        }
        if has_state {
            (self.last_id, self.last_time) = (joined.id, ChatTime(joined.time()));
        }
        keeps_clients
    }

    /// What this server has kept for an entry of its own that was read back. Earlier ones will not be read back any
    /// more.
    fn returned(&mut self, sequence: u64) -> Own {
        while let Some((waiting, _)) = self.waiting.front()
            && *waiting < sequence
        {
            self.waiting.pop_front();
        }
        match self.waiting.front() {
            Some((waiting, _)) if *waiting == sequence => {
                self.waiting.pop_front().map_or_else(Own::default, |(_, own)| own)
            }
            _ => Own::default(),
        }
    }

    fn applied(&mut self, entry: &cluster::Entry) {
        self.log.applied(entry);
        (self.last_id, self.last_time) = (entry.id, ChatTime(entry.time));
        self.report_ready();
    }

    /// The log may end with an earlier id than when this server joined for the first time.
    fn joined_again(&mut self, log_id: u64) {
        self.ready.iter_mut().for_each(|(id, _)| *id = log_id);
        self.report_ready();
    }

    fn report_ready(&mut self) {
        let last_id = self.last_id;
        if let Some((_, ready)) = self.ready.take_if(|(id, _)| *id <= last_id) {
            // The channel has room for one message, and gets no other.
            let _ = ready.try_send(());
        }
    }
}

impl Hub {
    pub(super) fn log_event(&mut self, now: &Now, event: LogEvent) {
        if self.failure.is_some() {
            return;
        }
        match event {
            LogEvent::Entries(entries, _slot) => {
                entries.into_iter().for_each(|entry| self.shared_entry(now, entry));
            }
            LogEvent::Joined(joined) => {
                let (joined, state) = *joined;
                self.joined_again(now, &joined, state);
            }
            LogEvent::Unavailable => self.announce(now, INTERRUPTED),
            LogEvent::Available => self.announce(now, RESTORED),
            LogEvent::OfferDue => {
                let snapshot = self.room.snapshot();
                if let Order::Shared(order) = &mut self.order {
                    let format = order.format;
                    order.log.offer(move || encoded(&snapshot, format));
                }
            }
            LogEvent::Fenced => {
                self.drop_clients(now);
                if let Order::Shared(order) = &mut self.order {
                    order.phase = Phase::Fenced;
                }
            }
            LogEvent::SnapshotDue => {
                let snapshot = self.room.snapshot();
                if let Order::Shared(order) = &mut self.order {
                    let format = order.format;
                    order.log.snapshot(move || encoded(&snapshot, format));
                }
            }
            LogEvent::Format(format) => {
                if let Order::Shared(order) = &mut self.order {
                    order.format = format;
                }
            }
            LogEvent::HistoryDue => self.offer_history(),
            LogEvent::Left { in_time } => self.left(now, in_time),
            LogEvent::Failed(error) => self.fail(now, error),
        }
    }

    /// Ends the hub, because its room can no longer follow the chat. Clients are told to reconnect, to another server.
    fn fail(&mut self, now: &Now, error: io::Error) {
        self.drop_clients(now);
        if let Order::Shared(order) = &mut self.order {
            order.phase = Phase::Left;
        }
        self.state.shut_down();
        self.shutdown_deadline.get_or_insert(now.instant + DRAIN_TIMEOUT);
        self.failure = Some(error);
    }

    fn shared_entry(&mut self, now: &Now, entry: SharedEntry) {
        let Order::Shared(order) = &mut self.order else { return };
        let (entry, Submission { from, offset_seconds, input }, own) = order.take(entry);
        if let Input::Decided(decision, outcome) = &input
            && *outcome != Outcome::NotFound
            && !order.node.has(decision.connection)
        {
            self.storage.apply(&decision.act);
        }
        if let Input::Decided(decision, _) = &input
            && let Action::Delete { id, .. } = decision.act.action
        {
            order.log.keep(Change::Delete { at: entry.id, id });
        }
        let now = self.clock.shared(now, ChatTime(entry.time), offset_seconds);
        self.apply_entry(&now, Entry { id: entry.id, time: &now.entry, from, input }, &own);
    }

    /// Tells this server's members.
    fn announce(&mut self, now: &Now, content: &str) {
        let message = ServerMessage::System { content: content.into() };
        self.apply(None, &[Effect::Send(Audience::All, message)], now);
    }

    /// What the log needs after each batch.
    pub(super) fn serve_log(&mut self) {
        if let Order::Shared(order) = &mut self.order {
            order.request_tick(self.room.next_deadline());
        }
        self.hold_if_full();
    }

    /// Clients have to wait while the queue is full.
    pub(super) fn hold_if_full(&self) {
        if let Order::Shared(order) = &self.order {
            self.state.hold(order.is_full());
        }
    }

    /// Continues after the engine was filled again, or after this server was considered dead or has missed a part of
    /// the log.
    fn joined_again(&mut self, now: &Now, joined: &Joined, snapshot: Option<Snapshot>) {
        let room = match snapshot.map(Room::from_snapshot).transpose() {
            Ok(room) => room,
            Err(error) => return self.fail(now, io::Error::other(unusable(&error))),
        };
        // The state may be from after the engine was filled.
        let is_refilled = *self.room.epoch() != *joined.epoch;
        let Order::Shared(order) = &mut self.order else { return };
        let has_missed_entries = room.is_some() && joined.id != order.last_id;
        let keeps_clients = order.adopt(joined, room.is_some());
        let node = order.node;
        if let Some(room) = room {
            self.room = room;
        }
        if !keeps_clients {
            self.drop_clients(now);
            self.lists = UserLists::default();
            self.lists.follow(&self.room.list_changed(), now.instant);
            self.state.publish(&self.room);
        }
        self.state.set_node(node);
        // Their disconnects were lost, or are not in the state that the engine was filled with.
        for connection in self.room.connections_of(node) {
            if self.delivery.peer(connection).is_none() {
                self.input(now, connection, Input::Disconnected(Departure::Lost));
            }
        }
        self.room.continue_in(joined.epoch.as_str().into(), self.order.last_id());
        self.follow(is_refilled, has_missed_entries);
        self.decide_again(now);
        if let Order::Shared(order) = &mut self.order {
            order.joined_again(joined.log_id);
        }
    }

    /// Has those decisions of this server stored that came with a state instead of an [`Effect::Decide`].
    fn decide_again(&mut self, now: &Now) {
        let (node, storage) = (self.order.node(), &self.storage);
        let own = self.room.undecided().iter().filter(|decision| node.has(decision.connection));
        let missed: Vec<_> = own.filter(|decision| !storage.is_deciding(decision)).cloned().collect();
        missed.into_iter().for_each(|decision| self.decide(now, decision.into()));
    }

    /// Makes the store match the room, and has the store and the shared history completed. `is_refilled`: the engine
    /// was filled since this server last did so. `has_missed_entries`: the room has another state than before, which comes
    /// from another server.
    pub(super) fn follow(&mut self, is_refilled: bool, has_missed_entries: bool) {
        let (room, last_id) = (&self.room, self.order.last_id());
        self.storage.follow(|| Followed {
            epoch: room.epoch(),
            past_epochs: room.past_epochs().to_vec(),
            last_id,
            bans: room.bans().by_id().map(|ban| (**ban).clone()).collect(),
            time_outs: room.stored_time_outs(),
            moderators: room.moderators().to_vec(),
            deleted: room.deleted_messages(),
            // Otherwise the store knows at least as many: a decision is stored before it is an entry.
            deleted_after: if has_missed_entries { room.remembers_deletions_after() } else { 0 },
            messages: room.kept_messages(),
        });
        self.follow_history(is_refilled, has_missed_entries);
    }

    /// This server has left the chat, at the shutdown.
    pub(super) fn left(&mut self, now: &Now, in_time: bool) {
        if !in_time {
            warn!("The Redis or Valkey server did not respond in time: the newest messages may be lost");
        }
        if let Order::Shared(order) = &mut self.order {
            order.phase = Phase::Left;
        }
        self.send_batch(now.instant);
        self.delivery.close_all(now.instant);
    }

    /// Closes the connections of all clients, which reconnect and resume.
    fn drop_clients(&mut self, now: &Now) {
        self.send_batch(now.instant);
        self.delivery.close_all_to_reconnect(now.instant);
        self.tape.clear();
        if let Order::Shared(order) = &mut self.order {
            order.waiting.clear();
        }
    }
}

/// All servers know it, so this one does.
fn format(number: u32) -> Format {
    Format::new(number).unwrap_or(Format::NEWEST)
}

fn encoded(snapshot: &Snapshot, format: Format) -> Option<Vec<u8>> {
    snapshot.encode(format).inspect_err(|error| error!("The chat's state cannot be encoded: {error}")).ok()
}

#[cfg(test)]
#[path = "shared_simulation.rs"]
mod simulation;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::hub::entry_clock::EntryClock;
    use crate::hub::{BATCH_EVENTS, HubSettings, LOOK_INTERVAL, Peer};
    use crate::limits::ClientLog;
    use crate::transport::{Link, Stream};

    /// The hub of a node whose log has no threads. `log_id`: of the last entry when it joined.
    fn hub(log_id: u64) -> (HubHandle, Hub, Joined, Receiver<()>) {
        let (mut joined, log) = SharedLog::detached();
        joined.log_id = log_id;
        let (sender, is_current) = bounded(1);
        let order = Order::Shared(Box::new(SharedOrder::new(log, SharedHistory::new().0, &joined, sender)));
        let settings = HubSettings { order, ..HubSettings::empty() };
        let (handle, hub) = Hub::new(settings, Arc::default(), ClientLog::new(Arc::default()));
        (handle, hub, joined, is_current)
    }

    /// A server that started while the engine lost its data once waited for an id of the chat before, and did not listen.
    #[test]
    fn a_server_is_ready_after_the_engine_was_filled() {
        let (_handle, mut hub, mut joined, is_current) = hub(7);
        assert!(is_current.try_recv().is_err());
        joined.log_id = 0;
        hub.joined_again(&EntryClock::default().now(), &joined, None);
        assert_eq!(is_current.try_recv(), Ok(()));
    }

    /// A decision that a server missed, because it took over a state, once took effect only when the server was stopped.
    #[test]
    fn a_decision_that_comes_with_a_state_is_decided() {
        let (_handle, mut hub, mut joined, _) = hub(0);
        joined.node = NodeNumber::new(2).unwrap();
        let golden = include_str!("../../tests/formats/snapshot-1.txt").trim_end();
        let snapshot = Snapshot::decode(golden.as_bytes()).unwrap();
        hub.joined_again(&EntryClock::default().now(), &joined, Some(snapshot));
        let members = hub.room.connections_of(joined.node).len();
        assert_eq!((members, hub.room.undecided().len()), (2, 1));
        let Order::Shared(order) = &hub.order else { panic!() };
        // Without a store, it is decided at once. The members have lost their connections.
        assert_eq!(order.log.status().figures().queue_entries, members + 1);
    }

    /// A thousand events with 256 entries each could once wait ahead of a client's event, and all be in one batch.
    #[test]
    fn many_entries_do_not_delay_clients() {
        const ENTRIES: usize = 256;
        let (handle, mut hub, ..) = hub(0);
        let reader = std::thread::spawn(move || {
            let feed = LogFeed::default();
            for event in 0..3 * MAX_ENTRY_EVENTS {
                let entry = |at| cluster::Entry { id: at as u64 + 1, time: 0, content: Content::Tick };
                let entries = (event * ENTRIES..(event + 1) * ENTRIES).map(entry);
                feed.send(&handle, cluster::Event::Entries(entries.collect()));
            }
            handle
        });
        let mut batches = 0;
        while hub.order.last_id() < (3 * MAX_ENTRY_EVENTS * ENTRIES) as u64 {
            assert!(hub.inbox.len() <= MAX_ENTRY_EVENTS, "{}", hub.inbox.len());
            let (event, before) = (hub.inbox.recv().unwrap(), hub.order.last_id());
            hub.batch(event);
            assert!(hub.order.last_id() - before <= BATCH_EVENTS as u64);
            batches += 1;
        }
        assert!(batches >= 3, "{batches}");
        drop(reader.join().unwrap());
    }

    /// Clients were once held back only after a batch, by which time a queue of 8 MiB had 16.6 MB.
    #[test]
    fn clients_are_held_back_as_soon_as_the_queue_is_full() {
        let (handle, mut hub, ..) = hub(0);
        let (now, id) = (EntryClock::default().now(), ConnectionId::new(hub.order.node(), 1));
        let mut appended = 0;
        while !handle.is_held() {
            hub.input(&now, id, Input::Disconnected(Departure::Lost));
            appended += 1;
        }
        let Order::Shared(order) = &hub.order else { panic!() };
        assert_eq!(order.log.status().figures().queue_entries, appended);
        assert!(!order.log.has_room());
    }

    /// If the last of what was queued was removed after the hub had applied it, clients once waited for the next event.
    #[test]
    fn clients_may_send_again_without_another_event() {
        let (handle, mut hub, ..) = hub(0);
        let (now, id) = (EntryClock::default().now(), ConnectionId::new(hub.order.node(), 1));
        while !handle.is_held() {
            hub.input(&now, id, Input::Disconnected(Departure::Lost));
        }
        let Order::Shared(order) = &hub.order else { panic!() };
        let status = order.log.status();
        let thread = std::thread::spawn(move || hub.run());
        std::thread::sleep(2 * LOOK_INTERVAL);
        assert!(handle.is_held());
        status.empty_queue();
        let deadline = Instant::now() + Duration::from_secs(60);
        while handle.is_held() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        drop(handle);
        thread.join().unwrap().unwrap();
    }

    /// A server once continued with the room that it had, which had diverged from the chat.
    #[test]
    fn a_hub_whose_chat_cannot_be_read_ends() {
        let entry = |data: &[u8]| {
            let content = Content::Data { node: NodeNumber::new(1).unwrap(), sequence: 1, data: data.into() };
            cluster::Event::Entries(vec![cluster::Entry { id: 1, time: 0, content }])
        };
        let joined = |chat: &str| {
            let (mut joined, _) = SharedLog::detached();
            joined.state = Some(cluster::State { chat: chat.into() });
            cluster::Event::Joined(joined)
        };
        let golden = include_str!("../../tests/formats/snapshot-1.txt").trim_end();
        let contradiction = golden.replace(r#""next":4}"#, r#""next":3}"#);
        for (event, reason, remedy) in [
            (entry(b"99 {}"), "entry format 99; this server knows up to", "upgrade it"),
            (joined("99 {}"), "snapshot format 99; this server knows up to", "upgrade it"),
            (joined("1 {}"), "a damaged snapshot: ", "Delete its keys (CLUSTER_NAME:*)"),
            (joined(&contradiction), "no chat has these members", "Delete its keys (CLUSTER_NAME:*)"),
        ] {
            let (handle, hub, ..) = hub(0);
            LogFeed::default().send(&handle, event);
            let error = hub.run().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(remedy), "{error}");
        }
        // All servers skip an entry that none can read.
        let slot = || LogFeed::default().slot();
        assert!(matches!(LogEvent::decode(entry(b"1 {}"), slot), Some(LogEvent::Entries(..))));
    }

    /// Clients were once disconnected without a close frame, because the log's own time limit was not shorter.
    #[test]
    fn clients_get_a_close_frame_if_the_engine_does_not_respond_at_the_shutdown() {
        let (_handle, mut hub, _, _) = hub(0);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let link = Link::new(Stream::plain(Arc::new(socket)), Vec::new(), 1024, 1024);
        let peer =
            Peer { name: "a client".into(), network: IpAddr::from([127, 0, 0, 1]).into(), charged: None };
        hub.delivery.add(ConnectionId::new(hub.order.node(), 1), link.into(), peer);
        if let Order::Shared(order) = &mut hub.order {
            order.phase = Phase::Leaving;
        }
        hub.shutdown_deadline = Some(EntryClock::default().now().instant);
        hub.serve();
        drop(hub);
        let mut frame = [0; 4];
        client.read_exact(&mut frame).unwrap();
        assert_eq!((frame[0], &frame[2..]), (0x88, &1001_u16.to_be_bytes()[..]));
    }
}
