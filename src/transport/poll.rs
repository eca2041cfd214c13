//! Waits for a socket with `poll(2)`. Callers must not hold a lock.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::stream::Stream;

/// How much a lingering close discards, in bytes: more than a message that is far too long, whose sender must still get the
/// close frame. Clients once had the server read 6 GB in two seconds.
const MAX_LINGER_BYTES: usize = 16 * 1024 * 1024;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wait {
    Read,
    Write,
    /// Until the client closes its side or the connection breaks, and not for bytes before that.
    Hangup,
}

/// Waits until the socket is ready or has an error, which the next read or write returns. `false`: `until` came
/// first.
///
/// # Errors
/// Those of `poll(2)`.
pub fn wait(socket: &TcpStream, what: Wait, until: Instant) -> io::Result<bool> {
    let flags = match what {
        Wait::Read => PollFlags::IN,
        Wait::Write => PollFlags::OUT,
        Wait::Hangup => PollFlags::RDHUP,
    };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(socket, flags)], Some(&timespec(left))) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) if Instant::now() < until => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Converts a timeout for `poll(2)`.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 })
}

/// Repeats an operation until it no longer returns `WouldBlock`.
///
/// # Errors
/// `TimedOut` at the deadline, and those of the operation.
pub fn by_deadline<T>(
    stream: &mut Stream,
    what: Wait,
    deadline: Instant,
    mut operation: impl FnMut(&mut Stream) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match operation(stream) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // During its handshake, TLS may have to write before it can read.
                let what = if stream.wants_write() { Wait::Write } else { what };
                if Instant::now() >= deadline || !wait(&stream.socket(), what, deadline)? {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            done => return done,
        }
    }
}

/// Reads and discards until the client closes its side or `until`. Closing a socket that has unread bytes would
/// reset the connection, and the client could lose what it has not read yet (RFC 1122, section 4.2.2.13).
///
/// Reads at most [`MAX_LINGER_BYTES`]: a client that goes on sending is not waiting for a response.
// Inlined, its buffer would be part of the stack of every session.
#[inline(never)]
pub fn linger(socket: &TcpStream, until: Instant, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) {
    let mut discarded = [0; 4096];
    let mut left = MAX_LINGER_BYTES;
    while left > 0 && Instant::now() < until {
        match read(&mut discarded) {
            Ok(read) if read > 0 => left = left.saturating_sub(read),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !wait(socket, Wait::Read, until).unwrap_or(false) {
                    return;
                }
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_lingering_close_reads_only_so_much() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        // A client that never stops sending.
        let flood = thread::spawn(move || while client.write_all(&[0; 4096]).is_ok() {});
        let mut discarded = 0;
        let polled = socket.try_clone().unwrap();
        linger(&polled, Instant::now() + Duration::from_secs(60), |buffer| {
            socket.read(buffer).inspect(|read| discarded += read)
        });
        drop((socket, polled));
        flood.join().unwrap();
        assert!((MAX_LINGER_BYTES..MAX_LINGER_BYTES + 4096).contains(&discarded), "{discarded}");
    }
}
