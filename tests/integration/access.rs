//! Who may join, and who is a moderator from the start (docs/operations.md): `JOIN_PASSWORD`, named moderators, hashes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Signal, geteuid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};
use tungstenite::WebSocket;
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{Client, ClientStream, TIMEOUT, line};
use crate::support::http::{get, upgrade_request};
use crate::support::over_ws_and_wss;
use crate::support::program::{Folder, KillOnDrop, Output};
use crate::support::server::{TestServer, Transport, hash};

over_ws_and_wss! {
    a_join_requires_the_password,
    a_first_message_with_the_password_joins,
    without_a_join_password_passwords_are_ignored,
    a_resumed_place_needs_no_password,
    a_reserved_name_requires_its_own_password,
    a_named_moderator_is_in_the_list_as_one_at_once,
    wrong_passwords_of_joins_and_logins_count_together,
    many_attempts_at_once_are_no_more_than_five,
    login_compares_with_a_hash,
    a_named_moderator_may_join_from_a_banned_address,
}

/// Passwords as text and as a hash.
fn both(password: &str) -> [String; 2] {
    [password.to_owned(), hash(password).to_string()]
}

fn join(name: &str, password: &str) -> Value {
    json!({"type": "join", "username": name, "password": password})
}

/// Asserts that a join with this password makes a member of this client.
fn assert_joins(client: &mut Client, name: &str, password: &str) {
    client.send(join(name, password));
    let commands = client.next_event();
    assert_eq!(commands["type"], "command_list", "{commands}");
    assert_eq!(client.next_line(), format!("system: {name} joined."));
}

fn assert_refused(client: &mut Client, message: Value, error: &str) {
    client.send(message);
    assert_eq!(client.next_line(), format!("error: {error}"));
}

const REQUIRED: &str = "This room requires a password.";
const WRONG: &str = "Wrong password.";

fn a_join_requires_the_password(transport: Transport) {
    for setting in both("open sesame") {
        let server = TestServer::with(transport, &[("JOIN_PASSWORD", &setting)]);
        let mut bob = server.connect();
        assert_refused(&mut bob, json!({"type": "join", "username": "Bob"}), REQUIRED);
        assert_refused(&mut bob, join("Bob", " "), REQUIRED);
        assert_refused(&mut bob, join("Bob", "open"), WRONG);
        assert_refused(&mut bob, join("Bob", &setting.replace("open sesame", "secret")), WRONG);
        let number = json!({"type": "join", "username": "Bob", "password": 5});
        assert_refused(&mut bob, number, "The field \"password\" must be a string, but is a number.");
        // A name that is not allowed is reported before anything is compared.
        bob.send(join("System", "guess"));
        assert!(bob.next_line().starts_with("error: The username System"));
        assert_joins(&mut bob, "Bob", " open sesame ");
        // Who does not know the password does not learn who is there.
        let mut eve = server.connect();
        assert_refused(&mut eve, json!({"type": "join", "username": "Bob"}), REQUIRED);
        eve.send(join("Bob", "open sesame"));
        assert_eq!(eve.next_line(), "error: The username Bob is in use: choose another.");
        assert_joins(&mut eve, "Eve", "open sesame");
        assert_eq!(bob.next_line(), "system: Eve joined.");
        // A member's messages need none, and what they carry is ignored.
        eve.send(json!({"type": "public", "username": "Eve", "password": "guess", "content": "hi"}));
        eve.send(json!({"type": "public", "password": {}, "content": "ho"}));
        assert_eq!((bob.next_line(), bob.next_line()), ("Eve: hi".into(), "Eve: ho".into()));
        let page = get(&server, "/metrics");
        assert!(page.contains("\ntinychat_wrong_join_passwords_total 2\n"), "{page}");
    }
}

fn a_first_message_with_the_password_joins(transport: Transport) {
    for setting in both("open sesame") {
        let server = TestServer::with(transport, &[("JOIN_PASSWORD", &setting)]);
        let mut ann = server.connect();
        assert_joins(&mut ann, "Ann", "open sesame");
        let mut bob = server.connect();
        assert_refused(&mut bob, json!({"type": "public", "username": "Bob", "content": "hi"}), REQUIRED);
        let with_password = |password: &str| json!({"type": "public", "username": "Bob", "password": password, "content": "hi"});
        assert_refused(&mut bob, with_password("guess"), WRONG);
        bob.send(with_password("open sesame"));
        assert_eq!((ann.next_line(), ann.next_line()), ("system: Bob joined.".into(), "Bob: hi".into()));
        // A message with two passwords.
        let mut meg = server.connect();
        let content = "/login secret";
        meg.send(
            json!({"type": "command", "username": "Meg", "password": "open sesame", "content": content}),
        );
        assert_eq!(ann.next_line(), "system: Meg joined.");
        assert_eq!(ann.next_line(), "system: Meg is now a moderator.");
        ann.wait_for_users(&["Ann", "Bob", "Meg mod"]);
        // Without the password for joining, that of /login is not even compared.
        let mut eve = server.connect();
        let login = json!({"type": "command", "username": "Eve", "content": "/login secret"});
        assert_refused(&mut eve, login, REQUIRED);
        eve.command("/login guess");
        assert!(eve.next_line().starts_with("error: Join first"));
        let page = get(&server, "/metrics");
        assert!(page.contains("\ntinychat_wrong_passwords_total 0\n"), "{page}");
    }
}

fn without_a_join_password_passwords_are_ignored(transport: Transport) {
    let server = TestServer::with_moderators(transport, &[], &[("Meg", "only meg")]);
    let members: Vec<Client> = (0..7)
        .map(|number| {
            let mut client = server.connect();
            assert_joins(&mut client, &format!("Guest {number}"), "anything");
            client
        })
        .collect();
    drop(members);
    assert_joins(&mut server.connect(), "Meg", "only meg");
}

fn a_resumed_place_needs_no_password(transport: Transport) {
    let settings = [("JOIN_PASSWORD", "open sesame"), ("RESUME_SECONDS", "86400")];
    let server = TestServer::with_moderators(transport, &settings, &[("Meg", "only meg")]);
    let mut ann = server.connect();
    assert_joins(&mut ann, "Ann", "open sesame");
    let mut first = server.connect();
    let answer = first.join_asking("Meg", json!({"history": 0, "password": "only meg"}));
    ann.wait_for_users(&["Ann", "Meg mod"]);
    let session = &answer["session"];
    drop(first);
    ann.wait_for_users(&["Ann", "Meg mod away"]);
    // The session is that of one place: it opens no other.
    let other = json!({"type": "join", "username": "Max", "session": session});
    assert_refused(&mut server.connect(), other, REQUIRED);
    let unknown = json!({"type": "join", "username": "Meg", "session": "0".repeat(32)});
    let reserved = "The name Meg is reserved: it requires its password.";
    assert_refused(&mut server.connect(), unknown, reserved);
    let mut second = server.connect();
    second.join_asking("Meg", json!({"session": session}));
    ann.wait_for_users(&["Ann", "Meg mod"]);
    // A program that always sends its password.
    drop(second);
    ann.wait_for_users(&["Ann", "Meg mod away"]);
    let mut third = server.connect();
    third.join_asking("Meg", json!({"session": session, "password": "an old one"}));
    third.command("/to Ann 5");
    while ann.next_line() != "system: Meg timed out Ann for 5 seconds." {}
}

fn a_reserved_name_requires_its_own_password(transport: Transport) {
    for settings in [&[][..], &[("JOIN_PASSWORD", "open sesame")]] {
        let moderators = [("Meg", "only meg"), ("Max", "only max")];
        let settings = [settings, &[("TRUSTED_PROXIES", "127.0.0.1")]].concat();
        let server = TestServer::with_moderators(transport, &settings, &moderators);
        // The last name has a Cyrillic е.
        for (address, name) in ["Meg", "meg", "Ｍeg", "Mеg"].into_iter().enumerate() {
            let mut eve = server.connect_from(&format!("192.0.2.{address}"));
            let reserved = format!("The name {name} is reserved: it requires its password.");
            assert_refused(&mut eve, json!({"type": "join", "username": name}), &reserved);
            let public = json!({"type": "public", "username": name, "content": "hi"});
            assert_refused(&mut eve, public, &reserved);
            for password in ["open sesame", "secret", "only max", "Only meg"] {
                assert_refused(&mut eve, join(name, password), WRONG);
            }
            assert_joins(&mut eve, name, "only meg");
            assert_eq!(eve.users.last().unwrap(), &format!("{name} mod"));
            eve.leave();
        }
        // It opens no other name.
        let mut eve = server.connect_from("192.0.2.100");
        if settings.len() > 1 {
            assert_refused(&mut eve, join("Eve", "only meg"), WRONG);
        } else {
            assert_joins(&mut eve, "Eve", "only meg");
            assert_eq!(eve.users, ["Eve"]);
        }
    }
}

fn a_named_moderator_is_in_the_list_as_one_at_once(transport: Transport) {
    let server = TestServer::with_moderators(transport, &[("MOD_PASSWORD", "")], &[("Meg", "only meg")]);
    let mut ann = server.join("Ann");
    let mut meg = server.connect();
    meg.send(join("Meg", "only meg"));
    let list = meg.next_message();
    assert_eq!(
        list["content"][1],
        json!({"username": "Meg", "is_mod": true, "is_timed_out": false}),
        "{list}"
    );
    assert_eq!(meg.next_message()["type"], "command_list");
    assert_eq!(meg.next_line(), "system: Meg joined.");
    meg.command("/login whatever");
    assert_eq!(meg.next_line(), "system: You are already a moderator.");
    meg.command("/to Ann 5");
    assert_eq!(
        (ann.next_line(), ann.next_line()),
        ("system: Meg joined.".into(), "system: Meg timed out Ann for 5 seconds.".into())
    );
}

fn wrong_passwords_of_joins_and_logins_count_together(transport: Transport) {
    for setting in both("open sesame") {
        let settings = [("JOIN_PASSWORD", &*setting), ("TRUSTED_PROXIES", "127.0.0.1")];
        let server = TestServer::with_moderators(transport, &settings, &[("Meg", "only meg")]);
        let too_many = |line: String| {
            let rest = line.strip_prefix("error: Too many wrong passwords: wait ").expect(&line);
            let seconds: u32 = rest.strip_suffix(" seconds.").expect(&line).parse().unwrap();
            assert!((1..=60).contains(&seconds), "{line}");
        };
        let mut eve = server.connect_from("2001:db8::1");
        assert_joins(&mut eve, "Eve", "open sesame");
        for _ in 0..2 {
            eve.command("/login guess");
            assert_eq!(eve.next_line(), "error: Wrong password.");
        }
        // Other connections from the same /64.
        let mut guest = server.connect_from("2001:db8::2");
        for name in ["Bob", "Meg", "Max"] {
            assert_refused(&mut guest, join(name, "guess"), WRONG);
        }
        for (name, password) in [("Bob", "open sesame"), ("Bob", "guess"), ("Meg", "only meg")] {
            guest.send(join(name, password));
            too_many(guest.next_line());
        }
        eve.command("/login secret");
        too_many(eve.next_line());
        // Without a password, it is told what it is told otherwise.
        assert_refused(&mut guest, json!({"type": "join", "username": "Bob"}), REQUIRED);
        // Others are not affected.
        let mut bob = server.connect_from("2001:db8:0:1::1");
        assert_joins(&mut bob, "Bob", "open sesame");
        bob.command("/login secret");
        assert_eq!(bob.next_line(), "system: Bob is now a moderator.");
        let page = get(&server, "/metrics");
        assert!(page.contains("\ntinychat_wrong_passwords_total 2\n"), "{page}");
        assert!(page.contains("\ntinychat_wrong_join_passwords_total 3\n"), "{page}");
    }
}

/// Each wrong one is hashed once.
fn many_attempts_at_once_are_no_more_than_five(transport: Transport) {
    for setting in both("open sesame") {
        let server = TestServer::with(transport, &[("JOIN_PASSWORD", &setting)]);
        let mut clients: Vec<Client> = (0..64).map(|_| server.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(join(&format!("Guest {number}"), "guess"));
        }
        let mut wrong = 0;
        for client in &mut clients {
            match &*client.next_line() {
                "error: Wrong password." => wrong += 1,
                line => assert!(line.starts_with("error: Too many wrong passwords: wait "), "{line}"),
            }
        }
        assert_eq!(wrong, 5);
    }
}

fn login_compares_with_a_hash(transport: Transport) {
    let setting = hash("two words").to_string();
    let server = TestServer::with(transport, &[("MOD_PASSWORD", &setting)]);
    let mut ann = server.join("Ann");
    for attempt in ["words", &setting] {
        ann.command(&format!("/login {attempt}"));
        assert_eq!(ann.next_line(), "error: Wrong password.");
    }
    ann.send(json!({"type": "command", "content": "/login  two words ", "txn_id": "a"}));
    assert_eq!(line(&ann.next_event()), "system: Ann is now a moderator.");
}

fn a_named_moderator_may_join_from_a_banned_address(transport: Transport) {
    let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("RESUME_SECONDS", "86400")];
    let server = TestServer::with_moderators(transport, &settings, &[("Meg", "only meg")]);
    let mut ann = server.join("Ann");
    ann.command("/login secret");
    ann.command("/ban 192.0.2.7");
    while !ann.next_line().contains("192.0.2.7") {}
    let asking = json!({"type": "join", "username": "Meg", "password": "only meg", "history": 0});
    for refused in [
        json!({"type": "join", "username": "Meg"}),
        json!({"type": "join", "username": "Bob", "password": "only meg"}),
        json!({"type": "public", "username": "Meg", "content": "hi"}),
        join("Meg", "guess"),
    ] {
        let mut client = connect_with_message(&server, "192.0.2.7", &refused);
        let line = client.next_line();
        assert!(line.starts_with("error: You are banned"), "{refused}: {line}");
        assert_eq!(client.close_code(), Some(CloseCode::Policy));
    }
    let mut meg = connect_with_message(&server, "192.0.2.7", &asking);
    assert_eq!(meg.next_event()["type"], "command_list");
    let session = meg.next_event()["session"].clone();
    ann.wait_for_users(&["Ann mod", "Meg mod"]);
    drop(meg);
    ann.wait_for_users(&["Ann mod", "Meg mod away"]);
    let resuming = json!({"type": "join", "username": "Meg", "session": session});
    let _meg = connect_with_message(&server, "192.0.2.7", &resuming);
    ann.wait_for_users(&["Ann mod", "Meg mod"]);
}

/// A client with this address whose first message arrives together with its request: a banned one has to send it within
/// a second.
fn connect_with_message(server: &TestServer, address: &str, message: &Value) -> Client {
    let mut stream = ClientStream::connect(server.address, server.transport);
    let request = upgrade_request(&format!("X-Forwarded-For: {address}\r\n"));
    let message = message.to_string();
    // A text of 126 bytes or more, masked with zeros.
    let mut frame = vec![0x81, 0x80 | 126, 0, 0, 0, 0, 0, 0];
    let text = format!("{message:<126}");
    frame[2..4].copy_from_slice(&(text.len() as u16).to_be_bytes());
    stream.write_all(&[request.as_bytes(), &frame, text.as_bytes()].concat()).unwrap();
    stream.flush().unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 101 "));
    Client::new(WebSocket::from_raw_socket(stream, Role::Client, None))
}

/// Runs `hash-password` with this standard input.
fn hash_password(folder: &Folder, input: &str) -> Output {
    folder.write("input", input);
    folder.tinychat_in_shell("exec \"$@\" < input", &["hash-password"]).run()
}

#[test]
fn a_hash_that_the_program_prints_is_a_setting() {
    let folder = Folder::new();
    let output = hash_password(&folder, " correct horse \nignored\n");
    assert_eq!((output.status, &*output.stderr), (Some(0), ""), "{output:?}");
    let hash = output.stdout.strip_suffix('\n').unwrap();
    assert!(hash.starts_with("pbkdf2-sha256:600000:"), "{hash}");
    assert_ne!(hash_password(&folder, "correct horse").stdout, output.stdout, "salts are random");
    folder.write(".env", format!("MOD_PASSWORD={hash}\nJOIN_PASSWORD={hash}\n"));
    let server = folder.tinychat(&["--port", "0"]).start();
    let mut ann = server.connect();
    assert_joins(&mut ann, "Ann", "correct horse");
    ann.command("/login correct horse");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    drop(ann);
    let log = server.stop();
    assert!(!log.contains("correct") && !log.contains(&hash[20..60]), "{log}");
    check_with_python(&folder, "correct horse", hash);
}

/// Compares a hash with what another implementation computes, if that is installed.
fn check_with_python(folder: &Folder, password: &str, hash: &str) {
    if Command::new("python3").arg("--version").output().is_err() {
        return eprintln!("skipped: python3 is not installed");
    }
    let script = "import hashlib, sys\n\
                  _, rounds, salt, _ = sys.argv[2].split(':')\n\
                  password, salt = sys.argv[1].encode(), bytes.fromhex(salt)\n\
                  print(hashlib.pbkdf2_hmac('sha256', password, salt, int(rounds)).hex())";
    let computed = folder.run_tool("python3", &["-c", script, password, hash]);
    assert_eq!(hash.rsplit(':').next(), Some(computed.trim()));
}

#[test]
fn a_password_that_cannot_be_used_gets_no_hash() {
    let folder = Folder::new();
    for (input, error) in [
        ("", "no password was given"),
        (" \nhunter2", "no password was given"),
        (&"hunter2".repeat(200), "at most 1024 bytes"),
        ("hunter2\u{1b}[D", "control character"),
    ] {
        let output = hash_password(&folder, input);
        assert_eq!((output.status, &*output.stdout), (Some(1), ""), "{output:?}");
        assert!(output.stderr.starts_with("tinychat hash-password: "), "{output:?}");
        assert!(output.stderr.contains(error) && !output.stderr.contains("hunter2"), "{output:?}");
    }
    let output = folder.tinychat(&["hash-password", "hunter2"]).run();
    assert_eq!((output.status, output.stderr.contains("hunter2")), (Some(2), false), "{output:?}");
}

/// Runs `tinychat moderator` with these arguments and this standard input.
fn moderator(folder: &Folder, arguments: &[&str], input: &str) -> Output {
    folder.write("input", input);
    folder.tinychat_in_shell("exec \"$@\" < input", &[&["moderator"], arguments].concat()).run()
}

#[test]
fn moderators_are_added_listed_and_removed() {
    let folder = Folder::new();
    let run = |arguments: &[&str], input: &str| {
        let output = moderator(&folder, arguments, input);
        assert_eq!((output.status, &*output.stderr), (Some(0), ""), "{output:?}");
        output.stdout
    };
    let no_server = "No server uses the store at the moment.\n";
    assert_eq!(run(&["add", "Meg"], "only meg\n"), format!("Meg is now a moderator. {no_server}"));
    assert_eq!(run(&["add", " Max Lee "], "only max\n"), format!("Max Lee is now a moderator. {no_server}"));
    assert_eq!(run(&["add", "Meg"], "a new one"), format!("Meg has a new password. {no_server}"));
    assert_eq!(run(&["list"], ""), "Max Lee\nMeg\n");
    assert_eq!(run(&["list", "--database-path", "./tinychat.db"], ""), "Max Lee\nMeg\n");
    assert_eq!(folder.mode("tinychat.db"), 0o600);
    let stored = std::fs::read(folder.path("tinychat.db")).unwrap();
    let contains = |text: &[u8]| stored.windows(text.len()).any(|window| window == text);
    assert!(!contains(b"only meg") && !contains(b"only max") && !contains(b"a new one"));
    // With a Cyrillic е.
    assert_eq!(run(&["remove", "Mеg"], ""), format!("Mеg is no longer a moderator. {no_server}"));
    assert_eq!(run(&["list"], ""), "Max Lee\n");
}

#[test]
fn the_audit_log_has_changes_of_moderators() {
    let folder = Folder::new();
    for (arguments, status) in
        [(["add", "Meg"], 0), (["add", "Meg"], 0), (["remove", "Max"], 1), (["remove", "Meg"], 0)]
    {
        assert_eq!(moderator(&folder, &arguments, "only meg").status, Some(status));
    }
    let audit = folder.tinychat(&["audit"]).run().stdout;
    let acts: Vec<_> = audit.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    let act = |action| format!("command line\t\t{action}\tMeg\t\t");
    assert_eq!(acts, ["add-moderator", "set-password", "remove-moderator"].map(act), "{audit}");
}

#[test]
fn a_server_starts_with_the_moderators_of_its_store() {
    let folder = Folder::new();
    assert_eq!(moderator(&folder, &["add", "Meg"], "only meg").status, Some(0));
    let server = folder.tinychat(&["--port", "0", "--database-path", "./tinychat.db"]).start();
    let mut meg = server.connect();
    let reserved = "The name meg is reserved: it requires its password.";
    assert_refused(&mut meg, json!({"type": "join", "username": "meg"}), reserved);
    assert_joins(&mut meg, "Meg", "only meg");
    assert_eq!(meg.users, ["Meg mod"]);
    drop(meg);
    let log = server.stop();
    assert!(!log.contains("only meg"), "{log}");
}

#[test]
fn a_running_server_applies_changes_of_moderators() {
    let folder = Folder::new();
    let mut server = folder.tinychat(&["--port", "0", "--database-path", "./tinychat.db"]).start();
    let told = format!("The server (process {}) has been told to reload.\n", server.id());
    let output = moderator(&folder, &["add", "Meg"], "only meg");
    assert_eq!(output.stdout, format!("Meg is now a moderator. {told}"), "{output:?}");
    // Until the server has reloaded, the name is free, and the password is ignored.
    let start = Instant::now();
    let mut meg = loop {
        let mut meg = server.connect();
        meg.send(join("Meg", "only meg"));
        // Refused if the name is reserved between the comparison of the password and the join.
        if meg.next_event()["type"] == "command_list" {
            assert_eq!(meg.next_line(), "system: Meg joined.");
            if meg.users == ["Meg mod"] {
                break meg;
            }
        }
        meg.leave();
        assert!(start.elapsed() < TIMEOUT, "the server does not reload");
    };
    let output = moderator(&folder, &["remove", "Meg"], "");
    assert_eq!(output.stdout, format!("Meg is no longer a moderator. {told}"), "{output:?}");
    meg.wait_for_users(&["Meg"]);
    meg.leave();
    for (arguments, changes) in [
        (["add", "Max"], "removed: Meg"),
        (["add", "Max"], "added: Max"),
        (["remove", "Max"], "with a new password: Max"),
    ] {
        server.wait_for_line(&format!("The named moderators have changed: {changes}"));
        assert_eq!(moderator(&folder, &arguments, "only max").status, Some(0));
    }
    server.wait_for_line("The named moderators have changed: removed: Max");
    server.stop();
}

/// A store that root had created could not be used by the service's user.
#[test]
fn a_store_that_root_creates_belongs_to_the_folders_owner() {
    let folder = Folder::new();
    let service = folder.tinychat_as_nobody(&["--port", "0", "--database-path", "store/tinychat.db"]);
    folder.write("store/tinychat.db", "");
    std::fs::remove_file(folder.path("store/tinychat.db")).unwrap();
    if geteuid().is_root() {
        chown(folder.path("store"), Some(65534), Some(65534)).unwrap();
    }
    let owner =
        |name: &str| std::fs::metadata(folder.path(name)).map(|file| (file.uid(), file.gid())).unwrap();
    let assert_owners = |expected: &[&str]| {
        assert_eq!(folder.files("store"), expected);
        for name in expected {
            assert_eq!(owner(&format!("store/{name}")), owner("store"), "{name}");
        }
    };
    let path = ["--database-path", "store/tinychat.db"];
    let output = moderator(&folder, &[&["add", "Meg"], &path[..]].concat(), "only meg");
    assert_eq!(output.status, Some(0), "{output:?}");
    assert_owners(&["tinychat.db", "tinychat.db.lock"]);
    let server = service.start();
    assert_joins(&mut server.connect(), "Meg", "only meg");
    server.stop();
    let server = folder.tinychat(&[&["--port", "0"], &path[..]].concat()).start();
    assert_owners(&["tinychat.db", "tinychat.db-shm", "tinychat.db-wal", "tinychat.db.lock"]);
    server.stop();
}

/// The lock says which process it is.
#[test]
fn the_server_that_uses_the_store_is_told_to_reload() {
    let folder = Folder::new();
    // Creates the store, for which a command needs the lock itself.
    assert_eq!(moderator(&folder, &["add", "Max"], "only max").status, Some(0));
    let script = "import fcntl, signal\n\
                  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])\n\
                  lock = open('tinychat.db.lock', 'w')\n\
                  fcntl.lockf(lock, fcntl.LOCK_EX)\n\
                  print('locked', flush=True)\n\
                  signal.sigwait([signal.SIGHUP])\n\
                  print('reloads', flush=True)\n";
    let server = Command::new("python3")
        .args(["-c", script])
        .current_dir(folder.path("."))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(server) = server else { return eprintln!("skipped: python3 is not installed") };
    let mut server = KillOnDrop(server);
    let mut stdout = server.0.stdout.take().unwrap();
    read_until(&mut stdout, "locked\n");
    let told = format!("The server (process {}) has been told to reload.\n", server.0.id());
    let output = moderator(&folder, &["add", "Meg"], "only meg");
    assert_eq!(output.stdout, format!("Meg is now a moderator. {told}"), "{output:?}");
    read_until(&mut stdout, "reloads\n");
}

#[test]
fn a_moderator_that_cannot_be_added_or_removed_is_an_error() {
    let folder = Folder::new();
    assert!(moderator(&folder, &["list"], "").stderr.contains("There is no store at "));
    assert_eq!(moderator(&folder, &["add", "Meg"], "only meg").status, Some(0));
    for (arguments, input, status, error) in [
        // With a Cyrillic е, and in another case.
        (&["add", "Mеg"][..], "long enough", 1, "Mеg counts as the same name as Meg"),
        (&["add", "MEG"], "long enough", 1, "MEG counts as the same name as Meg"),
        (&["add", "Max"], "7 chars", 1, "at least 8 characters"),
        (&["add", "Max"], "", 1, "no password was given"),
        (&["add", "System"], "long enough", 2, "reserved"),
        (&["add", "a\nb"], "long enough", 2, "U+000A"),
        (&["add", "Max", "--database-path", "off"], "long enough", 1, "DATABASE_PATH is off"),
        (&["add", "Max", "--database-path", "none/a.db"], "long enough", 1, "create the folder"),
        (&["add"], "long enough", 2, "NAME"),
        (&["remove", "Max"], "", 1, "there is no moderator with the name Max"),
        (&["remove", "Max", "--database-path", "none.db"], "", 1, "There is no store at "),
        (&["list", "Max"], "", 2, "Max"),
        (&[], "", 2, "add"),
    ] {
        let output = moderator(&folder, arguments, input);
        assert_eq!((output.status, &*output.stdout), (Some(status), ""), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(error), "{arguments:?}: {output:?}");
    }
    assert_eq!(moderator(&folder, &["list"], "").stdout, "Meg\n");
    assert_eq!(folder.files("."), ["input", "tinychat.db", "tinychat.db.lock"]);
}

#[test]
fn a_typed_password_is_not_echoed() {
    for (again, status, last) in [("hunter2", 0, "The same again: \n"), ("hunter3", 1, "are not the same\n")]
    {
        let (folder, mut terminal) = (Folder::new(), Terminal::open());
        let line = format!("exec \"$@\" < {}", terminal.name);
        let mut process = folder.tinychat_in_shell(&line, &["hash-password"]).spawn();
        let mut stderr = process.0.stderr.take().unwrap();
        // What is typed before the prompt is discarded.
        assert_eq!(read_until(&mut stderr, "Password: "), "Password: ");
        writeln!(terminal.master, "hunter2").unwrap();
        assert_eq!(read_until(&mut stderr, "again: "), "\nThe same again: ");
        writeln!(terminal.master, "{again}").unwrap();
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert!(format!("The same again: {rest}").ends_with(last), "{rest:?}");
        assert_eq!(process.wait().code(), Some(status));
        let shown = terminal.read_all() + &rest;
        assert!(!shown.contains("hunter"), "{shown:?}");
    }
}

#[test]
fn an_interrupted_prompt_turns_the_echo_on_again() {
    let (folder, terminal) = (Folder::new(), Terminal::open());
    let line = format!("exec \"$@\" < {}", terminal.name);
    let mut process = folder.tinychat_in_shell(&line, &["hash-password"]).spawn();
    let mut stderr = process.0.stderr.take().unwrap();
    read_until(&mut stderr, "Password: ");
    let has_echo = || tcgetattr(&terminal.master).unwrap().local_modes.contains(LocalModes::ECHO);
    assert!(!has_echo());
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(1));
    assert!(has_echo());
}

fn read_until(from: &mut impl Read, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "it has ended after {text:?}");
        text.push(byte[0].into());
    }
    text
}

/// A terminal with a user.
struct Terminal {
    master: File,
    /// The path that the program opens.
    name: String,
}

impl Terminal {
    fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        Self { master: File::from(master), name }
    }

    /// What the terminal has shown, once the program has ended.
    fn read_all(&mut self) -> String {
        let mut shown = Vec::new();
        let end = self.master.read_to_end(&mut shown);
        // Nobody has it open any more.
        assert_eq!(end.err().and_then(|error| error.raw_os_error()), Some(Errno::IO.raw_os_error()));
        String::from_utf8(shown).unwrap()
    }
}
