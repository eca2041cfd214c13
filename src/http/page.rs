//! The chat page: a few files, compiled into the program.

use bytes::Bytes;
use tungstenite::handshake::server::Request;
use tungstenite::http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::request::{items, lines};
use super::response::{self, Response};

/// One file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

/// All files. Nothing is read from the disk, so path traversal is impossible.
const FILES: [File; 26] = [
    file("/", "text/html; charset=utf-8", include_str!("web/index.html")),
    file("/style.css", "text/css; charset=utf-8", include_str!("web/style.css")),
    script("/chat.js", include_str!("web/chat.js")),
    script("/completion.js", include_str!("web/completion.js")),
    script("/composer.js", include_str!("web/composer.js")),
    script("/connection.js", include_str!("web/connection.js")),
    script("/dialog.js", include_str!("web/dialog.js")),
    script("/dom.js", include_str!("web/dom.js")),
    script("/formatting.js", include_str!("web/formatting.js")),
    script("/menu.js", include_str!("web/menu.js")),
    script("/message-log.js", include_str!("web/message-log.js")),
    script("/message-row.js", include_str!("web/message-row.js")),
    script("/navigation.js", include_str!("web/navigation.js")),
    script("/moderation.js", include_str!("web/moderation.js")),
    script("/notifications.js", include_str!("web/notifications.js")),
    script("/outbox.js", include_str!("web/outbox.js")),
    script("/people.js", include_str!("web/people.js")),
    script("/people-menu.js", include_str!("web/people-menu.js")),
    script("/room.js", include_str!("web/room.js")),
    script("/sender.js", include_str!("web/sender.js")),
    script("/settings.js", include_str!("web/settings.js")),
    script("/status.js", include_str!("web/status.js")),
    script("/settings-panel.js", include_str!("web/settings-panel.js")),
    script("/storage.js", include_str!("web/storage.js")),
    file("/favicon.svg", "image/svg+xml; charset=utf-8", include_str!("web/favicon.svg")),
    file("/favicon-unread.svg", "image/svg+xml; charset=utf-8", include_str!("web/favicon-unread.svg")),
];

const fn file(path: &'static str, content_type: &'static str, content: &'static str) -> File {
    File { path, content_type, content }
}

const fn script(path: &'static str, content: &'static str) -> File {
    file(path, "text/javascript; charset=utf-8", content)
}

/// Sent with every response. `no-cache` makes browsers revalidate on each load, so that they notice a new version;
/// unchanged files get a 304.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONNECTION, "close"),
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
        let tag = self.entity_tag();
        let mut response = Response::default();
        if is_cached(request, &tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = Bytes::from_static(self.content.as_bytes());
            let content_type = HeaderValue::from_static(self.content_type);
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        let tag = HeaderValue::try_from(tag).expect("a version and hexadecimal digits are a valid value");
        response.headers_mut().insert(header::ETAG, tag);
        response
    }

    /// The version of the program and an FNV-1a hash of the content.
    fn entity_tag(&self) -> String {
        let hash = self.content.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("\"{}-{hash:016x}\"", env!("CARGO_PKG_VERSION"))
    }
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
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
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
    use super::*;
    use crate::http::request::parse;
    use crate::http::response::encode;

    fn respond(head: &str, secure: bool) -> String {
        let (request, _) = parse(head.as_bytes()).unwrap().unwrap();
        String::from_utf8(encode(&response(&request, secure), Some(request.method()))).unwrap()
    }

    fn request(head: &str) -> String {
        respond(head, false)
    }

    fn get(path: &str) -> String {
        request(&format!("GET {path} HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"))
    }

    fn header<'a>(response: &'a str, name: &str) -> Option<&'a str> {
        let head = response.split("\r\n\r\n").next().unwrap();
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[test]
    fn every_file_is_served_complete() {
        for File { path, content_type, content } in FILES {
            let response = get(path);
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {response}");
            assert!(response.ends_with(&format!("\r\n\r\n{content}")), "{path}");
            assert_eq!(
                header(&response, "Content-Length"),
                Some(content.len().to_string().as_str()),
                "{path}"
            );
            assert!(header(&response, "Content-Type").unwrap().starts_with(content_type), "{path}");
        }
        assert!(get("/?from=a-link").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn the_page_is_small_and_self_contained() {
        let bytes: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(bytes < 90_000, "{bytes} bytes");
        for File { path, content, .. } in FILES {
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
        for File { path, content, .. } in &FILES {
            for mark in ["src=\"", "href=\"", "from \""] {
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
            let head = request(&format!("HEAD {path} HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"));
            let whole = get(path);
            assert_eq!(whole.split_once("\r\n\r\n").unwrap().0, head.strip_suffix("\r\n\r\n").unwrap());
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
        assert!(respond("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true).contains(opener));
    }
}
