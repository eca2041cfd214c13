//! The memory that clients cost that accept nothing, while others fill the server's batches.

use std::thread;
use std::time::{Duration, Instant};

use crate::room::{Room, is_type, join};
use crate::support::Result;
use crate::support::connection::{Connection, Options};
use crate::support::frames::masked;
use crate::support::http::metric;
use crate::{Bench, MIB};

/// The default of `SEND_QUEUE_BYTES`.
const SEND_QUEUE_BYTES: f64 = 1024.0 * 1024.0;
/// What waits for each stalled client in the end, unless the time is over first: they must not be cut off.
const TARGET: f64 = 0.7 * SEND_QUEUE_BYTES;
const MAX_TIME: Duration = Duration::from_secs(15);
/// The attack ends when the server uses this much memory, in bytes.
const MAX_RESIDENT: u64 = 2 * 1024 * 1024 * 1024;
/// A stalled client's messages, in bytes: not so short that a server would copy each of them.
const WHISPER_BYTES: usize = 4400;
const FILLER_BYTES: usize = 16_000;
const FILLERS: usize = 8;
/// How many messages may be on their way to fillers: they must not be cut off either.
const MAX_OUTSTANDING: usize = 128;
const MAX_WHISPERS: usize = 4;
const RECEIVE_BUFFER: usize = 4096;
/// How long the server has to return memory.
const RETURN_TIME: Duration = Duration::from_secs(10);
/// The memory that may remain, in bytes: this, and 128 KiB for each connection that there was.
const KEPT_BASE: f64 = 16.0 * MIB;
const KEPT_EACH: f64 = 128.0 * 1024.0;

pub fn run(bench: &mut Bench) -> Result<()> {
    let count = bench.size.stalled;
    println!("stalled: {count} clients read nothing, while others send them whispers, and each other more");
    // Rates would only make the attack slower.
    let server = bench.server(&[("MESSAGE_RATE", "0")])?;
    let names: Vec<String> = (0..=FILLERS).map(|number| format!("reader{number}")).collect();
    let mut readers = Room::join(&server, &names, Options::default())?;
    let options = Options { receive_buffer: Some(RECEIVE_BUFFER), ..Options::default() };
    let mut stalled = Vec::new();
    for number in 0..count {
        let mut connection = Connection::open(&server, options)?;
        connection.queue_text(&join(&format!("stalled{number}")));
        connection.flush()?;
        stalled.push(connection);
    }
    // All have joined when the readers get no more lists.
    readers.drain(Duration::from_millis(300))?;
    let before = server.resident()?;

    let whisper = |to: &str, length: usize| {
        let content = "x".repeat(length);
        masked(&format!(r#"{{"type":"command","content":"/whisper {to} {content}"}}"#))
    };
    let whispers: Vec<Vec<u8>> =
        (0..count).map(|number| whisper(&format!("stalled{number}"), WHISPER_BYTES)).collect();
    // Each filler whispers to the next.
    let fillers: Vec<Vec<u8>> = (0..FILLERS)
        .map(|number| whisper(&format!("reader{}", (number + 1) % FILLERS), FILLER_BYTES))
        .collect();
    let start = Instant::now();
    let (mut peak, mut charged, mut next, mut checked) = (before, 0.0_f64, 0, start);
    let (mut outstanding, mut whispers_outstanding) = (0_usize, 0_usize);
    let target = TARGET * count as f64;
    while start.elapsed() < MAX_TIME && peak < MAX_RESIDENT && charged < target {
        let may_send = MAX_OUTSTANDING.saturating_sub(outstanding) / 2;
        for (number, filler) in fillers.iter().enumerate().take(may_send) {
            readers.member(number).queue(filler);
            // One to the recipient, and an echo.
            outstanding += 2;
        }
        // One at a time, so that each is in a batch that is full of what others get.
        if whispers_outstanding < MAX_WHISPERS {
            readers.member(FILLERS).queue(&whispers[next % count]);
            whispers_outstanding += 1;
            next += 1;
        }
        readers.receive(Duration::from_micros(100), |number, message| {
            if is_type(message, "private") {
                let count = if number == FILLERS { &mut whispers_outstanding } else { &mut outstanding };
                *count -= 1;
            }
        })?;
        if checked.elapsed() > Duration::from_millis(100) {
            checked = Instant::now();
            peak = peak.max(server.resident()?);
            charged = charged.max(metric(&server, "tinychat_send_queue_bytes", "")?);
        }
    }
    let each = (peak.saturating_sub(before)) as f64 / count as f64;
    println!(
        "  in {:.1} s: {next} whispers to stalled clients, {:.1} MiB charged, {:.1} MiB taken",
        start.elapsed().as_secs_f64(),
        charged / MIB,
        (peak - before) as f64 / MIB
    );
    bench.at_most("memory for each stalled client", each / MIB, 2.0 * SEND_QUEUE_BYTES / MIB, "MiB");
    stalled.into_iter().for_each(Connection::reset);
    readers.drain(Duration::from_millis(300))?;
    drop(readers);
    let allowed = KEPT_BASE + KEPT_EACH * (count + FILLERS) as f64;
    let deadline = Instant::now() + RETURN_TIME;
    let mut kept = server.resident()?.saturating_sub(before);
    while kept as f64 > allowed && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
        kept = server.resident()?.saturating_sub(before);
    }
    bench.at_most("memory kept after all have left", kept as f64 / MIB, allowed / MIB, "MiB");
    Ok(())
}
