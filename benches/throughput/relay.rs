//! The floor: one thread that copies each frame from one socket to all others, without rules, JSON or a library. It
//! does only what every relay must do.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;

use crate::support::frames::complete_frames;
use crate::support::{Result, raise_descriptor_limit};

/// How much is read at once, in bytes: more than a socket usually has.
const READ_BYTES: usize = 256 * 1024;
/// The response to an upgrade. The clients do not check its key.
const UPGRADE_RESPONSE: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const LISTENER: u64 = u64::MAX;
const STDIN: u64 = u64::MAX - 1;

struct Peer {
    socket: TcpStream,
    upgraded: bool,
    /// The start of a frame that is not complete.
    read: Vec<u8>,
    /// The bytes that the socket has not accepted yet, and how many of these it has by now.
    waiting: Vec<u8>,
    accepted: usize,
}

/// Relays until standard input is closed, which happens at the end of the benchmark, however it ends.
pub fn run() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::listen(&listener, 4096)?;
    raise_descriptor_limit(4096);
    eprintln!("relay running: {}", listener.local_addr()?);
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&poll, io::stdin(), EventData::new_u64(STDIN), EventFlags::IN)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                STDIN => return Ok(()),
                LISTENER => {
                    let (socket, _) = listener.accept()?;
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                    epoll::add(&poll, &socket, EventData::new_u64(peers.len() as u64), EventFlags::IN)?;
                    peers.push(Some(Peer {
                        socket,
                        upgraded: false,
                        read: Vec::new(),
                        waiting: Vec::new(),
                        accepted: 0,
                    }));
                }
                from => {
                    let from = from as usize;
                    let flags = event.flags;
                    if flags.contains(EventFlags::OUT) {
                        send(&poll, &mut peers, from, &[])?;
                    }
                    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                        receive(&poll, &mut peers, from, &mut buffer)?;
                    }
                }
            }
        }
    }
}

fn receive(poll: &OwnedFd, peers: &mut [Option<Peer>], from: usize, buffer: &mut [u8]) -> Result<()> {
    let Some(peer) = &mut peers[from] else { return Ok(()) };
    match peer.socket.read(buffer) {
        Ok(0) => {
            peers[from] = None;
            return Ok(());
        }
        Ok(read) => peer.read.extend_from_slice(&buffer[..read]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(_) => {
            peers[from] = None;
            return Ok(());
        }
    }
    if !peer.upgraded {
        let Some(end) = peer.read.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
        peer.read.drain(..end + 4);
        peer.upgraded = true;
        send(poll, peers, from, UPGRADE_RESPONSE)?;
    }
    let Some(peer) = &mut peers[from] else { return Ok(()) };
    let complete = complete_frames(&peer.read);
    let frames: Vec<u8> = peer.read.drain(..complete).collect();
    if !frames.is_empty() {
        for to in (0..peers.len()).filter(|&to| to != from) {
            send(poll, peers, to, &frames)?;
        }
    }
    Ok(())
}

fn send(poll: &OwnedFd, peers: &mut [Option<Peer>], to: usize, bytes: &[u8]) -> Result<()> {
    let Some(peer) = peers[to].as_mut().filter(|peer| peer.upgraded) else { return Ok(()) };
    let was_waiting = !peer.waiting.is_empty();
    if peer.send(bytes).is_err() {
        peers[to] = None;
        return Ok(());
    }
    let is_waiting = !peer.waiting.is_empty();
    if is_waiting != was_waiting {
        let flags = if is_waiting { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(poll, &peer.socket, EventData::new_u64(to as u64), flags)?;
    }
    Ok(())
}

impl Peer {
    /// Sends the waiting bytes and then these, as far as the socket accepts them.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.waiting.is_empty() {
            let accepted = write(&self.socket, bytes)?;
            self.waiting.extend_from_slice(&bytes[accepted..]);
            return Ok(());
        }
        self.waiting.extend_from_slice(bytes);
        self.accepted += write(&self.socket, &self.waiting[self.accepted..])?;
        if self.accepted == self.waiting.len() {
            self.waiting.clear();
            self.accepted = 0;
        }
        Ok(())
    }
}

fn write(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut accepted = 0;
    while accepted < bytes.len() {
        match socket.write(&bytes[accepted..]) {
            Ok(written) => accepted += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(accepted)
}
