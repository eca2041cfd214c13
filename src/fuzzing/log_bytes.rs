//! What a server reads from the log of several servers: a snapshot, and the entries that follow it.

use std::time::Duration;

use crate::chat::{
    AwayLimits, ChatTime, Entry, EntryTime, Format, HistoryLimits, NodeNumber, Room, RoomSettings, Snapshot,
    Submission,
};

/// The id of the last entry before the first one, which seeds have left behind.
const LAST_ID: u64 = 1_000_000;
const START_MILLIS: u64 = 1_795_867_200_000;
/// From one entry to the next, so that time-outs and absences end.
const STEP_MILLIS: u64 = 9973;

/// The first line is a snapshot, and the others are entries. Those that cannot be decoded are skipped. If the first one
/// cannot be, the room is empty.
pub fn log_bytes(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let decoded = Snapshot::decode(lines.next().unwrap_or_default());
    let restored = decoded.and_then(Room::from_snapshot).ok();
    let is_empty = restored.is_none();
    if let Some(room) = &restored {
        check(room);
    }
    let mut room = restored.unwrap_or_else(empty);
    for (at, Submission { from, input, .. }) in (1..).zip(lines.filter_map(submission)) {
        let time = time(START_MILLIS + at * STEP_MILLIS);
        room.apply(Entry { id: LAST_ID + at, time: &time, from, input }, NodeNumber::LOCAL);
    }
    // The ids of a snapshot may be greater than those of the entries here.
    if is_empty {
        check(&room);
    }
}

/// Decodes an entry, which is then encoded as it was read.
fn submission(line: &[u8]) -> Option<Submission> {
    let submission = Submission::decode(line).ok()?;
    let encoded = submission.encode(Format::NEWEST).expect("it is from another server");
    let again = Submission::decode(&encoded).expect("it was just encoded");
    assert_eq!(again.encode(Format::NEWEST).expect("it is the same"), encoded);
    Some(submission)
}

/// Another server can continue from the room's state, and has the same.
fn check(room: &Room) {
    let state = room.snapshot().encode(Format::NEWEST).expect("all messages are text");
    let snapshot = Snapshot::decode(&state).expect("it was just encoded");
    let other = Room::from_snapshot(snapshot).expect("it is the state of a room");
    assert!(other.snapshot().encode(Format::NEWEST).expect("all messages are text") == state);
}

fn empty() -> Room {
    let settings = RoomSettings {
        history: HistoryLimits { messages: 100, age_millis: Some(24 * 60 * 60 * 1000) },
        away: AwayLimits { timeout: Duration::from_secs(30), members: 8, members_per_network: Some(2) },
        ..RoomSettings::default()
    };
    Room::new(settings, &time(START_MILLIS))
}

fn time(unix_millis: u64) -> EntryTime {
    let (timestamp, utc) = ("12:00:00".into(), "2026-11-28T12:00:00.000Z".into());
    EntryTime { chat: ChatTime(unix_millis), unix_millis, timestamp, utc }
}
