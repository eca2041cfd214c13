//! Durations, as moderators type and read them.

/// The longest duration, in seconds: ten years.
pub const MAX_SECONDS: u64 = 10 * 365 * DAY;
const DAY: u64 = 24 * 60 * 60;
/// The units, with their lengths in seconds, the longest first.
const UNITS: [(char, u64); 5] = [('w', 7 * DAY), ('d', DAY), ('h', 60 * 60), ('m', 60), ('s', 1)];

/// A number of whole seconds, minutes, hours, days or weeks, such as `2h`, in seconds. `None`: the word does not begin
/// with a digit.
///
/// # Errors
/// It has another form, or is zero or longer than [`MAX_SECONDS`]. A message for the user. Otherwise, `2hours` would be
/// the reason of a ban that never ends.
pub fn parse(word: &str) -> Option<Result<u64, String>> {
    word.starts_with(|first: char| first.is_ascii_digit()).then(|| {
        seconds(word).ok_or_else(|| {
            "A duration is at least 1s and at most 10 years, as in 30m, 12h, 7d or 4w. A reason must not begin \
             with a digit."
                .into()
        })
    })
}

fn seconds(word: &str) -> Option<u64> {
    let (_, unit_seconds) = UNITS.into_iter().find(|(unit, _)| word.ends_with(*unit))?;
    let number = &word[..word.len() - 1];
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    // A number that is too large for the type is too long as well.
    let seconds = number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(unit_seconds)?;
    (1..=MAX_SECONDS).contains(&seconds).then_some(seconds)
}

/// As in `2 h`, in the longest unit that needs no fraction.
pub fn shown(seconds: u64) -> String {
    let is_whole = |(_, unit): &(char, u64)| seconds.is_multiple_of(*unit);
    let (unit, length) = UNITS.into_iter().find(is_whole).unwrap_or(('s', 1));
    format!("{} {unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        for (word, seconds) in [
            ("1s", 1),
            ("90s", 90),
            ("30m", 1800),
            ("12h", 43_200),
            ("7d", 604_800),
            ("4w", 2_419_200),
            ("007s", 7),
        ] {
            assert_eq!(parse(word), Some(Ok(seconds)), "{word}");
        }
        for word in ["", "s", "-7s", "+7s", "h7", "spam", "７s"] {
            assert_eq!(parse(word), None, "{word}");
        }
        for word in ["7", "7x", "7S", "7.5h", "7 s", "7ｓ", "1h30m", "2hours"] {
            assert!(parse(word).is_some_and(|duration| duration.is_err()), "{word}");
        }
    }

    #[test]
    fn a_duration_is_at_most_ten_years() {
        assert_eq!(parse("3650d"), Some(Ok(MAX_SECONDS)));
        for word in
            ["0s", "000w", "3651d", "522w", &format!("{}s", MAX_SECONDS + 1), "99999999999999999999999w"]
        {
            assert!(matches!(parse(word), Some(Err(_))), "{word}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_typed(seconds in 1..=MAX_SECONDS) {
            let typed = shown(seconds).replace(' ', "");
            prop_assert_eq!(parse(&typed), Some(Ok(seconds)), "{}", typed);
        }

        #[test]
        fn no_word_causes_a_panic(word in "\\PC{0,30}|[0-9]{0,30}[a-zß]") {
            if let Some(Ok(seconds)) = parse(&word) {
                prop_assert!((1..=MAX_SECONDS).contains(&seconds));
            }
        }
    }
}
