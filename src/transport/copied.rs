//! Bytes that were copied because they have to wait.

use std::ops::{Deref, DerefMut, Range};

use memmap2::MmapMut;

/// Buffers of at least this many bytes are mapped pages, which are returned to the system as soon as they are dropped.
/// An allocator may keep freed memory: glibc returns it only from the end of a heap.
const MAP_FROM: usize = 16 * 1024;

/// A queue of bytes. When it grows, its new buffer is at least 1.5 times as long as what waits, so that appending
/// is cheap.
pub struct Copied {
    buffer: Buffer,
    waiting: Range<usize>,
}

enum Buffer {
    Heap(Box<[u8]>),
    Mapped(MmapMut),
}

impl Copied {
    pub fn new(bytes: &[u8]) -> Self {
        let mut copied = Self { buffer: Buffer::new(bytes.len()), waiting: 0..0 };
        copied.append(bytes);
        copied
    }

    /// What has not been sent.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.waiting.clone()]
    }

    /// How many bytes it takes in memory.
    pub fn allocation(&self) -> usize {
        self.buffer.len()
    }

    pub fn append(&mut self, bytes: &[u8]) {
        if self.buffer.len() - self.waiting.end < bytes.len() {
            self.grow(bytes.len());
        }
        let end = self.waiting.end + bytes.len();
        self.buffer[self.waiting.end..end].copy_from_slice(bytes);
        self.waiting.end = end;
    }

    /// Removes bytes from the front.
    pub fn advance(&mut self, count: usize) {
        self.waiting.start += count;
    }

    /// Moves to a longer buffer with space for at least `more` bytes.
    fn grow(&mut self, more: usize) {
        let kept = self.waiting.len();
        let mut buffer = Buffer::new(kept + more.max(kept / 2));
        buffer[..kept].copy_from_slice(self.bytes());
        *self = Self { buffer, waiting: 0..kept };
    }
}

impl Buffer {
    fn new(length: usize) -> Self {
        if length >= MAP_FROM {
            // The system limits how many mappings a process has. Beyond that, the buffer is on the heap.
            if let Ok(mapped) = MmapMut::map_anon(length) {
                return Self::Mapped(mapped);
            }
        }
        Self::Heap(vec![0; length].into())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(buffer) => buffer,
            Self::Mapped(buffer) => buffer,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(buffer) => buffer,
            Self::Mapped(buffer) => buffer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_order_while_the_buffer_grows_and_is_sent() {
        let mut copied = Copied::new(b"");
        let (mut appended, mut sent) = (Vec::new(), Vec::new());
        for round in 0..2000 {
            let bytes = vec![round as u8; 70 + round % 50];
            appended.extend_from_slice(&bytes);
            copied.append(&bytes);
            assert!(copied.allocation() <= 2 * copied.bytes().len(), "{round}");
            let count = 20;
            sent.extend_from_slice(&copied.bytes()[..count]);
            copied.advance(count);
        }
        assert!(matches!(copied.buffer, Buffer::Mapped(_)));
        sent.extend_from_slice(copied.bytes());
        assert!(sent == appended);
    }
}
