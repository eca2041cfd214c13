//! The server as a whole: it listens, admits, and stops in good order.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info, warn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::chat::{ConnectionId, ModPassword};
use crate::config::{Host, Settings};
use crate::connection::{self, Arrival, Context, refuse};
use crate::http::Eyes;
use crate::hub::{self, Event};
use crate::limits::{Admission, Full, Place};
use crate::ops::metrics::Counters;
use crate::ops::systemd as service;
use crate::tls::{Renewal, TlsError};
use crate::transport::timespec;

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
    /// What the log calls it.
    url: String,
    /// Where the chat page is, if there is one.
    page: Option<String>,
    renewal: Renewal,
    context: Arc<Context>,
    hub: JoinHandle<()>,
    /// Readable when somebody has used the handle, or a signal has come.
    asked: Asked<UnixStream>,
    handle: Handle,
    next_id: u64,
}

/// Tells a server from another thread what to do.
#[derive(Clone)]
pub struct Handle(Asked<Arc<UnixStream>>);

/// The pipes through which a server is told something, by either end.
#[derive(Clone)]
struct Asked<Pipe> {
    stop: Pipe,
    reload: Pipe,
}

impl Handle {
    /// Asks the server to stop; [`Server::run`] returns when it has.
    pub fn stop(&self) {
        tell(&self.0.stop);
    }

    /// Asks the server to load its certificate anew.
    pub fn reload(&self) {
        tell(&self.0.reload);
    }
}

fn tell(mut pipe: &UnixStream) {
    // If the pipe is full, it was told often enough; if it is closed, it has stopped.
    let _ = pipe.write(&[0]);
}

impl Server {
    /// Loads the certificate, and listens.
    ///
    /// # Errors
    /// Why it cannot start.
    pub fn bind(settings: &Settings) -> Result<Self, StartError> {
        let counters = Arc::new(Counters::default());
        let renewal = Renewal::start(settings.tls.as_ref(), counters.clone()).map_err(StartError::Tls)?;
        let listeners = listen(&settings.host, settings.port)?;
        let address = listeners[0].local_addr()?;
        raise_descriptor_limit(settings.limits.connections);
        if settings.limits.send_queue_bytes < settings.limits.message_bytes {
            warn!("SEND_QUEUE_BYTES is less than MAX_MESSAGE_BYTES: one long message may cut off everybody");
        }
        let (stop, stop_asked) = pipe()?;
        let (reload, reload_asked) = pipe()?;
        let handle = Handle(Asked { stop, reload });
        let on_end = handle.clone();
        let (hub, thread) = hub::start(
            settings.mod_password.as_ref().map(|secret| ModPassword::new(secret.expose())),
            counters.clone(),
            move || on_end.stop(),
        )?;
        let admission = Admission::new(&settings.limits);
        let eyes = Eyes {
            allow: settings.metrics_allow.clone(),
            counters: counters.clone(),
            admission: admission.clone(),
            hub: hub.clone(),
            started: (Instant::now(), SystemTime::now()),
        };
        let context = Context {
            limits: settings.limits.clone(),
            allowed_origins: settings.allowed_origins.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
            admission,
            web_ui: settings.web_ui,
            hub,
            counters,
            eyes,
        };
        let scheme = if renewal.config().is_some() { "wss" } else { "ws" };
        let url = format!("{scheme}://{}:{}", settings.host, address.port());
        let page =
            settings.web_ui.then(|| page_url(renewal.config().is_some(), &settings.host, address.port()));
        Ok(Self {
            listeners,
            address,
            url,
            page,
            renewal,
            context: Arc::new(context),
            hub: thread,
            asked: Asked { stop: stop_asked, reload: reload_asked },
            handle,
            next_id: 0,
        })
    }

    /// Where it listens; the first address, if the host has several.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Has SIGTERM and SIGINT stop the server, and SIGHUP load its certificate anew.
    ///
    /// # Errors
    /// The system's.
    pub fn handle_signals(&self) -> io::Result<()> {
        let Asked { stop, reload } = &self.handle.0;
        for (signal, pipe) in [(SIGTERM, stop), (SIGINT, stop), (SIGHUP, reload)] {
            signal_hook::low_level::pipe::register(signal, pipe.try_clone()?)?;
        }
        Ok(())
    }

    /// Serves until it is told to stop, and returns when everybody has been told goodbye.
    ///
    /// # Errors
    /// The system's, or the hub has failed, which is a fault of the program's.
    pub fn run(mut self) -> io::Result<()> {
        service::ready();
        // Whoever reads this may send a signal at once, which by now is heeded.
        info!("WebSocket server running: {}", self.url);
        if let Some(page) = &self.page {
            info!("Chat page: {page}");
        }
        self.renewal.report();
        let accepted = self.accept_until_stopped();
        info!("Stopping: no new connections, and goodbye to everybody");
        service::stopping();
        drop(self.listeners);
        // If the hub is gone already, its end tells.
        let _ = self.context.hub.send(Event::Stop);
        let ended = self.hub.join().map_err(|_| io::Error::other("the hub has failed"));
        accepted.and(ended)
    }

    fn accept_until_stopped(&mut self) -> io::Result<()> {
        let mut back_off_until: Option<Instant> = None;
        let watchdog = service::watchdog_interval();
        let mut watchdog_at = watchdog.map(|_| Instant::now());
        loop {
            let now = Instant::now();
            back_off_until = back_off_until.filter(|&until| now < until);
            self.renewal.tick(now);
            if let Some(interval) = watchdog.filter(|_| watchdog_at.is_some_and(|at| at <= now)) {
                // A hub that cannot take this is not well, and its silence will tell.
                let _ = self.context.hub.try_send(Event::Watchdog);
                watchdog_at = Some(now + interval);
            }
            let due = [back_off_until, self.renewal.next_deadline(), watchdog_at].into_iter().flatten().min();
            let listeners: &[TcpListener] = if back_off_until.is_some() { &[] } else { &self.listeners };
            let mut sources = vec![
                PollFd::new(&self.asked.stop, PollFlags::IN),
                PollFd::new(&self.asked.reload, PollFlags::IN),
            ];
            sources.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
            match poll(&mut sources, due.map(|due| timespec(due.saturating_duration_since(now))).as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                ready => ready?,
            };
            let ready: Vec<bool> = sources.iter().map(|source| !source.revents().is_empty()).collect();
            let [stop, reload, listeners @ ..] = &ready[..] else { continue };
            if *stop {
                return Ok(());
            }
            if *reload {
                self.reload();
            }
            for listener in (0..listeners.len()).filter(|&listener| listeners[listener]) {
                if !self.accept_one(listener) {
                    back_off_until = Some(Instant::now() + BACK_OFF);
                }
            }
        }
    }

    fn reload(&mut self) {
        // However often it was asked until now, once is enough.
        while self.asked.reload.read(&mut [0; 256]).is_ok_and(|read| read > 0) {}
        service::reloading();
        self.renewal.reload(Instant::now());
        service::ready();
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
            Arrival { id, socket: Arc::new(socket), address, tls: self.renewal.config(), places: Vec::new() };
        let full = match self.places(address) {
            Ok(places) => {
                arrival.places = places;
                None
            }
            Err(full) => {
                info!("{address}: refused: {full}");
                self.context.counters.refused(full.into());
                match (self.renewal.config(), self.context.admission.refusal()) {
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
            Some(full) => refuse(arrival, full, &context),
        });
        if let Err(error) = &spawned {
            warn!("{address}: closed: the system gives no thread ({error})");
        }
        spawned.is_ok()
    }

    fn places(&self, address: SocketAddr) -> Result<Vec<Place>, Full> {
        let ip = address.ip().to_canonical();
        let mut places = vec![self.context.admission.connection()?];
        // Whom a proxy speaks for shows later.
        if !self.context.is_proxy(ip) {
            places.extend(self.context.admission.peer(ip)?);
        }
        Ok(places)
    }
}

/// Where a browser finds the chat page. That it listens on every address says nothing of its name.
fn page_url(tls: bool, host: &Host, port: u16) -> String {
    let scheme = if tls { "https" } else { "http" };
    match host {
        Host::Address(address) if address.is_unspecified() => {
            format!(
                "{scheme}://localhost:{port}/ (from elsewhere: this machine's name in place of localhost)"
            )
        }
        host => format!("{scheme}://{host}:{port}/"),
    }
}

/// A pipe that neither end waits for: to write to, to read from.
fn pipe() -> io::Result<(Arc<UnixStream>, UnixStream)> {
    let (write, read) = UnixStream::pair()?;
    write.set_nonblocking(true)?;
    read.set_nonblocking(true)?;
    Ok((Arc::new(write), read))
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
