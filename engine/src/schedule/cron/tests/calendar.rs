//! Which dates and times follow one another, without any change of the clock.

use super::*;

#[test]
fn fires_follow_the_calendar() {
    let cases: [(&str, &str, &[&str]); 11] = [
        ("* * * * *", "2026-01-31T23:58:30Z", &["2026-01-31 23:59", "2026-02-01 00:00", "2026-02-01 00:01"]),
        ("*/20 9,17 * * *", "2026-05-05T09:20:00Z", &["2026-05-05 09:40", "2026-05-05 17:00", "2026-05-05 17:20"]),
        ("0 9 * * MON-FRI", "2026-11-20T09:00:00Z", &["2026-11-23 09:00", "2026-11-24 09:00"]),
        ("0 0 31 * *", "2026-01-31T00:00:00Z", &["2026-03-31 00:00", "2026-05-31 00:00", "2026-07-31 00:00"]),
        ("0 0 29 2 *", "2096-02-29T00:00:00Z", &["2104-02-29 00:00", "2108-02-29 00:00"]),
        ("0 0 29 2 */7", "2060-02-29T00:00:00Z", &["2088-02-29 00:00", "2128-02-29 00:00"]),
        ("0 0 13 * FRI", "2026-02-12T00:00:00Z", &["2026-02-13 00:00", "2026-02-20 00:00", "2026-02-27 00:00"]),
        (
            "0 0 1,15 * WED",
            "2026-09-30T00:00:00Z",
            &["2026-10-01 00:00", "2026-10-07 00:00", "2026-10-14 00:00", "2026-10-15 00:00"],
        ),
        ("0 0 */2 * MON", "2026-06-01T00:00:00Z", &["2026-06-15 00:00", "2026-06-29 00:00", "2026-07-13 00:00"]),
        ("59 23 31 12 *", "2026-12-31T23:58:59.999999Z", &["2026-12-31 23:59", "2027-12-31 23:59"]),
        ("0 0 1 1 *", "1970-01-01T00:00:00Z", &["1971-01-01 00:00"]),
    ];
    for (expression, after, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|time| format!("{time} +00:00")).collect();
        assert_eq!(fires(expression, "UTC", after, expected.len()), expected, "{expression} after {after}");
    }
}

#[test]
fn with_the_rule_and_a_day_matches_both_fields() {
    let cases: [(&str, &[&str]); 8] = [
        ("0 0 13 * FRI", &["2026-02-13", "2026-03-13", "2026-11-13"]),
        // The first Monday of a quarter, from its dates.
        ("0 0 1-7 1,4,7,10 MON", &["2026-01-05", "2026-04-06", "2026-07-06", "2026-10-05"]),
        ("0 0 L * FRI", &["2026-07-31", "2027-04-30"]),
        ("0 0 15W * MON", &["2026-02-16", "2026-03-16", "2026-06-15"]),
        ("0 0 1-15 * FRI#3", &["2026-05-15", "2027-01-15", "2027-10-15"]),
        ("0 0 LW * 5L", &["2026-01-30", "2026-02-27", "2026-05-29"]),
        ("0 0 29 2 SUN", &["2032-02-29", "2060-02-29", "2088-02-29", "2128-02-29"]),
        ("0 0 10 * *", &["2026-01-10", "2026-02-10"]),
    ];
    let options = CronOptions { day_rule: DayRule::And, ..CronOptions::default() };
    for (expression, expected) in cases {
        let cron = Cron::with_options(expression, zones().get("UTC").expect("known"), options).expect("valid");
        let expected: Vec<_> = expected.iter().map(|day| format!("{day} 00:00 +00:00")).collect();
        assert_eq!(fires_of(&cron, "2026-01-01T12:00:00Z", expected.len()), expected, "{expression}");
    }
}

#[test]
fn what_no_day_matches_is_refused_by_the_rule_that_holds() {
    for (expression, by_or, by_and) in [
        ("0 0 30 2 1", true, false),
        ("0 0 1-7 * MON#2", true, false),
        ("0 0 31 2,4,6,9,11 *", false, false),
        ("0 0 29W 2 SUN", true, false),
        ("0 0 29 2 SUN", true, true),
        ("0 0 0 29 2 SUN 2033-2059", true, false),
        ("0 0 */2 * MON", true, true),
        ("0 0 13 * ?", true, true),
    ] {
        for (day_rule, fires) in [(DayRule::Or, by_or), (DayRule::And, by_and)] {
            let options = CronOptions { day_rule, ..CronOptions::default() };
            let compiled = Cron::with_options(expression, zones().get("UTC").expect("known"), options);
            let expected = if fires { None } else { Some(CronError::NeverFires { text: expression.into() }) };
            assert_eq!(compiled.err(), expected, "{expression} by `{day_rule}`");
        }
    }
}

#[test]
fn a_star_in_a_day_field_leaves_nothing_to_the_rule() {
    for expression in ["0 0 */2 * MON", "0 0 13 * *", "0 0 * * FRI", "0 0 ? * FRI", "0 0 L * ?"] {
        let [or, and] = DayRule::ALL else { panic!("two rules") };
        let [or, and] = [or, and].map(|day_rule| {
            let options = CronOptions { day_rule: *day_rule, ..CronOptions::default() };
            Cron::with_options(expression, zones().get("UTC").expect("known"), options).expect("valid")
        });
        assert_eq!(or, and, "{expression}");
    }
    let [or, and] = [DayRule::Or, DayRule::And].map(|day_rule| {
        let options = CronOptions { day_rule, ..CronOptions::default() };
        Cron::with_options("0 0 13 * FRI", zones().get("UTC").expect("known"), options).expect("valid")
    });
    assert_ne!(or, and);
}

#[test]
fn the_next_fire_is_strictly_later_to_the_microsecond() {
    let every_minute = cron("* * * * *", "UTC");
    assert_eq!(every_minute.next_after(at("2026-01-01T00:00:59.999999Z")), Some(at("2026-01-01T00:01:00Z")));
    assert_eq!(every_minute.next_after(at("2026-01-01T00:01:00Z")), Some(at("2026-01-01T00:02:00Z")));
    assert_eq!(every_minute.next_after(at("2026-01-01T00:01:00.000001Z")), Some(at("2026-01-01T00:02:00Z")));
}

#[test]
fn after_the_last_year_there_is_no_fire() {
    let yearly = cron("0 0 1 1 *", "America/New_York");
    let last = at("9999-01-01T05:00:00Z");
    assert_eq!(yearly.next_after(at("9998-06-01T00:00:00Z")), Some(last));
    assert_eq!(yearly.next_after(last), None);
    let every_minute = cron("* * * * *", "Pacific/Kiritimati");
    assert_eq!(every_minute.next_after(at("9999-12-30T21:59:59Z")), Some(at("9999-12-30T22:00:00Z")));
    assert_eq!(every_minute.next_after(at("9999-12-30T22:00:00Z")), None);
    assert_eq!(every_minute.next_after(Timestamp::from_micros(u64::MAX / 2)), None);
    assert_eq!(every_minute.next_after(Timestamp::MAX), None);
}

#[test]
fn local_minutes_count_in_a_zone_whose_offset_has_seconds() {
    // Until 1972 Liberia was 44 minutes and 30 seconds behind UTC.
    let hourly = cron("0 * * * *", "Africa/Monrovia");
    assert_eq!(hourly.next_after(at("1970-06-01T00:00:00Z")), Some(at("1970-06-01T00:44:30Z")));
    assert_eq!(hourly.next_after(at("1972-06-01T00:00:00Z")), Some(at("1972-06-01T01:00:00Z")));
}
