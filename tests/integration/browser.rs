//! The chat page in a real browser, against the program itself, over http and https.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::client::{Client, TIMEOUT};
use crate::support::over_ws_and_wss;
use crate::support::program::{Folder, Process};
use crate::support::server::Transport;
use crate::support::webdriver::{Browser, DOWN, Driver, ENTER, ESCAPE, SHIFT, TAB, axe_core};

const NEWEST: &str = "#log > :last-child";

/// The program, and where its page is.
struct House {
    server: Option<Process>,
    transport: Transport,
    port: u16,
    folder: Folder,
    arguments: Vec<&'static str>,
}

impl House {
    fn open(transport: Transport) -> Self {
        Self::with(transport, &[])
    }

    fn with(transport: Transport, arguments: &[&'static str]) -> Self {
        let folder = Folder::new();
        if transport == Transport::Wss {
            folder.tinychat(&["generate-certs"]).run();
        }
        let mut house = Self { server: None, transport, port: 0, folder, arguments: arguments.to_vec() };
        house.start();
        house
    }

    /// Starts the server; again on the port that it had.
    fn start(&mut self) {
        let port = self.port.to_string();
        let ssl = if self.transport == Transport::Wss { "true" } else { "false" };
        let arguments =
            ["--port", &port, "--mod-password", "secret", "--message-rate", "0", "--use-ssl", ssl];
        let server = self.folder.tinychat(&[&arguments, &self.arguments[..]].concat()).start();
        self.port = server.address.port();
        self.server = Some(server);
    }

    fn stop(&mut self) {
        self.server.take().unwrap().stop();
    }

    fn url(&self) -> String {
        let scheme = if self.transport == Transport::Wss { "https" } else { "http" };
        format!("{scheme}://localhost:{}/", self.port)
    }

    /// Somebody with another client.
    fn other(&self, name: &str) -> Client {
        let address = self.server.as_ref().unwrap().address;
        let mut client = match self.transport {
            Transport::Ws => Client::connect(address, Transport::Ws),
            Transport::Wss => Client::trusting(&self.folder.path("certs/server.crt"), "localhost", address),
        };
        client.join_and_wait(name);
        client
    }

    /// Opens the page in a browser, and joins.
    fn enter(&self, browser: &Browser, name: &str) {
        browser.open(&self.url());
        browser.wait_for("document.activeElement.id === 'name'");
        browser.types("#name", &format!("{name}{ENTER}"));
        browser.sees("#log", &format!("{name} joined."));
    }
}

fn says(browser: &Browser, text: &str) {
    browser.types("#text", &format!("{text}{ENTER}"));
    browser.wait_for("document.querySelector('#text').value === ''");
}

fn has_no_complaint(browser: &Browser) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn two_people_chat_whisper_and_moderate(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(transport);
    let (ann, bob) = (driver.desktop(), driver.desktop());
    house.enter(&ann, "Ann");
    house.enter(&bob, "Bob Lee");
    ann.sees("#state", "Connected");
    ann.sees("#people-list", "Bob Lee");
    ann.sees("#people-count", "2");

    says(&ann, "Hello, see https://example.com/a_(b)?x=1.");
    bob.sees(NEWEST, "Hello, see");
    bob.sees(".said .who", "Ann");
    let link = "document.querySelector('#log a')";
    assert_eq!(bob.value(&format!("{link}.href")), "https://example.com/a_(b)?x=1");
    assert_eq!(
        bob.value(&format!("[{link}.rel, {link}.target]")),
        json!(["noopener noreferrer nofollow", "_blank"])
    );
    // One's own line is there once, though nothing comes back.
    says(&bob, "Hello yourself");
    ann.sees(NEWEST, "Hello yourself");
    assert_eq!(ann.value("document.querySelectorAll('#log .said.own').length"), 1);

    // A click on a name begins a whisper, and what is whispered is to be told from what is said.
    ann.click("#people-list button[data-name='Bob Lee']");
    assert_eq!(ann.value("document.querySelector('#text').value"), "/whisper Bob Lee ");
    says(&ann, "between us");
    bob.sees(".whisper", "whispers to you");
    bob.sees(".whisper .words", "between us");
    ann.sees(".whisper.own", "whisper to Bob Lee");
    assert_eq!(ann.value("document.querySelectorAll('.whisper').length"), 1);

    // So does one on a name in the log.
    bob.click(".said:not(.own) .name");
    assert_eq!(bob.value("document.querySelector('#text').value"), "/whisper Ann ");
    bob.types("#text", "\u{e009}a\u{e000}\u{e017}");

    // Commands, and errors near where they were made.
    says(&bob, "/to Ann 5");
    bob.sees(".notice.error", "Only moderators");
    says(&ann, "/login secret");
    bob.sees(NEWEST, "Ann is now a moderator.");
    bob.sees("#people-list button[data-name='Ann']", "moderator");
    says(&ann, "/to Bob Lee 600");
    bob.sees(NEWEST, "Ann timed out Bob Lee for 600 seconds.");
    bob.wait_for("document.querySelector('#room.timed-out')");
    ann.sees("#people-list button[data-name='Bob Lee']", "timed out");
    bob.types("#text", &format!("may I?{ENTER}"));
    bob.sees(NEWEST, "You are timed out");
    assert_eq!(bob.value("document.querySelector('#text').value"), "may I?", "what was typed is kept");
    says(&ann, "/to Bob Lee 1");
    bob.sees(NEWEST, "Your time-out is over");
    bob.wait_for("!document.querySelector('#room.timed-out')");
    bob.types("#text", ENTER);
    ann.sees(NEWEST, "may I?");

    // Nobody takes another's name, and the form says so.
    bob.click("#leave");
    ann.sees(NEWEST, "Bob Lee left.");
    bob.types("#name", &format!("\u{e009}a\u{e000}ANN{ENTER}"));
    bob.sees("#join-error", "The username Ann is in use");
    bob.types("#name", &format!("\u{e009}a\u{e000}Bert{ENTER}"));
    bob.sees("#log", "Bert joined.");
    // The name is kept for the next visit.
    bob.reload();
    bob.wait_for("document.activeElement.id === 'name'");
    assert_eq!(bob.value("document.querySelector('#name').value"), "Bert");
    [&ann, &bob].into_iter().for_each(has_no_complaint);
}

fn markup_and_script_stay_text(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(transport);
    let ann = driver.desktop();
    house.enter(&ann, "Ann");
    let evil = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    let name = "<b onclick=alert(3)>\"'&amp;";
    let mut eve = house.other(name);
    eve.public(&format!("{evil} javascript:alert(4) https://x.example/\"onmouseover=\"alert(5)"));
    ann.sees("#log", evil);
    eve.command(&format!("/whisper Ann {evil}"));
    ann.sees(".whisper .words", evil);
    ann.sees("#people-list", name);
    ann.sees(".said .who", name);
    assert_eq!(ann.value("document.querySelectorAll('#log img, #log script, #log b, #people b').length"), 0);
    assert_eq!(ann.value("document.querySelector('#log a').href"), "https://x.example/");
    // A reference that says itself in markup is not taken apart either.
    ann.click("#people-list li:last-child button");
    assert_eq!(ann.value("document.querySelector('#text').value"), format!("/whisper {name} "));
    has_no_complaint(&ann);
}

/// A tail that took a second for each line would be waited for in vain.
#[test]
fn an_address_with_a_long_tail_keeps_nobody_waiting() {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(Transport::Ws);
    let ann = driver.desktop();
    house.enter(&ann, "Ann");
    let mut bob = house.other("Bob");
    for _ in 0..100 {
        bob.public(&format!("https://x.example/(a){}", ")".repeat(16_000)));
    }
    bob.public("the end");
    ann.sees(NEWEST, "the end");
    let links = "new Set([...document.querySelectorAll('#log a')].map((link) => link.href))";
    assert_eq!(ann.value(&format!("[...{links}]")), json!(["https://x.example/(a)"]));
}

fn after_a_restart_everybody_comes_back(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let mut house = House::open(transport);
    let ann = driver.desktop();
    house.enter(&ann, "Ann");
    says(&ann, "before");
    house.stop();
    ann.sees("#log", "The server has stopped or restarts.");
    ann.wait_for("document.querySelector('#state').dataset.state !== 'online'");
    says(&ann, "meanwhile");
    ann.sees(NEWEST, "waits for the connection");
    ann.types("#text", &format!("/help{ENTER}"));
    ann.sees(NEWEST, "no connection for a command");
    assert_eq!(ann.value("document.querySelector('#text').value"), "/help", "what was typed is kept");
    has_complaints_of_the_network_alone(&ann);
    house.start();
    ann.sees("#log", "Back in the room after");
    ann.sees("#state", "Connected");
    // She may be back before anybody could listen, but what the server has heard is counted.
    let counted = "fetch('metrics').then((answer) => answer.text())";
    let start = Instant::now();
    loop {
        let metrics = ann.value(counted);
        if metrics.as_str().unwrap().contains("tinychat_messages_received_total{type=\"public\"} 1\n") {
            break;
        }
        assert!(start.elapsed() < TIMEOUT, "{metrics}");
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(ann.value("document.querySelectorAll('.said.own').length"), 2);
    assert_eq!(ann.value("document.querySelectorAll('.fate').length"), 0);
    let mut bob = house.other("Bob");
    bob.public("welcome back");
    ann.sees(NEWEST, "welcome back");
    has_complaints_of_the_network_alone(&ann);
}

/// A line may be dead without an end, as after a sleep: who wakes up asks whether it stands.
fn a_dead_line_is_noticed_on_waking_up(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(transport);
    let ann = driver.desktop();
    house.enter(&ann, "Ann");
    let mut bob = house.other("Bob");
    ann.sees("#log", "Bob joined.");
    let lines = ann.value("document.querySelector('#log').childElementCount");
    // Nothing is seen of the asking where it does, not even by who is timed out.
    ann.value("dispatchEvent(new Event('online'))");
    bob.command("/login secret");
    bob.command("/to Ann 600");
    ann.sees(NEWEST, "timed out Ann");
    ann.value("dispatchEvent(new Event('online'))");
    bob.public("still there?");
    ann.sees(NEWEST, "still there?");
    let more = ann.value("document.querySelector('#log').childElementCount").as_u64().unwrap();
    assert_eq!(more, lines.as_u64().unwrap() + 3);
    let server = house.server.as_ref().unwrap();
    server.signal(Signal::STOP);
    ann.value("dispatchEvent(new Event('online'))");
    ann.sees("#log", "The connection was lost.");
    server.signal(Signal::CONT);
    ann.sees("#log", "Back in the room after");
    ann.sees("#state", "Connected");
    has_complaints_of_the_network_alone(&ann);
}

/// The server's pings are not seen by a page: it asks by itself when all is silent.
#[test]
fn a_dead_line_is_noticed_by_a_page_that_nobody_touches() {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(Transport::Ws);
    let ann = driver.desktop();
    house.enter(&ann, "Ann");
    ann.sees("#state", "Connected");
    house.server.as_ref().unwrap().signal(Signal::STOP);
    // Five times as fast, so that the test need not wait as long as people do.
    ann.value("(() => { const [now, start] = [Date.now, Date.now()]; Date.now = () => start + (now() - start) * 5 })()");
    ann.sees("#log", "The connection was lost.");
    house.server.as_ref().unwrap().signal(Signal::CONT);
    ann.sees("#log", "Back in the room after");
}

#[test]
fn a_join_without_an_answer_comes_to_an_end() {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(Transport::Ws);
    let ann = driver.desktop();
    ann.open(&house.url());
    ann.wait_for("document.activeElement.id === 'name'");
    ann.types("#name", &format!("System{ENTER}"));
    ann.sees("#join-error", "System");
    house.server.as_ref().unwrap().signal(Signal::STOP);
    ann.types("#name", &format!("\u{e009}a\u{e000}Ann{ENTER}"));
    ann.sees("#join-error", "cannot be reached");
    house.server.as_ref().unwrap().signal(Signal::CONT);
    ann.types("#name", ENTER);
    ann.sees("#log", "Ann joined.");
}

/// On a slow line the answer to the asking may be late, but whatever comes shows that the line stands.
#[test]
fn a_line_on_which_something_comes_is_not_cut() {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(Transport::Ws);
    let ann = driver.desktop();
    house.enter(&ann, "Ann");
    let mut bob = house.other("Bob");
    ann.sees("#log", "Bob joined.");
    ann.value("(() => { const send = WebSocket.prototype.send; WebSocket.prototype.send = function (data) { if (!data.includes('still-there')) send.call(this, data) } })()");
    ann.value("dispatchEvent(new Event('online'))");
    bob.public("this is slow");
    ann.sees(NEWEST, "this is slow");
    ann.value("setTimeout(() => { window.isOver = true }, 9000)");
    ann.wait_for("window.isOver");
    ann.sees(NEWEST, "this is slow");
    has_no_complaint(&ann);
}

/// A browser notes on its console each time that a server cannot be reached, and no page can help that.
fn has_complaints_of_the_network_alone(browser: &Browser) {
    for complaint in browser.complaints() {
        assert!(complaint.contains("WebSocket connection to"), "{complaint}");
    }
}

/// Over the server's limit the connection ends, and what was written is not lost.
fn what_is_too_long_for_the_server_comes_back_to_be_shortened(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let house = House::with(transport, &["--max-message-bytes", "200"]);
    let ann = driver.phone();
    house.enter(&ann, "Ann");
    let long = "long ".repeat(50);
    ann.types("#text", &format!("{long}{ENTER}"));
    ann.sees("#log", "longer than the server takes");
    ann.sees(".said.own", "not sent: too long");
    ann.wait_for(&format!("document.querySelector('#text').value === {}", json!(long.trim_end())));
    ann.sees("#log", "Back in the room after");
    assert_eq!(ann.value("document.documentElement.scrollWidth <= innerWidth"), true);
    // So does a command, and no line before it is blamed.
    ann.types("#text", &format!("\u{e009}a\u{e000}short{ENTER}"));
    let whisper = format!("/whisper Ann {}", long.trim_end());
    ann.types("#text", &format!("{whisper}{ENTER}"));
    ann.wait_for(&format!("document.querySelector('#text').value === {}", json!(whisper)));
    ann.wait_for(
        "document.querySelector('#log').innerText.split('longer than the server takes').length === 3",
    );
    ann.wait_for(&format!("document.querySelector('#text').value === {}", json!(whisper)));
    assert_eq!(ann.value("document.querySelectorAll('.fate').length"), 1);
}

fn the_keyboard_is_enough(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(transport);
    let mut bob = house.other("Bob Lee");
    let ann = driver.desktop();
    ann.open(&house.url());
    ann.wait_for("document.activeElement.id === 'name'");
    ann.presses(&["A", "n", "n", ENTER]);
    ann.wait_for("document.activeElement.id === 'text'");
    assert_eq!(bob.next_line(), "system: Ann joined.");
    // A command and a name, completed.
    ann.presses(&["/", "w"]);
    ann.sees("#choices [aria-selected=true]", "/whisper [user] [message]");
    assert_eq!(ann.value("document.activeElement.getAttribute('aria-activedescendant')"), "choice-0");
    ann.presses(&[TAB, "b"]);
    ann.sees("#choices [aria-selected=true]", "Bob Lee");
    ann.presses(&[ENTER, "h", "i", ENTER]);
    assert_eq!(bob.next_line(), "Ann to Bob Lee: hi");
    // Through the list and away from it.
    ann.presses(&["/"]);
    ann.wait_for("document.querySelectorAll('#choices li').length === 4");
    ann.presses(&[DOWN, ESCAPE]);
    ann.wait_for("document.querySelector('#choices').hidden");
    ann.presses(&["h", "e", "l", "p", ENTER]);
    ann.sees("#log", "Lists the commands");
    // A line break within a message.
    ann.presses(&["a", &format!("{SHIFT}{ENTER}"), "b", ENTER]);
    assert_eq!(bob.next_line(), "Ann: a\nb");
    // Back to the people with the tabulator, and to whispering with Enter.
    let mut seen = Vec::new();
    while ann.value("document.activeElement.dataset.name ?? ''") != "Bob Lee" {
        ann.presses(&[&format!("{SHIFT}{TAB}")]);
        seen.push(ann.value("document.activeElement.outerHTML.slice(0, 60)"));
        assert!(seen.len() < 12, "{seen:?}");
    }
    assert_eq!(
        ann.value("getComputedStyle(document.activeElement).outlineStyle"),
        "solid",
        "the focus is to be seen"
    );
    ann.presses(&[ENTER]);
    ann.wait_for(
        "document.activeElement.id === 'text' && document.activeElement.value === '/whisper Bob Lee '",
    );
    has_no_complaint(&ann);
}

fn a_phone_has_room_for_everything(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let mut house = House::open(transport);
    let mut bob = house.other("Bob");
    let ann = driver.phone();
    house.enter(&ann, "Ann");
    bob.public(&"w".repeat(3000));
    ann.sees(NEWEST, "wwww");
    assert_eq!(ann.value("[innerWidth, innerHeight]"), json!([390, 844]));
    let fits = "document.documentElement.scrollWidth <= innerWidth && document.querySelector('#log').scrollWidth <= innerWidth";
    assert_eq!(ann.value(fits), true, "nothing is wider than the screen");
    assert_eq!(
        ann.value("document.querySelector('#composer').getBoundingClientRect().bottom <= innerHeight"),
        true
    );
    // The people are in a drawer, which opens and closes.
    assert_eq!(ann.value("document.querySelector('#people').checkVisibility()"), false);
    ann.click("#people-button");
    ann.wait_for("document.activeElement.dataset.name");
    assert_eq!(ann.value("document.querySelector('#people-button').getAttribute('aria-expanded')"), "true");
    ann.presses(&[ESCAPE]);
    ann.wait_for("!document.querySelector('#people').checkVisibility() && document.activeElement.id === 'people-button'");
    ann.click("#people-button");
    ann.click("#people-list button[data-name='Bob']");
    ann.wait_for("!document.querySelector('#people').checkVisibility()");
    says(&ann, "from my phone");
    bob.next_line();
    assert_eq!(bob.next_line(), "Ann to Bob: from my phone");
    has_no_complaint(&ann);
    drop(bob);
    house.stop();
    ann.wait_for("!document.querySelector('#retry').hidden");
    assert_eq!(ann.value(fits), true, "nor is what is said of a lost connection");
    ann.wait_for("document.querySelector('#leave').getBoundingClientRect().right <= 390");
    house.start();
    ann.wait_for("document.querySelector('#state').dataset.state === 'online' || document.querySelector('#retry').click()");
}

fn who_reads_older_lines_stays_there_and_hears_of_new_ones(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let house = House::open(transport);
    let mut bob = house.other("Bob");
    let ann = driver.desktop();
    house.enter(&ann, "Ann");
    for line in 0..10_000 {
        bob.public(&format!("line {line}"));
    }
    ann.sees(NEWEST, "line 9999");
    let is_at_bottom = "(() => { const log = document.querySelector('#log'); return log.scrollHeight - log.scrollTop - log.clientHeight < 2; })()";
    ann.wait_for(is_at_bottom);
    assert_eq!(ann.value("document.querySelector('#log').childElementCount <= 2001"), true);
    assert_eq!(ann.value("document.querySelector('#newest').hidden"), true);
    // Up, to read: what comes does not move it, though older lines go.
    ann.value("document.querySelector('#log').scrollTop -= 3000");
    ann.wait_for("!document.querySelector('#newest').hidden");
    ann.value("window.held = document.elementFromPoint(innerWidth / 3, 200).closest('#log > *'), window.at = held.getBoundingClientRect().top");
    for line in 0..30 {
        bob.public(&format!("later {line}"));
    }
    ann.sees("#newest", "30 new messages");
    ann.wait_for("document.title === '(30) TinyChat'");
    ann.sees(NEWEST, "later 29");
    assert_eq!(ann.value("Math.abs(held.getBoundingClientRect().top - at) <= 2"), true, "it has moved");
    assert_eq!(
        ann.value("document.querySelector('.mark').nextElementSibling.innerText.includes('later 0')"),
        true
    );
    ann.click("#newest");
    ann.wait_for(is_at_bottom);
    ann.wait_for("document.title === 'TinyChat' && document.querySelector('#newest').hidden");
    has_no_complaint(&ann);
}

fn axe_finds_nothing(transport: Transport) {
    let (Some(driver), Some(axe)) = (Driver::start(), axe_core()) else { return };
    let house = House::open(transport);
    let (desktop, phone) = (driver.desktop(), driver.phone());
    let [mut bob, ..] = a_lively_room(&house, &[(&desktop, "Ann"), (&phone, "Mia")], |browser, name| {
        browser.open(&house.url());
        browser.wait_for("document.activeElement.id === 'name'");
        browser.is_accessible(&axe, "at the door");
        browser.types("#name", &format!("System{ENTER}"));
        browser.sees("#join-error", "System");
        browser.is_accessible(&axe, "refused at the door");
        house.enter(browser, name);
    });
    for is_dark in [false, true] {
        for (browser, size) in [(&desktop, "desktop"), (&phone, "phone")] {
            browser.set_dark(is_dark);
            let when = |what: &str| format!("{what}, on a {size}, dark: {is_dark}");
            browser.is_accessible(&axe, &when("in the room"));
            browser.types("#text", "/");
            browser.wait_for("!document.querySelector('#choices').hidden");
            browser.is_accessible(&axe, &when("among commands"));
            browser.presses(&[ESCAPE]);
            browser.value("document.querySelector('#log').scrollTop = 0");
            bob.public("something new");
            browser.wait_for("!document.querySelector('#newest').hidden");
            browser.is_accessible(&axe, &when("scrolled up"));
            browser.click("#newest");
            if size == "phone" {
                browser.click("#people-button");
                browser.is_accessible(&axe, &when("among people"));
                browser.click("#people-button");
            }
            browser.types("#text", "\u{e003}");
        }
    }
    [&desktop, &phone].into_iter().for_each(has_no_complaint);
}

/// A room with everything in it that there is to be seen.
fn a_lively_room(
    house: &House,
    browsers: &[(&Browser, &str)],
    enter: impl Fn(&Browser, &str),
) -> [Client; 3] {
    let mut bob = house.other("Bob Lee");
    let mut eve = house.other("Éva 🦀");
    let mut tom = house.other("Tom");
    for (browser, name) in browsers {
        enter(browser, name);
    }
    bob.command("/login secret");
    // One after the other: what several people say at once may come in any order.
    let in_turn = |text: &str| browsers.iter().for_each(|(browser, _)| browser.sees("#log", text));
    bob.public("Good evening, everybody! Who is coming to the club room on Friday?");
    in_turn("on Friday?");
    eve.public("I am. I have put the plan here: https://club.example/plan/friday");
    eve.public("Bring a soldering iron if you have one.");
    in_turn("if you have one.");
    tom.public("🎉🎉");
    tom.public("BUY BUY BUY at https://spam.example");
    in_turn("BUY BUY");
    bob.command("/to Tom 600");
    in_turn("timed out Tom");
    let answers = ["Count me in. I can bring two, and a multimeter.", "I am bringing cake."];
    for ((browser, name), answer) in browsers.iter().zip(answers) {
        says(browser, answer);
        says(browser, "/whisper Bob Lee Thanks for dealing with that.");
        browser.sees("#log .whisper.own", "Thanks");
        bob.command(&format!("/whisper {name} You are welcome."));
        browser.sees("#log .whisper:not(.own)", "welcome");
        says(browser, "/whisper Nobody hello");
        browser.sees("#log", "Nobody here is called");
        browser.wait_for("document.querySelector('#people-list').innerText.includes('timed out')");
    }
    eve.public("Lovely. See you there, 19:00 sharp ⏰");
    for (browser, _) in browsers {
        browser.sees("#log", "19:00 sharp");
    }
    [bob, eve, tom]
}

/// Makes the pictures of the README: `cargo test --test integration screenshots -- --ignored`.
#[test]
#[ignore = "it writes the pictures of the README"]
fn screenshots() {
    let Some(driver) = Driver::start() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    let house = House::open(Transport::Ws);
    let (desktop, phone) = (driver.desktop(), driver.phone());
    desktop.devtools(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 1080, "height": 700, "deviceScaleFactor": 1, "mobile": false}),
    );
    phone.devtools(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true}),
    );
    let _others = a_lively_room(&house, &[(&desktop, "Ann"), (&phone, "Mia")], |browser, name| {
        house.enter(browser, name)
    });
    for (browser, size) in [(&desktop, "desktop"), (&phone, "phone")] {
        for (is_dark, scheme) in [(false, "light"), (true, "dark")] {
            browser.set_dark(is_dark);
            browser.screenshot(&folder.join(format!("{size}-{scheme}.png")));
        }
    }
}

over_ws_and_wss!(
    two_people_chat_whisper_and_moderate,
    markup_and_script_stay_text,
    after_a_restart_everybody_comes_back,
    a_dead_line_is_noticed_on_waking_up,
    what_is_too_long_for_the_server_comes_back_to_be_shortened,
    the_keyboard_is_enough,
    a_phone_has_room_for_everything,
    who_reads_older_lines_stays_there_and_hears_of_new_ones,
    axe_finds_nothing,
);
