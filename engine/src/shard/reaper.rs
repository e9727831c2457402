//! Attempts whose workers are lost, or never got them.
//!
//! Workers go away rarely and then with many executions, so there is no list of executions per worker: when a worker's time has
//! run out, a walk over all executions in flight ends those concerned, in slices.

use super::{Effects, Shard, workers::Presence};
use std::time::Duration;
use tickwheel_wire::{PartitionId, event::AttemptOutcome, frame::work::CancelReason};

/// Executions that one call looks at.
const PLACES_PER_CALL: usize = 4_096;

/// A walk over all executions in flight.
#[derive(Debug)]
struct Walk {
    /// Waits that had run out by then are dealt with by this walk.
    began: Duration,
    partition: u16,
    place: usize,
}

#[derive(Debug, Default)]
pub(super) struct Reaper {
    walk: Option<Walk>,
}

impl Shard {
    /// Takes the walk a slice further, or begins one if a worker's time has run out.
    pub(super) fn reap(&mut self, effects: &mut Effects) {
        let began = self.now.monotonic;
        if self.reaper.walk.is_none() && self.workers.next_deadline().is_some_and(|deadline| deadline <= began) {
            self.reaper.walk = Some(Walk { began, partition: 0, place: 0 });
        }
        let Some(mut walk) = self.reaper.walk.take() else { return };
        for _ in 0..PLACES_PER_CALL {
            if usize::from(walk.partition) >= self.partitions.len() {
                self.workers.settle_expired(walk.began);
                return;
            }
            let id = PartitionId(walk.partition);
            let place_count = self.partition(id).map_or(0, |partition| partition.executions().place_count());
            if walk.place >= place_count {
                (walk.partition, walk.place) = (walk.partition + 1, 0);
                continue;
            }
            self.reap_place(id, walk.place, walk.began, effects);
            walk.place += 1;
        }
        self.reaper.walk = Some(walk);
        self.unfinished = true;
    }

    fn reap_place(&mut self, id: PartitionId, place: usize, began: Duration, effects: &mut Effects) {
        let partition = &self.owned(id).partition;
        let Some(execution) = partition.executions().at(place).filter(|execution| !execution.retrying) else { return };
        let slot = execution.slot;
        let instance = partition.workers().entry(execution.worker).instance;
        let outcome = match self.workers.by_instance(instance) {
            None => AttemptOutcome::WorkerLost,
            Some(worker) => match worker.presence {
                Presence::Away(until) if until <= began => AttemptOutcome::WorkerLost,
                Presence::Claiming(until) if until <= began && execution.volatile.attachment != worker.attachment => {
                    self.unclaimed(id, slot)
                }
                _ => return,
            },
        };
        let place = u32::try_from(place).expect("places are numbered so");
        self.stop_attempt(id, place, outcome, CancelReason::StaleToken, effects);
        self.arrange(id, slot, effects);
    }

    /// What became of an attempt that its worker, back again, did not claim in time: most likely it never got it. But its claim
    /// may be late, so a job that allows one attempt gets no other.
    fn unclaimed(&self, id: PartitionId, slot: u32) -> AttemptOutcome {
        let partition = &self.owned(id).partition;
        let allows_one = partition.policy(partition.slot(slot)).retry.attempts_max == 1;
        if allows_one { AttemptOutcome::WorkerLost } else { AttemptOutcome::Undelivered }
    }
}
