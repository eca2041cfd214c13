//! The chat as clients see it (docs/protocol.md): joining, messages, commands and the user list.

use std::cell::RefCell;
use std::sync::Barrier;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tungstenite::{Bytes, Message};

use crate::support::client::masked;
use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

over_ws_and_wss! {
    a_new_member_gets_the_user_list_the_commands_and_its_own_join,
    fields_are_sent_in_the_documented_order,
    a_public_message_goes_to_all_other_members,
    a_second_join_gets_an_error,
    a_first_message_with_a_username_joins,
    a_guest_can_neither_send_nor_receive,
    invalid_usernames_and_usernames_in_use_are_refused,
    an_invalid_message_gets_an_error_and_affects_nobody_else,
    a_whisper_reaches_only_its_two_users,
    a_private_message_is_a_whisper_by_exact_name,
    a_whisper_to_several_names_at_once_asks_for_quotes,
    a_moderator_times_out_a_user,
    help_and_unknown_commands_are_answered,
    all_members_receive_messages_in_the_same_order,
    a_member_that_leaves_is_removed_from_the_list,
    every_json_message_is_answered,
    four_hundred_joins_at_once_send_few_lists,
}

fn a_new_member_gets_the_user_list_the_commands_and_its_own_join(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.join("  Bob ");
    let list = bob.next_message();
    assert_eq!(list["type"], "user_list");
    assert_eq!(bob.users, ["Ann", "Bob"]);
    let commands = bob.next_message();
    assert_eq!(
        commands["content"],
        json!({
            "/whisper": {"usage": "/whisper [user] [message]"},
            "/login": {"usage": "/login [password]"},
            "/to": {"usage": "/to [user] [seconds]"},
            "/help": {"usage": "/help [command]"},
            "/unto": {"usage": "/unto [user]"},
            "/kick": {"usage": "/kick [user] [reason]"},
            "/ban": {"usage": "/ban [user, address or network] [duration] [reason]"},
            "/unban": {"usage": "/unban [user, address or network]"},
            "/bans": {"usage": "/bans"},
            "/info": {"usage": "/info [user]"},
            "/delete": {"usage": "/delete [id]"},
        })
    );
    assert_eq!(bob.next_message()["content"], "Bob joined.");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.wait_for_users(&["Ann", "Bob"]);
}

fn fields_are_sent_in_the_documented_order(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.connect();
    ann.join("Ann");
    assert_eq!(
        masked(&ann.next_text()),
        r#"{"type":"user_list","content":[{"username":"Ann","is_mod":false,"is_timed_out":false}],"timestamp":TIMESTAMP}"#
    );
    let commands = masked(&ann.next_text());
    assert!(commands.starts_with(r#"{"type":"command_list","content":{"/whisper":{"usage":"#), "{commands}");
    assert_eq!(
        masked(&ann.next_text()),
        r#"{"type":"system","username":"System","content":"Ann joined.","timestamp":TIMESTAMP}"#
    );
    ann.command("/whisper Ann hi");
    assert_eq!(
        masked(&ann.next_text()),
        r#"{"type":"private","from":"Ann","to":"Ann","content":"hi","timestamp":TIMESTAMP,"id":ID,"time":TIME}"#
    );
    ann.send_text("[]");
    assert_eq!(
        masked(&ann.next_text()),
        r#"{"type":"error","username":"System","content":"A message must be a JSON object.","timestamp":TIMESTAMP}"#
    );
    let mut bob = server.join("Bob");
    bob.public("hi \u{1F980}");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(
        masked(&ann.next_event_text()),
        "{\"type\":\"public\",\"username\":\"Bob\",\"content\":\"hi \u{1F980}\",\"timestamp\":TIMESTAMP,\"id\":ID,\"time\":TIME}"
    );
}

fn a_public_message_goes_to_all_other_members(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob, mut cid) = (server.join("Ann"), server.join("Bob"), server.join("Cid"));
    assert_eq!(
        (ann.next_line(), ann.next_line()),
        ("system: Bob joined.".into(), "system: Cid joined.".into())
    );
    assert_eq!(bob.next_line(), "system: Cid joined.");
    // The `username` and `timestamp` of a client are ignored.
    ann.send(json!({"type": "public", "username": "Bob", "content": " hi\n", "timestamp": "00:00:00"}));
    assert_eq!(bob.next_line(), "Ann:  hi\n");
    assert_eq!(cid.next_line(), "Ann:  hi\n");
    ann.assert_nothing_received();
}

fn a_second_join_gets_an_error(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.join("Ann again");
    assert_eq!(ann.next_line(), "error: You have already joined as Ann.");
    bob.assert_nothing_received();
}

fn a_first_message_with_a_username_joins(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.send(json!({"type": "public", "username": "Bob", "content": "hi"}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "Bob: hi");
    let mut cid = server.connect();
    cid.send(json!({"type": "command", "username": "Cid", "content": "/whisper Bob psst"}));
    assert_eq!(cid.next_event()["type"], "command_list");
    assert_eq!(cid.next_line(), "system: Cid joined.");
    assert_eq!(cid.next_line(), "Cid to Bob: psst");
}

fn a_guest_can_neither_send_nor_receive(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut guest = server.connect();
    guest.public("hi");
    assert!(guest.next_line().starts_with("error: Join first"));
    ann.public("for members");
    ann.assert_nothing_received();
    guest.command("/help");
    let line = guest.next_line();
    assert!(line.starts_with("error: Join first"), "the guest has received {line}");
    guest.join("Guest");
    assert_eq!(guest.next_message()["type"], "user_list");
}

fn invalid_usernames_and_usernames_in_use_are_refused(transport: Transport) {
    let server = TestServer::start(transport);
    let _bob = server.join("Bob");
    let mut other = server.connect();
    let too_long = "x".repeat(33);
    for name in ["bob", "Ｂｏｂ", "SYSTEM", " ", "a\u{202E}b", &too_long] {
        other.join(name);
        let line = other.next_line();
        assert!(line.starts_with("error: The username"), "{name}: {line}");
    }
    other.join("Bob Two");
    assert_eq!(other.next_message()["type"], "user_list");
    assert_eq!(other.users, ["Bob", "Bob Two"]);
}

fn an_invalid_message_gets_an_error_and_affects_nobody_else(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    for text in [
        "hello",
        "",
        "[]",
        "5",
        "{}",
        r#"{"type": 5}"#,
        r#"{"type": "shout", "content": "hi"}"#,
        r#"{"type": "public"}"#,
        r#"{"type": "public", "content": 5}"#,
        r#"{"type": "public", "content": "  "}"#,
        r#"{"type": "command", "content": null}"#,
    ] {
        bob.send_text(text);
        let line = bob.next_line();
        assert!(line.starts_with("error: "), "{text}: {line}");
    }
    bob.socket.send(Message::Binary(Bytes::from_static(b"{}"))).unwrap();
    assert!(bob.next_line().starts_with("error: Binary"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.assert_nothing_received();
    bob.public("still connected");
    assert_eq!(ann.next_line(), "Bob: still connected");
}

fn a_private_message_is_a_whisper_by_exact_name(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob, mut cid) = (server.join("Ann"), server.join("Bob"), server.join("Bob I"));
    assert_eq!(
        (ann.next_line(), ann.next_line()),
        ("system: Bob joined.".into(), "system: Bob I joined.".into())
    );
    assert_eq!(bob.next_line(), "system: Bob I joined.");
    ann.send(json!({"type": "private", "to": "BOB", "content": "I agree"}));
    assert_eq!(
        (ann.next_line(), bob.next_line()),
        ("Ann to Bob: I agree".into(), "Ann to Bob: I agree".into())
    );
    for (message, expected) in [
        (json!({"type": "private", "to": "Dan", "content": "hi"}), "error: Nobody here is called Dan."),
        (json!({"type": "private", "content": "hi"}), "error: The field \"to\" is missing."),
        (json!({"type": "private", "to": "Bob"}), "error: The field \"content\" is missing."),
    ] {
        ann.send(message);
        assert_eq!(ann.next_line(), expected);
    }
    bob.assert_nothing_received();
    cid.assert_nothing_received();
}

/// The user with the longest name once got what was meant for another.
fn a_whisper_to_several_names_at_once_asks_for_quotes(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob, mut cid) = (server.join("Ann"), server.join("Bob"), server.join("Bob I"));
    assert_eq!(
        (ann.next_line(), ann.next_line()),
        ("system: Bob joined.".into(), "system: Bob I joined.".into())
    );
    assert_eq!(bob.next_line(), "system: Bob I joined.");
    ann.command("/whisper Bob I agree");
    let line = ann.next_line();
    assert!(line.starts_with("error: ") && line.contains("\"Bob\"") && line.contains("\"Bob I\""), "{line}");
    ann.command("/whisper \"Bob\" I agree");
    assert_eq!(
        (ann.next_line(), bob.next_line()),
        ("Ann to Bob: I agree".into(), "Ann to Bob: I agree".into())
    );
    ann.command("/whisper \"bob i\" agree");
    assert_eq!(
        (ann.next_line(), cid.next_line()),
        ("Ann to Bob I: agree".into(), "Ann to Bob I: agree".into())
    );
    bob.assert_nothing_received();
}

fn a_whisper_reaches_only_its_two_users(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut lee, mut bob) = (server.join("Ann"), server.join("Ann Lee"), server.join("Bob"));
    bob.command("/whisper \"ANN LEE\"  see you  later");
    assert_eq!(lee.next_line(), "system: Bob joined.");
    assert_eq!(lee.next_line(), "Bob to Ann Lee: see you  later");
    assert_eq!(bob.next_line(), "Bob to Ann Lee: see you  later");
    bob.assert_nothing_received();
    assert_eq!(
        (ann.next_line(), ann.next_line()),
        ("system: Ann Lee joined.".into(), "system: Bob joined.".into())
    );
    ann.assert_nothing_received();
    bob.command("/whisper Nobody hi");
    assert!(bob.next_line().starts_with("error: Nobody here is called Nobody"));
    bob.command("/whisper \"Ann Lee\"");
    assert_eq!(bob.next_line(), "error: Usage: /whisper [user] [message]");
}

fn a_moderator_times_out_a_user(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob Lee"));
    assert_eq!(ann.next_line(), "system: Bob Lee joined.");
    bob.command("/to Ann 5");
    assert!(bob.next_line().starts_with("error: Only moderators"));
    ann.command("/login wrong");
    assert_eq!(ann.next_line(), "error: Wrong password.");
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    assert_eq!(bob.next_line(), "system: Ann is now a moderator.");
    bob.wait_for_users(&["Ann mod", "Bob Lee"]);
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: You are already a moderator.");
    ann.command("/to bob lee 600");
    assert_eq!(ann.next_line(), "system: Ann timed out Bob Lee for 600 seconds.");
    assert_eq!(bob.next_line(), "system: Ann timed out Bob Lee for 600 seconds.");
    ann.wait_for_users(&["Ann mod", "Bob Lee timed out"]);
    bob.public("hi");
    let refusal = bob.next_line();
    let seconds: String = refusal.chars().filter(char::is_ascii_digit).collect();
    assert!(
        refusal.starts_with("system: You are timed out")
            && (1..=600).contains(&seconds.parse::<u32>().unwrap()),
        "{refusal}"
    );
    // The time-out belongs to the name: leaving does not end it.
    bob.leave();
    assert_eq!(ann.next_line(), "system: Bob Lee left.");
    let mut bob = server.join("bob lee");
    assert_eq!(bob.users, ["Ann mod", "bob lee timed out"]);
    ann.command("/to BOB LEE 1");
    assert_eq!(bob.next_line(), "system: Ann timed out bob lee for 1 seconds.");
    assert_eq!(bob.next_line(), "system: Your time-out is over: you can send messages again.");
    bob.wait_for_users(&["Ann mod", "bob lee"]);
    bob.public("thanks");
    assert_eq!(ann.next_line(), "system: bob lee joined.");
    assert_eq!(ann.next_line(), "system: Ann timed out bob lee for 1 seconds.");
    assert_eq!(ann.next_line(), "bob lee: thanks");
}

fn help_and_unknown_commands_are_answered(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    ann.command("/help");
    let help = ann.next_line();
    assert!(["/whisper", "/login", "/to", "/help"].iter().all(|name| help.contains(name)), "{help}");
    ann.command("/help login");
    assert!(ann.next_line().starts_with("system: /login [password] "));
    ann.command("/dance");
    assert_eq!(ann.next_line(), "error: Unknown command /dance: /help lists the commands.");
    ann.command("hello");
    assert_eq!(ann.next_line(), "error: A command begins with a slash: try /help.");
}

fn all_members_receive_messages_in_the_same_order(transport: Transport) {
    const SENDERS: usize = 4;
    const MESSAGES: usize = 200;
    let server = TestServer::start(transport);
    let mut receivers = [server.join("Receiver 1"), server.join("Receiver 2")];
    let senders: Vec<_> = (0..SENDERS).map(|number| server.join(&format!("Sender {number}"))).collect();
    std::thread::scope(|scope| {
        for mut sender in senders {
            scope.spawn(move || {
                (0..MESSAGES).for_each(|number| sender.public(&number.to_string()));
                sender.leave();
            });
        }
        let [first, second] = receivers.each_mut().map(|receiver| {
            let mut messages = Vec::new();
            let mut left = 0;
            while left < SENDERS {
                let line = receiver.next_line();
                if line.starts_with("Sender ") {
                    messages.push(line);
                } else {
                    left += usize::from(line.ends_with(" left."));
                }
            }
            messages
        });
        assert_eq!(first.len(), SENDERS * MESSAGES);
        assert!(first == second, "the orders differ");
    });
}

fn a_member_that_leaves_is_removed_from_the_list(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    server.join("Bob").leave();
    // Without a closing handshake.
    drop(server.join("Cid"));
    for line in ["Bob joined.", "Bob left.", "Cid joined.", "Cid left."] {
        assert_eq!(ann.next_line(), format!("system: {line}"));
    }
    ann.wait_for_users(&["Ann"]);
    server.join("Bob");
}

/// Every invalid message gets an answer, and the connection stays open.
fn every_json_message_is_answered(transport: Transport) {
    let server = TestServer::start(transport);
    let ann = RefCell::new(server.join("Ann"));
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("\\PC{0,5}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let kind = prop_oneof![4 => "(join|command)".prop_map(Value::from), 1 => value.clone()];
    let content = prop_oneof!["/(help|to|whisper|login)( \\PC{0,20})?".prop_map(Value::from), value.clone()];
    let message = (kind, value.clone(), content).prop_map(
        |(kind, username, content)| json!({"type": kind, "username": username, "content": content}),
    );
    TestRunner::deterministic()
        .run(&prop_oneof![3 => message, 1 => value], |message| {
            let mut ann = ann.borrow_mut();
            ann.send(message);
            let answer = ann.next_event();
            prop_assert!(
                matches!(answer["type"].as_str(), Some("error" | "system" | "private")),
                "{}",
                answer
            );
            Ok(())
        })
        .unwrap();
}

/// The original server sends every client a list for every join: for 400 joins, minutes and gigabytes.
fn four_hundred_joins_at_once_send_few_lists(transport: Transport) {
    const CLIENTS: usize = 400;
    const THREADS: usize = 20;
    let server = TestServer::start(transport);
    let barrier = Barrier::new(THREADS);
    let start = Instant::now();
    let lists: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (server, barrier) = (&server, &barrier);
                scope.spawn(move || {
                    let mut clients: Vec<_> = (0..CLIENTS / THREADS).map(|_| server.connect()).collect();
                    barrier.wait();
                    for (number, client) in clients.iter_mut().enumerate() {
                        client.join(&format!("user {thread} {number}"));
                    }
                    for client in &mut clients {
                        while client.users.len() < CLIENTS {
                            client.next_message();
                        }
                    }
                    // All stay connected until all have the complete list.
                    barrier.wait();
                    clients.iter().map(|client| client.lists).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(lists.len(), CLIENTS);
    // At most one list per 50 ms: where a busy machine spreads the joins over a longer time, there are more.
    let most = 8 + start.elapsed().as_millis() as usize / 55;
    assert!(lists.iter().all(|&count| count <= most), "more than {most} lists: {lists:?}");
}
