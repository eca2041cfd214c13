//! Settings (docs/configuration.md): where they come from, and the errors for values that cannot be used.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use tinychat::config::{SETTINGS, Setting};

use crate::support::program::{Folder, Output, Program};

/// For every setting a value that it cannot have.
const INVALID: [(&str, &str); 31] = [
    ("HOST", "http://localhost"),
    ("PORT", "65536"),
    ("MOD_PASSWORD", "   "),
    ("JOIN_PASSWORD", "pbkdf2-sha256:600000:hunter2"),
    ("WEB_UI", "maybe"),
    ("USE_SSL", "perhaps"),
    ("SSL_CERT_PATH", " "),
    ("SSL_KEY_PATH", " "),
    ("SSL_REQUIRED", "2"),
    ("LOG_LEVEL", "loud"),
    ("DATABASE_PATH", " "),
    ("HISTORY_MESSAGES", "all"),
    ("HISTORY_DAYS", "-1"),
    ("RESUME_SECONDS", "30s"),
    ("MAX_CONNECTIONS", "0"),
    ("MAX_CONNECTIONS_PER_IP", "-1"),
    ("CONNECT_RATE", "-1"),
    ("JOIN_RATE", "0.5"),
    ("MESSAGE_RATE", "fast"),
    ("MESSAGE_BURST", "0"),
    ("MAX_SENDERS_PER_IP", "many"),
    ("MAX_MESSAGE_BYTES", "16k"),
    ("SEND_QUEUE_BYTES", "1"),
    ("HANDSHAKE_TIMEOUT", "0"),
    ("PING_INTERVAL", "0.5"),
    ("ALLOWED_ORIGINS", "chat.example.com"),
    ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ("METRICS_ALLOW", "everyone"),
    ("CLUSTER_URL", "https://:hunter2@localhost"),
    ("CLUSTER_NAME", "two words"),
    ("NODE_NAME", "a:b"),
];

#[test]
fn all_invalid_settings_are_reported_at_once() {
    let folder = Folder::new();
    assert_all_reported(folder.tinychat(&[]).envs(&INVALID));
    assert_all_reported(folder.tinychat(&["check"]).envs(&INVALID));

    let flags = INVALID.map(|(name, value)| format!("{}={value}", flag(name)));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    assert_all_reported(folder.tinychat(&flags));
    assert_all_reported(folder.tinychat(&[&["check"], &flags[..]].concat()));

    let lines = INVALID.map(|(name, value)| format!("{name}=\"{value}\""));
    folder.write(".env", lines.join("\n"));
    assert_all_reported(folder.tinychat(&[]));
}

#[test]
fn a_flag_overrides_the_environment_and_the_environment_overrides_the_file() {
    let folder = Folder::new();
    let error = |program| config_errors(program).concat();
    folder.write(".env", "PORT=file\n");
    assert!(error(folder.tinychat(&[])).starts_with("PORT=\"file\""));
    assert!(error(folder.tinychat(&[]).env("PORT", "environment")).starts_with("PORT=\"environment\""));
    for arguments in [&["--port", "flag"][..], &["--port=flag"], &["check", "--port", "flag"]] {
        let program = folder.tinychat(arguments).env("PORT", "environment");
        assert!(error(program).starts_with("PORT=\"flag\""), "{arguments:?}");
    }
    // An overridden value may be invalid.
    folder.tinychat(&["--port", "0"]).env("PORT", "environment").start().stop();
}

#[test]
fn only_the_env_file_in_the_working_directory_is_read() {
    let folder = Folder::new();
    folder.write(".env", "PORT=bad\n");
    folder.write("below/file", "");
    let output = folder.tinychat_in_shell("cd below; exec \"$@\"", &["check"]).run();
    assert_eq!(output.status, Some(0), "{output:?}");
}

#[test]
fn a_boolean_flag_needs_no_value() {
    let folder = Folder::new();
    for (arguments, is_on) in [
        (&["--use-ssl"][..], true),
        (&["--use-ssl", "true"], true),
        (&["--use-ssl=ON"], true),
        (&["--use-ssl", "--ssl-required", "no"], true),
        (&["--use-ssl", "false"], false),
        (&[], false),
    ] {
        let report = folder.tinychat(&[&["check"], arguments].concat()).run().stdout;
        assert_eq!(report.contains("SSL certificate not found"), is_on, "{arguments:?}: {report}");
        assert_eq!(report.contains("USE_SSL=false"), !is_on, "{arguments:?}: {report}");
    }
}

#[test]
fn ssl_required_without_use_ssl_is_refused() {
    let errors = config_errors(Folder::new().tinychat(&["--ssl-required"]));
    assert!(errors.concat().contains("USE_SSL=true"), "{errors:?}");
}

#[test]
fn a_value_that_is_not_utf8_is_refused_and_not_shown() {
    let folder = Folder::new();
    for name in ["PORT", "MOD_PASSWORD", "JOIN_PASSWORD", "SSL_CERT_PATH"] {
        let value = || OsString::from_vec(b"hunter2\xFF".into());
        let flag = flag(name);
        for program in [folder.tinychat(&[]).env(name, value()), folder.tinychat(&[&flag]).arg(value())] {
            let errors = config_errors(program).concat();
            assert!(errors.starts_with(&format!("{name}: ")) && !errors.contains("hunter2"), "{errors}");
        }
    }
}

#[test]
fn errors_do_not_show_a_password() {
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
        let errors = config_errors(folder.tinychat(&[])).concat();
        assert!(errors.contains(".env: line 2 is not NAME=value"), "{line:?}: {errors}");
        assert!(!errors.contains("hunter2"), "{line:?}: {errors}");
    }
    let folder = Folder::new();
    for arguments in [
        &["--mod-password", "hunter2", "--port", "many"][..],
        &["--mod-password=hunter2", "--color"],
        &["--mod-password=hunter2", "serve"],
        &["--mod-password=hunter2", "--mod-password=hunter2"],
        &["--mod-password", "hunter2", "check"],
        &["--mod-passwort=hunter2"],
        &["generate-certs", "--mod-password=hunter2"],
        &["check", "--mod-password", "hunter2", "--port", "many"],
        // Passwords with a space, a typographic dash, and a password without its flag.
        &["--mod-password", "my", "hunter2"],
        &["--mod-password=my", "--hunter2"],
        &["--mod-password=", "hunter2"],
        &["check", "--mod-password", "my", "hunter2"],
        &["\u{2014}mod-password=hunter2"],
        &["MOD_PASSWORD=hunter2"],
        &["--cluster-url", "redis://:my", "hunter2@localhost"],
    ] {
        let output = folder.tinychat(arguments).env("MOD_PASSWORD", "hunter2 too").run();
        assert_eq!(output.status, Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.contains("hunter2") && !output.stdout.contains("hunter2"), "{output:?}");
    }
}

/// Such a line may hold two settings, one of them a password.
#[test]
fn a_value_with_control_characters_is_not_shown() {
    let folder = Folder::new();
    for separator in ["\0", "\r", "\u{85}", "\u{b}", "\u{c}", "\u{2028}"] {
        for name in ["PORT", "SSL_CERT_PATH"] {
            folder.write(".env", format!("{name}=1{separator}MOD_PASSWORD=hunter2\nUSE_SSL=true\n"));
            for arguments in [&[][..], &["check"]] {
                let errors = config_errors(folder.tinychat(arguments)).concat();
                let start = format!(
                    "{name} (its value is not shown, because it contains control characters) cannot be used: "
                );
                assert!(errors.starts_with(&start) && !errors.contains("hunter2"), "{errors}");
            }
        }
    }
    let errors = config_errors(folder.tinychat(&["--port", "1\nMOD_PASSWORD=hunter2"])).concat();
    assert!(errors.contains("PORT (its value is not shown") && !errors.contains("hunter2"), "{errors}");
}

#[test]
fn env_files_may_have_any_common_encoding_and_quoting() {
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
fn unreadable_env_files_are_refused() {
    let folder = Folder::new();
    let error = |folder: &Folder| config_errors(folder.tinychat(&[])).concat();
    folder.write(".env", b"MOD_PASSWORD=hunter\xFC\n");
    let not_text = error(&folder);
    assert!(not_text.contains(".env: is not text; save it as UTF-8"), "{not_text}");
    assert!(!not_text.contains("hunter"), "{not_text}");

    folder.write(".env", "#".repeat(1024 * 1024 + 1));
    assert!(error(&folder).contains(".env: cannot be read (it is larger than 1 MiB)"));

    folder.write(".env", "MOD_PASSWORD=hunter2\n");
    folder.set_mode(".env", 0o000);
    let no_permission = config_errors(folder.tinychat_as_nobody(&[])).concat();
    assert!(no_permission.contains(".env: cannot be read (Permission denied"), "{no_permission}");

    let folder = Folder::new();
    folder.write(".env/file", "");
    assert!(error(&folder).contains(".env: cannot be read (it is not a file)"));

    let folder = Folder::new();
    folder.run_tool("mkfifo", &[".env"]);
    assert!(error(&folder).contains(".env: cannot be read (it is not a file)"));
}

#[test]
fn the_example_env_file_shows_every_default_and_starts_the_server() {
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example")).unwrap();
    let shown: Vec<(bool, &str, &str)> = example
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.starts_with('#'), name.trim_start_matches('#'), value))
        .filter(|(_, name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    // A setting without a default is commented out.
    let row =
        |setting: &Setting| (setting.default.is_none(), setting.name, setting.default.unwrap_or_default());
    assert_eq!(shown, SETTINGS.iter().map(row).collect::<Vec<_>>());

    let folder = Folder::new();
    folder.write(".env", &example);
    let server = folder.tinychat(&["--port", "0"]).start();
    server.join("Ann").leave();
    assert!(server.stop().contains("WebSocket server running: ws://127.0.0.1:"));

    // Uncommenting a line without a value sets nothing.
    folder.write(
        ".env",
        example
            .replace("\n#MOD_", "\nMOD_")
            .replace("\n#JOIN_", "\nJOIN_")
            .replace("\n#ALLOWED", "\nALLOWED")
            .replace("\n#TRUSTED", "\nTRUSTED"),
    );
    let output = folder.tinychat(&["check"]).run();
    assert_eq!(output.status, Some(0), "{output:?}");
}

/// Asserts that the program refuses to start because of its settings, and returns the lines that say why.
fn config_errors(program: Program) -> Vec<String> {
    let Output { status, stdout, stderr } = program.run();
    assert_eq!((status, &*stdout), (Some(2), ""), "{stderr}");
    let mut lines = stderr.lines().map(str::to_owned);
    assert_eq!(lines.next().unwrap(), "TinyChat cannot start with these settings:");
    lines.map(|line| line.trim().to_owned()).collect()
}

/// Asserts that every one of [`INVALID`] is reported, with its value and what is allowed.
fn assert_all_reported(program: Program) {
    let errors = config_errors(program);
    assert_eq!(errors.len(), SETTINGS.len(), "{errors:#?}");
    for (name, value) in INVALID {
        let is_reported = match name {
            "MOD_PASSWORD" => {
                let error = "MOD_PASSWORD (its value is not shown) cannot be used: it must not be blank";
                errors.iter().any(|line| line.starts_with(error))
            }
            "JOIN_PASSWORD" => {
                let error =
                    "JOIN_PASSWORD (its value is not shown) cannot be used: it must be a password, or a hash";
                errors.iter().any(|line| line.starts_with(error) && !line.contains("hunter2"))
            }
            "CLUSTER_URL" => {
                let error = "CLUSTER_URL (its value is not shown, because it contains a password or a ${NAME}) \
                             cannot be used: it must be a URL";
                errors.iter().any(|line| line.starts_with(error) && !line.contains("hunter2"))
            }
            _ => {
                let start = format!("{name}={value:?} cannot be used: it must be ");
                errors.iter().any(|line| line.len() > start.len() && line.starts_with(&start))
            }
        };
        assert!(is_reported, "{name}: {errors:#?}");
    }
}

fn flag(name: &str) -> String {
    format!("--{}", name.to_lowercase().replace('_', "-"))
}

/// Starts a server with this `.env` file, and asserts that it sets this moderators' password and does not log it.
fn assert_password(content: impl AsRef<[u8]>, password: &str) {
    let folder = Folder::new();
    let shown = String::from_utf8_lossy(content.as_ref()).into_owned();
    folder.write(".env", content);
    let mut server = folder.tinychat(&["--port", "0", "--log-level", "trace"]).start();
    let mut ann = server.join("Ann");
    ann.command(&format!("/login {password}"));
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.", "{shown:?}");
    server.wait_for_line("Ann is now a moderator.");
    drop(ann);
    let log = server.stop();
    assert!(!log.contains(password), "{log}");
}
