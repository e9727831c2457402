//! Schedules: when a job fires next.
//!
//! A [`Schedule`] is compiled once from what the user wrote and then answers "which is the first fire strictly after
//! this time?" without any state. [`retry_delay`] answers the same for retries.
//!
//! Invariants: every function here is pure, its result depends on its arguments and on the zone database, which is one of
//! them or the one in the binary; [`Schedule::next_after`] is strictly later than its argument and never [`Timestamp::MAX`]; equal schedules
//! have equal fires, so that they may be interned and computed once.
//!
//! Deliberately absent: the current time, the system's zone files, policies on missed fires (a partition decides
//! those, with [`Schedule::missed_count`]), and the wire form.

mod backoff;
mod civil;
mod cron;
mod exclusions;
mod interval;
#[cfg(test)]
mod tests;
mod zone;

pub use backoff::{Backoff, retry_delay};
pub use cron::{
    ClockChange, ClockChangeEffect, Cron, CronError, CronField, CronOptions, CronRules, Explanation, FieldProblem,
    Fires, GapPolicy, LocalTime, OverlapPolicy, ZonedTime, settle_hashed,
};
pub use exclusions::{ExclusionError, ExclusionProblem, Exclusions};
pub use interval::{Interval, IntervalError};
pub use zone::{Zone, ZoneDatabase, ZoneFileError, Zones};

use std::{sync::Arc, time::Duration};
use tickwheel_wire::{Timestamp, planted::Mistake};

/// The least time.
const MICROSECOND: Duration = Duration::from_micros(1);

/// When a job fires: 48 bytes, cheap to clone, equality and hash by meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Schedule {
    /// When the wall clock of a zone shows certain times.
    Cron(Cron),
    /// Every so often from an anchor on.
    Interval(Interval),
    /// One time only.
    Once(Timestamp),
    /// Whenever one of several fires; none of them is itself several.
    Several(Arc<[Self]>),
}

impl Schedule {
    /// A cron schedule on the wall clock of the zone named `zone_name`.
    ///
    /// # Errors
    /// When the zone is unknown, or the expression wrong or unable to fire; see [`Cron::new`].
    pub fn cron(expression: &str, zone_name: &str, zones: &mut Zones) -> Result<Self, CronError> {
        Cron::new(expression, zones.get(zone_name)?).map(Self::Cron)
    }

    /// A fire at `anchor` and then every `every_us` microseconds (at least 1,000).
    ///
    /// # Errors
    /// When the interval is too short.
    pub fn interval(every_us: u64, anchor: Timestamp) -> Result<Self, IntervalError> {
        Interval::new(every_us, anchor).map(Self::Interval)
    }

    /// A single fire.
    pub const fn once(at: Timestamp) -> Self {
        Self::Once(at)
    }

    /// The first fire strictly after `after`. `None` when there is none: a single fire has passed, the year 9999 ends
    /// (cron), or the time cannot be expressed (interval).
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.next_after(after),
            Self::Interval(interval) => interval.next_after(after),
            Self::Once(at) => Some(*at).filter(|at| *at > after && !at.is_never()),
            Self::Several(schedules)
                if Mistake::CoincidingSchedulesFireTwice.is_made() && coincide(schedules, after) =>
            {
                Some(after.saturating_add(MICROSECOND))
            }
            Self::Several(schedules) => schedules.iter().filter_map(|schedule| schedule.next_after(after)).min(),
        }
    }

    /// How many fires there are after `from_exclusive` and not after `to_inclusive`, at most `bound`.
    ///
    /// Takes constant time for intervals, and one search per fire counted for the others.
    pub fn missed_count(&self, from_exclusive: Timestamp, to_inclusive: Timestamp, bound: u32) -> u32 {
        if let Self::Interval(interval) = self {
            let count = interval.count_between(from_exclusive, to_inclusive);
            return u32::try_from(count).map_or(bound, |count| count.min(bound));
        }
        let mut last = from_exclusive;
        for count in 0..bound {
            match self.next_after(last) {
                Some(fire) if fire <= to_inclusive => last = fire,
                _ => return count,
            }
        }
        bound
    }
}

/// Whether at least two of them fire at `time`.
fn coincide(schedules: &[Schedule], time: Timestamp) -> bool {
    let before = time.saturating_sub(MICROSECOND);
    schedules.iter().filter(|schedule| schedule.next_after(before) == Some(time)).count() > 1
}
