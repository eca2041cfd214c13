//! TinyChat: a JSON chat room over WebSocket, for small self-hosted installs.
//!
//! The modules stand here as the rooms of a house: each imports only from those below it, which a test checks.
//!
//! ```text
//! socket bytes ─▶ TLS ─▶ WebSocket ─▶ ClientMessage ─▶│ hub inbox │─▶ Room ─▶ effects ─▶ tape ─▶ sockets
//!   └──────────── the connection's own thread ───────┘  (bounded)   └──────── the hub thread ────────┘
//! ```

#![forbid(unsafe_code)]

// What the program does.
pub mod check;
pub mod server;

// A connection's own thread.
mod connection;
mod handshake;
mod eyes;
mod page;
mod http;
mod forwarded;
mod admission;
mod keep_alive;
mod rate;

// The hub's thread, and what both share.
mod hub;
mod link;
mod tape;

// The chat, pure.
mod room;
mod protocol;

// TLS.
mod stream;
mod renewal;
mod tls;
mod certificate;
pub mod self_signed;

// Settings, log, clock, systemd.
pub mod settings;
mod env_file;
pub mod logging;
mod clock;
mod service;
mod metrics;
