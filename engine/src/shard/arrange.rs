//! What each job waits for: its one entry in the wheel, or its one key in the dispatcher.
//!
//! `arrange` is called wherever a job's outlook may have changed to something earlier. Where it can only have become later the
//! entry stays and is put right when it fires early.

use super::{AHEAD, DUE_PER_CALL, EXPIRIES_PER_CALL, EXPIRY_SLOT, Effects, Shard, key_of, split_key};
use crate::{
    dispatcher::{Class, ReadyKey},
    partition::{Partition, fire::Outlook, record::Flag},
    wheel::Armed,
};
use std::time::Duration;
use tickwheel_wire::{Now, PartitionId, Timestamp, planted::Mistake};

/// When a job is looked at again that the full ready queue did not take.
const QUEUE_FULL_RETRY: Duration = Duration::from_millis(100);
/// Entries that a purge looks at for each change of the wheel; see [`crate::wheel::Wheel::purge`].
const PURGE_PER_CHANGE: usize = 8;

impl Shard {
    /// Takes what is due from the wheel.
    pub(super) fn take_due(&mut self, effects: &mut Effects) {
        let mut due = std::mem::take(&mut self.due);
        let more = self.wheel.expire(self.now.wall, DUE_PER_CALL, &mut |key, armed| due.push((key, armed)));
        self.unfinished |= more;
        self.wheel_changes += due.len();
        for batch in due.chunks(AHEAD) {
            for &(key, _) in batch {
                self.prefetch(key, Partition::prefetch_record);
            }
            for &(key, armed) in batch {
                self.take_entry(key, armed, effects);
            }
        }
        due.clear();
        self.due = due;
    }

    /// Asks for a part of the memory of the job behind a key.
    #[inline]
    pub(super) fn prefetch(&self, key: u64, part: impl FnOnce(&Partition, u32)) {
        let (id, slot) = split_key(key);
        if let Some(partition) = self.partition(id) {
            part(partition, slot);
        }
    }

    fn take_entry(&mut self, key: u64, armed: Armed, effects: &mut Effects) {
        let (id, slot) = split_key(key);
        let live = match self.owned_mut(id) {
            None => false,
            Some(owned) if slot == EXPIRY_SLOT => owned.expiry == armed,
            Some(owned) if slot < owned.partition.slot_count() => owned.partition.slot(slot).armed == armed,
            Some(_) => false,
        };
        if !live {
            self.wheel.discard();
        } else if slot == EXPIRY_SLOT {
            self.owned_mut(id).expect("it is live").expiry = Armed::NONE;
            self.expire(id, effects);
        } else {
            self.owned_mut(id).expect("it is live").partition.volatile(slot).armed = Armed::NONE;
            self.arrange(id, slot, effects);
        }
    }

    /// Sees to it that the job in `slot` gets what it waits for next.
    #[inline]
    pub(super) fn arrange(&mut self, id: PartitionId, slot: u32, effects: &mut Effects) {
        // Skipping moves the next fire time beyond now, what is late goes at once, and an attempt ends or is asked to: few rounds.
        loop {
            match self.owned(id).partition.outlook(slot, self.now) {
                Outlook::Gone => return self.disarm(id, slot),
                Outlook::Ready => {
                    self.disarm(id, slot);
                    if !self.enqueue(id, slot) {
                        return self.arm(id, slot, self.now.wall.saturating_add(QUEUE_FULL_RETRY));
                    }
                    // While another attempt waits for a worker, firings still come due; and what waits may become too late.
                    let again = self.owned(id).partition.looks_again_at(slot, self.now);
                    return self.arm(id, slot, again);
                }
                Outlook::Wait(at) => return self.arm(id, slot, at),
                Outlook::SkipDue => {
                    self.decide(id, effects, |partition, turn| partition.skip(slot, turn));
                }
                Outlook::Overdue { place } => self.time_out(id, place, effects),
                Outlook::Late => self.drop_late(id, slot, effects),
                Outlook::Supersede { place, terminate } => self.supersede(id, place, terminate, effects),
            }
        }
    }

    /// The same where the outlook can only have become later, so that a live entry may stay.
    #[inline]
    pub(super) fn arrange_later(&mut self, id: PartitionId, slot: u32, effects: &mut Effects) {
        let Some(record) = self.owned(id).partition.job(slot) else { return };
        // A firing that is due has waited for the end of an execution that made up for another.
        let waits = record.is(Flag::ASKED_FOR) || record.next_fire() <= self.now.wall;
        if record.armed == Armed::NONE || waits || record.is(Flag::RULED) {
            self.arrange(id, slot, effects);
        }
    }

    #[inline]
    fn arm(&mut self, id: PartitionId, slot: u32, at: Timestamp) {
        let is_lost = Mistake::RearmedEntryLost.is_made()
            && self.owned(id).partition.slot(slot).armed != Armed::NONE
            && at.as_micros().is_multiple_of(16);
        self.disarm(id, slot);
        if is_lost {
            return;
        }
        if !at.is_never() {
            let armed = self.wheel.insert(at, key_of(id, slot));
            self.wheel_changes += 1;
            self.owned_mut(id).expect("the caller has it").partition.volatile(slot).armed = armed;
        }
    }

    /// Gives up the job's live wheel entry, if it has one.
    #[inline]
    pub(super) fn disarm(&mut self, id: PartitionId, slot: u32) {
        let record = self.owned_mut(id).expect("the caller has it").partition.volatile(slot);
        if std::mem::replace(&mut record.armed, Armed::NONE) != Armed::NONE {
            self.wheel.cancel();
            self.wheel_changes += 1;
        }
    }

    /// Puts the job's key into the ready queue, unless it is there. False if the queue is full.
    #[inline]
    fn enqueue(&mut self, id: PartitionId, slot: u32) -> bool {
        let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("the caller has it");
        if owned.partition.slot(slot).is(Flag::QUEUED) {
            return true;
        }
        let entry = owned.partition.policy_entry(slot);
        let directory = &self.config.directory;
        let pool = *entry.pool.get_or_insert_with(|| directory.pool_or_default(&entry.policy.pool));
        let class = Class { pool, priority: entry.policy.priority, tenant: entry.policy.tenant };
        let queued = self.dispatcher.enqueue(ReadyKey(key_of(id, slot)), class).is_ok();
        owned.partition.volatile(slot).set(Flag::QUEUED, queued);
        queued
    }

    /// Arms a job of a partition that was just adopted; what is due is left to the wheel, so that adoption decides nothing.
    pub(super) fn arm_adopted(&mut self, id: PartitionId, slot: u32, now: Now) {
        match self.owned(id).partition.outlook(slot, now) {
            Outlook::Gone => {}
            Outlook::Wait(at) => self.arm(id, slot, at),
            _ => self.arm(id, slot, now.wall),
        }
    }

    /// Drops finished jobs whose time is up.
    pub(super) fn expire(&mut self, id: PartitionId, effects: &mut Effects) {
        for _ in 0..EXPIRIES_PER_CALL {
            let Some(slot) = self.decide(id, effects, |partition, turn| partition.expire(turn)) else { break };
            self.disarm(id, slot);
        }
        self.arm_expiry(id);
    }

    /// Keeps the number of finished jobs within its bound; to be called where an execution ends.
    #[inline]
    pub(super) fn expire_excess(&mut self, id: PartitionId, effects: &mut Effects) {
        if self.owned(id).partition.has_excess() {
            self.expire(id, effects);
        } else if self.owned(id).expiry == Armed::NONE {
            self.arm_expiry(id);
        }
    }

    pub(super) fn arm_expiry(&mut self, id: PartitionId) {
        let now = self.now.wall;
        let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("the caller has it");
        if owned.expiry == Armed::NONE
            && let Some(at) = owned.partition.next_expiry()
        {
            owned.expiry = self.wheel.insert(at.max(now), key_of(id, EXPIRY_SLOT));
            self.wheel_changes += 1;
        }
    }

    /// Keeps dead wheel entries fewer than live ones.
    pub(super) fn purge_wheel(&mut self) {
        let limit = std::mem::take(&mut self.wheel_changes) * PURGE_PER_CHANGE;
        let partitions = &self.partitions;
        self.wheel.purge(limit, |key, armed| {
            let (id, slot) = split_key(key);
            let Some(owned) = &partitions[usize::from(id.0)] else { return false };
            let current = match slot {
                EXPIRY_SLOT => owned.expiry,
                slot if slot < owned.partition.slot_count() => owned.partition.slot(slot).armed,
                _ => Armed::NONE,
            };
            current == armed
        });
    }

    /// Notes the workers that a newly adopted partition's executions wait for.
    pub(super) fn await_workers(&mut self, id: PartitionId, now: Now) {
        let until = now.monotonic + Duration::from_millis(self.config.reattach_ms.into());
        let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("the caller has it");
        for place in 0..owned.partition.executions().place_count() {
            let Some(execution) = owned.partition.executions().at(place).filter(|execution| !execution.retrying) else {
                continue;
            };
            let worker = owned.partition.workers().entry(execution.worker);
            self.workers.await_instance(worker.instance, &worker.name, until);
            let (slot, cancelling) = (execution.slot, execution.cancel_requested);
            let deadline = self.config.attempt_deadline(&owned.partition, slot, cancelling, now.monotonic);
            let place = u32::try_from(place).expect("places are numbered so");
            let volatile = &mut owned.partition.executions_mut().get_mut(place).volatile;
            *volatile = crate::partition::execution::Volatile { deadline, ..Default::default() };
        }
    }
}
