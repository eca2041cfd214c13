//! The settings of the chat page, and its notifications, in a real browser.

use serde_json::{Value, json};

use crate::support::chat_page::{LATEST, Server, assert_empty_console};
use crate::support::server::Transport;
use crate::support::webdriver::{Browser, Driver, ESCAPE, axe_core};

const BACKGROUND: &str = "getComputedStyle(document.body).backgroundColor";
const DARK: &str = "rgb(18, 20, 25)";
const LIGHT: &str = "rgb(243, 244, 248)";
/// The theme colors whose media query matches.
const THEME_COLORS: &str = "[...document.querySelectorAll('meta[name=theme-color]')].filter((meta) => matchMedia(meta.media).matches).map((meta) => meta.content)";
const HINT: &str = "#settings-hint";

/// Replaces the browser's notifications. `shown` has those that the page has shown.
const FAKE_NOTIFICATIONS: &str = "void (window.shown = [], window.Notification = class {
    static permission = 'default';
    static answer = 'granted';
    static async requestPermission() { return (this.permission = this.answer); }
    constructor(title, options) { Object.assign(this, options, { title }); shown.push(this); }
    close() { this.isClosed = true; }
})";
const GO_AWAY: &str = "void (document.hasFocus = () => false)";
const COME_BACK: &str = "void (delete document.hasFocus, dispatchEvent(new Event('focus')))";

/// Chooses a value by the labels that the panel has.
fn choose(browser: &Browser, setting: &str, value: &str) {
    browser.evaluate(&format!(
        "(() => {{ const label = [...document.querySelectorAll('#settings-panel label')].find((label) => label.innerText.startsWith('{setting}')); \
         const select = label.querySelector('select'); select.focus(); \
         select.selectedIndex = [...select.options].findIndex((option) => option.label === '{value}'); \
         select.dispatchEvent(new Event('change')); }})()"
    ));
}

fn open_panel(browser: &Browser) {
    browser.click("#settings-button");
    browser.wait_for("document.querySelector('#settings-panel').contains(document.activeElement)");
}

#[test]
fn settings_apply_at_once_in_all_tabs_and_last() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    ann.set_dark(false);
    ann.open(&server.url());
    // They can be changed before joining.
    ann.wait_for("!document.querySelector('#settings-button').hidden");
    open_panel(&ann);
    assert_eq!(ann.evaluate(BACKGROUND), LIGHT);
    choose(&ann, "Theme", "Dark");
    assert_eq!(ann.evaluate(BACKGROUND), DARK);
    assert_eq!(ann.evaluate(THEME_COLORS), json!(["#1b1e25"]));
    ann.evaluate("void (window.other = open(location.href))");
    ann.wait_for("other.document.querySelector('#settings-button')?.hidden === false");
    assert_eq!(ann.evaluate("other.getComputedStyle(other.document.body).backgroundColor"), DARK);
    choose(&ann, "Theme", "Light");
    choose(&ann, "Density", "Compact");
    choose(&ann, "Joins and leaves", "Hidden");
    ann.wait_for(&format!("other.getComputedStyle(other.document.body).backgroundColor === '{LIGHT}'"));
    ann.wait_for("other.document.documentElement.dataset.joins === 'hidden'");
    ann.press(&[ESCAPE]);
    ann.wait_for("document.activeElement.id === 'settings-button'");

    ann.set_dark(true);
    ann.reload();
    ann.wait_for("!document.querySelector('#settings-button').hidden");
    assert_eq!(ann.evaluate(BACKGROUND), LIGHT);
    assert_eq!(ann.evaluate(THEME_COLORS), json!(["#ffffff"]));
    assert_eq!(ann.evaluate("document.documentElement.dataset.density"), "compact");
    open_panel(&ann);
    assert_eq!(ann.evaluate("document.activeElement.selectedOptions[0].label"), "Light");
    choose(&ann, "Theme", "System");
    assert_eq!(ann.evaluate(BACKGROUND), DARK);
    assert_eq!(ann.evaluate(THEME_COLORS), json!(["#1b1e25"]));

    // Values that this page does not know.
    for stored in [r#"{"theme": "pink", "density": 7, "joins": false}"#, "[]", "{", "7"] {
        ann.evaluate(&format!("localStorage.setItem('settings', '{stored}')"));
        ann.reload();
        ann.wait_for("!document.querySelector('#settings-button').hidden");
        assert_eq!(ann.evaluate(BACKGROUND), DARK, "{stored}");
        assert_eq!(ann.evaluate("document.documentElement.dataset.density"), "comfortable", "{stored}");
    }
    assert_empty_console(&ann);
}

fn notifications(browser: &Browser) -> Value {
    browser.evaluate("shown.map(({ title, body }) => `${title}: ${body}`)")
}

#[test]
fn notifications_tell_of_mentions_and_whispers_or_of_everything() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    ann.evaluate(FAKE_NOTIFICATIONS);
    let is_on = "document.querySelector('#bell').ariaPressed === 'true'";
    assert_eq!(ann.evaluate(is_on), false);
    ann.click("#bell");
    ann.wait_for(is_on);
    ann.wait_for("shown.pop()?.title === 'Notifications are on'");

    // Not while the user looks at the page.
    bob.public("Ann, can you see this?");
    ann.wait_for_text(LATEST, "can you see this?");
    ann.evaluate(GO_AWAY);
    bob.public("Annual meeting at eight");
    bob.public(&format!("Good evening, ann. {}", "x".repeat(1000)));
    ann.wait_for("shown.length === 1");
    assert_eq!(
        ann.evaluate(
            "[shown[0].title, shown[0].body.startsWith('Good evening, ann. xxx'), [...shown[0].body].length]"
        ),
        json!(["Bob mentioned you", true, 141])
    );
    ann.wait_for("document.title === '(2) TinyChat'");
    assert_eq!(
        ann.evaluate("document.querySelector('link[rel=icon]').href.endsWith('/favicon-unread.svg')"),
        true
    );
    ann.evaluate(COME_BACK);
    ann.wait_for("document.title === 'TinyChat' && shown[0].isClosed");
    assert_eq!(ann.evaluate("document.querySelector('link[rel=icon]').href.endsWith('/favicon.svg')"), true);

    // Many messages make few notifications.
    ann.evaluate(GO_AWAY);
    for line in 0..100 {
        bob.command(&format!("/whisper Ann line {line}"));
    }
    ann.wait_for("shown.at(-1).body.includes('line 99')");
    assert_eq!(ann.evaluate("shown.length < 20 && new Set(shown.map(({ tag }) => tag)).size === 1"), true);

    // All messages, or none.
    ann.evaluate("document.querySelector('#settings-button').click()");
    choose(&ann, "Notifications", "All messages");
    ann.evaluate(GO_AWAY);
    bob.public("Nothing special");
    ann.wait_for("shown.at(-1).body.includes('Nothing special')");
    choose(&ann, "Notifications", "Off");
    ann.wait_for(&format!("!({is_on})"));
    ann.evaluate("void (shown.length = 0)");
    bob.public("Ann?");
    ann.wait_for_text(LATEST, "Ann?");
    // A timer that had been started would have ended before this one.
    ann.evaluate("new Promise((resolve) => setTimeout(resolve))");
    assert_eq!(notifications(&ann), json!([]));
    assert_empty_console(&ann);
}

#[test]
fn the_page_says_why_there_are_no_notifications() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    let is_off = "JSON.parse(localStorage.settings ?? '{}').notifications === 'off' && document.querySelector('#bell').ariaPressed === 'false'";
    for (obstacle, hint) in [
        ("Notification.answer = 'denied'", "is blocking notifications from this page"),
        (
            "window.Notification = class extends Notification { constructor() { throw new TypeError() } }",
            "doesn't support notifications",
        ),
        ("void delete window.Notification", "doesn't support notifications"),
        ("void Object.defineProperty(window, 'isSecureContext', { value: false })", "only work over https"),
    ] {
        ann.open(&server.url());
        ann.wait_for("!document.querySelector('#bell').hidden");
        ann.evaluate(FAKE_NOTIFICATIONS);
        ann.evaluate(obstacle);
        ann.click("#bell");
        ann.wait_for("document.querySelector('#settings-panel').matches(':popover-open')");
        ann.wait_for_text(HINT, hint);
        assert_eq!(ann.evaluate(is_off), true, "{obstacle}");
        ann.press(&[ESCAPE]);
        // The panel explains it as well.
        open_panel(&ann);
        choose(&ann, "Notifications", "All messages");
        ann.wait_for("document.activeElement.selectedOptions[0].label === 'Off'");
        ann.wait_for_text(HINT, hint);
    }
    assert_empty_console(&ann);
}

#[test]
fn a_sound_is_played_a_few_times() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    ann.evaluate("void (window.sounds = 0, OscillatorNode.prototype.start = () => void (sounds += 1), OscillatorNode.prototype.stop = () => {})");
    ann.evaluate(GO_AWAY);
    bob.public("Ann, are you there?");
    ann.wait_for_text(LATEST, "are you there?");
    assert_eq!(ann.evaluate("sounds"), 0);
    open_panel(&ann);
    choose(&ann, "Sound", "Mentions and whispers");
    ann.wait_for("sounds === 1");
    // Later, as if the clock were five times as fast.
    ann.evaluate("(() => { const [now, start] = [performance.now.bind(performance), performance.now()]; performance.now = () => start + (now() - start) * 5 })()");
    let lines = 20;
    for line in 0..lines {
        bob.public(&format!("Ann {line}"));
    }
    bob.public("No sound for this");
    ann.wait_for_text(LATEST, "No sound");
    assert_eq!(ann.evaluate(&format!("sounds < {lines}")), true);
    // Sooner or later the next message makes one.
    let before = ann.evaluate("sounds").as_u64().unwrap();
    loop {
        bob.public("Ann, again");
        ann.wait_for_text(LATEST, "again");
        if ann.evaluate("sounds").as_u64().unwrap() > before {
            break;
        }
    }
    assert_empty_console(&ann);
}

#[test]
fn axe_finds_no_violations_in_the_settings() {
    let (Some(driver), Some(axe)) = (Driver::start(), axe_core()) else { return };
    let server = Server::start(Transport::Ws);
    for (browser, size) in [(driver.desktop(), "desktop"), (driver.phone(), "phone")] {
        browser.open(&server.url());
        browser.wait_for("!document.querySelector('#settings-button').hidden");
        browser.evaluate(FAKE_NOTIFICATIONS);
        browser.evaluate("Notification.answer = 'denied'");
        open_panel(&browser);
        choose(&browser, "Notifications", "All messages");
        browser.wait_for_text(HINT, "is blocking notifications");
        for theme in ["Light", "Dark"] {
            choose(&browser, "Theme", theme);
            browser.assert_accessible(&axe, &format!("settings ({size}, {theme})"));
        }
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
    }
}
