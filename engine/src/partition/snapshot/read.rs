//! Reading a snapshot.

use super::{
    FORMAT, FORMAT_MAX, SnapshotError,
    image::{
        ArchivedAttemptImage, ArchivedChunk, ArchivedExecutionImage, ArchivedPolicyImage, ArchivedSlotImage,
        ArchivedSubmissionImage, ArchivedTimingImage,
    },
};
use crate::{
    partition::{
        Counters, Flag, JobRecord, NONE, Partition,
        arena::Entry,
        execution::{Execution, Volatile},
        idempotency::Submission,
        name_key,
        policy::{Policy, PolicyEntry, Rhythm, Timing},
        recent::{Attempt, Texts},
    },
    shard::PartitionLimits,
};
use rkyv::rancor;
use tickwheel_wire::{
    InstanceId, JobId, PartitionId, TenantId, Timestamp, Token,
    event::AttemptEnd,
    job::{Misfire, Overlap, Priority, RetryPolicy},
};

/// Rebuilds a partition from the chunks of a snapshot, in their order.
#[derive(Debug)]
pub struct SnapshotReader {
    partition: Partition,
    slot_count: u32,
    chunk_count: u32,
    digest: Option<u64>,
}

impl SnapshotReader {
    /// Begins with nothing.
    pub fn new(id: PartitionId, limits: PartitionLimits) -> Self {
        Self { partition: Partition::new(id, limits), slot_count: 0, chunk_count: 0, digest: None }
    }

    /// Takes the next chunk in.
    ///
    /// # Errors
    /// When the chunk cannot be read, is out of order, or belongs to another version or partition.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
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
        match archived {
            ArchivedChunk::Head { format, partition, sequence, slot_count, counters } => {
                self.head(
                    format.to_native(),
                    partition.to_native(),
                    sequence.to_native(),
                    counters.map(|c| c.to_native()),
                )?;
                self.slot_count = slot_count.to_native();
            }
            ArchivedChunk::Jobs { policies, timings, slots } => {
                self.jobs(policies, timings, slots)
                    .ok_or_else(|| malformed("a job's fields are invalid".to_owned()))?;
            }
            ArchivedChunk::Executions(executions) => executions.iter().for_each(|image| self.execution(image)),
            ArchivedChunk::Workers(workers) => {
                for worker in workers.iter() {
                    let instance = InstanceId(worker.instance.to_native());
                    self.partition.workers.set(worker.index.to_native(), instance, &worker.name);
                }
            }
            ArchivedChunk::Attempts { dead_letters, attempts } => {
                for image in attempts.iter() {
                    self.attempt(*dead_letters, image).ok_or_else(|| malformed("an attempt is invalid".to_owned()))?;
                }
            }
            ArchivedChunk::Submissions(submissions) => submissions.iter().for_each(|image| self.submission(image)),
            ArchivedChunk::End { digest } => self.digest = Some(digest.to_native()),
        }
        Ok(())
    }

    /// Ends the reading. With `verify` the digest of the restored state is computed and compared, which walks everything.
    ///
    /// # Errors
    /// When the last chunk is missing, or the digest differs.
    pub fn finish(mut self, verify: bool) -> Result<Partition, SnapshotError> {
        let complete = self.partition.table.slot_count() == self.slot_count;
        let Some(expected) = self.digest.filter(|_| complete) else {
            return Err(SnapshotError::Incomplete { chunks: self.chunk_count });
        };
        self.link_executions();
        self.partition.restore_finished();
        if verify {
            let found = self.partition.digest();
            if found != expected {
                return Err(SnapshotError::Digest { expected, found });
            }
        }
        Ok(self.partition)
    }

    fn head(&mut self, format: u32, partition: u16, sequence: u64, counters: [u64; 8]) -> Result<(), SnapshotError> {
        if format != FORMAT {
            return Err(SnapshotError::Format { found: format });
        }
        if partition != self.partition.id.0 {
            return Err(SnapshotError::OtherPartition { found: partition });
        }
        let [fired, succeeded, failed_attempts, cancelled, dead, skipped, misfired, triggered] = counters;
        self.partition.sequence = sequence;
        self.partition.counters =
            Counters { fired, succeeded, failed_attempts, cancelled, dead, skipped, misfired, triggered };
        Ok(())
    }

    fn jobs(
        &mut self,
        policies: &[ArchivedPolicyImage],
        timings: &[ArchivedTimingImage],
        slots: &[ArchivedSlotImage],
    ) -> Option<()> {
        let policies: Vec<PolicyEntry> = policies.iter().map(policy_entry).collect::<Option<_>>()?;
        let timings: Vec<Timing> = timings.iter().map(timing).collect();
        for image in slots {
            self.slot(image, &policies, &timings)?;
        }
        Some(())
    }

    fn slot(&mut self, image: &ArchivedSlotImage, policies: &[PolicyEntry], timings: &[Timing]) -> Option<()> {
        let partition = &mut self.partition;
        let slot = partition.table.slot_count();
        let mut record = JobRecord::default();
        record.restore_marks(image.marks.to_native());
        if image.job != record.is(Flag::ALIVE) {
            return None;
        }
        if !image.job {
            partition.table.restore(record);
            return Some(());
        }
        let policy = policies.get(image.policy.to_native() as usize)?;
        let timing = timings.get(image.timing.to_native() as usize)?;
        let entry = Entry {
            slot,
            revision: image.revision.to_native(),
            created_at: image.created_at.to_native(),
            parameter: image.parameter.as_ref().map(|value| value.to_native()),
            name: &image.name,
            payload: &image.payload,
        };
        record.next_fire_raw = image.next_fire_raw.to_native();
        record.set_fire_sequence(image.fire_sequence.to_native());
        record.set_token(Token(image.token.to_native()));
        record.finished_secs = image.finished_secs.to_native();
        record.policy = partition.policies.acquire(policy.clone());
        record.schedule = partition.rhythms.acquire(Rhythm::new(timing.clone()));
        record.data = partition.arena.insert(&entry);
        partition.table.restore(record);
        if let Some(trigger) = image.trigger.as_ref() {
            partition.triggers.insert(slot, Timestamp::from_micros(trigger.to_native()));
        }
        let (table, arena, policies) = (&partition.table, &partition.arena, &partition.policies);
        partition.names.insert(name_key(policy.policy.tenant, entry.name), slot, |slot| {
            let record = table.record(slot);
            name_key(policies.value(record.policy).policy.tenant, arena.entry(record.data).name)
        });
        Some(())
    }

    fn execution(&mut self, image: &ArchivedExecutionImage) {
        let execution = Execution {
            slot: image.slot.to_native(),
            attempt: image.attempt.to_native(),
            worker: image.worker.to_native(),
            retrying: image.retrying,
            cancel_requested: image.cancel_requested,
            triggered: image.triggered,
            scheduled_at: Timestamp::from_micros(image.scheduled_at.to_native()),
            dispatched_at: Timestamp::from_micros(image.dispatched_at.to_native()),
            retry_at: Timestamp::from_micros(image.retry_at.to_native()),
            volatile: Volatile::default(),
        };
        if !execution.retrying {
            self.partition.workers.acquire(execution.worker);
        }
        self.partition.executions.insert(execution);
    }

    fn attempt(&mut self, dead_letters: bool, image: &ArchivedAttemptImage) -> Option<()> {
        let end = AttemptEnd::from_bytes(&image.end).ok()?;
        let (generation, retry_at) = (image.generation.to_native(), image.retry_at.to_native());
        let texts = Texts { error: &image.error, output: &image.output, tenant: &image.tenant, name: &image.name };
        let attempt = Attempt { end, generation, retry_at, dead: image.dead, texts };
        let ring = if dead_letters { &mut self.partition.dead_letters } else { &mut self.partition.recent };
        ring.push(&attempt);
        Some(())
    }

    fn submission(&mut self, image: &ArchivedSubmissionImage) {
        let submission = Submission {
            spec_hash: image.spec_hash.to_native(),
            job: JobId::from_raw(image.job.to_native()),
            revision: image.revision.to_native(),
            created: image.created,
            until: Timestamp::from_micros(image.until.to_native()),
        };
        self.partition.idempotency.insert(image.key.to_native(), submission, Timestamp::EPOCH);
    }

    /// Points the jobs to their executions, which came before them.
    fn link_executions(&mut self) {
        for place in 0..self.partition.executions.place_count() {
            let slot = self.partition.executions.at(place).expect("a restored slab has no gaps").slot;
            let record = self.partition.table.record_mut(slot);
            assert_eq!(record.execution, NONE, "a job has one execution in flight");
            record.execution = u32::try_from(place).expect("there are fewer executions than jobs");
        }
    }
}

/// Judges the head's format before the archive is opened, whose shape a newer format may have changed.
fn refuse_newer(head: &[u8]) -> Result<(), SnapshotError> {
    let [0, a, b, c, d, ..] = *head else { return Ok(()) };
    let found = u32::from_le_bytes([a, b, c, d]);
    if found > FORMAT && found <= FORMAT_MAX { Err(SnapshotError::Format { found }) } else { Ok(()) }
}

fn policy_entry(image: &ArchivedPolicyImage) -> Option<PolicyEntry> {
    let policy = Policy {
        tenant: TenantId(image.tenant.to_native()),
        tenant_name: (&*image.tenant_name).into(),
        handler: (&*image.handler).into(),
        pool: (&*image.pool).into(),
        priority: Priority::from_number(image.priority)?,
        retry: RetryPolicy {
            attempts_max: image.attempts_max.to_native(),
            initial_ms: image.initial_ms.to_native(),
            multiplier_milli: image.multiplier_milli.to_native(),
            delay_ms_max: image.delay_ms_max.to_native(),
            jitter_percent: image.jitter_percent,
        },
        start_to_close_ms: image.start_to_close_ms.to_native(),
        heartbeat_ms: image.heartbeat_ms.to_native(),
        misfire: Misfire::from_number(image.misfire)?,
        overlap: Overlap::from_number(image.overlap)?,
    };
    Some(PolicyEntry { policy, pool: None })
}

fn timing(image: &ArchivedTimingImage) -> Timing {
    match image {
        ArchivedTimingImage::Cron { expression, zone } => {
            Timing::Cron { expression: (&**expression).into(), zone: (&**zone).into() }
        }
        ArchivedTimingImage::Every { every_us } => Timing::Every { every_us: every_us.to_native() },
        ArchivedTimingImage::Once => Timing::Once,
    }
}
