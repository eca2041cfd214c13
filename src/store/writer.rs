//! The store's thread: it commits what the hub has queued, in groups, and answers the hub's requests.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, at, bounded, never, select};
use log::{error, info, warn};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::change::Change;
use super::contents::{Aged, Contents};
use super::database::{Database, FileState};
use super::error::StoreError;
use super::lock::Lock;
use super::messages::{self, Insert, StoredMessage, StoredPage};
use super::moderation::{self, meta, set_meta};
use super::moderators;
use super::queue::{Item, LOG_INTERVAL, PageRequest, Waiting};
use super::schedule::{Due, Schedule};
use super::set_aside::back_up;
use super::{StoreLimits, int};
use crate::chat::{Act, Action, Decision, KeptEntry, NamedModerator, Outcome};
use crate::ops::clock;

/// The most messages that one commit deletes, apart from as many as it adds: a lower limit is reached in steps.
const MAX_DELETED: u64 = 20_000;
/// From this size on, the write-ahead log is moved into the database at once, in bytes.
const LONG_LOG_BYTES: u64 = 16 * 1024 * 1024;
/// For how many waiting items memory is kept.
const SPARE_ITEMS: usize = 4096;
/// How long the end of the server waits for a disk that fails.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often it tries again.
const CLOSE_RETRY: Duration = Duration::from_millis(200);

/// What the store's thread tells the hub.
#[derive(Debug)]
pub enum StoreEvent<T> {
    /// A decision is durable, or could not be stored.
    Decided(Box<Decision>, Outcome),
    /// The answer to a [`PageRequest`], with its tag. `None`: the store cannot be read.
    Page(T, Option<StoredPage>),
    Moderators(Vec<NamedModerator>),
    /// Ids up to this one may be assigned.
    IdsReserved(u64),
}

/// An open store, before its thread is started. What is put into the queue until then waits.
pub struct Writer<T> {
    database: Database,
    lock: Lock,
    limits: StoreLimits,
    waiting: Waiting<T>,
    reserved_id: u64,
}

/// The running thread.
pub struct Running {
    thread: JoinHandle<()>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
}

impl<T: Send + 'static> Writer<T> {
    pub(super) fn new(
        database: Database,
        lock: Lock,
        limits: StoreLimits,
        waiting: Waiting<T>,
        reserved_id: u64,
    ) -> Self {
        Self { database, lock, limits, waiting, reserved_id }
    }

    #[cfg(test)]
    pub fn set_hook(&mut self, hook: super::database::Hook) {
        self.database.hook = Some(hook);
    }

    /// Starts the thread. `on_event` runs on it, and may block.
    ///
    /// # Errors
    /// The system cannot create a thread.
    pub fn start(self, on_event: impl FnMut(StoreEvent<T>) + Send + 'static) -> io::Result<Running> {
        let (ending, ended) = bounded(0);
        let thread = thread::Builder::new().name("store".into()).spawn(move || {
            let Self { database, lock, limits, waiting, reserved_id } = self;
            StoreThread {
                database,
                lock,
                limits,
                waiting,
                on_event,
                schedule: Schedule::default(),
                contents: Contents::default(),
                pending: Vec::new(),
                unsynced: Vec::new(),
                reserved_id,
                closing: None,
                health: Health::Good,
                logged: None,
                has_backup: false,
            }
            .run();
            drop::<Sender<()>>(ending);
        })?;
        Ok(Running { thread, ended })
    }
}

impl Running {
    /// Waits until everything is written, once the queue is closed or dropped. Returns whether it was in time.
    pub fn finish(self, timeout: Duration) -> bool {
        let has_ended = self.ended.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected);
        has_ended && self.thread.join().is_ok()
    }
}

struct StoreThread<T, F> {
    database: Database,
    lock: Lock,
    limits: StoreLimits,
    waiting: Waiting<T>,
    on_event: F,
    schedule: Schedule,
    contents: Contents,
    /// What is not committed yet, in order.
    pending: Vec<Pending>,
    /// What is committed, but not synced.
    unsynced: Vec<Unsynced>,
    /// Ids up to this one are reserved.
    reserved_id: u64,
    /// Set once nothing more can arrive.
    closing: Option<Closing>,
    health: Health,
    /// When a failure was last logged.
    logged: Option<Instant>,
    /// Whether what the next commit replaces is in a backup.
    has_backup: bool,
}

enum Pending {
    Message(KeptEntry),
    Act(Box<Act>),
    /// `is_answered`: the hub was told that it is not stored. It is still written later.
    Decision {
        decision: Box<Decision>,
        is_answered: bool,
    },
    Change(Box<Change>),
    Reserve(u64),
}

enum Unsynced {
    Decision(Box<Decision>, Outcome),
    Reserve(u64),
}

/// `last_id`: the last id that was assigned, if the hub has said so.
#[derive(Clone, Copy, Default)]
struct Closing {
    last_id: Option<u64>,
}

enum Health {
    Good,
    /// Since this many messages were lost.
    Failing {
        lost_before: u64,
    },
    /// Nothing more is written.
    Stopped(Stop),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    Damaged,
    Replaced,
    Overwritten,
}

/// What a commit has done.
#[derive(Default)]
struct Written {
    /// Of its decisions, in order.
    outcomes: Vec<Outcome>,
    /// The id and the time of each message that was added.
    added: Vec<(u64, u64)>,
    /// By decisions.
    deleted: Vec<u64>,
    /// How many were deleted because there were too many.
    expired: u64,
    /// What was deleted because it was too old.
    aged: Aged,
    /// Whether more messages exceed a limit.
    is_over_limit: bool,
}

impl<T, F: FnMut(StoreEvent<T>)> StoreThread<T, F> {
    fn run(mut self) {
        // Deletes what has become too old since the last start.
        self.schedule.more_to_delete(Instant::now());
        while self.closing.is_none() {
            let page = self.receive();
            while self.closing.is_none()
                && let Some(due) = self.schedule.due(Instant::now())
            {
                match due {
                    Due::Commit => self.commit(false),
                    Due::Sync => self.commit(true),
                    Due::Checkpoint => self.checkpoint(),
                }
            }
            // At most one before the next turn: what is due does not wait for the others. At the end, they are dropped.
            if let Some(page) = page
                && self.closing.is_none()
            {
                self.answer(page);
            }
            self.read_contents();
        }
        self.close();
    }

    /// Waits until something is due or arrives, and takes what has arrived, but at most one request for a page.
    fn receive(&mut self) -> Option<PageRequest<T>> {
        // First: whatever was passed before the request is then among the items.
        let mut page = self.waiting.pages.try_recv().ok();
        if page.is_none() {
            page = self.wait();
        }
        let now = Instant::now();
        loop {
            match self.waiting.items.try_recv() {
                Ok(item) => self.take(item, now),
                Err(TryRecvError::Empty) => return page,
                Err(TryRecvError::Disconnected) => {
                    self.closing.get_or_insert_default();
                    return page;
                }
            }
        }
    }

    /// Waits until something is due or arrives.
    fn wait(&mut self) -> Option<PageRequest<T>> {
        let is_reading = !self.contents.is_complete() && matches!(self.health, Health::Good);
        let due = if is_reading { Some(Instant::now()) } else { self.schedule.next() };
        if let Some(due) = due
            && !self.pending.is_empty()
        {
            // Not for messages: to wake this thread for each of them would cost the hub more than sending them.
            let _ = self.waiting.doorbell.recv_deadline(due);
            return None;
        }
        let is_due = due.map_or_else(never, at);
        select! {
            recv(self.waiting.items) -> item => {
                if let Ok(item) = item {
                    self.take(item, Instant::now());
                }
                None
            }
            recv(self.waiting.pages) -> page => page.ok(),
            recv(is_due) -> _ => None,
        }
    }

    fn take(&mut self, item: Item, now: Instant) {
        match item {
            Item::Message(message) => {
                self.pending.push(Pending::Message(message));
                self.schedule.added(now);
            }
            Item::Act(act) => {
                self.pending.push(Pending::Act(act));
                self.schedule.added(now);
            }
            Item::Decision(decision) => {
                let is_answered = !matches!(self.health, Health::Good);
                if is_answered {
                    (self.on_event)(StoreEvent::Decided(decision.clone(), Outcome::NotStored));
                }
                self.pending.push(Pending::Decision { decision, is_answered });
                self.schedule.urgent(now);
            }
            Item::Change(change) => {
                self.pending.push(Pending::Change(change));
                self.schedule.added(now);
            }
            Item::Reserve(id) => {
                self.pending.push(Pending::Reserve(id));
                self.schedule.urgent(now);
            }
            Item::ReloadModerators => match moderators::all(self.database.connection()) {
                Ok(moderators) => (self.on_event)(StoreEvent::Moderators(moderators)),
                Err(error) => warn!("The named moderators cannot be read from the store ({error})"),
            },
            Item::Close(last_id) => {
                self.closing.get_or_insert_default().last_id = Some(last_id);
            }
        }
    }

    /// Commits what waits, and deletes what exceeds a limit. `is_synced`: it survives a power cut.
    fn commit(&mut self, is_synced: bool) {
        if let Health::Stopped(stop) = self.health
            && !self.has_returned(stop)
        {
            self.discard(stop);
            return;
        }
        if !self.check_files() || !self.back_up_other_chat() {
            return;
        }
        if self.pending.iter().any(Pending::replaces_messages) {
            self.contents = Contents::default();
        }
        let clock = clock::unix_millis();
        let result = self.notice_other_writers().and_then(|()| {
            let batch = Batch {
                items: &self.pending,
                limits: self.limits,
                contents: &self.contents,
                reserved_id: self.reserved_id,
                clock,
                last_id: self.closing.and_then(|closing| closing.last_id),
                is_synced,
            };
            self.database.write(is_synced, |connection| batch.write(connection))
        });
        match result {
            Ok(written) => self.committed(is_synced, clock, written),
            Err(error) => self.failed(&error),
        }
    }

    /// Copies the store to another file if the next commit replaces another chat: nothing else may have its messages.
    /// Returns whether the commit may follow.
    fn back_up_other_chat(&mut self) -> bool {
        let (connection, path) = (self.database.connection(), self.database.path());
        let replaced = self.pending.iter().find_map(|item| match item {
            Pending::Change(change) => change.replaced_epoch(connection).transpose(),
            _ => None,
        });
        let Some(epoch) = replaced.filter(|_| !self.has_backup) else { return true };
        let epoch = epoch.map_err(|error| StoreError::sqlite(path, error));
        match epoch.and_then(|epoch| back_up(connection, path, &epoch)) {
            Ok(backup) => {
                warn!(
                    "The store {} held a chat other than that of CLUSTER_URL: copied it to {}, and removed its messages",
                    path.display(),
                    backup.display()
                );
                self.has_backup = true;
                true
            }
            Err(error) => {
                let reason = format!("it holds another chat, and cannot be copied to another file: {error}");
                self.fail(&reason, "check the disk and its folder");
                false
            }
        }
    }

    fn committed(&mut self, is_synced: bool, clock: u64, written: Written) {
        let now = Instant::now();
        self.has_backup = false;
        written.added.iter().for_each(|&(id, unix_millis)| self.contents.added(id, unix_millis));
        written.deleted.iter().for_each(|&id| self.contents.deleted(id));
        self.contents.expired(written.expired);
        self.contents.aged(&written.aged);
        let expires_in = written
            .aged
            .oldest
            .zip(self.limits.max_age)
            .map(|(oldest, age)| age.saturating_sub(Duration::from_millis(clock.saturating_sub(oldest))));
        self.schedule.committed(now, is_synced, expires_in);
        if written.is_over_limit {
            self.schedule.more_to_delete(now);
        }
        if self.database.wal_bytes() > LONG_LOG_BYTES {
            self.schedule.log_is_long(now);
        }
        let messages = self.pending.iter().filter(|item| matches!(item, Pending::Message(_))).count();
        let mut outcomes = written.outcomes.into_iter();
        let mut bytes = 0;
        for item in self.pending.drain(..) {
            bytes += item.bytes();
            match item {
                Pending::Message(_) | Pending::Act(_) | Pending::Change(_) => {}
                Pending::Decision { decision, is_answered } => {
                    let outcome = outcomes.next().unwrap_or(Outcome::NotStored);
                    if !is_answered {
                        self.unsynced.push(Unsynced::Decision(decision, outcome));
                    }
                }
                Pending::Reserve(id) => self.unsynced.push(Unsynced::Reserve(id)),
            }
        }
        self.pending.shrink_to(SPARE_ITEMS);
        self.waiting.shared.remove(bytes);
        self.waiting.shared.committed();
        if is_synced {
            for item in self.unsynced.drain(..) {
                (self.on_event)(match item {
                    Unsynced::Decision(decision, outcome) => StoreEvent::Decided(decision, outcome),
                    Unsynced::Reserve(id) => {
                        self.reserved_id = self.reserved_id.max(id);
                        StoreEvent::IdsReserved(id)
                    }
                });
            }
        }
        if let Health::Failing { lost_before } = self.health {
            let lost = self.waiting.shared.counters().store_lost_messages() - lost_before;
            info!(
                "The store {} is written again: {messages} messages that waited are stored, {lost} are lost",
                self.database.path().display()
            );
            (self.health, self.logged) = (Health::Good, None);
        }
    }

    /// Rolled back: everything is tried again later.
    fn failed(&mut self, error: &rusqlite::Error) {
        let error_code = error.sqlite_error_code();
        let is_damaged = matches!(error_code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        self.fail(&error.to_string(), remedy(error_code));
        if is_damaged {
            self.stop(Stop::Damaged);
        }
    }

    fn fail(&mut self, reason: &str, remedy: &str) {
        let now = Instant::now();
        let counters = self.waiting.shared.counters();
        counters.store_failure();
        if let Health::Good = self.health {
            self.health = Health::Failing { lost_before: counters.store_lost_messages() };
        }
        self.schedule.failed(now);
        // The commit may have succeeded.
        self.contents = Contents::default();
        for item in &mut self.pending {
            if let Pending::Decision { decision, is_answered: is_answered @ false } = item {
                *is_answered = true;
                (self.on_event)(StoreEvent::Decided(decision.clone(), Outcome::NotStored));
            }
        }
        for item in self.unsynced.drain(..) {
            match item {
                Unsynced::Decision(decision, _) => {
                    (self.on_event)(StoreEvent::Decided(decision, Outcome::NotStored));
                }
                Unsynced::Reserve(id) => self.pending.push(Pending::Reserve(id)),
            }
        }
        self.log_failure(reason, remedy);
    }

    /// Logs a failure, once a minute.
    fn log_failure(&mut self, reason: &str, remedy: &str) {
        let now = Instant::now();
        if self.logged.is_some_and(|logged| now - logged < LOG_INTERVAL) {
            return;
        }
        self.logged = Some(now);
        let shared = &self.waiting.shared;
        error!(
            "The store {} has failed ({reason}): {remedy}. Chat continues; {} messages wait in memory ({} bytes), \
             {} are lost so far",
            self.database.path().display(),
            self.pending.len() + self.waiting.items.len(),
            shared.bytes(),
            shared.counters().store_lost_messages(),
        );
    }

    /// Checks whether the files are still at their paths, and writes them again if one was deleted. Returns whether the
    /// store can be used.
    fn check_files(&mut self) -> bool {
        let state = self.database.file_state();
        if let Ok(FileState::Same | FileState::Deleted | FileState::LogDeleted) = state
            && let Err(error) = self.keep_lock()
        {
            self.fail(&error.to_string(), "its lock was deleted, and nothing is stored without it");
            return false;
        }
        match state {
            Ok(FileState::Same) => true,
            Ok(FileState::Deleted) => self.write_again("The store"),
            Ok(FileState::LogDeleted) => self.write_again("The write-ahead log of the store"),
            Ok(FileState::Replaced) => {
                // Into the file that was moved away: otherwise SQLite would apply the log to the other file.
                let _ = self.database.checkpoint();
                self.give_up(Stop::Replaced, REPLACED);
                false
            }
            Ok(FileState::Overwritten) => {
                self.database.abandon();
                self.give_up(Stop::Overwritten, OVERWRITTEN);
                false
            }
            Err(error) => {
                self.fail(&error.to_string(), "check its folder");
                false
            }
        }
    }

    /// `what`: was deleted. Returns whether the store can be used.
    fn write_again(&mut self, what: &str) -> bool {
        let written = self.database.write_again();
        match &written {
            Ok(()) => error!(
                "{what} {} was deleted: it was written again, completely. Find out what deletes it",
                self.database.path().display()
            ),
            Err(error) => self.fail(
                &format!("a file of it was deleted, and cannot be written again: {error}"),
                "check its folder",
            ),
        }
        written.is_ok()
    }

    /// Takes the lock again if its file was deleted.
    fn keep_lock(&mut self) -> Result<(), StoreError> {
        let path = self.database.path();
        if !self.lock.is_in_place(path).map_err(|error| StoreError::io(path, error))? {
            self.lock = Lock::take(path)?;
            warn!("The lock of the store {} was deleted, and is taken again", path.display());
        }
        Ok(())
    }

    fn give_up(&mut self, stop: Stop, (reason, remedy): (&str, &str)) {
        self.fail(reason, remedy);
        self.stop(stop);
        self.discard(stop);
    }

    fn stop(&mut self, stop: Stop) {
        self.health = Health::Stopped(stop);
    }

    /// Whether the store can be used again after it was given up.
    fn has_returned(&mut self, stop: Stop) -> bool {
        let has_returned = stop == Stop::Replaced
            && matches!(self.database.file_state(), Ok(FileState::Same | FileState::LogDeleted));
        if has_returned {
            info!("The store {} is at its path again", self.database.path().display());
            self.health = Health::Good;
        }
        has_returned
    }

    /// Drops what waits, and counts it. The hub still waits for a reservation, which is made if the store returns.
    fn discard(&mut self, stop: Stop) {
        let now = Instant::now();
        let losses: usize = self.pending.iter().map(Pending::losses).sum();
        let bytes = self.pending.iter().map(Pending::bytes).sum();
        self.pending.retain(|item| matches!(item, Pending::Reserve(_)));
        self.waiting.shared.remove(bytes);
        self.waiting.shared.counters().store_lost(losses as u64);
        self.schedule = Schedule::default();
        self.schedule.checkpointed(now, true);
        let (reason, remedy) = match stop {
            Stop::Damaged => ("it is damaged", remedy(Some(ErrorCode::DatabaseCorrupt))),
            Stop::Replaced => REPLACED,
            Stop::Overwritten => OVERWRITTEN,
        };
        self.log_failure(reason, remedy);
    }

    fn checkpoint(&mut self) {
        let now = Instant::now();
        if let Health::Stopped(_) = self.health {
            self.schedule.checkpointed(now, true);
            return;
        }
        // It would write into what has taken the place of the database, and hide that.
        if !self.check_files() {
            return;
        }
        match self.database.checkpoint() {
            Ok(is_complete) => self.schedule.checkpointed(Instant::now(), is_complete),
            Err(error) => {
                // The log keeps what was committed.
                self.waiting.shared.counters().store_failure();
                self.schedule.checkpointed(now, false);
                self.log_failure(&error.to_string(), remedy(error.sqlite_error_code()));
            }
        }
    }

    /// Reads the next part of what the table holds.
    fn read_contents(&mut self) {
        if self.contents.is_complete() || !matches!(self.health, Health::Good) {
            return;
        }
        if let Err(error) = self.contents.advance(self.database.connection()) {
            self.failed(&error);
        } else if self.contents.rows().is_some_and(|rows| rows > self.limits.messages as u64) {
            self.schedule.more_to_delete(Instant::now());
        }
    }

    /// Reads the table again if another process has written: somebody may have deleted messages with `sqlite3`.
    fn notice_other_writers(&mut self) -> rusqlite::Result<()> {
        if self.database.notice_other_writers()? {
            self.contents = Contents::default();
        }
        Ok(())
    }

    fn answer(&mut self, request: PageRequest<T>) {
        // What waits is older than the request.
        if !self.pending.is_empty() && matches!(self.health, Health::Good) {
            self.commit(false);
        }
        let PageRequest { before, limit, max_bytes, tag } = request;
        if self.pending.iter().any(Pending::replaces_messages) {
            // The table may have messages that were deleted on other servers.
            return (self.on_event)(StoreEvent::Page(tag, None));
        }
        let page = self.page(before, limit, max_bytes);
        if let Err(error) = &page {
            self.waiting.shared.counters().store_failure();
            self.log_failure(&error.to_string(), remedy(error.sqlite_error_code()));
        }
        (self.on_event)(StoreEvent::Page(tag, page.ok()));
    }

    /// Messages that could not be written yet are read from memory.
    fn page(&self, before: u64, limit: usize, max_bytes: usize) -> rusqlite::Result<StoredPage> {
        let oldest_kept = self.limits.oldest_kept(clock::unix_millis());
        let deleted: Vec<u64> = self.pending.iter().filter_map(Pending::deletes).collect();
        let is_deleted = |id| deleted.contains(&id);
        let mut newest = Vec::new();
        let mut bytes = 0;
        let mut first_waiting = before;
        for item in self.pending.iter().rev() {
            let Pending::Message(message) = item else { continue };
            if message.id >= before || message.unix_millis < oldest_kept || is_deleted(message.id) {
                continue;
            }
            if newest.len() == limit || (bytes + message.json.len() > max_bytes && !newest.is_empty()) {
                newest.reverse();
                return Ok(StoredPage { messages: newest, has_older: true });
            }
            bytes += message.json.len();
            first_waiting = message.id;
            newest.extend(StoredMessage::from_kept(message.clone()));
        }
        newest.reverse();
        let left = (limit - newest.len(), max_bytes.saturating_sub(bytes));
        let mut page =
            messages::page(self.database.connection(), first_waiting, oldest_kept, left.0, left.1)?;
        page.messages.retain(|message| !is_deleted(message.id));
        page.messages.extend(newest);
        Ok(page)
    }

    /// Writes everything, and closes the file.
    fn close(mut self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        loop {
            self.commit(true);
            if self.pending.is_empty() || matches!(self.health, Health::Stopped(_)) {
                break;
            }
            if Instant::now() >= deadline {
                error!(
                    "The store {} could not be written: the last {} changes are lost",
                    self.database.path().display(),
                    self.pending.len()
                );
                break;
            }
            thread::sleep(CLOSE_RETRY);
        }
        if let Health::Stopped(_) = self.health {
            return;
        }
        let moved = self.database.checkpoint().map(drop);
        if let Err(error) = moved.and_then(|()| self.database.close()) {
            warn!("The store was not closed completely ({error}); the next start completes it");
        }
    }
}

/// Why nothing is stored any more, and the remedy.
const REPLACED: (&str, &str) = (
    "another file has taken its place",
    "put the store back, or restart TinyChat to use the other file; nothing is stored until then",
);
const OVERWRITTEN: (&str, &str) = (
    "something has cut its file short or written another one over it",
    "stop TinyChat, restore a backup, and start it; nothing is stored until then",
);

fn remedy(code: Option<ErrorCode>) -> &'static str {
    match code {
        Some(ErrorCode::DiskFull) => "free some space on its disk",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "make the file and its folder writable"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has it locked: end its transaction"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "the file is damaged, and nothing is stored: restore a backup, or move the file away, and restart TinyChat"
        }
        _ => "check its disk",
    }
}

/// What one commit writes.
struct Batch<'a> {
    items: &'a [Pending],
    limits: StoreLimits,
    /// What the table holds before.
    contents: &'a Contents,
    reserved_id: u64,
    /// The wall clock, in milliseconds since 1970.
    clock: u64,
    /// The last id that was assigned, at the end.
    last_id: Option<u64>,
    is_synced: bool,
}

impl Batch<'_> {
    fn write(&self, connection: &Connection) -> rusqlite::Result<Written> {
        let mut written = Written::default();
        let mut insert = Insert::new(connection)?;
        // Those would be deleted at once.
        let messages = self.items.iter().filter(|item| matches!(item, Pending::Message(_))).count();
        let mut skipped = messages.saturating_sub(self.limits.messages);
        for item in self.items {
            match item {
                Pending::Message(_) if skipped > 0 => skipped -= 1,
                Pending::Message(KeptEntry { id, unix_millis, json, txn_id }) => {
                    if insert.add(*id, *unix_millis, json, txn_id.as_ref())? {
                        written.added.push((*id, *unix_millis));
                    }
                }
                Pending::Act(act) => moderation::record(connection, act)?,
                Pending::Decision { decision, .. } => {
                    let (outcome, deleted) = moderation::decide(connection, decision)?;
                    written.outcomes.push(outcome);
                    if let (Action::Delete { id, .. }, 1..) = (&decision.act.action, deleted) {
                        written.deleted.push(*id);
                    }
                }
                Pending::Change(change) => {
                    let deleted = change.write(connection, self.limits, self.clock)?;
                    written.deleted.extend(change.deletes().filter(|_| deleted > 0));
                }
                Pending::Reserve(id) => {
                    set_meta(connection, "reserved_id", &self.reserved_id.max(*id).to_string())?;
                }
            }
        }
        self.expire(connection, &mut written)?;
        if let Some(id) = self.last_id {
            set_meta(connection, "reserved_id", &id.to_string())?;
        }
        if self.is_synced {
            // A transaction that changes nothing would not be synced, and neither would those before it.
            let syncs: u64 = meta(connection, "syncs")?.and_then(|text| text.parse().ok()).unwrap_or(0);
            set_meta(connection, "syncs", &(syncs + 1).to_string())?;
        }
        Ok(written)
    }

    /// Deletes messages that exceed a limit, once it is known what the table holds.
    fn expire(&self, connection: &Connection, written: &mut Written) -> rusqlite::Result<()> {
        let Some(rows) = self.contents.rows() else { return Ok(()) };
        let added = written.added.len() as u64;
        let most = MAX_DELETED.max(added);
        let rows = rows + added - written.deleted.len() as u64;
        let excess = rows.saturating_sub(self.limits.messages as u64);
        let mut last: Option<i64> = None;
        if excess > 0 {
            let sql = "SELECT id FROM messages ORDER BY id LIMIT 1 OFFSET ?1";
            let offset = int(excess.min(most) - 1);
            // There is none if another process has deleted messages in this moment.
            last = connection.query_row(sql, [offset], |row| row.get(0)).optional()?;
        }
        if let Some(last) = last {
            written.expired = connection.execute("DELETE FROM messages WHERE id <= ?1", [last])? as u64;
        }
        if self.limits.max_age.is_some() {
            let oldest_kept = self.limits.oldest_kept(self.clock);
            written.aged = self.contents.delete_too_old(
                connection,
                oldest_kept,
                most.saturating_sub(written.expired),
            )?;
        }
        let deleted = written.expired + written.aged.deleted;
        written.is_over_limit = deleted >= most || excess > deleted;
        Ok(())
    }
}

impl Pending {
    /// What it has taken from the queue's bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => Item::message_bytes(message),
            Self::Act(act) => Item::act_bytes(act),
            Self::Decision { decision, .. } => Item::decision_bytes(decision),
            Self::Change(change) => change.bytes(),
            Self::Reserve(_) => 0,
        }
    }

    /// How many messages, or acts for the record, are lost with it.
    fn losses(&self) -> usize {
        match self {
            Self::Message(_) | Self::Act(_) => 1,
            Self::Change(change) => change.losses(),
            Self::Decision { .. } | Self::Reserve(_) => 0,
        }
    }

    fn replaces_messages(&self) -> bool {
        matches!(self, Self::Change(change) if change.replaces_messages())
    }

    /// The id of the message that it deletes.
    fn deletes(&self) -> Option<u64> {
        match self {
            Self::Decision { decision, .. } => match decision.act.action {
                Action::Delete { id, .. } => Some(id),
                _ => None,
            },
            Self::Change(change) => change.deletes(),
            _ => None,
        }
    }
}
