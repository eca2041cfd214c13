//! The server under load, on loopback. Each figure is shown next to that of a floor from the same run: a bare relay of
//! frames (`relay.rs`) with the same clients. See docs/benchmarks.md.
//!
//! `cargo bench` runs everything and takes about three minutes. Without the `--bench` that cargo passes, as in
//! `cargo test --all-targets`, everything runs once at a small size, to check that it works.
//!
//! This does not use divan, as `parts.rs` does, which times a closure in its own process. Here another process does the
//! work, and its processor time and memory are measured. Rounds of the server and of the floor alternate, so that
//! other load on the machine affects both.

mod burst;
mod cluster;
mod connect;
mod crowd;
mod idle;
mod many;
mod options;
mod pace;
mod relay;
mod report;
mod stalled;
mod store;
mod storm;
#[path = "../support/mod.rs"]
mod support;
mod target;

use std::env;
use std::process::ExitCode;

use options::Options;
use report::Report;
use support::cores::{self, Cores};
use support::{Result, raise_descriptor_limit};
use tempfile::TempDir;

/// With this argument, the benchmark runs as the relay.
const RELAY: &str = "relay";

/// What all cases share.
struct Bench {
    directory: TempDir,
    cores: Option<Cores>,
    report: Report,
    /// How often each case is measured; `None`: as often as it needs for a stable median.
    rounds: Option<usize>,
    /// Whether to run at full size.
    full: bool,
}

/// Its name, and whether it runs unless it is asked for.
type Case = (&'static str, fn(&mut Bench) -> Result<()>, bool);

const CASES: &[Case] = &[
    ("burst", burst::run, true),
    ("pace", pace::run, true),
    ("idle", idle::run, true),
    ("storm", storm::run, true),
    ("stalled", stalled::run, true),
    ("connect", connect::run, true),
    ("store", store::run, true),
    ("cluster", cluster::run, false),
    ("many", many::run, false),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let result = if has(RELAY) {
        relay::run()
    } else if has("--list") {
        println!("throughput: benchmark");
        Ok(())
    } else {
        let names: Vec<&str> = CASES.iter().map(|(name, ..)| *name).collect();
        Options::parse(&arguments, &names).and_then(|options| options.map_or(Ok(()), measure))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: Options) -> Result<()> {
    let cores = Cores::new()?;
    println!("{}.", cores::describe(cores));
    if cores.is_some() {
        println!("(Without such pinning, where the scheduler places them matters more than the code does.)");
    }
    raise_descriptor_limit(many::CONNECTIONS);
    let mut bench = Bench {
        directory: TempDir::new()?,
        cores,
        report: Report::new(options.against.as_deref())?,
        rounds: options.rounds,
        full: options.full,
    };
    for &(name, run, by_default) in CASES {
        if if options.cases.is_empty() { by_default } else { options.cases.iter().any(|case| case == name) } {
            println!();
            run(&mut bench)?;
        }
    }
    bench.report.finish(options.save.as_deref())
}

impl Bench {
    /// How many rounds to measure: `full` at full size, unless the command line says otherwise.
    fn rounds(&self, full: usize) -> usize {
        self.rounds.unwrap_or(if self.full { full } else { 1 })
    }

    /// `full`, or `small` where it is only checked that the benchmark works.
    fn size(&self, full: usize, small: usize) -> usize {
        if self.full { full } else { small }
    }
}
