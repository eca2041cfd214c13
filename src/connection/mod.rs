//! One client's thread: the handshake, then the session.

mod handshake;
mod http_exchange;
mod keep_alive;
mod reader;
mod refusal;
mod session;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use log::debug;
use rustls::ServerConfig;

use crate::chat::ConnectionId;
use crate::config::Limits;
use crate::http::{Rejection, Router};
use crate::hub::HubHandle;
use crate::limits::{ClientLog, LimitExceeded, Network, Permit, Permits, Rates};
use crate::ops::metrics::{Counters, HandshakeFailure, RefusalReason};
use crate::transport::{Wait, wait};
use handshake::{Handshake, HandshakeError, handshake};

pub use refusal::{permit_to_refuse, refuse, report_refusal};

/// What all connections share.
pub struct Shared {
    pub limits: Limits,
    pub permits: Permits,
    pub rates: Rates,
    pub router: Router,
    pub hub: HubHandle,
    pub counters: Arc<Counters>,
    pub client_log: ClientLog,
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
    let address = incoming.address;
    if let Some(network) = incoming.charged(shared)
        && !wait_for_connect_rate(&incoming.socket, network, shared)
    {
        return debug!("{address}: disconnected before the handshake");
    }
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    match handshake(&incoming, shared, deadline) {
        Ok(Handshake::Upgraded(upgraded)) => session::run(incoming.id, upgraded, shared),
        Ok(Handshake::Responded(status)) => debug!("{address}: responded with {status}"),
        Err(error) => {
            count(&error, &shared.counters);
            match error {
                HandshakeError::Disconnected => debug!("{address}: {error}"),
                _ => shared.client_log.info(address.ip(), format_args!("{address}: {error}")),
            }
        }
    }
    // The connection counts against the limits until here.
    drop(incoming.permits);
}

impl Incoming {
    /// The address that rates are charged to. `None`: loopback is exempt, and behind a proxy only the request shows
    /// the client's address.
    pub fn charged(&self, shared: &Shared) -> Option<Network> {
        let ip = self.address.ip().to_canonical();
        (!ip.is_loopback() && !shared.router.proxies.contains(ip)).then(|| ip.into())
    }
}

/// Holds a handshake back until `CONNECT_RATE` allows it. `false`: the client has disconnected in the meantime.
fn wait_for_connect_rate(socket: &TcpStream, network: Network, shared: &Shared) -> bool {
    let connect = &shared.rates.connect;
    let Some(until) = connect.take(network, 1.0, Instant::now()) else { return true };
    let is_connected = matches!(wait(socket, Wait::Hangup, until), Ok(false));
    if !is_connected {
        connect.give_back(network, 1.0, Instant::now());
    }
    is_connected
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
fn refusal_reason(exceeded: LimitExceeded) -> RefusalReason {
    match exceeded {
        LimitExceeded::Server => RefusalReason::ServerFull,
        LimitExceeded::Address => RefusalReason::AddressFull,
    }
}
