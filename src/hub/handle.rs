//! How other threads reach the hub.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::warn;

use super::Event;
use crate::chat::{
    Ban, Bans, ClientMessage, JoinPace, NameKey, NameMap, NamedModerator, NodeNumber, Room, SessionDigest,
    Username,
};
use crate::config::PasswordHash;
use crate::limits::Network;
use crate::ops::metrics::HubStats;

/// How many queries may wait for the hub.
const MAX_QUERIES: usize = 64;

/// Sends events and queries to the hub.
#[derive(Clone)]
pub struct HubHandle {
    inbox: Sender<Event>,
    queries: Sender<Query>,
    state: SharedState,
}

/// An event was not sent, because the hub has ended.
#[derive(Debug)]
pub struct HubEnded;

/// What the hub answers between two batches, however full its inbox is.
pub enum Query {
    /// Call this, which shows that the hub is responsive. It must not block.
    Probe(Box<dyn FnOnce() + Send>),
    Stats(Sender<HubStats>),
}

impl HubHandle {
    /// A handle, and the receiver of its queries.
    pub fn new(inbox: Sender<Event>, state: SharedState) -> (Self, Receiver<Query>) {
        let (queries, receiver) = bounded(MAX_QUERIES);
        (Self { inbox, queries, state }, receiver)
    }

    /// Sends an event. While the inbox is full, this blocks.
    pub fn send(&self, event: Event) -> Result<(), HubEnded> {
        self.inbox.send(event).map_err(|_| HubEnded)
    }

    /// Has the hub call `respond`, which must not block. `false`: too many queries wait.
    pub fn probe(&self, respond: impl FnOnce() + Send + 'static) -> bool {
        self.query(Query::Probe(Box::new(respond)), Instant::now())
    }

    /// Whether the hub responds within `timeout`.
    pub fn is_responsive(&self, timeout: Duration) -> bool {
        let (sender, reply) = bounded(1);
        let deadline = Instant::now() + timeout;
        let respond = move || {
            // The receiver may have timed out.
            let _ = sender.try_send(());
        };
        self.query(Query::Probe(Box::new(respond)), deadline) && reply.recv_deadline(deadline).is_ok()
    }

    /// The hub's totals; `None`: it did not respond within `timeout`.
    pub fn stats(&self, timeout: Duration) -> Option<HubStats> {
        let (sender, reply) = bounded(1);
        let deadline = Instant::now() + timeout;
        self.query(Query::Stats(sender), deadline).then(|| reply.recv_deadline(deadline).ok())?
    }

    /// Admits a client to the room, and returns when it may join. `entry_bytes`: the size of its entry in the user list.
    pub fn admit(&self, entry_bytes: usize, now: Instant) -> (Admission, Instant) {
        let mut joins = self.state.joins();
        let Admitted { clients, entry_bytes: before } = joins.admitted;
        let resume_at = joins.pace.resume_at(clients, before, now);
        joins.admitted = Admitted { clients: clients + 1, entry_bytes: before + entry_bytes };
        drop(joins);
        (self.admission(entry_bytes, false), resume_at)
    }

    /// Admits a client that [resumes](Self::can_resume), which waits for nothing. If its place has ended when the hub
    /// handles its message, it does not join.
    pub fn admit_to_resume(&self) -> Admission {
        self.state.joins().admitted.clients += 1;
        self.admission(0, true)
    }

    fn admission(&self, entry_bytes: usize, only_resumes: bool) -> Admission {
        Admission { state: self.state.clone(), entry_bytes, only_resumes, joined: OnceLock::new() }
    }

    /// Whether this message resumes a member's place, under the name as it was spelled at the join: under one that only
    /// looks like it, it resumes as well, but is charged like other joins.
    pub fn can_resume(&self, message: &ClientMessage) -> bool {
        message.resume_request().is_some_and(|(session, name)| {
            self.state.sessions().get(&session).is_some_and(|owner| owner == name.key())
        })
    }

    /// The named moderator for whom this name is reserved.
    pub fn moderator(&self, name: &NameKey) -> Option<Arc<Moderator>> {
        self.state.moderators().get(name)
    }

    /// Whether there are named moderators, who may join from a banned address.
    pub fn has_moderators(&self) -> bool {
        !self.state.moderators().list.is_empty()
    }

    /// The ban that applies to an address. `unix_millis`: the wall clock, in milliseconds since 1970.
    pub fn ban_on(&self, address: Network, unix_millis: u64) -> Option<Arc<Ban>> {
        let bans = self.state.0.bans.read().unwrap_or_else(PoisonError::into_inner);
        bans.applying(None, address, unix_millis).cloned()
    }

    /// The number that new connections' ids contain.
    pub fn node(&self) -> NodeNumber {
        *self.state.node()
    }

    /// Whether clients have to wait before they send more, because the queue of entries for the other servers is full.
    pub fn is_held(&self) -> bool {
        self.state.is_held()
    }

    /// Whether the hub is closing all connections.
    pub fn is_shutting_down(&self) -> bool {
        self.state.is_shutting_down()
    }

    /// `false`: too many queries still waited at the deadline.
    fn query(&self, query: Query, deadline: Instant) -> bool {
        let is_sent = self.queries.send_deadline(query, deadline).is_ok();
        if is_sent {
            // Wakes an idle hub. If the inbox is full, the hub is not idle.
            let _ = self.inbox.try_send(Event::Wakeup);
        }
        is_sent
    }
}

/// What the hub publishes for the connections' threads.
#[derive(Clone, Default)]
pub struct SharedState(Arc<State>);

#[derive(Default)]
struct State {
    joins: Mutex<Joins>,
    /// Of all members that can resume, with their names.
    sessions: Mutex<HashMap<SessionDigest, Arc<NameKey>>>,
    moderators: Mutex<Moderators>,
    /// Read for each connection, and rarely changed.
    bans: RwLock<Bans>,
    node: Mutex<NodeNumber>,
    is_held: AtomicBool,
    is_shutting_down: AtomicBool,
}

/// A named moderator. All names that count as the same are reserved for it.
#[derive(Clone, Debug)]
pub struct Moderator {
    pub name: Username,
    /// Of its password. `None`: the store has none that can be used, and nobody can join under the name.
    pub hash: Option<PasswordHash>,
}

impl Moderator {
    /// `hash`: as it is stored.
    pub fn new(name: Username, hash: &str) -> Self {
        let hash = PasswordHash::parse(hash).ok();
        if hash.is_none() {
            warn!(
                "The password of the moderator {name} is damaged, so nobody can join under this name: set it again \
                 with tinychat moderator add"
            );
        }
        Self { name, hash }
    }
}

#[derive(Default)]
struct Moderators {
    list: Vec<Arc<Moderator>>,
    /// Their places in the list.
    by_name: NameMap<usize>,
}

impl Moderators {
    fn new(moderators: Vec<Moderator>) -> Self {
        let mut by_name = NameMap::default();
        for (index, moderator) in moderators.iter().enumerate() {
            by_name.insert(moderator.name.key(), index);
        }
        Self { list: moderators.into_iter().map(Arc::new).collect(), by_name }
    }

    fn get(&self, name: &NameKey) -> Option<Arc<Moderator>> {
        self.list.get(self.by_name.get(name)?).cloned()
    }

    /// How they differ from the earlier ones, for the log; `None`: not at all.
    fn changes(&self, earlier: &Self) -> Option<String> {
        let find = |all: &Self, name: &Username| all.get(name.key()).filter(|other| other.name == *name);
        let changes = [
            ("removed", earlier.names(|moderator| find(self, &moderator.name).is_none())),
            ("added", self.names(|moderator| find(earlier, &moderator.name).is_none())),
            (
                "with a new password",
                self.names(|new| find(earlier, &new.name).is_some_and(|old| old.hash != new.hash)),
            ),
        ];
        let changes: Vec<_> = changes
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", names.join(", ")))
            .collect();
        (!changes.is_empty()).then(|| changes.join("; "))
    }

    fn names(&self, is_wanted: impl Fn(&Moderator) -> bool) -> Vec<&str> {
        let wanted = self.list.iter().filter(|moderator| is_wanted(moderator));
        wanted.map(|moderator| &**moderator.name.shown()).collect()
    }
}

#[derive(Default)]
struct Joins {
    pace: JoinPace,
    /// The clients that have been admitted whose messages the hub has not handled.
    admitted: Admitted,
}

/// Clients that have been admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Admitted {
    pub clients: usize,
    /// The size of their entries in the user list together, in bytes.
    pub entry_bytes: usize,
}

impl Admitted {
    /// Records that the hub has handled the message of this client, and adds it to those that
    /// [`SharedState::set_join_pace`] counts next.
    pub fn handled(&mut self, admission: &Admission, joined: bool) {
        if admission.joined.set(joined).is_ok() {
            self.clients += 1;
            self.entry_bytes += admission.entry_bytes;
        }
    }

    fn subtract(&mut self, other: Self) {
        self.clients -= other.clients;
        self.entry_bytes -= other.entry_bytes;
    }
}

/// A client that may join. Its place in the order of joins is free again once the hub has handled its message, or when
/// this is dropped.
pub struct Admission {
    state: SharedState,
    entry_bytes: usize,
    /// Whether the client may join only by resuming: it has not waited for its turn.
    only_resumes: bool,
    /// Whether the client has joined; empty until the hub has handled its message.
    joined: OnceLock<bool>,
}

impl Admission {
    pub fn only_resumes(&self) -> bool {
        self.only_resumes
    }

    /// Whether the client has joined; `None`: the hub has not handled its message.
    pub fn joined(&self) -> Option<bool> {
        self.joined.get().copied()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.joined.get().is_none() {
            let this = Admitted { clients: 1, entry_bytes: self.entry_bytes };
            self.state.joins().admitted.subtract(this);
        }
    }
}

impl SharedState {
    /// Publishes how fast members may join. `handled`: those that the hub has handled since the last call.
    pub fn set_join_pace(&self, pace: JoinPace, handled: Admitted) {
        let mut joins = self.joins();
        joins.pace = pace;
        joins.admitted.subtract(handled);
    }

    pub fn open_session(&self, session: SessionDigest, name: Arc<NameKey>) {
        self.sessions().insert(session, name);
    }

    pub fn close_session(&self, session: SessionDigest) {
        self.sessions().remove(&session);
    }

    /// Returns how the named moderators have changed, for the log.
    pub fn set_moderators(&self, moderators: &[NamedModerator]) -> Option<String> {
        let parsed =
            moderators.iter().map(|NamedModerator { name, hash }| Moderator::new(name.clone(), hash));
        let moderators = Moderators::new(parsed.collect());
        let mut published = self.moderators();
        let changes = moderators.changes(&published);
        *published = moderators;
        changes
    }

    pub fn publish_ban(&self, ban: Arc<Ban>) {
        self.bans().add(ban);
    }

    pub fn withdraw_ban(&self, id: u64) {
        self.bans().remove(id);
    }

    /// Publishes the state of a whole room, in place of what was published before.
    pub fn publish(&self, room: &Room) {
        *self.sessions() = room.sessions().collect();
        *self.bans() = room.bans().clone();
        self.set_moderators(room.moderators());
    }

    pub fn set_node(&self, node: NodeNumber) {
        *self.node() = node;
    }

    pub fn is_held(&self) -> bool {
        self.0.is_held.load(Ordering::Relaxed)
    }

    #[cfg(feature = "cluster")]
    pub fn hold(&self, is_held: bool) {
        self.0.is_held.store(is_held, Ordering::Relaxed);
    }

    pub fn shut_down(&self) {
        self.0.is_shutting_down.store(true, Ordering::Relaxed);
    }

    fn bans(&self) -> RwLockWriteGuard<'_, Bans> {
        self.0.bans.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self) -> MutexGuard<'_, NodeNumber> {
        self.0.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn joins(&self) -> MutexGuard<'_, Joins> {
        self.0.joins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionDigest, Arc<NameKey>>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moderators(&self) -> MutexGuard<'_, Moderators> {
        self.0.moderators.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_shutting_down(&self) -> bool {
        self.0.is_shutting_down.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The health check once waited in the inbox: while 4,000 members joined at once, it timed out.
    #[test]
    fn queries_do_not_wait_in_a_full_inbox() {
        let (inbox, events) = bounded(1);
        let (hub, queries) = HubHandle::new(inbox, SharedState::default());
        hub.send(Event::Wakeup).unwrap();
        assert!(events.is_full());
        assert!(hub.probe(|| {}));
        assert!(matches!(queries.try_recv(), Ok(Query::Probe(_))));
    }

    /// Each admission makes the next one wait, until the hub has counted it or the client has disconnected.
    #[test]
    fn an_admission_is_counted_until_it_is_handled() {
        let (inbox, _events) = bounded(1);
        let state = SharedState::default();
        let (hub, _queries) = HubHandle::new(inbox, state.clone());
        let now = Instant::now();
        let admitted = || state.joins().admitted.clients;
        let admissions = [now; 3].map(|now| hub.admit(60, now).0);
        assert_eq!(admitted(), 3);
        let [first, second, third] = admissions;
        let mut handled = Admitted::default();
        handled.handled(&first, true);
        handled.handled(&second, false);
        assert_eq!((first.joined(), second.joined(), third.joined()), (Some(true), Some(false), None));
        state.set_join_pace(JoinPace::default(), handled);
        assert_eq!(admitted(), 1);
        drop((first, second, third));
        assert_eq!(state.joins().admitted, Admitted::default());
    }

    #[test]
    fn the_number_of_queries_is_limited() {
        let (inbox, _events) = bounded(1);
        let (hub, queries) = HubHandle::new(inbox, SharedState::default());
        let sent = (0..2 * MAX_QUERIES).filter(|_| hub.probe(|| {})).count();
        assert_eq!((sent, queries.len()), (MAX_QUERIES, MAX_QUERIES));
    }

    /// With 64 requests for /healthz at once, others were once told that the hub does not respond.
    #[test]
    fn a_query_waits_for_others() {
        let (inbox, _events) = bounded(1);
        let (hub, queries) = HubHandle::new(inbox, SharedState::default());
        while hub.probe(|| {}) {}
        let asking = thread::spawn(move || hub.is_responsive(Duration::from_secs(60)));
        while !asking.is_finished() {
            if let Ok(Query::Probe(respond)) = queries.recv_timeout(Duration::from_millis(1)) {
                respond();
            }
        }
        assert!(asking.join().unwrap());
    }

    #[test]
    fn an_unresponsive_hub_times_out() {
        let (inbox, _events) = bounded(1);
        let (hub, _queries) = HubHandle::new(inbox, SharedState::default());
        assert!(!hub.is_responsive(Duration::ZERO));
        assert_eq!(hub.stats(Duration::ZERO), None);
    }
}
