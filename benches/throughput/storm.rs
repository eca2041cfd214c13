//! storm: many clients join at once, and each needs the complete list.

use std::thread;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::crowd::{Crowd, Readers};
use crate::idle::each;
use crate::report::{Column, kilobytes, median, milliseconds};
use crate::support::Result;
use crate::support::child::Child;
use crate::target::Target;

const COLUMNS: &[Column] = &[
    Column { title: "complete after", show: milliseconds },
    Column { title: "lists each", show: |lists| format!("{lists:.1}") },
    Column { title: "CPU", show: milliseconds },
    Column { title: "RSS each", show: kilobytes },
    Column { title: "once all have left", show: kilobytes },
];
/// How long the server has to notice that all clients have left.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);

struct Round {
    time: f64,
    lists: Option<f64>,
    processor: f64,
    resident: f64,
    left: f64,
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let clients = bench.size(1000, 20);
    let mut targets = Target::ALL.map(|target| (target, Vec::new()));
    for _ in 0..bench.rounds(3) {
        for (target, rounds) in &mut targets {
            rounds.push(round(bench, *target, clients)?);
        }
    }
    let mut table = bench.report.table("storm", COLUMNS);
    for (target, rounds) in &targets {
        let figure = |figure: fn(&Round) -> f64| Some(median(rounds.iter().map(figure)));
        let lists: Option<Vec<f64>> = rounds.iter().map(|round| round.lists).collect();
        table.row(
            &format!("{clients} clients join"),
            target.name(),
            &[
                figure(|round| round.time),
                lists.map(median),
                figure(|round| round.processor),
                figure(|round| round.resident),
                figure(|round| round.left),
            ],
        );
    }
    table.print();
    Ok(())
}

fn round(bench: &Bench, target: Target, clients: usize) -> Result<Round> {
    let child = target.start(bench)?;
    let (memory, threads) = (child.resident()?, child.threads()?);
    let mut crowd = Crowd::connect(&child, clients, target.sends(), Readers::All)?;
    let before = child.processor_time()?;
    let (time, lists) = if target == Target::Floor {
        (crowd.one_list()?, None)
    } else {
        let received = crowd.join_at_once()?;
        (received.time, Some(received.lists as f64 / clients as f64))
    };
    let processor = child.processor_time()? - before;
    crowd.drain()?;
    let resident = each(child.resident()?, memory, clients);
    drop(crowd);
    wait_for_threads(&child, threads)?;
    let left = each(child.resident()?, memory, clients);
    let (time, processor) = (time.as_secs_f64(), processor.as_secs_f64());
    Ok(Round { time, lists, processor, resident, left })
}

fn wait_for_threads(child: &Child, threads: usize) -> Result<()> {
    let deadline = Instant::now() + LEAVE_TIMEOUT;
    while child.threads()? > threads {
        if Instant::now() > deadline {
            return Err("threads remain after all clients have left".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
