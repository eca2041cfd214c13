//! The handshake, under one deadline: TLS, the HTTP request and its response.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use thiserror::Error;
use tungstenite::handshake::server::Request;
use tungstenite::http::StatusCode;

use super::http_exchange::{LINGER_TIMEOUT, close, read_request, respond, write_response};
use super::{Incoming, Shared, wait_for_connect_rate};
use crate::http::{ClientAddress, HEALTH_HEADER, Rejection, Route, close_after, is_last};
use crate::hub::Peer;
use crate::limits::{LimitExceeded, Network, Permit};
use crate::transport::{Stream, Wait, by_deadline};

/// How long after its start a connection still waits for another request, at most until the handshake's deadline. The
/// rest of the time to that is for the last response.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The most requests on one connection. `CONNECT_RATE` counts connections.
const MAX_REQUESTS: usize = 16;

/// The outcome of a handshake that has not failed.
pub enum Handshake {
    Upgraded(Upgraded),
    /// The client asked for something else and was sent responses, the last with this status.
    Responded(StatusCode),
}

/// An upgraded connection.
pub struct Upgraded {
    pub stream: Stream,
    pub peer: Peer,
    /// The bytes that were received after the request head.
    pub leftover: Vec<u8>,
    /// The permit for the address of a client behind a proxy. Held until the connection ends.
    pub permit: Option<Permit>,
}

/// Why a handshake has failed.
#[derive(Debug, Error)]
pub enum HandshakeError {
    #[error("disconnected during the handshake")]
    Disconnected,
    #[error("closed: the handshake took longer than HANDSHAKE_TIMEOUT")]
    TimedOut,
    #[error("closed: no TLS: {}", explained(.0))]
    Tls(#[source] io::Error),
    #[error("closed: it speaks TLS, but this is plain ws://: use ws://, or set USE_SSL=true")]
    TlsOnPlainPort,
    /// The response has been sent, unless too many others are being rejected. `client`: its address, if the request could
    /// be read.
    #[error("rejected with {status}: {rejection}", status = .rejection.status())]
    Rejected { rejection: Rejection, client: Option<IpAddr> },
}

/// Performs a connection's handshake. Requests for something other than a WebSocket get their responses here. After a
/// file of the page, the connection waits for another request, within [`KEEP_ALIVE`] and [`MAX_REQUESTS`].
pub fn handshake(
    incoming: &mut Incoming,
    shared: &Shared,
    mut deadline: Instant,
) -> Result<Handshake, HandshakeError> {
    let keep_until = deadline.min(Instant::now() + KEEP_ALIVE);
    let mut stream = match open_stream(incoming, shared, deadline)? {
        Opened::Stream(stream) => stream,
        Opened::Responded(status) => return Ok(Handshake::Responded(status)),
    };
    let mut received = Vec::new();
    let mut wait_until = deadline;
    let mut last_status = None;
    let mut requests = 0;
    loop {
        let request = match read_request(&mut stream, received, wait_until) {
            Ok((request, rest)) => {
                received = rest;
                request
            }
            Err(HandshakeError::Rejected { rejection, .. }) => {
                return Err(reject(&mut stream, rejection, None));
            }
            Err(error) => {
                if last_status.is_some() || matches!(error, HandshakeError::TlsOnPlainPort) {
                    close(&mut stream, Instant::now() + LINGER_TIMEOUT);
                }
                return last_status.map(Handshake::Responded).ok_or(error);
            }
        };
        requests += 1;
        let may_keep = requests < MAX_REQUESTS && Instant::now() < keep_until;
        match serve_request(incoming, shared, &mut stream, &request, &mut deadline, may_keep)? {
            Served::Upgraded { peer, permit } => {
                return Ok(Handshake::Upgraded(Upgraded { stream, peer, leftover: received, permit }));
            }
            Served::Closed(status) => return Ok(Handshake::Responded(status)),
            Served::Kept(status) => last_status = Some(status),
        }
        wait_until = keep_until;
    }
}

/// What a request has led to.
enum Served {
    Upgraded {
        peer: Peer,
        permit: Option<Permit>,
    },
    /// It was sent a response with this status, and the connection was closed.
    Closed(StatusCode),
    /// It was sent a response with this status, and another request may follow.
    Kept(StatusCode),
}

fn serve_request(
    incoming: &mut Incoming,
    shared: &Shared,
    stream: &mut Stream,
    request: &Request,
    deadline: &mut Instant,
    may_keep: bool,
) -> Result<Served, HandshakeError> {
    let peer = incoming.peer();
    let client = shared.router.proxies.client(peer, request);
    // Checked before the wait: otherwise one address behind a proxy could fill the server with waiting connections.
    let permit = match late_permit(peer, client, shared) {
        Ok(permit) => permit,
        Err(exceeded) => {
            let rejection = Rejection::Limit(exceeded);
            let Some(permit) = shared.permits.refusal() else {
                return Err(HandshakeError::Rejected { rejection, client: Some(client.ip()) });
            };
            // Until the response has been sent, other clients may have the connection's own permit.
            incoming.permits = vec![permit];
            if !wait_for_connect_rate(&incoming.socket, client.ip().into(), shared) {
                return Err(HandshakeError::Disconnected);
            }
            return match shared.router.monitoring_response(request, client) {
                Some(response) => {
                    respond(stream, &response, Some(request));
                    Ok(Served::Closed(response.status()))
                }
                None => Err(reject(stream, rejection, Some((request, client)))),
            };
        }
    };
    let charged = charged(client);
    if let Some(network) = charged.filter(|_| shared.router.proxies.contains(peer)) {
        let start = Instant::now();
        if !wait_for_connect_rate(&incoming.socket, network, shared) {
            return Err(HandshakeError::Disconnected);
        }
        // The wait does not count against the client's deadline.
        *deadline += start.elapsed();
    }
    let route = shared.router.route(request, client, incoming.tls.is_some());
    let accepted = match route {
        Ok(Route::Respond(mut response)) => {
            // Connections that wait for another request must not keep clients out.
            if !may_keep || shared.permits.are_scarce(client.ip()) {
                close_after(&mut response);
            }
            // A client that has received its file may connect again at once.
            drop(permit);
            write_response(stream, &response, Some(request), *deadline)?;
            if !is_last(&response) {
                return Ok(Served::Kept(response.status()));
            }
            close(stream, Instant::now() + LINGER_TIMEOUT);
            return Ok(Served::Closed(response.status()));
        }
        Ok(Route::Upgrade(response)) => response,
        Err(rejection) => return Err(reject(stream, rejection, Some((request, client)))),
    };
    write_response(stream, &accepted, Some(request), *deadline)?;
    let name = name(client.ip(), incoming.address).into();
    let peer = Peer { name, network: client.ip().into(), charged };
    Ok(Served::Upgraded { peer, permit })
}

/// How the log names a client. `address`: of its connection, which may be that of a proxy.
pub fn name(client: IpAddr, address: SocketAddr) -> String {
    if client == address.ip().to_canonical() {
        address.to_string()
    } else {
        format!("{client} (through {address})")
    }
}

/// The address that rates are charged to. Loopback is exempt, unless a proxy reports it.
fn charged(client: ClientAddress) -> Option<Network> {
    match client {
        ClientAddress::Peer(address) if address.is_loopback() => None,
        client => Some(client.ip().into()),
    }
}

/// The permit for an address that only the request has shown. Other connections got theirs when they were accepted.
fn late_permit(
    peer: IpAddr,
    client: ClientAddress,
    shared: &Shared,
) -> Result<Option<Permit>, LimitExceeded> {
    if !shared.router.proxies.contains(peer) {
        return Ok(None);
    }
    match client {
        // A request by the proxy itself, or by another program on its machine.
        ClientAddress::Peer(address) => shared.permits.peer(address),
        ClientAddress::Forwarded(address) | ClientAddress::Unknown(address) => {
            shared.permits.forwarded(address)
        }
    }
}

/// `request`: if it could be read, with its client.
fn reject(
    stream: &mut Stream,
    rejection: Rejection,
    request: Option<(&Request, ClientAddress)>,
) -> HandshakeError {
    respond(stream, &rejection.response(), request.map(|(request, _)| request));
    HandshakeError::Rejected { rejection, client: request.map(|(_, client)| client.ip()) }
}

/// The request could not be read.
impl From<Rejection> for HandshakeError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected { rejection, client: None }
    }
}

/// What a new connection has led to.
pub enum Opened {
    /// Requests can be read from it.
    Stream(Stream),
    /// It was sent a response with this status without TLS, and the connection was closed.
    Responded(StatusCode),
}

/// Opens the stream that requests are read from. With TLS, this includes the TLS handshake.
pub fn open_stream(
    incoming: &Incoming,
    shared: &Shared,
    deadline: Instant,
) -> Result<Opened, HandshakeError> {
    let mut plain = Stream::plain(incoming.socket.clone());
    let Some(config) = &incoming.tls else { return Ok(Opened::Stream(plain)) };
    let mut first = [0];
    if by_deadline(&mut plain, Wait::Read, deadline, |_| incoming.socket.peek(&mut first))? == 0 {
        return Err(HandshakeError::Disconnected);
    }
    // An HTTP method begins with a letter, and a TLS record with a control character.
    if first[0].is_ascii_alphabetic() {
        return match respond_to_health_check(incoming, shared, &mut plain, deadline) {
            Some(status) => Ok(Opened::Responded(status)),
            None => Err(reject(&mut plain, Rejection::PlainHttpOnTlsPort, None)),
        };
    }
    let mut stream = Stream::tls(incoming.socket.clone(), config.clone())
        .map_err(|error| HandshakeError::Tls(io::Error::other(error)))?;
    by_deadline(&mut stream, Wait::Read, deadline, Stream::handshake)?;
    Ok(Opened::Stream(stream))
}

/// Rejects a request of this machine for `/healthz` on the TLS port, with a header that has the answer: so `tinychat
/// health` needs no TLS. `None`: it is another request, and has no response yet.
fn respond_to_health_check(
    incoming: &Incoming,
    shared: &Shared,
    plain: &mut Stream,
    deadline: Instant,
) -> Option<StatusCode> {
    let own = incoming.socket.local_addr().ok()?.ip();
    if own != incoming.address.ip() {
        return None;
    }
    let (request, _) = read_request(plain, Vec::new(), deadline).ok()?;
    let health = shared.router.health_header(&request)?;
    let mut response = Rejection::PlainHttpOnTlsPort.response();
    response.headers_mut().insert(HEALTH_HEADER, health);
    respond(plain, &response, Some(&request));
    Some(response.status())
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::InvalidData => Self::Tls(error),
            _ => Self::Disconnected,
        }
    }
}

/// Explains rustls' terse error for clients that are too old.
fn explained(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::PeerIncompatible(_)) => format!(
            "it has no TLS version, cipher suite or key exchange in common with this server ({error})"
        ),
        _ => error.to_string(),
    }
}
