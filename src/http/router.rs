//! Routes a request to monitoring, the chat page, or the upgrade to WebSocket.

use tungstenite::handshake::server::Request;
use tungstenite::http::HeaderValue;

use super::forwarded::{ClientAddress, TrustedProxies};
use super::monitoring::Monitoring;
use super::page;
use super::rejection::Rejection;
use super::response::Response;
use super::upgrade::{is_for_websocket, upgrade};
use crate::config::Origin;

pub struct Router {
    pub monitoring: Monitoring,
    /// Whether browsers get the chat page (`WEB_UI`).
    pub page: bool,
    /// `None`: pages from any origin may connect.
    pub allowed_origins: Option<Vec<Origin>>,
    pub proxies: TrustedProxies,
}

pub enum Route {
    /// Send this response, and close the connection if it is the last.
    Respond(Response),
    /// Send this response, which accepts the upgrade.
    Upgrade(Response),
}

impl Router {
    /// `secure`: the request came over TLS.
    pub fn route(&self, request: &Request, client: ClientAddress, secure: bool) -> Result<Route, Rejection> {
        if let Some(response) = self.monitoring_response(request, client) {
            return Ok(Route::Respond(response));
        }
        if self.page && !is_for_websocket(request) {
            return Ok(Route::Respond(page::response(request, secure)));
        }
        let scheme = if secure { "wss" } else { "ws" };
        upgrade(request, scheme, self.allowed_origins.as_deref()).map(Route::Upgrade)
    }

    /// The response of `/healthz` or `/metrics`, if the request is for one of them. Connections over a limit get these
    /// as well.
    pub fn monitoring_response(&self, request: &Request, client: ClientAddress) -> Option<Response> {
        if is_for_websocket(request) { None } else { self.monitoring.response(request, client) }
    }

    /// What `/healthz` would answer, if the request is for it.
    pub fn health_header(&self, request: &Request) -> Option<HeaderValue> {
        self.monitoring.health_header(request)
    }
}
