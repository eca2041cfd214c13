//! Integration tests: the server over ws and wss, and the program.

mod support;

mod browser;
mod certificates;
mod chat;
mod command_line;
mod deploy;
mod docs;
mod http;
mod limits;
mod log;
mod monitoring;
mod page;
mod rates;
mod renewal;
mod settings;
mod shutdown;
mod source_layout;
mod websocket;
