//! What clients may take of the server: how many connections, and how fast they may send.

mod permits;
mod rate_limit;

pub use permits::{Admission, Full, Place, network};
pub use rate_limit::Rate;
