//! Kills: the server is killed at random moments while a client sends messages, and starts again with the same store.
//!
//! TINYCHAT_KILLS sets the number of kills. If it is set, the test also asserts that no message is lost that was sent
//! more than 200 ms before a kill. A busy machine could fail to keep that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, id};
use crate::support::program::{Folder, Process};
use crate::support::random::Random;

const DEFAULT_KILLS: usize = 6;
/// The most messages before a kill.
const MAX_MESSAGES: usize = 3000;
/// How many messages may be without their `ack`.
const WINDOW: usize = 20;
/// The greatest age of a message that is lost when the process is killed (docs/operations.md, "What is safe").
const LOSS: Duration = Duration::from_millis(200);

#[test]
fn a_killed_server_loses_only_the_newest_messages() {
    let kills: Option<usize> = std::env::var("TINYCHAT_KILLS").ok().map(|text| text.parse().unwrap());
    let loss = kills.map_or(Duration::from_secs(60), |_| LOSS);
    let folder = Folder::new();
    let mut random = Random(1);
    let mut chat = Chat::default();
    for round in 0..kills.unwrap_or(DEFAULT_KILLS) {
        let server = start(&folder);
        let mut client = server.connect();
        chat.verify(&mut client, loss);
        chat.talk(server, client, round, random.below(MAX_MESSAGES));
    }
    let server = start(&folder);
    chat.verify(&mut server.connect(), loss);
    server.stop();
    let check = folder.tinychat(&["check"]).env("DATABASE_PATH", "chat.db").run();
    assert_eq!(check.status, Some(0), "{check:?}");
    println!("{} kills; the oldest message that was lost: {:?}", chat.kills, chat.worst);
}

fn start(folder: &Folder) -> Process {
    let settings = [
        ("PORT", "0"),
        ("DATABASE_PATH", "chat.db"),
        ("HISTORY_MESSAGES", "1000000"),
        ("MESSAGE_RATE", "0"),
        ("RESUME_SECONDS", "0"),
    ];
    folder.tinychat(&[]).envs(&settings).start()
}

/// What a client knows of the chat.
#[derive(Default)]
struct Chat {
    epoch: Option<Value>,
    /// The messages that were found after a start, by id: they must not be lost any more.
    found: BTreeMap<u64, String>,
    /// The messages that were acknowledged since then, and when.
    acknowledged: BTreeMap<u64, (String, Instant)>,
    killed: Option<Instant>,
    /// How many messages were sent before the last kill.
    sent: usize,
    round: usize,
    newest_id: u64,
    kills: usize,
    worst: Duration,
}

impl Chat {
    /// Sends up to `count` messages, and kills the server.
    fn talk(&mut self, server: Process, mut client: Client, round: usize, count: usize) {
        (self.round, self.sent) = (round, 0);
        let mut acknowledged = 0;
        while acknowledged < count {
            while self.sent < count && self.sent < acknowledged + WINDOW {
                client.public_with_txn_id(&format!("{round} {}", self.sent));
                self.sent += 1;
            }
            let ack = client.next_event();
            self.acknowledge(&ack);
            acknowledged += 1;
        }
        server.signal(Signal::KILL);
        self.killed = Some(Instant::now());
        self.kills += 1;
        server.wait();
    }

    fn acknowledge(&mut self, ack: &Value) {
        assert_eq!(ack["type"], "ack", "{ack}");
        assert!(id(ack) > self.newest_id, "{ack}: an id is assigned twice");
        self.newest_id = id(ack);
        let content = ack["txn_id"].as_str().unwrap().to_owned();
        self.acknowledged.insert(self.newest_id, (content, Instant::now()));
    }

    /// Compares the history with the messages that were sent.
    fn verify(&mut self, client: &mut Client, loss: Duration) {
        let mut page = client.join_asking("Ann", json!({"history": 200}));
        assert!(client.next_line().starts_with("system: Ann joined"));
        let epoch = self.epoch.get_or_insert_with(|| page["epoch"].clone());
        assert_eq!(page["epoch"], *epoch, "ids have not started over");
        assert!(id(&page) > self.newest_id, "{page}: an id is assigned twice");
        let known = self.found.last_key_value().map_or(0, |(&id, _)| id);
        let mut kept = BTreeMap::new();
        loop {
            let messages = page["messages"].as_array().unwrap();
            let oldest = messages.first().map_or(0, id);
            kept.extend(messages.iter().map(|message| (id(message), content(message))));
            if oldest <= known || page["more"] == false {
                break;
            }
            page = client.page(json!({"limit": 200, "before": oldest}));
        }
        let before: BTreeMap<u64, String> =
            kept.range(..=known).map(|(&id, content)| (id, content.clone())).collect();
        let first = before.first_key_value().map_or(0, |(&id, _)| id);
        let expected: BTreeMap<u64, String> =
            self.found.range(first..).map(|(&id, content)| (id, content.clone())).collect();
        assert_eq!(before, expected, "what an earlier start has found");
        let since = kept.split_off(&(known + 1));
        let contents: Vec<&String> = since.values().collect();
        let prefix: Vec<String> = (0..since.len()).map(|number| format!("{} {number}", self.round)).collect();
        assert_eq!(contents, prefix.iter().collect::<Vec<_>>(), "without gaps");
        for (at, (content, when)) in &self.acknowledged {
            match since.get(at) {
                Some(kept) => assert_eq!(kept, content),
                None => {
                    let age = self.killed.unwrap().saturating_duration_since(*when);
                    self.worst = self.worst.max(age);
                    assert!(age < loss, "{content} was said {age:?} before the kill, and is lost");
                }
            }
        }
        self.found.extend(since);
        self.acknowledged.clear();
    }
}

fn content(message: &Value) -> String {
    message["content"].as_str().unwrap().to_owned()
}
