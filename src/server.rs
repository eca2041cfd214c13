//! The server as a whole: it listens, admits, and stops in good order.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::admission::{Admission, Full};
use crate::connection::{self, Arrival, Context};
use crate::hub::{self, Event};
use crate::room::ConnectionId;
use crate::settings::{Host, Settings, TlsFiles};
use crate::stream::timespec;
use crate::tls::{self, TlsError};

/// How many connections may wait to be accepted. Past std's 128 a crowd that comes at once would meet dropped
/// packets, and seconds of waiting for them to be sent again.
const BACKLOG: i32 = 4096;
/// How long no connection is accepted when the system can give no more of something.
const BACK_OFF: Duration = Duration::from_millis(100);
/// A connection's stack, in bytes. Only what is touched of it takes memory.
const STACK_BYTES: usize = 256 * 1024;
/// Descriptors that are no connection's: standard streams, listeners, pipes, files while they are read.
const SPARE_DESCRIPTORS: u64 = 64;

/// A server that listens, and serves once it [runs](Server::run).
pub struct Server {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    context: Arc<Context>,
    hub: JoinHandle<()>,
    /// Readable once the server is to stop.
    stopped: UnixStream,
    stop: Arc<UnixStream>,
    next_id: u64,
}

/// Stops a server from another thread.
#[derive(Clone)]
pub struct StopHandle(Arc<UnixStream>);

impl StopHandle {
    /// Asks the server to stop; [`Server::run`] returns when it has.
    pub fn stop(&self) {
        // If the pipe is full, it was told often enough; if it is closed, it has stopped.
        let _ = (&*self.0).write(&[0]);
    }
}

impl Server {
    /// Loads the certificate, listens, and says so in the log.
    ///
    /// # Errors
    /// Why it cannot start.
    pub fn bind(settings: &Settings) -> Result<Self, StartError> {
        let tls = settings.tls.as_ref().map(load_tls).transpose()?.flatten();
        let listeners = listen(&settings.host, settings.port)?;
        let address = listeners[0].local_addr()?;
        raise_descriptor_limit(settings.limits.connections);
        let (stop, stopped) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        let stop = Arc::new(stop);
        let on_end = StopHandle(stop.clone());
        let (hub, thread) = hub::start(settings.mod_password.clone(), move || on_end.stop())?;
        let context = Context {
            limits: settings.limits.clone(),
            allowed_origins: settings.allowed_origins.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
            admission: Admission::new(&settings.limits),
            hub,
        };
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        info!("WebSocket server running: {scheme}://{}:{}", settings.host, address.port());
        Ok(Self {
            listeners,
            address,
            tls,
            context: Arc::new(context),
            hub: thread,
            stopped,
            stop,
            next_id: 0,
        })
    }

    /// Where it listens; the first address, if the host has several.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.stop.clone())
    }

    /// Has SIGTERM and SIGINT stop the server.
    ///
    /// # Errors
    /// The system's.
    pub fn stop_on_signals(&self) -> io::Result<()> {
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, self.stop.try_clone()?)?;
        }
        Ok(())
    }

    /// Serves until it is told to stop, and returns when everybody has been told goodbye.
    ///
    /// # Errors
    /// The system's, or the hub has failed, which is a fault of the program's.
    pub fn run(mut self) -> io::Result<()> {
        let accepted = self.accept_until_stopped();
        info!("Stopping: no new connections, and goodbye to everybody");
        drop(self.listeners);
        // If the hub is gone already, its end tells.
        let _ = self.context.hub.send(Event::Stop);
        let ended = self.hub.join().map_err(|_| io::Error::other("the hub has failed"));
        accepted.and(ended)
    }

    fn accept_until_stopped(&mut self) -> io::Result<()> {
        let mut back_off_until: Option<Instant> = None;
        loop {
            let left = back_off_until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                back_off_until = None;
                continue;
            }
            let mut sources = vec![PollFd::new(&self.stopped, PollFlags::IN)];
            if back_off_until.is_none() {
                sources.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
            }
            match poll(&mut sources, left.map(timespec).as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                ready => ready?,
            };
            let ready: Vec<bool> = sources.iter().map(|source| !source.revents().is_empty()).collect();
            if ready[0] {
                return Ok(());
            }
            for listener in
                (0..self.listeners.len()).filter(|listener| ready.get(listener + 1) == Some(&true))
            {
                if !self.accept_one(listener) {
                    back_off_until = Some(Instant::now() + BACK_OFF);
                }
            }
        }
    }

    /// Accepts a connection. `false`: the system can give no more for now.
    fn accept_one(&mut self, listener: usize) -> bool {
        match self.listeners[listener].accept() {
            Ok((socket, address)) => self.admit(socket, address),
            Err(error) => match error.kind() {
                // The client did not wait.
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => true,
                _ => {
                    warn!("No connection can be accepted for now: {error}");
                    false
                }
            },
        }
    }

    /// Gives a connection its thread, if there is a place for it. `false`: the system can give no more for now.
    fn admit(&mut self, socket: TcpStream, address: SocketAddr) -> bool {
        if let Err(error) = socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)) {
            debug!("{address}: gone at once ({error})");
            return true;
        }
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let mut arrival =
            Arrival { id, socket: Arc::new(socket), address, tls: self.tls.clone(), places: Vec::new() };
        let full = match self.places(address) {
            Ok(places) => {
                arrival.places = places;
                None
            }
            Err(full) => {
                info!("{address}: refused: {full}");
                match (&self.tls, self.context.admission.refusal()) {
                    (None, Some(place)) => arrival.places.push(place),
                    _ => return true,
                }
                Some(full)
            }
        };
        let context = self.context.clone();
        let thread = thread::Builder::new().name(format!("client {}", id.0)).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || match full {
            None => connection::serve(arrival, &context),
            Some(full) => connection::refuse(arrival, full),
        });
        if let Err(error) = &spawned {
            warn!("{address}: closed: the system gives no thread ({error})");
        }
        spawned.is_ok()
    }

    fn places(&self, address: SocketAddr) -> Result<Vec<crate::admission::Place>, Full> {
        let ip = address.ip().to_canonical();
        let mut places = vec![self.context.admission.connection()?];
        // Whom a proxy speaks for shows later.
        if !self.context.is_proxy(ip) {
            places.extend(self.context.admission.address(ip)?);
        }
        Ok(places)
    }
}

/// The TLS configuration; `None` where a file is missing and plaintext will do.
fn load_tls(files: &TlsFiles) -> Result<Option<Arc<ServerConfig>>, StartError> {
    match tls::load(files) {
        Ok(identity) => {
            info!("SSL/TLS enabled: cert={}, key={}", files.cert.display(), files.key.display());
            Ok(Some(identity.config))
        }
        Err(errors)
            if files.required || !errors.iter().all(|error| matches!(error, TlsError::Missing { .. })) =>
        {
            Err(StartError::Tls(errors))
        }
        Err(errors) => {
            errors.iter().for_each(|error| error!("{error}"));
            warn!("Falling back to unencrypted ws://: set SSL_REQUIRED=true to forbid that");
            Ok(None)
        }
    }
}

/// Listens on every address of the host, and on one port.
fn listen(host: &Host, port: u16) -> Result<Vec<TcpListener>, StartError> {
    let failed = |error| StartError::Listen { host: host.clone(), port, error };
    let addresses: Vec<SocketAddr> = match host {
        Host::Address(address) => vec![(*address, port).into()],
        Host::Name(name) => (name.as_str(), port).to_socket_addrs().map_err(failed)?.collect(),
    };
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut failure = io::Error::other("the name has no address");
    for mut address in addresses {
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr().map_err(failed)?.port());
        }
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            rustix::net::listen(&listener, BACKLOG)?;
            Ok(listener)
        });
        match listener {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(failed(error)),
            // A name may have an IPv6 address on a machine that has none.
            Err(error) => failure = error,
        }
    }
    if listeners.is_empty() { Err(failed(failure)) } else { Ok(listeners) }
}

/// Lets the process have as many descriptors as its connections take, if the system allows.
fn raise_descriptor_limit(connections: usize) {
    let wanted = connections as u64 + SPARE_DESCRIPTORS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
        if raised.is_err() || allowed < wanted {
            warn!(
                "The system allows {allowed} open files, too few for MAX_CONNECTIONS={connections}: raise its limit \
                 (ulimit -n, LimitNOFILE in systemd)"
            );
        }
    }
}

/// Why the server cannot start.
#[derive(Debug)]
pub enum StartError {
    Tls(Vec<TlsError>),
    Listen { host: Host, port: u16, error: io::Error },
    System(io::Error),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tls(errors) => {
                let lines: Vec<String> = errors.iter().map(TlsError::to_string).collect();
                formatter.write_str(&lines.join("\n"))
            }
            Self::Listen { host, port, error } => {
                let remedy = match error.kind() {
                    ErrorKind::AddrInUse => "stop what listens there already, or set another PORT",
                    ErrorKind::PermissionDenied => "ports below 1024 need a privilege: set another PORT",
                    ErrorKind::AddrNotAvailable => {
                        "set HOST to an address of this machine, or to 0.0.0.0 for all"
                    }
                    _ => "check HOST and PORT",
                };
                write!(formatter, "Cannot listen on {host}:{port} ({error}): {remedy}")
            }
            Self::System(error) => write!(formatter, "The system does not let the server start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
