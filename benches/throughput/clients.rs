//! Many clients in one thread, as cheap as possible: what they send is encoded before the clock starts, and what they
//! receive is counted, not parsed. Their cost is not part of any figure, but they share the CPUs with the measured
//! process.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::RecvFlags;
use rustls::{ClientConfig, ClientConnection};

use crate::TimedOut;
use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::client_connection;
use crate::support::frames::{MASK, UPGRADE, frame, frame_length, head_length};

const CONTENT: &str = "The quick brown fox jumps over the lazy dog";
const READ_BYTES: usize = 256 * 1024;
/// If nothing arrives for this long, nothing is outstanding (in a room of 100, lists are sent within 0.1 s).
const QUIET_TIME: Duration = Duration::from_millis(400);
/// Waiting longer than this is an error.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long clients receive before they try again to send what a socket did not accept.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// The bytes of an encrypted TLS 1.3 record (RFC 8446, section 5.2) before and after its content.
const RECORD_HEAD: usize = 5;
const RECORD_TAIL: u64 = 17;
const APPLICATION_DATA: u8 = 23;

/// What clients send.
#[derive(Clone, Copy, PartialEq)]
pub enum Sends {
    /// To the server: `public` messages.
    Messages,
    /// To the relay: the frames that the server would make of those messages, so that both deliver the same bytes.
    ServerFrames,
}

pub struct Clients {
    poll: OwnedFd,
    clients: Vec<Client>,
    sends: Sends,
    buffer: Vec<u8>,
}

struct Client {
    socket: TcpStream,
    tls: Option<ClientConnection>,
    records: Records,
    /// The bytes of frames received in this exchange.
    received: u64,
}

/// The lists that were received until every client had the complete one.
pub struct Lists {
    pub time: Duration,
    pub lists: usize,
    pub bytes: usize,
}

impl Clients {
    /// Clients that are connected and have not joined.
    pub fn connect(child: &Child, count: usize, sends: Sends) -> Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut clients = Vec::new();
        for number in 0..count {
            let client = Client::connect(child, child.tls.as_ref())?;
            epoll::add(&poll, &client.socket, EventData::new_u64(number as u64), EventFlags::IN)?;
            clients.push(client);
        }
        Ok(Self { poll, clients, sends, buffer: vec![0; READ_BYTES] })
    }

    /// Clients that have joined and received everything.
    pub fn join(child: &Child, count: usize, sends: Sends) -> Result<Self> {
        let mut joined = Self::connect(child, count, sends)?;
        for number in 0..count {
            let join = joined.clients[number].wrap(&frame(&join(number), Some(MASK)))?;
            joined.clients[number].send(&join)?;
        }
        joined.drain()?;
        Ok(joined)
    }

    /// Receives until nothing more arrives.
    pub fn drain(&mut self) -> Result<()> {
        while self.ready(QUIET_TIME, |client, _, buffer| client.receive(buffer))? {}
        Ok(())
    }

    /// The first `senders` clients send `messages` each, one per write, as fast as possible. Returns the time until
    /// all clients have received everything.
    pub fn burst(&mut self, senders: usize, messages: usize) -> Result<Duration> {
        let delivered = frame(&public(0), None).len() as u64;
        let sent = frame(format!(r#"{{"type":"public","content":"{CONTENT}"}}"#).as_bytes(), Some(MASK));
        // The senders take turns, as if each were on a machine of its own.
        let mut outgoing = Vec::new();
        for number in (0..messages).flat_map(|_| 0..senders) {
            let message = match self.sends {
                Sends::Messages => sent.clone(),
                Sends::ServerFrames => frame(&public(number), None),
            };
            outgoing.push((number, self.clients[number].wrap(&message)?));
        }
        let due = (0..self.clients.len()).map(|number| {
            let others = if number < senders { senders - 1 } else { senders };
            (others * messages) as u64 * delivered
        });
        self.exchange(outgoing, due.collect())
    }

    /// One client sends a frame as long as the complete list. Returns the time until all others have received it.
    pub fn one_list(&mut self) -> Result<Duration> {
        let list = frame(&user_list(self.clients.len()), None);
        let mut due = vec![list.len() as u64; self.clients.len()];
        due[0] = 0;
        self.exchange(vec![(0, list)], due)
    }

    /// All clients join at once.
    pub fn join_at_once(&mut self) -> Result<Lists> {
        let count = self.clients.len();
        let complete = user_list(count).len();
        let joins: Vec<Vec<u8>> = (0..count).map(|number| frame(&join(number), Some(MASK))).collect();
        let mut streams = vec![Vec::new(); count];
        let (mut lists, mut bytes, mut missing) = (0, 0, count);
        let start = Instant::now();
        for (client, join) in self.clients.iter_mut().zip(&joins) {
            client.send(join)?;
        }
        while missing > 0 {
            let is_ready = self.ready(TIMEOUT, |client, number, buffer| {
                let read = client.socket.read(buffer)?;
                let stream: &mut Vec<u8> = &mut streams[number];
                stream.extend_from_slice(&buffer[..read]);
                let mut parsed = 0;
                while let Some(length) = frame_length(&stream[parsed..]) {
                    let frame = &stream[parsed..parsed + length];
                    let payload = &frame[head_length(frame)..];
                    if payload.starts_with(br#"{"type":"user_list""#) {
                        lists += 1;
                        bytes += length;
                        missing -= usize::from(payload.len() == complete);
                    }
                    parsed += length;
                }
                stream.drain(..parsed);
                if read == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
            })?;
            if !is_ready {
                return Err(TimedOut("the complete list").into());
            }
        }
        Ok(Lists { time: start.elapsed(), lists, bytes })
    }

    /// Sends these messages in turn, and waits until each client has received the bytes that are due to it.
    fn exchange(&mut self, outgoing: Vec<(usize, Vec<u8>)>, due: Vec<u64>) -> Result<Duration> {
        self.clients.iter_mut().for_each(|client| client.received = 0);
        let mut missing: u64 = due.iter().sum();
        let (mut sent, mut sent_of_next) = (0, 0);
        let start = Instant::now();
        while missing > 0 {
            let mut timeout = TIMEOUT;
            for (number, message) in &outgoing[sent..] {
                timeout = Duration::ZERO;
                sent_of_next += self.clients[*number].send_some(&message[sent_of_next..])?;
                if sent_of_next < message.len() {
                    // The socket accepts no more until others have received something.
                    timeout = RETRY_INTERVAL;
                    break;
                }
                (sent, sent_of_next) = (sent + 1, 0);
            }
            let is_ready = self.ready(timeout, |client, number, buffer| {
                let before = client.received;
                client.receive(buffer)?;
                missing -= client.received - before;
                // Other bytes would distort the figures.
                if client.received > due[number] {
                    Err(io::Error::other("a client received more than it was due"))
                } else {
                    Ok(())
                }
            })?;
            if !is_ready && timeout == TIMEOUT {
                return Err(TimedOut("messages").into());
            }
        }
        Ok(start.elapsed())
    }

    /// Waits until clients can receive, and handles each. `false`: the timeout has passed.
    fn ready(
        &mut self,
        timeout: Duration,
        mut handle: impl FnMut(&mut Client, usize, &mut [u8]) -> io::Result<()>,
    ) -> Result<bool> {
        let mut events = Vec::with_capacity(256);
        epoll::wait(&self.poll, spare_capacity(&mut events), Some(&Timespec::try_from(timeout)?))?;
        for event in &events {
            let number = event.data.u64() as usize;
            handle(&mut self.clients[number], number, &mut self.buffer)?;
        }
        Ok(!events.is_empty())
    }
}

impl Client {
    fn connect(child: &Child, config: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let socket = TcpStream::connect(child.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let tls = config.map(client_connection).transpose()?;
        let mut client = Self { socket, tls, records: Records::default(), received: 0 };
        let mut head = Vec::new();
        let mut byte = [0];
        match &mut client.tls {
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls, &mut client.socket);
                stream.write_all(UPGRADE)?;
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte)?;
                    head.push(byte[0]);
                }
            }
            None => {
                client.socket.write_all(UPGRADE)?;
                while !head.ends_with(b"\r\n\r\n") {
                    client.socket.read_exact(&mut byte)?;
                    head.push(byte[0]);
                }
            }
        }
        if !head.starts_with(b"HTTP/1.1 101") {
            return Err(io::Error::other(String::from_utf8_lossy(&head)).into());
        }
        client.socket.set_nonblocking(true)?;
        Ok(client)
    }

    /// These frames as bytes for the socket: encrypted, over TLS.
    fn wrap(&mut self, frames: &[u8]) -> Result<Vec<u8>> {
        let Some(tls) = &mut self.tls else { return Ok(frames.to_vec()) };
        let mut wrapped = Vec::new();
        tls.set_buffer_limit(None);
        tls.writer().write_all(frames)?;
        while tls.wants_write() {
            tls.write_tls(&mut wrapped)?;
        }
        Ok(wrapped)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A join is short, and the socket's buffer is empty.
        self.socket.write_all(bytes)
    }

    fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Receives once, and counts the bytes of frames.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let read = match self.tls {
            Some(_) => self.socket.read(buffer),
            // The kernel discards the bytes and copies nothing.
            None => rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::TRUNC)
                .map(|(_, read)| read)
                .map_err(io::Error::from),
        };
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                let is_tls = self.tls.is_some();
                self.received += if is_tls { self.records.content(&buffer[..read]) } else { read as u64 };
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Counts the bytes of content in TLS records by their heads, without decrypting them.
#[derive(Default)]
struct Records {
    head: [u8; RECORD_HEAD],
    /// How many bytes of the head have been received.
    head_length: usize,
    /// How many bytes of the record are outstanding.
    left: usize,
}

impl Records {
    fn content(&mut self, mut bytes: &[u8]) -> u64 {
        let mut content = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let skip = self.left.min(bytes.len());
                self.left -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            self.head[self.head_length] = bytes[0];
            self.head_length += 1;
            bytes = &bytes[1..];
            if self.head_length == RECORD_HEAD {
                self.head_length = 0;
                self.left = u16::from_be_bytes([self.head[3], self.head[4]]).into();
                if self.head[0] == APPLICATION_DATA {
                    content += self.left as u64 - RECORD_TAIL;
                }
            }
        }
        content
    }
}

/// All names have the same length, and so do all messages.
fn name(number: usize) -> String {
    format!("member{number:04}")
}

fn join(number: usize) -> Vec<u8> {
    format!(r#"{{"type":"join","username":"{}"}}"#, name(number)).into_bytes()
}

/// A public message as the server sends it.
fn public(number: usize) -> Vec<u8> {
    let name = name(number);
    format!(r#"{{"type":"public","username":"{name}","content":"{CONTENT}","timestamp":"12:00:00"}}"#)
        .into_bytes()
}

/// The list of this many members as the server sends it.
fn user_list(count: usize) -> Vec<u8> {
    let entry = |number| format!(r#"{{"username":"{}","is_mod":false,"is_timed_out":false}}"#, name(number));
    let entries: Vec<String> = (0..count).map(entry).collect();
    format!(r#"{{"type":"user_list","content":[{}],"timestamp":"12:00:00"}}"#, entries.join(",")).into_bytes()
}
