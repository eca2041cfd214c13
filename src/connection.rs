//! One client's thread: the handshake under one deadline, and then the reading loop.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use ipnet::IpNet;
use log::{debug, info, warn};
use rustls::ServerConfig;
use tungstenite::Utf8Bytes;
use tungstenite::handshake::server::Request;
use tungstenite::http::header::ORIGIN;

use crate::admission::{Admission, Full, Place, network};
use crate::eyes::Eyes;
use crate::forwarded::client_address;
use crate::http::{self, Answer};
use crate::hub::{Event, Peer};
use crate::keep_alive::{Due, KeepAlive};
use crate::link::{Ended, Link, PORTION, Received, Sent};
use crate::metrics::{Counters, CutOffBy, Failed, Refused};
use crate::page;
use crate::protocol::{ClientMessage, Fault};
use crate::rate::Rate;
use crate::room::ConnectionId;
use crate::settings::{Limits, Origin};
use crate::stream::{Stream, Wait, by_deadline, discard, wait};

/// How long a connection that the server ends has to take what was said last.
const LINGER: Duration = Duration::from_secs(2);
/// How long the reader of a flood leaves its lock to others after each portion.
const HAND_OVER: Duration = Duration::from_millis(1);
/// For how long what a client said too fast is still read when it has gone.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// The first byte of a TLS handshake (RFC 8446, section 5.1), which begins no HTTP request.
const TLS_HANDSHAKE: u8 = 22;

/// What all connections share.
pub struct Context {
    pub limits: Limits,
    pub allowed_origins: Option<Vec<Origin>>,
    pub trusted_proxies: Vec<IpNet>,
    /// Whether browsers are given the chat page.
    pub web_ui: bool,
    pub admission: Admission,
    pub hub: Sender<Event>,
    pub counters: Arc<Counters>,
    pub eyes: Eyes,
}

impl Context {
    /// Whether this peer speaks for others, so that its own address is nobody's.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}

/// A connection that was accepted.
pub struct Arrival {
    pub id: ConnectionId,
    pub socket: Arc<TcpStream>,
    pub address: SocketAddr,
    /// `None`: plaintext.
    pub tls: Option<Arc<ServerConfig>>,
    /// What it holds until it ends.
    pub places: Vec<Place>,
}

/// Serves one client from its first byte to its last.
pub fn serve(mut arrival: Arrival, context: &Context) {
    let deadline = Instant::now() + context.limits.handshake_timeout;
    match shake_hands(&mut arrival, context, deadline) {
        Ok(upgraded) => converse(arrival.id, upgraded, arrival.socket, context),
        Err(failure) => {
            let address = arrival.address;
            failure.count(&context.counters);
            match failure {
                Failure::Gone => debug!("{address}: gone before it was a WebSocket"),
                Failure::Told | Failure::Page(_) => debug!("{address}: {failure}"),
                failure => info!("{address}: {failure}"),
            }
        }
    }
}

/// Tells a client that there is no place for it.
pub fn refuse(arrival: Arrival, full: Full) {
    let deadline = Instant::now() + LINGER;
    let mut stream = Stream::plain(arrival.socket);
    // Reading the request first keeps the system from throwing the answer away.
    let request = read_head(&mut stream, deadline);
    if !matches!(request, Err(Failure::Gone)) {
        answer(&mut stream, &unavailable(full), None);
    }
}

/// An upgraded connection.
struct Upgraded {
    stream: Stream,
    peer: Peer,
    /// What the client sent right behind its request.
    read: Vec<u8>,
    /// What it holds until it ends, beside what it held when it arrived.
    _place: Option<Place>,
}

/// Why there is no WebSocket.
enum Failure {
    Gone,
    TimedOut,
    Tls(io::Error),
    /// The answer was given.
    Answered(Answer),
    /// Whoever watches the server was told how it is.
    Told,
    /// It was a browser that wanted the chat page, with the answer's status.
    Page(&'static str),
    TlsOnPlain,
    /// The answer was given.
    HttpOnTls,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Gone => formatter.write_str("gone"),
            Self::TimedOut => formatter.write_str("closed: the handshake took longer than HANDSHAKE_TIMEOUT"),
            Self::Tls(error) if is_too_old(error) => {
                write!(formatter, "closed: no TLS: it cannot do what TLS 1.2 or 1.3 needs ({error})")
            }
            Self::Tls(error) => write!(formatter, "closed: no TLS: {error}"),
            Self::Answered(answer) => write!(formatter, "answered {answer}"),
            Self::Told => formatter.write_str("told how the server is"),
            Self::HttpOnTls => formatter
                .write_str("closed: it speaks plain HTTP, but this port speaks TLS: use wss:// or https://"),
            Self::Page(status) => write!(formatter, "a page: {status}"),
            Self::TlsOnPlain => formatter
                .write_str("closed: it speaks TLS, but this is plain ws://: use ws://, or set USE_SSL=true"),
        }
    }
}

impl Failure {
    fn count(&self, counters: &Counters) {
        match self {
            Self::Gone => counters.failed(Failed::Gone),
            Self::TimedOut => counters.failed(Failed::TimedOut),
            Self::Tls(_) => counters.failed(Failed::Tls),
            Self::Answered(answer) if answer.is_bad_request() => counters.failed(Failed::Http),
            // A refusal was counted where it was decided, and any other answer is no failure.
            Self::Answered(_) | Self::Told | Self::Page(_) => {}
            Self::TlsOnPlain | Self::HttpOnTls => counters.failed(Failed::WrongPort),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::InvalidData => Self::Tls(error),
            _ => Self::Gone,
        }
    }
}

/// Whether a client was refused because it speaks another TLS, as old clients and scanners do.
fn is_too_old(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::PeerIncompatible(_)))
}

fn shake_hands(arrival: &mut Arrival, context: &Context, deadline: Instant) -> Result<Upgraded, Failure> {
    let mut stream = match &arrival.tls {
        None => Stream::plain(arrival.socket.clone()),
        Some(config) => start_tls(&arrival.socket, config.clone(), deadline)?,
    };
    let scheme = if arrival.tls.is_some() { "wss" } else { "ws" };
    let (request, read) = match read_head(&mut stream, deadline) {
        Err(Failure::Answered(bad)) => {
            answer(&mut stream, &bad, None);
            return Err(Failure::Answered(bad));
        }
        Err(Failure::TlsOnPlain) => {
            take_leave(&mut stream, Instant::now() + LINGER);
            return Err(Failure::TlsOnPlain);
        }
        head => head?,
    };
    let own_address = arrival.address.ip().to_canonical();
    let forwarded_for = http::lines(&request, "x-forwarded-for");
    let client = client_address(own_address, &context.trusted_proxies, forwarded_for);
    let by_proxy = context.is_proxy(own_address);
    if !http::asks_for_websocket(&request) {
        // A proxy that asks for somebody and does not say for whom is nobody.
        let asking = Some(client).filter(|_| !by_proxy || client != own_address);
        if let Some(told) = context.eyes.answer(&request, asking) {
            answer(&mut stream, &told, Some(&request));
            return Err(Failure::Told);
        }
        if context.web_ui {
            let (status, response) = page::answer(&request, arrival.tls.is_some());
            write_all(&mut stream, &response, deadline)?;
            take_leave(&mut stream, Instant::now() + LINGER);
            return Err(Failure::Page(status));
        }
    }
    let accepted = http::upgrade(&request, scheme).and_then(|response| {
        if !is_allowed(&request, context.allowed_origins.as_deref()) {
            context.counters.refused(Refused::Origin);
            return Err(Answer::new(
                "403 Forbidden",
                "Pages from this origin may not connect (ALLOWED_ORIGINS).",
            ));
        }
        // A local client may well be told from a proxy on the same machine: nobody has forwarded it.
        let is_forwarded = by_proxy && request.headers().contains_key("x-forwarded-for");
        let place = if is_forwarded {
            context.admission.address(client)
        } else if by_proxy {
            context.admission.peer(client)
        } else {
            Ok(None)
        };
        let place = place.map_err(|full| {
            context.counters.refused(full.into());
            unavailable(full)
        })?;
        Ok((response, place))
    });
    let (response, place) = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => {
            answer(&mut stream, &refusal, Some(&request));
            return Err(Failure::Answered(refusal));
        }
    };
    write_all(&mut stream, &response, deadline)?;
    let name = if client == own_address {
        arrival.address.to_string()
    } else {
        format!("{client} (through {})", arrival.address)
    };
    Ok(Upgraded { stream, peer: Peer { name: name.into(), network: network(client) }, read, _place: place })
}

fn start_tls(
    socket: &Arc<TcpStream>,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> Result<Stream, Failure> {
    let mut first = [0];
    let mut plain = Stream::plain(socket.clone());
    if by_deadline(&mut plain, Wait::Read, deadline, |_| socket.peek(&mut first))? == 0 {
        return Err(Failure::Gone);
    }
    if first[0].is_ascii_alphabetic() {
        let line = "This port speaks TLS: use wss:// (or https://) instead of ws:// (or http://).";
        let http_on_tls = Answer::bad_request(line);
        answer(&mut plain, &http_on_tls, None);
        return Err(Failure::HttpOnTls);
    }
    let mut stream =
        Stream::tls(socket.clone(), config).map_err(|error| Failure::Tls(io::Error::other(error)))?;
    by_deadline(&mut stream, Wait::Read, deadline, Stream::shake_hands)?;
    Ok(stream)
}

/// Reads a request head, and what came right behind it.
fn read_head(stream: &mut Stream, deadline: Instant) -> Result<(Request, Vec<u8>), Failure> {
    let mut bytes = Vec::new();
    let mut portion = [0; 1024];
    loop {
        let read = by_deadline(stream, Wait::Read, deadline, |stream| stream.read(&mut portion))?;
        if read == 0 {
            return Err(Failure::Gone);
        }
        bytes.extend_from_slice(&portion[..read]);
        if bytes[0] == TLS_HANDSHAKE {
            return Err(Failure::TlsOnPlain);
        }
        // What is behind the head may be long; the head may not.
        if let Some((request, length)) = http::parse(&bytes).map_err(Failure::Answered)? {
            return Ok((request, bytes.split_off(length)));
        }
    }
}

fn is_allowed(request: &Request, allowed: Option<&[Origin]>) -> bool {
    // Only browsers send an origin, and it is their pages that must not use their users' way in.
    match (request.headers().get(ORIGIN), allowed) {
        (Some(origin), Some(allowed)) => allowed.iter().any(|allowed| allowed.is(origin.as_bytes())),
        _ => true,
    }
}

fn unavailable(full: Full) -> Answer {
    Answer::new("503 Service Unavailable", &format!("No place: {full}."))
}

/// Sends an answer and ends the connection.
fn answer(stream: &mut Stream, answer: &Answer, request: Option<&Request>) {
    let until = Instant::now() + LINGER;
    if write_all(stream, &answer.to_bytes(request.map(Request::method)), until).is_ok() {
        take_leave(stream, until);
    }
}

/// Ends a connection so that the client sees its end, and not a reset.
fn take_leave(stream: &mut Stream, until: Instant) {
    stream.finish();
    let socket = stream.socket();
    discard(&socket, until, |buffer| stream.read(buffer));
}

fn write_all(stream: &mut Stream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = by_deadline(stream, Wait::Write, deadline, |stream| stream.write(bytes))?;
        bytes = &bytes[written..];
    }
    by_deadline(stream, Wait::Write, deadline, Stream::flush)
}

fn converse(id: ConnectionId, upgraded: Upgraded, socket: Arc<TcpStream>, context: &Context) {
    let Upgraded { stream, peer, read, _place } = upgraded;
    let link = Arc::new(Link::new(stream, socket, read, &context.limits));
    debug!("{peer}: connected");
    let Some(registered) = Registered::new(id, &link, &peer, &context.hub) else { return };
    let ended = read_messages(id, &link, context);
    let closing = match &ended {
        End::Link(Ended::Closed) => {
            debug!("{peer}: closed");
            true
        }
        End::Link(Ended::Gone) | End::ServerStopped => {
            debug!("{peer}: gone");
            false
        }
        End::Link(Ended::Broke(code, reason)) => {
            info!("{peer}: closed with {code}: {reason}");
            context.counters.cut_off(CutOffBy::Broke);
            link.close(*code, reason, Instant::now()).is_ok()
        }
        End::Link(Ended::CutOff(reason)) => {
            warn!("{peer}: cut off: {reason}");
            context.counters.cut_off(reason.into());
            false
        }
        End::Silent => {
            warn!("{peer}: cut off: no answer to a ping (PING_INTERVAL)");
            context.counters.cut_off(CutOffBy::Silent);
            false
        }
    };
    // The name is free before the last bytes are gone.
    drop(registered);
    if closing {
        link.finish(Instant::now() + LINGER);
    }
    link.cut();
}

/// Why a conversation is over.
enum End {
    Link(Ended),
    Silent,
    ServerStopped,
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        Self::Link(ended)
    }
}

fn read_messages(id: ConnectionId, link: &Link, context: &Context) -> End {
    let mut rate = Rate::new(context.limits.message_rate, Instant::now());
    let mut keep_alive = KeepAlive::new(context.limits.ping_interval, Instant::now());
    loop {
        let event = match next(link, &mut rate, &mut keep_alive, context.limits.message_bytes) {
            Ok(Next::Text(text)) => {
                context.counters.received(text.len());
                Event::Said(id, ClientMessage::parse(&text))
            }
            Ok(Next::Binary) => Event::Said(id, Err(Fault::Binary)),
            Ok(Next::Waiting) => Event::Waiting(id),
            Err(end) => return end,
        };
        // A full inbox makes this thread wait, and TCP its client.
        if context.hub.send(event).is_err() {
            return End::ServerStopped;
        }
    }
}

/// What the hub is to know next.
enum Next {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong waits for the client to take it.
    Waiting,
}

/// Waits for what comes next, no faster than the client may send.
fn next(link: &Link, rate: &mut Rate, keep_alive: &mut KeepAlive, whole: usize) -> Result<Next, End> {
    loop {
        wait_for_rate(link, rate)?;
        let received = link.read()?;
        if !matches!(received, Received::Nothing { heard: false }) {
            keep_alive.heard(Instant::now());
        }
        let sent = match received {
            Received::Text(text) => {
                rate.count(1.0);
                return Ok(Next::Text(text));
            }
            Received::Binary => {
                rate.count(1.0);
                return Ok(Next::Binary);
            }
            Received::Control => {
                rate.count(1.0);
                link.flush(Instant::now())
            }
            Received::More => {
                // Whoever sends parts without end sends as much as if they were messages.
                rate.count(PORTION as f64 / PORTION.max(whole) as f64);
                // A lock that is given up and taken at once is not fair, and the hub may want it.
                let _ = wait(link.socket(), Wait::End, Instant::now() + HAND_OVER);
                continue;
            }
            Received::Nothing { .. } => {
                if wait(link.socket(), Wait::Read, keep_alive.next()).map_err(|_| Ended::Gone)? {
                    continue;
                }
                match keep_alive.due(Instant::now()) {
                    Due::Nothing => continue,
                    Due::Ping => link.ping(Instant::now()),
                    Due::Gone => return Err(End::Silent),
                }
            }
        };
        if let Sent::Waiting { .. } = sent.map_err(Ended::from)? {
            return Ok(Next::Waiting);
        }
    }
}

/// Waits until the client may send another message.
fn wait_for_rate(link: &Link, rate: &mut Rate) -> Result<(), End> {
    let mut ended: Option<Instant> = None;
    while let Some(until) = rate.wait_until(Instant::now()) {
        if ended.is_some_and(|ended| ended.elapsed() >= LAST_WORDS) || link.is_cut() {
            return Err(Ended::Gone.into());
        }
        match ended {
            None if wait(link.socket(), Wait::End, until).unwrap_or(true) => ended = Some(Instant::now()),
            None => {}
            // The connection has ended, but what the client said before can still be read.
            Some(_) => thread::sleep(until.saturating_duration_since(Instant::now())),
        }
    }
    Ok(())
}

/// A connection that the hub knows of, until this is dropped, be it by a panic: then the name is free again.
struct Registered<'a> {
    id: ConnectionId,
    hub: &'a Sender<Event>,
}

impl<'a> Registered<'a> {
    fn new(id: ConnectionId, link: &Arc<Link>, peer: &Peer, hub: &'a Sender<Event>) -> Option<Self> {
        hub.send(Event::Connected(id, link.clone(), peer.clone())).ok()?;
        Some(Self { id, hub })
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        // Without a hub there is no name to free.
        let _ = self.hub.send(Event::Gone(self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn whose_thread_panics_is_gone_like_anybody_else() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let limits = Settings::from_pairs([]).unwrap().limits;
        let link = Arc::new(Link::new(Stream::plain(socket.clone()), socket, Vec::new(), &limits));
        let peer = Peer { name: "somebody".into(), network: IpAddr::from([127, 0, 0, 1]) };
        let (hub, inbox) = crossbeam_channel::bounded(2);
        let id = ConnectionId(7);
        let thread = std::thread::spawn(move || {
            let _registered = Registered::new(id, &link, &peer, &hub);
            panic!("as a fault of the program's would");
        });
        assert!(thread.join().is_err());
        assert!(matches!(inbox.recv(), Ok(Event::Connected(ConnectionId(7), ..))));
        assert!(matches!(inbox.recv(), Ok(Event::Gone(ConnectionId(7)))));
    }
}
