//! The list of people in the chat page, their menus and the dialogs of moderators. The test speaks the server's side.

use serde_json::{Value, json};

use crate::support::chat_page::{
    BACKSPACE, IS_MENU_OPEN, MENU_ITEMS, SELECT_ALL, assert_empty_console, choose, open_menu_of,
};
use crate::support::scripted::{Peer, ScriptedServer, public};
use crate::support::webdriver::{Browser, DOWN, Driver, ENTER, ESCAPE, SHIFT, TAB, UP, axe_core};

const END: &str = "\u{e010}";
const HOME: &str = "\u{e011}";
/// The browser renders no text of people that are not visible, so it is not their `innerText`.
const NAMES: &str = "[...document.querySelectorAll('#member-list .name')].map((name) => name.textContent)";
const FOCUSED: &str = "document.activeElement.dataset.name";

/// A person in the list; the words after the name are `mod`, `away` or `muted` (timed out).
fn person(name: &str, words: &str) -> Value {
    let has = |word| words.contains(word);
    json!({"username": name, "is_mod": has("mod"), "is_timed_out": has("muted"), "is_away": has("away")})
}

fn send_list(peer: &Peer, people: &[Value]) {
    peer.send(json!({"type": "user_list", "content": people, "timestamp": "12:00:00"}));
}

/// Opens the page, and joins as Ann, who then is the last of these people.
fn enter(server: &ScriptedServer, browser: &Browser, people: &[Value]) -> Peer {
    browser.open(&server.url());
    browser.wait_for("document.activeElement.id === 'name'");
    browser.type_into("#name", &format!("Ann{ENTER}"));
    let peer = server.accept();
    peer.next_join();
    let messages = [public(60, "Bob \"B\" Lee", "hello"), public(61, "Zoe", "I have left")];
    peer.admit_with(&["Ann"], &json!({}), &messages, false);
    send_list(&peer, people);
    wait_for_names(browser, people.len());
    peer
}

fn wait_for_names(browser: &Browser, count: usize) {
    browser.wait_for(&format!("document.querySelector('#member-count').innerText === '{count}'"));
}

/// Ann, who is a moderator, and three others.
fn small_room() -> Vec<Value> {
    vec![person("Bob \"B\" Lee", ""), person("Éva", "mod"), person("Tom", "muted"), person("Ann", "mod")]
}

#[test]
fn people_are_listed_in_a_useful_order() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let people = [
        person("tom", ""),
        person("Fay", "away"),
        person("Éva", "muted"),
        person("Dan 10", ""),
        person("Dan 9", ""),
        person("Zoe", "mod"),
        person("Kim", "mod"),
        person("Ann", ""),
    ];
    let peer = enter(&server, &ann, &people);
    assert_eq!(ann.evaluate(NAMES), json!(["Ann", "Kim", "Zoe", "Dan 9", "Dan 10", "Éva", "Fay", "tom"]));
    let label = |name: &str| {
        ann.evaluate(&format!(
            "document.querySelector(\"button[data-name='{name}'] .badges\").textContent.trim()"
        ))
    };
    assert_eq!(
        [label("Ann"), label("Kim"), label("Éva"), label("Fay")],
        ["you", "moderator", "timed out", "away"]
    );
    let is_dimmed = |name: &str| {
        ann.evaluate(&format!(
            "getComputedStyle(document.querySelector(\"button[data-name='{name}'] .avatar\")).opacity < 1"
        ))
    };
    assert_eq!(["Éva", "Fay", "tom"].map(is_dimmed), [true, true, false]);

    // The list changes around the person that has the focus.
    ann.evaluate("document.querySelector(\"button[data-name='Fay']\").focus()");
    send_list(&peer, &[person("Fay", "mod"), person("Ben", ""), person("tom", ""), person("Ann", "")]);
    wait_for_names(&ann, 4);
    assert_eq!(ann.evaluate(NAMES), json!(["Ann", "Fay", "Ben", "tom"]));
    assert_eq!(ann.evaluate(FOCUSED), "Fay");
    send_list(
        &peer,
        &[person("Fay", ""), person("Ben", ""), person("Abe", ""), person("tom", ""), person("Ann", "")],
    );
    wait_for_names(&ann, 5);
    assert_eq!(ann.evaluate(NAMES), json!(["Ann", "Abe", "Ben", "Fay", "tom"]));
    assert_eq!(ann.evaluate(FOCUSED), "Fay");
    // If that person leaves, someone near gets it.
    send_list(&peer, &[person("Abe", ""), person("tom", ""), person("Ann", "")]);
    wait_for_names(&ann, 3);
    assert_eq!(ann.evaluate(FOCUSED), "tom");
    assert_empty_console(&ann);
}

#[test]
fn many_people_can_be_filtered() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    for browser in [driver.desktop(), driver.phone()] {
        let crowd = |count: usize| -> Vec<Value> {
            (1..count).map(|i| person(&format!("Pérson {i}"), "")).chain([person("Ann", "")]).collect()
        };
        let peer = enter(&server, &browser, &crowd(20));
        let is_filter_shown = "!document.querySelector('#member-filter').hidden";
        assert_eq!(browser.evaluate(is_filter_shown), false);
        send_list(&peer, &crowd(60));
        wait_for_names(&browser, 60);
        assert_eq!(browser.evaluate(is_filter_shown), true);
        if browser.evaluate("document.querySelector('#members-button').checkVisibility()") == true {
            browser.click("#members-button");
        }
        browser.type_into("#member-filter", "person 5");
        browser.wait_for(&format!("{NAMES}.length === 11"));
        assert_eq!(
            browser.evaluate(&format!("{NAMES}.slice(0, 3)")),
            json!(["Pérson 5", "Pérson 50", "Pérson 51"])
        );
        // It stays when the list changes, and finds those that are not shown otherwise.
        send_list(&peer, &crowd(800));
        browser.wait_for(&format!("{NAMES}.length === 111"));
        browser.type_into("#member-filter", "99");
        browser.wait_for(&format!("{NAMES}.join() === 'Pérson 599'"));
        browser.type_into("#member-filter", "x");
        browser.wait_for_text("#member-note", "No one by that name");
        browser.type_into("#member-filter", &format!("{SELECT_ALL}{BACKSPACE}"));
        browser.wait_for(&format!("{NAMES}.length === 500"));
        browser.wait_for_text("#member-note", "and 300 more");
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
        browser.click("#leave");
    }
}

#[test]
fn a_menu_is_used_with_the_keyboard() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = enter(&server, &ann, &small_room());
    // The list has one tab stop, after the filter if there is one.
    while ann.evaluate(FOCUSED) == Value::Null {
        ann.press(&[&format!("{SHIFT}{TAB}")]);
    }
    assert_eq!(ann.evaluate(FOCUSED), "Ann");
    ann.press(&[UP]);
    assert_eq!(ann.evaluate(FOCUSED), "Tom");
    ann.press(&[HOME, DOWN, DOWN]);
    assert_eq!(ann.evaluate(FOCUSED), "Bob \"B\" Lee");
    // The ring is inside the item, as `content-visibility` cuts off what is outside.
    let ring = ann.evaluate(
        "(({ outlineOffset, outlineWidth }) => parseFloat(outlineOffset) + parseFloat(outlineWidth)) \
         (getComputedStyle(document.activeElement))",
    );
    assert!(ring.as_f64().unwrap() <= 0.0, "{ring}");
    let focused_item = "document.activeElement.innerText";
    ann.press(&[ENTER]);
    ann.wait_for(IS_MENU_OPEN);
    assert_eq!(ann.evaluate(focused_item), "Whisper");
    ann.press(&[UP]);
    assert_eq!(ann.evaluate(focused_item), "Ban…");
    ann.press(&[DOWN, DOWN]);
    assert_eq!(ann.evaluate(focused_item), "Mention");
    ann.press(&[END]);
    assert_eq!(ann.evaluate(focused_item), "Ban…");
    ann.press(&[HOME]);
    assert_eq!(ann.evaluate(focused_item), "Whisper");
    ann.press(&[ESCAPE]);
    ann.wait_for(&format!("!{IS_MENU_OPEN}"));
    assert_eq!(ann.evaluate(FOCUSED), "Bob \"B\" Lee");
    // Tab closes it and moves on from there.
    ann.press(&[ENTER]);
    ann.wait_for(IS_MENU_OPEN);
    ann.press(&[TAB]);
    ann.wait_for(&format!("!{IS_MENU_OPEN}"));
    ann.press(&[&format!("{SHIFT}{TAB}")]);
    assert_eq!(ann.evaluate(FOCUSED), "Bob \"B\" Lee");
    ann.press(&[ENTER]);
    ann.wait_for(IS_MENU_OPEN);
    // A click elsewhere closes it.
    ann.click("#log");
    ann.wait_for(&format!("!{IS_MENU_OPEN}"));
    // If the person leaves meanwhile, the focus is not lost.
    open_menu_of(&ann, "Tom");
    send_list(&peer, &[person("Ann", "mod")]);
    wait_for_names(&ann, 1);
    ann.press(&[ESCAPE]);
    ann.wait_for("document.activeElement.id === 'message-input'");
    assert_empty_console(&ann);
}

#[test]
fn a_menu_stays_inside_a_small_window() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.phone();
    let size = json!({"width": 320, "height": 480, "deviceScaleFactor": 1, "mobile": true});
    ann.devtools("Emulation.setDeviceMetricsOverride", size);
    let people = [person("Ann", "mod"), person(&"W".repeat(32), "muted"), person("Tom", "")];
    enter(&server, &ann, &people);
    let is_inside = "(({ left, top, right, bottom }) => left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight)(document.querySelector('#menu').getBoundingClientRect())";
    for name in [&"W".repeat(32), "Tom"] {
        ann.click("#members-button");
        open_menu_of(&ann, name);
        assert_eq!(ann.evaluate(is_inside), true, "{name}");
        assert_eq!(ann.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
        assert_eq!(
            ann.evaluate(
                "[...document.querySelectorAll('#menu button')].every((item) => item.offsetHeight >= 40)"
            ),
            true
        );
        // Escape closes the menu, and then the list, which is a drawer here.
        ann.press(&[ESCAPE]);
        ann.wait_for(&format!("!{IS_MENU_OPEN} && document.querySelector('#members').checkVisibility()"));
        ann.press(&[ESCAPE]);
        ann.wait_for("!document.querySelector('#members').checkVisibility()");
    }
    // The answer to a command is in the log.
    open_menu_of(&ann, "Tom");
    choose(&ann, "Info");
    ann.wait_for("!document.querySelector('#members').checkVisibility() && document.activeElement.id === 'members-button'");
    assert_empty_console(&ann);
}

#[test]
fn a_menu_offers_what_the_server_would_accept() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let members = [person("Bob \"B\" Lee", ""), person("Éva", "mod"), person("Ann", "")];
    let peer = enter(&server, &ann, &members);
    let items_for = |name: &str| {
        open_menu_of(&ann, name);
        let items = ann.evaluate(MENU_ITEMS);
        ann.press(&[ESCAPE]);
        ann.wait_for(&format!("!{IS_MENU_OPEN}"));
        items
    };
    assert_eq!(items_for("Éva"), json!(["Whisper", "Mention", "Show whispers"]));
    assert_eq!(items_for("Ann"), json!(["Settings"]));
    send_list(&peer, &small_room());
    wait_for_names(&ann, 4);
    let all = ["Whisper", "Mention", "Show whispers", "Time out…", "Info", "Kick…", "Ban…"];
    assert_eq!(items_for("Éva"), json!(all));
    assert_eq!(
        items_for("Tom"),
        json!(["Whisper", "Mention", "Show whispers", "Time out…", "End time-out", "Info", "Kick…", "Ban…"])
    );
    assert_eq!(items_for("Ann"), json!(["Settings", "Info"]));

    open_menu_of(&ann, "Tom");
    choose(&ann, "Whisper");
    ann.wait_for("document.activeElement.id === 'message-input'");
    ann.press(&["h", "i", ENTER]);
    let whisper = peer.next();
    assert_eq!(
        (&whisper["type"], &whisper["to"], &whisper["content"]),
        (&json!("private"), &json!("Tom"), &json!("hi"))
    );
    open_menu_of(&ann, "Ann");
    choose(&ann, "Info");
    assert_eq!(peer.next()["content"], "/info \"Ann\"");
    peer.send(
        json!({"type": "system", "username": "System", "content": "Ann: 192.0.2.7", "timestamp": "12:00:00"}),
    );
    ann.wait_for_text("#log", "Ann: 192.0.2.7");
    open_menu_of(&ann, "Tom");
    choose(&ann, "End time-out");
    assert_eq!(peer.next()["content"], "/unto \"Tom\"");
    assert_empty_console(&ann);
}

#[test]
fn moderators_decide_in_dialogs() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = enter(&server, &ann, &small_room());
    let open = |name: &str, item: &str| {
        ann.evaluate(&format!("document.querySelector(`#member-list [data-name='{name}']`).focus()"));
        ann.press(&[ENTER]);
        ann.wait_for(IS_MENU_OPEN);
        choose(&ann, item);
        ann.wait_for("document.querySelector('dialog[open]')?.contains(document.activeElement)");
    };
    let select = |label: &str| {
        ann.evaluate(&format!(
            "(() => {{ const select = document.activeElement; \
             select.value = [...select.options].find((option) => option.label === '{label}').value; \
             select.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()"
        ))
    };
    let bob = "Bob \"B\" Lee";

    // The first field has the focus, and Enter is enough.
    open(bob, "Time out…");
    ann.wait_for_text("dialog h2", "Time out Bob \"B\" Lee?");
    select("5 minutes");
    ann.press(&[TAB, TAB, ENTER]);
    assert_eq!(peer.next()["content"], "/to \"Bob \"\"B\"\" Lee\" 300");
    ann.wait_for(&format!("!document.querySelector('dialog') && {FOCUSED} === 'Bob \"B\" Lee'"));
    open("Tom", "Time out…");
    select("Custom…");
    ann.type_into("dialog input[type=number]", &format!("{SELECT_ALL}2"));
    ann.evaluate("document.querySelector('dialog select[aria-label]').focus()");
    select("hours");
    ann.type_into("dialog input[type=number]", ENTER);
    assert_eq!(peer.next()["content"], "/to \"Tom\" 7200");

    open("Éva", "Kick…");
    ann.wait_for_text("dialog p", "they can come back");
    ann.press(&["s", "p", "a", "m", ENTER]);
    let kick = peer.next();
    assert_eq!(kick["content"], "/kick \"Éva\" spam");
    // The server's answer is shown. The command does not come back to the message box, where it was not written.
    let refusal = "Éva is a named moderator, whom others cannot time out, kick or ban.";
    peer.send(
        json!({"type": "error", "content": refusal, "txn_id": kick["txn_id"], "timestamp": "12:00:00"}),
    );
    ann.wait_for_text("#log", "Éva is a named moderator");
    assert_eq!(ann.evaluate("document.querySelector('#message-input').value"), "");

    open("Tom", "Ban…");
    ann.wait_for_text("dialog p", "their name and address will be banned.");
    select("1 week");
    ann.press(&[TAB, "7", "x", ENTER]);
    assert_eq!(peer.next()["content"], "/ban \"Tom\" 604800s 7x");
    // The server would read the digit as a duration.
    open("Tom", "Ban…");
    select("Forever");
    ann.press(&[TAB, "7", "x", ENTER]);
    ann.wait_for("document.querySelector('dialog input:invalid')");
    ann.press(&[BACKSPACE, BACKSPACE, ENTER]);
    assert_eq!(peer.next()["content"], "/ban \"Tom\"");

    // Nothing happens if the moderator decides against it.
    for leave in [&[ESCAPE][..], &[TAB, TAB, ENTER]] {
        open("Tom", "Ban…");
        ann.press(leave);
        ann.wait_for("!document.querySelector('dialog')");
        assert_eq!(ann.evaluate(FOCUSED), "Tom");
    }
    open("Tom", "Kick…");
    ann.press(&[ENTER]);
    assert_eq!(peer.next()["content"], "/kick \"Tom\"");

    // The server counts the bytes of a reason. Nothing is cut, and what is too long is not sent.
    open("Tom", "Kick…");
    let set_reason = |text: &str| {
        let text = json!(text);
        ann.evaluate(&format!(
            "(() => {{ const reason = document.querySelector('dialog input'); \
             reason.setRangeText({text}, 0, reason.value.length); reason.dispatchEvent(new Event('input')); }})()"
        ));
    };
    let size = "document.querySelector('dialog [role=status]').innerText";
    for (reason, expected) in [
        ("é".repeat(200), ""),
        ("é".repeat(245), "10 bytes left"),
        (format!(" {} ", "é".repeat(250)), "0 bytes left"),
        ("é".repeat(251), "2 bytes over the limit"),
    ] {
        set_reason(&reason);
        ann.wait_for(&format!("{size} === '{expected}'"));
    }
    ann.press(&[ENTER]);
    assert_eq!(ann.evaluate("document.querySelector('dialog[open] input:invalid').value"), "é".repeat(251));
    set_reason(&"é".repeat(250));
    ann.press(&[ENTER]);
    assert_eq!(peer.next()["content"], format!("/kick \"Tom\" {}", "é".repeat(250)));
    assert_empty_console(&ann);
}

/// Opens the menu of a message as the log does.
fn open_message_menu(browser: &Browser, message: &str) {
    browser.evaluate(&format!(
        "import('/menus.js').then(({{ openMessageMenu }}) => openMessageMenu({{ recipient: null, isOwn: false, \
         isWhisper: false, anchor: document.querySelector('#log'), {message} }}))"
    ));
    browser.wait_for("document.activeElement.role === 'menuitem'");
}

#[test]
fn a_message_has_a_menu() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = enter(&server, &ann, &[person("Tom", ""), person("Éva", "mod"), person("Ann", "")]);
    let items_of = |message: &str| {
        open_message_menu(&ann, message);
        let items = ann.evaluate(MENU_ITEMS);
        ann.press(&[ESCAPE]);
        ann.wait_for(&format!("!{IS_MENU_OPEN} && document.activeElement.id === 'log'"));
        items
    };
    let toms = "id: 60, sender: 'Tom', text: 'hello'";
    let own = "id: 62, sender: 'Ann', text: 'mine', isOwn: true";
    assert_eq!(items_of(toms), json!(["Reply", "Whisper", "Copy text"]));
    assert_eq!(items_of(own), json!(["Copy text", "Delete…"]));
    assert_eq!(
        items_of("id: 63, sender: 'Ann', text: 'mine', isOwn: true, isWhisper: true, recipient: 'Tom'"),
        json!(["Whisper", "Show whispers", "Copy text", "Delete…"])
    );
    // One that is still being sent, and one from someone who has left.
    assert_eq!(items_of("sender: 'Ann', text: 'mine', isOwn: true"), json!(["Copy text"]));
    assert_eq!(items_of("id: 61, sender: 'Zoe', text: 'bye'"), json!(["Copy text"]));
    send_list(&peer, &[person("Tom", ""), person("Éva", "mod"), person("Ann", "mod")]);
    ann.wait_for_text("button[data-name='Ann']", "moderator");
    let for_moderators = ["Reply", "Whisper", "Copy text", "Delete…", "Time out…", "Info", "Kick…", "Ban…"];
    assert_eq!(items_of(toms), json!(for_moderators));
    assert_eq!(items_of(own), json!(["Copy text", "Delete…"]));
    // Nobody can delete the whispers of others.
    let whisper = format!("{toms}, isWhisper: true");
    assert!(!items_of(&whisper).as_array().unwrap().contains(&json!("Delete…")));
    assert_eq!(items_of("id: 61, sender: 'Zoe', text: 'bye'"), json!(["Copy text", "Delete…", "Ban…"]));

    open_message_menu(&ann, toms);
    choose(&ann, "Delete…");
    ann.wait_for_text("dialog blockquote", "hello");
    assert_eq!(ann.evaluate("document.activeElement.innerText"), "Cancel");
    ann.press(&[ENTER]);
    ann.wait_for("!document.querySelector('dialog')");
    open_message_menu(&ann, toms);
    choose(&ann, "Delete…");
    ann.wait_for("document.querySelector('dialog[open]')");
    ann.press(&[TAB, ENTER]);
    assert_eq!(peer.next()["content"], "/delete 60");
    open_message_menu(&ann, "id: 61, sender: 'Zoe', text: 'bye'");
    choose(&ann, "Ban…");
    ann.wait_for_text("dialog p", "only their name will be banned");
    ann.press(&[TAB, ENTER]);
    assert_eq!(peer.next()["content"], "/ban \"Zoe\" 3600s");
    // From the log.
    peer.send(public(110, "Tom", "Anyone here?"));
    ann.wait_for_text("#log", "Anyone here?");
    ann.evaluate("document.querySelector('#log').focus()");
    ann.press(&[UP, ENTER]);
    ann.wait_for(IS_MENU_OPEN);
    ann.press(&[ESCAPE]);
    ann.wait_for(&format!("!{IS_MENU_OPEN}"));
    ann.click("#message-menu");
    ann.wait_for(IS_MENU_OPEN);
    choose(&ann, "Reply");
    ann.wait_for("document.activeElement.id === 'message-input'");
    assert_eq!(ann.evaluate("document.activeElement.value"), "@Tom ");
    peer.send(json!({
        "type": "private", "from": "Tom", "to": "Ann", "content": "psst", "timestamp": "12:00:00", "id": 111,
        "time": "2026-01-01T12:00:00.000Z",
    }));
    open_menu_of(&ann, "Tom");
    choose(&ann, "Show whispers");
    ann.wait_for_text("#conversation", "Tom");
    ann.wait_for(
        "[...document.querySelectorAll('#log .message')].filter((row) => row.checkVisibility()).length === 1",
    );
    // What is written there is for Tom, not for everyone.
    ann.wait_for("document.activeElement.ariaLabel === 'Whisper to Tom'");
    assert_eq!(ann.evaluate("document.activeElement.value"), "");
    assert_empty_console(&ann);
}

/// The menu and the dialog of a message once stayed open after the message was deleted.
#[test]
fn what_is_open_about_a_message_closes_when_it_is_deleted() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = enter(&server, &ann, &small_room());
    let open_latest = |id| {
        peer.send(public(id, "Tom", &format!("message {id}")));
        ann.wait_for_text("#log", &format!("message {id}"));
        ann.evaluate("document.querySelector('#log').focus()");
        ann.press(&[UP, ENTER]);
        ann.wait_for(IS_MENU_OPEN);
    };
    open_latest(110);
    peer.deleted(60);
    peer.deleted(110);
    ann.wait_for(&format!("!{IS_MENU_OPEN} && document.activeElement.id === 'message-menu'"));
    open_latest(111);
    choose(&ann, "Delete…");
    ann.wait_for_text("dialog[open] blockquote", "message 111");
    peer.deleted(61);
    peer.deleted(111);
    ann.wait_for("!document.querySelector('dialog')");
    // What is open about its sender stays.
    open_latest(112);
    choose(&ann, "Kick…");
    ann.wait_for_text("dialog[open] h2", "Kick Tom?");
    peer.deleted(112);
    ann.wait_for("document.querySelectorAll('.message.deleted').length === 5");
    ann.press(&[ENTER]);
    assert_eq!(peer.next()["content"], "/kick \"Tom\"");
    open_menu_of(&ann, "Tom");
    peer.send(public(113, "Tom", "message 113"));
    peer.deleted(113);
    ann.wait_for("document.querySelectorAll('.message.deleted').length === 6");
    assert_eq!(ann.evaluate(IS_MENU_OPEN), true);
    assert_empty_console(&ann);
}

#[test]
fn axe_finds_no_violations_in_lists_menus_and_dialogs() {
    let (Some(driver), Some(axe)) = (Driver::start(), axe_core()) else { return };
    let server = ScriptedServer::start();
    for (browser, size) in [(driver.desktop(), "desktop"), (driver.phone(), "phone")] {
        let peer = enter(&server, &browser, &small_room());
        if size == "phone" {
            browser.click("#members-button");
        }
        for is_dark in [false, true] {
            browser.set_dark(is_dark);
            let check =
                |state: &str| browser.assert_accessible(&axe, &format!("{state} ({size}, dark: {is_dark})"));
            send_list(&peer, &small_room());
            wait_for_names(&browser, 4);
            check("four people");
            open_menu_of(&browser, "Tom");
            check("a person's menu");
            for item in ["Time out…", "Kick…", "Ban…"] {
                if browser.evaluate(IS_MENU_OPEN) == false {
                    open_menu_of(&browser, "Tom");
                }
                choose(&browser, item);
                browser.wait_for("document.querySelector('dialog[open]')");
                check(item);
                browser.press(&[ESCAPE]);
                browser.wait_for("!document.querySelector('dialog')");
            }
            open_message_menu(&browser, "id: 60, sender: 'Tom', text: 'hello'");
            check("a message's menu");
            choose(&browser, "Delete…");
            browser.wait_for("document.querySelector('dialog[open]')");
            check("Delete…");
            browser.press(&[ESCAPE]);
            browser.wait_for("!document.querySelector('dialog')");
            let words = ["", "mod", "away", "muted"];
            let crowd: Vec<Value> = (0..59).map(|i| person(&format!("Person {i}"), words[i % 4])).collect();
            send_list(&peer, &[crowd, vec![person("Ann", "mod")]].concat());
            wait_for_names(&browser, 60);
            check("sixty people");
        }
        browser.click("#leave");
        assert_empty_console(&browser);
    }
}
