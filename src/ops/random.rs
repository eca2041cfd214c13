//! Random bytes for secrets.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// `N` random bytes from the kernel. Up to 256 bytes, getrandom(2) is not interrupted and returns all of them.
///
/// # Errors
/// The kernel is older than 3.17 and has no getrandom(2).
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if filled == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
