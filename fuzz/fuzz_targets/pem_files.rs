#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder for the files"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tinychat::fuzzing::pem_files(FOLDER.path(), bytes));
