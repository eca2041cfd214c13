//! What `benches/parts.rs` measures: the pure steps from a client's message to the bytes for each recipient. The
//! server itself does not use this.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::chat::{
    Access, Address, AwayLimits, Body, ChatTime, ClientMessage, ConnectionId, Departure, Effect, Entry,
    EntryTime, Guests, HistoryLimits, Input, JoinSecrets, MessageError, NodeNumber, Room, RoomSettings,
    SessionSecret, UserLists,
};
use crate::hub::Tape;
use crate::transport::Output;

pub const EPOCH: &str = "5f3a0c1d2e4b6978";
/// The default of `MAX_MESSAGE_BYTES`.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// A message from a client.
pub struct Message(Result<ClientMessage, MessageError>, Option<SessionSecret>);

/// The room and its tape, with the server's defaults. The clock stands still unless a method says otherwise.
pub struct Chat {
    room: Room,
    lists: UserLists,
    guests: Guests,
    tape: Tape,
    output: Output,
    time: EntryTime,
    now: Instant,
    last_id: u64,
    last_connection: u64,
}

pub fn parse(text: &str) -> Message {
    let (message, attempts) = ClientMessage::parse_with_secrets(text);
    Message(message, attempts.session)
}

/// The session of a client that has joined on this connection.
pub fn session(connection: u64) -> String {
    new_session(connection).to_string()
}

fn new_session(connection: u64) -> SessionSecret {
    SessionSecret::new(u128::from(connection).to_be_bytes())
}

impl Default for Chat {
    fn default() -> Self {
        let time = EntryTime {
            chat: ChatTime(1_795_867_200_123),
            unix_millis: 1_795_867_200_123,
            timestamp: "12:00:00".into(),
            utc: "2026-11-28T12:00:00.123Z".into(),
        };
        let room = Room::new(
            RoomSettings {
                epoch: EPOCH.into(),
                history: HistoryLimits { messages: 10_000, age_millis: Some(30 * 24 * 60 * 60 * 1000) },
                away: AwayLimits {
                    timeout: Duration::from_secs(30),
                    members: 1000,
                    members_per_network: None,
                },
                ..RoomSettings::default()
            },
            &time,
        );
        Self {
            room,
            lists: UserLists::default(),
            guests: Guests::default(),
            tape: Tape::default(),
            output: Output::default(),
            time,
            now: Instant::now(),
            last_id: 0,
            last_connection: 0,
        }
    }
}

impl Chat {
    /// The id of the last entry.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Opens a connection, and returns its number.
    pub fn connect(&mut self) -> u64 {
        self.last_connection += 1;
        let network = IpAddr::from(Ipv4Addr::LOCALHOST).into();
        let (id, address) = (ConnectionId(self.last_connection), Address { network, is_exempt: true });
        self.guests.connected(id, address, self.time.chat);
        self.last_connection
    }

    /// Handles a message, as a batch of its own. Returns how many bytes are sent for it to all recipients together.
    pub fn receive(&mut self, connection: u64, message: Message) -> usize {
        let Message(message, sent) = message;
        let asks = matches!(&message, Ok(ClientMessage { body: Ok(Body::Join(Some(_))), .. }));
        let new = asks.then(|| new_session(connection));
        let secrets = JoinSecrets { sent, new };
        let access = Access { is_open: true, ..Access::default() };
        let session = new.map(|new| new.digest());
        let guest = self.guests.guest(ConnectionId(connection), false);
        self.apply_with(connection, Input::Message { message, access, session, guest }, secrets);
        self.finish()
    }

    /// The connection is lost, and its member may resume.
    pub fn lose(&mut self, connection: u64) {
        self.apply(connection, Input::Disconnected(Departure::Lost));
        self.finish();
    }

    /// The member leaves.
    pub fn leave(&mut self, connection: u64) {
        self.apply(connection, Input::Disconnected(Departure::Left));
        self.finish();
    }

    /// Moves the clock past the time when lists are due.
    pub fn wait_for_lists(&mut self) {
        self.now += Duration::from_secs(60);
    }

    /// Sends the lists that are due. Returns how many bytes these are for all recipients together.
    pub fn send_lists(&mut self) -> usize {
        if let Some(recipients) = self.lists.next_round(self.now, |_| false) {
            self.tape.write(&Effect::Send(recipients, self.room.user_list()), &self.time.timestamp);
        }
        self.finish()
    }

    fn apply(&mut self, connection: u64, input: Input) {
        self.apply_with(connection, input, JoinSecrets::default());
    }

    fn apply_with(&mut self, connection: u64, input: Input, secrets: JoinSecrets) {
        self.last_id += 1;
        let entry = Entry { id: self.last_id, time: &self.time, from: ConnectionId(connection), input };
        let mut effects = self.room.apply(entry, NodeNumber::LOCAL);
        secrets.complete(&mut effects, MAX_MESSAGE_BYTES);
        for effect in effects {
            self.lists.follow(&effect, self.now);
            self.guests.follow(&effect);
            self.tape.write(&effect, &self.time.timestamp);
        }
    }

    fn finish(&mut self) -> usize {
        let batch = self.tape.finish();
        let mut bytes = 0;
        for id in batch.recipients() {
            batch.output(id, &mut self.output);
            bytes += self.output.len();
        }
        bytes
    }
}
