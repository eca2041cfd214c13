//! The upgrade to WebSocket (RFC 6455, section 4.2).

use bytes::Bytes;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::server::{Request, create_response};
use tungstenite::http::{HeaderValue, header};

use super::origin::is_allowed;
use super::rejection::Rejection;
use super::request::items;
use super::response::Response;
use crate::config::Origin;

/// The 101 response that accepts an upgrade.
///
/// `scheme` is `ws` or `wss`. `allowed_origins`: `None` if any page may connect.
pub fn upgrade(
    request: &Request,
    scheme: &'static str,
    allowed_origins: Option<&[Origin]>,
) -> Result<Response, Rejection> {
    let accepted = create_response(&with_single_tokens(request)).map_err(|error| match error {
        tungstenite::Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            Rejection::WebSocketVersion
        }
        tungstenite::Error::Protocol(
            ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey,
        ) => Rejection::WebSocketKey,
        _ => Rejection::NotWebSocket { scheme },
    })?;
    if !is_allowed(request, allowed_origins) {
        return Err(Rejection::Origin);
    }
    Ok(accepted.map(|()| Bytes::new()))
}

/// Whether a request asks for a WebSocket, valid or not. A proxy that does not forward `Upgrade` still forwards the
/// key.
pub fn is_for_websocket(request: &Request) -> bool {
    has_token(request, &header::UPGRADE, "websocket")
        || request.headers().contains_key(header::SEC_WEBSOCKET_KEY)
}

/// tungstenite reads only the first line of `Connection` and `Upgrade`, and expects a single protocol in the
/// latter. Both may be lists.
fn with_single_tokens(request: &Request) -> Request {
    let mut simplified = request.clone();
    for (name, token) in [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")] {
        if has_token(request, &name, token) {
            simplified.headers_mut().insert(&name, HeaderValue::from_static(token));
        }
    }
    simplified
}

fn has_token(request: &Request, name: &header::HeaderName, token: &str) -> bool {
    items(request, name.as_str()).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::request::{MAX_HEAD_BYTES, MAX_HEADERS, parse};
    use crate::http::response::encode;

    const UPGRADE: &str = "GET /any?path HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn response(head: &str) -> String {
        let (response, method) = match parse(head.as_bytes()) {
            Ok(None) => return "incomplete".into(),
            Ok(Some((request, _))) => (
                upgrade(&request, "ws", None).unwrap_or_else(Rejection::response),
                Some(request.method().clone()),
            ),
            Err(rejection) => (rejection.response(), None),
        };
        String::from_utf8(encode(&response, method.as_ref())).unwrap()
    }

    #[test]
    fn an_upgrade_is_accepted_with_the_key_of_the_rfc() {
        let response = response(UPGRADE);
        assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{response}");
        assert!(
            response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{response}"
        );
        assert!(response.ends_with("\r\n\r\n"));
    }

    #[test]
    fn list_headers_may_span_several_lines() {
        let spread = UPGRADE.replace("keep-alive, Upgrade", "keep-alive\r\nConnection: upgrade");
        assert!(response(&spread).contains(" 101 "));
        let several = UPGRADE.replace("Upgrade: WebSocket", "Upgrade: h2c, websocket");
        assert!(response(&several).contains(" 101 "));
        assert!(response(&UPGRADE.replace("Upgrade: WebSocket", "Upgrade: websockets")).contains(" 426 "));
    }

    #[test]
    fn rejections_say_what_was_wrong() {
        for (head, status, line) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426", "a WebSocket chat server"),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), "426", "a WebSocket chat server"),
            ("POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\n".to_owned(), "426", "a WebSocket chat server"),
            (UPGRADE.replace("Version: 13", "Version: 8"), "426", "version 13"),
            (UPGRADE.replace("dGhl", "dGh"), "400", "Sec-WebSocket-Key"),
            (UPGRADE.replace("WebSocket-Key", "WebSocket-Lock"), "400", "Sec-WebSocket-Key"),
            ("hello\r\n\r\n".to_owned(), "400", "not an HTTP request"),
            ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), "400", "not an HTTP request"),
            (format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(MAX_HEAD_BYTES)), "431", "too large"),
            (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(MAX_HEAD_BYTES)), "431", "too large"),
            (format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1)), "431", "too large"),
        ] {
            let response = response(&head);
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status} ")) && response.contains(line),
                "{head}: {response}"
            );
        }
    }

    #[test]
    fn a_response_to_head_has_no_content() {
        let response = response("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(response.starts_with("HTTP/1.1 426 ") && response.ends_with("\r\n\r\n"), "{response}");
    }

    #[test]
    fn a_head_may_arrive_in_pieces() {
        for cut in 0..UPGRADE.len() {
            assert_eq!(response(&UPGRADE[..cut]), "incomplete", "{cut}");
        }
        match parse([UPGRADE.as_bytes(), b"\x81\x80"].concat().as_slice()) {
            Ok(Some((_, length))) => assert_eq!(length, UPGRADE.len()),
            _ => panic!("the frame after the head is not part of it"),
        }
    }

    #[test]
    fn only_allowed_origins_may_connect() {
        let allowed = ["https://chat.example.com".parse::<Origin>().unwrap()];
        for (origin, expected) in [
            ("", true),
            ("Origin: https://chat.example.com\r\n", true),
            ("Origin: https://chat.example.com.evil.example\r\n", false),
            ("Origin: null\r\n", false),
        ] {
            let head = UPGRADE.replace("Host: x\r\n", &format!("Host: x\r\n{origin}"));
            let (request, _) = parse(head.as_bytes()).unwrap().unwrap();
            let result = upgrade(&request, "ws", Some(&allowed));
            assert_eq!(result.is_ok(), expected, "{origin}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, lines in "[ -~\\r\\n]{0,300}") {
            for bytes in [bytes, format!("GET /{lines}\r\n\r\n").into_bytes()] {
                if let Ok(Some((request, _))) = parse(&bytes) {
                    let _ = upgrade(&request, "ws", None);
                }
            }
        }
    }
}
