//! What happens where the clock is turned forward or back: cases by hand.

use super::*;

/// Checks the fires after `after` against `expected`.
fn check(zone: &str, expression: &str, after: &str, expected: &[&str]) {
    assert_eq!(fires(expression, zone, after, expected.len()), expected, "`{expression}` in {zone} after {after}");
}

#[test]
fn a_fixed_time_in_a_gap_fires_right_after_it() {
    check(
        "Europe/Berlin",
        "30 2 * * *",
        "2026-03-28T00:00:00Z",
        &["2026-03-28 02:30 +01:00", "2026-03-29 03:00 +02:00", "2026-03-30 02:30 +02:00"],
    );
    check(
        "America/New_York",
        "15 2 * * SUN",
        "2026-03-02T00:00:00Z",
        &["2026-03-08 03:00 -04:00", "2026-03-15 02:15 -04:00"],
    );
    // Between the changes of a half hour on Lord Howe Island.
    check(
        "Australia/Lord_Howe",
        "15 2 * * *",
        "2026-10-03T00:00:00Z",
        &["2026-10-04 02:30 +11:00", "2026-10-05 02:15 +11:00"],
    );
    // Midnight did not exist in Brazil on the first day of summer time.
    check(
        "America/Sao_Paulo",
        "@daily",
        "2018-11-03T12:00:00Z",
        &["2018-11-04 01:00 -02:00", "2018-11-05 00:00 -02:00"],
    );
    // Samoa had no 30 December in 2011.
    check(
        "Pacific/Apia",
        "0 12 * * *",
        "2011-12-29T12:00:00-10:00",
        &["2011-12-31 00:00 +14:00", "2011-12-31 12:00 +14:00"],
    );
}

#[test]
fn several_fixed_times_in_one_gap_make_one_fire() {
    check(
        "Europe/Berlin",
        "0,10,20,30,40,50 2,3 * * *",
        "2026-03-28T02:40:00Z",
        &["2026-03-28 03:50 +01:00", "2026-03-29 03:00 +02:00", "2026-03-29 03:10 +02:00"],
    );
}

#[test]
fn a_fixed_time_that_comes_twice_fires_at_the_first() {
    check(
        "Europe/Berlin",
        "30 2 * * *",
        "2026-10-24T12:00:00Z",
        &["2026-10-25 02:30 +02:00", "2026-10-26 02:30 +01:00"],
    );
    check(
        "America/New_York",
        "0,30 1 * * *",
        "2026-11-01T00:00:00-04:00",
        &["2026-11-01 01:00 -04:00", "2026-11-01 01:30 -04:00", "2026-11-02 01:00 -05:00"],
    );
    check("America/New_York", "0 2 * * *", "2026-11-01T01:30:00-04:00", &["2026-11-01 02:00 -05:00"]);
    // Asked within the second pass, where 01:45 has been already.
    check("America/New_York", "45 1 * * *", "2026-11-01T01:15:00-05:00", &["2026-11-02 01:45 -05:00"]);
    check("America/New_York", "45 1,2 * * *", "2026-11-01T01:15:00-05:00", &["2026-11-01 02:45 -05:00"]);
    // A range over all hours is a list of fixed hours.
    check(
        "America/New_York",
        "0 0-23 * * *",
        "2026-11-01T00:30:00-04:00",
        &["2026-11-01 01:00 -04:00", "2026-11-01 02:00 -05:00"],
    );
}

#[test]
fn a_schedule_for_every_hour_runs_on_by_elapsed_time() {
    check(
        "Europe/Berlin",
        "30 * * * *",
        "2026-03-29T01:00:00+01:00",
        &["2026-03-29 01:30 +01:00", "2026-03-29 03:30 +02:00", "2026-03-29 04:30 +02:00"],
    );
    check(
        "Europe/Berlin",
        "30 * * * *",
        "2026-10-25T01:45:00+02:00",
        &["2026-10-25 02:30 +02:00", "2026-10-25 02:30 +01:00", "2026-10-25 03:30 +01:00"],
    );
    check(
        "America/New_York",
        "*/30 * * * *",
        "2026-11-01T01:00:00-04:00",
        &["2026-11-01 01:30 -04:00", "2026-11-01 01:00 -05:00", "2026-11-01 01:30 -05:00", "2026-11-01 02:00 -05:00"],
    );
    check(
        "America/New_York",
        "0 */2 * * *",
        "2026-03-08T00:00:00-05:00",
        &["2026-03-08 04:00 -04:00", "2026-03-08 06:00 -04:00"],
    );
    check(
        "Australia/Lord_Howe",
        "*/20 * * * *",
        "2026-04-05T01:30:00+11:00",
        &["2026-04-05 01:40 +11:00", "2026-04-05 01:40 +10:30", "2026-04-05 02:00 +10:30"],
    );
    check(
        "Pacific/Apia",
        "0 * * * *",
        "2011-12-29T22:30:00-10:00",
        &["2011-12-29 23:00 -10:00", "2011-12-31 00:00 +14:00", "2011-12-31 01:00 +14:00"],
    );
}

#[test]
fn a_schedule_for_every_minute_of_an_hour_runs_on_by_elapsed_time() {
    // As in Vixie cron a star in the minute field is enough.
    check(
        "America/New_York",
        "*/30 1 * * *",
        "2026-11-01T00:00:00-04:00",
        &["2026-11-01 01:00 -04:00", "2026-11-01 01:30 -04:00", "2026-11-01 01:00 -05:00", "2026-11-01 01:30 -05:00"],
    );
    check("Europe/Berlin", "*/10 2 * * *", "2026-03-28T01:55:00Z", &["2026-03-30 02:00 +02:00"]);
}

#[test]
fn policies_that_a_job_states_hold_whatever_its_fields_are() {
    let check = |zone: &str, expression, after, gap, overlap, expected: &[&str]| {
        let options = CronOptions { gap, overlap, ..CronOptions::default() };
        let cron = Cron::with_options(expression, zones().get(zone).expect("known"), options).expect("valid");
        assert_eq!(fires_of(&cron, after, expected.len()), expected, "`{expression}` in {zone}: {options:?}");
    };
    let (berlin, spring, autumn) = ("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z");
    check(berlin, "30 2 * * *", spring, Some(GapPolicy::Skip), None, &["2026-03-30 02:30 +02:00"]);
    let after = Some(GapPolicy::FireAfter);
    check(berlin, "*/30 2 * * *", spring, after, None, &["2026-03-29 03:00 +02:00", "2026-03-30 02:00 +02:00"]);
    let twice = ["2026-10-25 02:30 +02:00", "2026-10-25 02:30 +01:00", "2026-10-26 02:30 +01:00"];
    check(berlin, "30 2 * * *", autumn, None, Some(OverlapPolicy::Both), &twice);
    check(berlin, "30 2 * * *", autumn, None, Some(OverlapPolicy::Second), &twice[1..]);
    let first = Some(OverlapPolicy::First);
    let hours = ["2026-10-25 02:30 +02:00", "2026-10-25 03:30 +01:00"];
    check(berlin, "30 * * * *", "2026-10-25T00:00:00Z", None, first, &hours);
    // A yearly schedule is not passed over when the clock shows its time again.
    let yearly = ["2026-10-25 02:30 +01:00", "2027-10-25 02:30 +02:00"];
    check(berlin, "30 2 25 10 *", "2026-10-25T00:59:59Z", None, Some(OverlapPolicy::Both), &yearly);
}

#[test]
fn every_minute_means_every_minute_through_both_changes() {
    for (zone, start) in [("Europe/Berlin", "2026-03-29T00:00:00Z"), ("Europe/Berlin", "2026-10-25T00:00:00Z")] {
        let every_minute = cron("* * * * *", zone);
        let mut last = at(start);
        for _ in 0..180 {
            let next = every_minute.next_after(last).expect("always");
            assert_eq!(next.saturating_since(last).as_secs(), 60);
            last = next;
        }
    }
}

#[test]
fn rare_schedules_find_their_way_over_many_changes() {
    check(
        "America/New_York",
        "* * 29 2 */7",
        "2088-03-02T00:00:00Z",
        &["2128-02-29 00:00 -05:00", "2128-02-29 00:01 -05:00"],
    );
    check("America/New_York", "0 0 29 2 *", "2896-03-01T00:00:00Z", &["2904-02-29 00:00 -05:00"]);
    check("Europe/Berlin", "30 2 31 3 */7", "2898-04-01T00:00:00Z", &["2909-03-31 03:00 +02:00"]);
}

#[test]
#[cfg_attr(miri, ignore = "walks through centuries")]
fn a_schedule_whose_every_time_is_left_out_never_fires() {
    // The clock goes forward from 02:00 to 03:00 on the last Sunday of every March.
    let berlin = Zones::new().get("Europe/Berlin").expect("known");
    let options = CronOptions { gap: Some(GapPolicy::Skip), ..CronOptions::default() };
    let cron = Cron::with_options("30 2 * 3 SUNL", berlin, options).expect("valid");
    assert_eq!(cron.next_after(at("2026-01-01T00:00:00Z")), None);
}

#[test]
#[cfg_attr(miri, ignore = "walks through 51,000 periods")]
#[should_panic(expected = "periods that a zone has")]
fn a_table_of_more_periods_than_any_zone_has_ends_the_walk() {
    // Half a day is left out and shown again in turn, so that no afternoon comes, for 70 years.
    let restless = Zone::restless(&[0, 43_200], 43_200, 51_000);
    let options = CronOptions { gap: Some(GapPolicy::Skip), ..CronOptions::default() };
    let cron = Cron::with_options("0 18 * * *", restless, options).expect("valid");
    cron.next_after(at("1970-01-05T00:00:00Z"));
}
