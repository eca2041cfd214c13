//! The session: reads messages from an upgraded connection until it ends.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{debug, info, warn};
use tungstenite::Utf8Bytes;

use super::Shared;
use super::handshake::Upgraded;
use super::http_exchange::LINGER_TIMEOUT;
use super::keep_alive::{Due, KeepAlive};
use crate::chat::{ClientMessage, ConnectionId, MessageError};
use crate::hub::{Event, Peer};
use crate::limits::RateLimit;
use crate::ops::metrics::CutOffReason;
use crate::transport::{Flush, Link, MAX_READ_BYTES, ReadError, Received, Wait, wait};

/// How long a flooding client's thread pauses after each [`MAX_READ_BYTES`], so that the hub can take the link's lock:
/// std's mutex is not fair.
const YIELD_TIME: Duration = Duration::from_millis(1);
/// How long a disconnected client's remaining messages are read, at the rate limit.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a session until the client or the server closes it, or either fails.
pub fn run(id: ConnectionId, upgraded: Upgraded, shared: &Shared) {
    let Upgraded { stream, peer, leftover, permit: _permit } = upgraded;
    let limits = &shared.limits;
    let link = Arc::new(Link::new(stream, leftover, limits.message_bytes, limits.send_queue_bytes));
    debug!("{peer}: connected");
    let Some(registration) = Registration::new(id, &link, &peer, &shared.hub) else { return };
    let end = read_messages(id, &link, shared);
    let is_open = finish_reading(end, &link, &peer, shared);
    // Frees the name first: sending the last bytes may take until the timeout.
    drop(registration);
    if is_open {
        link.finish(Instant::now() + LINGER_TIMEOUT);
    }
    link.cut_off();
}

/// Why a session ends.
enum End {
    Read(ReadError),
    NoPong,
    Shutdown,
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Logs and counts the end of a session. Returns whether the connection can still be closed in an orderly way.
fn finish_reading(end: End, link: &Link, peer: &Peer, shared: &Shared) -> bool {
    match end {
        End::Read(ReadError::Closed) => {
            debug!("{peer}: closed");
            true
        }
        End::Read(ReadError::Disconnected) | End::Shutdown => {
            debug!("{peer}: disconnected");
            false
        }
        End::Read(ReadError::Violation(code, reason)) => {
            info!("{peer}: closed with {code}: {reason}");
            shared.counters.cut_off(CutOffReason::Violation);
            link.close(code, &reason, Instant::now()).is_ok()
        }
        End::Read(ReadError::CutOff(error)) => {
            // If the hub has cut it off already, it has logged and counted that.
            if let Some(reason) = error.cut_off_reason().filter(|_| link.cut_off()) {
                warn!("{peer}: cut off: {error}");
                shared.counters.cut_off(reason);
            }
            false
        }
        End::NoPong => {
            warn!("{peer}: cut off: no answer to a ping (PING_INTERVAL)");
            shared.counters.cut_off(CutOffReason::NoPong);
            false
        }
    }
}

fn read_messages(id: ConnectionId, link: &Link, shared: &Shared) -> End {
    let now = Instant::now();
    let mut reader = Reader {
        link,
        rate: RateLimit::new(shared.limits.message_rate, now),
        keep_alive: KeepAlive::new(shared.limits.ping_interval, now),
        max_message: shared.limits.message_bytes,
    };
    loop {
        let event = match reader.next() {
            Ok(Next::Text(text)) => {
                shared.counters.received(text.len());
                Event::Message(id, ClientMessage::parse(&text))
            }
            Ok(Next::Binary) => Event::Message(id, Err(MessageError::Binary)),
            Ok(Next::Pending) => Event::Pending(id),
            Err(end) => return end,
        };
        // Blocks while the inbox is full, so that TCP applies backpressure to the client.
        if shared.hub.send(event).is_err() {
            return End::Shutdown;
        }
    }
}

/// What was received, or what the hub must do.
enum Next {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong is in the backlog.
    Pending,
}

struct Reader<'a> {
    link: &'a Link,
    rate: RateLimit,
    keep_alive: KeepAlive,
    /// In bytes.
    max_message: usize,
}

impl Reader<'_> {
    /// Waits for the next message, reading no faster than the rate limit allows.
    fn next(&mut self) -> Result<Next, End> {
        loop {
            self.wait_for_rate()?;
            let received = self.link.read()?;
            if !matches!(received, Received::Nothing { progress: false }) {
                self.keep_alive.received(Instant::now());
            }
            let flush = match received {
                Received::Text(text) => {
                    self.rate.charge(1.0);
                    return Ok(Next::Text(text));
                }
                Received::Binary => {
                    self.rate.charge(1.0);
                    return Ok(Next::Binary);
                }
                Received::Control => {
                    self.rate.charge(1.0);
                    self.link.flush(Instant::now())
                }
                Received::Partial => {
                    self.partial();
                    continue;
                }
                Received::Nothing { .. } => match self.wait_for_bytes()? {
                    Due::Nothing => continue,
                    Due::Ping => self.link.ping(Instant::now()),
                    Due::Disconnect => return Err(End::NoPong),
                },
            };
            if let Flush::Pending { .. } = flush.map_err(ReadError::from)? {
                return Ok(Next::Pending);
            }
        }
    }

    /// Charges for part of an incomplete message, so that endless fragments are subject to the rate limit as well.
    fn partial(&mut self) {
        self.rate.charge(MAX_READ_BYTES as f64 / MAX_READ_BYTES.max(self.max_message) as f64);
        let _ = wait(self.link.socket(), Wait::Hangup, Instant::now() + YIELD_TIME);
    }

    /// Waits for more bytes or the next keep-alive deadline.
    fn wait_for_bytes(&mut self) -> Result<Due, End> {
        match wait(self.link.socket(), Wait::Read, self.keep_alive.next_deadline()) {
            Ok(true) => Ok(Due::Nothing),
            Ok(false) => Ok(self.keep_alive.due(Instant::now())),
            Err(_) => Err(ReadError::Disconnected.into()),
        }
    }

    /// Waits until the client may send another message.
    fn wait_for_rate(&mut self) -> Result<(), End> {
        let mut disconnected: Option<Instant> = None;
        while let Some(until) = self.rate.wait_until(Instant::now()) {
            if disconnected.is_some_and(|since| since.elapsed() >= DRAIN_TIMEOUT) || self.link.is_cut_off() {
                return Err(ReadError::Disconnected.into());
            }
            match disconnected {
                None if wait(self.link.socket(), Wait::Hangup, until).unwrap_or(true) => {
                    disconnected = Some(Instant::now());
                }
                None => {}
                // What the client sent before it disconnected can still be read. Polling would return at once.
                Some(_) => thread::sleep(until.saturating_duration_since(Instant::now())),
            }
        }
        Ok(())
    }
}

/// A connection that is registered with the hub. Dropping it frees the name, even on a panic.
struct Registration<'a> {
    id: ConnectionId,
    hub: &'a Sender<Event>,
}

impl<'a> Registration<'a> {
    /// `None`: the hub has ended.
    fn new(id: ConnectionId, link: &Arc<Link>, peer: &Peer, hub: &'a Sender<Event>) -> Option<Self> {
        hub.send(Event::Connected(id, link.clone(), peer.clone())).ok()?;
        Some(Self { id, hub })
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        // Fails only if the hub has ended.
        let _ = self.hub.send(Event::Disconnected(self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream};

    use super::*;
    use crate::transport::Stream;

    #[test]
    fn a_panicking_thread_frees_its_name() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let link = Arc::new(Link::new(Stream::plain(socket), Vec::new(), 1024, 1024));
        let peer = Peer { name: "a client".into(), network: IpAddr::from([127, 0, 0, 1]).into() };
        let (hub, inbox) = crossbeam_channel::bounded(2);
        let id = ConnectionId(7);
        let thread = std::thread::spawn(move || {
            let _registration = Registration::new(id, &link, &peer, &hub);
            panic!("a bug in the session");
        });
        assert!(thread.join().is_err());
        assert!(matches!(inbox.recv(), Ok(Event::Connected(ConnectionId(7), ..))));
        assert!(matches!(inbox.recv(), Ok(Event::Disconnected(ConnectionId(7)))));
    }
}
