//! The command line (docs/configuration.md and docs/tls.md): help, `generate-certs`, `check`, and the exit status.

use std::net::TcpListener;

use tinychat::config::SETTINGS;

use crate::support::certificates::{
    P256, RSA, assert_no_key_material, create_key, folder_with_certificate, issue_through_middle,
};
use crate::support::client::Client;
use crate::support::program::{Folder, Output};

#[test]
fn help_shows_every_setting_with_its_default_and_no_secret() {
    let folder = Folder::new();
    folder.write(".env", "MOD_PASSWORD=from-the-file\n");
    for arguments in [&["--help"][..], &["-h"], &["help"], &["check", "--help"]] {
        let output = folder.tinychat(arguments).env("MOD_PASSWORD", "from-the-environment").run();
        assert_eq!((output.status, &*output.stderr), (Some(0), ""), "{output:?}");
        for setting in &SETTINGS {
            let flag = format!("--{} ", setting.name.to_lowercase().replace('_', "-"));
            let line = output.stdout.lines().find(|line| line.contains(&flag)).expect(&flag);
            let default = setting.default.map_or("unset]".into(), |default| format!("default {default}]"));
            assert!(line.contains(&format!("[{}, {default}", setting.name)), "{line}");
        }
        assert!(!output.stdout.contains("from-the"), "{output:?}");
    }
    let help = folder.tinychat(&["--help"]).run().stdout;
    assert!(help.contains("generate-certs") && help.contains("check") && help.contains(".env"), "{help}");
    let help = folder.tinychat(&["generate-certs", "--help"]).run().stdout;
    for default in ["./certs/server.crt", "./certs/server.key", "365", "localhost", "--force"] {
        assert!(help.contains(default), "{default} is not in {help}");
    }
}

#[test]
fn version_shows_the_version_of_the_package() {
    let output = Folder::new().tinychat(&["--version"]).run();
    assert_eq!(output.stdout, concat!("tinychat ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(output.status, Some(0));
}

#[test]
fn an_invalid_command_line_exits_with_2() {
    let folder = Folder::new();
    for (arguments, named) in [
        (&["--prot", "9000"][..], "--prot"),
        (&["--port"], "--port"),
        (&["serve"], "serve"),
        (&["check", "--force"], "--force"),
        (&["check", "now"], "now"),
        (&["generate-certs", "--port", "1"], "--port"),
        (&["--port", "0", "--port", "1"], "--port"),
        // A setting before the command would have no effect, so it is refused.
        (&["--port", "0", "check"], "--port"),
    ] {
        let output = folder.tinychat(arguments).run();
        assert_eq!(output.status, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(named), "{arguments:?}: {output:?}");
    }
    assert!(folder.files(".").is_empty());
}

#[test]
fn a_port_in_use_or_an_address_of_another_machine_exits_with_1() {
    let folder = Folder::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (host, port, remedy) in [
        ("127.0.0.1", &*port, "stop what listens there already, or set another PORT"),
        // TEST-NET-1 (RFC 5737), which no machine has.
        ("192.0.2.1", "0", "set HOST to an address of this machine"),
    ] {
        for level in ["info", "off"] {
            let output = folder.tinychat(&["--host", host, "--port", port, "--log-level", level]).run();
            assert_eq!(output.status, Some(1), "{output:?}");
            assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
            assert!(output.stderr.contains(&format!("Cannot listen on {host}:{port} (")), "{output:?}");
            assert!(output.stderr.contains(remedy), "{output:?}");
        }
    }
}

#[test]
fn generate_certs_prints_what_it_created_and_the_settings_to_set() {
    let folder = Folder::new();
    let stdout = generate(&folder, &[]);
    for text in [
        "localhost",
        "365 days",
        "USE_SSL=true\n",
        "SSL_CERT_PATH=./certs/server.crt\n",
        "SSL_KEY_PATH=./certs/server.key\n",
        "for testing",
    ] {
        assert!(stdout.contains(text), "{text:?} is not in {stdout}");
    }
    assert_no_key_material(&folder.path("certs/server.key"), &stdout);
    // The printed settings work as they are.
    let settings: Vec<&str> = stdout.lines().map(str::trim).filter(|line| line.contains('=')).collect();
    folder.write(".env", settings.join("\n"));
    let mut server = folder.tinychat(&["--port", "0"]).start();
    Client::trusting(&folder.path("certs/server.crt"), "localhost", server.address).join_and_wait("Ann");
    server.wait_for_line("Ann joined.");
    assert!(server.stop().contains("wss://127.0.0.1:"));
}

#[test]
fn a_certificate_is_valid_for_its_name_and_for_localhost() {
    for (host, name) in [
        ("chat.example.com", "chat.example.com"),
        ("Chat.Example.COM", "chat.example.com"),
        ("*.example.com", "chat.example.com"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
    ] {
        let folder = Folder::new();
        assert!(generate(&folder, &["--host", host]).contains(host));
        let server = folder.tinychat(&["--use-ssl", "--port", "0"]).start();
        for (number, name) in [name, "localhost", "127.0.0.1", "::1"].into_iter().enumerate() {
            let mut client = Client::trusting(&folder.path("certs/server.crt"), name, server.address);
            client.join_and_wait(&format!("Guest {number}"));
        }
    }
}

#[test]
fn folders_are_created_and_only_the_owner_can_read_the_key() {
    let folder = Folder::new();
    generate(&folder, &["--cert", "a/b/chat.crt", "--key", "c/chat.key"]);
    assert_eq!(folder.mode("c/chat.key"), 0o600);
    assert!(folder.read("a/b/chat.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(folder.read("c/chat.key").starts_with("-----BEGIN PRIVATE KEY-----"));

    let output = folder.tinychat_in_shell("umask 0; exec \"$@\"", &["generate-certs"]).run();
    assert_eq!(output.status, Some(0), "{output:?}");
    assert_eq!((folder.mode("certs/server.key"), folder.mode("certs/server.crt")), (0o600, 0o644));
}

#[test]
fn existing_files_are_replaced_only_with_force() {
    for present in [&["server.crt"][..], &["server.key"], &["server.crt", "server.key"]] {
        let folder = Folder::new();
        for name in present {
            folder.write(&format!("certs/{name}"), "mine");
            folder.set_mode(&format!("certs/{name}"), 0o644);
        }
        let error = cannot_generate(&folder, &[], 1);
        assert!(error.contains("already exists") && error.contains("--force"), "{error}");
        assert!(present.iter().any(|name| error.contains(&format!("./certs/{name}"))), "{error}");
        for name in ["server.crt", "server.key"] {
            let path = format!("certs/{name}");
            if present.contains(&name) {
                assert_eq!(folder.read(&path), "mine", "{path}");
            } else {
                assert!(!folder.path(&path).exists(), "{path}");
            }
        }
        generate(&folder, &["--force"]);
        assert!(folder.read("certs/server.crt").starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(folder.mode("certs/server.key"), 0o600);
        assert_eq!(folder.files("certs"), ["server.crt", "server.key"]);
        assert_eq!(folder.tinychat(&["check", "--use-ssl"]).run().status, Some(0));
    }
}

/// The key was once replaced although its certificate could not be.
#[test]
fn a_failed_replacement_changes_neither_file() {
    let folder = Folder::new();
    generate(&folder, &[]);
    let key = folder.read("certs/server.key");
    std::fs::create_dir(folder.path("taken")).unwrap();
    let error = cannot_generate(&folder, &["--force", "--cert", "taken"], 1);
    assert!(error.contains("taken cannot be written"), "{error}");
    assert_eq!(folder.read("certs/server.key"), key);
    assert_eq!(folder.files("certs"), ["server.crt", "server.key"]);
}

#[test]
fn a_failure_leaves_no_files() {
    let folder = Folder::new();
    folder.write("file", "mine");
    for (arguments, status, named) in [
        (&["--host", ""][..], 2, "not a host name or address"),
        (&["--host", "two words"], 2, "\"two words\" is not a host name or address"),
        (&["--host", "https://chat.example.com"], 2, "not a host name or address"),
        (&["--host", "chat.example.com:443"], 2, "not a host name or address"),
        (&["--host", "b\u{fc}cher.example"], 2, "xn--"),
        (&["--days", "0"], 2, "--days"),
        (&["--days", "36501"], 2, "36500"),
        (&["--days", "-1"], 2, "-1"),
        (&["--days", "many"], 2, "many"),
        (&["--cert", "one", "--key", "one"], 2, "choose two paths"),
        (&["--cert", "./one", "--key", "one", "--force"], 2, "choose two paths"),
        (&["--cert", "file/server.crt", "--key", "server.key"], 1, "file/server.crt cannot be written"),
        (&["--cert", "server.crt", "--key", "file/server.key"], 1, "file/server.key cannot be written"),
    ] {
        let error = cannot_generate(&folder, arguments, status);
        assert!(error.contains(named), "{arguments:?}: {error}");
        assert_eq!(folder.files("."), ["file"], "{arguments:?}");
    }
    assert_eq!(folder.read("file"), "mine");
}

#[test]
fn a_certificate_is_valid_for_the_requested_days() {
    let folder = Folder::new();
    for days in [1, 36_500] {
        generate(&folder, &["--force", "--days", &days.to_string()]);
        let report = check(&folder, &["--use-ssl"]);
        let left = report.lines().find_map(|line| line.strip_prefix("days left: ")).expect(&report);
        let left: i64 = left.parse().unwrap();
        assert!(left == days || left == days - 1, "{report}");
    }
}

#[test]
fn check_reports_the_certificate() {
    for (algorithm, key_type) in [(RSA, "RSA, 2048 bits"), (P256, "EC, P-256")] {
        let folder = folder_with_certificate(algorithm);
        issue_through_middle(&folder);
        folder.write("fullchain.pem", folder.read("server.crt") + &folder.read("middle.crt"));
        let arguments = ["--use-ssl", "--ssl-cert-path", "fullchain.pem", "--ssl-key-path", "server.key"];
        let report = check(&folder, &arguments);
        for line in [
            "settings: good",
            "certificate: fullchain.pem",
            "private key: server.key (belongs to the certificate)",
            "names: localhost",
            "issuer: CN=middle",
            "chain: the certificate and 1 more",
            &format!("key type: {key_type}"),
        ] {
            assert!(report.lines().any(|reported| reported == line), "{line:?} is not in {report}");
        }
        assert!(report.contains("days left: 29\n") || report.contains("days left: 30\n"), "{report}");
        assert_no_key_material(&folder.path("server.key"), &report);
    }
    let folder = Folder::new();
    generate(&folder, &["--host", "chat.example.com"]);
    let report = check(&folder, &["--use-ssl"]);
    assert!(report.contains("names: chat.example.com, localhost, 127.0.0.1, ::1\n"), "{report}");
    assert!(report.contains("self-signed") && report.contains("chain: the certificate alone"), "{report}");
}

#[test]
fn check_exits_with_the_status_of_a_start() {
    let folder = folder_with_certificate(P256);
    create_key(&folder, "other", P256);
    folder.write("empty.key", "");
    for (arguments, status, reported) in [
        (&["--use-ssl=false"][..], 0, "USE_SSL=false"),
        (&["--ssl-key-path", "none.key"], 0, "SSL private key not found: none.key"),
        (&["--ssl-key-path", "none.key"], 0, "warning: the server would fall back to unencrypted ws://"),
        (&["--ssl-key-path", "none.key", "--ssl-required"], 1, "SSL private key not found: none.key"),
        (&["--ssl-key-path", "other.key"], 1, "it does not belong to the private key other.key"),
        (&["--ssl-key-path", "empty.key"], 1, "SSL private key unusable: empty.key: it is empty"),
        (&["--ssl-cert-path", "none.crt", "--ssl-key-path", "empty.key"], 1, "empty.key: it is empty"),
    ] {
        let settings = [("USE_SSL", "true"), ("SSL_CERT_PATH", "server.crt"), ("SSL_KEY_PATH", "server.key")];
        let output = folder.tinychat(&[&["check"], arguments].concat()).envs(&settings).run();
        assert_eq!(output.status, Some(status), "{arguments:?}: {output:?}");
        assert!(output.stdout.contains(reported), "{arguments:?}: {output:?}");
        if status != 0 {
            let start = folder.tinychat(&[&["--port", "0"], arguments].concat()).envs(&settings).run();
            assert_eq!(start.status, Some(status), "{arguments:?}: {start:?}");
        }
    }
    let output = folder.tinychat(&["check", "--port", "many"]).run();
    assert_eq!(output.status, Some(2), "{output:?}");
    assert!(output.stderr.contains("PORT=\"many\""), "{output:?}");
}

#[test]
fn check_does_not_listen() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    check(&Folder::new(), &["--port", &port]);
}

/// Runs `generate-certs`, which must succeed, and returns what it prints.
fn generate(folder: &Folder, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = folder.tinychat(&[&["generate-certs"], arguments].concat()).run();
    assert_eq!((status, &*stderr), (Some(0), ""), "{arguments:?}: {stdout}");
    stdout
}

/// Runs `generate-certs`, which must fail with this status, and returns the error.
fn cannot_generate(folder: &Folder, arguments: &[&str], expected: i32) -> String {
    let Output { status, stdout, stderr } = folder.tinychat(&[&["generate-certs"], arguments].concat()).run();
    assert_eq!((status, &*stdout), (Some(expected), ""), "{arguments:?}: {stderr}");
    stderr
}

/// Runs `check`, which must find nothing wrong, and returns its report.
fn check(folder: &Folder, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = folder.tinychat(&[&["check"], arguments].concat()).run();
    assert_eq!((status, &*stderr), (Some(0), ""), "{arguments:?}: {stdout}");
    stdout
}
