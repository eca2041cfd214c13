//! Tests of the store as a whole.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use tempfile::TempDir;

use super::*;
use crate::chat::{Act, Action, ConnectionId, Decision, EntryTime, KeptMessage, Outcome, Username};
use crate::ops::metrics::Counters;

/// Longer than a busy machine needs.
const TIMEOUT: Duration = Duration::from_secs(60);
const LIMITS: StoreLimits = StoreLimits { messages: 10_000, max_age: None };

/// A store in a folder of its own, with its thread.
struct Running {
    queue: Queue<u32>,
    thread: super::Running,
    events: Receiver<StoreEvent<u32>>,
    state: StoredState,
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tinychat.db")
    }

    fn open(&self, limits: StoreLimits) -> Opened<u32> {
        open(&self.path(), limits, Arc::new(Counters::default())).unwrap()
    }

    fn start(&self, limits: StoreLimits) -> Running {
        let Opened { state, queue, writer } = self.open(limits);
        let (sender, events) = unbounded();
        let thread = writer.start(move |event| sender.send(event).unwrap()).unwrap();
        Running { queue, thread, events, state }
    }
}

impl Running {
    fn keep(&mut self, id: u64, content: &str) {
        self.queue.keep(message(id, content));
    }

    fn page(&mut self, before: u64, limit: usize) -> StoredPage {
        self.queue.read_page(PageRequest { before, limit, max_bytes: 255 * 1024, tag: 7 }).unwrap();
        match self.events.recv_timeout(TIMEOUT).unwrap() {
            StoreEvent::Page(7, page) => page.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn decide(&mut self, unix_millis: u64, action: Action) -> Outcome {
        self.queue.decide(decision(unix_millis, action)).unwrap();
        match self.events.recv_timeout(TIMEOUT).unwrap() {
            StoreEvent::Decided(_, outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn close(self, last_id: u64) {
        self.queue.close(last_id);
        assert!(self.thread.finish(TIMEOUT));
    }
}

fn json(id: u64, unix_millis: u64, username: &str, content: &str) -> Arc<[u8]> {
    let utc = Reading::from_unix_millis(unix_millis).utc();
    let time = EntryTime { monotonic: Instant::now(), unix_millis, timestamp: "12:34:56".into(), utc };
    let mut json = Vec::new();
    KeptMessage::Public { username, content }.encode(id, &time, &mut json);
    json.into()
}

fn message(id: u64, content: &str) -> QueuedMessage {
    let unix_millis = 1_700_000_000_000 + id;
    QueuedMessage { id, unix_millis, json: json(id, unix_millis, "Bob", content), txn_id: None }
}

fn decision(unix_millis: u64, action: Action) -> Box<Decision> {
    let address = std::net::IpAddr::from([192, 0, 2, 1]).into();
    let act = Act { unix_millis, by: "Ann".into(), address, action };
    Box::new(Decision { act, connection: ConnectionId(1), txn_id: None })
}

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

#[test]
fn what_was_said_comes_back_as_it_was_sent() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let first = store.state.last_id + 1;
    let (epoch, contents) =
        (store.state.epoch.clone(), ["hello", "\"quotes\" \\ and \u{1} ünïcode 😀", "\u{2028}"]);
    for (at, content) in contents.iter().enumerate() {
        store.keep(first + at as u64, content);
    }
    let mut with_txn_id = message(first + 3, "mine");
    with_txn_id.txn_id = Some("t\"1".into());
    store.queue.keep(with_txn_id);
    let page = store.page(first + 3, 2);
    assert_eq!((page.messages.len(), page.has_older), (2, true));
    assert_eq!(page.messages[0].json, message(first + 1, contents[1]).json);
    store.close(first + 9);
    let state = folder.open(LIMITS).state;
    assert_eq!((state.epoch, state.last_id, state.newest_older), (epoch, first + 9, None));
    assert_eq!(state.messages.len(), 4);
    for (at, content) in contents.iter().enumerate() {
        let expected = message(first + at as u64, content);
        let StoredMessage { id, unix_millis, json, author, txn_id } = &state.messages[at];
        assert_eq!((id, unix_millis, json), (&expected.id, &expected.unix_millis, &expected.json));
        assert_eq!((author.as_deref(), txn_id), (Some("Bob"), &None));
    }
    assert_eq!(state.messages[3].txn_id.as_deref(), Some("t\"1"));
    let mut exported = Vec::new();
    export(&folder.path(), &mut exported).unwrap();
    assert_eq!(exported.split(|&byte| byte == b'\n').count(), 5);
}

#[test]
fn decisions_are_stored_and_recorded() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let far = Reading::now().unix_millis() + 1_000_000;
    let now = Reading::now().unix_millis();
    let time_out = |text, until| Action::TimeOut { name: name(text), until };
    assert_eq!(store.decide(now, time_out("Bob", far)), Outcome::Stored);
    assert_eq!(store.decide(now, time_out("Bоb", far + 1)), Outcome::Stored);
    let ban = |id, until| Ban {
        id,
        name: Some(name("Eve")),
        network: Some("192.0.2.7/32".parse().unwrap()),
        by: "Ann".into(),
        since: now,
        until,
        reason: "spam".into(),
    };
    assert_eq!(store.decide(now, Action::Ban { ban: ban(5, Some(far)), replaces: vec![] }), Outcome::Stored);
    assert_eq!(store.decide(now, Action::Ban { ban: ban(6, None), replaces: vec![5] }), Outcome::Stored);
    assert_eq!(store.decide(now, Action::Delete { id: 99, is_own: false }), Outcome::NotFound);
    store.keep(7, "secret");
    assert_eq!(store.decide(now, Action::Delete { id: 7, is_own: false }), Outcome::Stored);
    store.close(8);
    let state = folder.open(LIMITS).state;
    assert_eq!(state.time_outs, [StoredTimeOut { name: name("Bоb"), until: far + 1 }]);
    assert_eq!(state.bans, [ban(6, None)]);
    assert!(state.messages.is_empty());
    let mut record = Vec::new();
    audit(&folder.path(), &mut record).unwrap();
    let record = String::from_utf8(record).unwrap();
    assert_eq!(record.lines().count(), 5, "{record}");
    let ban = record.lines().nth(3).unwrap();
    assert!(ban.ends_with("\tAnn\t192.0.2.1\tban\tEve (192.0.2.7)\t\tspam"), "{ban}");
    assert!(!fs::read(folder.path()).unwrap().windows(6).any(|bytes| bytes == b"secret"));
}
