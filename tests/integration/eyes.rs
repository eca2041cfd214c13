//! `/healthz` and `/metrics`, over http and https.

use std::collections::HashMap;

use tungstenite::Message;

use crate::conversations::over_ws_and_wss;
use crate::limits::{request, until_head_end, upgrade_request};
use crate::server::{TestServer, Transport};

over_ws_and_wss! {
    a_server_that_is_well_says_so,
    what_happens_is_counted,
    strangers_read_no_metrics,
}

/// Whoever restarts what is not well must not restart what is merely full.
#[test]
fn a_full_server_is_well() {
    let server = TestServer::with(Transport::Ws, &[("MAX_CONNECTIONS", "1")]);
    let _ann = server.join("Ann");
    let healthz = request(&server, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(healthz.starts_with("HTTP/1.1 200 OK"), "{healthz}");
    assert!(request(&server, &upgrade_request("")).starts_with("HTTP/1.1 503 "));
    assert_eq!(metrics(&server)["tinychat_refused_total{reason=\"server_full\"}"], 3.0);
}

fn a_server_that_is_well_says_so(transport: Transport) {
    let server = TestServer::start(transport);
    let answer = request(&server, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nThe chat is well.\n"),
        "{answer}"
    );
    let head = request(&server, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // A WebSocket may have any path, these too.
    let mut stream = crate::client::ClientStream::connect(server.address, transport);
    std::io::Write::write_all(&mut stream, upgrade_request("").replace("GET /", "GET /metrics").as_bytes())
        .unwrap();
    assert!(until_head_end(&mut stream).contains(" 101 "));
}

fn what_happens_is_counted(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob, mut guest) = (server.join("Ann"), server.join("Bob"), server.connect());
    bob.public("hello");
    assert_eq!((ann.hears(), ann.hears()), ("system: Bob joined.".into(), "Bob: hello".into()));
    guest.send_text("nonsense");
    assert!(guest.hears().starts_with("error: "));
    // A broken frame is told with a close code.
    let mut cid = server.join("Cid");
    cid.socket.send(Message::text("x".repeat(20_000))).unwrap();
    cid.close_code();
    assert_eq!((ann.hears(), ann.hears()), ("system: Cid joined.".into(), "system: Cid left.".into()));
    let metrics = metrics(&server);
    let is = |name: &str| metrics.get(name).copied().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(is("tinychat_members"), 2.0);
    assert_eq!(is("tinychat_connections{state=\"joined\"}"), 2.0);
    assert_eq!(is("tinychat_connections{state=\"connected\"}"), 1.0);
    assert!(is("tinychat_connections{state=\"handshake\"}") >= 1.0, "the one that asks");
    assert_eq!(is("tinychat_messages_received_total{type=\"join\"}"), 3.0);
    assert_eq!(is("tinychat_messages_received_total{type=\"public\"}"), 1.0);
    assert_eq!(is("tinychat_messages_received_total{type=\"error\"}"), 1.0);
    assert_eq!(is("tinychat_cut_off_total{reason=\"broke_protocol\"}"), 1.0);
    assert!(is("tinychat_deliveries_total") >= 10.0);
    assert!(is("tinychat_sent_bytes_total") > 500.0 && is("tinychat_received_bytes_total") > 100.0);
    assert!(is("tinychat_hub_batches_total") <= is("tinychat_hub_events_total"));
    assert!(is("tinychat_uptime_seconds") > 0.0);
    assert_eq!(
        metrics.contains_key("tinychat_certificate_expiry_timestamp_seconds"),
        transport == Transport::Wss
    );
}

fn strangers_read_no_metrics(transport: Transport) {
    let settings = [("TRUSTED_PROXIES", "127.0.0.0/8"), ("METRICS_ALLOW", "192.0.2.0/24, 2001:db8::1")];
    let server = TestServer::with(transport, &settings);
    let get = |path: &str, forwarded: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n");
        request(&server, &head).split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(get("/metrics", "X-Forwarded-For: 192.0.2.9\r\n"), "200");
    assert_eq!(get("/metrics", "X-Forwarded-For: 198.51.100.1\r\n"), "403");
    assert_eq!(get("/metrics", "X-Forwarded-For: nonsense\r\n"), "403");
    assert_eq!(get("/metrics", "X-Forwarded-For: 127.0.0.1\r\n"), "403", "nobody is local who was forwarded");
    assert_eq!(get("/metrics", ""), "200", "but whoever asks from this machine is");
    assert_eq!(get("/healthz", "X-Forwarded-For: 198.51.100.1\r\n"), "200");
}

/// Each sample by its name, labels and all.
fn metrics(server: &TestServer) -> HashMap<String, f64> {
    let answer = request(server, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let sample =
        |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    samples.map(|line| sample(line).unwrap()).collect()
}
