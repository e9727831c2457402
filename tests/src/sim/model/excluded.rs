//! Times at which a job does not fire, looked at second by second.

use super::calendars::{Calendars, named};
use crate::sim::clock::{Fields, Shown, weekday_named};
use tickwheel_wire::{
    Timestamp,
    job::{JobSpec, ScheduleSpec},
};

/// What a job's exclusions say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Each with its zone, those of calendars too.
    entries: Vec<(String, Entry)>,
    names_calendars: bool,
}

/// What a clock may show so that the job does not fire.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// Days as they are written, both included. As texts they are in order.
    Days(String, String),
    /// A day of every year, as it is written.
    DayOfYear(String),
    /// Days of the week, every one or one of each month, by number.
    DaysOfWeek(Vec<(u64, Option<u64>)>),
    /// From a second on and before another, as they are written.
    Span(String, String),
    /// What a cron expression matches.
    Matched(Fields),
}

impl Entry {
    fn of(text: &str) -> Self {
        if let Some(expression) = text.strip_prefix("cron ") {
            return Self::Matched(Fields::of(expression));
        }
        match text.split_once("..") {
            Some((first, last)) if first.contains('T') => Self::Span(with_seconds(first), with_seconds(last)),
            Some((first, last)) => Self::Days(first.to_owned(), last.to_owned()),
            None if text.len() == "12-25".len() && text.contains('-') => Self::DayOfYear(text.to_owned()),
            None if text.starts_with(|first: char| first.is_ascii_digit()) => {
                Self::Days(text.to_owned(), text.to_owned())
            }
            None => {
                let names = match text {
                    "weekends" => "SAT,SUN",
                    "weekdays" => "MON,TUE,WED,THU,FRI",
                    names => names,
                };
                let of_name = |name: &str| match name.split_once('#') {
                    Some((name, nth)) => (weekday_named(name), Some(nth.parse().expect("a number"))),
                    None => (weekday_named(name), None),
                };
                Self::DaysOfWeek(names.split(',').map(of_name).collect())
            }
        }
    }

    fn holds(&self, shown: &Shown) -> bool {
        let date = shown.date();
        match self {
            Self::Days(first, last) => (first..=last).contains(&&date),
            Self::DayOfYear(day) => date.ends_with(day.as_str()),
            Self::DaysOfWeek(days) => {
                days.iter().any(|(weekday, nth)| *weekday == shown.weekday && nth.is_none_or(|nth| nth == shown.nth()))
            }
            Self::Span(from, until) => {
                let now = format!("{date}T{:02}:{:02}:{:02}", shown.hour, shown.minute, shown.second);
                (from..until).contains(&&now)
            }
            Self::Matched(fields) => fields.hold(shown),
        }
    }

    /// An entry that holds at some second does so for all of the stretch of so many seconds around it: clocks are set at whole hours.
    const fn stretch_s(&self) -> u64 {
        match self {
            Self::Days(..) | Self::DayOfYear(_) | Self::DaysOfWeek(_) => 3_600,
            Self::Matched(fields) if !fields.has_seconds => 60,
            Self::Matched(_) | Self::Span(..) => 1,
        }
    }
}

fn with_seconds(time: &str) -> String {
    if time.len() == "2026-01-01T00:00".len() { format!("{time}:00") } else { time.to_owned() }
}

impl Excluded {
    /// Those of a definition. A calendar that is not there says nothing.
    pub fn of(spec: &JobSpec<'_>, calendars: &Calendars) -> Self {
        let mut zone = std::iter::once(spec.schedule)
            .chain(spec.also.iter())
            .find_map(|schedule| match schedule {
                ScheduleSpec::Cron { zone, .. } => Some(zone),
                _ => None,
            })
            .unwrap_or("UTC");
        let mut entries = Vec::new();
        for line in spec.exclusions.lines() {
            if let Some(name) = line.strip_prefix("zone ") {
                zone = name;
            } else if let Some(name) = line.strip_prefix("calendar ") {
                // Its zones end with it.
                let mut zone = zone;
                for line in calendars.get(spec.tenant, name).unwrap_or_default().lines() {
                    match line.strip_prefix("zone ") {
                        Some(name) => zone = name,
                        None => entries.push((zone.to_owned(), Entry::of(line))),
                    }
                }
            } else {
                entries.push((zone.to_owned(), Entry::of(line)));
            }
        }
        Self { entries, names_calendars: named(spec.exclusions).next().is_some() }
    }

    /// Whether they say nothing, and no calendar could.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.names_calendars
    }

    /// Whether they name calendars.
    pub const fn names_calendars(&self) -> bool {
        self.names_calendars
    }

    /// If the job does not fire at `time`, a later time up to which it does not either.
    pub fn until(&self, time: Timestamp) -> Option<Timestamp> {
        let time_s = time.as_micros() / 1_000_000;
        let holding = self.entries.iter().filter(|(zone, entry)| entry.holds(&Shown::at(zone, time_s)));
        let stretch_s = holding.map(|(_, entry)| entry.stretch_s()).max()?;
        Some(Timestamp::from_secs((time_s / stretch_s + 1) * stretch_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::ZONE;

    #[test]
    fn an_entry_excludes_what_it_says() {
        // 2026-01-01T00:00:00Z, a Thursday.
        const NEW_YEAR_S: i64 = 1_767_225_600;
        for (entries, offset_s, expected) in [
            ("2026-01-01", 0, Some(3_600)),
            ("2026-01-01", -1, None),
            ("2025-12-30..2025-12-31", -1, Some(0)),
            ("2025-12-30..2025-12-31", 0, None),
            ("12-31", -1, Some(0)),
            ("01-01", -1, None),
            ("THU", 86_399, Some(86_400)),
            ("THU#2", 0, None),
            ("WED#5,SUN", -86_400, Some(-82_800)),
            ("weekdays", 0, Some(3_600)),
            ("weekends", 0, None),
            ("2026-01-01T00:00..2026-01-01T00:00:30", 29, Some(30)),
            ("2026-01-01T00:00..2026-01-01T00:00:30", 30, None),
            ("cron 0-4 * * * *", 299, Some(300)),
            ("cron 0-4 * * * *", 300, None),
            ("cron 10-19 * * * * *", 19, Some(20)),
            ("cron 10-19 * * * * *", 20, None),
            ("zone Europe/Berlin\n2026-01-01", -3_600, Some(0)),
            ("zone Europe/Berlin\n2026-01-01", -3_601, None),
        ] {
            let schedule = ScheduleSpec::Interval { every_us: 1_000_000, anchor: Timestamp::EPOCH };
            let spec = JobSpec { exclusions: entries, ..JobSpec::new("acme", "job", "work", schedule) };
            let at = |offset_s: i64| Timestamp::from_secs(u64::try_from(NEW_YEAR_S + offset_s).expect("after 1970"));
            assert_eq!(
                Excluded::of(&spec, &Calendars::default()).until(at(offset_s)),
                expected.map(at),
                "{entries} {offset_s}"
            );
        }
    }

    #[test]
    fn entries_without_a_zone_go_by_that_of_the_first_cron_expression() {
        let schedule = ScheduleSpec::Cron { expression: "* * * * *", zone: ZONE };
        let spec = JobSpec { exclusions: "2026-01-01", ..JobSpec::new("acme", "job", "work", schedule) };
        assert!(Excluded::of(&spec, &Calendars::default()).until(Timestamp::from_secs(1_767_222_000)).is_some());
    }
}
