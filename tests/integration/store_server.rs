//! The store (docs/operations.md) of a running server: restarts, kills, two servers, files that cannot be used.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

use crate::support::client::{Client, TIMEOUT, id, lines};
use crate::support::program::{Folder, Process};

/// Starts a server whose store is in the folder.
fn start(folder: &Folder) -> Process {
    folder.tinychat(&["--port", "0", "--database-path", "./tinychat.db"]).start()
}

/// Ann, who gets an `ack` for each `txn_id`.
fn join(server: &Process) -> Client {
    let mut ann = server.connect();
    ann.join_asking("Ann", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Ann joined.");
    ann
}

/// Waits until the newest stored message has this text. Other processes can read the store while the server runs.
fn wait_until_stored(folder: &Folder, text: &str) {
    let deadline = std::time::Instant::now() + TIMEOUT;
    loop {
        let output = folder.tinychat(&["export"]).run();
        assert_eq!(output.status, Some(0), "{output:?}");
        let newest = output.stdout.lines().last().map(|line| serde_json::from_str::<Value>(line).unwrap());
        if newest.is_some_and(|message| message["content"] == text) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{text:?} is not stored");
    }
}

#[test]
fn a_restart_keeps_the_history() {
    let folder = Folder::new();
    let server = start(&folder);
    let mut ann = server.connect();
    let before = ann.join_asking("Ann", json!({"history": 0}));
    ann.next_event();
    ann.public_with_txn_id("one");
    ann.public_with_txn_id("two");
    let acks = [ann.next_event(), ann.next_event()].map(|ack| id(&ack));
    drop(ann);
    server.stop();
    let server = start(&folder);
    let since = json!({"epoch": before["epoch"], "since": before["id"]});
    let answer = server.connect().join_asking("Ann", since);
    assert_eq!(answer["epoch"], before["epoch"]);
    assert_eq!(answer["recovered"], true);
    assert_eq!(lines(&answer), ["Ann: one", "Ann: two"]);
    let messages = answer["messages"].as_array().unwrap();
    assert_eq!(messages.iter().map(id).collect::<Vec<_>>(), acks);
    assert_eq!(messages[1]["txn_id"], "two");
    assert!(id(&answer) > acks[1]);
    server.stop();
    assert_eq!(folder.mode("tinychat.db"), 0o600);
}

/// Other servers may assign the same ids.
#[test]
fn a_server_that_continues_a_shared_chat_alone_begins_a_new_epoch() {
    let folder = Folder::new();
    let epoch = |text| {
        let server = start(&folder);
        let mut ann = server.connect();
        let answer = ann.join_asking("Ann", json!({"history": 10}));
        ann.next_event();
        ann.public_with_txn_id(text);
        ann.next_event();
        drop(ann);
        server.stop();
        (answer["epoch"].clone(), lines(&answer).join(" "))
    };
    let (before, _) = epoch("one");
    let connection = rusqlite::Connection::open(folder.path("tinychat.db")).unwrap();
    connection.execute_batch("INSERT INTO meta VALUES ('shared', '1')").unwrap();
    drop(connection);
    let (alone, history) = epoch("two");
    assert!(alone != before && history == "Ann: one", "{alone} {history}");
    assert_eq!(epoch("three"), (alone, "Ann: one Ann: two".to_owned()));
}

#[test]
fn a_kill_keeps_the_stored_messages_and_no_id_is_used_again() {
    let folder = Folder::new();
    let mut last = 0;
    for text in ["one", "two", "three"] {
        let server = start(&folder);
        let mut ann = join(&server);
        ann.public_with_txn_id(text);
        let ack = id(&ann.next_event());
        assert!(ack > last, "{ack} <= {last}");
        last = ack;
        wait_until_stored(&folder, text);
        server.signal(Signal::KILL);
        assert_eq!(server.wait().0.code(), None);
    }
    let server = start(&folder);
    let answer = server.connect().join_asking("Bob", json!({"history": 10}));
    assert_eq!(lines(&answer), ["Ann: one", "Ann: two", "Ann: three"]);
    let check = folder.tinychat(&["check"]).run();
    let expected = format!("in use: by the server with process id {}\nmessages kept: 3\n", server.id());
    assert!(check.status == Some(0) && check.stdout.contains(&expected), "{check:?}");
    assert!(check.stdout.contains("integrity: good"), "{check:?}");
    server.stop();
}

#[test]
fn a_second_server_does_not_start() {
    let folder = Folder::new();
    let server = start(&folder);
    let second = folder.tinychat(&["--port", "0", "--database-path", "./tinychat.db"]).run();
    assert_eq!(second.status, Some(1), "{second:?}");
    let expected = format!("is in use by another TinyChat (process {}); stop that server", server.id());
    assert!(second.stderr.contains(&expected), "{second:?}");
    server.stop();
}

#[test]
fn older_pages_come_from_the_store() {
    let folder = Folder::new();
    let arguments = ["--port", "0", "--message-rate", "0", "--send-queue-bytes", "33554432"];
    let server = folder.tinychat(&arguments).start();
    let mut ann = join(&server);
    // More than memory holds.
    for number in 0..500 {
        ann.public_with_txn_id(&format!("{number:03}"));
        ann.public(&"x".repeat(12_000));
        ann.next_event();
    }
    let (mut before, mut seen) = (None, 0);
    loop {
        let options =
            before.map_or(json!({"limit": 200}), |before: u64| json!({"limit": 200, "before": before}));
        let page = ann.page(options);
        let messages = page["messages"].as_array().unwrap();
        assert!(messages.is_sorted_by_key(|message| message["id"].as_u64()));
        seen += messages.len();
        before = messages.first().map(id);
        assert_eq!(page["more"], seen < 1000, "{seen}");
        if messages.is_empty() || seen == 1000 {
            break;
        }
    }
    assert_eq!(seen, 1000);
    server.stop();
}

#[test]
fn a_store_that_cannot_be_used_prevents_the_start() {
    let folder = Folder::new();
    folder.write("notes.txt", "x".repeat(5000));
    folder.write("folder/file", "");
    for (path, reason) in [
        ("notes.txt", "is not a SQLite database; "),
        ("folder", "is not a file; "),
        ("nowhere/tinychat.db", "its folder does not exist; "),
    ] {
        let output = folder.tinychat(&["--port", "0", "--database-path", path]).run();
        assert_eq!(output.status, Some(1), "{output:?}");
        assert!(output.stderr.contains("[ERROR]") && output.stderr.contains(reason), "{output:?}");
    }
    assert_eq!(folder.read("notes.txt"), "x".repeat(5000));
}

#[test]
fn without_a_writable_folder_the_server_runs_in_memory_unless_a_path_is_set() {
    let folder = Folder::new();
    let default = folder.tinychat_as_nobody(&["--port", "0"]);
    folder.set_mode(".", 0o555);
    let server = default.start();
    server.join("Ann").leave();
    let log = server.stop();
    assert!(log.contains("[WARNING]") || log.contains("[WARN]"), "{log}");
    assert!(log.contains("its folder is not writable"), "{log}");
    folder.set_mode(".", 0o755);
    let explicit = folder.tinychat_as_nobody(&["--port", "0", "--database-path", "./tinychat.db"]);
    folder.set_mode(".", 0o555);
    let output = explicit.run();
    folder.set_mode(".", 0o755);
    assert_eq!(output.status, Some(1), "{output:?}");
    assert!(output.stderr.contains("its folder is not writable"), "{output:?}");
}

#[test]
fn off_writes_nothing() {
    let folder = Folder::new();
    let server = folder.tinychat(&["--port", "0", "--database-path", "off"]).start();
    let mut ann = join(&server);
    ann.public_with_txn_id("hello");
    ann.next_event();
    drop(ann);
    server.stop();
    assert!(folder.files(".").is_empty());
}

#[test]
fn a_deleted_store_is_written_again() {
    let folder = Folder::new();
    let mut server = start(&folder);
    let mut ann = join(&server);
    ann.public_with_txn_id("one");
    ann.next_event();
    wait_until_stored(&folder, "one");
    fs::remove_file(folder.path("tinychat.db")).unwrap();
    ann.public_with_txn_id("two");
    ann.next_event();
    server.wait_for_line("was deleted: it was written again, completely");
    wait_until_stored(&folder, "two");
    drop(ann);
    server.stop();
    assert_eq!(folder.tinychat(&["export"]).run().stdout.lines().count(), 2);
}

/// Bans, time-outs and deletions are durable before anyone is told: a kill right after does not undo them.
#[test]
fn a_kill_keeps_bans_time_outs_and_deletions() {
    let folder = Folder::new();
    let start = || {
        let flags = ["--port", "0", "--mod-password", "secret", "--resume-seconds", "0"];
        folder.tinychat(&flags).env("DATABASE_PATH", "tinychat.db").start()
    };
    let server = start();
    let mut ann = server.connect();
    ann.join_asking("Ann", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Ann joined.");
    let mut bob = server.join("Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    bob.public("spam");
    let spam = id(&ann.next_event());
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    for (command, line) in [
        (format!("/delete {spam}"), "deleted"),
        ("/to Bob 600".to_owned(), "system: Ann timed out Bob for 600 seconds."),
        ("/ban Bob a reason".to_owned(), "system: Ann banned Bob: a reason"),
    ] {
        ann.command(&command);
        loop {
            let event = ann.next_event();
            if event["type"] == line || crate::support::client::line(&event) == line {
                break;
            }
        }
    }
    server.signal(Signal::KILL);
    server.wait();
    let server = start();
    let mut bob = server.connect();
    bob.join("Bob");
    assert_eq!(bob.next_line(), "error: You are banned: a reason");
    let mut ann = server.connect();
    let answer = ann.join_asking("Ann", json!({"history": 200}));
    // The line about the ban was said less than 200 ms before the kill.
    let lines = lines(&answer);
    assert_eq!(lines[..2], ["system: Ann is now a moderator.", "system: Ann timed out Bob for 600 seconds."]);
    assert_eq!(ann.next_line(), "system: Ann joined.");
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    ann.command("/unban Bob");
    assert_eq!(ann.next_line(), "system: The ban of Bob has ended.");
    let mut bob = server.join("Bob");
    bob.public("again");
    assert!(bob.next_line().starts_with("system: You are timed out: "));
    server.stop();
    let record = folder.tinychat(&["audit"]).run().stdout;
    let actions: Vec<&str> = record.lines().filter_map(|line| line.split('\t').nth(3)).collect();
    assert_eq!(actions, ["login", "delete", "time-out", "ban", "login", "unban"], "{record}");
}

#[test]
fn deletions_reach_who_was_not_connected_before_a_restart() {
    let folder = Folder::new();
    let server = start(&folder);
    let mut ann = server.connect();
    let before = ann.join_asking("Ann", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Ann joined.");
    ann.public_with_txn_id("oops");
    let oops = id(&ann.next_event());
    ann.command(&format!("/delete {oops}"));
    assert_eq!(ann.next_event()["type"], "deleted");
    drop(ann);
    server.stop();
    let server = start(&folder);
    let mut bob = server.connect();
    bob.send(json!({"type": "join", "username": "Bob", "epoch": before["epoch"], "since": oops}));
    assert_eq!(bob.next_event()["type"], "command_list");
    let [deleted, answer] = [bob.next_event(), bob.next_event()];
    assert_eq!((&deleted["type"], id(&deleted)), (&json!("deleted"), oops));
    assert_eq!((&answer["type"], &answer["recovered"]), (&json!("history"), &json!(true)));
    drop(bob);
    server.stop();
}

/// While another process has the database locked, it is like a disk that stalls, and then one that fails.
#[test]
fn chat_continues_while_the_store_cannot_be_written() {
    let folder = Folder::new();
    let server = folder.tinychat(&["--port", "0", "--mod-password", "secret"]).start();
    let mut ann = server.join("Ann");
    let mut bob = server.join("Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.command("/login secret");
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.next_line(), "system: Ann is now a moderator.");
    }
    wait_until_stored(&folder, "Ann is now a moderator.");
    let connection = rusqlite::Connection::open(folder.path("tinychat.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..100 {
        let text = format!("message {number}");
        ann.public(&text);
        assert_eq!(bob.next_line(), format!("Ann: {text}"));
    }
    // It takes effect all the same, and the moderator is told.
    ann.command("/ban \"Eve\"");
    let replies = [ann.next_line(), ann.next_line(), ann.next_line()];
    assert!(replies.contains(&"system: Ann banned Eve.".to_owned()), "{replies:?}");
    assert!(replies.iter().any(|reply| reply.contains("could not be stored")), "{replies:?}");
    let mut eve = server.connect();
    eve.join("Eve");
    assert_eq!(eve.next_line(), "error: You are banned.");
    connection.execute_batch("ROLLBACK").unwrap();
    wait_until_stored(&folder, "Ann banned Eve.");
    let export = folder.tinychat(&["export"]).run().stdout;
    assert_eq!(export.lines().filter(|line| line.contains("message ")).count(), 100);
    let mut process = server;
    process.wait_for_line("The store");
    process.stop();
}

/// SIGXFSZ ended the server.
#[test]
fn a_limit_on_file_sizes_is_like_a_full_disk() {
    let folder = Folder::new();
    let mut server = start(&folder);
    let mut ann = join(&server);
    ann.public_with_txn_id("one");
    ann.next_event();
    wait_until_stored(&folder, "one");
    let pid = Pid::from_raw(server.id().try_into().unwrap());
    let current = Some(fs::metadata(folder.path("tinychat.db-wal")).unwrap().len());
    let earlier = prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    ann.public_with_txn_id("two");
    ann.next_event();
    server.wait_for_line("has failed");
    ann.public_with_txn_id("three");
    ann.next_event();
    prlimit(pid, Resource::Fsize, earlier).unwrap();
    server.wait_for_line("is written again");
    wait_until_stored(&folder, "three");
    assert_eq!(folder.tinychat(&["export"]).run().stdout.lines().count(), 3);
    drop(ann);
    server.stop();
}
