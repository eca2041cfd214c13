//! burst: clients send many messages at once, each to all others.

use std::thread;
use std::time::Duration;

use crate::Bench;
use crate::crowd::{Crowd, Last, Parts, Readers};
use crate::report::{Column, median, microseconds, millions, ratio};
use crate::support::Result;
use crate::support::child::Child;
use crate::target::Target;

const COLUMNS: &[Column] = &columns("of floor", "of floor's");
const STORED_COLUMNS: &[Column] = &columns("of ws", "of ws's");

/// `deliveries`, `processor`: the titles of the comparisons with the first target.
const fn columns(deliveries: &'static str, processor: &'static str) -> [Column; 4] {
    [
        Column { title: "deliveries/s", show: millions },
        Column { title: deliveries, show: ratio },
        Column { title: "CPU each", show: microseconds },
        Column { title: processor, show: ratio },
    ]
}

/// How long the store's thread may take to write a burst: a commit is due 100 ms after its first message.
pub const WRITE_TIME: Duration = Duration::from_millis(250);

/// One burst.
struct Round {
    /// How many seconds it took, for each delivery.
    each: f64,
    /// The processor time of the target for each delivery, in seconds, until everything is written as well.
    processor: f64,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    // About the same number of deliveries for both.
    for (clients, messages) in [(100, 8000), (1000, 2000)] {
        let clients = bench.size(clients, 20);
        let messages = bench.size(messages, 100);
        crowd(bench, "burst", COLUMNS, &Target::ALL, clients, messages, Duration::ZERO)?;
    }
    Ok(())
}

/// Without and with the store. Each burst is written before the next one begins.
pub fn stored(bench: &mut Bench) -> Result<()> {
    let (clients, messages) = (bench.size(100, 20), bench.size(8000, 100));
    crowd(bench, "burst, stored", STORED_COLUMNS, &Target::STORED, clients, messages, WRITE_TIME)
}

/// Bursts of this many messages in all, and a pause after each. The targets are compared with the first of them.
fn crowd(
    bench: &mut Bench,
    case: &'static str,
    columns: &'static [Column],
    all: &[Target],
    clients: usize,
    messages: usize,
    pause: Duration,
) -> Result<()> {
    let mut targets = Vec::new();
    for &target in all {
        let child = target.start(bench)?;
        let crowd = Crowd::join(&child, clients, target.sends(), Readers::Few)?;
        targets.push((target, child, crowd));
    }
    let senders: Vec<usize> = [1, 10, 50].into_iter().filter(|&senders| senders < clients).collect();
    let mut rounds: Vec<Vec<Vec<Round>>> =
        senders.iter().map(|_| all.iter().map(|_| Vec::new()).collect()).collect();
    for _ in 0..bench.rounds(9) {
        for (&senders, rounds) in senders.iter().zip(&mut rounds) {
            let parts = Parts { senders, messages: messages / senders, interval: None, last: Last::Receives };
            let deliveries = senders * parts.messages * (clients - 1);
            for ((_, child, crowd), rounds) in targets.iter_mut().zip(rounds) {
                rounds.push(burst(bench, child, crowd, parts, deliveries as f64, pause)?);
            }
        }
    }
    let mut table = bench.report.table(case, columns);
    for (senders, rounds) in senders.iter().zip(&rounds) {
        let what = format!("{clients} clients, {senders} send");
        let floor = &rounds[0];
        for ((target, ..), rounds) in targets.iter().zip(rounds) {
            let pairs = || rounds.iter().zip(floor);
            let is_compared = *target != all[0];
            table.row(
                &what,
                target.name(),
                &[
                    Some(median(rounds.iter().map(|round| 1.0 / round.each))),
                    is_compared.then(|| median(pairs().map(|(round, floor)| floor.each / round.each))),
                    Some(median(rounds.iter().map(|round| round.processor))),
                    is_compared
                        .then(|| median(pairs().map(|(round, floor)| round.processor / floor.processor))),
                ],
            );
        }
    }
    table.print();
    Ok(())
}

fn burst(
    bench: &mut Bench,
    child: &Child,
    crowd: &mut Crowd,
    parts: Parts,
    deliveries: f64,
    pause: Duration,
) -> Result<Round> {
    let before = child.processor_time()?;
    let exchange = crowd.exchange(parts)?;
    thread::sleep(pause);
    let processor: Duration = child.processor_time()? - before;
    bench.report.lost(exchange.lost);
    Ok(Round {
        each: exchange.time.as_secs_f64() / deliveries,
        processor: processor.as_secs_f64() / deliveries,
    })
}
