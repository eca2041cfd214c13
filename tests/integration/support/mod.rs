//! Helpers of the integration tests: clients, servers in this process, the program, proxies, certificates, HTTP, manual
//! pages and browsers; for several servers, a Redis server, nodes, and clients that record what happens.

#[cfg(feature = "cluster")]
pub mod anomalies;
pub mod certificates;
pub mod chat_page;
pub mod client;
#[cfg(feature = "cluster")]
pub mod engine;
pub mod http;
pub mod manual;
#[cfg(feature = "cluster")]
pub mod nodes;
pub mod notices;
pub mod package;
pub mod port;
pub mod program;
pub mod proxy;
pub mod random;
#[cfg(feature = "cluster")]
pub mod recorder;
pub mod reverse_proxy;
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
