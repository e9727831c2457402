//! A pattern in plain English.
//!
//! A sentence names the conditions that a local time has to meet, between commas, the finest first: `at minute 0, every 2
//! hours from 9 to 17, Monday to Friday`. Within a condition `and` and `or` join what is enough alone.
//!
//! - It is made of the values and not of the text: what means the same reads the same, and `H` reads as the value that a
//!   job's name has chosen.
//! - `every 5 minutes` is said where that is true from hour to hour; what begins anew with each hour or month has its first
//!   and its last value named: `every 7 minutes from 0 to 56`.
//! - A field that holds everything is left out where the next finer condition goes on without a break: `every 5 minutes` is
//!   not followed by `every hour`.
//! - At most [`TIMES_MAX`] times of a day are named as `at 09:30`, if nothing about them is regular.

use super::{
    field::CronField,
    pattern::{DaysFrom, FIRST_YEAR, Pattern, Rare},
};
use std::fmt::Write as _;

/// How many times of a day are named one by one, at most.
const TIMES_MAX: usize = 4;
/// So many values that follow one another are named as a range, at least.
const RANGE_LENGTH_MIN: usize = 3;
/// From so many days before the last on there may be none in the same month.
const FEBRUARY_DAYS: u32 = 28;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// The conditions of `pattern`.
pub(super) fn sentence(pattern: &Pattern) -> String {
    let mut conditions = Vec::new();
    let is_unbroken = time_of_day(pattern, &mut conditions);
    match days(pattern) {
        Some(days) => conditions.push(days),
        None if is_unbroken => {}
        None => conditions.push("every day".into()),
    }
    let months = Values::of(CronField::Month, [pattern.months.into(), 0, 0, 0]);
    if !months.is_all() {
        conditions.push(months.in_calendar(|month| MONTHS[usize::from(month) - 1].into()));
    }
    if let Some(years) = pattern.rare.as_ref().and_then(|rare| rare.years) {
        let years = Values::of(CronField::Year, years);
        conditions.push(match years.shape() {
            Shape::Even(step) | Shape::Steps(step @ 2..) => {
                format!("every {step} years from {} to {}", years.first(), years.last())
            }
            _ => years.in_calendar(|year| year.to_string()),
        });
    }
    conditions.join(", ")
}

/// Adds the conditions on seconds, minutes and hours; whether they repeat without a break from day to day.
fn time_of_day(pattern: &Pattern, conditions: &mut Vec<String>) -> bool {
    let seconds = Values::of(CronField::Second, [pattern.seconds, 0, 0, 0]);
    let minutes = Values::of(CronField::Minute, [pattern.minutes, 0, 0, 0]);
    let hours = Values::of(CronField::Hour, [pattern.hours.into(), 0, 0, 0]);
    if let Some(times) = times(&seconds, &minutes, &hours) {
        conditions.push(times);
        return false;
    }
    let is_on_the_minute = seconds.all == [0];
    let mut is_unbroken = false;
    // Whether one condition at most is met at a time: `at minute 0, every 2 hours`; else `every minute, in every 2nd hour`.
    let mut is_single = true;
    for (values, unit, at) in [(seconds, "second", "at"), (minutes, "minute", "at"), (hours, "hour", "in")] {
        let is_left_out = (unit == "second" && is_on_the_minute) || (is_unbroken && values.is_all());
        if !is_left_out {
            conditions.push(values.on_the_clock(unit, at, is_single));
            is_unbroken = matches!(values.shape(), Shape::All | Shape::Even(_));
        }
        is_single &= values.all.len() == 1;
    }
    is_unbroken
}

/// The times of a day one by one, if they are few and irregular.
fn times(seconds: &Values, minutes: &Values, hours: &Values) -> Option<String> {
    let is_irregular = |values: &Values| values.shape() == Shape::Irregular && values.ranges().is_empty();
    let [second] = seconds.all[..] else { return None };
    if !is_irregular(minutes) || !is_irregular(hours) || minutes.all.len() * hours.all.len() > TIMES_MAX {
        return None;
    }
    let time = |hour: &u16, minute: &u16| match second {
        0 => format!("{hour:02}:{minute:02}"),
        _ => format!("{hour:02}:{minute:02}:{second:02}"),
    };
    let times = hours.all.iter().flat_map(|hour| minutes.all.iter().map(move |minute| time(hour, minute)));
    Some(format!("at {}", joined(&times.collect::<Vec<_>>())))
}

/// The condition on the days; `None` where every day meets it.
fn days(pattern: &Pattern) -> Option<String> {
    let none = Rare::default();
    let rare = pattern.rare.as_deref().unwrap_or(&none);
    let dates = Values::of(CronField::DayOfMonth, [pattern.days.into(), 0, 0, 0]);
    let weekdays = Values::of(CronField::DayOfWeek, [pattern.weekdays.into(), 0, 0, 0]);
    let by_date = (!dates.is_all()).then(|| days_of_month(&dates, rare));
    let by_weekday = (!weekdays.is_all()).then(|| days_of_week(&weekdays, rare));
    match (by_date, by_weekday, pattern.days_from) {
        (Some(by_date), Some(by_weekday), DaysFrom::Both) => Some(format!("{by_date}, and only {by_weekday}")),
        (Some(by_date), Some(by_weekday), DaysFrom::Either) => Some(format!("{by_date} or {by_weekday}")),
        (by_date, by_weekday, DaysFrom::Both) => by_date.or(by_weekday),
        (_, _, DaysFrom::Either) => None,
    }
}

fn days_of_month(dates: &Values, rare: &Rare) -> String {
    let mut parts = Vec::new();
    match dates.shape() {
        _ if dates.all.is_empty() => {}
        Shape::Steps(step @ 2..) => {
            parts.push(format!("every {step} days from day {} to day {} of the month", dates.first(), dates.last()));
        }
        _ => parts.push(format!("on {} of the month", dates.listed("day"))),
    }
    for before in (0..32).filter(|before| rare.before_last >> before & 1 == 1) {
        let exists = if before < FEBRUARY_DAYS { "" } else { " (where that is the same month)" };
        parts.push(match before {
            0 => "on the last day of the month".into(),
            1 => "on the day before the last day of the month".into(),
            _ => format!("on the {} day before the last day of the month{exists}", ordinal(before)),
        });
    }
    for day in (1..32).filter(|day| rare.nearest_to >> day & 1 == 1) {
        let exists = if day <= FEBRUARY_DAYS { "" } else { " (where the month has that day)" };
        parts.push(format!("on the month's weekday (Monday to Friday) nearest to day {day}{exists}"));
    }
    if rare.last_workday {
        parts.push("on the last weekday (Monday to Friday) of the month".into());
    }
    parts.join(" and ")
}

fn days_of_week(weekdays: &Values, rare: &Rare) -> String {
    let mut parts = Vec::new();
    if !weekdays.all.is_empty() {
        parts.push(weekdays.as_weekdays());
    }
    let nth = WEEKS.into_iter().zip(rare.nth_weekdays);
    for (week, mask) in nth.chain([("last", rare.last_weekdays)]) {
        let days = WEEKDAYS.iter().enumerate().filter(|(day, _)| mask >> day & 1 == 1);
        parts.extend(days.map(|(_, day)| format!("on the {week} {day} of the month")));
    }
    parts.join(" and ")
}

/// What is regular about the values of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// There are all.
    All,
    /// Every so many, from the field's first value on, and the field's end is no break.
    Even(u16),
    /// Every so many, from the first to the last.
    Steps(u16),
    /// Nothing.
    Irregular,
}

/// The values that a field may have.
struct Values {
    /// Ascending.
    all: Vec<u16>,
    field: CronField,
}

impl Values {
    /// Those of `field` whose bit is set; bits of years count from 1970.
    fn of(field: CronField, bits: [u64; 4]) -> Self {
        let base = if field == CronField::Year { FIRST_YEAR } else { 0 };
        let is_set = |value: &u16| bits[usize::from((value - base) / 64)] >> ((value - base) % 64) & 1 == 1;
        let rule = field.rule();
        Self { all: (rule.min..=rule.last).filter(is_set).collect(), field }
    }

    fn first(&self) -> u16 {
        self.all[0]
    }

    fn last(&self) -> u16 {
        self.all[self.all.len() - 1]
    }

    fn is_all(&self) -> bool {
        self.shape() == Shape::All
    }

    fn shape(&self) -> Shape {
        let rule = self.field.rule();
        if self.all.len() == usize::from(rule.count()) {
            return Shape::All;
        }
        let [first, second, ..] = self.all[..] else { return Shape::Irregular };
        let step = second - first;
        if self.all.windows(2).any(|pair| pair[1] - pair[0] != step) {
            return Shape::Irregular;
        }
        if first == rule.min && self.all.len() * usize::from(step) == usize::from(rule.count()) {
            return Shape::Even(step);
        }
        if self.all.len() < RANGE_LENGTH_MIN { Shape::Irregular } else { Shape::Steps(step) }
    }

    /// Where values follow one another: the places of the first and the last of each such range.
    fn ranges(&self) -> Vec<(usize, usize)> {
        let mut ranges = Vec::new();
        let mut start = 0;
        for (place, value) in self.all.iter().enumerate() {
            if self.all.get(place + 1) != Some(&(value + 1)) {
                if place + 1 - start >= RANGE_LENGTH_MIN {
                    ranges.push((start, place));
                }
                start = place + 1;
            }
        }
        ranges
    }

    /// The values between commas, ranges as such.
    fn list(&self, name: impl Fn(u16) -> String) -> String {
        let mut parts = Vec::new();
        let mut place = 0;
        for (first, last) in self.ranges() {
            parts.extend(self.all[place..first].iter().map(|value| name(*value)));
            parts.push(format!("{} to {}", name(self.all[first]), name(self.all[last])));
            place = last + 1;
        }
        parts.extend(self.all[place..].iter().map(|value| name(*value)));
        joined(&parts)
    }

    /// `minute 5`, `minutes 5, 7 and 10 to 20`.
    fn listed(&self, unit: &str) -> String {
        let plural = if self.all.len() == 1 { "" } else { "s" };
        format!("{unit}{plural} {}", self.list(|value| value.to_string()))
    }

    /// A condition on seconds, minutes or hours. `is_single` says whether the finer ones name one moment of each.
    fn on_the_clock(&self, unit: &str, at: &str, is_single: bool) -> String {
        let range = || format!("from {} to {}", self.first(), self.last());
        match (self.shape(), is_single) {
            (Shape::All, _) => format!("every {unit}"),
            (Shape::Even(step), true) => format!("every {step} {unit}s"),
            (Shape::Even(step), false) => format!("in every {} {unit}", ordinal(step.into())),
            (Shape::Steps(1), true) => format!("every {unit} {}", range()),
            (Shape::Steps(step @ 2..), true) => format!("every {step} {unit}s {}", range()),
            (Shape::Steps(step @ 2..), false) => format!("in every {} {unit} {}", ordinal(step.into()), range()),
            (_, true) => format!("{at} {}", self.listed(unit)),
            (_, false) => format!("in {}", self.listed(unit)),
        }
    }

    /// A condition on months or years.
    fn in_calendar(&self, name: impl Fn(u16) -> String) -> String {
        match self.shape() {
            Shape::Steps(1) => format!("from {} to {}", name(self.first()), name(self.last())),
            _ => format!("in {}", self.list(name)),
        }
    }

    /// `Friday to Monday` for a range, which may go round the end of the week, or `on Monday and Friday`.
    fn as_weekdays(&self) -> String {
        let holds = |day: u16| self.all.contains(&(day % 7));
        let starts: Vec<u16> = self.all.iter().copied().filter(|day| !holds(day + 6)).collect();
        match starts[..] {
            [start] if self.all.len() >= RANGE_LENGTH_MIN => {
                let end = start as usize + self.all.len() - 1;
                format!("{} to {}", WEEKDAYS[usize::from(start)], WEEKDAYS[end % 7])
            }
            _ => format!("on {}", self.list(|day| WEEKDAYS[usize::from(day)].into())),
        }
    }
}

/// `a`, `a and b`, `a, b and c`.
fn joined(parts: &[String]) -> String {
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let separator = match index {
            0 => "",
            _ if index + 1 == parts.len() => " and ",
            _ => ", ",
        };
        write!(text, "{separator}{part}").expect("a string takes everything");
    }
    text
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
