//! Claims about writing jobs: what is written reads the same, and is what a person would have written.

use super::*;
use crate::jobs_file;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use std::collections::BTreeMap;
use tickwheel_client::{DayRule, DstGap, DstOverlap, JobBuilder, JobDefinition, Misfire, Overlap, Schedule};
use tickwheel_wire::job::DELAY_US_MAX;

fn written(job: &FileJob) -> String {
    Keys::of(job).unwrap_or_else(|error| panic!("{error}: {job:?}")).text()
}

fn read(text: &str) -> FileJob {
    let mut jobs = jobs_file::parse(text, "written", None).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    assert_eq!(jobs.len(), 1, "{text}");
    jobs.remove(0)
}

fn job(definition: JobDefinition) -> FileJob {
    let paused = definition.paused.then_some(true);
    FileJob { definition, paused }
}

#[test]
fn each_key_is_written_as_people_write_it() {
    for body in [
        "tenant = \"acme\"\nevery = \"1h 30m\"\nhandler = \"h\"",
        "cron = \"30 2 * * *\"\nhandler = \"h\"",
        "cron = \"30 2 * * *\"\nzone = \"Europe/Berlin\"\nhandler = \"h\"\ndst_gap = \"skip\"\ndst_overlap = \"both\"",
        "cron = \"0 9 13 * FRI\"\nhandler = \"h\"\nday_rule = \"and\"",
        "every = \"1s\"\nanchor = 2030-01-31T09:00:00.000001Z\nhandler = \"h\"",
        "delay = \"250ms\"\nhandler = \"h\"",
        "at = 2030-01-31T09:00:00Z\nhandler = \"h\"",
        "after = \"0s\"\nhandler = \"h\"",
        "schedules = [{ cron = \"@daily\", zone = \"Europe/Berlin\" }, { anchor = 1970-01-01T00:00:07Z, every = \"1m\" }]\nhandler = \"h\"",
        "schedules = [{ at = 2030-01-31T09:00:00Z }, { cron = \"H * * * *\" }]\nhandler = \"h\"\nexecutions_max = 3",
        "every = \"1h\"\nexclude = [\"zone Europe/Berlin\", \"12-25\", \"zone UTC\", \"cron * 12 * * *\"]\nhandler = \"h\"",
        "every = \"1h\"\nexclude = [\"calendar holidays\", \"12-25\"]\nhandler = \"h\"",
        "every = \"1s\"\nhandler = \"h\"\npayload = \"text\"",
        "every = \"1s\"\nhandler = \"h\"\npayload = '{\"a\": 1}'",
        "every = \"1s\"\nhandler = \"h\"\npayload = \"\"\"\n\none\ntwo\"\"\"",
        "every = \"1s\"\nhandler = \"h\"\npayload_base64 = \"AP8=\"",
        "every = \"1s\"\nhandler = \"exec\"\npayload = '{\"argv\": [\"date\"]}'",
        "every = \"1s\"\ncommand = [\"/bin/sh\", \"-c\", 'echo \"$A\"']\nenv = { A = \"1\", \"B C\" = \"2\" }\nclean_env = true\n\
         stdin = \"in\"\ndir = \"/tmp\"\nuser = \"nobody\"\noutput_bytes_max = 0",
        "every = \"1s\"\nhandler = \"h\"\npool = \"high\"\npriority = \"P0\"",
        "every = \"1s\"\nhandler = \"h\"\nretry = { attempts_max = 7, initial = \"0s\", jitter_percent = 0, max = \"1m\" }",
        "every = \"1s\"\nhandler = \"h\"\nretry = { multiplier = 1.5, non_retryable = [\"A\", \"B c\"] }",
        "every = \"1s\"\nhandler = \"h\"\ntimeout = \"none\"\nheartbeat = \"5s\"",
        "every = \"1s\"\nhandler = \"h\"\ntimeout = \"1m 30s\"",
        "every = \"1s\"\nhandler = \"h\"\nmisfire = \"fire-all\"\nmisfire_max = 7\nmisfire_grace = \"10m\"",
        "every = \"1s\"\nhandler = \"h\"\noverlap = \"buffer-all\"\noverlap_max = 3",
        "every = \"1s\"\nhandler = \"h\"\nschedule_to_start = \"1s 500ms\"\npause_after_failures = 5",
        "every = \"1s\"\nhandler = \"h\"\nstarts_at = 2026-12-01T00:00:00Z\nends_at = 2027-12-01T00:00:00Z",
        "every = \"1s\"\nhandler = \"h\"\nexecutions_max = 100\njitter = \"30s\"\npaused = true",
        "every = \"1s\"\nhandler = \"h\"\nlabels = { \"a/b.c\" = \"x=y\", env = \"\", team = \"ops\" }\npaused = true",
        "every = \"1s\"\nhandler = \"h\"\npaused = false",
    ] {
        let text = format!("[[job]]\nname = \"a\"\n{body}\n");
        assert_eq!(written(&read(&text)), text);
    }
}

#[test]
fn long_values_are_spread_over_lines() {
    let long = "x".repeat(60);
    for text in [
        format!(
            "[[job]]\nname = \"a\"\nevery = \"1s\"\ncommand = [\n    \"{long}\",\n    \"{long}\",\n]\ndir = \"/\"\n\
             [job.env]\nA = \"{long}\"\n\"B C\" = \"{long}\"\n"
        ),
        "[[job]]\nname = \"a\"\nevery = \"1s\"\ncommand = [\n    \"/bin/sh\",\n    \"-c\",\n    \"\"\"\n\none\ntwo\n\"\"\",\n]\n"
            .to_owned(),
    ] {
        assert_eq!(written(&read(&text)), text);
    }
    let bytes = JobBuilder::new("a").handler("h").every(Duration::from_secs(1)).payload(vec![0xff; 100]);
    let text = written(&job(bytes.definition().clone()));
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
}

#[test]
fn a_payload_of_another_handler_is_no_command() {
    let payload = CommandPayload::new(vec!["date".to_owned()]).encode();
    let definition = JobBuilder::new("a").handler("h").every(Duration::from_secs(1)).payload(payload);
    let text = written(&job(definition.definition().clone()));
    assert_eq!(text, "[[job]]\nname = \"a\"\nevery = \"1s\"\nhandler = \"h\"\npayload = '{\"argv\":[\"date\"]}'\n");
}

#[test]
fn a_time_beyond_the_year_9999_is_named() {
    let at = Timestamp::from_micros(u64::MAX - 1);
    let base = JobBuilder::new("a").handler("h");
    for (builder, key) in [
        (base.clone().at(at), "at"),
        (base.clone().schedule(Schedule::Interval { every: Duration::from_secs(1), anchor: Some(at) }), "anchor"),
        (base.clone().cron("@daily").starts_at(at), "starts_at"),
        (base.cron("@daily").ends_at(at), "ends_at"),
    ] {
        let error = Keys::of(&job(builder.definition().clone())).expect_err(key);
        assert_eq!(error, UnwritableError::BeyondYears { key });
    }
}

#[test]
fn keys_of_tables_are_told_one_by_one() {
    let text =
        "[[job]]\nname = \"a\"\nevery = \"1s\"\ncommand = [\"x\"]\nenv = { A = \"1\" }\nretry = { initial = \"2s\" }\n";
    let keys = Keys::of(&read(text)).expect("it can be written");
    let flat: Vec<_> = keys.flat().map(|(key, _)| key).collect();
    assert_eq!(flat, ["name", "every", "command", "env.A", "retry.initial"]);
}

/// A text of any characters, those that a name must not have included.
fn any_text() -> impl Strategy<Value = String> {
    vec(prop_oneof![any::<char>(), select(vec!['"', '\'', '\\', '\n', '\r', '\t', '\0', ' ', '#', '='])], 0..24)
        .prop_map(String::from_iter)
}

fn name() -> impl Strategy<Value = String> {
    "[\\PC]{1,16}"
}

fn time() -> impl Strategy<Value = Timestamp> {
    // Up to the year 9999, in microseconds and in whole seconds.
    prop_oneof![(0..253_000_000_000_000_000_u64), (0..253_000_000_000_u64).prop_map(|s| s * 1_000_000)]
        .prop_map(Timestamp::from_micros)
}

fn length(micros_max: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![1_000..=micros_max, (1..=micros_max / 1_000_000).prop_map(|s| s * 1_000_000)]
        .prop_map(Duration::from_micros)
}

fn limit_ms() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..=u32::MAX, (1..=4_000_000_u32).prop_map(|s| s * 1_000)]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let crons = select(vec!["@daily", "*/5 * * * *", "H H(0-5) * * MON-FRI", "0 0 12 L * ?", "0 0 0 29 2 * 2028"]);
    let zones = select(vec!["UTC", "Europe/Berlin", "America/New_York"]);
    prop_oneof![
        (crons, zones)
            .prop_map(|(expression, zone)| Schedule::Cron { expression: expression.to_owned(), zone: zone.to_owned() }),
        (length(DELAY_US_MAX), option::of(time())).prop_map(|(every, anchor)| Schedule::Interval { every, anchor }),
        time().prop_map(|at| Schedule::Once { at }),
        prop_oneof![Just(Duration::ZERO), length(DELAY_US_MAX)].prop_map(|delay| Schedule::After { delay }),
        length(DELAY_US_MAX).prop_map(|delay| Schedule::FixedDelay { delay }),
    ]
}

/// Those of one job.
fn schedules() -> impl Strategy<Value = Vec<Schedule>> {
    let alone = |schedule: &Schedule| matches!(schedule, Schedule::After { .. } | Schedule::FixedDelay { .. });
    (schedule(), vec(schedule(), 0..16)).prop_map(move |(first, others)| {
        let others = others.into_iter().filter(|other| !alone(&first) && !alone(other));
        std::iter::once(first.clone()).chain(others).collect()
    })
}

fn exclusions() -> impl Strategy<Value = Vec<&'static str>> {
    let entries = [
        "12-25",
        "2026-12-24..2027-01-01",
        "SAT,SUN",
        "zone UTC",
        "zone Europe/Berlin",
        "zone  Asia/Tokyo",
        "calendar holidays",
        "calendar  closed on Mondays",
        "cron * 12 * * *",
    ];
    vec(select(entries.to_vec()), 0..8)
}

/// Handler and payload.
fn work() -> impl Strategy<Value = (String, Vec<u8>)> {
    let command = (
        vec(any_text(), 1..4),
        btree_map(any_text(), any_text(), 0..3),
        (option::of(any_text()), option::of(any_text()), option::of(any_text())),
        any::<bool>(),
        option::of(any::<u32>()),
    );
    let command = command.prop_map(|(argv, env, (dir, stdin, user), clean_env, output_bytes_max)| {
        CommandPayload { argv, env, dir, stdin, user, clean_env, output_bytes_max }.encode()
    });
    let payload = prop_oneof![
        command,
        Just(br#"{ "argv": ["date"] }"#.to_vec()),
        any_text().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..120),
    ];
    (prop_oneof![Just(HANDLER.to_owned()), name()], payload)
}

fn retry() -> impl Strategy<Value = (RetryPolicy, String)> {
    let policy = (1..=1_000_u16, any::<u32>(), 1_000..=10_000_u16, any::<u32>(), 0..=100_u8).prop_map(
        |(attempts_max, initial_ms, multiplier_milli, delay_ms_max, jitter_percent)| RetryPolicy {
            attempts_max,
            initial_ms,
            multiplier_milli,
            delay_ms_max,
            jitter_percent,
        },
    );
    let names = vec(name().prop_map(|name| name.replace(',', ";")), 0..4).prop_map(|names| names.join(","));
    (prop_oneof![Just(RetryPolicy::default()), policy], names)
}

/// Rules of which some may contradict the schedule.
fn rules() -> impl Strategy<Value = FiringRules> {
    let missed = (select(Misfire::ALL), 1..=1_000_u32, limit_ms());
    let overlapping = (select(Overlap::ALL), 1..=1_000_u32);
    let starts = (limit_ms(), any::<u16>(), 0..=86_400_000_u32);
    let window = (option::of(time()), option::of(time()), any::<u32>());
    let clock = (select(DstGap::ALL), select(DstOverlap::ALL), select(DayRule::ALL));
    (missed, overlapping, starts, window, clock).prop_map(|(missed, overlapping, starts, window, clock)| FiringRules {
        misfire: missed.0,
        misfire_max: missed.1,
        misfire_grace_ms: missed.2,
        overlap: overlapping.0,
        overlap_max: overlapping.1,
        schedule_to_start_ms: starts.0,
        pause_after_failures: starts.1,
        starts_at: window.0.unwrap_or(Timestamp::EPOCH),
        ends_at: window.1.unwrap_or(Timestamp::MAX),
        executions_max: window.2,
        jitter_ms: starts.2,
        dst_gap: clock.0,
        dst_overlap: clock.1,
        day_rule: clock.2,
    })
}

/// `rules` without those that make no sense together or with `schedules`.
fn fitting(rules: FiringRules, schedules: &[Schedule]) -> FiringRules {
    let schedule = &schedules[0];
    let (mut rules, plain) = (rules, FiringRules::PLAIN);
    if rules.misfire != Misfire::FireAll {
        rules.misfire_max = plain.misfire_max;
    }
    if matches!(schedule, Schedule::FixedDelay { .. }) {
        rules.overlap = plain.overlap;
    }
    if !matches!(rules.overlap, Overlap::BufferAll | Overlap::Allow) {
        rules.overlap_max = plain.overlap_max;
    }
    if !schedules.iter().any(|schedule| matches!(schedule, Schedule::Cron { .. })) {
        (rules.dst_gap, rules.dst_overlap, rules.day_rule) = (plain.dst_gap, plain.dst_overlap, plain.day_rule);
    }
    let once = schedules.len() == 1 && matches!(schedule, Schedule::Once { .. } | Schedule::After { .. });
    if once || rules.starts_at >= rules.ends_at {
        (rules.starts_at, rules.ends_at) = (plain.starts_at, plain.ends_at);
    }
    if once {
        rules.executions_max = plain.executions_max;
    }
    rules
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[A-Za-z0-9._/-]{1,9}", "[^,\\pC]{0,9}", 0..4)
}

fn definition() -> impl Strategy<Value = JobDefinition> {
    let who = (option::of(name()), name(), option::of(name()));
    let how = (select(Priority::ALL), limit_ms(), limit_ms(), any::<bool>());
    let when = (schedules(), exclusions(), labels());
    (who, when, work(), how, retry(), option::of(rules())).prop_map(
        |((tenant, name, pool), when, (handler, payload), how, (retry, non_retryable), rules)| {
            let (schedules, exclusions, labels) = when;
            let rules = rules.map_or(FiringRules::PLAIN, |rules| fitting(rules, &schedules));
            let limit = |limit_ms: u32| (limit_ms > 0).then(|| Duration::from_millis(limit_ms.into()));
            let mut builder =
                JobBuilder::new(name).handler(handler).schedule(schedules[0].clone()).payload(payload).rules(rules);
            builder = schedules[1..].iter().fold(builder, JobBuilder::also);
            if !matches!(schedules[0], Schedule::FixedDelay { .. }) {
                builder = exclusions.iter().fold(builder, JobBuilder::exclude);
            }
            builder = builder.priority(how.0).start_to_close(limit(how.1)).heartbeat(limit(how.2)).paused(how.3);
            builder = builder.tenant(tenant.unwrap_or_default()).retry(retry);
            if let Some(pool) = pool {
                builder = builder.pool(pool);
            }
            if !non_retryable.is_empty() {
                builder = builder.non_retryable(non_retryable);
            }
            builder = labels.iter().fold(builder, |builder, (key, value)| builder.label(key, value));
            builder.definition().clone()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_as_the_same_job(definition in definition()) {
        let tenant = if definition.tenant.is_empty() { "default" } else { &definition.tenant };
        JobSpec { tenant, ..definition.spec() }.validate(usize::MAX).expect("only valid definitions are made");
        let job = job(definition);
        prop_assert_eq!(read(&written(&job)), job);
    }
}
