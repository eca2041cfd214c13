//! The whole state of a room as a value, from which another server continues.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Effect, Room, reserved_names};
use crate::chat::acts::{Ban, Decision};
use crate::chat::away::{AwayLimits, AwaySchedule};
use crate::chat::bans::{Bans, Protected};
use crate::chat::entry::{ConnectionId, ConnectionMap};
use crate::chat::format::FormatError;
use crate::chat::history::{History, HistoryLimits, KeptHistory, LocalStore};
use crate::chat::roster::{Member, Roster, RosterState};
use crate::chat::time_outs::{TimeOutState, Timeouts};
use crate::chat::username::Username;

/// What a room is, as its entries have made it. Cloning messages and names costs little: they are shared with the room.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    epoch: Arc<str>,
    settings: SharedSettings,
    members: RosterState,
    history: KeptHistory,
    time_outs: TimeOutState,
    /// In the order of their ids.
    bans: Vec<Arc<Ban>>,
    /// The names of the named moderators.
    moderators: Vec<Username>,
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

impl Room {
    pub fn snapshot(&self) -> Snapshot {
        // All fields are named, so that none is forgotten.
        let Self {
            epoch,
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

    /// `store`: of this server; `None`: it has none.
    ///
    /// # Errors
    /// The snapshot contradicts itself: no room has this state.
    pub fn from_snapshot(snapshot: Snapshot, store: Option<LocalStore>) -> Result<Self, FormatError> {
        let Snapshot { epoch, settings, members, history, time_outs, bans, moderators, undecided, closed } =
            snapshot;
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
            closed,
            history: History::restored(settings.history, history, store)
                .ok_or_else(|| damaged("this history"))?,
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

    /// What a server that starts from a snapshot has missed: the effects by which it would know of the members, their
    /// sessions and the bans.
    pub fn missed_effects(&self) -> Vec<Effect> {
        let session = |member: &Member| Some(Effect::OpenSession(member.session?, member.name.key().clone()));
        let mut effects = vec![self.list_changed()];
        effects.extend(self.roster.iter().filter_map(session));
        effects.extend(self.bans.by_id().cloned().map(Effect::PublishBan));
        effects
    }
}

/// `part`: of the snapshot.
fn damaged(part: &str) -> FormatError {
    Snapshot::damaged(&format!("no chat has {part}"))
}
