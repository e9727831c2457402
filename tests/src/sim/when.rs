//! When jobs fire, by counting: the reference for the engine's schedules, as far as plans use them.

use std::time::Duration;
use tickwheel_wire::{Timestamp, job::ScheduleSpec};

/// When a job fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At the anchor and every so many microseconds after it.
    Every {
        /// The interval.
        every_us: u64,
        /// The anchor.
        anchor: Timestamp,
    },
    /// At every full multiple of so many minutes within the hour, UTC.
    Minutes(u64),
    /// Once.
    Once(Timestamp),
}

const MINUTE_US: u64 = 60_000_000;

impl When {
    /// The schedule of a job that was submitted at `at`.
    ///
    /// # Panics
    /// If the cron expression is none of a plan's.
    pub fn of(schedule: &ScheduleSpec<'_>, at: Timestamp) -> Self {
        match *schedule {
            ScheduleSpec::Interval { every_us, anchor } => {
                Self::Every { every_us, anchor: if anchor.is_never() { at } else { anchor } }
            }
            ScheduleSpec::Once { at } => Self::Once(at),
            ScheduleSpec::After { delay_us } => Self::Once(at.saturating_add(Duration::from_micros(delay_us))),
            ScheduleSpec::Cron { expression, .. } => {
                let first = expression.split(' ').next().unwrap_or_default();
                Self::Minutes(first.strip_prefix("*/").map_or(1, |step| step.parse().expect("a plan's expression")))
            }
        }
    }

    /// The first firing after `time`.
    pub fn after(self, time: Timestamp) -> Timestamp {
        let time_us = time.as_micros();
        match self {
            Self::Once(_) => Timestamp::MAX,
            Self::Every { anchor, .. } if anchor > time => anchor,
            Self::Every { every_us, anchor } => {
                let passed = (time_us - anchor.as_micros()) / every_us;
                Timestamp::from_micros(anchor.as_micros() + (passed + 1) * every_us)
            }
            // The steps divide the hour, so they divide time itself.
            Self::Minutes(minutes) => {
                let step_us = minutes * MINUTE_US;
                Timestamp::from_micros((time_us / step_us + 1) * step_us)
            }
        }
    }

    /// How many firings there are after `from`, up to and including `to`.
    pub fn count(self, from: Timestamp, to: Timestamp) -> u64 {
        let step_us = match self {
            Self::Once(_) => return 0,
            Self::Every { every_us, .. } => every_us,
            Self::Minutes(minutes) => minutes * MINUTE_US,
        };
        to.as_micros().saturating_sub(from.as_micros()) / step_us
    }
}
