//! How long a name stays taken after its connection was reset, with messages that the server has not read.

use std::time::{Duration, Instant};

use crate::room::{Room, join, system_line};
use crate::support::Result;
use crate::support::connection::{Connection, Options};
use crate::support::frames::masked;
use crate::{ATTACKER, Bench, PROXIES};

/// In seconds: what a client had sent is read for ten (docs/protocol.md), and this much for a busy machine.
const MAX_SECONDS: f64 = 10.0 + 2.0;
/// How long this part waits, in seconds.
const TIMEOUT: f64 = 60.0;

pub fn run(bench: &mut Bench) -> Result<()> {
    let (count, queued) = (bench.size.resets, bench.size.queued_messages);
    println!("reset: {count} members send {queued} messages at once, and reset their connections");
    let server = bench.server(&[PROXIES])?;
    let options = Options { forwarded_for: Some("198.51.100.200"), ..Options::default() };
    let mut listener = Room::join(&server, &["listener".into()], options)?;
    let options = Options { forwarded_for: Some(ATTACKER), ..Options::default() };
    let message = masked(r#"{"type":"public","content":"one of many"}"#);
    let mut connections = Vec::new();
    for number in 0..count {
        let mut connection = Connection::open(&server, options)?;
        connection.queue_text(&join(&format!("name{number}")));
        (0..queued).for_each(|_| connection.queue(&message));
        connections.push(connection);
    }
    let mut joined = 0;
    let mut is_sent = vec![false; count];
    while joined < count || is_sent.contains(&false) {
        for (connection, is_sent) in connections.iter_mut().zip(&mut is_sent) {
            *is_sent = connection.flush()?;
        }
        listener.receive(Duration::from_millis(1), |_, message| {
            joined += usize::from(system_line(message).is_some_and(|line| line.ends_with(" joined.")));
        })?;
    }
    connections.into_iter().for_each(Connection::reset);
    let start = Instant::now();
    let (mut left, mut longest) = (0, TIMEOUT);
    while left < count && start.elapsed().as_secs_f64() < TIMEOUT {
        listener.receive(Duration::from_millis(10), |_, message| {
            if system_line(message).is_some_and(|line| line.ends_with(" left.")) {
                left += 1;
                longest = start.elapsed().as_secs_f64();
            }
        })?;
    }
    if left < count {
        longest = TIMEOUT;
    }
    bench.at_most("until the last of the names was free", longest, MAX_SECONDS, "s");
    Ok(())
}
