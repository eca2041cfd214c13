//! Which web pages may connect (`ALLOWED_ORIGINS`).

use tungstenite::handshake::server::Request;
use tungstenite::http::header;

use crate::config::Origin;

/// `allowed`: `None` if any page may connect.
///
/// A request without `Origin` is allowed: it does not come from a browser, so no page can have caused it.
pub fn is_allowed(request: &Request, allowed: Option<&[Origin]>) -> bool {
    match (request.headers().get(header::ORIGIN), allowed) {
        (Some(origin), Some(allowed)) => allowed.iter().any(|allowed| allowed.is(origin.as_bytes())),
        _ => true,
    }
}
