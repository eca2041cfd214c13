//! TinyChat: a JSON chat room over WebSocket, for small self-hosted installs.
//!
//! ```text
//! socket bytes ─▶ TLS ─▶ WebSocket ─▶ ClientMessage ─▶│ hub inbox │─▶ room ─▶ effects ─▶ tape ─▶ sockets
//!   └──────────── the connection's own thread ───────┘  (bounded)   └──────── the hub thread ────────┘
//!                                                                             │   ▲
//!                                                                             ▼   │
//!                                                             store thread (SQLite file)
//! ```

#![forbid(unsafe_code)]

// In this order: each folder imports only from those below it.
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
#[doc(hidden)]
pub mod parts;
pub mod cli;
pub mod server;
mod connection;
mod http;
mod hub;
#[cfg(feature = "cluster")]
mod cluster;
mod store;
mod transport;
mod chat;
mod limits;
pub mod tls;
pub mod config;
mod ops;
