//! `/healthz` and `/metrics` (docs/operations.md), over http and https.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::net::{AddressFamily, SocketType};
use tungstenite::Message;

use crate::support::client::TIMEOUT;
use crate::support::http::{get, read_until_closed, request, upgrade_at, upgrade_request};
use crate::support::over_ws_and_wss;
use crate::support::port::ReservedPort;
use crate::support::program::Folder;
use crate::support::server::{TestServer, Transport};

over_ws_and_wss! {
    a_running_server_is_healthy,
    a_server_at_max_connections_is_healthy,
    slow_refused_connections_do_not_block_monitoring,
    metrics_count_what_happens,
    metrics_are_refused_to_other_addresses,
}

fn a_running_server_is_healthy(transport: Transport) {
    let server = TestServer::start(transport);
    let response = get(&server, "/healthz");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nOK\n"), "{response}");
    let head = request(&server, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // A WebSocket may have any path, including these.
    let (head, _stream) = upgrade_at(&server, "/metrics", "");
    assert!(head.contains(" 101 "), "{head}");
}

/// A supervisor that restarts unhealthy servers must not restart one that is only at its limit. Over TLS, such a
/// server once closed all connections.
fn a_server_at_max_connections_is_healthy(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_CONNECTIONS", "1")]);
    let _ann = server.join("Ann");
    let healthz = get(&server, "/healthz");
    assert!(healthz.starts_with("HTTP/1.1 200 OK"), "{healthz}");
    assert!(request(&server, &upgrade_request("")).starts_with("HTTP/1.1 503 "));
    assert_eq!(
        metrics(&server)["tinychat_refused_total{reason=\"server_full\"}"],
        1.0,
        "one is refused, two are answered"
    );
}

/// 32 silent connections that were to be refused once kept all others from getting a response.
fn slow_refused_connections_do_not_block_monitoring(transport: Transport) {
    // 127.0.0.2 is a proxy, so what it forwards is not local.
    let server = TestServer::with(transport, &[("MAX_CONNECTIONS", "1"), ("TRUSTED_PROXIES", "127.0.0.2")]);
    let _ann = server.join("Ann");
    let _silent: Vec<TcpStream> =
        (0..40).map(|_| connect_from(Ipv4Addr::new(127, 0, 0, 2), server.address)).collect();
    let healthz = get(&server, "/healthz");
    assert!(healthz.starts_with("HTTP/1.1 200 OK"), "{healthz}");
}

/// The program asks a server that it does not share a process with, whatever address that listens on.
#[test]
fn health_asks_a_running_server() {
    let health = |folder: &Folder, settings: &[(&str, &str)]| {
        let output = folder.tinychat(&["health"]).envs(settings).run();
        (output.status, output.stdout + &output.stderr)
    };
    let healthy = (Some(0), "healthy\n".to_owned());
    for (host, use_ssl) in
        [("127.0.0.1", "false"), ("0.0.0.0", "false"), ("localhost", "false"), ("127.0.0.1", "true")]
    {
        let folder = Folder::new();
        folder.tinychat(&["generate-certs"]).run();
        let settings = [("HOST", host), ("USE_SSL", use_ssl)];
        let reserved = ReservedPort::new();
        let port = reserved.number.to_string();
        let asked = [&settings[..], &[("PORT", &port)]].concat();
        let server = folder.tinychat(&[]).envs(&asked).start();
        assert_eq!(health(&folder, &asked), healthy, "{host} {use_ssl}");
        server.stop();
        let (status, output) = health(&folder, &asked);
        assert_eq!(status, Some(1));
        assert!(output.contains(&format!(":{port}/healthz does not answer")), "{output}");
    }

    // Without its certificate the server has fallen back to plaintext.
    let folder = Folder::new();
    let server = folder.tinychat(&["--port", "0", "--use-ssl"]).start();
    let port = server.address.port().to_string();
    let asked = [("USE_SSL", "true"), ("PORT", &*port)];
    assert_eq!(health(&folder, &asked), healthy);

    let (status, output) = health(&folder, &[("PORT", "0")]);
    assert!(status == Some(1) && output.contains("set it with --port"), "{output}");
    let (status, output) = health(&folder, &[("PORT", "many")]);
    assert!(status == Some(2) && output.contains("PORT=\"many\""), "{output}");
}

/// `tinychat health` asks without TLS. Only this machine is told, and only of the health.
#[test]
fn a_server_with_tls_says_in_a_header_whether_it_is_healthy() {
    let plain = |server: &TestServer, source: [u8; 4], request: &str| {
        let mut socket = connect_from(source.into(), server.address);
        socket.write_all(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        String::from_utf8(read_until_closed(&mut socket)).unwrap()
    };
    let local = [127, 0, 0, 1];
    let server = TestServer::start(Transport::Wss);
    let assert_healthy = |response: &str| {
        assert!(
            response.starts_with("HTTP/1.1 400 ") && response.contains("This port speaks TLS"),
            "{response}"
        );
        assert!(response.contains("\r\nX-Tinychat-Health: 200 OK\r\n"), "{response}");
    };
    assert_healthy(&plain(&server, local, "GET /healthz"));
    for (source, request) in
        [([127, 0, 0, 2], "GET /healthz"), (local, "GET /metrics"), (local, "GET /"), (local, "G")]
    {
        let response = plain(&server, source, request);
        assert!(
            response.starts_with("HTTP/1.1 400 ") && response.contains("This port speaks TLS"),
            "{response}"
        );
        assert!(!response.contains("Health"), "{response}");
    }
    let full = TestServer::with(Transport::Wss, &[("MAX_CONNECTIONS", "1")]);
    let _ann = full.join("Ann");
    assert_healthy(&plain(&full, local, "GET /healthz"));
}

#[test]
fn a_server_that_answers_with_an_error_or_not_at_all_is_unhealthy() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let folder = Folder::new();
    let answers = thread::spawn(move || {
        let responses =
            ["HTTP/1.1 503 Service Unavailable\r\n\r\nThe hub does not respond.\n\u{1b}", "", "HTTP/1.1 200"];
        for response in responses {
            let mut socket = listener.accept().unwrap().0;
            let _ = socket.read(&mut [0; 1024]);
            socket.write_all(response.as_bytes()).unwrap();
        }
        let silent = listener.accept();
        thread::sleep(TIMEOUT / 2);
        drop(silent);
    });
    for reason in [
        "answers: 503 Service Unavailable: The hub does not respond.\\n\\u{1b}\n",
        "does not answer",
        "answers: 200: \n",
        "no answer within 5 seconds",
    ] {
        let output = folder.tinychat(&["health", "--port", &port]).run();
        assert!(output.status == Some(1) && output.stderr.contains(reason), "{reason}: {output:?}");
    }
    drop(answers);
}

/// A connection from another address of this machine.
fn connect_from(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    rustix::net::connect(&socket, &server).unwrap();
    socket.into()
}

fn metrics_count_what_happens(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob, mut guest) = (server.join("Ann"), server.join("Bob"), server.connect());
    bob.public("hello");
    assert_eq!((ann.next_line(), ann.next_line()), ("system: Bob joined.".into(), "Bob: hello".into()));
    guest.send_text("nonsense");
    assert!(guest.next_line().starts_with("error: "));
    let mut cid = server.join("Cid");
    cid.socket.send(Message::text("x".repeat(20_000))).unwrap();
    cid.close_code();
    assert_eq!(
        (ann.next_line(), ann.next_line()),
        ("system: Cid joined.".into(), "system: Cid left.".into())
    );
    let metrics = metrics(&server);
    let value = |name: &str| metrics.get(name).copied().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(value("tinychat_members"), 2.0);
    assert_eq!(value("tinychat_connections{state=\"joined\"}"), 2.0);
    assert_eq!(value("tinychat_connections{state=\"connected\"}"), 1.0);
    assert!(value("tinychat_connections{state=\"handshake\"}") >= 1.0, "this request is one");
    assert_eq!(value("tinychat_messages_received_total{type=\"join\"}"), 3.0);
    assert_eq!(value("tinychat_messages_received_total{type=\"public\"}"), 1.0);
    assert_eq!(value("tinychat_messages_received_total{type=\"error\"}"), 1.0);
    assert_eq!(value("tinychat_cut_off_total{reason=\"broke_protocol\"}"), 1.0);
    assert!(value("tinychat_deliveries_total") >= 10.0);
    assert!(value("tinychat_sent_bytes_total") > 500.0 && value("tinychat_received_bytes_total") > 100.0);
    assert!(value("tinychat_hub_batches_total") <= value("tinychat_hub_events_total"));
    assert!(value("tinychat_uptime_seconds") > 0.0);
    assert_eq!(
        metrics.contains_key("tinychat_certificate_expiry_timestamp_seconds"),
        transport == Transport::Wss
    );
}

fn metrics_are_refused_to_other_addresses(transport: Transport) {
    let settings = [("TRUSTED_PROXIES", "127.0.0.0/8"), ("METRICS_ALLOW", "192.0.2.0/24, 2001:db8::1")];
    let server = TestServer::with(transport, &settings);
    let status = |path: &str, forwarded: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n");
        request(&server, &head).split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("/metrics", "X-Forwarded-For: 192.0.2.9\r\n"), "200");
    assert_eq!(status("/metrics", "X-Forwarded-For: 198.51.100.1\r\n"), "403");
    assert_eq!(status("/metrics", "X-Forwarded-For: nonsense\r\n"), "403");
    assert_eq!(status("/metrics", "X-Forwarded-For: 127.0.0.1\r\n"), "403", "forwarded, so not local");
    assert_eq!(status("/metrics", ""), "200", "local");
    assert_eq!(status("/metrics", "X-Real-IP: 198.51.100.1\r\n"), "403", "from a proxy, so not local");
    assert_eq!(status("/healthz", "X-Forwarded-For: 198.51.100.1\r\n"), "200");
}

/// Neither setting once matched a network that was written as IPv4-mapped IPv6.
#[test]
fn networks_may_be_written_as_ipv4_mapped_ipv6() {
    let settings = [("TRUSTED_PROXIES", "::ffff:127.0.0.0/104"), ("METRICS_ALLOW", "::ffff:10.0.0.0/104")];
    let server = TestServer::with(Transport::Ws, &settings);
    let status = |client: &str| {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n");
        request(&server, &head).split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("10.9.8.7"), "200");
    assert_eq!(status("11.0.0.1"), "403");
}

/// The samples by their names with labels.
fn metrics(server: &TestServer) -> HashMap<String, f64> {
    let response = get(server, "/metrics");
    let (head, page) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let sample =
        |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    samples.map(|line| sample(line).unwrap()).collect()
}
