//! Connections from one address that join, send as much as the server reads, and may repeat that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::Result;
use crate::support::child::Child;
use crate::support::connection::{Connection, Options};
use crate::{ATTACKER, room};

const READ_BYTES: usize = 64 * 1024;
/// The pause between two rounds through all connections.
const STEP: Duration = Duration::from_micros(500);

/// What one connection does after it has joined.
#[derive(Clone, Copy, PartialEq)]
pub enum Then {
    /// Sends its messages once, and stays connected.
    Stay,
    /// Sends its messages again and again.
    Repeat,
    /// Sends its messages once, disconnects, and connects again.
    Reconnect,
}

pub struct Attackers {
    slots: Vec<Slot>,
    /// A message, as a frame, and how many of them are sent at once.
    message: Vec<u8>,
    burst: usize,
    then: Then,
    buffer: Vec<u8>,
    connections: usize,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    half_closed: bool,
}

impl Attackers {
    pub fn new(connections: usize, message: Vec<u8>, burst: usize, then: Then) -> Self {
        let slots = (0..connections).map(|_| Slot::default()).collect();
        Self { slots, message, burst, then, buffer: vec![0; READ_BYTES], connections: 0 }
    }

    /// Attacks until it is over. Returns how many connections were opened.
    pub fn run(mut self, server: &Child, is_over: &AtomicBool) -> Result<usize> {
        while !is_over.load(Ordering::Relaxed) {
            self.step(server)?;
            thread::sleep(STEP);
        }
        Ok(self.connections)
    }

    /// Does what can be done without waiting.
    fn step(&mut self, server: &Child) -> Result<()> {
        for number in 0..self.slots.len() {
            if self.slots[number].connection.is_none() {
                self.slots[number] = Slot { connection: Some(self.connect(server)?), half_closed: false };
            }
            let slot = &mut self.slots[number];
            let Some(connection) = &mut slot.connection else { continue };
            let is_sent = connection.flush();
            let received = connection.receive(&mut self.buffer);
            connection.discard();
            match (is_sent, received, self.then) {
                (Ok(true), Ok(_), Then::Repeat) => {
                    (0..self.burst).for_each(|_| connection.queue(&self.message));
                }
                (Ok(true), Ok(_), Then::Reconnect) if !slot.half_closed => {
                    // The server reads all messages, and then sees the end.
                    connection.half_close();
                    slot.half_closed = true;
                }
                (Ok(_), Ok(_), _) => {}
                // The server has closed or refused it.
                _ => slot.connection = None,
            }
        }
        Ok(())
    }

    fn connect(&mut self, server: &Child) -> Result<Connection> {
        let options = Options { forwarded_for: Some(ATTACKER), ..Options::default() };
        let mut connection = Connection::open(server, options)?;
        connection.queue_text(&room::join(&format!("attacker{}", self.connections)));
        (0..self.burst).for_each(|_| connection.queue(&self.message));
        self.connections += 1;
        Ok(connection)
    }
}
