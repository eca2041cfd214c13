//! A real browser for tests: headless Chromium, driven through chromedriver by the W3C WebDriver protocol.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::TIMEOUT;

/// Keys that are no text, as WebDriver names them.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const DOWN: &str = "\u{e015}";
pub const SHIFT: &str = "\u{e008}";

/// What says that an element is one (WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Browsers are heavy: one test at a time has any, so that a small machine can do the other tests beside it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// chromedriver, which ends with the test.
pub struct Driver {
    _turn: MutexGuard<'static, ()>,
    child: Child,
    port: u16,
}

impl Driver {
    /// `None`: this machine has no browser, which was said. Where the tests are required that is a fault.
    pub fn start() -> Option<Self> {
        let found = |name: &str| {
            env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|path| path.join(name).is_file())
        };
        if !found("chromedriver") || !found("chromium") {
            skip("a real browser", "apt-get install chromium chromium-driver");
            return None;
        }
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .find_map(|line| {
                line.ok()?.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver says on which port it listens");
        // Whoever does not read on would keep it from going on.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { _turn: turn, child, port })
    }

    /// A browser with nothing in it, as large as a desktop's.
    pub fn desktop(&self) -> Browser<'_> {
        self.browser(json!({}), &["--window-size=1280,860"])
    }

    /// One like that of a phone, with a screen that is touched.
    pub fn phone(&self) -> Browser<'_> {
        let metrics = json!({"width": 390, "height": 844, "pixelRatio": 1, "touch": true});
        self.browser(json!({"mobileEmulation": {"deviceMetrics": metrics}}), &[])
    }

    fn browser(&self, mut options: Value, more: &[&str]) -> Browser<'_> {
        let profile = tempfile::tempdir().unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        let mut arguments = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &folder,
        ];
        arguments.extend(more);
        options["args"] = json!(arguments);
        let capabilities = json!({
            "browserName": "chrome",
            // The certificate is one for tests, signed by itself.
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": options,
        });
        let asked = json!({"capabilities": {"alwaysMatch": capabilities}});
        let answer = self.request("POST", "/session", Some(&asked)).expect("a browser");
        let session = answer["sessionId"].as_str().unwrap().to_owned();
        Browser { driver: self, session, _profile: profile }
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut socket =
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\
             Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).map_err(|error| error.to_string())?;
        let mut reader = BufReader::new(socket);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).map_err(|error| error.to_string())?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap()
                }
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default())),
            None => Ok(value),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says that something was not tested, and how it would be; with `TINYCHAT_BROWSER_TESTS=required` that fails.
pub fn skip(what: &str, remedy: &str) {
    let is_required = env::var_os("TINYCHAT_BROWSER_TESTS").is_some_and(|value| value == "required");
    assert!(!is_required, "this needs {what}: {remedy}");
    // Past the test harness, which keeps what a test prints that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: this needs {what}: {remedy}");
}

/// A browser with one page, which ends with the test.
pub struct Browser<'a> {
    driver: &'a Driver,
    session: String,
    _profile: TempDir,
}

impl Browser<'_> {
    fn post(&self, path: &str, body: Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.driver
            .request("POST", &path, Some(&body))
            .unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    fn get(&self, path: &str) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.driver.request("GET", &path, None).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn open(&self, url: &str) {
        self.post("/url", json!({"url": url}));
    }

    pub fn reload(&self) {
        self.post("/refresh", json!({}));
    }

    /// What this JavaScript expression is, in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.post("/execute/sync", json!({"script": format!("return {expression}"), "args": []}))
    }

    /// Waits until the expression is true, and fails if it never is.
    pub fn wait_for(&self, expression: &str) {
        let start = Instant::now();
        while self.value(&format!("Boolean({expression})")) != json!(true) {
            if start.elapsed() > TIMEOUT {
                let page = self.value("document.body.innerText");
                panic!("{expression} never came true; the page: {}", page.as_str().unwrap_or_default());
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
    }

    /// Waits until this text is to be seen in the first element of the selector.
    pub fn sees(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.wait_for(&format!("document.querySelector({selector})?.innerText.includes({text})"));
    }

    fn element(&self, selector: &str) -> String {
        let element = self.post("/element", json!({"using": "css selector", "value": selector}));
        element[ELEMENT].as_str().unwrap().to_owned()
    }

    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), json!({}));
    }

    /// Types into an element; a browser takes care that it can be typed into.
    pub fn types(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/value"), json!({"text": text}));
    }

    /// Presses keys one after the other, wherever the focus is; those in one string together.
    pub fn presses(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys.iter().flat_map(|keys| chord(keys)).collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// What the page has put on its console, and what the browser has complained of.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", json!({"type": "browser"}));
        let entries = entries.as_array().unwrap().iter();
        entries.map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect()
    }

    pub fn set_dark(&self, is_dark: bool) {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    /// Writes what is to be seen as a PNG.
    pub fn screenshot(&self, path: &Path) {
        let picture = self.get("/screenshot");
        fs::write(path, from_base64(picture.as_str().unwrap())).unwrap();
    }

    /// Asserts that axe-core finds nothing to mend in the page as it is now.
    pub fn is_accessible(&self, axe: &str, when: &str) {
        self.post("/execute/sync", json!({"script": format!("{axe}; window.axe = axe"), "args": []}));
        let script = "const done = arguments[0];
            axe.run().then((found) => done(found.violations.map((violation) =>
                `${violation.id}: ${violation.help}: ${violation.nodes.map((node) => node.html + ' ' + node.failureSummary)}`
            )), (error) => done([String(error)]))";
        let found = self.post("/execute/async", json!({"script": script, "args": []}));
        assert_eq!(found, json!([]), "{when}");
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = self.driver.request("DELETE", &format!("/session/{}", self.session), None);
    }
}

/// Keys that are all down before the first is up.
fn chord(keys: &str) -> Vec<Value> {
    let event = |kind: &str, key: char| json!({"type": kind, "value": key.to_string()});
    let down = keys.chars().map(|key| event("keyDown", key));
    down.chain(keys.chars().rev().map(|key| event("keyUp", key))).collect()
}

/// axe-core's source, from the file that AXE_CORE names. `None`: there is none, which was said.
pub fn axe_core() -> Option<String> {
    match env::var_os("AXE_CORE") {
        Some(path) => {
            Some(fs::read_to_string(&path).unwrap_or_else(|error| panic!("AXE_CORE={path:?}: {error}")))
        }
        None => {
            skip("axe-core", "npm install axe-core, and AXE_CORE=node_modules/axe-core/axe.min.js");
            None
        }
    }
}

/// Base64 (RFC 4648), as it comes from a program that writes it well.
fn from_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for digit in text.bytes().take_while(|&byte| byte != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
