//! Responds to connections over a limit: 503, or health and metrics.

use std::time::Instant;

use super::handshake::HandshakeError;
use super::http_exchange::{LINGER_TIMEOUT, read_request, respond};
use super::{Incoming, Shared};
use crate::http::Rejection;
use crate::limits::LimitExceeded;
use crate::transport::Stream;

/// Responds to a plaintext connection over a limit. `incoming` holds a [refusal](crate::limits::Permits::refusal)
/// permit.
pub fn refuse(incoming: Incoming, exceeded: LimitExceeded, shared: &Shared) {
    let mut stream = Stream::plain(incoming.socket);
    let unavailable = Rejection::Limit(exceeded).response();
    // Reading the request first keeps the system from resetting the connection before the client has read the
    // response.
    match read_request(&mut stream, Instant::now() + LINGER_TIMEOUT) {
        Ok((request, _)) => {
            let client = shared.router.proxies.client(incoming.address.ip().to_canonical(), &request);
            let response = shared.router.monitoring_response(&request, client).unwrap_or(unavailable);
            respond(&mut stream, &response, Some(&request));
        }
        Err(HandshakeError::Disconnected) => {}
        Err(_) => respond(&mut stream, &unavailable, None),
    }
}
