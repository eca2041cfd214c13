//! SPEC.md, "The log", and how the server ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Message};

use crate::client::{Client, HANG};
use crate::program::{Folder, Killed, Running};
use crate::server::Transport;

/// A line of the log taken apart: when, how grave, and what.
fn parts(line: &str) -> (&str, &str, &str) {
    let split = || {
        let (time, rest) = line.split_once(" [")?;
        let (level, what) = rest.split_once("]: [chat_server] ")?;
        Some((time, level, what))
    };
    let (time, level, what) = split().unwrap_or_else(|| panic!("{line:?} is no line of the log"));
    let digits: Vec<&str> = time.split(':').collect();
    let is_time =
        digits.len() == 3 && digits.iter().all(|part| part.len() == 2 && part.parse::<u8>().is_ok());
    assert!(is_time && ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{line:?}");
    assert!(!what.is_empty() && !line.contains(char::is_control), "{line:?}");
    (time, level, what)
}

/// What the lines of a log say, with their levels.
fn events(log: &str) -> Vec<(&str, &str)> {
    log.split_terminator('\n').map(parts).map(|(_, level, what)| (level, what)).collect()
}

#[test]
fn a_line_an_event_in_the_format_of_the_specification() {
    let folder = Folder::new();
    folder.tinychat(&["generate-certs"]).run();
    let mut server = folder.tinychat(&["--use-ssl", "--port", "0"]).start();
    let mut ann = Client::trusting(&folder.path("certs/server.crt"), "localhost", server.address);
    ann.enter("Ann \u{1F980}");
    let peer = ann.socket.get_ref().tcp().local_addr().unwrap();
    server.hears("joined");
    drop(ann);
    let port = server.address.port();
    let log = server.stop();
    let events = events(&log);
    assert_eq!(
        events[0],
        ("INFO", "SSL/TLS enabled: cert=./certs/server.crt, key=./certs/server.key"),
        "{log}"
    );
    let place = |what: &str| events.iter().position(|&event| event == ("INFO", what)).expect(what);
    let running = place(&format!("WebSocket server running: wss://127.0.0.1:{port}"));
    assert!(running < place(&format!("{peer}: Ann \u{1F980} joined.")), "{log}");
}

#[test]
fn addresses_stand_in_the_log_as_in_a_url() {
    let folder = Folder::new();
    for (host, shown) in [("0.0.0.0", "0.0.0.0"), ("localhost", "localhost")] {
        let server = folder.tinychat(&["--host", host, "--port", "0"]).start();
        let line = format!("WebSocket server running: ws://{shown}:{}", server.address.port());
        let page = format!("Chat page: http://localhost:{}/", server.address.port());
        let log = server.stop();
        let events = events(&log);
        let running = events.iter().position(|&event| event == ("INFO", &line)).expect(&line);
        let (level, told) = events[running + 1];
        assert!(level == "INFO" && told.starts_with(&page), "nobody can open every address: {told}");
        assert_eq!(told.contains("this machine's name"), host == "0.0.0.0", "{told}");
    }
    let server = folder.tinychat(&["--port", "0", "--web-ui", "false"]).start();
    assert!(!server.stop().contains("Chat page"));
}

#[test]
fn each_level_says_what_is_as_grave_or_graver() {
    let folder = Folder::new();
    let levels = |level: &str| {
        let arguments = ["--use-ssl", "--port", "0", "--log-level", level];
        let mut server = folder.tinychat(&arguments).start_silent();
        server.address.set_port(listening_port(&server));
        let mut ann = server.join("Ann");
        ann.public("hi");
        // The answer to a command comes when all of this has happened.
        ann.hears_nothing();
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

/// Where a server listens that does not say so, once it does.
fn listening_port(server: &Running) -> u16 {
    let until = Instant::now() + HANG;
    while Instant::now() < until {
        let sockets = fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap();
        let sockets = sockets.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let sockets: Vec<String> = sockets.map(|link| link.display().to_string()).collect();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let port = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_its_own = fields[3] == "0A" && sockets.contains(&format!("socket:[{}]", fields[9]));
            is_its_own.then(|| u16::from_str_radix(fields[1].rsplit(':').next().unwrap(), 16).unwrap())
        });
        match port {
            Some(port) => return port,
            None => std::thread::yield_now(),
        }
    }
    panic!("it does not listen");
}

#[test]
fn a_log_that_is_off_does_not_hide_a_failed_start() {
    let ended = Folder::new().tinychat(&["--log-level", "off", "--use-ssl", "--ssl-required"]).run();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("SSL certificate not found: ./certs/server.crt"), "{ended:?}");
    assert!(ended.stderr.contains("SSL private key not found: ./certs/server.key"), "{ended:?}");
}

#[test]
fn what_people_say_is_never_logged_and_who_they_are_is() {
    let server = Folder::new()
        .tinychat(&["--port", "0", "--log-level", "trace", "--message-rate", "0"])
        .env("MOD_PASSWORD", "password-secret")
        .start();
    let mut ann = server.join("Ann");
    let mut bob = server.join("Bob");
    assert_eq!(ann.hears(), "system: Bob joined.");
    ann.public("public-secret");
    assert_eq!(bob.hears(), "Ann: public-secret");
    ann.command("/whisper Bob whispered-secret");
    assert_eq!(bob.hears(), "Ann to Bob: whispered-secret");
    assert_eq!(ann.hears(), "Ann to Bob: whispered-secret");
    for command in ["/login wrong-secret", "/unknown-secret secret", "/whisper secret", "/to secret 5"] {
        ann.command(command);
        assert!(ann.hears().starts_with("error: "), "{command}");
    }
    ann.command("/login password-secret");
    assert_eq!(
        (ann.hears(), bob.hears()),
        ("system: Ann is now a moderator.".into(), "system: Ann is now a moderator.".into())
    );
    for text in
        ["secret", "{\"type\": \"secret\"}", "{\"type\": \"public\", \"content\": 7, \"x\": \"secret\"}"]
    {
        bob.send_text(text);
        assert!(bob.hears().starts_with("error: "), "{text}");
    }
    bob.socket.send(Message::binary(Bytes::from_static(b"secret"))).unwrap();
    assert!(bob.hears().starts_with("error: "));
    let mut guest = server.connect();
    guest.public("secret");
    assert!(guest.hears().starts_with("error: "));
    guest.send(json!({"type": "join", "username": "secret\u{7}"}));
    assert!(guest.hears().starts_with("error: "));
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
fn nobody_forges_a_line() {
    let forged = "12:00:00 [INFO]: [chat_server] Eve";
    let arguments = ["--port", "0", "--log-level", "trace", "--allowed-origins", "https://chat.example.com"];
    let mut server = Folder::new().tinychat(&arguments).env("TRUSTED_PROXIES", "127.0.0.0/8").start();
    for request in [
        format!("GET /\n{forged} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /%0a{forged} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("\n{forged}\u{1b}[2K\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\n{forged}\r\n\r\n"),
        upgrade(&format!("X-Forwarded-For: 192.0.2.1\t{forged}, \u{1b}[2K{forged}\r\n")),
        upgrade(&format!("X-Forwarded-For: 192.0.2.1\r{forged}\r\n")),
        upgrade(&format!("X-Forwarded-For: {forged}, 192.0.2.1\r\n")),
        upgrade(&format!("Origin: https://{forged}\r\n")),
        upgrade(&format!("User-Agent: {forged}\r\nHost: {forged}\r\n")),
    ] {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        // Each comes to be known by its address, whether it was refused or let in.
        server.hears(&format!("{}", socket.local_addr().unwrap()));
    }
    let mut eve = server.connect();
    for name in
        [format!("a\n{forged}"), "a\rb".into(), "a\u{1b}[2K".into(), "a\u{2028}b".into(), "a\u{202e}b".into()]
    {
        eve.join(&name);
        assert!(eve.hears().starts_with("error: "), "{name:?}");
    }
    eve.command(&format!("/login\n{forged}"));
    assert!(eve.hears().starts_with("error: "));
    // Spaces and brackets are fine in a name, which stands behind its address.
    eve.enter("12:00:00 [INFO]: [chat_server] E");
    drop(eve);
    let log = server.stop();
    for (_, what) in events(&log) {
        assert!(!what.starts_with("Eve") && !what.contains(forged), "{log}");
    }
    assert!(log.contains(": 12:00:00 [INFO]: [chat_server] E joined.\n"), "{log}");
}

fn upgrade(headers: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

#[test]
fn a_path_forges_no_line() {
    let path = "a\n12:00:00 [INFO]: [chat_server] b\u{1b}[2K";
    let server = Folder::new().tinychat(&["--port", "0", "--use-ssl"]).env("SSL_CERT_PATH", path).start();
    let log = server.stop();
    let not_found = "SSL certificate not found: a\\n12:00:00 [INFO]: [chat_server] b\\u{1b}[2K (";
    assert!(events(&log)[0].1.starts_with(not_found), "{log}");
    let ended = Folder::new().tinychat(&["--use-ssl", "--ssl-required"]).env("SSL_CERT_PATH", path).run();
    assert_eq!((ended.status, events(&ended.stderr).len()), (Some(1), 2), "{ended:?}");
}

#[test]
fn times_are_those_of_the_servers_zone() {
    // In POSIX's way, which needs no database of zones: five and a half hours east.
    let mut server = Folder::new().tinychat(&["--port", "0"]).env("TZ", "IST-5:30").start();
    let mut ann = server.join("Ann");
    server.hears("Ann joined.");
    ann.command("/help");
    let stamp = ann.next()["timestamp"].as_str().unwrap().to_owned();
    drop(ann);
    let log = server.stop();
    let times = log.lines().map(|line| parts(line).0.to_owned()).chain([stamp]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 5 * 3600 + 30 * 60;
    for time in times {
        let units: Vec<i64> = time.split(':').map(|unit| unit.parse().unwrap()).collect();
        let ago = (now - (units[0] * 3600 + units[1] * 60 + units[2])).rem_euclid(24 * 3600);
        assert!(ago < 15 * 60, "{time} in {log}");
    }
}

#[test]
fn a_signal_ends_it_with_a_goodbye_to_everybody() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let server = folder.tinychat(&["--port", "0"]).start();
        let (mut ann, mut guest) = (server.join("Ann"), server.connect());
        let address = server.address;
        server.signal(signal);
        assert_eq!((ann.close_code(), guest.close_code()), (Some(CloseCode::Away), Some(CloseCode::Away)));
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(events(&log).iter().any(|(_, what)| what.starts_with("Stopping")), "{log}");
        // The port is free again, even for a server that starts at once.
        drop(TcpListener::bind(address).unwrap());
        folder.tinychat(&["--port", &address.port().to_string()]).start().stop();
    }
}

#[test]
fn a_signal_is_heeded_as_soon_as_it_says_that_it_runs() {
    let folder = Folder::new();
    for _ in 0..20 {
        folder.tinychat(&["--port", "0"]).start().stop();
    }
}

/// SPEC.md gives it 5 s; a busy machine may take longer, but does not wait for them for ever.
const NOT_FOR_EVER: Duration = Duration::from_secs(30);

#[test]
fn whoever_does_not_answer_does_not_keep_it() {
    let folder = Folder::new();
    folder.tinychat(&["generate-certs"]).run();
    let start = |arguments: &[&str]| folder.tinychat(&[&["--port", "0"], arguments].concat()).start();
    let (plain, secure) = (start(&[]), start(&["--use-ssl"]));
    let _silent = plain.join("Silent");
    let mut silent = Client::trusting(&folder.path("certs/server.crt"), "localhost", secure.address);
    silent.enter("Silent");
    // These have not begun to say who they are, or only just.
    let begun = [&plain, &secure].map(|server| {
        let mut amid = TcpStream::connect(server.address).unwrap();
        amid.write_all(&[0x16, 0x03]).unwrap();
        (TcpStream::connect(server.address).unwrap(), amid)
    });
    let asked = Instant::now();
    for server in [&plain, &secure] {
        server.signal(Signal::TERM);
    }
    for server in [plain, secure] {
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log}");
    }
    assert!(asked.elapsed() < NOT_FOR_EVER, "{:?}", asked.elapsed());
    drop(begun);
}

#[test]
fn a_second_signal_does_no_harm() {
    let server = Folder::new().tinychat(&["--port", "0"]).start();
    let _silent = server.join("Silent");
    server.signal(Signal::TERM);
    server.signal(Signal::INT);
    server.signal(Signal::TERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// A log that nobody reads once held up the chat, and the end of the server.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let folder = Folder::new();
    let mut program = Command::new(env!("CARGO_BIN_EXE_tinychat"));
    program.current_dir(folder.path(".")).env_clear().env("PORT", "0").stderr(Stdio::piped());
    let mut server = Killed(program.spawn().unwrap());
    let mut log = BufReader::new(server.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("running: ws://") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0);
    }
    let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    let address = (Ipv4Addr::LOCALHOST, port).into();
    // A pipe takes 64 KiB, and 1024 lines wait before it.
    for _ in 0..2500 {
        let mut stranger = TcpStream::connect(address).unwrap();
        stranger.write_all(b"nonsense\r\n\r\n").unwrap();
        stranger.read_to_end(&mut Vec::new()).unwrap();
    }
    let mut ann = Client::connect(address, Transport::Ws);
    ann.enter("Ann");
    ann.hears_nothing();
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}
