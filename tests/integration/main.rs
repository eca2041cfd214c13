//! Integration tests: the server over ws and wss, and the program.

mod support;

mod access;
mod browser;
mod browser_devices;
mod browser_log;
mod browser_moderation;
mod browser_people;
mod browser_removals;
mod browser_settings;
mod browser_state;
mod browser_writing;
mod certificates;
mod chat;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
mod cluster_history;
mod command_line;
mod crashes;
mod cuts;
mod deploy;
mod docs;
mod history;
mod http;
mod limits;
mod log;
mod moderation;
mod monitoring;
mod packaging;
mod page;
mod proxies;
mod rates;
mod renewal;
mod sessions;
mod settings;
mod shutdown;
mod source_layout;
mod store;
mod store_server;
mod websocket;
