//! The limits (docs/protocol.md and docs/configuration.md): what happens to a client that exceeds one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::support::client::{Client, TIMEOUT, connect};
use crate::support::http::{request, upgrade, upgrade_request};
use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

over_ws_and_wss! {
    a_message_over_the_limit_closes_with_1009,
    fragments_over_the_limit_close_with_1009,
    a_sender_over_the_rate_is_slowed_down_and_loses_nothing,
    messages_over_the_rate_are_delivered_after_the_client_is_gone,
    a_server_at_max_connections_refuses_until_one_ends,
    an_address_behind_a_proxy_has_a_limit_of_its_own,
    a_handshake_that_takes_too_long_is_closed,
    a_client_that_answers_no_ping_is_cut_off,
    a_client_that_stops_reading_is_cut_off,
    a_new_member_is_not_cut_off_by_its_own_list,
    five_wrong_passwords_block_logins_from_an_address,
}

fn a_message_over_the_limit_closes_with_1009(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_MESSAGE_BYTES", "1000")]);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    let longest = "x".repeat(1000 - public("").len());
    bob.send_text(&public(&longest));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), format!("Bob: {longest}"));
    bob.send_text(&public(&format!("{longest}x")));
    assert_eq!(bob.close_code(), Some(CloseCode::Size));
    assert_eq!(ann.next_line(), "system: Bob left.");
    // The close frame arrives although the client has sent more than the server reads.
    let mut cid = server.join("Cid");
    let _ = cid.socket.send(Message::text("x".repeat(1024 * 1024)));
    assert_eq!(cid.close_code(), Some(CloseCode::Size));
}

fn fragments_over_the_limit_close_with_1009(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_MESSAGE_BYTES", "1000")]);
    let mut bob = server.join("Bob");
    for kind in [Data::Text, Data::Continue, Data::Continue] {
        let frame = Frame::message(vec![b'x'; 400], OpCode::Data(kind), false);
        let _ = bob.socket.send(Message::Frame(frame));
    }
    assert_eq!(bob.close_code(), Some(CloseCode::Size));
}

fn a_sender_over_the_rate_is_slowed_down_and_loses_nothing(transport: Transport) {
    let (rate, burst, messages) = (50, 10, 40);
    let settings = [("MESSAGE_RATE", &*rate.to_string()), ("MESSAGE_BURST", &*burst.to_string())];
    let server = TestServer::with(transport, &settings);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    let start = Instant::now();
    (0..messages).for_each(|number| bob.public(&number.to_string()));
    for number in 0..messages {
        assert_eq!(ann.next_line(), format!("Bob: {number}"));
    }
    // All but the burst have waited, even if the bucket was full again after the join.
    let least = Duration::from_secs_f64(f64::from(messages - burst) / f64::from(rate));
    assert!(start.elapsed() >= least, "{:?}", start.elapsed());
}

fn messages_over_the_rate_are_delivered_after_the_client_is_gone(transport: Transport) {
    let server = TestServer::with(transport, &[("MESSAGE_RATE", "10"), ("MESSAGE_BURST", "5")]);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    // Bob does not read this, so that his system resets the connection when he closes it.
    ann.public("unread");
    // In one write: of several, the reset might discard the last.
    for number in 0..20 {
        bob.socket.write(Message::text(public(&number.to_string()))).unwrap();
    }
    bob.socket.flush().unwrap();
    drop(bob);
    for number in 0..20 {
        assert_eq!(ann.next_line(), format!("Bob: {number}"));
    }
    assert_eq!(ann.next_line(), "system: Bob left.");
}

fn a_server_at_max_connections_refuses_until_one_ends(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_CONNECTIONS", "2")]);
    let (mut ann, bob) = (server.join("Ann"), server.join("Bob"));
    let response = request(&server, &upgrade_request(""));
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("MAX_CONNECTIONS"), "{response}");
    bob.leave();
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "system: Bob left.");
    // Bob's thread may still be closing his connection, and holds its permit until it has.
    let start = Instant::now();
    while !upgrade(&server, "").0.contains(" 101 ") {
        assert!(start.elapsed() < TIMEOUT, "the permit is not released");
    }
}

fn an_address_behind_a_proxy_has_a_limit_of_its_own(transport: Transport) {
    let settings = [("MAX_CONNECTIONS_PER_IP", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let server = TestServer::with(transport, &settings);
    let (head, _held) = upgrade(&server, "X-Forwarded-For: 192.0.2.1\r\n");
    assert!(head.contains(" 101 "), "{head}");
    // Only the last address is the proxy's. What the client puts before it neither counts nor hides it.
    for forged in ["192.0.2.7, 192.0.2.1", "é, 192.0.2.1", "nonsense,192.0.2.1:4711"] {
        let response = request(&server, &upgrade_request(&format!("X-Forwarded-For: {forged}\r\n")));
        assert!(
            response.starts_with("HTTP/1.1 503 ") && response.contains("MAX_CONNECTIONS_PER_IP"),
            "{forged}: {response}"
        );
    }
    // An address at its limit can still ask whether the server is healthy.
    let healthz = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    assert!(request(&server, healthz).starts_with("HTTP/1.1 200 OK"));
    let (head, _other) = upgrade(&server, "X-Forwarded-For: 192.0.2.2\r\n");
    assert!(head.contains(" 101 "), "{head}");
}

fn a_handshake_that_takes_too_long_is_closed(transport: Transport) {
    let server = TestServer::with(transport, &[("HANDSHAKE_TIMEOUT", "1")]);
    // A byte at a time: over wss of a TLS handshake, over ws of a request. Neither is ever complete.
    let first_bytes: &[u8] = match transport {
        Transport::Ws => b"GET / HTTP/1.1\r\nX: ",
        Transport::Wss => b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03",
    };
    let start = Instant::now();
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    for &byte in first_bytes.iter().chain(std::iter::repeat(&b'x')) {
        if socket.write_all(&[byte]).is_err() {
            break;
        }
        match socket.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => break,
        }
        assert!(start.elapsed() < TIMEOUT, "the connection stays open");
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "closed too early");
    let mut silent = connect(server.address);
    assert!(matches!(silent.read(&mut [0; 1]), Ok(0)), "a client that sends nothing is closed as well");
}

fn a_client_that_answers_no_ping_is_cut_off(transport: Transport) {
    let server = TestServer::with(transport, &[("PING_INTERVAL", "3")]);
    let mut ann = server.join("Ann");
    // Nobody reads from Bob's socket, so his client answers no ping. Ann's does while she waits.
    let _bob = server.join("Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "system: Bob left.");
    ann.assert_nothing_received();
}

/// A client was once cut off in the middle of a long message, where it cannot answer a ping.
#[test]
fn a_long_message_on_a_slow_connection_is_not_silence() {
    let settings = [("PING_INTERVAL", "2"), ("MAX_MESSAGE_BYTES", "100000")];
    let server = TestServer::with(Transport::Ws, &settings);
    let mut bob = server.join("Bob");
    let text = public(&"x".repeat(60_000));
    let head = [&[0x81, 0x80 | 127][..], &(text.len() as u64).to_be_bytes(), &[0; 4]].concat();
    let frame = [&head, text.as_bytes()].concat();
    let mut socket = bob.socket.get_ref().tcp();
    for bytes in frame.chunks(1000) {
        socket.write_all(bytes).unwrap();
        // Six seconds in all, which is longer than a ping and its timeout.
        std::thread::sleep(Duration::from_millis(100));
    }
    bob.assert_nothing_received();
}

fn a_client_that_stops_reading_is_cut_off(transport: Transport) {
    let server = TestServer::with(transport, &[("SEND_QUEUE_BYTES", "65536")]);
    let (mut ann, mut cid) = (server.join("Ann"), server.join("Cid"));
    let _stuck = server.join("Stuck");
    assert_eq!(ann.next_line(), "system: Cid joined.");
    let long = "x".repeat(15_000);
    // These fill the socket buffers of Stuck's connection, then its queue, and delay nobody else.
    for number in 0.. {
        assert!(number < 100_000, "nobody is cut off");
        ann.public(&long);
        let line = cid.next_line();
        if line == "system: Stuck left." {
            break;
        }
        assert!(line == format!("Ann: {long}") || line == "system: Stuck joined.", "{line}");
    }
    ann.wait_for_users(&["Ann", "Cid"]);
}

/// A list of 113 KB once did, where SEND_QUEUE_BYTES was 16 KB and the member was on a slow line.
fn a_new_member_is_not_cut_off_by_its_own_list(transport: Transport) {
    // Their list is longer than what the systems and TLS hold for a client that does not read.
    const MEMBERS: usize = 700;
    let settings = [("SEND_QUEUE_BYTES", "4096"), ("MAX_MESSAGE_BYTES", "1024")];
    let server = TestServer::with(transport, &settings);
    let _members = members(&server, MEMBERS);
    let mut ann = server.join("Ann");
    let mut bob = server.connect_narrow();
    bob.join("Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    // The answer comes after Bob was sent everything so far, as far as he accepts it.
    ann.assert_nothing_received();
    ann.public("hello");
    assert_eq!(bob.next_event()["type"], "command_list");
    assert_eq!(bob.users.len(), MEMBERS + 2);
    assert_eq!((bob.next_line(), bob.next_line()), ("system: Bob joined.".into(), "Ann: hello".into()));
}

/// Has so many members join, with names that take as many bytes as a name can.
fn members(server: &TestServer, count: usize) -> Vec<Client> {
    const THREADS: usize = 20;
    std::thread::scope(|scope| {
        let members = |first| {
            let name = |number| format!("{number:04}{}", "\u{1F980}".repeat(28));
            (first..count).step_by(THREADS).map(|number| server.join(&name(number))).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || members(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Empty fragments once did not count toward the rate limit, so a few clients could occupy the server.
#[test]
fn endless_fragments_are_read_no_faster_than_messages() {
    let server = TestServer::with(Transport::Ws, &[("MESSAGE_RATE", "1"), ("MESSAGE_BURST", "1")]);
    let mut sender = server.connect();
    sender.socket.get_ref().tcp().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let first = Frame::message("x", OpCode::Data(Data::Text), false);
    sender.socket.send(Message::Frame(first)).unwrap();
    let empty_fragment = [0x00, 0x80, 0, 0, 0, 0];
    let fragments = empty_fragment.repeat(8192);
    // Socket buffers take some of them. They can take more only if the server keeps reading.
    let mut sent = 0;
    while sender.socket.get_mut().write_all(&fragments).is_ok() {
        sent += fragments.len();
        assert!(sent < 256 * 1024 * 1024, "the server reads endless fragments");
    }
}

fn five_wrong_passwords_block_logins_from_an_address(transport: Transport) {
    let server = TestServer::with(transport, &[("TRUSTED_PROXIES", "127.0.0.1")]);
    let join_from = |address: &str, name: &str| {
        let mut client = server.connect_from(address);
        client.join_and_wait(name);
        client
    };
    let mut eve = join_from("2001:db8::1", "Eve");
    for _ in 0..5 {
        eve.command("/login guess");
        assert_eq!(eve.next_line(), "error: Wrong password.");
    }
    // The right password, on another connection from the same /64.
    let mut mallory = join_from("2001:db8::2", "Mallory");
    mallory.command("/login secret");
    assert!(mallory.next_line().starts_with("error: Too many wrong passwords: wait "));
    let mut ann = join_from("2001:db8:0:1::1", "Ann");
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
}

fn public(content: &str) -> String {
    json!({"type": "public", "content": content}).to_string()
}
