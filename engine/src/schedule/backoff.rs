//! How long a failed attempt waits for its retry: exponential growth with a ceiling, less a random part.
//!
//! The function is part of the protocol, like the hashes of `tickwheel_wire`: integers only, the same on every machine,
//! and fixed by the vectors in its tests. Deliberately absent: whether an attempt may be retried at all, and the state
//! of a random generator (the randomness is a hash of what is retried, so that a replica computes the same delay).

use std::time::Duration;
use tickwheel_wire::mix64;

/// How the delay between attempts grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// Delay after the first failed attempt, in milliseconds.
    pub initial_ms: u32,
    /// Growth per further failure in thousandths: 2000 doubles. Below 1000 counts as 1000, a constant delay.
    pub multiplier_milli: u32,
    /// Ceiling of the delay, in milliseconds.
    pub max_ms: u32,
    /// How much of the delay may be taken away at random, in percent. Above 100 counts as 100.
    pub jitter_percent: u8,
}

/// The delay after failed attempt number `attempt` (from 1; 0 counts as 1).
///
/// In microseconds: `d(1) = min(initial, max)`, `d(n + 1) = min(floor(d(n) * multiplier_milli / 1000), max)`. From
/// `d = d(attempt)` the jitter takes `floor(mix64(seed ^ mix64(attempt)) * (span + 1) / 2^64)`, where
/// `span = floor(d * jitter_percent / 100)`. So the delay lies between `d - span` and `d`, never above the ceiling.
///
/// Equal arguments give equal delays; pass a `seed` that differs between executions (a hash of the execution's id), so
/// that what failed together does not come back together. Takes at most about 22,000 steps (growth by a thousandth
/// from 1 ms to 50 days), usually fewer than 20.
pub fn retry_delay(backoff: &Backoff, attempt: u32, seed: u64) -> Duration {
    let attempt = attempt.max(1);
    let delay_us = grown_us(backoff, attempt);
    let span_us = delay_us * u64::from(backoff.jitter_percent.min(100)) / 100;
    let draw = mix64(seed ^ mix64(attempt.into()));
    let taken_us = (u128::from(draw) * u128::from(span_us + 1)) >> 64;
    let taken_us = u64::try_from(taken_us).expect("a draw below 2^64 takes at most the span");
    Duration::from_micros(delay_us - taken_us)
}

fn grown_us(backoff: &Backoff, attempt: u32) -> u64 {
    let max_us = u64::from(backoff.max_ms) * 1_000;
    let multiplier_milli = u64::from(backoff.multiplier_milli.max(1_000));
    let mut delay_us = (u64::from(backoff.initial_ms) * 1_000).min(max_us);
    for _ in 1..attempt {
        // The product stays below 2^42 * 2^32 in the worst case, hence the wide multiplication.
        let grown_us = u128::from(delay_us) * u128::from(multiplier_milli) / 1_000;
        let grown_us = u64::try_from(grown_us).map_or(max_us, |us| us.min(max_us));
        if grown_us == delay_us {
            break;
        }
        delay_us = grown_us;
    }
    delay_us
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOUBLING: Backoff = Backoff { initial_ms: 1_000, multiplier_milli: 2_000, max_ms: 60_000, jitter_percent: 0 };

    fn delays_us(backoff: &Backoff, attempts: &[u32], seed: u64) -> Vec<u128> {
        attempts.iter().map(|attempt| retry_delay(backoff, *attempt, seed).as_micros()).collect()
    }

    #[test]
    fn without_jitter_the_delay_grows_up_to_the_ceiling() {
        let attempts = [0, 1, 2, 3, 4, 6, 7, 8, u32::MAX];
        let seconds = [1, 1, 2, 4, 8, 32, 60, 60, 60];
        assert_eq!(delays_us(&DOUBLING, &attempts, 7), seconds.map(|s| s * 1_000_000));
    }

    #[test]
    fn fractions_of_a_microsecond_are_cut_at_every_step() {
        let by_a_third = Backoff { initial_ms: 1, multiplier_milli: 1_333, max_ms: 1_000, jitter_percent: 0 };
        assert_eq!(delays_us(&by_a_third, &[1, 2, 3, 4, 5], 0), [1_000, 1_333, 1_776, 2_367, 3_155]);
    }

    #[test]
    fn extremes_stay_within_the_ceiling() {
        let constant = Backoff { multiplier_milli: 0, ..DOUBLING };
        assert_eq!(delays_us(&constant, &[1, 9], 0), [1_000_000; 2]);
        let above_ceiling = Backoff { initial_ms: 90_000, ..DOUBLING };
        assert_eq!(delays_us(&above_ceiling, &[1, 9], 0), [60_000_000; 2]);
        assert_eq!(retry_delay(&Backoff { initial_ms: 0, ..DOUBLING }, 9, 0), Duration::ZERO);
        let greatest = Backoff { initial_ms: 1, multiplier_milli: u32::MAX, max_ms: u32::MAX, jitter_percent: 0 };
        assert_eq!(retry_delay(&greatest, u32::MAX, 0), Duration::from_millis(u32::MAX.into()));
        let slowest = Backoff { initial_ms: 1, multiplier_milli: 1_001, max_ms: u32::MAX, jitter_percent: 0 };
        assert_eq!(retry_delay(&slowest, u32::MAX, 0), Duration::from_millis(u32::MAX.into()));
    }

    #[test]
    fn jittered_delays_are_these_for_ever() {
        let jittered = Backoff { jitter_percent: 20, ..DOUBLING };
        assert_eq!(delays_us(&jittered, &[1, 2, 3, 10], 0), [926_362, 1_843_114, 3_409_985, 58_879_515]);
        assert_eq!(
            delays_us(&jittered, &[1, 2, 3, 10], 0x0123_4567_89AB_CDEF),
            [942_140, 1_900_273, 3_966_432, 57_468_429]
        );
        let full = Backoff { jitter_percent: 100, ..DOUBLING };
        assert_eq!(delays_us(&full, &[1, 2, 3, 10], 42), [505_070, 1_768_002, 2_942_717, 50_825_346]);
    }

    #[test]
    fn jitter_spreads_evenly_over_its_span() {
        let jittered = Backoff { jitter_percent: 50, ..DOUBLING };
        let mut quarters = [0u32; 4];
        for seed in 0..4_000 {
            let taken_us = 1_000_000 - retry_delay(&jittered, 1, seed).as_micros();
            quarters[usize::try_from(taken_us * 4 / 500_001).expect("within the span")] += 1;
        }
        assert!(quarters.iter().all(|count| (900..1_100).contains(count)), "{quarters:?}");
    }

    proptest! {
        #[test]
        fn a_delay_lies_in_the_jitter_span_below_its_unjittered_value(
            initial_ms: u32,
            multiplier_milli in 0u32..10_000,
            max_ms: u32,
            percent in 0u8..=100,
            attempt in 0u32..100,
            seed: u64,
        ) {
            let backoff = Backoff { initial_ms, multiplier_milli, max_ms, jitter_percent: percent };
            let most_us = retry_delay(&Backoff { jitter_percent: 0, ..backoff }, attempt, seed).as_micros();
            let delay_us = retry_delay(&backoff, attempt, seed).as_micros();
            prop_assert!(delay_us <= most_us && most_us <= u128::from(max_ms) * 1_000);
            prop_assert!(most_us - delay_us <= most_us * u128::from(percent) / 100);
        }
    }
}
