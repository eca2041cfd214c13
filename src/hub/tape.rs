//! A batch's messages, encoded once for everybody, and which parts of them each client gets.
//!
//! What everybody hears stands in one stretch of bytes, in the one order in which all hear it. What only some
//! get stands aside. A client's [`Track`] says where its way along the shared stretch begins, what it leaves
//! out (its own public lines) and what it takes in from aside. Most clients need none, so a message costs the
//! same whether ten hear it or ten thousand.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::chat::{Audience, ConnectionId, Effect, ServerMessage};

/// The tape of the batch under way.
#[derive(Default)]
pub struct Tape {
    /// Who hears what everybody hears.
    listeners: BTreeSet<ConnectionId>,
    shared: Vec<u8>,
    aside: Vec<u8>,
    tracks: HashMap<ConnectionId, Track>,
    /// Where a message is encoded before its length is known.
    json: Vec<u8>,
}

/// One client's way through a batch.
#[derive(Default)]
struct Track {
    pieces: Vec<Piece>,
    /// Where on the shared stretch the client listens from; `None` while it does not.
    listens_from: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Shared(Range<usize>),
    Aside(Range<usize>),
}

impl Tape {
    /// Writes what an effect makes clients hear, and says how many hear it.
    pub fn write(&mut self, effect: &Effect, timestamp: &str) -> usize {
        match effect {
            Effect::Enter(id) => {
                self.track(*id).listens_from = Some(self.shared.len());
                self.listeners.insert(*id);
                0
            }
            Effect::Leave(id) => {
                self.listeners.remove(id);
                self.tracks.remove(id);
                0
            }
            Effect::Tell(Audience::Everybody, message) => {
                encode(message, timestamp, &mut self.json, &mut self.shared);
                self.listeners.len()
            }
            Effect::Tell(Audience::EverybodyBut(id), message) => {
                let frame = encode(message, timestamp, &mut self.json, &mut self.shared);
                let track = self.track(*id);
                if track.listens_from.is_some() {
                    track.close(frame.start);
                    track.listens_from = Some(frame.end);
                }
                self.listeners.len().saturating_sub(1)
            }
            Effect::Tell(Audience::One(id), message) => {
                self.tell_aside(std::slice::from_ref(id), message, timestamp)
            }
            Effect::Tell(Audience::These(ids), message) => self.tell_aside(ids, message, timestamp),
            Effect::WrongPassword(_) => 0,
        }
    }

    /// How many hear what everybody hears.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// The bytes written so far, which bound a batch.
    pub fn len(&self) -> usize {
        self.shared.len() + self.aside.len()
    }

    /// Ends the batch, and begins the next.
    pub fn finish(&mut self) -> Batch {
        Batch {
            shared: Bytes::from(std::mem::take(&mut self.shared)),
            aside: Bytes::from(std::mem::take(&mut self.aside)),
            tracks: std::mem::take(&mut self.tracks),
        }
    }

    /// Who gets something from a finished batch, if nothing has been written since.
    pub fn recipients<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = ConnectionId> + 'a {
        let is_shared = !batch.shared.is_empty();
        let listeners = self.listeners.iter().filter(move |_| is_shared);
        let others = batch.tracks.keys().filter(move |id| !is_shared || !self.listeners.contains(id));
        listeners.chain(others).copied()
    }

    fn tell_aside(&mut self, ids: &[ConnectionId], message: &ServerMessage, timestamp: &str) -> usize {
        let frame = encode(message, timestamp, &mut self.json, &mut self.aside);
        let here = self.shared.len();
        for &id in ids {
            let track = self.track(id);
            if track.listens_from.is_some() {
                track.close(here);
                track.listens_from = Some(here);
            }
            match track.pieces.last_mut() {
                Some(Piece::Aside(last)) if last.end == frame.start => last.end = frame.end,
                _ => track.pieces.push(Piece::Aside(frame.clone())),
            }
        }
        ids.len()
    }

    fn track(&mut self, id: ConnectionId) -> &mut Track {
        let listens_from = self.listeners.contains(&id).then_some(0);
        self.tracks.entry(id).or_insert(Track { pieces: Vec::new(), listens_from })
    }
}

impl Track {
    /// Takes what was heard up to here.
    fn close(&mut self, here: usize) {
        match self.listens_from {
            Some(from) if from < here => self.pieces.push(Piece::Shared(from..here)),
            _ => {}
        }
    }
}

/// A finished batch.
pub struct Batch {
    shared: Bytes,
    aside: Bytes,
    tracks: HashMap<ConnectionId, Track>,
}

impl Batch {
    /// What one of the [`Tape::recipients`] gets, as slices of the tape.
    pub fn slices(&self, id: ConnectionId, slices: &mut Vec<Bytes>) {
        slices.clear();
        let Some(track) = self.tracks.get(&id) else {
            slices.push(self.shared.clone());
            return;
        };
        slices.extend(track.pieces.iter().map(|piece| match piece {
            Piece::Shared(range) => self.shared.slice(range.clone()),
            Piece::Aside(range) => self.aside.slice(range.clone()),
        }));
        if let Some(rest) = track.listens_from.filter(|&from| from < self.shared.len()) {
            slices.push(self.shared.slice(rest..));
        }
    }
}

/// Appends the message as a finished WebSocket frame (RFC 6455, section 5.2), and says where it stands.
fn encode(
    message: &ServerMessage,
    timestamp: &str,
    json: &mut Vec<u8>,
    frames: &mut Vec<u8>,
) -> Range<usize> {
    let start = frames.len();
    json.clear();
    message.encode(timestamp, json);
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    header.format(json.len() as u64, frames).expect("a Vec takes whatever is written to it");
    frames.extend_from_slice(json);
    start..frames.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What a client reads: the texts of the frames in its slices.
    fn texts(batch: &Batch, id: ConnectionId) -> Vec<String> {
        let mut slices = Vec::new();
        batch.slices(id, &mut slices);
        let bytes = slices.concat();
        let mut socket = tungstenite::protocol::frame::FrameSocket::new(&bytes[..]);
        let mut texts = Vec::new();
        while let Some(frame) = socket.read(None).unwrap() {
            let json: serde_json::Value = serde_json::from_str(&frame.into_text().unwrap()).unwrap();
            texts.push(json["content"].as_str().unwrap().to_owned());
        }
        texts
    }

    fn tell(audience: Audience, text: &str) -> Effect {
        Effect::Tell(audience, ServerMessage::System { content: text.into() })
    }

    #[test]
    fn each_gets_its_own_in_the_order_of_all() {
        use Audience::{Everybody, EverybodyBut, One, These};
        let [ann, bob, cid, guest] = [1, 2, 3, 4].map(ConnectionId);
        let mut tape = Tape::default();
        for id in [ann, bob] {
            tape.write(&Effect::Enter(id), "");
        }
        tape.finish();
        for effect in [
            tell(Everybody, "a"),
            tell(EverybodyBut(ann), "from ann"),
            tell(One(guest), "join first"),
            tell(These(vec![bob, ann]), "psst"),
            Effect::Enter(cid),
            tell(One(cid), "the list"),
            tell(Everybody, "cid joined"),
            tell(EverybodyBut(ann), "from ann again"),
            Effect::Leave(bob),
            tell(Everybody, "bob left"),
        ] {
            tape.write(&effect, "");
        }
        let batch = tape.finish();
        assert_eq!(texts(&batch, ann), ["a", "psst", "cid joined", "bob left"]);
        assert_eq!(texts(&batch, cid), ["the list", "cid joined", "from ann again", "bob left"]);
        assert_eq!(texts(&batch, guest), ["join first"]);
        assert_eq!(tape.recipients(&batch).collect::<Vec<_>>(), [ann, cid, guest]);
        assert_eq!(tape.len(), 0);
    }

    fn effects() -> impl Strategy<Value = Vec<Effect>> {
        let ids = proptest::collection::btree_set((0..5_u64).prop_map(ConnectionId), 1..4);
        let step = (0..6, ids).prop_map(|(kind, ids)| (kind, ids.into_iter().collect::<Vec<_>>()));
        proptest::collection::vec(step, 0..60).prop_map(|steps| {
            // Every text is another, so that order shows.
            let effect = |(at, (kind, ids)): (usize, (i32, Vec<ConnectionId>))| match kind {
                0 => Effect::Enter(ids[0]),
                1 => Effect::Leave(ids[0]),
                2 => tell(Audience::Everybody, &at.to_string()),
                3 => tell(Audience::EverybodyBut(ids[0]), &at.to_string()),
                4 => tell(Audience::One(ids[0]), &at.to_string()),
                _ => tell(Audience::These(ids), &at.to_string()),
            };
            steps.into_iter().enumerate().map(effect).collect()
        })
    }

    proptest! {
        /// Against a model that copies every message to each who hears it, cut into batches anywhere.
        #[test]
        fn the_tape_delivers_what_copies_would(batches in proptest::collection::vec(effects(), 1..4)) {
            let mut tape = Tape::default();
            let mut members = BTreeSet::new();
            for effects in batches {
                let mut model: BTreeMap<ConnectionId, Vec<String>> = BTreeMap::new();
                for effect in effects {
                    // The room says "enter" and "leave" once each.
                    match &effect {
                        Effect::Enter(id) if !members.insert(*id) => continue,
                        Effect::Leave(id) if !members.remove(id) => continue,
                        Effect::Leave(id) => { model.remove(id); }
                        Effect::Tell(audience, ServerMessage::System { content }) => {
                            let hears: Vec<ConnectionId> = match audience {
                                Audience::Everybody => members.iter().copied().collect(),
                                Audience::EverybodyBut(but) => members.iter().copied().filter(|id| id != but).collect(),
                                Audience::One(id) => vec![*id],
                                Audience::These(these) => these.clone(),
                            };
                            hears.into_iter().for_each(|id| model.entry(id).or_default().push(content.clone()));
                        }
                        _ => {}
                    }
                    tape.write(&effect, "");
                }
                let batch = tape.finish();
                let recipients: Vec<ConnectionId> = tape.recipients(&batch).collect();
                let gets: BTreeSet<ConnectionId> = recipients.iter().copied().collect();
                prop_assert_eq!(gets.len(), recipients.len(), "nobody gets it twice");
                for id in (0..5).map(ConnectionId) {
                    let got = if gets.contains(&id) { texts(&batch, id) } else { Vec::new() };
                    prop_assert_eq!(got, model.remove(&id).unwrap_or_default());
                }
            }
        }
    }
}
