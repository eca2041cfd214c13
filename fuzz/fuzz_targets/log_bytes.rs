#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tinychat::fuzzing::log_bytes(bytes));
