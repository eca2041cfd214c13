//! The thread that reads the log, and reports whether the engine answers.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use log::{error, info};

use super::availability::{Availability, Change};
use super::backoff::Backoff;
use super::engine::{Engine, EngineError};
use super::entry::{Content, Entry, parse_entries};
use super::following::Following;
use super::node::Event;
use super::position::{Break, Position};
use super::start::{Node, random_byte};
use super::tuning::{BLOCK, READ_TIMEOUT, UNAVAILABLE_AFTER};
use super::writer::Command;
use crate::chat::NodeNumber;

/// The most entries that are read at once.
const MAX_BATCH: usize = 256;
/// For the first read, when their length is not known.
const FIRST_BATCH: usize = 16;
/// How many entries to read at once, if they are as long as the last ones.
const BATCH_BYTES: usize = 1024 * 1024;

/// What the thread that writes asks of the one that reads.
pub enum ReaderCommand {
    /// Deliver nothing more, and confirm that.
    Pause,
    /// Read this epoch from here on.
    Follow {
        epoch: String,
        position: Position,
    },
    Reconnect,
    Stop,
}

pub struct Reader {
    node: Arc<Node>,
    commands: Receiver<ReaderCommand>,
    writer: Sender<Command>,
    engine: Option<Engine>,
    has_connected: bool,
    backoff: Backoff,
    availability: Availability,
    /// The first of the calls that have failed, and why the last one did.
    failing: Option<(Instant, String)>,
    /// How many entries to read at once.
    batch: usize,
    /// `None`: paused.
    following: Option<Following>,
    /// Since when the thread that writes has not confirmed that the engine still has the chat.
    unverified: Option<Instant>,
}

enum Trouble {
    Engine(EngineError),
    Break(Break),
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<Break> for Trouble {
    fn from(cause: Break) -> Self {
        Self::Break(cause)
    }
}

impl Reader {
    pub fn new(
        node: Arc<Node>,
        epoch: String,
        position: Position,
        commands: Receiver<ReaderCommand>,
        writer: Sender<Command>,
    ) -> Self {
        Self {
            node,
            commands,
            writer,
            engine: None,
            has_connected: false,
            backoff: Backoff::default(),
            availability: Availability::new(UNAVAILABLE_AFTER),
            failing: None,
            batch: FIRST_BATCH,
            following: Some(Following::new(epoch, position)),
            unverified: None,
        }
    }

    pub fn run(mut self) {
        while self.handle_commands() {
            let Some(mut following) = self.following.take() else { continue };
            let asked = Instant::now();
            match self.read(&mut following) {
                Ok(()) => {
                    self.failing = None;
                    self.backoff.succeeded();
                    self.following = Some(following);
                    // If this process was stopped meanwhile, the other thread has had no time to continue.
                    if asked.elapsed() >= UNAVAILABLE_AFTER {
                        continue;
                    }
                }
                Err(Trouble::Engine(EngineError::Interrupted)) => {
                    self.engine = None;
                    following.position.reconnected();
                    self.following = Some(following);
                    continue;
                }
                Err(Trouble::Engine(error)) => {
                    self.engine = None;
                    following.position.reconnected();
                    let since = self.failing.take().map_or(asked, |(since, _)| since);
                    self.failing = Some((since, error.to_string()));
                    self.following = Some(following);
                }
                Err(Trouble::Break(Break::Lost(reason))) => self.send(Command::Lost(reason.into())),
                Err(Trouble::Break(Break::Behind)) => self.send(Command::Behind),
            }
            self.report();
        }
    }

    /// Does what the other thread asks. `false`: the thread is to end.
    fn handle_commands(&mut self) -> bool {
        loop {
            let command = if self.following.is_none() {
                self.unverified.get_or_insert_with(Instant::now);
                self.report();
                match self.commands.recv_timeout(BLOCK) {
                    Err(RecvTimeoutError::Timeout) => continue,
                    command => command.ok(),
                }
            } else if let Some((since, _)) = &self.failing {
                // Users are told in time.
                let left = UNAVAILABLE_AFTER.saturating_sub(since.elapsed());
                let wait = self.backoff.failed(random_byte());
                let wait = if left.is_zero() { wait } else { wait.min(left) };
                match self.commands.recv_timeout(wait) {
                    Err(RecvTimeoutError::Timeout) => return true,
                    command => command.ok(),
                }
            } else {
                match self.commands.try_recv() {
                    Err(TryRecvError::Empty) => return true,
                    command => command.ok(),
                }
            };
            match command {
                Some(ReaderCommand::Pause) => {
                    self.following = None;
                    self.send(Command::Paused);
                }
                Some(ReaderCommand::Follow { epoch, position }) => {
                    (self.engine, self.failing) = (None, None);
                    self.following = Some(Following::new(epoch, position));
                }
                Some(ReaderCommand::Reconnect) => {
                    self.engine = None;
                    self.following.iter_mut().for_each(|following| following.position.reconnected());
                }
                Some(ReaderCommand::Stop) | None => return false,
            }
        }
    }

    /// Waits for entries, and delivers them.
    fn read(&mut self, following: &mut Following) -> Result<(), Trouble> {
        let status = self.node.status.clone();
        let engine = match &mut self.engine {
            Some(engine) => engine,
            None => {
                let engine = self.node.link.connect(READ_TIMEOUT)?;
                if std::mem::replace(&mut self.has_connected, true) {
                    status.reconnected();
                    self.unverified.get_or_insert_with(Instant::now);
                    self.send(Command::Reconnected);
                }
                self.engine.insert(engine)
            }
        };
        let answer = engine.read(&following.position.read_after(), BLOCK, self.batch)?;
        status.answered_read();
        let read = parse_entries(answer)?;
        if read.is_empty() {
            status.log_ends(following.check_end(engine.chat()?)?);
            return Ok(());
        }
        let (entries, cause) = following.take(read);
        self.deliver(entries);
        cause.map_or(Ok(()), |cause| Err(cause.into()))
    }

    fn deliver(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last() else { return };
        let status = &self.node.status;
        let own = status.figures().node;
        let is_own = |node: NodeNumber| u32::from(node) == own;
        let (mut bytes, mut read_back, mut ended) = (0, None, None);
        for entry in &entries {
            match &entry.content {
                Content::Data { node, sequence, data } => {
                    bytes += data.len();
                    if is_own(*node) {
                        read_back = Some((*node, *sequence));
                    }
                }
                Content::NodeDown(node) if is_own(*node) => ended = Some(*node),
                Content::NodeDown(_) | Content::Tick => {}
            }
        }
        self.batch = (BATCH_BYTES * entries.len() / bytes.max(1)).clamp(1, MAX_BATCH);
        if let Some((node, sequence)) = read_back {
            self.send(Command::ReadBack { node, sequence });
        }
        status.read(last.id, bytes);
        status.delivering(true);
        (self.node.events)(Event::Entries(entries));
        status.delivering(false);
        if let Some(node) = ended {
            self.send(Command::Ended(node));
        }
    }

    /// Reports whether the engine answers both threads, and has the chat.
    fn report(&mut self) {
        let now = Instant::now();
        let status = &self.node.status;
        let is_paused = self.following.is_none();
        self.unverified.take_if(|since| !is_paused && status.has_beaten_since(*since));
        let reading = self.failing.as_ref().map(|(since, _)| *since).into_iter().chain(self.unverified);
        let writing = status.write_waits_since().into_iter().chain(status.stuck_since());
        let address = self.node.link.address();
        match self.availability.update(reading.chain(writing).min(), now) {
            Some(Change::Unavailable) => {
                let reason = match &self.failing {
                    Some((_, reason)) => reason.clone(),
                    None if status.stuck_since().is_some() => {
                        "what was written to it cannot be read back".into()
                    }
                    None if status.write_waits_since().is_some() => "it does not answer writes".into(),
                    None => "checking whether it has lost messages".into(),
                };
                error!(
                    "The Redis or Valkey server at {address} is unavailable: {reason}. Messages wait until it is back"
                );
                (self.node.events)(Event::Unavailable);
            }
            Some(Change::Available) => {
                info!("The Redis or Valkey server at {address} is available again");
                (self.node.events)(Event::Available);
            }
            None => {}
        }
    }

    /// If the other thread has ended, this one is about to end.
    fn send(&self, command: Command) {
        let _ = self.writer.send(command);
    }
}
