//! Cron schedules: when the wall clock of a zone shows certain times.
//!
//! The syntax is described in [`syntax`], the search in [`pattern`]; this file places local times on the time line.
//!
//! **Days.** When day of month and day of week are both restricted, a day needs to match only one of them, unless the job
//! says both ([`DayRule`]); otherwise it needs to match both. A field that begins with `*` counts as unrestricted even with a step, as in Vixie cron: `0 0 */2 * MON` means
//! the Mondays with an odd date. So does `?`, which is Quartz's way to leave the day to the other field.
//!
//! **Changes of the clock** (daylight saving time and all others alike). A local time that is left out fires at the
//! first instant after the gap ([`GapPolicy::FireAfter`]; several of one gap, and one that falls on its end, make one
//! fire) or not at all; one that comes twice fires at its first occurrence, its second, or both ([`OverlapPolicy`]).
//! Where a job does not say, it is as with Vixie cron:
//!
//! - A schedule whose minute or hour field begins with `*` (also `*/2`) goes by elapsed time: `skip` and `both`. So
//!   `*/5 * * * *` fires every five minutes through a change.
//! - Any other schedule (`30 2 * * *`, also `30 0-23 * * *`) fires once for each matching local time: `fire-after` and
//!   `first`.
//!
//! Invariants: fires are strictly ascending, on whole local seconds or at the end of a gap; the function is pure. A
//! compiled schedule does not keep its text.
//!
//! Source: crontab(5) and the clock-change rules of Vixie cron. Deliberately absent: exclusions (see `schedule::exclusions`), jitter.

mod clock_change;
mod error;
mod explain;
mod field;
mod hashed;
mod matching;
mod pattern;
mod syntax;
#[cfg(test)]
mod tests;
mod wording;

pub use clock_change::{ClockChange, ClockChangeEffect, Fires, LocalTime, ZonedTime};
pub(super) use error::quote;
pub use error::{CronError, FieldProblem};
pub use explain::Explanation;
pub use field::CronField;
pub use hashed::settle_hashed;
pub(super) use matching::Matching;

use super::zone::{PERIODS_MAX_UP_TO_9999, Period, Zone, Zones};
use pattern::Pattern;
use syntax::Parsed;
use tickwheel_wire::{
    Timestamp,
    job::{DayRule, DstGap, DstOverlap, FiringRules},
    planted::Mistake,
};

/// 9999-12-30T22:00:00Z, the last second that jiff can show in every zone.
const LAST_FIRE_S: i64 = 253_402_207_200;

/// How far before a local time the instants lie that may show it, at most: offsets are far less than a day.
const OFFSETS_S_MAX: i64 = 2 * 86_400;

/// How many periods one search may look at before the zone's table must be wrong.
///
/// Every turn of the walk takes a period that starts later than the one before, and the pattern ends with the year 9999; so
/// no search takes more turns than there are periods up to then, and one, as the last second of that year may lie
/// within the next one. Some 16,000 are really taken: `30 2 * 3 SUNL` in Berlin with [`GapPolicy::Skip`] falls in a gap
/// every year and never fires.
const WALKED_PERIODS_MAX: usize = PERIODS_MAX_UP_TO_9999 + 1;

/// What becomes of a local time that a change of the clock leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapPolicy {
    /// Nothing.
    Skip,
    /// A fire at the first instant after the gap; one for all of a gap.
    FireAfter,
}

/// When a local time fires that a change of the clock shows twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverlapPolicy {
    /// When it is shown first.
    First,
    /// When it is shown again.
    Second,
    /// Each time.
    Both,
}

/// What a cron schedule depends on besides its expression and zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CronOptions {
    /// Stands for the job where the expression says `H`: [`tickwheel_wire::name_hash`]. Without one `H` is refused.
    pub hash: Option<u64>,
    /// As in Vixie cron if not given.
    pub gap: Option<GapPolicy>,
    /// As in Vixie cron if not given.
    pub overlap: Option<OverlapPolicy>,
    /// Which days are meant where both day fields are restricted.
    pub day_rule: DayRule,
}

/// What the rules of a job say about its cron expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CronRules {
    /// What becomes of local times that do not exist.
    pub gap: DstGap,
    /// When local times fire that come twice.
    pub overlap: DstOverlap,
    /// Which days are meant where both day fields are restricted.
    pub day_rule: DayRule,
}

impl From<&FiringRules> for CronRules {
    fn from(rules: &FiringRules) -> Self {
        Self { gap: rules.dst_gap, overlap: rules.dst_overlap, day_rule: rules.day_rule }
    }
}

impl Default for CronRules {
    fn default() -> Self {
        Self::from(&FiringRules::PLAIN)
    }
}

impl CronOptions {
    /// Those of a definition; what its name decides is settled in the expression.
    pub const fn of(rules: CronRules) -> Self {
        let gap = match rules.gap {
            DstGap::Vixie => None,
            DstGap::Skip => Some(GapPolicy::Skip),
            DstGap::FireAfter => Some(GapPolicy::FireAfter),
        };
        let overlap = match rules.overlap {
            DstOverlap::Vixie => None,
            DstOverlap::First => Some(OverlapPolicy::First),
            DstOverlap::Second => Some(OverlapPolicy::Second),
            DstOverlap::Both => Some(OverlapPolicy::Both),
        };
        Self { hash: None, gap, overlap, day_rule: rules.day_rule }
    }
}

/// A compiled cron expression in a zone.
///
/// Equal when the times are, however they were written: `@daily` equals `0 0 * * *`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cron {
    pattern: Pattern,
    zone: Zone,
    gap: GapPolicy,
    overlap: OverlapPolicy,
}

impl Cron {
    /// Compiles `expression` (at most 512 bytes) for the wall clock of `zone`, with the options of a job that states none.
    ///
    /// # Errors
    /// As [`Cron::with_options`].
    pub fn new(expression: &str, zone: Zone) -> Result<Self, CronError> {
        Self::with_options(expression, zone, CronOptions::default())
    }

    /// Compiles `expression` (at most 512 bytes) for the wall clock of `zone`.
    ///
    /// # Errors
    /// Names the field, the offending part and the allowed values. An expression that can never fire, such as
    /// `0 0 30 2 *`, is refused too.
    pub fn with_options(expression: &str, zone: Zone, options: CronOptions) -> Result<Self, CronError> {
        let settled = options.hash.map_or(Ok(expression.into()), |hash| settle_hashed(expression, hash))?;
        let Parsed { pattern, is_wildcard } = syntax::parse(&settled, options.day_rule)?;
        let (gap, overlap) = match is_wildcard {
            true => (GapPolicy::Skip, OverlapPolicy::Both),
            false => (GapPolicy::FireAfter, OverlapPolicy::First),
        };
        let (gap, overlap) = (options.gap.unwrap_or(gap), options.overlap.unwrap_or(overlap));
        Ok(Self { pattern, zone, gap, overlap })
    }

    /// Compiles the expression of a job, as its rules and the hash of its name have it.
    ///
    /// # Errors
    /// As [`Cron::with_options`], and when the zone is unknown.
    pub fn of_job(
        expression: &str,
        zone_name: &str,
        rules: &FiringRules,
        hash: u64,
        zones: &mut Zones,
    ) -> Result<Self, CronError> {
        let options = CronOptions { hash: Some(hash), ..CronOptions::of(rules.into()) };
        Self::with_options(expression, zones.get(zone_name)?, options)
    }

    /// The zone whose wall clock counts.
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// What becomes of local times that a change of the clock leaves out.
    pub const fn gap(&self) -> GapPolicy {
        self.gap
    }

    /// When local times fire that a change of the clock shows twice.
    pub const fn overlap(&self) -> OverlapPolicy {
        self.overlap
    }

    /// The first fire strictly after `after`; `None` when there is none before the end of the year 9999.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after_s = i64::try_from(after.as_micros() / 1_000_000).expect("2^64 microseconds are fewer seconds");
        if after_s >= LAST_FIRE_S {
            return None;
        }
        let fire_s = u64::try_from(self.next_after_s(after_s)?).expect("later than a time after the epoch");
        (fire_s <= LAST_FIRE_S.unsigned_abs()).then(|| Timestamp::from_secs(fire_s))
    }

    /// Looks at one period of constant offset after the other, for the first matching local time that fires in it.
    fn next_after_s(&self, after_s: i64) -> Option<i64> {
        let period = self.zone.period_at(after_s);
        let (first_s, end_s) = self.firing_in(&period);
        let mut search = Search::new(&self.pattern, first_s.max(after_s + 1 + period.offset_s));
        let next_s = search.next_s?;
        if next_s < end_s {
            return Some(next_s - period.offset_s);
        }
        // The period behind may show times again that were passed; where it does not, as in those behind it, there is
        // nothing that was not looked at.
        let shown_next_s = period.end_s.saturating_add(period.offset_s.min(period.next_offset_s));
        let is_new = search.from_s <= shown_next_s;
        let mut resume_s = if is_new { period.end_s.max(next_s - OFFSETS_S_MAX) } else { period.end_s };
        for _ in 0..WALKED_PERIODS_MAX {
            let period = self.zone.period_at(resume_s);
            if self.gap == GapPolicy::FireAfter && period.previous_offset_s < period.offset_s {
                let in_gap_s = search.first_from(period.start_s + period.previous_offset_s)?;
                if in_gap_s < period.start_s + period.offset_s {
                    return Some(period.start_s);
                }
            }
            let (first_s, end_s) = self.firing_in(&period);
            let next_s = search.first_from(first_s)?;
            if next_s < end_s {
                return Some(next_s - period.offset_s);
            }
            resume_s = period.end_s.max(next_s - OFFSETS_S_MAX);
        }
        panic!(
            "the walk through {:?} took more than the {WALKED_PERIODS_MAX} periods that a zone has up to the year 9999",
            self.zone
        );
    }

    /// The local times, from the first to the one behind the last, that fire in `period` if they match.
    fn firing_in(&self, period: &Period) -> (i64, i64) {
        let Period { start_s, end_s, offset_s, previous_offset_s, next_offset_s } = *period;
        // What is shown again has fired before, or fires when it is.
        let passes_over = self.overlap == OverlapPolicy::First && !Mistake::RepeatedTimeFiresAgain.is_made();
        let first_offset_s = if passes_over { offset_s.max(previous_offset_s) } else { offset_s };
        let end_offset_s = if self.overlap == OverlapPolicy::Second { offset_s.min(next_offset_s) } else { offset_s };
        (start_s.saturating_add(first_offset_s), end_s.saturating_add(end_offset_s))
    }
}

/// The search for matching local times, with the last result kept for as long as it answers the next question too.
struct Search<'a> {
    pattern: &'a Pattern,
    from_s: i64,
    next_s: Option<i64>,
}

impl<'a> Search<'a> {
    fn new(pattern: &'a Pattern, from_s: i64) -> Self {
        Self { pattern, from_s, next_s: pattern.first_from(from_s) }
    }

    fn first_from(&mut self, from_s: i64) -> Option<i64> {
        let is_known = self.from_s <= from_s && self.next_s.is_none_or(|next_s| from_s <= next_s);
        if !is_known {
            *self = Self::new(self.pattern, from_s);
        }
        self.next_s
    }
}
