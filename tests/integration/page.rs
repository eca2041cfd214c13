//! The chat page as it goes over the wire, over http and https. What it does is in `browser.rs`.

use std::io::{Read, Write};

use crate::client::{Client, ClientStream};
use crate::conversations::over_ws_and_wss;
use crate::server::{TestServer, Transport};

/// A request, and the whole answer to it, up to the end of the connection.
fn asked(server: &TestServer, head: &str) -> String {
    let mut stream = ClientStream::connect(server.address, server.transport);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and a clean end");
    String::from_utf8(answer).unwrap()
}

fn get(server: &TestServer, path: &str) -> String {
    asked(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn the_page_is_there_and_its_files_with_it(transport: Transport) {
    let server = TestServer::start(transport);
    let page = get(&server, "/");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<title>TinyChat</title>"), "{page}");
    for header in [
        "Content-Type: text/html; charset=utf-8",
        "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self';",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "Cross-Origin-Opener-Policy: same-origin",
        "Cross-Origin-Resource-Policy: same-origin",
        "Cache-Control: no-cache",
        "Connection: close",
    ] {
        assert!(page.contains(&format!("\r\n{header}")), "{header} in {page}");
    }
    assert!(!page.contains("unsafe-inline"));
    for (path, content_type) in [
        ("/style.css", "text/css"),
        ("/chat.js", "text/javascript"),
        ("/connection.js", "text/javascript"),
        ("/view.js", "text/javascript"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let file = get(&server, path);
        assert!(file.starts_with("HTTP/1.1 200 ") && file.contains(content_type), "{path}: {file}");
    }
}

fn a_browser_asks_again_and_hears_that_nothing_changed(transport: Transport) {
    let server = TestServer::start(transport);
    let page = get(&server, "/");
    let tag = page.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let again = asked(&server, &format!("GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n"));
    assert!(again.starts_with("HTTP/1.1 304 ") && again.ends_with("\r\n\r\n"), "{again}");
    let head = asked(&server, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

fn nothing_else_is_there_and_nothing_can_be_sent(transport: Transport) {
    let server = TestServer::start(transport);
    for path in ["/index.html", "/..%2f.env", "/../.env", "/.env", "//"] {
        let answer = get(&server, path);
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let post = asked(&server, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
}

/// On the paths of the page, too, and wherever the words say that a WebSocket was meant.
fn whoever_wants_a_websocket_gets_one(transport: Transport) {
    let server = TestServer::start(transport);
    let scheme = if transport == Transport::Wss { "wss" } else { "ws" };
    for path in ["/", "/chat.js", "/any/path?x=1"] {
        let stream = ClientStream::connect(server.address, transport);
        let url = format!("{scheme}://localhost:{}{path}", server.address.port());
        let (socket, _) = tungstenite::client(url, stream).expect("the upgrade");
        let mut client = Client { socket, users: Vec::new(), lists: 0 };
        client.enter("Ann");
        client.leave();
    }
    let lost = "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = asked(&server, lost);
    assert!(answer.starts_with("HTTP/1.1 426 "), "a proxy has lost the Upgrade: {answer}");
}

fn it_can_be_turned_off(transport: Transport) {
    let server = TestServer::with(transport, &[("WEB_UI", "false")]);
    for path in ["/", "/chat.js", "/nothing"] {
        assert!(get(&server, path).starts_with("HTTP/1.1 426 "), "{path}");
    }
}

/// A browser opens a few connections at once, and each is free again when its file is there.
fn loading_it_often_meets_no_limit(transport: Transport) {
    // Loopback is exempt, so it is a proxy that speaks for one address.
    let settings =
        [("MAX_CONNECTIONS_PER_IP", "1"), ("MAX_CONNECTIONS", "8"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let server = TestServer::with(transport, &settings);
    for _ in 0..20 {
        for path in ["/", "/style.css", "/chat.js"] {
            assert!(get(&server, path).starts_with("HTTP/1.1 200 "), "{path}");
        }
    }
}

over_ws_and_wss!(
    the_page_is_there_and_its_files_with_it,
    a_browser_asks_again_and_hears_that_nothing_changed,
    nothing_else_is_there_and_nothing_can_be_sent,
    whoever_wants_a_websocket_gets_one,
    it_can_be_turned_off,
    loading_it_often_meets_no_limit,
);
