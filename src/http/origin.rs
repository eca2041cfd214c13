//! Which web pages may connect (`ALLOWED_ORIGINS`).

use tungstenite::handshake::server::Request;
use tungstenite::http::header;

use crate::config::Origin;

/// `allowed`: `None` if any page may connect.
///
/// Only browsers send an `Origin`, and only a browser can be used by one site to connect as a visitor of another.
pub fn is_allowed(request: &Request, allowed: Option<&[Origin]>) -> bool {
    match (request.headers().get(header::ORIGIN), allowed) {
        (Some(origin), Some(allowed)) => allowed.iter().any(|allowed| allowed.is(origin.as_bytes())),
        _ => true,
    }
}
