//! Agreement with the crate `croner`.
//!
//! It differs on purpose in two points, which the generated expressions leave out: a star with a step counts as a
//! restriction of a day field (so without a star there `and` is its `dom_and_dow`), and only a single hour and minute count as a fixed time.

use super::*;
use proptest::prelude::*;
use std::str::FromStr;

fn list(min: u8, max: u8) -> impl Strategy<Value = String> {
    let term = (min..=max, min..=max, 1u8..5, 0..3).prop_map(|(a, b, step, kind)| match kind {
        0 => a.to_string(),
        1 => format!("{}-{}", a.min(b), a.max(b)),
        _ => format!("{}-{}/{step}", a.min(b), a.max(b)),
    });
    prop::collection::vec(term, 1..4).prop_map(|terms| terms.join(","))
}

fn star_or_list(min: u8, max: u8) -> impl Strategy<Value = String> {
    prop_oneof![Just("*".to_string()), (2u8..=5).prop_map(|step| format!("*/{step}")), list(min, max)]
}

fn days_and_month() -> impl Strategy<Value = String> {
    let days = prop_oneof![
        Just(("*".to_string(), "*".to_string())),
        (star_or_list(1, 28), Just("*".to_string())),
        (Just("*".to_string()), star_or_list(0, 6)),
        (list(1, 28), list(0, 6)),
    ];
    (days, star_or_list(1, 12)).prop_map(|((day, weekday), month)| format!("{day} {month} {weekday}"))
}

/// Compares the next `count` fires.
fn check(expression: &str, zone: &str, from_s: i64, count: usize) -> Result<(), TestCaseError> {
    let theirs = croner::Cron::from_str(expression).expect("valid for croner");
    agree(&theirs, &cron(expression, zone), (expression, zone), from_s, count)
}

fn agree(
    theirs: &croner::Cron,
    ours: &Cron,
    (expression, zone): (&str, &str),
    from_s: i64,
    count: usize,
) -> Result<(), TestCaseError> {
    let mut last = Timestamp::from_secs(from_s.try_into().expect("after the epoch"));
    for _ in 0..if cfg!(miri) { 3 } else { count } {
        let last_zoned = to_jiff(last).to_zoned(jiff_zone(zone));
        let expected = theirs.find_next_occurrence(&last_zoned, false).expect("fires").timestamp();
        let found = ours.next_after(last).expect("fires");
        prop_assert_eq!(to_jiff(found), expected, "`{}` in {} after {}", expression, zone, last_zoned);
        last = found;
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_expression_in_utc(
        minute in star_or_list(0, 59),
        hour in star_or_list(0, 23),
        rest in days_and_month(),
        from_s in 0..4_000_000_000i64,
    ) {
        check(&format!("{minute} {hour} {rest}"), "UTC", from_s, 10)?;
    }

    #[test]
    fn days_that_match_both_fields(day in list(1, 28), month in star_or_list(1, 12), weekday in list(0, 6), from_s in 0..4_000_000_000i64) {
        let expression = format!("0 0 {day} {month} {weekday}");
        let options = CronOptions { day_rule: DayRule::And, ..CronOptions::default() };
        let ours = Cron::with_options(&expression, zones().get("UTC").expect("known"), options).expect("fires");
        let parser = croner::parser::CronParser::builder().dom_and_dow(true).build();
        let theirs = parser.parse(&expression).expect("valid for croner");
        agree(&theirs, &ours, (&expression, "UTC"), from_s, 4)?;
    }

    #[test]
    fn one_fixed_time_a_day_in_berlin_and_new_york(
        minute in 0..60,
        hour in 0..5,
        berlin: bool,
        from_s in 500_000_000..3_000_000_000i64,
    ) {
        let zone = if berlin { "Europe/Berlin" } else { "America/New_York" };
        check(&format!("{minute} {hour} * * *"), zone, from_s, 400)?;
    }

    #[test]
    fn every_hour_in_berlin_and_new_york(
        minute in star_or_list(0, 59),
        step in 1..5,
        berlin: bool,
        change in 0..2usize,
        lead_s in 0..20_000i64,
    ) {
        let (zone, changes_s) = if berlin {
            ("Europe/Berlin", [1_774_746_000, 1_792_890_000])
        } else {
            ("America/New_York", [1_772_953_200, 1_793_512_800])
        };
        check(&format!("{minute} */{step} * * *"), zone, changes_s[change] - lead_s, 60)?;
    }
}
