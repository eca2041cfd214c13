//! The wall clock, for timestamps on the wire and in the log. Deadlines use `Instant` instead.

use time::{OffsetDateTime, UtcOffset};

/// A reading of the wall clock.
pub struct Reading(OffsetDateTime);

impl Reading {
    pub fn now() -> Self {
        Self(OffsetDateTime::now_utc())
    }

    /// An earlier reading. A number that is no time counts as 1970.
    pub fn from_unix_millis(millis: u64) -> Self {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
        Self(time.unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }

    /// Milliseconds since 1970; 0 before that.
    pub fn unix_millis(&self) -> u64 {
        (self.0.unix_timestamp_nanos() / 1_000_000).try_into().unwrap_or(0)
    }

    /// RFC 3339 in UTC, with milliseconds.
    pub fn utc(&self) -> String {
        let (year, month, day) = self.0.to_calendar_date();
        let (hour, minute, second, millis) = self.0.to_hms_milli();
        let month = u8::from(month);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }

    /// The server's local time as `HH:MM:SS`. It follows changes to and from summer time. UTC if the system does not
    /// know its time zone.
    pub fn local_time(&self) -> String {
        let offset = UtcOffset::local_offset_at(self.0).unwrap_or(UtcOffset::UTC);
        let (hour, minute, second) = self.0.to_offset(offset).to_hms();
        format!("{hour:02}:{minute:02}:{second:02}")
    }
}

/// The current local time: see [`Reading::local_time`].
pub fn local_time() -> String {
    Reading::now().local_time()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_is_written_as_in_rfc_3339() {
        let reading = Reading(OffsetDateTime::from_unix_timestamp_nanos(1_709_208_001_020_999_999).unwrap());
        assert_eq!(reading.utc(), "2024-02-29T12:00:01.020Z");
        assert_eq!(reading.unix_millis(), 1_709_208_001_020);
        assert_eq!(Reading::from_unix_millis(1_709_208_001_020).utc(), reading.utc());
        assert_eq!(Reading::from_unix_millis(u64::MAX).unix_millis(), 0);
    }
}
