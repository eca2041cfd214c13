//! The start of a server that is one of several with the same chat.

use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, bounded};
use log::warn;

use super::history::{self, LocalHistory};
use super::signals::Wakeups;
use super::waiting::run_unless_stopped;
use super::{LocalChat, StartError, open_store, prepare};
use crate::chat::{Format, Room, Snapshot};
use crate::cluster::{self, Formats, NodeSettings, OwnState, Rank, Status, Tuning};
use crate::config::{ClusterSettings, Settings};
use crate::http::ClusterSource;
use crate::hub::{HubHandle, LogFeed, Order, SharedHistory, SharedOrder};
use crate::ops::metrics::Counters;
use crate::store;

/// What connects a running server with the chat's log.
pub struct Membership {
    /// Events of the log wait for it.
    hub: Arc<OnceLock<HubHandle>>,
    /// Gets a message once the hub has applied everything from before this server joined.
    is_current: Receiver<()>,
    status: Arc<Status>,
}

impl Membership {
    /// Waits until the hub has applied everything from before this server joined.
    ///
    /// # Errors
    /// The server is to stop.
    pub fn catch_up(&self, hub: &HubHandle, wakeups: &Wakeups) -> Result<(), StartError> {
        // It is set only here.
        let _ = self.hub.set(hub.clone());
        let is_current = self.is_current.clone();
        // If the hub has ended, `Server::run` reports why.
        let result = run_unless_stopped(wakeups, move || is_current.recv())?;
        result.map(drop).ok_or(StartError::Stopped)
    }

    /// Figures for monitoring.
    pub fn source(&self) -> ClusterSource {
        let status = self.status.clone();
        Box::new(move || status.figures())
    }
}

/// Joins the chat on the engine. This server's own chat fills the engine if it is empty and no other server has a newer
/// one. While the engine does not respond, this waits.
///
/// # Errors
/// Waiting would not help, or the server is to stop.
pub fn join(
    settings: &Settings,
    cluster: &ClusterSettings,
    mut local: LocalChat,
    counters: &Arc<Counters>,
    wakeups: &Wakeups,
) -> Result<(LocalChat, Membership), StartError> {
    let node = NodeSettings {
        cluster: cluster.clone(),
        formats: Formats { oldest: Format::OLDEST.number(), newest: Format::NEWEST.number() },
        tuning: Tuning::default(),
    };
    let snapshot = local.hub.room.snapshot();
    let chat = snapshot.encode(Format::NEWEST)?;
    let rank = match local.newest_id {
        0 => Rank::Nothing,
        id => Rank::Stored(id),
    };
    let hub = Arc::new(OnceLock::<HubHandle>::new());
    let events = hub.clone();
    let feed = LogFeed::default();
    let on_event = move |event| feed.send(events.wait(), event);
    let join = move || cluster::join(&node, move || OwnState { rank, chat }, on_event);
    let (joined, log, shared) = run_unless_stopped(wakeups, join)?.ok_or(StartError::Stopped)??;
    let mut is_older = false;
    if let Some(state) = &joined.state {
        let snapshot = Snapshot::decode(&state.chat)?;
        let last_id = match joined.epoch == *local.epoch {
            true => Some(joined.log_id),
            false => snapshot.end_of(&local.epoch, joined.id),
        };
        let reason = match last_id {
            _ if local.newest_id == 0 => None,
            None => Some("a chat other than that of CLUSTER_URL"),
            // They may exist only there, and their ids may belong to other messages now.
            Some(last_id) if local.newest_id > last_id => {
                Some("messages that the chat of CLUSTER_URL has lost")
            }
            Some(_) => None,
        };
        if let Some(reason) = reason {
            local = set_aside(settings, local, counters, reason)?;
        }
        let room = Room::from_snapshot(snapshot)?;
        let differing = room.differing_settings(&local.hub.room);
        if !differing.is_empty() {
            warn!("Using the chat's values instead of this server's, which differ: {}", differing.join(", "));
        }
        is_older = local.newest_id > 0 && *local.epoch != joined.epoch;
        local.hub.room = room;
    }
    local.hub.room.continue_in(joined.epoch.as_str().into(), joined.id);
    let (sender, is_current) = bounded(1);
    let status = log.status();
    let (history, work) = SharedHistory::new();
    let own = LocalHistory { has_store: local.writer.is_some(), is_copy: joined.state.is_none(), is_older };
    history::start(shared, work, hub.clone(), own)?;
    local.hub.order = Order::Shared(Box::new(SharedOrder::new(log, history, &joined, sender)));
    Ok((local, Membership { hub, is_current, status }))
}

/// Renames the store, because of what it holds, and creates an empty one.
fn set_aside(
    settings: &Settings,
    local: LocalChat,
    counters: &Arc<Counters>,
    held: &str,
) -> Result<LocalChat, StartError> {
    let (Some(path), epoch) = (settings.database.path(), local.epoch.clone()) else { return Ok(local) };
    // Closes the store.
    drop(local);
    let backup = store::set_aside(path, &epoch)?;
    warn!(
        "The store {} held {held}: renamed it to {}, and created an empty one",
        path.display(),
        backup.display()
    );
    Ok(prepare(settings, open_store(settings, counters)?)?)
}
