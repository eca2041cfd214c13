//! The bytes of member lists, while one address joins and leaves in a loop.

use std::time::{Duration, Instant};

use crate::room::{Room, is_type, join, system_line};
use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::{Connection, Options};
use crate::support::frames::TEXT;
use crate::{ATTACKER, Bench, MIB, PROXIES};

const LOOPS: usize = 8;
/// docs/protocol.md, in bytes per second.
const LIST_RATE: f64 = 16.0 * MIB;
/// How many may join at once (`MAX_CONNECTIONS_PER_IP`), and get their own lists at once.
const JOIN_BURST: f64 = 64.0;
/// What may be saved up before the attack, in bytes.
const SAVED: f64 = MIB;
const READ_BYTES: usize = 256 * 1024;

pub fn run(bench: &mut Bench) -> Result<()> {
    let count = bench.size.listed_members;
    println!("lists: one address joins and leaves in {LOOPS} loops, in a room of {count}");
    let server = bench.server(&[PROXIES])?;
    let names: Vec<String> = (0..count).map(|number| format!("member{number:04}")).collect();
    let mut room = Room::join(&server, &names, Options::default())?;
    room.drain(Duration::from_secs(1))?;

    let mut loops: Vec<Loop> = (0..LOOPS).map(|number| Loop { number, connection: None }).collect();
    let (mut lists, mut list_bytes, mut bytes, mut longest, mut joins) = (0, 0, 0, 0, 0);
    let mut count_message = |message: &[u8]| {
        bytes += message.len();
        if is_type(message, "user_list") {
            lists += 1;
            list_bytes += message.len();
            longest = longest.max(message.len());
        }
    };
    let mut buffer = vec![0; READ_BYTES];
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < bench.size.list_seconds {
        for each in &mut loops {
            joins += usize::from(each.step(&server, &mut buffer, &mut count_message)?);
        }
        room.receive(Duration::from_millis(1), |_, message| count_message(message))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "  {:.0} joins/s, {:.1} MiB/s of everything, {:.0} lists/s, {:.1} KiB each",
        joins as f64 / seconds,
        bytes as f64 / MIB / seconds,
        lists as f64 / seconds,
        longest as f64 / 1024.0
    );
    let burst = JOIN_BURST * longest as f64 + SAVED;
    let allowed = (LIST_RATE * seconds + burst) / seconds;
    bench.at_most("lists", list_bytes as f64 / MIB / seconds, allowed / MIB, "MiB/s");
    Ok(())
}

struct Loop {
    number: usize,
    connection: Option<Connection>,
}

impl Loop {
    /// Does what can be done without waiting. Returns whether it has joined, and therefore left.
    fn step(&mut self, server: &Child, buffer: &mut [u8], mut count: impl FnMut(&[u8])) -> Result<bool> {
        let name = format!("loop{}", self.number);
        let Some(connection) = &mut self.connection else {
            let options = Options { forwarded_for: Some(ATTACKER), ..Options::default() };
            let mut connection = Connection::open(server, options)?;
            connection.queue_text(&join(&name));
            self.connection = Some(connection);
            return Ok(false);
        };
        let mut has_joined = false;
        let mut is_refused = false;
        let received = connection.flush().and_then(|_| connection.receive(buffer)).and_then(|_| {
            connection.messages(|opcode, message| {
                if opcode == TEXT {
                    count(message);
                    has_joined |= system_line(message) == Some(&format!("{name} joined."));
                    // The server has not noticed yet that the last connection was closed.
                    is_refused |= is_type(message, "error");
                }
            })
        });
        if has_joined || is_refused || received.is_err() {
            self.connection = None;
        }
        Ok(has_joined)
    }
}
