//! What becomes of a schedule where the clock of its zone changes.
//!
//! The local times come from the pattern, the fires from the search itself, so that the statement is what will happen.

use super::{Cron, GapPolicy};
use crate::schedule::civil::{SECONDS_PER_DAY, date_of};
use std::fmt;
use tickwheel_wire::Timestamp;

/// How many local times a statement names, at most.
pub(super) const NAMED_TIMES_MAX: usize = 3;

/// What a wall clock shows, in seconds from 1970-01-01T00:00:00 on the same clock. Shown as `2027-03-28T02:30:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime(i64);

/// A point in time with the offset of a zone. Shown as RFC 3339: `2027-03-28T03:00:00+02:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZonedTime {
    /// The point in time.
    pub at: Timestamp,
    /// Local time minus UTC, in seconds.
    pub offset_s: i32,
}

/// Fires that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fires {
    /// How many they are.
    pub count: u32,
    /// The first of them.
    pub first: ZonedTime,
    /// The last of them.
    pub last: ZonedTime,
}

/// A change of a zone's clock, and what a schedule does there. Shown as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockChange {
    /// The first instant with the new offset.
    pub at: Timestamp,
    /// Local time minus UTC before, in seconds.
    pub offset_before_s: i32,
    /// Local time minus UTC from then on, in seconds.
    pub offset_after_s: i32,
    /// The first few of the schedule's local times that are left out or shown twice.
    pub times: Vec<LocalTime>,
    /// How many there are.
    pub time_count: u32,
    /// What becomes of them.
    pub effect: ClockChangeEffect,
}

/// What becomes of the local times that a change leaves out or shows twice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockChangeEffect {
    /// The clock is turned forward: they do not exist.
    Gap {
        /// The fire that stands for all of them.
        fire: Option<ZonedTime>,
        /// The first fire from the change on, that one or another.
        next: Option<ZonedTime>,
    },
    /// The clock is turned back: they are shown twice.
    Overlap {
        /// The fires when they are shown first.
        first: Option<Fires>,
        /// The fires when they are shown again.
        second: Option<Fires>,
    },
}

impl Cron {
    /// The changes of the zone's clock after `after` and up to `until`, at most `count_max`, and what this schedule does
    /// at each.
    ///
    /// Looks at every second of the schedule within what a change leaves out or shows twice: some microseconds, and
    /// milliseconds for one that fires every second.
    pub fn clock_changes(&self, after: Timestamp, until: Timestamp, count_max: usize) -> Vec<ClockChange> {
        let mut changes = Vec::new();
        let mut period = self.zone.period_at(seconds(after));
        while changes.len() < count_max && period.end_s <= seconds(until) {
            changes.push(self.clock_change(period.end_s, period.offset_s, period.next_offset_s));
            period = self.zone.period_at(period.end_s);
        }
        changes
    }

    fn clock_change(&self, at_s: i64, before_s: i64, after_s: i64) -> ClockChange {
        let (first_s, end_s) = (at_s + before_s.min(after_s), at_s + before_s.max(after_s));
        let length_s = end_s - first_s;
        let affected =
            std::iter::successors(self.pattern.first_from(first_s), |last_s| self.pattern.first_from(last_s + 1));
        let mut affected = affected.take_while(|local_s| *local_s < end_s).map(LocalTime);
        let times: Vec<_> = affected.by_ref().take(NAMED_TIMES_MAX).collect();
        let time_count = count(times.len() + affected.count());
        let effect = if before_s < after_s {
            let next = self.fires_from(at_s).next();
            let fires = self.gap == GapPolicy::FireAfter && time_count > 0;
            ClockChangeEffect::Gap { fire: next.filter(|_| fires), next }
        } else {
            let [first, second] = [at_s - length_s, at_s].map(|from_s| self.fires_within(from_s, from_s + length_s));
            ClockChangeEffect::Overlap { first, second }
        };
        let [offset_before_s, offset_after_s] =
            [before_s, after_s].map(|offset_s| offset_s.try_into().expect("less than a day or two"));
        ClockChange { at: timestamp(at_s), offset_before_s, offset_after_s, times, time_count, effect }
    }

    /// The fires from second `from_s` on.
    fn fires_from(&self, from_s: i64) -> impl Iterator<Item = ZonedTime> {
        let fires = std::iter::successors(self.next_after(timestamp(from_s - 1)), |last| self.next_after(*last));
        fires.map(|at| ZonedTime { at, offset_s: self.zone.offset_s(at) })
    }

    fn fires_within(&self, from_s: i64, end_s: i64) -> Option<Fires> {
        let mut fires = self.fires_from(from_s).take_while(|fire| fire.at < timestamp(end_s));
        let first = fires.next()?;
        let (later_count, last) = fires.fold((0, first), |(count, _), fire| (count + 1, fire));
        Some(Fires { count: count(1 + later_count), first, last })
    }
}

fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros() / 1_000_000).expect("2^64 microseconds are fewer seconds")
}

fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_secs(second.try_into().expect("changes before 1970 are in no table"))
}

/// At most one for each second of a change.
fn count(number: usize) -> u32 {
    number.try_into().expect("clocks change by less than a week")
}

impl LocalTime {
    /// `02:30`, with seconds if there are any.
    fn time(self) -> String {
        let second = self.0.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        if second == 0 { format!("{hour:02}:{minute:02}") } else { format!("{hour:02}:{minute:02}:{second:02}") }
    }

    /// `2027-03-28`.
    fn date(self) -> String {
        let date = date_of(self.0.div_euclid(SECONDS_PER_DAY));
        format!("{:04}-{:02}-{:02}", date.year, date.month, date.day)
    }

    /// The time, with its date if that is not `date`.
    fn time_beside(self, date: &str) -> String {
        if self.date() == date { self.time() } else { format!("{} {}", self.date(), self.time()) }
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = self.0.rem_euclid(SECONDS_PER_DAY);
        write!(f, "{}T{:02}:{:02}:{:02}", self.date(), second / 3_600, second / 60 % 60, second % 60)
    }
}

impl ZonedTime {
    /// What the wall clock shows.
    pub fn local(self) -> LocalTime {
        LocalTime(seconds(self.at) + i64::from(self.offset_s))
    }

    /// `03:00:00+02:00`.
    fn time(self) -> String {
        self.to_string().split_once('T').map_or_else(String::new, |(_, time)| time.to_owned())
    }
}

impl fmt::Display for ZonedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, offset_s) = (if self.offset_s < 0 { '-' } else { '+' }, self.offset_s.abs());
        write!(f, "{}{sign}{:02}:{:02}", self.local(), offset_s / 3_600, offset_s / 60 % 60)?;
        // Beyond RFC 3339; the last zone with such an offset gave it up in 1972.
        if offset_s % 60 == 0 { Ok(()) } else { write!(f, ":{:02}", offset_s % 60) }
    }
}

impl ClockChange {
    /// What the clock shows at the change by the offset before, and by the one after.
    pub fn local(&self) -> (LocalTime, LocalTime) {
        let [before, after] =
            [self.offset_before_s, self.offset_after_s].map(|offset_s| ZonedTime { at: self.at, offset_s }.local());
        (before, after)
    }

    /// The local times by name: `02:30`, or `02:00, 02:05, 02:10 and 9 more`.
    fn named_times(&self) -> String {
        let date = self.local().0.date();
        let mut named: Vec<_> = self.times.iter().map(|time| time.time_beside(&date)).collect();
        let left_count = self.time_count - count(named.len());
        let last = if left_count > 0 { Some(format!("{left_count} more")) } else { named.pop() };
        match (named.join(", "), last) {
            (first, Some(last)) if !first.is_empty() => format!("{first} and {last}"),
            (first, last) => last.unwrap_or(first),
        }
    }

    fn write_effect(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (times, is_one) = (self.named_times(), self.time_count == 1);
        let once = if is_one { "" } else { " once" };
        match self.effect {
            ClockChangeEffect::Gap { .. } if self.time_count == 0 => f.write_str("nothing of it falls in the gap"),
            ClockChangeEffect::Overlap { .. } if self.time_count == 0 => f.write_str("nothing of it is shown twice"),
            ClockChangeEffect::Gap { fire: Some(fire), .. } => {
                let verb = if is_one { "does" } else { "do" };
                write!(f, "{times} {verb} not exist; fires{once} at {}", fire.time())
            }
            ClockChangeEffect::Gap { fire: None, next } => {
                let verbs = if is_one { "does not exist and is" } else { "do not exist and are" };
                write!(f, "{times} {verbs} skipped; ")?;
                match next {
                    Some(next) => write!(f, "fires next at {next}"),
                    None => f.write_str("fires no more"),
                }
            }
            ClockChangeEffect::Overlap { first, second } => {
                write!(f, "{times} {} shown twice; ", if is_one { "is" } else { "are" })?;
                let passes: Vec<_> = [first, second].into_iter().flatten().map(|fires| fires.named()).collect();
                let often = if passes.len() == 2 { "twice" } else { "once" };
                let each = if is_one { "," } else { " for each," };
                write!(f, "fires {often}{each} {}", passes.join(" and "))
            }
        }
    }
}

impl Fires {
    /// `at 02:30:00+02:00`, or `from 02:00:00+02:00 to 02:55:00+02:00`.
    fn named(self) -> String {
        match self.count {
            1 => format!("at {}", self.first.time()),
            _ => format!("from {} to {}", self.first.time(), self.last.time()),
        }
    }
}

impl fmt::Display for ClockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.local();
        let date = before.date();
        let change = duration(self.offset_after_s - self.offset_before_s);
        write!(f, "{date} {} -> {} ({change}): ", before.time(), after.time_beside(&date))?;
        self.write_effect(f)
    }
}

/// `+1 h`, `-30 min`, `+1 h 30 min`.
fn duration(seconds: i32) -> String {
    let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    let parts = [(seconds / 3_600, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number} {unit}"));
    format!("{sign}{}", parts.collect::<Vec<_>>().join(" "))
}
