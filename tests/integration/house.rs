//! The shape of the source: what is below what, and what stays pure.

use std::fs;
use std::path::{Path, PathBuf};

/// Each file imports only from those below it in `lib.rs`, which lists them in the order of the house.
#[test]
fn each_file_imports_only_from_those_below_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let house = fs::read_to_string(source.join("lib.rs")).unwrap();
    let rooms: Vec<&str> =
        house.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")).collect();
    let rooms: Vec<&str> = rooms.into_iter().map(|room| room.trim_end_matches(';')).collect();
    assert!(rooms.len() > 15, "{rooms:?}");
    let place = |room: &str| rooms.iter().position(|&other| other == room);
    let mut seen = 0;
    for file in files(&source) {
        let path = file.strip_prefix(&source).unwrap();
        let room = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("super::super"), "{path:?}: a room's inside is its own");
        if matches!(room.as_str(), "main" | "lib") {
            continue;
        }
        let here = place(&room).unwrap_or_else(|| panic!("{path:?} is not in lib.rs"));
        for part in text.split("crate::").skip(1) {
            let imported: String = part.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
            let there =
                place(&imported).unwrap_or_else(|| panic!("{path:?} imports {imported:?}, which is no room"));
            assert!(there > here || imported == room, "{path:?} imports {imported}, which is above it");
            seen += 1;
        }
    }
    assert!(seen > 40, "the imports were not found: {seen}");
}

#[test]
fn the_pure_rooms_know_nothing_of_sockets_threads_and_clocks() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut pure: Vec<PathBuf> = files(&source.join("room"));
    pure.extend(
        ["protocol.rs", "tape.rs", "rate.rs", "keep_alive.rs", "forwarded.rs"].map(|file| source.join(file)),
    );
    for file in pure {
        if file.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in ["TcpStream", "std::thread", "rustls", "Instant::now", "SystemTime", "std::fs", "Mutex"] {
            assert!(!code.contains(word), "{file:?} has {word}");
        }
    }
}

#[test]
fn there_is_no_unsafe_code() {
    for root in ["src/lib.rs", "src/main.rs"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(root)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let nested = entries.map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    nested.flatten().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}
