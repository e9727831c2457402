//! A number that is equal for equal states.
//!
//! The sum (wrapping) of one XXH3-64 per item, each over a tag and the item's durable fields; the sum makes it independent of
//! the order in which tables hold them, and lets a snapshot compute it piece by piece. Volatile fields, indices of interned values,
//! handles and free lists do not enter. It depends on the [`PartitionLimits`](crate::shard::PartitionLimits) as far as the state does.

use super::{Flag, JobRecord, Partition, execution::Execution, idempotency::Submission, recent::Attempt};
use tickwheel_wire::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

mod tag {
    pub const FREE_SLOT: u8 = 1;
    pub const JOB: u8 = 2;
    pub const EXECUTION: u8 = 3;
    pub const WORKER: u8 = 4;
    pub const RECENT: u8 = 5;
    pub const DEAD_LETTER: u8 = 6;
    pub const SUBMISSION: u8 = 7;
    pub const COUNTERS: u8 = 8;
    pub const STANDING: u8 = 9;
    pub const BACKLOG: u8 = 10;
    pub const ZONES: u8 = 11;
    pub const CALENDAR: u8 = 12;
    pub const BEHIND: u8 = 13;
}

/// Collects one item's bytes.
struct Item<'a>(&'a mut Vec<u8>);

impl<'a> Item<'a> {
    fn new(buffer: &'a mut Vec<u8>, tag: u8) -> Self {
        buffer.clear();
        buffer.push(tag);
        Self(buffer)
    }

    fn number(self, value: impl Into<u128>) -> Self {
        self.0.extend_from_slice(&value.into().to_le_bytes());
        self
    }

    fn time(self, value: Timestamp) -> Self {
        self.number(value.as_micros())
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let item = self.number(u64::try_from(bytes.len()).expect("lengths fit"));
        item.0.extend_from_slice(bytes);
        item
    }

    /// What `encode` appends, as [`Item::bytes`] takes it.
    fn encoded(self, encode: impl FnOnce(&mut Vec<u8>)) -> Self {
        let length_at = self.0.len();
        let item = self.number(0_u64);
        let start = item.0.len();
        encode(item.0);
        let length = (item.0.len() - start) as u128;
        item.0[length_at..start].copy_from_slice(&length.to_le_bytes());
        item
    }

    fn hash(self) -> u64 {
        xxh3_64(self.0)
    }
}

impl Partition {
    /// A number that is equal for equal states. Walks everything: for tests, verification and moves, not for a turn.
    pub fn digest(&self) -> u64 {
        let mut buffer = Vec::new();
        let mut sum = self.digest_of_rest(&mut buffer);
        for slot in 0..self.table.slot_count() {
            let trigger = self.triggers.get(&slot).copied();
            sum = sum.wrapping_add(self.digest_of_slot(slot, self.table.record(slot), trigger, &mut buffer));
        }
        sum
    }

    /// Everything but the job table.
    pub(super) fn digest_of_rest(&self, buffer: &mut Vec<u8>) -> u64 {
        let mut sum = self.digest_of_counters(buffer);
        for execution in self.executions.iter() {
            sum = sum.wrapping_add(self.digest_of_execution(execution, buffer));
        }
        for (index, worker) in self.workers.iter() {
            let item = Item::new(buffer, tag::WORKER).number(index).number(worker.instance.0).number(worker.uses);
            sum = sum.wrapping_add(item.bytes(worker.name.as_bytes()).hash());
        }
        for (attempts, tag) in [(&self.recent, tag::RECENT), (&self.dead_letters, tag::DEAD_LETTER)] {
            for (place, attempt) in (0_u64..).zip(attempts.iter()) {
                sum = sum.wrapping_add(digest_of_attempt(&attempt, place, tag, buffer));
            }
        }
        for (key, submission) in self.idempotency.iter() {
            sum = sum.wrapping_add(digest_of_submission(*key, submission, buffer));
        }
        for (slot, standing) in self.standings.iter() {
            let item = Item::new(buffer, tag::STANDING).number(slot).number(standing.failures);
            sum = sum.wrapping_add(item.time(standing.missed_until).time(standing.overlapped_until).hash());
        }
        for (tenant, name, exclusions) in self.calendars.iter() {
            let item = Item::new(buffer, tag::CALENDAR).number(tenant.0).bytes(name.as_bytes());
            sum = sum.wrapping_add(item.bytes(exclusions.as_bytes()).hash());
        }
        if self.calendars.are_behind() {
            sum = sum.wrapping_add(Item::new(buffer, tag::BEHIND).hash());
        }
        for (slot, times) in &self.backlogs {
            let item = Item::new(buffer, tag::BACKLOG).number(*slot);
            sum = sum.wrapping_add(times.iter().fold(item, |item, time| item.time(*time)).hash());
        }
        if self.zones_version != 0 {
            sum = sum.wrapping_add(Item::new(buffer, tag::ZONES).number(self.zones_version).hash());
        }
        sum
    }

    fn digest_of_counters(&self, buffer: &mut Vec<u8>) -> u64 {
        let counters = &self.counters;
        let numbers = [
            self.sequence,
            counters.fired,
            counters.succeeded,
            counters.failed_attempts,
            counters.cancelled,
            counters.dead,
            counters.skipped,
            counters.misfired,
            counters.triggered,
        ];
        let item = numbers.into_iter().fold(Item::new(buffer, tag::COUNTERS), Item::number);
        // Digests of partitions that know nothing of it stay as they were.
        if counters.too_late == 0 { item.hash() } else { item.number(counters.too_late).hash() }
    }

    /// A slot whose record is, or was, `record`.
    pub(super) fn digest_of_slot(
        &self,
        slot: u32,
        record: &JobRecord,
        trigger: Option<Timestamp>,
        buffer: &mut Vec<u8>,
    ) -> u64 {
        if !record.is(Flag::ALIVE) {
            return Item::new(buffer, tag::FREE_SLOT).number(slot).number(record.generation()).hash();
        }
        let entry = self.arena.entry(record.data);
        Item::new(buffer, tag::JOB)
            .number(slot)
            .number(record.durable_marks())
            .number(record.next_fire_raw)
            .number(record.fire_sequence())
            .number(record.token().0)
            .number(record.finished_secs)
            .number(self.policies.value(record.policy).policy.tenant.0)
            .number(entry.revision)
            .number(entry.created_at)
            .time(trigger.unwrap_or(Timestamp::MAX))
            .encoded(|out| self.spec_of(record).encode(out))
            .hash()
    }

    fn digest_of_execution(&self, execution: &Execution, buffer: &mut Vec<u8>) -> u64 {
        let item = Item::new(buffer, tag::EXECUTION)
            .number(execution.slot)
            .number(execution.attempt)
            .number(execution.worker)
            .number(u8::from(execution.retrying))
            .number(u8::from(execution.cancel_requested))
            .number(execution.origin.number())
            .time(execution.scheduled_at)
            .time(execution.dispatched_at)
            .time(execution.retry_at);
        // Digests of partitions that know nothing of several executions stay as they were.
        if self.has_newest_numbers(execution) {
            item.hash()
        } else {
            item.number(execution.fire_sequence.0).number(execution.token.0).hash()
        }
    }
}

fn digest_of_attempt(attempt: &Attempt<'_>, place: u64, tag: u8, buffer: &mut Vec<u8>) -> u64 {
    let texts = &attempt.texts;
    Item::new(buffer, tag)
        .number(place)
        .number(attempt.generation)
        .number(attempt.retry_at)
        .number(u8::from(attempt.dead))
        .bytes(&attempt.end.to_bytes())
        .bytes(texts.error.as_bytes())
        .bytes(texts.output)
        .bytes(texts.tenant.as_bytes())
        .bytes(texts.name.as_bytes())
        .hash()
}

fn digest_of_submission(key: u128, submission: &Submission, buffer: &mut Vec<u8>) -> u64 {
    Item::new(buffer, tag::SUBMISSION)
        .number(key)
        .number(submission.spec_hash)
        .number(submission.job.raw())
        .number(submission.revision)
        .number(u8::from(submission.created))
        .time(submission.until)
        .hash()
}
