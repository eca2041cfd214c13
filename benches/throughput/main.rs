//! What the server does under load, on loopback, each figure beside a floor measured in the same run: a bare
//! relay of frames (`relay.rs`) driven by the very same clients.
//!
//! `cargo bench` measures; `cargo bench -- burst` (or `presence`, `memory`) measures only that. Without the
//! `--bench` that cargo passes, as in `cargo test --all-targets`, everything runs once and small, to see that it
//! works.
//!
//! This is no criterion benchmark: criterion times a closure in this process, again and again. Here the work is
//! done by another process, whose processor time and memory are the point, and what is compared are rounds of
//! the server and of the floor in turn, so that a busy machine does both the same wrong.

mod child;
mod crowd;
mod relay;

use std::env;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use child::Child;
use crowd::{Crowd, Says};
use tempfile::TempDir;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// With this argument the program is the relay.
const RELAY: &str = "relay";

/// How much is done.
struct Size {
    rounds: usize,
    members: usize,
    senders: usize,
    /// From each sender in each round. All of a burst fits in `SEND_QUEUE_BYTES`, so a client that the machine
    /// leaves waiting is not cut off.
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

    crowd::raise_descriptor_limit(size.idle.max(size.joining));
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

/// Some say much at once, and all hear it.
fn burst(size: &Size, directory: &TempDir) -> Result<()> {
    let deliveries = size.senders * size.messages * (size.members - 1);
    println!(
        "burst: {} clients, {} of them send {} messages each at once; medians of {} rounds",
        size.members, size.senders, size.messages, size.rounds
    );
    let mut parties = Vec::new();
    for (name, child, says) in [
        ("floor", Child::relay(directory)?, Says::WhatTheServerWould),
        ("ws", Child::server(directory, false)?, Says::Public),
        ("wss", Child::server(directory, true)?, Says::Public),
    ] {
        let crowd = Crowd::join(&child, size.members, says)?;
        parties.push((name, child, crowd, Vec::new()));
    }
    for _ in 0..size.rounds {
        for (_, child, crowd, rounds) in &mut parties {
            let before = child.processor_time()?;
            let time = crowd.burst(size.senders, size.messages)?;
            rounds.push(Round { time, processor: child.processor_time()? - before });
        }
    }
    let [floor, ..] = &parties[..] else { unreachable!() };
    for (name, _, _, rounds) in &parties {
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

struct Round {
    time: Duration,
    processor: Duration,
}

/// Many join at once, and all want to know who is there.
fn presence(size: &Size, directory: &TempDir) -> Result<()> {
    println!(
        "presence: {} clients join at once; medians of {} rounds. The floor: one list to each",
        size.joining, size.presence_rounds
    );
    let (mut floors, mut times, mut processor, mut lists, mut bytes) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.presence_rounds {
        let relay = Child::relay(directory)?;
        let mut crowd = Crowd::connect(&relay, size.joining, Says::WhatTheServerWould)?;
        floors.push(crowd.one_list()?.as_secs_f64());
        let server = Child::server(directory, false)?;
        let mut crowd = Crowd::connect(&server, size.joining, Says::Public)?;
        let before = server.processor_time()?;
        let heard = crowd.join_at_once()?;
        processor.push((server.processor_time()? - before).as_secs_f64() * 1e3);
        times.push(heard.time.as_secs_f64());
        lists.push(heard.lists as f64 / size.joining as f64);
        bytes.push(heard.bytes as f64 / (1024.0 * 1024.0));
    }
    let (floor, time) = (median(floors), median(times));
    println!("  floor {:6.1} ms", floor * 1e3);
    println!(
        "  ws    {:6.1} ms until all have the list of all ({:.1} times the floor)",
        time * 1e3,
        time / floor
    );
    println!(
        "        {:.1} lists per client, {:.1} MiB of lists in all, {:.0} ms of CPU",
        median(lists),
        median(bytes),
        median(processor)
    );
    Ok(())
}

/// Many have joined at once, which is when the server needs most, and nothing is said any more.
fn memory(size: &Size, directory: &TempDir) -> Result<()> {
    println!("memory: {} idle members; medians of {} rounds", size.idle, size.memory_rounds);
    let (mut floors, mut members) = (Vec::new(), Vec::new());
    let kilobytes_each = |child: &Child, before: u64| -> Result<f64> {
        Ok((child.resident()? - before) as f64 / 1024.0 / size.idle as f64)
    };
    for _ in 0..size.memory_rounds {
        let relay = Child::relay(directory)?;
        let before = relay.resident()?;
        let mut crowd = Crowd::connect(&relay, size.idle, Says::WhatTheServerWould)?;
        crowd.one_list()?;
        floors.push(kilobytes_each(&relay, before)?);
        let server = Child::server(directory, false)?;
        let before = server.resident()?;
        let mut crowd = Crowd::connect(&server, size.idle, Says::Public)?;
        crowd.join_at_once()?;
        crowd.settle()?;
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

/// Something that did not come in time.
#[derive(Debug)]
pub struct TimedOut(pub &'static str);

impl fmt::Display for TimedOut {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "this did not come in time: {}", self.0)
    }
}

impl Error for TimedOut {}
