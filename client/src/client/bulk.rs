//! The same for many: a filter picks jobs or executions, and each gets its command and its report.
//!
//! What is picked is listed page by page and commanded as it comes, a bounded number side by side; nothing is collected, so that it
//! may be millions. A command names the identity and revision that the list has shown: what has changed since is refused, and stays.
//! A refusal ends nothing but its own command. What would meet every other command as well ends the listing: a node that does
//! not answer, a filter that it refuses. Stopping starts no more commands; those under way are waited for.

use super::{
    Client, ExecutionPager, JobPager, done, encoded,
    request::{InFlight, Sink},
};
use crate::{
    error::RequestError,
    types::{CommandDone, DeadLetterFilter, Execution, ExecutionFilter, Job, JobFilter},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tickwheel_wire::{
    ExecutionId, JobId, Timestamp,
    frame::{
        request::{CancelExecution, ExpectedJob, JobCommand, JobVerb, RedriveExecution},
        session::RefusalCode,
    },
};

/// Commands side by side unless [`Bulk::concurrency`] says otherwise.
const CONCURRENCY_DEFAULT: usize = 64;
/// Most commands side by side.
const CONCURRENCY_MAX: usize = 1_024;

/// What is to be done, and with which jobs or executions. A filter without a tenant means the client's own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BulkAction {
    /// Stops the firing of jobs.
    Pause(JobFilter),
    /// Lets paused jobs fire again, each from its next time on.
    Resume(JobFilter),
    /// Fires jobs now, besides their schedules.
    Trigger(JobFilter),
    /// Forgets jobs, and cancels what runs of them.
    Delete(JobFilter),
    /// Drops what is in the backlogs of jobs.
    ClearBacklog(JobFilter),
    /// Cancels executions in flight.
    Cancel(ExecutionFilter),
    /// Tries dead letters again, of each job the oldest first, as [`Client::redrive`](super::Client::redrive) does with one. Those that a job's
    /// backlog has no room for fail with `overloaded`.
    Redrive(DeadLetterFilter),
}

/// What became of one job or execution.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BulkOutcome {
    /// It would be done; this is a dry run.
    Planned,
    /// It is done, durably.
    Done(CommandDone),
    /// Nothing had to be done: the job was paused, was not paused, or was gone already, the execution had ended, or the dead letter was
    /// redriven already or is remembered no more.
    Unchanged,
    /// It was refused, or it is unknown whether it was done.
    Failed(RequestError),
}

/// One job or execution, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkReport {
    /// The job's tenant.
    pub tenant: String,
    /// The job's name.
    pub job_name: String,
    /// The job's identity.
    pub job: JobId,
    /// The revision of the job that was listed, and that it had to have; none for executions.
    pub revision: Option<u64>,
    /// The execution, when executions are cancelled or redriven.
    pub execution: Option<ExecutionId>,
    /// When the execution was to fire; none: it is a job.
    pub scheduled_at: Option<Timestamp>,
    /// When the job was to fire next as it was listed; none: never, or it is an execution.
    pub next_fire: Option<Timestamp>,
    /// What became of it.
    pub outcome: BulkOutcome,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkProgress {
    /// Reports of [`BulkOutcome::Planned`] and [`BulkOutcome::Done`].
    pub done: u64,
    /// Reports of [`BulkOutcome::Unchanged`].
    pub unchanged: u64,
    /// Reports of [`BulkOutcome::Failed`].
    pub failed: u64,
    /// Parts of the list that could not be had, each with an error of its own.
    pub gaps: u64,
    /// Commands under way.
    pub in_flight: u64,
    /// Whether everything that the filter picks was met. False at the end: it was stopped, or ended by an error.
    pub is_whole: bool,
}

/// Stops a [`Bulk`] from elsewhere.
#[derive(Clone, Debug)]
pub struct BulkStopper(Arc<AtomicBool>);

impl BulkStopper {
    /// No more commands are started; those under way are reported as they end.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Source {
    Jobs(JobVerb, JobPager),
    Running(ExecutionPager),
    DeadLetters(ExecutionPager),
}

/// What will be reported, in the order of the list.
#[derive(Debug)]
enum Entry {
    Gap(RequestError),
    Settled(BulkReport),
    /// The outcome of the report is still to come.
    UnderWay(BulkReport, InFlight),
}

/// The same done with many jobs or executions; see [`Client::bulk`]. What was not yet reported when it is dropped may still be done.
#[derive(Debug)]
pub struct Bulk {
    client: Client,
    source: Source,
    entries: VecDeque<Entry>,
    concurrency: usize,
    dry_run: bool,
    stopped: Arc<AtomicBool>,
    /// More rows are asked for.
    listing: bool,
    /// The list was read to its end.
    is_listed: bool,
    progress: BulkProgress,
}

impl Bulk {
    pub(super) fn new(client: &Client, action: BulkAction) -> Result<Self, RequestError> {
        let own = |tenant: String| if tenant.is_empty() { client.tenant().to_owned() } else { tenant };
        let jobs = |verb, filter: JobFilter| {
            let filter = JobFilter { tenant: own(filter.tenant), ..filter };
            client.list(filter).map(|pager| Source::Jobs(verb, pager))
        };
        let source = match action {
            BulkAction::Pause(filter) => jobs(JobVerb::Pause, filter)?,
            BulkAction::Resume(filter) => jobs(JobVerb::Resume, filter)?,
            BulkAction::Trigger(filter) => jobs(JobVerb::Trigger, filter)?,
            BulkAction::Delete(filter) => jobs(JobVerb::Delete, filter)?,
            BulkAction::ClearBacklog(filter) => jobs(JobVerb::ClearBacklog, filter)?,
            BulkAction::Cancel(filter) => {
                let filter = ExecutionFilter { tenant: own(filter.tenant), in_flight: true, ..filter };
                Source::Running(client.executions(filter)?)
            }
            BulkAction::Redrive(filter) => {
                let filter = DeadLetterFilter { tenant: own(filter.tenant), oldest_first: true, ..filter };
                Source::DeadLetters(client.dead_letters(filter)?)
            }
        };
        Ok(Self {
            client: client.clone(),
            source,
            entries: VecDeque::new(),
            concurrency: CONCURRENCY_DEFAULT,
            dry_run: false,
            stopped: Arc::default(),
            listing: true,
            is_listed: false,
            progress: BulkProgress::default(),
        })
    }

    /// How many commands are under way side by side, 1 to 1,024; what is outside is taken for the nearest of these. Default 64.
    #[must_use]
    pub fn concurrency(mut self, count: usize) -> Self {
        self.concurrency = count.clamp(1, CONCURRENCY_MAX);
        self
    }

    /// Only reports what would be done.
    #[must_use]
    pub const fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Stops it, now or later, from any thread.
    pub fn stopper(&self) -> BulkStopper {
        BulkStopper(Arc::clone(&self.stopped))
    }

    /// How far it is.
    pub fn progress(&self) -> BulkProgress {
        let in_flight = self.entries.iter().filter(|entry| matches!(entry, Entry::UnderWay(..))).count();
        let is_whole = self.is_listed && self.progress.gaps == 0;
        BulkProgress { in_flight: in_flight as u64, is_whole, ..self.progress }
    }

    /// The next report, in the order of the list; none at the end. An error is a part of the list that could not be had.
    ///
    /// Not cancel safe: when the future is dropped while it waits, reports may be missed.
    pub async fn next(&mut self) -> Option<Result<BulkReport, RequestError>> {
        while self.may_start() {
            match self.row().await {
                Some(Ok(report)) => {
                    let entry = self.start(report).await;
                    self.entries.push_back(entry);
                }
                Some(Err(error)) => {
                    self.listing = is_of_one_partition(&error);
                    self.entries.push_back(Entry::Gap(error));
                }
                None => (self.listing, self.is_listed) = (false, true),
            }
        }
        Some(match self.entries.pop_front()? {
            Entry::Gap(error) => {
                self.progress.gaps += 1;
                Err(error)
            }
            Entry::Settled(report) => Ok(self.count(report)),
            Entry::UnderWay(report, answer) => {
                let outcome = self.outcome(answer).await;
                Ok(self.count(BulkReport { outcome, ..report }))
            }
        })
    }

    /// Commands are started as long as rows are at hand; the answers are not kept waiting for the next page.
    fn may_start(&self) -> bool {
        let is_ready = match &self.source {
            Source::Jobs(_, pager) => pager.has_row(),
            Source::Running(pager) | Source::DeadLetters(pager) => pager.has_row(),
        };
        self.listing
            && !self.stopped.load(Ordering::Relaxed)
            && self.entries.len() < self.concurrency
            && (is_ready || self.entries.is_empty())
    }

    /// The next row of the list, as planned or as needing nothing.
    async fn row(&mut self) -> Option<Result<BulkReport, RequestError>> {
        match &mut self.source {
            Source::Jobs(verb, pager) => {
                let verb = *verb;
                pager.next().await.map(|row| row.map(|job| of_job(job, verb)))
            }
            Source::Running(pager) => pager.next().await.map(|row| row.map(of_running)),
            Source::DeadLetters(pager) => {
                pager.next().await.map(|row| row.map(|letter| of_execution(letter, BulkOutcome::Planned)))
            }
        }
    }

    async fn start(&self, report: BulkReport) -> Entry {
        if self.dry_run || report.outcome != BulkOutcome::Planned {
            return Entry::Settled(report);
        }
        let answer = self.command(&report).await;
        Entry::UnderWay(report, answer)
    }

    async fn command(&self, report: &BulkReport) -> InFlight {
        let (job, partition) = (report.job, report.job.partition());
        match &self.source {
            Source::Jobs(verb, _) => {
                let (verb, tenant, name) = (*verb, &*report.tenant, &*report.job_name);
                let expected = ExpectedJob { job, revision: report.revision.unwrap_or_default() };
                let encode = |request_id| encoded(&JobCommand { request_id, partition, verb, tenant, name, expected });
                let repeatable = matches!(verb, JobVerb::Pause | JobVerb::Resume | JobVerb::ClearBacklog);
                self.client.start(partition, repeatable, encode, Sink::Single).await
            }
            Source::Running(_) => {
                let fire_sequence = report.execution.map(|id| id.fire_sequence).unwrap_or_default();
                let encode = |request_id| encoded(&CancelExecution { request_id, partition, job, fire_sequence });
                self.client.start(partition, true, encode, Sink::Single).await
            }
            // Commands of one partition take effect in the order in which they are sent, and a letter that was redriven is none any more: so
            // the order of the list stays, and what is sent twice is done once.
            Source::DeadLetters(_) => {
                let fire_sequence = report.execution.map(|id| id.fire_sequence).unwrap_or_default();
                let encode = |request_id| encoded(&RedriveExecution { request_id, partition, job, fire_sequence });
                self.client.start(partition, true, encode, Sink::Single).await
            }
        }
    }

    async fn outcome(&mut self, answer: InFlight) -> BulkOutcome {
        match answer.answer().await.and_then(done) {
            Ok(done) => BulkOutcome::Done(done),
            Err(error) if self.is_so_already(&error) => BulkOutcome::Unchanged,
            Err(error) => {
                self.listing &= matches!(error, RequestError::Refused(_) | RequestError::Disconnected);
                BulkOutcome::Failed(error)
            }
        }
    }

    /// Whether the refusal says that what was asked for is so.
    fn is_so_already(&self, error: &RequestError) -> bool {
        match (&self.source, error.refusal_code()) {
            (Source::Jobs(JobVerb::Delete, _), code) => code == Some(RefusalCode::UnknownJob),
            (Source::Jobs(..), _) => false,
            (Source::DeadLetters(_), code) => code == Some(RefusalCode::UnknownExecution),
            (Source::Running(_), code) => {
                matches!(code, Some(RefusalCode::UnknownJob | RefusalCode::UnknownExecution))
            }
        }
    }

    fn count(&mut self, report: BulkReport) -> BulkReport {
        let count = match report.outcome {
            BulkOutcome::Planned | BulkOutcome::Done(_) => &mut self.progress.done,
            BulkOutcome::Unchanged => &mut self.progress.unchanged,
            BulkOutcome::Failed(_) => &mut self.progress.failed,
        };
        *count += 1;
        report
    }
}

/// Whether other partitions may well answer.
fn is_of_one_partition(error: &RequestError) -> bool {
    matches!(error.refusal_code(), Some(RefusalCode::NotOwner | RefusalCode::Overloaded))
}

fn of_job(job: Job, verb: JobVerb) -> BulkReport {
    let is_so_already = matches!((verb, job.paused), (JobVerb::Pause, true) | (JobVerb::Resume, false));
    BulkReport {
        tenant: job.definition.tenant,
        job_name: job.definition.name,
        job: job.id,
        revision: Some(job.revision),
        execution: None,
        scheduled_at: None,
        next_fire: job.next_fire,
        outcome: if is_so_already { BulkOutcome::Unchanged } else { BulkOutcome::Planned },
    }
}

fn of_running(execution: Execution) -> BulkReport {
    let outcome = if execution.cancel_requested { BulkOutcome::Unchanged } else { BulkOutcome::Planned };
    of_execution(execution, outcome)
}

fn of_execution(execution: Execution, outcome: BulkOutcome) -> BulkReport {
    BulkReport {
        tenant: execution.tenant,
        job_name: execution.job_name,
        job: execution.id.job,
        revision: None,
        execution: Some(execution.id),
        scheduled_at: Some(execution.scheduled_at),
        next_fire: None,
        outcome,
    }
}
