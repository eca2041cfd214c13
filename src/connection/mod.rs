//! One client's thread: the handshake, then the session.

mod handshake;
mod http_exchange;
mod keep_alive;
mod passwords;
mod reader;
mod refusal;
mod session;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use log::{debug, warn};
use rustls::ServerConfig;

use crate::chat::ConnectionId;
use crate::config::Limits;
use crate::http::{Rejection, Router};
use crate::hub::HubHandle;
use crate::limits::{ClientLog, LimitExceeded, Network, Permit, Permits, Rates};
use crate::ops::metrics::{Counters, HandshakeFailure, RefusalReason};
use crate::transport::{Wait, wait};
use handshake::{Handshake, HandshakeError, Upgraded, handshake};

pub use passwords::Passwords;
pub use refusal::{permit_to_refuse, refuse, report_refusal};

/// The stack of a session's thread, in bytes. Only the pages in use take memory.
const SESSION_STACK_BYTES: usize = 192 * 1024;
/// The stack of a handshake's thread, in bytes: more than four times that of a session's. Otherwise glibc, which keeps
/// the stacks of finished threads with some of their pages in memory, would reuse them for sessions.
pub const HANDSHAKE_STACK_BYTES: usize = 1024 * 1024;

/// What all connections share.
pub struct Shared {
    pub limits: Limits,
    pub permits: Permits,
    pub rates: Rates,
    pub passwords: Passwords,
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
pub fn serve(mut incoming: Incoming, shared: &Arc<Shared>) {
    let address = incoming.address;
    if let Some(network) = incoming.charged(shared)
        && !wait_for_connect_rate(&incoming.socket, network, shared)
    {
        return debug!("{address}: disconnected before the handshake");
    }
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    match handshake(&mut incoming, shared, deadline) {
        Ok(Handshake::Upgraded(upgraded)) => return start_session(incoming, upgraded, shared.clone()),
        Ok(Handshake::Responded(status)) => debug!("{address}: responded with {status}"),
        Err(error) => {
            count(&error, &shared.counters);
            let client = match error {
                HandshakeError::Disconnected => return debug!("{address}: {error}"),
                HandshakeError::Rejected { client: Some(client), .. } => client,
                _ => incoming.peer(),
            };
            let name = handshake::name(client, address);
            shared.client_log.info(client, format_args!("{name}: {error}"));
        }
    }
    // The connection counts against the limits until here.
    drop(incoming.permits);
}

/// Runs the session on a thread of its own. The handshake, above all that of TLS, leaves most of its stack in memory, and
/// the system gets that back when its thread ends.
fn start_session(incoming: Incoming, upgraded: Upgraded, shared: Arc<Shared>) {
    let Incoming { id, address, permits, .. } = incoming;
    let thread =
        thread::Builder::new().name(format!("client {}", id.number())).stack_size(SESSION_STACK_BYTES);
    let spawned = thread.spawn(move || {
        session::run(id, upgraded, &shared);
        // The connection counts against the limits until here.
        drop(permits);
    });
    if let Err(error) = spawned {
        warn!("{address}: closed: the system cannot create a thread ({error})");
    }
}

impl Incoming {
    /// The address of the client, or of the proxy that it comes through.
    pub fn peer(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// The address that rates are charged to. `None`: loopback is exempt, and behind a proxy only the request shows
    /// the client's address.
    pub fn charged(&self, shared: &Shared) -> Option<Network> {
        let ip = self.peer();
        (!ip.is_loopback() && !shared.router.proxies.contains(ip)).then(|| ip.into())
    }
}

/// Holds a handshake back until `CONNECT_RATE` allows it. `false`: the client has disconnected in the meantime.
fn wait_for_connect_rate(socket: &TcpStream, network: Network, shared: &Shared) -> bool {
    let connect = &shared.rates.connect;
    let Some(until) = connect.take(network, 1.0, Instant::now()) else { return true };
    let is_connected = matches!(wait(socket, Wait::Hangup, until), Ok(false));
    if !is_connected {
        connect.give_back(network, 1.0);
    }
    is_connected
}

fn count(error: &HandshakeError, counters: &Counters) {
    match error {
        HandshakeError::Disconnected => counters.failed(HandshakeFailure::Closed),
        HandshakeError::TimedOut => counters.failed(HandshakeFailure::TimedOut),
        HandshakeError::Tls(_) => counters.failed(HandshakeFailure::Tls),
        HandshakeError::TlsOnPlainPort => counters.failed(HandshakeFailure::WrongPort),
        HandshakeError::Rejected { rejection, .. } => match rejection {
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

#[cfg(test)]
pub mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, Shutdown, TcpListener};
    use std::time::Duration;

    use rustls::crypto::ring::default_provider;
    use rustls::server::ResolvesServerCertUsingSni;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::config::Settings;
    use crate::http::{Monitoring, TrustedProxies};

    /// What connections to a server with these settings share.
    pub fn shared(settings: &[(&str, &str)], hub: HubHandle) -> Shared {
        let Settings { limits, metrics_allow, trusted_proxies, mod_password, join_password, .. } =
            Settings::from_pairs(settings.iter().copied()).unwrap();
        let counters = Arc::new(Counters::default());
        let permits = Permits::new(limits.connections, limits.connections_per_ip);
        let monitoring = Monitoring::new(metrics_allow, counters.clone(), permits.clone(), hub.clone(), None);
        let proxies = TrustedProxies::new(trusted_proxies);
        Shared {
            permits,
            rates: Rates::new(&limits),
            passwords: Passwords::new(mod_password, join_password, counters.clone()).unwrap(),
            limits,
            router: Router { monitoring, page: true, allowed_origins: None, proxies },
            hub,
            client_log: ClientLog::new(counters.clone()),
            counters,
        }
    }

    /// A hub that does nothing.
    fn hub() -> HubHandle {
        HubHandle::new(crossbeam_channel::bounded(1).0, Default::default()).0
    }

    /// A connection as if from this address: loopback is exempt from rates. Also returns the client's end.
    fn incoming(address: IpAddr, tls: Option<Arc<ServerConfig>>) -> (Incoming, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = (address, 4711).into();
        (
            Incoming { id: ConnectionId(1), socket: Arc::new(socket), address, tls, permits: Vec::new() },
            client,
        )
    }

    /// A server without a certificate: it can only refuse a handshake.
    fn tls() -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(config.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new())))
    }

    fn client_hello() -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// 4,600 ClientHellos per second from one address once kept a core busy.
    #[test]
    fn over_the_connect_rate_nothing_is_read_from_a_client() {
        let shared = Arc::new(shared(&[("CONNECT_RATE", "1")], hub()));
        let address = IpAddr::from([192, 0, 2, 1]);
        let (tls, hello, request) = (tls(), client_hello(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        // The response to a client that sends this and ends its side.
        let response = |tls: Option<&Arc<ServerConfig>>, bytes: &[u8]| {
            let (incoming, mut client) = incoming(address, tls.cloned());
            client.write_all(bytes).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            serve(incoming, &shared);
            let mut response = Vec::new();
            // If not everything was read, the system resets the connection.
            let _ = client.read_to_end(&mut response);
            response
        };
        assert!(!response(None, request).is_empty());
        assert!(!response(Some(&tls), &hello).is_empty());
        let take = |tokens| shared.rates.connect.take(address.into(), tokens, Instant::now());
        let debt_ends = take(1e6).unwrap();
        assert_eq!(response(None, request), b"");
        assert_eq!(response(Some(&tls), &hello), b"");
        // One token is a second.
        assert!(
            take(0.0).unwrap() < debt_ends + Duration::from_millis(500),
            "they have not given back theirs"
        );
    }

    #[test]
    fn over_the_connect_rate_a_refused_client_is_sent_no_response() {
        let shared = shared(&[("CONNECT_RATE", "1"), ("TRUSTED_PROXIES", "192.0.2.3")], hub());
        let [eve, bob, proxy] = [1, 2, 3].map(|number| IpAddr::from([192, 0, 2, number]));
        let may_respond = |address| permit_to_refuse(&incoming(address, None).0, &shared).is_some();
        assert!(may_respond(eve));
        for address in [eve, proxy, [127, 0, 0, 1].into()] {
            shared.rates.connect.take(address.into(), 1e6, Instant::now());
        }
        assert!(!may_respond(eve));
        assert!(may_respond(bob));
        assert!(may_respond(proxy) && may_respond([127, 0, 0, 1].into()), "these are not charged");
    }
}
