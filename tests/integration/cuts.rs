//! Random cuts: clients that follow docs/protocol.md lose their connections again and again, and yet nothing that they
//! say is lost or duplicated, and all see it in one order.
//!
//! TINYCHAT_CUTS sets the number of cuts. They come in rounds of 50, each with a seed. A round that fails prints its
//! seed, and TINYCHAT_CUTS_SEED runs only that one. The server's threads are not controlled by the seed.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use crate::support::client::{Client, REPLACED, line};
use crate::support::over_ws_and_wss;
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::server::{TestServer, Transport};

const DEFAULT_CUTS: usize = 200;
const CUTS_PER_ROUND: usize = 50;
const NAMES: [&str; 4] = ["Ann", "Bob", "Cid", "Dan"];
/// How many things are said while one member is away for long: more than one answer holds.
const LONG_ABSENCE: usize = 230;

over_ws_and_wss! {
    nothing_is_lost_or_duplicated,
}

fn nothing_is_lost_or_duplicated(transport: Transport) {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<usize>().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
    };
    if let Some(seed) = number("TINYCHAT_CUTS_SEED") {
        return round(transport, seed, CUTS_PER_ROUND);
    }
    let mut cuts = number("TINYCHAT_CUTS").unwrap_or(DEFAULT_CUTS);
    for seed in 0.. {
        if cuts == 0 {
            break;
        }
        let in_round = cuts.min(CUTS_PER_ROUND);
        round(transport, seed, in_round);
        cuts -= in_round;
    }
}

fn round(transport: Transport, seed: usize, cuts: usize) {
    let _seed = PrintedOnPanic(seed);
    let mut random = Random(seed as u64);
    let server = TestServer::with(transport, &[("RESUME_SECONDS", "86400")]);
    let mut members = NAMES.map(|name| Member::join(name, &server));
    for (at, member) in members.iter_mut().enumerate() {
        for later in &NAMES[at + 1..] {
            let client = member.connection.as_mut().unwrap();
            assert_eq!(client.next_line(), format!("system: {later} joined."));
        }
    }
    let absence = random.below(cuts);
    for cut in 0..cuts {
        for _ in 0..random.below(8) {
            let at = random.below(NAMES.len());
            members[at].act(&server, &mut random);
        }
        let at = random.below(NAMES.len());
        members[at].lose_connection(&server, &mut random);
        if cut == absence {
            members[at].connection = None;
            let speaker = (at + 1) % NAMES.len();
            (0..LONG_ABSENCE).for_each(|_| members[speaker].say(None));
            members[speaker].settle(&server);
        }
    }
    members.iter_mut().for_each(|member| member.settle(&server));
    members[0].say(None);
    members[0].settle(&server);
    let last = members[0].newest;
    members.iter_mut().for_each(|member| member.read_until(&server, |member| member.newest >= last));

    // Each member knows under which id each of its own messages was accepted.
    let mut everything = BTreeMap::new();
    for member in &members {
        let own = || member.view.iter().filter(|(_, said)| said.from == member.name);
        let contents: Vec<&str> = own().map(|(_, said)| said.content.as_str()).collect();
        let expected: Vec<String> = (0..member.said).map(|number| member.content(number)).collect();
        assert_eq!(contents, expected, "what {} has said", member.name);
        everything.extend(own().map(|(id, said)| (*id, said.clone())));
    }
    for member in &members {
        let mut expected = everything.clone();
        expected.retain(|_, said| {
            said.from == member.name || said.to.as_deref().is_none_or(|to| to == member.name)
        });
        assert_eq!(member.view, expected, "what {} has received", member.name);
    }
}

/// A client that follows docs/protocol.md.
struct Member {
    name: &'static str,
    proxy: Proxy,
    /// The connection, as far as the client knows.
    connection: Option<Client>,
    path: Path,
    epoch: Value,
    session: Value,
    /// The greatest id that the client has seen.
    newest: u64,
    /// What was said so far, by its id.
    view: BTreeMap<u64, Said>,
    /// What the client has said and does not know to have arrived, oldest first.
    outbox: VecDeque<Said>,
    /// How many things the client has said.
    said: usize,
}

/// The route of the connection, and what happened to it unnoticed by the client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    Direct,
    Proxy,
    Cut,
    Blackholed,
}

#[derive(Clone, Debug, PartialEq)]
struct Said {
    from: String,
    /// `None`: all.
    to: Option<String>,
    /// Also its `txn_id`, if this client has said it.
    content: String,
}

impl Member {
    fn join(name: &'static str, server: &TestServer) -> Self {
        let mut client = server.connect();
        let answer = client.join_asking(name, json!({"history": 0}));
        assert_eq!(client.next_line(), format!("system: {name} joined."));
        Self {
            name,
            proxy: Proxy::start(server.address),
            connection: Some(client),
            path: Path::Direct,
            epoch: answer["epoch"].clone(),
            session: answer["session"].clone(),
            newest: answer["id"].as_u64().unwrap(),
            view: BTreeMap::new(),
            outbox: VecDeque::new(),
            said: 0,
        }
    }

    /// Says something, reads, or connects again.
    fn act(&mut self, server: &TestServer, random: &mut Random) {
        match random.below(4) {
            0 => self.say(None),
            1 => {
                let to = NAMES[random.below(NAMES.len())];
                self.say(Some(to).filter(|to| *to != self.name));
            }
            _ if self.path == Path::Blackholed && random.one_in(2) => {
                self.connection = None;
                self.reconnect(server, random.one_in(2));
            }
            _ if self.connection.is_none() => self.reconnect(server, random.one_in(2)),
            _ => self.read_some(1 + random.below(10)),
        }
    }

    fn lose_connection(&mut self, server: &TestServer, random: &mut Random) {
        let Some(mut client) = self.connection.take() else {
            // Before the answer to its join has arrived.
            let mut client = self.connect(server, random.one_in(2));
            client.send(self.join_message());
            if random.one_in(2) {
                client.next_message();
            }
            return self.cut_path(random);
        };
        match random.below(5) {
            0 => {}
            1 => {
                let _ = client.socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "".into() }));
            }
            2 => {
                self.say(None);
                let text = message(self.outbox.back().unwrap()).to_string();
                let head = [0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
                let frame = [&head, text.as_bytes()].concat();
                let _ = client.socket.get_mut().write_all(&frame[..random.below(frame.len())]);
            }
            3 => {
                let path = self.path;
                self.reconnect(server, random.one_in(2));
                if path == Path::Direct {
                    assert_eq!(client.close_code(), Some(REPLACED));
                }
            }
            _ => {
                // The client does not know.
                self.connection = Some(client);
                self.cut_path(random);
            }
        }
    }

    /// Cuts the connection at the proxy, or has the proxy discard what it is sent.
    fn cut_path(&mut self, random: &mut Random) {
        if self.path != Path::Proxy {
            return;
        }
        if random.one_in(2) {
            self.proxy.cut();
            self.path = Path::Cut;
        } else {
            self.proxy.blackhole();
            self.path = Path::Blackholed;
        }
    }

    /// Says the next thing, to all or to one member, now or when the client is connected again.
    fn say(&mut self, to: Option<&str>) {
        let content = self.content(self.said);
        let said = Said { from: self.name.into(), to: to.map(Into::into), content };
        self.said += 1;
        self.outbox.push_back(said.clone());
        self.send(&message(&said));
    }

    fn content(&self, number: usize) -> String {
        format!("{} {number}", self.name)
    }

    fn send(&mut self, message: &Value) {
        if let Some(client) = &mut self.connection
            && client.socket.send(Message::text(message.to_string())).is_err()
        {
            self.connection = None;
        }
    }

    /// Connects, so that the member resumes, and sends again exactly what has not arrived.
    fn reconnect(&mut self, server: &TestServer, through_proxy: bool) {
        let mut client = self.connect(server, through_proxy);
        client.send(self.join_message());
        let mut live = Vec::new();
        let answer = next_history(&mut client, &mut live);
        assert!(live.is_empty(), "before its answer, {} has received {live:?}", self.name);
        assert_eq!(answer["session"], self.session, "the place has ended");
        assert_eq!(answer["epoch"], self.epoch);
        let mut messages = answer["messages"].as_array().unwrap().clone();
        if answer["recovered"] == false {
            messages = self.missed(&mut client, &answer, &mut live);
        }
        for message in &messages {
            self.receive(message);
        }
        self.newest = self.newest.max(answer["id"].as_u64().unwrap());
        live.iter().for_each(|message| self.receive(message));
        self.connection = Some(client);
        for said in self.outbox.clone() {
            self.send(&message(&said));
        }
    }

    /// Requests pages, back to what this client has seen. What arrives in between is live.
    fn missed(&self, client: &mut Client, answer: &Value, live: &mut Vec<Value>) -> Vec<Value> {
        let mut missed = Vec::new();
        let mut before = json!(answer["id"].as_u64().unwrap() + 1);
        loop {
            client.send(json!({"type": "history", "before": before, "limit": 200}));
            let page = next_history(client, live);
            let mut messages = page["messages"].as_array().unwrap().clone();
            before = messages[0]["id"].clone();
            messages.append(&mut missed);
            missed = messages;
            if before.as_u64().unwrap() <= self.newest || page["more"] == false {
                missed.retain(|message| message["id"].as_u64().unwrap() > self.newest);
                return missed;
            }
        }
    }

    fn connect(&mut self, server: &TestServer, through_proxy: bool) -> Client {
        self.proxy.restore();
        let (path, address) =
            if through_proxy { (Path::Proxy, self.proxy.address) } else { (Path::Direct, server.address) };
        self.path = path;
        Client::connect(address, server.transport)
    }

    fn join_message(&self) -> Value {
        json!({"type": "join", "username": self.name, "session": self.session, "epoch": self.epoch,
            "since": self.newest})
    }

    /// Handles a message that is not an answer to a request.
    fn receive(&mut self, message: &Value) {
        let own = message.get("txn_id").is_some();
        let is_new = message["id"].as_u64().is_some_and(|id| id > self.newest);
        match message["type"].as_str().unwrap() {
            "user_list" | "command_list" => return,
            // After the echo of a whisper.
            "ack" if !is_new => return assert!(self.view.contains_key(&message["id"].as_u64().unwrap())),
            "ack" => {}
            "public" | "private" => {}
            _ => panic!("{} has received {message}", self.name),
        }
        assert!(is_new, "{} has seen {}, and receives {message}", self.name, self.newest);
        let said = if own {
            let sent = self.outbox.pop_front();
            sent.filter(|sent| message["txn_id"] == *sent.content)
                .unwrap_or_else(|| panic!("{} is not the next of {}", message, self.name))
        } else {
            said(message)
        };
        self.newest = message["id"].as_u64().unwrap();
        self.view.insert(self.newest, said);
    }

    /// Reads this many messages, or those that have arrived.
    fn read_some(&mut self, messages: usize) {
        for _ in 0..messages {
            let Some(client) = &mut self.connection else { return };
            client.socket.get_ref().tcp().set_nonblocking(true).unwrap();
            let read = client.socket.read();
            client.socket.get_ref().tcp().set_nonblocking(false).unwrap();
            if matches!(&read, Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
            self.handle(read);
        }
    }

    fn handle(&mut self, read: Result<Message, Error>) {
        match read {
            Ok(Message::Text(text)) => self.receive(&serde_json::from_str(&text).unwrap()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(other) => panic!("{} has received {other:?}", self.name),
            Err(error) => {
                let is_timeout =
                    matches!(&error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock);
                assert!(!is_timeout, "{} waits for {:?}", self.name, self.outbox);
                self.connection = None;
            }
        }
    }

    /// Reads until all that this client has said has arrived.
    fn settle(&mut self, server: &TestServer) {
        self.read_until(server, |member| member.outbox.is_empty());
    }

    /// Reads until `is_done`, and connects again if that is necessary.
    fn read_until(&mut self, server: &TestServer, is_done: impl Fn(&Self) -> bool) {
        if self.path == Path::Blackholed {
            self.connection = None;
        }
        while !is_done(self) {
            match &mut self.connection {
                None => self.reconnect(server, false),
                Some(client) => {
                    let read = client.socket.read();
                    self.handle(read);
                }
            }
        }
    }
}

/// A message to the server.
fn message(said: &Said) -> Value {
    let Said { to, content, .. } = said;
    match to {
        None => json!({"type": "public", "content": content, "txn_id": content}),
        Some(to) => json!({"type": "private", "to": to, "content": content, "txn_id": content}),
    }
}

/// What a message from the server says.
fn said(message: &Value) -> Said {
    let field = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("{}", line(message))).to_owned();
    match message["type"] == "public" {
        true => Said { from: field("username"), to: None, content: field("content") },
        false => Said { from: field("from"), to: Some(field("to")), content: field("content") },
    }
}

/// The next `history`; what arrives before it is live.
fn next_history(client: &mut Client, live: &mut Vec<Value>) -> Value {
    loop {
        let message = client.next_event();
        match message["type"].as_str().unwrap() {
            "history" => return message,
            "command_list" => {}
            _ => live.push(message),
        }
    }
}

struct PrintedOnPanic(usize);

impl Drop for PrintedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TINYCHAT_CUTS_SEED={}", self.0);
        }
    }
}
