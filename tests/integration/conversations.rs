//! SPEC.md parts 1 and 2 as clients meet them, over ws and wss alike.

use proptest::prelude::*;
use serde_json::{Value, json};
use tungstenite::{Bytes, Message};

use crate::server::{TestServer, Transport};

/// Has each conversation twice.
macro_rules! over_ws_and_wss {
    ($($name:ident),* $(,)?) => {
        mod ws {
            $(#[test] fn $name() { super::$name($crate::server::Transport::Ws) })*
        }
        mod wss {
            $(#[test] fn $name() { super::$name($crate::server::Transport::Wss) })*
        }
    };
}

pub(crate) use over_ws_and_wss;

over_ws_and_wss! {
    a_newcomer_gets_the_list_the_commands_and_the_news,
    fields_come_in_the_order_of_the_specification,
    people_talk_and_hear_no_echo,
    a_first_message_with_a_name_joins,
    whoever_has_not_joined_neither_speaks_nor_hears,
    names_are_one_in_any_dress,
    what_is_no_message_gets_an_error_and_harms_nobody,
    a_whisper_is_for_two,
    a_moderator_times_somebody_out,
    help_and_unknown_commands,
    all_hear_one_order,
    whoever_leaves_is_gone_from_the_list,
    fragments_and_pings_between_them_are_one_message,
    whatever_is_sent_is_answered,
    four_hundred_join_at_once,
}

fn a_newcomer_gets_the_list_the_commands_and_the_news(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.join("  Bob ");
    let list = bob.next_of_all();
    assert_eq!(list["type"], "user_list");
    assert_eq!(bob.users, ["Ann", "Bob"]);
    let commands = bob.next_of_all();
    assert_eq!(
        commands["content"],
        json!({
            "/whisper": {"usage": "/whisper [user] [message]"},
            "/login": {"usage": "/login [password]"},
            "/to": {"usage": "/to [user] [seconds]"},
            "/help": {"usage": "/help [command]"},
        })
    );
    assert_eq!(bob.next_of_all()["content"], "Bob joined.");
    assert_eq!(ann.hears(), "system: Bob joined.");
    ann.sees(&["Ann", "Bob"]);
}

fn fields_come_in_the_order_of_the_specification(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.connect();
    let stamped = |text: &str| {
        let message: Value = serde_json::from_str(text).unwrap();
        let timestamp = message["timestamp"].as_str().unwrap().to_owned();
        let digits: Vec<bool> = timestamp.chars().map(|c| c.is_ascii_digit()).collect();
        assert_eq!(digits, [true, true, false, true, true, false, true, true], "{timestamp}");
        text.replace(&timestamp, "TIME")
    };
    ann.join("Ann");
    assert_eq!(
        stamped(&ann.next_text()),
        r#"{"type":"user_list","content":[{"username":"Ann","is_mod":false,"is_timed_out":false}],"timestamp":"TIME"}"#
    );
    assert!(
        stamped(&ann.next_text()).starts_with(r#"{"type":"command_list","content":{"/whisper":{"usage":"#)
    );
    assert_eq!(
        stamped(&ann.next_text()),
        r#"{"type":"system","username":"System","content":"Ann joined.","timestamp":"TIME"}"#
    );
    ann.command("/whisper Ann hi");
    assert_eq!(
        stamped(&ann.next_text()),
        r#"{"type":"private","from":"Ann","to":"Ann","content":"hi","timestamp":"TIME"}"#
    );
    ann.send_text("[]");
    assert_eq!(
        stamped(&ann.next_text()),
        r#"{"type":"error","username":"System","content":"A message must be a JSON object.","timestamp":"TIME"}"#
    );
    let mut bob = server.join("Bob");
    bob.public("hi \u{1F980}");
    assert_eq!(ann.hears(), "system: Bob joined.");
    let said = loop {
        let text = ann.next_text();
        if !text.contains("user_list") {
            break text;
        }
    };
    assert_eq!(
        stamped(&said),
        "{\"type\":\"public\",\"username\":\"Bob\",\"content\":\"hi \u{1F980}\",\"timestamp\":\"TIME\"}"
    );
}

fn people_talk_and_hear_no_echo(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob, mut cid) = (server.join("Ann"), server.join("Bob"), server.join("Cid"));
    assert_eq!((ann.hears(), ann.hears()), ("system: Bob joined.".into(), "system: Cid joined.".into()));
    assert_eq!(bob.hears(), "system: Cid joined.");
    // A name and a time of one's own are ignored.
    ann.send(json!({"type": "public", "username": "Bob", "content": " hi\n", "timestamp": "00:00:00"}));
    assert_eq!(bob.hears(), "Ann:  hi\n");
    assert_eq!(cid.hears(), "Ann:  hi\n");
    ann.hears_nothing();
    ann.join("Ann again");
    assert_eq!(ann.hears(), "error: You have joined already, as Ann.");
    bob.hears_nothing();
}

fn a_first_message_with_a_name_joins(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.send(json!({"type": "public", "username": "Bob", "content": "hi"}));
    assert_eq!(ann.hears(), "system: Bob joined.");
    assert_eq!(ann.hears(), "Bob: hi");
    let mut cid = server.connect();
    cid.send(json!({"type": "command", "username": "Cid", "content": "/whisper Bob psst"}));
    assert_eq!(cid.next()["type"], "command_list");
    assert_eq!(cid.hears(), "system: Cid joined.");
    assert_eq!(cid.hears(), "Cid to Bob: psst");
}

fn whoever_has_not_joined_neither_speaks_nor_hears(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut guest = server.connect();
    guest.public("hi");
    assert!(guest.hears().starts_with("error: Join first"));
    ann.public("between us");
    ann.hears_nothing();
    guest.command("/help");
    assert!(guest.hears().starts_with("error: Join first"), "nothing that was said was heard");
    guest.join("Guest");
    assert_eq!(guest.next_of_all()["type"], "user_list");
}

fn names_are_one_in_any_dress(transport: Transport) {
    let server = TestServer::start(transport);
    let _bob = server.join("Bob");
    let mut other = server.connect();
    for name in ["bob", "Ｂｏｂ", "SYSTEM", " ", "a\u{202E}b", "much too long a name for anybody here"] {
        other.join(name);
        assert!(other.hears().starts_with("error: The username"), "{name}");
    }
    other.join("Bob Two");
    assert_eq!(other.next_of_all()["type"], "user_list");
    assert_eq!(other.users, ["Bob", "Bob Two"]);
}

fn what_is_no_message_gets_an_error_and_harms_nobody(transport: Transport) {
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
        assert!(bob.hears().starts_with("error: "), "{text}");
    }
    bob.socket.send(Message::Binary(Bytes::from_static(b"{}"))).unwrap();
    assert!(bob.hears().starts_with("error: Binary"));
    assert_eq!(ann.hears(), "system: Bob joined.");
    ann.hears_nothing();
    bob.public("still here");
    assert_eq!(ann.hears(), "Bob: still here");
}

fn a_whisper_is_for_two(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut lee, mut bob) = (server.join("Ann"), server.join("Ann Lee"), server.join("Bob"));
    bob.command("/whisper ANN LEE  see you  later");
    assert_eq!(lee.hears(), "system: Bob joined.");
    assert_eq!(lee.hears(), "Bob to Ann Lee: see you  later");
    assert_eq!(bob.hears(), "Bob to Ann Lee: see you  later");
    bob.hears_nothing();
    assert_eq!((ann.hears(), ann.hears()), ("system: Ann Lee joined.".into(), "system: Bob joined.".into()));
    ann.hears_nothing();
    bob.command("/whisper Nobody hi");
    assert!(bob.hears().starts_with("error: Nobody here is called Nobody"));
    bob.command("/whisper Ann Lee");
    assert_eq!(bob.hears(), "error: Usage: /whisper [user] [message]");
}

fn a_moderator_times_somebody_out(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob Lee"));
    assert_eq!(ann.hears(), "system: Bob Lee joined.");
    bob.command("/to Ann 5");
    assert!(bob.hears().starts_with("error: Only moderators"));
    ann.command("/login wrong");
    assert_eq!(ann.hears(), "error: Wrong password.");
    ann.command("/login secret");
    assert_eq!(ann.hears(), "system: Ann is now a moderator.");
    assert_eq!(bob.hears(), "system: Ann is now a moderator.");
    bob.sees(&["Ann mod", "Bob Lee"]);
    ann.command("/login secret");
    assert_eq!(ann.hears(), "system: You are a moderator already.");
    ann.command("/to bob lee 600");
    assert_eq!(ann.hears(), "system: Ann timed out Bob Lee for 600 seconds.");
    assert_eq!(bob.hears(), "system: Ann timed out Bob Lee for 600 seconds.");
    ann.sees(&["Ann mod", "Bob Lee timed out"]);
    bob.public("hi");
    let refused = bob.hears();
    let seconds: String = refused.chars().filter(char::is_ascii_digit).collect();
    assert!(
        refused.starts_with("system: You are timed out")
            && (1..=600).contains(&seconds.parse::<u32>().unwrap())
    );
    bob.leave();
    assert_eq!(ann.hears(), "system: Bob Lee left.");
    let mut bob = server.join("bob lee");
    assert_eq!(bob.users, ["Ann mod", "bob lee timed out"]);
    ann.command("/to BOB LEE 1");
    assert_eq!(bob.hears(), "system: Ann timed out bob lee for 1 seconds.");
    assert_eq!(bob.hears(), "system: Your time-out is over: you may speak again.");
    bob.sees(&["Ann mod", "bob lee"]);
    bob.public("thanks");
    assert_eq!(ann.hears(), "system: bob lee joined.");
    assert_eq!(ann.hears(), "system: Ann timed out bob lee for 1 seconds.");
    assert_eq!(ann.hears(), "bob lee: thanks");
}

fn help_and_unknown_commands(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    ann.command("/help");
    let help = ann.hears();
    assert!(["/whisper", "/login", "/to", "/help"].iter().all(|name| help.contains(name)), "{help}");
    ann.command("/help login");
    assert!(ann.hears().starts_with("system: /login [password] "));
    ann.command("/dance");
    assert_eq!(ann.hears(), "error: Unknown command /dance: /help lists the commands.");
    ann.command("hello");
    assert_eq!(ann.hears(), "error: A command begins with a slash: try /help.");
}

fn all_hear_one_order(transport: Transport) {
    const EACH: usize = 200;
    let server = TestServer::start(transport);
    let mut listeners = [server.join("Listener one"), server.join("Listener two")];
    let talkers: Vec<_> = (0..4).map(|number| server.join(&format!("Talker {number}"))).collect();
    std::thread::scope(|scope| {
        for mut talker in talkers {
            scope.spawn(move || {
                (0..EACH).for_each(|number| talker.public(&number.to_string()));
                talker.leave();
            });
        }
        let [one, two] = listeners.each_mut().map(|listener| {
            let mut heard = Vec::new();
            let mut left = 0;
            while left < 4 {
                let message = listener.next();
                match message["type"].as_str() {
                    Some("public") => heard.push(format!("{}: {}", message["username"], message["content"])),
                    _ => left += usize::from(message["content"].as_str().unwrap().ends_with(" left.")),
                }
            }
            heard
        });
        assert_eq!(one.len(), 4 * EACH);
        assert!(one == two, "two heard another order");
    });
}

fn whoever_leaves_is_gone_from_the_list(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    server.join("Bob").leave();
    // And one whose connection is cut.
    drop(server.join("Cid"));
    for line in ["Bob joined.", "Bob left.", "Cid joined.", "Cid left."] {
        assert_eq!(ann.hears(), format!("system: {line}"));
    }
    ann.sees(&["Ann"]);
    server.join("Bob");
}

fn fragments_and_pings_between_them_are_one_message(transport: Transport) {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};
    let server = TestServer::start(transport);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    assert_eq!(ann.hears(), "system: Bob joined.");
    let text = r#"{"type": "public", "content": "in parts"}"#;
    let parts = [
        (Data::Text, &text[..9], false),
        (Data::Continue, &text[9..30], false),
        (Data::Continue, &text[30..], true),
    ];
    for (kind, part, is_final) in parts {
        let frame = Frame::message(part.as_bytes().to_vec(), OpCode::Data(kind), is_final);
        bob.socket.send(Message::Frame(frame)).unwrap();
        bob.socket.send(Message::Ping(Bytes::from_static(b"there?"))).unwrap();
    }
    for _ in parts {
        while !matches!(bob.socket.read().unwrap(), Message::Pong(payload) if payload == "there?") {}
    }
    assert_eq!(ann.hears(), "Bob: in parts");
}

/// Whatever JSON comes, each message gets its answer and the connection stays.
fn whatever_is_sent_is_answered(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
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
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let input = prop_oneof![3 => message, 1 => value];
    let ann = std::cell::RefCell::new(&mut ann);
    runner
        .run(&input, |message| {
            let mut ann = ann.borrow_mut();
            ann.send(message);
            let answer = ann.next();
            prop_assert!(
                matches!(answer["type"].as_str(), Some("error" | "system" | "private")),
                "{}",
                answer
            );
            Ok(())
        })
        .unwrap();
}

/// Issue 2: everybody is in the list, and nobody got more than a handful of lists.
fn four_hundred_join_at_once(transport: Transport) {
    const CROWD: usize = 400;
    let server = TestServer::start(transport);
    let barrier = std::sync::Barrier::new(20);
    let start = std::time::Instant::now();
    let lists: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|thread| {
                let (server, barrier) = (&server, &barrier);
                scope.spawn(move || {
                    let mut clients: Vec<_> = (0..CROWD / 20).map(|_| server.connect()).collect();
                    barrier.wait();
                    for (number, client) in clients.iter_mut().enumerate() {
                        client.join(&format!("user {thread} {number}"));
                    }
                    for client in &mut clients {
                        while client.users.len() < CROWD {
                            client.next_of_all();
                        }
                    }
                    // Everybody stays until all have seen all.
                    barrier.wait();
                    clients.iter().map(|client| client.lists).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(lists.len(), CROWD);
    // On a machine so busy that the crowd comes one by one there may be one list an interval more.
    let most = 8 + start.elapsed().as_millis() as usize / 55;
    assert!(lists.iter().all(|&count| count <= most), "{lists:?}");
}
