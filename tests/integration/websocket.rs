//! The WebSocket protocol (RFC 6455): frames, fragments, close codes, and ends without a closing handshake.

use std::io::Write;
use std::net::Shutdown;

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Bytes, Message};

use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

over_ws_and_wss! {
    fragments_with_pings_between_them_are_one_message,
    long_messages_arrive_complete,
    broken_framing_closes_with_1002,
    text_that_is_not_utf8_closes_with_1007,
    messages_sent_before_the_end_of_the_stream_are_delivered,
}

fn fragments_with_pings_between_them_are_one_message(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    let text = r#"{"type": "public", "content": "in fragments"}"#;
    let fragments = [
        (Data::Text, &text[..9], false),
        (Data::Continue, &text[9..30], false),
        (Data::Continue, &text[30..], true),
    ];
    for (kind, fragment, is_final) in fragments {
        let frame = Frame::message(fragment.as_bytes().to_vec(), OpCode::Data(kind), is_final);
        bob.socket.send(Message::Frame(frame)).unwrap();
        bob.socket.send(Message::Ping(Bytes::from_static(b"there?"))).unwrap();
    }
    for _ in fragments {
        while !matches!(bob.socket.read().unwrap(), Message::Pong(payload) if payload == "there?") {}
    }
    assert_eq!(ann.next_line(), "Bob: in fragments");
}

/// Bytes that TLS had decrypted already were once left until the next ping.
fn long_messages_arrive_complete(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_MESSAGE_BYTES", "400000")]);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    for length in (20_000..300_000).step_by(9_973) {
        let long = "x".repeat(length);
        bob.public(&long);
        assert!(ann.next_line() == format!("Bob: {long}"), "{length} bytes");
    }
}

fn broken_framing_closes_with_1002(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let masked_hi = [0x80 | 2, 0, 0, 0, 0, b'h', b'i'];
    let frame = |first: u8, rest: &[u8]| [&[first], rest].concat();
    for (what, bytes) in [
        ("a reserved bit", frame(0xC1, &masked_hi)),
        ("a reserved opcode", frame(0x83, &masked_hi)),
        ("no mask", vec![0x81, 2, b'h', b'i']),
        ("a continuation without a first fragment", frame(0x80, &masked_hi)),
        ("a fragmented ping", frame(0x09, &masked_hi)),
        ("a close code of one byte", frame(0x88, &[0x81, 0, 0, 0, 0, 3])),
    ] {
        let mut bob = server.join("Bob");
        bob.socket.get_mut().write_all(&bytes).unwrap();
        bob.socket.get_mut().flush().unwrap();
        assert_eq!(bob.close_code(), Some(CloseCode::Protocol), "{what}");
        assert_eq!(
            (ann.next_line(), ann.next_line()),
            ("system: Bob joined.".into(), "system: Bob left.".into())
        );
    }
}

fn text_that_is_not_utf8_closes_with_1007(transport: Transport) {
    let server = TestServer::start(transport);
    let mut bob = server.join("Bob");
    let frame = Frame::message(vec![b'"', 0xFF, b'"'], OpCode::Data(Data::Text), true);
    bob.socket.send(Message::Frame(frame)).unwrap();
    assert_eq!(bob.close_code(), Some(CloseCode::Invalid));
}

fn messages_sent_before_the_end_of_the_stream_are_delivered(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    // A client that shuts down its sending side has left.
    let bob = server.join("Bob");
    bob.socket.get_ref().tcp().shutdown(Shutdown::Write).unwrap();
    assert_eq!(
        (ann.next_line(), ann.next_line()),
        ("system: Bob joined.".into(), "system: Bob left.".into())
    );
    let mut cid = server.join("Cid");
    cid.public("the last message");
    cid.socket.send(Message::Ping(Bytes::new())).unwrap();
    drop(cid);
    for line in ["system: Cid joined.", "Cid: the last message", "system: Cid left."] {
        assert_eq!(ann.next_line(), line);
    }
}
