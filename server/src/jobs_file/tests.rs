//! Claims about jobs files, good and bad.

use super::*;
use std::time::Duration;
use tickwheel_client::{
    DayRule, DstGap, DstOverlap, FiringRules, Misfire, Overlap, Priority, RetryPolicy, Schedule, Timestamp,
};

/// The jobs of a file, or its errors as they are shown.
fn check(text: &str) -> Result<Vec<FileJob>, Vec<String>> {
    parse(text, "jobs.toml", None).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn one(body: &str) -> FileJob {
    let mut jobs =
        check(&format!("[[job]]\nname = \"a\"\n{body}")).unwrap_or_else(|errors| panic!("{body}: {errors:?}"));
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

#[track_caller]
fn refused(body: &str, expected: &str) {
    let errors = check(&format!("[[job]]\nname = \"a\"\n{body}")).expect_err(body);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0], format!("jobs.toml: job \"a\": {expected}"), "{body}");
}

#[test]
fn every_key_has_its_meaning() {
    let job = one(r#"
        tenant = "acme"
        handler = "report"
        payload = "weekly"
        cron = "30 2 * * *"
        zone = "Europe/Berlin"
        pool = "high"
        priority = "P0"
        retry = { attempts_max = 7, initial = "2s", multiplier = 1.5, max = "1m", jitter_percent = 0, non_retryable = ["Refused", "Gone"] }
        timeout = "90s"
        heartbeat = "5s"
        misfire = "fire-all"
        misfire_max = 7
        misfire_grace = "10m"
        overlap = "buffer-all"
        overlap_max = 3
        schedule_to_start = "1500ms"
        pause_after_failures = 5
        starts_at = 2026-12-01T00:00:00Z
        ends_at = "2027-12-01T00:00:00+01:00"
        executions_max = 100
        jitter = "30s"
        dst_gap = "skip"
        dst_overlap = "both"
        day_rule = "and"
        delivery = "at-least-once"
        paused = true
    "#);
    let definition = &job.definition;
    assert_eq!((&*definition.name, &*definition.tenant), ("a", "acme"));
    assert_eq!((&*definition.handler, &*definition.payload), ("report", &b"weekly"[..]));
    let zone = "Europe/Berlin".to_owned();
    assert_eq!(definition.schedule, Schedule::Cron { expression: "30 2 * * *".to_owned(), zone });
    assert_eq!((&*definition.pool, definition.priority), ("high", Priority::P0));
    let retry = RetryPolicy {
        attempts_max: 7,
        initial_ms: 2_000,
        multiplier_milli: 1_500,
        delay_ms_max: 60_000,
        jitter_percent: 0,
    };
    assert_eq!(definition.retry, retry);
    assert_eq!(definition.start_to_close, Some(Duration::from_secs(90)));
    assert_eq!(definition.heartbeat, Some(Duration::from_secs(5)));
    assert_eq!((job.paused, definition.paused), (Some(true), true));
    let rules = FiringRules {
        misfire: Misfire::FireAll,
        misfire_max: 7,
        misfire_grace_ms: 600_000,
        overlap: Overlap::BufferAll,
        overlap_max: 3,
        schedule_to_start_ms: 1_500,
        pause_after_failures: 5,
        starts_at: Timestamp::from_secs(1_796_083_200),
        ends_at: Timestamp::from_secs(1_827_615_600),
        executions_max: 100,
        jitter_ms: 30_000,
        dst_gap: DstGap::Skip,
        dst_overlap: DstOverlap::Both,
        day_rule: DayRule::And,
    };
    assert_eq!((definition.rules, &*definition.non_retryable), (rules, "Refused,Gone"));
}

#[test]
fn bytes_are_given_in_base64() {
    let job = one("handler = \"h\"\nevery = \"1s\"\npayload_base64 = \"\"\"\n  AP8A\n  /w==\n\"\"\"");
    assert_eq!(*job.definition.payload, [0x00, 0xff, 0x00, 0xff]);
}

#[test]
fn at_most_once_is_one_attempt() {
    let job = one("handler = \"h\"\nevery = \"1s\"\ndelivery = \"at-most-once\"");
    assert_eq!(job.definition.retry.attempts_max, 1);
    let both = "handler = \"h\"\nevery = \"1s\"\ndelivery = \"at-most-once\"\nretry = { attempts_max = 2 }";
    refused(both, "`retry.attempts_max` makes no sense with `delivery = at-most-once`");
}

#[test]
fn what_is_absent_keeps_the_protocols_default() {
    let job = one("handler = \"h\"\nevery = \"1s\"");
    let plain = tickwheel_client::JobBuilder::new("a").handler("h").every(Duration::from_secs(1));
    assert_eq!(job.definition, *plain.definition());
    assert_eq!(job.paused, None);
}

#[test]
fn each_schedule_can_be_written() {
    let at = Schedule::Once { at: Timestamp::from_secs(1_893_456_000) };
    for (text, expected) in [
        ("every = \"1m 30s\"", Schedule::Interval { every: Duration::from_secs(90), anchor: None }),
        (
            "every = \"1m\"\nanchor = 1970-01-01T00:00:07Z",
            Schedule::Interval { every: Duration::from_secs(60), anchor: Some(Timestamp::from_secs(7)) },
        ),
        ("delay = \"5m\"", Schedule::FixedDelay { delay: Duration::from_secs(300) }),
        (
            "cron = \"H H(0-5) * * *\"",
            Schedule::Cron { expression: "H H(0-5) * * *".to_owned(), zone: "UTC".to_owned() },
        ),
        ("after = \"0s\"", Schedule::After { delay: Duration::ZERO }),
        ("at = \"2030-01-01T01:00:00+01:00\"", at.clone()),
        ("at = 2030-01-01T00:00:00Z", at),
        ("cron = \"@daily\"", Schedule::Cron { expression: "@daily".to_owned(), zone: "UTC".to_owned() }),
    ] {
        assert_eq!(one(&format!("handler = \"h\"\n{text}")).definition.schedule, expected, "{text}");
    }
}

#[test]
fn several_schedules_follow_the_one_that_stands_alone() {
    let cron = |expression: &str, zone: &str| Schedule::Cron { expression: expression.into(), zone: zone.into() };
    let every = Schedule::Interval { every: Duration::from_secs(60), anchor: Some(Timestamp::from_secs(7)) };
    let at = Schedule::Once { at: Timestamp::from_secs(1_893_456_000) };
    let listed = "schedules = [{ every = \"1m\", anchor = 1970-01-01T00:00:07Z }, { at = 2030-01-01T00:00:00Z },\n\
                  { cron = \"H * * * *\", zone = \"Europe/Berlin\" }]";
    let several = [every, at, cron("H * * * *", "Europe/Berlin")];
    let alone = one(&format!("handler = \"h\"\n{listed}"));
    assert!(alone.definition.schedules().eq(several.clone()), "{:?}", alone.definition);
    let both = one(&format!("handler = \"h\"\ncron = \"@daily\"\n{listed}"));
    assert!(both.definition.schedules().eq([cron("@daily", "UTC")].into_iter().chain(several)));
}

#[test]
fn what_is_wrong_with_one_of_several_schedules_is_named() {
    let count = |count| {
        format!(
            "exactly one of `cron`, `every`, `delay`, `at` and `after` must be given, not {count}; several go into `schedules`"
        )
    };
    for (keys, expected) in [
        ("schedules = []", count(0)),
        ("schedules = [{}]", count(0)),
        ("schedules = [{ every = \"1s\", at = 2030-01-01T00:00:00Z }]", count(2)),
        ("zone = \"UTC\"\nschedules = [{ cron = \"@daily\" }]", count(0)),
        ("schedules = [{ every = \"1s\", zone = \"UTC\" }]", "`zone` is of use only with `cron`".to_owned()),
        ("schedules = [{ every = \"1us\" }]", "`every`: \"1us\" is shorter than 1 ms".to_owned()),
        (
            "schedules = [{ every = \"1s\" }, { cron = \"@reboot\" }]",
            "`cron`: `@reboot` names an event, not a time, and cannot be scheduled".to_owned(),
        ),
        (
            "every = \"1s\"\nschedules = [{ after = \"1s\" }]",
            "`after` cannot be combined with `other schedules`".to_owned(),
        ),
        (
            "schedules = [{ delay = \"1s\" }, { cron = \"@daily\" }]",
            "`fixed_delay` cannot be combined with `other schedules`".to_owned(),
        ),
        (
            &format!("schedules = [{}]", "{ every = \"1s\" }, ".repeat(17)),
            "`schedules` is 17; allowed are 1 to 16".to_owned(),
        ),
    ] {
        refused(&format!("handler = \"h\"\n{keys}"), &expected);
    }
    let unknown =
        check("[[job]]\nname = \"a\"\nhandler = \"h\"\nschedules = [{ corn = \"@daily\" }]").expect_err("a misprint");
    assert!(unknown[0].contains("unknown field `corn`"), "{unknown:?}");
}

/// The exclusions of a job that says this, in a file with these calendars.
fn excluded(calendars: &str, body: &str) -> Vec<String> {
    let text = format!("{calendars}\n[[job]]\nname = \"a\"\nhandler = \"h\"\n{body}");
    let jobs = check(&text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    jobs[0].definition.exclusions.lines().map(str::to_owned).collect()
}

#[test]
fn exclude_names_calendars_and_entries() {
    let calendars = r#"
        [[calendar]]
        name = "holidays"
        zone = "Europe/Berlin"
        dates = [2026-12-25, "2026-12-31..2027-01-01", "05-01"]
        weekdays = ["weekends"]
        [[calendar]]
        name = "lunch"
        cron = ["* 12 * * *"]
    "#;
    let holidays = ["2026-12-25", "2026-12-31..2027-01-01", "05-01", "weekends"];
    let with = |front: &[&str], back: &[&str]| -> Vec<String> {
        [front, &holidays, back].concat().into_iter().map(str::to_owned).collect()
    };
    for (keys, expected) in [
        ("every = \"1h\"\nexclude = [\"holidays\"]", with(&["zone Europe/Berlin"], &[])),
        // Where the job is in that zone already, it is not stated.
        ("cron = \"@hourly\"\nzone = \"Europe/Berlin\"\nexclude = [\"holidays\"]", with(&[], &[])),
        (
            "every = \"1h\"\nexclude = [\"holidays\", \"lunch\", \"02-29\"]",
            with(&["zone Europe/Berlin"], &["zone UTC", "cron * 12 * * *", "02-29"]),
        ),
        (
            "every = \"1h\"\nexclude = [\"FRI\", \"zone Asia/Tokyo\", \"holidays\", \"lunch\"]",
            with(&["FRI", "zone Asia/Tokyo", "zone Europe/Berlin"], &["zone Asia/Tokyo", "cron * 12 * * *"]),
        ),
        (
            "every = \"1h\"\nexclude = [\"2026-12-24T14:00..2026-12-24T18:00\"]",
            vec!["2026-12-24T14:00..2026-12-24T18:00".to_owned()],
        ),
        ("every = \"1h\"\nexclude = []", vec![]),
        (
            "every = \"1h\"\nexclude = [\"calendar holidays\", \"holidays\", \"calendar closed on Mondays\", \"calendar b\"]",
            with(
                &["calendar holidays", "zone Europe/Berlin"],
                &["zone UTC", "calendar closed on Mondays", "calendar b"],
            ),
        ),
    ] {
        assert_eq!(excluded(calendars, keys), expected, "{keys}");
    }
}

#[test]
fn what_is_wrong_with_a_calendar_is_named() {
    let form = "an entry is a date such as 2026-12-25 or 12-25, two dates or two times with `..` between them, days of the week such \
                as SAT,SUN, or `cron`, `calendar` or `zone` and what belongs to it";
    for (keys, problem) in [
        ("name = \"c\"\nzone = \"Mars\"", "`zone`: unknown time zone `Mars`; use an IANA name such as `Europe/Berlin` or `UTC`".to_owned()),
        ("name = \"c\"\ndates = [\"2026-02-30\"]", "`dates`: \"2026-02-30\": there is no such date or time; days are from 1970-01-01 to 9999-12-31".to_owned()),
        ("name = \"c\"\ndates = [\"2026\"]", format!("`dates`: \"2026\": {form}")),
        ("name = \"c\"\ndates = [\"SAT\"]", "`dates`: \"SAT\" is none of dates".to_owned()),
        ("name = \"c\"\nweekdays = [\"12-25\"]", "`weekdays`: \"12-25\" is none of weekdays".to_owned()),
        ("name = \"c\"\nweekdays = [\"zone UTC\"]", "`weekdays`: \"zone UTC\" is none of weekdays".to_owned()),
        ("name = \"c\"\ncron = [\"* 12 * *\"]", "`cron`: \"cron * 12 * *\": a cron expression has 5 fields (minute, hour, day of month, month, day of week), 6 with seconds in front, or 7 with years at the end too, not 4".to_owned()),
        ("name = \"weekends\"", "`name`: \"weekends\" is empty, or an entry itself".to_owned()),
        ("name = \"c\"\nweekdays = [\"calendar d\"]", "`weekdays`: \"calendar d\" is none of weekdays".to_owned()),
        ("name = \"c\"\nics = \"a.ics\"", "`ics`: a calendar file is read only beside a jobs file".to_owned()),
        ("name = \"c\"\n[[calendar]]\nname = \"c\"", "stands twice in the file; names of jobs are unique in a tenant, and those of calendars in a file".to_owned()),
    ] {
        let errors = check(&format!("[[calendar]]\n{keys}")).expect_err(keys);
        let name = if keys.contains("weekends") { "weekends" } else { "c" };
        assert_eq!(errors, [format!("jobs.toml: calendar \"{name}\": {problem}")], "{keys}");
    }
    let errors =
        check("[[calendar]]\nname = \"c\"\ndays = []\n[[calendar]]\nzone = \"UTC\"").expect_err("two are wrong");
    assert!(
        errors.len() == 2 && errors[0].contains("unknown field `days`") && errors[1].contains("number 2"),
        "{errors:?}"
    );
    refused(
        "handler = \"h\"\nevery = \"1s\"\nexclude = [\"holidays\"]",
        &format!(
            "`exclude`: \"holidays\" is no calendar of the file, of which it has none; one of the server's is named as \"calendar holidays\"; and as an entry: {form}"
        ),
    );
    refused("handler = \"h\"\ndelay = \"1s\"\nexclude = [\"SAT\"]", "`exclusions` makes no sense with `a fixed delay`");
    let most = "exclude = [".to_owned() + &"\"2026-12-25\", ".repeat(1_490) + "]";
    refused(
        &format!("handler = \"h\"\nevery = \"1s\"\n{most}"),
        "`exclusions` has 16389 bytes; allowed are 1 to 16384",
    );
}

#[test]
fn a_calendar_of_the_file_is_not_called_as_one_of_the_server() {
    let errors = check("[[calendar]]\nname = \"calendar c\"").expect_err("it is an entry");
    assert!(errors[0].ends_with("`name`: \"calendar c\" is empty, or an entry itself"), "{errors:?}");
}

#[test]
fn events_become_the_text_of_a_calendar_with_those_of_no_zone_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("closed.ics");
    let event = |lines: &str| format!("BEGIN:VEVENT\n{lines}\nEND:VEVENT\n");
    let events = [
        event("DTSTART:20990101T100000Z\nDURATION:PT2H"),
        event("DTSTART;VALUE=DATE:20990105"),
        event("DTSTART;TZID=Asia/Tokyo:20990102T100000\nDURATION:PT1H"),
        event("DTSTART:20990103T100000Z\nDURATION:PT1H"),
    ];
    std::fs::write(&path, format!("BEGIN:VCALENDAR\n{}END:VCALENDAR\n", events.concat())).expect("written");
    let timed = "zone Asia/Tokyo\n2099-01-02T10:00:00..2099-01-02T11:00:00\n\
                 zone UTC\n2099-01-01T10:00:00..2099-01-01T12:00:00\n2099-01-03T10:00:00..2099-01-03T11:00:00";
    assert_eq!(entries_of_ics(&path, None), Ok(format!("2099-01-05\n{timed}")));
    let of_berlin = entries_of_ics(&path, Some("Europe/Berlin")).expect("valid");
    assert!(of_berlin.starts_with("zone Asia/Tokyo\n") && of_berlin.contains("\nzone Europe/Berlin\n2099-01-05\n"));
    assert!(entries_of_ics(&path, Some("Mars")).is_err_and(|problem| problem.contains("unknown time zone `Mars`")));
}

#[test]
fn a_calendar_file_lies_beside_the_jobs_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "[[calendar]]\nname = \"closed\"\nzone = \"Europe/Berlin\"\nics = \"closed.ics\"\n\
                [[job]]\nname = \"a\"\nhandler = \"h\"\nevery = \"1h\"\nexclude = [\"closed\"]\n";
    let read = || parse(text, "jobs.toml", Some(folder.path())).map_err(|errors| errors[0].to_string());
    let missing = read().expect_err("it is not there");
    assert!(
        missing.starts_with("jobs.toml: calendar \"closed\": `ics`: ") && missing.contains("closed.ics: "),
        "{missing}"
    );
    let file = |events: &str| {
        std::fs::write(folder.path().join("closed.ics"), format!("BEGIN:VCALENDAR\n{events}END:VCALENDAR\n"))
            .expect("written");
    };
    file(
        "BEGIN:VEVENT\nDTSTART;VALUE=DATE:20201225\nRRULE:FREQ=YEARLY\nEND:VEVENT\n\
          BEGIN:VEVENT\nDTSTART:20990101T100000Z\nDURATION:PT2H\nEND:VEVENT\n",
    );
    let expected = "zone Europe/Berlin\n12-25\nzone UTC\n2099-01-01T10:00:00..2099-01-01T12:00:00";
    assert_eq!(read().expect("valid")[0].definition.exclusions, expected);
    file("BEGIN:VEVENT\nSUMMARY:Feast\nEND:VEVENT\n");
    let wrong = read().expect_err("no start");
    assert!(wrong.ends_with("closed.ics:2: event \"Feast\": `DTSTART` is missing"), "{wrong}");
}

#[test]
fn a_command_becomes_a_payload_for_the_worker() {
    let job = one(r#"
        every = "1s"
        command = ["/bin/cat", "-"]
        env = { A = "1" }
        clean_env = true
        stdin = "in"
        dir = "/tmp"
        user = "nobody"
        output_bytes_max = 100
    "#);
    assert_eq!(job.definition.handler, crate::command_worker::HANDLER);
    let payload: serde_json::Value = serde_json::from_slice(&job.definition.payload).expect("it is JSON");
    let expected = serde_json::json!({
        "argv": ["/bin/cat", "-"], "env": {"A": "1"}, "clean_env": true, "stdin": "in", "dir": "/tmp", "user": "nobody",
        "output_bytes_max": 100,
    });
    assert_eq!(payload, expected);
}

#[test]
fn an_unknown_key_is_named() {
    for (body, key) in [
        ("every = \"1s\"\nhandler = \"h\"\nshcedule = 1", "`shcedule`"),
        ("every = \"1s\"\nhandler = \"h\"\nretry = { attempts = 1 }", "`attempts`"),
    ] {
        let errors = check(&format!("[[job]]\nname = \"a\"\n{body}")).expect_err(body);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("jobs.toml: job \"a\": unknown field ") && errors[0].contains(key), "{errors:?}");
        assert!(!errors[0].contains('\n'), "{errors:?}");
    }
    let errors = check("[[jobs]]\nname = \"a\"").expect_err("there is no such table");
    assert!(errors[0].contains("`jobs`"), "{errors:?}");
}

#[test]
fn a_value_of_another_type_names_its_key() {
    for (body, key) in [("every = 15\nhandler = \"h\"", "every"), ("every = \"1s\"\ncommand = \"date\"", "command")] {
        let errors = check(&format!("[[job]]\nname = \"a\"\n{body}")).expect_err(body);
        assert!(errors[0].contains("job \"a\"") && errors[0].contains(key), "{errors:?}");
    }
}

#[test]
fn what_means_nothing_is_refused_with_its_key() {
    refused(
        "handler = \"h\"",
        "exactly one of `cron`, `every`, `delay`, `at` and `after` must be given, not 0; several go into `schedules`",
    );
    refused(
        "handler = \"h\"\nevery = \"1s\"\nafter = \"1s\"",
        "exactly one of `cron`, `every`, `delay`, `at` and `after` must be given, not 2; several go into `schedules`",
    );
    refused("every = \"1s\"", "`command` (a program with its arguments) or `handler` is missing");
    refused("every = \"1s\"\ncommand = []", "`command`: the program is missing");
    refused("every = \"1s\"\nhandler = \"h\"\nstdin = \"x\"", "`stdin` is of use only with `command`");
    refused("every = \"1s\"\nhandler = \"h\"\nzone = \"UTC\"", "`zone` is of use only with `cron`");
    refused("every = \"1s\"\ncommand = [\"x\"]\npayload = \"y\"", "`payload` cannot be given with `command`");
    refused(
        "every = \"1s\"\ncommand = [\"x\"]\npayload_base64 = \"\"",
        "`payload_base64` cannot be given with `command`",
    );
    refused("handler = \"h\"\nevery = \"1us\"", "`every`: \"1us\" is shorter than 1 ms");
    refused("handler = \"h\"\nafter = \"5300w\"", "`after`: \"5300w\" is longer than 100 years");
    refused(
        "handler = \"h\"\nevery = \"1s\"\ntimeout = \"0s\"",
        "`timeout`: \"0s\" is not from 1 ms to 49 days; for no limit write \"none\"",
    );
    refused(
        "handler = \"h\"\nevery = \"1s\"\nretry = { max = \"50 days\" }",
        "`retry.max`: \"50 days\" is longer than 49 days",
    );
    refused(
        "handler = \"h\"\nevery = \"1s\"\nretry = { multiplier = 0.5 }",
        "`retry.multiplier`: 0.5 is not from 1.0 to 10.0",
    );
    refused(
        "handler = \"h\"\nevery = \"1s\"\npriority = \"P9\"",
        "`priority`: \"P9\" is unknown; allowed are P0, P1, P2",
    );
    refused(
        "handler = \"h\"\nevery = \"1s\"\noverlap = \"wait\"",
        "`overlap`: \"wait\" is unknown; allowed are skip, buffer-one, buffer-all, cancel-running, terminate-running, allow",
    );
    refused(
        "handler = \"h\"\ncron = \"@daily\"\nzone = \"Europe/Atlantis\"",
        "`zone`: unknown time zone `Europe/Atlantis`; use an IANA name such as `Europe/Berlin` or `UTC`",
    );
    refused(
        "handler = \"h\"\ncron = \"@reboot\"",
        "`cron`: `@reboot` names an event, not a time, and cannot be scheduled",
    );
    let time = "is not a time since 1970 with an offset, such as 2030-01-31T09:00:00Z";
    refused("handler = \"h\"\nat = 2030-01-01", &format!("`at`: \"2030-01-01\" {time}"));
    refused("handler = \"h\"\nat = \"2030-01-01T00:00:00\"", &format!("`at`: \"2030-01-01T00:00:00\" {time}"));
    refused(
        "handler = \"h\"\nevery = \"1s\"\nretry = { attempts_max = 0 }",
        "`attempts_max` is 0; allowed are 1 to 1000",
    );
    for (keys, expected) in [
        ("every = \"1s\"\nmisfire_max = 3", "`misfire_max` is of use only with `misfire = fire-all`"),
        ("every = \"1s\"\nmisfire = \"fire-all\"\nmisfire_max = 0", "`misfire_max` is 0; allowed are 1 to 1000"),
        ("every = \"1s\"\noverlap_max = 3", "`overlap_max` is of use only with `overlap = buffer-all or allow`"),
        ("every = \"1s\"\njitter = \"25h\"", "`jitter_ms` is 90000000; allowed are 0 to 86400000"),
        ("every = \"1s\"\ndst_gap = \"skip\"", "`dst_gap` is of use only with `cron`"),
        ("every = \"1s\"\nday_rule = \"and\"", "`day_rule` is of use only with `cron`"),
        ("cron = \"@daily\"\nday_rule = \"xor\"", "`day_rule`: \"xor\" is unknown; allowed are or, and"),
        (
            "cron = \"@daily\"\ndst_overlap = \"never\"",
            "`dst_overlap`: \"never\" is unknown; allowed are vixie, first, second, both",
        ),
        ("delay = \"1s\"\noverlap = \"buffer-one\"", "`overlap` makes no sense with `a fixed delay`"),
        ("after = \"1s\"\nexecutions_max = 2", "`executions_max` makes no sense with `a single time`"),
        ("cron = \"@daily\"\nanchor = 2030-01-01T00:00:00Z", "`anchor` is of use only with `every`"),
        (
            "every = \"1s\"\npayload = \"\"\npayload_base64 = \"AP8=\"",
            "`payload_base64` cannot be given with `payload`",
        ),
        ("every = \"1s\"\npayload_base64 = \"AP8\"", "`payload_base64`: it is not base64 with padding"),
        (
            "every = \"1s\"\nends_at = \"soon\"",
            "`ends_at`: \"soon\" is not a time since 1970 with an offset, such as 2030-01-31T09:00:00Z",
        ),
        (
            "every = \"1s\"\nmisfire_grace = \"60d\"",
            "`misfire_grace`: \"60d\" is not from 1 ms to 49 days; for no limit write \"none\"",
        ),
        (
            "every = \"1s\"\nretry = { non_retryable = [\"a,b\"] }",
            "`retry.non_retryable`: \"a,b\" is empty or holds a comma",
        ),
        ("every = \"1s\"\nretry = { non_retryable = [\"\"] }", "`retry.non_retryable`: \"\" is empty or holds a comma"),
        (
            "every = \"1s\"\nlabels = { team = \"a,b\" }",
            "`labels`: the value of `team` holds ','; control characters and commas are not allowed",
        ),
        (
            "every = \"1s\"\ndelivery = \"once\"",
            "`delivery`: \"once\" is unknown; allowed are at-least-once, at-most-once",
        ),
    ] {
        refused(&format!("handler = \"h\"\n{keys}"), expected);
    }
    let long = "x".repeat(65);
    refused(&format!("handler = \"h\"\nevery = \"1s\"\npool = \"{long}\""), "`pool` has 65 bytes; allowed are 1 to 64");
}

#[test]
fn every_wrong_job_is_told_and_none_is_applied() {
    let text =
        "[[job]]\nname = \"good\"\nhandler = \"h\"\nevery = \"1s\"\n[[job]]\nhandler = \"h\"\n[[job]]\nname = \"b\"\n";
    let errors = check(text).expect_err("two are wrong");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("job number 2") && errors[0].contains("`name`"), "{errors:?}");
    assert!(errors[1].contains("job \"b\""), "{errors:?}");
}

#[test]
fn a_name_stands_once_per_tenant() {
    let job = |tenant: &str| format!("[[job]]\nname = \"a\"\nhandler = \"h\"\nevery = \"1s\"\n{tenant}\n");
    let errors = check(&format!("{}{}", job(""), job(""))).expect_err("twice");
    assert_eq!(
        errors,
        [
            "jobs.toml: job \"a\": stands twice in the file; names of jobs are unique in a tenant, and those of calendars in a file"
        ]
    );
    assert_eq!(check(&format!("{}{}", job("tenant = \"x\""), job("tenant = \"y\""))).expect("two tenants").len(), 2);
}

#[test]
fn a_syntax_error_names_its_line() {
    let errors = check("[[job]]\nname = \"a\"\nevery = \n").expect_err("no value");
    assert!(errors[0].starts_with("jobs.toml:3: "), "{errors:?}");
}

#[test]
fn the_example_is_valid() {
    let jobs = parse(include_str!("../../../examples/jobs.toml"), "examples/jobs.toml", None).expect("it is valid");
    assert!(jobs.len() >= 5);
}
