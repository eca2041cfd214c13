//! Who is in the room, in order of joining, and when everybody is next told (the `user_list`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::command::split_name;
use super::list_budget::{Budget, EARNED_PER_SECOND};
use super::protocol::User;
use super::room::ConnectionId;
use super::timeout::Timeouts;
use super::username::{NameKey, Username};

/// The least time between two lists to one client. A little more than the 50 ms of SPEC.md, for what the clock
/// of the hub tells apart may arrive closer together.
const LIST_INTERVAL: Duration = Duration::from_millis(55);
/// In a room of up to this many a change is told to everybody at once, whatever it costs: within 100 ms by SPEC.md.
const SMALL_ROOM: usize = 100;
/// Lists may cost no more than this at once, in seconds of what they may cost; or a single list.
const AT_ONCE: f64 = 0.055;
/// A crowd that joins at once is in everybody's list within a second, if lists for everybody cost no more than that
/// (up to some 400): there the newcomers' own lists are forgiven. In seconds of what lists may cost, with some to spare.
const A_SECOND: f64 = 0.65;
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
    /// From when on an interval is counted until somebody is told of the newest list; `None`: all have it.
    behind: Option<Instant>,
    /// Who is the first to get the next.
    next_told: Seat,
    budget: Budget,
}

type Seat = u64;

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
        self.budget.earn(now, self.portion());
        self.budget.owe(self.list_bytes as f64, self.most_owed());
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
        self.behind.get_or_insert(now);
    }

    pub fn list(&self, timeouts: &Timeouts) -> Vec<User> {
        let user = |member: &Member| User {
            username: member.name.shown().clone(),
            is_mod: member.is_moderator,
            is_timed_out: timeouts.contains(member.name.key()),
        };
        self.members.values().map(user).collect()
    }

    /// When the next round of lists is due. In a large room it goes to as many as can be paid, and the others
    /// follow; whoever has waited longest is first.
    pub fn next_round(&self) -> Option<Instant> {
        let due = self.behind? + LIST_INTERVAL;
        let paid = if self.is_small() { None } else { self.budget.when(self.portion()) };
        paid.max(Some(due))
    }

    /// Who gets the list now, if a round is due.
    pub fn round(&mut self, now: Instant) -> Option<Round> {
        if self.next_round().is_none_or(|due| now < due) {
            return None;
        }
        self.budget.earn(now, self.portion());
        let most = match self.is_small() {
            true => self.members.len(),
            false => (self.budget.saved() / self.list_bytes as f64).max(1.0) as usize,
        };
        self.behind = None;
        let mut told = Vec::new();
        for seats in [self.next_told..Seat::MAX, 0..self.next_told] {
            for (&seat, member) in self.members.range_mut(seats) {
                let (version, at) = member.listed;
                if version == self.version {
                } else if told.len() < most && now >= at + LIST_INTERVAL {
                    member.listed = (self.version, now);
                    told.push((seat, member.connection));
                } else {
                    // Another round is due when the first of these may have another list.
                    self.behind = Some(self.behind.map_or(at, |other| other.min(at)));
                }
            }
        }
        self.next_told = told.last().map_or(self.next_told, |&(seat, _)| seat + 1);
        if !self.is_small() {
            self.budget.spend((told.len() * self.list_bytes) as f64);
        }
        match told.len() {
            0 => None,
            all if all == self.members.len() => Some(Round::Everybody),
            _ => Some(Round::These(told.into_iter().map(|(_, connection)| connection).collect())),
        }
    }

    fn is_small(&self) -> bool {
        self.members.len() <= SMALL_ROOM
    }

    /// What is saved up before a round, in bytes: lists for everybody, or as much as may go out at once.
    fn portion(&self) -> f64 {
        self.for_everybody().min((AT_ONCE * EARNED_PER_SECOND).max(self.list_bytes as f64))
    }

    /// The most that newcomers' lists leave to be paid, in bytes; more is forgiven.
    fn most_owed(&self) -> f64 {
        let everybody = self.for_everybody();
        if everybody < A_SECOND * EARNED_PER_SECOND { 0.0 } else { everybody }
    }

    /// What a list to each would cost, in bytes.
    fn for_everybody(&self) -> f64 {
        (self.members.len() * self.list_bytes) as f64
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

    /// The newcomer has had a list a moment before, and the others' interval is not its own.
    #[test]
    fn in_a_small_room_a_change_is_told_within_a_tenth_of_a_second_to_newcomers_too() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut roster = Roster::default();
        join(&mut roster, 1, start);
        roster.round(after(60));
        roster.changed(after(1000));
        join(&mut roster, 2, after(1001));
        roster.changed(after(1002));
        assert_eq!(roster.round(after(1055)), Some(Round::These(vec![ConnectionId(1)])));
        let due = roster.next_round().unwrap();
        assert_eq!(due, after(1001) + LIST_INTERVAL);
        assert_eq!(roster.round(due), Some(Round::These(vec![ConnectionId(2)])));
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
        assert!(last < start + Duration::from_millis(900), "{:?}", last - start);
        assert!(lists.iter().all(|&count| count <= 3), "{lists:?}");
    }

    /// In all, with the lists of the newcomers: they get theirs at once, and the others wait the longer.
    #[test]
    fn a_thousand_who_join_at_once_cost_no_more_than_lists_may() {
        let start = Instant::now();
        let mut roster = Roster::default();
        let mut bytes = 0;
        for number in 0..1000 {
            join(&mut roster, number, start);
            bytes += roster.list_bytes;
        }
        let mut last = start;
        while let Some(due) = roster.next_round() {
            last = due;
            bytes += match roster.round(due) {
                Some(Round::Everybody) => roster.list_bytes * 1000,
                Some(Round::These(these)) => roster.list_bytes * these.len(),
                None => 0,
            };
        }
        let rate = bytes as f64 / (last - start).as_secs_f64();
        // Those who came while the room was not large yet are forgiven.
        assert!(rate < 1.1 * EARNED_PER_SECOND, "{rate}");
    }

    /// Whoever comes and goes for ever keeps nobody from the list for ever.
    #[test]
    fn a_coming_and_going_does_not_stop_the_lists() {
        let mut now = Instant::now();
        let mut roster = Roster::default();
        for number in 0..1000 {
            join(&mut roster, number, now);
        }
        let mut told = 0;
        for number in 1000..11_000 {
            now += Duration::from_millis(1);
            join(&mut roster, number, now);
            roster.leave(ConnectionId(number), now);
            told += match roster.round(now) {
                Some(Round::These(these)) => these.len(),
                _ => 0,
            };
        }
        assert!(told > 1000, "in ten seconds only {told} were told");
    }

    #[test]
    fn a_large_room_is_told_as_seldom_as_its_lists_are_large() {
        let start = Instant::now();
        let mut roster = Roster::default();
        for number in 0..2000 {
            join(&mut roster, number, start);
        }
        let list = serde_json::to_string(&roster.list(&Timeouts::default())).unwrap();
        // The newcomers' own lists are paid first.
        let paid = start + Duration::from_secs(60);
        roster.round(paid);
        let (mut now, mut bytes) = (paid, 0);
        for _ in 0..1000 {
            roster.changed(now);
            now = roster.next_round().unwrap();
            bytes += match roster.round(now) {
                Some(Round::Everybody) => list.len() * 2000,
                Some(Round::These(these)) => list.len() * these.len(),
                None => 0,
            };
        }
        let rate = bytes as f64 / (now - paid).as_secs_f64();
        assert!(rate < 16.0 * 1024.0 * 1024.0, "{rate}");
        assert!(rate > 12.0 * 1024.0 * 1024.0, "{rate}");
    }
}
