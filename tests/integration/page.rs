//! The chat page as files, over http and https. What the page does is in `browser.rs`.

use crate::support::client::{Client, ClientStream};
use crate::support::http::{get, request};
use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

over_ws_and_wss! {
    the_page_and_its_files_are_served,
    an_unchanged_page_is_not_sent_again,
    other_paths_and_methods_are_refused,
    the_paths_of_the_page_can_be_upgraded,
    the_page_can_be_turned_off,
    requests_for_the_page_do_not_use_up_connections,
}

fn the_page_and_its_files_are_served(transport: Transport) {
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
        assert!(page.contains(&format!("\r\n{header}")), "{header} is not in {page}");
    }
    assert!(!page.contains("unsafe-inline"), "{page}");
    for (path, content_type) in [
        ("/style.css", "text/css"),
        ("/chat.js", "text/javascript"),
        ("/connection.js", "text/javascript"),
        ("/completion.js", "text/javascript"),
        ("/composer.js", "text/javascript"),
        ("/dialog.js", "text/javascript"),
        ("/dom.js", "text/javascript"),
        ("/formatting.js", "text/javascript"),
        ("/menu.js", "text/javascript"),
        ("/people.js", "text/javascript"),
        ("/people-menu.js", "text/javascript"),
        ("/message-log.js", "text/javascript"),
        ("/message-row.js", "text/javascript"),
        ("/navigation.js", "text/javascript"),
        ("/notifications.js", "text/javascript"),
        ("/outbox.js", "text/javascript"),
        ("/sender.js", "text/javascript"),
        ("/room.js", "text/javascript"),
        ("/settings.js", "text/javascript"),
        ("/status.js", "text/javascript"),
        ("/settings-panel.js", "text/javascript"),
        ("/storage.js", "text/javascript"),
        ("/favicon.svg", "image/svg+xml"),
        ("/favicon-unread.svg", "image/svg+xml"),
    ] {
        let file = get(&server, path);
        assert!(file.starts_with("HTTP/1.1 200 ") && file.contains(content_type), "{path}: {file}");
    }
}

fn an_unchanged_page_is_not_sent_again(transport: Transport) {
    let server = TestServer::start(transport);
    let page = get(&server, "/");
    let tag = page.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let conditional = format!("GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n");
    let response = request(&server, &conditional);
    assert!(response.starts_with("HTTP/1.1 304 ") && response.ends_with("\r\n\r\n"), "{response}");
    let head = request(&server, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

fn other_paths_and_methods_are_refused(transport: Transport) {
    let server = TestServer::start(transport);
    for path in ["/index.html", "/..%2f.env", "/../.env", "/.env", "//"] {
        let response = get(&server, path);
        assert!(response.starts_with("HTTP/1.1 404 "), "{path}: {response}");
    }
    let post = request(&server, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
}

fn the_paths_of_the_page_can_be_upgraded(transport: Transport) {
    let server = TestServer::start(transport);
    let scheme = if transport == Transport::Wss { "wss" } else { "ws" };
    for path in ["/", "/chat.js", "/any/path?x=1"] {
        let stream = ClientStream::connect(server.address, transport);
        let url = format!("{scheme}://localhost:{}{path}", server.address.port());
        let mut client = Client::upgrade(stream, url);
        client.join_and_wait("Ann");
        client.leave();
    }
    // An upgrade request from which a proxy has removed `Upgrade` gets an explanation, not the page.
    let incomplete = "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let response = request(&server, incomplete);
    assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
}

fn the_page_can_be_turned_off(transport: Transport) {
    let server = TestServer::with(transport, &[("WEB_UI", "false")]);
    for path in ["/", "/chat.js", "/nothing"] {
        let response = get(&server, path);
        assert!(response.starts_with("HTTP/1.1 426 "), "{path}: {response}");
    }
}

/// A browser opens a few connections at once. Each is released when its file has been sent.
fn requests_for_the_page_do_not_use_up_connections(transport: Transport) {
    let settings =
        [("MAX_CONNECTIONS_PER_IP", "1"), ("MAX_CONNECTIONS", "20"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let server = TestServer::with(transport, &settings);
    for _ in 0..20 {
        for path in ["/", "/style.css", "/chat.js"] {
            // From an address behind a proxy, because loopback is exempt from the limit per address.
            let get = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
            let response = request(&server, &get);
            assert!(response.starts_with("HTTP/1.1 200 "), "{path}: {response}");
        }
    }
}
