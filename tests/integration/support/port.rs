//! Ports that no other process is given.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port on which a server can listen more than once. A socket that does not listen is bound to it, so that the system
/// gives it to no other process that asks for a free port. Servers set `SO_REUSEADDR`, and can listen on it.
pub struct ReservedPort {
    pub number: u16,
    _socket: Socket,
}

impl ReservedPort {
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { number: address.port(), _socket: socket }
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
