//! The chat itself: who is here, who hears what, and the rules of SPEC.md parts 1 and 2.
//!
//! A [`Room`] does no I/O and reads no clock. It is handed one input after the other and says what follows.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::command::{self, COMMANDS, Command, TO, WHISPER};
use super::password::ModPassword;
use super::password_throttle::Logins;
use super::protocol::{Body, ClientMessage, CommandUsage, Fault, Field, ServerMessage};
use super::roster::{Roster, Round};
use super::timeout::{MAX_SECONDS, Timeouts, whole_seconds};
use super::username::{NameError, Username};

/// A connection, for as long as the server runs: numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What a connection did.
#[derive(Debug)]
pub enum Input {
    /// It is there, from this address. It is in the room only once it has joined.
    Connected(IpAddr),
    Said(Result<ClientMessage, Fault>),
    Gone,
}

/// What follows.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// From here on this connection hears what everybody hears.
    Enter(ConnectionId),
    Leave(ConnectionId),
    Tell(Audience, ServerMessage),
    /// Somebody tried a password that is not the moderators'.
    WrongPassword(ConnectionId),
}

#[derive(Debug, PartialEq)]
pub enum Audience {
    Everybody,
    EverybodyBut(ConnectionId),
    One(ConnectionId),
    These(Vec<ConnectionId>),
}

pub struct Room {
    mod_password: Option<ModPassword>,
    /// Who is connected and has not joined.
    guests: HashMap<ConnectionId, IpAddr>,
    roster: Roster,
    timeouts: Timeouts,
    logins: Logins,
}

impl Room {
    pub fn new(mod_password: Option<ModPassword>) -> Self {
        Self {
            mod_password,
            guests: HashMap::new(),
            roster: Roster::default(),
            timeouts: Timeouts::default(),
            logins: Logins::default(),
        }
    }

    pub fn handle(&mut self, now: Instant, from: ConnectionId, input: Input) -> Vec<Effect> {
        match input {
            Input::Connected(address) => {
                self.guests.insert(from, address);
                Vec::new()
            }
            Input::Said(message) => self.said(now, from, message),
            Input::Gone => self.gone(now, from),
        }
    }

    /// When [`Self::expire`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timeouts.next_end().into_iter().chain(self.roster.next_round()).min()
    }

    /// What follows from time going by.
    pub fn expire(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(name) = self.timeouts.pop_ended(now) {
            if let Some(member) = self.roster.named(&name) {
                effects.push(system(member.connection, "Your time-out is over: you may speak again."));
                self.roster.changed(now);
            }
        }
        if let Some(round) = self.roster.round(now) {
            let audience = match round {
                Round::Everybody => Audience::Everybody,
                Round::These(these) => Audience::These(these),
            };
            effects.push(Effect::Tell(audience, self.user_list()));
        }
        effects
    }

    fn said(
        &mut self,
        now: Instant,
        from: ConnectionId,
        message: Result<ClientMessage, Fault>,
    ) -> Vec<Effect> {
        if let Some(&address) = self.guests.get(&from) {
            return self.guest_said(now, from, address, message);
        }
        let Some(member) = self.roster.of(from) else { return Vec::new() };
        if let Some(seconds) = self.timeouts.seconds_left(member.name.key(), now) {
            return vec![system(from, format!("You are timed out: {seconds} seconds left."))];
        }
        match message.and_then(|message| message.body) {
            Err(fault) => vec![error(from, fault)],
            Ok(Body::Join) => {
                vec![error(from, format!("You have joined already, as {}.", member.name.shown()))]
            }
            Ok(Body::Public { content }) => {
                let username = member.name.shown().clone();
                let said = ServerMessage::Public { username, content };
                vec![Effect::Tell(Audience::EverybodyBut(from), said)]
            }
            Ok(Body::Command { content }) => self.command(now, from, &content),
        }
    }

    /// A first message with a name joins, whatever its type, and is then handled.
    fn guest_said(
        &mut self,
        now: Instant,
        from: ConnectionId,
        address: IpAddr,
        message: Result<ClientMessage, Fault>,
    ) -> Vec<Effect> {
        let ClientMessage { username, body } = match message {
            Ok(message) => message,
            Err(fault) => return vec![error(from, fault)],
        };
        if username == Field::Missing && body != Ok(Body::Join) {
            return vec![error(from, body.err().unwrap_or(Fault::NotJoined))];
        }
        let name = match username.text("username") {
            Ok(text) => Username::parse(&text),
            Err(fault) => return vec![error(from, fault)],
        };
        match name.and_then(|name| self.join(now, from, address, name)) {
            Err(refused) => vec![error(from, refused)],
            Ok(mut effects) => {
                if body != Ok(Body::Join) {
                    let message = ClientMessage { username: Field::Missing, body };
                    effects.extend(self.said(now, from, Ok(message)));
                }
                effects
            }
        }
    }

    fn join(
        &mut self,
        now: Instant,
        from: ConnectionId,
        address: IpAddr,
        name: Username,
    ) -> Result<Vec<Effect>, NameError> {
        if let Some(bearer) = self.roster.named(name.key()) {
            return Err(NameError::Taken(bearer.name.shown().clone()));
        }
        let joined = ServerMessage::System { content: format!("{} joined.", name.shown()) };
        self.guests.remove(&from);
        self.roster.join(from, name, address, now);
        Ok(vec![
            Effect::Enter(from),
            Effect::Tell(Audience::One(from), self.user_list()),
            Effect::Tell(Audience::One(from), ServerMessage::CommandList { content: COMMANDS }),
            Effect::Tell(Audience::Everybody, joined),
        ])
    }

    fn gone(&mut self, now: Instant, from: ConnectionId) -> Vec<Effect> {
        self.guests.remove(&from);
        match self.roster.leave(from, now) {
            None => Vec::new(),
            Some(member) => {
                let left = ServerMessage::System { content: format!("{} left.", member.name.shown()) };
                vec![Effect::Leave(from), Effect::Tell(Audience::Everybody, left)]
            }
        }
    }

    fn command(&mut self, now: Instant, from: ConnectionId, text: &str) -> Vec<Effect> {
        match Command::parse(text) {
            Err(mistake) => vec![error(from, mistake)],
            Ok(Command::Whisper(text)) => self.whisper(from, text),
            Ok(Command::Login(attempt)) => self.login(now, from, attempt),
            Ok(Command::To(text)) => self.time_out(now, from, text),
            Ok(Command::Help(about)) => vec![system(from, command::help(about))],
        }
    }

    fn whisper(&self, from: ConnectionId, text: &str) -> Vec<Effect> {
        let (Some(sender), target) = (self.roster.of(from), self.roster.at_start_of(text)) else {
            return Vec::new();
        };
        let (target, content) = match target {
            None => return vec![error(from, nobody(text, &WHISPER))],
            Some((_, "")) => return vec![error(from, command::usage(&WHISPER))],
            Some(found) => found,
        };
        let audience = match target.connection {
            to if to == from => Audience::One(from),
            to => Audience::These(vec![to, from]),
        };
        let whispered = ServerMessage::Private {
            from: sender.name.shown().clone(),
            to: target.name.shown().clone(),
            content: content.to_owned(),
        };
        vec![Effect::Tell(audience, whispered)]
    }

    fn login(&mut self, now: Instant, from: ConnectionId, attempt: &str) -> Vec<Effect> {
        let Some(member) = self.roster.of(from) else { return Vec::new() };
        if member.is_moderator {
            return vec![system(from, "You are a moderator already.")];
        }
        let Some(password) = &self.mod_password else {
            return vec![error(from, "Nobody can become moderator here: the server has no MOD_PASSWORD.")];
        };
        if let Some(wait) = self.logins.wait(member.address, now) {
            let seconds = whole_seconds(wait);
            return vec![error(from, format!("Too many wrong passwords: wait {seconds} seconds."))];
        }
        if !password.matches(attempt) {
            self.logins.note_wrong(member.address, now);
            return vec![Effect::WrongPassword(from), error(from, "Wrong password.")];
        }
        let promoted =
            ServerMessage::System { content: format!("{} is now a moderator.", member.name.shown()) };
        self.roster.promote(from, now);
        vec![Effect::Tell(Audience::Everybody, promoted)]
    }

    fn time_out(&mut self, now: Instant, from: ConnectionId, text: &str) -> Vec<Effect> {
        let Some(moderator) = self.roster.of(from) else { return Vec::new() };
        if !moderator.is_moderator {
            return vec![error(from, "Only moderators may use /to: see /login.")];
        }
        let Some((target, seconds)) = self.roster.at_start_of(text) else {
            return vec![error(from, nobody(text, &TO))];
        };
        let Some(seconds) = seconds.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) else {
            let usage = command::usage(&TO);
            return vec![error(from, format!("{usage}, with 1 to {MAX_SECONDS} whole seconds."))];
        };
        if !self.timeouts.set(target.name.key(), now + Duration::from_secs(seconds)) {
            return vec![error(from, "Too many users are timed out already.")];
        }
        let (by, name) = (moderator.name.shown(), target.name.shown());
        let told = ServerMessage::System { content: format!("{by} timed out {name} for {seconds} seconds.") };
        self.roster.changed(now);
        vec![Effect::Tell(Audience::Everybody, told)]
    }

    fn user_list(&self) -> ServerMessage {
        ServerMessage::UserList { content: self.roster.list(&self.timeouts) }
    }
}

fn system(to: ConnectionId, content: impl Into<String>) -> Effect {
    Effect::Tell(Audience::One(to), ServerMessage::System { content: content.into() })
}

fn error(to: ConnectionId, what: impl ToString) -> Effect {
    Effect::Tell(Audience::One(to), ServerMessage::Error { content: what.to_string() })
}

fn nobody(text: &str, command: &CommandUsage) -> String {
    let name: String =
        text.split_whitespace().next().unwrap_or_default().chars().take(Username::MAX_CHARS).collect();
    format!("Nobody here is called {name}. {}", command::usage(command))
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
