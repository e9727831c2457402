//! Agreement with an independent search that tries every minute, through jiff and without masks or tables.
//!
//! The histories of the shard core search with it too, through [`Cron::slow_fires_s`].

use super::*;
use jiff::{ToSpan, civil::DateTime, tz::AmbiguousOffset, tz::TimeZone};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// One term of a field, with its meaning spelled out anew.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Star,
    StarStep(u8),
    One(u8),
    Range(u8, u8),
    RangeStep(u8, u8, u8),
}

impl Term {
    /// Reads what [`Term::text`] writes.
    fn of(text: &str) -> Self {
        let number = |text: &str| text.parse::<u8>().expect("a number");
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
        }
    }

    fn holds(&self, min: u8, value: u8) -> bool {
        match *self {
            Self::Star => true,
            Self::StarStep(step) => (value - min).is_multiple_of(step),
            Self::One(only) => value == only,
            Self::Range(first, last) => (first..=last).contains(&value),
            Self::RangeStep(first, last, step) => {
                (first..=last).contains(&value) && (value - first).is_multiple_of(step)
            }
        }
    }
}

/// The five fields, each with its least value and its terms.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields([(u8, Vec<Term>); 5]);

impl Fields {
    /// Reads what [`Fields::text`] writes, and `@hourly`.
    fn of(expression: &str) -> Self {
        let expression = if expression == "@hourly" { "0 * * * *" } else { expression };
        let terms: Vec<Vec<Term>> =
            expression.split(' ').map(|field| field.split(',').map(Term::of).collect()).collect();
        let [minute, hour, day, month, weekday] = terms.try_into().expect("five fields");
        Self([(0, minute), (0, hour), (1, day), (1, month), (0, weekday)])
    }

    fn text(&self) -> String {
        let field = |(_, terms): &(u8, Vec<Term>)| terms.iter().map(Term::text).collect::<Vec<_>>().join(",");
        self.0.each_ref().map(field).join(" ")
    }

    fn is_star(&self, field: usize) -> bool {
        matches!(self.0[field].1[0], Term::Star | Term::StarStep(_))
    }

    fn holds(&self, field: usize, value: i8) -> bool {
        let (min, terms) = &self.0[field];
        terms.iter().any(|term| term.holds(*min, value.try_into().expect("a calendar value")))
    }

    fn shows(&self, local: DateTime) -> bool {
        let day = self.holds(2, local.day());
        let weekday = local.weekday().to_sunday_zero_offset();
        let weekday = self.holds(4, weekday) || weekday == 0 && !self.is_star(4) && self.holds(4, 7);
        let both = self.is_star(2) || self.is_star(4);
        self.holds(0, local.minute())
            && self.holds(1, local.hour())
            && self.holds(3, local.month())
            && if both { day && weekday } else { day || weekday }
    }

    /// All fires after `from` and up to `to`, in seconds.
    fn fires_s(&self, zone: &TimeZone, from: jiff::Timestamp, to: jiff::Timestamp) -> BTreeSet<i64> {
        let fires_s = if self.is_star(1) { self.shown_s(zone, from, to) } else { self.once_s(zone, from, to) };
        fires_s.into_iter().filter(|fire_s| (from.as_second() + 1..=to.as_second()).contains(fire_s)).collect()
    }

    /// Every real minute whose wall clock matches.
    fn shown_s(&self, zone: &TimeZone, from: jiff::Timestamp, to: jiff::Timestamp) -> Vec<i64> {
        let minutes = from.as_second().div_euclid(60)..=to.as_second().div_euclid(60);
        let is_shown =
            |second: &i64| self.shows(zone.to_datetime(jiff::Timestamp::from_second(*second).expect("in range")));
        minutes.map(|minute| minute * 60).filter(is_shown).collect()
    }

    /// Every local minute that matches, at its first occurrence or at the end of its gap.
    fn once_s(&self, zone: &TimeZone, from: jiff::Timestamp, to: jiff::Timestamp) -> Vec<i64> {
        let mut fires_s = Vec::new();
        let start = zone.to_datetime(from) - 26.hours();
        let mut local = start.with().second(0).subsec_nanosecond(0).build().expect("valid");
        // A clock that was turned back may have shown later times before `to` than at `to`.
        let end = zone.to_datetime(to) + 26.hours();
        let mut in_gap_matched = false;
        while local <= end {
            match zone.to_ambiguous_timestamp(local).offset() {
                AmbiguousOffset::Gap { .. } => in_gap_matched |= self.shows(local),
                AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                    if in_gap_matched || self.shows(local) {
                        fires_s.push(offset.to_timestamp(local).expect("in range").as_second());
                    }
                    in_gap_matched = false;
                }
            }
            local += 1.minute();
        }
        fires_s
    }
}

impl Cron {
    /// The fires that the slow search finds after `from_s` and up to `to_s`, in seconds.
    pub(crate) fn slow_fires_s(expression: &str, zone: &str, from_s: i64, to_s: i64) -> BTreeSet<i64> {
        let [from, to] = [from_s, to_s].map(|second| jiff::Timestamp::from_second(second).expect("in range"));
        Fields::of(expression).fires_s(&jiff_zone(zone), from, to)
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

fn term(min: u8, max: u8, count: u8) -> impl Strategy<Value = Term> {
    let ordered = (min..=max, min..=max).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        (1..=count).prop_map(Term::StarStep),
        (min..=max).prop_map(Term::One),
        ordered.clone().prop_map(|(first, last)| Term::Range(first, last)),
        (ordered, 1..=count).prop_map(|((first, last), step)| Term::RangeStep(first, last, step)),
    ]
}

fn field(min: u8, max: u8, count: u8, star_weight: u32) -> impl Strategy<Value = (u8, Vec<Term>)> {
    let terms = prop_oneof![
        star_weight => Just(vec![Term::Star]),
        4 => prop::collection::vec(term(min, max, count), 1..4),
    ];
    terms.prop_map(move |terms| (min, terms))
}

fn fields() -> impl Strategy<Value = Fields> {
    let minute = field(0, 59, 60, 1);
    // Clocks change at night: small hours matter most.
    let hour = prop_oneof![field(0, 23, 24, 2), field(0, 4, 24, 1)];
    (minute, hour, field(1, 31, 31, 12), field(1, 12, 12, 20), field(0, 7, 7, 12))
        .prop_map(|(minute, hour, day, month, weekday)| Fields([minute, hour, day, month, weekday]))
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_fire_is_lost_and_none_is_doubled(
        (zone, start_s) in window(),
        fields in fields(),
        after_s in prop::collection::vec(0..3 * 86_400i64, 8),
    ) {
        let text = fields.text();
        prop_assert_eq!(&Fields::of(&text), &fields);
        let compiled = match Cron::new(&text, Zones::new().get(zone).expect("known zone")) {
            Err(CronError::NeverFires { .. }) => return Err(TestCaseError::reject("no such date")),
            other => other.expect("valid expression"),
        };
        let end_s = start_s + 3 * 86_400;
        let [start, end] = [start_s, end_s].map(|second| jiff::Timestamp::from_second(second).expect("in range"));
        let expected = fields.fires_s(&jiff_zone(zone), start, end);

        let seconds = |second: i64| Timestamp::from_secs(second.try_into().expect("after the epoch"));
        let next_s = |after| compiled.next_after(after).map_or(i64::MAX, |fire| {
            assert_eq!(fire.as_micros() % 1_000_000, 0);
            i64::try_from(fire.as_micros() / 1_000_000).expect("in range")
        });
        let mut found = BTreeSet::new();
        let mut last_s = next_s(seconds(start_s));
        while last_s <= end_s {
            found.insert(last_s);
            let following_s = next_s(seconds(last_s));
            prop_assert!(following_s > last_s);
            last_s = following_s;
        }
        prop_assert_eq!(&found, &expected, "`{}` in {} from {}", text, zone, start);

        for after_s in after_s {
            let after_s = start_s + after_s;
            let first = expected.range(after_s + 1..).next().copied();
            let found_s = next_s(Timestamp::from_micros(seconds(after_s).as_micros() + 999_999));
            prop_assert_eq!(first.unwrap_or(last_s), found_s, "`{}` in {} after {}", text, zone, after_s);
        }
    }
}
