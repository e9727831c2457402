//! Cron schedules: when the wall clock of a zone shows certain times.
//!
//! The syntax is described in [`syntax`], the search in [`pattern`]; this file places local times on the time line.
//!
//! **Days.** When day of month and day of week are both restricted, a day needs to match only one of them; otherwise
//! both. A field that begins with `*` counts as unrestricted even with a step, as in Vixie cron: `0 0 */2 * MON` means
//! the Mondays with an odd date.
//!
//! **Changes of the clock** (daylight saving time and all others alike):
//!
//! - A schedule whose hour field begins with `*` (also `*/2`) fires whenever the clock shows a matching minute. So
//!   `*/5 * * * *` runs every five minutes of elapsed time through a change; local times that are left out do not
//!   fire, and local times that come twice fire twice.
//! - Any other schedule (`30 2 * * *`, also `30 0-23 * * *`) fires once for each matching local time: at its first
//!   occurrence if it comes twice (policy `first`), and right after the gap, at the first instant of the new offset, if
//!   it is left out (policy `fire-after`). Several local times within one gap, and one that falls on its end, make one
//!   fire.
//!
//! Invariants: fires are strictly ascending, on whole local minutes or at the end of a gap; the function is pure. A
//! compiled schedule does not keep its text.
//!
//! Source: crontab(5) and the clock-change rules of Vixie cron. Deliberately absent: the policies `skip`, `second` and
//! `both` (they would be two more arms of [`Cron::next_after`]), exclusion calendars, jitter.

mod error;
mod pattern;
mod syntax;
#[cfg(test)]
mod tests;

pub use error::{CronError, FieldProblem};
pub use syntax::CronField;

use super::zone::Zone;
use pattern::Pattern;
use tickwheel_wire::Timestamp;

/// 9999-12-30T22:00:00Z, the last second that jiff can show in every zone.
const LAST_FIRE_S: i64 = 253_402_207_200;

/// A compiled cron expression in a zone: 40 bytes, no heap memory of its own.
///
/// Where the clock is turned, a schedule whose hour field begins with `*` fires whenever the clock shows a matching
/// minute, so by elapsed time; any other fires once per matching local time, at the first occurrence if it comes twice
/// and right after the gap if it is left out (all of a gap together once).
///
/// Equal when the masks and the zone are, however they were written: `@daily` equals `0 0 * * *`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cron {
    pattern: Pattern,
    zone: Zone,
}

impl Cron {
    /// Compiles `expression` (at most 512 bytes) for the wall clock of `zone`.
    ///
    /// # Errors
    /// Names the field, the offending part and the allowed values. An expression that can never fire, such as
    /// `0 0 30 2 *`, is refused too.
    pub fn new(expression: &str, zone: Zone) -> Result<Self, CronError> {
        Ok(Self { pattern: syntax::parse(expression)?, zone })
    }

    /// The zone whose wall clock counts.
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The first fire strictly after `after`; `None` when there is none before the end of the year 9999.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after_s = i64::try_from(after.as_micros() / 1_000_000).expect("2^64 microseconds are fewer seconds");
        if after_s >= LAST_FIRE_S {
            return None;
        }
        let fire_s = if self.pattern.every_hour { self.next_showing(after_s) } else { self.next_once(after_s) }?;
        let fire_s = u64::try_from(fire_s).expect("later than a time after the epoch");
        (fire_s <= LAST_FIRE_S.unsigned_abs()).then(|| Timestamp::from_secs(fire_s))
    }

    /// The next second after `after_s` at which the clock shows a matching minute.
    ///
    /// Looks at one period of constant offset after the other. A search whose result lies beyond the period is
    /// repeated from the start of the next one; patterns fire at least every 40 years, so there are few.
    fn next_showing(&self, after_s: i64) -> Option<i64> {
        let mut period = self.zone.period_at(after_s);
        let mut from_minute = minute_after(after_s + period.offset_s);
        loop {
            let fire_s = self.pattern.first_from(from_minute)? * 60 - period.offset_s;
            if fire_s < period.end_s {
                return Some(fire_s);
            }
            period = self.zone.period_at(period.end_s);
            // The first second of the period may itself be a matching minute.
            from_minute = minute_after(period.start_s + period.offset_s - 1);
        }
    }

    /// The next second after `after_s` to which a matching local time is assigned.
    fn next_once(&self, after_s: i64) -> Option<i64> {
        let mut period = self.zone.period_at(after_s);
        // Local times up to where the clock was turned back have had their first occurrence already.
        let shown_until_s = period.start_s.saturating_add(period.previous_offset_s);
        let from_minute = minute_after((after_s + period.offset_s).max(shown_until_s.saturating_sub(1)));
        let fire_minute = self.pattern.first_from(from_minute)?;
        loop {
            let fire_s = fire_minute * 60 - period.offset_s;
            if fire_s < period.end_s {
                // A local time before the period's start lies in the gap in front of it.
                return Some(fire_s.max(period.start_s));
            }
            period = self.zone.period_at(period.end_s);
        }
    }
}

/// The first whole local minute strictly after the local second `local_s`.
const fn minute_after(local_s: i64) -> i64 {
    local_s.div_euclid(60) + 1
}
