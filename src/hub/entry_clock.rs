//! The time of entries.

use std::time::Instant;

use crate::chat::{ChatTime, EntryTime};
use crate::ops::clock::{self, Clock, Reading};

/// Counts the chat's time from the wall clock at the start, and does not follow its jumps.
pub struct EntryClock {
    wall: Clock,
    #[cfg(feature = "cluster")]
    shared: clock::TimeTexts,
    start: Instant,
    chat_start: ChatTime,
}

impl Default for EntryClock {
    fn default() -> Self {
        Self {
            wall: Clock::default(),
            #[cfg(feature = "cluster")]
            shared: clock::TimeTexts::default(),
            start: Instant::now(),
            chat_start: ChatTime(clock::unix_millis()),
        }
    }
}

/// A time as the hub has it, and as entries have it.
pub struct Now {
    pub instant: Instant,
    /// How far this server's local time is ahead of UTC.
    pub offset_seconds: i32,
    /// This server's, `HH:MM:SS`.
    pub local_time: String,
    pub entry: EntryTime,
}

/// The time of an entry before the first one.
pub fn entry_time() -> EntryTime {
    EntryClock::default().now().entry
}

impl EntryClock {
    pub fn now(&mut self) -> Now {
        let Reading { unix_millis, offset_seconds, local_time, utc } = self.wall.now();
        let instant = Instant::now();
        let chat = self.chat_time(instant);
        let entry = EntryTime { chat, unix_millis, timestamp: local_time.clone(), utc };
        Now { instant, offset_seconds, local_time, entry }
    }

    /// The time of an entry that several servers apply. `offset_seconds`: how far the local time of the server that it
    /// comes from is ahead of UTC.
    #[cfg(feature = "cluster")]
    pub fn shared(&mut self, now: &Now, time: ChatTime, offset_seconds: i32) -> Now {
        let Reading { unix_millis, local_time, utc, .. } = self.shared.at(time.0, offset_seconds);
        let entry = EntryTime { chat: time, unix_millis, timestamp: local_time, utc };
        Now { entry, local_time: now.local_time.clone(), ..*now }
    }

    /// When an entry has this time or a later one.
    pub fn instant(&self, time: ChatTime) -> Instant {
        self.start + time.saturating_since(self.chat_start)
    }

    fn chat_time(&self, now: Instant) -> ChatTime {
        self.chat_start + now.saturating_duration_since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Otherwise the hub would wake up too early, again and again.
    #[test]
    fn an_entry_at_a_deadline_is_not_before_it() {
        let clock = EntryClock::default();
        for millis in [0, 1, 999, 30_000, 365 * 24 * 60 * 60 * 1000] {
            let deadline = clock.chat_start + Duration::from_millis(millis);
            let instant = clock.instant(deadline);
            assert_eq!(clock.chat_time(instant), deadline);
            assert_eq!(clock.chat_time(instant + Duration::from_nanos(999_999)), deadline);
        }
    }
}
