//! A transcript of entries, from simulations: what they did to a room when a format was defined, they do today.

use ring::digest::{Context, SHA256};

use super::*;

/// Of each simulation: the room at its start, its entries, and a digest of the states after each of them. Recorded with
/// `TINYCHAT_RECORD=1 cargo test --lib transcript -- --nocapture | sed -n 's/^> //p' >tests/formats/transcript-1.txt`.
const TRANSCRIPT: &str = include_str!("../../tests/formats/transcript-1.txt");
/// With most of what is rare.
const RECORDED_SEEDS: [u64; 4] = [135, 211, 242, 298];
/// A transcript never changes once its format is released.
const CHANGED: &str = "an entry does something else to the room: give the format a new number, and keep the older rules for the old one";

#[test]
fn entries_do_to_a_room_what_they_always_did() {
    if std::env::var_os("TINYCHAT_RECORD").is_some() {
        RECORDED_SEEDS.into_iter().for_each(record);
        return;
    }
    let mut digests = 0;
    let mut state: Option<(Room, Context)> = None;
    for line in TRANSCRIPT.lines() {
        match line.split_once(' ').unwrap() {
            ("room", snapshot) => {
                let snapshot = Snapshot::decode(snapshot.as_bytes()).unwrap();
                state = Some((Room::from_snapshot(snapshot).unwrap(), Context::new(&SHA256)));
            }
            ("entry", entry) => {
                let (room, states) = state.as_mut().unwrap();
                apply(room, &parsed(entry), node(1));
                states.update(&room.snapshot().encode(Format::NEWEST).unwrap());
            }
            ("states", digest) => {
                let (_, states) = state.take().unwrap();
                assert_eq!(hex(states), digest, "{CHANGED}");
                digests += 1;
            }
            (word, _) => panic!("{word}"),
        }
    }
    assert_eq!(digests, RECORDED_SEEDS.len());
}

/// Prints the transcript of a simulation.
fn record(seed: u64) {
    let world = simulated(seed);
    let encoded = |room: &Room| room.snapshot().encode(Format::NEWEST).unwrap();
    let mut room = room(world.history_messages, world.epoch, &world.base);
    println!("> room {}", String::from_utf8(encoded(&room)).unwrap());
    let mut states = Context::new(&SHA256);
    for (applied, _) in &world.record {
        let Applied { id, time, from, input } = applied;
        let submission = Submission { from: *from, offset_seconds: 0, input: input.clone() };
        // What concerns only one server is not in the log.
        let Ok(entry) = submission.encode(Format::NEWEST) else { continue };
        println!("> entry {id} {} {}", time.chat.0, String::from_utf8(entry).unwrap());
        apply(&mut room, applied, node(1));
        states.update(&encoded(&room));
    }
    println!("> states {}", hex(states));
}

fn parsed(entry: &str) -> Applied {
    let [id, millis, submission]: [&str; 3] = entry.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
    let Submission { from, input, .. } = Submission::decode(submission.as_bytes()).unwrap();
    let time = entry_time(Duration::from_millis(millis.parse().unwrap()));
    Applied { id: id.parse().unwrap(), time, from, input }
}

fn hex(digest: Context) -> String {
    digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
