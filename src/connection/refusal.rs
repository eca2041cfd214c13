//! Responds to connections over a limit: 503, or health and metrics.

use std::net::IpAddr;
use std::time::Instant;

use super::handshake::{HandshakeError, Opened, name, open_stream};
use super::http_exchange::{LINGER_TIMEOUT, read_request, respond};
use super::{Incoming, Shared, refusal_reason};
use crate::http::{ClientAddress, Rejection};
use crate::limits::{LimitExceeded, Permit};

/// A permit to respond to a connection that has exceeded a limit; `None`: close it without a response.
///
/// Peers that may read the metrics have some in reserve.
pub fn permit_to_refuse(incoming: &Incoming, shared: &Shared) -> Option<Permit> {
    let peer = incoming.peer();
    let is_proxy = shared.router.proxies.contains(peer);
    if shared.router.monitoring.is_reserved_for(peer, is_proxy) {
        return shared.permits.monitoring();
    }
    // An address that has exceeded its rate gets no response: over TLS, that would take a handshake.
    let connect = &shared.rates.connect;
    if let Some(network) = incoming.charged(shared)
        && connect.take(network, 1.0, Instant::now()).is_some()
    {
        connect.give_back(network, 1.0);
        return None;
    }
    shared.permits.refusal()
}

/// Responds to a connection that has exceeded a limit. It holds the permit from [`permit_to_refuse`].
pub fn refuse(incoming: Incoming, exceeded: LimitExceeded, shared: &Shared) {
    let deadline = Instant::now() + LINGER_TIMEOUT;
    let peer = incoming.peer();
    let mut stream = match open_stream(&incoming, shared, deadline) {
        Ok(Opened::Stream(stream)) => stream,
        Ok(Opened::Responded(_)) => return,
        Err(_) => return report_refusal(&incoming, peer, exceeded, shared),
    };
    // Reading the request first keeps the system from resetting the connection before the client has read the
    // response.
    let request = match read_request(&mut stream, Vec::new(), deadline) {
        Ok((request, _)) => Some(request),
        Err(HandshakeError::Disconnected) => return report_refusal(&incoming, peer, exceeded, shared),
        Err(_) => None,
    };
    let client = request.as_ref().map(|request| shared.router.proxies.client(peer, request));
    let monitoring = request
        .as_ref()
        .zip(client)
        .and_then(|(request, client)| shared.router.monitoring_response(request, client));
    let response = monitoring.unwrap_or_else(|| {
        report_refusal(&incoming, client.map_or(peer, ClientAddress::ip), exceeded, shared);
        Rejection::Limit(exceeded).response()
    });
    respond(&mut stream, &response, request.as_ref());
}

/// Logs and counts a connection that has exceeded a limit and gets no other response than 503.
pub fn report_refusal(incoming: &Incoming, client: IpAddr, exceeded: LimitExceeded, shared: &Shared) {
    let name = name(client, incoming.address);
    shared.client_log.info(client, format_args!("{name}: refused: {exceeded}"));
    shared.counters.refused(refusal_reason(exceeded));
}
