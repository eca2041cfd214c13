//! Helpers of the integration tests: clients, servers in this process, the program, a proxy, certificates, HTTP and
//! browsers.

pub mod certificates;
pub mod chat_page;
pub mod client;
pub mod http;
pub mod program;
pub mod proxy;
pub mod random;
pub mod scripted;
pub mod server;
pub mod webdriver;

/// Makes two tests of each function, one for each [`server::Transport`].
macro_rules! over_ws_and_wss {
    ($($name:ident),* $(,)?) => {
        mod ws {
            $(#[test] fn $name() { super::$name($crate::support::server::Transport::Ws) })*
        }
        mod wss {
            $(#[test] fn $name() { super::$name($crate::support::server::Transport::Wss) })*
        }
    };
}

pub(crate) use over_ws_and_wss;
