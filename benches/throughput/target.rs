//! What is measured: the floor, and the server over `ws://` and `wss://`, without and with its store.

use std::env;
use std::fs;
use std::process::Command;

use crate::crowd::Sends;
use crate::support::Result;
use crate::support::child::Child;
use crate::support::cores::Cores;
use crate::{Bench, RELAY};

#[derive(Clone, Copy, PartialEq)]
pub enum Target {
    Floor,
    Ws,
    Wss,
    /// Over `ws://`, with a store.
    Stored,
}

impl Target {
    pub const ALL: [Self; 3] = [Self::Floor, Self::Ws, Self::Wss];
    pub const STORED: [Self; 2] = [Self::Ws, Self::Stored];
    pub const SERVERS: [Self; 2] = [Self::Ws, Self::Wss];

    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Stored => "ws, stored",
        }
    }

    pub fn sends(self) -> Sends {
        if self == Self::Floor { Sends::ServerFrames } else { Sends::Messages }
    }

    /// Starts it on its processor. The server has its default settings, except that no rate and no queue holds the load
    /// back, and that pings do not count as bytes of messages.
    pub fn start(self, bench: &Bench) -> Result<Child> {
        self.start_with(bench, &[])
    }

    /// The same with more settings for the server.
    pub fn start_with(self, bench: &Bench, settings: &[(&str, &str)]) -> Result<Child> {
        let directory = &bench.directory;
        let usual = [
            ("MESSAGE_RATE", "0"),
            ("MAX_CONNECTIONS", "19500"),
            ("SEND_QUEUE_BYTES", "268435456"),
            ("PING_INTERVAL", "3600"),
        ];
        let settings = [&usual[..], settings].concat();
        let start = || match self {
            Self::Floor => {
                let relay = || -> Result<_> {
                    let mut command = Command::new(env::current_exe()?);
                    command.arg(RELAY);
                    Child::start(command, directory, None)
                };
                relay().map_err(|error| error.to_string())
            }
            Self::Ws | Self::Wss => {
                Child::server(directory, self == Self::Wss, &settings).map_err(|error| error.to_string())
            }
            Self::Stored => {
                // A killed server leaves out ids, and longer ids make longer messages.
                for file in ["tinychat.db", "tinychat.db-wal", "tinychat.db-shm"] {
                    let _ = fs::remove_file(directory.path().join(file));
                }
                let settings = [&settings[..], &[("DATABASE_PATH", "tinychat.db")]].concat();
                Child::server(directory, false, &settings).map_err(|error| error.to_string())
            }
        };
        Ok(Cores::pin(bench.cores, start)??)
    }
}
