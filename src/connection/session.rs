//! The session of an upgraded connection: its messages go to the hub until it ends.

use std::sync::Arc;
use std::time::Instant;

use log::{debug, warn};

use super::Shared;
use super::handshake::Upgraded;
use super::http_exchange::LINGER_TIMEOUT;
use super::reader::{End, Next, Reader};
use crate::chat::{ClientMessage, ConnectionId, MessageError};
use crate::hub::{Event, HubHandle, Peer};
use crate::ops::metrics::CutOffReason;
use crate::transport::{Link, ReadError};

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
                match reader.admit(&message) {
                    Ok(admission) => Event::Message(id, message, admission),
                    Err(end) => return end,
                }
            }
            Ok(Next::Binary) => Event::Message(id, Err(MessageError::Binary), None),
            Ok(Next::Pending) => Event::Pending(id),
            Err(end) => return end,
        };
        // Blocks while the inbox is full, so that TCP applies backpressure to the client.
        if shared.hub.send(event).is_err() {
            return End::Shutdown;
        }
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
