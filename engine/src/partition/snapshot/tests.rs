//! Tests of what the reader refuses: each changes one field of a snapshot that can be read. Format 1 has most fields, so it serves for all that both have.

use super::{
    SnapshotError, SnapshotReader,
    image::{
        AttemptImage, BacklogImage, Chunk, ExecutionImage, NumberedImage, PolicyImage, SlotImage, SubmissionImage,
        TimingImage, WorkerImage,
    },
    walk::archive,
};
use crate::{partition::Partition, shard::PartitionLimits};
use tickwheel_wire::{
    JobId, PartitionId, Timestamp, Token,
    event::{AttemptEnd, AttemptOutcome, Event, JobReplaced},
    job::{JobSpec, Priority, RetryPolicy, ScheduleSpec},
};

const ID: PartitionId = PartitionId(3);
const ALIVE: u32 = 1;
const TRIGGERED: u32 = 1 << 2;
const FINISHED: u32 = 1 << 3;
const BACKLOG: u32 = 1 << 7;

/// A snapshot of two jobs, the first with an execution in flight, and a free slot.
struct Images {
    sequence: u64,
    slot_count: u32,
    counters: [u64; 8],
    workers: Vec<WorkerImage>,
    executions: Vec<ExecutionImage>,
    numbered: Vec<NumberedImage>,
    end: AttemptEnd,
    attempt: AttemptImage<'static>,
    submissions: Vec<SubmissionImage>,
    policy: PolicyImage,
    timing: TimingImage,
    slots: Vec<SlotImage<'static>>,
}

impl Images {
    fn new() -> Self {
        let worker = WorkerImage { index: 0, instance: 7, name: "worker-7".to_owned() };
        let slots = vec![slot("first", 2), slot("second", 0), SlotImage { marks: 4 << 12, job: false, ..slot("", 0) }];
        Self {
            sequence: 10,
            slot_count: 3,
            counters: [1; 8],
            workers: vec![worker],
            executions: vec![execution()],
            numbered: Vec::new(),
            end: end(),
            attempt: attempt(),
            submissions: vec![submission()],
            policy: policy(),
            timing: TimingImage::Every { every_us: 1_000_000 },
            slots,
        }
    }

    fn chunks(self) -> Vec<Chunk<'static>> {
        let Self { sequence, slot_count, counters, workers, executions, numbered, end, attempt, submissions, .. } =
            self;
        let attempts = vec![AttemptImage { end: end.to_bytes(), ..attempt }];
        vec![
            Chunk::Head { format: 1, partition: ID.0, sequence, slot_count, counters },
            Chunk::Workers(workers),
            Chunk::Executions(executions),
            Chunk::NumberedExecutions(numbered),
            Chunk::Attempts { dead_letters: false, attempts },
            Chunk::Submissions(submissions),
            Chunk::Jobs { policies: vec![self.policy], timings: vec![self.timing], slots: self.slots },
            Chunk::End { digest: 0 },
        ]
    }
}

fn slot(name: &'static str, newest: u64) -> SlotImage<'static> {
    SlotImage {
        marks: ALIVE,
        job: true,
        next_fire_raw: 60_000_000,
        fire_sequence: newest,
        token: newest,
        finished_secs: 30,
        definition: 0,
        timing: 0,
        revision: 1,
        created_at: 5,
        parameter: None,
        trigger: None,
        name,
        payload: b"payload",
    }
}

fn execution() -> ExecutionImage {
    ExecutionImage {
        slot: 0,
        attempt: 1,
        worker: 0,
        retrying: false,
        cancel_requested: false,
        origin: 0,
        scheduled_at: 40_000_000,
        dispatched_at: 40_000_001,
        retry_at: u64::MAX,
    }
}

fn numbered_of(fire_sequence: u64, token: u64) -> NumberedImage {
    NumberedImage { execution: execution(), fire_sequence, token }
}

fn end() -> AttemptEnd {
    AttemptEnd {
        outcome: AttemptOutcome::Succeeded,
        attempt: 1,
        slot: 0,
        fire_sequence: 1,
        worker: 0,
        token: Token(1),
        scheduled_at: Timestamp::from_secs(20),
        delay_us: 1,
        run_us: 1,
        finished_at: Timestamp::from_secs(30),
        reported: true,
    }
}

fn attempt() -> AttemptImage<'static> {
    let end = end().to_bytes();
    AttemptImage { end, generation: 0, retry_at: 0, dead: false, error: "", output: b"42", tenant: "", name: "" }
}

fn submission() -> SubmissionImage {
    SubmissionImage { key: 9, spec_hash: 1, job: JobId::new(ID, 0, 0).raw(), revision: 1, created: true, until: 1 }
}

fn policy() -> PolicyImage {
    let retry = RetryPolicy::default();
    PolicyImage {
        tenant: 0,
        tenant_name: "acme".to_owned(),
        handler: "run".to_owned(),
        pool: "standard".to_owned(),
        priority: Priority::P1.number(),
        misfire: 0,
        overlap: 0,
        attempts_max: retry.attempts_max,
        initial_ms: retry.initial_ms,
        multiplier_milli: retry.multiplier_milli,
        delay_ms_max: retry.delay_ms_max,
        jitter_percent: retry.jitter_percent,
        start_to_close_ms: 0,
        heartbeat_ms: 0,
    }
}

fn read(chunks: &[Chunk<'_>]) -> Result<Partition, SnapshotError> {
    let mut reader = SnapshotReader::new(ID, PartitionLimits::default());
    for chunk in chunks {
        reader.chunk(&archive(chunk, Vec::new()))?;
    }
    reader.finish(false)
}

/// The field that the reader names after `change`.
fn refused(change: impl FnOnce(&mut Images)) -> &'static str {
    let mut images = Images::new();
    change(&mut images);
    match read(&images.chunks()) {
        Err(SnapshotError::Field { field, .. }) => field,
        other => panic!("{:?}", other.map(|partition| partition.digest())),
    }
}

#[test]
fn what_was_changed_below_can_be_read_unchanged() {
    let partition = read(&Images::new().chunks()).expect("it is valid");
    assert_eq!((partition.job_count(), partition.execution_count(), partition.slot_count()), (2, 1, 3));
    let once = Images { timing: TimingImage::Once, ..Images::new() };
    assert_eq!(read(&once.chunks()).expect("it is valid").job_count(), 2);
    assert_eq!((partition.job_id(0), partition.slot(2).generation()), (JobId::new(ID, 0, 0), 4));
}

#[test]
fn counts_that_leave_no_room_are_refused() {
    assert_eq!(refused(|images| images.sequence = u64::MAX), "head.sequence");
    assert_eq!(refused(|images| images.counters[6] = u64::MAX), "head.counters");
    assert_eq!(refused(|images| images.slots[0].fire_sequence = 1 << 48), "jobs.fire_sequence");
    assert_eq!(refused(|images| images.slots[0].fire_sequence = (1 << 48) - 1), "jobs.fire_sequence");
    assert_eq!(refused(|images| images.slots[0].token = u64::MAX), "jobs.token");
    assert_eq!(refused(|images| images.executions[0].attempt = u16::MAX), "executions.attempt");
}

#[test]
fn references_to_what_is_not_there_are_refused() {
    assert_eq!(refused(|images| images.slots[1].definition = 1), "jobs.policy");
    assert_eq!(refused(|images| images.slots[1].timing = 1), "jobs.timing");
    assert_eq!(refused(|images| images.executions[0].worker = 1), "executions.worker");
    assert_eq!(refused(|images| images.executions[0].slot = 3), "executions.slot");
    assert_eq!(refused(|images| images.executions[0].slot = 2), "executions.slot");
    assert_eq!(refused(|images| images.end.worker = 1), "attempts.worker");
    assert_eq!(refused(|images| images.end.slot = 3), "attempts.slot");
    assert_eq!(refused(|images| images.workers.clear()), "executions.worker");
    assert_eq!(refused(|images| images.workers[0].index = 1), "workers.index");
    assert_eq!(refused(|images| images.slot_count = 2), "jobs.slots");
}

#[test]
fn several_executions_of_a_job_are_read_with_their_numbers() {
    let numbered = vec![numbered_of(1, 1)];
    let partition = read(&Images { numbered, ..Images::new() }.chunks()).expect("it is valid");
    let in_flight = partition.in_flight(0).map(|(_, execution)| (execution.fire_sequence.0, execution.token.0));
    assert_eq!(in_flight.collect::<Vec<_>>(), [(2, 2), (1, 1)]);
    assert_eq!(refused(|images| images.numbered.push(numbered_of(2, 1))), "executions.slot");
    assert_eq!(refused(|images| images.numbered = vec![numbered_of(1, 1), numbered_of(1, 2)]), "executions.slot");
    for (fire_sequence, token, field) in [
        (0, 1, "executions.fire_sequence"),
        (3, 1, "executions.fire_sequence"),
        (u64::MAX, 1, "executions.fire_sequence"),
        (1, 0, "executions.token"),
        (1, 3, "executions.token"),
    ] {
        assert_eq!(refused(|images| images.numbered.push(numbered_of(fire_sequence, token))), field);
    }
}

#[test]
fn what_is_there_twice_is_refused() {
    assert_eq!(refused(|images| images.slots[1].name = "first"), "jobs.name");
    assert_eq!(refused(|images| images.executions.push(execution())), "executions.slot");
    assert_eq!(refused(|images| images.submissions.push(submission())), "submissions.key");
    let again = || WorkerImage { index: 0, instance: 8, name: String::new() };
    assert_eq!(refused(|images| images.workers.push(again())), "workers.index");
}

#[test]
fn jobs_that_contradict_themselves_are_refused() {
    assert_eq!(refused(|images| images.slots[1].marks = ALIVE | TRIGGERED), "jobs.trigger");
    assert_eq!(refused(|images| images.slots[1].trigger = Some(1)), "jobs.trigger");
    assert_eq!(refused(|images| images.slots[1].marks = 0), "jobs.job");
    assert_eq!(refused(|images| images.slots[1].marks = ALIVE | BACKLOG), "jobs.backlog");
    assert_eq!(refused(|images| images.executions[0].origin = 3), "executions.origin");
    for marks in [ALIVE | 1 << 5, ALIVE | 1 << 6, ALIVE | 1 << 8, ALIVE | 15 << 8] {
        assert_eq!(refused(|images| images.slots[1].marks = marks), "jobs.marks", "{marks:#x}");
    }
    assert_eq!(refused(|images| images.slots[2].marks |= FINISHED), "jobs.marks");
    assert_eq!(refused(|images| images.slots[0].marks |= FINISHED), "executions.slot");
    let never = |images: &mut Images| {
        images.slots[1].marks |= FINISHED;
        images.slots[1].next_fire_raw = u64::MAX;
    };
    assert_eq!(refused(never), "jobs.next_fire_raw");
    let will_fire = |images: &mut Images| {
        images.slots[1].marks |= FINISHED | TRIGGERED;
        images.slots[1].trigger = Some(1);
    };
    assert_eq!(refused(will_fire), "jobs.marks");
    assert_eq!(refused(|images| images.slots[0].token = 0), "jobs.token");
    assert_eq!(refused(|images| images.slots[0].fire_sequence = 0), "jobs.fire_sequence");
    assert_eq!(refused(|images| images.executions[0].attempt = 0), "executions.attempt");
    assert_eq!(refused(|images| images.executions[0].retrying = true), "executions.worker");
}

#[test]
fn what_no_submission_may_say_is_refused() {
    static LONG: [u8; 1 << 22] = [0; 1 << 22];
    assert_eq!(refused(|images| images.timing = TimingImage::Every { every_us: 0 }), "every_us");
    let cron = |expression: &str| TimingImage::Cron { expression: expression.to_owned(), zone: "UTC".to_owned() };
    assert_eq!(refused(|images| images.timing = cron("")), "cron");
    assert_eq!(refused(|images| images.policy.attempts_max = 0), "attempts_max");
    assert_eq!(refused(|images| images.policy.jitter_percent = 101), "jitter_percent");
    assert_eq!(refused(|images| images.policy.handler = "x".repeat(129)), "handler");
    assert_eq!(refused(|images| images.policy.tenant_name.clear()), "tenant");
    assert_eq!(refused(|images| images.policy.priority = 3), "policies.priority");
    assert_eq!(refused(|images| images.policy.misfire = 9), "policies.misfire");
    assert_eq!(refused(|images| images.policy.overlap = 9), "policies.overlap");
    assert_eq!(refused(|images| images.slots[1].name = ""), "jobs.name");
    assert_eq!(refused(|images| images.slots[1].created_at = 1 << 56), "created_at");
    // Miri would take minutes to check the bytes.
    if !cfg!(miri) {
        assert_eq!(refused(|images| images.slots[1].payload = &LONG), "payload");
    }
    let long = std::str::from_utf8(&LONG[..4_097]).expect("ascii");
    assert_eq!(refused(|images| images.slots[1].name = &long[..256]), "name");
    assert_eq!(refused(|images| images.attempt.error = &long[..4_097]), "attempts.error");
    assert_eq!(refused(|images| images.attempt.output = &LONG[..4_097]), "attempts.output");
    assert_eq!(refused(|images| images.attempt.tenant = &long[..65]), "attempts.tenant");
    assert_eq!(refused(|images| images.attempt.name = &long[..256]), "attempts.name");
    assert_eq!(refused(|images| images.attempt.generation = 1 << 20), "attempts.generation");
    assert_eq!(refused(|images| images.slots[0].revision = 0), "jobs.revision");
}

#[test]
fn a_revision_that_cannot_grow_stays_as_it_is() {
    let mut images = Images::new();
    images.slots[1].revision = u32::MAX;
    let mut partition = read(&images.chunks()).expect("it is valid");
    let (at, mut spec) = (Timestamp::from_secs(60), Vec::new());
    JobSpec::new("acme", "second", "run", ScheduleSpec::Once { at }).encode(&mut spec);
    let until = Timestamp::EPOCH;
    let replaced =
        JobReplaced { slot: 1, at, next_fire: at, idempotency_key: 0, idempotency_until: until, spec: &spec };
    partition.apply(&Event::JobReplaced(replaced));
    assert_eq!(partition.revision(1), u32::MAX);
}

#[test]
fn an_end_that_is_none_is_refused() {
    let mut chunks = Images::new().chunks();
    chunks[3] = Chunk::Attempts {
        dead_letters: true,
        attempts: vec![AttemptImage { end: [0xFF; AttemptEnd::BYTES], ..attempt() }],
    };
    assert!(matches!(read(&chunks), Err(SnapshotError::Field { chunk: 3, field: "attempts.end", .. })));
}

#[test]
fn a_reader_that_has_refused_a_chunk_gives_no_partition() {
    let mut reader = SnapshotReader::new(ID, PartitionLimits::default());
    let mut chunks = Images::new().chunks();
    chunks.insert(2, Chunk::Workers(vec![WorkerImage { index: 5, instance: 1, name: String::new() }]));
    let refused = chunks.iter().filter(|chunk| reader.chunk(&archive(chunk, Vec::new())).is_err()).count();
    assert_eq!(refused, 1);
    assert!(matches!(reader.finish(false), Err(SnapshotError::Incomplete { chunks: 9 })));
}

#[test]
fn backlogs_that_no_job_has_are_refused() {
    let with = |backlogs: &[(u32, usize)], marks: u32| {
        let mut images = Images::new();
        images.slots[1].marks |= marks;
        let mut chunks = images.chunks();
        let backlogs = backlogs.iter().map(|(slot, count)| BacklogImage { slot: *slot, times: vec![7; *count] });
        chunks.insert(1, Chunk::Backlogs(backlogs.collect()));
        match read(&chunks) {
            Err(SnapshotError::Field { field, .. }) => Err(field),
            read => Ok(read.expect("no other error").backlog_of(1)),
        }
    };
    assert_eq!(with(&[(1, 3)], BACKLOG), Ok(3));
    assert_eq!(with(&[(1, 3)], 0), Err("jobs.backlog"));
    assert_eq!(with(&[(2, 3), (1, 1)], BACKLOG), Err("backlogs.slot"), "the slot is free");
    assert_eq!(with(&[(3, 3)], 0), Err("backlogs.slot"));
    assert_eq!(with(&[(1, 3), (1, 1)], BACKLOG), Err("backlogs.slot"));
    assert_eq!(with(&[(1, 0)], BACKLOG), Err("backlogs.times"));
    assert_eq!(with(&[(1, 1_001)], BACKLOG), Err("backlogs.times"));
}
