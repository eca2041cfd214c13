//! HTTP responses, and how they are encoded.

use bytes::Bytes;
use tungstenite::http::{HeaderValue, Method, StatusCode, header};

/// A complete response, which ends the connection if it has `Connection: close`.
pub type Response = tungstenite::http::Response<Bytes>;

/// A plain-text response. A line feed is appended.
pub fn text(status: StatusCode, line: &str) -> Response {
    let mut response = Response::new(Bytes::from(format!("{line}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Makes this the last response of its connection.
pub fn close_after(response: &mut Response) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Whether the connection ends after this response.
pub fn is_last(response: &Response) -> bool {
    response.headers().contains_key(header::CONNECTION)
}

/// The response to a request whose method is not GET or HEAD (RFC 9110, section 15.5.6).
pub fn method_not_allowed() -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are allowed.");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The response as bytes. The response to HEAD has the length of the content, but not the content.
pub fn encode(response: &Response, method: Option<&Method>) -> Vec<u8> {
    let status = response.status();
    let mut bytes =
        format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default())
            .into_bytes();
    for (name, value) in response.headers() {
        push_name(name.as_str(), &mut bytes);
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    // 1xx and 304 responses never have content (RFC 9110, sections 15.2 and 15.4.5).
    let has_content = !status.is_informational() && status != StatusCode::NOT_MODIFIED;
    if has_content {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", response.body().len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    if has_content && method != Some(&Method::HEAD) {
        bytes.extend_from_slice(response.body());
    }
    bytes
}

/// Writes `content-type` as `Content-Type`. Header names are case-insensitive, but some clients compare them exactly.
fn push_name(name: &str, bytes: &mut Vec<u8>) {
    for (at, word) in name.split('-').enumerate() {
        if at > 0 {
            bytes.push(b'-');
        }
        match word {
            "websocket" => bytes.extend_from_slice(b"WebSocket"),
            "etag" => bytes.extend_from_slice(b"ETag"),
            word => {
                let start = bytes.len();
                bytes.extend_from_slice(word.as_bytes());
                bytes[start..].iter_mut().take(1).for_each(|first| first.make_ascii_uppercase());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(response: &Response, method: Method) -> String {
        String::from_utf8(encode(response, Some(&method))).unwrap()
    }

    #[test]
    fn a_response_is_encoded_with_its_headers_and_content() {
        let expected = "HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\n\
            Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
            Cache-Control: no-store\r\nAllow: GET, HEAD\r\nContent-Length: 31\r\n\r\n\
            Only GET and HEAD are allowed.\n";
        assert_eq!(encoded(&method_not_allowed(), Method::POST), expected);
    }

    #[test]
    fn head_gets_the_length_without_the_content() {
        let response = text(StatusCode::OK, "healthy");
        let (head, content) = (encoded(&response, Method::HEAD), encoded(&response, Method::GET));
        assert!(head.contains("Content-Length: 8\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(content, head + "healthy\n");
    }

    #[test]
    fn informational_and_not_modified_responses_have_no_content() {
        for status in [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NOT_MODIFIED] {
            let mut response = Response::default();
            *response.status_mut() = status;
            response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("x"));
            response.headers_mut().insert(header::ETAG, HeaderValue::from_static("y"));
            let written = encoded(&response, Method::GET);
            assert!(written.ends_with("\r\nSec-WebSocket-Accept: x\r\nETag: y\r\n\r\n"), "{written}");
        }
    }
}
