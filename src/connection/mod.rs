//! One client's thread: the handshake, and then the reading loop.

mod handshake;
mod keep_alive;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{debug, info, warn};
use tungstenite::Utf8Bytes;

use crate::chat::{ClientMessage, ConnectionId, Fault};
use crate::hub::{Event, Peer};
use crate::limits::Rate;
use crate::ops::metrics::CutOffBy;
use crate::transport::{Ended, Link, PORTION, Received, Sent, Wait, wait};
use handshake::{Failure, LINGER, Upgraded, shake_hands};
use keep_alive::{Due, KeepAlive};

pub use handshake::{Arrival, Context, refuse};

/// How long the reader of a flood leaves its lock to others after each portion.
const HAND_OVER: Duration = Duration::from_millis(1);
/// For how long what a client said too fast is still read when it has gone.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Serves one client from its first byte to its last.
pub fn serve(arrival: Arrival, context: &Context) {
    let deadline = Instant::now() + context.limits.handshake_timeout;
    match shake_hands(&arrival, context, deadline) {
        Ok(upgraded) => converse(&arrival, upgraded, context),
        Err(failure) => {
            let address = arrival.address;
            failure.count(&context.counters);
            match failure {
                Failure::Gone => debug!("{address}: gone before it was a WebSocket"),
                Failure::Told | Failure::Page(_) => debug!("{address}: {failure}"),
                failure => info!("{address}: {failure}"),
            }
        }
    }
}

fn converse(arrival: &Arrival, upgraded: Upgraded, context: &Context) {
    let Upgraded { stream, peer, read, place: _place } = upgraded;
    let id = arrival.id;
    let link = Arc::new(Link::new(stream, arrival.socket.clone(), read, &context.limits));
    debug!("{peer}: connected");
    let Some(registered) = Registered::new(id, &link, &peer, &context.hub) else { return };
    let ended = read_messages(id, &link, context);
    let closing = match &ended {
        End::Link(Ended::Closed) => {
            debug!("{peer}: closed");
            true
        }
        End::Link(Ended::Gone) | End::ServerStopped => {
            debug!("{peer}: gone");
            false
        }
        End::Link(Ended::Broke(code, reason)) => {
            info!("{peer}: closed with {code}: {reason}");
            context.counters.cut_off(CutOffBy::Broke);
            link.close(*code, reason, Instant::now()).is_ok()
        }
        End::Link(Ended::CutOff(reason)) => {
            if link.cut() {
                warn!("{peer}: cut off: {reason}");
                context.counters.cut_off(reason.into());
            }
            false
        }
        End::Silent => {
            warn!("{peer}: cut off: no answer to a ping (PING_INTERVAL)");
            context.counters.cut_off(CutOffBy::Silent);
            false
        }
    };
    // The name is free before the last bytes are gone.
    drop(registered);
    if closing {
        link.finish(Instant::now() + LINGER);
    }
    link.cut();
}

/// Why a conversation is over.
enum End {
    Link(Ended),
    Silent,
    ServerStopped,
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        Self::Link(ended)
    }
}

fn read_messages(id: ConnectionId, link: &Link, context: &Context) -> End {
    let mut rate = Rate::new(context.limits.message_rate, Instant::now());
    let mut keep_alive = KeepAlive::new(context.limits.ping_interval, Instant::now());
    loop {
        let event = match next(link, &mut rate, &mut keep_alive, context.limits.message_bytes) {
            Ok(Next::Text(text)) => {
                context.counters.received(text.len());
                Event::Said(id, ClientMessage::parse(&text))
            }
            Ok(Next::Binary) => Event::Said(id, Err(Fault::Binary)),
            Ok(Next::Waiting) => Event::Waiting(id),
            Err(end) => return end,
        };
        // A full inbox makes this thread wait, and TCP its client.
        if context.hub.send(event).is_err() {
            return End::ServerStopped;
        }
    }
}

/// What the hub is to know next.
enum Next {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong waits for the client to take it.
    Waiting,
}

/// Waits for what comes next, no faster than the client may send.
fn next(link: &Link, rate: &mut Rate, keep_alive: &mut KeepAlive, whole: usize) -> Result<Next, End> {
    loop {
        wait_for_rate(link, rate)?;
        let received = link.read()?;
        if !matches!(received, Received::Nothing { heard: false }) {
            keep_alive.heard(Instant::now());
        }
        let sent = match received {
            Received::Text(text) => {
                rate.count(1.0);
                return Ok(Next::Text(text));
            }
            Received::Binary => {
                rate.count(1.0);
                return Ok(Next::Binary);
            }
            Received::Control => {
                rate.count(1.0);
                link.flush(Instant::now())
            }
            Received::More => {
                // Whoever sends parts without end sends as much as if they were messages.
                rate.count(PORTION as f64 / PORTION.max(whole) as f64);
                // A lock that is given up and taken at once is not fair, and the hub may want it.
                let _ = wait(link.socket(), Wait::End, Instant::now() + HAND_OVER);
                continue;
            }
            Received::Nothing { .. } => {
                if wait(link.socket(), Wait::Read, keep_alive.next()).map_err(|_| Ended::Gone)? {
                    continue;
                }
                match keep_alive.due(Instant::now()) {
                    Due::Nothing => continue,
                    Due::Ping => link.ping(Instant::now()),
                    Due::Gone => return Err(End::Silent),
                }
            }
        };
        if let Sent::Waiting { .. } = sent.map_err(Ended::from)? {
            return Ok(Next::Waiting);
        }
    }
}

/// Waits until the client may send another message.
fn wait_for_rate(link: &Link, rate: &mut Rate) -> Result<(), End> {
    let mut ended: Option<Instant> = None;
    while let Some(until) = rate.wait_until(Instant::now()) {
        if ended.is_some_and(|ended| ended.elapsed() >= LAST_WORDS) || link.is_cut() {
            return Err(Ended::Gone.into());
        }
        match ended {
            None if wait(link.socket(), Wait::End, until).unwrap_or(true) => ended = Some(Instant::now()),
            None => {}
            // The connection has ended, but what the client said before can still be read.
            Some(_) => thread::sleep(until.saturating_duration_since(Instant::now())),
        }
    }
    Ok(())
}

/// A connection that the hub knows of, until this is dropped, be it by a panic: then the name is free again.
struct Registered<'a> {
    id: ConnectionId,
    hub: &'a Sender<Event>,
}

impl<'a> Registered<'a> {
    fn new(id: ConnectionId, link: &Arc<Link>, peer: &Peer, hub: &'a Sender<Event>) -> Option<Self> {
        hub.send(Event::Connected(id, link.clone(), peer.clone())).ok()?;
        Some(Self { id, hub })
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        // Without a hub there is no name to free.
        let _ = self.hub.send(Event::Gone(self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream};

    use super::*;
    use crate::config::Settings;
    use crate::transport::Stream;

    #[test]
    fn whose_thread_panics_is_gone_like_anybody_else() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let limits = Settings::from_pairs([]).unwrap().limits;
        let link = Arc::new(Link::new(Stream::plain(socket.clone()), socket, Vec::new(), &limits));
        let peer = Peer { name: "somebody".into(), network: IpAddr::from([127, 0, 0, 1]) };
        let (hub, inbox) = crossbeam_channel::bounded(2);
        let id = ConnectionId(7);
        let thread = std::thread::spawn(move || {
            let _registered = Registered::new(id, &link, &peer, &hub);
            panic!("as a fault of the program's would");
        });
        assert!(thread.join().is_err());
        assert!(matches!(inbox.recv(), Ok(Event::Connected(ConnectionId(7), ..))));
        assert!(matches!(inbox.recv(), Ok(Event::Gone(ConnectionId(7)))));
    }
}
