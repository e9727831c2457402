//! A reader of the sentences that schedules are explained with: what it understands is what the schedule holds.

use super::slow_search::fields;
use crate::schedule::cron::{
    pattern::{DaysFrom, Pattern, Rare},
    syntax,
    wording::sentence,
};
use proptest::prelude::*;
use tickwheel_wire::job::DayRule;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: &str = "January February March April May June July August September October November December";
const WEEKS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// What a reader has understood so far.
#[derive(Debug)]
struct Reading {
    /// The values of seconds, minutes and hours, where a condition names them.
    clock: [Option<Vec<u32>>; 3],
    by_date: Option<(u32, Rare)>,
    by_weekday: Option<(u8, Rare)>,
    days_from: DaysFrom,
    months: Vec<u32>,
    years: Option<Vec<u32>>,
}

fn number(text: &str) -> u32 {
    text.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

fn weekday(text: &str) -> u32 {
    number_in(WEEKDAYS, text).unwrap_or_else(|| panic!("`{text}` is no weekday"))
}

fn number_in<'a>(names: impl IntoIterator<Item = &'a str>, text: &str) -> Option<u32> {
    names.into_iter().position(|name| name == text).map(|place| place.try_into().expect("few"))
}

/// `5`, `5 and 7`, `1 to 4, 7 and 9`.
fn list(text: &str, value: impl Fn(&str) -> u32) -> Vec<u32> {
    let parts = text.split(", ").flat_map(|part| part.split(" and "));
    let range = |part: &str| match part.split_once(" to ") {
        Some((first, last)) => value(first)..=value(last),
        None => value(part)..=value(part),
    };
    parts.flat_map(range).collect()
}

/// `9 to 17`, every `step`-th.
fn steps(range: &str, step: u32) -> Vec<u32> {
    let (first, last) = range.split_once(" to ").expect("a range");
    (number(first)..=number(last)).step_by(step as usize).collect()
}

fn mask(values: impl IntoIterator<Item = u32>) -> u64 {
    values.into_iter().fold(0, |mask, value| mask | 1 << value)
}

/// The conditions of a sentence. A part that begins with a digit, or with a name behind another one, continues a list.
fn conditions(sentence: &str) -> Vec<String> {
    let mut conditions: Vec<String> = Vec::new();
    for part in sentence.split(", ") {
        let is_name = |text: &str| text.contains(|c: char| c.is_ascii_uppercase());
        let begins_with = |test: fn(&char) -> bool| part.chars().next().is_some_and(|first| test(&first));
        match conditions.last_mut() {
            Some(last)
                if begins_with(char::is_ascii_digit) || (begins_with(char::is_ascii_uppercase) && is_name(last)) =>
            {
                *last = format!("{last}, {part}");
            }
            _ => conditions.push(part.into()),
        }
    }
    conditions
}

impl Reading {
    fn of(sentence: &str) -> Self {
        let mut reading = Self {
            clock: [None, None, None],
            by_date: None,
            by_weekday: None,
            days_from: DaysFrom::Both,
            months: (1..=12).collect(),
            years: None,
        };
        for condition in conditions(sentence) {
            let is_read = reading.read_clock(&condition) || reading.read_calendar(&condition);
            if !is_read {
                reading.read_days(&condition);
            }
        }
        reading
    }

    /// Whether `condition` is about the time of day.
    fn read_clock(&mut self, condition: &str) -> bool {
        if let Some(times) = condition.strip_prefix("at ").filter(|times| times.contains(':')) {
            let times = times.split(", ").flat_map(|part| part.split(" and "));
            let times: Vec<Vec<u32>> = times.map(|time| time.split(':').map(number).collect()).collect();
            self.clock = [2, 1, 0].map(|place| Some(times.iter().map(|time| *time.get(place).unwrap_or(&0)).collect()));
            return true;
        }
        for (place, (unit, count)) in [("second", 60), ("minute", 60), ("hour", 24)].into_iter().enumerate() {
            let words: Vec<_> = condition.split(' ').collect();
            let is_unit = |word: &str| word.strip_suffix('s').unwrap_or(word) == unit;
            let values = match words[..] {
                ["every", word] if word == unit => (0..count).collect(),
                ["every", word, "from", ..] if word == unit => steps(&words[3..].join(" "), 1),
                ["every", step, word] if is_unit(word) => (0..count).step_by(number(step) as usize).collect(),
                ["every", step, word, "from", ..] if is_unit(word) => steps(&words[4..].join(" "), number(step)),
                ["in", "every", step, word] if word == unit => (0..count).step_by(number(step) as usize).collect(),
                ["in", "every", step, word, "from", ..] if word == unit => steps(&words[5..].join(" "), number(step)),
                ["in" | "at", word, ..] if is_unit(word) => list(&words[2..].join(" "), number),
                _ => continue,
            };
            assert!(self.clock[place..].iter().all(Option::is_none), "`{condition}` is not finer than the one before");
            self.clock[place] = Some(values);
            return true;
        }
        false
    }

    /// Whether `condition` is about months or years.
    fn read_calendar(&mut self, condition: &str) -> bool {
        let month = |text: &str| number_in(MONTHS.split(' '), text).map(|place| place + 1);
        let Some(rest) = condition.strip_prefix("in ").or_else(|| condition.strip_prefix("from ")) else {
            let years = condition.strip_prefix("every ").and_then(|rest| rest.split_once(" years from "));
            self.years = years.map(|(step, range)| steps(range, number(step))).or(self.years.take());
            return years.is_some();
        };
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            self.years = Some(list(rest, number));
        } else {
            self.months = list(rest, |text| month(text).unwrap_or_else(|| panic!("`{text}` is no month")));
        }
        true
    }

    fn read_days(&mut self, condition: &str) {
        if condition == "every day" {
        } else if let Some(condition) = condition.strip_prefix("and only ") {
            self.by_weekday = Some(days_of_week(condition));
        } else if let Some((by_date, by_weekday)) = condition.split_once(" or ") {
            (self.by_date, self.by_weekday) = (Some(days_of_month(by_date)), Some(days_of_week(by_weekday)));
            self.days_from = DaysFrom::Either;
        } else if WEEKDAYS.iter().any(|day| condition.replace("(Monday to Friday)", "").contains(day)) {
            self.by_weekday = Some(days_of_week(condition));
        } else {
            self.by_date = Some(days_of_month(condition));
        }
    }

    fn pattern(self) -> Pattern {
        let finest = self.clock.iter().position(Option::is_some).expect("a time of day");
        assert!(finest < 2, "hours alone are no time");
        let clock = [(0, 60), (1, 60), (2, 24)].map(|(place, count)| match &self.clock[place] {
            Some(values) => mask(values.iter().copied()),
            None if place < finest => 1,
            None => mask(0..count),
        });
        let (days, by_date) = self.by_date.unwrap_or((u32::MAX - 1, Rare::default()));
        let (weekdays, by_weekday) = self.by_weekday.unwrap_or((0x7F, Rare::default()));
        let years = self.years.map(|years| {
            let mut bits = [0; 4];
            years.into_iter().for_each(|year| bits[(year as usize - 1_970) / 64] |= 1 << ((year - 1_970) % 64));
            bits
        });
        let Rare { nth_weekdays, last_weekdays, .. } = by_weekday;
        let rare = Rare { nth_weekdays, last_weekdays, years, ..by_date };
        Pattern {
            seconds: clock[0],
            minutes: clock[1],
            hours: clock[2].try_into().expect("24 bits"),
            days,
            months: mask(self.months).try_into().expect("13 bits"),
            weekdays,
            days_from: self.days_from,
            rare: Some(rare).filter(|rare| *rare != Rare::default()).map(Box::new),
        }
    }
}

fn days_of_month(text: &str) -> (u32, Rare) {
    let (mut days, mut rare) = (Vec::new(), Rare::default());
    for part in text.split(" and on ") {
        let words: Vec<_> = part.trim_start_matches("on ").split(' ').collect();
        match words[..] {
            ["every", step, "days", "from", "day", first, "to", "day", last, "of", "the", "month"] => {
                days.extend(steps(&format!("{first} to {last}"), number(step)));
            }
            ["day" | "days", .., "of", "the", "month"] => {
                days.extend(list(&words[1..words.len() - 3].join(" "), number));
            }
            ["the", "last", "day", "of", "the", "month"] => rare.before_last |= 1,
            ["the", "day", "before", "the", "last", "day", "of", "the", "month"] => rare.before_last |= 1 << 1,
            ["the", nth, "day", "before", "the", "last", "day", "of", "the", "month", ref existing @ ..] => {
                assert_eq!(existing.is_empty(), number(nth) < 28);
                rare.before_last |= 1 << number(nth);
            }
            [
                "the",
                "month's",
                "weekday",
                "(Monday",
                "to",
                "Friday)",
                "nearest",
                "to",
                "day",
                day,
                ref existing @ ..,
            ] => {
                assert_eq!(existing.is_empty(), number(day) <= 28);
                rare.nearest_to |= 1 << number(day);
            }
            ["the", "last", "weekday", "(Monday", "to", "Friday)", "of", "the", "month"] => rare.last_workday = true,
            _ => panic!("`{part}` says nothing of days of the month"),
        }
    }
    (mask(days).try_into().expect("32 bits"), rare)
}

fn days_of_week(text: &str) -> (u8, Rare) {
    let (mut days, mut rare) = (0, Rare::default());
    for part in text.split(" and on ") {
        let words: Vec<_> = part.trim_start_matches("on ").split(' ').collect();
        match words[..] {
            ["the", "last", day, "of", "the", "month"] => rare.last_weekdays |= 1 << weekday(day),
            ["the", week, day, "of", "the", "month"] => {
                let week = number_in(WEEKS, week).expect("first to fifth");
                rare.nth_weekdays[week as usize] |= 1 << weekday(day);
            }
            [first, "to", last] if !part.starts_with("on ") => {
                let (first, last) = (weekday(first), weekday(last));
                let last = if first <= last { last } else { last + 7 };
                days |= mask((first..=last).map(|day| day % 7));
            }
            _ => days |= mask(list(&words.join(" "), weekday)),
        }
    }
    (days.try_into().expect("7 bits"), rare)
}

/// `pattern` without what makes no difference beside a field that holds every day.
fn plain(mut pattern: Pattern) -> Pattern {
    let (every_date, every_weekday) = (pattern.days == u32::MAX - 1, pattern.weekdays == 0x7F);
    let either = pattern.days_from == DaysFrom::Either;
    let mut rare = pattern.rare.take().map_or_else(Rare::default, |rare| *rare);
    if every_date || (either && every_weekday) {
        pattern.days = u32::MAX - 1;
        rare = Rare { before_last: 0, nearest_to: 0, last_workday: false, ..rare };
    }
    if every_weekday || (either && every_date) {
        pattern.weekdays = 0x7F;
        rare = Rare { nth_weekdays: [0; 5], last_weekdays: 0, ..rare };
    }
    if every_date || every_weekday {
        pattern.days_from = DaysFrom::Both;
    }
    Pattern { rare: Some(rare).filter(|rare| *rare != Rare::default()).map(Box::new), ..pattern }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 4_000 }))]

    #[test]
    fn a_sentence_says_all_that_a_schedule_holds_and_no_more(
        fields in fields(),
        day_rule in prop::sample::select(DayRule::ALL),
    ) {
        let text = fields.text();
        let Ok(parsed) = syntax::parse(&text, day_rule) else { return Err(TestCaseError::reject("no such date")) };
        let sentence = sentence(&parsed.pattern);
        let read = Reading::of(&sentence).pattern();
        prop_assert_eq!(read, plain(parsed.pattern), "`{}`: {}", text, sentence);
    }
}
