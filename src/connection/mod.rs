//! One client's thread: the handshake, then the session.

mod handshake;
mod http_exchange;
mod keep_alive;
mod full_server;
mod session;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use log::{debug, info};
use rustls::ServerConfig;

use crate::chat::ConnectionId;
use crate::config::Limits;
use crate::http::{Rejection, Router};
use crate::hub::Event;
use crate::limits::{LimitExceeded, Permit, Permits};
use crate::ops::metrics::{Counters, HandshakeFailure, RefusalReason};
use handshake::{Handshake, HandshakeError, handshake};

pub use full_server::refuse;

/// What all connections share.
pub struct Shared {
    pub limits: Limits,
    pub permits: Permits,
    pub router: Router,
    pub hub: Sender<Event>,
    pub counters: Arc<Counters>,
}

/// A connection that was accepted.
pub struct Incoming {
    pub id: ConnectionId,
    /// Nonblocking.
    pub socket: Arc<TcpStream>,
    pub address: SocketAddr,
    /// `None`: plaintext.
    pub tls: Option<Arc<ServerConfig>>,
    /// Held until the connection ends.
    pub permits: Vec<Permit>,
}

/// Serves one connection until it ends.
pub fn serve(incoming: Incoming, shared: &Shared) {
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    let address = incoming.address;
    match handshake(&incoming, shared, deadline) {
        Ok(Handshake::Upgraded(upgraded)) => session::run(incoming.id, upgraded, shared),
        Ok(Handshake::Responded(status)) => debug!("{address}: responded with {status}"),
        Err(error) => {
            count(&error, &shared.counters);
            match error {
                HandshakeError::Disconnected => debug!("{address}: {error}"),
                _ => info!("{address}: {error}"),
            }
        }
    }
    // The connection counts against the limits until here.
    drop(incoming.permits);
}

fn count(error: &HandshakeError, counters: &Counters) {
    match error {
        HandshakeError::Disconnected => counters.failed(HandshakeFailure::Closed),
        HandshakeError::TimedOut => counters.failed(HandshakeFailure::TimedOut),
        HandshakeError::Tls(_) => counters.failed(HandshakeFailure::Tls),
        HandshakeError::TlsOnPlainPort => counters.failed(HandshakeFailure::WrongPort),
        HandshakeError::Rejected(rejection) => match rejection {
            Rejection::NotHttp | Rejection::HeadTooLarge | Rejection::WebSocketKey => {
                counters.failed(HandshakeFailure::Http);
            }
            Rejection::PlainHttpOnTlsPort => counters.failed(HandshakeFailure::WrongPort),
            Rejection::Origin => counters.refused(RefusalReason::Origin),
            Rejection::Limit(exceeded) => counters.refused(refusal_reason(*exceeded)),
            // From a browser or an old client. Not counted.
            Rejection::NotWebSocket { .. } | Rejection::WebSocketVersion => {}
        },
    }
}

/// The metric's label for an exceeded limit.
pub fn refusal_reason(exceeded: LimitExceeded) -> RefusalReason {
    match exceeded {
        LimitExceeded::Server => RefusalReason::ServerFull,
        LimitExceeded::Address => RefusalReason::AddressFull,
    }
}
