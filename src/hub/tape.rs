//! The tape: a batch's messages, encoded once, and which parts of it each client gets.
//!
//! Messages to all members form one shared byte string, in the order in which every member receives them. Messages
//! to some clients only are targeted: they form a second byte string. A client's [`Track`] lists the
//! parts of both that make up its output: where it starts in the shared string, what it skips (its own public
//! messages) and what is inserted for it. Most clients need no track, so a message costs the same whether ten
//! clients get it or ten thousand.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::chat::{Audience, ConnectionId, ConnectionMap, Effect, ServerMessage};
use crate::transport::{Output, Slice};

/// The tape of the batch in progress.
#[derive(Default)]
pub struct Tape {
    /// All members, sorted. Finished batches share this list, so a change copies it while one is alive.
    members: Arc<Vec<ConnectionId>>,
    shared: Vec<u8>,
    targeted: Vec<u8>,
    tracks: ConnectionMap<Track>,
    /// A scratch buffer: a frame's header needs the length of the encoded message.
    json: Vec<u8>,
}

/// The parts of a batch that one client gets.
#[derive(Default)]
struct Track {
    parts: Vec<Part>,
    /// Where the client's next part of the shared string starts; `None`: it is not a member.
    shared_from: Option<usize>,
    /// How many of the client's first bytes do not count as waiting for it: up to the end of the list that it gets
    /// with its own join, or of a history answer.
    uncounted: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Shared(Range<usize>),
    Targeted(Range<usize>),
}

impl Tape {
    /// Appends an effect, and returns how many clients get a message from it.
    pub fn write(&mut self, effect: &Effect, timestamp: &str) -> usize {
        match effect {
            Effect::Enter(id, _) | Effect::Resume(id, _) => {
                self.track(*id).shared_from = Some(self.shared.len());
                if let Err(at) = self.members.binary_search(id) {
                    Arc::make_mut(&mut self.members).insert(at, *id);
                }
                0
            }
            Effect::Leave(id, _) | Effect::Away(id, _) | Effect::CloseReplaced(id) => {
                if let Ok(at) = self.members.binary_search(id) {
                    Arc::make_mut(&mut self.members).remove(at);
                }
                self.tracks.remove(id);
                0
            }
            // What it has been sent up to here, it still gets.
            Effect::Close(id, _) => {
                let here = self.shared.len();
                let track = self.track(*id);
                track.take_shared(here);
                track.shared_from = None;
                if let Ok(at) = self.members.binary_search(id) {
                    Arc::make_mut(&mut self.members).remove(at);
                }
                0
            }
            Effect::Send(Audience::All, message) => {
                encode(message, timestamp, &mut self.json, &mut self.shared);
                self.members.len()
            }
            Effect::Send(Audience::AllExcept(id), message) => {
                let frame = encode(message, timestamp, &mut self.json, &mut self.shared);
                let track = self.track(*id);
                if track.shared_from.is_some() {
                    track.take_shared(frame.start);
                    track.shared_from = Some(frame.end);
                }
                self.members.len().saturating_sub(1)
            }
            Effect::Send(Audience::One(id), message) => {
                let recipients = self.write_targeted(std::slice::from_ref(id), message, timestamp);
                match message {
                    // A list to one client is the one that it gets with its own join.
                    ServerMessage::UserList { .. } => self.track(*id).exclude_so_far(),
                    // Of the requests in one batch, only the first does not count: see `Output::uncounted`.
                    ServerMessage::History(answer) => {
                        let track = self.track(*id);
                        if answer.session.is_some() || track.uncounted == 0 {
                            track.exclude_so_far();
                        }
                    }
                    _ => {}
                }
                recipients
            }
            Effect::Send(Audience::Only(ids), message) => self.write_targeted(ids, message, timestamp),
            Effect::LeaveAway(..)
            | Effect::ListChanged(_)
            | Effect::OpenSession(..)
            | Effect::CloseSession(_)
            | Effect::Keep(_)
            | Effect::ReadOlder(..)
            | Effect::Decide(_)
            | Effect::Record(_)
            | Effect::PublishBan(_)
            | Effect::WithdrawBan(_)
            | Effect::PublishModerators(_)
            | Effect::Moderated(_) => 0,
        }
    }

    /// Drops what was not sent, and all members.
    #[cfg(feature = "cluster")]
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The number of members.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// How many bytes the batch holds so far.
    pub fn len(&self) -> usize {
        self.shared.len() + self.targeted.len()
    }

    /// Ends the batch and starts the next.
    pub fn finish(&mut self) -> Batch {
        Batch {
            members: self.members.clone(),
            shared: without_spare(&mut self.shared),
            targeted: without_spare(&mut self.targeted),
            tracks: std::mem::take(&mut self.tracks),
        }
    }

    fn write_targeted(&mut self, ids: &[ConnectionId], message: &ServerMessage, timestamp: &str) -> usize {
        let frame = encode(message, timestamp, &mut self.json, &mut self.targeted);
        let here = self.shared.len();
        for &id in ids {
            let track = self.track(id);
            if track.shared_from.is_some() {
                track.take_shared(here);
                track.shared_from = Some(here);
            }
            match track.parts.last_mut() {
                Some(Part::Targeted(last)) if last.end == frame.start => last.end = frame.end,
                _ => track.parts.push(Part::Targeted(frame.clone())),
            }
        }
        ids.len()
    }

    fn track(&mut self, id: ConnectionId) -> &mut Track {
        let members = &self.members;
        self.tracks.entry(id).or_insert_with(|| {
            let is_member = members.binary_search(&id).is_ok();
            Track { shared_from: is_member.then_some(0), ..Track::default() }
        })
    }
}

impl Track {
    fn exclude_so_far(&mut self) {
        self.uncounted = self.parts.iter().map(Part::len).sum();
    }

    /// Adds the shared string from `shared_from` to `end`.
    fn take_shared(&mut self, end: usize) {
        if let Some(start) = self.shared_from.filter(|&start| start < end) {
            self.parts.push(Part::Shared(start..end));
        }
    }
}

impl Part {
    fn len(&self) -> usize {
        let (Self::Shared(range) | Self::Targeted(range)) = self;
        range.len()
    }
}

/// Takes the bytes, in an allocation without spare capacity: a slow client's backlog may keep it.
fn without_spare(bytes: &mut Vec<u8>) -> Bytes {
    Bytes::from(std::mem::take(bytes).into_boxed_slice())
}

/// A finished batch: frames and their recipients.
pub struct Batch {
    members: Arc<Vec<ConnectionId>>,
    shared: Bytes,
    targeted: Bytes,
    tracks: ConnectionMap<Track>,
}

impl Batch {
    /// Every client that gets a part of the batch, once.
    pub fn recipients(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        let to_all = !self.shared.is_empty();
        let members = self.members.iter().filter(move |_| to_all);
        let others = self.tracks.keys().filter(move |id| !to_all || self.members.binary_search(id).is_err());
        members.chain(others).copied()
    }

    /// Replaces `output` with what one of the [`Self::recipients`] gets, as slices of the tape.
    pub fn output(&self, id: ConnectionId, output: &mut Output) {
        let Output { slices, uncounted } = output;
        slices.clear();
        let Some(track) = self.tracks.get(&id) else {
            *uncounted = 0;
            slices.push(slice(&self.shared, 0..self.shared.len()));
            return;
        };
        *uncounted = track.uncounted;
        slices.extend(track.parts.iter().map(|part| match part {
            Part::Shared(range) => slice(&self.shared, range.clone()),
            Part::Targeted(range) => slice(&self.targeted, range.clone()),
        }));
        if let Some(rest) = track.shared_from.filter(|&from| from < self.shared.len()) {
            slices.push(slice(&self.shared, rest..self.shared.len()));
        }
    }
}

fn slice(tape: &Bytes, range: Range<usize>) -> Slice {
    Slice { bytes: tape.slice(range), allocation: tape.len() }
}

/// Appends the message as a complete WebSocket frame (RFC 6455, section 5.2), and returns its range.
fn encode(
    message: &ServerMessage,
    timestamp: &str,
    json: &mut Vec<u8>,
    frames: &mut Vec<u8>,
) -> Range<usize> {
    let start = frames.len();
    let json = match message {
        ServerMessage::Kept(encoded) => &encoded[..],
        message => {
            json.clear();
            message.encode(timestamp, json);
            &json[..]
        }
    };
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    header.format(json.len() as u64, frames).expect("writing to a Vec cannot fail");
    frames.extend_from_slice(json);
    start..frames.len()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::chat::{HistoryAnswer, SessionSecret};
    use crate::transport::{Flush, Link, Stream};

    /// The contents of the messages that a client reads.
    fn texts(batch: &Batch, id: ConnectionId) -> Vec<String> {
        let bytes =
            output(batch, id).slices.iter().map(|slice| &slice.bytes[..]).collect::<Vec<_>>().concat();
        let mut socket = tungstenite::protocol::frame::FrameSocket::new(&bytes[..]);
        let mut texts = Vec::new();
        while let Some(frame) = socket.read(None).unwrap() {
            let json: serde_json::Value = serde_json::from_str(&frame.into_text().unwrap()).unwrap();
            texts.push(json["content"].as_str().unwrap().to_owned());
        }
        texts
    }

    fn output(batch: &Batch, id: ConnectionId) -> Output {
        let mut output = Output::default();
        batch.output(id, &mut output);
        output
    }

    fn enter(id: ConnectionId) -> Effect {
        Effect::Enter(id, "a name".into())
    }

    fn leave(id: ConnectionId) -> Effect {
        Effect::Leave(id, "a name".into())
    }

    fn send(audience: Audience, text: &str) -> Effect {
        Effect::Send(audience, ServerMessage::System { content: text.into() })
    }

    #[test]
    fn all_clients_get_messages_in_the_same_order() {
        use Audience::{All, AllExcept, One, Only};
        let [ann, bob, cid, guest] = [1, 2, 3, 4].map(ConnectionId);
        let mut tape = Tape::default();
        for id in [ann, bob] {
            tape.write(&enter(id), "");
        }
        tape.finish();
        for effect in [
            send(All, "a"),
            send(AllExcept(ann), "from ann"),
            send(One(guest), "join first"),
            send(Only(vec![bob, ann]), "psst"),
            enter(cid),
            send(One(cid), "the list"),
            send(All, "cid joined"),
            send(AllExcept(ann), "from ann again"),
            leave(bob),
            send(All, "bob left"),
        ] {
            tape.write(&effect, "");
        }
        let batch = tape.finish();
        assert_eq!(texts(&batch, ann), ["a", "psst", "cid joined", "bob left"]);
        assert_eq!(texts(&batch, cid), ["the list", "cid joined", "from ann again", "bob left"]);
        assert_eq!(texts(&batch, guest), ["join first"]);
        assert_eq!(batch.recipients().collect::<Vec<_>>(), [ann, cid, guest]);
        assert_eq!(tape.len(), 0);
    }

    #[test]
    fn a_client_that_is_removed_gets_what_was_sent_before() {
        use Audience::{All, AllExcept, One};
        let [ann, bob, guest] = [1, 2, 3].map(ConnectionId);
        let mut tape = Tape::default();
        for id in [ann, bob] {
            tape.write(&enter(id), "");
        }
        tape.finish();
        for effect in [
            send(AllExcept(bob), "from bob"),
            send(All, "bob is kicked"),
            send(One(bob), "the reason"),
            Effect::Close(bob, "spam".into()),
            send(All, "bob left"),
            send(One(guest), "banned"),
            Effect::Close(guest, String::new()),
        ] {
            tape.write(&effect, "");
        }
        let batch = tape.finish();
        assert_eq!(texts(&batch, bob), ["bob is kicked", "the reason"]);
        assert_eq!(texts(&batch, guest), ["banned"]);
        assert_eq!(texts(&batch, ann), ["from bob", "bob is kicked", "bob left"]);
        assert_eq!(batch.recipients().collect::<BTreeSet<_>>(), [ann, bob, guest].into());
        assert_eq!(tape.members(), 1);
    }

    /// A new member was once cut off by its own list, which was longer than SEND_QUEUE_BYTES.
    #[test]
    fn what_a_client_gets_up_to_its_first_list_does_not_count() {
        let [ann, bob] = [1, 2].map(ConnectionId);
        let list = || ServerMessage::UserList { content: Vec::new() };
        let mut tape = Tape::default();
        tape.write(&enter(ann), "");
        tape.finish();
        tape.write(&send(Audience::All, "before"), "");
        tape.write(&send(Audience::One(bob), "the name is in use"), "");
        tape.write(&enter(bob), "");
        tape.write(&Effect::Send(Audience::One(bob), list()), "");
        let counted = tape.len();
        tape.write(&send(Audience::One(bob), "the commands"), "");
        let targeted = tape.len() - counted;
        tape.write(&Effect::Send(Audience::Only(vec![ann]), list()), "");
        let shared = tape.shared.len();
        tape.write(&send(Audience::All, "bob joined"), "");
        let after = targeted + tape.shared.len() - shared;
        let batch = tape.finish();
        let output_of_bob = output(&batch, bob);
        assert_eq!(output_of_bob.len() - output_of_bob.uncounted, after);
        assert_eq!(output(&batch, ann).uncounted, 0, "an update of the list counts");
        tape.write(&send(Audience::One(bob), "later"), "");
        assert_eq!(output(&tape.finish(), bob).uncounted, 0);
    }

    #[test]
    fn one_history_answer_per_batch_does_not_count() {
        let ann = ConnectionId(1);
        let answer = |session| {
            let (messages, epoch) = (b"[]".to_vec(), "an epoch".into());
            let answer =
                HistoryAnswer { messages, id: 1, more: false, epoch, recovered: None, session, join: None };
            Effect::Send(Audience::One(ann), ServerMessage::History(answer.into()))
        };
        let mut tape = Tape::default();
        let list = ServerMessage::UserList { content: Vec::new() };
        for effect in [
            enter(ann),
            Effect::Send(Audience::One(ann), list),
            answer(Some(SessionSecret::new([0; SessionSecret::BYTES]).digest())),
        ] {
            tape.write(&effect, "");
        }
        let joined = tape.len();
        tape.write(&answer(None), "");
        assert_eq!(output(&tape.finish(), ann).uncounted, joined);
        tape.write(&answer(None), "");
        let first = tape.len();
        tape.write(&answer(None), "");
        assert_eq!(output(&tape.finish(), ann).uncounted, first);
    }

    /// A slow client may keep an allocation, and is charged only for the bytes of its tape.
    #[test]
    fn a_tape_keeps_no_spare_memory() {
        let mut tape = Tape::default();
        tape.write(&enter(ConnectionId(1)), "");
        for number in 0..100 {
            tape.write(&send(Audience::All, &"x".repeat(number)), "");
            tape.write(&send(Audience::One(ConnectionId(1)), &"x".repeat(number)), "");
        }
        let Batch { shared, targeted, .. } = tape.finish();
        for bytes in [shared, targeted] {
            let length = bytes.len();
            assert_eq!(Vec::from(bytes).capacity(), length);
        }
    }

    /// 100 stalled clients once kept 1 GB in memory, and were charged for 8 MB: each for its own part of each tape.
    #[test]
    fn a_stalled_client_keeps_no_tape_in_memory() {
        let [stalled, other] = [1, 2].map(ConnectionId);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let link = Link::new(Stream::plain(Arc::new(socket)), Vec::new(), 1024, usize::MAX);
        let mut tape = Tape::default();
        tape.write(&enter(other), "");
        let mut waiting = 0;
        // The system's buffers take the first ones.
        while waiting < 1_000_000 {
            let [short, long] = [5000, 50_000].map(|length| "x".repeat(length));
            tape.write(&send(Audience::One(stalled), &short), "");
            tape.write(&send(Audience::One(other), &long), "");
            let batch = tape.finish();
            if let Flush::Pending { bytes, .. } = link.send(&output(&batch, stalled), Instant::now()).unwrap()
            {
                waiting = bytes;
            }
            assert!(batch.targeted.is_unique(), "the link refers to the tape");
        }
    }

    fn effects() -> impl Strategy<Value = Vec<Effect>> {
        let ids = proptest::collection::btree_set((0..5_u64).prop_map(ConnectionId), 1..4);
        let step = (0..6, ids).prop_map(|(kind, ids)| (kind, ids.into_iter().collect::<Vec<_>>()));
        proptest::collection::vec(step, 0..60).prop_map(|steps| {
            // Every text is different, so that the order can be checked.
            let effect = |(at, (kind, ids)): (usize, (i32, Vec<ConnectionId>))| match kind {
                0 => enter(ids[0]),
                1 => leave(ids[0]),
                2 => send(Audience::All, &at.to_string()),
                3 => send(Audience::AllExcept(ids[0]), &at.to_string()),
                4 => send(Audience::One(ids[0]), &at.to_string()),
                _ => send(Audience::Only(ids), &at.to_string()),
            };
            steps.into_iter().enumerate().map(effect).collect()
        })
    }

    proptest! {
        /// Compares with a model that copies every message to each recipient, for any division into batches.
        #[test]
        fn the_tape_delivers_the_same_as_copies(batches in proptest::collection::vec(effects(), 1..4)) {
            let mut tape = Tape::default();
            let mut members = BTreeSet::new();
            for effects in batches {
                let mut model: BTreeMap<ConnectionId, Vec<String>> = BTreeMap::new();
                for effect in effects {
                    // The room sends each of these once per member.
                    match &effect {
                        Effect::Enter(id, _) if !members.insert(*id) => continue,
                        Effect::Leave(id, _) if !members.remove(id) => continue,
                        Effect::Leave(id, _) => { model.remove(id); }
                        Effect::Send(audience, ServerMessage::System { content }) => {
                            let recipients: Vec<ConnectionId> = match audience {
                                Audience::All => members.iter().copied().collect(),
                                Audience::AllExcept(but) => members.iter().copied().filter(|id| id != but).collect(),
                                Audience::One(id) => vec![*id],
                                Audience::Only(ids) => ids.clone(),
                            };
                            recipients.into_iter().for_each(|id| model.entry(id).or_default().push(content.clone()));
                        }
                        _ => {}
                    }
                    tape.write(&effect, "");
                }
                let batch = tape.finish();
                let recipients: Vec<ConnectionId> = batch.recipients().collect();
                let unique: BTreeSet<ConnectionId> = recipients.iter().copied().collect();
                prop_assert_eq!(unique.len(), recipients.len(), "no recipient is listed twice");
                for id in (0..5).map(ConnectionId) {
                    let got = if unique.contains(&id) { texts(&batch, id) } else { Vec::new() };
                    prop_assert_eq!(got, model.remove(&id).unwrap_or_default());
                }
            }
        }
    }
}
