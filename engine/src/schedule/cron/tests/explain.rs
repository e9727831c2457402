//! Schedules in words: each element of the syntax, and what is said of changes of the clock.

use super::*;
use crate::schedule::cron::{syntax, wording::sentence};

fn words(expression: &str) -> String {
    let parsed = syntax::parse(expression, DayRule::Or).unwrap_or_else(|error| panic!("{expression}: {error}"));
    sentence(&parsed.pattern)
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(words(expression), *expected, "{expression}");
    }
}

#[test]
fn seconds_minutes_and_hours_are_conditions_from_the_finest_on() {
    check(&[
        ("* * * * *", "every minute"),
        ("* * * * * *", "every second"),
        ("*/5 * * * *", "every 5 minutes"),
        ("0/20 * * * *", "every 20 minutes"),
        ("3/5 * * * *", "every 5 minutes from 3 to 58, every hour"),
        ("*/7 * * * *", "every 7 minutes from 0 to 56, every hour"),
        ("7 * * * *", "at minute 7, every hour"),
        ("0,10,45 * * * *", "at minutes 0, 10 and 45, every hour"),
        ("0-29 * * * *", "every minute from 0 to 29, every hour"),
        ("1-5,20,30-32,59 * * * *", "at minutes 1 to 5, 20, 30 to 32 and 59, every hour"),
        ("58-1 * * * *", "at minutes 0, 1, 58 and 59, every hour"),
        ("0 9-17/2 * * MON-FRI", "at minute 0, every 2 hours from 9 to 17, Monday to Friday"),
        ("0 9-18/2 * * *", "at minute 0, every 2 hours from 9 to 17, every day"),
        ("0 9-17 * * *", "at minute 0, every hour from 9 to 17, every day"),
        ("0 22-4 * * MON", "at minute 0, in hours 0 to 4, 22 and 23, on Monday"),
        ("0 */2 * * *", "at minute 0, every 2 hours"),
        ("0 */5 * * *", "at minute 0, every 5 hours from 0 to 20, every day"),
        ("* */2 * * *", "every minute, in every 2nd hour"),
        ("* 9-17/4 * * *", "every minute, in every 4th hour from 9 to 17, every day"),
        ("*/10 9-17 * * *", "every 10 minutes, in hours 9 to 17, every day"),
        ("5,7 */3 * * *", "at minutes 5 and 7, in every 3rd hour"),
        ("* 9 * * *", "every minute, in hour 9, every day"),
        ("30 * * * * *", "at second 30, every minute"),
        ("*/20 * * * * *", "every 20 seconds"),
        ("*/20 5 * * * *", "every 20 seconds, in minute 5, every hour"),
        ("*/20 */5 * * * *", "every 20 seconds, in every 5th minute"),
        ("5 */5 * * * *", "at second 5, every 5 minutes"),
        ("0 */5 * * * *", "every 5 minutes"),
        ("*/7 * * * * *", "every 7 seconds from 0 to 56, every minute"),
        ("* 30 9 * * *", "every second, in minute 30, in hour 9, every day"),
        ("15,45 30 9 * * *", "at seconds 15 and 45, in minute 30, in hour 9, every day"),
    ]);
}

#[test]
fn a_few_irregular_times_of_a_day_are_named() {
    check(&[
        ("30 9 * * *", "at 09:30, every day"),
        ("15 30 9 * * *", "at 09:30:15, every day"),
        ("0 9,17 * * *", "at 09:00 and 17:00, every day"),
        ("5,20 9,17 * * *", "at 09:05, 09:20, 17:05 and 17:20, every day"),
        ("5,20,30 9,17 * * *", "at minutes 5, 20 and 30, in hours 9 and 17, every day"),
        ("@daily", "at 00:00, every day"),
        ("@hourly", "at minute 0, every hour"),
        ("@weekly", "at 00:00, on Sunday"),
        ("@monthly", "at 00:00, on day 1 of the month"),
        ("@yearly", "at 00:00, on day 1 of the month, in January"),
    ]);
}

#[test]
fn days_months_and_years_follow() {
    check(&[
        ("0 0 13 * *", "at 00:00, on day 13 of the month"),
        ("0 0 1,15 * *", "at 00:00, on days 1 and 15 of the month"),
        ("0 0 1-7 * ?", "at 00:00, on days 1 to 7 of the month"),
        ("0 0 */2 * *", "at 00:00, every 2 days from day 1 to day 31 of the month"),
        ("0 0 1-31 * *", "at 00:00, every day"),
        ("0 0 L * *", "at 00:00, on the last day of the month"),
        ("0 0 L-1 * *", "at 00:00, on the day before the last day of the month"),
        ("0 0 L-3 * *", "at 00:00, on the 3rd day before the last day of the month"),
        ("0 0 L-30 * *", "at 00:00, on the 30th day before the last day of the month (where that is the same month)"),
        ("0 0 LW * *", "at 00:00, on the last weekday (Monday to Friday) of the month"),
        ("0 0 15W * *", "at 00:00, on the month's weekday (Monday to Friday) nearest to day 15"),
        (
            "0 0 31W * *",
            "at 00:00, on the month's weekday (Monday to Friday) nearest to day 31 (where the month has that day)",
        ),
        ("0 0 1,L * *", "at 00:00, on day 1 of the month and on the last day of the month"),
        ("0 0 * * 5", "at 00:00, on Friday"),
        ("0 0 * * 7", "at 00:00, on Sunday"),
        ("0 0 ? * TUE,4,sat", "at 00:00, on Tuesday, Thursday and Saturday"),
        ("0 0 * * MON-FRI", "at 00:00, Monday to Friday"),
        ("0 0 * * FRI-MON", "at 00:00, Friday to Monday"),
        ("0 0 * * 5-7", "at 00:00, Friday to Sunday"),
        ("0 0 * * SAT-SUN", "at 00:00, on Sunday and Saturday"),
        ("0 0 * * 1-3,5", "at 00:00, on Monday to Wednesday and Friday"),
        ("0 0 * * */2", "at 00:00, on Sunday, Tuesday, Thursday and Saturday"),
        ("0 0 * * 0-6", "at 00:00, every day"),
        ("0 0 * * 5#2", "at 00:00, on the second Friday of the month"),
        ("0 0 * * MON#1,MON#5", "at 00:00, on the first Monday of the month and on the fifth Monday of the month"),
        ("0 0 * * 5L", "at 00:00, on the last Friday of the month"),
        ("0 0 * * MON,5L", "at 00:00, on Monday and on the last Friday of the month"),
        ("0 0 * 6 *", "at 00:00, every day, in June"),
        ("*/5 * * JAN,MAR *", "every 5 minutes, in January and March"),
        ("0 0 1 JUN-AUG *", "at 00:00, on day 1 of the month, from June to August"),
        ("0 0 1 NOV-FEB *", "at 00:00, on day 1 of the month, in January, February, November and December"),
        ("0 0 1 */4 *", "at 00:00, on day 1 of the month, in January, May and September"),
        ("0 0 0 * * ? 2027", "at 00:00, every day, in 2027"),
        ("0 0 0 * * ? 2027,2030-2033", "at 00:00, every day, in 2027 and 2030 to 2033"),
        ("0 0 0 * * ? 2027-2030", "at 00:00, every day, from 2027 to 2030"),
        ("0 0 0 * * ? 2028/4", "at 00:00, every day, every 4 years from 2028 to 2196"),
        ("0 0 0 * * ? */2", "at 00:00, every day, every 2 years from 1970 to 2198"),
        ("0 0 0 * * ? 1970-2100,2101-2199", "at 00:00, every day"),
    ]);
}

#[test]
fn two_restricted_day_fields_are_either_or_but_for_a_star() {
    check(&[
        ("0 0 13 * FRI", "at 00:00, on day 13 of the month or on Friday"),
        ("0 0 L * MON#1", "at 00:00, on the last day of the month or on the first Monday of the month"),
        ("0 0 1,15 6 MON-WED", "at 00:00, on days 1 and 15 of the month or Monday to Wednesday, in June"),
        ("0 0 */2 * MON", "at 00:00, every 2 days from day 1 to day 31 of the month, and only on Monday"),
        ("0 0 1 * */2", "at 00:00, on day 1 of the month, and only on Sunday, Tuesday, Thursday and Saturday"),
        ("0 0 1-31 * MON", "at 00:00, every day"),
        ("0 0 1 * 0-6", "at 00:00, every day"),
        ("0 0 ? * MON", "at 00:00, on Monday"),
    ]);
}

#[test]
fn days_that_match_both_fields_are_joined_by_and() {
    let utc = Zones::new().get("UTC").expect("known");
    let options = CronOptions { day_rule: DayRule::And, ..CronOptions::default() };
    for (expression, expected) in [
        ("0 0 13 * FRI", "at 00:00, on day 13 of the month, and only on Friday"),
        ("0 0 L * MON-FRI", "at 00:00, on the last day of the month, and only Monday to Friday"),
        (
            "0 0 1-7 * TUE#1,FRIL",
            "at 00:00, on days 1 to 7 of the month, and only on the first Tuesday of the month and on the last Friday of the month",
        ),
        ("0 0 13 * *", "at 00:00, on day 13 of the month"),
    ] {
        let cron = Cron::with_options(expression, utc.clone(), options).expect("valid");
        assert_eq!(cron.explain(at("2026-01-01T00:00:00Z"), 0).text, expected, "{expression}");
    }
}

#[test]
fn a_hashed_value_reads_as_the_one_that_was_chosen() {
    let utc = Zones::new().get("UTC").expect("known");
    let options = CronOptions { hash: Some(tickwheel_wire::name_hash("acme", "report")), ..CronOptions::default() };
    for expression in ["H * * * *", "H(0-29)/10 H(1-5) * * *", "0 0 H * H"] {
        let settled = settle_hashed(expression, options.hash.expect("given")).expect("valid");
        let hashed = Cron::with_options(expression, utc.clone(), options).expect("valid");
        assert_eq!(hashed.explain(at("2026-01-01T00:00:00Z"), 0).text, words(&settled));
    }
}

/// The statements about the next two changes.
#[track_caller]
fn check_changes(zone: &str, expression: &str, options: CronOptions, expected: [&str; 2]) {
    let cron = Cron::with_options(expression, Zones::new().get(zone).expect("known"), options).expect("valid");
    let changes = cron.explain(at("2026-12-01T00:00:00Z"), 3).clock_changes;
    let statements: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(statements, expected, "`{expression}` in {zone}, {options:?}");
}

const fn policies(gap: GapPolicy, overlap: OverlapPolicy) -> CronOptions {
    CronOptions { hash: None, gap: Some(gap), overlap: Some(overlap), day_rule: DayRule::Or }
}

#[test]
fn changes_in_berlin_are_told_by_policy() {
    let (vixie, check) = (CronOptions::default(), |expression, options, expected| {
        check_changes("Europe/Berlin", expression, options, expected);
    });
    check(
        "30 2 * * *",
        vixie,
        [
            "2027-03-28 02:00 -> 03:00 (+1 h): 02:30 does not exist; fires at 03:00:00+02:00",
            "2027-10-31 03:00 -> 02:00 (-1 h): 02:30 is shown twice; fires once, at 02:30:00+02:00",
        ],
    );
    check(
        "30 2 * * *",
        policies(GapPolicy::Skip, OverlapPolicy::Second),
        [
            "2027-03-28 02:00 -> 03:00 (+1 h): 02:30 does not exist and is skipped; fires next at 2027-03-29T02:30:00+02:00",
            "2027-10-31 03:00 -> 02:00 (-1 h): 02:30 is shown twice; fires once, at 02:30:00+01:00",
        ],
    );
    check(
        "30 2 * * *",
        policies(GapPolicy::Skip, OverlapPolicy::Both),
        [
            "2027-03-28 02:00 -> 03:00 (+1 h): 02:30 does not exist and is skipped; fires next at 2027-03-29T02:30:00+02:00",
            "2027-10-31 03:00 -> 02:00 (-1 h): 02:30 is shown twice; fires twice, at 02:30:00+02:00 and at 02:30:00+01:00",
        ],
    );
    check(
        "*/5 * * * *",
        vixie,
        [
            "2027-03-28 02:00 -> 03:00 (+1 h): 02:00, 02:05, 02:10 and 9 more do not exist and are skipped; \
         fires next at 2027-03-28T03:00:00+02:00",
            "2027-10-31 03:00 -> 02:00 (-1 h): 02:00, 02:05, 02:10 and 9 more are shown twice; fires twice for each, \
         from 02:00:00+02:00 to 02:55:00+02:00 and from 02:00:00+01:00 to 02:55:00+01:00",
        ],
    );
    check(
        "0,20,40 0-5 * * *",
        vixie,
        [
            "2027-03-28 02:00 -> 03:00 (+1 h): 02:00, 02:20 and 02:40 do not exist; fires once at 03:00:00+02:00",
            "2027-10-31 03:00 -> 02:00 (-1 h): 02:00, 02:20 and 02:40 are shown twice; fires once for each, \
         from 02:00:00+02:00 to 02:40:00+02:00",
        ],
    );
    check(
        "30 2 * * MON",
        vixie,
        [
            "2027-03-28 02:00 -> 03:00 (+1 h): nothing of it falls in the gap",
            "2027-10-31 03:00 -> 02:00 (-1 h): nothing of it is shown twice",
        ],
    );
    check(
        "30 2 * 3 SUNL",
        policies(GapPolicy::Skip, OverlapPolicy::First),
        [
            "2027-03-28 02:00 -> 03:00 (+1 h): 02:30 does not exist and is skipped; fires no more",
            "2027-10-31 03:00 -> 02:00 (-1 h): nothing of it is shown twice",
        ],
    );
}

#[test]
fn changes_of_other_zones_are_told_with_their_own_times() {
    let vixie = CronOptions::default();
    check_changes(
        "America/New_York",
        "30 1,2 * * *",
        vixie,
        [
            "2027-03-14 02:00 -> 03:00 (+1 h): 02:30 does not exist; fires at 03:00:00-04:00",
            "2027-11-07 02:00 -> 01:00 (-1 h): 01:30 is shown twice; fires once, at 01:30:00-04:00",
        ],
    );
    check_changes(
        "Australia/Lord_Howe",
        "15 2 * * *",
        vixie,
        [
            "2027-04-04 02:00 -> 01:30 (-30 min): nothing of it is shown twice",
            "2027-10-03 02:00 -> 02:30 (+30 min): 02:15 does not exist; fires at 02:30:00+11:00",
        ],
    );
    check_changes(
        "Australia/Lord_Howe",
        "*/20 * * * *",
        vixie,
        [
            "2027-04-04 02:00 -> 01:30 (-30 min): 01:40 is shown twice; fires twice, at 01:40:00+11:00 and at 01:40:00+10:30",
            "2027-10-03 02:00 -> 02:30 (+30 min): 02:00 and 02:20 do not exist and are skipped; \
         fires next at 2027-10-03T02:40:00+11:00",
        ],
    );
    let apia = cron("0 12 * * *", "Pacific/Apia").explain(at("2011-12-01T00:00:00Z"), 0).clock_changes;
    assert_eq!(
        apia[0].to_string(),
        "2011-12-30 00:00 -> 2011-12-31 00:00 (+24 h): 12:00 does not exist; fires at 00:00:00+14:00"
    );
}

#[test]
fn only_changes_of_the_next_two_years_are_told() {
    let changes = |zone, after| cron("@daily", zone).explain(at(after), 0).clock_changes.len();
    assert_eq!(changes("UTC", "2026-01-01T00:00:00Z"), 0);
    assert_eq!(changes("Asia/Kolkata", "2026-01-01T00:00:00Z"), 0);
    assert_eq!(changes("Europe/Berlin", "2026-01-01T00:00:00Z"), 2);
    // Brazil gave up summer time in 2019.
    assert_eq!(changes("America/Sao_Paulo", "2018-12-01T00:00:00Z"), 1);
    // Samoa changed its clock on 2010-09-26 for the first time in decades.
    assert_eq!(changes("Pacific/Apia", "2008-09-25T00:00:00Z"), 0);
    assert_eq!(changes("Pacific/Apia", "2008-09-27T00:00:00Z"), 1);
}

#[test]
fn an_explanation_is_shown_as_lines() {
    let explanation = cron("30 2 * * *", "Europe/Berlin").explain(at("2027-03-27T00:00:00Z"), 2);
    let expected = "at 02:30, every day\n\
        2027-03-27T02:30:00+01:00\n\
        2027-03-28T03:00:00+02:00\n\
        2027-03-28 02:00 -> 03:00 (+1 h): 02:30 does not exist; fires at 03:00:00+02:00\n\
        2027-10-31 03:00 -> 02:00 (-1 h): 02:30 is shown twice; fires once, at 02:30:00+02:00";
    assert_eq!(explanation.to_string(), expected);
}
