//! A real browser for tests: headless Chromium, controlled through chromedriver with the W3C WebDriver protocol.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::TIMEOUT;

/// Key codes (WebDriver, section "Keyboard actions").
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const UP: &str = "\u{e013}";
pub const DOWN: &str = "\u{e015}";
pub const SHIFT: &str = "\u{e008}";

/// The field of a JSON object that holds an element's id (WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Browsers are heavy: only two tests at a time run any.
static PERMITS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// A chromedriver process, killed on drop.
pub struct Driver {
    _permit: MutexGuard<'static, ()>,
    child: Child,
    port: u16,
}

/// The most attempts to start chromedriver, and to load a page.
const ATTEMPTS: usize = 5;

/// A chromedriver and its port; `None`: it has ended.
fn chromedriver() -> Option<(Child, u16)> {
    let mut child = Command::new("chromedriver")
        .args(["--port=0", "--log-level=SEVERE"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines.by_ref().find_map(|line| {
        line.ok()?.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
    });
    let Some(port) = port else {
        child.wait().unwrap();
        return None;
    };
    // Drains the pipe: chromedriver would block when it is full.
    std::thread::spawn(move || lines.for_each(drop));
    Some((child, port))
}

impl Driver {
    /// `None` if this machine has no browser, which has been reported. See [`skip`].
    pub fn start() -> Option<Self> {
        let is_installed = |name: &str| {
            env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|path| path.join(name).is_file())
        };
        if !is_installed("chromedriver") || !is_installed("chromium") {
            skip("a real browser", "apt-get install chromium chromium-driver");
            return None;
        }
        let free = PERMITS.iter().find_map(|permit| match permit.try_lock() {
            Ok(permit) => Some(permit),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        let permit = free.unwrap_or_else(|| PERMITS[0].lock().unwrap_or_else(PoisonError::into_inner));
        // It chooses a port that is free in IPv4, and exits if that is in use in IPv6.
        let (child, port) = (0..ATTEMPTS).find_map(|_| chromedriver()).expect("chromedriver prints its port");
        Some(Self { _permit: permit, child, port })
    }

    /// A browser with a new profile and a window of desktop size.
    pub fn desktop(&self) -> Browser<'_> {
        self.browser(json!({}), &["--window-size=1280,860"])
    }

    /// A browser that emulates a phone with a touch screen.
    pub fn phone(&self) -> Browser<'_> {
        let metrics = json!({"width": 390, "height": 844, "pixelRatio": 1, "touch": true});
        self.browser(json!({"mobileEmulation": {"deviceMetrics": metrics}}), &[])
    }

    fn browser(&self, mut options: Value, extra: &[&str]) -> Browser<'_> {
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
        arguments.extend(extra);
        options["args"] = json!(arguments);
        let capabilities = json!({
            "browserName": "chrome",
            // The test certificate is self-signed.
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": options,
        });
        let body = json!({"capabilities": {"alwaysMatch": capabilities}});
        let session = self.request("POST", "/session", Some(&body)).expect("a new session");
        let session = session["sessionId"].as_str().unwrap().to_owned();
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
        let mut response = vec![0; length];
        reader.read_exact(&mut response).map_err(|error| error.to_string())?;
        let mut response: Value = serde_json::from_slice(&response).map_err(|error| error.to_string())?;
        let value = response["value"].take();
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

/// Reports a skipped test and what to install for it. Fails if `TINYCHAT_BROWSER_TESTS=required` is set.
fn skip(what: &str, remedy: &str) {
    let is_required = env::var_os("TINYCHAT_BROWSER_TESTS").is_some_and(|value| value == "required");
    assert!(!is_required, "this needs {what}: {remedy}");
    // Not eprintln!: the test harness hides the output of a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: this needs {what}: {remedy}");
}

/// A browser with one page, closed on drop.
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
        self.load("/url", &json!({"url": url}));
    }

    pub fn reload(&self) {
        self.load("/refresh", &json!({}));
    }

    /// Loading fails with ERR_NETWORK_CHANGED if a network interface changes, as when a container starts.
    fn load(&self, command: &str, parameters: &Value) {
        for _ in 0..ATTEMPTS {
            self.post(command, parameters.clone());
            if self.evaluate("document.body.innerText.includes('ERR_NETWORK_CHANGED')") != json!(true) {
                return;
            }
        }
    }

    /// The value of a JavaScript expression in the page.
    pub fn evaluate(&self, expression: &str) -> Value {
        self.post("/execute/sync", json!({"script": format!("return {expression}"), "args": []}))
    }

    /// Waits until the expression is true. Panics after [`TIMEOUT`].
    pub fn wait_for(&self, expression: &str) {
        let start = Instant::now();
        while self.evaluate(&format!("Boolean({expression})")) != json!(true) {
            if start.elapsed() > TIMEOUT {
                let page = self.evaluate("document.body.innerText");
                panic!(
                    "timed out waiting for {expression}; the page shows: {}",
                    page.as_str().unwrap_or_default()
                );
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
    }

    /// Waits until the first element that matches the selector shows this text.
    pub fn wait_for_text(&self, selector: &str, text: &str) {
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

    /// Types into an element. The browser fails if it is not interactable.
    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/value"), json!({"text": text}));
    }

    /// Presses keys one after the other, wherever the focus is. The keys within one string are held together.
    pub fn press(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys.iter().flat_map(|keys| chord(keys)).collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// The entries of the page's console since the last call, including the browser's own.
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", json!({"type": "browser"}));
        let entries = entries.as_array().unwrap().iter();
        // On a busy machine, the page of a new tab, which comes first, reports that it is slow.
        let entries = entries.filter(|entry| !entry["message"].as_str().unwrap().starts_with("chrome://"));
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

    /// Writes the visible part of the page as a PNG.
    pub fn screenshot(&self, path: &Path) {
        let picture = self.get("/screenshot");
        fs::write(path, from_base64(picture.as_str().unwrap())).unwrap();
    }

    /// Asserts that axe-core finds no violations in the current state of the page.
    pub fn assert_accessible(&self, axe: &str, state: &str) {
        self.post("/execute/sync", json!({"script": format!("{axe}; window.axe = axe"), "args": []}));
        // Waits for transitions: axe-core would measure the contrast of intermediate colors.
        let script = "const done = arguments[0];
            const transitions = document.getAnimations().filter((animation) => animation instanceof CSSTransition);
            Promise.allSettled(transitions.map((transition) => transition.finished)).then(() => axe.run()).then((found) => done(found.violations.map((violation) =>
                `${violation.id}: ${violation.help}: ${violation.nodes.map((node) => node.html + ' ' + node.failureSummary)}`
            )), (error) => done([String(error)]))";
        let found = self.post("/execute/async", json!({"script": script, "args": []}));
        assert_eq!(found, json!([]), "{state}");
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = self.driver.request("DELETE", &format!("/session/{}", self.session), None);
    }
}

/// Presses all keys before it releases the first.
fn chord(keys: &str) -> Vec<Value> {
    let event = |kind: &str, key: char| json!({"type": kind, "value": key.to_string()});
    let down = keys.chars().map(|key| event("keyDown", key));
    down.chain(keys.chars().rev().map(|key| event("keyUp", key))).collect()
}

/// The source of axe-core, from the file that `AXE_CORE` names. `None` if it is unset, which has been reported.
pub fn axe_core() -> Option<String> {
    match env::var_os("AXE_CORE") {
        Some(path) => {
            Some(fs::read_to_string(&path).unwrap_or_else(|error| panic!("AXE_CORE={path:?}: {error}")))
        }
        None => {
            skip(
                "axe-core",
                "npm ci --prefix .ci/page, then set AXE_CORE=.ci/page/node_modules/axe-core/axe.min.js",
            );
            None
        }
    }
}

/// Decodes base64 (RFC 4648). The input is trusted to be valid.
fn from_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut bit_count) = (0_u32, 0);
    for digit in text.bytes().take_while(|&byte| byte != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(value);
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((bits >> bit_count) as u8);
        }
    }
    bytes
}
