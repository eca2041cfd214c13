//! The store of the simulation: what is committed, what is synced, and what still waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::Random;
use crate::chat::acts::{Action, Ban, Decision, Outcome, StoredTimeOut};
use crate::chat::entry::{OlderMessages, OlderRequest};
use crate::chat::history::{Deletion, HistoryEntry, StoredHistory, Visibility};
use crate::chat::name_key::NameKey;
use crate::chat::room::KeptEntry;

#[derive(Default)]
pub struct Disk {
    messages: usize,
    /// What was passed to the store and is not committed, in order.
    queue: VecDeque<Write>,
    /// What a crash of the process leaves.
    committed: Kept,
    /// What a power cut leaves.
    synced: Kept,
    /// Decisions that are committed and not synced.
    unsynced: Vec<(usize, Decision, Outcome)>,
}

/// What the store has.
#[derive(Clone, Default)]
pub struct Kept {
    pub messages: BTreeMap<u64, HistoryEntry>,
    /// Messages that decisions have deleted, in order.
    pub deleted: Vec<u64>,
    pub bans: Vec<Ban>,
    pub time_outs: Vec<StoredTimeOut>,
}

enum Write {
    Message(HistoryEntry),
    /// `client`: who has made it. `is_overdue`: it has taken effect already.
    Decision {
        client: usize,
        decision: Decision,
        is_overdue: bool,
    },
}

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Regular,
    Killed,
    PowerCut,
}

impl Disk {
    /// `messages`: how many are kept.
    pub fn new(messages: usize) -> Self {
        Self { messages, ..Self::default() }
    }

    pub fn keep(&mut self, entry: &KeptEntry) {
        let KeptEntry { id, unix_millis, json, txn_id } = entry.clone();
        let message: Value = serde_json::from_slice(&json).expect("the room encodes JSON");
        let author = Arc::new(NameKey::of(message["username"].as_str().expect("a name")));
        let txn = txn_id.zip(Some(author));
        let visibility = Visibility::All;
        self.queue.push_back(Write::Message(HistoryEntry {
            id,
            unix_millis,
            json,
            txn,
            visibility,
            author: None,
        }));
    }

    pub fn decide(&mut self, client: usize, decision: Decision) {
        self.queue.push_back(Write::Decision { client, decision, is_overdue: false });
    }

    /// Whether a decision waits to be committed or synced.
    pub fn has_decisions(&self) -> bool {
        let waits = |write: &Write| matches!(write, Write::Decision { is_overdue: false, .. });
        self.queue.iter().any(waits) || !self.unsynced.is_empty()
    }

    /// A decision for which the disk has taken too long. It is written all the same.
    pub fn overdue(&mut self) -> Option<(usize, Decision, Outcome)> {
        self.queue.iter_mut().find_map(|write| match write {
            Write::Decision { client, decision, is_overdue: is_overdue @ false } => {
                *is_overdue = true;
                Some((*client, decision.clone(), Outcome::NotStored))
            }
            _ => None,
        })
    }

    /// Commits the oldest of what waits.
    pub fn commit(&mut self, random: &mut Random) {
        let count = random.below(self.queue.len() as u64 + 1) as usize;
        self.write(count);
    }

    /// Commits all and syncs it. Returns the decisions that are now durable.
    pub fn sync(&mut self) -> Vec<(usize, Decision, Outcome)> {
        self.write(self.queue.len());
        self.synced = self.committed.clone();
        std::mem::take(&mut self.unsynced)
    }

    fn write(&mut self, count: usize) {
        for write in self.queue.drain(..count) {
            match write {
                Write::Message(entry) => drop(self.committed.messages.insert(entry.id, entry)),
                Write::Decision { client, decision, is_overdue } => {
                    let outcome = self.committed.decide(&decision.act.action);
                    if !is_overdue {
                        self.unsynced.push((client, decision, outcome));
                    }
                }
            }
        }
        while self.committed.messages.len() > self.messages {
            self.committed.messages.pop_first();
        }
    }

    /// A page of older messages. What waits is committed first.
    pub fn read(&mut self, request: &OlderRequest) -> OlderMessages {
        self.write(self.queue.len());
        let mut older =
            self.committed.messages.range(..request.page.before).rev().map(|(_, entry)| entry.clone());
        let entries = older.by_ref().take(request.page.count.into()).collect();
        OlderMessages { entries, more: older.next().is_some() }
    }

    /// The server ends, and starts again with what is left.
    pub fn restart(&mut self, end: End) -> &Kept {
        if end == End::Regular {
            self.write(self.queue.len());
            self.synced = self.committed.clone();
        }
        if end == End::PowerCut {
            self.committed = self.synced.clone();
        }
        self.synced = self.committed.clone();
        self.queue.clear();
        self.unsynced.clear();
        &self.committed
    }
}

impl Kept {
    fn decide(&mut self, action: &Action) -> Outcome {
        match action {
            Action::TimeOut { name, until } => {
                self.time_outs.retain(|time_out| !time_out.name.key().is_same(name.key()));
                self.time_outs.push(StoredTimeOut { name: name.clone(), until: *until });
            }
            Action::EndTimeOut { name } => {
                self.time_outs.retain(|time_out| !time_out.name.key().is_same(name.key()));
            }
            Action::Ban { ban } => {
                self.bans = self.bans.iter().filter_map(|earlier| earlier.without(ban)).collect();
                self.bans.push(ban.clone());
            }
            Action::Unban { bans, .. } => self.bans.retain(|ban| !bans.contains(&ban.id)),
            Action::Delete { id, .. } => {
                if self.messages.remove(id).is_none() {
                    return Outcome::NotFound;
                }
                self.deleted.push(*id);
            }
            Action::Login | Action::Kick { .. } => {}
        }
        Outcome::Stored
    }

    /// What a room with `memory` messages in memory starts with, after the entry with this id.
    pub fn history(&self, memory: usize, last_entry: u64) -> StoredHistory {
        let older = self.messages.len().saturating_sub(memory);
        let mut ids = self.messages.keys();
        let newest_older = older.checked_sub(1).and_then(|last| ids.nth(last)).copied();
        let entries = self.messages.values().skip(older).cloned().collect();
        let deletion = |&id: &u64| Deletion { at: last_entry + 1, id, participants: None };
        StoredHistory { entries, newest_older, deletions: self.deleted.iter().map(deletion).collect() }
    }

    /// The bans that have not ended.
    pub fn bans(&self, unix_millis: u64) -> Vec<Ban> {
        let is_current = |ban: &&Ban| ban.until.is_none_or(|until| unix_millis < until);
        self.bans.iter().filter(is_current).cloned().collect()
    }
}
