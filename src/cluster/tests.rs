//! Nodes on a real engine: Debian's redis-server. Without it, these tests do nothing, unless `TINYCHAT_ENGINE_TESTS` is
//! `required`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, unbounded};
use redis::Value;
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::outbox::{MAX_QUEUE_BYTES, MAX_QUEUE_ENTRIES};
use super::*;
use crate::chat::{HistoryLimits, KeptEntry, NodeNumber};
use crate::config::ClusterSettings;
use crate::tls::self_signed;

/// The engine is a process of its own on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// As in a server, but the first node does not wait for others.
const USUAL: Tuning = Tuning {
    beat: Duration::from_millis(300),
    lease: Duration::from_secs(8),
    pause: Duration::from_secs(1),
    claim: Duration::from_millis(100),
    snapshot_entries: 1000,
    snapshot_interval: Duration::from_millis(100),
    merge: Duration::from_millis(500),
    kept_entries: 2000,
};
/// For nodes that wait for others, which may be slow, after a restart of the engine.
const PATIENT: Tuning = Tuning { claim: Duration::from_secs(2), ..USUAL };
/// For nodes that are to be considered dead.
const SHORT_LEASE: Tuning = Tuning { lease: Duration::from_secs(2), ..USUAL };
const FORMATS: Formats = Formats { oldest: 1, newest: 1 };

#[test]
fn all_nodes_read_the_same_entries_in_the_same_order() {
    let Some(engine) = TestEngine::start() else { return };
    let mut nodes = [engine.node("a"), engine.node("b")];
    assert_ne!(nodes[0].node, nodes[1].node);
    assert_eq!(nodes[0].epoch, nodes[1].epoch);
    for number in 0..500 {
        nodes.iter_mut().for_each(|node| node.append(number));
    }
    nodes.iter_mut().for_each(|node| node.wait("all entries", |node| node.chat.len() == 1000));
    assert_eq!(nodes[0].chat, nodes[1].chat);
    nodes[0].assert_each_once(&[("a", 500), ("b", 500)]);
    let times: Vec<u64> = nodes[0].times.clone();
    assert!(times.is_sorted() && times[0] > 1_700_000_000_000, "{times:?}");

    let mut late = engine.node("c");
    late.wait("the log", |late| late.chat.len() == 1000);
    assert_eq!(late.chat, nodes[0].chat);
    nodes[0].wait_until_nothing_is_queued();
    assert_eq!(nodes[0].log.status().figures().lag_entries, 0);
}

#[test]
fn a_node_that_leaves_has_written_everything() {
    let Some(engine) = TestEngine::start() else { return };
    let (mut ann, mut bob) = (engine.node("a"), engine.node("b"));
    (0..2000).for_each(|number| ann.append(number));
    ann.log.leave();
    ann.wait("the end", |ann| ann.left.is_some());
    assert_eq!(ann.left, Some(true));
    let number = ann.node;
    bob.wait("the end of the other", |bob| bob.downs == [number]);
    bob.assert_each_once(&[("a", 2000)]);
    assert_eq!(ann.chat, bob.chat);
}

#[test]
fn time_passes_by_one_entry_for_all() {
    let Some(engine) = TestEngine::start() else { return };
    let mut nodes = [engine.node("a"), engine.node("b")];
    nodes[0].append(0);
    nodes.iter_mut().for_each(|node| node.wait("an entry", |node| node.chat.len() == 1));
    let at = nodes[0].times[0] + 200;
    nodes.iter().for_each(|node| node.log.tick(at));
    nodes.iter_mut().for_each(|node| node.wait("the time", |node| node.ticks > 0));
    nodes[1].append(0);
    nodes.iter_mut().for_each(|node| node.wait("an entry", |node| node.chat.len() == 2));
    for node in nodes {
        assert_eq!(node.ticks, 1);
        assert!(node.times[1] >= at, "{:?}", node.times);
    }
}

/// A member that was away once did not leave until somebody said something.
#[test]
fn time_that_passes_while_the_engine_is_filled_comes_with_an_entry() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node("a");
    ann.append(0);
    ann.wait("an entry", |ann| ann.chat.len() == 1);
    engine.call(&["FLUSHALL"]);
    ann.wait("the loss", |ann| ann.joined == 1);
    ann.log.tick(ann.times[0] + 1);
    ann.wait("the time", |ann| ann.ticks > 0);
}

/// Calls may have been executed although their answers were lost.
#[test]
fn entries_are_there_once_after_connections_were_cut() {
    let Some(engine) = TestEngine::start() else { return };
    let mut nodes = [engine.node("a"), engine.node("b")];
    let cut = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while cut.load(SeqCst) {
                engine.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                thread::sleep(Duration::from_millis(15));
            }
        });
        for number in 0..600 {
            nodes.iter_mut().for_each(|node| node.append(number));
            thread::sleep(Duration::from_millis(2));
        }
        cut.store(false, SeqCst);
    });
    nodes.iter_mut().for_each(|node| node.wait("all entries", |node| node.chat.len() >= 1200));
    assert_eq!(nodes[0].chat, nodes[1].chat);
    nodes[0].assert_each_once(&[("a", 600), ("b", 600)]);
    let reconnects = nodes[0].log.status().figures().reconnects;
    assert!(reconnects > 5, "{reconnects}");
    assert!(nodes.iter().all(|node| node.joined == 0 && node.fenced == 0));
}

#[test]
fn an_engine_that_is_killed_and_has_its_data_loses_nothing() {
    let Some(mut engine) = TestEngine::start() else { return };
    let mut nodes = [engine.node_with("a", PATIENT), engine.node_with("b", PATIENT)];
    let epoch = nodes[0].epoch.clone();
    for round in 0..3 {
        (0..100).for_each(|number| nodes.iter_mut().for_each(|node| node.append(round * 100 + number)));
        engine.kill();
        nodes.iter_mut().for_each(|node| node.append(round + 1000));
        engine.restart();
    }
    let [ann, bob] = &mut nodes;
    TestNode::wait_all(&mut [ann, bob], "all entries", |node| node.chat.len() == 606);
    assert_eq!(nodes[0].chat, nodes[1].chat);
    assert!(nodes.iter().all(|node| node.joined == 0 && node.fenced == 0 && node.epoch == epoch));
}

#[test]
fn an_engine_without_its_data_is_filled_with_the_newest_state() {
    let Some(mut engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let (mut ann, mut bob) = (engine.node("a"), engine.node_at(proxy.port, "b"));
    let (numbers, epoch) = ([ann.node, bob.node], ann.epoch.clone());
    ann.append(0);
    bob.append(0);
    ann.wait("two entries", |ann| ann.chat.len() == 2);
    bob.wait("two entries", |bob| bob.chat.len() == 2);
    proxy.cut(true);
    ann.append(1);
    ann.wait("the third entry", |ann| ann.chat.len() == 3);
    // It has been written nowhere.
    bob.append(1);
    engine.kill();
    engine.delete_data();
    engine.restart();
    proxy.cut(false);
    // Who claims first does not matter: the other's state is newer, or it joins later.
    ann.wait("the loss", |ann| ann.joined == 1);
    bob.wait("the loss", |bob| bob.joined == 1);
    assert_eq!(ann.epoch, bob.epoch);
    assert_ne!(ann.epoch, epoch);
    assert_eq!([ann.node, bob.node], numbers, "members keep their connections");
    ann.append(2);
    ann.wait("the rest", |ann| ann.chat.iter().any(|line| line == "a 2") && ann.chat.contains(&"b 1".into()));
    bob.wait("the rest", |bob| bob.chat.len() == ann.chat.len());
    assert_eq!(ann.chat, bob.chat);
    ann.assert_each_once(&[("a", 3), ("b", 2)]);
}

#[test]
fn flushall_on_an_idle_engine_is_noticed() {
    let Some(engine) = TestEngine::start() else { return };
    let mut nodes = [engine.node("a"), engine.node("b")];
    nodes[0].append(0);
    nodes.iter_mut().for_each(|node| node.wait("an entry", |node| node.chat.len() == 1));
    let epoch = nodes[0].epoch.clone();
    engine.call(&["FLUSHALL"]);
    nodes.iter_mut().for_each(|node| node.wait("the loss", |node| node.joined == 1));
    assert!(nodes[0].epoch == nodes[1].epoch && nodes[0].epoch != epoch);
    nodes.iter_mut().for_each(|node| node.append(1));
    nodes.iter_mut().for_each(|node| node.wait("the rest", |node| node.chat.len() == 3));
    assert_eq!(nodes[0].chat, nodes[1].chat);
    assert_eq!(engine.call(&["EXISTS", "tinychat:claims"]), Value::Int(0));
}

/// As after a failover to a replica that lagged.
#[test]
fn an_engine_that_has_lost_its_last_entries_is_filled_again() {
    let Some(engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let mut ann = engine.node_at(proxy.port, "a");
    (0..3).for_each(|number| ann.append(number));
    ann.wait("all entries", |ann| ann.chat.len() == 3);
    proxy.cut(true);
    engine.lose_last_entry(ann.node);
    proxy.cut(false);
    ann.wait("the loss", |ann| ann.joined == 1);
    ann.append(3);
    ann.wait("the rest", |ann| ann.chat.len() == 4);
    ann.assert_each_once(&[("a", 4)]);
    let mut bob = engine.node("b");
    bob.wait("the log", |bob| bob.chat.len() == 4);
    assert_eq!(bob.chat, ann.chat);
}

#[test]
fn another_entry_in_the_place_of_the_last_one_is_noticed() {
    let Some(engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let mut ann = engine.node_at(proxy.port, "a");
    (0..3).for_each(|number| ann.append(number));
    ann.wait("all entries", |ann| ann.chat.len() == 3);
    let epoch = ann.epoch.clone();
    proxy.cut(true);
    engine.lose_last_entry(ann.node);
    let mut bob = engine.node("b");
    bob.wait("a decision without the other", |bob| bob.joined == 1);
    bob.append(0);
    bob.wait("its entry", |bob| bob.chat.len() == 3);
    assert_eq!(bob.last_id, ann.last_id);
    proxy.cut(false);
    ann.wait("the chat", |ann| ann.joined == 1 && ann.chat.len() == 3);
    // The entry that only it had came too late, and its id now denotes another one.
    assert_eq!((&ann.chat, &ann.epoch), (&bob.chat, &bob.epoch));
    assert_ne!(ann.epoch, epoch);
    ann.assert_each_once(&[("a", 2), ("b", 1)]);
}

/// The first node to reconnect once continued a log that had lost its end, while others still had that end: there were
/// two logs, and one of them was discarded.
#[test]
fn nothing_is_appended_before_all_nodes_have_come_back() {
    let Some(mut engine) = TestEngine::start() else { return };
    let (one, two) = (Proxy::start(engine.port), Proxy::start(engine.port));
    let mut ann = engine.start_node(one.port, "a", PATIENT, FORMATS).unwrap();
    let mut bob = engine.start_node(two.port, "b", PATIENT, FORMATS).unwrap();
    ann.append(0);
    TestNode::wait_all(&mut [&mut ann, &mut bob], "an entry", |node| node.chat.len() == 1);
    one.cut(true);
    let size = engine.stored_bytes();
    bob.append(0);
    bob.wait("its entry", |bob| bob.chat.len() == 2);
    engine.kill();
    engine.truncate(size);
    ann.append(1);
    bob.append(1);
    two.cut(true);
    engine.restart();
    one.cut(false);
    ann.wait("that its state is asked for", |ann| ann.offers == 1);
    two.cut(false);
    TestNode::wait_all(&mut [&mut ann, &mut bob], "all entries", |node| node.chat.len() == 4);
    assert_eq!(ann.chat, bob.chat);
    ann.assert_each_once(&[("a", 2), ("b", 2)]);
}

/// Users were once not told of this outage, because the thread that reports outages was paused.
#[test]
fn users_are_told_that_the_nodes_wait_for_one_that_is_missing() {
    let Some(mut engine) = TestEngine::start() else { return };
    let tuning = Tuning { claim: Duration::from_secs(1), ..USUAL };
    let mut ann = engine.node_with("a", tuning);
    drop(engine.node_with("b", tuning));
    ann.append(0);
    ann.wait("an entry", |ann| ann.chat.len() == 1);
    engine.kill();
    engine.restart();
    ann.wait("a decision", |ann| ann.joined == 1);
    assert_eq!((ann.unavailable, ann.available), (1, 0), "once, and it lasts until the decision");
    ann.wait("that it is over", |ann| ann.available == 1);
    assert_eq!(ann.unavailable, 1);
}

/// A server would wait for them for ever, and not listen.
#[test]
fn a_starting_node_learns_that_entries_it_waits_for_are_lost() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node("a");
    (0..5).for_each(|number| ann.append(number));
    ann.log.leave();
    ann.wait("the end", |ann| ann.left.is_some());
    engine.call(&["HINCRBY", "tinychat:meta", "id", "1"]);
    let mut bob = engine.node("b");
    engine.call(&["HINCRBY", "tinychat:meta", "id", "-1"]);
    engine.call(&["HSET", "tinychat:meta", "run", "another"]);
    bob.wait("the news", |bob| bob.joined == 1 && bob.chat.len() == 5);
    bob.append(0);
    bob.wait("its entry", |bob| bob.chat.len() == 6);
}

/// A node that came later once continued as before, because the others had decided already.
#[test]
fn a_node_that_comes_after_the_decision_takes_the_chat_that_is_there() {
    let Some(mut engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let mut ann = engine.start_node(proxy.port, "a", USUAL, FORMATS).unwrap();
    let mut bob = engine.node("b");
    bob.append(0);
    TestNode::wait_all(&mut [&mut ann, &mut bob], "an entry", |node| node.chat.len() == 1);
    proxy.cut(true);
    engine.kill();
    engine.restart();
    bob.append(1);
    bob.wait("its entry", |bob| bob.chat.len() == 2);
    proxy.cut(false);
    ann.wait("its entry", |ann| ann.joined == 1 && ann.chat.len() == 2);
    assert_eq!((&ann.chat, &ann.epoch), (&bob.chat, &bob.epoch));
}

/// A server that was killed together with the engine once left ids to its clients that the others assigned again.
#[test]
fn ids_that_clients_may_have_seen_are_not_assigned_again() {
    let Some(mut engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let (mut ann, mut bob) = (engine.node("a"), engine.node_at(proxy.port, "b"));
    ann.append(0);
    bob.append(0);
    TestNode::wait_all(&mut [&mut ann, &mut bob], "both entries", |node| node.chat.len() == 2);
    let epoch = bob.epoch.clone();
    proxy.cut(true);
    let size = engine.stored_bytes();
    (1..10).for_each(|number| ann.append(number));
    ann.wait("its entries", |ann| ann.chat.len() == 11);
    drop(ann);
    engine.kill();
    engine.truncate(size);
    engine.restart();
    proxy.cut(false);
    bob.wait("a decision", |bob| bob.joined == 1);
    assert_ne!(bob.epoch, epoch);
    bob.append(1);
    bob.wait("its entry", |bob| bob.chat.last().is_some_and(|line| line == "b 1"));
}

/// Numbers that the engine had assigned and lost were once assigned again: entries of one node counted as those of
/// another, and a node that got its own number again had its entries in the log twice.
#[test]
fn node_numbers_are_not_assigned_twice() {
    let Some(mut engine) = TestEngine::start() else { return };
    let size = engine.stored_bytes();
    let mut nodes = [engine.node("a"), engine.node("b"), engine.node("c")];
    let numbers = nodes.each_ref().map(|node| node.node);
    engine.kill();
    engine.truncate(size);
    nodes.iter_mut().for_each(|node| node.append(0));
    engine.restart();
    let [ann, bob, eve] = &mut nodes;
    let mut nodes = [ann, bob, eve];
    TestNode::wait_all(&mut nodes, "the loss", |node| node.joined > 0);
    for (node, number) in nodes.iter_mut().zip(numbers) {
        assert_ne!(node.node, number, "{} has appended nothing that the chat has", node.name);
        node.append(1);
    }
    TestNode::wait_all(&mut nodes, "all entries", |node| node.chat.len() == 3);
    assert_eq!(nodes[0].chat, nodes[1].chat);
    assert_eq!(nodes[0].chat, nodes[2].chat);
}

#[test]
fn nobody_is_considered_dead_because_the_engine_was_paused() {
    let Some(engine) = TestEngine::start() else { return };
    let mut nodes = [engine.node_with("a", SHORT_LEASE), engine.node_with("b", SHORT_LEASE)];
    nodes.iter_mut().for_each(|node| node.append(0));
    nodes.iter_mut().for_each(|node| node.wait("both entries", |node| node.chat.len() == 2));
    engine.signal(Signal::STOP);
    nodes.iter_mut().for_each(|node| node.append(1));
    nodes.iter_mut().for_each(|node| node.wait("the pause", |node| node.unavailable == 1));
    thread::sleep(2 * SHORT_LEASE.lease);
    engine.signal(Signal::CONT);
    nodes.iter_mut().for_each(|node| node.wait("the end of the pause", |node| node.available == 1));
    nodes.iter_mut().for_each(|node| node.wait("all entries", |node| node.chat.len() == 4));
    assert_eq!(nodes[0].chat, nodes[1].chat);
    for node in nodes {
        assert_eq!((node.joined, node.fenced, node.downs.len()), (0, 0, 0));
    }
}

/// The first one that joined after a pause of the engine once had all others considered dead.
#[test]
fn a_node_that_joins_after_a_pause_ends_no_others() {
    let Some(engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let ann = engine.start_node(proxy.port, "a", SHORT_LEASE, FORMATS).unwrap();
    proxy.cut(true);
    thread::sleep(2 * SHORT_LEASE.lease);
    let mut bob = engine.node_with("b", Tuning { lease: PATIENCE, ..USUAL });
    bob.append(0);
    bob.wait("its entry", |bob| bob.chat.len() == 1);
    assert_eq!((bob.last_id, bob.downs.len()), (1, 0), "{} has not ended", ann.node);
}

#[test]
fn a_node_that_is_cut_off_is_ended_and_comes_back_as_another() {
    let Some(engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let mut ann = engine.node_with("a", SHORT_LEASE);
    let mut bob = engine.start_node(proxy.port, "b", SHORT_LEASE, FORMATS).unwrap();
    let (first, epoch) = (bob.node, bob.epoch.clone());
    bob.append(0);
    ann.wait("the entry", |ann| ann.chat.len() == 1);
    bob.wait("the entry", |bob| bob.chat.len() == 1);
    proxy.cut(true);
    bob.append(1);
    ann.wait("the end of the other", |ann| ann.downs == [first]);
    bob.wait("that the engine is away", |bob| bob.unavailable == 1);
    proxy.cut(false);
    bob.wait("its end", |bob| bob.joined == 1);
    assert!(bob.fenced == 1 && bob.node != first && bob.epoch == epoch && bob.offers == 0);
    bob.append(2);
    bob.wait("its entry", |bob| bob.chat.len() == 2);
    ann.wait("its entry", |ann| ann.chat.len() == 2);
    // What it had appended under its old number is lost: its clients were told so.
    assert_eq!((&ann.chat, &bob.chat), (&vec!["b 0".into(), "b 2".into()], &ann.chat.clone()));
    assert_eq!(bob.downs, [first]);
    bob.wait_until_nothing_is_queued();
}

/// A master that has been replaced, and is still there: its connections seem to be healthy, and nothing comes
/// (centrifugo#1189).
#[test]
fn a_connection_to_a_server_that_was_replaced_is_noticed() {
    let Some(old) = TestEngine::start() else { return };
    let Some(new) = TestEngine::start() else { return };
    let proxy = Proxy::start(old.port);
    let mut ann = old.node_at(proxy.port, "a");
    ann.append(0);
    ann.wait("an entry", |ann| ann.chat.len() == 1);
    new.call(&["REPLICAOF", "127.0.0.1", &old.port.to_string()]);
    let deadline = Instant::now() + PATIENCE;
    while new.call(&["EXISTS", "tinychat:log"]) != Value::Int(1) {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20));
    }
    new.call(&["REPLICAOF", "NO", "ONE"]);
    // Only the connection that writes is made anew.
    proxy.lead_to(new.port);
    let clients = old.call(&["CLIENT", "LIST", "TYPE", "normal"]);
    let clients = engine::text(&clients).unwrap();
    for client in clients.lines().filter(|client| client.contains(" cmd=evalsha")) {
        let id = client.strip_prefix("id=").unwrap().split(' ').next().unwrap();
        old.call(&["CLIENT", "KILL", "ID", id]);
    }
    ann.append(1);
    ann.wait("the entry", |ann| ann.chat.len() == 2);
    ann.assert_each_once(&[("a", 2)]);
    ann.wait("the other server", |ann| ann.available == ann.unavailable);
    assert_eq!(ann.joined, 0);
    // The old one has nothing of it.
    assert_ne!(old.call(&["HGET", "tinychat:meta", "id"]), new.call(&["HGET", "tinychat:meta", "id"]));
}

#[test]
fn an_engine_that_has_no_memory_is_unavailable() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node("a");
    engine.call(&["CONFIG", "SET", "maxmemory", "1"]);
    ann.append(0);
    ann.wait("that it is full", |ann| ann.unavailable == 1);
    assert!(ann.chat.is_empty());
    engine.call(&["CONFIG", "SET", "maxmemory", "0"]);
    ann.wait("the entry", |ann| ann.chat.len() == 1 && ann.available == 1);
}

#[test]
fn a_slow_line_is_not_an_outage() {
    let Some(engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    proxy.delay(Duration::from_millis(200));
    let mut nodes = [engine.node_at(proxy.port, "a"), engine.node_at(proxy.port, "b")];
    for number in 0..1000 {
        nodes.iter_mut().for_each(|node| node.append(number));
    }
    nodes.iter_mut().for_each(|node| node.wait("all entries", |node| node.chat.len() == 2000));
    assert_eq!(nodes[0].chat, nodes[1].chat);
    for node in nodes {
        node.assert_each_once(&[("a", 1000), ("b", 1000)]);
        assert_eq!((node.unavailable, node.fenced), (0, 0));
    }
}

#[test]
fn a_trimmed_log_has_what_a_starting_node_needs() {
    let Some(engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let mut ann = engine.node_with("a", SHORT_LEASE);
    let mut bob = engine.start_node(proxy.port, "b", SHORT_LEASE, FORMATS).unwrap();
    bob.append(0);
    bob.wait("its entry", |bob| bob.chat.len() == 1);
    proxy.cut(true);
    let count = 6000;
    for number in 0..count {
        ann.append(number);
    }
    ann.wait("all entries", |ann| ann.chat.len() == count + 1);
    ann.wait("a snapshot", |ann| ann.log.status().figures().snapshot_age_entries < 1000);
    let Value::Int(length) = engine.call(&["XLEN", "tinychat:log"]) else { panic!() };
    assert!((2000..5000).contains(&length), "{length} entries are in the log");

    let mut late = engine.node("c");
    late.wait("the log", |late| late.chat.len() == count + 1);
    assert_eq!(late.chat, ann.chat);
    // What this one would read next has been trimmed.
    proxy.cut(false);
    bob.wait("a snapshot", |bob| bob.chat.len() == count + 1);
    assert_eq!(bob.chat, ann.chat);
    assert_eq!(bob.offers, 0);
}

#[test]
fn the_queue_is_bounded_and_is_written_when_the_engine_is_back() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node("a");
    ann.append(0);
    ann.wait("the entry", |ann| ann.chat.len() == 1);
    ann.wait_until_nothing_is_queued();
    engine.signal(Signal::STOP);
    let mut count = 1;
    while ann.log.has_room() {
        ann.append(count);
        count += 1;
    }
    assert_eq!(count, MAX_QUEUE_ENTRIES + 1);
    engine.signal(Signal::CONT);
    ann.wait("all entries", |ann| ann.chat.len() == count);
    ann.assert_each_once(&[("a", count)]);
    engine.signal(Signal::STOP);
    let entry = vec![b'x'; 1024 * 1024];
    let mut appended = 0;
    while ann.log.has_room() {
        ann.log.append(entry.clone());
        appended += 1;
    }
    assert_eq!(appended, MAX_QUEUE_BYTES / entry.len());
    engine.signal(Signal::CONT);
    ann.wait("the long entries", |ann| ann.chat.len() == count + appended);
    ann.wait_until_nothing_is_queued();
    assert!(ann.log.has_room());
}

#[test]
fn the_newest_of_two_stores_fills_an_empty_engine() {
    let Some(engine) = TestEngine::start() else { return };
    let claim = Tuning { claim: Duration::from_secs(1), ..USUAL };
    let start = |name: &'static str, rank: Rank, line: &'static str| {
        let own = OwnState { rank, chat: line.into() };
        let settings = settings(&engine.url(engine.port), name, claim, FORMATS);
        thread::spawn(move || TestNode::join(&settings, name, own).unwrap())
    };
    let starting = [
        start("a", Rank::Stored(7), "old"),
        start("b", Rank::Stored(9), "new"),
        start("c", Rank::Nothing, ""),
    ];
    let mut nodes = starting.map(|node| node.join().unwrap());
    nodes[0].append(0);
    for node in &mut nodes {
        node.wait("an entry", |node| node.chat.len() == 2);
        assert_eq!(node.chat, ["new", "a 0"]);
        assert_eq!(node.last_id, 10);
    }
}

#[test]
fn versions_with_a_common_format_run_side_by_side() {
    let Some(engine) = TestEngine::start() else { return };
    let start =
        |name, oldest, newest| engine.start_node(engine.port, name, USUAL, Formats { oldest, newest });
    let mut old = start("a", 1, 1).unwrap();
    let mut new = start("b", 1, 2).unwrap();
    assert_eq!((old.format, new.format), (1, 1));
    let error = start("c", 2, 3).err().unwrap().to_string();
    assert!(error.contains("uses format 1, and this program knows 2 to 3"), "{error}");
    // The new one, which may fill the engine, once prevented the old one from continuing.
    for node in [&mut old, &mut new] {
        node.append(0);
        node.wait("its entry", |node| !node.chat.is_empty());
    }
    engine.call(&["FLUSHALL"]);
    TestNode::wait_all(&mut [&mut old, &mut new], "the loss", |node| node.joined == 1);
    assert_eq!((old.unusable.as_deref(), old.format, new.format), (None, 1, 1));
    old.log.leave();
    old.wait("the end", |old| old.left.is_some());
    new.wait("the new format", |new| new.format == 2);
    let error = start("d", 1, 1).err().unwrap().to_string();
    assert!(error.contains("uses format 2, and this program knows 1 to 1"), "{error}");
    assert_eq!(start("e", 2, 3).unwrap().format, 2);
}

/// It once tried again and again, and only logged that.
#[test]
fn a_node_ends_when_it_cannot_read_the_chat_any_more() {
    let Some(engine) = TestEngine::start() else { return };
    let proxy = Proxy::start(engine.port);
    let mut old = engine.start_node(proxy.port, "a", SHORT_LEASE, FORMATS).unwrap();
    let mut new = engine.start_node(engine.port, "b", SHORT_LEASE, Formats { oldest: 1, newest: 2 }).unwrap();
    proxy.cut(true);
    new.wait("the new format", |new| new.format == 2);
    proxy.cut(false);
    old.wait("the end", |old| old.left == Some(false));
    assert!(old.unusable.unwrap().contains("uses format 2, and this program knows 1 to 1"));

    let mut late =
        engine.start_node(engine.port, "c", SHORT_LEASE, Formats { oldest: 1, newest: 2 }).unwrap();
    new.append(0);
    late.wait("the entry", |late| late.chat.len() == 1);
    engine.call(&["SET", "tinychat:snapshot", "something else"]);
    engine.call(&["HSET", "tinychat:meta", "epoch", "another"]);
    late.wait("the end", |late| late.left == Some(false));
    assert!(late.unusable.unwrap().contains("its snapshot of the chat cannot be read"));
}

#[test]
fn an_engine_that_cannot_be_used_prevents_the_start() {
    let Some(engine) = TestEngine::start() else { return };
    let refused = |url: &str| {
        let own = OwnState { rank: Rank::Nothing, chat: Vec::new() };
        let error = TestNode::join(&settings(url, "a", USUAL, FORMATS), "a", own).err().unwrap().to_string();
        assert!(!error.contains("hunter"), "{error}");
        error
    };
    let port = engine.port;
    let error = refused(&format!("redis://:hunter3@127.0.0.1:{port}"));
    assert!(error.contains("the user or the password in CLUSTER_URL is wrong"), "{error}");
    engine.call(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let error = refused(&format!("redis://127.0.0.1:{port}"));
    assert!(error.contains("requires a password"), "{error}");
    let error = refused(&format!("redis://ann:hunter2@127.0.0.1:{port}"));
    assert!(error.contains("is wrong"), "{error}");
    let url = format!("redis://:hunter2@127.0.0.1:{port}");
    let own = OwnState { rank: Rank::Nothing, chat: Vec::new() };
    let node = TestNode::join(&settings(&url, "a", USUAL, FORMATS), "a", own).unwrap();

    let connection = redis::Client::open(url.as_str()).unwrap().get_connection();
    let call = |words: &[&str]| {
        let mut connection = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query::<Value>(&mut connection).unwrap()
    };
    drop((node, connection));
    call(&["SET", "tinychat:snapshot", "something else"]);
    assert!(refused(&url).contains("its snapshot of the chat cannot be read"));
    call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(refused(&url).contains("set maxmemory-policy noeviction"));
    call(&["ACL", "SETUSER", "bob", "on", ">hunter4", "~other:*", "+@all"]);
    call(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let error = refused(&format!("redis://bob:hunter4@127.0.0.1:{port}"));
    assert!(error.contains("lacks a permission"), "{error}");
}

/// The permissions that are needed, and no others.
#[test]
fn a_user_with_few_permissions_is_sufficient() {
    let Some(engine) = TestEngine::start() else { return };
    let rules = "on >hunter2 ~tinychat:* +@read +@write +@scripting -@dangerous +info +time";
    let words: Vec<&str> = ["ACL", "SETUSER", "ann"].into_iter().chain(rules.split(' ')).collect();
    engine.call(&words);
    engine.call(&["ACL", "SETUSER", "default", "off"]);
    let url = format!("redis://ann:hunter2@127.0.0.1:{}", engine.port);
    let start = |name| {
        let own = OwnState { rank: Rank::Nothing, chat: Vec::new() };
        TestNode::join(&settings(&url, name, USUAL, FORMATS), name, own).unwrap()
    };
    let (mut ann, mut bob) = (start("a"), start("b"));
    let count = 1500;
    (0..count).for_each(|number| ann.append(number));
    ann.wait("a snapshot", |ann| {
        ann.log.status().figures().snapshot_age_entries < 1000 && ann.chat.len() == count
    });
    ann.log.tick(ann.times[count - 1] + 100);
    ann.wait("the time", |ann| ann.ticks == 1);
    ann.log.leave();
    ann.wait("the end", |ann| ann.left == Some(true));
    bob.wait("the end of the other", |bob| bob.downs.len() == 1);
    assert_eq!((ann.unavailable, bob.unavailable), (0, 0));
}

#[test]
fn a_node_waits_for_an_engine_that_is_down() {
    let Some(mut engine) = TestEngine::start() else { return };
    engine.kill();
    let settings = settings(&engine.url(engine.port), "a", USUAL, FORMATS);
    let own = OwnState { rank: Rank::Nothing, chat: Vec::new() };
    let starting = thread::spawn(move || TestNode::join(&settings, "a", own).unwrap());
    thread::sleep(Duration::from_millis(500));
    assert!(!starting.is_finished());
    engine.restart();
    let mut node = starting.join().unwrap();
    node.append(0);
    node.wait("an entry", |node| node.chat.len() == 1);
}

/// The test calls itself, because the variable must be set before the process starts.
#[test]
fn a_private_ca_is_trusted_through_ssl_cert_file() {
    if let Ok(url) = std::env::var("TINYCHAT_TEST_TLS_URL") {
        let own = OwnState { rank: Rank::Nothing, chat: Vec::new() };
        let mut node = TestNode::join(&settings(&url, "a", USUAL, FORMATS), "a", own).unwrap();
        node.append(0);
        node.wait("an entry", |node| node.chat.len() == 1);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    let request = self_signed::Request {
        cert: cert.clone(),
        key: key.clone(),
        days: 2,
        host: "localhost".into(),
        force: false,
    };
    self_signed::generate(&request).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let tls = ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no"];
    let Some(engine) = TestEngine::start_with(&tls) else { return };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cluster::tests::a_private_ca_is_trusted_through_ssl_cert_file"])
        .env("TINYCHAT_TEST_TLS_URL", format!("rediss://127.0.0.1:{}", engine.tls_port))
        .env("SSL_CERT_FILE", cert)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
fn any_node_writes_the_history_and_reads_pages_of_it() {
    let Some(engine) = TestEngine::start() else { return };
    let (mut ann, mut bob) = (engine.node("a"), engine.node("b"));
    ann.keep(0, 1..=4, LIMITS);
    bob.keep(0, 1..=6, LIMITS);
    let page = |node: &mut TestNode, before, count| node.page(before, 6, count).unwrap();
    // Nodes write at once what a page needs.
    assert_eq!(page(&mut bob, 6, 3), (vec![5, 4, 3], true));
    assert_eq!(page(&mut bob, 3, 3), (vec![2, 1], false));
    for node in [&ann, &bob] {
        node.log.keep(Change::Delete { at: 7, id: 5 });
    }
    bob.wait("the deletion", |_| engine.history() == [1, 2, 3, 4, 6]);
    // A node that lacks earlier changes does not write later ones.
    let mut cid = engine.node("c");
    cid.keep(9, 10..=12, LIMITS);
    assert_eq!(cid.page(100, 12, 3), None);
    bob.log.keep(Change::Add(message(9)));
    assert_eq!(bob.page(10, 9, 2), Some((vec![9, 6], true)));
    cid.wait("its messages", |_| engine.history() == [1, 2, 3, 4, 6, 9, 10, 11, 12]);
    // More than the engine reads at once.
    (13..=60).for_each(|id| bob.log.keep(Change::Add(message(id))));
    assert_eq!(bob.page(61, 60, 40), Some(((21..=60).rev().collect(), true)));
    assert_eq!(bob.page(61, 60, 90).map(|(ids, more)| (ids.len(), more)), Some((57, false)));
}

#[test]
fn the_history_is_limited_in_messages_and_age() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node("a");
    ann.keep(0, 1..=5, HistoryLimits { messages: 3, age_millis: None });
    assert_eq!(ann.page(4, 3, 9), Some((vec![3], false)));
    assert_eq!(engine.history(), [3, 4, 5]);
    // Messages in memory count towards the limit: the history may have one more.
    let query = HistoryQuery { kept: 1, ..ann.query(6, 5, 9) };
    let page = ann.history.page(&query, Instant::now()).unwrap().unwrap();
    assert_eq!((ids(&page), page.more), (vec![5], false));
    let mut bob = engine.node("b");
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let mut messages: Vec<KeptEntry> = (6..9).map(message).collect();
    messages[2].unix_millis = now;
    bob.log.history(5, messages, Vec::new(), HistoryLimits { messages: 100, age_millis: Some(60_000) });
    bob.wait("the deletion of old messages", |_| engine.history() == [8]);
}

#[test]
fn after_the_engine_was_filled_nodes_add_what_it_lacks() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node_with("a", Tuning { merge: PATIENCE, ..USUAL });
    ann.keep(7, 8..=9, LIMITS);
    // Messages are only added once newer ones are written, which may be the case by now.
    assert!(!ann.merge(20, &[message(7)], false) || engine.history().contains(&8));
    ann.wait("its messages", |_| engine.history().ends_with(&[8, 9]));
    assert!(ann.merge(20, &[message(7), message(5), message(12)], false));
    assert_eq!(engine.history(), [5, 7, 8, 9]);
    assert_eq!(ann.page(8, 7, 1), Some((vec![7], true)));
    assert_eq!(ann.page(6, 7, 1), None, "more may be added");
    let so_far = ann.history.page_so_far(&ann.query(6, 7, 2)).unwrap();
    assert_eq!((ids(&so_far), so_far.is_complete), (vec![5], false));
    // A message that was deleted after the store was read does not come back.
    ann.log.keep(Change::Delete { at: 21, id: 5 });
    ann.wait("the deletion", |_| engine.history() == [7, 8, 9]);
    assert!(ann.merge(20, &[message(5), message(4)], false));
    assert_eq!(engine.history(), [4, 7, 8, 9]);
    // After 100 more deletions, the engine no longer remembers that one.
    (22..=121).for_each(|at| ann.log.keep(Change::Delete { at, id: 1000 + at }));
    ann.wait("the deletions", |_| engine.call(&["HGET", "tinychat:meta", "forgotten"]) != Value::Nil);
    assert!(!ann.merge(20, &[message(5), message(3)], false));
    assert!(ann.merge(21, &[message(3)], true));
    assert_eq!(engine.history(), [3, 4, 7, 8, 9]);
    assert_eq!(ann.page(6, 7, 2), Some((vec![4, 3], false)));
    // If it is unknown whose history it is, it is removed.
    engine.call(&["DEL", "tinychat:meta"]);
    ann.wait("the loss", |ann| ann.joined == 1);
    assert!(engine.history().is_empty());
}

/// As after a restart with `appendfsync everysec`.
#[test]
fn what_the_engine_has_lost_of_the_history_is_written_again() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node("a");
    ann.keep(0, 1..=5, LIMITS);
    assert_eq!(ann.page(9, 5, 9), Some((vec![5, 4, 3, 2, 1], false)));
    for id in ["4", "5"] {
        engine.call(&["ZREMRANGEBYSCORE", "tinychat:history", id, id]);
    }
    engine.call(&["HSET", "tinychat:meta", "kept", "3"]);
    ann.wait("what was lost", |_| engine.history() == [1, 2, 3, 4, 5]);
    // More than the node has in memory, and a deletion.
    ann.deleted.push(2);
    engine.call(&["HSET", "tinychat:meta", "kept", "2"]);
    engine.call(&["ZREMRANGEBYSCORE", "tinychat:history", "3", "5"]);
    ann.kept = 5..=5;
    ann.wait("what is left", |_| engine.history() == [1, 5]);
}

#[test]
fn a_history_to_which_no_node_adds_is_complete() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node("a");
    ann.keep(7, 8..=9, LIMITS);
    ann.wait("its end", |ann| {
        let query = ann.query(8, 7, 2);
        let mut history = ann.history.another();
        history.page_so_far(&query).is_some_and(|page| page.is_complete && page.messages.is_empty())
    });
}

/// A node once started from a snapshot that lacked what the history did not have yet.
#[test]
fn what_a_snapshot_lacks_is_in_the_history() {
    let Some(engine) = TestEngine::start() else { return };
    let mut ann = engine.node("a");
    ann.keep(0, 1..=3, LIMITS);
    assert!(engine.history().is_empty());
    (0..1100).for_each(|number| ann.append(number));
    ann.wait("a snapshot", |ann| {
        let is_stored = ann.log.status().figures().snapshot_age_entries < 1000 && ann.chat.len() == 1100;
        assert!(!is_stored || engine.history() == [1, 2, 3]);
        is_stored
    });
}

const LIMITS: HistoryLimits = HistoryLimits { messages: 100, age_millis: None };

fn message(id: u64) -> KeptEntry {
    KeptEntry { id, unix_millis: 1000, json: b"{}"[..].into(), txn_id: None }
}

fn ids(page: &HistoryPage) -> Vec<u64> {
    page.messages.iter().map(|message| message.id).collect()
}

/// What a server would be: it applies entries to a chat of lines.
struct TestNode {
    name: &'static str,
    log: SharedLog,
    history: History,
    events: Receiver<Event>,
    node: NodeNumber,
    epoch: String,
    format: u32,
    last_id: u64,
    chat: Vec<String>,
    /// Of the entries in the chat, as far as they were read from the log.
    times: Vec<u64>,
    ticks: usize,
    downs: Vec<NodeNumber>,
    offers: usize,
    fenced: usize,
    joined: usize,
    unavailable: usize,
    available: usize,
    unusable: Option<String>,
    left: Option<bool>,
    /// The messages that it has in memory.
    kept: RangeInclusive<u64>,
    deleted: Vec<u64>,
}

impl TestNode {
    fn join(settings: &NodeSettings, name: &'static str, own: OwnState) -> Result<Self, ClusterError> {
        let (sender, events) = unbounded();
        let mut chat = lines(&own.chat);
        // A test may have ended.
        let (joined, log, history) = join(settings, || own, move |event| drop(sender.send(event)))?;
        if let Some(state) = &joined.state {
            chat = lines(&state.chat);
        }
        Ok(Self {
            name,
            log,
            history,
            events,
            node: joined.node,
            epoch: joined.epoch,
            format: joined.format,
            last_id: joined.id,
            chat,
            times: Vec::new(),
            ticks: 0,
            downs: Vec::new(),
            offers: 0,
            fenced: 0,
            joined: 0,
            unavailable: 0,
            available: 0,
            unusable: None,
            left: None,
            kept: 0..=0,
            deleted: Vec::new(),
        })
    }

    fn append(&mut self, number: usize) {
        self.log.append(format!("{} {number}", self.name).into());
    }

    /// It has these messages in memory, and all up to `base` are written.
    fn keep(&mut self, base: u64, ids: RangeInclusive<u64>, limits: HistoryLimits) {
        self.kept = ids.clone();
        self.log.history(base, ids.map(message).collect(), self.deleted.clone(), limits);
    }

    fn query(&self, before: u64, last_evicted: u64, count: usize) -> HistoryQuery {
        let epoch = self.epoch.as_str().into();
        HistoryQuery { epoch, before, last_evicted, kept: 100, count, bytes: 10_000, max_age: None }
    }

    /// The ids of a page, and whether there are older messages.
    fn page(&mut self, before: u64, last_evicted: u64, count: usize) -> Option<(Vec<u64>, bool)> {
        let (query, asked) = (self.query(before, last_evicted, count), Instant::now());
        loop {
            match self.history.page(&query, asked) {
                Ok(Some(page)) => return Some((ids(&page), page.more)),
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Err(_) => return None,
            }
        }
    }

    fn merge(&mut self, applied: u64, messages: &[KeptEntry], is_last: bool) -> bool {
        self.history.merge(&self.epoch, applied, messages, is_last)
    }

    fn wait(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_done(self) {
            let event = self.events.recv_timeout(Duration::from_millis(50));
            assert!(
                Instant::now() < deadline,
                "{} waits for {what}; it has {} lines",
                self.name,
                self.chat.len()
            );
            if let Ok(event) = event {
                self.handle(event);
            }
        }
    }

    /// The same for several nodes, which all continue meanwhile.
    fn wait_all(nodes: &mut [&mut Self], what: &str, is_done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !nodes.iter().all(|node| is_done(node)) {
            for node in &mut *nodes {
                assert!(Instant::now() < deadline, "{} waits for {what}", node.name);
                if let Ok(event) = node.events.recv_timeout(Duration::from_millis(10)) {
                    node.handle(event);
                }
            }
        }
    }

    fn wait_until_nothing_is_queued(&mut self) {
        self.wait("an empty queue", |node| {
            let figures = node.log.status().figures();
            (figures.queue_entries, figures.queue_bytes) == (0, 0)
        });
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Entries(entries) => entries.iter().for_each(|entry| self.apply(entry)),
            Event::Unavailable => self.unavailable += 1,
            Event::Available => self.available += 1,
            Event::OfferDue => {
                self.offers += 1;
                let chat = self.encoded();
                self.log.offer(|| Some(chat));
            }
            Event::Fenced => self.fenced += 1,
            Event::Joined(joined) => {
                self.joined += 1;
                self.log.adopt(&joined);
                (self.node, self.epoch, self.format) = (joined.node, joined.epoch, joined.format);
                if let Some(state) = joined.state {
                    (self.chat, self.last_id) = (lines(&state.chat), joined.id);
                }
            }
            Event::Format(format) => self.format = format,
            Event::HistoryDue => self.keep(*self.kept.start() - 1, self.kept.clone(), LIMITS),
            Event::SnapshotDue => {
                let chat = self.encoded();
                self.log.snapshot(|| Some(chat));
            }
            Event::Unusable(error) => self.unusable = Some(error.to_string()),
            Event::Left(has_left) => self.left = Some(has_left),
        }
    }

    fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.id, self.last_id + 1);
        self.last_id = entry.id;
        self.log.applied(entry);
        match &entry.content {
            Content::Data { data, .. } => {
                self.chat.push(String::from_utf8_lossy(data).into());
                self.times.push(entry.time);
            }
            Content::NodeDown(node) => self.downs.push(*node),
            Content::Tick => self.ticks += 1,
        }
    }

    fn encoded(&self) -> Vec<u8> {
        self.chat.join("\n").into()
    }

    /// Asserts that each node's lines are there once, in their order.
    fn assert_each_once(&self, counts: &[(&str, usize)]) {
        let mut next: BTreeMap<&str, usize> = BTreeMap::new();
        for line in &self.chat {
            let (name, number) = line.split_once(' ').unwrap();
            let expected = next.entry(name).or_default();
            assert_eq!(number.parse(), Ok(*expected), "{name}");
            *expected += 1;
        }
        assert_eq!(next, counts.iter().copied().collect());
    }
}

fn lines(chat: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(chat).lines().map(str::to_owned).collect()
}

fn settings(url: &str, name: &str, tuning: Tuning, formats: Formats) -> NodeSettings {
    let cluster = ClusterSettings {
        url: url.parse().unwrap(),
        name: "tinychat".parse().unwrap(),
        node: Some(name.parse().unwrap()),
    };
    NodeSettings { cluster, formats, tuning }
}

/// A redis-server, which is killed at the end of the test.
struct TestEngine {
    process: Child,
    arguments: Vec<String>,
    port: u16,
    tls_port: u16,
    /// Keep the ports for a restart.
    _ports: [Socket; 2],
    folder: TempDir,
}

impl TestEngine {
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// `tls`: its settings, for a second port.
    fn start_with(tls: &[&str]) -> Option<Self> {
        if !is_installed() {
            assert_ne!(std::env::var("TINYCHAT_ENGINE_TESTS").ok().as_deref(), Some("required"));
            eprintln!("skipped: redis-server is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (reserved, tls_reserved) = (reserve_port(), reserve_port());
        let [port, tls_port] = [&reserved, &tls_reserved].map(port_of);
        let (port_text, tls_text) = (port.to_string(), tls_port.to_string());
        let dir = folder.path().to_str().unwrap();
        let mut arguments = vec!["--port", &port_text, "--bind", "127.0.0.1", "--dir", dir, "--save", ""];
        // With "everysec", it may acknowledge writes up to two seconds before the operating system gets them.
        arguments.extend(["--appendonly", "yes", "--appendfsync", "no", "--daemonize", "no"]);
        if !tls.is_empty() {
            arguments.extend(["--tls-port", &tls_text]);
            arguments.extend(tls);
        }
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let process = spawn(&arguments);
        let ports = [reserved, tls_reserved];
        let mut engine = Self { process, arguments, port, tls_port, _ports: ports, folder };
        assert!(engine.wait_until_ready(), "redis-server does not start");
        Some(engine)
    }

    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.process.try_wait().unwrap().is_none() {
            if self.try_call(&["PING"]).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn url(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}")
    }

    fn node(&self, name: &'static str) -> TestNode {
        self.node_with(name, USUAL)
    }

    fn node_at(&self, port: u16, name: &'static str) -> TestNode {
        self.start_node(port, name, USUAL, FORMATS).unwrap()
    }

    fn node_with(&self, name: &'static str, tuning: Tuning) -> TestNode {
        self.start_node(self.port, name, tuning, FORMATS).unwrap()
    }

    fn start_node(
        &self,
        port: u16,
        name: &'static str,
        tuning: Tuning,
        formats: Formats,
    ) -> Result<TestNode, ClusterError> {
        let own = OwnState { rank: Rank::Nothing, chat: Vec::new() };
        TestNode::join(&settings(&self.url(port), name, tuning, formats), name, own)
    }

    /// The ids of the messages in the history.
    fn history(&self) -> Vec<u64> {
        let answer = self.call(&["ZRANGE", "tinychat:history", "0", "-1"]);
        let Value::Array(messages) = answer else { panic!("{answer:?}") };
        let id = |message| match message {
            Value::BulkString(message) => kept::decode(&message).unwrap().id,
            message => panic!("{message:?}"),
        };
        messages.into_iter().map(id).collect()
    }

    fn call(&self, words: &[&str]) -> Value {
        self.try_call(words).unwrap()
    }

    fn try_call(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let mut connection =
            redis::Client::open(self.url(self.port))?.get_connection_with_timeout(Duration::from_secs(2))?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// As `kill -9`.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = spawn(&self.arguments);
        assert!(self.wait_until_ready(), "redis-server does not start again");
    }

    /// Undoes what was written last, by this node, as a failover does to a replica that lacks it.
    fn lose_last_entry(&self, node: NodeNumber) {
        let answer = self.call(&["XREVRANGE", "tinychat:log", "+", "-", "COUNT", "2"]);
        let Value::Array(entries) = answer else { panic!("{answer:?}") };
        let ids = entries.iter().map(|entry| match entry {
            Value::Array(entry) => engine::text(&entry[0]).unwrap(),
            entry => panic!("{entry:?}"),
        });
        let [last, before]: [&str; 2] = ids.collect::<Vec<_>>().try_into().unwrap();
        self.call(&["XDEL", "tinychat:log", last]);
        self.call(&["XSETID", "tinychat:log", before]);
        self.call(&["HINCRBY", "tinychat:meta", "id", "-1"]);
        self.call(&["HINCRBY", "tinychat:meta", &format!("node:{node}"), "-1"]);
        self.call(&["HSET", "tinychat:meta", "run", "another"]);
    }

    fn stored_bytes(&self) -> u64 {
        self.storage().metadata().unwrap().len()
    }

    /// Loses what was written after this many bytes, while it is not running.
    fn truncate(&self, bytes: u64) {
        self.storage().set_len(bytes).unwrap();
    }

    /// Its append-only file, which has not been rewritten.
    fn storage(&self) -> File {
        let path = self.folder.path().join("appendonlydir/appendonly.aof.1.incr.aof");
        OpenOptions::new().write(true).open(path).unwrap()
    }

    fn delete_data(&self) {
        std::fs::remove_dir_all(self.folder.path().join("appendonlydir")).unwrap();
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join("redis-server").is_file())
}

fn spawn(arguments: &[String]) -> Child {
    Command::new("redis-server").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Binds a socket that does not listen, so that the system gives its port to no other process. With `SO_REUSEADDR`, an
/// engine can listen on the port.
fn reserve_port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

/// Between a node and the engine. Its threads end with the test process.
struct Proxy {
    port: u16,
    state: Arc<Mutex<ProxyState>>,
}

struct ProxyState {
    engine: u16,
    is_cut: bool,
    delay: Duration,
    open: Vec<TcpStream>,
}

impl Proxy {
    fn start(engine: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = ProxyState { engine, is_cut: false, delay: Duration::ZERO, open: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = shared.lock().unwrap();
                if state.is_cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", state.engine)) else { continue };
                let delay = state.delay;
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server.try_clone().unwrap(), client.try_clone().unwrap()),
                ] {
                    thread::spawn(move || {
                        let mut buffer = [0; 64 * 1024];
                        while let Ok(length @ 1..) = from.read(&mut buffer) {
                            thread::sleep(delay);
                            if to.write_all(&buffer[..length]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                        let _ = from.shutdown(Shutdown::Both);
                    });
                }
                state.open.extend([client, server]);
            }
        });
        Self { port, state }
    }

    /// Where new connections lead.
    fn lead_to(&self, engine: u16) {
        self.state.lock().unwrap().engine = engine;
    }

    /// How long bytes of new connections take, in each direction.
    fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// Cuts all connections, and accepts none, or accepts them again.
    fn cut(&self, is_cut: bool) {
        let mut state = self.state.lock().unwrap();
        state.is_cut = is_cut;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
