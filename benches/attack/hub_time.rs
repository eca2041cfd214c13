//! The processor time of the hub thread for messages that are designed to be expensive.

use std::time::{Duration, Instant};

use crate::Bench;
use crate::room::{Room, is_type};
use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::Options;
use crate::support::frames::masked;

/// In microseconds.
const MAX_EACH: f64 = 20.0;
const SENDERS: usize = 4;
/// Members, so that a name is looked up among others.
const MEMBERS: usize = 50;
/// The expansion of one of these under NFKC is 18 characters long.
const LIGATURE: &str = "\u{FDFA}";
const TIMEOUT: Duration = Duration::from_secs(60);

pub fn run(bench: &mut Bench) -> Result<()> {
    let count = bench.size.messages;
    println!("hub: time of the hub thread for each of {count} hostile messages");
    // Rates would only make the attack slower.
    let server = bench.server(&[("MESSAGE_RATE", "0")])?;
    let names: Vec<String> = (0..MEMBERS).map(|number| format!("member{number}")).collect();
    let mut room = Room::join(&server, &names, Options::default())?;
    room.drain(Duration::from_millis(300))?;
    let words = |word: &str, count: usize| vec![word; count].join(" ");
    let command = |content: &str| {
        let content = content.replace('"', "\\\"");
        format!(r#"{{"type":"command","content":"{content}"}}"#)
    };
    for (what, message) in [
        ("965 bytes of /whisper, ASCII", command(&format!("/whisper {}", words(&"x".repeat(57), 16)))),
        ("965 bytes of /whisper, U+FDFA", command(&format!("/whisper {}", words(&LIGATURE.repeat(19), 16)))),
        ("16 KiB of /whisper, U+FDFA", command(&format!("/whisper {}", words(&LIGATURE.repeat(300), 17)))),
        ("16 KiB of /whisper, U+FDFA, short words", command(&format!("/whisper {}", words(LIGATURE, 4000)))),
        (
            "16 KiB of /whisper, U+FDFA in quotes",
            command(&format!("/whisper \"{}\" x", LIGATURE.repeat(5300))),
        ),
        (
            "/whisper, U+FDFA in words of five",
            command(&format!("/whisper {}", words(&LIGATURE.repeat(5), 16))),
        ),
        (
            "/whisper, U+2031 with a long skeleton",
            command(&format!("/whisper {} {}", "\u{2031}".repeat(63), words("\u{2031}", 16))),
        ),
        ("16 KiB of /whisper, spaces", command(&format!("/whisper x{}x", " ".repeat(16_000)))),
        ("private with a long name", private(&LIGATURE.repeat(5300))),
    ] {
        let spent = hub_time(&server, &mut room, &masked(&message), count)?;
        bench.at_most(what, spent.as_secs_f64() * 1e6 / count as f64, MAX_EACH, "µs");
    }
    Ok(())
}

fn private(to: &str) -> String {
    format!(r#"{{"type":"private","to":"{to}","content":"x"}}"#)
}

/// The time until each of these messages has been answered.
fn hub_time(server: &Child, room: &mut Room, message: &[u8], count: usize) -> Result<Duration> {
    let before = server.thread_time("hub")?;
    let (mut sent, mut answered) = (0, 0);
    let deadline = Instant::now() + TIMEOUT;
    while answered < count {
        for number in 0..SENDERS {
            if sent < count && room.member(number).flush()? {
                let messages = (count - sent).min(16);
                (0..messages).for_each(|_| room.member(number).queue(message));
                sent += messages;
            }
        }
        room.receive(Duration::from_millis(1), |_, message| {
            answered += usize::from(is_type(message, "error"))
        })?;
        if Instant::now() > deadline {
            return Err(format!("{answered} of {count} messages were answered in time").into());
        }
    }
    Ok(server.thread_time("hub")? - before)
}
