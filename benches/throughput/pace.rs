//! pace: a lively conversation. All clients decrypt and read every message.

use std::time::Duration;

use crate::Bench;
use crate::crowd::{Crowd, Last, Parts, Readers};
use crate::report::{Column, median, microseconds, milliseconds, percentile, ratio};
use crate::support::Result;
use crate::target::Target;

pub const MESSAGES_PER_SECOND: u32 = 50;
pub const SENDERS: usize = 10;

const COLUMNS: &[Column] = &columns("of floor's");
const STORED_COLUMNS: &[Column] = &columns("of ws's");

/// `compared`: the title of the comparisons with the first target.
const fn columns(compared: &'static str) -> [Column; 7] {
    [
        Column { title: "CPU each", show: microseconds },
        Column { title: compared, show: ratio },
        Column { title: "p50", show: milliseconds },
        Column { title: compared, show: ratio },
        Column { title: "p99", show: milliseconds },
        Column { title: compared, show: ratio },
        Column { title: "max", show: milliseconds },
    ]
}

struct Round {
    /// The processor time of the target for each delivery, in seconds.
    processor: f64,
    p50: f64,
    p99: f64,
    max: f64,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    compare(bench, "pace", COLUMNS, &Target::ALL)
}

/// Without and with the store.
pub fn stored(bench: &mut Bench) -> Result<()> {
    compare(bench, "pace, stored", STORED_COLUMNS, &Target::STORED)
}

/// The targets are compared with the first of them.
fn compare(bench: &mut Bench, case: &'static str, columns: &'static [Column], all: &[Target]) -> Result<()> {
    let clients = bench.size(100, 20);
    let messages = bench.size(10, 1);
    let mut targets = Vec::new();
    for &target in all {
        let child = target.start(bench)?;
        let crowd = Crowd::join(&child, clients, target.sends(), Readers::All)?;
        targets.push((target, child, crowd, Vec::new()));
    }
    for _ in 0..bench.rounds(7) {
        for (_, child, crowd, rounds) in &mut targets {
            let before = child.processor_time()?;
            let interval = Some(Duration::from_secs(1) / MESSAGES_PER_SECOND);
            let parts = Parts { senders: SENDERS, messages, interval, last: Last::Receives };
            let exchange = crowd.exchange(parts)?;
            let processor = child.processor_time()? - before;
            bench.report.lost(exchange.lost);
            let latencies = exchange.latencies;
            rounds.push(Round {
                processor: processor.as_secs_f64() / latencies.len() as f64,
                p50: percentile(latencies.clone(), 50),
                p99: percentile(latencies.clone(), 99),
                max: percentile(latencies, 100),
            });
        }
    }
    let mut table = bench.report.table(case, columns);
    let floor = &targets[0].3;
    for (target, _, _, rounds) in &targets {
        let figure = |figure: fn(&Round) -> f64| Some(median(rounds.iter().map(figure)));
        let of_floor = |figure: fn(&Round) -> f64| {
            let pairs = rounds.iter().zip(floor);
            (*target != all[0]).then(|| median(pairs.map(|(round, floor)| figure(round) / figure(floor))))
        };
        table.row(
            &format!("{clients} clients, {MESSAGES_PER_SECOND}/s"),
            target.name(),
            &[
                figure(|round| round.processor),
                of_floor(|round| round.processor),
                figure(|round| round.p50),
                of_floor(|round| round.p50),
                figure(|round| round.p99),
                of_floor(|round| round.p99),
                figure(|round| round.max),
            ],
        );
    }
    table.print();
    Ok(())
}
