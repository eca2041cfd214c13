//! stalled: what a client that accepts nothing costs the others.

use crate::Bench;
use crate::crowd::{Crowd, Last, Parts, Readers};
use crate::report::{Column, median, millions, ratio};
use crate::support::Result;
use crate::target::Target;

const COLUMNS: &[Column] = &[
    Column { title: "deliveries/s", show: millions },
    Column { title: "with one stalled", show: millions },
    Column { title: "ratio", show: ratio },
];

pub fn run(bench: &mut Bench) -> Result<()> {
    let clients = 20;
    // With one sender, the throughput depends on how many of its messages happen to share a write.
    let senders = 10;
    // From each sender; together more than sockets buffer.
    let messages = bench.size(8000, 10);
    let mut targets = Vec::new();
    for target in Target::SERVERS {
        let child = target.start(bench)?;
        let mut crowd = Crowd::join(&child, clients, target.sends(), Readers::Few)?;
        crowd.shorten_last_buffer()?;
        targets.push((target, child, crowd, Vec::new()));
    }
    for _ in 0..bench.rounds(5) {
        for (_, _, crowd, rounds) in &mut targets {
            // The last client is not counted in either.
            let mut rate = |last: Last| -> Result<f64> {
                let exchange = crowd.exchange(Parts { senders, messages, interval: None, last })?;
                bench.report.lost(exchange.lost);
                Ok((senders * messages * (clients - 2)) as f64 / exchange.time.as_secs_f64())
            };
            rounds.push((rate(Last::IsNotCounted)?, rate(Last::Stalls)?));
        }
    }
    let mut table = bench.report.table("stalled", COLUMNS);
    for (target, _, _, rounds) in &targets {
        table.row(
            &format!("{clients} clients, {senders} send"),
            target.name(),
            &[
                Some(median(rounds.iter().map(|(all, _)| *all))),
                Some(median(rounds.iter().map(|(_, stalled)| *stalled))),
                Some(median(rounds.iter().map(|(all, stalled)| stalled / all))),
            ],
        );
    }
    table.print();
    Ok(())
}
