//! Moderation: the commands of moderators, and what follows from their decisions.
//!
//! A command is checked when its entry is applied. What must be stored before anyone is told of it becomes a
//! [`Decision`], which has its effects when it comes back as an entry of its own.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{
    Audience, Ban, Command, ConnectionId, Context, Deletion, Effect, EntryTime, HistoryEntry, JoinOrder,
    KeptMessage, Member, Outcome, Presence, Role, Room, ServerMessage, StoredTimeOut, Target, Timeouts,
    Username, Visibility, command, error, no_such_user, system,
};
use crate::chat::acts::{Act, Action, Decision};
use crate::chat::ban_target::{BanTarget, BannedTarget, NamedTarget, QuotedName};
use crate::chat::bans::{self, Bans, MAX_BANS, MAX_REASON_BYTES, network_text, reason_after};
use crate::chat::command::{BAN, KICK, TO};
use crate::chat::duration;
use crate::chat::target::quoted;
use crate::chat::time_outs::MAX_SECONDS;
use crate::ops::clock::readable_utc;

/// How many of the removed members a line names.
const MAX_NAMED: usize = 20;
/// The longest answer to `/bans`, in bytes. The newest bans are listed.
const MAX_LIST_BYTES: usize = 6 * 1024;

/// What a moderator is told if its decision could not be stored.
const NOT_STORED: &str = "This could not be stored: it ends when the server restarts.";

impl Room {
    /// Runs a command of a moderator, or `/delete`. The caller has checked the role that it needs.
    pub(super) fn moderate(&mut self, context: Context, command: Command) -> Result<Vec<Effect>, String> {
        let Some(moderator) = self.roster.by_connection(context.from) else { return Ok(Vec::new()) };
        let action = match command {
            Command::To(target) => self.time_out(context, moderator, &target)?,
            Command::Unto(name) => self.end_time_out(&name)?,
            Command::Ban(target) => self.ban(context, moderator, &target)?,
            Command::Unban(target) => self.unban(&target)?,
            Command::Delete(id) => self.delete(context, moderator, id)?,
            Command::Kick(target) => return self.kick(context, &target),
            Command::Bans => return Ok(vec![system(context.from, self.list_bans())]),
            Command::Info(name) => return Ok(vec![system(context.from, self.info(context, &name)?)]),
            Command::Whisper(_) | Command::Login | Command::Help(_) => return Ok(Vec::new()),
        };
        let act = act(context, moderator, action);
        let decision = Decision { act, connection: context.from, txn_id: context.txn_id.cloned() };
        self.undecided.push(decision.clone());
        Ok(vec![Effect::Decide(decision.into())])
    }

    /// Applies a decision that was stored, or that could not be stored.
    pub(super) fn decided(&mut self, context: Context, decision: Decision, outcome: Outcome) -> Vec<Effect> {
        let Decision { act, connection, txn_id } = decision;
        let context = Context { from: connection, txn_id: txn_id.as_ref(), ..context };
        let mut effects = Vec::new();
        let reply = match &act.action {
            Action::TimeOut { name, until } => {
                let seconds = until.saturating_sub(act.unix_millis) / 1000;
                let left = until.saturating_sub(context.time.unix_millis).min(seconds * 1000);
                self.timeouts.set(name, context.time.chat + Duration::from_millis(left));
                let content = format!("{} timed out {} for {seconds} seconds.", act.by, name.shown());
                effects = self.moderation(context, content);
                None
            }
            Action::EndTimeOut { name } => {
                self.timeouts.end(name.key());
                effects =
                    self.moderation(context, format!("{} ended the time-out of {}.", act.by, name.shown()));
                None
            }
            Action::Ban { ban } => Some(self.apply_ban(context, &act, ban.clone().into(), &mut effects)),
            Action::Unban { target, bans } => Some(self.apply_unban(&act, target, bans, &mut effects)),
            Action::Delete { id, is_own } => {
                match self.apply_delete(context, &act, *id, *is_own, outcome, &mut effects) {
                    Ok(reply) => Some(reply),
                    Err(_) if !self.is_member(context.from) => return effects,
                    Err(reason) => return vec![error(context, reason)],
                }
            }
            // These take effect at once, and are only recorded.
            Action::Login | Action::Kick { .. } => None,
        };
        // The moderator may have left in the meantime.
        let Some(member) = self.roster.by_connection(context.from) else { return effects };
        let is_asking = member.session.is_some();
        effects.extend(reply.map(|reply| system(context.from, reply)));
        if outcome == Outcome::NotStored {
            effects.push(system(context.from, NOT_STORED));
        }
        effects.extend(context.ack().filter(|_| is_asking));
        effects
    }

    fn is_member(&self, connection: ConnectionId) -> bool {
        self.roster.by_connection(connection).is_some()
    }

    fn time_out(&self, context: Context, moderator: &Member, target: &Target) -> Result<Action, String> {
        let (target, seconds) = self.target(target, &TO)?;
        let Some(seconds) = seconds.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) else {
            let usage = command::usage(&TO);
            return Err(format!("{usage}, with 1 to {MAX_SECONDS} whole seconds."));
        };
        check_not_named(moderator, target)?;
        if !self.timeouts.has_room_for(target.name.key()) {
            return Err("Too many users are already timed out.".into());
        }
        let until = context.time.unix_millis.saturating_add(seconds * 1000);
        Ok(Action::TimeOut { name: target.name.clone(), until })
    }

    /// Of a name that need not be present.
    fn end_time_out(&self, target: &NamedTarget) -> Result<Action, String> {
        let name = target.key.as_ref().and_then(|key| self.timeouts.name(key));
        let name = name.ok_or_else(|| format!("Nobody called {} is timed out.", target.name))?;
        Ok(Action::EndTimeOut { name: name.clone() })
    }

    fn kick(&mut self, context: Context, target: &Target) -> Result<Vec<Effect>, String> {
        let Some(moderator) = self.roster.by_connection(context.from) else { return Ok(Vec::new()) };
        let (target, reason) = self.target(target, &KICK)?;
        check_not_named(moderator, target)?;
        if target.order == moderator.order {
            return Err("You cannot kick yourself.".into());
        }
        let (reason, name, order) = (checked_reason(reason)?, target.name.clone(), target.order);
        let content = format!("{} kicked {}{}", moderator.name.shown(), name.shown(), reason_after(&reason));
        let close_reason = bans::close_reason(&reason, "kicked");
        let act = act(context, moderator, Action::Kick { name, reason });
        let mut effects = self.moderation(context, content);
        self.remove(order, None, close_reason, &mut effects);
        effects.push(Effect::Record(act.into()));
        Ok(effects)
    }

    fn ban(&self, context: Context, moderator: &Member, target: &BanTarget) -> Result<Action, String> {
        let own = moderator.address.network;
        let (name, network, rest) = match target {
            BanTarget::Network { network, rest } => {
                if self.bans.protected().overlaps(*network) {
                    let network = network_text(*network);
                    return Err(format!(
                        "{network} cannot be banned: it contains loopback or a trusted proxy."
                    ));
                }
                if network.contains(&IpNet::from(own)) && moderator.role != Role::Named {
                    let network = network_text(*network);
                    return Err(format!("{network} cannot be banned: it contains your own address."));
                }
                (None, Some(*network), rest.as_str())
            }
            BanTarget::User { target, quoted } => match (self.target(target, &BAN), quoted) {
                (Ok((member, rest)), _) => {
                    check_not_named(moderator, member)?;
                    if member.order == moderator.order {
                        return Err("You cannot ban yourself.".into());
                    }
                    let network = member.address.network;
                    let is_bannable = network != own && !self.bans.protected().overlaps(network.into());
                    (Some(member.name.clone()), is_bannable.then(|| network.into()), rest)
                }
                (Err(_), Some(QuotedName { name, rest })) => (Some(name.clone()?), None, rest.as_str()),
                (Err(_), None) if self.is_absent(target) => return Err(quotes_needed(target)),
                (Err(reason), None) => return Err(reason),
            },
        };
        if let Some(name) = name.as_ref().filter(|name| self.reserved.get(name.key()).is_some()) {
            return Err(format!("{} cannot be banned: the name belongs to a named moderator.", name.shown()));
        }
        let (seconds, reason) = split_duration(rest)?;
        let (by, since, reason) =
            (moderator.name.shown().clone(), context.time.unix_millis, checked_reason(reason)?);
        let until = seconds.map(|seconds| since.saturating_add(seconds * 1000));
        let ban = Ban { id: context.id, name, network, by, since, until, reason };
        // Bans that are being stored are not counted, so there can be a few more.
        if self.bans.len() >= MAX_BANS && !self.bans.replaces_one(&ban) {
            return Err(format!("There are already {MAX_BANS} bans: end some with /unban first."));
        }
        Ok(Action::Ban { ban })
    }

    /// Bans, removes those to whom the ban applies, and returns what the moderator is told.
    fn apply_ban(&mut self, context: Context, act: &Act, ban: Arc<Ban>, effects: &mut Vec<Effect>) -> String {
        let replaced = self.bans.add(ban.clone());
        for (earlier, rest) in &replaced {
            effects.push(Effect::WithdrawBan(earlier.id));
            effects.extend(rest.clone().map(Effect::PublishBan));
        }
        effects.push(Effect::PublishBan(ban.clone()));
        let (names, others, removed) = self.affected(&ban);
        let ends = format!("{}{}", ban.for_duration(), reason_after(&ban.reason));
        if !names.is_empty() {
            let content = format!("{} banned {}{ends}", act.by, list(&names));
            effects.extend(self.keep(
                context,
                Audience::All,
                KeptMessage::System { content: &content },
                None,
                None,
            ));
        }
        let mut reply = format!("Banned {}{ends}", ban.subject());
        let note = self.why_not_the_address(act, &ban);
        for member in removed {
            self.remove(member, Some(ban.notice()), ban.close_reason(), effects);
        }
        let others = if others.is_empty() { "nobody".into() } else { list(&others) };
        reply.push_str(&format!("\nAlso affected: {others}."));
        for (earlier, rest) in replaced {
            let part = rest.and_then(|rest| earlier.without(&rest)).unwrap_or_else(|| Ban::clone(&earlier));
            reply.push_str(&format!("\nThis replaces the ban of {}.", part.subject()));
        }
        reply.push_str(note);
        let log = format!("{} banned {} (also affected: {others}){ends}", act.by, ban.subject());
        effects.push(Effect::Moderated(log));
        reply
    }

    /// Whom a ban affects: the names that all members are told, those of them that are not the ban's own name, and the
    /// members that are removed.
    fn affected(&self, ban: &Ban) -> (Vec<Arc<str>>, Vec<Arc<str>>, Vec<JoinOrder>) {
        let is_own =
            |member: &Member| ban.name.as_ref().is_some_and(|name| name.shown() == member.name.shown());
        let removed = || self.roster.iter().filter(|member| self.is_removed_by(ban, member));
        let others: Vec<Arc<str>> =
            removed().filter(|member| !is_own(member)).map(|member| member.name.shown().clone()).collect();
        let own = ban.name.iter().map(|name| name.shown().clone());
        (own.chain(others.iter().cloned()).collect(), others, removed().map(|member| member.order).collect())
    }

    fn is_removed_by(&self, ban: &Ban, member: &Member) -> bool {
        let address = member.address.network;
        let by_name = ban.name.as_ref().is_some_and(|name| name.key().is_same(member.name.key()));
        let by_address =
            ban.applies_to(member.name.key(), address) && !self.bans.protected().overlaps(address.into());
        member.role != Role::Named && (by_name || by_address)
    }

    fn why_not_the_address(&self, act: &Act, ban: &Ban) -> &'static str {
        let Some(name) = ban.name.as_ref().filter(|_| ban.network.is_none()) else { return "" };
        match self.roster.by_name(name.key()).map(|member| member.address.network) {
            Some(address) if address == act.address => "\nOnly the name is banned: the address is your own.",
            Some(address) if self.bans.protected().overlaps(address.into()) => {
                "\nOnly the name is banned: the address is loopback or a trusted proxy."
            }
            _ => "\nOnly the name is banned.",
        }
    }

    fn unban(&self, target: &BannedTarget) -> Result<Action, String> {
        let (target, bans): (String, Vec<u64>) = match target {
            BannedTarget::Name(NamedTarget { key, name }) => {
                let bans = key.iter().flat_map(|key| self.bans.of_name(key)).map(|ban| ban.id);
                (name.clone(), bans.collect())
            }
            BannedTarget::Network(network) => {
                let ban = self.bans.of_network(*network).map(|ban| ban.id);
                (network_text(*network), ban.into_iter().collect())
            }
        };
        if bans.is_empty() {
            return Err(format!("There is no ban of {target}: /bans lists the bans."));
        }
        Ok(Action::Unban { target, bans })
    }

    fn apply_unban(&mut self, act: &Act, target: &str, ids: &[u64], effects: &mut Vec<Effect>) -> String {
        let ended: Vec<Arc<Ban>> = ids.iter().filter_map(|id| self.bans.remove(*id)).collect();
        effects.extend(ended.iter().map(|ban| Effect::WithdrawBan(ban.id)));
        let subjects: Vec<String> = ended.iter().map(|ban| ban.subject()).collect();
        // They may have ended by themselves in the meantime.
        let subjects = if subjects.is_empty() { target.to_owned() } else { subjects.join(", ") };
        effects.push(Effect::Moderated(format!("{} ended the ban of {subjects}.", act.by)));
        format!("The ban of {subjects} has ended.")
    }

    fn list_bans(&self) -> String {
        let mut text = format!("Bans: {}.", self.bans.len());
        for (at, ban) in self.bans.iter().enumerate() {
            let until = ban.until.map_or("forever".into(), |until| format!("until {}", readable_utc(until)));
            let (subject, reason) = (ban.subject(), reason_after(&ban.reason));
            let line = format!("\n{subject}, by {} on {}, {until}{reason}", ban.by, readable_utc(ban.since));
            if text.len() + line.len() > MAX_LIST_BYTES {
                text.push_str(&format!("\n… and {} earlier ones.", self.bans.len() - at));
                break;
            }
            text.push_str(&line);
        }
        text
    }

    fn info(&self, context: Context, target: &NamedTarget) -> Result<String, String> {
        let member = target.key.as_ref().and_then(|key| self.roster.by_name(key));
        let member = member.ok_or_else(|| no_such_user(&target.name))?;
        let (key, address) = (member.name.key(), member.address.network);
        let role = match member.role {
            Role::Member => "member",
            Role::Moderator => "moderator",
            Role::Named => "named moderator",
        };
        let away = if member.connection().is_none() { ", away" } else { "" };
        let joined = readable_utc(member.joined);
        let mut text = format!("{}: {role}{away}, from {address}, here since {joined}.", member.name.shown());
        if let Some(seconds) = self.timeouts.seconds_left(key, context.time.chat) {
            text.push_str(&format!("\nTimed out: {seconds} seconds left."));
        }
        let bans = self.bans.of_name(key).chain(self.bans.of_address(address));
        for ban in bans {
            text.push_str(&format!("\nA ban applies: {}{}", ban.subject(), reason_after(&ban.reason)));
        }
        Ok(text)
    }

    fn delete(&self, context: Context, member: &Member, id: u64) -> Result<Action, String> {
        let message = self.held(id);
        let is_own = message.is_some_and(|message| message.author == Some(member.order));
        let is_whisper = message.is_some_and(|message| !matches!(message.visibility, Visibility::All));
        if is_own || member.role >= Role::Moderator && !is_whisper && id < context.id {
            Ok(Action::Delete { id, is_own })
        } else if member.role >= Role::Moderator {
            Err(no_such_message(id))
        } else {
            Err(format!("There is no message of yours with the id {id}."))
        }
    }

    /// The outcome of a decision that this server's store has not kept.
    pub fn not_stored(&self, decision: &Decision) -> Outcome {
        match decision.act.action {
            Action::Delete { id, .. } if !self.holds(id) && !self.may_be_stored(id) => Outcome::NotFound,
            _ => Outcome::NotStored,
        }
    }

    /// Whether a message that is not in memory may be kept elsewhere.
    pub fn may_be_stored(&self, id: u64) -> bool {
        self.history.may_be_stored(id)
    }

    /// Whether a message is held in memory.
    pub fn holds(&self, id: u64) -> bool {
        self.held(id).is_some()
    }

    /// A message that is in the history, or that waits for a member that is away.
    fn held(&self, id: u64) -> Option<&HistoryEntry> {
        let waiting = || {
            self.roster.iter().find_map(|member| match &member.presence {
                Presence::Away(_, unread) => unread.entries().iter().find(|entry| entry.id == id),
                Presence::Connected(_) => None,
            })
        };
        self.history.get(id).or_else(waiting)
    }

    /// Deletes a message, and returns what its moderator is told.
    ///
    /// # Errors
    /// There is no such message.
    fn apply_delete(
        &mut self,
        context: Context,
        act: &Act,
        id: u64,
        is_own: bool,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let deleted = self.roster.remove_unread(id).into_iter().chain(self.history.remove(id)).next();
        let is_found = match outcome {
            Outcome::Stored | Outcome::NotStored => true,
            Outcome::NotFound => deleted.is_some(),
        };
        if !is_found {
            return Err(no_such_message(id));
        }
        let participants = deleted.as_ref().and_then(HistoryEntry::participants);
        self.history.deleted(Deletion { at: context.id, id, participants });
        let may_know =
            |member: &&Member| deleted.as_ref().is_none_or(|deleted| deleted.is_visible_to(&member.place()));
        let asking = self.roster.iter().filter(|member| member.session.is_some()).filter(may_know);
        let clients: Vec<ConnectionId> = asking.filter_map(Member::connection).collect();
        if !clients.is_empty() {
            effects.push(Effect::Send(Audience::Only(clients), ServerMessage::Deleted { id }));
        }
        if !is_own {
            effects.push(Effect::Moderated(format!("{} deleted the message {id}.", act.by)));
        }
        Ok(format!("The message {id} was deleted."))
    }

    /// Removes a member. `notice`: an `error` for it. `reason`: for the close frame.
    fn remove(
        &mut self,
        order: JoinOrder,
        notice: Option<String>,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(connection) = self.roster.get(order).and_then(Member::connection) {
            if let Some(content) = notice {
                let message = ServerMessage::Error { content, txn_id: None };
                effects.push(Effect::Send(Audience::One(connection), message));
            }
            self.closed.insert(connection, ());
            effects.push(Effect::Close(connection, reason));
        }
        self.leave(order, true, effects);
    }

    /// Whether the text begins with the name of no member.
    fn is_absent(&self, target: &Target) -> bool {
        matches!(target.find(|name| self.roster.by_name(name).map(|member| member.order)), super::Found::None)
    }

    /// The ban that keeps out a guest with this name and address.
    pub(super) fn ban_on(
        &self,
        context: Context,
        name: &Username,
        address: super::Address,
    ) -> Option<&Arc<Ban>> {
        self.bans.applying(Some(name.key()), address.network, context.time.unix_millis)
    }
}

/// Refuses a guest that is banned.
pub(super) fn refuse(context: Context, ban: &Ban) -> Vec<Effect> {
    vec![error(context, ban.notice()), Effect::Close(context.from, ban.close_reason())]
}

/// The table of stored bans.
pub(super) fn stored_bans(mut table: Bans, bans: Vec<Ban>) -> Bans {
    bans.into_iter().for_each(|ban| drop(table.add(ban.into())));
    table
}

/// Time-outs that continue after a start.
pub(super) fn stored_time_outs(stored: Vec<StoredTimeOut>, time: &EntryTime) -> Timeouts {
    let mut timeouts = Timeouts::default();
    for StoredTimeOut { name, until } in stored {
        let left = until.saturating_sub(time.unix_millis).min(MAX_SECONDS * 1000);
        if left > 0 {
            timeouts.set(&name, time.chat + Duration::from_millis(left));
        }
    }
    timeouts
}

pub(super) fn act(context: Context, moderator: &Member, action: Action) -> Act {
    Act {
        unix_millis: context.time.unix_millis,
        by: moderator.name.shown().clone(),
        address: moderator.address.network,
        action,
    }
}

fn check_not_named(moderator: &Member, target: &Member) -> Result<(), String> {
    if target.role == Role::Named && target.order != moderator.order {
        let name = target.name.shown();
        return Err(format!("{name} is a named moderator, whom others cannot time out, kick or ban."));
    }
    Ok(())
}

fn quotes_needed(target: &Target) -> String {
    let name = target.name();
    let nobody = no_such_user(&name);
    format!("{nobody} To ban a name that is not here, put it in quotes: {} {} …", BAN.name, quoted(&name))
}

/// A duration in seconds, if the text begins with one, and the rest.
fn split_duration(text: &str) -> Result<(Option<u64>, &str), String> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match duration::parse(word) {
        Some(seconds) => Ok((Some(seconds?), rest)),
        None => Ok((None, text)),
    }
}

/// The reason on one line.
fn checked_reason(text: &str) -> Result<String, String> {
    if text.len() > MAX_REASON_BYTES {
        return Err(format!("The reason must not be longer than {MAX_REASON_BYTES} bytes."));
    }
    let words = text.split(|character: char| character.is_whitespace() || character.is_control());
    Ok(words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

/// Names, as many as a line holds.
fn list(names: &[Arc<str>]) -> String {
    let shown = names[..names.len().min(MAX_NAMED)].join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn no_such_message(id: u64) -> String {
    format!("There is no message with the id {id}.")
}
