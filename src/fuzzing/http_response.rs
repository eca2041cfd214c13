//! A response as a strict client reads it (RFC 9112).

use std::collections::HashSet;

pub struct HttpResponse {
    pub status: u16,
    /// Names and values, in order.
    headers: Vec<(String, String)>,
}

impl HttpResponse {
    /// Panics unless the bytes are exactly one response. `is_head`: it is the response to a HEAD request.
    pub fn parse(bytes: &[u8], is_head: bool) -> Self {
        let end =
            bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a response has an empty line");
        let (head, content) = (&bytes[..end], &bytes[end + 4..]);
        let head = std::str::from_utf8(head).expect("the head is ASCII");
        assert!(head.chars().all(|c| c == '\r' || c == '\n' || (' '..='~').contains(&c)), "{head:?}");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(status).unwrap_or_else(|| panic!("no status line: {head:?}"));
        let headers: Vec<(String, String)> = lines.map(header).collect();
        let names: HashSet<String> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        assert_eq!(names.len(), headers.len(), "a header is repeated: {head:?}");
        let response = Self { status, headers };
        let length =
            response.header("Content-Length").map(|length| length.parse::<usize>().expect("a number"));
        assert_eq!(response.header("Transfer-Encoding"), None);
        match (status, length) {
            (101 | 304, None) => assert_eq!(content, b""),
            (101 | 304, Some(_)) => panic!("content in {head:?}"),
            (_, Some(_)) if is_head => assert_eq!(content, b""),
            (_, length) => assert_eq!(length, Some(content.len()), "{head:?}"),
        }
        response
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

fn status(line: &str) -> Option<u16> {
    let (code, reason) = line.strip_prefix("HTTP/1.1 ")?.split_once(' ')?;
    assert!(code.len() == 3 && reason.chars().all(|c| c == ' ' || c.is_ascii_alphabetic()), "{line:?}");
    code.parse().ok()
}

fn header(line: &str) -> (String, String) {
    let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("not a header: {line:?}"));
    assert!(!name.is_empty() && name.chars().all(|c| c == '-' || c.is_ascii_alphanumeric()), "{line:?}");
    assert!(!value.contains(['\r', '\n']) && value.trim() == value, "{line:?}");
    (name.to_owned(), value.to_owned())
}
