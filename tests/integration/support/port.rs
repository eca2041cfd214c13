//! Ports that nobody else gets.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port on which a server may listen, now and again later. Whoever asks the system for a free port does not get it in
/// between: a socket that does not listen is bound to it. With `SO_REUSEADDR`, which servers set, they can listen on it.
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
