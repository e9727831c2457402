//! Claims about exclusions: each form of an entry, each error, and agreement with a search that looks at every minute.

use super::*;
use crate::schedule::{Cron, Schedule, tests::zones};
use jiff::{Unit, civil::DateTime, tz::TimeZoneDatabase};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn exclusions(text: &str, zone: &str) -> Exclusions {
    Exclusions::new(text, zone, &mut zones(), |_| None).unwrap_or_else(|error| panic!("{error}"))
}

fn jiff_zone(name: &str) -> jiff::tz::TimeZone {
    TimeZoneDatabase::bundled().get(name).expect("a known zone")
}

/// The instant at which the clock of the zone shows a time, such as `2026-12-25T14:30`.
fn at(local: &str, zone: &str) -> Timestamp {
    let local: DateTime = local.parse().expect("a local time");
    let instant = local.to_zoned(jiff_zone(zone)).expect("in range").timestamp();
    Timestamp::from_micros(instant.as_microsecond().try_into().expect("after the epoch"))
}

/// Whether each of the local times is excluded by `text`.
fn check(text: &str, zone: &str, excluded: &[&str], allowed: &[&str]) {
    let exclusions = exclusions(text, zone);
    for local in excluded {
        let end = exclusions.end_of(at(local, zone));
        assert!(end.is_some_and(|end| end > at(local, zone)), "{local} is excluded by {text:?}: {end:?}");
    }
    for local in allowed {
        assert_eq!(exclusions.end_of(at(local, zone)), None, "{local} is left by {text:?}");
    }
}

#[test]
fn each_form_excludes_what_it_says() {
    let berlin = "Europe/Berlin";
    check("", "UTC", &[], &["2026-12-25T00:00"]);
    check(
        "2026-12-25",
        berlin,
        &["2026-12-25T00:00", "2026-12-25T23:59:59.999999"],
        &["2026-12-24T23:59:59.999999", "2026-12-26T00:00", "2027-12-25T12:00"],
    );
    check(
        "2026-12-24..2027-01-01",
        berlin,
        &["2026-12-24T00:00", "2026-12-31T12:00", "2027-01-01T23:59:59"],
        &["2026-12-23T23:59:59", "2027-01-02T00:00"],
    );
    check(
        "12-25\n02-29",
        berlin,
        &["1999-12-25T00:00", "2026-12-25T23:59:59", "2028-02-29T12:00"],
        &["2026-12-26T00:00", "2027-02-28T12:00", "2027-03-01T00:00"],
    );
    let weekend = (["2026-11-28T00:00", "2026-11-29T23:59:59"], ["2026-11-27T23:59:59", "2026-11-30T00:00"]);
    for text in ["SAT,SUN", "weekends", "sat-sun", "SAT\nSUN"] {
        check(text, berlin, &weekend.0, &weekend.1);
    }
    check("weekdays", berlin, &weekend.1, &weekend.0);
    check("SUN#1", berlin, &["2026-12-06T12:00"], &["2026-12-13T12:00", "2026-12-05T12:00"]);
    check(
        "2026-12-24T14:00..2026-12-25T06:30:15",
        berlin,
        &["2026-12-24T14:00", "2026-12-25T06:30:14.999999"],
        &["2026-12-24T13:59:59.999999", "2026-12-25T06:30:15"],
    );
    check(
        "cron */30 12-13 * * MON",
        berlin,
        &["2026-11-30T12:00", "2026-11-30T12:30:59.999999", "2026-11-30T13:30"],
        &["2026-11-30T12:01", "2026-11-30T11:59:59.999999", "2026-12-01T12:00"],
    );
    check("cron @daily", berlin, &["2026-11-30T00:00:59"], &["2026-11-30T00:01"]);
    check(
        "cron 15 * * * * *",
        berlin,
        &["2026-11-30T12:00:15", "2026-11-30T12:07:15.999999"],
        &["2026-11-30T12:00:16", "2026-11-30T12:00:14.999999"],
    );
}

#[test]
fn each_entry_goes_by_the_zone_before_it() {
    let exclusions = exclusions("2026-12-25\nzone Asia/Tokyo\n2026-12-27\n\nzone UTC\n2026-12-29", "America/New_York");
    let is_excluded = |local: &str, zone: &str| exclusions.end_of(at(local, zone)).is_some();
    for (date, zone) in [("2026-12-25", "America/New_York"), ("2026-12-27", "Asia/Tokyo"), ("2026-12-29", "UTC")] {
        assert!(is_excluded(&format!("{date}T00:00"), zone) && is_excluded(&format!("{date}T23:59:59"), zone));
        let other = if zone == "UTC" { "Asia/Tokyo" } else { "UTC" };
        assert!(!(is_excluded(&format!("{date}T00:00"), other) && is_excluded(&format!("{date}T23:59:59"), other)));
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let form = "an entry is a date such as 2026-12-25 or 12-25, two dates or two times with `..` between them, days of the week \
                such as SAT,SUN, or `cron`, `calendar` or `zone` and what belongs to it";
    let none = "there is no such date or time; days are from 1970-01-01 to 9999-12-31";
    for (entry, problem) in [
        ("2026-12", form),
        ("26-12-25", form),
        ("2026-12-5", form),
        ("2026/12/25", form),
        ("+026-12-25", form),
        ("2026-12-25..", form),
        ("2026-12-25T10:00", form),
        ("2026-12-25T10:00..2026-12-26", form),
        ("2026-12-25T10..2026-12-26T11", form),
        ("SAT SUN", form),
        ("SAT/0", "day of week `SAT/0`: a step is a number from 1 to"),
        ("cron", form),
        ("1969-12-31", none),
        ("2026-02-29", none),
        ("2026-13-01", none),
        ("2026-00-01", none),
        ("02-30", none),
        ("00-00", none),
        ("2026-12-25T24:00..2026-12-26T00:00", none),
        ("2026-12-26..2026-12-25", "it ends before it begins"),
        ("2026-12-25T10:00..2026-12-25T10:00", "it ends before it begins"),
        ("cron 0 0 30 2 *", "no date matches days, months and years together"),
        ("cron H * * * *", "minute `H`: `H` is a value that a job's name chooses, and there is none here"),
        ("cron 0 0 * *", "a cron expression has 5 fields"),
        ("zone Mars", "unknown time zone `Mars`"),
        ("holidays", form),
        ("SAT,6", form),
        ("SATURDAY", "day of week `SATURDAY`: not a value"),
        ("MON#6", "day of week `MON#6`: out of range"),
    ] {
        let error = Exclusions::new(&format!("12-25\n{entry}\n"), "UTC", &mut zones(), |_| None).expect_err(entry);
        let expected = format!("line 2, `{entry}`: {problem}");
        assert!(error.to_string().starts_with(&expected), "{error}\n{expected}");
    }
    let most = "cron * 12 * * *\nzone UTC\n".repeat(64);
    exclusions(&most, "Asia/Tokyo");
    let error = Exclusions::new(&(most + "SAT"), "UTC", &mut zones(), |_| None).expect_err("too many");
    let problem = "it is one more than the 64 entries that may be expressions or days of the week";
    assert_eq!(error.to_string(), format!("line 129, `SAT`: {problem}"));
    let error = Exclusions::new("12-25", "Mars", &mut zones(), |_| None).expect_err("no such zone");
    assert!(error.to_string().contains("unknown time zone `Mars`"), "{error}");
}

#[test]
#[cfg_attr(miri, ignore = "searches through years")]
fn schedule_goes_on_behind_what_is_excluded() {
    let every = |expression: &str| Schedule::cron(expression, "Europe/Berlin", &mut zones()).expect("valid");
    let noon = Schedule::once(at("2026-12-25T12:00", "UTC"));
    let minutes = Schedule::interval(60_000_000, at("2026-12-24T00:00", "UTC")).expect("valid");
    let after = at("2026-12-24T23:30", "Europe/Berlin");
    for (schedule, text, expected) in [
        (&every("0 9 * * *"), "2026-12-25..2026-12-27\n12-29", Some("2026-12-28T09:00")),
        (&every("* * * * *"), "2026-12-25..2026-12-27", Some("2026-12-24T23:31")),
        (&every("* * * * * *"), "12-24\nweekends\n2026-12-25", Some("2026-12-28T00:00:00")),
        (&every("0 0 25 12 *"), "2026-12-25..2029-12-24", Some("2029-12-25T00:00")),
        (&every("30 2 * * *"), "cron 0-29,31-59 * * * *", Some("2026-12-25T02:30")),
        (&minutes, "cron 0-58 * * * *", Some("2026-12-24T23:59")),
        (&noon, "12-26", Some("2026-12-25T13:00")),
        (&noon, "12-25", None),
        (&every("0 0 25 12 *"), "12-25", None),
        (&every("* * * * *"), "weekdays\nweekends", None),
        (&every("0 9 * * SAT"), "weekends", None),
        (&every("*/2 * * * * *"), "cron */2 * * * * *", None),
    ] {
        let exclusions = exclusions(text, "Europe/Berlin");
        let found = exclusions.first_allowed(after, |after| schedule.next_after(after));
        assert_eq!(found, expected.map(|local| at(local, "Europe/Berlin")), "{schedule:?} without {text:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "looks at every minute of a day")]
fn stretch_ends_where_the_clock_is_turned() {
    // Berlin's clock goes from 02:00 to 03:00 on 28 March 2027, and from 03:00 back to 02:00 on 31 October.
    let day = exclusions("2027-03-28\n2027-10-31", "Europe/Berlin");
    for (from, hours) in [("2027-03-28T00:00", 23), ("2027-10-31T00:00", 25)] {
        let (mut end, start) = (at(from, "Europe/Berlin"), at(from, "Europe/Berlin"));
        while let Some(later) = day.end_of(end) {
            assert!(later > end);
            end = later;
        }
        assert_eq!(end.saturating_since(start), Duration::from_secs(hours * 3_600), "{from}");
    }
    // What is shown twice is excluded twice.
    let twice = exclusions("2027-10-31T02:15..2027-10-31T02:45", "Europe/Berlin");
    let minutes = (0..1_500).filter(|minute| {
        let start = at("2027-10-31T00:00", "Europe/Berlin");
        twice.end_of(start.saturating_add(Duration::from_secs(60 * minute))).is_some()
    });
    assert_eq!(minutes.count(), 60);
}

/// An entry, as it is written and as it is understood anew.
#[derive(Clone, Debug)]
enum Entry {
    Days(jiff::civil::Date, i64),
    Annual(i8, i8),
    Weekdays(Vec<i8>),
    Times(DateTime, i64),
    /// Minutes, hours.
    Cron(Vec<i8>, std::ops::RangeInclusive<i8>),
    Zone(&'static str),
}

impl Entry {
    fn text(&self) -> String {
        let list = |values: &[i8], word: &dyn Fn(&i8) -> String| values.iter().map(word).collect::<Vec<_>>().join(",");
        match self {
            Self::Days(first, 0) => first.to_string(),
            Self::Days(first, more) => format!("{first}..{}", *first + jiff::Span::new().days(*more)),
            Self::Annual(month, day) => format!("{month:02}-{day:02}"),
            Self::Weekdays(days) => list(days, &|day| WEEKDAY_NAMES[usize::try_from(*day).expect("small")].to_owned()),
            Self::Times(first, minutes) => {
                let last = *first + jiff::Span::new().minutes(*minutes);
                format!("{}..{}", first.strftime("%Y-%m-%dT%H:%M"), last.strftime("%Y-%m-%dT%H:%M:%S"))
            }
            Self::Cron(minutes, hours) => {
                format!("cron {} {}-{} * * *", list(minutes, &ToString::to_string), hours.start(), hours.end())
            }
            Self::Zone(name) => format!("zone {name}"),
        }
    }

    fn excludes(&self, local: DateTime) -> bool {
        match self {
            Self::Days(first, more) => {
                let days = first.until((Unit::Day, local.date())).expect("near").get_days();
                (0..=*more).contains(&i64::from(days))
            }
            Self::Annual(month, day) => (local.month(), local.day()) == (*month, *day),
            Self::Weekdays(days) => days.contains(&local.weekday().to_sunday_zero_offset()),
            Self::Times(first, minutes) => *first <= local && local < *first + jiff::Span::new().minutes(*minutes),
            Self::Cron(minutes, hours) => minutes.contains(&local.minute()) && hours.contains(&local.hour()),
            Self::Zone(_) => false,
        }
    }
}

const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];
/// 2027-03-08T00:00:00Z; three weeks later both New York's and Berlin's clocks have been turned forward.
const SPRING_S: i64 = 1_804_464_000;
/// 2027-10-20T00:00:00Z; three weeks later both have been turned back.
const AUTUMN_S: i64 = 1_823_990_400;
const WINDOW_S: i64 = 21 * 86_400;

fn entry() -> impl Strategy<Value = Entry> {
    let day = || {
        (prop::sample::select(&[SPRING_S, AUTUMN_S][..]), 0..21_i64).prop_map(|(start_s, days)| {
            jiff::Timestamp::from_second(start_s + days * 86_400)
                .expect("in range")
                .to_zoned(jiff_zone("UTC"))
                .datetime()
        })
    };
    prop_oneof![
        3 => (day(), 0..4_i64).prop_map(|(first, more)| Entry::Days(first.date(), more)),
        1 => day().prop_map(|day| Entry::Annual(day.month(), day.day())),
        2 => prop::collection::vec(0..7_i8, 1..4).prop_map(Entry::Weekdays),
        2 => (day(), 1..3_000_i64, 0..1_440_i64).prop_map(|(day, minutes, from)| {
            Entry::Times(day + jiff::Span::new().minutes(from), minutes)
        }),
        2 => (prop::collection::vec(0..60_i8, 1..40), 0..24_i8, 0..24_i8)
            .prop_map(|(minutes, a, b)| Entry::Cron(minutes, a.min(b)..=a.max(b))),
        2 => prop::sample::select(&ZONES[..]).prop_map(Entry::Zone),
    ]
}

#[derive(Clone, Debug)]
enum Part {
    Cron(&'static str, &'static str),
    Every(i64, i64),
    Once(i64),
}

fn part() -> impl Strategy<Value = Part> {
    let expressions = ["* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 9-17/2 * * 1-5", "5 0 * * *"];
    prop_oneof![
        4 => (prop::sample::select(expressions.to_vec()), prop::sample::select(&ZONES[..])).prop_map(|(e, z)| Part::Cron(e, z)),
        2 => (1..3_000_i64, 0..500_i64).prop_map(|(every, anchor)| Part::Every(every * 60, anchor * 60)),
        1 => (0..30_000_i64).prop_map(|minute| Part::Once(minute * 60)),
    ]
}

/// All fires of a part within the window, by trying every minute.
fn slow_fires(part: &Part, start_s: i64) -> BTreeSet<i64> {
    let end_s = start_s + WINDOW_S;
    match *part {
        Part::Cron(expression, zone) => Cron::slow_fires_s(expression, zone, start_s, end_s),
        Part::Every(every_s, anchor_s) => (start_s + 60..=end_s)
            .step_by(60)
            .filter(|s| *s >= start_s + anchor_s && (s - start_s - anchor_s) % every_s == 0)
            .collect(),
        Part::Once(at_s) => {
            BTreeSet::from([start_s + at_s]).into_iter().filter(|s| *s > start_s && *s <= end_s).collect()
        }
    }
}

fn compiled(part: &Part, start_s: i64) -> Schedule {
    let at = |second: i64| Timestamp::from_secs(second.try_into().expect("after the epoch"));
    match *part {
        Part::Cron(expression, zone) => Schedule::cron(expression, zone, &mut zones()).expect("valid"),
        Part::Every(every_s, anchor_s) => {
            Schedule::interval(u64::try_from(every_s).expect("positive") * 1_000_000, at(start_s + anchor_s))
                .expect("valid")
        }
        Part::Once(at_s) => Schedule::once(at(start_s + at_s)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "searches weeks minute by minute")]
    fn several_schedules_without_their_exclusions_are_the_union_without_what_is_excluded(
        start_s in prop::sample::select(&[SPRING_S, AUTUMN_S][..]),
        parts in prop::collection::vec(part(), 1..4),
        entries in prop::collection::vec(entry(), 0..7),
        default_zone in prop::sample::select(&ZONES[..]),
    ) {
        let mut expected: BTreeSet<i64> = parts.iter().flat_map(|part| slow_fires(part, start_s)).collect();
        expected.retain(|fire_s| {
            let instant = jiff::Timestamp::from_second(*fire_s).expect("in range");
            let mut zone = default_zone;
            !entries.iter().any(|entry| {
                if let Entry::Zone(name) = entry {
                    zone = name;
                }
                entry.excludes(instant.to_zoned(jiff_zone(zone)).datetime())
            })
        });
        let text = entries.iter().map(Entry::text).collect::<Vec<_>>().join("\n");
        let exclusions = exclusions(&text, default_zone);
        let schedule = Schedule::Several(parts.iter().map(|part| compiled(part, start_s)).collect());
        let next = |after| exclusions.first_allowed(after, |after| schedule.next_after(after));
        let end = Timestamp::from_secs((start_s + WINDOW_S).try_into().expect("after the epoch"));
        let start = Timestamp::from_secs(start_s.try_into().expect("after the epoch"));
        let fires = std::iter::successors(next(start), |last| next(*last)).take_while(|fire| *fire <= end);
        let found: BTreeSet<i64> = fires.map(|fire| i64::try_from(fire.as_micros() / 1_000_000).expect("in range")).collect();
        prop_assert_eq!(found, expected, "{:?} without {:?} of {}", parts, text, default_zone);
    }
}

#[test]
fn calendars_stand_for_their_entries_on_the_clock_of_the_place_that_names_them() {
    let calendar = |name: &str| match name {
        "days" => Some("2027-01-15"),
        "berlin" => Some("zone Europe/Berlin\n2027-01-16"),
        "nested" => Some("calendar days"),
        _ => None,
    };
    let mut zones = Zones::new();
    let mut end_of = |text: &str, at_secs: u64| {
        let exclusions = Exclusions::new(text, "UTC", &mut zones, calendar).unwrap();
        exclusions.end_of(Timestamp::from_secs(at_secs)).map(|end| end.as_micros() / 1_000_000)
    };
    // 2027-01-15T08:00:00Z and its midnights.
    let (noon, midnight) = (1_800_000_000, 1_800_057_600);
    assert_eq!(end_of("calendar days", noon), Some(midnight));
    assert_eq!(end_of("zone Asia/Tokyo\ncalendar days", noon), Some(midnight - 9 * 3_600));
    assert_eq!(end_of("calendar berlin\n2027-01-17", midnight), Some(midnight + 86_400 - 3_600));
    // The zone of a calendar ends with it.
    assert_eq!(end_of("calendar berlin\n2027-01-17", midnight + 86_400), Some(midnight + 2 * 86_400));
    assert_eq!(Exclusions::calendars_named("weekends\ncalendar a\n calendar  b c ").collect::<Vec<_>>(), ["a", "b c"]);

    let mut problem = |text: &str| Exclusions::new(text, "UTC", &mut zones, calendar).unwrap_err().problem;
    assert_eq!(problem("calendar other"), ExclusionProblem::UnknownCalendar);
    assert_eq!(problem("calendar nested"), ExclusionProblem::Nested);
    assert_eq!(problem(&"calendar days\n".repeat(17)), ExclusionProblem::TooManyNamed);
    assert_eq!(
        Exclusions::of_calendar("calendar days", "UTC", &mut zones).unwrap_err().problem,
        ExclusionProblem::Nested
    );
    // Each text has its own patterns.
    let many = "weekends\n".repeat(64);
    let full = |_: &str| Some(many.as_str());
    assert!(Exclusions::new(&format!("{many}calendar many"), "UTC", &mut zones, full).is_ok());
    assert_eq!(
        Exclusions::new(&format!("{many}weekends"), "UTC", &mut zones, full).unwrap_err().problem,
        ExclusionProblem::TooMany
    );
}
