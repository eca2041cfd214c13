//! One HTTP request head: an upgrade to WebSocket (RFC 6455, section 4), or a plain request and its answer.

use std::fmt;

use tungstenite::error::ProtocolError;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::{HeaderValue, Method, Version, header};

/// The longest request head, in bytes.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The most header lines in it.
pub const MAX_HEADERS: usize = 64;

/// Reads a request head and says how long it is, in bytes; `None`: there is more to come.
///
/// # Errors
/// The answer to who sent something else.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Answer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Answer::new("431 Request Header Fields Too Large", "The request head is too large."));
        }
        Err(_) => return Err(Answer::bad_request("This is not an HTTP request.")),
    };
    let request = to_request(&parsed).ok_or_else(|| Answer::bad_request("This is not an HTTP request."))?;
    Ok(Some((request, length)))
}

fn to_request(parsed: &httparse::Request) -> Option<Request> {
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = parsed.path?.parse().ok()?;
    *request.version_mut() = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    for line in parsed.headers.iter() {
        let name: header::HeaderName = line.name.parse().ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line.value).ok()?);
    }
    Some(request)
}

/// The answer that accepts an upgrade.
///
/// # Errors
/// The answer to a request that is none, or not a good one.
pub fn upgrade(request: &Request, scheme: &str) -> Result<Vec<u8>, Answer> {
    let response = create_response(&tidy(request)).map_err(|error| match error {
        tungstenite::Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            Answer::new("426 Upgrade Required", "This server speaks version 13 of the WebSocket protocol.")
                .with("Sec-WebSocket-Version: 13")
        }
        tungstenite::Error::Protocol(
            ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey,
        ) => Answer::bad_request("The Sec-WebSocket-Key is missing or not 16 bytes in Base64."),
        _ => Answer::new(
            "426 Upgrade Required",
            &format!(
                "This is TinyChat, a WebSocket chat server: connect with a chat client to {scheme}:// here."
            ),
        )
        .with("Upgrade: websocket"),
    })?;
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response)
        .map_err(|_| Answer::new("500 Internal Server Error", "The answer could not be written."))?;
    Ok(bytes)
}

/// Whether it is a WebSocket that is asked for, be it badly: a proxy that does not pass on `Upgrade` leaves the key.
pub fn asks_for_websocket(request: &Request) -> bool {
    lists(request, &header::UPGRADE, "websocket") || request.headers().contains_key(header::SEC_WEBSOCKET_KEY)
}

/// The lines of a header, as they came.
pub fn lines<'a>(request: &'a Request, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    request.headers().get_all(name).iter().map(HeaderValue::as_bytes)
}

/// A list that is spread over several lines, or names more than is asked for, is a list all the same (RFC 9110,
/// section 5.3); tungstenite looks at one line, and wants one word for the protocol.
fn tidy(request: &Request) -> Request {
    let mut tidied = request.clone();
    for (name, word) in [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")] {
        if lists(request, &name, word) {
            tidied.headers_mut().insert(&name, HeaderValue::from_static(word));
        }
    }
    tidied
}

fn lists(request: &Request, name: &header::HeaderName, word: &str) -> bool {
    let mut words = lines(request, name.as_str()).flat_map(|line| line.split(|&byte| byte == b','));
    words.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// An answer that ends the connection.
#[derive(Debug)]
pub struct Answer {
    status: &'static str,
    /// The type of what it says.
    kind: &'static str,
    header: &'static str,
    line: String,
}

impl Answer {
    pub fn new(status: &'static str, line: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", header: "", line: line.into() }
    }

    pub fn bad_request(line: &str) -> Self {
        Self::new("400 Bad Request", line)
    }

    pub fn is_bad_request(&self) -> bool {
        self.status.starts_with("400") || self.status.starts_with("431")
    }

    /// What Prometheus reads, in its text format.
    pub fn metrics(page: String) -> Self {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        Self { status: "200 OK", kind, header: "", line: page.trim_end().into() }
    }

    pub fn with(self, header: &'static str) -> Self {
        Self { header, ..self }
    }

    /// What goes to the client; to a HEAD request without the line.
    pub fn to_bytes(&self, method: Option<&Method>) -> Vec<u8> {
        let Self { status, kind, header, line } = self;
        let separator = if header.is_empty() { "" } else { "\r\n" };
        let body = if method == Some(&Method::HEAD) { String::new() } else { format!("{line}\n") };
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\
             Content-Length: {}\r\n{header}{separator}\r\n{body}",
            line.len() + 1
        )
        .into_bytes()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}: {}", self.status, self.line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UPGRADE: &str = "GET /any?path HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn answer(head: &str) -> String {
        let answer = match parse(head.as_bytes()) {
            Ok(None) => return "incomplete".into(),
            Ok(Some((request, _))) => match upgrade(&request, "ws") {
                Ok(bytes) => return String::from_utf8(bytes).unwrap(),
                Err(answer) => answer.to_bytes(Some(request.method())),
            },
            Err(answer) => answer.to_bytes(None),
        };
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn an_upgrade_is_answered_with_the_key_of_the_rfc() {
        let answer = answer(UPGRADE);
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        assert!(
            answer.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\n"));
    }

    #[test]
    fn lists_over_several_lines_are_lists() {
        let spread = UPGRADE.replace("keep-alive, Upgrade", "keep-alive\r\nConnection: upgrade");
        assert!(answer(&spread).contains(" 101 "));
        assert!(answer(&UPGRADE.replace("Upgrade: WebSocket", "Upgrade: h2c, websocket")).contains(" 101 "));
        assert!(answer(&UPGRADE.replace("Upgrade: WebSocket", "Upgrade: websockets")).contains(" 426 "));
    }

    #[test]
    fn other_requests_get_an_answer_that_helps() {
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
            (format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1)), "431", "too large"),
        ] {
            let answer = answer(&head);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(line),
                "{head}: {answer}"
            );
        }
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let answer = answer("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 426 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn a_head_may_come_in_any_portions() {
        for cut in 0..UPGRADE.len() {
            assert_eq!(answer(&UPGRADE[..cut]), "incomplete", "{cut}");
        }
        match parse([UPGRADE.as_bytes(), b"\x81\x80"].concat().as_slice()) {
            Ok(Some((_, length))) => assert_eq!(length, UPGRADE.len()),
            _ => panic!("the frame after the head is no part of it"),
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, lines in "[ -~\\r\\n]{0,300}") {
            for bytes in [bytes, format!("GET /{lines}\r\n\r\n").into_bytes()] {
                if let Ok(Some((request, _))) = parse(&bytes) {
                    let _ = upgrade(&request, "ws");
                }
            }
        }
    }
}
