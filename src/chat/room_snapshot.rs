//! The whole state of a room as a value, from which another server continues.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{MAX_PAST_EPOCHS, PastEpoch, Room, reserved_names};
use crate::chat::access::NamedModerator;
use crate::chat::acts::{Ban, Decision};
use crate::chat::away::{AwayLimits, AwaySchedule};
use crate::chat::bans::{Bans, Protected};
use crate::chat::entry::{ConnectionId, ConnectionMap};
use crate::chat::format::FormatError;
use crate::chat::history::{History, HistoryLimits, KeptHistory};
use crate::chat::roster::{Roster, RosterState};
use crate::chat::time_outs::{TimeOutState, Timeouts};
#[cfg(feature = "cluster")]
use crate::chat::{HistoryEntry, KeptEntry, StoredTimeOut};

/// The state of a room, which its entries determine. Cloning messages and names costs little: they are shared with the
/// room.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    epoch: Arc<str>,
    past_epochs: Vec<PastEpoch>,
    settings: SharedSettings,
    members: RosterState,
    history: KeptHistory,
    time_outs: TimeOutState,
    /// In the order of their ids.
    bans: Vec<Arc<Ban>>,
    moderators: Vec<NamedModerator>,
    /// The decisions that are being stored, in order.
    undecided: Vec<Decision>,
    /// In the order of their ids.
    closed: Vec<ConnectionId>,
}

/// The settings that decide what entries do. All servers of a chat have the same.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SharedSettings {
    history: HistoryLimits,
    away: AwayLimits,
    #[serde(with = "crate::chat::format::texts")]
    proxies: Vec<IpNet>,
}

impl Snapshot {
    /// The last id of an epoch of the chat; of the current one, it is `last_id`. `None`: the epoch is not known.
    pub fn end_of(&self, epoch: &str, last_id: u64) -> Option<u64> {
        if *self.epoch == *epoch {
            return Some(last_id);
        }
        self.past_epochs.iter().find(|past| *past.epoch == *epoch).map(|past| past.last_id)
    }
}

impl Room {
    pub fn snapshot(&self) -> Snapshot {
        // All fields are named, so that none is forgotten.
        let Self {
            epoch,
            past_epochs,
            closed,
            roster,
            history,
            away,
            timeouts,
            bans,
            moderators,
            reserved: _,
            undecided,
            scratch: _,
        } = self;
        let mut closed: Vec<ConnectionId> = closed.keys().copied().collect();
        closed.sort_unstable();
        let settings = SharedSettings {
            history: history.limits(),
            away: away.limits(),
            proxies: bans.protected().proxies().to_vec(),
        };
        Snapshot {
            epoch: epoch.clone(),
            past_epochs: past_epochs.clone(),
            settings,
            members: roster.state(),
            history: history.kept(),
            time_outs: timeouts.state(),
            bans: bans.by_id().cloned().collect(),
            moderators: moderators.clone(),
            undecided: undecided.clone(),
            closed,
        }
    }

    /// The settings whose values differ from those of another room, and the named moderators if they do.
    #[cfg(feature = "cluster")]
    pub fn differing_settings(&self, other: &Self) -> Vec<&'static str> {
        let [(history, away), (other_history, other_away)] =
            [self, other].map(|room| (room.history.limits(), room.away.limits()));
        let proxies = |room: &Self| room.bans.protected().proxies().to_vec();
        let has_moderators_of = |one: &Self, other: &Self| {
            one.moderators.iter().all(|moderator| other.moderators.contains(moderator))
        };
        [
            ("HISTORY_MESSAGES", history.messages != other_history.messages),
            ("HISTORY_DAYS", history.age_millis != other_history.age_millis),
            ("RESUME_SECONDS", away.timeout != other_away.timeout),
            ("MAX_CONNECTIONS", away.members != other_away.members),
            ("MAX_CONNECTIONS_PER_IP", away.members_per_network != other_away.members_per_network),
            ("TRUSTED_PROXIES", proxies(self) != proxies(other)),
            ("the named moderators", !has_moderators_of(self, other) || !has_moderators_of(other, self)),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }

    /// The time-outs, for a store. In a chat of several servers, its time is the wall clock's.
    #[cfg(feature = "cluster")]
    pub fn stored_time_outs(&self) -> Vec<StoredTimeOut> {
        self.timeouts.iter().map(|(name, ends)| StoredTimeOut { name: name.clone(), until: ends.0 }).collect()
    }

    /// The messages to all members that are in memory, for a store.
    #[cfg(feature = "cluster")]
    pub fn kept_messages(&self) -> Vec<KeptEntry> {
        self.history.public().map(HistoryEntry::to_store).collect()
    }

    /// The id of the newest message that memory no longer holds; 0: there is none.
    #[cfg(feature = "cluster")]
    pub fn last_evicted(&self) -> u64 {
        self.history.last_evicted()
    }

    /// How many of the messages that memory no longer holds are kept, at most.
    #[cfg(feature = "cluster")]
    pub fn kept_beyond_memory(&self) -> usize {
        self.history.beyond_memory()
    }

    #[cfg(feature = "cluster")]
    pub fn history_limits(&self) -> HistoryLimits {
        self.history.limits()
    }

    /// The ids of the messages to all members that were deleted last, in order, for a store.
    #[cfg(feature = "cluster")]
    pub fn deleted_messages(&self) -> Vec<u64> {
        self.history.deletions().collect()
    }

    /// All deletions by entries after the one with this id are remembered.
    #[cfg(feature = "cluster")]
    pub fn remembers_deletions_after(&self) -> u64 {
        self.history.remembers_deletions_after()
    }

    /// # Errors
    /// The snapshot contradicts itself: no room has this state.
    pub fn from_snapshot(snapshot: Snapshot) -> Result<Self, FormatError> {
        let Snapshot {
            epoch,
            past_epochs,
            settings,
            members,
            history,
            time_outs,
            bans,
            moderators,
            undecided,
            closed,
        } = snapshot;
        if past_epochs.len() > MAX_PAST_EPOCHS {
            return Err(damaged("these epochs"));
        }
        let roster = Roster::restored(members).ok_or_else(|| damaged("these members"))?;
        let mut away = AwaySchedule::new(settings.away);
        roster.iter().for_each(|member| away.restore(member));
        let mut table = Bans::new(Protected::new(settings.proxies));
        if !bans.is_sorted_by(|one, other| one.id < other.id) {
            return Err(damaged("these bans"));
        }
        bans.into_iter().for_each(|ban| table.insert(ban));
        let closed: ConnectionMap<()> = closed.into_iter().map(|id| (id, ())).collect();
        Ok(Self {
            epoch,
            past_epochs,
            closed,
            history: History::restored(settings.history, history).ok_or_else(|| damaged("this history"))?,
            timeouts: Timeouts::restored(time_outs).ok_or_else(|| damaged("these time-outs"))?,
            roster,
            away,
            bans: table,
            reserved: reserved_names(&moderators),
            moderators,
            undecided,
            scratch: Vec::new(),
        })
    }
}

/// `part`: of the snapshot.
fn damaged(part: &str) -> FormatError {
    Snapshot::damaged(&format!("no chat has {part}"))
}
