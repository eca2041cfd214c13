//! Whether a data message is incomplete, from the bytes of a client's frames (RFC 6455, section 5.2).
//!
//! tungstenite assembles messages, but does not say that it holds a part of one.

/// The longest frame header: flags, length, extended length and mask.
const MAX_HEADER_BYTES: usize = 14;

const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0F;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7F;

#[derive(Debug)]
pub struct FrameTracker {
    header: [u8; MAX_HEADER_BYTES],
    header_length: usize,
    /// What is missing of the payload.
    payload_left: u64,
    /// Whether the current frame is the last one of a data message.
    ends_message: bool,
    is_incomplete: bool,
    /// Counts data messages by their first bytes.
    messages: u64,
}

impl FrameTracker {
    pub fn new() -> Self {
        Self {
            header: [0; MAX_HEADER_BYTES],
            header_length: 0,
            payload_left: 0,
            ends_message: false,
            is_incomplete: false,
            messages: 0,
        }
    }

    /// The number of the data message that has begun and is not complete, if there is one.
    pub fn incomplete(&self) -> Option<u64> {
        self.is_incomplete.then_some(self.messages)
    }

    /// Follows the next bytes. Frames that break the rules are followed as well: tungstenite rejects them.
    pub fn observe(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(bytes.len() as u64);
                self.payload_left -= skipped;
                // No more than `bytes.len()`, so it fits.
                bytes = &bytes[skipped as usize..];
            } else {
                self.header[self.header_length] = bytes[0];
                self.header_length += 1;
                bytes = &bytes[1..];
                if self.header_length == 1 {
                    self.begin_frame();
                }
                if self.header_length < header_bytes(&self.header[..self.header_length]) {
                    continue;
                }
                self.payload_left = payload_bytes(&self.header[..self.header_length]);
                self.header_length = 0;
            }
            if self.payload_left == 0 && self.ends_message {
                (self.is_incomplete, self.ends_message) = (false, false);
            }
        }
    }

    fn begin_frame(&mut self) {
        let flags = self.header[0];
        if flags & CONTROL != 0 {
            return;
        }
        if flags & OPCODE != 0 {
            self.messages += 1;
        }
        self.is_incomplete = true;
        self.ends_message = flags & FIN != 0;
    }
}

/// How many bytes a header has, as far as its first bytes tell.
fn header_bytes(header: &[u8]) -> usize {
    let Some(second) = header.get(1) else { return 2 };
    let extended = match second & LENGTH {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + extended + if second & MASKED != 0 { 4 } else { 0 }
}

/// How many bytes of payload follow a complete header.
fn payload_bytes(header: &[u8]) -> u64 {
    let big_endian = |bytes: &[u8]| bytes.iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
    match header[1] & LENGTH {
        126 => big_endian(&header[2..4]),
        127 => big_endian(&header[2..10]),
        length => length.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(MASKED | length as u8),
            126..65_536 => {
                frame.push(MASKED | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(MASKED | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(vec![0x81; length]);
        frame
    }

    #[test]
    fn a_message_is_incomplete_from_its_first_byte_to_its_last() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut tracker = FrameTracker::new();
            let bytes = frame(0x81, length);
            let (last, others) = bytes.split_last().unwrap();
            for &byte in others {
                tracker.observe(&[byte]);
                assert_eq!(tracker.incomplete(), Some(1), "{length}");
            }
            tracker.observe(&[*last]);
            assert_eq!(tracker.incomplete(), None, "{length}");
        }
    }

    #[test]
    fn fragments_are_one_message_and_control_frames_are_none() {
        let mut tracker = FrameTracker::new();
        tracker.observe(&frame(0x89, 5));
        assert_eq!(tracker.incomplete(), None);
        tracker.observe(&frame(0x01, 3));
        assert_eq!(tracker.incomplete(), Some(1));
        for (first, length) in [(0x00, 0), (0x8A, 4), (0x00, 200)] {
            tracker.observe(&frame(first, length));
            assert_eq!(tracker.incomplete(), Some(1));
        }
        tracker.observe(&frame(0x80, 0));
        assert_eq!(tracker.incomplete(), None);
        tracker.observe(&[0x02]);
        assert_eq!(tracker.incomplete(), Some(2));
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(pieces: Vec<Vec<u8>>) {
            let mut tracker = FrameTracker::new();
            pieces.iter().for_each(|piece| tracker.observe(piece));
        }

        #[test]
        fn it_makes_no_difference_how_the_bytes_arrive(
            frames in proptest::collection::vec((prop::sample::select(vec![0x81, 0x01, 0x00, 0x80, 0x89]), 0..300_usize), 1..20),
            piece in 1..50_usize,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|&(first, length)| frame(first, length)).collect();
            let (mut whole, mut pieces) = (FrameTracker::new(), FrameTracker::new());
            whole.observe(&bytes);
            bytes.chunks(piece).for_each(|piece| pieces.observe(piece));
            prop_assert_eq!(whole.incomplete(), pieces.incomplete());
        }
    }
}
