//! Parses HTTP request heads.

use tungstenite::handshake::server::Request;
use tungstenite::http::{HeaderValue, Method, Version, header};

use super::rejection::Rejection;

/// The longest request head, in bytes.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The most header lines in a request head.
pub const MAX_HEADERS: usize = 64;

/// Parses a request head and returns its length in bytes as well; `None`: it is incomplete.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Rejection> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > MAX_HEAD_BYTES => Err(Rejection::HeadTooLarge),
        Ok(httparse::Status::Complete(length)) => {
            let request = to_request(&parsed).ok_or(Rejection::NotHttp)?;
            Ok(Some((request, length)))
        }
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => Err(Rejection::HeadTooLarge),
        Err(_) => Err(Rejection::NotHttp),
    }
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

/// Whether the client may send another request after this one (RFC 9112, section 9.3). The server reads no content, so
/// a request that has some is the last.
pub fn may_be_followed(request: &Request) -> bool {
    let has = |name| request.headers().contains_key(name);
    let closes = items(request, "connection").any(|option| option.eq_ignore_ascii_case(b"close"));
    let has_content = has(header::CONTENT_LENGTH) || has(header::TRANSFER_ENCODING);
    request.version() == Version::HTTP_11 && !closes && !has_content
}

/// The lines of a header, in order.
pub fn lines<'a>(request: &'a Request, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    request.headers().get_all(name).iter().map(HeaderValue::as_bytes)
}

/// The comma-separated items of a header, over all of its lines (RFC 9110, section 5.3).
pub fn items<'a>(request: &'a Request, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    lines(request, name).flat_map(|line| line.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}
