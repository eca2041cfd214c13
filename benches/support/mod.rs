//! What the benchmarks share: the process that is measured, and clients with little overhead.
// Each benchmark uses only a part of it.
#![allow(dead_code)]

pub mod child;
pub mod connection;
pub mod cores;
pub mod frames;
pub mod http;
pub mod poll;

use std::error::Error;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Whether these arguments are meant for tests, as in `cargo test NAME`, which runs benchmarks as well. `flags`: those of
/// the benchmark.
pub fn are_for_tests(arguments: &[String], flags: &[&str]) -> bool {
    let is_flag = |argument: &String| argument == "--bench" || flags.contains(&argument.as_str());
    !arguments.is_empty() && !arguments.iter().any(is_flag)
}

/// Raises the limit of open files to what this many connections need.
pub fn raise_descriptor_limit(connections: usize) {
    let wanted = connections as u64 + 64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        // If this fails, opening a connection will fail with the system's error.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}
