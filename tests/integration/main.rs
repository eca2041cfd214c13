//! The server from outside: conversations over ws and wss, limits, TLS files, the command line.

mod browser;
mod client;
mod command_line;
mod conversations;
mod deploy;
mod eyes;

mod limits;
mod log_lines;
mod page;
mod program;
mod docs;
mod renewal;
mod server;
mod settings_files;
mod source_layout;
mod tls_files;
mod webdriver;
