//! Who is in the room, in order of joining, and when everybody is next told (the `user_list`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::ConnectionId;
use super::command::split_name;
use super::timeout::Timeouts;
use super::username::{NameKey, Username};
use crate::protocol::User;

/// The least time between two lists to one client. A little more than the 50 ms of SPEC.md, for what the clock
/// of the hub tells apart may arrive closer together.
pub const LIST_INTERVAL: Duration = Duration::from_millis(55);
/// In a room of up to [`SMALL_ROOM`] a change is told within 100 ms, whatever it costs.
const SMALL_ROOM_INTERVAL: Duration = Duration::from_millis(80);
const SMALL_ROOM: usize = 100;
/// What lists to everybody may cost, in bytes a second. SPEC.md allows 16 MiB; the rest is for the lists that
/// newcomers get at once.
const LIST_BYTES_PER_SECOND: usize = 14 * 1024 * 1024;
/// What an entry of the list takes beside its name: `{"username":"","is_mod":false,"is_timed_out":false},`.
const ENTRY_BYTES: usize = 57;

#[derive(Default)]
pub struct Roster {
    /// In order of joining: who comes later has the greater seat.
    members: BTreeMap<Seat, Member>,
    seats: HashMap<ConnectionId, Seat>,
    names: HashMap<NameKey, Seat>,
    next_seat: Seat,
    /// The length of the list, about, in bytes.
    list_bytes: usize,
    /// How often the list has changed.
    version: u64,
    behind: Behind,
    /// When lists were last sent to others than newcomers.
    last_round: Option<Instant>,
}

type Seat = u64;

/// Who has not been told of the newest list.
#[derive(Default)]
enum Behind {
    #[default]
    Nobody,
    /// It changed at this time, and nobody but later newcomers has it.
    Everybody(Instant),
    /// Everybody else has it; these had another list too shortly before.
    Few(Vec<Seat>),
}

pub struct Member {
    pub connection: ConnectionId,
    pub name: Username,
    pub address: IpAddr,
    pub is_moderator: bool,
    /// The version of the last list that it got, and when.
    listed: (u64, Instant),
}

/// Who gets a list.
#[derive(Debug, PartialEq)]
pub enum Round {
    Everybody,
    These(Vec<ConnectionId>),
}

impl Roster {
    pub fn of(&self, connection: ConnectionId) -> Option<&Member> {
        self.members.get(self.seats.get(&connection)?)
    }

    pub fn named(&self, name: &NameKey) -> Option<&Member> {
        self.members.get(self.names.get(name)?)
    }

    /// The member whose name the text begins with, the longest if there are several, and the rest of the text.
    pub fn at_start_of<'a>(&self, text: &'a str) -> Option<(&Member, &'a str)> {
        // Half of a name's characters can be spaces, and one character can be written as a few.
        let max_words = Username::MAX_CHARS / 2;
        let max_bytes = Username::MAX_CHARS * 4 * 4;
        split_name(text, max_words)
            .filter(|(name, _)| name.len() <= max_bytes)
            .find_map(|(name, rest)| Some((self.named(&NameKey::of(name))?, rest)))
    }

    /// Takes a newcomer in, who is given the list at once.
    pub fn join(&mut self, connection: ConnectionId, name: Username, address: IpAddr, now: Instant) {
        self.changed(now);
        let seat = self.next_seat;
        self.next_seat += 1;
        self.seats.insert(connection, seat);
        self.names.insert(name.key().clone(), seat);
        self.list_bytes += ENTRY_BYTES + name.shown().len();
        let listed = (self.version, now);
        self.members.insert(seat, Member { connection, name, address, is_moderator: false, listed });
    }

    pub fn leave(&mut self, connection: ConnectionId, now: Instant) -> Option<Member> {
        let seat = self.seats.remove(&connection)?;
        let member = self.members.remove(&seat)?;
        self.names.remove(member.name.key());
        self.list_bytes -= ENTRY_BYTES + member.name.shown().len();
        self.changed(now);
        Some(member)
    }

    pub fn promote(&mut self, connection: ConnectionId, now: Instant) {
        let member = self.seats.get(&connection).and_then(|seat| self.members.get_mut(seat));
        if let Some(member) = member {
            member.is_moderator = true;
            self.changed(now);
        }
    }

    /// Notes that the list is another now.
    pub fn changed(&mut self, now: Instant) {
        self.version += 1;
        if !matches!(self.behind, Behind::Everybody(_)) {
            self.behind = Behind::Everybody(now);
        }
    }

    pub fn list(&self, timeouts: &Timeouts) -> Vec<User> {
        let user = |member: &Member| User {
            username: member.name.shown().clone(),
            is_mod: member.is_moderator,
            is_timed_out: timeouts.contains(member.name.key()),
        };
        self.members.values().map(user).collect()
    }

    /// When the next round of lists is due. While many join, the lists grow and so does the wait for them: one
    /// list tells of all.
    pub fn next_round(&self) -> Option<Instant> {
        let (since, lists) = match &self.behind {
            Behind::Nobody => return None,
            Behind::Everybody(since) => (Some(*since), self.members.len()),
            Behind::Few(seats) => (None, seats.len()),
        };
        let bytes = (lists * self.list_bytes) as f64;
        let paid = Duration::from_secs_f64(bytes / LIST_BYTES_PER_SECOND as f64);
        let paid = if self.members.len() <= SMALL_ROOM { paid.min(SMALL_ROOM_INTERVAL) } else { paid };
        since.max(self.last_round).map(|start| start + paid.max(LIST_INTERVAL))
    }

    /// Who gets the list now, if a round is due.
    pub fn round(&mut self, now: Instant) -> Option<Round> {
        if self.next_round().is_none_or(|due| now < due) {
            return None;
        }
        let (mut told, mut too_soon) = (Vec::new(), Vec::new());
        let mut tell = |seat: Seat, member: &mut Member| {
            let (version, at) = member.listed;
            if version == self.version {
            } else if now < at + LIST_INTERVAL {
                too_soon.push(seat);
            } else {
                member.listed = (self.version, now);
                told.push(member.connection);
            }
        };
        match std::mem::take(&mut self.behind) {
            Behind::Few(seats) => {
                for seat in seats {
                    if let Some(member) = self.members.get_mut(&seat) {
                        tell(seat, member);
                    }
                }
            }
            _ => self.members.iter_mut().for_each(|(&seat, member)| tell(seat, member)),
        }
        self.last_round = Some(now);
        if !too_soon.is_empty() {
            self.behind = Behind::Few(too_soon);
        }
        match told.len() {
            0 => None,
            all if all == self.members.len() => Some(Round::Everybody),
            _ => Some(Round::These(told)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn join(roster: &mut Roster, number: u64, now: Instant) {
        roster.join(ConnectionId(number), Username::parse(&format!("user{number}")).unwrap(), ADDRESS, now);
    }

    #[test]
    fn a_change_is_told_once_to_who_does_not_know() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut roster = Roster::default();
        join(&mut roster, 1, start);
        assert_eq!(roster.next_round(), Some(start + LIST_INTERVAL));
        assert_eq!(roster.round(after(60)), None, "the only one there has the newest list");
        assert_eq!(roster.next_round(), None);

        join(&mut roster, 2, after(1000));
        assert_eq!(roster.round(after(1001)), None);
        assert_eq!(roster.round(after(1060)), Some(Round::These(vec![ConnectionId(1)])));
        roster.promote(ConnectionId(1), after(2000));
        roster.promote(ConnectionId(2), after(2010));
        assert_eq!(roster.round(after(2060)), Some(Round::Everybody));
        assert_eq!(roster.round(after(9999)), None);
    }

    #[test]
    fn a_newcomer_has_its_own_interval() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut roster = Roster::default();
        join(&mut roster, 1, start);
        roster.round(after(60));
        roster.changed(after(1000));
        join(&mut roster, 2, after(1040));
        roster.changed(after(1041));
        assert_eq!(roster.round(after(1060)), Some(Round::These(vec![ConnectionId(1)])));
        let due = roster.next_round().unwrap();
        assert!(due >= after(1040) + LIST_INTERVAL);
        assert_eq!(roster.round(due), Some(Round::These(vec![ConnectionId(2)])));
        assert_eq!(roster.next_round(), None);
    }

    #[test]
    fn a_room_of_a_hundred_hears_within_a_tenth_of_a_second() {
        let start = Instant::now();
        let mut roster = Roster::default();
        for number in 0..100 {
            let name = Username::parse(&format!("{number:03}{}", "\u{1F980}".repeat(29))).unwrap();
            roster.join(ConnectionId(number), name, ADDRESS, start);
        }
        let due = roster.next_round().unwrap();
        assert!(due <= start + Duration::from_millis(90), "{:?}", due - start);
    }

    /// Issue 2: the original sent every list at once, and 400 joins cost it minutes.
    #[test]
    fn four_hundred_who_join_at_once_get_a_handful_of_lists_within_a_second() {
        let start = Instant::now();
        let mut roster = Roster::default();
        let mut lists = vec![0; 400];
        let mut tick = |roster: &mut Roster, now| match roster.round(now) {
            None => {}
            Some(Round::Everybody) => lists.iter_mut().for_each(|count| *count += 1),
            Some(Round::These(these)) => these.iter().for_each(|id| lists[id.0 as usize] += 1),
        };
        for number in 0..400 {
            let now = start + Duration::from_millis(number / 4);
            join(&mut roster, number, now);
            tick(&mut roster, now);
        }
        let mut last = start;
        while let Some(due) = roster.next_round() {
            last = due;
            tick(&mut roster, due);
        }
        assert!(last < start + Duration::from_millis(800), "{:?}", last - start);
        assert!(lists.iter().all(|&count| count <= 3), "{lists:?}");
    }

    #[test]
    fn a_large_room_is_told_as_seldom_as_its_lists_are_large() {
        let start = Instant::now();
        let mut roster = Roster::default();
        for number in 0..2000 {
            join(&mut roster, number, start);
        }
        let list = serde_json::to_string(&roster.list(&Timeouts::default())).unwrap();
        let (mut now, mut bytes) = (start, 0);
        for _ in 0..10 {
            roster.changed(now);
            now = roster.next_round().unwrap();
            bytes += match roster.round(now) {
                Some(Round::Everybody) => list.len() * 2000,
                Some(Round::These(these)) => list.len() * these.len(),
                None => 0,
            };
        }
        let rate = bytes as f64 / (now - start).as_secs_f64();
        assert!(rate < 16.0 * 1024.0 * 1024.0, "{rate}");
        assert!(rate > 8.0 * 1024.0 * 1024.0, "{rate}");
    }
}
