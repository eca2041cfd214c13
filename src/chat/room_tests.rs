//! The room as conversations: what each says, and what each is told, in order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A room with everybody's lines, as `sender's number → what each hears`.
struct Script {
    room: Room,
    now: Instant,
    /// Who hears what everybody hears.
    members: BTreeSet<u64>,
    heard: BTreeMap<u64, Vec<String>>,
}

impl Script {
    fn new() -> Self {
        let room = Room::new(Some(ModPassword::new("secret")));
        Self { room, now: Instant::now(), members: BTreeSet::new(), heard: BTreeMap::new() }
    }

    /// A room in which these have joined, as 1, 2, 3 …, and have heard all about it.
    fn with(names: &[&str]) -> Self {
        let mut script = Self::new();
        for (number, name) in (1..).zip(names) {
            script.connect(number);
            script.join(number, name);
        }
        script.wait(1.0);
        script.heard.clear();
        script
    }

    fn connect(&mut self, number: u64) {
        self.input(number, Input::Connected(IpAddr::from([10, 0, 0, number as u8])));
    }

    fn join(&mut self, number: u64, name: &str) {
        self.say(number, Field::Text(name.into()), Body::Join);
    }

    fn public(&mut self, number: u64, content: &str) {
        self.say(number, Field::Missing, Body::Public { content: content.into() });
    }

    fn command(&mut self, number: u64, content: &str) {
        self.say(number, Field::Missing, Body::Command { content: content.into() });
    }

    fn say(&mut self, number: u64, username: Field, body: Body) {
        self.input(number, Input::Said(Ok(ClientMessage { username, body: Ok(body) })));
    }

    fn input(&mut self, number: u64, input: Input) {
        let effects = self.room.handle(self.now, ConnectionId(number), input);
        self.apply(effects);
    }

    fn wait(&mut self, seconds: f64) {
        let until = self.now + Duration::from_secs_f64(seconds);
        while let Some(due) = self.room.next_deadline().filter(|&due| due <= until) {
            self.now = self.now.max(due);
            let effects = self.room.expire(self.now);
            self.apply(effects);
        }
        self.now = until;
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Enter(ConnectionId(number)) => assert!(self.members.insert(number)),
                Effect::Leave(ConnectionId(number)) => assert!(self.members.remove(&number)),
                Effect::WrongPassword(_) => {}
                Effect::Tell(audience, message) => {
                    let hears: Vec<u64> = match audience {
                        Audience::Everybody => self.members.iter().copied().collect(),
                        Audience::EverybodyBut(ConnectionId(one)) => {
                            self.members.iter().copied().filter(|&number| number != one).collect()
                        }
                        Audience::One(ConnectionId(number)) => vec![number],
                        Audience::These(these) => these.iter().map(|id| id.0).collect(),
                    };
                    for number in hears {
                        self.heard.entry(number).or_default().push(line(&message));
                    }
                }
            }
        }
    }

    /// What somebody has heard since the last time.
    fn hears(&mut self, number: u64) -> Vec<String> {
        self.heard.remove(&number).unwrap_or_default()
    }
}

fn line(message: &ServerMessage) -> String {
    match message {
        ServerMessage::Public { username, content } => format!("{username}: {content}"),
        ServerMessage::Private { from, to, content } => format!("{from} to {to}: {content}"),
        ServerMessage::System { content } => format!("system: {content}"),
        ServerMessage::Error { content } => format!("error: {content}"),
        ServerMessage::CommandList { .. } => "command_list".into(),
        ServerMessage::UserList { content } => {
            let users = content.iter().map(|user| {
                let marks = [(user.is_mod, " mod"), (user.is_timed_out, " timed out")];
                let marks = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark);
                format!("{}{}", user.username, marks.collect::<String>())
            });
            format!("list: {}", users.collect::<Vec<_>>().join(", "))
        }
    }
}

#[test]
fn a_newcomer_gets_the_lists_and_everybody_the_news() {
    let mut script = Script::with(&["Ann"]);
    script.connect(2);
    assert_eq!(script.hears(2), [""; 0]);
    script.join(2, " Bob ");
    assert_eq!(script.hears(2), ["list: Ann, Bob", "command_list", "system: Bob joined."]);
    assert_eq!(script.hears(1), ["system: Bob joined."]);
    script.wait(0.1);
    assert_eq!(script.hears(1), ["list: Ann, Bob"]);
    assert_eq!(script.hears(2), [""; 0]);
    script.input(1, Input::Gone);
    script.wait(0.1);
    assert_eq!(script.hears(2), ["system: Ann left.", "list: Bob"]);
    assert_eq!(script.hears(1), [""; 0]);
}

#[test]
fn nothing_is_said_or_heard_before_joining() {
    let mut script = Script::with(&["Ann"]);
    script.connect(2);
    script.public(1, "secret");
    script.public(2, "hi");
    script.command(2, "/help");
    script.input(2, Input::Said(Err(Fault::Binary)));
    assert_eq!(script.hears(1), [""; 0]);
    let heard = script.hears(2);
    assert_eq!(heard.len(), 3);
    assert!(heard[0].starts_with("error: Join first") && heard[1] == heard[0], "{heard:?}");
    script.input(2, Input::Gone);
    script.wait(1.0);
    assert_eq!(script.hears(1), [""; 0]);
}

#[test]
fn a_first_message_with_a_name_joins_and_is_handled() {
    let mut script = Script::with(&["Ann"]);
    script.connect(2);
    script.say(2, Field::Text("Bob".into()), Body::Public { content: "hi".into() });
    assert_eq!(script.hears(1), ["system: Bob joined.", "Bob: hi"]);
    assert_eq!(script.hears(2).len(), 3);
    script.connect(3);
    script.say(3, Field::Text("Cid".into()), Body::Command { content: "/whisper Ann psst".into() });
    assert_eq!(script.hears(1), ["system: Cid joined.", "Cid to Ann: psst"]);
}

#[test]
fn a_faulty_first_message_with_a_name_joins_too() {
    let mut script = Script::with(&["Ann"]);
    for (number, name) in [(2, "Bob"), (3, "Cid")] {
        script.connect(number);
        let fault = Fault::UnknownType("shout".into());
        let message = ClientMessage { username: Field::Text(name.into()), body: Err(fault) };
        script.input(number, Input::Said(Ok(message)));
        let heard = script.hears(number);
        assert_eq!(heard[2], format!("system: {name} joined."));
        assert!(heard[3].starts_with("error: Unknown type"), "{heard:?}");
    }
    assert_eq!(script.hears(1), ["system: Bob joined.", "system: Cid joined."]);
    // Without a name it is told what is wrong with it, and nobody notices.
    script.connect(4);
    script.input(
        4,
        Input::Said(Ok(ClientMessage { username: Field::Missing, body: Err(Fault::Blank("content")) })),
    );
    assert_eq!(script.hears(4), ["error: The field \"content\" must not be blank."]);
    assert_eq!(script.hears(1), [""; 0]);
}

#[test]
fn nobody_speaks_as_another() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.say(2, Field::Text("Ann".into()), Body::Public { content: "hi".into() });
    script.say(2, Field::Other("a number"), Body::Public { content: "again".into() });
    assert_eq!(script.hears(1), ["Bob: hi", "Bob: again"]);
    assert_eq!(script.hears(2), [""; 0], "no echo");
    script.join(2, "Cid");
    assert_eq!(script.hears(2), ["error: You have joined already, as Bob."]);
    assert_eq!(script.hears(1), [""; 0]);
}

#[test]
fn a_name_in_use_can_be_chosen_anew() {
    let mut script = Script::with(&["Bob"]);
    script.connect(2);
    for name in ["bob", "Ｂｏｂ", "System", ""] {
        script.join(2, name);
        let heard = script.hears(2);
        assert!(heard.len() == 1 && heard[0].starts_with("error: The username"), "{name}: {heard:?}");
    }
    script.say(2, Field::Other("a number"), Body::Join);
    assert_eq!(script.hears(2), ["error: The field \"username\" must be a string, but is a number."]);
    script.say(2, Field::Missing, Body::Join);
    assert_eq!(script.hears(2), ["error: The field \"username\" is missing."]);
    assert_eq!(script.hears(1), [""; 0]);
    script.join(2, "Bob 2");
    assert_eq!(script.hears(2).len(), 3);
    script.input(1, Input::Gone);
    script.connect(3);
    script.join(3, "BOB");
    assert_eq!(script.hears(3)[0], "list: Bob 2, BOB");
}

#[test]
fn a_whisper_goes_to_the_longest_name_and_once_to_the_sender() {
    let mut script = Script::with(&["Ann", "Ann Lee", "Bob"]);
    script.command(3, "/whisper ann lee  how are you");
    assert_eq!(script.hears(2), ["Bob to Ann Lee: how are you"]);
    assert_eq!(script.hears(3), ["Bob to Ann Lee: how are you"]);
    script.command(3, "/whisper Ann leeway");
    assert_eq!(script.hears(1), ["Bob to Ann: leeway"]);
    script.hears(3);
    script.command(3, "/whisper Bob note to self");
    assert_eq!(script.hears(3), ["Bob to Bob: note to self"]);
    script.command(3, "/whisper Ann Lee");
    assert_eq!(script.hears(3), ["error: Usage: /whisper [user] [message]"]);
    script.command(3, "/whisper Annabel hi");
    assert_eq!(script.hears(3), ["error: Nobody here is called Annabel. Usage: /whisper [user] [message]"]);
    script.command(3, "/whisper");
    assert_eq!(script.hears(3), ["error: Usage: /whisper [user] [message]"]);
    assert_eq!((script.hears(1), script.hears(2)), (vec![], vec![]));
}

#[test]
fn a_moderator_logs_in_and_everybody_hears() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.command(1, "/login wrong");
    assert_eq!(script.hears(1), ["error: Wrong password."]);
    script.command(1, "/login secret");
    assert_eq!(script.hears(1), ["system: Ann is now a moderator."]);
    assert_eq!(script.hears(2), ["system: Ann is now a moderator."]);
    script.wait(0.1);
    assert_eq!(script.hears(2), ["list: Ann mod, Bob"]);
    script.hears(1);
    script.command(1, "/login whatever");
    assert_eq!(script.hears(1), ["system: You are a moderator already."]);
    assert_eq!(script.hears(2), [""; 0]);
}

#[test]
fn without_a_password_nobody_becomes_moderator() {
    let mut script = Script { room: Room::new(None), ..Script::new() };
    script.connect(1);
    script.join(1, "Ann");
    script.hears(1);
    script.command(1, "/login anything");
    let heard = script.hears(1);
    assert!(heard[0].starts_with("error: Nobody can become moderator"), "{heard:?}");
}

#[test]
fn after_five_wrong_passwords_the_address_waits_a_minute() {
    let mut script = Script::with(&["Ann", "Bob"]);
    for _ in 0..5 {
        script.command(1, "/login guess");
    }
    assert_eq!(script.hears(1), ["error: Wrong password."; 5]);
    script.wait(10.5);
    script.command(1, "/login secret");
    assert_eq!(script.hears(1), ["error: Too many wrong passwords: wait 50 seconds."]);
    script.input(1, Input::Gone);
    script.connect(1);
    script.join(1, "Ann");
    script.hears(1);
    script.command(1, "/login secret");
    assert_eq!(script.hears(1), ["error: Too many wrong passwords: wait 50 seconds."]);
    script.hears(2);
    script.command(2, "/login secret");
    assert_eq!(script.hears(2), ["system: Bob is now a moderator."]);
    script.wait(50.0);
    script.hears(1);
    script.command(1, "/login secret");
    assert_eq!(script.hears(1), ["system: Ann is now a moderator."]);
}

#[test]
fn a_time_out_ends_by_itself_and_not_by_leaving() {
    let mut script = Script::with(&["Ann", "Bob Lee"]);
    script.command(2, "/to Ann 5");
    assert_eq!(script.hears(2), ["error: Only moderators may use /to: see /login."]);
    script.command(1, "/login secret");
    script.wait(1.0);
    script.heard.clear();
    script.command(1, "/to bob lee 100");
    script.wait(0.1);
    assert_eq!(
        script.hears(2),
        ["system: Ann timed out Bob Lee for 100 seconds.", "list: Ann mod, Bob Lee timed out"]
    );
    script.hears(1);
    script.command(1, "/to Bob Lee 10");
    script.wait(0.5);
    script.hears(2);

    script.public(2, "hi");
    script.command(2, "/help");
    script.join(2, "Other");
    script.input(2, Input::Said(Err(Fault::NotAnObject)));
    assert_eq!(script.hears(2), ["system: You are timed out: 10 seconds left."; 4]);
    script.public(1, "you can read");
    assert_eq!(script.hears(2), ["Ann: you can read"]);

    script.input(2, Input::Gone);
    script.connect(3);
    script.join(3, "bob lee");
    assert_eq!(script.hears(3)[0], "list: Ann mod, bob lee timed out");
    script.public(3, "hi");
    assert_eq!(script.hears(3), ["system: You are timed out: 10 seconds left."]);
    script.hears(1);
    script.wait(9.6);
    assert_eq!(
        script.hears(3),
        ["system: Your time-out is over: you may speak again.", "list: Ann mod, bob lee"]
    );
    assert_eq!(script.hears(1), ["list: Ann mod, bob lee timed out", "list: Ann mod, bob lee"]);
    script.public(3, "hi");
    assert_eq!(script.hears(1), ["bob lee: hi"]);
}

#[test]
fn a_time_out_needs_a_user_and_seconds() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.command(1, "/login secret");
    script.hears(1);
    for seconds in ["", "0", "-1", "soon", "1.5", "5 minutes", "31536001", "99999999999999999999"] {
        script.command(1, &format!("/to Bob {seconds}"));
        let heard = script.hears(1);
        assert!(heard[0].starts_with("error: Usage: /to [user] [seconds]"), "{seconds}: {heard:?}");
    }
    script.command(1, "/to Nobody 5");
    assert_eq!(script.hears(1), ["error: Nobody here is called Nobody. Usage: /to [user] [seconds]"]);
    script.wait(1.0);
    assert!(!script.hears(2).iter().any(|line| line.contains("timed out")));
}

#[test]
fn help_tells_of_all_or_of_one() {
    let mut script = Script::with(&["Ann"]);
    script.command(1, "/help");
    let heard = script.hears(1);
    for usage in ["/whisper [user] [message]", "/login [password]", "/to [user] [seconds]", "/help [command]"]
    {
        assert!(heard[0].starts_with("system: ") && heard[0].contains(usage), "{heard:?}");
    }
    script.command(1, "/help to");
    let heard = script.hears(1);
    assert!(heard[0].starts_with("system: /to [user] [seconds] — ") && !heard[0].contains('\n'), "{heard:?}");
    script.command(1, "/nothing");
    assert_eq!(script.hears(1), ["error: Unknown command /nothing: /help lists the commands."]);
}

#[derive(Clone, Debug)]
enum Step {
    Connect(u64),
    Gone(u64),
    Say(u64, Option<String>, Body),
    Fault(u64),
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..8_u64;
    let name = prop_oneof![
        3 => "(Ann|ann|Bob|Ann Lee|System|ＡＮＮ)",
        1 => "\\PC{0,40}",
    ];
    let text = prop_oneof![
        "/login (secret|wrong)",
        "/(whisper|to) (Ann|bob|Ann Lee|x) ?[0-9]{0,3}",
        "/help ?(to|x)?",
        "\\PC{1,20}",
    ];
    let body = (text, 0..3).prop_map(|(content, kind)| match kind {
        0 => Body::Join,
        1 => Body::Public { content },
        _ => Body::Command { content },
    });
    let step = prop_oneof![
        2 => who.clone().prop_map(Step::Connect),
        1 => who.clone().prop_map(Step::Gone),
        6 => (who.clone(), proptest::option::of(name), body).prop_map(|(who, name, body)| Step::Say(who, name, body)),
        1 => who.prop_map(Step::Fault),
        2 => (0..120_000_u32).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// Whatever inputs come in whatever order: names are unique, only who is connected is told anything, only
    /// members hear the room, and all hear what everybody hears in one order.
    #[test]
    fn the_room_keeps_its_invariants(steps in steps()) {
        let mut room = Room::new(Some(ModPassword::new("secret")));
        let mut now = Instant::now();
        // Numbers are used once: `current` is the connection that a step's number means now.
        let (mut next, mut current) = (0, BTreeMap::<u64, u64>::new());
        let mut members = BTreeSet::new();
        for step in steps {
            let mut inputs = Vec::new();
            match step {
                Step::Connect(who) => {
                    if let Some(old) = current.insert(who, next) {
                        inputs.push((old, Input::Gone));
                    }
                    inputs.push((next, Input::Connected(IpAddr::from([10, 0, 0, who as u8]))));
                    next += 1;
                }
                // A connection that is not there any more (or never was) must do no harm.
                Step::Gone(who) => inputs.push((current.remove(&who).unwrap_or(u64::MAX - who), Input::Gone)),
                Step::Say(who, name, body) => {
                    let username = name.map_or(Field::Missing, Field::Text);
                    let id = current.get(&who).copied().unwrap_or(u64::MAX - who);
                    inputs.push((id, Input::Said(Ok(ClientMessage { username, body: Ok(body) }))));
                }
                Step::Fault(who) => {
                    let id = current.get(&who).copied().unwrap_or(u64::MAX - who);
                    inputs.push((id, Input::Said(Err(Fault::NotAnObject))));
                }
                Step::Wait(millis) => now += Duration::from_millis(millis.into()),
            }
            let mut effects = Vec::new();
            for (id, input) in inputs {
                effects.extend(room.handle(now, ConnectionId(id), input));
            }
            effects.extend(room.expire(now));
            prop_assert!(room.next_deadline().is_none_or(|due| due > now), "expire leaves nothing that is due");

            let connected: BTreeSet<u64> = current.values().copied().collect();
            for effect in &effects {
                match effect {
                    Effect::Enter(id) => prop_assert!(members.insert(id.0)),
                    Effect::Leave(id) => prop_assert!(members.remove(&id.0)),
                    Effect::WrongPassword(id) => prop_assert!(members.contains(&id.0)),
                    Effect::Tell(Audience::One(id), _) => prop_assert!(connected.contains(&id.0)),
                    Effect::Tell(Audience::EverybodyBut(id), message) => {
                        prop_assert!(members.contains(&id.0));
                        let public = matches!(message, ServerMessage::Public { .. });
                        prop_assert!(public);
                    }
                    Effect::Tell(Audience::These(these), _) => {
                        prop_assert!(these.iter().all(|id| members.contains(&id.0)));
                        let unique: BTreeSet<u64> = these.iter().map(|id| id.0).collect();
                        prop_assert_eq!(unique.len(), these.len());
                    }
                    Effect::Tell(Audience::Everybody, message) => {
                        let public = matches!(message, ServerMessage::Public { .. });
                        prop_assert!(!public);
                    }
                }
                if let Effect::Tell(_, ServerMessage::UserList { content }) = effect {
                    let keys: BTreeSet<_> = content.iter().map(|user| crate::chat::username::NameKey::of(&user.username)).collect();
                    prop_assert_eq!(keys.len(), content.len(), "names are unique");
                }
            }
            prop_assert!(members.is_subset(&connected));
            prop_assert_eq!(room.roster.list(&room.timeouts).len(), members.len());
            prop_assert_eq!(room.roster.list(&room.timeouts).len() + room.guests.len(), connected.len());
        }
    }
}
