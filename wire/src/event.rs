//! What happened to a partition, as the log holds it.
//!
//! One byte names the kind, the fields of that kind follow in their declared order, little-endian, without padding. An
//! event carries everything that was decided (the next fire time above all), so that applying it decides nothing and needs
//! no zone database. Sequence numbers, generations of slots and the like that follow from the state are not repeated.
//!
//! The kinds that every execution writes are fixed and small: `Dispatched` takes 38 bytes, `Completed` 47. Firing itself
//! has no event: a job's next fire time stays the scheduled time of its next undispatched firing.
//!
//! Times that are [`Timestamp::MAX`] mean "never". A fire sequence is given by its low 32 bits; the partition knows the
//! rest.

use crate::{
    DecodeError, InstanceId, Reader, TenantId, Timestamp, Token, Writer,
    layout::{Field, fixed_layout, variable_layout, wire_enum},
};

wire_enum! {
    /// How an attempt, and with its last attempt an execution, ended.
    pub enum AttemptOutcome: u8 {
        /// The worker reported success.
        Succeeded = 1 => "succeeded",
        /// The worker reported an error.
        Failed = 2 => "failed",
        /// It ran longer than its start-to-close limit, or was silent longer than its heartbeat limit.
        TimedOut = 3 => "timed-out",
        /// Its worker went away and did not come back in time.
        WorkerLost = 4 => "worker-lost",
        /// It was cancelled.
        Cancelled = 5 => "cancelled",
        /// Its worker came back without ever having received it; it does not count as an attempt.
        Undelivered = 6 => "undelivered",
        /// Of an execution without attempts: it was too late to begin it.
        TooLate = 7 => "too-late",
    }
}

wire_enum! {
    /// Why there is an execution.
    pub enum Origin: u8 {
        /// The schedule.
        Schedule = 0 => "schedule",
        /// A trigger.
        Trigger = 1 => "trigger",
        /// The job's backlog: a dead letter to be tried again, or a firing of the past to be made up for.
        Backlog = 2 => "backlog",
    }
}

fixed_layout! {
    /// An attempt was given to a worker.
    pub struct Dispatched {
        /// The job's slot.
        pub slot: u32,
        /// Which attempt, from 1.
        pub attempt: u16,
        /// The partition's index of the worker.
        pub worker: u16,
        /// Which firing (low 32 bits).
        pub fire_sequence: u32,
        /// The attempt's fencing token.
        pub token: Token,
        /// The job's next fire time from now on.
        pub next_fire: Timestamp,
        /// When.
        pub at: Timestamp,
        /// Why there is the execution.
        pub origin: Origin,
    }
}

fixed_layout! {
    /// How one attempt ended.
    pub struct AttemptEnd {
        /// How.
        pub outcome: AttemptOutcome,
        /// Which attempt, from 1.
        pub attempt: u16,
        /// The job's slot.
        pub slot: u32,
        /// Which firing (low 32 bits).
        pub fire_sequence: u32,
        /// The partition's index of the worker.
        pub worker: u16,
        /// The attempt's fencing token.
        pub token: Token,
        /// When the execution was due.
        pub scheduled_at: Timestamp,
        /// From the scheduled time to the attempt's dispatch, in microseconds, saturating at `u32::MAX`.
        pub delay_us: u32,
        /// From the attempt's dispatch to its end, in microseconds, saturating at `u32::MAX`.
        pub run_us: u32,
        /// When it ended.
        pub finished_at: Timestamp,
        /// Whether its worker said so, which it may repeat.
        pub reported: bool,
    }
}

variable_layout! {
    /// Why an attempt failed, in the worker's words.
    pub struct Failure<'a> {
        /// Name of the error, for policies; may be empty.
        pub kind: &'a str,
        /// Text for people, bounded by [`crate::limits::OUTPUT_BYTES_MAX`].
        pub message: &'a str,
    }
}

variable_layout! {
    /// A job was created.
    pub struct JobCreated<'a> {
        /// The slot it took: a free one or the first behind the table's end.
        pub slot: u32,
        /// The slot's generation from now on.
        pub generation: u32,
        /// Owner of the job.
        pub tenant: TenantId,
        /// When.
        pub at: Timestamp,
        /// Its first fire time.
        pub next_fire: Timestamp,
        /// Hash of the submission's idempotency key; 0: none was given.
        pub idempotency_key: u128,
        /// Until when the key is remembered.
        pub idempotency_until: Timestamp,
        /// The definition, as [`crate::job::JobSpec`] encodes it.
        pub spec: &'a [u8],
    }
}

variable_layout! {
    /// A job's definition was replaced; its revision grows by one.
    pub struct JobReplaced<'a> {
        /// The job's slot.
        pub slot: u32,
        /// When.
        pub at: Timestamp,
        /// Its next fire time.
        pub next_fire: Timestamp,
        /// Hash of the submission's idempotency key; 0: none was given.
        pub idempotency_key: u128,
        /// Until when the key is remembered.
        pub idempotency_until: Timestamp,
        /// The definition, as [`crate::job::JobSpec`] encodes it.
        pub spec: &'a [u8],
    }
}

fixed_layout! {
    /// Something happened to a job as a whole; the kind says what.
    pub struct JobChange {
        /// The job's slot.
        pub slot: u32,
        /// When.
        pub at: Timestamp,
        /// Its next fire time from now on.
        pub next_fire: Timestamp,
    }
}

fixed_layout! {
    /// Firings were not executed; the kind says why.
    pub struct Missed {
        /// The job's slot.
        pub slot: u32,
        /// How many.
        pub count: u32,
        /// Its next fire time from now on.
        pub next_fire: Timestamp,
    }
}

fixed_layout! {
    /// An execution was asked to end, or ended without a running attempt; the kind says which.
    pub struct Cancellation {
        /// The job's slot.
        pub slot: u32,
        /// Which firing (low 32 bits).
        pub fire_sequence: u32,
        /// When.
        pub at: Timestamp,
        /// The job's next fire time from now on.
        pub next_fire: Timestamp,
        /// Why there is the execution.
        pub origin: Origin,
    }
}

fixed_layout! {
    /// An execution was not begun, because it was later than its job's schedule-to-start limit.
    pub struct TooLate {
        /// The job's slot.
        pub slot: u32,
        /// Which firing (low 32 bits).
        pub fire_sequence: u32,
        /// When it was due.
        pub scheduled_at: Timestamp,
        /// When it was given up.
        pub at: Timestamp,
        /// The job's next fire time from now on.
        pub next_fire: Timestamp,
        /// Why there is the execution.
        pub origin: Origin,
    }
}

fixed_layout! {
    /// A dead letter goes to the end of its job's backlog, and is none any more.
    pub struct Redriven {
        /// The job's slot.
        pub slot: u32,
        /// Which firing it was (low 32 bits).
        pub fire_sequence: u32,
        /// When it was to fire, which the new execution has too.
        pub scheduled_at: Timestamp,
        /// When it was asked for.
        pub at: Timestamp,
    }
}

variable_layout! {
    /// Firings of the past go to the end of their job's backlog.
    pub struct Backfilled<'a> {
        /// The job's slot.
        pub slot: u32,
        /// When it was asked for.
        pub at: Timestamp,
        /// The times that they were to fire at, each in 8 bytes, the earliest first.
        pub times: &'a [u8],
    }
}

fixed_layout! {
    /// All next fires of the partition are those of a zone database.
    pub struct ZonesChanged {
        /// The database's fingerprint, not 0.
        pub version: u64,
    }
}

variable_layout! {
    /// A worker instance got an index in the partition's table of workers; an index may be taken again.
    pub struct WorkerSeen<'a> {
        /// The index.
        pub worker: u16,
        /// The instance.
        pub instance: InstanceId,
        /// The worker's name, from its certificate.
        pub name: &'a str,
    }
}

const _: () = assert!(Dispatched::BYTES + 1 == 38, "the length is part of the log's format");
const _: () = assert!(AttemptEnd::BYTES + 1 == 47, "the length is part of the log's format");

variable_layout! {
    /// A tenant's calendar was set: the exclusions of the jobs that name it.
    pub struct CalendarSet<'a> {
        /// Its owner.
        pub tenant: TenantId,
        /// Its name, unique among the tenant's.
        pub name: &'a str,
        /// Its entries, as in a job's exclusions.
        pub exclusions: &'a str,
    }
}

variable_layout! {
    /// A tenant's calendar was removed.
    pub struct CalendarRemoved<'a> {
        /// Its owner.
        pub tenant: TenantId,
        /// Its name.
        pub name: &'a str,
    }
}

mod kind {
    pub const JOB_CREATED: u8 = 1;
    pub const JOB_REPLACED: u8 = 2;
    pub const JOB_DELETED: u8 = 3;
    pub const JOB_PAUSED: u8 = 4;
    pub const JOB_RESUMED: u8 = 5;
    pub const JOB_EXPIRED: u8 = 6;
    pub const TRIGGERED: u8 = 7;
    pub const DISPATCHED: u8 = 8;
    pub const COMPLETED: u8 = 9;
    pub const COMPLETED_OUTPUT: u8 = 10;
    pub const ATTEMPT_FAILED: u8 = 11;
    pub const DEAD_LETTERED: u8 = 12;
    pub const SKIPPED: u8 = 13;
    pub const MISFIRED: u8 = 14;
    pub const CANCEL_REQUESTED: u8 = 15;
    pub const CANCELLED: u8 = 16;
    pub const WORKER_SEEN: u8 = 17;
    pub const TOO_LATE: u8 = 18;
    pub const REDRIVEN: u8 = 19;
    pub const BACKFILLED: u8 = 20;
    pub const BACKLOG_CLEARED: u8 = 21;
    pub const RESCHEDULED: u8 = 22;
    pub const ZONES_CHANGED: u8 = 23;
    pub const CALENDAR_SET: u8 = 25;
    pub const CALENDAR_REMOVED: u8 = 26;
    pub const CALENDARS_FOLLOWED: u8 = 27;
}

/// One event of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A job was created.
    JobCreated(JobCreated<'a>),
    /// A job's definition was replaced.
    JobReplaced(JobReplaced<'a>),
    /// A job was deleted; an execution in flight is abandoned.
    JobDeleted(JobChange),
    /// A job was paused.
    JobPaused(JobChange),
    /// A job was resumed.
    JobResumed(JobChange),
    /// A finished job was dropped after its retention.
    JobExpired(JobChange),
    /// An execution outside the schedule was asked for.
    Triggered(JobChange),
    /// An attempt was given to a worker.
    Dispatched(Dispatched),
    /// The last attempt of an execution ended well, or as cancelled, without output.
    Completed(AttemptEnd),
    /// The same, with the output that is kept.
    CompletedOutput(AttemptEnd, &'a [u8]),
    /// An attempt failed and another follows, not before the time given.
    AttemptFailed(AttemptEnd, Timestamp, Failure<'a>),
    /// The last attempt failed: the execution is dead.
    DeadLettered(AttemptEnd, Failure<'a>),
    /// Firings came due while an execution was in flight.
    Skipped(Missed),
    /// Firings were missed; one execution stands for them and for the first.
    Misfired(Missed),
    /// A running execution was asked to end.
    CancelRequested(Cancellation),
    /// An execution without a running attempt was cancelled.
    Cancelled(Cancellation),
    /// A worker got its index.
    WorkerSeen(WorkerSeen<'a>),
    /// It was too late to begin an execution.
    TooLate(TooLate),
    /// A dead letter is to be tried again.
    Redriven(Redriven),
    /// Firings of the past are to be made up for.
    Backfilled(Backfilled<'a>),
    /// What was in a job's backlog is not to be executed.
    BacklogCleared(JobChange),
    /// Another zone database puts a job's next firing at another time.
    Rescheduled(JobChange),
    /// Every job's next firing is one of the zone database that is named here.
    ZonesChanged(ZonesChanged),
    /// A calendar was set, or set anew.
    CalendarSet(CalendarSet<'a>),
    /// A calendar was removed.
    CalendarRemoved(CalendarRemoved<'a>),
    /// The next firings of all jobs follow the calendars as they are.
    CalendarsFollowed,
}

impl<'a> Event<'a> {
    /// Appends the event's bytes.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Dispatched(body) => fixed(out, kind::DISPATCHED, &body.to_bytes()),
            Self::Completed(end) => fixed(out, kind::COMPLETED, &end.to_bytes()),
            other => other.encode_cold(out),
        }
    }

    fn encode_cold(&self, out: &mut Vec<u8>) {
        match self {
            Self::Dispatched(_) | Self::Completed(_) => unreachable!("encoded by the caller"),
            Self::JobCreated(body) => variable(out, kind::JOB_CREATED, body),
            Self::JobReplaced(body) => variable(out, kind::JOB_REPLACED, body),
            Self::JobDeleted(body) => fixed(out, kind::JOB_DELETED, &body.to_bytes()),
            Self::JobPaused(body) => fixed(out, kind::JOB_PAUSED, &body.to_bytes()),
            Self::JobResumed(body) => fixed(out, kind::JOB_RESUMED, &body.to_bytes()),
            Self::JobExpired(body) => fixed(out, kind::JOB_EXPIRED, &body.to_bytes()),
            Self::Triggered(body) => fixed(out, kind::TRIGGERED, &body.to_bytes()),
            Self::CompletedOutput(end, output) => {
                fixed(out, kind::COMPLETED_OUTPUT, &end.to_bytes());
                Writer::new(out).bytes(output);
            }
            Self::AttemptFailed(end, retry_at, failure) => {
                fixed(out, kind::ATTEMPT_FAILED, &end.to_bytes());
                failure.write(Writer::new(out).u64(retry_at.as_micros()));
            }
            Self::DeadLettered(end, failure) => {
                fixed(out, kind::DEAD_LETTERED, &end.to_bytes());
                failure.write(&mut Writer::new(out));
            }
            Self::Skipped(body) => fixed(out, kind::SKIPPED, &body.to_bytes()),
            Self::Misfired(body) => fixed(out, kind::MISFIRED, &body.to_bytes()),
            Self::CancelRequested(body) => fixed(out, kind::CANCEL_REQUESTED, &body.to_bytes()),
            Self::Cancelled(body) => fixed(out, kind::CANCELLED, &body.to_bytes()),
            Self::WorkerSeen(body) => variable(out, kind::WORKER_SEEN, body),
            Self::TooLate(body) => fixed(out, kind::TOO_LATE, &body.to_bytes()),
            Self::Redriven(body) => fixed(out, kind::REDRIVEN, &body.to_bytes()),
            Self::Backfilled(body) => variable(out, kind::BACKFILLED, body),
            Self::BacklogCleared(body) => fixed(out, kind::BACKLOG_CLEARED, &body.to_bytes()),
            Self::Rescheduled(body) => fixed(out, kind::RESCHEDULED, &body.to_bytes()),
            Self::ZonesChanged(body) => fixed(out, kind::ZONES_CHANGED, &body.to_bytes()),
            Self::CalendarSet(body) => variable(out, kind::CALENDAR_SET, body),
            Self::CalendarRemoved(body) => variable(out, kind::CALENDAR_REMOVED, body),
            Self::CalendarsFollowed => out.push(kind::CALENDARS_FOLLOWED),
        }
    }

    /// Takes one event from the front of `input`.
    ///
    /// # Errors
    /// When the bytes end within the event, hold an invalid value, or name a kind that this version does not know.
    #[inline]
    pub fn decode(input: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let number = input.u8("event kind")?;
        Ok(match number {
            kind::DISPATCHED => Self::Dispatched(Dispatched::take(input)?),
            kind::COMPLETED => Self::Completed(AttemptEnd::take(input)?),
            kind::COMPLETED_OUTPUT => Self::CompletedOutput(AttemptEnd::take(input)?, input.bytes("output")?),
            kind::JOB_CREATED => Self::JobCreated(Field::read(input, "JobCreated")?),
            kind::JOB_REPLACED => Self::JobReplaced(Field::read(input, "JobReplaced")?),
            kind::JOB_DELETED => Self::JobDeleted(JobChange::take(input)?),
            kind::JOB_PAUSED => Self::JobPaused(JobChange::take(input)?),
            kind::JOB_RESUMED => Self::JobResumed(JobChange::take(input)?),
            kind::JOB_EXPIRED => Self::JobExpired(JobChange::take(input)?),
            kind::TRIGGERED => Self::Triggered(JobChange::take(input)?),
            kind::ATTEMPT_FAILED => {
                let end = AttemptEnd::take(input)?;
                let retry_at = Timestamp::from_micros(input.u64("retry_at")?);
                Self::AttemptFailed(end, retry_at, Field::read(input, "Failure")?)
            }
            kind::DEAD_LETTERED => Self::DeadLettered(AttemptEnd::take(input)?, Field::read(input, "Failure")?),
            kind::SKIPPED => Self::Skipped(Missed::take(input)?),
            kind::MISFIRED => Self::Misfired(Missed::take(input)?),
            kind::CANCEL_REQUESTED => Self::CancelRequested(Cancellation::take(input)?),
            kind::CANCELLED => Self::Cancelled(Cancellation::take(input)?),
            kind::WORKER_SEEN => Self::WorkerSeen(Field::read(input, "WorkerSeen")?),
            kind::TOO_LATE => Self::TooLate(TooLate::take(input)?),
            kind::REDRIVEN => Self::Redriven(Redriven::take(input)?),
            kind::BACKFILLED => Self::Backfilled(Field::read(input, "Backfilled")?),
            kind::BACKLOG_CLEARED => Self::BacklogCleared(JobChange::take(input)?),
            kind::RESCHEDULED => Self::Rescheduled(JobChange::take(input)?),
            kind::ZONES_CHANGED => Self::ZonesChanged(ZonesChanged::take(input)?),
            kind::CALENDAR_SET => Self::CalendarSet(Field::read(input, "CalendarSet")?),
            kind::CALENDAR_REMOVED => Self::CalendarRemoved(Field::read(input, "CalendarRemoved")?),
            kind::CALENDARS_FOLLOWED => Self::CalendarsFollowed,
            unknown => return Err(DecodeError::Invalid { field: "event kind", value: u64::from(unknown) }),
        })
    }
}

#[inline]
fn fixed(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    out.extend_from_slice(body);
}

fn variable<'b>(out: &mut Vec<u8>, kind: u8, body: &impl Field<'b>) {
    out.push(kind);
    body.write(&mut Writer::new(out));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(outcome: AttemptOutcome) -> AttemptEnd {
        AttemptEnd {
            outcome,
            attempt: 2,
            slot: 7,
            fire_sequence: 9,
            worker: 3,
            token: Token(12),
            scheduled_at: Timestamp::from_secs(5),
            delay_us: 40,
            run_us: 50,
            finished_at: Timestamp::from_secs(6),
            reported: true,
        }
    }

    fn every_kind() -> Vec<Event<'static>> {
        let change = JobChange { slot: 1, at: Timestamp::from_secs(2), next_fire: Timestamp::MAX };
        let missed = Missed { slot: 1, count: 4, next_fire: Timestamp::from_secs(9) };
        let cancellation = Cancellation {
            slot: 1,
            fire_sequence: 5,
            at: Timestamp::from_secs(3),
            next_fire: Timestamp::from_secs(9),
            origin: Origin::Trigger,
        };
        let too_late = TooLate {
            slot: 3,
            fire_sequence: 9,
            scheduled_at: Timestamp::from_secs(60),
            at: Timestamp::from_secs(71),
            next_fire: Timestamp::from_secs(120),
            origin: Origin::Schedule,
        };
        let failure = Failure { kind: "Refused", message: "the answer was no" };
        let created = JobCreated {
            slot: 3,
            generation: 1,
            tenant: TenantId(4),
            at: Timestamp::from_secs(1),
            next_fire: Timestamp::from_secs(60),
            idempotency_key: 1 << 100,
            idempotency_until: Timestamp::from_secs(90),
            spec: b"spec",
        };
        let replaced = JobReplaced {
            slot: 3,
            at: Timestamp::from_secs(1),
            next_fire: Timestamp::from_secs(60),
            idempotency_key: 0,
            idempotency_until: Timestamp::EPOCH,
            spec: b"other",
        };
        let dispatched = Dispatched {
            slot: 3,
            attempt: 1,
            worker: 2,
            fire_sequence: 8,
            token: Token(11),
            next_fire: Timestamp::from_secs(61),
            at: Timestamp::from_secs(62),
            origin: Origin::Backlog,
        };
        let redriven = Redriven {
            slot: 3,
            fire_sequence: 8,
            scheduled_at: Timestamp::from_secs(61),
            at: Timestamp::from_secs(99),
        };
        let backfilled = Backfilled { slot: 3, at: Timestamp::from_secs(99), times: &[7; 16] };
        vec![
            Event::JobCreated(created),
            Event::JobReplaced(replaced),
            Event::JobDeleted(change),
            Event::JobPaused(change),
            Event::JobResumed(change),
            Event::JobExpired(change),
            Event::Triggered(change),
            Event::Dispatched(dispatched),
            Event::Completed(end(AttemptOutcome::Succeeded)),
            Event::CompletedOutput(end(AttemptOutcome::Succeeded), b"42"),
            Event::AttemptFailed(end(AttemptOutcome::Failed), Timestamp::from_secs(7), failure),
            Event::DeadLettered(end(AttemptOutcome::TimedOut), failure),
            Event::Skipped(missed),
            Event::Misfired(missed),
            Event::CancelRequested(cancellation),
            Event::Cancelled(cancellation),
            Event::WorkerSeen(WorkerSeen { worker: 1, instance: InstanceId(77), name: "w1" }),
            Event::TooLate(too_late),
            Event::Redriven(redriven),
            Event::Backfilled(backfilled),
            Event::BacklogCleared(change),
            Event::Rescheduled(change),
            Event::ZonesChanged(ZonesChanged { version: u64::MAX / 3 }),
            Event::CalendarSet(CalendarSet { tenant: TenantId(2), name: "holidays", exclusions: "12-25\nSAT,SUN" }),
            Event::CalendarRemoved(CalendarRemoved { tenant: TenantId(2), name: "holidays" }),
            Event::CalendarsFollowed,
        ]
    }

    #[test]
    fn a_run_of_events_decodes_to_what_was_encoded() {
        let mut bytes = Vec::new();
        for event in every_kind() {
            event.encode(&mut bytes);
        }
        let mut input = Reader::new(&bytes);
        for event in every_kind() {
            assert_eq!(Event::decode(&mut input).unwrap(), event);
        }
        input.finish().unwrap();
    }

    #[test]
    fn every_truncation_of_every_kind_is_an_error() {
        for event in every_kind() {
            let mut bytes = Vec::new();
            event.encode(&mut bytes);
            for length in 0..bytes.len() {
                assert!(Event::decode(&mut Reader::new(&bytes[..length])).is_err(), "{event:?} cut to {length}");
            }
        }
    }

    #[test]
    fn unknown_kinds_are_refused() {
        assert!(Event::decode(&mut Reader::new(&[0; 64])).is_err());
        assert!(Event::decode(&mut Reader::new(&[200; 64])).is_err());
    }
}
