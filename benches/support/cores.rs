//! Which processors the server and the load run on.

use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Result;

/// A processor each, so that the load does not take the server's time.
#[derive(Clone, Copy)]
pub struct Cores {
    server: usize,
    load: usize,
}

impl Cores {
    /// The first two processors that this process may use; `None`: there is only one.
    pub fn new() -> Result<Option<Self>> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        Ok(cores.next().zip(cores.next()).map(|(server, load)| Self { server, load }))
    }

    /// Runs `start` on the server's processor, which the processes and threads that it starts inherit. This thread
    /// then runs on the load's.
    pub fn pin<T: Send>(cores: Option<Self>, start: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(Self { server, load }) = cores else { return Ok(start()) };
        set(server)?;
        let started = thread::scope(|scope| scope.spawn(start).join());
        set(load)?;
        Ok(started.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

fn set(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// A line that describes them.
pub fn describe(cores: Option<Cores>) -> String {
    match cores {
        Some(Cores { server, load }) => format!("server on processor {server}, load on processor {load}"),
        None => "server and load share the only processor".into(),
    }
}
