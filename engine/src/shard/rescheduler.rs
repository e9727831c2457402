//! Next firings that were computed with another zone database than the shard's, or with calendars as they were before.
//!
//! A partition that is adopted with another database's fingerprint waits here for a walk over its jobs, which is taken further a slice per turn. Until a job is
//! reached, it fires as it would have.

use super::{Effects, Shard};
use crate::partition::reschedule::Rescheduling;
use std::collections::VecDeque;
use tickwheel_wire::PartitionId;

/// What the slice of one call may cost: about a millisecond.
const COST_PER_CALL: u32 = 8_192;
/// A search for the next firing costs as much as so many jobs without one.
const SEARCH_COST: u32 = 16;
/// What it costs to move a firing: events, and a look through the remembered attempts.
const MOVE_COST: u32 = 128;

/// Partitions whose jobs are yet to be looked at.
#[derive(Debug, Default)]
pub(super) struct Rescheduler {
    waiting: VecDeque<PartitionId>,
    /// The next slot of the first.
    slot: u32,
    /// How many jobs of the first were given another next firing.
    moved_count: u32,
    /// At most one for each partition that was adopted.
    done: Vec<Rescheduled>,
    count: u64,
}

/// A partition whose next firings come from the shard's zone database now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescheduled {
    /// Which partition.
    pub partition: PartitionId,
    /// How many of its jobs fire next at another time than before, counted since it was adopted.
    pub job_count: u32,
}

impl Rescheduler {
    /// Whether a partition's next firings may come from another database.
    pub fn awaits(&self, id: PartitionId) -> bool {
        self.waiting.contains(&id)
    }

    /// Forgets a partition.
    pub fn remove(&mut self, id: PartitionId) {
        if self.waiting.front() == Some(&id) {
            (self.slot, self.moved_count) = (0, 0);
        }
        self.waiting.retain(|waiting| *waiting != id);
    }
}

impl Shard {
    /// Has a partition's next firings computed again that come from another zone database than the shard's. An empty partition has none.
    pub(super) fn await_rescheduling(&mut self, id: PartitionId) {
        let partition = &self.owned(id).partition;
        let is_current = partition.zones_version() == self.zones.version() && !partition.calendars().are_behind();
        if !is_current && partition.slot_count() > 0 {
            self.rescheduler.waiting.push_back(id);
        }
    }

    /// Begins the walk over a partition's jobs, from the front if it is under way: its calendars have changed.
    pub(super) fn rescheduler_begins(&mut self, id: PartitionId) {
        self.rescheduler.remove(id);
        self.await_rescheduling(id);
        self.unfinished = true;
    }

    /// Notes where the next firing of a job comes from that was just submitted, if it is the first of the partition that a zone matters to.
    pub(super) fn note_zones(&mut self, id: PartitionId, slot: u32, effects: &mut Effects) {
        if self.owned(id).partition.depends_on_zones(slot) {
            self.note_first_zones(id, effects);
        }
    }

    /// Notes the zones at hand, unless there may be next firings that come from others.
    pub(super) fn note_first_zones(&mut self, id: PartitionId, effects: &mut Effects) {
        let is_noted = self.owned(id).partition.zones_version() == self.zones.version();
        if !is_noted && !self.rescheduler.awaits(id) {
            self.decide(id, effects, |partition, turn| partition.note_zones(turn));
        }
    }

    /// Takes the walk a slice further.
    pub(super) fn reschedule(&mut self, effects: &mut Effects) {
        let mut cost = 0;
        while let Some(&id) = self.rescheduler.waiting.front() {
            if cost >= COST_PER_CALL {
                self.unfinished = true;
                return;
            }
            let slot = self.rescheduler.slot;
            if slot >= self.owned(id).partition.slot_count() {
                let had_other_zones = self.owned(id).partition.zones_version() != self.zones.version();
                self.decide(id, effects, |partition, turn| {
                    partition.note_zones(turn);
                    partition.note_calendars(turn);
                });
                if had_other_zones {
                    let job_count = self.rescheduler.moved_count;
                    self.rescheduler.done.push(Rescheduled { partition: id, job_count });
                }
                self.rescheduler.remove(id);
                continue;
            }
            self.rescheduler.slot += 1;
            cost += match self.decide(id, effects, |partition, turn| partition.reschedule(slot, turn)) {
                Rescheduling::Unconcerned => 1,
                Rescheduling::Kept => SEARCH_COST,
                Rescheduling::Moved => {
                    self.rescheduler.moved_count += 1;
                    self.rescheduler.count += 1;
                    self.arrange(id, slot, effects);
                    MOVE_COST
                }
            };
        }
    }

    /// The partitions whose next firings have been computed again since the last call, because the zone database is another one.
    pub fn take_rescheduled(&mut self) -> Vec<Rescheduled> {
        std::mem::take(&mut self.rescheduler.done)
    }

    /// How many next firings another zone database has moved since the shard began.
    pub const fn rescheduled_count(&self) -> u64 {
        self.rescheduler.count
    }
}
