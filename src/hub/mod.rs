//! The hub thread: it owns the room, and sends clients the room's messages.
//!
//! It takes a batch of events from its inbox, has the room turn them into effects, writes the effects to the
//! tape, and sends each client its part of the tape in one write. It never waits for a client.

mod delivery;
mod entry_clock;
mod handle;
mod order;
mod retries;
#[cfg(feature = "cluster")]
mod shared;
#[cfg(feature = "cluster")]
mod shared_history;
mod storage;
mod tape;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use log::info;

use crate::chat::{
    Access, Action, Address, Audience, Body, ClientMessage, ConnectionId, Decision, Departure, Effect, Entry,
    Guests, Input, JoinSecrets, MessageError, NamedModerator, OlderMessages, OlderRequest, Outcome, Room,
    SessionSecret, StoreUnavailable, UserLists, guest_error,
};
use crate::limits::{ClientLog, Network};
use crate::ops::metrics::{Counters, HubStats};
use crate::ops::random::random;
use crate::transport::Link;
use delivery::Delivery;
use entry_clock::{EntryClock, Now};
use handle::Query;
use order::{Own, Positioned};

pub use entry_clock::entry_time;
pub use handle::{Admission, Admitted, HubHandle, SharedState};
pub use order::Order;
#[cfg(feature = "cluster")]
pub use shared::{LogEvent, LogFeed, SharedOrder, unusable};
#[cfg(feature = "cluster")]
pub use shared_history::{CopyRequest, CopyTask, HistoryRequest, HistoryWork, SharedHistory};
pub use storage::{Report, Storage, Tag, stored_history};
#[cfg(feature = "cluster")]
pub use storage::{StoredRows, kept_messages};
pub use tape::Tape;

/// How many events wait for the hub before the thread that sends the next one has to wait.
const INBOX_EVENTS: usize = 1024;
/// The most events in a batch, which bounds how long the first of them is delayed. An entry of the log counts as one.
const BATCH_EVENTS: usize = 1024;
/// A batch ends once its tape has this many bytes.
const BATCH_BYTES: usize = 1024 * 1024;
/// How often the hub looks whether clients that are held back may send again. No event says so.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long clients have to complete the closing handshake at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// What other threads send to the hub.
pub enum Event {
    Connected(ConnectionId, Arc<Link>, Peer),
    /// The session that the message presents, and an admission if the client may join with it.
    Message(
        ConnectionId,
        Result<ClientMessage, MessageError>,
        Access,
        Option<SessionSecret>,
        Option<Arc<Admission>>,
    ),
    /// The connection's own thread has left bytes in its backlog.
    Pending(ConnectionId),
    Disconnected(ConnectionId, Departure),
    Store(Box<Report>),
    #[cfg(feature = "cluster")]
    Log(Box<LogEvent>),
    #[cfg(feature = "cluster")]
    Copy(CopyRequest),
    /// Reads the named moderators from the store again.
    Reload,
    /// Wakes the hub to answer queries, which do not wait in the inbox.
    Wakeup,
    /// Close all connections and end.
    Shutdown,
}

impl Event {
    /// How many usual events take as long.
    fn weight(&self) -> usize {
        match self {
            #[cfg(feature = "cluster")]
            Self::Log(event) => event.weight(),
            _ => 1,
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address as the log shows it.
    pub name: Arc<str>,
    /// What limits per address apply to.
    pub network: Network,
    /// The address that rates are charged to; `None`: exempt.
    pub charged: Option<Network>,
}

impl Peer {
    fn address(&self) -> Address {
        Address { network: self.network, is_exempt: self.charged.is_none() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// What the hub starts with.
pub struct HubSettings {
    pub room: Room,
    pub order: Order,
    /// The longest message that the server accepts, which clients are told.
    pub max_message_bytes: usize,
    pub storage: Storage,
}

#[cfg(any(fuzzing, test))]
impl HubSettings {
    /// Nothing is kept.
    pub fn empty() -> Self {
        Self {
            room: Room::new(crate::chat::RoomSettings::default(), &entry_time()),
            order: Order::Local(0),
            max_message_bytes: 0,
            storage: Storage::default(),
        }
    }
}

/// Starts the hub. After [`Event::Shutdown`] it ends as soon as every client has disconnected, or after 3 seconds.
/// `on_end` is called when it ends, even by a panic. Its thread returns why it has ended before a shutdown.
///
/// # Errors
/// The system cannot create a thread.
pub fn start(
    settings: HubSettings,
    counters: Arc<Counters>,
    client_log: ClientLog,
    on_end: impl FnOnce() + Send + 'static,
) -> io::Result<(HubHandle, JoinHandle<io::Result<()>>)> {
    let (handle, hub) = Hub::new(settings, counters, client_log);
    let run = move || {
        let _on_end = OnDrop(Some(on_end));
        hub.run()
    };
    let thread = thread::Builder::new().name("hub".into()).spawn(run)?;
    Ok((handle, thread))
}

struct Hub {
    inbox: Receiver<Event>,
    queries: Receiver<Query>,
    state: SharedState,
    room: Room,
    max_message_bytes: usize,
    lists: UserLists,
    guests: Guests,
    clock: EntryClock,
    order: Order,
    storage: Storage,
    tape: Tape,
    delivery: Delivery,
    /// Connections to close once the batch has been sent, with the reasons.
    removed: Vec<(ConnectionId, String)>,
    client_log: ClientLog,
    /// Since the last [`SharedState::set_join_pace`].
    handled_admissions: Admitted,
    /// When the hub ends at the latest; `None` until the shutdown.
    shutdown_deadline: Option<Instant>,
    /// Why it has to end before a shutdown.
    failure: Option<io::Error>,
    /// Totals since the start. [`Hub::stats`] adds the current state.
    stats: HubStats,
}

impl Hub {
    fn new(settings: HubSettings, counters: Arc<Counters>, client_log: ClientLog) -> (HubHandle, Self) {
        let HubSettings { room, order, max_message_bytes, storage } = settings;
        let (sender, inbox) = bounded(INBOX_EVENTS);
        let state = SharedState::default();
        let (handle, queries) = HubHandle::new(sender, state.clone());
        state.publish(&room);
        state.set_node(order.node());
        let hub = Self {
            inbox,
            queries,
            state,
            room,
            max_message_bytes,
            lists: UserLists::default(),
            guests: Guests::default(),
            clock: EntryClock::default(),
            order,
            storage,
            tape: Tape::default(),
            delivery: Delivery::new(counters),
            removed: Vec::new(),
            client_log,
            handled_admissions: Admitted::default(),
            shutdown_deadline: None,
            failure: None,
            stats: HubStats::default(),
        };
        (handle, hub)
    }

    fn run(mut self) -> io::Result<()> {
        #[cfg(feature = "cluster")]
        if !self.order.is_local() {
            self.follow(true, true);
            self.lists.follow(&self.room.list_changed(), Instant::now());
        }
        self.serve();
        self.storage.close(self.order.last_id());
        self.failure.map_or(Ok(()), Err)
    }

    fn serve(&mut self) {
        self.state.set_join_pace(self.lists.join_pace(), Admitted::default());
        loop {
            match self.next_event() {
                Ok(event) => self.batch(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.answer_queries();
            let now = self.clock.now();
            let is_over = |deadline| {
                now.instant >= deadline || (self.delivery.is_finished() && !self.order.is_leaving())
            };
            if self.shutdown_deadline.is_some_and(is_over) {
                // The log has not responded.
                #[cfg(feature = "cluster")]
                if self.order.is_leaving() {
                    self.left(&now, false);
                }
                return;
            }
            self.do_what_is_due(&now);
            #[cfg(feature = "cluster")]
            self.serve_log();
            self.send_batch(now.instant);
            self.delivery.retry_due(now.instant);
            let handled = std::mem::take(&mut self.handled_admissions);
            self.state.set_join_pace(self.lists.join_pace(), handled);
        }
    }

    fn do_what_is_due(&mut self, now: &Now) {
        while let Some(decision) = self.storage.pop_overdue(now.instant) {
            self.decided(now, decision, Outcome::NotStored);
        }
        if self.room_deadline().is_some_and(|due| due <= now.instant) {
            self.input(now, ConnectionId::SERVER, Input::Tick);
        }
        if self.lists_deadline().is_some_and(|due| due <= now.instant)
            && let Some(recipients) = self.lists.next_round(now.instant, |id| self.delivery.is_slow(id))
        {
            let list = Effect::Send(recipients, self.room.user_list());
            self.apply(None, &[list], now);
        }
    }

    /// Sends what was written to the tape, and then closes the connections that were removed.
    fn send_batch(&mut self, now: Instant) {
        self.delivery.send(&self.tape.finish(), now);
        for (id, reason) in self.removed.drain(..) {
            self.delivery.close_removed(id, &reason, now);
        }
    }

    fn answer_queries(&self) {
        for query in self.queries.try_iter() {
            match query {
                Query::Probe(respond) => respond(),
                // The receiver may have timed out.
                Query::Stats(reply) => drop(reply.try_send(self.stats())),
            }
        }
    }

    /// The next event, or `Timeout` when something else is due.
    fn next_event(&self) -> Result<Event, RecvTimeoutError> {
        let deadlines = [
            self.room_deadline(),
            self.lists_deadline(),
            self.storage.next_deadline(),
            self.delivery.next_retry(),
            self.shutdown_deadline,
            self.state.is_held().then(|| Instant::now() + LOOK_INTERVAL),
        ];
        match deadlines.into_iter().flatten().min() {
            Some(due) => self.inbox.recv_deadline(due),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// When the room needs an [`Input::Tick`] from here; `None` during the shutdown.
    fn room_deadline(&self) -> Option<Instant> {
        let is_here = self.order.is_local() && self.shutdown_deadline.is_none();
        let deadline = self.room.next_deadline().filter(|_| is_here);
        deadline.map(|deadline| self.clock.instant(deadline))
    }

    /// When lists are due; `None` during the shutdown.
    fn lists_deadline(&self) -> Option<Instant> {
        self.lists.next_deadline().filter(|_| self.shutdown_deadline.is_none())
    }

    /// Handles an event and those that have arrived since.
    fn batch(&mut self, first: Event) {
        let now = self.clock.now();
        self.stats.batches += 1;
        let mut weight = first.weight();
        self.handle(&now, first);
        while weight < BATCH_EVENTS && self.tape.len() < BATCH_BYTES {
            let Ok(event) = self.inbox.try_recv() else { return };
            weight += event.weight();
            self.handle(&now, event);
        }
    }

    fn handle(&mut self, now: &Now, event: Event) {
        self.stats.events += 1;
        match event {
            Event::Connected(id, link, peer) => {
                let address = peer.address();
                self.delivery.add(id, link, peer);
                self.guests.connected(id, address, self.order.opened(now));
                if self.shutdown_deadline.is_some() {
                    self.delivery.close(id, now.instant);
                }
                #[cfg(feature = "cluster")]
                if !self.order.accepts(id) {
                    self.delivery.close_to_reconnect(id, now.instant);
                }
            }
            Event::Message(id, message, access, sent, admission) => {
                self.count(&message);
                self.message(now, id, message, access, sent, admission);
            }
            Event::Pending(id) => self.delivery.schedule_flush(id, now.instant),
            Event::Disconnected(id, departure) => {
                if self.guests.disconnected(id) {
                    self.input(now, id, Input::Disconnected(departure));
                }
                self.delivery.remove(id);
            }
            Event::Store(report) => self.report(now, *report),
            #[cfg(feature = "cluster")]
            Event::Log(event) => self.log_event(now, *event),
            #[cfg(feature = "cluster")]
            Event::Copy(request) => self.copy_request(request),
            Event::Reload => self.storage.reload_moderators(),
            // Queries are answered after the batch.
            Event::Wakeup => {}
            Event::Shutdown => {
                self.send_batch(now.instant);
                self.state.shut_down();
                self.shutdown_deadline.get_or_insert(now.instant + DRAIN_TIMEOUT);
                // What clients have sent takes effect before the other servers see this one leave.
                if !self.order.leave() {
                    self.delivery.close_all(now.instant);
                }
            }
        }
    }

    fn message(
        &mut self,
        now: &Now,
        id: ConnectionId,
        message: Result<ClientMessage, MessageError>,
        access: Access,
        sent: Option<SessionSecret>,
        admission: Option<Arc<Admission>>,
    ) {
        let only_resumes = admission.as_ref().is_some_and(|admission| admission.only_resumes());
        if self.guests.is_unknown(id)
            && let Some(error) = guest_error(&message)
        {
            if self.shutdown_deadline.is_none() {
                self.apply(None, &[Effect::Send(Audience::One(id), error)], now);
            }
            return Own { admission, ..Own::default() }.handled(false, &mut self.handled_admissions);
        }
        let guest = self.guests.guest(id, only_resumes);
        let new = new_session(&message);
        let session = new.map(|new| new.digest());
        let own = Own { secrets: JoinSecrets { sent, new }, admission };
        self.own_input(now, id, Input::Message { message, access, session, guest }, own);
    }

    fn report(&mut self, now: &Now, report: Report) {
        match report {
            Report::Decided(decision, outcome) => {
                if self.storage.decided(&decision) {
                    self.stored(now, decision, outcome);
                }
            }
            Report::Older(connection, request, answer) => {
                #[cfg(feature = "cluster")]
                self.read_is_over(connection);
                self.older(now, connection, request, answer);
            }
            #[cfg(feature = "cluster")]
            Report::Found(decision, is_found) => {
                self.find_is_over();
                self.found(now, decision, is_found);
            }
            Report::Moderators(moderators) => {
                self.input(now, ConnectionId::SERVER, Input::Moderators(moderators));
            }
            Report::IdsReserved(id) => self.storage.reserved(id),
        }
    }

    fn read_older(&mut self, connection: ConnectionId, request: &OlderRequest, now: &Now) {
        let asked = match &self.order {
            Order::Local(_) => self.storage.read_older(connection, request),
            #[cfg(feature = "cluster")]
            Order::Shared(_) => self.read_shared(now, connection, request),
        };
        if let Err(error) = asked {
            self.older(now, connection, request.clone().into(), Err(error));
        }
    }

    fn older(
        &mut self,
        now: &Now,
        connection: ConnectionId,
        request: Box<OlderRequest>,
        answer: Result<OlderMessages, StoreUnavailable>,
    ) {
        let input = Input::Older(request, answer);
        match &self.order {
            Order::Local(_) => self.input(now, connection, input),
            // It concerns only this server, and changes nothing.
            #[cfg(feature = "cluster")]
            Order::Shared(order) => {
                let (id, now) = (order.last_id(), self.clock.shared(now, order.last_time(), 0));
                self.apply_entry(
                    &now,
                    Entry { id, time: &now.entry, from: connection, input },
                    &Own::default(),
                );
            }
        }
    }

    /// Passes an input to the room as the next entry. Ignored during the shutdown, when clients are sent nothing more.
    fn input(&mut self, now: &Now, from: ConnectionId, input: Input) {
        self.own_input(now, from, input, Own::default());
    }

    fn own_input(&mut self, now: &Now, from: ConnectionId, input: Input, own: Own) {
        if self.shutdown_deadline.is_some() {
            return own.handled(false, &mut self.handled_admissions);
        }
        if !self.order.accepts(from) {
            return own.handled(false, &mut self.handled_admissions);
        }
        if let Some(Positioned { id, input, own }) = self.order.append(from, now.offset_seconds, input, own) {
            self.storage.assigned(id);
            self.apply_entry(now, Entry { id, time: &now.entry, from, input }, &own);
        }
        // At once: by the end of the batch, about twice as many entries could be queued.
        #[cfg(feature = "cluster")]
        self.hold_if_full();
    }

    fn apply_entry(&mut self, now: &Now, entry: Entry, own: &Own) {
        let from = entry.from;
        let mut effects = self.room.apply(entry, self.order.node());
        own.secrets.complete(&mut effects, self.max_message_bytes);
        self.apply(Some(from), &effects, now);
        let has_joined =
            effects.iter().any(|effect| matches!(effect, Effect::Enter(..) | Effect::Resume(..)));
        own.handled(has_joined, &mut self.handled_admissions);
        for effect in effects {
            match effect {
                Effect::Decide(decision) => self.decide(now, decision),
                // Entries that were applied before a restart are applied again.
                Effect::Record(act) if !self.order.is_local() => self.storage.apply(&act),
                Effect::Record(act) => self.storage.record(act),
                _ => {}
            }
        }
    }

    /// Has a decision stored. It takes effect with the store's answer.
    fn decide(&mut self, now: &Now, decision: Box<Decision>) {
        if self.storage.is_off() {
            let outcome = match decision.act.action {
                Action::Delete { id, .. } if !self.room.holds(id) => Outcome::NotFound,
                _ => Outcome::Stored,
            };
            return self.stored(now, decision, outcome);
        }
        if let Err(decision) = self.storage.decide(decision, now.instant) {
            self.decided(now, decision, Outcome::NotStored);
        }
    }

    /// What became of a decision in this server's store.
    fn stored(&mut self, now: &Now, decision: Box<Decision>, outcome: Outcome) {
        #[cfg(feature = "cluster")]
        if outcome == Outcome::NotFound && self.is_only_shared(&decision) {
            return self.find(now, decision);
        }
        self.decided(now, decision, outcome);
    }

    fn decided(&mut self, now: &Now, decision: Box<Decision>, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::NotStored => self.room.not_stored(&decision),
            outcome => outcome,
        };
        self.input(now, decision.connection, Input::Decided(decision, outcome));
    }

    /// Applies effects in their order. `from`: the connection whose input has caused them.
    fn apply(&mut self, from: Option<ConnectionId>, effects: &[Effect], now: &Now) {
        for effect in effects {
            self.lists.follow(effect, now.instant);
            self.guests.follow(effect);
            self.stats.deliveries += self.tape.write(effect, &now.local_time) as u64;
            match effect {
                Effect::CloseReplaced(id) => self.delivery.close_replaced(*id, now.instant),
                Effect::Close(id, reason) => self.removed.push((*id, reason.clone())),
                Effect::PublishBan(ban) => self.state.publish_ban(ban.clone()),
                Effect::WithdrawBan(id) => self.state.withdraw_ban(*id),
                Effect::PublishModerators(moderators) => self.publish_moderators(moderators),
                Effect::OpenSession(session, name) => self.state.open_session(*session, name.clone()),
                Effect::CloseSession(session) => self.state.close_session(*session),
                Effect::Keep(entry) => {
                    self.storage.keep(entry);
                    #[cfg(feature = "cluster")]
                    self.keep_shared(entry);
                }
                Effect::ReadOlder(connection, request) => self.read_older(*connection, request, now),
                _ => {}
            }
        }
        self.log(from, effects);
    }

    fn publish_moderators(&mut self, moderators: &[NamedModerator]) {
        if let Some(changes) = self.state.set_moderators(moderators) {
            info!("The named moderators have changed: {changes}");
        }
        if !self.order.is_local() {
            self.storage.set_moderators(moderators.to_vec());
        }
    }

    /// Logs joins, departures and moderation, with names but without messages of clients. A client can join and leave
    /// in a loop, so those lines are limited; moderation is always logged.
    fn log(&self, from: Option<ConnectionId>, effects: &[Effect]) {
        let peer = from.and_then(|from| self.delivery.peer(from));
        let limited = |name: &str, what| {
            if let Some(peer) = peer {
                self.client_log.info(peer.network, format_args!("{peer}: {name} {what}."));
            }
        };
        for effect in effects {
            match effect {
                Effect::Enter(_, name) => limited(name, "joined"),
                Effect::Resume(_, name) => limited(name, "resumed"),
                Effect::Away(_, name) => limited(name, "lost its connection"),
                Effect::Leave(_, name) => limited(name, "left"),
                Effect::LeaveAway(network, name) => {
                    self.client_log.info(*network, format_args!("{name} left while away."));
                }
                Effect::Moderated(content) => match peer {
                    Some(peer) => info!("{peer}: {content}"),
                    None => info!("{content}"),
                },
                Effect::Close(id, reason) => {
                    if let Some(peer) = self.delivery.peer(*id) {
                        self.client_log
                            .info(peer.network, format_args!("{peer}: closed with 1008: {reason}"));
                    }
                }
                Effect::CloseReplaced(_)
                | Effect::ListChanged(_)
                | Effect::OpenSession(..)
                | Effect::CloseSession(_)
                | Effect::Keep(_)
                | Effect::ReadOlder(..)
                | Effect::Decide(_)
                | Effect::Record(_)
                | Effect::PublishBan(_)
                | Effect::WithdrawBan(_)
                | Effect::PublishModerators(_)
                | Effect::Send(..) => {}
            }
        }
    }

    fn count(&mut self, message: &Result<ClientMessage, MessageError>) {
        let stats = &mut self.stats;
        let count = match message.as_ref().and_then(|message| message.body.as_ref()) {
            Ok(Body::Join(_)) => &mut stats.joins,
            Ok(Body::Public { .. }) => &mut stats.publics,
            Ok(Body::Private { .. }) => &mut stats.privates,
            Ok(Body::Command(_)) => &mut stats.commands,
            Ok(Body::History { .. }) => &mut stats.history_requests,
            Err(_) => &mut stats.errors,
        };
        *count += 1;
    }

    fn stats(&self) -> HubStats {
        HubStats {
            connected: self.delivery.clients(),
            joined: self.tape.members(),
            away: self.room.away_members(),
            inbox: self.inbox.len(),
            sent_bytes: self.delivery.sent_bytes(),
            slow_clients: self.delivery.slow_clients(),
            backlog_bytes: self.delivery.backlog_bytes(),
            ..self.stats.clone()
        }
    }
}

/// A new session for a client that asks to be able to resume.
fn new_session(message: &Result<ClientMessage, MessageError>) -> Option<SessionSecret> {
    let Ok(ClientMessage { body: Ok(Body::Join(Some(_))), .. }) = message else { return None };
    let random = random().expect("the server has drawn its epoch from the same generator");
    Some(SessionSecret::new(random))
}

struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::num::NonZeroU32;

    use super::*;
    use crate::chat::{NameKey, Username, Verdict};
    use crate::config::{PasswordHash, SALT_BYTES};

    /// Without `JOIN_PASSWORD`.
    const OPEN: Access = Access { is_open: true, join: Verdict::NotCompared, login: Verdict::NotCompared };

    fn hub() -> (HubHandle, Hub) {
        Hub::new(HubSettings::empty(), Arc::default(), ClientLog::new(Arc::default()))
    }

    /// While 4,000 members joined at once, 4 of 5 health checks timed out.
    #[test]
    fn a_query_is_answered_after_one_batch_however_much_waits() {
        let (handle, mut hub) = hub();
        // Holds more than a batch. Normally, other threads refill the inbox during the batch.
        let (events, inbox) = bounded(BATCH_EVENTS + 1);
        (0..=BATCH_EVENTS).for_each(|_| events.send(Event::Wakeup).unwrap());
        hub.inbox = inbox.clone();
        let (sender, left) = bounded(1);
        let _ = handle.probe(move || sender.send(inbox.len()).unwrap());
        // The hub ends once nothing can arrive any more.
        drop(events);
        hub.run().unwrap();
        assert_eq!(left.recv(), Ok(1));
    }

    /// A place that ended between the admission and the join once let a client join at any rate.
    #[test]
    fn an_admission_to_resume_does_not_admit_an_ordinary_join() {
        let (handle, mut hub) = hub();
        let (now, id) = (EntryClock::default().now(), ConnectionId(1));
        let address = Address { network: IpAddr::from([127, 0, 0, 1]).into(), is_exempt: false };
        hub.guests.connected(id, address, now.entry.chat);
        let session = "0a".repeat(16);
        let join =
            || ClientMessage::parse(&format!(r#"{{"type":"join","username":"Bob","session":"{session}"}}"#));
        let admission = Arc::new(handle.admit_to_resume());
        hub.handle(&now, Event::Message(id, join(), OPEN, None, Some(admission.clone())));
        assert_eq!((admission.joined(), hub.room.members()), (Some(false), 0));
        let admission = Arc::new(handle.admit(60, now.instant).0);
        hub.handle(&now, Event::Message(id, join(), OPEN, None, Some(admission.clone())));
        assert_eq!((admission.joined(), hub.room.members()), (Some(true), 1));
    }

    /// Otherwise anyone could fill the order without joining.
    #[test]
    fn a_guest_that_sends_no_name_causes_no_entry() {
        let (_handle, mut hub) = hub();
        let (now, id) = (EntryClock::default().now(), ConnectionId(1));
        let address = Address { network: IpAddr::from([127, 0, 0, 1]).into(), is_exempt: false };
        hub.guests.connected(id, address, now.entry.chat);
        let before = hub.order.last_id();
        for text in [
            "garbage",
            r#"{"type":"join"}"#,
            r#"{"type":"join","username":""}"#,
            r#"{"type":"public","content":"hi"}"#,
        ] {
            let deliveries = hub.stats.deliveries;
            hub.handle(&now, Event::Message(id, ClientMessage::parse(text), OPEN, None, None));
            assert_eq!(hub.stats.deliveries, deliveries + 1, "{text} has one answer");
        }
        hub.handle(&now, Event::Disconnected(id, Departure::Lost));
        assert_eq!((hub.order.last_id(), hub.guests.len()), (before, 0));
    }

    #[test]
    fn connections_are_told_to_hold_joins_back_while_lists_are_in_debt() {
        let (handle, mut hub) = hub();
        // Far ahead, so that no debt is repaid while this runs.
        let now = Instant::now() + Duration::from_secs(3600);
        let later = Now { instant: now, ..EntryClock::default().now() };
        for number in 0..1500 {
            let message = format!(r#"{{"type":"join","username":"{number:032}"}}"#);
            let address = Address { network: IpAddr::from([127, 0, 0, 1]).into(), is_exempt: true };
            let id = ConnectionId(number);
            hub.guests.connected(id, address, later.entry.chat);
            hub.message(&later, id, ClientMessage::parse(&message), OPEN, None, None);
        }
        let probe = handle.clone();
        let (sender, resume_at) = bounded(1);
        let _ = handle.probe(move || sender.send(probe.admit(100, now).1).unwrap());
        drop(handle);
        hub.run().unwrap();
        assert!(resume_at.recv().unwrap() > now);
    }

    #[test]
    fn moderators_are_published_and_their_names_reserved() {
        let (handle, mut hub) = hub();
        let now = EntryClock::default().now();
        let address = Address { network: IpAddr::from([127, 0, 0, 1]).into(), is_exempt: false };
        let joins = |hub: &mut Hub, number, join| {
            hub.guests.connected(ConnectionId(number), address, now.entry.chat);
            let message = ClientMessage::parse(r#"{"type":"join","username":"Meg"}"#);
            let access = Access { join, ..OPEN };
            hub.message(&now, ConnectionId(number), message, access, None, None);
            let has_joined = hub.room.members() == 1;
            hub.input(&now, ConnectionId(number), Input::Disconnected(Departure::Left));
            has_joined
        };
        let meg = NameKey::of("Meg");
        assert!(joins(&mut hub, 1, Verdict::NotCompared) && !handle.has_moderators());
        let hash = PasswordHash::new("only meg", [0; SALT_BYTES], NonZeroU32::MIN).to_string();
        let moderator = NamedModerator { name: Username::parse("MEG").unwrap(), hash: hash.into() };
        hub.handle(&now, Event::Store(Box::new(Report::Moderators(vec![moderator]))));
        let published = handle.moderator(&meg).and_then(|moderator| moderator.hash.clone());
        assert!(published.is_some_and(|hash| hash.matches("only meg")));
        assert!(handle.has_moderators() && handle.moderator(&NameKey::of("Max")).is_none());
        assert!(!joins(&mut hub, 2, Verdict::NotCompared) && !joins(&mut hub, 3, Verdict::Shared));
        assert!(joins(&mut hub, 4, Verdict::Own));
        hub.handle(&now, Event::Store(Box::new(Report::Moderators(Vec::new()))));
        assert!(joins(&mut hub, 5, Verdict::NotCompared) && handle.moderator(&meg).is_none());
    }
}
