//! The chat page on screens of any size, on slow lines, and as an installed app.

use serde_json::json;

use crate::support::chat_page::{LATEST, SELECT_ALL, STOP_CLOCK, Server, assert_empty_console};
use crate::support::over_ws_and_wss;
use crate::support::server::Transport;
use crate::support::webdriver::{Browser, Driver, ENTER};

/// What is loaded before the join form can be used, over the network.
const MAX_FORM_REQUESTS: u64 = 8;
const MAX_FORM_BYTES: u64 = 16_000;

/// The controls that are outside of the window, at least in part. Lists scroll, so there only the sides count.
const OUTSIDE: &str = "[...document.querySelectorAll('button, input, textarea, select, a')]
    .filter((control) => control.checkVisibility())
    .filter((control) => {
        const { left, right, top, bottom } = control.getBoundingClientRect();
        const scrolls = control.closest('#log, #members, [popover]');
        return left < 0 || right > innerWidth || (!scrolls && (top < 0 || bottom > innerHeight));
    })
    .map((control) => control.id || control.innerText)";

over_ws_and_wss! {
    the_page_fits_every_screen_with_sixty_people,
    a_phone_has_room_for_its_keyboard,
    nothing_is_under_a_notch,
    the_page_can_be_installed,
    the_form_needs_few_requests_and_bytes,
}

fn the_page_fits_every_screen_with_sixty_people(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    // The first after the own name.
    let long_name = "M".repeat(32);
    let mut people: Vec<_> = (1..60).map(|number| server.client(&format!("Person {number}"))).collect();
    people.push(server.client(&long_name));
    let browser = driver.desktop();
    for (width, height) in [(320, 568), (390, 844), (768, 1024), (1280, 860), (2560, 1440)] {
        resize(&browser, width, height);
        browser.open(&server.url());
        browser.wait_for("document.activeElement.id === 'name'");
        assert_fits(&browser, width, "form");
        browser.type_into("#name", &format!("{SELECT_ALL}Ann {width}{ENTER}"));
        browser.wait_for_text("#log", &format!("Ann {width} joined."));
        browser.wait_for("document.querySelector('#member-count').textContent === '61'");
        people[59].public(&"x".repeat(1_000));
        browser.wait_for_text("#log", "xxx");
        assert_fits(&browser, width, "room");
        if width <= 768 {
            browser.click("#members-button");
            browser.wait_for_text("#member-list", &long_name);
            assert_fits(&browser, width, "drawer");
            browser.click("#members-button");
        }
        // The longest state of the connection, with a button beside it.
        browser.evaluate(STOP_CLOCK);
        browser.evaluate("dispatchEvent(new Event('offline'))");
        browser.wait_for("!document.querySelector('#retry').hidden");
        assert_fits(&browser, width, "room without a connection");
        browser.click("#retry");
        browser.wait_for("document.querySelector('#status').dataset.state === 'online'");
        browser.click("#leave");
        browser.wait_for("document.activeElement.id === 'name'");
    }
    // Lines stay short enough to be read.
    let width = browser.evaluate("document.querySelector('#message-input').getBoundingClientRect().width");
    assert!(width.as_f64().unwrap() < 1_000.0, "{width}");
    assert_empty_console(&browser);
}

fn a_phone_has_room_for_its_keyboard(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let mut bob = server.client("Bob");
    let phone = driver.phone();
    resize(&phone, 390, 844);
    server.enter(&phone, "Ann");
    (1..=30).for_each(|number| bob.public(&format!("line {number}")));
    phone.wait_for_text(LATEST, "line 30");
    // As if the keyboard came up, which shrinks the page (`interactive-widget` in index.html).
    phone.wait_for("document.querySelector('meta[name=viewport]').content.includes('resizes-content')");
    resize(&phone, 390, 420);
    phone.wait_for("innerHeight === 420");
    assert_fits(&phone, 390, "keyboard");
    let distance = "(log.scrollHeight - log.scrollTop - log.clientHeight)";
    phone.wait_for(&format!("((log) => {distance} < 2)(document.querySelector('#log'))"));
    // The join form of a small phone, which scrolls.
    phone.click("#leave");
    phone.wait_for("document.activeElement.id === 'name'");
    resize(&phone, 320, 220);
    phone.wait_for("innerHeight === 220");
    phone.evaluate("document.querySelector('#join').scrollIntoView()");
    phone.wait_for(
        "((button) => button.top >= 0 && button.bottom <= 220)(document.querySelector('#join').getBoundingClientRect())",
    );
}

fn nothing_is_under_a_notch(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let _bob = server.client("Bob");
    let phone = driver.phone();
    server.enter(&phone, "Ann");
    for (width, height, insets) in [
        (390, 844, json!({"top": 47, "bottom": 34, "left": 0, "right": 0})),
        (844, 390, json!({"top": 0, "bottom": 21, "left": 47, "right": 47})),
        (740, 360, json!({"top": 0, "bottom": 21, "left": 47, "right": 47})),
    ] {
        resize(&phone, width, height);
        phone.devtools("Emulation.setSafeAreaInsetsOverride", json!({"insets": insets}));
        phone.wait_for(&format!("innerWidth === {width}"));
        if width <= 768 {
            phone.click("#members-button");
        }
        phone.wait_for_text("#member-list", "Bob");
        phone.wait_for(&format!(
            "(({{ top, bottom, left, right }}) => [...document.querySelectorAll('h1 img, button, textarea')]
                .filter((control) => control.checkVisibility())
                .map((control) => control.getBoundingClientRect())
                .every((box) => box.top >= top && box.left >= left && box.right <= {width} - right &&
                    box.bottom <= {height} - bottom))({insets})"
        ));
        if width <= 768 {
            phone.click("#members-button");
        }
    }
}

fn the_page_can_be_installed(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let browser = driver.desktop();
    browser.open(&server.url());
    browser.wait_for("document.activeElement.id === 'name'");
    let found = browser.devtools("Page.getAppManifest", json!({}));
    assert_eq!(found["url"], format!("{}manifest.webmanifest", server.url()));
    assert_eq!(found["errors"], json!([]));
    let found = browser.devtools("Page.getInstallabilityErrors", json!({}));
    assert_eq!(found["installabilityErrors"], json!([]));
    assert_empty_console(&browser);
}

fn the_form_needs_few_requests_and_bytes(transport: Transport) {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(transport);
    let browser = driver.phone();
    // On a slow line, files with a low priority are loaded last. Here they are blocked.
    let page = include_str!("../../src/http/web/index.html");
    let later: Vec<&str> = page
        .lines()
        .filter(|line| line.contains(r#"fetchpriority="low""#))
        .map(|line| line.split_once("href=\"").unwrap().1.split('"').next().unwrap())
        .collect();
    assert!(later.len() > 5, "{later:?}");
    let block = |files: &[&str]| {
        let urls: Vec<String> = files.iter().map(|file| format!("{}{file}", server.url())).collect();
        browser.devtools("Network.setBlockedURLs", json!({"urls": urls}));
    };
    browser.devtools("Network.enable", json!({}));
    block(&later);
    browser.open(&server.url());
    browser.wait_for("document.activeElement.id === 'name' && document.readyState === 'complete'");
    browser.wait_for_text("#join-error", "Couldn't load the chat");
    // The icon and the manifest do not count: the form does not wait for them.
    let loaded = "performance.getEntries().filter((entry) => entry.transferSize > 0 && !/favicon|manifest/.test(entry.name))";
    let requests = browser.evaluate(&format!("{loaded}.length")).as_u64().unwrap();
    let bytes = format!("{loaded}.reduce((sum, entry) => sum + entry.transferSize, 0)");
    let bytes = browser.evaluate(&bytes).as_u64().unwrap();
    let names = browser.evaluate(&format!("{loaded}.map((entry) => entry.name)"));
    assert!((3..=MAX_FORM_REQUESTS).contains(&requests), "{requests} requests: {names}");
    assert!((1_000..=MAX_FORM_BYTES).contains(&bytes), "{bytes} bytes: {names}");
    // On a line as slow as 3G often is, users can join before the rest of the page has been loaded.
    block(&[]);
    browser.devtools(
        "Network.emulateNetworkConditions",
        json!({"offline": false, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}),
    );
    browser.open(&server.url());
    browser.wait_for("document.activeElement.id === 'name'");
    browser.type_into("#name", &format!("Ann{ENTER}"));
    browser.wait_for_text("#log", "Ann joined.");
}

fn resize(browser: &Browser, width: u32, height: u32) {
    let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width <= 768});
    browser.devtools("Emulation.setDeviceMetricsOverride", metrics);
}

/// Asserts that nothing has to be scrolled sideways and no control is out of reach.
fn assert_fits(browser: &Browser, width: u32, state: &str) {
    let too_wide = format!(
        "[...document.querySelectorAll('html, header, main, #log, #members, #composer')]
            .filter((box) => box.scrollWidth > Math.min(box.clientWidth, {width}))
            .map((box) => `${{box.tagName}} ${{box.id}}: ${{box.scrollWidth}} px`)"
    );
    assert_eq!(browser.evaluate(&too_wide), json!([]), "too wide: {state} at {width} px");
    assert_eq!(browser.evaluate(OUTSIDE), json!([]), "outside of the window: {state} at {width} px");
}
