//! Listening sockets, and the limit on open files.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use log::warn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::StartError;
use crate::config::Host;

/// How many connections may wait to be accepted. With std's 128, the system would drop SYNs when many clients connect
/// at once, and their retries take a second or more.
const LISTEN_BACKLOG: i32 = 4096;
/// Descriptors that are not connections: standard streams, listeners, pipes, files while they are read.
const SPARE_DESCRIPTORS: u64 = 64;

/// Listens on every address of the host, on one port.
pub fn listen(host: &Host, port: u16) -> Result<Vec<TcpListener>, StartError> {
    let failed = |error| StartError::Listen { host: host.clone(), port, error };
    let addresses: Vec<SocketAddr> = match host {
        Host::Address(address) => vec![(*address, port).into()],
        Host::Name(name) => (name.as_str(), port).to_socket_addrs().map_err(failed)?.collect(),
    };
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut last_error = io::Error::other("the name has no address");
    for mut address in addresses {
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr().map_err(failed)?.port());
        }
        match bind(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(failed(error)),
            // A name may have an IPv6 address on a machine that has none.
            Err(error) => last_error = error,
        }
    }
    if listeners.is_empty() { Err(failed(last_error)) } else { Ok(listeners) }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    rustix::net::listen(&listener, LISTEN_BACKLOG)?;
    Ok(listener)
}

/// Raises the soft limit for open files to what `connections` need, as far as the hard limit allows.
pub fn raise_descriptor_limit(connections: usize) {
    let wanted = connections as u64 + SPARE_DESCRIPTORS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    if raised.is_err() || allowed < wanted {
        warn!(
            "The system allows {allowed} open files, too few for MAX_CONNECTIONS={connections}: raise its limit \
             (ulimit -n, LimitNOFILE in systemd)"
        );
    }
}
