//! Servers under a mixed load for minutes, over `ws://` and `wss://` at once: no message may be lost, and no memory,
//! threads or file descriptors may leak. See docs/benchmarks.md.
//!
//! `cargo bench --bench soak` runs for three minutes; `-- --seconds N` changes that, and `-- --seed N` what the clients
//! do. Without the `--bench` that cargo passes, as in `cargo test --all-targets`, it runs for a few seconds with few
//! clients.

mod load;
mod members;
mod order;
mod random;
#[path = "../support/mod.rs"]
mod support;
mod visitors;

use std::env;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use load::{Load, Summary};
use support::child::Child;
use support::{Result, http, raise_descriptor_limit};
use tempfile::TempDir;

const MIB: f64 = 1024.0 * 1024.0;
/// Short, so that clients that read nothing are cut off during the run.
const PING_INTERVAL: (&str, &str) = ("PING_INTERVAL", "10");
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// How much more memory the server may take, on average, in the last quarter of the run than in the third, in MiB.
const MAX_GROWTH: f64 = 8.0;
/// How long threads and descriptors may remain after all clients have left.
const RETURN_TIME: Duration = Duration::from_secs(20);

struct Plan {
    seconds: u64,
    seed: u64,
    /// For each of the two servers.
    clients: usize,
}

struct Server {
    name: &'static str,
    child: Child,
    /// Threads and file descriptors before any client was connected.
    idle: (usize, usize),
    /// Resident memory, in bytes.
    memory: Vec<u64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("soak: benchmark");
        return ExitCode::SUCCESS;
    }
    // As in `cargo test NAME`: these are arguments for tests.
    if support::are_for_tests(&arguments, &["--seconds", "--seed"]) {
        return ExitCode::SUCCESS;
    }
    match plan(&arguments).and_then(|plan| run(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> Result<Plan> {
    let is_full = arguments.iter().any(|argument| argument == "--bench");
    let value = |flag: &str| -> Result<Option<u64>> {
        let Some(at) = arguments.iter().position(|argument| argument == flag) else { return Ok(None) };
        let value = arguments.get(at + 1).and_then(|value| value.parse().ok());
        value.map(Some).ok_or_else(|| format!("{flag} needs a number").into())
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Plan {
        seconds: value("--seconds")?.unwrap_or(if is_full { 180 } else { 3 }),
        seed: value("--seed")?.unwrap_or(now),
        clients: if is_full { 150 } else { 12 },
    })
}

fn run(plan: &Plan) -> Result<()> {
    let Plan { seconds, seed, clients } = plan;
    println!("soak: {seconds} s, {clients} clients over ws and as many over wss; --seed {seed}");
    raise_descriptor_limit(4 * clients);
    let directory = TempDir::new()?;
    let mut servers = Vec::new();
    for (name, tls) in [("ws", false), ("wss", true)] {
        let child = Child::server(&directory, tls, &[PING_INTERVAL])?;
        http::get(&child, "/healthz")?;
        thread::sleep(SAMPLE_INTERVAL);
        let idle = (child.threads()?, child.descriptors()?);
        servers.push(Server { name, child, idle, memory: Vec::new() });
    }
    let end = Instant::now() + Duration::from_secs(*seconds);
    let summaries = thread::scope(|scope| -> Result<Vec<Summary>> {
        let mut loads = Vec::new();
        let mut samples = Vec::new();
        for (number, server) in servers.iter_mut().enumerate() {
            let (name, child) = (server.name, &server.child);
            samples.push((child, &mut server.memory));
            loads.push(scope.spawn(move || {
                let load = Load::new(child, *clients, seed.wrapping_add(number as u64));
                load.and_then(|load| load.run(end)).map_err(|error| format!("{name}: {error}"))
            }));
        }
        while Instant::now() < end && !loads.iter().any(|load| load.is_finished()) {
            thread::sleep(SAMPLE_INTERVAL);
            for (child, memory) in &mut samples {
                memory.push(child.resident()?);
            }
        }
        let mut summaries = Vec::new();
        for load in loads {
            summaries.push(load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(summaries)
    })?;
    for (server, summary) in servers.iter_mut().zip(&summaries) {
        server.check(summary).map_err(|error| format!("{}: {error}", server.name))?;
    }
    Ok(())
}

impl Server {
    /// Checks what must hold after all clients have left.
    fn check(&mut self, summary: &Summary) -> Result<()> {
        let Summary { messages, lines_checked, whispers, joins, ends, visitors } = summary;
        println!("{}:", self.name);
        println!("  {joins} joins, {ends} ends of memberships, {visitors} connections that did not join");
        println!(
            "  {messages} public messages; {lines_checked} received lines in one order, none lost or duplicated"
        );
        println!("  {whispers} deliveries of whispers");

        let deadline = Instant::now() + RETURN_TIME;
        let mut now = (self.child.threads()?, self.child.descriptors()?);
        while now != self.idle && Instant::now() < deadline {
            thread::sleep(SAMPLE_INTERVAL);
            now = (self.child.threads()?, self.child.descriptors()?);
        }
        let ((threads, descriptors), (idle_threads, idle_descriptors)) = (now, self.idle);
        println!(
            "  threads {threads} (before: {idle_threads}), file descriptors {descriptors} ({idle_descriptors})"
        );
        if now != self.idle {
            return Err("threads or file descriptors remain after all clients have left".into());
        }
        let quarter = |from: usize| {
            let part = &self.memory[self.memory.len() * from / 4..self.memory.len() * (from + 1) / 4];
            part.iter().sum::<u64>() as f64 / part.len().max(1) as f64 / MIB
        };
        let [first, second, third, fourth] = [0, 1, 2, 3].map(quarter);
        println!(
            "  memory in the quarters of the run: {first:.1}, {second:.1}, {third:.1}, {fourth:.1} MiB \
             (the last at most {MAX_GROWTH} above the third)"
        );
        if fourth - third > MAX_GROWTH {
            return Err("memory grows".into());
        }
        let log = self.child.log()?;
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            return Err(format!("a thread of the server has panicked: {line}").into());
        }
        if self.child.has_ended()? {
            return Err("the server has ended".into());
        }
        Ok(())
    }
}
