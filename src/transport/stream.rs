//! A connection's bytes, plain or through TLS. The only place that tells the two apart.
//!
//! Sockets do not block here: whoever would wait gets `WouldBlock`, and waits in [`wait`] with no lock held.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How often one read looks for more TLS records before it lets others have the connection: a client may send
/// records without content for ever.
const MAX_RECORDS_PER_READ: usize = 8;

pub enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ServerConnection, Socket>>),
}

/// Something to write to that knows how much has been taken from it: what TLS has encrypted is not yet on its way.
pub trait Transport: Write {
    /// How many bytes the system has taken for the other side so far.
    fn taken(&self) -> u64;
}

impl Stream {
    pub fn plain(socket: Arc<TcpStream>) -> Self {
        Self::Plain(Socket { socket, taken: 0 })
    }

    /// The TLS side of a connection; its handshake is still to come.
    ///
    /// # Errors
    /// The configuration does not fit a server, which those of [`crate::tls`] do.
    pub fn tls(socket: Arc<TcpStream>, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = ServerConnection::new(config)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, Socket { socket, taken: 0 }))))
    }

    /// Goes on with the TLS handshake, if there is one.
    ///
    /// # Errors
    /// `WouldBlock` while it is under way; others end it.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) if tls.conn.is_handshaking() => tls.conn.complete_io(&mut tls.sock).map(drop),
            _ => Ok(()),
        }
    }

    /// Says that nothing more will be sent: `close_notify` over TLS, then the end of the stream.
    pub fn finish(&mut self) {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
        }
        // Whoever is gone needs no goodbye.
        let _ = self.flush();
        let _ = self.counted().socket.shutdown(Shutdown::Write);
    }

    /// The socket below, to wait on.
    pub fn socket(&self) -> Arc<TcpStream> {
        self.counted().socket.clone()
    }

    fn counted(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Transport for Stream {
    fn taken(&self) -> u64 {
        self.counted().taken
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => read_tls(tls, buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(slices),
            Self::Tls(tls) => {
                unless_blocked(drain(tls))?;
                let taken = tls.conn.writer().write_vectored(slices)?;
                unless_blocked(drain(tls))?;
                // rustls takes nothing while it has as many encrypted bytes waiting as it may.
                if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => drain(tls),
        }
    }
}

/// `StreamOwned::read` writes first and reads nothing while the client takes nothing, which would be a busy
/// loop for who polls for bytes to read.
fn read_tls(tls: &mut StreamOwned<ServerConnection, Socket>, buffer: &mut [u8]) -> io::Result<usize> {
    // That nothing can be written any more is told to who writes: what was said before can still be read.
    let _ = drain(tls);
    for _ in 0..MAX_RECORDS_PER_READ {
        match tls.conn.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // A client that went without a word: no fault of the transport's.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            read => return read,
        }
        tls.conn.read_tls(&mut tls.sock)?;
        if let Err(error) = tls.conn.process_new_packets() {
            // There may be an alert that tells the client.
            let _ = drain(tls);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
    }
    match tls.conn.reader().read(buffer) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}

/// Writes what TLS has ready.
fn drain(tls: &mut StreamOwned<ServerConnection, Socket>) -> io::Result<()> {
    while tls.conn.wants_write() {
        if tls.conn.write_tls(&mut tls.sock)? == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

fn unless_blocked(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == ErrorKind::WouldBlock { Ok(()) } else { Err(error) })
}

/// A socket that does not block, is not interrupted, and counts.
pub struct Socket {
    socket: Arc<TcpStream>,
    taken: u64,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| (&*self.socket).read(buffer))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice]) -> io::Result<usize> {
        let taken = uninterrupted(|| (&*self.socket).write_vectored(slices))?;
        self.taken += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wait {
    Read,
    Write,
    /// Nothing but the end of the connection, which all wait for.
    End,
}

/// Waits until the socket is ready (or broken, which the next read or write will tell) or the time has come;
/// says whether it is ready.
///
/// # Errors
/// The system's, which are faults of the program's.
pub fn wait(socket: &TcpStream, what: Wait, until: Instant) -> io::Result<bool> {
    let flags = match what {
        Wait::Read => PollFlags::IN,
        Wait::Write => PollFlags::OUT,
        Wait::End => PollFlags::empty(),
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

/// A time to wait as `poll` takes it.
pub fn timespec(left: Duration) -> Timespec {
    Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 })
}

/// Repeats an operation until it does not block any more.
///
/// # Errors
/// `TimedOut` past the deadline, and the operation's own.
pub fn by_deadline<T>(
    stream: &mut Stream,
    what: Wait,
    deadline: Instant,
    mut operation: impl FnMut(&mut Stream) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match operation(stream) {
            // While TLS shakes hands, it may want to write before it can read.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let what = match stream {
                    Stream::Tls(tls) if tls.conn.wants_write() => Wait::Write,
                    _ => what,
                };
                if Instant::now() >= deadline || !wait(&stream.counted().socket, what, deadline)? {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            done => return done,
        }
    }
}

/// Reads and throws away until the other side ends or the time has come. Closing with unread bytes would make
/// the system throw away what the other side has not read yet.
pub fn discard(socket: &TcpStream, until: Instant, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) {
    let mut ignored = [0; 4096];
    while Instant::now() < until {
        match read(&mut ignored) {
            Ok(read) if read > 0 => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !wait(socket, Wait::Read, until).unwrap_or(false) {
                    return;
                }
            }
            _ => return,
        }
    }
}
