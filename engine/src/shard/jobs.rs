//! Requests that change something: submissions, commands on one job, cancellations.

use super::{Effects, Gate, Origin, Refusal, Shard};
use crate::partition::{
    CancelError, Cancelled, JobError,
    backlog::{Backfill, BacklogError},
    execution::Execution,
    submit::{SubmitAnswer, SubmitError, SubmitRequest},
};
use std::time::Duration;
use tickwheel_wire::{
    DecodeError, JobId, PartitionId, TenantId, Timestamp,
    frame::{
        Frame, FrameType,
        request::{
            BackfillJob, BackfillTaken, CancelExecution, Done, ExpectedJob, JobCommand, JobVerb, RedriveExecution,
            RemoveCalendar, SetCalendar, SubmitJob, Submitted,
        },
        session::RefusalCode,
        work::CancelReason,
    },
    job::{JobSpec, JobSpecError},
    limits::{BACKLOG_MAX, IDEMPOTENCY_KEY_BYTES_MAX},
    name_hash, partition_of,
    planted::Mistake,
};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A refusal that owns its text.
pub(super) struct Denial {
    pub code: RefusalCode,
    pub detail: u64,
    pub field: &'static str,
    pub message: String,
}

impl Denial {
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, detail: 0, field: "", message: message.into() }
    }

    pub fn of_field(code: RefusalCode, field: &'static str, detail: usize, message: impl Into<String>) -> Self {
        Self { code, detail: u64::try_from(detail).unwrap_or(u64::MAX), field, message: message.into() }
    }

    pub fn send(&self, origin: &Origin<'_>, request_id: u64, effects: &mut Effects) {
        let Self { code, detail, field, message } = self;
        origin.refuse(effects, &Refusal { request_id, code: *code, detail: *detail, field, message });
    }
}

impl Shard {
    pub(super) fn handle_request(
        &mut self,
        origin: &Origin<'_>,
        frame_type: FrameType,
        body: &[u8],
        effects: &mut Effects,
    ) -> Result<(), DecodeError> {
        match frame_type {
            FrameType::SubmitJob => {
                let request = SubmitJob::decode_body(body)?;
                let answer = self.submit(origin, &request, effects);
                self.answer(origin, request.request_id, answer, effects);
            }
            FrameType::JobCommand => {
                let request = JobCommand::decode_body(body)?;
                let answer = self.command(origin, &request, effects);
                self.answer(origin, request.request_id, answer, effects);
            }
            FrameType::CancelExecution => {
                let request = CancelExecution::decode_body(body)?;
                let answer = self.cancel(origin, &request, effects);
                self.answer(origin, request.request_id, answer, effects);
            }
            FrameType::RedriveExecution => {
                let request = RedriveExecution::decode_body(body)?;
                let answer = self.redrive(origin, &request, effects);
                self.answer(origin, request.request_id, answer, effects);
            }
            FrameType::BackfillJob => {
                let request = BackfillJob::decode_body(body)?;
                let answer = self.backfill(origin, &request, effects);
                self.answer(origin, request.request_id, answer, effects);
            }
            FrameType::SetCalendar => {
                let request = SetCalendar::decode_body(body)?;
                let answer = self.set_calendar(origin, &request, effects);
                self.answer(origin, request.request_id, answer, effects);
            }
            FrameType::RemoveCalendar => {
                let request = RemoveCalendar::decode_body(body)?;
                let answer = self.remove_calendar(origin, &request, effects);
                self.answer(origin, request.request_id, answer, effects);
            }
            _ => return self.handle_query(origin, frame_type, body, effects),
        }
        Ok(())
    }

    fn answer<'f>(
        &self,
        origin: &Origin<'_>,
        request_id: u64,
        answer: Result<impl Frame<'f>, Denial>,
        effects: &mut Effects,
    ) {
        match answer {
            Ok(frame) => origin.reply(effects, &frame),
            Err(denial) => denial.send(origin, request_id, effects),
        }
    }

    fn submit(
        &mut self,
        origin: &Origin<'_>,
        request: &SubmitJob<'_>,
        effects: &mut Effects,
    ) -> Result<Submitted, Denial> {
        self.check_gate()?;
        let spec = JobSpec::decode(request.spec).map_err(|error| invalid_spec(&error))?;
        spec.validate(self.config.payload_bytes_max).map_err(|error| invalid_spec(&error))?;
        let tenant = self.tenant(origin, spec.tenant)?;
        let id = self.partition_of_name(request.partition, spec.tenant, spec.name)?;
        self.check_pool(&spec, tenant)?;
        if request.idempotency_key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let message = format!("the idempotency key is longer than {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            let code = RefusalCode::InvalidField;
            return Err(Denial::of_field(code, "idempotency_key", IDEMPOTENCY_KEY_BYTES_MAX, message));
        }
        let window_ms = match request.idempotency_window_ms {
            0 => self.config.idempotency_window_ms,
            window_ms => window_ms,
        };
        let submission = SubmitRequest {
            tenant,
            spec: &spec,
            spec_bytes: request.spec,
            mode: request.mode,
            expected_revision: request.expected_revision,
            idempotency_key: key_hash(&spec, request.idempotency_key),
            idempotency_window: Duration::from_millis(window_ms.into()),
        };
        let submitted = self.decide(id, effects, |partition, turn| partition.submit(&submission, turn));
        let SubmitAnswer { job, revision, next_fire, created } =
            submitted.map_err(|error| denied_submission(&error))?;
        // The answer to a repeated submission may be about a job that is gone.
        if let Some(slot) = self.owned(id).partition.slot_of(job) {
            self.note_zones(id, slot, effects);
            self.arrange(id, slot, effects);
        }
        // One that has had all the executions that it may have finishes with its new definition.
        self.expire_excess(id, effects);
        Ok(Submitted { request_id: request.request_id, job, revision: revision.into(), next_fire, created })
    }

    fn command(
        &mut self,
        origin: &Origin<'_>,
        request: &JobCommand<'_>,
        effects: &mut Effects,
    ) -> Result<Done, Denial> {
        self.check_gate()?;
        let tenant = self.tenant(origin, request.tenant)?;
        let id = self.partition_of_name(request.partition, request.tenant, request.name)?;
        let slot = self.slot(id, tenant, request.name)?;
        let partition = &self.owned(id).partition;
        let job = partition.job_id(slot);
        check_expected(&request.expected, job, partition.revision(slot).into())?;
        match request.verb {
            JobVerb::Delete => {
                self.delete(id, slot, effects);
                return Ok(Done { request_id: request.request_id, job, next_fire: Timestamp::MAX });
            }
            JobVerb::Pause => self.decide(id, effects, |partition, turn| partition.pause(slot, turn)),
            JobVerb::Resume => self.decide(id, effects, |partition, turn| partition.resume(slot, turn)),
            JobVerb::Trigger => {
                let triggered = self.decide(id, effects, |partition, turn| partition.trigger(slot, turn));
                triggered.map_err(|error: JobError| Denial::new(RefusalCode::OverlapSkipped, error.to_string()))?;
            }
            JobVerb::ClearBacklog => self.decide(id, effects, |partition, turn| partition.clear_backlog(slot, turn)),
        }
        // Its window may have passed meanwhile.
        self.expire_excess(id, effects);
        if !(Mistake::ResumedJobNotArmed.is_made() && request.verb == JobVerb::Resume) {
            self.arrange(id, slot, effects);
        }
        let next_fire = self.owned(id).partition.slot(slot).next_fire();
        Ok(Done { request_id: request.request_id, job, next_fire })
    }

    fn delete(&mut self, id: PartitionId, slot: u32, effects: &mut Effects) {
        let partition = &self.owned(id).partition;
        let job = partition.job_id(slot);
        let in_flight = partition.in_flight(slot).map(|(_, execution)| *execution);
        for execution in in_flight.filter(|execution| !execution.retrying).collect::<Vec<_>>() {
            self.tell_to_stop(id, &execution, CancelReason::JobDeleted, effects);
            self.abandon(job, execution.token, execution.volatile.place);
            self.statuses.forget(job, execution.token);
        }
        self.disarm(id, slot);
        self.decide(id, effects, |partition, turn| partition.delete(slot, turn));
    }

    fn cancel(
        &mut self,
        origin: &Origin<'_>,
        request: &CancelExecution,
        effects: &mut Effects,
    ) -> Result<Done, Denial> {
        self.check_gate()?;
        let CancelExecution { request_id, job, fire_sequence, .. } = *request;
        let id = self.partition_of_id(request.partition, job)?;
        let partition = &self.owned(id).partition;
        let slot = partition.slot_of(job).ok_or_else(unknown_job)?;
        if !origin.identity.may_act_for(partition.tenant_of(slot)) {
            return Err(unknown_job());
        }
        let cancelled = self.decide(id, effects, |partition, turn| partition.cancel(job, fire_sequence, turn));
        self.after_cancel(id, &cancelled.map_err(|error| denied_cancel(&error))?, effects);
        self.arrange(id, slot, effects);
        let next_fire = self.owned(id).partition.slot(slot).next_fire();
        Ok(Done { request_id, job, next_fire })
    }

    fn redrive(
        &mut self,
        origin: &Origin<'_>,
        request: &RedriveExecution,
        effects: &mut Effects,
    ) -> Result<Done, Denial> {
        self.check_gate()?;
        let RedriveExecution { request_id, job, fire_sequence, .. } = *request;
        let id = self.partition_of_id(request.partition, job)?;
        let partition = &self.owned(id).partition;
        let slot = partition.slot_of(job).ok_or_else(unknown_job)?;
        if !origin.identity.may_act_for(partition.tenant_of(slot)) {
            return Err(unknown_job());
        }
        let redriven = self.decide(id, effects, |partition, turn| partition.redrive(job, fire_sequence, turn));
        let slot = redriven.map_err(|error| denied_backlog(&error))?;
        self.arrange(id, slot, effects);
        let next_fire = self.owned(id).partition.slot(slot).next_fire();
        Ok(Done { request_id, job, next_fire })
    }

    fn backfill(
        &mut self,
        origin: &Origin<'_>,
        request: &BackfillJob<'_>,
        effects: &mut Effects,
    ) -> Result<BackfillTaken, Denial> {
        self.check_gate()?;
        let BackfillJob { request_id, from, until, dry_run, .. } = *request;
        let tenant = self.tenant(origin, request.tenant)?;
        let id = self.partition_of_name(request.partition, request.tenant, request.name)?;
        let slot = self.slot(id, tenant, request.name)?;
        let job = self.owned(id).partition.job_id(slot);
        let found = self.decide(id, effects, |partition, turn| partition.backfill(slot, (from, until), dry_run, turn));
        let Backfill { count, until } = found.map_err(|error| denied_backlog(&error))?;
        self.arrange(id, slot, effects);
        let backlog = self.owned(id).partition.backlog_of(slot);
        Ok(BackfillTaken { request_id, job, count, until, backlog })
    }

    /// What follows a cancellation but for the job's next entry.
    pub(super) fn after_cancel(&mut self, id: PartitionId, cancelled: &Cancelled, effects: &mut Effects) {
        match cancelled {
            Cancelled::Requested { place } | Cancelled::Repeated { place } => {
                self.stop_gracefully(id, *place, effects);
            }
            Cancelled::Ended { slot, execution, due_at } => {
                self.after_cancelled(id, *slot, execution.as_ref(), *due_at, effects);
            }
        }
    }

    /// Tells the worker of a running attempt to end it, and gives it a limited time to do so.
    fn stop_gracefully(&mut self, id: PartitionId, place: u32, effects: &mut Effects) {
        let now = self.now.monotonic;
        let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("it was looked up");
        let grace = now + Duration::from_millis(self.config.cancel_grace_ms.into());
        let volatile = &mut owned.partition.executions_mut().get_mut(place).volatile;
        volatile.deadline = Some(volatile.deadline.map_or(grace, |deadline| deadline.min(grace)));
        let execution = *owned.partition.executions().get(place);
        self.tell_to_stop(id, &execution, CancelReason::Requested, effects);
        if self.watch_count > 0 {
            self.notify_in_flight(id, place, effects);
        }
    }

    fn after_cancelled(
        &mut self,
        id: PartitionId,
        slot: u32,
        execution: Option<&Execution>,
        due_at: Timestamp,
        effects: &mut Effects,
    ) {
        if self.watch_count > 0 {
            self.notify_cancelled(id, slot, execution, due_at, effects);
        }
        self.expire_excess(id, effects);
    }

    pub(super) fn check_gate(&self) -> Result<(), Denial> {
        match self.gate {
            Gate::Open => Ok(()),
            Gate::OutOfSpace => {
                Err(Denial::new(RefusalCode::OutOfSpace, "there is no space left on disk for anything new"))
            }
            Gate::Draining => Err(Denial::new(RefusalCode::Draining, "the node drains and takes nothing new")),
        }
    }

    /// The tenant named, if the sender may act for it.
    pub(super) fn tenant(&self, origin: &Origin<'_>, name: &str) -> Result<TenantId, Denial> {
        let Some(tenant) = self.config.directory.tenant(name) else {
            let message = format!("the tenant `{name}` is not configured");
            return Err(Denial { field: "tenant", ..Denial::new(RefusalCode::UnknownTenant, message) });
        };
        if origin.identity.may_act_for(tenant) {
            return Ok(tenant);
        }
        let message = format!("`{}` may not act for the tenant `{name}`", origin.identity.name);
        Err(Denial { field: "tenant", ..Denial::new(RefusalCode::Forbidden, message) })
    }

    /// The partition that a request names, if it is here and the name belongs to it.
    pub(super) fn partition_of_name(
        &self,
        stated: PartitionId,
        tenant: &str,
        name: &str,
    ) -> Result<PartitionId, Denial> {
        let actual = partition_of(tenant, name, self.config.partition_count);
        if actual != stated {
            let message = format!("`{tenant}/{name}` belongs to partition {}, not {}", actual.0, stated.0);
            return Err(Denial { detail: actual.0.into(), ..Denial::new(RefusalCode::NotOwner, message) });
        }
        self.partition_here(stated)
    }

    pub(super) fn partition_of_id(&self, stated: PartitionId, job: JobId) -> Result<PartitionId, Denial> {
        if job.partition() != stated {
            let message = format!("job {job} belongs to partition {}, not {}", job.partition().0, stated.0);
            return Err(Denial { detail: job.partition().0.into(), ..Denial::new(RefusalCode::NotOwner, message) });
        }
        self.partition_here(stated)
    }

    pub(super) fn partition_here(&self, id: PartitionId) -> Result<PartitionId, Denial> {
        match self.partition(id) {
            Some(_) => Ok(id),
            None => Err(Denial::new(RefusalCode::NotOwner, format!("partition {} is not here", id.0))),
        }
    }

    pub(super) fn slot(&self, id: PartitionId, tenant: TenantId, name: &str) -> Result<u32, Denial> {
        self.owned(id).partition.slot_by_name(tenant, name).ok_or_else(unknown_job)
    }

    fn check_pool(&self, spec: &JobSpec<'_>, tenant: TenantId) -> Result<(), Denial> {
        let (code, message) = match self.config.directory.pool(spec.pool) {
            None => (RefusalCode::InvalidField, format!("the pool `{}` is not configured", spec.pool)),
            Some(pool) if !self.config.directory.pool_serves(pool, tenant) => {
                (RefusalCode::Forbidden, format!("the pool `{}` is another tenant's", spec.pool))
            }
            Some(_) => return Ok(()),
        };
        Err(Denial { field: "pool", ..Denial::new(code, message) })
    }
}

/// The hash by which a key is remembered; 0 for none. Keys are compared among submissions of the same job name: those of
/// different names may live in different partitions, so nothing is promised across names.
fn key_hash(spec: &JobSpec<'_>, key: &[u8]) -> u128 {
    if key.is_empty() { 0 } else { xxh3_128_with_seed(key, name_hash(spec.tenant, spec.name)).max(1) }
}

fn check_expected(expected: &ExpectedJob, job: JobId, revision: u64) -> Result<(), Denial> {
    let message = match expected.revision {
        0 => return Ok(()),
        _ if expected.job != job => format!("the job of this name is another one, {job}, with revision {revision}"),
        wanted if wanted != revision && !Mistake::StatedRevisionIgnored.is_made() => {
            format!("the job has revision {revision}")
        }
        _ => return Ok(()),
    };
    Err(Denial { detail: revision, ..Denial::new(RefusalCode::RevisionConflict, message) })
}

pub(super) fn unknown_job() -> Denial {
    Denial::new(RefusalCode::UnknownJob, "there is no such job")
}

fn invalid_spec(error: &JobSpecError) -> Denial {
    let message = error.to_string();
    match error {
        JobSpecError::Length { field: "payload", length_max, .. } => {
            Denial::of_field(RefusalCode::TooLarge, "payload", *length_max, message)
        }
        JobSpecError::Length { field, length_max, .. } => {
            Denial::of_field(RefusalCode::InvalidField, field, *length_max, message)
        }
        JobSpecError::Missing(field)
        | JobSpecError::ControlCharacter(field)
        | JobSpecError::Contradiction { field, .. } => Denial::of_field(RefusalCode::InvalidField, field, 0, message),
        JobSpecError::Range { field, max, .. } => {
            Denial { detail: *max, ..Denial::of_field(RefusalCode::InvalidField, field, 0, message) }
        }
        JobSpecError::Labels(cause) => Denial::of_field(RefusalCode::InvalidField, "labels", cause.limit(), message),
        _ => Denial { field: "spec", ..Denial::new(RefusalCode::Malformed, message) },
    }
}

fn denied_submission(error: &SubmitError) -> Denial {
    let message = error.to_string();
    match error {
        SubmitError::AlreadyExists => Denial::new(RefusalCode::AlreadyExists, message),
        SubmitError::RevisionConflict { found } => {
            Denial { detail: u64::from(*found), ..Denial::new(RefusalCode::RevisionConflict, message) }
        }
        SubmitError::IdempotencyConflict => Denial::new(RefusalCode::IdempotencyConflict, message),
        SubmitError::IdempotencyFull => {
            Denial { field: "idempotency_key", ..Denial::new(RefusalCode::Overloaded, message) }
        }
        SubmitError::JobsFull => Denial { field: "jobs", ..Denial::new(RefusalCode::Overloaded, message) },
        SubmitError::NeverFires => Denial { field: "schedule", ..Denial::new(RefusalCode::NeverFires, message) },
        SubmitError::Exclusions(_) | SubmitError::UnknownCalendar(_) => {
            Denial { field: "exclusions", ..Denial::new(RefusalCode::InvalidField, message) }
        }
        SubmitError::Cron(_) => Denial { field: "cron", ..Denial::new(RefusalCode::InvalidField, message) },
    }
}

fn denied_cancel(error: &CancelError) -> Denial {
    match error {
        CancelError::UnknownJob => unknown_job(),
        CancelError::UnknownExecution => Denial::new(RefusalCode::UnknownExecution, error.to_string()),
    }
}

fn denied_backlog(error: &BacklogError) -> Denial {
    let message = error.to_string();
    match error {
        BacklogError::UnknownJob => unknown_job(),
        BacklogError::NoDeadLetter => Denial::new(RefusalCode::UnknownExecution, message),
        BacklogError::Full => {
            Denial { detail: BACKLOG_MAX.into(), field: "backlog", ..Denial::new(RefusalCode::Overloaded, message) }
        }
        BacklogError::Range { field, .. } => Denial::of_field(RefusalCode::InvalidField, field, 0, message),
    }
}
