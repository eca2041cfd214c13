//! The session: reads messages from an upgraded connection until it ends.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use tungstenite::Utf8Bytes;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Shared;
use super::handshake::Upgraded;
use super::http_exchange::LINGER_TIMEOUT;
use super::keep_alive::{Due, KeepAlive};
use crate::chat::{ClientMessage, ConnectionId, MessageError};
use crate::hub::{Event, HubHandle, Peer};
use crate::limits::{Meter, Network, SendLimit};
use crate::ops::metrics::CutOffReason;
use crate::transport::{Flush, Link, Read, ReadError, Received, Wait, wait};

/// How long a flooding client's thread pauses after each [`Received::Partial`], so that the hub can take the
/// link's lock: std's mutex is not fair.
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
    let end = read_messages(id, &link, &peer, shared);
    let is_open = finish_reading(end, &link, &peer, shared);
    // Frees the name before the last bytes have been sent. At shutdown, the connection stays registered until then:
    // the process ends once no connection is registered.
    let registration = Some(registration).filter(|_| shared.hub.is_shutting_down());
    if is_open {
        link.finish(Instant::now() + LINGER_TIMEOUT);
    }
    link.cut_off();
    drop(registration);
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
            shared.client_log.info(peer.network, format_args!("{peer}: closed with {code}: {reason}"));
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
            if link.cut_off() {
                warn!("{peer}: cut off: no answer to a ping (PING_INTERVAL)");
                shared.counters.cut_off(CutOffReason::NoPong);
            }
            false
        }
    }
}

fn read_messages(id: ConnectionId, link: &Link, peer: &Peer, shared: &Shared) -> End {
    let mut reader = Reader::new(link, peer, shared);
    loop {
        let event = match reader.next() {
            Ok(Next::Text(text)) => {
                shared.counters.received(text.len());
                let message = ClientMessage::parse(&text);
                if let Err(end) = reader.charge_join(&message) {
                    return end;
                }
                Event::Message(id, message)
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

/// Reads from a client, no faster than the client may send.
struct Reader<'a> {
    link: &'a Link,
    shared: &'a Shared,
    /// The address that rates are charged to; `None`: exempt.
    network: Option<Network>,
    limit: SendLimit<'a>,
    meter: Meter,
    keep_alive: KeepAlive,
    /// The number of the message that has begun and is not complete, and since when.
    incomplete: Option<(u64, Instant)>,
    /// When the client was found to have disconnected, while this thread was waiting.
    disconnected: Option<Instant>,
    /// Whether a join of this connection has been charged. It can join only once.
    join_charged: bool,
}

impl<'a> Reader<'a> {
    fn new(link: &'a Link, peer: &Peer, shared: &'a Shared) -> Self {
        let now = Instant::now();
        Self {
            link,
            shared,
            network: peer.charged,
            limit: shared.rates.send_limit(peer.charged, now),
            meter: Meter::default(),
            keep_alive: KeepAlive::new(shared.limits.ping_interval, now),
            incomplete: None,
            disconnected: None,
            join_charged: false,
        }
    }

    /// Waits for what comes next.
    fn next(&mut self) -> Result<Next, End> {
        loop {
            let Read { received, bytes, incomplete } = self.link.read()?;
            self.meter.read(bytes);
            self.track(incomplete);
            if !matches!(received, Received::Nothing { progress: false }) {
                self.keep_alive.received(Instant::now());
            }
            let flush = match received {
                Received::Text(text) => {
                    self.charge_message(text.len())?;
                    return Ok(Next::Text(text));
                }
                Received::Binary(length) => {
                    self.charge_message(length)?;
                    return Ok(Next::Binary);
                }
                Received::Control => {
                    self.charge_message(0)?;
                    self.link.flush(Instant::now())
                }
                Received::Partial => {
                    self.charge_incomplete()?;
                    let _ = wait(self.link.socket(), Wait::Hangup, Instant::now() + YIELD_TIME);
                    continue;
                }
                Received::Nothing { .. } => {
                    self.charge_incomplete()?;
                    match self.wait_for_bytes()? {
                        Due::Nothing => continue,
                        Due::Ping => self.link.ping(Instant::now()),
                        Due::Disconnect => return Err(End::NoPong),
                    }
                }
            };
            if let Flush::Pending { .. } = flush.map_err(ReadError::from)? {
                return Ok(Next::Pending);
            }
        }
    }

    /// Records when the message that is now incomplete began.
    fn track(&mut self, incomplete: Option<u64>) {
        self.incomplete = match (incomplete, self.incomplete) {
            (Some(number), Some((known, since))) if number == known => Some((known, since)),
            (number, _) => number.map(|number| (number, Instant::now())),
        };
    }

    /// Waits for more bytes or the next keep-alive deadline.
    fn wait_for_bytes(&mut self) -> Result<Due, End> {
        let message_deadline = self.incomplete.map(|(_, since)| since + self.shared.limits.handshake_timeout);
        let keep_alive = self.keep_alive.next_deadline();
        let until = message_deadline.map_or(keep_alive, |deadline| deadline.min(keep_alive));
        match wait(self.link.socket(), Wait::Read, until) {
            Ok(true) => Ok(Due::Nothing),
            Ok(false) if message_deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                let reason = "a message took longer than HANDSHAKE_TIMEOUT";
                Err(ReadError::Violation(CloseCode::Policy, reason.into()).into())
            }
            Ok(false) => Ok(self.keep_alive.due(Instant::now())),
            Err(_) => Err(ReadError::Disconnected.into()),
        }
    }

    /// Charges for a complete message or control frame of this length, in bytes.
    fn charge_message(&mut self, length: usize) -> Result<(), End> {
        let cost = self.meter.complete(length);
        self.charge(cost)
    }

    /// Charges for bytes that have not completed a message.
    fn charge_incomplete(&mut self) -> Result<(), End> {
        let cost = self.meter.incomplete();
        self.charge(cost)
    }

    /// Waits until the rates cover this cost.
    fn charge(&mut self, cost: f64) -> Result<(), End> {
        match self.limit.charge(cost, Instant::now()) {
            Some(until) if cost > 0.0 => {
                self.hold(until).inspect_err(|_| self.limit.give_back(cost, Instant::now()))
            }
            _ => Ok(()),
        }
    }

    /// Holds a join back until the rate of its address and the cost of user lists allow it.
    fn charge_join(&mut self, message: &Result<ClientMessage, MessageError>) -> Result<(), End> {
        if self.join_charged || !message.as_ref().is_ok_and(ClientMessage::may_join) {
            return Ok(());
        }
        self.join_charged = true;
        let join = &self.shared.rates.join;
        if let Some(network) = self.network
            && let Some(until) = join.take(network, 1.0, Instant::now())
        {
            self.hold(until).inspect_err(|_| join.give_back(network, 1.0, Instant::now()))?;
        }
        while let Some(until) = self.shared.hub.joins_resume_at().filter(|&until| until > Instant::now()) {
            self.hold(until)?;
        }
        Ok(())
    }

    /// Waits without reading.
    fn hold(&mut self, until: Instant) -> Result<(), End> {
        let start = Instant::now();
        loop {
            let now = Instant::now();
            let drain_end = self.disconnected.map(|since| since + DRAIN_TIMEOUT);
            if self.link.is_cut_off() || drain_end.is_some_and(|end| end <= now) {
                return Err(ReadError::Disconnected.into());
            }
            if until <= now {
                break;
            }
            match drain_end {
                None => {
                    if wait(self.link.socket(), Wait::Hangup, until).unwrap_or(true) {
                        self.disconnected = Some(Instant::now());
                    }
                }
                // What the client sent before it disconnected can still be read. There is nothing to poll for.
                Some(end) => thread::sleep(until.min(end).saturating_duration_since(now)),
            }
        }
        // The client could not complete its message while this thread did not read.
        if let Some((_, since)) = &mut self.incomplete {
            *since += start.elapsed();
        }
        Ok(())
    }
}

/// A connection that is registered with the hub. Dropping it frees the name, even on a panic.
struct Registration<'a> {
    id: ConnectionId,
    hub: &'a HubHandle,
}

impl<'a> Registration<'a> {
    /// `None`: the hub has ended.
    fn new(id: ConnectionId, link: &Arc<Link>, peer: &Peer, hub: &'a HubHandle) -> Option<Self> {
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
        let network = IpAddr::from([127, 0, 0, 1]).into();
        let peer = Peer { name: "a client".into(), network, charged: None };
        let (inbox, events) = crossbeam_channel::bounded(2);
        let (hub, _queries) = HubHandle::new(inbox, Default::default());
        let id = ConnectionId(7);
        let thread = std::thread::spawn(move || {
            let _registration = Registration::new(id, &link, &peer, &hub);
            panic!("a bug in the session");
        });
        assert!(thread.join().is_err());
        assert!(matches!(events.recv(), Ok(Event::Connected(ConnectionId(7), ..))));
        assert!(matches!(events.recv(), Ok(Event::Disconnected(ConnectionId(7)))));
    }
}
