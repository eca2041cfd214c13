//! The wall clock, as the wire and the log show it. Rules never ask it: they are handed an `Instant`.

use time::{OffsetDateTime, UtcOffset};

/// The server's local time as `HH:MM:SS`, right across changes to and from summer time; UTC where the
/// system does not know its zone.
pub fn local_time() -> String {
    let utc = OffsetDateTime::now_utc();
    let offset = UtcOffset::local_offset_at(utc).unwrap_or(UtcOffset::UTC);
    let (hour, minute, second) = utc.to_offset(offset).to_hms();
    format!("{hour:02}:{minute:02}:{second:02}")
}
