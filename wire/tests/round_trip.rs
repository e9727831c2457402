//! Encodings are read back as they were written, and damaged ones are refused, never misread by a panic.

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
};
use tickwheel_wire::{
    DecodeError, FireSequence, JobId, PartitionId, Timestamp, Token,
    frame::{
        Frame, FrameHeader, FrameType,
        request::{
            Counters, ExecutionSelection, ExpectedJob, JobCommand, JobSelection, JobVerb, LetterSelection,
            ListDeadLetters, ListExecutions, ListJobs, SubmitJob, SubmitMode,
        },
        session::{RefusalCode, Refused},
        work::{Complete, CompleteHead, Dispatch, DispatchHead, Outcome},
    },
    job::{
        DayRule, DstGap, DstOverlap, FiringRules, JobSpec, JobSpecError, JobState, JobStates, LabelSelector, Misfire,
        Overlap, Priority, RetryPolicy, ScheduleList, ScheduleListBuf, ScheduleSpec, labels_text,
    },
};

fn check<'a, F: Frame<'a> + PartialEq + std::fmt::Debug>(frame: &F, buffer: &'a mut Vec<u8>) {
    frame.encode(buffer);
    let (head, body) = buffer.split_at(FrameHeader::BYTES);
    let header = FrameHeader::from_bytes(head.try_into().unwrap()).unwrap();
    assert_eq!(header.body_bytes as usize, body.len());
    assert_eq!(FrameType::from_number(header.frame_type), Some(F::TYPE));
    assert!(header.is_critical());
    assert_eq!(F::decode_body(body).as_ref(), Ok(frame));
    for length in 0..body.len() {
        let _ = F::decode_body(&body[..length]);
    }
}

#[test]
fn frames_are_read_back_as_written() {
    check(
        &SubmitJob {
            request_id: 7,
            partition: PartitionId(3),
            mode: SubmitMode::Upsert,
            expected_revision: 9,
            idempotency_key: b"key",
            idempotency_window_ms: 1,
            spec: b"spec",
        },
        &mut Vec::new(),
    );
    check(
        &Refused {
            request_id: 7,
            code: RefusalCode::RevisionConflict,
            detail: 4,
            field: "revision",
            message: "revision 4 was found",
        },
        &mut Vec::new(),
    );
    let head = CompleteHead {
        job: JobId::new(PartitionId(4095), JobId::GENERATION_MAX, u32::MAX),
        fire_sequence: FireSequence(1),
        token: Token(2),
        run_us: 3,
        outcome: Outcome::FailedForGood,
        error_bytes: 4,
    };
    check(&Complete { head, error: "oops", output: b"trace" }, &mut Vec::new());
}

#[test]
fn a_dispatch_carries_its_texts_behind_the_head() {
    let head = DispatchHead {
        job: JobId::new(PartitionId(1), 2, 3),
        fire_sequence: FireSequence(4),
        token: Token(5),
        scheduled_at: Timestamp::from_micros(6),
        start_to_close_ms: 7,
        heartbeat_ms: 8,
        attempt: 9,
        priority: Priority::P2,
        tenant_bytes: 4,
        name_bytes: 7,
        handler_bytes: 4,
    };
    let dispatch = Dispatch { head, tenant: "acme", name: "nightly", handler: "exec", payload: &[1, 2] };
    check(&dispatch, &mut Vec::new());
}

#[test]
fn counters_are_read_by_name() {
    let mut counters = Vec::new();
    Counters::push(&mut counters, "turns", 7);
    Counters::push(&mut counters, "sends", 9);
    let whole = Counters { request_id: 1, shard: 2, counters: &counters };
    assert_eq!(whole.entries().collect::<Vec<_>>(), [Ok(("turns", 7)), Ok(("sends", 9))]);
    let cut = Counters { counters: &counters[..counters.len() - 1], ..whole };
    assert!(cut.entries().any(|entry| entry.is_err()));
}

#[test]
fn an_unknown_enum_value_names_the_field() {
    let mut bytes = Vec::new();
    SubmitJob {
        request_id: 0,
        partition: PartitionId(0),
        mode: SubmitMode::Create,
        expected_revision: 0,
        idempotency_key: b"",
        idempotency_window_ms: 0,
        spec: b"",
    }
    .encode_body(&mut bytes);
    bytes[10] = 9;
    assert_eq!(SubmitJob::decode_body(&bytes), Err(DecodeError::Invalid { field: "mode", value: 9 }));
}

#[test]
fn an_unknown_field_of_a_definition_is_refused() {
    let mut bytes = Vec::new();
    JobSpec::new("t", "n", "h", ScheduleSpec::After { delay_us: 0 }).encode(&mut bytes);
    bytes.extend_from_slice(&[200, 0, 0, 0, 0]);
    assert_eq!(JobSpec::decode(&bytes), Err(JobSpecError::UnknownField(200)));
}

#[test]
fn a_range_error_names_field_value_and_limit() {
    let mut spec = JobSpec::new("t", "n", "h", ScheduleSpec::Interval { every_us: 999, anchor: Timestamp::EPOCH });
    assert_eq!(spec.validate(10).unwrap_err().to_string(), "`every_us` is 999; allowed are 1000 to 3162240000000000");
    spec.schedule = ScheduleSpec::Once { at: Timestamp::EPOCH };
    let long = "x".repeat(256);
    spec.name = &long;
    assert_eq!(spec.validate(10).unwrap_err().to_string(), "`name` has 256 bytes; allowed are 1 to 255");
}

#[test]
fn rules_that_contradict_each_other_or_the_schedule_are_named() {
    let every = ScheduleSpec::Interval { every_us: 1_000, anchor: Timestamp::EPOCH };
    let once = ScheduleSpec::After { delay_us: 5 };
    let delay = ScheduleSpec::FixedDelay { delay_us: 1_000 };
    let cron = ScheduleSpec::Cron { expression: "@daily", zone: "UTC" };
    let plain = FiringRules::default();
    let cases = [
        (every, FiringRules { misfire_max: 0, ..plain }, "`misfire_max` is 0; allowed are 1 to 1000"),
        (every, FiringRules { overlap_max: 1_001, ..plain }, "`overlap_max` is 1001; allowed are 1 to 1000"),
        (every, FiringRules { jitter_ms: 86_400_001, ..plain }, "`jitter_ms` is 86400001; allowed are 0 to 86400000"),
        (every, FiringRules { misfire_max: 5, ..plain }, "`misfire_max` is of use only with `misfire = fire-all`"),
        (
            every,
            FiringRules { overlap_max: 5, overlap: Overlap::BufferOne, ..plain },
            "`overlap_max` is of use only with `overlap = buffer-all or allow`",
        ),
        (every, FiringRules { dst_gap: DstGap::Skip, ..plain }, "`dst_gap` is of use only with `cron`"),
        (once, FiringRules { dst_overlap: DstOverlap::Both, ..plain }, "`dst_overlap` is of use only with `cron`"),
        (every, FiringRules { day_rule: DayRule::And, ..plain }, "`day_rule` is of use only with `cron`"),
        (
            cron,
            FiringRules { starts_at: Timestamp::from_secs(9), ends_at: Timestamp::from_secs(9), ..plain },
            "`ends_at` is not after `starts_at`",
        ),
        (once, FiringRules { executions_max: 2, ..plain }, "`executions_max` makes no sense with `a single time`"),
        (once, FiringRules { ends_at: Timestamp::EPOCH, ..plain }, "`ends_at` is not after `starts_at`"),
        (delay, FiringRules { overlap: Overlap::BufferOne, ..plain }, "`overlap` makes no sense with `a fixed delay`"),
    ];
    for (schedule, rules, expected) in cases {
        let spec = JobSpec { rules, ..JobSpec::new("t", "n", "h", schedule) };
        assert_eq!(spec.validate(10).unwrap_err().to_string(), expected);
    }
    let all = FiringRules { misfire: Misfire::FireAll, misfire_max: 1_000, jitter_ms: 86_400_000, ..plain };
    let spec = JobSpec { rules: all, non_retryable: "Refused,Gone", ..JobSpec::new("t", "n", "h", cron) };
    assert_eq!(spec.validate(10), Ok(()));
    for (names, expected) in [("a,,b", "`non_retryable` has 0 bytes"), ("a\nb", "`non_retryable` holds a control")] {
        let message = JobSpec { non_retryable: names, ..spec }.validate(10).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

fn list_jobs(selection: JobSelection<'_>) -> ListJobs<'_> {
    ListJobs { request_id: 1, partition: PartitionId(2), tenant: "t", prefix: "p", cursor: 3, limit: 4, selection }
}

#[test]
fn the_optional_end_of_a_frame_is_left_out_when_it_says_nothing() {
    let job = JobId::new(PartitionId(2), 1, 0);
    let command = |expected| JobCommand {
        request_id: 1,
        partition: PartitionId(2),
        verb: JobVerb::Delete,
        tenant: "t",
        name: "n",
        expected,
    };
    let executions = |selection| ListExecutions {
        request_id: 1,
        partition: PartitionId(2),
        tenant: "t",
        name: "n",
        cursor: 3,
        limit: 4,
        selection,
    };
    let (partition, tenant, prefix, cursor, limit) = (PartitionId(2), "t", "p", 3, 4);
    let letters = |selection| ListDeadLetters { request_id: 1, partition, tenant, prefix, cursor, limit, selection };
    let none = LetterSelection::default();
    let since = Timestamp::from_micros(1);
    for selection in
        [none, LetterSelection { since, ..none }, LetterSelection { oldest_first: true, error: "e", ..none }]
    {
        check(&letters(selection), &mut Vec::new());
    }
    check(&list_jobs(JobSelection::default()), &mut Vec::new());
    check(&list_jobs(JobSelection { labels: "a", states: JobStates::NONE }), &mut Vec::new());
    check(&list_jobs(JobSelection { labels: "", states: JobStates::NONE.with(JobState::Paused) }), &mut Vec::new());
    check(&executions(ExecutionSelection::default()), &mut Vec::new());
    check(&executions(ExecutionSelection { prefix: "", labels: "", in_flight: true }), &mut Vec::new());
    check(&command(ExpectedJob::default()), &mut Vec::new());
    check(&command(ExpectedJob { job, revision: 9 }), &mut Vec::new());
    let bytes = |selection| {
        let mut bytes = Vec::new();
        list_jobs(selection).encode_body(&mut bytes);
        bytes
    };
    let plain = bytes(JobSelection::default());
    assert_eq!(plain.len(), 8 + 2 + 3 + 3 + 8 + 2, "nothing follows the limit");
    for (end, expected) in [
        (&[0, 0, 0][..], DecodeError::Invalid { field: "selection", value: 0 }),
        (&[0, 0, 32], DecodeError::Invalid { field: "states", value: 32 }),
        (&[0, 0], DecodeError::Truncated { field: "states", needed: 1 }),
        (&[0, 0, 1, 0], DecodeError::Trailing(1)),
    ] {
        assert_eq!(ListJobs::decode_body(&[&plain, end].concat()), Err(expected), "{end:?}");
    }
}

#[test]
fn schedules_that_cannot_be_combined_are_named() {
    let every = ScheduleSpec::Interval { every_us: 1_000, anchor: Timestamp::EPOCH };
    let once = ScheduleSpec::Once { at: Timestamp::EPOCH };
    let (after, delay) = (ScheduleSpec::After { delay_us: 5 }, ScheduleSpec::FixedDelay { delay_us: 1_000 });
    let cron = ScheduleSpec::Cron { expression: "@daily", zone: "UTC" };
    let many = |count| [every].repeat(count);
    let plain = FiringRules::default();
    let (skip, limited) = (FiringRules { dst_gap: DstGap::Skip, ..plain }, FiringRules { executions_max: 2, ..plain });
    let cases = [
        (once, vec![once], limited, ""),
        (every, vec![cron], skip, ""),
        (every, many(15), plain, ""),
        (every, many(16), plain, "`schedules` is 17; allowed are 1 to 16"),
        (every, vec![after], plain, "`after` cannot be combined with `other schedules`"),
        (after, vec![every], plain, "`after` cannot be combined with `other schedules`"),
        (cron, vec![once, delay], plain, "`fixed_delay` cannot be combined with `other schedules`"),
        (delay, vec![cron], plain, "`fixed_delay` cannot be combined with `other schedules`"),
        (once, vec![every], skip, "`dst_gap` is of use only with `cron`"),
        (
            every,
            vec![cron, ScheduleSpec::Interval { every_us: 999, anchor: Timestamp::EPOCH }],
            plain,
            "`every_us` is 999; allowed are 1000 to 3162240000000000",
        ),
        (
            every,
            vec![ScheduleSpec::Cron { expression: "", zone: "UTC" }],
            plain,
            "`cron` has 0 bytes; allowed are 1 to 256",
        ),
    ];
    for (schedule, others, rules, expected) in cases {
        let also: ScheduleListBuf = others.iter().copied().collect();
        let spec = JobSpec { also: also.as_list(), rules, ..JobSpec::new("t", "n", "h", schedule) };
        let message = spec.validate(10).err().map_or_else(String::new, |error| error.to_string());
        assert_eq!(message, expected, "{spec:?}");
    }
}

#[test]
fn wrong_labels_are_named_as_such() {
    let spec = JobSpec::new("t", "n", "h", ScheduleSpec::After { delay_us: 5 });
    assert_eq!(JobSpec { labels: "env=prod,team=ops", ..spec }.validate(10), Ok(()));
    let message = JobSpec { labels: "team=ops,env=prod", ..spec }.validate(10).unwrap_err().to_string();
    assert_eq!(message, "`labels`: the key `env` is not behind those that sort before it");
}

#[test]
fn exclusions_have_their_limits() {
    let every = JobSpec::new("t", "n", "h", ScheduleSpec::Interval { every_us: 1_000, anchor: Timestamp::EPOCH });
    let delay = JobSpec { schedule: ScheduleSpec::FixedDelay { delay_us: 1_000 }, ..every };
    let most = "12-25\n".repeat(2_730) + "SAT";
    let more = most.clone() + "\nSU";
    assert_eq!(most.len(), 16_383);
    for (spec, exclusions, expected) in [
        (every, &*most, ""),
        (every, &*more, "`exclusions` has 16386 bytes; allowed are 1 to 16384"),
        (every, "12-25\n", "`exclusions` has 0 bytes; allowed are 1 to 16384"),
        (every, "12-25\r\n12-26", "`exclusions` holds a control character"),
        (delay, "12-25", "`exclusions` makes no sense with `a fixed delay`"),
    ] {
        let message =
            JobSpec { exclusions, ..spec }.validate(10).err().map_or_else(String::new, |error| error.to_string());
        assert_eq!(message, expected);
    }
}

#[test]
fn only_schedules_are_read_as_further_schedules() {
    let mut priority = Vec::new();
    JobSpec { priority: Priority::P0, ..JobSpec::new("t", "n", "h", ScheduleSpec::After { delay_us: 0 }) }
        .encode(&mut priority);
    assert_eq!(ScheduleList::decode(&priority), Err(JobSpecError::UnknownField(1)));
    for (bytes, field) in [(&[4][..], "also.value"), (&[6, 8, 0, 0, 0, 1], "also.value")] {
        let error = ScheduleList::decode(bytes).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    assert_eq!(ScheduleList::decode(&[]).unwrap().iter().count(), 0);
}

fn schedules() -> impl Strategy<Value = (u8, u64, u64, String, String)> {
    (0..5u8, any::<u64>(), any::<u64>(), "[*0-9/, -]{1,30}", "[A-Za-z/_]{1,30}")
}

fn schedule_spec((kind, first, second, expression, zone): &(u8, u64, u64, String, String)) -> ScheduleSpec<'_> {
    match kind {
        0 => ScheduleSpec::Cron { expression, zone },
        1 => ScheduleSpec::Interval { every_us: *first, anchor: Timestamp::from_micros(*second) },
        2 => ScheduleSpec::Once { at: Timestamp::from_micros(*first) },
        3 => ScheduleSpec::After { delay_us: *first },
        _ => ScheduleSpec::FixedDelay { delay_us: *first },
    }
}

fn rules() -> impl Strategy<Value = FiringRules> {
    let named = (0..3_u8, 0..5_u8, 0..3_u8, 0..4_u8, 0..2_u8);
    let numbers = any::<(u32, u32, u32, u32, u16, u64, u64, u32, u32)>();
    (named, numbers).prop_map(|((misfire, overlap, gap, twice, days), numbers)| FiringRules {
        misfire: Misfire::from_number(misfire).unwrap(),
        misfire_max: numbers.0,
        misfire_grace_ms: numbers.1,
        overlap: Overlap::from_number(overlap).unwrap(),
        overlap_max: numbers.2,
        schedule_to_start_ms: numbers.3,
        pause_after_failures: numbers.4,
        starts_at: Timestamp::from_micros(numbers.5),
        ends_at: Timestamp::from_micros(numbers.6),
        executions_max: numbers.7,
        jitter_ms: numbers.8,
        dst_gap: DstGap::from_number(gap).unwrap(),
        dst_overlap: DstOverlap::from_number(twice).unwrap(),
        day_rule: DayRule::from_number(days).unwrap(),
    })
}

/// Texts without control characters; Miri would take minutes to list those.
const SHORT: &str = if cfg!(miri) { "[ -~é-😀]{1,20}" } else { "\\PC{1,20}" };
const LONG: &str = if cfg!(miri) { "[ -~é-😀]{1,40}" } else { "\\PC{1,40}" };
const EMPTY_TOO: &str = if cfg!(miri) { "[ -~é-😀]{0,20}" } else { "\\PC{0,20}" };

proptest! {
    #[test]
    fn definitions_are_read_back_as_written(
        schedule in schedules(), others in vec(schedules(), 0..4), texts in (SHORT, LONG, SHORT, SHORT, EMPTY_TOO, EMPTY_TOO),
        payload: Vec<u8>, exclusions in EMPTY_TOO,
        numbers in any::<(u16, u32, u16, u32, u8)>(), more in any::<(u32, u32, bool)>(), priority in 0..3u8, rules in rules(),
    ) {
        let also: ScheduleListBuf = others.iter().map(schedule_spec).collect();
        prop_assert!(also.as_list().iter().eq(others.iter().map(schedule_spec)));
        let spec = JobSpec {
            tenant: &texts.0,
            name: &texts.1,
            handler: &texts.2,
            schedule: schedule_spec(&schedule),
            also: also.as_list(),
            exclusions: &exclusions,
            payload: &payload,
            pool: &texts.3,
            priority: Priority::from_number(priority).unwrap(),
            retry: RetryPolicy {
                attempts_max: numbers.0,
                initial_ms: numbers.1,
                multiplier_milli: numbers.2,
                delay_ms_max: numbers.3,
                jitter_percent: numbers.4,
            },
            start_to_close_ms: more.0,
            heartbeat_ms: more.1,
            non_retryable: &texts.4,
            rules,
            paused: more.2,
            labels: &texts.5,
        };
        let mut bytes = Vec::new();
        spec.encode(&mut bytes);
        prop_assert_eq!(JobSpec::decode(&bytes), Ok(spec));
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>) {
        let _ = JobSpec::decode(&bytes);
        let _ = SubmitJob::decode_body(&bytes);
        let _ = Dispatch::decode_body(&bytes);
        let _ = Complete::decode_body(&bytes);
        let _ = Refused::decode_body(&bytes);
        let _ = ListJobs::decode_body(&bytes);
        let _ = ListExecutions::decode_body(&bytes);
        let _ = JobCommand::decode_body(&bytes);
    }

    #[test]
    fn a_selector_admits_as_its_conditions_do_one_by_one(
        labels in btree_map("[ab]{1,2}", "[x=]{0,2}", 0..4),
        conditions in vec(("[ab]{1,2}", 0..5_u8, "[x=]{0,2}"), 1..4),
    ) {
        let text = labels_text(labels.iter().map(|(key, value)| (&**key, &**value))).unwrap();
        let written = conditions.iter().map(|(key, form, value)| match form {
            0 => format!("{key}=={value}"),
            1 => format!("{key}!={value}"),
            2 => key.clone(),
            3 => format!("!{key}"),
            _ => format!("{key}={}", value.trim_start_matches('=')),
        });
        let selector = written.collect::<Vec<_>>().join(",");
        let expected = conditions.iter().all(|(key, form, value)| match (form, labels.get(key)) {
            (0, found) => found == Some(value),
            (1, found) => found != Some(value),
            (2, found) => found.is_some(),
            (3, found) => found.is_none(),
            (_, found) => found.is_some_and(|found| found == value.trim_start_matches('=')),
        });
        prop_assert_eq!(LabelSelector::parse(&selector).unwrap().admits(&text), expected, "{} of {}", selector, text);
    }

    #[test]
    fn no_text_makes_the_parsing_of_selectors_panic(text in SHORT, labels in EMPTY_TOO) {
        if let Ok(selector) = LabelSelector::parse(&text) {
            selector.admits(&labels);
        }
    }
}
