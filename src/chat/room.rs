//! The room: for each input, it returns effects (docs/protocol.md).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::command::{self, COMMANDS, Command, TO, WHISPER};
use super::list_budget::JoinPace;
use super::password::ModPassword;
use super::password_throttle::PasswordThrottle;
use super::protocol::{Body, ClientMessage, CommandUsage, MessageError, Recipient, ServerMessage};
use super::roster::{Member, Roster};
use super::target::{self, Found, Target};
use super::time_outs::{MAX_SECONDS, Timeouts, whole_seconds};
use super::user_list::UserListSchedule;
use super::username::{NameError, Username};
use crate::limits::Network;

/// A connection. No id is used twice while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// An event on a connection.
#[derive(Debug)]
pub enum Input {
    /// Opened from this network. It is a guest until it joins.
    Connected(Network),
    Message(Result<ClientMessage, MessageError>),
    Disconnected,
}

/// A consequence of an input, to be applied in order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// From here on, the connection is part of [`Audience::All`].
    Enter(ConnectionId),
    Leave(ConnectionId),
    Send(Audience, ServerMessage),
    /// A member sent a wrong password to `/login`.
    WrongPassword(ConnectionId),
}

/// Who gets a message.
#[derive(Debug, PartialEq)]
pub enum Audience {
    /// All members.
    All,
    AllExcept(ConnectionId),
    One(ConnectionId),
    Only(Vec<ConnectionId>),
}

pub struct Room {
    /// `None`: nobody can become a moderator.
    mod_password: Option<ModPassword>,
    /// Connections that have not joined.
    guests: HashMap<ConnectionId, Network>,
    roster: Roster,
    lists: UserListSchedule,
    timeouts: Timeouts,
    password_throttle: PasswordThrottle,
}

impl Room {
    pub fn new(mod_password: Option<ModPassword>) -> Self {
        Self {
            mod_password,
            guests: HashMap::new(),
            roster: Roster::default(),
            lists: UserListSchedule::default(),
            timeouts: Timeouts::default(),
            password_throttle: PasswordThrottle::default(),
        }
    }

    pub fn handle(&mut self, now: Instant, from: ConnectionId, input: Input) -> Vec<Effect> {
        match input {
            Input::Connected(network) => {
                self.guests.insert(from, network);
                Vec::new()
            }
            Input::Message(message) => self.message(now, from, message),
            Input::Disconnected => self.disconnected(now, from),
        }
    }

    /// When to call [`Self::expire`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timeouts.next_end().into_iter().chain(self.lists.next_deadline()).min()
    }

    /// How fast members may join without exceeding the list rate. Hold joins back that come faster.
    pub fn join_pace(&self) -> JoinPace {
        self.lists.join_pace()
    }

    /// Ends time-outs and sends user lists that are due, to slow clients less often.
    pub fn expire(&mut self, now: Instant, is_slow: impl Fn(ConnectionId) -> bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(name) = self.timeouts.pop_ended(now) {
            let member = self.roster.by_name(&name);
            if let Some(member) = member.filter(|member| !self.timeouts.contains(member.name.key())) {
                effects
                    .push(system(member.connection, "Your time-out is over: you can send messages again."));
                self.lists.changed(now);
            }
        }
        if let Some(recipients) = self.lists.next_round(now, is_slow) {
            effects.push(Effect::Send(recipients, self.user_list()));
        }
        effects
    }

    fn message(
        &mut self,
        now: Instant,
        from: ConnectionId,
        message: Result<ClientMessage, MessageError>,
    ) -> Vec<Effect> {
        if let Some(&network) = self.guests.get(&from) {
            return self.guest_message(now, from, network, message);
        }
        let Some(member) = self.roster.get(from) else { return Vec::new() };
        if let Some(seconds) = self.timeouts.seconds_left(member.name.key(), now) {
            return vec![system(from, format!("You are timed out: {seconds} seconds left."))];
        }
        match message.and_then(|message| message.body) {
            Err(reason) => vec![error(from, reason)],
            Ok(Body::Join) => {
                vec![error(from, format!("You have already joined as {}.", member.name.shown()))]
            }
            Ok(Body::Public { content }) => {
                let username = member.name.shown().clone();
                vec![Effect::Send(Audience::AllExcept(from), ServerMessage::Public { username, content })]
            }
            Ok(Body::Private { to, content }) => self.private(from, &to, content),
            Ok(Body::Command(Err(reason))) => vec![error(from, reason)],
            Ok(Body::Command(Ok(command))) => self.command(now, from, command),
        }
    }

    /// A first message with a name joins, whatever its type, and is then handled.
    fn guest_message(
        &mut self,
        now: Instant,
        from: ConnectionId,
        network: Network,
        message: Result<ClientMessage, MessageError>,
    ) -> Vec<Effect> {
        let ClientMessage { username, body } = match message {
            Ok(message) => message,
            Err(reason) => return vec![error(from, reason)],
        };
        let name = match username {
            Some(Ok(name)) => name,
            Some(Err(reason)) => return vec![error(from, reason)],
            None if body == Ok(Body::Join) => return vec![error(from, MessageError::Missing("username"))],
            None => return vec![error(from, body.err().unwrap_or(MessageError::NotJoined))],
        };
        match self.join(now, from, network, name) {
            Err(reason) => vec![error(from, reason)],
            Ok(mut effects) => {
                if body != Ok(Body::Join) {
                    let message = ClientMessage { username: None, body };
                    effects.extend(self.message(now, from, Ok(message)));
                }
                effects
            }
        }
    }

    fn join(
        &mut self,
        now: Instant,
        from: ConnectionId,
        network: Network,
        name: Username,
    ) -> Result<Vec<Effect>, NameError> {
        if let Some(owner) = self.roster.by_name(name.key()) {
            return Err(NameError::InUse(owner.name.shown().clone()));
        }
        let joined = ServerMessage::System { content: format!("{} joined.", name.shown()) };
        self.guests.remove(&from);
        let member = self.roster.join(from, name, network);
        self.lists.joined(member, now);
        Ok(vec![
            Effect::Enter(from),
            Effect::Send(Audience::One(from), self.user_list()),
            Effect::Send(Audience::One(from), ServerMessage::CommandList { content: COMMANDS }),
            Effect::Send(Audience::All, joined),
        ])
    }

    fn disconnected(&mut self, now: Instant, from: ConnectionId) -> Vec<Effect> {
        self.guests.remove(&from);
        let Some(member) = self.roster.leave(from) else { return Vec::new() };
        self.lists.left(&member, now);
        let left = ServerMessage::System { content: format!("{} left.", member.name.shown()) };
        vec![Effect::Leave(from), Effect::Send(Audience::All, left)]
    }

    fn command(&mut self, now: Instant, from: ConnectionId, command: Command) -> Vec<Effect> {
        match command {
            Command::Whisper(target) => self.whisper(from, &target),
            Command::Login(attempt) => self.login(now, from, &attempt),
            Command::To(target) => self.time_out(now, from, &target),
            Command::Help(about) => vec![system(from, command::help(about))],
        }
    }

    fn whisper(&self, from: ConnectionId, target: &Target) -> Vec<Effect> {
        match self.target(target, &WHISPER) {
            Err(reason) => vec![error(from, reason)],
            Ok((_, "")) => vec![error(from, command::usage(&WHISPER))],
            Ok((target, content)) => self.send_private(from, target, content.to_owned()),
        }
    }

    fn private(&self, from: ConnectionId, to: &Recipient, content: String) -> Vec<Effect> {
        match to.key.as_ref().and_then(|key| self.roster.by_name(key)) {
            Some(target) => self.send_private(from, target, content),
            None => vec![error(from, no_such_user(&to.name))],
        }
    }

    fn send_private(&self, from: ConnectionId, target: &Member, content: String) -> Vec<Effect> {
        let Some(sender) = self.roster.get(from) else { return Vec::new() };
        let audience = if target.connection == from {
            Audience::One(from)
        } else {
            Audience::Only(vec![target.connection, from])
        };
        let private = ServerMessage::Private {
            from: sender.name.shown().clone(),
            to: target.name.shown().clone(),
            content,
        };
        vec![Effect::Send(audience, private)]
    }

    /// The member that is a command's target, and the rest of its arguments.
    ///
    /// # Errors
    /// A message for the user: nobody has the name, or the arguments begin with several names.
    fn target<'a>(&self, target: &'a Target, command: &CommandUsage) -> Result<(&Member, &'a str), String> {
        match target.find(|name| self.roster.by_name(name).map(|member| member.connection)) {
            Found::One(connection, rest) => {
                let member = self.roster.get(connection);
                member.map(|member| (member, rest)).ok_or_else(|| no_such_user(&target.name()))
            }
            Found::None => Err(format!("{} {}", no_such_user(&target.name()), command::usage(command))),
            Found::Several(connections) => {
                let members = connections.into_iter().filter_map(|connection| self.roster.get(connection));
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

    fn login(&mut self, now: Instant, from: ConnectionId, attempt: &str) -> Vec<Effect> {
        let Some(member) = self.roster.get(from) else { return Vec::new() };
        if member.is_moderator {
            return vec![system(from, "You are already a moderator.")];
        }
        let Some(password) = &self.mod_password else {
            return vec![error(from, "Nobody can become a moderator here: MOD_PASSWORD is not set.")];
        };
        if let Some(wait) = self.password_throttle.wait(member.network, now) {
            let seconds = whole_seconds(wait);
            return vec![error(from, format!("Too many wrong passwords: wait {seconds} seconds."))];
        }
        if !password.matches(attempt) {
            self.password_throttle.record_wrong(member.network, now);
            return vec![Effect::WrongPassword(from), error(from, "Wrong password.")];
        }
        let promoted =
            ServerMessage::System { content: format!("{} is now a moderator.", member.name.shown()) };
        self.roster.make_moderator(from);
        self.lists.changed(now);
        vec![Effect::Send(Audience::All, promoted)]
    }

    fn time_out(&mut self, now: Instant, from: ConnectionId, target: &Target) -> Vec<Effect> {
        let Some(moderator) = self.roster.get(from) else { return Vec::new() };
        if !moderator.is_moderator {
            return vec![error(from, "Only moderators may use /to: see /login.")];
        }
        let (target, seconds) = match self.target(target, &TO) {
            Ok(found) => found,
            Err(reason) => return vec![error(from, reason)],
        };
        let Some(seconds) = seconds.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) else {
            let usage = command::usage(&TO);
            return vec![error(from, format!("{usage}, with 1 to {MAX_SECONDS} whole seconds."))];
        };
        let (by, target) = (moderator.name.shown().clone(), target.name.clone());
        if !self.timeouts.set(target.key(), now + Duration::from_secs(seconds)) {
            return vec![error(from, "Too many users are already timed out.")];
        }
        let content = format!("{by} timed out {} for {seconds} seconds.", target.shown());
        self.lists.changed(now);
        vec![Effect::Send(Audience::All, ServerMessage::System { content })]
    }

    fn user_list(&self) -> ServerMessage {
        ServerMessage::UserList { content: self.roster.users(&self.timeouts) }
    }
}

fn system(to: ConnectionId, content: impl Into<String>) -> Effect {
    Effect::Send(Audience::One(to), ServerMessage::System { content: content.into() })
}

fn error(to: ConnectionId, content: impl ToString) -> Effect {
    Effect::Send(Audience::One(to), ServerMessage::Error { content: content.to_string() })
}

fn no_such_user(name: &str) -> String {
    format!("Nobody here is called {name}.")
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
