//! Fixed intervals: a fire at the anchor and every so often after it.
//!
//! Invariant: fires are exactly `anchor + k * every` for k = 0, 1, 2 ..., whatever happened before, so that lateness
//! never accumulates. All calls take constant time. Deliberately absent: fires before the anchor.

use tickwheel_wire::Timestamp;

/// Why an interval is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntervalError {
    /// The interval is shorter than a millisecond.
    #[error("an interval of {every_us} us is too short; at least {every_us_min} us are needed")]
    TooShort {
        /// What was asked for, in microseconds.
        every_us: u64,
        /// The shortest interval, in microseconds.
        every_us_min: u64,
    },
}

/// A fixed interval with its anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    every_us: u64,
    anchor: Timestamp,
}

impl Interval {
    /// The shortest interval: 1 ms, in microseconds.
    pub const EVERY_US_MIN: u64 = 1_000;

    /// Fires at `anchor` and then every `every_us` microseconds.
    ///
    /// # Errors
    /// When `every_us` is below [`Interval::EVERY_US_MIN`].
    pub const fn new(every_us: u64, anchor: Timestamp) -> Result<Self, IntervalError> {
        if every_us < Self::EVERY_US_MIN {
            return Err(IntervalError::TooShort { every_us, every_us_min: Self::EVERY_US_MIN });
        }
        Ok(Self { every_us, anchor })
    }

    /// Time between two fires, in microseconds.
    pub const fn every_us(&self) -> u64 {
        self.every_us
    }

    /// The first fire.
    pub const fn anchor(&self) -> Timestamp {
        self.anchor
    }

    /// The first fire strictly after `after`; `None` when it lies beyond the range of [`Timestamp`].
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let past_us = self.fires_until(after).checked_mul(self.every_us)?;
        let next = Timestamp::from_micros(self.anchor.as_micros().checked_add(past_us)?);
        (!next.is_never()).then_some(next)
    }

    /// How many fires there are after `from_exclusive` and not after `to_inclusive`.
    pub fn count_between(&self, from_exclusive: Timestamp, to_inclusive: Timestamp) -> u64 {
        self.fires_until(to_inclusive).saturating_sub(self.fires_until(from_exclusive))
    }

    /// How many fires there are up to and including `until`.
    fn fires_until(&self, until: Timestamp) -> u64 {
        // The last timestamp means "never" and is no fire. At least a millisecond lies between two fires, so that the
        // count cannot overflow.
        let until_us = until.as_micros().min(Timestamp::MAX.as_micros() - 1);
        until_us.checked_sub(self.anchor.as_micros()).map_or(0, |since_us| since_us / self.every_us + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn interval(every_us: u64, anchor_us: u64) -> Interval {
        Interval::new(every_us, at(anchor_us)).expect("long enough")
    }

    #[test]
    fn fires_lie_on_multiples_from_the_anchor_on() {
        let every_second = interval(1_000_000, 5_000_007);
        let cases = [
            (0, 5_000_007),
            (5_000_006, 5_000_007),
            (5_000_007, 6_000_007),
            (6_000_006, 6_000_007),
            (6_000_007, 7_000_007),
            (1_000_000_000_000, 1_000_000_000_007),
        ];
        for (after, expected) in cases {
            assert_eq!(every_second.next_after(at(after)), Some(at(expected)), "after {after}");
        }
    }

    #[test]
    fn an_interval_under_a_millisecond_is_refused() {
        assert_eq!(
            Interval::new(999, Timestamp::EPOCH),
            Err(IntervalError::TooShort { every_us: 999, every_us_min: 1_000 })
        );
        assert!(Interval::new(1_000, Timestamp::EPOCH).is_ok());
    }

    #[test]
    fn beyond_the_last_timestamp_there_is_no_fire() {
        assert_eq!(interval(u64::MAX, 10).next_after(at(10)), None);
        assert_eq!(interval(1_000, 10).next_after(Timestamp::MAX), None);
        // A fire that would fall on the value that means "never" is none.
        assert_eq!(interval(u64::MAX - 10, 10).next_after(at(10)), None);
        assert_eq!(interval(u64::MAX - 10, 10).count_between(Timestamp::EPOCH, Timestamp::MAX), 1);
        assert_eq!(interval(u64::MAX - 11, 10).next_after(at(10)), Some(at(u64::MAX - 1)));
    }

    proptest! {
        #[test]
        fn counting_agrees_with_stepping(
            every_us in 1_000u64..5_000,
            anchor_us in 0u64..50_000,
            from_us in 0u64..100_000,
            span_us in 0u64..100_000,
        ) {
            let interval = interval(every_us, anchor_us);
            let mut stepped = 0;
            let mut last = at(from_us);
            while let Some(next) = interval.next_after(last) {
                prop_assert!(next > last);
                prop_assert_eq!((next.as_micros() - anchor_us) % every_us, 0);
                if next > at(from_us + span_us) {
                    break;
                }
                stepped += 1;
                last = next;
            }
            prop_assert_eq!(interval.count_between(at(from_us), at(from_us + span_us)), stepped);
        }
    }
}
