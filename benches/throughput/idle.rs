//! idle: the memory of connections that do nothing.

use std::fs;

use crate::Bench;
use crate::crowd::{Crowd, Readers};
use crate::report::{Column, kilobytes, median};
use crate::support::Result;
use crate::target::Target;

const COLUMNS: &[Column] =
    &[Column { title: "RSS each", show: kilobytes }, Column { title: "kernel, both ends", show: kilobytes }];

pub fn run(bench: &mut Bench) -> Result<()> {
    let clients = bench.size(4000, 50);
    let mut targets = Target::ALL.map(|target| (target, Vec::new(), Vec::new()));
    for _ in 0..bench.rounds(3) {
        for (target, resident, kernel) in &mut targets {
            let child = target.start(bench)?;
            let (resident_before, kernel_before) = (child.resident()?, kernel_memory()?);
            let mut crowd = Crowd::connect(&child, clients, target.sends(), Readers::Few)?;
            crowd.drain()?;
            resident.push(each(child.resident()?, resident_before, clients));
            kernel.push(each(kernel_memory()?, kernel_before, clients));
        }
    }
    let mut table = bench.report.table("idle", COLUMNS);
    for (target, resident, kernel) in targets {
        let what = format!("{clients} clients");
        table.row(&what, target.name(), &[Some(median(resident)), Some(median(kernel))]);
    }
    table.print();
    Ok(())
}

/// How many bytes were added for each client.
pub fn each(after: u64, before: u64, clients: usize) -> f64 {
    (after as f64 - before as f64) / clients as f64
}

/// The memory that the kernel uses for threads, page tables and sockets, in bytes: of all processes, so the clients'
/// ends of connections are included.
fn kernel_memory() -> Result<u64> {
    let file = fs::read_to_string("/proc/meminfo")?;
    let mut kilobytes = 0;
    for line in file.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if ["KernelStack", "PageTables", "SUnreclaim"].contains(&name) {
            let value = value.trim().strip_suffix(" kB").ok_or("/proc/meminfo has an unknown unit")?;
            kilobytes += value.parse::<u64>()?;
        }
    }
    Ok(kilobytes * 1024)
}
