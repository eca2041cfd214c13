//! connect: clients connect and leave as fast as possible, while others chat.

use std::time::{Duration, Instant};

use crate::Bench;
use crate::crowd::{join, position, public, said};
use crate::report::{Column, median, milliseconds, percentile, whole};
use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::{Connection, Options};
use crate::support::frames::{MASK, frame};
use crate::support::poll::Poll;
use crate::target::Target;

/// How many connections are being opened at the same time.
const AT_ONCE: usize = 32;
const PROBE_INTERVAL: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(20);
const READ_BYTES: usize = 64 * 1024;
/// The members that chat.
const MEMBERS: usize = 2;
const SENDER: usize = 0;
const RECIPIENT: usize = 1;

const COLUMNS: &[Column] = &[
    Column { title: "connections/s", show: whole },
    Column { title: "per s of CPU", show: whole },
    Column { title: "refused", show: whole },
    Column { title: "chat p50", show: milliseconds },
    Column { title: "p99", show: milliseconds },
    Column { title: "max", show: milliseconds },
];

struct Round {
    per_second: f64,
    /// Connections per second of the target's processor time.
    per_processor: f64,
    refused: f64,
    latencies: Vec<f64>,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let time = if bench.full { Duration::from_secs(2) } else { Duration::from_millis(50) };
    let mut targets = Target::ALL.map(|target| (target, Vec::new()));
    for _ in 0..bench.rounds(3) {
        for (target, rounds) in &mut targets {
            let child = target.start(bench)?;
            let round = Load::new(&child, *target)?.run(time)?;
            if round.refused > 0.0 {
                return Err("a connection was refused".into());
            }
            rounds.push(round);
        }
    }
    let mut table = bench.report.table("connect", COLUMNS);
    for (target, rounds) in &targets {
        let figure = |figure: &dyn Fn(&Round) -> f64| Some(median(rounds.iter().map(figure)));
        let latency = |percent| figure(&|round: &Round| percentile(round.latencies.clone(), percent));
        table.row(
            "upgrade and close",
            target.name(),
            &[
                figure(&|round| round.per_second),
                figure(&|round| round.per_processor),
                figure(&|round| round.refused),
                latency(50),
                latency(99),
                latency(100),
            ],
        );
    }
    table.print();
    Ok(())
}

struct Load<'a> {
    child: &'a Child,
    poll: Poll,
    chat: Chat,
    /// Connections being opened.
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    completed: usize,
    refused: usize,
}

/// Two members, one of which sends.
struct Chat {
    target: Target,
    sender: Connection,
    recipient: Connection,
    buffer: Vec<u8>,
    /// When each message was sent.
    sent: Vec<Instant>,
    next: Instant,
    latencies: Vec<f64>,
}

impl<'a> Load<'a> {
    fn new(child: &'a Child, target: Target) -> Result<Self> {
        let poll = Poll::new()?;
        let chat = Chat::start(child, target, &poll)?;
        let (connections, buffer) = (Vec::new(), vec![0; READ_BYTES]);
        Ok(Self { child, poll, chat, connections, buffer, completed: 0, refused: 0 })
    }

    fn run(mut self, time: Duration) -> Result<Round> {
        (0..AT_ONCE).try_for_each(|number| self.open(number))?;
        let before = self.child.total_processor_time()?;
        let start = Instant::now();
        while start.elapsed() < time || self.chat.latencies.is_empty() {
            if start.elapsed() > TIMEOUT {
                return Err("the chat has stopped".into());
            }
            self.chat.advance()?;
            for number in self.poll.ready(self.chat.next.saturating_duration_since(Instant::now()))? {
                match number.checked_sub(MEMBERS) {
                    Some(number) => self.step(number)?,
                    None => self.chat.receive(number)?,
                }
                // Otherwise the latency would include the load's own handshakes.
                self.chat.advance()?;
            }
        }
        let completed = self.completed as f64;
        let processor = self.child.total_processor_time()? - before;
        Ok(Round {
            per_second: completed / start.elapsed().as_secs_f64(),
            // With a small load, the system may count none.
            per_processor: completed / processor.as_secs_f64().max(0.01),
            refused: self.refused as f64,
            latencies: self.chat.latencies,
        })
    }

    /// Opens a connection in place of the one with this number.
    fn open(&mut self, number: usize) -> Result<()> {
        let mut connection = Connection::open(self.child, Options::default())?;
        connection.flush()?;
        self.poll.add(&connection, MEMBERS + number)?;
        match self.connections.get_mut(number) {
            Some(old) => *old = connection,
            None => self.connections.push(connection),
        }
        Ok(())
    }

    /// Receives from this connection. Once it is upgraded, it is closed, and another opened.
    fn step(&mut self, number: usize) -> Result<()> {
        let connection = &mut self.connections[number];
        let received = connection.receive(&mut self.buffer).and_then(|_| connection.messages(|_, _| {}));
        // Sends the end of the TLS handshake, and what was queued before it.
        if received.and_then(|()| connection.flush()).is_err() {
            self.refused += 1;
            self.open(number)?;
        } else if self.connections[number].is_upgraded() {
            self.completed += 1;
            self.open(number)?;
        }
        Ok(())
    }
}

impl Chat {
    /// Opens both connections, and returns once both have joined.
    fn start(child: &Child, target: Target, poll: &Poll) -> Result<Self> {
        let [sender, recipient] = [SENDER, RECIPIENT].map(|number| -> Result<_> {
            let mut member = Connection::open(child, Options::default())?;
            if target != Target::Floor {
                member.queue(&frame(&join(number), Some(MASK)));
            }
            member.flush()?;
            poll.add(&member, number)?;
            Ok(member)
        });
        let mut chat = Self {
            target,
            sender: sender?,
            recipient: recipient?,
            buffer: vec![0; READ_BYTES],
            sent: Vec::new(),
            next: Instant::now(),
            latencies: Vec::new(),
        };
        let deadline = Instant::now() + TIMEOUT;
        while chat.latencies.is_empty() {
            poll.ready(PROBE_INTERVAL)?.into_iter().try_for_each(|number| chat.receive(number))?;
            if chat.sender.is_upgraded() && chat.recipient.is_upgraded() {
                chat.advance()?;
            }
            if Instant::now() > deadline {
                return Err("the chat does not start".into());
            }
        }
        chat.latencies.clear();
        Ok(chat)
    }

    /// Sends the next message if it is due, and receives what has arrived.
    fn advance(&mut self) -> Result<()> {
        let now = Instant::now();
        if now >= self.next {
            let number = self.sent.len();
            let message = match self.target {
                Target::Floor => frame(&public(SENDER, number, number as u64), None),
                Target::Ws | Target::Wss | Target::Stored => frame(&said(SENDER, number), Some(MASK)),
            };
            self.sent.push(now);
            self.next = now + PROBE_INTERVAL;
            self.sender.queue(&message);
            self.sender.flush()?;
        }
        self.receive(RECIPIENT)
    }

    fn receive(&mut self, number: usize) -> Result<()> {
        let member = if number == SENDER { &mut self.sender } else { &mut self.recipient };
        let (sent, latencies) = (&self.sent, &mut self.latencies);
        let received = member.receive(&mut self.buffer).and_then(|_| {
            let now = Instant::now();
            member.messages(|_, payload| {
                let Some((_, sequence)) = position(payload) else { return };
                latencies.push((now - sent[sequence]).as_secs_f64());
            })
        });
        // Sends the end of the TLS handshake, and what was queued before it.
        received
            .and_then(|()| member.flush())
            .map_err(|error| format!("a member has lost its connection: {error}"))?;
        Ok(())
    }
}
