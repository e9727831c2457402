//! The end of an attempt, and with its last attempt of an execution.
//!
//! A report counts only with the running attempt's token and from the worker instance that got it. A report of the attempt
//! that ended last, if a report ended it, is acknowledged again and changes nothing: its acknowledgement may have been lost.
//! Tokens grow by one, so that attempt's token is the one before the running one's, or the newest if none runs. Where several executions
//! are in flight, or may be, a report is acknowledged again while its attempt is remembered.

use super::{
    Flag, NONE, Partition, Turn,
    execution::Execution,
    low, micros_between,
    recent::{Attempt, Texts, cut_for_dead_letter},
};
use crate::schedule::{Backoff, retry_delay};
use std::time::Duration;
use tickwheel_wire::{
    InstanceId, JobId, Timestamp, Token,
    event::{AttemptEnd, AttemptOutcome, Event, Failure},
    frame::{request::ExecutionState, work::Outcome},
    job::Overlap,
    limits::OUTPUT_BYTES_MAX,
    planted::Mistake,
};

/// What a worker says about an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report<'a> {
    pub job: JobId,
    pub token: Token,
    pub instance: InstanceId,
    pub outcome: Outcome,
    pub run_us: u32,
    pub error: &'a str,
    pub output: &'a [u8],
    /// Delay before the next attempt, if the worker asks for one of its own.
    pub retry_after: Option<Duration>,
}

/// Why a report does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CompleteError {
    #[error("the job is gone")]
    UnknownJob,
    #[error("the token is not that of the running attempt, or another worker holds it")]
    StaleToken,
}

/// How an attempt ended, before the rules for retries are applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending<'a> {
    pub outcome: AttemptOutcome,
    /// Whether another attempt is pointless.
    pub for_good: bool,
    /// By the worker's report, with its running time.
    pub reported_run_us: Option<u32>,
    pub error: &'a str,
    pub output: &'a [u8],
    /// Instead of the job's own delay before the next attempt.
    pub retry_after: Option<Duration>,
}

impl Ending<'_> {
    /// An end that the server decides on.
    pub const fn by_server(outcome: AttemptOutcome) -> Self {
        Self { outcome, for_good: false, reported_run_us: None, error: "", output: &[], retry_after: None }
    }
}

impl Partition {
    /// Takes a worker's report. `Ok(None)`: it was taken before.
    #[inline]
    pub(crate) fn complete(
        &mut self,
        report: &Report<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Option<Execution>, CompleteError> {
        let slot = self.slot_of(report.job).ok_or(CompleteError::UnknownJob)?;
        let Some(place) = self.running(slot, report.token, report.instance) else {
            let repeated = self.was_reported(slot, report.token);
            return if repeated { Ok(None) } else { Err(CompleteError::StaleToken) };
        };
        let (outcome, for_good) = match report.outcome {
            Outcome::Succeeded => (AttemptOutcome::Succeeded, false),
            Outcome::Failed | Outcome::FailedForNow => (AttemptOutcome::Failed, false),
            Outcome::FailedForGood => (AttemptOutcome::Failed, true),
            Outcome::Cancelled => (AttemptOutcome::Cancelled, false),
            Outcome::TimedOut => (AttemptOutcome::TimedOut, false),
        };
        let output = &report.output[..report.output.len().min(OUTPUT_BYTES_MAX)];
        let (error, reported_run_us, retry_after) = (report.error, Some(report.run_us), report.retry_after);
        let ending = Ending { outcome, for_good, reported_run_us, error, output, retry_after };
        let ended = self.end_attempt(place, &ending, turn);
        Ok(Some(ended))
    }

    /// The execution whose running attempt has this token and was given to `instance`.
    #[inline]
    pub(crate) fn running(&self, slot: u32, token: Token, instance: InstanceId) -> Option<u32> {
        let is_previous = |current: Token| Mistake::PreviousAttemptCompletes.is_made() && current.0 == token.0 + 1;
        let mut in_flight = self.in_flight(slot);
        let (place, execution) = in_flight
            .find(|(_, execution)| execution.token == token || is_previous(execution.token))
            .filter(|(_, execution)| !execution.retrying)?;
        let is_its_worker =
            Mistake::AnyWorkerCompletes.is_made() || self.workers.entry(execution.worker).instance == instance;
        is_its_worker.then_some(place)
    }

    /// Whether the attempt of the job that was given out last runs.
    #[inline]
    pub(super) fn newest_attempt_runs(&self, slot: u32) -> bool {
        let token = self.table.record(slot).token();
        self.in_flight(slot).any(|(_, execution)| execution.token == token && !execution.retrying)
    }

    fn was_reported(&self, slot: u32, token: Token) -> bool {
        let record = self.table.record(slot);
        let mut in_flight = self.in_flight(slot).map(|(_, execution)| execution);
        let crowded = in_flight.next().is_some_and(|newest| newest.older != NONE || newest.token != record.token());
        if crowded || record.is(Flag::RULED) && self.rules(slot).overlap == Overlap::Allow {
            let generation = record.generation();
            let mut newest = self.recent.iter().rev();
            return newest.any(|Attempt { end, generation: of, .. }| {
                (end.slot, of, end.token) == (slot, generation, token) && end.reported
            });
        }
        let running = record.execution != NONE && !self.executions.get(record.execution).retrying;
        let newest_ended = record.token().0 - u64::from(running);
        let is_known = !running || !Mistake::CountedReportStale.is_made();
        record.is(Flag::REPORTED) && is_known && token.0 == newest_ended && token.0 > 0
    }

    /// Ends the attempt that runs of the execution at `place`, and returns its record as it was.
    pub(crate) fn end_attempt(&mut self, place: u32, ending: &Ending<'_>, turn: &mut Turn<'_>) -> Execution {
        let execution = *self.executions.get(place);
        let slot = execution.slot;
        let record = self.table.record(slot);
        let retry = self.policies.value(record.policy).policy.retry;
        let now = turn.now.wall;
        let run_us = ending.reported_run_us.unwrap_or_else(|| micros_between(execution.dispatched_at, now));
        let cancelled = execution.cancel_requested && ending.outcome != AttemptOutcome::Succeeded;
        let end = AttemptEnd {
            outcome: if cancelled { AttemptOutcome::Cancelled } else { ending.outcome },
            attempt: execution.attempt,
            slot,
            fire_sequence: low(execution.fire_sequence.0),
            worker: execution.worker,
            token: execution.token,
            scheduled_at: execution.scheduled_at,
            delay_us: micros_between(execution.scheduled_at, execution.dispatched_at),
            run_us,
            finished_at: now,
            reported: ending.reported_run_us.is_some(),
        };
        let message = text_front(ending.output);
        let failure = Failure { kind: ending.error, message };
        let event = match end.outcome {
            AttemptOutcome::Succeeded | AttemptOutcome::Cancelled if ending.output.is_empty() => Event::Completed(end),
            AttemptOutcome::Succeeded | AttemptOutcome::Cancelled => Event::CompletedOutput(end, ending.output),
            AttemptOutcome::Undelivered => Event::AttemptFailed(end, now, failure),
            _ if ending.for_good || execution.attempt >= retry.attempts_max => Event::DeadLettered(end, failure),
            _ if !self.policy(record).retries(ending.error) => Event::DeadLettered(end, failure),
            _ => {
                let delay = ending.retry_after.unwrap_or_else(|| self.retry_delay_of(&execution));
                Event::AttemptFailed(end, now.saturating_add(delay), failure)
            }
        };
        self.emit(turn.events, &event);
        let goes_on = matches!(event, Event::AttemptFailed(..));
        if !goes_on && self.table.record(slot).is(Flag::RULED) {
            self.pause_failing(slot, turn);
        }
        execution
    }

    /// Pauses a job whose executions fail one after another as often as its rules let them.
    fn pause_failing(&mut self, slot: u32, turn: &mut Turn<'_>) {
        let failures_max = self.rules(slot).pause_after_failures;
        if Mistake::FailingJobGoesOn.is_made() {
            return;
        }
        if failures_max > 0 && self.standings.of(slot).failures >= failures_max {
            self.pause(slot, turn);
        }
    }

    /// The delay before the next attempt; its random part is fixed by job and token.
    fn retry_delay_of(&self, execution: &Execution) -> Duration {
        let slot = execution.slot;
        let retry = self.policy(self.table.record(slot)).retry;
        let backoff = Backoff {
            initial_ms: retry.initial_ms,
            multiplier_milli: retry.multiplier_milli.into(),
            max_ms: retry.delay_ms_max,
            jitter_percent: retry.jitter_percent,
        };
        let seed = tickwheel_wire::mix64(self.job_id(slot).raw() ^ execution.token.0.rotate_left(32));
        retry_delay(&backoff, execution.attempt.into(), seed)
    }

    #[inline]
    pub(super) fn apply_completed(&mut self, end: &AttemptEnd, output: &[u8]) {
        let state = match end.outcome {
            AttemptOutcome::Cancelled => ExecutionState::Cancelled,
            _ => ExecutionState::Succeeded,
        };
        match state {
            ExecutionState::Cancelled => self.counters.cancelled += 1,
            _ => self.counters.succeeded += 1,
        }
        self.remember_attempt(end, Timestamp::EPOCH, false, &Texts { output, ..Texts::default() });
        self.end_execution(end, state);
    }

    pub(super) fn apply_attempt_failed(&mut self, end: &AttemptEnd, retry_at: Timestamp, failure: &Failure<'_>) {
        let texts = Texts { error: failure.kind, output: failure.message.as_bytes(), ..Texts::default() };
        self.remember_attempt(end, retry_at, false, &texts);
        let place = self.place_of(end.slot, end.fire_sequence).expect("what fails is in flight");
        let execution = self.executions.get_mut(place);
        assert_eq!(execution.token, end.token, "only the newest attempt of an execution can end");
        execution.retrying = true;
        execution.retry_at = retry_at;
        execution.worker = u16::MAX;
        execution.volatile = Default::default();
        if end.outcome == AttemptOutcome::Undelivered || Mistake::FailedAttemptNotCounted.is_made() {
            execution.attempt -= 1;
        } else {
            self.counters.failed_attempts += 1;
        }
        self.workers.release(end.worker);
        if Mistake::TokenReused.is_made() && end.outcome == AttemptOutcome::Undelivered {
            self.change(end.slot).set_token(Token(end.token.0 - 1));
        }
    }

    pub(super) fn apply_dead_lettered(&mut self, end: &AttemptEnd, failure: &Failure<'_>) {
        self.counters.failed_attempts += 1;
        self.counters.dead += 1;
        let texts = Texts { error: failure.kind, output: failure.message.as_bytes(), ..Texts::default() };
        self.remember_attempt(end, Timestamp::EPOCH, true, &texts);
        let record = self.table.record(end.slot);
        let tenant = &self.policies.value(record.policy).policy.tenant_name;
        let name = self.arena.entry(record.data).name;
        let output = cut_for_dead_letter(texts.output);
        let texts = Texts { error: failure.kind, output, tenant, name };
        let letter = Attempt { end: *end, generation: record.generation(), retry_at: 0, dead: true, texts };
        self.dead_letters.push(&letter);
        let state = match end.outcome {
            AttemptOutcome::TimedOut => ExecutionState::TimedOut,
            AttemptOutcome::WorkerLost => ExecutionState::WorkerLost,
            _ => ExecutionState::Failed,
        };
        self.end_execution(end, state);
    }

    #[inline]
    fn end_execution(&mut self, end: &AttemptEnd, state: ExecutionState) {
        self.workers.release(end.worker);
        let record = self.change(end.slot);
        record.set_last_state(state);
        if record.is(Flag::RULED) {
            self.end_ruled(end.slot, end.finished_at, Some(state));
        }
        let place = self.place_of(end.slot, end.fire_sequence).expect("what ends is in flight");
        let ended = self.end_in_flight(end.slot, place);
        assert_eq!(ended.token, end.token, "only the newest attempt of an execution can end");
        self.settle(end.slot, end.finished_at);
    }

    /// Notes the end of an attempt in the job and in the ring.
    #[inline]
    fn remember_attempt(&mut self, end: &AttemptEnd, retry_at: Timestamp, dead: bool, texts: &Texts<'_>) {
        let newest = self.table.record(end.slot).token();
        // The flag speaks of the newest attempt, or, while that runs, of the one before.
        let is_meant = end.token == newest || (end.token.0 + 1 == newest.0 && self.newest_attempt_runs(end.slot));
        let record = self.change(end.slot);
        if is_meant {
            record.set(Flag::REPORTED, end.reported);
        }
        record.finished_secs = low(end.finished_at.as_micros() / 1_000_000);
        let (generation, retry_at) = (record.generation(), retry_at.as_micros());
        self.recent.push(&Attempt { end: *end, generation, retry_at, dead, texts: *texts });
    }
}

/// The longest front of `bytes` that is UTF-8.
fn text_front(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to there"),
    }
}
