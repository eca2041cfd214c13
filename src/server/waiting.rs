//! What the server waits for before it listens.

use std::io;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use log::info;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::signals::Wakeups;
use crate::ops::systemd;
use crate::transport::timespec;

/// How often systemd is asked for more time: several times within [`systemd::START_TIMEOUT_EXTENSION`].
const EXTEND_INTERVAL: Duration = Duration::from_secs(30);

/// Runs `work`, which may take any time, on a thread of its own. `None`: the server is to stop, and the thread ends
/// with the process.
///
/// # Errors
/// Those of the system calls, and a panic of `work`.
pub fn run_unless_stopped<T: Send + 'static>(
    wakeups: &Wakeups,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (done, is_done) = UnixStream::pair()?;
    let thread = thread::Builder::new().name("start".into()).spawn(move || {
        let result = work();
        drop(done);
        result
    })?;
    loop {
        systemd::extend_start_timeout();
        let mut ready = [&is_done, wakeups.stop()].map(|socket| PollFd::new(socket, PollFlags::IN));
        match poll(&mut ready, Some(&timespec(EXTEND_INTERVAL))) {
            Err(Errno::INTR) => {}
            result => drop(result?),
        }
        let [is_done, is_stopped] = ready.map(|socket| !socket.revents().is_empty());
        if is_done {
            return thread.join().map(Some).map_err(|_| io::Error::other("the start has panicked"));
        }
        if is_stopped {
            info!("Stopped before the start was complete");
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::server::signals::wakeups;

    #[test]
    fn a_server_that_waits_can_be_stopped() {
        let (handle, wakeups) = wakeups().unwrap();
        assert_eq!(run_unless_stopped(&wakeups, || 7).unwrap(), Some(7));
        let panics = run_unless_stopped(&wakeups, || panic!("for the test"));
        assert!(panics.is_err());
        let (sender, waits_forever) = channel::<()>();
        let (started, has_started) = channel();
        let stop = thread::spawn(move || {
            has_started.recv().unwrap();
            handle.stop();
        });
        let work = move || {
            started.send(()).unwrap();
            let _ = waits_forever.recv();
        };
        assert_eq!(run_unless_stopped(&wakeups, work).unwrap(), None);
        stop.join().unwrap();
        drop(sender);
    }
}
