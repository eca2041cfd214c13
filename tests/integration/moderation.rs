//! Moderation (docs/protocol.md): kicks, bans and the ways around them, time-outs, deletions.

use std::io::ErrorKind;
use std::time::Instant;

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use crate::support::client::{Client, TIMEOUT, id, lines, masked};
use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

/// Tests connect through loopback, as if through a proxy.
const PROXY: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");
/// No place ends because of the time.
const FOREVER: (&str, &str) = ("RESUME_SECONDS", "86400");
const NO_CONNECT_RATE: (&str, &str) = ("CONNECT_RATE", "0");

over_ws_and_wss! {
    a_banned_user_does_not_come_back_under_another_name,
    a_banned_user_does_not_come_back_under_a_look_alike_name,
    all_connections_from_a_banned_address_are_closed,
    ipv6_neighbors_are_banned,
    a_banned_user_does_not_come_back_through_a_proxy,
    a_banned_user_does_not_resume,
    a_guest_that_is_connected_already_is_refused,
    a_member_that_is_away_is_banned,
    a_network_is_banned,
    a_banned_client_that_keeps_coming_back_is_refused_each_time,
    what_cannot_be_banned,
    a_named_moderator_is_not_affected,
    a_ban_ends,
    a_kicked_user_may_come_back,
    a_kick_ends_the_session,
    leaving_does_not_end_a_time_out,
    a_time_out_can_be_ended,
    messages_are_deleted,
    deletions_reach_who_was_not_connected,
    decisions_are_acknowledged,
}

/// A server behind a proxy, with a moderator on it.
fn moderated(transport: Transport) -> (TestServer, Client) {
    let server = TestServer::with(transport, &[PROXY, FOREVER, NO_CONNECT_RATE]);
    let mut ann = server.join("Ann");
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    (server, ann)
}

fn join_from(server: &TestServer, address: &str, name: &str) -> Client {
    let mut client = server.connect_from(address);
    client.join_and_wait(name);
    client
}

/// Bans Bob, who must be at this address, and waits until the ban applies.
fn ban_bob(ann: &mut Client, address: &str, reason: &str) {
    ann.command(&format!("/ban Bob {reason}"));
    skip_to(ann, &format!("system: Banned Bob and {address}: {reason}\nAlso affected: nobody."));
}

/// Reads up to this line.
fn skip_to(client: &mut Client, line: &str) {
    while client.next_line() != line {}
}

/// The lines up to the close frame, and its reason. Its code must be 1008.
fn removal(client: &mut Client) -> (Vec<String>, String) {
    let (start, mut lines) = (Instant::now(), Vec::new());
    loop {
        assert!(start.elapsed() < TIMEOUT, "it stays open: {lines:?}");
        match client.socket.read() {
            Ok(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if let Some(content) = message["content"].as_str() {
                    lines.push(format!("{}: {content}", message["type"].as_str().unwrap()));
                }
            }
            Ok(Message::Close(frame)) => {
                let frame = frame.expect("the close frame has a code");
                assert_eq!(frame.code, CloseCode::Policy);
                while client.socket.read().is_ok() {}
                return (lines, frame.reason.to_string());
            }
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                panic!("it stays open: {lines:?}")
            }
            Err(error) => panic!("{error} after {lines:?}"),
        }
    }
}

/// Asserts that the client gets one `error`, and is closed.
fn assert_refused(client: &mut Client, reason: &str) {
    let expected = (vec![format!("error: You are banned: {reason}")], reason.to_owned());
    assert_eq!(removal(client), expected);
}

fn a_banned_user_does_not_come_back_under_another_name(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = join_from(&server, "192.0.2.1", "Bob");
    ban_bob(&mut ann, "192.0.2.1", "spam");
    let (lines, reason) = removal(&mut bob);
    assert_eq!(lines, ["system: Ann banned Bob: spam", "error: You are banned: spam"]);
    assert_eq!(reason, "spam");
    // Before it says anything.
    assert_refused(&mut server.connect_from("192.0.2.1"), "spam");
    join_from(&server, "192.0.2.2", "Eve");
    assert_eq!(ann.next_line(), "system: Eve joined.");
}

fn a_banned_user_does_not_come_back_under_a_look_alike_name(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let _bob = join_from(&server, "192.0.2.1", "Bob");
    ban_bob(&mut ann, "192.0.2.1", "spam");
    for (number, name) in ["Bob", "BOB", "Ｂｏｂ", "Воb", "B0b"].into_iter().enumerate() {
        let mut client = server.connect_from(&format!("192.0.2.{}", 10 + number));
        client.join(name);
        assert_refused(&mut client, "spam");
        // A first message with a name joins as well.
        let mut client = server.connect_from(&format!("192.0.2.{}", 10 + number));
        client.send(json!({"type": "public", "username": name, "content": "hi"}));
        assert_refused(&mut client, "spam");
    }
    // From loopback, too: a name has no address.
    let mut client = server.connect();
    client.join("bob");
    assert_refused(&mut client, "spam");
    join_from(&server, "192.0.2.10", "Bobby");
    assert_eq!(ann.next_line(), "system: Bobby joined.");
}

fn all_connections_from_a_banned_address_are_closed(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let _bob = join_from(&server, "192.0.2.1", "Bob");
    let mut second = join_from(&server, "192.0.2.1", "Second");
    ann.command("/ban Bob 1d");
    skip_to(&mut ann, "system: Ann banned Bob, Second for 1 d.");
    skip_to(&mut ann, "system: Banned Bob and 192.0.2.1 for 1 d.\nAlso affected: Second.");
    let (lines, reason) = removal(&mut second);
    assert!(lines.last().unwrap().starts_with("error: You are banned until 2"), "{lines:?}");
    assert_eq!(reason, "banned");
    let (lines, _) = removal(&mut server.connect_from("192.0.2.1"));
    assert_eq!(lines.len(), 1);
    ann.wait_for_users(&["Ann mod"]);
}

fn ipv6_neighbors_are_banned(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let _bob = join_from(&server, "2001:db8:1:2::1", "Bob");
    ban_bob(&mut ann, "2001:db8:1:2::/64", "spam");
    for address in ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:ffff:ffff:ffff:ffff"] {
        assert_refused(&mut server.connect_from(address), "spam");
    }
    join_from(&server, "2001:db8:1:3::1", "Eve");
    assert_eq!(ann.next_line(), "system: Eve joined.");
}

fn a_banned_user_does_not_come_back_through_a_proxy(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let _bob = join_from(&server, "192.0.2.1", "Bob");
    ban_bob(&mut ann, "192.0.2.1", "spam");
    // What a client claims stands to the left of what the proxy has added.
    for forwarded in [
        "::ffff:192.0.2.1",
        "198.51.100.7, 192.0.2.1",
        "127.0.0.1, 192.0.2.1",
        "192.0.2.1, 127.0.0.1",
        "192.0.2.1:4711",
    ] {
        assert_refused(&mut server.connect_from(forwarded), "spam");
    }
    // The proxy itself is not affected by bans of clients behind it.
    server.join("Eve");
    assert_eq!(ann.next_line(), "system: Eve joined.");
}

fn a_banned_user_does_not_resume(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = server.connect_from("192.0.2.1");
    let session = bob.join_asking("Bob", json!({"history": 0}))["session"].clone();
    let mut eve = server.connect_from("198.51.100.1");
    let eves = eve.join_asking("Eve", json!({"history": 0}))["session"].clone();
    ban_bob(&mut ann, "192.0.2.1", "spam");
    removal(&mut bob);
    let resume = |address, name: &str, session: &Value| {
        let mut client = server.connect_from(address);
        client.send(json!({"type": "join", "username": name, "session": session}));
        client
    };
    assert_refused(&mut server.connect_from("192.0.2.1"), "spam");
    assert_refused(&mut resume("192.0.2.2", "Bob", &session), "spam");
    // Another member's place cannot be resumed from the banned address either, but stays its own.
    drop(eve);
    ann.wait_for_users(&["Ann mod", "Eve away"]);
    assert_refused(&mut server.connect_from("192.0.2.1"), "spam");
    let mut eve = resume("198.51.100.1", "Eve", &eves);
    ann.wait_for_users(&["Ann mod", "Eve"]);
    eve.public("hi");
    assert_eq!(ann.next_line(), "Eve: hi");
}

fn a_guest_that_is_connected_already_is_refused(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut guest = server.connect_from("192.0.2.1");
    let mut session = server.connect_from("192.0.2.1");
    // The hub knows both before it handles the ban.
    for client in [&mut guest, &mut session] {
        client.command("/help");
        assert!(client.next_line().starts_with("error: Join first"));
    }
    let _bob = join_from(&server, "192.0.2.1", "Bob");
    ban_bob(&mut ann, "192.0.2.1", "spam");
    guest.join("Eve");
    assert_refused(&mut guest, "spam");
    session.send(json!({"type": "join", "username": "Eve", "history": 10}));
    assert_refused(&mut session, "spam");
    ann.assert_nothing_received();
}

fn a_member_that_is_away_is_banned(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = server.connect_from("192.0.2.1");
    let session = bob.join_asking("Bob", json!({"history": 0}))["session"].clone();
    assert_eq!(ann.next_line(), "system: Bob joined.");
    drop(bob);
    ann.wait_for_users(&["Ann mod", "Bob away"]);
    ann.command("/ban Bob spam");
    assert_eq!(ann.next_line(), "system: Ann banned Bob: spam");
    assert_eq!(ann.next_line(), "system: Bob left.");
    skip_to(&mut ann, "system: Banned Bob and 192.0.2.1: spam\nAlso affected: nobody.");
    assert_refused(&mut server.connect_from("192.0.2.1"), "spam");
    let mut bob = server.connect_from("192.0.2.2");
    bob.send(json!({"type": "join", "username": "Bob", "session": session}));
    assert_refused(&mut bob, "spam");
}

fn a_network_is_banned(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = join_from(&server, "192.0.2.77", "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.command("/ban ::ffff:192.0.2.0/120 flood");
    // Addresses are not shown to all.
    assert_eq!(ann.next_line(), "system: Ann banned Bob: flood");
    assert_eq!(ann.next_line(), "system: Bob left.");
    assert_eq!(ann.next_line(), "system: Banned 192.0.2.0/24: flood\nAlso affected: Bob.");
    assert_eq!(removal(&mut bob).1, "flood");
    assert_refused(&mut server.connect_from("192.0.2.255"), "flood");
    // The name is not banned.
    join_from(&server, "192.0.3.1", "Bob");
}

/// A client that reconnects in a loop must not cost others anything: the hub does not learn of it.
fn a_banned_client_that_keeps_coming_back_is_refused_each_time(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    ann.command("/ban 192.0.2.1 spam");
    skip_to(&mut ann, "system: Banned 192.0.2.1: spam\nAlso affected: nobody.");
    for _ in 0..30 {
        assert_refused(&mut server.connect_from_when_free("192.0.2.1"), "spam");
    }
    ann.assert_nothing_received();
}

fn what_cannot_be_banned(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    for (target, reason) in [
        ("127.0.0.1", "127.0.0.1 cannot be banned: it contains loopback or a trusted proxy."),
        ("::1", "::/64 cannot be banned: it contains loopback or a trusted proxy."),
        ("127.1.0.0/16", "127.1.0.0/16 cannot be banned: it contains loopback or a trusted proxy."),
        ("0.0.0.0/0", "0.0.0.0/0 is too wide: at most a /16, or a /32 for IPv6, can be banned."),
        ("2001::/16", "2001::/16 is too wide: at most a /16, or a /32 for IPv6, can be banned."),
        ("Ann", "You cannot ban yourself."),
        (
            "Nobody",
            "Nobody here is called Nobody. To ban a name that is not here, put it in quotes: /ban \"Nobody\" …",
        ),
    ] {
        ann.command(&format!("/ban {target}"));
        assert_eq!(ann.next_line(), format!("error: {reason}"));
    }
    let mut mallory = join_from(&server, "192.0.2.9", "Mallory");
    mallory.command("/login secret");
    skip_to(&mut mallory, "system: Mallory is now a moderator.");
    mallory.command("/ban 192.0.0.0/16");
    assert_eq!(mallory.next_line(), "error: 192.0.0.0/16 cannot be banned: it contains your own address.");
    // A user on loopback is banned by its name only.
    let mut bob = server.join("Bob");
    skip_to(&mut mallory, "system: Bob joined.");
    mallory.command("/ban Bob");
    skip_to(
        &mut mallory,
        "system: Banned Bob.\nAlso affected: nobody.\n\
         Only the name is banned: the address is loopback or a trusted proxy.",
    );
    removal(&mut bob);
    let _eve = server.join("Eve");
    // Without the role, nothing.
    let mut cid = server.join("Cid");
    for command in ["/ban Ann", "/unban Bob", "/bans", "/info Ann", "/kick Ann", "/unto Ann"] {
        cid.command(command);
        let name = command.split(' ').next().unwrap();
        assert_eq!(cid.next_line(), format!("error: Only moderators may use {name}: see /login."));
    }
}

fn a_named_moderator_is_not_affected(transport: Transport) {
    let settings = [PROXY, FOREVER, NO_CONNECT_RATE];
    let server = TestServer::with_moderators(transport, &settings, &[("Meg", "only meg")]);
    let mut ann = server.join("Ann");
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    let join = json!({"type": "join", "username": "Meg", "password": "only meg"});
    let mut meg = server.connect_from("192.0.2.1");
    let first = meg.join_asking("Meg", json!({"history": 0, "password": "only meg"}));
    assert_eq!(ann.next_line(), "system: Meg joined.");
    for command in ["/to Meg 60", "/kick Meg", "/ban Meg", "/ban \"Mеg\""] {
        ann.command(command);
        assert_eq!(
            ann.next_line(),
            "error: Meg is a named moderator, whom others cannot time out, kick or ban."
        );
    }
    ann.command("/ban 192.0.2.1 spam");
    assert_eq!(ann.next_line(), "system: Banned 192.0.2.1: spam\nAlso affected: nobody.");
    meg.public("hi");
    assert_eq!(ann.next_line(), "Meg: hi");
    // It comes back with its session or its password, and nobody else does.
    let resumed = let_in(&server, &json!({"type": "join", "username": "Meg", "session": first["session"]}));
    resumed.close(Some(CloseCode::Normal));
    assert_eq!(ann.next_line(), "system: Meg left.");
    for refused in [
        json!({"type": "join", "username": "Meg"}),
        json!({"type": "join", "username": "Meg", "password": "wrong"}),
        json!({"type": "join", "username": "Bob", "password": "only meg"}),
    ] {
        let mut client = server.connect_from_when_free("192.0.2.1");
        client.send(refused);
        assert_refused(&mut client, "spam");
    }
    let meg = let_in(&server, &join);
    assert_eq!(ann.next_line(), "system: Meg joined.");
    ann.command("/ban \"Mеg\"");
    assert!(ann.next_line().starts_with("error: Meg is a named moderator"));
    meg.close(Some(CloseCode::Normal));
    assert_eq!(ann.next_line(), "system: Meg left.");
    ann.command("/ban \"Mеg\"");
    assert_eq!(ann.next_line(), "error: Mеg cannot be banned: the name belongs to a named moderator.");
}

/// Joins from the banned address 192.0.2.1. The server waits a second for the join, so on a busy machine it may take
/// several attempts.
fn let_in(server: &TestServer, join: &Value) -> Client {
    loop {
        let mut client = server.connect_from_when_free("192.0.2.1");
        let _ = client.socket.send(Message::text(join.to_string()));
        let first = client.next_message();
        if first["type"] == "user_list" {
            return client;
        }
        assert_eq!(first["content"], "You are banned: spam", "{first}");
    }
}

fn a_ban_ends(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let _bob = join_from(&server, "192.0.2.1", "Bob");
    ban_bob(&mut ann, "192.0.2.1", "spam");
    ann.command("/unban Bob");
    assert_eq!(ann.next_line(), "system: The ban of Bob and 192.0.2.1 has ended.");
    let _bob = join_from(&server, "192.0.2.1", "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    // By itself: clients are refused until then.
    ann.command("/ban Bob 1s");
    skip_to(&mut ann, "system: Banned Bob and 192.0.2.1 for 1 s.\nAlso affected: nobody.");
    loop {
        let mut bob = server.connect_from_when_free("192.0.2.1");
        // If it was refused already, the connection may be closed.
        let _ = bob.socket.send(Message::text(r#"{"type":"join","username":"Bob"}"#));
        let first = bob.next_message();
        if first["type"] == "user_list" {
            break;
        }
        assert!(first["content"].as_str().unwrap().starts_with("You are banned until "), "{first}");
    }
}

fn a_kicked_user_may_come_back(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = join_from(&server, "192.0.2.1", "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.public("hi");
    ann.command("/kick Bob too loud");
    assert_eq!(ann.next_line(), "system: Ann kicked Bob: too loud");
    assert_eq!(ann.next_line(), "system: Bob left.");
    let expected = ["public: hi", "system: Ann kicked Bob: too loud"].map(String::from).to_vec();
    assert_eq!(removal(&mut bob), (expected, "too loud".into()));
    join_from(&server, "192.0.2.1", "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
}

fn a_kick_ends_the_session(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.command("/kick Bob");
    assert_eq!(ann.next_line(), "system: Ann kicked Bob.");
    assert_eq!(ann.next_line(), "system: Bob left.");
    assert_eq!(removal(&mut bob).1, "kicked");
    let mut bob = server.connect();
    let second = bob.join_asking("Bob", json!({"session": first["session"]}));
    assert_ne!(second["session"], first["session"]);
    assert_eq!(ann.next_line(), "system: Bob joined.");
}

fn leaving_does_not_end_a_time_out(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = join_from(&server, "192.0.2.1", "Bob");
    ann.command("/to Bob 86400");
    assert_eq!(bob.next_line(), "system: Ann timed out Bob for 86400 seconds.");
    bob.leave();
    for name in ["Bob", "bob", "Воb"] {
        let mut bob = server.connect_from("192.0.2.2");
        bob.join_asking(name, json!({"history": 0}));
        assert_eq!(bob.next_line(), format!("system: {name} joined."));
        bob.public("hi");
        assert!(bob.next_line().starts_with("system: You are timed out: 8"));
        bob.close(Some(CloseCode::Normal));
        ann.wait_for_users(&["Ann mod"]);
    }
}

fn a_time_out_can_be_ended(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = server.join("Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.command("/to Bob 86400");
    ann.wait_for_users(&["Ann mod", "Bob timed out"]);
    ann.command("/unto bob");
    for client in [&mut ann, &mut bob] {
        skip_to(client, "system: Ann ended the time-out of Bob.");
    }
    ann.wait_for_users(&["Ann mod", "Bob"]);
    bob.public("hi");
    assert_eq!(ann.next_line(), "Bob: hi");
}

fn messages_are_deleted(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    let mut cid = server.join("Cid");
    bob.public("oops");
    bob.public("spam");
    skip_to(&mut cid, "Bob: oops");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "system: Cid joined.");
    let [oops, spam] = [ann.next_event(), ann.next_event()].map(|message| id(&message));
    cid.command(&format!("/delete {oops}"));
    skip_to(&mut cid, &format!("error: There is no message of yours with the id {oops}."));
    assert_eq!(bob.next_line(), "system: Cid joined.");
    bob.command(&format!("/delete {oops}"));
    assert_eq!(masked(&bob.next_event_text()), r#"{"type":"deleted","id":ID,"timestamp":TIMESTAMP}"#);
    assert_eq!(bob.next_line(), format!("system: The message {oops} was deleted."));
    ann.command(&format!("/delete {spam}"));
    assert_eq!(ann.next_line(), format!("system: The message {spam} was deleted."));
    assert_eq!(bob.next_event()["id"], spam);
    // A client that did not ask is not told.
    cid.assert_nothing_received();
    let page = bob.page(json!({"limit": 200}));
    assert_eq!(lines(&page), ["system: Ann is now a moderator."]);
    ann.command(&format!("/delete {spam}"));
    assert_eq!(ann.next_line(), format!("error: There is no message with the id {spam}."));
}

fn deletions_reach_who_was_not_connected(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut bob = server.connect();
    let answer = bob.join_asking("Bob", json!({"history": 0}));
    skip_to(&mut ann, "system: Bob joined.");
    assert_eq!(bob.next_line(), "system: Bob joined.");
    ann.public("spam");
    let spam = id(&bob.next_event());
    bob.close(None);
    ann.command(&format!("/delete {spam}"));
    assert_eq!(ann.next_line(), format!("system: The message {spam} was deleted."));
    let mut bob = server.connect();
    let (epoch, session) = (&answer["epoch"], &answer["session"]);
    bob.send(json!({"type": "join", "username": "Bob", "epoch": epoch, "since": spam, "session": session}));
    assert_eq!(bob.next_event()["type"], "command_list");
    let deleted = bob.next_event();
    assert_eq!((&deleted["type"], id(&deleted)), (&json!("deleted"), spam));
    let answer = bob.next_event();
    assert_eq!((&answer["type"], &answer["recovered"]), (&json!("history"), &json!(true)));
}

fn decisions_are_acknowledged(transport: Transport) {
    let (server, mut ann) = moderated(transport);
    let mut dan = server.connect();
    dan.join_asking("Dan", json!({"history": 0}));
    let _bob = server.join("Bob");
    skip_to(&mut dan, "system: Bob joined.");
    let mut send =
        |content: &str| dan.send(json!({"type": "command", "content": content, "txn_id": content}));
    send("/login secret");
    send("/to Bob 60");
    send("/ban Bob");
    send("/kick Nobody");
    for line in
        ["system: Dan is now a moderator.", "ack: /login secret", "system: Dan timed out Bob for 60 seconds."]
    {
        assert_eq!(dan.next_line(), line);
    }
    let ack = dan.next_event();
    assert_eq!((&ack["type"], &ack["txn_id"]), (&json!("ack"), &json!("/to Bob 60")));
    for line in ["system: Dan banned Bob.", "system: Bob left."] {
        assert_eq!(dan.next_line(), line);
    }
    assert!(dan.next_line().starts_with("system: Banned Bob."));
    assert_eq!(dan.next_line(), "ack: /ban Bob");
    let error = dan.next_event();
    assert_eq!((&error["type"], &error["txn_id"]), (&json!("error"), &json!("/kick Nobody")));
    // The id is that of the line.
    let page = dan.page(json!({"limit": 200}));
    let timed_out =
        page["messages"].as_array().unwrap().iter().find(|message| id(message) == id(&ack)).unwrap();
    assert_eq!(timed_out["content"], "Dan timed out Bob for 60 seconds.");
    skip_to(&mut ann, "system: Bob left.");
}
