//! What a client is told, as owned values.

use crate::{definition::JobDefinition, error::RequestError};
use std::time::Duration;
use tickwheel_wire::{
    ExecutionId, FireSequence, JobId, Timestamp, Token,
    frame::request::{BackfillTaken, CalendarView, Done, ExecutionState, ExecutionView, JobView, Remark, Submitted},
    job::JobStates,
};

/// A job was created or replaced, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submission {
    /// The job's identity.
    pub job: JobId,
    /// Grows with each change of the definition, from 1.
    pub revision: u64,
    /// Next fire; none: never.
    pub next_fire: Option<Timestamp>,
    /// Whether the job is new.
    pub created: bool,
}

impl From<Submitted> for Submission {
    fn from(frame: Submitted) -> Self {
        let Submitted { job, revision, created, .. } = frame;
        Self { job, revision, next_fire: unless_never(frame.next_fire), created }
    }
}

/// A command took effect, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandDone {
    /// The job concerned.
    pub job: JobId,
    /// Its next fire; none: never.
    pub next_fire: Option<Timestamp>,
}

impl From<Done> for CommandDone {
    fn from(frame: Done) -> Self {
        Self { job: frame.job, next_fire: unless_never(frame.next_fire) }
    }
}

/// Firings of the past went to a job's backlog, durably; or could, if they were only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backfill {
    /// How many.
    pub count: u32,
    /// All firings before this time are among them.
    pub until: Timestamp,
    /// How many executions are in the job's backlog now, at most 1,000.
    pub backlog: u32,
}

impl From<BackfillTaken> for Backfill {
    fn from(frame: BackfillTaken) -> Self {
        Self { count: frame.count, until: frame.until, backlog: frame.backlog }
    }
}

/// A calendar that the server keeps: times at which the jobs that name it do not fire.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calendar {
    /// Whose it is.
    pub tenant: String,
    /// Unique among the tenant's.
    pub name: String,
    /// Its entries, one per line, as in [`JobDefinition::exclusions`].
    pub exclusions: String,
}

impl From<&CalendarView<'_>> for Calendar {
    fn from(frame: &CalendarView<'_>) -> Self {
        Self { tenant: frame.tenant.to_owned(), name: frame.name.to_owned(), exclusions: frame.exclusions.to_owned() }
    }
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// The job's identity.
    pub id: JobId,
    /// Its definition.
    pub definition: JobDefinition,
    /// Grows with each change of the definition, from 1.
    pub revision: u64,
    /// Whether it is paused.
    pub paused: bool,
    /// After how many failures one after another its rules paused it; none: it is not paused, or by request.
    pub paused_after_failures: Option<u16>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Next fire; none: never.
    pub next_fire: Option<Timestamp>,
    /// The newest firing; 0: none yet.
    pub fire_sequence: FireSequence,
    /// How the newest execution stands or ended.
    pub last_state: ExecutionState,
    /// When the newest attempt ended; none yet.
    pub last_finished_at: Option<Timestamp>,
}

impl Job {
    pub(crate) fn from_frame(frame: &JobView<'_>, remark: OwnedRemark) -> Result<Self, RequestError> {
        let definition = JobDefinition::decode(frame.spec)
            .map_err(|error| RequestError::UnexpectedAnswer(format!("the job's definition: {error}")))?;
        Ok(Self {
            id: frame.job,
            definition,
            revision: frame.revision,
            paused: frame.paused,
            paused_after_failures: remark.paused_after_failures,
            created_at: frame.created_at,
            next_fire: unless_never(frame.next_fire),
            fire_sequence: frame.fire_sequence,
            last_state: frame.last_state,
            last_finished_at: unless_zero(frame.last_finished_at),
        })
    }
}

/// One execution: its attempt in flight or its newest one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Execution {
    /// The execution: its job and which of its firings.
    pub id: ExecutionId,
    /// The job's tenant.
    pub tenant: String,
    /// The job's name.
    pub job_name: String,
    /// The attempt's fencing token.
    pub token: Token,
    /// The attempt, from 1.
    pub attempt: u16,
    /// How it stands or ended.
    pub state: ExecutionState,
    /// Whether its cancellation was asked for.
    pub cancel_requested: bool,
    /// Progress as the worker tells it, in thousandths.
    pub progress_permille: u16,
    /// What the handler of the running attempt says about it; empty: nothing.
    pub status: String,
    /// In a watch: the end of the execution was the last of so many failures one after another, after which the job's rules paused it.
    pub paused_job_after_failures: Option<u16>,
    /// When it was to fire.
    pub scheduled_at: Timestamp,
    /// When the attempt was dispatched.
    pub dispatched_at: Timestamp,
    /// When the attempt ended, or the next one starts when retrying; none while it runs.
    pub finished_at: Option<Timestamp>,
    /// How long the handler ran by the worker's clock, to the microsecond.
    pub run_time: Duration,
    /// Name of the worker.
    pub worker: String,
    /// Name of the error; empty: none.
    pub error: String,
    /// Output, or the error's message; at most 4 KiB are kept.
    pub output: Vec<u8>,
}

/// What a node remarks on a view.
#[derive(Debug, Default)]
pub(crate) struct OwnedRemark {
    paused_after_failures: Option<u16>,
    status: String,
}

impl From<&Remark<'_>> for OwnedRemark {
    fn from(frame: &Remark<'_>) -> Self {
        let failures = frame.paused_after_failures;
        Self { paused_after_failures: (failures > 0).then_some(failures), status: frame.status.to_owned() }
    }
}

impl Execution {
    pub(crate) fn from_frame(frame: &ExecutionView<'_>, remark: OwnedRemark) -> Self {
        Self {
            id: ExecutionId { job: frame.job, fire_sequence: frame.fire_sequence },
            tenant: frame.tenant.to_owned(),
            job_name: frame.name.to_owned(),
            token: frame.token,
            attempt: frame.attempt,
            state: frame.state,
            cancel_requested: frame.cancel_requested,
            progress_permille: frame.progress_permille,
            status: remark.status,
            paused_job_after_failures: remark.paused_after_failures,
            scheduled_at: frame.scheduled_at,
            dispatched_at: frame.dispatched_at,
            finished_at: unless_zero(frame.finished_at),
            run_time: Duration::from_micros(frame.run_us.into()),
            worker: frame.worker.to_owned(),
            error: frame.error.to_owned(),
            output: frame.output.to_vec(),
        }
    }
}

/// Which jobs a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only this tenant's; empty: all that the identity may see.
    pub tenant: String,
    /// Only names that begin so; empty: all.
    pub prefix: String,
    /// Only those whose labels meet this selector, as in `team=ops,env!=prod,critical,!legacy`; empty: all. See [`LabelSelector`].
    ///
    /// [`LabelSelector`]: tickwheel_wire::job::LabelSelector
    pub labels: String,
    /// Only those that have one of these states; none: all.
    pub states: JobStates,
}

/// Which dead letters a list shows, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only this tenant's; empty: all that the identity may see.
    pub tenant: String,
    /// Only those of jobs whose names begin so; empty: all.
    pub prefix: String,
    /// Only those of jobs that exist and whose labels meet this selector, as [`JobFilter::labels`]; empty: all.
    pub labels: String,
    /// Only those of jobs that exist and have one of these states; none: all.
    pub states: JobStates,
    /// Only those whose last attempt ended at this time or later.
    pub since: Option<Timestamp>,
    /// Only those whose last attempt ended before this time.
    pub until: Option<Timestamp>,
    /// Only those whose error has this name, or that ended without an error in the state of this name (`timed-out`, `worker-lost`); empty: all.
    pub error: String,
    /// The oldest of each partition first, in place of the newest.
    pub oldest_first: bool,
}

impl From<JobFilter> for DeadLetterFilter {
    /// Those of the jobs that the filter picks.
    fn from(jobs: JobFilter) -> Self {
        let JobFilter { tenant, prefix, labels, states } = jobs;
        Self { tenant, prefix, labels, states, ..Self::default() }
    }
}

/// Which executions a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutionFilter {
    /// Only this tenant's; empty: all that the identity may see, or, with a job, the client's own tenant.
    pub tenant: String,
    /// Only this job's; empty: all.
    pub job: String,
    /// Only those of jobs whose names begin so; empty: all. Not for watches.
    pub prefix: String,
    /// Only those of jobs that exist and whose labels meet this selector, as [`JobFilter::labels`]; empty: all. Not for watches.
    pub labels: String,
    /// Only those in flight. Not for watches.
    pub in_flight: bool,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "hardly any transition is the small one, and each is moved a few times")]
#[non_exhaustive]
pub enum Transition {
    /// An execution changed its state, or its running attempt its status.
    Execution(Execution),
    /// The session was lost and is back: transitions in between were not seen. List the executions to catch up.
    Resumed,
}

fn unless_never(time: Timestamp) -> Option<Timestamp> {
    (!time.is_never()).then_some(time)
}

fn unless_zero(time: Timestamp) -> Option<Timestamp> {
    (time != Timestamp::EPOCH).then_some(time)
}
