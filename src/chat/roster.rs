//! The members, in order of joining.

use std::collections::{BTreeMap, HashMap};

use super::name_key::NameKey;
use super::name_map::NameMap;
use super::protocol::User;
use super::room::ConnectionId;
use super::time_outs::Timeouts;
use super::username::Username;
use crate::limits::Network;

#[derive(Default)]
pub struct Roster {
    members: BTreeMap<JoinOrder, Member>,
    by_connection: HashMap<ConnectionId, JoinOrder>,
    by_name: NameMap<JoinOrder>,
    next: JoinOrder,
}

/// A member's position in the order of joining. No position is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinOrder(pub u64);

pub struct Member {
    pub order: JoinOrder,
    pub connection: ConnectionId,
    pub name: Username,
    pub network: Network,
    pub is_moderator: bool,
}

impl Roster {
    /// The `user_list`, in order of joining.
    pub fn users(&self, timeouts: &Timeouts) -> Vec<User> {
        let user = |member: &Member| User {
            username: member.name.shown().clone(),
            is_mod: member.is_moderator,
            is_timed_out: timeouts.contains(member.name.key()),
        };
        self.members.values().map(user).collect()
    }

    pub fn get(&self, connection: ConnectionId) -> Option<&Member> {
        self.members.get(self.by_connection.get(&connection)?)
    }

    pub fn by_name(&self, name: &NameKey) -> Option<&Member> {
        self.members.get(&self.by_name.get(name)?)
    }

    /// Adds a member whose name is not in use.
    pub fn join(&mut self, connection: ConnectionId, name: Username, network: Network) -> &Member {
        let order = self.next;
        self.next.0 += 1;
        self.by_connection.insert(connection, order);
        self.by_name.insert(name.key(), order);
        self.members.entry(order).or_insert(Member { order, connection, name, network, is_moderator: false })
    }

    pub fn leave(&mut self, connection: ConnectionId) -> Option<Member> {
        let order = self.by_connection.remove(&connection)?;
        let member = self.members.remove(&order)?;
        self.by_name.remove(member.name.key());
        Some(member)
    }

    pub fn make_moderator(&mut self, connection: ConnectionId) {
        let order = self.by_connection.get(&connection);
        if let Some(member) = order.and_then(|order| self.members.get_mut(order)) {
            member.is_moderator = true;
        }
    }
}
