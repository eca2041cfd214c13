//! How other threads reach the hub.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Event;
use crate::ops::metrics::HubStats;

/// How many queries may wait for the hub.
const MAX_QUERIES: usize = 64;

/// Sends events and queries to the hub.
#[derive(Clone)]
pub struct HubHandle {
    inbox: Sender<Event>,
    queries: Sender<Query>,
    state: SharedState,
}

/// An event was not sent, because the hub has ended.
#[derive(Debug)]
pub struct HubEnded;

/// What the hub answers between two batches, however full its inbox is.
pub enum Query {
    /// Call this, which shows that the hub is responsive. It must not block.
    Probe(Box<dyn FnOnce() + Send>),
    Stats(Sender<HubStats>),
}

impl HubHandle {
    /// A handle, and the receiver of its queries.
    pub fn new(inbox: Sender<Event>, state: SharedState) -> (Self, Receiver<Query>) {
        let (queries, receiver) = bounded(MAX_QUERIES);
        (Self { inbox, queries, state }, receiver)
    }

    /// Sends an event. While the inbox is full, this blocks.
    pub fn send(&self, event: Event) -> Result<(), HubEnded> {
        self.inbox.send(event).map_err(|_| HubEnded)
    }

    /// Has the hub call `respond`, which must not block. If the hub is unresponsive, that never happens.
    pub fn probe(&self, respond: impl FnOnce() + Send + 'static) {
        self.query(Query::Probe(Box::new(respond)));
    }

    /// Whether the hub responds within `timeout`.
    pub fn is_responsive(&self, timeout: Duration) -> bool {
        let (sender, reply) = bounded(1);
        self.probe(move || {
            // The receiver may have timed out.
            let _ = sender.try_send(());
        });
        reply.recv_timeout(timeout).is_ok()
    }

    /// The hub's totals; `None`: it did not respond within `timeout`.
    pub fn stats(&self, timeout: Duration) -> Option<HubStats> {
        let (sender, reply) = bounded(1);
        self.query(Query::Stats(sender));
        reply.recv_timeout(timeout).ok()
    }

    /// When members may join again; `None`: now.
    pub fn joins_resume_at(&self) -> Option<Instant> {
        self.state.joins_resume_at()
    }

    /// Whether the hub is closing all connections.
    pub fn is_shutting_down(&self) -> bool {
        self.state.is_shutting_down()
    }

    fn query(&self, query: Query) {
        if self.queries.try_send(query).is_ok() {
            // Wakes an idle hub. If the inbox is full, the hub is not idle.
            let _ = self.inbox.try_send(Event::Wakeup);
        }
    }
}

/// What the hub publishes for the connections' threads.
#[derive(Clone, Default)]
pub struct SharedState(Arc<State>);

#[derive(Default)]
struct State {
    joins_resume_at: Mutex<Option<Instant>>,
    is_shutting_down: AtomicBool,
}

impl SharedState {
    pub fn set_joins_resume_at(&self, at: Option<Instant>) {
        *self.0.joins_resume_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    pub fn shut_down(&self) {
        self.0.is_shutting_down.store(true, Ordering::Relaxed);
    }

    fn joins_resume_at(&self) -> Option<Instant> {
        *self.0.joins_resume_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_shutting_down(&self) -> bool {
        self.0.is_shutting_down.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The health check once waited in the inbox: while 4,000 members joined at once, it timed out.
    #[test]
    fn queries_do_not_wait_in_a_full_inbox() {
        let (inbox, events) = bounded(1);
        let (hub, queries) = HubHandle::new(inbox, SharedState::default());
        hub.send(Event::Wakeup).unwrap();
        assert!(events.is_full());
        hub.probe(|| {});
        assert!(matches!(queries.try_recv(), Ok(Query::Probe(_))));
    }

    #[test]
    fn the_number_of_queries_is_limited() {
        let (inbox, _events) = bounded(1);
        let (hub, queries) = HubHandle::new(inbox, SharedState::default());
        (0..2 * MAX_QUERIES).for_each(|_| hub.probe(|| {}));
        assert_eq!(queries.len(), MAX_QUERIES);
    }

    #[test]
    fn an_unresponsive_hub_times_out() {
        let (inbox, _events) = bounded(1);
        let (hub, _queries) = HubHandle::new(inbox, SharedState::default());
        assert!(!hub.is_responsive(Duration::ZERO));
        assert_eq!(hub.stats(Duration::ZERO), None);
    }
}
