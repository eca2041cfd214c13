//! WebSocket frames (RFC 6455, section 5.2).

pub const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The mask of all frames from clients.
pub const MASK: [u8; 4] = [7, 77, 177, 217];

/// A final frame has this bit in its first byte.
pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// A complete text message in one frame.
pub fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    frame_of(FIN | TEXT, payload, mask)
}

/// A text message from a client.
pub fn masked(payload: &str) -> Vec<u8> {
    frame(payload.as_bytes(), Some(MASK))
}

/// A frame with this first byte.
pub fn frame_of(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = vec![first];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..126 => frame.push(masked | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(masked | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(masked | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask.into_iter().flatten());
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The length of an unmasked frame's head.
pub fn head_length(frame: &[u8]) -> usize {
    match frame[1] & 0x7F {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

/// The length of the first frame, if it is complete.
pub fn frame_length(bytes: &[u8]) -> Option<usize> {
    let short = *bytes.get(1)?;
    let mask = if short & 0x80 == 0 { 0 } else { 4 };
    let head = head_length(bytes);
    let payload = match head {
        2 => usize::from(short & 0x7F),
        _ => bytes.get(2..head)?.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)),
    };
    let length = head + mask + payload;
    (bytes.len() >= length).then_some(length)
}

/// The length of all complete frames at the start of these bytes.
pub fn complete_frames(bytes: &[u8]) -> usize {
    let mut complete = 0;
    while let Some(length) = frame_length(&bytes[complete..]) {
        complete += length;
    }
    complete
}
