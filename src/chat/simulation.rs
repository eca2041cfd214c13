//! A simulation of clients that talk, lose their connections and come back (CONTRIBUTING.md).
//!
//! Half of the rooms have a store, which loses what it had not committed or synced when the server is killed or the power
//! is cut. A seed decides every step. Messages wait on simulated connections, in both directions, so that any of them can
//! be lost or late. Each client follows docs/protocol.md, and checks what it receives against what was said.

#[path = "simulation_disk.rs"]
mod disk;
#[path = "simulation_transcript.rs"]
mod transcript;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::away::AwayLimits;
use disk::{Disk, End, Kept};

use super::acts::{Action, Ban, Decision, Outcome};
use super::entry::*;
use super::format::{Format, Submission};
use super::guests::Guests;
use super::history::{HistoryLimits, MAX_HISTORY_BYTES};
use super::name_key::NameKey;
use super::protocol::{ClientMessage, MAX_PAGE_MESSAGES, ServerMessage};
use super::room::{Audience, Effect, Room, RoomSettings, Snapshot};
use super::session::{JoinSecrets, SessionSecret};
use super::user_list::UserLists;
use crate::limits::Network;

/// How many seeds `cargo test` runs, unless `SIMULATION_SEEDS` says otherwise.
const SEEDS: u64 = 300;
const MAX_CLIENTS: usize = 6;
const MAX_STEPS: u64 = 400;
/// How long members may be away.
const AWAY: Duration = Duration::from_secs(30);
const MAX_AWAY: usize = 3;
const MAX_AWAY_PER_NETWORK: usize = 2;
/// How many servers there are.
const NODES: u64 = 2;
/// A server starts from a snapshot once per this many entries.
const SNAPSHOT_INTERVAL: u64 = 10;
/// How many clients send `/login` before anything else.
const MODERATORS: usize = 2;
/// How many of the kept messages are in memory after a start.
const LOADED_MESSAGES: usize = 2;
/// How many ids are left out at a start.
const RESERVED_IDS: u64 = 1000;

#[test]
fn invariants_hold_for_every_seed() {
    let expected = [
        "a client has missed a deletion",
        "a crash lost messages",
        "a decision was overdue",
        "a deletion found nothing",
        "a guest was refused",
        "a member was removed",
        "a member was removed while away",
        "a message was deleted",
        "a moderator was gone",
        "a server has ended",
        "a time-out survived a restart",
        "older messages were read",
    ];
    simulate_seeds(SEEDS, simulate, "--lib simulation", &expected);
}

/// Runs a simulation with the seed in `SIMULATION_SEED`, or with the first `SIMULATION_SEEDS` seeds, or the first `seeds`.
/// `simulate` returns which rare events have occurred. Together they must be `expected`, unless fewer seeds are run.
/// `test`: the arguments of `cargo test` that select the test.
pub fn simulate_seeds(
    seeds: u64,
    simulate: impl Fn(u64) -> BTreeSet<&'static str>,
    test: &str,
    expected: &[&'static str],
) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("SIMULATION_SEED") {
        simulate(seed);
        return;
    }
    let mut seen = BTreeSet::new();
    let count = number("SIMULATION_SEEDS").unwrap_or(seeds);
    for seed in 0..count {
        match catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
            Ok(events) => seen.extend(events),
            Err(_) => {
                panic!("seed {seed} broke a rule: replay it with SIMULATION_SEED={seed} cargo test {test}")
            }
        }
    }
    let is_complete = seen.iter().eq(BTreeSet::from_iter(expected));
    assert!(count < seeds || is_complete, "only these cases have occurred: {seen:?}");
}

/// Returns which rare events have occurred.
fn simulate(seed: u64) -> BTreeSet<&'static str> {
    let world = simulated(seed);
    world.replay();
    world.seen
}

/// A world at its end.
fn simulated(seed: u64) -> World {
    let mut random = Random(seed);
    let mut world = World::new(&mut random);
    for _ in 0..random.below(MAX_STEPS) {
        world.step(&mut random);
    }
    world.settle(&mut random);
    world.check_end();
    world
}

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

/// The room, the connections and the clients.
struct World {
    start: Instant,
    elapsed: Duration,
    room: Room,
    lists: UserLists,
    guests: Guests,
    history_messages: usize,
    epoch: u64,
    last_entry: u64,
    last_connection: u64,
    /// What the room was given in this epoch, and the effects, to be compared when it is repeated.
    record: Vec<(Applied, Vec<Effect>)>,
    connections: BTreeMap<ConnectionId, Connection>,
    clients: Vec<Client>,
    /// Everything that was said in this epoch, in order.
    said: Vec<Said>,
    /// What was deleted of it, with the places of a whisper. After a restart, only what the store has deleted.
    deleted: BTreeMap<u64, Option<[usize; 2]>>,
    /// How many places there have been.
    places: usize,
    /// The place of each session that has not ended.
    sessions: BTreeMap<String, usize>,
    /// Whispers to each place that is away.
    unread: BTreeMap<usize, Vec<u64>>,
    /// How many reports about undelivered whispers wait for each place that is away.
    reports: BTreeMap<usize, usize>,
    /// The client and the address of each place.
    holders: BTreeMap<usize, (usize, Network)>,
    /// `None`: nothing is stored.
    disk: Option<Disk>,
    /// What the room has started with.
    base: Base,
    /// Decisions that take effect next, with the clients that made them. `None`: the outcome is left to chance.
    decisions: VecDeque<(usize, Decision, Option<Outcome>)>,
    /// Requests for older messages.
    reads: VecDeque<(ConnectionId, Box<OlderRequest>)>,
    /// The one that takes effect.
    deciding: Option<(usize, Decision)>,
    /// Of the message that takes effect.
    secrets: JoinSecrets,
    bans: Vec<Arc<Ban>>,
    seen: BTreeSet<&'static str>,
}

/// What a room starts with.
#[derive(Default)]
struct Base {
    /// `None`: nothing is stored.
    kept: Option<Kept>,
    elapsed: Duration,
    last_entry: u64,
}

/// An [`Entry`].
#[derive(Clone, Debug)]
struct Applied {
    id: u64,
    time: EntryTime,
    from: ConnectionId,
    input: Input,
}

/// A connection, with the state of both ends.
struct Connection {
    client: usize,
    to_server: VecDeque<Value>,
    to_client: VecDeque<Value>,
    /// The place that it holds.
    place: Option<usize>,
    /// Whether the server regards it as a guest.
    is_guest: bool,
    is_replaced: bool,
    /// Whether the server has refused or removed it.
    is_removed: bool,
    is_closed: bool,
    network: Network,
    opened: ChatTime,
    /// Whispers that the answer to its resume must contain.
    unread: Vec<u64>,
}

/// A message that was said, as the server has accepted it.
#[derive(Clone, Debug)]
struct Said {
    id: u64,
    /// The client that said it, or whose command caused it.
    author: usize,
    is_system: bool,
    txn_id: Option<String>,
    /// For a whisper: the places of its author and of its target.
    between: Option<[usize; 2]>,
    content: String,
    /// The entry that deleted it.
    deleted: Option<u64>,
}

/// A client that follows docs/protocol.md.
struct Client {
    name: String,
    /// Whether it asks for anything that the original does not have.
    asks: bool,
    connection: Option<ConnectionId>,
    is_joined: bool,
    /// Whether it has sent `/login` on this connection.
    has_logged_in: bool,
    session: Option<String>,
    epoch: Option<String>,
    place: Option<usize>,
    /// The greatest id that it has seen.
    last_id: u64,
    /// The messages that it displays.
    shown: BTreeSet<u64>,
    users: Vec<String>,
    outbox: Vec<Sent>,
    next_txn: u64,
}

struct Sent {
    txn_id: String,
    message: Value,
    state: State,
    /// Whether it is sent again after a cut.
    is_resent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    Arrived,
    Refused,
    /// The answer had a gap.
    Unknown,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let history_messages = *random.pick(&[0, 1, 3, 10, 1000, 1000]);
        let clients = (0..2 + random.below(MAX_CLIENTS as u64 - 1))
            .map(|number| Client::new(number, !random.one_in(5)))
            .collect();
        let start = Instant::now();
        let disk = random.one_in(2).then(|| Disk::new(history_messages));
        let base = Base { kept: disk.as_ref().map(|_| Kept::default()), ..Base::default() };
        Self {
            start,
            elapsed: Duration::ZERO,
            room: room(history_messages, 0, &base),
            lists: UserLists::default(),
            guests: Guests::default(),
            history_messages,
            epoch: 0,
            last_entry: 0,
            last_connection: 0,
            record: Vec::new(),
            connections: BTreeMap::new(),
            clients,
            said: Vec::new(),
            deleted: BTreeMap::new(),
            places: 0,
            sessions: BTreeMap::new(),
            unread: BTreeMap::new(),
            reports: BTreeMap::new(),
            holders: BTreeMap::new(),
            disk,
            base,
            decisions: VecDeque::new(),
            reads: VecDeque::new(),
            deciding: None,
            secrets: JoinSecrets::default(),
            bans: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    fn step(&mut self, random: &mut Random) {
        let client = random.below(self.clients.len() as u64) as usize;
        match random.below(100) {
            0..10 => self.connect(client, random),
            10..35 => self.talk(client, random),
            35..60 => self.deliver_to_server(random),
            60..81 => self.deliver_to_client(random),
            81..85 => {
                self.store(random);
                self.decide(random);
            }
            85..87 => self.cut(client, random),
            87..90 => self.abandon(client, random),
            90..92 => self.notice_loss(random),
            92 => self.leave(client),
            93..99 => self.pass_time(random),
            _ if random.one_in(2) => self.restart(random),
            _ => self.end_node(random),
        }
        self.check_bounds();
    }

    /// The client connects, and joins as docs/protocol.md says.
    fn connect(&mut self, at: usize, random: &mut Random) {
        if self.clients[at].connection.is_some() {
            return;
        }
        self.last_connection += 1;
        let id = ConnectionId::new(node(1 + random.below(NODES) as u32), self.last_connection);
        // Two servers do not open connections at the same time.
        self.elapsed += Duration::from_millis(1);
        // Some have two addresses.
        let network = IpAddr::from([10, 0, u8::from(random.one_in(4)), at as u8 / 2]).into();
        let connection = Connection {
            client: at,
            to_server: VecDeque::from([self.clients[at].join(random)]),
            to_client: VecDeque::new(),
            place: None,
            is_guest: true,
            is_replaced: false,
            is_removed: false,
            is_closed: false,
            network,
            opened: entry_time(self.elapsed).chat,
            unread: Vec::new(),
        };
        self.connections.insert(id, connection);
        let client = &mut self.clients[at];
        (client.connection, client.is_joined) = (Some(id), false);
        let address = Address { network, is_exempt: at == 0 };
        self.guests.connected(id, address, entry_time(self.elapsed).chat);
    }

    fn talk(&mut self, at: usize, random: &mut Random) {
        let others: Vec<String> = self.clients.iter().map(|client| client.name.clone()).collect();
        let client = &mut self.clients[at];
        let number = client.next_txn;
        let content = format!("{} {number}", client.name);
        let to = random.pick(&others);
        let (message, is_resent) = match random.below(14) {
            // Otherwise, too few have a role.
            _ if at < MODERATORS && client.is_joined && !client.has_logged_in => {
                client.has_logged_in = true;
                (json!({"type": "command", "content": "/login secret"}), false)
            }
            0..6 => (json!({"type": "public", "content": content}), true),
            6 => (json!({"type": "private", "to": to, "content": content}), true),
            7 => (json!({"type": "command", "content": format!("/whisper {to} {content}")}), true),
            8 => {
                let text =
                    *random.pick(&["/help", "/login secret", "/login secret", "/login wrong", "/nothing"]);
                (json!({"type": "command", "content": text}), false)
            }
            9..11 => {
                let own = self.said.iter().rev().find(|said| said.author == at).filter(|_| random.one_in(2));
                let id = match (own, &self.said[..]) {
                    (Some(own), _) => own.id,
                    (None, []) => 1,
                    (None, said) => random.pick(said).id,
                };
                let network = format!("10.0.{}.{}", random.below(2), random.below(3));
                let text = match random.below(12) {
                    0 | 9 => format!("/to {to} {}", 1 + random.below(400)),
                    1 => format!("/unto {to}"),
                    2 => format!("/kick {to}"),
                    3 => format!("/ban {to} {}s", 1 + random.below(60)),
                    4 => format!("/ban \"{to}\" 20s a reason"),
                    5 => format!("/ban {network} {}s", 1 + random.below(60)),
                    6 => format!("/unban {to}"),
                    7 => format!("/unban {network}"),
                    8 => (*random.pick(&["/bans", "/info Ann", "/ban 10.0.1.0/24 30s"])).to_owned(),
                    _ => format!("/delete {id}"),
                };
                (json!({"type": "command", "content": text}), false)
            }
            _ => {
                let (before, limit) = (random.below(2 + client.last_id), random.below(12));
                if client.asks && client.is_joined {
                    client.send(
                        &mut self.connections,
                        json!({"type": "history", "before": before, "limit": limit}),
                    );
                }
                return;
            }
        };
        client.say(&mut self.connections, message, is_resent);
    }

    /// The server reads one message, even from a connection that its client has given up.
    fn deliver_to_server(&mut self, random: &mut Random) {
        let waiting: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, it)| !it.to_server.is_empty()).map(|(&id, _)| id).collect();
        if waiting.is_empty() {
            return;
        }
        let id = *random.pick(&waiting);
        let Some(message) = self.connections.get_mut(&id).and_then(|it| it.to_server.pop_front()) else {
            return;
        };
        let (parsed, attempts) = ClientMessage::parse_with_secrets(&message.to_string());
        let resumed = message["session"].as_str().and_then(|session| self.sessions.get(session).copied());
        let new = SessionSecret::new((u128::from(random.next()) << 64 | 1).to_be_bytes());
        self.secrets = JoinSecrets { sent: attempts.session, new: Some(new) };
        let session = Some(new.digest());
        let said = self.said.len();
        let connection = &self.connections[&id];
        let (client, place) = (connection.client, connection.place);
        let access = attempts.compare("secret");
        let connection = &self.connections[&id];
        // Its server may not know yet that it has joined, or that it is to be closed.
        let late = Guest {
            address: Address { network: connection.network, is_exempt: connection.client == 0 },
            opened: connection.opened,
            only_resumes: false,
        };
        let guest = self.guests.guest(id, false).or(random.one_in(4).then(|| late.into()));
        let had_effect = self.apply(id, Input::Message { message: parsed, access, session, guest });
        assert!(had_effect || place.is_none() && !self.connections[&id].is_guest, "{message} has no effect");
        if resumed.is_some() && place.is_none() {
            let connection = &self.connections[&id];
            let is_closed = connection.is_replaced || connection.is_removed;
            assert!(connection.place == resumed || is_closed, "{message} does not resume");
        }
        if place.is_none() && self.connections[&id].place.is_none() {
            assert_eq!(
                self.said.len(),
                said,
                "{message} was accepted from a connection that is not a member"
            );
        }
        for said in &mut self.said[said..] {
            assert_eq!(said.author, client);
            said.txn_id = message["txn_id"].as_str().map(str::to_owned);
        }
    }

    fn deliver_to_client(&mut self, random: &mut Random) {
        let waiting: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, it)| !it.to_client.is_empty()).map(|(&id, _)| id).collect();
        if waiting.is_empty() {
            return;
        }
        let id = *random.pick(&waiting);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(message) = connection.to_client.pop_front() else { return };
        let at = connection.client;
        if self.clients[at].connection == Some(id) {
            self.receive(at, &message);
        }
    }

    /// The store does something.
    fn store(&mut self, random: &mut Random) {
        let Some(disk) = &mut self.disk else { return };
        match random.below(7) {
            0..2 => disk.commit(random),
            2..4 => self.decisions.extend(disk.sync().into_iter().map(decided)),
            4 if random.one_in(3) => {
                if let Some(overdue) = disk.overdue() {
                    self.seen.insert("a decision was overdue");
                    self.decisions.push_back(decided(overdue));
                }
            }
            _ => {
                let Some((connection, request)) = self.reads.pop_front() else { return };
                let answer = disk.read(&request);
                if !answer.entries.is_empty() {
                    self.seen.insert("older messages were read");
                }
                self.apply(connection, Input::Older(request, Ok(answer)));
            }
        }
    }

    /// The oldest decision takes effect.
    fn decide(&mut self, random: &mut Random) {
        let Some((client, decision, outcome)) = self.decisions.pop_front() else { return };
        self.deciding = Some((client, decision.clone()));
        if self.connections.get(&decision.connection).is_none_or(|it| it.place.is_none()) {
            self.seen.insert("a moderator was gone");
        }
        let outcome = outcome.unwrap_or_else(|| match decision.act.action {
            Action::Delete { id, .. } if random.one_in(4) || !self.room.holds(id) => Outcome::NotFound,
            _ if random.one_in(4) => Outcome::NotStored,
            _ => Outcome::Stored,
        });
        let outcome = match outcome {
            Outcome::NotStored => self.room.not_stored(&decision),
            outcome => outcome,
        };
        self.apply(decision.connection, Input::Decided(decision.clone().into(), outcome));
        self.deciding = None;
        if let Action::Delete { id, .. } = decision.act.action {
            assert!(!self.room.holds(id), "{id} was deleted");
            for said in self.said.iter_mut().filter(|said| said.id == id) {
                said.deleted.get_or_insert(self.last_entry);
                if self.room.history().was_deleted(id) {
                    self.deleted.insert(id, said.between);
                }
                self.seen.insert("a message was deleted");
            }
            if outcome == Outcome::NotFound {
                self.seen.insert("a deletion found nothing");
            }
            self.unread.values_mut().for_each(|unread| unread.retain(|&waiting| waiting != id));
        }
    }

    /// The connection ends, with what is on its way. The server may learn of it later.
    fn cut(&mut self, at: usize, random: &mut Random) {
        let Some(id) = self.clients[at].lose_connection() else { return };
        let connection = self.connections.get_mut(&id).expect("it is open");
        connection.to_client.clear();
        connection.to_server.clear();
        connection.is_closed = true;
        if random.one_in(2) {
            self.disconnect(id, Departure::Lost);
        }
    }

    /// The client gives up a connection that no longer answers. What it has sent may still arrive.
    fn abandon(&mut self, at: usize, random: &mut Random) {
        let id = self.clients[at].lose_connection();
        if id.is_some() && random.one_in(2) {
            self.connect(at, random);
        }
    }

    /// The server learns that a connection has ended.
    fn notice_loss(&mut self, random: &mut Random) {
        let lost: Vec<ConnectionId> =
            self.connections.iter().filter(|(id, it)| self.is_lost(**id, it)).map(|(&id, _)| id).collect();
        if !lost.is_empty() {
            self.disconnect(*random.pick(&lost), Departure::Lost);
        }
    }

    fn is_lost(&self, id: ConnectionId, connection: &Connection) -> bool {
        connection.is_closed || self.clients[connection.client].connection != Some(id)
    }

    /// The client closes with code 1000: it does not come back to its place.
    fn leave(&mut self, at: usize) {
        let Some(id) = self.clients[at].lose_connection() else { return };
        self.clients[at].session = None;
        self.disconnect(id, Departure::Left);
    }

    fn disconnect(&mut self, id: ConnectionId, departure: Departure) {
        if self.guests.disconnected(id) {
            self.apply(id, Input::Disconnected(departure));
        }
        if let Some(connection) = self.connections.remove(&id) {
            let client = &mut self.clients[connection.client];
            if client.connection == Some(id) {
                client.lose_connection();
            }
        }
    }

    fn pass_time(&mut self, random: &mut Random) {
        let millis = *random.pick(&[1, 60, 1000, 5000, 29_000, 31_000, 90_000]);
        let until = self.elapsed + Duration::from_millis(random.below(millis) + 1);
        // Seldom, no entry can be made meanwhile.
        let is_outage = random.below(10) == 0;
        while let Some(due) = self.room.next_deadline().filter(|&due| due <= entry_time(until).chat)
            && !is_outage
        {
            self.elapsed = self.elapsed.max(due.saturating_since(ChatTime(0)));
            self.expire();
        }
        self.elapsed = until;
        self.expire();
    }

    /// What is due takes effect.
    fn expire(&mut self) {
        let now = entry_time(self.elapsed);
        if self.room.next_deadline().is_some_and(|due| due <= now.chat) {
            self.apply(ConnectionId::SERVER, Input::Tick);
            assert!(self.room.next_deadline().is_none_or(|due| due > now.chat), "something is still due");
        }
        let instant = self.instant();
        while self.lists.next_deadline().is_some_and(|due| due <= instant) {
            let connections = &self.connections;
            let is_slow = |id| connections.get(&id).is_some_and(|connection| connection.to_client.len() > 5);
            if let Some(recipients) = self.lists.next_round(instant, is_slow) {
                self.send(None, &recipients, &self.room.user_list());
            }
        }
    }

    /// One server ends, and the others learn of it.
    fn end_node(&mut self, random: &mut Random) {
        let node = node(1 + random.below(NODES) as u32);
        // Their outcome would depend on it.
        if !self.decisions.is_empty() || self.disk.as_ref().is_some_and(Disk::has_decisions) {
            return;
        }
        let ended: Vec<ConnectionId> =
            self.connections.keys().copied().filter(|id| id.node() == node).collect();
        for id in &ended {
            let connection = self.connections.get_mut(id).expect("it is open");
            connection.is_closed = true;
            let client = &mut self.clients[connection.client];
            if client.connection == Some(*id) {
                client.lose_connection();
            }
        }
        self.apply(ConnectionId::SERVER, Input::NodeDown(node));
        for id in &ended {
            let connection = self.connections.remove(id).expect("it is open");
            self.guests.disconnected(*id);
            assert_eq!(connection.place, None, "its member is away or has left");
            self.seen.insert("a server has ended");
        }
    }

    fn instant(&self) -> Instant {
        self.start + self.elapsed
    }

    /// The server starts again: with the same entries, or with nothing.
    fn restart(&mut self, random: &mut Random) {
        self.reads.clear();
        if self.disk.is_some() {
            self.decisions.clear();
            self.replay();
            self.start_from_disk(*random.pick(&[End::Regular, End::Killed, End::PowerCut]));
        } else if random.one_in(2) {
            self.replay();
            self.room = room(self.history_messages, self.epoch, &self.base);
            self.lists = UserLists::default();
            for (applied, _) in &self.record {
                for effect in apply(&mut self.room, applied, NodeNumber::LOCAL) {
                    self.lists.follow(&effect, self.start + self.elapsed);
                }
            }
        } else {
            self.decisions.clear();
            self.epoch += 1;
            self.room = room(self.history_messages, self.epoch, &self.base);
            self.last_entry = 0;
            self.said.clear();
            self.deleted.clear();
            self.bans.clear();
            self.forget();
        }
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.disconnect(id, Departure::Lost);
        }
    }

    /// The server ends, and starts again with what its disk has.
    fn start_from_disk(&mut self, end: End) {
        let disk = self.disk.as_mut().expect("it has a disk");
        let kept = disk.restart(end).clone();
        // A message that was deleted had displaced an older one. A deletion may be stored that nobody has been told of.
        let newest = self.said.iter().rev().filter(|said| said.between.is_none()).take(self.history_messages);
        let is_kept = |id: &u64| kept.messages.contains_key(id) || kept.deleted.contains(id);
        let lost = newest.filter(|said| said.deleted.is_none() && !is_kept(&said.id)).count();
        if end == End::Regular {
            assert_eq!(lost, 0, "a regular end loses nothing");
        } else if lost > 0 {
            self.seen.insert("a crash lost messages");
        }
        self.said.retain(|said| kept.messages.contains_key(&said.id));
        // A deletion that was not stored has not survived.
        self.said.iter_mut().for_each(|said| said.deleted = None);
        self.deleted = kept.deleted.iter().map(|&id| (id, None)).collect();
        let found: Vec<u64> = self.said.iter().map(|said| said.id).collect();
        assert!(found.iter().eq(kept.messages.keys()), "only what was said is stored");
        self.last_entry += RESERVED_IDS;
        self.base = Base { kept: Some(kept), elapsed: self.elapsed, last_entry: self.last_entry };
        self.room = room(self.history_messages, self.epoch, &self.base);
        let older = found.len().saturating_sub(self.history_messages.min(LOADED_MESSAGES));
        assert!(found[older..].iter().all(|&id| self.room.holds(id)), "what was committed is back");
        assert_eq!(self.room.history().len(), found.len() - older, "and nothing else");
        let now = entry_time(self.elapsed).unix_millis;
        let kept = self.base.kept.as_ref().expect("it was just stored");
        self.bans = kept.bans(now).into_iter().map(Arc::new).collect();
        assert_eq!(self.room.bans().iter().count(), self.bans.len());
        if kept.time_outs.iter().any(|time_out| time_out.until > now) {
            self.seen.insert("a time-out survived a restart");
        }
        self.forget();
    }

    /// Forgets what the server had in memory only.
    fn forget(&mut self) {
        self.lists = UserLists::default();
        self.guests = Guests::default();
        self.record.clear();
        self.sessions.clear();
        self.unread.clear();
        self.reports.clear();
        self.holders.clear();
        for connection in self.connections.values_mut() {
            (connection.place, connection.is_guest) = (None, false);
        }
    }

    /// Applies an entry, and returns whether it had an effect.
    fn apply(&mut self, from: ConnectionId, input: Input) -> bool {
        self.last_entry += 1;
        let time = entry_time(self.elapsed);
        let applied = Applied { id: self.last_entry, time, from, input };
        let mut effects = apply(&mut self.room, &applied, NodeNumber::LOCAL);
        self.record.push((applied, effects.clone()));
        self.secrets.complete(&mut effects, 16384);
        self.effects(Some(from), &effects);
        let had_effect = !effects.is_empty();
        self.check_bans();
        had_effect
    }

    /// Nobody to whom a ban applies is present.
    fn check_bans(&self) {
        let now = entry_time(self.elapsed).unix_millis;
        for &(client, network) in self.holders.values() {
            let name = &self.clients[client].name;
            let applies = |ban: &&Arc<Ban>| {
                ban.applies_to(&NameKey::of(name), network) && ban.until.is_none_or(|until| now < until)
            };
            let ban = self.bans.iter().find(applies);
            assert!(ban.is_none(), "{name} is present in spite of {ban:?}");
        }
    }

    /// Puts what is sent on the connections, and records what was said.
    fn effects(&mut self, from: Option<ConnectionId>, effects: &[Effect]) {
        let mut undelivered = 0;
        for effect in effects {
            self.lists.follow(effect, self.start + self.elapsed);
            self.guests.follow(effect);
            match effect {
                Effect::Enter(id, _) => {
                    self.places += 1;
                    let connection = self.connections.get_mut(id).expect("it is open");
                    connection.place = Some(self.places);
                    connection.is_guest = false;
                    self.holders.insert(self.places, (connection.client, connection.network));
                    self.clients[connection.client].place = Some(self.places);
                }
                Effect::Resume(id, _) => {
                    let connection = self.connections.get_mut(id).expect("it is open");
                    connection.place = self.clients[connection.client].place;
                    connection.is_guest = false;
                    let place = connection.place.expect("it had one");
                    self.holders.insert(place, (connection.client, connection.network));
                    connection.unread = self.unread.remove(&place).unwrap_or_default();
                    undelivered += self.reports.remove(&place).unwrap_or_default();
                }
                Effect::Leave(id, _) | Effect::Away(id, _) => {
                    let connection = self.connections.get_mut(id).expect("it is open");
                    let place = connection.place.take().expect("a member");
                    if let Effect::Away(..) = effect {
                        self.unread.insert(place, Vec::new());
                    } else {
                        self.end_place(place);
                    }
                }
                Effect::Close(id, _) => {
                    let connection = self.connections.get_mut(id).expect("it is open");
                    (connection.is_removed, connection.is_guest) = (true, false);
                    connection.to_client.push_back(json!({"type": "removed"}));
                    match connection.place.take() {
                        Some(place) => {
                            self.end_place(place);
                            self.seen.insert("a member was removed");
                        }
                        None => drop(self.seen.insert("a guest was refused")),
                    }
                }
                Effect::Decide(decision) => {
                    // A ban may have ended in the meantime.
                    let others = |effect: &&Effect| !matches!(effect, Effect::WithdrawBan(_));
                    let count = effects.iter().filter(others).count();
                    assert_eq!(count, 1, "nothing happens before it is stored: {effects:?}");
                    let client = self.connections[&decision.connection].client;
                    match &mut self.disk {
                        Some(disk) => disk.decide(client, Decision::clone(decision)),
                        None => self.decisions.push_back((client, Decision::clone(decision), None)),
                    }
                }
                Effect::PublishBan(ban) => {
                    assert!(self.deciding.is_some(), "{ban:?} was not decided");
                    self.bans.push(ban.clone());
                }
                Effect::WithdrawBan(id) => self.bans.retain(|ban| ban.id != *id),
                Effect::CloseReplaced(id) => {
                    let connection = self.connections.get_mut(id).expect("it is open");
                    (connection.is_replaced, connection.is_guest) = (true, false);
                    connection.place = None;
                    connection.to_client.push_back(json!({"type": "replaced"}));
                }
                Effect::LeaveAway(_, name) => {
                    let client = self.clients.iter().find(|client| *client.name == **name).expect("a client");
                    let place = client.place.expect("it had one");
                    if self.deciding.is_some() {
                        self.seen.insert("a member was removed while away");
                    }
                    self.end_place(place);
                    undelivered += self.end_unread(place);
                }
                Effect::Send(audience, message) => self.send(from, audience, message),
                Effect::Keep(entry) => self.disk.as_mut().expect("it has a disk").keep(entry),
                Effect::ReadOlder(id, request) => self.reads.push_back((*id, request.clone())),
                Effect::ListChanged(_)
                | Effect::OpenSession(..)
                | Effect::CloseSession(_)
                | Effect::Record(_)
                | Effect::PublishModerators(_)
                | Effect::Moderated(_) => {}
            }
        }
        let is_report = |effect: &&Effect| matches!(effect, Effect::Send(_, ServerMessage::Error { content, .. }) if content.contains("without receiving"));
        assert_eq!(effects.iter().filter(is_report).count(), undelivered, "{effects:?}");
    }

    fn end_place(&mut self, place: usize) {
        self.sessions.retain(|_, other| *other != place);
        self.holders.remove(&place);
    }

    /// Ends a place while it is away. Returns how many members are told that it has not received their whispers; those
    /// that are away are told when they resume.
    fn end_unread(&mut self, place: usize) -> usize {
        let unread = self.unread.remove(&place).expect("it was away");
        let authors = unread.iter().map(|id| {
            let said = self.said.iter().find(|said| said.id == *id).expect("it was said");
            said.between.expect("a whisper")[0]
        });
        let mut told = 0;
        for author in authors.collect::<BTreeSet<usize>>() {
            if self.unread.contains_key(&author) {
                *self.reports.entry(author).or_default() += 1;
            } else {
                told += usize::from(self.connections.values().any(|it| it.place == Some(author)));
            }
        }
        told
    }

    fn send(&mut self, from: Option<ConnectionId>, audience: &Audience, message: &ServerMessage) {
        let mut json = Vec::new();
        message.encode("12:00:00", &mut json);
        let value: Value = serde_json::from_slice(&json).expect("the server sends JSON");
        if matches!(message, ServerMessage::Kept(_)) {
            self.record_said(from, &value);
        }
        if value["type"] == "history" {
            for id in ids(&value["messages"]) {
                let is_deleted = self.said.iter().any(|said| said.id == id && said.deleted.is_some());
                assert!(!is_deleted, "{id} was deleted: {value}");
            }
        }
        if let (Some(session), Audience::One(id)) = (value["session"].as_str(), audience) {
            self.sessions.insert(session.to_owned(), self.connections[id].place.expect("a member"));
        }
        for (&id, connection) in &mut self.connections {
            let is_recipient = match audience {
                Audience::All => connection.place.is_some(),
                Audience::AllExcept(other) => connection.place.is_some() && id != *other,
                Audience::One(one) => id == *one,
                Audience::Only(ids) => ids.contains(&id),
            };
            let is_closed = connection.is_replaced || connection.is_removed;
            assert!(!(is_recipient && is_closed), "a closed connection gets {value}");
            if is_recipient && !connection.is_closed {
                connection.to_client.push_back(value.clone());
            }
        }
    }

    fn record_said(&mut self, from: Option<ConnectionId>, message: &Value) {
        let id = message["id"].as_u64().expect("an id");
        assert_eq!(id, self.last_entry);
        if self.said.last().is_some_and(|said| said.id == id) {
            // The other copy of a whisper.
            return;
        }
        let author = match &self.deciding {
            Some((client, _)) => *client,
            None => self.connections[&from.expect("somebody has caused it")].client,
        };
        let txn_id = self.deciding.as_ref().and_then(|(_, decision)| decision.txn_id.as_ref());
        let txn_id = txn_id.map(|txn_id| json!(txn_id).as_str().expect("a string").to_owned());
        let place_of = |name: &Value| {
            let client = self.clients.iter().find(|client| *name == client.name).expect("a client");
            client.place.expect("a member")
        };
        let between =
            (message["type"] == "private").then(|| [place_of(&message["from"]), place_of(&message["to"])]);
        let is_system = message["type"] == "system";
        let content = message["content"].as_str().expect("a text").to_owned();
        self.said.push(Said { id, author, is_system, txn_id, between, content, deleted: None });
        if let Some(waiting) = between.and_then(|[_, to]| self.unread.get_mut(&to)) {
            waiting.push(id);
        }
    }

    fn receive(&mut self, at: usize, message: &Value) {
        let client = &mut self.clients[at];
        let kind = message["type"].as_str().expect("a type");
        assert!(
            client.asks || !matches!(kind, "ack" | "history" | "deleted"),
            "{message} for a client that did not ask"
        );
        match kind {
            "replaced" => {
                // Only the newest connection is read.
                panic!("the client's own newest connection was replaced");
            }
            "removed" => {
                let id = client.lose_connection().expect("it was connected");
                client.session = None;
                self.disconnect(id, Departure::Lost);
            }
            "user_list" => {
                let users = message["content"].as_array().expect("a list");
                client.users =
                    users.iter().map(|user| user["username"].as_str().expect("a name").to_owned()).collect();
                let names: BTreeSet<String> = client.users.iter().map(|name| name.to_lowercase()).collect();
                assert_eq!(names.len(), users.len(), "names are unique: {users:?}");
                client.is_joined |= !client.asks;
            }
            "ack" => self.receive_ack(at, message),
            "history" if message["session"].is_string() => self.receive_answer(at, message),
            "history" => {
                client.shown.extend(ids(&message["messages"]));
                self.check_messages(at, &message["messages"], 0, u64::MAX);
            }
            "deleted" => {
                let was_shown = client.shown.remove(&message["id"].as_u64().expect("an id"));
                if was_shown && !client.is_joined {
                    self.seen.insert("a client has missed a deletion");
                }
            }
            "error" => {
                let content = message["content"].as_str().expect("a text");
                if let Some(txn_id) = message["txn_id"].as_str() {
                    client.set_state(txn_id, State::Refused);
                } else if !client.is_joined && content.contains("is in use") {
                    // It tries again later, on another connection.
                    let id = client.lose_connection().expect("it was connected");
                    client.session = None;
                    self.disconnect(id, Departure::Left);
                }
            }
            "public" | "private" | "system" if message["id"].is_u64() => self.receive_said(at, message),
            _ => {}
        }
    }

    /// What arrives live is the next message that the client should hear.
    fn receive_said(&mut self, at: usize, message: &Value) {
        let client = &mut self.clients[at];
        let id = message["id"].as_u64().expect("an id");
        if let Some(txn_id) = message["txn_id"].as_str() {
            client.set_state(txn_id, State::Arrived);
        }
        let (after, place) = (client.last_id, client.place.expect("a member"));
        if client.asks {
            let next = self.said.iter().find(|said| {
                let is_echoed = said.author != at || said.is_system || said.between.is_some();
                said.id > after && said.is_visible_to(place) && is_echoed
            });
            let next = next.map(|said| said.id);
            assert!(next == Some(id), "after {after} comes {next:?}, not {message}");
        }
        self.check_content(id, message);
        let client = &mut self.clients[at];
        client.last_id = client.last_id.max(id);
        client.shown.insert(id);
    }

    fn receive_ack(&mut self, at: usize, ack: &Value) {
        let id = ack["id"].as_u64().expect("an id");
        let txn_id = ack["txn_id"].as_str().expect("a txn_id");
        let client = &mut self.clients[at];
        // It follows what it acknowledges, which has the same id.
        assert!(id >= client.last_id, "{ack} is out of order");
        let place = client.place.expect("a member");
        let missed = self.said.iter().find(|said| {
            let is_echoed = said.author != at || said.is_system || said.between.is_some();
            said.id > client.last_id && said.id <= id && said.is_visible_to(place) && is_echoed
        });
        assert!(missed.is_none(), "{missed:?} comes before {ack}");
        client.last_id = id;
        client.shown.insert(id);
        client.set_state(txn_id, State::Arrived);
        if let Some(said) = self.said.iter().find(|said| said.id == id && said.author == at) {
            assert_eq!(said.txn_id.as_deref(), Some(txn_id), "{ack}");
        }
    }

    /// The answer to a join: everything that the client has missed, or the news that something is missing.
    fn receive_answer(&mut self, at: usize, answer: &Value) {
        let (id, epoch) =
            (answer["id"].as_u64().expect("an id"), answer["epoch"].as_str().expect("an epoch"));
        let client = &self.clients[at];
        let place = client.place.expect("a member");
        let is_same_epoch = client.epoch.as_deref() == Some(epoch);
        let since = client.last_id;
        match answer["recovered"].as_bool() {
            Some(true) => {
                assert!(is_same_epoch, "{answer} recovers another epoch");
                self.check_messages(at, &answer["messages"], since, id);
            }
            Some(false) => {
                let is_heard = |said: &&Said| said.id > since && said.id < id && said.is_visible_to(place);
                let missed = self.said.iter().filter(is_heard).count();
                let kept_from = self.said.len().saturating_sub(self.history_messages);
                let is_evicted = self.said[..kept_from].last().is_some_and(|said| said.id > since);
                let is_justified = !is_same_epoch
                    || is_evicted
                    || missed > MAX_PAGE_MESSAGES.into()
                    || client.session.as_deref() != answer["session"].as_str();
                assert!(is_justified, "everything since {since} is kept: {answer}");
                self.check_messages(at, &answer["messages"], 0, id);
            }
            None => self.check_messages(at, &answer["messages"], 0, id),
        }
        let ids: Vec<u64> = ids(&answer["messages"]);
        for unread in &self.connections[&client.connection.expect("it is connected")].unread {
            assert!(ids.contains(unread), "{unread} was whispered meanwhile: {answer}");
        }
        if !is_same_epoch {
            self.clients[at].shown.clear();
        }
        self.clients[at].shown.extend(ids);
        let resend = self.clients[at].on_answer(answer, is_same_epoch);
        for message in resend {
            self.clients[at].send(&mut self.connections, message);
        }
    }

    /// Whether these are the newest of the messages after `since` and before `end` that the client may see, without a
    /// gap if `since` is given.
    fn check_messages(&self, at: usize, messages: &Value, since: u64, end: u64) {
        let place = self.clients[at].place.expect("a member");
        let ids = ids(messages);
        assert!(ids.is_sorted_by(|a, b| a < b), "{messages}");
        for message in messages.as_array().expect("an array") {
            let id = message["id"].as_u64().expect("an id");
            self.check_content(id, message);
            let said = self.said.iter().find(|said| said.id == id).expect("it was said");
            assert!(id > since && id < end && said.is_visible_to(place), "{message} is not for this client");
            let txn_id = message["txn_id"].as_str();
            let is_own = said.author == at && !said.is_system;
            assert_eq!(txn_id, said.txn_id.as_deref().filter(|_| is_own), "{message}");
        }
        if since > 0 {
            let is_expected = |said: &&Said| {
                let is_kept = said.deleted.is_none_or(|entry| entry > end);
                said.id > since && said.id < end && said.is_visible_to(place) && is_kept
            };
            let expected: Vec<u64> = self.said.iter().filter(is_expected).map(|said| said.id).collect();
            assert_eq!(ids, expected, "after {since}");
        }
    }

    fn check_content(&self, id: u64, message: &Value) {
        let said = self.said.iter().find(|said| said.id == id).expect("it was said");
        assert_eq!(message["content"], said.content);
    }

    fn check_bounds(&self) {
        let history = self.room.history();
        assert!(history.len() <= self.history_messages && history.bytes() <= MAX_HISTORY_BYTES);
        assert!(self.room.away_members() <= MAX_AWAY);
        let members = self.connections.values().filter(|it| it.place.is_some()).count();
        assert_eq!(self.room.members(), members + self.room.away_members());
        let guests = self.connections.values().filter(|it| it.is_guest).count();
        assert_eq!(self.guests.len(), guests);
        assert!(self.room.closed() <= self.connections.len());
        assert!(self.said.is_sorted_by(|a, b| a.id < b.id), "ids grow");
    }

    /// Every client comes back, and everything arrives.
    fn settle(&mut self, random: &mut Random) {
        for round in 0.. {
            assert!(round < 100, "it never ends");
            self.elapsed += Duration::from_secs(8);
            self.expire();
            for id in self.connections.keys().copied().collect::<Vec<_>>() {
                if self.is_lost(id, &self.connections[&id]) {
                    self.disconnect(id, Departure::Lost);
                }
            }
            (0..self.clients.len()).for_each(|at| self.connect(at, random));
            loop {
                while !self.reads.is_empty() || self.disk.as_ref().is_some_and(Disk::has_decisions) {
                    self.store(random);
                }
                while !self.decisions.is_empty() {
                    self.decide(random);
                }
                while self.connections.values().any(|it| !it.to_server.is_empty()) {
                    self.deliver_to_server(random);
                }
                if self.connections.values().all(|it| it.to_client.is_empty()) {
                    break;
                }
                self.deliver_to_client(random);
            }
            let is_quiet = self.room.next_deadline().is_none() && self.lists.next_deadline().is_none();
            let is_settled = self.decisions.is_empty() && is_quiet;
            if self.clients.iter().all(|client| client.is_joined) && is_settled {
                break;
            }
        }
    }

    fn check_end(&self) {
        for (at, client) in self.clients.iter().enumerate() {
            let names: BTreeSet<&String> = client.users.iter().collect();
            let all: BTreeSet<&String> = self.clients.iter().map(|client| &client.name).collect();
            assert_eq!(names, all, "the last list of {}", client.name);
            for (id, between) in self.deleted.iter().filter(|_| client.asks) {
                let may_know =
                    between.is_none_or(|places| client.place.is_some_and(|own| places.contains(&own)));
                let is_shown = client.shown.contains(id);
                assert!(!(may_know && is_shown), "{} still displays {id}, which was deleted", client.name);
            }
            for sent in client.outbox.iter().filter(|_| client.asks) {
                let copies = self
                    .said
                    .iter()
                    .filter(|said| said.author == at && said.txn_id.as_deref() == Some(&sent.txn_id))
                    // Its author may not have learned that it arrived.
                    .filter(|said| said.deleted.is_none());
                let copies = copies.count();
                assert!(copies <= 1, "{} arrived {copies} times", sent.message);
                if sent.is_resent {
                    assert_ne!(sent.state, State::Waiting, "{} is lost", sent.message);
                }
            }
        }
    }

    /// The same entries give the same effects and the same state. Several servers, which get the entries as bytes and
    /// may start from a snapshot at any time, each get their part of the effects.
    fn replay(&self) {
        let state = self.room.snapshot().encode(Format::NEWEST);
        let mut random = Random(self.last_entry);
        for viewer in [NodeNumber::LOCAL, node(1), node(2)] {
            let mut room = room(self.history_messages, self.epoch, &self.base);
            for (applied, effects) in &self.record {
                let mut expected = effects.clone();
                expected.retain_mut(|effect| effect.is_for(viewer));
                let effects = match viewer {
                    NodeNumber::LOCAL => apply(&mut room, applied, viewer),
                    _ => apply(&mut room, &transmitted(applied), viewer),
                };
                assert_eq!(effects, expected, "{applied:?} on {viewer:?}");
                if viewer == node(2) && random.one_in(SNAPSHOT_INTERVAL) {
                    room = restored(&room);
                }
            }
            assert_eq!(room.snapshot().encode(Format::NEWEST), state, "the state on {viewer:?}");
        }
    }
}

impl Client {
    fn new(number: u64, asks: bool) -> Self {
        Self {
            name: ["Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal"][number as usize].to_owned(),
            asks,
            connection: None,
            is_joined: false,
            has_logged_in: false,
            session: None,
            epoch: None,
            place: None,
            last_id: 0,
            shown: BTreeSet::new(),
            users: Vec::new(),
            outbox: Vec::new(),
            next_txn: 0,
        }
    }

    fn join(&self, random: &mut Random) -> Value {
        let mut join = json!({"type": "join", "username": self.name});
        if self.asks {
            if let Some(session) = &self.session {
                join["session"] = json!(session);
            }
            match &self.epoch {
                Some(epoch) => (join["epoch"], join["since"]) = (json!(epoch), json!(self.last_id)),
                None => join["history"] = json!(random.below(20)),
            }
        }
        join
    }

    /// Forgets the connection, and returns it.
    fn lose_connection(&mut self) -> Option<ConnectionId> {
        (self.is_joined, self.has_logged_in) = (false, false);
        self.connection.take()
    }

    /// Sends a message with a new `txn_id`, now or after the next join.
    fn say(
        &mut self,
        connections: &mut BTreeMap<ConnectionId, Connection>,
        mut message: Value,
        is_resent: bool,
    ) {
        if self.asks {
            let txn_id = format!("{}-{}", self.name, self.next_txn);
            message["txn_id"] = json!(txn_id);
            let sent = Sent { txn_id, message: message.clone(), state: State::Waiting, is_resent };
            if is_resent || self.is_joined {
                self.outbox.push(sent);
            }
        }
        self.next_txn += 1;
        if self.is_joined {
            self.send(connections, message);
        }
    }

    fn send(&self, connections: &mut BTreeMap<ConnectionId, Connection>, message: Value) {
        if let Some(connection) = self.connection.and_then(|id| connections.get_mut(&id)) {
            connection.to_server.push_back(message);
        }
    }

    fn set_state(&mut self, txn_id: &str, state: State) {
        for sent in self.outbox.iter_mut().filter(|sent| sent.txn_id == txn_id) {
            assert_ne!((sent.state, state), (State::Arrived, State::Refused), "{}", sent.message);
            sent.state = state;
        }
    }

    /// Takes over the answer, and returns what has to be sent again: exactly what is not there.
    fn on_answer(&mut self, answer: &Value, is_same_epoch: bool) -> Vec<Value> {
        for message in answer["messages"].as_array().expect("an array") {
            if let Some(txn_id) = message["txn_id"].as_str() {
                self.set_state(txn_id, State::Arrived);
            }
        }
        let is_unknown = is_same_epoch && answer["recovered"] == false;
        let mut resend = Vec::new();
        for sent in self.outbox.iter_mut().filter(|sent| sent.state == State::Waiting) {
            match sent.is_resent {
                true if is_unknown => sent.state = State::Unknown,
                true => resend.push(sent.message.clone()),
                false => sent.state = State::Unknown,
            }
        }
        self.is_joined = true;
        self.last_id = answer["id"].as_u64().expect("an id");
        self.epoch = answer["epoch"].as_str().map(str::to_owned);
        self.session = answer["session"].as_str().map(str::to_owned);
        resend
    }
}

impl Said {
    fn is_visible_to(&self, place: usize) -> bool {
        self.between.is_none_or(|places| places.contains(&place))
    }
}

fn ids(messages: &Value) -> Vec<u64> {
    let messages = messages.as_array().expect("an array");
    messages.iter().map(|message| message["id"].as_u64().expect("an id")).collect()
}

fn room(history_messages: usize, epoch: u64, base: &Base) -> Room {
    let time = entry_time(base.elapsed);
    let kept = base.kept.as_ref();
    let settings = RoomSettings {
        epoch: format!("epoch {epoch}").into(),
        history: HistoryLimits { messages: history_messages, age_millis: None },
        stored: kept.map(|kept| kept.history(history_messages.min(LOADED_MESSAGES), base.last_entry)),
        bans: kept.map(|kept| kept.bans(time.unix_millis)).unwrap_or_default(),
        time_outs: kept.map(|kept| kept.time_outs.clone()).unwrap_or_default(),
        away: AwayLimits {
            timeout: AWAY,
            members: MAX_AWAY,
            members_per_network: Some(MAX_AWAY_PER_NETWORK),
        },
        ..RoomSettings::default()
    };
    Room::new(settings, &time)
}

/// A decision of the store, as it waits to take effect.
fn decided((client, decision, outcome): (usize, Decision, Outcome)) -> (usize, Decision, Option<Outcome>) {
    (client, decision, Some(outcome))
}

fn entry_time(elapsed: Duration) -> EntryTime {
    let unix_millis = 1_800_000_000_000 + elapsed.as_millis() as u64;
    let (timestamp, utc) = ("12:00:00".into(), format!("{unix_millis}"));
    EntryTime { chat: ChatTime(0) + elapsed, unix_millis, timestamp, utc }
}

fn node(number: u32) -> NodeNumber {
    NodeNumber::new(number).expect("a small number")
}

/// An entry as another server gets it.
fn transmitted(applied: &Applied) -> Applied {
    let Applied { id, ref time, from, ref input } = *applied;
    let submission = Submission { from, offset_seconds: 0, input: input.clone() };
    match submission.encode(Format::NEWEST) {
        Ok(bytes) => {
            let Submission { from, input, .. } = Submission::decode(&bytes).expect("it was just encoded");
            Applied { id, time: time.clone(), from, input }
        }
        Err(error) => {
            assert!(matches!(input, Input::Older(..)), "{input:?}: {error}");
            applied.clone()
        }
    }
}

/// The room of another server that starts from a snapshot.
fn restored(room: &Room) -> Room {
    let bytes = room.snapshot().encode(Format::NEWEST).expect("all messages are text");
    let snapshot = Snapshot::decode(&bytes).expect("it was just encoded");
    Room::from_snapshot(snapshot).expect("it is the state of a room")
}

fn apply(room: &mut Room, applied: &Applied, viewer: NodeNumber) -> Vec<Effect> {
    let Applied { id, time, from, input } = applied;
    room.apply(Entry { id: *id, time, from: *from, input: input.clone() }, viewer)
}
