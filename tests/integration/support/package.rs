//! The contents of the Debian package, from Cargo.toml.

use std::fs;
use std::path::Path;

/// Each file's path in the repository, and in the package without the leading `/`.
pub fn assets() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, list) = manifest.split_once("\nassets = [\n").unwrap();
    let mut assets = Vec::new();
    let lines = list.lines().take_while(|line| *line != "]");
    for line in lines.filter(|line| line.starts_with("    [")) {
        let [source, target] = [1, 3].map(|at| line.split('"').nth(at).unwrap());
        for file in matching(root, source) {
            let name = file.rsplit('/').next().unwrap();
            let target = if target.ends_with('/') { format!("{target}{name}") } else { target.to_owned() };
            assets.push((file, target));
        }
    }
    assets
}

/// The files that a pattern stands for, which may have one `*` in the last part.
fn matching(root: &Path, pattern: &str) -> Vec<String> {
    let Some((start, end)) = pattern.split_once('*') else { return vec![pattern.to_owned()] };
    let folder = start.strip_suffix('/').unwrap();
    let names = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap());
    let files = names.filter(|entry| entry.path().is_file());
    let names = files.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(end)).map(|name| format!("{folder}/{name}")).collect()
}
