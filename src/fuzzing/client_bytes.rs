//! Bytes from several clients, through their links into one room, and from there back to them.
//!
//! The input is a list of steps. Each begins with [`STEP`], the client's number, and a letter that says what happens:
//! see [`Simulation::step`]. The rest of the step is its data.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_send_buffer_size;
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;

use super::transcript::Transcript;
use crate::chat::{
    Address, Attempts, AwayLimits, ChatTime, ClientMessage, ConnectionId, Departure, Effect, Entry,
    EntryTime, Guests, HistoryLimits, Input, JoinSecrets, MessageError, NodeNumber, Outcome, Room,
    RoomSettings, ServerMessage, SessionSecret, UserLists,
};
use crate::hub::Tape;
use crate::transport::{Flush, Link, Output, ReadError, Received, Stream};

/// Begins a step. It is never part of UTF-8 text.
const STEP: u8 = 0xF5;
const CLIENTS: usize = 4;
const PASSWORD: &str = "secret";
pub const TIMESTAMP: &str = "12:34:56";
/// The longest message from a client, in bytes.
const MAX_MESSAGE: usize = 1024;
/// The most that may wait for a client, in bytes.
const MAX_BACKLOG: usize = 2048;
/// What a client may be sent in addition to what another has sent, in bytes: lists of four members, and quotes.
const MAX_ADDED: usize = 16 * 1024;
/// The longest `history` answer, in bytes (docs/protocol.md).
const MAX_ANSWER: usize = 256 * 1024;
/// How often something may have to be repeated until there is nothing left to do.
const MAX_ROUNDS: usize = 10_000;
/// How far [`Simulation::step`] moves the clock.
const ADVANCES: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(60),
    Duration::from_secs(1),
    Duration::from_secs(29),
    Duration::from_secs(31),
    Duration::from_secs(61),
    Duration::from_secs(3600),
    Duration::from_secs(400 * 24 * 60 * 60),
];

/// Runs the steps, and checks what the clients are sent.
pub fn client_bytes(bytes: &[u8]) {
    let mut simulation = Simulation::new();
    for step in bytes.split(|&byte| byte == STEP) {
        if let [client, action, data @ ..] = step {
            simulation.step(usize::from(*client) % CLIENTS, *action, data);
        }
    }
    simulation.finish();
}

/// What becomes of decisions, in turn.
const OUTCOMES: [Outcome; 2] = [Outcome::Stored, Outcome::NotStored];

struct Simulation {
    room: Room,
    lists: UserLists,
    guests: Guests,
    tape: Tape,
    /// Connections to close once the batch has been sent, with the reasons.
    removed: Vec<(ConnectionId, String)>,
    start: Instant,
    now: Instant,
    clients: [Option<Client>; CLIENTS],
    /// The last id that was given to a connection.
    last_id: u64,
    /// The position in the order.
    last_entry: u64,
    /// What each client needs to resume, if it has asked for it.
    places: [Option<Value>; CLIENTS],
    /// Of the message that is handled.
    secrets: JoinSecrets,
}

struct Client {
    id: ConnectionId,
    link: Link,
    /// The client's end of the connection.
    socket: TcpStream,
    /// Whether the client reads nothing.
    stalled: bool,
    /// Whether the client has a backlog.
    is_slow: bool,
    transcript: Transcript,
    /// All bytes that the client has sent.
    sent: Vec<u8>,
    /// What the server has read from them.
    read: Vec<Item>,
}

/// What the server reads from a client's bytes.
#[derive(Debug, PartialEq)]
enum Item {
    Text(String),
    Binary,
    Closed,
    Violation(CloseCode, String),
}

impl Simulation {
    fn new() -> Self {
        let now = Instant::now();
        let settings = RoomSettings {
            epoch: "fuzzing".into(),
            history: HistoryLimits { messages: 20, age_millis: None },
            away: AwayLimits { timeout: Duration::from_secs(30), members: 3, members_per_network: Some(1) },
            ..RoomSettings::default()
        };
        Self {
            room: Room::new(settings, &entry_time(Duration::ZERO)),
            lists: UserLists::default(),
            guests: Guests::default(),
            tape: Tape::default(),
            removed: Vec::new(),
            start: now,
            now,
            clients: [const { None }; CLIENTS],
            last_id: 0,
            last_entry: 0,
            places: [const { None }; CLIENTS],
            secrets: JoinSecrets::default(),
        }
    }

    fn step(&mut self, at: usize, action: u8, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        match action {
            b'j' => self.send_json(at, &json!({"type": "join", "username": text})),
            b'J' => self.send_json(at, &json!({"type": "join", "username": text, "history": 200})),
            // On the connection that is open, or on a new one.
            b'r' | b'R' => {
                if let Some(join) = self.places[at].clone() {
                    if action == b'R' {
                        self.disconnect(at);
                    }
                    self.client(at, &[]).transcript.resume(&join);
                    self.send_json(at, &join);
                }
            }
            b'p' => self.send_json(at, &json!({"type": "public", "content": text})),
            b'c' => self.send_json(at, &json!({"type": "command", "content": text})),
            b't' => self.send(at, &frame(0x81, data)),
            b'b' => self.send(at, &frame(0x82, data)),
            b'k' => self.send(at, &frame(0x89, data)),
            // A text frame that arrives in pieces.
            b's' => {
                let (first, data) = data.split_first().unwrap_or((&0, &[]));
                let length = usize::from(*first % 16) + 1;
                frame(0x81, data).chunks(length).for_each(|piece| self.send(at, piece));
            }
            b'd' => self.disconnect(at),
            // The client stops reading, or resumes.
            b'h' => {
                self.client(at, &[]).stalled ^= true;
                self.receive();
            }
            b'a' => {
                let advance = data.first().map_or(0, |&which| usize::from(which) % ADVANCES.len());
                self.now += ADVANCES[advance];
                self.finish_batch();
            }
            // As the server does after a silence, and when it shuts down.
            b'i' => self.control(at, |link, now| link.ping(now).is_ok()),
            b'z' => self.control(at, |link, now| link.close(CloseCode::Away, "shutdown", now).is_ok()),
            _ => self.send(at, data),
        }
    }

    fn send_json(&mut self, at: usize, message: &serde_json::Value) {
        self.send(at, &frame(0x81, message.to_string().as_bytes()));
    }

    /// The client sends bytes, and the server reads them. The first bytes of a connection are what arrived together
    /// with the request head.
    fn send(&mut self, at: usize, mut bytes: &[u8]) {
        let mut leftover: &[u8] = &[];
        if self.clients[at].is_none() {
            std::mem::swap(&mut leftover, &mut bytes);
        }
        self.client(at, leftover).sent.extend_from_slice(bytes);
        self.read(at);
        while !bytes.is_empty() {
            let Some(client) = &self.clients[at] else { return };
            match (&client.socket).write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return self.read(at),
            }
            self.read(at);
        }
    }

    /// The client, which connects if it is not connected.
    fn client(&mut self, at: usize, leftover: &[u8]) -> &mut Client {
        if self.clients[at].is_none() {
            self.last_id += 1;
            let id = ConnectionId(self.last_id);
            // Two clients share each address.
            let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, at as u8 / 2));
            let address = Address { network: address.into(), is_exempt: false };
            self.guests.connected(id, address, ChatTime(0));
            self.clients[at] = Some(Client::new(id, leftover));
        }
        self.clients[at].as_mut().expect("it is connected")
    }

    /// Reads all that a client has sent, as its thread would, and handles it in one batch.
    fn read(&mut self, at: usize) {
        while let Some(client) = &mut self.clients[at] {
            let id = client.id;
            let (item, (message, attempts), length) = match read_message(&client.link) {
                Ok(Received::Text(text)) => {
                    (Item::Text(text.to_string()), ClientMessage::parse_with_secrets(&text), text.len())
                }
                Ok(Received::Binary(_)) => {
                    (Item::Binary, (Err(MessageError::Binary), Attempts::default()), 0)
                }
                Ok(Received::Control) => {
                    if client.link.flush(self.now).is_err() {
                        client.link.cut_off();
                    }
                    continue;
                }
                Ok(Received::Partial) => continue,
                Ok(Received::Nothing { .. }) => break,
                Err(error) => {
                    self.end(at, error);
                    break;
                }
            };
            client.read.push(item);
            // No input contains it.
            let new = SessionSecret::new((u128::MAX / 7 - u128::from(self.last_entry)).to_be_bytes());
            self.secrets = JoinSecrets { sent: attempts.session, new: Some(new) };
            let session = Some(new.digest());
            let (access, guest) = (attempts.compare(PASSWORD), self.guests.guest(id, false));
            self.handle(id, Input::Message { message, access, session, guest }, length);
        }
        self.finish_batch();
    }

    /// Ends a session, as its thread would.
    fn end(&mut self, at: usize, error: ReadError) {
        let Some(mut client) = self.clients[at].take() else { return };
        let departure = match error {
            ReadError::Closed(Some(CloseCode::Normal)) => Departure::Left,
            _ => Departure::Lost,
        };
        let is_open = match error {
            ReadError::Closed(_) => {
                client.read.push(Item::Closed);
                true
            }
            ReadError::Violation(code, reason) => {
                assert!(reason.len() <= 123, "a close frame has no room for {reason:?}");
                let is_ok = client.link.close(code, &reason, self.now).is_ok();
                client.read.push(Item::Violation(code, reason));
                is_ok
            }
            ReadError::Disconnected | ReadError::CutOff(_) => false,
        };
        if self.guests.disconnected(client.id) {
            self.handle(client.id, Input::Disconnected(departure), 0);
        }
        if is_open {
            client.receive(self.now);
            let is_complete = matches!(client.link.flush(self.now), Ok(Flush::Complete));
            client.link.finish(Instant::now());
            client.receive(self.now);
            if is_complete {
                client.transcript.assert_complete();
            }
        }
        client.link.cut_off();
        client.assert_split_changes_nothing();
    }

    fn disconnect(&mut self, at: usize) {
        if let Some(client) = &self.clients[at] {
            let _ = client.socket.shutdown(std::net::Shutdown::Both);
            self.read(at);
        }
        assert!(self.clients[at].is_none(), "a disconnected client is still there");
    }

    fn control(&mut self, at: usize, send: impl FnOnce(&Link, Instant) -> bool) {
        if let Some(client) = &self.clients[at] {
            if !send(&client.link, self.now) {
                client.link.cut_off();
            }
            self.read(at);
        }
    }

    /// Passes an input to the room. `length`: of the client's message, in bytes.
    fn handle(&mut self, from: ConnectionId, input: Input, length: usize) {
        self.last_entry += 1;
        let time = entry_time(self.now - self.start);
        let mut effects =
            self.room.apply(Entry { id: self.last_entry, time: &time, from, input }, NodeNumber::LOCAL);
        self.secrets.complete(&mut effects, MAX_MESSAGE);
        for effect in &effects {
            self.lists.follow(effect, self.now);
            self.guests.follow(effect);
            let before = self.tape.len();
            self.tape.write(effect, TIMESTAMP);
            let written = self.tape.len() - before;
            match effect {
                Effect::Send(_, ServerMessage::History(_)) => assert!(written <= MAX_ANSWER, "{written}"),
                _ => assert!(written <= 2 * length + MAX_ADDED, "{written} bytes follow from {length}"),
            }
            if let Effect::CloseReplaced(id) = effect {
                let code = CloseCode::Library(4001);
                if let Some(client) = self.clients.iter().flatten().find(|client| client.id == *id)
                    && client.link.close(code, "replaced", self.now).is_err()
                {
                    client.link.cut_off();
                }
            }
        }
        for effect in effects {
            match effect {
                // The answer of the store comes at once.
                Effect::Decide(decision) => {
                    let outcome = OUTCOMES[self.last_entry as usize % OUTCOMES.len()];
                    self.handle(decision.connection, Input::Decided(decision, outcome), length);
                }
                Effect::Close(id, reason) => self.removed.push((id, reason)),
                _ => {}
            }
        }
    }

    /// Sends the batch and what is due, and repeats while that cuts clients off.
    fn finish_batch(&mut self) {
        for _ in 0..MAX_ROUNDS {
            self.handle(ConnectionId::SERVER, Input::Tick, 0);
            let is_slow = |id| self.clients.iter().flatten().any(|client| client.id == id && client.is_slow);
            if let Some(recipients) = self.lists.next_round(self.now, is_slow) {
                self.tape.write(&Effect::Send(recipients, self.room.user_list()), TIMESTAMP);
            }
            self.deliver();
            self.receive();
            let is_cut_off = |client: &Client| client.link.is_cut_off();
            let Some(at) = (0..CLIENTS).find(|&at| self.clients[at].as_ref().is_some_and(is_cut_off)) else {
                return;
            };
            self.end(at, ReadError::Disconnected);
        }
        panic!("clients are cut off without end");
    }

    fn deliver(&mut self) {
        let batch = self.tape.finish();
        let mut output = Output::default();
        for id in batch.recipients() {
            let client = self.clients.iter_mut().flatten().find(|client| client.id == id);
            let Some(client) = client else { continue };
            batch.output(id, &mut output);
            match client.link.send(&output, self.now) {
                Ok(Flush::Complete) => client.is_slow = false,
                Ok(Flush::Pending { bytes, .. }) => {
                    assert!(bytes <= MAX_BACKLOG + MAX_ADDED + MAX_ANSWER, "{bytes} bytes wait");
                    client.is_slow = true;
                }
                Err(_) => drop(client.link.cut_off()),
            }
        }
        for (id, reason) in self.removed.drain(..) {
            assert!(reason.len() <= 123, "a close frame has no room for {reason:?}");
            if let Some(client) = self.clients.iter().flatten().find(|client| client.id == id)
                && client.link.close(CloseCode::Policy, &reason, self.now).is_err()
            {
                client.link.cut_off();
            }
        }
    }

    /// All clients that are not stalled read everything that they are sent.
    fn receive(&mut self) {
        for (client, place) in self.clients.iter_mut().zip(&mut self.places) {
            if let Some(client) = client.as_mut().filter(|client| !client.link.is_cut_off()) {
                client.receive(self.now);
                if let Some(known) = client.transcript.place() {
                    *place = Some(known);
                }
            }
        }
    }

    /// All clients read, and time passes until nothing is due. Then all members must have the same list.
    fn finish(&mut self) {
        self.clients.iter_mut().flatten().for_each(|client| client.stalled = false);
        self.finish_batch();
        // Nothing may follow a close frame, so a client that has received one gets no more lists.
        for at in 0..CLIENTS {
            if self.clients[at].as_ref().is_some_and(|client| client.transcript.is_closed()) {
                self.disconnect(at);
            }
        }
        self.pass_time();
        let members: Vec<&Client> =
            self.clients.iter().flatten().filter(|c| c.transcript.is_member()).collect();
        for member in &members {
            member.transcript.assert_complete();
            let list = member.transcript.user_list();
            assert_eq!(list.len(), members.len(), "the list has members who are not there: {list:?}");
            assert_eq!(list, members[0].transcript.user_list(), "two members have different lists");
            assert!(list.iter().all(|user| user["is_timed_out"] == false), "an endless time-out: {list:?}");
        }
        for at in 0..CLIENTS {
            self.disconnect(at);
        }
        self.pass_time();
    }

    /// Moves the clock from one deadline to the next, until there is none.
    fn pass_time(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let room = self.room.next_deadline().map(|due| self.start + due.saturating_since(ChatTime(0)));
            let Some(due) = room.into_iter().chain(self.lists.next_deadline()).min() else { return };
            self.now = self.now.max(due);
            self.finish_batch();
        }
        panic!("something is always due");
    }
}

impl Client {
    fn new(id: ConnectionId, leftover: &[u8]) -> Self {
        let (server, client) = connected_sockets();
        let link = Link::new(Stream::plain(server), leftover.to_vec(), MAX_MESSAGE, MAX_BACKLOG);
        Self {
            id,
            link,
            socket: client,
            stalled: false,
            is_slow: false,
            transcript: Transcript::default(),
            sent: leftover.to_vec(),
            read: Vec::new(),
        }
    }

    /// Reads everything that the server sends, unless the client is stalled.
    fn receive(&mut self, now: Instant) {
        let mut buffer = [0; 4096];
        for _ in 0..MAX_ROUNDS {
            let flush = self.link.flush(now);
            if !self.stalled {
                while let Ok(count @ 1..) = (&self.socket).read(&mut buffer) {
                    self.transcript.receive(&buffer[..count]);
                }
            }
            self.is_slow = matches!(flush, Ok(Flush::Pending { .. }));
            match flush {
                Ok(Flush::Complete) => return,
                Ok(Flush::Pending { .. }) if self.stalled => return,
                Ok(Flush::Pending { .. }) => {}
                Err(_) => {
                    self.link.cut_off();
                    return;
                }
            }
        }
        panic!("the backlog of a client that reads is never empty");
    }

    /// The server must read the same messages however the client's bytes were split.
    fn assert_split_changes_nothing(&self) {
        let (server, _client) = connected_sockets();
        let link = Link::new(Stream::plain(server), self.sent.clone(), MAX_MESSAGE, usize::MAX);
        let mut read = Vec::new();
        let now = Instant::now();
        loop {
            match read_message(&link) {
                Ok(Received::Text(text)) => read.push(Item::Text(text.to_string())),
                Ok(Received::Binary(_)) => read.push(Item::Binary),
                Ok(Received::Control) => drop(link.flush(now)),
                Ok(Received::Partial) => {}
                Ok(Received::Nothing { .. }) | Err(ReadError::Disconnected | ReadError::CutOff(_)) => break,
                Err(ReadError::Closed(_)) => {
                    read.push(Item::Closed);
                    break;
                }
                Err(ReadError::Violation(code, reason)) => {
                    read.push(Item::Violation(code, reason));
                    break;
                }
            }
        }
        // A client that was cut off was not read to the end.
        assert!(read.starts_with(&self.read), "all at once: {read:?}; split: {:?}", self.read);
    }
}

fn read_message(link: &Link) -> Result<Received, ReadError> {
    link.read().map(|read| read.received)
}

/// Two connected sockets, the first with a small send buffer.
fn connected_sockets() -> (Arc<TcpStream>, TcpStream) {
    let (server, client) = UnixStream::pair().expect("two more descriptors");
    let [server, client] = [server, client].map(|socket| {
        socket.set_nonblocking(true).expect("a socket can be nonblocking");
        TcpStream::from(OwnedFd::from(socket))
    });
    set_socket_send_buffer_size(&server, 0).expect("the least size is used instead");
    (Arc::new(server), client)
}

/// A complete frame from a client, with a mask that changes nothing.
fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match data.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(data);
    frame
}
fn entry_time(elapsed: Duration) -> EntryTime {
    let utc = "2026-11-28T12:34:56.000Z".to_owned();
    EntryTime { chat: ChatTime(0) + elapsed, unix_millis: 0, timestamp: TIMESTAMP.to_owned(), utc }
}
