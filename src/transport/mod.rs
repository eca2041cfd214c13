//! A client's transport: a stream, plain or TLS, and on top of it the WebSocket with its backlog.

mod backlog;
mod copied;
mod frame_tracker;
mod link;
mod socket;
mod stream;
mod poll;

pub use backlog::{Flush, Output, SendError, Slice};
pub use link::{Link, Read, ReadError, Received};
pub use poll::{Wait, by_deadline, linger, timespec, wait};
pub use stream::Stream;
