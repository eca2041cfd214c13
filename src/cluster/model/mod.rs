//! The engine and the threads of a node, as a simulation drives them (`hub/shared_simulation.rs`): without sockets,
//! threads or a clock. Calls and answers wait until they are delivered, and connections are lost in between.
//!
//! The scripts are written here a second time, and so is the order in which the threads do things. What a node has
//! [appended](super::outbox), [read](super::following) and [applied](super::snapshot) is not.

mod engine;
mod threads;

pub use engine::Engine;
pub use threads::Threads;
