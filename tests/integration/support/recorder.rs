//! A client that follows docs/protocol.md on several servers: it reconnects to any of them, resumes, and sends again
//! exactly what is not in the history. It records what it says and sees, for the checker (`anomalies.rs`).

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use super::anomalies::{Line, Record, Seen};
use super::client::TIMEOUT;
use super::nodes::Servers;

/// How many lines may be without their `ack`.
const WINDOW: usize = 20;
/// How often it checks whether a line is due.
const PAUSE: Duration = Duration::from_millis(10);
/// Time limit for a handshake and the answer to a `join`. After it, the client tries the next server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// A client with a thread of its own.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    record: Record,
    /// How many lines it is to say in all, as fast as the window allows.
    goal: usize,
    /// The time between two lines that it says beyond those.
    pace: Option<Duration>,
    /// It leaves once everything is acknowledged.
    is_over: bool,
    /// How many lines are not acknowledged.
    waiting: usize,
    has_ended: bool,
}

impl Recorder {
    /// A client that has joined on the server at this place in the list.
    pub fn join(name: &str, servers: &Servers, at: usize) -> Self {
        Self::labelled(name, name, servers, at)
    }

    /// The same with another label: the name has belonged to another client before.
    pub fn labelled(name: &str, label: &str, servers: &Servers, at: usize) -> Self {
        let record = Record { label: label.into(), ..Record::default() };
        let state = Mutex::new(State { record, ..State::default() });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let talker = Talker {
            name: name.into(),
            label: label.into(),
            servers: servers.clone(),
            at,
            socket: None,
            session: None,
            epoch: Value::Null,
            newest: 0,
            outbox: VecDeque::new(),
            said: 0,
            next_at: Instant::now(),
            shared: shared.clone(),
        };
        let thread =
            thread::Builder::new().name(format!("client {label}")).spawn(move || talker.run()).unwrap();
        let recorder = Self { shared, thread: Some(thread) };
        recorder.wait("it has joined", |record| !record.epochs.is_empty());
        recorder
    }

    /// Says this many lines, and does not wait for them.
    pub fn say(&self, lines: usize) {
        self.shared.state().goal += lines;
    }

    /// Says a line now and then, until [`Recorder::be_silent`].
    pub fn talk(&self, pace: Duration) {
        self.shared.state().pace = Some(pace);
    }

    pub fn be_silent(&self) {
        let mut state = self.shared.state();
        (state.pace, state.goal) = (None, state.record.said.len().max(state.goal));
    }

    /// Waits until everything that it is to say is acknowledged.
    pub fn settle(&self) {
        let what = "everything is acknowledged";
        self.wait_for(what, |state| state.record.said.len() >= state.goal && state.waiting == 0);
    }

    /// Waits until the record is like this.
    pub fn wait(&self, what: &str, is_done: impl Fn(&Record) -> bool) {
        self.wait_for(what, |state| is_done(&state.record));
    }

    /// Waits until this many of its lines are acknowledged.
    pub fn wait_for_acks(&self, lines: usize) {
        self.wait(&format!("{lines} lines are acknowledged"), |record| record.acked.len() >= lines);
    }

    /// Waits until it has seen this line.
    pub fn wait_for_line(&self, text: &str) {
        let is_it = |seen: &Seen| matches!(seen, Seen::Line(line) if line.text == text);
        self.wait(&format!("it has seen {text:?}"), |record| {
            record.views.iter().rev().any(|view| view.iter().rev().any(is_it))
        });
    }

    pub fn record(&self) -> Record {
        self.shared.state().record.clone()
    }

    /// Leaves, once everything is acknowledged.
    pub fn leave(mut self) -> Record {
        self.shared.state().is_over = true;
        self.wait_for("it has left", |state| state.has_ended);
        self.thread.take().unwrap().join().unwrap();
        self.record()
    }

    fn wait_for(&self, what: &str, is_done: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.shared.state();
        while !is_done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            let State { record, waiting, has_ended, .. } = &*state;
            assert!(
                !left.is_zero() && !*has_ended,
                "{} waits until {what}; it has said {}, and {waiting} are not acknowledged; closes: {:?}, errors: {:?}",
                record.label,
                record.said.len(),
                record.closes,
                record.errors
            );
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        (state.is_over, state.has_ended) = (true, true);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record, and wakes up the threads that wait for it.
    fn record(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.state().record);
        self.changed.notify_all();
    }
}

/// The client itself.
struct Talker {
    name: String,
    label: String,
    servers: Servers,
    /// Its server's place in the list.
    at: usize,
    socket: Option<WebSocket<TcpStream>>,
    session: Option<Value>,
    epoch: Value,
    /// The greatest id that it has seen.
    newest: u64,
    /// What it has said and does not know to have arrived, oldest first.
    outbox: VecDeque<String>,
    said: usize,
    /// When it says the next line.
    next_at: Instant,
    shared: Arc<Shared>,
}

/// The connection has ended, with this close code.
struct Ended(Option<u16>);

impl Talker {
    fn run(mut self) {
        let _ended = EndedOnDrop(self.shared.clone());
        loop {
            let (is_over, is_aborted) = {
                let mut state = self.shared.state();
                state.waiting = self.outbox.len();
                (state.is_over, state.has_ended)
            };
            self.shared.changed.notify_all();
            if is_aborted || (is_over && self.outbox.is_empty()) {
                break self.close();
            }
            if let Err(Ended(code)) = self.step() {
                self.socket = None;
                self.shared.record(|record| record.closes.push(code));
                if code == Some(CloseCode::Policy.into()) {
                    // A moderator has removed it.
                    break;
                }
            }
        }
    }

    fn step(&mut self) -> Result<(), Ended> {
        if self.socket.is_none() {
            if !self.connect() {
                self.at += 1;
                thread::sleep(PAUSE);
            }
            return Ok(());
        }
        self.say()?;
        let Some(message) = self.read(PAUSE)? else { return Ok(()) };
        self.receive(&message);
        Ok(())
    }

    /// Says what is due.
    fn say(&mut self) -> Result<(), Ended> {
        while self.outbox.len() < WINDOW {
            let text = format!("{} {}", self.label, self.said);
            {
                let mut state = self.shared.state();
                let is_due = match state.pace {
                    _ if self.said < state.goal => true,
                    Some(pace) if !state.is_over && Instant::now() >= self.next_at => {
                        self.next_at = Instant::now() + pace;
                        true
                    }
                    _ => false,
                };
                if !is_due {
                    break;
                }
                state.record.said.push(text.clone());
                state.waiting += 1;
            }
            self.said += 1;
            self.outbox.push_back(text.clone());
            self.send(&public(&text))?;
        }
        Ok(())
    }

    /// Connects to a server, and joins or resumes. `false`: try another one.
    fn connect(&mut self) -> bool {
        let Some(address) = self.servers.get(self.at) else { return false };
        let Some(socket) = handshake(address) else { return false };
        self.socket = Some(socket);
        let is_in = self.enter().unwrap_or(false);
        if !is_in {
            self.socket = None;
        }
        is_in
    }

    fn enter(&mut self) -> Result<bool, Ended> {
        let mut join = json!({"type": "join", "username": self.name, "history": 0});
        let is_back = self.session.is_some();
        if let Some(session) = &self.session {
            join = json!({"type": "join", "username": self.name, "session": session, "epoch": self.epoch,
                "since": self.newest});
        }
        self.send(&join)?;
        let (mut list, deadline) = (None, Instant::now() + ANSWER_TIMEOUT);
        let answer = loop {
            let Some(message) = self.read_until(deadline)? else { return Ok(false) };
            match message["type"].as_str().unwrap() {
                "history" => break message,
                "user_list" => list = Some(names(&message)),
                "error" => {
                    self.shared.record(|record| record.errors.push(text(&message, "content")));
                    return Ok(false);
                }
                // This includes what a guest is told.
                _ => {}
            }
        };
        let is_new_epoch = answer["epoch"] != self.epoch;
        let is_complete = answer["recovered"] != false;
        let mut messages = answer["messages"].as_array().unwrap().clone();
        let mut live = Vec::new();
        if !is_complete {
            let known = if is_new_epoch { 0 } else { self.newest };
            match self.pages_down_to(known, &answer, &mut live)? {
                Some(pages) => messages = pages,
                None => return Ok(false),
            }
        }
        (self.session, self.epoch) = (Some(answer["session"].clone()), answer["epoch"].clone());
        let (is_new_view, epoch) = (!is_back || (!is_complete && is_new_epoch), text(&answer, "epoch"));
        self.shared.record(|record| {
            if is_new_view {
                record.views.push(Vec::new());
            }
            let view = record.views.last_mut().unwrap();
            view.push(Seen::Resumed);
            view.extend(list.map(Seen::List));
            record.epochs.push(epoch);
        });
        messages.iter().for_each(|message| self.receive(message));
        self.newest = answer["id"].as_u64().unwrap().max(if is_new_view { 0 } else { self.newest });
        live.iter().for_each(|message| self.receive(message));
        for text in self.outbox.clone() {
            self.send(&public(&text))?;
        }
        Ok(true)
    }

    /// The messages after this id, from as many pages as it takes.
    fn pages_down_to(
        &mut self,
        known: u64,
        answer: &Value,
        live: &mut Vec<Value>,
    ) -> Result<Option<Vec<Value>>, Ended> {
        let (mut all, mut before) = (Vec::new(), answer["id"].as_u64().unwrap() + 1);
        loop {
            self.send(&json!({"type": "history", "before": before, "limit": 200}))?;
            let deadline = Instant::now() + ANSWER_TIMEOUT;
            let page = loop {
                let Some(message) = self.read_until(deadline)? else { return Ok(None) };
                if message["type"] == "history" {
                    break message;
                }
                live.push(message);
            };
            let mut messages = page["messages"].as_array().unwrap().clone();
            before = messages.first().map_or(0, |oldest| oldest["id"].as_u64().unwrap());
            messages.append(&mut all);
            all = messages;
            if before <= known || page["more"] == false {
                all.retain(|message| message["id"].as_u64().unwrap() > known);
                return Ok(Some(all));
            }
        }
    }

    /// Handles what is not an answer to a request.
    fn receive(&mut self, message: &Value) {
        let kind = text(message, "type");
        if let Some(id) = message["id"].as_u64() {
            self.newest = self.newest.max(id);
        }
        let seen = match &*kind {
            "public" => {
                let (from, content) = (text(message, "username"), text(message, "content"));
                let id = message["id"].as_u64().unwrap();
                if message.get("txn_id").is_some() {
                    self.accepted(id, &content);
                }
                Seen::Line(Line { id, from, text: content })
            }
            "ack" => {
                let (id, content) = (message["id"].as_u64().unwrap(), text(message, "txn_id"));
                self.accepted(id, &content);
                Seen::Line(Line { id, from: self.name.clone(), text: content })
            }
            "system" => {
                let content = text(message, "content");
                match (content.strip_suffix(" joined."), content.strip_suffix(" left.")) {
                    (Some(name), _) => Seen::Joined(name.into()),
                    (_, Some(name)) => Seen::Left(name.into()),
                    _ => return self.shared.record(|record| record.system.push(content)),
                }
            }
            "user_list" => Seen::List(names(message)),
            "error" => {
                let content = text(message, "content");
                // It was refused, so it is not sent again.
                self.outbox.retain(|waiting| message["txn_id"] != **waiting);
                return self.shared.record(|record| record.errors.push(content));
            }
            _ => return,
        };
        self.shared.record(|record| record.views.last_mut().unwrap().push(seen));
    }

    fn accepted(&mut self, id: u64, text: &str) {
        self.outbox.retain(|waiting| waiting != text);
        let waiting = self.outbox.len();
        self.shared.record(|record| record.acked.push((id, text.into())));
        self.shared.state().waiting = waiting;
    }

    fn send(&mut self, message: &Value) -> Result<(), Ended> {
        let socket = self.socket.as_mut().expect("it is connected");
        match socket.send(Message::text(message.to_string())) {
            Ok(()) => Ok(()),
            // What the server has sent before it closed the connection is still to be read.
            Err(_) => self.drain(),
        }
    }

    /// Reads to the end of a connection that cannot be written to.
    fn drain(&mut self) -> Result<(), Ended> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while let Some(message) = self.read_until(deadline)? {
            if message["type"] != "history" {
                self.receive(&message);
            }
        }
        Err(Ended(None))
    }

    fn read_until(&mut self, deadline: Instant) -> Result<Option<Value>, Ended> {
        loop {
            let message = self.read(PAUSE)?;
            if message.is_some() || Instant::now() >= deadline || self.shared.state().has_ended {
                return Ok(message);
            }
        }
    }

    /// The next message, if one arrives within this time.
    fn read(&mut self, timeout: Duration) -> Result<Option<Value>, Ended> {
        let socket = self.socket.as_mut().expect("it is connected");
        socket.get_ref().set_read_timeout(Some(timeout)).unwrap();
        match socket.read() {
            Ok(Message::Text(text)) => Ok(Some(serde_json::from_str(&text).unwrap())),
            Ok(Message::Close(frame)) => Err(Ended(frame.map(|CloseFrame { code, .. }| code.into()))),
            Ok(_) => Ok(None),
            Err(Error::Io(error))
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(_) => Err(Ended(None)),
        }
    }

    /// Leaves the room.
    fn close(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        let _ = socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }));
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while let Ok(message) = self.read(PAUSE) {
            if let Some(message) = message {
                self.receive(&message);
            } else if Instant::now() >= deadline {
                break;
            }
        }
    }
}

struct EndedOnDrop(Arc<Shared>);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.0.state().has_ended = true;
        self.0.changed.notify_all();
    }
}

fn handshake(address: SocketAddr) -> Option<WebSocket<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).ok()?;
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    let (socket, _) = tungstenite::client(format!("ws://localhost:{}/", address.port()), stream).ok()?;
    Some(socket)
}

fn public(text: &str) -> Value {
    json!({"type": "public", "content": text, "txn_id": text})
}

fn names(list: &Value) -> Vec<String> {
    list["content"].as_array().unwrap().iter().map(|user| text(user, "username")).collect()
}

fn text(message: &Value, field: &str) -> String {
    message[field].as_str().unwrap_or_else(|| panic!("{message} has no {field}")).into()
}
