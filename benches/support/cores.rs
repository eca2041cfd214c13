//! Which processors the server, the engine and the load run on.

use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Result;

/// A processor each, so that the load does not take the server's time.
#[derive(Clone, Copy)]
pub struct Cores {
    server: usize,
    load: usize,
    /// The load's, if there is no third one.
    engine: usize,
}

impl Cores {
    /// The first processors that this process may use; `None`: there is only one.
    pub fn new() -> Result<Option<Self>> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let first = cores.next().zip(cores.next());
        Ok(first.map(|(server, load)| Self { server, load, engine: cores.next().unwrap_or(load) }))
    }

    /// Runs `start` on the server's processor, which the processes and threads that it starts inherit. This thread
    /// then runs on the load's.
    pub fn pin<T: Send>(cores: Option<Self>, start: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(Self { server, load, .. }) = cores else { return Ok(start()) };
        on(server, load, start)
    }

    /// The same on the engine's processor.
    pub fn pin_engine<T: Send>(cores: Option<Self>, start: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(Self { engine, load, .. }) = cores else { return Ok(start()) };
        on(engine, load, start)
    }
}

fn on<T: Send>(core: usize, then: usize, start: impl FnOnce() -> T + Send) -> Result<T> {
    set(core)?;
    let started = thread::scope(|scope| scope.spawn(start).join());
    set(then)?;
    Ok(started.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn set(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// A line that describes them.
pub fn describe(cores: Option<Cores>) -> String {
    match cores {
        Some(Cores { server, load, .. }) => {
            format!("server on processor {server}, load on processor {load}")
        }
        None => "server and load share the only processor".into(),
    }
}

/// The same with an engine.
pub fn describe_engine(cores: Option<Cores>) -> String {
    match cores {
        Some(Cores { load, engine, .. }) if engine == load => {
            format!("engine on processor {engine}, with the load")
        }
        Some(Cores { engine, .. }) => format!("engine on processor {engine}"),
        None => "engine on the only processor".into(),
    }
}
