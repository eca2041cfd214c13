//! The connections of this server that have not joined. They are no part of the room, which learns of a connection from
//! the first message that can join.

use super::entry::{Address, ChatTime, ConnectionId, ConnectionMap, Guest};
use super::room::Effect;

#[derive(Default)]
pub struct Guests {
    by_connection: ConnectionMap<Connection>,
}

struct Connection {
    address: Address,
    opened: ChatTime,
    /// Whether there is an entry from it.
    has_entry: bool,
}

impl Guests {
    pub fn connected(&mut self, id: ConnectionId, address: Address, opened: ChatTime) {
        self.by_connection.insert(id, Connection { address, opened, has_entry: false });
    }

    /// Whether the connection has not joined, and there is no entry from it.
    pub fn is_unknown(&self, id: ConnectionId) -> bool {
        self.by_connection.get(&id).is_some_and(|connection| !connection.has_entry)
    }

    /// What an entry with a message from this connection contains about it; `None`: it has joined.
    pub fn guest(&mut self, id: ConnectionId, only_resumes: bool) -> Option<Box<Guest>> {
        let connection = self.by_connection.get_mut(&id)?;
        connection.has_entry = true;
        let &mut Connection { address, opened, .. } = connection;
        Some(Guest { address, opened, only_resumes }.into())
    }

    /// Follows an effect of the room.
    pub fn follow(&mut self, effect: &Effect) {
        if let Effect::Enter(id, _)
        | Effect::Resume(id, _)
        | Effect::Close(id, _)
        | Effect::CloseReplaced(id) = effect
        {
            self.by_connection.remove(id);
        }
    }

    /// Removes a connection that has ended. Returns whether its end is an entry, which it is if there are others from
    /// it.
    pub fn disconnected(&mut self, id: ConnectionId) -> bool {
        self.by_connection.remove(&id).is_none_or(|connection| connection.has_entry)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_connection.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn the_end_of_a_connection_is_an_entry_only_after_another_one() {
        let address = Address { network: IpAddr::from(Ipv4Addr::LOCALHOST).into(), is_exempt: true };
        let [silent, refused, member] = [1, 2, 3].map(ConnectionId);
        let mut guests = Guests::default();
        for id in [silent, refused, member] {
            guests.connected(id, address, ChatTime(5));
            assert!(guests.is_unknown(id));
        }
        for id in [refused, member] {
            let guest = Guest { address, opened: ChatTime(5), only_resumes: false };
            assert_eq!(guests.guest(id, false), Some(guest.into()));
            assert!(!guests.is_unknown(id));
        }
        guests.follow(&Effect::Enter(member, "Ann".into()));
        assert_eq!((guests.guest(member, false), guests.len()), (None, 2));
        let ends = [silent, refused, member].map(|id| guests.disconnected(id));
        assert_eq!((ends, guests.len()), ([false, true, true], 0));
    }
}
