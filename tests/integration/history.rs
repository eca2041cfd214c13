//! The history (docs/protocol.md): what a client gets that asks for it, pages, and the positions of what it sends.

use std::collections::HashMap;

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{Client, id, line, lines, masked};
use crate::support::over_ws_and_wss;
use crate::support::server::{TestServer, Transport};

/// How many messages, and how many bytes, an answer holds at most.
const PAGE_MESSAGES: usize = 200;
const PAGE_BYTES: usize = 256 * 1024;

over_ws_and_wss! {
    a_join_is_answered_with_the_newest_messages,
    fields_are_sent_in_the_documented_order,
    a_client_that_asked_for_nothing_gets_no_new_types,
    only_what_was_said_and_moderation_are_kept,
    pages_lead_back_to_the_oldest_message,
    an_answer_holds_200_messages,
    an_answer_holds_256_kib,
    a_longer_message_is_alone_in_its_answer,
    what_came_after_since_is_recovered,
    what_is_not_kept_is_not_recovered,
    more_than_a_page_is_not_recovered,
    without_history_nothing_is_kept,
    a_whisper_is_in_the_history_of_its_two_members_only,
    own_messages_carry_their_txn_id,
    acks_come_in_the_order_of_the_room,
    commands_and_whispers_are_acked_after_their_replies,
    what_fails_gets_an_error_with_its_txn_id,
    a_txn_id_has_1_to_64_characters,
    a_timed_out_member_can_read_the_history,
    a_guest_gets_no_history,
    invalid_options_get_an_error_and_the_client_may_try_again,
    an_answer_does_not_count_against_the_send_queue,
    a_second_answer_counts_while_the_first_one_waits,
}

fn a_join_is_answered_with_the_newest_messages(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    let said: Vec<Value> = (0..5)
        .map(|number| {
            ann.public(&number.to_string());
            bob.next_event()
        })
        .collect();
    for (name, options, messages, more) in [
        ("Cid", json!({"history": 3}), &said[2..], true),
        ("Dan", json!({"history": 200}), &said[..], false),
        ("Eve", json!({"history": 0}), &[], true),
        ("Fay", json!({"session": "unknown"}), &[], true),
        ("Gil", json!({"epoch": "another"}), &[], true),
        ("Hal", json!({"session": "", "history": 5, "more": [{}]}), &said[..], false),
    ] {
        let mut client = server.connect();
        let answer = client.join_asking(name, options);
        assert_eq!(answer["messages"], json!(messages), "{name}");
        assert_eq!(answer["more"], more, "{name}");
        assert_eq!(answer.get("recovered"), None, "{name}");
        assert!(id(&answer) >= id(&said[4]), "{answer}");
        let session = answer["session"].as_str().unwrap();
        assert!(session.len() == 32 && session.chars().all(|c| c.is_ascii_hexdigit()), "{session}");
        assert_eq!(client.next_line(), format!("system: {name} joined."));
    }
}

fn fields_are_sent_in_the_documented_order(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.connect();
    ann.send(json!({"type": "join", "username": "Ann", "history": 10}));
    let texts = [(); 4].map(|()| ann.next_text());
    assert_eq!(
        masked(&texts[0]),
        r#"{"type":"user_list","content":[{"username":"Ann","is_mod":false,"is_timed_out":false}],"timestamp":TIMESTAMP}"#
    );
    assert!(texts[1].starts_with(r#"{"type":"command_list","content":{"/whisper":"#), "{}", texts[1]);
    assert_eq!(
        masked(&texts[2]),
        r#"{"type":"history","messages":[],"id":ID,"more":false,"epoch":EPOCH,"session":SESSION,"max_message_bytes":16384,"timestamp":TIMESTAMP}"#
    );
    assert_eq!(
        masked(&texts[3]),
        r#"{"type":"system","username":"System","content":"Ann joined.","timestamp":TIMESTAMP}"#
    );
    let answer: Value = serde_json::from_str(&texts[2]).unwrap();

    ann.public_with_txn_id("hi");
    assert_eq!(
        masked(&ann.next_event_text()),
        r#"{"type":"ack","txn_id":"hi","id":ID,"time":TIME,"timestamp":TIMESTAMP}"#
    );
    ann.send(json!({"type": "private", "to": "Zed", "content": "psst", "txn_id": "a2"}));
    assert_eq!(
        masked(&ann.next_event_text()),
        r#"{"type":"error","username":"System","content":"Nobody here is called Zed.","timestamp":TIMESTAMP,"txn_id":"a2"}"#
    );
    ann.send(json!({"type": "private", "to": "Ann", "content": "psst", "txn_id": "a3"}));
    assert_eq!(
        masked(&ann.next_event_text()),
        r#"{"type":"private","from":"Ann","to":"Ann","content":"psst","timestamp":TIMESTAMP,"id":ID,"time":TIME,"txn_id":"a3"}"#
    );
    assert_eq!(
        masked(&ann.next_event_text()),
        r#"{"type":"ack","txn_id":"a3","id":ID,"time":TIME,"timestamp":TIMESTAMP}"#
    );
    ann.command("/login secret");
    assert_eq!(
        masked(&ann.next_event_text()),
        r#"{"type":"system","username":"System","content":"Ann is now a moderator.","timestamp":TIMESTAMP,"id":ID,"time":TIME}"#
    );
    let messages = concat!(
        r#""messages":[{"type":"public","username":"Ann","content":"hi","timestamp":TIMESTAMP,"id":ID,"time":TIME,"txn_id":"hi"},"#,
        r#"{"type":"private","from":"Ann","to":"Ann","content":"psst","timestamp":TIMESTAMP,"id":ID,"time":TIME,"txn_id":"a3"},"#,
        r#"{"type":"system","username":"System","content":"Ann is now a moderator.","timestamp":TIMESTAMP,"id":ID,"time":TIME}],"#,
    );
    ann.send(json!({"type": "history"}));
    assert_eq!(
        masked(&ann.next_event_text()),
        format!(r#"{{"type":"history",{messages}"id":ID,"more":false,"epoch":EPOCH,"timestamp":TIMESTAMP}}"#)
    );
    let mut again = server.connect();
    again.send(json!({"type": "join", "username": "Ann", "epoch": answer["epoch"], "since": answer["id"],
        "session": answer["session"]}));
    assert!(again.next_event_text().starts_with(r#"{"type":"command_list""#));
    assert_eq!(
        masked(&again.next_event_text()),
        format!(
            r#"{{"type":"history",{messages}"id":ID,"more":false,"epoch":EPOCH,"recovered":true,"session":SESSION,"max_message_bytes":16384,"timestamp":TIMESTAMP}}"#
        )
    );
}

/// Clients of the original display every type that they do not know as a chat line.
fn a_client_that_asked_for_nothing_gets_no_new_types(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 10}));
    bob.public_with_txn_id("hi");
    bob.send(json!({"type": "private", "to": "Ann", "content": "psst", "txn_id": "b2"}));
    bob.send(json!({"type": "command", "content": "/login secret", "txn_id": "b3"}));
    for expected in [
        r#"{"type":"system","username":"System","content":"Bob joined.","timestamp":TIMESTAMP}"#,
        r#"{"type":"public","username":"Bob","content":"hi","timestamp":TIMESTAMP,"id":ID,"time":TIME}"#,
        r#"{"type":"private","from":"Bob","to":"Ann","content":"psst","timestamp":TIMESTAMP,"id":ID,"time":TIME}"#,
        r#"{"type":"system","username":"System","content":"Bob is now a moderator.","timestamp":TIMESTAMP,"id":ID,"time":TIME}"#,
    ] {
        assert_eq!(masked(&ann.next_event_text()), expected);
    }
    // Nor does it get an `ack` for what it sends, with or without a `txn_id`.
    ann.public_with_txn_id("a1");
    ann.public("a2");
    ann.send(json!({"type": "private", "to": "Bob", "content": "psst"}));
    assert_eq!(
        masked(&ann.next_event_text()),
        r#"{"type":"private","from":"Ann","to":"Bob","content":"psst","timestamp":TIMESTAMP,"id":ID,"time":TIME}"#
    );
    ann.assert_nothing_received();
    // What it sends is kept all the same, and it may ask later.
    let answer = ann.page(json!({"limit": 3}));
    assert_eq!(lines(&answer), ["Ann: a1", "Ann: a2", "Ann to Bob: psst"]);
    assert_eq!(answer.get("session"), None);
    // Its place ends with its connection.
    ann.leave();
    while bob.next_line() != "system: Ann left." {}
}

fn only_what_was_said_and_moderation_are_kept(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut bob) = (server.join("Ann"), server.join("Bob"));
    ann.command("/login wrong");
    ann.command("/login secret");
    ann.command("/help");
    ann.command("/dance");
    ann.command("/to Bob 1");
    for expected in [
        "system: Ann is now a moderator.",
        "system: Ann timed out Bob for 1 seconds.",
        "system: Your time-out is over: you can send messages again.",
    ] {
        assert_eq!(bob.next_line(), expected);
    }
    bob.public("thanks");
    bob.assert_nothing_received();
    let mut cid = server.connect();
    let answer = cid.join_asking("Cid", json!({"history": 200}));
    assert_eq!(
        lines(&answer),
        ["system: Ann is now a moderator.", "system: Ann timed out Bob for 1 seconds.", "Bob: thanks"]
    );
    assert_increasing(&answer);
}

fn pages_lead_back_to_the_oldest_message(transport: Transport) {
    let server = TestServer::start(transport);
    let said = say(&server, 120);
    let mut bob = server.connect();
    let first = bob.join_asking("Bob", json!({"history": 10}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    let mut messages = first["messages"].as_array().unwrap().clone();
    let mut lengths = Vec::new();
    let mut more = first["more"].clone();
    while more == true {
        let page = bob.page(json!({"before": messages[0]["id"], "limit": 25}));
        assert_eq!(
            (&page["epoch"], page.get("session"), page.get("recovered")),
            (&first["epoch"], None, None)
        );
        let mut older = page["messages"].as_array().unwrap().clone();
        lengths.push(older.len());
        older.append(&mut messages);
        messages = older;
        more = page["more"].clone();
    }
    assert_eq!(lengths, [25, 25, 25, 25, 10]);
    let all = json!({"messages": messages});
    assert_eq!(lines(&all), said);
    assert_increasing(&all);

    // The newest 50 by default; none with a limit of 0.
    assert_eq!(lines(&bob.page(json!({}))), said[70..]);
    let after_all = id(&bob.page(json!({"limit": 0}))) + 1;
    assert_eq!(lines(&bob.page(json!({"before": after_all, "limit": 1}))), said[119..]);
    let none = bob.page(json!({"limit": 0}));
    assert_eq!((&none["messages"], &none["more"]), (&json!([]), &json!(true)));
    let none = bob.page(json!({"before": messages[0]["id"]}));
    assert_eq!((&none["messages"], &none["more"]), (&json!([]), &json!(false)));
    for request in [
        json!({"limit": 201}),
        json!({"limit": -1}),
        json!({"limit": 1.5}),
        json!({"limit": "5"}),
        json!({"before": -1}),
        json!({"before": "5"}),
        json!({"before": [5]}),
    ] {
        let mut message = request.clone();
        message["type"] = "history".into();
        bob.send(message);
        let line = bob.next_line();
        assert!(line.starts_with("error: The field "), "{request}: {line}");
    }
}

fn an_answer_holds_200_messages(transport: Transport) {
    let server = TestServer::start(transport);
    let said = say(&server, 250);
    let mut bob = server.connect();
    let answer = bob.join_asking("Bob", json!({"history": 200}));
    assert_eq!(lines(&answer), said[250 - PAGE_MESSAGES..]);
    assert_eq!(answer["more"], true);
    assert_eq!(bob.next_line(), "system: Bob joined.");
    let page = bob.page(json!({"limit": 200}));
    assert_eq!(page["messages"], answer["messages"]);
    let page = bob.page(json!({"limit": 200, "before": answer["messages"][0]["id"]}));
    assert_eq!(lines(&page), said[..250 - PAGE_MESSAGES]);
    assert_eq!(page["more"], false);
}

fn an_answer_holds_256_kib(transport: Transport) {
    const MESSAGES: usize = 40;
    let server = TestServer::start(transport);
    // As long as MAX_MESSAGE_BYTES allows, nearly.
    let long = "x".repeat(16_000);
    let mut ann = server.join("Ann");
    (0..MESSAGES).for_each(|number| ann.public(&format!("{number} {long}")));
    ann.assert_nothing_received();
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    let mut received = Vec::new();
    let mut request = json!({"type": "history", "limit": 200});
    loop {
        bob.send(request.clone());
        let text = bob.next_event_text();
        assert!(text.len() <= PAGE_BYTES, "{} bytes", text.len());
        let page: Value = serde_json::from_str(&text).unwrap();
        let mut older = lines(&page);
        older.append(&mut received);
        received = older;
        if page["more"] == false {
            break;
        }
        // Another message would not have fitted.
        assert!(text.len() + long.len() + 300 > PAGE_BYTES, "{} bytes", text.len());
        request["before"] = page["messages"][0]["id"].clone();
    }
    let expected: Vec<String> = (0..MESSAGES).map(|number| format!("Ann: {number} {long}")).collect();
    assert!(received == expected, "{} messages of {MESSAGES}", received.len());
}

fn a_longer_message_is_alone_in_its_answer(transport: Transport) {
    let server = TestServer::with(transport, &[("MAX_MESSAGE_BYTES", "1000000")]);
    let mut bob = server.connect();
    let known = bob.join_asking("Bob", json!({"history": 0}));
    let long = "x".repeat(300_000);
    let mut ann = server.join("Ann");
    ["1", &long, "2"].iter().for_each(|content| ann.public(content));
    ann.assert_nothing_received();
    let options = json!({"epoch": known["epoch"], "since": known["id"]});
    let mut page = server.connect().join_asking("Cid", options);
    assert_eq!(page["recovered"], false);
    received(&mut bob);
    for (expected, more) in [("2", true), (&*long, true), ("1", false)] {
        assert!(lines(&page) == [format!("Ann: {expected}")], "{} messages", lines(&page).len());
        assert_eq!(page["more"], more);
        page = bob.page(json!({"before": page["messages"][0]["id"], "limit": 200}));
    }
    assert_eq!((&page["messages"], &page["more"]), (&json!([]), &json!(false)));
}

fn what_came_after_since_is_recovered(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    ann.public("before");
    // Answered after what was said before, so that others now find it in the history.
    ann.assert_nothing_received();
    let known = {
        let mut bob = server.connect();
        let answer = bob.join_asking("Bob", json!({"history": 1}));
        assert_eq!(lines(&answer), ["Ann: before"]);
        bob.close(Some(CloseCode::Normal));
        answer
    };
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "system: Bob left.");
    let mut since = known["id"].clone();
    for said in [vec![], vec!["1"], vec!["2", "3", "4"]] {
        said.iter().for_each(|content| ann.public(content));
        ann.assert_nothing_received();
        let mut bob = server.connect();
        // `since` decides, whatever `history` says.
        let options = json!({"epoch": known["epoch"], "since": since, "history": 1});
        let answer = bob.join_asking("Bob", options);
        assert_eq!(lines(&answer), said.iter().map(|content| format!("Ann: {content}")).collect::<Vec<_>>());
        // `more`: there is an older one.
        assert_eq!((&answer["recovered"], &answer["more"]), (&json!(true), &json!(true)));
        assert_eq!(answer["epoch"], known["epoch"]);
        since = answer["id"].clone();
        bob.close(Some(CloseCode::Normal));
        assert_eq!(ann.next_line(), "system: Bob joined.");
        assert_eq!(ann.next_line(), "system: Bob left.");
    }
    // From the middle, and from another epoch.
    let mut cid = server.connect();
    let answer = cid.join_asking("Cid", json!({"history": 4}));
    let mut dan = server.connect();
    let since = &answer["messages"][1]["id"];
    let middle = dan.join_asking("Dan", json!({"epoch": known["epoch"], "since": since}));
    assert_eq!((lines(&middle), &middle["recovered"]), (lines(&answer)[2..].to_vec(), &json!(true)));
    let mut eve = server.connect();
    let other = eve.join_asking("Eve", json!({"epoch": "another", "since": since}));
    assert_eq!(lines(&other), ["Ann: before", "Ann: 1", "Ann: 2", "Ann: 3", "Ann: 4"]);
    assert_eq!((&other["recovered"], &other["epoch"]), (&json!(false), &known["epoch"]));
}

fn what_is_not_kept_is_not_recovered(transport: Transport) {
    let server = TestServer::with(transport, &[("HISTORY_MESSAGES", "3")]);
    let mut ann = server.connect();
    let known = ann.join_asking("Ann", json!({"history": 0}));
    let recover = |name: &str| {
        let mut client = server.connect();
        client.join_asking(name, json!({"epoch": known["epoch"], "since": known["id"]}))
    };
    for content in ["1", "2", "3"] {
        ann.public_with_txn_id(content);
    }
    while ann.next_line() != "ack: 3" {}
    let answer = recover("Bob");
    assert_eq!(lines(&answer), ["Ann: 1", "Ann: 2", "Ann: 3"]);
    assert_eq!((&answer["recovered"], &answer["more"]), (&json!(true), &json!(false)));
    ann.public_with_txn_id("4");
    while ann.next_line() != "ack: 4" {}
    let answer = recover("Cid");
    assert_eq!(lines(&answer), ["Ann: 2", "Ann: 3", "Ann: 4"]);
    assert_eq!((&answer["recovered"], &answer["more"]), (&json!(false), &json!(false)));
}

fn more_than_a_page_is_not_recovered(transport: Transport) {
    let server = TestServer::start(transport);
    let mut bob = server.connect();
    let known = bob.join_asking("Bob", json!({"history": 0}));
    let said = say(&server, PAGE_MESSAGES);
    let recover = |name: &str| {
        let mut client = server.connect();
        client.join_asking(name, json!({"epoch": known["epoch"], "since": known["id"]}))
    };
    let answer = recover("Cid");
    assert_eq!((lines(&answer), &answer["recovered"]), (said.clone(), &json!(true)));
    bob.public("one more");
    received(&mut bob);
    let answer = recover("Dan");
    assert_eq!(lines(&answer)[..PAGE_MESSAGES - 1], said[1..]);
    assert_eq!(lines(&answer)[PAGE_MESSAGES - 1..], ["Bob: one more"]);
    assert_eq!((&answer["recovered"], &answer["more"]), (&json!(false), &json!(true)));
    // The same for the bytes.
    let since = &answer["id"];
    (0..20).for_each(|_| bob.public(&"x".repeat(16_000)));
    received(&mut bob);
    let mut eve = server.connect();
    let answer = eve.join_asking("Eve", json!({"epoch": known["epoch"], "since": since}));
    assert_eq!((&answer["recovered"], &answer["more"]), (&json!(false), &json!(true)));
    assert!((10..20).contains(&lines(&answer).len()), "{}", lines(&answer).len());
}

fn without_history_nothing_is_kept(transport: Transport) {
    let server = TestServer::with(transport, &[("HISTORY_MESSAGES", "0")]);
    let mut ann = server.connect();
    let known = ann.join_asking("Ann", json!({"history": 200}));
    assert_eq!((&known["messages"], &known["more"]), (&json!([]), &json!(false)));
    assert_eq!(ann.next_line(), "system: Ann joined.");
    let recover = |name: &str| {
        let mut client = server.connect();
        let answer = client.join_asking(name, json!({"epoch": known["epoch"], "since": known["id"]}));
        assert_eq!((&answer["messages"], &answer["more"]), (&json!([]), &json!(false)));
        answer["recovered"].clone()
    };
    assert_eq!(recover("Bob"), true);
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.public_with_txn_id("hi");
    assert_eq!(ann.next_line(), "ack: hi");
    assert_eq!(recover("Cid"), false);
}

fn a_whisper_is_in_the_history_of_its_two_members_only(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.connect();
    ann.join_asking("Ann", json!({"history": 0}));
    let mut bob = server.connect();
    let known = bob.join_asking("Bob", json!({"history": 0}));
    let mut cid = server.connect();
    cid.join_asking("Cid", json!({"history": 0}));
    ann.send(json!({"type": "private", "to": "Bob", "content": "psst", "txn_id": "a1"}));
    let last = |client: &mut Client| received(client).pop().unwrap();
    assert_eq!(last(&mut ann), "ack: a1");
    assert_eq!(last(&mut bob), "Ann to Bob: psst");
    assert_eq!(last(&mut cid), "system: Cid joined.");
    for (client, expected, txn_id) in [
        (&mut ann, &["Ann to Bob: psst"][..], Some(json!("a1"))),
        (&mut bob, &["Ann to Bob: psst"], None),
        (&mut cid, &[], None),
    ] {
        let answer = client.page(json!({}));
        assert_eq!(lines(&answer), expected);
        assert_eq!(answer["more"], false);
        assert_eq!(answer["messages"][0].get("txn_id"), txn_id.as_ref());
    }
    // A later owner of the name is somebody else, who did not miss the whisper.
    bob.close(Some(CloseCode::Normal));
    while ann.next_line() != "system: Bob left." {}
    let mut bob = server.connect();
    let answer = bob.join_asking("Bob", json!({"history": 10}));
    assert_eq!((&answer["messages"], &answer["more"]), (&json!([]), &json!(false)));
    bob.close(Some(CloseCode::Normal));
    while ann.next_line() != "system: Bob left." {}
    // A client that returns after its place has ended is told that something may be missing.
    let options = json!({"epoch": known["epoch"], "since": known["id"], "session": known["session"]});
    let mut bob = server.connect();
    let answer = bob.join_asking("Bob", options);
    assert_eq!((&answer["messages"], &answer["recovered"]), (&json!([]), &json!(false)));
}

fn own_messages_carry_their_txn_id(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.connect();
    ann.join_asking("Ann", json!({"history": 0}));
    ann.public_with_txn_id("with");
    ann.public("without");
    received(&mut ann);
    let mut bob = server.connect();
    let txn_ids = |answer: &Value| -> Vec<Option<Value>> {
        answer["messages"].as_array().unwrap().iter().map(|message| message.get("txn_id").cloned()).collect()
    };
    let of_bob = bob.join_asking("Bob", json!({"history": 10}));
    assert_eq!(lines(&of_bob), ["Ann: with", "Ann: without"]);
    assert_eq!(txn_ids(&of_bob), [None, None]);
    ann.close(Some(CloseCode::Normal));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    assert_eq!(bob.next_line(), "system: Ann left.");
    // Public messages are those of the name, whoever has it.
    let mut ann = server.connect();
    let of_ann = ann.join_asking("ann", json!({"history": 10}));
    assert_eq!(txn_ids(&of_ann), [Some(json!("with")), None]);
    assert_eq!(ann.next_line(), "system: ann joined.");
    assert_eq!(txn_ids(&ann.page(json!({}))), [Some(json!("with")), None]);
}

fn acks_come_in_the_order_of_the_room(transport: Transport) {
    const MESSAGES: usize = 100;
    let server = TestServer::start(transport);
    let mut clients = ["Ann", "Bob", "Cid"].map(|name| {
        let mut client = server.connect();
        client.join_asking(name, json!({"history": 0}));
        client
    });
    let said: Vec<Vec<(u64, String)>> = std::thread::scope(|scope| {
        let threads = clients.each_mut().map(|client| {
            scope.spawn(move || {
                let name = client.users.last().unwrap().clone();
                // Cid only listens.
                if name != "Cid" {
                    (0..MESSAGES).for_each(|number| client.public_with_txn_id(&format!("{name} {number}")));
                }
                let mut said = Vec::new();
                while said.len() < 2 * MESSAGES {
                    let event = client.next_event();
                    let content = match event["type"].as_str().unwrap() {
                        "public" => event["content"].as_str(),
                        "ack" => event["txn_id"].as_str(),
                        _ => continue,
                    };
                    said.push((id(&event), content.unwrap().to_owned()));
                }
                said
            })
        });
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(said[0].is_sorted_by(|(one, _), (other, _)| one < other));
    assert!(said[0] == said[1] && said[1] == said[2], "the orders differ");
    let answer = clients[2].page(json!({"limit": 200}));
    let kept: Vec<(u64, String)> = answer["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (id(message), message["content"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(kept, said[2]);
    let ids: HashMap<&str, usize> =
        said[0].iter().enumerate().map(|(at, (_, content))| (content.as_str(), at)).collect();
    for name in ["Ann", "Bob"] {
        let order: Vec<usize> =
            (0..MESSAGES).map(|number| ids[format!("{name} {number}").as_str()]).collect();
        assert!(order.is_sorted(), "{name}'s messages are not in the order in which they were sent");
    }
}

fn commands_and_whispers_are_acked_after_their_replies(transport: Transport) {
    let server = TestServer::start(transport);
    let mut bob = server.join("Bob");
    let mut ann = server.connect();
    ann.join_asking("Ann", json!({"history": 0}));
    assert_eq!(ann.next_line(), "system: Ann joined.");
    assert_eq!(bob.next_line(), "system: Ann joined.");
    let mut last = 0;
    for (number, (message, reply)) in [
        (json!({"type": "private", "to": "bob", "content": "psst"}), "Ann to Bob: psst"),
        (json!({"type": "command", "content": "/whisper Bob psst"}), "Ann to Bob: psst"),
        (json!({"type": "command", "content": "/login secret"}), "system: Ann is now a moderator."),
        (json!({"type": "command", "content": "/to Bob 600"}), "system: Ann timed out Bob for 600 seconds."),
    ]
    .into_iter()
    .enumerate()
    {
        let mut message = message;
        message["txn_id"] = number.to_string().into();
        ann.send(message);
        let (event, ack, bobs) = (ann.next_event(), ann.next_event(), bob.next_event());
        assert_eq!((line(&ack), line(&event)), (format!("ack: {number}"), reply.to_owned()));
        assert_eq!((id(&ack), &ack["time"]), (id(&event), &event["time"]));
        assert_eq!((id(&ack), line(&bobs)), (id(&bobs), reply.to_owned()));
        // Only its sender gets the `txn_id` of a whisper.
        let expected = (event["type"] == "private").then(|| json!(number.to_string()));
        assert_eq!((event.get("txn_id"), bobs.get("txn_id")), (expected.as_ref(), None));
        assert!(id(&ack) > last);
        last = id(&ack);
    }
    for (txn_id, content, reply) in
        [("help", "/help help", "system: /help"), ("login", "/login secret", "system: You are already")]
    {
        ann.send(json!({"type": "command", "content": content, "txn_id": txn_id}));
        let line = ann.next_line();
        assert!(line.starts_with(reply), "{line}");
        assert_eq!(ann.next_line(), format!("ack: {txn_id}"));
    }
    // Without a `txn_id` there is no ack.
    ann.public("hi");
    ann.assert_nothing_received();
}

fn what_fails_gets_an_error_with_its_txn_id(transport: Transport) {
    let server = TestServer::start(transport);
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    for message in [
        json!({"type": "public", "content": " "}),
        json!({"type": "public"}),
        json!({"type": "private", "to": "Zed", "content": "hi"}),
        json!({"type": "private", "content": "hi"}),
        json!({"type": "command", "content": "/dance"}),
        json!({"type": "command", "content": "dance"}),
        json!({"type": "command", "content": "/whisper Zed hi"}),
        json!({"type": "command", "content": "/whisper Bob"}),
        json!({"type": "command", "content": "/login wrong"}),
        json!({"type": "command", "content": "/to Bob 1"}),
    ] {
        let mut sent = message.clone();
        sent["txn_id"] = "b1".into();
        bob.send(sent);
        let error = bob.next_event();
        assert_eq!((&error["type"], &error["txn_id"]), (&json!("error"), &json!("b1")), "{message}: {error}");
        bob.send(message.clone());
        let error = bob.next_event();
        assert_eq!((&error["type"], error.get("txn_id")), (&json!("error"), None), "{message}: {error}");
    }
    bob.assert_nothing_received();
    assert_eq!(bob.page(json!({}))["messages"], json!([]));
}

fn a_txn_id_has_1_to_64_characters(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    for txn_id in [json!(""), json!("x".repeat(65)), json!("\u{1F980}".repeat(65)), json!(5), json!(["x"])] {
        for message in [
            json!({"type": "public", "content": "not delivered", "txn_id": txn_id}),
            json!({"type": "private", "to": "Ann", "content": "not delivered", "txn_id": txn_id}),
            json!({"type": "command", "content": "/whisper Ann not delivered", "txn_id": txn_id}),
        ] {
            bob.send(message.clone());
            let line = bob.next_line();
            assert!(line.starts_with("error: The field \"txn_id\""), "{message}: {line}");
        }
    }
    for txn_id in ["x".to_owned(), "x".repeat(64), "\u{1F980}".repeat(64), " \n\"\\".to_owned()] {
        bob.public_with_txn_id(&txn_id.replace(" \n", " x"));
        assert_eq!(bob.next_line(), format!("ack: {}", txn_id.replace(" \n", " x")));
        bob.send(json!({"type": "public", "content": "hi", "txn_id": txn_id}));
        assert_eq!(bob.next_line(), format!("ack: {txn_id}"));
    }
    let answer = bob.page(json!({"limit": 1}));
    assert_eq!(answer["messages"][0]["txn_id"], " \n\"\\");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "Bob: x");
}

fn a_timed_out_member_can_read_the_history(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 0}));
    ann.command("/login secret");
    ann.command("/to Bob 600");
    while bob.next_line() != "system: Ann timed out Bob for 600 seconds." {}
    for message in [
        json!({"type": "public", "content": "hi", "txn_id": "b1"}),
        json!({"type": "private", "to": "Ann", "content": "hi", "txn_id": "b1"}),
        json!({"type": "command", "content": "/help", "txn_id": "b1"}),
    ] {
        bob.send(message);
        let line = bob.next_line();
        assert!(line.starts_with("system: You are timed out"), "{line}");
        let error = bob.next_event();
        assert_eq!((&error["type"], &error["txn_id"]), (&json!("error"), &json!("b1")), "{error}");
    }
    let answer = bob.page(json!({}));
    assert_eq!(
        lines(&answer),
        ["system: Ann is now a moderator.", "system: Ann timed out Bob for 600 seconds."]
    );
}

fn a_guest_gets_no_history(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    ann.public("for members");
    ann.assert_nothing_received();
    let mut guest = server.connect();
    guest.send(json!({"type": "history", "limit": 1}));
    assert!(guest.next_line().starts_with("error: Join first"));
    // A first message with a name joins, whatever its type.
    let mut bob = server.connect();
    bob.send(json!({"type": "history", "username": "Bob", "limit": 1}));
    assert_eq!(bob.next_event()["type"], "command_list");
    assert_eq!(bob.next_line(), "system: Bob joined.");
    let answer = bob.next_event();
    assert_eq!((lines(&answer), answer.get("session")), (vec!["Ann: for members".to_owned()], None));
}

fn invalid_options_get_an_error_and_the_client_may_try_again(transport: Transport) {
    let server = TestServer::start(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect();
    for options in [
        json!({"history": 201}),
        json!({"history": -1}),
        json!({"history": 1.5}),
        json!({"history": "5"}),
        json!({"history": null}),
        json!({"history": 10_u64.pow(19)}),
        json!({"epoch": 5}),
        json!({"epoch": {}, "since": 5}),
        json!({"epoch": "x", "since": "5"}),
        json!({"epoch": "x", "since": -1}),
        json!({"session": 5}),
        json!({"session": []}),
    ] {
        let mut join = options.clone();
        join["type"] = "join".into();
        join["username"] = "Bob".into();
        bob.send(join);
        let line = bob.next_line();
        assert!(line.starts_with("error: The field "), "{options}: {line}");
    }
    bob.send(json!({"type": "join", "username": "Bob", "since": 5}));
    assert_eq!(bob.next_line(), "error: The field \"epoch\" is missing.");
    bob.join_asking("Bob", json!({"history": 200}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.assert_nothing_received();
    // In other messages these fields mean nothing.
    bob.send(json!({"type": "public", "content": "hi", "history": "x", "since": null, "session": 5}));
    assert_eq!(ann.next_line(), "Bob: hi");
}

fn an_answer_does_not_count_against_the_send_queue(transport: Transport) {
    let server = long_history(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect_narrow();
    bob.send(json!({"type": "join", "username": "Bob", "history": 200}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    // The answer comes after Bob was sent everything so far, as far as he accepts it.
    ann.assert_nothing_received();
    ann.public("hello");
    assert_eq!(bob.next_event()["type"], "command_list");
    let answer = bob.next_event();
    assert!((10..20).contains(&lines(&answer).len()), "{}", lines(&answer).len());
    assert_eq!((bob.next_line(), bob.next_line()), ("system: Bob joined.".into(), "Ann: hello".into()));
    // A page as well.
    bob.send(json!({"type": "history", "limit": 15}));
    bob.public("asked");
    assert_eq!(ann.next_line(), "Bob: asked");
    ann.public("hello again");
    assert_eq!(lines(&bob.next_event()).len(), 15);
    assert_eq!(bob.next_line(), "Ann: hello again");
}

fn a_second_answer_counts_while_the_first_one_waits(transport: Transport) {
    let server = long_history(transport);
    let mut ann = server.join("Ann");
    let mut bob = server.connect_narrow();
    bob.send(json!({"type": "join", "username": "Bob", "history": 200}));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    bob.send(json!({"type": "history", "limit": 200}));
    ann.wait_for_users(&["Ann", "Bob away"]);
}

/// A server with SEND_QUEUE_BYTES of 4096 and a history that is longer than what the systems and TLS hold for a client
/// that does not read.
fn long_history(transport: Transport) -> TestServer {
    let settings = [("SEND_QUEUE_BYTES", "4096"), ("RESUME_SECONDS", "3600")];
    let server = TestServer::with(transport, &settings);
    let mut zoe = server.join("Zoe");
    (0..20).for_each(|_| zoe.public(&"x".repeat(16_000)));
    zoe.assert_nothing_received();
    zoe.leave();
    server
}

/// Has a member say so many things, which are returned, and leave.
fn say(server: &TestServer, count: usize) -> Vec<String> {
    let mut member = server.join("Zoe");
    (0..count).for_each(|number| member.public(&number.to_string()));
    // Answered after what was said before.
    member.assert_nothing_received();
    member.leave();
    (0..count).map(|number| format!("Zoe: {number}")).collect()
}

/// All that a member has been sent up to now, as lines.
fn received(member: &mut Client) -> Vec<String> {
    member.command("/help help");
    std::iter::repeat_with(|| member.next_line())
        .take_while(|line| !line.starts_with("system: /help"))
        .collect()
}

fn assert_increasing(history: &Value) {
    let messages = history["messages"].as_array().unwrap();
    assert!(messages.iter().map(id).is_sorted_by(|one, other| one < other), "{history}");
    assert!(messages.last().is_none_or(|last| id(last) <= history["id"].as_u64().unwrap_or(u64::MAX)));
}
