//! The README: what it says of the settings, the wire, the messages and the source is so.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tinychat::cli::check;
use tinychat::config::{SETTINGS, Settings};
use tinychat::tls::self_signed::{self, Request};

use crate::support::server::{TestServer, Transport};

#[test]
fn the_settings_table_is_the_programs() {
    let section = section("Settings");
    let rows: Vec<(String, String)> = section.lines().filter_map(row).collect();
    let expected: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|setting| {
            let default = setting.default.map_or("unset".into(), |default| format!("`{default}`"));
            (format!("`{}`", setting.name), default)
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn every_example_of_the_protocol_is_one() {
    let section = section("The protocol");
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    for example in fenced(&section, "json").flat_map(str::lines) {
        let message: Value =
            serde_json::from_str(example).unwrap_or_else(|error| panic!("{example}: {error}"));
        let kind = message["type"].as_str().unwrap().to_owned();
        match message.get("timestamp") {
            None => to_server.push((kind, message)),
            Some(_) => to_client.push(kind),
        }
    }
    let kinds: Vec<&str> = to_server.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["join", "public", "command"]);
    assert_eq!(to_client, ["user_list", "command_list", "system", "public", "private", "error"]);

    // The server takes them as they stand.
    let server = TestServer::start(Transport::Ws);
    let mut bob = server.join("Bob Lee");
    let mut ann = server.connect();
    to_server.into_iter().for_each(|(_, message)| ann.send(message));
    assert_eq!(bob.next_line(), "system: Ann joined.");
    assert_eq!(bob.next_line(), "Ann: Hello, everybody");
    assert_eq!(bob.next_line(), "Ann to Bob Lee: see you later");
}

/// The server's own messages, and their fields in their order.
#[test]
fn what_the_server_says_is_what_the_examples_show() {
    let server = TestServer::start(Transport::Ws);
    let _ann = server.join("Ann");
    let mut bob = server.connect();
    bob.join("Ann");
    bob.join("Bob Lee");
    bob.command("/whisper Bob Lee see you later");
    let heard = ["error", "user_list", "command_list", "system", "private"].map(|kind| {
        let text = bob.next_text();
        assert!(text.starts_with(&format!(r#"{{"type":"{kind}""#)), "{text}");
        text
    });
    let section = section("The protocol");
    for text in heard {
        let kind = text.split(',').next().unwrap();
        let examples = || fenced(&section, "json").flat_map(str::lines);
        let example = examples().find(|example| example.starts_with(kind)).unwrap();
        let shown: Value = serde_json::from_str(example).unwrap();
        let said: Value = serde_json::from_str(&text).unwrap();
        // In the order of the text, for serde_json sorts them.
        let fields = |text: &str, value: &Value| {
            let mut fields: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            fields.sort_by_key(|field| text.find(&format!("\"{field}\":")));
            fields
        };
        assert_eq!(fields(example, &shown), fields(&text, &said), "{example}");
        if kind.contains("error") || kind.contains("command_list") {
            assert_eq!(shown["content"], said["content"]);
        }
    }
}

#[test]
fn what_check_finds_is_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    let host = "localhost".into();
    let request = Request { cert: cert.clone(), key: key.clone(), days: 365, host, force: false };
    self_signed::generate(&request).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let pairs = [("USE_SSL", "true"), ("SSL_CERT_PATH", cert), ("SSL_KEY_PATH", key)];
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let report = check(&Settings::from_pairs(pairs).unwrap(), None, in_an_hour);
    let lines = report.lines.replace(folder.path().to_str().unwrap(), "./certs");
    let section = section("TLS in three steps");
    assert!(fenced(&section, "text").any(|shown| shown == lines.trim_end()), "{lines}");
}

#[test]
fn every_source_file_is_listed_in_the_order_of_the_house() {
    let section = section("How it is built");
    let listed: Vec<String> =
        section.lines().filter_map(row).map(|(file, _)| file.trim_matches('`').to_owned()).collect();
    let mut expected = vec!["main.rs".to_owned(), "lib.rs".to_owned()];
    for module in modules("src/lib.rs") {
        if root().join(format!("src/{module}.rs")).is_file() {
            expected.push(format!("{module}.rs"));
        } else {
            expected.push(format!("{module}/mod.rs"));
            let inside = modules(&format!("src/{module}/mod.rs"));
            expected.extend(inside.iter().map(|inner| format!("{module}/{inner}.rs")));
        }
    }
    assert_eq!(listed, expected);
}

/// What stands between backticks in the headings and lists of the server's messages is in its source.
#[test]
fn every_message_in_the_troubleshooting_is_the_programs() {
    let source = source();
    let section = section("Troubleshooting");
    // What clients say is not ours to know.
    let (ours, theirs) = section.split_once("\n### In a client").unwrap();
    assert!(theirs.contains("CERTIFICATE_VERIFY_FAILED"));
    let headings = ours.lines().filter_map(|line| line.strip_prefix("### "));
    let first_cells = ours.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let end = line[1..].find(" | ").unwrap();
        &line[1..=end]
    });
    let mut seen = 0;
    for fragment in headings.chain(first_cells).flat_map(in_backticks) {
        assert!(source.contains(fragment), "{fragment:?} is said nowhere in src");
        seen += 1;
    }
    assert!(seen > 25, "the messages were not found: {seen}");
}

#[test]
fn the_examples_that_are_run_elsewhere_are_marked() {
    let readme = readme();
    for (mark, fence) in [("python client", "```python"), ("browser snippet", "```js")] {
        let mark = format!("<!-- example: {mark} -->\n{fence}\n");
        assert_eq!(readme.matches(&mark).count(), 1, "{mark}");
    }
}

#[test]
fn every_link_within_it_leads_somewhere() {
    let readme = readme();
    let anchors: Vec<String> = readme
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(anchor)
        .collect();
    let links: Vec<&str> = readme.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() > 5);
    for link in links {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link} in {anchors:?}");
    }
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// A section's text, up to the next of its rank.
fn section(title: &str) -> String {
    let readme = readme();
    let start = readme.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    let text = &readme[start + 1..];
    let end = text.find("\n## ").unwrap_or(text.len());
    text[..end].to_owned()
}

/// The first two cells of a table's row that begins with something in backticks.
fn row(line: &str) -> Option<(String, String)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let (name, second) = (cells.next()?, cells.next()?);
    name.starts_with('`').then(|| (name.to_owned(), second.to_owned()))
}

/// The insides of the fenced blocks of a language.
fn fenced<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let fence = format!("\n```{language}\n");
    let starts: Vec<usize> = text.match_indices(&fence).map(|(at, fence)| at + fence.len()).collect();
    starts.into_iter().map(|start| text[start..].split("\n```").next().unwrap())
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The modules that a file declares, in its order.
fn modules(file: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let lines = text.lines().map(|line| line.trim_start_matches("pub "));
    lines.filter_map(|line| Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())).collect()
}

/// All of the source, with strings over several lines in one, and with the two names of a TLS file put in.
fn source() -> String {
    let mut text = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&fs::read_to_string(path).unwrap());
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
