//! Looking at jobs and executions. Nothing here changes anything.

use super::{
    Flag, JobRecord, NONE, Partition,
    arena::Entry,
    execution::Execution,
    low,
    policy::Timing,
    recent::{Attempt, Recent},
};
use tickwheel_wire::{
    FireSequence, JobId, TenantId, Timestamp,
    event::AttemptOutcome,
    frame::request::{ExecutionState, ExecutionView, JobView},
    job::{JobSpec, JobState, JobStates, ScheduleList, ScheduleSpec},
};

impl Partition {
    /// The definition of a job; anchors and times are resolved.
    pub(crate) fn spec_of(&self, record: &JobRecord) -> JobSpec<'_> {
        let policy = &self.policies.value(record.policy).policy;
        let entry = self.arena.entry(record.data);
        let own = Timestamp::from_micros(entry.parameter.unwrap_or(entry.created_at));
        let only = |schedule| (schedule, ScheduleList::default());
        let (schedule, also) = match &self.rhythms.value(record.schedule).timing {
            Timing::Cron { expression, zone, .. } => {
                only(ScheduleSpec::Cron { expression: policy.hashed.as_deref().unwrap_or(expression), zone })
            }
            Timing::Every { every_us } => only(ScheduleSpec::Interval { every_us: *every_us, anchor: own }),
            Timing::Once => only(ScheduleSpec::Once { at: own }),
            Timing::FixedDelay { delay_us } => only(ScheduleSpec::FixedDelay { delay_us: *delay_us }),
            Timing::Several(several) => several.parts(),
        };
        JobSpec {
            tenant: &policy.tenant_name,
            name: entry.name,
            handler: &policy.handler,
            schedule,
            also,
            exclusions: policy.exclusions.as_ref().map_or("", |excluded| &excluded.text),
            payload: entry.payload,
            pool: &policy.pool,
            priority: policy.priority,
            retry: policy.retry,
            start_to_close_ms: policy.start_to_close_ms,
            heartbeat_ms: policy.heartbeat_ms,
            non_retryable: &policy.non_retryable,
            rules: policy.rules,
            paused: record.is(Flag::PAUSED),
            labels: &policy.labels,
        }
    }

    /// Name and payload of the job with this record.
    #[inline]
    pub(crate) fn entry(&self, record: &JobRecord) -> Entry<'_> {
        self.arena.entry(record.data)
    }

    /// The job in `slot`, which exists; its definition is encoded into `spec`.
    pub(crate) fn job_view<'a>(&self, slot: u32, request_id: u64, spec: &'a mut Vec<u8>) -> JobView<'a> {
        let record = self.table.record(slot);
        let entry = self.arena.entry(record.data);
        spec.clear();
        self.spec_of(record).encode(spec);
        JobView {
            request_id,
            job: self.job_id(slot),
            revision: entry.revision.into(),
            paused: record.is(Flag::PAUSED),
            created_at: Timestamp::from_micros(entry.created_at),
            next_fire: record.next_fire(),
            fire_sequence: FireSequence(record.fire_sequence()),
            last_state: self.last_state(record),
            last_finished_at: self.last_finished(slot, record),
            spec,
        }
    }

    /// How the job with this record stands, as lists pick it.
    pub(crate) fn states_of(&self, record: &JobRecord) -> JobStates {
        use ExecutionState::{Failed, TimedOut, TooLate, WorkerLost};
        let (paused, running) = (record.is(Flag::PAUSED), record.execution != NONE);
        let comes = !record.next_fire().is_never() || record.is(Flag::ASKED_FOR);
        let active = !paused && (running || comes);
        let failing = matches!(record.last_state(), Failed | TimedOut | WorkerLost | TooLate);
        JobStates::NONE
            .with_if(paused, JobState::Paused)
            .with_if(active, JobState::Active)
            .with_if(running, JobState::Running)
            .with_if(failing, JobState::Failing)
            .with_if(!paused && !active, JobState::Finished)
    }

    /// After how many failures one after another the job in `slot`, which exists, was paused by its rules; 0: it is not paused, or by request.
    ///
    /// Follows from the count, which stands still while a job is paused: by its rules at their limit, by request below it.
    pub(crate) fn paused_after_failures(&self, slot: u32) -> u16 {
        let record = self.table.record(slot);
        if !record.is(Flag::PAUSED) || !record.is(Flag::RULED) {
            return 0;
        }
        let (failures, failures_max) = (self.standings.of(slot).failures, self.rules(slot).pause_after_failures);
        if failures_max > 0 && failures >= failures_max { failures } else { 0 }
    }

    fn last_state(&self, record: &JobRecord) -> ExecutionState {
        let mut in_flight = self.executions.of_job(record.execution).map(|(_, execution)| execution.retrying);
        match in_flight.next() {
            None => record.last_state(),
            Some(newest) if newest && in_flight.all(|retrying| retrying) => ExecutionState::Retrying,
            Some(_) => ExecutionState::Running,
        }
    }

    /// To the microsecond while the attempt is remembered, else to the second.
    fn last_finished(&self, slot: u32, record: &JobRecord) -> Timestamp {
        let to_second = Timestamp::from_secs(record.finished_secs.into());
        let newest = self.newest_ended_of(slot, record.generation());
        newest.map_or(to_second, |attempt| attempt.end.finished_at.max(to_second))
    }

    /// The execution at `place`, which is in flight.
    pub(crate) fn view_in_flight(&self, place: u32, request_id: u64) -> ExecutionView<'_> {
        let execution = self.executions.get(place);
        let record = self.table.record(execution.slot);
        let worker = self.workers.get(execution.worker).map_or("", |worker| &worker.name);
        let retrying = execution.retrying;
        let newest = retrying.then(|| self.newest_attempt(execution, record.generation())).flatten();
        let texts = newest.map(|attempt| attempt.texts).unwrap_or_default();
        ExecutionView {
            request_id,
            job: self.job_id(execution.slot),
            fire_sequence: execution.fire_sequence,
            token: execution.token,
            attempt: execution.attempt,
            state: if retrying { ExecutionState::Retrying } else { ExecutionState::Running },
            cancel_requested: execution.cancel_requested,
            progress_permille: execution.volatile.progress_permille,
            scheduled_at: execution.scheduled_at,
            dispatched_at: execution.dispatched_at,
            finished_at: if retrying { execution.retry_at } else { Timestamp::EPOCH },
            run_us: newest.map_or(0, |attempt| attempt.end.run_us),
            tenant: &self.policies.value(record.policy).policy.tenant_name,
            name: self.arena.entry(record.data).name,
            worker,
            error: texts.error,
            output: texts.output,
        }
    }

    /// The job's newest attempt that ended.
    pub(super) fn newest_ended_of(&self, slot: u32, generation: u32) -> Option<Attempt<'_>> {
        self.recent.iter().rev().find(|attempt| is_of(attempt, slot, generation))
    }

    fn newest_attempt(&self, execution: &Execution, generation: u32) -> Option<Attempt<'_>> {
        let fire_sequence = low(execution.fire_sequence.0);
        let mut newest = self.recent.iter().rev();
        newest.find(|attempt| is_of(attempt, execution.slot, generation) && attempt.end.fire_sequence == fire_sequence)
    }

    /// An attempt that ended.
    pub(crate) fn view_ended<'a>(&'a self, attempt: &Attempt<'a>, request_id: u64) -> ExecutionView<'a> {
        let end = attempt.end;
        let texts = attempt.texts;
        let job = JobId::new(self.id, attempt.generation, end.slot);
        let alive = self.slot_of(job).map(|slot| self.table.record(slot));
        let (tenant, name) = match alive {
            Some(record) if texts.name.is_empty() => {
                (&*self.policies.value(record.policy).policy.tenant_name, self.arena.entry(record.data).name)
            }
            _ => (texts.tenant, texts.name),
        };
        // Events carry the low half; the job's newest sequence tells the rest while the job exists.
        let newest = alive.map_or(u64::from(end.fire_sequence), JobRecord::fire_sequence);
        let fire_sequence = newest - (newest.wrapping_sub(u64::from(end.fire_sequence)) & 0xFFFF_FFFF).min(newest);
        ExecutionView {
            request_id,
            job,
            fire_sequence: FireSequence(fire_sequence),
            token: end.token,
            attempt: end.attempt,
            state: state_of(end.outcome),
            cancel_requested: end.outcome == AttemptOutcome::Cancelled,
            progress_permille: 0,
            scheduled_at: end.scheduled_at,
            dispatched_at: end.scheduled_at.saturating_add(std::time::Duration::from_micros(end.delay_us.into())),
            finished_at: end.finished_at,
            run_us: end.run_us,
            tenant,
            name,
            worker: self.workers.get(end.worker).map_or("", |worker| &worker.name),
            error: texts.error,
            output: texts.output,
        }
    }

    /// The newest attempt of one execution, in flight or remembered.
    pub(crate) fn view_execution(
        &self,
        job: JobId,
        fire_sequence: FireSequence,
        request_id: u64,
    ) -> Option<ExecutionView<'_>> {
        if let Some(slot) = self.slot_of(job)
            && let Some((place, _)) =
                self.in_flight(slot).find(|(_, execution)| execution.fire_sequence == fire_sequence)
        {
            return Some(self.view_in_flight(place, request_id));
        }
        let wanted = |attempt: &Attempt<'_>| {
            is_of(attempt, job.slot(), job.generation()) && attempt.end.fire_sequence == low(fire_sequence.0)
        };
        let recent = self.recent.iter().rev().find(wanted);
        let attempt = recent.or_else(|| self.dead_letters.iter().rev().find(wanted))?;
        (job.partition() == self.id).then(|| self.view_ended(&attempt, request_id))
    }

    /// The newest attempt that ended.
    pub(crate) fn newest_ended(&self) -> Option<Attempt<'_>> {
        self.recent.iter().next_back()
    }

    /// Remembered attempts.
    pub(crate) const fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Remembered dead letters, and those that were redriven, which are none any more.
    pub(crate) const fn dead_letters(&self) -> &Recent {
        &self.dead_letters
    }

    /// The tenant of the job in `slot`, which exists.
    pub(crate) fn tenant_of(&self, slot: u32) -> TenantId {
        self.policies.value(self.table.record(slot).policy).policy.tenant
    }
}

fn is_of(attempt: &Attempt<'_>, slot: u32, generation: u32) -> bool {
    attempt.generation == generation && attempt.end.slot == slot
}

pub(crate) const fn state_of(outcome: AttemptOutcome) -> ExecutionState {
    match outcome {
        AttemptOutcome::Succeeded => ExecutionState::Succeeded,
        AttemptOutcome::Failed => ExecutionState::Failed,
        AttemptOutcome::TimedOut => ExecutionState::TimedOut,
        AttemptOutcome::WorkerLost | AttemptOutcome::Undelivered => ExecutionState::WorkerLost,
        AttemptOutcome::Cancelled => ExecutionState::Cancelled,
        AttemptOutcome::TooLate => ExecutionState::TooLate,
    }
}
