//! What expressions mean and which are refused, field by field.

use super::super::syntax::{self, EXPRESSION_BYTES_MAX};
use super::*;
use crate::schedule::cron::pattern::{DaysFrom, Pattern, Rare};

/// What `expression` says where no job's name matters.
fn parse(expression: &str) -> Result<Pattern, CronError> {
    syntax::parse(&settle_hashed(expression, 0)?, DayRule::Or).map(|parsed| parsed.pattern)
}

fn bits(mask: u64) -> Vec<u32> {
    (0..64).filter(|bit| mask >> bit & 1 == 1).collect()
}

/// The values of field number `field` in an expression whose other fields are `*`.
fn values(field: usize, text: &str) -> Vec<u32> {
    let mut fields = ["*"; 5];
    fields[field] = text;
    let pattern = parse(&fields.join(" ")).unwrap_or_else(|error| panic!("{text}: {error}"));
    let masks =
        [pattern.minutes, pattern.hours.into(), pattern.days.into(), pattern.months.into(), pattern.weekdays.into()];
    bits(masks[field])
}

#[test]
fn each_kind_of_term_selects_its_values() {
    let all = |range: std::ops::RangeInclusive<u32>| range.collect::<Vec<_>>();
    let cases = [
        (0, "*", all(0..=59)),
        (1, "*", all(0..=23)),
        (2, "*", all(1..=31)),
        (3, "*", all(1..=12)),
        (4, "*", all(0..=6)),
        (0, "0", vec![0]),
        (0, "59", vec![59]),
        (0, "007", vec![7]),
        (0, "1,3,5,3", vec![1, 3, 5]),
        (0, "10-13", vec![10, 11, 12, 13]),
        (0, "10-10", vec![10]),
        (0, "*/15", vec![0, 15, 30, 45]),
        (0, "*/1", all(0..=59)),
        (0, "*/60", vec![0]),
        (0, "10-20/5", vec![10, 15, 20]),
        (0, "10-20/7", vec![10, 17]),
        (0, "50/4", vec![50, 54, 58]),
        (0, "0/20", vec![0, 20, 40]),
        (0, "1-3,*/30,57/2", vec![0, 1, 2, 3, 30, 57, 59]),
        (0, "58-1", vec![0, 1, 58, 59]),
        (0, "50-10/10", vec![0, 10, 50]),
        (1, "22-23,0-4", vec![0, 1, 2, 3, 4, 22, 23]),
        (1, "22-4", vec![0, 1, 2, 3, 4, 22, 23]),
        (1, "21-4/3", vec![0, 3, 21]),
        (3, "NOV-FEB", vec![1, 2, 11, 12]),
        (4, "FRI-MON", vec![0, 1, 5, 6]),
        (4, "5-0", vec![0, 5, 6]),
        (4, "7-2", vec![0, 1, 2]),
        (4, "SAT-TUE/2", vec![1, 6]),
        (1, "*/24", vec![0]),
        (2, "*/10", vec![1, 11, 21, 31]),
        (2, "29/1", vec![29, 30, 31]),
        (3, "*/4", vec![1, 5, 9]),
        (3, "jan,Feb,DEC", vec![1, 2, 12]),
        (3, "MAR-may", vec![3, 4, 5]),
        (3, "Jun-12/2", vec![6, 8, 10, 12]),
        (4, "0", vec![0]),
        (4, "7", vec![0]),
        (4, "0,7", vec![0]),
        (4, "0-7", all(0..=6)),
        (4, "5-7", vec![0, 5, 6]),
        (4, "6-7/1", vec![0, 6]),
        (4, "*/2", vec![0, 2, 4, 6]),
        (4, "*/7", vec![0]),
        (4, "mon-FRI", vec![1, 2, 3, 4, 5]),
        (4, "SUN-SAT", all(0..=6)),
        (4, "SUN-SUN", vec![0]),
        (4, "MON-SUN", all(0..=6)),
        (4, "Sat-Sun", vec![0, 6]),
        (4, "TUE,4,sAt", vec![2, 4, 6]),
        (4, "1-5/2", vec![1, 3, 5]),
        (4, "MON/3", vec![1, 4]),
    ];
    for (field, text, expected) in cases {
        assert_eq!(values(field, text), expected, "field {field} `{text}`");
    }
}

#[test]
fn terms_of_the_day_fields_are_kept_by_their_meaning() {
    let rare = |text: &str| parse(text).map(|pattern| pattern.rare.map_or_else(Rare::default, |rare| *rare));
    let cases = [
        ("0 0 L * *", Rare { before_last: 1, ..Rare::default() }),
        ("0 0 l,L-3,L-30 * *", Rare { before_last: 1 | 1 << 3 | 1 << 30, ..Rare::default() }),
        ("0 0 LW * *", Rare { last_workday: true, ..Rare::default() }),
        ("0 0 1W,31w * *", Rare { nearest_to: 1 << 1 | 1 << 31, ..Rare::default() }),
        ("0 0 * * MON#1,fri#5", Rare { nth_weekdays: [1 << 1, 0, 0, 0, 1 << 5], ..Rare::default() }),
        ("0 0 * * 7#2", Rare { nth_weekdays: [0, 1, 0, 0, 0], ..Rare::default() }),
        ("0 0 * * 5L,SUNL", Rare { last_weekdays: 1 | 1 << 5, ..Rare::default() }),
        ("0 0 0 * * * 1970,2199", Rare { years: Some([1, 0, 0, 1 << 37]), ..Rare::default() }),
        ("0 0 0 * * *", Rare::default()),
    ];
    for (expression, expected) in cases {
        assert_eq!(rare(expression), Ok(expected), "{expression}");
    }
    assert_eq!(parse("0 0 1,L * *").map(|pattern| pattern.days), Ok(1 << 1), "beside plain days");
}

#[test]
fn six_fields_begin_with_seconds() {
    assert_eq!(parse("0 1 2 3 4 5"), parse("1 2 3 4 5"));
    let pattern = parse("*/20 * * * * *").expect("valid");
    assert_eq!(bits(pattern.seconds), [0, 20, 40]);
    assert_eq!(parse("0 0 0 * * * *"), parse("0 0 * * *"));
    assert_ne!(parse("0 0 0 * * * */2"), parse("0 0 * * *"));
}

#[test]
fn the_jobs_name_chooses_one_of_the_values() {
    let minutes = |expression: &str, hash| {
        let settled = settle_hashed(expression, hash).expect("valid");
        bits(parse(&settled).expect("valid").minutes)
    };
    let hash = |number: u64| tickwheel_wire::name_hash("acme", &format!("job-{number}"));
    let mut jobs_of_minute = [0_u32; 60];
    for number in 0..if cfg!(miri) { 4 } else { 6_000 } {
        let hash = hash(number);
        let [minute] = minutes("H * * * *", hash)[..] else { panic!("one minute") };
        jobs_of_minute[minute as usize] += 1;
        assert_eq!(minutes("0 H * * * *", hash), [minute], "wherever the field stands");
        let [minute] = minutes("H(10-14) * * * *", hash)[..] else { panic!("one minute") };
        assert!((10..=14).contains(&minute));
        let [minute] = minutes("H(58-1) * * * *", hash)[..] else { panic!("one minute") };
        assert!([58, 59, 0, 1].contains(&minute));
        let [a, b, c, d] = minutes("H/15 * * * *", hash)[..] else { panic!("every quarter of an hour") };
        assert!(a < 15 && [b - a, c - b, d - c] == [15; 3]);
        let day = parse(&settle_hashed("0 0 H * *", hash).expect("valid")).expect("valid").days;
        assert!(day.count_ones() == 1 && day < 1 << 29, "a day that every month has");
    }
    assert!(cfg!(miri) || jobs_of_minute.iter().all(|jobs| (60..150).contains(jobs)), "{jobs_of_minute:?}");
}

#[test]
fn without_a_job_no_value_is_chosen() {
    let refusal = CronError::Field { field: CronField::Hour, text: "H(1-5)/2".into(), problem: FieldProblem::Hashed };
    assert_eq!(syntax::parse("0 H(1-5)/2 * * *", DayRule::Or), Err(refusal.clone()));
    let utc = Zones::new().get("UTC").expect("known zone");
    assert_eq!(Cron::new("0 H(1-5)/2 * * *", utc.clone()), Err(refusal));
    let options = CronOptions { hash: Some(7), ..CronOptions::default() };
    let settled = settle_hashed("0 H(1-5)/2 * * *", 7).expect("valid");
    assert_eq!(Cron::with_options("0 H(1-5)/2 * * *", utc.clone(), options), Cron::new(&settled, utc));
}

#[test]
fn shorthands_stand_for_their_expressions() {
    let cases = [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        (" @Daily ", "0 0 * * *"),
    ];
    for (shorthand, expression) in cases {
        assert_eq!(parse(shorthand), parse(expression), "{shorthand}");
    }
}

#[test]
fn blanks_of_any_kind_and_number_separate_fields() {
    assert_eq!(parse("\t 1  2\t3 \t4   5\n"), parse("1 2 3 4 5"));
}

#[test]
fn a_day_field_that_begins_with_a_star_is_unrestricted() {
    let cases = [
        ("0 0 1 * MON", DaysFrom::Either),
        ("0 0 1-31 * 0-6", DaysFrom::Either),
        ("0 0 1,*/2 * MON", DaysFrom::Either),
        ("0 0 * * MON", DaysFrom::Both),
        ("0 0 1 * *", DaysFrom::Both),
        ("0 0 */2 * MON", DaysFrom::Both),
        ("0 0 1 * */2", DaysFrom::Both),
        ("0 0 */2,5 * MON", DaysFrom::Both),
        ("0 0 ? * MON", DaysFrom::Both),
        ("0 0 1 * ?", DaysFrom::Both),
        ("0 0 L * MON", DaysFrom::Either),
        ("0 0 1 * MON#1", DaysFrom::Either),
        ("0 0 H * MON", DaysFrom::Either),
    ];
    for (expression, expected) in cases {
        assert_eq!(parse(expression).map(|pattern| pattern.days_from), Ok(expected), "{expression}");
    }
}

#[test]
fn a_wrong_part_is_refused_with_its_field_and_range() {
    use CronField::{DayOfMonth, DayOfWeek, Hour, Minute, Month, Second, Year};
    use FieldProblem::{NotAValue, OutOfRange, Reversed};
    let step = |step_max| FieldProblem::Step { step_max };
    let cases = [
        ("60 * * * *", Minute, "60", OutOfRange),
        ("99999999999999999999 * * * *", Minute, "99999999999999999999", OutOfRange),
        ("256 * * * *", Minute, "256", OutOfRange),
        ("* 24 * * *", Hour, "24", OutOfRange),
        ("* * 0 * *", DayOfMonth, "0", OutOfRange),
        ("* * 32 * *", DayOfMonth, "32", OutOfRange),
        ("* * * 0 *", Month, "0", OutOfRange),
        ("* * * 13 *", Month, "13", OutOfRange),
        ("* * * * 8", DayOfWeek, "8", OutOfRange),
        ("5-60 * * * *", Minute, "5-60", OutOfRange),
        ("* * 20-10 * *", DayOfMonth, "20-10", Reversed),
        ("0 * * * * * 2030-2029", Year, "2030-2029", Reversed),
        ("60 * * * * *", Second, "60", OutOfRange),
        ("0 * * * * * 1969", Year, "1969", OutOfRange),
        ("0 * * * * * 2200", Year, "2200", OutOfRange),
        ("a * * * *", Minute, "a", NotAValue),
        ("-5 * * * *", Minute, "-5", NotAValue),
        ("+5 * * * *", Minute, "+5", NotAValue),
        ("5- * * * *", Minute, "5-", NotAValue),
        ("1-2-3 * * * *", Minute, "1-2-3", NotAValue),
        ("1.5 * * * *", Minute, "1.5", NotAValue),
        ("** * * * *", Minute, "**", NotAValue),
        ("*-5 * * * *", Minute, "*-5", NotAValue),
        ("1,,2 * * * *", Minute, "", NotAValue),
        (",1 * * * *", Minute, "", NotAValue),
        ("1,x,2 * * * *", Minute, "x", NotAValue),
        ("/5 * * * *", Minute, "/5", NotAValue),
        ("MON * * * *", Minute, "MON", NotAValue),
        ("* * * MON *", Month, "MON", NotAValue),
        ("* * * * JAN", DayOfWeek, "JAN", NotAValue),
        ("* * * * MONDAY", DayOfWeek, "MONDAY", NotAValue),
        ("* L * * *", Hour, "L", NotAValue),
        ("* ? * * *", Hour, "?", NotAValue),
        ("* * ?,1 * *", DayOfMonth, "?", NotAValue),
        ("* * L-31 * *", DayOfMonth, "L-31", OutOfRange),
        ("* * L-x * *", DayOfMonth, "L-x", NotAValue),
        ("* * L-3W * *", DayOfMonth, "L-3W", NotAValue),
        ("* * 0W * *", DayOfMonth, "0W", OutOfRange),
        ("* * 32W * *", DayOfMonth, "32W", OutOfRange),
        ("* * 1-5W * *", DayOfMonth, "1-5W", NotAValue),
        ("* * W * *", DayOfMonth, "W", NotAValue),
        ("* * MON#2 * *", DayOfMonth, "MON#2", NotAValue),
        ("* * * * L", DayOfWeek, "L", NotAValue),
        ("* * * * 8L", DayOfWeek, "8L", OutOfRange),
        ("* * * * MON#0", DayOfWeek, "MON#0", OutOfRange),
        ("* * * * MON#6", DayOfWeek, "MON#6", OutOfRange),
        ("* * * * MON#", DayOfWeek, "MON#", NotAValue),
        ("* * * * #2", DayOfWeek, "#2", NotAValue),
        ("* * * * 1W", DayOfWeek, "1W", NotAValue),
        ("H-5 * * * *", Minute, "H-5", NotAValue),
        ("H() * * * *", Minute, "H()", NotAValue),
        ("H(5) * * * *", Minute, "H(5)", NotAValue),
        ("H(5-60) * * * *", Minute, "H(5-60)", OutOfRange),
        ("H5 * * * *", Minute, "H5", NotAValue),
        ("H(1-5 * * * *", Minute, "H(1-5", NotAValue),
        ("H/61 * * * *", Minute, "H/61", step(60)),
        ("٣ * * * *", Minute, "٣", NotAValue),
        ("*/0 * * * *", Minute, "*/0", step(60)),
        ("*/61 * * * *", Minute, "*/61", step(60)),
        ("*/ * * * *", Minute, "*/", step(60)),
        ("*/-1 * * * *", Minute, "*/-1", step(60)),
        ("*/5/2 * * * *", Minute, "*/5/2", step(60)),
        ("* */25 * * *", Hour, "*/25", step(24)),
        ("* * * * */8", DayOfWeek, "*/8", step(7)),
        ("* * * */x *", Month, "*/x", step(12)),
    ];
    for (expression, field, text, problem) in cases {
        assert_eq!(parse(expression), Err(CronError::Field { field, text: text.into(), problem }), "{expression}");
    }
}

#[test]
fn an_expression_of_the_wrong_shape_is_refused() {
    let field_count = |count| CronError::FieldCount { count };
    let shorthand = |text: &str| CronError::UnknownShorthand { text: text.into() };
    let long = "1,".repeat(EXPRESSION_BYTES_MAX);
    let cases = [
        ("", field_count(0)),
        ("   ", field_count(0)),
        ("* * * *", field_count(4)),
        ("0 * * * * * 2026 *", field_count(8)),
        ("* * ? * ?", CronError::NoDay),
        ("@reboot", CronError::Reboot),
        ("@REBOOT", CronError::Reboot),
        ("@", shorthand("@")),
        ("@fortnightly", shorthand("@fortnightly")),
        ("@daily *", shorthand("@daily *")),
        (&long, CronError::TooLong { bytes: long.len(), bytes_max: EXPRESSION_BYTES_MAX }),
    ];
    for (expression, expected) in cases {
        assert_eq!(parse(expression), Err(expected), "{expression}");
    }
}

#[test]
fn a_date_that_no_year_has_is_refused() {
    for month in 1..=12 {
        for day in if cfg!(miri) { 29 } else { 1 }..=31 {
            let expression = format!("0 0 {day} {month} *");
            let exists = jiff::civil::Date::new(2024, month, day).is_ok();
            let refusal = CronError::NeverFires { text: expression.clone() };
            assert_eq!(parse(&expression).err(), (!exists).then_some(refusal), "{expression}");
        }
    }
    assert!(parse("0 0 30-31 2 *").is_err());
    assert!(parse("0 0 31 4,6,9,11 */2").is_err());
    // With the weekday restricted too, every Monday matches.
    assert!(parse("0 0 30 2 MON").is_ok());
    assert!(parse("0 0 30W 2 *").is_err());
    assert!(parse("0 0 L-29 2 *").is_err());
    assert!(parse("0 0 * 2 MON#5").is_ok(), "in leap years that begin on a Sunday, for one");
    assert!(parse("0 0 0 29 2 ? 2025-2027").is_err());
    assert!(parse("0 0 0 29 2 ? 2025-2028").is_ok());
}

#[test]
fn errors_name_the_field_the_text_and_the_range() {
    let shown = |expression| parse(expression).expect_err("invalid").to_string();
    assert_eq!(shown("75 * * * *"), "minute `75`: out of range; allowed are 0-59");
    assert_eq!(shown("* * * FOO *"), "month `FOO`: not a value, a range or `*`; allowed are 1-12 or JAN-DEC");
    assert_eq!(
        shown("* * * * */9"),
        "day of week `*/9`: a step is a number from 1 to 7; allowed are 0-7 or SUN-SAT, with L or #1 to #5 behind, and ?"
    );
    let long_part = format!("{} * * * *", "é".repeat(100));
    let CronError::Field { text, .. } = parse(&long_part).expect_err("invalid") else { panic!("a field is wrong") };
    assert_eq!(text, "é".repeat(64));
}
