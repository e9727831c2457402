//! What clients ask, and what they are told.
//!
//! Every request begins with its id and the partition that it concerns: `hash(tenant, name)` for one job, the id's own partition
//! for an execution, each in turn for a list. See [`crate::partition_of`].

use super::{skippable_frame, variable_frame};
use crate::{
    DecodeError, FireSequence, JobId, PartitionId, Reader, Timestamp, Token, Writer,
    job::JobStates,
    layout::{trailing_layout, variable_layout, wire_enum},
};

wire_enum! {
    /// What a submission does when the job's name is taken.
    pub enum SubmitMode: u8 {
        /// Refuses.
        Create = 0 => "create",
        /// Replaces the definition, creates the job when there is none.
        Upsert = 1 => "upsert",
    }
}

variable_layout! {
    /// Creates or replaces a job. Answer: [`Submitted`].
    pub struct SubmitJob<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// `partition_of(tenant, name)`.
        pub partition: PartitionId,
        /// What to do when the name is taken.
        pub mode: SubmitMode,
        /// With `upsert`: the revision that the job must have; 0: any, or none.
        pub expected_revision: u64,
        /// Submissions with the same key within the window are one; at most 64 bytes, empty: none.
        pub idempotency_key: &'a [u8],
        /// How long the key is remembered, in milliseconds; 0: the default of 24 h.
        pub idempotency_window_ms: u32,
        /// A [`crate::job::JobSpec`].
        pub spec: &'a [u8],
    }
}

wire_enum! {
    /// What to do with a job.
    pub enum JobVerb: u8 {
        /// Stop firing.
        Pause = 1 => "pause",
        /// Fire again, from the next time on.
        Resume = 2 => "resume",
        /// Fire now, besides the schedule.
        Trigger = 3 => "trigger",
        /// Forget the job; what runs is cancelled.
        Delete = 4 => "delete",
        /// Drop the job's backlog.
        ClearBacklog = 5 => "clear-backlog",
    }
}

variable_layout! {
    /// Does something with one job. Answer: [`Done`].
    pub struct JobCommand<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// `partition_of(tenant, name)`.
        pub partition: PartitionId,
        /// What to do.
        pub verb: JobVerb,
        /// The job's tenant.
        pub tenant: &'a str,
        /// The job's name.
        pub name: &'a str,
        /// Which job is meant, where the name alone is not enough.
        pub expected: ExpectedJob,
    }
}

trailing_layout! {
    /// What the job of this name has to be for something to be done with it; else the answer is `revision-conflict`.
    pub struct ExpectedJob {
        /// Its identity.
        pub job: JobId,
        /// Its revision; 0: nothing is expected, of the identity neither.
        pub revision: u64,
    }
}

variable_layout! {
    /// Asks for one job. Answer: [`JobView`].
    pub struct JobByName<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// `partition_of(tenant, name)`.
        pub partition: PartitionId,
        /// The job's tenant.
        pub tenant: &'a str,
        /// The job's name.
        pub name: &'a str,
    }
}

variable_layout! {
    /// Asks for a page of the jobs of one partition. Answer: a [`JobView`] for each, then [`PageEnd`].
    pub struct ListJobs<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The partition.
        pub partition: PartitionId,
        /// Only this tenant's; empty: all that the identity may see.
        pub tenant: &'a str,
        /// Only names that begin so.
        pub prefix: &'a str,
        /// 0 for the first page, then [`PageEnd::cursor`].
        pub cursor: u64,
        /// Most jobs in the page, 1 to 256.
        pub limit: u16,
        /// Which of these jobs.
        pub selection: JobSelection<'a>,
    }
}

trailing_layout! {
    /// Which jobs a list shows.
    pub struct JobSelection<'a> {
        /// Only jobs whose labels this [`crate::job::LabelSelector`] admits; empty: all.
        pub labels: &'a str,
        /// Only jobs that have one of these states; none: all.
        pub states: JobStates,
    }
}

variable_layout! {
    /// Asks for a page of the executions that one partition remembers: those in flight, then the newest finished ones.
    /// Answer: an [`ExecutionView`] for each, then [`PageEnd`].
    pub struct ListExecutions<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The partition.
        pub partition: PartitionId,
        /// Only this tenant's; empty: all that the identity may see.
        pub tenant: &'a str,
        /// Only this job's; empty: all.
        pub name: &'a str,
        /// 0 for the first page, then [`PageEnd::cursor`].
        pub cursor: u64,
        /// Most executions in the page, 1 to 256.
        pub limit: u16,
        /// Which of these executions.
        pub selection: ExecutionSelection<'a>,
    }
}

trailing_layout! {
    /// Which executions a list shows.
    pub struct ExecutionSelection<'a> {
        /// Only executions of jobs whose names begin so.
        pub prefix: &'a str,
        /// Only executions of jobs that exist and whose labels this [`crate::job::LabelSelector`] admits; empty: all.
        pub labels: &'a str,
        /// Only those in flight.
        pub in_flight: bool,
    }
}

variable_layout! {
    /// Asks for one execution's newest attempt. Answer: [`ExecutionView`].
    pub struct ExecutionById {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The job's partition.
        pub partition: PartitionId,
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
    }
}

variable_layout! {
    /// Cancels an execution in flight. Answer: [`Done`], once the wish is durable.
    pub struct CancelExecution {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The job's partition.
        pub partition: PartitionId,
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
    }
}

variable_layout! {
    /// Asks for a page of the dead letters that one partition remembers, the newest first unless asked otherwise. Answer: an [`ExecutionView`] for each,
    /// then [`PageEnd`].
    pub struct ListDeadLetters<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The partition.
        pub partition: PartitionId,
        /// Only this tenant's; empty: all that the identity may see.
        pub tenant: &'a str,
        /// Only those of jobs whose names begin so.
        pub prefix: &'a str,
        /// 0 for the first page, then [`PageEnd::cursor`].
        pub cursor: u64,
        /// Most executions in the page, 1 to 256.
        pub limit: u16,
        /// Which of these dead letters, and in which order.
        pub selection: LetterSelection<'a>,
    }
}

trailing_layout! {
    /// Which dead letters a list shows, and in which order.
    pub struct LetterSelection<'a> {
        /// Only those of jobs that exist and whose labels this [`crate::job::LabelSelector`] admits; empty: all.
        pub labels: &'a str,
        /// Only those of jobs that exist and have one of these states; none: all.
        pub states: JobStates,
        /// Only those whose last attempt ended at this time or later.
        pub since: Timestamp,
        /// Only those whose last attempt ended before this time; 0: all.
        pub until: Timestamp,
        /// Only those whose error has this name, or that ended in the state of this name without one; empty: all.
        pub error: &'a str,
        /// The oldest first, so that they can be tried again in the order in which they failed.
        pub oldest_first: bool,
    }
}

variable_layout! {
    /// Puts a dead letter into its job's backlog, to be tried again as a new execution. Answer: [`Done`].
    pub struct RedriveExecution {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The job's partition.
        pub partition: PartitionId,
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
    }
}

variable_layout! {
    /// Puts firings of the past into a job's backlog, as many as there is room for. Answer: [`BackfillTaken`].
    pub struct BackfillJob<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// `partition_of(tenant, name)`.
        pub partition: PartitionId,
        /// The job's tenant.
        pub tenant: &'a str,
        /// The job's name.
        pub name: &'a str,
        /// Firings from this time on ...
        pub from: Timestamp,
        /// ... and before this one, as far as they are past.
        pub until: Timestamp,
        /// Whether to count only.
        pub dry_run: bool,
    }
}

variable_layout! {
    /// Sets a calendar of one partition, which the jobs there follow that name it. Answer: [`Done`], without a job.
    pub struct SetCalendar<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The partition; a calendar that all jobs are to follow is set in each.
        pub partition: PartitionId,
        /// Its tenant.
        pub tenant: &'a str,
        /// Its name, at most [`crate::limits::CALENDAR_NAME_BYTES_MAX`] bytes.
        pub name: &'a str,
        /// Its entries, as in [`crate::job::JobSpec::exclusions`], but none that names a calendar.
        pub exclusions: &'a str,
    }
}

variable_layout! {
    /// Removes a calendar of one partition; jobs that name it are not kept from firing by it any more. Answer: [`Done`], without a job.
    pub struct RemoveCalendar<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The partition.
        pub partition: PartitionId,
        /// Its tenant.
        pub tenant: &'a str,
        /// Its name.
        pub name: &'a str,
    }
}

variable_layout! {
    /// Asks for a page of the calendars of one partition, by tenant and name. Answer: a [`CalendarView`] for each, then [`PageEnd`].
    pub struct ListCalendars<'a> {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The partition.
        pub partition: PartitionId,
        /// Only this tenant's; empty: all that the identity may see.
        pub tenant: &'a str,
        /// 0 for the first page, then [`PageEnd::cursor`].
        pub cursor: u64,
        /// Most calendars in the page, 1 to 256.
        pub limit: u16,
    }
}

variable_layout! {
    /// A calendar.
    pub struct CalendarView<'a> {
        /// The request.
        pub request_id: u64,
        /// Its tenant.
        pub tenant: &'a str,
        /// Its name.
        pub name: &'a str,
        /// Its entries.
        pub exclusions: &'a str,
    }
}

variable_layout! {
    /// Watches executions of one partition: an [`ExecutionView`] with this request id at each transition, until [`Unwatch`],
    /// the session's end, or a [`super::session::Refused`] with `watch-overrun`. First answer: [`Done`].
    pub struct Watch<'a> {
        /// Chosen by the sender, carried by every transition.
        pub request_id: u64,
        /// The partition.
        pub partition: PartitionId,
        /// The tenant; empty: all that the identity may see.
        pub tenant: &'a str,
        /// Only this job; empty: all of the tenant.
        pub name: &'a str,
    }
}

variable_layout! {
    /// Ends a watch. Answer: [`Done`].
    pub struct Unwatch {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
        /// The partition.
        pub partition: PartitionId,
        /// The request id of the watch.
        pub watch: u64,
    }
}

variable_layout! {
    /// Asks what the session's own shard has counted since its start; for admins. Answer: [`Counters`].
    pub struct ReadCounters {
        /// Chosen by the sender, echoed in the answer.
        pub request_id: u64,
    }
}

variable_layout! {
    /// What a shard has counted since its start.
    pub struct Counters<'a> {
        /// The request.
        pub request_id: u64,
        /// The shard.
        pub shard: u16,
        /// For each counter its name (as a string field) and its value (`u64`), in no particular order.
        pub counters: &'a [u8],
    }
}

impl<'a> Counters<'a> {
    /// Appends a counter to the bytes of [`Counters::counters`].
    pub fn push(counters: &mut Vec<u8>, name: &str, value: u64) {
        Writer::new(counters).str(name).u64(value);
    }

    /// The counters by name.
    ///
    /// # Errors
    /// When the bytes end within a counter.
    pub fn entries(&self) -> impl Iterator<Item = Result<(&'a str, u64), DecodeError>> {
        let mut input = Reader::new(self.counters);
        std::iter::from_fn(move || {
            if input.is_empty() {
                return None;
            }
            let mut next = || Ok((input.str("name")?, input.u64("value")?));
            let entry: Result<_, DecodeError> = next();
            if entry.is_err() {
                input = Reader::new(&[]);
            }
            Some(entry)
        })
    }
}

variable_layout! {
    /// The job is durable.
    pub struct Submitted {
        /// The request.
        pub request_id: u64,
        /// The job's identity.
        pub job: JobId,
        /// Grows with each change of the definition, from 1.
        pub revision: u64,
        /// Next fire; [`Timestamp::MAX`]: never.
        pub next_fire: Timestamp,
        /// Whether the job is new.
        pub created: bool,
    }
}

variable_layout! {
    /// What was asked is done and durable.
    pub struct Done {
        /// The request.
        pub request_id: u64,
        /// The job concerned; 0 where there is none.
        pub job: JobId,
        /// Next fire; [`Timestamp::MAX`]: never.
        pub next_fire: Timestamp,
    }
}

variable_layout! {
    /// Firings of the past are in the job's backlog, durably; or could be, if only they were to be counted.
    pub struct BackfillTaken {
        /// The request.
        pub request_id: u64,
        /// The job.
        pub job: JobId,
        /// How many; for what was only to be counted at most 1,000.
        pub count: u32,
        /// All firings before this time that are past are among them: the request's `until`, or an earlier one if there was no room for more.
        pub until: Timestamp,
        /// How many executions are in the job's backlog now.
        pub backlog: u32,
    }
}

wire_enum! {
    /// How an execution stands or ended.
    pub enum ExecutionState: u8 {
        /// No execution yet.
        None = 0 => "none",
        /// An attempt is with a worker.
        Running = 1 => "running",
        /// Waits for its next attempt.
        Retrying = 2 => "retrying",
        /// Ended well.
        Succeeded = 3 => "succeeded",
        /// The attempt failed. Of an execution: it failed for good and is a dead letter.
        Failed = 4 => "failed",
        /// Cancelled.
        Cancelled = 5 => "cancelled",
        /// The attempt ran longer than its time-out, or was silent for too long.
        TimedOut = 6 => "timed-out",
        /// The attempt's worker was lost.
        WorkerLost = 7 => "worker-lost",
        /// Never begun: it was later than the job's schedule-to-start limit.
        TooLate = 8 => "too-late",
    }
}

variable_layout! {
    /// One job as it stands.
    pub struct JobView<'a> {
        /// The request.
        pub request_id: u64,
        /// The job's identity.
        pub job: JobId,
        /// Grows with each change of the definition, from 1.
        pub revision: u64,
        /// Whether it is paused.
        pub paused: bool,
        /// When it was created.
        pub created_at: Timestamp,
        /// Next fire; [`Timestamp::MAX`]: never.
        pub next_fire: Timestamp,
        /// The newest firing; 0: none yet.
        pub fire_sequence: FireSequence,
        /// How the newest execution stands or ended.
        pub last_state: ExecutionState,
        /// When the newest attempt ended; 0: none yet.
        pub last_finished_at: Timestamp,
        /// A [`crate::job::JobSpec`].
        pub spec: &'a [u8],
    }
}

variable_layout! {
    /// The end of a page.
    pub struct PageEnd {
        /// The request.
        pub request_id: u64,
        /// For the next page of this partition; [`PageEnd::LAST`]: there is none.
        pub cursor: u64,
    }
}

impl PageEnd {
    /// The cursor after the last page.
    pub const LAST: u64 = u64::MAX;
}

variable_layout! {
    /// One execution: its attempt in flight or its newest one.
    pub struct ExecutionView<'a> {
        /// The request, or the watch.
        pub request_id: u64,
        /// The job.
        pub job: JobId,
        /// Which of its firings.
        pub fire_sequence: FireSequence,
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
        /// When it was to fire.
        pub scheduled_at: Timestamp,
        /// When the attempt was dispatched.
        pub dispatched_at: Timestamp,
        /// When the attempt ended, or the next one starts when retrying; 0 while it runs.
        pub finished_at: Timestamp,
        /// How long the handler ran by the worker's clock, in microseconds.
        pub run_us: u32,
        /// The job's tenant.
        pub tenant: &'a str,
        /// The job's name.
        pub name: &'a str,
        /// Name of the worker.
        pub worker: &'a str,
        /// Name of the error; empty: none.
        pub error: &'a str,
        /// Output, or the error's message; at most 4 KiB are kept.
        pub output: &'a [u8],
    }
}

variable_layout! {
    /// What more there is to say of the view that follows with the same request id. Sent only where there is something, and skipped by peers
    /// that do not know it.
    pub struct Remark<'a> {
        /// The request, or the watch.
        pub request_id: u64,
        /// Of a job: it was paused because so many of its executions failed one after another. Of an execution: its end paused the job so.
        /// 0: neither.
        pub paused_after_failures: u16,
        /// Of a running attempt: what its handler says about it; see [`super::work::ReportStatus`].
        pub status: &'a str,
    }
}

variable_frame! {
    SubmitJob<'a> JobCommand<'a> JobByName<'a> ListJobs<'a> ListExecutions<'a> ExecutionById CancelExecution Watch<'a> Unwatch
    ListDeadLetters<'a> RedriveExecution BackfillJob<'a> BackfillTaken SetCalendar<'a> RemoveCalendar<'a> ListCalendars<'a>
    CalendarView<'a> ReadCounters Counters<'a> Submitted Done JobView<'a> PageEnd ExecutionView<'a>
}

skippable_frame! { Remark<'a> }
