//! The TCP socket below a stream.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// A nonblocking socket that retries interrupted calls and counts its bytes.
pub struct Socket {
    tcp: Arc<TcpStream>,
    read: u64,
    written: u64,
}

impl Socket {
    /// The socket must be nonblocking.
    pub fn new(tcp: Arc<TcpStream>) -> Self {
        Self { tcp, read: 0, written: 0 }
    }

    pub fn tcp(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    /// How many bytes have been read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// How many bytes the system has accepted so far.
    pub fn written(&self) -> u64 {
        self.written
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = retry_interrupted(|| (&*self.tcp).read(buffer))?;
        self.read += read as u64;
        Ok(read)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = retry_interrupted(|| (&*self.tcp).write(bytes))?;
        self.written += written as u64;
        Ok(written)
    }

    fn write_vectored(&mut self, slices: &[IoSlice]) -> io::Result<usize> {
        // rustls writes even a single record like this, and writev(2) costs more than write(2).
        if let [slice] = slices {
            return self.write(slice);
        }
        let written = retry_interrupted(|| (&*self.tcp).write_vectored(slices))?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn retry_interrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
