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

/// Raises the limit of open files to what this many connections need.
pub fn raise_descriptor_limit(connections: usize) {
    let wanted = connections as u64 + 64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        // If this fails, opening a connection will fail with the system's error.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}
