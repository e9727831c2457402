//! Calendar events against expressions, against fires that are known, and against a slow search that knows neither.

use super::*;
use jiff::{
    ToSpan as _,
    civil::{DateTime, Weekday, date},
};
/// The expression of an event, and its zone.
fn cron(event: &str) -> (String, String) {
    match schedule(event, "UTC", &mut Zones::new()).unwrap_or_else(|error| panic!("{event}: {error}")) {
        (Schedule::Cron { expression, zone }, _) => (expression, zone),
        other => panic!("{event}: {other:?}"),
    }
}

/// The first fires of an event in UTC, from the midnight that begins `from` on.
fn fires(event: &str, from: DateTime, count: usize) -> Vec<DateTime> {
    let mut zones = Zones::new();
    let (expression, day_rule) = match schedule(event, "UTC", &mut zones).expect(event) {
        (Schedule::Cron { expression, .. }, day_rule) => (expression, day_rule),
        other => panic!("{event}: {other:?}"),
    };
    let options = CronOptions { day_rule, ..CronOptions::default() };
    let cron = Cron::with_options(&expression, zones.get("UTC").expect("a zone"), options).expect(event);
    let seconds = from.to_zoned(jiff::tz::TimeZone::UTC).expect("a time").timestamp().as_second();
    let before = Timestamp::from_secs(seconds.unsigned_abs() - 1);
    std::iter::successors(cron.next_after(before), |at| cron.next_after(*at)).take(count).map(civil).collect()
}

fn civil(at: Timestamp) -> DateTime {
    let second = i64::try_from(at.as_micros() / 1_000_000).expect("a time");
    jiff::Timestamp::from_second(second).expect("a time").to_zoned(jiff::tz::TimeZone::UTC).datetime()
}

#[test]
fn events_are_written_as_cron_expressions() {
    for (event, expression) in [
        ("minutely", "* * * * *"),
        ("hourly", "0 * * * *"),
        ("Daily", "0 0 * * *"),
        ("weekly", "0 0 * * 1"),
        ("monthly", "0 0 1 * *"),
        ("quarterly", "0 0 1 */3 *"),
        ("semiannually", "0 0 1 1,7 *"),
        ("yearly", "0 0 1 1 *"),
        ("*-*-* 06:30:00", "30 6 * * *"),
        ("06:30", "30 6 * * *"),
        ("*:0/5", "*/5 * * * *"),
        ("*:00/5:30", "30 */5 * * * *"),
        ("*:5/20", "5-45/20 * * * *"),
        ("*:*:*", "* * * * * *"),
        ("*:*:0/10", "*/10 * * * * *"),
        ("8..17/3:00", "0 8-17/3 * * *"),
        ("8,9..11,20:15", "15 8-11,20 * * *"),
        ("Mon", "0 0 * * 1"),
        ("monday..FRIDAY 09:00", "0 9 * * 1-5"),
        ("Mon-Wed,Sat 09:00", "0 9 * * 1-3,6"),
        ("Sat..Sun 10:00", "0 10 * * 0,6"),
        ("Mon..Sun 10:00", "0 10 * * *"),
        ("Mon, 10:00", "0 10 * * 1"),
        ("*-*-1,15 00:00:00", "0 0 1,15 * *"),
        ("*-*-1/7", "0 0 1-29/7 * *"),
        ("*-*-1..31 04:00", "0 4 * * *"),
        ("*-02-29", "0 0 29 2 *"),
        ("03-05 12:00", "0 12 5 3 *"),
        ("2030-01-02 03:04:05", "5 4 3 2 1 * 2030"),
        ("30-01-02", "0 0 0 2 1 * 2030"),
        ("2030..2032-*-01", "0 0 0 1 * * 2030-2032"),
        ("2030/2-06-01 12:00", "0 0 12 1 6 * 2030-2198/2"),
        ("*-*~1", "0 0 L * *"),
        ("*-*~01 23:59", "59 23 L * *"),
        ("*-02~3", "0 0 L-2 2 *"),
        ("*-*~1..3", "0 0 L,L-1,L-2 * *"),
        ("*-*~7/2", "0 0 L,L-2,L-4,L-6 * *"),
        ("Mon *-05~07/1", "0 0 * 5 1L"),
        ("Fri *-*~1..7 18:00", "0 18 * * 5L"),
        ("Mon *-*-1..7 09:00", "0 9 * * 1#1"),
        ("Mon,Thu *-*-8..21", "0 0 * * 1#2,1#3,4#2,4#3"),
        ("Tue *-*-29..31", "0 0 * * 2#5"),
        ("Sun *-*-13", "0 0 13 * */7"),
        ("Fri..Sun *-*~1", "0 0 L * */7,5,6"),
        ("Fri *-*-1,13", "0 0 */31,13 * 5"),
        ("Fri *-*-13", "0 0 13 * 5"),
        ("Mon..Fri *-*~1", "0 0 L * 1-5"),
    ] {
        assert_eq!(cron(event), (expression.to_owned(), "UTC".to_owned()), "{event}");
    }
}

#[test]
fn an_event_may_name_its_zone() {
    for (event, expression, zone) in [
        ("*-*-* 02:30:00 Europe/Berlin", "30 2 * * *", "Europe/Berlin"),
        ("daily UTC", "0 0 * * *", "UTC"),
        ("Mon 10:00  Asia/Tokyo", "0 10 * * 1", "Asia/Tokyo"),
    ] {
        assert_eq!(cron(event), (expression.to_owned(), zone.to_owned()), "{event}");
    }
    let own = schedule("daily", "America/New_York", &mut Zones::new()).expect("an event");
    assert!(matches!(own.0, Schedule::Cron { zone, .. } if zone == "America/New_York"));
    let once = schedule("@1893456000", "UTC", &mut Zones::new());
    assert_eq!(once, Ok((Schedule::Once { at: Timestamp::from_secs(1_893_456_000) }, DayRule::Or)));
}

#[test]
fn the_rule_for_days_is_told_where_the_expression_needs_it() {
    for (event, expected) in [
        ("Fri *-*-13", DayRule::And),
        ("Mon..Fri *-*~1", DayRule::And),
        ("Sun *-*-13", DayRule::Or),
        ("Mon *-*-8..14", DayRule::Or),
        ("Mon", DayRule::Or),
        ("*-*-13", DayRule::Or),
    ] {
        assert_eq!(schedule(event, "UTC", &mut Zones::new()).expect(event).1, expected, "{event}");
    }
}

#[test]
fn events_fire_when_the_calendar_says() {
    let start = date(2026, 1, 1).at(0, 0, 0, 0);
    for (event, expected) in [
        // 1 January 2026 is a Thursday.
        ("Mon..Fri 09:00", ["2026-01-01T09:00:00", "2026-01-02T09:00:00", "2026-01-05T09:00:00"]),
        ("weekly", ["2026-01-05T00:00:00", "2026-01-12T00:00:00", "2026-01-19T00:00:00"]),
        ("quarterly", ["2026-01-01T00:00:00", "2026-04-01T00:00:00", "2026-07-01T00:00:00"]),
        ("*-*~1 23:00", ["2026-01-31T23:00:00", "2026-02-28T23:00:00", "2026-03-31T23:00:00"]),
        ("*-02~3", ["2026-02-26T00:00:00", "2027-02-26T00:00:00", "2028-02-27T00:00:00"]),
        ("Mon *-05~07/1", ["2026-05-25T00:00:00", "2027-05-31T00:00:00", "2028-05-29T00:00:00"]),
        ("Mon *-*-1..7 09:00", ["2026-01-05T09:00:00", "2026-02-02T09:00:00", "2026-03-02T09:00:00"]),
        ("Sun *-*-13", ["2026-09-13T00:00:00", "2026-12-13T00:00:00", "2027-06-13T00:00:00"]),
        ("Fri *-*-1,13", ["2026-02-13T00:00:00", "2026-03-13T00:00:00", "2026-05-01T00:00:00"]),
        ("*:0/25", ["2026-01-01T00:00:00", "2026-01-01T00:25:00", "2026-01-01T00:50:00"]),
        ("2026-02..03-15 12:00:30", ["2026-02-15T12:00:30", "2026-03-15T12:00:30", ""]),
        ("*-02-29 12:00", ["2028-02-29T12:00:00", "2032-02-29T12:00:00", "2036-02-29T12:00:00"]),
    ] {
        let expected: Vec<_> = expected.iter().filter(|at| !at.is_empty()).map(|at| (*at).to_owned()).collect();
        let found: Vec<_> = fires(event, start, 3).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{event}");
    }
}

/// The days until the month ends, its last day being 1.
fn from_end(at: DateTime) -> i8 {
    at.date().days_in_month() - at.day() + 1
}

fn is_on(at: DateTime, weekdays: &[Weekday]) -> bool {
    weekdays.contains(&at.weekday())
}

type Matches = fn(DateTime) -> bool;

/// An event, and the same in other words.
const IN_OTHER_WORDS: &[(&str, Matches)] = &[
    ("Mon..Fri *-*-* 08..17/3:15", |at| {
        !is_on(at, &[Weekday::Saturday, Weekday::Sunday]) && [8, 11, 14, 17].contains(&at.hour()) && at.minute() == 15
    }),
    ("Sun *-*~1..9 12:00", |at| {
        is_on(at, &[Weekday::Sunday]) && from_end(at) <= 9 && (at.hour(), at.minute()) == (12, 0)
    }),
    ("Fri,Sun *-*-13 06:00", |at| {
        is_on(at, &[Weekday::Friday, Weekday::Sunday]) && at.day() == 13 && (at.hour(), at.minute()) == (6, 0)
    }),
    ("Tue,Wed *-2,6-1,9..11 00:30", |at| {
        is_on(at, &[Weekday::Tuesday, Weekday::Wednesday])
            && [2, 6].contains(&at.month())
            && [1, 9, 10, 11].contains(&at.day())
            && (at.hour(), at.minute()) == (0, 30)
    }),
    ("Sat *-*-8..14,29..31 22:00", |at| {
        is_on(at, &[Weekday::Saturday])
            && ((8..=14).contains(&at.day()) || at.day() >= 29)
            && (at.hour(), at.minute()) == (22, 0)
    }),
    ("Fri *-*-13,20 06:00", |at| {
        is_on(at, &[Weekday::Friday]) && [13, 20].contains(&at.day()) && (at.hour(), at.minute()) == (6, 0)
    }),
    ("Mon *-*-2..8 07:00", |at| {
        is_on(at, &[Weekday::Monday]) && (2..=8).contains(&at.day()) && (at.hour(), at.minute()) == (7, 0)
    }),
    ("Thu *-*~07/1 *:0/20", |at| is_on(at, &[Weekday::Thursday]) && from_end(at) <= 7 && at.minute() % 20 == 0),
    ("*-*~2..8/3 03:00", |at| [2, 5, 8].contains(&from_end(at)) && (at.hour(), at.minute()) == (3, 0)),
    ("*-1/5-5/10 7/6:05", |at| {
        [1, 6, 11].contains(&at.month())
            && [5, 15, 25].contains(&at.day())
            && [7, 13, 19].contains(&at.hour())
            && at.minute() == 5
    }),
];

#[test]
fn a_slow_search_by_minutes_finds_the_same_fires() {
    let start = date(2027, 1, 1).at(0, 0, 0, 0);
    let minutes = std::iter::successors(Some(start), |at| at.checked_add(1.minute()).ok()).take(2 * 366 * 24 * 60);
    let minutes: Vec<_> = minutes.collect();
    for (event, matches) in IN_OTHER_WORDS {
        let slow: Vec<_> = minutes.iter().copied().filter(|at| matches(*at)).take(40).collect();
        assert!(slow.len() >= 3, "{event} fires in two years");
        assert_eq!(fires(event, start, slow.len()), slow, "{event}");
    }
}

#[test]
fn what_systemd_would_not_take_is_refused() {
    for (event, reason) in [
        ("*:*:0/0.5", RefusedReason::Fraction),
        ("*:*:1.25", RefusedReason::Fraction),
        ("", RefusedReason::Calendar),
        ("fortnightly", RefusedReason::Calendar),
        ("Fri..Mon", RefusedReason::Calendar),
        ("Funday 10:00", RefusedReason::Calendar),
        ("Mon 10", RefusedReason::Calendar),
        ("10:00:00:00", RefusedReason::Calendar),
        ("24:00", RefusedReason::Calendar),
        ("*:60", RefusedReason::Calendar),
        ("*:*/5", RefusedReason::Calendar),
        ("*:0/0", RefusedReason::Calendar),
        ("*:50/30", RefusedReason::Calendar),
        ("9..8:00", RefusedReason::Calendar),
        ("*-13-01", RefusedReason::Calendar),
        ("*-*-32", RefusedReason::Calendar),
        ("*-*~29", RefusedReason::Calendar),
        ("1969-01-01", RefusedReason::Calendar),
        ("*-*-* 10:00 Mars/Olympus", RefusedReason::Calendar),
        ("@soon", RefusedReason::Calendar),
        ("*~*-1", RefusedReason::Calendar),
        ("1-2-3-4", RefusedReason::Calendar),
    ] {
        assert_eq!(schedule(event, "UTC", &mut Zones::new()), Err(reason), "{event}");
    }
    let never = schedule("*-02-30", "UTC", &mut Zones::new()).expect_err("no such day");
    assert!(never.to_string().contains("never fire"), "{never}");
}
