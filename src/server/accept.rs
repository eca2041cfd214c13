//! The accept loop: it waits for connections, wakeups, the certificate's next check and the watchdog, and gives
//! each connection its thread.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use rustix::event::{PollFd, PollFlags, poll};

use super::signals::Wakeups;
use crate::chat::ConnectionId;
use crate::connection::{self, HANDSHAKE_STACK_BYTES, Incoming, Shared};
use crate::hub::Event;
use crate::limits::{LimitExceeded, Permit, REPORT_INTERVAL};
use crate::ops::systemd;
use crate::tls::Renewal;
use crate::transport::timespec;

/// How long accepting pauses after the system has run out of descriptors, memory or threads.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When the watchdog's probe is retried if too many queries wait for the hub.
const PROBE_RETRY: Duration = Duration::from_millis(100);

pub struct AcceptLoop {
    pub listeners: Vec<TcpListener>,
    pub wakeups: Wakeups,
    pub renewal: Renewal,
    pub shared: Arc<Shared>,
    pub next_id: u64,
}

/// The system has run out of descriptors, memory or threads.
struct OutOfResources;

/// What a call to `poll(2)` found ready.
struct Ready {
    stop: bool,
    reload: bool,
    listeners: Vec<bool>,
}

impl AcceptLoop {
    /// Accepts connections until a wakeup asks for the shutdown.
    ///
    /// # Errors
    /// Those of `poll(2)`.
    pub fn run(&mut self) -> io::Result<()> {
        let mut pause_until: Option<Instant> = None;
        let mut watchdog = Watchdog::new(Instant::now());
        loop {
            let now = Instant::now();
            pause_until = pause_until.filter(|&until| now < until);
            self.renewal.tick(now);
            watchdog.tick(now, &self.shared);
            self.shared.client_log.report_due(now);
            let deadlines = [
                pause_until,
                self.renewal.next_deadline(),
                watchdog.next,
                // Other threads may suppress lines while this one waits.
                Some(now + REPORT_INTERVAL),
            ];
            let ready = self.wait(deadlines.into_iter().flatten().min(), pause_until.is_some())?;
            if ready.stop {
                return Ok(());
            }
            if ready.reload {
                self.reload();
            }
            for (listener, _) in ready.listeners.iter().enumerate().filter(|(_, ready)| **ready) {
                if let Err(OutOfResources) = self.accept(listener) {
                    pause_until = Some(Instant::now() + ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Waits until something is ready or the deadline has passed. While paused, listeners are not polled.
    fn wait(&self, deadline: Option<Instant>, paused: bool) -> io::Result<Ready> {
        let listeners: &[TcpListener] = if paused { &[] } else { &self.listeners };
        let mut sources = vec![
            PollFd::new(self.wakeups.stop(), PollFlags::IN),
            PollFd::new(self.wakeups.reload(), PollFlags::IN),
        ];
        sources.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = sources.iter().map(|source| !source.revents().is_empty());
        let (stop, reload) = (ready.next() == Some(true), ready.next() == Some(true));
        Ok(Ready { stop, reload, listeners: ready.collect() })
    }

    fn reload(&mut self) {
        self.wakeups.clear_reload();
        systemd::reloading();
        self.renewal.reload(Instant::now());
        // If the hub has ended, the server is stopping.
        let _ = self.shared.hub.send(Event::Reload);
        systemd::ready();
    }

    fn accept(&mut self, listener: usize) -> Result<(), OutOfResources> {
        match self.listeners[listener].accept() {
            Ok((socket, address)) => self.admit(socket, address),
            Err(error) => match error.kind() {
                // The client has disconnected already.
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Ok(()),
                _ => {
                    warn!("No connection can be accepted for now: {error}");
                    Err(OutOfResources)
                }
            },
        }
    }

    /// Gives a connection its thread if the limits permit it, or a thread that responds with 503.
    fn admit(&mut self, socket: TcpStream, address: SocketAddr) -> Result<(), OutOfResources> {
        if let Err(error) = socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)) {
            debug!("{address}: disconnected at once ({error})");
            return Ok(());
        }
        let id = ConnectionId::new(self.shared.hub.node(), self.next_id);
        self.next_id += 1;
        let tls = self.renewal.config();
        let mut incoming = Incoming { id, socket: Arc::new(socket), address, tls, permits: Vec::new() };
        let exceeded = match self.permits(address) {
            Ok(permits) => {
                incoming.permits = permits;
                None
            }
            Err(exceeded) => {
                let Some(permit) = connection::permit_to_refuse(&incoming, &self.shared) else {
                    connection::report_refusal(&incoming, incoming.peer(), exceeded, &self.shared);
                    return Ok(());
                };
                incoming.permits.push(permit);
                Some(exceeded)
            }
        };
        let shared = self.shared.clone();
        let thread = thread::Builder::new()
            .name(format!("handshake {}", id.number()))
            .stack_size(HANDSHAKE_STACK_BYTES);
        let spawned = thread.spawn(move || match exceeded {
            None => connection::serve(incoming, &shared),
            Some(exceeded) => connection::refuse(incoming, exceeded, &shared),
        });
        spawned.map(drop).map_err(|error| {
            warn!("{address}: closed: the system cannot create a thread ({error})");
            OutOfResources
        })
    }

    fn permits(&self, address: SocketAddr) -> Result<Vec<Permit>, LimitExceeded> {
        let ip = address.ip().to_canonical();
        let mut permits = vec![self.shared.permits.connection()?];
        // Behind a proxy, the client's address is known only once its request has been read.
        if !self.shared.router.proxies.contains(ip) {
            permits.extend(self.shared.permits.peer(ip)?);
        }
        Ok(permits)
    }
}

/// Notifies systemd's watchdog through the hub, which shows that both this thread and the hub are responsive.
struct Watchdog {
    interval: Option<Duration>,
    /// `None`: systemd has no watchdog for this process.
    next: Option<Instant>,
}

impl Watchdog {
    fn new(now: Instant) -> Self {
        let interval = systemd::watchdog_interval();
        Self { interval, next: interval.map(|_| now) }
    }

    fn tick(&mut self, now: Instant, shared: &Shared) {
        let (Some(interval), Some(next)) = (self.interval, self.next) else { return };
        if next <= now {
            // If the hub does not respond, systemd is not notified, and restarts the server after `WatchdogSec`.
            let is_sent = shared.hub.probe(systemd::watchdog);
            self.next = Some(now + if is_sent { interval } else { interval.min(PROBE_RETRY) });
        }
    }
}
