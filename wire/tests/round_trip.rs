//! Encodings are read back as they were written, and damaged ones are refused, never misread by a panic.

use proptest::prelude::*;
use tickwheel_wire::{
    DecodeError, FireSequence, JobId, PartitionId, Timestamp, Token,
    frame::{
        Frame, FrameHeader, FrameType,
        request::{Counters, SubmitJob, SubmitMode},
        session::{RefusalCode, Refused},
        work::{Complete, CompleteHead, Dispatch, DispatchHead, Outcome},
    },
    job::{JobSpec, JobSpecError, Misfire, Overlap, Priority, RetryPolicy, ScheduleSpec},
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

fn schedules() -> impl Strategy<Value = (u8, u64, u64, String, String)> {
    (0..4u8, any::<u64>(), any::<u64>(), "[*0-9/, -]{1,30}", "[A-Za-z/_]{1,30}")
}

/// Texts without control characters; Miri would take minutes to list those.
const SHORT: &str = if cfg!(miri) { "[ -~é-😀]{1,20}" } else { "\\PC{1,20}" };
const LONG: &str = if cfg!(miri) { "[ -~é-😀]{1,40}" } else { "\\PC{1,40}" };

proptest! {
    #[test]
    fn definitions_are_read_back_as_written(
        schedule in schedules(), texts in (SHORT, LONG, SHORT, SHORT), payload: Vec<u8>,
        numbers in any::<(u16, u32, u16, u32, u8)>(), more in any::<(u32, u32, bool)>(), priority in 0..3u8,
    ) {
        let (kind, first, second, expression, zone) = &schedule;
        let spec = JobSpec {
            tenant: &texts.0,
            name: &texts.1,
            handler: &texts.2,
            schedule: match kind {
                0 => ScheduleSpec::Cron { expression, zone },
                1 => ScheduleSpec::Interval { every_us: *first, anchor: Timestamp::from_micros(*second) },
                2 => ScheduleSpec::Once { at: Timestamp::from_micros(*first) },
                _ => ScheduleSpec::After { delay_us: *first },
            },
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
            misfire: Misfire::FireOnce,
            overlap: Overlap::Skip,
            paused: more.2,
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
    }
}
