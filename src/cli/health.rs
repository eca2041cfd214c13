//! `tinychat health`: asks the server that runs with these settings whether it is healthy (`/healthz`).

use std::io::{self, Read, Write, stderr, stdout};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::Command;
use thiserror::Error;

use super::{EXIT_FAILURE, flags, print};
use crate::config::{Host, Settings};
use crate::http::HEALTH_HEADER;
use crate::ops::Escaped;

pub const NAME: &str = "health";
/// How long the server may take to answer. It waits for its hub for a second.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest response that is read, in bytes.
const MAX_RESPONSE_BYTES: u64 = 4096;

pub fn command() -> Command {
    Command::new(NAME)
        .about("Ask the running server whether it is healthy; the exit status is 0 if it is, and 1 if not")
        .long_about(
            "Ask the running server whether it is healthy (/healthz); the exit status is 0 if it is, and 1 if not. \
             HOST and PORT say where it listens.",
        )
        .args(flags::all())
}

pub fn run(settings: &Settings) -> ExitCode {
    match check(settings) {
        Ok(()) => {
            print(stdout(), &"healthy\n");
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(stderr(), &format_args!("tinychat {NAME}: {}\n", Escaped(error)));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

#[derive(Debug, Error)]
enum Unhealthy {
    #[error("PORT is 0, so the port of the server is not known: set it with --port")]
    NoPort,
    #[error("{url} does not answer ({error}): is the server running, with these settings?")]
    Failed { url: String, error: io::Error },
    #[error("{url} answers: {answer}")]
    Answer { url: String, answer: String },
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    TimedOut,
}

fn check(settings: &Settings) -> Result<(), Unhealthy> {
    if settings.port == 0 {
        return Err(Unhealthy::NoPort);
    }
    let host = reachable(&settings.host);
    let port = settings.port;
    let (sender, receiver) = channel();
    // The thread may wait for a name server, or for a server that sends a byte now and then.
    thread::spawn(move || sender.send(ask(&host, port)));
    receiver.recv_timeout(TIMEOUT).unwrap_or(Err(Unhealthy::TimedOut))
}

/// Where a server that listens on this host can be reached from the same machine.
fn reachable(host: &Host) -> Host {
    match host {
        Host::Address(IpAddr::V4(address)) if address.is_unspecified() => {
            Host::Address(Ipv4Addr::LOCALHOST.into())
        }
        Host::Address(IpAddr::V6(address)) if address.is_unspecified() => {
            Host::Address(Ipv6Addr::LOCALHOST.into())
        }
        host => host.clone(),
    }
}

/// Over plain HTTP: a server with TLS rejects that, and says in a header whether it is healthy.
fn ask(host: &Host, port: u16) -> Result<(), Unhealthy> {
    let url = format!("http://{host}:{port}/healthz");
    let response = match request(host, port) {
        Ok(response) => response,
        Err(error) => return Err(Unhealthy::Failed { url, error }),
    };
    let (head, content) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    let mut headers = lines.filter_map(|line| line.split_once(": "));
    let health = headers.find(|(name, _)| name.eq_ignore_ascii_case(HEALTH_HEADER));
    let answer = match health {
        Some((_, health)) => health.to_owned(),
        None => format!("{}: {}", status.trim_start_matches("HTTP/1.1 "), content.trim_end()),
    };
    if answer.starts_with("200 ") { Ok(()) } else { Err(Unhealthy::Answer { url, answer }) }
}

fn request(host: &Host, port: u16) -> io::Result<String> {
    let mut socket = match host {
        Host::Address(address) => TcpStream::connect((*address, port))?,
        Host::Name(name) => TcpStream::connect((name.as_str(), port))?,
    };
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    match socket.take(MAX_RESPONSE_BYTES).read_to_end(&mut response) {
        // The connection may end with a reset.
        Err(error) if response.is_empty() => Err(error),
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(String::from_utf8_lossy(&response).into_owned()),
    }
}
