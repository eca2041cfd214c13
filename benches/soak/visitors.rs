//! Connections that never join: HTTP requests, garbage, and guests.

use std::time::{Duration, Instant};

use crate::random::Random;
use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::{Connection, Options};

const LIFETIME: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 16 * 1024;

pub struct Visitor {
    connection: Connection,
    until: Instant,
}

impl Visitor {
    pub fn new(server: &Child, random: &mut Random) -> Result<Self> {
        let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        let raw = |bytes: Vec<u8>| -> Result<Connection> {
            let mut connection = Connection::raw(server, Options::default())?;
            connection.queue(&bytes);
            Ok(connection)
        };
        let bare = |bytes: Vec<u8>| -> Result<Connection> {
            let mut connection = Connection::without_tls(server)?;
            connection.queue(&bytes);
            Ok(connection)
        };
        let connection = match random.below(11) {
            0 => raw(request("GET /"))?,
            1 => raw(request("GET /healthz"))?,
            2 => raw(request("GET /metrics"))?,
            3 => raw(request("POST /"))?,
            4 => raw(request("GET /nothing/here"))?,
            5 => raw(b"GET / HTTP/1.1\r\nHost: lo".to_vec())?,
            6 => raw(random.bytes(300))?,
            7 => bare(request("GET /"))?,
            8 => bare(random.bytes(300))?,
            9 => bare(Vec::new())?,
            _ => {
                let mut guest = Connection::open(server, Options::default())?;
                guest.queue_text(r#"{"type":"public","content":"from a guest"}"#);
                guest
            }
        };
        Ok(Self { connection, until: Instant::now() + LIFETIME })
    }

    /// Does what can be done without waiting. `false`: the server has closed the connection, or its time is over.
    pub fn step(&mut self, now: Instant) -> bool {
        let mut buffer = [0; READ_BYTES];
        let received = self.connection.flush().and_then(|_| self.connection.receive(&mut buffer));
        self.connection.discard();
        received.is_ok() && now < self.until
    }

    pub fn reset(self) {
        self.connection.reset();
    }
}
