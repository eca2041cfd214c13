//! The room: for each entry, it returns effects (docs/protocol.md).

#[path = "room_moderation.rs"]
mod moderation;
#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "for several servers"))]
#[path = "room_snapshot.rs"]
mod snapshot;

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(crate) use snapshot::Snapshot;

use super::access::{Access, NamedModerator, Verdict};
use super::acts::{Act, Action, Ban, Decision, Outcome, StoredTimeOut};
use super::away::{AwayLimits, AwaySchedule, Unread};
use super::bans::{Bans, Protected};
use super::command::{self, COMMANDS, Command, WHISPER};
use super::entry::{
    Address, ChatTime, ConnectionId, ConnectionMap, Departure, Entry, EntryTime, Guest, Input, NodeNumber,
    OlderMessages, OlderRequest, StoreUnavailable,
};
use super::history::{
    Deletion, History, HistoryEntry, HistoryLimits, Page, Place, StoredHistory, Visibility,
};
use super::name_key::NameKey;
use super::name_map::NameMap;
use super::protocol::{
    Body, ClientMessage, CommandUsage, HistoryAnswer, JoinOptions, KeptMessage, MAX_PAGE_MESSAGES,
    MessageError, Recipient, ServerMessage, TxnId, encode_with_txn_id,
};
use super::roster::{JoinOrder, Member, Presence, Role, Roster};
use super::session::SessionDigest;
use super::target::{self, Found, Target};
use super::time_outs::Timeouts;
use super::user_list::ListSize;
use super::username::{NameError, Username};
use crate::limits::Network;

/// The buffer in which messages are encoded keeps at most this many bytes between two messages.
const MAX_SCRATCH_BYTES: usize = 64 * 1024;

/// How many earlier epochs the room remembers.
pub const MAX_PAST_EPOCHS: usize = 8;

/// The error if a password was not compared, because the connection or the server was about to end.
const NOT_COMPARED: &str = "The password was not compared: try again.";

/// A consequence of an entry, to be applied in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// From here on, the connection of this new member is part of [`Audience::All`].
    Enter(ConnectionId, Arc<str>),
    /// The same for a member that was away or on another connection.
    Resume(ConnectionId, Arc<str>),
    /// From here on, the connection of this member is no longer part of it: the member has left.
    Leave(ConnectionId, Arc<str>),
    /// The same, because the connection was lost: the member may resume.
    Away(ConnectionId, Arc<str>),
    /// The same, because another connection has taken the place of this one: close it.
    CloseReplaced(ConnectionId),
    /// A member that was away leaves: its time is over, or too many members are away.
    LeaveAway(Network, Arc<str>),
    /// The [user list](Room::user_list) has changed.
    ListChanged(ListSize),
    /// The session can be resumed under this name.
    OpenSession(SessionDigest, Arc<NameKey>),
    CloseSession(SessionDigest),
    Send(Audience, ServerMessage),
    /// To be stored.
    Keep(KeptEntry),
    /// The member on this connection asks for messages that memory no longer holds. [`Input::Older`] answers.
    ReadOlder(ConnectionId, Box<OlderRequest>),
    /// Have this stored, and pass it back to the room as an entry.
    Decide(Box<Decision>),
    /// Record an act that has taken effect.
    Record(Box<Act>),
    /// From here on, clients with the addresses of this ban need not be connected to the room.
    PublishBan(Arc<Ban>),
    /// The ban with this id has ended.
    WithdrawBan(u64),
    /// The named moderators from now on.
    PublishModerators(Vec<NamedModerator>),
    /// This connection was refused or removed, and is no longer part of [`Audience::All`]: send it what it was sent
    /// before, and close it with code 1008 and this reason.
    Close(ConnectionId, String),
    /// A moderation action, for the log. The message to all members is a separate effect.
    Moderated(String),
}

impl Effect {
    /// Whether this server needs the effect. Its audience is reduced to the server's connections.
    pub fn is_for(&mut self, server: NodeNumber) -> bool {
        match self {
            Self::Enter(id, _)
            | Self::Resume(id, _)
            | Self::Leave(id, _)
            | Self::Away(id, _)
            | Self::CloseReplaced(id)
            | Self::Close(id, _)
            | Self::ReadOlder(id, _)
            | Self::Send(Audience::One(id), _) => server.has(*id),
            // The moderator's server stores it before it takes effect on any server.
            Self::Decide(decision) => server.has(decision.connection),
            Self::Send(Audience::Only(ids), _) => {
                ids.retain(|&id| server.has(id));
                !ids.is_empty()
            }
            Self::Send(audience, _) => {
                if matches!(audience, Audience::AllExcept(id) if !server.has(*id)) {
                    *audience = Audience::All;
                }
                true
            }
            Self::ListChanged(_)
            | Self::LeaveAway(..)
            | Self::OpenSession(..)
            | Self::CloseSession(_)
            | Self::Keep(_)
            | Self::Record(_)
            | Self::PublishBan(_)
            | Self::WithdrawBan(_)
            | Self::PublishModerators(_)
            | Self::Moderated(_) => true,
        }
    }
}

/// Who gets a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Audience {
    /// All connected members.
    All,
    AllExcept(ConnectionId),
    One(ConnectionId),
    Only(Vec<ConnectionId>),
}

/// A message to all members, for the store.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptEntry {
    pub id: u64,
    /// The wall clock, in milliseconds since 1970.
    pub unix_millis: u64,
    /// As it is sent: a `public` or a `system` message.
    pub json: Arc<[u8]>,
    /// The author's own id for the message.
    pub txn_id: Option<TxnId>,
}

/// An epoch that has ended, because the engine of several servers had lost entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastEpoch {
    pub epoch: Arc<str>,
    /// The chat has its entries up to this id. Later ids belong to other entries.
    pub last_id: u64,
}

/// What a room is created with. By default, nothing is kept.
#[derive(Default)]
pub struct RoomSettings {
    /// Identifies the order: it changes whenever ids start over.
    pub epoch: Arc<str>,
    pub history: HistoryLimits,
    /// `None`: messages are kept in memory only.
    pub stored: Option<StoredHistory>,
    pub away: AwayLimits,
    /// The named moderators.
    pub moderators: Vec<NamedModerator>,
    /// As stored, in the order of their ids.
    pub bans: Vec<Ban>,
    pub time_outs: Vec<StoredTimeOut>,
    /// The trusted proxies: like loopback, they cannot be banned.
    pub proxies: Vec<IpNet>,
}

pub struct Room {
    epoch: Arc<str>,
    /// The last ones before it, in order.
    past_epochs: Vec<PastEpoch>,
    /// Connections that were refused, removed or replaced, until they end. What they have sent is ignored.
    closed: ConnectionMap<()>,
    roster: Roster,
    history: History,
    away: AwaySchedule,
    timeouts: Timeouts,
    bans: Bans,
    moderators: Vec<NamedModerator>,
    /// Their names.
    reserved: NameMap<()>,
    /// Decisions that are being stored, in order.
    undecided: Vec<Decision>,
    scratch: Vec<u8>,
}

/// What the effects of a message need from its entry.
#[derive(Clone, Copy)]
struct Context<'a> {
    id: u64,
    time: &'a EntryTime,
    from: ConnectionId,
    txn_id: Option<&'a TxnId>,
    access: Access,
    /// For a client that joins.
    session: Option<SessionDigest>,
    /// Whether the connection belongs to the server that needs the effects.
    is_here: bool,
}

impl Context<'_> {
    /// The `ack` for its author; `None`: the message has no `txn_id`.
    fn ack(&self) -> Option<Effect> {
        let txn_id = self.txn_id?.clone();
        let ack = ServerMessage::Ack { txn_id, id: self.id, utc: self.time.utc.clone() };
        Some(Effect::Send(Audience::One(self.from), ack))
    }

    /// The `txn_id`, with the name of its author.
    fn txn(&self, author: &Member) -> Option<(TxnId, Arc<NameKey>)> {
        self.txn_id.map(|txn_id| (txn_id.clone(), author.name.key().clone()))
    }
}

impl Room {
    /// `time`: of the start, from which stored time-outs continue.
    pub fn new(settings: RoomSettings, time: &EntryTime) -> Self {
        let RoomSettings { epoch, history, stored, away, moderators, bans, time_outs, proxies } = settings;
        Self {
            epoch,
            past_epochs: Vec::new(),
            closed: ConnectionMap::default(),
            roster: Roster::default(),
            history: History::new(history, stored),
            away: AwaySchedule::new(away),
            timeouts: moderation::stored_time_outs(time_outs, time),
            bans: moderation::stored_bans(Bans::new(Protected::new(proxies)), bans),
            reserved: reserved_names(&moderators),
            moderators,
            undecided: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Applies the next entry, after what was due by its time. `viewer`: the server that needs the effects. Those on
    /// connections of other servers are left out.
    pub fn apply(&mut self, entry: Entry, viewer: NodeNumber) -> Vec<Effect> {
        self.history.evict_old(entry.time.unix_millis);
        let mut effects = self.expire(entry.time);
        effects.extend(self.apply_input(entry, viewer));
        if viewer != NodeNumber::LOCAL {
            effects.retain_mut(|effect| effect.is_for(viewer));
        }
        effects
    }

    fn apply_input(&mut self, entry: Entry, viewer: NodeNumber) -> Vec<Effect> {
        let Entry { id, time, from, input } = entry;
        let context = Context {
            id,
            time,
            from,
            txn_id: None,
            access: Access::default(),
            session: None,
            is_here: viewer.has(from),
        };
        match input {
            Input::Message { message: Err(reason), access, session, guest } => {
                self.message(Context { access, session, ..context }, guest, None, Err(reason))
            }
            Input::Message { message: Ok(message), access, session, guest } => {
                let ClientMessage { username, txn_id, body } = message;
                let context = Context { txn_id: txn_id.as_ref(), access, session, ..context };
                self.message(context, guest, username, body)
            }
            Input::Disconnected(departure) => self.disconnected(time, from, departure),
            Input::Older(request, answer) => self.older(context, *request, answer),
            Input::Decided(decision, outcome) => {
                match self.undecided.iter().position(|undecided| *undecided == *decision) {
                    Some(at) => {
                        self.undecided.remove(at);
                        self.decided(context, *decision, outcome)
                    }
                    None => Vec::new(),
                }
            }
            Input::Moderators(moderators) => self.set_moderators(moderators),
            Input::Tick => Vec::new(),
            Input::NodeDown(node) => self.node_down(context, node),
        }
    }

    /// When the next time-out or absence ends. An entry of that time or later has this as an effect.
    pub fn next_deadline(&self) -> Option<ChatTime> {
        [self.timeouts.next_end(), self.away.next_deadline()].into_iter().flatten().min()
    }

    /// Ends bans and time-outs, and removes members whose absence is over.
    fn expire(&mut self, time: &EntryTime) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(ban) = self.bans.pop_ended(time.unix_millis) {
            effects.push(Effect::WithdrawBan(ban.id));
        }
        while let Some(name) = self.timeouts.pop_ended(time.chat) {
            let member = self.roster.by_name(name.key());
            if let Some(member) = member.filter(|member| !self.timeouts.contains(member.name.key())) {
                let over = "Your time-out is over: you can send messages again.";
                effects.extend(member.connection().map(|connection| system(connection, over)));
                effects.push(self.list_changed());
            }
        }
        for order in self.away.late(time.chat) {
            if let Some(Member { address, presence: Presence::Away(away, _), .. }) =
                self.roster.get_mut(order)
            {
                self.away.delay(order, *address, away, time.chat);
            }
        }
        while let Some(member) = self.away.expired(time.chat) {
            self.leave(member, false, &mut effects);
        }
        effects
    }

    pub fn moderators(&self) -> &[NamedModerator] {
        &self.moderators
    }

    /// The bans, as they are published at the start.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// The sessions that can be resumed, with their names.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionDigest, Arc<NameKey>)> {
        self.roster.iter().filter_map(|member| Some((member.session?, member.name.key().clone())))
    }

    /// The connections of members on a server, in the order of their joins.
    #[cfg(feature = "cluster")]
    pub fn connections_of(&self, node: NodeNumber) -> Vec<ConnectionId> {
        self.roster.iter().filter_map(Member::connection).filter(|id| id.node() == node).collect()
    }

    #[cfg(feature = "cluster")]
    pub fn epoch(&self) -> Arc<str> {
        self.epoch.clone()
    }

    /// The decisions that are being stored, in order.
    #[cfg(feature = "cluster")]
    pub fn undecided(&self) -> &[Decision] {
        &self.undecided
    }

    #[cfg(feature = "cluster")]
    pub fn past_epochs(&self) -> &[PastEpoch] {
        &self.past_epochs
    }

    /// Continues in this epoch, which begins after the entry with the id `last_id` unless it is the current one.
    #[cfg(any(feature = "cluster", test))]
    pub fn continue_in(&mut self, epoch: Arc<str>, last_id: u64) {
        if epoch == self.epoch {
            return;
        }
        let past = std::mem::replace(&mut self.epoch, epoch);
        if self.past_epochs.len() == MAX_PAST_EPOCHS {
            self.past_epochs.remove(0);
        }
        self.past_epochs.push(PastEpoch { epoch: past, last_id });
    }

    #[cfg(test)]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How many members there are, including those that are away.
    #[cfg(test)]
    pub fn members(&self) -> usize {
        self.roster.len()
    }

    /// How many closed connections have not ended.
    #[cfg(test)]
    pub fn closed(&self) -> usize {
        self.closed.len()
    }

    /// What waits for members that are away, in bytes.
    #[cfg(test)]
    pub fn unread_bytes(&self) -> usize {
        self.roster.unread_bytes()
    }

    /// How many members are away.
    pub fn away_members(&self) -> usize {
        self.away.len()
    }

    /// Reserves the names of these moderators in place of the earlier ones.
    fn set_moderators(&mut self, moderators: Vec<NamedModerator>) -> Vec<Effect> {
        self.reserved = reserved_names(&moderators);
        self.moderators.clone_from(&moderators);
        let mut effects = vec![Effect::PublishModerators(moderators)];
        let mut is_changed = false;
        for member in self.roster.iter_mut() {
            if member.role == Role::Named && self.reserved.get(member.name.key()).is_none() {
                member.role = Role::Member;
                is_changed = true;
            }
        }
        effects.extend(is_changed.then(|| self.list_changed()));
        effects
    }

    fn message(
        &mut self,
        context: Context,
        guest: Option<Box<Guest>>,
        username: Option<Result<Username, String>>,
        body: Result<Body, MessageError>,
    ) -> Vec<Effect> {
        match guest {
            // Otherwise its server did not know yet that it has joined.
            Some(guest) if self.roster.by_connection(context.from).is_none() => {
                if self.closed.contains_key(&context.from) {
                    return Vec::new();
                }
                self.guest_message(context, *guest, username, body)
            }
            _ => self.member_message(context, body),
        }
    }

    fn member_message(&mut self, context: Context, body: Result<Body, MessageError>) -> Vec<Effect> {
        let Context { time, from, txn_id, .. } = context;
        let Some(member) = self.roster.by_connection(from) else { return Vec::new() };
        let is_asking = member.session.is_some();
        let seconds_left = self.timeouts.seconds_left(member.name.key(), time.chat);
        // The name of another member, which counts as the same, may be timed out.
        let seconds_left = seconds_left.filter(|_| member.role != Role::Named);
        // A member that is timed out can read.
        let is_reading = matches!(body, Ok(Body::History { .. }));
        if let Some(seconds) = seconds_left.filter(|_| !is_reading) {
            let content = format!("You are timed out: {seconds} seconds left.");
            let mut effects = vec![system(from, content.clone())];
            if txn_id.is_some() {
                effects.push(error(context, content));
            }
            return effects;
        }
        match self.request(context, body) {
            Ok(mut effects) => {
                let is_decided = !effects.iter().any(|effect| matches!(effect, Effect::Decide(_)));
                // Last, so that a client that has it has everything up to its id.
                effects.extend(context.ack().filter(|_| is_asking && !is_reading && is_decided));
                effects
            }
            Err(reason) => vec![error(context, reason)],
        }
    }

    /// A first message with a name joins, whatever its type, and is then handled.
    fn guest_message(
        &mut self,
        context: Context,
        guest: Guest,
        username: Option<Result<Username, String>>,
        body: Result<Body, MessageError>,
    ) -> Vec<Effect> {
        let name = match username {
            Some(Ok(name)) => name,
            Some(Err(reason)) => return vec![error(context, reason)],
            None => return vec![error(context, error_without_name(&body))],
        };
        match body {
            Ok(Body::Join(options)) => self.join(context, guest, name, options.as_deref()),
            body => match self.enter(context, guest, name, None) {
                Ok(mut effects) => {
                    // Nothing if it was refused.
                    effects.extend(self.member_message(context, body));
                    effects
                }
                Err(reason) => vec![error(context, reason)],
            },
        }
    }

    fn join(
        &mut self,
        context: Context,
        guest: Guest,
        name: Username,
        options: Option<&JoinOptions>,
    ) -> Vec<Effect> {
        if let Some(options) = options
            && let Some(session) = options.session
            && let Some(order) = self.place_of(session, &name)
        {
            return self.resume(context, guest, order, options);
        }
        self.enter(context, guest, name, options).unwrap_or_else(|reason| vec![error(context, reason)])
    }

    /// The place that a session resumes under this name.
    fn place_of(&self, session: SessionDigest, name: &Username) -> Option<JoinOrder> {
        let member = self.roster.by_name(name.key())?;
        (member.session == Some(session)).then_some(member.order)
    }

    /// The role of a new member with this name.
    ///
    /// # Errors
    /// A message for the user: it may not join, because of its password.
    fn role_at_join(&self, name: &Username, access: Access) -> Result<Role, String> {
        let is_reserved = self.reserved.get(name.key()).is_some();
        if !is_reserved && access.is_open {
            return Ok(Role::Member);
        }
        match access.join {
            Verdict::Own if is_reserved => Ok(Role::Named),
            Verdict::Shared if !is_reserved => Ok(Role::Member),
            verdict => Err(verdict.refusal().unwrap_or_else(|| {
                if is_reserved {
                    format!("The name {} is reserved: it requires its password.", name.shown())
                } else {
                    "This room requires a password.".into()
                }
            })),
        }
    }

    /// Adds a new member.
    fn enter(
        &mut self,
        context: Context,
        guest: Guest,
        name: Username,
        options: Option<&JoinOptions>,
    ) -> Result<Vec<Effect>, String> {
        let Context { time, from, access, .. } = context;
        // Otherwise a client could end its place in this moment, and join without waiting.
        if guest.only_resumes {
            return Err(MessageError::PlaceEnded.to_string());
        }
        let role = self.role_at_join(&name, access);
        if role != Ok(Role::Named)
            && let Some(ban) = self.ban_on(context, &name, guest.address)
        {
            let effects = moderation::refuse(context, ban);
            self.closed.insert(from, ());
            return Ok(effects);
        }
        let role = role?;
        if let Some(owner) = self.roster.by_name(name.key()) {
            return Err(NameError::InUse(owner.name.shown().clone()).to_string());
        }
        let joined = ServerMessage::System { content: format!("{} joined.", name.shown()) };
        let place_name = name.shown().clone();
        let session = options.and(context.session);
        let member = self.roster.join(from, name, guest, role, session, time.unix_millis);
        let place = member.place();
        let mut effects = vec![self.list_changed(), Effect::Enter(from, place_name)];
        if context.is_here {
            effects.push(Effect::Send(Audience::One(from), self.user_list()));
        }
        effects.push(Effect::Send(Audience::One(from), ServerMessage::CommandList { content: COMMANDS }));
        if let Some((options, session)) = options.zip(session) {
            effects.push(Effect::OpenSession(session, place.name.clone()));
            self.history_after_join(context, &place, session, options, &[], &mut effects);
        }
        effects.push(Effect::Send(Audience::All, joined));
        Ok(effects)
    }

    /// Gives a member's place to this connection.
    fn resume(
        &mut self,
        context: Context,
        Guest { address, opened, .. }: Guest,
        order: JoinOrder,
        options: &JoinOptions,
    ) -> Vec<Effect> {
        let from = context.from;
        let Some(member) = self.roster.get(order) else { return Vec::new() };
        // The place was not at this address when that was banned.
        if member.role != Role::Named
            && let Some(ban) = self.ban_on(context, &member.name, address)
        {
            let effects = moderation::refuse(context, ban);
            self.closed.insert(from, ());
            return effects;
        }
        let Some(member) = self.roster.get_mut(order) else { return Vec::new() };
        // A late join on an older connection, which the client has replaced with a newer one.
        let is_newer = |current: ConnectionId| current.is_newer(member.opened, from, opened);
        if member.connection().is_some_and(is_newer) {
            self.closed.insert(from, ());
            return vec![Effect::CloseReplaced(from)];
        }
        member.opened = opened;
        let before = std::mem::replace(&mut member.address, address);
        let (name, place, session) = (member.name.shown().clone(), member.place(), member.session);
        let mut effects = Vec::new();
        let mut unread = Unread::default();
        match self.roster.set_presence(order, Presence::Connected(from)) {
            Some(Presence::Connected(replaced)) => {
                self.closed.insert(replaced, ());
                effects.push(Effect::CloseReplaced(replaced));
            }
            Some(Presence::Away(away, whispers)) => {
                self.away.end(order, before, away);
                effects.push(self.list_changed());
                unread = whispers;
            }
            None => {}
        }
        effects.push(Effect::Resume(from, name));
        if context.is_here && self.roster.list_size().is_small() {
            effects.push(Effect::Send(Audience::One(from), self.user_list()));
        }
        effects.push(Effect::Send(Audience::One(from), ServerMessage::CommandList { content: COMMANDS }));
        if let Some(session) = session {
            self.history_after_join(context, &place, session, options, unread.entries(), &mut effects);
        }
        effects.extend(unread.into_notices().map(|content| error(context, content)));
        effects
    }

    fn history_after_join(
        &mut self,
        context: Context,
        place: &Place,
        session: SessionDigest,
        options: &JoinOptions,
        unread: &[HistoryEntry],
        effects: &mut Vec<Effect>,
    ) {
        if !context.is_here {
            return;
        }
        let (page, recovered) = match &options.since {
            None => (self.history.page_with_unread(place, options.history, unread), None),
            Some(since) => {
                let is_known = *since.epoch == *self.epoch && since.id <= context.id;
                if is_known {
                    // First, so that a client that has the answer has everything up to its id.
                    let deleted = self.history.deleted_since(place, since.id);
                    let to = || Audience::One(context.from);
                    effects.extend(deleted.map(|id| Effect::Send(to(), ServerMessage::Deleted { id })));
                }
                // A client cannot have received what waits for it.
                let id = unread.first().map_or(since.id, |first| since.id.min(first.id - 1));
                match is_known.then(|| self.history.since(place, id)).flatten() {
                    Some(page) => (page, Some(true)),
                    None => {
                        let page = self.history.page_with_unread(place, MAX_PAGE_MESSAGES, unread);
                        (page, Some(false))
                    }
                }
            }
        };
        effects.push(self.answer(context, page, recovered, Some(session)));
    }

    fn answer(
        &self,
        context: Context,
        page: Page,
        recovered: Option<bool>,
        session: Option<SessionDigest>,
    ) -> Effect {
        let Page { json: messages, more } = page;
        let epoch = self.epoch.clone();
        let answer = HistoryAnswer { messages, id: context.id, more, epoch, recovered, session, join: None };
        Effect::Send(Audience::One(context.from), ServerMessage::History(answer.into()))
    }

    fn disconnected(&mut self, time: &EntryTime, from: ConnectionId, departure: Departure) -> Vec<Effect> {
        self.closed.remove(&from);
        let Some(member) = self.roster.by_connection(from) else { return Vec::new() };
        let (order, address, name) = (member.order, member.address, member.name.shown().clone());
        let mut effects = Vec::new();
        let may_resume = departure == Departure::Lost && member.session.is_some();
        let away = may_resume.then(|| self.away.start(order, address, time.chat)).flatten();
        let Some(away) = away else {
            self.leave(order, false, &mut effects);
            return effects;
        };
        self.roster.set_presence(order, Presence::Away(away, Unread::default()));
        effects.extend([self.list_changed(), Effect::Away(from, name)]);
        while let Some(member) = self.away.excess(address.network) {
            self.leave(member, false, &mut effects);
        }
        effects
    }

    /// The server's members lose their connections, and what it was storing takes effect.
    fn node_down(&mut self, context: Context, node: NodeNumber) -> Vec<Effect> {
        let is_its = |decision: &mut Decision| decision.connection.node() == node;
        let mut effects = Vec::new();
        for decision in self.undecided.extract_if(.., is_its).collect::<Vec<_>>() {
            // What its store had is unknown.
            let outcome = match decision.act.action {
                Action::Delete { .. } => Outcome::NotFound,
                _ => Outcome::NotStored,
            };
            effects.extend(self.decided(context, decision, outcome));
        }
        let connections = self.roster.iter().filter_map(Member::connection);
        for connection in connections.filter(|id| id.node() == node).collect::<Vec<_>>() {
            effects.extend(self.disconnected(context.time, connection, Departure::Lost));
        }
        self.closed.retain(|id, ()| id.node() != node);
        effects
    }

    /// `is_removed`: its connection is [closed](Effect::Close) already.
    fn leave(&mut self, order: JoinOrder, is_removed: bool, effects: &mut Vec<Effect>) {
        let Some(member) = self.roster.leave(order) else { return };
        effects.push(self.list_changed());
        let name = member.name.shown();
        match &member.presence {
            Presence::Connected(_) if is_removed => {}
            Presence::Connected(connection) => effects.push(Effect::Leave(*connection, name.clone())),
            Presence::Away(away, unread) => {
                self.away.end(order, member.address, *away);
                effects.push(Effect::LeaveAway(member.address.network, name.clone()));
                effects.extend(self.report_undelivered(name, unread));
            }
        }
        effects.extend(member.session.map(Effect::CloseSession));
        effects.push(Effect::Send(Audience::All, ServerMessage::System { content: format!("{name} left.") }));
    }

    /// Tells those whose whispers a member has not received, or will tell them when they resume.
    fn report_undelivered(&mut self, name: &str, unread: &Unread) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (author, count) in unread.authors() {
            let messages = match count {
                1 => "your message".to_owned(),
                _ => format!("{count} of your messages"),
            };
            let content = format!("{name} has left without receiving {messages}.");
            match self.roster.get(author).map(Member::connection) {
                Some(Some(connection)) => {
                    let message = ServerMessage::Error { content, txn_id: None };
                    effects.push(Effect::Send(Audience::One(connection), message));
                }
                Some(None) => self.roster.keep_notice(author, content),
                None => {}
            }
        }
        effects
    }

    /// What a member asks for.
    fn request(&mut self, context: Context, body: Result<Body, MessageError>) -> Result<Vec<Effect>, String> {
        let body = body.map_err(|reason| reason.to_string())?;
        if !context.is_here && body.is_question() {
            return Ok(Vec::new());
        }
        match body {
            Body::Join(_) => {
                let member = self.roster.by_connection(context.from);
                let name = member.map_or("", |member| member.name.shown());
                Err(format!("You have already joined as {name}."))
            }
            Body::Public { content } => Ok(self.public(context, &content)),
            Body::Private { to, content } => self.private(context, &to, &content),
            Body::Command(command) => self.command(context, command?),
            Body::History { before, limit } => Ok(self.page(context, before, limit)),
        }
    }

    fn public(&mut self, context: Context, content: &str) -> Vec<Effect> {
        let Some(sender) = self.roster.by_connection(context.from) else { return Vec::new() };
        let username = sender.name.shown().clone();
        let (txn, author) = (context.txn(sender), Some(sender.order));
        let message = KeptMessage::Public { username: &username, content };
        self.keep(context, Audience::AllExcept(context.from), message, txn, author)
    }

    /// Sends a message to all members, or all except its author, and keeps it.
    fn keep(
        &mut self,
        context: Context,
        audience: Audience,
        message: KeptMessage,
        txn: Option<(TxnId, Arc<NameKey>)>,
        author: Option<JoinOrder>,
    ) -> Vec<Effect> {
        let json = self.encode(context, message);
        let Context { id, time: &EntryTime { unix_millis, .. }, .. } = context;
        let mut effects = Vec::with_capacity(3);
        effects.push(Effect::Send(audience, ServerMessage::Kept(json.clone())));
        if self.history.is_stored() {
            let txn_id = txn.as_ref().map(|(txn_id, _)| txn_id.clone());
            effects.push(Effect::Keep(KeptEntry { id, unix_millis, json: json.clone(), txn_id }));
        }
        self.history.push(HistoryEntry { id, unix_millis, json, txn, visibility: Visibility::All, author });
        effects
    }

    /// Encodes a message in one allocation of its size.
    fn encode(&mut self, context: Context, message: KeptMessage) -> Arc<[u8]> {
        self.scratch.clear();
        self.scratch.shrink_to(MAX_SCRATCH_BYTES);
        message.encode(context.id, context.time, &mut self.scratch);
        self.scratch.as_slice().into()
    }

    fn page(&mut self, context: Context, before: Option<u64>, limit: u16) -> Vec<Effect> {
        let Some(member) = self.roster.by_connection(context.from) else { return Vec::new() };
        let viewer = member.place();
        match self.history.page_with_older(&viewer, before, limit) {
            Ok(page) => vec![self.answer(context, page, None, None)],
            Err(page) => {
                let request = OlderRequest { viewer, txn_id: context.txn_id.cloned(), page };
                vec![Effect::ReadOlder(context.from, request.into())]
            }
        }
    }

    /// Answers a request with what the store has for it.
    fn older(
        &mut self,
        context: Context,
        request: OlderRequest,
        answer: Result<OlderMessages, StoreUnavailable>,
    ) -> Vec<Effect> {
        let OlderRequest { viewer, txn_id, page } = request;
        let context = Context { txn_id: txn_id.as_ref(), ..context };
        if self.roster.by_connection(context.from).is_none_or(|member| member.order != viewer.order) {
            return Vec::new();
        }
        let Ok(OlderMessages { entries, more }) = answer else {
            return vec![error(context, "Older messages are not available now: try again later.")];
        };
        let page = self.history.complete(&viewer, &page, &entries, more);
        vec![self.answer(context, page, None, None)]
    }

    fn command(&mut self, context: Context, command: Command) -> Result<Vec<Effect>, String> {
        let row = command.row();
        if self.roster.by_connection(context.from).is_none_or(|member| member.role < row.role) {
            return Err(format!("Only moderators may use {}: see /login.", row.name));
        }
        match command {
            Command::Whisper(target) => self.whisper(context, &target),
            Command::Login => self.login(context),
            Command::Help(about) => Ok(vec![system(context.from, command::help(about))]),
            command => Ok(self.moderate(context, command)?),
        }
    }

    fn whisper(&mut self, context: Context, target: &Target) -> Result<Vec<Effect>, String> {
        match self.target(target, &WHISPER)? {
            (_, "") => Err(command::usage(&WHISPER)),
            (target, content) => {
                let target = target.order;
                self.send_private(context, target, content)
            }
        }
    }

    fn private(&mut self, context: Context, to: &Recipient, content: &str) -> Result<Vec<Effect>, String> {
        let target = to.key.as_ref().and_then(|key| self.roster.by_name(key));
        let target = target.ok_or_else(|| no_such_user(&to.name))?.order;
        self.send_private(context, target, content)
    }

    fn send_private(
        &mut self,
        context: Context,
        to: JoinOrder,
        content: &str,
    ) -> Result<Vec<Effect>, String> {
        let Some(sender) = self.roster.by_connection(context.from) else { return Ok(Vec::new()) };
        let Some(target) = self.roster.get(to) else { return Ok(Vec::new()) };
        let (from, to) = (sender.name.shown().clone(), target.name.shown().clone());
        let (txn, places) = (context.txn(sender), [sender.place(), target.place()]);
        let author = Some(sender.order);
        let json = self.encode(context, KeptMessage::Private { from: &from, to: &to, content });
        let unix_millis = context.time.unix_millis;
        let visibility = Visibility::Participants(places.into());
        let entry = HistoryEntry { id: context.id, unix_millis, json, txn, visibility, author };
        let mut effects = self.deliver_whisper(context, &to, &entry)?;
        effects.push(echo(context, &entry));
        self.history.push(entry);
        Ok(effects)
    }

    /// Sends a whisper to its target, or keeps it until the target resumes.
    fn deliver_whisper(
        &mut self,
        context: Context,
        to: &str,
        entry: &HistoryEntry,
    ) -> Result<Vec<Effect>, String> {
        let Visibility::Participants(places) = &entry.visibility else { return Ok(Vec::new()) };
        let target = places[1].order;
        match self.roster.get(target).map(Member::connection) {
            Some(None) if self.roster.keep_unread(target, entry) => Ok(Vec::new()),
            Some(None) => Err(format!("{to} is away, and no more whispers can wait: try again later.")),
            Some(Some(connection)) if connection != context.from => {
                Ok(vec![Effect::Send(Audience::One(connection), ServerMessage::Kept(entry.json.clone()))])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The member that is a command's target, and the rest of its arguments.
    ///
    /// # Errors
    /// A message for the user: nobody has the name, or the arguments begin with several names.
    fn target<'a>(&self, target: &'a Target, command: &CommandUsage) -> Result<(&Member, &'a str), String> {
        match target.find(|name| self.roster.by_name(name).map(|member| member.order)) {
            Found::One(member, rest) => {
                let member = self.roster.get(member);
                member.map(|member| (member, rest)).ok_or_else(|| no_such_user(&target.name()))
            }
            Found::None => Err(format!("{} {}", no_such_user(&target.name()), command::usage(command))),
            Found::Several(members) => {
                let members = members.into_iter().filter_map(|member| self.roster.get(member));
                let names: Vec<String> = members.map(|member| target::quoted(member.name.shown())).collect();
                Err(format!(
                    "This begins with the names of several users: {}. Put the name in quotes: {} {} …",
                    names.join(", "),
                    command.name,
                    names.first().map_or("", String::as_str),
                ))
            }
        }
    }

    fn login(&mut self, context: Context) -> Result<Vec<Effect>, String> {
        let from = context.from;
        let Some(member) = self.roster.by_connection(from) else { return Ok(Vec::new()) };
        if member.role >= Role::Moderator {
            return Ok(vec![system(from, "You are already a moderator.")]);
        }
        if context.access.login != Verdict::Shared {
            return Err(context.access.login.refusal().unwrap_or_else(|| NOT_COMPARED.into()));
        }
        let content = format!("{} is now a moderator.", member.name.shown());
        let act = moderation::act(context, member, Action::Login);
        let member = member.order;
        if let Some(member) = self.roster.get_mut(member) {
            member.role = Role::Moderator;
        }
        let mut effects = self.moderation(context, content);
        effects.push(Effect::Record(act.into()));
        Ok(effects)
    }

    /// Tells all members of a moderator's action, which has changed the list.
    fn moderation(&mut self, context: Context, content: String) -> Vec<Effect> {
        let mut effects = vec![self.list_changed()];
        effects.extend(self.keep(
            context,
            Audience::All,
            KeptMessage::System { content: &content },
            None,
            None,
        ));
        effects.push(Effect::Moderated(content));
        effects
    }

    pub fn list_changed(&self) -> Effect {
        Effect::ListChanged(self.roster.list_size())
    }

    /// The newest user list.
    pub fn user_list(&self) -> ServerMessage {
        ServerMessage::UserList { content: self.roster.users(&self.timeouts) }
    }
}

/// The error for a client that has not joined, and cannot join with this message because it has no name. `None`: it has
/// one.
pub fn guest_error(message: &Result<ClientMessage, MessageError>) -> Option<ServerMessage> {
    let (content, txn_id) = match message {
        Err(reason) => (reason.to_string(), None),
        Ok(ClientMessage { username: Some(Ok(_)), .. }) => return None,
        Ok(ClientMessage { username: Some(Err(reason)), txn_id, .. }) => (reason.clone(), txn_id.clone()),
        Ok(ClientMessage { username: None, txn_id, body }) => {
            (error_without_name(body).to_string(), txn_id.clone())
        }
    };
    Some(ServerMessage::Error { content, txn_id })
}

fn error_without_name(body: &Result<Body, MessageError>) -> MessageError {
    match body {
        Ok(Body::Join(_)) => MessageError::Missing("username"),
        Ok(_) => MessageError::NotJoined,
        Err(reason) => reason.clone(),
    }
}

fn reserved_names(moderators: &[NamedModerator]) -> NameMap<()> {
    let mut reserved = NameMap::default();
    for moderator in moderators {
        reserved.insert(moderator.name.key(), ());
    }
    reserved
}

/// A whisper as its author gets it.
fn echo(context: Context, entry: &HistoryEntry) -> Effect {
    let json = match context.txn_id {
        None => entry.json.clone(),
        Some(txn_id) => {
            let mut json = Vec::new();
            encode_with_txn_id(&entry.json, txn_id, &mut json);
            json.into()
        }
    };
    Effect::Send(Audience::One(context.from), ServerMessage::Kept(json))
}

fn system(to: ConnectionId, content: impl Into<String>) -> Effect {
    Effect::Send(Audience::One(to), ServerMessage::System { content: content.into() })
}

fn error(context: Context, content: impl ToString) -> Effect {
    let message = ServerMessage::Error { content: content.to_string(), txn_id: context.txn_id.cloned() };
    Effect::Send(Audience::One(context.from), message)
}

fn no_such_user(name: &str) -> String {
    format!("Nobody here is called {name}.")
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
