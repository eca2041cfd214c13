//! Compares the documents with the program: settings, protocol, messages, metrics and source layout.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tinychat::cli::check;
use tinychat::config::{SETTINGS, Settings};
use tinychat::tls::self_signed::{self, Request};
use tungstenite::http::StatusCode;

use crate::support::client::{Client, ClientStream};
use crate::support::package;
use crate::support::server::{TestServer, Transport};

/// A new user should be able to read it before the first start.
const MAX_README_LINES: usize = 199;
/// Messages in docs/troubleshooting.md that come from the system, not from the server.
const SYSTEM_MESSAGES: [&str; 3] =
    ["Address already in use", "Permission denied", "Cannot assign requested address"];

#[test]
fn the_readme_is_short_and_its_figures_are_those_of_the_benchmarks() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= MAX_README_LINES);
    assert!(readme.contains("\n```sh\ncargo test\n```\n"), "CI looks for this command");
    let benchmarks = read("docs/benchmarks.md");
    for figure in ["20.31 M", "11.1 KB", "18.7 KB"] {
        assert!(readme.contains(figure) && benchmarks.contains(figure), "{figure}");
    }
}

#[test]
fn the_settings_table_matches_the_program() {
    let rows = rows(&section("docs/configuration.md", "Settings"));
    let documented: Vec<(&str, &str)> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let expected: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|setting| {
            let default = setting.default.map_or("unset".into(), |default| format!("`{default}`"));
            (format!("`{}`", setting.name), default)
        })
        .collect();
    let expected: Vec<(&str, &str)> =
        expected.iter().map(|(name, default)| (&name[..], &default[..])).collect();
    assert_eq!(documented, expected);
}

#[test]
fn the_documented_ranges_are_what_the_program_allows() {
    let is_allowed =
        |name: &str, value: i64| Settings::from_pairs([(name, value.to_string().as_str())]).is_ok();
    let mut ranges = 0;
    for row in rows(&section("docs/configuration.md", "Settings")) {
        let name = row[0].trim_matches('`');
        let Some((Ok(least), Ok(most))) =
            row[2].split_once(" to ").map(|(least, most)| (least.parse::<i64>(), most.parse::<i64>()))
        else {
            continue;
        };
        assert!(is_allowed(name, least) && is_allowed(name, most), "{name}");
        assert!(!is_allowed(name, least - 1) && !is_allowed(name, most + 1), "{name}");
        ranges += 1;
    }
    assert_eq!(ranges, 15);
}

#[test]
fn every_env_example_can_be_loaded() {
    let mut examples = 0;
    for (file, text) in documents() {
        for block in fenced(&text, "dotenv") {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(".env"), block).unwrap();
            let output = tinychat(folder.path(), &["check"]);
            let report = String::from_utf8_lossy(&output.stdout);
            assert!(report.starts_with("settings: good\n"), "{file}:\n{block}\n{output:?}");
            for line in block.lines() {
                let name = line.split('=').next().unwrap();
                assert!(SETTINGS.iter().any(|setting| setting.name == name), "{file}: {line}");
            }
            examples += 1;
        }
    }
    assert!(examples >= 5, "the examples were not found: {examples}");
}

/// The settings of the example with several servers can be used, and those that the page names exist.
#[test]
fn the_example_of_several_servers_has_good_settings() {
    let page = read("docs/cluster.md");
    let compose = fenced(&page, "yaml").next().unwrap();
    let (_, settings) = compose.split_once("x-settings: &settings\n").unwrap();
    let settings: Vec<(&str, &str)> = settings
        .lines()
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.trim().split_once(": ").unwrap())
        .collect();
    assert!(settings.iter().any(|(name, _)| *name == "CLUSTER_URL") && settings.len() > 5, "{settings:?}");
    let nodes: Vec<&str> =
        compose.lines().filter_map(|line| line.trim().strip_prefix("NODE_NAME: ")).collect();
    for node in &nodes {
        assert!(compose.contains(&format!("\n  {node}:\n    <<: *tinychat\n")), "{node}");
        assert!(page.contains(&format!("{node}:8765")), "Caddy does not know {node}");
        if cfg!(feature = "cluster") {
            let with_node = settings.iter().copied().chain([("NODE_NAME", *node)]);
            assert!(Settings::from_pairs(with_node).is_ok(), "{settings:?}");
        }
    }
    assert_eq!(nodes, ["one", "two"]);
    let is_setting = |name: &str| SETTINGS.iter().any(|setting| setting.name == name);
    assert!(settings.iter().all(|(name, _)| is_setting(name)), "{settings:?}");
    for row in rows(&section("docs/cluster.md", "Settings")) {
        assert!(is_setting(row[0].trim_matches('`')), "{row:?}");
    }
    // A client's address is what a server of this network reports.
    let subnet = settings.iter().find(|(name, _)| *name == "TRUSTED_PROXIES").unwrap().1;
    assert!(compose.contains(&format!("subnet: {subnet}")));
}

#[test]
fn the_generate_certs_options_are_those_of_its_help() {
    let help = tinychat(Path::new("."), &["generate-certs", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let options = rows(&section("docs/tls.md", "A certificate for testing"));
    assert_eq!(options.len(), help.lines().filter(|line| line.trim_start().starts_with("--")).count());
    for row in options {
        let option = row[0].trim_matches('`');
        let option =
            option.split_once(' ').map_or(option.into(), |(flag, value)| format!("{flag} <{value}>"));
        let line = help.lines().find(|line| line.trim_start().starts_with(&option));
        let line = line.unwrap_or_else(|| panic!("{option} is not in\n{help}"));
        if !row[1].is_empty() {
            assert!(line.contains(&format!("[default: {}]", row[1].trim_matches('`'))), "{line}");
        }
    }
}

#[test]
fn the_check_report_is_what_check_prints() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    let host = "localhost".into();
    let request = Request { cert: cert.clone(), key: key.clone(), days: 365, host, force: false };
    self_signed::generate(&request).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let database = folder.path().join("tinychat.db");
    let database = database.to_str().unwrap();
    let pairs =
        [("USE_SSL", "true"), ("SSL_CERT_PATH", cert), ("SSL_KEY_PATH", key), ("DATABASE_PATH", database)];
    let soon = SystemTime::now() + Duration::from_secs(60);
    let report = check(&Settings::from_pairs(pairs).unwrap(), None, soon);
    let lines = report.lines.replace(database, "./tinychat.db");
    let lines = lines.replace(folder.path().to_str().unwrap(), "./certs");
    let section = section("docs/tls.md", "Check before you start");
    assert!(fenced(&section, "text").any(|shown| shown == lines.trim_end()), "{lines}");
}

#[test]
fn the_server_accepts_every_example_of_a_client_message() {
    let server = TestServer::start(Transport::Ws);
    let mut bob = server.join("Bob Lee");
    let mut ann = server.connect();
    let section = section("docs/protocol.md", "From client to server");
    let mut types = Vec::new();
    for example in fenced(&section, "json").flat_map(str::lines) {
        let message: Value = serde_json::from_str(example).unwrap();
        types.push(message["type"].as_str().unwrap().to_owned());
        ann.send(message);
    }
    assert_eq!(types, rows(&section).iter().map(|row| row[0].trim_matches('`')).collect::<Vec<_>>());
    for (kind, content) in
        [("system", "Ann joined."), ("public", "Hello, everybody"), ("private", "see you later")]
    {
        let message: Value = serde_json::from_str(&next_of_type(&mut bob, kind)).unwrap();
        assert_eq!(message["content"], content);
    }
}

/// The types, the fields and their order: the table, the examples and a real server agree.
#[test]
fn the_server_sends_what_the_protocol_shows() {
    let server = TestServer::start(Transport::Ws);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.join("Ann");
    // This asks for all that can be asked for.
    bob.send(json!({"type": "join", "username": "Bob Lee", "epoch": "another", "since": 0}));
    bob.command("/whisper Bob Lee see you later");
    bob.send(json!({"type": "public", "content": "hi", "txn_id": "1"}));
    let types = ["error", "user_list", "command_list", "history", "system", "private", "ack"];
    let mut sent: HashMap<&str, String> = types.map(|kind| (kind, next_of_type(&mut bob, kind))).into();
    bob.public("Hello, everybody");
    let public = next_of_type(&mut ann, "public");
    let id = &serde_json::from_str::<Value>(&public).unwrap()["id"];
    bob.command(&format!("/delete {id}"));
    sent.insert("deleted", next_of_type(&mut bob, "deleted"));
    sent.insert("public", public);

    let section = section("docs/protocol.md", "From server to client");
    let examples: Vec<&str> = fenced(&section, "json").flat_map(str::lines).collect();
    let rows = rows(&section);
    assert_eq!((rows.len(), examples.len()), (sent.len(), sent.len()));
    for (row, example) in rows.iter().zip(&examples) {
        let kind = row[0].trim_matches('`');
        let mut documented = vec!["type"];
        documented.extend(in_backticks(&row[1]));
        assert_eq!(fields(example), documented, "{example}");
        assert_eq!(fields(&sent[kind]), documented, "{}", sent[kind]);
        let example: Value = serde_json::from_str(example).unwrap();
        assert_eq!(example["type"], kind);
        if matches!(kind, "error" | "command_list") {
            let sent: Value = serde_json::from_str(&sent[kind]).unwrap();
            assert_eq!(example["content"], sent["content"]);
        }
    }

    let commands: Value = serde_json::from_str(&sent["command_list"]).unwrap();
    let mut usages: Vec<&str> = commands["content"]
        .as_object()
        .unwrap()
        .values()
        .map(|command| command["usage"].as_str().unwrap())
        .collect();
    let table = self::rows(&self::section("docs/protocol.md", "Commands"));
    let mut documented: Vec<&str> = table.iter().map(|row| row[0].trim_matches('`')).collect();
    usages.sort();
    documented.sort();
    assert_eq!(documented, usages);
}

/// Names, types, labels, and every value of a label.
#[test]
fn the_metrics_table_matches_the_page() {
    let server = TestServer::start(Transport::Wss);
    let mut stream = ClientStream::connect(server.address, Transport::Wss);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();

    let section = section("docs/operations.md", "Monitoring");
    // A test in src/ops compares those of one of several servers, which this one is not.
    let table = rows(section.split("\n### ").next().unwrap());
    let documented: Vec<String> = table
        .iter()
        .map(|row| format!("{} {}", row[0].trim_matches('`').split('{').next().unwrap(), row[1]))
        .collect();
    let printed: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(documented, printed);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let (label, rest) = rest.split_once("=\"").unwrap();
        let value = rest.split('"').next().unwrap();
        let row = table.iter().find(|row| row[0] == format!("`{name}{{{label}}}`"));
        let row = row.unwrap_or_else(|| panic!("{line} has no row"));
        let is_documented = label == "version" || in_backticks(&row[2]).any(|shown| shown == value);
        assert!(is_documented, "{line}: {value} is not explained");
    }
}

/// Text in backticks in the headings, tables and lists of the server's messages.
#[test]
fn every_message_in_troubleshooting_is_in_the_source() {
    let source = source();
    let text = read("docs/troubleshooting.md");
    // The rest quotes messages of clients.
    let (ours, theirs) = text.split_once("\n### In a client").unwrap();
    assert!(theirs.contains("CERTIFICATE_VERIFY_FAILED"));
    let headings = ours.lines().filter_map(|line| line.strip_prefix("### "));
    let first_cells = ours
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| &line[1..1 + line[1..].find(" | ").unwrap()]);
    let list_items =
        ours.lines().filter(|line| line.starts_with("- `")).map(|line| line.split("`:").next().unwrap());
    let quoted = headings.chain(first_cells).chain(list_items).flat_map(in_backticks);
    let messages: Vec<&str> =
        quoted.filter(|message| !SYSTEM_MESSAGES.contains(message) && !is_http_status(message)).collect();
    assert!(messages.len() > 40, "the messages were not found: {messages:?}");
    let unknown: Vec<&str> = messages.into_iter().filter(|message| !source.contains(message)).collect();
    assert!(unknown.is_empty(), "not in src: {unknown:#?}");
}

#[test]
fn the_source_layout_table_lists_every_folder_and_file() {
    let table = rows(&section("docs/architecture.md", "Source layout"));
    let folders: Vec<&str> = table.iter().map(|row| row[0].trim_matches('`')).collect();
    let lib = read("src/lib.rs");
    let modules = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .map(|module| format!("{module}/"));
    assert_eq!(folders, modules.collect::<Vec<_>>());
    for row in &table {
        let folder = row[0].trim_matches('`');
        let mut documented: Vec<&str> =
            in_backticks(&row[2]).filter(|name| name.ends_with(".rs") || name.ends_with('/')).collect();
        let entries =
            fs::read_dir(root().join("src").join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut expected: Vec<String> = entries
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                if path.is_dir() { format!("{name}/") } else { name.to_owned() }
            })
            .filter(|name| name != "mod.rs")
            .collect();
        documented.sort();
        expected.sort();
        assert_eq!(documented, expected, "src/{folder}");
    }
}

#[test]
fn examples_are_shown_as_they_are() {
    let mut shown = Vec::new();
    for (file, text) in documents() {
        for part in text.split("<!-- file: ").skip(1) {
            let (path, rest) = part.split_once(" -->\n```").unwrap_or_else(|| panic!("{file}: {part}"));
            let (_, rest) = rest.split_once('\n').unwrap();
            let (block, _) = rest.split_once("```\n").unwrap();
            assert_eq!(block, read(path), "{file}");
            shown.push(path.to_owned());
        }
    }
    shown.sort();
    assert_eq!(
        shown,
        ["browser_client.js", "python_client.py", "resuming_client.py"]
            .map(|name| format!("examples/{name}"))
    );
}

/// From the package and from source.
#[test]
fn the_pages_that_the_unit_names_are_installed() {
    let unit = read("deploy/tinychat.service");
    let pages = unit.lines().find_map(|line| line.strip_prefix("Documentation=")).unwrap();
    for page in pages.split(' ') {
        let (name, section) =
            page.strip_prefix("man:").unwrap().trim_end_matches(')').split_once('(').unwrap();
        let file = format!("deploy/man/{name}.{section}");
        assert!(root().join(&file).is_file(), "{file}");
        assert!(
            read("Cargo.toml").contains(&format!("[\"{file}\", \"usr/share/man/man{section}/\", \"644\"]"))
        );
        let command = format!("sudo install -D -m 644 -t /usr/local/share/man/man{section} {file}");
        assert!(read("docs/install.md").lines().any(|line| line == command), "{command}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let documents: HashMap<PathBuf, String> = documents()
        .into_iter()
        .map(|(file, text)| (PathBuf::from(file), without_code_blocks(&text)))
        .collect();
    let mut links = 0;
    for (file, text) in &documents {
        for target in targets(text).filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let linked =
                if path.is_empty() { file.clone() } else { normal(&file.parent().unwrap().join(path)) };
            assert!(root().join(&linked).exists(), "{file:?} links to {target}");
            if !anchor.is_empty() {
                let anchors: Vec<String> =
                    documents[&linked].lines().filter_map(heading).map(anchor_of).collect();
                assert!(anchors.iter().any(|known| known == anchor), "{file:?}: {target} in {anchors:?}");
            }
            links += 1;
        }
    }
    assert!(links > 50, "the links were not found: {links}");
}

/// The documents in the Debian package link only to files that it contains as well.
#[test]
fn every_link_in_the_package_leads_somewhere() {
    let assets = package::assets();
    let mut links = 0;
    for (source, target) in assets.iter().filter(|(_, target)| target.ends_with(".md")) {
        let text = without_code_blocks(&read(source));
        let linked = targets(&text).filter(|link| !link.contains("://") && !link.starts_with('#'));
        for link in linked {
            let path = link.split('#').next().unwrap();
            let path = normal(&Path::new(target).parent().unwrap().join(path));
            let is_packaged = assets.iter().any(|(_, target)| Path::new(target) == path);
            assert!(is_packaged, "{source} links to {link}, which the package does not contain");
            links += 1;
        }
    }
    assert!(links > 50, "the links were not found: {links}");
}

/// The repository has no SPEC.md.
#[test]
fn the_documents_cite_each_other() {
    for (file, text) in documents() {
        assert!(!text.contains("SPEC"), "{file}");
    }
}

/// The next message of this type, as text; others are skipped.
fn next_of_type(client: &mut Client, kind: &str) -> String {
    let start = format!(r#"{{"type":"{kind}""#);
    loop {
        let text = client.next_text();
        if text.starts_with(&start) {
            return text;
        }
    }
}

/// Whether this is a status with its standard reason, like `403 Forbidden`.
fn is_http_status(text: &str) -> bool {
    let (code, reason) = text.split_once(' ').unwrap_or_default();
    StatusCode::from_bytes(code.as_bytes()).is_ok_and(|status| status.canonical_reason() == Some(reason))
}

/// The fields of an object in the order of the text; serde_json sorts them.
fn fields(text: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(text).unwrap();
    let mut fields: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    fields.sort_by_key(|field| text.find(&format!("\"{field}\":")));
    fields
}

/// Runs the program in a folder, with no settings but those of the folder's `.env`.
fn tinychat(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinychat"));
    command.current_dir(folder).env_clear().args(arguments).output().unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Markdown files, by their path from the root.
fn documents() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in [".", "certs", "docs", ".github", ".github/ISSUE_TEMPLATE"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                let path = if folder == "." { name } else { format!("{folder}/{name}") };
                let text = read(&path);
                files.push((path, text));
            }
        }
    }
    assert!(files.len() > 12, "{files:?}");
    files
}

/// A section's text, up to the next heading of its level.
fn section(file: &str, title: &str) -> String {
    let text = read(file);
    let start =
        text.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("{file} has no section {title}"));
    let text = &text[start + 1..];
    let end = text.find("\n## ").unwrap_or(text.len());
    text[..end].to_owned()
}

/// The cells of each table row whose first cell begins with a backtick.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The contents of the fenced blocks of a language.
fn fenced<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let fence = format!("\n```{language}\n");
    let starts: Vec<usize> = text.match_indices(&fence).map(|(at, fence)| at + fence.len()).collect();
    starts.into_iter().map(|start| text[start..].split("\n```").next().unwrap())
}

fn without_code_blocks(text: &str) -> String {
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What the links and images of a document point to.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let images = text.split("src=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    links.chain(images)
}

fn heading(line: &str) -> Option<&str> {
    line.starts_with('#').then(|| line.trim_start_matches('#'))?.strip_prefix(' ')
}

/// A heading's anchor, as GitHub makes it.
fn anchor_of(heading: &str) -> String {
    let kept = heading.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(normal.pop(), "{path:?} leaves the repository"),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// The whole source. Strings over several lines are joined, and the two names of a TLS file are inserted.
fn source() -> String {
    let mut text = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                // The chat page has images.
                text.push_str(&String::from_utf8_lossy(&fs::read(path).unwrap()));
            }
        }
    }
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap().to_owned();
    let joined = parts.fold(first, |joined, part| joined + part.trim_start());
    ["certificate", "private key"]
        .iter()
        .fold(joined.clone(), |all, what| all + &joined.replace("SSL {}", &format!("SSL {what}")))
}
