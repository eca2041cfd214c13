//! From a client's first byte to a WebSocket, under one deadline: TLS, the request head, the answer.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use ipnet::IpNet;
use rustls::ServerConfig;
use tungstenite::handshake::server::Request;
use tungstenite::http::header::ORIGIN;

use crate::chat::ConnectionId;
use crate::config::{Limits, Origin};
use crate::http::{self, Answer, Eyes, client_address, page};
use crate::hub::{Event, Peer};
use crate::limits::{Admission, Full, Place, network};
use crate::ops::metrics::{Counters, Failed, Refused};
use crate::transport::{Stream, Wait, by_deadline, discard};

/// How long a connection that the server ends has to take what was said last.
pub const LINGER: Duration = Duration::from_secs(2);
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

/// Goes through a connection's handshake. Whatever else was asked for is answered here.
///
/// # Errors
/// Why there is no WebSocket; the client has been told, where there was a way.
pub fn shake_hands(arrival: &Arrival, context: &Context, deadline: Instant) -> Result<Upgraded, Failure> {
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
    let client = client_behind(own_address, &request, context);
    let by_proxy = context.is_proxy(own_address);
    if !http::asks_for_websocket(&request) {
        if let Some(told) = look(own_address, &request, context) {
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
    let accepted = accept(&request, scheme, client, by_proxy, context);
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
    Ok(Upgraded { stream, peer: Peer { name: name.into(), network: network(client) }, read, place })
}

/// The answer to a good upgrade, and the place that it takes; else the answer to what is none.
fn accept(
    request: &Request,
    scheme: &str,
    client: IpAddr,
    by_proxy: bool,
    context: &Context,
) -> Result<(Vec<u8>, Option<Place>), Answer> {
    let response = http::upgrade(request, scheme)?;
    if !is_allowed(request, context.allowed_origins.as_deref()) {
        context.counters.refused(Refused::Origin);
        let line = "Pages from this origin may not connect (ALLOWED_ORIGINS).";
        return Err(Answer::new("403 Forbidden", line));
    }
    let place = if !by_proxy {
        // It was given one when it arrived.
        Ok(None)
    } else if request.headers().contains_key("x-forwarded-for") {
        context.admission.address(client)
    } else {
        // A proxy's own request: on the same machine it may as well be a local client's.
        context.admission.peer(client)
    };
    let place = place.map_err(|full| {
        context.counters.refused(full.into());
        unavailable(full)
    })?;
    Ok((response, place))
}

fn client_behind(own_address: IpAddr, request: &Request, context: &Context) -> IpAddr {
    client_address(own_address, &context.trusted_proxies, http::lines(request, "x-forwarded-for"))
}

/// The answer to who asks how the server is, if that is asked.
fn look(own_address: IpAddr, request: &Request, context: &Context) -> Option<Answer> {
    let client = client_behind(own_address, request, context);
    // A proxy that asks for somebody and does not say for whom is nobody.
    let is_nobody = client == own_address
        && context.is_proxy(own_address)
        && request.headers().contains_key("x-forwarded-for");
    context.eyes.answer(request, Some(client).filter(|_| !is_nobody))
}

/// Tells a client that there is no place for it; but a full server is well, and says so.
pub fn refuse(arrival: Arrival, full: Full, context: &Context) {
    let deadline = Instant::now() + LINGER;
    let mut stream = Stream::plain(arrival.socket);
    // Reading the request first keeps the system from throwing the answer away.
    match read_head(&mut stream, deadline) {
        Err(Failure::Gone) => {}
        Ok((request, _)) if !http::asks_for_websocket(&request) => {
            let told = look(arrival.address.ip().to_canonical(), &request, context);
            answer(&mut stream, &told.unwrap_or_else(|| unavailable(full)), Some(&request));
        }
        _ => answer(&mut stream, &unavailable(full), None),
    }
}

/// An upgraded connection.
pub struct Upgraded {
    pub stream: Stream,
    pub peer: Peer,
    /// What the client sent right behind its request.
    pub read: Vec<u8>,
    /// What it holds until it ends, beside what it held when it arrived.
    pub place: Option<Place>,
}

/// Why there is no WebSocket.
pub enum Failure {
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
    /// Counts it, unless it was counted where it was decided.
    pub fn count(&self, counters: &Counters) {
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
