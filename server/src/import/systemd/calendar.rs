//! Calendar events (`OnCalendar=`) as cron expressions.
//!
//! `WEEKDAYS YEARS-MONTHS-DAYS HOURS:MINUTES:SECONDS ZONE`, of which weekdays, years, seconds, zone, and the date or the time may be left
//! out; or one of `minutely`, `hourly`, `daily`, `weekly`, `monthly`, `quarterly`, `semiannually`, `yearly`; or `@SECONDS` since 1970. A part is
//! `*` or a list of `a`, `a..b`, `a/step` and `a..b/step`; `~` instead of `-` in front of the days counts them from the month's end.
//!
//! Weekday *and* date must match, where cron's days match by either once both fields are restricted. Three ways say "both" in cron all
//! the same: whole weeks of the month with a weekday are its n-th or last in the month (`Mon *-*-8..14`: `MON#2`); and a field
//! that begins with `*` makes both count, which Sunday (`*/7`, day 0 of the week) and the 1st (`*/31`) can be written as.
//! For other such events the job says it ([`DayRule::And`]); in all other expressions this makes no difference.
//!
//! Source: systemd.time(7), and for what is valid `calendarspec.c`. Deliberately absent: fractions of seconds.

use super::RefusedReason;
use std::collections::BTreeSet;
use tickwheel_client::{DayRule, Schedule};
use tickwheel_engine::schedule::{Cron, CronOptions, Zones};
use tickwheel_wire::Timestamp;

/// Weekdays as systemd names them, in cron's order.
const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
/// A field of all days of the week, and of all days of the month.
const WEEK: (u16, u16) = (0, 6);
const MONTH_DAYS: (u16, u16) = (1, 31);
/// The farthest a day may lie from the end of a month.
const FROM_END_MAX: u16 = 28;

/// The values of a part; `None`: all.
type Values = Option<BTreeSet<u16>>;

/// An event, taken apart.
#[derive(Debug, Default)]
struct Event {
    /// 0: Sunday.
    weekdays: Values,
    years: Values,
    months: Values,
    days: Values,
    /// Whether the days count from the month's end, which is 1.
    is_from_end: bool,
    hours: Values,
    minutes: Values,
    seconds: Values,
}

/// The schedule of an event, and the rule for days that it needs; `zone` is that of one without its own.
pub(super) fn schedule(text: &str, zone: &str, zones: &mut Zones) -> Result<(Schedule, DayRule), RefusedReason> {
    let text = text.trim();
    let (event, own) = match text.rsplit_once(' ') {
        Some((event, last)) if zones.get(last).is_ok() => (event.trim_end(), Some(last)),
        _ => (text, None),
    };
    if let Some(seconds) = event.strip_prefix('@') {
        let seconds = seconds.parse().map_err(|_| RefusedReason::Calendar)?;
        return Ok((Schedule::Once { at: Timestamp::from_secs(seconds) }, DayRule::Or));
    }
    let (expression, day_rule) = parse(event)?.expression();
    let zone = zones.get(own.unwrap_or(zone))?;
    let name = zone.name().to_owned();
    Cron::with_options(&expression, zone, CronOptions { day_rule, ..CronOptions::default() })?;
    Ok((Schedule::Cron { expression, zone: name }, day_rule))
}

fn parse(text: &str) -> Result<Event, RefusedReason> {
    let written_out = match text.to_ascii_lowercase().as_str() {
        "minutely" => "*-*-* *:*:00",
        "hourly" => "*-*-* *:00:00",
        "daily" => "*-*-* 00:00:00",
        "weekly" => "Mon *-*-* 00:00:00",
        "monthly" => "*-*-01 00:00:00",
        "quarterly" => "*-01,04,07,10-01 00:00:00",
        "semiannually" | "semi-annually" | "biannually" | "bi-annually" => "*-01,07-01 00:00:00",
        "yearly" | "annually" | "anually" => "*-01-01 00:00:00",
        _ => text,
    };
    let mut event = Event::default();
    let mut rest = event.weekdays(written_out)?;
    if rest.is_empty() && written_out.is_empty() {
        return Err(RefusedReason::Calendar);
    }
    rest = event.date(rest)?;
    event.time(rest)?;
    Ok(event)
}

impl Event {
    /// Takes the weekdays in front of `text`; gives what follows them.
    fn weekdays<'a>(&mut self, text: &'a str) -> Result<&'a str, RefusedReason> {
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Ok(text);
        }
        let (names, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut weekdays = BTreeSet::new();
        for term in names.trim_end_matches(',').split(',') {
            let (first, last) = term.split_once("..").or_else(|| term.split_once('-')).unwrap_or((term, term));
            let (first, last) = (weekday(first)?, weekday(last)?);
            // For systemd the week begins on Monday.
            let from_monday = |weekday: u16| (weekday + 6) % 7;
            if from_monday(first) > from_monday(last) {
                return Err(RefusedReason::Calendar);
            }
            weekdays.extend((from_monday(first)..=from_monday(last)).map(|weekday| (weekday + 1) % 7));
        }
        self.weekdays = Some(weekdays).filter(|weekdays| weekdays.len() < WEEKDAYS.len());
        Ok(rest.trim_start_matches(' '))
    }

    /// Takes the date in front of `text`, if there is one; gives what follows it.
    fn date<'a>(&mut self, text: &'a str) -> Result<&'a str, RefusedReason> {
        let (date, rest) = text.split_once(' ').unwrap_or((text, ""));
        if date.is_empty() || date.contains(':') {
            return Ok(text);
        }
        let (front, days, is_from_end) = match (date.rsplit_once('~'), date.rsplit_once('-')) {
            (Some((front, days)), _) => (front, days, true),
            (None, Some((front, days))) => (front, days, false),
            (None, None) => return Err(RefusedReason::Calendar),
        };
        let (years, months) = front.split_once('-').map_or((None, front), |(years, months)| (Some(years), months));
        self.years = years.map_or(Ok(None), |years| values(years, &YEAR))?;
        self.months = values(months, &MONTH)?;
        self.days = values(days, if is_from_end { &DAY_FROM_END } else { &DAY })?;
        self.is_from_end = is_from_end && self.days.is_some();
        Ok(rest.trim_start_matches(' '))
    }

    /// Takes the time; none is midnight.
    fn time(&mut self, text: &str) -> Result<(), RefusedReason> {
        let zero = || Some(BTreeSet::from([0]));
        (self.hours, self.minutes, self.seconds) = (zero(), zero(), zero());
        if text.is_empty() {
            return Ok(());
        }
        let parts: Vec<_> = text.split(':').collect();
        let (hours, minutes) = match parts[..] {
            [hours, minutes] => (hours, minutes),
            [hours, minutes, seconds] => {
                self.seconds = values(seconds, &SECOND)?;
                (hours, minutes)
            }
            _ => return Err(RefusedReason::Calendar),
        };
        self.hours = values(hours, &HOUR)?;
        self.minutes = values(minutes, &MINUTE)?;
        Ok(())
    }

    /// As cron says it: five fields, with seconds six, with years seven.
    fn expression(&self) -> (String, DayRule) {
        let (days, weekdays, day_rule) = self.days();
        let minutes = field(self.minutes.as_ref(), (0, 59), true);
        let hours = field(self.hours.as_ref(), (0, 23), true);
        let months = field(self.months.as_ref(), (1, 12), true);
        let five = format!("{minutes} {hours} {days} {months} {weekdays}");
        let seconds = field(self.seconds.as_ref(), (0, 59), true);
        let expression = match (&self.years, seconds.as_str()) {
            (None, "0") => five,
            (None, seconds) => format!("{seconds} {five}"),
            (years, seconds) => format!("{seconds} {five} {}", field(years.as_ref(), (YEAR.min, YEAR.max), true)),
        };
        (expression, day_rule)
    }

    /// The fields of the days of the month and of the week, and the rule that they need.
    fn days(&self) -> (String, String, DayRule) {
        let all_days = || "*".to_owned();
        match (&self.days, &self.weekdays) {
            (None, weekdays) => (all_days(), field(weekdays.as_ref(), WEEK, false), DayRule::Or),
            (Some(days), None) => (self.days_of_month(days), all_days(), DayRule::Or),
            (Some(days), Some(weekdays)) => {
                if let Some(behind) = self.weeks(days) {
                    let pairs =
                        weekdays.iter().flat_map(|day| behind.iter().map(move |behind| format!("{day}{behind}")));
                    (all_days(), pairs.collect::<Vec<_>>().join(","), DayRule::Or)
                } else if weekdays.contains(&WEEK.0) {
                    (self.days_of_month(days), starred(weekdays, WEEK), DayRule::Or)
                } else if days.contains(&MONTH_DAYS.0) && !self.is_from_end {
                    (starred(days, MONTH_DAYS), field(Some(weekdays), WEEK, false), DayRule::Or)
                } else {
                    (self.days_of_month(days), field(Some(weekdays), WEEK, false), DayRule::And)
                }
            }
        }
    }

    fn days_of_month(&self, days: &BTreeSet<u16>) -> String {
        if !self.is_from_end {
            return field(Some(days), MONTH_DAYS, false);
        }
        let day = |day: &u16| if *day == 1 { "L".to_owned() } else { format!("L-{}", day - 1) };
        days.iter().map(day).collect::<Vec<_>>().join(",")
    }

    /// What cron writes behind a weekday, if the days are whole weeks of the month.
    fn weeks(&self, days: &BTreeSet<u16>) -> Option<Vec<String>> {
        if self.is_from_end {
            return days.iter().copied().eq(1..=7).then(|| vec!["L".to_owned()]);
        }
        let (mut left, mut weeks) = (days.clone(), Vec::new());
        for week in 1..=5 {
            let days_of_week: BTreeSet<u16> = (7 * week - 6..=(7 * week).min(MONTH_DAYS.1)).collect();
            if days_of_week.is_subset(&left) {
                left.retain(|day| !days_of_week.contains(day));
                weeks.push(format!("#{week}"));
            }
        }
        left.is_empty().then_some(weeks)
    }
}

/// The number of a weekday, whose name may be cut to three letters.
fn weekday(name: &str) -> Result<u16, RefusedReason> {
    let name = name.to_ascii_lowercase();
    let place = WEEKDAYS.iter().zip(0..).find(|(full, _)| **full == name || full[..3] == *name);
    place.map(|(_, number)| number).ok_or(RefusedReason::Calendar)
}

/// What a part may hold.
struct Part {
    min: u16,
    max: u16,
    is_year: bool,
    is_from_end: bool,
}

const fn part(min: u16, max: u16) -> Part {
    Part { min, max, is_year: false, is_from_end: false }
}

const YEAR: Part = Part { is_year: true, ..part(1970, 2199) };
const MONTH: Part = part(1, 12);
const DAY: Part = part(MONTH_DAYS.0, MONTH_DAYS.1);
const DAY_FROM_END: Part = Part { is_from_end: true, ..part(1, FROM_END_MAX) };
const HOUR: Part = part(0, 23);
const MINUTE: Part = part(0, 59);
const SECOND: Part = part(0, 59);

/// The values that a part names.
fn values(text: &str, part: &Part) -> Result<Values, RefusedReason> {
    if text == "*" {
        return Ok(None);
    }
    let mut values = BTreeSet::new();
    for term in text.split(',') {
        let (range, step) = term.split_once('/').map_or((term, None), |(range, step)| (range, Some(step)));
        let (first, last) = range.split_once("..").map_or((range, None), |(first, last)| (first, Some(last)));
        let first = part.number(first)?;
        let last = last.map(|last| part.number(last)).transpose()?;
        let step = step.map(number).transpose()?;
        values.extend(part.range(first, last, step).ok_or(RefusedReason::Calendar)?);
    }
    Ok(Some(values).filter(|values| values.len() <= usize::from(part.max - part.min) || part.is_from_end))
}

impl Part {
    fn number(&self, text: &str) -> Result<u16, RefusedReason> {
        let number = match number(text)? {
            short @ 0..70 if self.is_year => short + 2000,
            short @ 70..100 if self.is_year => short + 1900,
            number => number,
        };
        if (self.min..=self.max).contains(&number) { Ok(number) } else { Err(RefusedReason::Calendar) }
    }

    /// `None` where systemd takes no such range: one that ends before a second value.
    fn range(&self, first: u16, last: Option<u16>, step: Option<u16>) -> Option<Vec<u16>> {
        if step == Some(0) {
            return None;
        }
        match (last, step) {
            (None, None) => Some(vec![first]),
            (Some(last), step) => {
                let step = step.unwrap_or(1);
                (first.checked_add(step)? <= last).then(|| (first..=last).step_by(step.into()).collect())
            }
            // Counted from the end, repetitions go on towards it.
            (None, Some(step)) if self.is_from_end => {
                (first > step).then(|| (1..=first).rev().step_by(step.into()).collect())
            }
            (None, Some(step)) => {
                (first.checked_add(step)? <= self.max).then(|| (first..=self.max).step_by(step.into()).collect())
            }
        }
    }
}

fn number(text: &str) -> Result<u16, RefusedReason> {
    if text.contains('.') {
        return Err(RefusedReason::Fraction);
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(RefusedReason::Calendar)
}

/// The values as a field of cron of the values from `all.0` to `all.1`. Days must not be written with a leading `*`.
fn field(values: Option<&BTreeSet<u16>>, all: (u16, u16), may_star: bool) -> String {
    let Some(values) = values else { return "*".to_owned() };
    let sorted: Vec<u16> = values.iter().copied().collect();
    if let [first, second, _, ..] = sorted[..]
        && second - first > 1
        && sorted.windows(2).all(|pair| pair[1] - pair[0] == second - first)
    {
        let (last, step) = (sorted[sorted.len() - 1], second - first);
        let reaches_end = last + step > all.1;
        return match (first == all.0 && may_star, reaches_end) {
            (true, true) => format!("*/{step}"),
            _ => format!("{first}-{last}/{step}"),
        };
    }
    let runs = sorted.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, _, .., last] => format!("{first}-{last}"),
        [first, second] => format!("{first},{second}"),
        [one, ..] => one.to_string(),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// A field of days that holds the first value of `all`, written so that it begins with `*`.
fn starred(values: &BTreeSet<u16>, all: (u16, u16)) -> String {
    let others: BTreeSet<u16> = values.iter().copied().filter(|value| *value != all.0).collect();
    let first = format!("*/{}", all.1 - all.0 + 1);
    if others.is_empty() { first } else { format!("{first},{}", field(Some(&others), all, false)) }
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
