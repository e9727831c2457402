//! Recurrence rules: on which days an event comes again.
//!
//! Each day of a span is looked at by itself: slow, but plain, and the span is bounded.
//!
//! Source: RFC 5545, section 3.3.10. Deliberately absent: parts of a day (`HOURLY`, `BYHOUR` and kin), `BYSETPOS`, `BYWEEKNO`,
//! `BYYEARDAY`, weeks that do not begin on Monday.

use jiff::{
    Unit,
    civil::{Date, Weekday},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frequency {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recurrence {
    frequency: Frequency,
    interval: i32,
    pub count: Option<u32>,
    /// As it is written.
    pub until: Option<String>,
    months: Vec<i8>,
    month_days: Vec<i8>,
    /// With their number in the month or year: 0: each; below it: from the end.
    weekdays: Vec<(i16, Weekday)>,
}

/// Part of a rule that is wrong, or that is not known here.
pub(super) struct Unknown(pub String);

impl Recurrence {
    pub fn parse(text: &str) -> Result<Self, Unknown> {
        let mut rule = Self {
            frequency: Frequency::Daily,
            interval: 1,
            count: None,
            until: None,
            months: Vec::new(),
            month_days: Vec::new(),
            weekdays: Vec::new(),
        };
        let mut has_frequency = false;
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let taken = part.split_once('=').and_then(|(name, value)| {
                has_frequency |= name.eq_ignore_ascii_case("FREQ");
                rule.take(&name.to_ascii_uppercase(), &value.to_ascii_uppercase())
            });
            taken.ok_or_else(|| Unknown(part.to_owned()))?;
        }
        // The number of a weekday counts within a month or a year.
        let counts = matches!(rule.frequency, Frequency::Monthly | Frequency::Yearly);
        let is_numbered = rule.weekdays.iter().any(|(number, _)| *number != 0);
        let is_sensible = has_frequency && (counts || !is_numbered) && (rule.count.is_none() || rule.until.is_none());
        if is_sensible { Ok(rule) } else { Err(Unknown(text.to_owned())) }
    }

    fn take(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "FREQ" => {
                self.frequency = match value {
                    "DAILY" => Frequency::Daily,
                    "WEEKLY" => Frequency::Weekly,
                    "MONTHLY" => Frequency::Monthly,
                    "YEARLY" => Frequency::Yearly,
                    _ => return None,
                }
            }
            "INTERVAL" => self.interval = value.parse().ok().filter(|interval| (1..=1_000).contains(interval))?,
            "COUNT" => self.count = Some(value.parse().ok().filter(|count| *count > 0)?),
            "UNTIL" => self.until = Some(value.to_owned()),
            "BYMONTH" => self.months = list(value, |month| number(month, 1..=12))?,
            "BYMONTHDAY" => {
                self.month_days = list(value, |day| number(day, -31..=31).filter(|day| *day != 0))?;
            }
            "BYDAY" => self.weekdays = list(value, weekday)?,
            // Where weeks begin matters only if some are left out.
            "WKST" if value == "MO" => {}
            _ => return None,
        }
        Some(())
    }

    /// The weekdays of an event on `first` that comes each week without end, as exclusions name them.
    pub fn each_week(&self, first: Date) -> Option<String> {
        let is_plain = self.is_endless() && self.months.is_empty() && self.month_days.is_empty();
        if self.frequency != Frequency::Weekly || !is_plain {
            return None;
        }
        let days = if self.weekdays.is_empty() { vec![first.weekday()] } else { self.days_of_week() };
        Some(days.into_iter().map(|day| name(day).to_uppercase()).collect::<Vec<_>>().join(","))
    }

    /// Whether an event comes on its date each year without end.
    pub fn is_each_year(&self) -> bool {
        let is_plain = self.months.is_empty() && self.month_days.is_empty() && self.weekdays.is_empty();
        self.frequency == Frequency::Yearly && is_plain && self.is_endless()
    }

    fn is_endless(&self) -> bool {
        self.interval == 1 && self.count.is_none() && self.until.is_none()
    }

    fn days_of_week(&self) -> Vec<Weekday> {
        self.weekdays.iter().map(|(_, day)| *day).collect()
    }

    /// The days from `from` to `to` on which an event comes that first came on `first`. What is counted is counted from the first.
    pub fn days(&self, first: Date, from: Date, to: Date) -> impl Iterator<Item = Date> {
        let start = if self.count.is_some() { first } else { first.max(from) };
        let days = start.series(jiff::Span::new().days(1)).take_while(move |day| *day <= to);
        let coming = days.filter(move |day| *day == first || self.holds(*day, first));
        coming.take(self.count.map_or(usize::MAX, |count| count as usize)).filter(move |day| *day >= from)
    }

    fn holds(&self, day: Date, first: Date) -> bool {
        let passed = match self.frequency {
            Frequency::Daily => days_between(first, day),
            Frequency::Weekly => days_between(week_start(first), week_start(day)) / 7,
            Frequency::Monthly => {
                12 * (i32::from(day.year()) - i32::from(first.year())) + i32::from(day.month())
                    - i32::from(first.month())
            }
            Frequency::Yearly => i32::from(day.year()) - i32::from(first.year()),
        };
        passed % self.interval == 0 && self.holds_month(day, first) && self.holds_day(day, first)
    }

    fn holds_month(&self, day: Date, first: Date) -> bool {
        let follows_first =
            self.frequency == Frequency::Yearly && self.weekdays.is_empty() && self.month_days.is_empty();
        match self.months.is_empty() {
            true => !follows_first || day.month() == first.month(),
            false => self.months.contains(&day.month()),
        }
    }

    fn holds_day(&self, day: Date, first: Date) -> bool {
        let from_end = day.day() - day.days_in_month() - 1;
        let by_date = self.month_days.contains(&day.day()) || self.month_days.contains(&from_end);
        let by_weekday = self.weekdays.iter().any(|(number, weekday)| {
            *weekday == day.weekday() && (*number == 0 || self.numbers_of(day).contains(number))
        });
        match (self.month_days.is_empty(), self.weekdays.is_empty()) {
            (true, true) => match self.frequency {
                Frequency::Daily => true,
                Frequency::Weekly => day.weekday() == first.weekday(),
                Frequency::Monthly | Frequency::Yearly => day.day() == first.day(),
            },
            (false, true) => by_date,
            (true, false) => by_weekday,
            (false, false) => by_date && by_weekday,
        }
    }

    /// Which of its weekday a day is, from the beginning and from the end: of the year if the rule names no month, else of the month.
    fn numbers_of(&self, day: Date) -> [i16; 2] {
        let is_yearly = self.frequency == Frequency::Yearly && self.months.is_empty();
        let (place, length) = match is_yearly {
            true => (day.day_of_year(), day.days_in_year()),
            false => (day.day().into(), day.days_in_month().into()),
        };
        [(place - 1) / 7 + 1, -((length - place) / 7 + 1)]
    }
}

fn list<T>(value: &str, item: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    value.split(',').map(item).collect()
}

fn number(text: &str, allowed: std::ops::RangeInclusive<i8>) -> Option<i8> {
    text.parse().ok().filter(|number| allowed.contains(number))
}

/// Reads `MO`, `2SU` and `-1FR`.
fn weekday(text: &str) -> Option<(i16, Weekday)> {
    let (number, day) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let day = [
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
        Weekday::Thursday,
        Weekday::Friday,
        Weekday::Saturday,
        Weekday::Sunday,
    ]
    .into_iter()
    .find(|weekday| name(*weekday)[..2].eq_ignore_ascii_case(day))?;
    let number = if number.is_empty() { 0 } else { number.parse().ok().filter(|number| *number != 0)? };
    Some((number, day))
}

const fn name(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    }
}

fn week_start(day: Date) -> Date {
    day.checked_sub(jiff::Span::new().days(i64::from(day.weekday().to_monday_zero_offset()))).unwrap_or(day)
}

fn days_between(from: Date, to: Date) -> i32 {
    from.until((Unit::Day, to)).map_or(0, |span| span.get_days())
}
