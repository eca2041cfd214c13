//! The members, in order of joining.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::away::{Away, MAX_ALL_UNREAD_BYTES, Unread};
use super::entry::{Address, ChatTime, ConnectionId, ConnectionMap, Guest};
use super::history::{self, HistoryEntry, Place};
use super::name_key::NameKey;
use super::name_map::NameMap;
use super::protocol::{MAX_ID, User};
use super::session::SessionDigest;
use super::time_outs::Timeouts;
use super::user_list::ListSize;
use super::username::Username;

#[derive(Default)]
pub struct Roster {
    members: BTreeMap<JoinOrder, Member>,
    by_connection: ConnectionMap<JoinOrder>,
    by_name: NameMap<JoinOrder>,
    next: JoinOrder,
    list_size: ListSize,
    /// What waits for all members that are away, in bytes.
    unread_bytes: usize,
}

/// All members, for a snapshot.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RosterState {
    /// In order of joining.
    members: Vec<Member>,
    next: JoinOrder,
}

/// A member's position in the order of joining. No position is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinOrder(pub u64);

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub order: JoinOrder,
    pub name: Username,
    pub address: Address,
    pub role: Role,
    /// When it joined, in milliseconds since 1970.
    pub joined: u64,
    /// `None`: the client did not ask. It cannot resume, and gets no `ack`.
    pub session: Option<SessionDigest>,
    pub presence: Presence,
    /// When its connection was opened, or the last one that it had.
    pub opened: ChatTime,
}

/// What a member may do. The command table says which role a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Member,
    /// A moderator since its `/login`.
    Moderator,
    /// A named moderator: others cannot time out, kick or ban it.
    Named,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    Connected(ConnectionId),
    Away(Away, Unread),
}

impl Member {
    /// `None`: it is away.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self.presence {
            Presence::Connected(connection) => Some(connection),
            Presence::Away(..) => None,
        }
    }

    pub fn place(&self) -> Place {
        Place { order: self.order, name: self.name.key().clone() }
    }
}

impl Roster {
    /// The `user_list`, in order of joining.
    pub fn users(&self, timeouts: &Timeouts) -> Vec<User> {
        let user = |member: &Member| User {
            username: member.name.shown().clone(),
            is_mod: member.role >= Role::Moderator,
            is_timed_out: member.role != Role::Named && timeouts.contains(member.name.key()),
            is_away: matches!(member.presence, Presence::Away(..)),
        };
        self.members.values().map(user).collect()
    }

    /// How large the `user_list` is.
    pub fn list_size(&self) -> ListSize {
        self.list_size
    }

    pub fn get(&self, order: JoinOrder) -> Option<&Member> {
        self.members.get(&order)
    }

    pub fn get_mut(&mut self, order: JoinOrder) -> Option<&mut Member> {
        self.members.get_mut(&order)
    }

    pub fn by_connection(&self, connection: ConnectionId) -> Option<&Member> {
        self.members.get(self.by_connection.get(&connection)?)
    }

    pub fn by_name(&self, name: &NameKey) -> Option<&Member> {
        self.members.get(&self.by_name.get(name)?)
    }

    pub fn state(&self) -> RosterState {
        RosterState { members: self.members.values().cloned().collect(), next: self.next }
    }

    /// `None`: no roster can have this state.
    pub fn restored(RosterState { members, next }: RosterState) -> Option<Self> {
        // The number of members, and thus of entries.
        if next.0 > MAX_ID {
            return None;
        }
        let mut roster = Self { next, ..Self::default() };
        for member in members {
            let is_last = roster.members.last_key_value().is_none_or(|(&last, _)| last < member.order);
            let is_connected = |id| roster.by_connection.contains_key(&id);
            let is_valid = match &member.presence {
                Presence::Connected(id) => !is_connected(*id),
                Presence::Away(_, unread) => history::is_in_order(unread.entries()),
            };
            if !is_last || !is_valid || member.order >= next || roster.by_name(member.name.key()).is_some() {
                return None;
            }
            roster.insert(member);
        }
        Some(roster)
    }

    fn insert(&mut self, member: Member) -> &Member {
        match member.presence {
            Presence::Connected(connection) => drop(self.by_connection.insert(connection, member.order)),
            Presence::Away(_, ref unread) => {
                self.list_size.away();
                self.unread_bytes += unread.bytes();
            }
        }
        self.by_name.insert(member.name.key(), member.order);
        self.list_size.add(&member.name);
        self.members.entry(member.order).or_insert(member)
    }

    /// Adds a member whose name is not in use.
    pub fn join(
        &mut self,
        connection: ConnectionId,
        name: Username,
        Guest { address, opened, .. }: Guest,
        role: Role,
        session: Option<SessionDigest>,
        joined: u64,
    ) -> &Member {
        let order = self.next;
        self.next.0 += 1;
        let presence = Presence::Connected(connection);
        self.insert(Member { order, name, address, role, joined, session, presence, opened })
    }

    /// Sets a member's presence, and returns the previous one.
    pub fn set_presence(&mut self, order: JoinOrder, presence: Presence) -> Option<Presence> {
        let member = self.members.get_mut(&order)?;
        match member.presence {
            Presence::Connected(before) => drop(self.by_connection.remove(&before)),
            Presence::Away(_, ref unread) => {
                self.list_size.back();
                self.unread_bytes -= unread.bytes();
            }
        }
        match presence {
            Presence::Connected(connection) => drop(self.by_connection.insert(connection, order)),
            Presence::Away(_, ref unread) => {
                self.list_size.away();
                self.unread_bytes += unread.bytes();
            }
        }
        Some(std::mem::replace(&mut member.presence, presence))
    }

    pub fn leave(&mut self, order: JoinOrder) -> Option<Member> {
        let member = self.members.remove(&order)?;
        match member.presence {
            Presence::Connected(connection) => drop(self.by_connection.remove(&connection)),
            Presence::Away(_, ref unread) => {
                self.list_size.back();
                self.unread_bytes -= unread.bytes();
            }
        }
        self.list_size.remove(&member.name);
        self.by_name.remove(member.name.key());
        Some(member)
    }

    /// Keeps a whisper for a member that is away. `false`: too much waits already.
    pub fn keep_unread(&mut self, order: JoinOrder, entry: &HistoryEntry) -> bool {
        let bytes = entry.bytes();
        let left = MAX_ALL_UNREAD_BYTES.saturating_sub(self.unread_bytes);
        match self.members.get_mut(&order).map(|member| &mut member.presence) {
            Some(Presence::Away(_, unread)) if unread.has_room(bytes) && bytes <= left => {
                unread.push(entry.clone());
                self.unread_bytes += bytes;
                true
            }
            _ => false,
        }
    }

    /// Keeps an error for a member that is away, if there is room.
    pub fn keep_notice(&mut self, order: JoinOrder, notice: String) {
        let left = MAX_ALL_UNREAD_BYTES.saturating_sub(self.unread_bytes);
        if let Some(Presence::Away(_, unread)) =
            self.members.get_mut(&order).map(|member| &mut member.presence)
        {
            self.unread_bytes += unread.notify(notice, left);
        }
    }

    /// Removes a whisper that was deleted.
    pub fn remove_unread(&mut self, id: u64) -> Option<HistoryEntry> {
        let mut removed = None;
        for member in self.members.values_mut() {
            if let Presence::Away(_, unread) = &mut member.presence
                && let Some(entry) = unread.remove(id)
            {
                self.unread_bytes -= entry.bytes();
                removed = Some(entry);
            }
        }
        removed
    }

    /// All members, in order of joining.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// All members, in order of joining.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    #[cfg(test)]
    pub fn unread_bytes(&self) -> usize {
        self.unread_bytes
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.members.len()
    }
}
