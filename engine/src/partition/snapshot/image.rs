//! What the chunks hold, and how it is made from the partition's own types.

use crate::partition::{
    JobRecord,
    arena::Entry,
    execution::Execution,
    idempotency::Submission,
    recent::{Attempt, Texts},
    standing::Standing,
};
use rkyv::{Archive, Serialize, with::InlineAsBox};
use tickwheel_wire::{Timestamp, event::AttemptEnd};

#[derive(Archive, Serialize)]
#[cfg_attr(not(test), expect(dead_code, reason = "what format 1 has is only read"))]
pub(super) enum Chunk<'a> {
    Head {
        format: u32,
        partition: u16,
        sequence: u64,
        slot_count: u32,
        counters: [u64; 8],
    },
    /// Of format 1, and only read.
    Jobs {
        policies: Vec<PolicyImage>,
        timings: Vec<TimingImage>,
        slots: Vec<SlotImage<'a>>,
    },
    Executions(Vec<ExecutionImage>),
    Workers(Vec<WorkerImage>),
    Attempts {
        dead_letters: bool,
        attempts: Vec<AttemptImage<'a>>,
    },
    Submissions(Vec<SubmissionImage>),
    End {
        digest: u64,
    },
    DefinedJobs {
        definitions: Vec<DefinitionImage>,
        slots: Vec<SlotImage<'a>>,
    },
    Standings {
        too_late: u64,
        standings: Vec<StandingImage>,
    },
    Backlogs(Vec<BacklogImage>),
    NumberedExecutions(Vec<NumberedImage>),
    /// Of the zone database that next firings come from.
    Zones {
        version: u64,
    },
    Calendars {
        /// Next firings may come from calendars as they were before.
        behind: bool,
        calendars: Vec<CalendarImage>,
    },
}

/// A definition without name and payload, its schedule without what is the job's own.
#[derive(Archive, Serialize)]
pub(super) struct DefinitionImage {
    pub tenant: u32,
    pub spec: Vec<u8>,
}

#[derive(Archive, Serialize)]
pub(super) struct StandingImage {
    pub slot: u32,
    pub missed_until: u64,
    pub overlapped_until: u64,
    pub failures: u16,
}

#[derive(Archive, Serialize)]
pub(super) struct CalendarImage {
    pub tenant: u32,
    pub name: String,
    pub exclusions: String,
}

#[derive(Archive, Serialize)]
pub(super) struct BacklogImage {
    pub slot: u32,
    pub times: Vec<u64>,
}

/// Of format 1.
#[derive(Archive, Serialize)]
pub(super) struct PolicyImage {
    pub tenant: u32,
    pub tenant_name: String,
    pub handler: String,
    pub pool: String,
    pub priority: u8,
    pub misfire: u8,
    pub overlap: u8,
    pub attempts_max: u16,
    pub initial_ms: u32,
    pub multiplier_milli: u16,
    pub delay_ms_max: u32,
    pub jitter_percent: u8,
    pub start_to_close_ms: u32,
    pub heartbeat_ms: u32,
}

/// Of format 1.
#[derive(Archive, Serialize)]
#[cfg_attr(not(test), expect(dead_code, reason = "what format 1 has is only read"))]
pub(super) enum TimingImage {
    Cron { expression: String, zone: String },
    Every { every_us: u64 },
    Once,
}

/// A slot; the fields after `job` are meaningless for a free one.
#[derive(Archive, Serialize)]
pub(super) struct SlotImage<'a> {
    pub marks: u32,
    pub job: bool,
    pub next_fire_raw: u64,
    pub fire_sequence: u64,
    pub token: u64,
    pub finished_secs: u32,
    /// Which definition of the chunk; in format 1 which policy.
    pub definition: u32,
    /// Of format 1.
    pub timing: u32,
    pub revision: u32,
    pub created_at: u64,
    pub parameter: Option<u64>,
    pub trigger: Option<u64>,
    #[rkyv(with = InlineAsBox)]
    pub name: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub payload: &'a [u8],
}

#[derive(Archive, Serialize)]
pub(super) struct ExecutionImage {
    pub slot: u32,
    pub attempt: u16,
    pub worker: u16,
    pub retrying: bool,
    pub cancel_requested: bool,
    /// A boolean before format 3: whether it was triggered.
    pub origin: u8,
    pub scheduled_at: u64,
    pub dispatched_at: u64,
    pub retry_at: u64,
}

/// An execution whose numbers are not its job's newest, since the job has others in flight or had.
#[derive(Archive, Serialize)]
pub(super) struct NumberedImage {
    pub execution: ExecutionImage,
    pub fire_sequence: u64,
    pub token: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct WorkerImage {
    pub index: u16,
    pub instance: u128,
    pub name: String,
}

#[derive(Archive, Serialize)]
pub(super) struct AttemptImage<'a> {
    pub end: [u8; AttemptEnd::BYTES],
    pub generation: u32,
    pub retry_at: u64,
    pub dead: bool,
    #[rkyv(with = InlineAsBox)]
    pub error: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub output: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub tenant: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub name: &'a str,
}

#[derive(Archive, Serialize)]
pub(super) struct SubmissionImage {
    pub key: u128,
    pub spec_hash: u128,
    pub job: u64,
    pub revision: u32,
    pub created: bool,
    pub until: u64,
}

impl StandingImage {
    pub const fn of(slot: u32, standing: &Standing) -> Self {
        Self {
            slot,
            missed_until: standing.missed_until.as_micros(),
            overlapped_until: standing.overlapped_until.as_micros(),
            failures: standing.failures,
        }
    }
}

impl<'a> SlotImage<'a> {
    pub const fn free(record: &JobRecord) -> Self {
        Self {
            marks: record.durable_marks(),
            job: false,
            next_fire_raw: 0,
            fire_sequence: 0,
            token: 0,
            finished_secs: 0,
            definition: 0,
            timing: 0,
            revision: 0,
            created_at: 0,
            parameter: None,
            trigger: None,
            name: "",
            payload: &[],
        }
    }

    pub fn of(record: &JobRecord, definition: u32, entry: &Entry<'a>, trigger: Option<Timestamp>) -> Self {
        Self {
            marks: record.durable_marks(),
            job: true,
            next_fire_raw: record.next_fire_raw,
            fire_sequence: record.fire_sequence(),
            token: record.token().0,
            finished_secs: record.finished_secs,
            definition,
            timing: 0,
            revision: entry.revision,
            created_at: entry.created_at,
            parameter: entry.parameter,
            trigger: trigger.map(Timestamp::as_micros),
            name: entry.name,
            payload: entry.payload,
        }
    }
}

impl ExecutionImage {
    pub const fn of(execution: &Execution) -> Self {
        Self {
            slot: execution.slot,
            attempt: execution.attempt,
            worker: execution.worker,
            retrying: execution.retrying,
            cancel_requested: execution.cancel_requested,
            origin: execution.origin.number(),
            scheduled_at: execution.scheduled_at.as_micros(),
            dispatched_at: execution.dispatched_at.as_micros(),
            retry_at: execution.retry_at.as_micros(),
        }
    }
}

impl<'a> AttemptImage<'a> {
    pub fn of(attempt: Attempt<'a>) -> Self {
        let Texts { error, output, tenant, name } = attempt.texts;
        Self {
            end: attempt.end.to_bytes(),
            generation: attempt.generation,
            retry_at: attempt.retry_at,
            dead: attempt.dead,
            error,
            output,
            tenant,
            name,
        }
    }
}

impl SubmissionImage {
    pub const fn of(key: u128, submission: &Submission) -> Self {
        Self {
            key,
            spec_hash: submission.spec_hash,
            job: submission.job.raw(),
            revision: submission.revision,
            created: submission.created,
            until: submission.until.as_micros(),
        }
    }
}
