//! When the `user_list` is sent, and to whom. This depends on the clock and on what clients accept, so it is no part of
//! the room: it follows the room's effects.
//!
//! Changes are coalesced: each member gets the newest list at most once per [`LIST_INTERVAL`]. In a large room, a
//! round goes to as many members as the budget allows, and the next round continues after the last of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::entry::ConnectionId;
use super::list_budget::{JoinPace, LIST_RATE, ListBudget};
use super::room::{Audience, Effect};
use super::username::Username;

/// The least time between two lists to one client: a little more than the 50 ms of docs/protocol.md, because
/// lists that the hub sends 50 ms apart may arrive closer together.
const LIST_INTERVAL: Duration = Duration::from_millis(55);
/// In a room of up to this many members, the budget does not apply: every change is sent to all within 100 ms
/// (docs/protocol.md).
const SMALL_ROOM: usize = 100;
/// The most that one round may cost, in seconds of the budget; a single list is always allowed.
const MAX_ROUND_SECONDS: f64 = 0.055;
/// Lists take at most this part of a slow member's line, in bytes per second: half of what a member must accept in
/// order not to be cut off.
const SLOW_LIST_RATE: f64 = 64.0 * 1024.0;
/// A slow member is sent the list after this long, whether it has caught up or not.
const MIN_SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// The size of a list entry without its name: `{"username":,"is_mod":false,"is_timed_out":false},`.
const ENTRY_BYTES: usize = 50;
/// What the entry of a member that is away has in addition: `,"is_away":true`.
const AWAY_BYTES: usize = 15;
/// The size of the list without its entries, with the frame's header.
const LIST_BYTES: usize = 65;

/// How large the list is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ListSize {
    /// The number of members, including those that are away.
    members: usize,
    /// The size of their entries, in bytes.
    entry_bytes: usize,
}

impl ListSize {
    /// Adds a member that is connected.
    pub fn add(&mut self, name: &Username) {
        self.members += 1;
        self.entry_bytes += entry_bytes(name);
    }

    /// Removes a member that is connected.
    pub fn remove(&mut self, name: &Username) {
        self.members -= 1;
        self.entry_bytes -= entry_bytes(name);
    }

    /// A connected member is away now.
    pub fn away(&mut self) {
        self.entry_bytes += AWAY_BYTES;
    }

    /// A member that was away is connected now.
    pub fn back(&mut self) {
        self.entry_bytes -= AWAY_BYTES;
    }

    /// Whether a member that resumes is sent the list at once. In a large room it waits for a later round, because
    /// after a proxy restart all members resume at once.
    pub fn is_small(self) -> bool {
        self.members <= SMALL_ROOM
    }

    /// The size of the list, in bytes.
    fn bytes(self) -> usize {
        LIST_BYTES + self.entry_bytes
    }
}

/// Which members have been sent which list.
#[derive(Default)]
pub struct UserLists {
    /// The list that each connected member was last sent.
    sent: BTreeMap<ConnectionId, Sent>,
    size: ListSize,
    /// Counts the changes of the list.
    version: u64,
    /// The next round is due one [`LIST_INTERVAL`] after this; `None`: all members have the newest list.
    outdated_since: Option<Instant>,
    /// Where the next round starts.
    next_recipient: ConnectionId,
    budget: ListBudget,
}

struct Sent {
    version: u64,
    at: Instant,
}

impl UserLists {
    /// Follows an effect of the room. Call this for all of them, in their order.
    pub fn follow(&mut self, effect: &Effect, now: Instant) {
        match effect {
            Effect::ListChanged(size) => {
                self.size = *size;
                self.version += 1;
                self.outdated_since.get_or_insert(now);
            }
            Effect::Enter(id, _) => self.entered(*id, now),
            Effect::Resume(id, _) => self.resumed(*id, now),
            Effect::Leave(id, _) | Effect::Away(id, _) | Effect::CloseReplaced(id) | Effect::Close(id, _) => {
                self.sent.remove(id);
            }
            _ => {}
        }
    }

    /// Adds a new member, which is sent the list when it joins.
    fn entered(&mut self, id: ConnectionId, now: Instant) {
        self.sent.insert(id, Sent { version: self.version, at: now });
        self.budget.accrue(now, self.round_bytes());
        self.budget.spend_on_new_member(self.size.bytes() as f64);
    }

    fn resumed(&mut self, id: ConnectionId, now: Instant) {
        let sent = if self.size.is_small() {
            Sent { version: self.version, at: now }
        } else {
            self.outdated_since.get_or_insert(now);
            // Any other than the current version.
            let version = self.version.wrapping_sub(1);
            Sent { version, at: now.checked_sub(LIST_INTERVAL).unwrap_or(now) }
        };
        self.sent.insert(id, sent);
    }

    /// When [`Self::next_round`] will return recipients, if nothing changes until then.
    pub fn next_deadline(&self) -> Option<Instant> {
        let interval_over = self.outdated_since? + LIST_INTERVAL;
        let affordable =
            if self.size.is_small() { None } else { self.budget.available_at(self.round_bytes()) };
        affordable.max(Some(interval_over))
    }

    /// Who is to be sent the list now, if a round is due. A slow member, which has a backlog, would get lists that are
    /// outdated when they arrive: it is sent one only once it has caught up, or after [`Self::slow_interval`].
    pub fn next_round(&mut self, now: Instant, is_slow: impl Fn(ConnectionId) -> bool) -> Option<Audience> {
        if self.next_deadline().is_none_or(|due| now < due) {
            return None;
        }
        self.budget.accrue(now, self.round_bytes());
        let max_recipients = if self.size.is_small() {
            self.sent.len()
        } else {
            (self.budget.saved() / self.size.bytes() as f64).max(1.0) as usize
        };
        let recipients = self.take_recipients(max_recipients, now, is_slow);
        if !self.size.is_small() {
            self.budget.spend((recipients.len() * self.size.bytes()) as f64);
        }
        match recipients.len() {
            0 => None,
            all if all == self.sent.len() => Some(Audience::All),
            _ => Some(Audience::Only(recipients)),
        }
    }

    /// Marks up to `max` members as having the newest list, beginning where the last round ended.
    fn take_recipients(
        &mut self,
        max: usize,
        now: Instant,
        is_slow: impl Fn(ConnectionId) -> bool,
    ) -> Vec<ConnectionId> {
        self.outdated_since = None;
        let slow_interval = self.slow_interval();
        let mut recipients = Vec::new();
        let start = self.next_recipient;
        for before_start in [false, true] {
            let members =
                if before_start { self.sent.range_mut(..start) } else { self.sent.range_mut(start..) };
            for (&id, sent) in members {
                if sent.version == self.version {
                    continue;
                }
                if now < sent.at + slow_interval && is_slow(id) {
                    // It is checked again after one interval.
                    self.outdated_since = Some(self.outdated_since.map_or(now, |at| at.min(now)));
                } else if recipients.len() < max && now >= sent.at + LIST_INTERVAL {
                    (sent.version, sent.at) = (self.version, now);
                    recipients.push(id);
                    self.next_recipient = ConnectionId(id.0 + 1);
                } else {
                    // The next round is due when the first of these may be sent another list.
                    self.outdated_since = Some(self.outdated_since.map_or(sent.at, |at| at.min(sent.at)));
                }
            }
        }
        recipients
    }

    /// How fast members may join without exceeding the list rate.
    pub fn join_pace(&self) -> JoinPace {
        self.budget.join_pace(self.size.bytes())
    }

    /// The least time between two lists to a member that has a backlog all the time.
    fn slow_interval(&self) -> Duration {
        MIN_SLOW_INTERVAL.max(Duration::from_secs_f64(self.size.bytes() as f64 / SLOW_LIST_RATE))
    }

    /// The budget that a round needs, in bytes: lists to all members, or the most that a round may cost.
    fn round_bytes(&self) -> f64 {
        self.lists_to_all_bytes().min((MAX_ROUND_SECONDS * LIST_RATE).max(self.size.bytes() as f64))
    }

    fn lists_to_all_bytes(&self) -> f64 {
        (self.sent.len() * self.size.bytes()) as f64
    }
}

/// The size of a name's entry in the list, in bytes.
pub fn entry_bytes(name: &Username) -> usize {
    // A quotation mark or a backslash in the name takes two bytes, and the name stands between two more.
    let escaped = name.shown().bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    ENTRY_BYTES + name.shown().len() + escaped + 2
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::chat::away::{AwayLimits, AwaySchedule, Unread};
    use crate::chat::entry::{Address, ChatTime, Guest};
    use crate::chat::protocol::ServerMessage;
    use crate::chat::roster::{Presence, Role, Roster};
    use crate::chat::time_outs::Timeouts;
    use crate::chat::username::Username;

    /// A roster with its lists.
    struct Room {
        roster: Roster,
        lists: UserLists,
    }

    impl Room {
        fn new() -> Self {
            Self { roster: Roster::default(), lists: UserLists::default() }
        }

        fn join_as(&mut self, number: u64, name: &str, now: Instant) {
            let (id, name) = (ConnectionId(number), Username::parse(name).unwrap());
            let shown = name.shown().clone();
            self.roster.join(
                id,
                name,
                Guest { address: address(), opened: ChatTime(0), only_resumes: false },
                Role::Member,
                None,
                0,
            );
            self.change(now);
            self.lists.follow(&Effect::Enter(id, shown), now);
        }

        fn join(&mut self, number: u64, now: Instant) {
            self.join_as(number, &format!("user{number}"), now);
        }

        fn leave(&mut self, number: u64, now: Instant) {
            let id = ConnectionId(number);
            let member = self.roster.by_connection(id).unwrap().order;
            let member = self.roster.leave(member).unwrap();
            self.change(now);
            self.lists.follow(&Effect::Leave(id, member.name.shown().clone()), now);
        }

        fn lose(&mut self, number: u64, now: Instant) {
            let id = ConnectionId(number);
            let member = self.roster.by_connection(id).unwrap();
            let (order, name) = (member.order, member.name.shown().clone());
            let limits = AwayLimits { timeout: Duration::from_secs(30), ..AwayLimits::default() };
            let away = AwaySchedule::new(limits).start(order, address(), ChatTime(0)).unwrap();
            self.roster.set_presence(order, Presence::Away(away, Unread::default()));
            self.change(now);
            self.lists.follow(&Effect::Away(id, name), now);
        }

        /// A member that was away resumes.
        fn resume(&mut self, name: &str, number: u64, now: Instant) {
            let id = ConnectionId(number);
            let member = self.roster.by_name(Username::parse(name).unwrap().key()).unwrap();
            let (order, name) = (member.order, member.name.shown().clone());
            self.roster.set_presence(order, Presence::Connected(id));
            self.change(now);
            self.lists.follow(&Effect::Resume(id, name), now);
        }

        fn change(&mut self, now: Instant) {
            self.lists.follow(&Effect::ListChanged(self.roster.list_size()), now);
        }

        fn list_bytes(&self) -> usize {
            self.roster.list_size().bytes()
        }
    }

    fn address() -> Address {
        Address { network: IpAddr::from(Ipv4Addr::LOCALHOST).into(), is_exempt: true }
    }

    /// No member is slow.
    fn none(_: ConnectionId) -> bool {
        false
    }

    fn only(numbers: &[u64]) -> Option<Audience> {
        Some(Audience::Only(numbers.iter().copied().map(ConnectionId).collect()))
    }

    fn recipients(round: Option<Audience>, members: usize) -> usize {
        match round {
            None => 0,
            Some(Audience::Only(recipients)) => recipients.len(),
            Some(_) => members,
        }
    }

    #[test]
    fn a_change_is_sent_once_to_those_that_do_not_have_it() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut room = Room::new();
        room.join(1, start);
        assert_eq!(room.lists.next_deadline(), Some(start + LIST_INTERVAL));
        assert_eq!(room.lists.next_round(after(60), none), None, "the only member has the newest list");
        assert_eq!(room.lists.next_deadline(), None);

        room.join(2, after(1000));
        assert_eq!(room.lists.next_round(after(1001), none), None);
        assert_eq!(room.lists.next_round(after(1060), none), only(&[1]));
        room.change(after(2000));
        room.change(after(2010));
        assert_eq!(room.lists.next_round(after(2060), none), Some(Audience::All));
        assert_eq!(room.lists.next_round(after(9999), none), None);
    }

    #[test]
    fn a_room_of_a_hundred_gets_a_change_within_100_ms() {
        let start = Instant::now();
        let mut room = Room::new();
        for number in 0..100 {
            room.join_as(number, &format!("{number:03}{}", "\u{1F980}".repeat(29)), start);
        }
        let due = room.lists.next_deadline().unwrap();
        assert!(due <= start + Duration::from_millis(90), "{:?}", due - start);
    }

    /// A member that has just joined was sent a list later than the others: its interval ends later too.
    #[test]
    fn in_a_small_room_new_members_get_a_change_within_100_ms_as_well() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut room = Room::new();
        room.join(1, start);
        room.lists.next_round(after(60), none);
        room.change(after(1000));
        room.join(2, after(1001));
        room.change(after(1002));
        assert_eq!(room.lists.next_round(after(1055), none), only(&[1]));
        let due = room.lists.next_deadline().unwrap();
        assert_eq!(due, after(1001) + LIST_INTERVAL);
        assert_eq!(room.lists.next_round(due, none), only(&[2]));
    }

    /// A slow member in a room of 100 with long names was once sent 340 KB of lists per second, all of which waited.
    #[test]
    fn a_slow_member_gets_only_the_newest_list_once_it_has_caught_up() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let is_slow = |id| id == ConnectionId(1);
        let mut room = Room::new();
        room.join(1, start);
        room.join(2, start);
        for round in 1..10 {
            room.change(after(round * 100));
            assert_eq!(room.lists.next_round(after(round * 100 + 60), is_slow), only(&[2]));
        }
        let due = room.lists.next_deadline().unwrap();
        assert_eq!(due, after(960) + LIST_INTERVAL, "no sooner, or the hub would not wait");
        assert_eq!(room.lists.next_round(due, is_slow), None);
        assert_eq!(room.lists.next_deadline(), Some(due + LIST_INTERVAL));
        assert_eq!(room.lists.next_round(due + LIST_INTERVAL, none), only(&[1]));
        assert_eq!(room.lists.next_deadline(), None);
    }

    /// A member on a line that is always busy once showed a wrong list for as long as that lasted.
    #[test]
    fn a_member_that_never_catches_up_gets_a_list_every_two_seconds() {
        let start = Instant::now();
        let mut room = Room::new();
        room.join(1, start);
        room.join(2, start);
        let mut lists = 0;
        while let Some(due) = room.lists.next_deadline().filter(|&due| due < start + 5 * MIN_SLOW_INTERVAL) {
            let round = room.lists.next_round(due, |id| id == ConnectionId(1));
            lists += usize::from(matches!(round, Some(Audience::All)) || round == only(&[1]));
            room.change(due);
        }
        assert_eq!(lists, 4, "one every two seconds, after that of its join");
        for number in 3..3000 {
            room.join(number, start);
        }
        let rate = room.list_bytes() as f64 / room.lists.slow_interval().as_secs_f64();
        assert!(
            (rate - SLOW_LIST_RATE).abs() < 1.0,
            "long lists are sent less often: {rate} bytes per second"
        );
    }

    /// The original sends every list at once, and takes minutes for 400 joins.
    #[test]
    fn four_hundred_joins_at_once_send_each_member_at_most_three_lists_within_a_second() {
        let start = Instant::now();
        let mut room = Room::new();
        let mut lists = vec![0; 400];
        let mut count = |round| match round {
            None => {}
            Some(Audience::Only(recipients)) => {
                recipients.iter().for_each(|id: &ConnectionId| lists[id.0 as usize] += 1)
            }
            Some(_) => lists.iter_mut().for_each(|count| *count += 1),
        };
        for number in 0..400 {
            let now = start + Duration::from_millis(number / 4);
            room.join(number, now);
            count(room.lists.next_round(now, none));
        }
        let mut last = start;
        while let Some(due) = room.lists.next_deadline() {
            last = due;
            count(room.lists.next_round(due, none));
        }
        assert!(last < start + Duration::from_millis(900), "{:?}", last - start);
        assert!(lists.iter().all(|&count| count <= 3), "{lists:?}");
    }

    /// Includes new members' own lists: they are sent at once, which delays the other lists.
    #[test]
    fn a_thousand_joins_at_once_stay_within_the_list_rate() {
        let start = Instant::now();
        let mut room = Room::new();
        let mut bytes = 0;
        for number in 0..1000 {
            room.join(number, start);
            bytes += room.list_bytes();
        }
        let mut last = start;
        while let Some(due) = room.lists.next_deadline() {
            last = due;
            bytes += room.list_bytes() * recipients(room.lists.next_round(due, none), 1000);
        }
        let rate = bytes as f64 / (last - start).as_secs_f64();
        // The first joins, while the room is small, are not charged.
        assert!(rate < 1.1 * LIST_RATE, "{rate}");
    }

    #[test]
    fn a_loop_of_joins_and_leaves_does_not_stop_the_lists() {
        let mut now = Instant::now();
        let mut room = Room::new();
        for number in 0..1000 {
            room.join(number, now);
        }
        let mut sent = 0;
        for number in 1000..11_000 {
            now += Duration::from_millis(1);
            room.join(number, now);
            room.leave(number, now);
            sent += recipients(room.lists.next_round(now, none), 1000);
        }
        assert!(sent > 1000, "only {sent} lists were sent in ten seconds");
    }

    #[test]
    fn a_large_room_uses_its_list_rate_and_no_more() {
        let start = Instant::now();
        let mut room = Room::new();
        for number in 0..2000 {
            room.join(number, start);
        }
        let list = serde_json::to_vec(&room.roster.users(&Timeouts::default())).unwrap();
        // The debt for the new members' own lists is repaid first.
        let repaid = start + Duration::from_secs(60);
        room.lists.next_round(repaid, none);
        let (mut now, mut bytes) = (repaid, 0);
        for _ in 0..1000 {
            room.change(now);
            now = room.lists.next_deadline().unwrap();
            bytes += list.len() * recipients(room.lists.next_round(now, none), 2000);
        }
        let rate = bytes as f64 / (now - repaid).as_secs_f64();
        assert!(rate < LIST_RATE, "{rate}");
        assert!(rate > 0.75 * LIST_RATE, "{rate}");
    }

    /// A room whose members are mostly away is large, as their entries make the list long.
    #[test]
    fn a_large_room_stays_large_while_most_members_are_away() {
        let now = Instant::now();
        let mut room = Room::new();
        for number in 0..1000 {
            room.join(number, now);
        }
        let list_bytes = room.list_bytes();
        for number in 10..1000 {
            room.lose(number, now);
        }
        assert!(!room.roster.list_size().is_small());
        assert_eq!(room.list_bytes(), list_bytes + 990 * AWAY_BYTES);
        // One that resumes gets its list in a later round, at the list rate.
        room.resume("user10", 2000, now);
        let mut last = now;
        while let Some(due) = room.lists.next_deadline() {
            last = due;
            let round = room.lists.next_round(due, none);
            if matches!(&round, Some(Audience::All))
                || matches!(&round, Some(Audience::Only(ids)) if ids.contains(&ConnectionId(2000)))
            {
                return;
            }
        }
        panic!("it got no list until {:?}", last - now);
    }

    #[test]
    fn in_a_small_room_a_member_that_resumes_gets_the_list_at_once() {
        let now = Instant::now();
        let mut room = Room::new();
        room.join(1, now);
        room.lose(1, now);
        room.resume("user1", 2, now);
        assert_eq!(room.lists.next_round(now + Duration::from_secs(1), none), None, "it has the newest list");
    }

    /// Quotation marks and backslashes were once counted as one byte each, and take two.
    #[test]
    fn lists_are_charged_for_all_their_bytes() {
        let now = Instant::now();
        let mut room = Room::new();
        let escaped = "\"\\".repeat(Username::MAX_CHARS / 2);
        for number in 0..8 {
            room.join_as(number, &format!("{}{number}", &escaped[1..]), now);
            let mut json = Vec::new();
            let content = room.roster.users(&Timeouts::default());
            ServerMessage::UserList { content }.encode("12:00:00", &mut json);
            let charged = room.list_bytes();
            assert!((json.len()..json.len() * 6 / 5).contains(&charged), "{charged} for {}", json.len());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Leave(usize),
        Change,
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Join),
            3 => (0..10_000_usize).prop_map(Step::Leave),
            1 => Just(Step::Change),
            2 => (0..40_u64).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..2000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Joins and leaves in a loop once caused several times the list rate. Joins wait until `join_pace` allows
        /// them, and a round is sent when it is due.
        #[test]
        fn no_churn_exceeds_the_list_rate(members in 0..1500_u64, steps in steps()) {
            let start = Instant::now();
            let (mut room, mut now, mut bytes, mut next) = (Room::new(), start, 0_usize, 0);
            let mut last_sent = HashMap::new();
            let joins = (0..members).map(|_| Step::Join);
            for step in joins.chain(steps) {
                match step {
                    Step::Join => {
                        now = now.max(room.lists.join_pace().resume_at(0, 0, now));
                        room.join_as(next, &format!("{next:032}"), now);
                        bytes += room.list_bytes();
                        last_sent.insert(ConnectionId(next), now);
                        next += 1;
                    }
                    Step::Leave(at) => {
                        let mut present: Vec<u64> = last_sent.keys().map(|id: &ConnectionId| id.0).collect();
                        if !present.is_empty() {
                            present.sort_unstable();
                            let number = present[at % present.len()];
                            room.leave(number, now);
                            last_sent.remove(&ConnectionId(number));
                        }
                    }
                    Step::Change => room.change(now),
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
                while let Some(due) = room.lists.next_deadline().filter(|&due| due <= now) {
                    let Some(round) = room.lists.next_round(now, none) else {
                        prop_assert!(room.lists.next_deadline().is_none_or(|next| next > due));
                        continue;
                    };
                    let recipients = match round {
                        Audience::Only(recipients) => recipients,
                        _ => last_sent.keys().copied().collect(),
                    };
                    bytes += recipients.len() * room.list_bytes();
                    for id in recipients {
                        let before = last_sent.insert(id, now).unwrap();
                        prop_assert!(now - before >= Duration::from_millis(50));
                    }
                }
            }
            // The credit and the debt of `ListBudget`, and a round and a join that exceed them.
            let allowed = LIST_RATE * (now - start).as_secs_f64() + 44.0 * 1024.0 * 1024.0;
            prop_assert!(bytes as f64 <= allowed, "{bytes} bytes, {allowed} allowed");
        }
    }
}
