//! The pure parts of the server, each in a loop: no sockets, no threads. `cargo bench --bench parts` prints the time
//! per call. Without the `--bench` that cargo passes, as in `cargo test`, each runs once. See docs/benchmarks.md.

use std::cell::RefCell;
use std::env;

use divan::{Bencher, black_box};
use tinychat::parts::{Chat, EPOCH, Message, parse, session};

const PUBLIC: &str = r#"{"type":"public","content":"The quick brown fox jumps over the lazy dog"}"#;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // Other arguments are meant for tests, as in `cargo test NAME`.
    if arguments.is_empty() || arguments.iter().any(|argument| argument == "--bench") {
        divan::main();
    }
}

#[divan::bench]
fn parse_public() -> Message {
    parse(black_box(PUBLIC))
}

/// From the parsed message to each recipient's slices of the tape.
#[divan::bench(args = [10, 1000])]
fn public_to_room(bencher: Bencher, members: usize) {
    let (mut chat, connections) = room(members);
    let input = || parse(PUBLIC);
    bencher.with_inputs(input).bench_local_values(|message| {
        let bytes = chat.receive(connections[0], message);
        assert!(bytes > PUBLIC.len() * (members - 1));
    });
}

/// A list of this many members, to as many of them as a round may have.
#[divan::bench(args = [1000])]
fn user_list(bencher: Bencher, members: usize) {
    let (chat, mut connections) = room(members);
    let chat = RefCell::new(chat);
    let change = || {
        let mut chat = chat.borrow_mut();
        let last = connections.pop().expect("there are members");
        chat.leave(last);
        connections.push(join(&mut chat, members - 1));
        chat.wait_for_lists();
    };
    bencher.with_inputs(change).bench_local_values(|()| {
        let bytes = chat.borrow_mut().send_lists();
        assert!(bytes > 40 * members);
    });
}

/// The answer to a join that resumes, with this many messages.
#[divan::bench(args = [200])]
fn resume(bencher: Bencher, messages: usize) {
    let (mut chat, connections) = room(10);
    let first = connections[0];
    let since = chat.last_id();
    for _ in 0..messages {
        chat.receive(connections[1], parse(PUBLIC));
    }
    let (name, session) = (name(0), session(first));
    let resuming = format!(
        r#"{{"type":"join","username":"{name}","epoch":"{EPOCH}","since":{since},"session":"{session}"}}"#
    );
    let (chat, mut current) = (RefCell::new(chat), first);
    let reconnect = || {
        let mut chat = chat.borrow_mut();
        chat.lose(current);
        current = chat.connect();
        (current, parse(&resuming))
    };
    bencher.with_inputs(reconnect).bench_local_values(|(connection, message)| {
        let bytes = chat.borrow_mut().receive(connection, message);
        assert!(bytes > PUBLIC.len() * messages);
    });
}

/// A room with this many members, and their connections.
fn room(members: usize) -> (Chat, Vec<u64>) {
    let mut chat = Chat::default();
    let connections = (0..members).map(|number| join(&mut chat, number)).collect();
    (chat, connections)
}

fn join(chat: &mut Chat, number: usize) -> u64 {
    let connection = chat.connect();
    let message = format!(r#"{{"type":"join","username":"{}","history":0}}"#, name(number));
    chat.receive(connection, parse(&message));
    connection
}

fn name(number: usize) -> String {
    format!("member{number:05}")
}
