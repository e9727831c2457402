//! What a job has to make up for: dead letters and firings of the past.

use super::{
    Client, bounded, check_selector, done, encoded,
    pager::{self, ExecutionPager, Pager},
    request::{Reply, Sink},
    unexpected,
};
use crate::{
    error::RequestError,
    types::{Backfill, CommandDone, DeadLetterFilter},
};
use tickwheel_wire::{
    ExecutionId, Timestamp,
    frame::request::{BackfillJob, JobVerb, LetterSelection, ListDeadLetters, RedriveExecution},
    limits,
};

impl Client {
    /// Lists the dead letters that the node remembers and the filter picks, by partition, the newest of each first unless it says otherwise:
    /// executions whose last attempt failed. Those that were redriven are none any more.
    ///
    /// # Errors
    /// [`RequestError::TooLong`] when the filter is longer than any name, [`RequestError::Filter`] when it means nothing.
    pub fn dead_letters(&self, filter: DeadLetterFilter) -> Result<ExecutionPager, RequestError> {
        bounded("tenant", &filter.tenant, limits::TENANT_NAME_BYTES_MAX)?;
        bounded("prefix", &filter.prefix, limits::JOB_NAME_BYTES_MAX)?;
        bounded("error", &filter.error, limits::ERROR_NAME_BYTES_MAX)?;
        check_selector(&filter.labels)?;
        if filter.until == Some(Timestamp::EPOCH) {
            let problem = "nothing ended before 1970".to_owned();
            return Err(RequestError::Filter { field: "until", problem });
        }
        let encode = move |request_id, partition, cursor| {
            let (tenant, prefix, limit) = (&*filter.tenant, &*filter.prefix, pager::PAGE_ENTRIES);
            let selection = LetterSelection {
                labels: &filter.labels,
                states: filter.states,
                since: filter.since.unwrap_or_default(),
                until: filter.until.unwrap_or_default(),
                error: &filter.error,
                oldest_first: filter.oldest_first,
            };
            encoded(&ListDeadLetters { request_id, partition, tenant, prefix, cursor, limit, selection })
        };
        let rows = |reply| match reply {
            Reply::Executions(rows, cursor) => Some((rows, cursor)),
            _ => None,
        };
        let kind = pager::Kind { encode: Box::new(encode), sink: |answer| Sink::Executions(Vec::new(), answer), rows };
        Ok(Pager::new(self.clone(), kind, self.partitions()))
    }

    /// Tries a dead letter again, as a new execution with the same scheduled time: it goes to the end of its job's backlog, whose executions
    /// begin one after another when nothing else of the job is due.
    ///
    /// # Errors
    /// A refusal `unknown-execution` when it is no dead letter, or was redriven; `overloaded` when the backlog is full;
    /// [`RequestError::Disconnected`] when the session was lost before the answer.
    pub async fn redrive(&self, id: ExecutionId) -> Result<CommandDone, RequestError> {
        let ExecutionId { job, fire_sequence } = id;
        let partition = job.partition();
        let encode = |request_id| encoded(&RedriveExecution { request_id, partition, job, fire_sequence });
        done(self.ask(partition, false, encode).await?)
    }

    /// Executes the firings from `from` on and before `until` that are past, whether they were executed at their time or not: they go to the
    /// end of the job's backlog, as many as it has room for (1,000 in all). The answer says how far that is; ask again from there on
    /// for the others, once some have begun. With `dry_run` they are only counted, up to 1,000.
    ///
    /// # Errors
    /// A refusal `unknown-job`, or `invalid-field` when `from` is not before `until`, or for a job that counts from the end of its
    /// executions; [`RequestError::Disconnected`] when the session was lost before the answer.
    pub async fn backfill(
        &self,
        name: &str,
        from: Timestamp,
        until: Timestamp,
        dry_run: bool,
    ) -> Result<Backfill, RequestError> {
        let (tenant, partition) = self.locate(name)?;
        let encode = |request_id| encoded(&BackfillJob { request_id, partition, tenant, name, from, until, dry_run });
        match self.ask(partition, dry_run, encode).await? {
            Reply::Backfill(backfill) => Ok(backfill),
            other => Err(unexpected(&other)),
        }
    }

    /// Drops what is in a job's backlog; an execution of it that runs goes on.
    ///
    /// # Errors
    /// A refusal `unknown-job`, and what every request may meet.
    pub async fn clear_backlog(&self, name: &str) -> Result<CommandDone, RequestError> {
        self.command(name, JobVerb::ClearBacklog, true).await
    }
}
