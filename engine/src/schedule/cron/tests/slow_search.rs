//! Agreement with an independent search that tries every minute or second, through jiff and without masks or tables.
//!
//! The histories of the shard core search with it too, through [`Cron::slow_fires_s`].

use super::*;
use jiff::{
    Span, ToSpan,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// One term of a field, with its meaning spelled out anew.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Star,
    StarStep(i16),
    One(i16),
    Range(i16, i16),
    RangeStep(i16, i16, i16),
    Unspecified,
    BeforeLast(i64),
    Nearest(i16),
    LastWorkday,
    Nth(i16, i64),
    LastOf(i16),
}

impl Term {
    /// Reads what [`Term::text`] writes for the terms that every field has.
    fn of(text: &str) -> Self {
        let number = |text: &str| text.parse().expect("a number");
        let (values, step) = text.split_once('/').map_or((text, None), |(values, step)| (values, Some(number(step))));
        let range = values.split_once('-').map(|(first, last)| (number(first), number(last)));
        match (range, step) {
            (Some((first, last)), Some(step)) => Self::RangeStep(first, last, step),
            (Some((first, last)), None) => Self::Range(first, last),
            (None, Some(step)) if values == "*" => Self::StarStep(step),
            (None, None) if values == "*" => Self::Star,
            (None, None) => Self::One(number(values)),
            (None, Some(_)) => panic!("`{text}` has a step and no range"),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Star => "*".into(),
            Self::StarStep(step) => format!("*/{step}"),
            Self::One(value) => value.to_string(),
            Self::Range(first, last) => format!("{first}-{last}"),
            Self::RangeStep(first, last, step) => format!("{first}-{last}/{step}"),
            Self::Unspecified => "?".into(),
            Self::BeforeLast(0) => "L".into(),
            Self::BeforeLast(before) => format!("L-{before}"),
            Self::Nearest(day) => format!("{day}W"),
            Self::LastWorkday => "LW".into(),
            Self::Nth(weekday, week) => format!("{weekday}#{week}"),
            Self::LastOf(weekday) => format!("{weekday}L"),
        }
    }

    /// Whether `value` is among those of a field that counts from `min` to `max` and round again.
    fn holds(&self, (min, max): (i16, i16), value: i16, date: Date) -> bool {
        let by_walk = |first: i16, last: i16, step: i16| {
            let steps = (last - first).rem_euclid(max - min + 1);
            // From Sunday to Sunday is a week.
            let steps = if last - first == 7 && max == 6 { 7 } else { steps };
            (0..=steps).step_by(step.try_into().expect("positive")).any(|walked| {
                let reached = first + walked;
                (reached - min).rem_euclid(max - min + 1) == value - min
            })
        };
        match *self {
            Self::Star | Self::Unspecified => true,
            Self::StarStep(step) => (value - min) % step == 0,
            Self::One(only) => by_walk(only, only, 1),
            Self::Range(first, last) => by_walk(first, last, 1),
            Self::RangeStep(first, last, step) => by_walk(first, last, step),
            Self::BeforeLast(before) => date + before.days() == date.last_of_month(),
            Self::Nearest(day) => {
                let workdays = days_of(date).filter(|other| is_workday(*other));
                let nearest = workdays.min_by_key(|other| (other.day() - i8::try_from(day).expect("a day")).abs());
                date.days_in_month() >= i8::try_from(day).expect("a day") && nearest == Some(date)
            }
            Self::LastWorkday => days_of(date).rfind(|other| is_workday(*other)) == Some(date),
            Self::Nth(weekday, week) => {
                let before = date - (7 * (week - 1)).days();
                is_weekday(date, weekday)
                    && before.month() == date.month()
                    && (before - 7.days()).month() != date.month()
            }
            Self::LastOf(weekday) => is_weekday(date, weekday) && (date + 7.days()).month() != date.month(),
        }
    }
}

fn days_of(date: Date) -> impl DoubleEndedIterator<Item = Date> {
    (0..date.days_in_month()).map(move |days| date.first_of_month() + i64::from(days).days())
}

fn is_workday(date: Date) -> bool {
    (1..=5).contains(&date.weekday().to_monday_one_offset())
}

fn is_weekday(date: Date, weekday: i16) -> bool {
    i16::from(date.weekday().to_sunday_zero_offset()) == weekday % 7
}

const SECOND: usize = 0;
const MINUTE: usize = 1;
const HOUR: usize = 2;
const DAY: usize = 3;
const WEEKDAY: usize = 5;
const YEAR: usize = 6;
/// Least and greatest value of each field.
const BOUNDS: [(i16, i16); 7] = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6), (1_970, 2_199)];

/// The seven fields; without seconds or years they are as if not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    terms: [Vec<Term>; 7],
    count: usize,
}

impl Fields {
    fn new(five: [Vec<Term>; 5], seconds: Option<Vec<Term>>, years: Option<Vec<Term>>) -> Self {
        let count = 5 + usize::from(seconds.is_some() || years.is_some()) + usize::from(years.is_some());
        let [minute, hour, day, month, weekday] = five;
        let seconds = seconds.unwrap_or_else(|| vec![Term::One(0)]);
        let years = years.unwrap_or_else(|| vec![Term::Star]);
        Self { terms: [seconds, minute, hour, day, month, weekday, years], count }
    }

    /// Reads five fields of terms that [`Term::of`] reads, and `@hourly`.
    pub(super) fn of(expression: &str) -> Self {
        let expression = if expression == "@hourly" { "0 * * * *" } else { expression };
        let terms: Vec<Vec<Term>> =
            expression.split(' ').map(|field| field.split(',').map(Term::of).collect()).collect();
        Self::new(terms.try_into().expect("five fields"), None, None)
    }

    pub(super) fn text(&self) -> String {
        let field = |terms: &Vec<Term>| terms.iter().map(Term::text).collect::<Vec<_>>().join(",");
        let written = if self.count == 5 { &self.terms[1..6] } else { &self.terms[..self.count] };
        written.iter().map(field).collect::<Vec<_>>().join(" ")
    }

    fn is_star(&self, field: usize) -> bool {
        matches!(self.terms[field][0], Term::Star | Term::StarStep(_) | Term::Unspecified)
    }

    fn holds(&self, field: usize, value: i16, date: Date) -> bool {
        self.terms[field].iter().any(|term| term.holds(BOUNDS[field], value, date))
    }

    fn shows(&self, local: DateTime, day_rule: DayRule) -> bool {
        let date = local.date();
        let day = || self.holds(DAY, local.day().into(), date);
        let weekday = || self.holds(WEEKDAY, local.weekday().to_sunday_zero_offset().into(), date);
        let both = day_rule == DayRule::And || self.is_star(DAY) || self.is_star(WEEKDAY);
        self.holds(SECOND, local.second().into(), date)
            && self.holds(MINUTE, local.minute().into(), date)
            && self.holds(HOUR, local.hour().into(), date)
            && self.holds(4, local.month().into(), date)
            && self.holds_year(local.year(), date)
            && if both { day() && weekday() } else { day() || weekday() }
    }

    /// The field ends in 2199, unless it leaves no year out.
    fn holds_year(&self, year: i16, date: Date) -> bool {
        let (first, last) = BOUNDS[YEAR];
        let is_all = || (first..=last).all(|year| self.holds(YEAR, year, date));
        if year <= last { self.holds(YEAR, year, date) } else { is_all() }
    }

    fn policies(&self, options: &CronOptions) -> (GapPolicy, OverlapPolicy) {
        let goes_by_elapsed_time = self.is_star(MINUTE) || self.is_star(HOUR);
        let gap = if goes_by_elapsed_time { GapPolicy::Skip } else { GapPolicy::FireAfter };
        let overlap = if goes_by_elapsed_time { OverlapPolicy::Both } else { OverlapPolicy::First };
        (options.gap.unwrap_or(gap), options.overlap.unwrap_or(overlap))
    }

    /// All fires after `from` and up to `to`, in seconds: every local time that matches, where the policies put it.
    pub(super) fn fires_s(
        &self,
        zone: &TimeZone,
        from: jiff::Timestamp,
        to: jiff::Timestamp,
        options: &CronOptions,
    ) -> BTreeSet<i64> {
        let (gap, overlap) = self.policies(options);
        let mut fires_s = BTreeSet::new();
        let start = zone.to_datetime(from) - 26.hours();
        let mut local = start.with().second(0).subsec_nanosecond(0).build().expect("valid");
        // A clock that was turned back may have shown later times before `to` than at `to`.
        let end = zone.to_datetime(to) + 26.hours();
        let step: Span = if self.count == 5 { 1.minute() } else { 1.second() };
        let mut in_gap_matched = false;
        while local <= end {
            let is_shown = self.shows(local, options.day_rule);
            let mut fire = |offset: jiff::tz::Offset| {
                fires_s.insert(offset.to_timestamp(local).expect("in range").as_second());
            };
            match zone.to_ambiguous_timestamp(local).offset() {
                AmbiguousOffset::Gap { .. } => in_gap_matched |= is_shown && gap == GapPolicy::FireAfter,
                AmbiguousOffset::Unambiguous { offset } => {
                    if std::mem::take(&mut in_gap_matched) || is_shown {
                        fire(offset);
                    }
                }
                AmbiguousOffset::Fold { before, after } if is_shown => {
                    if overlap != OverlapPolicy::Second {
                        fire(before);
                    }
                    if overlap != OverlapPolicy::First {
                        fire(after);
                    }
                }
                AmbiguousOffset::Fold { .. } => {}
            }
            local += step;
        }
        fires_s.retain(|fire_s| (from.as_second() + 1..=to.as_second()).contains(fire_s));
        fires_s
    }
}

impl Cron {
    /// The fires that the slow search finds after `from_s` and up to `to_s`, in seconds.
    pub(crate) fn slow_fires_s(expression: &str, zone: &str, from_s: i64, to_s: i64) -> BTreeSet<i64> {
        let [from, to] = [from_s, to_s].map(|second| jiff::Timestamp::from_second(second).expect("in range"));
        Fields::of(expression).fires_s(&jiff_zone(zone), from, to, &CronOptions::default())
    }
}

const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Antarctica/Casey",
];

/// A term that every field has; ranges wrap around where the field does.
fn term(field: usize) -> BoxedStrategy<Term> {
    let (min, last) = BOUNDS[field];
    let max = if field == WEEKDAY { 7 } else { last };
    let wraps = field != DAY && field != YEAR;
    let range = (min..=max, min..=max).prop_map(move |(a, b)| if wraps { (a, b) } else { (a.min(b), a.max(b)) });
    let steps = 1..=last - min + 1;
    prop_oneof![
        steps.clone().prop_map(Term::StarStep),
        (min..=max).prop_map(Term::One),
        range.clone().prop_map(|(first, last)| Term::Range(first, last)),
        (range, steps).prop_map(|((first, last), step)| Term::RangeStep(first, last, step)),
    ]
    .boxed()
}

fn field(field: usize, star_weight: u32) -> BoxedStrategy<Vec<Term>> {
    prop_oneof![
        star_weight => Just(vec![Term::Star]),
        4 => prop::collection::vec(term(field), 1..4),
    ]
    .boxed()
}

fn day_field() -> BoxedStrategy<Vec<Term>> {
    let term = prop_oneof![
        4 => term(DAY),
        1 => (0..31_i64).prop_map(Term::BeforeLast),
        1 => (1..32_i16).prop_map(Term::Nearest),
        1 => Just(Term::LastWorkday),
    ];
    prop_oneof![
        12 => Just(vec![Term::Star]),
        6 => prop::collection::vec(term, 1..4),
    ]
    .boxed()
}

fn weekday_field() -> BoxedStrategy<Vec<Term>> {
    let term = prop_oneof![
        4 => term(WEEKDAY),
        1 => (0..8_i16, 1..6_i64).prop_map(|(weekday, week)| Term::Nth(weekday, week)),
        1 => (0..8_i16).prop_map(Term::LastOf),
    ];
    prop_oneof![
        12 => Just(vec![Term::Star]),
        6 => prop::collection::vec(term, 1..4),
        1 => Just(vec![Term::Unspecified]),
    ]
    .boxed()
}

pub(super) fn fields() -> impl Strategy<Value = Fields> {
    // Clocks change at night: small hours matter most.
    let night = prop::collection::vec((0..5_i16).prop_map(Term::One), 1..4);
    let hour = prop_oneof![2 => field(HOUR, 2), 1 => night];
    let seconds = prop_oneof![4 => Just(None), 1 => field(SECOND, 1).prop_map(Some)];
    let years = prop_oneof![6 => Just(None), 1 => field(YEAR, 1).prop_map(Some)];
    (field(MINUTE, 1), hour, day_field(), field(4, 20), weekday_field(), seconds, years).prop_map(
        |(minute, hour, day, month, weekday, seconds, years)| {
            Fields::new([minute, hour, day, month, weekday], seconds, years)
        },
    )
}

fn options() -> impl Strategy<Value = CronOptions> {
    let gap = prop::sample::select(vec![None, Some(GapPolicy::Skip), Some(GapPolicy::FireAfter)]);
    let overlaps = vec![None, Some(OverlapPolicy::First), Some(OverlapPolicy::Second), Some(OverlapPolicy::Both)];
    let day_rules = prop::sample::select(DayRule::ALL);
    (gap, prop::sample::select(overlaps), day_rules).prop_map(|(gap, overlap, day_rule)| CronOptions {
        hash: None,
        gap,
        overlap,
        day_rule,
    })
}

/// A zone and the start of a window of three days, mostly around a change of that zone's clock.
fn window() -> impl Strategy<Value = (&'static str, i64)> {
    let last_s = 100 * 365 * 86_400i64;
    let around = (86_400..last_s, 0..3 * 86_400i64).prop_map(|(near_s, lead_s)| (Some(near_s), lead_s));
    let anywhere = (86_400 * 5..10 * last_s).prop_map(|start_s| (None, start_s));
    let start = prop_oneof![4 => around, 1 => anywhere];
    (prop::sample::select(&ZONES[..]), start).prop_map(|(zone, (near_s, start_s))| {
        let change_s = near_s.map_or(0, |near_s| {
            let near = jiff::Timestamp::from_second(near_s).expect("in range");
            let zone = jiff_zone(zone);
            let change = zone.following(near).next().or_else(|| zone.preceding(near).next());
            change.map_or(near_s, |change| change.timestamp().as_second().max(near_s % 864_000))
        });
        (zone, if near_s.is_some() { (change_s - start_s).max(0) } else { start_s })
    })
}

/// The next fire of `cron` after `after`, in seconds.
fn next_s(cron: &Cron, after: Timestamp) -> i64 {
    cron.next_after(after).map_or(i64::MAX, |fire| {
        assert_eq!(fire.as_micros() % 1_000_000, 0);
        i64::try_from(fire.as_micros() / 1_000_000).expect("in range")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    #[cfg_attr(miri, ignore = "searches days minute by minute")]
    fn no_fire_is_lost_and_none_is_doubled(
        (zone, start_s) in window(),
        fields in fields(),
        options in options(),
        after_s in prop::collection::vec(0..86_400i64, 8),
    ) {
        let text = fields.text();
        let compiled = match Cron::with_options(&text, zones().get(zone).expect("known zone"), options) {
            Err(CronError::NeverFires { .. }) => return Err(TestCaseError::reject("no such date")),
            other => other.expect("valid expression"),
        };
        // Every second is tried for a day less.
        let days = if fields.count == 5 { 3 } else { 1 };
        let end_s = start_s + days * 86_400;
        let [start, end] = [start_s, end_s].map(|second| jiff::Timestamp::from_second(second).expect("in range"));
        let expected = fields.fires_s(&jiff_zone(zone), start, end, &options);

        let seconds = |second: i64| Timestamp::from_secs(second.try_into().expect("after the epoch"));
        let mut found = BTreeSet::new();
        let mut last_s = next_s(&compiled, seconds(start_s));
        while last_s <= end_s {
            found.insert(last_s);
            let following_s = next_s(&compiled, seconds(last_s));
            prop_assert!(following_s > last_s);
            last_s = following_s;
        }
        prop_assert_eq!(&found, &expected, "`{}` in {} from {}, {:?}", text, zone, start, options);

        for after_s in after_s {
            let after_s = start_s + after_s * days;
            let first = expected.range(after_s + 1..).next().copied();
            let found_s = next_s(&compiled, Timestamp::from_micros(seconds(after_s).as_micros() + 999_999));
            prop_assert_eq!(first.unwrap_or(last_s), found_s, "`{}` in {} after {}", text, zone, after_s);
        }
    }
}
