//! Where entries get their positions in the order.

use std::sync::Arc;

use super::entry_clock::Now;
use super::handle::{Admission, Admitted};
#[cfg(feature = "cluster")]
use super::shared::SharedOrder;
use crate::chat::{ChatTime, ConnectionId, Input, JoinSecrets, NodeNumber};

/// Gives entries their positions: at once on a single server; with several, once they are read back from the log.
pub enum Order {
    /// The id of the last entry of a server that runs by itself.
    Local(u64),
    #[cfg(feature = "cluster")]
    Shared(Box<SharedOrder>),
}

/// What only the server that an entry comes from knows about it.
#[derive(Default)]
pub struct Own {
    pub secrets: JoinSecrets,
    /// `Some`: the client may join with this message.
    pub admission: Option<Arc<Admission>>,
}

impl Own {
    /// The message was handled. `joined`: its client has joined with it.
    pub fn handled(&self, joined: bool, all: &mut Admitted) {
        if let Some(admission) = &self.admission {
            all.handled(admission, joined);
        }
    }
}

/// An input that has its position.
pub struct Positioned {
    pub id: u64,
    pub input: Input,
    pub own: Own,
}

impl Order {
    /// Appends an input as the next entry. `offset_seconds`: how far this server's local time is ahead of UTC. `None`:
    /// it comes back once it has its position.
    #[cfg_attr(not(feature = "cluster"), expect(unused_variables, reason = "for several servers"))]
    pub fn append(
        &mut self,
        from: ConnectionId,
        offset_seconds: i32,
        input: Input,
        own: Own,
    ) -> Option<Positioned> {
        match self {
            Self::Local(last_id) => {
                *last_id += 1;
                Some(Positioned { id: *last_id, input, own })
            }
            #[cfg(feature = "cluster")]
            Self::Shared(order) => {
                order.append(from, offset_seconds, input, own);
                None
            }
        }
    }

    /// Whether what comes from this connection counts. The server itself has none.
    #[cfg_attr(not(feature = "cluster"), expect(unused_variables, reason = "for several servers"))]
    pub fn accepts(&self, connection: ConnectionId) -> bool {
        match self {
            Self::Local(_) => true,
            #[cfg(feature = "cluster")]
            Self::Shared(order) => order.accepts(connection),
        }
    }

    /// The time at which a new connection was opened.
    pub fn opened(&self, now: &Now) -> ChatTime {
        match self {
            Self::Local(_) => now.entry.chat,
            #[cfg(feature = "cluster")]
            Self::Shared(order) => order.engine_time(),
        }
    }

    /// Leaves a chat of several servers. Returns whether there is one, and it will report that this server has left.
    pub fn leave(&mut self) -> bool {
        match self {
            Self::Local(_) => false,
            #[cfg(feature = "cluster")]
            Self::Shared(order) => order.leave(),
        }
    }

    /// Whether [`Self::leave`] has not been completed.
    pub fn is_leaving(&self) -> bool {
        match self {
            Self::Local(_) => false,
            #[cfg(feature = "cluster")]
            Self::Shared(order) => order.is_leaving(),
        }
    }

    /// Whether entries get their positions at once.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// The id of the last entry that was applied.
    pub fn last_id(&self) -> u64 {
        match self {
            Self::Local(last_id) => *last_id,
            #[cfg(feature = "cluster")]
            Self::Shared(order) => order.last_id(),
        }
    }

    /// This server's number.
    pub fn node(&self) -> NodeNumber {
        match self {
            Self::Local(_) => NodeNumber::LOCAL,
            #[cfg(feature = "cluster")]
            Self::Shared(order) => order.node(),
        }
    }
}
