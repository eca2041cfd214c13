//! What the chat page says about its connection, and how it keeps what was not sent, in a real browser, on a desktop and
//! on a phone.

use rustix::process::Signal;
use serde_json::json;

use crate::support::chat_page::{
    LATEST, SELECT_ALL, SHOWN, STOP_CLOCK, Server, assert_empty_console, assert_only_connection_errors, send,
    wait_for_messages, wait_until_back,
};
use crate::support::proxy::Proxy;
use crate::support::scripted::ScriptedServer;
use crate::support::server::Transport;
use crate::support::webdriver::{Browser, Driver, ENTER};

const STATE: &str = "document.querySelector('#status').dataset.state";
const HAS_FOCUS: &str = "document.activeElement.id === 'message-input'";
const WOULD_ASK: &str = "!dispatchEvent(new Event('beforeunload', { cancelable: true }))";

/// From now on, `states` in the page has all states of the connection.
fn record_states(browser: &Browser) {
    browser.evaluate(
        "void (window.states = [], new MutationObserver(() => states.push(document.querySelector('#status').dataset.state)) \
         .observe(document.querySelector('#status'), { attributeFilter: ['data-state'] }))",
    );
}

#[test]
fn the_page_says_that_the_server_does_not_respond_before_it_gives_up() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        let proxy = Proxy::start(server.address());
        server.enter_at(&server.url_at(proxy.address.port()), &browser, "Ann");
        browser.wait_for(&format!("{STATE} === 'online'"));
        record_states(&browser);
        proxy.blackhole();
        browser.wait_for_text("#status", "Offline: the server isn't responding");
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
        // The user need not wait.
        browser.wait_for("document.querySelector('#retry').checkVisibility()");
        proxy.restore();
        // Not with the mouse: the page may start to connect first, and hide the button.
        browser.evaluate("document.querySelector('#retry').click()");
        wait_until_back(&browser);
        let states = browser.evaluate("states");
        assert_eq!(states.as_array().unwrap().first(), Some(&json!("unresponsive")));
        assert_only_connection_errors(&browser);
    }
}

/// A connection that is only slow is not given up.
#[test]
fn an_answer_ends_the_silence() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    ann.wait_for(&format!("{STATE} === 'online'"));
    record_states(&ann);
    // The page does not give up, even if the test is slow.
    ann.evaluate(&format!(
        "void new MutationObserver(() => {{ if ({STATE} === 'unresponsive') {STOP_CLOCK}; }}) \
         .observe(document.querySelector('#status'), {{ attributeFilter: ['data-state'] }})"
    ));
    server.signal(Signal::STOP);
    ann.wait_for(&format!("{STATE} === 'unresponsive'"));
    send(&ann, "one");
    server.signal(Signal::CONT);
    ann.wait_for(&format!("{STATE} === 'online'"));
    wait_for_messages(&ann, &["one"]);
    assert_eq!(ann.evaluate("states"), json!(["unresponsive", "online"]));
    assert_empty_console(&ann);
}

#[test]
fn a_slow_line_is_not_offline() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let mut bob = server.client("Bob");
    let ann = driver.phone();
    server.enter(&ann, "Ann");
    assert_eq!(bob.next_line(), "system: Ann joined.");
    ann.devtools("Network.enable", json!({}));
    ann.devtools(
        "Network.emulateNetworkConditions",
        json!({"offline": false, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}),
    );
    record_states(&ann);
    // Each takes longer than a probe of the silent connection.
    for line in ["one", "two", "three", "four", "five"] {
        send(&ann, line);
        assert_eq!(bob.next_line(), format!("Ann: {line}"));
        bob.public(&line.repeat(2_000));
        ann.wait_for_text(LATEST, &line.repeat(2_000));
    }
    assert_eq!(ann.evaluate("states"), json!([]));
}

#[test]
fn the_countdown_counts_down_without_being_announced() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let proxy = Proxy::start(server.address());
    let ann = driver.desktop();
    server.enter_at(&server.url_at(proxy.address.port()), &ann, "Ann");
    ann.evaluate(
        "void (window.counts = [], window.announced = [], \
         new MutationObserver(() => { const text = document.querySelector('#countdown').innerText; if (text !== counts.at(-1)) counts.push(text); }) \
         .observe(document.querySelector('#countdown'), { childList: true }), \
         new MutationObserver(() => announced.push(document.querySelector('[role=status]#status-text').innerText)) \
         .observe(document.querySelector('#status-text'), { childList: true }))",
    );
    proxy.cut();
    ann.wait_for("counts.join().includes('in 3 s,in 2 s,in 1 s')");
    ann.wait_for("announced.includes('Connection lost. Retrying')");
    assert_eq!(ann.evaluate("announced.some((text) => /[0-9]/.test(text))"), false);
    assert_only_connection_errors(&ann);
}

#[test]
fn unsent_messages_survive_leaving() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        let proxy = Proxy::start(server.address());
        let url = server.url_at(proxy.address.port());
        server.enter_at(&url, &browser, "Ann");
        let mut bob = server.client("Bob");
        send(&browser, "one");
        assert_eq!(bob.next_line(), "Ann: one");
        wait_for_messages(&browser, &["one"]);
        proxy.cut();
        browser.wait_for(&format!("{STATE} !== 'online'"));
        send(&browser, "two");
        send(&browser, "/whisper Bob three");
        browser.click("#leave");
        browser.wait_for_text("dialog", "2 messages haven't been sent yet");
        // The harmless choice has the focus, and closing the dialog is one.
        assert_eq!(browser.evaluate("document.activeElement.innerText"), "Stay");
        browser.press(&[ENTER]);
        browser.wait_for(
            "!document.querySelector('dialog') && document.querySelector('#room').checkVisibility()",
        );
        browser.click("#leave");
        browser.click("dialog button:nth-of-type(2)");
        browser.wait_for("document.activeElement.id === 'name'");
        proxy.restore();
        browser.reload();
        // They are not sent under another name.
        browser.wait_for("document.activeElement.id === 'name'");
        browser.type_into("#name", &format!("{SELECT_ALL}Eve{ENTER}"));
        assert_eq!(bob.next_line(), "system: Eve joined.");
        browser.wait_for(HAS_FOCUS);
        browser.click("#leave");
        assert_eq!(bob.next_line(), "system: Eve left.");
        browser.wait_for("document.activeElement.id === 'name'");
        // The page takes back the place in the room, which the server has kept.
        browser.type_into("#name", &format!("{SELECT_ALL}Ann{ENTER}"));
        for line in ["Ann: two", "Ann to Bob: three"] {
            assert_eq!(bob.next_line(), line);
        }
        browser.wait_for("!document.querySelector('.pending, .delivery-state')");
        browser.wait_for(&format!("['two', 'three'].every((text) => {SHOWN}.includes(text))"));
        assert_only_connection_errors(&browser);
    }
}

#[test]
fn unsent_messages_can_be_discarded() {
    let Some(driver) = Driver::start() else { return };
    // Without a place that the server keeps, so that the name is free at once.
    let server = Server::with_flags(Transport::Ws, &["--resume-seconds", "0"]);
    let proxy = Proxy::start(server.address());
    let url = server.url_at(proxy.address.port());
    let ann = driver.desktop();
    server.enter_at(&url, &ann, "Ann");
    let mut bob = server.client("Bob");
    proxy.cut();
    ann.wait_for(&format!("{STATE} !== 'online'"));
    assert_eq!(bob.next_line(), "system: Ann left.");
    send(&ann, "one");
    ann.click("#leave");
    ann.wait_for_text("dialog", "1 message hasn't been sent yet");
    ann.click("dialog .danger");
    ann.wait_for("document.activeElement.id === 'name'");
    proxy.restore();
    ann.type_into("#name", ENTER);
    ann.wait_for(HAS_FOCUS);
    send(&ann, "two");
    for line in ["system: Ann joined.", "Ann: two"] {
        assert_eq!(bob.next_line(), line);
    }
    wait_for_messages(&ann, &["two"]);
}

#[test]
fn closing_the_tab_asks_only_if_there_is_something_unsent() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let proxy = Proxy::start(server.address());
    let ann = driver.desktop();
    server.enter_at(&server.url_at(proxy.address.port()), &ann, "Ann");
    send(&ann, "one");
    wait_for_messages(&ann, &["one"]);
    assert_eq!(ann.evaluate(WOULD_ASK), false);
    proxy.cut();
    ann.wait_for(&format!("{STATE} !== 'online'"));
    send(&ann, "two");
    assert_eq!(ann.evaluate(WOULD_ASK), true);
    proxy.restore();
    ann.evaluate("dispatchEvent(new Event('online'))");
    wait_until_back(&ann);
    wait_for_messages(&ann, &["one", "two"]);
    assert_eq!(ann.evaluate(WOULD_ASK), false);
}

#[test]
fn a_second_press_on_join_does_nothing() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = ScriptedServer::start();
        browser.open(&server.url());
        browser.wait_for("document.activeElement.id === 'name'");
        browser.type_into("#name", "Ann");
        browser
            .evaluate("void [1, 2, 3].forEach(() => document.querySelector('#join-form').requestSubmit())");
        let peer = server.accept();
        peer.next_join();
        browser.type_into("#name", ENTER);
        peer.admit(&["Ann"], &json!({}));
        browser.wait_for(HAS_FOCUS);
        send(&browser, "one");
        assert_eq!(peer.next()["content"], "one", "there was one join");
        server.assert_no_connection();
        assert_empty_console(&browser);
    }
}

#[test]
fn the_back_button_does_not_lose_the_room() {
    let Some(driver) = Driver::start() else { return };
    for (browser, is_phone) in [(driver.desktop(), false), (driver.phone(), true)] {
        let server = Server::start(Transport::Ws);
        let mut bob = server.client("Bob");
        server.enter(&browser, "Ann");
        assert_eq!(bob.next_line(), "system: Ann joined.");
        send(&browser, "one");
        assert_eq!(bob.next_line(), "Ann: one");
        wait_for_messages(&browser, &["one"]);
        browser.type_into("#message-input", "a draft");
        // First, Back closes what is open.
        if is_phone {
            browser.click("#members-button");
            browser.wait_for("document.querySelector('#members').checkVisibility()");
            browser.evaluate("history.back()");
            browser.wait_for("!document.querySelector('#members').checkVisibility()");
            browser.wait_for("history.state === 'room'");
        }
        // Then it shows a hint, which the next click takes back.
        for _ in 0..2 {
            browser.evaluate("history.back()");
            browser.wait_for_text("#log", "Press Back again to leave the page.");
            browser.wait_for(&format!("{STATE} === 'online'"));
            browser.click("#log");
            browser.wait_for("!document.querySelector('#log').innerText.includes('Press Back again')");
        }
        browser.evaluate("history.back()");
        browser.wait_for_text("#log", "Press Back again to leave the page.");
        let start = browser.evaluate("location.href");
        browser.evaluate("void setTimeout(() => history.back())");
        browser.wait_for(&format!("location.href !== {start}"));
        // Who comes back is still in the room.
        browser.evaluate("void setTimeout(() => history.forward())");
        browser.wait_for(&format!("location.href === {start}"));
        browser.wait_for_text("#status", "Connected");
        wait_for_messages(&browser, &["one"]);
        browser.wait_for("document.querySelector('#message-input').value === 'a draft'");
        browser.click("#send");
        assert_eq!(bob.next_line(), "Ann: a draft", "nobody has left");
        // Leaving leads back to where the page was before the join.
        browser.click("#leave");
        browser.wait_for("document.activeElement.id === 'name'");
        assert_eq!(bob.next_line(), "system: Ann left.");
        browser.wait_for("history.state === null");
    }
}

/// Such as another version of the page.
#[test]
fn what_others_have_stored_does_not_keep_anyone_out() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let mut bob = server.client("Bob");
    let ann = driver.desktop();
    ann.open(&server.url());
    ann.evaluate("localStorage.setItem('name', 'Ann Bell')");
    for stored in ["5", "{}", "[null, 1, {\"content\": \"lost\"}]", "neither"] {
        ann.evaluate(&format!(
            "['outbox', 'session', 'drafts', 'place'].forEach((key) => sessionStorage.setItem(key, {}))",
            json!(stored)
        ));
        ann.reload();
        ann.wait_for("document.activeElement.id === 'name'");
        assert_eq!(ann.evaluate("document.activeElement.value"), "Ann Bell");
        ann.press(&[ENTER]);
        ann.wait_for(&format!("{STATE} === 'online'"));
        send(&ann, stored);
        ann.wait_for(&format!("{SHOWN}.at(-1) === {} && !document.querySelector('.pending')", json!(stored)));
        assert_eq!(ann.evaluate(WOULD_ASK), false);
        ann.click("#leave");
        ann.wait_for("document.activeElement.id === 'name'");
        for line in ["system: Ann Bell joined.", &format!("Ann Bell: {stored}"), "system: Ann Bell left."] {
            assert_eq!(bob.next_line(), line);
        }
    }
    assert_empty_console(&ann);
}
