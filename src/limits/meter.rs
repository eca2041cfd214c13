//! What reading from a client costs it, in messages of 1 KiB (`MESSAGE_RATE`).
//!
//! A message counts once for each KiB or part of a KiB. What does not belong to a complete message is counted by
//! its bytes: fragments, TLS records without content, key updates.

/// What one message of the rate stands for, in bytes.
const UNIT_BYTES: usize = 1024;

#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes that were read and are not covered by a charge.
    uncharged: usize,
    /// Units charged for an incomplete message, or for bytes that belong to none.
    prepaid: f64,
}

impl Meter {
    /// Bytes were read from the socket.
    pub fn read(&mut self, bytes: usize) {
        self.uncharged += bytes;
    }

    /// What a complete message or control frame of this length costs beyond what is prepaid.
    pub fn complete(&mut self, length: usize) -> f64 {
        let units = length.div_ceil(UNIT_BYTES).max(1);
        self.uncharged = self.uncharged.saturating_sub(units * UNIT_BYTES);
        let cost = (units as f64 - self.prepaid).max(0.0);
        self.prepaid = (self.prepaid - units as f64).max(0.0);
        cost
    }

    /// What the bytes that have not completed a message cost.
    pub fn incomplete(&mut self) -> f64 {
        let units = (self.uncharged / UNIT_BYTES) as f64;
        self.uncharged %= UNIT_BYTES;
        self.prepaid += units;
        units
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_costs_one_unit_per_kib_or_part_of_it() {
        for (length, expected) in [(0, 1.0), (1, 1.0), (1024, 1.0), (1025, 2.0), (16 * 1024, 16.0)] {
            let mut meter = Meter::default();
            meter.read(length + 14);
            assert_eq!(meter.complete(length), expected, "{length}");
        }
    }

    #[test]
    fn a_long_message_is_paid_for_once_however_it_arrives() {
        let mut meter = Meter::default();
        let mut cost = 0.0;
        for _ in 0..10 {
            meter.read(32 * 1024);
            cost += meter.incomplete();
        }
        assert_eq!(cost, 320.0);
        assert_eq!(meter.complete(320 * 1024 - 100), 0.0);
        meter.read(100);
        assert_eq!(meter.complete(90), 1.0);
    }

    #[test]
    fn bytes_that_complete_no_message_are_paid_for() {
        let mut meter = Meter::default();
        let cost: f64 = (0..1000)
            .map(|_| {
                // A TLS record without content.
                meter.read(22);
                meter.incomplete()
            })
            .sum();
        assert_eq!(cost, 21.0);
    }

    proptest! {
        #[test]
        fn everything_read_is_charged(steps in proptest::collection::vec((0..5000_usize, any::<bool>()), 1..100)) {
            let mut meter = Meter::default();
            let (mut read, mut messages, mut cost) = (0, 0, 0.0);
            let mut pending = 0;
            for (bytes, completes) in steps {
                meter.read(bytes);
                read += bytes;
                pending += bytes;
                cost += if completes {
                    messages += 1;
                    meter.complete(std::mem::take(&mut pending))
                } else {
                    meter.incomplete()
                };
            }
            prop_assert!((cost + 1.0) * UNIT_BYTES as f64 >= read as f64, "{cost} for {read} bytes");
            prop_assert!(cost <= read as f64 / UNIT_BYTES as f64 + messages as f64 + 1.0, "{cost} for {read} bytes");
        }
    }
}
