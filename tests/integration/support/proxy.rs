//! A TCP proxy on loopback that can stop forwarding, delay it, or close its connections, while a test runs.
//!
//! It ends with the test. Its threads wait in blocking calls, which closing the sockets ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::Shutdown as ListenerShutdown;
use socket2::SockRef;

/// Forwards connections to a server, until [`Proxy::blackhole`] or [`Proxy::cut`] is called.
pub struct Proxy {
    pub address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    delay_millis: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    mode: Mode,
    connections: Vec<Connection>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Forward,
    /// Bytes are accepted and discarded, as by a network that has failed silently.
    Blackhole,
    /// Connections are closed as soon as they are accepted.
    Cut,
    /// The proxy is ending.
    Ended,
}

impl Proxy {
    /// A proxy in front of the server at this address. It forwards until another mode is set.
    pub fn start(server: SocketAddr) -> Self {
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let state = Mutex::new(State { mode: Mode::Forward, connections: Vec::new() });
        let shared = Arc::new(Shared { server, delay_millis: Arc::default(), state });
        let accepting = thread::spawn({
            let (listener, shared) = (listener.clone(), shared.clone());
            move || {
                while let Ok((client, _)) = listener.accept() {
                    if !shared.accepted(client) {
                        break;
                    }
                }
            }
        });
        Self { address: listener.local_addr().unwrap(), listener, shared, accepting: Some(accepting) }
    }

    /// Discards what both sides send from now on, and reports neither side's close to the other. Connections that exist
    /// stay like this, also after [`Proxy::restore`].
    pub fn blackhole(&self) {
        let mut state = self.shared.state();
        state.mode = Mode::Blackhole;
        for connection in &state.connections {
            connection.pair.is_blackholed.store(true, SeqCst);
        }
    }

    /// Closes all connections with a reset, and each new one at once, until [`Proxy::restore`].
    pub fn cut(&self) {
        self.end_connections(Mode::Cut);
    }

    /// From now on, forwards what each side sends after at least this delay.
    #[cfg(feature = "cluster")]
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_millis.store(delay.as_millis().try_into().unwrap(), SeqCst);
    }

    /// Forwards new connections again.
    pub fn restore(&self) {
        self.shared.state().mode = Mode::Forward;
    }

    fn end_connections(&self, mode: Mode) {
        let connections = {
            let mut state = self.shared.state();
            state.mode = mode;
            std::mem::take(&mut state.connections)
        };
        connections.into_iter().for_each(Connection::end);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end_connections(Mode::Ended);
        // Ends `accept`.
        let _ = rustix::net::shutdown(&*self.listener, ListenerShutdown::Both);
        let result = self.accepting.take().unwrap().join();
        if !thread::panicking() {
            result.expect("the proxy has accepted connections until now");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles a new connection. `false`: the proxy has ended.
    fn accepted(&self, client: TcpStream) -> bool {
        let mut state = self.state();
        let server = match state.mode {
            Mode::Forward => TcpStream::connect(self.server).ok(),
            Mode::Blackhole => None,
            Mode::Cut => return true,
            Mode::Ended => return false,
        };
        if server.is_none() && state.mode == Mode::Forward {
            // The client's connection is closed, as if it had been the server's.
            return true;
        }
        state.connections.retain(|connection| !connection.is_over());
        let is_blackholed = (state.mode == Mode::Blackhole).into();
        state.connections.push(Connection::new(Pair {
            client,
            server,
            is_blackholed,
            delay_millis: self.delay_millis.clone(),
        }));
        true
    }
}

/// A client's connection, the one to the server for it, and the threads that read from each.
struct Connection {
    pair: Arc<Pair>,
    threads: Vec<JoinHandle<()>>,
}

struct Pair {
    client: TcpStream,
    /// `None`: the connection was made while the proxy discarded everything.
    server: Option<TcpStream>,
    is_blackholed: AtomicBool,
    delay_millis: Arc<AtomicU64>,
}

impl Connection {
    fn new(pair: Pair) -> Self {
        let pair = Arc::new(pair);
        for socket in pair.sockets() {
            socket.set_nodelay(true).unwrap();
        }
        let directions = [true, false].into_iter().take(pair.sockets().count());
        let threads = directions
            .map(|from_client| {
                let pair = pair.clone();
                thread::spawn(move || pair.forward(from_client))
            })
            .collect();
        Self { pair, threads }
    }

    /// Whether both sides have closed it.
    fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Closes both sockets, abruptly.
    fn end(self) {
        for socket in self.pair.sockets() {
            // Closing it then sends a reset, in place of what is still to be sent.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            // Ends the threads' calls.
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads {
            let result = thread.join();
            if !thread::panicking() {
                result.expect("the proxy has forwarded until now");
            }
        }
    }
}

impl Pair {
    fn sockets(&self) -> impl Iterator<Item = &TcpStream> {
        [Some(&self.client), self.server.as_ref()].into_iter().flatten()
    }

    /// Forwards what one side sends, or discards it, until that side has closed.
    fn forward(&self, from_client: bool) {
        let (client, server) = (Some(&self.client), self.server.as_ref());
        let (from, to) = if from_client { (client, server) } else { (server, client) };
        let Some(mut from) = from else { return };
        // What arrives during a delay is forwarded with the next read.
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = from.read(&mut buffer);
            thread::sleep(Duration::from_millis(self.delay_millis.load(SeqCst)));
            // Read after the bytes: those that were sent after `blackhole` are not forwarded.
            let to = to.filter(|_| !self.is_blackholed.load(SeqCst));
            match (read, to) {
                (Ok(0) | Err(_), None) => return,
                (Ok(_), None) => {}
                (Ok(0), Some(to)) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                (Err(_), Some(to)) => {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
                (Ok(length), Some(mut to)) => {
                    if to.write_all(&buffer[..length]).is_err() && !self.is_blackholed.load(SeqCst) {
                        let _ = from.shutdown(Shutdown::Both);
                        return;
                    }
                }
            }
        }
    }
}
