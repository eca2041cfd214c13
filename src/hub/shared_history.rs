//! The history of a chat of several servers: requests for what is no longer in memory, and the copy in this server's
//! store. Two threads do the work, which may wait for the engine and for the hub.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Hub;
use super::entry_clock::Now;
use super::order::Order;
use super::storage::{COPIED_BYTES, COPIED_MESSAGES, StoredRows};
use crate::chat::{Action, ConnectionId, Decision, KeptEntry, OlderRequest, Outcome, StoreUnavailable};
use crate::cluster::{Change, HistoryQuery};

/// The most requests of members for pages that may wait at a time, and the most decisions that may. With the default
/// limits, the connections of one address cannot reach it.
const MAX_REQUESTS: usize = 2048;
/// The most requests for pages from one connection that may wait at a time. Clients usually wait for each answer.
const MAX_REQUESTS_PER_CONNECTION: usize = 16;

/// What the hub asks of the thread that reads the history. [`Report`](super::Report) answers.
pub enum HistoryRequest {
    /// For a member on this connection.
    Older(HistoryQuery, Instant, ConnectionId, Box<OlderRequest>),
    /// Whether the history has the message before `before`, which the decision deletes.
    Find(HistoryQuery, Instant, Box<Decision>),
}

/// Tells the thread that copies the history that this server has joined the chat.
#[derive(Clone, Debug)]
pub struct CopyTask {
    /// For what memory no longer holds, page by page.
    pub query: HistoryQuery,
    /// The engine was filled: it may lack what the store has.
    pub is_refilled: bool,
    /// The store may lack what other servers have.
    pub has_missed_entries: bool,
}

/// What that thread asks of the hub. Without an answer, the reply's sender is dropped.
pub enum CopyRequest {
    /// Add these to the store. Whether there was room for them is the reply.
    Store(Vec<KeptEntry>, Sender<bool>),
    /// Messages of the store with smaller ids.
    Read(u64, Sender<StoredRows>),
}

/// The hub's ends of the channels to the two threads.
pub struct SharedHistory {
    requests: Sender<HistoryRequest>,
    tasks: Sender<CopyTask>,
    /// For each request for a page that waits, its connection.
    asking: Vec<ConnectionId>,
    /// How many decisions wait.
    finding: usize,
}

/// The threads' ends.
pub struct HistoryWork {
    pub requests: Receiver<HistoryRequest>,
    pub tasks: Receiver<CopyTask>,
}

impl SharedHistory {
    pub fn new() -> (Self, HistoryWork) {
        let (requests, waiting) = unbounded();
        // There is one each time that this server joins.
        let (tasks, joins) = unbounded();
        let history = Self { requests, tasks, asking: Vec::new(), finding: 0 };
        (history, HistoryWork { requests: waiting, tasks: joins })
    }

    /// Returns whether another request for a page may wait. If so, it counts until [`Self::answered`].
    fn admit(&mut self, connection: ConnectionId) -> bool {
        let own = self.asking.iter().filter(|asking| **asking == connection).count();
        let is_admitted = own < MAX_REQUESTS_PER_CONNECTION && self.asking.len() < MAX_REQUESTS;
        if is_admitted {
            self.asking.push(connection);
        }
        is_admitted
    }

    fn answered(&mut self, connection: ConnectionId) {
        if let Some(position) = self.asking.iter().position(|asking| *asking == connection) {
            self.asking.swap_remove(position);
        }
    }
}

impl Hub {
    /// Says what this server has of the history, and has its store completed.
    pub(super) fn follow_history(&mut self, is_refilled: bool, has_missed_entries: bool) {
        self.offer_history();
        let query = self.query(self.room.last_evicted().saturating_add(1), COPIED_MESSAGES, COPIED_BYTES);
        let Order::Shared(order) = &self.order else { return };
        // The thread ends only after the hub.
        let _ = order.history.tasks.send(CopyTask { query, is_refilled, has_missed_entries });
    }

    /// Says what this server has in memory of the history.
    pub(super) fn offer_history(&self) {
        if let Order::Shared(order) = &self.order {
            let (base, limits) = (self.room.last_evicted(), self.room.history_limits());
            order.log.history(base, self.room.kept_messages(), self.room.deleted_messages(), limits);
        }
    }

    pub(super) fn keep_shared(&mut self, message: &KeptEntry) {
        if let Order::Shared(order) = &self.order {
            order.log.keep(Change::Add(message.clone()));
        }
    }

    /// Asks for messages that memory no longer holds.
    pub(super) fn read_shared(
        &mut self,
        now: &Now,
        connection: ConnectionId,
        request: &OlderRequest,
    ) -> Result<(), StoreUnavailable> {
        let page = &request.page;
        let query = self.query(page.before, page.count.into(), page.bytes);
        let Order::Shared(order) = &mut self.order else { return Err(StoreUnavailable) };
        if !order.history.admit(connection) {
            return Err(StoreUnavailable);
        }
        let request = HistoryRequest::Older(query, now.instant, connection, request.clone().into());
        order.history.requests.send(request).map_err(|_| StoreUnavailable)
    }

    /// A request for a page is answered.
    pub(super) fn read_is_over(&mut self, connection: ConnectionId) {
        if let Order::Shared(order) = &mut self.order {
            order.history.answered(connection);
        }
    }

    /// Whether only the shared history may have the message that a decision deletes.
    pub(super) fn is_only_shared(&self, decision: &Decision) -> bool {
        match decision.act.action {
            Action::Delete { id, .. } => {
                !self.order.is_local() && !self.room.holds(id) && self.room.may_be_stored(id)
            }
            _ => false,
        }
    }

    /// Asks whether the history has the message that a decision deletes.
    pub(super) fn find(&mut self, now: &Now, decision: Box<Decision>) {
        let Action::Delete { id, .. } = decision.act.action else { return };
        let query = self.query(id + 1, 1, 1);
        let Order::Shared(order) = &mut self.order else { return };
        if order.history.finding == MAX_REQUESTS {
            return self.found(now, decision, None);
        }
        order.history.finding += 1;
        // The thread ends only after the hub.
        let _ = order.history.requests.send(HistoryRequest::Find(query, now.instant, decision));
    }

    /// It is known whether the history has the message that a decision deletes.
    pub(super) fn find_is_over(&mut self) {
        if let Order::Shared(order) = &mut self.order {
            order.history.finding -= 1;
        }
    }

    pub(super) fn found(&mut self, now: &Now, decision: Box<Decision>, is_found: Option<bool>) {
        let outcome = match is_found {
            Some(true) => Outcome::Stored,
            Some(false) => Outcome::NotFound,
            None => Outcome::NotStored,
        };
        if outcome != Outcome::NotFound {
            // Records the deletion, so that the message is not copied later.
            self.storage.apply(&decision.act);
        }
        self.decided(now, decision, outcome);
    }

    pub(super) fn copy_request(&mut self, request: CopyRequest) {
        match request {
            CopyRequest::Store(messages, reply) => drop(reply.send(self.storage.copy(messages))),
            CopyRequest::Read(before, reply) => {
                let (applied, deleted) = (self.order.last_id(), self.room.deleted_messages());
                self.storage.read_rows(before, applied, deleted, reply);
            }
        }
    }

    fn query(&self, before: u64, count: usize, bytes: usize) -> HistoryQuery {
        HistoryQuery {
            epoch: self.room.epoch(),
            before,
            last_evicted: self.room.last_evicted(),
            kept: self.room.kept_beyond_memory(),
            count,
            bytes,
            max_age: self.room.history_limits().age_millis,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::chat::{Act, NodeNumber};
    use crate::cluster::SharedLog;
    use crate::hub::entry_clock::EntryClock;
    use crate::hub::{HubSettings, Report, SharedOrder};
    use crate::limits::ClientLog;

    #[test]
    fn decisions_that_wait_are_bounded() {
        let (joined, log) = SharedLog::detached();
        let (history, work) = SharedHistory::new();
        let order = Order::Shared(Box::new(SharedOrder::new(log, history, &joined, bounded(1).0)));
        let settings = HubSettings { order, ..HubSettings::empty() };
        let (_handle, mut hub) = Hub::new(settings, Arc::default(), ClientLog::new(Arc::default()));
        let queued = |hub: &Hub| match &hub.order {
            Order::Shared(order) => order.log.status().figures().queue_entries,
            Order::Local(_) => panic!(),
        };
        let (now, connection) = (EntryClock::default().now(), ConnectionId::new(hub.order.node(), 1));
        let address = IpAddr::from([127, 0, 0, 1]).into();
        let action = Action::Delete { id: 7, is_own: false };
        let act = Act { unix_millis: 0, by: "Meg".into(), address, action };
        let decision = Box::new(Decision { act, connection, txn_id: None });
        for _ in 0..MAX_REQUESTS {
            hub.find(&now, decision.clone());
        }
        assert_eq!((work.requests.len(), queued(&hub)), (MAX_REQUESTS, 0));
        hub.find(&now, decision.clone());
        assert_eq!(
            (work.requests.len(), queued(&hub)),
            (MAX_REQUESTS, 1),
            "the last one is answered at once"
        );
        hub.report(&now, Report::Found(decision.clone(), None));
        hub.find(&now, decision);
        assert_eq!(work.requests.len(), MAX_REQUESTS + 1, "another one is answered");
    }

    #[test]
    fn requests_for_pages_are_bounded() {
        let (mut history, _work) = SharedHistory::new();
        let connection = |number: usize| ConnectionId::new(NodeNumber::LOCAL, number as u64);
        for _ in 0..MAX_REQUESTS_PER_CONNECTION {
            assert!(history.admit(connection(0)));
        }
        assert!(!history.admit(connection(0)), "the connection has too many requests");
        (MAX_REQUESTS_PER_CONNECTION..MAX_REQUESTS)
            .for_each(|number| assert!(history.admit(connection(number))));
        assert!(!history.admit(connection(MAX_REQUESTS)));
        history.answered(connection(0));
        history.answered(connection(MAX_REQUESTS));
        assert!(history.admit(connection(MAX_REQUESTS)) && !history.admit(connection(0)));
    }
}
