//! SPEC.md part 4: the command line.

use std::net::TcpListener;

use tinychat::config::SETTINGS;

use crate::client::Client;
use crate::program::{Ended, Folder, assert_tells_nothing_of};
use crate::tls_files::{P256, RSA, folder_with_pair, issue, make_key};

#[test]
fn help_shows_every_setting_with_its_default_and_no_secret() {
    let folder = Folder::new();
    folder.write(".env", "MOD_PASSWORD=from-the-file\n");
    for arguments in [&["--help"][..], &["-h"], &["help"], &["check", "--help"]] {
        let ended = folder.tinychat(arguments).env("MOD_PASSWORD", "from-the-environment").run();
        assert_eq!((ended.status, &*ended.stderr), (Some(0), ""), "{ended:?}");
        for setting in &SETTINGS {
            let flag = format!("--{} ", setting.name.to_lowercase().replace('_', "-"));
            let line = ended.stdout.lines().find(|line| line.contains(&flag)).expect(&flag);
            let default = setting.default.map_or("unset]".into(), |default| format!("default {default}]"));
            assert!(line.contains(&format!("[{}, {default}", setting.name)), "{line}");
        }
        assert!(!ended.stdout.contains("from-the"), "{ended:?}");
    }
    let help = folder.tinychat(&["--help"]).run().stdout;
    assert!(help.contains("generate-certs") && help.contains("check") && help.contains(".env"), "{help}");
    let help = folder.tinychat(&["generate-certs", "--help"]).run().stdout;
    for default in ["./certs/server.crt", "./certs/server.key", "365", "localhost", "--force"] {
        assert!(help.contains(default), "{default} is not in {help}");
    }
}

#[test]
fn version_is_the_packages() {
    let ended = Folder::new().tinychat(&["--version"]).run();
    assert_eq!(ended.stdout, concat!("tinychat ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(ended.status, Some(0));
}

#[test]
fn a_wrong_command_line_is_refused_with_2() {
    let folder = Folder::new();
    for (arguments, named) in [
        (&["--prot", "9000"][..], "--prot"),
        (&["--port"], "--port"),
        (&["serve"], "serve"),
        (&["check", "--force"], "--force"),
        (&["check", "now"], "now"),
        (&["generate-certs", "--port", "1"], "--port"),
        (&["--port", "0", "--port", "1"], "--port"),
        // A flag that would not be heeded is not passed over.
        (&["--port", "0", "check"], "--port"),
    ] {
        let ended = folder.tinychat(arguments).run();
        assert_eq!(ended.status, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(named), "{arguments:?}: {ended:?}");
    }
    assert!(folder.files().is_empty());
}

#[test]
fn a_port_in_use_and_an_address_of_another_machine_are_no_start() {
    let folder = Folder::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (host, port, remedy) in [
        ("127.0.0.1", &*port, "stop what listens there already, or set another PORT"),
        // TEST-NET-1: nobody's.
        ("192.0.2.1", "0", "set HOST to an address of this machine"),
    ] {
        for level in ["info", "off"] {
            let ended = folder.tinychat(&["--host", host, "--port", port, "--log-level", level]).run();
            assert_eq!(ended.status, Some(1), "{ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
            assert!(ended.stderr.contains(&format!("Cannot listen on {host}:{port} (")), "{ended:?}");
            assert!(ended.stderr.contains(remedy), "{ended:?}");
        }
    }
}

/// Makes a pair, which must be possible.
fn generate(folder: &Folder, arguments: &[&str]) -> String {
    let arguments: Vec<&str> = [&["generate-certs"], arguments].concat();
    let ended = folder.tinychat(&arguments).run();
    assert_eq!((ended.status, &*ended.stderr), (Some(0), ""), "{arguments:?}: {ended:?}");
    ended.stdout
}

/// Tries to make a pair, which must not be possible.
fn cannot_generate(folder: &Folder, arguments: &[&str], status: i32) -> String {
    let arguments: Vec<&str> = [&["generate-certs"], arguments].concat();
    let ended = folder.tinychat(&arguments).run();
    assert_eq!((ended.status, &*ended.stdout), (Some(status), ""), "{arguments:?}: {ended:?}");
    ended.stderr
}

#[test]
fn a_pair_is_made_and_the_settings_for_it_are_told() {
    let folder = Folder::new();
    let said = generate(&folder, &[]);
    for told in [
        "localhost",
        "365 days",
        "USE_SSL=true\n",
        "SSL_CERT_PATH=./certs/server.crt\n",
        "SSL_KEY_PATH=./certs/server.key\n",
        "for testing",
    ] {
        assert!(said.contains(told), "{told:?} is not in {said}");
    }
    assert_tells_nothing_of(&folder.path("certs/server.key"), &said);
    // The settings that were told, as they were told.
    let settings: Vec<&str> = said.lines().map(str::trim).filter(|line| line.contains('=')).collect();
    folder.write(".env", settings.join("\n"));
    let mut server = folder.tinychat(&["--port", "0"]).start();
    Client::trusting(&folder.path("certs/server.crt"), "localhost", server.address).enter("Ann");
    server.hears("Ann joined.");
    assert!(server.stop().contains("wss://127.0.0.1:"));
}

#[test]
fn a_pair_is_good_for_its_name_and_for_this_machine() {
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
            client.enter(&format!("Guest {number}"));
        }
    }
}

#[test]
fn the_folders_are_made_and_the_key_is_for_its_owner_alone() {
    let folder = Folder::new();
    generate(&folder, &["--cert", "a/b/chat.crt", "--key", "c/chat.key"]);
    assert_eq!(folder.mode("c/chat.key"), 0o600);
    assert!(folder.read("a/b/chat.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(folder.read("c/chat.key").starts_with("-----BEGIN PRIVATE KEY-----"));

    let ended = folder.tinychat_in_shell("umask 0; exec \"$@\"", &["generate-certs"]).run();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!((folder.mode("certs/server.key"), folder.mode("certs/server.crt")), (0o600, 0o644));
}

#[test]
fn what_is_there_is_replaced_only_by_force() {
    for present in [&["server.crt"][..], &["server.key"], &["server.crt", "server.key"]] {
        let folder = Folder::new();
        for name in present {
            folder.write(&format!("certs/{name}"), "mine");
            folder.set_mode(&format!("certs/{name}"), 0o644);
        }
        let said = cannot_generate(&folder, &[], 1);
        assert!(said.contains("already exists") && said.contains("--force"), "{said}");
        assert!(present.iter().any(|name| said.contains(&format!("./certs/{name}"))), "{said}");
        for name in ["server.crt", "server.key"] {
            let path = format!("certs/{name}");
            let mine = present.contains(&name).then(|| folder.read(&path));
            assert_eq!(mine.as_deref(), present.contains(&name).then_some("mine"));
            assert_eq!(folder.path(&path).exists(), mine.is_some(), "{path}");
        }
        generate(&folder, &["--force"]);
        assert!(folder.read("certs/server.crt").starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(folder.mode("certs/server.key"), 0o600);
        let left = std::fs::read_dir(folder.path("certs")).unwrap().count();
        assert_eq!(left, 2, "nothing but the pair is left");
        assert_eq!(folder.tinychat(&["check", "--use-ssl"]).run().status, Some(0));
    }
}

/// The key was once replaced although its certificate could not be.
#[test]
fn a_pair_that_cannot_be_replaced_whole_stays_whole() {
    let folder = Folder::new();
    generate(&folder, &[]);
    let key = folder.read("certs/server.key");
    std::fs::create_dir(folder.path("taken")).unwrap();
    let said = cannot_generate(&folder, &["--force", "--cert", "taken"], 1);
    assert!(said.contains("taken cannot be written"), "{said}");
    assert_eq!(folder.read("certs/server.key"), key);
    assert_eq!(std::fs::read_dir(folder.path("certs")).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    let folder = Folder::new();
    folder.write("file", "mine");
    for (arguments, status, named) in [
        (&["--host", ""][..], 2, "is not a host name or address"),
        (&["--host", "two words"], 2, "\"two words\" is not a host name or address"),
        (&["--host", "https://chat.example.com"], 2, "is not a host name or address"),
        (&["--host", "chat.example.com:443"], 2, "is not a host name or address"),
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
        let said = cannot_generate(&folder, arguments, status);
        assert!(said.contains(named), "{arguments:?}: {said}");
        assert_eq!(folder.files(), ["file"], "{arguments:?}");
    }
    assert_eq!(folder.read("file"), "mine");
}

#[test]
fn a_pair_is_valid_for_the_days_that_were_asked_for() {
    let folder = Folder::new();
    for days in [1, 36_500] {
        generate(&folder, &["--force", "--days", &days.to_string()]);
        let said = check(&folder, &["--use-ssl"], 0).stdout;
        let left: i64 =
            said.lines().find_map(|line| line.strip_prefix("days left: ")).expect(&said).parse().unwrap();
        assert!(left == days || left == days - 1, "{said}");
    }
}

fn check(folder: &Folder, arguments: &[&str], status: i32) -> Ended {
    let ended = folder.tinychat(&[&["check"], arguments].concat()).run();
    assert_eq!((ended.status, &*ended.stderr), (Some(status), ""), "{ended:?}");
    ended
}

#[test]
fn check_says_what_it_found() {
    for (algorithm, key_type) in [(RSA, "RSA, 2048 bits"), (P256, "EC, P-256")] {
        let folder = folder_with_pair(algorithm);
        make_key(&folder, "middle", P256);
        issue(&folder, "middle", "ca", "root");
        issue(&folder, "server", "leaf", "middle");
        folder.write("fullchain.pem", folder.read("server.crt") + &folder.read("middle.crt"));
        let pair = ["--use-ssl", "--ssl-cert-path", "fullchain.pem", "--ssl-key-path", "server.key"];
        let said = check(&folder, &pair, 0).stdout;
        for line in [
            "settings: good",
            "certificate: fullchain.pem",
            "private key: server.key (belongs to the certificate)",
            "names: localhost",
            "issuer: CN=middle",
            "chain: the certificate and 1 more",
            &format!("key type: {key_type}"),
        ] {
            assert!(said.lines().any(|said| said == line), "{line:?} is not in {said}");
        }
        assert!(said.contains("days left: 29") || said.contains("days left: 30"), "{said}");
        assert_tells_nothing_of(&folder.path("server.key"), &said);
    }
    let folder = Folder::new();
    generate(&folder, &["--host", "chat.example.com"]);
    let said = check(&folder, &["--use-ssl"], 0).stdout;
    assert!(said.contains("names: chat.example.com, localhost, 127.0.0.1, ::1\n"), "{said}");
    assert!(said.contains("self-signed") && said.contains("chain: the certificate alone"), "{said}");
}

#[test]
fn check_ends_as_a_start_would() {
    let folder = folder_with_pair(P256);
    make_key(&folder, "other", P256);
    folder.write("empty.key", "");
    for (arguments, status, says) in [
        (&["--use-ssl=false"][..], 0, "USE_SSL=false"),
        (&["--ssl-key-path", "none.key"], 0, "SSL private key not found: none.key"),
        (&["--ssl-key-path", "none.key"], 0, "warning: the server would fall back to unencrypted ws://"),
        (&["--ssl-key-path", "none.key", "--ssl-required"], 1, "SSL private key not found: none.key"),
        (&["--ssl-key-path", "other.key"], 1, "it does not belong to the private key other.key"),
        (&["--ssl-key-path", "empty.key"], 1, "SSL private key unusable: empty.key: it is empty"),
        (&["--ssl-cert-path", "none.crt", "--ssl-key-path", "empty.key"], 1, "empty.key: it is empty"),
    ] {
        let settings = [("USE_SSL", "true"), ("SSL_CERT_PATH", "server.crt"), ("SSL_KEY_PATH", "server.key")];
        let ended = folder.tinychat(&[&["check"], arguments].concat()).envs(&settings).run();
        assert_eq!(ended.status, Some(status), "{arguments:?}: {ended:?}");
        assert!(ended.stdout.contains(says), "{arguments:?}: {ended:?}");
        if status != 0 {
            let start = folder.tinychat(&[&["--port", "0"], arguments].concat()).envs(&settings).run();
            assert_eq!(start.status, Some(status), "{arguments:?}: {start:?}");
        }
    }
    let ended = folder.tinychat(&["check", "--port", "many"]).run();
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("PORT=\"many\""), "{ended:?}");
}

#[test]
fn check_does_not_listen() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    check(&Folder::new(), &["--port", &port], 0);
}
