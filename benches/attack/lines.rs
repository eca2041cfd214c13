//! One address attacks a room whose members are on slow lines: which of them stay, and what each listener gets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::attackers::{Attackers, Then};
use crate::room::{self, Room, is_type, join, system_line};
use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::{Connection, Options};
use crate::support::frames::masked;
use crate::{Bench, MIB, PROXIES};

/// Members' lines, in Mbit/s.
const LINES: [u32; 3] = [1, 10, 30];
/// Kernel buffers of a member, in bytes: little more than what its line carries in 20 ms.
const RECEIVE_BUFFERS: [usize; 3] = [4 * 1024, 32 * 1024, 96 * 1024];
/// How often the lines carry bytes.
const TICK: Duration = Duration::from_millis(1);
/// The most that a line makes up for after a pause, in seconds.
const MAX_CATCH_UP: f64 = 0.02;

/// The contract (docs/protocol.md) for what one address sends: as much as eight connections (`MAX_SENDERS_PER_IP`)
/// with a burst of 20 (`MESSAGE_BURST`) and 5 a second (`MESSAGE_RATE`), where each KiB counts.
const BURST_KIB: f64 = 8.0 * 20.0;
const KIB_PER_SECOND: f64 = 8.0 * 5.0;
/// Allowed above the contract, for timer inaccuracy.
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
        println!(" {name}, {connections} connections:");
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

fn scenario(bench: &mut Bench, name: &str, attackers: Attackers, length: usize) -> Result<()> {
    let server = bench.server(&[PROXIES])?;
    let mut listener = Listener::join(&server)?;
    let mut lines = Vec::new();
    for (line, (&megabits, &buffer)) in LINES.iter().zip(&RECEIVE_BUFFERS).enumerate() {
        for number in 0..bench.size.members_per_line {
            let address = format!("198.51.100.{}", line * 20 + number + 1);
            lines.push(Line::join(&server, &format!("line{megabits}-{number}"), &address, megabits, buffer)?);
        }
    }
    while listener.joined < lines.len() {
        listener.receive();
        lines.iter_mut().for_each(Line::tick);
    }
    listener.reset();
    lines.iter_mut().for_each(|line| line.bytes = 0);

    let start = Instant::now();
    let is_over = AtomicBool::new(false);
    let connections = thread::scope(|scope| -> Result<usize> {
        let attack = scope.spawn(|| attackers.run(&server, &is_over).map_err(|error| error.to_string()));
        while start.elapsed().as_secs_f64() < bench.size.attack_seconds {
            listener.receive();
            lines.iter_mut().for_each(Line::tick);
        }
        is_over.store(true, Ordering::Relaxed);
        Ok(attack.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let members = room::list(&server, "198.51.100.201")?;
    println!(
        "  at the listener: {:.0} messages/s, {:.2} MiB/s of everything; {connections} attacking connections opened",
        listener.messages as f64 / listener.seconds(),
        listener.bytes as f64 / MIB / listener.seconds(),
    );
    for megabits in LINES {
        let of_line = || lines.iter().filter(|line| line.megabits == megabits);
        let read: usize = of_line().map(|line| line.bytes).sum();
        let rate = read as f64 * 8e-6 / seconds / of_line().count() as f64;
        let gone = of_line().filter(|line| !members.contains(&format!(r#""{}""#, line.name))).count();
        let first = listener.left.iter().find(|(name, _)| name.starts_with(&format!("line{megabits}-")));
        let first = first.map_or(String::new(), |(_, after)| format!(", the first after {after:.1} s"));
        let what =
            format!("{name}: members at {megabits} Mbit/s cut off (they read {rate:.2} Mbit/s{first})");
        bench.at_most(&what, gone as f64, 0.0, &format!("of {}", of_line().count()));
    }
    if let Some(after) = listener.ended {
        bench.fail(&format!(
            "{name}: a member on this machine was cut off after {:.1} s",
            after.as_secs_f64()
        ));
    }
    let kib = (listener.messages * length.div_ceil(KIB)) as f64 / listener.seconds();
    let contract = (BURST_KIB / listener.seconds() + KIB_PER_SECOND) * SLACK;
    bench.at_most(
        &format!("{name}: delivered to each listener, every message rounded up"),
        kib,
        contract,
        "KiB/s",
    );
    Ok(())
}

/// A member on a fast line, which counts.
struct Listener {
    room: Room,
    start: Instant,
    /// When it was cut off.
    ended: Option<Duration>,
    joined: usize,
    messages: usize,
    bytes: usize,
    /// The members that have left, and after how many seconds.
    left: Vec<(String, f64)>,
}

impl Listener {
    fn join(server: &Child) -> Result<Self> {
        let options = Options { forwarded_for: Some("198.51.100.200"), ..Options::default() };
        let room = Room::join(server, &["listener".into()], options)?;
        let start = Instant::now();
        Ok(Self { room, start, ended: None, joined: 0, messages: 0, bytes: 0, left: Vec::new() })
    }

    fn reset(&mut self) {
        (self.start, self.messages, self.bytes) = (Instant::now(), 0, 0);
    }

    /// How long it has counted.
    fn seconds(&self) -> f64 {
        self.ended.unwrap_or_else(|| self.start.elapsed()).as_secs_f64()
    }

    fn receive(&mut self) {
        if self.ended.is_some() {
            return thread::sleep(TICK);
        }
        let received = self.room.receive(TICK, |_, message| {
            self.bytes += message.len();
            if is_type(message, "public") {
                self.messages += 1;
            } else if let Some(line) = system_line(message) {
                self.joined += usize::from(line.starts_with("line") && line.ends_with(" joined."));
                if let Some(name) = line.strip_suffix(" left.") {
                    self.left.push((name.to_owned(), self.start.elapsed().as_secs_f64()));
                }
            }
        });
        if received.is_err() {
            self.ended = Some(self.start.elapsed());
        }
    }
}

/// A member that reads no faster than its line carries.
struct Line {
    name: String,
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
        let updated = Instant::now();
        Ok(Self { name: name.into(), connection, megabits, allowance: 0.0, updated, buffer, bytes: 0 })
    }

    fn tick(&mut self) {
        let bytes_per_second = f64::from(self.megabits) * 125_000.0;
        let elapsed = self.updated.elapsed().as_secs_f64();
        self.updated = Instant::now();
        self.allowance = (self.allowance + elapsed * bytes_per_second).min(MAX_CATCH_UP * bytes_per_second);
        let Some(connection) = &mut self.connection else { return };
        let max = self.allowance as usize;
        let read = connection.flush().and_then(|_| connection.receive(&mut self.buffer[..max]));
        let Ok(read) = read.and_then(|read| connection.messages(|_, _| {}).map(|()| read)) else {
            self.connection = None;
            return;
        };
        self.allowance -= read as f64;
        self.bytes += read;
    }
}
