//! The rates (docs/configuration.md): how fast one connection, and one address, may connect, join and send.
//!
//! Loopback is exempt from what is limited per address, so these clients come through a trusted proxy.

use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::support::client::Client;
use crate::support::http::upgrade;
use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

const PROXY: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");
const CLIENT: &str = "192.0.2.1";
const OTHER_CLIENT: &str = "192.0.2.2";

over_ws_and_wss! {
    a_message_counts_once_per_kib,
    reconnecting_does_not_renew_the_burst,
    joins_over_the_rate_wait,
    handshakes_over_the_rate_wait,
    clients_over_their_limit_behind_a_proxy_hold_no_connections,
    a_client_that_has_disconnected_keeps_its_name_for_ten_seconds_at_most,
    a_message_that_is_not_completed_closes_with_1008,
}

/// A burst was once counted in messages only: 20 messages of 16 KiB each were delivered at once.
fn a_message_counts_once_per_kib(transport: Transport) {
    let (rate, burst) = (50, 16);
    let server = TestServer::with(
        transport,
        &[("MESSAGE_RATE", &rate.to_string()), ("MESSAGE_BURST", &burst.to_string())],
    );
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    let start = Instant::now();
    // With the rest of the message, 15 KiB and a part of another.
    let content = "x".repeat(15 * 1024);
    for _ in 0..4 {
        bob.public(&content);
    }
    for _ in 0..4 {
        assert_eq!(ann.next_line(), format!("Bob: {content}"));
    }
    assert_waited(start, 4 * 16 - burst, rate);
}

/// The rates once started anew with each connection.
fn reconnecting_does_not_renew_the_burst(transport: Transport) {
    let (rate, burst, connections, messages) = (20, 10, 5, 5);
    let (rate_text, burst_text) = (rate.to_string(), burst.to_string());
    let settings =
        [PROXY, ("MESSAGE_RATE", &rate_text), ("MESSAGE_BURST", &burst_text), ("MAX_SENDERS_PER_IP", "1")];
    let server = TestServer::with(transport, &settings);
    let mut ann = join_from(&server, OTHER_CLIENT, "Ann");
    let start = Instant::now();
    for number in 0..connections {
        let name = format!("Bob {number}");
        let mut bob = join_from(&server, CLIENT, &name);
        assert_eq!(ann.next_line(), format!("system: {name} joined."));
        for message in 0..messages {
            bob.public(&message.to_string());
            assert_eq!(ann.next_line(), format!("{name}: {message}"));
        }
        bob.leave();
        assert_eq!(ann.next_line(), format!("system: {name} left."));
    }
    // The joins and the closes count as well.
    assert_waited(start, connections * (messages + 1) - burst, rate);
}

fn joins_over_the_rate_wait(transport: Transport) {
    let (rate, burst, joins) = (5, 2, 6);
    let settings = [PROXY, ("JOIN_RATE", "5"), ("MAX_CONNECTIONS_PER_IP", "2")];
    let server = TestServer::with(transport, &settings);
    let mut ann = join_from(&server, OTHER_CLIENT, "Ann");
    let start = Instant::now();
    for number in 0..joins {
        let name = format!("Bob {number}");
        join_from(&server, CLIENT, &name).leave();
        assert_eq!(ann.next_line(), format!("system: {name} joined."));
        assert_eq!(ann.next_line(), format!("system: {name} left."));
    }
    assert_waited(start, joins - burst, rate);
}

fn handshakes_over_the_rate_wait(transport: Transport) {
    let (rate, per_ip, handshakes) = (10, 2, 14);
    let settings = [PROXY, ("CONNECT_RATE", "10"), ("MAX_CONNECTIONS_PER_IP", "2")];
    let server = TestServer::with(transport, &settings);
    let start = Instant::now();
    for _ in 0..handshakes {
        // Until the permit of the previous connection has been released, the response is a 503, which does not count.
        while upgrade_from(&server, CLIENT) == 503 {}
    }
    assert_waited(start, handshakes - 4 * per_ip, rate);
}

/// They once held connections while they waited for the rate, and were then refused. A few at a time get a response, at
/// the rate, and the others are closed.
fn clients_over_their_limit_behind_a_proxy_hold_no_connections(transport: Transport) {
    let settings = [PROXY, ("CONNECT_RATE", "20"), ("MAX_CONNECTIONS_PER_IP", "1")];
    let server = TestServer::with(transport, &settings);
    let _bob = join_from(&server, CLIENT, "Bob");
    let headers = format!("X-Forwarded-For: {CLIENT}\r\n");
    let heads: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..80).map(|_| scope.spawn(|| upgrade(&server, &headers).0)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (closed, refused): (Vec<_>, Vec<_>) = heads.iter().partition(|head| head.is_empty());
    assert!(refused.iter().all(|head| head.starts_with("HTTP/1.1 503 ")), "{refused:?}");
    assert!(!refused.is_empty() && !closed.is_empty(), "{} refused, {} closed", refused.len(), closed.len());
    join_from(&server, "203.0.113.77", "Ann");
}

/// The ten seconds once started again with each message, so the name was taken until all of them had been read.
fn a_client_that_has_disconnected_keeps_its_name_for_ten_seconds_at_most(transport: Transport) {
    let server = TestServer::with(transport, &[("MESSAGE_RATE", "1"), ("MESSAGE_BURST", "5")]);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    // Bob does not read this, so the system resets the connection when it is closed.
    ann.public("unread");
    let messages = 200;
    for number in 0..messages {
        let message = json!({"type": "public", "content": number.to_string()});
        bob.socket.write(Message::text(message.to_string())).unwrap();
    }
    bob.socket.flush().unwrap();
    drop(bob);
    let received = (0..messages).take_while(|_| ann.next_line() != "system: Bob left.").count();
    // A burst, ten seconds at one per second, and slack for a busy machine.
    assert!(received < messages / 2, "{received} messages");
}

fn a_message_that_is_not_completed_closes_with_1008(transport: Transport) {
    // It also applies to the clients' handshakes, which take longer on a busy machine.
    let server = TestServer::with(transport, &[("HANDSHAKE_TIMEOUT", "3")]);
    for has_pings in [false, true] {
        let mut bob = server.join("Bob");
        let first = Frame::message("{", OpCode::Data(Data::Text), false);
        bob.socket.send(Message::Frame(first)).unwrap();
        if has_pings {
            // Bytes that belong to no message do not extend the time.
            bob.socket.send(Message::Ping(Default::default())).unwrap();
        }
        assert_eq!(bob.close_code(), Some(CloseCode::Policy));
    }
    let mut ann = server.join("Ann");
    ann.assert_nothing_received();
}

/// Asserts that this many messages (or other actions) beyond the burst have waited for the rate.
fn assert_waited(start: Instant, excess: u32, per_second: u32) {
    let least = Duration::from_secs_f64(f64::from(excess) / f64::from(per_second));
    assert!(start.elapsed() >= least, "{:?} instead of {least:?}", start.elapsed());
}

/// The status of the response to an upgrade request from this address.
fn upgrade_from(server: &TestServer, address: &str) -> u16 {
    let (head, _) = upgrade(server, &format!("X-Forwarded-For: {address}\r\n"));
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head:?}"))
}

fn join_from(server: &TestServer, address: &str, name: &str) -> Client {
    let mut client = server.connect_from(address);
    client.join_and_wait(name);
    client
}
