//! Several servers as one chat (docs/cluster.md), on a real Redis server: what their clients say to each other, and
//! what happens when a part of it fails. Without a `redis-server`, these tests are skipped, unless
//! `TINYCHAT_ENGINE_TESTS` is `required`.
//!
//! Clients record what they were told and what they saw, and a checker looks for what was lost, duplicated or reordered
//! (`support/anomalies.rs`). With TINYCHAT_CLUSTER_LONG=1, failures last longer, and it is asserted that a dead
//! server's members are away within 12 s. A busy machine could fail to keep that.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::anomalies::{Line, Record, Seen, anomalies};
use crate::support::client::{Client, REPLACED, id, line, lines};
use crate::support::engine::{Engine, until};
use crate::support::nodes::{self, Node, Servers};
use crate::support::port::ReservedPort;
use crate::support::program::Folder;
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::recorder::Recorder;
use crate::support::server::{TestServer, Transport};

/// So long that no member leaves during a test.
const FOREVER: (&str, &str) = ("RESUME_SECONDS", "86400");
/// Between two lines of a client that sends all the time.
const PACE: Duration = Duration::from_millis(10);
/// How long a dead server's members may seem to be present.
const AWAY_WITHIN: Duration = Duration::from_secs(12);
/// Longer than `RESUME_SECONDS=3` and the two seconds after which an entry is late.
const OUTAGE: Duration = Duration::from_secs(7);
/// How long a server is stopped without being considered dead. Users are told of an outage that takes 2 s.
const STOPPED: Duration = Duration::from_millis(2500);
/// Added to the delay of each direction between a server and the engine.
const DELAY: Duration = Duration::from_millis(200);
/// How many entries may wait in one server while the engine is unavailable, before its clients have to wait.
const MAX_QUEUE_ENTRIES: u64 = 20_000;
/// How many may be on their way to the queue by then, in the inbox, besides one of each client.
const ON_THE_WAY: u64 = 1024;
/// Close code of a server that was considered dead, and of a connection whose place in the order is lost.
const RESTART: u16 = 1012;

/// The checker and its clients agree with a server that is known to be right.
#[test]
fn recording_clients_find_nothing_wrong_with_one_server() {
    let server = TestServer::with(Transport::Ws, &[FOREVER]);
    let (proxy, servers) = (Proxy::start(server.address), Servers::default());
    servers.add(proxy.address);
    let talkers = talkers(&servers, 3);
    for round in 1..=5 {
        talkers.iter().for_each(|talker| talker.wait_for_acks(20 * round));
        proxy.cut();
        proxy.restore();
    }
    let records = settle(talkers);
    assert_eq!(anomalies(&records, &history(server.connect())), []);
    assert!(records.iter().all(|record| !record.closes.is_empty()));
    // And it notices what is wrong.
    let mut lost = records[0].clone();
    lost.acked.push((u64::MAX, "t0 100000".into()));
    assert_eq!(anomalies(&[lost], &history(server.connect())).len(), 1);
}

#[test]
fn two_servers_are_one_room() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, _) = nodes::start(&engine, 2, &[]);
    let (mut ann, first) = enter(&nodes[0], "Ann");
    let (mut bob, second) = enter(&nodes[1], "Bob");
    assert_eq!(first["epoch"], second["epoch"]);
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.wait_for_users(&["Ann", "Bob"]);
    assert_eq!(bob.users, ["Ann", "Bob"]);

    ann.public_with_txn_id("hello");
    let (ack, message) = (ann.next_event(), bob.next_event());
    assert_eq!((line(&ack), line(&message)), ("ack: hello".into(), "Ann: hello".into()));
    assert_eq!((&ack["id"], &ack["time"]), (&message["id"], &message["time"]));

    bob.send(json!({"type": "private", "to": "Ann", "content": "psst", "txn_id": "1"}));
    let (received, echo) = (ann.next_event(), bob.next_event());
    assert_eq!((line(&received), line(&echo)), ("Bob to Ann: psst".into(), "Bob to Ann: psst".into()));
    assert_eq!(received["id"], echo["id"]);
    assert_eq!(bob.next_line(), "ack: 1");
    ann.command("/whisper Bob hi");
    assert_eq!((ann.next_line(), bob.next_line()), ("Ann to Bob: hi".into(), "Ann to Bob: hi".into()));

    // A name that is in use on another server, written in another way.
    let mut other = nodes[1].connect();
    other.join("ANN");
    let refused = other.next_line();
    assert!(refused.starts_with("error: ") && refused.contains("in use"), "{refused}");

    // All see one order.
    let mut watchers = [nodes[0].join("Cid"), nodes[1].join("Dan")];
    assert_eq!(watchers[0].next_line(), "system: Dan joined.");
    for number in 0..50 {
        ann.public(&format!("{number}"));
        bob.public(&format!("{number}"));
    }
    let seen = watchers.each_mut().map(|watcher| (0..100).map(|_| watcher.next_event()).collect::<Vec<_>>());
    assert_eq!(without_timestamps(&seen[0]), without_timestamps(&seen[1]));
    assert!(seen[0].iter().map(id).is_sorted());

    // The history is the same on both servers.
    let names = ["Eve", "Flo"].into_iter().zip(&nodes);
    let histories: Vec<Value> =
        names.map(|(name, node)| node.connect().join_asking(name, json!({"history": 200}))).collect();
    assert_eq!(histories[0]["messages"].as_array().unwrap().len(), 101);
    assert_eq!(
        without_timestamps(histories[0]["messages"].as_array().unwrap()),
        without_timestamps(histories[1]["messages"].as_array().unwrap())
    );
    // A client with a position from one server continues from it on the other.
    let since = json!({"epoch": first["epoch"], "since": seen[0][98]["id"]});
    let answer = nodes[1].connect().join_asking("Gil", since);
    assert_eq!((&answer["recovered"], answer["messages"].as_array().unwrap().len()), (&json!(true), 1));

    bob.close(Some(CloseCode::Normal));
    while watchers[0].next_line() != "system: Bob left." {}
}

#[test]
fn a_moderator_acts_on_members_of_another_server() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, _) = nodes::start(&engine, 2, &[]);
    let mut ann = nodes[0].join("Ann");
    let (mut bob, _) = enter(&nodes[1], "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    let expect = |ann: &mut Client, bob: &mut Client, command: &str, both: &str| {
        ann.command(command);
        for client in [ann, bob] {
            assert_eq!(client.next_line(), format!("system: {both}"), "{command}");
        }
    };
    expect(&mut ann, &mut bob, "/login secret", "Ann is now a moderator.");
    bob.wait_for_users(&["Ann mod", "Bob"]);
    expect(&mut ann, &mut bob, "/to Bob 60", "Ann timed out Bob for 60 seconds.");
    bob.wait_for_users(&["Ann mod", "Bob timed out"]);
    bob.public("hello");
    assert!(bob.next_line().starts_with("system: "), "what a member that is timed out says is refused");
    ann.command("/unto Bob");
    assert!(ann.next_line().starts_with("system: ") && bob.next_line().starts_with("system: "));
    bob.public_with_txn_id("hello");
    let said = ann.next_event();
    assert_eq!((line(&said), bob.next_line()), ("Bob: hello".into(), "ack: hello".into()));

    ann.command("/info Bob");
    let info = ann.next_line();
    assert!(info.contains("127.0.0.1"), "{info}");
    expect(&mut ann, &mut bob, "/kick Bob spam", "Ann kicked Bob: spam");
    assert_eq!(bob.close_code(), Some(CloseCode::Policy));
    while ann.next_line() != "system: Bob left." {}

    bob = nodes[1].join("Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.command("/ban Bob 1h spam");
    assert_eq!(bob.close_code(), Some(CloseCode::Policy));
    while ann.next_line() != "system: Bob left." {}
    for node in &nodes {
        let mut bob = node.connect();
        bob.join("Bob");
        let refused = bob.next_line();
        assert!(refused.starts_with("error: ") && refused.contains("spam"), "{refused}");
    }
    ann.command("/unban Bob");
    // The other server learns of it a little later.
    until("Bob is let in", || epoch(&nodes[1], "Bob").is_some());

    // Deleted on one server, gone on both.
    let (mut cid, answer) = enter_asking(&nodes[1], "Cid", json!({"history": 10}));
    assert!(lines(&answer).contains(&"Bob: hello".into()));
    ann.command(&format!("/delete {}", id(&said)));
    while cid.next_event()["type"] != "deleted" {}
    for node in &nodes {
        let (_, answer) = enter_asking(node, &format!("Dan{}", node.name), json!({"history": 10}));
        assert!(!lines(&answer).contains(&"Bob: hello".into()), "{answer}");
    }
}

#[test]
fn a_member_resumes_on_another_server() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, _) = nodes::start(&engine, 2, &[FOREVER]);
    let mut ann = nodes[1].join("Ann");
    let (mut bob, first) = enter(&nodes[0], "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    bob.command("/login secret");
    assert_eq!(ann.next_line(), "system: Bob is now a moderator.");
    drop(bob);
    ann.wait_for_users(&["Ann", "Bob mod away"]);
    ann.command("/whisper Bob where are you?");
    assert_eq!(ann.next_line(), "Ann to Bob: where are you?");

    let resume = json!({"session": first["session"], "epoch": first["epoch"], "since": first["id"]});
    let mut bob = nodes[1].connect();
    let answer = bob.join_asking("Bob", resume.clone());
    assert_eq!((&answer["session"], &answer["recovered"]), (&first["session"], &json!(true)));
    assert_eq!(lines(&answer), ["system: Bob is now a moderator.", "Ann to Bob: where are you?"]);
    ann.wait_for_users(&["Ann", "Bob mod"]);
    assert_eq!(bob.users, ["Ann", "Bob mod"]);

    // The place is taken again, by a connection to the other server.
    let mut again = nodes[0].connect();
    again.join_asking("Bob", resume);
    assert_eq!(bob.close_code(), Some(REPLACED));
    again.public("here");
    assert_eq!(ann.next_line(), "Bob: here");
    again.close(Some(CloseCode::Normal));
    assert_eq!(ann.next_line(), "system: Bob left.");
}

/// The order decides who has it.
#[test]
fn a_name_has_one_owner() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 2, &[]);
    let watcher = Recorder::join("Watcher", &servers, 0);
    for round in 0..20 {
        let barrier = Barrier::new(nodes.len());
        let contenders: Vec<Client> = nodes.iter().map(Node::connect).collect();
        let owners: Vec<Option<Client>> = thread::scope(|scope| {
            let contend = |client| scope.spawn(|| contend(client, "Zed", &barrier));
            let threads: Vec<_> = contenders.into_iter().map(contend).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut owners: Vec<Client> = owners.into_iter().flatten().collect();
        assert_eq!(owners.len(), 1, "in round {round}");
        let mut owner = owners.remove(0);
        owner.public_with_txn_id(&format!("round{round} 0"));
        while owner.next_line() != format!("ack: round{round} 0") {}
        owner.close(Some(CloseCode::Normal));
        let left = |record: &Record| {
            record.views[0].iter().filter(|seen| **seen == Seen::Left("Zed".into())).count()
        };
        watcher.wait("the owner has left", |record| left(record) == round + 1);
    }
    watcher.wait_for_line("round19 0");
    assert_eq!(anomalies(&[watcher.leave()], &history(nodes[1].connect())), []);
}

/// Joins at the same moment as others. `None`: another one has the name.
fn contend(mut client: Client, name: &str, barrier: &Barrier) -> Option<Client> {
    barrier.wait();
    client.send(json!({"type": "join", "username": name, "history": 0}));
    loop {
        let event = client.next_event();
        match event["type"].as_str().unwrap() {
            "history" => return Some(client),
            "error" => return None,
            _ => {}
        }
    }
}

#[test]
fn secrets_do_not_appear_on_the_engine() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, _) =
        nodes::start(&engine, 1, &[("JOIN_PASSWORD", "open sesame"), ("MOD_PASSWORD", "hunter2")]);
    let mut ann = nodes[0].connect();
    let answer = ann.join_asking("Ann", json!({"history": 0, "password": "open sesame"}));
    assert_eq!(ann.next_line(), "system: Ann joined.");
    ann.command("/login wrong guess");
    assert!(ann.next_line().starts_with("error: "));
    ann.command("/login hunter2");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    ann.public_with_txn_id("this is in the log");
    assert_eq!(ann.next_line(), "ack: this is in the log");
    // All that was ever written to it.
    let written = engine.stored();
    let contains = |text: &str| written.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(contains("this is in the log"));
    for secret in ["open sesame", "hunter2", "wrong guess", answer["session"].as_str().unwrap()] {
        assert!(!contains(secret), "{secret}");
    }
}

#[test]
fn nothing_is_lost_when_the_engine_is_killed_and_has_its_data() {
    let Some(mut engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    let talkers = talkers(&servers, 3);
    let epoch = talkers[0].record().epochs[0].clone();
    for round in 1..=3 {
        talkers.iter().for_each(|talker| talker.wait_for_acks(30 * round));
        engine.kill();
        engine.restart();
    }
    for record in finish(talkers, &nodes) {
        assert_eq!((record.closes, record.epochs), (vec![], vec![epoch.clone()]), "connections stay open");
    }
}

#[test]
fn the_chat_continues_when_the_engine_has_lost_its_data() {
    let Some(mut engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    continues_after(&nodes, &servers, || {
        engine.kill();
        engine.delete_data();
        engine.restart();
    });
}

#[test]
fn the_chat_continues_after_flushall() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    continues_after(&nodes, &servers, || {
        engine.call(&["FLUSHALL"]);
    });
}

/// After a loss of the engine's data, there is a new epoch, and all else continues.
fn continues_after(nodes: &[Node], servers: &Servers, lose_data: impl FnOnce()) {
    let (mut ann, _) = enter(&nodes[0], "Ann");
    let mut eve = nodes[2].join("Eve");
    assert_eq!(ann.next_line(), "system: Eve joined.");
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    ann.command("/ban Eve 1h spam");
    assert_eq!(eve.close_code(), Some(CloseCode::Policy));
    let (fay, before) = enter(&nodes[1], "Fay");
    drop(fay);
    let talkers = talkers(servers, 3);
    talkers.iter().for_each(|talker| talker.wait_for_acks(30));
    lose_data();
    for (at, node) in nodes.iter().enumerate() {
        let mut number = 0;
        until("there is a new epoch", || {
            number += 1;
            epoch(node, &format!("probe{at}-{number}")).is_some_and(|epoch| epoch != before["epoch"])
        });
    }
    // Members and moderation are those of before.
    let mut fay = nodes[2].connect();
    let resume = json!({"session": before["session"], "epoch": before["epoch"], "since": before["id"]});
    let answer = fay.join_asking("Fay", resume);
    assert_eq!((&answer["session"], &answer["recovered"]), (&before["session"], &json!(false)));
    assert!(fay.users.iter().any(|user| user.starts_with("Ann mod")), "{:?}", fay.users);
    for node in nodes {
        let mut eve = node.connect();
        eve.join("Eve");
        let refused = eve.next_line();
        assert!(refused.starts_with("error: ") && refused.contains("spam"), "{refused}");
    }
    finish(talkers, nodes);
}

#[test]
fn nothing_is_lost_while_the_engine_is_slow() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    nodes.iter().for_each(|node| node.proxy.delay(DELAY));
    let talkers = talkers(&servers, 3);
    talkers.iter().for_each(|talker| talker.wait_for_acks(25));
    for record in finish(talkers, &nodes) {
        assert_eq!(record.closes, [], "connections stay open");
    }
}

#[test]
fn nobody_loses_a_line_while_all_servers_are_restarted() {
    let Some(engine) = Engine::start() else { return };
    let (mut nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    let talkers = talkers(&servers, 6);
    for (round, node) in nodes.iter_mut().enumerate() {
        talkers.iter().for_each(|talker| talker.wait_for_acks(20 * (round + 1)));
        node.restart();
    }
    talkers.iter().for_each(|talker| talker.wait_for_acks(100));
    let records = finish(talkers, &nodes);
    let mut closes = records.iter().flat_map(|record| &record.closes);
    assert!(closes.all(|close| *close == Some(CloseCode::Away.into())), "{records:?}");
}

/// One failure after the other, at random. TINYCHAT_CLUSTER_FAILURES sets their number, and TINYCHAT_CLUSTER_SEED
/// selects a series, but not how threads and processes are scheduled.
#[test]
fn nothing_is_lost_whatever_fails() {
    let Some(mut engine) = Engine::start() else { return };
    let number = |name: &str| Some(std::env::var(name).ok()?.parse().expect("a number"));
    let failures: u64 = number("TINYCHAT_CLUSTER_FAILURES").unwrap_or(if is_long() { 60 } else { 4 });
    let seed = number("TINYCHAT_CLUSTER_SEED").unwrap_or(1);
    println!("TINYCHAT_CLUSTER_SEED={seed}");
    let mut random = Random(seed);
    let (mut nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    let talkers = talkers(&servers, 6);
    // All that is said is to be in the history at the end.
    talkers.iter().for_each(|talker| talker.talk(PACE * u32::try_from(failures).unwrap().max(2)));
    for failure in 0..failures {
        let pause = Duration::from_millis(random.below(if is_long() { 15_000 } else { 3000 }) as u64);
        let at = random.below(nodes.len());
        let kind = random.below(10);
        println!("{failure}: {kind} at {at} for {pause:?}");
        match kind {
            0 => {
                engine.kill();
                thread::sleep(pause / 4);
                engine.restart();
            }
            1 => {
                engine.pause();
                thread::sleep(pause);
                engine.resume();
            }
            2 => {
                nodes[at].proxy.blackhole();
                thread::sleep(pause);
                nodes[at].proxy.restore();
            }
            3 => (0..10).for_each(|_| {
                nodes[at].proxy.cut();
                nodes[at].proxy.restore();
                thread::sleep(pause / 20);
            }),
            4 => {
                nodes[at].proxy.delay(DELAY);
                thread::sleep(pause);
                nodes[at].proxy.delay(Duration::ZERO);
            }
            5 => nodes[at].restart(),
            6 => {
                nodes[at].kill();
                nodes[at].start_without_waiting();
                nodes[at].wait_until_running();
            }
            7 => drop(engine.call(&["FLUSHALL"])),
            8 => {
                engine.kill();
                engine.lose_tail(random.below(10_000) as u64);
                thread::sleep(pause / 4);
                engine.restart();
            }
            _ => {
                nodes[at].signal(Signal::STOP);
                thread::sleep(pause);
                nodes[at].signal(Signal::CONT);
            }
        }
        // All clients continue.
        let said: Vec<usize> = talkers.iter().map(|talker| talker.record().acked.len()).collect();
        talkers.iter().zip(said).for_each(|(talker, said)| talker.wait_for_acks(said + 3));
    }
    finish(talkers, &nodes);
}

/// Failures that are noticed after some time, all at once: each has its own servers.
#[test]
fn failures_that_take_time() {
    let scenarios: [(&str, fn()); 4] = [
        ("paused", nothing_is_lost_while_the_engine_is_paused),
        ("cut off", a_server_that_is_cut_off_is_replaced),
        ("stopped", a_server_that_was_stopped_closes_its_connections),
        ("killed", the_members_of_a_killed_server_are_away),
    ];
    thread::scope(|scope| {
        let threads = scenarios.map(|(name, scenario)| {
            thread::Builder::new().name(name.into()).spawn_scoped(scope, scenario).unwrap()
        });
        for thread in threads {
            assert!(thread.join().is_ok(), "see above");
        }
    });
}

/// Nobody is disconnected, everyone is told, and a load balancer can see it.
fn nothing_is_lost_while_the_engine_is_paused() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    let talkers = talkers(&servers, 3);
    talkers.iter().for_each(|talker| talker.wait_for_acks(20));
    let told = |count: usize| {
        for talker in &talkers {
            talker.wait(&format!("{count} system lines"), |record| record.system.len() >= count);
        }
    };
    let start = Instant::now();
    engine.pause();
    told(1);
    assert!(nodes.iter().all(|node| node.health() == 200 || start.elapsed() > Duration::from_secs(9)));
    until("all servers are unhealthy", || nodes.iter().all(|node| node.health() == 503));
    if is_long() {
        thread::sleep(Duration::from_secs(30).saturating_sub(start.elapsed()));
    }
    engine.resume();
    told(2);
    until("all servers are healthy", || nodes.iter().all(|node| node.health() == 200));
    for record in finish(talkers, &nodes) {
        assert_eq!(record.closes, [], "connections stay open");
        // A busy machine may make the engine slow once more.
        let (told, later) = record.system.split_at(2);
        assert!(told[0] != told[1] && later.chunks(2).all(|again| again == told), "{:?}", record.system);
    }
}

/// Its members are away, may resume elsewhere, and what they say through it does not count any more.
fn a_server_that_is_cut_off_is_replaced() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    let talkers = talkers(&servers, 3);
    let mut ann = nodes[0].join("Ann");
    let (mut bob, before) = enter(&nodes[2], "Bob");
    talkers.iter().for_each(|talker| talker.wait_for_acks(20));
    servers.remove(nodes[2].address());
    let start = Instant::now();
    nodes[2].proxy.blackhole();
    bob.public_with_txn_id("through 0");
    wait_until_away(&mut ann, "Bob", start);

    let resume = json!({"session": before["session"], "epoch": before["epoch"], "since": before["id"]});
    let mut again = nodes[0].connect();
    let answer = again.join_asking("Bob", resume);
    assert_eq!(answer["session"], before["session"]);
    assert!(!lines(&answer).iter().any(|line| line.starts_with("Bob: through")), "{answer}");
    until("the server is unhealthy", || nodes[2].health() == 503);

    nodes[2].proxy.restore();
    assert_eq!(bob.close_code().map(u16::from), Some(RESTART));
    until("the server is healthy", || nodes[2].health() == 200);
    // It is one of the servers again.
    let mut cid = nodes[2].join("Cid");
    again.public("again 0");
    while cid.next_line() != "Bob: again 0" {}
    let records = finish(talkers, &nodes);
    let closes: Vec<&Vec<Option<u16>>> = records.iter().map(|record| &record.closes).collect();
    assert_eq!(closes, [&vec![], &vec![], &vec![Some(RESTART)]]);
    assert!(!history(nodes[0].connect()).iter().any(|line| line.text.starts_with("through")));
}

fn a_server_that_was_stopped_closes_its_connections() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 3, &[FOREVER]);
    let talkers = talkers(&servers, 3);
    let mut ann = nodes[0].join("Ann");
    let (mut bob, _) = enter(&nodes[2], "Bob");
    talkers.iter().for_each(|talker| talker.wait_for_acks(20));
    servers.remove(nodes[2].address());
    let start = Instant::now();
    nodes[2].signal(Signal::STOP);
    bob.public_with_txn_id("stopped 0");
    wait_until_away(&mut ann, "Bob", start);
    if is_long() {
        thread::sleep(Duration::from_secs(30).saturating_sub(start.elapsed()));
    }
    nodes[2].signal(Signal::CONT);
    assert_eq!(bob.close_code().map(u16::from), Some(RESTART));
    until("the server is healthy", || nodes[2].health() == 200);
    let records = finish(talkers, &nodes);
    let closes: Vec<&Vec<Option<u16>>> = records.iter().map(|record| &record.closes).collect();
    assert_eq!(closes, [&vec![], &vec![], &vec![Some(RESTART)]]);
}

/// Its place once ended as soon as the engine was back, before its message was read.
#[test]
fn a_member_that_resumes_while_the_engine_is_paused_keeps_its_place() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, _) = nodes::start(&engine, 2, &[("RESUME_SECONDS", "3")]);
    let mut ann = nodes[1].join("Ann");
    let (bob, before) = enter(&nodes[0], "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    drop(bob);
    ann.wait_for_users(&["Ann", "Bob away"]);
    engine.pause();
    let mut bob = nodes[0].connect();
    bob.send(json!({"type": "join", "username": "Bob", "session": before["session"]}));
    bob.public_with_txn_id("still here");
    ann.public("hello");
    thread::sleep(OUTAGE);
    engine.resume();
    while bob.next_event()["session"] != before["session"] {}
    while bob.next_line() != "ack: still here" {}
    loop {
        match ann.next_line().as_str() {
            "Bob: still here" => break,
            line => assert_ne!(line, "system: Bob left."),
        }
    }
}

/// Its members were once told twice, because "Interrupted system call" counted as an outage.
#[test]
fn a_server_that_was_stopped_for_a_moment_continues() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, servers) = nodes::start(&engine, 2, &[FOREVER]);
    let talkers = talkers(&servers, 4);
    for round in 1..=3 {
        talkers.iter().for_each(|talker| talker.wait_for_acks(20 * round));
        nodes[1].signal(Signal::STOP);
        thread::sleep(STOPPED);
        nodes[1].signal(Signal::CONT);
    }
    for record in finish(talkers, &nodes) {
        assert_eq!(record.closes, [], "{}", record.label);
        // On a busy machine, one of the rounds may take long enough for an outage, which is announced in two lines.
        assert!(record.system.len() <= 2, "{}: {:?}", record.label, record.system);
    }
}

/// They resume elsewhere, or leave when their time is over.
fn the_members_of_a_killed_server_are_away() {
    let Some(engine) = Engine::start() else { return };
    let (mut nodes, servers) = nodes::start(&engine, 3, &[("RESUME_SECONDS", "8")]);
    let talkers = talkers(&servers, 3);
    let mut ann = nodes[0].join("Ann");
    let ((_bob, _), (_cid, before)) = (enter(&nodes[2], "Bob"), enter(&nodes[2], "Cid"));
    talkers.iter().for_each(|talker| talker.wait_for_acks(20));
    let start = Instant::now();
    nodes[2].kill();
    wait_until_away(&mut ann, "Bob", start);
    let mut cid = nodes[1].connect();
    let answer = cid.join_asking("Cid", json!({"session": before["session"]}));
    assert_eq!(answer["session"], before["session"]);
    while ann.next_line() != "system: Bob left." {}
    assert!(!ann.users.contains(&"Cid away".into()), "{:?}", ann.users);
    cid.public("Cid 0");
    while ann.next_line() != "Cid: Cid 0" {}
    nodes.pop();
    finish(talkers, &nodes);
}

/// What does not fit in the queue stays with the senders.
#[test]
fn a_full_queue_holds_senders_back() {
    const LINES: usize = 6500;
    const SENDERS: usize = 4;
    let Some(engine) = Engine::start() else { return };
    let (nodes, _) = nodes::start(&engine, 2, &[("SEND_QUEUE_BYTES", "134217728")]);
    let mut watcher = nodes[1].join("Watcher");
    let senders: Vec<Client> = (0..SENDERS).map(|number| enter(&nodes[0], &format!("s{number}")).0).collect();
    for number in 0..SENDERS {
        assert_eq!(watcher.next_line(), format!("system: s{number} joined."));
    }
    engine.pause();
    let threads: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(sender, mut client)| {
            thread::spawn(move || {
                let stream = client.socket.get_ref().tcp().try_clone().unwrap();
                let role = tungstenite::protocol::Role::Client;
                let mut writer = tungstenite::WebSocket::from_raw_socket(stream, role, None);
                let writing = thread::spawn(move || {
                    for number in 0..LINES {
                        let message = json!({"type": "public", "content": format!("s{sender} {number}"),
                            "txn_id": number.to_string()});
                        writer.send(Message::text(message.to_string())).unwrap();
                    }
                });
                let mut acked = 0;
                while acked < LINES {
                    let message = client.next_event();
                    if message["type"] == "ack" {
                        assert_eq!(message["txn_id"], acked.to_string());
                        acked += 1;
                    }
                }
                writing.join().unwrap();
            })
        })
        .collect();
    until("the queue is full", || queue(&nodes[0]).is_some_and(|entries| entries >= MAX_QUEUE_ENTRIES));
    // What is said now stays with the senders.
    for _ in 0..20 {
        let entries = queue(&nodes[0]);
        let most = MAX_QUEUE_ENTRIES + ON_THE_WAY + SENDERS as u64;
        assert!(entries.is_none_or(|entries| entries <= most), "{entries:?}");
        thread::sleep(Duration::from_millis(20));
    }
    engine.resume();
    let mut next = [0; SENDERS];
    while next != [LINES; SENDERS] {
        let message = watcher.next_event();
        if message["type"] != "public" {
            continue;
        }
        let content = message["content"].as_str().unwrap();
        let sender: usize = content[1..2].parse().unwrap();
        assert_eq!(content, format!("s{sender} {}", next[sender]));
        next[sender] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    until("the queue is empty", || queue(&nodes[0]) == Some(0));
}

#[test]
fn an_engine_that_cannot_be_used_prevents_the_start() {
    let Some(engine) = Engine::with(&["--requirepass", "hunter2"]) else { return };
    let folder = Folder::new();
    let run = |url: String| {
        let settings = [("CLUSTER_URL", &*url), ("PORT", "0"), ("DATABASE_PATH", "off")];
        let output = folder.tinychat(&[]).envs(&settings).run();
        assert_eq!(output.status, Some(1), "{output:?}");
        assert!(
            !output.stderr.contains("hunter2") && !output.stderr.contains("WebSocket server"),
            "{output:?}"
        );
        output.stderr
    };
    let log = run(format!("redis://:wrong@127.0.0.1:{}", engine.port));
    assert!(log.contains("the user or the password in CLUSTER_URL is wrong"), "{log}");
    let log = run(format!("redis://127.0.0.1:{}", engine.port));
    assert!(log.contains("it requires a password"), "{log}");
    let old = OldEngine::start();
    let log = run(format!("redis://127.0.0.1:{}", old.port()));
    assert!(log.contains("its version is 6.2.14"), "{log}");

    // Another version of TinyChat has written what this one cannot read.
    let (mut nodes, _) = nodes::start(&engine, 1, &[]);
    nodes[0].stop();
    engine.call(&["HSET", "tinychat:meta", "format", "99"]);
    let log = run(engine.url());
    assert!(log.contains("uses format 99, and this program knows"), "{log}");
}

/// A server once continued with the room that it had, which had diverged from the chat.
#[test]
fn a_server_that_cannot_read_the_chat_any_more_ends() {
    let Some(engine) = Engine::start() else { return };
    let (mut nodes, _) = nodes::start(&engine, 2, &[]);
    let (mut ann, mut bob) = (nodes[0].join("Ann"), nodes[1].join("Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    nodes[1].proxy.cut();
    ann.public("hello");
    // What the second server would read next is only in the snapshot.
    let Value::String(epoch) = epoch(&nodes[0], "Cid").unwrap() else { panic!() };
    engine.call(&["XTRIM", "tinychat:log", "MAXLEN", "0"]);
    let snapshot = format!("tinychat-snapshot-1 {epoch} 1000 1 2 1:1\n99 {{}}");
    engine.call(&["SET", "tinychat:snapshot", &snapshot]);
    nodes[1].proxy.restore();
    assert_eq!(bob.close_code().map(u16::from), Some(RESTART));
    let (status, log) = nodes[1].wait();
    assert_eq!(status.code(), Some(1), "{log}");
    let error =
        "The chat of CLUSTER_URL cannot be used: snapshot format 99; this server knows up to 1: upgrade it";
    assert!(log.trim_end().ends_with(error), "{log}");
}

/// The user of the example has all permissions that a server needs, and no others.
#[test]
fn the_documented_user_is_enough() {
    let Some(engine) = Engine::start() else { return };
    let page = include_str!("../../docs/cluster.md");
    let user = page.lines().find_map(|line| line.strip_prefix("user tinychat ")).unwrap();
    let words: Vec<&str> = ["ACL", "SETUSER", "tinychat"].into_iter().chain(user.split(' ')).collect();
    engine.call(&words);
    let port = engine.port;
    let url = |name: &str| format!("redis://tinychat:PASSWORD@127.0.0.1:{port}{name}");
    // Data that is lost, or another database, require more commands.
    let servers = Servers::default();
    let mut node = Node::prepare(&engine, 1, &[("CLUSTER_URL", &url("/1"))], servers.clone());
    node.start_without_waiting();
    node.wait_until_running();
    let ann = Recorder::join("Ann", &servers, 0);
    ann.say(10);
    ann.settle();
    engine.call(&["FLUSHALL"]);
    ann.say(10);
    ann.settle();
    finish(vec![ann], std::slice::from_ref(&node));
    node.stop();
    let folder = Folder::new();
    let program = folder.tinychat(&[]).env("CLUSTER_URL", url("")).env("CLUSTER_NAME", "other");
    let output = program.env("DATABASE_PATH", "off").env("PORT", "0").run();
    assert!(output.status == Some(1) && output.stderr.contains("lacks a permission"), "{output:?}");
}

#[test]
fn the_documented_metrics_are_on_the_page() {
    let Some(engine) = Engine::start() else { return };
    let (nodes, _) = nodes::start(&engine, 1, &[]);
    let page = include_str!("../../docs/operations.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `tinychat_cluster_"));
    let documented: Vec<String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            format!("tinychat_cluster_{} {}", cells[0].split(['`', '{']).next().unwrap(), cells[1])
        })
        .collect();
    let metrics = nodes[0].get("/metrics");
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let printed: Vec<&str> = types.filter(|line| line.starts_with("tinychat_cluster_")).collect();
    assert_eq!(printed, documented);
    let summary = include_str!("../../docs/cluster.md").split("`tinychat_cluster_").skip(1);
    for name in summary.map(|rest| rest.split('`').next().unwrap()).filter(|name| !name.is_empty()) {
        assert!(metrics.contains(&format!("\ntinychat_cluster_{name} ")), "{name}");
    }
}

#[test]
fn a_server_without_the_engine_does_not_listen() {
    let Some(engine) = Engine::start() else { return };
    let port = ReservedPort::new();
    let servers = Servers::default();
    let mut node = Node::prepare(&engine, 1, &[("PORT", &port.number.to_string())], servers);
    node.proxy.cut();
    node.start_without_waiting();
    node.wait_for_line("Waiting for the chat: ");
    let refused = TcpStream::connect(port.address()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // It can be stopped while it waits, with status 0.
    node.stop();
    node.start_without_waiting();
    node.wait_for_line("Waiting for the chat: ");
    node.proxy.restore();
    node.wait_until_running();
    assert_eq!(node.health(), 200);
    let _ann = node.join("Ann");
}

#[test]
fn the_newest_store_fills_an_empty_engine() {
    let Some(engine) = Engine::start() else { return };
    let (mut nodes, servers) = nodes::start(&engine, 2, &[("DATABASE_PATH", "./tinychat.db")]);
    let ann = Recorder::join("Ann", &servers, 1);
    ann.say(20);
    ann.settle();
    let epoch = ann.record().epochs[0].clone();
    // What is said now is in one store.
    nodes[0].stop();
    ann.say(20);
    ann.settle();
    let record = ann.leave();
    nodes[1].stop();
    engine.call(&["FLUSHALL"]);
    nodes.iter_mut().for_each(Node::start_without_waiting);
    nodes.iter_mut().for_each(Node::wait_until_running);
    for node in &nodes {
        let kept = history(node.connect());
        assert_eq!(kept.len(), 40);
        assert_eq!(anomalies(std::slice::from_ref(&record), &kept), []);
    }
    // Ids go on; whether the epoch does is not promised.
    let later = Recorder::labelled("Ann", "later", &servers, 0);
    later.say(1);
    later.settle();
    let later = later.leave();
    println!("the epoch was {epoch}, and is {}", later.epochs[0]);
    assert!(later.acked[0].0 > record.acked.last().unwrap().0);
}

/// The store was once renamed although it held this chat.
#[test]
fn a_server_that_was_stopped_while_the_engine_lost_its_data_keeps_its_store() {
    let Some(engine) = Engine::start() else { return };
    let (mut nodes, servers) = nodes::start(&engine, 2, &[("DATABASE_PATH", "./tinychat.db"), FOREVER]);
    let ann = Recorder::join("Ann", &servers, 0);
    ann.say(10);
    ann.settle();
    nodes[1].stop();
    engine.call(&["FLUSHALL"]);
    ann.say(10);
    ann.settle();
    nodes[1].start_without_waiting();
    nodes[1].wait_until_running();
    assert_eq!(nodes[1].backups(), 0);
    let record = ann.leave();
    assert_eq!(anomalies(std::slice::from_ref(&record), &history(nodes[1].connect())), []);

    // A store with messages that the chat has lost is set aside.
    nodes[0].proxy.cut();
    let bob = Recorder::join("Bob", &servers, 1);
    bob.say(10);
    bob.settle();
    let lost = bob.leave();
    nodes[1].stop();
    engine.call(&["FLUSHALL"]);
    nodes[0].proxy.restore();
    let cid = Recorder::join("Cid", &servers, 0);
    cid.say(20);
    cid.settle();
    nodes[1].start_without_waiting();
    nodes[1].wait_for_line("held messages that the chat of CLUSTER_URL has lost");
    nodes[1].wait_until_running();
    assert_eq!(nodes[1].backups(), 1);
    let kept = history(nodes[1].connect());
    assert!(!lost.said.is_empty() && kept.iter().all(|line| line.from != "Bob"), "{kept:?}");
    assert_eq!(anomalies(&[cid.leave()], &kept), []);
}

/// A client that has joined on this server, and the answer, which has no messages.
fn enter(node: &Node, name: &str) -> (Client, Value) {
    enter_asking(node, name, json!({"history": 0}))
}

fn enter_asking(node: &Node, name: &str, options: Value) -> (Client, Value) {
    let mut client = node.connect();
    let answer = client.join_asking(name, options);
    assert_eq!(client.next_line(), format!("system: {name} joined."));
    (client, answer)
}

/// Clients that talk all the time, on each of the servers in turn.
fn talkers(servers: &Servers, count: usize) -> Vec<Recorder> {
    (0..count)
        .map(|number| {
            let talker = Recorder::join(&format!("t{number}"), servers, number);
            talker.talk(PACE);
            talker
        })
        .collect()
}

/// Lets the clients finish, and asserts that everyone has seen everything once, in one order, on all servers.
fn finish(talkers: Vec<Recorder>, nodes: &[Node]) -> Vec<Record> {
    let records = settle(talkers);
    for node in nodes {
        let mut found = anomalies(&records, &final_history(node));
        // The first ones show what happened.
        found.truncate(5);
        assert_eq!(found, [], "according to {}", node.name);
    }
    for record in &records {
        assert_eq!(record.errors, [] as [&str; 0], "{}", record.label);
        // A client that has to begin again reads its own lines once more.
        let acked: BTreeSet<&str> = record.acked.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(acked.len(), record.said.len(), "{}", record.label);
    }
    records
}

/// Waits until all clients have seen everything, and returns what they have recorded.
fn settle(talkers: Vec<Recorder>) -> Vec<Record> {
    talkers.iter().for_each(Recorder::be_silent);
    talkers.iter().for_each(Recorder::settle);
    talkers[0].say(1);
    talkers[0].settle();
    let last = talkers[0].record().said.last().unwrap().clone();
    talkers.iter().for_each(|talker| talker.wait_for_line(&last));
    talkers.into_iter().map(Recorder::leave).collect()
}

/// The epoch that a new client is told. `None`: its connection is closed instead.
fn epoch(node: &Node, name: &str) -> Option<Value> {
    let mut client = node.connect();
    client.send(json!({"type": "join", "username": name, "history": 0}));
    Some(next_page(&mut client)?["epoch"].clone())
}

/// All public messages that are kept and come from recording clients, oldest first.
fn history(client: Client) -> Vec<Line> {
    read_history(client).expect("the connection stays open")
}

/// The same, also if the server is about to close its connections because it was considered dead.
fn final_history(node: &Node) -> Vec<Line> {
    let mut attempts = (0..3).filter_map(|_| read_history(node.connect()));
    attempts.next().expect("the connection stays open")
}

/// `None`: the connection was closed.
fn read_history(mut client: Client) -> Option<Vec<Line>> {
    // A unique name: other servers may not know yet that an earlier reader has left.
    let name = format!("Reader{}", client.socket.get_ref().tcp().local_addr().unwrap().port());
    client.send(json!({"type": "join", "username": name, "history": 200}));
    let mut page = next_page(&mut client)?;
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let mut older = page["messages"].as_array().unwrap().clone();
        let before = older.first().map(|message| message["id"].clone());
        older.append(&mut messages);
        messages = older;
        match before {
            Some(before) if page["more"] == true => {
                client.send(json!({"type": "history", "before": before, "limit": 200}));
                page = next_page(&mut client)?;
            }
            _ => break,
        }
    }
    let text = |message: &Value, field: &str| message[field].as_str().unwrap().to_owned();
    let public = messages.iter().filter(|message| message["type"] == "public");
    let lines = public.map(|message| Line {
        id: id(message),
        from: text(message, "username"),
        text: text(message, "content"),
    });
    Some(lines.filter(|line| is_recorded(&line.text)).collect())
}

/// The next page of the history. `None`: the connection is closed instead.
fn next_page(client: &mut Client) -> Option<Value> {
    loop {
        match client.socket.read() {
            Ok(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "history" {
                    return Some(message);
                }
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            other => {
                println!("instead of a page: {other:?}");
                return None;
            }
        }
    }
}

/// Whether it is a line of a recording client.
fn is_recorded(text: &str) -> bool {
    text.rsplit_once(' ')
        .is_some_and(|(label, number)| !label.contains(' ') && number.parse::<usize>().is_ok())
}

/// Waits until this member is away.
fn wait_until_away(watcher: &mut Client, name: &str, since: Instant) {
    let away = format!("{name} away");
    while !watcher.users.contains(&away) {
        watcher.next_message();
    }
    let took = since.elapsed();
    println!("{name} was away after {took:?}");
    assert!(!is_long() || took <= AWAY_WITHIN, "{took:?}");
}

fn is_long() -> bool {
    std::env::var_os("TINYCHAT_CLUSTER_LONG").is_some()
}

/// How many entries wait in a server for the engine. `None`: it does not respond in time.
fn queue(node: &Node) -> Option<u64> {
    let page = node.get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix("tinychat_cluster_queue_entries "))?;
    Some(line.parse().unwrap())
}

/// The messages without the time of the server that has sent them.
fn without_timestamps(messages: &[Value]) -> Vec<Value> {
    let mut messages = messages.to_vec();
    messages.iter_mut().for_each(|message| drop(message.as_object_mut().unwrap().remove("timestamp")));
    messages
}

/// Implements enough of the protocol to report a version that is too old.
struct OldEngine(TcpListener);

impl OldEngine {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let accepting = listener.try_clone().unwrap();
        thread::spawn(move || {
            // Ends with the test process.
            for stream in accepting.incoming().map_while(Result::ok) {
                thread::spawn(move || answer_as_old(stream));
            }
        });
        Self(listener)
    }

    fn port(&self) -> u16 {
        let address: SocketAddr = self.0.local_addr().unwrap();
        address.port()
    }
}

/// Answers each command, which is an array of texts: `*2`, `$4`, `INFO`, and so on.
fn answer_as_old(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    while let Some(head) = lines.next() {
        let words: usize = head.trim_start_matches('*').parse().unwrap();
        let command: Vec<String> = (0..words).filter_map(|_| lines.nth(1)).collect();
        let info = "redis_version:6.2.14\r\nrole:master\r\n";
        let answer = match command.first().map(String::as_str) {
            Some("INFO") => format!("${}\r\n{info}\r\n", info.len()),
            _ => "+OK\r\n".into(),
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
