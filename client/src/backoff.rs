//! How long to wait before the next attempt to connect: exponential, with jitter, bounded.
//!
//! The jitter takes up to half of the delay, so that a crowd that lost the same node does not come back as one.

use crate::random::Random;
use std::time::Duration;

/// First delay.
const INITIAL: Duration = Duration::from_millis(50);
/// Longest delay.
const MAX: Duration = Duration::from_secs(5);

/// The delays of one connection's attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    random: Random,
}

impl Backoff {
    pub fn new() -> Self {
        Self { failures: 0, random: Random::new() }
    }

    /// How many failures there were since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The connection works: the next delay is the first one again.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and tells how long to wait: between half of the delay and the whole.
    pub fn failed(&mut self) -> Duration {
        let delay = INITIAL.saturating_mul(1 << self.failures.min(16)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        let half_us = u64::try_from(delay.as_micros() / 2).unwrap_or(u64::MAX);
        Duration::from_micros(half_us + self.random.below(half_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_their_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::new();
        for failure in 0..40 {
            let whole = INITIAL.saturating_mul(1 << failure.min(16)).min(MAX);
            let delay = backoff.failed();
            assert!(whole / 2 <= delay && delay <= whole, "failure {failure}: {delay:?}");
        }
        assert_eq!(backoff.failures(), 40);
        backoff.succeeded();
        assert!(backoff.failed() <= INITIAL);
    }
}
