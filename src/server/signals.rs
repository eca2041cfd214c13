//! Wakes the accept loop for a shutdown or a reload, on a signal or from another thread, through self-pipes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Controls a running server from another thread.
#[derive(Clone)]
pub struct Handle(Pipes<Arc<UnixStream>>);

/// What the accept loop polls.
pub struct Wakeups(Pipes<UnixStream>);

#[derive(Clone)]
struct Pipes<End> {
    stop: End,
    reload: End,
}

/// Both ends of the self-pipes.
pub fn wakeups() -> io::Result<(Handle, Wakeups)> {
    let (stop, stop_reader) = pipe()?;
    let (reload, reload_reader) = pipe()?;
    let readers = Pipes { stop: stop_reader, reload: reload_reader };
    Ok((Handle(Pipes { stop, reload }), Wakeups(readers)))
}

impl Handle {
    /// Shuts the server down. [`Server::run`](super::Server::run) returns when that is done.
    pub fn stop(&self) {
        wake(&self.0.stop);
    }

    /// Reloads the certificate and key.
    pub fn reload(&self) {
        wake(&self.0.reload);
    }

    /// Has SIGTERM and SIGINT shut the server down, and SIGHUP reload the certificate and key.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn register_signals(&self) -> io::Result<()> {
        let Pipes { stop, reload } = &self.0;
        for (signal, pipe) in [(SIGTERM, stop), (SIGINT, stop), (SIGHUP, reload)] {
            signal_hook::low_level::pipe::register(signal, pipe.try_clone()?)?;
        }
        Ok(())
    }
}

impl Wakeups {
    /// Readable after [`Handle::stop`].
    pub fn stop(&self) -> &UnixStream {
        &self.0.stop
    }

    /// Readable after [`Handle::reload`].
    pub fn reload(&self) -> &UnixStream {
        &self.0.reload
    }

    /// Drains the reload pipe, so that all requests so far cause a single reload.
    pub fn clear_reload(&mut self) {
        while self.0.reload.read(&mut [0; 256]).is_ok_and(|read| read > 0) {}
    }
}

fn wake(mut pipe: &UnixStream) {
    // If the pipe is full, a wakeup is pending already. If it is closed, the server has ended.
    let _ = pipe.write(&[0]);
}

/// The writing and the reading end of a pipe. Neither blocks.
fn pipe() -> io::Result<(Arc<UnixStream>, UnixStream)> {
    let (writer, reader) = UnixStream::pair()?;
    writer.set_nonblocking(true)?;
    reader.set_nonblocking(true)?;
    Ok((Arc::new(writer), reader))
}
