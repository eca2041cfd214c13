//! The server under load, on loopback. Each figure is shown next to a floor from the same run: a bare relay of
//! frames (`relay.rs`) with the same clients. See docs/benchmarks.md.
//!
//! `cargo bench --bench throughput` runs everything, and with `-- burst` (or `presence`, `memory`) one part. Without
//! the `--bench` that cargo passes, as in `cargo test --all-targets`, everything runs once at a small size, to check
//! that it works.
//!
//! This does not use criterion, which times a closure in its own process. Here another process does the work, and its
//! processor time and memory are measured. Rounds of the server and of the floor alternate, so that other load on the
//! machine affects both.

mod clients;
mod relay;
#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::error::Error;
use std::fmt;
use std::process::Command;
use std::time::Duration;

use clients::{Clients, Sends};
use support::child::Child;
use support::{Result, raise_descriptor_limit};
use tempfile::TempDir;

/// With this argument the benchmark runs as the relay.
const RELAY: &str = "relay";

/// How much work the parts do.
struct Size {
    rounds: usize,
    members: usize,
    senders: usize,
    /// From each sender in each round. A whole burst fits into `SEND_QUEUE_BYTES`, so that no client is cut off when
    /// the machine is busy.
    messages: usize,
    presence_rounds: usize,
    joining: usize,
    memory_rounds: usize,
    idle: usize,
}

const FULL: Size = Size {
    rounds: 15,
    members: 100,
    senders: 10,
    messages: 800,
    presence_rounds: 5,
    joining: 400,
    memory_rounds: 3,
    idle: 1000,
};

const SMALL: Size = Size {
    rounds: 1,
    members: 10,
    senders: 2,
    messages: 20,
    presence_rounds: 1,
    joining: 20,
    memory_rounds: 1,
    idle: 20,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has(RELAY) {
        return relay::run();
    }
    if has("--list") {
        println!("throughput: benchmark");
        return Ok(());
    }
    let size = if has("--bench") { FULL } else { SMALL };
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));

    raise_descriptor_limit(size.idle.max(size.joining));
    let directory = TempDir::new()?;
    if wanted("burst") {
        burst(&size, &directory)?;
    }
    if wanted("presence") {
        presence(&size, &directory)?;
    }
    if wanted("memory") {
        memory(&size, &directory)?;
    }
    Ok(())
}

/// Some members send many messages at once to all.
fn burst(size: &Size, directory: &TempDir) -> Result<()> {
    let deliveries = size.senders * size.messages * (size.members - 1);
    println!(
        "burst: {} clients, {} of them send {} messages each at once; medians of {} rounds",
        size.members, size.senders, size.messages, size.rounds
    );
    let mut targets = Vec::new();
    for (name, child, sends) in [
        ("floor", relay(directory)?, Sends::ServerFrames),
        ("ws", server(directory, false)?, Sends::Messages),
        ("wss", server(directory, true)?, Sends::Messages),
    ] {
        let clients = Clients::join(&child, size.members, sends)?;
        targets.push((name, child, clients, Vec::new()));
    }
    for _ in 0..size.rounds {
        for (_, child, clients, rounds) in &mut targets {
            let before = child.processor_time()?;
            let time = clients.burst(size.senders, size.messages)?;
            rounds.push(Round { time, processor: child.processor_time()? - before });
        }
    }
    let [floor, ..] = &targets[..] else { unreachable!() };
    for (name, _, _, rounds) in &targets {
        let rate = median(rounds.iter().map(|round| deliveries as f64 / round.time.as_secs_f64()));
        let each = median(rounds.iter().map(|round| round.processor.as_secs_f64() * 1e6 / deliveries as f64));
        let pairs = || rounds.iter().zip(&floor.3);
        let rates = median(pairs().map(|(round, floor)| floor.time.as_secs_f64() / round.time.as_secs_f64()));
        let costs = median(
            pairs().map(|(round, floor)| round.processor.as_secs_f64() / floor.processor.as_secs_f64()),
        );
        println!(
            "  {name:<5} {:5.2} M deliveries/s ({}){}",
            rate / 1e6,
            format_args!("{rates:.2} of the floor"),
            format_args!("  {each:.3} µs of CPU each ({costs:.2} times the floor)"),
        );
    }
    Ok(())
}

/// The floor, in a process of its own.
fn relay(directory: &TempDir) -> Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(RELAY);
    Child::start(command, directory, None)
}

/// The server with its default settings, but without a message rate, and without pings, which would be counted as bytes
/// of messages.
fn server(directory: &TempDir, tls: bool) -> Result<Child> {
    Child::server(directory, tls, &[("MESSAGE_RATE", "0"), ("PING_INTERVAL", "3600")])
}

struct Round {
    time: Duration,
    processor: Duration,
}

/// Many clients join at once, and each needs the complete list.
fn presence(size: &Size, directory: &TempDir) -> Result<()> {
    println!(
        "presence: {} clients join at once; medians of {} rounds. The floor: one list to each client",
        size.joining, size.presence_rounds
    );
    let (mut floors, mut times, mut processor, mut lists, mut bytes) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.presence_rounds {
        let relay = relay(directory)?;
        let mut clients = Clients::connect(&relay, size.joining, Sends::ServerFrames)?;
        floors.push(clients.one_list()?.as_secs_f64());
        let server = server(directory, false)?;
        let mut clients = Clients::connect(&server, size.joining, Sends::Messages)?;
        let before = server.processor_time()?;
        let received = clients.join_at_once()?;
        processor.push((server.processor_time()? - before).as_secs_f64() * 1e3);
        times.push(received.time.as_secs_f64());
        lists.push(received.lists as f64 / size.joining as f64);
        bytes.push(received.bytes as f64 / (1024.0 * 1024.0));
    }
    let (floor, time) = (median(floors), median(times));
    println!("  floor {:6.1} ms", floor * 1e3);
    println!(
        "  ws    {:6.1} ms until all clients have the complete list ({:.1} times the floor)",
        time * 1e3,
        time / floor
    );
    println!(
        "        {:.1} lists per client, {:.1} MiB of lists in total, {:.0} ms of CPU",
        median(lists),
        median(bytes),
        median(processor)
    );
    Ok(())
}

/// Many members have joined at once, which takes the most memory, and are now idle.
fn memory(size: &Size, directory: &TempDir) -> Result<()> {
    println!("memory: {} idle members; medians of {} rounds", size.idle, size.memory_rounds);
    let (mut floors, mut members) = (Vec::new(), Vec::new());
    let kilobytes_each = |child: &Child, before: u64| -> Result<f64> {
        Ok((child.resident()? - before) as f64 / 1024.0 / size.idle as f64)
    };
    for _ in 0..size.memory_rounds {
        let relay = relay(directory)?;
        let before = relay.resident()?;
        let mut clients = Clients::connect(&relay, size.idle, Sends::ServerFrames)?;
        clients.one_list()?;
        floors.push(kilobytes_each(&relay, before)?);
        let server = server(directory, false)?;
        let before = server.resident()?;
        let mut clients = Clients::connect(&server, size.idle, Sends::Messages)?;
        clients.join_at_once()?;
        clients.drain()?;
        members.push(kilobytes_each(&server, before)?);
    }
    println!("  floor {:5.1} KB per connection", median(floors));
    println!("  ws    {:5.1} KB per member", median(members));
    Ok(())
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Something that was not received in time.
#[derive(Debug)]
pub struct TimedOut(pub &'static str);

impl fmt::Display for TimedOut {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "timed out waiting for {}", self.0)
    }
}

impl Error for TimedOut {}
