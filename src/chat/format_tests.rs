//! What entries and snapshots look like as bytes, and that nothing is lost on the way.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::chat::NamedModerator;
use crate::chat::access::{Access, Verdict};
use crate::chat::acts::{Act, Action, Ban, Decision, Outcome};
use crate::chat::away::AwayLimits;
use crate::chat::entry::*;
use crate::chat::history::HistoryLimits;
use crate::chat::protocol::{ClientMessage, MessageError, TxnId};
use crate::chat::room::{MAX_PAST_EPOCHS, Room, RoomSettings};
use crate::chat::session::SessionSecret;
use crate::chat::username::Username;

const ENTRIES: &str = include_str!("../../tests/formats/entry-1.txt");
const SNAPSHOT: &str = include_str!("../../tests/formats/snapshot-1.txt");
/// A format never changes once it is released.
const CHANGED: &str =
    "the format has changed: give it a new number, and keep the old one for one more version";

const PAST_EPOCH: &str = r#"{"epoch":"e0","last_id":0}"#;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn moderator(text: &str) -> NamedModerator {
    NamedModerator { name: name(text), hash: "a hash".into() }
}

fn address(last: u8) -> Address {
    Address { network: IpAddr::from([192, 0, 2, last]).into(), is_exempt: false }
}

fn guest(last: u8) -> Option<Box<Guest>> {
    Some(Guest { address: address(last), opened: ChatTime(1_795_867_200_000), only_resumes: false }.into())
}

fn id(node: u32, number: u64) -> ConnectionId {
    ConnectionId::new(NodeNumber::new(node).unwrap(), number)
}

fn message(text: &str, access: Access, guest: Option<Box<Guest>>) -> Input {
    let (message, _) = ClientMessage::parse_with_secrets(text);
    let session = guest.is_some().then(|| SessionSecret::new([7; SessionSecret::BYTES]).digest());
    Input::Message { message, access, session, guest }
}

fn decided(action: Action) -> Input {
    let network = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 9]).into();
    let act = Act { unix_millis: 1_795_867_200_123, by: "Meg".into(), address: network, action };
    let decision = Decision { act, connection: id(1, 2), txn_id: Some(TxnId::from_store("a-1")) };
    Input::Decided(decision.into(), Outcome::Stored)
}

fn ban() -> Ban {
    Ban {
        id: 1042,
        name: Some(name("Bob")),
        network: Some("192.0.2.0/24".parse().unwrap()),
        by: "Meg".into(),
        since: 1_795_867_200_123,
        until: Some(1_795_867_260_123),
        reason: "spam".into(),
    }
}

/// One of each kind.
fn inputs() -> Vec<Input> {
    let open = Access { is_open: true, ..Access::default() };
    let member = |text: &str| message(text, open, None);
    let commands = [
        "/whisper Bob Lee hi",
        "/to \"Bob Lee\" 60",
        "/help",
        "/help /to",
        "/unto Bob",
        "/kick Bob go",
        "/ban Bob 1h spam",
        "/ban \"Bob\" spam",
        "/ban 192.0.2.7 1d",
        "/unban Bob",
        "/unban 192.0.2.0/24",
        "/bans",
        "/info Bob",
        "/delete 1042",
        "/to",
    ];
    let command = |text: &&str| member(&serde_json::json!({"type": "command", "content": text}).to_string());
    let mut inputs = vec![
        member(r#"{"type":"public","content":"hello"}"#),
        member(r#"{"type":"public","content":"hello","txn_id":"a-1"}"#),
        member(r#"{"type":"private","to":"Bob","content":"hello"}"#),
        member(r#"{"type":"history"}"#),
        member(r#"{"type":"history","before":1042,"limit":7}"#),
        member(r#"{"type":"public"}"#),
        member("nonsense"),
        message(r#"{"type":"join","username":"Ｂｏb l1"}"#, Access::default(), guest(1)),
        message(r#"{"type":"join","username":"System"}"#, open, guest(1)),
        message(
            &format!(
                r#"{{"type":"join","username":"Bob","history":7,"session":"{SECRET}","password":"pass"}}"#
            ),
            Access { is_open: false, join: Verdict::Own, login: Verdict::NotPossible },
            guest(2),
        ),
        message(r#"{"type":"join","username":"Bob","epoch":"e1","since":1042}"#, open, guest(2)),
    ];
    inputs.extend(commands.iter().map(command));
    for login in [Verdict::NotCompared, Verdict::Shared, Verdict::Wrong, Verdict::Wait(50)] {
        let access = Access { login, ..open };
        inputs.push(message(r#"{"type":"command","content":"/login secret"}"#, access, None));
    }
    inputs.extend([Departure::Left, Departure::Lost].map(Input::Disconnected));
    inputs.extend(
        [
            Action::Login,
            Action::TimeOut { name: name("Bob"), until: 1_795_867_260_123 },
            Action::EndTimeOut { name: name("Bob") },
            Action::Kick { name: name("Bob"), reason: "go".into() },
            Action::Ban { ban: ban() },
            Action::Ban { ban: Ban { name: None, until: None, ..ban() } },
            Action::Unban { target: "Bob".into(), bans: vec![1042] },
            Action::Delete { id: 1042, is_own: true },
        ]
        .map(decided),
    );
    inputs.extend([
        Input::Moderators(vec![moderator("Meg"), moderator("Ann Lee")]),
        Input::Tick,
        Input::NodeDown(NodeNumber::new(7).unwrap()),
    ]);
    inputs
}

fn submission(input: Input) -> Submission {
    Submission { from: id(1, 2), offset_seconds: 3600, input }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn room() -> Room {
    let settings = RoomSettings {
        epoch: "e0".into(),
        history: HistoryLimits { messages: 100, age_millis: Some(24 * 60 * 60 * 1000) },
        away: AwayLimits { timeout: Duration::from_secs(30), members: 8, members_per_network: Some(2) },
        proxies: vec!["10.0.0.1/32".parse().unwrap()],
        ..RoomSettings::default()
    };
    Room::new(settings, &time(0))
}

fn time(millis: u64) -> EntryTime {
    let unix_millis = 1_795_867_200_000 + millis;
    let (timestamp, utc) = ("12:00:00".into(), "2026-11-28T12:00:00.000Z".into());
    EntryTime { chat: ChatTime(unix_millis), unix_millis, timestamp, utc }
}

/// A room with something of everything.
fn busy_room() -> Room {
    let (mut room, mut last_id) = (room(), 0);
    room.continue_in("e1".into(), last_id);
    let mut apply = |millis, from, input| {
        last_id += 1;
        room.apply(Entry { id: last_id, time: &time(millis), from, input }, NodeNumber::LOCAL)
    };
    let open = Access { is_open: true, login: Verdict::Shared, ..Access::default() };
    let [ann, bob, cid, meg, eve] = [id(1, 1), id(1, 2), id(2, 1), id(2, 2), id(2, 3)];
    apply(0, ConnectionId::SERVER, Input::Moderators(vec![moderator("Meg")]));
    for (connection, name, join, last) in [
        (ann, "Ann", Verdict::NotCompared, 1),
        (bob, "Bob", Verdict::NotCompared, 2),
        (cid, "Cid", Verdict::NotCompared, 3),
        (meg, "Meg", Verdict::Own, 4),
    ] {
        let text = format!(r#"{{"type":"join","username":"{name}","history":0}}"#);
        apply(10, connection, message(&text, Access { join, ..open }, guest(last)));
    }
    let mut say = |connection, text: &str| apply(20, connection, message(text, open, None));
    say(ann, r#"{"type":"public","content":"a \"message\"","txn_id":"a-1"}"#);
    say(ann, r#"{"type":"command","content":"/login secret"}"#);
    say(bob, r#"{"type":"public","content":"deleted"}"#);
    say(cid, r#"{"type":"private","to":"Bob","content":"psst"}"#);
    let mut decide = |text: &str| {
        let effects = say(meg, &serde_json::json!({"type": "command", "content": text}).to_string());
        effects.into_iter().find_map(|effect| match effect {
            crate::chat::room::Effect::Decide(decision) => Some(decision),
            _ => None,
        })
    };
    let decisions = ["/delete 8", "/to Bob 60", "/ban \"Dan\" 1h spam", "/ban 192.0.2.9"].map(&mut decide);
    decide("/ban 198.51.100.0/24 being stored");
    for decision in decisions {
        apply(30, meg, Input::Decided(decision.unwrap(), Outcome::Stored));
    }
    apply(40, bob, Input::Disconnected(Departure::Lost));
    apply(50, cid, message(r#"{"type":"command","content":"/whisper Bob wait"}"#, open, None));
    // A banned address.
    apply(60, eve, message(r#"{"type":"join","username":"Eve"}"#, open, guest(9)));
    room
}

#[test]
fn entries_are_encoded_as_they_always_were() {
    let encoded: Vec<String> =
        inputs().into_iter().map(|input| text(submission(input).encode(Format::NEWEST).unwrap())).collect();
    let golden: Vec<&str> = ENTRIES.lines().collect();
    for (encoded, golden) in encoded.iter().zip(&golden) {
        assert_eq!(encoded, golden, "{CHANGED}");
        let decoded = Submission::decode(golden.as_bytes()).unwrap();
        assert_eq!(text(decoded.encode(Format::NEWEST).unwrap()), *golden);
    }
    assert_eq!(encoded.len(), golden.len(), "{}", encoded.join("\n"));
}

#[test]
fn snapshots_are_encoded_as_they_always_were() {
    let golden = SNAPSHOT.trim_end();
    assert_eq!(text(busy_room().snapshot().encode(Format::NEWEST).unwrap()), golden, "{CHANGED}");
    let room = Room::from_snapshot(Snapshot::decode(golden.as_bytes()).unwrap()).unwrap();
    assert_eq!(text(room.snapshot().encode(Format::NEWEST).unwrap()), golden);
}

#[test]
fn an_unknown_format_says_so() {
    let decode = |bytes: &[u8]| Submission::decode(bytes).unwrap_err().to_string();
    assert_eq!(decode(b"3 anything"), "entry format 3; this server knows up to 1: upgrade it");
    let error = Snapshot::decode(b"2 {}").err().unwrap();
    assert_eq!(error.to_string(), "snapshot format 2; this server knows up to 1: upgrade it");
    for bytes in [&b""[..], b"1", b"x", b"{}", b" {}", b"0 {}", b"1{}", b"99999999999999999999999 {}"] {
        assert!(decode(bytes).starts_with("a damaged entry: "), "{}", bytes.escape_ascii());
    }
    // A newer server has added a field, and forgotten to give the format a new number.
    let error = decode(br#"1 {"from":7,"offset":0,"input":"tick","new":1}"#);
    assert!(error.starts_with("a damaged entry: unknown field `new`"), "{error}");
}

#[test]
fn a_room_remembers_its_last_epochs() {
    let mut room = room();
    for number in 0..20 {
        room.continue_in(format!("{}", number / 2).into(), number);
    }
    let snapshot = room.snapshot();
    let known: Vec<_> =
        ["0", "1", "2", "8", "9", "e0"].map(|epoch| snapshot.end_of(epoch, 99)).into_iter().collect();
    assert_eq!(known, [None, Some(4), Some(6), Some(18), Some(99), None]);
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    for (from, to, part) in [
        (r#""next":4}"#, r#""next":3}"#, "these members"),
        (r#""next":4}"#, r#""next":18446744073709551615}"#, "these members"),
        (r#"{"order":2,"name":["Cid""#, r#"{"order":1,"name":["Cid""#, "these members"),
        (r#"["Cid",["cid","cid"]]"#, r#"["Cid",["ann","cid"]]"#, "these members"),
        (r#"{"connected":2199023255553}"#, r#"{"connected":1099511627777}"#, "these members"),
        (r#"[[{"id":20,"#, r#"[[{"id":0,"#, "these members"),
        (r#"[{"id":6,"#, r#"[{"id":0,"#, "this history"),
        (r#"[{"id":6,"#, r#"[{"id":7,"#, "this history"),
        (r#""number":0}"#, r#""number":1}"#, "these time-outs"),
        (r#""next":1}"#, r#""next":18446744073709551615}"#, "these time-outs"),
        (r#"{"id":13,"#, r#"{"id":12,"#, "these bans"),
        (PAST_EPOCH, &[PAST_EPOCH; MAX_PAST_EPOCHS + 1].join(","), "these epochs"),
    ] {
        assert!(SNAPSHOT.contains(from), "{from}");
        let snapshot = Snapshot::decode(SNAPSHOT.replacen(from, to, 1).trim_end().as_bytes()).unwrap();
        let error = Room::from_snapshot(snapshot).err().unwrap().to_string();
        assert_eq!(error, format!("a damaged snapshot: no chat has {part}"), "{to}");
    }
}

/// Passwords and sessions never leave the server.
#[test]
fn no_secret_is_encoded() {
    let [join, login] = ["pass of join", "pass of login"];
    let access = Access { is_open: false, join: Verdict::Shared, login: Verdict::Shared };
    let mut bytes = Vec::new();
    for (text, guest) in [
        (
            format!(
                r#"{{"type":"join","username":"Bob","session":"{SECRET}","history":7,"password":"{join}"}}"#
            ),
            guest(1),
        ),
        (
            format!(
                r#"{{"type":"command","username":"Bob","content":"/login {login}","password":"{join}"}}"#
            ),
            guest(1),
        ),
        (format!(r#"{{"type":"command","content":"/login {login}"}}"#), None),
        // Errors as well.
        (format!(r#"{{"type":"join","username":7,"session":"{SECRET}","password":"{join}"}}"#), guest(1)),
        (
            format!(
                r#"{{"type":"join","username":"Bob","session":"{SECRET}","since":"x","password":"{join}"}}"#
            ),
            guest(1),
        ),
        (format!(r#"{{"type":"join","password":["{join}"],"session":["{SECRET}"]}}"#), None),
        (format!(r#"{{"type":"join","password":"{join}","session":"{SECRET}""#), None),
    ] {
        bytes.extend(submission(message(&text, access, guest)).encode(Format::NEWEST).unwrap());
    }
    let new = SessionSecret::parse(SECRET).unwrap();
    let mut room = room();
    let text = r#"{"type":"join","username":"Bob","history":7,"password":"pass of join"}"#;
    let (message, _) = ClientMessage::parse_with_secrets(text);
    let input = Input::Message { message, access, session: Some(new.digest()), guest: guest(1) };
    room.apply(Entry { id: 1, time: &time(0), from: id(1, 1), input }, NodeNumber::LOCAL);
    assert_eq!(room.members(), 1);
    bytes.extend(room.snapshot().encode(Format::NEWEST).unwrap());
    let all = self::text(bytes);
    for secret in [SECRET, &SECRET.to_uppercase(), join, login] {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
    let digest: String = new.digest().into();
    assert_eq!(all.matches(&digest).count(), 3, "{digest} in {all}");
}

/// Errors are encoded as their texts.
fn with_texts(input: Input) -> Input {
    let text = |error: MessageError| MessageError::Text(error.to_string());
    match input {
        Input::Message { message, access, session, guest } => {
            let message = message
                .map(|message| ClientMessage { body: message.body.map_err(text), ..message })
                .map_err(text);
            Input::Message { message, access, session, guest }
        }
        input => input,
    }
}

fn any_text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 äΝſ\"\\\\/:.]{0,12}|\\PC{0,40}|.{0,20}"
}

fn any_message() -> impl Strategy<Value = String> {
    let kind = select(vec!["join", "public", "private", "command", "history", "nothing"]);
    let command = select(vec![
        "/whisper ",
        "/login ",
        "/to ",
        "/help ",
        "/help /",
        "/unto ",
        "/kick ",
        "/ban ",
        "/ban \"",
        "/ban 10.1.2.3 ",
        "/unban ",
        "/unban ::1/",
        "/bans",
        "/info ",
        "/delete ",
        "/x",
        "",
    ]);
    let fields = (any::<u16>(), any::<u64>(), any_text(), any_text(), any_text());
    (kind, command, fields).prop_map(|(kind, command, (mask, number, name, text, other))| {
        let mut json = serde_json::json!({"type": kind});
        let content = format!("{command}{text}");
        let fields = [
            ("username", name.clone().into()),
            ("to", name.into()),
            ("content", content.into()),
            ("txn_id", other.clone().into()),
            ("password", other.clone().into()),
            ("history", (number % 250).into()),
            ("epoch", other.into()),
            ("since", number.into()),
            ("session", format!("{:032x}", u128::from(number) << 7).into()),
            ("before", number.into()),
            ("limit", (number % 250).into()),
            ("content", serde_json::Value::Bool(true)),
        ];
        for (at, (name, value)) in fields.into_iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1) {
            if at < 11 || mask.is_multiple_of(7) {
                json[name] = value;
            }
        }
        json.to_string()
    })
}

fn any_input() -> impl Strategy<Value = Input> {
    let verdicts = [
        Verdict::NotCompared,
        Verdict::Shared,
        Verdict::Own,
        Verdict::Wrong,
        Verdict::NotPossible,
        Verdict::Wait(7),
    ];
    let access = (any::<bool>(), select(verdicts.to_vec()), select(verdicts.to_vec()))
        .prop_map(|(is_open, join, login)| Access { is_open, join, login });
    let guest = (any::<u8>(), any::<u64>(), any::<[bool; 3]>()).prop_map(|(last, opened, flags)| {
        let [is_guest, is_exempt, only_resumes] = flags;
        let address = Address { is_exempt, ..address(last) };
        is_guest.then(|| Guest { address, opened: ChatTime(opened), only_resumes }.into())
    });
    let message = (any_message(), access, guest, any::<Option<[u8; 16]>>()).prop_map(
        |(text, access, guest, session)| {
            let (message, _) = ClientMessage::parse_with_secrets(&text);
            let session = session.map(|random| SessionSecret::new(random).digest());
            Input::Message { message, access, session, guest }
        },
    );
    prop_oneof![4 => message, 1 => select(inputs())]
}

/// Applies entries of all kinds, far apart.
fn exercise(mut room: Room, more: Vec<Submission>) {
    let mut id = 2000;
    let all = more.into_iter().chain(inputs().into_iter().map(submission));
    for (Submission { from, input, .. }, millis) in all.zip((0..).step_by(9973)) {
        id += 1;
        room.apply(Entry { id, time: &time(millis), from, input }, NodeNumber::LOCAL);
    }
    for node in 1..4 {
        id += 1;
        let (time, input) = (time(u64::from(node) << 40), Input::NodeDown(NodeNumber::new(node).unwrap()));
        room.apply(Entry { id, time: &time, from: ConnectionId::SERVER, input }, NodeNumber::LOCAL);
    }
    room.snapshot().encode(Format::NEWEST).unwrap();
}

proptest! {
    #[test]
    fn an_entry_is_decoded_as_it_was(input in any_input(), from: u64, offset_seconds: i32) {
        let submission = Submission { from: ConnectionId(from), offset_seconds, input };
        let decoded = Submission::decode(&submission.encode(Format::NEWEST).unwrap()).unwrap();
        prop_assert_eq!((decoded.from, decoded.offset_seconds), (submission.from, submission.offset_seconds));
        prop_assert_eq!(format!("{:?}", decoded.input), format!("{:?}", with_texts(submission.input)));
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes: Vec<u8>, json in "1 [{}\\[\\]\",:a-z0-9]{0,40}") {
        for bytes in [&bytes[..], json.as_bytes(), &[b"1 ", &bytes[..]].concat()] {
            let _ = (Submission::decode(bytes), Snapshot::decode(bytes).is_ok());
        }
    }

    /// Entries from an engine that others can write to, or from a newer version.
    #[test]
    fn no_damaged_entry_causes_a_panic(
        line: Index,
        at: Index,
        length in 0..9_usize,
        with in "[0-9\"{}\\[\\]:,a-z]{0,4}",
    ) {
        let line = line.get(&ENTRIES.lines().collect::<Vec<_>>()).to_owned();
        let mut bytes = line.as_bytes().to_vec();
        let start = at.index(bytes.len());
        bytes.splice(start..bytes.len().min(start + length), with.bytes());
        if let Ok(submission) = Submission::decode(&bytes) {
            exercise(busy_room(), vec![submission]);
        }
    }

    #[test]
    fn no_damaged_snapshot_causes_a_panic(
        changes in proptest::collection::vec((any::<Index>(), any::<u64>(), 0..4_usize), 1..4),
    ) {
        let mut snapshot = SNAPSHOT.trim_end().to_owned();
        for (at, number, change) in changes {
            let numbers: Vec<(usize, &str)> = snapshot.match_indices(|c: char| c.is_ascii_digit()).skip(1).collect();
            let (start, _) = *at.get(&numbers);
            let end = start + snapshot[start..].bytes().take_while(u8::is_ascii_digit).count();
            let with = [number.to_string(), (number % 20).to_string(), "0".into(), u64::MAX.to_string()];
            snapshot.replace_range(start..end, &with[change]);
        }
        if let Ok(Ok(room)) = Snapshot::decode(snapshot.as_bytes()).map(Room::from_snapshot) {
            exercise(room, Vec::new());
        }
    }
}
