//! What an attack on the server costs its members, next to the bound that must hold. See docs/benchmarks.md.
//!
//! `cargo bench --bench attack` runs everything; `cargo bench --bench attack -- stalled` runs one part. A bound that
//! does not hold fails the run. Without the `--bench` that cargo passes, as in `cargo test --all-targets`, everything
//! runs at a small size to check that it works: figures are printed, and bounds are not checked.

mod attackers;
mod hub_time;
mod lines;
mod lists;
mod reset;
mod room;
mod stalled;
#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::process::ExitCode;

use support::child::Child;
use support::cores::{self, Cores};
use support::{Result, raise_descriptor_limit};
use tempfile::TempDir;

/// The address that attacks, behind a trusted proxy.
const ATTACKER: &str = "203.0.113.9";
/// Loopback is exempt from limits per address, so all clients come through a proxy, which is this process.
const PROXIES: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");
const MIB: f64 = 1024.0 * 1024.0;

/// How much the parts do.
struct Size {
    checks_bounds: bool,
    /// How long each attack on members on slow lines lasts, in seconds.
    attack_seconds: f64,
    members_per_line: usize,
    /// Connections of the attacking address.
    connections: usize,
    stalled: usize,
    /// Hostile messages of each kind.
    messages: usize,
    /// Names whose connections are reset.
    resets: usize,
    queued_messages: usize,
    listed_members: usize,
    list_seconds: f64,
}

const FULL: Size = Size {
    checks_bounds: true,
    attack_seconds: 10.0,
    members_per_line: 6,
    connections: 60,
    stalled: 60,
    messages: 4000,
    resets: 10,
    queued_messages: 200,
    listed_members: 1000,
    list_seconds: 10.0,
};

const SMALL: Size = Size {
    checks_bounds: false,
    attack_seconds: 0.3,
    members_per_line: 1,
    connections: 4,
    stalled: 2,
    messages: 50,
    resets: 1,
    queued_messages: 22,
    listed_members: 30,
    list_seconds: 0.3,
};

/// What the parts share, and the bounds that have failed.
struct Bench {
    size: Size,
    directory: TempDir,
    cores: Option<Cores>,
    failures: Vec<String>,
}

impl Bench {
    /// Starts a server with these settings on a processor of its own.
    fn server(&self, settings: &[(&str, &str)]) -> Result<Child> {
        let start = || Child::server(&self.directory, false, settings).map_err(|error| error.to_string());
        Ok(Cores::pin(self.cores, start)??)
    }

    /// Prints and records a failure.
    fn fail(&mut self, what: &str) {
        println!("  {what}: FAILED");
        self.failures.push(what.to_owned());
    }

    /// Prints a figure next to its bound.
    fn at_most(&mut self, what: &str, measured: f64, bound: f64, unit: &str) {
        let verdict = match measured <= bound {
            true => "ok",
            false if self.size.checks_bounds => "FAILED",
            false => "not checked at this size",
        };
        println!("  {what}: {measured:.1} {unit} (at most {bound:.1}): {verdict}");
        if measured > bound {
            self.failures.push(format!("{what}: {measured:.1} {unit}, and at most {bound:.1} is allowed"));
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        println!("attack: benchmark");
        return ExitCode::SUCCESS;
    }
    let is_full = has("--bench");
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let size = if is_full { FULL } else { SMALL };
    match run(size, &filters) {
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
        Ok(failures) if is_full && !failures.is_empty() => {
            println!("bounds that do not hold:");
            failures.iter().for_each(|failure| println!("  {failure}"));
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
    }
}

type Part = fn(&mut Bench) -> Result<()>;

/// Runs the parts whose names contain one of the filters. Returns the bounds that do not hold.
fn run(size: Size, filters: &[&String]) -> Result<Vec<String>> {
    raise_descriptor_limit(2 * (size.listed_members + size.connections));
    let cores = Cores::new()?;
    println!("{}", cores::describe(cores));
    let mut bench = Bench { size, directory: TempDir::new()?, cores, failures: Vec::new() };
    let parts: [(&str, Part); 5] = [
        ("lines", lines::run),
        ("stalled", stalled::run),
        ("hub", hub_time::run),
        ("reset", reset::run),
        ("lists", lists::run),
    ];
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    for (name, part) in parts.into_iter().filter(|(name, _)| is_wanted(name)) {
        part(&mut bench).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(bench.failures)
}
