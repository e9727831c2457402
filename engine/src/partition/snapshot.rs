//! Snapshots: a partition as a row of chunks, written in slices while the partition goes on changing.
//!
//! A walk begins at one moment and describes that moment. What is small (executions in flight, workers, remembered attempts,
//! idempotency keys) is written down at once. The job table is walked slot by slot, about 128 KiB per step; before a record that the
//! walk has not reached changes, it is kept as it was (copy before write), and what it pointed to is given up only after the
//! walk. So no step takes longer than its slice, and a change costs one copy of 48 bytes.
//!
//! Each chunk is an rkyv archive, little-endian, read in place after validation; a chunk of jobs carries its own tables of the rules
//! and rhythms that its jobs share. Integrity of the bytes is the storage's business.

use super::{
    Counters, Flag, JobRecord, NONE, Partition,
    arena::Entry,
    execution::{Execution, Volatile},
    idempotency::Submission,
    policy::{Policy, PolicyEntry, Rhythm, Timing},
    recent::{Attempt, Texts},
    table::Table,
};
use crate::{hashing::Map, shard::PartitionLimits};
use rkyv::{Archive, Serialize, api::high::to_bytes_in, rancor, with::InlineAsBox};
use std::collections::{BTreeMap, VecDeque};
use tickwheel_wire::{
    InstanceId, JobId, PartitionId, TenantId, Timestamp, Token,
    event::AttemptEnd,
    job::{Misfire, Overlap, Priority, RetryPolicy},
};

/// Version of the chunks' contents. The first chunk is the head, which begins with its variant's number and this, in every format.
const FORMAT: u32 = 1;
/// Far above any format there will be; a chunk that is no head but begins like one has more there.
const FORMAT_MAX: u32 = 0xFFFF;
/// Slots that one chunk of jobs covers at most.
const SLOTS_PER_CHUNK: u32 = 8_192;
/// Bytes of names and payloads after which a chunk of jobs ends.
const CHUNK_DATA_BYTES: usize = 128 << 10;
/// Entries in a chunk of anything else, so that it stays below 1 MiB.
const ENTRIES_PER_CHUNK: usize = 8_192;
/// Attempts in a chunk; each may carry 4 KiB of output.
const ATTEMPTS_PER_CHUNK: usize = 192;
/// What one step gives up of what was retired during the walk.
const RETIRED_PER_STEP: usize = 4_096;

/// One step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    /// A chunk was appended.
    Chunk,
    /// Something was done, but there is no chunk.
    Working,
    /// The last chunk was appended; the snapshot is complete.
    Done {
        /// Number of the last event that it contains.
        sequence: u64,
        /// Digest of the state that it describes.
        digest: u64,
    },
}

/// Why a snapshot cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A chunk is not what its version says.
    #[error("chunk {chunk} of the snapshot cannot be read: {reason}")]
    Malformed {
        /// Number of the chunk, from 0.
        chunk: u32,
        /// What is wrong.
        reason: String,
    },
    /// The snapshot is of another version.
    #[error("the snapshot has format {found}, this version reads {FORMAT}")]
    Format {
        /// Its version.
        found: u32,
    },
    /// The snapshot is another partition's.
    #[error("the snapshot is of partition {found}")]
    OtherPartition {
        /// Whose.
        found: u16,
    },
    /// It ends early.
    #[error("the snapshot ends after {chunks} chunks without its last one")]
    Incomplete {
        /// How many chunks there were.
        chunks: u32,
    },
    /// The restored state has another digest.
    #[error("the restored state has the digest {found:016x}, expected was {expected:016x}")]
    Digest {
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
}

#[derive(Archive, Serialize)]
enum Chunk<'a> {
    Head { format: u32, partition: u16, sequence: u64, slot_count: u32, counters: [u64; 8] },
    Jobs { policies: Vec<PolicyImage>, timings: Vec<TimingImage>, slots: Vec<SlotImage<'a>> },
    Executions(Vec<ExecutionImage>),
    Workers(Vec<WorkerImage>),
    Attempts { dead_letters: bool, attempts: Vec<AttemptImage<'a>> },
    Submissions(Vec<SubmissionImage>),
    End { digest: u64 },
}

#[derive(Archive, Serialize)]
struct PolicyImage {
    tenant: u32,
    tenant_name: String,
    handler: String,
    pool: String,
    priority: u8,
    misfire: u8,
    overlap: u8,
    attempts_max: u16,
    initial_ms: u32,
    multiplier_milli: u16,
    delay_ms_max: u32,
    jitter_percent: u8,
    start_to_close_ms: u32,
    heartbeat_ms: u32,
}

#[derive(Archive, Serialize)]
enum TimingImage {
    Cron { expression: String, zone: String },
    Every { every_us: u64 },
    Once,
}

/// A slot; the fields after `job` are meaningless for a free one.
#[derive(Archive, Serialize)]
struct SlotImage<'a> {
    marks: u32,
    job: bool,
    next_fire_raw: u64,
    fire_sequence: u64,
    token: u64,
    finished_secs: u32,
    policy: u32,
    timing: u32,
    revision: u32,
    created_at: u64,
    parameter: Option<u64>,
    trigger: Option<u64>,
    #[rkyv(with = InlineAsBox)]
    name: &'a str,
    #[rkyv(with = InlineAsBox)]
    payload: &'a [u8],
}

#[derive(Archive, Serialize)]
struct ExecutionImage {
    slot: u32,
    attempt: u16,
    worker: u16,
    retrying: bool,
    cancel_requested: bool,
    triggered: bool,
    scheduled_at: u64,
    dispatched_at: u64,
    retry_at: u64,
}

#[derive(Archive, Serialize)]
struct WorkerImage {
    index: u16,
    instance: u128,
    name: String,
}

#[derive(Archive, Serialize)]
struct AttemptImage<'a> {
    end: [u8; AttemptEnd::BYTES],
    generation: u32,
    retry_at: u64,
    dead: bool,
    #[rkyv(with = InlineAsBox)]
    error: &'a str,
    #[rkyv(with = InlineAsBox)]
    output: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    tenant: &'a str,
    #[rkyv(with = InlineAsBox)]
    name: &'a str,
}

#[derive(Archive, Serialize)]
struct SubmissionImage {
    key: u128,
    spec_hash: u128,
    job: u64,
    revision: u32,
    created: bool,
    until: u64,
}

/// A snapshot being written.
#[derive(Debug)]
pub(super) struct SnapshotWalk {
    sequence: u64,
    slot_count: u32,
    /// The first slot that is not written yet.
    cursor: u32,
    /// Records that changed before the walk reached them, as they were.
    kept: Map<u32, JobRecord>,
    triggers: BTreeMap<u32, Timestamp>,
    /// Data, policies and rhythms to give up once the walk is over.
    pub(super) retired: Vec<(u32, u32, u32)>,
    /// Chunks of what is small.
    small: VecDeque<Vec<u8>>,
    digest: u64,
}

impl SnapshotWalk {
    /// Keeps a record that is about to change.
    #[inline]
    pub fn keep(&mut self, slot: u32, table: &Table) {
        if (self.cursor..self.slot_count).contains(&slot) {
            self.kept.entry(slot).or_insert_with(|| *table.record(slot));
        }
    }
}

impl Partition {
    /// Begins a snapshot of the state as it is now. Takes time in proportion to executions in flight and remembered things,
    /// not to jobs. False, and nothing happens, while another is being written.
    pub fn begin_snapshot(&mut self) -> bool {
        if self.snapshot.is_some() {
            return false;
        }
        let mut small = VecDeque::new();
        let counters = &self.counters;
        let counters = [
            counters.fired,
            counters.succeeded,
            counters.failed_attempts,
            counters.cancelled,
            counters.dead,
            counters.skipped,
            counters.misfired,
            counters.triggered,
        ];
        let (sequence, slot_count) = (self.sequence, self.table.slot_count());
        let head = Chunk::Head { format: FORMAT, partition: self.id.0, sequence, slot_count, counters };
        small.push_back(archive(&head, Vec::new()));
        let workers = self.workers.iter().map(|(index, worker)| WorkerImage {
            index,
            instance: worker.instance.0,
            name: worker.name.to_string(),
        });
        chunks(&mut small, workers, ENTRIES_PER_CHUNK, Chunk::Workers);
        chunks(&mut small, self.executions.iter().map(ExecutionImage::of), ENTRIES_PER_CHUNK, Chunk::Executions);
        for dead_letters in [false, true] {
            let ring = if dead_letters { &self.dead_letters } else { &self.recent };
            let build = |attempts| Chunk::Attempts { dead_letters, attempts };
            chunks(&mut small, ring.iter().map(AttemptImage::of), ATTEMPTS_PER_CHUNK, build);
        }
        let submissions = self.idempotency.iter().map(|(key, submission)| SubmissionImage::of(*key, submission));
        chunks(&mut small, submissions, ENTRIES_PER_CHUNK, Chunk::Submissions);
        let digest = self.digest_of_rest(&mut Vec::new());
        let (kept, triggers) = (Map::default(), self.triggers.clone());
        let walk = SnapshotWalk { sequence, slot_count, cursor: 0, kept, triggers, retired: Vec::new(), small, digest };
        self.snapshot = Some(Box::new(walk));
        true
    }

    /// Takes the snapshot one step further and appends its chunk, if any, to `out`, which should be empty.
    ///
    /// # Panics
    /// If no snapshot was begun.
    pub fn snapshot_step(&mut self, out: &mut Vec<u8>) -> SnapshotStep {
        let mut walk = self.snapshot.take().expect("a snapshot was begun");
        if let Some(chunk) = walk.small.pop_front() {
            out.extend_from_slice(&chunk);
        } else if walk.cursor < walk.slot_count {
            let chunk = self.walk_jobs(&mut walk);
            *out = archive(&chunk, std::mem::take(out));
        } else if walk.retired.is_empty() {
            *out = archive(&Chunk::End { digest: walk.digest }, std::mem::take(out));
            return SnapshotStep::Done { sequence: walk.sequence, digest: walk.digest };
        } else {
            let rest = walk.retired.len().saturating_sub(RETIRED_PER_STEP);
            for (data, policy, schedule) in walk.retired.drain(rest..) {
                self.retire(data, policy, schedule);
            }
            self.snapshot = Some(walk);
            return SnapshotStep::Working;
        }
        self.snapshot = Some(walk);
        SnapshotStep::Chunk
    }

    /// Gives a snapshot up that is being written.
    pub fn abandon_snapshot(&mut self) {
        if let Some(walk) = self.snapshot.take() {
            for (data, policy, schedule) in walk.retired {
                self.retire(data, policy, schedule);
            }
        }
    }

    /// The next slice of the job table.
    fn walk_jobs(&self, walk: &mut SnapshotWalk) -> Chunk<'_> {
        let (mut policies, mut timings, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let (mut policy_places, mut timing_places) = (Map::default(), Map::default());
        let (mut buffer, mut data_bytes) = (Vec::new(), 0);
        let end = walk.slot_count.min(walk.cursor + SLOTS_PER_CHUNK);
        while walk.cursor < end && data_bytes < CHUNK_DATA_BYTES {
            let slot = walk.cursor;
            walk.cursor += 1;
            let record = walk.kept.remove(&slot).unwrap_or(*self.table.record(slot));
            let trigger = walk.triggers.get(&slot).copied();
            walk.digest = walk.digest.wrapping_add(self.digest_of_slot(slot, &record, trigger, &mut buffer));
            if !record.is(Flag::ALIVE) {
                slots.push(SlotImage::free(&record));
                continue;
            }
            let policy = place(&mut policy_places, record.policy, &mut policies, || {
                PolicyImage::of(&self.policies.value(record.policy).policy)
            });
            let timing = place(&mut timing_places, record.schedule, &mut timings, || {
                TimingImage::of(&self.rhythms.value(record.schedule).timing)
            });
            let entry = self.arena.entry(record.data);
            data_bytes += entry.name.len() + entry.payload.len() + size_of::<SlotImage>();
            slots.push(SlotImage::of(&record, policy, timing, &entry, trigger));
        }
        Chunk::Jobs { policies, timings, slots }
    }
}

/// Judges the head's format before the archive is opened, whose shape a newer format may have changed.
fn refuse_newer(head: &[u8]) -> Result<(), SnapshotError> {
    let [0, a, b, c, d, ..] = *head else { return Ok(()) };
    let found = u32::from_le_bytes([a, b, c, d]);
    if found > FORMAT && found <= FORMAT_MAX { Err(SnapshotError::Format { found }) } else { Ok(()) }
}

/// The number of an interned value within a chunk.
fn place<T>(places: &mut Map<u32, u32>, index: u32, images: &mut Vec<T>, image: impl FnOnce() -> T) -> u32 {
    *places.entry(index).or_insert_with(|| {
        images.push(image());
        u32::try_from(images.len() - 1).expect("a chunk has few slots")
    })
}

fn chunks<'a, T>(
    out: &mut VecDeque<Vec<u8>>,
    images: impl Iterator<Item = T>,
    per_chunk: usize,
    build: impl Fn(Vec<T>) -> Chunk<'a>,
) {
    let mut images = images.peekable();
    while images.peek().is_some() {
        out.push_back(archive(&build(images.by_ref().take(per_chunk).collect()), Vec::new()));
    }
}

/// Appends a chunk's archive to `out`.
fn archive(chunk: &Chunk<'_>, out: Vec<u8>) -> Vec<u8> {
    to_bytes_in::<_, rancor::Error>(chunk, out).expect("serialising into memory cannot fail")
}

impl PolicyImage {
    fn of(policy: &Policy) -> Self {
        Self {
            tenant: policy.tenant.0,
            tenant_name: policy.tenant_name.to_string(),
            handler: policy.handler.to_string(),
            pool: policy.pool.to_string(),
            priority: policy.priority.number(),
            misfire: policy.misfire.number(),
            overlap: policy.overlap.number(),
            attempts_max: policy.retry.attempts_max,
            initial_ms: policy.retry.initial_ms,
            multiplier_milli: policy.retry.multiplier_milli,
            delay_ms_max: policy.retry.delay_ms_max,
            jitter_percent: policy.retry.jitter_percent,
            start_to_close_ms: policy.start_to_close_ms,
            heartbeat_ms: policy.heartbeat_ms,
        }
    }
}

impl TimingImage {
    fn of(timing: &Timing) -> Self {
        match timing {
            Timing::Cron { expression, zone } => {
                Self::Cron { expression: expression.to_string(), zone: zone.to_string() }
            }
            Timing::Every { every_us } => Self::Every { every_us: *every_us },
            Timing::Once => Self::Once,
        }
    }
}

impl<'a> SlotImage<'a> {
    const fn free(record: &JobRecord) -> Self {
        Self {
            marks: record.durable_marks(),
            job: false,
            next_fire_raw: 0,
            fire_sequence: 0,
            token: 0,
            finished_secs: 0,
            policy: 0,
            timing: 0,
            revision: 0,
            created_at: 0,
            parameter: None,
            trigger: None,
            name: "",
            payload: &[],
        }
    }

    fn of(record: &JobRecord, policy: u32, timing: u32, entry: &Entry<'a>, trigger: Option<Timestamp>) -> Self {
        Self {
            marks: record.durable_marks(),
            job: true,
            next_fire_raw: record.next_fire_raw,
            fire_sequence: record.fire_sequence(),
            token: record.token().0,
            finished_secs: record.finished_secs,
            policy,
            timing,
            revision: entry.revision,
            created_at: entry.created_at,
            parameter: entry.parameter,
            trigger: trigger.map(Timestamp::as_micros),
            name: entry.name,
            payload: entry.payload,
        }
    }
}

impl ExecutionImage {
    const fn of(execution: &Execution) -> Self {
        Self {
            slot: execution.slot,
            attempt: execution.attempt,
            worker: execution.worker,
            retrying: execution.retrying,
            cancel_requested: execution.cancel_requested,
            triggered: execution.triggered,
            scheduled_at: execution.scheduled_at.as_micros(),
            dispatched_at: execution.dispatched_at.as_micros(),
            retry_at: execution.retry_at.as_micros(),
        }
    }
}

impl<'a> AttemptImage<'a> {
    fn of(attempt: Attempt<'a>) -> Self {
        let Texts { error, output, tenant, name } = attempt.texts;
        Self {
            end: attempt.end.to_bytes(),
            generation: attempt.generation,
            retry_at: attempt.retry_at,
            dead: attempt.dead,
            error,
            output,
            tenant,
            name,
        }
    }
}

impl SubmissionImage {
    const fn of(key: u128, submission: &Submission) -> Self {
        Self {
            key,
            spec_hash: submission.spec_hash,
            job: submission.job.raw(),
            revision: submission.revision,
            created: submission.created,
            until: submission.until.as_micros(),
        }
    }
}

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
        partition.names.insert(super::name_key(policy.policy.tenant, entry.name), slot, |slot| {
            let record = table.record(slot);
            super::name_key(policies.value(record.policy).policy.tenant, arena.entry(record.data).name)
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
