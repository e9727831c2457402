//! What the clocks of a run show, by counting days, and which of it cron fields match: for the reference of schedules and exclusions.
//!
//! Runs are about a few minutes of 2025 and 2026, in the zones of plans.

use super::plan::{CLOCK_CHANGES, WEST_ZONE, ZONE};
use tickwheel_wire::Timestamp;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;
/// 2025-01-01, in days since the epoch.
const FIRST_DAY: u64 = 20_089;
/// Neither of the years, nor the next, has a 29 February.
const MONTH_DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const YEAR_DAYS: u64 = 365;
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// What a clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// 2025 or later.
    pub year: u64,
    /// From 1.
    pub month: u64,
    /// From 1.
    pub day: u64,
    /// The hour.
    pub hour: u64,
    /// The minute.
    pub minute: u64,
    /// The second.
    pub second: u64,
    /// From Sunday, 0.
    pub weekday: u64,
}

impl Shown {
    /// What the clock of `zone` shows at this second.
    ///
    /// # Panics
    /// If the zone is none of a plan's.
    pub fn at(zone: &str, time_s: u64) -> Self {
        let [forward, back] = CLOCK_CHANGES.map(|change| change.as_micros() / 1_000_000);
        let local_s = match zone {
            "UTC" => time_s,
            WEST_ZONE => time_s - HOUR_S,
            ZONE if (forward..back).contains(&time_s) => time_s + 2 * HOUR_S,
            ZONE => time_s + HOUR_S,
            other => panic!("{other} is no zone of plans"),
        };
        let days = local_s / DAY_S;
        let weekday = (days + 4) % 7;
        let (year, mut day) = (2025 + (days - FIRST_DAY) / YEAR_DAYS, (days - FIRST_DAY) % YEAR_DAYS);
        let mut month = 0;
        while day >= MONTH_DAYS[month] {
            day -= MONTH_DAYS[month];
            month += 1;
        }
        let (hour, minute, second) = (local_s / HOUR_S % 24, local_s / MINUTE_S % 60, local_s % 60);
        Self { year, month: month as u64 + 1, day: day + 1, hour, minute, second, weekday }
    }

    /// The same for a moment.
    pub fn at_time(zone: &str, time: Timestamp) -> Self {
        Self::at(zone, time.as_micros() / 1_000_000)
    }

    /// The date as exclusions write it.
    pub fn date(&self) -> String {
        format!("{}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// The name of the day of the week.
    pub fn weekday_name(&self) -> &'static str {
        WEEKDAYS[usize::try_from(self.weekday).expect("of seven")]
    }

    /// Which of the days of this name in its month it is, from 1.
    pub const fn nth(&self) -> u64 {
        (self.day - 1) / 7 + 1
    }
}

/// The day of the week with this name.
///
/// # Panics
/// If there is none.
pub fn weekday_named(name: &str) -> u64 {
    WEEKDAYS.iter().position(|known| *known == name).expect("a day of the week") as u64
}

/// The seconds, minutes and hours that a cron expression of a plan matches, any day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    seconds: Vec<bool>,
    minutes: Vec<bool>,
    hours: Vec<bool>,
    /// Whether the expression speaks of seconds.
    pub has_seconds: bool,
}

impl Fields {
    /// Those of an expression of five fields, or six with seconds in front. With five, any second matches.
    ///
    /// # Panics
    /// If the expression is none of a plan's.
    pub fn of(expression: &str) -> Self {
        let fields: Vec<_> = expression.split(' ').collect();
        let has_seconds = fields.len() == 6;
        let [second, minute, hour] =
            if has_seconds { [0, 1, 2].map(|at| fields[at]) } else { ["*", fields[0], fields[1]] };
        assert!(fields.iter().rev().take(3).all(|field| *field == "*"), "plans leave out days");
        Self { seconds: matched(second, 60), minutes: matched(minute, 60), hours: matched(hour, 24), has_seconds }
    }

    /// Whether they match what a clock shows.
    pub fn hold(&self, shown: &Shown) -> bool {
        let place = |value: u64| usize::try_from(value).expect("below 60");
        self.seconds[place(shown.second)] && self.minutes[place(shown.minute)] && self.hours[place(shown.hour)]
    }
}

/// For each value below `count` whether the field (`*`, `7`, `1-5`, with or without a step, several between commas) matches it.
fn matched(field: &str, count: u64) -> Vec<bool> {
    let number = |text: &str| text.parse::<u64>().expect("a plan's expression");
    let mut matched = vec![false; usize::try_from(count).expect("at most 60")];
    for term in field.split(',') {
        let (values, step) = term.split_once('/').map_or((term, 1), |(values, step)| (values, number(step)));
        let (first, last) = match values.split_once('-') {
            _ if values == "*" => (0, count - 1),
            Some((first, last)) => (number(first), number(last)),
            None => (number(values), number(values)),
        };
        for value in (first..=last).filter(|value| (value - first) % step == 0) {
            matched[usize::try_from(value).expect("below 60")] = true;
        }
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_show_what_calendars_say() {
        let [forward, back] = CLOCK_CHANGES.map(|change| change.as_micros() / 1_000_000);
        for (zone, time_s, expected) in [
            ("UTC", 1_767_225_599, "2025-12-31 WED#5 23:59:59"),
            ("UTC", 1_767_225_600, "2026-01-01 THU#1 00:00:00"),
            (ZONE, forward - 1, "2026-03-29 SUN#5 01:59:59"),
            (ZONE, forward, "2026-03-29 SUN#5 03:00:00"),
            (ZONE, back - 1, "2026-10-25 SUN#4 02:59:59"),
            (ZONE, back, "2026-10-25 SUN#4 02:00:00"),
            (WEST_ZONE, forward - 1, "2026-03-28 SAT#4 23:59:59"),
            (WEST_ZONE, back, "2026-10-25 SUN#4 00:00:00"),
        ] {
            let shown = Shown::at(zone, time_s);
            let Shown { hour, minute, second, .. } = shown;
            let day = format!("{} {}#{}", shown.date(), shown.weekday_name(), shown.nth());
            assert_eq!(format!("{day} {hour:02}:{minute:02}:{second:02}"), expected, "{zone} {time_s}");
        }
    }

    #[test]
    fn fields_match_what_they_say() {
        let matches = |expression: &str, hour, minute, second| {
            let shown = Shown { hour, minute, second, ..Shown::at("UTC", 1_767_225_600) };
            Fields::of(expression).hold(&shown)
        };
        for (expression, hour, minute, second, expected) in [
            ("*/10 * * * * *", 1, 2, 50, true),
            ("*/10 * * * * *", 1, 2, 51, false),
            ("15-45/10 * * * * *", 1, 2, 35, true),
            ("15-45/10 * * * * *", 1, 2, 55, false),
            ("0,20,21 * * * * *", 1, 2, 21, true),
            ("30 1-59/2 * * * *", 1, 3, 30, true),
            ("30 1-59/2 * * * *", 1, 2, 30, false),
            ("* 2 * * *", 2, 59, 17, true),
            ("* 2 * * *", 3, 59, 17, false),
        ] {
            assert_eq!(matches(expression, hour, minute, second), expected, "{expression} {hour}:{minute}:{second}");
        }
    }
}
