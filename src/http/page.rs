//! The chat page: a few files, built into the program, for browsers that ask for one instead of a WebSocket.

use tungstenite::handshake::server::Request;
use tungstenite::http::{Method, header};

use super::request as http;

/// One file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

/// Everything that there is to be had; nothing is read from the disk, so no path leads anywhere else.
const FILES: [File; 10] = [
    file("/", "text/html", include_str!("web/index.html")),
    file("/style.css", "text/css", include_str!("web/style.css")),
    file("/chat.js", "text/javascript", include_str!("web/chat.js")),
    file("/composer.js", "text/javascript", include_str!("web/composer.js")),
    file("/connection.js", "text/javascript", include_str!("web/connection.js")),
    file("/dom.js", "text/javascript", include_str!("web/dom.js")),
    file("/links.js", "text/javascript", include_str!("web/links.js")),
    file("/member-list.js", "text/javascript", include_str!("web/member-list.js")),
    file("/message-log.js", "text/javascript", include_str!("web/message-log.js")),
    file("/favicon.svg", "image/svg+xml", include_str!("web/favicon.svg")),
];

const fn file(path: &'static str, content_type: &'static str, content: &'static str) -> File {
    File { path, content_type, content }
}

/// What a browser is told of every answer. It is to ask each time, for a new version of the server brings a new
/// page; mostly it then hears that nothing has changed.
const HEADERS: &str = "Connection: close\r\nCache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n";

/// The answer to a plain request, as bytes, and its status for the log. `secure`: it came through TLS.
pub fn answer(request: &Request, secure: bool) -> (&'static str, Vec<u8>) {
    let method = request.method();
    let found = FILES.iter().find(|file| file.path == request.uri().path());
    let (status, more, content_type, content) = match found {
        None => ("404 Not Found", String::new(), "text/plain", "There is nothing here: the chat is at /.\n"),
        Some(_) if method != Method::GET && method != Method::HEAD => {
            let allow = "Allow: GET, HEAD\r\n".to_owned();
            ("405 Method Not Allowed", allow, "text/plain", "This can only be read.\n")
        }
        Some(&File { content_type, content, .. }) => {
            let tag = entity_tag(content);
            let known = is_known(request, &tag);
            let status = if known { "304 Not Modified" } else { "200 OK" };
            (status, format!("ETag: {tag}\r\n"), content_type, content)
        }
    };
    let policy = content_security_policy(request);
    let opener =
        if is_trustworthy(request, secure) { "Cross-Origin-Opener-Policy: same-origin\r\n" } else { "" };
    let mut head = format!("HTTP/1.1 {status}\r\n{HEADERS}{opener}{policy}{more}");
    let has_content = !status.starts_with("304");
    if has_content {
        let length = content.len();
        head += &format!("Content-Type: {content_type}; charset=utf-8\r\nContent-Length: {length}\r\n");
    }
    let mut bytes = (head + "\r\n").into_bytes();
    if has_content && method != Method::HEAD {
        bytes.extend_from_slice(content.as_bytes());
    }
    (status, bytes)
}

/// The file's own tag: FNV-1a over it, with the version of the program that it belongs to.
fn entity_tag(content: &str) -> String {
    let hash = content.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("\"{}-{hash:016x}\"", env!("CARGO_PKG_VERSION"))
}

/// Whether the browser has it already. Proxies that compress make a tag weak, and weak is enough for this (RFC 9110,
/// section 13.1.2).
fn is_known(request: &Request, tag: &str) -> bool {
    let mut tags = http::lines(request, "if-none-match").flat_map(|line| line.split(|&byte| byte == b','));
    tags.any(|known| {
        let known = known.trim_ascii();
        known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes()
    })
}

/// The page may load its own files and talk to its own server, and nothing else; where browsers know trusted types,
/// it cannot turn text into markup even by mistake. Safari before 15.4 does not count a
/// WebSocket as its own server, so the server is named as well.
fn content_security_policy(request: &Request) -> String {
    let host =
        host(request).filter(|host| host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c)));
    let sockets = host.map(|host| format!(" ws://{host} wss://{host}")).unwrap_or_default();
    format!(
        "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'\r\n"
    )
}

/// Whether browsers heed headers for a secure page; of others some complain of them on their console.
fn is_trustworthy(request: &Request, secure: bool) -> bool {
    let loopback = host(request).is_some_and(|host| {
        ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|name| host.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
    });
    secure || loopback || http::lines(request, "x-forwarded-proto").any(|scheme| scheme == b"https")
}

fn host(request: &Request) -> Option<&str> {
    request.headers().get(header::HOST)?.to_str().ok().filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(head: &str) -> String {
        let (request, _) = http::parse(head.as_bytes()).unwrap().unwrap();
        String::from_utf8(answer(&request, false).1).unwrap()
    }

    fn get(path: &str) -> String {
        asked(&format!("GET {path} HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"))
    }

    fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
        let head = answer.split("\r\n\r\n").next().unwrap();
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[test]
    fn every_file_is_served_whole() {
        for File { path, content_type, content } in FILES {
            let answer = get(path);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{content}")), "{path}");
            assert_eq!(header(&answer, "Content-Length"), Some(content.len().to_string().as_str()), "{path}");
            assert!(header(&answer, "Content-Type").unwrap().starts_with(content_type), "{path}");
        }
        assert!(get("/?from=a-link").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn the_page_stays_small_and_plain() {
        let bytes: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(bytes < 40_000, "{bytes} bytes");
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
    fn what_the_page_asks_for_is_there() {
        let mut seen = 0;
        for File { path, content, .. } in &FILES[..5] {
            for mark in ["src=\"", "href=\"", "from \""] {
                for link in content.split(mark).skip(1).filter_map(|rest| rest.split('"').next()) {
                    let link = format!("/{}", link.trim_start_matches("./"));
                    assert!(FILES.iter().any(|file| file.path == link), "{path} asks for {link}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 4, "the links were not found: {seen}");
    }

    #[test]
    fn nothing_else_is_there() {
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
            let answer = get(path);
            assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {answer}");
            assert!(header(&answer, "Content-Security-Policy").is_some(), "{path}");
        }
    }

    #[test]
    fn it_can_only_be_read() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
            let answer = asked(&format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
            assert_eq!(header(&answer, "Allow"), Some("GET, HEAD"));
        }
    }

    #[test]
    fn head_is_get_without_the_content() {
        for path in ["/", "/chat.js", "/nothing"] {
            let head = asked(&format!("HEAD {path} HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"));
            let whole = get(path);
            assert_eq!(whole.split_once("\r\n\r\n").unwrap().0, head.strip_suffix("\r\n\r\n").unwrap());
        }
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let fresh = get("/chat.js");
        let tag = header(&fresh, "ETag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        assert_ne!(Some(tag), header(&get("/style.css"), "ETag"));
        for known in [
            tag.to_owned(),
            format!("\"old\", W/{tag}"),
            "*".into(),
            format!("\"a\"\r\nIf-None-Match: {tag}"),
        ] {
            let answer =
                asked(&format!("GET /chat.js HTTP/1.1\r\nHost: x\r\nIf-None-Match: {known}\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{known}: {answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{known}");
            assert_eq!(header(&answer, "ETag"), Some(tag));
            assert!(header(&answer, "Content-Length").is_none() && header(&answer, "Content-Type").is_none());
        }
        let other = asked("GET /chat.js HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"old\"\r\n\r\n");
        assert!(other.starts_with("HTTP/1.1 200 "), "{other}");
    }

    #[test]
    fn the_policy_names_the_server_and_nobody_else() {
        let policy = |host: &str| {
            let answer = asked(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            header(&answer, "Content-Security-Policy").unwrap().to_owned()
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
    fn headers_for_secure_pages_go_to_secure_pages() {
        let opener = "Cross-Origin-Opener-Policy: same-origin\r\n";
        for host in ["localhost:8765", "127.0.0.1", "[::1]:8765", "x\r\nX-Forwarded-Proto: https"] {
            assert!(asked(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).contains(opener), "{host}");
        }
        for host in ["192.168.1.7:8765", "localhost.example.com"] {
            assert!(!asked(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).contains(opener), "{host}");
        }
        let (request, _) = http::parse(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().unwrap();
        assert!(String::from_utf8(answer(&request, true).1).unwrap().contains(opener));
    }
}
