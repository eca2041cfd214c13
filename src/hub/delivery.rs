//! Sends batches to clients, retries slow clients, and cuts off those that exceed a limit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, warn};
use tungstenite::protocol::frame::coding::CloseCode;

use super::Peer;
use super::retries::Retries;
use super::tape::Batch;
use crate::chat::{ConnectionId, ConnectionMap};
use crate::ops::metrics::Counters;
use crate::transport::{Flush, Link, Output, SendError};

/// The close code of a connection whose place another connection has taken (docs/protocol.md).
const REPLACED: CloseCode = CloseCode::Library(4001);
/// The reason for closing the connections of a server that has lost its place in a chat of several servers.
#[cfg(feature = "cluster")]
const RECONNECT: &str = "this server had lost contact with the other servers: reconnect";
/// How long a client that was replaced or removed has to complete the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// All connected clients, and the retries of slow ones. Sending never blocks.
pub struct Delivery {
    clients: ConnectionMap<Client>,
    /// Clients with a backlog.
    retries: Retries,
    /// Connections that are being closed, and when they are cut off, in this order.
    closing: VecDeque<(Instant, ConnectionId)>,
    sent_bytes: u64,
    counters: Arc<Counters>,
}

struct Client {
    /// `None` once nothing more can be sent to it, until its thread reports the disconnect.
    link: Option<Arc<Link>>,
    peer: Peer,
}

impl Delivery {
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            clients: ConnectionMap::default(),
            retries: Retries::default(),
            closing: VecDeque::new(),
            sent_bytes: 0,
            counters,
        }
    }

    pub fn add(&mut self, id: ConnectionId, link: Arc<Link>, peer: Peer) {
        self.clients.insert(id, Client { link: Some(link), peer });
    }

    pub fn remove(&mut self, id: ConnectionId) {
        self.clients.remove(&id);
        self.retries.remove(id);
        self.closing.retain(|&(_, closing)| closing != id);
    }

    pub fn peer(&self, id: ConnectionId) -> Option<&Peer> {
        self.clients.get(&id).map(|client| &client.peer)
    }

    /// Sends each recipient its part of a batch.
    pub fn send(&mut self, batch: &Batch, now: Instant) {
        let mut output = Output::default();
        for id in batch.recipients() {
            batch.output(id, &mut output);
            self.sent_bytes += output.len() as u64;
            self.attempt(id, now, |link| link.send(&output, now));
        }
    }

    /// When to call [`Self::retry_due`] next.
    pub fn next_retry(&self) -> Option<Instant> {
        let cut_off = self.closing.front().map(|&(at, _)| at);
        self.retries.next_deadline().into_iter().chain(cut_off).min()
    }

    /// Retries the slow clients whose delay is over, and cuts off connections that should have closed by now.
    pub fn retry_due(&mut self, now: Instant) {
        while let Some(&(_, id)) = self.closing.front().filter(|(at, _)| *at <= now) {
            self.closing.pop_front();
            if let Some(Client { link: Some(link), .. }) = self.clients.get(&id) {
                link.cut_off();
            }
        }
        while let Some(id) = self.retries.next_due(now) {
            self.attempt(id, now, |link| link.flush(now));
        }
    }

    /// Schedules a flush for a client whose own thread has left bytes in its backlog.
    pub fn schedule_flush(&mut self, id: ConnectionId, now: Instant) {
        let is_connected = self.clients.get(&id).is_some_and(|client| client.link.is_some());
        if is_connected && !self.retries.contains(id) {
            self.retries.retry_soon(id, 0, now);
        }
    }

    /// Whether a client has a backlog.
    pub fn is_slow(&self, id: ConnectionId) -> bool {
        self.retries.contains(id)
    }

    /// Starts the closing handshake with a client at shutdown.
    pub fn close(&mut self, id: ConnectionId, now: Instant) {
        self.attempt(id, now, |link| link.close(CloseCode::Away, "the server is shutting down", now));
    }

    /// Starts the closing handshake with a client whose place another connection has taken.
    pub fn close_replaced(&mut self, id: ConnectionId, now: Instant) {
        self.close_soon(id, REPLACED, "another connection has taken this place", now);
    }

    /// Starts the closing handshake with a client that was refused or removed.
    pub fn close_removed(&mut self, id: ConnectionId, reason: &str, now: Instant) {
        self.close_soon(id, CloseCode::Policy, reason, now);
    }

    /// Starts the closing handshake with a client that may connect again at once.
    #[cfg(feature = "cluster")]
    pub fn close_to_reconnect(&mut self, id: ConnectionId, now: Instant) {
        self.close_soon(id, CloseCode::Restart, RECONNECT, now);
    }

    /// The client is cut off after [`CLOSE_TIMEOUT`], because its socket may be dead.
    fn close_soon(&mut self, id: ConnectionId, code: CloseCode, reason: &str, now: Instant) {
        self.attempt(id, now, |link| link.close(code, reason, now));
        self.closing.push_back((now + CLOSE_TIMEOUT, id));
    }

    pub fn close_all(&mut self, now: Instant) {
        self.ids().into_iter().for_each(|id| self.close(id, now));
    }

    #[cfg(feature = "cluster")]
    pub fn close_all_to_reconnect(&mut self, now: Instant) {
        self.ids().into_iter().for_each(|id| self.close_to_reconnect(id, now));
    }

    fn ids(&self) -> Vec<ConnectionId> {
        self.clients.keys().copied().collect()
    }

    /// Whether every client has been cut off or has disconnected.
    pub fn is_finished(&self) -> bool {
        self.clients.values().all(|client| client.link.is_none())
    }

    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// How many clients have a backlog.
    pub fn slow_clients(&self) -> usize {
        self.retries.len()
    }

    /// The size of all backlogs, in bytes.
    pub fn backlog_bytes(&self) -> usize {
        self.retries.bytes()
    }

    /// Sends to a client unless it was cut off, schedules a retry if bytes are left, and cuts it off on an error.
    fn attempt(
        &mut self,
        id: ConnectionId,
        now: Instant,
        send: impl FnOnce(&Link) -> Result<Flush, SendError>,
    ) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(link) = &client.link else { return };
        let reason = match send(link) {
            Ok(Flush::Complete) => {
                self.retries.remove(id);
                return;
            }
            Ok(Flush::Pending { progress: true, bytes }) => {
                self.retries.retry_soon(id, bytes, now);
                return;
            }
            Ok(Flush::Pending { progress: false, bytes }) => {
                self.retries.retry(id, bytes, now);
                return;
            }
            Err(reason) => reason,
        };
        let peer = &client.peer;
        match reason.cut_off_reason() {
            // Not cut off: its thread may still read what the client sent before it disconnected.
            None => debug!("{peer}: {reason}"),
            // If the client's own thread has cut it off already, it has logged and counted that.
            Some(counted) if link.cut_off() => {
                warn!("{peer}: cut off: {reason}");
                self.counters.cut_off(counted);
            }
            Some(_) => {}
        }
        // The room handles the disconnect when the client's thread reports it.
        client.link = None;
        self.retries.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream};

    use super::*;
    use crate::transport::Stream;

    /// A dead socket once kept its connection for two ping intervals.
    #[test]
    fn a_replaced_connection_that_does_not_answer_is_cut_off() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let link = Arc::new(Link::new(Stream::plain(Arc::new(socket)), Vec::new(), 1024, 1024));
        let network = IpAddr::from([127, 0, 0, 1]).into();
        let (id, now, mut delivery) = (ConnectionId(1), Instant::now(), Delivery::new(Arc::default()));
        delivery.add(id, link.clone(), Peer { name: "a client".into(), network, charged: None });
        delivery.close_replaced(id, now);
        assert_eq!(delivery.next_retry(), Some(now + CLOSE_TIMEOUT));
        delivery.retry_due(now + CLOSE_TIMEOUT - Duration::from_millis(1));
        assert!(!link.is_cut_off());
        delivery.retry_due(now + CLOSE_TIMEOUT);
        assert!(link.is_cut_off());
        assert_eq!(delivery.next_retry(), None);
    }
}
