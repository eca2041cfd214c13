//! The session of an upgraded connection: its messages go to the hub until it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, warn};
use tungstenite::Utf8Bytes;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Shared;
use super::handshake::Upgraded;
use super::http_exchange::LINGER_TIMEOUT;
use super::reader::{End, Next, Reader};
use crate::chat::{
    Access, Audience, Ban, ClientMessage, ConnectionId, Departure, Effect, MessageError, ServerMessage,
    Verdict,
};
use crate::hub::{Event, HubHandle, Peer, Tape};
use crate::ops::clock::{self, local_time};
use crate::ops::metrics::{CutOffReason, RefusalReason};
use crate::transport::{Link, Output, ReadError};

/// What a refused connection from a banned address costs, in tokens of `CONNECT_RATE`, in addition to the one that every
/// connection costs.
const BANNED_COST: f64 = 19.0;
/// How long a client from a banned address has to send the join of a named moderator.
const BANNED_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a session until the client or the server closes it, or either fails.
pub fn run(id: ConnectionId, upgraded: Upgraded, shared: &Shared) {
    let Upgraded { stream, peer, leftover, permit: _permit } = upgraded;
    let limits = &shared.limits;
    let link = Arc::new(Link::new(stream, leftover, limits.message_bytes, limits.send_queue_bytes));
    debug!("{peer}: connected");
    let mut reader = Reader::new(&link, &peer, shared);
    let mut first = None;
    // Before it is registered, so that clients that reconnect in a loop cost the hub nothing.
    if let Some(ban) = shared.hub.ban_on(peer.network, clock::unix_millis()) {
        first = moderators_join(&mut reader, shared);
        if first.is_none() {
            return refuse(id, &link, &peer, shared, &ban);
        }
    }
    let Some(mut registration) = Registration::new(id, &link, &peer, &shared.hub) else { return };
    let end = read_messages(id, &mut reader, first, shared);
    if let End::Read(ReadError::Closed(Some(CloseCode::Normal))) = end {
        registration.departure = Departure::Left;
    }
    let is_open = finish_reading(end, &link, &peer, shared);
    // Frees the name before the last bytes have been sent. At shutdown, the connection stays registered until then:
    // the process ends once no connection is registered.
    let registration = Some(registration).filter(|_| shared.hub.is_shutting_down());
    if is_open {
        link.finish(Instant::now() + LINGER_TIMEOUT);
    }
    link.cut_off();
    drop(registration);
}

/// Logs and counts the end of a session. Returns whether the connection can still be closed in an orderly way.
fn finish_reading(end: End, link: &Link, peer: &Peer, shared: &Shared) -> bool {
    match end {
        End::Read(ReadError::Closed(_)) => {
            debug!("{peer}: closed");
            true
        }
        End::Read(ReadError::Disconnected) | End::Shutdown => {
            debug!("{peer}: disconnected");
            false
        }
        End::Read(ReadError::Violation(code, reason)) => {
            shared.client_log.info(peer.network, format_args!("{peer}: closed with {code}: {reason}"));
            shared.counters.cut_off(CutOffReason::Violation);
            link.close(code, &reason, Instant::now()).is_ok()
        }
        End::Read(ReadError::CutOff(error)) => {
            // If the hub has cut it off already, it has logged and counted that.
            if let Some(reason) = error.cut_off_reason().filter(|_| link.cut_off()) {
                warn!("{peer}: cut off: {error}");
                shared.counters.cut_off(reason);
            }
            false
        }
        End::NoPong => {
            if link.cut_off() {
                warn!("{peer}: cut off: no answer to a ping (PING_INTERVAL)");
                shared.counters.cut_off(CutOffReason::NoPong);
            }
            false
        }
    }
}

/// The join of a named moderator, with its password or its session, which may come from a banned address.
fn moderators_join(reader: &mut Reader, shared: &Shared) -> Option<Utf8Bytes> {
    if !shared.hub.has_moderators() {
        return None;
    }
    let text = reader.next_text(Instant::now() + BANNED_TIMEOUT)?;
    let (message, attempts) = ClientMessage::parse_with_secrets(&text);
    let may_resume = message.as_ref().is_ok_and(|message| shared.hub.can_resume(message));
    let mut is_moderator = || reader.compare(&message, &attempts).join == Verdict::Own;
    // The room decides whether one that resumes is let in.
    (may_resume || is_moderator()).then_some(text)
}

/// Refuses a client whose address is banned.
#[inline(never)] // See `message_event`.
fn refuse(id: ConnectionId, link: &Link, peer: &Peer, shared: &Shared, ban: &Ban) {
    shared.client_log.info(peer.network, format_args!("{peer}: refused: its address is banned"));
    shared.counters.refused(RefusalReason::Banned);
    if let Some(network) = peer.charged {
        shared.rates.connect.take(network, BANNED_COST, Instant::now());
    }
    let mut tape = Tape::default();
    let message = ServerMessage::Error { content: ban.notice(), txn_id: None };
    tape.write(&Effect::Send(Audience::One(id), message), &local_time());
    let mut output = Output::default();
    tape.finish().output(id, &mut output);
    let now = Instant::now();
    if link.send(&output, now).is_ok() && link.close(CloseCode::Policy, &ban.close_reason(), now).is_ok() {
        link.finish(now + LINGER_TIMEOUT);
    }
    link.cut_off();
}

/// `first`: the text of a message that was read already.
fn read_messages(id: ConnectionId, reader: &mut Reader, first: Option<Utf8Bytes>, shared: &Shared) -> End {
    let mut first = first.map(Next::Text);
    loop {
        let event = match first.take().map_or_else(|| reader.next(), Ok) {
            Ok(Next::Text(text)) => match message_event(id, reader, &text, shared) {
                Ok(event) => event,
                Err(end) => return end,
            },
            Ok(Next::Binary) => Event::Message(id, Err(MessageError::Binary), Access::default(), None, None),
            Ok(Next::Pending) => Event::Pending(id),
            Err(end) => return end,
        };
        // Blocks while the inbox is full, so that TCP applies backpressure to the client.
        if shared.hub.send(event).is_err() {
            return End::Shutdown;
        }
    }
}

/// Parses a message, and waits until it may be passed on. Not inlined: its variables would add a page to the stack of
/// every session that waits for a message.
#[inline(never)]
fn message_event(id: ConnectionId, reader: &mut Reader, text: &str, shared: &Shared) -> Result<Event, End> {
    shared.counters.received(text.len());
    let (message, attempts) = ClientMessage::parse_with_secrets(text);
    let access = reader.compare(&message, &attempts);
    let admission = reader.admit(&message, access)?;
    reader.wait_for_room()?;
    Ok(Event::Message(id, message, access, attempts.session, admission))
}

/// A connection that is registered with the hub. Dropping it reports the disconnect, even on a panic.
struct Registration<'a> {
    id: ConnectionId,
    departure: Departure,
    hub: &'a HubHandle,
}

impl<'a> Registration<'a> {
    /// `None`: the hub has ended.
    fn new(id: ConnectionId, link: &Arc<Link>, peer: &Peer, hub: &'a HubHandle) -> Option<Self> {
        hub.send(Event::Connected(id, link.clone(), peer.clone())).ok()?;
        Some(Self { id, departure: Departure::Lost, hub })
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        // Fails only if the hub has ended.
        let _ = self.hub.send(Event::Disconnected(self.id, self.departure));
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{Read as _, Write};
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::num::NonZeroU32;
    use std::thread;

    use super::*;
    use crate::chat::{NamedModerator, SessionSecret, Username};
    use crate::config::{PasswordHash, SALT_BYTES};
    use crate::connection::tests::shared;
    use crate::hub::SharedState;
    use crate::transport::Stream;

    /// A client's connection, upgraded, and its own end of it.
    pub fn upgraded() -> (Upgraded, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let network = IpAddr::from([127, 0, 0, 1]).into();
        let peer = Peer { name: "a client".into(), network, charged: None };
        let stream = Stream::plain(Arc::new(socket));
        (Upgraded { stream, peer, leftover: Vec::new(), permit: None }, client)
    }

    fn ban(network: &str) -> Ban {
        Ban {
            id: 1,
            name: None,
            network: Some(network.parse().unwrap()),
            by: "Ann".into(),
            since: 0,
            until: None,
            reason: "spam".into(),
        }
    }

    fn hash(password: &str) -> String {
        PasswordHash::new(password, [0; SALT_BYTES], NonZeroU32::MIN).to_string()
    }

    /// A named moderator.
    fn ann() -> NamedModerator {
        NamedModerator { name: Username::parse("Ann").unwrap(), hash: hash("only ann").into() }
    }

    /// The frame of a text of less than 126 bytes, masked with zeros.
    fn text_frame(text: &str) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap();
        assert!(length < 126);
        [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
    }

    /// A connection from 192.0.2.1, which is banned.
    fn banned() -> (Upgraded, TcpStream, SharedState) {
        let (mut upgraded, client) = upgraded();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let network = IpAddr::from([192, 0, 2, 1]).into();
        upgraded.peer = Peer { network, charged: Some(network), ..upgraded.peer };
        let state = SharedState::default();
        state.publish_ban(Arc::new(ban("192.0.2.0/24")));
        (upgraded, client, state)
    }

    #[test]
    fn a_banned_address_is_refused_without_the_hub() {
        let (upgraded, mut client, state) = banned();
        let network = upgraded.peer.network;
        let (inbox, events) = crossbeam_channel::bounded(8);
        let shared = shared(&[("CONNECT_RATE", "1")], HubHandle::new(inbox, state).0);
        let take = |tokens| shared.rates.connect.take(network, tokens, Instant::now());
        let debt_ends = take(1e6).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| run(ConnectionId(7), upgraded, &shared));
            let mut received = Vec::new();
            client.read_to_end(&mut received).unwrap();
            drop(client);
            let text = String::from_utf8_lossy(&received);
            assert!(text.contains(r#""content":"You are banned: spam""#), "{text}");
            // Close code 1008.
            assert!(received.ends_with(b"\x88\x06\x03\xF0spam"), "{received:?}");
        });
        assert!(events.is_empty(), "the hub does not learn of it");
        // One token is a second.
        let cost = Duration::from_secs_f64(BANNED_COST - 0.5);
        assert!(take(0.0).unwrap() > debt_ends + cost, "it is charged for more than one connection");
    }

    /// From a banned address, only the join of a named moderator is passed on.
    #[test]
    fn a_named_moderator_may_join_from_a_banned_address() {
        for (text, is_passed_on) in [
            (r#"{"type":"join","username":"ann","password":"only ann"}"#, true),
            (r#"{"type":"join","username":"ann","session":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}"#, true),
            (r#"{"type":"join","username":"ann","session":"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"}"#, false),
            (r#"{"type":"join","username":"Ann","password":"guess"}"#, false),
            (r#"{"type":"join","username":"Ann"}"#, false),
            (r#"{"type":"join","username":"Bob","password":"only ann"}"#, false),
            (r#"{"type":"public","username":"Ann","content":"hi"}"#, false),
            ("nonsense", false),
        ] {
            let (upgraded, mut client, state) = banned();
            state.set_moderators(&[ann()]);
            let session = SessionSecret::parse(&"0a".repeat(16)).unwrap();
            state.open_session(session.digest(), ann().name.key().clone());
            let (inbox, events) = crossbeam_channel::bounded(8);
            let shared = shared(&[], HubHandle::new(inbox, state).0);
            thread::scope(|scope| {
                client.write_all(&text_frame(text)).unwrap();
                scope.spawn(|| run(ConnectionId(7), upgraded, &shared));
                if is_passed_on {
                    assert!(matches!(events.recv(), Ok(Event::Connected(..))));
                    assert!(matches!(events.recv(), Ok(Event::Message(_, Ok(_), _, _, Some(_)))), "{text}");
                } else {
                    let mut first = [0; 1];
                    client.read_exact(&mut first).unwrap();
                    assert_eq!((first, events.len()), ([0x81], 0), "{text}");
                }
                drop(client);
            });
        }
        // One that sends nothing is refused after a second.
        let (upgraded, mut client, state) = banned();
        state.set_moderators(&[ann()]);
        let (inbox, events) = crossbeam_channel::bounded(8);
        let shared = shared(&[], HubHandle::new(inbox, state).0);
        thread::scope(|scope| {
            scope.spawn(|| run(ConnectionId(7), upgraded, &shared));
            let mut first = [0; 1];
            client.read_exact(&mut first).unwrap();
            assert_eq!((first, events.len()), ([0x81], 0));
            drop(client);
        });
    }

    #[test]
    fn a_panicking_thread_frees_its_name() {
        let (Upgraded { stream, peer, .. }, _client) = upgraded();
        let link = Arc::new(Link::new(stream, Vec::new(), 1024, 1024));
        let (inbox, events) = crossbeam_channel::bounded(2);
        let (hub, _queries) = HubHandle::new(inbox, Default::default());
        let id = ConnectionId(7);
        let thread = std::thread::spawn(move || {
            let _registration = Registration::new(id, &link, &peer, &hub);
            panic!("a bug in the session");
        });
        assert!(thread.join().is_err());
        assert!(matches!(events.recv(), Ok(Event::Connected(ConnectionId(7), ..))));
        assert!(matches!(events.recv(), Ok(Event::Disconnected(ConnectionId(7), Departure::Lost))));
    }

    /// The process ends once no connection is registered. It once did before `close_notify` and FIN had been sent.
    #[test]
    fn at_shutdown_a_connection_is_registered_until_it_is_closed() {
        let (upgraded, mut client) = upgraded();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let state = SharedState::default();
        state.shut_down();
        let (inbox, events) = crossbeam_channel::bounded(1);
        let (hub, _queries) = HubHandle::new(inbox, state);
        let shared = shared(&[], hub);
        thread::scope(|scope| {
            // If this test fails, it ends, and so does the thread.
            let events = events;
            scope.spawn(|| run(ConnectionId(7), upgraded, &shared));
            // An empty close frame, masked.
            client.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
            // The inbox is full: the end of the registration would wait for this test.
            let mut received = Vec::new();
            client.read_to_end(&mut received).expect("the connection is closed first");
            assert_eq!(received, [0x88, 0]);
            drop(client);
            assert!(matches!(events.recv(), Ok(Event::Connected(ConnectionId(7), ..))));
            assert!(matches!(events.recv(), Ok(Event::Disconnected(ConnectionId(7), Departure::Lost))));
        });
    }

    const JOIN: &str = r#"{"type":"join","username":"Bob","password":"open sesame"}"#;

    #[test]
    fn a_password_that_waits_for_its_turn_delays_only_its_own_client() {
        let (inbox, events) = crossbeam_channel::bounded(16);
        let (hub, _queries) = HubHandle::new(inbox, SharedState::default());
        let shared = shared(&[("JOIN_PASSWORD", &hash("open sesame"))], hub);
        thread::scope(|scope| {
            let turn = shared.passwords.hold();
            let [mut bob, mut ann] = [1, 2].map(|number| {
                let (upgraded, client) = upgraded();
                let shared = &shared;
                scope.spawn(move || run(ConnectionId(number), upgraded, shared));
                client
            });
            let next_message = || loop {
                if let Event::Message(ConnectionId(number), message, access, _, _) = events.recv().unwrap() {
                    return (number, message.is_ok(), access.join);
                }
            };
            bob.write_all(&text_frame(JOIN)).unwrap();
            ann.write_all(&text_frame(r#"{"type":"history"}"#)).unwrap();
            assert_eq!(next_message(), (2, true, Verdict::NotCompared));
            drop(turn);
            assert_eq!(next_message(), (1, true, Verdict::Shared));
        });
    }

    /// Clients that wait for their passwords must not delay the end of the process.
    #[test]
    fn at_shutdown_no_password_is_hashed() {
        let (inbox, events) = crossbeam_channel::bounded(16);
        let state = SharedState::default();
        state.shut_down();
        let (hub, _queries) = HubHandle::new(inbox, state);
        let shared = shared(&[("JOIN_PASSWORD", &hash("open sesame"))], hub);
        thread::scope(|scope| {
            let (upgraded, mut client) = upgraded();
            scope.spawn(|| run(ConnectionId(1), upgraded, &shared));
            client.write_all(&text_frame(JOIN)).unwrap();
            assert!(matches!(events.recv(), Ok(Event::Connected(..))));
            let Ok(Event::Message(_, _, access, _, _)) = events.recv() else { panic!("no message") };
            assert_eq!(access.join, Verdict::NotCompared);
        });
    }
}
