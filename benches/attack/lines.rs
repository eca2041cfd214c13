//! One address attacks a room whose members are on slow lines: who stays, and what each listener gets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::attackers::{Attackers, Then};
use crate::room::{Room, is_type, join, system_line};
use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::{Connection, Options};
use crate::support::frames::masked;
use crate::{Bench, PROXIES};

/// Members' lines, in Mbit/s.
const LINES: [u32; 3] = [1, 10, 30];
/// Kernel buffers of a member, in bytes: little more than what its line carries in 20 ms.
const RECEIVE_BUFFERS: [usize; 3] = [4 * 1024, 32 * 1024, 96 * 1024];
/// How often the lines carry bytes.
const TICK: Duration = Duration::from_millis(1);
/// A line that was not read for longer does not make up for it.
const MAX_CATCH_UP: f64 = 0.02;

/// The contract (docs/protocol.md) for what one address sends: as much as eight connections (`MAX_SENDERS_PER_IP`)
/// with a burst of 20 (`MESSAGE_BURST`) and 5 a second (`MESSAGE_RATE`), where each KiB counts.
const BURST_KIB: f64 = 8.0 * 20.0;
const KIB_PER_SECOND: f64 = 8.0 * 5.0;
/// Allowed above the contract, for timers.
const SLACK: f64 = 1.1;
const KIB: usize = 1024;

/// The longest message that the server accepts.
const LONG: usize = 16 * KIB;
const SHORT: usize = 64;

pub fn run(bench: &mut Bench) -> Result<()> {
    println!(
        "lines: members on lines of 1, 10 and 30 Mbit/s, {} on each; one address attacks for {} s",
        bench.size.members_per_line, bench.size.attack_seconds
    );
    let connections = bench.size.connections;
    for (name, connections, length, burst, then) in [
        ("10 connections, a burst of 20 messages of 16 KiB", connections.min(10), LONG, 20, Then::Stay),
        ("flood of messages of 16 KiB", connections, LONG, 4, Then::Repeat),
        ("flood of short messages", connections, SHORT, 100, Then::Repeat),
        ("reconnecting, 20 messages of 16 KiB each time", connections, LONG, 20, Then::Reconnect),
        ("reconnecting, 20 short messages each time", connections, SHORT, 20, Then::Reconnect),
    ] {
        println!(" {name}, {connections} connections");
        scenario(bench, name, Attackers::new(connections, message(length), burst, then), length)?;
    }
    Ok(())
}

/// A public message that is this long.
fn message(length: usize) -> Vec<u8> {
    let empty = r#"{"type":"public","content":""}"#;
    let content = "x".repeat(length - empty.len());
    masked(&format!(r#"{{"type":"public","content":"{content}"}}"#))
}

fn scenario(bench: &mut Bench, name: &str, mut attackers: Attackers, length: usize) -> Result<()> {
    let server = bench.server(&[PROXIES])?;
    let listener = Options { forwarded_for: Some("198.51.100.200"), ..Options::default() };
    let mut listener = Room::join(&server, &["listener".into()], listener)?;
    let mut lines = Vec::new();
    for (line, (&megabits, &buffer)) in LINES.iter().zip(&RECEIVE_BUFFERS).enumerate() {
        for number in 0..bench.size.members_per_line {
            let address = format!("198.51.100.{}", line * 20 + number + 1);
            lines.push(Line::join(&server, &format!("line{megabits}-{number}"), &address, megabits, buffer)?);
        }
    }
    let mut members = lines.len();
    while members > 0 {
        listener.receive(TICK, |_, message| {
            members -= usize::from(system_line(message).is_some_and(|line| line.contains(" joined.")));
        })?;
        for line in &mut lines {
            line.tick()?;
        }
    }
    lines.iter_mut().for_each(|line| line.bytes = 0);

    let start = Instant::now();
    let (mut messages, mut bytes) = (0, 0);
    let mut left: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    while start.elapsed().as_secs_f64() < bench.size.attack_seconds {
        attackers.step(&server)?;
        listener.receive(TICK, |_, message| {
            bytes += message.len();
            if is_type(message, "public") {
                messages += 1;
            } else if let Some(line) = system_line(message)
                && let Some(name) = line.strip_suffix(" left.")
                && let Some((line, _)) = name.split_once('-')
            {
                left.entry(line.to_owned()).or_default().push(start.elapsed().as_secs_f64());
            }
        })?;
        for line in &mut lines {
            line.tick()?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "  at the listener: {:.0} messages/s, {:.2} MiB/s of everything; {} attacking connections opened",
        messages as f64 / seconds,
        bytes as f64 / crate::MIB / seconds,
        attackers.connections()
    );
    for megabits in LINES {
        let key = format!("line{megabits}");
        let read: usize = lines.iter().filter(|line| line.megabits == megabits).map(|line| line.bytes).sum();
        let rate = read as f64 * 8e-6 / seconds / bench.size.members_per_line as f64;
        let times = left.get(&key).map_or(&[][..], |times| times);
        let first = times.first().map_or(String::new(), |first| format!(", the first after {first:.1} s"));
        let what =
            format!("{name}: members at {megabits} Mbit/s cut off (they read {rate:.2} Mbit/s{first})");
        bench.at_most(&what, times.len() as f64, 0.0, &format!("of {}", bench.size.members_per_line));
    }
    let kib = (messages * length.div_ceil(KIB)) as f64;
    let contract = (BURST_KIB + KIB_PER_SECOND * seconds) * SLACK;
    bench.at_most(
        &format!("{name}: messages delivered to each listener, counted by the KiB"),
        kib,
        contract,
        "",
    );
    Ok(())
}

/// A member that reads no faster than its line carries.
struct Line {
    connection: Option<Connection>,
    megabits: u32,
    /// What the line has carried and the member has not read, in bytes.
    allowance: f64,
    updated: Instant,
    buffer: Vec<u8>,
    /// How many bytes it has read.
    bytes: usize,
}

impl Line {
    fn join(server: &Child, name: &str, address: &str, megabits: u32, receive_buffer: usize) -> Result<Self> {
        let options = Options { forwarded_for: Some(address), receive_buffer: Some(receive_buffer) };
        let mut connection = Connection::open(server, options)?;
        connection.queue_text(&join(name));
        let buffer = vec![0; megabits as usize * 125_000];
        let connection = Some(connection);
        Ok(Self { connection, megabits, allowance: 0.0, updated: Instant::now(), buffer, bytes: 0 })
    }

    fn tick(&mut self) -> Result<()> {
        let bytes_per_second = f64::from(self.megabits) * 125_000.0;
        let elapsed = self.updated.elapsed().as_secs_f64();
        self.updated = Instant::now();
        self.allowance = (self.allowance + elapsed * bytes_per_second).min(MAX_CATCH_UP * bytes_per_second);
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let max = self.allowance as usize;
        let read = connection.flush().and_then(|_| connection.receive(&mut self.buffer[..max]));
        let Ok(read) = read.and_then(|read| connection.messages(|_, _| {}).map(|()| read)) else {
            // The listener sees that it has left.
            self.connection = None;
            return Ok(());
        };
        self.allowance -= read as f64;
        self.bytes += read;
        Ok(())
    }
}
