#![no_main]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGPIPE;

libfuzzer_sys::fuzz_target!(
    // Rust's own `main` ignores SIGPIPE, and libFuzzer's does not. With a handler, writes to a closed socket only fail.
    init: {
        let broken_pipe: Arc<AtomicBool> = Arc::default();
        signal_hook::flag::register(SIGPIPE, broken_pipe).expect("a handler can be set");
    },
    |bytes: &[u8]| tinychat::fuzzing::client_bytes(bytes)
);
