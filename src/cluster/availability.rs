//! When users are told that the engine is unavailable.

use std::time::{Duration, Instant};

/// Whether the engine answers.
pub struct Availability {
    patience: Duration,
    is_unavailable: bool,
}

/// What users are told.
#[derive(Debug, PartialEq)]
pub enum Change {
    Unavailable,
    Available,
}

impl Availability {
    pub fn new(patience: Duration) -> Self {
        Self { patience, is_unavailable: false }
    }

    /// `since`: when the oldest call was made that has no answer; `None`: there is none.
    pub fn update(&mut self, since: Option<Instant>, now: Instant) -> Option<Change> {
        match since {
            Some(since) if !self.is_unavailable && now.saturating_duration_since(since) >= self.patience => {
                self.is_unavailable = true;
                Some(Change::Unavailable)
            }
            None if self.is_unavailable => {
                self.is_unavailable = false;
                Some(Change::Available)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_told_once_that_it_is_away_and_once_that_it_is_back() {
        let patience = Duration::from_secs(2);
        let (mut availability, start) = (Availability::new(patience), Instant::now());
        assert_eq!(availability.update(Some(start), start + patience / 2), None);
        assert_eq!(availability.update(None, start + patience / 2), None);
        assert_eq!(availability.update(Some(start), start + patience), Some(Change::Unavailable));
        assert_eq!(availability.update(Some(start), start + 2 * patience), None);
        // The next call has just been made.
        assert_eq!(availability.update(Some(start + 2 * patience), start + 2 * patience), None);
        assert_eq!(availability.update(None, start + 3 * patience), Some(Change::Available));
        assert_eq!(availability.update(None, start + 3 * patience), None);
    }
}
