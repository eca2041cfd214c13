//! Many clients in one thread, as cheap as possible: what they send is encoded and encrypted before the clock starts.
//!
//! Most clients of a burst only count the bytes that they receive: over TLS, by the heads of records, without
//! decrypting them. Otherwise the load would be the bottleneck. One client in a hundred reads: it decrypts and parses
//! every message, and checks that none is missing and that each sender's messages are in order. All clients read at
//! chat pace and in a storm.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::{RecvFlags, sockopt};
use rustls::{ClientConfig, ClientConnection};

use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::client_connection;
use crate::support::frames::{MASK, UPGRADE, frame, frame_length, head_length};

const TEXT: &str = "The quick brown fox jumps over the lazy dog";
const READ_BYTES: usize = 256 * 1024;
/// If nothing arrives for this long, nothing is outstanding (in a room of 1,000, lists are sent within 0.5 s).
const QUIET_TIME: Duration = Duration::from_millis(800);
/// The same in tests, which may run on a busy machine: a slow member is sent a list after 2 s at the latest.
const TEST_QUIET_TIME: Duration = Duration::from_millis(2500);
/// What has not arrived after this long is lost.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long clients receive before they try again to send what a socket did not accept.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// How long [`Crowd::receive`] waits.
const RECEIVE_TIME: Duration = Duration::from_millis(10);
/// How many messages are sent before clients receive again. With fewer, the load would be the bottleneck.
const SENDS_AT_ONCE: usize = 64;
/// Where few read, one client in this many does.
const FEW: usize = 100;
/// The receive buffer of a client that may stall, in bytes. The system's would take most of what is sent to it.
const STALLED_BUFFER: usize = 64 * 1024;
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

pub struct Crowd {
    poll: OwnedFd,
    clients: Vec<Client>,
    sends: Sends,
    buffer: Vec<u8>,
    /// How many messages each client has sent before.
    sequence: usize,
    /// The id of the last message. The server also counts joins.
    last_id: u64,
}

struct Client {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    records: Records,
    /// The bytes of frames received since the last exchange began.
    received: u64,
    reads: bool,
    incoming: Vec<u8>,
}

/// Which clients decrypt and parse what they receive. The others count bytes.
#[derive(Clone, Copy, PartialEq)]
pub enum Readers {
    All,
    Few,
}

/// What an exchange of messages brought.
pub struct Exchange {
    pub time: Duration,
    /// From sending to receiving, in seconds; of the clients that read.
    pub latencies: Vec<f64>,
    pub lost: u64,
}

/// The lists that were received until every client had the complete one.
pub struct Lists {
    pub time: Duration,
    pub lists: usize,
}

/// Who takes part in an exchange.
#[derive(Clone, Copy)]
pub struct Parts {
    pub senders: usize,
    /// From each sender.
    pub messages: usize,
    /// When to send; `None`: as fast as possible.
    pub interval: Option<Duration>,
    pub last: Last,
}

/// What the last client does.
#[derive(Clone, Copy, PartialEq)]
pub enum Last {
    /// The same as all others.
    Receives,
    /// It receives, and nothing waits for it.
    IsNotCounted,
    /// It receives nothing until all others have received everything.
    Stalls,
}

impl Crowd {
    /// Clients that are connected and have not joined.
    pub fn connect(child: &Child, count: usize, sends: Sends, readers: Readers) -> Result<Self> {
        Self::connect_all(&[child], count, sends, readers)
    }

    /// Clients that have joined and received everything.
    pub fn join(child: &Child, count: usize, sends: Sends, readers: Readers) -> Result<Self> {
        Self::join_all(&[child], count, sends, readers)
    }

    /// The same on servers with the same chat, in turn.
    pub fn join_all(servers: &[&Child], count: usize, sends: Sends, readers: Readers) -> Result<Self> {
        let mut joined = Self::connect_all(servers, count, sends, readers)?;
        if sends == Sends::Messages {
            joined.send_joins()?;
        }
        joined.last_id += count as u64;
        joined.drain()?;
        Ok(joined)
    }

    /// All clients ask to join.
    pub fn send_joins(&mut self) -> Result<()> {
        for number in 0..self.clients.len() {
            let join = self.clients[number].wrap(&frame(&join(number), Some(MASK)))?;
            self.clients[number].socket.write_all(&join)?;
            // Everything that is sent to these clients would otherwise fill their sockets.
            self.receive_some(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Clients that are connected to servers with the same chat, in turn.
    pub fn connect_all(servers: &[&Child], count: usize, sends: Sends, readers: Readers) -> Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut clients = Vec::new();
        for (number, &child) in (0..count).zip(servers.iter().cycle()) {
            let mut client = Client::connect(child, child.tls.as_ref())?;
            // With the second to last, there is always one that may be no sender.
            client.reads = readers == Readers::All || number % FEW == FEW - 1 || number + 2 == count;
            epoll::add(&poll, &client.socket, EventData::new_u64(number as u64), EventFlags::IN)?;
            clients.push(client);
        }
        let buffer = vec![0; READ_BYTES];
        Ok(Self { poll, clients, sends, buffer, sequence: 0, last_id: 0 })
    }

    /// Receives until nothing more arrives.
    pub fn drain(&mut self) -> Result<()> {
        // Cargo passes this to benchmarks, but not to tests.
        let is_bench = env::args().any(|argument| argument == "--bench");
        let quiet_time = if is_bench { QUIET_TIME } else { TEST_QUIET_TIME };
        while self.receive_some(quiet_time)? {}
        Ok(())
    }

    /// Receives what has arrived, or waits a little.
    pub fn receive(&mut self) -> Result<()> {
        self.receive_some(RECEIVE_TIME).map(drop)
    }

    /// Limits how much the last client's socket accepts while it reads nothing.
    pub fn shorten_last_buffer(&mut self) -> Result<()> {
        let last = self.clients.last().ok_or("there are no clients")?;
        Ok(sockopt::set_socket_recv_buffer_size(&last.socket, STALLED_BUFFER)?)
    }

    /// The first clients send, one message per write. Returns when all clients have received everything.
    pub fn exchange(&mut self, parts: Parts) -> Result<Exchange> {
        let Parts { senders, messages, interval, last } = parts;
        let first = self.sequence;
        self.sequence += messages;
        // The senders take turns, as if each were on a machine of its own.
        let mut outgoing = Vec::with_capacity(senders * messages);
        // The total size as the server sends them; later ids may have more digits.
        let (mut bytes, shortest) = (0, frame(&public(0, 0, self.last_id + 1), None).len() as u64);
        for sequence in first..first + messages {
            for number in 0..senders {
                self.last_id += 1;
                let delivered = frame(&public(number, sequence, self.last_id), None);
                bytes += delivered.len() as u64;
                let message = match self.sends {
                    Sends::Messages => frame(&said(number, sequence), Some(MASK)),
                    Sends::ServerFrames => delivered,
                };
                outgoing.push((number, self.clients[number].wrap(&message)?));
            }
        }
        let count = self.clients.len();
        // An upper bound: a sender's own ids depend on the order of arrival.
        let due: Vec<u64> = (0..count)
            .map(|number| match number {
                number if number + 1 == count && last != Last::Receives => 0,
                number if number < senders => bytes - messages as u64 * shortest,
                _ => bytes,
            })
            .collect();
        let recipients = count - 1 - usize::from(last != Last::Receives);
        if last == Last::Stalls {
            epoll::delete(&self.poll, &self.clients[count - 1].socket)?;
        }
        // For each client that reads: the number of the next message from each sender.
        let expected = |client: &Client| if client.reads { vec![first; senders] } else { Vec::new() };
        let mut next: Vec<Vec<usize>> = self.clients.iter().map(expected).collect();
        let mut sent_at = Vec::with_capacity(outgoing.len());
        let mut latencies = Vec::new();
        self.clients.iter_mut().for_each(|client| client.received = 0);
        let mut missing = bytes * recipients as u64;
        let (mut sent, mut sent_of_next) = (0, 0);
        let start = Instant::now();
        while missing > 0 {
            let mut timeout = TIMEOUT;
            for (number, message) in &outgoing[sent..] {
                if let Some(interval) = interval {
                    let left = (start + interval * sent as u32).saturating_duration_since(Instant::now());
                    if !left.is_zero() {
                        timeout = left;
                        break;
                    }
                }
                timeout = Duration::ZERO;
                if sent_of_next == 0 {
                    sent_at.push(Instant::now());
                }
                sent_of_next += self.clients[*number].send_some(&message[sent_of_next..])?;
                if sent_of_next < message.len() {
                    // The socket accepts no more until others have received something.
                    timeout = RETRY_INTERVAL;
                    break;
                }
                (sent, sent_of_next) = (sent + 1, 0);
                if interval.is_none() && sent.is_multiple_of(SENDS_AT_ONCE) {
                    break;
                }
            }
            let is_ready = self.ready(timeout, |client, number, buffer| {
                let before = client.received;
                if client.reads {
                    client.read(buffer)?;
                    let now = Instant::now();
                    client.messages(|payload| {
                        let Some((sender, sequence)) = position(payload) else { return Ok(()) };
                        let expected = &mut next[number][sender];
                        if sequence != *expected {
                            return Err(io::Error::other("a message is lost, or they are out of order"));
                        }
                        *expected += 1;
                        let sent_at = sent_at[(sequence - first) * senders + sender];
                        latencies.push((now - sent_at).as_secs_f64());
                        Ok(())
                    })?;
                } else {
                    client.count(buffer)?;
                }
                if due[number] == 0 {
                    return Ok(());
                }
                missing = missing.saturating_sub(client.received - before);
                // Other bytes would distort the figures.
                if client.received > due[number] {
                    return Err(io::Error::other("a client received more than it was due"));
                }
                Ok(())
            })?;
            if !is_ready && timeout == TIMEOUT {
                break;
            }
        }
        let time = start.elapsed();
        if last == Last::Stalls {
            let data = EventData::new_u64(count as u64 - 1);
            epoll::add(&self.poll, &self.clients[count - 1].socket, data, EventFlags::IN)?;
        }
        if last != Last::Receives {
            self.drain()?;
        }
        Ok(Exchange { time, latencies, lost: missing.div_ceil(shortest) })
    }

    /// One client sends a frame as long as the complete list. Returns the time until all others have received it.
    pub fn one_list(&mut self) -> Result<Duration> {
        let list = frame(&user_list(self.clients.len()), None);
        self.clients.iter_mut().for_each(|client| client.received = 0);
        let mut missing = list.len() as u64 * (self.clients.len() as u64 - 1);
        let start = Instant::now();
        self.clients[0].socket.write_all(&list)?;
        while missing > 0 {
            let is_ready = self.ready(TIMEOUT, |client, _, buffer| {
                let before = client.received;
                client.count(buffer)?;
                missing -= client.received - before;
                Ok(())
            })?;
            if !is_ready {
                return Err("timed out waiting for the list".into());
            }
        }
        Ok(start.elapsed())
    }

    /// All clients join at once.
    pub fn join_at_once(&mut self) -> Result<Lists> {
        let count = self.clients.len();
        let complete = user_list(count).len();
        let mut joins = Vec::new();
        for (number, client) in self.clients.iter_mut().enumerate() {
            joins.push(client.wrap(&frame(&join(number), Some(MASK)))?);
        }
        let (mut lists, mut missing) = (0, count);
        let start = Instant::now();
        for (client, join) in self.clients.iter_mut().zip(&joins) {
            client.socket.write_all(join)?;
        }
        while missing > 0 {
            let is_ready = self.ready(TIMEOUT, |client, _, buffer| {
                client.read(buffer)?;
                client.messages(|payload| {
                    if payload.starts_with(br#"{"type":"user_list""#) {
                        lists += 1;
                        missing = missing.saturating_sub(usize::from(payload.len() == complete));
                    }
                    Ok(())
                })
            })?;
            if !is_ready {
                return Err("timed out waiting for the complete list".into());
            }
        }
        Ok(Lists { time: start.elapsed(), lists })
    }

    fn receive_some(&mut self, timeout: Duration) -> Result<bool> {
        self.ready(timeout, |client, _, buffer| {
            if !client.reads {
                return client.count(buffer);
            }
            client.read(buffer)?;
            client.messages(|_| Ok(()))
        })
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
        let tls = config.map(client_connection).transpose()?.map(Box::new);
        let (records, incoming) = (Records::default(), Vec::new());
        let mut client = Self { socket, tls, records, received: 0, reads: false, incoming };
        let mut head = Vec::new();
        let mut byte = [0];
        match &mut client.tls {
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls.as_mut(), &mut client.socket);
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

    fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Receives once, and counts the bytes of frames.
    fn count(&mut self, buffer: &mut [u8]) -> io::Result<()> {
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

    /// Receives once, and keeps the bytes for [`Self::messages`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let before = self.incoming.len();
        let read = match &mut self.tls {
            None => {
                self.socket.read(buffer).inspect(|&read| self.incoming.extend_from_slice(&buffer[..read]))
            }
            Some(tls) => tls.read_tls(&mut self.socket),
        };
        match read {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if let Some(tls) = &mut self.tls {
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            self.incoming.resize(before + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut self.incoming[before..])?;
        }
        self.received += (self.incoming.len() - before) as u64;
        Ok(())
    }

    /// Handles the payload of each complete frame.
    fn messages(&mut self, mut handle: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut parsed = 0;
        while let Some(length) = frame_length(&self.incoming[parsed..]) {
            let frame = &self.incoming[parsed..parsed + length];
            handle(&frame[head_length(frame)..])?;
            parsed += length;
        }
        self.incoming.drain(..parsed);
        if self.incoming.is_empty() {
            // A thousand clients that have read lists would keep a hundred megabytes.
            self.incoming.shrink_to(READ_BYTES / 64);
        }
        Ok(())
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
    format!("member{number:05}")
}

pub fn join(number: usize) -> Vec<u8> {
    format!(r#"{{"type":"join","username":"{}"}}"#, name(number)).into_bytes()
}

fn content(number: usize, sequence: usize) -> String {
    format!("{number:05} {sequence:08} {TEXT}")
}

/// The sender and the number of a message in its sequence.
pub fn position(payload: &[u8]) -> Option<(usize, usize)> {
    const CONTENT: &[u8] = br#""content":""#;
    let start = payload.windows(CONTENT.len()).position(|part| part == CONTENT)? + CONTENT.len();
    let content = std::str::from_utf8(payload.get(start..start + 14)?).ok()?;
    let (sender, sequence) = content.split_once(' ')?;
    Some((sender.parse().ok()?, sequence.parse().ok()?))
}

/// A public message as a client sends it.
pub fn said(number: usize, sequence: usize) -> Vec<u8> {
    format!(r#"{{"type":"public","content":"{}"}}"#, content(number, sequence)).into_bytes()
}

/// A public message as the server sends it.
pub fn public(number: usize, sequence: usize, id: u64) -> Vec<u8> {
    let (name, content) = (name(number), content(number, sequence));
    format!(
        r#"{{"type":"public","username":"{name}","content":"{content}","timestamp":"12:00:00","id":{id},"time":"2026-11-28T12:00:00.000Z"}}"#
    )
    .into_bytes()
}

/// The list of this many members as the server sends it.
fn user_list(count: usize) -> Vec<u8> {
    let entry = |number| format!(r#"{{"username":"{}","is_mod":false,"is_timed_out":false}}"#, name(number));
    let entries: Vec<String> = (0..count).map(entry).collect();
    format!(r#"{{"type":"user_list","content":[{}],"timestamp":"12:00:00"}}"#, entries.join(",")).into_bytes()
}
