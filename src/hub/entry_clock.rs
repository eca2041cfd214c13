//! The time of entries.

use std::time::Instant;

use crate::chat::{ChatTime, EntryTime};
use crate::ops::clock::{self, Clock, Reading};

/// Counts the chat's time from the wall clock at the start, and does not follow its jumps.
pub struct EntryClock {
    wall: Clock,
    start: Instant,
    chat_start: ChatTime,
}

impl Default for EntryClock {
    fn default() -> Self {
        Self { wall: Clock::default(), start: Instant::now(), chat_start: ChatTime(clock::unix_millis()) }
    }
}

/// A time as the hub has it, and as entries have it.
pub struct Now {
    pub instant: Instant,
    /// This server's, `HH:MM:SS`.
    pub local_time: String,
    pub entry: EntryTime,
}

impl EntryClock {
    pub fn now(&mut self) -> Now {
        let Reading { unix_millis, local_time, utc, .. } = self.wall.now();
        let instant = Instant::now();
        let chat = self.chat_time(instant);
        let entry = EntryTime { chat, unix_millis, timestamp: local_time.clone(), utc };
        Now { instant, local_time, entry }
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
