//! Reading a snapshot.
//!
//! The order of the chunks carries meaning: workers come before what refers to them, and executions before their jobs, so that each reference
//! is judged where it is read. Memory follows the bytes that are there: no length and no count in them reserves anything.

use super::{
    FORMAT, FORMAT_MAX, FORMAT_MIN, SnapshotError,
    image::{
        ArchivedAttemptImage, ArchivedBacklogImage, ArchivedCalendarImage, ArchivedChunk, ArchivedDefinitionImage,
        ArchivedExecutionImage, ArchivedPolicyImage, ArchivedSlotImage, ArchivedStandingImage, ArchivedSubmissionImage,
        ArchivedTimingImage, ArchivedWorkerImage,
    },
};
use crate::{
    hashing::Map,
    partition::{
        Counters, Flag, JobRecord, NO_WORKER, Partition,
        arena::Entry,
        backlog::Backlogs,
        execution::{Execution, Volatile},
        idempotency::Submission,
        name_key,
        policy::{Policy, PolicyEntry, Rhythm, Timing},
        recent::{Attempt, Texts},
        record::NONE,
        standing::Standing,
    },
    schedule::CronRules,
    shard::PartitionLimits,
};
use rkyv::rancor;
use std::borrow::Cow;
use tickwheel_wire::{
    FireSequence, InstanceId, JobId, PartitionId, TenantId, Timestamp, Token,
    event::{AttemptEnd, AttemptOutcome, Origin},
    job::{FiringRules, JobSpec, JobSpecError, Misfire, Overlap, Priority, RetryPolicy, ScheduleSpec},
    limits::{self, BACKLOG_MAX, CALENDAR_NAME_BYTES_MAX, EXCLUSIONS_BYTES_MAX},
};

/// Most events, and most of anything that is counted: half of what the number holds, so that counting can go on. A partition that passed this
/// bound or the next by its own life could not be read again; at a million a second that takes 300,000 years, or for one job four.
const COUNT_MAX: u64 = 1 << 63;
/// Highest fire sequence and token: half of what a record holds, a firing per microsecond for four years.
const SERIAL_MAX: u64 = 1 << 47;
/// In place of the numbers of an execution that has its job's newest.
const NEWEST: (FireSequence, Token) = (FireSequence(u64::MAX), Token(u64::MAX));

/// What jobs of a chunk have in common.
struct Definition {
    policy: PolicyEntry,
    timing: Timing,
}

/// A field that no partition can have.
struct Fault {
    field: &'static str,
    problem: Cow<'static, str>,
}

impl Fault {
    const fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem: Cow::Borrowed(problem) }
    }
}

#[inline]
const fn require(holds: bool, field: &'static str, problem: &'static str) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::new(field, problem)) }
}

/// Rebuilds a partition from the chunks of a snapshot, in their order.
#[derive(Debug)]
pub struct SnapshotReader {
    partition: Partition,
    slot_count: u32,
    chunk_count: u32,
    digest: Option<u64>,
    /// Where the executions are whose jobs are not read yet, by slot.
    executions: Map<u32, Vec<u32>>,
    /// The backlogs of jobs that are not read yet, by slot.
    backlogs: Backlogs,
    /// A chunk could not be read.
    failed: bool,
}

impl SnapshotReader {
    /// Begins with nothing.
    pub fn new(id: PartitionId, limits: PartitionLimits) -> Self {
        let partition = Partition::new(id, limits);
        let (executions, backlogs) = (Map::default(), Backlogs::new());
        Self { partition, slot_count: 0, chunk_count: 0, digest: None, executions, backlogs, failed: false }
    }

    /// Takes the next chunk in.
    ///
    /// # Errors
    /// When the chunk cannot be read, is out of order, contradicts itself or those before it, or belongs to another version or partition.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let read = self.read(bytes);
        self.failed |= read.is_err();
        read
    }

    /// Ends the reading. With `verify` the digest of the restored state is computed and compared, which walks everything.
    ///
    /// # Errors
    /// When the last chunk is missing or one could not be read, an execution has no job, or the digest differs.
    pub fn finish(mut self, verify: bool) -> Result<Partition, SnapshotError> {
        let complete = self.partition.table.slot_count() == self.slot_count && !self.failed;
        let Some(expected) = self.digest.filter(|_| complete) else {
            return Err(SnapshotError::Incomplete { chunks: self.chunk_count });
        };
        let chunk = self.chunk_count - 1;
        require(self.executions.is_empty(), "executions.slot", "holds no job").map_err(|fault| fault.at(chunk))?;
        require(self.backlogs.is_empty(), "backlogs.slot", "holds no job").map_err(|fault| fault.at(chunk))?;
        self.partition.restore_finished();
        if verify {
            let found = self.partition.digest();
            if found != expected {
                return Err(SnapshotError::Digest { expected, found });
            }
        }
        Ok(self.partition)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let chunk = self.chunk_count;
        let malformed = |reason: String| SnapshotError::Malformed { chunk, reason };
        if chunk == 0 {
            refuse_newer(bytes)?;
        }
        let archived =
            rkyv::access::<ArchivedChunk, rancor::Error>(bytes).map_err(|error| malformed(error.to_string()))?;
        let is_head = matches!(archived, ArchivedChunk::Head { .. });
        if is_head != (chunk == 0) || self.digest.is_some() {
            return Err(malformed("it is out of order".to_owned()));
        }
        self.chunk_count += 1;
        if let ArchivedChunk::Head { format, partition, .. } = archived {
            self.judge_head(format.to_native(), partition.to_native())?;
        }
        self.take(archived).map_err(|fault| fault.at(chunk))
    }

    fn judge_head(&self, format: u32, partition: u16) -> Result<(), SnapshotError> {
        if !(FORMAT_MIN..=FORMAT).contains(&format) {
            return Err(SnapshotError::Format { found: format });
        }
        if partition != self.partition.id.0 {
            return Err(SnapshotError::OtherPartition { found: partition });
        }
        Ok(())
    }

    fn take(&mut self, chunk: &ArchivedChunk) -> Result<(), Fault> {
        match chunk {
            ArchivedChunk::Head { sequence, slot_count, counters, .. } => {
                self.slot_count = slot_count.to_native();
                self.counts(sequence.to_native(), counters.map(|counter| counter.to_native()))
            }
            ArchivedChunk::Jobs { policies, timings, slots } => self.jobs(policies, timings, slots),
            ArchivedChunk::DefinedJobs { definitions, slots } => self.defined_jobs(definitions, slots),
            ArchivedChunk::Standings { too_late, standings } => {
                let too_late = too_late.to_native();
                require(too_late <= COUNT_MAX, "standings.too_late", "leaves no room to count on")?;
                self.partition.counters.too_late += too_late;
                standings.iter().try_for_each(|image| self.standing(image))
            }
            ArchivedChunk::Zones { version } => {
                let version = version.to_native();
                require(version != 0, "zones.version", "is 0")?;
                require(self.partition.zones_version == 0, "zones.version", "stands twice")?;
                self.partition.zones_version = version;
                Ok(())
            }
            ArchivedChunk::Calendars { behind, calendars } => {
                self.partition.calendars.restore_behind(*behind);
                calendars.iter().try_for_each(|image| self.calendar(image))
            }
            ArchivedChunk::Backlogs(backlogs) => backlogs.iter().try_for_each(|image| self.backlog(image)),
            ArchivedChunk::Executions(executions) => {
                executions.iter().try_for_each(|image| self.execution(image, NEWEST))
            }
            ArchivedChunk::NumberedExecutions(executions) => executions.iter().try_for_each(|image| {
                let numbers = (FireSequence(image.fire_sequence.to_native()), Token(image.token.to_native()));
                require(numbers.0 < NEWEST.0, "executions.fire_sequence", "is out of range")?;
                self.execution(&image.execution, numbers)
            }),
            ArchivedChunk::Workers(workers) => workers.iter().try_for_each(|image| self.worker(image)),
            ArchivedChunk::Attempts { dead_letters, attempts } => {
                attempts.iter().try_for_each(|image| self.attempt(*dead_letters, image))
            }
            ArchivedChunk::Submissions(submissions) => submissions.iter().try_for_each(|image| self.submission(image)),
            ArchivedChunk::End { digest } => {
                self.digest = Some(digest.to_native());
                Ok(())
            }
        }
    }

    fn counts(&mut self, sequence: u64, counters: [u64; 8]) -> Result<(), Fault> {
        require(sequence <= COUNT_MAX, "head.sequence", "leaves no room for further events")?;
        let countable = counters.iter().all(|counter| *counter <= COUNT_MAX);
        require(countable, "head.counters", "leave no room to count on")?;
        let [fired, succeeded, failed_attempts, cancelled, dead, skipped, misfired, triggered] = counters;
        self.partition.sequence = sequence;
        let too_late = 0;
        self.partition.counters =
            Counters { fired, succeeded, failed_attempts, cancelled, dead, skipped, misfired, triggered, too_late };
        Ok(())
    }

    fn jobs(
        &mut self,
        policies: &[ArchivedPolicyImage],
        timings: &[ArchivedTimingImage],
        slots: &[ArchivedSlotImage],
    ) -> Result<(), Fault> {
        let policies: Vec<PolicyEntry> = policies.iter().map(policy_entry).collect::<Result<_, _>>()?;
        let timings: Vec<Timing> = timings.iter().map(timing).collect::<Result<_, _>>()?;
        slots.iter().try_for_each(|image| {
            self.slot(image, || {
                let policy = policies.get(image.definition.to_native() as usize);
                let policy = policy.ok_or(Fault::new("jobs.policy", "is not in the chunk"))?.clone();
                let timing = timings.get(image.timing.to_native() as usize);
                let timing = timing.ok_or(Fault::new("jobs.timing", "is not in the chunk"))?.clone();
                Ok(Definition { policy, timing })
            })
        })
    }

    fn defined_jobs(&mut self, images: &[ArchivedDefinitionImage], slots: &[ArchivedSlotImage]) -> Result<(), Fault> {
        let specs: Vec<JobSpec<'_>> = images.iter().map(definition).collect::<Result<_, _>>()?;
        let tenants = images.iter().map(|image| TenantId(image.tenant.to_native()));
        let definitions: Vec<_> =
            specs.iter().zip(tenants).map(|(spec, tenant)| Definition::of(tenant, spec)).collect();
        slots.iter().try_for_each(|image| {
            self.slot(image, || {
                let index = image.definition.to_native() as usize;
                let Definition { policy, timing } =
                    definitions.get(index).ok_or(Fault::new("jobs.definition", "is not in the chunk"))?;
                let is_hashed = policy.policy.hashed.is_some() || timing.is_hashed();
                let timing = match is_hashed {
                    // What the job's name decides differs from job to job.
                    true => Timing::of(&JobSpec { name: &image.name, ..specs[index] }, Timestamp::EPOCH).0,
                    false => timing.clone(),
                };
                Ok(Definition { policy: policy.clone(), timing })
            })
        })
    }

    fn standing(&mut self, image: &ArchivedStandingImage) -> Result<(), Fault> {
        let slot = image.slot.to_native();
        require(slot < self.slot_count, "standings.slot", "lies beyond the table")?;
        let standing = Standing {
            missed_until: Timestamp::from_micros(image.missed_until.to_native()),
            overlapped_until: Timestamp::from_micros(image.overlapped_until.to_native()),
            failures: image.failures.to_native(),
        };
        self.partition.standings.set(slot, standing);
        Ok(())
    }

    fn backlog(&mut self, image: &ArchivedBacklogImage) -> Result<(), Fault> {
        let slot = image.slot.to_native();
        require(slot < self.slot_count, "backlogs.slot", "lies beyond the table")?;
        let fits = (1..=BACKLOG_MAX as usize).contains(&image.times.len());
        require(fits, "backlogs.times", "are none, or more than a job may have")?;
        let times = image.times.iter().map(|time| Timestamp::from_micros(time.to_native())).collect();
        require(self.backlogs.insert(slot, times).is_none(), "backlogs.slot", "stands twice")
    }

    fn slot(
        &mut self,
        image: &ArchivedSlotImage,
        definition: impl FnOnce() -> Result<Definition, Fault>,
    ) -> Result<(), Fault> {
        let slot = self.partition.table.slot_count();
        require(slot < self.slot_count, "jobs.slots", "go beyond the number that the head names")?;
        let mut record = JobRecord::default();
        require(record.restore_marks(image.marks.to_native()), "jobs.marks", "are no record's")?;
        require(image.job == record.is(Flag::ALIVE), "jobs.job", "contradicts the marks")?;
        if !image.job {
            self.partition.table.restore(record);
            return Ok(());
        }
        let Definition { policy, timing } = definition()?;
        record.set(Flag::RULED, policy.policy.is_ruled(&timing));
        let tenant = policy.policy.tenant;
        let trigger = image.trigger.as_ref().map(|trigger| Timestamp::from_micros(trigger.to_native()));
        require(trigger.is_some() == record.is(Flag::TRIGGERED), "jobs.trigger", "contradicts the marks")?;
        let backlog = self.backlogs.remove(&slot);
        require(backlog.is_some() == record.is(Flag::BACKLOG), "jobs.backlog", "contradicts the marks")?;
        let entry = self.entry(slot, image, tenant)?;
        self.progress(slot, image, &mut record)?;
        let partition = &mut self.partition;
        record.policy = partition.policies.acquire(policy);
        record.schedule = partition.rhythms.acquire(Rhythm::new(timing));
        record.data = partition.arena.insert(&entry);
        partition.table.restore(record);
        if let Some(trigger) = trigger {
            partition.triggers.insert(slot, trigger);
        }
        if let Some(backlog) = backlog {
            partition.backlogs.insert(slot, backlog);
        }
        let (table, arena, policies) = (&partition.table, &partition.arena, &partition.policies);
        partition.names.insert(name_key(tenant, entry.name), slot, |slot| {
            let record = table.record(slot);
            name_key(policies.value(record.policy).policy.tenant, arena.entry(record.data).name)
        });
        Ok(())
    }

    /// The cold data of the job in `slot`.
    fn entry<'a>(&self, slot: u32, image: &'a ArchivedSlotImage, tenant: TenantId) -> Result<Entry<'a>, Fault> {
        let entry = Entry {
            slot,
            revision: image.revision.to_native(),
            created_at: image.created_at.to_native(),
            parameter: image.parameter.as_ref().map(|value| value.to_native()),
            name: &image.name,
            payload: &image.payload,
        };
        require(entry.revision > 0, "jobs.revision", "is 0")?;
        require(!entry.name.is_empty(), "jobs.name", "is empty")?;
        if let Some(field) = entry.misfit() {
            return Err(Fault::new(field, "is longer or later than a job's may be"));
        }
        require(self.partition.arena.has_room(), "jobs.payload", "is more than the arena takes")?;
        let is_new = self.partition.slot_by_name(tenant, entry.name).is_none();
        require(is_new, "jobs.name", "is another job's too")?;
        Ok(entry)
    }

    /// How far the job in `slot` has come, and the execution of it that is in flight.
    fn progress(&mut self, slot: u32, image: &ArchivedSlotImage, record: &mut JobRecord) -> Result<(), Fault> {
        let (fire_sequence, token) = (image.fire_sequence.to_native(), image.token.to_native());
        require(fire_sequence <= SERIAL_MAX, "jobs.fire_sequence", "leaves no room for further firings")?;
        require(token <= SERIAL_MAX, "jobs.token", "leaves no room for further attempts")?;
        record.next_fire_raw = image.next_fire_raw.to_native();
        record.set_fire_sequence(fire_sequence);
        record.set_token(Token(token));
        record.finished_secs = image.finished_secs.to_native();
        let in_flight = self.executions.remove(&slot).unwrap_or_default();
        if record.is(Flag::FINISHED) {
            require(record.next_fire_raw != u64::MAX, "jobs.next_fire_raw", "of a finished job never comes")?;
            require(!record.is(Flag::ASKED_FOR), "jobs.marks", "are of a finished job that will fire")?;
            require(in_flight.is_empty(), "executions.slot", "holds a finished job")?;
        }
        if !in_flight.is_empty() {
            require(fire_sequence > 0, "jobs.fire_sequence", "is 0, with an execution in flight")?;
            require(token > 0, "jobs.token", "is 0, with an execution in flight")?;
        }
        self.link(in_flight, record)
    }

    /// Links a job's executions in flight from the newest to the oldest.
    fn link(&mut self, mut in_flight: Vec<u32>, record: &mut JobRecord) -> Result<(), Fault> {
        let executions = &mut self.partition.executions;
        for &place in &in_flight {
            let execution = executions.get_mut(place);
            if execution.fire_sequence == NEWEST.0 {
                (execution.fire_sequence, execution.token) = (FireSequence(record.fire_sequence()), record.token());
            }
            let Execution { fire_sequence, token, .. } = *execution;
            require(
                (1..=record.fire_sequence()).contains(&fire_sequence.0),
                "executions.fire_sequence",
                "is none of its job",
            )?;
            require((1..=record.token().0).contains(&token.0), "executions.token", "is none of its job")?;
        }
        in_flight.sort_unstable_by_key(|place| executions.get(*place).fire_sequence);
        for &place in &in_flight {
            let (older, fire_sequence) = (record.execution, executions.get(place).fire_sequence);
            let is_another = older == NONE || executions.get(older).fire_sequence < fire_sequence;
            require(is_another, "executions.slot", "holds a job with the same execution in flight")?;
            executions.get_mut(place).older = older;
            record.execution = place;
        }
        Ok(())
    }

    fn execution(
        &mut self,
        image: &ArchivedExecutionImage,
        (fire_sequence, token): (FireSequence, Token),
    ) -> Result<(), Fault> {
        let execution = Execution {
            slot: image.slot.to_native(),
            older: NONE,
            fire_sequence,
            token,
            attempt: image.attempt.to_native(),
            worker: image.worker.to_native(),
            retrying: image.retrying,
            cancel_requested: image.cancel_requested,
            origin: Origin::from_number(image.origin).ok_or(Fault::new("executions.origin", "is none"))?,
            scheduled_at: Timestamp::from_micros(image.scheduled_at.to_native()),
            dispatched_at: Timestamp::from_micros(image.dispatched_at.to_native()),
            retry_at: Timestamp::from_micros(image.retry_at.to_native()),
            volatile: Volatile::default(),
        };
        let Execution { slot, attempt, worker, retrying, .. } = execution;
        require(slot < self.slot_count, "executions.slot", "lies beyond the table")?;
        require(attempt < u16::MAX, "executions.attempt", "leaves no room for another")?;
        if retrying {
            require(worker == NO_WORKER, "executions.worker", "is named by an execution that waits")?;
        } else {
            require(attempt > 0, "executions.attempt", "is 0, and runs")?;
            require(self.partition.workers.get(worker).is_some(), "executions.worker", "is not known")?;
            self.partition.workers.acquire(worker);
        }
        let place = self.partition.executions.insert(execution);
        self.executions.entry(slot).or_default().push(place);
        Ok(())
    }

    fn calendar(&mut self, image: &ArchivedCalendarImage) -> Result<(), Fault> {
        let (tenant, name, exclusions) = (TenantId(image.tenant.to_native()), &*image.name, &*image.exclusions);
        let fits = (1..=CALENDAR_NAME_BYTES_MAX).contains(&name.len());
        require(fits, "calendars.name", "is empty, or longer than it may be")?;
        require(exclusions.len() <= EXCLUSIONS_BYTES_MAX, "calendars.exclusions", "is longer than it may be")?;
        let is_new = self.partition.calendars.get(tenant, name).is_none();
        require(is_new, "calendars.name", "stands twice")?;
        self.partition.calendars.restore(tenant, name, exclusions);
        Ok(())
    }

    fn worker(&mut self, image: &ArchivedWorkerImage) -> Result<(), Fault> {
        let index = image.index.to_native();
        require(index != NO_WORKER, "workers.index", "is out of range")?;
        let is_next = usize::from(index) == self.partition.workers.count();
        require(is_next, "workers.index", "does not follow the one before")?;
        self.partition.workers.set(index, InstanceId(image.instance.to_native()), &image.name);
        Ok(())
    }

    fn attempt(&mut self, dead_letters: bool, image: &ArchivedAttemptImage) -> Result<(), Fault> {
        let end = AttemptEnd::from_bytes(&image.end)
            .map_err(|error| Fault { field: "attempts.end", problem: error.to_string().into() })?;
        let generation = image.generation.to_native();
        require(generation <= JobId::GENERATION_MAX, "attempts.generation", "is out of range")?;
        require(end.slot < self.slot_count, "attempts.slot", "lies beyond the table")?;
        let is_known = match end.outcome {
            AttemptOutcome::TooLate => end.worker == NO_WORKER,
            _ => self.partition.workers.get(end.worker).is_some(),
        };
        require(is_known, "attempts.worker", "is not known")?;
        let texts = Texts { error: &image.error, output: &image.output, tenant: &image.tenant, name: &image.name };
        require(texts.error.len() <= limits::OUTPUT_BYTES_MAX, "attempts.error", "is too long")?;
        require(texts.output.len() <= limits::OUTPUT_BYTES_MAX, "attempts.output", "is too long")?;
        require(texts.tenant.len() <= limits::TENANT_NAME_BYTES_MAX, "attempts.tenant", "is too long")?;
        require(texts.name.len() <= limits::JOB_NAME_BYTES_MAX, "attempts.name", "is too long")?;
        let attempt = Attempt { end, generation, retry_at: image.retry_at.to_native(), dead: image.dead, texts };
        let ring = if dead_letters { &mut self.partition.dead_letters } else { &mut self.partition.recent };
        ring.push(&attempt);
        Ok(())
    }

    fn submission(&mut self, image: &ArchivedSubmissionImage) -> Result<(), Fault> {
        let submission = Submission {
            spec_hash: image.spec_hash.to_native(),
            job: JobId::from_raw(image.job.to_native()),
            revision: image.revision.to_native(),
            created: image.created,
            until: Timestamp::from_micros(image.until.to_native()),
        };
        let is_new = self.partition.idempotency.restore(image.key.to_native(), submission);
        require(is_new, "submissions.key", "is another submission's too")
    }
}

impl Fault {
    fn at(self, chunk: u32) -> SnapshotError {
        SnapshotError::Field { chunk, field: self.field, problem: self.problem }
    }
}

/// Judges the head's format before the archive is opened, whose shape a newer format may have changed.
fn refuse_newer(head: &[u8]) -> Result<(), SnapshotError> {
    let [0, a, b, c, d, ..] = *head else { return Ok(()) };
    let found = u32::from_le_bytes([a, b, c, d]);
    if found > FORMAT && found <= FORMAT_MAX { Err(SnapshotError::Format { found }) } else { Ok(()) }
}

fn policy_entry(image: &ArchivedPolicyImage) -> Result<PolicyEntry, Fault> {
    const UNKNOWN: &str = "has no meaning";
    let policy = Policy {
        tenant: TenantId(image.tenant.to_native()),
        tenant_name: (&*image.tenant_name).into(),
        handler: (&*image.handler).into(),
        pool: (&*image.pool).into(),
        priority: Priority::from_number(image.priority).ok_or(Fault::new("policies.priority", UNKNOWN))?,
        retry: RetryPolicy {
            attempts_max: image.attempts_max.to_native(),
            initial_ms: image.initial_ms.to_native(),
            multiplier_milli: image.multiplier_milli.to_native(),
            delay_ms_max: image.delay_ms_max.to_native(),
            jitter_percent: image.jitter_percent,
        },
        start_to_close_ms: image.start_to_close_ms.to_native(),
        heartbeat_ms: image.heartbeat_ms.to_native(),
        non_retryable: "".into(),
        rules: FiringRules {
            misfire: Misfire::from_number(image.misfire).ok_or(Fault::new("policies.misfire", UNKNOWN))?,
            overlap: Overlap::from_number(image.overlap).ok_or(Fault::new("policies.overlap", UNKNOWN))?,
            ..FiringRules::default()
        },
        labels: "".into(),
        exclusions: None,
        hashed: None,
    };
    let schedule = ScheduleSpec::Once { at: Timestamp::EPOCH };
    let spec = JobSpec::new(&policy.tenant_name, "any", &policy.handler, schedule);
    validate(&JobSpec { pool: &policy.pool, retry: policy.retry, ..spec })?;
    Ok(PolicyEntry::new(policy))
}

fn timing(image: &ArchivedTimingImage) -> Result<Timing, Fault> {
    let (timing, schedule) = match image {
        ArchivedTimingImage::Cron { expression, zone } => {
            let (text, zone_name) = ((&**expression).into(), (&**zone).into());
            let timing = Timing::Cron { expression: text, zone: zone_name, rules: CronRules::default() };
            (timing, ScheduleSpec::Cron { expression, zone })
        }
        ArchivedTimingImage::Every { every_us } => {
            let every_us = every_us.to_native();
            (Timing::Every { every_us }, ScheduleSpec::Interval { every_us, anchor: Timestamp::EPOCH })
        }
        ArchivedTimingImage::Once => (Timing::Once, ScheduleSpec::Once { at: Timestamp::EPOCH }),
    };
    validate(&JobSpec::new("any", "any", "any", schedule))?;
    Ok(timing)
}

impl Definition {
    fn of(tenant: TenantId, spec: &JobSpec<'_>) -> Self {
        let policy = PolicyEntry::new(Policy::of(tenant, spec));
        Self { policy, timing: Timing::of(spec, Timestamp::EPOCH).0 }
    }
}

fn definition(image: &ArchivedDefinitionImage) -> Result<JobSpec<'_>, Fault> {
    let spec = JobSpec::decode(&image.spec)
        .map_err(|error| Fault { field: "definitions.spec", problem: format!("cannot be read: {error}").into() })?;
    validate(&spec)?;
    Ok(spec)
}

/// Judges a definition as its submission was judged.
fn validate(spec: &JobSpec<'_>) -> Result<(), Fault> {
    spec.validate(limits::PAYLOAD_BYTES_MAX).map_err(|error| {
        let field = match error {
            JobSpecError::Length { field, .. } | JobSpecError::Range { field, .. } => field,
            JobSpecError::ControlCharacter(field) | JobSpecError::Missing(field) => field,
            JobSpecError::Contradiction { field, .. } => field,
            _ => "definition",
        };
        Fault { field, problem: format!("is refused: {error}").into() }
    })
}
