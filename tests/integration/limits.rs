//! SPEC.md, "Limits, as clients meet them", and what else a client must not do. Each limit is gone over.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Bytes, Message};

use crate::client::{Client, ClientStream};
use crate::conversations::over_ws_and_wss;
use crate::server::{TestServer, Transport};

over_ws_and_wss! {
    a_message_may_be_as_long_as_the_limit_and_no_longer,
    a_long_message_in_fragments_is_too_long_all_the_same,
    broken_framing_ends_the_connection,
    text_that_is_not_utf8_ends_the_connection,
    who_sends_too_fast_is_slowed_and_loses_nothing,
    a_full_server_takes_nobody_until_somebody_leaves,
    an_address_behind_a_proxy_has_its_own_bound,
    a_handshake_that_drips_is_closed,
    silence_is_pinged_and_the_dead_are_gone,
    who_takes_nothing_is_cut_off_and_holds_up_nobody,
    pages_from_elsewhere_may_not_connect,
    five_wrong_passwords_and_the_address_waits,
    a_stop_says_goodbye_to_everybody,
    other_requests_get_an_answer,
    bytes_that_are_nothing_end_the_connection,
    a_client_that_only_sends_the_end_of_its_stream_is_gone,
    a_long_message_arrives_whole,
    what_was_said_too_fast_is_heard_when_the_client_has_gone,
}

fn public(content: &str) -> String {
    json!({"type": "public", "content": content}).to_string()
}

fn a_message_may_be_as_long_as_the_limit_and_no_longer(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_MESSAGE_BYTES", "1000")]);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    let longest = "x".repeat(1000 - public("").len());
    bob.send_text(&public(&longest));
    assert_eq!(ann.hears(), "system: Bob joined.");
    assert_eq!(ann.hears(), format!("Bob: {longest}"));
    bob.send_text(&public(&format!("{longest}x")));
    assert_eq!(bob.close_code(), Some(CloseCode::Size));
    assert_eq!(ann.hears(), "system: Bob left.");
    // The code arrives although the client is still sending.
    let mut cid = server.join("Cid");
    let _ = cid.socket.send(Message::text("x".repeat(1024 * 1024)));
    assert_eq!(cid.close_code(), Some(CloseCode::Size));
}

fn a_long_message_in_fragments_is_too_long_all_the_same(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_MESSAGE_BYTES", "1000")]);
    let mut bob = server.join("Bob");
    for kind in [Data::Text, Data::Continue, Data::Continue] {
        let frame = Frame::message(vec![b'x'; 400], OpCode::Data(kind), false);
        let _ = bob.socket.send(Message::Frame(frame));
    }
    assert_eq!(bob.close_code(), Some(CloseCode::Size));
}

fn broken_framing_ends_the_connection(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let masked_hi = [0x80 | 2, 0, 0, 0, 0, b'h', b'i'];
    let frame = |first: u8, rest: &[u8]| [&[first], rest].concat();
    for (what, bytes) in [
        ("a reserved bit", frame(0xC1, &masked_hi)),
        ("a reserved opcode", frame(0x83, &masked_hi)),
        ("no mask", vec![0x81, 2, b'h', b'i']),
        ("a continuation of nothing", frame(0x80, &masked_hi)),
        ("a fragmented ping", frame(0x09, &masked_hi)),
        ("a close code of one byte", frame(0x88, &[0x81, 0, 0, 0, 0, 3])),
    ] {
        let mut bob = server.join("Bob");
        bob.socket.get_mut().write_all(&bytes).unwrap();
        bob.socket.get_mut().flush().unwrap();
        assert_eq!(bob.close_code(), Some(CloseCode::Protocol), "{what}");
        assert_eq!((ann.hears(), ann.hears()), ("system: Bob joined.".into(), "system: Bob left.".into()));
    }
}

fn text_that_is_not_utf8_ends_the_connection(transport: Transport) {
    let server = TestServer::start(transport);
    let mut bob = server.join("Bob");
    let frame = Frame::message(vec![b'"', 0xFF, b'"'], OpCode::Data(Data::Text), true);
    bob.socket.send(Message::Frame(frame)).unwrap();
    assert_eq!(bob.close_code(), Some(CloseCode::Invalid));
}

fn who_sends_too_fast_is_slowed_and_loses_nothing(transport: Transport) {
    const SENT: u32 = 40;
    let server = TestServer::with(transport, &[("MESSAGE_RATE", "50"), ("MESSAGE_BURST", "10")]);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.hears(), "system: Bob joined.");
    let start = Instant::now();
    (0..SENT).for_each(|number| bob.public(&number.to_string()));
    for number in 0..SENT {
        assert_eq!(ann.hears(), format!("Bob: {number}"));
    }
    // The join was one of the burst. No machine is so slow that this comes too early.
    let least = Duration::from_secs_f64(f64::from(SENT + 1 - 10) / 50.0) - Duration::from_millis(20);
    assert!(start.elapsed() >= least, "{:?}", start.elapsed());
}

fn a_full_server_takes_nobody_until_somebody_leaves(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_CONNECTIONS", "2")]);
    let (mut ann, bob) = (server.join("Ann"), server.join("Bob"));
    match transport {
        Transport::Ws => {
            let answer = request(&server, &upgrade_request(""));
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("MAX_CONNECTIONS"), "{answer}");
        }
        Transport::Wss => {
            let mut stream = ClientStream::connect(server.address, transport);
            let _ = stream.write_all(upgrade_request("").as_bytes());
            assert_eq!(until_head_end(&mut stream), "", "closed before the handshake");
        }
    }
    bob.leave();
    assert_eq!(ann.hears(), "system: Bob joined.");
    assert_eq!(ann.hears(), "system: Bob left.");
    // Bob's thread still has its last bytes to send: the place is free soon after.
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < crate::client::HANG, "the place is not free again");
        let mut stream = ClientStream::connect(server.address, transport);
        if stream.write_all(upgrade_request("").as_bytes()).is_ok()
            && until_head_end(&mut stream).contains(" 101 ")
        {
            break;
        }
    }
}

fn an_address_behind_a_proxy_has_its_own_bound(transport: Transport) {
    let settings = [("MAX_CONNECTIONS_PER_IP", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let server = TestServer::with(transport, &settings);
    let mut held = ClientStream::connect(server.address, transport);
    held.write_all(upgrade_request("X-Forwarded-For: 192.0.2.1\r\n").as_bytes()).unwrap();
    assert!(until_head_end(&mut held).contains(" 101 "));
    // What the client itself puts on the left is not believed, nor does it hide what the proxy has added.
    for forged in ["192.0.2.7, 192.0.2.1", "é, 192.0.2.1", "nonsense,192.0.2.1:4711"] {
        let again = request(&server, &upgrade_request(&format!("X-Forwarded-For: {forged}\r\n")));
        assert!(again.starts_with("HTTP/1.1 503 ") && again.contains("MAX_CONNECTIONS_PER_IP"), "{again}");
    }
    let mut other = ClientStream::connect(server.address, transport);
    other.write_all(upgrade_request("X-Forwarded-For: 192.0.2.2\r\n").as_bytes()).unwrap();
    assert!(until_head_end(&mut other).contains(" 101 "));
}

fn a_handshake_that_drips_is_closed(transport: Transport) {
    let server = TestServer::with(transport, &[("HANDSHAKE_TIMEOUT", "1")]);
    // Over wss the first drips are TLS's; over ws they are the request's. Neither ends.
    let mut socket = std::net::TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let drips: &[u8] = match transport {
        Transport::Ws => b"GET / HTTP/1.1\r\nX: ",
        Transport::Wss => b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03",
    };
    let start = Instant::now();
    for &drip in drips.iter().chain(std::iter::repeat(&b'x')) {
        if socket.write_all(&[drip]).is_err() {
            break;
        }
        match socket.read(&mut [0; 64]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
        assert!(start.elapsed() < crate::client::HANG, "a handshake went on for ever");
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "closed too early");
    // Nothing said at all is no better.
    let mut silent = std::net::TcpStream::connect(server.address).unwrap();
    silent.set_read_timeout(Some(crate::client::HANG)).unwrap();
    assert!(matches!(silent.read(&mut [0; 1]), Ok(0)));
}

fn silence_is_pinged_and_the_dead_are_gone(transport: Transport) {
    let server = TestServer::with(transport, &[("PING_INTERVAL", "3")]);
    let mut ann = server.join("Ann");
    // Bob's client reads nothing, and so answers no ping.
    let _bob = server.join("Bob");
    assert_eq!(ann.hears(), "system: Bob joined.");
    // Ann's client answers pings while it waits.
    assert_eq!(ann.hears(), "system: Bob left.");
    ann.hears_nothing();
}

fn who_takes_nothing_is_cut_off_and_holds_up_nobody(transport: Transport) {
    let server = TestServer::with(transport, &[("SEND_QUEUE_BYTES", "65536")]);
    let (mut ann, mut cid) = (server.join("Ann"), server.join("Cid"));
    let _stuck = server.join("Stuck");
    assert_eq!(ann.hears(), "system: Cid joined.");
    let long = "x".repeat(15_000);
    // What the system itself holds for Stuck is filled first; then its queue; then it is gone.
    for number in 0.. {
        assert!(number < 100_000, "nobody was cut off");
        ann.public(&long);
        let heard = cid.hears();
        if heard == "system: Stuck left." {
            break;
        }
        assert!(heard == format!("Ann: {long}") || heard == "system: Stuck joined.", "{heard}");
    }
    ann.sees(&["Ann", "Cid"]);
}

fn pages_from_elsewhere_may_not_connect(transport: Transport) {
    let server = TestServer::with(
        transport,
        &[("ALLOWED_ORIGINS", "https://chat.example.com, http://localhost:3000")],
    );
    for (origin, status) in [
        ("Origin: https://chat.example.com\r\n", " 101 "),
        ("Origin: HTTP://LOCALHOST:3000\r\n", " 101 "),
        ("", " 101 "),
        ("Origin: https://chat.example.com.evil.example\r\n", " 403 "),
        ("Origin: http://chat.example.com\r\n", " 403 "),
        ("Origin: null\r\n", " 403 "),
    ] {
        let mut stream = ClientStream::connect(server.address, transport);
        stream.write_all(upgrade_request(origin).as_bytes()).unwrap();
        let answer = until_head_end(&mut stream);
        assert!(answer.contains(status), "{origin}: {answer}");
    }
}

fn five_wrong_passwords_and_the_address_waits(transport: Transport) {
    let server = TestServer::with(transport, &[("TRUSTED_PROXIES", "127.0.0.1")]);
    let from = |address: &str, name: &str| {
        let mut request = format!("ws://localhost:{}/", server.address.port()).into_client_request().unwrap();
        request.headers_mut().insert("X-Forwarded-For", address.parse().unwrap());
        let stream = ClientStream::connect(server.address, transport);
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        let mut client = Client { socket, users: Vec::new(), lists: 0 };
        client.join(name);
        assert_eq!(client.next()["type"], "command_list");
        client.next();
        client
    };
    let mut eve = from("2001:db8::1", "Eve");
    for _ in 0..5 {
        eve.command("/login guess");
        assert_eq!(eve.hears(), "error: Wrong password.");
    }
    // Another connection, from the same /64, with the right password.
    let mut mallory = from("2001:db8::2", "Mallory");
    mallory.command("/login secret");
    assert!(mallory.hears().starts_with("error: Too many wrong passwords: wait "));
    let mut ann = from("2001:db8:0:1::1", "Ann");
    ann.command("/login secret");
    assert_eq!(ann.hears(), "system: Ann is now a moderator.");
}

fn a_stop_says_goodbye_to_everybody(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut guest) = (server.join("Ann"), server.connect());
    // Lists are due to go out just then, and must not follow the goodbye.
    let mut bob = server.join("Bob");
    server.stop();
    assert_eq!(bob.close_code(), Some(CloseCode::Away));
    assert_eq!(ann.close_code(), Some(CloseCode::Away));
    assert_eq!(guest.close_code(), Some(CloseCode::Away));
    let address = server.address;
    drop(server);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

fn other_requests_get_an_answer(transport: Transport) {
    let server = TestServer::with(transport, &[("WEB_UI", "false")]);
    let scheme = if transport == Transport::Wss { "wss://" } else { "ws://" };
    let page = request(&server, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
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
    let mut any_path = ClientStream::connect(server.address, transport);
    any_path.write_all(upgrade_request("").replace("GET /", "GET /some/path?x=1").as_bytes()).unwrap();
    assert!(until_head_end(&mut any_path).contains(" 101 "));
}

fn bytes_that_are_nothing_end_the_connection(transport: Transport) {
    let server = TestServer::start(transport);
    // A TLS hello on the plain port, and plain HTTP on the TLS port.
    let mut socket = std::net::TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(crate::client::HANG)).unwrap();
    let mut answer = Vec::new();
    match transport {
        Transport::Ws => {
            socket.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03").unwrap();
            let _ = socket.read_to_end(&mut answer);
            assert_eq!(answer, b"");
        }
        Transport::Wss => {
            socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            socket.read_to_end(&mut answer).unwrap();
            let answer = String::from_utf8(answer).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains("wss:// (or https://)"),
                "{answer}"
            );
        }
    }
    let mut socket = std::net::TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(crate::client::HANG)).unwrap();
    socket.write_all(&[0xFF; 300]).unwrap();
    let _ = socket.read_to_end(&mut Vec::new());
    server.join("Ann").hears_nothing();
}

fn a_client_that_only_sends_the_end_of_its_stream_is_gone(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let bob = server.join("Bob");
    bob.socket.get_ref().tcp().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((ann.hears(), ann.hears()), ("system: Bob joined.".into(), "system: Bob left.".into()));
    // What it said before is heard.
    let mut cid = server.join("Cid");
    cid.public("one last word");
    cid.socket.send(Message::Ping(Bytes::new())).unwrap();
    drop(cid);
    let heard: Vec<String> = (0..3).map(|_| ann.hears()).collect();
    assert_eq!(heard, ["system: Cid joined.", "Cid: one last word", "system: Cid left."]);
}

/// A client on a slow line was once cut off in the middle of a long message, in which it cannot answer a ping.
#[test]
fn a_long_message_on_a_slow_line_is_no_silence() {
    let settings = [("PING_INTERVAL", "2"), ("MAX_MESSAGE_BYTES", "100000")];
    let server = TestServer::with(Transport::Ws, &settings);
    let mut bob = server.join("Bob");
    let text = public(&"x".repeat(60_000));
    let frame =
        [&[0x81, 0x80 | 127][..], &(text.len() as u64).to_be_bytes(), &[0; 4], text.as_bytes()].concat();
    let mut socket = bob.socket.get_ref().tcp();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for part in frame.chunks(1000) {
        socket.write_all(part).unwrap();
        // Waiting for what does not come makes the line slow: six seconds in all.
        let _ = socket.peek(&mut [0; 1]);
    }
    socket.set_read_timeout(Some(crate::client::HANG)).unwrap();
    bob.hears_nothing();
}

/// Empty fragments are no messages, so they once had no rate: a few clients kept everybody waiting.
#[test]
fn parts_without_end_are_read_no_faster_than_messages() {
    let server = TestServer::with(Transport::Ws, &[("MESSAGE_RATE", "1"), ("MESSAGE_BURST", "1")]);
    let mut flooder = server.connect();
    flooder.socket.get_ref().tcp().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let begin = Frame::message("x", OpCode::Data(Data::Text), false);
    flooder.socket.send(Message::Frame(begin)).unwrap();
    let part = [0x00, 0x80, 0, 0, 0, 0];
    let parts = part.repeat(8192);
    // The system takes some for the server. More than that it can only take if the server reads without end.
    let mut sent = 0;
    while flooder.socket.get_mut().write_all(&parts).is_ok() {
        sent += parts.len();
        assert!(sent < 256 * 1024 * 1024, "the server reads parts without end");
    }
}

/// Bytes that TLS had decrypted already were once forgotten until the next ping.
fn a_long_message_arrives_whole(transport: Transport) {
    let settings = [("MAX_MESSAGE_BYTES", "400000"), ("PING_INTERVAL", "3600")];
    let server = TestServer::with(transport, &settings);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.hears(), "system: Bob joined.");
    for length in (20_000..300_000).step_by(9_973) {
        let long = "x".repeat(length);
        bob.public(&long);
        assert!(ann.hears() == format!("Bob: {long}"), "{length}");
    }
}

fn what_was_said_too_fast_is_heard_when_the_client_has_gone(transport: Transport) {
    let server = TestServer::with(transport, &[("MESSAGE_RATE", "10"), ("MESSAGE_BURST", "5")]);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.hears(), "system: Bob joined.");
    // Bob has not read what he was sent, so that his end is a reset.
    ann.public("unread");
    // In one write: of several the last may not have left when Bob's system throws away what it still holds.
    for number in 0..20 {
        bob.socket.write(Message::text(public(&number.to_string()))).unwrap();
    }
    bob.socket.flush().unwrap();
    drop(bob);
    for number in 0..20 {
        assert_eq!(ann.hears(), format!("Bob: {number}"));
    }
    assert_eq!(ann.hears(), "system: Bob left.");
}

/// A good upgrade with these header lines more.
pub fn upgrade_request(more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Sends a request, and reads the answer to its end.
pub fn request(server: &TestServer, head: &str) -> String {
    let mut stream = ClientStream::connect(server.address, server.transport);
    stream.write_all(head.as_bytes()).unwrap();
    stream.flush().unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// Reads an answer's head, or what there is of it.
pub fn until_head_end(stream: &mut ClientStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
