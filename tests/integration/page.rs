//! The chat page as files, over http and https. What the page does is in `browser.rs`.

use std::io::{ErrorKind, Read, Write};

use flate2::read::GzDecoder;
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

use crate::support::client::{Client, ClientStream};
use crate::support::http::{
    get, read_response, read_until_closed, request, request_bytes, request_kept, upgrade_request,
};
use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

over_ws_and_wss! {
    the_page_and_its_files_are_served,
    an_unchanged_page_is_not_sent_again,
    other_paths_and_methods_are_refused,
    the_paths_of_the_page_can_be_upgraded,
    the_page_can_be_turned_off,
    browsers_get_the_page_compressed,
    the_page_can_be_installed,
    a_connection_serves_several_requests,
    a_kept_connection_can_be_upgraded,
    a_kept_connection_ends_in_time,
    some_requests_are_the_last,
    a_full_server_keeps_no_connections,
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
        ("/composer.js", "text/javascript"),
        ("/dom.js", "text/javascript"),
        ("/formatting.js", "text/javascript"),
        ("/people.js", "text/javascript"),
        ("/menus.js", "text/javascript"),
        ("/message-log.js", "text/javascript"),
        ("/moderation.js", "text/javascript"),
        ("/notifications.js", "text/javascript"),
        ("/room.js", "text/javascript"),
        ("/settings.js", "text/javascript"),
        ("/storage.js", "text/javascript"),
        ("/favicon.svg", "image/svg+xml"),
        ("/favicon-unread.svg", "image/svg+xml"),
        ("/manifest.webmanifest", "application/manifest+json"),
    ] {
        let file = get(&server, path);
        assert!(file.starts_with("HTTP/1.1 200 ") && file.contains(content_type), "{path}: {file}");
    }
}

fn an_unchanged_page_is_not_sent_again(transport: Transport) {
    let server = TestServer::start(transport);
    let page = get(&server, "/");
    let tag = page.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let conditional =
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIf-None-Match: {tag}\r\n\r\n");
    let response = request(&server, &conditional);
    assert!(response.starts_with("HTTP/1.1 304 ") && response.ends_with("\r\n\r\n"), "{response}");
    let head = request(&server, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
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

fn browsers_get_the_page_compressed(transport: Transport) {
    let server = TestServer::start(transport);
    let plain = get(&server, "/chat.js");
    let accepting =
        "GET /chat.js HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: gzip, br\r\n\r\n";
    let compressed = request_bytes(&server, accepting);
    let end = compressed.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let head = str::from_utf8(&compressed[..end]).unwrap();
    assert!(head.contains("\r\nContent-Encoding: gzip\r\n"), "{head}");
    for response in [head, &plain] {
        assert!(response.contains("\r\nVary: Accept-Encoding\r\n"), "{response}");
    }
    let mut content = String::new();
    GzDecoder::new(&compressed[end..]).read_to_string(&mut content).unwrap();
    assert!(plain.ends_with(&format!("\r\n\r\n{content}")), "{content}");
}

fn the_page_can_be_installed(transport: Transport) {
    let server = TestServer::start(transport);
    let page = get(&server, "/");
    assert!(
        page.contains("manifest-src 'self';") && page.contains("href=\"manifest.webmanifest\""),
        "{page}"
    );
    let manifest = get(&server, "/manifest.webmanifest");
    let manifest: serde_json::Value =
        serde_json::from_str(manifest.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    for icon in manifest["icons"].as_array().unwrap() {
        // Relative, for a page at a path behind a proxy.
        let path = format!("/{}", icon["src"].as_str().unwrap());
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let response = request_bytes(&server, &request);
        let head = String::from_utf8_lossy(&response);
        let content_type = format!("\r\nContent-Type: {}", icon["type"].as_str().unwrap());
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(&content_type), "{path}: {head}");
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn a_connection_serves_several_requests(transport: Transport) {
    let server = TestServer::start(transport);
    let mut stream = ClientStream::connect(server.address, transport);
    for path in ["/", "/chat.js", "/style.css"] {
        let response = request_kept(&mut stream, &GET.replace("GET /", &format!("GET {path}")));
        assert!(response.starts_with("HTTP/1.1 200 ") && !response.contains("\r\nConnection:"), "{response}");
    }
    // Pipelined, and cut in the middle of a head.
    let several = GET.repeat(3);
    let (first, rest) = several.split_at(GET.len() * 2 - 7);
    assert!(request_kept(&mut stream, first).contains("<title>"));
    assert!(request_kept(&mut stream, rest).contains("<title>"));
    assert!(read_response(&mut stream).contains("<title>"));
    // Up to a limit.
    let last = (0..100).map(|_| request_kept(&mut stream, GET));
    let last = last.take_while(|response| !response.contains("\r\nConnection: close\r\n"));
    assert!(last.count() < 16);
    assert_eq!(read_until_closed(&mut stream), b"");
}

fn a_kept_connection_can_be_upgraded(transport: Transport) {
    let server = TestServer::start(transport);
    let mut stream = ClientStream::connect(server.address, transport);
    assert!(request_kept(&mut stream, GET).starts_with("HTTP/1.1 200 "));
    assert!(request_kept(&mut stream, &upgrade_request("")).starts_with("HTTP/1.1 101 "));
    let mut ann = Client::new(WebSocket::from_raw_socket(stream, Role::Client, None));
    ann.join_and_wait("Ann");
}

fn a_kept_connection_ends_in_time(transport: Transport) {
    // It also applies to the first request, which takes longer on a busy machine.
    let server = TestServer::with(transport, &[("HANDSHAKE_TIMEOUT", "3")]);
    let [mut idle, mut slow] = [(); 2].map(|()| {
        let mut stream = ClientStream::connect(server.address, transport);
        assert!(request_kept(&mut stream, GET).starts_with("HTTP/1.1 200 "));
        stream
    });
    slow.write_all(b"GET / HTTP/1.1\r\nX-Slow:").unwrap();
    slow.flush().unwrap();
    for stream in [&mut idle, &mut slow] {
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest).map_err(|error| error.kind());
        assert!(rest.is_empty() && end != Err(ErrorKind::WouldBlock), "{end:?}");
    }
}

fn some_requests_are_the_last(transport: Transport) {
    let server = TestServer::start(transport);
    for last in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, Close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        // Its content must not be taken for a request.
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let responses = request(&server, &format!("{last}{GET}"));
        assert!(responses.contains("\r\nConnection: close\r\n"), "{last}: {responses}");
        assert_eq!(responses.matches("HTTP/1.1 ").count(), 1, "{last}: {responses}");
    }
}

/// More than half of the connections are never kept, so that browsers that are done with the page keep nobody out.
fn a_full_server_keeps_no_connections(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_CONNECTIONS", "4")]);
    let connections = [(); 4].map(|()| {
        let mut stream = ClientStream::connect(server.address, transport);
        let response = request_kept(&mut stream, GET);
        (response.contains("\r\nConnection: close\r\n"), stream)
    });
    assert_eq!(connections.each_ref().map(|(is_last, _)| *is_last), [false, false, true, true]);
}
