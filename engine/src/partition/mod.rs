//! A partition: the durable state of a slice of all jobs, and the decisions about it.
//!
//! The state changes only by applying an event. A deciding function looks at the state and the time that it is given, emits
//! events into an [`EventBuffer`], and each event is applied at the moment it is emitted; recovery applies the same
//! events from the log and so decides nothing. One file per verb holds both halves: `submit`, `delete`, `pause`, `trigger`,
//! `fire`, `due`, `dispatch`, `complete`, `cancel`, `expire`, `reschedule`, `calendars`.
//!
//! Invariants:
//! - a job's executions in flight are linked from the newest to the oldest; there are several only with overlap policy `allow`, or since it was;
//! - a job's token grows by one with each dispatch of any of its executions, its fire sequence with each that begins;
//! - a job's next fire time is the scheduled time of the next firing that was not dispatched: a firing that is due but not
//!   dispatched exists nowhere else, and a crash merely makes it due again;
//! - equal states have equal digests, whatever the order of slots in free lists, of entries in arenas, or of interned values.
//!
//! Some fields of job records and executions are volatile and belong to the shard core (`record`, `execution`); they are
//! here because they are touched together. Deliberately absent: clocks, randomness, I/O, sessions, queues.

mod ahead;
mod arena;
pub(crate) mod backlog;
mod calendars;
mod cancel;
pub(crate) mod complete;
mod delete;
mod digest;
mod dispatch;
mod due;
pub(crate) mod execution;
mod expire;
pub(crate) mod fire;
mod idempotency;
mod intern;
mod names;
mod pause;
pub(crate) mod policy;
pub(crate) mod query;
pub(crate) mod recent;
pub(crate) mod record;
pub(crate) mod reschedule;
mod several;
mod snapshot;
mod standing;
pub(crate) mod submit;
mod table;
mod trigger;
mod workers;

#[cfg(test)]
mod tests;

pub use snapshot::{SnapshotError, SnapshotReader, SnapshotStep};

pub(crate) use calendars::CalendarError;
pub(crate) use cancel::{CancelError, Cancelled};
pub(crate) use complete::{CompleteError, Report};
pub(crate) use dispatch::Started;
pub(crate) use pause::JobError;

/// Bytes of a chunk of job records.
pub(crate) const RECORDS_BLOCK_BYTES: usize = size_of::<[JobRecord; table::CHUNK_SLOTS]>();
/// Bytes of a full ring of remembered attempts of the default length.
pub(crate) const ATTEMPTS_BLOCK_BYTES: usize = recent::LINE_BYTES * PartitionLimits::RECENT_MAX_DEFAULT as usize;
/// Bytes of a segment of names and payloads.
pub(crate) const ENTRIES_BLOCK_BYTES: usize = arena::SEGMENT_BYTES;

use crate::{
    schedule::Zones,
    shard::{EventBuffer, PartitionLimits},
};
use arena::Arena;
use backlog::Backlogs;
use calendars::Calendars;
use execution::{Execution, Executions};
use idempotency::Idempotency;
use intern::Interner;
use names::Names;
use policy::{Policy, PolicyEntry, Rhythm};
use recent::Recent;
use record::{Flag, JobRecord, NONE};
use snapshot::SnapshotWalk;
use standing::Standings;
use std::collections::{BTreeMap, VecDeque};
use table::Table;
use tickwheel_wire::{
    DecodeError, JobId, Now, PartitionId, Reader, TenantId, Timestamp, event::Event, planted::Mistake,
};
use workers::Workers;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a partition has counted since it exists. Durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Executions that began.
    pub fired: u64,
    /// Executions that succeeded.
    pub succeeded: u64,
    /// Attempts that failed, timed out or lost their worker.
    pub failed_attempts: u64,
    /// Executions that were cancelled.
    pub cancelled: u64,
    /// Executions whose last attempt failed.
    pub dead: u64,
    /// Firings that came due while an execution was in flight.
    pub skipped: u64,
    /// Firings that were missed, for which another execution stands.
    pub misfired: u64,
    /// Executions that were asked for by a trigger.
    pub triggered: u64,
    /// Executions that were not begun because it was too late for them.
    pub too_late: u64,
}

/// The durable state of one partition. See the module's text.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    limits: PartitionLimits,
    /// Number of events applied since the partition exists.
    sequence: u64,
    table: Table,
    names: Names,
    arena: Arena,
    policies: Interner<PolicyEntry>,
    rhythms: Interner<Rhythm>,
    executions: Executions,
    /// When each pending trigger was asked for, by slot.
    triggers: BTreeMap<u32, Timestamp>,
    backlogs: Backlogs,
    standings: Standings,
    workers: Workers,
    recent: Recent,
    dead_letters: Recent,
    /// Expiry and slot of finished jobs, the earliest first; entries of jobs that left that state are stale.
    finished: VecDeque<(Timestamp, u32)>,
    finished_count: u32,
    idempotency: Idempotency,
    counters: Counters,
    /// Fingerprint of the zone database that next firings come from; 0: not known.
    zones_version: u64,
    calendars: Calendars,
    snapshot: Option<Box<SnapshotWalk>>,
}

/// What a deciding function gets: the time, the zones, and where its events go.
pub(crate) struct Turn<'a> {
    pub now: Now,
    pub zones: &'a mut Zones,
    pub events: &'a mut EventBuffer,
}

/// Why a section of the log cannot be applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The section does not follow what was applied before.
    #[error("partition {}: the section begins at event {first_sequence}, but {sequence} events were applied", partition.0)]
    Gap {
        /// The partition.
        partition: PartitionId,
        /// Number of events applied.
        sequence: u64,
        /// Number of the section's first event.
        first_sequence: u64,
    },
    /// An event cannot be decoded.
    #[error("partition {}: event {sequence}: {error}", partition.0)]
    Event {
        /// The partition.
        partition: PartitionId,
        /// Number of the event.
        sequence: u64,
        /// What is wrong with it.
        error: DecodeError,
    },
}

impl Partition {
    /// An empty partition.
    pub fn new(id: PartitionId, limits: PartitionLimits) -> Self {
        Self {
            id,
            limits,
            sequence: 0,
            table: Table::new(),
            names: Names::new(),
            arena: Arena::default(),
            policies: Interner::new(),
            rhythms: Interner::new(),
            executions: Executions::default(),
            triggers: BTreeMap::new(),
            backlogs: Backlogs::new(),
            standings: Standings::default(),
            workers: Workers::default(),
            recent: Recent::new(limits.recent_max),
            dead_letters: Recent::new(limits.dead_letters_max),
            finished: VecDeque::new(),
            finished_count: 0,
            idempotency: Idempotency::default(),
            counters: Counters::default(),
            zones_version: 0,
            calendars: Calendars::default(),
            snapshot: None,
        }
    }

    /// Which partition this is.
    pub const fn id(&self) -> PartitionId {
        self.id
    }

    /// Number of the newest event; 0: none yet.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What was counted.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How many jobs there are.
    pub const fn job_count(&self) -> u32 {
        self.table.alive_count()
    }

    /// How many executions are in flight.
    pub const fn execution_count(&self) -> usize {
        self.executions.count()
    }

    /// Bytes of memory that the partition holds, used or not, by its own accounting.
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
            + self.names.memory_bytes()
            + self.arena.memory_bytes()
            + self.policies.memory_bytes()
            + self.rhythms.memory_bytes()
            + self.executions.memory_bytes()
            + self.triggers.len() * size_of::<(u32, Timestamp)>() * 3 / 2
            + backlog::memory_bytes(&self.backlogs)
            + self.standings.memory_bytes()
            + self.workers.memory_bytes()
            + self.recent.memory_bytes()
            + self.dead_letters.memory_bytes()
            + self.finished.capacity() * size_of::<(Timestamp, u32)>()
            + self.idempotency.memory_bytes()
            + self.calendars.memory_bytes()
    }

    /// Applies a section of the log. Events at its front that were applied before are skipped, so that a log that
    /// overlaps a snapshot can be replayed as it is.
    ///
    /// # Errors
    /// When events are missing between the state and the section, or one cannot be decoded.
    ///
    /// # Panics
    /// If an event contradicts the state: the log is another partition's or was damaged behind its checksums.
    pub fn apply_section(&mut self, first_sequence: u64, event_count: u32, bytes: &[u8]) -> Result<(), ReplayError> {
        if first_sequence > self.sequence + 1 {
            let (partition, sequence) = (self.id, self.sequence);
            return Err(ReplayError::Gap { partition, sequence, first_sequence });
        }
        let mut input = Reader::new(bytes);
        for sequence in first_sequence..first_sequence + u64::from(event_count) {
            let failed = |error| ReplayError::Event { partition: self.id, sequence, error };
            let event = Event::decode(&mut input).map_err(failed)?;
            if sequence > self.sequence {
                self.apply(&event);
            }
        }
        let sequence = self.sequence;
        input.finish().map_err(|error| ReplayError::Event { partition: self.id, sequence, error })
    }

    /// Changes the state by what happened.
    #[inline]
    fn apply(&mut self, event: &Event<'_>) {
        self.sequence += 1;
        match event {
            Event::Dispatched(dispatched) => self.apply_dispatched(dispatched),
            Event::Completed(end) => self.apply_completed(end, &[]),
            Event::CompletedOutput(end, output) => self.apply_completed(end, output),
            Event::AttemptFailed(end, retry_at, failure) => self.apply_attempt_failed(end, *retry_at, failure),
            Event::DeadLettered(end, failure) => self.apply_dead_lettered(end, failure),
            Event::JobCreated(created) => self.apply_created(created),
            Event::JobReplaced(replaced) => self.apply_replaced(replaced),
            Event::JobDeleted(change) | Event::JobExpired(change) => self.apply_removed(change.slot),
            Event::JobPaused(change) => self.apply_paused(change),
            Event::JobResumed(change) => self.apply_resumed(change),
            Event::Triggered(change) => self.apply_triggered(change),
            Event::Skipped(missed) => self.apply_skipped(missed),
            Event::Misfired(missed) => self.apply_misfired(missed),
            Event::TooLate(too_late) => self.apply_too_late(too_late),
            Event::Redriven(redriven) => self.apply_redriven(redriven),
            Event::Backfilled(backfilled) => self.apply_backfilled(backfilled),
            Event::BacklogCleared(change) => self.apply_backlog_cleared(change),
            Event::Rescheduled(change) => self.apply_rescheduled(change),
            Event::ZonesChanged(changed) => self.apply_zones_changed(changed),
            Event::CalendarSet(set) => self.apply_calendar_set(set),
            Event::CalendarRemoved(removed) => self.apply_calendar_removed(removed),
            Event::CalendarsFollowed => self.apply_calendars_followed(),
            Event::CancelRequested(cancellation) => self.apply_cancel_requested(cancellation),
            Event::Cancelled(cancellation) => self.apply_cancelled(cancellation),
            Event::WorkerSeen(seen) => self.workers.set(seen.worker, seen.instance, seen.name),
        }
    }

    /// Logs an event and applies it.
    #[inline]
    fn emit(&mut self, events: &mut EventBuffer, event: &Event<'_>) {
        if events.event_count == 0 {
            events.first_sequence = self.sequence + 1;
        }
        events.event_count += 1;
        event.encode(&mut events.bytes);
        self.apply(event);
    }

    /// The job's record, for a durable change: a snapshot in progress keeps the record as it was.
    #[inline]
    fn change(&mut self, slot: u32) -> &mut JobRecord {
        if let Some(walk) = &mut self.snapshot
            && !Mistake::SnapshotSeesLaterChanges.is_made()
        {
            walk.keep(slot, &self.table);
        }
        self.table.record_mut(slot)
    }

    /// The job's record, for a volatile change.
    #[inline]
    pub(crate) fn volatile(&mut self, slot: u32) -> &mut JobRecord {
        self.table.record_mut(slot)
    }

    /// The record of a job that exists.
    #[inline]
    pub(crate) fn job(&self, slot: u32) -> Option<&JobRecord> {
        self.table.alive(slot)
    }

    /// The slot's record, whether it holds a job or not.
    pub(crate) fn slot(&self, slot: u32) -> &JobRecord {
        self.table.record(slot)
    }

    pub(crate) const fn slot_count(&self) -> u32 {
        self.table.slot_count()
    }

    /// The slot of the job with this id, if it still exists.
    #[inline]
    pub(crate) fn slot_of(&self, job: JobId) -> Option<u32> {
        let record = self.table.alive(job.slot())?;
        (record.generation() == job.generation() && job.partition() == self.id).then_some(job.slot())
    }

    /// The slot of the job with this name.
    pub(crate) fn slot_by_name(&self, tenant: TenantId, name: &str) -> Option<u32> {
        self.names.find(name_key(tenant, name), |slot| {
            let record = self.table.record(slot);
            self.arena.entry(record.data).name == name && self.policies.value(record.policy).policy.tenant == tenant
        })
    }

    /// The id of the job in `slot`.
    #[inline]
    pub(crate) fn job_id(&self, slot: u32) -> JobId {
        JobId::new(self.id, self.table.record(slot).generation(), slot)
    }

    #[inline]
    pub(crate) fn policy(&self, record: &JobRecord) -> &Policy {
        &self.policies.value(record.policy).policy
    }

    #[inline]
    pub(crate) fn policy_entry(&mut self, slot: u32) -> &mut PolicyEntry {
        let policy = self.table.record(slot).policy;
        self.policies.value_mut(policy)
    }

    pub(crate) const fn executions(&self) -> &Executions {
        &self.executions
    }

    pub(crate) const fn executions_mut(&mut self) -> &mut Executions {
        &mut self.executions
    }

    /// The executions in flight of the job in `slot` and their places, the newest first.
    #[inline]
    pub(crate) fn in_flight(&self, slot: u32) -> impl Iterator<Item = (u32, &Execution)> {
        self.executions.of_job(self.table.record(slot).execution)
    }

    /// Where the execution is that has this low half of a fire sequence, if it is in flight.
    #[inline]
    pub(crate) fn place_of(&self, slot: u32, fire_sequence: u32) -> Option<u32> {
        let mut in_flight = self.in_flight(slot);
        in_flight.find(|(_, execution)| low(execution.fire_sequence.0) == fire_sequence).map(|(place, _)| place)
    }

    /// Whether fire sequence and token of an execution in flight are its job's newest, as those of an only one are.
    fn has_newest_numbers(&self, execution: &Execution) -> bool {
        let record = self.table.record(execution.slot);
        (execution.fire_sequence.0, execution.token) == (record.fire_sequence(), record.token())
    }

    /// Forgets an execution that has ended.
    #[inline]
    fn end_in_flight(&mut self, slot: u32, place: u32) -> Execution {
        let record = self.table.record_mut(slot);
        let (newest, ended) = self.executions.end(record.execution, place);
        record.execution = newest;
        ended
    }

    pub(crate) const fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Marks a job that has nothing left to do as finished. To be called wherever an execution ends or a firing goes.
    #[inline]
    fn settle(&mut self, slot: u32, at: Timestamp) {
        let record = self.table.record(slot);
        let idle = record.execution == NONE && !record.is(Flag::ASKED_FOR) && !record.is(Flag::FINISHED);
        if idle && record.next_fire().is_never() {
            self.finish(slot, at);
        }
    }
}

/// The index of no worker: of an execution that waits for its next attempt, or never had one.
const NO_WORKER: u16 = u16::MAX;

/// The key of a name in the partition's own index; not the hash that routes.
fn name_key(tenant: TenantId, name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), u64::from(tenant.0))
}

/// The low half, as events carry fire sequences.
#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
const fn low(value: u64) -> u32 {
    value as u32
}

/// Microseconds from one time to a later one, saturating.
fn micros_between(from: Timestamp, to: Timestamp) -> u32 {
    u32::try_from(to.as_micros().saturating_sub(from.as_micros())).unwrap_or(u32::MAX)
}
