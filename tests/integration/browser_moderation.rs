//! Passwords, removals and deletions in the chat page, in a real browser. The test speaks the server's side.

use serde_json::{Value, json};

use crate::support::chat_page::{
    BACKSPACE, LATEST, SELECT_ALL, assert_empty_console, assert_only_connection_errors, send,
    wait_for_messages,
};
use crate::support::scripted::{Peer, ScriptedServer, public, system};
use crate::support::webdriver::{Browser, Driver, ENTER, ESCAPE, TAB, axe_core};

const STATE: &str = "document.querySelector('#status').dataset.state";
const MESSAGE: &str = "document.querySelector('#message-input').value";
const IS_PASSWORD_SHOWN: &str = "document.querySelector('#password').checkVisibility()";
const PASSWORD_REQUIRED: &str = "This room requires a password.";
/// The reason of the only close with 1008 that is not a moderator's.
const TOO_SLOW: &str = "a message took longer than HANDSHAKE_TIMEOUT";

/// Opens the page, and enters the name.
fn open(server: &ScriptedServer, browser: &Browser) -> Peer {
    browser.open(&server.url());
    browser.wait_for("document.activeElement.id === 'name'");
    browser.type_into("#name", &format!("Ann{ENTER}"));
    server.accept()
}

/// Lets the page in as Ann.
fn admit(peer: &Peer, browser: &Browser) {
    peer.admit(&["Ann"], &json!({}));
    browser.wait_for(&format!("{STATE} === 'online'"));
}

/// Opens the page, and joins as Ann.
fn enter(server: &ScriptedServer, browser: &Browser) -> Peer {
    let peer = open(server, browser);
    peer.next_join();
    admit(&peer, browser);
    peer
}

/// Everything that the page stores or shows, and its address.
fn traces(browser: &Browser) -> String {
    let traces = browser.evaluate(
        "JSON.stringify([localStorage, sessionStorage, history.state, location.href]) + \
         document.documentElement.outerHTML + document.body.innerText",
    );
    traces.as_str().unwrap().to_owned()
}

#[test]
fn a_password_is_asked_for_where_one_is_needed() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = open(&server, &ann);
    assert_eq!(peer.next_join()["password"], Value::Null);
    assert_eq!(ann.evaluate(IS_PASSWORD_SHOWN), false);
    peer.error(PASSWORD_REQUIRED);
    ann.wait_for_text("#join-error", PASSWORD_REQUIRED);
    ann.wait_for("document.activeElement.id === 'password'");
    ann.press(&["n", "o", ENTER]);
    assert_eq!(peer.next_join()["password"], "no");
    peer.error("Wrong password.");
    ann.wait_for_text("#join-error", "Wrong password.");
    ann.wait_for("document.querySelector('#password').ariaInvalid === 'true'");
    ann.type_into("#password", ENTER);
    assert_eq!(peer.next_join()["password"], "no", "what was typed is still there");
    peer.error("Too many wrong passwords: wait 50 seconds.");
    ann.wait_for_text("#join-error", "wait 50 seconds");
    ann.type_into("#password", &format!("{SELECT_ALL}open sesame{ENTER}"));
    assert_eq!(peer.next_join()["password"], "open sesame");
    admit(&peer, &ann);
    assert_eq!(ann.evaluate("document.querySelector('#password').value"), "");
    assert!(!traces(&ann).contains("open sesame"));

    // A session needs no password. If the server does not know it any more, the page still has the password.
    peer.cut();
    let peer = server.accept();
    let join = peer.next_join();
    assert_eq!((&join["session"], &join["password"]), (&json!("the session"), &Value::Null));
    peer.error(PASSWORD_REQUIRED);
    assert_eq!(peer.next_join()["password"], "open sesame");
    admit(&peer, &ann);
    assert!(!traces(&ann).contains("open sesame"));

    // Whoever leaves is asked again.
    ann.click("#leave");
    ann.wait_for(IS_PASSWORD_SHOWN);
    ann.type_into("#name", ENTER);
    let peer = server.accept();
    assert_eq!(peer.next_join()["password"], Value::Null);
    peer.error("The name Ann is reserved: it requires its password.");
    ann.wait_for_text("#join-error", "The name Ann is reserved");
    assert_only_connection_errors(&ann);
}

#[test]
fn other_errors_that_mention_passwords_do_not_ask_for_one() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = open(&server, &ann);
    peer.next_join();
    peer.error("The username password is in use: choose another.");
    ann.wait_for_text("#join-error", "in use");
    assert_eq!(ann.evaluate(IS_PASSWORD_SHOWN), false);
    ann.type_into("#name", ENTER);
    peer.next_join();
    peer.error("You are banned: you gave away the password.");
    peer.close(1008, "you gave away the password.");
    ann.wait_for_text("#join-error", "You are banned: you gave away the password.");
    assert_eq!(ann.evaluate(IS_PASSWORD_SHOWN), false);
    assert_empty_console(&ann);
}

#[test]
fn nothing_is_lost_while_the_password_is_missing_after_a_reload() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = open(&server, &ann);
    peer.next_join();
    peer.error(PASSWORD_REQUIRED);
    ann.wait_for("document.activeElement.id === 'password'");
    ann.type_into("#password", &format!("open sesame{ENTER}"));
    peer.next_join();
    admit(&peer, &ann);
    send(&ann, "not confirmed");
    assert_eq!(peer.next()["content"], "not confirmed");
    ann.type_into("#message-input", "half a thought");
    ann.reload();
    let peer = server.accept();
    let join = peer.next_join();
    assert_eq!((&join["session"], &join["password"]), (&json!("the session"), &Value::Null));
    peer.error(PASSWORD_REQUIRED);
    let hint = "This room requires a password. Your unsent messages have been kept.";
    ann.wait_for_text("#join-error", hint);
    ann.wait_for("document.activeElement.id === 'password'");
    assert_eq!(ann.evaluate("document.querySelector('#name').value"), "Ann");
    // The page waits for the user, whatever happens to the connection.
    peer.cut();
    ann.evaluate("dispatchEvent(new Event('online')), dispatchEvent(new Event('pageshow'))");
    ann.type_into("#password", &format!("open sesame{ENTER}"));
    let peer = server.accept();
    peer.next_join();
    peer.error(PASSWORD_REQUIRED);
    let join = peer.next_join();
    assert_eq!((&join["password"], &join["since"]), (&json!("open sesame"), &json!(100)));
    admit(&peer, &ann);
    assert_eq!(peer.next()["content"], "not confirmed");
    assert_eq!(ann.evaluate(MESSAGE), "half a thought");
    assert!(!traces(&ann).contains("open sesame"));
    server.assert_no_connection();
    // Nothing is kept that is discarded.
    ann.click("#leave");
    ann.click("dialog .danger");
    ann.wait_for("document.activeElement.id === 'name'");
    assert_eq!(ann.evaluate("sessionStorage.length"), 0);
}

#[test]
fn the_password_of_login_is_never_shown_or_stored() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = enter(&server, &ann);
    ann.type_into("#message-input", "a draft");
    assert!(traces(&ann).contains("a draft"));
    ann.type_into("#message-input", &format!("{SELECT_ALL}/login hunter2"));
    let look = "getComputedStyle(document.querySelector('#message-input')).webkitTextSecurity";
    assert_eq!(ann.evaluate(look), "disc");
    assert!(!traces(&ann).contains("hunter2"));
    ann.type_into("#message-input", ENTER);
    assert_eq!(peer.next()["content"], "/login hunter2");
    ann.wait_for(&format!("{MESSAGE} === ''"));
    assert_eq!(ann.evaluate(look), "none");
    assert!(!traces(&ann).contains("hunter2"));
    // It is not sent again after a cut, and does not come back into the box.
    peer.cut();
    let peer = server.accept();
    peer.next_join();
    admit(&peer, &ann);
    ann.wait_for_text("#log", "this command may not have run: /login.");
    assert_eq!(ann.evaluate(MESSAGE), "");
    send(&ann, "hello");
    assert_eq!(peer.next()["content"], "hello");
    assert!(!traces(&ann).contains("hunter2"));
    // Nor while the page is offline, where it stays in the box.
    peer.cut();
    ann.wait_for(&format!("{STATE} !== 'online'"));
    ann.type_into("#message-input", &format!("/login hunter2{ENTER}"));
    ann.wait_for_text("#log", "Commands can't be sent while you're offline.");
    ann.type_into("#message-input", &format!("{SELECT_ALL}{BACKSPACE}"));
    assert!(!traces(&ann).contains("hunter2"));
    assert_only_connection_errors(&ann);
}

#[test]
fn deleted_messages_disappear() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = open(&server, &ann);
    peer.next_join();
    let messages = [public(60, "Bob", "sixty"), public(61, "Bob", "🎉"), system(62, "Bob kicked Tom: spam")];
    peer.admit_with(&["Bob", "Ann"], &json!({}), &messages, true);
    // Of a page that is on its way, too.
    let request = peer.next();
    assert_eq!((&request["type"], &request["before"]), (&json!("history"), &json!(60)));
    peer.deleted(50);
    // An older one does not make the page skip what is between.
    peer.deleted(7);
    peer.history(&[public(50, "Bob", "fifty"), public(51, "Bob", "fifty-one")], true);
    assert_eq!(peer.next()["before"], 51);
    peer.history(&[], false);
    wait_for_messages(&ann, &["fifty-one", "sixty", "🎉"]);
    peer.deleted(61);
    peer.deleted(62);
    wait_for_messages(&ann, &["fifty-one", "sixty", "Message deleted"]);
    ann.wait_for_text(".notice.deleted", "Message deleted");
    assert_eq!(ann.evaluate("document.querySelector('#log').innerText.includes('kicked')"), false);
    // The user's own.
    send(&ann, "mine");
    peer.ack(&peer.next()["txn_id"], 101);
    wait_for_messages(&ann, &["fifty-one", "sixty", "Message deleted", "mine"]);
    // Its id is shown, for /delete.
    ann.wait_for("document.querySelector('.message.own time').title.endsWith(', ID 101')");
    peer.deleted(101);
    ann.wait_for_text(".message.own.deleted", "Message deleted");
    // One that the page does not have.
    peer.deleted(102);
    peer.send(public(102, "Bob", "secret"));
    peer.send(public(103, "Bob", "the end"));
    wait_for_messages(&ann, &["fifty-one", "sixty", "Message deleted", "Message deleted", "the end"]);
    assert_empty_console(&ann);
}

#[test]
fn whoever_is_removed_is_told_why_and_can_join_again() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = enter(&server, &ann);
    let wait_until_removed = |text: &str| {
        ann.wait_for_text(LATEST, text);
        ann.wait_for_text("#status", "Removed");
        ann.wait_for_text("#rejoin", "Join again");
        // Events after which a lost connection is made again.
        ann.evaluate("dispatchEvent(new Event('online')), dispatchEvent(new Event('pageshow'))");
        assert_eq!(ann.evaluate(STATE), "removed");
        server.assert_no_connection();
    };
    peer.close(1008, "spam");
    wait_until_removed("You've been removed from the room: spam");
    ann.click("#rejoin");
    let peer = server.accept();
    peer.next_join();
    peer.error("You are banned until 18:00: spam");
    peer.close(1008, "spam");
    wait_until_removed("You are banned until 18:00: spam");
    // A reload tries once.
    ann.reload();
    let peer = server.accept();
    peer.next_join();
    peer.error("You are banned until 18:00: spam");
    peer.close(1008, "");
    wait_until_removed("You are banned until 18:00: spam");
    ann.click("#rejoin");
    let peer = server.accept();
    peer.next_join();
    admit(&peer, &ann);
    assert_eq!(ann.evaluate("document.querySelector('#rejoin').hidden"), true);
    server.assert_no_connection();
    peer.close(1008, "");
    wait_until_removed("You've been removed from the room.");
    ann.click("#rejoin");
    let peer = server.accept();
    peer.next_join();
    admit(&peer, &ann);

    // After a close for another reason, the page reconnects by itself.
    assert!(include_str!("../../src/connection/reader.rs").contains(TOO_SLOW));
    peer.close(1008, TOO_SLOW);
    let peer = server.accept();
    peer.next_join();
    admit(&peer, &ann);
    assert_empty_console(&ann);
}

#[test]
fn names_are_completed_after_every_command_that_takes_one() {
    let Some(driver) = Driver::start() else { return };
    let server = ScriptedServer::start();
    let ann = driver.desktop();
    let peer = open(&server, &ann);
    peer.next_join();
    let usages = [
        "/kick [user] [reason]",
        "/ban [user, address or network] [duration] [reason]",
        "/unto [user]",
        "/info [user]",
        "/delete [id]",
    ];
    let commands: Value = usages
        .iter()
        .map(|usage| (usage.split(' ').next().unwrap().to_owned(), json!({"usage": usage})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    peer.admit(&["Bob Lee", "Tom", "Ann"], &commands);
    ann.wait_for("document.activeElement.id === 'message-input'");
    ann.wait_for_text("#member-list", "Bob Lee");
    for command in ["/kick", "/ban", "/unto", "/info"] {
        for (typed, completed) in [("b", "\"Bob Lee\""), ("\"Bo", "\"Bob Lee\""), ("t", "Tom")] {
            ann.type_into("#message-input", &format!("{SELECT_ALL}{command} {typed}"));
            ann.wait_for("document.querySelectorAll('#suggestions li').length === 1");
            ann.press(&[TAB]);
            ann.wait_for(&format!("{MESSAGE} === {}", json!(format!("{command} {completed} "))));
            assert_eq!(ann.evaluate("document.querySelector('#suggestions').hidden"), true);
        }
    }
    ann.type_into("#message-input", &format!("{SELECT_ALL}/delete b"));
    ann.wait_for_text("#command-usage", "/delete [id]");
    assert_eq!(ann.evaluate("document.querySelector('#suggestions').hidden"), true);
    ann.press(&[ESCAPE]);
    assert_empty_console(&ann);
}

#[test]
fn axe_finds_no_violations_in_forms_and_notices_of_moderation() {
    let (Some(driver), Some(axe)) = (Driver::start(), axe_core()) else { return };
    for (browser, size) in [(driver.desktop(), "desktop"), (driver.phone(), "phone")] {
        let server = ScriptedServer::start();
        let check = |state: &str| {
            for is_dark in [false, true] {
                browser.set_dark(is_dark);
                browser.assert_accessible(&axe, &format!("{state} ({size}, dark: {is_dark})"));
            }
        };
        let peer = open(&server, &browser);
        peer.next_join();
        peer.error("Wrong password.");
        browser.wait_for_text("#join-error", "Wrong password.");
        check("join form with a password");
        browser.type_into("#password", &format!("open sesame{ENTER}"));
        peer.next_join();
        let messages = [public(60, "Bob", "sixty"), system(61, "Bob kicked Tom: spam")];
        peer.admit_with(&["Bob", "Ann"], &json!({}), &messages, false);
        browser.wait_for_text("#log", "sixty");
        peer.deleted(60);
        peer.deleted(61);
        browser.wait_for("document.querySelectorAll('.deleted').length === 2");
        browser.type_into("#message-input", "/login hunter2");
        check("deleted messages and a password in the message box");
        peer.close(1008, "spam");
        browser.wait_for_text("#rejoin", "Join again");
        check("removed");
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
        assert_empty_console(&browser);
    }
}
