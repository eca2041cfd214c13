//! The chat page in browsers, served by the program itself.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::json;

use super::client::Client;
use super::port::ReservedPort;
use super::program::{Folder, Process};
use super::server::Transport;
use super::webdriver::{Browser, DOWN, ENTER};

/// The latest message or notice.
pub const LATEST: &str = "#log > :last-child > :last-child";
/// The texts of the messages in the log, in their order.
pub const SHOWN: &str =
    "[...document.querySelectorAll('#log .message-text')].map((text) => text.textContent)";

/// The labels of the items of the open menu.
pub const MENU_ITEMS: &str =
    "[...document.querySelectorAll('#menu [role=menuitem]')].map((item) => item.innerText)";
pub const IS_MENU_OPEN: &str = "document.querySelector('#menu').matches(':popover-open')";

/// Stops the page's clock, so that its timeouts do not expire.
pub const STOP_CLOCK: &str = "void (Date.now = ((now) => () => now)(Date.now()))";

pub const BACKSPACE: &str = "\u{e003}";
/// Ctrl+A, so that what follows replaces the text.
pub const SELECT_ALL: &str = "\u{e009}a\u{e000}";

/// The running program and its address.
pub struct Server {
    process: Option<Process>,
    transport: Transport,
    port: ReservedPort,
    folder: Folder,
    flags: Vec<&'static str>,
}

impl Server {
    pub fn start(transport: Transport) -> Self {
        Self::with_flags(transport, &[])
    }

    pub fn with_flags(transport: Transport, flags: &[&'static str]) -> Self {
        let folder = Folder::new();
        if transport == Transport::Wss {
            folder.tinychat(&["generate-certs"]).run();
        }
        let mut server =
            Self { process: None, transport, port: ReservedPort::new(), folder, flags: flags.to_vec() };
        server.resume();
        server
    }

    /// Starts the program, on the same port as before if it was stopped.
    pub fn resume(&mut self) {
        let port = self.port.number.to_string();
        let ssl = if self.transport == Transport::Wss { "true" } else { "false" };
        let flags = ["--port", &port, "--mod-password", "secret", "--message-rate", "0", "--use-ssl", ssl];
        // On a slow machine too, members can resume, and clients that do not read stay connected.
        let flags = [&flags[..], &["--ping-interval", "3600"]].concat();
        let resume: &[&str] =
            if self.flags.contains(&"--resume-seconds") { &[] } else { &["--resume-seconds", "3600"] };
        let store: &[&str] =
            if self.flags.contains(&"--database-path") { &[] } else { &["--database-path", "off"] };
        self.process = Some(self.folder.tinychat(&[&flags, resume, store, &self.flags].concat()).start());
    }

    pub fn stop(&mut self) {
        self.process.take().unwrap().stop();
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    pub fn url(&self) -> String {
        self.url_at(self.port.number)
    }

    pub fn url_at(&self, port: u16) -> String {
        let scheme = if self.transport == Transport::Wss { "https" } else { "http" };
        format!("{scheme}://localhost:{port}/")
    }

    pub fn address(&self) -> SocketAddr {
        self.process.as_ref().unwrap().address
    }

    /// Joins with a client that is not a browser.
    pub fn client(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.join_and_wait(name);
        client
    }

    pub fn connect(&self) -> Client {
        match self.transport {
            Transport::Ws => Client::connect(self.address(), Transport::Ws),
            Transport::Wss => {
                Client::trusting(&self.folder.path("certs/server.crt"), "localhost", self.address())
            }
        }
    }

    /// Opens the page in a browser and joins.
    pub fn enter(&self, browser: &Browser, name: &str) {
        self.enter_at(&self.url(), browser, name);
    }

    pub fn enter_at(&self, url: &str, browser: &Browser, name: &str) {
        browser.open(url);
        browser.wait_for("document.activeElement.id === 'name'");
        browser.type_into("#name", &format!("{name}{ENTER}"));
        browser.wait_for("document.querySelector('#status').dataset.state === 'online'");
        browser.wait_for_text("#member-list", name);
    }
}

/// With the button: on a touch screen, Enter makes a new line.
pub fn send(browser: &Browser, text: &str) {
    browser.type_into("#message-input", text);
    browser.click("#send");
    browser.wait_for("document.querySelector('#message-input').value === ''");
}

/// Opens the menu of a person in the list, which may be a drawer that is closed.
pub fn open_menu_of(browser: &Browser, name: &str) {
    let button =
        format!("document.querySelector({})", json!(format!("#member-list [data-name={}]", json!(name))));
    browser.wait_for(&button);
    browser.evaluate(&format!(
        "{button}.checkVisibility() || document.querySelector('#members-button').click()"
    ));
    browser.evaluate(&format!("{button}.focus()"));
    browser.press(&[ENTER]);
    browser.wait_for("document.activeElement.role === 'menuitem'");
}

/// Chooses an item of the open menu with the keyboard.
pub fn choose(browser: &Browser, item: &str) {
    browser.wait_for(IS_MENU_OPEN);
    let items = browser.evaluate(MENU_ITEMS);
    let position = items.as_array().unwrap().iter().position(|label| label == item);
    let position = position.unwrap_or_else(|| panic!("{item} is not among {items}"));
    browser.press(&vec![DOWN; position]);
    browser.press(&[ENTER]);
    browser.wait_for(&format!("!{IS_MENU_OPEN}"));
}

/// Waits until the connection is back after it was lost.
pub fn wait_until_back(browser: &Browser) {
    browser.wait_for(
        "document.querySelector('#status').dataset.state === 'online' && !document.querySelector('#log').innerText.includes('sent once you')",
    );
}

/// Waits until the log has exactly these messages, in this order, and each has been delivered.
pub fn wait_for_messages(browser: &Browser, texts: &[&str]) {
    let is_shown = format!("JSON.stringify({SHOWN}) === JSON.stringify({})", json!(texts));
    browser.wait_for(&format!("{is_shown} && !document.querySelector('.pending, .delivery-state')"));
}

pub fn assert_empty_console(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// Browsers log every failed connection to the console, and a page cannot prevent it.
pub fn assert_only_connection_errors(browser: &Browser) {
    for entry in browser.console() {
        assert!(entry.contains("WebSocket connection to"), "{entry}");
    }
}
