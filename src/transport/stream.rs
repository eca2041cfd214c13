//! A connection's byte stream, plain or TLS.
//!
//! Sockets are nonblocking: an operation that would block returns `WouldBlock`, and its caller calls
//! [`wait`](super::wait()) without holding a lock.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::socket::Socket;

/// How often one read of a TLS stream reads from the socket before it returns: a client may send empty TLS records
/// without end.
const MAX_SOCKET_READS: usize = 8;

pub enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ServerConnection, Socket>>),
}

/// A writer that counts the bytes that the system has accepted. Bytes that rustls has encrypted and still buffers do
/// not count.
pub trait Outgoing: Write {
    /// How many bytes the system has accepted so far.
    fn accepted(&self) -> u64;
}

impl Stream {
    pub fn plain(tcp: Arc<TcpStream>) -> Self {
        Self::Plain(Socket::new(tcp))
    }

    /// The server side of a TLS connection before its [handshake](Self::handshake).
    ///
    /// # Errors
    /// The configuration is not for a server. Those of [`crate::tls`] are.
    pub fn tls(tcp: Arc<TcpStream>, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = ServerConnection::new(config)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, Socket::new(tcp)))))
    }

    /// Continues the TLS handshake, if there is one.
    ///
    /// # Errors
    /// `WouldBlock` until it is complete. Any other error ends the connection.
    pub fn handshake(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) if tls.conn.is_handshaking() => tls.conn.complete_io(&mut tls.sock).map(drop),
            _ => Ok(()),
        }
    }

    /// Closes the sending side: `close_notify` over TLS, then FIN.
    pub fn finish(&mut self) {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
        }
        // Both fail if the client has disconnected already.
        let _ = self.flush();
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// The socket, to wait on.
    pub fn socket(&self) -> Arc<TcpStream> {
        self.counted().tcp().clone()
    }

    /// How many bytes have been read from the socket so far, including TLS overhead.
    pub fn bytes_read(&self) -> u64 {
        self.counted().bytes_read()
    }

    /// Whether TLS has bytes to write.
    pub fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.conn.wants_write())
    }

    fn counted(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Outgoing for Stream {
    fn accepted(&self) -> u64 {
        self.counted().written()
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
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(_) => self.write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(slices),
            Self::Tls(tls) => {
                unless_blocked(write_tls(tls))?;
                let written = tls.conn.writer().write_vectored(slices)?;
                unless_blocked(write_tls(tls))?;
                // rustls accepts nothing while its buffer of encrypted bytes is full.
                if written == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(written) }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => write_tls(tls),
        }
    }
}

/// Replaces `StreamOwned::read`, which first completes pending writes: while those block it reads nothing, and a caller
/// that polls for readable bytes would spin.
fn read_tls(tls: &mut StreamOwned<ServerConnection, Socket>, buffer: &mut [u8]) -> io::Result<usize> {
    // The next write returns the error again. What the client has sent before can still be read.
    let _ = write_tls(tls);
    for _ in 0..MAX_SOCKET_READS {
        match tls.conn.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The client closed without `close_notify`. Many do, and WebSocket has its own closing handshake.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            read => return read,
        }
        tls.conn.read_tls(&mut tls.sock)?;
        if let Err(error) = tls.conn.process_new_packets() {
            // There may be an alert for the client.
            let _ = write_tls(tls);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
    }
    match tls.conn.reader().read(buffer) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}

/// Writes the bytes that TLS has encrypted.
fn write_tls(tls: &mut StreamOwned<ServerConnection, Socket>) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustls::crypto::ring::default_provider;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::transport::{Wait, by_deadline, wait};

    /// A certificate's configuration, and one of clients that trust it.
    fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = pair.signing_key.serialize_der().try_into().unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        (Arc::new(server.with_single_cert(vec![pair.cert.into()], key).unwrap()), Arc::new(client))
    }

    /// Bytes that belong to no message cost time as well. Key updates were once not charged.
    #[test]
    fn bytes_of_tls_itself_are_counted() {
        let (server_config, client_config) = configs();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            let tls = ClientConnection::new(client_config, "localhost".try_into().unwrap()).unwrap();
            let mut client = StreamOwned::new(tls, TcpStream::connect(address).unwrap());
            client.write_all(b"x").unwrap();
            client
        });
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut stream = Stream::tls(Arc::new(socket), server_config).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        by_deadline(&mut stream, Wait::Read, deadline, Stream::handshake).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(
            by_deadline(&mut stream, Wait::Read, deadline, |stream| stream.read(&mut buffer)).unwrap(),
            1
        );

        let before = stream.bytes_read();
        let mut client = client.join().unwrap();
        client.conn.refresh_traffic_keys().unwrap();
        let sent = client.conn.write_tls(&mut client.sock).unwrap();
        while stream.bytes_read() - before < sent as u64 {
            assert!(wait(&stream.socket(), Wait::Read, deadline).unwrap(), "nothing more is counted");
            assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        assert_eq!(stream.bytes_read() - before, sent as u64);
    }
}
