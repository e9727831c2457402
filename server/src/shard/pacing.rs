//! When a shard hands its events to the log: at once if the log is idle, else a moment later, together with what comes meanwhile.
//!
//! Every commit costs the device a block and a flush, and the kernel's workers several wake-ups, however little it holds. At 20,000
//! executions/s a commit for each turn was 10,000 of them per second and made the tail longer, not shorter; decision 11 has the figures.
//!
//! Invariant: events wait [`SPACING_MAX`] at most before the log is asked to take them. Deliberately absent: the log's own bounds.

use std::time::{Duration, Instant};

/// How long events wait for company while a commit is under way: longer than a commit takes on a device that keeps up, so there is one
/// at a time then, and several on a device that does not.
pub const SPACING_MAX: Duration = Duration::from_micros(400);
/// Events that need no company, in bytes.
const FULL_BYTES: usize = 64 << 10;

/// The pace of a shard's commits.
#[derive(Debug)]
pub struct Pace {
    /// Until when events wait for company.
    waits_until: Instant,
}

impl Pace {
    /// The pace of a shard that has committed nothing.
    pub const fn new(now: Instant) -> Self {
        Self { waits_until: now }
    }

    /// Whether `bytes` of events are to be appended now; `is_busy` says that a commit is under way.
    #[inline]
    pub fn allows(&self, now: Instant, bytes: usize, is_busy: bool) -> bool {
        !is_busy || bytes >= FULL_BYTES || self.waits_until <= now
    }

    /// Notes that events were appended.
    #[inline]
    pub fn appended(&mut self, now: Instant) {
        self.waits_until = now + SPACING_MAX;
    }

    /// Until when events wait at most.
    pub const fn waits_until(&self) -> Instant {
        self.waits_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_log_is_given_events_at_once() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.allows(now, 1, false));
        pace.appended(now);
        assert!(pace.allows(now, 1, false));
    }

    #[test]
    fn few_events_wait_for_company_while_a_commit_is_under_way_but_not_longer_than_the_spacing() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.appended(now);
        assert!(!pace.allows(now, FULL_BYTES - 1, true));
        assert!(!pace.allows(now + SPACING_MAX - Duration::from_nanos(1), 1, true));
        assert!(pace.allows(now + SPACING_MAX, 1, true));
        assert_eq!(pace.waits_until(), now + SPACING_MAX);
    }

    #[test]
    fn many_events_wait_for_nothing() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.appended(now);
        assert!(pace.allows(now, FULL_BYTES, true));
    }
}
