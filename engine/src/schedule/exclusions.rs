//! Exclusions: times at which a schedule does not fire, whatever it says itself.
//!
//! Written as a text with an entry per line:
//!
//! | entry | excluded |
//! |---|---|
//! | `2026-12-25` | a day |
//! | `2026-12-24..2027-01-01` | days, both included |
//! | `12-25` | a day of every year; `02-29` of leap years |
//! | `SAT,SUN`, `FRI#1`, `weekends`, `weekdays` | days of the week, as a cron expression names them; `weekdays` is Monday to Friday |
//! | `2026-12-24T14:00..2026-12-24T18:30:00` | from one time to another, the second one not included |
//! | `cron * 12-13 * * *` | the times that an expression matches; one without a seconds field means whole minutes |
//! | `calendar holidays` | what a calendar of this name says, see below |
//! | `zone Europe/Berlin` | nothing: it is the zone of the entries that follow |
//!
//! A day or a time is one on the clock of the entry's zone, so a time that the clock shows twice is excluded twice. Days are from 1970 to 9999.
//!
//! At most [`PATTERNS_MAX`] entries are days of the week or expressions, and at most [`NAMED_MAX`] name calendars. A calendar is such a text itself, with as
//! many patterns of its own, but names none; entries before its first zone are on the clock of the zone at the place where it is named.
//!
//! Invariants: a compiled text does not keep it; a search passes over an excluded day, or a longer stretch, in one step, and gives up after
//! [`STRETCHES_MAX`] of them in a row. Deliberately absent: where entries come from (a jobs file, a calendar's file).

#[cfg(test)]
mod tests;

use super::{
    civil::{Date, SECONDS_PER_DAY, date_of, day_number_of, month_length_days},
    cron::{CronError, Matching, quote},
    zone::{Zone, Zones},
};
use std::{ops::Range, time::Duration};
use tickwheel_wire::{Timestamp, planted::Mistake};

/// Excluded stretches that a search passes over before it takes it that none is left out: of whole days, 27 years.
const STRETCHES_MAX: u32 = 10_000;
/// Most entries that are expressions or days of the week: each is looked at in each step of a search.
const PATTERNS_MAX: usize = 64;
/// Most calendars that one text names.
const NAMED_MAX: usize = 16;
/// The least time.
const MICROSECOND: Duration = Duration::from_micros(1);
const WEEKDAY_NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const WEEKENDS: &str = "SAT,SUN";
const WEEKDAYS: &str = "MON-FRI";

/// Why exclusions are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, `{entry}`: {problem}")]
pub struct ExclusionError {
    /// The line, from 1.
    pub line: usize,
    /// The entry, or its beginning.
    pub entry: String,
    /// What is wrong with it.
    pub problem: ExclusionProblem,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExclusionProblem {
    /// It has none of the forms.
    #[error(
        "an entry is a date such as 2026-12-25 or 12-25, two dates or two times with `..` between them, days of the week such \
         as SAT,SUN, or `cron`, `calendar` or `zone` and what belongs to it"
    )]
    Form,
    /// The calendar has no such day, or the day no such time.
    #[error("there is no such date or time; days are from 1970-01-01 to 9999-12-31")]
    NoSuchTime,
    /// There are too many of a kind.
    #[error("it is one more than the {PATTERNS_MAX} entries that may be expressions or days of the week")]
    TooMany,
    /// There are too many names of calendars.
    #[error("it is one more than the {NAMED_MAX} calendars that may be named")]
    TooManyNamed,
    /// Only a server knows calendars, and it knows none of this name.
    #[error("there is no such calendar; those of a server are known to it alone")]
    UnknownCalendar,
    /// A calendar names another.
    #[error("a calendar names no other")]
    Nested,
    /// The end comes before the beginning.
    #[error("it ends before it begins")]
    Reversed,
    /// The expression, the days of the week or the zone are wrong.
    #[error(transparent)]
    Cron(#[from] CronError),
}

/// Compiled exclusions; none by default. Some 16 bytes for each entry that is a date or time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    calendars: Vec<Calendar>,
}

/// The entries of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Calendar {
    zone: Zone,
    /// In local seconds, ascending, apart from each other.
    spans: Vec<Range<i64>>,
    /// Of each month, bits 1 to 31.
    annual: [u32; 12],
    patterns: Vec<Matching>,
}

impl Exclusions {
    /// Compiles `text`; `zone_name` is the zone of the entries before the first that names one, `calendar` gives the text of the calendar with a name.
    ///
    /// # Errors
    /// Names the first entry that is wrong, its line and what is allowed.
    pub fn new<'a>(
        text: &str,
        zone_name: &str,
        zones: &mut Zones,
        calendar: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, ExclusionError> {
        let mut exclusions = Self::default();
        let mut named_count = 0;
        exclusions.read(text, zone_name, zones, &mut |name| {
            named_count += 1;
            if named_count > NAMED_MAX {
                return Err(ExclusionProblem::TooManyNamed);
            }
            calendar(name).ok_or(ExclusionProblem::UnknownCalendar)
        })?;
        exclusions.calendars.iter_mut().for_each(Calendar::join);
        Ok(exclusions)
    }

    /// Compiles the text of a calendar, which names no other.
    ///
    /// # Errors
    /// As [`Exclusions::new`] has them.
    pub fn of_calendar(text: &str, zone_name: &str, zones: &mut Zones) -> Result<Self, ExclusionError> {
        let mut exclusions = Self::default();
        exclusions.read(text, zone_name, zones, &mut |_| Err(ExclusionProblem::Nested))?;
        exclusions.calendars.iter_mut().for_each(Calendar::join);
        Ok(exclusions)
    }

    /// The names of the calendars that `text` names.
    pub fn calendars_named(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter_map(calendar_named)
    }

    fn read<'a>(
        &mut self,
        text: &str,
        zone_name: &str,
        zones: &mut Zones,
        calendar: &mut dyn FnMut(&str) -> Result<&'a str, ExclusionProblem>,
    ) -> Result<(), ExclusionError> {
        let (mut zone_name, mut pattern_count) = (zone_name, 0);
        for (line, entry) in (1..).zip(text.lines()) {
            let entry = entry.trim();
            let failed = |problem| ExclusionError { line, entry: quote(entry), problem };
            if let Some(name) = entry.strip_prefix("zone ") {
                zone_name = name.trim_start();
                zones.get(zone_name).map_err(|error| failed(error.into()))?;
            } else if let Some(name) = calendar_named(entry) {
                let text = calendar(name).map_err(failed)?;
                self.read(text, zone_name, zones, &mut |_| Err(ExclusionProblem::Nested))?;
            } else if !entry.is_empty() {
                let zone = zones.get(zone_name).map_err(|error| failed(error.into()))?;
                let calendar = self.calendar(zone);
                let before = calendar.patterns.len();
                calendar.add(entry).map_err(failed)?;
                pattern_count += calendar.patterns.len() - before;
                if pattern_count > PATTERNS_MAX {
                    return Err(failed(ExclusionProblem::TooMany));
                }
            }
        }
        Ok(())
    }

    /// The first fire of `schedule` after `after` that is not excluded, where `schedule` gives its first after a time. `None`: there is none, or
    /// none before too many are excluded.
    pub fn first_allowed(
        &self,
        after: Timestamp,
        mut schedule: impl FnMut(Timestamp) -> Option<Timestamp>,
    ) -> Option<Timestamp> {
        let mut fire = schedule(after)?;
        for _ in 0..STRETCHES_MAX {
            let Some(end) = self.end_of(fire) else { return Some(fire) };
            let before_end =
                if Mistake::FiringAtStretchEndLost.is_made() { end } else { end.saturating_sub(MICROSECOND) };
            // A single time stays where it is.
            fire = schedule(before_end).filter(|next| *next > fire)?;
        }
        None
    }

    /// If `at` is excluded, the end of some stretch around it that is.
    pub fn end_of(&self, at: Timestamp) -> Option<Timestamp> {
        let at_s = i64::try_from(at.as_micros() / 1_000_000).expect("2^64 microseconds are fewer seconds");
        let end_s = self.calendars.iter().filter_map(|calendar| calendar.end_of(at_s)).max()?;
        Some(Timestamp::from_secs(u64::try_from(end_s).expect("behind a time after the epoch")))
    }

    fn calendar(&mut self, zone: Zone) -> &mut Calendar {
        let place = self.calendars.iter().position(|calendar| calendar.zone == zone).unwrap_or_else(|| {
            self.calendars.push(Calendar { zone, spans: Vec::new(), annual: [0; 12], patterns: Vec::new() });
            self.calendars.len() - 1
        });
        &mut self.calendars[place]
    }
}

impl Calendar {
    fn add(&mut self, entry: &str) -> Result<(), ExclusionProblem> {
        if let Some(expression) = entry.strip_prefix("cron ") {
            self.patterns.push(Matching::new(expression)?);
        } else if entry.starts_with(|first: char| first.is_ascii_alphabetic()) {
            self.patterns.push(days_of_week(entry)?);
        } else if let Some((first, last)) = entry.split_once("..") {
            self.spans.push(span(first.trim_end(), last.trim_start())?);
        } else if entry.len() == "12-25".len() {
            let date = date(&format!("2000-{entry}"))?;
            self.annual[date.month as usize - 1] |= 1 << date.day;
        } else {
            self.spans.push(day(date(entry)?));
        }
        Ok(())
    }

    /// Sorts the spans and joins those that touch.
    fn join(&mut self) {
        self.spans.sort_unstable_by_key(|span| span.start);
        let mut joined: Vec<Range<i64>> = Vec::with_capacity(self.spans.len());
        for span in self.spans.drain(..) {
            match joined.last_mut().filter(|last| span.start <= last.end) {
                Some(last) => last.end = last.end.max(span.end),
                None => joined.push(span),
            }
        }
        self.spans = joined;
    }

    /// If the second `at_s` is excluded, the end of some stretch around it that is.
    fn end_of(&self, at_s: i64) -> Option<i64> {
        let period = self.zone.period_at(at_s);
        let local_s = at_s + period.offset_s;
        let of_patterns = self.patterns.iter().filter_map(|pattern| pattern.end_of(local_s)).max();
        let end_s = self.span_end(local_s).max(self.annual_end(local_s)).max(of_patterns)?;
        // Behind a change of the clock another time is shown.
        Some((end_s - period.offset_s).min(period.end_s))
    }

    fn span_end(&self, local_s: i64) -> Option<i64> {
        let next = self.spans.partition_point(|span| span.end <= local_s);
        self.spans.get(next).filter(|span| span.start <= local_s).map(|span| span.end)
    }

    fn annual_end(&self, local_s: i64) -> Option<i64> {
        if self.annual == [0; 12] {
            return None;
        }
        let day_number = local_s.div_euclid(SECONDS_PER_DAY);
        let Date { month, day, .. } = date_of(day_number);
        (self.annual[month as usize - 1] >> day & 1 == 1).then(|| (day_number + 1) * SECONDS_PER_DAY)
    }
}

/// The name of the calendar that an entry names.
fn calendar_named(entry: &str) -> Option<&str> {
    entry.trim().strip_prefix("calendar ").map(str::trim_start)
}

fn days_of_week(entry: &str) -> Result<Matching, ExclusionProblem> {
    let days = match entry {
        "weekends" => WEEKENDS,
        "weekdays" => WEEKDAYS,
        days if days.split(',').all(begins_with_a_day) => days,
        _ => return Err(ExclusionProblem::Form),
    };
    Ok(Matching::new(&format!("* * * * {days}"))?)
}

/// Whether a term is meant to be days of the week; what is wrong with it else, the parser says.
fn begins_with_a_day(term: &str) -> bool {
    let is_known = |name: &str| WEEKDAY_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name));
    term.get(..3).is_some_and(is_known) && !term.contains(char::is_whitespace)
}

/// From `first` to `last`: days, or times of which the last is not included.
fn span(first: &str, last: &str) -> Result<Range<i64>, ExclusionProblem> {
    let span = match (first.contains('T'), last.contains('T')) {
        (false, false) => day(date(first)?).start..day(date(last)?).end,
        (true, true) => time(first)?..time(last)?,
        _ => return Err(ExclusionProblem::Form),
    };
    if span.is_empty() { Err(ExclusionProblem::Reversed) } else { Ok(span) }
}

/// The local seconds of a day.
fn day(date: Date) -> Range<i64> {
    let start_s = day_number_of(date.year, date.month, date.day) * SECONDS_PER_DAY;
    start_s..start_s + SECONDS_PER_DAY
}

/// Reads `2026-12-25`.
fn date(text: &str) -> Result<Date, ExclusionProblem> {
    let [year, month, day] = numbers(text, '-', [4, 2, 2]).ok_or(ExclusionProblem::Form)?;
    let date = Date { year: year.into(), month, day };
    let exists = year >= 1_970 && (1..=12).contains(&month) && (1..=month_length_days(date.year, month)).contains(&day);
    if exists { Ok(date) } else { Err(ExclusionProblem::NoSuchTime) }
}

/// Reads `2026-12-25T14:30` and `2026-12-25T14:30:00` as local seconds.
fn time(text: &str) -> Result<i64, ExclusionProblem> {
    let (day_text, time) = text.split_once('T').ok_or(ExclusionProblem::Form)?;
    let with_seconds = numbers(time, ':', [2, 2, 2]);
    let [hour, minute, second] = with_seconds
        .or_else(|| numbers(time, ':', [2, 2]).map(|[hour, minute]| [hour, minute, 0]))
        .ok_or(ExclusionProblem::Form)?;
    let start_s = day(date(day_text)?).start;
    if hour < 24 && minute < 60 && second < 60 {
        Ok(start_s + i64::from(hour * 3_600 + minute * 60 + second))
    } else {
        Err(ExclusionProblem::NoSuchTime)
    }
}

/// The numbers of a text that has them with so many digits each, between separators.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u32; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part =
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}
