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
/// The two members that chat.
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
    target: Target,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    probes: Vec<Instant>,
    latencies: Vec<f64>,
    completed: usize,
    refused: usize,
}

impl<'a> Load<'a> {
    fn new(child: &'a Child, target: Target) -> Result<Self> {
        let mut load = Self {
            child,
            target,
            poll: Poll::new()?,
            connections: Vec::new(),
            buffer: vec![0; 64 * 1024],
            probes: Vec::new(),
            latencies: Vec::new(),
            completed: 0,
            refused: 0,
        };
        for member in [SENDER, RECIPIENT] {
            load.open(member)?;
            if target != Target::Floor {
                load.connections[member].queue(&frame(&join(member), Some(MASK)));
            }
        }
        // The first message has arrived, so both have joined.
        let deadline = Instant::now() + TIMEOUT;
        while load.latencies.is_empty() {
            load.step(PROBE_INTERVAL, false)?;
            if load.connections.iter().all(Connection::is_upgraded) {
                load.probe()?;
            }
            if Instant::now() > deadline {
                return Err("the chat does not start".into());
            }
        }
        Ok(load)
    }

    fn run(mut self, time: Duration) -> Result<Round> {
        (0..AT_ONCE).try_for_each(|number| self.open(RECIPIENT + 1 + number))?;
        self.latencies.clear();
        let before = self.child.total_processor_time()?;
        let start = Instant::now();
        let mut next_probe = start;
        while start.elapsed() < time {
            if Instant::now() >= next_probe {
                self.probe()?;
                next_probe += PROBE_INTERVAL;
            }
            self.step(next_probe.saturating_duration_since(Instant::now()), true)?;
        }
        let completed = self.completed as f64;
        let processor = self.child.total_processor_time()? - before;
        Ok(Round {
            per_second: completed / start.elapsed().as_secs_f64(),
            // With a small load, the system may count none.
            per_processor: completed / processor.as_secs_f64().max(0.01),
            refused: self.refused as f64,
            latencies: self.latencies,
        })
    }

    /// Opens a connection in place of the one with this number.
    fn open(&mut self, number: usize) -> Result<()> {
        let mut connection = Connection::open(self.child, Options::default())?;
        connection.flush()?;
        self.poll.add(&connection, number)?;
        match self.connections.get_mut(number) {
            Some(old) => *old = connection,
            None => self.connections.push(connection),
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<()> {
        let number = self.probes.len();
        let message = match self.target {
            Target::Floor => frame(&public(SENDER, number), None),
            Target::Ws | Target::Wss => frame(&said(SENDER, number), Some(MASK)),
        };
        self.probes.push(Instant::now());
        self.connections[SENDER].queue(&message);
        self.connections[SENDER].flush()?;
        Ok(())
    }

    /// Waits, and handles what has happened. `leave`: connections other than the members' are closed once they are
    /// upgraded, and others opened.
    fn step(&mut self, timeout: Duration, leave: bool) -> Result<()> {
        for number in self.poll.ready(timeout)? {
            let connection = &mut self.connections[number];
            let (now, probes, latencies) = (Instant::now(), &self.probes, &mut self.latencies);
            let received = connection.receive(&mut self.buffer).and_then(|_| {
                connection.messages(|_, payload| {
                    let Some((_, sequence)) = position(payload).filter(|_| number == RECIPIENT) else {
                        return;
                    };
                    latencies.push((now - probes[sequence]).as_secs_f64());
                })
            });
            // The end of the TLS handshake, and what was queued before it.
            if let Err(error) = received.and_then(|()| connection.flush()) {
                if number <= RECIPIENT {
                    return Err(format!("a member has lost its connection: {error}").into());
                }
                self.refused += 1;
                self.open(number)?;
            } else if leave && number > RECIPIENT && self.connections[number].is_upgraded() {
                self.completed += 1;
                self.open(number)?;
            }
        }
        Ok(())
    }
}
