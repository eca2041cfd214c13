//! many: as many connections as one process takes with a limit of 20,000 descriptors. Runs only if it is asked for: it
//! takes some minutes, most of them because lists to that many members are rate-limited.

use crate::Bench;
use crate::crowd::{Crowd, Last, Parts, Readers};
use crate::idle::each;
use crate::report::{Column, kilobytes, millions, milliseconds, percentile, whole};
use crate::support::Result;
use crate::target::Target;

/// Descriptors that the benchmark needs, at most.
pub const CONNECTIONS: usize = 19_000;
const TALKING: usize = 9_000;

const IDLE: &[Column] =
    &[Column { title: "connections", show: whole }, Column { title: "RSS each", show: kilobytes }];
const TALK: &[Column] = &[
    Column { title: "members", show: whole },
    Column { title: "deliveries/s", show: millions },
    Column { title: "last after", show: milliseconds },
    Column { title: "lost", show: whole },
];

pub fn run(bench: &mut Bench) -> Result<()> {
    let clients = bench.size(CONNECTIONS, 50);
    let child = Target::Ws.start(bench)?;
    let before = child.resident()?;
    let crowd = Crowd::connect(&child, clients, Target::Ws.sends(), Readers::Few)?;
    let resident = each(child.resident()?, before, clients);
    drop(crowd);
    let mut table = bench.report.table("many", IDLE);
    table.row("idle", "ws", &[Some(clients as f64), Some(resident)]);
    table.print();

    let clients = bench.size(TALKING, 20);
    let child = Target::Wss.start(bench)?;
    let mut crowd = Crowd::join(&child, clients, Target::Wss.sends(), Readers::Few)?;
    let parts = Parts { senders: clients, messages: 1, interval: None, last: Last::Receives };
    let exchange = crowd.exchange(parts)?;
    bench.report.lost(exchange.lost);
    let mut table = bench.report.table("many", TALK);
    let deliveries = (clients * (clients - 1)) as f64;
    table.row(
        "talking at once",
        "wss",
        &[
            Some(clients as f64),
            Some(deliveries / exchange.time.as_secs_f64()),
            Some(percentile(exchange.latencies, 100)),
            Some(exchange.lost as f64),
        ],
    );
    table.print();
    Ok(())
}
