//! Scripts of moderation: every rule and every message.

use std::net::IpAddr;

use super::*;
use crate::chat::bans::{MAX_BANS, MAX_REASON_BYTES};
use crate::chat::format::Format;
use crate::chat::history::MAX_DELETIONS;
use crate::chat::time_outs::{MAX_SECONDS, MAX_TIMEOUTS};

/// Ann, a moderator, at 10.0.0.1, and these members at 10.0.0.2, 10.0.0.3 …
fn moderated(names: &[&str]) -> Script {
    let mut all = vec!["Ann"];
    all.extend(names);
    let mut script = Script::with(&all);
    script.command(1, "/login secret");
    script.wait(1.0);
    script.received.clear();
    script.recorded.clear();
    script
}

impl Script {
    /// A connection from this address.
    fn connect_from(&mut self, number: u64, text: &str) {
        let network = text.parse::<IpAddr>().unwrap().into();
        let address = Address { network, is_exempt: false };
        self.guests.connected(ConnectionId(number), address, self.time().chat);
    }

    fn join_from(&mut self, number: u64, name: &str, address: &str) {
        self.connect_from(number, address);
        self.join(number, name);
    }

    /// Sends a command, and returns what its sender receives.
    fn answer(&mut self, number: u64, content: &str) -> Vec<String> {
        self.received.clear();
        self.command(number, content);
        self.received(number)
    }

    /// The same for a command that has one answer.
    fn reply(&mut self, number: u64, content: &str) -> String {
        let lines = self.answer(number, content);
        assert_eq!(lines.len(), 1, "{content}: {lines:?}");
        lines[0].clone()
    }

    /// The `deleted` that a client has received, all of them before the answer to its join.
    fn deleted_before_answer(&mut self, number: u64) -> Vec<String> {
        let lines = self.received(number);
        let is_deleted = |line: &&String| line.starts_with("deleted ");
        let answer = lines.iter().position(|line| line.starts_with("history")).unwrap();
        assert!(!lines[answer..].iter().any(|line| is_deleted(&line)), "{lines:?}");
        lines.iter().filter(is_deleted).cloned().collect()
    }

    fn set_role(&mut self, number: u64, role: Role) {
        let order = self.room.roster.by_connection(ConnectionId(number)).unwrap().order;
        self.room.roster.get_mut(order).unwrap().role = role;
    }

    fn is_member(&self, number: u64) -> bool {
        self.room.roster.by_connection(ConnectionId(number)).is_some()
    }

    /// Lets the decisions that wait take effect.
    fn decide_all(&mut self, outcome: Outcome) {
        for decision in std::mem::take(&mut self.waiting) {
            self.input(decision.connection.0, Input::Decided(decision.into(), outcome));
        }
    }

    fn subjects(&self) -> Vec<String> {
        self.room.bans.iter().map(|ban| ban.subject()).collect()
    }
}

#[test]
fn only_moderators_may_moderate() {
    let mut script = Script::with(&["Ann", "Bob"]);
    for row in COMMANDS {
        let text = format!("{} Bob 1", row.name);
        let refusal = format!("error: Only moderators may use {}: see /login.", row.name);
        let parsed =
            Command::parse(&text).or(Command::parse(row.name)).or(Command::parse("/delete 1")).unwrap();
        assert_eq!(parsed.row(), row, "{text}");
        script.received.clear();
        script.send(1, None, Body::Command(Ok(parsed)));
        assert_eq!(script.received(1).contains(&refusal), row.role > Role::Member, "{text}");
    }
    assert_eq!(script.room.members(), 2);
    assert!(script.waiting.is_empty() && script.room.bans.len() == 0);
}

#[test]
fn a_time_out_can_be_ended() {
    let mut script = moderated(&["Bob"]);
    assert_eq!(script.answer(1, "/to Bob 60"), ["system: Ann timed out Bob for 60 seconds."]);
    script.wait(1.0);
    assert_eq!(script.received(2)[1], "list: Ann mod, Bob timed out");
    for text in ["/unto Cid", "/unto \"Cid\" x"] {
        assert!(script.reply(1, text).ends_with(" is timed out."), "{text}");
    }
    assert_eq!(script.reply(1, "/unto Ann"), "error: Nobody called Ann is timed out.");
    assert_eq!(script.answer(1, "/unto \"bob\""), ["system: Ann ended the time-out of Bob."]);
    script.wait(1.0);
    assert_eq!(script.received(2), ["system: Ann ended the time-out of Bob.", "list: Ann mod, Bob"]);
    script.public(2, "hi");
    assert_eq!(script.received(1), ["list: Ann mod, Bob", "Bob: hi"]);
    // One who has left, and a name that looks the same.
    script.command(1, "/to Bob 60");
    script.input(2, Input::Disconnected(Departure::Left));
    assert_eq!(script.answer(1, "/unto Воb"), ["system: Ann ended the time-out of Bob."]);
    assert_eq!(script.room.timeouts.next_end(), None);
}

#[test]
fn leaving_does_not_end_a_time_out() {
    let mut script = moderated(&["Bob"]);
    script.command(1, "/to Bob 60");
    script.input(2, Input::Disconnected(Departure::Left));
    for (number, name) in [(3, "bob"), (4, "Воb")] {
        script.connect(number);
        script.join(number, name);
        script.received.clear();
        script.public(number, "hi");
        assert_eq!(script.received(number), ["system: You are timed out: 60 seconds left."], "{name}");
        script.input(number, Input::Disconnected(Departure::Left));
    }
}

#[test]
fn stored_time_outs_continue_after_a_start() {
    let now = time(Duration::ZERO).unix_millis;
    let stored = |name, until| StoredTimeOut { name: Username::parse(name).unwrap(), until };
    let time_outs = vec![
        stored("Bob", now + 90_000),
        stored("Cid", now),
        stored("Dan", now + 20_000),
        // Set after that, and longer than a time-out can be.
        stored("dan", u64::MAX),
    ];
    let mut script = Script::with_room(RoomSettings { time_outs, ..settings() });
    for (number, name) in [(1, "Bob"), (2, "Cid"), (3, "Dan")] {
        script.connect(number);
        script.join(number, name);
        script.received.clear();
        script.public(number, "hi");
        let seconds = [Some(90), None, Some(MAX_SECONDS)][number as usize - 1];
        let expected = seconds.map(|seconds| format!("system: You are timed out: {seconds} seconds left."));
        assert_eq!(script.received(number), expected.into_iter().collect::<Vec<_>>(), "{name}");
    }
    script.wait(91.0);
    script.public(1, "hi");
    assert!(script.received(2).contains(&"Bob: hi".into()));
}

#[test]
fn the_number_of_time_outs_is_limited() {
    let mut script = moderated(&["Bob", "Cid"]);
    script.command(1, "/to Bob 1000");
    let ends = script.time().chat + Duration::from_secs(1000);
    for number in 1..MAX_TIMEOUTS {
        script.room.timeouts.set(&Username::parse(&number.to_string()).unwrap(), ends);
    }
    assert_eq!(script.reply(1, "/to Cid 5"), "error: Too many users are already timed out.");
    assert_eq!(script.answer(1, "/to Bob 5"), ["system: Ann timed out Bob for 5 seconds."]);
}

#[test]
fn a_kick_removes_a_user_that_may_come_back() {
    let mut script = moderated(&["Bob", "Cid"]);
    script.command(1, "/kick Bob  too  loud\n\u{7}");
    let kicked = "system: Ann kicked Bob: too loud";
    assert_eq!(script.received(2), [kicked, "close: too loud"]);
    assert_eq!(script.received(1), [kicked, "system: Bob left."]);
    assert_eq!(script.received(3), [kicked, "system: Bob left."]);
    let Act { by, address, action, .. } = &script.recorded[0];
    assert_eq!((&**by, address.to_string()), ("Ann", "10.0.0.1".into()));
    assert!(
        matches!(action, Action::Kick { name, reason } if &**name.shown() == "Bob" && reason == "too loud")
    );
    // What still comes from it is ignored, and its name is free.
    script.public(2, "late");
    script.join(2, "Bob");
    assert_eq!(script.received(3), [""; 0]);
    script.join_from(4, "Bob", "10.0.0.2");
    assert!(script.is_member(4));
    script.lose(2);
    script.wait(1.0);
    assert_eq!(script.received(3), ["system: Bob joined.", "list: Ann mod, Cid, Bob"]);
    script.command(1, "/kick Cid");
    assert_eq!(script.received(3), ["system: Ann kicked Cid.", "close: kicked"]);
    // The line is kept.
    script.received.clear();
    script.json(1, json!({"type": "history"}));
    let history = script.received(1).remove(0);
    assert!(history.ends_with("Ann kicked Bob: too loud, system: Ann kicked Cid."), "{history}");
}

#[test]
fn a_kick_ends_the_session_of_a_member_that_is_away() {
    let mut script = moderated(&[]);
    let bob = script.asking(2, "Bob");
    script.lose(2);
    assert_eq!(script.answer(1, "/kick Bob"), ["system: Ann kicked Bob.", "system: Bob left."]);
    assert_eq!(script.room.away_members(), 0);
    script.resume(3, &bob, 1);
    assert!(script.received(3).contains(&"system: Bob joined.".into()), "an ordinary join");
}

#[test]
fn whom_nobody_can_remove() {
    let mut script = moderated(&["Bob", "Cid", "Dan"]);
    script.set_role(2, Role::Named);
    let refusal = "error: Bob is a named moderator, whom others cannot time out, kick or ban.";
    for text in ["/to Bob 5", "/kick Bob", "/ban Bob", "/ban \"Bob\" 1d spam"] {
        assert_eq!(script.reply(1, text), refusal, "{text}");
    }
    for text in ["/kick Ann", "/ban Ann"] {
        let verb = &text[1..text.len() - 4];
        assert_eq!(script.reply(1, text), format!("error: You cannot {verb} yourself."));
    }
    // Not by an address either.
    assert_eq!(script.answer(1, "/ban 10.0.0.2"), ["system: Banned 10.0.0.2.\nAlso affected: nobody."]);
    assert!(script.is_member(2));
    // Among themselves, they cannot either; a moderator that has logged in is removed.
    script.set_role(3, Role::Named);
    assert!(script.reply(2, "/kick Cid").starts_with("error: Cid is a named moderator"));
    script.set_role(4, Role::Moderator);
    script.command(1, "/kick Dan");
    assert!(!script.is_member(4));
}

/// Also with a session. A wrong password is no reason to stay connected.
#[test]
fn a_named_moderator_is_let_in_from_a_banned_address() {
    let mut script = Script::with_moderator("Meg", settings());
    script.join_from(1, "Ann", "10.0.0.1");
    script.command(1, "/login secret");
    script.command(1, "/ban 192.0.2.0/24");
    let mut join = |number, name, verdict, options: JoinOptions| {
        script.connect_from(number, "192.0.2.7");
        let body = Ok(Body::Join(Some(options.into())));
        let message = Ok(ClientMessage { username: username(name), txn_id: None, body });
        let access = Access { join: verdict, ..OPEN };
        let session = Some(session(7));
        script.input(number, Input::Message { message, access, session, guest: None });
        script.is_member(number)
    };
    assert!(!join(2, "Meg", Verdict::Wrong, JoinOptions::default()));
    assert!(!join(3, "Meg", Verdict::NotCompared, JoinOptions::default()));
    assert!(!join(4, "Bob", Verdict::Own, JoinOptions::default()));
    assert!(join(5, "Meg", Verdict::Own, JoinOptions::default()));
    let session = Some(session(7));
    assert!(join(6, "Meg", Verdict::NotCompared, JoinOptions { session, ..JoinOptions::default() }));
    for number in 2..5 {
        assert_eq!(script.received(number), ["error: You are banned.", "close: banned"]);
    }
    assert_eq!(script.guests.len(), 0);
}

#[test]
fn reserved_names_cannot_be_banned() {
    let mut script = Script::with_moderator("Paypal", settings());
    script.join_from(1, "Ann", "10.0.0.1");
    script.command(1, "/login secret");
    for name in ["Paypal", "PAYPAL", "раypal"] {
        assert_eq!(
            script.reply(1, &format!("/ban \"{name}\" 1d")),
            format!("error: {name} cannot be banned: the name belongs to a named moderator.")
        );
    }
    script.input(0, Input::Moderators(Vec::new()));
    assert!(script.answer(1, "/ban \"Paypal\" 1d")[0].starts_with("system: Ann banned Paypal for 1 d."));
}

#[test]
fn a_ban_removes_a_user_and_keeps_out_its_name_and_its_address() {
    let mut script = moderated(&["Bob", "Cid"]);
    let bob = script.asking(4, "Bob 2");
    script.command(1, "/ban Bob 2h  spam and  worse");
    let banned = "system: Ann banned Bob for 2 h: spam and worse";
    let until = "2026-11-28 14:00:00 UTC";
    let notice = format!("error: You are banned until {until}: spam and worse");
    assert_eq!(script.received(2), [banned, &notice, "close: spam and worse"]);
    assert_eq!(script.received(3), [banned, "system: Bob left."]);
    let reply = "system: Banned Bob and 10.0.0.2 for 2 h: spam and worse\nAlso affected: nobody.";
    assert_eq!(script.received(1), [banned, "system: Bob left.", reply]);
    for (number, name, address) in [
        (10, "Bob", "192.0.2.1"),
        (11, "bob", "192.0.2.1"),
        (12, "Воb", "192.0.2.1"),
        (13, "Eve", "10.0.0.2"),
        (14, "Eve", "::ffff:10.0.0.2"),
    ] {
        script.join_from(number, name, address);
        assert_eq!(script.received(number), [&notice, "close: spam and worse"], "{name} {address}");
        script.public(number, "hi");
    }
    assert_eq!(script.received(3), [""; 0]);
    // A first message with a name joins as well.
    script.connect_from(15, "10.0.0.2");
    script.send(15, username("Eve"), Body::Public { content: "hi".into() });
    assert_eq!(script.received(15), [&notice, "close: spam and worse"]);
    // By resuming a session from the banned address.
    script.lose(4);
    script.connect_from(16, "10.0.0.2");
    let options = Some(JoinOptions { session: Some(bob.session), ..JoinOptions::default() }.into());
    script.send(16, username("Bob 2"), Body::Join(options));
    assert_eq!(script.received(16), [&notice, "close: spam and worse"]);
    script.resume(17, &bob, 1);
    assert!(script.is_member(17), "from its own address it may");
    // The table that is published.
    let network = "10.0.0.2".parse::<IpAddr>().unwrap().into();
    let now = script.time().unix_millis;
    assert!(script.published.applying(None, network, now).is_some());
    // Others are let in.
    script.join_from(20, "Dan", "10.0.0.20");
    assert!(script.is_member(20));
}

#[test]
fn guests_that_were_connected_before_a_ban_are_refused() {
    let mut script = moderated(&["Bob"]);
    script.connect_from(5, "10.0.0.2");
    script.command(1, "/ban Bob");
    script.join(5, "Eve");
    assert_eq!(script.received(5), ["error: You are banned.", "close: banned"]);
    assert_eq!(script.guests.len(), 0);
}

#[test]
fn a_ban_removes_all_that_it_applies_to() {
    let mut script = moderated(&["Bob"]);
    script.join_from(3, "Cid", "10.0.0.2");
    script.join_from(4, "Dan", "192.0.2.4");
    script.connect_from(5, "10.0.0.2");
    let eve = Resumable { name: "Eve", session: session(5) };
    let options = Some(JoinOptions { session: Some(eve.session), ..JoinOptions::default() }.into());
    let body = Ok(Body::Join(options));
    let join = Ok(ClientMessage { username: username("Eve"), txn_id: None, body });
    script.input(5, Input::Message { message: join, access: OPEN, session: Some(eve.session), guest: None });
    script.lose(5);
    script.received.clear();
    script.command(1, "/ban Bob");
    let banned = "system: Ann banned Bob, Cid, Eve.";
    let left = ["Bob", "Cid", "Eve"].map(|name| format!("system: {name} left."));
    assert_eq!(script.received(4), [&[banned.into()], &left[..]].concat());
    assert_eq!(script.received(3).last().unwrap(), "close: banned");
    assert_eq!(
        script.received(1).last().unwrap(),
        "system: Banned Bob and 10.0.0.2.\nAlso affected: Cid, Eve."
    );
    assert_eq!((script.room.members(), script.room.away_members()), (2, 0));
    // Its session has ended with its place.
    script.resume(6, &eve, 1);
    assert!(script.received(6).contains(&"system: Eve joined.".into()));
}

#[test]
fn a_line_names_a_limited_number_of_members() {
    let mut script = moderated(&[]);
    for number in 0..25 {
        script.join_from(100 + number, &format!("Bot {number}"), "192.0.2.9");
    }
    script.received.clear();
    script.command(1, "/ban 192.0.2.0/24 flood");
    let line = script.received(1).remove(0);
    assert!(
        line.starts_with("system: Ann banned Bot 0, Bot 1, ") && line.ends_with("Bot 19 and 5 more: flood")
    );
    assert_eq!(script.room.members(), 1);
}

#[test]
fn an_address_or_a_network_can_be_banned() {
    let mut script = moderated(&["Bob"]);
    let cid = "2001:db8:0:7::1";
    script.join_from(3, "Cid", cid);
    script.received.clear();
    // Nobody is told if nobody is removed, and addresses are only told to the moderator.
    assert_eq!(
        script.answer(1, "/ban 192.0.2.7/24 1d"),
        ["system: Banned 192.0.2.0/24 for 1 d.\nAlso affected: nobody."]
    );
    assert_eq!(script.received(2), [""; 0]);
    script.command(1, "/ban 2001:db8:0:7:ffff::9 30m spam");
    assert_eq!(script.received(2), ["system: Ann banned Cid for 30 m: spam", "system: Cid left."]);
    assert_eq!(
        script.received(1).last().unwrap(),
        "system: Banned 2001:db8:0:7::/64 for 30 m: spam\nAlso affected: Cid."
    );
    for (number, address, is_banned) in [
        (10, "192.0.2.200", true),
        (11, "192.0.3.1", false),
        (12, "2001:db8:0:7:8000::1", true),
        (13, "2001:db8:0:8::1", false),
        (14, "::ffff:192.0.2.9", true),
    ] {
        script.join_from(number, &format!("Eve {number}"), address);
        assert_eq!(script.is_member(number), !is_banned, "{address}");
    }
    // Cid's name is not banned.
    script.join_from(20, "Cid", "10.0.0.20");
    assert!(script.is_member(20));
    assert_eq!(
        script.reply(1, "/ban 10.0.0.0/15"),
        "error: 10.0.0.0/15 is too wide: at most a /16, or a /32 for IPv6, can be banned."
    );
    for (text, shown) in [("10.0.0.1", "10.0.0.1"), ("10.0.0.0/24", "10.0.0.0/24")] {
        assert_eq!(
            script.reply(1, &format!("/ban {text}")),
            format!("error: {shown} cannot be banned: it contains your own address.")
        );
    }
    script.set_role(1, Role::Named);
    assert!(script.answer(1, "/ban 10.0.0.0/24")[0].contains("banned Bob, Cid"));
    assert!(script.is_member(1), "a named moderator may ban its own address");
}

#[test]
fn loopback_and_proxies_cannot_be_banned() {
    let proxies = vec!["10.0.0.9/32".parse().unwrap(), "2001:db8::5/128".parse().unwrap()];
    let mut script = Script::with_room(RoomSettings { proxies, ..settings() });
    script.join_from(1, "Ann", "10.0.0.1");
    script.command(1, "/login secret");
    for text in
        ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.0/16", "10.0.0.9", "10.0.0.0/24", "2001:db8::1"]
    {
        let reply = script.reply(1, &format!("/ban {text}"));
        assert!(reply.ends_with(" cannot be banned: it contains loopback or a trusted proxy."), "{reply}");
    }
    // Users there are banned by name only, and the moderator is told why.
    for (number, name, address, why) in [
        (2, "Bob", "127.0.0.1", "the address is loopback or a trusted proxy"),
        (3, "Cid", "10.0.0.9", "the address is loopback or a trusted proxy"),
        (4, "Dan", "10.0.0.1", "the address is your own"),
    ] {
        script.join_from(number, name, address);
        let lines = script.answer(1, &format!("/ban {name}"));
        let reply =
            format!("system: Banned {name}.\nAlso affected: nobody.\nOnly the name is banned: {why}.");
        assert_eq!(lines.last(), Some(&reply));
        assert!(!script.is_member(number));
        script.join_from(number + 10, "Eve", address);
        assert!(script.is_member(number + 10), "{address}");
        script.input(number + 10, Input::Disconnected(Departure::Left));
        script.join_from(number + 20, name, "192.0.2.1");
        assert!(!script.is_member(number + 20), "{name}");
    }
}

#[test]
fn a_stored_ban_does_not_apply_to_what_is_now_a_proxy() {
    let ban = |id, network: &str| Ban {
        id,
        name: None,
        network: Some(network.parse().unwrap()),
        by: "Ann".into(),
        since: 0,
        until: None,
        reason: "spam".into(),
    };
    let proxies = vec!["192.0.2.9/32".parse().unwrap()];
    let bans = vec![ban(1, "192.0.2.0/24"), ban(2, "198.51.100.1/32")];
    let mut script = Script::with_room(RoomSettings { proxies, bans, ..settings() });
    for (number, address, is_banned) in [
        (1, "192.0.2.9", false),
        (2, "192.0.2.8", true),
        (3, "198.51.100.1", true),
        (4, "198.51.100.2", false),
    ] {
        script.join_from(number, &format!("Eve {number}"), address);
        assert_eq!(script.is_member(number), !is_banned, "{address}");
    }
}

#[test]
fn a_name_that_is_not_present_is_banned_in_quotes() {
    let mut script = moderated(&["Bob"]);
    assert_eq!(
        script.reply(1, "/ban Eve 1d"),
        "error: Nobody here is called Eve. To ban a name that is not here, put it in quotes: /ban \"Eve\" …"
    );
    let lines = script.answer(1, "/ban \"Eve Lee\" 1d spam");
    let reply = "system: Banned Eve Lee for 1 d: spam\nAlso affected: nobody.\nOnly the name is banned.";
    assert_eq!(lines, ["system: Ann banned Eve Lee for 1 d: spam", reply]);
    script.join_from(3, "eve lee", "192.0.2.1");
    assert!(!script.is_member(3));
    script.join_from(4, "Eve", "192.0.2.1");
    assert!(script.is_member(4));
    assert!(script.reply(1, "/ban \"System\"").contains("are reserved"));
    assert!(script.reply(1, "/ban \"\"").ends_with("must not be blank."));
    script.join_from(5, "Bob I", "192.0.2.5");
    let reply = script.reply(1, "/ban Bob I 1d");
    assert!(
        reply.starts_with("error: This begins with the names of several users: \"Bob I\", \"Bob\"."),
        "{reply}"
    );
}

#[test]
fn durations_and_reasons_are_checked() {
    let mut script = moderated(&["Bob"]);
    for duration in ["0s", "3651d", "99999999999999999999w"] {
        assert_eq!(
            script.reply(1, &format!("/ban Bob {duration}")),
            "error: A duration is at least 1s and at most 10 years, as in 30m, 12h, 7d or 4w. A reason must not begin with a digit."
        );
    }
    let long = "x".repeat(MAX_REASON_BYTES + 1);
    for text in ["/ban Bob", "/ban Bob 1d", "/ban 192.0.2.1", "/kick Bob"] {
        assert_eq!(
            script.reply(1, &format!("{text} {long}")),
            format!("error: The reason must not be longer than {MAX_REASON_BYTES} bytes.")
        );
    }
    script.command(1, &format!("/ban Bob 3650d {}", &long[1..]));
    let lines = script.received(2);
    assert!(lines[1].starts_with("error: You are banned until 2036-11-25 12:00:00 UTC: xxx"), "{lines:?}");
    assert_eq!(lines[2].len(), "close: ".len() + 123);
}

#[test]
fn a_ban_ends_when_its_time_is_over() {
    let mut script = moderated(&["Bob"]);
    script.command(1, "/ban Bob 1s");
    let until = script.room.bans.iter().next().unwrap().until.unwrap();
    let at = |script: &mut Script, number, unix_millis| {
        script.connect_from(number, "10.0.0.2");
        script.last_id += 1;
        let time = EntryTime { unix_millis, ..script.time() };
        let (message, guest) =
            (ClientMessage::parse(r#"{"type":"join","username":"Bob"}"#), script.guest(number));
        let input = Input::Message { message, access: OPEN, session: None, guest };
        let entry = Entry { id: script.last_id, time: &time, from: ConnectionId(number), input };
        let effects = script.room.apply(entry, NodeNumber::LOCAL);
        script.apply(effects);
        script.is_member(number)
    };
    assert!(!at(&mut script, 5, until - 1));
    assert_eq!(script.published.len(), 1);
    assert!(at(&mut script, 6, until));
    assert_eq!((script.room.bans.len(), script.published.len()), (0, 0));
}

#[test]
fn a_ban_replaces_an_earlier_one_and_can_be_ended() {
    let mut script = moderated(&["Bob"]);
    script.command(1, "/ban Bob 1d");
    let lines = script.answer(1, "/ban \"bob\" 2d");
    assert!(lines[1].contains("\nThis replaces the ban of Bob."), "{lines:?}");
    assert_eq!(script.subjects(), ["bob", "10.0.0.2"]);
    assert_eq!(script.reply(1, "/unban 10.0.0.2"), "system: The ban of 10.0.0.2 has ended.");
    script.command(1, "/ban 192.0.2.0/24 1d");
    let lines = script.answer(1, "/ban 192.0.2.0/24 5d");
    assert!(lines[0].contains("This replaces the ban of 192.0.2.0/24."), "{lines:?}");
    assert_eq!(script.room.bans.len(), 2);
    for text in ["Cid", "192.0.2.0/25", "192.0.2.1", "\"192.0.2.0/24\""] {
        let target = text.replace('"', "");
        let expected = format!("error: There is no ban of {target}: /bans lists the bans.");
        assert_eq!(script.reply(1, &format!("/unban {text}")), expected);
    }
    assert!(script.reply(1, "/unban 10.0.0.0/8").contains("is too wide"));
    assert_eq!(script.reply(1, "/unban ::ffff:192.0.2.5/120"), "system: The ban of 192.0.2.0/24 has ended.");
    assert_eq!(script.reply(1, "/unban Воb"), "system: The ban of bob has ended.");
    assert_eq!((script.room.bans.len(), script.published.len()), (0, 0));
    script.join_from(5, "Bob", "10.0.0.2");
    assert!(script.is_member(5));
}

#[test]
fn the_number_of_bans_is_limited() {
    let ban = |id: u64| Ban {
        id,
        name: Username::parse(&format!("Bot {id}")).ok(),
        network: None,
        by: "Ann".into(),
        since: 0,
        until: None,
        reason: "spam".into(),
    };
    let bans = (0..MAX_BANS as u64).map(ban).collect();
    let mut script = Script::with_room(RoomSettings { bans, ..settings() });
    script.last_id = 1_000_000;
    script.join_from(1, "Ann", "10.0.0.1");
    script.command(1, "/login secret");
    let full = "error: There are already 10000 bans: end some with /unban first.";
    assert_eq!(script.reply(1, "/ban \"Bob\""), full);
    assert!(
        script.answer(1, "/ban \"bot 7\" 1d")[0].starts_with("system: Ann banned bot 7"),
        "it replaces one"
    );
    let list = script.reply(1, "/bans");
    assert!(list.starts_with("system: Bans: 10000.\nbot 7, by Ann on "), "{list}");
    assert!(list.ends_with(" earlier ones.") && list.len() < 7000);
    script.command(1, "/unban Bot 8");
    assert!(script.answer(1, "/ban \"Bob\"")[0].starts_with("system: Ann banned Bob."));
}

#[test]
fn bans_and_info_are_shown_to_the_moderator() {
    let mut script = moderated(&["Bob", "Cid"]);
    assert_eq!(script.reply(1, "/bans"), "system: Bans: 0.");
    script.command(1, "/ban 192.0.2.0/24 1d spam");
    script.command(1, "/ban \"Eve\"");
    let at = "2026-11-28 12:00:00 UTC";
    assert_eq!(
        script.reply(1, "/bans"),
        format!(
            "system: Bans: 2.\nEve, by Ann on {at}, forever.\n\
             192.0.2.0/24, by Ann on {at}, until 2026-11-29 12:00:00 UTC: spam"
        )
    );
    assert_eq!(script.received(2).len(), 0);
    assert_eq!(script.reply(1, "/info bob"), format!("system: Bob: member, from 10.0.0.2, here since {at}."));
    script.command(1, "/to Bob 60");
    script.set_role(3, Role::Named);
    script.command(3, "/ban 10.0.0.3 mine");
    assert_eq!(
        script.reply(1, "/info \"Bob\""),
        format!("system: Bob: member, from 10.0.0.2, here since {at}.\nTimed out: 60 seconds left.")
    );
    assert_eq!(
        script.reply(1, "/info Cid"),
        format!(
            "system: Cid: named moderator, from 10.0.0.3, here since {at}.\nA ban applies: 10.0.0.3: mine"
        )
    );
    assert_eq!(script.reply(1, "/info Eve"), "error: Nobody here is called Eve.");
    script.asking(4, "Dan");
    script.lose(4);
    assert!(script.reply(1, "/info Dan").starts_with("system: Dan: member, away, from 10.0.0.4, "));
}

#[test]
fn own_messages_can_be_deleted() {
    let mut script = Script::with(&["Ann", "Bob"]);
    script.asking(3, "Cid");
    script.public(2, "oops");
    let id = script.last_id;
    script.received.clear();
    let refusal = format!("error: There is no message of yours with the id {id}.");
    assert_eq!(script.reply(1, &format!("/delete {id}")), refusal);
    assert_eq!(script.reply(2, &format!("/delete {id}")), format!("system: The message {id} was deleted."));
    assert_eq!(script.received(1), [""; 0], "it did not ask");
    assert_eq!(script.received(3), [format!("deleted {id}")]);
    assert_eq!(script.reply(2, &format!("/delete {id}")), refusal);
    script.json(3, json!({"type": "history"}));
    assert_eq!(script.received(3), ["history: "]);
    // Not those of an earlier owner of the name.
    script.public(2, "again");
    let id = script.last_id;
    script.input(2, Input::Disconnected(Departure::Left));
    script.join_from(4, "Bob", "10.0.0.4");
    assert!(script.reply(4, &format!("/delete {id}")).starts_with("error: There is no message of yours"));
}

#[test]
fn moderators_can_delete_all_but_whispers() {
    let mut script = moderated(&["Bob"]);
    let _cid = script.asking(3, "Cid");
    script.public(2, "spam");
    let public = script.last_id;
    script.command(1, "/to Bob 1");
    let system = script.last_id;
    script.wait(2.0);
    script.command(2, "/whisper Cid psst");
    let whisper = script.last_id;
    script.received.clear();
    for id in [public, system] {
        script.command(1, &format!("/delete {id}"));
        assert_eq!(script.received(3), [format!("deleted {id}")]);
        assert_eq!(script.received(1), [format!("system: The message {id} was deleted.")]);
    }
    for id in [whisper, script.last_id + 99] {
        assert_eq!(
            script.reply(1, &format!("/delete {id}")),
            format!("error: There is no message with the id {id}.")
        );
    }
    // Its author can. Only those who saw it are told.
    script.asking(4, "Dan");
    script.command(2, &format!("/delete {whisper}"));
    assert_eq!(script.received(3), [format!("deleted {whisper}")]);
    assert_eq!(script.received(4), [""; 0]);
    script.json(3, json!({"type": "history"}));
    let history = script.received(3).remove(0);
    assert!(!history.contains("spam") && !history.contains("psst"), "{history}");
    // One that is in the store only.
    script.outcome = Some(Outcome::Stored);
    script.command(1, "/delete 1");
    assert_eq!(script.received(4), ["deleted 1"]);
    script.outcome = Some(Outcome::NotFound);
    assert_eq!(script.reply(1, "/delete 1"), "error: There is no message with the id 1.");
}

#[test]
fn a_deleted_whisper_no_longer_waits() {
    let mut script = Script::with(&["Ann"]);
    let bob = script.asking(2, "Bob");
    let since = script.last_id;
    script.lose(2);
    script.command(1, "/whisper Bob one");
    let id = script.last_id;
    script.command(1, "/whisper Bob two");
    script.command(1, &format!("/delete {id}"));
    script.received.clear();
    script.resume(3, &bob, since);
    assert_eq!(script.received(3)[2], "history recovered: Ann to Bob: two");
    script.lose(3);
    // The same if it is no longer in the history.
    script.command(1, "/whisper Bob three");
    let id = script.last_id;
    assert!(script.room.history.remove(id).is_some());
    script.command(1, &format!("/delete {id}"));
    script.wait(60.0);
    let lines = script.received(1);
    assert!(!lines.iter().any(|line| line.contains("without receiving")), "{lines:?}");
}

/// A client that was not connected went on displaying the message.
#[test]
fn who_was_not_connected_is_told_of_deletions_later() {
    let mut script = moderated(&[]);
    let bob = script.asking(2, "Bob");
    let [one, two, three] = ["one", "two", "three"].map(|content| {
        script.public(1, content);
        script.last_id
    });
    script.lose(2);
    script.public(1, "four");
    let four = script.last_id;
    for id in [two, one, four] {
        script.command(1, &format!("/delete {id}"));
    }
    // Before the answer: whoever has that has everything up to its id. Bob has not received the last one.
    let last = script.last_id;
    script.resume(3, &bob, three);
    let told = [format!("deleted {two}"), format!("deleted {one}")];
    assert_eq!(script.deleted_before_answer(3), told);
    script.lose(3);
    script.resume(4, &bob, last);
    assert_eq!(script.deleted_before_answer(4), [""; 0], "it was told before");
    // Whoever has lost its place is told as well.
    let dan = Resumable { session: session(9), name: "Dan" };
    script.resume(5, &dan, one);
    assert_eq!(script.deleted_before_answer(5), told[1..]);
    script.lose(5);
    for (epoch, id) in [("another", one), ("an epoch", script.last_id + 99)] {
        let since = Some(Position { epoch: epoch.into(), id });
        script.join_with(6, &dan, JoinOptions { since, ..JoinOptions::default() });
        assert_eq!(script.deleted_before_answer(6), [""; 0], "these ids mean nothing here");
        script.lose(6);
    }
}

#[test]
fn only_the_members_of_a_whisper_are_told_later_that_it_was_deleted() {
    let mut script = moderated(&[]);
    let (bob, cid) = (script.asking(2, "Bob"), script.asking(3, "Cid"));
    script.command(1, "/whisper Bob psst");
    let whisper = script.last_id;
    script.lose(2);
    script.lose(3);
    script.command(1, &format!("/delete {whisper}"));
    script.resume(4, &bob, whisper);
    assert_eq!(script.deleted_before_answer(4), [format!("deleted {whisper}")]);
    script.resume(5, &cid, whisper);
    assert_eq!(script.deleted_before_answer(5), [""; 0]);
}

#[test]
fn the_last_deletions_are_remembered() {
    let mut script = moderated(&[]);
    let bob = script.asking(2, "Bob");
    let first = script.last_id + 1;
    (0..=MAX_DELETIONS).for_each(|_| script.public(1, "spam"));
    let last = script.last_id;
    script.lose(2);
    (first..=last).for_each(|id| script.command(1, &format!("/delete {id}")));
    script.resume(3, &bob, last);
    let deleted: Vec<String> = (first + 1..=last).map(|id| format!("deleted {id}")).collect();
    assert!(deleted.len() == MAX_DELETIONS && script.deleted_before_answer(3) == deleted);
}

#[test]
fn a_decision_takes_effect_when_it_is_stored() {
    let mut script = Script::with(&["Bob"]);
    let _ann = script.asking(2, "Ann");
    script.command(2, "/login secret");
    script.wait(1.0);
    script.received.clear();
    script.outcome = None;
    script.json(2, json!({"type": "command", "content": "/to Bob 60", "txn_id": "a"}));
    script.json(2, json!({"type": "command", "content": "/ban Bob 1h", "txn_id": "b"}));
    script.public(1, "still here");
    assert_eq!(script.received(2), ["Bob: still here"], "nobody is told, and there is no ack");
    script.decide_all(Outcome::Stored);
    let lines = script.received(2);
    let id = script.last_id;
    assert_eq!(
        lines,
        [
            "system: Ann timed out Bob for 60 seconds.",
            &format!("ack a {}", id - 1),
            "system: Ann banned Bob for 1 h.",
            "system: Bob left.",
            "system: Banned Bob and 10.0.0.1 for 1 h.\nAlso affected: nobody.",
            &format!("ack b {id}"),
        ]
    );
    // Refused at once.
    script.json(2, json!({"type": "command", "content": "/ban Bob", "txn_id": "c"}));
    assert!(script.received(2)[0].starts_with("error for c: Nobody here is called Bob."));
}

#[test]
fn the_moderator_is_told_if_a_decision_is_not_stored() {
    let mut script = moderated(&["Bob"]);
    let _dan = script.asking(4, "Dan");
    script.set_role(4, Role::Moderator);
    script.outcome = Some(Outcome::NotStored);
    script.json(4, json!({"type": "command", "content": "/to Bob 60", "txn_id": "a"}));
    let warning = "system: This could not be stored: it ends when the server restarts.";
    let id = script.last_id;
    assert_eq!(
        script.received(4),
        ["system: Dan timed out Bob for 60 seconds.", warning, &format!("ack a {id}")]
    );
    assert_eq!(script.received(1), ["system: Dan timed out Bob for 60 seconds."]);
    // A deletion that the store does not find.
    script.outcome = Some(Outcome::NotFound);
    script.json(4, json!({"type": "command", "content": "/delete 1", "txn_id": "b"}));
    assert_eq!(script.received(4), ["error for b: There is no message with the id 1."]);
}

/// It was answered as if it had been deleted.
#[test]
fn a_message_that_does_not_exist_is_not_deleted_while_the_disk_fails() {
    let history = HistoryLimits { messages: 1000, age_millis: None };
    let stored = Some(StoredHistory { newest_older: Some(5), ..StoredHistory::default() });
    let mut script = Script::with_room(RoomSettings { stored, history, ..settings() });
    script.last_id = 100;
    script.connect(1);
    script.join(1, "Ann");
    script.command(1, "/login secret");
    script.public(1, "hello");
    let held = script.last_id;
    script.outcome = Some(Outcome::NotStored);
    for (id, is_deleted) in
        [(held, true), (held, false), (held - 2, false), (6, false), (5, true), (5, false), (4, true)]
    {
        let lines = script.answer(1, &format!("/delete {id}"));
        let answer = if is_deleted {
            format!("system: The message {id} was deleted.")
        } else {
            format!("error: There is no message with the id {id}.")
        };
        assert_eq!((&lines[0], lines.len()), (&answer, 1 + usize::from(is_deleted)), "{lines:?}");
    }
}

/// Only the moderator's server knows what its store may have.
#[test]
fn a_deletion_that_is_not_stored_is_the_same_on_a_server_without_a_store() {
    let history = HistoryLimits { messages: 1000, age_millis: None };
    let stored = Some(StoredHistory { newest_older: Some(5), ..StoredHistory::default() });
    let mut script = Script::with_room(RoomSettings { stored, history, ..settings() });
    script.last_id = 100;
    script.connect(1);
    script.join(1, "Ann");
    script.command(1, "/login secret");
    script.outcome = None;
    script.command(1, "/delete 5");
    let mut other = Room::from_snapshot(script.room.snapshot()).unwrap();
    let decision = script.waiting.remove(0);
    let outcome = script.room.not_stored(&decision);
    assert_eq!(outcome, Outcome::NotStored);
    let input = || Input::Decided(decision.clone().into(), outcome);
    let entry = Entry { id: script.last_id + 1, time: &script.time(), from: ConnectionId(1), input: input() };
    other.apply(entry, NodeNumber::LOCAL);
    script.input(1, input());
    assert!(other.history.was_deleted(5));
    assert_eq!(other.snapshot().encode(Format::NEWEST), script.room.snapshot().encode(Format::NEWEST));
}

#[test]
fn a_decision_takes_effect_even_if_its_moderator_has_left() {
    let mut script = moderated(&["Bob", "Cid"]);
    script.outcome = None;
    script.command(1, "/ban Bob");
    script.command(1, "/delete 1");
    script.input(1, Input::Disconnected(Departure::Left));
    script.received.clear();
    script.decide_all(Outcome::NotFound);
    assert_eq!(script.received(3), ["system: Ann banned Bob.", "system: Bob left."]);
    assert_eq!(script.received(1), [""; 0]);
    // A time-out that is over by the time that it is stored.
    let mut script = moderated(&["Bob"]);
    script.outcome = None;
    script.command(1, "/to Bob 5");
    for decision in [&mut script.waiting[0], &mut script.room.undecided[0]] {
        let Action::TimeOut { until, .. } = &mut decision.act.action else { panic!() };
        *until -= 5000;
    }
    script.decide_all(Outcome::Stored);
    script.wait(0.1);
    script.received.clear();
    script.public(2, "hi");
    assert_eq!(script.received(1), ["Bob: hi"]);
}

#[test]
fn a_moderator_that_is_timed_out_cannot_moderate() {
    let mut script = moderated(&["Bob"]);
    script.command(1, "/to Ann 60");
    assert_eq!(script.reply(1, "/kick Bob"), "system: You are timed out: 60 seconds left.");
    assert!(script.is_member(2));
}
