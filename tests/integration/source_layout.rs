//! The source layout (docs/architecture.md): which folder imports which, and which code is pure.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn each_folder_imports_only_from_those_below_it_in_lib_rs() {
    let source = source();
    let lib = fs::read_to_string(source.join("lib.rs")).unwrap();
    let folders: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert!(folders.len() > 8, "{folders:?}");
    let position = |folder: &str| folders.iter().position(|&other| other == folder);
    let mut imports = 0;
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("super::super"), "{path:?} leaves its folder with super::super");
        let folder = path.iter().next().unwrap().to_str().unwrap();
        if matches!(folder, "main.rs" | "lib.rs") {
            continue;
        }
        let here = position(folder).unwrap_or_else(|| panic!("{path:?} is not in lib.rs"));
        let code = text.split("#[cfg(test)]").next().unwrap();
        if !path.ends_with("mod.rs") {
            let export = ["pub use ", "pub mod "].iter().find(|word| code.contains(&format!("\n{word}")));
            assert_eq!(export, None, "{path:?}: only mod.rs may export");
        }
        for rest in text.split("crate::").skip(1) {
            let imported: String = rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
            let there = position(&imported)
                .unwrap_or_else(|| panic!("{path:?} imports {imported:?}, which is not in lib.rs"));
            assert!(there >= here, "{path:?} imports {imported}, which is above it");
            imports += 1;
        }
    }
    assert!(imports > 40, "only {imports} imports were found");
}

#[test]
fn every_folder_is_in_lib_rs() {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    for entry in fs::read_dir(source()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match name.as_str() {
            "lib.rs" | "main.rs" => {}
            folder => assert!(lib.contains(&format!("mod {folder};")), "src/{folder} is not in lib.rs"),
        }
    }
}

#[test]
fn pure_code_uses_no_sockets_threads_files_or_clock() {
    let source = source();
    let mut pure = rust_files(&source.join("chat"));
    pure.extend(
        [
            "hub/retries.rs",
            "hub/tape.rs",
            "limits/meter.rs",
            "limits/token_bucket.rs",
            "transport/frame_tracker.rs",
            "connection/keep_alive.rs",
            "http/forwarded.rs",
        ]
        .map(|file| source.join(file)),
    );
    let tests = ["room_tests.rs", "moderation_tests.rs", "simulation.rs"];
    let is_test = |file: &PathBuf| tests.iter().any(|test| file.ends_with(test));
    for file in pure.into_iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in [
            "TcpStream",
            "std::thread",
            "rustls",
            "Instant::now",
            "SystemTime",
            "std::fs",
            "Mutex",
            "clap",
            "log::",
        ] {
            assert!(!code.contains(word), "{file:?} uses {word}");
        }
    }
}

/// Shared helpers belong in `support/`, which imports no tests.
#[test]
fn tests_import_nothing_from_other_tests() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration");
    let mut imports = 0;
    for file in rust_files(&tests).iter().filter(|file| !file.ends_with("source_layout.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for import in text.split("crate::").skip(1) {
            assert!(import.starts_with("support::"), "{file:?} imports {}", import.lines().next().unwrap());
            imports += 1;
        }
    }
    assert!(imports > 20, "only {imports} imports were found");
}

#[test]
fn there_is_no_unsafe_code() {
    for root in ["lib.rs", "main.rs"] {
        let text = fs::read_to_string(source().join(root)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root} does not forbid it");
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let nested = entries.map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    nested.flatten().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}
