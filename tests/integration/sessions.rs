//! Sessions (docs/protocol.md): members whose connection has ended without a close of code 1000 stay in the room, away,
//! and take their places again.

use std::io::Write;
use std::time::Instant;

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{Client, REPLACED, TIMEOUT, id, line, lines, masked};
use crate::support::over_ws_and_wss;
use crate::support::proxy::Proxy;
use crate::support::server::{TestServer, Transport};

/// No place ends because of the time.
const FOREVER: (&str, &str) = ("RESUME_SECONDS", "86400");
const PROXY: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");
const NO_CONNECT_RATE: (&str, &str) = ("CONNECT_RATE", "0");
const NO_JOIN_RATE: (&str, &str) = ("JOIN_RATE", "0");
/// How much may be whispered to a member that is away.
const MAX_WHISPERS: usize = 100;
const MAX_WHISPERED_BYTES: usize = 64 * 1024;

over_ws_and_wss! {
    a_member_that_is_cut_off_is_away_and_resumes,
    only_a_close_with_1000_leaves_at_once,
    the_list_marks_members_that_are_away,
    the_role_and_the_place_in_the_list_are_kept,
    what_was_missed_is_in_the_answer,
    a_live_connection_is_replaced,
    a_dead_connection_does_not_block_its_owner,
    nothing_that_an_old_connection_still_sends_is_accepted,
    an_older_connection_does_not_replace_a_newer_one,
    a_member_leaves_when_its_time_is_over,
    with_resume_seconds_0_a_member_leaves_at_once,
    another_session_or_name_is_an_ordinary_join,
    what_was_whispered_to_a_member_that_is_away_is_delivered,
    whispers_that_are_not_delivered_are_reported,
    an_author_that_is_away_is_told_later,
    waiting_whispers_are_limited_in_number_and_bytes,
    members_away_from_one_address_are_limited,
    members_away_in_total_are_limited,
    loopback_is_exempt_from_the_limit_on_members_away,
    resuming_does_not_count_towards_the_join_rate,
}

fn a_member_that_is_cut_off_is_away_and_resumes(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.join("Ann");
    let proxy = Proxy::start(server.address);
    let mut bob = Client::connect(proxy.address, transport);
    let first = bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    let session = &first["session"];
    for _ in 0..3 {
        proxy.cut();
        wait_for_list(&mut ann, &["Ann", "Bob away"]);
        // The name is still Bob's.
        let mut other = server.connect();
        other.join("bob");
        assert!(other.next_line().starts_with("error: The username Bob is in use"));
        proxy.restore();
        bob = Client::connect(proxy.address, transport);
        let answer = bob.join_asking("Bob", json!({"session": session}));
        assert_eq!((&answer["session"], &answer["epoch"]), (session, &first["epoch"]));
        assert_eq!((&answer["messages"], answer.get("recovered")), (&json!([]), None));
        assert_eq!(bob.users, ["Ann", "Bob"]);
        wait_for_list(&mut ann, &["Ann", "Bob"]);
        bob.assert_nothing_received();
    }
    // Nobody was told.
    ann.assert_nothing_received();
    bob.public("hi");
    assert_eq!(ann.next_line(), "Bob: hi");
    ann.public("hello");
    assert_eq!(bob.next_line(), "Ann: hello");
}

fn only_a_close_with_1000_leaves_at_once(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER, ("MAX_MESSAGE_BYTES", "1000")]);
    let mut ann = server.join("Ann");
    let mut session = json!("none");
    let mut join = || {
        let mut bob = server.connect();
        let answer = bob.join_asking("Bob", json!({"session": session}));
        session = answer["session"].clone();
        bob
    };
    join().close(Some(CloseCode::Normal));
    for expected in ["joined", "left"] {
        assert_eq!(ann.next_line(), format!("system: Bob {expected}."));
    }
    type End = fn(Client);
    let ends: [End; 6] = [
        drop,
        |bob| bob.close(None),
        |bob| bob.close(Some(CloseCode::Away)),
        |bob| bob.close(Some(CloseCode::Library(4000))),
        |mut bob| {
            bob.send_text(&"x".repeat(1001));
            assert_eq!(bob.close_code(), Some(CloseCode::Size));
        },
        // The first half of a text message.
        |mut bob| bob.socket.get_mut().write_all(&[0x81, 0x80 | 6, 0, 0, 0, 0, b'x', b'x']).unwrap(),
    ];
    let mut bob = join();
    assert_eq!(ann.next_line(), "system: Bob joined.");
    for end in ends {
        end(bob);
        wait_for_list(&mut ann, &["Ann", "Bob away"]);
        bob = join();
        wait_for_list(&mut ann, &["Ann", "Bob"]);
    }
    bob.close(Some(CloseCode::Normal));
    assert_eq!(ann.next_line(), "system: Bob left.");
    wait_for_list(&mut ann, &["Ann"]);
}

fn the_list_marks_members_that_are_away(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    drop(bob);
    wait_for_list(&mut ann, &["Ann", "Bob away"]);
    let mut cid = server.connect();
    cid.join("Cid");
    assert_eq!(
        masked(&cid.next_text()),
        concat!(
            r#"{"type":"user_list","content":[{"username":"Ann","is_mod":false,"is_timed_out":false},"#,
            r#"{"username":"Bob","is_mod":false,"is_timed_out":false,"is_away":true},"#,
            r#"{"username":"Cid","is_mod":false,"is_timed_out":false}],"timestamp":TIMESTAMP}"#
        )
    );
    // A member that did not ask leaves at once, as ever.
    drop(cid);
    assert_eq!(ann.next_line(), "system: Cid joined.");
    assert_eq!(ann.next_line(), "system: Cid left.");
    wait_for_list(&mut ann, &["Ann", "Bob away"]);
}

fn the_role_and_the_place_in_the_list_are_kept(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 0}));
    bob.command("/login secret");
    while bob.next_line() != "system: Bob is now a moderator." {}
    let mut cid = server.join("Cid");
    ann.wait_for_users(&["Ann", "Bob mod", "Cid"]);
    drop(bob);
    ann.wait_for_users(&["Ann", "Bob mod away", "Cid"]);
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"session": first["session"]}));
    ann.wait_for_users(&["Ann", "Bob mod", "Cid"]);
    bob.command("/to Cid 600");
    assert_eq!(cid.next_line(), "system: Bob timed out Cid for 600 seconds.");
    // Commands find a member that is away by its name.
    drop(bob);
    ann.wait_for_users(&["Ann", "Bob mod away", "Cid timed out"]);
    ann.command("/login secret");
    ann.command("/to Bob 600");
    ann.wait_for_users(&["Ann mod", "Bob mod timed out away", "Cid timed out"]);
    // The role ends with the place.
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"session": first["session"]}));
    bob.close(Some(CloseCode::Normal));
    ann.wait_for_users(&["Ann mod", "Cid timed out"]);
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"session": first["session"]}));
    ann.wait_for_users(&["Ann mod", "Cid timed out", "Bob timed out"]);
}

fn what_was_missed_is_in_the_answer(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    bob.public_with_txn_id("b1");
    let ack = bob.next_event();
    assert_eq!(line(&ack), "ack: b1");
    bob.public_with_txn_id("b2");
    for expected in ["system: Bob joined.", "Bob: b1", "Bob: b2"] {
        assert_eq!(ann.next_line(), expected);
    }
    drop(bob);
    ann.public("missed");
    ann.send(json!({"type": "private", "to": "Bob", "content": "psst"}));
    ann.public("also missed");
    assert_eq!(ann.next_line(), "Ann to Bob: psst");
    wait_for_list(&mut ann, &["Ann", "Bob away"]);
    // Answered after what was said before, so that Bob now finds it in the history.
    ann.assert_nothing_received();
    let mut bob = server.connect();
    let options = json!({"session": first["session"], "epoch": first["epoch"], "since": ack["id"]});
    let answer = bob.join_asking("Bob", options);
    assert_eq!(lines(&answer), ["Bob: b2", "Ann: missed", "Ann to Bob: psst", "Ann: also missed"]);
    assert_eq!(answer["messages"][0]["txn_id"], "b2");
    assert_eq!(answer["recovered"], true);
    // What comes next arrives live, and nothing twice.
    ann.public("live");
    assert_eq!(bob.next_line(), "Ann: live");
}

fn a_live_connection_is_replaced(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.join("Ann");
    let mut old = server.connect();
    let first = old.join_asking("Bob", json!({"history": 0}));
    let mut new = server.connect();
    let answer = new.join_asking("BOB", json!({"session": first["session"]}));
    assert_eq!(answer["session"], first["session"]);
    // The spelling of the name is the first one.
    assert_eq!(new.users, ["Ann", "Bob"]);
    assert_eq!(old.close_code(), Some(REPLACED));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.assert_nothing_received();
    new.public("hi");
    assert_eq!(ann.next_line(), "Bob: hi");
    ann.public("hello");
    assert_eq!(new.next_line(), "Ann: hello");
}

fn a_dead_connection_does_not_block_its_owner(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.join("Ann");
    let proxy = Proxy::start(server.address);
    let mut bob = Client::connect(proxy.address, transport);
    let first = bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    proxy.blackhole();
    bob.public_with_txn_id("lost");
    ann.public("not received");
    ann.assert_nothing_received();
    let mut new = server.connect();
    let options = json!({"session": first["session"], "epoch": first["epoch"], "since": first["id"]});
    let answer = new.join_asking("Bob", options);
    assert_eq!((lines(&answer), &answer["recovered"]), (vec!["Ann: not received".to_owned()], &json!(true)));
    new.public_with_txn_id("lost");
    assert_eq!(ann.next_line(), "Bob: lost");
    ann.assert_nothing_received();
}

/// The old connection's messages wait for MESSAGE_RATE when it is replaced.
fn nothing_that_an_old_connection_still_sends_is_accepted(transport: Transport) {
    // They would take longer than a test may wait.
    const MESSAGES: usize = 100;
    let settings = [FOREVER, ("MESSAGE_RATE", "1"), ("MESSAGE_BURST", "4")];
    let server = TestServer::with(transport, &settings);
    let mut ann = server.join("Ann");
    let mut old = server.connect();
    let first = old.join_asking("Bob", json!({"history": 0}));
    (0..MESSAGES).for_each(|number| old.public_with_txn_id(&number.to_string()));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "Bob: 0");
    let mut new = server.connect();
    let options = json!({"session": first["session"], "epoch": first["epoch"], "since": first["id"]});
    let answer = new.join_asking("Bob", options);
    let accepted = lines(&answer);
    assert!((1..MESSAGES).contains(&accepted.len()), "{accepted:?}");
    assert_eq!(old.close_code(), Some(REPLACED));
    new.public("new");
    let mut received = vec!["Bob: 0".to_owned()];
    while received.last().unwrap() != "Bob: new" {
        received.push(ann.next_line());
    }
    received.pop();
    assert_eq!(received, accepted);
    ann.assert_nothing_received();
}

fn an_older_connection_does_not_replace_a_newer_one(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    drop(bob);
    wait_for_list(&mut ann, &["Ann", "Bob away"]);
    let (mut older, mut newer) = (server.connect(), server.connect());
    newer.join_asking("Bob", json!({"session": first["session"]}));
    older.send(json!({"type": "join", "username": "Bob", "session": first["session"]}));
    assert_eq!(older.close_code(), Some(REPLACED));
    newer.assert_nothing_received();
    newer.public("hi");
    assert_eq!(ann.next_line(), "Bob: hi");
    ann.assert_nothing_received();
}

fn a_member_leaves_when_its_time_is_over(transport: Transport) {
    let server = TestServer::with(transport, &[("RESUME_SECONDS", "1")]);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 0}));
    drop(bob);
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "system: Bob left.");
    wait_for_list(&mut ann, &["Ann"]);
    let mut bob = server.connect();
    let answer = bob.join_asking("Bob", json!({"session": first["session"]}));
    assert_ne!(answer["session"], first["session"]);
    assert_eq!(bob.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "system: Bob joined.");
}

fn with_resume_seconds_0_a_member_leaves_at_once(transport: Transport) {
    let server = TestServer::with(transport, &[("RESUME_SECONDS", "0")]);
    let mut ann = server.join("Ann");
    let mut session = json!("none");
    for _ in 0..2 {
        let mut bob = server.connect();
        let answer = bob.join_asking("Bob", json!({"session": session}));
        session = answer["session"].clone();
        assert_eq!(bob.next_line(), "system: Bob joined.");
        drop(bob);
        assert_eq!(ann.next_line(), "system: Bob joined.");
        assert_eq!(ann.next_line(), "system: Bob left.");
        wait_for_list(&mut ann, &["Ann"]);
    }
}

fn another_session_or_name_is_an_ordinary_join(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    let session = first["session"].as_str().unwrap();
    drop(bob);
    wait_for_list(&mut ann, &["Ann", "Bob away"]);
    // Bob's name is taken, for all who do not know his session.
    let zeros = "0".repeat(32);
    for wrong in
        ["", "x", &zeros, &session[..31], &format!("{session}0"), &format!(" {session}"), "\u{1F980}"]
    {
        let mut other = server.connect();
        other.send(json!({"type": "join", "username": "Bob", "session": wrong}));
        let line = other.next_line();
        assert!(line.starts_with("error: The username Bob is in use"), "{wrong:?}: {line}");
    }
    // His session is worth nothing under another name, and stays his.
    let mut cid = server.connect();
    let answer = cid.join_asking("Cid", json!({"session": session}));
    assert_ne!(answer["session"], first["session"]);
    assert_eq!(cid.next_line(), "system: Cid joined.");
    assert_eq!(ann.next_line(), "system: Cid joined.");
    let mut dan = server.connect();
    let answer = dan.join_asking("Dan", json!({"session": zeros}));
    assert!(answer["session"] != zeros.as_str() && answer["session"] != first["session"]);
    assert_eq!(dan.next_line(), "system: Dan joined.");
    assert_eq!(ann.next_line(), "system: Dan joined.");
    let mut bob = server.connect();
    let answer = bob.join_asking("Bob", json!({"session": session}));
    assert_eq!(answer["session"], first["session"]);
    wait_for_list(&mut ann, &["Ann", "Bob", "Cid", "Dan"]);
    ann.assert_nothing_received();
}

fn what_was_whispered_to_a_member_that_is_away_is_delivered(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.connect();
    ann.join_asking("Ann", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Ann joined.");
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    for options in
        [json!({}), json!({"history": 0}), json!({"history": 1}), json!({"epoch": "x", "since": 0})]
    {
        wait_for_list(&mut ann, &["Ann", "Bob"]);
        drop(bob);
        wait_for_list(&mut ann, &["Ann", "Bob away"]);
        for content in ["one", "two"] {
            ann.send(json!({"type": "private", "to": "Bob", "content": content, "txn_id": content}));
            assert_eq!(ann.next_line(), format!("Ann to Bob: {content}"));
            assert_eq!(ann.next_line(), format!("ack: {content}"));
        }
        ann.public("said");
        bob = server.connect();
        let mut options = options;
        options["session"] = first["session"].clone();
        let answer = bob.join_asking("Bob", options.clone());
        let whispers: Vec<String> =
            lines(&answer).into_iter().filter(|line| line.starts_with("Ann to ")).collect();
        assert!(
            whispers.ends_with(&["Ann to Bob: one".into(), "Ann to Bob: two".into()]),
            "{options}: {answer}"
        );
        let messages = answer["messages"].as_array().unwrap();
        assert!(messages.iter().map(id).is_sorted_by(|one, other| one < other), "{answer}");
    }
    // Once: the next answer does not have them again.
    wait_for_list(&mut ann, &["Ann", "Bob"]);
    drop(bob);
    wait_for_list(&mut ann, &["Ann", "Bob away"]);
    let mut bob = server.connect();
    let answer = bob.join_asking("Bob", json!({"session": first["session"]}));
    assert_eq!(answer["messages"], json!([]));
    ann.assert_nothing_received();
}

/// The place ends because of another one, and not because of its time, which might be over before the whispers.
fn whispers_that_are_not_delivered_are_reported(transport: Transport) {
    let server = TestServer::with(
        transport,
        &[PROXY, FOREVER, NO_CONNECT_RATE, NO_JOIN_RATE, ("MAX_CONNECTIONS_PER_IP", "1")],
    );
    let mut ann = server.connect_from("192.0.2.1");
    ann.join_asking("Ann", json!({"history": 0}));
    let mut cid = server.connect_from("192.0.2.2");
    cid.join_and_wait("Cid");
    go_away(&server, "192.0.2.3", "Bob");
    for expected in ["Ann", "Cid", "Bob"] {
        assert_eq!(ann.next_line(), format!("system: {expected} joined."));
    }
    wait_for_list(&mut ann, &["Ann", "Cid", "Bob away"]);
    assert_eq!(cid.next_line(), "system: Bob joined.");
    for content in ["one", "two"] {
        ann.send(json!({"type": "private", "to": "Bob", "content": content, "txn_id": content}));
        assert_eq!(ann.next_line(), format!("Ann to Bob: {content}"));
        assert_eq!(ann.next_line(), format!("ack: {content}"));
    }
    cid.command("/whisper Bob three");
    assert_eq!(cid.next_line(), "Cid to Bob: three");
    go_away(&server, "192.0.2.3", "Dan");
    for (client, messages) in [(&mut ann, "2 of your messages"), (&mut cid, "your message")] {
        assert_eq!(client.next_line(), "system: Dan joined.");
        let mut told = [client.next_line(), client.next_line()];
        told.sort();
        assert_eq!(told[0], format!("error: Bob has left without receiving {messages}."));
        assert_eq!(told[1], "system: Bob left.");
        wait_for_list(client, &["Ann", "Cid", "Dan away"]);
    }
}

fn an_author_that_is_away_is_told_later(transport: Transport) {
    let settings = [PROXY, FOREVER, NO_CONNECT_RATE, NO_JOIN_RATE, ("MAX_CONNECTIONS_PER_IP", "1")];
    let server = TestServer::with(transport, &settings);
    let mut cid = server.connect_from("192.0.2.1");
    cid.join_and_wait("Cid");
    let mut ann = server.connect_from("192.0.2.2");
    let first = ann.join_asking("Ann", json!({"history": 0}));
    go_away(&server, "192.0.2.3", "Bob");
    cid.wait_for_users(&["Cid", "Ann", "Bob away"]);
    ann.send(json!({"type": "private", "to": "Bob", "content": "psst", "txn_id": "a1"}));
    while ann.next_line() != "ack: a1" {}
    drop(ann);
    cid.wait_for_users(&["Cid", "Ann away", "Bob away"]);
    go_away(&server, "192.0.2.3", "Dan");
    while cid.next_line() != "system: Bob left." {}
    let mut ann = server.connect_from_when_free("192.0.2.2");
    ann.join_asking("Ann", json!({"session": first["session"]}));
    assert_eq!(ann.next_line(), "error: Bob has left without receiving your message.");
}

fn waiting_whispers_are_limited_in_number_and_bytes(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER]);
    let mut ann = server.connect();
    ann.join_asking("Ann", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Ann joined.");
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    let long = "x".repeat(15_000);
    for (content, most) in [("short", MAX_WHISPERS), (&long, MAX_WHISPERED_BYTES / 15_000)] {
        wait_for_list(&mut ann, &["Ann", "Bob"]);
        drop(bob);
        wait_for_list(&mut ann, &["Ann", "Bob away"]);
        for number in 0..=most {
            ann.send(
                json!({"type": "private", "to": "Bob", "content": content, "txn_id": number.to_string()}),
            );
            let answer = ann.next_event();
            assert_eq!(answer["txn_id"], number.to_string());
            if number < most {
                assert_eq!(line(&answer), format!("Ann to Bob: {content}"));
                assert_eq!(ann.next_line(), format!("ack: {number}"));
            } else {
                assert_eq!(answer["type"], "error", "{number}");
            }
        }
        bob = server.connect();
        let answer = bob.join_asking("Bob", json!({"session": first["session"]}));
        let whispers = lines(&answer);
        assert_eq!(whispers.len(), most);
        assert!(whispers.iter().all(|whisper| *whisper == format!("Ann to Bob: {content}")));
    }
    // Now that he is back, there is no limit.
    (0..2 * MAX_WHISPERS).for_each(|_| ann.command("/whisper Bob hi"));
    for _ in 0..2 * MAX_WHISPERS {
        assert_eq!(bob.next_line(), "Ann to Bob: hi");
    }
}

fn members_away_from_one_address_are_limited(transport: Transport) {
    let server = TestServer::with(
        transport,
        &[PROXY, FOREVER, NO_CONNECT_RATE, NO_JOIN_RATE, ("MAX_CONNECTIONS_PER_IP", "2")],
    );
    let mut ann = server.connect_from("192.0.2.1");
    ann.join_and_wait("Ann");
    let bob = go_away(&server, "2001:db8::1", "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    wait_for_list(&mut ann, &["Ann", "Bob away"]);
    // The same /64, and another one.
    let cid = go_away(&server, "2001:db8::2", "Cid");
    assert_eq!(ann.next_line(), "system: Cid joined.");
    wait_for_list(&mut ann, &["Ann", "Bob away", "Cid away"]);
    go_away(&server, "2001:db8:0:1::1", "Dan");
    assert_eq!(ann.next_line(), "system: Dan joined.");
    wait_for_list(&mut ann, &["Ann", "Bob away", "Cid away", "Dan away"]);
    go_away(&server, "2001:db8::3", "Eve");
    assert_eq!(ann.next_line(), "system: Eve joined.");
    assert_eq!(ann.next_line(), "system: Bob left.");
    wait_for_list(&mut ann, &["Ann", "Cid away", "Dan away", "Eve away"]);
    // From whichever address: Cid has his place, and Bob has none.
    let mut client = server.connect_from("192.0.2.2");
    client.join_asking("Cid", json!({"session": cid}));
    wait_for_list(&mut ann, &["Ann", "Cid", "Dan away", "Eve away"]);
    let mut client = server.connect_from("192.0.2.2");
    client.join_asking("Bob", json!({"session": bob}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
}

fn members_away_in_total_are_limited(transport: Transport) {
    let server = TestServer::with(transport, &[PROXY, FOREVER, ("MAX_CONNECTIONS", "2")]);
    let mut ann = server.connect_from("192.0.2.1");
    ann.join_and_wait("Ann");
    for (name, address) in [("Bob", "192.0.2.2"), ("Cid", "192.0.2.3"), ("Dan", "192.0.2.4")] {
        go_away(&server, address, name);
        assert_eq!(ann.next_line(), format!("system: {name} joined."));
        if name != "Dan" {
            let away = format!("{name} away");
            while ann.users.last() != Some(&away) {
                assert_eq!(ann.next_message()["type"], "user_list");
            }
        }
    }
    assert_eq!(ann.next_line(), "system: Bob left.");
    wait_for_list(&mut ann, &["Ann", "Cid away", "Dan away"]);
}

fn loopback_is_exempt_from_the_limit_on_members_away(transport: Transport) {
    let server = TestServer::with(transport, &[FOREVER, ("MAX_CONNECTIONS_PER_IP", "1")]);
    let mut ann = server.join("Ann");
    for name in ["Bob", "Cid", "Dan"] {
        let mut client = server.connect();
        client.join_asking(name, json!({"history": 0}));
        assert_eq!(ann.next_line(), format!("system: {name} joined."));
    }
    wait_for_list(&mut ann, &["Ann", "Bob away", "Cid away", "Dan away"]);
}

fn resuming_does_not_count_towards_the_join_rate(transport: Transport) {
    // With a join each second, so many would take longer than TIMEOUT.
    const RESUMES: usize = 65;
    let settings = [PROXY, FOREVER, NO_CONNECT_RATE, ("JOIN_RATE", "1"), ("MAX_CONNECTIONS_PER_IP", "2")];
    let server = TestServer::with(transport, &settings);
    let mut bob = server.connect_from("192.0.2.1");
    let first = bob.join_asking("Bob", json!({"history": 0}));
    let start = Instant::now();
    for _ in 0..RESUMES {
        let mut new = server.connect_from_when_free("192.0.2.1");
        new.join_asking("Bob", json!({"session": first["session"]}));
        bob = new;
    }
    assert!(start.elapsed() < TIMEOUT, "the joins have waited: {:?}", start.elapsed());
    bob.assert_nothing_received();
}

/// Has a member join from this address and lose its connection; returns its session.
fn go_away(server: &TestServer, address: &str, name: &str) -> Value {
    let mut client = server.connect_from_when_free(address);
    client.join_asking(name, json!({"history": 0}))["session"].clone()
}

/// Waits for a list of these users, and fails if anything but lists arrives until then.
fn wait_for_list(member: &mut Client, users: &[&str]) {
    while member.users != users {
        let message = member.next_message();
        assert_eq!(message["type"], "user_list", "{message}");
    }
}
