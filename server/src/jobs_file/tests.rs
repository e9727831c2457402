//! Claims about jobs files, good and bad.

use super::*;
use std::time::Duration;
use tickwheel_client::{DstGap, DstOverlap, FiringRules, Misfire, Overlap, Priority, RetryPolicy, Schedule, Timestamp};

/// The jobs of a file, or its errors as they are shown.
fn check(text: &str) -> Result<Vec<FileJob>, Vec<String>> {
    parse(text, "jobs.toml").map_err(|errors| errors.iter().map(ToString::to_string).collect())
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
    refused("handler = \"h\"", "exactly one of `cron`, `every`, `delay`, `at` and `after` must be given, not 0");
    refused(
        "handler = \"h\"\nevery = \"1s\"\nafter = \"1s\"",
        "exactly one of `cron`, `every`, `delay`, `at` and `after` must be given, not 2",
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
        "handler = \"h\"\nevery = \"1s\"\noverlap = \"allow\"",
        "`overlap`: \"allow\" is unknown; allowed are skip, buffer-one, buffer-all, cancel-running, terminate-running",
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
        ("every = \"1s\"\noverlap_max = 3", "`overlap_max` is of use only with `overlap = buffer-all`"),
        ("every = \"1s\"\njitter = \"25h\"", "`jitter_ms` is 90000000; allowed are 0 to 86400000"),
        ("every = \"1s\"\ndst_gap = \"skip\"", "`dst_gap` is of use only with `cron`"),
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
    assert_eq!(errors, ["jobs.toml: job \"a\": stands twice in the file; names are unique in a tenant"]);
    assert_eq!(check(&format!("{}{}", job("tenant = \"x\""), job("tenant = \"y\""))).expect("two tenants").len(), 2);
}

#[test]
fn a_syntax_error_names_its_line() {
    let errors = check("[[job]]\nname = \"a\"\nevery = \n").expect_err("no value");
    assert!(errors[0].starts_with("jobs.toml:3: "), "{errors:?}");
}

#[test]
fn the_example_is_valid() {
    let jobs = parse(include_str!("../../../examples/jobs.toml"), "examples/jobs.toml").expect("it is valid");
    assert!(jobs.len() >= 5);
}
