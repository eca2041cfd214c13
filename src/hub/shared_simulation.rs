//! A simulation of several servers with one chat, over a log that delays, repeats and loses (CONTRIBUTING.md).
//!
//! The engine and the threads that talk to it are a model (`cluster/model/`). The order, the room and the bytes of
//! entries and snapshots are real. A seed decides every step: what arrives when, which connections break before or after
//! the engine has handled a call, which servers stop, and what a restart of the engine loses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use super::*;
use crate::chat::{
    Address, AwayLimits, ClientMessage, EntryTime, Guests, HistoryLimits, JoinSecrets, Random, RoomSettings,
    SessionSecret, simulate_seeds,
};
use crate::cluster::model::{Engine, Threads};
use crate::cluster::{Event as ThreadEvent, OwnState, Rank};

/// How many seeds `cargo test` runs, unless `SIMULATION_SEEDS` says otherwise.
const SEEDS: u64 = 80;
const MAX_STEPS: u64 = 2500;
const MAX_SERVERS: u64 = 4;
const MAX_CLIENTS: u64 = 5;
/// How long members may be away.
const AWAY: Duration = Duration::from_secs(20);
/// Rooms are compared after each entry whose id is a multiple of this: comparing takes most of the time.
const COMPARED: u64 = 10;
/// Once nothing fails any more, everything has arrived after this many rounds.
const MAX_ROUNDS: usize = 2000;

#[test]
fn servers_agree_for_every_seed() {
    let expected = [
        "a line was repeated by its client",
        "a server continued from a snapshot",
        "a server filled the engine",
        "a server was ended by the others",
        "a server was killed",
        "an acknowledged line was lost",
        "clients stayed while the engine was filled",
        "the engine was restarted and had lost a part",
        "the engine was restarted and had lost nothing",
        "the engine lost everything",
    ];
    simulate_seeds(SEEDS, simulate, "--features cluster --lib shared::simulation", &expected);
}

/// Returns which rare events have occurred.
fn simulate(seed: u64) -> BTreeSet<&'static str> {
    let mut world = World::new(Random(seed));
    for _ in 0..world.random.below(MAX_STEPS) {
        world.step();
    }
    world.settle();
    world.check_end();
    world.seen
}

struct World {
    random: Random,
    engine: Engine,
    servers: Vec<Server>,
    clients: Vec<Client>,
    /// How many servers have been started.
    started: usize,
    /// The entry that an id of an epoch denotes.
    entries: BTreeMap<(String, u64), EntryKey>,
    /// The state of the room after some of the entries.
    rooms: BTreeMap<(String, EntryKey), Vec<u8>>,
    acknowledged: Vec<Line>,
    seen: BTreeSet<&'static str>,
}

/// The id, the time, the node and its sequence number.
type EntryKey = (u64, u64, u32, u64);

/// A line that a client said, and that was acknowledged.
struct Line {
    client: usize,
    number: u64,
    id: u64,
    /// How many decisions about the chat there had been.
    decisions: usize,
}

struct Server {
    threads: Threads,
    /// It does nothing until then, in the engine's milliseconds.
    stopped_until: u64,
    hub: Option<HubState>,
}

/// What the hub has.
struct HubState {
    order: SharedOrder,
    room: Room,
    guests: Guests,
    is_current: Receiver<()>,
    is_ready: bool,
    last_connection: u64,
    /// With their clients.
    connections: BTreeMap<ConnectionId, usize>,
    /// Those of members.
    members: BTreeSet<ConnectionId>,
    /// Those that were closed, and whose threads have not ended.
    closing: BTreeSet<ConnectionId>,
}

/// What a server does to a client.
enum Out {
    Send(usize, ConnectionId, Value),
    Close(usize, ConnectionId),
}

/// A client that follows docs/protocol.md.
struct Client {
    name: &'static str,
    /// The number of its server, and its connection there.
    connection: Option<(usize, ConnectionId)>,
    is_joined: bool,
    session: Option<String>,
    epoch: Option<String>,
    last_id: u64,
    lines: Vec<State>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    Arrived,
    /// The answer to the last join had a gap.
    Unknown,
}

impl World {
    fn new(mut random: Random) -> Self {
        // Two clients want the same name.
        let names = ["Ann", "Bob", "ann", "Cid", "Dan"];
        let clients =
            names[..2 + random.below(MAX_CLIENTS - 1) as usize].iter().map(|name| Client::new(name));
        let clients = clients.collect();
        let mut world = Self {
            engine: Engine::new(1_800_000_000_000),
            servers: Vec::new(),
            clients,
            started: 0,
            entries: BTreeMap::new(),
            rooms: BTreeMap::new(),
            acknowledged: Vec::new(),
            seen: BTreeSet::new(),
            random,
        };
        for _ in 0..2 + world.random.below(MAX_SERVERS - 1) {
            world.start_server();
        }
        world
    }

    fn step(&mut self) {
        let server = self.random.below(self.servers.len() as u64) as usize;
        let client = self.random.below(self.clients.len() as u64) as usize;
        let is_running = self.servers[server].stopped_until <= self.engine.now;
        match self.random.below(1000) {
            0..350 if is_running => self.step_threads(server),
            350..600 => {
                let chosen = self.random.next();
                self.engine.handle(chosen);
            }
            600..760 if is_running => self.step_hub(server),
            760..820 => self.talk(client),
            820..860 => self.connect(client),
            860..872 => self.lose(client),
            872..972 => self.pass_time(),
            972..984 => {
                let (arrives, only_writer) = (self.random.one_in(2), self.random.one_in(2));
                let threads = &mut self.servers[server].threads;
                if only_writer {
                    threads.cut_writer(&mut self.engine, arrives);
                } else {
                    threads.cut(&mut self.engine, arrives);
                }
            }
            984..987 => self.servers[server].stopped_until = self.engine.now + self.random.below(20_000),
            987..990 => self.kill(server),
            990..993 => self.leave(server),
            993..996 if (self.servers.len() as u64) < MAX_SERVERS => self.start_server(),
            996 => self.restart_engine(),
            997 if self.random.one_in(2) => {
                self.engine.flush();
                self.seen.insert("the engine lost everything");
            }
            _ => {}
        }
        if self.servers.is_empty() {
            self.start_server();
        }
    }

    fn step_threads(&mut self, at: usize) {
        let reads = self.random.one_in(2);
        let server = &mut self.servers[at];
        server.threads.step(&mut self.engine, reads);
        if let Some((joined, log)) = server.threads.started() {
            server.hub = Some(HubState::new(&joined, log));
        }
    }

    /// The hub handles the next event.
    fn step_hub(&mut self, at: usize) {
        let Server { threads, hub: Some(hub), .. } = &mut self.servers[at] else { return };
        if (threads.events.is_empty() || self.random.one_in(2))
            && let Some(id) = hub.closing.pop_first()
        {
            return hub.disconnected(id);
        }
        let Some(event) = threads.events.pop_front() else { return };
        let mut out = Vec::new();
        match event {
            ThreadEvent::Entries(entries) => {
                for entry in entries {
                    let origin = entry.origin();
                    let entry_key = (entry.id, entry.time, origin.node.into(), origin.sequence);
                    hub.entry(SharedEntry::decode(entry).expect("a server has encoded it"), &mut out);
                    let key = (hub.room.epoch().to_string(), entry_key.0);
                    let known = *self.entries.entry(key).or_insert(entry_key);
                    assert!(known == entry_key, "an id of an epoch denotes {known:?} and {entry_key:?}");
                    if entry_key.0 % COMPARED == 0 {
                        let state =
                            hub.room.snapshot().encode(Format::NEWEST).expect("all messages are text");
                        let key = (hub.room.epoch().to_string(), entry_key);
                        let known = self.rooms.entry(key).or_insert_with(|| state.clone());
                        assert!(*known == state, "rooms differ after {entry_key:?}");
                    }
                }
            }
            ThreadEvent::OfferDue => {
                let chat = hub.room.snapshot().encode(Format::NEWEST).expect("all messages are text");
                threads.offer(hub.order.log.position().1, chat);
            }
            ThreadEvent::SnapshotDue => {
                let chat = hub.room.snapshot().encode(Format::NEWEST).expect("all messages are text");
                let (epoch, applied) = hub.order.log.position();
                threads.snapshot(epoch, applied, &chat);
            }
            ThreadEvent::Fenced => {
                self.seen.insert("a server was ended by the others");
                hub.drop_clients(&mut out);
                hub.order.phase = Phase::Fenced;
            }
            ThreadEvent::Joined(joined) => {
                let state =
                    joined.state.as_ref().map(|state| Snapshot::decode(&state.chat).expect("a snapshot"));
                let is_new_epoch = *joined.epoch != *hub.room.epoch();
                if state.is_some() {
                    self.seen.insert("a server continued from a snapshot");
                } else if is_new_epoch {
                    self.seen.insert("a server filled the engine");
                }
                let had_members = !hub.members.is_empty();
                hub.joined_again(&joined, state, &mut out);
                if is_new_epoch && had_members && !hub.members.is_empty() {
                    self.seen.insert("clients stayed while the engine was filled");
                }
            }
            ThreadEvent::Left(_) => return self.end(at),
            ThreadEvent::HistoryDue
            | ThreadEvent::Unavailable
            | ThreadEvent::Available
            | ThreadEvent::Format(_)
            | ThreadEvent::Unusable(_) => {}
        }
        if let Some(hub) = &mut self.servers[at].hub {
            hub.is_ready |= hub.is_current.try_recv().is_ok();
            let deadline = hub.room.next_deadline();
            hub.order.request_tick(deadline);
        }
        self.deliver(out);
    }

    fn deliver(&mut self, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Send(client, connection, message) => self.receive(client, connection, &message),
                Out::Close(client, connection) => {
                    let client = &mut self.clients[client];
                    if client.connection.is_some_and(|(_, own)| own == connection) {
                        client.lose_connection();
                    }
                }
            }
        }
    }

    fn talk(&mut self, at: usize) {
        self.clients[at].lines.push(State::Waiting);
        let number = self.clients[at].lines.len() - 1;
        if self.clients[at].is_joined {
            self.say(at, number);
        }
    }

    fn say(&mut self, at: usize, number: usize) {
        let text = format!("{at} {number}");
        self.send(at, &json!({"type": "public", "content": text, "txn_id": text}));
    }

    /// The client connects to a server that has joined, and joins.
    fn connect(&mut self, at: usize) {
        let is_ready = |(number, server): (usize, &Server)| {
            let hub = server.hub.as_ref()?;
            (hub.is_ready && hub.order.phase == Phase::Joined).then_some(number)
        };
        let ready: Vec<usize> = self.servers.iter().enumerate().filter_map(is_ready).collect();
        if self.clients[at].connection.is_some() || ready.is_empty() {
            return;
        }
        // Servers do not open connections at the same time.
        self.engine.now += 1;
        let server = *self.random.pick(&ready);
        let Some(hub) = &mut self.servers[server].hub else { return };
        hub.last_connection += 1;
        let id = ConnectionId::new(hub.order.node(), hub.last_connection);
        hub.connections.insert(id, at);
        hub.guests.connected(id, address(at), ChatTime(self.engine.now));
        let client = &mut self.clients[at];
        client.connection = Some((server, id));
        let join = client.join();
        self.send(at, &join);
    }

    /// The server reads a message of this client at once.
    fn send(&mut self, at: usize, message: &Value) {
        let Some((server, id)) = self.clients[at].connection else { return };
        let Some(hub) = &mut self.servers[server].hub else { return };
        let (message, attempts) = ClientMessage::parse_with_secrets(&message.to_string());
        let new = SessionSecret::new((u128::from(self.random.next()) << 64 | 1).to_be_bytes());
        let secrets = JoinSecrets { sent: attempts.session, new: Some(new) };
        let access = attempts.compare("secret");
        let guest = hub.guests.guest(id, false);
        let input = Input::Message { message, access, session: Some(new.digest()), guest };
        hub.input(id, input, Own { secrets, admission: None });
    }

    /// The connection of a client is lost.
    fn lose(&mut self, at: usize) {
        let Some((server, id)) = self.clients[at].lose_connection() else { return };
        if let Some(hub) = &mut self.servers[server].hub {
            hub.disconnected(id);
        }
    }

    fn receive(&mut self, at: usize, connection: ConnectionId, message: &Value) {
        let decisions = self.engine.decisions.len();
        let client = &mut self.clients[at];
        if client.connection.is_none_or(|(_, own)| own != connection) {
            return;
        }
        let mut arrived = |client: &mut Client, message: &Value| {
            let Some(txn_id) = message["txn_id"].as_str() else { return };
            let (author, number) = txn_id.split_once(' ').expect("as it was sent");
            // Another client had the name before.
            if author != at.to_string() {
                return;
            }
            let number: usize = number.parse().expect("a number");
            client.lines[number] = State::Arrived;
            let id = message["id"].as_u64().expect("an id");
            self.acknowledged.push(Line { client: at, number: number as u64, id, decisions });
        };
        match message["type"].as_str().expect("a type") {
            "ack" => {
                arrived(client, message);
                client.follow(message);
            }
            "history" => {
                for message in message["messages"].as_array().expect("an array") {
                    arrived(client, message);
                }
                for number in client.on_answer(message) {
                    self.seen.insert("a line was repeated by its client");
                    self.say(at, number);
                }
            }
            "error" if !client.is_joined => {
                assert!(message["content"].as_str().expect("a text").contains("is in use"), "{message}");
                client.session = None;
                self.lose(at);
            }
            "error" => panic!("{message}"),
            _ if message["id"].is_u64() => client.follow(message),
            _ => {}
        }
    }

    fn pass_time(&mut self) {
        let most = *self.random.pick(&[20, 200, 200, 200, 1000, 1000, 5000]);
        self.engine.now += self.random.below(most) + 1;
    }

    fn start_server(&mut self) {
        let chat = empty_room().snapshot().encode(Format::NEWEST).expect("it is empty");
        let threads = Threads::start(self.started, OwnState { rank: Rank::Nothing, chat });
        self.started += 1;
        let server = Server { threads, stopped_until: 0, hub: None };
        self.servers.push(server);
    }

    /// A server is killed. What it has sent may still arrive.
    fn kill(&mut self, at: usize) {
        let arrives = self.random.one_in(2);
        self.servers[at].threads.cut(&mut self.engine, arrives);
        self.seen.insert("a server was killed");
        self.end(at);
    }

    fn leave(&mut self, at: usize) {
        if let Some(hub) = &mut self.servers[at].hub
            && hub.order.phase == Phase::Joined
        {
            hub.order.log.leave();
            hub.order.phase = Phase::Leaving;
        }
    }

    fn end(&mut self, at: usize) {
        self.servers.remove(at);
        for client in &mut self.clients {
            match &mut client.connection {
                Some((server, _)) if *server == at => drop(client.lose_connection()),
                Some((server, _)) if *server > at => *server -= 1,
                _ => {}
            }
        }
    }

    fn restart_engine(&mut self) {
        let steps_back = *self.random.pick(&[0, 0, 1, 2, 5]);
        let losses = self.engine.losses;
        self.engine.restart(steps_back);
        self.seen.insert(if self.engine.losses > losses {
            "the engine was restarted and had lost a part"
        } else {
            "the engine was restarted and had lost nothing"
        });
    }

    /// Nothing fails any more: everything arrives.
    fn settle(&mut self) {
        self.servers.iter_mut().for_each(|server| server.stopped_until = 0);
        for _ in 0..MAX_ROUNDS {
            self.engine.now += 50;
            for _ in 0..8 {
                (0..self.servers.len()).for_each(|server| self.step_threads(server));
                while self.engine.has_requests() {
                    self.engine.handle(0);
                }
            }
            for server in (0..self.servers.len()).rev() {
                while self.servers.get(server).is_some_and(Server::has_events) {
                    let count = self.servers.len();
                    self.step_hub(server);
                    if self.servers.len() < count {
                        break;
                    }
                }
            }
            if self.servers.is_empty() {
                self.start_server();
            }
            for client in 0..self.clients.len() {
                if self.owners(self.clients[client].name) == 0 {
                    self.connect(client);
                }
            }
            if self.is_settled() {
                return;
            }
        }
        panic!("it never ends");
    }

    fn is_settled(&self) -> bool {
        let is_quiet = |server: &Server| {
            server.threads.is_quiet(&self.engine)
                && !server.has_events()
                && server.hub.as_ref().is_some_and(|hub| hub.is_ready && hub.room.next_deadline().is_none())
        };
        let is_done =
            |client: &Client| !client.is_joined || client.lines.iter().all(|line| *line != State::Waiting);
        self.servers.iter().all(is_quiet)
            && self.clients.iter().all(|client| self.owners(client.name) > 0 && is_done(client))
    }

    /// How many clients have joined with this name.
    fn owners(&self, name: &str) -> usize {
        let is_owner = |client: &&Client| client.is_joined && client.name.eq_ignore_ascii_case(name);
        self.clients.iter().filter(is_owner).count()
    }

    fn check_end(&mut self) {
        for (at, client) in self.clients.iter().enumerate() {
            assert_eq!(self.owners(client.name), 1, "the owners of {}", client.name);
            if let Some((server, id)) = client.connection {
                let hub = self.servers[server].hub.as_ref().expect("it has a client");
                assert_eq!(hub.connections.get(&id), Some(&at));
            }
        }
        let hubs: Vec<&HubState> = self.servers.iter().filter_map(|server| server.hub.as_ref()).collect();
        let states: BTreeSet<Vec<u8>> = hubs
            .iter()
            .map(|hub| hub.room.snapshot().encode(Format::NEWEST).expect("all messages are text"))
            .collect();
        assert_eq!(states.len(), 1, "all servers have the same room");
        let mut said: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for entry in hubs[0].room.kept_messages() {
            let message: Value = serde_json::from_slice(&entry.json).expect("the room encodes JSON");
            let content = message["content"].as_str().filter(|_| message["type"] == "public");
            let Some((client, number)) = content.and_then(|content| content.split_once(' ')) else {
                continue;
            };
            let (client, number): (usize, u64) =
                (client.parse().expect("as sent"), number.parse().expect("as sent"));
            assert_eq!(said.insert((client, number), entry.id), None, "{message} was said twice");
            let last = last.insert(client, number);
            assert!(last.is_none_or(|last| last < number), "{message} is out of order, after {last:?}");
        }
        for Line { client, number, id, decisions } in &self.acknowledged {
            if said.get(&(*client, *number)) == Some(id) {
                continue;
            }
            let later = &self.engine.decisions[*decisions..];
            assert!(
                self.engine.losses > 0,
                "{client} {number} with the id {id} is lost, and the engine has lost nothing"
            );
            assert!(
                later.iter().any(|newest| newest < id),
                "{client} {number} with the id {id} is lost: {later:?}"
            );
            self.seen.insert("an acknowledged line was lost");
        }
    }
}

impl Server {
    /// Whether the hub has something to do.
    fn has_events(&self) -> bool {
        self.hub.as_ref().is_some_and(|hub| !self.threads.events.is_empty() || !hub.closing.is_empty())
    }
}

impl HubState {
    fn new(joined: &Joined, log: SharedLog) -> Self {
        let mut room = match &joined.state {
            Some(state) => {
                let snapshot = Snapshot::decode(&state.chat).expect("a server has encoded it");
                Room::from_snapshot(snapshot).expect("it is the state of a room")
            }
            None => empty_room(),
        };
        room.continue_in(joined.epoch.as_str().into(), joined.id);
        let (ready, is_current) = crossbeam_channel::bounded(1);
        let order = SharedOrder::new(log, SharedHistory::new().0, joined, ready);
        Self {
            order,
            room,
            guests: Guests::default(),
            is_ready: is_current.try_recv().is_ok(),
            is_current,
            last_connection: 0,
            connections: BTreeMap::new(),
            members: BTreeSet::new(),
            closing: BTreeSet::new(),
        }
    }

    fn input(&mut self, from: ConnectionId, input: Input, own: Own) {
        if self.order.accepts(from) {
            self.order.append(from, 0, input, own);
        }
    }

    fn entry(&mut self, entry: SharedEntry, out: &mut Vec<Out>) {
        let (entry, Submission { from, input, .. }, own) = self.order.take(entry);
        let time = EntryTime {
            chat: ChatTime(entry.time),
            unix_millis: entry.time,
            timestamp: "12:00:00".into(),
            utc: entry.time.to_string(),
        };
        let node = self.order.node();
        let mut effects = self.room.apply(Entry { id: entry.id, time: &time, from, input }, node);
        own.secrets.complete(&mut effects, 16384);
        for effect in &effects {
            self.guests.follow(effect);
            match effect {
                Effect::Enter(id, _) | Effect::Resume(id, _) => drop(self.members.insert(*id)),
                Effect::Leave(id, _) | Effect::Away(id, _) => drop(self.members.remove(id)),
                Effect::Close(id, _) | Effect::CloseReplaced(id) => {
                    self.members.remove(id);
                    if let Some(client) = self.connections.get(id) {
                        out.push(Out::Close(*client, *id));
                        self.closing.insert(*id);
                    }
                }
                Effect::Send(audience, message) => self.send(audience, message, out),
                _ => {}
            }
        }
    }

    fn send(&self, audience: &Audience, message: &ServerMessage, out: &mut Vec<Out>) {
        let mut json = Vec::new();
        message.encode("12:00:00", &mut json);
        let value: Value = serde_json::from_slice(&json).expect("the server sends JSON");
        for (id, client) in &self.connections {
            let is_recipient = match audience {
                Audience::All => self.members.contains(id),
                Audience::AllExcept(other) => self.members.contains(id) && id != other,
                Audience::One(one) => id == one,
                Audience::Only(ids) => ids.contains(id),
            };
            if is_recipient {
                out.push(Out::Send(*client, *id, value.clone()));
            }
        }
    }

    fn disconnected(&mut self, id: ConnectionId) {
        self.members.remove(&id);
        self.closing.remove(&id);
        if self.connections.remove(&id).is_some() && self.guests.disconnected(id) {
            self.input(id, Input::Disconnected(Departure::Lost), Own::default());
        }
    }

    /// As [`Hub::joined_again`].
    fn joined_again(&mut self, joined: &Joined, state: Option<Snapshot>, out: &mut Vec<Out>) {
        let keeps_clients = self.order.adopt(joined, state.is_some());
        if let Some(snapshot) = state {
            self.room = Room::from_snapshot(snapshot).expect("it is the state of a room");
        }
        if !keeps_clients {
            self.drop_clients(out);
        }
        for id in self.room.connections_of(self.order.node()) {
            if !self.connections.contains_key(&id) {
                self.input(id, Input::Disconnected(Departure::Lost), Own::default());
            }
        }
        self.room.continue_in(joined.epoch.as_str().into(), self.order.last_id());
        self.order.joined_again(joined.log_id);
    }

    fn drop_clients(&mut self, out: &mut Vec<Out>) {
        self.members.clear();
        self.order.waiting.clear();
        for (&id, &client) in &self.connections {
            out.push(Out::Close(client, id));
            self.closing.insert(id);
        }
    }
}

impl Client {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            connection: None,
            is_joined: false,
            session: None,
            epoch: None,
            last_id: 0,
            lines: Vec::new(),
        }
    }

    fn join(&self) -> Value {
        let mut join = json!({"type": "join", "username": self.name});
        if let Some(session) = &self.session {
            join["session"] = json!(session);
        }
        match &self.epoch {
            Some(epoch) => (join["epoch"], join["since"]) = (json!(epoch), json!(self.last_id)),
            None => join["history"] = json!(5),
        }
        join
    }

    fn lose_connection(&mut self) -> Option<(usize, ConnectionId)> {
        self.is_joined = false;
        self.connection.take()
    }

    /// Ids of messages that arrive live grow.
    fn follow(&mut self, message: &Value) {
        let id = message["id"].as_u64().expect("an id");
        assert!(id >= self.last_id, "{message} comes after {}", self.last_id);
        self.last_id = id;
    }

    /// Takes over the answer to a join, and returns the lines that have to be said again: those that are not there.
    fn on_answer(&mut self, answer: &Value) -> Vec<usize> {
        let epoch = answer["epoch"].as_str().map(str::to_owned);
        let is_unknown = self.epoch == epoch && answer["recovered"] == false;
        if is_unknown {
            let waiting = self.lines.iter_mut().filter(|line| **line == State::Waiting);
            waiting.for_each(|line| *line = State::Unknown);
        }
        self.is_joined = true;
        self.last_id = answer["id"].as_u64().expect("an id");
        self.session = answer["session"].as_str().map(str::to_owned);
        self.epoch = epoch;
        let numbered = self.lines.iter().enumerate();
        numbered.filter(|(_, line)| **line == State::Waiting).map(|(number, _)| number).collect()
    }
}

fn address(client: usize) -> Address {
    Address { network: IpAddr::from([10, 0, 0, client as u8]).into(), is_exempt: true }
}

fn empty_room() -> Room {
    let settings = RoomSettings {
        history: HistoryLimits { messages: 10_000, age_millis: None },
        away: AwayLimits { timeout: AWAY, members: 100, members_per_network: None },
        ..RoomSettings::default()
    };
    let time =
        EntryTime { chat: ChatTime(0), unix_millis: 0, timestamp: "12:00:00".into(), utc: String::new() };
    Room::new(settings, &time)
}
