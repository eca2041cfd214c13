//! The chat page: a few files, compiled into the program.

use bytes::Bytes;
use tungstenite::handshake::server::Request;
use tungstenite::http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::request::{items, lines, may_be_followed};
use super::response::{self, Response};

/// One file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    /// From `web/`. `build.rs` has removed comments and needless spaces.
    content: &'static [u8],
    /// The content, compressed by `build.rs`. `None`: it is compressed already.
    gzip: Option<&'static [u8]>,
}

macro_rules! text {
    ($name:literal, $content_type:literal) => {
        text!($name, $content_type, concat!("/", $name))
    };
    ($name:literal, $content_type:literal, $path:expr) => {
        File {
            path: $path,
            content_type: concat!($content_type, "; charset=utf-8"),
            content: include_bytes!(concat!(env!("OUT_DIR"), "/", $name)),
            gzip: Some(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))),
        }
    };
}

macro_rules! script {
    ($name:literal) => {
        text!($name, "text/javascript")
    };
}

macro_rules! png {
    ($name:literal) => {
        File {
            path: concat!("/", $name),
            content_type: "image/png",
            content: include_bytes!(concat!("web/", $name)),
            gzip: None,
        }
    };
}

/// All files. Nothing is read from the disk, so path traversal is impossible.
const FILES: [File; 19] = [
    text!("index.html", "text/html", "/"),
    text!("style.css", "text/css"),
    script!("chat.js"),
    script!("composer.js"),
    script!("connection.js"),
    script!("dom.js"),
    script!("formatting.js"),
    script!("menus.js"),
    script!("message-log.js"),
    script!("moderation.js"),
    script!("notifications.js"),
    script!("people.js"),
    script!("room.js"),
    script!("settings.js"),
    script!("storage.js"),
    text!("favicon-unread.svg", "image/svg+xml"),
    text!("favicon.svg", "image/svg+xml"),
    png!("icon-192.png"),
    text!("manifest.webmanifest", "application/manifest+json"),
];

/// Sent with every response. `no-cache` makes browsers revalidate on each load, so that they notice a new version;
/// unchanged files get a 304.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-cache"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The response to a request for a file of the page. `secure`: it came over TLS.
pub fn response(request: &Request, secure: bool) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = match FILES.iter().find(|file| file.path == request.uri().path()) {
        None => response::text(StatusCode::NOT_FOUND, "Not found. The chat is at /."),
        Some(_) if !is_read => response::method_not_allowed(),
        Some(file) => file.response(request),
    };
    if !may_be_followed(request) {
        response::close_after(&mut response);
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, content_security_policy(request));
    if is_trustworthy(request, secure) {
        let opener_policy = HeaderName::from_static("cross-origin-opener-policy");
        headers.insert(opener_policy, HeaderValue::from_static("same-origin"));
    }
    response
}

impl File {
    fn response(&self, request: &Request) -> Response {
        let gzip = self.gzip.filter(|_| accepts_gzip(request));
        let tag = self.entity_tag(gzip.is_some());
        let mut response = Response::default();
        if is_cached(request, &tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = Bytes::from_static(gzip.unwrap_or(self.content));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            if gzip.is_some() {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        let headers = response.headers_mut();
        if self.gzip.is_some() {
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        let tag =
            HeaderValue::try_from(tag).expect("a version, hexadecimal digits and a coding are a valid value");
        headers.insert(header::ETAG, tag);
        response
    }

    /// The version of the program and an FNV-1a hash of the content. Each representation has its own.
    fn entity_tag(&self, is_gzip: bool) -> String {
        let hash = self.content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let coding = if is_gzip { "-gzip" } else { "" };
        format!("\"{}-{hash:016x}{coding}\"", env!("CARGO_PKG_VERSION"))
    }
}

/// Whether the client accepts gzip, and does not prefer the plain file (RFC 9110, section 12.5.3).
fn accepts_gzip(request: &Request) -> bool {
    let weight = |coding| items(request, "accept-encoding").find_map(|item| weight(item, coding));
    let gzip = weight("gzip").or_else(|| weight("x-gzip")).or_else(|| weight("*")).unwrap_or(0.0);
    gzip > 0.0 && gzip >= weight("identity").unwrap_or(0.0)
}

/// The weight that an item like `gzip;q=0.5` gives this coding. `None`: the item is about another one.
fn weight(item: &[u8], coding: &str) -> Option<f32> {
    let mut parts = str::from_utf8(item).ok()?.split(';').map(str::trim);
    parts.next().filter(|name| name.eq_ignore_ascii_case(coding))?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    Some(weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

/// Whether the browser has this version already. Compares weakly (RFC 9110, section 13.1.2), because proxies that
/// compress make a tag weak.
fn is_cached(request: &Request, tag: &str) -> bool {
    items(request, "if-none-match")
        .any(|item| item == b"*" || item.strip_prefix(b"W/").unwrap_or(item) == tag.as_bytes())
}

/// The page may only load its own files and connect to its own server. Where browsers support Trusted Types, its
/// scripts cannot turn text into markup. Safari before 15.4 does not count a WebSocket as
/// `'self'`, so the server is named as well.
fn content_security_policy(request: &Request) -> HeaderValue {
    let host =
        host(request).filter(|host| host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c)));
    let sockets = host.map(|host| format!(" ws://{host} wss://{host}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; manifest-src 'self'; \
         connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    );
    HeaderValue::try_from(policy).expect("a host of letters, digits and \".-:\" is a valid value")
}

/// Whether browsers treat the page as a secure context. Outside of one, some log a warning for
/// `Cross-Origin-Opener-Policy`.
fn is_trustworthy(request: &Request, secure: bool) -> bool {
    let is_loopback = host(request).is_some_and(|host| {
        ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|name| host.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
    });
    secure || is_loopback || lines(request, "x-forwarded-proto").any(|scheme| scheme == b"https")
}

fn host(request: &Request) -> Option<&str> {
    request.headers().get(header::HOST)?.to_str().ok().filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::http::request::parse;
    use crate::http::response::encode;

    /// All files together as they are served, without compression, in bytes.
    const MAX_PAGE_BYTES: usize = 90_000;
    /// What a browser is sent when it opens the page, in bytes.
    const MAX_SENT_BYTES: usize = 30_000;
    /// Files that a browser loads later, or never.
    const LATER: [&str; 4] =
        ["/favicon-unread.svg", "/icon-192.png", "/manifest.webmanifest", "/moderation.js"];

    fn respond(head: &str, secure: bool) -> Vec<u8> {
        let (request, _) = parse(head.as_bytes()).unwrap().unwrap();
        encode(&response(&request, secure), Some(request.method()))
    }

    /// The head and the content of the response.
    fn split(response: &[u8]) -> (String, &[u8]) {
        let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8(response[..end].to_vec()).unwrap(), &response[end..])
    }

    fn request(head: &str) -> String {
        String::from_utf8(respond(head, false)).unwrap()
    }

    fn get(path: &str) -> String {
        request(&format!("GET {path} HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"))
    }

    fn get_encoded(path: &str, headers: &str) -> Vec<u8> {
        respond(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"), false)
    }

    fn header<'a>(response: &'a str, name: &str) -> Option<&'a str> {
        let head = response.split("\r\n\r\n").next().unwrap();
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The text files, as pairs of a path and the content.
    fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
        let texts = FILES.into_iter().filter(|file| file.gzip.is_some());
        texts.map(|file| (file.path, str::from_utf8(file.content).unwrap()))
    }

    #[test]
    fn every_file_is_served_complete() {
        for File { path, content_type, content, .. } in FILES {
            let response = get_encoded(path, "");
            let (head, sent) = split(&response);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
            assert_eq!(sent, content, "{path}");
            assert_eq!(header(&head, "Content-Length"), Some(content.len().to_string().as_str()), "{path}");
            assert_eq!(header(&head, "Content-Type"), Some(content_type), "{path}");
            assert_eq!(header(&head, "Content-Encoding"), None, "{path}");
        }
        assert!(get("/?from=a-link").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn browsers_get_text_compressed() {
        for File { path, content, gzip, .. } in FILES {
            let response = get_encoded(path, "Accept-Encoding: gzip, deflate, br, zstd\r\n");
            let (head, sent) = split(&response);
            let Some(gzip) = gzip else {
                assert_eq!(sent, content, "{path}");
                assert_eq!(
                    (header(&head, "Content-Encoding"), header(&head, "Vary")),
                    (None, None),
                    "{path}"
                );
                continue;
            };
            assert!(sent == gzip && gzip.len() < content.len(), "{path}");
            let mut decoded = Vec::new();
            GzDecoder::new(sent).read_to_end(&mut decoded).unwrap();
            assert_eq!(decoded, content, "{path}");
            assert_eq!(header(&head, "Content-Encoding"), Some("gzip"), "{path}");
            assert_eq!(header(&head, "Content-Length"), Some(gzip.len().to_string().as_str()), "{path}");
        }
    }

    #[test]
    fn the_client_chooses_between_gzip_and_the_plain_file() {
        for (accepted, is_gzip) in [
            ("gzip", true),
            ("GZIP;q=0.001", true),
            ("x-gzip", true),
            ("*", true),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", true),
            ("identity;q=0.5 , gzip ; q=0.5", true),
            ("*;q=0, gzip", true),
            ("br\r\nAccept-Encoding: gzip", true),
            ("", false),
            ("br, deflate", false),
            ("gzip;q=0", false),
            ("gzip;q=0.000, *", false),
            ("*;q=0", false),
            ("identity, gzip;q=0.5", false),
            ("gzip;q=high", false),
            ("gzipped", false),
            ("\u{fffd}gzip", false),
        ] {
            let response = get_encoded("/chat.js", &format!("Accept-Encoding: {accepted}\r\n"));
            let (head, _) = split(&response);
            assert_eq!(header(&head, "Content-Encoding").is_some(), is_gzip, "{accepted:?}");
            // Also without compression: a cache must not send the plain file to all.
            assert_eq!(header(&head, "Vary"), Some("Accept-Encoding"), "{accepted:?}");
        }
    }

    #[test]
    fn the_page_is_small_and_self_contained() {
        let bytes: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(bytes < MAX_PAGE_BYTES, "{bytes} bytes");
        let loaded = FILES.iter().filter(|file| !LATER.contains(&file.path));
        let sent: usize = loaded.map(|file| file.gzip.unwrap_or(file.content).len()).sum();
        assert!(sent < MAX_SENT_BYTES, "{sent} bytes as sent");
        for (path, content) in texts() {
            for word in ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\"", "onclick="]
            {
                assert!(!content.contains(word), "{path} has {word}");
            }
            let foreign = content.match_indices("://").map(|(at, _)| &content[at.saturating_sub(5)..]);
            for link in foreign.filter(|link| !link.contains("www.w3.org/2000/svg")) {
                let shown: String = link.chars().take(40).collect();
                assert!(!link.starts_with("http://") && !link.starts_with("https:/"), "{path}: {shown}");
            }
        }
    }

    #[test]
    fn every_file_that_the_page_links_to_exists() {
        let mut seen = 0;
        for (path, content) in texts() {
            for mark in ["src=\"", "href=\"", "from \"", "import(\"", "\"src\": \""] {
                for link in content.split(mark).skip(1).filter_map(|rest| rest.split('"').next()) {
                    let link = format!("/{}", link.trim_start_matches("./"));
                    assert!(FILES.iter().any(|file| file.path == link), "{path} links to {link}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 4, "the links were not found: {seen}");
    }

    #[test]
    fn other_paths_do_not_exist() {
        for path in [
            "/index.html",
            "/chat.js/",
            "//",
            "/../style.css",
            "/%2e",
            "/CHAT.JS",
            "/web/chat.js",
            "/favicon.ico",
        ] {
            let response = get(path);
            assert!(response.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {response}");
            assert!(header(&response, "Content-Security-Policy").is_some(), "{path}");
        }
    }

    #[test]
    fn only_get_and_head_are_allowed() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
            let response = request(&format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
            assert_eq!(header(&response, "Allow"), Some("GET, HEAD"));
        }
    }

    #[test]
    fn head_is_get_without_the_content() {
        for path in ["/", "/chat.js", "/nothing"] {
            for accepted in ["", "Accept-Encoding: gzip\r\n"] {
                let head = respond(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{accepted}\r\n"), false);
                let whole = get_encoded(path, accepted);
                assert_eq!(split(&head), (split(&whole).0, &[][..]), "{path}");
            }
        }
    }

    #[test]
    fn a_cached_file_is_not_sent_again() {
        let fresh = get("/chat.js");
        let tag = header(&fresh, "ETag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        assert_ne!(Some(tag), header(&get("/style.css"), "ETag"));
        for tags in [
            tag.to_owned(),
            format!("\"old\", W/{tag}"),
            "*".into(),
            format!("\"a\"\r\nIf-None-Match: {tag}"),
        ] {
            let response =
                request(&format!("GET /chat.js HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tags}\r\n\r\n"));
            assert!(response.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{tags}: {response}");
            assert!(response.ends_with("\r\n\r\n"), "{tags}");
            assert_eq!(header(&response, "ETag"), Some(tag));
            assert!(
                header(&response, "Content-Length").is_none() && header(&response, "Content-Type").is_none()
            );
        }
        let other = request("GET /chat.js HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"old\"\r\n\r\n");
        assert!(other.starts_with("HTTP/1.1 200 "), "{other}");
    }

    #[test]
    fn the_plain_and_the_compressed_file_are_cached_apart() {
        let response = |headers: &str| split(&get_encoded("/chat.js", headers)).0;
        let accepted = "Accept-Encoding: gzip\r\n";
        let (plain, gzip) = (response(""), response(accepted));
        let [plain, gzip] = [&plain, &gzip].map(|head| header(head, "ETag").unwrap());
        assert_ne!(plain, gzip);
        for (tag, is_cached) in [(gzip, true), (plain, false)] {
            let head = response(&format!("{accepted}If-None-Match: {tag}\r\n"));
            assert_eq!(head.starts_with("HTTP/1.1 304 "), is_cached, "{head}");
            assert_eq!((header(&head, "ETag"), header(&head, "Vary")), (Some(gzip), Some("Accept-Encoding")));
        }
        assert!(response(&format!("If-None-Match: {gzip}\r\n")).starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn the_policy_allows_connections_to_this_server_only() {
        let policy = |host: &str| {
            let response = request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            header(&response, "Content-Security-Policy").unwrap().to_owned()
        };
        let named = policy("chat.example.com:8765");
        assert!(
            named.contains("connect-src 'self' ws://chat.example.com:8765 wss://chat.example.com:8765;"),
            "{named}"
        );
        for odd in ["[::1]:8765", "x; script-src *", "*", "a b", ""] {
            assert!(policy(odd).contains("connect-src 'self'; base-uri"), "{odd}");
        }
        assert!(named.contains("default-src 'none'") && !named.contains("unsafe"), "{named}");
    }

    #[test]
    fn headers_for_secure_pages_are_sent_to_secure_pages_only() {
        let opener = "Cross-Origin-Opener-Policy: same-origin\r\n";
        for host in ["localhost:8765", "127.0.0.1", "[::1]:8765", "x\r\nX-Forwarded-Proto: https"] {
            assert!(request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).contains(opener), "{host}");
        }
        for host in ["192.168.1.7:8765", "localhost.example.com"] {
            assert!(!request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).contains(opener), "{host}");
        }
        let secure = respond("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true);
        assert!(split(&secure).0.contains(opener));
    }
}
