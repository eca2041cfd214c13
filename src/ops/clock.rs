//! The wall clock, for timestamps on the wire and in the log. It may jump, so nothing waits for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// A clock that formats its readings.
#[derive(Default)]
pub struct Clock {
    texts: TimeTexts,
    /// The second since 1970 for which the offset was determined; `None`: nothing has been read.
    second: Option<u64>,
    offset_seconds: i32,
}

/// Formats times, most of them only once per second: formatting takes longer than handling a message.
#[derive(Default)]
pub struct TimeTexts {
    /// The second since 1970 and the offset of what follows; `None`: nothing has been formatted.
    of: Option<(u64, i32)>,
    local_time: String,
    /// Without the fraction of the second.
    utc: String,
}

/// A reading of the wall clock.
#[derive(Debug, PartialEq)]
pub struct Reading {
    /// Milliseconds since 1970; 0 before that.
    pub unix_millis: u64,
    /// How far the local time is ahead of UTC.
    pub offset_seconds: i32,
    /// See [`local_time`].
    pub local_time: String,
    /// RFC 3339 in UTC, with milliseconds.
    pub utc: String,
}

impl Clock {
    pub fn now(&mut self) -> Reading {
        self.at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn at(&mut self, since_1970: Duration) -> Reading {
        let unix_millis = since_1970.as_millis().try_into().unwrap_or(u64::MAX);
        let second = Some(since_1970.as_secs());
        if self.second != second {
            (self.second, self.offset_seconds) = (second, local_offset(time_at(unix_millis)).whole_seconds());
        }
        self.texts.at(unix_millis, self.offset_seconds)
    }
}

impl TimeTexts {
    /// The reading of a server's clock. `offset_seconds`: how far its local time is ahead of UTC.
    pub fn at(&mut self, unix_millis: u64, offset_seconds: i32) -> Reading {
        let (second, millis) = (unix_millis / 1000, unix_millis % 1000);
        if self.of != Some((second, offset_seconds)) {
            let now = time_at(unix_millis);
            let offset = UtcOffset::from_whole_seconds(offset_seconds).unwrap_or(UtcOffset::UTC);
            let (local_time, utc) = (local_time_at(now, offset), utc_seconds(now));
            *self = Self { of: Some((second, offset_seconds)), local_time, utc };
        }
        let utc = format!("{}.{millis:03}Z", self.utc);
        Reading { unix_millis, offset_seconds, local_time: self.local_time.clone(), utc }
    }
}

/// The wall clock, in milliseconds since 1970; 0 before that.
pub fn unix_millis() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.as_millis().try_into().unwrap_or(u64::MAX)
}

/// A time in milliseconds since 1970 as RFC 3339 in UTC, with milliseconds.
pub fn utc(unix_millis: u64) -> String {
    format!("{}.{:03}Z", utc_seconds(time_at(unix_millis)), unix_millis % 1000)
}

/// The same for text, to the second: `2026-11-28 12:00:00 UTC`.
pub fn readable_utc(unix_millis: u64) -> String {
    format!("{} UTC", utc_seconds(time_at(unix_millis)).replace('T', " "))
}

/// The server's local time as `HH:MM:SS`. It follows changes to and from summer time. UTC if the system does not know
/// its time zone.
pub fn local_time() -> String {
    let now = OffsetDateTime::now_utc();
    local_time_at(now, local_offset(now))
}

/// The year 9999 if the number is too large for a time.
fn time_at(unix_millis: u64) -> OffsetDateTime {
    let time = OffsetDateTime::from_unix_timestamp((unix_millis / 1000).cast_signed());
    time.unwrap_or(PrimitiveDateTime::MAX.assume_utc())
}

fn local_offset(now: OffsetDateTime) -> UtcOffset {
    UtcOffset::local_offset_at(now).unwrap_or(UtcOffset::UTC)
}

fn local_time_at(now: OffsetDateTime, offset: UtcOffset) -> String {
    let (hour, minute, second) = now.checked_to_offset(offset).unwrap_or(now).to_hms();
    format!("{hour:02}:{minute:02}:{second:02}")
}

fn utc_seconds(now: OffsetDateTime) -> String {
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second) = now.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_is_written_as_in_rfc_3339() {
        let mut clock = Clock::default();
        for (second, nanos, utc) in [
            (1_709_208_001, 20_999_999, "2024-02-29T12:00:01.020Z"),
            (1_709_208_001, 999_999_999, "2024-02-29T12:00:01.999Z"),
            (1_709_208_002, 0, "2024-02-29T12:00:02.000Z"),
        ] {
            let since_1970 = Duration::new(second, nanos);
            let reading = clock.at(since_1970);
            assert_eq!(reading.utc, utc);
            assert_eq!(u128::from(reading.unix_millis), since_1970.as_millis());
            assert_eq!(reading, Clock::default().at(since_1970));
            assert_eq!(super::utc(reading.unix_millis), utc);
        }
    }

    /// Several servers may be in different time zones. Kept messages have the local time of the author's server.
    #[test]
    fn local_times_follow_the_offset() {
        let mut texts = TimeTexts::default();
        let noon = 1_795_867_200_123;
        for (offset_seconds, expected) in [
            (0, "12:00:00"),
            (3600, "13:00:00"),
            (-5 * 3600 - 1800, "06:30:00"),
            (0, "12:00:00"),
            (i32::MAX, "12:00:00"),
        ] {
            let reading = texts.at(noon, offset_seconds);
            assert_eq!(reading.local_time, expected);
            assert_eq!(reading.utc, "2026-11-28T12:00:00.123Z");
        }
        // No time is too late or too early.
        for unix_millis in [0, u64::MAX] {
            for offset_seconds in [-86_399, 86_399] {
                assert_eq!(texts.at(unix_millis, offset_seconds).unix_millis, unix_millis);
            }
        }
    }

    #[test]
    fn utc_in_text_has_no_fraction() {
        assert_eq!(readable_utc(1_795_867_200_999), "2026-11-28 12:00:00 UTC");
        assert_eq!(readable_utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(readable_utc(u64::MAX), "9999-12-31 23:59:59 UTC");
    }
}
