//! HTTP before the upgrade, over http and https: which requests are upgraded, and what the others get.

use std::io::Write;

use crate::support::client::connect;
use crate::support::http::{get, read_until_closed, request, upgrade, upgrade_at};
use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

over_ws_and_wss! {
    any_path_is_upgraded,
    pages_of_other_origins_may_not_connect,
    other_requests_get_an_http_status,
    bytes_of_another_protocol_end_the_connection,
}

fn any_path_is_upgraded(transport: Transport) {
    // Without the chat page, whose paths are upgraded as well: see `page.rs`.
    let server = TestServer::with(transport, &[("WEB_UI", "false")]);
    for path in ["/", "/some/path?x=1"] {
        let (head, _stream) = upgrade_at(&server, path, "");
        assert!(head.contains(" 101 "), "{path}: {head}");
    }
}

fn pages_of_other_origins_may_not_connect(transport: Transport) {
    let origins = "https://chat.example.com, http://localhost:3000";
    let server = TestServer::with(transport, &[("ALLOWED_ORIGINS", origins)]);
    for (origin, status) in [
        ("Origin: https://chat.example.com\r\n", " 101 "),
        ("Origin: HTTP://LOCALHOST:3000\r\n", " 101 "),
        ("", " 101 "),
        ("Origin: https://chat.example.com.evil.example\r\n", " 403 "),
        ("Origin: http://chat.example.com\r\n", " 403 "),
        ("Origin: null\r\n", " 403 "),
    ] {
        let (head, _stream) = upgrade(&server, origin);
        assert!(head.contains(status), "{origin}: {head}");
    }
}

fn other_requests_get_an_http_status(transport: Transport) {
    let server = TestServer::with(transport, &[("WEB_UI", "false")]);
    let scheme = if transport == Transport::Wss { "wss://" } else { "ws://" };
    let page = get(&server, "/");
    assert!(
        page.starts_with("HTTP/1.1 426 ") && page.contains("TinyChat") && page.contains(scheme),
        "{page}"
    );
    let head = request(&server, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 426 ") && head.ends_with("\r\n\r\n"), "{head}");
    let post = request(&server, "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody");
    assert!(post.starts_with("HTTP/1.1 426 "), "{post}");
    let long = request(&server, &format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(10_000)));
    assert!(long.starts_with("HTTP/1.1 431 "), "{long}");
}

fn bytes_of_another_protocol_end_the_connection(transport: Transport) {
    // Long enough that no connection is closed by the timeout.
    let server = TestServer::with(transport, &[("HANDSHAKE_TIMEOUT", "3600")]);
    let response_to = |bytes: &[u8]| {
        let mut socket = connect(server.address);
        socket.write_all(bytes).unwrap();
        String::from_utf8_lossy(&read_until_closed(&mut socket)).into_owned()
    };
    match transport {
        Transport::Ws => {
            let tls_hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03";
            assert_eq!(response_to(tls_hello), "");
        }
        Transport::Wss => {
            let response = response_to(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert!(
                response.starts_with("HTTP/1.1 400 ") && response.contains("wss:// (or https://)"),
                "{response}"
            );
        }
    }
    response_to(&[0xFF; 300]);
    server.join("Ann").assert_nothing_received();
}
