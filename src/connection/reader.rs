//! Reads messages from a client, no faster than the client may send, and no faster than members may join.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::Utf8Bytes;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Shared;
use super::keep_alive::{Due, KeepAlive};
use crate::chat::{Access, Attempts, ClientMessage, MessageError};
use crate::hub::{Admission, Peer};
use crate::limits::{Meter, Network, SendLimit};
use crate::transport::{Flush, Link, Read, ReadError, Received, Wait, wait};

/// How long a flooding client's thread pauses after each [`Received::Partial`], so that the hub can take the
/// link's lock: std's mutex is not fair.
const YIELD_TIME: Duration = Duration::from_millis(1);
/// How long a client's thread pauses at a time while the hub holds clients back.
const HELD_TIME: Duration = Duration::from_millis(50);
/// How long a disconnected client's remaining messages are read, at the rate limit.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a session ends.
pub enum End {
    Read(ReadError),
    NoPong,
    Shutdown,
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// What was received, or what the hub must do.
pub enum Next {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong is in the backlog.
    Pending,
}

/// Reads from a client, no faster than the client may send.
pub struct Reader<'a> {
    link: &'a Link,
    peer: &'a Peer,
    shared: &'a Shared,
    limit: SendLimit<'a>,
    meter: Meter,
    keep_alive: KeepAlive,
    /// The number of the message that has begun and is not complete, and since when.
    incomplete: Option<(u64, Instant)>,
    /// When [`Self::next_text`] gives up.
    deadline: Option<Instant>,
    /// When the client was found to have disconnected, while this thread was waiting.
    disconnected: Option<Instant>,
    /// Whether a join of this connection has been charged to its address. It can join only once.
    join_charged: bool,
    /// For the last message with which this client could join.
    admission: Option<Arc<Admission>>,
}

impl<'a> Reader<'a> {
    pub fn new(link: &'a Link, peer: &'a Peer, shared: &'a Shared) -> Self {
        let now = Instant::now();
        Self {
            link,
            peer,
            shared,
            limit: shared.rates.send_limit(peer.charged, now),
            meter: Meter::default(),
            keep_alive: KeepAlive::new(shared.limits.ping_interval, now),
            incomplete: None,
            deadline: None,
            disconnected: None,
            join_charged: false,
            admission: None,
        }
    }

    /// Waits for what comes next.
    pub fn next(&mut self) -> Result<Next, End> {
        loop {
            let Read { received, bytes, incomplete } = self.link.read()?;
            self.meter.read(bytes);
            self.track(incomplete);
            if !matches!(received, Received::Nothing { progress: false }) {
                self.keep_alive.received(Instant::now());
            }
            let flush = match received {
                Received::Text(text) => {
                    self.charge_message(text.len())?;
                    return Ok(Next::Text(text));
                }
                Received::Binary(length) => {
                    self.charge_message(length)?;
                    return Ok(Next::Binary);
                }
                Received::Control => {
                    self.charge_message(0)?;
                    self.link.flush(Instant::now())
                }
                Received::Partial => {
                    self.charge_incomplete()?;
                    let _ = wait(self.link.socket(), Wait::Hangup, Instant::now() + YIELD_TIME);
                    continue;
                }
                Received::Nothing { .. } => {
                    self.charge_incomplete()?;
                    match self.wait_for_bytes()? {
                        Due::Nothing => continue,
                        Due::Ping => self.link.ping(Instant::now()),
                        Due::Disconnect => return Err(End::NoPong),
                    }
                }
            };
            if let Flush::Pending { .. } = flush.map_err(ReadError::from)? {
                return Ok(Next::Pending);
            }
        }
    }

    /// The next message that is a text; `None`: another message came first, the connection has ended, or it did not
    /// come by the deadline.
    pub fn next_text(&mut self, deadline: Instant) -> Option<Utf8Bytes> {
        self.deadline = Some(deadline);
        let next = self.next();
        self.deadline = None;
        match next {
            Ok(Next::Text(text)) => Some(text),
            Ok(Next::Binary | Next::Pending) | Err(_) => None,
        }
    }

    /// Records when the message that is now incomplete began.
    fn track(&mut self, incomplete: Option<u64>) {
        self.incomplete = match (incomplete, self.incomplete) {
            (Some(number), Some((known, since))) if number == known => Some((known, since)),
            (number, _) => number.map(|number| (number, Instant::now())),
        };
    }

    /// Waits for more bytes or the next keep-alive deadline.
    fn wait_for_bytes(&mut self) -> Result<Due, End> {
        let message_deadline = self.incomplete.map(|(_, since)| since + self.shared.limits.handshake_timeout);
        let keep_alive = self.keep_alive.next_deadline();
        let until = [message_deadline, self.deadline].into_iter().flatten().fold(keep_alive, Instant::min);
        match wait(self.link.socket(), Wait::Read, until) {
            Ok(true) => Ok(Due::Nothing),
            Ok(false) if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                Err(ReadError::Disconnected.into())
            }
            Ok(false) if message_deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                let reason = "a message took longer than HANDSHAKE_TIMEOUT";
                Err(ReadError::Violation(CloseCode::Policy, reason.into()).into())
            }
            Ok(false) => Ok(self.keep_alive.due(Instant::now())),
            Err(_) => Err(ReadError::Disconnected.into()),
        }
    }

    /// Charges for a complete message or control frame of this length, in bytes.
    fn charge_message(&mut self, length: usize) -> Result<(), End> {
        let cost = self.meter.complete(length);
        self.charge(cost)
    }

    /// Charges for bytes that have not completed a message.
    fn charge_incomplete(&mut self) -> Result<(), End> {
        let cost = self.meter.incomplete();
        self.charge(cost)
    }

    /// Waits until the rates cover this cost.
    fn charge(&mut self, cost: f64) -> Result<(), End> {
        match self.limit.charge(cost, Instant::now()) {
            Some(until) if cost > 0.0 => self.hold(until).inspect_err(|_| self.limit.give_back(cost)),
            _ => Ok(()),
        }
    }

    /// Compares the passwords of a message, if the message can have an effect. For a hash, this waits for other clients'.
    pub fn compare(&mut self, message: &Result<ClientMessage, MessageError>, attempts: &Attempts) -> Access {
        let Ok(message) = message else { return Access::default() };
        let Shared { passwords, hub, .. } = self.shared;
        let joined = self.admission.as_ref().map(|admission| admission.joined());
        let name = message.username.as_ref().and_then(|name| name.as_ref().ok());
        let name = name.filter(|_| joined != Some(Some(true)));
        let is_guest = matches!(joined, None | Some(Some(false))) && name.is_none();
        let is_needed = || !self.link.is_cut_off() && !hub.is_shutting_down();
        let mut access = passwords.requirements();
        let start = Instant::now();
        if let Some((name, attempt)) = name.zip(attempts.join.as_ref())
            && !hub.can_resume(message)
        {
            access.join = passwords.join(name.key(), attempt, self.peer, hub, is_needed);
        }
        if let Some(attempt) =
            attempts.login.as_ref().filter(|_| !is_guest && access.join.refusal().is_none())
        {
            access.login = passwords.login(attempt, self.peer, is_needed);
        }
        self.exclude_from_deadline(start);
        access
    }

    /// Holds a join back until the rate of its address and the cost of user lists allow it. `None`: the client has
    /// joined already, or cannot join with this message. One that resumes does not wait.
    pub fn admit(
        &mut self,
        message: &Result<ClientMessage, MessageError>,
        access: Access,
    ) -> Result<Option<Arc<Admission>>, End> {
        // While the hub has not handled the last one, that one applies.
        let is_decided = self.admission.as_ref().is_some_and(|admission| admission.joined() != Some(false));
        let cannot_join = is_decided || access.join.refusal().is_some();
        let Some(message) = message.as_ref().ok().filter(|_| !cannot_join) else { return Ok(None) };
        if self.shared.hub.can_resume(message) {
            let admission = Arc::new(self.shared.hub.admit_to_resume());
            self.admission = Some(admission.clone());
            return Ok(Some(admission));
        }
        let Some(entry_bytes) = message.list_entry_bytes() else { return Ok(None) };
        let network = self.peer.charged.filter(|_| !std::mem::replace(&mut self.join_charged, true));
        self.wait_to_join(network, entry_bytes).inspect_err(|_| {
            if let Some(network) = network {
                self.shared.rates.join.give_back(network, 1.0);
            }
        })
    }

    /// `network`: the address that this join is charged to.
    fn wait_to_join(
        &mut self,
        network: Option<Network>,
        entry_bytes: usize,
    ) -> Result<Option<Arc<Admission>>, End> {
        let join = &self.shared.rates.join;
        if let Some(until) = network.and_then(|network| join.take(network, 1.0, Instant::now())) {
            self.hold(until)?;
        }
        let (admission, resume_at) = self.shared.hub.admit(entry_bytes, Instant::now());
        if resume_at > Instant::now() {
            self.hold(resume_at)?;
        }
        let admission = Arc::new(admission);
        self.admission = Some(admission.clone());
        Ok(Some(admission))
    }

    /// Waits while the queue of entries for the other servers is full.
    pub fn wait_for_room(&mut self) -> Result<(), End> {
        while self.shared.hub.is_held() && !self.shared.hub.is_shutting_down() {
            self.hold(Instant::now() + HELD_TIME)?;
        }
        Ok(())
    }

    /// Waits without reading.
    fn hold(&mut self, until: Instant) -> Result<(), End> {
        let start = Instant::now();
        loop {
            let now = Instant::now();
            let drain_end = self.disconnected.map(|since| since + DRAIN_TIMEOUT);
            if self.link.is_cut_off() || drain_end.is_some_and(|end| end <= now) {
                return Err(ReadError::Disconnected.into());
            }
            if until <= now {
                break;
            }
            match drain_end {
                None => {
                    if wait(self.link.socket(), Wait::Hangup, until).unwrap_or(true) {
                        self.disconnected = Some(Instant::now());
                    }
                }
                // What the client sent before it disconnected can still be read. There is nothing to poll for.
                Some(end) => thread::sleep(until.min(end).saturating_duration_since(now)),
            }
        }
        self.exclude_from_deadline(start);
        Ok(())
    }

    /// The client could not complete its message while this thread did not read.
    fn exclude_from_deadline(&mut self, start: Instant) {
        if let Some((_, since)) = &mut self.incomplete {
            *since += start.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ListBudget, NameKey, SessionSecret};
    use crate::connection::handshake::Upgraded;
    use crate::connection::session::tests::upgraded;
    use crate::connection::tests::shared;
    use crate::hub::{Admitted, HubHandle, SharedState};

    /// New members' lists once exceeded what all lists together may cost.
    #[test]
    fn joins_wait_as_long_as_the_hub_says() {
        let (Upgraded { stream, peer, .. }, _client) = upgraded();
        let link = Link::new(stream, Vec::new(), 1024, 1024);
        let state = SharedState::default();
        let (hub, _queries) = HubHandle::new(crossbeam_channel::bounded(1).0, state.clone());
        let shared = shared(&[], hub);
        // A link that is cut off fails where another would wait.
        link.cut_off();
        let waits = |text: &str| {
            Reader::new(&link, &peer, &shared).admit(&ClientMessage::parse(text), Access::default()).is_err()
        };
        let join = r#"{"type":"join","username":"Bob"}"#;
        assert!(!waits(join));
        let mut budget = ListBudget::default();
        let now = Instant::now();
        budget.accrue(now, 1e6);
        budget.spend_on_new_member(1e12);
        state.set_join_pace(budget.join_pace(1000), Default::default());
        assert!(waits(join));
        assert!(waits(r#"{"type":"public","username":"Bob","content":"hi"}"#), "this joins as well");
        assert!(!waits(r#"{"type":"public","content":"hi"}"#));
        state.set_join_pace(ListBudget::default().join_pace(1000), Default::default());
        assert!(!waits(join));
    }

    /// A flood of clients that disconnected at once left a debt that kept their address out for hours.
    #[test]
    fn a_client_that_stops_waiting_gives_back_what_it_has_not_used() {
        let (Upgraded { stream, peer, .. }, _client) = upgraded();
        let link = Link::new(stream, Vec::new(), 1024, 1024);
        link.cut_off();
        let peer = Peer { charged: Some(peer.network), ..peer };
        let (hub, _queries) = HubHandle::new(crossbeam_channel::bounded(1).0, SharedState::default());
        let (now, shared) = (Instant::now(), shared(&[], hub));
        let (network, second) = (peer.network, Duration::from_secs(1));
        // When another connection may send or join.
        let send = |messages| shared.rates.send_limit(Some(network), now).charge(messages, now);
        let join = |joins| shared.rates.join.take(network, joins, now);
        let _ = (send(1e6), join(1e6));
        let (may_send, may_join) = (send(0.0).unwrap(), join(0.0).unwrap());
        for _ in 0..100 {
            let mut reader = Reader::new(&link, &peer, &shared);
            assert!(reader.charge_message(1).is_err());
            let message = ClientMessage::parse(r#"{"type":"join","username":"Bob"}"#);
            assert!(reader.admit(&message, Access::default()).is_err());
        }
        assert!(send(0.0).unwrap() < may_send + second);
        assert!(join(0.0).unwrap() < may_join + second);
    }

    #[test]
    fn only_a_join_that_resumes_is_not_charged() {
        let (Upgraded { stream, peer, .. }, _client) = upgraded();
        let link = Link::new(stream, Vec::new(), 1024, 1024);
        // A link that is cut off fails where another would wait.
        link.cut_off();
        let peer = Peer { charged: Some(peer.network), ..peer };
        let state = SharedState::default();
        let session = "0a".repeat(16);
        let bob = SessionSecret::parse(&session).unwrap();
        state.open_session(bob.digest(), Arc::new(NameKey::of("Bob")));
        let (hub, _queries) = HubHandle::new(crossbeam_channel::bounded(1).0, state.clone());
        let shared = shared(&[], hub);
        let _ = shared.rates.join.take(peer.network, 1e6, Instant::now());
        let is_charged = |fields: &str| {
            let text = format!(r#"{{"type":"join",{fields}}}"#);
            Reader::new(&link, &peer, &shared).admit(&ClientMessage::parse(&text), Access::default()).is_err()
        };
        let resumes = format!(r#""username":"bob","session":"{session}""#);
        assert!(!is_charged(&resumes));
        assert!(is_charged(&format!(r#""username":"Ann","session":"{session}""#)), "another name");
        assert!(is_charged(&format!(r#""username":"Bob","session":"{}""#, "0b".repeat(16))));
        assert!(is_charged(r#""username":"Bob","history":5"#));
        state.close_session(bob.digest());
        assert!(is_charged(&resumes));
    }

    /// The first message with a `username` after a join that resumed was once charged like a join.
    #[test]
    fn a_member_that_has_resumed_is_not_charged_for_its_messages() {
        let (Upgraded { stream, peer, .. }, _client) = upgraded();
        let link = Link::new(stream, Vec::new(), 1024, 1024);
        let peer = Peer { charged: Some(peer.network), ..peer };
        let (state, session) = (SharedState::default(), "0a".repeat(16));
        state.open_session(SessionSecret::parse(&session).unwrap().digest(), Arc::new(NameKey::of("Bob")));
        let (hub, _queries) = HubHandle::new(crossbeam_channel::bounded(1).0, state);
        let shared = shared(&[], hub);
        let mut reader = Reader::new(&link, &peer, &shared);
        let mut admit = |fields: &str| {
            let message = ClientMessage::parse(&format!(r#"{{"username":"Bob",{fields}}}"#));
            reader.admit(&message, Access::default()).unwrap_or_else(|_| panic!("the client is connected"))
        };
        let admission = admit(&format!(r#""type":"join","session":"{session}""#)).expect("it may resume");
        assert!(admission.only_resumes());
        let public = r#""type":"public","content":"hi""#;
        assert!(admit(public).is_none(), "while the hub has not handled the join");
        Admitted::default().handled(&admission, true);
        assert!(admit(public).is_none(), "it has resumed");
    }

    /// A failed join once exempted all later ones of its connection from waiting.
    #[test]
    fn a_failed_join_does_not_admit_the_next_one() {
        let (Upgraded { stream, peer, .. }, _client) = upgraded();
        let link = Link::new(stream, Vec::new(), 1024, 1024);
        let (hub, _queries) = HubHandle::new(crossbeam_channel::bounded(1).0, SharedState::default());
        let shared = shared(&[], hub);
        let mut reader = Reader::new(&link, &peer, &shared);
        let join = ClientMessage::parse(r#"{"type":"join","username":"Bob"}"#);
        let mut admit =
            || reader.admit(&join, Access::default()).unwrap_or_else(|_| panic!("the client is connected"));
        let first = admit().expect("it may join");
        assert!(admit().is_none(), "while the hub has not handled the first");
        Admitted::default().handled(&first, false);
        let second = admit().expect("the first has failed");
        Admitted::default().handled(&second, true);
        assert!(admit().is_none(), "it has joined");
    }
}
