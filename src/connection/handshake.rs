//! The handshake, under one deadline: TLS, the HTTP request and its response.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConfig;
use thiserror::Error;
use tungstenite::handshake::server::Request;
use tungstenite::http::StatusCode;

use super::http_exchange::{LINGER_TIMEOUT, close, read_request, respond, write_response};
use super::{Incoming, Shared, wait_for_connect_rate};
use crate::http::{ClientAddress, Rejection, Route};
use crate::hub::Peer;
use crate::limits::{LimitExceeded, Network, Permit};
use crate::transport::{Stream, Wait, by_deadline};

/// The outcome of a handshake that has not failed.
pub enum Handshake {
    Upgraded(Upgraded),
    /// The client asked for something else and was sent a response with this status.
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
    /// The response has been sent, unless too many others are being rejected.
    #[error("rejected with {status}: {0}", status = .0.status())]
    Rejected(Rejection),
}

/// Performs a connection's handshake. A request for something other than a WebSocket gets its response here.
pub fn handshake(
    incoming: &mut Incoming,
    shared: &Shared,
    deadline: Instant,
) -> Result<Handshake, HandshakeError> {
    let mut stream = open_stream(incoming, deadline)?;
    let (request, leftover) = match read_request(&mut stream, deadline) {
        Err(HandshakeError::Rejected(rejection)) => return Err(reject(&mut stream, rejection, None)),
        Err(HandshakeError::TlsOnPlainPort) => {
            close(&mut stream, Instant::now() + LINGER_TIMEOUT);
            return Err(HandshakeError::TlsOnPlainPort);
        }
        read => read?,
    };
    let peer = incoming.address.ip().to_canonical();
    let client = shared.router.proxies.client(peer, &request);
    // Checked before the wait: otherwise one address behind a proxy could fill the server with waiting connections.
    let permit = match late_permit(peer, client, shared) {
        Ok(permit) => permit,
        Err(exceeded) => {
            let rejection = Rejection::Limit(exceeded);
            let Some(permit) = shared.permits.refusal() else {
                return Err(HandshakeError::Rejected(rejection));
            };
            // Until the response has been sent, other clients may have the connection's own permit.
            incoming.permits = vec![permit];
            if !wait_for_connect_rate(&incoming.socket, client.ip().into(), shared) {
                return Err(HandshakeError::Disconnected);
            }
            return match shared.router.monitoring_response(&request, client) {
                Some(response) => {
                    respond(&mut stream, &response, Some(&request));
                    Ok(Handshake::Responded(response.status()))
                }
                None => Err(reject(&mut stream, rejection, Some(&request))),
            };
        }
    };
    let charged = charged(client);
    let mut deadline = deadline;
    if let Some(network) = charged.filter(|_| shared.router.proxies.contains(peer)) {
        let start = Instant::now();
        if !wait_for_connect_rate(&incoming.socket, network, shared) {
            return Err(HandshakeError::Disconnected);
        }
        // The wait does not count against the client's deadline.
        deadline += start.elapsed();
    }
    let route = shared.router.route(&request, client, incoming.tls.is_some());
    let accepted = match route {
        Ok(Route::Respond(response)) => {
            // A client that has received its file may connect again at once.
            drop(permit);
            write_response(&mut stream, &response, Some(&request), deadline)?;
            close(&mut stream, Instant::now() + LINGER_TIMEOUT);
            return Ok(Handshake::Responded(response.status()));
        }
        Ok(Route::Upgrade(response)) => response,
        Err(rejection) => return Err(reject(&mut stream, rejection, Some(&request))),
    };
    write_response(&mut stream, &accepted, Some(&request), deadline)?;
    let name = if client.ip() == peer {
        incoming.address.to_string()
    } else {
        format!("{} (through {})", client.ip(), incoming.address)
    };
    let peer = Peer { name: name.into(), network: client.ip().into(), charged };
    Ok(Handshake::Upgraded(Upgraded { stream, peer, leftover, permit }))
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

fn reject(stream: &mut Stream, rejection: Rejection, request: Option<&Request>) -> HandshakeError {
    respond(stream, &rejection.response(), request);
    HandshakeError::Rejected(rejection)
}

/// Opens the stream that requests are read from. With TLS, this includes the TLS handshake.
pub fn open_stream(incoming: &Incoming, deadline: Instant) -> Result<Stream, HandshakeError> {
    match &incoming.tls {
        None => Ok(Stream::plain(incoming.socket.clone())),
        Some(config) => accept_tls(&incoming.socket, config.clone(), deadline),
    }
}

fn accept_tls(
    socket: &Arc<TcpStream>,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> Result<Stream, HandshakeError> {
    let mut first = [0];
    let mut plain = Stream::plain(socket.clone());
    if by_deadline(&mut plain, Wait::Read, deadline, |_| socket.peek(&mut first))? == 0 {
        return Err(HandshakeError::Disconnected);
    }
    // An HTTP method begins with a letter, and a TLS record with a control character.
    if first[0].is_ascii_alphabetic() {
        return Err(reject(&mut plain, Rejection::PlainHttpOnTlsPort, None));
    }
    let mut stream =
        Stream::tls(socket.clone(), config).map_err(|error| HandshakeError::Tls(io::Error::other(error)))?;
    by_deadline(&mut stream, Wait::Read, deadline, Stream::handshake)?;
    Ok(stream)
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
