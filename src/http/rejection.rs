//! Why a request gets an error response instead of a WebSocket.

use thiserror::Error;
use tungstenite::http::{HeaderValue, StatusCode, header};

use super::response::{self, Response};
use crate::limits::LimitExceeded;

/// `Display` is the content of the response.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum Rejection {
    #[error("This is not an HTTP request.")]
    NotHttp,
    #[error("The request head is too large.")]
    HeadTooLarge,
    #[error("This port speaks TLS: use wss:// (or https://) instead of ws:// (or http://).")]
    PlainHttpOnTlsPort,
    #[error("This is TinyChat, a WebSocket chat server: connect with a chat client over {scheme}://.")]
    NotWebSocket { scheme: &'static str },
    #[error("This server speaks version 13 of the WebSocket protocol.")]
    WebSocketVersion,
    #[error("The Sec-WebSocket-Key is missing or not 16 bytes in Base64.")]
    WebSocketKey,
    #[error("Pages from this origin may not connect (ALLOWED_ORIGINS).")]
    Origin,
    #[error("No connection available: {0}.")]
    Limit(#[source] LimitExceeded),
}

impl Rejection {
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotHttp | Self::PlainHttpOnTlsPort | Self::WebSocketKey => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NotWebSocket { .. } | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::Limit(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub fn response(self) -> Response {
        let mut response = response::text(self.status(), &self.to_string());
        match self {
            Self::NotWebSocket { .. } => {
                response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            Self::WebSocketVersion => {
                let version = HeaderValue::from_static("13");
                response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
            }
            _ => {}
        }
        response
    }
}
