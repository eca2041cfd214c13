//! Members that are away: their connections were lost, and they may resume.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::{Address, ChatTime};
use super::format::is_default;
use super::history::{HistoryEntry, Visibility};
use super::roster::{JoinOrder, Member, Presence};
use crate::limits::Network;

/// How many whispers wait for one member that is away.
pub const MAX_UNREAD: usize = 100;
/// What these whispers together may take in memory, in bytes.
pub const MAX_UNREAD_BYTES: usize = 64 * 1024;
/// What waits for all members together may take, in bytes. In a snapshot, it takes at most three times as much.
pub const MAX_ALL_UNREAD_BYTES: usize = 8 * 1024 * 1024;
/// What an error that waits takes besides its text, in bytes.
const NOTICE_BYTES: usize = 48;

/// Servers ask for an entry when a member's time is over. If it comes this much later, the engine was unavailable.
const OVERDUE: Duration = Duration::from_secs(2);
/// After that, members have at least this long to resume. What they sent in time may still be in a server's queue.
const GRACE: Duration = Duration::from_secs(10);

/// How long a member may be away, and how many may be away at once.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwayLimits {
    /// How long a member may be away. Zero: not at all.
    pub timeout: Duration,
    /// How many members may be away at the same time.
    pub members: usize,
    /// How many of them from one address; `None`: no limit. Loopback is exempt.
    pub members_per_network: Option<usize>,
}

/// The members that are away, by when they leave.
pub struct AwaySchedule {
    limits: AwayLimits,
    /// The member that has been away longest comes first.
    by_end: BTreeSet<(ChatTime, JoinOrder)>,
    /// The same for each address that is not exempt.
    by_network: HashMap<Network, BTreeSet<(ChatTime, JoinOrder)>>,
}

/// When a member leaves unless it resumes first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Away {
    ends: ChatTime,
    /// Whether it was given more time.
    #[serde(default, skip_serializing_if = "is_default")]
    is_delayed: bool,
}

impl AwaySchedule {
    pub fn new(limits: AwayLimits) -> Self {
        Self { limits, by_end: BTreeSet::new(), by_network: HashMap::new() }
    }

    /// The members that may need more time, because no entry came when the time of one of them was over.
    pub fn late(&self, now: ChatTime) -> Vec<JoinOrder> {
        match self.by_end.first() {
            Some(&(first, _)) if now.saturating_since(first) >= OVERDUE => {
                self.by_end.range(..(now + GRACE, JoinOrder::default())).map(|&(_, member)| member).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Gives a member more time, once.
    pub fn delay(&mut self, member: JoinOrder, address: Address, away: &mut Away, now: ChatTime) {
        if !away.is_delayed {
            self.end(member, address, *away);
            *away = Away { ends: now + GRACE, is_delayed: true };
            self.insert(member, address, *away);
        }
    }

    /// Adds a member. `None`: members may not be away.
    pub fn start(&mut self, member: JoinOrder, address: Address, now: ChatTime) -> Option<Away> {
        if self.limits.timeout.is_zero() {
            return None;
        }
        let away = Away { ends: now + self.limits.timeout, is_delayed: false };
        self.insert(member, address, away);
        Some(away)
    }

    pub fn limits(&self) -> AwayLimits {
        self.limits
    }

    /// Adds a member of a snapshot, if it is away.
    pub fn restore(&mut self, member: &Member) {
        if let Presence::Away(away, _) = member.presence {
            self.insert(member.order, member.address, away);
        }
    }

    fn insert(&mut self, member: JoinOrder, address: Address, away: Away) {
        self.by_end.insert((away.ends, member));
        if !address.is_exempt {
            self.by_network.entry(address.network).or_default().insert((away.ends, member));
        }
    }

    pub fn end(&mut self, member: JoinOrder, Address { network, .. }: Address, away: Away) {
        self.by_end.remove(&(away.ends, member));
        if let Some(members) = self.by_network.get_mut(&network) {
            members.remove(&(away.ends, member));
            if members.is_empty() {
                self.by_network.remove(&network);
            }
        }
    }

    /// The member that has been away longest, if more are away than may be, in total or from this address.
    pub fn excess(&self, network: Network) -> Option<JoinOrder> {
        let of_network = self
            .by_network
            .get(&network)
            .filter(|members| self.limits.members_per_network.is_some_and(|limit| members.len() > limit));
        let in_total = Some(&self.by_end).filter(|members| members.len() > self.limits.members);
        of_network.or(in_total)?.first().map(|&(_, member)| member)
    }

    /// A member whose time is over.
    pub fn expired(&self, now: ChatTime) -> Option<JoinOrder> {
        self.by_end.first().filter(|(ends, _)| *ends <= now).map(|&(_, member)| member)
    }

    /// How many members are away.
    pub fn len(&self) -> usize {
        self.by_end.len()
    }

    pub fn next_deadline(&self) -> Option<ChatTime> {
        self.by_end.first().map(|&(ends, _)| ends)
    }
}

/// What waits for a member that is away.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "(Vec<HistoryEntry>, Vec<String>)", into = "(Vec<HistoryEntry>, Vec<String>)")]
pub struct Unread {
    /// Whispers, the oldest first.
    entries: Vec<HistoryEntry>,
    /// What these take in memory.
    bytes: usize,
    /// Errors about the member's own whispers, which were not received.
    notices: Vec<String>,
}

impl From<(Vec<HistoryEntry>, Vec<String>)> for Unread {
    fn from((entries, notices): (Vec<HistoryEntry>, Vec<String>)) -> Self {
        Self { bytes: entries.iter().map(HistoryEntry::bytes).sum(), entries, notices }
    }
}

impl From<Unread> for (Vec<HistoryEntry>, Vec<String>) {
    fn from(unread: Unread) -> Self {
        (unread.entries, unread.notices)
    }
}

impl Unread {
    /// What it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.notices.iter().map(|notice| notice_bytes(notice)).sum::<usize>()
    }

    /// Whether another whisper may wait that takes this much memory, in bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() < MAX_UNREAD && self.bytes + bytes <= MAX_UNREAD_BYTES
    }

    pub fn push(&mut self, entry: HistoryEntry) {
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }

    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// Removes a whisper that was deleted.
    pub fn remove(&mut self, id: u64) -> Option<HistoryEntry> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        let entry = self.entries.remove(at);
        self.bytes -= entry.bytes();
        Some(entry)
    }

    /// Adds an error, unless [`MAX_UNREAD`] wait already or it takes more than `max_bytes` in memory. Returns what it
    /// takes, in bytes.
    pub fn notify(&mut self, notice: String, max_bytes: usize) -> usize {
        let bytes = notice_bytes(&notice);
        if self.notices.len() >= MAX_UNREAD || bytes > max_bytes {
            return 0;
        }
        self.notices.push(notice);
        bytes
    }

    pub fn into_notices(self) -> impl Iterator<Item = String> {
        self.notices.into_iter()
    }

    /// How many whispers are from each author.
    pub fn authors(&self) -> BTreeMap<JoinOrder, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            if let Visibility::Participants(places) = &entry.visibility {
                *counts.entry(places[0].order).or_insert(0) += 1;
            }
        }
        counts
    }
}

fn notice_bytes(notice: &str) -> usize {
    NOTICE_BYTES + notice.len()
}
