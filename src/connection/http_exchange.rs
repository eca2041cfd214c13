//! Reads requests and writes responses, each with a deadline.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use tungstenite::handshake::server::Request;

use super::handshake::HandshakeError;
use crate::http::{self, MAX_HEAD_BYTES, Response};
use crate::transport::{Stream, Wait, by_deadline, linger};

/// How long a lingering close may take, in which the client can read the last bytes.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// The first byte of a TLS handshake (RFC 8446, section 5.1). No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 22;
/// The size of the read buffer, in bytes.
const READ_BYTES: usize = 1024;

/// Reads a request head, of which `bytes` were received with the request before it. Also returns the bytes that were
/// received after it.
pub fn read_request(
    stream: &mut Stream,
    mut bytes: Vec<u8>,
    deadline: Instant,
) -> Result<(Request, Vec<u8>), HandshakeError> {
    let mut buffer = [0; READ_BYTES];
    let mut may_be_complete = !bytes.is_empty();
    loop {
        if may_be_complete && let Some((request, length)) = http::parse(&bytes)? {
            return Ok((request, bytes.split_off(length)));
        }
        let is_first = bytes.is_empty();
        let read = by_deadline(stream, Wait::Read, deadline, |stream| stream.read(&mut buffer))?;
        if read == 0 {
            return Err(HandshakeError::Disconnected);
        }
        bytes.extend_from_slice(&buffer[..read]);
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            return Err(HandshakeError::TlsOnPlainPort);
        }
        // A head ends with a line feed. Parsing it again for each byte would take time quadratic in its length.
        may_be_complete = is_first || bytes.len() >= MAX_HEAD_BYTES || buffer[..read].contains(&b'\n');
    }
}

/// Sends a response and ends the connection. `request`: `None` if it could not be parsed.
pub fn respond(stream: &mut Stream, response: &Response, request: Option<&Request>) {
    let until = Instant::now() + LINGER_TIMEOUT;
    if write_response(stream, response, request, until).is_ok() {
        close(stream, until);
    }
}

/// Sends a response.
///
/// # Errors
/// `TimedOut` at the deadline, and those of the stream.
pub fn write_response(
    stream: &mut Stream,
    response: &Response,
    request: Option<&Request>,
    deadline: Instant,
) -> io::Result<()> {
    let bytes = http::encode(response, request.map(Request::method));
    let mut unsent = &bytes[..];
    while !unsent.is_empty() {
        let written = by_deadline(stream, Wait::Write, deadline, |stream| stream.write(unsent))?;
        unsent = &unsent[written..];
    }
    by_deadline(stream, Wait::Write, deadline, Stream::flush)
}

/// Closes the connection with a lingering close, so that the client does not see a reset.
pub fn close(stream: &mut Stream, until: Instant) {
    stream.finish();
    let socket = stream.socket();
    linger(&socket, until, |buffer| stream.read(buffer));
}
