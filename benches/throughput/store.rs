//! store: bursts and a conversation, without and with the store, which is in the folder for temporary files.

use crate::support::Result;
use crate::{Bench, burst, pace};

pub fn run(bench: &mut Bench) -> Result<()> {
    burst::stored(bench)?;
    println!();
    pace::stored(bench)
}
