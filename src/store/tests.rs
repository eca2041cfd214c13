//! Tests of the store as a whole.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, unbounded};
use tempfile::TempDir;

use super::database::Point;
use super::queue::{Item, MAX_PAGE_REQUESTS, QUEUE_BYTES};
use super::*;
use crate::chat::{
    Act, Action, ChatTime, ConnectionId, Decision, EntryTime, KeptEntry, KeptMessage, MAX_DELETIONS, Outcome,
    PastEpoch, TxnId, Username,
};
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
    counters: Arc<Counters>,
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
        self.start_with(limits, |_, _| Ok(()))
    }

    /// Messages 1 to 2000 are in the database, and 3001 is in its log.
    fn start_with_2001_messages(&self) -> Running {
        let mut store = self.start(LIMITS);
        (1..=2000).for_each(|id| store.keep(id, "some text that fills the pages of the database"));
        store.close(2000);
        let mut store = self.start(LIMITS);
        store.keep(3001, "before");
        store.settle();
        store
    }

    /// `hook`: called at the start of each transaction and before its commit.
    fn start_with(
        &self,
        limits: StoreLimits,
        hook: impl FnMut(Point, &Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Running {
        let counters = Arc::new(Counters::default());
        let Opened { state, queue, mut writer } = open(&self.path(), limits, counters.clone()).unwrap();
        writer.set_hook(Box::new(hook));
        let (sender, events) = unbounded();
        let thread = writer.start(move |event| sender.send(event).unwrap()).unwrap();
        Running { queue, thread, events, state, counters }
    }
}

impl Running {
    fn keep(&mut self, id: u64, content: &str) {
        self.queue.keep(message(id, content));
    }

    fn page(&mut self, before: u64, limit: usize) -> StoredPage {
        self.try_page(before, limit).unwrap()
    }

    fn try_page(&mut self, before: u64, limit: usize) -> Option<StoredPage> {
        self.queue.read_page(PageRequest { before, limit, max_bytes: 255 * 1024, tag: 7 }).unwrap();
        loop {
            match self.events.recv_timeout(TIMEOUT).unwrap() {
                StoreEvent::Page(7, page) => return page,
                StoreEvent::Decided(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits until everything before is committed, or has failed.
    fn settle(&mut self) {
        self.page(0, 0);
    }

    fn ids(&mut self) -> Vec<u64> {
        self.page(u64::MAX, 100_000).messages.iter().map(|message| message.id).collect()
    }

    /// Waits until these messages are left: what exceeds a limit is deleted once the thread has counted what there is.
    fn wait_for_ids(&mut self, expected: RangeInclusive<u64>) {
        let start = Instant::now();
        while self.ids() != expected.clone().collect::<Vec<_>>() {
            assert!(start.elapsed() < TIMEOUT, "{:?} are left", self.ids());
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
    let utc = clock::utc(unix_millis);
    let time = EntryTime { chat: ChatTime(0), unix_millis, timestamp: "12:34:56".into(), utc };
    let mut json = Vec::new();
    KeptMessage::Public { username, content }.encode(id, &time, &mut json);
    json.into()
}

fn message(id: u64, content: &str) -> KeptEntry {
    let unix_millis = 1_700_000_000_000 + id;
    KeptEntry { id, unix_millis, json: json(id, unix_millis, "Bob", content), txn_id: None }
}

fn decision(unix_millis: u64, action: Action) -> Box<Decision> {
    let address = std::net::IpAddr::from([192, 0, 2, 1]).into();
    let act = Act { unix_millis, by: "Ann".into(), address, action };
    Box::new(Decision { act, connection: ConnectionId(1), txn_id: None })
}

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn disk_full() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None)
}

#[test]
fn messages_are_loaded_as_they_were_sent() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let first = store.state.last_id + 1;
    let (epoch, contents) =
        (store.state.epoch.clone(), ["hello", "\"quotes\" \\ and \u{1} ünïcode 😀", "\u{2028}"]);
    for (at, content) in contents.iter().enumerate() {
        store.keep(first + at as u64, content);
    }
    let mut with_txn_id = message(first + 3, "mine");
    with_txn_id.txn_id = Some(TxnId::from_store("t\"1"));
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
    assert_eq!(state.messages[3].txn_id, Some(TxnId::from_store("t\"1")));
    let mut exported = Vec::new();
    export(&folder.path(), &mut exported).unwrap();
    assert_eq!(exported.split(|&byte| byte == b'\n').count(), 5);
}

/// A ban that was set again before it had taken effect came back after a restart, even if the second one was ended.
#[test]
fn a_ban_replaces_the_same_ban_that_was_stored_just_before() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let now = clock::unix_millis();
    let network = "192.0.2.7/32".parse().ok();
    let ban = |id, text, network| Ban {
        id,
        name: Some(name(text)),
        network,
        by: "Ann".into(),
        since: now,
        until: None,
        reason: String::new(),
    };
    // With a Cyrillic о the second time.
    for ban in [ban(1, "Bob", network), ban(2, "Bоb", None)] {
        assert_eq!(store.decide(now, Action::Ban { ban }), Outcome::Stored);
    }
    let unban = Action::Unban { target: "Bob".into(), bans: vec![2] };
    assert_eq!(store.decide(now, unban), Outcome::Stored);
    store.close(3);
    let address = Ban { name: None, ..ban(1, "Bob", network) };
    assert_eq!(folder.open(LIMITS).state.bans, [address], "only what the second ban did not replace");
}

#[test]
fn decisions_are_stored_and_recorded() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let far = clock::unix_millis() + 1_000_000;
    let now = clock::unix_millis();
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
    assert_eq!(store.decide(now, Action::Ban { ban: ban(5, Some(far)) }), Outcome::Stored);
    assert_eq!(store.decide(now, Action::Ban { ban: ban(6, None) }), Outcome::Stored);
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
    assert!(!contains(&folder.path(), b"secret"));
}

fn contains(path: &Path, text: &[u8]) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
}

fn error(folder: &Folder) -> StoreError {
    open::<u32>(&folder.path(), LIMITS, Arc::default()).err().expect("the store cannot be used")
}

/// `InUse` is below, and those that need another user are in `tests/integration/store.rs`.
#[test]
fn errors_name_the_file_the_reason_and_the_remedy() {
    let folder = Folder::new();
    let nested = folder.0.path().join("nowhere/tinychat.db");
    let no_folder = open::<u32>(&nested, LIMITS, Arc::default()).err().unwrap();
    assert!(matches!(no_folder, StoreError::NoFolder(_)), "{no_folder}");
    fs::create_dir(folder.path()).unwrap();
    let not_a_file = error(&folder);
    assert!(matches!(not_a_file, StoreError::NotAFile(_)), "{not_a_file}");
    fs::remove_dir(folder.path()).unwrap();
    let mut all = vec![no_folder, not_a_file];
    for text in ["x".to_owned(), "not a database ".repeat(1000)] {
        fs::write(folder.path(), &text).unwrap();
        let not_sqlite = error(&folder);
        assert!(matches!(not_sqlite, StoreError::NotSqlite(_)), "{not_sqlite}");
        assert_eq!(fs::read_to_string(folder.path()).unwrap(), text);
        all.push(not_sqlite);
    }
    fs::remove_file(folder.path()).unwrap();
    Connection::open(folder.path()).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
    let before = fs::read(folder.path()).unwrap();
    let other = error(&folder);
    assert!(matches!(other, StoreError::OtherProgram(_)), "{other}");
    assert!(fs::read(folder.path()).unwrap() == before, "the other program's database was changed");
    fs::remove_file(folder.path()).unwrap();
    folder.start(LIMITS).close(1);
    Connection::open(folder.path()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let newer = error(&folder);
    assert!(matches!(newer, StoreError::Newer { version: 99, .. }), "{newer}");
    for read in [export, audit] {
        let newer = read(&folder.path(), &mut Vec::new()).unwrap_err();
        assert!(matches!(newer, StoreError::Newer { version: 99, .. }), "{newer}");
    }
    fs::remove_file(folder.path()).unwrap();
    fs::remove_file(files::beside(&folder.path(), ".lock")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path()).unwrap();
    let dangling = error(&folder);
    assert!(matches!(dangling, StoreError::DanglingLink(_)), "{dangling}");
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 1, "only the link");
    let reason = "Tree 2:\n  page 3".to_owned();
    all.push(StoreError::Damaged { path: folder.path(), reason });
    all.extend([other, newer, dangling]);
    for error in all {
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains("tinychat.db") && text.contains("; "), "{text}");
        assert!(!error.is_folder_not_writable());
    }
}

#[test]
fn the_last_deletions_are_loaded() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let last = MAX_DELETIONS as u64 + 2;
    (1..=last).for_each(|id| store.keep(id, "spam"));
    // The last one twice.
    for id in (1..=last).chain([last]) {
        store.queue.decide(decision(1, Action::Delete { id, is_own: id % 2 == 0 })).unwrap();
    }
    store.close(last + 1);
    let deleted = folder.open(LIMITS).state.deleted;
    assert_eq!(deleted, (3..=last).collect::<Vec<_>>());
}

#[test]
fn damage_is_found_at_the_start() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    for id in 1..2000 {
        store.keep(id, "some text that fills the pages of the database");
    }
    store.close(2000);
    let good = fs::read(folder.path()).unwrap();
    // The pages of the table of messages; what is overwritten in the header or in free space may not matter.
    let mut bad = good.clone();
    let page = bad.len() / 2 / 4096 * 4096;
    bad[page..page + 4096].fill(0x5A);
    fs::write(folder.path(), &bad).unwrap();
    let damaged = error(&folder);
    assert!(matches!(damaged, StoreError::Damaged { .. }), "{damaged}");
    assert!(damaged.to_string().contains("restore a backup"), "{damaged}");
    let damaged = inspect(&folder.path()).unwrap_err();
    assert!(matches!(damaged, StoreError::Damaged { .. }), "{damaged}");
    fs::write(folder.path(), &good[..good.len() / 2]).unwrap();
    let damaged = error(&folder);
    assert!(matches!(damaged, StoreError::Damaged { .. }), "{damaged}");
    fs::write(folder.path(), &good).unwrap();
    folder.open(LIMITS);
}

#[test]
fn only_the_owner_can_read_the_files() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    store.keep(1, "hello");
    store.settle();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.0.path()).unwrap().map(Result::unwrap) {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["tinychat.db", "tinychat.db-shm", "tinychat.db-wal", "tinychat.db.lock"]);
    store.close(1);
    let names = fs::read_dir(folder.0.path()).unwrap().count();
    assert_eq!(names, 2, "SQLite's files are gone");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o664)).unwrap();
    folder.start(LIMITS).close(1);
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn ids_are_never_used_again() {
    let folder = Folder::new();
    let mut last = 0;
    for _ in 0..5 {
        // A start that is not followed by a regular end.
        let Opened { state, .. } = folder.open(LIMITS);
        assert!(state.last_id >= last, "{} < {last}", state.last_id);
        last = state.reserved_id;
    }
    let mut store = folder.start(LIMITS);
    assert_eq!(store.state.last_id, last);
    store.queue.reserve(last + 100 * RESERVED_IDS);
    let event = store.events.recv_timeout(TIMEOUT).unwrap();
    assert!(matches!(event, StoreEvent::IdsReserved(id) if id == last + 100 * RESERVED_IDS), "{event:?}");
    // The queue is dropped without the last id, as if the hub had panicked.
    drop(store.queue);
    assert!(store.thread.finish(TIMEOUT));
    let state = folder.open(LIMITS).state;
    assert_eq!(state.last_id, last + 100 * RESERVED_IDS);
    folder.start(LIMITS).close(state.last_id + 5);
    assert_eq!(folder.open(LIMITS).state.last_id, state.last_id + 5);
}

#[test]
fn a_store_without_an_epoch_gets_a_new_one() {
    let folder = Folder::new();
    let first = folder.open(LIMITS).state.epoch;
    assert!(first.len() == 16 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
    assert_eq!(folder.open(LIMITS).state.epoch, first);
    Connection::open(folder.path()).unwrap().execute("DELETE FROM meta WHERE key = 'epoch'", []).unwrap();
    assert_ne!(folder.open(LIMITS).state.epoch, first);
}

/// Copies of the file and its log, as a crash would leave them: the log may end anywhere.
#[test]
fn after_a_crash_the_store_holds_a_prefix_of_the_commits() {
    let folder = Folder::new();
    let commits = Arc::new(Mutex::new(vec![0]));
    let recorded = commits.clone();
    let mut store = folder.start_with(LIMITS, move |point, connection| {
        if point == Point::Commit {
            let sql = "SELECT ifnull(max(id), 0) FROM messages";
            let newest = connection.query_row(sql, [], |row| row.get::<_, i64>(0))?;
            recorded.lock().unwrap().push(newest.cast_unsigned());
        }
        // Between the copies of the two files, nothing may move from one to the other.
        if point == Point::Checkpoint { Err(disk_full()) } else { Ok(()) }
    });
    let epoch = store.state.epoch.clone();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut id = 0;
    let mut crashes = Vec::new();
    let wal = files::beside(&folder.path(), "-wal");
    // The start was synced: no crash undoes it.
    let synced = fs::metadata(&wal).unwrap().len();
    for _ in 0..60 {
        for _ in 0..next(30) {
            id += 1;
            store.keep(id, &"x".repeat(next(600) as usize + 1));
        }
        // Commits.
        store.settle();
        let (database, log) = (fs::read(folder.path()).unwrap(), fs::read(&wal).unwrap());
        let cut = (synced + next(log.len() as u64 - synced + 1)) as usize;
        crashes.push((database.clone(), log[..cut].to_vec(), 0));
        crashes.push((database, log, id));
    }
    store.close(id);
    let commits = commits.lock().unwrap();
    assert!(commits.len() > 50);
    for (at, (database, log, committed)) in crashes.into_iter().enumerate() {
        let crashed = Folder::new();
        fs::write(crashed.path(), database).unwrap();
        fs::write(files::beside(&crashed.path(), "-wal"), log).unwrap();
        let state = crashed.open(LIMITS).state;
        let ids: Vec<u64> = state.messages.iter().map(|message| message.id).collect();
        let newest = ids.last().copied().unwrap_or(0);
        assert_eq!(ids, (1..=newest).collect::<Vec<_>>(), "{at}");
        assert!(commits.contains(&newest), "{at}: {newest} is within a commit");
        assert!(newest >= committed, "{at}: {newest} < {committed}");
        assert_eq!(state.epoch, epoch);
        assert!(state.last_id >= id, "an id would be used again");
    }
}

#[test]
fn a_full_disk_delays_what_is_said() {
    let folder = Folder::new();
    let is_full = Arc::new(AtomicBool::new(false));
    let full = is_full.clone();
    let (committing, commits) = unbounded();
    let mut store = folder.start_with(LIMITS, move |point, connection| {
        if point == Point::Commit {
            committing.send(()).unwrap();
        }
        if point == Point::Begin {
            // SQLite itself then reports that the disk is full.
            let pages = if full.load(Relaxed) { 1 } else { 1 << 30 };
            connection.query_row(&format!("PRAGMA max_page_count={pages}"), [], |_| Ok(()))?;
        }
        Ok(())
    });
    store.keep(1, "before");
    store.settle();
    is_full.store(true, Relaxed);
    let text = "x".repeat(10_000);
    store.keep(2, &text);
    store.keep(3, &text);
    let now = clock::unix_millis();
    assert_eq!(store.decide(now, Action::EndTimeOut { name: name("Bob") }), Outcome::NotStored);
    // What waits can be read.
    let page = store.page(u64::MAX, 10);
    let ids: Vec<u64> = page.messages.iter().map(|message| message.id).collect();
    assert_eq!((ids, page.has_older), (vec![1, 2, 3], false));
    let page = store.page(3, 1);
    assert_eq!(
        (page.messages[0].id, page.messages[0].author.as_deref(), page.has_older),
        (2, Some("Bob"), true)
    );
    // A deletion that waits is not undone by reading.
    assert_eq!(store.decide(now, Action::Delete { id: 2, is_own: false }), Outcome::NotStored);
    assert_eq!(store.ids(), [1, 3]);
    assert!(store.counters.store_failures() > 0);
    commits.try_iter().for_each(drop);
    is_full.store(false, Relaxed);
    commits.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(store.decide(now, Action::EndTimeOut { name: name("Eve") }), Outcome::Stored);
    store.close(3);
    let state = folder.open(LIMITS).state;
    assert_eq!(state.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [1, 3]);
    let mut record = Vec::new();
    audit(&folder.path(), &mut record).unwrap();
    let record = String::from_utf8(record).unwrap();
    assert!(record.contains("end-time-out\tBob") && record.contains("delete\t2"), "{record}");
    assert!(record.contains("end-time-out\tEve"), "{record}");
}

#[test]
fn a_stalled_disk_stalls_nobody_and_loses_what_exceeds_the_queue() {
    let folder = Folder::new();
    let (stall, stalled) = bounded::<()>(0);
    let (begun, has_begun) = unbounded();
    let mut store = folder.start_with(LIMITS, move |point, _| {
        if point == Point::Commit {
            begun.send(()).unwrap();
            // Until the other end is dropped.
            let _ = stalled.recv();
        }
        Ok(())
    });
    store.keep(1, "first");
    has_begun.recv_timeout(TIMEOUT).unwrap();
    let text = "x".repeat(16_000);
    let size = Item::message_bytes(&message(1, &text));
    let mut kept = 1;
    // None of these waits for the disk: the test would not end.
    while store.counters.store_lost_messages() == 0 {
        kept += 1;
        store.keep(kept, &text);
    }
    let waiting = store.counters.store_queue_bytes();
    assert!(waiting <= QUEUE_BYTES && waiting > QUEUE_BYTES - 256 * 1024 - 2 * size, "{waiting}");
    store.keep(kept + 1, &text);
    assert_eq!(store.counters.store_lost_messages(), 2);
    // There is room for decisions, but not for any number of them.
    let mut decisions = 0;
    let now = clock::unix_millis();
    while store.queue.decide(decision(now, Action::EndTimeOut { name: name("Bob") })).is_ok() {
        decisions += 1;
    }
    assert!(decisions > 100 && store.counters.store_queue_bytes() <= QUEUE_BYTES, "{decisions}");
    let request = PageRequest { before: 1, limit: 1, max_bytes: 1, tag: 1 };
    // Requests for pages have a queue of their own.
    for _ in 0..MAX_PAGE_REQUESTS {
        store.queue.read_page(request.clone()).unwrap();
    }
    assert!(store.queue.read_page(request.clone()).is_err());
    assert!(store.counters.store_queue_bytes() <= QUEUE_BYTES);
    drop(stall);
    let mut decided = 0;
    while decided < decisions {
        match store.events.recv_timeout(TIMEOUT).unwrap() {
            StoreEvent::Decided(_, outcome) => {
                assert_eq!(outcome, Outcome::Stored);
                decided += 1;
            }
            StoreEvent::Page(..) => {}
            other => panic!("{other:?}"),
        }
    }
    let counters = store.counters.clone();
    store.close(kept + 1);
    assert_eq!(counters.store_queue_bytes(), 0);
    let connection = Connection::open(folder.path()).unwrap();
    let stored = connection.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0));
    assert_eq!(stored, Ok(kept as i64 - 1));
}

#[test]
fn decisions_and_syncs_do_not_wait_for_pages() {
    let folder = Folder::new();
    let Opened { mut queue, writer, .. } = folder.open(LIMITS);
    let (sender, events) = unbounded();
    let (go_on, may_go_on) = unbounded::<()>();
    let thread = writer.start(move |event| {
        let is_page = matches!(event, StoreEvent::Page(..));
        sender.send(event).unwrap();
        if is_page {
            // Until the other end is dropped.
            let _ = may_go_on.recv();
        }
    });
    let thread = thread.unwrap();
    // Each request is replaced before it is answered completely: there is never none.
    let request = PageRequest { before: u64::MAX, limit: 100, max_bytes: 1000, tag: 7 };
    let fill = |queue: &mut Queue<u32>| while queue.read_page(request.clone()).is_ok() {};
    fill(&mut queue);
    let deadline = Instant::now() + TIMEOUT;
    for id in 1..=2 {
        queue.keep(message(id, "hello"));
        queue.decide(decision(1, Action::EndTimeOut { name: name("Bob") })).unwrap();
        loop {
            assert!(Instant::now() < deadline, "the decision waits for pages");
            match events.recv_timeout(TIMEOUT).unwrap() {
                StoreEvent::Decided(_, outcome) => {
                    assert_eq!(outcome, Outcome::Stored);
                    break;
                }
                StoreEvent::Page(..) => {
                    fill(&mut queue);
                    go_on.send(()).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // Those that wait at the end are dropped.
    fill(&mut queue);
    queue.close(2);
    drop(go_on);
    assert!(thread.finish(TIMEOUT));
    assert_eq!(folder.open(LIMITS).state.messages.len(), 2);
    let answered = events.try_iter().filter(|event| matches!(event, StoreEvent::Page(..))).count();
    assert!(answered <= 2, "{answered}");
}

#[test]
fn a_commit_that_fails_is_repeated_without_duplicates() {
    let folder = Folder::new();
    let failures = Arc::new(AtomicUsize::new(0));
    let left = failures.clone();
    let mut store = folder.start_with(LIMITS, move |point, _| {
        let fails =
            point == Point::Commit && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails { Err(disk_full()) } else { Ok(()) }
    });
    failures.store(2, Relaxed);
    for id in 1..=100 {
        store.keep(id, "hello");
    }
    store.settle();
    assert_eq!(store.ids(), (1..=100).collect::<Vec<_>>());
    store.close(100);
    assert_eq!(failures.load(Relaxed), 0);
    let state = folder.open(LIMITS).state;
    assert_eq!(state.messages.len(), 100);
}

#[test]
fn a_deleted_file_is_written_again() {
    let folder = Folder::new();
    // No checkpoint between the copies of the two files.
    let no_checkpoint = |point, _: &_| if point == Point::Checkpoint { Err(disk_full()) } else { Ok(()) };
    let mut store = folder.start_with(LIMITS, no_checkpoint);
    let epoch = store.state.epoch.clone();
    store.keep(1, "before");
    store.settle();
    fs::remove_file(folder.path()).unwrap();
    store.keep(2, "after");
    let now = clock::unix_millis();
    // A sync.
    let until = now + 1_000_000;
    assert_eq!(store.decide(now, Action::TimeOut { name: name("Bob"), until }), Outcome::Stored);
    store.keep(3, "and later");
    store.settle();
    // As after a crash: from copies.
    let crashed = Folder::new();
    for suffix in ["", "-wal"] {
        fs::copy(files::beside(&folder.path(), suffix), files::beside(&crashed.path(), suffix)).unwrap();
    }
    store.close(3);
    for folder in [folder, crashed] {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.path()).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let state = folder.open(LIMITS).state;
        assert_eq!(state.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((state.epoch, state.time_outs.len()), (epoch.clone(), 1));
    }
}

/// What was stored since the last checkpoint was missing after a crash.
#[test]
fn a_store_whose_log_was_deleted_is_written_again() {
    for suffix in ["-wal", "-shm"] {
        let folder = Folder::new();
        let mut store = folder.start(LIMITS);
        store.keep(1, "before");
        store.settle();
        fs::remove_file(files::beside(&folder.path(), suffix)).unwrap();
        store.keep(2, "after");
        store.settle();
        let crashed = Folder::new();
        for suffix in ["", "-wal"] {
            fs::copy(files::beside(&folder.path(), suffix), files::beside(&crashed.path(), suffix)).unwrap();
        }
        assert_eq!(store.counters.store_failures(), 0);
        store.close(2);
        for folder in [folder, crashed] {
            let messages = folder.open(LIMITS).state.messages;
            assert_eq!(messages.iter().map(|message| message.id).collect::<Vec<_>>(), [1, 2]);
        }
    }
}

/// SQLite would apply the write-ahead log to what has taken the place of the database.
#[test]
fn a_database_that_was_cut_short_or_overwritten_is_left_alone() {
    let backup = Folder::new();
    let mut store = backup.start(LIMITS);
    store.keep(1, "from the backup");
    store.close(1);
    let backup = fs::read(backup.path()).unwrap();
    for (content, opens) in [(&backup[..4096], false), (&backup, true)] {
        let folder = Folder::new();
        let mut store = folder.start_with_2001_messages();
        fs::write(folder.path(), content).unwrap();
        store.keep(3002, "lost");
        let unban = Action::Unban { target: "Bob".into(), bans: Vec::new() };
        assert_eq!(store.decide(1, unban), Outcome::NotStored);
        store.close(3002);
        assert!(fs::read(folder.path()).unwrap() == content, "the file was changed");
        assert!(!files::beside(&folder.path(), "-wal").exists());
        let opened = open::<u32>(&folder.path(), LIMITS, Arc::default());
        assert_eq!(opened.map(|opened| opened.state.messages.len()).ok(), opens.then_some(1));
    }
}

#[test]
fn another_process_may_compact_the_database() {
    let folder = Folder::new();
    let mut store = folder.start_with_2001_messages();
    let other = Connection::open(folder.path()).unwrap();
    let size = || fs::metadata(folder.path()).unwrap().len();
    let before = size();
    for sql in ["DELETE FROM messages WHERE id < 2000", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        other.execute_batch(sql).unwrap();
    }
    assert!(size() < before);
    store.keep(3002, "after");
    store.settle();
    // Grows again.
    other.execute_batch("CREATE TABLE notes AS SELECT randomblob(100000) AS note").unwrap();
    other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    store.keep(3003, "later");
    store.settle();
    assert_eq!((store.ids(), store.counters.store_failures()), (vec![2000, 3001, 3002, 3003], 0));
    store.close(3003);
}

#[test]
fn a_file_in_the_stores_place_is_not_touched() {
    let folder = Folder::new();
    let (committing, commits) = unbounded();
    let mut store = folder.start_with(LIMITS, move |point, _| {
        if point == Point::Commit {
            committing.send(()).unwrap();
        }
        Ok(())
    });
    store.keep(1, "before");
    store.settle();
    let (own, other) = (folder.0.path().join("own"), folder.0.path().join("other"));
    fs::rename(folder.path(), &own).unwrap();
    fs::write(&other, "other").unwrap();
    fs::rename(&other, folder.path()).unwrap();
    store.keep(2, "lost");
    let now = clock::unix_millis();
    let decide = || Action::EndTimeOut { name: name("Bob") };
    assert_eq!(store.decide(now, decide()), Outcome::NotStored);
    assert_eq!(fs::read_to_string(folder.path()).unwrap(), "other");
    // SQLite would apply it to the other file.
    assert_eq!(fs::metadata(files::beside(&folder.path(), "-wal")).unwrap().len(), 0);
    // Once it is back, it is used again.
    commits.try_iter().for_each(drop);
    fs::rename(&own, folder.path()).unwrap();
    store.keep(3, "kept");
    commits.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(store.decide(now, decide()), Outcome::Stored);
    store.close(3);
    let state = folder.open(LIMITS).state;
    assert_eq!(state.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [1, 3]);
}

/// The hub waited forever, and asked for no others.
#[test]
fn ids_are_reserved_once_the_store_is_back() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let own = folder.0.path().join("own");
    fs::rename(folder.path(), &own).unwrap();
    fs::write(folder.path(), "other").unwrap();
    let up_to = store.state.reserved_id + 1000;
    store.queue.reserve(up_to);
    let decide = || Action::EndTimeOut { name: name("Bob") };
    assert_eq!(store.decide(1, decide()), Outcome::NotStored);
    assert_eq!(store.counters.store_lost_messages(), 0);
    fs::rename(&own, folder.path()).unwrap();
    store.keep(1, "back");
    let event = store.events.recv_timeout(TIMEOUT).unwrap();
    assert!(matches!(event, StoreEvent::IdsReserved(id) if id == up_to), "{event:?}");
    let connection = Connection::open(folder.path()).unwrap();
    assert_eq!(meta(&connection, "reserved_id").unwrap(), Some(up_to.to_string()));
    store.close(1);
}

#[test]
fn a_store_of_the_first_version_is_upgraded() {
    let folder = Folder::new();
    let mut connection = Connection::open(folder.path()).unwrap();
    schema::migrate(&mut connection, &folder.path(), &schema::SCHEMA[..1]).unwrap();
    let message =
        "INSERT INTO messages VALUES (7, 1700000000000, '12:34:56', 'public', 'Bob', 'hello', NULL)";
    connection.execute_batch(message).unwrap();
    set_meta(&connection, "epoch", "an epoch").unwrap();
    drop(connection);
    let state = folder.open(LIMITS).state;
    assert_eq!((state.epoch.as_str(), state.messages.len(), state.deleted.len()), ("an epoch", 1, 0));
    assert_eq!(inspect(&folder.path()).unwrap().unwrap().version, schema_version());
    assert_eq!(inspect(&files::beside(&folder.path(), ".v1-backup")).unwrap().unwrap().version, 1);
}

#[test]
fn the_oldest_messages_are_deleted() {
    let folder = Folder::new();
    let mut store = folder.start(StoreLimits { messages: 100, max_age: None });
    for id in 1..=50 {
        store.keep(id, "hello");
    }
    store.settle();
    for id in 51..=1000 {
        store.keep(id, "hello");
    }
    store.wait_for_ids(901..=1000);
    // Another process deletes some: those that are left are within the limit.
    Connection::open(folder.path()).unwrap().execute("DELETE FROM messages WHERE id <= 950", []).unwrap();
    for id in 1001..=1020 {
        store.keep(id, "hello");
    }
    store.wait_for_ids(951..=1020);
    store.close(1020);
    let state = folder.open(StoreLimits { messages: 10, max_age: None }).state;
    assert_eq!((state.messages.len(), state.newest_older.is_some()), (10, true));
    // A lower limit applies to what is in the file.
    let store = folder.start(StoreLimits { messages: 10, max_age: None });
    store.close(1020);
    assert_eq!(folder.open(LIMITS).state.messages.len(), 10);
    folder.start(StoreLimits { messages: 0, max_age: None }).close(1020);
    assert!(folder.open(LIMITS).state.messages.is_empty());
}

/// After the clock was wrong, messages have times in the future, or earlier times than older ones.
#[test]
fn messages_are_deleted_by_their_time() {
    let folder = Folder::new();
    let aged = StoreLimits { max_age: Some(Duration::from_secs(3600)), ..LIMITS };
    let now = clock::unix_millis();
    let mut store = folder.start(LIMITS);
    for (id, unix_millis) in [
        (1, now + 90 * 86_400_000),
        (2, now - 7_000_000),
        (3, now - 10_000),
        (4, now - 9_000_000),
        (5, now - 20_000),
        (6, now - 8_000_000),
    ] {
        let json = json(id, unix_millis, "Bob", "hello");
        store.queue.keep(KeptEntry { id, unix_millis, json, txn_id: None });
    }
    store.close(6);
    // They are not read before they are deleted.
    let state = folder.open(aged).state;
    assert_eq!(state.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!((state.last_id - 6, state.newest_older), (0, None));
    let mut exported = Vec::new();
    export(&folder.path(), &mut exported).unwrap();
    assert_eq!(exported.iter().filter(|&&byte| byte == b'\n').count(), 3);
    let connection = Connection::open(folder.path()).unwrap();
    let page = messages::page(&connection, 5, aged.oldest_kept(now), 1, 1000).unwrap();
    assert_eq!((page.messages[0].id, page.has_older), (3, true));
    assert_eq!(messages::newest_before(&connection, 3, aged.oldest_kept(now)).unwrap(), Some(1));
    assert_eq!(messages::newest_before(&connection, 1, aged.oldest_kept(now)).unwrap(), None);
    drop(connection);
    let mut store = folder.start(aged);
    assert_eq!(store.ids(), [1, 3, 5]);
    store.close(6);
    let state = folder.open(LIMITS).state;
    assert_eq!(state.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [1, 3, 5]);
}

/// Deletions at random places, so that SQLite moves rows between pages.
#[test]
fn what_was_deleted_is_in_no_file() {
    let folder = Folder::new();
    let mut store = folder.start(StoreLimits { messages: 400, max_age: None });
    let text = |id: u64| format!("<{id:05}>{}", "x".repeat((id * 37 % 900) as usize));
    for id in 1..=300 {
        store.keep(id, &text(id));
        if id % 40 == 0 {
            store.settle();
        }
    }
    let now = clock::unix_millis();
    let deleted: Vec<u64> = (1..=300).filter(|id| id * id % 7 == 2).collect();
    for &id in &deleted {
        store.queue.decide(decision(now, Action::Delete { id, is_own: true })).unwrap();
    }
    for id in 301..=650 {
        store.keep(id, &text(id));
        if id % 30 == 0 {
            store.settle();
        }
    }
    store.close(650);
    // A server that is running does the same within 45 seconds: see `schedule.rs`.
    let kept: Vec<u64> = folder.open(LIMITS).state.messages.iter().map(|message| message.id).collect();
    assert_eq!(kept.len(), 400);
    let files: Vec<u8> = ["", "-wal"]
        .iter()
        .flat_map(|suffix| fs::read(files::beside(&folder.path(), suffix)).unwrap_or_default())
        .collect();
    let mut found: Vec<u64> = files
        .split(|&byte| byte == b'<')
        .filter_map(|part| std::str::from_utf8(part.get(..6)?).ok()?.strip_suffix('>')?.parse().ok())
        .collect();
    found.sort();
    found.dedup();
    assert_eq!(found, kept);
}

#[test]
fn a_checkpoint_empties_the_log_unless_somebody_reads() {
    let folder = Folder::new();
    let mut database = Database::open(&folder.path()).unwrap();
    let insert = |connection: &Connection, id| {
        messages::Insert::new(connection)?.add(id, 0, &message(id, "secret").json, None).map(drop)
    };
    database.write(false, |connection| insert(connection, 1)).unwrap();
    let reader = Connection::open(folder.path()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM messages").unwrap();
    database.write(false, |connection| connection.execute("DELETE FROM messages", []).map(drop)).unwrap();
    assert_eq!(database.checkpoint(), Ok(false));
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(database.checkpoint(), Ok(true));
    assert_eq!(database.wal_bytes(), 0);
    assert!(!contains(&folder.path(), b"secret"));
}

#[test]
fn pages_are_read_backwards() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    // With gaps, and one message that is longer than a page.
    for id in 1..=100 {
        store.keep(id * 3, if id == 50 { "y".repeat(300_000) } else { "hello".into() }.as_str());
    }
    let mut read = Vec::new();
    let mut before = u64::MAX;
    loop {
        let page = store.page(before, 7);
        let Some(oldest) = page.messages.first() else { break };
        assert!(page.messages.is_sorted_by_key(|message| message.id));
        before = oldest.id;
        read.extend(page.messages.iter().rev().map(|message| message.id));
        assert_eq!(page.has_older, before != 3);
    }
    assert_eq!(read, (1..=100).rev().map(|id| id * 3).collect::<Vec<_>>());
    assert_eq!(store.page(150, 3).messages.len(), 3);
    // The long one comes alone.
    assert_eq!(store.page(151, 3).messages.len(), 1);
    let page = store.page(0, 5);
    assert_eq!((page.messages.len(), page.has_older), (0, false));
    store.close(300);
    // At the start, at most 4 MiB are loaded.
    let mut store = folder.start(LIMITS);
    for id in 301..=400 {
        store.keep(id, &"z".repeat(100_000));
    }
    store.close(400);
    let state = folder.open(LIMITS).state;
    let bytes: usize = state.messages.iter().map(|message| message.json.len()).sum();
    assert!(bytes <= 4 << 20 && bytes > (4 << 20) - 110_000 && state.newest_older.is_some(), "{bytes}");
}

#[test]
fn moderators_are_added_listed_and_removed_while_a_server_runs() {
    let folder = Folder::new();
    assert!(matches!(moderators::list(&folder.path()), Err(StoreError::Missing(_))));
    assert!(matches!(moderators::remove(&folder.path(), &name("Ann")), Err(StoreError::Missing(_))));
    assert!(moderators::add(&folder.path(), &name("Ann"), "hash 1").unwrap(), "the store is created");
    let mut store = folder.start(LIMITS);
    assert_eq!(store.state.moderators, [NamedModerator { name: name("Ann"), hash: "hash 1".into() }]);
    assert!(moderators::add(&folder.path(), &name("Bob"), "hash 2").unwrap());
    // The same name in another spelling.
    assert!(!moderators::add(&folder.path(), &name("ANN"), "hash 3").unwrap());
    store.queue.reload_moderators();
    let event = store.events.recv_timeout(TIMEOUT).unwrap();
    let StoreEvent::Moderators(all) = event else { panic!("{event:?}") };
    assert_eq!(all, moderators::list(&folder.path()).unwrap());
    assert_eq!(all.iter().map(|moderator| &*moderator.hash).collect::<Vec<_>>(), ["hash 2", "hash 3"]);
    assert!(moderators::remove(&folder.path(), &name("bob")).unwrap());
    assert!(!moderators::remove(&folder.path(), &name("bob")).unwrap());
    store.close(1);
    assert_eq!(moderators::list(&folder.path()).unwrap().len(), 1);
}

#[test]
fn an_inspection_creates_and_changes_nothing() {
    let folder = Folder::new();
    assert!(inspect(&folder.path()).unwrap().is_none());
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 0);
    let mut store = folder.start(LIMITS);
    for id in 1..=3 {
        store.keep(id, "hello");
    }
    store.close(3);
    let files = || -> Vec<_> {
        let entries = fs::read_dir(folder.0.path()).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
    };
    let before = files();
    let inspection = inspect(&folder.path()).unwrap().unwrap();
    export(&folder.path(), &mut Vec::new()).unwrap();
    assert!(files() == before);
    assert_eq!((inspection.messages, inspection.version, inspection.in_use), (3, schema_version(), None));
    assert_eq!(inspection.times, Some((1_700_000_000_001, 1_700_000_000_003)));
    assert!(inspection.bytes >= 4096);
}

#[test]
fn the_record_is_bounded() {
    let folder = Folder::new();
    let mut database = Database::open(&folder.path()).unwrap();
    let act = decision(1, Action::Login).act;
    let rows = database.write(false, |connection| {
        moderation::record(connection, &act)?;
        connection.execute("UPDATE audit SET id = ?1", [int(moderation::MAX_AUDIT_ROWS)])?;
        moderation::record(connection, &act)?;
        let count = |_| connection.query_row("SELECT count(*) FROM audit", [], |row| row.get(0));
        let before: u64 = count(()).map(i64::cast_unsigned)?;
        connection.execute("UPDATE audit SET id = 1 WHERE id = ?1", [int(moderation::MAX_AUDIT_ROWS)])?;
        moderation::record(connection, &act)?;
        Ok((before, count(()).map(i64::cast_unsigned)?))
    });
    assert_eq!(rows, Ok((2, 2)));
}

/// An act of Ann, as other servers have it.
fn act(unix_millis: u64, action: Action) -> Box<Act> {
    Box::new(decision(unix_millis, action).act)
}

fn name_ban(id: u64, text: &str) -> Ban {
    let (by, reason) = ("Ann".into(), String::new());
    Ban { id, name: Some(name(text)), network: None, by, since: 1, until: None, reason }
}

fn moderator(text: &str, hash: &str) -> NamedModerator {
    NamedModerator { name: name(text), hash: hash.into() }
}

/// The values of a column.
fn column(folder: &Folder, sql: &str) -> Vec<String> {
    let connection = Connection::open(folder.path()).unwrap();
    let mut select = connection.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_store_takes_over_the_chat_that_other_servers_have() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let (epoch, far) = (Arc::from(&*store.state.epoch), clock::unix_millis() + 1_000_000);
    [1, 2, 3, 5, 8].into_iter().for_each(|id| store.keep(id, "before"));
    for action in [
        Action::Ban { ban: name_ban(4, "Eve") },
        Action::TimeOut { name: name("Bob"), until: far },
        Action::TimeOut { name: name("Cid"), until: far },
    ] {
        assert_eq!(store.decide(1, action), Outcome::Stored);
    }
    moderators::add(&folder.path(), &name("Meg"), "old").unwrap();
    moderators::add(&folder.path(), &name("Max"), "old").unwrap();
    let time_out = |text| StoredTimeOut { name: name(text), until: far };
    let followed = Followed {
        epoch,
        past_epochs: Vec::new(),
        last_id: 7,
        bans: vec![name_ban(6, "Dan")],
        time_outs: vec![time_out("Cid"), time_out("Fay")],
        moderators: vec![moderator("Max", "new"), moderator("Zoe", "new")],
        deleted: vec![2, 4],
        deleted_after: 0,
        // 1 is older than what is in memory, and 5 was deleted long ago.
        messages: [3, 6, 7].map(|id| message(id, "before")).to_vec(),
    };
    // Twice, as after a restart. The next entry, 8, comes once more.
    for _ in 0..2 {
        store.queue.follow(followed.clone());
        store.keep(8, "before");
        assert_eq!(store.ids(), [1, 3, 6, 7, 8]);
    }
    store.close(9);
    let state = folder.open(LIMITS).state;
    assert!(state.is_shared);
    assert_eq!((&*state.epoch, state.newest_id()), (&*followed.epoch, 8));
    assert_eq!((&state.bans, &state.time_outs), (&followed.bans, &followed.time_outs));
    assert_eq!((&state.moderators, &state.deleted), (&followed.moderators, &followed.deleted));
    assert_eq!(column(&folder, "SELECT moderator FROM time_outs ORDER BY name"), ["Ann", ""]);
}

/// A store whose server had missed more deletions than the chat remembers once restored deleted messages.
#[test]
fn a_store_that_has_missed_deletions_keeps_only_what_is_known_not_to_be_deleted() {
    let past = PastEpoch { epoch: "past".into(), last_id: 6 };
    let followed = |epoch: &str, deleted_after| Followed {
        epoch: epoch.into(),
        past_epochs: vec![past.clone()],
        last_id: 30,
        deleted: vec![3, 4],
        deleted_after,
        messages: vec![message(8, "after")],
        ..Followed::default()
    };
    for (epoch, deleted_after, deletions, expected) in [
        // The chat remembers all deletions after the newest message of the store.
        ("past", 6, &[][..], vec![1, 2, 5, 6, 8]),
        ("past", 7, &[], vec![8]),
        ("now", 7, &[], vec![8]),
        // A deletion that the store knows of is one of those that the chat remembers.
        ("past", 7, &[3], vec![1, 2, 5, 6, 8]),
        ("now", 7, &[3], vec![1, 2, 5, 6, 8]),
        // The last one is that of a whisper.
        ("now", 7, &[3, 7], vec![1, 2, 5, 6, 8]),
        ("past", 7, &[2], vec![8]),
        // Another chat's messages.
        ("other", 0, &[], vec![8]),
    ] {
        let folder = Folder::new();
        let mut store = folder.start(LIMITS);
        store.queue.set_epoch(epoch.into(), true);
        (1..=6).for_each(|id| store.keep(id, "before"));
        for &id in deletions {
            store.queue.apply(act(clock::unix_millis(), Action::Delete { id, is_own: false }));
        }
        store.queue.follow(followed("now", deleted_after));
        assert_eq!(store.ids(), expected, "{epoch} {deleted_after} {deletions:?}");
        store.close(30);
    }
}

/// They were once removed, although they may exist nowhere else.
#[test]
fn messages_of_another_chat_are_copied_to_a_backup() {
    let folder = Folder::new();
    let (mut fails, counted) = (2, Arc::new(AtomicUsize::default()));
    let attempts = counted.clone();
    let mut store = folder.start_with(LIMITS, move |point, connection| {
        if point != Point::Begin || moderation::meta(connection, "epoch")?.as_deref() != Some("other") {
            return Ok(());
        }
        attempts.fetch_add(1, Relaxed);
        fails -= 1;
        if fails < 0 { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    });
    store.queue.set_epoch("other".into(), true);
    store.keep(1, "before");
    store.settle();
    let followed = Followed { epoch: "now".into(), last_id: 1, ..Followed::default() };
    store.queue.follow(Followed { messages: vec![message(1, "after")], ..followed });
    store.close(1);
    let folder_of_all = fs::read_dir(folder.0.path()).unwrap();
    let names = folder_of_all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        names.filter(|name| name.contains("-backup")).collect::<Vec<_>>(),
        ["tinychat.db.other-backup"]
    );
    assert!(counted.load(Relaxed) > 2, "the commit has failed, and was tried again");
    let content =
        |path: &Path| open::<u32>(path, LIMITS, Arc::default()).unwrap().state.messages.remove(0).json;
    let backup = files::beside(&folder.path(), ".other-backup");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(content(&backup), message(1, "before").json);
    assert_eq!(content(&folder.path()), message(1, "after").json);
}

/// Messages with the same ids were once left out of the store, and later deleted on the other servers.
#[test]
fn deletions_of_messages_that_the_chat_has_lost_are_forgotten() {
    for (epoch, expected) in [("now", vec![]), ("past", vec![5, 6]), ("other", vec![2, 5, 6])] {
        let folder = Folder::new();
        let mut store = folder.start(LIMITS);
        store.queue.set_epoch(epoch.into(), true);
        for id in [2, 5, 6] {
            store.keep(id, "before");
            store.queue.apply(act(clock::unix_millis(), Action::Delete { id, is_own: false }));
        }
        store.settle();
        let past_epochs = vec![PastEpoch { epoch: "past".into(), last_id: 4 }];
        store.queue.follow(Followed { epoch: "now".into(), past_epochs, last_id: 6, ..Followed::default() });
        assert!(store.queue.copy([2, 5, 6].map(|id| message(id, "after")).to_vec()));
        assert_eq!(store.ids(), expected, "{epoch}");
        store.close(6);
    }
}

#[test]
fn a_store_of_another_epoch_keeps_nothing() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let limits = StoreLimits { messages: 3, ..LIMITS };
    [1, 4, 5, 9].into_iter().for_each(|id| store.keep(id, "other"));
    store.close(9);
    let mut store = folder.start(limits);
    let messages: Vec<_> = [3, 4, 5, 6].map(|id| message(id, "hello")).to_vec();
    let followed = Followed { epoch: "another".into(), last_id: 7, messages, ..Followed::default() };
    store.queue.follow(followed.clone());
    store.wait_for_ids(4..=6);
    // Without messages in memory, those of the same epoch stay.
    store.queue.follow(Followed { messages: Vec::new(), ..followed.clone() });
    store.wait_for_ids(4..=6);
    store.queue.set_epoch("third".into(), true);
    store.wait_for_ids(4..=6);
    store.close(7);
    let Opened { state, mut queue, writer } = folder.open(limits);
    assert_eq!((&*state.epoch, state.is_shared), ("third", true));
    assert_eq!(state.messages[0].json, message(4, "hello").json, "not the other chat's");
    queue.set_epoch("own".into(), false);
    let thread = writer.start(|_| ()).unwrap();
    queue.close(7);
    assert!(thread.finish(TIMEOUT));
    let state = folder.open(limits).state;
    assert_eq!((&*state.epoch, state.is_shared, state.messages.len()), ("own", false, 3));
}

/// Messages that the chat had lost once stayed in the store of a server that was stopped for long.
#[test]
fn a_store_of_a_past_epoch_keeps_nothing_that_the_chat_has_lost() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    store.queue.set_epoch("past".into(), true);
    (1..=6).for_each(|id| store.keep(id, "before"));
    let past = |epoch: &str, last_id| PastEpoch { epoch: epoch.into(), last_id };
    let followed = Followed {
        epoch: "now".into(),
        past_epochs: vec![past("earlier", 1), past("past", 3), past("later", 5)],
        last_id: 9,
        messages: vec![message(8, "after")],
        ..Followed::default()
    };
    store.queue.follow(followed);
    assert_eq!(store.ids(), [1, 2, 3, 8]);
    store.close(9);
}

#[test]
fn what_follows_a_chat_is_bounded() {
    let folder = Folder::new();
    let stall = Arc::new(AtomicBool::new(true));
    let is_stalled = stall.clone();
    let mut store = folder.start_with(LIMITS, move |_, _| {
        while is_stalled.load(Relaxed) {
            std::thread::yield_now();
        }
        Ok(())
    });
    let text = "x".repeat(1_000_000);
    let messages: Vec<_> = (1..=10).map(|id| message(id, &text)).collect();
    let followed = Followed { epoch: "chat".into(), last_id: 10, messages, ..Followed::default() };
    store.queue.follow(followed.clone());
    assert_eq!(store.counters.store_lost_messages(), 2, "the oldest");
    assert!(store.counters.store_queue_bytes() <= QUEUE_BYTES);
    store.queue.follow(followed);
    assert_eq!(store.counters.store_lost_messages(), 12);
    // There is no room left for this.
    let moderators = vec![moderator("Zoe", &"x".repeat(QUEUE_BYTES))];
    store.queue.set_moderators(moderators);
    stall.store(false, Relaxed);
    store.keep(11, "after");
    store.wait_for_ids(11..=11);
    store.close(11);
    let state = folder.open(LIMITS).state;
    assert_eq!((&*state.epoch, state.moderators), ("chat", Vec::new()));
}

#[test]
fn what_the_store_lacks_of_the_history_is_added() {
    let folder = Folder::new();
    let age = Duration::from_millis(clock::unix_millis() - 1_700_000_000_000 - 3);
    let limits = StoreLimits { messages: 8, max_age: Some(age + Duration::from_secs(600)) };
    let mut store = folder.start(limits);
    [5, 6, 9].into_iter().for_each(|id| store.keep(id, "hello"));
    store.settle();
    let act = act(clock::unix_millis(), Action::Delete { id: 7, is_own: false });
    store.queue.apply(act);
    let mut copied: Vec<_> = (4..=8).map(|id| message(id, "hello")).collect();
    copied[0].unix_millis -= 700_000;
    assert!(store.queue.copy(copied));
    // It was deleted after the copy was made, and the oldest is too old.
    assert_eq!(store.ids(), [5, 6, 8, 9]);
    // The limits apply to what is added.
    assert!(store.queue.copy((10..=20).map(|id| message(id, "hello")).collect()));
    store.wait_for_ids(13..=20);
    store.close(20);
}

#[test]
fn what_is_added_takes_half_of_the_queue() {
    let folder = Folder::new();
    let stall = Arc::new(AtomicBool::new(true));
    let is_stalled = stall.clone();
    let mut store = folder.start_with(LIMITS, move |_, _| {
        while is_stalled.load(Relaxed) {
            std::thread::yield_now();
        }
        Ok(())
    });
    let text = "x".repeat(1_000_000);
    let copied = (1..=10).filter(|&id| store.queue.copy(vec![message(id, &text)])).count();
    assert_eq!((copied, store.counters.store_lost_messages()), (4, 0));
    store.keep(11, &text);
    stall.store(false, Relaxed);
    store.close(11);
    assert_eq!(
        column(&folder, "SELECT CAST(id AS TEXT) FROM messages ORDER BY id"),
        ["1", "2", "3", "4", "11"]
    );
}

/// Entries since the last snapshot of the chat are applied again after a restart.
#[test]
fn what_other_servers_decide_is_stored_and_recorded_once() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    let now = clock::unix_millis();
    [1, 2].into_iter().for_each(|id| store.keep(id, "spam"));
    // Decided through this server.
    assert_eq!(store.decide(now, Action::Ban { ban: name_ban(3, "Eve") }), Outcome::Stored);
    let acts = [
        act(now - 1, Action::Login),
        act(now, Action::Ban { ban: name_ban(3, "Eve") }),
        act(now, Action::Kick { name: name("Bob"), reason: "spam".into() }),
        act(now, Action::Delete { id: 2, is_own: false }),
        // This server does not have it.
        act(now + 1, Action::Delete { id: 77, is_own: false }),
        act(now + 1, Action::TimeOut { name: name("Bob"), until: now + 1_000_000 }),
    ];
    for _ in 0..2 {
        acts.iter().for_each(|act| store.queue.apply(act.clone()));
        assert_eq!(store.ids(), [1]);
        // Kept again before it is deleted again.
        store.keep(2, "spam");
    }
    store.queue.apply(acts[3].clone());
    store.queue.set_moderators(vec![moderator("Meg", "hash")]);
    store.close(4);
    let state = folder.open(LIMITS).state;
    assert_eq!((state.bans, state.deleted), (vec![name_ban(3, "Eve")], vec![2, 77]));
    assert_eq!((state.time_outs.len(), state.messages.len()), (1, 1));
    assert_eq!(state.moderators, [moderator("Meg", "hash")]);
    let actions = column(&folder, "SELECT action FROM audit ORDER BY id");
    assert_eq!(actions, ["ban", "login", "kick", "delete", "delete", "time-out"]);
}

#[test]
fn a_disk_that_fails_delays_what_is_taken_over() {
    let folder = Folder::new();
    let is_full = Arc::new(AtomicBool::new(true));
    let fails = is_full.clone();
    let mut store = folder.start_with(LIMITS, move |point, _| {
        if point == Point::Commit && fails.load(Relaxed) { Err(disk_full()) } else { Ok(()) }
    });
    let followed = Followed { epoch: "chat".into(), last_id: 1, ..Followed::default() };
    store.queue.follow(Followed { messages: vec![message(1, "hello")], ..followed });
    store.queue.apply(act(1, Action::Login));
    assert_eq!(store.try_page(u64::MAX, 9), None, "the table may have what the chat has deleted");
    is_full.store(false, Relaxed);
    store.close(1);
    let state = folder.open(LIMITS).state;
    assert_eq!((&*state.epoch, state.messages.len()), ("chat", 1));
    assert_eq!(column(&folder, "SELECT action FROM audit"), ["login"]);
}

#[test]
fn a_store_is_set_aside_without_overwriting_anything() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let link = folder.0.path().join("link.db");
    std::os::unix::fs::symlink("tinychat.db", &link).unwrap();
    let missing = set_aside(&folder.path(), "e1").unwrap_err();
    assert!(matches!(missing, StoreError::Missing(_)), "{missing}");
    fs::write(folder.path().with_extension("db.e1-backup-2"), "not ours").unwrap();
    for (content, backup) in [("first", "tinychat.db.e1-backup"), ("second", "tinychat.db.e1-backup-3")] {
        let mut store = folder.start(LIMITS);
        assert!(store.state.messages.is_empty(), "an empty store is left");
        store.keep(1, content);
        store.close(1);
        let moved = set_aside(&link, "e1").unwrap();
        let expected = folder.0.path().canonicalize().unwrap().join(backup);
        assert_eq!(moved, expected);
        assert_eq!(fs::metadata(&moved).unwrap().permissions().mode() & 0o777, 0o600);
        let mut exported = Vec::new();
        export(&moved, &mut exported).unwrap();
        assert_eq!(exported.strip_suffix(b"\n"), Some(&*message(1, content).json));
    }
    assert_eq!(fs::read(folder.path().with_extension("db.e1-backup-2")).unwrap(), b"not ours");
    // Still a link, to a store that can be used.
    assert!(open::<u32>(&link, LIMITS, Arc::default()).is_ok() && fs::read_link(&link).is_ok());
    let moved = set_aside(&link, "../e 2").unwrap();
    assert!(
        moved.ends_with("tinychat.db.e2-backup")
            && moved.parent() == folder.path().canonicalize().unwrap().parent()
    );
}

/// A reader keeps the log from being moved into the database.
#[test]
fn a_store_is_set_aside_with_its_log() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    store.keep(1, "hello");
    store.settle();
    let reader = Connection::open(folder.path()).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM messages").unwrap();
    store.keep(2, "hello");
    store.close(2);
    let backup = set_aside(&folder.path(), "e").unwrap();
    assert!(!files::beside(&folder.path(), "-wal").exists() && files::beside(&backup, "-wal").exists());
    drop(reader);
    let state = open::<u32>(&backup, LIMITS, Arc::default()).unwrap().state;
    assert_eq!(state.messages.len(), 2);
    assert!(folder.open(LIMITS).state.messages.is_empty());
}

#[test]
fn a_store_that_is_in_use_is_not_set_aside() {
    let folder = Folder::new();
    folder.start(LIMITS).close(1);
    let child = ChildProcess::start(&folder, "hold", "");
    child.line("opened");
    let error = set_aside(&folder.path(), "e").unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

/// Root can write everywhere, so another user tries.
#[test]
fn a_store_in_a_folder_that_is_read_only_is_not_set_aside() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    store.keep(1, "hello");
    store.close(1);
    let before = fs::read(folder.path()).unwrap();
    let mut command = Command::new("/proc/self/exe");
    if rustix::process::geteuid().is_root() {
        for suffix in ["", ".lock"] {
            chown(files::beside(&folder.path(), suffix), Some(65534), Some(65534)).unwrap();
        }
        command.uid(65534).gid(65534);
    }
    fs::set_permissions(folder.0.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let output = command
        .args(["--exact", "store::tests::child_process", "--nocapture"])
        .env(CHILD_STORE, folder.path())
        .env(CHILD_MODE, "set aside")
        .current_dir("/")
        .output()
        .unwrap();
    fs::set_permissions(folder.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("The store ") && text.contains("tinychat.db ") && text.contains("; "), "{text}");
    assert!(fs::read(folder.path()).unwrap() == before);
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 2);
}

/// Tells [`child_process`] which store to use, and how.
const CHILD_STORE: &str = "TINYCHAT_TEST_STORE";
const CHILD_MODE: &str = "TINYCHAT_TEST_MODE";

/// Not a test by itself: other tests run it as a process of its own, and end that process.
#[test]
fn child_process() {
    let (Ok(path), Ok(mode)) = (std::env::var(CHILD_STORE), std::env::var(CHILD_MODE)) else { return };
    if mode == "set aside" {
        println!("{}", set_aside(Path::new(&path), "e").unwrap_err());
        return;
    }
    let Opened { state, queue, writer } = open::<u32>(Path::new(&path), LIMITS, Arc::default()).unwrap();
    let (sender, events) = unbounded();
    let thread = writer.start(move |event| sender.send(event).unwrap()).unwrap();
    println!("opened {} {}", state.epoch, state.last_id);
    if mode == "hold" {
        // Until this process is ended.
        let _ = std::io::stdin().read_line(&mut String::new());
    }
    let mut store = Running { queue, thread, events, state, counters: Arc::default() };
    if mode == "fill" {
        // Files cannot grow any more.
        let text = "x".repeat(10_000);
        let mut id = store.state.last_id;
        let decide = || Action::EndTimeOut { name: name("Bob") };
        loop {
            id += 1;
            store.keep(id, &text);
            if id.is_multiple_of(10) && store.decide(1, decide()) == Outcome::NotStored {
                break;
            }
        }
        let unlimited = rustix::process::Rlimit { current: None, maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, unlimited).unwrap();
        println!("full {id}");
        store.close(id);
        println!("closed");
        return;
    }
    for id in store.state.last_id + 1.. {
        store.keep(id, "hello");
        if id % 5 == 0 {
            store.settle();
            println!("stored {id}");
        }
    }
}

/// A process that runs [`child_process`], killed at the end of the test.
struct ChildProcess {
    process: Child,
    lines: Receiver<String>,
}

impl ChildProcess {
    fn start(folder: &Folder, mode: &str, shell: &str) -> Self {
        let mut process = Command::new("sh")
            .args(["-c", &format!("{shell} exec \"$@\""), "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_process", "--nocapture"])
            .env(CHILD_STORE, folder.path())
            .env(CHILD_MODE, mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = unbounded();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { process, lines }
    }

    /// The rest of the next line that begins with this word.
    fn line(&self, word: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT).expect("the child process writes a line");
            // The test harness writes a part of the first line.
            if let Some((_, rest)) = line.split_once(&format!("{word} ")) {
                return rest.to_owned();
            }
        }
    }

    /// Ends the process at once, and returns all of its other lines.
    fn kill(&mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(TIMEOUT) {
                Ok(line) => lines.push(line),
                Err(error) => {
                    assert_eq!(error, RecvTimeoutError::Disconnected);
                    return lines;
                }
            }
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `TINYCHAT_STORE_KILLS` sets how many.
#[test]
fn kills_lose_nothing_that_was_committed() {
    let kills = std::env::var("TINYCHAT_STORE_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let folder = Folder::new();
    let (mut epoch, mut newest, mut assigned) = (None, 0, 0);
    for round in 0..kills {
        let mut child = ChildProcess::start(&folder, "write", "");
        let opened = child.line("opened");
        let (this, last_id) = opened.split_once(' ').unwrap();
        assert_eq!(epoch.get_or_insert(this.to_owned()), this);
        let last_id: u64 = last_id.parse().unwrap();
        assert!(last_id >= assigned, "{last_id} < {assigned}: an id is used again");
        // At a different moment each time.
        for _ in 0..round % 4 {
            newest = child.line("stored").parse().unwrap();
        }
        let stored = child.kill().iter().rev().find_map(|line| line.strip_prefix("stored ")?.parse().ok());
        newest = stored.unwrap_or(newest);
        let mut exported = Vec::new();
        export(&folder.path(), &mut exported).unwrap();
        let exported = String::from_utf8(exported).unwrap();
        let last: Option<u64> = exported
            .lines()
            .last()
            .and_then(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_u64());
        assigned = last.unwrap_or(0);
        assert!(assigned >= newest, "{round}: {assigned} < {newest}");
        assert!(inspect(&folder.path()).unwrap().is_some(), "the integrity is checked");
    }
    assert!(newest > 0);
}

#[test]
fn a_second_process_cannot_use_the_store_and_can_read_it() {
    let folder = Folder::new();
    let mut store = folder.start(LIMITS);
    store.keep(1, "hello");
    store.close(1);
    let mut child = ChildProcess::start(&folder, "hold", "");
    child.line("opened");
    let pid = rustix::process::Pid::from_child(&child.process);
    let in_use = error(&folder);
    assert!(matches!(in_use, StoreError::InUse { pid: Some(by), .. } if by == pid), "{in_use}");
    assert!(in_use.to_string().contains(&format!("(process {pid}); stop that server")), "{in_use}");
    assert_eq!(server_pid(&folder.path()).unwrap(), Some(pid));
    let mut exported = Vec::new();
    export(&folder.path(), &mut exported).unwrap();
    assert_eq!(exported.strip_suffix(b"\n"), Some(&*message(1, "hello").json));
    assert_eq!(inspect(&folder.path()).unwrap().unwrap().in_use, Some(pid));
    assert!(moderators::add(&folder.path(), &name("Ann"), "hash").unwrap());
    child.kill();
    assert_eq!(server_pid(&folder.path()).unwrap(), None);
    assert_eq!(folder.open(LIMITS).state.moderators.len(), 1);
}

#[test]
fn a_lock_that_was_deleted_is_taken_again() {
    let folder = Folder::new();
    let child = ChildProcess::start(&folder, "write", "");
    child.line("opened");
    let pid = rustix::process::Pid::from_child(&child.process);
    let deadline = Instant::now() + TIMEOUT;
    for suffix in [".lock", ""] {
        fs::remove_file(files::beside(&folder.path(), suffix)).unwrap();
        if suffix.is_empty() {
            fs::remove_file(files::beside(&folder.path(), ".lock")).unwrap();
        }
        while server_pid(&folder.path()).unwrap() != Some(pid) {
            assert!(Instant::now() < deadline, "the lock is not taken again");
            child.line("stored");
        }
        let in_use = error(&folder);
        assert!(matches!(in_use, StoreError::InUse { pid: Some(by), .. } if by == pid), "{in_use}");
    }
}

/// The kernel refuses to let the files grow, and later allows it.
#[test]
fn what_a_full_disk_has_refused_is_written_later() {
    let folder = Folder::new();
    let child = ChildProcess::start(&folder, "fill", "trap '' XFSZ; ulimit -S -f 1000;");
    let full: u64 = child.line("full").parse().unwrap();
    loop {
        let line = child.lines.recv_timeout(TIMEOUT).expect("the child process ends regularly");
        if line == "closed" {
            break;
        }
    }
    let mut exported = Vec::new();
    export(&folder.path(), &mut exported).unwrap();
    assert_eq!(exported.iter().filter(|&&byte| byte == b'\n').count() as u64, full);
    assert!(full > 10 && inspect(&folder.path()).unwrap().unwrap().messages == full);
}
