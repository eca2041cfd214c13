//! How the server stops (docs/operations.md): the signals, the close frames and the exit status.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{Client, connect};
use crate::support::over_ws_and_wss;
use crate::support::program::Folder;
use crate::support::server::{TestServer, Transport};

over_ws_and_wss! {
    stopping_closes_all_connections_with_1001,
}

fn stopping_closes_all_connections_with_1001(transport: Transport) {
    let server = TestServer::start(transport);
    let (mut ann, mut guest) = (server.join("Ann"), server.connect());
    // Bob's join makes lists due at the moment of the stop. None may follow the close frame.
    let mut bob = server.join("Bob");
    server.stop();
    assert_eq!(bob.close_code(), Some(CloseCode::Away));
    assert_eq!(ann.close_code(), Some(CloseCode::Away));
    assert_eq!(guest.close_code(), Some(CloseCode::Away));
    let address = server.address;
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "the port is still open");
}

/// The process once ended before its connections' threads had sent it.
#[test]
fn stopping_sends_close_notify_over_tls() {
    let folder = Folder::new();
    folder.tinychat(&["generate-certs"]).run();
    for _ in 0..10 {
        let server = folder.tinychat(&["--port", "0", "--use-ssl"]).start();
        let certificate = folder.path("certs/server.crt");
        let mut ann = Client::trusting(&certificate, "localhost", server.address);
        ann.join_and_wait("Ann");
        server.signal(Signal::TERM);
        assert_eq!(ann.close_code(), Some(CloseCode::Away));
        // rustls reports an end without it as an error.
        assert_eq!(ann.socket.get_mut().read(&mut [0; 1]).expect("close_notify"), 0);
        drop(ann);
        server.wait();
    }
}

#[test]
fn sigterm_and_sigint_close_all_connections_and_exit_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let server = folder.tinychat(&["--port", "0"]).start();
        let (mut ann, mut guest) = (server.join("Ann"), server.connect());
        let address = server.address;
        server.signal(signal);
        assert_eq!((ann.close_code(), guest.close_code()), (Some(CloseCode::Away), Some(CloseCode::Away)));
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("[INFO]: [chat_server] Stopping"), "{log}");
        // The port is free at once, for another server too.
        drop(TcpListener::bind(address).unwrap());
        folder.tinychat(&["--port", &address.port().to_string()]).start().stop();
    }
}

#[test]
fn a_signal_right_after_startup_stops_the_server() {
    let folder = Folder::new();
    for _ in 0..20 {
        folder.tinychat(&["--port", "0"]).start().stop();
    }
}

/// The documented limit is 5 s. A busy machine may exceed that, but not wait for these clients without limit.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn clients_that_do_not_answer_do_not_delay_the_exit() {
    let folder = Folder::new();
    folder.tinychat(&["generate-certs"]).run();
    let start = |arguments: &[&str]| {
        folder.tinychat(&[&["--port", "0", "--database-path", "off"], arguments].concat()).start()
    };
    let (plain, secure) = (start(&[]), start(&["--use-ssl"]));
    let _silent = plain.join("Silent");
    let mut silent = Client::trusting(&folder.path("certs/server.crt"), "localhost", secure.address);
    silent.join_and_wait("Silent");
    // And clients that have sent nothing, or only the start of a handshake.
    let _unfinished = [&plain, &secure].map(|server| {
        let mut started = connect(server.address);
        started.write_all(&[0x16, 0x03]).unwrap();
        (connect(server.address), started)
    });
    let signaled = Instant::now();
    for server in [&plain, &secure] {
        server.signal(Signal::TERM);
    }
    for server in [plain, secure] {
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
    }
    assert!(signaled.elapsed() < SHUTDOWN_LIMIT, "{:?}", signaled.elapsed());
}

/// A hash that takes seconds.
#[test]
fn clients_whose_passwords_are_compared_do_not_delay_the_exit() {
    let password = format!("pbkdf2-sha256:10000000:{}:{}", "00".repeat(16), "11".repeat(32));
    let server = Folder::new().tinychat(&["--port", "0", "--mod-password", &password]).start();
    let mut members: Vec<Client> = (0..4).map(|number| server.join(&format!("Member {number}"))).collect();
    members.iter_mut().for_each(|member| member.command("/login guess"));
    let signaled = Instant::now();
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(signaled.elapsed() < SHUTDOWN_LIMIT, "{:?}", signaled.elapsed());
}

#[test]
fn more_signals_during_the_shutdown_change_nothing() {
    let server = Folder::new().tinychat(&["--port", "0"]).start();
    let _silent = server.join("Silent");
    server.signal(Signal::TERM);
    server.signal(Signal::INT);
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}
