//! The log on standard error (docs/operations.md): its format, its levels, and what it must never contain.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::ChildStderr;
use std::sync::mpsc::channel;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::json;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Message};

use crate::support::client::{Client, TIMEOUT, connect};
use crate::support::http::{read_until_closed, upgrade_request};
use crate::support::program::{Folder, KillOnDrop, Process, address_in};
use crate::support::server::Transport;

#[test]
fn each_event_is_one_line_in_the_documented_format() {
    let folder = Folder::new();
    folder.tinychat(&["generate-certs"]).run();
    let mut server = folder.tinychat(&["--use-ssl", "--port", "0"]).start();
    let mut ann = Client::trusting(&folder.path("certs/server.crt"), "localhost", server.address);
    ann.join_and_wait("Ann \u{1F980}");
    let address = ann.socket.get_ref().tcp().local_addr().unwrap();
    server.wait_for_line("joined");
    drop(ann);
    let port = server.address.port();
    let log = server.stop();
    let events = events(&log);
    assert_eq!(
        events[0],
        ("INFO", "SSL/TLS enabled: cert=./certs/server.crt, key=./certs/server.key"),
        "{log}"
    );
    let position = |text: &str| events.iter().position(|&event| event == ("INFO", text)).expect(text);
    let running = position(&format!("WebSocket server running: wss://127.0.0.1:{port}"));
    assert!(running < position(&format!("{address}: Ann \u{1F980} joined.")), "{log}");
}

#[test]
fn the_log_shows_the_urls_of_the_server_and_the_page() {
    let folder = Folder::new();
    for host in ["0.0.0.0", "localhost"] {
        let server = folder.tinychat(&["--host", host, "--port", "0"]).start();
        let server_line = format!("WebSocket server running: ws://{host}:{}", server.address.port());
        let page_line = format!("Chat page: http://localhost:{}/", server.address.port());
        let log = server.stop();
        let events = events(&log);
        let running = events.iter().position(|&event| event == ("INFO", &server_line)).expect(&server_line);
        let (level, page) = events[running + 1];
        // A browser cannot open 0.0.0.0.
        assert!(level == "INFO" && page.starts_with(&page_line), "{page}");
        assert_eq!(page.contains("this machine's name"), host == "0.0.0.0", "{page}");
    }
    let server = folder.tinychat(&["--port", "0", "--web-ui", "false"]).start();
    assert!(!server.stop().contains("Chat page"));
}

#[test]
fn each_level_includes_the_more_severe_ones() {
    let folder = Folder::new();
    let levels = |level: &str| {
        let arguments = ["--use-ssl", "--port", "0", "--log-level", level];
        let mut server = folder.tinychat(&arguments).start_without_waiting();
        server.address.set_port(listening_port(&server));
        let mut ann = server.join("Ann");
        ann.public("hi");
        // The answer to a command comes after all of this was logged.
        ann.assert_nothing_received();
        drop(ann);
        let log = server.stop();
        let mut levels: Vec<String> = events(&log).iter().map(|(level, _)| level.to_string()).collect();
        levels.sort();
        levels.dedup();
        levels
    };
    assert_eq!(levels("off"), [""; 0]);
    assert_eq!(levels("error"), ["ERROR"]);
    assert_eq!(levels("WARN"), ["ERROR", "WARN"]);
    assert_eq!(levels("info"), ["ERROR", "INFO", "WARN"]);
    assert_eq!(levels("debug"), ["DEBUG", "ERROR", "INFO", "WARN"]);
}

#[test]
fn a_failed_start_is_reported_even_if_the_log_is_off() {
    let output = Folder::new().tinychat(&["--log-level", "off", "--use-ssl", "--ssl-required"]).run();
    assert_eq!(output.status, Some(1), "{output:?}");
    assert!(output.stderr.contains("SSL certificate not found: ./certs/server.crt"), "{output:?}");
    assert!(output.stderr.contains("SSL private key not found: ./certs/server.key"), "{output:?}");
}

#[test]
fn names_and_addresses_are_logged_and_messages_and_passwords_are_not() {
    let server = Folder::new()
        .tinychat(&["--port", "0", "--log-level", "trace", "--message-rate", "0"])
        .env("MOD_PASSWORD", "password-secret")
        .start();
    let mut ann = server.join("Ann");
    let mut bob = server.join("Bob");
    assert_eq!(ann.next_line(), "system: Bob joined.");
    ann.public("public-secret");
    assert_eq!(bob.next_line(), "Ann: public-secret");
    ann.command("/whisper Bob whispered-secret");
    assert_eq!(bob.next_line(), "Ann to Bob: whispered-secret");
    assert_eq!(ann.next_line(), "Ann to Bob: whispered-secret");
    for command in ["/login wrong-secret", "/unknown-secret secret", "/whisper secret", "/to secret 5"] {
        ann.command(command);
        assert!(ann.next_line().starts_with("error: "), "{command}");
    }
    ann.command("/login password-secret");
    assert_eq!(
        (ann.next_line(), bob.next_line()),
        ("system: Ann is now a moderator.".into(), "system: Ann is now a moderator.".into())
    );
    for text in
        ["secret", "{\"type\": \"secret\"}", "{\"type\": \"public\", \"content\": 7, \"x\": \"secret\"}"]
    {
        bob.send_text(text);
        assert!(bob.next_line().starts_with("error: "), "{text}");
    }
    bob.socket.send(Message::binary(Bytes::from_static(b"secret"))).unwrap();
    assert!(bob.next_line().starts_with("error: "));
    let mut guest = server.connect();
    guest.public("secret");
    assert!(guest.next_line().starts_with("error: "));
    guest.send(json!({"type": "join", "username": "secret\u{7}"}));
    assert!(guest.next_line().starts_with("error: "));
    let addresses = [&ann, &bob].map(|client| client.socket.get_ref().tcp().local_addr().unwrap());
    drop((ann, bob, guest));
    let log = server.stop();
    assert!(!log.contains("secret"), "{log}");
    let events = events(&log);
    for event in [
        ("INFO", &*format!("{}: Ann joined.", addresses[0])),
        ("INFO", &format!("{}: Bob joined.", addresses[1])),
        ("WARN", &format!("{}: wrong moderator password", addresses[0])),
        ("INFO", &format!("{}: Ann is now a moderator.", addresses[0])),
    ] {
        assert!(events.contains(&event), "{event:?} is not in {log}");
    }
}

#[test]
fn a_client_cannot_forge_a_log_line() {
    let forged = "12:00:00 [INFO]: [chat_server] Eve";
    let arguments = ["--port", "0", "--log-level", "trace", "--allowed-origins", "https://chat.example.com"];
    let mut server = Folder::new().tinychat(&arguments).env("TRUSTED_PROXIES", "127.0.0.0/8").start();
    for request in [
        format!("GET /\n{forged} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /%0a{forged} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("\n{forged}\u{1b}[2K\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\n{forged}\r\n\r\n"),
        upgrade_request(&format!("X-Forwarded-For: 192.0.2.1\t{forged}, \u{1b}[2K{forged}\r\n")),
        upgrade_request(&format!("X-Forwarded-For: 192.0.2.1\r{forged}\r\n")),
        upgrade_request(&format!("X-Forwarded-For: {forged}, 192.0.2.1\r\n")),
        upgrade_request(&format!("Origin: https://{forged}\r\n")),
        upgrade_request(&format!("User-Agent: {forged}\r\nHost: {forged}\r\n")),
    ] {
        let mut socket = connect(server.address);
        socket.write_all(request.as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        // Each leaves a line with its address in the log, whether it was refused or upgraded.
        server.wait_for_line(&socket.local_addr().unwrap().to_string());
    }
    let mut eve = server.connect();
    for name in
        [format!("a\n{forged}"), "a\rb".into(), "a\u{1b}[2K".into(), "a\u{2028}b".into(), "a\u{202e}b".into()]
    {
        eve.join(&name);
        assert!(eve.next_line().starts_with("error: "), "{name:?}");
    }
    eve.command(&format!("/login\n{forged}"));
    assert!(eve.next_line().starts_with("error: "));
    // A name may contain spaces and brackets: it follows the address.
    eve.join_and_wait("12:00:00 [INFO]: [chat_server] E");
    drop(eve);
    let log = server.stop();
    for (_, text) in events(&log) {
        assert!(!text.starts_with("Eve") && !text.contains(forged), "{log}");
    }
    assert!(log.contains(": 12:00:00 [INFO]: [chat_server] E joined.\n"), "{log}");
}

#[test]
fn a_path_cannot_forge_a_log_line() {
    for path in ["a\n12:00:00 [INFO]: [chat_server] b", "a\u{1b}[2K", "a\u{202e}b"] {
        let output = Folder::new().tinychat(&["--use-ssl"]).env("SSL_CERT_PATH", path).run();
        assert_eq!((output.status, output.stderr.lines().count()), (Some(2), 2), "{output:?}");
        assert!(output.stderr.contains("  SSL_CERT_PATH (its value is not shown"), "{output:?}");
    }
}

#[test]
fn times_are_in_the_servers_time_zone() {
    // A POSIX time zone, which needs no database: five and a half hours east of UTC.
    let mut server = Folder::new().tinychat(&["--port", "0"]).env("TZ", "IST-5:30").start();
    let mut ann = server.join("Ann");
    server.wait_for_line("Ann joined.");
    ann.command("/help");
    let timestamp = ann.next_event()["timestamp"].as_str().unwrap().to_owned();
    drop(ann);
    let log = server.stop();
    let times = log.lines().map(|line| fields(line).0.to_owned()).chain([timestamp]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 5 * 3600 + 30 * 60;
    for time in times {
        let units: Vec<i64> = time.split(':').map(|unit| unit.parse().unwrap()).collect();
        let ago = (now - (units[0] * 3600 + units[1] * 60 + units[2])).rem_euclid(24 * 3600);
        assert!(ago < 15 * 60, "{time} in {log}");
    }
}

/// A full pipe once blocked the chat and the shutdown.
#[test]
fn a_log_that_is_not_read_blocks_neither_the_chat_nor_the_shutdown() {
    let UnreadServer { mut process, address, log: _log } = UnreadServer::start();
    fill_log(address);
    let mut ann = Client::connect(address, Transport::Ws);
    ann.join_and_wait("Ann");
    ann.assert_nothing_received();
    process.signal(Signal::TERM);
    assert!(process.wait().success());
}

/// All five warnings were once dropped.
#[test]
fn a_flood_of_other_lines_displaces_no_warning() {
    let UnreadServer { process: _process, address, log } = UnreadServer::start();
    fill_log(address);
    let mut ann = Client::connect(address, Transport::Ws);
    ann.join_and_wait("Ann");
    for _ in 0..5 {
        ann.command("/login wrong");
        assert_eq!(ann.next_line(), "error: Wrong password.");
    }
    fill_log(address);

    let mut socket = connect(address);
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let metrics = String::from_utf8(read_until_closed(&mut socket)).unwrap();
    let metric = |name: &str| {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{name} is not in {metrics}"))
    };
    assert_eq!(metric("tinychat_wrong_passwords_total"), 5);
    assert_eq!(metric("tinychat_log_lines_dropped_total{level=\"warn\"}"), 0);
    let dropped = metric("tinychat_log_lines_dropped_total{level=\"debug\"}");
    assert!(dropped > 2000, "{dropped}");

    let (sender, lines) = channel();
    std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut warnings = 0;
    while warnings < 5 {
        let line =
            lines.recv_timeout(TIMEOUT).unwrap_or_else(|_| panic!("only {warnings} warnings are left"));
        warnings += usize::from(line.ends_with("wrong moderator password"));
    }
}

/// One address once wrote 9,600 lines per second.
#[test]
fn one_address_cannot_fill_the_log() {
    let server = Folder::new().tinychat(&["--port", "0"]).start();
    for _ in 0..1000 {
        let mut socket = connect(server.address);
        socket.write_all(b"nonsense\r\n\r\n").unwrap();
        read_until_closed(&mut socket);
    }
    let log = server.stop();
    let logged = log.matches(" rejected with 400 ").count();
    let report = log.lines().filter_map(|line| line.split_once(" more lines were not logged")).next_back();
    let (count, _) = report.unwrap_or_else(|| panic!("no report in {log}"));
    assert!(count.contains(" 127.0.0.1: "), "{count}");
    let suppressed: usize = count.rsplit(' ').next().unwrap().parse().unwrap();
    // The threads of the last connections may not have logged theirs before the server stops.
    assert!(logged >= 256 && (990..=1000).contains(&(logged + suppressed)), "{logged} + {suppressed}");
}

/// Lines about moderation are always logged.
#[test]
fn members_that_come_and_go_cannot_fill_the_log() {
    let folder = Folder::new();
    let program = folder.tinychat(&["--port", "0", "--message-rate", "0"]);
    let server = program.env("MOD_PASSWORD", "secret").start();
    let clients = 400;
    for number in 0..clients {
        let mut eve = server.join(&format!("Eve {number}"));
        // A frame without a mask.
        eve.socket.get_mut().write_all(&[0x81, 0]).unwrap();
        assert_eq!(eve.close_code(), Some(CloseCode::Protocol));
    }
    let mut ann = server.join("Ann");
    ann.command("/login secret");
    assert_eq!(ann.next_line(), "system: Ann is now a moderator.");
    drop(ann);
    let log = server.stop();
    for text in [" joined.\n", " closed with 1002", " left.\n"] {
        let logged = log.matches(text).count();
        assert!((1..clients).contains(&logged), "{logged} lines contain {text:?}");
    }
    assert!(log.contains(": Ann is now a moderator.\n"), "{log}");
}

#[test]
fn refused_clients_cannot_fill_the_log() {
    let server = Folder::new().tinychat(&["--port", "0", "--max-connections", "1"]).start();
    let ann = server.join("Ann");
    let clients = 800;
    for _ in 0..clients {
        let mut socket = connect(server.address);
        socket.write_all(b"nonsense\r\n\r\n").unwrap();
        read_until_closed(&mut socket);
    }
    drop(ann);
    let log = server.stop();
    let logged = log.matches(": refused: ").count();
    assert!((1..clients).contains(&logged), "{logged} lines");
}

/// A server whose log is not read once it is running.
struct UnreadServer {
    process: KillOnDrop,
    address: SocketAddr,
    log: BufReader<ChildStderr>,
}

impl UnreadServer {
    fn start() -> Self {
        let folder = Folder::new();
        let program = folder.tinychat(&["--port", "0", "--log-level", "debug"]);
        let mut process = program.env("MOD_PASSWORD", "right").spawn();
        let mut log = BufReader::new(process.0.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("running: ws://") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server does not start");
        }
        Self { process, address: address_in(&line), log }
    }
}

/// Makes a server log more lines than fit into a pipe (64 KiB) and the queue before it (1024 lines), at `debug`, which
/// is not limited per address.
fn fill_log(address: SocketAddr) {
    for _ in 0..2500 {
        let mut socket = connect(address);
        socket.write_all(b"DELETE /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_until_closed(&mut socket);
    }
}

/// The events of a log: the level and the text of each line.
fn events(log: &str) -> Vec<(&str, &str)> {
    log.split_terminator('\n').map(fields).map(|(_, level, text)| (level, text)).collect()
}

/// The time, the level and the text of a line, whose format is checked.
fn fields(line: &str) -> (&str, &str, &str) {
    let split = || {
        let (time, rest) = line.split_once(" [")?;
        let (level, text) = rest.split_once("]: [chat_server] ")?;
        Some((time, level, text))
    };
    let (time, level, text) = split().unwrap_or_else(|| panic!("{line:?} is not in the log's format"));
    let digits: Vec<&str> = time.split(':').collect();
    let is_time =
        digits.len() == 3 && digits.iter().all(|part| part.len() == 2 && part.parse::<u8>().is_ok());
    assert!(is_time && ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{line:?}");
    assert!(!text.is_empty() && !line.contains(char::is_control), "{line:?}");
    (time, level, text)
}

/// Waits until a server listens that may not log it, and returns the port.
fn listening_port(server: &Process) -> u16 {
    let start = Instant::now();
    while start.elapsed() < TIMEOUT {
        let links = fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap();
        let links = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let descriptors: Vec<String> = links.map(|link| link.display().to_string()).collect();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let port = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_listening = fields[3] == "0A";
            let is_of_server = descriptors.contains(&format!("socket:[{}]", fields[9]));
            (is_listening && is_of_server)
                .then(|| u16::from_str_radix(fields[1].rsplit(':').next().unwrap(), 16).unwrap())
        });
        match port {
            Some(port) => return port,
            None => std::thread::yield_now(),
        }
    }
    panic!("the server does not listen");
}
