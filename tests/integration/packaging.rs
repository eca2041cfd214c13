//! Files in `deploy/` that are generated from the program, so that they cannot differ from it: the manual pages, the
//! completions, the settings of the service, and the third-party notices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap_complete::{Shell, generate};
use tinychat::config::{SETTINGS, Settings};

use crate::support::manual;
use crate::support::notices;
use crate::support::package;
use crate::support::program::Folder;

const NOTICES: &str = "deploy/THIRD-PARTY-NOTICES.txt";

/// Writes the files: `cargo test --test integration generated_files -- --ignored`.
#[test]
#[ignore = "changes files in deploy/"]
fn generated_files_are_written() {
    for (path, content) in generated() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::write(path(NOTICES), notices::generate()).unwrap();
}

#[test]
fn generated_files_are_up_to_date() {
    for (path, content) in generated() {
        let current = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            current == content,
            "{path:?} differs from the program: run cargo test --test integration generated_files -- --ignored"
        );
    }
}

/// Without the feature, Cargo may not have downloaded all crates that the file is about.
#[cfg(feature = "cluster")]
#[test]
fn the_third_party_notices_are_up_to_date() {
    let current = read(NOTICES);
    assert!(current == notices::generate(), "run cargo test --test integration generated_files -- --ignored");
}

#[test]
fn the_third_party_notices_name_every_crate_in_the_program() {
    let named = notices::named_crates(&read(NOTICES));
    let features = if cfg!(feature = "cluster") { "cluster" } else { "" };
    let linked = notices::linked_crates(features, None);
    assert!(linked.len() > 50, "{linked:?}");
    let lock = read("Cargo.lock");
    let is_locked = |id: &str| {
        let (name, version) = id.split_once(' ').unwrap();
        lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n"))
    };
    let missing: Vec<&String> = linked.difference(&named).collect();
    let outdated: Vec<&String> = named.iter().filter(|id| !is_locked(id)).collect();
    assert!(
        missing.is_empty() && outdated.is_empty(),
        "missing: {missing:?}, outdated: {outdated:?}: run cargo test --test integration generated_files -- --ignored"
    );
}

#[test]
fn the_settings_of_the_service_are_the_defaults() {
    let folder = Folder::new();
    folder.write(".env", read("deploy/tinychat.env"));
    let output = folder.tinychat(&["check"]).run();
    assert!(output.stdout.starts_with("settings: good\nTLS: off"), "{output:?}");
    assert!(!read("deploy/tinychat.env").lines().any(|line| !line.starts_with('#') && !line.is_empty()));
}

/// Completes words with bash, which every development machine has.
#[test]
fn bash_completes_commands_flags_and_files() {
    let folder = Folder::new();
    folder.write("one.crt", "");
    let complete = |words: &[&str]| {
        let script = format!(
            "source {}; COMP_WORDS=(tinychat \"$@\"); COMP_CWORD=$#; _tinychat tinychat \"${{@: -1}}\" \"${{@: -2:1}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            path("deploy/completions/tinychat.bash").display()
        );
        folder.run_tool("bash", &[&["-c", &script, "bash"], words].concat())
    };
    assert_eq!(complete(&["hea"]), "health\n");
    assert_eq!(complete(&["moderator", "re"]), "remove\n");
    assert_eq!(complete(&["--max-connections-"]), "--max-connections-per-ip\n");
    assert_eq!(complete(&["check", "--ssl-cert-path", "one"]), "one.crt\n");
}

/// The newest entry of Debian's changelog is for this version.
#[test]
fn the_package_has_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("deploy/debian/changelog").starts_with(&format!("tinychat ({version}-")), "{version}");
}

/// Files that the package contains, and those that it sets the permissions of, exist under these names.
#[test]
fn the_package_contains_what_the_service_needs() {
    let mut packaged = vec!["usr/lib/systemd/system/tinychat.service".to_owned()];
    for (source, target) in package::assets() {
        assert!(source.starts_with("target/") || path(&source).is_file(), "{source}");
        packaged.push(target);
    }
    let unit = read("deploy/tinychat.service");
    let program = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/")).unwrap();
    let tmpfiles = read("deploy/tmpfiles.d/tinychat.conf");
    let settings =
        tmpfiles.lines().find_map(|line| line.strip_prefix("z /")).unwrap().split(' ').next().unwrap();
    let copyright = read("deploy/debian/copyright");
    let notices = copyright.lines().find_map(|line| line.strip_prefix(" /")?.strip_suffix('.')).unwrap();
    assert!(notices.ends_with("/THIRD-PARTY-NOTICES.txt"), "{notices}");
    let sysusers = "usr/lib/sysusers.d/tinychat.conf";
    for needed in [program, settings, sysusers, "usr/lib/tmpfiles.d/tinychat.conf", notices] {
        assert!(packaged.iter().any(|path| path == needed), "{needed}");
    }
    let folder = unit.lines().find_map(|line| line.strip_prefix("WorkingDirectory=")).unwrap();
    let link = tmpfiles.lines().find(|line| line.starts_with(&format!("L {folder}/.env ")));
    assert!(link.unwrap().ends_with(&format!(" /{settings}")), "{tmpfiles}");
}

/// The settings in the container exist and can be used, and its proxy is trusted.
#[test]
fn the_settings_of_the_container_can_be_used() {
    let compose = read("deploy/compose.yaml");
    let (_, settings) = compose.split_once("    environment:\n").unwrap();
    let settings = settings.lines().map_while(|line| line.strip_prefix("      ")?.split_once(": "));
    let mut settings: Vec<(&str, &str)> =
        settings.map(|(name, value)| (name, value.split("${").next().unwrap())).collect();
    for (name, value) in &mut settings {
        // What follows comes from the environment.
        match *name {
            "ALLOWED_ORIGINS" => *value = "https://chat.example.com",
            "MOD_PASSWORD" => *value = "secret",
            _ => {}
        }
    }
    let containerfile = read("deploy/Containerfile");
    settings.extend(containerfile.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('=')));
    for (name, _) in &settings {
        assert!(SETTINGS.iter().any(|setting| setting.name == *name), "{name}");
    }
    assert!(settings.contains(&("HOST", "0.0.0.0")), "{settings:?}");
    assert!(Settings::from_pairs(settings.iter().copied()).is_ok(), "{settings:?}");
    let (_, subnet) = settings.iter().find(|(name, _)| *name == "TRUSTED_PROXIES").unwrap();
    assert!(compose.contains(&format!("subnet: {subnet}}}")));
}

/// The files that the image is made from exist, and the licenses are among them.
#[test]
fn what_the_image_is_made_from_exists() {
    let containerfile = read("deploy/Containerfile");
    let copies = containerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copies = copies.filter(|line| !line.starts_with("--from"));
    let files: Vec<&str> = copies.flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' ')).collect();
    assert!(files.contains(&"LICENSE") && files.contains(&NOTICES), "{files:?}");
    for file in files {
        assert!(path(file).exists(), "{file}");
    }
}

/// The manual pages have no errors, where a program that reports them is installed.
#[test]
fn the_manual_pages_are_correct_roff() {
    if Command::new("mandoc").arg("-V").output().is_err() {
        eprintln!("skipped: mandoc is not installed (apt-get install mandoc)");
        return;
    }
    for page in ["tinychat.1", "tinychat.5", "tinychat-deploy-hook.8"] {
        let page = path("deploy/man").join(page);
        Folder::new().run_tool("mandoc", &["-T", "lint", "-W", "error", page.to_str().unwrap()]);
    }
}

fn generated() -> Vec<(PathBuf, String)> {
    let mut command = tinychat::cli::command();
    command.build();
    let example = read(".env.example");
    let configuration = read("docs/configuration.md");
    let completions = |shell: Shell| {
        let mut script = Vec::new();
        generate(shell, &mut tinychat::cli::command(), "tinychat", &mut script);
        // zsh gets trailing spaces.
        let script = String::from_utf8(script).unwrap();
        script.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    };
    [
        ("deploy/man/tinychat.1", manual::commands(&command)),
        ("deploy/man/tinychat.5", manual::settings(&example, |name| allowed(&configuration, name))),
        ("deploy/tinychat.env", manual::service_settings(&example)),
        ("deploy/completions/tinychat.bash", completions(Shell::Bash)),
        ("deploy/completions/_tinychat", completions(Shell::Zsh)),
        ("deploy/completions/tinychat.fish", completions(Shell::Fish)),
    ]
    .map(|(name, content)| (path(name), content))
    .into()
}

/// What docs/configuration.md says about the values of a setting, without links.
fn allowed(configuration: &str, name: &str) -> String {
    let row = configuration.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
    let cell = row.and_then(|row| row.split('|').nth(3)).unwrap_or_else(|| panic!("{name} has no row"));
    let mut text = String::new();
    for (at, part) in cell.trim().split(['[', ']']).enumerate() {
        // After a link's text comes its target.
        let is_after_link = at > 0 && at % 2 == 0;
        text += if is_after_link { part.split_once(')').map_or(part, |(_, rest)| rest) } else { part };
    }
    text.replace('`', "")
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
