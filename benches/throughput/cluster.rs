//! cluster: one chat on several servers, next to a server that runs by itself with the same clients.
//!
//! All servers share a processor, so what several deliver with a processor each is computed from the processor time of
//! the busiest of them. See docs/benchmarks.md.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::burst::WRITE_TIME;
use crate::crowd::{Crowd, Exchange, Last, Parts, Readers};
use crate::pace::{MESSAGES_PER_SECOND, SENDERS};
use crate::report::{
    Column, median, megabytes, microseconds, millions, milliseconds, percentile, ratio, whole,
};
use crate::support::Result;
use crate::support::child::Child;
use crate::support::cores::{self, Cores};
use crate::support::http::metric;
use crate::target::Target;

const ROUNDS: usize = 7;
/// How many clients there are.
const FEW: usize = 100;
const MANY: usize = 1000;
/// How many servers there are, where there are several.
const SERVERS: usize = 3;
/// The members of the chat that a server joins.
const MEMBERS: usize = 5000;
/// More than 4 MiB of history hold.
const HISTORY: usize = 20_000;
/// For all members to join: lists to that many are rate-limited, and joins wait for them.
const TIMEOUT: Duration = Duration::from_secs(300);

const PACE: &[Column] = &[
    Column { title: "CPU each", show: microseconds },
    Column { title: "per message", show: microseconds },
    Column { title: "capacity", show: ratio },
    Column { title: "engine's", show: microseconds },
    Column { title: "p50", show: milliseconds },
    Column { title: "above", show: milliseconds },
    Column { title: "p99", show: milliseconds },
    Column { title: "above", show: milliseconds },
];
const BURST: &[Column] = &[
    Column { title: "CPU each", show: microseconds },
    Column { title: "per message", show: microseconds },
    Column { title: "capacity", show: ratio },
    Column { title: "engine's", show: microseconds },
    Column { title: "deliveries/s", show: millions },
    Column { title: "of one's", show: ratio },
];
const ENTRIES: &[Column] = &[
    Column { title: "entries/s", show: whole },
    Column { title: "CPU, each server", show: microseconds },
    Column { title: "engine's", show: microseconds },
    Column { title: "per s of engine's CPU", show: whole },
];
const JOIN: &[Column] = &[
    Column { title: "listens after", show: milliseconds },
    Column { title: "max", show: milliseconds },
    Column { title: "members", show: whole },
    Column { title: "snapshot", show: megabytes },
    Column { title: "entries after it", show: whole },
];

/// The engine, and how many chats it has had.
struct Engine {
    child: Child,
    chats: usize,
}

/// A chat that is measured.
struct Chat {
    name: &'static str,
    servers: Vec<Child>,
    crowd: Crowd,
    /// The processor time of each server's threads that have ended, in seconds, before the first round.
    ended: Vec<f64>,
    rounds: Vec<Round>,
}

struct Round {
    exchange: Exchange,
    /// The processor time of each server's threads, and that of the engine, in seconds.
    servers: Vec<f64>,
    engine: f64,
}

/// A figure of a chat, and its comparison with that of the single server.
struct Compared {
    figure: f64,
    by_one: f64,
    above_one: f64,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    if cfg!(not(feature = "cluster")) {
        println!("cluster: skipped, because it needs --features cluster");
        return Ok(());
    }
    let start = || Child::engine(&bench.directory).map_err(|error| error.to_string());
    let Some(child) = Cores::pin_engine(bench.cores, start)?? else {
        if std::env::var("TINYCHAT_ENGINE_TESTS").is_ok_and(|value| value == "required") {
            return Err("redis-server is not installed".into());
        }
        println!("cluster: skipped, because redis-server is not installed (apt-get install redis-server)");
        return Ok(());
    };
    println!("{}.\n", cores::describe_engine(bench.cores));
    let mut engine = Engine { child, chats: 0 };
    let targets = if bench.full { &Target::SERVERS[..] } else { &[Target::Wss] };
    for &target in targets {
        pace(bench, &mut engine, target)?;
        println!();
    }
    let targets = if bench.full { &Target::SERVERS[..] } else { &[Target::Ws] };
    for &target in targets {
        burst(bench, &mut engine, target)?;
        println!();
    }
    entries(bench, &mut engine)?;
    println!();
    join(bench, &mut engine)
}

/// As in the case `pace`.
fn pace(bench: &mut Bench, engine: &mut Engine, target: Target) -> Result<()> {
    let interval = Some(Duration::from_secs(1) / MESSAGES_PER_SECOND);
    let messages = bench.size(10, 1);
    let parts = Parts { senders: SENDERS, messages, interval, last: Last::Receives };
    for &clients in sizes(bench, target) {
        let chats = measure(bench, engine, target, clients, Readers::All, parts)?;
        let mut table = bench.report.table("cluster, pace", PACE);
        let what = format!("{clients} clients, {MESSAGES_PER_SECOND}/s");
        for (number, chat) in chats.iter().enumerate() {
            let figures = Figures { chat, one: &chats[0], parts, clients };
            let latency =
                |percent| figures.compare(|_, round| percentile(round.exchange.latencies.clone(), percent));
            let (p50, p99) = (latency(50), latency(99));
            let above = |latency: &Compared| (number > 0).then_some(latency.above_one);
            let [each, message, capacity, engine] = figures.processor();
            let row = [
                each,
                message,
                capacity,
                engine,
                Some(p50.figure),
                above(&p50),
                Some(p99.figure),
                above(&p99),
            ];
            table.row(&what, chat.name, &row);
        }
        table.print();
    }
    Ok(())
}

/// As in the case `burst`.
fn burst(bench: &mut Bench, engine: &mut Engine, target: Target) -> Result<()> {
    for &clients in sizes(bench, target) {
        // About as many deliveries as in the case `burst`.
        let messages = bench.size(if clients == FEW { 8000 } else { 2000 }, 100) / SENDERS;
        let parts = Parts { senders: SENDERS, messages, interval: None, last: Last::Receives };
        let chats = measure(bench, engine, target, clients, Readers::Few, parts)?;
        let mut table = bench.report.table("cluster, burst", BURST);
        for (number, chat) in chats.iter().enumerate() {
            let figures = Figures { chat, one: &chats[0], parts, clients };
            let deliveries = figures.deliveries();
            let rate = figures.compare(|_, round| deliveries / round.exchange.time.as_secs_f64());
            let [each, message, capacity, engine] = figures.processor();
            let of_one = (number > 0).then_some(1.0 / rate.by_one);
            let row = [each, message, capacity, engine, Some(rate.figure), of_one];
            table.row(&format!("{clients} clients, {SENDERS} send"), chat.name, &row);
        }
        table.print();
    }
    Ok(())
}

/// How fast the engine takes entries: all servers write, and have few clients.
fn entries(bench: &mut Bench, engine: &mut Engine) -> Result<()> {
    let clients = 2 * SERVERS;
    let parts =
        Parts { senders: SERVERS, messages: bench.size(20_000, 50), interval: None, last: Last::Receives };
    let mut chat = Chat::start(bench, Some(engine), Target::Ws, SERVERS, clients, Readers::Few)?;
    for _ in 0..bench.rounds(ROUNDS) {
        chat.round(bench, engine, parts)?;
    }
    let entries = (parts.senders * parts.messages) as f64;
    let figures = Figures { chat: &chat, one: &chat, parts, clients };
    let each = figures.busiest();
    let engine = figures.compare(|_, round| round.engine / entries).figure;
    let rate = figures.compare(|_, round| entries / round.exchange.time.as_secs_f64()).figure;
    let mut table = bench.report.table("cluster, entries", ENTRIES);
    let row = [Some(rate), Some(each.figure), Some(engine), Some(1.0 / engine)];
    table.row(&format!("{SERVERS} servers, {SERVERS} send"), chat.name, &row);
    table.print();
    Ok(())
}

/// How long a server takes to join a large chat, until it listens.
fn join(bench: &mut Bench, engine: &mut Engine) -> Result<()> {
    let url = engine.url();
    let name = engine.new_chat();
    let settings = [("CLUSTER_URL", &*url), ("CLUSTER_NAME", &*name), ("HISTORY_MESSAGES", "1000000")];
    let start = |_| Target::Ws.start_with(bench, &settings);
    let servers: Vec<Child> = (0..SERVERS).map(start).collect::<Result<_>>()?;
    let servers: Vec<&Child> = servers.iter().collect();
    let members_now =
        || -> Result<f64> { servers.iter().map(|server| metric(server, "tinychat_members", "")).sum() };
    let mut writers = Crowd::join(servers[0], 2, Target::Ws.sends(), Readers::Few)?;
    let messages = bench.size(HISTORY, 10);
    let exchange = writers.exchange(Parts { senders: 1, messages, interval: None, last: Last::Receives })?;
    let lost = exchange.lost;
    drop(writers);
    until(|| Ok(members_now()? == 0.0))?;
    let members = bench.size(MEMBERS, 20);
    let mut crowd = Crowd::connect_all(&servers, members, Target::Ws.sends(), Readers::Few)?;
    crowd.send_joins()?;
    let rounds = bench.rounds(5);
    let is_done = AtomicBool::new(false);
    let (times, alone) = thread::scope(|scope| {
        let receiver = scope.spawn(|| -> std::result::Result<(), String> {
            while !is_done.load(Ordering::Relaxed) {
                crowd.receive().map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        let times = || -> Result<_> {
            until(|| Ok(members_now()? == members as f64))?;
            let (mut times, mut alone) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                alone.push(start_time(bench, &[])?);
                times.push(start_time(bench, &settings)?);
            }
            Ok((times, alone))
        };
        let times = times();
        is_done.store(true, Ordering::Relaxed);
        receiver.join().expect("it does not panic")?;
        times
    })?;
    let [snapshot, later] = ["bytes", "age_entries"]
        .map(|figure| metric(servers[0], &format!("tinychat_cluster_snapshot_{figure}"), ""));
    bench.report.lost(lost);
    let mut table = bench.report.table("cluster, join", JOIN);
    let time = |times: &[f64]| {
        [Some(median(times.iter().copied())), Some(percentile(times.to_vec(), 100)), None, None, None]
    };
    table.row("a server starts", "ws", &time(&alone));
    let mut row = time(&times);
    row[2] = Some(members as f64);
    (row[3], row[4]) = (Some(snapshot?), Some(later?));
    table.row("a server starts", "ws, joins", &row);
    table.print();
    Ok(())
}

/// How many clients there are.
fn sizes(bench: &Bench, target: Target) -> &'static [usize] {
    match (bench.full, target) {
        (false, _) => &[20],
        (true, Target::Wss) => &[FEW],
        (true, _) => &[FEW, MANY],
    }
}

/// A single server, one that shares its chat, and several: rounds of these alternate.
fn measure(
    bench: &mut Bench,
    engine: &mut Engine,
    target: Target,
    clients: usize,
    readers: Readers,
    parts: Parts,
) -> Result<Vec<Chat>> {
    let mut chats = vec![Chat::start(bench, None, target, 1, clients, readers)?];
    for servers in [1, SERVERS] {
        chats.push(Chat::start(bench, Some(engine), target, servers, clients, readers)?);
    }
    for _ in 0..bench.rounds(ROUNDS) {
        for chat in &mut chats {
            chat.round(bench, engine, parts)?;
        }
    }
    Ok(chats)
}

impl Engine {
    fn url(&self) -> String {
        format!("redis://{}", self.child.address)
    }

    /// The `CLUSTER_NAME` of another chat.
    fn new_chat(&mut self) -> String {
        self.chats += 1;
        format!("chat-{}", self.chats)
    }
}

impl Chat {
    /// `engine`: `None` for a server that runs by itself.
    fn start(
        bench: &Bench,
        engine: Option<&mut Engine>,
        target: Target,
        count: usize,
        clients: usize,
        readers: Readers,
    ) -> Result<Self> {
        let name = match (target, &engine, count) {
            (Target::Wss, None, _) => "wss",
            (Target::Wss, Some(_), 1) => "wss, shared",
            (Target::Wss, Some(_), _) => "wss, three",
            (_, None, _) => "ws",
            (_, Some(_), 1) => "ws, shared",
            (_, Some(_), _) => "ws, three",
        };
        let shared = engine.map(|engine| (engine.url(), engine.new_chat()));
        let settings: Vec<(&str, &str)> = match &shared {
            Some((url, name)) => vec![("CLUSTER_URL", url), ("CLUSTER_NAME", name)],
            None => Vec::new(),
        };
        let servers: Vec<Child> =
            (0..count).map(|_| target.start_with(bench, &settings)).collect::<Result<_>>()?;
        let all: Vec<&Child> = servers.iter().collect();
        let crowd = Crowd::join_all(&all, clients, target.sends(), readers)?;
        let ended = servers.iter().map(ended_threads).collect::<Result<_>>()?;
        Ok(Self { name, servers, crowd, ended, rounds: Vec::new() })
    }

    fn round(&mut self, bench: &mut Bench, engine: &Engine, parts: Parts) -> Result<()> {
        let times = |servers: &[Child]| -> Result<Vec<Duration>> {
            servers.iter().chain([&engine.child]).map(Child::processor_time).collect()
        };
        let before = times(&self.servers)?;
        let exchange = self.crowd.exchange(parts)?;
        if parts.interval.is_none() {
            // The engine writes its file afterwards.
            thread::sleep(WRITE_TIME);
        }
        let after = times(&self.servers)?;
        bench.report.lost(exchange.lost);
        let mut servers: Vec<f64> =
            after.iter().zip(before).map(|(after, before)| (*after - before).as_secs_f64()).collect();
        let engine = servers.pop().unwrap_or_default();
        self.rounds.push(Round { exchange, servers, engine });
        Ok(())
    }
}

/// The figures of a chat, next to those of a single server.
struct Figures<'a> {
    chat: &'a Chat,
    one: &'a Chat,
    parts: Parts,
    clients: usize,
}

impl Figures<'_> {
    fn messages(&self) -> f64 {
        (self.parts.senders * self.parts.messages) as f64
    }

    fn deliveries(&self) -> f64 {
        self.messages() * (self.clients - 1) as f64
    }

    /// The processor time for each delivery, of all servers; for each message, of the busiest server; how many times as
    /// much the servers could deliver as one, with a processor each; and the engine's for each message.
    fn processor(&self) -> [Option<f64>; 4] {
        let each = self.compare(|chat, round| {
            let all: f64 = round.servers.iter().sum::<f64>() + chat.ended().iter().sum::<f64>();
            all / self.deliveries()
        });
        let busiest = self.busiest();
        let engine = self.compare(|_, round| round.engine / self.messages()).figure;
        let is_shared = !std::ptr::eq(self.chat, self.one);
        [
            Some(each.figure),
            Some(busiest.figure),
            is_shared.then_some(busiest.by_one),
            is_shared.then_some(engine),
        ]
    }

    /// The processor time of the busiest server for each message.
    fn busiest(&self) -> Compared {
        self.compare(|chat, round| {
            let all = round.servers.iter().zip(chat.ended()).map(|(lasting, ended)| lasting + ended);
            all.fold(0.0, f64::max) / self.messages()
        })
    }

    /// Medians of a figure. Rounds are compared with the single server's of the same time.
    fn compare(&self, figure: impl Fn(&Chat, &Round) -> f64) -> Compared {
        let pairs: Vec<[f64; 2]> = (self.chat.rounds.iter().zip(&self.one.rounds))
            .map(|(round, one)| [figure(self.chat, round), figure(self.one, one)])
            .collect();
        Compared {
            figure: median(pairs.iter().map(|[figure, _]| *figure)),
            by_one: median(pairs.iter().map(|[figure, one]| one / figure)),
            above_one: median(pairs.iter().map(|[figure, one]| figure - one)),
        }
    }
}

impl Chat {
    /// The processor time of each server's threads that have ended since, in seconds for each round: those that encode
    /// snapshots.
    fn ended(&self) -> Vec<f64> {
        let rounds = self.rounds.len() as f64;
        let since = |(server, before): (&Child, &f64)| {
            (ended_threads(server).unwrap_or(*before) - before).max(0.0) / rounds
        };
        self.servers.iter().zip(&self.ended).map(since).collect()
    }
}

/// The processor time of the server's threads that have ended, in seconds.
fn ended_threads(server: &Child) -> Result<f64> {
    let lasting = server.processor_time()?;
    Ok(server.total_processor_time()?.as_secs_f64() - lasting.as_secs_f64())
}

/// Starts a server, and ends it once it listens.
fn start_time(bench: &Bench, settings: &[(&str, &str)]) -> Result<f64> {
    let start = Instant::now();
    Target::Ws.start_with(bench, settings)?;
    Ok(start.elapsed().as_secs_f64())
}

fn until(mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !is_done()? {
        if Instant::now() > deadline {
            return Err("the server is too slow".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
