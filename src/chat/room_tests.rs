//! Scripted conversations: what each connection sends and receives, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chat::away::{MAX_ALL_UNREAD_BYTES, MAX_UNREAD, MAX_UNREAD_BYTES};
use crate::chat::format::Format;
use crate::chat::guests::Guests;
use crate::chat::history::OlderPage;
use crate::chat::name_key::NameKey;
use crate::chat::protocol::Position;
use crate::chat::session::SessionSecret;
use crate::chat::user_list::UserLists;

/// How long members may be away.
const AWAY: Duration = Duration::from_secs(30);
const CHAT_START: ChatTime = ChatTime(1000);

#[path = "moderation_tests.rs"]
mod moderation;

/// A room, and what each connection has received, by its number.
struct Script {
    room: Room,
    lists: UserLists,
    guests: Guests,
    /// For the lists.
    start: Instant,
    elapsed: Duration,
    last_id: u64,
    members: BTreeSet<u64>,
    received: BTreeMap<u64, Vec<String>>,
    /// What the store has.
    stored: BTreeMap<u64, HistoryEntry>,
    /// Whether it can be read.
    is_store_available: bool,
    /// What becomes of decisions; `None`: they wait.
    outcome: Option<Outcome>,
    waiting: Vec<Decision>,
    recorded: Vec<Act>,
    published: Bans,
}

impl Script {
    fn new() -> Self {
        Self::with_room(settings())
    }

    fn with_room(settings: RoomSettings) -> Self {
        let (members, received) = (BTreeSet::new(), BTreeMap::new());
        let (start, elapsed) = (Instant::now(), Duration::ZERO);
        let room = Room::new(settings, &time(elapsed));
        let published = room.bans().clone();
        Self {
            room,
            lists: UserLists::default(),
            guests: Guests::default(),
            start,
            elapsed,
            last_id: 0,
            members,
            received,
            stored: BTreeMap::new(),
            is_store_available: true,
            outcome: Some(Outcome::Stored),
            waiting: Vec::new(),
            recorded: Vec::new(),
            published,
        }
    }

    /// The same with a named moderator.
    fn with_moderator(name: &str, settings: RoomSettings) -> Self {
        let mut script = Self::with_room(settings);
        script.input(0, Input::Moderators(vec![moderator(name)]));
        script
    }

    /// A room with these members, as connections 1, 2, 3 …, which have received all messages so far.
    fn with(names: &[&str]) -> Self {
        let mut script = Self::new();
        for (number, name) in (1..).zip(names) {
            script.connect(number);
            script.join(number, name);
        }
        script.wait(1.0);
        script.received.clear();
        script
    }

    fn connect(&mut self, number: u64) {
        self.guests.connected(ConnectionId(number), address(number), self.time().chat);
    }

    fn join(&mut self, number: u64, name: &str) {
        self.send(number, username(name), Body::Join(None));
    }

    fn public(&mut self, number: u64, content: &str) {
        self.send(number, None, Body::Public { content: content.into() });
    }

    fn command(&mut self, number: u64, content: &str) {
        self.json(number, json!({"type": "command", "content": content}));
    }

    fn private(&mut self, number: u64, to: &str, content: &str) {
        let to = Recipient { key: target::key(to), name: to.chars().take(32).collect() };
        self.send(number, None, Body::Private { to, content: content.into() });
    }

    fn send(&mut self, number: u64, username: Option<Result<Username, String>>, body: Body) {
        self.input(number, message(Ok(ClientMessage { username, txn_id: None, body: Ok(body) })));
    }

    fn guest(&mut self, number: u64) -> Option<Box<Guest>> {
        self.guests.guest(ConnectionId(number), false)
    }

    fn input(&mut self, number: u64, mut input: Input) {
        match &mut input {
            Input::Message { guest, .. } => *guest = self.guest(number),
            Input::Disconnected(_) if !self.guests.disconnected(ConnectionId(number)) => return,
            _ => {}
        }
        self.last_id += 1;
        let time = self.time();
        let entry = Entry { id: self.last_id, time: &time, from: ConnectionId(number), input };
        let effects = self.room.apply(entry, NodeNumber::LOCAL);
        self.apply(effects);
    }

    fn time(&self) -> EntryTime {
        time(self.elapsed)
    }

    /// Lets time pass, and does what is due when it is due.
    fn wait(&mut self, seconds: f64) {
        let until = self.elapsed + Duration::from_secs_f64(seconds);
        while let Some(due) = self.next_deadline().filter(|&due| due <= until) {
            self.elapsed = self.elapsed.max(due);
            if self.room.next_deadline().is_some_and(|due| due <= self.time().chat) {
                self.input(0, Input::Tick);
            }
            if let Some(recipients) = self.lists.next_round(self.start + self.elapsed, |_| false) {
                self.apply(vec![Effect::Send(recipients, self.room.user_list())]);
            }
        }
        self.elapsed = until;
    }

    fn next_deadline(&self) -> Option<Duration> {
        let room = self.room.next_deadline().map(|due| due.saturating_since(CHAT_START));
        let lists = self.lists.next_deadline().map(|due| due.saturating_duration_since(self.start));
        room.into_iter().chain(lists).min()
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.lists.follow(&effect, self.start + self.elapsed);
            self.guests.follow(&effect);
            match effect {
                Effect::Enter(ConnectionId(number), _) | Effect::Resume(ConnectionId(number), _) => {
                    assert!(self.members.insert(number));
                }
                Effect::Leave(ConnectionId(number), _) | Effect::Away(ConnectionId(number), _) => {
                    assert!(self.members.remove(&number));
                }
                Effect::CloseReplaced(ConnectionId(number)) => {
                    self.members.remove(&number);
                    self.received.entry(number).or_default().push("replaced".into());
                }
                Effect::Close(ConnectionId(number), reason) => {
                    self.members.remove(&number);
                    self.received.entry(number).or_default().push(format!("close: {reason}"));
                }
                Effect::Decide(decision) => self.decide(decision),
                Effect::PublishBan(ban) => drop(self.published.add(ban)),
                Effect::WithdrawBan(id) => drop(self.published.remove(id)),
                Effect::Record(act) => self.recorded.push(*act),
                Effect::LeaveAway(..)
                | Effect::ListChanged(_)
                | Effect::OpenSession(..)
                | Effect::CloseSession(_)
                | Effect::PublishModerators(_)
                | Effect::Moderated(_) => {}
                Effect::Keep(KeptEntry { id, unix_millis, json, txn_id }) => {
                    let author =
                        serde_json::from_slice::<Value>(&json).unwrap()["username"].as_str().map(NameKey::of);
                    let txn = txn_id.zip(author.map(Arc::new));
                    let visibility = Visibility::All;
                    let entry = HistoryEntry { id, unix_millis, json, txn, visibility, author: None };
                    self.stored.insert(id, entry);
                }
                Effect::ReadOlder(ConnectionId(number), request) => {
                    let answer = self.read_older(&request.page);
                    self.input(number, Input::Older(request, answer));
                }
                Effect::Send(audience, message) => {
                    let recipients: Vec<u64> = match audience {
                        Audience::All => self.members.iter().copied().collect(),
                        Audience::AllExcept(ConnectionId(one)) => {
                            self.members.iter().copied().filter(|&number| number != one).collect()
                        }
                        Audience::One(ConnectionId(number)) => vec![number],
                        Audience::Only(numbers) => numbers.iter().map(|id| id.0).collect(),
                    };
                    for number in recipients {
                        self.received.entry(number).or_default().push(line(&message));
                    }
                }
            }
        }
    }

    fn read_older(&self, page: &OlderPage) -> Result<OlderMessages, StoreUnavailable> {
        if !self.is_store_available {
            return Err(StoreUnavailable);
        }
        let mut older = self.stored.range(..page.before).rev().map(|(_, entry)| entry.clone());
        let entries = older.by_ref().take(page.count.into()).collect();
        Ok(OlderMessages { entries, more: older.next().is_some() })
    }

    /// Applies a decision as the next entry, unless decisions wait.
    fn decide(&mut self, decision: Box<Decision>) {
        match self.outcome {
            Some(outcome) => {
                let outcome = match outcome {
                    Outcome::NotStored => self.room.not_stored(&decision),
                    outcome => outcome,
                };
                self.input(decision.connection.0, Input::Decided(decision, outcome));
            }
            None => self.waiting.push(*decision),
        }
    }

    /// What a connection has received since the last call.
    fn received(&mut self, number: u64) -> Vec<String> {
        self.received.remove(&number).unwrap_or_default()
    }
}

fn moderator(name: &str) -> NamedModerator {
    NamedModerator { name: Username::parse(name).unwrap(), hash: "a hash".into() }
}

fn username(name: &str) -> Option<Result<Username, String>> {
    Some(Username::parse(name).map_err(|error| error.to_string()))
}

fn settings() -> RoomSettings {
    RoomSettings {
        epoch: "an epoch".into(),
        history: HistoryLimits { messages: 1000, age_millis: Some(24 * 60 * 60 * 1000) },
        stored: None,
        away: AwayLimits { timeout: AWAY, members: 8, members_per_network: Some(2) },
        ..RoomSettings::default()
    }
}

/// Without `JOIN_PASSWORD`.
const OPEN: Access = Access { is_open: true, join: Verdict::NotCompared, login: Verdict::NotCompared };

fn message(message: Result<ClientMessage, MessageError>) -> Input {
    Input::Message { message, access: OPEN, session: None, guest: None }
}

fn address(number: u64) -> Address {
    Address { network: std::net::IpAddr::from([10, 0, 0, number as u8]).into(), is_exempt: false }
}

/// The wall clock stands still, which delays nothing.
fn time(elapsed: Duration) -> EntryTime {
    let (timestamp, utc) = ("12:00:00".into(), "2026-11-28T12:00:00.000Z".into());
    EntryTime { chat: CHAT_START + elapsed, unix_millis: 1_795_867_200_000, timestamp, utc }
}

fn is_public(message: &ServerMessage) -> bool {
    matches!(message, ServerMessage::Kept(json) if json.starts_with(br#"{"type":"public""#))
}

fn txn(txn_id: &TxnId) -> String {
    serde_json::to_value(txn_id).unwrap().as_str().unwrap().to_owned()
}

/// A message that is kept, followed by its `txn_id`.
fn kept_line(message: &Value) -> String {
    let text = |field: &str| message[field].as_str().unwrap();
    let content = text("content");
    let line = match text("type") {
        "public" => format!("{}: {content}", text("username")),
        "private" => format!("{} to {}: {content}", text("from"), text("to")),
        kind => format!("{kind}: {content}"),
    };
    let txn_id = message["txn_id"].as_str();
    txn_id.map_or(line.clone(), |txn_id| format!("{line} [{txn_id}]"))
}

fn line(message: &ServerMessage) -> String {
    match message {
        ServerMessage::Kept(json) => kept_line(&serde_json::from_slice(json).unwrap()),
        ServerMessage::System { content } => format!("system: {content}"),
        ServerMessage::Error { content, txn_id: None } => format!("error: {content}"),
        ServerMessage::Error { content, txn_id: Some(txn_id) } => {
            format!("error for {}: {content}", txn(txn_id))
        }
        ServerMessage::Ack { txn_id, id, .. } => format!("ack {} {id}", txn(txn_id)),
        ServerMessage::History(answer) => {
            let messages: Vec<Value> = serde_json::from_slice(&answer.messages).unwrap();
            let lines: Vec<String> = messages.iter().map(kept_line).collect();
            let recovered = match answer.recovered {
                None => "",
                Some(true) => " recovered",
                Some(false) => " not recovered",
            };
            let more = if answer.more { " more" } else { "" };
            format!("history{more}{recovered}: {}", lines.join(", "))
        }
        ServerMessage::CommandList { .. } => "command_list".into(),
        ServerMessage::Deleted { id } => format!("deleted {id}"),
        ServerMessage::UserList { content } => {
            let users = content.iter().map(|user| {
                let marks =
                    [(user.is_mod, " mod"), (user.is_timed_out, " timed out"), (user.is_away, " away")];
                let marks = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark);
                format!("{}{}", user.username, marks.collect::<String>())
            });
            format!("list: {}", users.collect::<Vec<_>>().join(", "))
        }
    }
}

#[test]
fn a_join_sends_the_lists_to_the_new_member_and_a_line_to_all() {
    let mut script = Script::with(&["Ann"]);
    script.connect(2);
    assert_eq!(script.received(2), [""; 0]);
    script.join(2, " Bob ");
    assert_eq!(script.received(2), ["list: Ann, Bob", "command_list", "system: Bob joined."]);
    assert_eq!(script.received(1), ["system: Bob joined."]);
    script.wait(0.1);
    assert_eq!(script.received(1), ["list: Ann, Bob"]);
    assert_eq!(script.received(2), [""; 0]);
    script.input(1, Input::Disconnected(Departure::Left));
    script.wait(0.1);
    assert_eq!(script.received(2), ["system: Ann left.", "list: Bob"]);
    assert_eq!(script.received(1), [""; 0]);
}

#[test]
fn nothing_is_sent_or_received_before_joining() {
    let mut script = Script::with(&["Ann"]);
    script.connect(2);
    script.public(1, "secret");
    script.public(2, "hi");
    script.command(2, "/help");
    script.input(2, message(Err(MessageError::Binary)));
    assert_eq!(script.received(1), [""; 0]);
    let lines = script.received(2);
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("error: Join first") && lines[1] == lines[0], "{lines:?}");
    script.input(2, Input::Disconnected(Departure::Left));
    script.wait(1.0);
    assert_eq!(script.received(1), [""; 0]);
}

#[test]
fn a_first_message_with_a_name_joins_and_is_handled() {
    let mut script = Script::with(&["Ann"]);
    script.connect(2);
    script.send(2, username("Bob"), Body::Public { content: "hi".into() });
    assert_eq!(script.received(1), ["system: Bob joined.", "Bob: hi"]);
    assert_eq!(script.received(2).len(), 3);
    script.connect(3);
    script.send(3, username("Cid"), Body::Command(Command::parse("/whisper Ann psst")));
    assert_eq!(script.received(1), ["system: Cid joined.", "Cid to Ann: psst"]);
}

#[test]
fn an_invalid_first_message_with_a_name_joins_too() {
    let mut script = Script::with(&["Ann"]);
    for (number, name) in [(2, "Bob"), (3, "Cid")] {
        script.connect(number);
        let reason = MessageError::UnknownType("shout".into());
        script.input(
            number,
            message(Ok(ClientMessage { username: username(name), txn_id: None, body: Err(reason) })),
        );
        let lines = script.received(number);
        assert_eq!(lines[2], format!("system: {name} joined."));
        assert!(lines[3].starts_with("error: Unknown type"), "{lines:?}");
    }
    assert_eq!(script.received(1), ["system: Bob joined.", "system: Cid joined."]);
    // Without a name, it does not join.
    script.connect(4);
    script.input(
        4,
        message(Ok(ClientMessage {
            username: None,
            txn_id: None,
            body: Err(MessageError::Blank("content")),
        })),
    );
    assert_eq!(script.received(4), ["error: The field \"content\" must not be blank."]);
    assert_eq!(script.received(1), [""; 0]);
}

#[test]
fn a_member_cannot_send_under_another_name() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.send(2, username("Ann"), Body::Public { content: "hi".into() });
    script.send(2, Some(Err("not a string".into())), Body::Public { content: "again".into() });
    assert_eq!(script.received(1), ["Bob: hi", "Bob: again"]);
    assert_eq!(script.received(2), [""; 0], "no echo");
    script.join(2, "Cid");
    assert_eq!(script.received(2), ["error: You have already joined as Bob."]);
    assert_eq!(script.received(1), [""; 0]);
}

#[test]
fn after_a_name_in_use_the_connection_can_try_another() {
    let mut script = Script::with(&["Bob"]);
    script.connect(2);
    for name in ["bob", "Ｂｏｂ", "System", ""] {
        script.join(2, name);
        let lines = script.received(2);
        assert!(lines.len() == 1 && lines[0].starts_with("error: The username"), "{name}: {lines:?}");
    }
    script.send(2, Some(Err("not a string".into())), Body::Join(None));
    assert_eq!(script.received(2), ["error: not a string"]);
    script.send(2, None, Body::Join(None));
    assert_eq!(script.received(2), ["error: The field \"username\" is missing."]);
    assert_eq!(script.received(1), [""; 0]);
    script.join(2, "Bob 2");
    assert_eq!(script.received(2).len(), 3);
    script.input(1, Input::Disconnected(Departure::Left));
    script.connect(3);
    script.join(3, "BOB");
    assert_eq!(script.received(3)[0], "list: Bob 2, BOB");
}

#[test]
fn a_whisper_goes_to_its_target_and_once_to_the_sender() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.command(2, "/whisper ann  how are you");
    assert_eq!(script.received(1), ["Bob to Ann: how are you"]);
    assert_eq!(script.received(2), ["Bob to Ann: how are you"]);
    script.command(2, "/whisper Bob note to self");
    assert_eq!(script.received(2), ["Bob to Bob: note to self"]);
    for text in ["/whisper", "/whisper Ann", "/whisper \"Ann\""] {
        script.command(2, text);
        assert_eq!(script.received(2), ["error: Usage: /whisper [user] [message]"], "{text}");
    }
    script.command(2, "/whisper Annabel hi");
    assert_eq!(
        script.received(2),
        ["error: Nobody here is called Annabel. Usage: /whisper [user] [message]"]
    );
    assert_eq!(script.received(1), [""; 0]);
}

/// The longest name once got the message, so "Bob I" got what was meant for "Bob".
#[test]
fn a_command_that_begins_with_several_names_asks_for_quotes() {
    let mut script = Script::with(&["Ann", "Bob", "Bob I", "Bob 60"]);
    script.command(1, "/login secret");
    script.wait(1.0);
    script.received.clear();
    script.command(1, "/whisper Bob I love you");
    let names = "This begins with the names of several users: \"Bob I\", \"Bob\".";
    assert_eq!(script.received(1), [format!("error: {names} Put the name in quotes: /whisper \"Bob I\" …")]);
    script.command(1, "/to Bob 60");
    let line = script.received(1).remove(0);
    assert!(
        line.starts_with("error: This begins with") && line.ends_with("quotes: /to \"Bob 60\" …"),
        "{line}"
    );
    script.command(1, "/whisper \"Bob\" I love you");
    assert_eq!(script.received(2), ["Ann to Bob: I love you"]);
    script.command(1, "/to \"bob 60\" 5");
    assert_eq!(script.received(4), ["system: Ann timed out Bob 60 for 5 seconds."]);
    assert_eq!(script.received(3), ["system: Ann timed out Bob 60 for 5 seconds."]);
}

#[test]
fn a_private_message_goes_to_exactly_the_name_that_it_gives() {
    let mut script = Script::with(&["Ann", "Bob", "Bob I"]);
    for (to, expected) in [("bob", 2), ("Bob I", 3), (" Ｂｏｂ ", 2)] {
        script.private(1, to, "love you");
        let name = ["Bob", "Bob I"][expected as usize - 2];
        assert_eq!(script.received(expected), [format!("Ann to {name}: love you")], "{to}");
        assert_eq!(script.received(1), [format!("Ann to {name}: love you")], "{to}");
    }
    script.private(1, "\"Bob\"", "love you");
    assert_eq!(script.received(1), ["error: Nobody here is called \"Bob\"."]);
    script.private(1, &"x".repeat(1000), "love you");
    assert_eq!(script.received(1), [format!("error: Nobody here is called {}.", "x".repeat(32))]);
    assert_eq!((script.received(2), script.received(3)), (vec![], vec![]));
}

/// `Sуstem` and `раypal` with Cyrillic letters were once different names from `System` and `paypal`.
#[test]
fn a_name_that_looks_like_another_cannot_be_taken() {
    let mut script = Script::with(&["paypal", "Bob"]);
    script.connect(3);
    for (name, reason) in [
        ("раypal", "The username paypal is in use: choose another."),
        ("Воb", "The username Bob is in use: choose another."),
        ("Sуstem", "The username System and names that look like it are reserved: choose another."),
    ] {
        script.join(3, name);
        assert_eq!(script.received(3), [format!("error: {reason}")], "{name}");
    }
    // Its time-out follows a member to names that look the same.
    script.command(1, "/login secret");
    script.command(1, "/to Bob 60");
    script.input(2, Input::Disconnected(Departure::Left));
    script.join(3, "Воb");
    script.received(3);
    script.public(3, "hi");
    assert_eq!(script.received(3), ["system: You are timed out: 60 seconds left."]);
}

#[test]
fn login_makes_a_moderator_and_notifies_all() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.command(1, "/login wrong");
    assert_eq!(script.received(1), ["error: Wrong password."]);
    script.command(1, "/login secret");
    assert_eq!(script.received(1), ["system: Ann is now a moderator."]);
    assert_eq!(script.received(2), ["system: Ann is now a moderator."]);
    script.wait(0.1);
    assert_eq!(script.received(2), ["list: Ann mod, Bob"]);
    script.received(1);
    script.command(1, "/login whatever");
    assert_eq!(script.received(1), ["system: You are already a moderator."]);
    assert_eq!(script.received(2), [""; 0]);
}

#[test]
fn without_a_password_nobody_becomes_a_moderator() {
    let mut script = Script::with(&["Ann"]);
    let access = Access { login: Verdict::NotPossible, ..OPEN };
    script.json_with(1, json!({"type": "command", "content": "/login anything"}), access);
    let lines = script.received(1);
    assert!(lines[0].starts_with("error: Nobody can become a moderator"), "{lines:?}");
}

#[test]
fn a_member_whose_address_has_to_wait_is_told_how_long() {
    let mut script = Script::with(&["Ann"]);
    let access = Access { login: Verdict::Wait(50), ..OPEN };
    script.json_with(1, json!({"type": "command", "content": "/login secret"}), access);
    assert_eq!(script.received(1), ["error: Too many wrong passwords: wait 50 seconds."]);
    // The password of a join says nothing about /login.
    let access = Access { join: Verdict::Shared, ..OPEN };
    script.json_with(1, json!({"type": "command", "content": "/login secret"}), access);
    assert_eq!(script.received(1), ["error: The password was not compared: try again."]);
}

const VERDICTS: [Verdict; 5] =
    [Verdict::NotCompared, Verdict::Shared, Verdict::Own, Verdict::Wrong, Verdict::Wait(7)];

#[test]
fn who_may_join_with_which_password() {
    const REQUIRED: &str = "error: This room requires a password.";
    const RESERVED: &str = "error: The name Mеg is reserved: it requires its password.";
    const WRONG: &str = "error: Wrong password.";
    const WAIT: &str = "error: Too many wrong passwords: wait 7 seconds.";
    for (requires_password, name, expected) in [
        (false, "Bob", ["Bob", "Bob", "Bob", "Bob", "Bob"]),
        (true, "Bob", [REQUIRED, "Bob", REQUIRED, WRONG, WAIT]),
        // With a Cyrillic е.
        (false, "Mеg", [RESERVED, RESERVED, "Mеg mod", WRONG, WAIT]),
        (true, "Mеg", [RESERVED, RESERVED, "Mеg mod", WRONG, WAIT]),
    ] {
        for (join, expected) in VERDICTS.into_iter().zip(expected) {
            // A first message of any type joins.
            for body in [json!({"type": "join"}), json!({"type": "public", "content": "hi"})] {
                let mut script = Script::with_moderator("Meg", settings());
                script.connect(1);
                let mut message = body;
                message["username"] = name.into();
                let access = Access { is_open: !requires_password, join, ..OPEN };
                script.json_with(1, message, access);
                let received = script.received(1);
                if expected.starts_with("error") {
                    assert_eq!(received, [expected], "{join:?}");
                    assert_eq!((script.guests.len(), script.room.history().len()), (1, 0));
                } else {
                    assert_eq!(received[0], format!("list: {expected}"), "{join:?}");
                    assert_eq!(received.last().unwrap(), &format!("system: {name} joined."));
                }
            }
        }
    }
}

#[test]
fn a_named_moderator_is_a_moderator_from_its_join_on() {
    let mut script = Script::with_moderator("Meg", settings());
    script.connect(1);
    script.join(1, "Bob");
    script.connect(2);
    let join = json!({"type": "join", "username": "Meg"});
    script.json_with(2, join.clone(), Access { join: Verdict::Own, ..OPEN });
    script.received.clear();
    script.command(2, "/to Bob 5");
    assert_eq!(script.received(1), ["system: Meg timed out Bob for 5 seconds."]);
    script.received(2);
    script.command(2, "/login whatever");
    assert_eq!(script.received(2), ["system: You are already a moderator."]);
    // Who is not let in does not learn who is there.
    script.connect(3);
    script.json(3, join);
    assert_eq!(script.received(3), ["error: The name Meg is reserved: it requires its password."]);
}

/// Whatever the password, and also under a name that looks like it.
#[test]
fn a_member_with_a_session_needs_no_password() {
    for name in ["Meg", "Mеg"] {
        for verdict in VERDICTS {
            let mut script = Script::with_moderator("Meg", settings());
            let session = SessionSecret::new([7; SessionSecret::BYTES]);
            let join = json!({"type": "join", "username": "Meg", "session": session.to_string()});
            script.connect(1);
            let (message, _) = ClientMessage::parse_with_secrets(&join.to_string());
            let access = Access { join: Verdict::Own, ..OPEN };
            script.input(1, Input::Message { message, access, session: Some(session.digest()), guest: None });
            script.lose(1);
            script.connect(2);
            let join = json!({"type": "join", "username": name, "session": session.to_string()});
            script.json_with(2, join, Access { join: verdict, ..Access::default() });
            let received = script.received(2);
            assert!(received.contains(&"list: Meg mod".to_owned()), "{received:?}");
            // Under the session of another member, it is an ordinary join.
            script.connect(3);
            let join = json!({"type": "join", "username": "Bob", "session": session.to_string()});
            script.json_with(3, join, Access::default());
            assert_eq!(script.received(3), ["error: This room requires a password."]);
        }
    }
}

#[test]
fn a_time_out_ends_with_time_and_not_by_leaving() {
    let mut script = Script::with(&["Ann", "Bob Lee"]);
    script.command(2, "/to Ann 5");
    assert_eq!(script.received(2), ["error: Only moderators may use /to: see /login."]);
    script.command(1, "/login secret");
    script.wait(1.0);
    script.received.clear();
    script.command(1, "/to bob lee 100");
    script.wait(0.1);
    assert_eq!(
        script.received(2),
        ["system: Ann timed out Bob Lee for 100 seconds.", "list: Ann mod, Bob Lee timed out"]
    );
    script.received(1);
    script.command(1, "/to Bob Lee 10");
    script.wait(0.5);
    script.received(2);

    script.public(2, "hi");
    script.command(2, "/help");
    script.join(2, "Other");
    script.input(2, message(Err(MessageError::NotAnObject)));
    assert_eq!(script.received(2), ["system: You are timed out: 10 seconds left."; 4]);
    script.public(1, "you can read");
    assert_eq!(script.received(2), ["Ann: you can read"]);

    script.input(2, Input::Disconnected(Departure::Left));
    script.connect(3);
    script.join(3, "bob lee");
    assert_eq!(script.received(3)[0], "list: Ann mod, bob lee timed out");
    script.public(3, "hi");
    assert_eq!(script.received(3), ["system: You are timed out: 10 seconds left."]);
    script.received(1);
    script.wait(9.6);
    assert_eq!(
        script.received(3),
        ["system: Your time-out is over: you can send messages again.", "list: Ann mod, bob lee"]
    );
    assert_eq!(script.received(1), ["list: Ann mod, bob lee timed out", "list: Ann mod, bob lee"]);
    script.public(3, "hi");
    assert_eq!(script.received(1), ["bob lee: hi"]);
}

#[test]
fn a_time_out_needs_a_user_and_seconds() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.command(1, "/login secret");
    script.received(1);
    for seconds in ["", "0", "-1", "soon", "1.5", "5 minutes", "31536001", "99999999999999999999"] {
        script.command(1, &format!("/to Bob {seconds}"));
        let lines = script.received(1);
        assert!(lines[0].starts_with("error: Usage: /to [user] [seconds]"), "{seconds}: {lines:?}");
    }
    script.command(1, "/to Nobody 5");
    assert_eq!(script.received(1), ["error: Nobody here is called Nobody. Usage: /to [user] [seconds]"]);
    script.wait(1.0);
    assert!(!script.received(2).iter().any(|line| line.contains("timed out")));
}

#[test]
fn help_lists_all_commands_or_explains_one() {
    let mut script = Script::with(&["Ann"]);
    script.command(1, "/help");
    let lines = script.received(1);
    for usage in ["/whisper [user] [message]", "/login [password]", "/to [user] [seconds]", "/help [command]"]
    {
        assert!(lines[0].starts_with("system: ") && lines[0].contains(usage), "{lines:?}");
    }
    script.command(1, "/help to");
    let lines = script.received(1);
    assert!(lines[0].starts_with("system: /to [user] [seconds] — ") && !lines[0].contains('\n'), "{lines:?}");
    script.command(1, "/nothing");
    assert_eq!(script.received(1), ["error: Unknown command /nothing: /help lists the commands."]);
}

#[derive(Clone, Debug)]
enum Step {
    Connect(u64),
    Disconnect(u64),
    Send(u64, Option<String>, Body),
    Invalid(u64),
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..8_u64;
    let name = prop_oneof![
        3 => "(Ann|ann|Bob|Ann Lee|System|ＡＮＮ|ΑΝΝ|Ian|Lan|lan)",
        1 => "\\PC{0,40}",
    ];
    let text = prop_oneof![
        "/login (secret|wrong)",
        "/(whisper|to) (Ann|bob|Ann Lee|x) ?[0-9]{0,3}",
        "/(unto|kick|ban|unban|info) (Ann|bob|\"ann\"|Ann Lee|10.0.0.[0-9]|10.0.0.0/24|x)( 1m)?( x)?",
        "/(bans|delete [0-9]{1,2})",
        "/help ?(to|x)?",
        "\\PC{1,20}",
    ];
    let body = (text, 0..4).prop_map(|(content, kind)| match kind {
        0 => Body::Join(None),
        1 => Body::Public { content },
        2 => Body::Command(Command::parse(&content)),
        _ => {
            let to = Recipient { key: target::key(&content), name: content.clone() };
            Body::Private { to, content }
        }
    });
    let step = prop_oneof![
        2 => who.clone().prop_map(Step::Connect),
        1 => who.clone().prop_map(Step::Disconnect),
        6 => (who.clone(), proptest::option::of(name), body).prop_map(|(who, name, body)| Step::Send(who, name, body)),
        1 => who.prop_map(Step::Invalid),
        2 => (0..120_000_u32).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// For any inputs in any order: names are unique, only open connections are sent anything, and only members
    /// get what is sent in the room.
    #[test]
    fn invariants_hold_for_any_inputs(steps in steps()) {
        let (start, mut elapsed, mut last_id) = (Instant::now(), Duration::ZERO, 0);
        let (mut room, mut lists) = (Room::new(settings(), &time(elapsed)), UserLists::default());
        let mut guests = Guests::default();
        // Ids are used once: `current` maps a step's number to its present connection.
        let (mut next, mut current) = (0, BTreeMap::<u64, u64>::new());
        let mut members = BTreeSet::new();
        // By the server. Their clients have not noticed.
        let mut closed = BTreeSet::new();
        for step in steps {
            let mut inputs = Vec::new();
            match step {
                Step::Connect(who) => {
                    if let Some(old) = current.insert(who, next) {
                        inputs.push((old, Input::Disconnected(Departure::Left)));
                    }
                    guests.connected(ConnectionId(next), address(who), CHAT_START + elapsed);
                    next += 1;
                }
                // Input from a closed or unknown connection must have no effect.
                Step::Disconnect(who) => inputs.push((current.remove(&who).unwrap_or(u64::MAX - who), Input::Disconnected(Departure::Left))),
                Step::Send(who, name, body) => {
                    let username = name.and_then(|name| username(&name));
                    let id = current.get(&who).copied().unwrap_or(u64::MAX - who);
                    let message = Ok(ClientMessage { username, txn_id: None, body: Ok(body) });
                    let access = Access { login: Verdict::Shared, ..OPEN };
                    inputs.push((id, Input::Message { message, access, session: None, guest: None }));
                }
                Step::Invalid(who) => {
                    let id = current.get(&who).copied().unwrap_or(u64::MAX - who);
                    inputs.push((id, message(Err(MessageError::NotAnObject))));
                }
                Step::Wait(millis) => {
                    elapsed += Duration::from_millis(millis.into());
                    inputs.push((0, Input::Tick));
                }
            }
            let mut effects = Vec::new();
            let mut inputs = VecDeque::from(inputs);
            while let Some((id, mut input)) = inputs.pop_front() {
                match &mut input {
                    Input::Message { guest, .. } => *guest = guests.guest(ConnectionId(id), false),
                    Input::Disconnected(_) if !guests.disconnected(ConnectionId(id)) => continue,
                    _ => {}
                }
                last_id += 1;
                let entry = Entry { id: last_id, time: &time(elapsed), from: ConnectionId(id), input };
                for effect in room.apply(entry, NodeNumber::LOCAL) {
                    lists.follow(&effect, start + elapsed);
                    guests.follow(&effect);
                    if let Effect::Decide(decision) = &effect {
                        let outcome = [Outcome::Stored, Outcome::NotStored, Outcome::NotFound][last_id as usize % 3];
                        inputs.push_back((decision.connection.0, Input::Decided(decision.clone(), outcome)));
                    }
                    effects.push(effect);
                }
            }
            prop_assert!(room.next_deadline().is_none_or(|due| due > CHAT_START + elapsed), "something is still due");
            if let Some(recipients) = lists.next_round(start + elapsed, |_| false) {
                effects.push(Effect::Send(recipients, room.user_list()));
            }

            let connected: BTreeSet<u64> = current.values().copied().collect();
            for effect in &effects {
                match effect {
                    Effect::Enter(id, _) | Effect::Resume(id, _) => prop_assert!(members.insert(id.0)),
                    Effect::Leave(id, _) | Effect::Away(id, _) => prop_assert!(members.remove(&id.0)),
                    Effect::CloseReplaced(id) => drop(members.remove(&id.0)),
                    Effect::Close(id, reason) => {
                        members.remove(&id.0);
                        prop_assert!(closed.insert(id.0) && reason.len() <= 123);
                    }
                    Effect::Decide(_)
                    | Effect::Record(_)
                    | Effect::PublishBan(_)
                    | Effect::WithdrawBan(_)
                    | Effect::LeaveAway(..)
                    | Effect::ListChanged(_)
                    | Effect::OpenSession(..)
                    | Effect::CloseSession(_)
                    | Effect::Keep(_)
                    | Effect::ReadOlder(..)
                    | Effect::PublishModerators(_)
                | Effect::Moderated(_) => {}
                    Effect::Send(Audience::One(id), _) => {
                        prop_assert!(connected.contains(&id.0) && !closed.contains(&id.0));
                    }
                    Effect::Send(Audience::AllExcept(id), message) => {
                        prop_assert!(members.contains(&id.0));
                        prop_assert!(is_public(message), "{message:?}");
                    }
                    Effect::Send(Audience::Only(numbers), _) => {
                        prop_assert!(numbers.iter().all(|id| members.contains(&id.0)));
                        let unique: BTreeSet<u64> = numbers.iter().map(|id| id.0).collect();
                        prop_assert_eq!(unique.len(), numbers.len());
                    }
                    Effect::Send(Audience::All, message) => {
                        prop_assert!(!is_public(message), "{message:?}");
                    }
                }
                if let Effect::Send(_, ServerMessage::UserList { content }) = effect {
                    let keys: Vec<NameKey> = content.iter().map(|user| NameKey::of(&user.username)).collect();
                    for form in [NameKey::spelling, NameKey::skeleton] {
                        let forms: BTreeSet<&str> = keys.iter().map(form).collect();
                        prop_assert_eq!(forms.len(), content.len(), "names are unique");
                    }
                }
            }
            prop_assert!(members.is_subset(&connected));
            prop_assert_eq!(room.roster.users(&room.timeouts).len(), members.len());
            let open = connected.difference(&closed).count();
            prop_assert_eq!(room.roster.users(&room.timeouts).len() + guests.len(), open);
        }
    }
}

#[test]
fn a_list_that_changes_after_a_join_in_the_same_entry_is_sent_again() {
    let mut script = Script::new();
    script.connect(1);
    script.json(1, json!({"type": "command", "username": "Ann", "content": "/login secret"}));
    assert_eq!(
        script.received(1),
        ["list: Ann", "command_list", "system: Ann joined.", "system: Ann is now a moderator."]
    );
    script.wait(0.1);
    assert_eq!(script.received(1), ["list: Ann mod"]);
}

#[test]
fn what_is_due_takes_effect_before_the_entry() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.command(1, "/login secret");
    script.command(1, "/to Bob 30");
    let cid = script.asking(3, "Cid");
    script.lose(3);
    script.received.clear();
    script.elapsed += AWAY + Duration::from_secs(1);
    script.public(2, "I am back");
    assert_eq!(
        script.received(2),
        ["system: Your time-out is over: you can send messages again.", "system: Cid left."]
    );
    assert_eq!(script.received(1), ["system: Cid left.", "Bob: I am back"]);
    script.resume(4, &cid, 1);
    assert_eq!(script.received(1), ["system: Cid joined."]);
}

#[test]
fn a_wall_clock_that_is_set_back_or_forward_moves_no_deadline() {
    for jump in [-3_600_000, 3_600_000] {
        let mut script = Script::with(&["Ann", "Bob"]);
        script.command(1, "/login secret");
        script.command(1, "/to Bob 60");
        script.asking(3, "Cid");
        script.lose(3);
        let deadline = script.room.next_deadline();
        script.received.clear();
        let time = script.time();
        let unix_millis = time.unix_millis.saturating_add_signed(jump);
        let time = EntryTime { chat: time.chat + Duration::from_secs(1), unix_millis, ..time };
        script.last_id += 1;
        let input = message(ClientMessage::parse(r#"{"type":"public","content":"hi"}"#));
        let entry = Entry { id: script.last_id, time: &time, from: ConnectionId(2), input };
        let effects = script.room.apply(entry, NodeNumber::LOCAL);
        script.apply(effects);
        assert_eq!(script.received(2), ["system: You are timed out: 58 seconds left."], "{jump}");
        assert_eq!(script.received(1), [""; 0]);
        assert_eq!(script.room.next_deadline(), deadline);
    }
}

/// A member that can resume: its name, and what it needs for that.
#[derive(Clone)]
struct Resumable {
    name: &'static str,
    session: SessionDigest,
}

fn session(number: u8) -> SessionDigest {
    SessionSecret::new([number; SessionSecret::BYTES]).digest()
}

impl Script {
    /// Connects, and joins with these options, in addition to the session of `place`.
    fn join_with(&mut self, number: u64, place: &Resumable, options: JoinOptions) {
        self.connect(number);
        self.join_on(number, place, options);
    }

    fn join_on(&mut self, number: u64, place: &Resumable, options: JoinOptions) {
        let options =
            Some(JoinOptions { session: options.session.or(Some(place.session)), ..options }.into());
        let body = Ok(Body::Join(options));
        let message = Ok(ClientMessage { username: username(place.name), txn_id: None, body });
        self.input(
            number,
            Input::Message { message, access: OPEN, session: Some(place.session), guest: None },
        );
    }

    /// A new member that can resume, which has received all messages so far.
    fn asking(&mut self, number: u64, name: &'static str) -> Resumable {
        let place = Resumable { name, session: session(number as u8) };
        self.join_with(number, &place, JoinOptions::default());
        self.wait(1.0);
        self.received.clear();
        place
    }

    fn resume(&mut self, number: u64, place: &Resumable, since: u64) {
        let since = Some(Position { epoch: "an epoch".into(), id: since });
        self.join_with(number, place, JoinOptions { since, ..JoinOptions::default() });
    }

    /// The same on a connection that is open.
    fn resume_on(&mut self, number: u64, place: &Resumable, since: u64) {
        let since = Some(Position { epoch: "an epoch".into(), id: since });
        self.join_on(number, place, JoinOptions { since, ..JoinOptions::default() });
    }

    /// Sends a message as JSON.
    fn json(&mut self, number: u64, json: Value) {
        let (_, attempts) = ClientMessage::parse_with_secrets(&json.to_string());
        self.json_with(number, json, attempts.compare("secret"));
    }

    fn json_with(&mut self, number: u64, json: Value, access: Access) {
        let (message, _) = ClientMessage::parse_with_secrets(&json.to_string());
        self.input(number, Input::Message { message, access, session: None, guest: None });
    }

    fn lose(&mut self, number: u64) {
        self.input(number, Input::Disconnected(Departure::Lost));
    }
}

fn newest(history: u16) -> JoinOptions {
    JoinOptions { history, ..JoinOptions::default() }
}

#[test]
fn a_new_member_gets_the_history_between_the_lists_and_its_own_line() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.public(1, "one");
    script.command(1, "/login secret");
    script.command(1, "/help");
    script.command(1, "/whisper Bob psst");
    script.public(2, "two");
    let cid = Resumable { name: "Cid", session: session(3) };
    script.join_with(3, &cid, newest(200));
    assert_eq!(
        script.received(3),
        [
            "list: Ann mod, Bob, Cid",
            "command_list",
            "history: Ann: one, system: Ann is now a moderator., Bob: two",
            "system: Cid joined."
        ]
    );
    script.json(3, json!({"type": "history", "limit": 1}));
    script.json(3, json!({"type": "history", "limit": 0}));
    script.json(3, json!({"type": "history", "before": 0}));
    assert_eq!(script.received(3), ["history more: Bob: two", "history more: ", "history: "]);
    // A client that asks for nothing gets nothing new.
    script.connect(4);
    script.join(4, "Dan");
    assert_eq!(script.received(4), ["list: Ann mod, Bob, Cid, Dan", "command_list", "system: Dan joined."]);
}

#[test]
fn older_messages_are_requested_page_by_page() {
    let mut script = Script::with(&["Ann"]);
    for number in 0..5 {
        script.public(1, &number.to_string());
    }
    let first = script.last_id - 4;
    let page = |script: &mut Script, before, limit| {
        script.json(1, json!({"type": "history", "before": before, "limit": limit}));
        script.received(1).remove(0)
    };
    assert_eq!(page(&mut script, first + 5, 2), "history more: Ann: 3, Ann: 4");
    assert_eq!(page(&mut script, first + 3, 2), "history more: Ann: 1, Ann: 2");
    assert_eq!(page(&mut script, first + 1, 2), "history: Ann: 0");
    assert_eq!(page(&mut script, u64::from(u32::MAX), 200).matches("Ann: ").count(), 5);
}

#[test]
fn a_message_is_acknowledged_at_its_position() {
    let mut script = Script::with(&["Ann"]);
    let _bob = script.asking(2, "Bob");
    script.json(2, json!({"type": "public", "content": "hi", "txn_id": "a"}));
    assert_eq!(script.received(2), [format!("ack a {}", script.last_id)]);
    assert_eq!(script.received(1), ["Bob: hi"]);
    script.json(2, json!({"type": "private", "to": "Ann", "content": "psst", "txn_id": "b"}));
    assert_eq!(script.received(2), ["Bob to Ann: psst [b]".into(), format!("ack b {}", script.last_id)]);
    assert_eq!(script.received(1), ["Bob to Ann: psst"], "the id is its author's alone");
    script.json(2, json!({"type": "command", "content": "/login secret", "txn_id": "c"}));
    let lines = script.received(2);
    assert_eq!(lines, ["system: Bob is now a moderator.".into(), format!("ack c {}", script.last_id)]);
    for (txn_id, content) in [("d", "/dance"), ("e", "/to Nobody 5"), ("f", "/whisper Nobody x"), ("g", " ")]
    {
        script.json(2, json!({"type": "command", "content": content, "txn_id": txn_id}));
        let lines = script.received(2);
        assert!(lines.len() == 1 && lines[0].starts_with(&format!("error for {txn_id}: ")), "{lines:?}");
    }
    script.json(2, json!({"type": "history", "txn_id": "h"}));
    let lines = script.received(2);
    assert_eq!(lines.len(), 1, "it is its own answer");
    assert_eq!(lines[0], "history: Bob: hi [a], Bob to Ann: psst [b], system: Bob is now a moderator.");
    // Ann did not ask for the new types.
    script.received(1);
    script.json(1, json!({"type": "public", "content": "hello", "txn_id": "i"}));
    assert_eq!(script.received(1), [""; 0]);
    script.json(1, json!({"type": "command", "content": "/dance", "txn_id": "j"}));
    assert!(script.received(1)[0].starts_with("error for j: "));
    script.command(2, "/to Ann 9");
    script.received(1);
    script.json(1, json!({"type": "public", "content": "hello", "txn_id": "k"}));
    let left = "You are timed out: 9 seconds left.";
    assert_eq!(script.received(1), [format!("system: {left}"), format!("error for k: {left}")]);
    script.json(1, json!({"type": "history", "limit": 0}));
    assert_eq!(script.received(1), ["history more: "], "it can read");
}

#[test]
fn a_member_that_is_cut_off_resumes_as_if_nothing_had_happened() {
    let mut script = Script::with(&["Ann"]);
    let bob = script.asking(2, "Bob");
    script.command(2, "/login secret");
    script.json(2, json!({"type": "public", "content": "before", "txn_id": "a"}));
    let since = script.last_id;
    script.wait(1.0);
    script.received.clear();
    script.lose(2);
    script.public(1, "where are you?");
    script.command(1, "/whisper Bob psst");
    script.wait(1.0);
    assert_eq!(script.received(1), ["Ann to Bob: psst", "list: Ann, Bob mod away"]);
    // Nobody else can take the name.
    script.connect(3);
    script.join(3, "bob");
    assert_eq!(script.received(3), ["error: The username Bob is in use: choose another."]);
    script.resume(4, &bob, since);
    assert_eq!(
        script.received(4),
        [
            "list: Ann, Bob mod",
            "command_list",
            "history more recovered: Ann: where are you?, Ann to Bob: psst",
        ]
    );
    script.wait(1.0);
    assert_eq!(script.received(1), ["list: Ann, Bob mod"]);
    script.public(4, "back");
    assert_eq!(script.received(1), ["Bob: back"]);
    assert_eq!(script.room.away_members(), 0);
    script.wait(60.0);
    assert_eq!(script.received(1), [""; 0]);
}

#[test]
fn a_connection_whose_place_is_taken_is_closed_and_ignored() {
    let mut script = Script::with(&["Ann"]);
    let bob = script.asking(2, "Bob");
    script.resume(3, &bob, script.last_id);
    assert_eq!(script.received(2), ["replaced"]);
    assert_eq!(script.received(3), ["list: Ann, Bob", "command_list", "history recovered: "]);
    script.public(2, "late");
    script.join(2, "Someone");
    script.lose(2);
    script.wait(60.0);
    assert_eq!(script.received(1), [""; 0], "nobody is told");
    assert_eq!(script.received(2), [""; 0]);
    script.public(1, "hi");
    assert_eq!(script.received(3), ["Ann: hi"]);
    // A join that was sent on an older connection, and arrives late.
    let mut late = Script::with(&["Ann"]);
    late.connect(2);
    let bob = late.asking(3, "Bob");
    let options = Some(JoinOptions { session: Some(bob.session), ..JoinOptions::default() }.into());
    late.send(2, username("Bob"), Body::Join(options));
    assert_eq!((late.received(2), late.received(3)), (vec!["replaced".into()], vec![]));
    late.public(2, "late");
    late.public(1, "hi");
    assert_eq!(late.received(3), ["Ann: hi"]);
}

#[test]
fn a_place_ends_on_timeout_or_close_1000() {
    let mut script = Script::with(&["Ann"]);
    let bob = script.asking(2, "Bob");
    script.lose(2);
    script.command(1, "/whisper Bob one");
    script.wait(29.9);
    script.received(1);
    script.wait(0.2);
    let lines = script.received(1);
    let error = "error: Bob has left without receiving your message.";
    assert_eq!(lines, [error, "system: Bob left.", "list: Ann"]);
    // An unknown session is an ordinary join, to which the whispers of the earlier place are not shown.
    script.resume(3, &bob, 1);
    assert_eq!(
        script.received(3),
        ["list: Ann, Bob", "command_list", "history not recovered: ", "system: Bob joined."]
    );
    script.received(1);
    script.input(3, Input::Disconnected(Departure::Left));
    assert_eq!(script.received(1), ["system: Bob left."]);
    // A client that asks for nothing leaves at once.
    script.connect(4);
    script.join(4, "Dan");
    script.received(1);
    script.lose(4);
    assert_eq!(script.received(1), ["system: Dan left."]);
}

#[test]
fn with_resume_seconds_0_members_leave_at_once_but_can_take_over() {
    let away = AwayLimits { timeout: Duration::ZERO, ..settings().away };
    let mut script = Script::with_room(RoomSettings { away, ..settings() });
    let ann = script.asking(1, "Ann");
    script.resume(2, &ann, script.last_id);
    assert_eq!(script.received(1), ["replaced"]);
    assert_eq!(script.received(2)[2], "history recovered: ");
    script.lose(2);
    assert_eq!((script.room.members(), script.room.away_members()), (0, 0));
}

#[test]
fn a_session_is_not_valid_for_another_name() {
    let mut script = Script::with(&["Ann"]);
    let bob = script.asking(2, "Bob");
    script.lose(2);
    script.resume(3, &Resumable { name: "Ann", ..bob.clone() }, 0);
    assert_eq!(script.received(3), ["error: The username Ann is in use: choose another."]);
    script.resume(4, &Resumable { name: "Cid", ..bob }, 0);
    assert!(script.received(4).contains(&"system: Cid joined.".into()));
    assert_eq!(script.room.away_members(), 1);
}

#[test]
fn recovered_is_false_if_messages_are_missing() {
    let history = HistoryLimits { messages: 3, age_millis: None };
    let mut script = Script::with_room(RoomSettings { history, ..settings() });
    script.connect(1);
    script.join(1, "Ann");
    let bob = script.asking(2, "Bob");
    let since = script.last_id;
    script.lose(2);
    for number in 0..3 {
        script.public(1, &number.to_string());
    }
    script.resume(3, &bob, since);
    assert_eq!(script.received(3)[2], "history recovered: Ann: 0, Ann: 1, Ann: 2");
    script.public(1, "3");
    script.resume(4, &bob, since);
    assert_eq!(script.received(4)[2], "history not recovered: Ann: 1, Ann: 2, Ann: 3");
    // Another epoch, and an id that does not exist yet.
    let since = Some(Position { epoch: "another".into(), id: script.last_id });
    script.join_with(5, &bob, JoinOptions { since, ..JoinOptions::default() });
    assert!(script.received(5)[2].starts_with("history not recovered: "));
    script.resume(6, &bob, script.last_id + 9);
    assert!(script.received(6)[2].starts_with("history not recovered: "));
}

#[test]
fn more_than_a_page_is_not_recovered() {
    let mut script = Script::with(&["Ann"]);
    let bob = script.asking(2, "Bob");
    let since = script.last_id;
    for _ in 0..MAX_PAGE_MESSAGES {
        script.public(1, "x");
    }
    script.resume(3, &bob, since);
    let answer = script.received(3).remove(2);
    assert!(answer.starts_with("history recovered: ") && answer.matches("Ann: x").count() == 200);
    script.public(1, "x");
    script.resume(4, &bob, since);
    let answer = script.received(4).remove(2);
    assert!(answer.starts_with("history more not recovered: ") && answer.matches("Ann: x").count() == 200);
    // As long as MAX_MESSAGE_BYTES allows.
    let since = script.last_id;
    for _ in 0..20 {
        script.public(1, &"y".repeat(16_000));
    }
    script.resume(5, &bob, since);
    let answer = script.received(5).remove(2);
    assert!(answer.starts_with("history more not recovered: "));
    assert_eq!(answer.matches("Ann: ").count(), 16, "256 KiB");
}

#[test]
fn messages_older_than_the_limit_are_evicted() {
    let mut script = Script::with(&["Ann"]);
    script.public(1, "old");
    let day = 24 * 60 * 60 * 1000;
    let history = |script: &mut Script, after| {
        script.last_id += 1;
        let time = EntryTime { unix_millis: script.time().unix_millis + after, ..script.time() };
        let input = message(ClientMessage::parse(r#"{"type":"history"}"#));
        let entry = Entry { id: script.last_id, time: &time, from: ConnectionId(1), input };
        let effects = script.room.apply(entry, NodeNumber::LOCAL);
        script.apply(effects);
        script.received(1).remove(0)
    };
    assert_eq!(history(&mut script, day), "history: Ann: old");
    assert_eq!(history(&mut script, day + 1), "history: ");
}

/// Messages to all members are kept in the store as well, whispers are not.
#[test]
fn older_pages_come_from_the_store() {
    let stored = Some(StoredHistory::default());
    let history = HistoryLimits { messages: 4, age_millis: None };
    let mut script = Script::with_room(RoomSettings { stored, history, ..settings() });
    for (number, name) in [(1, "Ann"), (2, "Bob"), (3, "Cid")] {
        script.connect(number);
        script.join(number, name);
    }
    for content in ["0", "1", "2"] {
        let message = json!({"type": "public", "content": content, "txn_id": content});
        script.json(1, message);
    }
    script.public(2, "3");
    // Memory has room for four messages, whispers included.
    script.private(1, "Bob", "psst");
    script.private(1, "Bob", "hey");
    script.received.clear();
    let page = |script: &mut Script, before: Option<u64>, limit: u64| {
        script.json(1, json!({"type": "history", "before": before.unwrap_or(9999), "limit": limit}));
        script.received(1).remove(0)
    };
    let first = *script.stored.first_key_value().unwrap().0;
    assert_eq!(script.stored.len(), 4);
    assert_eq!(page(&mut script, None, 3), "history more: Bob: 3, Ann to Bob: psst, Ann to Bob: hey");
    assert_eq!(
        page(&mut script, None, 5),
        "history more: Ann: 1 [1], Ann: 2 [2], Bob: 3, Ann to Bob: psst, Ann to Bob: hey",
        "the older part comes from the store"
    );
    assert_eq!(page(&mut script, Some(first + 2), 5), "history: Ann: 0 [0], Ann: 1 [1]");
    assert_eq!(page(&mut script, Some(first + 2), 1), "history more: Ann: 1 [1]");
    assert_eq!(page(&mut script, Some(first), 5), "history: ");
    assert_eq!(page(&mut script, None, 0), "history more: ", "the store is not read");
    script.json(3, json!({"type": "history", "limit": 5}));
    assert_eq!(script.received(3), ["history: Ann: 0, Ann: 1, Ann: 2, Bob: 3"]);
    script.is_store_available = false;
    assert_eq!(page(&mut script, None, 5), "error: Older messages are not available now: try again later.");
}

/// Memory has everything that the store has: asking the store would only delay the answer.
#[test]
fn the_store_is_not_asked_for_what_it_has_deleted() {
    let stored = Some(StoredHistory { newest_older: Some(1), ..StoredHistory::default() });
    let history = HistoryLimits { messages: 2, age_millis: None };
    let mut script = Script::with_room(RoomSettings { stored, history, ..settings() });
    script.is_store_available = false;
    script.last_id = 10;
    script.connect(1);
    script.join(1, "Ann");
    script.received.clear();
    for (content, answer) in [
        ("0", "error: Older messages are not available now: try again later."),
        ("1", "history: Ann: 0, Ann: 1"),
        ("2", "history: Ann: 1, Ann: 2"),
    ] {
        script.public(1, content);
        script.json(1, json!({"type": "history", "limit": 5}));
        assert_eq!(script.received(1), [answer]);
    }
}

#[test]
fn a_room_continues_with_what_the_store_has_kept() {
    let mut before = Script::with_room(RoomSettings { stored: Some(StoredHistory::default()), ..settings() });
    before.connect(1);
    before.join(1, "Ann");
    (0..4).for_each(|number| before.public(1, &number.to_string()));
    let mut entries: Vec<HistoryEntry> = before.stored.values().cloned().collect();
    let known = entries.remove(0).id;
    let stored = Some(StoredHistory { entries, newest_older: Some(known), ..StoredHistory::default() });
    let mut script = Script::with_room(RoomSettings { stored, ..settings() });
    script.stored = before.stored;
    script.last_id = 1000;
    for (number, name, since, answer) in [
        (1, "Bob", known, "history more recovered: Ann: 1, Ann: 2, Ann: 3"),
        (2, "Cid", known - 1, "history more not recovered: Ann: 1, Ann: 2, Ann: 3"),
        (3, "Dan", known + 2, "history more recovered: Ann: 3"),
    ] {
        let place = Resumable { name, session: session(number as u8) };
        script.resume(number, &place, since);
        assert_eq!(script.received(number)[2], answer);
    }
    script.json(1, json!({"type": "history", "limit": 200}));
    assert_eq!(script.received(1).last().unwrap(), "history: Ann: 0, Ann: 1, Ann: 2, Ann: 3");
}

#[test]
fn an_answer_from_the_store_to_a_connection_that_has_left_is_dropped() {
    let mut script = Script::with(&["Ann"]);
    let viewer = Place { order: JoinOrder(0), name: Arc::new(NameKey::of("Ann")) };
    let page = History::new(
        HistoryLimits { messages: 1, age_millis: None },
        Some(StoredHistory { newest_older: Some(5), ..StoredHistory::default() }),
    );
    let page = page.page_with_older(&viewer, None, 3).unwrap_err();
    let older = |viewer: &Place| {
        let request = OlderRequest { viewer: viewer.clone(), txn_id: None, page: page.clone() };
        Input::Older(request.into(), Ok(OlderMessages { entries: Vec::new(), more: true }))
    };
    script.input(1, older(&viewer));
    assert_eq!(script.received(1), ["history more: "]);
    script.input(2, older(&viewer));
    script.input(1, older(&Place { order: JoinOrder(7), name: viewer.name.clone() }));
    assert!(script.received.is_empty());
}

#[test]
fn waiting_whispers_are_in_the_answer_even_if_no_history_is_requested() {
    let history = HistoryLimits { messages: 2, age_millis: None };
    let mut script = Script::with_room(RoomSettings { history, ..settings() });
    script.connect(1);
    script.join(1, "Ann");
    let bob = script.asking(2, "Bob");
    script.lose(2);
    script.command(1, "/whisper Bob one");
    script.public(1, "x");
    script.public(1, "y");
    script.public(1, "z");
    script.join_with(3, &bob, newest(0));
    assert_eq!(script.received(3)[2], "history: Ann to Bob: one, Ann: y, Ann: z");
    script.join_with(4, &bob, newest(0));
    assert_eq!(script.received(4)[2], "history more: ", "once");
}

#[test]
fn waiting_whispers_are_limited_in_number_and_bytes() {
    let mut script = Script::with(&["Ann"]);
    let bob = script.asking(2, "Bob");
    script.lose(2);
    for _ in 0..MAX_UNREAD {
        script.private(1, "Bob", "psst");
    }
    assert_eq!(script.received(1), ["Ann to Bob: psst"; MAX_UNREAD]);
    script.private(1, "Bob", "psst");
    let full = "error: Bob is away, and no more whispers can wait: try again later.";
    assert_eq!(script.received(1), [full]);
    script.resume(3, &bob, script.last_id);
    assert_eq!(script.received(3)[2].matches("psst").count(), MAX_UNREAD, "whatever it claims to know");
    script.lose(3);
    for _ in 0..4 {
        script.private(1, "Bob", &"x".repeat(MAX_UNREAD_BYTES / 4 - 600));
    }
    script.received(1);
    script.private(1, "Bob", &"x".repeat(2000));
    assert_eq!(script.received(1), [full]);
    script.wait(60.0);
    let lines = script.received(1);
    assert!(lines.contains(&"error: Bob has left without receiving 4 of your messages.".into()), "{lines:?}");
}

/// A snapshot with many waiting whispers once exceeded its limit, and the log of several servers was not trimmed.
#[test]
fn what_waits_for_all_members_is_limited_in_bytes() {
    /// Of a snapshot, in bytes.
    const LIMIT: usize = 64 * 1024 * 1024;
    let away = AwayLimits { timeout: Duration::from_secs(3600), members: 1000, members_per_network: None };
    let history = HistoryLimits { messages: 10_000, age_millis: None };
    let mut script = Script::with_room(RoomSettings { away, history, ..settings() });
    script.connect(1);
    script.join(1, "Ann");
    // What takes most in a snapshot.
    let text = "\"".repeat(MAX_UNREAD_BYTES / 16);
    let mut waiting = 0;
    let full = (1..1000).find(|number| {
        let name: &str = format!("Bob{number}").leak();
        script.asking(number + 1, name);
        script.lose(number + 1);
        script.received(1);
        for _ in 0..7 {
            script.private(1, name, &text);
        }
        let errors = script.received(1).iter().filter(|line| line.starts_with("error: ")).count();
        waiting += 7 - errors;
        errors > 0
    });
    let size = 2 * text.len();
    assert!(full.is_some() && waiting * size <= MAX_ALL_UNREAD_BYTES, "{waiting}");
    assert!((waiting + 1) * (size + 1000) > MAX_ALL_UNREAD_BYTES, "{waiting}");
    let bytes = script.room.snapshot().encode(Format::NEWEST).unwrap().len();
    assert!(bytes < LIMIT / 2, "{bytes}");
    // What is counted is what waits.
    let restored = Room::from_snapshot(script.room.snapshot()).unwrap();
    assert_eq!(restored.unread_bytes(), script.room.unread_bytes());
    script.wait(3601.0);
    assert_eq!(script.room.unread_bytes(), 0);
}

/// Members that resumed in time during an outage of the engine once lost their places regardless.
#[test]
fn members_have_time_to_resume_after_an_outage() {
    let mut script = Script::with(&["Ann"]);
    let (bob, cid) = (script.asking(2, "Bob"), script.asking(3, "Cid"));
    script.lose(2);
    script.wait(1.0);
    script.lose(3);
    let lost = script.elapsed;
    script.received(1);
    // No entry is made in time.
    script.elapsed = lost + AWAY + Duration::from_secs(60);
    script.public(1, "hello");
    script.wait(9.0);
    script.resume(4, &bob, script.last_id);
    assert!(script.received(4)[2].starts_with("history"));
    script.wait(2.0);
    let lines = script.received(1);
    assert!(lines.contains(&"list: Ann, Bob, Cid away".into()), "{lines:?}");
    assert!(lines.contains(&"system: Cid left.".into()));
    // An entry that comes a little late is not an outage.
    let dan = script.asking(5, "Dan");
    script.lose(5);
    script.elapsed += AWAY + Duration::from_millis(1900);
    script.public(1, "hello");
    assert!(script.received(1).contains(&"system: Dan left.".into()));
    let _ = (cid, dan);
}

#[test]
fn members_away_are_limited_per_address_and_in_total() {
    let mut script = Script::with(&["Watcher"]);
    // From one address, two.
    for (number, name) in [(10, "Ann"), (11, "Bob"), (12, "Cid")] {
        script.asking(number, name);
    }
    (10..13).for_each(|number| script.lose(number));
    assert_eq!(script.room.away_members(), 3, "three addresses");
    let mut from_one = Script::with(&["Watcher"]);
    for (number, name) in [(10, "Ann"), (10 + 256, "Bob"), (10 + 512, "Cid")] {
        from_one.asking(number, name);
        from_one.lose(number);
        from_one.wait(1.0);
    }
    assert!(from_one.received(1).contains(&"system: Ann left.".into()), "it has been away longest");
    assert_eq!(from_one.room.away_members(), 2);
    // In total, eight.
    for (number, name) in (20..).zip(["Dan", "Eve", "Fay", "Gus", "Hal", "Ida"]) {
        script.asking(number, name);
        script.lose(number);
        script.wait(0.1);
    }
    assert_eq!(script.room.away_members(), 8);
    assert!(script.received(1).contains(&"system: Ann left.".into()));
}

#[test]
fn an_author_that_is_away_is_told_when_it_resumes() {
    let mut script = Script::new();
    let (ann, _bob) = (script.asking(1, "Ann"), script.asking(2, "Bob"));
    script.lose(2);
    script.command(1, "/whisper Bob one");
    script.command(1, "/whisper Bob two");
    script.wait(1.0);
    script.lose(1);
    script.wait(29.5);
    assert_eq!(script.room.away_members(), 1, "Bob has left");
    script.resume(3, &ann, script.last_id);
    let lines = script.received(3);
    assert_eq!(lines[3..], ["error: Bob has left without receiving 2 of your messages."], "{lines:?}");
    // As many wait as there is room for.
    let mut unread = Unread::default();
    let kept = (0..=MAX_UNREAD).map(|number| unread.notify(number.to_string(), usize::MAX));
    assert_eq!(kept.filter(|bytes| *bytes > 0).count(), MAX_UNREAD);
    assert_eq!(unread.notify("one more".into(), 0), 0);
    assert_eq!(unread.into_notices().count(), MAX_UNREAD);
}

#[test]
fn a_named_moderator_that_is_removed_becomes_a_member() {
    let mut script = Script::with_moderator("Ann", settings());
    script.connect(1);
    script.join(1, "Bob");
    let bob = script.room.roster.by_connection(ConnectionId(1)).unwrap().order;
    script.room.roster.get_mut(bob).unwrap().role = Role::Named;
    script.input(0, Input::Moderators(vec![moderator("bob")]));
    script.wait(1.0);
    script.received(1);
    script.input(0, Input::Moderators(Vec::new()));
    script.wait(1.0);
    assert_eq!(script.received(1), ["list: Bob"]);
}

/// A connection of one of several servers.
fn on(node: u32, number: u64) -> u64 {
    ConnectionId::new(NodeNumber::new(node).unwrap(), number).0
}

#[test]
fn the_members_of_a_server_that_has_ended_lose_their_connections() {
    let mut script = Script::new();
    let watcher = on(2, 1);
    script.asking(watcher, "Watcher");
    let ann = script.asking(on(1, 9), "Ann");
    script.connect(on(1, 1));
    script.join(on(1, 1), "Bob");
    script.asking(on(1, 5), "Cid");
    script.received(watcher);
    script.input(0, Input::NodeDown(NodeNumber::new(1).unwrap()));
    script.wait(1.0);
    // Bob did not ask.
    assert_eq!(script.received(watcher), ["system: Bob left.", "list: Watcher, Ann away, Cid away"]);
    assert_eq!(script.members.len(), 1);
    script.resume(on(2, 2), &ann, script.last_id);
    script.received(on(2, 2));
    script.wait(AWAY.as_secs_f64());
    assert_eq!(script.received(on(2, 2)), ["system: Cid left.", "list: Watcher, Ann"]);
}

#[test]
fn what_a_server_was_storing_takes_effect_when_it_ends() {
    let mut script = Script::new();
    let (ann, bob) = (on(1, 1), on(2, 1));
    for (number, name) in [(ann, "Ann"), (bob, "Bob")] {
        script.connect(number);
        script.join(number, name);
    }
    script.command(ann, "/login secret");
    script.received.clear();
    script.outcome = None;
    script.command(ann, "/to Bob 60");
    assert_eq!(script.received(bob), [""; 0]);
    script.input(0, Input::NodeDown(NodeNumber::new(2).unwrap()));
    assert_eq!(script.received(ann), ["system: Bob left."], "it is another server's decision");
    script.input(0, Input::NodeDown(NodeNumber::new(1).unwrap()));
    assert!(script.room.timeouts.contains(&NameKey::of("Bob")));
    // An answer of its store comes too late.
    script.connect(on(3, 1));
    script.join(on(3, 1), "Cid");
    script.received.clear();
    let decision = script.waiting.remove(0);
    script.input(ann, Input::Decided(decision.into(), Outcome::Stored));
    assert_eq!(script.received(on(3, 1)), [""; 0]);
}

/// The numbers of two servers' connections say nothing about which one is newer.
#[test]
fn of_two_servers_the_connection_that_was_opened_last_keeps_the_place() {
    let mut script = Script::new();
    let ann = script.asking(on(1, 1), "Ann");
    script.connect(on(2, 5));
    script.wait(0.001);
    script.resume(on(1, 2), &ann, script.last_id);
    assert_eq!(script.received(on(1, 1)), ["replaced"]);
    script.resume_on(on(2, 5), &ann, script.last_id);
    assert_eq!(script.received(on(2, 5)), ["replaced"], "this is a late join");
    script.wait(0.001);
    script.resume(on(2, 6), &ann, script.last_id);
    assert_eq!(script.received(on(1, 2)).last().unwrap(), "replaced");
    // If both were opened at the same time, the later join counts.
    script.connect(on(3, 1));
    script.resume(on(1, 3), &ann, script.last_id);
    assert_eq!(script.received(on(2, 6)).last().unwrap(), "replaced");
    script.resume_on(on(3, 1), &ann, script.last_id);
    assert_eq!(script.received(on(1, 3)).last().unwrap(), "replaced");
}

/// The simulation compares the effects of all entries.
#[test]
fn a_server_gets_only_the_effects_on_its_own_connections() {
    let (own, other) = (ConnectionId(on(1, 1)), ConnectionId(on(2, 1)));
    let server = NodeNumber::new(1).unwrap();
    let message = || ServerMessage::Deleted { id: 1 };
    let reduced = |audience| {
        let mut effect = Effect::Send(audience, message());
        effect.is_for(server).then_some(effect)
    };
    for (audience, expected) in [
        (Audience::All, Some(Audience::All)),
        (Audience::AllExcept(own), Some(Audience::AllExcept(own))),
        (Audience::AllExcept(other), Some(Audience::All)),
        (Audience::One(own), Some(Audience::One(own))),
        (Audience::One(other), None),
        (Audience::Only(vec![other, own]), Some(Audience::Only(vec![own]))),
        (Audience::Only(vec![other]), None),
    ] {
        assert_eq!(reduced(audience), expected.map(|audience| Effect::Send(audience, message())));
    }
    assert!(Effect::Enter(own, "Ann".into()).is_for(server));
    assert!(!Effect::Close(other, "banned".into()).is_for(server));
}

/// A server learns from the order what has become of the messages that it has put there, and more may follow meanwhile.
#[test]
fn a_message_that_follows_a_join_before_its_server_knows_of_it_is_from_a_member() {
    let mut script = Script::with(&["Ann"]);
    script.connect(2);
    let guest = script.guest(2);
    let late = |script: &mut Script, number, json: &str| {
        script.last_id += 1;
        let (time, message) = (script.time(), ClientMessage::parse(json));
        let input = Input::Message { message, access: OPEN, session: None, guest: guest.clone() };
        let entry = Entry { id: script.last_id, time: &time, from: ConnectionId(number), input };
        let effects = script.room.apply(entry, NodeNumber::LOCAL);
        script.apply(effects);
    };
    script.join(2, "Bob");
    script.received.clear();
    late(&mut script, 2, r#"{"type":"public","username":"Cid","content":"hi"}"#);
    assert_eq!(script.received(1), ["Bob: hi"]);
    script.command(1, "/login secret");
    script.command(1, "/kick Bob");
    script.received.clear();
    late(&mut script, 2, r#"{"type":"public","username":"Bob","content":"hi"}"#);
    assert_eq!((script.received(1), script.received(2)), (vec![], vec![]), "it is being closed");
    assert_eq!(script.room.closed(), 1);
    script.lose(2);
    assert_eq!(script.room.closed(), 0);
}
