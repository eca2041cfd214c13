//! A client's bytes: the stream, plain or through TLS, and above it the WebSocket with its backlog.

mod backlog;
mod copied;
mod link;
mod socket;
mod stream;
mod poll;

pub use backlog::{Flush, Output, SendError, Slice};
pub use link::{Link, MAX_READ_BYTES, ReadError, Received};
pub use poll::{Wait, by_deadline, linger, timespec, wait};
pub use stream::Stream;
