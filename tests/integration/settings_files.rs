//! SPEC.md part 3: where settings come from, and what is said of those that cannot be used.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use tinychat::config::{SETTINGS, Setting};

use crate::program::{Ended, Folder, Program};

/// A value for every setting that it cannot have.
const BAD: [(&str, &str); 20] = [
    ("HOST", "http://localhost"),
    ("PORT", "65536"),
    ("MOD_PASSWORD", "   "),
    ("WEB_UI", "maybe"),
    ("USE_SSL", "perhaps"),
    ("SSL_CERT_PATH", " "),
    ("SSL_KEY_PATH", " "),
    ("SSL_REQUIRED", "2"),
    ("LOG_LEVEL", "loud"),
    ("MAX_CONNECTIONS", "0"),
    ("MAX_CONNECTIONS_PER_IP", "-1"),
    ("MESSAGE_RATE", "fast"),
    ("MESSAGE_BURST", "0"),
    ("MAX_MESSAGE_BYTES", "16k"),
    ("SEND_QUEUE_BYTES", "1"),
    ("HANDSHAKE_TIMEOUT", "0"),
    ("PING_INTERVAL", "0.5"),
    ("ALLOWED_ORIGINS", "chat.example.com"),
    ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ("METRICS_ALLOW", "anybody"),
];

/// Asserts that the start was refused for the settings, and returns the lines that say why.
fn mistakes(program: Program) -> Vec<String> {
    let Ended { status, stdout, stderr } = program.run();
    assert_eq!((status, &*stdout), (Some(2), ""), "{stderr}");
    let mut lines = stderr.lines().map(str::to_owned);
    assert_eq!(lines.next().unwrap(), "TinyChat cannot start with these settings:");
    lines.map(|line| line.trim().to_owned()).collect()
}

fn assert_all_bad(program: Program) {
    let lines = mistakes(program);
    assert_eq!(lines.len(), SETTINGS.len(), "{lines:#?}");
    for (name, value) in BAD {
        let begins = match name {
            "MOD_PASSWORD" => {
                "MOD_PASSWORD (its value is not shown) cannot be used: it must not be blank".into()
            }
            _ => format!("{name}={value:?} cannot be used: it must be "),
        };
        let line = lines.iter().find(|line| line.starts_with(&begins));
        assert!(
            line.is_some_and(|line| line.len() > begins.len() || name == "MOD_PASSWORD"),
            "{begins}: {lines:#?}"
        );
    }
}

fn as_flags(pairs: &[(&str, &str)]) -> Vec<String> {
    let flag = |(name, value): &(&str, &str)| format!("--{}={value}", name.to_lowercase().replace('_', "-"));
    pairs.iter().map(flag).collect()
}

#[test]
fn all_mistakes_are_told_at_once_wherever_they_are() {
    let folder = Folder::new();
    assert_all_bad(folder.tinychat(&[]).envs(&BAD));
    assert_all_bad(folder.tinychat(&["check"]).envs(&BAD));

    let flags = as_flags(&BAD);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    assert_all_bad(folder.tinychat(&flags));
    assert_all_bad(folder.tinychat(&[&["check"], &flags[..]].concat()));

    let lines: Vec<String> = BAD.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    folder.write(".env", lines.join("\n"));
    assert_all_bad(folder.tinychat(&[]));
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
    let folder = Folder::new();
    let told = |program| mistakes(program).concat();
    folder.write(".env", "PORT=file\n");
    assert!(told(folder.tinychat(&[])).starts_with("PORT=\"file\""));
    assert!(told(folder.tinychat(&[]).env("PORT", "environment")).starts_with("PORT=\"environment\""));
    for arguments in [&["--port", "flag"][..], &["--port=flag"], &["check", "--port", "flag"]] {
        let program = folder.tinychat(arguments).env("PORT", "environment");
        assert!(told(program).starts_with("PORT=\"flag\""), "{arguments:?}");
    }
    // What is won over does not matter, however bad.
    folder.tinychat(&["--port", "0"]).env("PORT", "environment").start().stop();
}

#[test]
fn the_file_is_that_of_the_working_directory_alone() {
    let folder = Folder::new();
    folder.write(".env", "PORT=bad\n");
    folder.write("below/file", "");
    let ended = folder.tinychat_in_shell("cd below; exec \"$@\"", &["check"]).run();
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

#[test]
fn switches_stand_alone_or_with_a_value() {
    let folder = Folder::new();
    for (arguments, on) in [
        (&["--use-ssl"][..], true),
        (&["--use-ssl", "true"], true),
        (&["--use-ssl=ON"], true),
        (&["--use-ssl", "--ssl-required", "no"], true),
        (&["--use-ssl", "false"], false),
        (&[], false),
    ] {
        let said = folder.tinychat(&[&["check"], arguments].concat()).run().stdout;
        assert_eq!(said.contains("SSL certificate not found"), on, "{arguments:?}: {said}");
        assert_eq!(said.contains("USE_SSL=false"), !on, "{arguments:?}: {said}");
    }
}

#[test]
fn what_would_serve_plaintext_where_tls_is_required_is_refused() {
    let lines = mistakes(Folder::new().tinychat(&["--ssl-required"]));
    assert!(lines.concat().contains("USE_SSL=true"), "{lines:?}");
}

#[test]
fn a_value_that_is_no_text_is_refused_and_not_shown() {
    let folder = Folder::new();
    for name in ["PORT", "MOD_PASSWORD", "SSL_CERT_PATH"] {
        let value = || OsString::from_vec(b"hunter2\xFF".into());
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        for program in [folder.tinychat(&[]).env(name, value()), folder.tinychat(&[&flag]).arg(value())] {
            let lines = mistakes(program).concat();
            assert!(lines.starts_with(&format!("{name}: ")) && !lines.contains("hunter2"), "{lines}");
        }
    }
}

#[test]
fn a_password_is_not_told_by_mistake() {
    let folder = Folder::new();
    for line in [
        "hunter2",
        "MOD_PASSWORD hunter2",
        "MOD_PASSWORD: hunter2",
        "MOD PASSWORD=hunter2",
        "MOD_PASSWORD='hunter2' hunter2",
        "MOD_PASSWORD=\"hunter2",
        "MOD_PASSWORD='hunter2",
        "MOD_PASSWORD='hunter2\nmore\nlines",
        "-hunter2=x",
    ] {
        folder.write(".env", format!("# A comment\n{line}\n"));
        let lines = mistakes(folder.tinychat(&[])).concat();
        assert!(lines.contains(".env: line 2 is not NAME=value"), "{line:?}: {lines}");
        assert!(!lines.contains("hunter2"), "{line:?}: {lines}");
    }
    let folder = Folder::new();
    for arguments in [
        &["--mod-password", "hunter2", "--port", "many"][..],
        &["--mod-password=hunter2", "--colour"],
        &["--mod-password=hunter2", "serve"],
        &["--mod-password=hunter2", "--mod-password=hunter2"],
        &["--mod-password", "hunter2", "check"],
        &["--mod-passwort=hunter2"],
        &["generate-certs", "--mod-password=hunter2"],
        &["check", "--mod-password", "hunter2", "--port", "many"],
    ] {
        let ended = folder.tinychat(arguments).env("MOD_PASSWORD", "hunter2 too").run();
        assert_eq!(ended.status, Some(2), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.contains("hunter2") && !ended.stdout.contains("hunter2"), "{ended:?}");
    }
}

/// Starts with this file, and asserts that the moderators' password is this.
fn assert_password(content: impl AsRef<[u8]>, password: &str) {
    let folder = Folder::new();
    let shown = String::from_utf8_lossy(content.as_ref()).into_owned();
    folder.write(".env", content);
    let mut server = folder.tinychat(&["--port", "0", "--log-level", "trace"]).start();
    let mut ann = server.join("Ann");
    ann.command(&format!("/login {password}"));
    assert_eq!(ann.hears(), "system: Ann is now a moderator.", "{shown:?}");
    server.hears("Ann is now a moderator.");
    drop(ann);
    let log = server.stop();
    assert!(!log.contains(password), "{log}");
}

#[test]
fn files_are_read_as_people_and_their_editors_write_them() {
    let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("\u{feff}{text}").encode_utf16().flat_map(bytes).collect()
    };
    assert_password("MOD_PASSWORD=hunter2", "hunter2");
    assert_password("\u{feff}MOD_PASSWORD=hunter2\n", "hunter2");
    assert_password(utf16("MOD_PASSWORD=hunter\u{fc}\r\n", u16::to_le_bytes), "hunter\u{fc}");
    assert_password(utf16("MOD_PASSWORD=hunter\u{fc}\r\n", u16::to_be_bytes), "hunter\u{fc}");
    assert_password("\r\nLOG_LEVEL=info\r\nMOD_PASSWORD=hunter2\r\n", "hunter2");
    assert_password("export MOD_PASSWORD=hunter2\n", "hunter2");
    assert_password("MOD_PASSWORD='hunter # 2'\n", "hunter # 2");
    assert_password("MOD_PASSWORD=\"hunter 2\"   # not hunter3\n", "hunter 2");
    assert_password("MOD_PASSWORD=pa$$word$HOME\n", "pa$$word$HOME");
    assert_password("MOD_PASSWORD=\"pa$$word\"\n", "pa$$word");
    assert_password("  MOD_PASSWORD =  hunter2  \n", "hunter2");
    assert_password("# The password:\nMOD_PASSWORD=hunter2 # for all\n#MOD_PASSWORD=hunter3\n", "hunter2");
    assert_password("MOD_PASSWORD=hunter#2\n", "hunter#2");
    assert_password("SOMETHING_ELSE=1\nMOD_PASSWORD=hunter1\nMOD_PASSWORD=hunter2\n", "hunter2");
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let folder = Folder::new();
    folder.write(".env", b"MOD_PASSWORD=hunter\xFC\n");
    let lines = mistakes(folder.tinychat(&[])).concat();
    assert!(lines.contains(".env: is not text; save it as UTF-8") && !lines.contains("hunter"), "{lines}");

    folder.write(".env", "#".repeat(1024 * 1024 + 1));
    assert!(
        mistakes(folder.tinychat(&[])).concat().contains(".env: cannot be read (it is larger than 1 MiB)")
    );

    folder.write(".env", "MOD_PASSWORD=hunter2\n");
    folder.set_mode(".env", 0o000);
    let lines = mistakes(folder.tinychat_as_nobody(&[])).concat();
    assert!(lines.contains(".env: cannot be read (Permission denied"), "{lines}");

    let folder = Folder::new();
    folder.write(".env/file", "");
    assert!(mistakes(folder.tinychat(&[])).concat().contains(".env: cannot be read (it is not a file)"));

    let folder = Folder::new();
    folder.tool("mkfifo", &[".env"]);
    assert!(mistakes(folder.tinychat(&[])).concat().contains(".env: cannot be read (it is not a file)"));
}

#[test]
fn the_example_starts_the_server_and_shows_every_default() {
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example")).unwrap();
    let shown: Vec<(bool, &str, &str)> = example
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.starts_with('#'), name.trim_start_matches('#'), value))
        .filter(|(_, name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    // What is unset is shown behind a `#`.
    let row =
        |setting: &Setting| (setting.default.is_none(), setting.name, setting.default.unwrap_or_default());
    assert_eq!(shown, SETTINGS.iter().map(row).collect::<Vec<_>>());

    let folder = Folder::new();
    folder.write(".env", &example);
    let server = folder.tinychat(&["--port", "0"]).start();
    server.join("Ann").leave();
    assert!(server.stop().contains("WebSocket server running: ws://127.0.0.1:"));

    // Taking the # away sets nothing.
    folder.write(
        ".env",
        example
            .replace("\n#MOD_", "\nMOD_")
            .replace("\n#ALLOWED", "\nALLOWED")
            .replace("\n#TRUSTED", "\nTRUSTED"),
    );
    let ended = folder.tinychat(&["check"]).run();
    assert_eq!(ended.status, Some(0), "{ended:?}");
}
