//! Members that are away: their connections were lost, and they may resume.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::entry::Address;
use super::history::{HistoryEntry, Visibility};
use super::roster::JoinOrder;
use crate::limits::Network;

/// How many whispers wait for one member that is away.
pub const MAX_UNREAD: usize = 100;
/// The size of these whispers together, in bytes.
pub const MAX_UNREAD_BYTES: usize = 64 * 1024;

/// How long, and how many.
#[derive(Clone, Copy, Debug)]
pub struct AwayLimits {
    /// How long a member may be away. Zero: not at all.
    pub duration: Duration,
    /// How many members may be away at the same time.
    pub members: usize,
    /// How many of them from one address; `None`: no limit. Loopback is exempt.
    pub members_per_network: Option<usize>,
}

/// When each member that is away has to leave.
pub struct AwaySchedule {
    limits: AwayLimits,
    /// The member that has been away longest comes first.
    by_end: BTreeSet<(Instant, JoinOrder)>,
    /// The same for each address that is not exempt.
    by_network: HashMap<Network, BTreeSet<(Instant, JoinOrder)>>,
}

/// The end of a member's absence at the latest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Away {
    ends: Instant,
}

impl AwaySchedule {
    pub fn new(limits: AwayLimits) -> Self {
        Self { limits, by_end: BTreeSet::new(), by_network: HashMap::new() }
    }

    /// Adds a member. `None`: members may not be away.
    pub fn start(&mut self, member: JoinOrder, address: Address, now: Instant) -> Option<Away> {
        if self.limits.duration.is_zero() {
            return None;
        }
        let ends = now + self.limits.duration;
        self.by_end.insert((ends, member));
        if !address.is_exempt {
            self.by_network.entry(address.network).or_default().insert((ends, member));
        }
        Some(Away { ends })
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
    pub fn expired(&self, now: Instant) -> Option<JoinOrder> {
        self.by_end.first().filter(|(ends, _)| *ends <= now).map(|&(_, member)| member)
    }

    /// How many members are away.
    pub fn len(&self) -> usize {
        self.by_end.len()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_end.first().map(|&(ends, _)| ends)
    }
}

/// The whispers that wait for a member, the oldest first.
#[derive(Debug, Default)]
pub struct Unread {
    entries: Vec<HistoryEntry>,
    bytes: usize,
}

impl Unread {
    /// Whether another whisper of this size may wait, in bytes.
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

    /// How many are from each author.
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
