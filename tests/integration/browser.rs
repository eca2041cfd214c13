//! The chat page in a real browser, served by the program itself over http and https.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::chat_page::{
    BACKSPACE, IS_MENU_OPEN, LATEST, SELECT_ALL, SHOWN, Server, assert_empty_console,
    assert_only_connection_errors, choose, send, wait_for_messages, wait_until_back,
};
use crate::support::client::{Client, TIMEOUT};
use crate::support::over_ws_and_wss;
use crate::support::proxy::Proxy;
use crate::support::server::Transport;
use crate::support::webdriver::{Browser, DOWN, Driver, ENTER, ESCAPE, SHIFT, TAB, UP, axe_core};

/// How many messages the page keeps that the server has not confirmed.
const MAX_UNSENT: usize = 50;
/// The buttons of the messages that have not been delivered.
const DELIVERY_BUTTONS: &str =
    "[...document.querySelectorAll('.delivery-state button')].map((button) => button.innerText)";

fn members_chat_whisper_and_moderate(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let (ann, bob) = (driver.desktop(), driver.desktop());
    server.enter(&ann, "Ann");
    server.enter(&bob, "Bob Lee");
    ann.wait_for_text("#status", "Connected");
    ann.wait_for_text("#member-list", "Bob Lee");
    ann.wait_for_text("#member-count", "2");

    send(&ann, "Hello, see https://example.com/a_(b)?x=1.");
    bob.wait_for_text(LATEST, "Hello, see");
    bob.wait_for_text(".message .message-header", "Ann");
    let link = "document.querySelector('#log a')";
    assert_eq!(bob.evaluate(&format!("{link}.href")), "https://example.com/a_(b)?x=1");
    assert_eq!(
        bob.evaluate(&format!("[{link}.rel, {link}.target]")),
        json!(["noopener noreferrer nofollow", "_blank"])
    );
    // The server sends no echo: the page shows the user's own message itself, once.
    send(&bob, "Hello yourself");
    ann.wait_for_text(LATEST, "Hello yourself");
    assert_eq!(ann.evaluate("document.querySelectorAll('#log .message.own').length"), 1);

    // A whisper is started in a person's menu, and looks different from a public message.
    ann.click("#member-list button[data-name='Bob Lee']");
    choose(&ann, "Whisper");
    ann.wait_for_text("#recipient", "To Bob Lee");
    send(&ann, "between us");
    bob.wait_for_text(".whisper", "whispers to you");
    bob.wait_for_text(".whisper .message-text", "between us");
    ann.wait_for_text(".whisper.own", "whisper to Bob Lee");
    assert_eq!(ann.evaluate("document.querySelectorAll('.whisper').length"), 1);

    // A name in the log has that menu, too.
    bob.click(".message:not(.own) .name");
    choose(&bob, "Whisper");
    bob.wait_for_text("#recipient", "To Ann");
    bob.click("#stop-whisper");
    ann.click("#stop-whisper");

    // Commands and their errors.
    bob.type_into("#message-input", &format!("/to Ann 5{ENTER}"));
    bob.wait_for_text(".notice.error", "Only moderators");
    bob.type_into("#message-input", &format!("{SELECT_ALL}{BACKSPACE}"));
    send(&ann, "/login secret");
    bob.wait_for_text(LATEST, "Ann is now a moderator.");
    bob.wait_for_text("#member-list button[data-name='Ann']", "moderator");
    let placeholder = "document.querySelector('#message-input').placeholder";
    send(&ann, "/to Bob Lee 600");
    bob.wait_for_text(LATEST, "Ann timed out Bob Lee for 600 seconds.");
    bob.wait_for(&format!("{placeholder}.includes('timed out')"));
    ann.wait_for_text("#member-list button[data-name='Bob Lee']", "timed out");
    bob.type_into("#message-input", &format!("may I?{ENTER}"));
    bob.wait_for_text(LATEST, "You're timed out");
    assert_eq!(bob.evaluate("document.querySelector('#message-input').value"), "may I?", "the draft is kept");
    send(&ann, "/to Bob Lee 1");
    bob.wait_for_text(LATEST, "Your time-out is over");
    bob.wait_for(&format!("!{placeholder}.includes('timed out')"));
    bob.type_into("#message-input", ENTER);
    ann.wait_for_text(LATEST, "may I?");

    // The join form shows why a name is rejected.
    bob.click("#leave");
    ann.wait_for_text(LATEST, "Bob Lee left.");
    bob.type_into("#name", &format!("{SELECT_ALL}ANN{ENTER}"));
    bob.wait_for_text("#join-error", "The username Ann is in use");
    bob.type_into("#name", &format!("{SELECT_ALL}Bert{ENTER}"));
    bob.wait_for_text("#log", "Bert joined.");
    // The name is remembered.
    bob.click("#leave");
    ann.wait_for_text(LATEST, "Bert joined and left.");
    bob.reload();
    bob.wait_for("document.activeElement.id === 'name'");
    assert_eq!(bob.evaluate("document.querySelector('#name').value"), "Bert");
    [&ann, &bob].into_iter().for_each(assert_empty_console);
}

fn markup_is_shown_as_text(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let evil = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    let name = "<b onclick=alert(3)>\"'&amp;";
    let mut eve = server.client(name);
    eve.public(&format!("{evil} javascript:alert(4) https://x.example/\"onmouseover=\"alert(5)"));
    ann.wait_for_text("#log", evil);
    eve.command(&format!("/whisper Ann {evil}"));
    ann.wait_for_text(".whisper .message-text", evil);
    ann.wait_for_text("#member-list", name);
    ann.wait_for_text(".message .message-header", name);
    assert_eq!(
        ann.evaluate("document.querySelectorAll('#log img, #log script, #log b, #members b').length"),
        0
    );
    assert_eq!(ann.evaluate("document.querySelector('#log a').href"), "https://x.example/");
    // Character references are not decoded either.
    ann.click("#member-list li:last-child button");
    choose(&ann, "Whisper");
    ann.wait_for_text("#recipient", &format!("To {name}"));
    assert_empty_console(&ann);
}

/// Trimming must take linear time: in quadratic time this test exceeds its timeout.
#[test]
fn trailing_punctuation_of_a_url_is_trimmed_in_linear_time() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    for _ in 0..100 {
        bob.public(&format!("https://x.example/(a){}", ")".repeat(16_000)));
    }
    bob.public("the end");
    ann.wait_for_text(LATEST, "the end");
    let links = "new Set([...document.querySelectorAll('#log a')].map((link) => link.href))";
    assert_eq!(ann.evaluate(&format!("[...{links}]")), json!(["https://x.example/(a)"]));
}

fn page_reconnects_after_a_server_restart(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let mut server = Server::start(transport);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    send(&ann, "before");
    wait_for_messages(&ann, &["before"]);
    server.stop();
    ann.wait_for_text("#log", "The server has shut down or is restarting.");
    ann.wait_for("document.querySelector('#status').dataset.state !== 'online'");
    send(&ann, "meanwhile");
    ann.wait_for_text(LATEST, "Not sent yet");
    ann.type_into("#message-input", &format!("/help{ENTER}"));
    ann.wait_for_text(LATEST, "Commands can't be sent while you're offline");
    assert_eq!(ann.evaluate("document.querySelector('#message-input').value"), "/help", "the draft is kept");
    assert_only_connection_errors(&ann);
    server.resume();
    wait_until_back(&ann);
    // The restarted server has no history.
    ann.wait_for_text(".divider.gap", "Some messages may be missing here");
    // No other client may be there yet to receive the message, but the server counts it.
    let fetch_metrics = "fetch('metrics').then((response) => response.text())";
    let start = Instant::now();
    loop {
        let metrics = ann.evaluate(fetch_metrics);
        if metrics.as_str().unwrap().contains("tinychat_messages_received_total{type=\"public\"} 1\n") {
            break;
        }
        assert!(start.elapsed() < TIMEOUT, "{metrics}");
        std::thread::sleep(Duration::from_millis(30));
    }
    wait_for_messages(&ann, &["before", "meanwhile"]);
    let mut bob = server.client("Bob");
    bob.public("welcome back");
    ann.wait_for_text(LATEST, "welcome back");
    assert_only_connection_errors(&ann);
}

/// With a store, a restart loses nothing that was said.
fn page_misses_nothing_after_a_restart_with_a_store(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let mut server = Server::with_flags(transport, &["--database-path", "chat.db"]);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    send(&ann, "before");
    wait_for_messages(&ann, &["before"]);
    server.stop();
    ann.wait_for_text("#log", "The server has shut down or is restarting.");
    send(&ann, "meanwhile");
    server.resume();
    wait_until_back(&ann);
    wait_for_messages(&ann, &["before", "meanwhile"]);
    let mut bob = server.client("Bob");
    bob.public("welcome back");
    ann.wait_for_text(LATEST, "welcome back");
    wait_for_messages(&ann, &["before", "meanwhile", "welcome back"]);
    assert_eq!(ann.evaluate("document.querySelector('.divider.gap') === null"), true);
    assert_only_connection_errors(&ann);
}

/// A connection may be dead without a close, as after the computer slept. The page probes it when it wakes up.
fn dead_connection_is_detected_on_wakeup(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    ann.wait_for_text("#log", "Bob joined.");
    let before = ann.evaluate("document.querySelectorAll('#log > * > *').length").as_u64().unwrap();
    // The response to a probe is not shown, and neither is the one that a timed-out member gets.
    ann.evaluate("dispatchEvent(new Event('online'))");
    bob.command("/login secret");
    bob.command("/to Ann 600");
    ann.wait_for_text(LATEST, "timed out Ann");
    ann.evaluate("dispatchEvent(new Event('online'))");
    bob.public("still there?");
    ann.wait_for_text(LATEST, "still there?");
    let after = ann.evaluate("document.querySelectorAll('#log > * > *').length").as_u64().unwrap();
    assert_eq!(after, before + 3);
    server.signal(Signal::STOP);
    ann.evaluate("dispatchEvent(new Event('online'))");
    ann.wait_for_text("#log", "Connection lost.");
    bob.public("You can't hear me");
    server.signal(Signal::CONT);
    wait_until_back(&ann);
    wait_for_messages(&ann, &["still there?", "You can't hear me"]);
    assert_only_connection_errors(&ann);
}

/// Scripts cannot see pings, so the page probes a silent connection.
#[test]
fn dead_connection_is_detected_without_user_activity() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    ann.wait_for_text("#status", "Connected");
    server.signal(Signal::STOP);
    // Runs the page's clock five times as fast, to keep the test short.
    ann.evaluate("(() => { const [now, start] = [Date.now, Date.now()]; Date.now = () => start + (now() - start) * 5 })()");
    ann.wait_for_text("#log", "Connection lost.");
    server.signal(Signal::CONT);
    wait_until_back(&ann);
}

#[test]
fn unanswered_join_times_out() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    ann.open(&server.url());
    ann.wait_for("document.activeElement.id === 'name'");
    ann.type_into("#name", &format!("System{ENTER}"));
    ann.wait_for_text("#join-error", "System");
    let mut bob = server.client("Bob");
    server.signal(Signal::STOP);
    ann.type_into("#name", &format!("{SELECT_ALL}Ann{ENTER}"));
    ann.wait_for_text("#join-error", "Couldn't connect");
    server.signal(Signal::CONT);
    // The page has closed that connection so that the name is free at once.
    assert_eq!(bob.next_line(), "system: Ann joined.");
    assert_eq!(bob.next_line(), "system: Ann left.");
    ann.type_into("#name", ENTER);
    ann.wait_for_text("#log", "Ann joined.");
}

/// A connection over which only the server's messages arrive is lost too.
#[test]
fn a_connection_that_cannot_send_is_detected() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    ann.wait_for_text("#log", "Bob joined.");
    // The sockets that exist send nothing any more.
    ann.evaluate("(() => { const Old = WebSocket; const { send } = Old.prototype; WebSocket = class extends Old { send(data) { send.call(this, data) } }; Old.prototype.send = () => {} })()");
    send(&ann, "Can you hear me?");
    bob.public("I hear nothing");
    ann.wait_for_text("#log", "I hear nothing");
    assert_eq!(bob.next_line(), "Ann: Can you hear me?");
    wait_for_messages(&ann, &["I hear nothing", "Can you hear me?"]);
}

fn page_works_with_the_keyboard_alone(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let mut bob = server.client("Bob Lee");
    let ann = driver.desktop();
    ann.open(&server.url());
    ann.wait_for("document.activeElement.id === 'name'");
    ann.press(&["A", "n", "n", ENTER]);
    ann.wait_for("document.activeElement.id === 'message-input'");
    assert_eq!(bob.next_line(), "system: Ann joined.");
    // Completion of a command and of a name.
    ann.press(&["/", "w"]);
    ann.wait_for_text("#suggestions [aria-selected=true]", "/whisper [user] [message]");
    assert_eq!(ann.evaluate("document.activeElement.getAttribute('aria-activedescendant')"), "suggestion-0");
    ann.press(&[TAB, "b"]);
    ann.wait_for_text("#suggestions [aria-selected=true]", "Bob Lee");
    ann.press(&[ENTER, "h", "i", ENTER]);
    assert_eq!(bob.next_line(), "Ann to Bob Lee: hi");
    // Moving through the suggestions, and closing them.
    ann.press(&["/"]);
    ann.wait_for("document.querySelectorAll('#suggestions li').length > 3");
    ann.press(&[DOWN, ESCAPE]);
    ann.wait_for("document.querySelector('#suggestions').hidden");
    ann.press(&["h", "e", "l", "p", ENTER]);
    ann.wait_for_text("#log", "Lists the commands");
    // A line break within a message.
    ann.press(&["a", &format!("{SHIFT}{ENTER}"), "b", ENTER]);
    assert_eq!(bob.next_line(), "Ann: a\nb");
    // Shift+Tab reaches the list of people, where the arrow keys move, and Enter opens a person's menu.
    let mut seen = Vec::new();
    while ann.evaluate("document.activeElement.dataset.name ?? ''") != "Ann" {
        ann.press(&[&format!("{SHIFT}{TAB}")]);
        seen.push(ann.evaluate("document.activeElement.outerHTML.slice(0, 60)"));
        assert!(seen.len() < 12, "{seen:?}");
    }
    ann.press(&[DOWN]);
    assert_eq!(ann.evaluate("document.activeElement.dataset.name"), "Bob Lee");
    assert_eq!(
        ann.evaluate("getComputedStyle(document.activeElement).outlineStyle"),
        "solid",
        "the focus is visible"
    );
    ann.press(&[ENTER]);
    choose(&ann, "Whisper");
    ann.wait_for("document.activeElement.id === 'message-input'");
    ann.wait_for_text("#recipient", "To Bob Lee");
    assert_empty_console(&ann);
}

fn page_fits_a_phone(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let mut server = Server::start(transport);
    let mut bob = server.client("Bob");
    let ann = driver.phone();
    server.enter(&ann, "Ann");
    bob.public(&"w".repeat(3000));
    ann.wait_for_text(LATEST, "wwww");
    assert_eq!(ann.evaluate("[innerWidth, innerHeight]"), json!([390, 844]));
    let fits = "document.documentElement.scrollWidth <= innerWidth && document.querySelector('#log').scrollWidth <= innerWidth";
    assert_eq!(ann.evaluate(fits), true, "nothing is wider than the screen");
    assert_eq!(
        ann.evaluate("document.querySelector('#composer').getBoundingClientRect().bottom <= innerHeight"),
        true
    );
    let heights = "[...document.querySelectorAll('header button')] \
                   .map((button) => button.offsetHeight).filter(Boolean)";
    assert_eq!(ann.evaluate(heights), json!([40, 40, 40]), "fingers can hit the buttons");
    // A tap on an avatar opens the menu of its person.
    ann.click(".message:not(.own) .avatar");
    ann.wait_for(&format!("{IS_MENU_OPEN} && document.querySelector('#menu').ariaLabel === 'Bob'"));
    ann.press(&[ESCAPE]);
    ann.wait_for(&format!("!{IS_MENU_OPEN}"));
    // The member list is a drawer.
    assert_eq!(ann.evaluate("document.querySelector('#members').checkVisibility()"), false);
    ann.click("#members-button");
    ann.wait_for("document.activeElement.dataset.name");
    assert_eq!(
        ann.evaluate("document.querySelector('#members-button').getAttribute('aria-expanded')"),
        "true"
    );
    ann.press(&[ESCAPE]);
    ann.wait_for("!document.querySelector('#members').checkVisibility() && document.activeElement.id === 'members-button'");
    ann.click("#members-button");
    ann.click("#member-list button[data-name='Bob']");
    choose(&ann, "Whisper");
    ann.wait_for("!document.querySelector('#members').checkVisibility()");
    send(&ann, "from my phone");
    bob.next_line();
    assert_eq!(bob.next_line(), "Ann to Bob: from my phone");
    assert_empty_console(&ann);
    drop(bob);
    server.stop();
    ann.wait_for("!document.querySelector('#retry').hidden");
    assert_eq!(ann.evaluate(fits), true, "nor is the connection state");
    ann.wait_for("document.querySelector('#leave').getBoundingClientRect().right <= 390");
    server.resume();
    ann.wait_for("document.querySelector('#status').dataset.state === 'online' || document.querySelector('#retry').click()");
}

fn scrolled_up_log_keeps_its_position_and_counts_new_messages(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let mut bob = server.client("Bob");
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    for line in 0..10_300 {
        bob.public(&format!("line {line}"));
    }
    ann.wait_for_text(LATEST, "line 10299");
    let is_at_bottom = "(() => { const log = document.querySelector('#log'); return log.scrollHeight - log.scrollTop - log.clientHeight < 2; })()";
    ann.wait_for(is_at_bottom);
    assert_eq!(ann.evaluate("document.querySelectorAll('#log > * > *').length <= 10_100"), true);
    assert_eq!(ann.evaluate("document.querySelector('#jump-to-latest').hidden"), true);
    // Scrolled up, the log does not move on new messages.
    ann.evaluate("document.querySelector('#log').scrollTop -= 3000");
    ann.wait_for("!document.querySelector('#jump-to-latest').hidden");
    ann.evaluate("window.row = [...document.querySelectorAll('#log .message')].find((row) => row.getBoundingClientRect().top > 200), window.rowTop = row.getBoundingClientRect().top");
    for line in 0..30 {
        bob.public(&format!("later {line}"));
    }
    ann.wait_for_text("#jump-to-latest", "30 new messages");
    ann.wait_for("document.title === '(30) TinyChat'");
    ann.wait_for_text(LATEST, "later 29");
    assert_eq!(
        ann.evaluate("Math.abs(row.getBoundingClientRect().top - rowTop) <= 2"),
        true,
        "the log moved"
    );
    assert_eq!(
        ann.evaluate(
            "(() => { const rows = [...document.querySelectorAll('#log > * > *')]; \
             return rows[rows.findIndex((row) => row.matches('.unread')) + 1].innerText.includes('later 0'); })()"
        ),
        true
    );
    ann.click("#jump-to-latest");
    ann.wait_for(is_at_bottom);
    ann.wait_for("document.title === 'TinyChat' && document.querySelector('#jump-to-latest').hidden");
    assert_empty_console(&ann);
}

fn scrolling_up_loads_older_messages(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let mut bob = server.client("Bob");
    let lines: Vec<String> = (0..120).map(|line| format!("line {line}")).collect();
    for line in &lines {
        bob.public(line);
    }
    bob.assert_nothing_received(); // The server has handled all of them.
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    ann.wait_for_text("#log", "line 119");
    let count = "document.querySelectorAll('#log .message').length";
    assert_eq!(ann.evaluate(count), 50, "the newest page");
    for loaded in [100, 120] {
        // What is visible stays where it is; the first message may lose its header to one that is loaded.
        ann.evaluate("document.querySelector('#log').scrollTop = 0, window.row = document.querySelectorAll('#log .message')[1], window.rowTop = row.getBoundingClientRect().top");
        ann.wait_for(&format!("{count} === {loaded}"));
        assert_eq!(
            ann.evaluate("Math.abs(row.getBoundingClientRect().top - rowTop) <= 2"),
            true,
            "the log moved"
        );
    }
    assert_eq!(ann.evaluate(SHOWN), json!(lines));
    // A sender's messages share one header, also across pages.
    assert_eq!(ann.evaluate("document.querySelectorAll('#log .message:not(.grouped)').length"), 1);
    assert_eq!(ann.evaluate("document.title"), "TinyChat", "old messages are not new");
    // There are no more, and new ones come as before.
    ann.evaluate("document.querySelector('#log').scrollTop = 0");
    bob.public("line 120");
    ann.wait_for_text("#log", "line 120");
    assert_eq!(ann.evaluate(count), 121);
    assert_empty_console(&ann);
}

/// Both sides talk, the network fails silently, both talk on, and the network is back.
fn nothing_is_lost_if_the_network_fails_silently(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let proxy = Proxy::start(server.address());
    let ann = driver.desktop();
    server.enter_at(&server.url_at(proxy.address.port()), &ann, "Ann");
    let mut bob = server.client("Bob");
    send(&ann, "/login secret");
    assert_eq!(bob.next_line(), "system: Ann is now a moderator.");
    send(&ann, "one");
    assert_eq!(bob.next_line(), "Ann: one");
    bob.public("two");
    wait_for_messages(&ann, &["one", "two"]);

    proxy.blackhole();
    send(&ann, "three");
    bob.public("four");
    bob.command("/whisper Ann five");
    assert_eq!(bob.next_line(), "Bob to Ann: five");
    send(&ann, "/whisper Bob six");
    send(&ann, "seven");
    // The page notices it by itself, says so, and takes more.
    ann.wait_for_text("#log", "Connection lost.");
    ann.wait_for("document.querySelector('#status').dataset.state !== 'online'");
    ann.wait_for_text(LATEST, "Not sent yet");
    send(&ann, "eight");
    bob.public("nine");
    bob.assert_nothing_received();

    proxy.restore();
    // The browser reports that it has a network again, so that the page does not wait for its next try.
    ann.evaluate("dispatchEvent(new Event('online'))");
    for line in ["Ann: three", "Ann to Bob: six", "Ann: seven", "Ann: eight"] {
        assert_eq!(bob.next_line(), line);
    }
    wait_until_back(&ann);
    let texts = ["one", "two", "four", "five", "nine", "three", "six", "seven", "eight"];
    wait_for_messages(&ann, &texts);
    // Both are still in the room as before.
    ann.wait_for_text("#member-list button[data-name='Ann']", "moderator");
    send(&ann, "ten");
    assert_eq!(bob.next_line(), "Ann: ten");
    bob.public("eleven");
    wait_for_messages(&ann, &[&texts[..], &["ten", "eleven"]].concat());
    assert_eq!(ann.evaluate("document.querySelector('.divider.gap') === null"), true);
    assert_only_connection_errors(&ann);
}

fn a_reload_does_not_count_as_leaving(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 0}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    send(&ann, "/login secret");
    assert_eq!(bob.next_line(), "system: Ann is now a moderator.");
    send(&ann, "one");
    assert_eq!(bob.next_line(), "Ann: one");
    bob.public("two");
    bob.command("/whisper Ann three");
    assert_eq!(bob.next_line(), "Bob to Ann: three");
    wait_for_messages(&ann, &["one", "two", "three"]);
    // This one does not reach the server before the reload.
    ann.evaluate("(() => { WebSocket.prototype.send = () => {} })()");
    send(&ann, "four");
    ann.reload();
    assert_eq!(bob.next_line(), "Ann: four");
    wait_for_messages(&ann, &["one", "two", "three", "four"]);
    assert_eq!(ann.evaluate("document.querySelectorAll('.message.own').length"), 2);
    ann.wait_for_text("#member-list button[data-name='Ann']", "moderator");
    ann.wait_for_text("#member-list button[data-name='Ann']", "you");
    send(&ann, "five");
    assert_eq!(bob.next_line(), "Ann: five");
    ann.reload();
    wait_for_messages(&ann, &["one", "two", "three", "four", "five"]);
    bob.assert_nothing_received();
    // A member that is cut off stays in the list.
    drop(bob);
    ann.wait_for_text("#member-list button[data-name='Bob']", "away");
    // Leaving ends the place.
    let mut tom = server.client("Tom");
    ann.click("#leave");
    assert_eq!(tom.next_line(), "system: Ann left.");
    ann.reload();
    ann.wait_for("document.activeElement.id === 'name'");
    assert_empty_console(&ann);
}

/// More is said than the server sends at once, so that the page cannot tell whether its message has arrived.
#[test]
fn a_message_that_may_not_have_been_sent_can_be_sent_again() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let proxy = Proxy::start(server.address());
    let ann = driver.desktop();
    server.enter_at(&server.url_at(proxy.address.port()), &ann, "Ann");
    let mut bob = server.client("Bob");
    send(&ann, "one");
    assert_eq!(bob.next_line(), "Ann: one");
    wait_for_messages(&ann, &["one"]);
    proxy.blackhole();
    send(&ann, "two");
    ann.wait_for("document.querySelector('#status').dataset.state !== 'online'");
    let lines: Vec<String> = (0..250).map(|line| format!("line {line}")).collect();
    for line in &lines {
        bob.public(line);
    }
    bob.assert_nothing_received();
    // The browser may have a connection that it would use for the reload: it must not swallow the request.
    proxy.cut();
    proxy.restore();
    ann.evaluate("dispatchEvent(new Event('online'))");
    ann.wait_for_text(LATEST, "May not have been sent");
    // Far above what is visible, an element has no innerText.
    ann.wait_for(
        "document.querySelector('.divider.gap').textContent === 'Some messages may be missing here'",
    );
    let shown = ann.evaluate(SHOWN);
    let [first, newest @ .., last] = shown.as_array().unwrap().as_slice() else { panic!("{shown}") };
    assert_eq!((first.as_str(), last.as_str()), (Some("one"), Some("two")));
    assert!(
        !newest.is_empty()
            && lines
                .ends_with(&newest.iter().map(|line| line.as_str().unwrap().to_owned()).collect::<Vec<_>>()),
        "{shown}"
    );
    // It is still there after a reload.
    ann.reload();
    ann.wait_for_text(LATEST, "May not have been sent");
    assert_eq!(ann.evaluate(DELIVERY_BUTTONS), json!(["Send again", "Discard"]));
    ann.click(".delivery-state button");
    assert_eq!(bob.next_line(), "Ann: two");
    ann.wait_for("!document.querySelector('.pending, .delivery-state')");
    send(&ann, "three");
    assert_eq!(bob.next_line(), "Ann: three");
}

/// One that waits, and one that may not have arrived.
#[test]
fn one_unsent_message_can_be_discarded() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let proxy = Proxy::start(server.address());
    let ann = driver.desktop();
    server.enter_at(&server.url_at(proxy.address.port()), &ann, "Ann");
    let mut bob = server.client("Bob");
    proxy.cut();
    ann.wait_for("document.querySelector('#status').dataset.state !== 'online'");
    for line in ["one", "//two", "three"] {
        send(&ann, line);
    }
    ann.wait_for(&format!("JSON.stringify({DELIVERY_BUTTONS}) === '[\"Discard\",\"Discard\",\"Discard\"]'"));
    // By the keyboard, from the log.
    ann.evaluate("document.querySelector('#log').focus()");
    ann.press(&[UP, UP, TAB]);
    ann.wait_for("document.activeElement.closest('.message')?.innerText.includes('/two')");
    while ann.evaluate("document.activeElement.innerText") != "Discard" {
        ann.press(&[TAB]);
    }
    ann.press(&[ENTER]);
    ann.wait_for(&format!("{SHOWN}.join() === 'one,three'"));
    assert_eq!(ann.evaluate("document.activeElement.id"), "message-input");
    proxy.restore();
    ann.evaluate("dispatchEvent(new Event('online'))");
    for line in ["one", "three"] {
        assert_eq!(bob.next_line(), format!("Ann: {line}"));
    }
    wait_until_back(&ann);
    wait_for_messages(&ann, &["one", "three"]);
    assert_eq!(ann.evaluate("sessionStorage.outbox"), serde_json::Value::Null);
    // Its text can be restored.
    ann.press(&[UP]);
    ann.wait_for("document.querySelector('#message-input').value === '//two'");
}

#[test]
fn the_page_retries_while_its_name_is_in_use() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::with_flags(Transport::Ws, &["--resume-seconds", "0"]);
    let proxy = Proxy::start(server.address());
    let ann = driver.desktop();
    server.enter_at(&server.url_at(proxy.address.port()), &ann, "Ann");
    let mut bob = server.client("Bob");
    proxy.cut();
    assert_eq!(bob.next_line(), "system: Ann left.");
    let other = server.client("Ann");
    proxy.restore();
    ann.wait_for_text("#status", "Your name is in use");
    send(&ann, "one");
    ann.wait_for_text(LATEST, "Not sent yet");
    other.leave();
    for line in ["system: Ann joined.", "system: Ann left.", "system: Ann joined.", "Ann: one"] {
        assert_eq!(bob.next_line(), line);
    }
    wait_until_back(&ann);
}

/// A copy of a tab has its session too. Only one of them is in the room.
#[test]
fn a_copied_tab_takes_over_and_the_first_can_take_back() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    ann.evaluate("void (window.copy = open(location.href))");
    ann.wait_for_text("#status", "Open in another tab");
    ann.wait_for("copy.document.querySelector('#status').dataset.state === 'online'");
    bob.public("Which one are you?");
    ann.wait_for("copy.document.querySelector('#log').innerText.includes('Which one')");
    // Events after which a lost connection is made again do not take it back.
    ann.evaluate("dispatchEvent(new Event('online')), dispatchEvent(new Event('pageshow'))");
    assert_eq!(ann.evaluate("document.querySelector('#status').dataset.state"), "replaced");
    assert_eq!(ann.evaluate("document.querySelector('#rejoin').innerText"), "Use here");
    ann.click("#rejoin");
    ann.wait_for_text("#status", "Connected");
    wait_for_messages(&ann, &["Which one are you?"]);
    ann.wait_for("copy.document.querySelector('#status').dataset.state === 'replaced'");
    bob.assert_nothing_received();
    assert_empty_console(&ann);
}

#[test]
fn messages_that_wait_to_be_sent_are_limited() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let proxy = Proxy::start(server.address());
    let ann = driver.desktop();
    server.enter_at(&server.url_at(proxy.address.port()), &ann, "Ann");
    let mut bob = server.client("Bob");
    proxy.cut();
    ann.wait_for("document.querySelector('#status').dataset.state !== 'online'");
    ann.evaluate(&format!(
        "(() => {{ for (let i = 0; i < {MAX_UNSENT}; i += 1) {{ \
        document.querySelector('#message-input').value = `line ${{i}}`; \
        document.querySelector('#composer').requestSubmit(); }} }})()"
    ));
    ann.type_into("#message-input", &format!("one more{ENTER}"));
    ann.wait_for_text(LATEST, "Too many messages are waiting to be sent.");
    assert_eq!(
        ann.evaluate("document.querySelector('#message-input').value"),
        "one more",
        "the draft is kept"
    );
    proxy.restore();
    ann.evaluate("dispatchEvent(new Event('online'))");
    for line in 0..MAX_UNSENT {
        assert_eq!(bob.next_line(), format!("Ann: line {line}"));
    }
    wait_until_back(&ann);
    ann.wait_for("!document.querySelector('.pending, .delivery-state')");
    ann.type_into("#message-input", ENTER);
    assert_eq!(bob.next_line(), "Ann: one more");
}

#[test]
fn the_page_says_that_it_is_offline() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    let set_offline = |is_offline: bool| {
        let conditions =
            json!({"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        ann.devtools("Network.emulateNetworkConditions", conditions);
        // On a machine without a network, the browser sends no event, as nothing changes.
        let event = if is_offline { "offline" } else { "online" };
        ann.evaluate(&format!("dispatchEvent(new Event('{event}'))"));
    };
    ann.devtools("Network.enable", json!({}));
    set_offline(true);
    ann.wait_for_text("#status", "You're offline");
    send(&ann, "from the tunnel");
    ann.wait_for_text(LATEST, "Not sent yet");
    bob.public("Where are you?");
    bob.assert_nothing_received();
    set_offline(false);
    assert_eq!(bob.next_line(), "Ann: from the tunnel");
    wait_until_back(&ann);
    wait_for_messages(&ann, &["Where are you?", "from the tunnel"]);
}

fn axe_finds_no_violations(transport: Transport) {
    let (Some(driver), Some(axe)) = (Driver::start(), axe_core()) else { return };
    let server = Server::start(transport);
    let (desktop, phone) = (driver.desktop(), driver.phone());
    let [mut bob, _eve, _tom] = fill_room(&server, &[(&desktop, "Ann"), (&phone, "Mia")], |browser, name| {
        browser.open(&server.url());
        browser.wait_for("document.activeElement.id === 'name'");
        browser.assert_accessible(&axe, "join form");
        browser.type_into("#name", &format!("System{ENTER}"));
        browser.wait_for_text("#join-error", "System");
        browser.assert_accessible(&axe, "join form with an error");
        server.enter(browser, name);
    });
    // Enough for the log to be scrolled.
    for line in 0..50 {
        bob.public(&format!("Item {line} on the list"));
    }
    for browser in [&desktop, &phone] {
        browser.wait_for_text(LATEST, "Item 49");
    }
    for is_dark in [false, true] {
        for (browser, size) in [(&desktop, "desktop"), (&phone, "phone")] {
            browser.set_dark(is_dark);
            let state = |name: &str| format!("{name} ({size}, dark: {is_dark})");
            browser.assert_accessible(&axe, &state("chat room"));
            browser.type_into("#message-input", "/");
            browser.wait_for("!document.querySelector('#suggestions').hidden");
            browser.assert_accessible(&axe, &state("command suggestions"));
            browser.press(&[ESCAPE]);
            browser.evaluate("document.querySelector('#log').scrollTop = 0");
            bob.public("something new");
            browser.wait_for("!document.querySelector('#jump-to-latest').hidden");
            browser.assert_accessible(&axe, &state("scrolled up"));
            browser.click("#jump-to-latest");
            if size == "phone" {
                browser.click("#members-button");
                browser.assert_accessible(&axe, &state("member drawer"));
                browser.click("#members-button");
            }
            browser.type_into("#message-input", BACKSPACE);
        }
    }
    [&desktop, &phone].into_iter().for_each(assert_empty_console);
}

/// Fills the chat room with an example of everything that the page shows.
fn fill_room(server: &Server, browsers: &[(&Browser, &str)], enter: impl Fn(&Browser, &str)) -> [Client; 3] {
    let mut bob = server.client("Bob Lee");
    let mut eve = server.client("Éva 🦀");
    let mut tom = server.client("Tom");
    for (browser, name) in browsers {
        enter(browser, name);
    }
    bob.command("/login secret");
    // Waits after each sender, because the order of concurrent messages is not defined.
    let wait_for = |text: &str| browsers.iter().for_each(|(browser, _)| browser.wait_for_text("#log", text));
    bob.public("Good evening, everybody! Who is coming to the club room on Friday?");
    wait_for("on Friday?");
    eve.public("I am. The plan is here: https://club.example/plan/friday");
    eve.public("Bring a soldering iron if you have one.");
    wait_for("if you have one.");
    tom.public("🎉🎉");
    tom.public("BUY BUY BUY at https://spam.example");
    wait_for("BUY BUY");
    bob.command("/to Tom 600");
    wait_for("timed out Tom");
    let answers = ["Count me in. I can bring two, and a multimeter.", "I'll bring cake."];
    for ((browser, name), answer) in browsers.iter().zip(answers) {
        send(browser, answer);
        send(browser, "/whisper Bob Lee Thanks for dealing with that.");
        browser.wait_for_text("#log .whisper.own", "Thanks");
        bob.command(&format!("/whisper {name} You're welcome."));
        browser.wait_for_text("#log .whisper:not(.own)", "welcome");
        browser.type_into("#message-input", "/whisper Nobody hello");
        browser.click("#send");
        browser.wait_for_text("#log", "Nobody here is called");
        browser.type_into("#message-input", &format!("{SELECT_ALL}{BACKSPACE}"));
        browser.wait_for("document.querySelector('#member-list').innerText.includes('timed out')");
    }
    eve.public("Lovely. See you there, 19:00 sharp ⏰");
    for (browser, _) in browsers {
        browser.wait_for_text("#log", "19:00 sharp");
    }
    [bob, eve, tom]
}

/// Creates the screenshots in the docs: `cargo test --test integration screenshots -- --ignored`.
#[test]
#[ignore = "writes docs/screenshots"]
fn screenshots() {
    let Some(driver) = Driver::start() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    let server = Server::start(Transport::Ws);
    let (desktop, phone) = (driver.desktop(), driver.phone());
    desktop.devtools(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 1080, "height": 700, "deviceScaleFactor": 1, "mobile": false}),
    );
    phone.devtools(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true}),
    );
    let _others = fill_room(&server, &[(&desktop, "Ann"), (&phone, "Mia")], |browser, name| {
        server.enter(browser, name)
    });
    for (browser, size) in [(&desktop, "desktop"), (&phone, "phone")] {
        for (is_dark, scheme) in [(false, "light"), (true, "dark")] {
            browser.set_dark(is_dark);
            browser.screenshot(&folder.join(format!("{size}-{scheme}.png")));
        }
    }
}

over_ws_and_wss!(
    members_chat_whisper_and_moderate,
    markup_is_shown_as_text,
    page_reconnects_after_a_server_restart,
    page_misses_nothing_after_a_restart_with_a_store,
    dead_connection_is_detected_on_wakeup,
    page_works_with_the_keyboard_alone,
    page_fits_a_phone,
    scrolled_up_log_keeps_its_position_and_counts_new_messages,
    scrolling_up_loads_older_messages,
    nothing_is_lost_if_the_network_fails_silently,
    a_reload_does_not_count_as_leaving,
    axe_finds_no_violations,
);
