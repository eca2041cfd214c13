//! A client's bytes: the stream, plain or through TLS, and the WebSocket with its backlog.

mod link;
mod stream;

pub use link::{CutOff, Ended, Link, PORTION, Received, Sent};
pub use stream::{Stream, Wait, by_deadline, discard, timespec, wait};
