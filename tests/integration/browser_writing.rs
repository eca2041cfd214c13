//! Writing in the chat page, and whispers, in a real browser, on a desktop and on a phone.

use serde_json::json;

use crate::support::chat_page::{
    BACKSPACE, LATEST, SELECT_ALL, STOP_CLOCK, Server, assert_empty_console, assert_only_connection_errors,
    choose, open_menu_of, send, wait_for_messages, wait_until_back,
};
use crate::support::proxy::Proxy;
use crate::support::scripted::ScriptedServer;
use crate::support::server::Transport;
use crate::support::webdriver::{Browser, Driver, ENTER, ESCAPE, SHIFT, TAB, UP, axe_core};

const LEFT: &str = "\u{e012}";
const CONTROL: &str = "\u{e009}";
const TEXT: &str = "document.querySelector('#message-input').value";
const HAS_FOCUS: &str = "document.activeElement.id === 'message-input'";

/// What `--max-message-bytes 200` leaves for the text of a public message.
const MAX_TEXT_BYTES: usize = 200 - r#"{"type":"public","content":"","txn_id":""}"#.len() - 32;

fn wait_for_text_in_box(browser: &Browser, text: &str) {
    browser.wait_for(&format!("{TEXT} === {}", json!(text)));
}

/// Puts the text into the box as a paste does.
fn paste(browser: &Browser, text: &str) {
    browser.evaluate("document.querySelector('#message-input').focus()");
    browser.devtools("Input.insertText", json!({"text": text}));
}

fn whisper_to(browser: &Browser, name: &str) {
    open_menu_of(browser, name);
    choose(browser, "Whisper");
    browser.wait_for_text("#recipient", &format!("To {name}"));
    browser.wait_for(HAS_FOCUS);
}

#[test]
fn the_log_stays_at_its_end_while_the_box_grows() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        let mut bob = server.client("Bob");
        server.enter(&browser, "Ann");
        (0..60).for_each(|line| bob.public(&format!("line {line}")));
        browser.wait_for_text(LATEST, "line 59");
        let is_at_end = "(() => { const log = document.querySelector('#log'); return log.scrollHeight - log.scrollTop - log.clientHeight < 2; })()";
        browser.wait_for(is_at_end);
        browser.wait_for(HAS_FOCUS);
        for line in ["one", "two", "three", "four", "five"] {
            browser.type_into("#message-input", line);
            browser.press(&[&format!("{SHIFT}{ENTER}")]);
            bob.public(&format!("after {line}"));
            browser.wait_for_text(LATEST, &format!("after {line}"));
            browser.wait_for(is_at_end);
        }
        assert_eq!(browser.evaluate("document.querySelector('#jump-to-latest').hidden"), true);
        browser.click("#send");
        assert_eq!(bob.next_line(), "system: Ann joined.");
        assert_eq!(bob.next_line(), "Ann: one\ntwo\nthree\nfour\nfive");
        browser.wait_for(is_at_end);
        assert_empty_console(&browser);
    }
}

#[test]
fn the_box_keeps_the_focus_when_the_button_sends() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        server.enter(&browser, "Ann");
        browser.wait_for(HAS_FOCUS);
        // A phone hides its keyboard when the box loses the focus.
        browser.evaluate("void (window.losses = 0, document.querySelector('#message-input').addEventListener('blur', () => (losses += 1)))");
        send(&browser, "one");
        send(&browser, "two");
        wait_for_messages(&browser, &["one", "two"]);
        assert_eq!(browser.evaluate(&format!("{HAS_FOCUS} && losses === 0")), true);
        // It gets the focus if something else had it.
        browser.type_into("#message-input", "three");
        browser.evaluate("document.querySelector('#log').focus()");
        browser.click("#send");
        browser.wait_for(HAS_FOCUS);
        assert_empty_console(&browser);
    }
}

#[test]
fn keys_typed_anywhere_go_to_the_box() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    ann.wait_for(HAS_FOCUS);
    ann.evaluate("document.querySelector('#log').focus()");
    ann.press(&[" ", &format!("{CONTROL}c"), TAB]);
    assert_eq!(ann.evaluate(HAS_FOCUS), false);
    ann.evaluate("document.querySelector('#log').focus()");
    ann.press(&["h", "i"]);
    wait_for_text_in_box(&ann, "hi");
    ann.evaluate("document.querySelector('#leave').focus()");
    ann.press(&["?"]);
    wait_for_text_in_box(&ann, "hi?");
    // Of a button, Space and Enter are its own.
    ann.evaluate("document.querySelector('#leave').focus()");
    ann.press(&[" "]);
    ann.wait_for("document.activeElement.id === 'name'");
    ann.press(&["x"]);
    ann.wait_for("document.querySelector('#name').value.endsWith('x')");
    assert_empty_console(&ann);
}

#[test]
fn enter_makes_a_new_line_on_a_touch_screen_and_sends_elsewhere() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let mut bob = server.client("Bob");
    let hint = "document.querySelector('#message-input').enterKeyHint";
    let phone = driver.phone();
    server.enter(&phone, "Ann");
    assert_eq!(bob.next_line(), "system: Ann joined.");
    assert_eq!(phone.evaluate(hint), "enter");
    phone.wait_for(HAS_FOCUS);
    phone.press(&["a", ENTER, "b"]);
    wait_for_text_in_box(&phone, "a\nb");
    phone.click("#send");
    assert_eq!(bob.next_line(), "Ann: a\nb");
    // A keyboard that is connected to it can send, too.
    phone.press(&["c", &format!("{CONTROL}{ENTER}")]);
    assert_eq!(bob.next_line(), "Ann: c");
    let desktop = driver.desktop();
    server.enter(&desktop, "Dan");
    assert_eq!(bob.next_line(), "system: Dan joined.");
    assert_eq!(desktop.evaluate(hint), "send");
    desktop.wait_for(HAS_FOCUS);
    desktop.press(&["a", &format!("{SHIFT}{ENTER}"), "b", ENTER]);
    assert_eq!(bob.next_line(), "Dan: a\nb");
}

#[test]
fn a_failed_command_gives_its_text_back() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    ann.open(&server.url());
    ann.wait_for("document.activeElement.id === 'name'");
    ann.type_into("#name", &format!("Ann{ENTER}"));
    let peer = server.accept();
    peer.next_join();
    peer.admit(&["Bob", "Ann"], &json!({}));
    ann.wait_for(HAS_FOCUS);
    let run = |command: &str| {
        ann.type_into("#message-input", &format!("{command}{ENTER}"));
        wait_for_text_in_box(&ann, "");
        let sent = peer.next();
        assert_eq!(sent["content"], command);
        sent["txn_id"].clone()
    };
    let fail = |txn_id, content: &str| {
        peer.send(json!({"type": "error", "username": "System", "content": content, "timestamp": "12:00:00", "txn_id": txn_id}));
        ann.wait_for_text("#log", content);
    };
    fail(run("/kick Bbo"), "There is no Bbo.");
    wait_for_text_in_box(&ann, "/kick Bbo");
    ann.type_into("#message-input", &format!("{SELECT_ALL}{BACKSPACE}"));
    fail(run("/whisper Bbo hello"), "Nobody here is called Bbo.");
    wait_for_text_in_box(&ann, "/whisper Bbo hello");
    // Not over what the user has written since.
    ann.type_into("#message-input", &format!("{SELECT_ALL}{BACKSPACE}"));
    let txn_id = run("/kick Cid");
    ann.type_into("#message-input", "meanwhile");
    fail(txn_id, "There is no Cid.");
    assert_eq!(ann.evaluate(TEXT), "meanwhile");
    // And never a password.
    ann.type_into("#message-input", &format!("{SELECT_ALL}{BACKSPACE}"));
    fail(run("/login hunter2"), "Wrong password.");
    assert_eq!(ann.evaluate(TEXT), "");
    ann.press(&[UP]);
    wait_for_text_in_box(&ann, "/kick Cid");
    assert_empty_console(&ann);
}

#[test]
fn arrow_up_brings_back_the_last_message() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let mut bob = server.client("Bob");
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    assert_eq!(bob.next_line(), "system: Ann joined.");
    ann.press(&[UP]);
    send(&ann, "tpyo");
    assert_eq!(bob.next_line(), "Ann: tpyo");
    ann.press(&[UP]);
    wait_for_text_in_box(&ann, "tpyo");
    ann.type_into("#message-input", &format!("{SELECT_ALL}typo{ENTER}"));
    assert_eq!(bob.next_line(), "Ann: typo");
    // In a text it moves the caret.
    ann.press(&["a", UP, "b"]);
    wait_for_text_in_box(&ann, "ba");
    ann.type_into("#message-input", &format!("{SELECT_ALL}{BACKSPACE}"));
    // A whisper comes back as a whisper.
    whisper_to(&ann, "Bob");
    send(&ann, "psst");
    assert_eq!(bob.next_line(), "Ann to Bob: psst");
    ann.press(&[ESCAPE]);
    ann.wait_for("document.querySelector('#recipient').hidden");
    ann.press(&[UP]);
    wait_for_text_in_box(&ann, "psst");
    ann.wait_for_text("#recipient", "To Bob");
    ann.press(&[ENTER]);
    assert_eq!(bob.next_line(), "Ann to Bob: psst");
    assert_empty_console(&ann);
}

#[test]
fn two_slashes_send_a_line_that_begins_with_one() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let mut bob = server.client("Bob");
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    assert_eq!(bob.next_line(), "system: Ann joined.");
    ann.type_into("#message-input", "/usr/bin is a folder");
    ann.wait_for_text("#command-usage", "To send a message that starts with /, type //.");
    ann.press(&[ENTER]);
    ann.wait_for_text(".notice.error", "Unknown command");
    wait_for_text_in_box(&ann, "/usr/bin is a folder");
    ann.type_into("#message-input", &format!("{SELECT_ALL}//usr/bin is a folder{ENTER}"));
    assert_eq!(bob.next_line(), "Ann: /usr/bin is a folder");
    wait_for_messages(&ann, &["/usr/bin is a folder"]);
    ann.press(&[UP]);
    wait_for_text_in_box(&ann, "//usr/bin is a folder");
    assert_empty_console(&ann);
}

#[test]
fn a_paste_of_6000_characters_arrives_whole() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        let mut bob = server.client("Bob");
        server.enter(&browser, "Ann");
        assert_eq!(bob.next_line(), "system: Ann joined.");
        let text: String = (0..600).map(|number| format!("{number:9} ")).collect();
        paste(&browser, &text);
        browser.click("#send");
        assert_eq!(bob.next_line(), format!("Ann: {}", text.trim()));
        assert_empty_console(&browser);
    }
}

#[test]
fn over_the_limit_a_counter_says_so_and_nothing_is_sent() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::with_flags(Transport::Ws, &["--max-message-bytes", "200"]);
        let mut bob = server.client("Bob");
        server.enter(&browser, "Ann");
        assert_eq!(bob.next_line(), "system: Ann joined.");
        let size = "document.querySelector('#size').innerText";
        paste(&browser, "short");
        assert_eq!(browser.evaluate(size), "");
        browser.type_into("#message-input", &format!("{SELECT_ALL}{BACKSPACE}"));
        // It counts what is sent: two bytes for each of these, and for the quotation mark.
        let longest = format!("\"{}", "é".repeat(MAX_TEXT_BYTES / 2 - 1));
        assert_eq!(longest.len() + 1, MAX_TEXT_BYTES);
        paste(&browser, &longest);
        browser.wait_for_text("#size", "0 bytes left");
        browser.click("#send");
        assert_eq!(bob.next_line(), format!("Ann: {longest}"));
        let text = format!("{longest}é, and so on");
        paste(&browser, &text);
        let over = text.len() + 1 - MAX_TEXT_BYTES;
        browser.wait_for_text("#size", &format!("{over} bytes over the limit"));
        assert_eq!(browser.evaluate("document.querySelector('#message-input').ariaInvalid"), "true");
        browser.click("#send");
        browser.wait_for_text(LATEST, &format!("Your message is {over} bytes over the limit."));
        assert_eq!(browser.evaluate(TEXT), text);
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
        bob.assert_nothing_received();
        // Its end, shortened, goes out.
        browser.type_into("#message-input", &BACKSPACE.repeat(over - 1));
        browser.wait_for_text("#size", "0 bytes left");
        browser.click("#send");
        assert!(bob.next_line().starts_with(&format!("Ann: {longest}")));
        browser.wait_for(&format!("{size} === ''"));
        assert_empty_console(&browser);
    }
}

/// A server that restarts may have a lower limit than the one for which the message was written.
#[test]
fn a_waiting_message_over_a_new_limit_returns_to_the_box() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    ann.open(&server.url());
    ann.wait_for("document.activeElement.id === 'name'");
    ann.type_into("#name", &format!("Ann{ENTER}"));
    let peer = server.accept();
    peer.next_join();
    peer.admit(&["Ann"], &json!({}));
    ann.wait_for(HAS_FOCUS);
    peer.cut();
    let peer = server.accept();
    ann.evaluate(STOP_CLOCK);
    let text = "long ".repeat(50);
    send(&ann, &text);
    send(&ann, "short");
    peer.next_join();
    peer.send(json!({
        "type": "history", "messages": [], "id": 100, "more": false, "epoch": "one", "recovered": true,
        "session": "the session", "max_message_bytes": 200, "timestamp": "12:00:00",
    }));
    assert_eq!(peer.next()["content"], "short");
    ann.wait_for_text("#log", "Not sent: too long");
    wait_for_text_in_box(&ann, text.trim());
    ann.wait_for_text("#size", "over the limit");
}

#[test]
fn drafts_survive_a_reload() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        let mut bob = server.client("Bob");
        server.enter(&browser, "Ann");
        paste(&browser, "for all\nof you");
        whisper_to(&browser, "Bob");
        assert_eq!(browser.evaluate(TEXT), "");
        browser.type_into("#message-input", "for Bob");
        browser.reload();
        wait_for_text_in_box(&browser, "for Bob");
        browser.wait_for_text("#recipient", "To Bob");
        browser.click("#stop-whisper");
        wait_for_text_in_box(&browser, "for all\nof you");
        browser.reload();
        wait_for_text_in_box(&browser, "for all\nof you");
        browser.wait_for(HAS_FOCUS);
        // Both lines are visible.
        browser.wait_for("(({ scrollHeight, clientHeight }) => scrollHeight <= clientHeight)(document.querySelector('#message-input'))");
        whisper_to(&browser, "Bob");
        wait_for_text_in_box(&browser, "for Bob");
        // They also survive leaving, but are not for another name.
        browser.click("#leave");
        browser.wait_for("document.activeElement.id === 'name'");
        assert_eq!(bob.next_line(), "system: Ann joined.");
        assert_eq!(bob.next_line(), "system: Ann left.");
        browser.press(&[ENTER]);
        wait_for_text_in_box(&browser, "for Bob");
        browser.click("#leave");
        browser.wait_for("document.activeElement.id === 'name'");
        browser.type_into("#name", &format!("{SELECT_ALL}Eve{ENTER}"));
        browser.wait_for_text("#log", "Eve joined.");
        assert_eq!(browser.evaluate(TEXT), "");
        assert_empty_console(&browser);
    }
}

#[test]
fn names_are_completed_after_an_at_sign() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let mut bob = server.client("Bob");
    let _lee = server.client("Bob Lee");
    let _eve = server.client("Eve");
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    ann.wait_for_text("#member-list", "Eve");
    ann.wait_for(HAS_FOCUS);
    let options =
        "[...document.querySelectorAll('#suggestions li')].map((option) => option.innerText).join()";
    // Anywhere in the text.
    ann.type_into("#message-input", "Hi , how are you?");
    ann.press(&[LEFT; 14]);
    ann.press(&["@"]);
    ann.wait_for(&format!("{options} === 'Bob,Bob Lee,Eve'"));
    ann.press(&["e", TAB]);
    wait_for_text_in_box(&ann, "Hi @Eve , how are you?");
    assert_eq!(ann.evaluate("document.querySelector('#suggestions').hidden"), true);
    // A complete name is sent by Enter, even if it begins another one.
    ann.type_into("#message-input", &format!("{SELECT_ALL}Thanks, @bo"));
    ann.wait_for(&format!("{options} === 'Bob,Bob Lee'"));
    ann.press(&["b"]);
    ann.wait_for("!document.querySelector('#message-input').hasAttribute('aria-activedescendant')");
    ann.press(&[" ", "l"]);
    ann.wait_for(&format!("{options} === 'Bob Lee'"));
    ann.press(&[ENTER]);
    wait_for_text_in_box(&ann, "Thanks, @Bob Lee ");
    ann.press(&[ENTER]);
    for _ in 0..3 {
        bob.next_line();
    }
    assert_eq!(bob.next_line(), "Ann: Thanks, @Bob Lee");
    ann.press(&["@", "b", "o", "b", ENTER]);
    assert_eq!(bob.next_line(), "Ann: @bob");
    // Not in an address, and not where the caret no longer is.
    ann.type_into("#message-input", "ann@e");
    assert_eq!(ann.evaluate("document.querySelector('#suggestions').hidden"), true);
    ann.type_into("#message-input", &format!("{SELECT_ALL}x @e"));
    ann.wait_for(&format!("{options} === 'Eve'"));
    ann.press(&[LEFT, LEFT, LEFT]);
    ann.wait_for("document.querySelector('#suggestions').hidden");
    assert_empty_console(&ann);
}

#[test]
fn whispers_go_to_their_recipient_until_the_chip_is_removed() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        let mut bob = server.client("Bob");
        let mut eve = server.client("Eve");
        assert_eq!(bob.next_line(), "system: Eve joined.");
        server.enter(&browser, "Ann");
        for client in [&mut bob, &mut eve] {
            assert_eq!(client.next_line(), "system: Ann joined.");
        }
        // A public draft never becomes a whisper.
        browser.type_into("#message-input", "for all of you");
        whisper_to(&browser, "Bob");
        assert_eq!(browser.evaluate(TEXT), "");
        // The chip stays, whatever is sent or clicked.
        send(&browser, "one");
        browser.click("#log");
        send(&browser, "two");
        for line in ["Ann to Bob: one", "Ann to Bob: two"] {
            assert_eq!(bob.next_line(), line);
        }
        browser.wait_for_text(".whisper.own", "whisper to Bob");
        // Each recipient has a draft.
        browser.type_into("#message-input", "three, for Bob");
        whisper_to(&browser, "Eve");
        assert_eq!(browser.evaluate(TEXT), "");
        send(&browser, "three, for Eve");
        assert_eq!(eve.next_line(), "Ann to Eve: three, for Eve");
        whisper_to(&browser, "Bob");
        browser.click("#send");
        assert_eq!(bob.next_line(), "Ann to Bob: three, for Bob");
        // A typed command still works, and so does a line that begins with a slash.
        send(&browser, "/whisper Eve four");
        assert_eq!(eve.next_line(), "Ann to Eve: four");
        send(&browser, "//five");
        assert_eq!(bob.next_line(), "Ann to Bob: /five");
        // The button has a name, and leads back to the public draft.
        assert_eq!(
            browser.evaluate("document.querySelector('#stop-whisper').ariaLabel"),
            "Stop whispering to Bob"
        );
        browser.click("#stop-whisper");
        wait_for_text_in_box(&browser, "for all of you");
        browser.wait_for(HAS_FOCUS);
        browser.click("#send");
        for client in [&mut bob, &mut eve] {
            assert_eq!(client.next_line(), "Ann: for all of you");
        }
        let texts = ["one", "two", "three, for Eve", "three, for Bob", "four", "/five", "for all of you"];
        wait_for_messages(&browser, &texts);
        // The chip leads to the conversation.
        whisper_to(&browser, "Bob");
        browser.click("#recipient-label");
        browser.wait_for_text("#conversation-name", "Bob");
        browser.wait_for("![...document.querySelectorAll('#log .message-text')].some((text) => text.checkVisibility() && text.innerText === 'four')");
        browser.click("#stop-whisper");
        browser.wait_for("document.querySelector('#conversation').hidden");
        // Escape closes the suggestions first.
        whisper_to(&browser, "Bob");
        browser.type_into("#message-input", "@E");
        browser.wait_for("!document.querySelector('#suggestions').hidden");
        browser.press(&[ESCAPE]);
        browser.wait_for("document.querySelector('#suggestions').hidden");
        browser.wait_for_text("#recipient", "To Bob");
        browser.press(&[ESCAPE]);
        browser.wait_for("document.querySelector('#recipient').hidden");
        assert_empty_console(&browser);
    }
}

#[test]
fn a_whisper_to_someone_who_has_left_says_so_and_keeps_the_chip() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let bob = server.client("Bob");
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    whisper_to(&ann, "Bob");
    bob.leave();
    ann.wait_for_text("#log", "Bob left.");
    send(&ann, "are you there?");
    ann.wait_for_text(".message.own.whisper", "Not sent: Nobody here is called Bob.");
    ann.wait_for_text(".message.own.whisper", "whisper to Bob");
    ann.wait_for_text("#recipient", "To Bob");
    let mut bob = server.client("Bob");
    ann.press(&[UP, ENTER]);
    assert_eq!(bob.next_line(), "Ann to Bob: are you there?");
    assert_empty_console(&ann);
}

/// The recipient is the one of the moment when the user sent it.
#[test]
fn whispers_that_wait_for_the_connection_reach_their_recipients_once() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let proxy = Proxy::start(server.address());
    let ann = driver.desktop();
    server.enter_at(&server.url_at(proxy.address.port()), &ann, "Ann");
    let mut bob = server.client("Bob");
    let mut eve = server.client("Eve");
    assert_eq!(bob.next_line(), "system: Eve joined.");
    whisper_to(&ann, "Bob");
    send(&ann, "one");
    assert_eq!(bob.next_line(), "Ann to Bob: one");
    // These get lost, and the page does not know it yet.
    proxy.blackhole();
    send(&ann, "two");
    whisper_to(&ann, "Eve");
    send(&ann, "three");
    ann.wait_for("document.querySelector('#status').dataset.state === 'connecting'");
    whisper_to(&ann, "Bob");
    send(&ann, "four");
    ann.wait_for_text(LATEST, "whisper to Bob");
    ann.wait_for_text(LATEST, "Not sent yet");
    ann.press(&[ESCAPE]);
    ann.wait_for("document.querySelector('#recipient').hidden");
    ann.type_into("#message-input", "a public draft");
    // The browser may have opened a connection for the reload already: it must not swallow the request.
    proxy.cut();
    proxy.restore();
    ann.reload();
    for line in ["Ann to Bob: two", "Ann to Bob: four"] {
        assert_eq!(bob.next_line(), line);
    }
    assert_eq!(eve.next_line(), "Ann to Eve: three");
    wait_until_back(&ann);
    wait_for_messages(&ann, &["one", "two", "three", "four"]);
    bob.assert_nothing_received();
    eve.assert_nothing_received();
    wait_for_text_in_box(&ann, "a public draft");
    assert_only_connection_errors(&ann);
}

#[test]
fn axe_finds_no_violations_in_whispers_and_warnings() {
    let (Some(driver), Some(axe)) = (Driver::start(), axe_core()) else { return };
    for (browser, size) in [(driver.desktop(), "desktop"), (driver.phone(), "phone")] {
        let server = Server::with_flags(Transport::Ws, &["--max-message-bytes", "200"]);
        let proxy = Proxy::start(server.address());
        server.enter_at(&server.url_at(proxy.address.port()), &browser, "Ann");
        let _bob = server.client("Bob");
        let check = |state: &str| {
            for is_dark in [false, true] {
                browser.set_dark(is_dark);
                browser.assert_accessible(&axe, &format!("{state} ({size}, dark: {is_dark})"));
                assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
            }
        };
        whisper_to(&browser, "Bob");
        check("an empty whisper");
        paste(&browser, &"too long ".repeat(50));
        browser.wait_for_text("#size", "over the limit");
        check("a whisper that is too long");
        browser.type_into("#message-input", &format!("{SELECT_ALL}@"));
        browser.wait_for("!document.querySelector('#suggestions').hidden");
        check("names to complete");
        proxy.cut();
        browser.wait_for("document.querySelector('#status').dataset.state !== 'online'");
        send(&browser, "psst");
        browser.wait_for_text(LATEST, "Not sent yet");
        check("offline with a whisper that waits");
        browser.click("#leave");
        browser.wait_for("document.querySelector('dialog[open]')");
        check("the question about unsent messages");
    }
}
