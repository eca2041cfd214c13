//! HTTP requests to a test server, as text.

use std::io::{ErrorKind, Read, Write};

use super::client::ClientStream;
use super::server::TestServer;

/// A valid upgrade request with these header lines added, each ending in `\r\n`.
pub fn upgrade_request(headers: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Requests this path, and returns the whole response.
pub fn get(server: &TestServer, path: &str) -> String {
    request(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

/// Sends a request, and returns everything up to the end of the connection, which must be orderly.
pub fn request(server: &TestServer, request: &str) -> String {
    String::from_utf8(request_bytes(server, request)).unwrap()
}

/// The same for a response that is not text.
pub fn request_bytes(server: &TestServer, request: &str) -> Vec<u8> {
    let mut stream = ClientStream::connect(server.address, server.transport);
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a response and an orderly end");
    response
}

/// Sends a request for a text on a connection that stays open, and returns the response.
pub fn request_kept(stream: &mut ClientStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    read_response(stream)
}

/// Reads one response, whose content is text.
pub fn read_response(stream: &mut ClientStream) -> String {
    let mut response = Vec::new();
    let mut byte = [0];
    while !response.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a response");
        response.push(byte[0]);
    }
    let head = String::from_utf8(response).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut content = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut content).expect("the content");
    head + &String::from_utf8(content).unwrap()
}

/// Sends an upgrade request with these header lines added, and returns the response's head, or as much of it as
/// arrives before the connection ends, and the connection.
pub fn upgrade(server: &TestServer, headers: &str) -> (String, ClientStream) {
    upgrade_at(server, "/", headers)
}

/// The same for another path.
pub fn upgrade_at(server: &TestServer, path: &str, headers: &str) -> (String, ClientStream) {
    let mut stream = ClientStream::connect(server.address, server.transport);
    let request = upgrade_request(headers).replacen("GET /", &format!("GET {path}"), 1);
    // A server that closes the connection at once may be faster than this write.
    let _ = stream.write_all(request.as_bytes());
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    (String::from_utf8(head).unwrap(), stream)
}

/// Reads until the other end closes or resets the connection; fails if it stays open.
pub fn read_until_closed(socket: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = socket.read_to_end(&mut bytes) {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "the connection stays open");
    }
    bytes
}
