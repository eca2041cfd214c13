//! The threads that read and complete the history of several servers. They may wait for the engine and for the hub.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::cluster::{History, HistoryPage, HistoryQuery, PAGE_RETRY};
use crate::hub::{
    CopyRequest, CopyTask, Event, HistoryRequest, HistoryWork, HubHandle, Report, StoredRows, kept_messages,
};

/// How long the copying thread waits before it tries again.
const RETRY: Duration = Duration::from_millis(250);

/// What this server's store is, compared with the history on the engine.
#[derive(Clone, Copy)]
pub struct LocalHistory {
    pub has_store: bool,
    /// This server has filled the engine: the history is complete once it has what the store has.
    pub is_copy: bool,
    /// The engine was filled after the store was last used. The store may have messages that the engine lacks.
    pub is_older: bool,
}

/// Starts the threads, which end after the hub.
///
/// # Errors
/// The system cannot create a thread.
pub fn start(
    history: History,
    work: HistoryWork,
    hub: Arc<OnceLock<HubHandle>>,
    local: LocalHistory,
) -> io::Result<()> {
    let HistoryWork { requests, tasks } = work;
    let (copying, answering) = (history.another(), hub.clone());
    thread::Builder::new().name("history".into()).spawn(move || answer(history, &requests, &answering))?;
    let store = StoreCopy::new(local);
    let copy = move || Copying { history: copying, tasks, hub, store }.run();
    thread::Builder::new().name("history copy".into()).spawn(copy)?;
    Ok(())
}

/// Answers requests for messages that memory no longer holds. If the history does not have the messages yet, a request is
/// retried while others are answered.
fn answer(mut history: History, requests: &Receiver<HistoryRequest>, hub: &OnceLock<HubHandle>) {
    let mut waiting: VecDeque<HistoryRequest> = VecDeque::new();
    let mut retry = Instant::now();
    loop {
        let next = if waiting.is_empty() {
            requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else if Instant::now() >= retry {
            // Even if new requests keep arriving.
            Err(RecvTimeoutError::Timeout)
        } else {
            requests.recv_deadline(retry)
        };
        let is_new = next.is_ok();
        let request = match next {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => waiting.pop_front(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(request) = request else { continue };
        let (HistoryRequest::Older(query, asked, ..) | HistoryRequest::Find(query, asked, _)) = &request;
        let page = match history.page(query, *asked) {
            Ok(Some(page)) => Ok(page),
            Ok(None) => {
                // New requests do not postpone the next retry.
                if !is_new || waiting.is_empty() {
                    retry = Instant::now() + PAGE_RETRY;
                }
                waiting.push_back(request);
                continue;
            }
            Err(unavailable) => Err(unavailable),
        };
        let report = match request {
            HistoryRequest::Older(_, _, connection, request) => {
                let answer = page.map(|page| kept_messages(page.messages, page.more));
                Report::Older(connection, request, answer)
            }
            HistoryRequest::Find(query, _, decision) => {
                Report::Found(decision, page.ok().map(|page| has_newest(&page, &query)))
            }
        };
        if hub.wait().send(Event::Store(Box::new(report))).is_err() {
            return;
        }
    }
}

/// Whether the message right before `before` is in the page.
fn has_newest(page: &HistoryPage, query: &HistoryQuery) -> bool {
    page.messages.first().is_some_and(|message| Some(message.id) == query.before.checked_sub(1))
}

/// Copies what this server's store lacks, and before that, if the engine was filled, what the engine lacks.
struct Copying {
    history: History,
    tasks: Receiver<CopyTask>,
    hub: Arc<OnceLock<HubHandle>>,
    store: StoreCopy,
}

/// What this server's store has of the history.
struct StoreCopy {
    has_store: bool,
    /// Whether the store has all that is kept, as far as this server has applied the log.
    is_complete: bool,
    /// The engine may lack messages of the store before this id.
    to_merge: Option<u64>,
}

/// The work cannot continue at the moment.
struct Interrupted;

impl Copying {
    fn run(mut self) {
        let Ok(mut task) = self.tasks.recv() else { return };
        loop {
            let next = match self.work(&task) {
                Ok(()) => self.tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Err(Interrupted) => self.tasks.recv_timeout(RETRY),
            };
            match next {
                Ok(next) => {
                    self.store.joined_again(next.is_refilled, next.has_missed_entries);
                    task = next;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn work(&mut self, task: &CopyTask) -> Result<(), Interrupted> {
        if let Some(before) = self.store.to_merge {
            self.complete_history(task, before)?;
            self.store.is_complete &= self.store.has_store;
        }
        if self.store.has_store {
            self.complete_store(task)?;
            self.store.is_complete = true;
        }
        Ok(())
    }

    /// Adds the newest messages first, so that the history has no gap meanwhile.
    fn complete_history(&mut self, task: &CopyTask, before: u64) -> Result<(), Interrupted> {
        let mut before = before.min(task.query.before);
        loop {
            let StoredRows { messages, before: next, applied } = self.read_store(before)?;
            let is_last = next.is_none() && self.store.is_complete;
            if !self.history.merge(&task.query.epoch, applied, &messages, is_last) {
                return Err(Interrupted);
            }
            self.store.to_merge = next;
            let Some(next) = next else { return Ok(()) };
            before = next;
        }
    }

    fn complete_store(&mut self, task: &CopyTask) -> Result<(), Interrupted> {
        let first = HistoryQuery { count: 1, ..task.query.clone() };
        if !self.read_history(&first)?.is_complete {
            return Err(Interrupted);
        }
        let mut query = task.query.clone();
        loop {
            let HistoryPage { messages, more, .. } = self.read_history(&query)?;
            let oldest = messages.last().map(|message| message.id);
            while !messages.is_empty() && !self.ask(|reply| CopyRequest::Store(messages.clone(), reply))? {
                thread::sleep(RETRY);
            }
            match oldest {
                Some(oldest) if more => query.before = oldest,
                _ => return Ok(()),
            }
        }
    }

    fn read_history(&mut self, query: &HistoryQuery) -> Result<HistoryPage, Interrupted> {
        self.history.page_so_far(query).ok_or(Interrupted)
    }

    fn read_store(&self, before: u64) -> Result<StoredRows, Interrupted> {
        if self.store.has_store {
            self.ask(|reply| CopyRequest::Read(before, reply))
        } else {
            Ok(StoredRows { messages: Vec::new(), before: None, applied: u64::MAX })
        }
    }

    /// Asks the hub, unless there is another task.
    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> CopyRequest) -> Result<T, Interrupted> {
        if !self.tasks.is_empty() {
            return Err(Interrupted);
        }
        let (reply, answer) = bounded(1);
        self.hub.wait().send(Event::Copy(request(reply))).map_err(|_| Interrupted)?;
        answer.recv().map_err(|_| Interrupted)
    }
}

impl StoreCopy {
    fn new(local: LocalHistory) -> Self {
        let LocalHistory { has_store, is_copy, is_older } = local;
        Self { has_store, is_complete: is_copy, to_merge: (is_copy || is_older).then_some(u64::MAX) }
    }

    fn joined_again(&mut self, is_refilled: bool, has_missed_entries: bool) {
        self.is_complete &= !has_missed_entries;
        if is_refilled {
            // Even if it is incomplete, the store may have messages that no other has.
            self.to_merge = (self.has_store || self.is_complete).then_some(u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that lacked the messages from a time when its server was disconnected once counted as complete, and clients
    /// were told that there were no older messages.
    #[test]
    fn a_store_completes_the_history_only_if_it_has_missed_nothing() {
        let store = |has_store, is_copy| StoreCopy::new(LocalHistory { has_store, is_copy, is_older: false });
        for (has_store, is_copy, is_refilled, has_missed_entries, is_complete, merges) in [
            (true, true, true, false, true, true),
            (true, true, true, true, false, true),
            (true, false, true, false, false, true),
            (true, false, false, false, false, false),
            (true, false, false, true, false, false),
            (false, true, true, false, true, true),
            (false, true, true, true, false, false),
        ] {
            let mut store = store(has_store, is_copy);
            store.joined_again(is_refilled, has_missed_entries);
            assert_eq!((store.is_complete, store.to_merge.is_some()), (is_complete, merges));
        }
        // Adding continues where it was, unless the engine was filled again.
        let mut store = store(true, true);
        store.to_merge = Some(7);
        store.joined_again(false, false);
        assert_eq!(store.to_merge, Some(7));
        store.joined_again(true, false);
        assert_eq!(store.to_merge, Some(u64::MAX));
    }
}
