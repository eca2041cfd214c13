//! The hub thread: it owns the room, and sends everybody what follows from what is said.
//!
//! It takes a batch from its inbox, lets the room decide, writes the effects on the tape, and gives each client
//! its part of it in one write. It never waits for a client.

mod tape;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{debug, info, warn};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::chat::{
    Audience, Body, ClientMessage, ConnectionId, Effect, Fault, Input, ModPassword, Room, ServerMessage,
};
use crate::ops::clock::local_time;
use crate::ops::metrics::{Counters, HubReport};
use crate::ops::systemd as service;
use crate::transport::{CutOff, Link, Sent};
use tape::Tape;

/// How many events wait for the hub before whoever brings more waits himself.
const INBOX_EVENTS: usize = 1024;
/// The most events in a batch, which bounds how long the first of them waits for the last.
const BATCH_EVENTS: usize = 256;
/// A batch ends when its tape is this long, in bytes.
const BATCH_BYTES: usize = 1024 * 1024;
/// How soon what a slow client has not taken is offered again. Each time that it takes nothing the wait doubles.
const FLUSH_SOON: Duration = Duration::from_millis(10);
const FLUSH_AT_LAST: Duration = Duration::from_millis(640);
/// How long clients have to answer the closing handshake when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// What the hub is told.
pub enum Event {
    Connected(ConnectionId, Arc<Link>, Peer),
    Said(ConnectionId, Result<ClientMessage, Fault>),
    /// Something waits for this client that its own thread put there.
    Waiting(ConnectionId),
    Gone(ConnectionId),
    /// Tell systemd that the hub is alive.
    Watchdog,
    /// Say that the hub is alive.
    Alive(Sender<()>),
    /// Tell what was counted.
    Report(Sender<HubReport>),
    /// Take leave of everybody.
    Stop,
}

/// Who a connection is.
#[derive(Clone, Debug)]
pub struct Peer {
    /// As the log names it.
    pub name: Arc<str>,
    /// What counts as its address where addresses are limited.
    pub network: IpAddr,
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// Starts the hub. It ends when it was told to stop and everybody is gone, or has had a few seconds to go;
/// then `on_end` is called, also if it should panic.
///
/// # Errors
/// The system gives no thread.
pub fn start(
    mod_password: Option<ModPassword>,
    counters: Arc<Counters>,
    on_end: impl FnOnce() + Send + 'static,
) -> io::Result<(Sender<Event>, JoinHandle<()>)> {
    let (sender, inbox) = bounded(INBOX_EVENTS);
    let hub = Hub {
        inbox,
        room: Room::new(mod_password),
        tape: Tape::default(),
        clients: HashMap::new(),
        waiting: HashMap::new(),
        stopping: None,
        counted: HubReport::default(),
        counters,
    };
    let run = move || {
        let _on_end = OnEnd(Some(on_end));
        hub.run();
    };
    let thread = thread::Builder::new().name("hub".into()).spawn(run)?;
    Ok((sender, thread))
}

struct Hub {
    inbox: Receiver<Event>,
    room: Room,
    tape: Tape,
    /// Everybody who is connected.
    clients: HashMap<ConnectionId, Client>,
    /// Who has not taken all that was sent, and when it is offered again.
    waiting: HashMap<ConnectionId, Offer>,
    /// When the server ends at the latest, once it was told to.
    stopping: Option<Instant>,
    /// What adds up, up to now.
    counted: HubReport,
    counters: Arc<Counters>,
}

struct Client {
    /// `None` once it was cut off, until its thread says that it is gone.
    link: Option<Arc<Link>>,
    peer: Peer,
}

struct Offer {
    at: Instant,
    after: Duration,
}

impl Hub {
    fn run(mut self) {
        loop {
            match self.next_event() {
                Ok(event) => self.batch(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if self.stopping.is_some_and(|until| now >= until || self.everybody_is_gone()) {
                return;
            }
            if self.deadline().is_some_and(|due| due <= now) {
                let effects = self.room.expire(now);
                self.write(&effects, &local_time());
            }
            self.deliver(now);
            self.flush(now);
        }
    }

    /// The next event, or `Timeout` when something else is due.
    fn next_event(&self) -> Result<Event, RecvTimeoutError> {
        let flush = self.waiting.values().map(|offer| offer.at).min();
        match [self.deadline(), flush, self.stopping].into_iter().flatten().min() {
            Some(due) => self.inbox.recv_deadline(due),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// When the room has something to say by itself, which it has no more once the server stops.
    fn deadline(&self) -> Option<Instant> {
        self.room.next_deadline().filter(|_| self.stopping.is_none())
    }

    fn everybody_is_gone(&self) -> bool {
        self.clients.values().all(|client| client.link.is_none())
    }

    /// Handles an event and those that have come in since.
    fn batch(&mut self, first: Event) {
        let (now, timestamp) = (Instant::now(), local_time());
        self.counted.batches += 1;
        self.handle(now, &timestamp, first);
        for _ in 1..BATCH_EVENTS {
            if self.tape.len() >= BATCH_BYTES {
                return;
            }
            let Ok(event) = self.inbox.try_recv() else { return };
            self.handle(now, &timestamp, event);
        }
    }

    fn handle(&mut self, now: Instant, timestamp: &str, event: Event) {
        self.counted.events += 1;
        match event {
            Event::Connected(id, link, peer) => {
                self.room.handle(now, id, Input::Connected(peer.network));
                self.clients.insert(id, Client { link: Some(link), peer });
                if self.stopping.is_some() {
                    self.take_leave(id, now);
                }
            }
            Event::Waiting(id) => {
                if self.clients.contains_key(&id) {
                    self.offer_again(id, now, true);
                }
            }
            Event::Said(id, message) => {
                self.count(&message);
                self.input(now, timestamp, id, Input::Said(message));
            }
            Event::Gone(id) => {
                self.input(now, timestamp, id, Input::Gone);
                self.clients.remove(&id);
                self.waiting.remove(&id);
            }
            Event::Watchdog => service::alive(),
            // Whoever asked may have lost patience.
            Event::Alive(asker) => drop(asker.try_send(())),
            Event::Report(asker) => drop(asker.try_send(self.report())),
            Event::Stop => {
                self.deliver(now);
                self.stopping.get_or_insert(now + STOP_PATIENCE);
                let ids: Vec<ConnectionId> = self.clients.keys().copied().collect();
                ids.into_iter().for_each(|id| self.take_leave(id, now));
            }
        }
    }

    /// Lets the room decide. Once the server stops nobody is told anything more.
    fn input(&mut self, now: Instant, timestamp: &str, from: ConnectionId, input: Input) {
        if self.stopping.is_some() {
            return;
        }
        let effects = self.room.handle(now, from, input);
        self.write(&effects, timestamp);
        if let Some(Client { peer, .. }) = self.clients.get(&from) {
            effects.iter().for_each(|effect| log(peer, effect));
        }
    }

    fn write(&mut self, effects: &[Effect], timestamp: &str) {
        for effect in effects {
            self.counted.deliveries += self.tape.write(effect, timestamp) as u64;
        }
    }

    fn count(&mut self, message: &Result<ClientMessage, Fault>) {
        let counted = &mut self.counted;
        *match message.as_ref().and_then(|message| message.body.as_ref()) {
            Ok(Body::Join) => &mut counted.joins,
            Ok(Body::Public { .. }) => &mut counted.publics,
            Ok(Body::Command { .. }) => &mut counted.commands,
            Err(_) => &mut counted.faults,
        } += 1;
    }

    fn report(&self) -> HubReport {
        let slow = self.waiting.keys().filter_map(|id| self.clients.get(id));
        HubReport {
            connected: self.clients.len(),
            members: self.tape.listeners(),
            inbox: self.inbox.len(),
            slow_clients: self.waiting.len(),
            queued_bytes: slow
                .filter_map(|client| client.link.as_ref())
                .map(|link| link.queued_bytes())
                .sum(),
            ..self.counted.clone()
        }
    }

    /// Gives each client its part of the tape.
    fn deliver(&mut self, now: Instant) {
        let batch = self.tape.finish();
        let recipients: Vec<ConnectionId> = self.tape.recipients(&batch).collect();
        let mut slices = Vec::new();
        for id in recipients {
            batch.slices(id, &mut slices);
            self.counted.sent_bytes += slices.iter().map(Bytes::len).sum::<usize>() as u64;
            self.attempt(id, now, |link| link.send(&slices, now));
        }
    }

    /// Offers slow clients again what they have not taken, if it is time.
    fn flush(&mut self, now: Instant) {
        let due = self.waiting.iter().filter(|(_, offer)| offer.at <= now);
        let due: Vec<ConnectionId> = due.map(|(&id, _)| id).collect();
        for id in due {
            if let Some(offer) = self.waiting.get_mut(&id) {
                offer.after = (offer.after * 2).min(FLUSH_AT_LAST);
                offer.at = now + offer.after;
            }
            self.attempt(id, now, |link| link.flush(now));
        }
    }

    /// Notes that something waits for a client, which is offered again soon if the client takes something.
    fn offer_again(&mut self, id: ConnectionId, now: Instant, taking: bool) {
        let soon = Offer { at: now + FLUSH_SOON, after: FLUSH_SOON };
        if taking {
            self.waiting.insert(id, soon);
        } else {
            self.waiting.entry(id).or_insert(soon);
        }
    }

    fn take_leave(&mut self, id: ConnectionId, now: Instant) {
        self.attempt(id, now, |link| link.close(CloseCode::Away, "the server stops", now));
    }

    /// Sends something to a client, if it is still there, and cuts it off if it must be.
    fn attempt(&mut self, id: ConnectionId, now: Instant, send: impl FnOnce(&Link) -> Result<Sent, CutOff>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(link) = &client.link else { return };
        let peer = &client.peer;
        match send(link) {
            Ok(Sent::All) => {
                self.waiting.remove(&id);
            }
            Ok(Sent::Waiting { taking }) => self.offer_again(id, now, taking),
            Err(reason) => {
                match reason {
                    // What it said before it went may still be read.
                    CutOff::Gone(_) => debug!("{peer}: {reason}"),
                    // Its own thread may have met the same, and has said so.
                    CutOff::QueueFull { .. } | CutOff::Stuck => {
                        if link.cut() {
                            warn!("{peer}: cut off: {reason}");
                            self.counters.cut_off((&reason).into());
                        }
                    }
                }
                // Its thread will say that it is gone, and only then does the room know.
                client.link = None;
                self.waiting.remove(&id);
            }
        }
    }
}

/// Logs what everybody is told of somebody, which holds names and nothing that people say.
fn log(peer: &Peer, effect: &Effect) {
    match effect {
        Effect::Tell(Audience::Everybody, ServerMessage::System { content }) => info!("{peer}: {content}"),
        Effect::WrongPassword(_) => warn!("{peer}: wrong moderator password"),
        _ => {}
    }
}

struct OnEnd<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnEnd<F> {
    fn drop(&mut self) {
        if let Some(on_end) = self.0.take() {
            on_end();
        }
    }
}
