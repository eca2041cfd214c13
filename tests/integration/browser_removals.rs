//! Passwords, kicks, bans and deletions in the chat page, in a real browser, with the program itself.

use serde_json::json;

use crate::support::chat_page::{
    LATEST, SELECT_ALL, Server, assert_empty_console, assert_only_connection_errors, send, wait_for_messages,
    wait_until_back,
};
use crate::support::client::Client;
use crate::support::server::Transport;
use crate::support::webdriver::{Browser, Driver, ENTER};

#[test]
fn the_password_for_joining_is_asked_for_and_used_again_after_a_restart() {
    let Some(driver) = Driver::start() else { return };
    let mut server = Server::with_flags(Transport::Ws, &["--join-password", "open sesame"]);
    let ann = driver.desktop();
    ann.open(&server.url());
    ann.wait_for("document.activeElement.id === 'name'");
    ann.type_into("#name", &format!("Ann{ENTER}"));
    ann.wait_for_text("#join-error", "This room requires a password.");
    ann.wait_for("document.activeElement.id === 'password'");
    ann.type_into("#password", &format!("guess{ENTER}"));
    ann.wait_for_text("#join-error", "Wrong password.");
    ann.type_into("#password", &format!("{SELECT_ALL}open sesame{ENTER}"));
    ann.wait_for_text("#log", "Ann joined.");
    // The restarted server does not know the session.
    server.stop();
    ann.wait_for("document.querySelector('#status').dataset.state !== 'online'");
    server.resume();
    wait_until_back(&ann);
    let mut bob = server.connect();
    bob.join_asking("Bob", json!({"history": 0, "password": "open sesame"}));
    assert_eq!(bob.next_line(), "system: Bob joined.");
    send(&ann, "still here");
    assert_eq!(bob.next_line(), "Ann: still here");
    assert_only_connection_errors(&ann);
}

#[test]
fn whoever_was_kicked_can_join_again() {
    let Some(driver) = Driver::start() else { return };
    let (server, mut ann) = moderated();
    let bob = driver.desktop();
    server.enter(&bob, "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.command("/kick Bob too loud");
    wait_until_removed(&bob, "You've been removed from the room: too loud");
    bob.wait_for_text("#log", "Ann kicked Bob: too loud");
    assert_eq!(ann.next_line(), "system: Ann kicked Bob: too loud");
    assert_eq!(ann.next_line(), "system: Bob left.");
    bob.click("#rejoin");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    wait_until_back(&bob);
    send(&bob, "sorry");
    assert_eq!(ann.next_line(), "Bob: sorry");
    assert_empty_console(&bob);
}

#[test]
fn whoever_is_banned_is_told_until_when_and_why() {
    let Some(driver) = Driver::start() else { return };
    let (server, mut ann) = moderated();
    let bob = driver.desktop();
    server.enter(&bob, "Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.command("/ban Bob 1d spam");
    wait_until_removed(&bob, "You've been removed from the room: spam");
    bob.wait_for_text(".notice.error", "You are banned until ");
    assert_eq!(ann.next_line(), "system: Ann banned Bob for 1 d: spam");
    assert_eq!(ann.next_line(), "system: Bob left.");
    assert!(ann.next_line().starts_with("system: Banned Bob for 1 d: spam"));
    for attempt in ["click", "reload"] {
        match attempt {
            "click" => bob.click("#rejoin"),
            _ => bob.reload(),
        }
        wait_until_removed(&bob, "You are banned until ");
        bob.wait_for_text(LATEST, ": spam");
    }
    ann.command("/unban Bob");
    assert_eq!(ann.next_line(), "system: The ban of Bob has ended.");
    bob.click("#rejoin");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    wait_until_back(&bob);
    assert_empty_console(&bob);
}

#[test]
fn a_deleted_message_disappears_from_all_pages() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let (ann, bob) = (driver.desktop(), driver.desktop());
    server.enter(&ann, "Ann");
    server.enter(&bob, "Bob");
    send(&ann, "oops");
    send(&ann, "hello");
    for browser in [&ann, &bob] {
        wait_for_messages(browser, &["oops", "hello"]);
    }
    let title = ann.evaluate("document.querySelector('.message.own time').title");
    let id = title.as_str().unwrap().rsplit(' ').next().unwrap();
    send(&ann, &format!("/delete {id}"));
    for browser in [&ann, &bob] {
        wait_for_messages(browser, &["Message deleted", "hello"]);
    }
    // A page that comes later does not have it.
    bob.reload();
    wait_for_messages(&bob, &["hello"]);
    [&ann, &bob].into_iter().for_each(assert_empty_console);
}

/// A server with a moderator on it.
fn moderated() -> (Server, Client) {
    let server = Server::start(Transport::Ws);
    let mut ann = server.client("Ann");
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    (server, ann)
}

/// Waits until the page says that its member has been removed, with this notice.
fn wait_until_removed(browser: &Browser, notice: &str) {
    browser.wait_for_text("#status", "Removed");
    browser.wait_for_text(LATEST, notice);
    browser.wait_for_text("#rejoin", "Join again");
}
