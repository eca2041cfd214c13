//! The history of several servers (docs/cluster.md): every server has all that is kept, even if it joined late, and
//! whether or not it has a store. Like the tests in `cluster.rs`, these need a `redis-server`.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::client::{Client, id, line};
use crate::support::engine::{Engine, until};
use crate::support::nodes::{self, Node, Servers};

const STORE: (&str, &str) = ("DATABASE_PATH", "./tinychat.db");
/// A line is about this long, so that memory holds some 270.
const LINE_BYTES: usize = 15_000;
/// More than memory holds (4 MiB).
const MANY: usize = 320;

#[test]
fn a_server_that_joins_later_has_all_that_was_said() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 2, &[]);
    let mut ann = enter(&nodes[0], "Ann");
    // So much that the log is trimmed, and a server starts from a snapshot.
    say(&mut ann, 0..2 * MANY);
    ann.command("/whisper Ann this is private");
    // On a busy machine, members may be told that the engine was slow.
    while ann.next_line() != "Ann to Ann: this is private" {}
    say(&mut ann, 2 * MANY..2 * MANY + 10);
    // After 8 MiB of entries. The last ones may follow it.
    until("a snapshot is stored", || figure(&nodes[0], "snapshot_age_entries") < MANY as u64);
    assert!(nodes.iter().all(|node| figure(node, "history_waiting_bytes") < 4 * 1024 * 1024));

    let mut with_store = Node::prepare(&engine, 3, &[STORE], servers.clone());
    let mut without = Node::prepare(&engine, 4, &[], servers);
    for node in [&mut with_store, &mut without] {
        node.start_without_waiting();
        node.wait_until_running();
    }
    let history = history(&nodes[0]);
    assert_eq!(numbers(&history), (0..2 * MANY + 10).collect::<Vec<_>>());
    assert!(history.iter().map(id).is_sorted());
    for node in [&nodes[1], &with_store, &without] {
        assert_eq!(self::history(node), history, "according to {}", node.name);
    }
    until("the store is a copy", || with_store.stored().len() == history.len());
    assert_eq!(with_store.stored(), history);

    // Now only the engine has the history.
    nodes.into_iter().chain([with_store, without]).for_each(|mut node| node.stop());
    let mut again = Node::prepare(&engine, 5, &[], Servers::default());
    again.start_without_waiting();
    again.wait_until_running();
    assert_eq!(self::history(&again), history);
}

#[test]
fn a_message_that_is_deleted_is_gone_everywhere() {
    let Some(engine) = Engine::start() else { return };
    let servers = Servers::default();
    let mut nodes: Vec<Node> = [STORE, ("DATABASE_PATH", "off")]
        .into_iter()
        .zip(1..)
        .map(|(setting, number)| Node::prepare(&engine, number, &[setting], servers.clone()))
        .collect();
    nodes.iter_mut().for_each(Node::start_without_waiting);
    nodes.iter_mut().for_each(Node::wait_until_running);
    let mut ann = enter(&nodes[0], "Ann");
    say(&mut ann, 0..MANY);
    let all = history(&nodes[0]);
    let (old, other, new) = (id(&all[3]), id(&all[5]), id(&all[MANY - 3]));
    let mut moderators = [&nodes[1], &nodes[0]].map(|node| node.join(&format!("Mod of {}", node.name)));
    for moderator in &mut moderators {
        moderator.command("/login secret");
        while !moderator.next_line().contains("is now a moderator") {}
    }
    // On a server without a store, and on one with a store.
    for (moderator, ids) in moderators.iter_mut().zip([[old, new], [other, id(&all[MANY - 4])]]) {
        for id in ids {
            delete(moderator, id, &format!("system: The message {id} was deleted."));
            delete(moderator, id, &format!("error: There is no message with the id {id}."));
            let id = id.to_string();
            until("it is not on the engine", || {
                engine.call(&["ZCOUNT", "tinychat:history", &id, &id]) == redis::Value::Int(0)
            });
        }
    }
    let join = id(&all[0]) - 1;
    delete(&mut moderators[0], join, &format!("error: There is no message with the id {join}."));
    let mut late = Node::prepare(&engine, 3, &[STORE], servers);
    late.start_without_waiting();
    late.wait_until_running();
    let left: Vec<usize> = (0..MANY).filter(|number| ![3, 5, MANY - 3, MANY - 4].contains(number)).collect();
    for node in [&nodes[0], &nodes[1], &late] {
        assert_eq!(numbers(&history(node)), left, "according to {}", node.name);
    }
    for node in [&nodes[0], &late] {
        until("the store is a copy", || numbers(&node.stored()) == left);
    }
}

#[test]
fn an_engine_that_has_lost_its_data_gets_the_history_from_a_store() {
    let Some(engine) = Engine::start() else { return };
    let (mut nodes, servers) = nodes::start(&engine, 1, &[STORE]);
    let mut ann = enter(&nodes[0], "Ann");
    say(&mut ann, 0..MANY);
    let before = history(&nodes[0]);
    nodes.push(Node::prepare(&engine, 2, &[], servers.clone()));
    nodes[1].start_without_waiting();
    nodes[1].wait_until_running();
    // Connections may be closed meanwhile, and older messages may be refused, but no page has a gap.
    let assert_kept = |node: &Node| {
        until("the history is there", || {
            let history = try_history(node);
            assert!(history.as_ref().is_none_or(|history| *history == before), "according to {}", node.name);
            history.is_some()
        });
    };
    // While all servers run.
    lose_data(&engine);
    nodes.iter().for_each(assert_kept);
    // While none does.
    drop(ann);
    nodes.iter_mut().for_each(Node::stop);
    engine.call(&["FLUSHALL"]);
    nodes.iter_mut().for_each(Node::start_without_waiting);
    nodes.iter_mut().for_each(Node::wait_until_running);
    nodes.push(Node::prepare(&engine, 3, &[STORE], servers));
    nodes[2].start_without_waiting();
    nodes[2].wait_until_running();
    nodes.iter().for_each(assert_kept);
    until("the store is a copy", || nodes[2].stored() == before);
    // The copy in that store is enough.
    nodes[0].kill();
    lose_data(&engine);
    nodes[1..].iter().for_each(assert_kept);
}

#[test]
fn a_store_that_comes_back_later_completes_the_history() {
    let Some(engine) = Engine::start() else { return };
    let (mut nodes, servers) = nodes::start(&engine, 1, &[STORE]);
    let mut ann = enter(&nodes[0], "Ann");
    say(&mut ann, 0..MANY);
    let before = history(&nodes[0]);
    let mut other = Node::prepare(&engine, 2, &[], servers);
    other.start_without_waiting();
    other.wait_until_running();
    drop(ann);
    nodes[0].stop();
    // A server without a store fills the engine.
    lose_data(&engine);
    nodes[0].start_without_waiting();
    nodes[0].wait_until_running();
    for node in [&nodes[0], &other] {
        until("the history is complete", || try_history(node).as_ref() == Some(&before));
    }
    assert_eq!((nodes[0].backups(), nodes[0].stored()), (0, before));
}

/// Once, only full copies were added, and messages were missing although a server had them.
#[test]
fn a_store_that_is_not_a_copy_yet_completes_the_history() {
    let Some(engine) = Engine::start() else { return };
    let (mut nodes, servers) = nodes::start(&engine, 1, &[]);
    let mut ann = enter(&nodes[0], "Ann");
    // So much that the log is trimmed, and the other server starts from a snapshot.
    say(&mut ann, 0..2 * MANY);
    until("a snapshot is stored", || figure(&nodes[0], "snapshot_age_entries") < MANY as u64);
    make_incomplete(&engine);
    let mut stored = Node::prepare(&engine, 2, &[STORE], servers);
    stored.start_without_waiting();
    stored.wait_until_running();
    // It has stored what was in memory when it joined, and stores what follows.
    say(&mut ann, 2 * MANY..2 * MANY + 100);
    let last = 2 * MANY + 99;
    until("everything is stored", || numbers(&stored.stored()).last() == Some(&last));
    let before = stored.stored();
    nodes[0].kill();
    lose_data(&engine);
    until("the history is complete", || try_history(&stored).as_ref() == Some(&before));
    assert!(
        (MANY..last).contains(&before.len()),
        "more than memory holds, and less than all: {}",
        before.len()
    );
}

#[test]
fn a_store_gets_what_was_said_while_its_server_was_stopped() {
    let Some(engine) = Engine::start() else { return };
    let (mut stored, other) = start_with_and_without_store(&engine);
    let mut ann = enter(&other, "Ann");
    say(&mut ann, 0..20);
    until("it is stored", || stored.stored().len() == 20);
    stored.stop();
    say(&mut ann, 20..20 + MANY);
    stored.start_without_waiting();
    stored.wait_until_running();
    say(&mut ann, 20 + MANY..30 + MANY);
    let history = history(&other);
    assert_eq!(numbers(&history), (0..30 + MANY).collect::<Vec<_>>());
    assert_eq!(self::history(&stored), history);
    until("the store is a copy", || stored.stored() == history);
}

#[test]
fn the_history_has_as_many_messages_as_are_kept() {
    let Some(engine) = Engine::start() else { return };
    let kept = MANY - 10;
    let (nodes, _) = nodes::start(&engine, 2, &[("HISTORY_MESSAGES", &kept.to_string())]);
    say(&mut enter(&nodes[0], "Ann"), 0..MANY + 30);
    for node in &nodes {
        assert_eq!(
            numbers(&history(node)),
            (40..MANY + 30).collect::<Vec<_>>(),
            "according to {}",
            node.name
        );
    }
}

/// The chat remembers the last 1,000 deletions. Earlier ones were once undone by a store that had missed them.
#[test]
fn a_store_that_has_missed_many_deletions_brings_nothing_back() {
    const DELETED: usize = 1010;
    let Some(engine) = Engine::start() else { return };
    let (mut stored, mut other) = start_with_and_without_store(&engine);
    let mut ann = enter(&other, "Ann");
    say_lines(&mut ann, 0..DELETED + 5, |number| format!("{number} x"));
    let all = history(&other);
    until("everything is stored", || stored.stored() == all);
    stored.stop();
    let mut moderator = other.join("Meg");
    moderator.command("/login secret");
    for message in &all[..DELETED] {
        moderator.command(&format!("/delete {}", id(message)));
    }
    let answer = format!("system: The message {} was deleted.", id(&all[DELETED - 1]));
    while moderator.next_line() != answer {}
    // So much that the server starts from a snapshot, and gets no entries of these deletions.
    say(&mut enter(&other, "Bob"), DELETED + 5..DELETED + 5 + 2 * MANY);
    until("a snapshot is stored", || figure(&other, "snapshot_age_entries") < MANY as u64);
    stored.start_without_waiting();
    stored.wait_until_running();
    let left: Vec<usize> = (DELETED..DELETED + 5 + 2 * MANY).collect();
    until("the store is a copy", || numbers(&stored.stored()) == left);
    // Now only this store has the history.
    other.kill();
    lose_data(&engine);
    until("the history is there", || try_history(&stored).is_some_and(|history| numbers(&history) == left));
}

/// The store of a running server was once emptied, although nothing else had its messages.
#[test]
fn messages_of_another_chat_are_kept_in_a_backup() {
    let Some(engine) = Engine::start() else { return };
    let (stored, mut other) = start_with_and_without_store(&engine);
    let mut ann = enter(&stored, "Ann");
    say_lines(&mut ann, 0..5, |number| format!("{number} x"));
    until("everything is stored", || numbers(&stored.stored()) == [0, 1, 2, 3, 4]);
    // While this server is cut off, the engine loses the chat, and another one begins.
    stored.proxy.blackhole();
    stored.proxy.cut();
    other.kill();
    engine.call(&["FLUSHALL"]);
    other.start_without_waiting();
    other.wait_until_running();
    let mut bob = enter(&other, "Bob");
    bob.public("7 x");
    stored.proxy.restore();
    until("the store has the other chat", || numbers(&stored.stored()) == [7]);
    assert_eq!(stored.backups(), 1);
    assert_eq!(numbers(&stored.backed_up()), [0, 1, 2, 3, 4]);
}

/// Once, it did not if the engine had a newer snapshot than the one that it was filled with.
#[test]
fn a_server_that_was_cut_off_completes_the_history() {
    let Some(engine) = Engine::start() else { return };
    let (stored, other) = start_with_and_without_store(&engine);
    let mut ann = enter(&other, "Ann");
    say(&mut ann, 0..MANY);
    until("everything is stored", || stored.stored().len() == MANY);
    stored.proxy.cut();
    lose_data(&engine);
    // Ann's connection may have been closed.
    let mut bob = enter(&other, "Bob");
    say(&mut bob, MANY..3 * MANY);
    until("a snapshot is stored", || figure(&other, "snapshot_age_entries") < MANY as u64);
    stored.proxy.restore();
    let all: Vec<usize> = (0..3 * MANY).collect();
    until("the history is complete", || try_history(&other).is_some_and(|history| numbers(&history) == all));
}

/// Such a request once delayed the pages of all members of its server by 3 s.
#[test]
fn a_request_that_has_to_wait_delays_no_others() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, _) = nodes::start(&engine, 1, &[]);
    let (mut ann, mut bob) = (enter(&nodes[0], "Ann"), enter(&nodes[0], "Bob"));
    say(&mut ann, 0..MANY);
    let history = history(&nodes[0]);
    let ask = |client: &mut Client, before: usize| {
        client.send(json!({"type": "history", "before": id(&history[before]), "limit": 10}));
    };
    let mut delays_none = || {
        make_incomplete(&engine);
        ask(&mut ann, 2);
        ask(&mut ann, 20);
        ask(&mut bob, 20);
        assert_eq!(next_answer(&mut bob)["messages"].as_array().unwrap(), &history[10..20]);
        engine.call(&["HSET", "tinychat:meta", "complete", "1"]);
        [10..20, 0..2].map(|page| next_answer(&mut ann)["messages"] == json!(history[page])) == [true; 2]
    };
    // On a busy machine, the first request may have waited for as long as is allowed by then.
    assert!((0..5).any(|_| delays_none()));
}

/// Two servers, of which the first has a store.
fn start_with_and_without_store(engine: &Engine) -> (Node, Node) {
    let servers = Servers::default();
    let mut nodes = [(1, &[STORE][..]), (2, &[])]
        .map(|(number, settings)| Node::prepare(engine, number, settings, servers.clone()));
    for node in &mut nodes {
        node.start_without_waiting();
        node.wait_until_running();
    }
    nodes.into()
}

/// The engine loses its data, and a server fills it again.
fn lose_data(engine: &Engine) {
    engine.call(&["FLUSHALL"]);
    until("the engine is filled", || engine.call(&["EXISTS", "tinychat:meta"]) == redis::Value::Int(1));
}

/// The history is as after the engine was filled, before servers have added what their stores have.
fn make_incomplete(engine: &Engine) {
    engine.call(&["HDEL", "tinychat:meta", "complete"]);
    engine.call(&["HSET", "tinychat:meta", "merged", "9999999999999"]);
}

/// A client that has joined, and gets an `ack`.
fn enter(node: &Node, name: &str) -> Client {
    let mut client = node.connect();
    client.join_asking(name, json!({"history": 0}));
    client
}

/// Sends these numbers, in long lines, and waits until all are delivered.
fn say(client: &mut Client, numbers: std::ops::Range<usize>) {
    say_lines(client, numbers, |number| format!("{number} {}", "x".repeat(LINE_BYTES)));
}

fn say_lines(client: &mut Client, numbers: std::ops::Range<usize>, line: impl Fn(usize) -> String) {
    let last = numbers.end - 1;
    for number in numbers {
        if number == last {
            client.send(json!({"type": "public", "content": line(number), "txn_id": number.to_string()}));
        } else {
            client.public(&line(number));
        }
    }
    while client.next_line() != format!("ack: {last}") {}
}

/// The answer to a request for a page.
fn next_answer(client: &mut Client) -> Value {
    loop {
        let message = client.next_event();
        if message["type"] == "history" || message["type"] == "error" {
            return message;
        }
    }
}

/// Deletes a message, and waits for this answer.
fn delete(moderator: &mut Client, id: u64, answer: &str) {
    moderator.command(&format!("/delete {id}"));
    loop {
        let message = moderator.next_event();
        let is_answer = message["type"] == "error"
            || message["type"] == "system" && line(&message).ends_with("was deleted.");
        if is_answer {
            assert_eq!(line(&message), answer);
            return;
        }
    }
}

/// All messages that a new client can get from this server, the oldest first.
fn history(node: &Node) -> Vec<Value> {
    try_history(node).expect("the server answers with the history")
}

/// `None`: the connection is closed, or older messages are not available.
fn try_history(node: &Node) -> Option<Vec<Value>> {
    let mut client = node.connect();
    // A unique name: other servers may not know yet that an earlier reader has left.
    let name = format!("Reader{}", client.socket.get_ref().tcp().local_addr().unwrap().port());
    client.send(json!({"type": "join", "username": name, "history": 200}));
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let text = match client.socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            other => {
                println!("{name}: {other:?}");
                return None;
            }
        };
        let message: Value = serde_json::from_str(&text).unwrap();
        match message["type"].as_str().unwrap() {
            "history" => {
                let mut older = message["messages"].as_array().unwrap().clone();
                let before = older.first().map(id);
                older.append(&mut messages);
                messages = older;
                if message["more"] != true {
                    return Some(messages);
                }
                let before = before.expect("a page that is not the last has messages");
                client.send(json!({"type": "history", "before": before, "limit": 200}));
            }
            "error" => {
                println!("{name}: {message}");
                return None;
            }
            _ => {}
        }
    }
}

/// Which numbers were said, in these messages.
fn numbers(messages: &[Value]) -> Vec<usize> {
    let content = messages.iter().filter_map(|message| message["content"].as_str());
    content.filter_map(|content| content.split_once(" x")?.0.parse().ok()).collect()
}

/// The value of a metric without labels.
fn figure(node: &Node, name: &str) -> u64 {
    let page = node.get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("tinychat_cluster_{name} ")));
    line.expect("it is on the page").parse().unwrap()
}
