//! Changes of the store that come from a chat of several servers.

use std::mem::take;
use std::sync::Arc;

use log::warn;
use rusqlite::{Connection, Row, params};

use super::messages::{self, Insert};
use super::moderation::{self, meta, set_meta};
use super::moderators;
use super::queue::Item;
use super::{SHARED_KEY, StoreLimits, int};
use crate::chat::{Act, Action, Ban, KeptEntry, NamedModerator, PastEpoch, StoredTimeOut};

/// The chat as this server has it. What the store holds becomes the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Followed {
    /// Identifies the sequence of ids.
    pub epoch: Arc<str>,
    /// The epochs before it.
    pub past_epochs: Vec<PastEpoch>,
    /// The id of the last entry in this state.
    pub last_id: u64,
    pub bans: Vec<Ban>,
    pub time_outs: Vec<StoredTimeOut>,
    pub moderators: Vec<NamedModerator>,
    /// The last messages that were deleted, in order.
    pub deleted: Vec<u64>,
    /// `deleted` contains all messages that were deleted by entries after the one with this id.
    pub deleted_after: u64,
    /// All public and system messages that are in memory, the oldest first.
    pub messages: Vec<KeptEntry>,
}

/// A change that is stored without an answer.
pub enum Change {
    Follow(Followed),
    /// `is_shared`: other servers have the chat as well.
    Epoch {
        epoch: Arc<str>,
        is_shared: bool,
    },
    /// All named moderators.
    Moderators(Vec<NamedModerator>),
    /// Messages of the shared history, which the store may lack. They come again if they are not stored.
    Copy(Vec<KeptEntry>),
    /// An act that has taken effect, maybe through another server. It may be stored already.
    Applied(Box<Act>),
}

impl Change {
    /// What it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Follow(followed) => {
                followed.bytes() + followed.messages.iter().map(message_bytes).sum::<usize>()
            }
            // A few bytes, and seldom.
            Self::Epoch { .. } => 0,
            Self::Moderators(moderators) => moderators_bytes(moderators),
            Self::Copy(messages) => messages.iter().map(message_bytes).sum(),
            Self::Applied(act) => Item::act_bytes(act),
        }
    }

    /// How many messages, or acts for the record, are lost if it is not stored.
    pub fn losses(&self) -> usize {
        match self {
            Self::Follow(followed) => followed.messages.len(),
            Self::Applied(_) => 1,
            Self::Epoch { .. } | Self::Moderators(_) | Self::Copy(_) => 0,
        }
    }

    /// The id of the message that it deletes.
    pub fn deletes(&self) -> Option<u64> {
        match self {
            Self::Applied(act) => match act.action {
                Action::Delete { id, .. } => Some(id),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it changes more of the table of messages than [`Self::deletes`] says.
    pub fn replaces_messages(&self) -> bool {
        matches!(self, Self::Follow(_) | Self::Copy(_))
    }

    /// The epoch of the store, if it has messages of another chat, which this replaces.
    pub fn replaced_epoch(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        match self {
            Self::Follow(followed) => followed.replaced_epoch(connection),
            _ => Ok(None),
        }
    }

    /// Returns how many messages it has deleted of those that [`Self::deletes`] names. `clock`: the wall clock, in
    /// milliseconds since 1970.
    pub fn write(&self, connection: &Connection, limits: StoreLimits, clock: u64) -> rusqlite::Result<u64> {
        match self {
            Self::Follow(followed) => followed.write(connection, limits, clock)?,
            Self::Epoch { epoch, is_shared } => set_epoch(connection, epoch, *is_shared)?,
            Self::Moderators(moderators) => moderators::replace(connection, moderators, clock)?,
            Self::Copy(messages) => copy(connection, messages, limits.oldest_kept(clock))?,
            Self::Applied(act) => return moderation::apply(connection, act),
        }
        Ok(0)
    }
}

impl Followed {
    /// Drops the oldest messages, until it takes at most this many bytes, and returns how many it has dropped.
    pub fn fit(&mut self, bytes: usize) -> usize {
        let mut left = bytes.saturating_sub(self.bytes());
        let fits = |message: &&KeptEntry| {
            let rest = left.checked_sub(message_bytes(message));
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let fitting = self.messages.iter().rev().take_while(fits).count();
        let dropped = self.messages.len() - fitting;
        self.messages = take(&mut self.messages).split_off(dropped);
        dropped
    }

    /// Without the messages.
    fn bytes(&self) -> usize {
        // Epochs are few and short.
        let bans = self.bans.iter().map(|ban| size_of::<Ban>() + ban.reason.len() + MAX_NAMES_BYTES);
        size_of::<Self>()
            + bans.sum::<usize>()
            + self.time_outs.len() * (size_of::<StoredTimeOut>() + MAX_NAMES_BYTES)
            + moderators_bytes(&self.moderators)
            + size_of_val(self.deleted.as_slice())
    }

    fn write(&self, connection: &Connection, limits: StoreLimits, clock: u64) -> rusqlite::Result<()> {
        let epoch = meta(connection, "epoch")?;
        let knows_deletions = self.knows_deletions(connection, epoch.as_deref())?;
        set_epoch(connection, &self.epoch, true)?;
        moderation::replace_bans(connection, &self.bans)?;
        moderation::replace_time_outs(connection, &self.time_outs, clock)?;
        moderators::replace(connection, &self.moderators, clock)?;
        if epoch.as_deref() != Some(&*self.epoch) {
            // The same ids may belong to other messages.
            moderation::forget_deletions(connection, self.end_of(epoch.as_deref()).unwrap_or(0))?;
        }
        for &id in &self.deleted {
            moderation::delete(connection, id)?;
        }
        self.delete_others(connection, epoch.as_deref(), knows_deletions)?;
        let oldest_kept = limits.oldest_kept(clock);
        let skipped = self.messages.len().saturating_sub(limits.messages);
        let mut insert = Insert::new(connection)?;
        for KeptEntry { id, unix_millis, json, txn_id } in &self.messages[skipped..] {
            if *unix_millis >= oldest_kept {
                insert.add(*id, *unix_millis, json, txn_id.as_ref())?;
            }
        }
        Ok(())
    }

    /// Whether it is known, with [`Self::deleted`], which messages of the store were deleted. `epoch`: of the store.
    fn knows_deletions(&self, connection: &Connection, epoch: Option<&str>) -> rusqlite::Result<bool> {
        let Some(last_id) = self.end_of(epoch) else { return Ok(epoch.is_none()) };
        let newest = messages::newest_before(connection, last_id.saturating_add(1), 0)?;
        if newest.unwrap_or(0) >= self.deleted_after {
            return Ok(true);
        }
        // Messages may be older than the last deletions that the store knows of. Those of whispers are not in the list.
        let known = moderation::deleted(connection)?;
        Ok(known.iter().any(|id| self.deleted.contains(id)))
    }

    fn replaced_epoch(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        let epoch = meta(connection, "epoch")?.filter(|epoch| self.end_of(Some(epoch)).is_none());
        let has_messages = messages::newest_before(connection, u64::MAX, 0)?.is_some();
        Ok(epoch.filter(|_| has_messages))
    }

    /// The last id of an epoch that belongs to this chat. `None`: it is not one of its epochs.
    fn end_of(&self, epoch: Option<&str>) -> Option<u64> {
        if epoch == Some(&*self.epoch) {
            return Some(u64::MAX);
        }
        self.past_epochs.iter().find(|past| epoch == Some(&*past.epoch)).map(|past| past.last_id)
    }

    /// Deletes messages that the chat does not have: from the oldest in memory on, it has all that there are. If it is
    /// unknown which of the older ones were deleted, they are removed as well, and copied again. `epoch`: of the store.
    fn delete_others(
        &self,
        connection: &Connection,
        epoch: Option<&str>,
        knows_deletions: bool,
    ) -> rusqlite::Result<()> {
        if !knows_deletions {
            let removed = connection.execute("DELETE FROM messages", [])?;
            if removed > 0 && self.end_of(epoch).is_some() {
                warn!(
                    "Removed {removed} messages from the store, because some of them may have been deleted while this \
                     server was disconnected. The others are copied again from the Redis or Valkey server"
                );
            }
            return Ok(());
        }
        let first = match self.messages.first() {
            Some(message) => message.id,
            None => self.last_id.saturating_add(1),
        };
        if epoch != Some(&*self.epoch) {
            // The same ids may belong to other messages.
            let first = self.end_of(epoch).map_or(first, |last_id| first.min(last_id.saturating_add(1)));
            return connection.execute("DELETE FROM messages WHERE id >= ?1", [int(first)]).map(drop);
        }
        // What follows `last_id` will come as entries.
        let mut select = connection.prepare("SELECT id FROM messages WHERE id BETWEEN ?1 AND ?2")?;
        let id = |row: &Row| row.get::<_, i64>(0);
        let stored: Vec<i64> =
            select.query_map(params![int(first), int(self.last_id)], id)?.collect::<Result<_, _>>()?;
        let is_kept = |id: i64| self.messages.binary_search_by_key(&id, |message| int(message.id)).is_ok();
        let mut delete = connection.prepare("DELETE FROM messages WHERE id = ?1")?;
        stored.into_iter().filter(|&id| !is_kept(id)).try_for_each(|id| delete.execute([id]).map(drop))
    }
}

/// Adds messages that are not in the table, except those that were deleted since they were read.
fn copy(connection: &Connection, messages: &[KeptEntry], oldest_kept: u64) -> rusqlite::Result<()> {
    let deleted = moderation::deleted(connection)?;
    let mut insert = Insert::new(connection)?;
    for KeptEntry { id, unix_millis, json, txn_id } in messages {
        if *unix_millis >= oldest_kept && !deleted.contains(id) {
            insert.add(*id, *unix_millis, json, txn_id.as_ref())?;
        }
    }
    Ok(())
}

/// The most bytes of a name in the forms in which it is compared and shown, roughly.
const MAX_NAMES_BYTES: usize = 512;

/// The text is also in the chat's memory, but may be dropped there first.
fn message_bytes(message: &KeptEntry) -> usize {
    /// The header of the text's allocation.
    const HEADER_BYTES: usize = 32;
    size_of::<KeptEntry>() + HEADER_BYTES + Item::text_bytes(message)
}

fn moderators_bytes(moderators: &[NamedModerator]) -> usize {
    let bytes =
        |moderator: &NamedModerator| size_of::<NamedModerator>() + MAX_NAMES_BYTES + moderator.hash.len();
    moderators.iter().map(bytes).sum()
}

fn set_epoch(connection: &Connection, epoch: &str, is_shared: bool) -> rusqlite::Result<()> {
    set_meta(connection, "epoch", epoch)?;
    if is_shared {
        set_meta(connection, SHARED_KEY, "1")
    } else {
        connection.execute("DELETE FROM meta WHERE key = ?1", [SHARED_KEY]).map(drop)
    }
}
