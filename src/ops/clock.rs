//! The wall clock, for timestamps on the wire and in the log. Deadlines use `Instant` instead.

use time::{OffsetDateTime, UtcOffset};

/// The server's local time as `HH:MM:SS`. It follows changes to and from summer time. UTC if the system does not know
/// its time zone.
pub fn local_time() -> String {
    let utc = OffsetDateTime::now_utc();
    let offset = UtcOffset::local_offset_at(utc).unwrap_or(UtcOffset::UTC);
    let (hour, minute, second) = utc.to_offset(offset).to_hms();
    format!("{hour:02}:{minute:02}:{second:02}")
}
