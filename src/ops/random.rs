//! Random bytes for secrets.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes from the system's generator, for up to 256 of which the call is never interrupted (getrandom(2)).
///
/// # Errors
/// The kernel has no getrandom(2), which is older than 3.17.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if filled == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
