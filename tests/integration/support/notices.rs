//! `deploy/THIRD-PARTY-NOTICES.txt`: the copyright notices and licenses of the crates in the program, from their
//! sources, and of what else is in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The program is distributed for these targets.
const TARGETS: [&str; 7] = [
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
    "armv7-unknown-linux-gnueabihf",
    "i686-unknown-linux-gnu",
    "s390x-unknown-linux-gnu",
];
/// Files about code in the program that are not in the root of their crate.
const MORE_FILES: [(&str, &str); 2] =
    [("ring", "third_party/fiat/LICENSE"), ("ring", "src/polyfill/once_cell/LICENSE-MIT")];
/// Files in the root of their crate that are only about its tests and examples.
const IRRELEVANT_FILES: [(&str, &str); 1] = [("crossbeam-channel", "LICENSE-THIRD-PARTY")];
const RULE: &str = "\n================================================================================\n";
const START: &str = "\
THIRD-PARTY NOTICES OF TINYCHAT

The program `tinychat` contains the software below. This file contains its copyright notices and licenses, and must
accompany the program where it is distributed without its source. TinyChat's own license is in the file LICENSE.

The file is for Linux, and for the default features and the feature cluster. A program that was built with the feature
aws-lc also contains AWS-LC, whose notices are in the crate aws-lc-sys.

First come the Rust crates, then SQLite, the Rust standard library and musl, and then the licenses of the crates.
";
const CRATES: &str = "\
Rust crates, each with the license that its authors give, and its source. Where they offer the Apache License as one of
several, the program is distributed under another one. Tables in unicase, unicode-normalization, unicode-properties,
unicode-script and unicode-security are made from files of Unicode, Inc., under the Unicode License V3.
";

/// The crates that a program contains, as in `serde 1.0.229`, not those that are only needed to build it. Without a
/// target, for this machine.
pub fn linked_crates(features: &str, target: Option<&str>) -> BTreeSet<String> {
    let features = format!("--features={features}");
    let target = target.map(|target| format!("--target={target}"));
    let edges = "--edges=normal,no-proc-macro";
    let mut arguments = vec!["tree", edges, "--prefix=none", "--format={p}", &features];
    arguments.extend(target.as_deref());
    let tree = cargo(&arguments);
    let crates = tree.lines().map(|line| {
        let mut words = line.split(' ');
        (words.next().unwrap(), words.next().unwrap().trim_start_matches('v'))
    });
    let crates = crates.filter(|(name, _)| *name != env!("CARGO_PKG_NAME"));
    crates.map(|(name, version)| format!("{name} {version}")).collect()
}

/// The crates that the file names.
pub fn named_crates(file: &str) -> BTreeSet<String> {
    let (_, list) = file.split_once(CRATES).unwrap();
    let lines = list.split(RULE).next().unwrap().lines();
    let names = lines.filter(|line| !line.is_empty() && !line.starts_with(' '));
    names.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

pub fn generate() -> String {
    let linked = |features| -> BTreeSet<String> {
        TARGETS.iter().flat_map(|target| linked_crates(features, Some(target))).collect()
    };
    let by_default = linked("");
    let platforms = TARGETS.iter().flat_map(|target| ["--filter-platform", target]);
    let arguments = ["metadata", "--format-version=1", "--features=cluster"].into_iter().chain(platforms);
    let metadata: Value = serde_json::from_str(&cargo(&arguments.collect::<Vec<_>>())).unwrap();
    let packages: HashMap<String, &Value> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (format!("{} {}", text(package, "name"), text(package, "version")), package))
        .collect();

    let mut list = String::new();
    // For each license, without regard to white space: its terms, and the crates with their copyright notices.
    let mut licenses: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for id in linked("cluster") {
        let package = packages[&id];
        let license = text(package, "license");
        let feature = if by_default.contains(&id) { "" } else { " (feature cluster)" };
        list += &format!("\n{id}{feature}\n    {license}\n    {}\n", text(package, "repository"));
        let folder = Path::new(text(package, "manifest_path")).parent().unwrap();
        for file in license_files(text(package, "name"), license, folder) {
            let content = fs::read_to_string(&file).unwrap();
            let (notice, terms) = split(&content);
            let words: Vec<&str> = terms.split_whitespace().collect();
            let (_, crates) =
                licenses.entry(words.join(" ")).or_insert_with(|| (terms.to_owned(), Vec::new()));
            let path = file.strip_prefix(folder).unwrap().display();
            crates.push(format!("{id}, {path}\n{}", indented(notice)));
        }
    }

    let mut file = [START, RULE, CRATES, &list].concat();
    for part in ["sqlite", "rust", "musl"] {
        file += RULE;
        file += &read(&format!("deploy/notices/{part}.txt"));
    }
    // Terms that apply to many crates first.
    let mut licenses: Vec<(String, Vec<String>)> = licenses.into_values().collect();
    licenses.sort_by_key(|(_, crates)| usize::MAX - crates.len());
    for (terms, crates) in licenses {
        file += RULE;
        file += &crates.concat();
        file += &format!("\n{}\n", terms.trim_end());
    }
    file
}

/// The files with a crate's licenses and copyright notices, without the Apache License if it is one of several that are
/// offered: it is long.
fn license_files(name: &str, license: &str, folder: &Path) -> Vec<PathBuf> {
    let is_apache = |file: &str| file.to_uppercase().contains("APACHE");
    let has_choice =
        [" OR Apache-2.0", "Apache-2.0 OR ", "/Apache-2.0"].iter().any(|part| license.contains(part));
    let is_license = |file: &str| {
        let file = file.to_uppercase();
        ["LICEN", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"].iter().any(|start| file.starts_with(start))
    };
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| is_license(file) && !IRRELEVANT_FILES.contains(&(name, file)))
        .filter(|file| !(has_choice && is_apache(file)))
        .collect();
    files.extend(MORE_FILES.iter().filter(|(owner, _)| *owner == name).map(|(_, file)| (*file).to_owned()));
    files.sort();
    assert!(!files.is_empty(), "{name} ({license}) has no license file");
    files.iter().map(|file| folder.join(file)).collect()
}

/// The copyright notice before the terms of licenses that consist of a notice and standard terms, and the terms.
fn split(license: &str) -> (&str, &str) {
    let at = if license.starts_with("Permission ") { Some(0) } else { license.find("\nPermission ") };
    let (notice, terms) = license.split_at(at.unwrap_or(0));
    if notice.len() > 500 { ("", license) } else { (notice, terms.trim_start_matches('\n')) }
}

fn indented(notice: &str) -> String {
    let lines = notice.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| format!("    {line}\n")).collect()
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_else(|| panic!("no {field}: {package}"))
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    let output =
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--locked").args(arguments).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
